"""The arrow: profile, plan, lab, target, recording. `run` is the whole experiment in one place.

Cells are measured in interleaved rounds, in a new random order each round, so that the machine's drift hits all alike.
Each is surveyed before and after; a round whose link was not what it claimed is void, measured again, and kept in the
recording as void. Every finished round is a line in `cells.jsonl` at once: what was measured survives whatever comes next.
"""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from . import __version__, load_kernel
from .cells import cells_of, load_of, table_of, write_count_max
from .engine import replica_kernel as replica
from .errors import FarwriteError, InconclusiveError, UnfitError, UsageError
from .histogram import Histogram
from .host.facts import command_line, host_facts, processor_time, steal_between
from .lab.lab import Lab, LabSpec, open_lab
from .lab.survey import Survey, hang_up, off_ns, tolerance_ns
from .profile import Profile, digest
from .progress import Progress, Silence
from .recording import SCHEMA_VERSION, Audit, Cell, Drill, FlushFloors, LabFacts, Recording, Report, Round, Slice, save
from .target import sides
from .target.replicated import Order, status_text
from .units import NS_PER_S

ROUND_OVERHEAD_S = 0.45  # Survey, connection, audit: for the estimate of the time left only.
PEER_TIMEOUT_NS_MIN = NS_PER_S
PEER_TIMEOUT_ROUND_TRIPS = 50
SLICES_MIN = 10
HEADER_BYTES = 64
NOTHING = Histogram().encode()


@dataclass
class Run:
    """A run in the making: what is asked, and what has been observed so far."""

    profile: Profile
    profile_name: str
    seed: int
    directory: Path
    progress: Progress = field(default_factory=Silence)
    cells: list[Cell] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    floors: list[FlushFloors] = field(default_factory=list)
    drills: list[Drill] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lab_facts: LabFacts | None = None
    reactor: str = "auto"
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    begin_s: float = field(default_factory=time.monotonic)
    interrupted: bool = False

    @property
    def journal(self) -> Path:
        """The line-per-cell journal beside the report."""
        return self.directory / "cells.jsonl"

    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.begin_s


class Heading(msgspec.Struct, tag="heading"):
    """First line of the journal: what a continued run must agree with."""

    schema_version: int
    profile_name: str
    profile: Profile
    seed: int
    started_utc: str


class Entry(msgspec.Struct, tag="entry", omit_defaults=True):
    """A further line of the journal: one thing that was observed."""

    round: Round | None = None
    floors: FlushFloors | None = None
    drill: Drill | None = None


def begin(profile: Profile, name: str, seed: int, directory: Path, progress: Progress) -> Run:
    """A new run in a new directory; UsageError when the directory holds one already."""
    run = Run(profile, name, seed, directory, progress)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with run.journal.open("x") as file:
            heading = Heading(SCHEMA_VERSION, name, profile, seed, run.started.isoformat(timespec="seconds"))
            file.write(msgspec.json.encode(heading).decode() + "\n")
    except FileExistsError as clash:
        raise UsageError(f"{directory} holds a run already. Continue it with --resume, or name another --out.") from clash
    except OSError as refusal:
        raise UsageError(f"write to {directory}: {refusal.strerror}. Name another --out.") from refusal
    return run


def resume(directory: Path, progress: Progress) -> Run:
    """An interrupted run as its journal tells it; a last line that was cut off is left out."""
    path = directory / "cells.jsonl"
    try:
        lines = path.read_bytes().splitlines()
    except OSError as refusal:
        raise UsageError(f"continue the run in {directory}: {refusal.strerror}.") from refusal
    try:
        heading = msgspec.json.decode(lines[0], type=Heading) if lines else None
    except msgspec.MsgspecError as refusal:
        raise UsageError(f"{path}, line 1: {refusal}. This is not a run of farwrite.") from refusal
    if heading is not None and heading.schema_version != SCHEMA_VERSION:
        raise UsageError(f"{path} was begun by another version of farwrite (schema {heading.schema_version}).")
    if heading is None:
        raise UsageError(f"{path} is empty: nothing was measured. Start a new run.")
    run = Run(heading.profile, heading.profile_name, heading.seed, directory, progress)
    whole = [lines[0]]
    for number, line in enumerate(lines[1:], 2):
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except msgspec.MsgspecError as refusal:
            if number < len(lines):
                raise UsageError(f"{path}, line {number}: {refusal}. The journal is damaged.") from refusal
            break
        whole.append(line)
        run.rounds += [entry.round] if entry.round else []
        run.floors += [entry.floors] if entry.floors else []
        run.drills += [entry.drill] if entry.drill else []
    path.write_bytes(b"\n".join(whole) + b"\n")
    run.notes.append(f"continued at {run.started.isoformat(timespec='seconds')}")
    run.started = datetime.fromisoformat(heading.started_utc)
    return run


