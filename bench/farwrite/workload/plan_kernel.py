"""The plan as kernels see it: every I/O of a round with its intended instant, and the kernel that draws a block of it.

`plan.py` decides what to draw and owns the arrays; the load walks through them. Instants and addresses come from
`arrival_kernel` and `address_kernel`; here they are only put side by side with sizes and operations.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numba import int8, int32, int64, void

from ..base.jit import kernel
from ..base.prng_kernel import OPERATION, SIZE, key_of, unit_of
from . import address_kernel as addressing
from . import arrival_kernel as arriving

WRITE, READ, FLUSH, TRIM = 1, 2, 3, 4  # The first three as in `trace`.


class Plan(NamedTuple):
    """What to do and when; every array is indexed by the number of the I/O."""

    intended_ns: np.ndarray  # int64, since the round's start, and never falls; in a closed loop the time its caller thinks first
    address: np.ndarray  # int64, bytes from the start of the volume
    size: np.ndarray  # int32, bytes; 0 for a flush
    operation: np.ndarray  # int8, WRITE, READ, FLUSH or TRIM

    @classmethod
    def of_count(cls, count: int) -> Plan:
        """Room for `count` I/Os."""
        return cls(*(np.empty(count, dtype) for dtype in (np.int64, np.int64, np.int32, np.int8)))

    def part(self, start: int, stop: int) -> Plan:
        """I/Os `start` to `stop - 1`, as views. For Python; kernels take slices themselves."""
        return Plan(*(column[start:stop] for column in self))


PLAN = numba.typeof(Plan.of_count(1))


class Mix(NamedTuple):
    """Which operations there are: cumulative probabilities, in the order flush, read, trim, and the rest is writes."""

    flush: float
    read: float
    trim: float
    flush_every: int  # writes between two flushes; 0: none by number
    written: np.ndarray  # int64, one element: writes since the last flush

    @classmethod
    def of(cls, read_share: float = 0.0, trim_share: float = 0.0, flush_share: float = 0.0, flush_every: int = 0) -> Mix:
        """From shares: the flushes' of all, the others' of what is no flush."""
        rest = 1.0 - flush_share
        read = flush_share + rest * read_share
        return cls(flush_share, read, read + rest * trim_share, flush_every, np.zeros(1, np.int64))


class Sizes(NamedTuple):
    """The sizes there are: one table for each operation, behind one another."""

    size: np.ndarray  # int32
    cumulative: np.ndarray  # float64, the probability within its table of this size or one before it; the last is 1
    begin: np.ndarray  # int64 by operation: where its table begins
    end: np.ndarray  # int64 by operation: where it ends; a flush has none


class Recipe(NamedTuple):
    """Everything a block is drawn from; the states of mix, arrival and address are carried from block to block."""

    seed: int
    arrival: int  # CLOSED, FIXED or POISSON
    address: int  # SEQUENTIAL, UNIFORM and so on
    region_begin: int  # bytes, where the addresses count from
    think_ns: float
    think_at_random: bool
    think_every: int
    mix: Mix
    sizes: Sizes
    arrivals: arriving.Arrivals
    addresses: addressing.Addresses
    carried: np.ndarray  # int64: CARRIED_LAST_NS, CARRIED_DRAWN


# Indices into Recipe.carried.
CARRIED_LAST_NS, CARRIED_DRAWN = range(2)  # The last instant drawn, and how many were.

RECIPE = numba.typeof(
    Recipe(
        0, 0, 0, 0, 0.0, False, 1, Mix.of(),
        Sizes(np.zeros(1, np.int32), np.zeros(1), np.zeros(5, np.int64), np.zeros(5, np.int64)),
        arriving.Arrivals.at_rate(1.0), addressing.Addresses.over(4096, 4096, 4096), np.zeros(2, np.int64),
    )
)  # fmt: skip
MIX, SIZES = numba.typeof(Mix.of()), RECIPE[list(RECIPE.fields).index("sizes")]


@kernel(void(int8[::1], MIX, int64, int64))
def draw_operations(operation, mix, seed, first):
    """Operations with their probabilities, from I/O `first` on, and a flush after every so many writes."""
    if mix.trim == 0 and mix.flush_every == 0:
        operation[:] = WRITE
        return
    key = np.uint64(key_of(seed, OPERATION))
    written = mix.written[0]
    for i in range(operation.size):
        if mix.flush_every > 0 and written == mix.flush_every:
            operation[i] = FLUSH
            written = 0
            continue
        unit = unit_of(key, first + i)
        if unit < mix.flush:
            operation[i] = FLUSH
        elif unit < mix.read:
            operation[i] = READ
        elif unit < mix.trim:
            operation[i] = TRIM
        else:
            operation[i] = WRITE
            written += 1
    mix.written[0] = written


@kernel(void(int32[::1], int8[::1], SIZES, int64, int64))
def draw_sizes(size, operation, sizes, seed, first):
    """Sizes with their probabilities, from I/O `first` on. Tables are short, or halved until what is left is."""
    if sizes.size.size == 1:
        size[:] = sizes.size[0]
    else:
        key = np.uint64(key_of(seed, SIZE))
        for i in range(size.size):
            which, end = sizes.begin[operation[i]], sizes.end[operation[i]]
            if which == end:
                size[i] = 0
                continue
            unit = unit_of(key, first + i)
            while end - which > 8:
                middle = (which + end) >> 1
                if unit >= sizes.cumulative[middle - 1]:
                    which = middle
                else:
                    end = middle
            while unit >= sizes.cumulative[which]:
                which += 1
            size[i] = sizes.size[which]


@kernel()
def clear_flushes(column, operation):
    """A flush has neither address nor size."""
    for i in range(operation.size):
        if operation[i] == FLUSH:
            column[i] = 0


@kernel(void(int64[::1], RECIPE, int64))
def draw_instants(intended_ns, recipe, first):
    """Instants, or times to think, from number `first` on."""
    if recipe.arrival == arriving.CLOSED:
        if recipe.think_ns > 0:
            arriving.think(intended_ns, recipe.think_ns, recipe.think_at_random, recipe.think_every, recipe.seed, first)
        else:
            arriving.closed(intended_ns)
    elif recipe.arrivals.shape.lasts_ns.size > 0:
        arriving.shaped(intended_ns, recipe.arrivals, recipe.seed, first, recipe.arrival == arriving.FIXED)
    elif recipe.arrival == arriving.FIXED:
        arriving.fixed(intended_ns, recipe.arrivals)
    else:
        assert recipe.arrival == arriving.POISSON
        arriving.poisson(intended_ns, recipe.arrivals, recipe.seed, first)


@kernel(void(PLAN, RECIPE, int64))
def draw_addresses(plan, recipe, first):
    """Addresses, from I/O `first` on."""
    if recipe.address == addressing.SEQUENTIAL:
        addressing.sequential(plan.address, plan.size, recipe.addresses, first)
    elif recipe.address == addressing.UNIFORM:
        addressing.uniform(plan.address, recipe.addresses, recipe.seed, first)
    elif recipe.address == addressing.ZIPF:
        addressing.zipf(plan.address, recipe.addresses, recipe.seed, first)
    elif recipe.address == addressing.PARETO:
        addressing.pareto(plan.address, recipe.addresses, recipe.seed, first)
    elif recipe.address == addressing.NORMAL:
        addressing.normal(plan.address, recipe.addresses, recipe.seed, first)
    elif recipe.address == addressing.BANDS:
        addressing.banded(plan.address, recipe.addresses, recipe.seed, first)
    else:
        assert recipe.address == addressing.SHUFFLE
        addressing.shuffled(plan.address, recipe.addresses, recipe.seed, first)
    if recipe.region_begin > 0:
        for i in range(plan.address.size):
            plan.address[i] += recipe.region_begin


# Millions of 4 KiB writes a second, uniform: 180 closed, 150 at a fixed rate, 53 Poisson
# (Intel Xeon 2.5 GHz VM, one core, blocks of 65536 into touched memory, numba 0.68). New memory halves the first two.
@kernel(void(PLAN, RECIPE, int64))
def draw_block(plan, recipe, first):
    """Fill `plan` with I/Os `first`, `first + 1` and so on. A draw depends on its number, never on the block."""
    flushes = recipe.mix.flush > 0 or recipe.mix.flush_every > 0
    draw_operations(plan.operation, recipe.mix, recipe.seed, first)
    draw_sizes(plan.size, plan.operation, recipe.sizes, recipe.seed, first)
    if flushes:
        clear_flushes(plan.size, plan.operation)
    draw_addresses(plan, recipe, first)
    if not flushes or recipe.arrival == arriving.CLOSED:
        draw_instants(plan.intended_ns, recipe, first)
    else:
        drawn = np.int64(0)
        for i in range(plan.operation.size):
            drawn += plan.operation[i] != FLUSH
        draw_instants(plan.intended_ns[:drawn], recipe, recipe.carried[CARRIED_DRAWN])
        arriving.follow(plan.intended_ns, plan.operation, FLUSH, recipe.carried)
        recipe.carried[CARRIED_DRAWN] += drawn
    if flushes:
        clear_flushes(plan.address, plan.operation)
