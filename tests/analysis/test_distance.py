"""The fit finds the k and a that a recording was made with; the miles are those that were measured, and never beat light."""

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from scipy import stats

from farwrite.analysis import distance
from farwrite.analysis.analyse import analyse
from farwrite.analysis.distance import (
    Bounds,
    Place,
    crossing,
    ends_of,
    exact_rtt_ns,
    greatest_miles,
    holds,
    independent,
    line_of,
    lines,
    negligible,
    no_line,
    outcome_of,
    theil_sen,
    within,
)
from farwrite.analysis.estimate import Draws
from farwrite.analysis.latency import Pool
from farwrite.analysis.result import Estimate
from farwrite.analysis.sample import MIDDLES_NS, Sample
from farwrite.base.physics import ROUTE_FACTORS, miles_of, rtt_ns_of
from farwrite.base.protocol import PROMISES
from farwrite.base.reasons import few_rounds, interval_beyond, one_round, sentences, unsound
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


@pytest.mark.parametrize("count", [3, 4, 7])
def test_the_slope_is_the_median_of_those_of_all_pairs(count):
    dice = np.random.default_rng(count)
    for _ in range(20):
        x, y = dice.random(count), dice.random(count)
        slope = stats.theilslopes(y, x).slope
        k, a = theil_sen(x, y)
        assert (k, a) == pytest.approx((slope, np.median(y - slope * x)))


def test_two_cells_at_one_distance_have_no_slope_between_them_and_a_line_without_one_is_none():
    k, _ = theil_sen(np.array([0.0, 0.0, 1.0, 2.0]), np.array([0.0, 5.0, 1.0, 3.0]))
    assert k == 1.0  # Of 1, 1.5, -4, -1 and 2.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        k, a = theil_sen(np.ones((2, 3)), np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]))
    assert np.isnan(k).all() and np.isnan(a).all()


def place(miles, count=10_000, echoes=100, sound=True, late_at=(), **group):
    """A place of a fit, of which only what chooses it is there."""
    cell = SimpleNamespace(id=f"at-{miles}", miles=miles, **{"name": "write", "protocol": "C", "queue_depth": 1, **group})
    return Place(cell, SimpleNamespace(count=echoes), SimpleNamespace(count=count), sound, late_at=late_at)


def fitted(monkeypatch, *places):
    """(quantile, miles of the places of the line, those left out, the warning) of each line."""
    def line_of(places, q, left_out=(), warning=None):
        return q, [item.cell.miles for item in places], list(left_out), warning and warning.code

    monkeypatch.setattr(distance, "line_of", line_of)
    return lines(places)


@pytest.mark.parametrize(("changes", "p50", "p99"), [
    ({}, ([0, 20, 60, 150], [], None), ([0, 20, 60, 150], [], None)),
    ({"sound": False}, ([0, 20, 150], ["at-60"], None), ([0, 20, 150], ["at-60"], None)),
    ({"late_at": (0.99,)}, ([0, 20, 60, 150], [], None), ([0, 20, 150], ["at-60"], None)),
    ({"late_at": (0.5,)}, ([0, 20, 150], ["at-60"], None), ([0, 20, 60, 150], [], None)),
    ({"count": 100}, ([0, 20, 60, 150], [], None), ([0, 20, 150], [], None)),  # No p99 of so few: nothing to leave out.
    ({"echoes": 0}, ([0, 20, 150], [], None), ([0, 20, 150], [], None)),
], ids=str)  # fmt: skip
def test_a_line_is_made_of_the_places_that_have_the_quantile_and_carry_a_verdict(changes, p50, p99, monkeypatch):
    found = fitted(monkeypatch, place(0), place(20), place(60, **changes), place(150))
    assert found == [(0.5, *p50), (0.99, *p99)]


def test_a_line_needs_three_distances_and_takes_unsound_places_only_where_there_are_no_three_others(monkeypatch):
    assert fitted(monkeypatch, place(0), place(20), place(20)) == []
    assert fitted(monkeypatch, place(0), place(20), place(60, echoes=0)) == []
    several = fitted(monkeypatch, place(0), place(20), place(60, sound=False), place(60, sound=False))
    assert several == [(q, [0, 20, 60, 60], [], "unsound") for q in (0.5, 0.99)]
    others = [place(miles, **group) for group in ({"name": "w"}, {"protocol": "B"}, {"queue_depth": 4}) for miles in (0, 20, 60)]
    assert [item[1] for item in fitted(monkeypatch, *others, place(0), place(20))] == [[0, 20, 60]] * 6


def pool_of(*rounds_ns, count=400):
    """A pool of which every round took always the same."""
    samples = [Sample(np.array([np.abs(MIDDLES_NS - each).argmin()]), np.array([count])) for each in rounds_ns]
    return Pool("response", list(range(len(samples))), samples, Draws(1, 4))


