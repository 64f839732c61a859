"""The null target: every I/O completes at once. What remains is the cost of generating, pacing and recording."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..base.host.libc import monotonic_ns, sleep_until
from ..base.jit import inline_kernel
from ..base.row import Row, i64, rows_of


class Taken(Row):
    """What a null target has taken, and when it slept."""

    taken = i64("writes and trims taken")
    seen = i64("how many of them before the last turn")
    wait_begin_ns = i64("ns, CLOCK_MONOTONIC: when the last sleep began")
    woken_ns = i64("ns, CLOCK_MONOTONIC: when it ended")


class NullTarget(NamedTuple):
    """What it has taken and when it slept."""

    at: np.ndarray  # Taken, one


def null_target() -> NullTarget:
    """A fresh null target."""
    return NullTarget(rows_of(Taken))


@inline_kernel
def submit(target, number, address, size, now_ns, grain):
    target.at[0].taken += 1
    return True


@inline_kernel
def trim(target, address, size, now_ns):
    target.at[0].taken += 1
    return True


@inline_kernel
def read(target, address, size):
    return np.int64(size)


@inline_kernel
def progress(target, deadline_ns):
    """Sleeps when nothing was taken since the last turn: then nothing completes until the deadline."""
    at = target.at[0]
    if at.taken == at.seen and deadline_ns > 0:
        at.wait_begin_ns = monotonic_ns()
        if deadline_ns > at.wait_begin_ns:
            sleep_until(deadline_ns)
        at.woken_ns = monotonic_ns()
    at.seen = at.taken
    return np.int64(0)


@inline_kernel
def completed(target):
    return target.at[0].taken


@inline_kernel
def waited(target):
    return target.at[0].wait_begin_ns, target.at[0].woken_ns
