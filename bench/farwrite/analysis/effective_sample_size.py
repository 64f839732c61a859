"""What correlated writes are worth: the effective sample size of a quantile, by batch means.

An interval from order statistics takes the writes for independent, and neighbours in time are not: a stall hits many at once. The
slices of the rounds are batches. How much the share of writes below a quantile scatters from slice to slice, against how
much it would if they were independent, says how many independent writes there might as well have been (Schmeiser 1982, Batch
size effects in the analysis of simulation output; for quantiles Seila 1982). Intervals over rounds do not need it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .sample import Sample, pooled, rank

BATCHES_MIN = 10  # Fewer scatter too much themselves; more than 30 are of little use.


def effective_count(batches: Sequence[Sample], q: float) -> int | None:
    """How many independent writes those of the batches are worth at a quantile, at most as many as they are; None: too few
    batches to tell."""
    batches = [batch for batch in batches if batch.count]
    if len(batches) < BATCHES_MIN:
        return None
    everything = pooled(batches)
    cumulative = np.cumsum(everything.counts)
    count = int(cumulative[-1])
    at = int(cumulative.searchsorted(rank(count, q)))
    border, share = everything.slot[at], cumulative[at] / count
    if share >= 1:
        return None  # No write lies beyond: nothing can scatter.
    sizes = np.array([batch.count for batch in batches], np.float64)
    below = np.array([batch.counts[batch.slot <= border].sum() for batch in batches], np.float64)
    scatter = float(((below - share * sizes) ** 2).sum()) * sizes.size / (sizes.size - 1)
    if scatter == 0:
        return count
    return max(min(round(count**2 * share * (1 - share) / scatter), count), 1)
