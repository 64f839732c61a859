"""Figures and result sets made up by hand: a value from its rounds, so that its error can be worked out on paper.

Relative figures are geometric means of their rounds and the others arithmetic ones; the jackknife of a mean is its textbook
standard error, s / sqrt(n).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from farwrite.analysis.between_runs import EarlierRuns, RunHistory
from farwrite.analysis.change import MARGINS, Spread, key_of
from farwrite.analysis.figure import METRICS, Figure, Label, ResultSet
from farwrite.analysis.result import Estimate
from farwrite.base.reasons import Reason, remark
from farwrite.recording import Pairing

CELL: dict[str, Label] = {"name": "write", "protocol": "C", "miles": 20.0, "queue_depth": 1}


def measured(metric: str, rounds: Sequence[float], labels: dict[str, Label] | None = None, **fields) -> Figure:
    """A figure of these rounds."""
    if metric in MARGINS:
        mean = fmean
    else:
        def mean(values):
            return math.exp(fmean(map(math.log, values)))
    without = [mean([*rounds[:index], *rounds[index + 1 :]]) for index in range(len(rounds))] if len(rounds) > 1 else []
    return figure(metric, mean(rounds), labels, count=1000, without=without, **fields)


def figure(metric: str, value: float | None, labels: dict[str, Label] | None = None, withheld=(), **estimate) -> Figure:
    """A figure of this value."""
    known = METRICS[metric]
    estimate["warnings"] = as_reasons(estimate.get("warnings", ()))
    return Figure(
        metric=metric, labels=CELL if labels is None else labels, unit=known.unit, better=known.better, exact=known.exact,
        estimate=Estimate(value=value, **estimate), withheld=as_reasons(withheld),
    )  # fmt: skip


def as_reasons(items: Iterable[Reason | str]) -> list[Reason]:
    """Reasons; a text is one that decides nothing by its code."""
    return [remark(item) if isinstance(item, str) else item for item in items]


def at(miles: float, **other: Label) -> dict[str, Label]:
    """The labels of the cell at another distance, or with other labels."""
    return {**CELL, "miles": miles, **other}


def result_set(
    *figures: Figure, arm: str = "", host: str = "a host", interrupted: bool = False, source: str = "made-up"
) -> ResultSet:
    """A report of these figures; `arm` makes it one of an A/B experiment."""
    return ResultSet(
        kind="farwrite", source=source, id="1", started_utc="2026-01-02T03:04:05+00:00",
        identity={"host": host, "link": "netem"}, figures=list(figures), interrupted=interrupted,
        pairing=Pairing(id="one experiment", arm=arm, what=arm) if arm else None,
    )  # fmt: skip


def hours_alike(*figures: Figure, runs: int = 9) -> RunHistory:
    """Earlier runs that did not differ at all from one to the next: what two runs then differ by, their rounds explain."""
    levels = {key_of(item): [Spread(0.0, 0.0, 4.0)] * runs for item in figures}
    return RunHistory(EarlierRuns(results="results", runs=runs), levels)
