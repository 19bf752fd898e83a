"""The JSON form of every statement that a peer may speak, and the way from it to the fields of a body (SPEC §3, §7.1).

Owns the forms, one a type, which check what comes and which the OpenAPI document shows, and how each field becomes what
stands in the body. Ranges that JSON can't say, and how fields hang together, are `gesell_protocol.statements`' to
check. Knows no request and no books.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gesell_ledger.api import shapes
from gesell_ledger.api.member_names import count_names
from gesell_ledger.api.shapes import CommonsName, Grains, Id, KeyName, Moment, PeerName, read_key
from gesell_protocol.fields import AFTER_MAX, KEYS_MAX, LEGS_MAX, STEWARDS_MAX
from gesell_protocol.names import POOL, id_of, is_handle, unhex
from gesell_protocol.policy import TICK_MAX

Legs = Annotated[
    list[tuple[PeerName, Grains]],
    Meta(min_length=1, max_length=LEGS_MAX, description="Who gets how much: [[peer, amount], …], each peer once."),
]
Stewards = Annotated[
    list[PeerName],
    Meta(min_length=1, max_length=STEWARDS_MAX, description="In any order; the body has them in ascending order."),
]
Threshold = Annotated[int, Meta(ge=1, le=STEWARDS_MAX, description="How many stewards must sign.")]
KeyNames = Annotated[list[KeyName], Meta(min_length=1, max_length=KEYS_MAX)]
Balancing = Annotated[bool, Meta(description="Move at most what is there after melt.")]


class Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """What every statement says. `id` and `expires` are made up when absent; `memo` is plain text, sealed here."""

    by: PeerName
    id: Id | UnsetType = UNSET
    expires: Moment | UnsetType = UNSET
    memo: shapes.Text | UnsetType = UNSET


class Found(Form, tag="found", frozen=True, kw_only=True):
    """Found a commons. `ledger` is this one unless said; peers are named by key, since no handle exists yet."""

    ledger: KeyName | UnsetType = UNSET
    name: shapes.Title
    currency: shapes.Currency
    policy: shapes.Policy
    stewards: Stewards
    threshold: Threshold


class InCommons(Form, tag=False, frozen=True, kw_only=True):
    """What every statement but `found` says besides: in which commons it is spoken."""

    commons: CommonsName


class Join(InCommons, tag="join", frozen=True, kw_only=True):
    """Become a member, or ask to."""

    handle: shapes.Handle


class Admit(InCommons, tag="admit", frozen=True, kw_only=True):
    """Make a pending or suspended member active; stewards sign."""

    peer: PeerName


class Suspend(InCommons, tag="suspend", frozen=True, kw_only=True):
    """Suspend an active member, or end a pending request; stewards sign."""

    peer: PeerName


class Leave(InCommons, tag="leave", frozen=True, kw_only=True):
    """Leave the commons; what is left goes to the pool."""


class Keys(InCommons, tag="keys", frozen=True, kw_only=True):
    """Add further keys that may sign for `by`, each of which signs too, or revoke some."""

    add: KeyNames | UnsetType = UNSET
    revoke: KeyNames | UnsetType = UNSET


class ChangePolicy(InCommons, tag="policy", frozen=True, kw_only=True):
    """Announce another policy; stewards sign."""

    policy: shapes.Policy
    from_tick: Annotated[int, Meta(ge=0, le=TICK_MAX, description="The first tick under it.")]


class ChangeStewards(InCommons, tag="stewards", frozen=True, kw_only=True):
    """From now on these are the stewards; the old ones sign, and each new one."""

    stewards: Stewards
    threshold: Threshold


class Erase(InCommons, tag="erase", frozen=True, kw_only=True):
    """Delete the text of a statement's memo."""

    statement: Id


class Issue(InCommons, tag="issue", frozen=True, kw_only=True):
    """New money for a member; stewards sign."""

    to: PeerName
    amount: Grains


class Retire(InCommons, tag="retire", frozen=True, kw_only=True):
    """Give money back to the issuer."""

    amount: Grains
    balancing: Balancing = False


class Pay(InCommons, tag="pay", frozen=True, kw_only=True):
    """Pay one member or up to 256."""

    legs: Legs
    ref: Annotated[Id, Meta(description="The id of what this answers; not checked.")] | UnsetType = UNSET
    balancing: Balancing = False
    category: shapes.Category | UnsetType = UNSET


class Grant(InCommons, tag="grant", frozen=True, kw_only=True):
    """Give members something out of the pool; stewards sign."""

    legs: Legs


class Share(InCommons, tag="share", frozen=True, kw_only=True):
    """Share out part of the pool among all who are active; stewards sign."""

    amount: Grains


class MakeKind(InCommons, tag="kind", frozen=True, kw_only=True):
    """Make a kind of gift; stewards sign."""

    code: shapes.KindCode
    name: shapes.Title
    unit: shapes.Unit
    scale: shapes.GiftScale


class Gift(InCommons, tag="gift", frozen=True, kw_only=True):
    """Give something without a price. It counts once its receiver has thanked for it."""

    to: Annotated[PeerName, Meta(description="A member, or `pool` for the whole commons.")]
    kind: shapes.KindCode
    quantity: shapes.Quantity
    after: (
        Annotated[
            list[Id], Meta(min_length=1, max_length=AFTER_MAX, description="The gifts that moved the giver to give.")
        ]
        | UnsetType
    ) = UNSET
    category: shapes.Category | UnsetType = UNSET


class Thank(InCommons, tag="thank", frozen=True, kw_only=True):
    """Take a gift and say thanks; stewards sign for one to the pool."""

    gift: Id


class Decline(InCommons, tag="decline", frozen=True, kw_only=True):
    """Not take a gift; stewards sign for one to the pool."""

    gift: Id


