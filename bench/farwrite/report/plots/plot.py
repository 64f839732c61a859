"""A chart as plain data: what Plotly draws, the sentence that says the same, and what a reader may choose.

Nothing here draws. Colours are names of the page's palette ("--C", or "--C/0.3" for a see-through one), which the page
turns into colours of the theme it is shown in. A trace's `meta` says what it is of; a choice shows and hides by it.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...analysis.result import CellResult, Estimate
from ...base.reasons import joined
from ...base.units import NS_PER_MS
from ..digits import Digits, grouped
from ..tables import miles_text, rank, title_of, workload_of

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "--paper/0"}
LOG_TICKS = [mantissa * 10.0**power for power in range(-3, 5) for mantissa in (1, 1.5, 2, 3, 5, 7)]


class Option(NamedTuple):
    """One thing that can be chosen."""

    value: str
    text: str
    chosen: bool


@dataclass(frozen=True)
class Choice:
    """What is shown of a chart: traces whose `meta[key]` is not chosen are hidden, those without the key stay.

    A key such as "layout.yaxis.type" sets that place in the layout instead.
    """

    key: str
    title: str
    many: bool
    options: list[Option]


@dataclass(frozen=True)
class Plot:
    """One chart."""

    id: str
    title: str
    caption: str  # the chart in a sentence, for those who do not see it
    note: str  # how to read it, and what its numbers rest on
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    choices: list[Choice] = field(default_factory=list)
    marks: list[dict[str, Any]] = field(default_factory=list)  # {"meta", and a "shape", "annotation" or part of "layout"}

    @property
    def drawing(self) -> dict[str, Any]:
        """What the page's script needs."""
        return {"data": self.data, "layout": self.layout, "marks": self.marks}


class Look(NamedTuple):
    """How a protocol is told from the others, with colour and without."""

    colour: str
    symbol: str
    dash: str


LOOKS = {
    "local": Look("--local", "circle", "dot"),
    "A": Look("--A", "square", "dashdot"),
    "B": Look("--B", "triangle-up", "dash"),
    "C": Look("--C", "diamond", "solid"),
    "C2": Look("--C2", "star-diamond", "longdashdot"),
    "quorum": Look("--quorum", "pentagon", "longdash"),
}
OTHER = Look("--local", "x", "longdash")


def look_of(protocol: str) -> Look:
    """How a protocol looks."""
    return LOOKS.get(protocol, OTHER)


def layout_of(x: dict[str, Any], y: dict[str, Any], height: int = 440, **more: Any) -> dict[str, Any]:
    """What all charts share."""
    axis = {
        "gridcolor": "--grid", "linecolor": "--line", "zerolinecolor": "--line", "ticks": "outside", "ticklen": 4,
        "tickcolor": "--line", "automargin": True,
    }  # fmt: skip
    return {
        "height": height,
        "margin": {"l": 64, "r": 20, "t": 16, "b": 56},
        "font": {"family": FONT, "size": 13, "color": "--ink"},
        "paper_bgcolor": "--paper",
        "plot_bgcolor": "--paper",
        "hoverlabel": {"bgcolor": "--raised", "bordercolor": "--line", "font": {"color": "--ink"}, "align": "left"},
        "hovermode": "closest",
        "legend": LEGEND,
        "xaxis": {**axis, **x},
        "yaxis": {**axis, **y},
        **more,
    }


def log_axis(title: str) -> dict[str, Any]:
    """A log axis with its numbers written out: Plotly would write 0.5 as a small 5."""
    return {
        "title": {"text": title}, "type": "log", "tickmode": "array", "tickvals": LOG_TICKS,
        "ticktext": [f"{tick:g}" for tick in LOG_TICKS],
    }  # fmt: skip


# Words and numbers


def plain(text: str) -> str:
    """Other people's words for Plotly, which takes tags for markup."""
    return html.escape(text, quote=False)


def ms(ns: float) -> float:
    """Milliseconds, to the nearest nanosecond."""
    return round(ns / NS_PER_MS, 6)


def short(values: Iterable[float]) -> list[float]:
    """Four significant digits: more than a screen shows, and a third of the bytes."""
    return [float(f"{value:.4g}") for value in values]


def estimate_text(estimate: Estimate, scale: float = NS_PER_MS, unit: str = "ms") -> str:
    """An estimate in words: "0.487 ms [0.470, 0.512], 93.8 % sure, n = 22 738"."""
    if estimate.value is None:
        return "unknown: " + plain(joined(estimate.warnings) or "not measured")
    digits = Digits.of([estimate], scale)
    words = f"{digits.number(estimate.value)} {unit} {digits.interval(estimate)}".rstrip()
    if estimate.low is not None and estimate.confidence is not None:
        words += f", {100 * estimate.confidence:.3g} % sure"
    if estimate.count:
        words += f", n = {grouped(estimate.count)}"
    return "<br>".join([words, *map(plain, map(str, estimate.warnings))])


def bars(estimates: Sequence[Estimate], scale: float = NS_PER_MS) -> dict[str, Any]:
    """Error bars from low to high; none where there is no interval."""

    def reach(end: float | None, value: float | None, sign: int) -> float:
        return 0.0 if end is None or value is None else round(max(sign * (end - value), 0.0) / scale, 6)

    return {
        "type": "data", "symmetric": False, "thickness": 1.4, "width": 4,
        "array": [reach(e.high, e.value, 1) for e in estimates],
        "arrayminus": [reach(e.low, e.value, -1) for e in estimates],
    }  # fmt: skip


# What a reader may choose


def workload_keys(cells: Iterable[CellResult]) -> dict[tuple, str]:
    """A short key for every workload, in the order of the profile."""
    return {workload: f"w{index}" for index, workload in enumerate(dict.fromkeys(map(workload_of, cells)))}


def choose_workload(cells: Sequence[CellResult]) -> Choice:
    """Which workload; at first the one with the most cells, because distance shows there."""
    keys = workload_keys(cells)
    sizes = [sum(workload_of(c) == workload for c in cells) for workload in keys]
    titles = {workload_of(c): title_of(c) for c in cells}
    first = sizes.index(max(sizes)) if sizes else 0
    options = [Option(key, titles[workload], index == first) for index, (workload, key) in enumerate(keys.items())]
    return Choice("workload", "Workload", False, options)


def choose_protocols(cells: Iterable[CellResult], strictest_only: bool = False) -> Choice:
    """Which protocols; all at first, or the one that promises most."""
    found = sorted({c.protocol for c in cells}, key=rank)
    return Choice("protocol", "Protocol", True, [
        Option(p, "not replicated" if p == "local" else p, not strictest_only or p == found[-1]) for p in found
    ])  # fmt: skip


def choose_miles(cells: Iterable[CellResult]) -> Choice:
    """Which distances; all at first."""
    found = sorted({c.miles for c in cells})
    return Choice("miles", "Miles", True, [Option(miles_text(miles), miles_text(miles), True) for miles in found])


def protocol_words(protocol: str) -> str:
    """A protocol as a legend names it."""
    return "not replicated" if protocol == "local" else f"protocol {plain(protocol)}"


def place_words(c: CellResult) -> str:
    """A cell as a hover names it: "write, C at 150 miles, depth 1"."""
    return f"<b>{plain(c.name)}, {plain(c.protocol)} at {miles_text(c.miles)} miles</b>, depth {c.queue_depth}"
