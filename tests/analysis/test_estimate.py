"""Intervals contain what they promise to contain, and what a sample cannot say is not said."""

import numpy as np
import pytest

from farwrite.analysis.estimate import (
    Draws,
    count_needed,
    from_replicates,
    interval_of_replicates,
    label,
    listed,
    loss_probability_high,
    mean_over_rounds,
    order_statistic_ranks,
)
from farwrite.base.reasons import few_rounds, few_values, no_round, remark, sentences


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


# To the last digit


def stretched(rounds):
    """How far the ends move from the value: sqrt(n / (n - 1)) and Student's t for the normal distribution's 1.96."""
    from scipy.stats import norm, t

    return np.sqrt(rounds / (rounds - 1)) * t.ppf(0.975, rounds - 1) / norm.ppf(0.975)


@pytest.mark.parametrize("rounds", [3, 5, 12])
def test_the_ends_are_the_percentiles_stretched_about_the_value(rounds):
    replicates = np.random.default_rng(1).permutation(np.arange(1000.0))
    low, high, confidence = interval_of_replicates(replicates, rounds, 400.0)
    assert low == pytest.approx(400 + stretched(rounds) * (24 - 400), rel=1e-6)  # floor(0.025 * 999)
    assert high == pytest.approx(400 + stretched(rounds) * (975 - 400), rel=1e-6)  # ceil(0.975 * 999)
    assert confidence == 0.95
    low, high, _ = interval_of_replicates(replicates, rounds, 400.0, positive=True)
    assert low == pytest.approx(400 * (24 / 400) ** stretched(rounds), rel=1e-6)
    assert high == pytest.approx(400 * (975 / 400) ** stretched(rounds), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e-6, 1e6])
def test_ratios_and_times_are_stretched_alike(scale):
    """An efficiency lies below 1: that too is above 0, and has a logarithm."""
    plain = interval_of_replicates(np.arange(100.0, 1100.0), 5, 400.0, positive=True)
    scaled = interval_of_replicates(scale * np.arange(100.0, 1100.0), 5, scale * 400.0, positive=True)
    assert scaled[:2] == (pytest.approx(scale * plain[0]), pytest.approx(scale * plain[1]))


def test_ends_enclose_the_value_and_what_cannot_be_negative_is_not():
    above, below = np.arange(500.0, 600.0), np.arange(0.0, 100.0)
    low, high, _ = interval_of_replicates(above, 5, 400.0)
    assert low == 400.0 and high > 597
    low, high, _ = interval_of_replicates(above, 5, 400.0, positive=True)
    assert low == 400.0 and high == pytest.approx(400 * (597 / 400) ** stretched(5), rel=1e-6)
    low, high, _ = interval_of_replicates(below, 5, 400.0)
    assert low < 2 and high == 400.0
    low, high, _ = interval_of_replicates(below, 5, 400.0, positive=True)
    assert 0 < low < 2 and high == 400.0
    around = np.arange(-50.0, 50.0)
    assert interval_of_replicates(around, 5, 1.0)[0] < -48
    assert interval_of_replicates(around, 5, 1.0, positive=True)[:2] == (0.0, interval_of_replicates(around, 5, 1.0)[1])
    assert interval_of_replicates(np.zeros(9), 5, 1.0, positive=True)[0] == 0.0


def test_replicates_that_are_no_numbers_are_left_out_and_infinite_ones_are_not():
    values = np.array([np.nan] * 500 + list(np.arange(1000.0)))
    assert interval_of_replicates(values, 5, 400.0) == interval_of_replicates(np.arange(1000.0), 5, 400.0)
    assert interval_of_replicates(np.full(10, np.nan), 5, 1.0) is None
    assert interval_of_replicates(np.zeros(0), 5, 1.0) is None
    low, high, confidence = interval_of_replicates(np.array([1.0] * 90 + [np.inf] * 10), 5, np.inf)
    assert (low, high, confidence) == (1.0, np.inf, 0.95)
    assert interval_of_replicates(np.array([1.0] * 90 + [np.inf] * 10), 5, 1.0)[1] == np.inf


@pytest.mark.parametrize(("rounds", "least", "known"), [(1, 2, False), (2, 2, True), (2, 3, False), (3, 3, True), (3, 4, False)])
def test_there_is_no_interval_below_the_least_number_of_rounds(rounds, least, known):
    assert (interval_of_replicates(np.arange(100.0), rounds, 50.0, rounds_min=least) is not None) is known
    assert (interval_of_replicates(np.arange(100.0), rounds, 50.0) is not None) is (rounds >= 3)


