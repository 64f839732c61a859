"""Warm-up is found where there is one and not where there is none; a trend that matters is called one."""

import numpy as np
import pytest

from farwrite.analysis.sample import decode
from farwrite.analysis.steady import judge, mser
from farwrite.histogram import Histogram


def rounds_of(seed, rounds=5, slices=10, writes=60, noise=0.1, mood=0.05, shape=None):
    """Slices of lognormal writes; `shape[s]` multiplies slice s."""
    dice = np.random.default_rng(seed)
    shape = np.ones(slices) if shape is None else shape
    return [
        [
            decode(Histogram.of((3e5 * level * part * np.exp(noise * dice.standard_normal(writes))).astype(int)).encode())
            for part in shape
        ]
        for level in np.exp(mood * dice.standard_normal(rounds))
    ]


@pytest.mark.parametrize("warm", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_slow_leading_slices_are_dropped(warm, seed):
    shape = np.where(np.arange(10) < warm, 1.5, 1.0)
    found = judge(rounds_of(seed, shape=shape))
    assert found.dropped == warm
    assert found.steady


def test_a_warm_up_that_decays_is_dropped_while_it_matters():
    found = judge(rounds_of(1, shape=1 + np.exp2(-np.arange(10.0))))
    assert 2 <= found.dropped <= 5
    assert found.steady


def test_noise_is_hardly_ever_taken_for_a_warm_up_or_a_trend():
    found = [judge(rounds_of(seed, noise=0.3)) for seed in range(50)]
    assert sum(item.dropped > 0 for item in found) <= 2
    assert sum(item.steady is not True for item in found) <= 1


def test_one_spike_in_one_round_is_no_warm_up():
    rounds = rounds_of(2)
    rounds[3][0] = rounds_of(9, shape=np.full(10, 20.0))[0][0]
    assert judge(rounds).dropped == 0


def test_fast_leading_slices_are_kept():
    found = judge(rounds_of(3, shape=np.where(np.arange(10) < 2, 0.7, 1.0)))
    assert found.dropped == 0


def test_a_warm_up_in_the_slower_writes_alone_is_found():
    rounds = rounds_of(4, writes=100)
    dice = np.random.default_rng(4)
    for slices in rounds:
        values = 3e5 * np.exp(0.1 * dice.standard_normal(100))
        values[:20] *= 4
        slices[0] = decode(Histogram.of(values.astype(int)).encode())
    assert judge(rounds).dropped >= 1


@pytest.mark.parametrize("growth", [0.3, -0.3])
def test_a_cell_that_trends_is_not_steady(growth):
    found = judge(rounds_of(5, shape=1 + growth * np.arange(10) / 9))
    assert found.steady is False
    assert np.sign(found.growth_ratio) == np.sign(growth)


def test_a_trend_too_small_to_matter_is_steady():
    assert judge(rounds_of(6, noise=0.01, mood=0.0, writes=200, shape=1 + 0.03 * np.arange(10) / 9)).steady is True


@pytest.mark.parametrize("rounds", [[], [[]], rounds_of(1, writes=3), rounds_of(1, slices=3)])
def test_too_few_writes_or_slices_give_no_opinion(rounds):
    found = judge(rounds)
    assert (found.dropped, found.steady) == (0, None)


def test_mser_finds_the_step():
    assert mser(np.array([5.0, 5.0, 1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.0, 1.0])) == 2
    assert mser(np.array([5.0, np.nan, 1.0, 1.1, 0.9, 1.0])) in (1, 2)
