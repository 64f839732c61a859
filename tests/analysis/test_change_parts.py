"""What a comparison is made of, part by part and worked out on paper: scales, errors, noise floors, families, margins."""

from __future__ import annotations

import math
from itertools import combinations

import msgspec
import numpy as np
import pytest
from scipy import stats

from farwrite.analysis import change
from farwrite.analysis.between_runs import NO_HISTORY, ONE_HOUR, EarlierRuns, RunHistory
from farwrite.analysis.change import Change, Draft, Spread
from farwrite.analysis.result import Estimate
from farwrite.base import reasons
from farwrite.base.errors import UnfitError, UsageError
from make_figures import at, figure, hours_alike, measured, result_set

SLOT_ERROR = 2.0**-10 / math.sqrt(12)  # Of a latency: uniform within a slot of the histogram.


def noisy(made):
    return msgspec.structs.replace(made, host_noise=[reasons.other_programs(0.5, 0.25)])


# Scales and errors


def test_what_is_compared_by_difference_has_a_margin_in_its_own_unit():
    margins = {
        "k_p50": 0.05, "k_p99": 0.05, "a_p50": 20_000.0, "a_p99": 20_000.0, "greatest_miles_p50": 2.0, "greatest_miles_p99": 2.0,
        "outage_share": 0.01, "response_p50": 0.05,
    }  # fmt: skip
    for metric, margin in margins.items():
        row = change.compare([result_set(measured(metric, [9.0] * 4))], [result_set(measured(metric, [9.0] * 4))]).rows[0]
        assert row.margin == margin and row.relative == (metric == "response_p50")


@pytest.mark.parametrize(("value", "relative", "expected"), [
    (math.e, True, 1.0), (0.5, True, math.log(0.5)), (0.0, True, None), (-1.0, True, None), (-1.0, False, -1.0),
    (0.0, False, 0.0),
    (None, False, None), (None, True, None), (math.inf, False, None), (math.nan, True, None),
])  # fmt: skip
def test_a_scale_is_logarithmic_where_ratios_matter(value, relative, expected):
    assert change.scaled(value, relative) == (None if expected is None else pytest.approx(expected))
    if expected is not None and relative:
        assert change.printed_change(expected, True) == pytest.approx(value - 1)
    assert change.printed_change(0.3, False) == 0.3


def test_two_ratios_of_counts_are_the_same_up_to_rounding():
    assert change.same(1.0, 1.0 + 9e-13) and not change.same(1.0, 1.0 + 1.2e-12) and change.same(0.0, 0.0)


def test_a_figure_that_every_round_had_alike_is_constant():
    def ratio(value, *without):
        return figure("flushes_per_write", value, without=list(without))

    assert change.is_constant(ratio(1.0, 1.0, None, 1.0)) and change.is_constant(ratio(1.0))
    assert not change.is_constant(ratio(1.0, 1.0, 1.1)) and not change.is_constant(ratio(None))
    assert change.is_count(ratio(1.0)) and not change.is_count(ratio(1.0, 1.0)) and not change.is_count(figure("k_p50", 1.0))
    assert change.always_zero(ratio(0.0, 0.0, None)) and not change.always_zero(ratio(0.0, 0.0, 1.0))
    assert not change.always_zero(ratio(1.0)) and not change.always_zero(ratio(None))


@pytest.mark.parametrize("value", [-2.0, 0.0, 3.0])
@pytest.mark.parametrize("limit", [-2.5, -2.0, 0.0, 3.0, 3.5])
def test_tails_are_students_and_without_an_error_all_or_nothing(value, limit):
    made, sure = Change(value, 0.7, 4.0), Change(value, 0.0, 4.0)
    assert made.tail_above(limit) == pytest.approx(stats.t.sf((value - limit) / 0.7, 4))
    assert made.tail_below(limit) == pytest.approx(stats.t.cdf((value - limit) / 0.7, 4))
    assert made.chance() == pytest.approx(2 * stats.t.sf(abs(value) / 0.7, 4))
    assert (sure.tail_above(limit), sure.tail_below(limit)) == (float(value <= limit), float(value >= limit))
    assert sure.chance() == float(value == 0) and sure.interval() == (value, value)
    assert made.interval(0.9) == pytest.approx(stats.t.interval(0.9, 4, value, 0.7))


