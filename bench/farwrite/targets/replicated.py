"""A round of the replicated target: what the near site does, what the far one does, and the audit afterwards.

Each is a module-level function that the pipeline calls in a site; all three draw the same plan from the same order, so
the far side can check every byte without being told what was written.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field

import numpy as np

from ..base.errors import UnfitError, system_error
from ..base.histogram_kernel import SLOTS
from ..base.host import reactor
from ..base.host.disk import Disk
from ..base.host.libc import aligned_bytes
from ..base.row import rows_of
from ..engine import primary_kernel as primary
from ..engine import record_kernel as record
from ..engine import replica_kernel as replica
from ..engine import secondary_kernel as secondary
from ..engine import turn_kernel
from ..engine.handshake import hello_of, meet
from ..engine.journal import examine, format_journal
from ..workload.payload_kernel import SOLID, payload_profile_of
from ..workload.plan import Load, Stretch, counts_max, draw, draw_jobs, replay
from ..workload.plan_kernel import READ, TRIM, WRITE, Plan
from ..workload.trace.reader import window
from ..workload.trace.source import Taking
from . import audit_kernel as auditing
from .load_loop_kernel import OPERATIONS, SAMPLE_WORDS, Counted, Flight, Jobs, Recorder, drive
from .observed import Audited, PrimaryObserved, SecondaryObserved
from .pace_kernel import spin_ns
from .replicated_kernel import ReplicatedTarget
from .samples import samples_of

PROTOCOLS = {
    "local": primary.LOCAL, "A": primary.A, "B": primary.B, "C": primary.C, "C2": primary.TWO_TRIP, "quorum": primary.QUORUM,
}  # fmt: skip

CATCH_UP_NS_MAX = 10_000_000_000  # After the load, for peers that were left behind.
TURN_NS = 20_000_000
STAGING_BYTES = 8 << 20  # Records in memory, staged or not yet applied.

STATUS_TEXTS = {
    replica.PEER_CLOSED: "the peer closed the connection",
    replica.PEER_SILENT: "the peer has not been heard for the peer timeout",
    replica.BAD_FRAME: "the peer sent what a replica may not send",
    replica.SHORT_WRITE: "the disk took only a part of a write: it is full",
    replica.INVALID_WRITE: "the load asked for a write or trim without bytes, or outside of the volume",
}


@dataclass(frozen=True)
class TraceWindow:
    """The part of a trace that a round replays, resolved by who orders it: sites read its records and nothing else."""

    path: str
    begin_ns: int
    time_scale: float = 1.0
    format: str = ""  # Taking.format
    begins: dict[str, int] = field(default_factory=dict)  # Outline.begins


@dataclass(frozen=True)
class Order:
    """Everything both sides must know of one round."""

    protocol: str
    volume: int
    epoch: int
    seed: int
    load: Load | None  # None: a trace
    write_count_max: int
    queue_depth: int
    duration_ns: int
    slice_ns: int
    slice_count: int
    peer_timeout_ns: int
    reactor: str = "auto"
    connections: tuple[str, ...] = ("data",)  # as the near site holds them, a secondary behind each
    quorum: int = 0
    pulls_ahead: bool = False
    trace: TraceWindow | None = None
    samples_path: str = ""  # where every write is kept by itself; empty: nowhere


def plan_and_bounds(order: Order, volume_bytes: int) -> tuple[Plan, np.ndarray]:
    """The plan that the order describes, the same in every process, its jobs one behind the other; and where each begins and the
    last one ends."""
    if order.load is not None and order.load.jobs:
        return draw_jobs(order.load, order.seed, counts_max(order.load, order.duration_ns))
    plan = draw(order.load, order.seed, order.write_count_max) if order.load is not None else replayed(order, volume_bytes)
    return plan, np.array([0, plan.size.size], np.int64)


def replayed(order: Order, volume_bytes: int) -> Plan:
    """The window of the trace that is this round's."""
    asked = order.trace
    assert asked is not None
    end_ns = asked.begin_ns + order.duration_ns / asked.time_scale
    trace = window(asked.path, asked.begin_ns, end_ns, asked.begins, Taking(format=asked.format))
    if not (trace.operation == WRITE).any():
        return Plan.of_count(0)
    plan, _ = replay(trace.time_ns, trace.operation, trace.address, trace.size, volume_bytes, asked.time_scale)
    return plan


