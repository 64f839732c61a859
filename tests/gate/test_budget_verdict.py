"""What a verdict rests on, worked out on paper: families of tests, lateness, and what a gate could see with so many rounds."""

from __future__ import annotations

import math

import msgspec
import pytest
from scipy import stats

from farwrite.analysis.between_runs import ONE_HOUR
from farwrite.analysis.change import Change
from farwrite.analysis.verdict import TAIL, Trial
from farwrite.base import reasons
from farwrite.gate.budget import Budget
from farwrite.gate.budget_verdict import (
    ROUNDS_MAX,
    Case,
    examine_change,
    outcomes_of,
    printed_point,
    rounds_for,
    seen_error,
    sees,
    t_of,
    verdicts_of,
)
from make_figures import figure

LIMIT = 100_000.0
BUDGET = Budget(metric="a_p50", kind="at_most", limit=LIMIT, name="a")
ROUNDS = 5


def critical(p, df=ROUNDS - 1):
    return float(stats.t.isf(p, df))


def case(p: float, late_ns: float = 0.0, **fields) -> Case:
    """A figure in ns of five rounds, its standard error 1, for which chance alone would look as bad with probability `p`."""
    value = LIMIT + critical(p)
    step = math.sqrt(10) / (ROUNDS - 1)  # Rounds at -s, 0, 0, 0 and s with s = sqrt(10): leaving one out moves their mean so far.
    without = [value + by for by in (step, 0.0, 0.0, 0.0, -step)]
    return Case(BUDGET, figure("a_p50", value, without=without, late_ns=late_ns), **fields)


def codes(verdict):
    return [one.code for one in verdict.reasons]


def test_the_cases_are_what_they_say():
    for p in (0.001, 0.02, 0.3, 0.9):
        verdict, = verdicts_of([case(p)], 0.05)
        assert verdict.p_fail == pytest.approx(p) and verdict.p_pass == pytest.approx(1 - p)


def test_a_failure_that_lateness_turns_only_among_others_is_withheld():
    """Without the lateness it would be 0.02: enough for one of one, and 0.08 for one of four."""
    late = case(0.01, late_ns=critical(0.01) - critical(0.02))
    others = [case(0.5)] * 3
    assert outcomes_of([late], 0.05)[0].verdict == "fail"
    assert outcomes_of([case(0.01), *others], 0.05)[0].verdict == "fail"
    found = outcomes_of([late, *others], 0.05)[0]
    assert found.verdict == "unknown" and found.doubt is not None and found.doubt.code == "lateness"
    assert found.p_adjusted == pytest.approx(0.04)


def test_the_others_lateness_costs_a_failure_nothing():
    late = case(0.5, late_ns=5.0)
    assert [one.verdict for one in outcomes_of([late, case(0.01), late, late], 0.05)] == ["unknown", "fail", "unknown", "unknown"]


def test_what_is_unknown_anyway_is_not_blamed_on_lateness():
    for late_ns in (0.0, 1000.0):
        assert codes(verdicts_of([case(0.2, late_ns)], 0.05)[0]) == ["limit_inside"]
    assert codes(verdicts_of([case(0.01, 1000.0)], 0.05)[0]) == ["lateness"]


def test_of_one_look_is_meant_where_nobody_says_how_many():
    pair = [case(0.02), case(0.02)]
    assert [one.verdict for one in outcomes_of(pair, 0.05)] == ["fail", "fail"]
    assert [one.verdict for one in outcomes_of(pair, 0.05, 2)] == ["unknown", "unknown"]
    assert [one.verdict for one in verdicts_of(pair, 0.05)] == ["fail", "fail"]
    for looks, tests in ((1, 1), (1, 2), (3, 1), (3, 2)):
        level = min(0.05 / looks / tests, TAIL)
        expected = LIMIT + critical(level) + critical(0.1)
        assert verdicts_of([case(0.3)] * tests, 0.05, looks)[0].sees == pytest.approx(expected, rel=1e-9)
    assert verdicts_of([case(0.3)], 0.05)[0].sees == verdicts_of([case(0.3)], 0.05, 1)[0].sees


def trial(value=1.0, error=1.0, df=4.0, limit=0.0, **fields) -> Trial:
    known = {"sign": 1, "relative": False, "rounds": 5, "tail": TAIL}
    return Trial(Change(value, error, df), limit, **{**known, **fields})


