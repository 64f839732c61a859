"""Two drills. Kill: the site is lost, its link cut and its process killed at one instant. Cut: the link is lost, then healed.

What the caller had been promised is read from memory that outlives the killed process; what survived is read from the far
site's files, by a process started afresh that replays the journal. Nothing the killed or the surviving process says is believed.

A trial counts only where writes were being acknowledged right up to the fault: `load_at` looks at the near site's process and at
the instant of the last acknowledgement. Any other trial is kept with the reason why it does not count.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from ...base.errors import FarwriteError, UnfitError
from ...base.physics import rtt_ns_of
from ...base.protocol import ProtocolName
from ...base.units import NS_PER_MS, NS_PER_S
from ...lab.lab import Lab
from ...lab.process import ProcessLostError
from ...recording import Audit, Cell, Drill, Uncounted
from ...targets.observed import Audited, PrimaryObserved
from ...targets.replicated import Order, status_text
from ...workload.tables import DrillTable
from .. import sides
from ..cells import offered
from ..round import finish_sides, order_of, start_sides, stored_audit
from ..run_journal import Run

WATCH_S = 0.0005
GRACE_NS = 20 * NS_PER_MS  # For acks that were already on their way when the link was cut.
BEGIN_NS_MAX = 10 * NS_PER_S  # From the start of both sides to the first acknowledgement: they draw their plans meanwhile.
SPARE_NS = 5 * NS_PER_S  # A load is planned so much longer than all that is waited for: sleeps are late on a busy machine.
LOAD_SHARES = (0.5, 1.5)  # Of drill.load, by lot: how long a load runs before the kill.
RECOVERY_NS_MIN, RECOVERY_CUTS = 10 * NS_PER_S, 3  # A sender that lost its link tries again at intervals that double (RFC 6298).

# A load is alive when its last acknowledgement is not older than the greatest of these. A closed loop acknowledges every round
# trip (C2: every second); a paced one by lot, and ten mean gaps pass without an arrival once in 22 000.
ALIVE_NS_MIN = 100 * NS_PER_MS  # More than a busy machine takes a processor away for.
ALIVE_ROUND_TRIPS = 4
ALIVE_ARRIVALS = 10


@dataclass(frozen=True)
class LoadAt:
    """What the load was doing at an instant."""

    uncounted: Uncounted | None  # why it was not alive; None: it was
    detail: str  # the engine's or the system's own words
    last_ack_age_ns: int | None  # None: nothing had been acknowledged
    completed: int
    alive_ns: int  # an older last acknowledgement is none


def drill_cell(run: Run, protocol: ProtocolName) -> Cell:
    """The workload of a drill, as a cell of its own."""
    table, distance, load = run.profile.drill, run.profile.distance, run.profile.cell[0]
    return Cell(
        id=f"drill-{protocol}-{table.miles:g}", name=load.name, protocol=protocol, miles=table.miles,
        asked_rtt_ns=rtt_ns_of(table.miles, distance.route_factor, distance.equipment_ns),
        queue_depth=table.queue_depth, arrival=load.arrival, size_bytes=load.block_bytes, offered_per_s=None,
    )  # fmt: skip


def kill_drill(run: Run, lab: Lab, protocol: ProtocolName, index: int) -> Drill:
    """Lose the near site in the middle of a load and count what of its acknowledged writes is at the far one."""
    cell = drill_cell(run, protocol)
    dice = random.Random(f"{run.seed}/kill/{protocol}/{index}")
    lab.set_rtt(cell.asked_rtt_ns)
    order = order_of(run, lab, cell, kill_load_ns(run.profile.drill), f"kill/{index}")
    start_sides(lab, order)
    load_for(lab, run.profile.drill.load_ns / NS_PER_S * dice.uniform(*LOAD_SHARES))
    load = load_at(lab, alive_ns_of(run, cell))

    lab.link.cut()
    lab.near.kill()
    lost_at_ns = time.monotonic_ns()
    completed = int(lab.near.board.counters[0].completed)

    # What was already in the glass still arrives; then the far site loses power too, and only its disk tells.
    time.sleep((cell.asked_rtt_ns + GRACE_NS) / NS_PER_S)
    lab.revive()
    audit, lost_bytes = audited(lab, order, completed, load.uncounted)
    history = lab.history.words
    exposed_ns = lost_at_ns - int(history[audit.survived % history.size]) if audit.lost else 0
    return Drill(
        kind="kill", protocol=protocol, miles=cell.miles, index=index, audit=audit, lost_bytes=lost_bytes,
        recovery_point_ns=exposed_ns, completed_during_cut=None, recovery_time_ns=None, note=load.detail,
        uncounted=load.uncounted, last_ack_age_ns=load.last_ack_age_ns, alive_ns=load.alive_ns,
    )  # fmt: skip


def cut_drill(run: Run, lab: Lab, protocol: ProtocolName, index: int) -> Drill:
    """Cut the link under load, heal it, and see what was acknowledged meanwhile and when writes completed again."""
    cell = drill_cell(run, protocol)
    table = run.profile.drill
    lab.set_rtt(cell.asked_rtt_ns)
    order = order_of(run, lab, cell, cut_load_ns(table, cell.asked_rtt_ns), f"cut/{index}")
    counters = lab.near.board.counters
    start_sides(lab, order)
    load_for(lab, table.load_ns / NS_PER_S)
    load = load_at(lab, alive_ns_of(run, cell))
    if load.uncounted:  # There is nothing to cut off, and nothing that could recover.
        lab.revive()
        audit, lost_bytes = audited(lab, order, load.completed, load.uncounted)
        return Drill(
            kind="cut", protocol=protocol, miles=cell.miles, index=index, audit=audit, lost_bytes=lost_bytes,
            recovery_point_ns=None, completed_during_cut=None, recovery_time_ns=None, note=load.detail,
            uncounted=load.uncounted, last_ack_age_ns=load.last_ack_age_ns, alive_ns=load.alive_ns,
        )  # fmt: skip

    lab.link.cut()
    time.sleep((cell.asked_rtt_ns + GRACE_NS) / NS_PER_S)
    before = int(counters[0].completed)
    time.sleep(max(table.cut_ns - cell.asked_rtt_ns - GRACE_NS, 0) / NS_PER_S)
    during = int(counters[0].completed) - before
    lab.link.heal()
    healed_ns = time.monotonic_ns()
    recovery_ns = recovery_after(lab, before + during, healed_ns, protocol, recovery_ns_max(table))
    if recovery_ns is not None or protocol == "A":
        load_for(lab, table.load_ns / NS_PER_S)
    counters[0].stop = 1  # The plan is longer than what was waited for.

    note = ""
    try:
        near = finish_sides(lab, order).near
        completed = int(near.recorder.at[0].acked)
        if near.status != 0:
            note = "the engine gave the peer up during the cut"
    except UnfitError as lost:
        note = str(lost)
        completed = int(counters[0].completed)
        lab.revive()
    audit, lost_bytes = audited(lab, order, completed, None)
    return Drill(
        kind="cut", protocol=protocol, miles=cell.miles, index=index, audit=audit, lost_bytes=lost_bytes,
        recovery_point_ns=None, completed_during_cut=during, recovery_time_ns=recovery_ns, note=note,
        last_ack_age_ns=load.last_ack_age_ns, alive_ns=load.alive_ns,
    )  # fmt: skip


def kill_load_ns(table: DrillTable) -> int:
    """How long a load must be planned to outlast everything that is waited for before a kill."""
    return BEGIN_NS_MAX + round(LOAD_SHARES[1] * table.load_ns) + SPARE_NS


def cut_load_ns(table: DrillTable, rtt_ns: int) -> int:
    """The same for a cut: the load before it, the cut, the recovery, and the load after it."""
    return BEGIN_NS_MAX + 2 * table.load_ns + max(table.cut_ns, rtt_ns + GRACE_NS) + recovery_ns_max(table) + SPARE_NS


def recovery_ns_max(table: DrillTable) -> int:
    """How long is waited for a write to complete once the link is healed."""
    return max(RECOVERY_NS_MIN, RECOVERY_CUTS * table.cut_ns)


def alive_ns_of(run: Run, cell: Cell) -> int:
    """How old the last acknowledgement of a load may be that counts as alive."""
    per_s = offered(run.workloads[cell.name])
    gaps_ns = round(ALIVE_ARRIVALS * NS_PER_S / per_s) if per_s else 0
    return max(ALIVE_NS_MIN, ALIVE_ROUND_TRIPS * cell.asked_rtt_ns, gaps_ns)


def load_at(lab: Lab, alive_ns: int) -> LoadAt:
    """What the load is doing now. A near process that has ended is asked why."""
    counters, history = lab.near.board.counters, lab.history.words
    now_ns = time.monotonic_ns()
    completed = int(counters[0].completed)
    age_ns = max(now_ns - int(history[(completed - 1) % history.size]), 0) if completed else None
    code, detail = end_of_near(lab)
    if code is None and age_ns is None:
        code = "nothing-acknowledged"
    elif code is None and age_ns is not None and age_ns > alive_ns:
        code = "stalled"
    return LoadAt(code, detail, age_ns, completed, alive_ns)


def end_of_near(lab: Lab) -> tuple[Uncounted | None, str]:
    """Why the near site's engine has ended, and its own words; (None, "") while it works. A crash of ours is raised."""
    if not lab.near.poll(0):
        return None, ""
    try:
        near: PrimaryObserved = lab.near.answer(0)
    except ProcessLostError as lost:
        return "near-died", str(lost)
    except FarwriteError as refusal:
        return "engine-stopped", str(refusal)
    return ("load-ended", "") if near.status == 0 else ("engine-stopped", status_text(near.status))


