"""A served replica: a node whose doors are open exactly as long as it leads.

Its unix socket is made anew each time it leads, and removed afterwards: who connects meanwhile is refused at once, so that a
client that reconnects, or has a second path, goes on at whoever leads now. `volume.sock` always points at that one. The TCP
socket is the parent's, bound where clients are, and shared by all replicas: it listens while one of them leads. The iSCSI portal
of a site listens always: while another site leads it sends whoever logs in there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...base.errors import UnfitError, system_error
from ...base.histogram import SLOTS
from ...base.host.disk import Disk
from ...base.row import Row, i64
from ...base.wire.certificates import server_context
from ...base.wire.congestion import state_congestion
from ...base.wire.door import BACKLOG
from ...base.wire.terms import EncryptionName
from ...engine import primary_kernel as primary
from ...engine import replica_kernel as replica
from ...engine import room_kernel
from ...engine.control import Address
from ...engine.frontend import session_kernel as sessions
from ...engine.frontend.frontend import Frontend
from ...engine.frontend.iscsi.chap import Credentials
from ...engine.frontend.iscsi.engine_volume import EngineVolume
from ...engine.frontend.iscsi.pages import ACTIVE_OPTIMIZED, STANDBY, UNAVAILABLE, Identification, PortGroup
from ...engine.frontend.iscsi.portal import portal, portal_of
from ...engine.frontend.iscsi.relay import Gates
from ...engine.frontend.iscsi.scsi import LogicalUnit
from ...engine.frontend.iscsi.sense import SOFT_THRESHOLD
from ...engine.frontend.iscsi.store import AREA_BYTES, VolumeStore
from ...engine.frontend.iscsi.target import Target
from ...engine.frontend.nbd_client import Place
from ...engine.frontend.nbd_door import nbd_door
from ...engine.frontend.nbd_negotiation import Chosen, Export, Tls
from ...engine.node import Node
from ...engine.room import is_above_level
from ...engine.snapshot import Snapshot
from ...lab.shared_memory import Board
from ..voters import REST_AT, quieten, rehearse_node, seat_of, terms_of
from .control import CONTROL, FOLLOWS, Desk, control_door

STAGING_BYTES = 8 << 20
REHEARSAL_BYTES = 32 << 20  # Of a journal that holds a few times as much.
SOCKET_PATH_BYTES_MAX = 107  # unix(7).
DESCRIPTORS_OTHER = 512  # Of a replica, beside its clients': strangers at its doors and its port, peers, votes, files.
DESCRIPTORS_TLS = 3  # For a client: its connection, and the two ends of its tunnel.
REPORT_S = 0.1
OPENS_LOOK_S = 0.002  # Until the doors are open: clients wait for it after each failover and hand-over.
LEADS_S = 5.0  # From the opening of a door until the loop takes clients: no longer than to open files.
DRAIN_S = 3.0  # For what was taken to complete, when the volume is closed.
CLIENTS_MIN = 8
VOLUME, READ_ONLY = "volume", "volume-ro"
ONE_GROUP = (PortGroup(1, ACTIVE_OPTIMIZED, (1,)),)

LOG = logging.getLogger(__name__)


class Task(Row):
    """What server and replica tell each other besides the seat."""

    drain = i64("1: take no more clients and requests, answer what was taken, then say so; written by the server")
    drained = i64("1: done; 2: not all could be answered in time")
    is_open = i64("1: its doors are open")
    pid = i64("number of its process, which is another after each start")
    forgets = i64("1: whoever opens the doors first is to forget the reservations of iSCSI initiators; written by the server")
    no_iscsi = i64("1: it leads, and the reservations in the volume are damaged, so it offers no disk over iSCSI")
    leader = i64("whose doors are open: 1 and its place among the replicas' names in order; 0: nobody's; written by the server")
    size_bytes = i64("bytes of the volume for clients that connect from now on; 0: as ordered; written by the server")


class PeerFigures(Row):
    """Where a peer stands, as the replica that leads knows it."""

    state = i64("ABSENT, LIVE, CATCHING or RESYNCING")
    detached = i64("1: writes complete without it")
    lag_writes = i64("writes that are laid into the log here and not known durable there")


PEERS_MAX = primary.PEERS_MAX
TASK_AT = REST_AT
COUNTERS_AT = TASK_AT + Task.LAYOUT.itemsize // 8
PEERS_AT = COUNTERS_AT + sessions.Counters.LAYOUT.itemsize // 8
ROOM_AT = PEERS_AT + PEERS_MAX * PeerFigures.LAYOUT.itemsize // 8
WRITES_AT = ROOM_AT + room_kernel.Count.LAYOUT.itemsize // 8
READS_AT = WRITES_AT + SLOTS
BOARD_WORDS = READS_AT + SLOTS


class Figures(NamedTuple):
    """What lies on a replica's board for others to read."""

    task: Any
    counters: np.ndarray
    peer: np.ndarray
    room: np.ndarray  # room_kernel.Count, one
    writes_ns: np.ndarray
    reads_ns: np.ndarray


