"""`farwrite reach`: the greatest distance at which a budget holds."""

from __future__ import annotations

import json as json_

from ..base.errors import UsageError
from .measuring import NEW, PLAIN, Session, Showing, measured
from .options import AS_USUAL, LoadOptions

TABLE = """
title = "How far {budget} reach at {quantile}"
[distance]
miles = [0.0, {farthest}]
[run]
rounds = 5
round = "{round_ns} ns"
survey_echoes = 40
[reach]
{quantile} = "{budget_ns} ns"
time = "{minutes} min"
[[cell]]
name = "write"
protocols = ["C"]
"""


def reach(
    *,
    p99: str | None = None,
    p50: str | None = None,
    minutes: float = 3.0,
    options: LoadOptions = AS_USUAL,
    session: Session = NEW,
    showing: Showing = PLAIN,
) -> int:
    """Search for the greatest distance at which a budget for a write's latency holds.

    Starts from the distance whose light alone exhausts the budget, and measures ever closer to where the latency crosses it.
    Exit code 0 when the answer is known, 4 when it is not. One write of 4 KiB at a time under protocol C, unless told otherwise.

    Parameters
    ----------
    p99
        The budget for the 99th percentile of response times, such as "4 ms".
    p50
        The budget for the median, instead.
    minutes
        How long to measure at most (reach.time).
    """
    from ..workload.profile import parse

    profile = None
    if not session.continues(p99, p50, options.given()):
        table = table_of(p99, p50, minutes, options)
        profile = parse(table, "reach", [*session.changes, options.change(session.set_)])
    return measured(profile, "reach", session, showing)


def table_of(p99: str | None, p50: str | None, minutes: float, options: LoadOptions) -> str:
    """The profile of a question, as text."""
    from ..base.physics import miles_of
    from ..base.protocol import PROMISES
    from ..base.units import NS_PER_MS, NS_PER_S, time_ns
    from ..experiment.reach import FARTHEST_WITHOUT_TRIPS, round_ns_of

    if (p99 is None) == (p50 is None):
        raise UsageError('Give one budget: --p99 "4 ms" (reach.p99), or --p50 "4 ms" (reach.p50).')
    quantile, text = ("p99", p99) if p99 is not None else ("p50", p50)
    budget_ns = time_ns(str(text), f"--{quantile} (reach.{quantile})")
    if not 0 < budget_ns <= 10 * NS_PER_S:
        raise UsageError(f'--{quantile} (reach.{quantile}): "{text}" must lie above 0 s, and at most at 10 s.')
    if not 0 < minutes <= 1440:
        raise UsageError("--minutes (reach.time): give a number above 0, and at most 1440.")
    protocols = options.change().protocols or ["C"]
    trips = min(PROMISES[name].trips for name in protocols)
    farthest = min(miles_of(budget_ns / trips), 15_000.0) if trips else FARTHEST_WITHOUT_TRIPS
    return TABLE.format(
        budget=f"{budget_ns / NS_PER_MS:g} ms", quantile=quantile, budget_ns=budget_ns, farthest=f"{farthest:.4f}",
        round_ns=round_ns_of(budget_ns, {"p50": 0.5, "p99": 0.99}[quantile]), minutes=json_.dumps(minutes),
    )  # fmt: skip
