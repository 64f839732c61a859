"""Where a search measures next: it closes in on the crossing of any latency curve that rises, whatever the noise."""

import random

import pytest

from farwrite.analysis.analyse import analyse
from farwrite.base.physics import miles_of, rtt_ns_of
from farwrite.experiment.reach import Point, bracket_of, farthest_of, next_distances, resolution_of, rising, round_ns_of
from farwrite.report.reach import sentences
from farwrite.workload.profile import parse
from make_recording import World, record

MS = 1e6

# What a write waits for at so many ns of round trip: sums, and maxima of things of which the distance is only one.
CURVES = {
    "sum": lambda rtt: 0.4 * MS + rtt,
    "a disk here beside a round trip": lambda rtt: max(1.9 * MS, rtt + 0.2 * MS),
    "two round trips": lambda rtt: 0.3 * MS + 2 * rtt,
    "flat, then steep": lambda rtt: max(1.0 * MS, 3 * rtt - 4 * MS, rtt),
    "a knee just before the budget": lambda rtt: 0.1 * MS + rtt + max(0.0, 6 * (rtt - 3.2 * MS)),
}


def crossing_of(curve, budget_ns, farthest):
    """The oracle: the greatest distance within the budget, by trying very many."""
    places = [farthest * step / 20_000 for step in range(20_001)]
    within = [place for place in places if curve(rtt_ns_of(place)) <= budget_ns]
    return max(within) if within else None


def searched(curve, budget_ns, farthest, noise=0.0, seed=0, steps=14):
    """The bracket after so many steps, and the distances that were measured."""
    dice, values = random.Random(seed), {}
    for _ in range(steps):
        points = [
            Point(miles, sum(seen) / len(seen), min(seen), max(seen)) for miles, seen in values.items()
        ]  # fmt: skip
        chosen = next_distances(points, budget_ns, farthest)
        if not chosen:
            break
        for miles in chosen:
            for _ in range(5):
                values.setdefault(miles, []).append(curve(rtt_ns_of(miles)) * (1 + noise * dice.gauss(0, 1)))
    points = [Point(miles, sum(seen) / len(seen), min(seen), max(seen)) for miles, seen in values.items()]
    return bracket_of(points, budget_ns), values


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("budget_ms", [2.5, 4, 10])
def test_the_bracket_closes_around_the_crossing(name, budget_ms):
    curve, budget_ns = CURVES[name], budget_ms * MS
    farthest = miles_of(budget_ns)
    truth = crossing_of(curve, budget_ns, farthest)
    bracket, values = searched(curve, budget_ns, farthest)
    assert bracket.near.miles <= truth <= bracket.far.miles
    assert bracket.far.miles - bracket.near.miles <= 4 * resolution_of(truth)
    assert bracket.miles == pytest.approx(truth, abs=2 * resolution_of(truth))
    assert len(values) <= 14, "few distances, each measured well"


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("seed", range(10))
def test_noise_of_the_rounds_does_not_lead_the_search_away(name, seed):
    farthest = miles_of(4 * MS)
    truth = crossing_of(CURVES[name], 4 * MS, farthest)
    bracket, values = searched(CURVES[name], 4 * MS, farthest, noise=0.05, seed=seed)
    assert bracket.miles == pytest.approx(truth, abs=0.06 * truth)
    assert all(0 <= miles <= farthest for miles in values), "never beyond light"


def test_the_first_distances_are_nothing_half_and_all_of_lights_own_bound():
    assert next_distances([], 4 * MS, miles_of(4 * MS)) == [0.0, 126.0, 253.0]


def test_a_budget_that_is_exhausted_at_nothing_ends_the_search():
    spent = [Point(miles, 5 * MS, 4.9 * MS, 5.1 * MS) for miles in (0.0, 126.0, 253.0)]
    assert next_distances(spent, 4 * MS, 253.9) == []


