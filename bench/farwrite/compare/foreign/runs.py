"""Several runs of one tool as one result set, whose rounds are the runs.

Times, rates and sizes are compared as ratios, so their runs are averaged as logarithms: the geometric mean. A mean time
is then the inverse of the mean rate, halving and doubling cancel, and one slow run weighs less. Shares, counts and what
may be 0 are averaged as they are; of what is counted exactly the worst run counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec.structs import replace

from ...analysis.estimate import CONFIDENCE, ROUNDS_MIN, unknown
from ...analysis.figure import Figure, ResultSet
from ...analysis.result import Estimate
from ...analysis.student_t import half_width
from ...base.errors import UsageError
from ...base.reasons import Reason, about, few_runs, one_run, runs_missing
from .metrics import identifier

AS_RATIO = ("ns", "bytes", "per_s", "bytes_per_s")


def joined(result_sets: Sequence[ResultSet]) -> ResultSet:
    """One result set of all runs; UsageError when they are not runs of the same thing. One run is its own result set."""
    first = result_sets[0]
    for other in result_sets[1:]:
        check_alike(first, other)
    check_distinct(result_sets)
    if len(result_sets) == 1:
        return first
    found: dict[tuple, list[Figure | None]] = {}
    for index, result_set in enumerate(result_sets):
        for item in result_set.figures:
            key = (item.metric, *sorted(item.labels.items()))
            found.setdefault(key, [None] * len(result_sets))[index] = item
    return replace(
        first,
        source=", ".join(result_set.source for result_set in result_sets),
        id=identifier(" ".join(sorted(result_set.id for result_set in result_sets))),
        started_utc=min((result_set.started_utc for result_set in result_sets if result_set.started_utc), default=""),
        figures=[over_runs(items, result_sets) for items in found.values()],
        warnings=list(dict.fromkeys(warning for result_set in result_sets for warning in result_set.warnings)),
    )


def check_alike(first: ResultSet, other: ResultSet) -> None:
    """That two files are runs of the same thing."""
    sides = [("tool", first.kind, other.kind)]
    for field in {**first.identity, **other.identity}:
        sides.append((field, first.identity.get(field, "nothing"), other.identity.get(field, "nothing")))
    for field, one, two in sides:
        if one != two:
            raise UsageError(
                f"{first.source} and {other.source} are not runs of the same thing: {field} is {one} in the one and {two} "
                "in the other. Import them one by one and compare the result sets."
            )


def check_distinct(result_sets: Sequence[ResultSet]) -> None:
    """That no run is given twice: it would make the others look repeatable."""
    seen: dict[str, str] = {}
    for result_set in result_sets:
        if result_set.id in seen:
            raise UsageError(f"{seen[result_set.id]} and {result_set.source} are the same run: give each run once.")
        seen[result_set.id] = result_set.source


def over_runs(items: Sequence[Figure | None], result_sets: Sequence[ResultSet]) -> Figure:
    """One figure of all runs; None where a run lacks it."""
    known = [item for item in items if item is not None]
    values = [item.estimate.value if item else None for item in items]
    warnings = list(dict.fromkeys(one for item in known for one in item.estimate.warnings if one.code != one_run.name))
    missing = values.count(None)
    if missing:
        warnings.append(runs_missing(len(values) - missing, len(values)))
    withheld = [about(one.source, why) for item, one in zip(items, result_sets, strict=True) if item for why in item.withheld]
    item = known[0]
    estimate = worst(values, warnings) if item.exact else mean_over_runs(values, item.unit in AS_RATIO, warnings)
    return replace(item, estimate=estimate, withheld=withheld)


def worst(values: Sequence[float | None], warnings: list[Reason]) -> Estimate:
    """The greatest of exact counts."""
    greatest = max(value for value in values if value is not None)
    return Estimate(
        value=greatest, low=greatest, high=greatest, confidence=1.0, count=len(values) - values.count(None), warnings=warnings
    )


def mean_over_runs(values: Sequence[float | None], as_ratio: bool, warnings: list[Reason]) -> Estimate:
    """The mean of one value a run with Student's t interval, and with each run left out."""
    known = [value for value in values if value is not None]
    if not known:
        return unknown(*warnings)
    as_ratio = as_ratio and min(known) > 0
    scaled = [None if value is None else math.log(value) if as_ratio else value for value in values]
    back = exponential if as_ratio else float
    numbers = [value for value in scaled if value is not None]
    count = len(numbers)
    mean = math.fsum(numbers) / count
    if count < 2:
        return Estimate(value=back(mean), count=count, warnings=[*warnings, one_run()])
    variance = math.fsum((value - mean) ** 2 for value in numbers) / (count - 1)
    half = half_width(math.sqrt(variance), count, CONFIDENCE)
    least = 0.0 if min(known) >= 0 else -math.inf
    return Estimate(
        value=back(mean), low=max(back(mean - half), least), high=back(mean + half), confidence=CONFIDENCE, count=count,
        warnings=[*warnings, *([few_runs(count)] if count < ROUNDS_MIN else [])],
        without=[None if value is None else back((count * mean - value) / (count - 1)) for value in scaled],
    )  # fmt: skip


def exponential(value: float) -> float:
    """e to the power of a value, and a finite number even where two runs have nothing in common."""
    return math.exp(min(value, 700.0))