def execute(run: Run) -> Report:
    """Measure what is still missing, analyse, and save; an interrupted run is saved as far as it came."""
    from .analysis.analyse import analyse

    profile = run.profile
    run.cells = cells_of(profile)
    try:
        with open_lab(lab_spec(profile, run.directory)) as lab:
            run.lab_facts = facts_of(run, lab)
            run.progress.expect(expected_s(run))
            measure(run, lab)
            drill(run, lab)
            run.lab_facts = facts_of(run, lab)
    except KeyboardInterrupt:
        run.interrupted = True
    if run.lab_facts is None:
        raise KeyboardInterrupt
    recording = recording_of(run)
    report = Report(schema_version=SCHEMA_VERSION, recording=recording, analysis=analyse(recording))
    save(report, run.directory / "report.json")
    return report


def lab_spec(profile: Profile, directory: Path) -> LabSpec:
    """The lab that a profile asks for; the sites' files go beside the results unless it names directories."""
    table = profile.lab

    def place(name: str) -> Path | None:
        if table.durability == "memory":
            return None
        return Path(name).expanduser() if name else directory

    return LabSpec(
        link=table.link, near=place(table.near), far=place(table.far), journal_bytes=table.journal_bytes,
        volume_bytes=table.volume_bytes, congestion=table.congestion,
    )  # fmt: skip


def expected_s(run: Run) -> float:
    """How long what is still missing will take."""
    done = {(item.cell, item.index) for item in run.rounds if item.status == "ok"}
    cells = sum((cell.id, index) not in done for cell in run.cells for index in range(run.profile.run.rounds))
    table = run.profile.drill
    drills = max(2 * table.kills * len(table.protocols) - len(run.drills), 0)
    return cells * round_s(run) + drills * drill_s(run)


def round_s(run: Run) -> float:
    """About how long one cell takes."""
    return run.profile.run.round_ns / NS_PER_S + ROUND_OVERHEAD_S


def drill_s(run: Run) -> float:
    """About how long one drill takes."""
    return (run.profile.drill.load_ns + run.profile.drill.cut_ns) / NS_PER_S + 0.5


def measure(run: Run, lab: Lab) -> None:
    """All rounds of all cells that have not been measured yet."""
    table = run.profile.run
    done = {(item.cell, item.index) for item in run.rounds if item.status == "ok"}
    for index in range(table.rounds):
        missing = [cell for cell in run.cells if (cell.id, index) not in done]
        if not missing:
            continue
        random.Random(f"{run.seed}/{index}").shuffle(missing)
        run.progress.doing(f"round {index + 1}/{table.rounds} · disks")
        measure_floors(run, lab, index)
        for cell in missing:
            run.progress.doing(f"round {index + 1}/{table.rounds} · {cell.name} {cell.protocol} at {cell.miles:g} miles")
            for attempt in range(table.retries + 1):
                made = measure_cell(run, lab, cell, index, attempt)
                keep(run, Entry(round=made))
                run.rounds.append(made)
                if made.status == "ok":
                    break
                run.progress.say(f"{cell.id}, round {index + 1}: {made.status}: {'; '.join(made.reasons)}")
                lab.delay_ns.pop(cell.asked_rtt_ns, None)  # The machine has drifted: calibrate anew.
            run.progress.did(round_s(run))


def keep(run: Run, entry: Entry) -> None:
    """One line more in the journal, written before anything else happens."""
    with run.journal.open("ab") as file:
        file.write(msgspec.json.encode(entry) + b"\n")


