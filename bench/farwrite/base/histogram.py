"""A histogram of nanoseconds with three significant digits from 1 ns to 18 minutes, and its text form for recordings.

Recordings carry it, analysis and reports read quantiles from it, on machines that need no Numba. Counting up while a
run is measured is left to `histogram_kernel`; how sure a quantile is, to the analysis.

Layout after HdrHistogram (Tene): values below 2048 have a slot each; from there every doubling has 1024 slots of equal
width, so that no slot is wider than a thousandth of what it counts. Values from 2^40 ns on share one last slot.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from . import hdr_codec
from .errors import UsageError
from .hdr_codec import RANGE_BITS

EXACT_BITS = 11  # Values below 2 ** 11 are exact; half as many slots a doubling still give 1/1024.
HALF_BITS = 10
SATURATED = (RANGE_BITS - EXACT_BITS + 2) << HALF_BITS  # The index of the last slot.
SLOTS = SATURATED + 1

PLAIN_BYTES_MAX = 64 + SLOTS * (3 + hdr_codec.VARINT_BYTES_MAX)  # A header, then for every slot a step from the last and a count.
TEXT_CHARACTERS_MAX = 2 * PLAIN_BYTES_MAX  # Base64 of data that did not compress at all takes 1.34 times its bytes.


@functools.lru_cache(maxsize=256)
def decimal(q: float) -> tuple[int, int]:
    """A quantile as the ratio that its digits say, numerator and denominator."""
    if not 0 <= q <= 1:
        raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
    return Fraction(str(q)).as_integer_ratio()


def index_of(values_ns: ArrayLike) -> np.ndarray:
    """int64, the slots that count these values."""
    values_ns = np.asarray(values_ns, np.int64)
    if values_ns.size and values_ns.min() < 0:
        raise ValueError("a histogram counts no negative values")
    _, bits = np.frexp(values_ns.astype(np.float64))
    shift = np.maximum(bits.astype(np.int64) - EXACT_BITS, 0)
    index = np.where(shift > 0, shift << HALF_BITS, 0) + (values_ns >> shift)
    return np.where(values_ns >= 1 << RANGE_BITS, SATURATED, index)


def lowest_of(index: ArrayLike) -> np.ndarray:
    """int64, the least values in ns that these slots count."""
    index = np.asarray(index, np.int64)
    shift = np.maximum((index >> HALF_BITS) - 1, 0)
    within = (index & ((1 << HALF_BITS) - 1)) + (1 << HALF_BITS)
    return np.where(index < 1 << EXACT_BITS, index, within << shift)


def highest_of(index: ArrayLike) -> np.ndarray:
    """int64, the greatest values in ns that these slots count; for the last, which knows no greatest, its least."""
    index = np.asarray(index, np.int64)
    return np.where(index == SATURATED, lowest_of(index), lowest_of(np.minimum(index + 1, SATURATED)) - 1)


def middle_of(index: ArrayLike) -> np.ndarray:
    """int64, the values in ns that stand for all these slots count: at most 0.05 % from any of them."""
    lowest = lowest_of(index)
    return lowest + ((highest_of(index) - lowest) >> 1)


class Histogram:
    """Counts by slot; `counts` is int64 of SLOTS elements, and what `histogram_kernel.record` fills."""

    def __init__(self, counts: np.ndarray | None = None) -> None:
        self.counts = np.zeros(SLOTS, np.int64) if counts is None else counts
        assert self.counts.shape == (SLOTS,) and self.counts.dtype == np.int64

    @classmethod
    def of(cls, values_ns: ArrayLike) -> Histogram:
        """The histogram of these values."""
        return cls(np.bincount(index_of(values_ns), minlength=SLOTS).astype(np.int64))

    @property
    def count(self) -> int:
        """How many values were recorded."""
        return int(self.counts.sum())

    @property
    def saturated(self) -> int:
        """How many of them were 2^40 ns or more, so that only their number is known."""
        return int(self.counts[SATURATED])

    @property
    def maximum(self) -> int | None:
        """The greatest value, in ns, that the greatest recorded one may have been; None when there is none."""
        recorded = np.flatnonzero(self.counts)
        return int(highest_of(recorded[-1])) if recorded.size else None

    def quantile(self, q: float) -> int | None:
        """The ceil(q * count)-th smallest value (the first for q = 0), in ns, within 0.05 %; None when there is none.

        `q` is taken as the decimal it prints as: 0.07 of 100 values is the 7th, although 0.07 * 100 > 7 in binary.
        """
        return self.quantiles((q,))[0]

    def quantiles(self, qs: Sequence[float]) -> list[int | None]:
        """Several at once, for little more than the price of one."""
        ratios = [decimal(float(q)) for q in qs]
        used = self.used()
        if not used.size:
            return [None] * len(ratios)
        cumulative = np.cumsum(self.counts[used])
        count = int(cumulative[-1])
        ranks = [max(-(-above * count // under), 1) for above, under in ratios]
        return middle_of(used[cumulative.searchsorted(ranks)]).tolist()

    def used(self) -> np.ndarray:
        """int64, the slots that counted something, ascending."""
        # Sums of whole doublings first, which tell where to look: 25 us instead of 86 (Xeon 2.5 GHz, NumPy 2.4).
        doublings = np.flatnonzero(self.counts[:SATURATED].reshape(-1, 1 << HALF_BITS).sum(axis=1))
        if self.counts[SATURATED] or not doublings.size:
            return np.flatnonzero(self.counts)
        begin, end = int(doublings[0]) << HALF_BITS, int(doublings[-1] + 1) << HALF_BITS
        return np.flatnonzero(self.counts[begin:end] != 0) + begin

    def merge(self, other: Histogram) -> Histogram:
        """A new histogram of what both recorded."""
        return Histogram(self.counts + other.counts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]  # It changes while it is filled.

    def __repr__(self) -> str:
        return f"Histogram(count={self.count}, p50={self.quantile(0.5)} ns, maximum={self.maximum} ns)"

    def encode(self) -> str:
        """Text for a recording: HdrHistogram's encoding V2, compressed, in base64."""
        used = self.used()
        return hdr_codec.encode(used, self.counts[used])

    @classmethod
    def decode(cls, text: str) -> Histogram:
        """The histogram that `encode` wrote, or an older farwrite; UsageError for anything else."""
        slots, counts = slots_in_use([text])[0]
        histogram = cls()
        histogram.counts[slots] = counts
        return histogram


