"""A recording's figures computed again from rounds drawn anew: what the gate would see if the run were repeated.

A smoothed bootstrap (Silverman and Young 1987): rounds are drawn with replacement, and each draw is moved along the
logarithm of time a little, so that two draws of one round are not twins; spread and mean stay what the run's rounds have. The
histograms themselves are moved and pooled, and every figure comes with its leave-one-round-out values, as in a real analysis. A
slow-down is injected by moving every response time by the same factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..analysis.analyse import Measured, good_rounds, measure
from ..analysis.change import is_relative
from ..analysis.distance import DISTANCES_MIN, crossing, exact_rtt_ns, theil_sen
from ..analysis.estimate import Draws
from ..analysis.figure import QUANTILES, Figure
from ..analysis.latency import Pool
from ..analysis.result import Estimate
from ..analysis.sample import rank
from ..analysis.throughput import Field, per_second, with_slices
from ..base.physics import miles_of
from ..base.protocol import PROMISES
from ..base.units import NS_PER_MS
from ..base.units import parse as parse_units
from ..recording import Recording, Round, waited_rtt_ns

BANDWIDTH_POWER = -0.2  # Silverman's rule: a kernel as wide as the spread times n^(-1/5).

POOLS = ("response", "service", "wait", "late", "lag")
RATES: dict[str, Field] = {"throughput": "within", "goodput": "within_bytes"}


class Dice(NamedTuple):
    """What a replay is thrown with: for each replay and each place of a round, which round and how far it is moved."""

    which: np.ndarray  # float64 [replays, rounds], uniform on [0, 1)
    moved: np.ndarray  # float64 [replays, rounds], standard normal

    @classmethod
    def of(cls, seed: Sequence[int], replays: int, rounds: int) -> Dice:
        generator = np.random.default_rng(list(seed))
        return cls(generator.random((replays, rounds)), generator.standard_normal((replays, rounds)))


Slowed = Callable[[float], np.ndarray]  # The factor by which every write takes longer -> the figure, replayed.


class World:
    """A recording that can be replayed with one set of dice; cells are unpacked when they are first asked for."""

    def __init__(self, recording: Recording, seed: int, replays: int) -> None:
        self.recording = recording
        rounds = 1 + max((item.index for item in recording.rounds), default=0)
        self.draws = Draws(recording.seed, rounds)
        self.dice = Dice.of((recording.seed & (2**63 - 1), seed), replays, rounds)
        self.still = Dice(self.dice.which, np.zeros_like(self.dice.moved))
        self.measured: dict[str, Measured] = {}
        self.known: dict[tuple, np.ndarray] = {}

    def cell(self, cell_id: str) -> Measured:
        """One cell's good rounds, unpacked."""
        if cell_id not in self.measured:
            cell = next(item for item in self.recording.cells if item.id == cell_id)
            self.measured[cell_id] = measure(cell, good_rounds(self.recording, cell), self.draws)
        return self.measured[cell_id]

    def cells_of(self, labels: Mapping[str, Any]) -> list[Measured]:
        """The cells that a figure's labels name: one, or those of a fit."""
        keys = [key for key in ("name", "protocol", "miles", "queue_depth") if key in labels]
        return [
            self.cell(item.id)
            for item in self.recording.cells
            if keys and all(getattr(item, key) == labels[key] for key in keys)
        ]

    def replay(self, figure: Figure) -> Slowed | None:
        """How the figure comes out, float64 [replays, 1 + 2 rounds]: itself, with each round left out, in each alone.

        None when it has no noise, or when a slow-down does not touch it.
        """
        stem, _, suffix = figure.metric.rpartition("_")
        cells = self.cells_of(figure.labels)
        if not cells or any(not cell.rounds for cell in cells):
            return None
        first = cells[0]
        if stem in POOLS and suffix in QUANTILES:
            times_ns = self.quantile(getattr(first, stem), QUANTILES[suffix])
            return lambda slowed: slowed * times_ns
        if figure.metric == "efficiency" and figure.estimate.value:
            median_ns = self.quantile(first.response, 0.5)  # The floor stays where it is: a slow-down is the engine's.
            floor_ns = figure.estimate.value * first.response.quantile(0.5)
            return lambda slowed: floor_ns / (slowed * median_ns)
        if figure.metric in RATES:
            per_s = replay_mean(rates(first, RATES[figure.metric]), self.dice)
            return lambda slowed: per_s / slowed
        if figure.metric == "cpu_per_write" and all(item.near_cpu_ns for item in first.rounds):
            cpu_ns = replay_mean(cpu(first.rounds), self.dice)
            return lambda slowed: slowed * cpu_ns
        if stem in ("k", "a", "greatest_miles") and suffix in QUANTILES:
            return self.fit(figure, cells, QUANTILES[suffix])
        return None

    def quantile(self, pool: Pool, q: float, moved: bool = True) -> np.ndarray:
        """A quantile of one cell's rounds, replayed once however many figures need it."""
        key = (pool.name, q)
        if key not in self.known:
            self.known[key] = replay_quantile(pool, q, self.dice if moved else self.still)
        return self.known[key]

    def fit(self, figure: Figure, cells: Sequence[Measured], q: float) -> Slowed | None:
        """The line through several distances: its slope, its height; or where the latencies exceed a budget."""
        if len({item.cell.miles for item in cells}) < DISTANCES_MIN or len({len(item.rounds) for item in cells}) > 1:
            return None
        cells = sorted(cells, key=lambda item: waited_rtt_ns(item.cell))
        rtt_ns = np.stack([self.round_trip(item) for item in cells], axis=-1)
        times_ns = np.stack([self.quantile(item.response, q) for item in cells], axis=-1)
        if figure.metric.startswith("k_"):
            return lambda slowed: theil_sen(rtt_ns, slowed * times_ns)[0]
        if figure.metric.startswith("a_"):
            return lambda slowed: theil_sen(rtt_ns, slowed * times_ns)[1]
        budget_ns = parse_units(str(figure.labels["budget"]), {"ms": NS_PER_MS}, "budget")
        route, equipment_ns = float(figure.labels["route"]), self.recording.profile.distance.equipment_ns
        trips = PROMISES[cells[0].cell.protocol].trips
        light_ns = budget_ns / trips if trips else math.inf
        measured_ns = [float(waited_rtt_ns(item.cell)) for item in cells]

        def miles(slowed: float) -> np.ndarray:
            reach_ns = np.clip(
                crossing(rtt_ns, slowed * times_ns, budget_ns, light_ns), measured_ns[0], min(measured_ns[-1], light_ns)
            )
            return np.maximum(miles_of(reach_ns, route, equipment_ns), 0.0)

        return miles

    def round_trip(self, item: Measured) -> np.ndarray:
        """The x of a cell in a fit, replayed."""
        surveyed = self.quantile(item.waited_rtt, 0.5, moved=False)
        exact_ns = exact_rtt_ns(item.cell, self.recording.lab.distance)
        return surveyed if exact_ns is None else np.full_like(surveyed, exact_ns)


