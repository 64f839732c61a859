"""The client's ledger: every write of a trial with its instants and its fate, in memory that no fault of a drill reaches.

Anonymous shared memory, made before the processes are forked: the client writes it, we read it, and it would outlive even the
client. One row for each write, by number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...analysis.drill_recording import FAILED, INDETERMINATE, NEVER, Connection, History
from ...base.row import Row, i64

CONNECTIONS_MAX = 256
WRITES_MAX = 1 << 17
SENTINELS_MAX = 1 << 12  # Of them: tries to show that recovery has ended.


class Head(Row):
    """What the client and we tell each other. The first three are ours to set, the rest is the client's."""

    stop = i64("1: begin no more writes of the load")
    sentinel = i64("1: write until one is acknowledged that began when all others had their fate")
    end = i64("1: the client is to end")
    sentinel_done = i64("1: it is acknowledged")
    issued = i64("writes so far, waiting ones too")
    acked = i64("how many of them are acknowledged")
    begin_ns = i64("ns, CLOCK_MONOTONIC: the first acknowledgement; 0: there was none")
    connections = i64("connections so far")
    late_ns_max = i64("ns: how late the client itself saw a write due, at most")
    strays = i64("answers of doors to nothing that was asked on their connection")


class Dialled(Row):
    """One connection to a node that led."""

    node = i64("index of the node")
    epoch = i64("epoch that it led in; 0: it did not say")
    dialled_ns = i64("ns, CLOCK_MONOTONIC: when the attempt began that led to it")
    connected_ns = i64("ns, CLOCK_MONOTONIC: when TCP was connected; NEVER: not told apart")
    opened_ns = i64("ns, CLOCK_MONOTONIC")
    closed_ns = i64("ns, CLOCK_MONOTONIC; NEVER: it is open")


class Write(Row):
    """One write."""

    block = i64("index of its block in the volume")
    intended_ns = i64("ns, CLOCK_MONOTONIC: when it was due")
    sent_ns = i64("ns, CLOCK_MONOTONIC: when it was handed to a node; NEVER: it was not")
    done_ns = i64("ns, CLOCK_MONOTONIC: when its fate was known; NEVER: it is not")
    connection = i64("on which it was sent; NEVER: on none")
    outcome = i64("ACKED, FAILED, INDETERMINATE or AGAIN; 0: not known yet")


PARTS = ((Head, 1), (Dialled, CONNECTIONS_MAX), (Write, WRITES_MAX))
WORDS = sum(kind.LAYOUT.itemsize // 8 * count for kind, count in PARTS)


class Ledger:
    """The words of a board, by their parts."""

    def __init__(self, words: np.ndarray) -> None:
        found, at = [], 0
        for kind, count in PARTS:
            size = kind.LAYOUT.itemsize // 8 * count
            found.append(words[at : at + size].view(kind.LAYOUT))
            at += size
        heads, self.connections, self.writes = found
        self.head = heads[0]

    def begin(self, block: int, intended_ns: int) -> int:
        """A new write's number."""
        number = int(self.head.issued)
        self.writes[number] = block, intended_ns, NEVER, NEVER, NEVER, 0
        self.head.issued = number + 1
        return number

    def connect(self, node: int, epoch: int, dialled_ns: int, connected_ns: int, now_ns: int) -> int:
        """A new connection's index."""
        index = int(self.head.connections)
        self.connections[index] = node, epoch, dialled_ns, connected_ns, now_ns, NEVER
        self.head.connections = index + 1
        return index

    @property
    def is_full(self) -> bool:
        """Whether the load has had to stop for want of room: what looks like an outage then is none."""
        return bool(self.head.issued >= WRITES_MAX - SENTINELS_MAX)

    @property
    def begun(self) -> np.ndarray:
        """The writes so far."""
        return self.writes[: int(self.head.issued)]

    def history(self) -> History:
        """What the client knows of every write, by instants since its first acknowledgement.

        A write that is under way still is indeterminate, and one that was never handed on has failed.
        """
        begin_ns = int(self.head.begin_ns)
        writes = self.begun.copy()
        open_ = writes["outcome"] == 0
        writes["outcome"][open_] = np.where(writes["sent_ns"][open_] == NEVER, FAILED, INDETERMINATE)
        for name in ("intended_ns", "sent_ns", "done_ns"):
            known = writes[name] != NEVER
            writes[name][known] -= begin_ns
        return History(**{name: writes[name].tolist() for name in Write.MEANINGS})

    def connections_of(self, names: Sequence[str]) -> list[Connection]:
        """The connections, with their nodes by name."""
        begin_ns = int(self.head.begin_ns)

        def since(at_ns: int) -> int:
            return NEVER if at_ns == NEVER else at_ns - begin_ns

        return [
            Connection(node=names[node], epoch=epoch, opened_ns=since(opened), closed_ns=since(closed),
                       dialled_ns=since(dialled) if connected != NEVER else NEVER, connected_ns=since(connected))
            for node, epoch, dialled, connected, opened, closed in self.connections[: int(self.head.connections)].tolist()
        ]  # fmt: skip
