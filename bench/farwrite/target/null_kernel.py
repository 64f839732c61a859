"""The null target: every write completes at once. What remains is the cost of generating and recording."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..jit import kernel


class NullTarget(NamedTuple):
    """How many writes were taken."""

    taken: np.ndarray  # int64, one word


def null_target() -> NullTarget:
    """A fresh null target."""
    return NullTarget(np.zeros(1, np.int64))


@kernel()
def submit(target, number, address, size, now_ns):
    target.taken[0] += 1
    return True


@kernel()
def progress(target, deadline_ns):
    return np.int64(0)


@kernel()
def completed(target):
    return target.taken[0]


@kernel()
def waited(target):
    return np.int64(0), np.int64(0)
