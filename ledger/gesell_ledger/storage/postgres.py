"""The connections, and the sequencer's transaction: lock, load, store.

Owns the pool, what is asked of a database before it is used, and the one transaction in which a batch becomes
entries. Decides nothing: what is loaded comes from `needs`, what is stored comes from decisions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from gesell_ledger.core.books import (
    AccountName,
    Books,
    Entry,
    Known,
    Member,
    Vouches,
)
from gesell_ledger.core.decide import Accepted
from gesell_ledger.core.needs import Needs
from gesell_ledger.storage import rows
from gesell_ledger.storage.changes import ACCOUNT_COLUMNS, Changes, account_values, leaves_of, merge, posting_values
from gesell_ledger.storage.faults import DatabaseUnfit
from gesell_ledger.storage.queries import migrations, queries
from gesell_ledger.storage.rules import Rules
from gesell_protocol.demurrage import Holding
from gesell_protocol.envelopes import Memo
from gesell_protocol.names import RESERVED_HOLDERS
from gesell_protocol.tree import Frontier

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

_SEQUENCE = queries("sequence")
_SERVICE = queries("service")
_READING = queries("reading")
_RESERVED = [name.encode() for name in RESERVED_HOLDERS]

SETTINGS = {
    "application_name": "gesell",
    "search_path": "gesell",
    "jit": "off",
    # On Citus each connection's first array parameter cost seconds without this; PostgreSQL takes it as a no-op.
    "citus.override_table_visibility": "off",
}


#: What the sequencer asks is always a few rows by their keys. Planned anew for each batch, with a thousand keys in view
#: and without statistics of a young table, it was now and then a look at all rows: six times the cost of a payment.
_WRITING = {"plan_cache_mode": "force_generic_plan"}


@asynccontextmanager
async def open_pool(dsn: str, *, connections: int = 8, seconds: int = 60, writing: bool = False) -> AsyncIterator[Pool]:
    """A pool of connections as the service uses them, each statement bounded to so many `seconds`; what `asyncpg`
    raises passes through. Those for `writing` are the sequencer's.
    """
    async with asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=connections,
        reset=_keep_settings,
        server_settings={**SETTINGS, **(_WRITING if writing else {}), "statement_timeout": f"{seconds}s"},
        command_timeout=seconds + 5,
        timeout=15,
    ) as pool:
        yield pool


async def _keep_settings(_: Connection) -> None:
    """What a connection's user leaves behind: nothing. No settings, locks or listeners outlive a transaction here, so
    the four statements with which the driver would clear them away after every use are spared; an open transaction it
    ends by itself.
    """


async def check_fit(pool: Pool, *, unsafe_durability: bool) -> None:
    """Refuse a database that the service must not run on; raises `DatabaseUnfit` with what to do.

    In order: the schema is there and of this version; this role can't rewrite history; durability is on, unless the
    operator gave it up with `--unsafe-durability`.
    """
    await _check_version(pool)
    rights = await pool.fetchrow(_SERVICE["check_rights"])
    assert rights is not None
    if rights["rewrites"]:
        raise DatabaseUnfit(
            f"the database role {rights['who']} could rewrite history (UPDATE, DELETE or TRUNCATE on entry, posting or"
            " policy). Connect as a role without these rights: `gesell db migrate` makes gesell_service for this."
        )
    settings = await pool.fetch(_SERVICE["check_durability"])
    weak = [f"{row['name']} is {row['setting']}" for row in settings if row["setting"] in ("off", "local", "unlogged")]
    if weak and not unsafe_durability:
        raise DatabaseUnfit(
            f"the server could lose what was acknowledged: {', '.join(weak)}. Turn it on, or say"
            " --unsafe-durability if losing payments is acceptable."
        )


async def _check_version(pool: Pool) -> None:
    newest = migrations()[-1][0]
    try:
        version = await pool.fetchval(_SERVICE["load_version"])
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError):
        version = 0
    if version > newest:
        raise DatabaseUnfit(
            f"the database's schema is at version {version}, newer than this program's {newest}."
            " Install the program that made it, or a later one."
        )
    if version != newest:
        raise DatabaseUnfit(
            f"the database's schema is at version {version}, this program needs {newest}."
            " Run `gesell db migrate --database DSN` as the owner."
        )


async def claim_ledger(pool: Pool, *, key: bytes, demo: bool, now_ms: int) -> asyncpg.Record:
    """Whose database this is: the first service to come writes it; returns (key, demo, heartbeat_ms) as they stand."""
    await pool.execute(_SERVICE["claim_ledger"], key, demo, now_ms)
    row = await load_ledger(pool)
    assert row is not None
    return row


async def load_ledger(pool: Pool) -> asyncpg.Record | None:
    """Whose database this is: (key, demo, heartbeat_ms); None where no service ever ran on it."""
    return await pool.fetchrow(_SERVICE["load_ledger"])


async def store_ledger_key(pool: Pool, *, old: bytes, new: bytes) -> None:
    """Note that the database is another key's from now on."""
    await pool.execute(_SERVICE["store_ledger_key"], old, new)


