"""When each write of a round should start: ns since the round's start, drawn in blocks with the state carried.

The plan uses it. A fixed rate never drifts, a Poisson process never goes back, and a closed loop has no instants of its
own, so all are zero; who waits for them, and how late they came to be issued, is left to the load.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numba
import numpy as np
from numba import int64, void

from .jit import kernel
from .prng_kernel import ARRIVAL, key_of, open_unit_of
from .units import NS_PER_S

# Kinds of arrival.
CLOSED, FIXED, POISSON = 0, 1, 2

# Indices into Arrivals.at.
NEXT_NS, REMAINDER, PERIOD_NS, PERIOD_REST, PERIOD_PARTS = range(5)

# Indices into Arrivals.gap.
MEAN_NS, FRACTION_NS = range(2)

# 1/3 and 5/3 per second reach us as floats; the fraction that was meant has a small denominator. Together with the
# greatest rate it keeps every product below 2^62.
DENOMINATOR_MAX = 1_000_000


class Arrivals(NamedTuple):
    """Where the drawing of instants stands; indices above."""

    at: np.ndarray  # int64, the next fixed instant and the exact period: PERIOD_NS + PERIOD_REST / PERIOD_PARTS
    gap: np.ndarray  # float64, the mean gap of a Poisson process and the part of a ns carried since the last instant

    @classmethod
    def at_rate(cls, rate_per_s: float) -> Arrivals:
        """Before the first instant; the rate is read as the simplest fraction it can stand for."""
        period = NS_PER_S / Fraction(rate_per_s).limit_denominator(DENOMINATOR_MAX)
        whole, rest = divmod(period.numerator, period.denominator)
        return cls(np.array([0, 0, whole, rest, period.denominator], np.int64), np.array([NS_PER_S / rate_per_s, 0.0]))


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


@kernel(void(int64[::1]))
def closed(intended_ns):
    """A closed loop starts a write when another completes: no instants, all zero."""
    intended_ns[:] = 0
