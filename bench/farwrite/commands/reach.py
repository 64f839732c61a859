"""`farwrite reach`: the greatest distance at which a budget holds."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ..errors import UsageError
from .measuring import Showing, check_seed, check_texts, measured

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
    protocol: str | None = None,
    depth: str | None = None,
    size: str | None = None,
    read_share: str | None = None,
    pattern: str | None = None,
    rate: str | None = None,
    loss: str | None = None,
    minutes: float = 3.0,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    seed: int = 1,
    link: Literal["auto", "netem", "ferry", "relay"] | None = None,
    out: Path | None = None,
    resume: Path | None = None,
    full: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"), negative="")] = False,
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), negative="")] = False,
) -> int:
    """Search for the greatest distance at which a budget for a write's latency holds.

    Starts from the distance whose light alone exhausts the budget, and measures ever closer to where the latency crosses it.
    Exit code 0 when the answer is known, 4 when it is not.

    Parameters
    ----------
    p99
        The budget for the 99th percentile of response times, such as "4 ms".
    p50
        The budget for the median, instead.
    protocol
        Protocol, C by default (cell.protocols).
    depth
        Writes under way at once, 1 by default (cell.queue_depth).
    size
        Bytes of a write, such as 8k, 4k by default (cell.block).
    read_share
        Share of reads, such as 30% (cell.reads).
    pattern
        Order of addresses: uniform, sequential, zipf ... (cell.address).
    rate
        Rate of the link, such as 1gbit (link.rate).
    loss
        Share of packets that the link loses, such as 0.01% (link.loss).
    minutes
        How long to measure at most (reach.time).
    set_
        Change any other value of the profile, such as lab.durability=memory. May be repeated.
    seed
        What addresses, payloads and the order of cells are drawn from.
    link
        How the distance is emulated.
    out
        Directory of the results; by default a new one below results/runs.
    resume
        Continue the interrupted search in this directory.
    full
        Print the whole report, not only its first screen; "farwrite show --full" prints it later.
    json
        Print the report document instead of the report.
    verbose
        Say on stderr of every round that was void or failed why it was.
    quiet
        Say nothing on stderr but refusals.
    """
    from ..options import Options
    from ..profile import parse

    check_texts(out, resume)
    options = Options(
        protocol=protocol, depth=depth, size=size, read_share=read_share, pattern=pattern, rate=rate, loss=loss
    )  # fmt: skip
    profile = None
    if resume is not None:
        if p99 or p50 or options.given() or set_ or link or out:
            raise UsageError("--resume continues a search as it was begun; it goes with --json, --full, -v and -q only.")
    else:
        changes = [*(set_ or []), *([f'lab.link="{link}"'] if link else [])]
        profile = parse(table_of(p99, p50, minutes, options), "reach", [*changes, options.change(set_ or [])])
    check_seed(seed)
    return measured(profile, "reach", seed, out, resume, Showing(json, full, verbose, quiet))


def table_of(p99: str | None, p50: str | None, minutes: float, options) -> str:
    """The profile of a question, as text."""
    from ..physics import miles_of
    from ..protocol import PROMISES
    from ..reach import FARTHEST_WITHOUT_TRIPS, round_ns_of
    from ..units import NS_PER_MS, NS_PER_S, time_ns

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
