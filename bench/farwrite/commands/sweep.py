"""`farwrite sweep`: a grid of distances, depths, sizes and protocols, as a heat map."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..base.errors import UsageError
from .measuring import NEW, PLAIN, Session, Showing, measured
from .options import ANYWHERE, POINTS_MAX, RANGE_POINTS, Options

if TYPE_CHECKING:
    from ..experiment.run_journal import Run
    from ..recording import Report

TABLE = """
title = "A sweep over distances"
[distance]
miles = [0, 20, 60, 100, 150, 186]
[run]
rounds = 3
round = "600 ms"
survey_echoes = 40
[sweep]
time = "{minutes} min"
[[cell]]
name = "write"
protocols = ["C"]
"""


def sweep(
    *,
    options: Options = ANYWHERE,
    points: int = RANGE_POINTS,
    minutes: float = 5.0,
    dask: str | None = None,
    session: Session = NEW,
    showing: Showing = PLAIN,
) -> int:
    """Measure a grid of cells, more rounds where intervals are wide, and draw it as a heat map.

    Exits with 0 once it has measured, whatever the report says; 5 when acknowledged writes are lost, 6 without one good round.

    Parameters
    ----------
    points
        How many distances a range without a step has.
    minutes
        How long to measure: three rounds of every cell in any case, and more where intervals are widest (sweep.time).
    dask
        Spread the workloads over the workers of the Dask scheduler at this address, each with a lab of its own.
    """
    from ..base.dask_client import check_address
    from ..workload.profile import parse

    if not 2 <= points <= POINTS_MAX:
        raise UsageError(f"--points: 2 to {POINTS_MAX} distances.")
    if not 0 < minutes <= 1440:
        raise UsageError("--minutes (sweep.time): give a number above 0, and at most 1440.")
    if dask is not None:
        check_address(dask)
    profile = None
    if not session.continues(options.given()):
        change = options.change(session.set_, points)
        profile = parse(TABLE.format(minutes=minutes), "sweep", [*session.changes, change])
    execute = spread_over(dask) if dask is not None else None
    return measured(profile, "sweep", session, showing, execute=execute)


def spread_over(address: str) -> Callable[[Run], Report]:
    """What executes a sweep on a Dask cluster."""

    def execute(run: Run) -> Report:
        from ..base.dask_client import connected
        from ..experiment.cells import cells_of
        from ..experiment.expected import expected_s
        from ..experiment.map_cells import over_dask
        from ..experiment.run import finished
        from ..experiment.sweep import sweep as fill

        run.cells = cells_of(run.profile, run.workloads)
        try:
            with connected(address) as client:
                run.progress.doing("opening a lab on every worker")
                with over_dask(run, client) as map_cells:
                    run.progress.expect(expected_s(run))
                    fill(run, map_cells)
        except KeyboardInterrupt:
            run.interrupted = True
        if run.lab_facts is None:
            raise KeyboardInterrupt
        return finished(run)

    return execute