def status_text(status: int) -> str:
    """Why a loop ended, in words."""
    return STATUS_TEXTS.get(status) or os.strerror(-status)


def has_parts(load: Load | None) -> bool:
    """Whether there is more to tell apart than plain writes of one kind."""
    if load is None:
        return False
    return bool(load.jobs or load.flushes or load.read_share or load.trim_share or phases_of(load))


def phases_of(load: Load) -> list[str]:
    """The names of the phases that the load's rate goes through."""
    return [stretch.name for stretch in phased(load)]


def phased(load: Load) -> tuple[Stretch, ...]:
    """The stretches that have names: of the first job that follows them, for those with a rate of their own do not."""
    return next((part.stretches for part in load.parts if part.stretches and part.stretches[0].name), ())


def names_of(load: Load) -> list[str]:
    """The names of the jobs, in order, each once; one without a name where there are none."""
    return list(dict.fromkeys(job.name for job in load.jobs)) or [""]


def jobs_of(load: Load | None, bounds: np.ndarray, queue_depth: int) -> Jobs:
    """Who asks for the I/O of a plan with these bounds; a trace is one open loop."""
    parts = load.parts if load is not None else (None,)
    depths = [part.queue_depth for part in load.jobs] if load is not None and load.jobs else [queue_depth]
    rows = names_of(load) if load is not None else [""]
    sizes = [1 << (depth + 1).bit_length() for depth in depths]
    count = len(depths)
    return Jobs(
        next=bounds[:-1].copy(),
        end=bounds[1:].copy(),
        closed=np.array([part is not None and part.arrival == "closed" for part in parts]),
        queue_depth=np.array(depths, np.int64),
        issued=np.zeros(count, np.int64),
        done=np.zeros(count, np.int64),
        over=np.zeros(count, np.bool_),
        row=np.array([rows.index(part.name) if part is not None and part.name in rows else 0 for part in parts], np.int64),
        payload_profile=np.array(payload_profiles_of(load), np.int64),
        ring=np.cumsum([0, *sizes[:-1]]).astype(np.int64),
        mask=np.array(sizes, np.int64) - 1,
        freed_ns=np.zeros(sum(sizes), np.int64),
    )  # fmt: skip


def payload_profiles_of(load: Load | None) -> list[int]:
    """How far the payloads of each job compress and repeat."""
    if load is None:
        return [SOLID]
    return [payload_profile_of(part.compress_ratio, part.dedupe_ratio) for part in load.parts]


def recorder_of(slice_count: int, load: Load | None = None, samples: np.ndarray | None = None) -> Recorder:
    """An empty recorder, with a row for every part that the load has; it keeps each I/O only where it is given room for that."""
    ends_ns = [stretch.lasts_ns for stretch in phased(load)] if load is not None else []
    rows = len(names_of(load)) * max(len(ends_ns), 1) * OPERATIONS if load is not None and has_parts(load) else 0
    return Recorder(
        at=rows_of(Counted),
        response=np.zeros((slice_count, SLOTS), np.int64),
        slice_count=np.zeros(slice_count, np.int64),
        slice_bytes=np.zeros(slice_count, np.int64),
        slice_max_ns=np.zeros(slice_count, np.int64),
        within_count=np.zeros(slice_count, np.int64),
        within_bytes=np.zeros(slice_count, np.int64),
        service=np.zeros(SLOTS, np.int64),
        wait=np.zeros(SLOTS, np.int64),
        late=np.zeros(SLOTS, np.int64),
        part=np.zeros((rows, SLOTS), np.int64),
        part_count=np.zeros(rows, np.int64),
        part_bytes=np.zeros(rows, np.int64),
        part_within=np.zeros(rows, np.int64),
        part_within_bytes=np.zeros(rows, np.int64),
        phase_ends_ns=np.cumsum(ends_ns, dtype=np.int64),
        samples=np.zeros((0, SAMPLE_WORDS), np.int64) if samples is None else samples,
    )


