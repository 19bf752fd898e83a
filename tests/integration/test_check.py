"""`gesell db check` on a ledger that lived: it holds, and whatever the database's owner changes behind it is found.

The ledger is made once by a real service over HTTP; each row spoils one copy of it in one way and names what the
check must name.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gesell import Client, Peer, default_policy
from gesell_ledger import commands
from gesell_ledger.storage.migrate import migrate
from gesell_ledger.storage.queries import migrations
from tests.own_postgres import OwnPostgres
from tests.running import Service, open_folder

DAY_MS = 86_400_000
TABLES = (
    *("commons", "entry", "posting", "mention", "account", "member", "peer_key", "policy", "memo"),
    *("share_out", "ledger", "webhook", "subtree", "handover"),
    *("kind", "gift", "gift_thread", "vouch", "vouch_change", "credit", "hold"),
)


# ── A ledger that lived ──────────────────────────────────────────────────────────────────────────────────────────


async def live(url: str) -> None:
    """Some weeks of a commons on a demo clock: melt, another policy, sweeps, a share of the pool, comings, goings."""
    ada, bob, cyd, dan, phone = (Peer.new() for _ in range(5))
    policy = replace(
        default_policy(scale=2),
        rest_ticks=1,
        brackets=((0, 5_000_000), (50_000, 20_000_000)),
        credit_limit=1_000,
        notice_ticks=0,
    )
    async with Client(url, peer=ada) as client:
        await client.found(name="Another place", currency="ANO")
        await client.found(name="Woergl", currency="WRG", scale=2, policy=policy)
        for handle, peer in (("ada", ada), ("bob", bob), ("cyd", cyd), ("dan", dan)):
            await client.as_peer(peer).join(handle, memo=f"I am {handle}.")
            await client.admit(peer)
        for handle in ("bob", "cyd", "dan"):
            await client.issue(handle, "2500")
        await client.as_peer(bob).pay("cyd", "100", memo="for bread")
        await pass_days(client, 3)
        await client.as_peer(cyd).pay_each({"bob": "10.5", "dan": "3"}, category="lift")
        now = await client.commons()
        await client.change_policy(replace(policy, rest_ticks=0, brackets=((0, 9_000_000),)), from_tick=now.tick + 2)
        await client.as_peer(bob).keys(add=[phone])
        paid = await client.as_peer(phone, by=bob).pay("dan", "40", memo="a secret")
        await client.as_peer(bob).erase(paid)
        await client.suspend("dan")
        await client.admit(dan)
        await until(client, "sweep")
        await client.as_peer(dan).leave()
        await client.share("20")
        await until(client, "payout")
        await client.make_kind("bread", name="Bread", unit="1", scale=0)
        given = await client.as_peer(bob).give("cyd", 2, kind="bread")
        await client.as_peer(cyd).thank(given)
        declined = await client.as_peer(cyd).give("bob", 1, kind="bread", after=[given])
        await client.as_peer(bob).decline(declined)
        await client.as_peer(cyd).give("pool", "1.5", after=[given])
        for limit in ("2", "3"):
            await client.as_peer(bob).vouch("cyd", limit)
        await client.as_peer(ada).vouch("bob", "1")
        await client.as_peer(ada).vouch("bob", 0)
        await hold(client.as_peer(bob), cyd, ended=True)
        await hold(client.as_peer(bob), cyd, ended=False)
        # What is set aside melts, and lapses after a while.
        await hold(client.as_peer(bob), cyd, ended=False, days=2)
        await until(client, "lapse")
        await client.as_peer(cyd).retire("5")
        await client.as_peer(cyd).pay("bob", "1")


async def hold(payer: Client, payee: Peer, *, ended: bool, days: int = 20) -> None:
    """Set money aside, and have it captured in part."""
    time_ms = (await payer.service()).time_ms + days * DAY_MS
    [held] = await payer.submit([await payer.sign({"type": "hold", "to": payee, "amount": "1", "until": time_ms})])
    name = held.receipt_or_raise().id
    if ended:
        other = payer.as_peer(payee)
        [taken] = await other.submit([await other.sign({"type": "capture", "hold": name, "amount": "0.5"})])
        taken.receipt_or_raise()


async def pass_days(client: Client, days: int) -> None:
    """Wait until the ledger's clock has gone on by so much."""
    service = await client.service()
    await asyncio.sleep(days * DAY_MS / 1000 / service.clock_speed)


