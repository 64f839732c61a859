"""How sure a number is: exact intervals of order statistics, the bootstrap over rounds, bounds on losses.

Rounds, not single writes, are the unit of replication: writes of one round share the machine's mood, so an interval
from writes alone is too narrow. Everything here is arithmetic on counts; what is estimated is left to the other files.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..base.reasons import Reason, few_rounds, few_values, no_round
from .result import ROUNDS_MIN, Estimate
from .student_t import critical, half_width

CONFIDENCE = 0.95
REPLICATES = 1000  # The ends of an interval then lie on some 25 replicates each; more changes the third digit.
NORMAL_975 = 1.959964  # Of the standard normal distribution: the percentile that CONFIDENCE leaves above.


def label(q: float) -> str:
    """How a quantile is called: 0.999 is "p99.9"."""
    return f"p{100 * q:.10g}"


def unknown(*warnings: Reason, count: int = 0) -> Estimate:
    """An estimate without a value, and why."""
    return Estimate(value=None, count=count, warnings=list(warnings))


def count_needed(q: float, confidence: float = CONFIDENCE) -> int:
    """The least sample whose extreme values still enclose the quantile, each end missing it with (1 - confidence) / 2.

    The greatest of n values lies below the quantile with probability q^n, the least above it with (1 - q)^n. So a 95 %
    interval of p99 needs 368 values, p99.9 3 688, p99.99 36 887, the median 6.
    """
    return math.ceil(math.log((1 - confidence) / 2) / math.log(max(q, 1 - q)))


@lru_cache(maxsize=4096)
def order_statistic_ranks(count: int, q: float, confidence: float = CONFIDENCE) -> tuple[int, int, float] | None:
    """(rank of the low end, rank of the high end, confidence achieved), ranks from 1; None when `count` is too small.

    Exact for independent values of any distribution: the number of values below the quantile is binomial (David and
    Nagaraja, Order Statistics, 3rd edition, §7.1). Equal tails, so what is achieved is at least what was asked.
    """
    from scipy.special import bdtr

    if count < count_needed(q, confidence):
        return None
    tail = (1 - confidence) / 2
    low = binomial_quantile(count, q, tail)
    high = binomial_quantile(count, q, 1 - tail) + 1
    achieved = float(bdtr(high - 1, count, q) - (bdtr(low - 1, count, q) if low > 0 else 0.0))
    return max(low, 1), min(high, count), achieved


def binomial_quantile(count: int, q: float, probability: float) -> int:
    """The least k with P(Binomial(count, q) <= k) >= probability."""
    from scipy.special import bdtr, ndtri

    guess = count * q + float(ndtri(probability)) * math.sqrt(count * q * (1 - q))
    k = min(max(math.floor(guess), 0), count)
    while k > 0 and bdtr(k - 1, count, q) >= probability:
        k -= 1
    while k < count and bdtr(k, count, q) < probability:
        k += 1
    return k


class Weights(NamedTuple):
    """The different ways in which replicates take rounds: 126 for 5 of 5 rounds, however many replicates."""

    ways: np.ndarray  # float64, a row a way: how often each round is taken
    members: list[np.ndarray]  # for each way, the replicates that take rounds so


class Draws:
    """Which rounds each bootstrap replicate takes; the same for every cell, because rounds are interleaved.

    A replicate that takes a slow minute of the machine then takes it for all cells at once, and what is
    computed from several cells (a fit, an efficiency) keeps their pairing.
    """

    def __init__(self, seed: int, rounds: int) -> None:
        self.seed = seed
        self.rounds = max(rounds, 1)
        taken = self.generator("rounds").integers(0, self.rounds, (REPLICATES, self.rounds))
        self.times_taken = (taken[:, :, None] == np.arange(self.rounds)).sum(axis=1).astype(np.float64)
        self.made: dict[tuple[int, ...], Weights] = {}

    def generator(self, name: str) -> np.random.Generator:
        """Dice of their own for every named quantity: more cells in a recording do not change a cell's numbers."""
        return np.random.default_rng([self.seed & (2**63 - 1), zlib.crc32(name.encode())])

    def weights(self, indices: Sequence[int]) -> Weights:
        """How often the replicates take each of these rounds.

        A cell may lack a round that others have; a replicate that took nothing else takes all the cell has.
        """
        key = tuple(indices)
        if key not in self.made:
            taken = self.times_taken[:, list(key)]
            taken = np.where(taken.sum(axis=1, keepdims=True) > 0, taken, 1.0)
            ways, way = np.unique(taken, axis=0, return_inverse=True)
            self.made[key] = Weights(ways, [np.flatnonzero(way.reshape(-1) == index) for index in range(len(ways))])
        return self.made[key]


