"""In the relay's process: the doors that connections come in by, and the loop that moves their bytes (relay_kernel.py)."""

from __future__ import annotations

import contextlib
import errno
import heapq
import json
import os
import selectors
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

import numpy as np

from ..base.errors import system_error
from ..base.row import rows_of
from ..base.units import NS_PER_S
from ..base.wire.door import accepted
from ..workload.jitter import TABLE_ENTRIES
from . import relay_kernel as carrying
from .relay_door import PASSAGE_S, Address, bound
from .shared_memory import Board

WATCH_S = 0.005  # While the link is cut, whether it still is.
BACKLOG = 16  # Strangers may knock as well; they are sent away, but not before they were let in.


def pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    """Both ends of a pipe that never blocks, closed with the stack."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
        stack.callback(os.close, end)
    return ends


def wake(wake_fd: int) -> None:
    """One byte; a pipe that is full of them wakes as well."""
    with contextlib.suppress(BlockingIOError):
        os.write(wake_fd, b"\0")


def carry(wake_read: int, wake_write: int, answering: int, asking: int, shared: Board, jitter: Board) -> None:
    """The relay process's only call: lasts until it is killed. The loop has a thread of its own, this one has the doors."""
    os.close(asking)  # Held here, it would hide that the lab has gone.
    with contextlib.ExitStack() as stack:
        notes, note_write = pipe(stack)
        keeper = Doorkeeper(
            asking=stack.enter_context(socket.socket(fileno=answering)), notes=notes, wake_fd=wake_write, board=shared.words,
        )  # fmt: skip
        words = np.zeros(2 * (1 + 2 * carrying.CONNECTIONS), np.int32), np.zeros(2, np.int64)
        table = jitter.words.reshape(2, TABLE_ENTRIES)
        loop = threading.Thread(
            target=run, args=(keeper.held, keeper.ends, shared.words, table, wake_read, note_write, *words), daemon=True
        )
        loop.start()
        keeper.work()