async def until(client: Client, kind: str) -> None:
    """Wait for a statement of the ledger's own."""
    for _ in range(200):
        if kind in [entry.type async for entry in client.entries()]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {kind} came")


@pytest.fixture(scope="module")
def ledger(postgres: OwnPostgres) -> str:
    """The database of a ledger that lived and is at rest; `saved` holds its tables as they were."""
    name = postgres.make_database()
    asyncio.run(migrate(postgres.owner_dsn(name)))
    with open_folder() as folder:
        arguments = ("--database", postgres.service_dsn(name), "--data", str(folder / "data"))
        service = Service(
            folder, *arguments, "--demo", "--clock-speed", "345600", "--sweep-ticks", "2", "--unsafe-durability"
        )
        try:
            asyncio.run(live(service.start().url))
            assert service.stop() == 0
        finally:
            service.end()
    copies = [f"CREATE TABLE saved.{table} AS TABLE gesell.{table}" for table in TABLES]
    postgres.execute(name, "CREATE SCHEMA saved", *copies)
    return name


@pytest.fixture
def spoilt(postgres: OwnPostgres, ledger: str) -> Iterator[str]:
    """The ledger's database, for a test to spoil; it is mended afterwards."""
    yield ledger
    every = ", ".join(f"gesell.{table}" for table in TABLES)
    mends = [f"INSERT INTO gesell.{table} SELECT * FROM saved.{table}" for table in TABLES]
    postgres.execute(ledger, f"TRUNCATE {every}", *mends)


@dataclass(frozen=True)
class Said:
    """What `gesell db check` ended with."""

    status: object
    out: str
    err: str


Check = Callable[..., Said]


@pytest.fixture
def check(postgres: OwnPostgres, ledger: str, capsys: pytest.CaptureFixture[str]) -> Check:
    """`gesell db check` on the ledger as the service's role."""

    def run(*arguments: str) -> Said:
        status: object = 0
        try:
            words = ["db", "check", "--database", postgres.service_dsn(ledger), *arguments]
            commands.app(words, result_action="return_value")
        except SystemExit as ended:
            status = ended.code
        return Said(status, *capsys.readouterr())

    return run


def test_a_ledger_that_lived_holds(postgres: OwnPostgres, ledger: str, check: Check) -> None:
    said = check()
    assert (said.status, said.err) == (0, "")
    assert said.out.count("the books hold") == 2
    ((entries,),) = postgres.fetch(ledger, "SELECT count(*) FROM gesell.entry")
    reports = json.loads(check("--json").out)
    assert [report["holds"] for report in reports] == [True, True]
    assert sum(report["entries"] for report in reports) == entries
    woergl = next(report for report in reports if report["name"] == "Woergl")
    ((melted,),) = postgres.fetch(
        ledger, "SELECT -sum(amount) FROM gesell.posting WHERE reason = 'melt' AND amount < 0"
    )
    assert int(woergl["melted"]) == melted > 0


def test_the_ledger_has_all_that_a_check_could_stumble_over(postgres: OwnPostgres, ledger: str) -> None:
    """The row before would prove little of a ledger in which nothing happened."""
    reasons = {row[0] for row in postgres.fetch(ledger, "SELECT DISTINCT reason FROM gesell.posting")}
    assert reasons == {"issue", "pay", "melt", "share", "leave", "retire", "gift", "hold", "capture", "void"}
    assert postgres.fetch(ledger, "SELECT count(*) FROM gesell.policy") == [(3,)]
    assert postgres.fetch(ledger, "SELECT unpaid FROM gesell.share_out") == [(0,)]
    assert postgres.fetch(ledger, "SELECT count(*) > 3 FROM gesell.memo") == [(True,)]
    assert postgres.fetch(ledger, "SELECT array_agg(DISTINCT status ORDER BY status) FROM gesell.member") == [
        (["active", "left"],)
    ]


