"""The process of a striped volume: its router, its doors, and snapshots of all its groups at one instant.

A snapshot is whole once every group has taken it while no answer went out, and this is on the disk: `record` lists those, with
the name that each has at the groups, which no other attempt ever has. What a group took besides (we were killed, another group
did not answer) is in no list, is shown to nobody and is deleted. Decision 0064.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from ...base.errors import FarwriteError, UnfitError, UsageError
from ...engine.control import Address
from ...engine.frontend import nbd_door
from ...engine.frontend.nbd_client import Place
from ...engine.frontend.nbd_negotiation import Chosen, Export
from ...engine.frontend.router import Router, running
from ...engine.peer_status import ReplicaStatus
from ...engine.snapshot import Snapshot, checked_name
from ...lab.shared_memory import Board
from ..serve.control import CONTROL, FOLLOWS, Delete, Desk, Show, Take, ask, control_door
from ..serve.replica import VOLUME, exports_of, unix_listener
from ..voters import quieten
from .group_mover import GroupMover
from .router_record import Record, Taken, record_of, save_record

ROUTER = "router"  # Its socket's name in the volume's directory; `volume.sock` leads to it.
TAKE_S = 10.0  # For all groups to take a snapshot: no answer goes out meanwhile.
NAME_BYTES_MAX = 48  # Of a snapshot's, so that what it is called at the groups is no longer than a name may be.
DRAIN_S = 3.0
LOOK_S = 0.05
STOP, READY, SIZE_BYTES, PAUSE_NS, BOARD_WORDS = 0, 1, 2, 3, 8  # Words of a router's board.

LOG = logging.getLogger(__name__)


class Order(NamedTuple):
    """What a router is started with."""

    name: str
    number: int
    size_bytes: int
    chunk_bytes: int
    sockets: Path  # the volume's directory
    members: tuple[Path, ...]  # those of its members, in the order of the groups
    record: Path
    is_verbose: bool = False


def homes_of(order: Order) -> list[Path]:
    """The directories of the groups' sockets, in their order."""
    homes = record_of(order.record).homes
    return [member.parent / homes.get(group, member.name) for group, member in enumerate(order.members)]


