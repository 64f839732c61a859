"""What the processes of a lab tell each other of a run while it goes on: one row on each site's board.

It lies in shared memory (lab/shared_memory.py) and outlives the process that writes it: when that is killed, `completed` tells
what its caller was promised.
"""

from __future__ import annotations

import numpy as np

from .row import Row, i64


class SharedCounters(Row):
    """One site's. `stop` is written by the lab, the rest by the site."""

    stop = i64("1: what runs in the site is to end")
    durable_sequence = i64("sequence: highest that its secondary has made durable")
    issued = i64("writes and trims that its load has handed to the target")
    completed = i64("how many of them are complete")
    last_completion_ns = i64("ns, CLOCK_MONOTONIC: when completed was counted last")
    begin_ns = i64("ns, CLOCK_MONOTONIC: when the load began; 0: it has not")
    led_epoch = i64("epoch that its node leads in; 0: it does not lead")


def counters_of(words: np.ndarray) -> np.ndarray:
    """SharedCounters, one: the beginning of a site's board, which is int64 words."""
    return words[: SharedCounters.LAYOUT.itemsize // 8].view(SharedCounters.LAYOUT)