async def store_heartbeat(pool: Pool, now_ms: int) -> None:
    """Note that the service runs."""
    await pool.execute(_SERVICE["store_heartbeat"], now_ms)


async def find_commons(pool: Pool, names: Sequence[bytes]) -> set[bytes]:
    """Which of some commons, by their 16-byte names, were founded here."""
    found = await pool.fetch(_SEQUENCE["find_commons"], [rows.key_of(name) for name in names])
    return {row["hash"] for row in found}


@dataclass(slots=True)
class Warm:
    """Books that a committed batch left behind, still true while the head's tree is theirs. Its peaks are a hash of all
    entries; `seq` alone would also fit where a database that lost its last entries was given as many others. `numbers`
    are the accounts' in the database, `accounts` is how many there are; `tree` is over all entries. `peers` and `keys`
    were asked for and are some member's or steward's: of these the books know all there is. Names of nobody are not
    kept, lest strangers fill the room of all with names that they make up; a payment that has one in it is refused,
    or carries a signature that nobody asked for.
    """

    books: Books
    numbers: dict[AccountName, int]
    accounts: int
    peers: set[bytes]
    keys: set[bytes]
    tree: Frontier

    @property
    def size(self) -> int:
        """About how many KB it takes: for names that were found, keys that came, and ticks of fresh money."""
        books = self.books
        rest_ticks = max(policy.rest_ticks for _, policy in books.commons.timeline.changes) if books.commons else 0
        fresh = len(books.accounts) * rest_ticks // 8
        return 1 + len(self.peers) + len(self.keys) + len(books.keys) + fresh