def interval_of_replicates(
    replicates: np.ndarray, rounds: int, value: float, positive: bool = False, rounds_min: int = ROUNDS_MIN
) -> tuple[float, float, float] | None:
    """(low, high, confidence) of a value from bootstrap replicates over so many rounds; None below `rounds_min`.

    The percentiles, stretched about the value by sqrt(n / (n - 1)) * t(n - 1) / z: n resampled rounds scatter by (n - 1) / n of
    what they should, and a spread known from few rounds needs Student's t. Of a mean this is Student's interval; ends may lie
    beyond the extreme rounds, which alone enclose the truth with probability 1 - 2^(1 - n) only (75 % for 3 rounds). `positive`:
    on the logarithm, where rounds differ by factors. The confidence holds for rounds that are independent and of one
    distribution; results/coverage.md has what is achieved where they are not.
    """
    finite = replicates[~np.isnan(replicates)]
    if rounds < rounds_min or not finite.size:
        return None
    tail = (1 - CONFIDENCE) / 2
    # "lower" and "higher" take replicates as they are: no arithmetic with the infinite.
    low, high = float(np.quantile(finite, tail, method="lower")), float(np.quantile(finite, 1 - tail, method="higher"))
    if not math.isfinite(value):
        return low, high, CONFIDENCE
    stretch = math.sqrt(rounds / (rounds - 1)) * critical(tail, rounds - 1) / NORMAL_975
    if positive and min(low, value) > 0:
        return value * (min(low, value) / value) ** stretch, value * (max(high, value) / value) ** stretch, CONFIDENCE
    low, high = (value + stretch * (end - value) for end in (min(low, value), max(high, value)))
    return max(low, 0.0) if positive else low, high, CONFIDENCE


def from_replicates(
    value: float, replicates: np.ndarray, rounds: int, count: int, *warnings: Reason, without: Sequence[float | None] = (),
    by_round: Sequence[float | None] = (), positive: bool = False,
) -> Estimate:  # fmt: skip
    """A value with the interval of its replicates, which never leaves the value outside."""
    found = interval_of_replicates(replicates, rounds, value, positive)
    if found is None:
        return Estimate(value=value, count=count, warnings=[*warnings, few_rounds(rounds)], without=list(without),
                        by_round=list(by_round))  # fmt: skip
    low, high, confidence = found
    return Estimate(
        value=value, low=min(low, value), high=max(high, value), confidence=confidence, count=count,
        warnings=list(warnings), without=list(without), by_round=list(by_round),
    )  # fmt: skip


def listed(without: np.ndarray, indices: Iterable[int]) -> list[float | None]:
    """Values by round index as they are stored: None for a round that is not among `indices`."""
    known = set(indices)
    return [
        float(value) if index in known and math.isfinite(value) else None for index, value in enumerate(without)
    ]


def mean_over_rounds(values: Sequence[float], indices: Sequence[int] = ()) -> Estimate:
    """The mean of one value a round, with Student's t interval; never below 0. `indices` are the rounds' own."""
    count = len(values)
    if not count:
        return unknown(no_round())
    mean = float(np.mean(values))
    if count == 1:
        return Estimate(value=mean, count=1, warnings=[few_rounds(1)])
    half = half_width(float(np.std(values, ddof=1)), count, CONFIDENCE)
    warnings = [few_values(count)] if count < ROUNDS_MIN else []
    without: list[float | None] = [None] * (1 + max(indices, default=-1))
    for index, value in zip(indices, values, strict=False):
        without[index] = (count * mean - value) / (count - 1)
    return Estimate(
        value=mean, low=max(mean - half, 0.0), high=mean + half, confidence=CONFIDENCE, count=count, warnings=warnings,
        without=without,
    )  # fmt: skip


def loss_probability_high(losses: int, count: int, confidence: float = CONFIDENCE) -> float:
    """The probability of a loss that `losses` in `count` independent trials still leave open.

    Clopper and Pearson (1934), one-sided. With none lost this is 1 - (1 - confidence)^(1 / count), about 3 / count: the
    rule of three.
    """
    from scipy.special import betaincinv

    assert 0 <= losses <= count and count > 0
    return 1.0 if losses == count else float(betaincinv(losses + 1, count - losses, confidence))