def test_the_least_seen_is_beyond_the_limit_by_what_a_failure_and_the_power_take():
    reach = critical(0.01), critical(0.1)
    assert sees(trial(), 0.02, 2) == pytest.approx(sum(reach))
    assert sees(trial(limit=7.0, error=2.0), 0.02, 2) == pytest.approx(7 + 2 * sum(reach))
    assert sees(trial(), 0.2, 2) == pytest.approx(critical(TAIL) + reach[1])  # No test on a value errs more often than its tail.
    assert sees(trial(floor=50.0), 0.02, 2) == pytest.approx(50 + reach[1])
    assert sees(trial(floor=0.1), 0.02, 2) == pytest.approx(sum(reach))
    assert sees(trial(error=0.0, limit=3.0), 0.02, 2) == 3.0
    assert sees(trial(error=0.0, limit=3.0, floor=5.0), 0.02, 2) == 5.0 and sees(trial(error=0.0, floor=-5.0), 0.02, 2) == 0.0


def test_the_error_seen_is_that_of_the_wider_of_both_views_on_the_side_of_the_limit():
    t = critical(TAIL)
    assert seen_error(trial()) == 1.0
    assert seen_error(trial(value=-9.0, ends=(-10.0, -9.0 + 3 * t))) == pytest.approx(3)  # Kept: the high end is the near one.
    assert seen_error(trial(value=9.0, ends=(9.0 - 2 * t, 9.5))) == pytest.approx(2)
    assert seen_error(trial(value=0.0, ends=(-0.1, 4 * t))) == pytest.approx(4)  # At the limit it is kept.
    assert seen_error(trial(value=9.0, ends=(8.9, 99.0))) == 1.0 and seen_error(trial(value=-9.0, ends=(-99.0, -8.9))) == 1.0
    assert seen_error(trial(value=-9.0, ends=(-10.0, math.inf))) == 1.0
    assert seen_error(trial(error=0.0, ends=(-9.0, 9.0))) == 0.0


@pytest.mark.parametrize("value", [-3.0, -1.0, -0.3, 0.4, 1.0, 4.0])
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("level", [0.01, 0.05])
def test_rounds_needed_are_the_fewest_that_would_tell(value, samples, level):
    made = trial(value=value, samples=samples)
    needed = min(level, TAIL) if value <= 0 else min(level / 3, TAIL)

    def tells(rounds):
        df = samples * (rounds - 1)
        return (stats.t.isf(needed, df) + stats.t.isf(0.1, df)) * math.sqrt(5 / rounds) <= abs(value)

    assert rounds_for(made, level, 3) == next(rounds for rounds in range(5, ROUNDS_MAX + 1) if tells(rounds))


def test_no_number_of_rounds_tells_what_lies_at_its_limit():
    assert rounds_for(trial(value=0.0), 0.05, 1) is None and rounds_for(trial(value=1e-3), 0.05, 1) is None
    assert rounds_for(trial(value=99.0, rounds=1), 0.05, 1) == 2  # One round tells nothing.
    edge = (stats.t.isf(TAIL, ROUNDS_MAX - 1) + stats.t.isf(0.1, ROUNDS_MAX - 1)) * math.sqrt(5 / ROUNDS_MAX)
    assert rounds_for(trial(value=-edge * 1.0001), 0.05, 1) == ROUNDS_MAX
    assert rounds_for(trial(value=-edge / 1.0001), 0.05, 1) is None


def test_students_t_takes_whole_degrees_of_freedom_rounded_down():
    assert t_of(0.025, 4.9) == t_of(0.025, 4.0) == pytest.approx(critical(0.025, 4))
    assert t_of(0.025, 0.3) == pytest.approx(critical(0.025, 1)) and t_of(0.025, math.inf) == pytest.approx(1.959964, rel=1e-6)
    assert t_of(0.9, 4.0) == t_of(0.5, 4.0) == pytest.approx(0.0, abs=1e-9)


