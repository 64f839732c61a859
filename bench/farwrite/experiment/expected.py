"""How long a run will take, as well as it can be foreseen: for the time left, and for --dry-run. Loads no kernel."""

from __future__ import annotations

from ..base.units import NS_PER_S
from .run_journal import Run

ROUND_OVERHEAD_S = 0.45  # Survey, connection, audit: for the estimate of the time left only.


def expected_s(run: Run) -> float:
    """How long what is still missing will take."""
    search_ns = run.profile.reach.time_ns if run.profile.reach.budget_ns else run.profile.sweep.time_ns
    if search_ns:
        return search_ns / NS_PER_S
    done = {(item.cell, item.index) for item in run.rounds if item.status == "ok"}
    cells = sum((cell.id, index) not in done for cell in run.cells for index in range(run.profile.run.rounds))
    table = run.profile.drill
    drills = max(2 * table.kills * len(table.protocols) - len(run.drills), 0)
    return cells * round_s(run) + drills * drill_s(run)


def round_s(run: Run) -> float:
    """About how long one cell takes."""
    return run.profile.run.round_ns / NS_PER_S + ROUND_OVERHEAD_S


def drill_s(run: Run) -> float:
    """About how long one drill takes."""
    return (run.profile.drill.load_ns + run.profile.drill.cut_ns) / NS_PER_S + 0.5
