"""A pool's quantiles, held against the same counted by hand from its values."""

import numpy as np
import pytest

from farwrite.analysis.estimate import Draws, interval_of_replicates, order_statistic_ranks
from farwrite.analysis.latency import Pool
from farwrite.analysis.sample import MIDDLES_NS, Sample, rank
from farwrite.base.histogram import SATURATED
from farwrite.base.reasons import effective, few_rounds, needs_effective, saturated

SLOT = 5000  # Around 10 us.


def sample_of(values):
    slot, counts = np.unique(np.asarray(values, np.int64), return_counts=True)
    return Sample(slot, counts)


def pool_of(rounds, indices=None, total=None, name="x", batches=()):
    """`rounds`: slots by round."""
    indices = list(range(len(rounds))) if indices is None else indices
    return Pool(name, indices, [sample_of(values) for values in rounds], Draws(1, total or len(rounds)), batches)


def random_rounds(seed, rounds=4, count=60):
    dice = np.random.default_rng(seed)
    return [np.sort(dice.integers(SLOT, SLOT + 40, count + 7 * number)) for number in range(rounds)]


def quantile(values, q):
    """The value of the rank, in ns."""
    return float(MIDDLES_NS[np.sort(values)[rank(len(values), q) - 1]])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_quantiles_of_all_of_each_and_of_all_but_each_are_those_of_the_values(seed, q):
    rounds = random_rounds(seed)
    pool = pool_of(rounds)
    everything = np.concatenate(rounds)
    assert (pool.count, pool.rounds) == (everything.size, 4)
    assert pool.quantile(q) == quantile(everything, q)
    assert [pool.at(place) for place in (1, 17, everything.size)] == [
        float(MIDDLES_NS[np.sort(everything)[place - 1]]) for place in (1, 17, everything.size)
    ]
    assert pool.alone(q).tolist() == [quantile(one, q) for one in rounds]
    rest = [np.concatenate(rounds[:out] + rounds[out + 1 :]) for out in range(4)]
    assert pool.without(q).tolist() == [quantile(one, q) for one in rest]
    assert pool.minimum().value == float(MIDDLES_NS[everything.min()])
    assert pool.minimum().count == everything.size


def test_a_round_that_a_pool_lacks_is_left_out_by_leaving_nothing_out():
    rounds = random_rounds(1, rounds=2)
    pool = pool_of([rounds[0], [], rounds[1]], total=5)
    assert pool.indices == [0, 2] and pool.rounds == 2
    whole = quantile(np.concatenate(rounds), 0.5)
    without = pool.without(0.5).tolist()
    assert without == [quantile(rounds[1], 0.5), whole, quantile(rounds[0], 0.5), whole, whole]
    alone = pool.alone(0.5)
    assert alone[[0, 2]].tolist() == [quantile(one, 0.5) for one in rounds] and np.isnan(alone[[1, 3, 4]]).all()
    found = pool.estimate(0.5)
    assert found.without == [without[0], None, without[2], None, None]
    assert found.by_round == [alone[0], None, alone[2], None, None]


def test_a_single_round_cannot_be_left_out():
    pool = pool_of(random_rounds(1, rounds=1))
    assert np.isnan(pool.without(0.5)).all() and pool.without(0.5).shape == (1,)


def test_nothing_has_no_quantile_and_no_replicates():
    pool = pool_of([[], []])
    assert pool.count == 0 and pool.rounds == 0
    assert np.isnan(pool.quantile(0.5)) and np.isnan(pool.replicates(0.5)).all() and pool.replicates(0.5).shape == (1000,)
    assert pool.estimate(0.5).value is None and pool.minimum().value is None
    assert np.isnan(pool.alone(0.5)).all()


def test_replicates_are_drawn_once_and_have_the_dice_of_their_name_and_quantile():
    rounds = random_rounds(1, count=300)
    pool = pool_of(rounds)
    assert pool.replicates(0.5) is pool.replicates(0.5)
    assert pool.replicates(0.5).tolist() == pool_of(rounds).replicates(0.5).tolist()
    assert pool.replicates(0.5).tolist() != pool_of(rounds, name="y").replicates(0.5).tolist()
    assert set(pool.replicates(0.99).tolist()) <= set(pool.values_ns.tolist())
    assert pool.replicates(0.001).min() >= pool.values_ns[0]


def test_replicates_of_a_round_by_itself_have_the_distribution_of_an_order_statistic():
    """The 50th of 100 values 1 .. 100 in a bootstrap sample: binomial, so known exactly."""
    from scipy.stats import binom

    values = np.arange(SLOT, SLOT + 100)
    found = np.concatenate([pool_of([values], name=str(number)).replicates(0.5) for number in range(20)])
    for place in (40, 45, 49, 50, 55, 60):
        # The 50th is at most the place-th value where 50 of 100 draws are among the first `place`.
        expected = binom.sf(49, 100, place / 100)
        assert np.mean(found <= MIDDLES_NS[values[place - 1]]) == pytest.approx(expected, abs=0.012)