def test_the_error_of_a_figure_is_the_larger_of_rounds_left_out_and_rounds_alone():
    wide, tight = [1.0, 2.0, 3.0], [2.0, 2.0, 2.01]
    for without, alone, expected in ((wide, tight, 2 / 3 * 2), (tight, wide, 1 / 3), (wide, [], 4 / 3)):
        found = change.spread(figure("k_p50", 2.0, without=without, by_round=alone))
        error = math.sqrt(expected) if alone is not wide else math.sqrt(1 / 3)
        assert (found.value, found.df) == (2.0, 2) and found.error == pytest.approx(error)
    one_alone = figure("k_p50", 2.0, without=[1.0, 3.0], by_round=[9.0])
    assert change.spread(one_alone).error == pytest.approx(1.0)
    assert change.spread(figure("k_p50", 2.0, without=[2.0, 2.0], by_round=[1.0, 3.0])).error == pytest.approx(1.0)
    latency = change.spread(measured("response_p50", [1e6] * 4))
    assert latency.error == pytest.approx(SLOT_ERROR)
    assert change.spread(measured("throughput", [1e3] * 4)).error == change.spread(measured("a_p50", [1e3] * 4)).error == 0
    assert change.spread(figure("lost_writes", 3.0)) == Spread(3.0, 0.0, math.inf)


def test_a_figure_that_cannot_be_judged_says_why():
    assert change.spread(figure("flushes_per_write", 0.0, without=[0.0, 0.1])) == "it is 0, and no ratio tells a change from that"
    assert change.spread(figure("k_p50", None, warnings=["too few"])) == "too few"
    assert "one round only" in change.spread(figure("k_p50", 1.0, without=[1.0]))
    assert isinstance(change.spread(figure("k_p50", 1.0, without=[1.0, 1.0])), Spread)


def test_rounds_are_those_measured_alone_or_what_leaving_each_out_takes_away():
    alone = figure("response_p50", 9.0, by_round=[math.e, None, 1.0], without=[1.0, 2.0, 3.0])
    assert change.rounds_of(alone) == pytest.approx({0: 1.0, 2: 0.0})
    mean = figure("k_p50", 2.0, without=[2.5, None, 1.5])  # Of 1 and 3, had each been left out of two.
    assert change.rounds_of(mean) == pytest.approx({0: 1.5, 2: 2.5})
    assert change.rounds_of(figure("k_p50", None, without=[1.0, 2.0])) == {}


@pytest.mark.parametrize("paired", [True, False])
def test_a_latencys_change_is_no_surer_than_its_slots(paired):
    ours, theirs = measured("response_p50", [1e6] * 4), measured("response_p50", [2e6] * 4)
    found = change.change_of(ours, theirs, paired)
    assert found.value == pytest.approx(math.log(2)) and found.error == pytest.approx(math.sqrt(2) * SLOT_ERROR)
    assert found.df == (3 if paired else 6)


def test_pairs_are_rounds_of_the_same_index_and_two_are_needed():
    ours = figure("k_p50", 1.0, by_round=[1.0, 2.0, 4.0, None], without=[1.0, 1.1, 0.9, 1.0])
    theirs = figure("k_p50", 1.0, by_round=[None, 3.0, 6.0, 5.0], without=[1.0, 1.1, 0.9, 1.0])
    found = change.change_of(ours, theirs, True)
    assert (found.value, found.error, found.df) == pytest.approx((1.5, 0.5, 1))
    one = figure("k_p50", 1.0, by_round=[None, 3.0, None, 5.0], without=[1.0, 1.1, 0.9, 1.0])
    apart = change.change_of(ours, one, True)  # One pair tells nothing: as two that have nothing in common.
    assert apart.value == pytest.approx(4.0 - 7 / 3)
    known = stats.ttest_ind([3.0, 5.0], [1.0, 2.0, 4.0], equal_var=False)
    assert (apart.df, apart.chance()) == pytest.approx((known.df, known.pvalue))