def slots_in_use(texts: Sequence[str]) -> list[hdr_codec.Slots]:
    """(slot, count) of the slots in use of each histogram, int64, ascending: all at once takes a quarter of the time.

    UsageError for a text that is none; no text is unpacked to more than PLAIN_BYTES_MAX.
    """
    for text in texts:
        if not isinstance(text, str):
            raise damaged(f"it is not text but {type(text).__name__}")
        if len(text) > TEXT_CHARACTERS_MAX:
            raise damaged(f"{len(text)} characters are more than any histogram takes")
    older = [text for text in texts if not text.startswith(hdr_codec.BEGINNING)]
    newer = [text for text in texts if text.startswith(hdr_codec.BEGINNING)] if older else texts
    try:
        found = hdr_codec.decoded(newer, SLOTS, PLAIN_BYTES_MAX)
        if not older:
            return found
        from . import histogram_v1  # Recordings of today have none.

        of = iter(found), iter(histogram_v1.decoded(older, SLOTS, PLAIN_BYTES_MAX))
    except UsageError as refusal:
        raise damaged(str(refusal).removeprefix("the histogram ")) from refusal
    return [next(of[not text.startswith(hdr_codec.BEGINNING)]) for text in texts]


def damaged(what: str) -> UsageError:
    return UsageError(f"histogram: {what}. The file is damaged; take it from the run's own folder again.")
