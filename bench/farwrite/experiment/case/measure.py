"""A case from its first part to its last: what was observed of each is saved when it is over.

A run of its own gives the load by day, a drill the faults; thin volumes and the database have files of their own beside this
one. A part that cannot be measured here is unknown, with the reason, and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from ... import __version__
from ...analysis import analysis_of
from ...analysis.case_recording import (
    FILE,
    KIND,
    SCHEMA_VERSION,
    CaseRecording,
    FaultsPart,
    SteadyCell,
    SteadyPart,
    save,
)
from ...analysis.drill_answer import answer_of
from ...analysis.drill_recording import FILE as DRILL
from ...analysis.drill_recording import DrillRecording
from ...base.documents import found_at
from ...base.errors import FarwriteError, UsageError
from ...base.host.disk import why_not_durable
from ...base.host.facts import command_line, host_facts
from ...base.physics import rtt_ns_of
from ...base.units import NS_PER_MS, NS_PER_S
from ...engine.peer_timeout import peer_timeout_of
from ...progress import Progress
from ...recording import REPORT_NAME
from ...workload import drill_scenario
from ...workload.case_profile import Case, Faults, Steady
from ...workload.drill_scenario import Setup
from ...workload.profile import parse
from ..drill import campaign
from ..run import execute
from ..run_journal import begin
from .database import DatabaseMeasurement
from .thin import ThinMeasurement

T = TypeVar("T")
BOUND_NS = 250 * NS_PER_MS
OFFERED_PER_S, DEPTH, BLOCKS = 500.0, 64, 512  # Of a drill, as farwrite drill has them.
PROFILE = """
title = "{title}"
[lab]
link = "{link}"
durability = "{durability}"
[distance]
miles = {miles}
[link]
rate = "{rate} bit/s"
[run]
rounds = {rounds}
round = "{round_ns} ns"
[drill]
kills = 0
[[cell]]
name = "servers"
protocols = ["C"]
arrival = "poisson"
rate = "{writes} /s"
block = "{block} B"
address = "hot-spot"
queue_depth = {queue_depth}
"""


@dataclass(frozen=True)
class Asked:
    """How a case is to be measured."""

    name: str
    case: Case
    parts: tuple[str, ...]
    out: Path
    link: str
    in_memory: bool
    quick: bool
    seed: int
    is_verbose: bool = False


class Part(Protocol):
    """One part, while it is measured and after."""

    def run(self) -> None:
        """Measure it. FarwriteError where it cannot be, KeyboardInterrupt where it was interrupted."""

    def observed(self) -> Any:
        """What has been observed so far; None: nothing."""


def measure_case(asked: Asked, progress: Progress) -> CaseRecording:
    """Part after part; an interruption ends it, and what was measured stays."""
    if found_at(asked.out / FILE).exists():
        raise UsageError(f"{asked.out} holds a case already: name another --out.")
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
    except OSError as refusal:
        raise UsageError(f"make the directory {asked.out}: {refusal.strerror}. Name another --out.") from refusal
    reason = "" if asked.in_memory else why_not_durable(asked.out)
    recording = CaseRecording(
        schema_version=SCHEMA_VERSION, kind=KIND, farwrite=__version__, name=asked.name,
        started_utc=datetime.now(UTC).isoformat(timespec="seconds"), command=command_line(), case=asked.case, quick=asked.quick,
        link=asked.link, disk="memory" if asked.in_memory else f"disk{f' ({reason})' if reason else ''}", host=host_facts(),
    )  # fmt: skip
    for name in (part for part in asked.case.parts if part in asked.parts):
        begin_s = time.monotonic()
        progress.doing(f"{name}: beginning")
        part, interrupted, why = MAKERS[name](asked, progress), False, ""
        try:
            part.run()
        except KeyboardInterrupt:
            interrupted = True
        except FarwriteError as refusal:
            why = str(refusal)
            progress.say(f"{name} is unknown: {why}")
        recording = msgspec.structs.replace(
            recording, **{name: part.observed()}, interrupted=interrupted,
            unknown=recording.unknown | ({name: why.rstrip(".")} if why else {}),
            seconds=recording.seconds | {name: round(time.monotonic() - begin_s, 1)},
        )  # fmt: skip
        save(recording, asked.out / FILE)
        if interrupted:
            break
    return recording


class SteadyMeasurement:
    """A run of the case's load."""

    def __init__(self, asked: Asked, progress: Progress) -> None:
        self.asked, self.progress = asked, progress
        self.part: SteadyPart | None = None

    def run(self) -> None:
        asked = self.asked
        assert asked.case.steady is not None
        profile = parse(profile_text(asked.case.steady, asked), f"the case {asked.name}")
        run = begin(profile, asked.name, asked.seed, asked.out / "steady", self.progress)
        report = execute(run)
        cells = [
            SteadyCell(
                miles=cell.miles, rounds=cell.rounds_ok, completed=cell.completed, p50=bare(cell.response_ns_p50),
                p99=bare(cell.response_ns_p99), floor=bare(cell.floor_ns), lost=cell.lost,
                doubts=[str(reason) for reason in cell.latency_doubts],
            ) for cell in analysis_of(report).cells
        ]  # fmt: skip
        if cells:
            self.part = SteadyPart(report=f"steady/{found_at(run.directory / REPORT_NAME).name}", cells=cells)
        if report.recording.interrupted:
            raise KeyboardInterrupt

    def observed(self) -> SteadyPart | None:
        return self.part


