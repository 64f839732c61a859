"""The picture of the question: median write latency against miles, over the floor and the limits products state.

Each protocol is drawn with its own letter, so that the picture is readable without colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from ..analysis.result import Analysis, CellResult
from ..base.physics import PRODUCT_LIMITS
from ..base.protocol import NAMES
from ..base.units import NS_PER_MS
from .page import Page
from .tables import miles_text, rank, workloads

HEIGHT = 19
FLOOR = "·"
LIMIT = "┈"
FRAME_COLUMNS = 8  # Tick labels, frame and margins.
COLOUR = {
    "l": "color(244)", "A": "color(33)", "B": "color(135)", "C": "color(208)", "2": "color(172)", "q": "color(36)",
    FLOOR: "dim", LIMIT: "dim",
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """What is to be drawn, in miles and milliseconds."""

    series: dict[str, list[tuple[float, float]]]  # by the letter that marks them
    floor: list[tuple[float, float]]
    floor_protocol: str
    limits: list[float]
    miles: Sequence[float] = ()  # further distances that the axis covers, where nothing may have been measured yet

    @property
    def points(self) -> list[tuple[float, float]]:
        return [point for points in self.series.values() for point in points] + self.floor


def show_chart(page: Page, analysis: Analysis) -> None:
    """The workload with the most distances; nothing when no cell has a median."""
    groups = [[c for c in group if c.response_ns_p50.value is not None] for group in workloads(analysis.cells)]
    cells = max(groups, key=lambda group: len({c.miles for c in group}), default=[])
    if not cells:
        return
    picture = picture_of(cells)
    page.heading(f"Median write latency in ms against miles: {cells[0].name}, queue depth {cells[0].queue_depth}")
    page.print(coloured(drawn(picture, page.width - 1)))
    for line in legend(picture):
        page.prose(line, indent=2)


def letter_of(protocol: str) -> str:
    """The letter that marks a protocol."""
    return "2" if protocol == "C2" else protocol[0]


def picture_of(cells: Sequence[CellResult]) -> Picture:
    """Points per protocol; the floor of the strictest protocol; those limits that lie within the picture."""
    series: dict[str, list[tuple[float, float]]] = {}
    floors: dict[str, list[tuple[float, float]]] = {}
    for c in sorted(cells, key=lambda c: rank(c.protocol)):
        series.setdefault(letter_of(c.protocol), []).append((c.miles, (c.response_ns_p50.value or 0) / NS_PER_MS))
        if c.floor_ns.value is not None:
            floors.setdefault(c.protocol, []).append((c.miles, c.floor_ns.value / NS_PER_MS))
    strictest = max(floors, key=rank, default="")
    top = max(ms for points in series.values() for _, ms in points)
    return Picture(series, sorted(floors.get(strictest, [])), strictest, limits_below(1.1 * top))


def limits_below(top_ms: float) -> list[float]:
    """The limits that products state as a round trip, in ms, up to this one."""
    limits = sorted(limit.rtt_ns / NS_PER_MS for limit in PRODUCT_LIMITS if limit.rtt_ns is not None)
    return [ms for ms in limits if ms <= top_ms]


def drawn(picture: Picture, width: int, height: int = HEIGHT) -> str:
    """The picture as `height` lines of text, no line longer than `width`."""
    import plotext  # 0.3 s to import, and needed only here.

    miles = [*(x for x, _ in picture.points), *picture.miles]
    left, right = min(miles), max(miles)
    right = right if right > left else left + 1
    column = (right - left) / max(1, width - FRAME_COLUMNS - 2 * len(picture.series) - 2)
    left, right = left - column * (len(picture.series) + 1), right + column * (len(picture.series) + 1)
    top = 1.08 * max([ms for _, ms in picture.points] + picture.limits) or 1.0

    figure = plotext.figure
    plotext.terminal.limit(False, False)  # The console's width counts, not the terminal's.
    figure.clear()
    figure.plot_size(width, height)
    figure.theme("colorless")
    for ms in picture.limits:
        figure.draw(figure.signal([left, right], [ms, ms], marker=LIMIT).lines())
    if picture.floor:
        xs, ys = zip(*picture.floor, strict=True)
        figure.draw(figure.signal(list(xs), list(ys), marker=FLOOR).lines(len(xs) > 1))
    for index, (letter, points) in enumerate(picture.series.items()):
        beside = (index - (len(picture.series) - 1) / 2) * column  # Letters of one distance stand side by side.
        figure.draw(figure.signal([x + beside for x, _ in points], [y for _, y in points], marker=letter))
    ticks = spaced(sorted(set(miles)), 6 * column)
    figure.ruler("x").lim(left, right)
    figure.ruler("x").ticks(ticks, [miles_text(x) for x in ticks])
    heights = y_ticks(top, picture.limits, height)
    figure.ruler("y").lim(0, top)
    figure.ruler("y").ticks(heights, [f"{y:g}" for y in heights])
    figure.label("miles", "x")
    text = figure.build().string(colorless=True)
    figure.clear()
    return "\n".join(line.rstrip() for line in text.splitlines())


def y_ticks(top: float, limits: Sequence[float], height: int = HEIGHT) -> list[float]:
    """Round numbers up the side, and the limits; none closer than two rows."""
    rough = top / 6
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    apart = 1.6 * top / (height - 4)
    chosen = list(limits)
    for index in range(int(top / step) + 1):
        value = round(index * step, 9)
        if all(abs(value - other) > apart for other in chosen):
            chosen.append(value)
    return sorted(chosen)


def spaced(values: Sequence[float], apart: float) -> list[float]:
    """The values that leave room for one another's labels; the last one is always among them."""
    kept: list[float] = []
    for value in reversed(values):
        if not kept or kept[-1] - value >= apart:
            kept.append(value)
    return kept[::-1]


def coloured(chart: str) -> Text:
    """The chart with each mark in its colour; the letters alone tell the same."""
    text = Text(no_wrap=True)
    for line in chart.splitlines(keepends=True):
        in_frame = "│" in line or "┤" in line
        for character in line:
            text.append(character, COLOUR.get(character) if in_frame else None)
    return text


def legend(picture: Picture) -> list[str]:
    """What the marks mean."""
    names = {letter_of(name): name for name in NAMES}
    marks = [f"{letter} {'not replicated' if letter == 'l' else f'protocol {names[letter]}'}" for letter in picture.series]
    if picture.floor:
        marks.append(f"{FLOOR} floor of {picture.floor_protocol}")
    lines = ["   ".join(marks), "Letters of one distance stand side by side."]
    if picture.limits:
        limits = ", ".join(f"{ms:g}" for ms in picture.limits)
        lines.insert(1, f"{LIMIT}{LIMIT} {limits} ms: where products draw the line")
    return lines