def figure_of_replay(figure: Figure, values: np.ndarray) -> Figure:
    """The figure as one replay shows it: `values` are the value, with each round left out, in each round alone.

    Its interval is taken to be as wide as the figure's own, on the scale that is compared on.
    """
    from msgspec.structs import replace

    known = [float(value) if math.isfinite(value) else None for value in values]
    rounds = len(known) // 2
    low, high = ends_moved(figure, known[0])
    estimate = Estimate(
        value=known[0], low=low, high=high, count=figure.estimate.count, without=known[1 : 1 + rounds],
        by_round=known[1 + rounds :],
    )  # fmt: skip
    return replace(figure, estimate=estimate)


def ends_moved(figure: Figure, value: float | None) -> tuple[float | None, float | None]:
    """The interval of a figure, moved to another value."""
    own = figure.estimate
    if value is None or own.value is None or own.low is None or own.high is None:
        return None, None
    if is_relative(figure) and own.value > 0:
        return value * own.low / own.value, value * own.high / own.value
    return value + own.low - own.value, value + own.high - own.value


def places(dice: Dice, rounds: int) -> np.ndarray:
    """int64 [replays, rounds]: which of a cell's rounds is drawn. Cells with all rounds draw alike, as they were measured."""
    return (dice.which[:, :rounds] * rounds).astype(np.int64)


