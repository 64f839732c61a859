"""Intended instants: exact at a fixed rate, exponential gaps for Poisson, and never a step back."""

from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from both_ways import both_ways
from farwrite.workload import arrival_kernel
from farwrite.workload.arrival_kernel import Arrivals, Shape
from oracle import arrival_oracle

RATES = {
    0.001: Fraction(1, 1000), 1.0: Fraction(1), 3.0: Fraction(3), 1 / 3: Fraction(1, 3), 100 / 60: Fraction(5, 3),
    2000.0: Fraction(2000), 3333.33: Fraction(333333, 100), 12345.0: Fraction(12345), 7e8: Fraction(7 * 10**8),
    999_999_999.0: Fraction(999_999_999), 1e9: Fraction(10**9),
}  # fmt: skip


def instants(kernel, count, arrivals, *rest):
    drawn = np.full(count, -1, np.int64)
    kernel(drawn, arrivals, *rest)
    return drawn


@pytest.mark.parametrize("fixed", both_ways(arrival_kernel.fixed))
@pytest.mark.parametrize("rate_per_s", RATES)
def test_a_fixed_rate_is_exact(fixed, rate_per_s):
    drawn = instants(fixed, 500, Arrivals.at_rate(rate_per_s))
    assert drawn.tolist() == arrival_oracle.fixed(RATES[rate_per_s], 500)


def test_a_fixed_rate_has_not_drifted_after_ten_million_writes():
    drawn = instants(arrival_kernel.fixed, 10_000_001, Arrivals.at_rate(3333.33))
    assert drawn[-1] == 10_000_000 * 10**9 * 100 // 333333


@pytest.mark.parametrize("poisson", both_ways(arrival_kernel.poisson))
@pytest.mark.parametrize("rate_per_s", [0.01, 2000.0, 5e8])
@pytest.mark.parametrize("seed", range(3))
def test_poisson_agrees_with_exact_sums(poisson, rate_per_s, seed):
    drawn = instants(poisson, 300, Arrivals.at_rate(rate_per_s), seed, 0)
    wanted = arrival_oracle.poisson(rate_per_s, seed, 300)
    allowed_ns = max(1, wanted[-1] * 1e-14)  # Two libraries' logarithms may differ in their last bit.
    assert np.abs(drawn - np.array(wanted)).max() <= allowed_ns


@pytest.mark.parametrize("poisson", both_ways(arrival_kernel.poisson))
def test_poisson_never_goes_back(poisson):
    assert (np.diff(instants(poisson, 2000, Arrivals.at_rate(8e8), 1, 0)) >= 0).all()


def test_poisson_gaps_are_exponential():
    """One seed in a hundred must fail at 1 %, so none is judged alone: their p-values together have to be uniform."""
    p_values = []
    for seed in range(100):
        gaps = np.diff(instants(arrival_kernel.poisson, 20_000, Arrivals.at_rate(100.0), seed, 0))
        p_values.append(stats.kstest(gaps, stats.expon(scale=1e7).cdf).pvalue)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


@pytest.mark.parametrize("closed", both_ways(arrival_kernel.closed))
def test_a_closed_loop_has_no_instants(closed):
    drawn = np.full(10, -1, np.int64)
    closed(drawn)
    assert not drawn.any()


@pytest.mark.parametrize("time_of", both_ways(arrival_kernel.time_of))
@pytest.mark.parametrize(("begin", "end"), [(1.0, 1.0), (0.0, 2.0), (2.0, 0.0), (3.0, 1.0), (1e-6, 5e-6)])
def test_a_rate_has_made_the_work_due_by_the_time_that_is_told(time_of, begin, end):
    lasts_ns = 1000.0
    held = 0.5 * (begin + end) * lasts_ns
    for work in (1e-3 * held, 0.3 * held, 0.9 * held, held):
        at_ns = time_of(work, begin, end, lasts_ns)
        assert 0 < at_ns <= lasts_ns
        assert begin * at_ns + 0.5 * (end - begin) / lasts_ns * at_ns**2 == pytest.approx(work, rel=1e-9)
    assert time_of(0.0, begin, end, lasts_ns) == time_of(-1e-18, begin, end, lasts_ns) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_blocks_of_any_size_continue_each_other(seed):
    cuts = np.sort(np.random.default_rng(seed).integers(0, 1000, 9))
    kinds = ((arrival_kernel.fixed, lambda first: ()), (arrival_kernel.poisson, lambda first: (seed, first)))
    for kernel, rest in kinds:
        whole = instants(kernel, 1000, Arrivals.at_rate(777.7), *rest(0))
        arrivals, parts = Arrivals.at_rate(777.7), []
        for start, stop in zip([0, *cuts], [*cuts, 1000], strict=True):
            parts.append(instants(kernel, stop - start, arrivals, *rest(start)))
        assert np.array_equal(np.concatenate(parts), whole)


RAMP = [(10**9, 100.0, 2000.0), (5 * 10**8, 0.0, 0.0), (10**9, 500.0, 500.0), (10**9, 800.0, 0.0)]