class Withdraw(InCommons, tag="withdraw", frozen=True, kw_only=True):
    """Take the offer of a gift back."""

    gift: Id


class Vouch(InCommons, tag="vouch", frozen=True, kw_only=True):
    """Lend another member so much of one's own credit room, in all; 0 takes it back."""

    whom: PeerName = msgspec.field(name="for")
    limit: Grains


class Writeoff(InCommons, tag="writeoff", frozen=True, kw_only=True):
    """Have a member's debt borne by those who vouched for it, then by all; stewards sign."""

    peer: PeerName


class Hold(InCommons, tag="hold", frozen=True, kw_only=True):
    """Set money aside for a payee, who may capture it; it melts as the payer's until then."""

    to: PeerName
    amount: Grains
    until: Annotated[Moment, Meta(description="From then on its payer may void it; within 30 days.")]
    category: shapes.Category | UnsetType = UNSET


class Capture(InCommons, tag="capture", frozen=True, kw_only=True):
    """Take what is held, or a part of it; the rest goes back to its payer."""

    hold: Id
    amount: Grains


class Void(InCommons, tag="void", frozen=True, kw_only=True):
    """Let what is held go back to its payer."""

    hold: Id


#: Every form; a type of statement that is added to SPEC §3 is added here.
AnyForm = (
    Found
    | Join
    | Admit
    | Suspend
    | Leave
    | Keys
    | ChangePolicy
    | ChangeStewards
    | Erase
    | Issue
    | Retire
    | Pay
    | Grant
    | Share
    | MakeKind
    | Gift
    | Thank
    | Decline
    | Withdraw
    | Vouch
    | Writeoff
    | Hold
    | Capture
    | Void
)

_decoder: msgspec.json.Decoder[AnyForm] = msgspec.json.Decoder(AnyForm)


def read_form(data: bytes) -> AnyForm:
    """The form that JSON bytes hold; `ValueError` with the reason for anything else, a member named twice included."""
    form = _decoder.decode(data)
    # The decoder takes the last of two members of one name; another reader might take the first.
    if count_names(data) != _count_kept(msgspec.json.decode(data)):
        raise ValueError("a member stands there twice")
    return form


def _count_kept(value: Any) -> int:
    """How many members a decoded value has, those of what is within it included."""
    if isinstance(value, dict):
        return len(value) + sum(map(_count_kept, value.values()))
    return sum(map(_count_kept, value)) if isinstance(value, list) else 0


# ── From a form to a body ────────────────────────────────────────────────────────────────────────────────────────


def read_name(text: str) -> bytes | str:
    """The key that a did or 64 hex digits name, or a handle as it stands; `ValueError` for any other text."""
    return text if is_handle(text) else read_key(text)


def handles_of(form: AnyForm) -> set[str]:
    """The handles that a form names its peers by."""
    names = {form.by}
    match form:
        case Pay(legs=legs) | Grant(legs=legs):
            names.update(to for to, _ in legs)
        case Issue(to=peer) | Admit(peer=peer) | Suspend(peer=peer) | Vouch(whom=peer) | Writeoff(peer=peer):
            names.add(peer)
        case Hold(to=peer):
            names.add(peer)
        case Gift(to=peer) if peer != POOL:
            names.add(peer)
        case Found(stewards=stewards) | ChangeStewards(stewards=stewards):
            names.update(stewards)
        case _:
            pass
    return {name for name in map(read_name, names) if isinstance(name, str)}


def fields_of(form: AnyForm, holders: Mapping[str, bytes]) -> dict[str, Any]:
    """The fields of a form as they stand in a body; what it leaves out is left out here too.

    `holders` are the keys of those who hold the handles that it names (`handles_of`). The memo's text is not among
    them: a body carries its seal. Raises `ValueError` for texts that fit their pattern and name nothing.
    """

    def peer(text: str) -> bytes:
        name = read_name(text)
        return holders[name] if isinstance(name, str) else name

    writers: dict[str, Callable[[Any], Any]] = {
        "by": peer,
        "to": lambda to: to if to == POOL else peer(to),
        "for": peer,
        "peer": peer,
        "legs": lambda legs: [[peer(to), _grains(amount)] for to, amount in legs],
        "stewards": lambda stewards: sorted(map(peer, stewards)),
        **_WRITERS,
    }
    fields: dict[str, Any] = {"type": type(form).__struct_config__.tag}
    for attribute, name in zip(form.__struct_fields__, form.__struct_encode_fields__, strict=True):
        value = getattr(form, attribute)
        if value is not UNSET and name != "memo":
            try:
                fields[name] = writers.get(name, _as_it_is)(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    return fields


def _grains(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError("grains are a string of digits")
    return int(text)


def _as_it_is(value: Any) -> Any:
    return value


def _policy(policy: shapes.Policy) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(policy),
        "brackets": [[_grains(start), ppb] for start, ppb in policy.brackets],
        "credit_limit": _grains(policy.credit_limit),
        "vouch_min": _grains(policy.vouch_min),
    }


def _balancing(balancing: bool) -> bool | None:
    # Present only as true; `write_body` leaves out what is None.
    return balancing or None


_WRITERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "commons": lambda text: unhex(text, size=16),
    "id": id_of,
    "ref": id_of,
    "statement": id_of,
    "ledger": read_key,
    "add": lambda keys: list(map(read_key, keys)),
    "revoke": lambda keys: list(map(read_key, keys)),
    "amount": _grains,
    "limit": _grains,
    "quantity": _grains,
    "gift": id_of,
    "hold": id_of,
    "after": lambda gifts: list(map(id_of, gifts)),
    "balancing": _balancing,
    "policy": _policy,
    "currency": msgspec.structs.asdict,
}
