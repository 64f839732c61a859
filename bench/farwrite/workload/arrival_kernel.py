"""When each write of a round should start: ns since the round's start, drawn in blocks with the state carried.

The plan uses it. A fixed rate never drifts, a Poisson process never goes back, and a rate that changes (bursts, ramps, a day)
bends the time of either. A closed loop has no instants of its own, only the time its caller thinks before each write; who waits
for all these, and how late they came to be issued, is left to the load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numba
import numpy as np
from numba import boolean, float64, int8, int64, void

from ..base.jit import kernel
from ..base.prng_kernel import ARRIVAL, STRETCH, THINK, key_of, open_unit_of
from ..base.units import NS_PER_S

# Kinds of arrival.
CLOSED, FIXED, POISSON = 0, 1, 2

# Indices into Arrivals.at.
NEXT_NS, REMAINDER, PERIOD_NS, PERIOD_REST, PERIOD_PARTS = range(5)

# Indices into Shape.at.
VISIT, BEGIN_NS, LASTS_NS = range(3)

# Indices into Arrivals.gap.
MEAN_NS, FRACTION_NS = range(2)

# 1/3 and 5/3 per second reach us as floats; the fraction that was meant has a small denominator. Together with the
# greatest rate it keeps every product below 2^62.
DENOMINATOR_MAX = 1_000_000


class Shape(NamedTuple):
    """How the rate changes: stretches of time, over and over, each with a rate that goes straight from one value to another."""

    lasts_ns: np.ndarray  # float64 by stretch; the mean where `at_random`
    begin_per_ns: np.ndarray  # float64 by stretch
    end_per_ns: np.ndarray
    at_random: bool  # exponential lengths: a Markov-modulated process
    at: np.ndarray  # int64: stretches begun, where the present one began and how long it lasts
    passed_ns: np.ndarray  # float64, one element: of the present stretch

    @classmethod
    def of(cls, stretches: Sequence[tuple[int, float, float]], at_random: bool = False) -> Shape:
        """Before the first instant; a stretch is (lasts_ns, begin_per_s, end_per_s)."""
        columns = np.array(stretches, np.float64).reshape(-1, 3).T.copy()
        return cls(columns[0], columns[1] / NS_PER_S, columns[2] / NS_PER_S, at_random, np.zeros(3, np.int64), np.zeros(1))


class Arrivals(NamedTuple):
    """Where the drawing of instants stands; indices above."""

    at: np.ndarray  # int64, the next fixed instant and the exact period: PERIOD_NS + PERIOD_REST / PERIOD_PARTS
    gap: np.ndarray  # float64, the mean gap of a Poisson process and the part of a ns carried since the last instant
    shape: Shape  # without stretches when the rate never changes

    @classmethod
    def at_rate(cls, rate_per_s: float, shape: Shape | None = None) -> Arrivals:
        """Before the first instant; the rate is read as the simplest fraction it can stand for."""
        period = NS_PER_S / Fraction(rate_per_s).limit_denominator(DENOMINATOR_MAX)
        whole, rest = divmod(period.numerator, period.denominator)
        at = np.array([0, 0, whole, rest, period.denominator], np.int64)
        return cls(at, np.array([NS_PER_S / rate_per_s, 0.0]), shape or Shape.of([]))


ARRIVALS = numba.typeof(Arrivals.at_rate(1.0))


@kernel(void(int64[::1], ARRIVALS))
def fixed(intended_ns, arrivals):
    """The next instants of a fixed rate: write n at exactly floor(n * 1e9 / rate): the remainder is carried."""
    at = arrivals.at
    next_ns, remainder = at[NEXT_NS], at[REMAINDER]
    period_ns, rest, parts = at[PERIOD_NS], at[PERIOD_REST], at[PERIOD_PARTS]
    for i in range(intended_ns.size):
        intended_ns[i] = next_ns
        remainder += rest
        over = np.int64(remainder >= parts)
        remainder -= over * parts
        next_ns += period_ns + over
    assert 0 <= remainder < parts
    at[NEXT_NS], at[REMAINDER] = next_ns, remainder


@kernel(void(int64[::1], ARRIVALS, int64, int64))
def poisson(intended_ns, arrivals, seed, first):
    """The next instants of a Poisson process from write `first` on; exponential gaps by inverse transform.

    The sum is kept as whole ns and a fraction below one: a float alone would lose its ns after 104 days.
    """
    key = np.uint64(key_of(seed, ARRIVAL))
    next_ns, fraction_ns = arrivals.at[NEXT_NS], arrivals.gap[FRACTION_NS]
    mean_ns = arrivals.gap[MEAN_NS]
    for i in range(intended_ns.size):
        fraction_ns -= mean_ns * math.log(open_unit_of(key, first + i))
        whole_ns = np.int64(fraction_ns)
        fraction_ns -= whole_ns
        next_ns += whole_ns
        intended_ns[i] = next_ns
    assert 0 <= fraction_ns < 1
    arrivals.at[NEXT_NS], arrivals.gap[FRACTION_NS] = next_ns, fraction_ns


@kernel(float64(float64, float64, float64, float64))
def time_of(work, begin_per_ns, end_per_ns, lasts_ns):
    """After how many ns a rate on its way from one value to another in `lasts_ns` has made `work` writes due.

    The root of a quadratic in the form that does not cancel. Only for work that the stretch holds.
    """
    if work <= 0:
        return 0.0
    slope = (end_per_ns - begin_per_ns) / lasts_ns
    root = math.sqrt(max(begin_per_ns * begin_per_ns + 2.0 * slope * work, 0.0))
    return min(2.0 * work / (begin_per_ns + root), lasts_ns)


@kernel(void(int64[::1], ARRIVALS, int64, int64, boolean))
def shaped(intended_ns, arrivals, seed, first, regular):
    """The next instants of a process whose rate changes, from write `first` on: a Poisson one, or one as regular as it can be.

    A unit of work is one write at the rate of the moment; gaps of one unit, or of exponential ones, are laid along the rate
    (time change: Cinlar, "Introduction to Stochastic Processes", 1975). A stretch that lasts for a random time draws
    its length by its own number.
    """
    shape = arrivals.shape
    at, count = shape.at, shape.lasts_ns.size
    assert count > 0 and shape.begin_per_ns.sum() + shape.end_per_ns.sum() > 0
    key = np.uint64(key_of(seed, ARRIVAL))
    lengths = np.uint64(key_of(seed, STRETCH))
    passed_ns = shape.passed_ns[0]
    for i in range(intended_ns.size):
        number = first + i
        if regular:
            work = 1.0 if number > 0 else 0.0
        else:
            work = -math.log(open_unit_of(key, number))
        while True:
            if at[LASTS_NS] == 0:
                mean_ns = shape.lasts_ns[at[VISIT] % count]
                if shape.at_random:
                    mean_ns *= -math.log(open_unit_of(lengths, at[VISIT]))
                at[LASTS_NS] = max(np.int64(mean_ns), 1)
            stretch = at[VISIT] % count
            begin, end = shape.begin_per_ns[stretch], shape.end_per_ns[stretch]
            now = begin + (end - begin) * (passed_ns / at[LASTS_NS])
            left_ns = at[LASTS_NS] - passed_ns
            held = 0.5 * (now + end) * left_ns
            if work < held:
                passed_ns += time_of(work, now, end, left_ns)
                break
            work -= held
            at[BEGIN_NS] += at[LASTS_NS]
            at[VISIT] += 1
            at[LASTS_NS] = 0
            passed_ns = 0.0
        intended_ns[i] = at[BEGIN_NS] + np.int64(passed_ns)
    shape.passed_ns[0] = passed_ns


@kernel(void(int64[::1], int8[::1], int64, int64[::1]))
def follow(intended_ns, operation, kind, last_ns):
    """Spread instants, drawn for all but the operations of one kind, so that each of those comes with the one before it.

    The instants stand at the beginning of `intended_ns`. A flush is due when the write is that it makes durable, and must not
    take a write's turn.
    """
    drawn = np.int64(0)
    for i in range(operation.size):
        drawn += operation[i] != kind
    before_ns = last_ns[0]
    if drawn > 0:
        last_ns[0] = intended_ns[drawn - 1]
    for i in range(operation.size - 1, -1, -1):
        if operation[i] != kind:
            drawn -= 1
            intended_ns[i] = intended_ns[drawn]
        else:
            intended_ns[i] = intended_ns[drawn - 1] if drawn > 0 else before_ns
    assert drawn == 0


@kernel(void(int64[::1]))
def closed(intended_ns):
    """A closed loop starts a write when another completes: no instants, all zero."""
    intended_ns[:] = 0


@kernel(void(int64[::1], float64, boolean, int64, int64, int64))
def think(intended_ns, mean_ns, at_random, every, seed, first):
    """What the caller of a closed loop thinks before every n-th write, in ns: always as long, or exponential."""
    key = np.uint64(key_of(seed, THINK))
    for i in range(intended_ns.size):
        number = first + i
        thought_ns = 0.0
        if number > 0 and number % every == 0:
            thought_ns = -mean_ns * math.log(open_unit_of(key, number)) if at_random else mean_ns
        intended_ns[i] = np.int64(thought_ns)