class Batch:
    """One transaction of one commons: `lock`, `load`, then `store` what was decided. Commits when it is left.

    `warm` is what the last batch of this process left; it is used if the head still says what that batch made of it.
    """

    def __init__(self, connection: Connection, commons: bytes, rules: Rules, warm: Warm | None = None) -> None:
        self._connection = connection
        self._commons = commons
        self._commons_id = rows.key_of(commons)
        self._rules = rules
        self._warm = warm
        self._numbers: dict[AccountName, int] = {}
        self._peers: set[bytes] = set()
        self._keys: set[bytes] = set()
        self._asked_peers: set[bytes] = set()
        self._asked_keys: set[bytes] = set()
        self._gift_accounts: set[AccountName] = set()
        self._accounts = 0
        self._policies = 0
        self._kinds = 0
        self._tree = Frontier()

    async def lock(self) -> Books | None:
        """Take the lock of the commons' head; returns Books that hold what is known without asking again: the head
        at least, nothing before `found`. None where the rows belong to another commons: 8 bytes name the rows and 16
        the commons, and whoever searches long enough finds two that begin the same.
        """
        head = await self._connection.fetchrow(_SEQUENCE["lock_commons"], self._commons_id)
        if head is not None and head["hash"] == self._commons:
            self._tree = Frontier.unpack(head["seq"], head["tree"])
        return await self._read_head(head)

    async def look(self) -> Books | None:
        """The Books as `lock` returns them, without the lock: for a decision of which nothing is stored. Never those of
        `warm`, since the tree is not read here.
        """
        return await self._read_head(await self._connection.fetchrow(_READING["load_commons"], self._commons_id))

    async def _read_head(self, head: asyncpg.Record | None) -> Books | None:
        if head is None:
            return Books()
        if head["hash"] != self._commons:
            return None
        self._accounts, self._policies, self._kinds = head["accounts"], head["policies"], head["kinds"]
        warm = self._warm
        if warm is not None and warm.tree == self._tree:
            self._numbers, self._peers, self._keys = warm.numbers, warm.peers, warm.keys
            return warm.books
        return Books(commons=await self._rules.read_commons(self._connection, head))

    def leave_warm(self, books: Books) -> Warm:
        """What the next batch may start from, once this one is committed.

        Entries, gifts, holds and vouches are asked for anew each time, and so are the accounts that count gifts.
        """
        books.entries, books.gifts, books.holds, books.vouches = {}, {}, {}, Vouches()
        for name in self._gift_accounts:
            books.accounts.pop(name, None)
            self._numbers.pop(name, None)
        # Only now, so that who joined in this batch is among them. Of a member's own key there may be no row.
        self._peers |= {peer for peer in self._asked_peers if peer in books.members}
        self._keys |= {key for key in self._asked_keys if key in books.keys or key in books.members}
        return Warm(books, self._numbers, self._accounts, self._peers, self._keys, self._tree)

    async def load(self, books: Books, needs: Needs) -> None:
        """Put into the books all that a batch needs and that is not there already."""
        if books.commons is None:
            return
        if needs.gifts or needs.gift_accounts or needs.holds or needs.vouches or needs.vouch_rings:
            await self._load_given(books, needs)
        # The sides of vouches and holds are looked at like those whom the statements name.
        pairs = [*books.vouches, *((hold.payer, hold.payee) for hold in books.holds.values())]
        peers = {*needs.peers, *(peer for pair in pairs for peer in pair)} - self._peers
        # Who comes and goes while a share is open must be seen against it.
        shares = needs.shares | ({books.commons.share} if books.commons.share is not None else set())
        keys = needs.keys - self._keys
        row = await self._connection.fetchrow(
            _SEQUENCE["load_batch"],
            self._commons_id,
            list(peers),
            [*peers, *_RESERVED] if not self._peers else list(peers),
            books.commons.currency.code,
            list(needs.handles),
            list(keys),
            list(needs.key_rings),
            rows.array_text([name.hex() for name in needs.ids]),
            [rows.uuid_of(name) for name in shares],
        )
        assert row is not None
        self._asked_peers, self._asked_keys = peers, keys
        members = [rows.read_member(member) for member in row["members"]]
        books.members |= {member.peer: member for member in members}
        self._read_accounts(books, row["accounts"])
        books.keys |= {key[0]: rows.read_key(key) for key in row["keys"]}
        books.shares |= {share.id: share for share in map(rows.read_share, row["shares"])}
        books.held |= dict(row["holders"])
        await self._load_holders(books, members)
        if row["entries"]:
            await self._load_entries(books, row["entries"], needs.bodies)

    def _read_accounts(self, books: Books, found: Iterable[rows.Row]) -> None:
        for number, holder, asset, balance, escrow, tick, inflows in found:
            name = (rows.read_holder(holder), asset)
            self._numbers[name] = number
            books.accounts[name] = rows.read_holding(balance, escrow, tick, inflows)

    async def _load_given(self, books: Books, needs: Needs) -> None:
        """Gifts, the accounts in which they are counted, holds, and vouches."""
        pairs = list(needs.vouches)
        row = await self._connection.fetchrow(
            _SEQUENCE["load_given"],
            self._commons_id,
            [rows.uuid_of(name) for name in needs.gifts],
            [voucher for voucher, _ in pairs],
            [vouchee for _, vouchee in pairs],
            list(needs.vouch_rings),
            [rows.uuid_of(name) for name in needs.holds],
        )
        assert row is not None
        books.gifts |= {gift.id: gift for gift in map(rows.read_gift, row["gifts"])}
        books.holds |= {hold.id: hold for hold in map(rows.read_hold, row["holds"])}
        for voucher, vouchee, amount in (*row["vouches"], *row["vouches_by"], *row["vouches_for"]):
            books.vouches.put((voucher, vouchee), amount)
        sides = ((holder, gift.kind) for gift in books.gifts.values() for holder in (gift.giver, gift.receiver))
        self._gift_accounts = {*needs.gift_accounts, *sides}
        if self._gift_accounts:
            names = [(rows.holder_bytes(holder), kind) for holder, kind in self._gift_accounts]
            found = await self._connection.fetch(
                _SEQUENCE["load_gift_accounts"],
                self._commons_id,
                [holder for holder, _ in names],
                [kind for _, kind in names],
            )
            self._read_accounts(books, map(tuple, found))

    async def _load_holders(self, books: Books, members: Sequence[Member]) -> None:
        """Who holds the handles that members ask for but do not hold."""
        asked = [member.handle for member in members if not member.handle_held]
        if asked:
            holders = await self._connection.fetch(_SEQUENCE["load_holders"], self._commons_id, asked)
            books.held |= {row[0]: row[1] for row in holders}

    async def _load_entries(self, books: Books, found: Sequence[Sequence[Any]], bodies: Set[bytes]) -> None:
        """Whole entries of statements that are said again, which weigh what they did the first time. Of one whose id
        is used for something else, or whose memo is to go, only what it said: whoever names it weighs next to nothing.
        """
        again = [row for row in found if row[3] in bodies]
        books.entries |= {row[2].bytes: Known(row[3]) for row in found}
        if not again:
            return
        seqs = [row[0] for row in again]
        postings = rows.read_postings(await self._connection.fetch(_SEQUENCE["load_postings"], self._commons_id, seqs))
        for row in again:
            entry = rows.read_entry(self._commons, row, postings[row[0]])
            books.entries[entry.id] = entry

    async def store(
        self,
        books: Books,
        accepted: Sequence[Accepted],
        before: Mapping[AccountName, Holding],
        memos: Mapping[bytes, Memo],
    ) -> list[bytes]:
        """Store what a batch accepted, and return the leaf hashes of its entries: `before` are the accounts as loaded,
        `books` stand after the batch.
        """
        if not accepted:
            return []
        assert books.commons is not None
        connection, commons_id = self._connection, self._commons_id
        changes = merge(accepted)
        founded = accepted[0].entry.seq == 1
        new = [name for name in changes.accounts if name not in self._numbers]
        first = self._accounts
        self._numbers |= {name: first + place for place, name in enumerate(new)}
        self._accounts += len(new)
        self._policies += len(changes.policies)
        self._kinds += len(changes.kinds)
        leaves = leaves_of(accepted)
        self._tree, subtrees = self._tree.grown(leaves)
        assert self._tree.size == books.commons.seq, "the tree has a leaf for every entry"
        await self._store_head(books, founded=founded)
        await connection.copy_records_to_table(
            "entry",
            schema_name="gesell",
            columns=["commons_id", "seq", "at_ms", "id", "body", "signatures", "leaf"],
            records=[_entry_record(commons_id, one.entry, leaf) for one, leaf in zip(accepted, leaves, strict=True)],
        )
        await connection.copy_records_to_table(
            "posting",
            schema_name="gesell",
            columns=["commons_id", "account", "seq", "amount", "balance", "n", "reason"],
            records=[(commons_id, *values) for values in posting_values(books, accepted, before, self._numbers)],
        )
        await self._store_accounts(changes.accounts, new)
        await self._store_rest(changes, memos)
        await self._store_given(changes)
        await self._store_mentions(accepted)
        await self._copy(
            ("subtree", ["commons_id", "level", "place", "hash"], subtrees),
            ("handover", ["commons_id", "seq", "ledger"], changes.handovers),
        )
        return leaves

    async def _store_head(self, books: Books, *, founded: bool) -> None:
        head = books.commons
        assert head is not None
        if not founded:
            await self._connection.execute(
                _SEQUENCE["update_commons"],
                self._commons_id,
                head.seq,
                head.at_ms,
                self._accounts,
                head.active_members,
                self._policies,
                head.threshold,
                list(head.stewards),
                head.share,
                self._kinds,
                self._tree.pack(),
                head.ledger,
            )
            return
        await self._connection.execute(
            _SEQUENCE["insert_commons"],
            self._commons_id,
            head.seq,
            head.at_ms,
            self._accounts,
            head.active_members,
            self._policies,
            head.threshold,
            head.currency.scale,
            head.currency.code,
            head.name,
            head.id,
            head.ledger,
            list(head.stewards),
            head.share,
            self._kinds,
            self._tree.pack(),
        )

    async def _store_accounts(self, accounts: Mapping[AccountName, Holding], new: Sequence[AccountName]) -> None:
        created = set(new)
        if new:
            await self._connection.copy_records_to_table(
                "account",
                schema_name="gesell",
                columns=["commons_id", "number", "balance", "escrow", "tick", "holder", "asset", "inflows"],
                records=[self._account_record(name, accounts[name]) for name in new],
            )
        changed = {name: holding for name, holding in accounts.items() if name not in created}
        if changed:
            await self._connection.execute(
                _SEQUENCE["update_accounts"],
                self._commons_id,
                *rows.column_texts(account_values(changed, self._numbers), ACCOUNT_COLUMNS),
            )

    def _account_record(self, name: AccountName, holding: Holding) -> tuple[object, ...]:
        return (
            self._commons_id,
            self._numbers[name],
            holding.balance,
            holding.escrow,
            holding.tick,
            rows.holder_bytes(name[0]),
            name[1],
            rows.inflow_bytes(holding),
        )

    async def _store_mentions(self, accepted: Sequence[Accepted]) -> None:
        mentions = [(self._commons_id, one.entry.seq, peer) for one in accepted for peer in one.mentions]
        if mentions:
            await self._connection.copy_records_to_table(
                "mention", schema_name="gesell", columns=["commons_id", "seq", "peer"], records=mentions
            )

    async def _store_rest(self, changes: Changes, memos: Mapping[bytes, Memo]) -> None:
        """What changes seldom: members, keys, policies, shares, memos."""
        commons_id = self._commons_id
        many: list[tuple[str, list[tuple[object, ...]]]] = [
            (
                "store_member",
                [(commons_id, *rows.member_values(member)) for member in changes.members.values()],
            ),
            ("store_key", [(commons_id, k.key, k.order, k.live, k.peer) for k in changes.keys.values()]),
            (
                "store_policy",
                [(commons_id, seq, tick, rows.policy_bytes(policy)) for seq, tick, policy in changes.policies],
            ),
            (
                "store_share",
                [
                    (commons_id, rows.uuid_of(s.id), s.seq, s.each, s.unpaid, s.paid_through)
                    for s in changes.shares.values()
                ],
            ),
            ("store_memo", [(commons_id, rows.uuid_of(name), memo.salt, memo.text) for name, memo in memos.items()]),
            # After the memos, so that a memo stored and erased in one batch is gone.
            ("erase_memo", [(commons_id, rows.uuid_of(name)) for name in changes.erased]),
        ]
        await self._execute(many)

    async def _store_given(self, changes: Changes) -> None:
        """Kinds, gifts and their thread, holds, vouches as they stand and how they came to."""
        commons_id = self._commons_id
        ended = [(commons_id, *pair) for pair, amount in changes.vouches.items() if amount == 0]
        standing = [(commons_id, *pair, amount) for pair, amount in changes.vouches.items() if amount]
        await self._execute(
            [
                (
                    "store_kind",
                    [(commons_id, seq, kind.scale, kind.code, kind.name, kind.unit) for seq, kind in changes.kinds],
                ),
                ("store_gift", [(commons_id, *values) for values in changes.gift_values()]),
                ("store_hold", [(commons_id, *values) for values in changes.hold_values()]),
                ("end_vouch", ended),
                ("store_vouch", standing),
            ]
        )
        await self._copy(
            ("gift_thread", ["commons_id", "seq", "moved_by"], changes.thread),
            ("vouch_change", ["commons_id", "seq", "amount", "voucher", "vouchee"], changes.vouch_changes),
            ("credit", ["commons_id", "seq", "vouched", "peer"], changes.credits),
        )

    async def _copy(self, *tables: tuple[str, list[str], Sequence[tuple[object, ...]]]) -> None:
        """Append rows to tables, each given without its commons_id."""
        for table, columns, records in tables:
            if records:
                await self._connection.copy_records_to_table(
                    table,
                    schema_name="gesell",
                    columns=columns,
                    records=[(self._commons_id, *record) for record in records],
                )

    async def _execute(self, many: Iterable[tuple[str, Sequence[tuple[object, ...]]]]) -> None:
        for name, arguments in many:
            if arguments:
                await self._connection.executemany(_SEQUENCE[name], arguments)


def _entry_record(commons_id: int, entry: Entry, leaf: bytes) -> tuple[object, ...]:
    signatures = rows.signature_bytes(entry.signatures)
    return commons_id, entry.seq, entry.at_ms, rows.uuid_of(entry.id), entry.body, signatures, leaf
