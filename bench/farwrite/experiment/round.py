"""One round of one cell: survey, load, survey, audit, and what all that says of it.

A round whose link was not what it claimed is void; one whose engine stopped has failed. Both are kept with their reasons, never
averaged in. What else the machine did is noted, and makes no round void. The drills use the same orders and the same two sides.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import numpy as np

from ..base.errors import UnfitError
from ..base.histogram import Histogram, index_of
from ..base.host.facts import processor_time, steal_between
from ..base.host.noise import Reading, noise_between, read_noise
from ..base.protocol import PROMISES
from ..base.reasons import Reason, engine_stopped, link_missed, packets_late, round_refused, sentences
from ..base.units import NS_PER_S
from ..engine.record_kernel import HEADER_BYTES
from ..lab.lab import JoinedLab, Lab
from ..lab.schedule import Happened, changing
from ..lab.site import SeenBoard
from ..lab.span import Span, round_trips
from ..lab.stamps import Prober, Stamps, beside
from ..lab.survey import Survey, hang_up, off_ns
from ..recording import Audit, Cell, HostNoise, LinkChange, LinkDirection, OtherRound, Part, Round, RoundStatus, Slice
from ..targets import load_loop_kernel
from ..targets.observed import Audited, Observed, PrimaryObserved, SecondaryObserved
from ..targets.replicated import CATCH_UP_NS_MAX, Order, TraceWindow, names_of, phases_of, recorder_of, status_text
from ..targets.samples import file_of
from ..workload.link_spec import tolerance_ns
from ..workload.plan import Load, count_max
from . import sides
from .cells import Workload, load_of
from .run_journal import Run

PEER_TIMEOUT_NS_MIN = NS_PER_S
PEER_TIMEOUT_ROUND_TRIPS = 50
SLICES_MIN = 10
PROBES_MIN = 20  # Beside a load: fewer have no median that a round could be void for.
LATE_SHARE_MAX = 0.05  # Of a round's packets may leave later than a median may be off.
NOTHING = Histogram().encode()
OPERATIONS: tuple[Literal["write", "read", "flush", "trim"], ...] = ("write", "read", "flush", "trim")  # By number.


class Floors(NamedTuple):
    """Bare echoes of the write's sizes, without and with a flush before the answer; by a near end that sleeps and one that polls.

    None where the cell's protocol waits for no such thing.
    """

    echo: Survey | None = None
    polled: Survey | None = None
    flushed: Survey | None = None
    polled_flushed: Survey | None = None


@dataclass(frozen=True)
class Leg:
    """One span of a round: the round trip it was asked for, and what it delivered."""

    span: Span
    asked_rtt_ns: float  # of a real link what it delivered before: it must only be the same during the round
    floors: Floors
    before: Survey
    counters: dict[str, int]
    late_counts: np.ndarray | None  # of its link until now


def asked_of(cell: Cell) -> list[int]:
    """The round trips that a cell asks for, its own far site first."""
    return [cell.asked_rtt_ns, *(other.asked_rtt_ns for other in cell.others)]


def spans_of(lab: Lab, cell: Cell) -> list[tuple[Span, int]]:
    """The spans that a cell replicates over, each with its round trip; the lab may have more."""
    return list(zip(lab.spans, asked_of(cell), strict=False))


def order_of(run: Run, lab: Lab, cell: Cell, duration_ns: int, salt: str) -> Order:
    """What all sides are told of one round."""
    dice = random.Random(f"{run.seed}/{cell.id}/{salt}")
    workload = run.workloads[cell.name]
    load = load_of(workload.table, run.profile.lab.volume_bytes)
    slices = max(SLICES_MIN, round(duration_ns / NS_PER_S))
    return Order(
        protocol=cell.protocol,
        volume=dice.getrandbits(62),
        epoch=1,
        seed=dice.getrandbits(62),
        load=load,
        trace=window_of(workload, dice.getrandbits(40)),
        write_count_max=count_max(load, duration_ns) if load else 0,
        queue_depth=cell.queue_depth,
        duration_ns=duration_ns,
        slice_ns=duration_ns // slices,
        slice_count=slices,
        peer_timeout_ns=max(PEER_TIMEOUT_NS_MIN, PEER_TIMEOUT_ROUND_TRIPS * max(asked_of(cell))),
        # memfd writes are copies: io_uring would hand them to a worker thread.
        reactor="plain" if run.profile.lab.durability == "memory" else "auto",
        connections=() if cell.protocol == "local" else tuple(span.held("data") for span, _ in spans_of(lab, cell)),
        quorum=cell.quorum,
        pulls_ahead=cell.on_congestion == "pull-ahead",
    )


def window_of(workload: Workload, lot: int) -> TraceWindow | None:
    """The part of a workload's trace that this lot draws; None for a workload without a trace."""
    table, trace = workload.table, workload.trace
    if trace is None:
        return None
    return TraceWindow(
        path=str(workload.trace_path), begin_ns=lot % max(trace.duration_ns, 1), time_scale=table.time_scale,
        format=table.trace_format, begins=trace.begins,
    )  # fmt: skip


