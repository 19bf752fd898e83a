"""Between rows and the core's values: every encoding that the tables use stands here, in both directions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgpack
from asyncpg.pgproto.pgproto import UUID

from gesell_ledger.core.books import Commons, Entry, Gift, Hold, Key, Kind, Member, ShareOut
from gesell_protocol.canonical import pack, pack_array, unpack
from gesell_protocol.demurrage import Holding
from gesell_protocol.fields import Currency
from gesell_protocol.log import Posting, Signatures
from gesell_protocol.names import RESERVED_HOLDERS, Holder
from gesell_protocol.policy import Policy, Timeline, read_policy

_RESERVED = {name.encode(): name for name in RESERVED_HOLDERS}
_NO_INFLOWS = pack_array([])

#: A row of a query (asyncpg's Record speaks both ways), or of an array of rows within one (a tuple).
Row = Any


def key_of(commons: bytes) -> int:
    """commons_id: the first 8 bytes of a commons' name, as a signed number."""
    return int.from_bytes(commons[:8], "big", signed=True)


def uuid_of(statement_id: bytes) -> UUID:
    """An id as the database takes it."""
    return UUID(statement_id)


def holder_bytes(holder: Holder) -> bytes:
    """A holder as the account table has it."""
    return holder.encode() if isinstance(holder, str) else holder


def read_holder(data: bytes) -> Holder:
    """The holder that stands in the account table."""
    return _RESERVED.get(data, data)


def signature_bytes(signatures: Signatures) -> bytes:
    """Signatures, 96 bytes each."""
    return b"".join([part for pair in signatures for part in pair])


