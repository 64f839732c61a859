"""The relay: a delay line in user space between TCP connections on loopback, for places with no privileges at all.

Every connection between two sites is made of two: from the one who dials to the relay, and from the relay to the one who listens.
The process that carries them opens and closes them here and moves their bytes in relay_kernel.py. A stream is all it sees:
delay, jitter, rate and cut it emulates; loss, reordering, duplicates and damage it refuses, because TCP would hide them from it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import heapq
import json
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from ..errors import UnfitError, system_error
from ..histogram import SLOTS
from ..link_spec import PLAIN, LinkSpec, Way
from ..units import NS_PER_S
from . import relay_kernel as carrying
from .board import Board, board
from .jitter import TABLE_ENTRIES, deviations
from .process import carrying_link, process
from .site import Address, Site, bound

PASSAGE_S = 10.0  # A door that nobody has come through by then is closed.
WATCH_S = 0.005  # While the link is cut, whether it still is.
BACKLOG = 16  # Strangers may knock as well; they are sent away, but not before they were let in.

STREAM_ONLY = (
    "the relay carries streams of bytes, in which this cannot be seen. It needs packets: netem or the ferry, so root or user "
    'namespaces, and "--link netem" or "--link ferry"'
)


class Relay:
    """The carrying link: per direction (0 near to far, 1 far to near) a delay, and a way."""

    kind = "relay"
    carriers: tuple[int, ...] | None = ()

    def __init__(self, words: np.ndarray, jitter_ns: np.ndarray, wake_fd: int) -> None:
        self.board = words
        self.jitter_ns = jitter_ns
        self.wake_fd = wake_fd
        self.delay_ns = (0, 0)
        self.ways = (Way(), Way())

    def set_delay_ns(self, outward_ns: int, homeward_ns: int) -> None:
        """Hold segments this long from now on; those under way keep their time."""
        self.delay_ns = outward_ns, homeward_ns
        for direction, (way, delay_ns) in enumerate(zip(self.ways, self.delay_ns, strict=True)):
            self.board[carrying.DELAY_NS + direction] = max(delay_ns, 0) + way.extra_delay_ns

    def set_ways(self, outward: Way, homeward: Way) -> None:
        """Do with segments what is asked besides the delay from now on. UnfitError for what a stream cannot show."""
        check_way("outward", outward)
        check_way("homeward", homeward)
        self.ways = outward, homeward
        for direction, way in enumerate(self.ways):
            trembles = bool(way.jitter_ns or way.jitter_file)
            if trembles:
                self.jitter_ns[direction] = table_of(way)
            self.board[carrying.JITTERED + direction] = trembles
            self.board[carrying.RATE + direction] = way.rate_bits_per_s or 0
        self.set_delay_ns(*self.delay_ns)
        self.wake()

    def cut(self) -> None:
        """Carry nothing more in either direction until heal(); what is under way arrives, what is sent waits with its sender."""
        self.board[carrying.CUT : carrying.CUT + 2] = 1

    def heal(self) -> None:
        """Carry bytes again."""
        self.board[carrying.CUT : carrying.CUT + 2] = 0
        self.wake()

    def wake(self) -> None:
        """Have the loop look at the board now."""
        wake(self.wake_fd)

    def counters(self) -> dict[str, int]:
        """What the link did since it was made, both directions together; packets are segments, and a cut drops none."""
        pairs = {"packets": carrying.SEGMENTS, "bytes": carrying.BYTES, "drops": carrying.DROPS, "full": carrying.FULL}
        counted = {name: int(self.board[word] + self.board[word + 1]) for name, word in pairs.items()}
        return counted | {"cut_drops": 0}

    def late_ns_max(self) -> int:
        """How late the latest segment left since this was last asked."""
        late_ns = int(self.board[carrying.LATE_NS_MAX : carrying.LATE_NS_MAX + 2].max())
        self.board[carrying.LATE_NS_MAX : carrying.LATE_NS_MAX + 2] = 0
        return late_ns

    def late_counts(self) -> np.ndarray:
        """(2, SLOTS): how late every segment left since the link was made, by direction, as a histogram counts."""
        return self.board[carrying.LATE :].reshape(2, SLOTS).copy()

    def facts(self) -> dict[str, str]:
        """How the bytes are carried, for who reads the report."""
        return {"level": "stream", "held at most": f"{carrying.RING_BYTES >> 20} MiB per connection and direction"}


@functools.lru_cache(maxsize=8)
def table_of(way: Way) -> np.ndarray:
    """The deviations of a way's jitter in whole ns. Made once: a survey takes the jitter away and brings it back."""
    return np.rint(deviations(way)).astype(np.int64)


def check_stream(spec: LinkSpec) -> None:
    """UnfitError for what is asked of a link and a stream of bytes cannot show."""
    check_way("outward", spec.outward)
    check_way("homeward", spec.homeward)
    if spec.mtu_bytes is not None:
        raise UnfitError(f"link.mtu: {STREAM_ONLY}.")
    if any(change.loss_ratio for change in spec.schedule):
        raise UnfitError(f"link.schedule, loss: {STREAM_ONLY}.")