def figures_of(board: Board) -> Figures:
    """Those of a replica's board."""
    words = board.words
    return Figures(
        words[TASK_AT:COUNTERS_AT].view(Task.LAYOUT)[0], words[COUNTERS_AT:PEERS_AT].view(sessions.Counters.LAYOUT),
        words[PEERS_AT:ROOM_AT].view(PeerFigures.LAYOUT), words[ROOM_AT:WRITES_AT].view(room_kernel.Count.LAYOUT),
        words[WRITES_AT:READS_AT], words[READS_AT:BOARD_WORDS],
    )  # fmt: skip


class Order(NamedTuple):
    """What a replica is started with."""

    name: str
    addresses: dict[str, Address]
    witness: Address | None
    key: bytes
    volume: int
    protocol: int
    policy: int
    quorum: int
    peer_timeout_ns: int
    stands_first: bool  # asks for votes as soon as it is up, instead of waiting for a primary
    is_verbose: bool
    sockets: Path  # the directory
    tcp_fd: int | None  # bound, and listening while one leads
    tls: Path | None  # the directory of the certificates: TCP then needs TLS, and the unix socket allows it
    size_bytes: int  # what clients see of the volume
    iscsi_fd: int | None  # bound, for initiators outside of the lab
    chap: Credentials | None  # that initiators must know
    portals: dict[str, int]  # by replica, the port of its site's iSCSI portal; none where a site has no network of its own
    encryption: EncryptionName = "none"  # between replicas and voters
    voters: dict[str, Address] | None = None  # who votes, where that is not the replicas and the witness (engine/node.py)
    founders: tuple[str, ...] | None = None  # the replicas that the volume was made with, where these are not all of them
    latency_budget_ns: int = 0  # while writes take longer, a replica that is brought up to date is slowed down; 0: never


def exports_of(
    size_bytes: int, snapshots: Sequence[Snapshot] = (), what: str = "the replicated volume"
) -> tuple[Export, ...]:
    """The views of the volume; the first is what the empty name means. Then each snapshot that can be served here."""
    whole = sorted((one for one in snapshots if one.is_whole), key=lambda one: one.sequence)
    older = {one.name: one.sequence for one in whole}
    exports = [
        Export(VOLUME, size_bytes, False, what, older=older),
        Export(READ_ONLY, size_bytes, True, f"{what}, to be read only", older=older),
    ]
    for one in whole:
        taken = datetime.fromtimestamp(one.taken_ns / 1e9, UTC).isoformat(" ", "seconds")
        before = {name: sequence for name, sequence in older.items() if sequence <= one.sequence}
        exports.append(Export(f"{VOLUME}@{one.name}", size_bytes, True, f"the volume at {taken}", one.sequence, before))
    return tuple(exports)


