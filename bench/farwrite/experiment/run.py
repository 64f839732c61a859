"""The arrow: profile, plan, lab, target, recording. `execute` is the whole experiment in one place.

Cells are measured in interleaved rounds, in a new random order each round, so that the machine's drift hits all alike.
A round that is void is measured again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from ..base.errors import UnfitError
from ..lab.lab import Lab
from ..lab.process import naming_lost_carriers
from ..recording import REPORT_NAME, Report, save
from ..workload.tables import Profile
from .cells import cells_of
from .expected import expected_s
from .measure import drill, facts_of, lab_of, measure
from .reach import search
from .run_journal import Awake, Entry, Run, keep, recording_of
from .sweep import sweep_here


def execute(run: Run) -> Report:
    """Measure what is still missing, analyse, and save; an interrupted run is saved as far as it came."""
    profile = run.profile
    run.cells = run.chosen or cells_of(profile, run.workloads)
    try:
        with lab_of(as_begun(run), run.directory) as lab:
            begin_awake(run, lab)
            run.lab_facts = facts_of(lab)
            run.progress.begin(run.cells, profile.run.rounds, run.rounds)
            run.progress.expect(expected_s(run))
            with naming_lost_carriers():
                measurement_of(profile)(run, lab)
                drill(run, lab)
            run.lab_facts = facts_of(lab)
    except KeyboardInterrupt:
        run.interrupted = True
    if run.lab_facts is None:
        raise KeyboardInterrupt
    return finished(run)


def measurement_of(profile: Profile) -> Callable[[Run, Lab], None]:
    """What measures a profile's cells in an open lab: all rounds of all cells, a search, or a sweep."""
    if profile.reach.budget_ns:
        return search
    if profile.sweep.time_ns:
        return sweep_here
    return measure


def finished(run: Run) -> Report:
    """The report of what was observed, analysed and saved."""
    from ..analysis import document_of

    report = document_of(recording_of(run))
    path = run.directory / REPORT_NAME
    try:
        save(report, path)
    except OSError as refusal:
        raise UnfitError(f"save {path}: {refusal.strerror}.") from refusal
    return report


def as_begun(run: Run) -> Profile:
    """The profile; for a run that goes on, what keeps the processors awake is what its first rounds had."""
    if run.awake is None:
        return run.profile
    table = msgspec.structs.replace(run.profile.lab, keep_awake=run.awake.chosen)
    return msgspec.structs.replace(run.profile, lab=table)


def begin_awake(run: Run, lab: Lab) -> None:
    """Keep in the journal what was decided, once a run; one that goes on has the reasons of its beginning."""
    if run.awake is None:
        keep(run, Entry(awake=Awake(lab.awake.chosen, lab.awake.reason, lab.awake.mend)))
    else:
        lab.awake = replace(lab.awake, reason=run.awake.reason, mend=run.awake.mend)
