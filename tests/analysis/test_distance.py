"""The fit finds the k and a that a recording was made with; the miles are those that were measured, and never beat light."""

import json
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from farwrite.analysis.analyse import analyse
from farwrite.analysis.distance import (
    Bounds,
    crossing,
    exact_rtt_ns,
    holds,
    independent,
    no_line,
    outcome_of,
    theil_sen,
)
from farwrite.analysis.result import Estimate
from farwrite.base.physics import miles_of
from farwrite.base.protocol import PROMISES
from farwrite.base.reasons import few_rounds, interval_beyond, sentences, unsound
from farwrite.recording import Cell, Other, read
from make_recording import LARGE, analysed, changed, make_recording

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
    assert reached.outcome == "measured"


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


def test_a_budget_that_holds_at_the_farthest_distance_reaches_beyond_it_and_has_no_miles():
    analysis = analyse(make_recording(changes=(*QUICK, "distance.miles=[0, 20, 60]")))
    far = miles_at(analysis, "C", 0.5, 5)
    assert (far.outcome, far.miles.value) == ("beyond", None)
    assert far.beyond_miles == pytest.approx(60)
    assert sentences(far.miles.warnings) == ["beyond 60 miles, not measured"]
    assert miles_at(analysis, "C", 0.5, 5, 2.1).beyond_miles == pytest.approx(60 / 2.1)
    near = miles_at(analysis, "C", 0.5, 1)
    assert (near.outcome, near.beyond_miles) == ("measured", None)


@pytest.mark.parametrize(("miles", "said"), [
    ("[0, 20, 60]", "below the first mile: the budget is exceeded there already"),
    ("[20, 60, 100]", "below 20 miles, the nearest measured: the budget is exceeded there already"),
])  # fmt: skip
def test_a_budget_that_is_exceeded_at_the_nearest_distance_lies_below_it(miles, said):
    analysis = analyse(make_recording(changes=(*QUICK, f"distance.miles={miles}"), a_ns=1_500_000))
    found = miles_at(analysis, "C", 0.5, 1)
    assert (found.outcome, found.miles.value, found.beyond_miles) == ("below", None, None)
    assert found.below_miles == pytest.approx(json.loads(miles)[0])
    assert sentences(found.miles.warnings) == [said]


def test_an_interval_that_reaches_beyond_what_was_measured_says_so():
    analysis = analyse(make_recording(changes=(*QUICK, "distance.miles=[0, 20, 60]"), a_ns=1_060_000, drift_ratio=0.02))
    found = miles_at(analysis, "C", 0.5, 2)
    assert found.outcome == "measured" and found.beyond_miles == pytest.approx(60)
    assert found.miles.high <= 60.01
    assert interval_beyond(60.0).sentence in sentences(found.miles.warnings)


# Light


def light_miles(found):
    """As far as light comes in the budget, for each round trip that the protocol waits for."""
    trips = PROMISES[found.protocol].trips
    return miles_of(found.budget_ns / trips, found.route_factor) if trips else np.inf


def every_number(found):
    """All miles that may be printed of a greatest distance."""
    some = [found.miles.value, found.miles.low, found.miles.high, found.beyond_miles, *found.miles.without, *found.miles.by_round]
    return [number for number in some if number is not None]


@pytest.mark.parametrize("k", [0.05, 0.3, 0.76, 0.97, 1.0, 2.0])
@pytest.mark.parametrize("a_ns", [20_000, 900_000])
def test_no_miles_beat_light(k, a_ns):
    text = LARGE.replace("[drill]\nkills = 6", "[drill]\nkills = 0")
    analysis = analyse(make_recording(text, changes=("run.round=400 ms", "run.survey_echoes=20"), k=k, a_ns=a_ns, writes=400))
    assert {item.protocol for item in analysis.miles} >= {"B", "C"}
    for found in analysis.miles:
        assert max(every_number(found), default=0) <= light_miles(found) * (1 + 1e-9), found


def test_no_miles_of_the_committed_baseline_beat_light():
    analysis = analyse(read(Path(__file__).parents[2] / "results/baselines/limits.json").recording)
    assert any(found.miles.value for found in analysis.miles)
    for found in analysis.miles:
        assert max(every_number(found), default=0) <= light_miles(found) * (1 + 1e-9), found
    for fit in analysis.fits:
        assert fit.k.value is None or fit.protocol == "A" or fit.k.high >= 0.998


