"""The first screen below the answer: latency by protocol and distance, and how far each budget holds.

One row a cell, without footnotes: why a row is missing, or no verdict rests on it, is said once below the table. What is left
out here (p99.9, throughput, other route factors, floors in words) is in the tables of the whole report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial

from rich.table import Table
from rich.text import Text

from ..analysis.answer import PREFERRED, Reach, main_cells, reaches
from ..analysis.result import Analysis, CellResult, beaten_doubt
from ..base.reasons import HOST_NOISE, Reason
from ..base.units import NS_PER_MS
from . import tables
from .digits import UNKNOWN, Digits
from .page import Footnotes, Form, Page, add_row, cell, table_of

ROWS_MAX = 30  # Of all workloads together; the first is shown whatever it has.
DOUBTED = "?"
BEATEN = "!"  # Behind an efficiency above 100 %.
TOO_FEW = "fewer than three distances have one"


class Unmarked(Footnotes):
    """No superscripts: the first screen has no footnotes."""

    def mark(self, reasons: Iterable[Reason | str]) -> str:
        return ""


def show_summary(page: Page, analysis: Analysis) -> None:
    """The tables a decision needs, and where the rest is."""
    if not analysis.cells:
        page.prose("\nNo cell was measured: there is nothing to rule on.")
    groups = [in_order(group) for group in tables.workloads(analysis.cells)]
    shown, left_out = those_that_fit(groups)
    show_table(page, shown)
    for group in shown:
        if all(item.response_ns_p50.value is None for item in group):
            tables.show_parts(page, group)  # A load without writes has its reads there.
    if left_out:
        page.prose(f"Not shown here: {', '.join(group[0].name for group in left_out)}.", style="dim")
    show_reach(page, analysis)
    show_more(page, analysis)


def in_order(cells: Sequence[CellResult]) -> list[CellResult]:
    """The strictest protocol first, and its distances."""
    return sorted(cells, key=lambda item: (PREFERRED.index(item.protocol), item.miles))


def those_that_fit(groups: Sequence[list[CellResult]]) -> tuple[list[list[CellResult]], list[list[CellResult]]]:
    """The workloads to show, and those to name only."""
    rows = 0
    for index, group in enumerate(groups):
        rows += len(group)
        if index and rows > ROWS_MAX:
            return list(groups[:index]), list(groups[index:])
    return list(groups), []


# --- Latency ---------------------------------------------------------------------------------------------------


def show_table(page: Page, groups: Sequence[Sequence[CellResult]]) -> None:
    """Protocol x miles, a row for each cell that has a median."""
    known = [kept for group in groups if (kept := [item for item in group if item.response_ns_p50.value is not None])]
    cells = [item for group in known for item in group]
    if known:
        page.heading(f"Write latency: {tables.title_of(cells[0])}" if len(known) == 1 else "Write latency")
        page.table(partial(latency_table, known))
        if len(known) > 1:
            page.prose("; ".join(tables.title_of(group[0]) for group in known) + ".", style="dim")
        page.prose(
            f"Response times; [ ] is the interval{tables.confidence_of(cells)}. "
            "eff: floor, a bare echo and flush here, over p50.",
            style="dim",
        )
    for text in doubted_texts(cells, many=len(groups) > 1):
        page.item(DOUBTED, text, style="dim")
    beaten = [item for item in cells if beaten_doubt(item.efficiency)]
    if beaten:
        page.item(BEATEN, f"{tables.places(beaten, len(groups) > 1)}: {beaten_doubt(beaten[0].efficiency)}", style="dim")
    for text in tables.missing_texts([item for group in groups for item in group], many=len(groups) > 1):
        page.item("·", text, style="dim")


def latency_table(groups: Sequence[Sequence[CellResult]], form: Form) -> Table:
    named = ["workload"] if len(groups) > 1 else []
    table = table_of(
        form, *named, "prot", "miles", "p50\nms", "p99\nms", "floor\nms", "eff\n%", text_columns=4 + len(named)
    )  # fmt: skip
    table.columns[len(named) + 1].justify = "right"
    notes, values_only = Unmarked(), Form("none", form.gap)
    for group in groups:
        if table.row_count:
            table.rows[-1].end_section = True
        p50 = Digits.of((item.response_ns_p50 for item in group), NS_PER_MS)
        p99 = Digits.of((item.response_ns_p99 for item in group), NS_PER_MS)
        floor = Digits.of((item.floor_ns for item in group), NS_PER_MS)
        efficiency = Digits.of((item.efficiency for item in group), 0.01, places_max=0)
        beside = " " if any(beaten_doubt(item.efficiency) for item in group) else ""
        protocols = tables.changes(item.protocol for item in group)
        for index, (protocol, item) in enumerate(zip(protocols, group, strict=True)):
            style = "dim" if item.latency_doubts else ""
            name = Text(protocol)
            add_row(
                table,
                *([group[0].name if not index else ""] if named else []),
                name,
                Text(f"{tables.miles_text(item.miles)}{DOUBTED if item.latency_doubts else ' '}", style=style),
                cell(item.response_ns_p50, p50, form, notes, style),
                cell(item.response_ns_p99, p99, form, notes, style),
                cell(item.floor_ns, floor, values_only, notes, style),
                cell(item.efficiency, efficiency, values_only, notes, style, BEATEN if beaten_doubt(item.efficiency) else beside),
            )
    return table


def doubted_texts(cells: Sequence[CellResult], many: bool) -> list[str]:
    """Why no verdict rests on the rows that are marked, one sentence a reason."""
    reasons: dict[str, list[tuple[str, CellResult]]] = {}
    for item in cells:
        for reason in item.latency_doubts[:1]:
            first = re.split(r"[,;]|: ", reason.sentence.removeprefix(f"{HOST_NOISE}: "), maxsplit=1)[0]
            reasons.setdefault(reason.code, []).append((first, item))
    return [
        f"no verdict on latency rests on {tables.places([item for _, item in found], many)}: "
        f"{tables.summed_up(reason for reason, _ in found)[0]}"
        for found in reasons.values()
    ]


# --- How far ---------------------------------------------------------------------------------------------------


def show_reach(page: Page, analysis: Analysis) -> None:
    """How far each budget holds for the workload and protocol that the answer is about."""
    cells = main_cells(analysis)
    budgets = sorted({item.budget_ns for item in analysis.miles})
    if not cells or not budgets:
        return
    rows = {budget: reaches(cells, analysis, budget) for budget in budgets}
    if all(reach.kind == "unknown" for row in rows.values() for reach in row.values()):
        return
    page.heading(f"Greatest miles of glass at which a budget holds: {cells[0].name}, protocol {cells[0].protocol}")

    labels = [label for label in ("p50", "p99") if any(row[label].kind != "unknown" for row in rows.values())]

    def make(form: Form) -> Table:
        table = table_of(form, "budget", *(f"at {label}" for label in labels), text_columns=3)
        for budget, row in rows.items():
            words = [UNKNOWN if row[label].kind == "unknown" else aligned(row[label]) for label in labels]
            add_row(table, f"{budget / NS_PER_MS:g} ms", *words)
        return table

    page.table(make)
    for label in ("p50", "p99"):
        unknown = [row[label].why or TOO_FEW for row in rows.values() if row[label].kind == "unknown"]
        for reason in dict.fromkeys(unknown):
            page.item("·", f"unknown at {label}: {reason}", style="dim")
    page.prose("Over a real route divide by 1.3 (best conduit) to 2.1 (rule of thumb).", style="dim")


def aligned(reach: Reach) -> str:
    """Its text, a number of miles under the others."""
    return f"{reach.text.split()[0]:>4} {reach.text.partition(' ')[2]}" if reach.kind == "miles" else reach.text


def show_more(page: Page, analysis: Analysis) -> None:
    """Where everything else is."""
    count = len(analysis.warnings)
    warnings = f"{count} warning{'s' if count > 1 else ''}, " if count else ""
    page.prose("")
    page.prose(f"More with --full: {warnings}verdicts in detail, proof of link, floors, fits, drills, counts, host.", style="dim")
