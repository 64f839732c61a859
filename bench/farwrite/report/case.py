"""A case in the terminal: the answer in ten lines, then each part's figures, and what was assumed."""

from __future__ import annotations

from functools import partial
from textwrap import wrap

from rich.table import Table

from ..analysis.case_answer import CaseFigure, Line, Section, lines_of, sections_of, value_text
from ..analysis.case_recording import CaseRecording
from ..base.units import foreseen_text
from .digits import UNKNOWN
from .page import STYLE, WORD, Footnotes, Form, Page, add_row, table_of

WHAT_WIDTH = 24  # Of the first column, where room is short.


def show_case(page: Page, recording: CaseRecording) -> None:
    """All of it."""
    page.heading(recording.case.title)
    show_answer(page, recording)
    for section in sections_of(recording):
        show_section(page, section)
    show_assumed(page, recording)


def show_answer(page: Page, recording: CaseRecording) -> None:
    """The answer, with what must be known before any number is read."""
    for banner in banners_of(recording):
        page.item("⚠", banner, style=STYLE["fail"])
    for line in lines_of(recording):
        show_line(page, line)


def banners_of(recording: CaseRecording) -> list[str]:
    """What every reader must know."""
    found = ["INTERRUPTED: what follows rests on what was over."] if recording.interrupted else []
    found += ["QUICK: this only shows that it works here; its figures are of no use."] if recording.quick else []
    found += ["Files were in memory: nothing was flushed."] if recording.disk == "memory" else []
    return found


def show_line(page: Page, line: Line) -> None:
    if line.verdict:
        page.item(WORD[line.verdict], line.text, style=STYLE[line.verdict])
    else:
        page.item("·", line.text)


def show_section(page: Page, section: Section, heading: str = "") -> None:
    """One part: its table, why something in it is unknown, and what its figures rest on."""
    page.heading(heading or section.title)
    notes = Footnotes()
    if section.figures:
        page.table(partial(figures_table, section.figures, notes))
    page.footnotes(notes)
    for note in section.notes:
        page.item("·", note)


def figures_table(figures: list[CaseFigure], notes: Footnotes, form: Form) -> Table:
    """A figure a row: value, interval, how many are behind it, floor, and whether it was measured."""
    has_floor = any(figure.floor is not None for figure in figures)
    is_beside = form.interval == "beside"
    heads = ["what", "value", *(["95 %"] if is_beside else []), "n", *(["floor"] if has_floor else []), "how"]
    table = table_of(form, *heads)
    for figure in figures:
        found, floor = figure.estimate, figure.floor
        known = UNKNOWN if found.value is None else value_text(found.value, figure.unit)
        value, interval = known + notes.mark(found.warnings), interval_text(figure)
        if form.interval == "below" and interval:
            value = f"{value}\n{interval}"
        count = f"{found.count:,} {figure.of}".strip() if figure.of and found.count else UNKNOWN
        floors = [value_text(floor.value, figure.unit) if floor is not None and floor.value is not None else ""]
        what = figure.what if is_beside else "\n".join(wrap(figure.what, WHAT_WIDTH))
        add_row(table, what, value, *([interval] if is_beside else []), count, *(floors if has_floor else []), figure.how)
    return table


def interval_text(figure: CaseFigure) -> str:
    """ "1.02 to 1.31 ms"; of what was counted there is none."""
    found = figure.estimate
    if found.value is None or found.low is None or found.high is None or found.low == found.high:
        return ""
    low, high = value_text(found.low, figure.unit), value_text(found.high, figure.unit)
    number, _, unit = low.rpartition(" ")
    if not found.low:
        return f"0 to {high}"
    return f"{number} to {high}" if number and unit == high.rpartition(" ")[2] else f"{low} to {high}"


def show_assumed(page: Page, recording: CaseRecording) -> None:
    """What was not measured but taken, and how the rest was."""
    page.heading("Assumed")
    for sentence in recording.case.assumed:
        page.item("·", f"{sentence}.")
    times = ", ".join(f"{name} {foreseen_text(seconds)}" for name, seconds in recording.seconds.items())
    page.prose(
        f"Link {recording.link}, files in {recording.disk}; {times or 'nothing was measured'}. Intervals (95 %) are Student's "
        "over periods and volumes, a bootstrap over the rounds of a run, and the exact one of order statistics over six trials "
        "or more. What was counted has none.",
        style="dim",
    )
