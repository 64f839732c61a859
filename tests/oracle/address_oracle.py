"""Addresses one at a time; Zipf as its closed form; the scattering as a table that one could also look up."""

from fractions import Fraction
from itertools import islice
from math import floor, log

from oracle import prng_oracle

ADDRESS = 2


def sequential(sizes, volume_bytes, alignment_bytes, streams=1, stride=0):
    part = volume_bytes
    while streams > 1 and (part * streams > volume_bytes or part % alignment_bytes):
        part -= 1
    position, addresses = [stream * part for stream in range(streams)], []
    for number, size in enumerate(sizes):
        stream = number % streams
        address = position[stream]
        if address + size > (stream + 1) * part:
            address = stream * part
        addresses.append(address)
        address += (stride or size) if size else 0
        while address % alignment_bytes:
            address += 1
        position[stream] = address
    return addresses


def pareto_below(share, fraction):
    """The probability of the commonest `fraction` of all places."""
    return fraction ** (log(1 - share) / log(share))


def banded(bands, places):
    """(share, first place, place behind the last) of each band."""
    total, space = sum(share for share, _ in bands), sum(part for _, part in bands)
    ends = [floor(sum(part for _, part in bands[: index + 1]) / space * places + 0.5) for index in range(len(bands))]
    return [(share / total, begin, end) for (share, _), begin, end in zip(bands, [0, *ends], ends, strict=False)]


def uniform(seed, places, alignment_bytes, count):
    draws = islice(prng_oracle.sequence(prng_oracle.key_of(seed, ADDRESS)), count)
    return [int(Fraction(prng_oracle.unit(draw)) * places) * alignment_bytes for draw in draws]


def zipf_probabilities(places, skew):
    weights = [rank**-skew for rank in range(1, places + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


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
