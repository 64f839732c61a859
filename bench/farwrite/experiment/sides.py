"""Where lab and target meet: what a site's process does in a round, with the connections it holds and its board.

Module-level functions, because a call into another process names its function.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from ..base.host import reactor
from ..base.host.disk import Disk
from ..base.wire.pump import PEER_ENDED, REPLICA_ENDED
from ..lab.shared_memory import Board
from ..lab.survey import CONNECTIONS, TUNNELS
from ..targets import replicated
from ..targets.observed import Audited, PrimaryObserved, SecondaryObserved
from ..targets.replicated import Order

KILLED = "The tunnel's process was killed."


def write(order: Order, disk: Disk, board: Board, history: Board, issued: Board) -> PrimaryObserved:
    """In the near site: the primary and its load, to the end of the plan."""
    names = () if order.protocol == "local" else order.connections
    with tunnels_counted(names) as used:
        connections = [CONNECTIONS[name] for name in names]
        observed = replicated.write_side(order, disk, connections, board.counters, history.words, issued.words)
    # What the engine counts is not what the network carried.
    wire_bytes = used.sent_bytes if any(name in TUNNELS for name in names) else observed.wire_bytes
    cpu_ns = (observed.cpu_ns or 0) + used.cpu_ns
    return msgspec.structs.replace(observed, wire_bytes=wire_bytes, cpu_ns=cpu_ns, tunnel_ends=tunnel_ends(names))


def copy(order: Order, disk: Disk, board: Board) -> SecondaryObserved:
    """In the far site: the secondary, until the primary says goodbye or is lost."""
    with tunnels_counted(("data",)) as used:
        observed = replicated.copy_side(order, disk, CONNECTIONS["data"], board.counters)
    return msgspec.structs.replace(observed, cpu_ns=observed.cpu_ns + used.cpu_ns)


@dataclass
class Used:
    """What the tunnels of some connections did meanwhile."""

    sent_bytes: int = 0  # on the network, compressed and encrypted
    cpu_ns: int = 0


@contextmanager
def tunnels_counted(names: Iterable[str]) -> Iterator[Used]:
    """What the tunnels of these connections do in this block, known at its end; nothing where there are none."""
    tunnels = [TUNNELS[name] for name in names if name in TUNNELS]
    sent_bytes, cpu_ns = (sum(tunnel.sent_bytes for tunnel in tunnels), sum(tunnel.cpu_ns for tunnel in tunnels))
    used = Used()
    yield used
    used.sent_bytes = sum(tunnel.sent_bytes for tunnel in tunnels) - sent_bytes
    used.cpu_ns = sum(tunnel.cpu_ns for tunnel in tunnels) - cpu_ns


def tunnel_ends(names: Iterable[str]) -> tuple[str, ...]:
    """Why those tunnels ended that did not end because this side, or the peer's tunnel in good order, hung up."""
    ends = [TUNNELS[name].ended(0) for name in names if name in TUNNELS]
    return tuple(end or KILLED for end in ends if end not in (None, REPLICA_ENDED, PEER_ENDED))


def audit(order: Order, disk: Disk, completed: int, issued: Board) -> Audited:
    """In a site: what its files hold of the first `completed` writes."""
    return replicated.audit_side(order, disk, completed, issued.words)


def reactor_name() -> str:
    """In a site: how its replica will wait, io_uring or pwrite."""
    with reactor.reactor("auto") as chosen:
        return reactor.name_of(chosen)