def test_what_was_stored_before_mentions_were_is_gone_through_by_the_migration(
    postgres: OwnPostgres, spoilt: str
) -> None:
    # A ledger of that time had no gifts, whose answers concern others than they name.
    [(gifts_from,)] = postgres.fetch(spoilt, "SELECT min(seq) FROM gesell.kind")
    mentions = f"SELECT commons_id, seq, peer FROM gesell.mention WHERE seq < {gifts_from} ORDER BY 1, 2, 3"
    before = postgres.fetch(spoilt, mentions)
    assert len(before) > 10
    older = postgres.make_database(template=spoilt)
    # What later migrations made goes too, so that all of them are applied again.
    undo = [statement for number, _, sql in migrations() if number > 1 for statement in undone(sql)]
    postgres.execute(older, *undo, "DELETE FROM gesell.migration WHERE number > 1")
    assert asyncio.run(migrate(postgres.owner_dsn(older)))[0] == "add_mentions"
    assert postgres.fetch(older, mentions) == before


def undone(sql: str) -> list[str]:
    """Statements that take back what a migration did: its tables, the columns that it added, the indexes it dropped."""
    tables = re.findall(r"^CREATE TABLE gesell\.(\w+)", sql, flags=re.MULTILINE)
    altered = re.findall(r"^ALTER TABLE gesell\.(\w+)(.*?);", sql, flags=re.MULTILINE | re.DOTALL)
    columns = [(table, column) for table, text in altered for column in re.findall(r"ADD COLUMN (\w+)", text)]
    dropped = re.findall(r"^DROP INDEX gesell\.(\w+)", sql, flags=re.MULTILINE)
    made = "".join(earlier for _, _, earlier in migrations())
    return [
        *(re.findall(rf"^CREATE INDEX {index} [^;]*", made, flags=re.MULTILINE)[0] for index in dropped),
        *(f"DROP TABLE gesell.{table}" for table in tables),
        *(f"ALTER TABLE gesell.{table} DROP COLUMN {column}" for table, column in columns),
    ]


# ── Tampering ────────────────────────────────────────────────────────────────────────────────────────────────────

WOERGL = "(SELECT commons_id FROM gesell.commons WHERE name = 'Woergl')"
FIRST_PAY = "(SELECT min(seq) FROM gesell.posting WHERE reason = 'pay')"
ONE_POSTING = f"reason = 'pay' AND amount > 0 AND seq = {FIRST_PAY}"
#: With few findings about its postings, so that what is found at the end is told of too.
SELDOM_USED = """(SELECT p.account FROM gesell.posting p JOIN gesell.account USING (commons_id)
    WHERE number = p.account AND octet_length(holder) = 32 GROUP BY 1 ORDER BY count(*), 1 LIMIT 1)"""
A_MEMBERS = "(SELECT min(number) FROM gesell.account WHERE octet_length(holder) = 32 AND balance > 0)"
HOLDER = "'the account of ' || encode(holder, 'hex')"
#: A first pay's entry, its postings and those after them, for a forger who mends all that can be added up.
FORGED = f"FROM gesell.posting f WHERE f.seq = {FIRST_PAY} AND f.reason = 'pay'"


@dataclass(frozen=True)
class Tampering:
    """Statements of the database's owner, of which the last returns what the check must say."""

    what: str
    statements: tuple[str, ...]


#: As many bytes as the peaks of a tree of one more entry have.
PEAKS_OF_ONE_MORE = "decode(repeat('00', 32 * length(replace((seq + 1)::bit(64)::text, '0', ''))), 'hex')"


def tampering(what: str, *statements: str) -> Tampering:
    return Tampering(what, statements)