def test_an_interval_of_one_round_is_that_of_its_writes():
    values = random_rounds(1, rounds=1, count=400)[0]
    found = pool_of([values]).estimate(0.5)
    low, high, achieved = order_statistic_ranks(400, 0.5)
    assert (found.low, found.high) == tuple(float(MIDDLES_NS[np.sort(values)[place - 1]]) for place in (low, high))
    assert (found.confidence, found.count) == (achieved, 400)
    assert found.warnings == [few_rounds(1)]


def stalled(rounds):
    """Batches that are fast or slow as a whole: 20 of 20 writes each, worth about as many as there are batches."""
    return [np.full(20, SLOT + 10 * (number % 2) + number // 2) for number in range(rounds)]


def test_an_interval_of_one_round_is_from_what_its_writes_are_worth():
    parts = stalled(40)
    values = np.concatenate(parts)
    pool = pool_of([values], batches=[sample_of(part) for part in parts])
    effective_sample_size = pool.effective_count(0.5)
    assert 20 < effective_sample_size < 100
    found, plain = pool.estimate(0.5), pool_of([values]).estimate(0.5)
    assert found.low < plain.low and found.high > plain.high and found.value == plain.value
    low, high, achieved = order_statistic_ranks(effective_sample_size, 0.5)
    ends = [float(MIDDLES_NS[np.sort(values)[round(place / effective_sample_size * values.size) - 1]]) for place in (low, high)]
    assert [found.low, found.high, found.confidence] == [*ends, achieved]
    assert found.warnings[1] == effective(800, effective_sample_size)
    assert pool_of([values[:400], values[400:800]], batches=pool.batches).effective_count(0.5) == effective_sample_size
    assert pool_of([values] * 3, batches=pool.batches).effective_count(0.5) is None  # Rounds tell.
    assert plain.warnings == found.warnings[:1]


def test_what_writes_are_worth_may_be_too_few_for_a_quantile():
    parts = stalled(40)
    pool = pool_of([np.concatenate(parts)], batches=[sample_of(part) for part in parts])
    found = pool.estimate(0.95)
    assert found.value is None and found.count == 800
    effective_sample_size = pool.effective_count(0.95)
    assert found.warnings == [needs_effective("p95", 72, effective_sample_size, 800)] and effective_sample_size < 72


def test_two_rounds_widen_the_interval_of_their_writes():
    rounds = [np.arange(SLOT, SLOT + 100), np.arange(SLOT + 40, SLOT + 140)]
    found = pool_of(rounds).estimate(0.5)
    values = np.sort(np.concatenate(rounds))
    low, high, _ = order_statistic_ranks(200, 0.5)
    assert found.low < MIDDLES_NS[values[low - 1]] - 100 and found.high > MIDDLES_NS[values[high - 1]] + 100
    assert found.confidence <= 0.95
    assert found.warnings == [few_rounds(2)]


def test_values_that_are_too_long_are_counted():
    pool = pool_of([[SLOT] * 30 + [SATURATED] * 2, [SLOT] * 30 + [SATURATED]])
    assert pool.saturated == 3
    assert pool.estimate(0.5).warnings[-1] == saturated(3)


@pytest.mark.parametrize("seed", range(10))
def test_lateness_is_bounded_by_what_it_can_explain_at_most(seed):
    """Against every way to pair the times with the lateness: none takes more off the quantile than the bound says."""
    dice = np.random.default_rng(seed)
    times, late = np.sort(dice.integers(SLOT, SLOT + 300, 30)), dice.integers(2000, 5100, 30)
    pool, lateness = pool_of([times]), pool_of([late])
    for q in (0.5, 0.9):
        bound = pool.lateness_in(lateness, q)
        least = np.inf
        for _ in range(300):
            paired = MIDDLES_NS[times] - MIDDLES_NS[dice.permutation(late)]
            least = min(least, np.sort(paired)[rank(30, q) - 1])
        paired = MIDDLES_NS[times] - np.sort(MIDDLES_NS[late])  # Sorted alike is one of them.
        least = min(least, np.sort(paired)[rank(30, q) - 1])
        assert pool.quantile(q) - max(least, 0) <= bound + 1e-6
        assert 0 <= bound <= pool.quantile(q)


def test_lateness_of_nothing_and_in_nothing_is_none():
    some, none = pool_of([[SLOT] * 10]), pool_of([[]])
    assert some.lateness_in(none, 0.5) == none.lateness_in(some, 0.5) == 0.0
    early = pool_of([[0] * 10])  # Less than 1 ns late.
    assert some.lateness_in(early, 0.5) == pytest.approx(MIDDLES_NS[0], abs=1)


def test_lateness_of_one_in_ten_is_not_in_the_median():
    times, late = pool_of([np.arange(SLOT, SLOT + 100)]), pool_of([[0] * 90 + [SLOT] * 10])
    at_most = times.lateness_in(late, 0.5)
    assert at_most == pytest.approx(MIDDLES_NS[SLOT + 49] - MIDDLES_NS[SLOT + 39], abs=1)  # The ten may be among the least.


def most_lateness(times, late, q):
    """The same, write by write: for every lateness y, K writes were later, so fewer than r are below X(r - K) - y."""
    times, place = sorted(times), rank(len(times), q)
    least = 0.0
    for y in late:
        later = sum(other > y for other in late)
        if place - later >= 1:
            least = max(least, times[place - later - 1] - y)
    return max(times[place - 1] - least, 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_lateness_is_bounded_as_counted_write_by_write(seed):
    dice = np.random.default_rng(seed)
    times, late = dice.integers(SLOT, SLOT + 300, 9), dice.integers(0, 5200, int(dice.integers(1, 9)))
    for q in (0.1, 0.3, 0.5, 0.9):
        expected = most_lateness(MIDDLES_NS[times].tolist(), MIDDLES_NS[late].tolist(), q)
        assert pool_of([times]).lateness_in(pool_of([late]), q) == pytest.approx(expected)


def test_an_interval_of_times_never_reaches_below_zero():
    """Of rounds that differ sixteenfold the plain bootstrap, stretched for three rounds, would."""
    wild = pool_of([np.full(30, SLOT), np.full(30, SLOT + 2048), np.full(30, SLOT + 4096)])
    found = wild.estimate(0.5)
    assert 0 < found.low < wild.values_ns[0]


@pytest.mark.parametrize("rounds", [2, 3, 5])
def test_an_interval_is_the_hull_of_that_of_writes_and_that_over_rounds(rounds):
    pool = pool_of(random_rounds(1, rounds=rounds))
    low, high, confidence = interval_of_replicates(pool.replicates(0.5), rounds, pool.quantile(0.5), positive=True, rounds_min=2)
    first, last, achieved = order_statistic_ranks(pool.count, 0.5)
    found = pool.estimate(0.5)
    assert (found.low, found.high) == (min(low, pool.at(first)), max(high, pool.at(last)))
    assert found.confidence == min(confidence, achieved)



# However much rounds differ, a quantile is hardly below what most writes of every round took


def test_two_rounds_of_which_one_stalled_do_not_put_p99_below_every_write():
    usual = np.repeat(np.arange(SLOT, SLOT + 40), 25)
    stalled = np.concatenate([usual[:-100], np.full(100, 3 * SLOT)])
    found = pool_of([usual, stalled]).estimate(0.99)
    assert found.low >= quantile(usual, 0.5) and found.low <= found.value <= found.high
    assert found.high >= quantile(stalled, 0.99)  # Upwards nothing is known better.


@pytest.mark.parametrize("rounds", [1, 2, 3, 7])
@pytest.mark.parametrize("q", [0.5, 0.9, 0.99, 0.999])
def test_the_least_is_the_least_of_all_rounds_values_of_the_place_that_markov_allows(rounds, q):
    values = random_rounds(rounds, rounds, count=400)
    share = (1 - q) / 0.005 ** (1 / rounds)
    expected = 0.0
    if share < 1:
        expected = min(float(MIDDLES_NS[one[int(one.size * (1 - share))]]) for one in values)
    assert pool_of(values).least(q) == expected


@pytest.mark.parametrize("rounds", [2, 3, 5])
@pytest.mark.parametrize("share", [0.011, 0.05, 0.2, 1.0])
def test_a_quantile_is_below_its_least_no_more_often_than_is_said_in_the_worst_world_there_is(rounds, share):
    """Now and then a round of which a share is slow: as often as leaves the quantile just among the fast ones."""
    q, worlds, dice = 0.99, 20_000, np.random.default_rng(rounds)
    slow_rounds = dice.random((worlds, rounds)) < (1 - q) / share
    count = 1000
    fast = np.full(count, SLOT)
    slow = np.where(np.arange(count) < count * (1 - share), SLOT, 2 * SLOT)
    truth = float(MIDDLES_NS[SLOT])
    wrong = sum(
        number * (pool_of([slow if one else fast for one in kinds]).least(q) > truth)
        for kinds, number in zip(*np.unique(slow_rounds, axis=0, return_counts=True), strict=True)
    )
    assert wrong / worlds <= 0.005 + 3 * (0.005 / worlds) ** 0.5
