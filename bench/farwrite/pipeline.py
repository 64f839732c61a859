"""The arrow: profile, plan, lab, target, recording. `execute` is the whole experiment in one place.

Cells are measured in interleaved rounds, in a new random order each round, so that the machine's drift hits all alike.
A round that is void is measured again.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from . import __version__
from .cells import cells_of, others_of_all
from .drill.drills import cut_drill, kill_drill
from .engine.record_kernel import HEADER_BYTES
from .errors import BrokenError, FarwriteError, InconclusiveError, LostWriteError, UnfitError
from .expected import drill_s, expected_s, round_s
from .histogram import Histogram
from .host.facts import command_line, host_facts
from .interruption import go_on
from .keep_awake import asked_word
from .lab.lab import Lab, LabSpec, open_lab
from .lab.process import naming_lost_carriers
from .lab.survey import whole_blocks
from .link_spec import describe
from .profile import Profile, digest
from .protocol import DURABLE
from .recording import Cell, FlushFloors, LabFacts, Recording, Report, causes_of, save
from .round import measure_cell
from .run import Awake, Entry, Run, keep
from .target import sides


def execute(run: Run) -> Report:
    """Measure what is still missing, analyse, and save; an interrupted run is saved as far as it came."""
    profile = run.profile
    run.cells = run.chosen or cells_of(profile)
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
        from .reach import search

        return search
    if profile.sweep.time_ns:
        from .sweep import sweep_here

        return sweep_here
    return measure


def finished(run: Run) -> Report:
    """The report of what was observed, analysed and saved."""
    from .analysis import document_of

    report = document_of(recording_of(run))
    path = run.directory / "report.json"
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


def lab_of(profile: Profile, directory: Path) -> AbstractContextManager[Lab]:
    """The lab that a profile asks for: both sites here and a distance between them, or the far one on another machine."""
    spec, table = lab_spec(profile, directory), profile.lab
    if not table.far_host:
        return open_lab(spec)
    from .remote.lab import real_lab
    from .remote.word import far_host

    return real_lab(spec, far_host(table.far_host), table.far_command)


def lab_spec(profile: Profile, directory: Path) -> LabSpec:
    """The lab that a profile asks for; the sites' files go beside the results unless it names directories."""
    table = profile.lab

    def place(name: str) -> Path | None:
        if table.durability == "memory":
            return None
        return Path(name).expanduser() if name else directory

    return LabSpec(
        link=table.link, near=place(table.near), far=place(table.far), journal_bytes=table.journal_bytes,
        volume_bytes=table.volume_bytes, congestion=table.congestion, others=others_of_all(profile),
        link_spec=profile.link, keep=table.keep, keep_awake=asked_word(table.keep_awake), encryption=table.encryption,
        compression=table.compression,
    )  # fmt: skip


def measure(run: Run, lab: Lab) -> None:
    """All rounds of all cells that have not been measured yet."""
    table = run.profile.run
    done = {(item.cell, item.index) for item in run.rounds if item.status == "ok"}
    for index in range(table.rounds):
        missing = [cell for cell in run.cells if (cell.id, index) not in done]
        if not missing:
            continue
        measure_round(run, lab, missing, index, f"round {index + 1}/{table.rounds}")


def measure_round(run: Run, lab: Lab, cells: list[Cell], index: int, title: str) -> None:
    """One round: bare flushes, then every one of these cells once, in an order drawn for this round."""
    cells = list(cells)
    random.Random(f"{run.seed}/{index}").shuffle(cells)
    run.progress.doing(f"{title} · disks")
    measure_floors(run, lab, index)
    for cell in cells:
        run.progress.doing(f"{title} · {cell.name} {cell.protocol} at {cell.miles:g} miles")
        for attempt in range(run.profile.run.retries + 1):
            go_on()
            made = measure_cell(run, lab, cell, index, attempt)
            keep(run, Entry(round=made))
            if made.status == "ok":
                run.progress.measured(cell, made)
                break
            run.progress.voided(f"{cell.id}, round {index + 1}", made.status, causes_of(made))
        run.progress.did(round_s(run))