def check_way(name: str, way: Way) -> None:
    """The same for one direction."""
    packets_only = {
        "loss": way.loss_ratio, "bursts": way.bursts, "reorder": way.reorder_ratio, "duplicate": way.duplicate_ratio,
        "corrupt": way.corrupt_ratio, "queue_packets": way.queue_packets,
    }  # fmt: skip
    for key, asked in packets_only.items():
        if asked:
            raise UnfitError(f"link.{name}.{key}: {STREAM_ONLY}.")


@dataclass(frozen=True)
class Doors:
    """The way to ask a relay's process for passages; any process that holds the socket may."""

    asking: socket.socket

    def passage(self, source: Address, target: Address, outward: bool = True) -> tuple[Address, Address]:
        """(where to dial from `source`, where the connection will reach `target` from): one connection, within PASSAGE_S."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            request = json.dumps({"source": source, "target": target, "outward": outward})
            try:
                socket.send_fds(self.asking, [request.encode()], [theirs.fileno()])
                theirs.close()
                ours.settimeout(PASSAGE_S)
                answer = json.loads(ours.recv(4096) or b"{}")
            except (OSError, ValueError) as gone:
                raise UnfitError(f"The relay's process does not answer: {gone}.") from gone
        if "door" not in answer:
            raise UnfitError(answer.get("refusal", "The relay's process has ended."))
        return tuple(answer["door"]), tuple(answer["exit"])


@contextmanager
def relay(near: Site, far: Site, spec: LinkSpec = PLAIN) -> Iterator[Relay]:
    """Join two sites on loopback by a process that carries their connections' bytes. UnfitError for what these cannot show."""
    check_stream(spec)
    with contextlib.ExitStack() as stack:
        shared = stack.enter_context(board(carrying.BOARD_WORDS))
        jitter = stack.enter_context(board(2 * TABLE_ENTRIES))
        wake_read, wake_write = pipe(stack)
        asking, answering = (stack.enter_context(end) for end in socket.socketpair(type=socket.SOCK_DGRAM))
        carrier = stack.enter_context(process("relay"))
        carrier.start(carry, wake_read, wake_write, answering.fileno(), asking.fileno(), shared, jitter)
        answering.close()
        if carrier.poll(0.05):
            carrier.answer()
            raise UnfitError("The relay process ended as soon as it was started.")
        far.doors = Doors(asking)
        shared.words[carrying.SEED] = spec.seed
        made = Relay(shared.words, jitter.words.reshape(2, TABLE_ENTRIES), wake_write)
        made.carriers = (carrier.pid,)
        stack.enter_context(carrying_link(carrier))
        yield made


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


# In the relay's process.


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
    ends: np.ndarray = field(default_factory=lambda: np.zeros((carrying.CONNECTIONS, carrying.END_WORDS), np.int64))
    doors: list[Door] = field(default_factory=list)
    dials: list[Dial] = field(default_factory=list)
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
            for door in [door for door in self.doors if door.until_s < time.monotonic()]:
                self.shut(door)
                door.leaving.close()

    def rest_s(self) -> float | None:
        """How long nothing has to be done unasked."""
        rests = [door.until_s - time.monotonic() for door in self.doors]
        if self.dials:
            rests.append(WATCH_S if self.is_cut else (self.dials[0].at_ns - time.monotonic_ns()) / NS_PER_S)
        return max(min(rests), 0.0) if rests else None

    @property
    def is_cut(self) -> bool:
        """Whether the link is cut."""
        return bool(self.board[carrying.CUT])

    def open_door(self) -> None:
        """Answer one request for a passage."""
        text, descriptors, _, _ = socket.recv_fds(self.asking, 4096, 1)
        if not descriptors:
            return
        with socket.socket(fileno=descriptors[0]) as asker, contextlib.suppress(OSError):
            try:
                door = self.door_of(json.loads(text))
                answer = {"door": door.listening.getsockname(), "exit": door.leaving.getsockname()}
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
        try:
            coming, peer = door.listening.accept()
        except OSError:
            return
        if peer[:2] != door.source:
            coming.close()
            return
        self.shut(door)
        vacant = np.flatnonzero(self.ends[:, carrying.STATE] == carrying.VACANT)
        if not vacant.size:
            reset(coming)
            door.leaving.close()
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
        self.ends[connection, : carrying.STATE] = -1
        self.ends[connection, door.direction] = coming.fileno()
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

    def established(self, dial: Dial, answer: int) -> None:
        """Give the loop the second socket, or have a refusal travel back as a reset."""
        lane = 2 * dial.connection + dial.door.direction
        if answer:
            self.held.at[lane, carrying.DEAF] = 1
            self.held.at[lane ^ 1, carrying.BROKEN] = 1
        self.ends[dial.connection, 1 - dial.door.direction] = dial.door.leaving.fileno()
        wake(self.wake_fd)

    def close_ended(self) -> None:
        """Close what the loop is through with: gracefully, or so that both ends see a reset."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.notes, 4096)
        for connection in list(self.sockets):
            state = int(self.ends[connection, carrying.STATE])
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
