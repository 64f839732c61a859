"""A replica of a drill: a node that takes a client's writes over the network, and notes when it stands, wins and leads.

The client names a write by number and block; the node lays its bytes, which follow from seed and number, into its log. So the
client's link carries 16 bytes a write, not the block. A write is acknowledged once the protocol's point is reached, by the
connection on which it came: when the node leads no more it hangs up, and says nothing of what is still under way.

The price: the node looks for writes once a turn of its loop, which lasts up to 1 ms while nothing else happens. That is part of
what a client waits; a drill measures outages, not a write's latency.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...analysis.drill_recording import NOTES, SILENT, STANDS, TAKES, WON
from ...base.errors import FarwriteError
from ...base.host.disk import Disk
from ...base.host.reactor import Reactor
from ...base.row import Row, i64
from ...base.wire.conversation import Conversation
from ...base.wire.door import SparseLog, door, hang_up
from ...engine import primary_kernel as primary
from ...engine.control import Address
from ...engine.node import Node, PolledClients
from ...lab.namespace import enter_time
from ...lab.shared_memory import Board
from ...workload.payload_kernel import SOLID
from ..voters import REST_AT, quieten, seat_of, terms_of

STAGING_BYTES = 1 << 20
PATIENCE_S = 5.0  # For a client to prove who it is.
OPEN_S = 86_400.0  # A connection of a client's lasts as long as both like.
IN_FLIGHT_MAX = 1024
LEADING = struct.Struct("<q")  # A node's first words to a client: the epoch it leads in, 0 when it does not.
WRITE = struct.Struct("<qq")  # A write's number and its block.
ACK = struct.Struct("<q")  # The number of a write that is complete.
WRITES_A_MESSAGE, ACKS_A_MESSAGE = 200, 400

NOTES_MAX = 512

# What a drill makes of a replica's disk.
DISK_ANSWERS, DISK_STALLED, DISK_FULL = 0, 1, 2
DISK_LOOK_S = 0.005  # Between two looks for it.


class Note(Row):
    """One thing that a node noted."""

    what = i64("index in NOTES")
    epoch = i64("of what was won, or is led; otherwise 0")
    at_ns = i64("ns, CLOCK_MONOTONIC")


NOTES_WORDS = NOTES_MAX * Note.LAYOUT.itemsize // 8
BOARD_WORDS = REST_AT + NOTES_WORDS


def notes_of(board: Board) -> np.ndarray:
    """The Notes on it, NOTES_MAX of them: what stands last on the board of any drilled replica."""
    return board.words[-NOTES_WORDS:].view(Note.LAYOUT)


LOG = logging.getLogger(__name__)


class Order(NamedTuple):
    """What a node is started with."""

    name: str
    addresses: dict[str, Address]  # of the replicas
    witness: Address | None
    desk_port: int
    key: bytes
    volume: int
    seed: int
    size_bytes: int
    protocol: int
    policy: int
    quorum: int
    peer_timeout_ns: int
    stands_first: bool  # asks for votes as soon as it is up, instead of waiting for a primary
    is_verbose: bool
    image_fd: int  # for what the volume's flushes have kept; -1 where no power is cut
    clock_ahead_ns: int  # how far its clock is ahead of the other sites'


@dataclass(eq=False)
class Client:
    """One connection of a client's."""

    talk: Conversation
    epoch: int
    acks: queue.SimpleQueue[int | None]


class Desk(PolledClients):
    """Takes writes from clients' connections, hands them to the primary's loop, and acknowledges them."""

    def __init__(self, board: Board, size_bytes: int, block_count: int) -> None:
        self.counters, self.seat, self.size_bytes, self.block_count = board.counters, seat_of(board), size_bytes, block_count
        self.node: DrilledNode | None = None
        self.state: primary.Primary | None = None
        self.arrived: deque[tuple[Client, int, int]] = deque()
        self.in_flight: deque[tuple[int, Client, int]] = deque()
        self.clients: set[Client] = set()
        self.lock = threading.Lock()

    def __call__(self, state: primary.Primary) -> None:
        """One look, in the primary's loop."""
        epoch = int(self.counters[0].led_epoch)
        if state is not self.state:
            self.state = state
            self.in_flight.clear()
            assert self.node is not None
            self.node.note(TAKES, epoch)
        while self.in_flight and self.in_flight[0][0] <= state.at[0].completed:
            _, client, number = self.in_flight.popleft()
            client.acks.put(number)
        while self.arrived and len(self.in_flight) < IN_FLIGHT_MAX:
            client, number, block = self.arrived[0]
            if client.epoch == epoch:
                # With every argument: with one left to its default each call is typed anew in Python, 2 ms instead of 10 us.
                taken = primary.submit(state, number, block * self.size_bytes, self.size_bytes, 0, SOLID)
                assert taken >= 0, "admit lets only blocks of the volume through"
                if not taken:
                    break
                self.in_flight.append((int(state.journal.at[0].staged_sequence), client, number))
            self.arrived.popleft()
        self.seat.joined = bool((state.peer["state"] == primary.LIVE).all() and not state.peer["detached"].any())
        self.seat.in_flight = len(self.in_flight)

    def admit(self, talk: Conversation, caller: Any) -> bool:
        """Serve one client, in a thread of its own, until it or our lead ends."""
        epoch = int(self.counters[0].led_epoch)
        talk.renew(OPEN_S)
        client = Client(talk, epoch, queue.SimpleQueue())
        with self.lock:
            self.clients.add(client)
        try:
            talk.say(LEADING.pack(epoch))
            if not epoch or epoch != int(self.counters[0].led_epoch):
                return False
            threading.Thread(target=self.acknowledge, args=(client,), daemon=True).start()
            while True:
                for number, block in WRITE.iter_unpack(talk.hear()):
                    if number < 0 or not 0 <= block < self.block_count:
                        LOG.warning("%s: write %d names block %d of %d: refused", caller, number, block, self.block_count)
                        return False
                    self.arrived.append((client, number, block))
        except (FarwriteError, OSError, struct.error):
            return False  # It has hung up, or we have.
        finally:
            client.acks.put(None)
            with self.lock:
                self.clients.discard(client)

    def acknowledge(self, client: Client) -> None:
        """In a thread: say which writes are complete, as many as there are at once. The loop never waits for a client."""
        with contextlib.suppress(FarwriteError, OSError):
            while (number := client.acks.get()) is not None:
                numbers: list[int] = [number]
                while not client.acks.empty() and len(numbers) < ACKS_A_MESSAGE:
                    if (number := client.acks.get()) is None:
                        client.acks.put(None)
                        break
                    numbers.append(number)
                client.talk.say(b"".join(map(ACK.pack, numbers)))

    def leave(self) -> None:
        """We lead no more: hang up on everybody."""
        with self.lock:
            for client in self.clients:
                hang_up(client.talk.connection)