def run(*arguments) -> None:
    """The loop, as urgent as a user may be; without the right to, at normal priority."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    carrying.relay(*arguments)


@dataclass
class Door:
    """A socket that waits for one connection, from one source, and where that connection is to go."""

    listening: socket.socket
    leaving: socket.socket
    source: Address
    target: Address
    direction: int
    until_s: float
    asker: socket.socket | None = None  # who is to hear what becomes of the connection

    def close(self) -> None:
        """Give it up, with whatever belongs to it."""
        self.leaving.close()
        if self.asker is not None:
            self.asker.close()


@dataclass(order=True)
class News:
    """What has become of a connection (0 or an errno), on its way back to whoever dialled."""

    at_ns: int
    error: int = field(compare=False)
    asker: socket.socket = field(compare=False)


@dataclass(order=True)
class Dial:
    """A connection whose handshake is under way: the far end hears of it at `at_ns`."""

    at_ns: int
    connection: int
    door: Door = field(compare=False)


@dataclass
class Doorkeeper:
    """Opens connections as they are asked for and closes them as the loop says."""

    asking: socket.socket
    notes: int
    wake_fd: int
    board: np.ndarray
    held: carrying.Streams = field(default_factory=carrying.streams)
    ends: np.ndarray = field(default_factory=lambda: rows_of(carrying.Ends, carrying.CONNECTIONS))
    doors: list[Door] = field(default_factory=list)
    dials: list[Dial] = field(default_factory=list)
    news: list[News] = field(default_factory=list)
    sockets: dict[int, list[socket.socket]] = field(default_factory=dict)  # by connection
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def work(self) -> None:
        """Until nobody can ask any more."""
        self.selector.register(self.asking, selectors.EVENT_READ, self.open_door)
        self.selector.register(self.notes, selectors.EVENT_READ, self.close_ended)
        while True:
            for key, _ in self.selector.select(self.rest_s()):
                key.data()
            self.dial_due()
            self.tell_due()
            for door in [door for door in self.doors if door.until_s < time.monotonic()]:
                self.shut(door)
                door.close()

    def rest_s(self) -> float | None:
        """How long nothing has to be done unasked."""
        rests = [door.until_s - time.monotonic() for door in self.doors]
        if self.dials:
            rests.append(WATCH_S if self.is_cut else (self.dials[0].at_ns - time.monotonic_ns()) / NS_PER_S)
        if self.news:
            rests.append((self.news[0].at_ns - time.monotonic_ns()) / NS_PER_S)
        return max(min(rests), 0.0) if rests else None

    @property
    def is_cut(self) -> bool:
        """Whether the link is cut, if only in one direction: a handshake needs both."""
        return bool(self.board[carrying.CUT : carrying.CUT + 2].any())

    def open_door(self) -> None:
        """Answer one request for a passage."""
        text, descriptors, _, _ = socket.recv_fds(self.asking, 4096, 1)
        if not descriptors:
            return
        with socket.socket(fileno=descriptors[0]) as asker, contextlib.suppress(OSError):
            try:
                request = json.loads(text)
                door = self.door_of(request)
                answer = {"door": door.listening.getsockname(), "exit": door.leaving.getsockname()}
                if request.get("follows"):
                    door.asker = asker.dup()
            except OSError as refusal:
                answer = {"refusal": str(system_error("open a door of the relay on loopback", refusal.errno or 0))}
            asker.sendall(json.dumps(answer).encode())

    def door_of(self, request: dict) -> Door:
        """A new door, and the socket that will leave from it; both have their addresses before anybody comes.

        The door stands at the target's own address and who leaves by it has the source's, as if nothing were between them.
        """
        source, target = tuple(request["source"]), tuple(request["target"])
        listening = socket.create_server((target[0], 0), backlog=BACKLOG)
        try:
            listening.setblocking(False)
            leaving = bound(source[0])
        except OSError:
            listening.close()
            raise
        door = Door(listening, leaving, source, target, int(not request["outward"]), time.monotonic() + PASSAGE_S)
        self.doors.append(door)
        self.selector.register(listening, selectors.EVENT_READ, lambda: self.let_in(door))
        return door

    def shut(self, door: Door) -> None:
        """Nobody comes through a door any more."""
        self.doors.remove(door)
        self.selector.unregister(door.listening)
        door.listening.close()

    def let_in(self, door: Door) -> None:
        """One connection has come. If it is the announced one it gets a pair of lanes; strangers are sent away."""
        come = accepted(door.listening)
        if come is None:
            return
        coming, peer = come
        if peer[:2] != door.source:
            coming.close()
            return
        self.shut(door)
        vacant = np.flatnonzero(self.ends["state"] == carrying.VACANT)
        if not vacant.size:
            reset(coming)
            door.close()
            return
        connection, now_ns = int(vacant[0]), time.monotonic_ns()
        quicken(coming)
        quicken(door.leaving)
        self.sockets[connection] = [coming, door.leaving]
        delay_ns = self.board[carrying.DELAY_NS : carrying.DELAY_NS + 2]
        established_ns = now_ns + int(delay_ns.sum())  # For who dials, the handshake takes a round trip.
        lane = 2 * connection + door.direction
        carrying.clear(self.held, lane, established_ns)
        carrying.clear(self.held, lane ^ 1, 0)
        self.ends[connection].near_fd = self.ends[connection].far_fd = -1
        self.ends[connection][carrying.SIDES[door.direction]] = coming.fileno()
        carrying.post(self.ends, connection, carrying.OPEN)
        wake(self.wake_fd)
        heapq.heappush(self.dials, Dial(established_ns + int(delay_ns[door.direction]), connection, door))

    def dial_due(self) -> None:
        """Go on to the target with connections whose handshake is over; a cut link has them wait."""
        while self.dials and not self.is_cut and self.dials[0].at_ns <= time.monotonic_ns():
            dial = heapq.heappop(self.dials)
            leaving = dial.door.leaving
            leaving.setblocking(False)
            answer = leaving.connect_ex(dial.door.target)
            if answer == errno.EINPROGRESS:
                self.selector.register(leaving, selectors.EVENT_WRITE, lambda dial=dial: self.dialled(dial))
            else:
                self.established(dial, answer)

    def dialled(self, dial: Dial) -> None:
        """The target has answered."""
        leaving = dial.door.leaving
        self.selector.unregister(leaving)
        self.established(dial, leaving.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def tell_due(self) -> None:
        """Tell who asked for it what has become of a connection, once the answer to its handshake is back."""
        while self.news and self.news[0].at_ns <= time.monotonic_ns():
            news = heapq.heappop(self.news)
            with news.asker, contextlib.suppress(OSError):  # It may wait no longer.
                news.asker.sendall(json.dumps({"error": news.error}).encode())

    def established(self, dial: Dial, answer: int) -> None:
        """Give the loop the second socket, or have a refusal travel back as a reset."""
        if dial.door.asker is not None:
            back_ns = int(self.board[carrying.DELAY_NS + 1 - dial.door.direction])
            heapq.heappush(self.news, News(time.monotonic_ns() + back_ns, answer, dial.door.asker))
        lane = 2 * dial.connection + dial.door.direction
        if answer:
            self.held.at[lane].deaf = 1
            self.held.at[lane ^ 1].broken = 1
        self.ends[dial.connection][carrying.SIDES[1 - dial.door.direction]] = dial.door.leaving.fileno()
        wake(self.wake_fd)

    def close_ended(self) -> None:
        """Close what the loop is through with: gracefully, or so that both ends see a reset."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.notes, 4096)
        for connection in list(self.sockets):
            state = int(self.ends[connection].state)
            if state in (carrying.CLOSING, carrying.RESETTING):
                for end in self.sockets.pop(connection):
                    if state == carrying.RESETTING:
                        reset(end)
                    end.close()
                carrying.post(self.ends, connection, carrying.VACANT)


def quicken(end: socket.socket) -> None:
    """No Nagle's delay: segments go on as they came."""
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def reset(end: socket.socket) -> None:
    """Close a connection at once, with a reset. SO_LINGER of no time; socket(7)."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
