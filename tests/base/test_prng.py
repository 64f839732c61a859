"""The generator against SplitMix64 walked step by step, and against what is published about it."""

from itertools import islice, product

import numpy as np
import pytest

from both_ways import both_ways
from farwrite.base import prng_kernel
from oracle import prng_oracle

SEEDS = [0, 1, 1234567, -1, 2**63 - 1, -(2**63)]


@pytest.mark.parametrize("random_of", both_ways(prng_kernel.random_of))
def test_the_sequence_of_a_key_is_the_published_one(random_of):
    # rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64
    published = [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip
    assert [int(random_of(np.uint64(1234567), index)) for index in range(5)] == published


@pytest.mark.parametrize("mix", both_ways(prng_kernel.mix))
@pytest.mark.parametrize("value", [0, 1, 2**63, 2**64 - 1, 0x9E3779B97F4A7C15])
def test_mixing_agrees_with_whole_numbers(mix, value):
    assert int(mix(np.uint64(value))) == prng_oracle.mix(value)


@pytest.mark.parametrize("random_at", both_ways(prng_kernel.random_at))
@pytest.mark.parametrize("seed", SEEDS)
def test_any_index_is_entered_without_walking_there(random_at, seed):
    for stream in (prng_kernel.ARRIVAL, prng_kernel.PAYLOAD):
        walked = list(islice(prng_oracle.sequence(prng_oracle.key_of(seed, stream)), 40))
        assert [int(random_at(np.int64(seed), stream, index)) for index in range(40)] == walked


@pytest.mark.parametrize("unit_of", both_ways(prng_kernel.unit_of))
@pytest.mark.parametrize("open_unit_of", both_ways(prng_kernel.open_unit_of))
@pytest.mark.parametrize("seed", SEEDS)
def test_units_are_the_top_bits(unit_of, open_unit_of, seed):
    key = np.uint64(prng_oracle.key_of(seed, 3))
    for index in range(30):
        value = prng_oracle.random_at(seed, 3, index)
        assert unit_of(key, index) == prng_oracle.unit(value)
        assert open_unit_of(key, index) == prng_oracle.open_unit(value)


def test_an_open_unit_touches_neither_end():
    assert prng_oracle.open_unit(0) > 0 and prng_oracle.open_unit(2**64 - 1) < 1


def test_streams_and_seeds_are_independent():
    everything = product(range(20), range(1, 6), range(50))
    draws = {prng_kernel.random_at(seed, stream, index) for seed, stream, index in everything}
    assert len(draws) == 20 * 5 * 50
