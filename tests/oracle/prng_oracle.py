"""SplitMix64 one step after the other, in whole numbers, after Vigna's splitmix64.c."""

from itertools import islice

WORD = 1 << 64
GAMMA = 0x9E3779B97F4A7C15


def mix(value):
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % WORD
    value = (value ^ value >> 27) * 0x94D049BB133111EB % WORD
    return value ^ value >> 31


def sequence(key):
    """Endless uint64s."""
    state = key
    while True:
        state = (state + GAMMA) % WORD
        yield mix(state)


def nth(key, index):
    """The number at `index`, by walking there."""
    return next(islice(sequence(key), index, None))


def key_of(seed, stream):
    return nth(mix(seed % WORD), stream)


def random_at(seed, stream, index):
    return nth(key_of(seed, stream), index)


def unit(value):
    return (value >> 11) / (1 << 53)


def open_unit(value):
    return (2 * (value >> 12) + 1) / (1 << 53)