def test_where_a_side_has_not_two_rounds_that_side_is_named():
    two, one = measured("k_p50", [1.0, 1.2]), figure("k_p50", 1.0, by_round=[1.0], without=[1.0, 1.1])
    assert change.change_of(one, two, False).startswith("baseline: not two whole rounds")
    assert change.change_of(two, one, False).startswith("candidate: not two whole rounds")
    assert isinstance(change.change_of(two, two, False), Change)
    none = figure("k_p50", None, warnings=["too few"])
    assert change.change_of(none, two, True) == "baseline: too few" and change.change_of(two, none, True) == "candidate: too few"


def test_what_the_machine_did_beside_it_withholds_only_what_was_not_measured_side_by_side():
    quiet, loud = measured("k_p50", [1.0, 1.1]), noisy(measured("k_p50", [1.0, 1.1]))
    assert isinstance(change.change_of(quiet, loud, True), Change)
    assert change.change_of(quiet, loud, False).startswith("candidate: ")
    assert change.change_of(loud, quiet, False).startswith("baseline: ")
    withheld = measured("k_p50", [1.0, 1.1], withheld=["late"])
    assert change.change_of(withheld, quiet, True) == "baseline: late"


def test_what_runs_differ_by_is_in_the_error_of_two_runs_and_not_of_pairs():
    ours, theirs = measured("k_p50", [1.0, 1.1, 1.2]), measured("k_p50", [2.0, 2.1, 2.2])
    between = ONE_HOUR._replace(runs=5, whole=0.5)
    assert change.change_of(ours, theirs, False, between).error == pytest.approx(math.sqrt(2 * 0.01 / 3 + 2 * 0.5))
    assert change.change_of(ours, theirs, False).error == pytest.approx(math.sqrt(2 * 0.01 / 3))
    one = [figure("k_p50", alone[1], by_round=alone, without=[1.0, 1.1]) for alone in ([1.0, 1.2, None], [None, 2.0, 2.2])]
    # One pair only, and of one hour all the same.
    assert change.change_of(*one, True, between).error == pytest.approx(math.sqrt(2 * 0.01))


def test_errors_that_have_nothing_in_common_add_up_squared():
    assert change.welch(Spread(0, 0.3, 4), Spread(0, 0.4, 6)) == pytest.approx((0.5, 0.25**2 / (0.09**2 / 4 + 0.16**2 / 6)))
    assert change.welch(Spread(0, 0.1, 4), Spread(0, 0.1, 4)) == pytest.approx((math.sqrt(0.02), 8))
    assert change.welch(Spread(0, 0.0, 4), Spread(0, 0.0, 6)) == (0.0, 10)
    losses = change.change_of(figure("lost_writes", 1.0), figure("lost_writes", 3.0), False)
    assert losses == Change(2.0, 0.0, math.inf)


def test_a_run_has_a_level_where_it_has_two_rounds_that_are_no_counts():
    level = change.level_of(measured("response_p50", [1e6, 1e6, 1e6]))
    assert level.value == pytest.approx(math.log(1e6)) and level.error == pytest.approx(SLOT_ERROR) and level.df == 2
    assert change.level_of(measured("k_p50", [1.0, 3.0])) == pytest.approx(Spread(2.0, 1.0, 1))
    assert change.level_of(figure("lost_writes", 1.0, by_round=[1.0, 2.0])) is None
    assert change.level_of(figure("k_p50", 1.0, by_round=[1.0])) is None


# Several runs


def runs(*values, metric="k_p50", **fields):
    return [measured(metric, [value, value], **fields) for value in values]


