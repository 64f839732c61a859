"""What each volume of a served pool does: requests and bytes a second of late, from what its replicas have counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import msgspec

from ...lab.shared_memory import Board
from ..serve.replica import figures_of

WINDOW_S, SAMPLE_S = 30.0, 1.0
MEASURED_S_MIN = 10.0  # Less says little of a load: nothing is moved by it.
COUNTED = ("writes", "reads", "bytes_written", "bytes_read")


class Load(msgspec.Struct, frozen=True):
    """Of a volume, a second."""

    writes: float = 0.0
    reads: float = 0.0
    written_bytes: float = 0.0
    read_bytes: float = 0.0

    @property
    def requests(self) -> float:
        return self.writes + self.reads

    @property
    def all_bytes(self) -> float:
        return self.written_bytes + self.read_bytes


class Meter:
    """The load of one volume. Each replica counts for itself, over all the times it leads."""

    def __init__(self) -> None:
        self.total = [0] * len(COUNTED)
        self.last: dict[str, tuple[int, ...]] = {}
        self.samples: deque[tuple[float, tuple[int, ...]]] = deque()

    def note(self, boards: Mapping[str, Board], now_s: float) -> None:
        """What the replicas have counted now; once a second is enough."""
        if self.samples and now_s - self.samples[-1][0] < SAMPLE_S:
            return
        now = {name: counted_on(board) for name, board in boards.items()}
        for name, counts in now.items():
            before = self.last.get(name, counts)
            self.total = [sum_ + max(count - was, 0) for sum_, count, was in zip(self.total, counts, before, strict=True)]
        self.last = now
        self.samples.append((now_s, tuple(self.total)))
        while self.samples[0][0] < now_s - WINDOW_S:
            self.samples.popleft()

    def measured_s(self) -> float:
        """How much of the past the load is of."""
        return self.samples[-1][0] - self.samples[0][0] if self.samples else 0.0

    def load(self) -> Load | None:
        """None while too little was seen."""
        past_s = self.measured_s()
        if past_s < MEASURED_S_MIN:
            return None
        first, last = self.samples[0][1], self.samples[-1][1]
        return Load(*((now - was) / past_s for now, was in zip(last, first, strict=True)))


def counted_on(board: Board) -> tuple[int, ...]:
    """What a replica has counted."""
    counters = figures_of(board).counters[0]
    return tuple(int(counters[name]) for name in COUNTED)
