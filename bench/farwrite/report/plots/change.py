"""Two reports: the change of each figure with its interval, as a forest plot, one metric at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...analysis.change import Comparison, Row
from ...analysis.figure import METRICS, Unit, label_text
from ...analysis.result import Estimate
from ...base.units import NS_PER_MS
from ..comparison import errors_from, of_two_runs
from .plot import Choice, Option, Plot, estimate_text, layout_of, plain

VERDICTS = {
    "slower": ("--bad", "triangle-right"), "worse": ("--bad", "triangle-right"),
    "faster": ("--good", "triangle-left"), "better": ("--good", "triangle-left"),
    "higher": ("--claim", "diamond"), "lower": ("--claim", "diamond"),
    "differs": ("--claim", "square"), "same": ("--ink", "circle"), "alike": ("--ink", "circle-dot"),
    "unresolved": ("--dim", "circle-open"),
}  # fmt: skip
SCALES: dict[Unit, tuple[float, str]] = {
    "ns": (NS_PER_MS, "ms"), "bytes": (1024.0, "KiB"), "per_s": (1.0, "/s"), "bytes_per_s": (1e6, "MB/s"),
    "ratio": (1.0, ""), "count": (1.0, ""), "miles": (1.0, "miles"), "": (1.0, ""),
}  # fmt: skip
HEIGHT, ROW_HEIGHT = 130, 28  # Pixels: the axis and the legend, and each row.


def scale_of(row: Row) -> tuple[float, str]:
    """(base units per unit shown, its name) of a row's change."""
    return (0.01, "%") if row.relative else SCALES[row.unit]


def change_plot(comparison: Comparison) -> Plot:
    """The forest."""
    metrics = list(dict.fromkeys(row.metric for row in sorted(comparison.rows, key=order)))
    data: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    for metric in metrics:
        rows = [row for row in comparison.rows if row.metric == metric][::-1]
        data += forest(rows, metric)
        marks += lines(rows, metric)
    options = [Option(metric, words_of(metric), index == 0) for index, metric in enumerate(metrics)]
    return Plot(
        id="change",
        title="What changed, from the first report to the second",
        caption=caption(comparison),
        note=f"The mark is the change and the bar its interval; the band is the margin within which a change matters to nobody. "
        f"Errors come from {errors_from(comparison)}; the noise floor comes from {comparison.floor_from}. A change "
        f"counts when chance is ruled out over all rows together (Holm, alpha {comparison.alpha:g}) and it exceeds the noise "
        f"floor; a hollow mark is unresolved. {' '.join(of_two_runs(comparison))}".rstrip(),
        data=data,
        layout=layout_of({"title": {"text": "change"}, "zeroline": True}, {"type": "category"},
                         height=HEIGHT),
        choices=[
            Choice("metric", "Metric", False, options),
            Choice("verdict", "Verdicts", True, [
                Option(v, v, True) for v in VERDICTS if any(row.verdict == v for row in comparison.rows)
            ]),
        ],
        marks=marks,
    )  # fmt: skip


def order(row: Row) -> int:
    """Metrics in the order in which they are listed everywhere."""
    names = list(METRICS)
    return names.index(row.metric) if row.metric in names else len(names)


def words_of(metric: str) -> str:
    """A metric with its meaning."""
    return f"{metric}: {METRICS[metric].meaning}" if metric in METRICS else metric


def place_of(row: Row) -> str:
    """What a row is of, in words."""
    return plain(", ".join(label_text(key, value) for key, value in row.labels.items()))


def forest(rows: Sequence[Row], metric: str) -> list[dict[str, Any]]:
    """The rows of a metric, one trace a verdict; an unknown change is a question mark at 0."""
    traces: list[dict[str, Any]] = []
    for verdict, (colour, symbol) in VERDICTS.items():
        mine = [row for row in rows if row.verdict == verdict]
        if not mine:
            continue
        scale, _ = scale_of(mine[0])
        known = [row.change.value is not None for row in mine]
        reach = [row.change for row in mine]
        traces.append({
            "type": "scatter", "mode": "markers+text", "name": verdict, "meta": {"metric": metric, "verdict": verdict},
            "y": [place_of(row) for row in mine],
            "x": [round((row.change.value or 0.0) / scale, 4) for row in mine],
            "error_x": {
                "type": "data", "symmetric": False, "color": colour, "thickness": 1.6, "width": 5,
                "array": [side(change, change.high, scale) for change in reach],
                "arrayminus": [side(change, change.low, scale) for change in reach],
            },
            "marker": {"color": colour, "size": [10 if there else 0 for there in known], "symbol": symbol,
                       "line": {"width": 1.5, "color": colour}},
            "text": ["" if there else "?" for there in known], "textfont": {"size": 15, "color": colour},
            "hovertext": [words(row) for row in mine], "hoverinfo": "text",
        })  # fmt: skip
    return traces


def side(change: Estimate, end: float | None, scale: float) -> float:
    """How far an end is from the value; 0 where there is none."""
    return 0.0 if end is None or change.value is None else round(abs(end - change.value) / scale, 4)


def words(row: Row) -> str:
    """A row in words."""
    scale, unit = scale_of(row)
    value_scale, value_unit = SCALES[row.unit]
    return "<br>".join([
        f"<b>{plain(row.name)}</b>",
        f"{row.verdict}: {plain(row.sentence)}",
        f"change {estimate_text(row.change, scale, unit)}",
        f"first {estimate_text(row.base, value_scale, value_unit)}",
        f"second {estimate_text(row.cand, value_scale, value_unit)}",
        f"noise floor {row.floor / scale:.3g} {unit}" if row.floor is not None else "no noise floor",
    ])  # fmt: skip


def lines(rows: Sequence[Row], metric: str) -> list[dict[str, Any]]:
    """The margin as a band around no change, and the axis in the metric's own unit."""
    scale, unit = scale_of(rows[0])
    margin = rows[0].margin / scale
    better = METRICS[metric].better if metric in METRICS else ""
    title = f"change, {unit}" if unit else "change"
    title += {"less": "   (left is better)", "more": "   (right is better)", "": ""}[better]
    found: list[dict[str, Any]] = [
        {"meta": {"metric": metric}, "layout": {
            "height": HEIGHT + ROW_HEIGHT * len(rows), "xaxis": {"title": {"text": title}},
            "yaxis": {"categoryorder": "array", "categoryarray": [place_of(row) for row in rows]},
        }}
    ]  # fmt: skip
    if not rows[0].exact:
        found.append({"meta": {"metric": metric}, "shape": {
            "type": "rect", "yref": "paper", "y0": 0, "y1": 1, "x0": -margin, "x1": margin, "layer": "below",
            "fillcolor": "--dim/0.12", "line": {"width": 0},
        }})  # fmt: skip
    return found


def caption(comparison: Comparison) -> str:
    """How many rows were judged how."""
    counts = {verdict: sum(row.verdict == verdict for row in comparison.rows) for verdict in VERDICTS}
    words = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return f"Of {len(comparison.rows)} figures that both reports have: {words}."