def test_several_runs_a_side_are_one_value_each():
    found = change.change_of_runs(runs(1.0, 1.2, 1.4), runs(2.0, 2.4))
    known = stats.ttest_ind([2.0, 2.4], [1.0, 1.2, 1.4], equal_var=False)
    assert found.value == pytest.approx(1.0) and (found.df, found.chance()) == pytest.approx((known.df, known.pvalue))
    counts = change.change_of_runs(*([figure("lost_writes", value) for value in side] for side in ((0.0, 3.0, 1.0), (5.0, 0.0))))
    assert (counts.value, counts.error) == (2.0, 0.0)
    zero = [figure("flushes_per_write", 0.0, without=[0.0, 0.0])] * 2
    assert change.change_of_runs(zero, zero) == Change(0.0, 0.0, math.inf)
    assert change.change_of_runs(zero, runs(1.0, 1.1, metric="flushes_per_write")) == "baseline: 0 of 2 runs have a value"
    assert change.change_of_runs(runs(1.0, 1.1), [*runs(1.0), figure("k_p50", None)]) == "candidate: 1 of 2 runs have a value"
    assert change.change_of_runs(runs(1.0, 1.1), [*runs(1.0), *map(noisy, runs(1.1))]).startswith("candidate: ")


def test_a_time_that_is_generators_lateness_to_more_than_a_twentieth_is_not_compared():
    def late(share):
        return figure("response_p50", 1e6, without=[1e6, 1e6], late_ns=share * 1e6)

    assert change.late_refusal([late(0.05)], [late(0.0), late(0.04)]) == ""
    assert change.late_refusal([late(0.0), late(0.06)], [late(0.0)]).startswith("baseline: ")
    assert change.late_refusal([late(0.0)], [late(0.0), late(0.06)]).startswith("candidate: ")
    for number in (1, 2):
        sides = [result_set(late(0.0))] * number, [result_set(late(0.06))] * number
        rows = change.compare(*sides, history=hours_alike(late(0.0))).rows
        assert rows[0].verdict == "unresolved" and rows[0].sentence.startswith("candidate: ")


# The noise floor


def test_the_floor_is_of_the_same_measured_again_else_of_earlier_runs_else_of_the_rounds():
    base = measured("k_p50", [1.0, 1.1, 1.3, 1.7])
    levels = [Spread(value, 0.1, 4) for value in (1.0, 1.5, 2.2)]
    history = RunHistory(EarlierRuns(results="r", runs=3), {change.key_of(base): levels})
    between = history.between(change.key_of(base))
    assert change.noise_floor(base, history, between, {"k_p50": 7.0}) == 7.0
    assert change.noise_floor(base, history, between, {}) is None
    assert change.noise_floor(base, history, between, None) == pytest.approx(1.2)
    assert change.noise_floor(base, NO_HISTORY, None, None) == change.floor_of_splits(base) > 0


@pytest.mark.parametrize("count", [4, 5, 9, 10])
def test_halves_are_scaled_to_what_two_whole_runs_would_differ_by(count):
    rounds = np.random.default_rng(count).normal(5, 1, count)
    half = count // 2
    scale = math.sqrt((2 / count) / (1 / half + 1 / (count - half)))
    differences = []
    for some in combinations(range(count), half):
        rest = [rounds[index] for index in range(count) if index not in some]
        differences.append(scale * abs(np.mean([rounds[index] for index in some]) - np.mean(rest)))
    expected = sorted(differences)[math.ceil(0.95 * len(differences)) - 1]
    assert change.floor_of_splits(measured("k_p50", rounds)) == pytest.approx(expected)


def test_many_rounds_are_halved_in_as_many_ways_as_ten_have_and_always_the_same():
    drawn = [list(map(tuple, change.halvings(range(11), 5))) for _ in range(2)]
    assert drawn[0] == drawn[1] and len(drawn[0]) == math.comb(10, 5) == change.SPLITS
    assert all(len(set(one)) == 5 for one in drawn[0]) and len(set(drawn[0])) > 100
    assert len(list(change.halvings(range(10), 5))) == 252