def centres(levels: np.ndarray, drawn: np.ndarray, dice: Dice) -> np.ndarray:
    """float64 [replays, rounds]: where each drawn round lies after it was moved, for rounds at these levels (logarithms)."""
    rounds = levels.size
    if rounds < 2:
        return levels[drawn]
    width = rounds**BANDWIDTH_POWER
    # Draws from n rounds vary by (n - 1) / n of what the rounds' own estimate says, and the kernel adds its square.
    scale = math.sqrt(rounds / (rounds - 1) / (1 + width**2))
    spread = float(levels.std(ddof=1)) * math.sqrt((rounds - 1) / rounds)
    mean = float(levels.mean())
    return mean + scale * (levels[drawn] - mean + width * spread * dice.moved[:, :rounds])


def replay_mean(values: np.ndarray, dice: Dice) -> np.ndarray:
    """The mean of one positive value a round, [replays, 1 + 2 rounds]."""
    levels = np.log(values)
    drawn = np.exp(centres(levels, places(dice, values.size), dice))
    total = drawn.sum(axis=1, keepdims=True)
    return np.hstack([total / values.size, (total - drawn) / max(values.size - 1, 1), drawn])


def replay_quantile(pool: Pool, q: float, dice: Dice) -> np.ndarray:
    """A quantile of the pooled histograms of the drawn and moved rounds, [replays, 1 + 2 rounds]."""
    rounds = pool.rounds
    by_round = np.diff(pool.by_round, axis=1, prepend=0.0)
    medians = pool.values_ns[[row.searchsorted(rank(int(row[-1]), 0.5)) for row in pool.by_round]]
    levels = np.log(medians)
    drawn = places(dice, rounds)
    factors = np.exp(centres(levels, drawn, dice) - levels[drawn])
    used = [np.flatnonzero(row) for row in by_round]
    values = [pool.values_ns[slots] for slots in used]
    counts = [row[slots] for row, slots in zip(by_round, used, strict=True)]
    found = np.empty((len(drawn), 1 + 2 * rounds))
    for replay, (chosen, factor) in enumerate(zip(drawn, factors, strict=True)):
        found[replay] = quantile_of_parts([values[row] * by for row, by in zip(chosen, factor, strict=True)],
                                          [counts[row] for row in chosen], q)  # fmt: skip
    return found


def quantile_of_parts(values: Sequence[np.ndarray], counts: Sequence[np.ndarray], q: float) -> np.ndarray:
    """The quantile of all parts together, of all but each, of each alone."""
    everything = np.concatenate(values)
    order = np.argsort(everything, kind="stable")
    everything = everything[order]
    weights = np.zeros((len(values), everything.size))
    begin = 0
    for part, some in enumerate(counts):
        weights[part, begin : begin + some.size] = some
        begin += some.size
    by_part = np.cumsum(weights[:, order], axis=1)
    total = by_part.sum(axis=0)
    found = np.full(1 + 2 * len(values), np.nan)
    for place, cumulative in enumerate([total, *(total - part for part in by_part), *by_part]):
        if cumulative[-1] > 0:
            found[place] = everything[cumulative.searchsorted(rank(int(cumulative[-1]), q))]
    return found


def rates(cell: Measured, field: Field) -> np.ndarray:
    """What completed per second, round by round."""
    dropped = cell.steadiness.dropped
    return np.array([per_second(item, dropped, field) for item in with_slices(cell.rounds, dropped)])


def cpu(rounds: Sequence[Round]) -> np.ndarray:
    """Processor time per write, round by round."""
    return np.array([((item.near_cpu_ns or 0) + (item.far_cpu_ns or 0)) / item.completed for item in rounds])
