"""A row of a forest plot: an interval, its value, zero and the margin on one line of characters.

Line ends are placed to half a character. What lies beyond the axis ends in an arrow, so that nothing looks smaller than it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

from rich.text import Text

VALUE, ZERO, MARGIN = "●", "│", "┊"
FRAME = (ZERO, MARGIN, " ")
LINE, LINE_ON_ZERO, LEFT_HALF, RIGHT_HALF = "━", "┿", "╸", "╺"
BEYOND_LOW, BEYOND_HIGH = "◂", "▸"

STEPS = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)  # times a power of ten: where an axis may end
SHOWN_RATIO = 0.9  # of all interval ends lie on the axis; one wild row must not make the others points


class Axis(NamedTuple):
    """From -limit to limit over so many characters; an odd number of them puts zero on one."""

    limit: float
    margin: float
    width: int

    def place(self, value: float) -> int:
        """The half character a value falls on, from 0; below 0 or from 2 * width on when it is off the axis."""
        if abs(value) > self.limit:
            return -1 if value < 0 else 2 * self.width
        return min(math.floor((value + self.limit) / (2 * self.limit) * 2 * self.width), 2 * self.width - 1)


def limit_of(ends: Iterable[float], margin: float) -> float:
    """Where an axis must end so that it shows the margin twice over and most of these ends of intervals."""
    sizes = sorted(abs(end) for end in ends if math.isfinite(end))
    wanted = max(2 * margin, sizes[math.ceil(SHOWN_RATIO * len(sizes)) - 1] if sizes else 0.0)
    if wanted <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(wanted))
    return next((step * power for step in STEPS if step * power >= wanted * (1 - 1e-9)), 10 * power)


def draw(axis: Axis, low: float, value: float, high: float, style: str) -> Text:
    """The line of one interval, exactly as wide as the axis."""
    marks = empty(axis)
    middle = axis.width // 2
    first, last = axis.place(low), axis.place(high)
    for index in range(axis.width):
        left, right = first <= 2 * index <= last, first <= 2 * index + 1 <= last
        if left and right:
            marks[index] = LINE_ON_ZERO if index == middle else LINE
        elif left or right:
            marks[index] = LEFT_HALF if left else RIGHT_HALF
    at = axis.place(value)
    if 0 <= at < 2 * axis.width:
        marks[at // 2] = VALUE
    if first < 0:
        marks[0] = BEYOND_LOW
    if last >= 2 * axis.width:
        marks[-1] = BEYOND_HIGH
    return styled(marks, style)


def nothing(axis: Axis) -> Text:
    """The line of a row without an interval: zero and the margin alone."""
    return styled(empty(axis), "")


def empty(axis: Axis) -> list[str]:
    """Zero and the margin."""
    marks = [" "] * axis.width
    for edge in (-axis.margin, axis.margin):
        at = axis.place(edge)
        if 0 <= at < 2 * axis.width:
            marks[at // 2] = MARGIN
    marks[axis.width // 2] = ZERO
    return marks


def styled(marks: list[str], style: str) -> Text:
    """The interval in its colour, the frame faint."""
    text = Text()
    for frame, run in groupby(marks, key=lambda mark: mark in FRAME):
        text.append("".join(run), style="dim" if frame else style)
    return text


def scale_text(axis: Axis, low: str, high: str) -> str:
    """The axis's ends and its zero, over its characters; zero alone where they would touch."""
    left = low.ljust(axis.width // 2) + "0"
    if len(low) >= axis.width // 2 or len(high) >= axis.width // 2:
        return "0".rjust(axis.width // 2 + 1).ljust(axis.width)
    return left + high.rjust(axis.width - len(left))