def test_an_aa_controls_floor_is_the_95th_percentile_over_all_cells_of_a_metric():
    bases = [measured("k_p50", [1.0, 1.2], at(miles)) for miles in range(20)] + [measured("a_p50", [5.0, 7.0])]
    again = [measured("k_p50", [1.0 - 0.1 * miles, 1.2 - 0.1 * miles], at(miles)) for miles in range(20)]
    again.append(figure("a_p50", 9.0, by_round=[9.0]))
    bases.append(figure("k_p99", 9.0, by_round=[9.0]))
    again.append(measured("k_p99", [5.0, 7.0]))
    bases.append(measured("response_p50", [1e6, 1e6]))
    again.append(bases[-1])
    found = change.floors_of_aa_control(bases, {change.key_of(item): item for item in again})
    # The 19th of 20; the others were measured once only on one side.
    assert found == {"k_p50": pytest.approx(1.8), "response_p50": 0.0}
    assert change.floors_of_aa_control(bases, {}) == {}


def test_what_runs_of_one_side_differ_by_is_told_from_both_sides():
    assert change.floor_of_runs(runs(1.0, 1.3), runs(2.0, 2.1)) == pytest.approx(0.3)
    assert change.floor_of_runs(runs(1.0, 1.1), [*runs(2.0, 2.5), figure("k_p50", None)]) == pytest.approx(0.5)
    assert change.floor_of_runs(runs(1.0), runs(2.0)) is None
    assert change.apart([1.0, 4.0, 2.0]) == [3.0, 1.0, 2.0]


# What is compared with what


def test_a_side_is_one_run_or_several_as_the_other():
    one, pair = result_set(), [result_set(arm="base"), result_set(arm="cand")]
    assert change.replication([one], [one]) == "rounds" and change.replication(pair[:1], pair[1:]) == "pairs"
    assert change.replication([one, one], [one, one]) == "runs" and change.replication(pair[:1], [one]) == "rounds"
    for sides in (([one], [one, one]), ([one, one], [one])):
        with pytest.raises(UsageError):
            change.replication(*sides)
    other = msgspec.structs.replace(pair[1], pairing=msgspec.structs.replace(pair[1].pairing, id="another"))
    assert not change.are_paired(pair[0], other) and not change.are_paired(one, pair[0]) and change.are_paired(*pair)


def test_runs_are_alike_unless_a_field_differs_that_is_not_allowed_to():
    ours, theirs = result_set(host="a"), result_set(host="b")
    assert change.check_alike([ours], [ours], set()) == []
    assert change.check_alike([ours], [theirs], {"host"}) == ["the sides differ in host (a | b)"]
    with pytest.raises(UnfitError):
        change.check_alike([ours, theirs], [ours], set())
    half = msgspec.structs.replace(ours, interrupted=True)
    assert change.check_alike([ours], [half], {"cells"}) == ["made-up is of an interrupted run"]
    arms = [result_set(host="a", arm="base"), result_set(host="b", arm="cand")]
    assert change.check_alike(arms[:1], arms[1:], set()) == ["the sides differ in host (a | b)"]
    strangers = msgspec.structs.replace(arms[1], pairing=msgspec.structs.replace(arms[1].pairing, id="another"))
    for other in (strangers, theirs):  # Not of one experiment.
        with pytest.raises(UnfitError):
            change.check_alike(arms[:1], [other], set())


def test_one_budget_and_the_straight_route_stand_for_all_miles():
    labels = [{"route": route, "budget": budget} for route in (1.0, 2.1) for budget in ("1 ms", "2 ms")]
    sheet = result_set(*(figure("greatest_miles_p50", 9.0, one) for one in labels), figure("floor", 1.0), figure("k_p50", 1.0))
    kept = change.by_key(sheet).values()
    assert [item.metric for item in kept] == ["greatest_miles_p50", "k_p50"]
    assert next(iter(kept)).labels == {"route": 1.0, "budget": "2 ms"}
    other = msgspec.structs.replace(sheet, kind="fio")
    assert [item.metric for item in change.by_key(other).values()] == ["greatest_miles_p50", "floor", "k_p50"]


def test_a_figure_is_the_same_in_whatever_order_its_labels_were_written():
    labels = {"name": "w", "miles": 20.0}
    assert change.key_of(figure("k_p50", 1.0, labels)) == change.key_of(figure("k_p50", 2.0, dict(reversed(labels.items()))))