def measured_place(miles, latency_ns, light="echo", sound=True, protocol="C"):
    """A place whose rounds' latencies are these, surveyed 80 us over what was asked for."""
    asked_ns = round(rtt_ns_of(miles))
    cell = Cell(id=f"at-{miles}", name="write", protocol=protocol, miles=miles, asked_rtt_ns=asked_ns, queue_depth=1,
                arrival="closed", size_bytes=4096, offered_per_s=None)  # fmt: skip
    return Place(cell, pool_of(*[asked_ns + 80_000.0] * len(latency_ns), count=50), pool_of(*latency_ns), sound, light)


@pytest.mark.parametrize("light", ["light", "echo"])
def test_a_line_has_the_slope_of_all_rounds_of_each_and_of_all_but_each(light):
    latency_ns = {0: [4e5, 4.1e5, 3.9e5, 4e5], 20: [7.3e5, 7.4e5, 7.2e5], 60: [14e5, 13.8e5, 13.9e5, 13.7e5], 150: [28e5] * 4}
    places = [measured_place(miles, latency_ns[miles], light) for miles in (60, 0, 150, 20)]
    line = line_of(places, 0.5, left_out=["another"])
    ordered = sorted(places, key=lambda item: item.cell.miles)
    x = np.array([item.cell.asked_rtt_ns if light == "light" else item.rtt.quantile(0.5) for item in ordered])
    y = np.array([item.response.quantile(0.5) for item in ordered])
    slope = stats.theilslopes(y, x).slope
    height = np.median(y - slope * x)
    fit = line.fit
    assert (fit.k.value, fit.a_ns.value) == pytest.approx((slope, height))
    assert (fit.rtt_ns_low, fit.rtt_ns_high) == pytest.approx((x.min(), x.max()))
    assert fit.residual_ns_max == pytest.approx(np.abs(y - height - slope * x).max())
    assert line.asked_rtt_ns == (0.0, ordered[-1].cell.asked_rtt_ns) and (line.rounds, line.indices) == (3, [0, 1, 2, 3])
    assert fit.k.count == fit.a_ns.count == 400 * 15 and fit.left_out == ["another"] and fit.is_line and fit.k.warnings == []
    assert (fit.name, fit.protocol, fit.queue_depth, fit.quantile, line.trips) == ("write", "C", 1, 0.5, 1)
    for index in range(3):  # A fourth round is not everywhere.
        alone = np.array([item.response.alone(0.5)[index] for item in ordered])
        assert fit.k.by_round[index] == pytest.approx(stats.theilslopes(alone, x).slope)
        without = np.array([item.response.without(0.5)[index] for item in ordered])
        assert fit.k.without[index] == pytest.approx(stats.theilslopes(without, x).slope)
        assert fit.a_ns.without[index] == pytest.approx(np.median(without - fit.k.without[index] * x))
    assert fit.k.low < fit.k.value < fit.k.high and fit.k.confidence == 0.95


def test_a_line_that_beats_light_keeps_its_count_and_all_that_speaks_against_it():
    places = [measured_place(miles, [4e5 + 5e3 * miles] * 4) for miles in (0, 20, 60)]
    line = line_of(places, 0.5, warning=unsound())
    assert not line.fit.is_line and line.k.value == pytest.approx(0.317, rel=0.01)
    for found in (line.fit.k, line.fit.a_ns):
        assert found.value is None and found.count == 12 * 400
        assert [one.code for one in found.warnings] == ["slope_below_light", "unsound"]


def test_miles_come_from_the_points_and_say_on_which_side_they_lie():
    places = [measured_place(miles, [2e5 + rtt_ns_of(miles) + 2e3 * by for by in (-1, 0, 1, 0)], "light")
              for miles in (0, 20, 60)]  # fmt: skip
    line = line_of(places, 0.5)
    one_ms, two_ms = greatest_miles(line, budgets_ns=(1e6, 2e6))[:: len(ROUTE_FACTORS)]
    assert one_ms.outcome == "measured" and one_ms.miles.value == pytest.approx(miles_of(8e5), rel=0.01)
    assert one_ms.miles.low < one_ms.miles.value < one_ms.miles.high and one_ms.miles.count == 12 * 400
    assert one_ms.miles.confidence == 0.95 and (one_ms.beyond_miles, one_ms.below_miles) == (None, None)
    for index, value in enumerate(one_ms.miles.by_round):  # What a round took longer, it reaches less far.
        assert value == pytest.approx(miles_of(8e5 - 2e3 * (-1, 0, 1, 0)[index]), rel=0.005)
    assert len(one_ms.miles.without) == len(one_ms.miles.by_round) == 4
    assert two_ms.outcome == "beyond" and two_ms.beyond_miles == pytest.approx(60, abs=1e-3)
    assert (two_ms.miles.value, two_ms.miles.high, two_ms.miles.confidence) == (None, None, None)
    assert two_ms.miles.without == two_ms.miles.by_round == [] and two_ms.miles.low == pytest.approx(60, abs=1e-3)
    nearer = greatest_miles(line, equipment_ns=50_000.0, budgets_ns=(1e6,))
    assert nearer[0].miles.value == pytest.approx(miles_of(8e5, 1.0, 50_000.0), rel=0.01)
    assert [item.route_factor for item in nearer] == list(ROUTE_FACTORS.values())
    assert {item.budget_ns for item in greatest_miles(line)} == {1e6, 2e6, 5e6, 10e6}