def measure_floors(run: Run, lab: Lab, index: int) -> None:
    """Bare flushes of every size that this run's records have on disk."""
    known = {(item.index, item.size_bytes) for item in run.floors}
    for size in record_sizes(run):
        if (index, size) not in known:
            floors = flush_floors(run, lab, index, size)
            keep(run, Entry(floors=floors))


def record_sizes(run: Run) -> list[int]:
    """Every size that this run's records have on disk."""
    return sorted({whole_blocks(HEADER_BYTES + cell.size_bytes) for cell in run.cells})


def flush_floors(run: Run, lab: Lab, index: int, size: int) -> FlushFloors:
    """Bare flushes of one size."""
    times = lab.flush_floors(size, run.profile.run.floor_flushes)
    texts: dict[str, Any] = {name: Histogram.of(values).encode() for name, values in times.items()}
    return FlushFloors(index=index, size_bytes=size, **texts)


def drill(run: Run, lab: Lab) -> None:
    """Lose the near site, and cut the link, as often as the profile asks."""
    table = run.profile.drill
    done = {(item.kind, item.protocol, item.index) for item in run.drills}
    for index in range(table.kills):
        for protocol in table.protocols:
            for kind, perform in (("kill", kill_drill), ("cut", cut_drill)):
                if (kind, protocol, index) in done:
                    continue
                go_on()
                run.progress.doing(f"drill {index + 1}/{table.kills} · {kind} under {protocol}")
                made = perform(run, lab, protocol, index)
                keep(run, Entry(drill=made))
                if made.uncounted:
                    words = f"{made.uncounted}: {made.note}" if made.note else made.uncounted
                    run.progress.say(f"{kind} {index + 1} under {protocol} does not count ({words})")
                run.progress.did(drill_s(run))


def facts_of(lab: Lab) -> LabFacts:
    """What carried the run."""
    near, far = lab.near.disk, lab.far.disk
    memory = near.durability == "memory"
    far_host = lab.far.standing.host if hasattr(lab.far, "standing") else None
    return LabFacts(
        link=lab.choice.kind,
        link_reason=lab.choice.reason,
        link_asked=describe(lab.spec),
        link_facts=lab.link.facts(),
        base_rtt=Histogram.of(lab.base.rtt_ns).encode(),
        delay_ns={str(asked): delay for asked, delay in sorted(lab.delay_ns.items())},
        near_directory=near.directory,
        far_directory=far.directory,
        near_file_system=near.file_system,
        far_file_system=far.file_system,
        shared_disk=far_host is None and (memory or same_device(near.directory, far.directory)),
        durability=near.durability,  # type: ignore[arg-type]
        direct=near.direct and far.direct,
        reactor="pwrite" if memory else lab.near.call(sides.reactor_name),
        transport=lab.transport,
        encryption=lab.terms.encryption,
        compression=lab.terms.compression,
        far_host=far_host,
        distance="echo" if far_host else "light",
        keep_awake=lab.awake.chosen,
        keep_awake_reason=lab.awake.reason,
        keep_awake_mend=lab.awake.mend,
        near_not_durable=near.not_durable,
        far_not_durable=far.not_durable,
    )


def same_device(one: str, other: str) -> bool:
    """Whether two directories lie on one file system."""
    with contextlib.suppress(OSError):
        return Path(one).stat().st_dev == Path(other).stat().st_dev
    return True


def recording_of(run: Run) -> Recording:
    """Everything observed, as one immutable value."""
    assert run.lab_facts is not None
    return Recording(
        farwrite=__version__,
        id=run.directory.name,
        started_utc=run.started.isoformat(timespec="seconds"),
        duration_s=round(run.elapsed_s(), 1),
        command=command_line(),
        profile_name=run.profile_name,
        profile=run.profile,
        profile_digest=digest(run.profile),
        seed=run.seed,
        host=host_facts(),
        lab=run.lab_facts,
        cells=run.cells,
        rounds=run.rounds,
        floors=run.floors,
        drills=run.drills,
        interrupted=run.interrupted,
        notes=run.notes,
        workers=run.workers,
    )


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
