"""Vectors of whole histories (SPEC §3, §4): statements in a commons, one after the other, and what comes of each.

Owns the stories. Each step names what it shows and asserts the refusal that it must meet, so that a change of the
rules is noticed here before it becomes a vector.
"""

from __future__ import annotations

from typing import Any, Final

from gesell_protocol.envelopes import Memo
from vectors.community import Community
from vectors.notation import drawn, file_text, id_at, peer
from vectors.value_cases import TIME_MS

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
MEMO: Final = Memo(drawn("history salt", 16), "Danke für die Fahrt")


def histories_json() -> str:
    """Give the text of `histories.json`."""
    stories = (
        everyday,
        once_and_in_time,
        order_of_checks,
        membership,
        keys_and_stewards,
        pool,
        credit,
        holds,
        policies,
    )
    return file_text(
        about="Whole histories of commons: envelopes, the clock when they came, and the entry or the refusal of each.",
        spec="§3, §4, §5.1, §6",
        cases=[story().case() for story in stories],
    )


def _policy(**fields: Any) -> dict[str, Any]:
    return {
        "tick_seconds": 86_400,
        "rest_ticks": 0,
        "brackets": [[0, 100_000_000]],
        "melt_to": "pool",
        "admission": "open",
        "credit_limit": 0,
        "vouch_min": 1,
        "visibility": "open",
        "notice_ticks": 0,
        **fields,
    }


def _founding(*stewards: str, threshold: int = 1, policy: dict[str, Any]) -> dict[str, Any]:
    return {
        "ledger": peer("ledger"),
        "name": "Wörgl",
        "currency": {"code": "WRG", "scale": 6},
        "policy": policy,
        "stewards": sorted(peer(name) for name in stewards),
        "threshold": threshold,
    }