class ServedNode(Node):
    """A node with doors, which says on its board how it stands."""

    order: Order
    board_: Board
    frontend: Frontend
    unit: LogicalUnit | None = None  # of the target that is offered

    @property
    def first_peers(self) -> list[str]:
        """The other replicas that it was started with: those of which a board has a row."""
        return [name for name in sorted(self.order.addresses) if name != self.name]

    def run(self) -> None:
        self.standby = contextlib.ExitStack()  # The site's iSCSI portal while another site leads.
        with self.standby:
            self.stand_by()
            super().run()

    def stand_by(self) -> None:
        """Send initiators that come to this site's portal to the site that serves the volume."""
        order = self.order
        if order.name not in order.portals:
            return
        target = standby_target_of(order, self.frontend, self.where_it_is_served)
        self.standby.enter_context(portal(target, order.addresses[order.name].host, order.portals[order.name], in_lab=True))

    def where_it_is_served(self, target: str) -> str | None:
        """The portal of the site whose doors are open, as "address:port"; None where it is ours, or nobody's."""
        order, leader = self.order, int(figures_of(self.board_).task.leader)
        name = sorted(order.addresses)[leader - 1] if leader else order.name
        return None if name == order.name else f"{order.addresses[name].host}:{order.portals[name]}"

    def follow(self, arrivals: Any) -> bool:
        seat_of(self.board_).ready = 1
        return super().follow(arrivals)

    def lead_in(self, epoch: int) -> None:
        figures = figures_of(self.board_)
        ended = threading.Event()
        with contextlib.ExitStack() as stack:
            stack.callback(ended.set)
            reporting = self.thread(self.report, figures, ended)
            stack.callback(reporting.join)
            stack.callback(ended.set)
            super().lead_in(epoch)

    def report(self, figures: Figures, ended: threading.Event) -> None:
        """In a thread, while we lead: open the doors once the loop takes clients, tell how we stand, and drain when asked to."""
        seat, is_told = seat_of(self.board_), False
        with contextlib.ExitStack() as doors:
            while not ended.wait(REPORT_S if figures.task.is_open else OPENS_LOOK_S):
                if self.frontend.leads() and not figures.task.is_open and not figures.task.drain:
                    self.open_doors(doors)
                    figures.task.is_open = 1
                state = self.primary
                if state is not None:
                    rows = {name: state.peer[index] for index, name in self.rows.named()}
                    tell_peers(state, figures.peer, [rows.get(name) for name in self.first_peers])
                    self.tell_roles(state)
                    self.tell_size()
                    is_above = is_above_level(figures.room[0])
                    if self.unit is not None and is_above and not is_told:
                        self.unit.tell_all(SOFT_THRESHOLD)
                    is_told = is_above and (is_told or self.unit is not None)
                    seat.joined = all(peer.state == primary.LIVE and not peer.detached for peer in rows.values())
                if figures.task.drain and not figures.task.drained:
                    doors.close()
                    figures.task.drained = 1 if self.frontend.shut_down(DRAIN_S) else 2
        self.unit = None
        figures.task.no_iscsi = 0
        if not (figures.task.drain or self.stopped()):
            self.stand_by()
        figures.task.is_open, seat.joined = 0, 0
        figures.peer["state"], figures.peer["lag_writes"] = primary.ABSENT, 0

    def open_doors(self, stack: contextlib.ExitStack) -> None:
        """Every door, until the stack ends."""
        order = self.order
        context = server_context(order.tls) if order.tls else None
        name = f"the NBD door of {order.name}"
        here = stack.enter_context(unix_listener(order.sockets, order.name))
        stack.enter_context(nbd_door(here, self.exports, self.take_in, Tls.ALLOWED if context else Tls.NONE, context, name=name))
        if order.tcp_fd is not None:
            there = stack.enter_context(tcp_listener(order.tcp_fd))
            demands = Tls.REQUIRED if context else Tls.NONE
            stack.enter_context(nbd_door(there, self.exports, self.take_in, demands, context, name=name))
        self.open_portals(stack)
        asked = stack.enter_context(unix_listener(order.sockets, f"{order.name}-control", CONTROL))
        own_door = str(order.sockets / f"{order.name}.sock")
        desk = Desk(
            self, f"{order.volume:x}", order.name, lambda snapshot: Place(own_door, f"{VOLUME}@{snapshot}"),
            lambda: self.primary is not None and not (self.steps_down or self.handing_over),
        )  # fmt: skip
        stack.enter_context(control_door(asked, desk, f"the control socket of {order.name}"))

    def exports(self) -> tuple[Export, ...]:
        """What whoever comes now may choose from. UnfitError while the doors close because another replica leads: it would be
        let in, and hung up on at once."""
        if not self.frontend.leads():
            raise UnfitError("This replica does not lead any more.")
        return exports_of(self.size_bytes, self.snapshots())

    def open_portals(self, stack: contextlib.ExitStack) -> None:
        """The iSCSI door: one at this site, for whoever is in the lab, and the one that all replicas share with who is not."""
        order, gates = self.order, Gates(self.frontend)
        self.standby.close()
        if not order.portals and order.iscsi_fd is None:
            return
        figures = figures_of(self.board_)
        try:
            groups = self.groups(self.primary)
            target = target_of(order, self.frontend, self.size_bytes, self.disk.volume_bytes, groups, bool(figures.task.forgets))
        except UnfitError as damage:
            LOG.error("%s", damage)
            figures.task.no_iscsi = 1
            return
        except OSError as refusal:  # It leads no more already.
            LOG.warning("read the reservations in the volume: %s.", refusal.strerror)
            return
        figures.task.forgets = figures.task.no_iscsi = 0
        self.unit = target.unit
        if order.name in order.portals:
            here = order.addresses[order.name].host
            stack.enter_context(portal(target, here, order.portals[order.name], in_lab=True, gates=gates))
        if order.iscsi_fd is not None:
            stack.enter_context(portal_of(stack.enter_context(tcp_listener(order.iscsi_fd)), target, gates=gates))

    @property
    def size_bytes(self) -> int:
        """Of the volume, for whoever comes now."""
        return int(figures_of(self.board_).task.size_bytes) or self.order.size_bytes

    def tell_size(self) -> None:
        """Have initiators know of another size: their sessions reach as far at once. NBD clients know it when they come anew."""
        size_bytes = self.size_bytes
        if self.unit is not None and self.unit.disk.bytes != size_bytes:
            self.frontend.resize_blocks(self.unit.disk.bytes, size_bytes)
            self.unit.resize(size_bytes)

    def tell_roles(self, state: primary.Primary) -> None:
        """Have initiators know at which other sites the volume would be served now. A change is a unit attention."""
        if self.unit is not None:
            self.unit.change_groups(self.groups(state))

    def groups(self, state: primary.Primary | None) -> tuple[PortGroup, ...]:
        """A target port group a site: ours serves the volume, and the others stand by where they keep up with us. Without
        portals of sites there is one address, that of whoever leads."""
        if not self.order.portals:
            return ONE_GROUP
        names, serves = sorted(self.order.addresses), {self.name: ACTIVE_OPTIMIZED}
        if state is not None:
            stand_by = {name: stands_by(state.peer[index]) for index, name in self.rows.named()}
            serves |= {name: STANDBY for name, stands in stand_by.items() if stands}
        return tuple(PortGroup(number, serves.get(name, UNAVAILABLE), (number,)) for number, name in enumerate(names, 1))

    def take_in(self, connection: socket.socket, chosen: Chosen) -> None:
        """A client that has chosen its export is the loop's."""
        flags = (
            sessions.READ_ONLY * chosen.export.is_read_only | sessions.STRUCTURED * chosen.is_structured
            | sessions.ALLOCATION * chosen.has_allocation | sessions.CHANGED * bool(chosen.since)
        )  # fmt: skip
        export = chosen.export
        self.frontend.adopt(
            connection, sessions.NBD, flags, export.size_bytes, snapshot=export.snapshot, since=chosen.since
        )


