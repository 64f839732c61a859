"""How the response times of each cell are spread: a violin a cell, latency upwards on a log axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...analysis.sample import Sample
from ..tables import miles_text, rank, workload_of
from .plot import (
    Plot,
    choose_protocols,
    choose_workload,
    estimate_text,
    layout_of,
    log_axis,
    look_of,
    ms,
    place_words,
    protocol_words,
    short,
    workload_keys,
)
from .rounds_for_plot import RoundsForPlot, values_ns

BINS_MAX = 72
BIN_LOG_MIN = 0.002  # Two slots of a histogram: finer bins would show its slots.
SMOOTHING = (0.25, 0.5, 0.25)


def density(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """(response times in ns, how common they are with 1 for the most common), over equal steps of the logarithm."""
    logs = np.log(np.maximum(values_ns(sample), 1.0))
    bins = min(BINS_MAX, max(1, math.ceil((logs[-1] - logs[0]) / BIN_LOG_MIN)))
    step = max((logs[-1] - logs[0]) / bins, BIN_LOG_MIN)
    place = np.minimum(((logs - logs[0]) / step).astype(np.int64), bins - 1)
    counts = np.bincount(place, weights=sample.counts, minlength=bins)
    smooth = np.convolve(np.pad(counts, 1), SMOOTHING, mode="same")
    return np.exp(logs[0] + (np.arange(-1, bins + 1) + 0.5) * step), smooth / smooth.max()


def density_plot(cells: Sequence[RoundsForPlot]) -> Plot:
    """Distances side by side, protocols side by side within them."""
    results = [item.result for item in cells]
    keys = workload_keys(results)
    data: list[dict[str, Any]] = []
    ticks: dict[str, list[float]] = {}
    for workload, key in keys.items():
        group = [item for item in cells if workload_of(item.result) == workload]
        all_miles = ticks[key] = sorted({item.result.miles for item in group})
        protocols = sorted({item.result.protocol for item in group}, key=rank)
        for item in sorted(group, key=lambda item: (rank(item.result.protocol), item.result.miles)):
            if item.response.count:
                share = 0.9 / len(protocols)
                beside = (protocols.index(item.result.protocol) - (len(protocols) - 1) / 2) * share
                data += violin(item, all_miles.index(item.result.miles) + beside, 0.46 * share, key)
    return Plot(
        id="density",
        title="How response times are spread",
        caption=f"The spread of the response times of {sum(bool(item.response.count) for item in cells)} cells, without their "
        "warm-up; the tables hold their p50, p99 and p99.9.",
        note="The wider, the more writes took that long; each shape is as wide as its own commonest time. The dot is p50 and "
        "the dash p99, with their intervals when pointed at. A shape reaches from the fastest write to the slowest.",
        data=data,
        layout=layout_of(
            {"title": {"text": "miles"}, "showgrid": False, "zeroline": False},
            log_axis("response time, ms"),
            height=500,
        ),
        choices=[choose_workload(results), choose_protocols(results)],
        marks=[
            {"meta": {"workload": key},
             "layout": {"xaxis": {"tickvals": list(range(len(miles))), "ticktext": [miles_text(m) for m in miles]}}}
            for key, miles in ticks.items()
        ],
    )  # fmt: skip


def violin(item: RoundsForPlot, middle: float, half: float, key: str) -> list[dict[str, Any]]:
    """The shape of one cell, and its median and p99."""
    c, look = item.result, look_of(item.result.protocol)
    times_ns, wide = density(item.response)
    times = [ms(ns) for ns in times_ns.tolist()]
    right, left = short(middle + half * wide), short(middle - half * wide)
    meta = {"workload": key, "protocol": c.protocol}
    known = [(name, e, s) for name, e, s in (
        ("p50", c.response_ns_p50, "circle"), ("p99", c.response_ns_p99, "line-ew-open"),
    ) if e.value is not None]  # fmt: skip
    return [
        {
            "type": "scatter", "mode": "lines", "fill": "toself", "name": protocol_words(c.protocol),
            "legendgroup": c.protocol, "meta": meta, "x": right + left[::-1], "y": times + times[::-1],
            "line": {"color": look.colour, "width": 1}, "fillcolor": f"{look.colour}/0.35", "hoverinfo": "skip",
        },
        {
            "type": "scatter", "mode": "markers", "showlegend": False, "legendgroup": c.protocol, "meta": meta,
            "name": place_words(c), "x": [round(middle, 4)] * len(known), "y": [ms(e.value or 0) for _, e, _ in known],
            "marker": {"color": "--ink", "size": [6, 12][: len(known)], "symbol": [s for *_, s in known],
                       "line": {"width": 2, "color": "--ink"}},
            "hovertext": [f"{place_words(c)}<br>{name} {estimate_text(e)}" for name, e, _ in known], "hoverinfo": "text",
        },
    ]  # fmt: skip
