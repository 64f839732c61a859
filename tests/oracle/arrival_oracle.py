"""Instants from exact fractions, every one from the beginning."""

import math
from fractions import Fraction
from itertools import accumulate, islice

from oracle import prng_oracle

ARRIVAL = 1


def fixed(rate_per_s, count):
    """`rate_per_s` is a Fraction."""
    return [n * 10**9 * rate_per_s.denominator // rate_per_s.numerator for n in range(count)]


def poisson(rate_per_s, seed, count):
    units = (prng_oracle.open_unit(value) for value in prng_oracle.sequence(prng_oracle.key_of(seed, ARRIVAL)))
    gaps = [Fraction(-math.log(unit) * (10**9 / rate_per_s)) for unit in islice(units, count)]
    return [math.floor(instant) for instant in accumulate(gaps)]


def rate_at(stretches, when_ns):
    """Writes per ns at one instant; a stretch is (lasts_ns, begin_per_s, end_per_s), and they come over and over."""
    when_ns %= sum(lasts for lasts, _, _ in stretches)
    for lasts, begin, end in stretches:
        if when_ns < lasts:
            return (begin + (end - begin) * when_ns / lasts) / 10**9
        when_ns -= lasts
    raise AssertionError


def due_until(stretches, until_ns, step_ns):
    """How many writes are due until an instant, by adding up small steps (the rate in the middle of each)."""
    steps = int(until_ns // step_ns)
    return sum(rate_at(stretches, (step + 0.5) * step_ns) * step_ns for step in range(steps))


def follow(instants, operations, kind):
    """Every operation of a kind comes with whatever came before it."""
    left, last, spread = list(instants), 0, []
    for operation in operations:
        if operation != kind:
            last = left.pop(0)
        spread.append(last)
    return spread
