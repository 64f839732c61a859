"""`farwrite history`: how a metric went from run to run, and where it changed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..base.errors import EXIT_DONE, UsageError
from .flags import Flag
from .output import console, print_document, printing
from .values import a_metric


def history(
    metric: Annotated[str, a_metric],
    *,
    where: Annotated[list[str] | None, Parameter(negative="")] = None,
    results: Path = Path("results"),
    last: int | None = None,
    json: Flag = False,
) -> int:
    """Draw how a metric went from run to run, and name the runs at which it changed.

    Parameters
    ----------
    metric
        Such as response_p99 or throughput.
    where
        Only series with this label, such as protocol=C or miles=20, or of runs with it, such as host=Xeon. May be repeated.
    results
        Directory whose runs and baselines are read.
    last
        Show only so many runs of each series; changes are found by all of them.
    json
        Print a document instead, with all runs.
    """
    from ..compare import history as histories

    if last is not None and last < 1:
        raise UsageError(f"--last {last}: show at least 1 run.")
    found = histories.history(results, metric, where or [])
    for notice in found.notices:
        print(f"farwrite: {notice}", file=sys.stderr)
    with printing():
        if json:
            print_document(found)
        else:
            from ..report.history import show

            show(found, console(), last)
    return EXIT_DONE
