"""Whole recordings made up from a seed, with a known truth: the analysis must find it again, the report must show it.

The world is `latency = a + k * RTT`: a varies from write to write and from round to round, RTT hardly. Protocol C waits
k round trips, B one, A and local none. Nothing here is measured; a test sets only what it is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import msgspec
import numpy as np

from farwrite.analysis.analyse import analyse
from farwrite.analysis.answer import answer_of
from farwrite.analysis.result import Analysis
from farwrite.base.histogram import Histogram
from farwrite.base.protocol import PROMISES
from farwrite.experiment.cells import cells_of
from farwrite.recording import (
    SCHEMA_VERSION,
    Audit,
    Cell,
    Drill,
    FlushFloors,
    HostNoise,
    LabFacts,
    Other,
    OtherRound,
    Recording,
    Report,
    Round,
    Slice,
)
from farwrite.workload import profile
from farwrite.workload.tables import Profile, digest

HEADER_BYTES = 64
BLOCK_BYTES = 4096

SMALL = """
title = "A made-up run"
reason = "Nothing was measured."

[distance]
miles = [0, 20, 60, 100, 150, 186]

[run]
rounds = 5
round = "800 ms"

[[cell]]
name = "write"
protocols = ["C", "A"]
block = "4 KiB"

[drill]
kills = 6
miles = 150
protocols = ["C", "A"]
"""

# Everything a report may have to show: four protocols, depth, an open loop, sizes.
LARGE = """
title = "A made-up run of many cells"

[distance]
miles = [0, 20, 60, 100, 150, 186]

[run]
rounds = 5
round = "800 ms"

[[cell]]
name = "write"
protocols = ["local", "A", "B", "C"]
block = "4 KiB"

[[cell]]
name = "deep"
protocols = ["C"]
miles = [0, 20, 150]
queue_depth = 32
block = "4 KiB"

[[cell]]
name = "paced"
protocols = ["C"]
miles = [20, 150]
arrival = "poisson"
queue_depth = 256
rate = "800 /s"
block = "16 KiB"

