"""Latency over time: a heat map of each cell, its rounds side by side and cut into slices by intended instant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...analysis.sample import MIDDLES_NS, Sample
from ...base.units import NS_PER_MS
from ..tables import miles_text
from .plot import Choice, Option, Plot, layout_of, log_axis, plain, short
from .rounds_for_plot import RoundsForPlot

BINS = 44
GAP = 0.05  # Of a round's width: rounds were not measured one right after the other.
LOG_MIDDLES = np.log(np.maximum(MIDDLES_NS, 1))
COLOURS = [[index / 5, f"--heat-{index}"] for index in range(6)]
SHARE_LEAST_LOG = -1.0  # 0.1 % of a slice; rarer is as pale.


def over_time_plot(cells: Sequence[RoundsForPlot]) -> Plot:
    """One heat map a cell; the reader chooses which."""
    kept = [item for item in cells if item.response.count]
    if not kept:
        return Plot("over-time", "Latency over time", "No write completed: there is nothing to draw.", "", [], layout_of({}, {}))
    first = max(range(len(kept)), key=lambda index: (kept[index].result.protocol == "C", kept[index].result.miles == 20))
    options = [Option(item.result.cell, title(item), index == first) for index, item in enumerate(kept)]
    return Plot(
        id="over-time",
        title="Latency over time",
        caption=f"For each of {len(kept)} cells: which share of the writes of each slice of each round took how long.",
        note="Time runs to the right: the good rounds of a cell in order, each cut into slices by intended instant; warm-up is "
        "included here and left out of every number. Colour is the share of a slice's writes, darker (in the dark theme: "
        "brighter) for more, on a log scale. A level band is a steady cell.",
        data=[heat(item) for item in kept],
        layout=layout_of(
            {"title": {"text": "round"}, "showgrid": False, "zeroline": False},
            log_axis("response time, ms"),
            height=480,
        ),
        choices=[Choice("cell", "Cell", False, options)],
        marks=[
            {"meta": {"cell": item.result.cell},
             "layout": {"xaxis": {"tickvals": [index + 0.5 for index in range(len(item.rounds))],
                                  "ticktext": [str(r.index + 1) for r in item.rounds]}}}
            for item in kept
        ],
    )  # fmt: skip


def title(item: RoundsForPlot) -> str:
    """A cell as the list names it."""
    c = item.result
    return f"{c.name}, {c.protocol}, {miles_text(c.miles)} miles, depth {c.queue_depth}"


def heat(item: RoundsForPlot) -> dict[str, Any]:
    """Shares by latency (rows) and slice (columns); a column of nothing between rounds."""
    edges = latency_edges(item)
    sides, columns, wide = [0.0], [], 0
    for number, (round_, slices) in enumerate(zip(item.rounds, item.slices, strict=True)):
        end_ns = max((part.begin_ns + part.duration_ns for part in round_.slices), default=1) or 1
        for part, sample in zip(round_.slices, slices, strict=True):
            columns.append((wide, sample))
            sides.append(number + (1 - GAP) * (part.begin_ns + part.duration_ns) / end_ns)
            wide += 1
        sides.append(number + 1.0)
        wide += 1
    shares = shares_of(columns, edges, wide)
    with np.errstate(divide="ignore", invalid="ignore"):  # A share of nothing becomes NaN, which JSON writes as null.
        logs = np.log10(shares)
        tens = 10.0 ** (2 - np.floor(logs))
        rounded = np.round(shares * tens) / tens
    return {
        "type": "heatmap", "name": plain(title(item)), "meta": {"cell": item.result.cell},
        "x": short(sides), "y": short(np.exp(edges) / NS_PER_MS),
        "z": np.where(shares > 0, np.maximum(logs, SHARE_LEAST_LOG).round(2), np.nan).tolist(), "customdata": rounded.tolist(),
        "zmin": SHARE_LEAST_LOG, "zmax": 2, "colorscale": COLOURS, "hoverongaps": False,
        "colorbar": {"title": {"text": "% of the<br>slice"}, "tickvals": [-1, 0, 1, 2],
                     "ticktext": ["0.1", "1", "10", "100"], "thickness": 12, "outlinewidth": 0, "len": 0.9},
        "hovertemplate": "%{customdata} % of the slice's writes<br>took about %{y:.3g} ms, %{x:.2f} rounds in<extra></extra>",
    }  # fmt: skip


def shares_of(columns: Sequence[tuple[int, Sample]], edges: np.ndarray, wide: int) -> np.ndarray:
    """float64 of BINS rows: the percentage of each column's writes that took as long as the row says."""
    rows = np.searchsorted(edges, LOG_MIDDLES[np.concatenate([sample.slot for _, sample in columns])]) - 1
    place = np.repeat([column for column, _ in columns], [sample.slot.size for _, sample in columns])
    counts = np.bincount(
        rows * wide + place, np.concatenate([sample.counts for _, sample in columns]), BINS * wide
    ).reshape(BINS, wide)  # fmt: skip
    return 100 * counts / np.maximum(counts.sum(axis=0), 1)


def latency_edges(item: RoundsForPlot) -> np.ndarray:
    """float64, the logarithms of the edges of the rows, over all that the cell recorded."""
    some = [sample.slot for slices in item.slices for sample in slices if sample.slot.size]
    low, high = LOG_MIDDLES[min(slot[0] for slot in some)], LOG_MIDDLES[max(slot[-1] for slot in some)]
    return np.linspace(low - 1e-3, max(high, low + 0.05) + 1e-3, BINS + 1)
