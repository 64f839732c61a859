"""Change points: the same as the plainest Python finds, rare in noise, at the right place after a step, and once final, final."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import bdtr, bdtrc

from farwrite.compare.change_points import (
    LOOKBACK,
    P_MAX,
    SEGMENT_MIN,
    SERIES_MIN,
    WINDOW,
    change_points,
    energy,
    p_value,
)
from oracle import change_oracle

NOISE = 0.02


def series(seed, count, *steps, noise=NOISE):
    """Noise around 1 whose logarithm is raised by `size` from `index` on, for every (index, size) of `steps`."""
    logs = noise * np.random.default_rng(seed).standard_normal(count)
    for index, size in steps:
        logs[index:] += size
    return np.exp(logs).tolist()


def indices(values):
    return [found.index for found in change_points(values)]


def random_story(seed):
    """A series of random length with random steps, trends and outliers."""
    dice = np.random.default_rng(seed)
    count = int(dice.integers(0, 150))
    steps = [(int(dice.integers(0, count + 1)), float(dice.normal(0, 0.08))) for _ in range(dice.integers(0, 6))]
    values = np.array(series(seed, count, *steps))
    values *= np.exp(np.linspace(0, dice.choice([0, 0, 0.2]), count))
    return (values * np.where(dice.random(count) < 0.04, dice.choice([1, 1.5]), 1)).tolist()


def test_two_steps_are_where_ruptures_finds_them():
    """ruptures (Truong, Oudre, Vayatis, Signal Processing 2020) is told how many there are and minimises squared errors: another
    method and another's code."""
    import ruptures

    for seed in range(40):
        dice = np.random.default_rng(seed)
        first, second, rest = dice.integers((15, 25, 15), (30, 45, 40))
        steps = dice.uniform(0.06, 0.2, 2) * dice.choice([-1, 1], 2)
        values = series(seed, first + second + rest, (first, steps[0]), (first + second, steps[1]))
        search = ruptures.KernelCPD(kernel="linear", min_size=4).fit(np.log(values)[:, None])
        assert indices(values) == search.predict(n_bkps=2)[:-1]


@pytest.mark.parametrize("seed", range(20))
def test_the_changes_are_those_of_the_plainest_python(seed):
    values = random_story(seed)
    assert [(found.index, found.final) for found in change_points(values)] == change_oracle.change_points(values)


@pytest.mark.parametrize("seed", range(20, 30))
def test_series_with_zeros_and_negatives_are_compared_by_differences_as_in_the_plainest_python(seed):
    values = [1000 * math.log(value) for value in random_story(seed)]
    found = change_points(values)
    assert [(one.index, one.final) for one in found] == change_oracle.change_points(values)
    assert not any(one.relative for one in found)


@pytest.mark.parametrize("seed", range(10))
def test_energy_and_p_are_those_of_the_plainest_python(seed):
    part = np.log(series(seed, 30, (17, 0.03)))
    plain = part.tolist()
    for cut, statistic in zip(range(SEGMENT_MIN, 30 - SEGMENT_MIN + 1), energy(part), strict=True):
        assert statistic == pytest.approx(change_oracle.energy(plain[:cut], plain[cut:]), abs=1e-12)
        expected = change_oracle.p_value(plain[:cut], plain[cut:])
        assert p_value(part[:cut], part[cut:]) == pytest.approx(expected, rel=1e-6)


# What it is for


@pytest.mark.parametrize("size", [0.1, -0.1])
def test_a_step_of_ten_percent_is_found_where_it_is(size):
    found = [indices(series(seed, 60, (30, math.log1p(size)))) for seed in range(60)]
    assert sum(one == [30] for one in found) >= 56
    assert sum(any(abs(index - 30) <= 1 for index in one) for one in found) == 60


def test_a_step_of_ten_percent_is_found_as_soon_as_four_runs_stand_on_it():
    found = [indices(series(seed, 30 + SEGMENT_MIN, (30, math.log1p(0.1)))) for seed in range(60)]
    assert sum(one == [30] for one in found) >= 54


def test_a_step_of_three_percent_needs_twenty_runs():
    found = [indices(series(seed, 50, (30, math.log1p(0.03)))) for seed in range(60)]
    assert sum(bool(one) for one in found) >= 50


def test_two_steps_are_two_changes():
    found = [indices(series(seed, 120, (35, 0.1), (80, -0.07))) for seed in range(30)]
    near = [len(one) == 2 and abs(one[0] - 35) <= 1 and abs(one[1] - 80) <= 2 for one in found]
    assert sum(near) >= 27


def test_a_level_that_comes_and_goes_is_two_changes():
    found = [indices(series(seed, 60, (25, 0.1), (35, -0.1))) for seed in range(30)]
    assert sum(len(one) == 2 and abs(one[0] - 25) <= 1 and abs(one[1] - 35) <= 1 for one in found) >= 26


