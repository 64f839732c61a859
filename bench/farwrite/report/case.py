"""A case in the terminal: the answer in ten lines, then each part's figures, and what was assumed."""

from __future__ import annotations

from functools import partial

from rich.table import Table

from ..analysis.case_answer import CaseFigure, Line, Section, lines_of, sections_of, value_text
from ..analysis.case_recording import CaseRecording
from ..base.units import foreseen_text
from .digits import UNKNOWN
from .page import STYLE, WORD, Footnotes, Form, Page, add_row, table_of


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


def show_section(page: Page, section: Section) -> None:
    """One part: its table, why something in it is unknown, and what its figures rest on."""
    page.heading(section.title)
    notes = Footnotes()
    if section.figures:
        page.table(partial(figures_table, section.figures, notes))
    page.footnotes(notes)
    for note in section.notes:
        page.item("·", note)


def figures_table(figures: list[CaseFigure], notes: Footnotes, form: Form) -> Table:
    """A figure a row: value, interval, how many are behind it, floor, and whether it was measured."""
    has_floor = any(figure.floor is not None for figure in figures)
    heads = ["what", "value", *([] if form.interval == "none" else ["95 %"]), "n", *(["floor"] if has_floor else []), "how"]
    table = table_of(form, *heads)
    table.columns[0].no_wrap = False
    for figure in figures:
        found = figure.estimate
        if found.value is None:
            value, interval = UNKNOWN + notes.mark(found.warnings), ""
        else:
            value = value_text(found.value, figure.unit) + notes.mark(found.warnings)
            interval = interval_text(figure)
        count = f"{found.count:,} {figure.of}".strip() if figure.of and found.count else UNKNOWN
        floor = figure.floor
        floors = [value_text(floor.value, figure.unit) if floor is not None and floor.value is not None else ""] if has_floor else []
        add_row(table, figure.what, value, *([] if form.interval == "none" else [interval]), count, *floors, figure.how)
    return table


def interval_text(figure: CaseFigure) -> str:
    """ "1.02 to 1.31 ms"; of what was counted there is none."""
    found = figure.estimate
    if found.low is None or found.high is None:
        return UNKNOWN
    if found.low == found.high:
        return "exact" if figure.how == "counted" else ""
    return f"{value_text(found.low, figure.unit)} to {value_text(found.high, figure.unit)}"


def show_assumed(page: Page, recording: CaseRecording) -> None:
    """What was not measured but taken, and how the rest was."""
    page.heading("Assumed")
    for sentence in recording.case.assumed:
        page.item("·", f"{sentence}.")
    times = ", ".join(f"{name} {foreseen_text(seconds)}" for name, seconds in recording.seconds.items())
    page.prose(
        f"Link {recording.link}, files in {recording.disk}; {times or 'nothing was measured'}. Intervals of rounds, periods and volumes are "
        "Student's, of a run's writes a bootstrap over its rounds; of trials the exact one of order statistics, where there are six or more.",
        style="dim",
    )