def test_a_point_is_told_on_the_figures_own_scale_and_is_always_a_number():
    made, worse = case(0.5), case(0.5)._replace(budget=Budget(metric="a_p50", kind="not_worse_by", limit=1.0))
    assert printed_point(2.0, trial(), made) == 2.0 and printed_point(2.0, trial(sign=-1), made) == -2.0
    assert printed_point(2.0, trial(relative=True), made) == pytest.approx(math.exp(2))
    assert printed_point(2.0, trial(relative=True, sign=-1), made) == pytest.approx(math.exp(-2))
    assert printed_point(2.0, trial(relative=True), worse) == pytest.approx(math.expm1(2))
    assert printed_point(2.0, trial(), worse) == 2.0
    assert math.isfinite(printed_point(1e9, trial(relative=True), made)) and printed_point(1e9, trial(), made) == 1e9


# Against a baseline


def held(ours, theirs, limit=0.05, share=True, metric="flushes_per_write", **fields):
    budget = Budget(metric=metric, kind="not_worse_by", limit=limit, share=share, name="b")
    return examine_change(Case(budget, ours, theirs, **fields))


def ratio(value, *without, **fields):
    return figure("flushes_per_write", value, without=list(without), **fields)


@pytest.mark.parametrize(("ours", "theirs", "change"), [
    (ratio(2.0), ratio(1.0, 1.0, 1.1), 1.0), (ratio(2.0, 2.0, 2.1), ratio(1.0), 1.0),  # One has no rounds that could differ.
    (ratio(1.0, 1.0, 1.1), ratio(0.0, 0.0, 0.1), 1.0), (ratio(2.0, 2.0, 2.0), ratio(1.0, 1.0, 1.0), 1.0),
])  # fmt: skip
def test_ratios_of_counts_are_compared_as_they_are_where_no_noise_can_be_told(ours, theirs, change):
    worse, better = held(ours, theirs), held(theirs, ours)
    assert (worse.verdict, worse.change) == ("fail", change) and (better.verdict, better.change) == ("pass", -change)


def test_a_difference_of_counts_is_compared_as_it_is_whatever_the_rounds():
    ours, theirs = ratio(1.4, 1.4, 1.5), ratio(1.0, 1.0, 1.1)
    assert [held(ours, theirs, limit, share=False).verdict for limit in (0.3, 0.5)] == ["fail", "pass"]
    assert [held(ours, theirs, limit, doubt=reasons.interrupted()).verdict
            for limit in (0.3, 0.5)] == ["unknown", "unknown"]  # With noise the doubt withholds both, as of a measurement.


@pytest.mark.parametrize(("limit", "verdict"), [(0.3999999, "fail"), (0.4, "pass"), (0.41, "pass")])
def test_a_share_of_the_baseline_is_allowed_in_either_direction(limit, verdict):
    assert held(ratio(1.4), ratio(1.0), limit).verdict == verdict
    more = [msgspec.structs.replace(ratio(value), better="more") for value in (0.6, 1.0)]
    assert held(*more, limit).verdict == verdict and held(*reversed(more), limit).verdict == "pass"


def test_ratios_that_differ_from_round_to_round_are_compared_with_their_noise():
    varied, steady = ratio(1.0, 1.0, 1.1, 0.9), ratio(1.0, 1.0, 1.0, 1.0)
    for ours, theirs in ((varied, varied), (varied, steady), (steady, varied)):
        assert isinstance(held(ours, theirs, paired=True), Trial)


def test_what_one_side_has_no_value_of_is_unknown_and_says_which():
    none = {side: ratio(None, warnings=[reasons.needs(side, 9, 1)]) for side in ("ours", "theirs")}
    for ours, theirs, said in ((none["ours"], ratio(1.0), "ours"), (ratio(1.0), none["theirs"], "theirs"),
                               (none["ours"], none["theirs"], "ours")):  # fmt: skip
        found = held(ours, theirs)
        assert found.verdict == "unknown" and found.reasons[0].numbers["quantile"] == said
    assert held(ratio(1.0), None).verdict == "unknown"


def response(ms, late_ms=0.0, spread=0.001, rounds=5, withheld=(), host_noise=()):
    """A latency whose rounds agree within a thousandth."""
    without = [ms * 1e6 * (1 + spread * by) for by in (-1, 0, 1, 0, 0, 0, 0)[:rounds]]
    made = figure("response_p99", ms * 1e6, without=without, late_ns=late_ms * 1e6, withheld=withheld)
    return msgspec.structs.replace(made, host_noise=list(host_noise))


def against(ours, theirs, limit=0.05, **fields):
    return held(ours, theirs, limit, metric="response_p99", **{"paired": True, **fields})


