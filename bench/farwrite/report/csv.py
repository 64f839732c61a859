"""Figures as CSV, for spreadsheets and data frames: a row each, numbers in base units and unrounded, none where it is unknown.

RFC 4180, but for line ends, which are those of every other text here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..analysis.change import Row
from ..analysis.figure import Figure, Label
from ..analysis.result import Estimate
from ..base.reasons import joined

ENDS = ("", "_low", "_high")


def figures_csv(figures: Sequence[Figure]) -> str:
    """Every figure of a report or of another tool's results: metric, labels, unit, value, interval, and why it is unknown."""
    labels = labels_of(figure.labels for figure in figures)
    columns = ["metric", *labels, "unit", "value", "low", "high", "confidence", "count", "unknown_because", "no_verdict_because"]
    rows = (
        {
            "metric": figure.metric, **figure.labels, "unit": figure.unit, **ends_of("value", figure.estimate, bare=True),
            "confidence": figure.estimate.confidence, "count": figure.estimate.count,
            "unknown_because": "" if figure.estimate.value is not None else joined(figure.estimate.warnings),
            "no_verdict_because": joined(figure.doubts),
        }
        for figure in figures
    )  # fmt: skip
    return written(columns, rows)


def rows_csv(rows: Sequence[Row]) -> str:
    """Every row of a comparison: both sides and the change, each with its interval, and the verdict."""
    sides = [f"{side}{end}" for side in ("base", "cand", "change") for end in ENDS]
    labels = labels_of(row.labels for row in rows)
    columns = ["metric", *labels, "unit", *sides, "relative", "p", "floor", "margin", "verdict", "sentence"]
    return written(
        columns,
        (
            {
                "metric": row.metric, **row.labels, "unit": row.unit, **ends_of("base", row.base), **ends_of("cand", row.cand),
                **ends_of("change", row.change), "relative": "yes" if row.relative else "no", "p": row.p, "floor": row.floor,
                "margin": row.margin, "verdict": row.verdict, "sentence": row.sentence,
            }
            for row in rows
        ),
    )  # fmt: skip


def labels_of(every: Iterable[Mapping[str, Label]]) -> list[str]:
    """The names of all labels, in the order they come in."""
    return list(dict.fromkeys(name for labels in every for name in labels))


def ends_of(name: str, estimate: Estimate, bare: bool = False) -> dict[str, float | None]:
    """A value and its interval; `bare`: whose columns are called low and high."""
    values = estimate.value, estimate.low, estimate.high
    names = [name, "low", "high"] if bare else [f"{name}{end}" for end in ENDS]
    return dict(zip(names, values, strict=True))


def written(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows with their heading."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    return text.getvalue()
