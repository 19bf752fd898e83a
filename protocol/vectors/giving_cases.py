"""Vectors of histories without a price (SPEC §3.3, §3.4): gifts, what moved them, vouches, and a debt written off.

Owns the stories, told as those of `history_cases` are: each step asserts the refusal that it must meet.
"""

from __future__ import annotations

from typing import Any

from vectors.community import Community
from vectors.history_cases import legs_to, town_of
from vectors.notation import drawn, file_text, peer

LOAVES: dict[str, Any] = {"code": "loaves", "name": "Brot, ganze Laibe", "unit": "1", "scale": 0}


def giving_json() -> str:
    """Give the text of `giving.json`."""
    return file_text(
        about="Histories of gifts and of trust, in the form of histories.json.",
        spec="§3.3, §3.4, §4",
        cases=[story().case() for story in (gifts, vouches, writeoff)],
    )


def gifts() -> Community:
    """Gifts are offered, thanked for, declined, withdrawn, and move others to give; money does not notice."""
    town = town_of("gifts: 10 % a day melts, but no gift", "ben", "carla", "dora")
    town.say("anna issues to ben", "issue", "anna", to=peer("ben"), amount=1_000)
    town.say("a kind that nobody made", "gift", "ben", to=peer("carla"), kind="loaves", quantity=2, fails="not-found")
    town.say("only stewards make kinds", "kind", "ben", **LOAVES, fails="not-authorised")
    town.say("anna makes a kind", "kind", "anna", **LOAVES)
    town.say("once", "kind", "anna", **LOAVES, fails="wrong-state")
    town.say("hours are there from the founding on", "kind", "anna", **{**LOAVES, "code": "hour"}, fails="wrong-state")
    bread = _offer(town, "ben offers carla two loaves", "ben", to=peer("carla"), kind="loaves", quantity=2)
    town.say("it does not move her before it is hers", "gift", "carla", **_hours("dora", 3, bread), fails="wrong-state")
    town.wait(ticks=1)
    town.say("another's to thank for", "thank", "dora", gift=bread, fails="not-authorised")
    town.say("no such gift", "thank", "carla", gift=drawn("no gift", 16), fails="not-found")
    town.say("carla thanks: ben's money has melted, and is not touched", "thank", "carla", gift=bread)
    town.say("once", "thank", "carla", gift=bread, fails="wrong-state")
    town.say("too late to decline", "decline", "carla", gift=bread, fails="wrong-state")
    town.say("too late to withdraw", "withdraw", "ben", gift=bread, fails="wrong-state")
    wrong: dict[str, Any] = {**_hours("carla", 3, bread), "fails": "not-authorised"}
    town.say("it moves her, nobody else", "gift", "dora", **wrong)
    none = drawn("no gift", 16)
    town.say("moved by nothing there is", "gift", "carla", **_hours("dora", 3, none), fails="not-found")
    town.say("to a stranger", "gift", "carla", **_hours("emil", 3, bread), fails="unknown-member")
    hours = _offer(town, "the bread moves carla to give dora hours", "carla", **_hours("dora", 150, bread))
    town.say("dora thanks", "thank", "dora", gift=hours)
    too_many = _offer(town, "dora offers hours to all", "dora", to="pool", kind="hour", quantity=10**15)
    town.say("ben offers some too", "gift", "ben", to="pool", kind="hour", quantity=1)
    town.say("no member takes what is for all", "thank", "ben", gift=too_many, fails="not-authorised")
    town.say("anna, who is no member, thanks for all", "thank", "anna", gift=too_many)
    town.say("dora's hours have no limit", "gift", "dora", **_hours("ben", 10**15))
    first = _offer(town, "ben offers dora a loaf", "ben", to=peer("dora"), kind="loaves", quantity=1)
    town.say("dora declines", "decline", "dora", gift=first)
    second = _offer(town, "ben offers her another", "ben", to=peer("dora"), kind="loaves", quantity=1)
    town.say("it is not hers to withdraw", "withdraw", "dora", gift=second, fails="not-authorised")
    town.say("ben withdraws it", "withdraw", "ben", gift=second)
    third = _offer(town, "ben offers her a third", "ben", to=peer("dora"), kind="loaves", quantity=1)
    town.say("anna suspends dora", "suspend", "anna", peer=peer("dora"))
    town.say("who is suspended gives nothing", "gift", "dora", **_hours("ben", 1), fails="not-active")
    town.say("but may thank", "thank", "dora", gift=third)
    town.say("what she gave is no debt: she may leave", "leave", "dora")
    return town


