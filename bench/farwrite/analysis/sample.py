"""Histograms as the analysis reads them: the slots in use and their counts, nothing between.

A recording holds thousands of histograms of a few hundred slots each. This file unpacks the text of
`histogram.Histogram.encode` as arrays, about ten times as fast as `Histogram.decode`, and to the same counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..base import histogram as text_form
from ..base.histogram import SATURATED, SLOTS, middle_of

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
    plain = np.frombuffer(text_form.unpacked(text), np.uint8)
    if not plain.size or plain[0] != text_form.TEXT_VERSION:
        text_form.Histogram.decode(text)  # It has the words for this refusal.
    numbers = varints(plain[1:])
    steps, counts = numbers[0::2], numbers[1::2]
    slot = np.cumsum(steps) - 1
    if steps.size != counts.size or (steps.size and (steps.min() < 1 or slot[-1] >= SLOTS or counts.min() < 1)):
        raise text_form.damaged("its slots or counts make no sense")
    return Sample(slot, counts)


def varints(plain: np.ndarray) -> np.ndarray:
    """int64, the numbers in LEB128 bytes."""
    if not plain.size:
        return np.zeros(0, np.int64)
    last = plain < 0x80
    if not last[-1]:
        raise text_form.damaged("a number in it is cut off")
    ends = np.flatnonzero(last)
    begins = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - begins + 1
    if lengths.max() > text_form.VARINT_BYTES_MAX:
        raise text_form.damaged("a number in it is too long")
    within = np.arange(plain.size) - np.repeat(begins, lengths)
    return np.add.reduceat((plain & 0x7F).astype(np.int64) << 7 * within, begins)


def pooled(samples: Iterable[Sample]) -> Sample:
    """All values of all samples together."""
    some = [sample for sample in samples if sample.slot.size]
    if len(some) < 2:
        return some[0] if some else EMPTY
    slot, inverse = np.unique(np.concatenate([sample.slot for sample in some]), return_inverse=True)
    counts = np.zeros(slot.size, np.int64)
    np.add.at(counts, inverse, np.concatenate([sample.counts for sample in some]))
    return Sample(slot, counts)
