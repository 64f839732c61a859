"""Warm-up is found where there is one and not where there is none; a trend that matters is called one."""

import math

import numpy as np
import pytest
from scipy import stats

from farwrite.analysis.sample import decode
from farwrite.analysis.steady import (
    SLICE_WRITES_MIN,
    growth_ratio,
    mser,
    normal_tail,
    rank_sum_p,
    relative,
    steadiness_of,
    trends,
    warmup_slices,
)
from farwrite.base.histogram import Histogram


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
    found = steadiness_of(rounds_of(seed, shape=shape))
    assert found.dropped == warm
    assert found.steady


def test_a_warm_up_that_decays_is_dropped_while_it_matters():
    found = steadiness_of(rounds_of(1, shape=1 + np.exp2(-np.arange(10.0))))
    assert 2 <= found.dropped <= 5
    assert found.steady


def test_noise_is_hardly_ever_taken_for_a_warm_up_or_a_trend():
    found = [steadiness_of(rounds_of(seed, noise=0.3)) for seed in range(50)]
    assert sum(item.dropped > 0 for item in found) <= 2
    assert sum(item.steady is not True for item in found) <= 1


def test_one_spike_in_one_round_is_no_warm_up():
    rounds = rounds_of(2)
    rounds[3][0] = rounds_of(9, shape=np.full(10, 20.0))[0][0]
    assert steadiness_of(rounds).dropped == 0


def test_fast_leading_slices_are_kept():
    found = steadiness_of(rounds_of(3, shape=np.where(np.arange(10) < 2, 0.7, 1.0)))
    assert found.dropped == 0


def test_a_warm_up_in_the_slower_writes_alone_is_found():
    rounds = rounds_of(4, writes=100)
    dice = np.random.default_rng(4)
    for slices in rounds:
        values = 3e5 * np.exp(0.1 * dice.standard_normal(100))
        values[:20] *= 4
        slices[0] = decode(Histogram.of(values.astype(int)).encode())
    assert steadiness_of(rounds).dropped >= 1


@pytest.mark.parametrize("growth", [0.3, -0.3])
def test_a_cell_that_trends_is_not_steady(growth):
    found = steadiness_of(rounds_of(5, shape=1 + growth * np.arange(10) / 9))
    assert found.steady is False
    assert np.sign(found.growth_ratio) == np.sign(growth)


def test_a_trend_too_small_to_matter_is_steady():
    assert steadiness_of(rounds_of(6, noise=0.01, mood=0.0, writes=200, shape=1 + 0.03 * np.arange(10) / 9)).steady is True


@pytest.mark.parametrize("rounds", [[], [[]], rounds_of(1, writes=3), rounds_of(1, slices=3)])
def test_too_few_writes_or_slices_give_no_opinion(rounds):
    found = steadiness_of(rounds)
    assert (found.dropped, found.steady, found.growth_ratio) == (0, None, 0.0)


def test_mser_finds_the_step():
    assert mser(np.array([5.0, 5.0, 1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.0, 1.0])) == 2
    assert mser(np.array([5.0, np.nan, 1.0, 1.1, 0.9, 1.0])) in (1, 2)


def alike(median_us, writes=SLICE_WRITES_MIN):
    """A slice whose writes all took as long."""
    return decode(Histogram.of(np.full(math.ceil(writes), 1000 * median_us)).encode())


def few():
    """A slice that has one write less than a median needs."""
    return alike(4, math.ceil(SLICE_WRITES_MIN) - 1)


def test_each_slice_is_seen_relative_to_the_second_half_of_its_own_round_as_far_as_it_has_writes():
    found = relative([
        [alike(8), alike(4), alike(4), alike(2), alike(2), alike(2)],
        [alike(4), alike(4), alike(4), few(), few(), alike(2)],
        [alike(4), alike(2), alike(4), few(), few(), few()],
        [few()] * 6,
    ], 0.5)  # fmt: skip
    expected = np.log([[4, 2, 2, 1, 1, 1], [2, 2, 2, np.nan, np.nan, 1], [1, 0.5, 1] + [np.nan] * 3, [np.nan] * 6])
    assert found == pytest.approx(expected, abs=0.002, nan_ok=True)


def test_rounds_of_unequal_length_are_judged_as_far_as_all_of_them_reach():
    rounds = rounds_of(7)
    rounds[2] = rounds[2][:6]
    assert steadiness_of(rounds) == steadiness_of([slices[:6] for slices in rounds])


def test_four_slices_with_enough_writes_in_each_round_are_enough_for_an_opinion_and_fewer_are_not():
    rounds = rounds_of(8, slices=6)
    assert steadiness_of([slices[:4] for slices in rounds]).steady is True
    rounds[1][1] = rounds[1][4] = few()
    assert steadiness_of(rounds).steady is True
    rounds[1][5] = few()
    assert steadiness_of(rounds).steady is None


@pytest.mark.parametrize(("growth", "steady"), [(0.04, True), (0.06, False)])
def test_what_grows_by_more_than_five_percent_matters_where_chance_does_not_explain_it(growth, steady):
    shape = 1 + growth * np.arange(10) / 9
    assert steadiness_of(rounds_of(9, noise=0.001, mood=0.0, shape=shape)).steady is steady
    once = steadiness_of(rounds_of(9, rounds=1, slices=4, noise=0.001, mood=0.0, shape=1 + 3 * growth * np.arange(4) / 3))
    assert once.steady is True and once.growth_ratio > 0.05  # Four values in a row rise by chance.


