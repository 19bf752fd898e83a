"""From what callers write to what stands in a statement's body: names become keys, amounts grains, memos seals.

Owns the forms in which calls take each field, and what a founding says where its founder does not. What
a statement is, is the protocol's; signing and sending `client`'s.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from gesell.amount import AmountLike, grains_from_zero, grains_of
from gesell.community import Community
from gesell.peer import PeerLike
from gesell.reads import statement_bytes
from gesell_protocol.envelopes import SALT_BYTES, Memo
from gesell_protocol.names import POOL, peer_of
from gesell_protocol.policy import Policy

#: Several payees: pairs of who and how much, or a mapping.
Legs = Mapping[str, AmountLike] | Iterable[tuple[PeerLike, AmountLike]]


def default_policy(*, scale: int = 6) -> Policy:
    """A gentle policy to begin with: 2 % a month in daily steps to the pool, no exemptions, stewards admit.

    policy = dataclasses.replace(default_policy(), rest_ticks=3)
    """
    return Policy(
        tick_seconds=86_400,
        rest_ticks=0,
        brackets=((0, 673_197),),
        melt_to="pool",
        admission="steward",
        credit_limit=0,
        vouch_min=10**scale,
        visibility="open",
        notice_ticks=30,
    )


async def founding_fields(fields: Mapping[str, Any], *, of: Community, by: PeerLike) -> dict[str, Any]:
    """A founding's fields with those that were left out: the default policy, `by` as steward, the majority."""
    stewards = {await of.key_of(steward) for steward in fields.get("stewards") or (by,)}
    return {
        "ledger": peer_of((await of.service()).ledger),
        "policy": default_policy(scale=fields["currency"]["scale"]),
        "threshold": len(stewards) // 2 + 1,
        **fields,
        "stewards": stewards,
    }


async def wire_fields(fields: Mapping[str, Any], *, of: Community) -> tuple[dict[str, Any], Memo | None]:
    """The fields as they stand in the body, in keys, grains and ids; and the memo apart, if there is one.

    `of` looks up handles, the currency and kinds of gifts. Raises `TypeError` or `ValueError` for what no field can
    be, and what a look-up raises.
    """
    wire: dict[str, Any] = {}
    memo: Memo | None = None
    for name, value in fields.items():
        if name == "memo":
            # An empty field of a form is no memo.
            memo = Memo(os.urandom(SALT_BYTES), value) if value else None
            wire |= {} if memo is None else {name: memo.seal()}
        else:
            wire[name] = await _wire_value(name, value, fields, of)
    return wire, memo


async def _wire_value(name: str, value: Any, fields: Mapping[str, Any], of: Community) -> Any:
    match name:
        case "to" if value == POOL:
            return POOL
        case "to" | "peer" | "for":
            return await of.key_of(value)
        case "add" | "revoke":
            return [await of.key_of(key) for key in value]
        case "stewards":
            return sorted({await of.key_of(steward) for steward in value})
        case "amount":
            return await _grains(value, of)
        case "limit":
            currency = await of.currency()
            return grains_from_zero(value, code=currency.code, scale=currency.scale)
        case "quantity":
            kind = await of.kind(fields["kind"])
            return grains_of(value, code=kind.code, scale=kind.scale)
        case "legs":
            pairs = value.items() if isinstance(value, Mapping) else value
            return [[await of.key_of(to), await _grains(much, of)] for to, much in pairs]
        case "ref" | "statement" | "gift" | "hold":
            return statement_bytes(value)
        case "after":
            return [statement_bytes(gift) for gift in value]
        case "policy" if isinstance(value, Policy):
            return value.fields()
    return value


async def _grains(amount: AmountLike, of: Community) -> int:
    currency = await of.currency()
    return grains_of(amount, code=currency.code, scale=currency.scale)
