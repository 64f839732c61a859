"""Student's t in plain Python against scipy's."""

import math

import pytest
from scipy import stats

from farwrite.analysis.student_t import critical, density, half_width, tail

DEGREES = (1, 1.5, 2, 3.3, 4, 8, 20.7, 99, 1234.5, 1e5)


@pytest.mark.parametrize("df", DEGREES)
def test_a_tail_is_scipys_also_far_out(df):
    for t in (0, 1e-9, 0.1, 0.5, 1, 1.96, 3, 8, 40, 1e3, 1e6):
        assert tail(t, df) == pytest.approx(stats.t.sf(t, df), rel=1e-9, abs=1e-300)
        assert tail(-t, df) == pytest.approx(stats.t.sf(-t, df), rel=1e-9)


@pytest.mark.parametrize("df", DEGREES)
def test_a_critical_value_is_scipys(df):
    for probability in (0.5, 0.4, 0.1, 0.05, 0.025, 0.01, 1e-4, 1e-8, 1e-12):
        assert critical(probability, df) == pytest.approx(stats.t.isf(probability, df), rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("df", DEGREES)
def test_a_density_is_scipys(df):
    for t in (0, 0.3, 2, 30):
        assert density(t, df) == pytest.approx(stats.t.pdf(t, df), rel=1e-8)


def test_infinite_degrees_of_freedom_are_the_normal_distribution():
    for t in (0, 0.5, 1.96, 6):
        assert tail(t, math.inf) == pytest.approx(stats.norm.sf(t), rel=1e-12)
    for probability in (0.5, 0.3, 0.025, 1e-9):
        assert critical(probability, math.inf) == pytest.approx(stats.norm.isf(probability), rel=1e-9, abs=1e-10)


def test_what_is_infinitely_far_out_never_happens_and_what_is_unknown_stays_unknown():
    assert tail(math.inf, 4) == 0
    assert tail(-math.inf, 4) == 1
    assert math.isnan(tail(math.nan, 4))


@pytest.mark.parametrize("df", DEGREES)
def test_a_tail_falls_and_both_tails_make_one(df):
    steps = [tail(t / 10, df) for t in range(-60, 61)]
    assert steps == sorted(steps, reverse=True)
    assert all(tail(t, df) + tail(-t, df) == pytest.approx(1) for t in (0.1, 1, 7))


def test_the_normal_density_is_scipys():
    for t in (0, 0.3, -1.5, 6):
        assert density(t, math.inf) == pytest.approx(stats.norm.pdf(t), rel=1e-12)


def test_so_far_out_that_its_square_is_infinite_a_tail_is_nothing():
    for t in (1e155, 1e200, 1e300):
        assert tail(t, 4) == 0 and tail(-t, 4) == 1


@pytest.mark.parametrize("count", [2, 3, 10, 1000])
def test_half_an_interval_of_a_mean_is_scipys(count):
    low, high = stats.t.interval(0.95, count - 1, loc=0, scale=3 / math.sqrt(count))
    assert half_width(3, count, 0.95) == pytest.approx((high - low) / 2, rel=1e-9)