def test_a_figure_applies_where_one_side_has_a_value_or_a_reason_for_none():
    nothing, reason = figure("k_p50", None), figure("k_p50", None, warnings=["too few"])
    assert not change.applies([nothing, nothing])
    assert change.applies([nothing, reason]) and change.applies([figure("k_p50", 0.0), nothing])


def test_two_instants_lie_apart_by_seconds_wherever_they_were_written():
    assert change.seconds("2026-01-01T00:00:00+00:00", "2026-01-01T02:00:01+01:00") == 3601.0
    assert change.seconds("2026-01-01T01:00:00", "2026-01-01T00:00:00+00:00") == 3600.0
    assert change.seconds("yesterday", "2026-01-01T00:00:00+00:00") is None and change.seconds("2026-01-01", "") is None


@pytest.mark.parametrize(("last", "warned"), [
    ("2026-01-02T03:04:05+00:00", False), ("2026-01-02T03:04:04+00:00", True), ("", False),
])  # fmt: skip
def test_runs_are_warned_about_that_lie_farther_apart_than_all_earlier_ones(last, warned):
    about = EarlierRuns(results="r", runs=3, first_utc="2026-01-02T01:04:05+00:00", last_utc=last)
    ours, theirs = (msgspec.structs.replace(result_set(), started_utc=f"2026-01-02T0{hour}:04:05+00:00") for hour in (3, 5))
    assert bool(change.hours_apart(ours, theirs, RunHistory(about, {}))) == warned
    unread = msgspec.structs.replace(theirs, started_utc="once")
    assert change.hours_apart(ours, unread, RunHistory(about, {})) == []
    few = msgspec.structs.replace(about, runs=2)
    assert "run to run is not known" in change.hours_apart(ours, theirs, RunHistory(few, {}))[0]


# Rows


def test_a_typical_round_is_the_mean_of_rounds_on_their_scale():
    made = change.typical(measured("response_p50", [1e6, 4e6], low=1.0, high=9.0))
    assert made.value == pytest.approx(2e6) and made.confidence == 0.95
    half = stats.t.isf(0.025, 1) * math.log(2)
    assert (math.log(made.low), math.log(made.high)) == pytest.approx((math.log(2e6) - half, math.log(2e6) + half))
    trips = change.typical(measured("k_p50", [1.0, 3.0]))
    assert (trips.value, trips.high - trips.low) == pytest.approx((2.0, 2 * stats.t.isf(0.025, 1)))
    assert change.typical(figure("response_p50", 5e6, by_round=[1e6, 4e6])).value == pytest.approx(2e6)  # Not as it was pooled.
    for as_it_is in (figure("lost_writes", 3.0, by_round=[1.0, 2.0]), figure("k_p50", 5.0, by_round=[1.0])):
        assert change.typical(as_it_is) is as_it_is.estimate
    assert math.isfinite(change.typical(measured("response_p50", [1e-300, 1e300])).high)


def test_several_runs_stand_in_the_table_as_their_middle_and_their_range():
    only = runs(5.0)
    assert change.middle(only) is only[0]
    made = change.middle([*runs(3.0, 1.0), figure("k_p50", None), *runs(2.5)]).estimate
    assert (made.value, made.low, made.high, made.count) == (pytest.approx(6.5 / 3), 1.0, 3.0, 3)
    ratio = change.middle(runs(1e6, 4e6, metric="response_p50")).estimate
    assert (ratio.value, ratio.without) == (pytest.approx(2e6), [None])
    counts = change.middle([figure("lost_writes", value) for value in (0.0, 4.0, 1.0)]).estimate
    assert (counts.value, counts.low, counts.high, counts.without) == (4.0, 0.0, 4.0, [])
    none = [figure("k_p50", None), figure("k_p50", None)]
    assert change.middle(none) is none[0]


def draft(value=0.0, error=0.01, df=4.0, metric="k_p50", floor=None, ours=None, theirs=None, hours_apart=False, runs=0):
    base = ours if ours is not None else measured(metric, [1.0, 1.1])
    return Draft(base, theirs if theirs is not None else base, Change(value, error, df), floor, hours_apart, runs)


