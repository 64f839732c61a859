"""Estimates from what other tools keep of their measurements: counts by slot, single values, or a few percentiles.

The statistics are those of our own reports (`analysis.latency`); what is added is that foreign slots have widths of
their own, and that a list of percentiles encloses an interval even though the measurements are gone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec.structs import replace

from ...analysis.estimate import CONFIDENCE, Draws, count_needed, label, order_statistic_ranks, unknown
from ...analysis.latency import Pool
from ...analysis.result import Estimate
from ...analysis.student_t import half_width
from ...base.reasons import needs, one_run, remark

ONE_RUN = one_run()
ENCLOSED = remark("the interval is as wide as the percentiles that the file lists")

# SciPy's binomial distribution answers NaN from 2^31 on. Of more values the interval is that of so many: wider, and
# still narrower than any slot.
COUNT_MAX = 1 << 30

# By q; what every reader looks for.
QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


class Counted(Pool):
    """Values in slots, `counts` a row a round; a slot holds what lies from `lows` to `highs`, `middles` stand for it."""

    def __init__(self, lows: np.ndarray, middles: np.ndarray, highs: np.ndarray, counts: np.ndarray) -> None:
        rounds, slots = counts.shape
        assert lows.size == middles.size == highs.size == slots
        self.name = "foreign"
        self.lows, self.highs = lows, highs
        self.values_ns = middles
        self.indices = np.flatnonzero(counts.sum(axis=1)).tolist()  # Rounds that counted something.
        self.draws = Draws(0, rounds)
        self.total = int(counts.sum())
        self.by_round = np.cumsum(counts[self.indices] * min(1.0, COUNT_MAX / max(self.total, 1)), axis=1)
        self.cumulative = self.by_round.sum(axis=0)
        self.saturated = 0
        self.made = {}

    @classmethod
    def of(cls, values: Sequence[float]) -> Counted:
        """Single values of one run, each a slot of its own."""
        ascending, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
        return cls(ascending, ascending, ascending, counts.reshape(1, -1))

    def estimate(self, q: float) -> Estimate:
        """The quantile. Its interval ends where the slots of its ends do, and of one run says that it is one."""
        found = replace(super().estimate(q), count=self.total)
        if self.draws.rounds == 1:
            found = replace(found, without=[], warnings=[ONE_RUN] if found.value is not None else found.warnings)
        if found.low is None or found.high is None:
            return found
        low = self.values_ns.searchsorted(found.low)
        high = self.values_ns.searchsorted(found.high, "right") - 1
        # An interval over rounds may end outside of every slot.
        low_end = float(self.lows[low]) if low < self.lows.size else found.low
        high_end = float(self.highs[high]) if high >= 0 else found.high
        return replace(found, low=min(found.low, low_end), high=max(found.high, high_end))


def from_percentiles(known: Mapping[float, float], q: float, count: int) -> Estimate | None:
    """A quantile that is listed, within the nearest listed ones that surely enclose its interval; None if it is not.

    `known` has 0 for the least value and 1 for the greatest. Tools differ by at most one place in what they call a
    percentile: fio takes a slot, k6 interpolates between two places, pytest-benchmark takes medians of halves. So a
    listed one encloses from the next place on.
    """
    value = next((found for other, found in known.items() if math.isclose(other, q, abs_tol=1e-9)), None)
    if value is None:
        return None
    if not count:
        return Estimate(value=value, warnings=[ONE_RUN, remark("no interval: the file does not say how many values it is of")])
    n = min(count, COUNT_MAX)
    ranks = order_statistic_ranks(n, q)
    if ranks is None:
        return unknown(needs(label(q), count_needed(q), count), count=count)
    lows = [found for other, found in known.items() if other == 0 or math.ceil(other * n) + 1 <= ranks[0]]
    highs = [found for other, found in known.items() if other == 1 or math.ceil(other * n) - 1 >= ranks[1]]
    if not lows or not highs:
        return Estimate(value=value, count=count, warnings=[ONE_RUN, remark("no interval: the file lists nothing beyond it")])
    return Estimate(
        value=value, low=min(max(lows), value), high=max(min(highs), value), confidence=ranks[2], count=count,
        warnings=[ONE_RUN, ENCLOSED],
    )  # fmt: skip


def mean_of(mean: float, deviation: float | None, count: int) -> Estimate:
    """The mean of one run with its standard error, as if its values were independent; never below 0."""
    if deviation is None or count < 2:
        return Estimate(value=mean, count=count, warnings=[ONE_RUN])
    half = half_width(deviation, count, CONFIDENCE)
    return Estimate(
        value=mean, low=max(mean - half, 0.0), high=mean + half, confidence=CONFIDENCE, count=count, warnings=[ONE_RUN]
    )


def plain(value: float, count: int = 0) -> Estimate:
    """A value of one run, of which nothing more is known."""
    return Estimate(value=value, count=count, warnings=[ONE_RUN])
