"""The earlier runs that two runs are held against, for every command that compares two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..analysis.between_runs import RunHistory
    from ..analysis.figure import ResultSet


def history_beside(results: Path, base: ResultSet | None, cand: ResultSet) -> RunHistory:
    """Earlier runs below `results` that are like the base; none where there is no base, and for arms of one experiment."""
    from ..analysis.between_runs import EarlierRuns, RunHistory
    from ..analysis.change import are_paired

    if base is None or are_paired(base, cand):
        return RunHistory(EarlierRuns(results=str(results), runs=0), {})
    from ..compare.history import earlier_runs

    return earlier_runs(results, base, [base, cand])