def judged(made, p_adjusted=0.001, alpha=0.05, margin=0.05):
    return change.row_of(made, 0.001, p_adjusted, margin, alpha)


@pytest.mark.parametrize(("value", "error", "p", "floor", "verdict", "words"), [
    (0.0, 0.01, 1.0, None, "same", "within the margin"), (0.2, 0.01, 0.05, None, "worse", "beyond the noise floor"),
    (-0.2, 0.01, 0.05, None, "better", "beyond the noise floor"), (0.2, 0.01, 0.051, None, "unresolved", "likely a change"),
    (-0.2, 0.01, 0.051, None, "unresolved", "likely a change"), (0.2, 0.2, 0.06, None, "unresolved", "reaches beyond the margin"),
    (0.2, 0.01, 0.01, 0.2, "unresolved", "measured twice"), (0.2, 0.01, 0.01, 0.19, "worse", "noise floor"),
    (0.05, 0.01, 0.01, None, "unresolved", "lies within the margin"), (0.06, 0.01, 0.01, None, "worse", "noise floor"),
    (-0.05, 0.01, 0.01, 0.9, "unresolved", "lies within the margin"),
    (0.0, 0.05 / 2.77, 1.0, None, "unresolved", "reaches beyond"),
    (0.0, 0.05 / 2.78, 1.0, None, "same", "within the margin"), (0.03, 0.01, 1.0, None, "unresolved", "likely a change"),
    (-0.03, 0.01, 1.0, None, "unresolved", "likely a change"),
])  # fmt: skip
def test_a_row_is_the_same_a_change_or_unresolved(value, error, p, floor, verdict, words):
    """k, with its margin of 0.05; four degrees of freedom, so the interval is 2.776 errors wide on either side."""
    row = judged(draft(value, error, floor=floor), p)
    assert row.verdict == verdict and words in row.sentence
    assert (row.change.value, row.change.confidence, row.change.count) == (value, 0.95, 5)
    assert (row.change.low, row.change.high) == pytest.approx(stats.t.interval(0.95, 4, value, error))
    assert row.floor == floor and row.p == 0.001


@pytest.mark.parametrize(("value", "verdict"), [(0.048, "same"), (0.0495, "unresolved"), (-0.048, "same"), (0.06, "slower")])
def test_a_relative_margin_is_a_ratio(value, verdict):
    """log 1.05 is 0.0488."""
    row = judged(draft(value, 1e-5, metric="response_p50", floor=0.01), p_adjusted=0.001 if verdict == "slower" else 1.0)
    assert row.verdict == verdict
    assert (row.change.value, row.floor) == (pytest.approx(math.expm1(value)), pytest.approx(math.expm1(0.01)))


def test_two_runs_of_different_hours_speak_of_themselves_only_unless_it_is_known_what_hours_do():
    assert judged(draft(0.2, hours_apart=True)).verdict == "differs" and judged(draft(0.0, hours_apart=True)).verdict == "alike"
    assert judged(draft(0.2, hours_apart=True, runs=3)).verdict == "worse"
    built_in = [figure("flushes_per_write", value, without=[value] * 3) for value in (1.0, 1.5)]
    made = draft(0.4, 1e-9, ours=built_in[0], theirs=built_in[1], hours_apart=True)
    assert judged(made).verdict == "worse"
    level = [figure("k_p50", value, without=[value] * 3) for value in (1.0, 1.5)]
    assert judged(draft(0.5, 1e-9, ours=level[0], theirs=level[1], hours_apart=True)).verdict == "differs"  # Not counted.
    varies = figure("flushes_per_write", 1.5, without=[1.5, 1.6, 1.4])
    assert judged(made._replace(cand=varies)).verdict == judged(made._replace(base=varies)).verdict == "differs"