def measure_floors(run: Run, lab: Lab, index: int) -> None:
    """Bare flushes of every size that this run's records have on disk."""
    known = {(item.index, item.size_bytes) for item in run.floors}
    for size in sorted({record_size(cell.size_bytes) for cell in run.cells}):
        if (index, size) in known:
            continue
        times = lab.flush_floors(size, run.profile.run.floor_flushes)
        texts = {name: Histogram.of(values).encode() for name, values in times.items()}
        floors = FlushFloors(index=index, size_bytes=size, **texts)
        keep(run, Entry(floors=floors))
        run.floors.append(floors)


def record_size(size_bytes: int) -> int:
    """Bytes that a lone write of this size makes the journal flush: its record, rounded up to a block."""
    return -(-(size_bytes + HEADER_BYTES) // 4096) * 4096


def order_of(run: Run, lab: Lab, cell: Cell, duration_ns: int, salt: str) -> Order:
    """What both sides are told of one round."""
    dice = random.Random(f"{run.seed}/{cell.id}/{salt}")
    table = table_of(run.profile, cell)
    slices = max(SLICES_MIN, round(duration_ns / NS_PER_S))
    return Order(
        protocol=cell.protocol,
        volume=dice.getrandbits(62),
        epoch=1,
        seed=dice.getrandbits(62),
        load=load_of(table, run.profile.lab.volume_bytes),
        trace_path=trace_path(table.trace),
        trace_begin_ns=dice.getrandbits(40),
        time_scale=table.time_scale,
        write_count_max=write_count_max(table, duration_ns),
        queue_depth=cell.queue_depth,
        duration_ns=duration_ns,
        slice_ns=duration_ns // slices,
        slice_count=slices,
        peer_timeout_ns=max(PEER_TIMEOUT_NS_MIN, PEER_TIMEOUT_ROUND_TRIPS * cell.asked_rtt_ns),
        # memfd writes are copies: io_uring would hand them to a worker thread.
        reactor="plain" if run.profile.lab.durability == "memory" else run.reactor,
    )


def trace_path(name: str) -> str:
    """Where a cell's trace lies, or nothing."""
    from .trace import find

    return str(find(name)) if name else ""


def measure_cell(run: Run, lab: Lab, cell: Cell, index: int, attempt: int) -> Round:
    """One cell, once: survey, load, survey, audit, and what all that says of the round."""
    table = run.profile.run
    begin_s = run.elapsed_s()
    lab.set_rtt(cell.asked_rtt_ns)
    sizes = HEADER_BYTES + cell.size_bytes, HEADER_BYTES
    echo = lab.echo_floor(table.survey_echoes, *sizes)
    flushed = lab.flushed_echo_floor(table.survey_echoes, *sizes) if cell.protocol == "C" else None
    before = lab.survey(table.survey_echoes)
    # 0 miles asks for the lab's own round trip, whatever it is: it must only be the same before and after.
    asked_rtt_ns = cell.asked_rtt_ns or before.rtt_ns_p50
    counters, ticks = lab.link.counters(), processor_time()
    order = order_of(run, lab, cell, table.round_ns, f"{index}/{attempt}")
    reasons: list[str] = []
    observed: dict = {}
    audit = None
    try:
        observed = play(lab, order)
        if observed["status"] != 0:
            reasons.append(f"the engine stopped: {status_text(observed['status'])}")
    except UnfitError as failure:
        reasons.append(str(failure))
        lab.revive()
    failed = bool(reasons)
    steal = steal_between(ticks, processor_time())
    after = lab.survey(table.survey_echoes)
    if observed:
        audit = audit_of(lab, order, int(observed["recorder"].at[load_kernel.COMPLETED]))
    reasons += link_reasons(before, after, asked_rtt_ns)
    if steal is not None and steal > table.steal_max:
        reasons.append(f"the host took {steal:.0%} of the processors")
    lab.nudge(cell.asked_rtt_ns, (before.rtt_ns_p50 + after.rtt_ns_p50) / 2 - asked_rtt_ns)
    counted = {name: value - counters[name] for name, value in lab.link.counters().items()}
    return round_of(
        cell, index, attempt, "failed" if failed else "void" if reasons else "ok", reasons, begin_s, table.round_ns,
        (before, after, echo, flushed), observed, order, steal, counted, audit,
    )  # fmt: skip


def link_reasons(before: Survey, after: Survey, asked_rtt_ns: float) -> list[str]:
    """Why the link was not what it claimed; empty when it was."""
    reasons = []
    for when, made in (("before", before), ("after", after)):
        missed_ns = off_ns(made.rtt_ns_p50, asked_rtt_ns)
        if abs(missed_ns) > tolerance_ns(asked_rtt_ns):
            reasons.append(f"the link {when} the round was {missed_ns / 1000:+.0f} us off")
    return reasons


def play(lab: Lab, order: Order) -> dict:
    """Run both sides of one order to its end; answers what was observed. UnfitError when a side died or hangs."""
    start_sides(lab, order)
    observed, far = finish_sides(lab, order)
    if observed["status"] == 0 and far["status"] < 0 and far["status"] != replica.STOPPED:
        observed["status"] = far["status"]
    return observed | {"far_flushes": far["far_flushes"]}


def start_sides(lab: Lab, order: Order) -> None:
    """Set both sides to work; protocol local has only one."""
    for site in (lab.near, lab.far):
        site.board.words[:] = 0
    if order.protocol != "local":
        lab.join("data")
        lab.far.start(sides.copy, order, lab.far.disk, lab.far.board)
    lab.near.start(sides.write, order, lab.near.disk, lab.near.board, lab.history)


def finish_sides(lab: Lab, order: Order) -> tuple[dict, dict]:
    """What the near and the far side observed. The near one hangs up first: a far one it gave up waits for that."""
    limit_s = (order.duration_ns + load_kernel.DRAIN_NS + 2 * order.peer_timeout_ns) / NS_PER_S + 20
    observed = lab.near.answer(limit_s)
    if order.protocol == "local":
        return observed, {"far_flushes": 0, "status": 0, "refused": 0}
    lab.near.call(hang_up, "data")
    far = lab.far.answer(limit_s)
    lab.far.call(hang_up, "data")
    return observed, far


def audit_of(lab: Lab, order: Order, completed: int) -> Audit:
    """What stands at the far site (at the near one for protocol local) of the writes that were acknowledged."""
    site = lab.near if order.protocol == "local" else lab.far
    found = site.call(sides.audit, order, site.disk, completed)
    return Audit(**{name: found[name] for name in ("completed", "survived", "lost", "damaged")})


def round_of(
    cell: Cell, index: int, attempt: int, status: str, reasons: list[str], begin_s: float, duration_ns: int,
    surveys: tuple[Survey, Survey, Survey, Survey | None], observed: dict, order: Order, steal: float | None,
    counted: dict[str, int], audit: Audit | None,
) -> Round:  # fmt: skip
    """The observations of one round as they are stored."""
    before, after, echo, flushed = (Histogram.of(item.rtt_ns).encode() if item else None for item in surveys)
    assert before is not None and after is not None and echo is not None
    recorder = observed.get("recorder")
    words = recorder.at if recorder else np.zeros(load_kernel.AT_WORDS, np.int64)
    lag = observed.get("lag")
    return Round(
        cell=cell.id,
        index=index,
        attempt=attempt,
        status=status,  # type: ignore[arg-type]
        reasons=reasons,
        begin_s=round(begin_s, 3),
        duration_ns=duration_ns,
        survey_before=before,
        survey_after=after,
        echo_floor=echo,
        slices=slices_of(recorder, order.slice_ns) if recorder else [],
        service=Histogram(recorder.service).encode() if recorder else NOTHING,
        wait=Histogram(recorder.wait).encode() if recorder else NOTHING,
        late=Histogram(recorder.late).encode() if recorder else NOTHING,
        lag=Histogram(lag).encode() if lag is not None else None,
        lag_writes_max=observed.get("lag_writes_max", 0),
        lag_bytes_max=observed.get("lag_bytes_max", 0),
        issued=int(words[load_kernel.ISSUED]),
        completed=int(words[load_kernel.COMPLETED]),
        unacknowledged=int(words[load_kernel.ISSUED] - words[load_kernel.COMPLETED]),
        completed_bytes=int(words[load_kernel.BYTES]),
        flushes=observed.get("flushes", 0),
        flush_bytes=observed.get("flush_bytes", 0),
        far_flushes=observed.get("far_flushes", 0),
        wire_bytes=observed.get("wire_bytes", 0),
        blocked=observed.get("blocked", 0),
        steal=steal,
        link=counted,
        audit=audit,
        unissued=int(words[load_kernel.UNISSUED]),
        flushed_echo_floor=flushed,
    )


def slices_of(recorder: load_kernel.Recorder, slice_ns: int) -> list[Slice]:
    """The round's slices as they are stored."""
    return [
        Slice(
            begin_ns=index * slice_ns,
            duration_ns=slice_ns,
            completed=int(recorder.slice_count[index]),
            completed_bytes=int(recorder.slice_bytes[index]),
            response_ns_max=int(recorder.slice_max_ns[index]),
            response=Histogram(recorder.response[index]).encode(),
        )
        for index in range(recorder.slice_count.size)
    ]


def drill(run: Run, lab: Lab) -> None:
    """Lose the near site, and cut the link, as often as the profile asks."""
    from .drill.drills import cut_drill, kill_drill

    table = run.profile.drill
    done = {(item.kind, item.protocol, item.index) for item in run.drills}
    for index in range(table.kills):
        for protocol in table.protocols:
            for kind, perform in (("kill", kill_drill), ("cut", cut_drill)):
                if (kind, protocol, index) in done:
                    continue
                run.progress.doing(f"drill {index + 1}/{table.kills} · {kind} under {protocol}")
                made = perform(run, lab, protocol, index)
                keep(run, Entry(drill=made))
                run.drills.append(made)
                run.progress.did(drill_s(run))


def facts_of(run: Run, lab: Lab) -> LabFacts:
    """What carried the run."""
    near, far = lab.near.disk, lab.far.disk
    memory = near.durability == "memory"
    return LabFacts(
        link=lab.choice.kind,
        link_reason=lab.choice.reason,
        base_rtt=Histogram.of(lab.base.rtt_ns).encode(),
        delay_ns={str(asked): delay for asked, delay in sorted(lab.delay_ns.items())},
        near_directory=near.directory,
        far_directory=far.directory,
        near_file_system=near.file_system,
        far_file_system=far.file_system,
        shared_disk=memory or same_device(near.directory, far.directory),
        durability=near.durability,  # type: ignore[arg-type]
        direct=near.direct and far.direct,
        reactor="pwrite" if memory else lab.near.call(sides.reactor_name),
        transport=lab.transport,
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
    )


def directory_for(out: Path | None, name: str, seed: int) -> Path:
    """Where a run's files go: `results/runs/<UTC>-<profile>-<id>` unless a directory is named."""
    if out is not None:
        return out
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return Path("results") / "runs" / f"{stamp}-{Path(name).stem}-{random.Random(f'{stamp}/{seed}').getrandbits(24):06x}"


def outcome(report: Report) -> FarwriteError | None:
    """What a run's end means for the exit code: None when it is done, otherwise the error to leave with."""
    from .errors import LostWriteError

    recording = report.recording
    durable = {"C", "local"}  # What these complete is durable, whatever happened; A and B promise less when a site is lost.
    protocols = {cell.id: cell.protocol for cell in recording.cells}
    audits = [item.audit for item in recording.rounds if item.audit]
    promised = [
        item.audit for item in recording.rounds
        if item.audit and (item.status == "ok" or protocols[item.cell] in durable)
    ]  # fmt: skip
    promised += [item.audit for item in recording.drills if item.protocol in durable]
    lost = sum(item.lost for item in promised)
    damaged = sum(item.damaged for item in [*audits, *(drill.audit for drill in recording.drills)])
    if lost or damaged:
        return LostWriteError(f"{lost} acknowledged writes were lost and {damaged} damaged. The report names the cells.")
    if recording.interrupted:
        return None
    good = {item.cell for item in recording.rounds if item.status == "ok"}
    if not good:
        return UnfitError("No round had the link it was meant to have: this machine is too busy to emulate it.")
    without = [cell.id for cell in recording.cells if cell.id not in good]
    if without:
        return InconclusiveError(f"Not one good round for {', '.join(without)}: their rows are unknown.")
    return None