def test_a_slope_less_than_light_takes_is_no_line_and_says_so():
    analysis = analyse(make_recording(changes=QUICK, k=0.76, a_ns=1_000_000))
    fit = fit_of(analysis)
    assert not fit.is_line
    assert fit.k.value is None and fit.a_ns.value is None
    assert str(fit.k.warnings[0]).startswith("not a line over these distances: their slope, 0.76 [0.7")
    assert str(fit.k.warnings[0]).endswith("is less than the 1 that light alone takes")
    found = miles_at(analysis, "C", 0.5, 2)  # Measured between 100 and 150 miles, line or none.
    assert found.miles.value == pytest.approx(miles_of(1e6 / 0.76), rel=0.03)


def test_latencies_that_fall_with_distance_are_no_line_and_have_no_miles():
    recording = make_recording(changes=(*QUICK, "distance.miles=[0, 60, 150]"), a_ns=5_500_000, k=-0.4)
    analysis = analyse(recording)
    assert "reaches below 0" in str(fit_of(analysis).k.warnings[0])
    assert fit_of(analysis).k.value is None
    found = miles_at(analysis, "C", 0.5, 5)
    assert (found.outcome, found.miles.value) == ("unknown", None)
    assert "the budget holds at some of the distances and not at others" in str(found.miles.warnings[0])


def test_a_latency_that_beats_light_is_trusted_no_further():
    found = miles_at(analyse(make_recording(changes=QUICK, k=0.3, a_ns=100_000)), "C", 0.5, 2)
    assert (found.outcome, found.miles.value, found.beyond_miles) == ("unknown", None, None)
    assert "less than the 2.94 ms that light alone takes there" in str(found.miles.warnings[0])


def test_of_a_maximum_the_interpolated_miles_are_no_more_than_the_true_ones():
    rtt_ns = np.array([0.0, 0.3e6, 2.4e6])
    inside = 0
    for budget_ns in np.linspace(1.0e6, 3.4e6, 50):
        at = crossing(rtt_ns, np.maximum(1e6, rtt_ns + 0.5e6), budget_ns, budget_ns)
        true_ns = budget_ns - 0.5e6
        assert at == -np.inf or at <= true_ns + 1e-3 or (at == np.inf and true_ns > rtt_ns[-1])
        inside += bool(np.isfinite(at))
    assert inside > 25


@pytest.mark.parametrize("seed", range(20))
def test_the_crossing_is_where_walking_along_the_points_exceeds_the_budget(seed):
    dice = np.random.default_rng(seed)
    rtt_ns, latency_ns = np.cumsum(dice.random((50, 5)), axis=1), dice.random((50, 5)) * 5
    budget_ns, light_ns = dice.random(2) * 5
    found = crossing(rtt_ns, latency_ns, budget_ns, light_ns)
    assert found.tolist() == pytest.approx([walked(*both, budget_ns, light_ns) for both in zip(rtt_ns, latency_ns, strict=True)])


def walked(rtt_ns, latency_ns, budget_ns, light_ns):
    """The same, one step after the other."""
    before = None
    highest = -np.inf
    for x, y in zip(rtt_ns, latency_ns, strict=True):
        highest = max(highest, y)
        if highest > budget_ns:
            if before is None:
                return -np.inf
            share = (budget_ns - before[1]) / (highest - before[1])
            return min(before[0] + share * (x - before[0]), light_ns)
        before = x, highest
    return np.inf


# What a distance is


def test_where_a_distance_is_light_the_round_trips_are_those_asked_for():
    recording = make_recording(changes=QUICK, writes=400)
    light = changed(recording, lab=changed(recording.lab, distance="light"))
    surveyed, exact = (fit_of(analyse(item)) for item in (recording, light))
    assert recording.lab.distance == "echo"
    assert surveyed.rtt_ns_low == pytest.approx(80_000, rel=0.02)
    assert (exact.rtt_ns_low, exact.rtt_ns_high) == (0.0, max(cell.asked_rtt_ns for cell in recording.cells))


def test_where_a_distance_is_light_a_quorum_stands_at_the_peer_it_waits_for():
    cells = [Cell(id="c", name="w", protocol="quorum", miles=20, asked_rtt_ns=315_000, queue_depth=1, arrival="closed",
                  size_bytes=4096, offered_per_s=None, quorum=quorum, others=[Other(miles=100, asked_rtt_ns=1_576_000)])
             for quorum in (2, 3)]  # fmt: skip
    assert [exact_rtt_ns(cell, "light") for cell in cells] == [315_000, 1_576_000]
    assert exact_rtt_ns(cells[0], "echo") is None


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
        assert sentences(found.miles.warnings) == [f"does not depend on distance: holds at {where}"]


