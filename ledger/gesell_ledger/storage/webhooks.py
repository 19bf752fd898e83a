"""Loads and stores webhooks: what a peer asked for, how far it has come, who delivers it just now.

Owns the leases by which several services share one database: a webhook is claimed for a while, and who has it may
store how it went only as long as nobody else claimed it, changed it or deleted it. Times are real ones by the
database's clock, in ms. Knows no endpoint, no signature and no right to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asyncpg.pgproto.pgproto import UUID

from gesell_ledger.storage import rows
from gesell_ledger.storage.queries import queries

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

_WEBHOOKS = queries("webhooks")

#: What a commons with webhooks was at a moment: another one after every entry and every request for a webhook.
Mark = tuple[int, int]

SLOTS: Final = 8
WHY_MAX_CHARS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a request asks for: which `types` (none for all), all entries or those that concern the peer, from which
    seq on (None: where it stands, or from now on), signed by `key` at `asked_s` of the ledger's clock.
    """

    url: str
    types: tuple[str, ...]
    every_entry: bool
    after: int | None
    key: bytes
    asked_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A webhook as its peer sees it; one that was deleted has nothing but its slot, its id and `asked_s`.

    Entries up to `seen` are delivered, or not for it. `failures` counts the attempts since the last delivery, `why`
    tells of the last one, or why it is disabled; before `next_ms` it is not tried again.
    """

    slot: int
    id: bytes
    key: bytes
    secret: bytes
    url: str
    types: tuple[str, ...]
    every_entry: bool
    state: str
    why: str
    asked_s: int
    seen: int
    failures: int
    next_ms: int


@dataclass(frozen=True, slots=True)
class Due:
    """A webhook with entries to deliver, from `due_ms` on."""

    key: int
    commons: bytes
    peer: bytes
    id: bytes
    due_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A webhook in our hands."""

    commons: bytes
    id: bytes
    lease: UUID
    peer: bytes
    key: bytes
    secret: bytes
    url: str
    types: tuple[str, ...]
    every_entry: bool
    seen: int
    failures: int


class Webhooks:
    """The webhooks of one database. Safe for any number of tasks and services at once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def now_ms(self) -> int:
        """Real time by the database's clock."""
        now: int = await self._pool.fetchval(_WEBHOOKS["load_now"])
        return now

    # ── What peers ask for ───────────────────────────────────────────────────────────────────────────────────────

    async def list_of(self, commons: bytes, peer: bytes) -> list[Webhook]:
        """All webhooks of a peer, at most `SLOTS`, deleted ones too."""
        found = await self._pool.fetch(_WEBHOOKS["list_webhooks"], rows.key_of(commons), peer)
        return [
            Webhook(**{**dict(row), "id": row["id"].bytes, "types": tuple(row["types"])})  # the columns are its fields
            for row in found
        ]

    async def add(
        self, commons: bytes, peer: bytes, wish: Wish, *, slot: int, name: bytes, secret: bytes, seen: int
    ) -> bool:
        """Store a new webhook; False if the slot was taken meanwhile, or a newer request has been there."""
        place = (rows.key_of(commons), peer, slot, UUID(name), wish.key, secret)
        asked = (wish.url, list(wish.types), wish.every_entry, wish.asked_s)
        return bool(await self._pool.fetchval(_WEBHOOKS["insert_webhook"], *place, *asked, seen))

    async def change(self, commons: bytes, peer: bytes, wish: Wish, *, name: bytes) -> bool:
        """Make a webhook what a newer request asks for, and enable it; False if a newer one has been there."""
        asked = (wish.key, list(wish.types), wish.every_entry, wish.asked_s, wish.after)
        place = (rows.key_of(commons), peer, UUID(name))
        return bool(await self._pool.fetchval(_WEBHOOKS["change_webhook"], *place, *asked))

    async def delete(self, commons: bytes, peer: bytes, name: bytes, *, now_s: int) -> bool:
        """End a webhook; False if the peer has none of this name. No request issued by `now_s` brings it back."""
        place = (rows.key_of(commons), peer, UUID(name))
        return bool(await self._pool.fetchval(_WEBHOOKS["delete_webhook"], *place, now_s))

    # ── Delivering ───────────────────────────────────────────────────────────────────────────────────────────────

    async def list_marks(self) -> dict[int, Mark]:
        """The commons that have live webhooks, by their commons_id, as they are now."""
        found = await self._pool.fetch(_WEBHOOKS["list_marks"])
        return {row["commons_id"]: (row["seq"], row["asked"]) for row in found}

    async def list_pending(self, keys: Sequence[int], *, now_ms: int, limit: int, each: int) -> list[Due]:
        """Webhooks of these commons that have entries to deliver, whoever has them: `limit` at most, and `each` at most
        of one commons; those that are due by now before the others, the first of each commons before all second ones.
        """
        found = await self._pool.fetch(_WEBHOOKS["list_pending"], keys, limit, each, now_ms)
        return [Due(row["commons_id"], row["hash"], row["peer"], row["id"].bytes, row["due_ms"]) for row in found]

    async def claim(self, commons: bytes, name: bytes, *, lease: UUID, now_ms: int, until_ms: int) -> Claimed | None:
        """Take a webhook until a moment; None if somebody has it, or it rests, or is live no more."""
        place = (rows.key_of(commons), UUID(name))
        row = await self._pool.fetchrow(_WEBHOOKS["claim_webhook"], *place, lease, now_ms, until_ms)
        if row is None:
            return None
        return Claimed(**{**dict(row), "types": tuple(row["types"])}, commons=commons, id=name, lease=lease)

    async def store_delivered(self, hook: Claimed, *, until_ms: int) -> bool:
        """Note how far a webhook has come and keep it until a moment; False if it is in our hands no more."""
        return bool(await self._pool.fetchval(_WEBHOOKS["store_delivered"], *_place(hook), hook.seen, until_ms))

    async def store_rest(self, hook: Claimed, *, why: str, next_ms: int) -> None:
        """Let go of a webhook until a moment, if it is in our hands."""
        rest = (hook.seen, hook.failures, why[:WHY_MAX_CHARS], next_ms)
        await self._pool.execute(_WEBHOOKS["store_rest"], *_place(hook), *rest)

    async def postpone(self, hook: Claimed, *, next_ms: int) -> None:
        """Let go of a webhook until a moment, if it is in our hands; failures and their reason stay as they are."""
        await self._pool.execute(_WEBHOOKS["postpone_webhook"], *_place(hook), hook.seen, next_ms)

    async def release(self, hook: Claimed) -> None:
        """Let go of a webhook as it was last stored, if it is in our hands."""
        await self._pool.execute(_WEBHOOKS["release_webhook"], *_place(hook))

    async def store_disabled(self, hook: Claimed, *, why: str) -> None:
        """Deliver a webhook no more, if it is in our hands."""
        end = (hook.seen, hook.failures, why[:WHY_MAX_CHARS])
        await self._pool.execute(_WEBHOOKS["store_disabled"], *_place(hook), *end)


def _place(hook: Claimed) -> tuple[int, UUID, UUID]:
    return rows.key_of(hook.commons), UUID(hook.id), hook.lease