@pytest.mark.parametrize(("base", "cand", "verdict"), [(0, 0, "same"), (0, 2, "worse"), (2, 0, "better"), (1, 2, "unresolved")])
def test_counts_are_the_same_or_none_on_one_side(base, cand, verdict):
    ours, theirs = figure("lost_writes", base), figure("lost_writes", cand)
    row = change.row_of(Draft(ours, theirs, Change(cand - base, 0.0, math.inf), None, False, 0), None, None, 0.05, 0.05)
    assert row.verdict == verdict and (row.change.value, row.change.low, row.change.high) == (cand - base,) * 3
    assert row.change.confidence == 1.0 and row.p is None and row.counted


def test_no_probability_is_above_1():
    assert change.holm([0.9, 0.95]) == [1.0, 1.0]


def test_holms_procedure_is_of_results_and_of_conditions_apart():
    """A change that is one among three results, and would be none were the link's round trip a fourth."""
    results = [draft(0.2, error) for error in (0.0488, 0.2, 0.2)]
    link = draft(0.2, 0.0488, ours=measured("rtt_p50", [1e6, 1e6]))
    counts = draft(1.0, 0.0, math.inf, ours=figure("lost_writes", 1.0))
    said = Draft(results[0].base, results[0].cand, "baseline: late", None, False, 0)
    rows = change.rows_of([*results, link, counts, said], 0.05, 0.05)
    p = results[0].change.chance()
    assert 3 * p < 0.05 < 4 * p
    assert [row.p for row in rows] == pytest.approx([p, results[1].change.chance(), results[1].change.chance(), p, None, None])
    assert [row.verdict for row in rows[:4]] == ["worse", "unresolved", "unresolved", "higher"]
    assert rows[5].verdict == "unresolved" and rows[5].sentence == "baseline: late" and rows[5].change.value is None


@pytest.mark.parametrize(("metric", "by", "verdict"), [
    ("response_p50", 1, "slower"), ("response_p50", -1, "faster"), ("throughput", 1, "faster"), ("throughput", -1, "slower"),
    ("k_p50", 1, "worse"), ("k_p50", -1, "better"), ("greatest_miles_p50", 1, "better"), ("rtt_p50", 1, "higher"),
    ("rtt_p50", -1, "lower"),
])  # fmt: skip
def test_a_direction_has_its_word(metric, by, verdict):
    assert change.direction(figure(metric, 1.0), by) == verdict


def sized(value, relative=True, margin=0.05, base=1.0):
    row = judged(draft(0.2))
    return msgspec.structs.replace(row, change=Estimate(value=value), relative=relative, margin=margin, base=Estimate(value=base))


def test_rows_are_sorted_by_how_many_margins_they_are():
    assert change.size_in_margins(sized(-0.1)) == pytest.approx(2) and change.size_in_margins(sized(None)) == -1.0
    assert change.size_in_margins(sized(-10.0, False, 2.0, 600.0)) == pytest.approx(10 / 600 / 0.05)
    assert change.size_in_margins(sized(10.0, False, 2.0, -20.0)) == pytest.approx(5)
    assert [change.size_in_margins(sized(10.0, False, 2.0, base)) for base in (0.0, None)] == pytest.approx([5, 5])
    assert change.size_in_margins(sized(0.1, True, 0.05, 1e9)) == pytest.approx(2)
    count = msgspec.structs.replace(sized(0.01), counted=True)
    verdicts = ("worse", "slower", "higher", "differs", "unresolved", "faster", "same", "alike")
    ranks = [change.worst_first(msgspec.structs.replace(sized(0.1), verdict=verdict))[0] for verdict in verdicts]
    assert ranks == [0, 0, 1, 1, 2, 3, 4, 4]
    assert sorted([sized(0.1), sized(0.3), count], key=change.worst_first)[0] is count


def test_a_table_errs_once_in_twenty_where_nobody_says_otherwise():
    ours = result_set(measured("k_p50", [9.0] * 4))
    found = change.compare([ours], [ours])
    assert (found.alpha, found.margin_ratio) == (0.05, 0.05)
    exact = change.compare([ours], [ours], alpha=0.01, margin_ratio=0.1)
    assert (exact.alpha, exact.margin_ratio) == (0.01, 0.1)