def flight_of(queue_depth: int) -> Flight:
    """Nothing under way, room for `queue_depth` I/Os."""
    places = 1 << (queue_depth + 1).bit_length()
    return Flight(*(np.zeros(places, np.int64) for _ in Flight._fields))


def write_side(
    order: Order,
    disk: Disk,
    connections: list,
    board: np.ndarray,
    history: np.ndarray,
    issued: np.ndarray | None = None,
) -> PrimaryObserved:
    """Near: a fresh primary, met with its peers, driven through the plan. Answers what was observed.

    With several jobs their completions decide whose write is next; `issued` then takes the numbers in the order of the log.
    """
    plan, bounds = plan_and_bounds(order, disk.volume_bytes)
    protocol = PROTOCOLS[order.protocol]
    largest_read = int(plan.size[plan.operation == READ].max(initial=0))
    with samples_of(order.samples_path, plan) as samples, reactor.reactor(order.reactor) as ring:
        recorder = recorder_of(order.slice_count, order.load, samples)
        journal = format_journal(disk, order.volume, order.epoch, STAGING_BYTES)
        for connection in connections:
            theirs = meet(connection, hello_of(journal, protocol), leads=True)
            if theirs.sequence != 0:
                raise UnfitError(f"The peer holds {theirs.sequence} writes already; a round begins with an empty journal.")
        state = primary.primary_state(
            journal, ring, [connection.fileno() for connection in connections], protocol, order.seed, order.peer_timeout_ns,
            quorum=order.quorum, congestion=primary.PULL_AHEAD if order.pulls_ahead else primary.WAIT,
            volume_bytes=disk.volume_bytes,
        )  # fmt: skip
        target = ReplicatedTarget(state, np.zeros(1, np.int64), aligned_bytes(largest_read))
        jobs = jobs_of(order.load, bounds, order.queue_depth)
        flight = flight_of(int(jobs.queue_depth.sum()))
        taken = issued if issued is not None and is_shuffled(order) else np.zeros(0, np.int64)
        spin = spin_ns()
        begun_cpu_ns = time.process_time_ns()
        status = int(
            drive(
                plan, jobs, order.duration_ns, order.slice_ns, spin, target, flight, recorder, board, history, taken
            )
        )  # fmt: skip
        cpu_ns = time.process_time_ns() - begun_cpu_ns
        catch_up_ns = None
        if connections and status == replica.OK:
            catch_up_ns = wait_for_peers(state)
            if catch_up_ns is not None:
                for connection, sent in zip(connections, state.peer["aside_sent"].tolist(), strict=True):
                    say_goodbye(connection, order, sent + 1)
        ended = int(replica.settle(journal, ring))
        if ended < 0 and status == 0:
            status = ended
        return PrimaryObserved(
            status=status,
            recorder=recorder._replace(samples=recorder.samples[:0]),  # They are in their file, and large.
            spin_ns=spin,
            lag=state.lag if protocol in (primary.A, primary.B) else None,
            lag_writes_max=int(state.at[0].lag_writes_max),
            lag_bytes_max=int(state.at[0].lag_bytes_max),
            flushes=int(journal.at[0].flush_count),
            flush_bytes=int(journal.at[0].flush_bytes),
            wire_bytes=int(state.peer["wire_bytes"].sum()),
            blocked=int(state.at[0].blocked),
            reactor=reactor.name_of(ring),
            cpu_ns=cpu_ns,
            exposed=int(state.at[0].exposed),
            catch_up_ns=catch_up_ns,
        )


def is_kept(operation: np.ndarray) -> np.ndarray:
    """Which I/Os are in the log: writes and trims."""
    return (operation == WRITE) | (operation == TRIM)


def is_shuffled(order: Order) -> bool:
    """Whether the log's order is known only once it has happened."""
    return order.load is not None and len(order.load.jobs) > 1


def wait_for_peers(state: primary.Primary) -> int | None:
    """Go on until every peer has been sent everything; the nanoseconds it took, or None when that was too long or it is lost."""
    begun_ns = time.monotonic_ns()
    while not all_sent(state):
        now_ns = time.monotonic_ns()
        if now_ns - begun_ns > CATCH_UP_NS_MAX or int(turn_kernel.progress(state, now_ns + TURN_NS)) < 0:
            return None
    return time.monotonic_ns() - begun_ns