class DrilledNode(Node):
    """A node that keeps word of its own elections, on a board that outlives it, and whose disk can be made to fail.

    Its clients come to a desk, or to doors (doors.py).
    """

    seat: Any
    notes: np.ndarray
    image_fd = -1
    clock_ahead_ns = 0
    noting: threading.Lock

    @contextlib.contextmanager
    def loop_reactor(self) -> Iterator[Reactor]:
        with super().loop_reactor() as ring:
            ring.at[0].stalled = self.seat.disk == DISK_STALLED
            if self.image_fd >= 0:
                size = os.fstat(self.disk.volume_fd).st_size
                ring.at[0].image_half = int.from_bytes(os.pread(self.image_fd, 8, 2 * size), "little")
                ring.at[0].image_bytes, ring.at[0].image_fd = size, self.image_fd
            yield ring

    def begin_image(self) -> None:
        """What stands in the volume after the replay is durable: its last step was a flush."""
        size = os.fstat(self.disk.volume_fd).st_size
        os.pwrite(self.image_fd, os.pread(self.disk.volume_fd, size, 0), 0)
        os.pwrite(self.image_fd, bytes(8), 2 * size)

    def watch_disk(self) -> None:
        """In a thread: have the disk behave as the board says."""
        before = DISK_ANSWERS
        while not self.stopped():
            asked = int(self.seat.disk)
            if (ring := self.ring) is not None and asked != before:
                ring.at[0].stalled = asked == DISK_STALLED
            if asked == DISK_FULL != before:  # The journal has all its blocks; a volume is sparse and needs new ones.
                full = os.open("/dev/full", os.O_RDWR)
                os.dup2(full, self.disk.volume_fd)
                os.close(full)
            before = asked
            time.sleep(DISK_LOOK_S)

    def note(self, what: str, epoch: int = 0) -> None:
        """One line more; the last ones are dropped when there are too many."""
        with self.noting:
            count = int(self.seat.note_count)
            if count < NOTES_MAX:
                self.notes[count] = NOTES.index(what), epoch, time.monotonic_ns() - self.clock_ahead_ns
                self.seat.note_count = count + 1

    def follow(self, arrivals: Any) -> bool:
        self.seat.ready = 1
        return super().follow(arrivals)

    def serve(self, name: str, connection: Any) -> bool:
        served = super().serve(name, connection)
        if served:
            self.note(SILENT)
        return served

    def stand(self) -> int:
        self.note(STANDS)
        if epoch := super().stand():
            self.note(WON, epoch)
        return epoch


def run_replica(order: Order, chosen: Disk, ballot_fd: int, board: Board) -> None:
    """In a process at its site: a replica, until its board says stop."""
    quieten(order.is_verbose)
    if order.clock_ahead_ns:
        enter_time(order.clock_ahead_ns)
    terms, log_ = terms_of(order.key), SparseLog(LOG, order.name)
    desk = Desk(board, order.size_bytes, chosen.volume_bytes // order.size_bytes)
    made = DrilledNode(
        order.name, chosen, ballot_fd, order.addresses, order.witness, order.volume, board.counters, desk, terms,
        protocol=order.protocol, policy=order.policy, quorum=order.quorum, seed=order.seed,
        peer_timeout_ns=order.peer_timeout_ns, staging_bytes=STAGING_BYTES,
    )  # fmt: skip
    desk.node = made
    begin_drilled(made, order, board)
    with door(order.addresses[order.name].host, order.desk_port, terms, desk.admit, PATIENCE_S, log_):
        made.run()
        desk.leave()


def begin_drilled(made: DrilledNode, order: Order, board: Board) -> None:
    """What a drill has a node do besides, before it runs."""
    made.stands_at_once, made.clock_ahead_ns = order.stands_first, order.clock_ahead_ns
    made.seat, made.notes, made.image_fd, made.noting = seat_of(board), notes_of(board), order.image_fd, threading.Lock()
    if order.image_fd >= 0:
        made.begin_image()
    made.thread(made.watch_disk)