[drill]
kills = 6
miles = 150
protocols = ["C", "A"]
"""


@dataclass(frozen=True)
class World:
    """The truth behind a made-up recording. Times in ns; a ratio of 0.05 is 5 %."""

    k: float = 1.0  # round trips a C write waits for
    a_ns: float = 300_000.0  # everything else it waits for, at the median
    near_ns: float = 150_000.0  # what A and local wait for
    noise_ratio: float = 0.1  # of a, from write to write
    drift_ratio: float = 0.02  # of a, from round to round
    jitter_ratio: float = 0.005  # of the RTT, from echo to echo
    base_rtt_ns: float = 80_000.0
    link_off_ns: float = 0.0  # delivered less asked
    near_flush_ns: float = 120_000.0
    far_flush_ns: float = 140_000.0
    both_ratio: float = 1.25  # a flush while the other site flushes too, over one alone
    late_ns: float = 400.0  # of the generator, at the median
    warmup_slices: int = 0
    warmup_ratio: float = 2.0  # latency in those slices over the rest
    trend_ratio: float = 0.0  # growth of the latency over a round
    slices: int = 10
    writes: int | None = None  # a round; None: as many as the latency lets complete
    steal: float | None = 0.004
    foreign_share: float | None = None  # of all processors, used by other programs; None: host noise was not recorded
    own_share: float = 0.3
    run_delay_ratio: float = 0.05  # of a round: near, far and link together waited so long for processors
    outlier_round: int | None = None  # whose latency is five times the others'
    void: tuple[tuple[str, int], ...] = ()  # (cell id, round) void at the first attempt, good at the second
    always_void: tuple[str, ...] = ()  # cell ids without one good round
    lost_in_rounds: int = 0  # acknowledged writes missing at the far site, in the first round of every cell
    lost_writes_c: int = 0  # a kill
    lost_writes_a: int = 40
    completed_during_cut_c: int = 0  # a cut
    recovery_time_ns: float = 210e6
    saturated: bool = False  # one response too long for its histogram


def make_recording(
    text: str = SMALL,
    seed: int = 1,
    durability: str = "disk",
    shared_disk: bool = True,
    link: str = "netem",
    interrupted: bool = False,
    changes: tuple[str, ...] = (),
    **truth,
) -> Recording:
    """A run of the profile `text`; `truth` are fields of World, `changes` are `table.key=value` of the profile.

    A recording is immutable, so who asks for the same one again is given the same one.
    """
    return made(text, changes, World(**truth), seed, durability, shared_disk, link, interrupted)


@cache
def made(text: str, changes: tuple[str, ...], world: World, *others) -> Recording:
    """The recording of a profile in a world; it is about the claims, as limits is, unless its text says otherwise."""
    about = () if "\nclaims = " in text else ("claims=true",)
    return record(profile.parse(text, "made-up.toml", (*about, *changes)), world, *others)


ANALYSES: dict[int, Analysis] = {}  # By the identity of recordings that `made` keeps.


def analysed(*words, **options) -> tuple[Recording, Analysis]:
    """What make_recording gives, and its analysis; who asks again is given the same."""
    recording = make_recording(*words, **options)
    if id(recording) not in ANALYSES:
        ANALYSES[id(recording)] = analyse(recording)
    return recording, ANALYSES[id(recording)]


def made_report(*words, **options) -> Report:
    """What make_recording gives, as the report of a run."""
    recording, analysis = analysed(*words, **options)
    answer = answer_of(recording, analysis)
    return Report(schema_version=SCHEMA_VERSION, recording=recording, analysis=analysis, answer=answer)


def record(
    parsed: Profile, world: World, seed: int, durability: str, shared_disk: bool, link: str, interrupted: bool
) -> Recording:
    """A run of a profile that was parsed already."""
    dice = np.random.default_rng(seed)
    cells = cells_of(parsed)
    rounds: list[Round] = []
    for index in range(parsed.run.rounds):
        # Cells of one round share the machine's mood.
        drift = float(np.exp(world.drift_ratio * dice.standard_normal()))
        for cell in cells:
            refused = cell.id in world.always_void
            if refused or (cell.id, index) in world.void:
                rounds.append(make_round(cell, parsed, world, dice, index, drift, 0, void=True))
            if not refused:
                attempt = int((cell.id, index) in world.void)
                rounds.append(make_round(cell, parsed, world, dice, index, drift, attempt))
    lab = LabFacts(
        link=link,
        link_reason="made up",
        base_rtt=echoes(world.base_rtt_ns, world, dice, 200),
        delay_ns={str(cell.asked_rtt_ns): cell.asked_rtt_ns // 2 for cell in cells if cell.asked_rtt_ns},
        near_directory="/made-up/near",
        far_directory="/made-up/far",
        near_file_system="tmpfs" if durability == "memory" else "ext4",
        far_file_system="tmpfs" if durability == "memory" else "ext4",
        shared_disk=shared_disk,
        durability=durability,
        direct=durability == "disk",
        reactor="uring",
        transport={"congestion": "cubic", "offload": "off"},
    )
    return Recording(
        farwrite="0.0",
        id=f"made-up-{seed}",
        started_utc="2026-01-02T03:04:05+00:00",
        duration_s=round(len(rounds) * 1.2, 1),
        command=["farwrite", "run", "made-up.toml"],
        profile_name="made-up",
        profile=parsed,
        profile_digest=digest(parsed),
        seed=seed,
        host={"cpu": "made up", "cpu_count": 2, "memory_bytes": 8 << 30, "kernel": "6.1.0"},
        lab=lab,
        cells=cells,
        rounds=rounds,
        floors=make_floors(cells, parsed, world, dice),
        drills=make_drills(parsed, world),
        interrupted=interrupted,
        notes=[],
    )


def delivered_rtt_ns(asked_rtt_ns: int, world: World) -> float:
    """The round trip a made-up link has, at the median."""
    return (asked_rtt_ns or world.base_rtt_ns) + world.link_off_ns


def waited_rtt_ns(cell: Cell, world: World) -> float:
    """The round trip a write waits for: to the furthest replica, or to the last of those a quorum needs."""
    asked = sorted([cell.asked_rtt_ns, *(other.asked_rtt_ns for other in cell.others)])
    return delivered_rtt_ns(asked[cell.quorum - 2 if cell.protocol == "quorum" else -1], world)


def parts_ns(cell: Cell, world: World) -> tuple[float, float]:
    """(what a write waits for that is not distance, round trips it waits for)."""
    trips = {"local": 0.0, "A": 0.0, "B": 1.0, "C": world.k, "C2": 2 * world.k, "quorum": world.k}[cell.protocol]
    return (world.a_ns if trips else world.near_ns), trips


def responses(cell: Cell, world: World, dice: np.random.Generator, count: int, drift: float) -> np.ndarray:
    """Response times, int64 ns, of so many writes."""
    a_ns, trips = parts_ns(cell, world)
    near = a_ns * drift * np.exp(world.noise_ratio * dice.standard_normal(count))
    rtt = waited_rtt_ns(cell, world) * (1 + world.jitter_ratio * np.abs(dice.standard_normal(count)))
    return np.maximum(near + trips * rtt, 1).astype(np.int64)


def echoes(rtt_ns: float, world: World, dice: np.random.Generator, count: int) -> str:
    """The histogram of a survey."""
    samples = rtt_ns * (1 + world.jitter_ratio * np.abs(dice.standard_normal(count)))
    return Histogram.of(samples.astype(np.int64)).encode()


def make_round(
    cell: Cell, parsed: Profile, world: World, dice: np.random.Generator, index: int, drift: float, attempt: int,
    void: bool = False,
) -> Round:  # fmt: skip
    """One cell measured once."""
    a_ns, trips = parts_ns(cell, world)
    rtt_ns = delivered_rtt_ns(cell.asked_rtt_ns, world)
    duration_ns = parsed.run.round_ns
    per_s = cell.offered_per_s or cell.queue_depth * 1e9 / (a_ns + trips * waited_rtt_ns(cell, world))
    count = world.writes if world.writes is not None else round(per_s * duration_ns / 1e9)
    mood = drift * (5.0 if index == world.outlier_round else 1.0)
    samples = responses(cell, world, dice, count, mood)
    if index == world.outlier_round:
        samples = samples + round(4 * trips * rtt_ns)
    at = np.arange(count) / max(count, 1)
    slow = np.where(at * world.slices < world.warmup_slices, world.warmup_ratio, 1.0) * (1 + world.trend_ratio * at)
    samples = (samples * slow).astype(np.int64)
    if world.saturated and count:
        samples[-1] = 1 << 41
    slice_of = (at * world.slices).astype(np.int64)
    slice_ns = duration_ns // world.slices
    late = np.abs(world.late_ns * np.exp(0.3 * dice.standard_normal(count))).astype(np.int64)
    lags = (rtt_ns / 2 + world.far_flush_ns * np.exp(0.2 * dice.standard_normal(200))).astype(np.int64)
    survived = count if cell.protocol == "local" or index else max(count - world.lost_in_rounds, 0)
    asynchronous = cell.protocol == "A"
    in_glass = round(per_s * rtt_ns / 2e9) + 1
    return Round(
        cell=cell.id,
        index=index,
        attempt=attempt,
        status="void" if void else "ok",
        reasons=["the link before the round was +412 us off"] if void else [],
        begin_s=round(index * 40.0 + attempt, 3),
        duration_ns=duration_ns,
        survey_before=echoes(rtt_ns, world, dice, parsed.run.survey_echoes),
        survey_after=echoes(rtt_ns, world, dice, parsed.run.survey_echoes),
        echo_floor=echoes(rtt_ns + cell.size_bytes, world, dice, parsed.run.survey_echoes),
        flushed_echo_floor=(
            echoes(rtt_ns + cell.size_bytes + world.far_flush_ns, world, dice, parsed.run.survey_echoes)
            if PROMISES[cell.protocol].durable_there else None
        ),
        slices=[
            Slice(
                begin_ns=number * slice_ns,
                duration_ns=slice_ns,
                completed=int((slice_of == number).sum()),
                completed_bytes=int((slice_of == number).sum()) * cell.size_bytes,
                response_ns_max=int(samples[slice_of == number].max(initial=0)),
                response=Histogram.of(samples[slice_of == number]).encode(),
                within=int((slice_of == number).sum()),
                within_bytes=int((slice_of == number).sum()) * cell.size_bytes,
            )
            for number in range(world.slices)
        ],
        service=Histogram.of(np.maximum(samples - late, 1)).encode(),
        wait=Histogram.of(late).encode(),
        late=Histogram.of(late).encode(),
        lag=Histogram.of(lags).encode() if asynchronous else None,
        lag_writes_max=in_glass if asynchronous else 0,
        lag_bytes_max=in_glass * cell.size_bytes if asynchronous else 0,
        issued=count,
        completed=count,
        unacknowledged=0,
        completed_bytes=count * cell.size_bytes,
        flushes=-(-count // max(cell.queue_depth // 2, 1)),
        flush_bytes=count * record_bytes(cell.size_bytes),
        far_flushes=0 if cell.protocol == "local" else -(-count // max(cell.queue_depth // 2, 1)),
        wire_bytes=0 if cell.protocol == "local" else count * (cell.size_bytes + HEADER_BYTES),
        blocked=0,
        steal=world.steal,
        link={"dropped": 0},
        audit=Audit(completed=count, survived=survived, lost=count - survived, damaged=0),
        noise=None if world.foreign_share is None else HostNoise(
            duration_ns=duration_ns, near_run_delay_ns=round(world.run_delay_ratio * duration_ns), far_run_delay_ns=0,
            link_run_delay_ns=None, own_share=world.own_share, foreign_share=world.foreign_share,
        ),
        others=[make_other(cell, other, parsed, world, dice, count) for other in cell.others],
    )


def make_other(
    cell: Cell, other: Other, parsed: Profile, world: World, dice: np.random.Generator, count: int
) -> OtherRound:  # fmt: skip
    """What a round has of a further secondary."""
    rtt_ns = delivered_rtt_ns(other.asked_rtt_ns, world)
    before, after, echo, flushed = (
        echoes(ns, world, dice, parsed.run.survey_echoes)
        for ns in (rtt_ns, rtt_ns, rtt_ns + cell.size_bytes, rtt_ns + cell.size_bytes + world.far_flush_ns)
    )
    return OtherRound(
        survey_before=before, survey_after=after, echo_floor=echo, flushed_echo_floor=flushed, far_flushes=count,
        far_cpu_ns=None, link={"dropped": 0}, survived=count,
    )  # fmt: skip


def record_bytes(size_bytes: int) -> int:
    """Bytes one write makes a journal flush."""
    return -(-(size_bytes + HEADER_BYTES) // BLOCK_BYTES) * BLOCK_BYTES


def make_floors(cells: list[Cell], parsed: Profile, world: World, dice: np.random.Generator) -> list[FlushFloors]:
    """Bare flushes of every record size, once a round."""

    def flushes(ns: float) -> str:
        samples = ns * np.exp(0.1 * dice.standard_normal(parsed.run.floor_flushes))
        return Histogram.of(samples.astype(np.int64)).encode()

    return [
        FlushFloors(
            index=index,
            size_bytes=size,
            near_alone=flushes(world.near_flush_ns),
            far_alone=flushes(world.far_flush_ns),
            near_both=flushes(world.near_flush_ns * world.both_ratio),
            far_both=flushes(world.far_flush_ns * world.both_ratio),
        )
        for index in range(parsed.run.rounds)
        for size in sorted({record_bytes(cell.size_bytes) for cell in cells})
    ]


def make_drills(parsed: Profile, world: World) -> list[Drill]:
    """Kills and cuts, as many as the profile asks for."""
    drills: list[Drill] = []
    for index in range(parsed.drill.kills):
        for protocol in parsed.drill.protocols:
            asynchronous = protocol == "A"
            lost = (world.lost_writes_a + index % 3) if asynchronous and world.lost_writes_a else 0
            lost = lost if asynchronous else world.lost_writes_c
            kill = Drill(
                kind="kill", protocol=protocol, miles=parsed.drill.miles, index=index,
                audit=Audit(completed=900 + index, survived=900 + index - lost, lost=lost, damaged=0),
                lost_bytes=lost * 4096, recovery_point_ns=lost * 50_000,
                completed_during_cut=None, recovery_time_ns=None,
            )  # fmt: skip
            cut = Drill(
                kind="cut", protocol=protocol, miles=parsed.drill.miles, index=index,
                audit=Audit(completed=2000, survived=2000, lost=0, damaged=0), lost_bytes=0, recovery_point_ns=None,
                completed_during_cut=1500 + index if asynchronous else world.completed_during_cut_c,
                recovery_time_ns=None if asynchronous else round(world.recovery_time_ns) + index * 1_000_000,
            )  # fmt: skip
            drills += [kill, cut]
    return drills


def changed(struct, **fields):
    """The same recording, or report, with other fields."""
    return msgspec.structs.replace(struct, **fields)