def all_sent(state: primary.Primary) -> bool:
    """Whether no peer is owed anything that it has not been sent."""
    peer = state.peer
    live = (peer["state"] == primary.LIVE) & (peer["buffer_sent"] == peer["buffer_end"])
    return bool((live & (peer["sent"] == state.journal.at[0].staged)).all())


def say_goodbye(connection, order: Order, ordinal: int) -> None:
    """Tell the secondary that no more will come, and wait until it has closed: then everything there is durable."""
    frame = np.zeros(record.HEADER_BYTES, np.uint8)
    record.seal(frame, frame.view(record.Header.LAYOUT), 0, record.GOODBYE, 0, 0, 0, order.epoch, order.volume, 0, 0, ordinal)
    connection.setblocking(True)
    connection.settimeout(order.peer_timeout_ns / 1e9)
    try:
        connection.sendall(frame.tobytes())
        while connection.recv(4096):
            pass
    except OSError:
        pass  # The audit of the far side tells what stands there; how the connection ends does not.


def copy_side(order: Order, disk: Disk, connection, board: np.ndarray) -> SecondaryObserved:
    """Far: a fresh secondary that serves until the primary says goodbye, is lost, or the board asks to stop."""
    with contextlib.closing(connection), reactor.reactor(order.reactor) as ring:
        journal = format_journal(disk, order.volume, order.epoch, STAGING_BYTES)
        protocol = PROTOCOLS[order.protocol]
        meet(connection, hello_of(journal, protocol), leads=False)
        state = secondary.secondary_state(journal, ring, connection.fileno(), protocol, disk.volume_bytes, board)
        begun_cpu_ns = time.process_time_ns()
        status = int(secondary.serve(state))
        return SecondaryObserved(
            status=status,
            refused=int(state.at[0].refused),
            flushes=int(journal.at[0].flush_count),
            acks=int(state.at[0].ack_count),
            cpu_ns=time.process_time_ns() - begun_cpu_ns,
        )


def audit_side(order: Order, disk: Disk, completed: int, issued: np.ndarray | None = None) -> Audited:
    """Far: read journal and volume as they lie on the disk and hold them against the plan, in the order it was issued."""
    superblock, found = examine(disk, apply=True, refuse=False)
    survived = int(found[1])
    if int(superblock[3]) != order.volume:
        raise UnfitError("The far site holds another volume than this round's.")
    plan, bounds = plan_and_bounds(order, disk.volume_bytes)
    numbers = issued if issued is not None and is_shuffled(order) else np.flatnonzero(is_kept(plan.operation))
    damaged = count_damaged(order, disk, plan, bounds, numbers, survived)
    lost = numbers[survived:completed]
    lost_bytes = int(plan.size[lost[plan.operation[lost] == WRITE]].sum())
    lost_count = max(completed - survived, 0)
    return Audited(completed=completed, survived=survived, lost=lost_count, damaged=damaged, lost_bytes=lost_bytes)


def count_damaged(order: Order, disk: Disk, plan: Plan, bounds: np.ndarray, numbers: np.ndarray, survived: int) -> int:
    """How many of the writes and trims that survived are not in the volume as asked. UnfitError when it cannot be read."""
    kept = numbers[:survived]
    payload_profile = np.array(payload_profiles_of(order.load), np.int64)[np.searchsorted(bounds, kept, "right") - 1]
    cuts, first = auditing.cuts_of(plan.address[kept], plan.size[kept])
    largest = int(plan.size[plan.operation == WRITE].max(initial=0))
    found = int(
        auditing.count_damaged(
            reactor.empty(), disk.volume_fd, plan, numbers, survived, order.seed, payload_profile, cuts, first,
            np.zeros(cuts.size, np.bool_), aligned_bytes(max(largest, record.HEADER_BYTES)),
            aligned_bytes(auditing.WINDOW_BYTES),
        )
    )  # fmt: skip
    if found < 0:
        raise system_error(f"read the volume in {disk.directory} for its audit", found)
    return found