@pytest.mark.parametrize("shaped", both_ways(arrival_kernel.shaped))
@pytest.mark.parametrize("stretches", [
    [(10**9, 300.0, 300.0)], RAMP, [(10**8, 0.0, 1000.0)], [(10**8, 33.0, 33.0), (10**8, 5.0, 47.0)],
])  # fmt: skip
def test_a_regular_process_has_made_n_writes_due_at_the_instant_of_write_n(shaped, stretches):
    drawn = instants(shaped, 900, Arrivals.at_rate(1.0, Shape.of(stretches)), 1, 0, True)
    assert (np.diff(drawn) >= 0).all()
    for number in (1, 5, 77, 450, 899):
        due = arrival_oracle.due_until(stretches, drawn[number], 20_000)
        assert due == pytest.approx(number, abs=0.05 + 2000 * 2e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_poisson_process_whose_rate_changes_is_one_of_rate_one_in_its_own_time(seed):
    """Time change: with the writes that were due as the clock, gaps are exponential."""
    drawn = instants(arrival_kernel.shaped, 4000, Arrivals.at_rate(1.0, Shape.of(RAMP)), seed, 0, False)
    step_ns = 100_000
    grid = np.arange(int(drawn[-1] // step_ns) + 2)
    due = np.cumsum([arrival_oracle.rate_at(RAMP, (step + 0.5) * step_ns) * step_ns for step in grid])
    own_time = np.interp(drawn, (grid + 1) * step_ns, due)
    assert stats.kstest(np.diff(own_time), "expon").pvalue > 0.01


def test_nothing_is_due_while_the_rate_is_zero():
    burst = [(10**7, 10_000.0, 10_000.0), (9 * 10**7, 0.0, 0.0)]
    for regular in (True, False):
        drawn = instants(arrival_kernel.shaped, 5000, Arrivals.at_rate(1.0, Shape.of(burst)), 3, 0, regular)
        assert (drawn % 10**8 <= 10**7).all() and drawn[-1] > 40 * 10**8


@pytest.mark.parametrize("shaped", both_ways(arrival_kernel.shaped))
def test_stretches_at_random_are_exponential_and_the_same_whatever_is_drawn_beside_them(shaped):
    shape = Shape.of([(10**7, 10_000.0, 10_000.0), (5 * 10**7, 0.0, 0.0)], True)
    drawn = instants(shaped, 3000, Arrivals.at_rate(1.0, shape), 4, 0, True)
    gaps = np.diff(drawn)
    pauses = gaps[gaps > 110_000]  # Ten writes a ms while it is on.
    assert pauses.size > 15
    assert stats.kstest(pauses, stats.expon(scale=5 * 10**7).cdf).pvalue > 0.01
    assert (np.sort(gaps)[: 3000 - pauses.size - 2] <= 200_100).all()


@pytest.mark.parametrize("think", both_ways(arrival_kernel.think))
def test_a_caller_thinks_as_long_as_asked_and_as_often(think):
    drawn = np.full(100, -1, np.int64)
    for every in (1, 4):
        think(drawn, 5000.0, False, every, 1, 0)
        assert drawn.tolist() == [5000 if number and number % every == 0 else 0 for number in range(100)]
    drawn = np.full(5000, -1, np.int64)
    think(drawn, 1e6, True, 1, 1, 1)
    assert stats.kstest(drawn, stats.expon(scale=1e6).cdf).pvalue > 0.01


@pytest.mark.parametrize("follow", both_ways(arrival_kernel.follow))
@pytest.mark.parametrize("seed", range(20))
def test_a_flush_comes_with_what_is_before_it(follow, seed):
    dice = np.random.default_rng(seed)
    operation = dice.choice(np.array([1, 2, 3], np.int8), int(dice.integers(0, 30)))
    drawn = np.sort(dice.integers(5, 1000, int((operation != 3).sum())))
    intended, carried = np.full(operation.size, -1, np.int64), np.zeros(1, np.int64)
    intended[: drawn.size] = drawn
    follow(intended, operation, 3, carried)
    assert intended.tolist() == arrival_oracle.follow(drawn.tolist(), operation.tolist(), 3)
    assert carried[0] == (drawn[-1] if drawn.size else 0)


@pytest.mark.parametrize("follow", both_ways(arrival_kernel.follow))
def test_flushes_before_the_first_write_of_a_block_come_with_the_last_of_the_block_before(follow):
    carried = np.array([77])
    for operation, drawn, expected, last in (([3, 3], [], [77, 77], 77), ([], [], [], 77), ([3, 1, 3], [90], [77, 90, 90], 90),
                                             ([3, 1, 1], [95, 99], [90, 95, 99], 99)):  # fmt: skip
        intended = np.full(len(operation), -1, np.int64)
        intended[: len(drawn)] = drawn
        follow(intended, np.array(operation, np.int8), 3, carried)
        assert (intended.tolist(), carried[0]) == (expected, last)


@pytest.mark.parametrize("seed", range(3))
def test_blocks_of_a_changing_rate_continue_each_other(seed):
    for at_random in (False, True):
        whole = instants(arrival_kernel.shaped, 1000, Arrivals.at_rate(1.0, Shape.of(RAMP, at_random)), seed, 0, False)
        arrivals, parts = Arrivals.at_rate(1.0, Shape.of(RAMP, at_random)), []
        for start, stop in ((0, 1), (1, 400), (400, 1000)):
            parts.append(instants(arrival_kernel.shaped, stop - start, arrivals, seed, start, False))
        assert np.array_equal(np.concatenate(parts), whole)