class Keeper:
    """Takes and deletes snapshots of all groups (serve.control.Keeper)."""

    def __init__(self, router: Router, members: Sequence[Path], path: Path) -> None:
        self.router, self.members, self.path = router, list(members), path
        self.lock = threading.Lock()
        self.record = record_of(path)
        self.is_moving = False
        self.pool = ThreadPoolExecutor(len(members), "snapshots")
        self.kept_bytes: dict[Path, dict[str, int]] = {}  # by group and snapshot there, as it was told last

    def at_all(self, request: Take | Delete | Show, limit_s: float) -> list[FarwriteError]:
        """Ask every group at once; the refusals."""

        def one(member: Path) -> FarwriteError | None:
            try:
                answer = ask(member, request, limit_s)
            except FarwriteError as refusal:
                return refusal
            self.kept_bytes[member] = {found.name: found.kept_bytes for found in answer.snapshots}
            return None

        return [refusal for refusal in self.pool.map(one, self.members) if refusal is not None]

    def take_snapshot(self, name: str) -> Snapshot:
        checked_name(name)
        if len(name.encode()) > NAME_BYTES_MAX:
            raise UsageError(f"{name!r} is no name of a snapshot of a striped volume: it takes {NAME_BYTES_MAX} bytes at most.")
        with self.lock:
            if self.is_moving:
                raise UnfitError("A group of this volume moves: take the snapshot when it is at its new home.")
            if self.found(name) is not None:
                raise UsageError(f"There is a snapshot {name} already: give another name, or delete that one.")
            inner = f"{name}.{secrets.token_hex(4)}"
            if missing := self.at_all(Show(), TAKE_S):
                raise missing[0]  # Nobody waits for a group that does not answer.
            begin_ns = time.monotonic_ns()
            try:
                with self.router.held():
                    refusals = self.at_all(Take(inner), TAKE_S)
                    taken_ns = time.time_ns()
                pause_ns = time.monotonic_ns() - begin_ns
                if refusals:
                    raise refusals[0]
                made = Taken(name, inner, self.record.last + 1, taken_ns, pause_ns)
                self.save(replace(self.record, last=made.number, taken=[*self.record.taken, made]))
            except BaseException:
                self.at_all(Delete(inner), TAKE_S)
                raise
            LOG.info("snapshot %s: no answer went out for %.1f ms.", name, pause_ns / 1e6)
            return self.shown(made)

    def delete_snapshot(self, name: str) -> None:
        with self.lock:
            one = self.found(name)
            if one is None:
                raise UsageError(f"There is no snapshot {name}.")
            self.save(replace(self.record, taken=[other for other in self.record.taken if other is not one]))
            if refusals := self.at_all(Delete(one.inner), TAKE_S):
                LOG.warning("what a group keeps for snapshot %s is deleted later: %s", name, refusals[0])

    def delete_unlisted(self) -> None:
        """What groups have kept for snapshots that are not whole, because a router or a group was killed, is given back."""
        for member in self.members:
            with contextlib.suppress(FarwriteError), self.lock:
                if self.is_moving:  # Those of its passes are in no list.
                    return
                listed = {one.inner for one in self.record.taken}
                for found in ask(member, Show(), TAKE_S).snapshots:
                    if found.name not in listed:
                        ask(member, Delete(found.name), TAKE_S)

    def snapshots(self) -> list[Snapshot]:
        """Those that are whole, with what all groups keep for each now."""
        self.at_all(Show(), TAKE_S)
        return self.listed()

    def listed(self) -> list[Snapshot]:
        """The same without asking anybody."""
        return [self.shown(one) for one in self.record.taken]

    def shown(self, one: Taken) -> Snapshot:
        kept_bytes = sum(self.kept_bytes.get(member, {}).get(one.inner, 0) for member in self.members)
        return Snapshot(one.name, one.number, one.taken_ns, True, kept_bytes)

    def found(self, name: str) -> Taken | None:
        return next((one for one in self.record.taken if one.name == name), None)

    def save(self, record: Record) -> None:
        save_record(self.path, record)
        self.record = record

    @contextmanager
    def paused(self, limit_s: float) -> Iterator[Callable[[], bool]]:
        """No answer goes out inside this block, for so long at most. Yields whether that holds still."""
        until_s = time.monotonic() + limit_s
        with contextlib.ExitStack() as held:
            held.enter_context(self.router.held())
            timer = threading.Timer(limit_s, held.close)
            timer.start()
            try:
                yield lambda: time.monotonic() < until_s and self.router.is_running
            finally:
                timer.cancel()

    # A group moves

    @contextmanager
    def moving(self, group: int, to: Path) -> Iterator[GroupSwitch]:
        """A group may be switched to another home inside this block. Its snapshots would stay at the old one."""
        with self.lock:
            if self.is_moving:
                raise UsageError("A group of this volume moves already.")
            if self.record.taken:
                names = ", ".join(one.name for one in self.record.taken)
                raise UsageError(f"Snapshots do not move with a group: delete those of this volume before ({names}).")
            if not 0 <= group < len(self.members):
                raise UsageError(f"This volume has no group {group}.")
            if to in self.members:
                raise UsageError(f"{to.name} is a group of this volume.")
            self.is_moving = True
        try:
            yield GroupSwitch(self, group, to)
        finally:
            self.is_moving = False

    # Its replicas are its members'.

    def add_replica(self, name: str, address: Address) -> None:
        raise UsageError("A striped volume's replicas are those of its members.")

    def remove_replica(self, name: str) -> None:
        raise UsageError("A striped volume's replicas are those of its members.")

    def replica_statuses(self) -> Sequence[ReplicaStatus]:
        raise UsageError("A striped volume's replicas are those of its members.")

    def request_hand_over(self, to: str) -> None:
        raise UsageError("A striped volume is led by its router; its members are led by their replicas.")