def measure_cell(run: Run, lab: Lab, cell: Cell, index: int, attempt: int) -> Round:
    """One cell, once: survey, load, survey, audit, and what all that says of the round."""
    table = run.profile.run
    begin_s = run.elapsed_s()
    legs = [leg_of(span, asked_rtt_ns, cell, table.survey_echoes) for span, asked_rtt_ns in spans_of(lab, cell)]
    ticks = processor_time()
    order = order_of(run, lab, cell, table.round_ns, f"{index}/{attempt}")
    kept = file_of(cell.id, index, attempt) if table.samples else None
    if kept:
        order = replace(order, samples_path=str((run.directory / kept).absolute()))
    quiet = read_noise()
    reasons: list[Reason] = []
    observed: Observed | None = None
    audit: Audit | None = None
    survived: list[int | None] = [None] * len(legs)
    changes: list[Happened] = []
    try:
        lab.near.board.counters[0].begin_ns = 0
        begun = partial(begun_ns, lab.near.board)
        with changing([leg.span for leg in legs], lab.spec, begun) as changes, beside(probers_of(legs)):
            observed = play(lab, order)
        if observed.status != 0:
            reasons.append(engine_stopped("; ".join([status_text(observed.status), *observed.near.tunnel_ends])))
    except UnfitError as failure:
        reasons.append(round_refused(str(failure)))
        lab.revive()
    failed = bool(reasons)
    steal, noise = steal_between(ticks, processor_time()), noise_of(lab, order, quiet, read_noise())
    loads = [load_of_link(leg) for leg in legs]
    afters = [leg.span.survey(table.survey_echoes) for leg in legs]
    if observed is not None:
        audit, survived = audit_of(lab, order, int(observed.near.recorder.at[0].acked))
    for place, (leg, loaded, after) in enumerate(zip(legs, loads, afters, strict=True)):
        if not leg.span.proves_distance or cell.protocol == "local":  # Which sends nothing over it.
            continue
        whose = f" to the site {cell.others[place - 1].miles:g} miles away" if place else ""
        reasons += link_reasons(leg.before, after, leg.asked_rtt_ns, whose) + load_reasons(leg, loaded, whose)
    made = round_of(
        cell, index, attempt, "failed" if failed else "void" if reasons else "ok", reasons, begin_s, table.round_ns,
        legs[0], loads[0], afters[0], observed, order, steal, audit,
    )  # fmt: skip
    if kept and observed:
        made = msgspec.structs.replace(made, samples=kept)
    fars = observed.fars[1:] if observed is not None else [None] * len(cell.others)
    others = zip(legs[1:], loads[1:], afters[1:], fars, survived[1:], strict=True)
    recorded = [LinkChange(at_ns=item.at_ns, happened_ns=item.happened_ns, what=item.what) for item in changes]
    return msgspec.structs.replace(made, others=[other_round(*other) for other in others], changes=recorded, noise=noise)


def noise_of(lab: Lab, order: Order, before: Reading, after: Reading) -> HostNoise:
    """What the machine did besides between two readings. In another process's lab the links and the other arms are not ours, and
    so not told from strangers: that process adds what it knows."""
    spans = lab.spans[: len(order.connections)]
    links: list[int | None] = []
    for span in spans:
        links += [None] if span.link.carriers is None else span.link.carriers
    found = noise_between(before, after, [lab.near.pid], [span.far.pid for span in spans], links)
    made = HostNoise(**dataclasses.asdict(found))
    return msgspec.structs.replace(made, own_share=None, foreign_share=None) if isinstance(lab, JoinedLab) else made


