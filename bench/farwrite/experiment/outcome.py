"""What a run's end means for the exit code."""

from __future__ import annotations

from ..base.errors import BrokenError, FarwriteError, InconclusiveError, LostWriteError, UnfitError
from ..base.protocol import DURABLE
from ..recording import Recording, Report


def outcome(report: Report, strict: bool = False) -> FarwriteError | None:
    """What a run's end means for the exit code: None when it is done, otherwise the error to leave with.

    Measuring that worked is done, whatever it found: what claims, and cells without a good round, come to is in the report.
    `strict` makes these errors too. A search is asked one thing, so without its answer it is not done.
    """
    recording = report.recording
    if lost := lost_writes(recording):
        return lost
    if recording.interrupted:
        return None
    good = {item.cell for item in recording.rounds if item.status == "ok"}
    if not good:
        return UnfitError("No round had the link it was meant to have: this machine is too busy to emulate it.")
    reach = getattr(report.analysis, "reach", None)
    if strict and (refusal := broken_or_unknown(report, good)):
        return refusal
    if reach is not None and reach.unknown:
        return InconclusiveError(f"How far the budget reaches is unknown: {reach.unknown[0]}.")
    return None


def lost_writes(recording: Recording) -> LostWriteError | None:
    """The error for acknowledged writes that are gone, or not what was written."""
    protocols = {cell.id: cell.protocol for cell in recording.cells}
    audits = [item.audit for item in recording.rounds if item.audit]
    promised = [
        item.audit for item in recording.rounds
        if item.audit and (item.status == "ok" or protocols[item.cell] in DURABLE)
    ]  # fmt: skip
    promised += [item.audit for item in recording.drills if item.protocol in DURABLE]
    lost = sum(item.lost for item in promised)
    damaged = sum(item.damaged for item in [*audits, *(drill.audit for drill in recording.drills)])
    if not (lost or damaged):
        return None
    return LostWriteError(f"{lost} acknowledged writes were lost and {damaged} damaged. The report names the cells.")


def broken_or_unknown(report: Report, good: set[str]) -> FarwriteError | None:
    """With --strict: the error for a budget or a claim that fails, then for one that is undecided and cells without a round."""
    recording = report.recording
    asked = recording.profile
    # A search and a sweep are about what they were asked, and about none of the claims.
    is_search = asked.reach.budget_ns or asked.sweep.time_ns
    claims = getattr(report.analysis, "budgets" if is_search else "verdicts", [])
    for verdict, kind in (("fail", BrokenError), ("unknown", InconclusiveError)):
        found = [claim for claim in claims if claim.verdict == verdict]
        if found:
            rest = f" (and {', '.join(claim.id for claim in found[1:])})" if found[1:] else ""
            return kind(f"--strict: {found[0].id} {'fails' if verdict == 'fail' else 'is undecided'}{rest}: {found[0].sentence}")
    without = [cell.id for cell in recording.cells if cell.id not in good]
    if without:
        return InconclusiveError(f"--strict: not one good round for {', '.join(without)}: their rows are unknown.")
    uncounted = [item for item in getattr(report.analysis, "drills", []) if not item.count]
    if uncounted:
        what = ", ".join(f"{item.kind} under {item.protocol}" for item in uncounted)
        return InconclusiveError(f"--strict: not one trial counts of {what}: {uncounted[0].uncounted_text}.")
    return None