def test_an_estimate_from_replicates_has_all_it_was_given():
    warned = remark("warned")
    replicates = np.arange(1000.0)
    found = from_replicates(400.0, replicates, 5, 77, warned, without=[1.0, None], by_round=[2.0])
    low, high, confidence = interval_of_replicates(replicates, 5, 400.0)
    assert (found.value, found.low, found.high, found.confidence, found.count) == (400.0, low, high, confidence, 77)
    assert (found.warnings, found.without, found.by_round) == ([warned], [1.0, None], [2.0])
    positive = from_replicates(400.0, replicates, 5, 77, positive=True)
    assert positive.low == interval_of_replicates(replicates, 5, 400.0, positive=True)[0] and positive.warnings == []
    two = from_replicates(400.0, replicates, 2, 77, warned, without=[1.0], by_round=[3.0])
    assert (two.low, two.high, two.count, two.without, two.by_round) == (None, None, 77, [1.0], [3.0])
    assert two.warnings == [warned, few_rounds(2)]


def test_an_infinite_value_is_not_left_outside_of_its_interval():
    found = from_replicates(np.inf, np.arange(1000.0), 5, 1)
    assert found.high == np.inf and found.low == 24
    found = from_replicates(-np.inf, np.arange(1000.0), 5, 1)
    assert found.low == -np.inf and found.high == 975


def test_values_by_round_are_stored_where_they_are_known():
    assert listed(np.array([1.0, 2.0, np.nan, np.inf, 5.0]), [0, 2, 3, 4]) == [1.0, None, None, None, 5.0]


def test_the_mean_over_rounds_knows_what_it_is_without_each():
    found = mean_over_rounds([10.0, 12.0, 14.0], [0, 2, 3])
    assert found.without == [13.0, None, 12.0, 11.0]
    assert (found.count, found.confidence, found.warnings) == (3, 0.95, [])
    assert found.value - found.low == pytest.approx(found.high - found.value)
    two = mean_over_rounds([10.0, 12.0], [0, 1])
    assert two.warnings == [few_values(2)] and two.high - two.value == pytest.approx(12.7062, rel=1e-5)
    assert two.low == 0.0  # Never below.
    assert mean_over_rounds([1.0, 2.0]).without == []
    assert mean_over_rounds([5.0]).count == 1
    assert mean_over_rounds([]).warnings == [no_round()]


def test_a_cell_that_lacks_rounds_takes_all_it_has_where_a_replicate_took_none_of_them():
    draws = Draws(3, 4)
    assert draws.times_taken.shape == (1000, 4)
    assert (draws.times_taken.sum(axis=1) == 4).all()
    assert set(np.unique(draws.times_taken)) == {0, 1, 2, 3, 4}
    weights = draws.weights([1, 3])
    none = np.flatnonzero(draws.times_taken[:, [1, 3]].sum(axis=1) == 0)
    assert none.size
    for way, members in zip(weights.ways, weights.members, strict=True):
        for member in members:
            expected = [1, 1] if member in none else draws.times_taken[member, [1, 3]].tolist()
            assert way.tolist() == expected
    assert sorted(np.concatenate(weights.members).tolist()) == list(range(1000))
    assert draws.weights([1, 3]) is weights


def test_dice_have_a_name_and_a_seed():
    draws = Draws(3, 4)
    first = draws.generator("a").random(5).tolist()
    assert draws.generator("a").random(5).tolist() == first
    assert draws.generator("b").random(5).tolist() != first
    assert Draws(4, 4).generator("a").random(5).tolist() != first
    seeds = [*range(-5, 20), 2**32, 2**40, 2**62, 2**62 + 1]
    assert len({Draws(seed, 2).generator("a").random() for seed in seeds}) == len(seeds)
    assert Draws(3, 0).times_taken.shape == (1000, 1)


@pytest.mark.parametrize(("losses", "count", "confidence"), [(0, 20, 0.9), (2, 20, 0.9), (19, 20, 0.95), (1, 2, 0.99)])
def test_a_loss_bound_is_met_with_the_probability_left(losses, count, confidence):
    from scipy.stats import binom

    assert binom.cdf(losses, count, loss_probability_high(losses, count, confidence)) == pytest.approx(1 - confidence)


@pytest.mark.parametrize("confidence", [0.8, 0.99])
def test_ranks_are_those_of_the_confidence_that_is_asked_for(confidence):
    from scipy.stats import binom

    low, high, achieved = order_statistic_ranks(500, 0.9, confidence)
    tail = (1 - confidence) / 2
    assert binom.cdf(low - 1, 500, 0.9) <= tail < binom.cdf(low, 500, 0.9)
    assert binom.sf(high - 1, 500, 0.9) <= tail < binom.sf(high - 2, 500, 0.9)
    assert confidence <= achieved < 1
    assert count_needed(0.9, confidence) == int(np.ceil(np.log(tail) / np.log(0.9)))