def town_of(name: str, *members: str, **policy: Any) -> Community:
    """Found a commons with anna as its steward, at noon, and let the members in."""
    rules = _policy(**policy)
    tick_ms = 1_000 * rules["tick_seconds"]
    town = Community(name, TIME_MS + tick_ms // 2, tick_ms)
    town.say("anna founds", "found", "anna", **_founding("anna", policy=rules))
    for member in members:
        town.say(f"{member} joins", "join", member, handle=member)
        if rules["admission"] == "steward":
            town.say(f"{member} is admitted", "admit", "anna", peer=peer(member))
    return town


def legs_to(**legs: int) -> list[list[Any]]:
    """Give the legs of a payment to these members."""
    return [[peer(name), amount] for name, amount in legs.items()]


def everyday() -> Community:
    """Money is issued, paid, melts, is swept, granted, retired, and taken along to the pool by who leaves."""
    town = Community("everyday life: 10 % a day, nothing rests, the pool gains", TIME_MS + DAY_MS // 2, DAY_MS)
    rules = _founding("anna", policy=_policy())
    town.say("nobody has founded it yet", "join", "ben", commons=bytes(16), handle="ben", fails="unknown-commons")
    town.say("meant for another ledger", "found", "anna", **{**rules, "ledger": peer("other")}, fails="wrong-ledger")
    town.say("by no steward", "found", "ben", **rules, signers=("anna", "ben"), fails="not-authorised")
    town.say("without by's own signature", "found", "anna", **rules, signers=("ben",), fails="not-authorised")
    town.say("anna founds", "found", "anna", **rules)
    for name in ("ben", "carla", "dora"):
        town.say(f"{name} joins an open commons", "join", name, handle=name)
    town.say("a handle that somebody has", "join", "emil", handle="ben", fails="handle-taken")
    town.say("a member already", "join", "ben", handle="benjamin", fails="already-member")
    town.say("anna issues to ben", "issue", "anna", to=peer("ben"), amount=1_000_000)
    town.say("only stewards issue", "issue", "ben", to=peer("carla"), amount=1, fails="not-authorised")
    town.say("to a stranger", "issue", "anna", to=peer("emil"), amount=1, fails="unknown-member")
    town.say("money of the same day has not melted", "pay", "ben", legs=legs_to(carla=300_000))
    town.wait(ticks=1)
    legs = legs_to(dora=30_000, carla=100_000)
    extras: dict[str, Any] = {"legs": legs, "category": "lift", "ref": drawn("ref", 16), "memo": MEMO}
    town.say("payer and payees melt first, in order of appearance; dora has nothing to melt", "pay", "ben", **extras)
    town.say("more than there is", "pay", "ben", legs=legs_to(carla=500_001), fails="insufficient-funds")
    town.say("to a stranger among others", "pay", "ben", legs=legs_to(carla=1, emil=1), fails="unknown-member")
    town.wait(ticks=2)
    town.say("all there is, after a melt", "pay", "ben", legs=legs_to(carla=10**15), balancing=True)
    town.say("balancing finds nothing", "pay", "ben", legs=legs_to(carla=7), balancing=True, fails="insufficient-funds")
    town.say("carla retires some", "retire", "carla", amount=600_000)
    town.say("more than there is", "retire", "carla", amount=10**15, fails="insufficient-funds")
    town.wait(ticks=1)
    accounts = sorted(peer(name) for name in ("ben", "carla", "dora"))
    town.say("only the ledger sweeps", "sweep", "anna", accounts=accounts, fails="not-authorised")
    town.say("the ledger sweeps: melt alone", "sweep", "ledger", accounts=accounts)
    town.say("a sweep finds nothing more", "sweep", "ledger", accounts=accounts)
    town.say("anna grants out of the pool", "grant", "anna", legs=legs_to(dora=100_000, ben=50_000))
    town.say("more than the pool has", "grant", "anna", legs=legs_to(dora=10**9), fails="insufficient-funds")
    town.say("an open commons shares nothing out", "share", "anna", amount=1_000, fails="wrong-state")
    town.wait(ticks=1)
    town.say("carla retires all she has", "retire", "carla", amount=10**15, balancing=True)
    town.say("dora leaves; what is left goes to the pool", "leave", "dora")
    town.say("who has left speaks no more", "leave", "dora", fails="unknown-member")
    town.say("nor is paid", "pay", "ben", legs=legs_to(dora=1), fails="unknown-member")
    town.wait(ticks=3)
    return town


def once_and_in_time() -> Community:
    """Ids, replays and clocks."""
    town = town_of("an id takes effect once, and in time", "ben", "carla", rest_ticks=1)
    town.say("anna issues", "issue", "anna", to=peer("ben"), amount=1_000)
    paid = town.say("ben pays", "pay", "ben", legs=legs_to(carla=100), memo=MEMO)
    stamp: dict[str, Any] = {"id": id_at(town.now_ms, "twice"), "expires": town.now_ms + 300_000}
    town.send("the same again: the first entry", paid, ("ben",))
    town.send("the same again with its memo", paid, ("ben",), memo=MEMO)
    town.send("the same body, signed by the payee", paid, ("carla",), fails="not-authorised")
    town.send("the same body, signed by the payee too", paid, ("ben", "carla"))
    town.say(
        "refused, so its id is not used up", "pay", "ben", legs=legs_to(carla=901), **stamp, fails="insufficient-funds"
    )
    town.say("the id of what was refused", "pay", "ben", legs=legs_to(carla=200), **stamp)
    town.say("another body with a used id", "pay", "ben", legs=legs_to(carla=201), **stamp, fails="id-conflict")
    town.say("another author with a used id", "pay", "carla", legs=legs_to(ben=1), **stamp, fails="id-conflict")
    ahead = town.stamp(ahead_ms=120_000)
    town.say("an id two minutes ahead", "pay", "ben", legs=legs_to(carla=1), **ahead)
    ahead = town.stamp(ahead_ms=120_001)
    town.say("an id further ahead", "pay", "ben", legs=legs_to(carla=1), **ahead, fails="too-early")
    late = town.stamp(ahead_ms=-300_000)
    town.say("in the last moment before it expires", "pay", "ben", legs=legs_to(carla=1), **late)
    late = town.stamp(ahead_ms=-300_001)
    town.say("a moment later", "pay", "ben", legs=legs_to(carla=1), **late, fails="expired")
    town.wait(ms=-1_000)
    town.say("a clock that went back does not show in the books", "pay", "ben", legs=legs_to(carla=1))
    late = town.stamp(ahead_ms=-299_500)
    town.say("nor does it bring back what has expired", "pay", "ben", legs=legs_to(carla=1), **late, fails="expired")
    town.wait(ticks=2)
    town.send("long expired, but known", paid, ("ben",))
    town.say("after rest_ticks, what is not fresh melts", "pay", "ben", legs=legs_to(carla=50))
    return town


def order_of_checks() -> Community:
    """One payment with every fault at once; each step mends one, and the next fault speaks."""
    town = town_of("the order of checks", "ben", "carla", "dora")
    used = town.stamp()
    town.say("anna issues", "issue", "anna", to=peer("ben"), amount=10, **used)
    town.say("anna suspends ben", "suspend", "anna", peer=peer("ben"))
    faults: dict[str, Any] = {"commons": bytes(16), **used, "expires": used["expires"] - 1, "legs": legs_to(emil=100)}

    def pay(says: str, fails: str, *, by: str = "ben", signers: tuple[str, ...] = ("carla",), **mended: Any) -> None:
        faults.update(mended)
        town.say(says, "pay", by, signers=signers, fails=fails, **faults)

    pay("everything is wrong", "unknown-commons")
    pay("the id is used", "id-conflict", commons=town.commons)
    expired: dict[str, Any] = {"id": id_at(town.now_ms - 300_001, "order"), "expires": town.now_ms - 1}
    pay("it has expired", "expired", **expired)
    pay("the wrong key has signed", "not-authorised", **town.stamp())
    pay("who speaks is suspended", "not-active", signers=("ben",), **town.stamp())
    town.say("anna admits ben again", "admit", "anna", peer=peer("ben"))
    pay("the payee is a stranger", "unknown-member", signers=("ben",), **town.stamp())
    pay("funds come last", "insufficient-funds", signers=("ben",), legs=legs_to(carla=100), **town.stamp())
    town.say("nothing is wrong", "pay", "ben", legs=legs_to(carla=10))
    return town


def membership() -> Community:
    """Admission by two of three stewards, pending and suspended members, handles, memos erased."""
    rules = _policy(admission="steward", tick_seconds=3_600)
    town = Community("membership: two of three stewards admit", TIME_MS, HOUR_MS)
    two = ("anna", "ben")
    founding = _founding("anna", "ben", "carla", threshold=2, policy=rules)
    town.say("one of three is not enough", "found", "anna", **founding, fails="not-authorised")
    town.say("two of three found", "found", "anna", **founding, signers=("anna", "carla"))
    for name in ("dora", "emil", "fritz"):
        handle = "queen" if name == "emil" else name
        town.say(f"{name} asks to join", "join", name, handle=handle, memo=MEMO if name == "dora" else None)
    town.say("the handle is free as long as emil is pending", "join", "gerda", handle="queen")
    town.say("who is pending can't pay", "pay", "dora", legs=legs_to(emil=1), fails="not-active")
    town.say("nor be paid", "issue", "anna", signers=two, to=peer("dora"), amount=1, fails="unknown-member")
    town.say("one steward does not admit", "admit", "anna", peer=peer("dora"), fails="not-authorised")
    town.say(
        "a steward and a member do not",
        "admit",
        "anna",
        signers=("anna", "dora"),
        peer=peer("dora"),
        fails="not-authorised",
    )
    for name in ("dora", "gerda"):
        town.say(f"two stewards admit {name}", "admit", "carla", signers=("ben", "carla"), peer=peer(name))
    town.say("the handle went to gerda", "admit", "anna", signers=two, peer=peer("emil"), fails="handle-taken")
    town.say("who is active is not admitted", "admit", "anna", signers=two, peer=peer("dora"), fails="wrong-state")
    town.say("a stranger is not admitted", "admit", "anna", signers=two, peer=peer("heidi"), fails="unknown-member")
    town.say("a pending request ends", "suspend", "anna", signers=two, peer=peer("emil"))
    town.say("emil asks again under another handle", "join", "emil", handle="emil")
    town.say("fritz takes his request back", "leave", "fritz")
    town.say("two stewards issue", "issue", "anna", signers=two, to=peer("dora"), amount=1_000)
    town.say("dora is suspended", "suspend", "anna", signers=two, peer=peer("dora"))
    town.say("twice does not work", "suspend", "anna", signers=two, peer=peer("dora"), fails="wrong-state")
    town.say("who is suspended can't pay", "pay", "dora", legs=legs_to(gerda=1), fails="not-active")
    town.say("but is paid", "issue", "anna", signers=two, to=peer("dora"), amount=1)
    joined = id_of_step(town, "dora asks to join")
    town.say("only its author or stewards erase", "erase", "gerda", statement=joined, fails="not-authorised")
    town.say("one steward alone does not", "erase", "ben", statement=joined, fails="not-authorised")
    town.say("an unknown statement", "erase", "dora", statement=bytes(16), fails="not-found")
    town.say("suspended, dora erases her memo", "erase", "dora", statement=joined)
    town.say("and two stewards do", "erase", "ben", signers=two, statement=joined)
    town.say("dora leaves", "leave", "dora")
    town.say("she comes back under her old handle only", "join", "dora", handle="theodora", fails="handle-taken")
    town.say("which nobody else gets", "join", "fritz", handle="dora", fails="handle-taken")
    town.say("she comes back, pending", "join", "dora", handle="dora")
    return town


def id_of_step(town: Community, says: str) -> bytes:
    """Give the statement id of an accepted step."""
    leaf = next(step["outcome"]["leaf"] for step in town.steps if step["says"] == says)
    return next(entry.id for entry in town.books[town.commons].entries.values() if entry.leaf.hex() == leaf)


def keys_and_stewards() -> Community:
    """Keys that speak for a peer, come and go; stewards that change."""
    town = town_of("keys and stewards", "ben", "carla")
    phone, tablet = peer("phone"), peer("tablet")
    town.say("anna issues", "issue", "anna", to=peer("ben"), amount=1_000)
    town.say("an added key signs too", "keys", "ben", add=[phone], fails="not-authorised")
    town.say("ben adds his phone", "keys", "ben", add=[phone], signers=("ben", "phone"))
    town.say("the phone pays for ben", "pay", "ben", legs=legs_to(carla=1), signers=("phone",))
    town.say("the phone adds a tablet", "keys", "ben", add=[tablet], signers=("phone", "tablet"))
    taken: dict[str, Any] = {"signers": ("carla", "phone"), "fails": "key-taken"}
    town.say("a key belongs to one peer", "keys", "carla", add=[phone], **taken)
    town.say(
        "a peer's own key is taken too", "keys", "carla", add=[peer("ben")], signers=("ben", "carla"), fails="key-taken"
    )
    town.say("an added key does not join", "join", "phone", handle="phone", fails="key-taken")
    younger: dict[str, Any] = {"signers": ("tablet",), "fails": "not-authorised"}
    town.say("a younger key does not revoke an older one", "keys", "ben", revoke=[phone], **younger)
    town.say("a key of somebody else", "keys", "ben", revoke=[peer("carla")], fails="not-found")
    town.say("the root key revokes itself", "keys", "ben", revoke=[peer("ben")])
    town.say("a revoked key speaks no more", "pay", "ben", legs=legs_to(carla=1), fails="not-authorised")
    town.say("but stays the peer's name", "pay", "carla", legs=legs_to(ben=1))
    town.say("the phone revokes the tablet", "keys", "ben", revoke=[tablet], signers=("phone",))
    town.say("what was revoked is gone", "keys", "ben", revoke=[tablet], signers=("phone",), fails="not-found")
    town.say(
        "a revoked key never comes back", "keys", "ben", add=[tablet], signers=("phone", "tablet"), fails="key-taken"
    )
    town.say("not the last one", "keys", "ben", revoke=[phone], signers=("phone",), fails="limit-exceeded")
    spare = [f"spare {n}" for n in range(8)]
    many: dict[str, Any] = {"signers": ("phone", *spare), "fails": "limit-exceeded"}
    town.say("at most eight live keys", "keys", "ben", add=[peer(name) for name in spare], **many)
    both = sorted((peer("anna"), peer("dora")))
    change: dict[str, Any] = {"stewards": both, "threshold": 2}
    town.say("a new steward signs too", "stewards", "anna", **change, fails="not-authorised")
    town.say("anna and dora are the stewards", "stewards", "anna", **change, signers=("anna", "dora"))
    town.say("one of them is not enough", "issue", "anna", to=peer("ben"), amount=1, fails="not-authorised")
    town.say("both are", "issue", "dora", to=peer("ben"), amount=1, signers=("anna", "dora"))
    town.say(
        "dora alone from now on", "stewards", "dora", stewards=[peer("dora")], threshold=1, signers=("anna", "dora")
    )
    town.say("anna is a steward no more", "issue", "anna", to=peer("ben"), amount=1, fails="not-authorised")
    return town


def pool() -> Community:
    """The pool is shared out among who was active, and paid out by the ledger."""
    town = town_of("the pool shared out, rest 1", "ben", "carla", "dora", admission="steward", rest_ticks=1)
    town.say("anna issues", "issue", "anna", to=peer("ben"), amount=1_000)
    town.say("the pool is empty", "share", "anna", amount=3, fails="insufficient-funds")
    town.wait(ticks=2)
    town.say("the ledger sweeps", "sweep", "ledger", accounts=[peer("ben")])
    town.say("too little for three", "share", "anna", amount=2, fails="limit-exceeded")
    town.say("more than the pool has", "share", "anna", amount=101, fails="insufficient-funds")
    share = town.stamp()
    town.say("what does not divide stays in the pool", "share", "anna", amount=100, **share)
    town.say("one share at a time", "share", "anna", amount=1, fails="wrong-state")
    town.say("emil comes after the share", "join", "emil", handle="emil")
    town.say("and is admitted", "admit", "anna", peer=peer("emil"))
    town.say("carla leaves", "leave", "carla")
    town.say("dora is suspended", "suspend", "anna", peer=peer("dora"))
    part = sorted((peer("ben"), peer("carla"), peer("dora")))
    town.say("only the ledger pays out", "payout", "anna", share=share["id"], members=part, fails="not-authorised")
    town.say("of no share", "payout", "ledger", share=bytes(16), members=part, fails="not-found")
    latecomer = [peer("emil")]
    town.say("nothing is owed to emil", "payout", "ledger", share=share["id"], members=latecomer, fails="wrong-state")
    town.wait(ticks=1)
    town.say("the first two", "payout", "ledger", share=share["id"], members=part[:2])
    town.say("nobody twice", "payout", "ledger", share=share["id"], members=part[1:], fails="wrong-state")
    town.say("the last", "payout", "ledger", share=share["id"], members=part[2:])
    town.say("it is paid out", "payout", "ledger", share=share["id"], members=part[2:], fails="wrong-state")
    town.say("the next share", "share", "anna", amount=20)
    town.wait(ticks=4)
    return town


def credit() -> Community:
    """Credit: debt does not melt, and what melts is gone before funds are checked."""
    town = town_of(
        "credit of 500, rest 1, the issuer gains",
        "ben",
        "carla",
        admission="steward",
        credit_limit=500,
        rest_ticks=1,
        melt_to="issuer",
    )
    town.say("ben pays on credit", "pay", "ben", legs=legs_to(carla=500))
    town.say("a grain more is refused", "pay", "ben", legs=legs_to(carla=1), fails="insufficient-funds")
    town.say(
        "balancing never goes below zero",
        "pay",
        "ben",
        legs=legs_to(carla=1),
        balancing=True,
        fails="insufficient-funds",
    )
    town.say("who owes does not leave", "leave", "ben", fails="wrong-state")
    town.wait(ticks=1)
    town.say("carla's money rested for a day", "pay", "carla", legs=legs_to(ben=100))
    town.wait(ticks=1)
    town.say("too much after the melt", "pay", "carla", legs=legs_to(ben=861), fails="insufficient-funds")
    town.say("the melt goes to the issuer; ben's debt does not melt", "pay", "carla", legs=legs_to(ben=860))
    town.wait(ticks=10)
    town.say("what ben had beyond his debt has melted down", "retire", "ben", amount=100, balancing=True)
    town.say("carla is issued what pays her debt", "issue", "anna", to=peer("carla"), amount=500)
    town.say("and leaves with nothing", "leave", "carla")
    return town


def holds() -> Community:
    """Money set aside melts as its payer's, is captured as far as it is there, and comes back."""
    names = ("ben", "carla", "dora")
    town = town_of("holds: 10 % a day, credit of 10", *names, admission="steward", credit_limit=10)
    town.say("anna issues", "issue", "anna", to=peer("ben"), amount=1_000)
    day = town.now_ms + DAY_MS

    def hold(says: str, amount: int, until: int = day, fails: str | None = None, to: str = "carla") -> bytes:
        stamp = town.stamp()
        town.say(says, "hold", "ben", to=peer(to), amount=amount, until=until, fails=fails, **stamp)
        name: bytes = stamp["id"]
        return name

    hold("for a stranger", 1, fails="unknown-member", to="emil")
    hold("until now", 1, until=town.now_ms, fails="limit-exceeded")
    hold("for longer than 30 days", 1, until=town.now_ms + 30 * DAY_MS + 1, fails="limit-exceeded")
    hold("more than there is", 1_011, fails="insufficient-funds")
    first = hold("ben sets 300 aside for carla", 300)
    second = hold("and 600", 600, until=town.now_ms + 30 * DAY_MS)
    town.say("which he can't pay with", "pay", "ben", legs=legs_to(dora=111), fails="insufficient-funds")
    town.say("it is carla's to take", "capture", "dora", hold=first, amount=1, fails="not-authorised")
    town.say("and no more than it is", "capture", "carla", hold=first, amount=301, fails="limit-exceeded")
    town.say("no such hold", "capture", "carla", hold=bytes(16), amount=1, fails="not-found")
    town.say("ben gives his word until then", "void", "ben", hold=first, fails="wrong-state")
    town.say("carla takes a part, the rest goes back", "capture", "carla", hold=first, amount=100)
    town.say("once", "capture", "carla", hold=first, amount=100, fails="wrong-state")
    town.say("while it is held carla can't leave", "leave", "carla", fails="wrong-state")
    third = hold("ben sets aside all that he could pay", 310)
    town.wait(ticks=1)
    town.say("900 have lost 90, out of what is free, and so below his limit", "sweep", "ledger", accounts=[peer("ben")])
    town.say("ben's credit counts: all of it is there", "capture", "carla", hold=second, amount=600)
    town.say("of 310 there are 220 left", "capture", "carla", hold=third, amount=310)
    town.say("who owes is written off", "writeoff", "anna", peer=peer("ben"))
    town.say("anna admits ben again", "admit", "anna", peer=peer("ben"))
    town.say("and issues", "issue", "anna", to=peer("ben"), amount=100)
    fourth = hold("ben holds for a day", 50, until=town.now_ms + DAY_MS)
    fifth = hold("and once more", 50, until=town.now_ms + DAY_MS)
    sixth = hold("and for dora", 10, until=town.now_ms + DAY_MS, to="dora")
    town.say("with money in holds nobody is written off", "writeoff", "anna", peer=peer("ben"), fails="wrong-state")
    town.say("dora does not want it", "void", "dora", hold=sixth)
    town.wait(ms=DAY_MS)
    town.say("its time has come: ben takes it back", "void", "ben", hold=fourth)
    town.say("the ledger waits a day more", "lapse", "ledger", of=fifth, fails="wrong-state")
    town.wait(ms=DAY_MS)
    town.say("only the ledger lets a hold lapse", "lapse", "anna", of=fifth, fails="not-authorised")
    town.say("the ledger lets it lapse", "lapse", "ledger", of=fifth)
    town.say("which ended it", "void", "carla", hold=fifth, fails="wrong-state")
    then = peer("the next ledger")
    town.say("the ledger's next key has not signed", "rekey", "ledger", ledger=then, fails="not-authorised")
    both = ("ledger", "the next ledger")
    town.say("the ledger goes over to it", "rekey", "ledger", signers=both, ledger=then)
    ben = {"accounts": [peer("ben")]}
    town.say("and speaks no more with the old one", "sweep", "ledger", **ben, fails="not-authorised")
    town.say("but with the new", "sweep", "the next ledger", **ben)
    return town


def policies() -> Community:
    """Announced changes, brackets, and a long sleep."""
    town = town_of("policies announced two hours ahead", "ben", "carla", tick_seconds=3_600, notice_ticks=2)
    town.say("anna issues", "issue", "anna", to=peer("ben"), amount=10**15)
    here = town.tick()
    rules = _policy(
        tick_seconds=3_600, notice_ticks=0, rest_ticks=3, brackets=[[0, 0], [10**6, 673_197], [10**12, 50_000_000]]
    )

    def announce(says: str, from_tick: int, fails: str | None = None, **fields: Any) -> None:
        town.say(says, "policy", "anna", policy={**rules, **fields}, from_tick=from_tick, fails=fails)

    announce("too soon", here + 1, "limit-exceeded")
    announce("tick_seconds stays", here + 2, "malformed", tick_seconds=7_200)
    announce("melt_to stays", here + 2, "malformed", melt_to="issuer")
    announce("no credit where anybody could join", here + 2, "malformed", admission="steward", credit_limit=1)
    announce("rest 3 and brackets in two hours", here + 2)
    announce("and nothing melts from a later hour", here + 6, brackets=[[0, 0]])
    announce("the same hour again: the later word counts", here + 6, brackets=[[0, 999_999_999]], rest_ticks=1)
    town.wait(ticks=1)
    town.say("the first policy still", "pay", "ben", legs=legs_to(carla=5 * 10**14))
    town.wait(ticks=3)
    town.say("rest has begun, and lets what was still be still", "pay", "ben", legs=legs_to(carla=10**11))
    announce("now from the next hour", here + 5, notice_ticks=1)
    announce("never this hour", here + 4, "limit-exceeded")
    town.wait(ticks=3)
    town.say("nearly all of it goes", "pay", "carla", legs=legs_to(ben=10**5))
    for number in range(10, 26):
        announce(f"waiting: {number - 9}", here + number, brackets=[[0, number]])
    announce("at most sixteen wait", here + 30, "limit-exceeded")
    town.wait(ticks=3)
    town.say("anna issues again", "issue", "anna", to=peer("ben"), amount=10**14)
    town.wait(ticks=1_000)
    town.say("after a long sleep", "pay", "ben", legs=legs_to(carla=1_000))
    town.wait(ticks=50_000)
    return town
