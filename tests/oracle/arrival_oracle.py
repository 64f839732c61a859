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
