"""`farwrite run --dry-run`: the cells that a profile comes to, and how long they would take. Nothing is opened or written."""

from __future__ import annotations

from pathlib import Path

from ..base.errors import EXIT_DONE
from ..base.units import NS_PER_S, counted, foreseen_text, format_size, format_time
from ..workload.tables import Profile
from .output import console, print_document, printing


def show_plan(profile: Profile, name: str, json: bool) -> int:
    """Print what `farwrite run` would measure."""
    from rich.table import Table

    from ..experiment.cells import cells_of
    from ..experiment.expected import expected_s
    from ..experiment.run_journal import Run
    from ..report.page import Form, Page, add_row, table_of

    made = Run(profile, name, 1, Path())
    made.cells = cells_of(profile, made.workloads)
    seconds = expected_s(made)
    table, drill = profile.run, profile.drill
    drills = 2 * drill.kills * len(drill.protocols)
    if json:
        with printing():
            print_document({"profile": name, "title": profile.title, "cells": made.cells, "rounds": table.rounds,
                            "round_s": table.round_ns / NS_PER_S, "drills": drills, "expected_s": round(seconds, 1),
                            "budgets": [budget.text for budget in profile.budget]})  # fmt: skip
        return EXIT_DONE

    def make(form: Form) -> Table:
        shown = table_of(form, "cell", "protocol", "miles", "round trip", "size", "depth", "load", text_columns=2)
        for cell in made.cells:
            load = cell.arrival if cell.offered_per_s is None else f"{cell.arrival}, {cell.offered_per_s:g}/s"
            size = format_size(cell.size_bytes)
            rtt = format_time(cell.asked_rtt_ns) if cell.asked_rtt_ns else "the lab's own"
            add_row(shown, cell.id, cell.protocol, f"{cell.miles:g}", rtt, size, str(cell.queue_depth), load)
        return shown

    with printing():
        page = Page(console())
        page.prose(f"{name}: {profile.title}")
        page.table(make)
        rounds = f"{counted(len(made.cells), 'cell')}, each in {counted(table.rounds, 'round')} of {format_time(table.round_ns)}"
        kinds = f"{counted(drill.kills, 'kill')} and as many cuts under {', '.join(drill.protocols)}"
        after = f", then {counted(drills, 'drill')} ({kinds})" if drills else ""
        if profile.budget:
            page.prose(f"Budgets: {', '.join(budget.text for budget in profile.budget)}.")
        page.prose(f"{rounds}{after}: about {foreseen_text(seconds)} once the engine is compiled. Nothing was measured.")
    return EXIT_DONE
