"""What a mile costs: latency = a + k * RTT for one workload over its distances, and the fit turned round.

k is the number of serial round trips a write waits for, a is everything that is not distance. Theil-Sen (Sen 1968): the
median of the slopes of all pairs of distances, so that one bad distance does not move it. Intervals come from the
bootstrap over rounds, joint for latency and the surveyed RTT. Cells that no verdict may rest on are left out as long as
three distances remain. "Greatest miles" is the inverse of the fit.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..physics import ROUTE_FACTORS, miles_of
from ..recording import Cell
from ..units import NS_PER_MS
from .estimate import from_replicates, listed, order_statistic_ranks, unknown
from .latency import Pool
from .result import UNSOUND, Estimate, Fit, GreatestMiles

DISTANCES_MIN = 3
QUANTILES = (0.5, 0.99)
BUDGETS_NS = tuple(budget * NS_PER_MS for budget in (1, 2, 5, 10))
NEGLIGIBLE_TRIPS = 0.05  # A k within this of 0 is no distance anyone would plan with: 0.1 ms at 150 miles.


@dataclass(frozen=True)
class Place:
    """One cell as a point of a fit."""

    cell: Cell
    rtt: Pool
    response: Pool
    sound: bool  # whether a verdict on its latency may rest on it
    late_at: Sequence[float] = ()  # quantiles of which too much is the generator's lateness


@dataclass(frozen=True)
class Line:
    """A fit with its replicates."""

    fit: Fit
    k: np.ndarray
    a_ns: np.ndarray
    rounds: int
    k_without: np.ndarray  # by round index: the fit with that round left out of every distance
    a_ns_without: np.ndarray
    k_alone: np.ndarray  # by round index: the fit through that round's distances alone
    a_ns_alone: np.ndarray


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
                found.append(line_of(able, q, warning=UNSOUND))
    return found


def distances(places: Sequence[Place]) -> int:
    """How many different ones there are."""
    return len({item.cell.miles for item in places})


def line_of(places: Sequence[Place], q: float, left_out: Sequence[str] = (), warning: str = "") -> Line:
    """The line through these places."""
    doubts = [warning] if warning else []
    x = np.array([item.rtt.quantile(0.5) for item in places])
    y = np.array([item.response.quantile(q) for item in places])
    k, a_ns = (float(part) for part in theil_sen(x, y))
    many_k, many_a = theil_sen(
        np.stack([item.rtt.replicates(0.5) for item in places], axis=-1),
        np.stack([item.response.replicates(q) for item in places], axis=-1),
    )
    k_without, a_ns_without = theil_sen(
        np.stack([item.rtt.without(0.5) for item in places], axis=-1),
        np.stack([item.response.without(q) for item in places], axis=-1),
    )
    k_alone, a_ns_alone = theil_sen(
        np.stack([item.rtt.alone(0.5) for item in places], axis=-1),
        np.stack([item.response.alone(q) for item in places], axis=-1),
    )
    indices = {index for item in places for index in item.response.indices}
    rounds = min(item.response.rounds for item in places)
    count = sum(item.response.count for item in places)
    cell = places[0].cell
    fit = Fit(
        name=cell.name,
        protocol=cell.protocol,
        queue_depth=cell.queue_depth,
        quantile=q,
        k=from_replicates(k, many_k, rounds, count, *doubts, without=listed(k_without, indices),
                          by_round=listed(k_alone, indices)),
        a_ns=from_replicates(a_ns, many_a, rounds, count, *doubts, without=listed(a_ns_without, indices),
                             by_round=listed(a_ns_alone, indices)),
        rtt_ns_low=float(x.min()),
        rtt_ns_high=float(x.max()),
        residual_ns_max=float(np.abs(y - a_ns - k * x).max()),
        left_out=list(left_out),
    )
    return Line(fit, many_k, many_a, rounds, k_without, a_ns_without, k_alone, a_ns_alone)


def independent(fit: Fit) -> bool:
    """Whether the latency does not depend on distance, as far as this run can tell and anyone would care."""
    k = fit.k
    assert k.value is not None
    if k.low is None or k.high is None:
        return abs(k.value) < NEGLIGIBLE_TRIPS
    if k.low > -NEGLIGIBLE_TRIPS and k.high < NEGLIGIBLE_TRIPS:
        return True
    return fit.protocol in ("local", "A") and k.low <= 0 <= k.high


def greatest_miles(
    line: Line, equipment_ns: float = 0.0, budgets_ns: Sequence[float] = BUDGETS_NS
) -> list[GreatestMiles]:
    """How far each budget reaches over each kind of route; `equipment_ns` is one way, as in the profile."""
    return [
        invert(line, budget_ns, route_factor, equipment_ns)
        for budget_ns in budgets_ns
        for route_factor in ROUTE_FACTORS.values()
    ]


def invert(line: Line, budget_ns: float, route_factor: float, equipment_ns: float) -> GreatestMiles:
    """The greatest distance at which `budget_ns` holds."""
    fit = line.fit
    extrapolated = False
    if independent(fit):
        miles = unknown(f"does not depend on distance: {holds(fit.a_ns, budget_ns)}")
    elif fit.k.value <= 0 or (fit.k.low is not None and fit.k.low <= 0):  # type: ignore[operator]
        miles = unknown("the rounds differ too much to tell what distance costs: measure more rounds")
    else:
        miles, extrapolated = reach(line, budget_ns, route_factor, equipment_ns)
    return GreatestMiles(
        name=fit.name, protocol=fit.protocol, quantile=fit.quantile, budget_ns=budget_ns, route_factor=route_factor,
        miles=miles, extrapolated=extrapolated,
    )  # fmt: skip


def holds(a_ns: Estimate, budget_ns: float) -> str:
    """Where a budget holds that distance has no part in."""
    assert a_ns.value is not None
    low, high = (a_ns.value, a_ns.value) if a_ns.low is None or a_ns.high is None else (a_ns.low, a_ns.high)
    if high <= budget_ns:
        return "holds at any"
    return "holds at none" if low > budget_ns else "too close to the budget to tell whether it holds"


def reach(line: Line, budget_ns: float, route_factor: float, equipment_ns: float) -> tuple[Estimate, bool]:
    """(miles, whether they lie beyond what was measured) of a budget that distance spends."""
    fit = line.fit
    k, a_ns = fit.k.value, fit.a_ns.value
    assert k is not None and a_ns is not None
    rtt_ns = (budget_ns - a_ns) / k
    with np.errstate(divide="ignore", invalid="ignore"):
        many_rtt_ns = np.where(line.k > 0, (budget_ns - line.a_ns) / line.k, np.nan)
    many = np.maximum(miles_of(many_rtt_ns, route_factor, equipment_ns), 0.0)  # type: ignore[arg-type]
    value = miles_of(rtt_ns, route_factor, equipment_ns)
    doubts = [UNSOUND] if UNSOUND in fit.k.warnings else []
    if value <= 0:
        doubts.append("the budget is spent before the first mile")
    extrapolated = rtt_ns > fit.rtt_ns_high or (value > 0 and rtt_ns < fit.rtt_ns_low)
    if rtt_ns > fit.rtt_ns_high:
        doubts.append(f"beyond the {fit.rtt_ns_high / NS_PER_MS:.3g} ms of round trip that were measured")
    elif extrapolated:
        doubts.append(f"below the {fit.rtt_ns_low / NS_PER_MS:.3g} ms of round trip that were measured")

    def miles_by_round(k: np.ndarray, a_ns: np.ndarray) -> list[float | None]:
        with np.errstate(divide="ignore", invalid="ignore"):
            rtt_ns = np.where(k > 0, (budget_ns - a_ns) / k, np.nan)
        reached = np.maximum(miles_of(rtt_ns, route_factor, equipment_ns), 0.0)  # type: ignore[arg-type]
        return listed(reached, [index for index, without in enumerate(fit.k.without) if without is not None])

    estimate = from_replicates(
        max(value, 0.0), many, line.rounds, fit.k.count, *doubts,
        without=miles_by_round(line.k_without, line.a_ns_without), by_round=miles_by_round(line.k_alone, line.a_ns_alone),
    )  # fmt: skip
    return estimate, extrapolated
