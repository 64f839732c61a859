"""Where a series of runs changed its level: change points by E-divisive means, judged by Student's t-test.

The method of Hunter, now Apache Otava (Fleming et al., Hunter: Using Change Point Detection to Hunt for Performance
Regressions, ICPE 2023): split where the energy statistic of Matteson and James (A Nonparametric Approach for Multiple Change
Point Analysis of Multivariate Data, JASA 2014, alpha = 1) is greatest, test the split by a t-test instead of permutations,
so that there are no dice; in windows; first with a lax threshold, then take back the weakest until all that is left is strong.

Ours differs in two things. A change must stand whichever single run is left out: pooled variances would otherwise let one
outlier and its three neighbours pass for a new level. And windows decide once: a change in the first half of a full window is
final, whatever comes later. So by construction, for a series that only grows:

- a final change is never taken back, moved or told with other numbers;
- of what lies WINDOW + LOOKBACK runs before the end everything is said: all changes are final and no other will be found.

P_MAX is of one cut, and a series has many. How often a series of 100 runs without any change reports one, of 1000 series, and how
often it would without leaving a run out:

| noise of 2 % from run to run | reports | would |
|---|---|---|
| normal | 0.9 % | 3.1 % |
| Student's t with 3 degrees of freedom | 0.8 % | 4.8 % |
| normal, and 5 % of the runs take twice as long | 2.1 % | 9.8 % |
| each run remembers 30 % of the one before | 15.8 % | 31.9 % |

So runs should be independent: a host that drifts from week to week has levels that are really there, and they are reported.
A trend is reported as steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..analysis.result import Estimate, Struct
from ..analysis.student_t import critical, half_width, tail

if TYPE_CHECKING:
    import numpy as np

WINDOW = 40  # Half of it on either side finds, in noise of 2 %, what MAGNITUDE_MIN calls a change.
STEP = WINDOW // 2
LOOKBACK = WINDOW // 2  # What a window sees of the runs before it.
SEGMENT_MIN = 4  # Runs on a level. Fewer are told from outliers by nothing but their neighbours.
SERIES_MIN = 2 * SEGMENT_MIN
P_WEAK = 0.01  # For a first split, as Otava does: one of two steps looks weak while the other is not yet known.
P_MAX = 0.001  # For a change that is reported: Otava's. A team that looks every night is called once in years by nothing.
MAGNITUDE_MIN = 0.02  # Smaller changes are real sometimes, and worth nobody's morning.
CONFIDENCE = 0.95
SAME = 1e-9  # Statistics nearer than this are the same number, computed in another order.


class Change(Struct, frozen=True):
    """The level is another one from run `index` on."""

    index: int
    before: Estimate  # the level of the runs before, as far as the window looks back
    after: Estimate
    change: Estimate  # ratio less one, 0.09 for +9 %; the difference where the series is not positive throughout
    relative: bool  # whether it is a ratio
    p: float  # of the t-test, two-sided, without the one run whose absence weakens it most
    final: bool  # no later run can change what is said here


def change_points(values: Sequence[float]) -> list[Change]:
    """The changes of a series in order of time. Positive values are compared by their ratios, others by differences."""
    import numpy as np

    relative = bool(values) and min(values) > 0
    series = np.log(values) if relative else np.asarray(values, np.float64)
    count, found, start = len(values), list[Change](), 0
    while start + WINDOW <= count:
        decided = changes_between(series, since(found, start), start + WINDOW, relative, final=True)
        found += [change for change in decided if change.index < start + STEP]
        start += STEP
    return found + changes_between(series, since(found, start), count, relative, final=False)


def since(found: list[Change], start: int) -> int:
    """Where a window that begins at `start` begins to look: not beyond the last change."""
    return max(found[-1].index if found else 0, start - LOOKBACK, 0)


def changes_between(series: np.ndarray, begin: int, end: int, relative: bool, final: bool) -> list[Change]:
    """The changes in series[begin:end]."""
    part = series[begin:end]
    cuts = without_weak(part, weak_cuts(part), relative)
    edges = [0, *cuts, len(part)]
    return [
        described(part[left:cut], part[cut:right], begin + cut, relative, final)
        for left, cut, right in zip(edges, cuts, edges[2:], strict=False)
    ]


def weak_cuts(part: np.ndarray) -> list[int]:
    """Where a stretch splits, and splits again, as long as the t-test laxly agrees."""
    if len(part) < SERIES_MIN:
        return []
    cut = best_cut(part)
    if p_value(part[:cut], part[cut:]) >= P_WEAK:
        return []
    return [*weak_cuts(part[:cut]), cut, *(cut + later for later in weak_cuts(part[cut:]))]


def without_weak(part: np.ndarray, cuts: list[int], relative: bool) -> list[int]:
    """The cuts that are left when the weakest has been taken back, again and again; its neighbours then see further."""
    cuts = list(cuts)
    while cuts:
        edges = [0, *cuts, len(part)]
        sides = [(part[a:b], part[b:c]) for a, b, c in zip(edges, cuts, edges[2:], strict=False)]
        ps = [p_value(left, right) for left, right in sides]
        sizes = [magnitude(left, right, relative) for left, right in sides]
        if max(ps) >= P_MAX:
            del cuts[ps.index(max(ps))]
        elif min(sizes) <= MAGNITUDE_MIN:
            del cuts[sizes.index(min(sizes))]
        else:
            break
    return cuts


def best_cut(part: np.ndarray) -> int:
    """Where the two sides are farthest apart by the energy statistic; of equals the first."""
    import numpy as np

    statistic = energy(part)
    return SEGMENT_MIN + int(np.argmax(statistic >= statistic.max() - SAME * abs(statistic.max())))


def energy(part: np.ndarray) -> np.ndarray:
    """Matteson and James' Q of every cut that leaves SEGMENT_MIN on either side: mn / (m + n) times

    twice the mean distance between the sides, less the mean distances within each.
    """
    import numpy as np

    count = len(part)
    distance = np.abs(part[:, None] - part[None, :])
    cut = np.arange(SEGMENT_MIN, count - SEGMENT_MIN + 1)
    within_left = np.cumsum(np.triu(distance).sum(axis=0))[cut - 1]
    within_right = np.cumsum(np.tril(distance).sum(axis=0)[::-1])[count - cut - 1]
    between = distance.sum() / 2 - within_left - within_right
    m, n = cut, count - cut
    apart = 2 * between / (m * n) - 2 * within_left / (m * (m - 1)) - 2 * within_right / (n * (n - 1))
    return m * n / count * apart


def p_value(left: np.ndarray, right: np.ndarray) -> float:
    """Two-sided p of Student's t-test with one run left out, whichever makes it greatest."""
    middle = (left.mean() + right.mean()) / 2
    left, right = left - middle, right - middle
    if right.mean() < left.mean():
        left, right = -left, -right
    t = min(least_t(left, right), least_t(-right, -left))
    return 2 * tail(t, len(left) + len(right) - 3) if t > 0 else 1.0