def test_a_change_is_turned_so_that_greater_is_worse():
    made = against(response(1.1), response(1.0), 0.05)
    assert made.change.value == pytest.approx(math.log(1.1)) and made.limit == pytest.approx(math.log(1.05))
    assert (made.sign, made.relative, made.rounds, made.samples) == (1, True, 5, 1)
    less = [figure("throughput", value, without=[value, value * 1.001, value]) for value in (900.0, 1000.0)]
    made = held(*less, 0.05, metric="throughput", paired=True)
    assert made.change.value == pytest.approx(math.log(1 / 0.9), rel=1e-3) and made.limit == pytest.approx(-math.log(0.95))
    assert (made.sign, made.relative, made.rounds) == (-1, True, 3)
    trips = [figure("k_p50", value, without=[value, value + 0.001, value]) for value in (1.2, 1.0)]
    made = held(*trips, 0.1, share=False, metric="k_p50", paired=True)
    assert (made.change.value, made.limit, made.relative) == (pytest.approx(0.2), 0.1, False)
    miles = [figure("greatest_miles_p50", value, without=[value, value + 0.1, value]) for value in (80.0, 100.0)]
    made = held(*miles, 2.0, share=False, metric="greatest_miles_p50", paired=True)
    assert (made.change.value, made.limit) == (pytest.approx(20), 2.0)


def test_a_change_rests_on_the_rounds_of_the_side_that_has_fewer():
    assert against(response(1.1, rounds=3), response(1.0)).rounds == against(response(1.1), response(1.0, rounds=3)).rounds == 3
    apart = against(response(1.1), response(1.0), paired=False, between=ONE_HOUR)
    assert apart.samples == 2 and apart.change.df > against(response(1.1), response(1.0)).change.df


def test_lateness_of_either_side_moves_a_change_towards_the_other():
    made = against(response(1.1, 0.11), response(1.0, 0.1), floor=0.5)
    assert made.late_ns == 0.11e6 and made.floor == 0.5
    assert made.shifts == pytest.approx((math.log(0.9), -math.log(0.9)))
    assert against(response(1.1, 0.11), response(1.0)).shifts == pytest.approx((math.log(0.9),))
    assert against(response(1.1), response(1.0, 0.1)).shifts == pytest.approx((-math.log(0.9),))
    assert against(response(1.1), response(1.0)).shifts == ()


def test_two_hours_are_compared_only_where_it_is_known_what_hours_differ_by():
    assert isinstance(against(response(1.1), response(1.0), between=ONE_HOUR, paired=False), Trial)
    apart = against(response(1.1), response(1.0), paired=False)
    assert apart.verdict == "unknown" and [one.code for one in apart.reasons] == ["hours_apart"]
    one_round = against(response(1.1, rounds=1), response(1.0), paired=False)
    assert [one.code for one in one_round.reasons] == ["remark"] and "one round" in one_round.remark


def test_what_speaks_against_either_side_withholds_a_change():
    for sides in ((response(1.1, withheld=["late"]), response(1.0)), (response(1.1), response(1.0, withheld=["late"]))):
        assert against(*sides).verdict == "unknown"
    noisy = [response(1.1), response(1.0, host_noise=[reasons.other_programs(0.5, 0.25)])]
    assert isinstance(against(*noisy), Trial)  # Side by side both had it.
    assert against(*noisy, paired=False, between=ONE_HOUR).verdict == "unknown"
    assert against(response(1.1), response(1.0), doubt=reasons.interrupted()).verdict == "unknown"


def anywhere(holds="any"):
    return figure("greatest_miles_p50", None, warnings=[reasons.no_distance(holds)])


def test_only_where_both_hold_at_any_distance_is_neither_worse():
    def verdict(ours, theirs):
        return held(ours, theirs, 2.0, share=False, metric="greatest_miles_p50", paired=True).verdict

    miles = figure("greatest_miles_p50", 80.0, without=[80.0, 80.1, 80.0])
    assert verdict(anywhere(), anywhere()) == "pass"
    nothing = figure("greatest_miles_p50", None, warnings=["no line"])
    assert verdict(nothing, anywhere()) == verdict(anywhere(), nothing) == "unknown"
    for sides in ((anywhere("none"), anywhere()), (anywhere(), anywhere("none")), (anywhere(), miles), (miles, anywhere()),
                  (anywhere("none"), anywhere("none"))):  # fmt: skip
        assert verdict(*sides) == "unknown"


