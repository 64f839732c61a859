"""The client's ledger: every write of a trial with its instants and its fate, in memory that no fault of a drill reaches.

Anonymous shared memory, made before the processes are forked: the client writes it, we read it, and it would outlive even the
client. One row for each write, by number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...analysis.drill_recording import FAILED, INDETERMINATE, NEVER, Connection, History

# Words of the head. The first three are ours to set: begin no more writes, write one more (a number of ours), end.
STOP, SENTINEL, END, ISSUED, ACKED_COUNT, BEGIN_NS, IN_FLIGHT, CONNECTIONS, SENTINEL_DONE, LATE_NS_MAX = range(10)
HEAD_WORDS = 16

NODE, EPOCH, OPENED_NS, CLOSED_NS, CONNECTION_WORDS = range(5)
CONNECTIONS_MAX = 256

BLOCK, INTENDED_NS, SENT_NS, DONE_NS, CONNECTION, OUTCOME, ROW_WORDS = range(7)
WRITES_MAX = 1 << 17
SENTINELS_MAX = 1 << 12  # Of them: tries to show that recovery has ended.

WORDS = HEAD_WORDS + CONNECTIONS_MAX * CONNECTION_WORDS + WRITES_MAX * ROW_WORDS


class Ledger:
    """The words of a board, by their parts."""

    def __init__(self, words: np.ndarray) -> None:
        connections_end = HEAD_WORDS + CONNECTIONS_MAX * CONNECTION_WORDS
        self.head = words[:HEAD_WORDS]
        self.connections = words[HEAD_WORDS:connections_end].reshape(CONNECTIONS_MAX, CONNECTION_WORDS)
        self.rows = words[connections_end:WORDS].reshape(WRITES_MAX, ROW_WORDS)

    def begin(self, block: int, intended_ns: int) -> int:
        """A new write's number."""
        number = int(self.head[ISSUED])
        self.rows[number] = block, intended_ns, NEVER, NEVER, NEVER, 0
        self.head[ISSUED] = number + 1
        return number

    def connect(self, node: int, epoch: int, now_ns: int) -> int:
        """A new connection's index."""
        index = int(self.head[CONNECTIONS])
        self.connections[index] = node, epoch, now_ns, NEVER
        self.head[CONNECTIONS] = index + 1
        return index

    def history(self) -> History:
        """What the client knows of every write, by instants since its first acknowledgement.

        A write that is under way still is indeterminate, and one that was never handed on has failed.
        """
        begin_ns = int(self.head[BEGIN_NS])
        rows = self.rows[: int(self.head[ISSUED])].copy()
        open_ = rows[:, OUTCOME] == 0
        rows[open_, OUTCOME] = np.where(rows[open_, SENT_NS] == NEVER, FAILED, INDETERMINATE)
        for column in (INTENDED_NS, SENT_NS, DONE_NS):
            known = rows[:, column] != NEVER
            rows[known, column] -= begin_ns
        columns = {name: rows[:, column].tolist() for name, column in (
            ("block", BLOCK), ("intended_ns", INTENDED_NS), ("sent_ns", SENT_NS), ("done_ns", DONE_NS),
            ("connection", CONNECTION), ("outcome", OUTCOME),
        )}  # fmt: skip
        return History(**columns)

    def connections_of(self, names: Sequence[str]) -> list[Connection]:
        """The connections, with their nodes by name."""
        begin_ns = int(self.head[BEGIN_NS])
        return [
            Connection(node=names[node], epoch=epoch, opened_ns=opened - begin_ns,
                       closed_ns=closed - begin_ns if closed != NEVER else NEVER)
            for node, epoch, opened, closed in self.connections[: int(self.head[CONNECTIONS])].tolist()
        ]  # fmt: skip
