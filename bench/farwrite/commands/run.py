"""`farwrite run`: measure a profile and print the report."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from ..base.errors import UsageError
from .flags import Flag
from .measuring import NEW, PLAIN, Session, Showing, check_texts, measured
from .options import ANYWHERE, Options, own_budgets
from .values import a_profile, a_trace

DEFAULT = "limits"


def run(
    profile: Annotated[str | None, a_profile] = None,
    *,
    trace: Annotated[str | None, a_trace] = None,
    format: str | None = None,
    options: Options = ANYWHERE,
    duration: str | None = None,
    far: str | None = None,
    budget: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    dry_run: Flag = False,
    session: Session = NEW,
    showing: Showing = PLAIN,
) -> int:
    """Measure a profile and print the report.

    Exits with 0 once it has measured, whatever the report says; 5 when acknowledged writes are lost, 6 without one good round.

    Parameters
    ----------
    profile
        Name of a shipped profile (see "farwrite profiles"), or path of a TOML file or of a fio job file; limits unless named.
    trace
        Replay recorded I/O instead of a profile: a trace as "farwrite trace info" reads it, or the name of a shipped one.
    format
        What the trace is, where its content does not say it: alibaba or tencent.
    duration
        Length of each round, such as "2 s"; short for --set run.round=...
    far
        A machine for the far site, as ssh://host[:port][/directory]: the link to it is measured, not emulated. Short for
        --set lab.far_host=...
    budget
        What a write may take, such as "p99 2 ms", or "p99 2 ms at 40 miles" for one of the distances: the report says where that
        holds, and how far. A profile has them as [[budget]]. May be repeated.
    dry_run
        Measure nothing: print the cells, and how long the run would take.
    """
    from ..experiment.cells import cells_of
    from ..workload.catalog import find, is_fio_job, load
    from ..workload.toml_reader import Change
    from ..workload.trace.trace import find as find_trace

    check_texts(profile, trace)
    if session.continues(duration, far, trace, format, dry_run, budget, options.given()):
        return measured(None, profile or "", session, showing)
    if trace and profile:
        raise UsageError(f"--trace {trace} is replayed by itself, and {profile} is another workload: give one of the two.")
    if format and not trace:
        raise UsageError(f"--format {format} names the format of a trace: it goes with --trace.")
    profile = profile or DEFAULT
    asked = options.change(session.set_)
    changes: list[Change] = [*session.changes]
    changes += [f'run.round="{duration}"'] if duration else []
    changes += [f'lab.far_host="{far}"'] if far else []
    changes += [asked, own_budgets(budget)]
    bent: list[str] = []
    if trace:
        from ..workload.trace.replay import name_of, profile_of

        chosen, bent = profile_of(trace, format or "", changes)
        profile = name_of(find_trace(trace))
        if not showing.quiet:
            print("\n".join(bent), file=sys.stderr)
    elif is_fio_job(find(profile)):
        from ..workload.fio import translate

        translated = translate(find(profile), changes)
        chosen, bent = translated.profile, translated.sentences()
        if not showing.quiet:
            print("\n".join(translated.lines()), file=sys.stderr)
    else:
        chosen = load(profile, changes)
    cells_of(chosen)  # A trace that cannot be read is refused before anything is compiled or written.
    if dry_run:
        from .dry_run import show_plan

        return show_plan(chosen, profile, showing.json)
    return measured(chosen, profile, session, showing, [*bent, *asked.merged])