@pytest.mark.parametrize("count", [30, 100])
def test_noise_alone_reports_a_change_in_one_series_of_fifty_at_most(count):
    alarms = sum(bool(indices(series(seed, count))) for seed in range(200))
    assert bdtrc(alarms - 1, 200, 0.02) > 0.01 if alarms else True  # One-sided: not more than 2 %.


@pytest.mark.parametrize("place", range(0, 100, 11))
@pytest.mark.parametrize("factor", [0.1, 2.0])
def test_an_outlier_alone_is_not_a_change(place, factor):
    for seed in range(1000, 1004):  # Series that report nothing without it.
        values = series(seed, 100)
        assert not indices(values)
        values[place] *= factor
        assert not indices(values)


def test_an_outlier_and_its_three_neighbours_are_not_a_new_level():
    for seed in range(20):
        values = series(seed, 34)
        values[30] *= 2
        assert not indices(values)


@pytest.mark.parametrize("growth", [0.3, -0.3])
def test_a_trend_is_steps_in_its_direction(growth):
    values = np.array(series(1, 100)) * np.exp(np.linspace(0, growth, 100))
    found = change_points(values.tolist())
    assert len(found) >= 3
    assert all((one.change.value > 0) == (growth > 0) for one in found)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3.7, 1e-300, 1e300])
@pytest.mark.parametrize("count", [0, 1, SERIES_MIN, WINDOW, 137])
def test_a_constant_series_has_no_change(value, count):
    assert indices([value] * count) == []


@pytest.mark.parametrize(("before", "after"), [(1.0, 1.5), (0.0, 3.0), (5.0, 0.0), (-1.0, 1.0)])
def test_counted_values_without_noise_change_where_they_change(before, after):
    for where in (SEGMENT_MIN, 20, 70):
        (found,) = change_points([before] * where + [after] * 25)
        assert found.index == where
        assert found.p == pytest.approx(0, abs=1e-12)


def test_a_change_of_less_than_two_percent_is_none_however_certain():
    assert indices([100.0, 100.001] * 20 + [101.9, 101.901] * 20) == []
    assert indices([100.0, 100.001] * 20 + [102.1, 102.101] * 20) == [40]


def test_fewer_runs_than_two_levels_need_have_no_change():
    assert indices([1.0] * SEGMENT_MIN + [2.0] * (SEGMENT_MIN - 1)) == []
    assert indices([1.0] * SEGMENT_MIN + [2.0] * SEGMENT_MIN) == [SEGMENT_MIN]


# What is said of a change


def test_a_change_is_told_with_both_levels_and_an_interval():
    (found,) = change_points(series(3, 60, (30, math.log1p(0.09))))
    assert found.relative
    assert found.change.low < 0.09 < found.change.high
    assert found.before.low < 1 < found.before.high
    assert found.after.low < 1.09 < found.after.high
    assert found.after.value / found.before.value - 1 == pytest.approx(found.change.value)
    assert (found.before.count, found.after.count) == (30, 30)
    assert found.p < P_MAX


def test_the_interval_of_a_step_holds_it_about_as_often_as_it_says():
    found = [one for seed in range(80) for one in change_points(series(seed, 40, (20, 0.1))) if one.index == 20]
    held = sum(one.change.low < math.expm1(0.1) < one.change.high for one in found)
    assert bdtr(held, len(found), 0.95) > 0.01


@pytest.mark.parametrize("seed", range(10))
def test_the_unit_of_the_values_does_not_matter(seed):
    values = random_story(seed)
    assert indices(values) == indices([1e6 * value for value in values])


# A series that grows


@cache
def told(seed):
    """(what is said of every beginning of a series, by its length)."""
    values = random_story(seed) + series(seed + 1, 60, (10, 0.06), (40, -0.09))
    return [change_points(values[:count]) for count in range(len(values) + 1)]


@pytest.mark.parametrize("seed", range(1, 4))
def test_a_final_change_is_told_the_same_forever(seed):
    for earlier, later in pairwise([[one for one in found if one.final] for found in told(seed)]):
        assert later[: len(earlier)] == earlier


@pytest.mark.parametrize("seed", range(1, 4))
def test_what_is_said_of_runs_long_before_the_end_is_final_and_complete(seed):
    for count, (earlier, later) in enumerate(pairwise(told(seed))):
        old = [one for one in earlier if one.index + WINDOW + LOOKBACK <= count]
        assert all(one.final for one in old)
        assert [one for one in later if one.index + WINDOW + LOOKBACK <= count] == old


def test_a_small_step_beside_a_large_one_is_none():
    level = [100.0 * (1 + 0.0001 * (index % 3)) for index in range(12)]
    series = [*level, *(1.015 * value for value in level), *(1.3 * value for value in level)]
    found = change_points(series)
    assert [change.index for change in found] == [24]
    assert [change.index for change in change_points([*level, *(1.025 * value for value in level)])] == [12]


def test_a_level_has_four_runs():
    assert indices([1.0] * 4 + [2.0] * 4) == [4] and indices([1.0] * 4 + [2.0] * 3) == []