def read_signatures(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The (key, signature) pairs of an entry's row."""
    return tuple((data[at : at + 32], data[at + 32 : at + 96]) for at in range(0, len(data), 96))


def inflow_bytes(holding: Holding) -> bytes:
    """A holding's window of fresh money."""
    return bytes(pack_array(holding.inflows)) if holding.inflows else _NO_INFLOWS


def bytes_text(data: bytes) -> str:
    """Bytes as an item of an array's text."""
    return f"\\\\x{data.hex()}"


def word_text(word: str) -> str:
    """A name of letters, digits and dashes as an item of an array's text; quoted, for NULL is a currency's code too."""
    return f'"{word}"'


def inflow_text(holding: Holding) -> str:
    """A holding's window of fresh money as an item of an array's text."""
    return bytes_text(inflow_bytes(holding))


def column_texts(records: Sequence[tuple[object, ...]], columns: int) -> list[str]:
    """Records as so many arrays, one for each of their columns."""
    if not records:
        return ["{}"] * columns
    return [array_text(map(str, column)) for column in zip(*records, strict=True)]


def array_text(items: Iterable[str]) -> str:
    """An array as PostgreSQL reads it from text; items are numbers, or what the functions above make.

    The driver looks at each item of a list several times before it sends it, which takes five times as long.
    """
    return "{" + ",".join(items) + "}"


def read_holding(balance: int, escrow: int, tick: int, inflows: bytes) -> Holding:
    """An account's row as the law of demurrage takes it."""
    if inflows == _NO_INFLOWS:
        return Holding(balance, escrow, tick)
    window = unpack(inflows)
    assert isinstance(window, list)
    return Holding(balance, escrow, tick, tuple((inflow[0], inflow[1]) for inflow in window))


def policy_bytes(policy: Policy) -> bytes:
    """A policy's row."""
    return pack(policy.fields())


def extend_timeline(timeline: Timeline, rows: Iterable[Row]) -> Timeline:
    """A timeline after more policies, of those with the same from_tick the last, in ascending order of it."""
    return timeline.with_changes(
        (row["from_tick"], read_policy(unpack(row["policy"]), min_tick_seconds=1)) for row in rows
    )


def extend_kinds(kinds: Mapping[str, Kind], rows: Iterable[Row]) -> Mapping[str, Kind]:
    """The kinds of gifts by their codes, after more were made."""
    return MappingProxyType({**kinds, **{row["code"]: read_kind(row) for row in rows}})


def read_commons(row: Row, timeline: Timeline, kinds: Mapping[str, Kind]) -> Commons:
    """A commons' head row."""
    return Commons(
        id=row["hash"],
        name=row["name"],
        currency=Currency(row["currency_code"], row["currency_scale"]),
        ledger=row["ledger"],
        stewards=tuple(row["stewards"]),
        threshold=row["threshold"],
        timeline=timeline,
        seq=row["seq"],
        at_ms=row["at_ms"],
        active_members=row["active_members"],
        share=row["share"],
        kinds=kinds,
    )


def read_member(row: Row) -> Member:
    """A row of (peer, handle, status, joined_ms, handle_held, barred, spans) and what is vouched and awaited."""
    peer, handle, status, joined_ms, handle_held, barred, packed, trusted, lent, vouchers, vouchees, awaits = row
    # Written by `span_bytes`: nobody has to look whether it is canonical.
    flat = msgpack.unpackb(packed)
    spans = tuple([(start, None if end < 0 else end) for start, end in zip(flat[::2], flat[1::2], strict=True)])
    return Member(
        peer=peer,
        handle=handle,
        status=status,
        joined_ms=joined_ms,
        handle_held=handle_held,
        barred=barred,
        spans=spans,
        trusted=trusted,
        lent=lent,
        vouchers=vouchers,
        vouchees=vouchees,
        awaits=awaits,
    )


def member_values(member: Member) -> tuple[object, ...]:
    """A member as the columns of its row, in the order of `store_member`."""
    return (
        member.peer,
        member.joined_ms,
        member.handle_held,
        member.barred,
        member.status,
        member.handle,
        span_bytes(member),
        member.trusted,
        member.lent,
        member.vouchers,
        member.vouchees,
        member.awaits,
    )


def span_bytes(member: Member) -> bytes:
    """A member's spans as the row has them, -1 for one that has not ended."""
    return pack([number for start, end in member.spans for number in (start, -1 if end is None else end)])


def read_key(row: Row) -> Key:
    """A row of (key, peer, rank, live)."""
    return Key(row[0], row[1], row[2], row[3])


def read_share(row: Row) -> ShareOut:
    """A row of (id, seq, each, unpaid, paid_through)."""
    return ShareOut(id=row[0].bytes, seq=row[1], each=row[2], unpaid=row[3], paid_through=row[4])


def read_kind(row: Row) -> Kind:
    """A row that begins with (code, name, unit, scale)."""
    return Kind(row[0], row[1], row[2], row[3])


def read_gift(row: Row) -> Gift:
    """A row of (id, seq, giver, receiver, kind, quantity, state)."""
    return Gift(
        id=row[0].bytes,
        seq=row[1],
        giver=row[2],
        receiver=read_holder(row[3]),
        kind=row[4],
        quantity=row[5],
        state=row[6],
    )


def read_hold(row: Row) -> Hold:
    """A row of (id, seq, payer, payee, amount, until_ms, open)."""
    return Hold(id=row[0].bytes, seq=row[1], payer=row[2], payee=row[3], amount=row[4], until_ms=row[5], open=row[6])


def read_posting(row: Row) -> Posting:
    """A row of (reason, holder, asset, amount)."""
    return Posting(row[0], read_holder(row[1]), row[2], row[3])


def read_postings(lines: Iterable[Row]) -> dict[int, list[Posting]]:
    """Rows of (seq, reason, holder, asset, amount), in order, by their entries."""
    postings: dict[int, list[Posting]] = defaultdict(list)
    for seq, *posting in map(tuple, lines):
        postings[seq].append(read_posting(posting))
    return postings


def read_entry(commons: bytes, row: Row, postings: Sequence[Posting]) -> Entry:
    """A row of (seq, at_ms, id, body, signatures), with its postings."""
    return Entry(
        commons=commons,
        seq=row[0],
        at_ms=row[1],
        id=row[2].bytes,
        body=row[3],
        signatures=read_signatures(row[4]),
        postings=tuple(postings),
    )
