"""Histograms as the analysis reads them: the slots in use and their counts, nothing between.

A recording holds thousands of histograms of a few hundred slots each, and arrays of all 31 745 slots would not fit into a cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..base.histogram import SATURATED, SLOTS, middle_of, slots_in_use

MIDDLES_NS = middle_of(np.arange(SLOTS))  # A table: the analysis asks for thousands of single ones.


@dataclass(frozen=True)
class Sample:
    """What was counted: both arrays int64 and of one length, `slot` ascending, `counts` above 0."""

    slot: np.ndarray
    counts: np.ndarray

    @property
    def count(self) -> int:
        """How many values there are."""
        return int(self.counts.sum())

    @property
    def saturated(self) -> int:
        """How many of them were too long for their histogram."""
        return int(self.counts[self.slot == SATURATED].sum())

    def quantile(self, q: float) -> float:
        """The ceil(q * count)-th smallest value, in ns; NaN when there is none."""
        if not self.slot.size:
            return float("nan")
        cumulative = np.cumsum(self.counts)
        at = np.searchsorted(cumulative, rank(int(cumulative[-1]), q))
        return float(MIDDLES_NS[self.slot[at]])

    def quantiles(self, qs: Sequence[float]) -> list[float]:
        """Several at once, for little more than the price of one."""
        if not self.slot.size:
            return [float("nan")] * len(qs)
        cumulative = np.cumsum(self.counts)
        count = int(cumulative[-1])
        return MIDDLES_NS[self.slot[cumulative.searchsorted([rank(count, q) for q in qs])]].tolist()


EMPTY = Sample(np.zeros(0, np.int64), np.zeros(0, np.int64))


def rank(count: int, q: float) -> int:
    """Which of `count` ascending values is the quantile, counted from 1. Rounding must not lift 0.07 * 100 above 7."""
    return min(max(math.ceil(q * count - 1e-9 * count), 1), count)


def decode(text: str) -> Sample:
    """The sample in a histogram's text; UsageError when it is damaged."""
    return decode_all([text])[0]


def decode_all(texts: Iterable[str]) -> list[Sample]:
    """Those of many at once, in a quarter of the time."""
    return [Sample(slot, counts) for slot, counts in slots_in_use(list(texts))]


def decode_known(texts: Iterable[str | None]) -> list[Sample]:
    """The same; where nothing was recorded the text is empty or missing, and so is the sample."""
    texts = list(texts)
    found = iter(decode_all([text for text in texts if text]))
    return [next(found) if text else EMPTY for text in texts]


def pooled(samples: Iterable[Sample]) -> Sample:
    """All values of all samples together."""
    some = [sample for sample in samples if sample.slot.size]
    if len(some) < 2:
        return some[0] if some else EMPTY
    slot, inverse = np.unique(np.concatenate([sample.slot for sample in some]), return_inverse=True)
    counts = np.zeros(slot.size, np.int64)
    np.add.at(counts, inverse, np.concatenate([sample.counts for sample in some]))
    return Sample(slot, counts)
