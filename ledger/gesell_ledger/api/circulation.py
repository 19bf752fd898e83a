"""The read of circulation (SPEC §7.2): how money and gifts go round in a commons, step by step, as of a cursor.

Owns the JSON of `…/flow`. docs/readings.md has the formulas.
"""

from __future__ import annotations

from typing import Annotated, Final

from aiohttp import web
from msgspec import UNSET, Meta, UnsetType, field

from gesell_ledger.api import shapes
from gesell_ledger.api.answers import Answered, json_response
from gesell_ledger.api.parameters import Parameter
from gesell_ledger.api.problems import Refused
from gesell_ledger.api.reads import visit_whole
from gesell_ledger.api.relations import AsOf, CategorySum, GiftSum, Ppm, gifts_json, paid_json
from gesell_ledger.core.books import Commons
from gesell_ledger.readings.circulation import (
    STEP_TICKS_MAX,
    STEPS_MAX,
    Circulation,
    Figures,
    TooManySteps,
    ratio_ppm,
)
from gesell_ledger.readings.turns import Unanswered
from gesell_ledger.storage.readings import SUMS_MAX

CIRCULATION: Final = web.AppKey("circulation", Circulation)

FROM: Final[Parameter[int]] = Parameter(
    name="from",
    type=shapes.Moment,
    about="A moment of the first step: milliseconds since the Unix epoch; 30 steps up to the last if not said.",
)
TO: Final[Parameter[int]] = Parameter(
    name="to",
    type=shapes.Moment,
    about="A moment of the last step: milliseconds since the Unix epoch; now if not said, and at most.",
)
STEP: Final[Parameter[int]] = Parameter(
    name="step",
    type=Annotated[int, Meta(ge=1, le=STEP_TICKS_MAX)],
    default=1,
    about="How many ticks a step has; its first tick is a multiple of them.",
)


class FlowStep(Answered, frozen=True, kw_only=True):
    """What happened in a step, and how things stood at its end, or now. What would cost too much to tell is absent."""

    begins: Annotated[shapes.Moment, Meta(description="The first moment of the step.")] = field(name="from")
    ends: Annotated[shapes.Moment, Meta(description="The first moment after it.")] = field(name="to")
    volume: Annotated[shapes.Total, Meta(description="The sum of the payments.")]
    payments: Annotated[shapes.Count, Meta(description="How many legs were paid.")]
    categories: Annotated[list[CategorySum], Meta(max_length=SUMS_MAX, description="The payments that have one.")]
    gifts: Annotated[list[GiftSum], Meta(max_length=SUMS_MAX, description="Gifts that were thanked for.")]
    melt: Annotated[shapes.Total, Meta(description="Melt that was posted.")]
    issued: shapes.Total
    retired: shapes.Total
    granted: Annotated[shapes.Total, Meta(description="What members were granted from the pool.")]
    shared: Annotated[shapes.Total, Meta(description="What members were paid of shares of the pool.")]
    new: Annotated[shapes.Count, Meta(description="Members who became active for the first time.")]
    active: Annotated[shapes.Count, Meta(description="Members who paid, were paid, gave or were given.")] | UnsetType
    only_paid: shapes.Count | UnsetType
    only_received: shapes.Count | UnsetType
    both: Annotated[shapes.Count, Meta(description="Members who paid and were paid.")] | UnsetType
    returned_2_ppm: Annotated[Ppm, Meta(description="Of the volume, what came back from who was paid.")] | UnsetType
    returned_3_ppm: Annotated[Ppm, Meta(description="Of the volume, what could come back by one other.")] | UnsetType
    velocity_ppm: Annotated[Ppm, Meta(description="Volume by the mean of what was held.")] | UnsetType
    members: Annotated[shapes.Count, Meta(description="How many are active.")]
    pool: shapes.SignedGrains
    held: Annotated[shapes.Total, Meta(description="What members have after melt, and what is in escrow.")] | UnsetType
    still_ppm: Annotated[Ppm, Meta(description="Of what is held, what this tick would charge.")] | UnsetType
    gini_ppm: Annotated[Ppm, Meta(description="How unequally it is spread: 0 if all have the same.")] | UnsetType


class FlowPage(Answered, frozen=True, kw_only=True):
    """Circulation at a moment, step by step, of the entries up to `as_of_seq`."""

    asset_code: shapes.AssetCode
    asset_scale: shapes.Scale
    as_of_seq: AsOf
    at: shapes.Moment
    tick: shapes.Tick
    step: Annotated[int, Meta(ge=1, description="In ticks.")]
    items: Annotated[list[FlowStep], Meta(max_length=STEPS_MAX, description="First to last.")]


async def get_flow(request: web.Request) -> web.Response:
    """How money and gifts went round, step by step."""
    here = await visit_whole(request)
    commons = here.commons
    step, from_ms, to_ms = STEP.read(request), FROM.find(request), TO.find(request)
    if from_ms is not None and to_ms is not None and from_ms > to_ms:
        raise Refused("malformed", "from: not after to")
    try:
        flow = await request.app[CIRCULATION].load(commons, now_ms=here.now_ms, from_ms=from_ms, to_ms=to_ms, step=step)
    except TooManySteps:
        raise Refused("limit-exceeded", f"at most {STEPS_MAX} steps: ask for longer ones", limit=STEPS_MAX) from None
    except Unanswered as unanswered:
        raise Refused("unavailable", str(unanswered), retry_after=unanswered.retry_after) from None
    return json_response(
        FlowPage(
            asset_code=commons.currency.code,
            asset_scale=commons.currency.scale,
            as_of_seq=flow.cursor.seq,
            at=flow.now_ms,
            tick=commons.tick_of(flow.now_ms),
            step=step,
            items=[_step_json(commons, figures) for figures in flow.steps],
        )
    )


def _step_json(commons: Commons, figures: Figures) -> FlowStep:
    tick_ms = commons.timeline.changes[0][1].tick_seconds * 1000
    sums, left, rounds, stock, code = figures.sums, figures.left, figures.rounds, figures.stock, commons.currency.code
    held = UNSET if stock is None else str(stock.held)
    still = None if stock is None else ratio_ppm(stock.still, stock.held)
    speed = None
    if stock is not None and figures.held_before is not None:
        speed = ratio_ppm(2 * sums.volume, figures.held_before + stock.held)
    return FlowStep(
        begins=figures.first * tick_ms,
        ends=figures.end * tick_ms,
        volume=str(sums.volume),
        payments=sums.payments,
        categories=paid_json(figures.parts, code, count=sums.payments, amount=sums.volume).categories,
        gifts=gifts_json(figures.parts, code),
        melt=str(sums.melted),
        issued=str(sums.issued),
        retired=str(sums.retired),
        granted=str(sums.granted),
        shared=str(sums.shared),
        new=sums.joined,
        active=UNSET if rounds is None else rounds.active,
        only_paid=UNSET if rounds is None else rounds.only_paid,
        only_received=UNSET if rounds is None else rounds.only_received,
        both=UNSET if rounds is None else rounds.both,
        returned_2_ppm=_told(None if rounds is None else ratio_ppm(rounds.returned_2, sums.volume)),
        returned_3_ppm=_told(
            None if rounds is None or rounds.returned_3 is None else ratio_ppm(rounds.returned_3, sums.volume)
        ),
        velocity_ppm=_told(speed),
        members=left.active,
        pool=str(left.pool),
        held=held,
        still_ppm=_told(still),
        gini_ppm=UNSET if stock is None else _told(stock.gini_ppm),
    )


def _told(figure: int | None) -> int | UnsetType:
    return UNSET if figure is None else figure