class GroupSwitch:
    """The switch of a group to another home (copy.passes.Switch)."""

    def __init__(self, keeper: Keeper, group: int, to: Path) -> None:
        self.keeper, self.group, self.to = keeper, group, to

    def fenced(self) -> AbstractContextManager[None]:
        return self.keeper.router.fenced()

    def commit(self) -> None:
        """The new home is written down before anything is sent to it; whatever happens then, nothing goes to the old one."""
        keeper = self.keeper
        with keeper.lock:
            try:
                keeper.save(replace(keeper.record, homes=keeper.record.homes | {self.group: self.to.name}))
            except BaseException:
                keeper.router.state.at[0].stop = 1  # Whether it is on the disk is unknown: it is read when the router starts.
                keeper.router.wake()
                raise
            keeper.members[self.group] = self.to
        keeper.router.move_group(self.group, str(self.to / FOLLOWS))


class Doors:
    """What clients find at a striped volume's socket."""

    def __init__(self, router: Router, keeper: Keeper) -> None:
        self.router, self.keeper = router, keeper

    def exports(self) -> tuple[Export, ...]:
        return exports_of(self.router.size_bytes, self.keeper.listed(), "the replicated volume, striped")

    def adopt(self, connection: socket.socket, chosen: Chosen) -> None:
        inner = {one.number: one.inner for one in self.keeper.record.taken}
        of = chosen.export.snapshot
        if (of and of not in inner) or (chosen.since and chosen.since not in inner):
            connection.close()  # It was deleted meanwhile.
            return
        self.router.adopt(connection, chosen, f"{VOLUME}@{inner[of]}" if of else VOLUME, inner.get(chosen.since, ""))


@contextmanager
def routed(order: Order) -> Iterator[tuple[Router, Keeper]]:
    """A striped volume is served at `volume.sock` and `control.sock` of its directory inside this block."""
    homes = homes_of(order)
    addresses = [str(home / FOLLOWS) for home in homes]
    with contextlib.ExitStack() as stack:
        router = stack.enter_context(running(Router(addresses, order.size_bytes, order.chunk_bytes)))
        keeper = Keeper(router, homes, order.record)
        stack.callback(keeper.pool.shutdown, wait=False)
        doors = Doors(router, keeper)
        here = stack.enter_context(unix_listener(order.sockets, ROUTER))
        stack.enter_context(nbd_door.nbd_door(here, doors.exports, doors.adopt, name=f"the door of {order.name}"))
        asked = stack.enter_context(unix_listener(order.sockets, f"{ROUTER}-control", CONTROL))
        own_door = str(order.sockets / f"{ROUTER}.sock")
        mover = GroupMover(keeper)
        desk = Desk(
            keeper, f"{order.number:x}", ROUTER, lambda snapshot: Place(own_door, f"{VOLUME}@{snapshot}"), mover=mover.answer
        )
        stack.enter_context(control_door(asked, desk, f"the control socket of {order.name}"))
        yield router, keeper


def run_router(order: Order, board: Board) -> None:
    """In a process of its own: route until the board says stop; then what was taken is answered first."""
    quieten(order.is_verbose)
    words = board.words
    with routed(order) as (router, keeper):
        threading.Thread(target=keeper.delete_unlisted, daemon=True).start()
        words[READY] = 1
        while not words[STOP] and router.is_running:
            router.look()
            if words[SIZE_BYTES] > router.size_bytes:
                with contextlib.suppress(UnfitError):  # Tried again: a group fails over.
                    router.resize(int(words[SIZE_BYTES]))
            words[PAUSE_NS] = keeper.record.taken[-1].pause_ns if keeper.record.taken else 0
            time.sleep(LOOK_S)
        if words[STOP]:
            drain(router, DRAIN_S)
    if not words[STOP]:
        raise UnfitError(f"The router of volume {order.name} has ended.")


def drain(router: Router, limit_s: float) -> bool:
    """Refuse new requests by the protocol's word for that, and wait until those that were taken are answered."""
    router.state.at[0].is_shutting_down = 1
    return waited(lambda: not router.state.request["used"].any(), limit_s)


def waited(condition: Callable[[], bool], limit_s: float) -> bool:
    until_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.005)
    return True


def rehearse_router() -> None:
    """Every kernel of a router once, before the first fork."""
    router = Router(["/nowhere"], 1 << 20)
    router.state.at[0].stop = 1
    from ...engine.frontend import router_kernel

    assert router_kernel.run(router.state) == 0
    router.close()
