"""One round of one cell: survey, load, survey, audit, and what all that says of it.

A round whose link was not what it claimed, or whose processors the host took, is void; one whose engine stopped has failed. Both
are kept with their reasons and never averaged in. The drills use the same orders and the same two sides.
"""

from __future__ import annotations

import random

import numpy as np

from . import load_kernel
from .cells import load_of, table_of, write_count_max
from .engine import replica_kernel as replica
from .engine.record_kernel import HEADER_BYTES
from .errors import UnfitError
from .histogram import Histogram
from .host.facts import processor_time, steal_between
from .lab.lab import Lab
from .lab.survey import Survey, hang_up, off_ns, tolerance_ns
from .recording import Audit, Cell, Round, Slice
from .run import Run
from .target import sides
from .target.replicated import Order, status_text
from .trace import find
from .units import NS_PER_S

PEER_TIMEOUT_NS_MIN = NS_PER_S
PEER_TIMEOUT_ROUND_TRIPS = 50
SLICES_MIN = 10
CORRECTIONS_MAX = 4
NOTHING = Histogram().encode()


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
        trace_path=str(find(table.trace)) if table.trace else "",
        trace_begin_ns=dice.getrandbits(40),
        time_scale=table.time_scale,
        write_count_max=write_count_max(table, duration_ns),
        queue_depth=cell.queue_depth,
        duration_ns=duration_ns,
        slice_ns=duration_ns // slices,
        slice_count=slices,
        peer_timeout_ns=max(PEER_TIMEOUT_NS_MIN, PEER_TIMEOUT_ROUND_TRIPS * cell.asked_rtt_ns),
        # memfd writes are copies: io_uring would hand them to a worker thread.
        reactor="plain" if run.profile.lab.durability == "memory" else "auto",
    )


def measure_cell(run: Run, lab: Lab, cell: Cell, index: int, attempt: int) -> Round:
    """One cell, once: survey, load, survey, audit, and what all that says of the round."""
    table = run.profile.run
    begin_s = run.elapsed_s()
    lab.set_rtt(cell.asked_rtt_ns)
    echo, flushed = floors_of(lab, cell, table.survey_echoes // 2)
    before = survey_before(lab, cell.asked_rtt_ns, table.survey_echoes)
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
    if cell.asked_rtt_ns:
        lab.correct(cell.asked_rtt_ns, (after.rtt_ns_p50 - asked_rtt_ns) / 2)
    counted = {name: value - counters[name] for name, value in lab.link.counters().items()}
    return round_of(
        cell, index, attempt, "failed" if failed else "void" if reasons else "ok", reasons, begin_s, table.round_ns,
        (before, after, echo, flushed), observed, order, steal, counted, audit,
    )  # fmt: skip


def floors_of(lab: Lab, cell: Cell, count: int) -> tuple[Survey | None, Survey | None]:
    """(echo, flushed echo) of the write's sizes, as far as the cell's protocol waits for such a thing."""
    sizes = HEADER_BYTES + cell.size_bytes, HEADER_BYTES
    echo = lab.echo_floor(count, *sizes) if cell.protocol in ("B", "C") else None
    flushed = lab.flushed_echo_floor(count, *sizes) if cell.protocol == "C" else None
    return echo, flushed


def survey_before(lab: Lab, asked_rtt_ns: int, count: int) -> Survey:
    """The survey that a round starts from; a link that has drifted is corrected first, as often as is worth it."""
    for _ in range(CORRECTIONS_MAX):
        made = lab.survey(count)
        missed_ns = off_ns(made.rtt_ns_p50, asked_rtt_ns)
        if asked_rtt_ns == 0 or abs(missed_ns) <= tolerance_ns(asked_rtt_ns) / 2 or not lab.correct(asked_rtt_ns, missed_ns):
            break
    return made


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
    return observed | {"far_flushes": far["far_flushes"], "far_cpu_ns": far["far_cpu_ns"]}


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
        return observed, {"far_flushes": 0, "status": 0, "refused": 0, "far_cpu_ns": None}
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
    surveys: tuple[Survey, Survey, Survey | None, Survey | None], observed: dict, order: Order, steal: float | None,
    counted: dict[str, int], audit: Audit | None,
) -> Round:  # fmt: skip
    """The observations of one round as they are stored."""
    before, after, echo, flushed = (Histogram.of(item.rtt_ns).encode() if item else None for item in surveys)
    assert before is not None and after is not None
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
        echo_floor=echo or NOTHING,
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
        near_cpu_ns=observed.get("near_cpu_ns"),
        far_cpu_ns=observed.get("far_cpu_ns"),
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
