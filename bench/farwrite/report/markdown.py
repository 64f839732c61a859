"""A gate, or the answer of a run, as Markdown for a pull request or a GitHub step summary.

A gate also as the annotations that GitHub shows beside the budgets file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..analysis.answer import Answer
from ..analysis.result import Verdict
from ..gate import Gate
from ..ruling import Ruling, sight_of
from .gate import method, summary

MARK: dict[Verdict, str] = {"fail": "❌ fail", "unknown": "❔ unknown", "pass": "✅ pass"}
ANNOTATIONS_MAX = 10  # GitHub shows so many of a kind for each step.


def markdown_of(found: Gate) -> str:
    """What went wrong in a table, the worst first; the rest folded away."""
    gating = [item for item in found.rulings if item.gating]
    reported = [item for item in found.rulings if not item.gating]
    open_ = [item for item in gating if item.verdict != "pass"]
    parts = [f"### farwrite gate: {plain(found.title or found.budgets)}", f"**{plain(summary(found))}**"]
    parts += [f"> ⚠ {plain(text)}" for text in found.warnings]
    parts += [table(open_)] if open_ else []
    for title, rulings in (("passed", [item for item in gating if item.verdict == "pass"]), ("only reported", reported)):
        if rulings:
            parts.append(f"<details><summary>{len(rulings)} {title}</summary>\n\n{table(rulings)}\n\n</details>")
    parts.append(f"{plain(found.report)} against {plain(found.baseline or 'its budgets')}: {plain(method(found))}.")
    return "\n\n".join(parts) + "\n"


def answer_markdown(title: str, answer: Answer) -> str:
    """The answer of a run as a list, each verdict before its line."""
    lines = [f"- {MARK[line.verdict]}: {plain(line.text)}" if line.verdict else f"- {plain(line.text)}" for line in answer.lines]
    return "\n".join([f"### farwrite: {plain(title)}", "", *lines])


def table(rulings: Sequence[Ruling]) -> str:
    """Verdict, budget, sentence and what the budget would be sure to notice."""
    rows = ["| verdict | budget | what was found | failed in 9 of 10 runs |", "|---|---|---|---|"]
    for item in rulings:
        why = f"<br>promised because: {plain(item.reason)}" if item.verdict == "fail" and item.reason else ""
        sight = plain(sight_of(item)) or ("any excess" if item.exact else "")
        rows.append(f"| {MARK[item.verdict]} | {plain(item.budget)} | {plain(item.sentence)}{why} | {sight} |")
    return "\n".join(rows)


def plain(text: str) -> str:
    """Text that Markdown takes for nothing but text, inside a table too."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|`*_\[\]~#!@])", r"\\\1", text)


def annotations_of(found: Gate) -> Iterator[str]:
    """Workflow commands of GitHub Actions: an error for a failure, a warning for an unknown, at the budget's line.

    GitHub Docs, "Workflow commands for GitHub Actions": of the data %, CR and LF are escaped, of properties : and , too.
    """
    for verdict, command in (("fail", "error"), ("unknown", "warning")):
        items = [item for item in found.rulings if item.gating and item.verdict == verdict]
        for item in items[:ANNOTATIONS_MAX]:
            yield f"::{command} {place(item)}title={escaped(item.budget, ':,')}::{escaped(item.sentence)}"
        if len(items) > ANNOTATIONS_MAX:
            yield f"::notice title=farwrite gate::{len(items) - ANNOTATIONS_MAX} more are in the report"


def place(ruling: Ruling) -> str:
    """Where the budget is written, as properties."""
    file, _, line = ruling.place.rpartition(":")
    return f"file={escaped(file, ':,')},line={line}," if file and line.isdigit() else ""


def escaped(text: str, also: str = "") -> str:
    """Text as a workflow command takes it."""
    for character in f"%\r\n{also}":
        text = text.replace(character, f"%{ord(character):02X}")
    return text
