"""What a report is printed on: a console of some width, headings, tables chosen to fit, footnotes.

A table is never squeezed. Its maker offers several forms, from the roomiest to the tightest, and the first that fits
the width is printed. Colour only repeats what a symbol or a word already says, in blue and orange.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..analysis.answer import cautions
from ..analysis.result import Estimate
from ..base.reasons import Reason, least_needed
from .digits import UNKNOWN, Digits, grouped

if TYPE_CHECKING:
    from ..recording import LabFacts

WIDTH_MAX = 132  # Longer lines are not read.

STYLE = {"pass": "bold color(33)", "fail": "bold color(208)", "unknown": "bold color(244)"}
WORD = {"pass": "✔ PASS", "fail": "✘ FAIL", "unknown": "? UNKNOWN"}

SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

Interval = Literal["beside", "below", "none"]


@dataclass(frozen=True)
class Form:
    """One way to lay out a table: where intervals stand, and how wide the gap between columns is."""

    interval: Interval
    gap: int


ROOMY_TO_TIGHT = (
    Form("beside", 3), Form("beside", 2), Form("beside", 1), Form("below", 2), Form("below", 1), Form("none", 1),
)  # fmt: skip


class Footnotes:
    """Reasons, each numbered once however often it is pointed at."""

    def __init__(self) -> None:
        self.reasons: dict[str, int] = {}

    def mark(self, reasons: Iterable[Reason | str]) -> str:
        """The superscripts that point at these reasons."""
        numbers = [self.reasons.setdefault(str(reason), len(self.reasons) + 1) for reason in reasons]
        return "⁾".join(str(number).translate(SUPERSCRIPT) for number in numbers) + ("⁾" if numbers else "")

    def lines(self) -> list[tuple[str, str]]:
        """Marks with their reasons, in the order of the marks."""
        return [(str(number).translate(SUPERSCRIPT) + "⁾", reason) for reason, number in self.reasons.items()]


def caveat_of(lab: LabFacts) -> str:
    """What every heading above a lab's figures has to say of them; empty when nothing."""
    return ", ".join(cautions(lab, long=False))


def caution_of(lab: LabFacts) -> str:
    """The same beside a title, with what it means."""
    return "; ".join(cautions(lab, long=True))


class Page:
    """A console to print on, and what every heading has to confess."""

    def __init__(self, console: Console, caveat: str = "") -> None:
        self.console = console
        self.width = min(console.width, WIDTH_MAX)
        self.caveat = caveat

    def heading(self, text: str) -> None:
        """The title of a section."""
        line = Text(text, style="bold")
        if self.caveat:
            line.append(f" ({self.caveat})", style=STYLE["fail"])
        self.console.print()
        self.print(line)

    def prose(self, text: str | Text, style: str = "", indent: int = 0) -> None:
        """A paragraph."""
        words = text if isinstance(text, Text) else Text(text, style=style)
        words.overflow = "fold"
        self.print(Padding(words, (0, 0, 0, indent), expand=False) if indent else words)

    def item(self, mark: str, text: str, style: str = "", indent: int = 0) -> None:
        """A line with something before it, its continuation indented under the text."""
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(no_wrap=True, min_width=len(mark))
        grid.add_column(overflow="fold")
        grid.add_row(Text(mark, style=style), Text(text, style=style))
        self.print(Padding(grid, (0, 0, 0, indent), expand=False))

    def table(self, make: Callable[[Form], Table]) -> None:
        """The roomiest form of a table that fits."""
        unbounded = self.console.options.update_width(10_000)
        for form in ROOMY_TO_TIGHT:
            table = make(form)
            if Measurement.get(self.console, unbounded, table).maximum <= self.width:
                break
        self.print(table)

    def footnotes(self, notes: Footnotes) -> None:
        """What the superscripts of a table point at."""
        for mark, reason in notes.lines():
            self.item(mark, reason, style="dim")

    def print(self, what: RenderableType) -> None:
        """Print within our width."""
        self.console.print(what, width=self.width, highlight=False)


def table_of(form: Form, *columns: str, text_columns: int = 1) -> Table:
    """A table with a rule under its headings and nothing else; the first columns are text, the others numbers.

    Numbers never wrap. The first column may, where a workload's name is too long for any form.
    """
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, form.gap, 0, 0), collapse_padding=True,
        header_style="bold",
    )  # fmt: skip
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < text_columns else "right", no_wrap=index > 0)
    return table


def add_row(table: Table, *cells: str | Text) -> None:
    """A row of words as they are: a "[" in a name is a bracket, not markup."""
    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))


def cell(
    estimate: Estimate | None, digits: Digits, form: Form, notes: Footnotes, style: str = "", remark: str = ""
) -> Text:
    """An estimate with its interval, or why there is none; `remark` is a mark set after the value."""
    if estimate is None:
        return Text("")
    if estimate.value is None:
        return unknown(estimate.warnings, form, notes)
    value = f"{digits.number(estimate.value):>{digits.width}}"
    interval = digits.interval(estimate) if form.interval == "beside" else digits.span(estimate)
    text = Text(value, style=style)
    mark = remark + notes.mark(estimate.warnings)
    if form.interval == "beside" and interval:
        text.append(f" {interval}", style="dim")
    text.append(mark)
    if form.interval == "below" and interval:
        text.append(f"\n{interval}", style="dim")
    return text


def unknown(reasons: Sequence[Reason], form: Form, notes: Footnotes) -> Text:
    """How many writes would have been needed, where that is the reason; a footnote otherwise."""
    least = least_needed(reasons) if len(reasons) == 1 else None
    if least is not None:
        return Text(f"needs{' ' if form.interval == 'beside' else chr(10)}n≥{grouped(least)}", style="dim")
    return Text(UNKNOWN + notes.mark(reasons), style="dim")
