"""The null target: every I/O completes at once. What remains is the cost of generating, pacing and recording."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..base.host.libc import monotonic_ns, sleep_until
from ..base.jit import inline_kernel

# Indices into NullTarget.at.
TAKEN, SEEN, WAIT_BEGIN_NS, WOKEN_NS = range(4)


class NullTarget(NamedTuple):
    """What it has taken and when it slept."""

    at: np.ndarray  # int64, see the indices above


def null_target() -> NullTarget:
    """A fresh null target."""
    return NullTarget(np.zeros(4, np.int64))


@inline_kernel
def submit(target, number, address, size, now_ns, grain):
    target.at[TAKEN] += 1
    return True


@inline_kernel
def trim(target, address, size, now_ns):
    target.at[TAKEN] += 1
    return True


@inline_kernel
def read(target, address, size):
    return np.int64(size)


@inline_kernel
def progress(target, deadline_ns):
    """Sleeps when nothing was taken since the last turn: then nothing completes until the deadline."""
    at = target.at
    if at[TAKEN] == at[SEEN] and deadline_ns > 0:
        at[WAIT_BEGIN_NS] = monotonic_ns()
        if deadline_ns > at[WAIT_BEGIN_NS]:
            sleep_until(deadline_ns)
        at[WOKEN_NS] = monotonic_ns()
    at[SEEN] = at[TAKEN]
    return np.int64(0)


@inline_kernel
def completed(target):
    return target.at[TAKEN]


@inline_kernel
def waited(target):
    return target.at[WAIT_BEGIN_NS], target.at[WOKEN_NS]
