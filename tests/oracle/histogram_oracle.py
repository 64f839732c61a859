"""The histogram's slots written down one after the other, and quantiles of a sorted list."""

import math
from fractions import Fraction


def slots():
    """(lowest, highest) of every slot; the last is where values without a slot go."""
    table = [(value, value) for value in range(2048)]
    width = 2
    while table[-1][1] < 2**40 - 1:
        for _ in range(1024):
            lowest = table[-1][1] + 1
            table.append((lowest, lowest + width - 1))
        width *= 2
    return [*table, (2**40, 2**40)]


def quantile(values, q):
    """`q` is a decimal in text."""
    return sorted(values)[max(math.ceil(Fraction(q) * len(values)), 1) - 1]