@pytest.mark.parametrize(("slower", "dropped"), [(0.04, 0), (0.06, 2)])
def test_a_warm_up_is_dropped_where_it_is_more_than_five_percent_slower(slower, dropped):
    shape = np.where(np.arange(10) < 2, 1 + slower, 1.0)
    assert steadiness_of(rounds_of(10, noise=0.001, mood=0.0, shape=shape)).dropped == dropped


@pytest.mark.parametrize(("swaps", "trending"), [(6, True), (7, False)])  # p = 0.0042 and 0.0073, of Kendall's score 33 and 31.
def test_a_trend_is_one_that_chance_gives_once_in_two_hundred(swaps, trending):
    values = list(range(10))
    for place in range(swaps // 2):
        values[3 * place : 3 * place + 3] = values[3 * place : 3 * place + 3][1:] + values[3 * place : 3 * place + 1]
    if swaps % 2:
        values[8:] = values[:7:-1]
    score = sum(np.sign(after - before) for index, before in enumerate(values) for after in values[index + 1 :])
    assert score == 45 - 2 * swaps
    assert trends(np.array([values], float)) is trending


def test_a_slice_that_no_round_has_writes_in_hides_no_warm_up():
    table = relative(rounds_of(11, shape=np.where(np.arange(10) < 2, 1.5, 1.0)), 0.5)
    table[:, 7] = np.nan
    assert warmup_slices(table) == 2


@pytest.mark.parametrize("seed", range(5))
def test_how_high_leading_slices_rank_is_mann_and_whitneys_test(seed):
    dice = np.random.default_rng(seed)
    leading, rest = dice.normal(0.5, 1, int(dice.integers(2, 9))), dice.normal(0, 1, int(dice.integers(5, 20)))
    known = stats.mannwhitneyu(leading, rest, alternative="greater", method="asymptotic")
    assert rank_sum_p(leading, rest) == pytest.approx(known.pvalue)
    assert rank_sum_p(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == pytest.approx(stats.norm.sf(-0.5 / math.sqrt(4 * 5 / 12)))
    assert normal_tail(1.3) == pytest.approx(stats.norm.sf(1.3))


@pytest.mark.parametrize("seed", range(5))
def test_a_truncation_leaves_the_smallest_marginal_standard_error(seed):
    series = np.random.default_rng(seed).normal(0, 1, 9 + seed)
    series[:2] += 4
    series[5] = math.nan

    def error(dropped):
        rest = [value for value in series[dropped:] if not math.isnan(value)]
        return sum((value - np.mean(rest)) ** 2 for value in rest) / len(rest) ** 2

    assert mser(series) == min(range(series.size // 2 + 1), key=error)
    assert mser(np.array([5.0, 1.0])) == 0  # One value has no error.


def test_growth_is_the_median_slope_of_all_pairs_from_the_first_slice_to_the_last():
    slope = math.log(1.1) / 4
    rising = slope * np.arange(5.0)
    rows = np.array([rising, rising + 7, [0.0, math.nan, 2 * slope, 3 * slope, math.nan]])
    assert growth_ratio(rows) == pytest.approx(0.1) and growth_ratio(-rows) == pytest.approx(1 / 1.1 - 1)
    slopes = [0.1, 0.5 / 2, 0.5 / 3, 0.4, 0.4 / 2, 0.0]
    assert growth_ratio(np.array([[0.0, 0.1, 0.5, 0.5]])) == pytest.approx(math.expm1(3 * np.median(slopes)))
    assert growth_ratio(np.full((2, 4), math.nan)) == 0.0


@pytest.mark.parametrize(("rows", "trending"), [
    ([[1, 2, 3, 4, 5, 6]], False), ([[1, 2, 3, 4, 5, 6, 7]], True), ([[7, 6, 5, 4, 3, 2, 1]], True), ([[1] * 9, [2] * 9], False),
    ([[1, 2, 3, 4]] * 2, False), ([[1, 2, 3, 4], [5, 6, 7, 8], [0, 1, 2, 9]], True), ([[1, 2, 3, 4], [8, 7, 6, 5]] * 2, False),
    ([[math.nan] * 4], False), ([[4, 3, 2, 1, 6, 5, 8, 7, 10, 9, 11]], False), ([[3, 2, 1, 4, 6, 5, 8, 7, 10, 9, 11]], True),
    ([[1, math.nan, 2, 3, 4, 5, math.nan, 6, 7]], True),
])  # fmt: skip
def test_a_trend_is_kendalls_over_all_rows_together(rows, trending):
    """Mann 1945: the score's variance is n (n - 1) (2 n + 5) / 18 a row; one is taken off for continuity."""
    score = variance = 0.0
    for row in rows:
        values = [value for value in row if not math.isnan(value)]
        score += sum(np.sign(b - a) for place, a in enumerate(values) for b in values[place + 1 :])
        variance += len(values) * (len(values) - 1) * (2 * len(values) + 5) / 18
    by_hand = variance > 0 and 2 * stats.norm.sf((abs(score) - 1) / math.sqrt(variance)) < 0.005
    assert trends(np.array(rows, float)) == by_hand == trending


def test_a_slow_slice_that_chance_explains_is_no_warm_up():
    assert warmup_slices(np.array([[0.2, 0.0, 0.01, -0.01, 0.0, 0.005, 0.0, 0.0]])) == 0
    assert mser(np.array([5.0, 5.0, 1.0, 1.0])) == 2  # Two that are left have an error.