TAMPERINGS = [
    tampering(
        "changed posting amount",
        f"UPDATE gesell.posting SET amount = amount + 1 WHERE {ONE_POSTING} RETURNING 'entry ' || seq || ':'",
    ),
    tampering(
        "changed posting reason",
        f"UPDATE gesell.posting SET reason = 'gift' WHERE {ONE_POSTING} RETURNING 'entry ' || seq || ': decided again'",
    ),
    tampering(
        "an amount changed everywhere, so that all sums are right",
        f"UPDATE gesell.account a SET balance = a.balance + sign(f.amount) {FORGED} AND f.account = a.number"
        f" AND a.commons_id = f.commons_id",
        f"UPDATE gesell.posting p SET balance = p.balance + sign(f.amount) {FORGED} AND f.account = p.account"
        f" AND p.commons_id = f.commons_id AND (p.seq, p.n) >= (f.seq, f.n)",
        f"UPDATE gesell.posting f SET amount = f.amount + sign(f.amount) WHERE f.seq = {FIRST_PAY}"
        f" AND f.reason = 'pay' RETURNING 'entry ' || seq || ': decided again'",
    ),
    tampering(
        "a posting moved to another account",
        "UPDATE gesell.posting SET account = (SELECT max(account) FROM gesell.posting)"
        f" WHERE {ONE_POSTING} RETURNING 'entry ' || seq || ':'",
    ),
    tampering(
        "changed entry body",
        f"UPDATE gesell.entry SET body = set_byte(body, length(body) - 1, get_byte(body, length(body) - 1) # 1)"
        f" WHERE seq = {FIRST_PAY} RETURNING 'entry ' || seq || ':'",
    ),
    tampering(
        "entry body that can't be read",
        f"UPDATE gesell.entry SET body = 'rubbish' WHERE seq = {FIRST_PAY} RETURNING 'entry ' || seq || ': its body'",
    ),
    tampering(
        "changed signature",
        f"UPDATE gesell.entry SET signatures = set_byte(signatures, 40, get_byte(signatures, 40) # 1)"
        f" WHERE seq = {FIRST_PAY} RETURNING 'entry ' || seq || ': bad-signature'",
    ),
    tampering(
        "changed signing key",
        f"UPDATE gesell.entry SET signatures = set_byte(signatures, 0, get_byte(signatures, 0) # 1)"
        f" WHERE seq = {FIRST_PAY} RETURNING 'entry ' || seq || ': bad-signature'",
    ),
    tampering(
        "changed id",
        f"UPDATE gesell.entry SET id = '00000000-0000-7000-8000-000000000001' WHERE seq = {FIRST_PAY}"
        f" RETURNING 'entry ' || seq || ': it stands under the id'",
    ),
    tampering(
        "deleted entry",
        f"DELETE FROM gesell.entry WHERE seq = {FIRST_PAY} RETURNING 'entry ' || seq || ' is missing'",
    ),
    tampering(
        "deleted entry with its postings",
        f"DELETE FROM gesell.entry WHERE seq = {FIRST_PAY}",
        f"DELETE FROM gesell.posting WHERE seq = {FIRST_PAY} RETURNING 'entry ' || seq || ' is missing'",
    ),
    tampering(
        "a party that is no longer mentioned",
        f"DELETE FROM gesell.mention WHERE commons_id = {WOERGL} AND seq = 2 AND peer <> ''"
        " RETURNING 'entry 2: whether it concerns ' || encode(peer, 'hex')",
    ),
    tampering(
        "somebody mentioned whom an entry does not concern",
        f"INSERT INTO gesell.mention (commons_id, seq, peer) VALUES ({WOERGL}, 2, '')"
        " RETURNING 'entry 2: whether it concerns everybody'",
    ),
    tampering(
        "deleted first entry",
        f"DELETE FROM gesell.entry WHERE seq = 1 AND commons_id = {WOERGL} RETURNING 'entry 1 is missing'",
    ),
    tampering(
        "deleted last entry",
        "DELETE FROM gesell.entry WHERE seq = (SELECT max(seq) FROM gesell.entry)"
        " RETURNING 'the commons'' head says seq ' || seq",
    ),
    tampering(
        "all entries deleted",
        "DELETE FROM gesell.entry RETURNING 'entry 1 is missing'",
    ),
    tampering(
        "entry of another commons",
        f"UPDATE gesell.entry SET (body, signatures) = (SELECT body, signatures FROM gesell.entry WHERE seq = 1"
        f" AND commons_id = {WOERGL}) WHERE seq = 1 AND commons_id <> {WOERGL}"
        " RETURNING 'entry 1: its statement is meant for the commons'",
    ),
    tampering(
        "inserted posting",
        f"INSERT INTO gesell.posting SELECT commons_id, account, seq, 7, balance, 99, reason FROM gesell.posting"
        f" WHERE {ONE_POSTING} RETURNING 'entry ' || seq || ': its postings do not sum to zero'",
    ),
    tampering(
        "inserted pair of postings",
        f"INSERT INTO gesell.posting SELECT commons_id, account, seq, amount, balance + amount, 99, reason"
        f" FROM gesell.posting WHERE seq = {FIRST_PAY} AND reason = 'pay' RETURNING 'entry ' || seq || ': decided'",
    ),
    tampering(
        "inserted posting of no entry",
        f"INSERT INTO gesell.posting SELECT commons_id, account, 999999, 7, balance, 99, reason FROM gesell.posting"
        f" WHERE {ONE_POSTING} RETURNING 'a posting of account ' || account || ' says that it is of entry 999999'",
    ),
    tampering(
        "inserted posting of no account",
        f"INSERT INTO gesell.posting SELECT commons_id, 9999, seq, 7, balance, 99, reason FROM gesell.posting"
        f" WHERE {ONE_POSTING} RETURNING 'a posting of account 9999 says that it is of entry ' || seq",
    ),
    tampering(
        "deleted posting",
        f"DELETE FROM gesell.posting WHERE {ONE_POSTING} RETURNING 'entry ' || seq || ':'",
    ),
    tampering(
        "changed account balance",
        f"UPDATE gesell.account SET balance = balance + 1 WHERE number = {A_MEMBERS} RETURNING {HOLDER} || ' holds'",
    ),
    tampering(
        "changed running balance",
        f"UPDATE gesell.posting SET balance = balance + 1 WHERE {ONE_POSTING}"
        " RETURNING 'entry ' || seq || ': the running balance of the account of'",
    ),
    tampering(
        "changed inflows",
        f"UPDATE gesell.account SET inflows = '\\x91920a05' WHERE number = {A_MEMBERS} RETURNING {HOLDER} || ' is not'",
    ),
    tampering(
        "inflows that can't be read",
        f"UPDATE gesell.account SET inflows = '\\xff' WHERE number = {A_MEMBERS} RETURNING {HOLDER} || ' can''t be'",
    ),
    tampering(
        "inflows of another shape",
        f"UPDATE gesell.account SET inflows = '\\x80' WHERE number = {A_MEMBERS} RETURNING {HOLDER} || ' can''t be'",
    ),
    tampering(
        "changed tick of an account",
        f"UPDATE gesell.account SET tick = tick + 5 WHERE number = {A_MEMBERS} RETURNING {HOLDER} || ' is not'",
    ),
    tampering(
        "changed escrow of an account",
        f"UPDATE gesell.account SET escrow = escrow + 5 WHERE number = {A_MEMBERS} RETURNING {HOLDER} || ' is not'",
    ),
    tampering(
        "deleted account",
        f"DELETE FROM gesell.account WHERE number = {SELDOM_USED} RETURNING {HOLDER} || ' is missing'",
    ),
    tampering(
        "invented account",
        f"INSERT INTO gesell.account SELECT commons_id, 9999, 0, 0, 0, decode(repeat('ab', 32), 'hex'), asset, inflows"
        f" FROM gesell.account WHERE number = {A_MEMBERS} RETURNING {HOLDER} || ' is in no entry'",
    ),
    *(
        tampering(
            f"changed member: {change}",
            f"UPDATE gesell.member SET {change} WHERE handle = 'bob' RETURNING 'the member ' || encode(peer, 'hex')",
        )
        for change in (
            "status = 'suspended'",
            "handle = 'bill'",
            "joined_ms = joined_ms - 1",
            "barred = true",
            "handle_held = false",
            "trusted = trusted + 1",
            "lent = 0",
            "vouchers = vouchers + 1",
            "vouchees = 0",
            "awaits = 7",
            "spans = '\\x920104'",
            "spans = 'rubbish'",
        )
    ),
    tampering(
        "deleted member",
        "DELETE FROM gesell.member WHERE handle = 'cyd' RETURNING 'the member ' || encode(peer, 'hex')",
    ),
    tampering("revoked key", "UPDATE gesell.peer_key SET live = NOT live RETURNING 'the key ' || encode(key, 'hex')"),
    tampering(
        "key given to another",
        "UPDATE gesell.peer_key SET peer = decode(repeat('ab', 32), 'hex') WHERE key <> peer"
        " RETURNING 'the key ' || encode(key, 'hex')",
    ),
    *(
        tampering(
            f"changed head: {name} = {value}",
            f"UPDATE gesell.commons SET {name} = {value} WHERE name = 'Woergl' RETURNING 'the commons'' head {said}'",
        )
        for name, value, said in (
            ("seq", f"seq + 1, tree = {PEAKS_OF_ONE_MORE}", "says seq"),
            ("at_ms", "at_ms + 1", "says at_ms"),
            ("active_members", "active_members + 1", "says active_members"),
            ("stewards", "stewards || stewards", "says stewards"),
            ("currency_scale", "3", "says currency"),
            ("share", "hash", "says share"),
            ("accounts", "accounts - 1", "counts"),
            ("policies", "policies - 1", "counts"),
            ("kinds", "kinds + 1", "counts"),
        )
    ),
    tampering(
        "commons bound to another ledger",
        "UPDATE gesell.commons SET ledger = decode(repeat('ab', 32), 'hex') WHERE name = 'Woergl'"
        " RETURNING 'the commons'' head says ledger'",
    ),
    tampering(
        "hand-over that nobody signed",
        "INSERT INTO gesell.handover SELECT commons_id, 2, ledger FROM gesell.commons WHERE name = 'Woergl'"
        " RETURNING 'handover: this is not what the entries make it'",
    ),
    tampering(
        "hash of another entry",
        "UPDATE gesell.entry SET leaf = decode(repeat('ab', 32), 'hex') WHERE seq = 3"
        " RETURNING 'entry 3: the hash that is stored beside it is not its own'",
    ),
    tampering(
        "peaks of another tree",
        "UPDATE gesell.commons SET tree = decode(repeat('ab', octet_length(tree)), 'hex') WHERE name = 'Woergl'"
        " RETURNING 'the peaks of the tree in the commons'' head are not those of its entries'",
    ),
    tampering(
        "node of no tree",
        "INSERT INTO gesell.subtree SELECT commons_id, 0, 1, leaf FROM gesell.entry WHERE seq = 1"
        " RETURNING 'the node of the tree at level 1, place 0 is not what its entries hash to'",
    ),
    tampering(
        "changed policy",
        "UPDATE gesell.policy SET from_tick = from_tick + 1 WHERE seq > 1 RETURNING 'the policy of entry ' || seq",
    ),
    tampering(
        "policy that can't be read",
        "UPDATE gesell.policy SET policy = 'rubbish' WHERE seq > 1 RETURNING 'the policy of entry ' || seq",
    ),
    *(
        tampering(what, f"{change} RETURNING '{said}: this is not what the entries make it'")
        for what, change, said in (
            ("changed kind", "UPDATE gesell.kind SET scale = 3", "kind"),
            ("deleted kind", "DELETE FROM gesell.kind", "kind"),
            ("changed gift", "UPDATE gesell.gift SET quantity = quantity + 1 WHERE state = 'received'", "gift"),
            ("gift given to another", "UPDATE gesell.gift SET receiver = giver WHERE state = 'received'", "gift"),
            ("declined gift taken", "UPDATE gesell.gift SET state = 'received' WHERE state = 'declined'", "gift"),
            ("gift settled by another entry", "UPDATE gesell.gift SET settled = settled + 1", "gift"),
            ("deleted gift", "DELETE FROM gesell.gift WHERE state = 'offered'", "gift"),
            ("changed hold", "UPDATE gesell.hold SET amount = amount + 1 WHERE ended IS NULL", "hold"),
            ("hold for another", "UPDATE gesell.hold SET payee = payer", "hold"),
            ("ended hold opened", "UPDATE gesell.hold SET ended = NULL WHERE ended IS NOT NULL", "hold"),
            ("deleted hold", "DELETE FROM gesell.hold WHERE ended IS NOT NULL", "hold"),
            ("cut thread", "DELETE FROM gesell.gift_thread", "gift_thread"),
            ("changed vouch", "UPDATE gesell.vouch SET amount = amount + 1", "vouch"),
            ("deleted vouch", "DELETE FROM gesell.vouch", "vouch"),
            ("changed past of a vouch", "UPDATE gesell.vouch_change SET amount = amount + 1", "vouch_change"),
            ("changed credit", "UPDATE gesell.credit SET vouched = vouched + 1", "credit"),
            ("deleted credit", "DELETE FROM gesell.credit", "credit"),
        )
    ),
    tampering("changed share", "UPDATE gesell.share_out SET each = each + 1 RETURNING 'the share of entry ' || seq"),
    tampering(
        "changed memo",
        "UPDATE gesell.memo SET text = 'for wine' WHERE text = 'for bread'"
        f" RETURNING 'entry ' || {FIRST_PAY} || ': its memo''s text'",
    ),
    tampering(
        "swapped order",
        f"UPDATE gesell.entry SET seq = -seq + 2000000 WHERE seq IN ({FIRST_PAY}, {FIRST_PAY} + 1)",
        f"UPDATE gesell.entry SET seq = 2 * {FIRST_PAY} + 1 - (2000000 - seq) WHERE seq > 1000000"
        f" RETURNING 'entry ' || {FIRST_PAY} || ': '",
    ),
    tampering(
        "time moved before that of the entry before",
        f"UPDATE gesell.entry SET at_ms = at_ms - {DAY_MS} WHERE seq = {FIRST_PAY}"
        " RETURNING 'entry ' || seq || ': its time lies before'",
    ),
    tampering(
        "time moved to another tick",
        f"""UPDATE gesell.entry e SET at_ms = f.at_ms FROM gesell.entry f
            WHERE f.commons_id = e.commons_id AND f.seq = e.seq + 1 AND e.seq = {FIRST_PAY}
              AND f.at_ms >= e.at_ms + 2 * {DAY_MS}
            RETURNING 'entry ' || e.seq || ': decided again'""",
    ),
]


