"""The reads of what people make of each other: gifts, trust, relationships and circulation.

Owns these calls; what their answers are made of is `gifts`' and `readings`'. Who sees what is the ledger's to say.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from datetime import datetime
from functools import partial
from typing import Any, Literal

from gesell.amount import Amount
from gesell.answers import HOUR, Kind, int_in, milliseconds, text_in, understood
from gesell.errors import UnexpectedAnswer, refused
from gesell.gifts import Gift, State, read_gift
from gesell.peer import PeerLike
from gesell.readings import (
    Flow,
    KindAmount,
    Relationship,
    Standing,
    Trust,
    Trusted,
    kinds_in,
    read_flow,
    read_relationship,
    read_standing,
    read_trust,
    read_trusted,
)
from gesell.reads import PAGE, Reads, StatementLike, gift_amount, statement_bytes
from gesell.transport import json_of
from gesell_protocol.names import POOL, id_text


class Community(Reads):
    """The calls that read gifts, trust and what is derived of the log. `Client` has them all."""

    async def kind(self, code: str = HOUR.code) -> Kind:
        """A kind of gift, which was made for good: `(await gesell.kind("hour")).unit`. Raises `NotFound`.

        `hour` every commons has; of others the ledger's word is taken for their unit and decimals.
        """
        there = await self._kinds({code})
        if code not in there:
            raise refused({"code": "not-found", "detail": f"there is no kind of gift {code} here"})
        return there[code]

    async def gift(self, gift: StatementLike) -> Gift:
        """One gift with what moved it (`after`) and what it moved (`moved`), by its id. Raises `NotFound`.

        print((await gesell.gift(receipt)).state)           # offered
        """
        name = id_text(statement_bytes(gift))
        fields = json_of(await self._read(self._path("/gifts/" + name)))
        amount_of = await self._kind_amount({understood(lambda item: text_in(item, "kind"), fields)})
        found = understood(partial(read_gift, amount_of=amount_of), fields)
        if found.id != name:
            raise UnexpectedAnswer(f"asked for gift {name}, the ledger spoke of {found.id}")
        return found

    async def gifts(
        self,
        *,
        giver: PeerLike | None = None,
        to: PeerLike | Literal["pool"] | None = None,
        state: State | None = None,
        moved_by: StatementLike | None = None,
        page: int = PAGE,
    ) -> AsyncGenerator[Gift, None]:
        """The gifts that this reader may see, newest first: of a giver, to a member or "pool", in a state.

        `moved_by` asks for those that another gift moved. `page` is how many are fetched at a time.

        async for gift in gesell.gifts(to="bob", state="offered"):
            print(gift.quantity, gift.memo)
        """
        params = {"limit": str(page)}
        params |= {} if giver is None else {"from": self._name(giver)}
        params |= {} if to is None else {"to": POOL if to == POOL else self._name(to)}
        params |= {} if state is None else {"state": state}
        params |= {} if moved_by is None else {"moved_by": id_text(statement_bytes(moved_by))}
        async for whole in self._whole_pages(self._path("/gifts"), params):
            codes = understood(lambda fields: {text_in(item, "kind") for item in fields["items"]}, whole)
            amount_of = await self._kind_amount(codes)
            for item in whole["items"]:
                yield understood(partial(read_gift, amount_of=amount_of), item)

    async def relationships(
        self, of: PeerLike | None = None, *, page: int = PAGE
    ) -> AsyncGenerator[Relationship, None]:
        """What a member, by default oneself, and others had to do with each other, strongest first.

        Another's are shown where the commons is open (`NotAuthorised` else).

        async for one in gesell.relationships():
            print(one.handle, one.strength, one.paid.amount, one.received.amount, one.given.totals())
        """
        currency = await self.currency()
        path = self._path(f"/members/{self._name(of)}/relationships")
        async for whole in self._whole_pages(path, {"limit": str(page)}):
            as_of_seq = understood(lambda fields: int_in(fields, "as_of_seq"), whole)
            kinds = await self._kind_amount(understood(_kinds_in_all, whole))
            read = partial(read_relationship, as_of_seq=as_of_seq, currency=currency, kinds=kinds)
            for item in whole["items"]:
                yield understood(read, item)

    async def standing(self, of: PeerLike | None = None) -> Standing:
        """The gifts that a member, by default oneself, gave and received: `(await gesell.standing("bob")).given`."""
        path = self._path(f"/members/{self._name(of)}/standing")
        return understood(read_standing, json_of(await self._read(path)))

    async def flow(
        self, *, since: datetime | int | None = None, until: datetime | int | None = None, step: int = 1
    ) -> Flow:
        """How money and gifts go round, in steps of so many ticks, up to now, or of a time past.

        `since` and `until` are moments within the first and the last step: aware datetimes, or ms of the ledger's
        clock; 30 steps unless said.

            for step in (await gesell.flow(step=7)).steps:
                print(step.begins, step.paid.amount, step.velocity, step.gifts.totals())
        """
        currency = await self.currency()
        params = {"step": str(step)}
        params |= {} if since is None else {"from": str(milliseconds(since))}
        params |= {} if until is None else {"to": str(milliseconds(until))}
        fields = json_of(await self._read(self._path("/flow"), params))
        kinds = await self._kind_amount(understood(_kinds_in_all, fields))
        return understood(partial(read_flow, currency=currency, kinds=kinds), fields)

    async def trust(self, to: PeerLike, *, of: PeerLike | None = None) -> Trust:
        """How much trust flows from a member, by default oneself, to another, by all vouches between them.

        print((await gesell.trust("eve")).flow)
        """
        currency = await self.currency()
        path = self._path(f"/members/{self._name(of)}/trust")
        fields = json_of(await self._read(path, {"to": self._name(to)}))
        return understood(partial(read_trust, currency=currency), fields)

    async def trusted(self, by: PeerLike | None = None, *, page: int = PAGE) -> AsyncGenerator[Trusted, None]:
        """The members whom trust reaches from a member, by default oneself: most trusted first.

        async for one in gesell.trusted():
            print(one.member.handle, one.strength, one.hops)
        """
        currency = await self.currency()
        params = {"trusted_by": self._name(by), "limit": str(page)}
        async for item in self._pages(self._path("/members"), params):
            yield understood(partial(read_trusted, currency=currency), item)

    async def _kind_amount(self, codes: Collection[str]) -> KindAmount:
        """What makes amounts of kinds of gifts, of these codes."""
        there = await self._kinds(codes)

        def amount_of(code: str, grains: int) -> Amount:
            return gift_amount(there, code, grains)

        return amount_of


def _kinds_in_all(fields: dict[str, Any]) -> set[str]:
    return {code for item in fields["items"] for code in kinds_in(item)}
