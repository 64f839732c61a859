"""The fit finds the k and a that a recording was made with, and the miles are its inverse."""

import msgspec
import numpy as np
import pytest

from farwrite.analysis.analyse import analyse
from farwrite.analysis.distance import UNSOUND, theil_sen
from farwrite.physics import miles_of
from make_recording import analysed, changed, make_recording

QUICK = ("run.round=400 ms", "run.survey_echoes=20", "drill.kills=0")


def fit_of(analysis, protocol="C", quantile=0.5):
    return next(item for item in analysis.fits if (item.protocol, item.quantile) == (protocol, quantile))


def miles_at(analysis, protocol, quantile, budget_ms, route_factor=1.0):
    return next(
        item for item in analysis.miles
        if (item.protocol, item.quantile, item.budget_ns, item.route_factor)
        == (protocol, quantile, budget_ms * 1e6, route_factor)
    )  # fmt: skip


@pytest.mark.parametrize(("k", "a_ns"), [(1.0, 300_000), (2.0, 150_000)])
def test_the_fit_finds_round_trips_and_what_is_not_distance(k, a_ns):
    analysis = analyse(make_recording(changes=QUICK, k=k, a_ns=a_ns, seed=3))
    fit = fit_of(analysis)
    assert fit.k.low <= k <= fit.k.high * 1.01
    assert fit.k.value == pytest.approx(k, rel=0.02)
    assert fit.a_ns.value == pytest.approx(a_ns, rel=0.06)
    assert fit.residual_ns_max < 0.05 * a_ns
    reached = miles_at(analysis, "C", 0.5, 2)
    assert reached.miles.value == pytest.approx(miles_of((2e6 - a_ns) / k), rel=0.03)
    assert reached.miles.low <= reached.miles.value <= reached.miles.high
    assert not reached.extrapolated


def test_the_interval_of_k_covers_the_truth_about_as_often_as_it_says():
    changes = ("run.round=200 ms", "run.survey_echoes=10", "distance.miles=[0, 60, 150]", "drill.kills=0")
    covered = 0
    for seed in range(12):
        fit = fit_of(analyse(make_recording(changes=changes, seed=seed, writes=80, jitter_ratio=0.0005, slices=4)))
        covered += fit.k.low <= 1.0 <= fit.k.high
    assert covered >= 9


def test_one_outlier_round_does_not_move_the_fit():
    fit = fit_of(analyse(make_recording(changes=QUICK, outlier_round=2, writes=400)))
    assert fit.k.value == pytest.approx(1.0, rel=0.03)
    assert fit.a_ns.value == pytest.approx(300_000, rel=0.1)


def test_one_outlier_distance_does_not_move_theil_sen():
    x = np.array([0.1, 0.3, 1.0, 1.6, 2.4, 2.9])
    y = 0.3 + 1.0 * x
    y[3] += 5
    k, a = theil_sen(x, y)
    assert k == pytest.approx(1.0)
    assert a == pytest.approx(0.3)


def test_many_lines_at_once_are_the_lines_one_by_one():
    dice = np.random.default_rng(1)
    x, y = dice.random((7, 5)), dice.random((7, 5))
    k, a = theil_sen(x, y)
    for row in range(7):
        assert (k[row], a[row]) == pytest.approx(theil_sen(x[row], y[row]))


def test_a_budget_beyond_what_was_measured_is_called_extrapolated():
    analysis = analyse(make_recording(changes=(*QUICK, "distance.miles=[0, 20, 60]")))
    far = miles_at(analysis, "C", 0.5, 5)
    assert far.extrapolated
    assert "beyond the 0.9" in far.miles.warnings[0]
    assert not miles_at(analysis, "C", 0.5, 1).extrapolated


def test_a_budget_that_is_spent_at_home_reaches_no_mile():
    found = miles_at(analyse(make_recording(changes=QUICK, a_ns=1_500_000)), "C", 0.5, 1)
    assert found.miles.value == 0
    assert found.miles.low == found.miles.high == 0
    assert found.miles.warnings == ["the budget is spent before the first mile"]


def test_a_longer_route_reaches_fewer_miles():
    analysis = analysed(changes=QUICK)[1]
    straight, real = (miles_at(analysis, "C", 0.99, 2, factor).miles.value for factor in (1.0, 2.1))
    assert real == pytest.approx(straight / 2.1)


def test_protocol_a_does_not_depend_on_distance():
    analysis = analyse(make_recording(changes=QUICK, near_ns=1_200_000))
    assert abs(fit_of(analysis, "A").k.value) < 0.05
    for budget_ms, where in ((1, "none"), (2, "any")):
        found = miles_at(analysis, "A", 0.5, budget_ms)
        assert found.miles.value is None
        assert found.miles.warnings == [f"does not depend on distance: holds at {where}"]


def test_two_distances_make_no_fit():
    analysis = analyse(make_recording(changes=(*QUICK, "distance.miles=[0, 150]")))
    assert analysis.fits == []
    assert analysis.miles == []


def test_a_cell_that_no_verdict_may_rest_on_is_left_out_of_the_fit():
    recording = make_recording(changes=(*QUICK, "distance.miles=[0, 20, 60, 150]"), writes=300)
    long_ns = 3_000_000
    cells = [
        msgspec.structs.replace(cell, asked_rtt_ns=long_ns) if cell.id == "write-C-60" else cell
        for cell in recording.cells
    ]  # fmt: skip
    fit = fit_of(analyse(changed(recording, cells=cells)))
    assert fit.left_out == ["write-C-60"]
    assert fit.k.value == pytest.approx(1.0, rel=0.02)
    assert fit.k.warnings == []


def test_a_fit_through_cells_that_no_verdict_may_rest_on_says_so():
    analysis = analyse(make_recording(changes=(*QUICK, "run.rounds=1"), writes=500))
    fit = fit_of(analysis)
    assert fit.left_out == []
    assert fit.k.warnings == [UNSOUND, "one round only: no interval over rounds"]
    assert UNSOUND in miles_at(analysis, "C", 0.5, 2).miles.warnings
