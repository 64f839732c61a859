"""Intervals contain what they promise to contain, and what a sample cannot say is not said."""

import numpy as np
import pytest

from farwrite.analysis.estimate import (
    Draws,
    count_needed,
    interval_of_replicates,
    label,
    loss_probability_high,
    mean_over_rounds,
    order_statistic_ranks,
)
from farwrite.reasons import sentences


@pytest.mark.parametrize(("q", "count"), [(0.5, 6), (0.99, 368), (0.999, 3688), (0.9999, 36887), (0.01, 368)])
def test_a_quantile_needs_so_many_writes_and_not_one_less(q, count):
    assert count_needed(q) == count
    assert order_statistic_ranks(count, q) is not None
    assert order_statistic_ranks(count - 1, q) is None


@pytest.mark.parametrize("count", [6, 7, 50, 368, 1000, 20_000])
@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_the_ranks_achieve_at_least_95_percent_with_equal_tails(count, q):
    from scipy.stats import binom

    found = order_statistic_ranks(count, q)
    if found is None:
        assert count < count_needed(q)
        return
    low, high, achieved = found
    assert 1 <= low < high <= count
    assert achieved >= 0.95
    assert achieved == pytest.approx(binom.cdf(high - 1, count, q) - binom.cdf(low - 1, count, q))
    # No rank could be moved inward without breaking its tail.
    assert binom.cdf(low - 1, count, q) <= 0.025 < binom.cdf(low, count, q)
    assert binom.sf(high - 1, count, q) <= 0.025 + 1e-12
    assert binom.sf(high - 2, count, q) > 0.025


def test_the_median_of_ten_is_enclosed_by_the_second_and_the_ninth():
    assert order_statistic_ranks(10, 0.5) == (2, 9, pytest.approx(0.978515625))  # David and Nagaraja, table 7.1


@pytest.mark.parametrize("count", [1, 6, 100, 1000])
def test_no_loss_leaves_about_three_over_n_open(count):
    assert loss_probability_high(0, count) == pytest.approx(1 - 0.05 ** (1 / count))
    if count >= 100:
        assert loss_probability_high(0, count) == pytest.approx(3 / count, rel=0.02)


def test_losses_are_bounded_by_clopper_and_pearson():
    from scipy.stats import binom

    bound = loss_probability_high(2, 20)
    assert binom.cdf(2, 20, bound) == pytest.approx(0.05)
    assert loss_probability_high(6, 6) == 1.0


def test_the_mean_over_rounds_is_students():
    estimate = mean_over_rounds([10.0, 12.0, 14.0])
    assert estimate.value == 12.0
    assert estimate.high - estimate.value == pytest.approx(4.302653 * 2 / np.sqrt(3), rel=1e-6)
    assert mean_over_rounds([5.0]).low is None
    assert sentences(mean_over_rounds([5.0]).warnings) == ["one round only: no interval over rounds"]
    assert mean_over_rounds([]).value is None


def test_the_mean_of_rounds_is_covered_in_about_95_percent():
    dice = np.random.default_rng(5)
    estimates = [mean_over_rounds(dice.normal(100, 10, 5)) for _ in range(400)]
    covered = np.mean([item.low <= 100 <= item.high for item in estimates])
    assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize("rounds", [3, 5, 20])
def test_of_a_mean_the_interval_of_replicates_is_students(rounds):
    values = np.random.default_rng(rounds).normal(100, 3, rounds)
    means = np.random.default_rng(1).choice(values, (20_000, rounds)).mean(axis=1)
    low, high, confidence = interval_of_replicates(means, rounds, values.mean())
    student = mean_over_rounds(values.tolist())
    assert confidence == 0.95
    assert high - low == pytest.approx(student.high - student.low, rel=0.12)


def test_an_interval_over_few_rounds_reaches_beyond_the_extreme_ones():
    means = np.random.default_rng(1).choice([98.0, 100.0, 102.0], (1000, 3)).mean(axis=1)
    low, high, _ = interval_of_replicates(means, 3, 100.0)
    assert low < 98 and high > 102
    assert interval_of_replicates(means, 2, 100.0) is None
    for scale in (1.0, 1e-6):
        assert interval_of_replicates(means * scale, 3, 100.0 * scale, positive=True)[0] > 0


def test_replicates_take_the_same_rounds_for_every_cell():
    draws = Draws(7, 5)
    everything, some = draws.weights(range(5)), draws.weights([0, 2, 4])
    assert sum(len(members) for members in everything.members) == 1000
    assert (everything.ways.sum(axis=1) == 5).all()
    for way, members in zip(some.ways, some.members, strict=True):
        taken = draws.times_taken[members][:, [0, 2, 4]]
        assert ((taken == way).all(axis=1) | (taken.sum(axis=1) == 0)).all()
    assert Draws(7, 5).times_taken.tolist() == draws.times_taken.tolist()
    assert Draws(8, 5).times_taken.tolist() != draws.times_taken.tolist()


@pytest.mark.parametrize(("q", "name"), [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99")])
def test_quantiles_have_their_usual_names(q, name):
    assert label(q) == name
