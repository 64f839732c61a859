"""The percentile spectrum of each cell: latency against 1 / (1 - q), as far as the sample can support a quantile.

After the plots of HdrHistogram (Tene). A line ends where its cell has too few writes for the next quantile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...analysis.estimate import count_needed, label
from ...analysis.sample import Sample
from ..tables import miles_text, rank, workload_of
from .plot import (
    Choice,
    Option,
    Plot,
    choose_miles,
    choose_protocols,
    choose_workload,
    layout_of,
    log_axis,
    look_of,
    ms,
    place_words,
    plain,
    short,
    workload_keys,
)
from .rounds_for_plot import RoundsForPlot, values_ns

POINTS_PER_DECADE = 16
LEAST_Q = 0.1  # Below it every line is flat.
LABEL_WIDE, LABEL_HIGH = 0.18, 0.045  # Of a line's name, in decades of either axis.
LINES_MAX = 24  # More cells begin with the strictest protocol alone: a bundle of lines says nothing.
RAMP = 8  # Colours from near to far in the page's palette: "--ramp-0" to "--ramp-7".


def spectrum(sample: Sample) -> tuple[list[float], list[float]]:
    """(quantiles, response times in ns) up to the last quantile whose interval the sample can support."""
    count = sample.count
    if not count:
        return [], []
    inverse = 10.0 ** (np.arange(8 * POINTS_PER_DECADE) / POINTS_PER_DECADE)
    every = sorted({0.5, 0.75, *(1 - 1 / inverse).round(9)} - {1.0})
    quantiles = [q for q in every if q >= LEAST_Q and count_needed(q) <= count]
    cumulative = np.cumsum(sample.counts)
    ranks = np.clip(np.ceil(np.array(quantiles) * count - 1e-9 * count), 1, count)
    return [float(q) for q in quantiles], values_ns(sample)[np.searchsorted(cumulative, ranks)].tolist()


def colour_of(miles: float, all_miles: Sequence[float]) -> str:
    """From near to far along the palette's ramp."""
    place = all_miles.index(miles) / max(len(all_miles) - 1, 1)
    return f"--ramp-{round(place * (RAMP - 1))}"


def spectrum_plot(cells: Sequence[RoundsForPlot]) -> Plot:
    """One line a cell: its colour is the distance, its dashes are the protocol."""
    results = [item.result for item in cells]
    keys = workload_keys(results)
    all_miles = sorted({c.miles for c in results})
    drawn = [(item, *spectrum(item.response)) for item in sorted(cells, key=lambda s: (rank(s.result.protocol), s.result.miles))]
    data = [line(item, q, ns, keys, all_miles) for item, q, ns in drawn if q]
    label_ends(data)
    best = max((q[-1] for _, q, _ in drawn if q), default=0.0)
    nines = [1 - 10.0**-power for power in range(1, 8)]
    ticks = [0.5] + [q for q in nines if q <= max(best, 0.9) + 1e-9]
    return Plot(
        id="spectrum",
        title="Percentile spectrum",
        caption=f"Each cell's response times from p10 to as far as its writes reach; the farthest is {label(round(best, 5))}."
        if data else "No cell has enough writes for a quantile.",
        note="Latency against 1 / (1 - q): every step to the right is ten times rarer. Colour is the distance, written at the "
        "line's end; dashes are the protocol. A line ends where its cell has too few writes to put an interval around the next "
        "quantile.",
        data=data,
        layout=layout_of(
            {"title": {"text": "quantile"}, "type": "log", "tickvals": [round(1 / (1 - q), 4) for q in ticks],
             "ticktext": [label(round(q, 9)) for q in ticks]},
            log_axis("response time, ms"),
            height=520,
        ),
        choices=[
            choose_workload(results), choose_protocols(results, len(results) > LINES_MAX), choose_miles(results),
            Choice("layout.yaxis.type", "Scale", False, [Option("log", "log", True), Option("linear", "linear", False)]),
        ],
    )  # fmt: skip


def line(
    item: RoundsForPlot, quantiles: list[float], times_ns: list[float], keys: dict[tuple, str], all_miles: Sequence[float]
) -> dict[str, Any]:
    """One cell."""
    c = item.result
    colour = colour_of(c.miles, all_miles)
    needed = f"{item.response.count} writes support up to {label(float(f'{quantiles[-1]:.5f}'))}"
    return {
        "type": "scatter", "mode": "lines+text", "name": f"{plain(c.protocol)} {miles_text(c.miles)} mi",
        "meta": {"workload": keys[workload_of(c)], "protocol": c.protocol, "miles": miles_text(c.miles)},
        "x": short(1 / (1 - q) for q in quantiles), "y": [ms(ns) for ns in times_ns],
        "line": {"color": colour, "width": 2, "dash": look_of(c.protocol).dash},
        "textposition": "middle right", "textfont": {"color": colour, "size": 11}, "cliponaxis": False,
        "hovertext": [
            f"{place_words(c)}<br>{label(float(f'{q:.5f}'))} {ms(ns):.4g} ms<br>{needed}"
            for q, ns in zip(quantiles, times_ns, strict=True)
        ],
        "hoverinfo": "text",
    }  # fmt: skip


def label_ends(data: Sequence[dict[str, Any]]) -> None:
    """Each line's name at its end, where no other name of its workload stands already."""
    taken: list[tuple[str, float, float]] = []
    for trace in sorted(data, key=lambda trace: -trace["y"][-1]):
        workload, x, y = trace["meta"]["workload"], math.log10(trace["x"][-1]), math.log10(trace["y"][-1])
        free = all(w != workload or abs(x - u) > LABEL_WIDE or abs(y - v) > LABEL_HIGH for w, u, v in taken)
        trace["text"] = [""] * (len(trace["x"]) - 1) + ([" " + trace["name"].removesuffix(" mi")] if free else [])
        if free:
            taken.append((workload, x, y))
