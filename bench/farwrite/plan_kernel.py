"""The plan as kernels see it: every I/O of a round with its intended instant, and the kernel that draws a block of it.

`plan.py` decides what to draw and owns the arrays; the load walks through them. Instants and addresses come from
`arrival_kernel` and `address_kernel`; here they are only put side by side with sizes and operations.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numba import float64, int32, int64, void

from . import address_kernel as addressing
from . import arrival_kernel as arriving
from .jit import kernel
from .prng_kernel import SIZE, key_of, unit_of

WRITE, READ, FLUSH = 1, 2, 3  # As in `trace`.


class Plan(NamedTuple):
    """What to do and when; every array is indexed by write number."""

    intended_ns: np.ndarray  # int64, since the round's start; never falls
    address: np.ndarray  # int64, bytes from the start of the volume
    size: np.ndarray  # int32, bytes
    operation: np.ndarray  # int8, WRITE, READ or FLUSH

    @classmethod
    def of_count(cls, count: int) -> Plan:
        """Room for `count` I/Os."""
        return cls(*(np.empty(count, dtype) for dtype in (np.int64, np.int64, np.int32, np.int8)))

    def part(self, start: int, stop: int) -> Plan:
        """Writes `start` to `stop - 1`, as views. For Python; kernels take slices themselves."""
        return Plan(*(column[start:stop] for column in self))


PLAN = numba.typeof(Plan.of_count(1))


class Recipe(NamedTuple):
    """Everything a block is drawn from; the states of arrival and address are carried from block to block."""

    seed: int
    arrival: int  # CLOSED, FIXED or POISSON
    address: int  # SEQUENTIAL, UNIFORM or ZIPF
    sizes: np.ndarray  # int32, the sizes there are
    cumulative: np.ndarray  # float64, the probability of this size or one before it; the last is 1
    arrivals: arriving.Arrivals
    addresses: addressing.Addresses


RECIPE = numba.typeof(
    Recipe(
        0, 0, 0, np.zeros(1, np.int32), np.zeros(1), arriving.Arrivals.at_rate(1.0),
        addressing.Addresses.over(4096, 4096, 4096),
    )
)  # fmt: skip


@kernel(void(int32[::1], int32[::1], float64[::1], int64, int64))
def draw_sizes(size, sizes, cumulative, seed, first):
    """Sizes with their probabilities, from write `first` on. A profile names a handful, so it looks at each."""
    assert cumulative[-1] >= 1
    if sizes.size == 1:
        size[:] = sizes[0]
        return
    key = np.uint64(key_of(seed, SIZE))
    for i in range(size.size):
        unit = unit_of(key, first + i)
        which = 0
        while unit >= cumulative[which]:
            which += 1
        size[i] = sizes[which]


# Millions of 4 KiB writes a second, uniform: 180 closed, 150 at a fixed rate, 53 Poisson; Poisson with Zipf 16
# (Intel Xeon 2.5 GHz VM, one core, blocks of 65536 into touched memory, numba 0.68). New memory halves the first two.
@kernel(void(PLAN, RECIPE, int64))
def draw_block(plan, recipe, first):
    """Fill `plan` with writes `first`, `first + 1` and so on. A draw depends on its number, never on the block."""
    if recipe.arrival == arriving.CLOSED:
        arriving.closed(plan.intended_ns)
    elif recipe.arrival == arriving.FIXED:
        arriving.fixed(plan.intended_ns, recipe.arrivals)
    else:
        assert recipe.arrival == arriving.POISSON
        arriving.poisson(plan.intended_ns, recipe.arrivals, recipe.seed, first)

    draw_sizes(plan.size, recipe.sizes, recipe.cumulative, recipe.seed, first)

    if recipe.address == addressing.SEQUENTIAL:
        addressing.sequential(plan.address, plan.size, recipe.addresses)
    elif recipe.address == addressing.UNIFORM:
        addressing.uniform(plan.address, recipe.addresses, recipe.seed, first)
    else:
        assert recipe.address == addressing.ZIPF
        addressing.zipf(plan.address, recipe.addresses, recipe.seed, first)

    plan.operation[:] = WRITE