@pytest.mark.parametrize("tampered", TAMPERINGS, ids=lambda one: one.what)
def test_the_check_finds_and_names(postgres: OwnPostgres, spoilt: str, check: Check, tampered: Tampering) -> None:
    *before, last = tampered.statements
    postgres.execute(spoilt, *before)
    named = [row[0] for row in postgres.fetch(spoilt, last)]
    assert named, "the tampering itself changed nothing"
    said = check()
    assert (said.status, said.err) == (1, "")
    assert "THE BOOKS DO NOT HOLD" in said.out
    for one in named:
        assert one in said.out, said.out


def test_the_check_goes_on_with_the_other_commons(postgres: OwnPostgres, spoilt: str, check: Check) -> None:
    postgres.execute(spoilt, "UPDATE gesell.commons SET active_members = 7 WHERE name = 'Another place'")
    said = check("--json")
    assert said.status == 1
    assert {report["name"]: report["holds"] for report in json.loads(said.out)} == {
        "Another place": False,
        "Woergl": True,
    }


def test_one_wrong_posting_is_told_of_without_a_flood(postgres: OwnPostgres, spoilt: str, check: Check) -> None:
    postgres.execute(spoilt, f"UPDATE gesell.posting SET amount = amount + 1 WHERE {ONE_POSTING}")
    (found,) = [report["findings"] for report in json.loads(check("--json").out) if not report["holds"]]
    assert len(found) <= 6, found
    entries = {number for line in found for number in re.findall(r"^entry (\d+)", line)}
    assert entries == {str(postgres.fetch(spoilt, f"SELECT {FIRST_PAY}")[0][0])}