def test_a_budget_that_nothing_may_exhaust_is_measured_again_there():
    unsure = [Point(0.0, 4.1 * MS, 3.5 * MS, 4.7 * MS), Point(126.0, 6 * MS, 5.9 * MS, 6.1 * MS)]
    assert next_distances(unsure, 4 * MS, 253.9) == [0.0]


def test_a_budget_that_holds_everywhere_ends_the_search():
    flat = [Point(miles, 1 * MS, 0.9 * MS, 1.1 * MS) for miles in (0.0, 1500.0, 3000.0)]
    assert next_distances(flat, 4 * MS, 3000.0) == []


def test_a_curve_that_falls_is_pooled():
    points = [Point(0, 1.0, 1, 1), Point(10, 3.0, 3, 3), Point(20, 2.0, 2, 2), Point(30, 4.0, 4, 4)]
    assert [point.value_ns for point in rising(points)] == [1.0, 2.5, 2.5, 4.0]


TEXT = """
title = "t"
[distance]
miles = [0, 20, 60, 100, 150, 186]
[run]
rounds = 5
round = "400 ms"
survey_echoes = 20
[reach]
{key} = "{budget}"
[[cell]]
name = "write"
protocols = ["{protocol}"]
"""


def profile_of(budget, key="p50", protocol="C"):
    return parse(TEXT.format(key=key, budget=budget, protocol=protocol))


@pytest.mark.parametrize(("protocol", "trips"), [("B", 1), ("C", 1), ("C2", 2)])
def test_light_bounds_the_search(protocol, trips):
    assert farthest_of(profile_of("4 ms", protocol=protocol)) == pytest.approx(miles_of(4 * MS / trips))


def test_a_round_holds_enough_writes_for_its_quantile():
    assert round_ns_of(4_000_000, 0.99) / 4e6 * 3 >= 368
    assert round_ns_of(4_000_000, 0.99, 32) >= 500e6


def answer(budget, key="p50", protocol="C", **truth):
    recording = record(profile_of(budget, key, protocol), World(**truth), 1, "disk", True, "netem", False)
    return analyse(recording).reach


def test_the_answer_is_the_analysis_own_for_three_routes():
    found = answer("2 ms")
    assert found.unknown == [] and found.nothing_ns is None
    assert [item.route_factor for item in found.miles] == [1.0, 1.3, 2.1]
    straight = found.miles[0].miles
    assert straight.value == pytest.approx(miles_of(2e6 - 300_000), rel=0.04)
    assert straight.low <= straight.value <= straight.high <= miles_of(2e6)
    said = sentences(found)
    assert "miles [" in said[0] and "km [" in said[0] and "best conduit" in said[2]


def test_a_latency_below_light_is_never_believed():
    found = answer("2 ms", a_ns=1_000.0, link_off_ns=-30_000.0)
    assert found.miles
    for item in found.miles:
        assert item.miles.value <= miles_of(2e6, item.route_factor)
        assert item.miles.high <= miles_of(2e6, item.route_factor)


def test_a_budget_spent_at_nothing_is_answered():
    found = answer("0.2 ms")
    assert found.unknown == []
    assert [item.miles.value for item in found.miles] == [0.0, 0.0, 0.0]
    assert "spent before the first mile" in sentences(found)[0]


def test_what_the_link_withholds_is_unknown_with_its_reason():
    found = answer("2 ms", link_off_ns=120_000.0)
    assert any("the link was not what it claimed" in str(reason) for reason in found.unknown)
    assert "unknown" in sentences(found)[0]


def test_too_few_writes_are_named():
    found = answer("2 ms", key="p99", writes=20)
    assert "p99 is known at 0 of 6 distances" in str(found.unknown[0])
    assert any("needs n >= 368" in str(reason) for reason in found.unknown)


def test_what_does_not_depend_on_distance_holds_at_any():
    found = answer("2 ms", protocol="A")
    assert found.unknown == []
    assert "holds at any distance" in sentences(found)[0]
