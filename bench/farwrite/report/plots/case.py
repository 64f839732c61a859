"""Charts of a case: latency with its interval and floor, what thin volumes take, and the pauses that servers saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...analysis.case_answer import CaseFigure, Section, sections_of
from ...analysis.case_recording import CaseRecording
from ...analysis.result import Estimate
from ...base.units import NS_PER_S, format_size, format_time
from .plot import Plot, bars, layout_of, log_axis, ms, plain

LONG = 50.0  # From the least to the greatest.


def plots_of(recording: CaseRecording) -> dict[str, Plot]:
    """By part, where there is something to draw."""
    found = {}
    for section in sections_of(recording):
        if section.name in ("steady", "database"):
            writes = [one for one in section.figures if one.what.startswith("a write ") and one.estimate.value is not None]
            if writes:
                found[section.name] = latency_plot(section, writes)
    if recording.faults is not None and any(one.longest_ns for one in recording.faults.pauses):
        found["faults"] = pauses_plot(recording)
    if recording.thin is not None and recording.thin.volumes:
        found["thin"] = thin_plot(recording)
    return found


def latency_plot(section: Section, writes: Sequence[CaseFigure]) -> Plot:
    """A point with its interval for each, and its floor."""
    names = [plain(one.what) for one in writes]
    estimates = [one.estimate for one in writes]
    floors = [ms(one.floor.value) if one.floor is not None and one.floor.value is not None else None for one in writes]
    caption = "; ".join(f"{one.what} {format_time(one.estimate.value or 0)}" for one in writes)
    return Plot(
        id=f"{section.name}-latency", title="Response times and their floors", caption=f"{caption}.",
        note="Points with their 95 % intervals; a bar is the floor beside. The table below has the numbers.",
        data=[
            {"type": "bar", "orientation": "h", "y": names, "x": floors, "name": "floor", "marker": {"color": "--line"},
             "hovertemplate": "floor: %{x:.3g} ms<extra></extra>"},
            {"type": "scatter", "mode": "markers", "y": names, "x": [ms(one.value or 0) for one in estimates], "name": "a write",
             "marker": {"size": 10, "color": "--C", "symbol": "diamond"}, "error_x": {**bars(estimates), "color": "--C"},
             "hovertemplate": "%{y}: %{x:.3g} ms<extra></extra>"},
        ],
        layout=layout_of(
            axis_of([*filter(None, floors), *(ms(end) for one in estimates for end in ends_of(one) if end)]),
            {"type": "category", "categoryorder": "array", "categoryarray": names[::-1]},
            height=120 + 42 * len(names),
        ),
    )  # fmt: skip


def ends_of(estimate: Estimate) -> tuple[float, float, float]:
    """Value and interval; of an end that is not known the value."""
    value = estimate.value or 0.0
    low, high = (value if end is None else end for end in (estimate.low, estimate.high))
    return low, value, high


def axis_of(shown: Sequence[float]) -> dict[str, Any]:
    """A log axis with all its numbers where they have room, with powers of ten where it is long."""
    if max(shown, default=1.0) / min(shown, default=1.0) < LONG:
        return log_axis("ms")
    return {"title": {"text": "ms"}, "type": "log", "dtick": 1}


def pauses_plot(recording: CaseRecording) -> Plot:
    """Every server's longest pause, by event."""
    part = recording.faults
    assert part is not None
    shown = [one for one in part.pauses if one.longest_ns]
    names = [plain(one.event) for one in shown]
    return Plot(
        id="faults-pauses", title="The longest pause of each server, by event",
        caption="; ".join(f"{one.event}: {format_time(max(one.longest_ns))} at most" for one in shown) + ".",
        note="A pause lasts until a server's next write that is answered. A guest gives up its disk after 30 s (Linux) or 60 s "
        "(Windows).",
        data=[
            {"type": "box", "x": [round(value / NS_PER_S, 4) for value in one.longest_ns], "name": name,
             "marker": {"color": "--C"}, "line": {"color": "--C"}, "boxpoints": "all", "jitter": 0.5, "pointpos": 0,
             "hovertemplate": "%{x:.3f} s<extra></extra>"}
            for one, name in zip(shown, names, strict=True)
        ],
        layout=layout_of(
            {"title": {"text": "s"}, "rangemode": "tozero"},
            {"type": "category", "categoryorder": "array", "categoryarray": names[::-1]}, height=120 + 60 * len(names),
            showlegend=False,
        ),
    )  # fmt: skip


def thin_plot(recording: CaseRecording) -> Plot:
    """Each volume: what its server wrote, and what its copies take."""
    part, asked = recording.thin, recording.case.thin
    assert part is not None and asked is not None
    ordered = sorted(part.volumes, key=lambda one: one.written_bytes)
    ranks = list(range(1, len(ordered) + 1))
    mib = 1 << 20
    lines = (
        ("promised", [asked.size_bytes / mib] * len(ordered), "--line", "dot"),
        ("stored, a copy", [max(one.stored_bytes) / mib for one in ordered], "--A", "solid"),
        ("written", [one.written_bytes / mib for one in ordered], "--C", "dash"),
    )  # fmt: skip
    return Plot(
        id="thin-volumes", title="What each volume promised, wrote and takes",
        caption=f"{len(ordered)} volumes of {format_size(asked.size_bytes)} each, ordered by what their servers wrote.",
        note="A volume takes room by extents of 64 KiB: small files at places of their own take more than they hold.",
        data=[
            {"type": "scatter", "mode": "lines", "x": ranks, "y": [round(value, 3) for value in values], "name": name,
             "line": {"color": colour, "dash": dash}, "hovertemplate": f"{name}: %{{y:.3g}} MiB<extra></extra>"}
            for name, values, colour, dash in lines
        ],
        layout=layout_of({"title": {"text": "volumes"}}, {"title": {"text": "MiB"}, "rangemode": "tozero"}),
    )  # fmt: skip

