"""A gate, or the answer of a run, as Markdown for a pull request or a GitHub step summary; a whole report with its tables.

A gate also as the annotations that GitHub shows beside the budgets file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..analysis.answer import Answer
from ..analysis.result import Verdict
from ..gate.budget_verdict import BudgetVerdict, sight_of
from ..gate.gate import Gate
from .gate import method, summary
from .page import WIDTH_MAX, Footnotes, Form, Page, caveat_of

if TYPE_CHECKING:
    from ..analysis.change import Comparison
    from ..analysis.result import Analysis
    from ..recording import Report

MARK: dict[Verdict, str] = {"fail": "❌ fail", "unknown": "❔ unknown", "pass": "✅ pass"}
ANNOTATIONS_MAX = 10  # GitHub shows so many of a kind for each step.


def markdown_of(found: Gate) -> str:
    """What went wrong in a table, the worst first; the rest folded away."""
    gating = [item for item in found.verdicts if item.gating]
    reported = [item for item in found.verdicts if not item.gating]
    open_ = [item for item in gating if item.verdict != "pass"]
    parts = [f"### farwrite gate: {plain(found.title or found.budgets)}", f"**{plain(summary(found))}**"]
    parts += [f"> ⚠ {plain(text)}" for text in found.warnings]
    parts += [table(open_)] if open_ else []
    for title, verdicts in (("passed", [item for item in gating if item.verdict == "pass"]), ("only reported", reported)):
        if verdicts:
            parts.append(f"<details><summary>{len(verdicts)} {title}</summary>\n\n{table(verdicts)}\n\n</details>")
    parts.append(f"{plain(found.report)} against {plain(found.baseline or 'its budgets')}: {plain(method(found))}.")
    return "\n\n".join(parts) + "\n"


def answer_markdown(title: str, answer: Answer) -> str:
    """The answer of a run as a list, each verdict before its line."""
    lines = [f"- {MARK[line.verdict]}: {plain(line.text)}" if line.verdict else f"- {plain(line.text)}" for line in answer.lines]
    return "\n".join([f"### farwrite: {plain(title)}", "", *lines])


def table(verdicts: Sequence[BudgetVerdict]) -> str:
    """Verdict, budget, sentence and what the budget would be sure to notice."""
    rows = ["| verdict | budget | what was found | failed in 9 of 10 runs |", "|---|---|---|---|"]
    for item in verdicts:
        why = f"<br>promised because: {plain(item.reason)}" if item.verdict == "fail" and item.reason else ""
        sight = plain(sight_of(item)) or ("any excess" if item.exact else "")
        rows.append(f"| {MARK[item.verdict]} | {plain(item.budget)} | {plain(item.sentence)}{why} | {sight} |")
    return "\n".join(rows)


def plain(text: str) -> str:
    """Text that Markdown takes for nothing but text, inside a table too."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|`*_\[\]~#!@])", r"\\\1", text)


# --- Whole documents ---------------------------------------------------------------------------------------------


class MarkdownPage(Page):
    """A page that becomes Markdown: the sections of the terminal, their tables as GitHub and pandoc read them."""

    def __init__(self, caveat: str = "") -> None:
        super().__init__(Console(file=StringIO(), width=WIDTH_MAX), caveat)
        self.parts: list[str] = []

    @property
    def text(self) -> str:
        """All of it."""
        return "\n\n".join(part for part in self.parts if part) + "\n"

    def heading(self, text: str) -> None:
        self.parts.append(f"### {plain(text)}" + (f" ({plain(self.caveat)})" if self.caveat else ""))

    def prose(self, text: str | Text, style: str = "", indent: int = 0) -> None:
        self.parts.append(plain(str(text)))

    def item(self, mark: str, text: str, style: str = "", indent: int = 0) -> None:
        self.parts.append(f"- {plain(text if mark == '·' else f'{mark} {text}')}")

    def table(self, make: Callable[[Form], Table]) -> None:
        self.print(make(Form("beside", 1)))

    def footnotes(self, notes: Footnotes) -> None:
        self.parts.append("\n".join(f"- {plain(f'{mark} {reason}')}" for mark, reason in notes.lines()))

    def print(self, what: RenderableType) -> None:
        what = what.renderable if isinstance(what, Padding) else what
        if not isinstance(what, Table):  # A drawing.
            self.parts.append(f"```\n{str(what).rstrip()}\n```")
        elif any(str(column.header) for column in what.columns):
            self.parts.append(table_of_markdown(what))
        else:  # No table, but words that stand beside each other.
            rows = zip(*(column.cells for column in what.columns), strict=True)
            self.parts.append("\n".join(plain(" ".join(filter(None, map(str, row)))) + "  " for row in rows))


def table_of_markdown(made: Table) -> str:
    """A table of rich's as one of Markdown's."""
    columns = made.columns
    rule = ["---:" if column.justify == "right" else "---" for column in columns]
    rows = zip(*(column.cells for column in columns), strict=True)
    lines = [[plain(str(column.header).replace("-\n", "")) for column in columns], rule]
    lines += [[plain(str(cell)) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report_markdown(report: Report, analysis: Analysis) -> str:
    """The whole report, as the terminal shows it with --full."""
    from ..analysis.answer import answer_of
    from .terminal import show_answer, show_rest, show_title

    page = MarkdownPage(caveat_of(report.recording.lab))
    show_title(page, report.recording)
    show_answer(page, answer_of(report.recording, analysis))
    show_rest(page, report.recording, analysis)
    return page.text


def comparison_markdown(comparison: Comparison, brief: bool = False) -> str:
    """The outcome in a sentence, and the rows that are shown in a table."""
    from .changes import changes_table
    from .comparison import is_change
    from .comparison import summary as summary_of

    page, notes = MarkdownPage(), Footnotes()
    page.heading(f"farwrite compare: {', '.join(comparison.base)} and {', '.join(comparison.cand)}")
    page.prose(summary_of(comparison.rows))
    for warning in comparison.warnings:
        page.item("⚠", warning)
    rows = [row for row in comparison.rows if is_change(row)] if brief else comparison.rows
    if rows:
        page.table(partial(changes_table, rows, notes))
        page.footnotes(notes)
    return page.text


# --- GitHub's annotations ----------------------------------------------------------------------------------------


def annotations_of(found: Gate) -> Iterator[str]:
    """Workflow commands of GitHub Actions: an error for a failure, a warning for an unknown, at the budget's line.

    GitHub Docs, "Workflow commands for GitHub Actions": of the data %, CR and LF are escaped, of properties : and , too.
    """
    for verdict, command in (("fail", "error"), ("unknown", "warning")):
        items = [item for item in found.verdicts if item.gating and item.verdict == verdict]
        for item in items[:ANNOTATIONS_MAX]:
            yield f"::{command} {place(item)}title={escaped(item.budget, ':,')}::{escaped(item.sentence)}"
        if len(items) > ANNOTATIONS_MAX:
            yield f"::notice title=farwrite gate::{len(items) - ANNOTATIONS_MAX} more are in the report"


def place(decided: BudgetVerdict) -> str:
    """Where the budget is written, as properties."""
    file, _, line = decided.place.rpartition(":")
    return f"file={escaped(file, ':,')},line={line}," if file and line.isdigit() else ""


def escaped(text: str, also: str = "") -> str:
    """Text as a workflow command takes it."""
    for character in f"%\r\n{also}":
        text = text.replace(character, f"%{ord(character):02X}")
    return text