def test_the_findings_of_a_wreck_are_bounded(postgres: OwnPostgres, spoilt: str, check: Check) -> None:
    postgres.execute(
        spoilt, "UPDATE gesell.entry SET signatures = set_byte(signatures, 40, get_byte(signatures, 40) # 1)"
    )
    for report in json.loads(check("--json").out):
        assert not report["holds"]
        assert len(report["findings"]) <= 21
    assert report["findings"]


# ── What can't be checked ────────────────────────────────────────────────────────────────────────────────────────


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        commands.app(["db", "check", *arguments], result_action="return_value")
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (1, "")
    assert err.startswith("gesell: ")
    assert err.count("\n") == 1
    return err


def test_a_database_without_a_ledger_says_so(postgres: OwnPostgres, capsys: pytest.CaptureFixture[str]) -> None:
    said = fails(capsys, "--database", postgres.service_dsn("template1"))
    assert "the ledger's tables are not in this database" in said
    assert "gesell db migrate" in said


def test_a_database_that_is_not_there_says_so(postgres: OwnPostgres, capsys: pytest.CaptureFixture[str]) -> None:
    assert "can't be reached" in fails(capsys, "--database", postgres.service_dsn("nowhere"))
    assert "is no address" in fails(capsys, "--database", "postgresql://somebody@127.0.0.1:port/x")


def test_a_folder_that_was_never_served_from_is_left_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "say its folder with --data DIR" in fails(capsys, "--data", str(folder / "typo"))
    assert list(folder.iterdir()) == []


def test_a_ledger_without_a_commons_has_nothing_to_prove(
    postgres: OwnPostgres, capsys: pytest.CaptureFixture[str]
) -> None:
    name = postgres.make_database()
    asyncio.run(migrate(postgres.owner_dsn(name)))
    commands.app(["db", "check", "--database", postgres.service_dsn(name)], result_action="return_value")
    assert capsys.readouterr().out == "no commons yet: nothing to prove\n"
