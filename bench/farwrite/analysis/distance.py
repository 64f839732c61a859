"""What a mile costs: latency = a + k * RTT for one workload over its distances; and how far a budget reaches.

k is the number of serial round trips a write waits for, a is everything that is not distance. Theil-Sen (Sen 1968): the
median of the slopes of all pairs of distances, so that one bad distance does not move it. Intervals come from the
bootstrap over rounds, joint for latency and round trip. Cells that no verdict may rest on are left out as long as three
distances remain.

Latency is a maximum of things, not a sum, until the distance dominates: then the points lie on no line. A slope below the round
trips that the protocol waits for would beat light, and one that reaches below 0 is none; such a fit has neither k nor a.

Greatest miles do not come from the line. They are interpolated between the two measured distances between which the budget is
exceeded, never more than light allows, and outside of what was measured they only say on which side.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ..base import reasons
from ..base.physics import ROUTE_FACTORS, miles_of
from ..base.protocol import PROMISES
from ..base.reasons import Holds, Reason, unsound
from ..base.units import NS_PER_MS
from ..recording import Cell, waited_rtt_ns
from .estimate import from_replicates, listed, order_statistic_ranks, unknown
from .figure import figure_of
from .latency import Pool
from .result import Estimate, Fit, GreatestMiles, Outcome
from .verdict import Decision, decide

DISTANCES_MIN = 3
QUANTILES = (0.5, 0.99)
BUDGETS_NS = tuple(budget * NS_PER_MS for budget in (1, 2, 5, 10))
NEGLIGIBLE_TRIPS = 0.05  # A k within this of 0 is no distance anyone would plan with: 0.1 ms at 150 miles.
SLOPE_ERROR = 2 * 2.0**-10  # Of k: latencies and round trips are counted in slots 2^-10 of their value wide.


@dataclass(frozen=True)
class Place:
    """One cell as a point of a fit."""

    cell: Cell
    rtt: Pool  # as surveyed, to the peer that a write waits for last
    response: Pool
    sound: bool  # whether a verdict on its latency may rest on it
    distance: Literal["light", "echo"] = "echo"  # LabFacts.distance
    late_at: Sequence[float] = ()  # quantiles of which too much is the generator's lateness


class Resampled(NamedTuple):
    """One quantity at every place of a fit, the last axis: by value, by bootstrap replicate, and by round index."""

    value: np.ndarray
    replicates: np.ndarray
    without: np.ndarray  # with one round left out
    alone: np.ndarray  # in one round


@dataclass(frozen=True)
class Line:
    """A fit, and the points that it was made from, from the nearest to the farthest."""

    fit: Fit
    k: Estimate  # the slope and the height, also where the points lie on no line
    a_ns: Estimate
    trips: int  # round trips that the protocol waits for
    rtt_ns: Resampled
    latency_ns: Resampled
    asked_rtt_ns: tuple[float, float]  # of the nearest and the farthest place
    indices: list[int]  # of the rounds
    rounds: int


def theil_sen(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(k, a) of y = a + k x along the last axis; any number of lines at once."""
    first, second = np.triu_indices(x.shape[-1], 1)
    run, rise = x[..., second] - x[..., first], y[..., second] - y[..., first]
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.where(run != 0, rise / run, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # A line without a single slope is NaN, and meant to be.
        k = np.nanmedian(slopes, axis=-1)
    return k, np.median(y - k[..., None] * x, axis=-1)


def lines(places: Sequence[Place]) -> list[Line]:
    """A line for every workload, protocol and queue depth with enough distances, at each quantile supported."""
    groups: dict[tuple[str, str, int], list[Place]] = {}
    for place in places:
        groups.setdefault((place.cell.name, place.cell.protocol, place.cell.queue_depth), []).append(place)
    found = []
    for group in groups.values():
        for q in QUANTILES:
            able = [item for item in group if order_statistic_ranks(item.response.count, q) and item.rtt.count]
            sound = [item for item in able if item.sound and q not in item.late_at]
            if distances(sound) >= DISTANCES_MIN:
                found.append(line_of(sound, q, left_out=[item.cell.id for item in able if item not in sound]))
            elif distances(able) >= DISTANCES_MIN:
                found.append(line_of(able, q, warning=unsound()))
    return found


def distances(places: Sequence[Place]) -> int:
    """How many different ones there are."""
    return len({item.cell.miles for item in places})


def exact_rtt_ns(cell: Cell, distance: Literal["light", "echo"]) -> float | None:
    """The round trip that a cell stands for in fits and in miles: as asked for where the lab's distance is light, 0 at 0 miles.

    None where it is an echo's: then it is what was surveyed.
    """
    return float(waited_rtt_ns(cell)) if distance == "light" else None


def round_trips(places: Sequence[Place]) -> Resampled:
    """The x axis of a fit."""
    columns = []
    for item in places:
        exact_ns = exact_rtt_ns(item.cell, item.distance)
        if exact_ns is None:
            columns.append(resampled(item.rtt, 0.5))
        else:
            made = resampled(item.response, 0.5)
            columns.append(Resampled(*(np.full_like(part, exact_ns) for part in made)))
    return side_by_side(columns)


def resampled(pool: Pool, q: float) -> Resampled:
    """A quantile of one place."""
    return Resampled(np.array(pool.quantile(q)), pool.replicates(q), pool.without(q), pool.alone(q))


def side_by_side(columns: Sequence[Resampled]) -> Resampled:
    """The places of a fit, along the last axis."""
    return Resampled(*(np.stack(parts, axis=-1) for parts in zip(*columns, strict=True)))


def line_of(places: Sequence[Place], q: float, left_out: Sequence[str] = (), warning: Reason | None = None) -> Line:
    """The line through these places."""
    places = sorted(places, key=lambda item: waited_rtt_ns(item.cell))
    doubts = [warning] if warning else []
    x, y = round_trips(places), side_by_side([resampled(item.response, q) for item in places])
    fitted = [theil_sen(rtt_ns, latency_ns) for rtt_ns, latency_ns in zip(x, y, strict=True)]
    indices = sorted({index for item in places for index in item.response.indices})
    rounds = min(item.response.rounds for item in places)
    count = sum(item.response.count for item in places)

    def estimate(part: int) -> Estimate:
        value, many, without, alone = (item[part] for item in fitted)
        return from_replicates(float(value), many, rounds, count, *doubts, without=listed(without, indices),
                               by_round=listed(alone, indices))  # fmt: skip

    k, a_ns = estimate(0), estimate(1)
    cell = places[0].cell
    trips = PROMISES[cell.protocol].trips
    refusal = no_line(k, trips)
    value_k, value_a = float(fitted[0][0]), float(fitted[0][1])
    fit = Fit(
        name=cell.name,
        protocol=cell.protocol,
        queue_depth=cell.queue_depth,
        quantile=q,
        k=unknown(refusal, *doubts, count=count) if refusal else k,
        a_ns=unknown(refusal, *doubts, count=count) if refusal else a_ns,
        rtt_ns_low=float(x.value.min()),
        rtt_ns_high=float(x.value.max()),
        residual_ns_max=float(np.abs(y.value - value_a - value_k * x.value).max()),
        left_out=list(left_out),
        is_line=not refusal,
    )
    asked = float(waited_rtt_ns(places[0].cell)), float(waited_rtt_ns(places[-1].cell))
    return Line(fit, k, a_ns, trips, x, y, asked, indices, rounds)


def no_line(k: Estimate, trips: int) -> Reason | None:
    """Why the latencies of a protocol that waits for its peer lie on no line; None where they may."""
    low, high = ends_of(k)
    if not trips:
        return None
    if low < 0:
        return reasons.slope_reaches_below_0(slope_text(k))
    if high < trips * (1 - SLOPE_ERROR):
        return reasons.slope_below_light(slope_text(k), trips)
    return None


def ends_of(estimate: Estimate) -> tuple[float, float]:
    """An estimate's interval; its value twice where it has none."""
    assert estimate.value is not None
    if estimate.low is None or estimate.high is None:
        return estimate.value, estimate.value
    return estimate.low, estimate.high


def slope_text(k: Estimate) -> str:
    """ "0.76 [0.70, 0.79]", and no sign before 0.00."""
    def number(value: float) -> str:
        return f"{round(value, 2) + 0.0:.2f}"

    assert k.value is not None
    interval = "" if k.low is None or k.high is None else f" [{number(k.low)}, {number(k.high)}]"
    return f"{number(k.value)}{interval}"


def independent(k: Estimate) -> bool:
    """Whether the latency is shown not to depend on distance."""
    return all(found.verdict == "pass" for found in negligible(k))


def negligible(k: Estimate, interrupted: bool = False) -> tuple[Decision, Decision]:
    """The verdicts on k being no more than NEGLIGIBLE_TRIPS, and no less than as much below 0.

    An equivalence test (Schuirmann 1987): an interval that merely has 0 in it shows nothing.
    """
    figure = figure_of("k_p50", {}, k)
    most = decide(figure, at_most=NEGLIGIBLE_TRIPS, interrupted=interrupted)
    return most, decide(figure, at_least=-NEGLIGIBLE_TRIPS, interrupted=interrupted)


def greatest_miles(
    line: Line, equipment_ns: float = 0.0, budgets_ns: Sequence[float] = BUDGETS_NS
) -> list[GreatestMiles]:
    """How far each budget reaches over each kind of route; `equipment_ns` is one way, as in the profile."""
    return [
        reach(line, budget_ns, route_factor, equipment_ns)
        for budget_ns in budgets_ns
        for route_factor in ROUTE_FACTORS.values()
    ]


class Bounds(NamedTuple):
    """Miles of the nearest and the farthest place that was measured."""

    near: float
    far: float


def reach(line: Line, budget_ns: float, route_factor: float, equipment_ns: float) -> GreatestMiles:
    """The greatest distance at which `budget_ns` holds."""
    def miles(rtt_ns: np.ndarray | float) -> np.ndarray:
        return np.maximum(miles_of(np.asarray(rtt_ns), route_factor, equipment_ns), 0.0)  # type: ignore[arg-type]

    bounds = Bounds(*(float(miles(rtt_ns)) for rtt_ns in line.asked_rtt_ns))
    light_ns = budget_ns / line.trips if line.trips else math.inf
    light = float(miles(light_ns))
    outcome, reason = outcome_of(line, budget_ns, bounds)
    doubts = [made] if (made := unsound.among(line.fit.k.warnings)) else []
    estimate, beyond, below = unknown(*([reason] if reason else []), *doubts), None, None
    if outcome in ("measured", "beyond", "below"):

        def clipped(rtt_ns: np.ndarray, latency_ns: np.ndarray) -> np.ndarray:
            return np.clip(miles(crossing(rtt_ns, latency_ns, budget_ns, light_ns)), bounds.near, min(bounds.far, light))

        value, many, without, alone = (clipped(*both) for both in zip(line.rtt_ns, line.latency_ns, strict=True))
        found = from_replicates(
            float(value), many, line.rounds, line.fit.k.count, *doubts, without=listed(without, line.indices),
            by_round=listed(alone, line.indices),
        )  # fmt: skip
        estimate, beyond, below = within(found, outcome, reason, bounds, light)
    return GreatestMiles(
        name=line.fit.name, protocol=line.fit.protocol, quantile=line.fit.quantile, budget_ns=budget_ns,
        route_factor=route_factor, miles=estimate, outcome=outcome, beyond_miles=beyond, below_miles=below,
    )  # fmt: skip


def outcome_of(line: Line, budget_ns: float, bounds: Bounds) -> tuple[Outcome, Reason | None]:
    """(where the greatest distance lies, why there are no miles; None where there are)."""
    if not line.trips and independent(line.k):
        return holds(line.a_ns, budget_ns)
    kept = line.latency_ns.value <= budget_ns
    if line.trips:
        light_ns = line.trips * line.rtt_ns.value
        beats = np.flatnonzero(kept & (light_ns > budget_ns))
        if beats.size:
            at = beats[-1]
            return "unknown", reasons.latency_below_light(float(line.latency_ns.value[at]), float(light_ns[at]))
    if kept.all():
        return "beyond", reasons.beyond_measured(bounds.far)
    if not kept.any():
        return "below", reasons.exceeded_at_nearest(bounds.near)
    low, _ = ends_of(line.k)
    if low < 0 or (not line.trips and low == 0):
        return "unknown", reasons.not_on_one_side(slope_text(line.k), str(no_line(line.k, line.trips) or ""))
    if not kept[0]:
        return "below", reasons.below_measured(bounds.near)
    return "measured", None


def crossing(rtt_ns: np.ndarray, latency_ns: np.ndarray, budget_ns: float, light_ns: float) -> np.ndarray:
    """The round trip at which the latency exceeds a budget first, along the last axis; any number of runs at once.

    Between two distances the latency is taken to rise straight. It is a maximum of things that each rise straight (a flush here,
    a trip and a flush there), so the line between two of its points lies above it, and the miles are no more than it allows. It
    is taken never to fall with distance: what is less than nearer by is as much as there. -inf: exceeded at the nearest place;
    inf: nowhere. Never more than `light_ns`, where light alone spends the budget.
    """
    risen = np.maximum.accumulate(latency_ns, axis=-1)
    over = risen > budget_ns
    after = np.maximum(over.argmax(axis=-1), 1)[..., None]
    x0, x1 = (np.take_along_axis(rtt_ns, place, axis=-1)[..., 0] for place in (after - 1, after))
    y0, y1 = (np.take_along_axis(risen, place, axis=-1)[..., 0] for place in (after - 1, after))
    with np.errstate(divide="ignore", invalid="ignore"):
        at = np.minimum(x0 + (budget_ns - y0) / (y1 - y0) * (x1 - x0), light_ns)
    at = np.where(over[..., 0], -np.inf, np.where(over.any(axis=-1), at, np.inf))
    return np.where(np.isnan(risen[..., -1]), np.nan, at)


def within(
    found: Estimate, outcome: Outcome, reason: Reason | None, bounds: Bounds, light: float
) -> tuple[Estimate, float | None, float | None]:
    """(the estimate cut to what was measured and to light, the bound beyond which it or its interval lies, that below which)."""
    from msgspec.structs import replace

    value, low, high, doubts = found.value, found.low, found.high, list(found.warnings)
    beyond, below = bounds.far if outcome == "beyond" else None, bounds.near if outcome == "below" else None
    if low is not None and high is not None:
        if high >= bounds.far and outcome != "beyond":
            beyond, doubts = bounds.far, [*doubts, reasons.interval_beyond(bounds.far)]
        if low <= bounds.near and outcome != "below":
            below, doubts = bounds.near, [*doubts, reasons.interval_below(bounds.near)]
        elif outcome == "beyond" and low < bounds.far:
            doubts = [*doubts, reasons.interval_begins(low)]
        low, high = max(low, bounds.near), min(high, bounds.far, light)
    if outcome != "measured":
        # On one side nothing was measured: there is no value, and of the interval only the end that was.
        value = None
        low, high = (low, None) if outcome == "beyond" else (None, high)
        doubts = [*([reason] if reason else []), *doubts]
        found = replace(found, confidence=None, without=[], by_round=[])
    return replace(found, value=value, low=low, high=high, warnings=doubts), beyond, below


def holds(a_ns: Estimate, budget_ns: float) -> tuple[Outcome, Reason]:
    """Where a budget holds that distance has no part in: the verdict on `a` being at most that."""
    found = decide(figure_of("a_p50", {}, a_ns), at_most=budget_ns)
    if found.withheld:
        return "unknown", reasons.about("does not depend on distance", found.reasons[0])
    where: dict[str, tuple[Outcome, Holds]] = {"pass": ("any", "any"), "fail": ("none", "none")}
    outcome, holds_at = where.get(found.verdict, ("unknown", "unclear"))
    return outcome, reasons.no_distance(holds_at)