def audited(lab: Lab, order: Order, completed: int, uncounted: Uncounted | None) -> tuple[Audit, int]:
    """What the far site holds of the writes that were acknowledged, and how many bytes of them are lost.

    Where the load never was alive the far site may hold no journal of this trial; that is a note where nothing was acknowledged.
    """
    try:
        found: Audited = lab.far.call(sides.audit, order, lab.far.disk, completed, lab.issued)
    except UnfitError as refusal:
        if uncounted is None or completed:
            raise
        return Audit(completed=0, survived=0, lost=0, damaged=0, note=str(refusal)), 0
    return stored_audit(found), found.lost_bytes


def load_for(lab: Lab, seconds: float) -> None:
    """Return so long after the first write was acknowledged, or at once when the near site's process has ended."""
    counters = lab.near.board.counters
    limit_s = time.monotonic() + BEGIN_NS_MAX / NS_PER_S
    while counters[0].completed == 0 and time.monotonic() < limit_s:
        if lab.near.poll(WATCH_S):
            return
    if counters[0].completed:
        lab.near.poll(seconds)


def recovery_after(lab: Lab, completed: int, healed_ns: int, protocol: ProtocolName, limit_ns: int) -> int | None:
    """Time from the heal to the next completed write, seen every half millisecond; None when none came within the limit.

    Under protocol A the load never stood still, so there is nothing to recover.
    """
    if protocol == "A":
        return None
    counters = lab.near.board.counters
    while counters[0].completed <= completed:
        if lab.near.poll(WATCH_S) or time.monotonic_ns() - healed_ns > limit_ns:
            return None
    return time.monotonic_ns() - healed_ns
