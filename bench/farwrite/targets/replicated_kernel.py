"""The replicated target: the engine's primary, and behind it whatever peer it has met."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..base.jit import kernel
from ..engine import primary_kernel as engine
from ..engine import turn_kernel


class ReplicatedTarget(NamedTuple):
    """A primary, and the sequence that the plan's first write follows."""

    primary: engine.Primary
    first: np.ndarray  # int64, one word: sequence before the plan's first write
    room: np.ndarray  # uint8, for the largest read


@kernel()
def submit(target, number, address, size, now_ns, grain):
    return engine.submit(target.primary, number, address, size, now_ns, grain)


@kernel()
def trim(target, address, size, now_ns):
    return engine.submit_trim(target.primary, address, np.int64(size), now_ns)


@kernel()
def read(target, address, size):
    return engine.read(target.primary, target.room, np.int64(0), np.int64(size), address)


@kernel()
def progress(target, deadline_ns):
    return turn_kernel.progress(target.primary, deadline_ns)


@kernel()
def completed(target):
    return target.primary.at[0].completed - target.first[0]


@kernel()
def waited(target):
    return target.primary.at[0].wait_begin_ns, target.primary.at[0].woken_ns
