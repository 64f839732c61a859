"""Intended instants: exact at a fixed rate, exponential gaps for Poisson, and never a step back."""

from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from both_ways import both_ways
from farwrite import arrival_kernel
from farwrite.arrival_kernel import Arrivals
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
