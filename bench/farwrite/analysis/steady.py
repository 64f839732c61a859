"""Where warm-up ends and whether what follows is steady: found in the recording, never assumed.

A round is cut into slices by intended instant. Two summaries of each slice are looked at, the median and the 90th
percentile (a warm-up may show only in the slower writes), each relative to the median of its own round's second half,
and all rounds of a cell are looked at together.

Warm-up. MSER (White 1997, An effective truncation heuristic for bias reduction in simulation output): drop as many
leading slices as leave the smallest marginal standard error of the rest, sum of squares / (number left)^2, at most
half. MSER alone drops slices from pure noise. So its proposal is cut back to the last slice that is slower than the
rest by more than MARGIN, and counts only when a rank-sum test over all rounds agrees (one-sided, SIGNIFICANCE). One
round can hardly say so, three can.

Steady. What is left must not trend: Mann-Kendall summed over rounds (Hirsch, Slack and Smith 1982, rounds for seasons)
at SIGNIFICANCE, and growing or shrinking from first to last slice by more than MARGIN along the Theil-Sen slope.
Significant but smaller is steady.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .estimate import count_needed
from .sample import Sample

MARGIN = 0.05  # A difference that matters; below it, a cell's own rounds differ more.
SIGNIFICANCE = 0.005  # Several lengths and two summaries of tens of cells are tried: 0.05 would suspect one every time.
SLICES_MIN = 4  # Fewer have no trend that a test could find.
SLICE_WRITES_MIN = count_needed(0.5)  # The least that a median can be said of.
SUMMARIES = (0.5, 0.9)


@dataclass(frozen=True)
class Steadiness:
    """How many leading slices to leave out, and whether the rest is steady (None: too few writes to tell)."""

    dropped: int
    steady: bool | None
    growth_ratio: float  # of the median, from first to last slice that is kept


def steadiness_of(rounds: Sequence[Sequence[Sample]]) -> Steadiness:
    """What the slices of a cell's rounds say; slices with too few writes are passed over."""
    width = min((len(slices) for slices in rounds), default=0)
    if width < SLICES_MIN:
        return Steadiness(0, None, 0.0)
    tables = {q: relative([slices[:width] for slices in rounds], q) for q in SUMMARIES}
    if any(np.isfinite(row).sum() < SLICES_MIN for row in tables[0.5]):
        return Steadiness(0, None, 0.0)
    dropped = max(warmup_slices(table) for table in tables.values())
    kept = tables[0.5][:, dropped:]
    growth = growth_ratio(kept)
    return Steadiness(dropped, not (trends(kept) and abs(growth) > MARGIN), growth)


def relative(rounds: Sequence[Sequence[Sample]], q: float) -> np.ndarray:
    """Logarithms, a row a round, of each slice's quantile over that of its round's second half; NaN: too few."""
    table = np.array(
        [[item.quantile(q) if item.count >= SLICE_WRITES_MIN else np.nan for item in slices] for slices in rounds]
    )
    with np.errstate(all="ignore"):
        logs = np.log(table)
    half = logs.shape[1] // 2
    for row in logs:
        level = row[half:] if np.isfinite(row[half:]).any() else row
        row -= np.nanmedian(level) if np.isfinite(level).any() else 0.0
    return logs


def warmup_slices(table: np.ndarray) -> int:
    """How many leading slices (columns) to drop."""
    columns = [column[np.isfinite(column)] for column in table.T]
    typical = np.array([np.median(column) if column.size else np.nan for column in columns])
    dropped = mser(typical)
    usual = [value for value in typical[dropped:] if np.isfinite(value)]
    while dropped and not typical[dropped - 1] > np.median(usual) + math.log1p(MARGIN):
        dropped -= 1
    if not dropped:
        return 0
    leading, rest = np.concatenate(columns[:dropped]), np.concatenate(columns[dropped:])
    return dropped if rank_sum_p(leading, rest) < SIGNIFICANCE else 0


def mser(series: np.ndarray) -> int:
    """The truncation that leaves the smallest marginal standard error; at most half of the series."""
    scores = []
    for dropped in range(series.size // 2 + 1):
        rest = series[dropped:][np.isfinite(series[dropped:])]
        scores.append(float(np.sum((rest - rest.mean()) ** 2)) / rest.size**2 if rest.size > 1 else math.inf)
    return int(np.argmin(scores))


def rank_sum_p(leading: np.ndarray, rest: np.ndarray) -> float:
    """How probable it is that `leading` ranks this high by chance (Wilcoxon 1945; normal approximation)."""
    greater = (leading[:, None] > rest[None, :]).sum() + 0.5 * (leading[:, None] == rest[None, :]).sum()
    pairs = leading.size * rest.size
    deviation = math.sqrt(pairs * (leading.size + rest.size + 1) / 12)
    return normal_tail((greater - pairs / 2 - 0.5) / deviation)


def trends(table: np.ndarray) -> bool:
    """Whether the rows rise or fall together more than chance explains."""
    score, variance = 0.0, 0.0
    for row in table:
        values = row[np.isfinite(row)]
        above = np.triu(np.sign(values[None, :] - values[:, None]), 1)
        score += above.sum()
        variance += values.size * (values.size - 1) * (2 * values.size + 5) / 18
    if variance == 0:
        return False
    z = (abs(score) - 1) / math.sqrt(variance)
    return 2 * normal_tail(z) < SIGNIFICANCE


def growth_ratio(table: np.ndarray) -> float:
    """By what share the rows grow from first to last column, along the median slope of all pairs within rows."""
    first, second = np.triu_indices(table.shape[1], 1)
    slopes = (table[:, second] - table[:, first]) / (second - first)
    slopes = slopes[np.isfinite(slopes)]
    return float(np.expm1(np.median(slopes) * (table.shape[1] - 1))) if slopes.size else 0.0


def normal_tail(z: float) -> float:
    """P(Z > z) of the standard normal distribution."""
    return 0.5 * math.erfc(z / math.sqrt(2))