@pytest.mark.parametrize(("low", "high", "shown"), [
    (-0.01, 0.01, True), (0.01, 0.049, True), (-3.0, 3.0, False), (-0.06, 0.01, False), (0.02, 0.051, False),
    (None, None, False),
])  # fmt: skip
def test_that_nothing_depends_on_distance_is_shown_by_a_whole_interval(low, high, shown):
    rounds = [0.0, 0.001, -0.001] if low is not None else []
    assert independent(Estimate(value=0.0, low=low, high=high, without=rounds)) is shown


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
    assert fit.k.warnings == [unsound(), few_rounds(1)]
    assert unsound() in miles_at(analysis, "C", 0.5, 2).miles.warnings


# A slope that reaches 0


def known(value, low, high):
    """An estimate whose rounds agree, so that its interval decides."""
    return Estimate(value=value, low=low, high=high, without=[value] * 5)


@pytest.mark.parametrize(("low", "high", "trips", "refused"), [
    (-0.1, 1.2, 1, True), (-0.1, 1.2, 0, False), (0.0, 1.2, 1, False), (-2.0, -1.0, 1, True), (0.9, 1.1, 1, False),
    (0.5, 0.99, 1, True), (0.5, 1.0, 1, False), (1.5, 1.9, 2, True), (1.5, 2.1, 2, False), (0.5, 0.9985, 1, False),
])  # fmt: skip
def test_a_slope_that_reaches_below_0_or_stays_below_light_is_no_line(low, high, trips, refused):
    k = Estimate(value=(low + high) / 2, low=low, high=high)
    assert bool(no_line(k, trips)) is refused
    assert bool(no_line(Estimate(value=low), trips)) is (trips > 0 and low < trips * 0.998)


@pytest.mark.parametrize(("trips", "k", "latency_ms", "expected"), [
    (0, (-3.0, 3.0), [1.0, 1.9, 2.1], "unknown"),  # It may be that distance has no part: no miles.
    (0, (0.0, 3.0), [1.0, 1.9, 2.1], "unknown"),
    (0, (0.1, 3.0), [1.0, 1.9, 2.1], "measured"),
    (1, (-0.5, 3.0), [1.0, 1.9, 3.1], "unknown"),
    (1, (0.0, 3.0), [1.0, 1.9, 3.1], "measured"),
    (1, (0.1, 3.0), [1.0, 1.9, 3.1], "measured"),
    (1, (0.1, 3.0), [1.0, 1.5, 2.0], "unknown"),  # Less than light takes at the farthest.
    (1, (-0.5, 3.0), [1.0, 1.5, 1.9], "unknown"),
    (0, (-0.5, 3.0), [1.0, 1.5, 1.9], "beyond"),
    (0, (-0.5, 3.0), [2.1, 2.2, 2.3], "below"),
    (0, (0.5, 3.0), [2.1, 1.9, 2.3], "below"),
    (0, (-0.5, 3.0), [2.1, 1.9, 2.3], "unknown"),
    (0, (-0.04, 0.04), [1.0, 1.9, 2.1], "any"),
])  # fmt: skip
def test_there_are_miles_only_where_the_latency_is_known_to_grow(trips, k, latency_ms, expected):
    """A budget of 2 ms over round trips of 0.1, 1 and 2.5 ms."""
    line = SimpleNamespace(
        trips=trips, k=known((k[0] + k[1]) / 2, *k), a_ns=known(1e6, 0.9e6, 1.1e6),
        rtt_ns=SimpleNamespace(value=np.array([0.1e6, 1e6, 2.5e6])), latency_ns=SimpleNamespace(value=1e6 * np.array(latency_ms)),
    )  # fmt: skip
    outcome, reason = outcome_of(line, 2e6, Bounds(6.0, 158.0))
    assert outcome == expected
    assert bool(reason) is (expected != "measured")


@pytest.mark.parametrize(("low", "high", "outcome"), [
    (1.8, 1.9, "any"), (1.8, 2.0, "any"), (1.9, 2.1, "unknown"), (2.0, 2.1, "unknown"), (2.1, 2.2, "none"),
])  # fmt: skip
def test_a_budget_that_distance_has_no_part_in_is_judged_by_both_ends(low, high, outcome):
    assert holds(known((low + high) / 2, low, high), 2.0)[0] == outcome
