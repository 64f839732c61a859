"""Where the time goes: the median write of each cell, cut into what it waits for.

The cuts come from bare measurements of the same lab, not from inside the writes: medians are put together as
`analysis/floor.py` does, so the flushes and the link together are exactly the floor, and what is left is the engine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...analysis.floor import record_bytes
from ...base.reasons import joined
from ...base.units import format_time
from ...recording import FlushFloors, Recording, waited_for
from ..tables import miles_text, rank, workload_of
from .plot import (
    Plot,
    choose_protocols,
    choose_workload,
    estimate_text,
    layout_of,
    ms,
    place_words,
    plain,
    workload_keys,
)
from .rounds_for_plot import RoundsForPlot, pooled_of


class Parts(NamedTuple):
    """What the median write of a cell waits for, in ns."""

    wait_ns: float
    near_ns: float  # local flush, as far as it is not hidden behind the link
    link_ns: float
    far_ns: float
    engine_ns: float  # what is left; never negative
    clipped_ns: float  # by how much the parts exceed the write, where they do


HEIGHT, ROW_HEIGHT = 150, 26  # Pixels: the axis and the legend, and each bar.

NAMES = {
    "wait_ns": ("wait for issue", "--wait", "."),
    "link_ns": ("link", "--link", ""),
    "far_ns": ("far flush", "--far", "/"),
    "near_ns": ("local flush", "--near", "\\"),
    "engine_ns": ("engine (remainder)", "--engine", "x"),
}


def parts_of(item: RoundsForPlot, recording: Recording) -> Parts | str:
    """The parts of a cell, or why they cannot be told."""
    response_ns = item.result.response_ns_p50.value
    if response_ns is None:
        return joined(item.result.response_ns_p50.warnings) or "no median"
    near_ns, link_ns, far_ns = bare_ns(item, recording)
    wait_ns = pooled_of(round_.wait for round_ in item.rounds).quantile(0.5)
    if math.isnan(near_ns + link_ns + far_ns):
        return "a part of the floor was not measured"
    wait_ns = 0.0 if math.isnan(wait_ns) else wait_ns
    hidden_ns = min(near_ns, link_ns + far_ns)  # A write is sent before it is flushed here: the longer of both counts.
    left_ns = response_ns - wait_ns - (near_ns - hidden_ns) - link_ns - far_ns
    return Parts(wait_ns, near_ns - hidden_ns, link_ns, far_ns, max(left_ns, 0.0), max(-left_ns, 0.0))


def bare_ns(item: RoundsForPlot, recording: Recording) -> tuple[float, float, float]:
    """(local flush, link, far flush) at the median, chosen as the cell's floor chooses them; NaN when not measured."""
    c = item.result
    flushes = nearest(recording.floors, c.size_bytes)
    near_ns = pooled_of(floor.near_alone for floor in flushes).quantile(0.5)
    if c.protocol in ("local", "A"):
        return near_ns, 0.0, 0.0
    cell = next(cell for cell in recording.cells if cell.id == c.cell)
    links = [waited_for(cell, round_) for round_ in item.rounds]
    link_ns = pooled_of(link.echo_floor for link in links).quantile(0.5)
    if c.protocol == "B":
        return near_ns, link_ns, 0.0
    rtt_ns = pooled_of(text for link in links for text in (link.survey_before, link.survey_after)).quantile(0.5)
    if c.protocol == "C2":  # The trip for leave comes before the one that is measured with the write's sizes.
        link_ns += rtt_ns
    if recording.lab.shared_disk and rtt_ns / 2 < near_ns:  # The two flushes overlap there and slow each other down.
        near_ns = pooled_of(floor.near_both for floor in flushes).quantile(0.5)
        return near_ns, link_ns, pooled_of(floor.far_both for floor in flushes).quantile(0.5)
    flushed_ns = pooled_of(link.flushed_echo_floor for link in links).quantile(0.5)
    if c.protocol == "C2":
        flushed_ns += rtt_ns
    if not math.isnan(flushed_ns):
        return near_ns, min(link_ns, flushed_ns), max(flushed_ns - link_ns, 0.0)
    return near_ns, link_ns, pooled_of(floor.far_alone for floor in flushes).quantile(0.5)


def nearest(floors: Sequence[FlushFloors], size_bytes: int) -> list[FlushFloors]:
    """The bare flushes of the size nearest to a write's record."""
    wanted = record_bytes(size_bytes)
    size = min((floor.size_bytes for floor in floors), key=lambda size: abs(size - wanted), default=0)
    return [floor for floor in floors if floor.size_bytes == size]


