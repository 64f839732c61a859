"""A run in the making: what is asked, what has been observed so far, and the journal that survives an interruption.

Every finished round, floor and drill is a line in `cells.jsonl` at once. `begin` starts a run in a new directory, `resume`
reads back what an interrupted one had. What is measured, and in which order, is the pipeline's business.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import msgspec

from .. import __version__
from ..base.errors import UnfitError, UsageError
from ..base.files import write_atomically
from ..base.host.facts import command_line, host_facts
from ..base.keep_awake import KeptAwake
from ..base.user_file import read_file
from ..lab.namespace import uninterrupted
from ..progress import Progress, Silence
from ..recording import SCHEMA_VERSION, Cell, Drill, FlushFloors, LabFacts, Recording, Round, Worker, upgraded
from ..workload.tables import Profile, digest
from .cells import Workload, workloads_of


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
    chosen: list[Cell] = field(default_factory=list)  # cells that were chosen while measuring, instead of the profile's
    workers: list[Worker] = field(default_factory=list)  # machines that cells were spread over
    notes: list[str] = field(default_factory=list)
    lab_facts: LabFacts | None = None
    awake: Awake | None = None  # decided when the first lab of this run was opened
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    begin_s: float = field(default_factory=time.monotonic)
    interrupted: bool = False

    @cached_property
    def workloads(self) -> dict[str, Workload]:
        """The workloads that the cells are made of, by name: their traces are found and read through once a run."""
        return workloads_of(self.profile)

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


class Awake(msgspec.Struct):
    """What keeps the processors from sleeping in this run, and why."""

    chosen: KeptAwake
    reason: str
    mend: str | None = None  # null: an older farwrite did not keep it


class Entry(msgspec.Struct, tag="entry", omit_defaults=True):
    """A further line of the journal: one thing that was observed."""

    round: Round | None = None
    floors: FlushFloors | None = None
    drill: Drill | None = None
    awake: Awake | None = None
    chosen: Cell | None = None
    worker: Worker | None = None  # what was measured of its cells before this line is superseded


def begin(profile: Profile, name: str, seed: int, directory: Path, progress: Progress) -> Run:
    """A new run in a new directory; UsageError when the directory holds one already."""
    run = Run(profile, name, seed, directory, progress)
    heading = Heading(SCHEMA_VERSION, name, profile, seed, run.started.isoformat(timespec="seconds"))
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as refusal:
        raise UsageError(f"make the directory {directory}: {refusal.strerror}. Name another --out.") from refusal
    try:
        with run.journal.open("x") as file:
            file.write(msgspec.json.encode(heading).decode() + "\n")
    except FileExistsError as clash:
        raise UsageError(f"{directory} holds a run already. Continue it with --resume, or name another --out.") from clash
    except OSError as refusal:
        raise UsageError(f"write to {directory}: {refusal.strerror}. Name another --out.") from refusal
    return run


def resume(directory: Path, progress: Progress, name: str = "") -> Run:
    """An interrupted run as its journal tells it; a last line that was cut off is left out.

    UsageError when it is a run of another profile than `name`, where one is given.
    """
    path = directory / "cells.jsonl"
    data = read_file(path, f"continue the run in {directory}:")
    lines = data.splitlines()
    try:
        heading = msgspec.json.decode(lines[0], type=Heading) if lines else None
    except msgspec.MsgspecError as refusal:
        raise UsageError(f"{path}, line 1: {refusal}. This is not a run of farwrite.") from refusal
    if heading is not None and heading.schema_version > SCHEMA_VERSION:
        raise UsageError(f"{path} was begun by a newer farwrite (schema {heading.schema_version}). Continue it with that one.")
    if heading is None:
        raise UsageError(f"{path} is empty: nothing was measured. Start a new run.")
    if name and name != heading.profile_name:
        raise UsageError(
            f"{directory} is a run of {heading.profile_name}, not of {name}, and goes on as it was begun: "
            f"farwrite run --resume {directory}. For a new run of {name} leave --resume away."
        )
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
        note(run, upgraded(entry))
    mended = b"\n".join(whole) + b"\n"
    if mended != data:  # A line was cut off, or its end: the old journal or the mended one, never a half.
        try:
            write_atomically(path, mended)
        except OSError as refusal:
            raise UnfitError(f"mend the journal {path}: {refusal.strerror}. Make room, and continue the run then.") from refusal
    run.notes.append(f"continued at {run.started.isoformat(timespec='seconds')}")
    run.started = datetime.fromisoformat(heading.started_utc)
    return run


def give(run: Run, worker: Worker) -> None:
    """Let a worker measure its cells from their first round on: one machine measures all rounds of a cell."""
    mine = set(worker.cells)
    run.rounds = [item for item in run.rounds if item.cell not in mine]
    left = [
        msgspec.structs.replace(other, cells=[cell for cell in other.cells if cell not in mine]) for other in run.workers
    ]
    run.workers = [*left, worker]


def keep(run: Run, entry: Entry) -> None:
    """One line more in the journal, and what it says in the run: no interruption comes between the two. UnfitError when the disk
    takes it not."""
    with uninterrupted():
        try:
            with run.journal.open("ab") as file:
                file.write(msgspec.json.encode(entry) + b"\n")
        except OSError as refusal:
            raise UnfitError(f"write the journal {run.journal}: {refusal.strerror}.") from refusal
        note(run, entry)


def note(run: Run, entry: Entry) -> None:
    """What a line of the journal says, in the run."""
    run.rounds += [entry.round] if entry.round else []
    run.floors += [entry.floors] if entry.floors else []
    run.drills += [entry.drill] if entry.drill else []
    run.awake = run.awake or entry.awake
    run.chosen += [entry.chosen] if entry.chosen else []
    if entry.worker:
        give(run, entry.worker)


def directory_for(out: Path | None, name: str) -> Path:
    """Where a run's files go: `results/runs/<UTC>-<profile>-<id>` unless a directory is named."""
    if out is not None:
        return out
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    # Drawn anew each time: two runs alike may begin in one second.
    return Path("results") / "runs" / f"{stamp}-{Path(name).stem}-{secrets.token_hex(3)}"


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
