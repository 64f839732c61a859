"""The client of a drill: a process at the third site that writes, keeps the ledger, and finds the primary by itself.

It asks every node whether it leads when it has no connection, and when writes have waited too long on the one it has: at the
nodes' desks, or by trying their doors. At desks it goes over to a node that leads in a later epoch. A door says no epoch, so one
connection is left for another only while writes wait on it, and for a door that has answered a flush. What was under way on the
connection before is indeterminate then, and never sent again under its number. A write that finds no primary within the bound
has failed, as a server's queue would refuse it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...analysis.drill_recording import ACKED, AGAIN, FAILED, INDETERMINATE
from ...base.units import NS_PER_S
from ...lab.shared_memory import Board
from ..voters import quieten, terms_of
from . import ledger as book
from .desk import WRITES_A_MESSAGE
from .ledger import Ledger
from .wire import LOST, DoorLoad, ElsewhereError, Heard, Wire, dial_desks, dial_doors

REST_S = 0.01  # Between two questions to one node.
TURN_S = 0.02  # The longest rest of the loop.
# After which the door that we have a connection to is tried anew as well: it may know nothing of that connection any more. To try
# sooner would end a session that is only slow, since an iSCSI initiator port has one at a target.
DEAD_NS = 5 * NS_PER_S
FOUND, ELSEWHERE, ANSWERED, GONE = "found", "elsewhere", "answered", "gone"


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
    door: DoorLoad | None = None  # the addresses are those of doors; None: of desks


@dataclass(eq=False)
class Line:
    """The connection to the node that leads."""

    index: int
    node: int
    wire: Wire
    in_flight: dict[int, int] = field(default_factory=dict)  # number: when it was sent


class Client:
    """The loop."""

    def __init__(self, load: Load, ledger: Ledger) -> None:
        self.load, self.ledger, self.head = load, ledger, ledger.head
        self.dial = dial_doors(load.addresses, load.door) if load.door else dial_desks(load.addresses, terms_of(load.key))
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
                self.look(now_ns)
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
        elif what == ELSEWHERE:
            if who >= 0 and (self.line is None or self.line.node != who):
                self.ask_in_thread(who)
        elif who is not self.line:
            return  # Given up before: what was under way on it stays indeterminate.
        elif what == GONE:
            self.drop(at_ns)
        else:
            self.hear_of(self.line, said, at_ns)

    def hear_of(self, line: Line, heard: Heard, at_ns: int) -> None:
        """What a node has answered on the connection that we have. A door that answers what was not asked is hung up on."""
        strays = 0
        for number in heard.acked:
            if line.in_flight.pop(number, None) is not None:
                self.settle(number, ACKED, at_ns)
                self.head.begin_ns = self.head.begin_ns or at_ns
                self.head.acked += 1
            else:
                strays += 1
        for number in heard.again:
            if line.in_flight.pop(number, None) is None:
                strays += 1
                continue
            self.settle(number, AGAIN, at_ns)
            if self.head.issued < book.WRITES_MAX:
                row = self.ledger.writes[number]
                self.waiting.append((self.ledger.begin(int(row.block), int(row.intended_ns)), at_ns))
        if strays and self.load.door is not None:
            self.head.strays += strays
            self.drop(at_ns)

    def settle(self, number: int, outcome: int, at_ns: int) -> None:
        """A write's fate."""
        self.ledger.writes[number].done_ns = at_ns
        self.ledger.writes[number].outcome = outcome
        if self.head.sentinel and outcome == ACKED and self.ledger.writes[number].block == self.load.sentinel_block:
            self.head.sentinel_done = self.head.sentinel

    def follow(self, node: int, wire: Wire, at_ns: int) -> None:
        """Go over to a node that leads, where that is better than what we have."""
        if not self.is_better(wire, at_ns) or self.head.connections >= book.CONNECTIONS_MAX:
            wire.close()
            return
        self.drop(at_ns)
        index = self.ledger.connect(node, wire.epoch, wire.dialled_ns, wire.connected_ns, at_ns)
        self.line = Line(index, node, wire)
        threading.Thread(target=self.listen, args=(self.line,), daemon=True).start()

    def is_better(self, wire: Wire, at_ns: int) -> bool:
        """Of a later epoch than the one that we have; or, where no door says its epoch, while writes wait on that one still."""
        if self.line is None:
            return True
        return self.is_late(at_ns) and wire.is_proven if self.load.door is not None else wire.epoch > self.line.wire.epoch

    def drop(self, at_ns: int) -> None:
        """Give the connection up; nobody knows what becomes of what is under way."""
        if self.line is not None:
            self.line.wire.close()
            for number in self.line.in_flight:
                self.settle(number, INDETERMINATE, at_ns)
            self.ledger.connections[self.line.index].closed_ns = at_ns
            self.line = None

    def listen(self, line: Line) -> None:
        """In a thread: what the node acknowledges, with the instant at which it came."""
        try:
            while True:
                said = line.wire.hear()
                self.inbox.put((ANSWERED, line, time.monotonic_ns(), said))
        except LOST:
            self.inbox.put((GONE, line, time.monotonic_ns(), None))

    def look(self, now_ns: int) -> None:
        """Ask every node that is not being asked; of doors not the one that we have, unless it answers nothing any more."""
        for node in range(len(self.load.names)):
            is_ours = self.load.door is not None and self.line is not None and self.line.node == node
            if node not in self.asked and not (is_ours and not self.is_late(now_ns, DEAD_NS)):
                self.ask_in_thread(node)

    def ask_in_thread(self, node: int) -> None:
        if node not in self.asked:
            self.asked.add(node)
            threading.Thread(target=self.ask, args=(node, self.line is not None), daemon=True).start()

    def ask(self, node: int, proves: bool) -> None:
        """In a thread: whether this node leads, and if so a connection to it."""
        found: Wire | None = None
        try:
            found = self.dial(node, proves)
        except ElsewhereError as elsewhere:
            self.inbox.put((ELSEWHERE, elsewhere.node, time.monotonic_ns(), None))
        except LOST:
            pass
        at_ns = time.monotonic_ns()
        if found is None:
            time.sleep(REST_S)
        self.inbox.put((FOUND, node, at_ns, found))

    def is_late(self, now_ns: int, limit_ns: int = 0) -> bool:
        """Whether the oldest write under way has waited too long, or for longer than this."""
        in_flight = self.line.in_flight if self.line else {}
        return bool(in_flight) and now_ns - next(iter(in_flight.values())) > (limit_ns or self.load.look_ns)

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
        """Hand on what waits, as far as the depth and the node allow."""
        line = self.line
        if line is None or not self.waiting:
            return
        writes: list[tuple[int, int]] = []
        most = min(line.wire.room(), WRITES_A_MESSAGE, self.load.queue_depth - len(line.in_flight))
        while self.waiting and len(writes) < most:
            number, _ = self.waiting.popleft()
            now_ns = time.monotonic_ns()
            line.in_flight[number] = now_ns
            row = self.ledger.writes[number]
            row.sent_ns, row.connection = now_ns, line.index
            writes.append((number, int(row.block)))
        if writes:
            try:
                line.wire.send(writes)
            except LOST:
                self.drop(time.monotonic_ns())


def run_client(load: Load, board: Board) -> None:
    """In a process at the third site."""
    quieten(is_verbose=False)
    Client(load, Ledger(board.words)).run()