def vouches() -> Community:
    """Room is lent, raised, lowered and taken back, never from under who needs it."""
    rules: dict[str, Any] = {"admission": "steward", "credit_limit": 1_000, "vouch_min": 100}
    town = town_of("vouches: credit of 1,000, at least 100 a vouch", "ben", "carla", "dora", **rules)

    def vouch(says: str, by: str, whom: str, limit: int, fails: str | None = None) -> None:
        town.say(says, "vouch", by, limit=limit, fails=fails, **{"for": peer(whom)})

    vouch("nothing to take back", "ben", "carla", 0, "wrong-state")
    vouch("for a stranger", "ben", "emil", 1, "unknown-member")
    vouch("less than the least", "ben", "carla", 99, "limit-exceeded")
    vouch("more than ben's own limit", "ben", "carla", 1_001, "limit-exceeded")
    vouch("ben lends carla 400", "ben", "carla", 400)
    vouch("the same again changes nothing", "ben", "carla", 400)
    town.say("carla has 1,400 of credit", "pay", "carla", legs=legs_to(dora=1_401), fails="insufficient-funds")
    town.say("and uses 1,300", "pay", "carla", legs=legs_to(dora=1_300))
    town.say("ben has 600", "pay", "ben", legs=legs_to(dora=601), fails="insufficient-funds")
    town.say("and uses 500", "pay", "ben", legs=legs_to(dora=500))
    vouch("room that ben has used he can't lend", "ben", "carla", 501, "insufficient-funds")
    vouch("carla needs 300 of it", "ben", "carla", 299, "vouch-in-use")
    town.say("ben owes", "leave", "ben", fails="wrong-state")
    vouch("300 are enough for her", "ben", "carla", 300)
    town.wait(ticks=1)
    town.say("dora's 1,800 have melted to 1,620; ben is paid", "pay", "dora", legs=legs_to(ben=500))
    town.say("he can't leave: carla needs his vouch", "leave", "ben", fails="vouch-in-use")
    vouch("dora lends carla 300 too", "dora", "carla", 300)
    town.say("now ben leaves, and takes his room with him", "leave", "ben")
    vouch("dora's is needed now", "dora", "carla", 0, "vouch-in-use")
    town.say("ben asks to come back", "join", "ben", handle="ben")
    vouch("who waits is not vouched for", "carla", "ben", 100, "unknown-member")
    town.say("ben is admitted", "admit", "anna", peer=peer("ben"))
    vouch("his vouches did not come back", "ben", "carla", 0, "wrong-state")
    town.say("anna suspends carla", "suspend", "anna", peer=peer("carla"))
    vouch("who is suspended lends nothing", "carla", "ben", 100, "not-active")
    vouch("but is lent", "ben", "carla", 1_000)
    return town


def writeoff() -> Community:
    """A debt is borne by those who vouched, to the grain, then by the pool, then by the issuer."""
    rules: dict[str, Any] = {"admission": "steward", "credit_limit": 100, "vouch_min": 5}
    names = ("ben", "carla", "dora", "emil")
    town = town_of("write-offs: credit of 100", *names, **rules)
    for by, limit in (("ben", 7), ("carla", 7), ("dora", 6)):
        town.say(f"{by} vouches for emil with {limit}", "vouch", by, limit=limit, **{"for": peer("emil")})
    town.say("a stranger owes nothing", "writeoff", "anna", peer=peer("fay"), fails="unknown-member")
    town.say("emil owes nothing yet", "writeoff", "anna", peer=peer("emil"), fails="wrong-state")
    town.say("emil pays on credit", "pay", "emil", legs=legs_to(ben=10))
    town.say("only stewards write off", "writeoff", "ben", peer=peer("emil"), fails="not-authorised")
    town.say("10 over 7, 7 and 6: 3.5, 3.5 and 3; the odd grain by key", "writeoff", "anna", peer=peer("emil"))
    town.say("emil is suspended", "pay", "emil", legs=legs_to(ben=1), fails="not-active")
    town.say(
        "a vouch that shrank below the least stays",
        "vouch",
        "dora",
        limit=3,
        **{"for": peer("emil")},
        fails="limit-exceeded",
    )
    town.say("anna admits him again", "admit", "anna", peer=peer("emil"))
    town.say("emil pays all his credit, 110", "pay", "emil", legs=legs_to(dora=110))
    town.say("anna issues to carla", "issue", "anna", to=peer("carla"), amount=1_000)
    town.wait(ticks=1)
    town.say("vouchers all they vouched, the melted pool, the issuer", "writeoff", "anna", peer=peer("emil"))
    town.say("nothing is vouched for him now", "vouch", "carla", limit=0, **{"for": peer("emil")}, fails="wrong-state")
    town.say("emil leaves with nothing", "leave", "emil")
    town.say("and asks to come back", "join", "emil", handle="emil")
    town.say("which takes the stewards", "pay", "emil", legs=legs_to(ben=1), fails="not-active")
    return town


def _hours(to: str, quantity: int, *after: bytes) -> dict[str, Any]:
    return {"to": peer(to), "kind": "hour", "quantity": quantity, **({"after": list(after)} if after else {})}


def _offer(town: Community, says: str, by: str, **fields: Any) -> bytes:
    """Offer a gift; returns its id."""
    stamp = town.stamp()
    town.say(says, "gift", by, **fields, **stamp)
    name: bytes = stamp["id"]
    return name
