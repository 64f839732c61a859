"""Two drills. Kill: the site is lost, its link cut and its process killed at one instant. Cut: the link is lost, then healed.

What the caller had been promised is read from memory that outlives the killed process; what survived is read from the far
site's files, by a process started afresh that replays the journal. Nothing the killed or the surviving process says is believed.
"""

from __future__ import annotations

import random
import time

from .. import load_kernel
from ..errors import UnfitError
from ..lab.lab import Lab
from ..physics import rtt_ns_of
from ..protocol import ProtocolName
from ..recording import Audit, Cell, Drill
from ..round import finish_sides, order_of, start_sides
from ..run import Run
from ..target import sides
from ..units import NS_PER_MS, NS_PER_S

WATCH_S = 0.0005
GRACE_NS = 20 * NS_PER_MS  # For acks that were already on their way when the link was cut.


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
    order = order_of(run, lab, cell, 60 * NS_PER_S, f"kill/{index}")
    start_sides(lab, order)
    wait_for_load(lab)
    time.sleep(run.profile.drill.load_ns / NS_PER_S * dice.uniform(0.5, 1.5))

    lab.link.cut()
    lab.near.kill()
    lost_at_ns = time.monotonic_ns()
    completed = int(lab.near.board.words[load_kernel.BOARD_COMPLETED])

    # What was already in the glass still arrives; then the far site loses power too, and only its disk tells.
    time.sleep((cell.asked_rtt_ns + GRACE_NS) / NS_PER_S)
    lab.revive()
    found = lab.far.call(sides.audit, order, lab.far.disk, completed, lab.issued)
    history = lab.history.words
    first_lost = found["survived"]
    exposed_ns = lost_at_ns - int(history[first_lost % history.size]) if found["lost"] else 0
    return Drill(
        kind="kill", protocol=protocol, miles=cell.miles, index=index,
        audit=Audit(**{name: found[name] for name in ("completed", "survived", "lost", "damaged")}),
        lost_bytes=found["lost_bytes"], recovery_point_ns=exposed_ns, completed_during_cut=None, recovery_time_ns=None,
    )  # fmt: skip


def cut_drill(run: Run, lab: Lab, protocol: ProtocolName, index: int) -> Drill:
    """Cut the link under load, heal it, and see what was acknowledged meanwhile and when writes completed again."""
    cell = drill_cell(run, protocol)
    table = run.profile.drill
    lab.set_rtt(cell.asked_rtt_ns)
    duration_ns = 3 * table.load_ns + 4 * table.cut_ns
    order = order_of(run, lab, cell, duration_ns, f"cut/{index}")
    words = lab.near.board.words
    start_sides(lab, order)
    wait_for_load(lab)
    time.sleep(table.load_ns / NS_PER_S)

    lab.link.cut()
    time.sleep((cell.asked_rtt_ns + GRACE_NS) / NS_PER_S)
    before = int(words[load_kernel.BOARD_COMPLETED])
    time.sleep(max(table.cut_ns - cell.asked_rtt_ns - GRACE_NS, 0) / NS_PER_S)
    during = int(words[load_kernel.BOARD_COMPLETED]) - before
    lab.link.heal()
    healed_ns = time.monotonic_ns()
    recovery_ns = recovery_after(lab, before + during, healed_ns, protocol)

    note = ""
    try:
        observed, _ = finish_sides(lab, order)
        completed = int(observed["recorder"].at[load_kernel.ACKED])
        if observed["status"] != 0:
            note = "the engine gave the peer up during the cut"
    except UnfitError as lost:
        note = str(lost)
        completed = int(words[load_kernel.BOARD_COMPLETED])
        lab.revive()
    found = lab.far.call(sides.audit, order, lab.far.disk, completed, lab.issued)
    return Drill(
        kind="cut", protocol=protocol, miles=cell.miles, index=index,
        audit=Audit(**{name: found[name] for name in ("completed", "survived", "lost", "damaged")}),
        lost_bytes=found["lost_bytes"], recovery_point_ns=None, completed_during_cut=during,
        recovery_time_ns=recovery_ns, note=note,
    )  # fmt: skip


def wait_for_load(lab: Lab) -> None:
    """Return once the first write has completed; the answer of a side that ended early is raised where it is read."""
    words = lab.near.board.words
    limit_s = time.monotonic() + 10
    while words[load_kernel.BOARD_COMPLETED] == 0 and time.monotonic() < limit_s:
        assert lab.near.process is not None
        if lab.near.process.poll(WATCH_S):
            return


def recovery_after(lab: Lab, completed: int, healed_ns: int, protocol: ProtocolName) -> int | None:
    """Time from the heal to the next completed write, seen every half millisecond; None when none came.

    Under protocol A the load never stood still, so there is nothing to recover.
    """
    if protocol == "A":
        return None
    words = lab.near.board.words
    while words[load_kernel.BOARD_COMPLETED] <= completed:
        assert lab.near.process is not None
        if lab.near.process.poll(WATCH_S):
            return None
    return time.monotonic_ns() - healed_ns
