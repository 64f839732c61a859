"""Quantiles of times, over rounds: the value, the interval, and the replicates that fits and ratios are made of.

A `Pool` holds one quantity of one cell, round by round, as counts. Its intervals are the hull of two: the exact one of
the pooled sample, which knows only writes, and a hierarchical bootstrap, which knows that rounds differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..base import reasons
from ..base.histogram import SATURATED
from .effective_sample_size import effective_count
from .estimate import (
    REPLICATES,
    ROUNDS_MIN,
    Draws,
    count_needed,
    interval_of_replicates,
    label,
    listed,
    order_statistic_ranks,
    unknown,
)
from .result import Estimate
from .sample import MIDDLES_NS, Sample, rank

LEAST_ERROR = 0.005  # That a quantile is less than Pool.least: little beside the 0.025 of an interval's end.


class Pool:
    """One quantity over its good rounds; `indices` are the rounds', `name` seeds its dice."""

    batches: Sequence[Sample] = ()  # Empty where nothing finer than a round is known.

    def __init__(
        self, name: str, indices: Sequence[int], samples: Sequence[Sample], draws: Draws, batches: Sequence[Sample] = ()
    ) -> None:
        """`batches`: the same values cut by time, which tell what they are worth where rounds are too few to tell."""
        self.batches = batches
        kept = [(index, sample) for index, sample in zip(indices, samples, strict=True) if sample.slot.size]
        self.name = name
        self.indices = [index for index, _ in kept]
        self.draws = draws
        slot = np.unique(np.concatenate([sample.slot for _, sample in kept])) if kept else np.zeros(0, np.int64)
        counts = np.zeros((len(kept), slot.size))
        for row, (_, sample) in enumerate(kept):
            counts[row, np.searchsorted(slot, sample.slot)] = sample.counts
        self.values_ns = MIDDLES_NS[slot].astype(np.float64)
        self.by_round = np.cumsum(counts, axis=1)  # by_round[r, v]: values of round r up to values_ns[v]
        self.cumulative = self.by_round.sum(axis=0)
        self.saturated = int(counts[:, slot == SATURATED].sum())
        self.made: dict[float, np.ndarray] = {}

    @property
    def count(self) -> int:
        """How many values there are."""
        return int(self.cumulative[-1]) if self.cumulative.size else 0

    @property
    def rounds(self) -> int:
        """How many rounds they come from."""
        return len(self.indices)

    def at(self, place: int) -> float:
        """The `place`-th smallest value, from 1, in ns."""
        return float(self.values_ns[np.searchsorted(self.cumulative, place)])

    def quantile(self, q: float) -> float:
        """The quantile of all values together, in ns; NaN when there is none."""
        return self.at(rank(self.count, q)) if self.count else float("nan")

    def replicates(self, q: float) -> np.ndarray:
        """The quantile in each bootstrap replicate.

        Rounds are resampled whole. Within what they hold, resampling n values and taking the r-th is the same as taking
        the value at a level drawn from Beta(r, n - r + 1), the distribution of the r-th of n uniform numbers. So no
        value is ever drawn, and a replicate costs one look-up in summed cumulative counts. (Resampling each round for
        itself would give very slightly narrower intervals where rounds differ.)
        """
        if q not in self.made:
            self.made[q] = self.resample(q)
        return self.made[q]

    def resample(self, q: float) -> np.ndarray:
        """The replicates, computed."""
        if not self.count:
            return np.full(REPLICATES, np.nan)
        place = rank(self.count, q)
        level = self.draws.generator(f"{self.name}/{q}").beta(place, self.count - place + 1, REPLICATES)
        found = np.empty(REPLICATES, np.int64)
        weights = self.draws.weights(self.indices)
        for members, cumulative in zip(weights.members, weights.ways @ self.by_round, strict=True):
            found[members] = cumulative.searchsorted(level[members] * cumulative[-1])
        return self.values_ns[np.minimum(found, self.values_ns.size - 1)]

    def without(self, q: float) -> np.ndarray:
        """float64 by round index: the quantile with that round left out; as it is where the pool lacks the round.

        NaN throughout for a single round. What comparisons take their errors from: a jackknife over rounds.
        """
        found = np.full(self.draws.rounds, self.quantile(q) if self.rounds > 1 else np.nan)
        if self.rounds > 1:
            for row, index in enumerate(self.indices):
                cumulative = self.cumulative - self.by_round[row]
                at = cumulative.searchsorted(rank(int(cumulative[-1]), q))
                found[index] = self.values_ns[at]
        return found

    def alone(self, q: float) -> np.ndarray:
        """float64 by round index: the quantile of that round by itself; NaN where the pool lacks it."""
        found = np.full(self.draws.rounds, np.nan)
        for index, cumulative in zip(self.indices, self.by_round, strict=True):
            found[index] = self.values_ns[cumulative.searchsorted(rank(int(cumulative[-1]), q))]
        return found

    def estimate(self, q: float) -> Estimate:
        """The quantile with its interval; without a value when the sample cannot support one."""
        count = self.count
        if not count:
            return unknown(reasons.nothing_counted())
        ranks = order_statistic_ranks(count, q)
        if ranks is None:
            return unknown(reasons.needs(label(q), count_needed(q), count), count=count)
        low, high, confidence = self.at(ranks[0]), self.at(ranks[1]), ranks[2]
        warnings = []
        if self.rounds >= ROUNDS_MIN:
            low, high, confidence = self.widened(q, low, high, confidence)
        else:
            warnings.append(reasons.few_rounds(self.rounds))
            effective_sample_size = self.effective_count(q)
            if effective_sample_size is not None and effective_sample_size < count:
                found = self.interval_of(effective_sample_size, q)
                if found is None:
                    return unknown(reasons.needs_effective(label(q), count_needed(q), effective_sample_size, count), count=count)
                low, high, confidence = found
                warnings.append(reasons.effective(count, effective_sample_size))
            if self.rounds > 1:
                low, high, confidence = self.widened(q, low, high, confidence)
        if self.saturated:
            warnings.append(reasons.saturated(self.saturated))
        return Estimate(
            value=self.quantile(q), low=low, high=high, confidence=confidence, count=count, warnings=warnings,
            without=listed(self.without(q), self.indices), by_round=listed(self.alone(q), self.indices),
        )  # fmt: skip

    def lateness_in(self, late: Pool, q: float) -> float:
        """At most so much of the quantile, in ns, is the lateness that is within these times: `late` holds that of the same I/Os,
        and of others maybe. Both are known only as distributions, not I/O by I/O.

        Fewer than r of the times less their lateness lie below X(r - K) - y, where X is sorted, r the rank of the quantile and K
        the number that were later than y: they are below X(r - K) already, or among those K. True of every y, so the greatest
        counts.
        """
        if not self.count or not late.count:
            return 0.0
        later = late.count - late.cumulative
        places = rank(self.count, q) - later
        able = places >= 1
        least = self.values_ns[np.searchsorted(self.cumulative, places[able])] - late.values_ns[able]
        return max(self.quantile(q) - max(float(least.max(initial=0.0)), 0.0), 0.0)

    def widened(self, q: float, low: float, high: float, confidence: float) -> tuple[float, float, float]:
        """An interval from writes, widened to hold the one over rounds, as far as the rounds themselves allow."""
        found = interval_of_replicates(self.replicates(q), self.rounds, self.quantile(q), positive=True, rounds_min=2)
        assert found is not None
        return min(low, max(found[0], self.least(q))), max(high, found[1]), min(confidence, found[2])

    def least(self, q: float) -> float:
        """The quantile is hardly less than this, in ns, however much rounds differ; 0 where nothing can be said.

        Of all values the share 1 - q lies above it, so a round of which the share s does has a probability of at most
        (1 - q) / s (Markov's inequality), and all of several rounds the product. Student's factor for two rounds knows none of
        this, and would let a p99 lie below what every write took.
        """
        share = (1 - q) / LEAST_ERROR ** (1 / self.rounds)
        if share >= 1:
            return 0.0
        places = np.floor(self.by_round[:, -1] * (1 - share)).astype(np.int64) + 1
        return min(float(self.values_ns[row.searchsorted(place)]) for row, place in zip(self.by_round, places, strict=True))

    def effective_count(self, q: float) -> int | None:
        """How many independent values these are worth at a quantile; None where an interval over rounds makes it needless."""
        return effective_count(self.batches, q) if self.batches and self.rounds < ROUNDS_MIN else None

    def interval_of(self, effective_sample_size: int, q: float) -> tuple[float, float, float] | None:
        """(low, high, confidence achieved) as of so many independent values of this distribution; None when too few."""
        ranks = order_statistic_ranks(effective_sample_size, q)
        if ranks is None:
            return None
        low, high = (min(max(round(place / effective_sample_size * self.count), 1), self.count) for place in ranks[:2])
        return self.at(low), self.at(high), ranks[2]

    def minimum(self) -> Estimate:
        """The least value. It has no interval: it can only have been reached or missed."""
        if not self.count:
            return unknown(reasons.nothing_counted())
        return Estimate(value=float(self.values_ns[0]), count=self.count)
