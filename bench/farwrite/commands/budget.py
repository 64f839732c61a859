"""`farwrite budget`: propose budgets from measured noise, and list what a budget may be about."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from ..base.errors import EXIT_DONE, UsageError
from ..base.files import STDOUT, descriptor_of, write_atomically
from .examples import below
from .flags import Flag
from .output import printing
from .reports import named_each
from .values import a_report

budget = App(name="budget", help="Propose budgets, and list what they may be about.", help_epilogue=below("budget"))


@budget.command(help_epilogue=below("budget suggest"))
def suggest(
    *reports: Annotated[Path, a_report], out: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None
) -> int:
    """Propose budgets that a report keeps, with no more room than its noise needs.

    Parameters
    ----------
    reports
        Reports of the same workload on one machine; from several it learns what differs from run to run.
    out
        Write the budgets to this file, which must not be there yet; stdout otherwise.
    """
    from ..analysis.change import check_alike
    from ..compare.figures import read_sheet
    from ..gate.suggest import suggest as proposed

    if not reports:
        raise UsageError("From which reports? farwrite budget suggest REPORT …")
    sheets = [read_sheet(path) for path in named_each(reports)]
    check_alike(sheets[:1], sheets[1:], set())
    text = proposed(sheets)
    if out is None or descriptor_of(out) is not None:
        with printing():
            write_atomically(out or Path(STDOUT), text.encode())
        return EXIT_DONE
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as refusal:
        raise UsageError(f"write {out}: {refusal.strerror}.") from refusal
    print(f"saved: {out}", file=sys.stderr)
    return EXIT_DONE


@budget.command(help_epilogue=below("budget metrics"))
def metrics(*, markdown: Flag = False) -> int:
    """List every metric of a report: its unit, which direction is better, and what it is.

    Parameters
    ----------
    markdown
        Print them as Markdown: docs/metrics.md.
    """
    from ..analysis.figure import METRICS, metrics_page

    width = max(map(len, METRICS))
    lines = [f"{name:<{width}}  {metric.meaning}{metric.note}" for name, metric in METRICS.items()]
    with printing():
        print(metrics_page() if markdown else "\n".join(lines))
    return EXIT_DONE
