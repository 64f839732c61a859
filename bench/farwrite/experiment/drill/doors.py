"""A replica of a drill whose clients come through a door: the node of `farwrite serve`, its NBD or iSCSI door at its own site.

The node is the one that is served (../serve/replica.py), with the one door that is drilled; what is added is what a drill has
every replica do (desk.py): it notes its elections and when its door opens, and its disk can be made to fail. The NBD port is this
process's own, bound as long as it lives and listening while it leads, so a site whose process is killed refuses connections.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import NamedTuple

from ...analysis.drill_recording import OPENS, TAKES
from ...base.host.disk import Disk
from ...engine import primary_kernel as primary
from ...engine.frontend.frontend import Frontend
from ...engine.frontend.iscsi.portal import PORT as ISCSI_PORT
from ...engine.frontend.iscsi.store import AREA_BYTES
from ...engine.frontend.nbd_client import PORT as NBD_PORT
from ...engine.frontend.nbd_door import nbd_door
from ...lab.namespace import Loopback, enter_time
from ...lab.shared_memory import Board
from ...lab.site import LocalSite
from ..serve import replica as served
from ..serve.server import bound_tcp, free_port
from ..voters import quieten, terms_of
from .desk import NOTES_WORDS, STAGING_BYTES, DrilledNode, Order, begin_drilled

VOLUME = 1
TARGET = served.target_name(VOLUME)
BOARD_WORDS = served.BOARD_WORDS + NOTES_WORDS
CLIENTS_MAX = 64
PORTS = {"nbd": NBD_PORT, "iscsi": ISCSI_PORT}
BLOCK_BYTES = 4096


class Doors(NamedTuple):
    """The doors of a trial."""

    kind: str  # "nbd" or "iscsi"
    ports: dict[str, int]  # by replica, at its site's address
    size_bytes: int  # what clients see of the volume


def sizes_of(load_bytes: int) -> tuple[int, int]:
    """(what clients see, the whole volume) where a load needs so many bytes: reservations of initiators lie behind it."""
    seen = -(-load_bytes // BLOCK_BYTES) * BLOCK_BYTES
    return seen, seen + AREA_BYTES


def port_at(site: LocalSite, kind: str) -> int:
    """Where a site's door is: at its usual port, or a free one where the network is the whole machine's."""
    return free_port(socket.AF_INET, site.address) if isinstance(site.place, Loopback) else PORTS[kind]


class NotedFrontend(Frontend):
    """Has the node note when its loop begins to take clients."""

    node: DoorNode

    def begin(self, state: primary.Primary) -> None:
        super().begin(state)
        self.node.note(TAKES, int(self.node.board[0].led_epoch))


class DoorNode(DrilledNode, served.ServedNode):
    """A served node that keeps word of its elections and of its door. It opens no other, so no drill leaves a socket's file."""

    def open_doors(self, stack: contextlib.ExitStack) -> None:
        epoch = int(self.board[0].led_epoch)
        if self.order.tcp_fd is not None:
            listening = stack.enter_context(served.tcp_listener(self.order.tcp_fd))
            stack.enter_context(nbd_door(listening, self.exports, self.take_in, name=f"the NBD door of {self.order.name}"))
        self.open_portals(stack)
        self.note(OPENS, epoch)


def run_replica(order: Order, doors: Doors, chosen: Disk, ballot_fd: int, board: Board) -> None:
    """In a process at its site: a replica with its door, until its board says stop."""
    quieten(order.is_verbose)
    if order.clock_ahead_ns:
        enter_time(order.clock_ahead_ns)
    figures = served.figures_of(board)
    figures.task.pid, figures.task.is_open = os.getpid(), 0
    with contextlib.ExitStack() as stack:
        tcp_fd = None
        if doors.kind == "nbd":
            tcp_fd = stack.enter_context(bound_tcp(order.addresses[order.name].host, doors.ports[order.name])).fileno()
        frontend = NotedFrontend(
            chosen.volume_bytes, CLIENTS_MAX, counters=figures.counters, writes_ns=figures.writes_ns, reads_ns=figures.reads_ns
        )
        stack.callback(frontend.close)
        made = DoorNode(
            order.name, chosen, ballot_fd, order.addresses, order.witness, order.volume, board.counters, frontend,
            terms_of(order.key), protocol=order.protocol, policy=order.policy, quorum=order.quorum, seed=order.seed,
            peer_timeout_ns=order.peer_timeout_ns, staging_bytes=STAGING_BYTES, count=figures.room,
        )  # fmt: skip
        frontend.node, made.frontend, made.board_ = made, frontend, board
        made.order = served.Order(
            order.name, order.addresses, order.witness, order.key, order.volume, order.protocol, order.policy, order.quorum,
            order.peer_timeout_ns, order.stands_first, order.is_verbose, Path(), tcp_fd, None, doors.size_bytes, None,
            None, doors.ports if doors.kind == "iscsi" else {},
        )  # fmt: skip
        begin_drilled(made, order, board)
        made.run()