def tell_peers(state: primary.Primary, rows: np.ndarray, peers: Sequence[Any]) -> None:
    """Where each of these peers stands; None of one that is no replica any more."""
    staged = int(state.journal.at[0].staged_sequence)
    for row, peer in zip(rows, peers, strict=False):
        if peer is None:
            row["state"] = row["detached"] = row["lag_writes"] = 0
            continue
        row["state"], row["detached"] = peer.state, peer.detached
        row["lag_writes"] = max(staged - int(peer.durable), 0)


def target_name(volume: int) -> str:
    """A volume's iSCSI name, the same wherever it is served. RFC 7143, section 4.2.7.4."""
    return f"iqn.2026-11.org.farwrite:{volume:x}"


def stands_by(peer: Any) -> bool:
    """Whether a peer would serve the volume if we ended."""
    return peer.state == primary.LIVE and not peer.detached


def identity_of(order: Order) -> Identification:
    """The volume, seen through this replica's port."""
    here = 1 + sorted(order.addresses).index(order.name) if order.portals else ONE_GROUP[0].number
    return Identification(order.volume, target_name(order.volume), here, here)


def target_of(
    order: Order, frontend: Frontend, size_bytes: int, volume_bytes: int, groups: tuple[PortGroup, ...], forgets: bool = False
) -> Target:
    """The volume as an iSCSI target of this replica's, with reservations kept at the end of its address space, unless it
    `forgets` them: that end stays where it is when the volume grows.

    UnfitError where they are damaged, OSError where nobody leads.
    """
    store = VolumeStore(EngineVolume(frontend, volume_bytes), volume_bytes - AREA_BYTES)
    if forgets:
        store.forget()
    unit = LogicalUnit(EngineVolume(frontend, size_bytes), identity_of(order), groups, store)
    return Target(target_name(order.volume), unit, credentials=order.chap)


