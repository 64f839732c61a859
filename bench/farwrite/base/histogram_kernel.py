"""The histogram as kernels see it: one slot of an int64 array per narrow range of ns, counted up in place.

The load records with it while it measures. Merging, quantiles and the text form are in `histogram.py`, which reports
use without Numba; the layout is argued there, and repeated here so that an edit reaches the compiled code's cache.
"""

from __future__ import annotations

import numpy as np
from numba import int64, void

from .jit import inline_kernel, kernel

# The same as in `histogram.py`; a test holds them together.
EXACT_BITS = 11
HALF_BITS = 10
RANGE_BITS = 40
SATURATED = 31_744
SLOTS = 31_745

MANTISSA_BITS = 52
EXPONENT_BIAS = 1023


@inline_kernel
def slot_of(value_ns):
    """The slot of a value that is not negative.

    The exponent is read off the float, which is exact where it matters, below 2^40; frexp does the same in 4 ns
    instead of 1 (Intel Xeon 2.5 GHz VM, numba 0.68).
    """
    if value_ns < 1 << EXACT_BITS:
        return np.int64(value_ns)
    if value_ns >= 1 << RANGE_BITS:
        return np.int64(SATURATED)
    power = (np.float64(value_ns).view(np.int64) >> MANTISSA_BITS) - EXPONENT_BIAS
    shift = power - HALF_BITS
    return (shift << HALF_BITS) + (value_ns >> shift)


# 4 ns a value for writes that look alike, 7 ns for values from all over the range (Intel Xeon 2.5 GHz VM, numba 0.68).
@kernel(void(int64[::1], int64))
def record(counts, value_ns):
    """Count one value, in ns; 2^40 ns (18 minutes) and above share the last slot."""
    assert value_ns >= 0
    assert counts.size == SLOTS
    counts[slot_of(value_ns)] += 1


@kernel(int64(int64))
def index_of(value_ns):
    """The slot that counts this value."""
    assert value_ns >= 0
    return slot_of(value_ns)


@kernel(int64(int64))
def lowest_of(index):
    """The least value, in ns, that this slot counts."""
    assert 0 <= index < SLOTS
    if index < 1 << EXACT_BITS:
        return index
    if index == SATURATED:
        return np.int64(1) << RANGE_BITS
    shift = (index >> HALF_BITS) - 1
    return ((index & ((1 << HALF_BITS) - 1)) + (1 << HALF_BITS)) << shift


@kernel(int64(int64))
def highest_of(index):
    """The greatest value, in ns, that this slot counts; for the last, which knows no greatest, its least."""
    if index == SATURATED:
        return np.int64(1) << RANGE_BITS
    return lowest_of(index + 1) - 1


@kernel(int64(int64))
def middle_of(index):
    """The value, in ns, that stands for all this slot counts: at most 0.05 % from any of them."""
    lowest = lowest_of(index)
    return lowest + ((highest_of(index) - lowest) >> 1)
