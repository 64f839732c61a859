"""Addresses one at a time; Zipf as its closed form; the scattering as a table that one could also look up."""

from fractions import Fraction
from itertools import islice

from oracle import prng_oracle

ADDRESS = 2


def sequential(sizes, volume_bytes, alignment_bytes):
    address, addresses = 0, []
    for size in sizes:
        if address + size > volume_bytes:
            address = 0
        addresses.append(address)
        address += size
        while address % alignment_bytes:
            address += 1
    return addresses


def uniform(seed, places, alignment_bytes, count):
    draws = islice(prng_oracle.sequence(prng_oracle.key_of(seed, ADDRESS)), count)
    return [int(Fraction(prng_oracle.unit(draw)) * places) * alignment_bytes for draw in draws]


def zipf_probabilities(places, skew):
    weights = [rank**-skew for rank in range(1, places + 1)]
    return [weight / sum(weights) for weight in weights]


def scattered(places, bits, key):
    """Where each rank lands, as a list."""
    size = 1 << bits

    def turn(value, added):
        value = (value + added) * 0xD1342543DE82EF95 % size
        return value ^ value >> (bits + 1) // 2

    def step(value):
        for added in islice(prng_oracle.sequence(key), 3):
            value = turn(value, added)
        return value

    landed = []
    for rank in range(places):
        value = step(rank)
        while value >= places:
            value = step(value)
        landed.append(value)
    return landed
