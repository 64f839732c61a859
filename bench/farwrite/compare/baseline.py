"""Baselines: runs that others are held against, kept by name below `results/baselines`.

A baseline is the report itself, analysed by the farwrite that keeps it, so whoever reads it need not. What makes a run a poor
thing to be held against is named, and keeps it out unless it is forced in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .. import recording as recordings
from ..analysis.result import Analysis, lateness_share_of
from ..base.documents import SUFFIX, found_at, found_in, named_below
from ..base.errors import FarwriteError, UsageError, nearest
from ..base.protocol import DURABLE
from ..base.reasons import joined
from ..recording import REPORT_NAME, SCHEMA_VERSION, Recording, Report, upgraded
from .figures import identity_of

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Baseline(NamedTuple):
    """A run that is kept, and under which name."""

    name: str
    path: Path
    recording: Recording


class Promoted(NamedTuple):
    """What `promote` did."""

    kept: Baseline
    against: list[str]  # what spoke against it
    replaced: Baseline | None
    unlike: list[str]  # in what the one replaced was another kind of run, each "field: old -> new"
    unreadable: str  # why the file that was replaced could not be read


def promote(run: str, name: str | None, results: Path, force: bool) -> Promoted:
    """Keep a run's report as a baseline; UsageError names what speaks against it, unless forced."""
    from ..analysis.analyse import analyse

    report = recordings.read(find(run, results))
    recording = report.recording
    name = name_for(name, recording)
    analysis = analyse(recording)  # Not the stored one, which anybody may have edited.
    against = list(reasons_against(recording, analysis))
    if against and not force:
        listed = "".join(f"\n  - {reason}" for reason in against)
        raise UsageError(f"{recording.id} is not kept as a baseline:{listed}\nKeep it nevertheless with --force.")
    path = results / "baselines" / f"{name}.json"
    replaced, unreadable = what_is_at(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = Report(schema_version=SCHEMA_VERSION, recording=upgraded(recording), analysis=analysis, answer=report.answer)
        path = recordings.save(kept, path)
    except OSError as refusal:
        raise UsageError(f"write the baseline {path}: {refusal.strerror}. Name another directory with --results.") from refusal
    unlike = differences(replaced.recording, recording) if replaced else []
    return Promoted(Baseline(name, path, recording), against, replaced, unlike, unreadable)


def find(run: str, results: Path) -> Path:
    """The report that is meant: a file, a directory, or the id of a run below the results."""
    places = [Path(run), results / "runs" / run]
    for place in places:
        if found_at(place).is_file() or found_in(place, (REPORT_NAME,)):
            return place
    runs = results / "runs"
    ids = [path.name for path in runs.iterdir() if found_in(path, (REPORT_NAME,))] if runs.is_dir() else []
    near = nearest(run, ids) if len(ids) <= 10 or " (did" in nearest(run, ids) else f" ({len(ids)} runs are there)"
    raise UsageError(f"{run} is neither a report, nor a run's directory, nor a run below {runs}{near}.")


def name_for(name: str | None, recording: Recording) -> str:
    """The name that was asked for, or the profile's."""
    chosen = Path(recording.profile_name).stem if name is None else name.removesuffix(SUFFIX).removesuffix(".json")
    if not NAME.fullmatch(chosen):
        raise UsageError(f'"{chosen}" cannot name a baseline: use letters, digits, ".", "_" and "-". Choose with --name.')
    return chosen


def reasons_against(recording: Recording, analysis: Analysis) -> Iterator[str]:
    """Why others should not be held against this run, each a sentence."""
    if recording.interrupted:
        yield "it was interrupted: its figures rest on the rounds that were finished."
    if not recording.cells:
        yield "it measured no cell."
    protocols = {cell.id: cell.protocol for cell in recording.cells}
    for cell in recording.cells:
        audits = [
            item.audit for item in recording.rounds
            if item.cell == cell.id and item.audit and (item.status == "ok" or protocols[cell.id] in DURABLE)
        ]  # fmt: skip
        lost, damaged = sum(audit.lost for audit in audits), sum(audit.damaged for audit in audits)
        if lost or damaged:
            yield f"{cell.id}: {lost} acknowledged writes lost, {damaged} damaged."
    for kind, protocol in dict.fromkeys((drill.kind, drill.protocol) for drill in recording.drills):
        drills = [item for item in recording.drills if (item.kind, item.protocol) == (kind, protocol)]
        lost = sum(item.audit.lost for item in drills) if protocol in DURABLE else 0
        damaged = sum(item.audit.damaged for item in drills)
        if lost or damaged:
            yield f"{kind} drills under {protocol}: {lost} acknowledged writes lost, {damaged} damaged."
    for result in analysis.cells:
        if not result.rounds_ok:
            yield f"{result.cell}: not one good round."
        elif doubts := [*result.latency_doubts, *(one for one in [lateness_share_of(result.response_ns_p99)] if one)]:
            yield f"{result.cell}: no verdict may rest on it: {joined(doubts)}."


def differences(old: Recording, new: Recording) -> list[str]:
    """In what two runs are of another kind."""
    before, after = identity_of(old), identity_of(new)
    fields = dict.fromkeys([*before, *after])
    return [
        f"{field}: {before.get(field) or 'none'} -> {after.get(field) or 'none'}"
        for field in fields if before.get(field) != after.get(field)
    ]  # fmt: skip


def what_is_at(path: Path) -> tuple[Baseline | None, str]:
    """(the baseline that is there, or why what is there cannot be read)."""
    path = found_at(path)
    if not path.exists():
        return None, ""
    try:
        return Baseline(readable(path.name.removesuffix(SUFFIX).removesuffix(".json")), path, recordings.read(path).recording), ""
    except FarwriteError as refusal:
        return None, str(refusal)


def readable(path: str | Path) -> str:
    """A path as it can be printed: its bytes may be anything."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def baselines(results: Path) -> tuple[list[Baseline], list[str]]:
    """(all that are kept, by name; what could not be read)."""
    kept, unreadable = [], []
    for path in named_below(results / "baselines").values():
        found, refusal = what_is_at(path)
        kept += [found] if found else []
        unreadable += [refusal] if refusal else []
    return kept, unreadable