def least_t(left: np.ndarray, right: np.ndarray) -> float:
    """The least t of right over left when one value of the left is missing."""
    import numpy as np

    m, n = len(left), len(right)
    means = (left.sum() - left) / (m - 1)
    squares = squared(left) - (left - left.mean()) ** 2 * m / (m - 1) + squared(right)
    error = np.sqrt(np.maximum(squares, 0) / (m + n - 3) * (1 / (m - 1) + 1 / n))
    apart = right.mean() - means
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.min(np.where(error > 0, apart / error, np.where(apart > 0, math.inf, 0.0))))


def squared(values: np.ndarray) -> float:
    """Sum of squared deviations from the mean."""
    return float(((values - values.mean()) ** 2).sum())


def magnitude(left: np.ndarray, right: np.ndarray, relative: bool) -> float:
    """How large a change is, as a share of the larger level's size."""
    before, after = float(left.mean()), float(right.mean())
    if relative:
        return math.expm1(abs(after - before))
    larger = max(abs(before), abs(after))
    return abs(after - before) / larger if larger else 0.0


def described(left: np.ndarray, right: np.ndarray, index: int, relative: bool, final: bool) -> Change:
    """A change with its levels and intervals."""
    m, n = len(left), len(right)
    variance = (squared(left) + squared(right)) / (m + n - 2)
    half = critical((1 - CONFIDENCE) / 2, m + n - 2) * math.sqrt(variance * (1 / m + 1 / n))
    apart = float(right.mean() - left.mean())
    ends = (apart, apart - half, apart + half)
    value, low, high = (math.expm1(end) for end in ends) if relative else ends
    return Change(
        index=index, before=level(left, relative), after=level(right, relative),
        change=Estimate(value=value, low=low, high=high, confidence=CONFIDENCE, count=m + n),
        relative=relative, p=p_value(left, right), final=final,
    )  # fmt: skip


def level(values: np.ndarray, relative: bool) -> Estimate:
    """The mean of the runs on one level with Student's t interval; the geometric mean where ratios are compared."""
    count, mean = len(values), float(values.mean())
    half = half_width(math.sqrt(squared(values) / (count - 1)), count, CONFIDENCE)
    ends = (mean, mean - half, mean + half)
    value, low, high = (math.exp(end) for end in ends) if relative else ends
    return Estimate(value=value, low=low, high=high, confidence=CONFIDENCE, count=count)