def standby_target_of(order: Order, frontend: Frontend, redirect: Callable[[str], str | None]) -> Target:
    """The same while another site leads: a login is sent there, or told to try again where nobody leads."""
    unit = LogicalUnit(EngineVolume(frontend, order.size_bytes), identity_of(order))
    return Target(target_name(order.volume), unit, credentials=order.chap, redirect=redirect)


@contextmanager
def unix_listener(directory: Path, name: str, follows: str = FOLLOWS) -> Iterator[socket.socket]:
    """`directory/name.sock`, for its owner alone, in one step where an old one lay; `follows` points at it."""
    path, made = directory / f"{name}.sock", directory / f".{name}.{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listening, contextlib.ExitStack() as undo:
        try:
            made.unlink(missing_ok=True)
            listening.bind(str(made))
            made.chmod(0o600)
            listening.listen(BACKLOG)
            made.rename(path)
            undo.callback(path.unlink, missing_ok=True)
            made.symlink_to(path.name)
            made.rename(directory / follows)
        except OSError as refusal:
            raise system_error(f"listen on {path}", refusal.errno or 0, "Name another directory with --sockets.") from refusal
        yield listening


@contextmanager
def tcp_listener(descriptor: int) -> Iterator[socket.socket]:
    """The parent's bound socket, listening; who ends the door by shutdown(2) has it listen no more, and it stays bound."""
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        state_congestion(listening)
        listening.listen(BACKLOG)
        yield listening


def longest_path(directory: Path) -> int:
    """Bytes of the longest path of a socket in this directory."""
    return len(os.fsencode(directory.absolute())) + len("/.third-control.4194304")


def run_replica(order: Order, chosen: Disk, ballot_fd: int, board: Board) -> None:
    """In a process at its site: a replica, until its board says stop."""
    quieten(order.is_verbose)
    figures = figures_of(board)
    figures.task.pid, figures.task.is_open, figures.task.drain, figures.task.drained = os.getpid(), 0, 0, 0
    frontend = Frontend(
        chosen.volume_bytes, clients_max(DESCRIPTORS_TLS if order.tls else 1), counters=figures.counters,
        writes_ns=figures.writes_ns, reads_ns=figures.reads_ns,
    )  # fmt: skip
    try:
        made = ServedNode(
            order.name, chosen, ballot_fd, order.addresses, order.witness, order.volume, board.counters, frontend,
            terms_of(order.key, order.encryption), protocol=order.protocol, policy=order.policy, quorum=order.quorum,
            peer_timeout_ns=order.peer_timeout_ns, staging_bytes=STAGING_BYTES, voters=order.voters, founders=order.founders,
            latency_budget_ns=order.latency_budget_ns, count=figures.room,
        )  # fmt: skip
        made.order, made.board_, made.frontend, made.stands_at_once = order, board, frontend, order.stands_first
        made.run()
    finally:
        frontend.close()


def clients_max(descriptors_each: int) -> int:
    """How many clients are served at once, once this process may open as many files as it is allowed to.

    The usual soft limit, 1024, is for programs that call select(2); without a descriptor left nobody could be refused either, and
    no peer could come back.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sessions.SESSIONS_MAX * descriptors_each + DESCRIPTORS_OTHER
    limit = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    allowed = sessions.SESSIONS_MAX if soft == resource.RLIM_INFINITY else (soft - DESCRIPTORS_OTHER) // descriptors_each
    return min(max(allowed, CLIENTS_MIN), sessions.SESSIONS_MAX)


def rehearse_replica() -> None:
    """Every kernel of a replica and of its doors once, before the first fork."""
    frontend = Frontend(1 << 20)

    def rehearse_clients(state: primary.Primary) -> None:
        frontend.begin(state)
        assert frontend.turn(state, True, 0) == replica.OK

    try:
        rehearse_node(REHEARSAL_BYTES, STAGING_BYTES, rehearse_clients)
    finally:
        frontend.close()