def test_a_verdict_on_a_change_has_the_change_its_floor_and_why_it_is_unknown():
    budget = Budget(metric="response_p99", kind="not_worse_by", limit=0.05, share=True, name="x")
    verdict, = verdicts_of([Case(budget, response(1.1), response(1.0), paired=True, floor=0.2)], 0.05)
    assert verdict.change.value == pytest.approx(0.1) and verdict.change.low < 0.1 < verdict.change.high
    assert (verdict.change.confidence, verdict.change.count) == (0.95, 5) and verdict.floor == pytest.approx(math.expm1(0.2))
    assert verdict.verdict == "unknown" and codes(verdict) == ["limit_inside"] and verdict.rounds_needed is None
    t, error = critical(0.025), examine_change(Case(budget, response(1.1), response(1.0), paired=True)).change.error
    ends = [1.1 * math.exp(by * t * error) - 1 for by in (-1, 1)]
    assert [verdict.change.low, verdict.change.high] == pytest.approx(ends)
    slower = [figure("throughput", value, without=[value * (1 - by), value * (1 + by), value])
              for value, by in ((900.0, 0.002), (1000.0, 0.001))]  # fmt: skip
    less = Budget(metric="throughput", kind="not_worse_by", limit=0.05, share=True, name="x")
    turned, = verdicts_of([Case(less, *slower, paired=True)], 0.05)
    assert turned.verdict == "fail" and turned.change.low < turned.change.value < turned.change.high < -0.05
    assert turned.change.value == pytest.approx(-0.1, rel=1e-3) and turned.sees < -0.05
    without, = verdicts_of([Case(budget, response(1.1), response(1.0), paired=True)], 0.05)
    assert without.verdict == "fail" and without.floor is None and without.reasons == []
    withheld, = verdicts_of([Case(budget, response(1.1, withheld=["late"]), response(1.0), paired=True)], 0.05)
    assert withheld.verdict == "unknown" and len(withheld.reasons) == 1 and withheld.p_fail is None
    text = Budget(metric="greatest_miles_p50", kind="not_worse_by", limit=2.0, name="x")
    both, = verdicts_of([Case(text, anywhere(), anywhere(), paired=True)], 0.05)
    assert both.verdict == "pass" and both.reasons == []
    only_value, = verdicts_of([case(0.3)], 0.05)
    assert only_value.change is None and only_value.rounds_needed > ROUNDS


def test_a_change_of_counts_is_told_and_a_count_by_itself_has_none():
    ours, theirs = figure("lag_writes_max", 12.0), figure("lag_writes_max", 10.0)
    verdict, = verdicts_of([Case(Budget(metric="lag_writes_max", kind="not_worse_by", limit=1.0, name="x"), ours, theirs)], 0.05)
    assert (verdict.change.value, verdict.change.low, verdict.change.high, verdict.verdict) == (2.0, 2.0, 2.0, "fail")
    assert verdict.change.confidence == 1.0 and verdict.reasons == [] and not verdict.measured
    assert (verdict.value, verdict.base) == (ours.estimate, theirs.estimate)
    alone, = verdicts_of([Case(Budget(metric="lag_writes_max", kind="at_most", limit=1.0, name="x"), ours)], 0.05)
    assert alone.change is None and alone.base is None


def test_losses_are_lost_only_where_a_budget_on_them_fails():
    def lost(metric, value, verdict_limit, base=None, kind="at_most"):
        budget = Budget(metric=metric, kind=kind, limit=verdict_limit, name="x")
        return verdicts_of([Case(budget, figure(metric, value), base)], 0.05)[0].lost

    assert lost("lost_writes", 1.0, 0.0) and lost("damaged_writes", 3.0, 2.0) and not lost("lost_writes", 1.0, 1.0)
    assert not lost("lag_writes_max", 1.0, 0.0)
    assert not lost("lost_writes", 1.0, 2.0, kind="at_least") and not lost("lost_writes", 3.0, 2.0, kind="at_least")
    assert not lost("lost_writes", 0.0, 1.0, kind="equals")
    assert lost("lost_writes", 3.0, 0.0, figure("lost_writes", 2.0), "not_worse_by")
    assert not lost("lost_writes", 2.0, 0.0, figure("lost_writes", 2.0), "not_worse_by")