def test_miles_end_where_light_alone_spends_the_budget_on_every_trip():
    latency_ns = {0: 3e5, 20: 9e5, 150: 11e5}  # A straight line between the farther two would cross 1 ms at twice as many miles.
    line = line_of([measured_place(miles, [latency_ns[miles]] * 4, "light", protocol="C2") for miles in latency_ns], 0.5)
    found = greatest_miles(line, budgets_ns=(1e6,))[0]
    assert line.trips == 2 and found.miles.value == pytest.approx(miles_of(5e5))
    assert found.miles.high <= found.miles.value * 1.0001


# What is said of miles whose interval leaves what was measured: between 20 and 60 miles, and light reaches 80.
@pytest.mark.parametrize(("outcome", "low", "high", "expected", "codes"), [
    ("measured", 30.0, 50.0, (40.0, 30.0, 50.0, None, None), []),
    ("measured", 30.0, 60.0, (40.0, 30.0, 60.0, 60.0, None), ["interval_beyond"]),
    ("measured", 20.0, 50.0, (40.0, 20.0, 50.0, None, 20.0), ["interval_below"]),
    ("measured", 10.0, 90.0, (40.0, 20.0, 60.0, 60.0, 20.0), ["interval_beyond", "interval_below"]),
    ("beyond", 60.0, 60.0, (None, 60.0, None, 60.0, None), ["few_rounds"]),
    ("beyond", 50.0, 60.0, (None, 50.0, None, 60.0, None), ["few_rounds", "interval_begins"]),
    ("beyond", 10.0, 60.0, (None, 20.0, None, 60.0, 20.0), ["few_rounds", "interval_below"]),
    ("below", 20.0, 20.0, (None, None, 20.0, None, 20.0), ["few_rounds"]),
    ("below", 20.0, 70.0, (None, None, 60.0, 60.0, 20.0), ["few_rounds", "interval_beyond"]),
    ("measured", None, None, (40.0, None, None, None, None), []),
    ("measured", 10.0, None, (40.0, 10.0, None, None, None), []), ("measured", None, 90.0, (40.0, None, 90.0, None, None), []),
    ("beyond", None, None, (None, None, None, 60.0, None), ["few_rounds"]),
])  # fmt: skip
def test_an_interval_is_cut_to_what_was_measured(outcome, low, high, expected, codes):
    reason = None if outcome == "measured" else few_rounds(1)
    found = Estimate(value=40.0, low=low, high=high, confidence=0.95, without=[40.0], by_round=[40.0])
    made, beyond, below = within(found, outcome, reason, Bounds(20.0, 60.0), 80.0)
    assert (made.value, made.low, made.high, beyond, below) == expected
    assert [one.code for one in made.warnings] == codes
    assert (made.confidence, made.without, made.by_round) == ((0.95, [40.0], [40.0]) if outcome == "measured" else (None, [], []))
    if low is None or high is None:
        return
    in_light = within(found, outcome, reason, Bounds(20.0, 60.0), 45.0)[0]
    assert in_light.high == (None if expected[2] is None else min(expected[2], 45.0))


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


def test_a_latency_that_is_its_budget_keeps_it():
    rtt_ns, latency_ns = np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 2.0])
    assert [crossing(rtt_ns, latency_ns, budget_ns, 9.0) for budget_ns in (0.9, 1.0, 1.5, 2.0)] == [-np.inf, 0.0, 0.5, np.inf]
    unknown = crossing(np.tile(np.arange(4.0), (2, 1)), np.array([[1.0, 2.0, 3.0, np.nan], [1.0, np.nan, 3.0, 4.0]]), 2.5, 9.0)
    assert np.isnan(unknown).all()


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
    k = Estimate(value=0.0, low=low, high=high, without=rounds)
    assert independent(k) is shown
    assert {one.verdict for one in negligible(k, interrupted=True)} == {"unknown"}


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
    (0.5, 0.9975, 1, True),
])  # fmt: skip
def test_a_slope_that_reaches_below_0_or_stays_below_light_is_no_line(low, high, trips, refused):
    k = Estimate(value=(low + high) / 2, low=low, high=high)
    assert bool(no_line(k, trips)) is refused
    assert bool(no_line(Estimate(value=low), trips)) is (trips > 0 and low < trips * 0.998)
    for half in ({"low": low}, {"high": high}, {}):  # Half an interval is none.
        assert ends_of(Estimate(value=0.3, **half)) == (0.3, 0.3)


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
    (1, (-0.04, 0.04), [1.0, 1.9, 2.1], "unknown"),  # A protocol that waits for its peer holds nowhere by its median alone.
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


def test_a_height_that_no_verdict_may_rest_on_holds_nowhere_for_sure():
    outcome, reason = holds(Estimate(value=1.9, low=1.8, high=2.0, without=[1.9]), 9.0)
    assert outcome == "unknown" and str(reason) == f"does not depend on distance: {one_round()}"
