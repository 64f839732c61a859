"""A board: a few words of memory that all processes of a lab see, for stop flags, settings and counters.

Anonymous and shared, made before the processes are forked; it survives the SIGKILL of any of them, which is how a drill
knows what a killed primary had completed. A board travels in a call as its number.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..base.shared_counters import counters_of


@dataclass(frozen=True)
class Board:
    """A handle on shared words; pickled by number, so both ends of a fork mean the same memory."""

    number: int

    made: ClassVar[dict[int, np.ndarray]] = {}

    @property
    def words(self) -> np.ndarray:
        """int64, shared with every process forked after the board was made."""
        return Board.made[self.number]

    @property
    def counters(self) -> np.ndarray:
        """SharedCounters, one: the beginning of a site's board."""
        return counters_of(self.words)


@contextmanager
def board(word_count: int) -> Iterator[Board]:
    """Zeroed words, shared with every process forked inside this block."""
    number = 1 + max(Board.made, default=0)
    Board.made[number] = np.frombuffer(mmap.mmap(-1, 8 * word_count), np.int64)
    try:
        yield Board(number)
    finally:
        del Board.made[number]