def parts_plot(cells: Sequence[RoundsForPlot], recording: Recording) -> Plot:
    """Stacked bars, one a cell, and the measured median as a mark."""
    results = [item.result for item in cells]
    keys = workload_keys(results)
    ordered = sorted(cells, key=lambda item: (-item.result.miles, -rank(item.result.protocol)))
    parts_by_cell = [(item, found) for item in ordered if isinstance(found := parts_of(item, recording), Parts)]
    data: list[dict[str, Any]] = []
    for key in keys.values():
        for protocol in sorted({c.protocol for c in results}, key=rank):
            mine = [
                (item, found) for item, found in parts_by_cell
                if keys[workload_of(item.result)] == key and item.result.protocol == protocol
            ]  # fmt: skip
            if mine:
                data += stacked(mine, {"workload": key, "protocol": protocol})
    clipped = sum(found.clipped_ns > 0 for _, found in parts_by_cell)
    return Plot(
        id="parts",
        title="Where the time goes, at the median",
        caption=caption(parts_by_cell),
        note="Wait: the median of issued less intended. Link: a bare echo of the write's sizes. Far flush (protocol C): how much "
        "longer the same echo takes with a bare flush before its answer, or, where both sites' flushes meet on one disk, a bare "
        "flush of both at once. Local flush: a bare flush here, as far as it outlasts link and far flush, for a write is sent "
        "before it is flushed. Engine: what is left of the median response; with a queue it holds the waiting for other "
        "writes' flushes too. These are medians of separate measurements put together, not parts of one write. "
        + (f"In {clipped} of {len(parts_by_cell)} cells the parts exceed the write "
           "(bar beyond its mark): the engine is drawn as 0."
           if clipped else "No part came out below 0."),
        data=data,
        layout=layout_of(
            {"title": {"text": "ms at the median"}, "rangemode": "tozero"}, {"type": "category", "title": {"text": ""}},
            height=HEIGHT, barmode="stack", bargap=0.25,
        ),
        choices=[choose_workload(results), choose_protocols(results)],
        marks=[
            {"meta": {"workload": key}, "layout": {
                "height": HEIGHT + ROW_HEIGHT * len(rows), "yaxis": {"categoryorder": "array", "categoryarray": rows},
            }} for key, rows in rows_of(parts_by_cell, keys).items()
        ],
    )  # fmt: skip


def stacked(mine: Sequence[tuple[RoundsForPlot, Parts]], meta: dict[str, str]) -> list[dict[str, Any]]:
    """One piece of each bar after the other, then the medians."""
    places = [row_words(item) for item, _ in mine]
    traces: list[dict[str, Any]] = []
    for field, (name, colour, pattern) in NAMES.items():
        values = [getattr(found, field) for _, found in mine]
        traces.append({
            "type": "bar", "orientation": "h", "name": name, "legendgroup": name, "meta": {**meta, "part": field},
            "y": places, "x": [ms(value) for value in values],
            "marker": {"color": colour, "line": {"width": 0.5, "color": "--paper"},
                       "pattern": {"shape": pattern, "fgcolor": "--paper/0.55", "fillmode": "overlay", "size": 6,
                                   "solidity": 0.25}},
            "hovertext": [
                f"{place_words(item.result)}<br>{name} {ms(value):.3f} ms, "
                f"{100 * value / (item.result.response_ns_p50.value or 1):.0f} % of the response"
                for (item, _), value in zip(mine, values, strict=True)
            ], "hoverinfo": "text",
        })  # fmt: skip
    traces.append({
        "type": "scatter", "mode": "markers", "name": "measured median", "legendgroup": "measured", "meta": meta,
        "y": places, "x": [ms(item.result.response_ns_p50.value or 0) for item, _ in mine],
        "marker": {"symbol": "line-ns-open", "size": 16, "color": "--ink", "line": {"width": 2, "color": "--ink"}},
        "hovertext": [
            f"{place_words(item.result)}<br>response p50 {estimate_text(item.result.response_ns_p50)}"
            + (f"<br>the parts exceed it by {ms(found.clipped_ns):.3f} ms" if found.clipped_ns else "")
            for item, found in mine
        ], "hoverinfo": "text",
    })  # fmt: skip
    return traces


def rows_of(parts_by_cell: Sequence[tuple[RoundsForPlot, Parts]], keys: dict[tuple, str]) -> dict[str, list[str]]:
    """The bars of each workload, from the lowest up."""
    rows: dict[str, list[str]] = {}
    for item, _ in parts_by_cell:
        rows.setdefault(keys[workload_of(item.result)], []).append(row_words(item))
    return rows


def row_words(item: RoundsForPlot) -> str:
    """A cell beside its bar."""
    return f"{miles_text(item.result.miles)} mi  {plain(item.result.protocol)}"


def caption(parts_by_cell: Sequence[tuple[RoundsForPlot, Parts]]) -> str:
    """The farthest cell of the strictest protocol, in words."""
    if not parts_by_cell:
        return "No cell has both a median and a floor: there is nothing to take apart."
    item, found = max(parts_by_cell, key=lambda pair: (rank(pair[0].result.protocol), pair[0].result.miles))
    c = item.result
    parts = ", ".join(f"{NAMES[name][0]} {format_time(getattr(found, name))}" for name in NAMES if getattr(found, name))
    return (
        f"At {miles_text(c.miles)} miles the median {c.name} under {c.protocol} takes "
        f"{format_time(c.response_ns_p50.value or 0)}: {parts}."
    )
