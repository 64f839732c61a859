"""The client of a drill: a process at the third site that writes, keeps the ledger, and finds the primary by itself.

It asks every node whether it leads when it has no connection, and when writes have waited too long on the one it has. It goes
over to a node that leads in a later epoch; what was under way on the connection before is indeterminate then, and never sent
again under its number. A write that finds no primary within the bound has failed, as a server's queue would refuse it.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...analysis.drill_recording import ACKED, FAILED, INDETERMINATE
from ...base.errors import FarwriteError
from ...base.units import NS_PER_S
from ...base.wire.conversation import Conversation, converse
from ...base.wire.door import hang_up
from ...lab.shared_memory import Board
from ..voters import quieten, terms_of
from . import ledger as book
from .desk import ACK, LEADING, OPEN_S, WRITE, WRITES_A_MESSAGE
from .ledger import Ledger

ASK_S = 2.0  # For a node to answer; the others are asked meanwhile.
REST_S = 0.01  # Between two questions to one node.
TURN_S = 0.02  # The longest rest of the loop.
FOUND, ANSWERED, GONE = "found", "answered", "gone"


class Load(NamedTuple):
    """What the client does."""

    names: tuple[str, ...]  # of the nodes,
    addresses: tuple[tuple[str, int], ...]  # and where they take writes
    key: bytes
    offered_per_s: float  # 0: the next write follows an answer
    queue_depth: int
    blocks: tuple[int, ...]  # of the first writes; later ones begin with the first again
    sentinel_block: int
    bound_ns: int
    look_ns: int  # a write that waits longer for its answer has the client ask who leads


@dataclass(eq=False)
class Line:
    """The connection to the node that leads."""

    index: int
    epoch: int
    talk: Conversation
    in_flight: dict[int, int] = field(default_factory=dict)  # number: when it was sent


class Client:
    """The loop."""

    def __init__(self, load: Load, ledger: Ledger) -> None:
        self.load, self.ledger, self.head = load, ledger, ledger.head
        self.terms = terms_of(load.key)
        self.inbox: queue.SimpleQueue[tuple[str, Any, int, Any]] = queue.SimpleQueue()
        self.line: Line | None = None
        self.asked: set[int] = set()  # nodes with a question on its way
        self.waiting: deque[tuple[int, int]] = deque()  # number, and when we saw it due
        self.next_ns = time.monotonic_ns()

    def run(self) -> None:
        """Until the ledger says end."""
        while not self.head.end:
            self.take(self.rest_s())
            now_ns = time.monotonic_ns()
            self.arrive(now_ns)
            self.give_up(now_ns)
            if self.line is None or self.is_late(now_ns):
                self.look()
            self.send()

    def rest_s(self) -> float:
        """Until the next write is due."""
        if not self.load.offered_per_s or self.head.stop:
            return TURN_S
        return min(max(self.next_ns - time.monotonic_ns(), 0) / NS_PER_S, TURN_S)

    def take(self, rest_s: float) -> None:
        """What the threads have heard; waits for the first of it."""
        try:
            heard = self.inbox.get(timeout=rest_s) if rest_s else self.inbox.get_nowait()
            while True:
                self.note(*heard)
                heard = self.inbox.get_nowait()
        except queue.Empty:
            return

    def note(self, what: str, who: Any, at_ns: int, said: Any) -> None:
        """One thing that was heard."""
        if what == FOUND:
            self.asked.discard(who)
            if said is not None:
                self.follow(who, said, at_ns)
        elif who is not self.line:
            return  # Given up before: what was under way on it stays indeterminate.
        elif what == GONE:
            self.drop(at_ns)
        else:
            for (number,) in ACK.iter_unpack(said):
                if self.line.in_flight.pop(number, None) is not None:
                    self.settle(number, ACKED, at_ns)
                    self.head.begin_ns = self.head.begin_ns or at_ns
                    self.head.acked += 1

    def settle(self, number: int, outcome: int, at_ns: int) -> None:
        """A write's fate."""
        self.ledger.writes[number].done_ns = at_ns
        self.ledger.writes[number].outcome = outcome
        if self.head.sentinel and outcome == ACKED and self.ledger.writes[number].block == self.load.sentinel_block:
            self.head.sentinel_done = self.head.sentinel

    def follow(self, node: int, led: tuple[int, Conversation], at_ns: int) -> None:
        """Go over to a node that leads, unless we have one of the same epoch or a later one."""
        epoch, talk = led
        if (self.line is not None and self.line.epoch >= epoch) or self.head.connections >= book.CONNECTIONS_MAX:
            hang_up(talk.connection)
            return
        self.drop(at_ns)
        self.line = Line(self.ledger.connect(node, epoch, at_ns), epoch, talk)
        threading.Thread(target=self.listen, args=(self.line,), daemon=True).start()

    def drop(self, at_ns: int) -> None:
        """Give the connection up; nobody knows what becomes of what is under way."""
        if self.line is not None:
            hang_up(self.line.talk.connection)
            for number in self.line.in_flight:
                self.settle(number, INDETERMINATE, at_ns)
            self.ledger.connections[self.line.index].closed_ns = at_ns
            self.line = None

    def listen(self, line: Line) -> None:
        """In a thread: what the node acknowledges, with the instant at which it came."""
        try:
            while True:
                said = line.talk.hear()
                self.inbox.put((ANSWERED, line, time.monotonic_ns(), said))
        except (FarwriteError, OSError):
            self.inbox.put((GONE, line, time.monotonic_ns(), None))

    def look(self) -> None:
        """Ask every node that is not being asked."""
        for node in range(len(self.load.names)):
            if node not in self.asked:
                self.asked.add(node)
                threading.Thread(target=self.ask, args=(node,), daemon=True).start()

    def ask(self, node: int) -> None:
        """In a thread: whether this node leads, and if so a connection to it."""
        answer = None
        connection = None
        try:
            connection = socket.create_connection(self.load.addresses[node], ASK_S)
            talk = converse(connection, self.terms, dials=True, limit_s=ASK_S)
            (epoch,) = LEADING.unpack(talk.hear())
            if epoch:
                talk.renew(OPEN_S)
                answer = epoch, talk
        except (FarwriteError, OSError):
            pass
        if answer is None:
            if connection is not None:
                connection.close()
            time.sleep(REST_S)
        self.inbox.put((FOUND, node, time.monotonic_ns(), answer))

    def is_late(self, now_ns: int) -> bool:
        """Whether the oldest write under way has waited too long."""
        in_flight = self.line.in_flight if self.line else {}
        return bool(in_flight) and now_ns - next(iter(in_flight.values())) > self.load.look_ns

    def arrive(self, now_ns: int) -> None:
        """Begin the writes that are due, the sentinel when everything else is over."""
        if self.head.stop:
            idle = not self.waiting and not (self.line and self.line.in_flight)
            if self.head.sentinel != self.head.sentinel_done and idle:
                self.wait(self.load.sentinel_block, now_ns, now_ns)
            return
        in_flight = len(self.line.in_flight) if self.line else 0
        while not self.ledger.is_full:
            if self.load.offered_per_s:
                if self.next_ns > now_ns:
                    return
                intended_ns = self.next_ns
                self.next_ns += round(NS_PER_S / self.load.offered_per_s)
            else:
                if in_flight + len(self.waiting) >= self.load.queue_depth:
                    return
                intended_ns = now_ns
            number = int(self.head.issued)
            self.wait(self.load.blocks[number % len(self.load.blocks)], intended_ns, now_ns)

    def wait(self, block: int, intended_ns: int, now_ns: int) -> None:
        """One write more in our queue. How late we see it due is our own fault, and fails no write."""
        if self.head.issued < book.WRITES_MAX:
            self.waiting.append((self.ledger.begin(block, intended_ns), now_ns))
            self.head.late_ns_max = max(self.head.late_ns_max, now_ns - intended_ns)

    def give_up(self, now_ns: int) -> None:
        """Writes that have found no primary within the bound have failed."""
        while self.waiting and now_ns - self.waiting[0][1] > self.load.bound_ns:
            self.settle(self.waiting.popleft()[0], FAILED, now_ns)

    def send(self) -> None:
        """Hand on what waits, as far as the depth allows."""
        line = self.line
        if line is None:
            return
        numbers: list[int] = []
        while self.waiting and len(line.in_flight) < self.load.queue_depth and len(numbers) < WRITES_A_MESSAGE:
            number, _ = self.waiting.popleft()
            numbers.append(number)
            now_ns = time.monotonic_ns()
            line.in_flight[number] = now_ns
            self.ledger.writes[number].sent_ns = now_ns
            self.ledger.writes[number].connection = line.index
        if numbers:
            try:
                line.talk.say(b"".join(WRITE.pack(number, int(self.ledger.writes[number].block)) for number in numbers))
            except (FarwriteError, OSError):
                self.drop(time.monotonic_ns())


def run_client(load: Load, board: Board) -> None:
    """In a process at the third site."""
    quieten(is_verbose=False)
    Client(load, Ledger(board.words)).run()
