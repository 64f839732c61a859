"""Random numbers without a state: a pure function of a seed, a stream and an index, in whatever order one asks.

The plan and the payloads draw from it, each from its own stream, so that no draw can shift another. What is done with
the numbers (gaps, addresses, bytes) is left to `arrival_kernel`, `address_kernel`, `plan_kernel` and `payload_kernel`.

It is SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014; constants and
finaliser as in Vigna's splitmix64.c), entered anywhere: its n-th output is mix(key + n * GAMMA). A 64-bit key decides a
stream, and is itself such an output. Unsigned numbers stay inside: `uint64 + int64` is a float when interpreted,
and a key that comes from compiled into interpreted code is a plain int, so `np.uint64()` stands around every call.
"""

from __future__ import annotations

import numpy as np
from numba import int64, uint64

from .jit import inline_kernel, kernel

# Streams: what a number is drawn for.
ARRIVAL, ADDRESS, SIZE, PAYLOAD, SCATTER, OPERATION, THINK, STRETCH, ANGLE, LINK_OUTWARD, LINK_HOMEWARD = range(1, 12)

GAMMA = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd.
FIRST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
SECOND_FACTOR = np.uint64(0x94D049BB133111EB)
FIRST_SHIFT, SECOND_SHIFT, THIRD_SHIFT = np.uint64(30), np.uint64(27), np.uint64(31)

UNIT_SHIFT = np.uint64(11)  # Leaves the top 53 bits: what a float64 holds exactly.
OPEN_SHIFT = np.uint64(12)  # Leaves 52, so that half a step more is exact too.


@inline_kernel
def mix(value):
    """The finaliser: a bijection of uint64 in which every bit of `value` moves every bit of the answer."""
    value = np.uint64(value)
    value = (value ^ (value >> FIRST_SHIFT)) * FIRST_FACTOR
    value = (value ^ (value >> SECOND_SHIFT)) * SECOND_FACTOR
    return value ^ (value >> THIRD_SHIFT)


@inline_kernel
def random_of(key, index):
    """The uint64 at `index` (from 0) of the sequence that `key` begins."""
    return np.uint64(mix(np.uint64(key) + GAMMA * np.uint64(np.int64(index) + 1)))


@inline_kernel
def key_of(seed, stream):
    """The key, uint64, of one stream of a seed."""
    return np.uint64(random_of(np.uint64(mix(np.uint64(np.int64(seed)))), np.int64(stream)))


@inline_kernel
def unit_of(key, index):
    """A float64 in [0, 1), a multiple of 2^-53."""
    return np.float64(np.int64(np.uint64(random_of(key, index)) >> UNIT_SHIFT)) * 2.0**-53


@inline_kernel
def open_unit_of(key, index):
    """A float64 in (0, 1), never an end of it: for logarithms. An odd multiple of 2^-53."""
    return (np.float64(np.int64(np.uint64(random_of(key, index)) >> OPEN_SHIFT)) + 0.5) * 2.0**-52


@kernel(uint64(int64, int64, int64))
def random_at(seed, stream, index):
    """The uint64 at `index` (from 0) of a stream of a seed. Loops take `key_of` once and then `random_of`."""
    return random_of(np.uint64(key_of(seed, stream)), index)