def bare(estimate: Any) -> Any:
    """An estimate without its rounds, which the report has."""
    return msgspec.structs.replace(estimate, without=[], by_round=[])


def profile_text(steady: Steady, asked: Asked) -> str:
    """The profile of the load."""
    return PROFILE.format(
        title=asked.case.title.replace("\\", "").replace('"', ""), link=asked.link,
        durability="memory" if asked.in_memory else "disk", miles=list(steady.miles),
        rate=steady.link_bits_per_s, rounds=steady.rounds, round_ns=steady.round_ns,
        writes=steady.writes_per_s, block=steady.block_bytes, queue_depth=steady.queue_depth,
    )  # fmt: skip


class FaultsMeasurement:
    """A drill, in trials."""

    def __init__(self, asked: Asked, progress: Progress) -> None:
        self.asked, self.progress = asked, progress
        self.recording: DrillRecording | None = None

    def run(self) -> None:
        asked = self.asked
        assert asked.case.faults is not None
        scenario = drill_scenario.load(asked.case.faults.scenario)
        setup = setup_of(scenario, asked.case.faults, asked.seed)
        drill_scenario.check_setup(scenario, setup)
        place = asked.out / "drill"
        self.recording = campaign.run(
            asked.case.faults.scenario, scenario, setup, asked.link, None if asked.in_memory else place, place, self.progress,
            asked.is_verbose,
        )  # fmt: skip
        if self.recording.interrupted:
            raise KeyboardInterrupt

    def observed(self) -> FaultsPart | None:
        made = self.recording
        if made is None or not made.trials:
            return None
        answer = answer_of(made)
        return FaultsPart(
            report=f"drill/{found_at(self.asked.out / 'drill' / DRILL).name}", trials=answer.trials, counted=answer.counted,
            acked=answer.acked, lost=answer.lost, damaged=answer.damaged, loss_probability_high=answer.loss_probability_high,
            bound_ns=made.setup.bound_ns, events=answer.events, pauses=answer.pauses,
        )  # fmt: skip


def setup_of(scenario: drill_scenario.Scenario, faults: Faults, seed: int) -> Setup:
    """What the drill is played on, as farwrite drill has it."""
    miles = 150.0 if scenario.miles is None else scenario.miles
    return Setup(
        miles=miles, protocol="C", policy="consent", replicas=2, has_witness=True, quorum=0, offered_per_s=OFFERED_PER_S,
        queue_depth=DEPTH, size_bytes=4096, block_count=BLOCKS, bound_ns=BOUND_NS,
        peer_timeout_ns=peer_timeout_of(rtt_ns_of(miles)), trials=faults.trials, seed=seed,
    )  # fmt: skip


def there(table: T | None) -> T:
    """A part's table, of a case that has it."""
    assert table is not None
    return table


MAKERS: dict[str, Callable[[Asked, Progress], Part]] = {
    "steady": SteadyMeasurement,
    "faults": FaultsMeasurement,
    "thin": lambda asked, progress: ThinMeasurement(there(asked.case.thin), asked.out, asked.link, asked.seed, progress),
    "database": lambda asked, progress: DatabaseMeasurement(
        there(asked.case.database), asked.out, asked.link, asked.in_memory, asked.seed, progress
    ),
}


def expected_s(case: Case, parts: tuple[str, ...]) -> float:
    """About how long the parts take, on a machine of two idle processors."""
    seconds = 0.0
    if case.steady and "steady" in parts:
        seconds += 8 + len(case.steady.miles) * case.steady.rounds * (case.steady.round_ns / NS_PER_S + 0.5)
    if case.faults and "faults" in parts:
        seconds += 5 + 28 * case.faults.trials
    if case.thin and "thin" in parts:
        seconds += 5 + 2.5 * case.thin.volumes
    if case.database and "database" in parts:
        made = case.database
        scaled_s = made.scaled_ns / NS_PER_S
        first_s = 8 * made.regions_bytes / made.far_link_bits_per_s
        seconds += 15 + first_s + 2 * made.pairs * (scaled_s + 1.5) + (made.copies + 1) * scaled_s
    return seconds