def begun_ns(board: SeenBoard) -> int:
    """When the load of the site with this board began; 0: it has not."""
    return int(board.counters[0].begin_ns)


def leg_of(span: Span, asked_rtt_ns: int, cell: Cell, count: int) -> Leg:
    """Set a span to its distance, and find out what it delivers."""
    span.set_rtt(asked_rtt_ns)
    floors = floors_of(span, cell, count // 2)
    before = span.survey(count)
    span.link.late_ns_max()  # From here on it is the load's.
    asked_ns = asked_rtt_ns if span.is_emulated else before.rtt_ns_p50
    return Leg(
        span, asked_ns, floors, before, span.link.counters(), span.link.late_counts()
    )


def counted(leg: Leg) -> dict[str, int]:
    """What the leg's link did since the survey before the round."""
    done = {name: value - leg.counters[name] for name, value in leg.span.link.counters().items()}
    late_ns_max = leg.span.link.late_ns_max()
    return done if late_ns_max is None else done | {"late_ns_max": late_ns_max}


def floors_of(span: Span, cell: Cell, count: int) -> Floors:
    """What is measured of a cell's floor over a span."""
    sizes = HEADER_BYTES + cell.size_bytes, HEADER_BYTES
    promise = PROMISES[cell.protocol]
    echoes = [span.echo_floor(count, *sizes, polled=polled) for polled in (False, True)] if promise.trips else [None] * 2
    durable = promise.durable_there
    flushed = [span.flushed_echo_floor(count, *sizes, polled=polled) for polled in (False, True)] if durable else [None] * 2
    return Floors(*echoes, *flushed)


@dataclass(frozen=True)
class LinkLoad:
    """What a link did while a load ran."""

    stamps: tuple[Stamps, Stamps] | None  # of the probes beside it
    late: list[Histogram] | None  # how late each packet left, outward and homeward; None: nobody knows


def probers_of(legs: Sequence[Leg]) -> list[Prober]:
    """Those that can send beside the load."""
    return [leg.span.prober for leg in legs if leg.span.prober is not None]


def load_of_link(leg: Leg) -> LinkLoad:
    """What the leg's link did since the survey before the round."""
    span, counts = leg.span, leg.span.link.late_counts()
    late = None
    if counts is not None and leg.late_counts is not None:
        late = [Histogram(np.ascontiguousarray(done)) for done in counts - leg.late_counts]
    return LinkLoad(span.prober.finish(sum(span.held_ns)) if span.prober else None, late)


def load_reasons(leg: Leg, loaded: LinkLoad, whose: str = "") -> list[Reason]:
    """Why the link was not what it claimed while the load ran; empty when it was.

    What more is asked of a link than a distance (a rate, jitter) acts on the probes beside the load as well, so that they do not
    show the distance; how late packets left is known all the same.
    """
    reasons: list[Reason] = []
    allowed_ns = tolerance_ns(leg.asked_rtt_ns)
    proves = leg.asked_rtt_ns and leg.span.spec.is_plain
    if loaded.stamps and proves and min(made.delay_ns.size for made in loaded.stamps) >= PROBES_MIN:
        missed_ns = off_ns(round_trips(*loaded.stamps).rtt_ns_p50, leg.asked_rtt_ns)
        if abs(missed_ns) > allowed_ns:
            reasons.append(link_missed("during", whose, float(missed_ns)))
    for name, late in zip(("outward", "homeward"), loaded.late or (), strict=False):
        share = late_share(late, allowed_ns)
        if share > LATE_SHARE_MAX:
            reasons.append(packets_late(share, name, whose, float(allowed_ns)))
    return reasons


def late_share(late: Histogram, allowed_ns: float) -> float:
    """The share of packets that left later than is allowed."""
    return float(late.counts[int(index_of(allowed_ns)) + 1 :].sum() / late.count) if late.count else 0.0


def directions_of(leg: Leg, loaded: LinkLoad, after: Survey) -> list[LinkDirection]:
    """The link over a round, as it is stored; empty where there is nothing to say of single packets."""
    if loaded.stamps is None and loaded.late is None:
        return []
    stages = [made.stamps if made else None for made in (leg.before, loaded, after)]
    return [
        LinkDirection(
            light_ns=leg.span.light_ns[direction],
            held_ns=leg.span.held_ns[direction],
            **{
                name: Histogram.of(stage[direction].delay_ns).encode() if stage else NOTHING
                for name, stage in zip(("before", "during", "after"), stages, strict=True)
            },
            lost=sum(stage[direction].sent - stage[direction].delay_ns.size for stage in stages if stage),
            late=loaded.late[direction].encode() if loaded.late else NOTHING,
        )
        for direction in range(2)
    ]


def link_reasons(before: Survey, after: Survey, asked_rtt_ns: float, whose: str = "") -> list[Reason]:
    """Why the link was not what it claimed; empty when it was, and at 0 miles, where it holds nothing back and claims nothing."""
    reasons: list[Reason] = []
    if not asked_rtt_ns:
        return reasons
    for when, made in (("before", before), ("after", after)):
        missed_ns = off_ns(made.rtt_ns_p50, asked_rtt_ns)
        if abs(missed_ns) > tolerance_ns(asked_rtt_ns):
            reasons.append(link_missed(when, whose, float(missed_ns)))
    return reasons


def play(lab: Lab, order: Order) -> Observed:
    """Run all sides of one order to their end; answers what was observed. UnfitError when a side died or hangs."""
    start_sides(lab, order)
    return finish_sides(lab, order)


def start_sides(lab: Lab, order: Order) -> None:
    """Set all sides to work; protocol local has only one."""
    lab.near.board.words[:] = 0
    for span in lab.spans[: len(order.connections)]:
        span.far.board.words[:] = 0
        span.join("data")
        span.far.start(sides.copy, order, span.far.disk, span.far.board)
    lab.near.start(sides.write, order, lab.near.disk, lab.near.board, lab.history, lab.issued)


def finish_sides(lab: Lab, order: Order) -> Observed:
    """What all sides observed. The near one hangs up first: a far one it gave up waits for that."""
    limit_s = (order.duration_ns + load_loop_kernel.DRAIN_NS + CATCH_UP_NS_MAX + 2 * order.peer_timeout_ns) / NS_PER_S + 20
    near: PrimaryObserved = lab.near.answer(limit_s)
    spans = lab.spans[: len(order.connections)]
    for span in spans:
        span.hang_up("data")
    fars: list[SecondaryObserved] = []
    for span in spans:
        fars.append(span.far.answer(limit_s))
        span.far.call(hang_up, "data")
    return Observed(near=near, fars=fars)


def audit_of(lab: Lab, order: Order, completed: int) -> tuple[Audit, list[int | None]]:
    """What stands at the far sites (at the near one for protocol local) of the writes that were acknowledged; and at each of
    them, how many. A write of a quorum is safe where W replicas hold it, and the near one's disk is read as well."""
    if order.protocol == "local":
        return stored_audit(lab.near.call(sides.audit, order, lab.near.disk, completed, lab.issued)), [None]
    sites = [span.far for span in lab.spans[: len(order.connections)]]
    if order.protocol == "quorum":
        sites.append(lab.near)
    found: list[Audited] = [site.call(sides.audit, order, site.disk, completed, lab.issued) for site in sites]
    survived = [item.survived for item in found]
    held = sorted(survived, reverse=True)[order.quorum - 1] if order.protocol == "quorum" else min(survived)
    damaged = sum(item.damaged for item in found)
    audit = Audit(completed=completed, survived=held, lost=max(completed - held, 0), damaged=damaged)
    return audit, list(survived[: len(order.connections)])


def stored_audit(found: Audited) -> Audit:
    """What one site's files hold, as it is stored."""
    return Audit(completed=found.completed, survived=found.survived, lost=found.lost, damaged=found.damaged)


def other_round(
    leg: Leg, loaded: LinkLoad, after: Survey, far: SecondaryObserved | None, survived: int | None
) -> OtherRound:
    """What a round has of a further secondary."""
    return OtherRound(
        survey_before=text_of(leg.before), survey_after=text_of(after), **floor_texts(leg.floors),
        far_flushes=far.flushes if far else 0, far_cpu_ns=far.cpu_ns if far else None, link=counted(leg), survived=survived,
        directions=directions_of(leg, loaded, after),
    )  # fmt: skip


def floor_texts(floors: Floors) -> dict[str, Any]:
    """A leg's floors as they are stored, by field of a round."""
    polled, flushed, polled_flushed = (text_of(made) if made else None for made in floors[1:])
    return {"echo_floor": text_of(floors.echo), "polled_echo_floor": polled, "flushed_echo_floor": flushed,
            "polled_flushed_echo_floor": polled_flushed}  # fmt: skip


def text_of(made: Survey | None) -> str:
    """A survey as it is stored."""
    return Histogram.of(made.rtt_ns).encode() if made else NOTHING


class Ordered(Protocol):
    """What a stored round takes from the order of its load, which need not be one of ours."""

    @property
    def slice_ns(self) -> int: ...
    @property
    def peer_timeout_ns(self) -> int | None: ...
    @property
    def load(self) -> Load | None: ...


def round_of(
    cell: Cell, index: int, attempt: int, status: RoundStatus, reasons: list[Reason], begin_s: float, duration_ns: int, leg: Leg,
    loaded: LinkLoad, after: Survey, observed: Observed | None, order: Ordered, steal: float | None, audit: Audit | None,
) -> Round:  # fmt: skip
    """The observations of one round as they are stored. Without an observation there was no load, and its counts are 0."""
    near = observed.near if observed else PrimaryObserved(status=0, recorder=recorder_of(0))
    far = observed.fars[0] if observed and observed.fars else None
    recorder = near.recorder
    totals = recorder.at[0]
    return Round(
        cell=cell.id,
        index=index,
        attempt=attempt,
        status=status,
        reasons=sentences(reasons),
        causes=reasons,
        begin_s=round(begin_s, 3),
        duration_ns=duration_ns,
        survey_before=text_of(leg.before),
        survey_after=text_of(after),
        **floor_texts(leg.floors),
        slices=slices_of(recorder, order.slice_ns),
        service=Histogram(recorder.service).encode(),
        wait=Histogram(recorder.wait).encode(),
        late=Histogram(recorder.late).encode(),
        lag=Histogram(near.lag).encode() if near.lag is not None else None,
        lag_writes_max=near.lag_writes_max,
        lag_bytes_max=near.lag_bytes_max,
        issued=int(totals.issued),
        completed=int(totals.completed),
        unacknowledged=int(totals.sequenced - totals.acked),
        completed_bytes=int(totals.bytes),
        flushes=near.flushes,
        flush_bytes=near.flush_bytes,
        far_flushes=far.flushes if far else 0,
        wire_bytes=near.wire_bytes,
        blocked=near.blocked,
        steal=steal,
        link=counted(leg),
        audit=audit,
        unissued=int(totals.unissued),
        near_cpu_ns=near.cpu_ns,
        far_cpu_ns=far.cpu_ns if far else None,
        exposed=near.exposed,
        catch_up_ns=near.catch_up_ns,
        peer_timeout_ns=order.peer_timeout_ns,
        parts=parts_of(recorder, order.load) if order.load else [],
        spin_ns=near.spin_ns,
        directions=directions_of(leg, loaded, after),
    )


def parts_of(recorder: load_loop_kernel.Recorder, load: Load) -> list[Part]:
    """What was seen of each operation of each job in each phase, without those that never were."""
    places = product(names_of(load), phases_of(load) or [""], OPERATIONS)
    return [
        Part(
            operation=operation, completed=int(recorder.part_count[row]), completed_bytes=int(recorder.part_bytes[row]),
            response=Histogram(recorder.part[row]).encode(), job=job, phase=phase, within=int(recorder.part_within[row]),
            within_bytes=int(recorder.part_within_bytes[row]),
        )
        for row, (job, phase, operation) in enumerate(places)
        if recorder.part_count.size and recorder.part_count[row]
    ]  # fmt: skip


def slices_of(recorder: load_loop_kernel.Recorder, slice_ns: int) -> list[Slice]:
    """The round's slices as they are stored."""
    return [
        Slice(
            begin_ns=index * slice_ns,
            duration_ns=slice_ns,
            completed=int(recorder.slice_count[index]),
            completed_bytes=int(recorder.slice_bytes[index]),
            within=int(recorder.within_count[index]),
            within_bytes=int(recorder.within_bytes[index]),
            response_ns_max=int(recorder.slice_max_ns[index]),
            response=Histogram(recorder.response[index]).encode(),
        )
        for index in range(recorder.slice_count.size)
    ]
