"""`farwrite sweep`: a grid of distances, depths, sizes and protocols, as a heat map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ..errors import UsageError
from .measuring import Showing, check_seed, check_texts, measured

if TYPE_CHECKING:
    from ..recording import Report
    from ..run import Run

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
    miles: str | None = None,
    points: int = 6,
    protocol: str | None = None,
    depth: str | None = None,
    size: str | None = None,
    read_share: str | None = None,
    pattern: str | None = None,
    rate: str | None = None,
    loss: str | None = None,
    minutes: float = 5.0,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    seed: int = 1,
    link: Literal["auto", "netem", "ferry", "relay"] | None = None,
    dask: str | None = None,
    out: Path | None = None,
    resume: Path | None = None,
    full: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"), negative="")] = False,
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), negative="")] = False,
) -> int:
    """Measure a grid of cells, more rounds where intervals are wide, and draw it as a heat map.

    Parameters
    ----------
    miles
        Distances, such as 0,20,150 or 0..500 or 0..500:50 or 100km (distance.miles).
    points
        How many distances a range without a step has.
    protocol
        Protocols, such as A,C (cell.protocols).
    depth
        Writes under way at once, such as 1,8,32 (cell.queue_depth).
    size
        Bytes of a write, such as 4k,64k (cell.block).
    read_share
        Shares of reads, such as 0,30% (cell.reads).
    pattern
        Orders of addresses, such as uniform,sequential (cell.address).
    rate
        Rate of the link, such as 1gbit (link.rate).
    loss
        Share of packets that the link loses, such as 0.01% (link.loss).
    minutes
        How long to measure: three rounds of every cell in any case, and more where intervals are widest (sweep.time).
    set_
        Change any other value of the profile, such as run.rounds=5. May be repeated.
    seed
        What addresses, payloads and the order of cells are drawn from.
    link
        How the distance is emulated.
    dask
        Spread the workloads over the workers of the Dask scheduler at this address, each with a lab of its own.
    out
        Directory of the results; by default a new one below results/runs.
    resume
        Continue the interrupted sweep in this directory.
    full
        Print the whole report, not only its first screen; "farwrite show --full" prints it later.
    json
        Print the report document instead of the report.
    verbose
        Say on stderr of every round that was void or failed why it was.
    quiet
        Say nothing on stderr but refusals.
    """
    from ..dask_client import check_address
    from ..options import POINTS_MAX, Options
    from ..profile import parse

    check_texts(out, resume)
    if not 2 <= points <= POINTS_MAX:
        raise UsageError(f"--points: 2 to {POINTS_MAX} distances.")
    if not 0 < minutes <= 1440:
        raise UsageError("--minutes (sweep.time): give a number above 0, and at most 1440.")
    options = Options(miles, protocol, depth, size, read_share, pattern, rate, loss, points)
    profile = None
    if resume is not None:
        if options.given() or set_ or link or out:
            raise UsageError("--resume continues a sweep as it was begun; it goes with --dask, --json, --full, -v and -q only.")
    else:
        changes = [*(set_ or []), *([f'lab.link="{link}"'] if link else [])]
        table = TABLE.format(minutes=minutes)
        profile = parse(table, "sweep", [*changes, options.change(set_ or [])])
    check_seed(seed)
    if dask is not None:
        check_address(dask)
    showing = Showing(json, full, verbose, quiet)
    execute = spread_over(dask) if dask is not None else None
    return measured(profile, "sweep", seed, out, resume, showing, execute=execute)


def spread_over(address: str) -> Callable[[Run], Report]:
    """What executes a sweep on a Dask cluster."""

    def execute(run: Run) -> Report:
        from ..cells import cells_of
        from ..dask_client import connected
        from ..map_cells import over_dask
        from ..pipeline import expected_s, finished
        from ..sweep import sweep as fill

        run.cells = cells_of(run.profile)
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
