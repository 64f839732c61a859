"""Comparing, held against plain oracles: the errors, the tests, the verdicts, and what is refused."""

from __future__ import annotations

import math
from functools import cache

import msgspec
import numpy as np
import pytest
from scipy import stats

from farwrite.analysis.analyse import analyse
from farwrite.analysis.between_runs import NO_HISTORY, ONE_HOUR, EarlierRuns, RunHistory, between_runs, error_of_runs
from farwrite.analysis.change import (
    ALPHA,
    UNCHANGED,
    Change,
    Spread,
    change_of,
    compare,
    floor_of_runs,
    floor_of_splits,
    holm,
    is_relative,
    jackknife,
    key_of,
    level_of,
    percentile_95,
    size_in_margins,
    spread,
    welch,
    worst_first,
)
from farwrite.analysis.figure import Figure, ResultSet
from farwrite.analysis.result import Estimate
from farwrite.base.errors import UnfitError, UsageError
from farwrite.base.reasons import needs
from farwrite.compare.figures import result_set_of
from farwrite.recording import SCHEMA_VERSION, Pairing, Report, decode
from make_figures import as_reasons, hours_alike
from make_recording import made_report, make_recording

IDENTITY = {"host": "2 x made up", "link": "netem", "kernel": "6.1"}


def estimate_of(rounds, count=1000):
    """The mean of rounds, with the mean of all but one for each."""
    total, number = math.fsum(rounds), len(rounds)
    without = [(total - value) / (number - 1) for value in rounds] if number > 1 else []
    return Estimate(value=total / number, count=count, without=without)


def figure(rounds=(), metric="k_p50", withheld=(), miles=20.0, estimate=None, unit="ratio", better="less", exact=False):
    return Figure(
        metric=metric, labels={"name": "write", "protocol": "C", "miles": miles}, unit=unit, better=better, exact=exact,
        estimate=estimate or estimate_of(list(rounds)), withheld=as_reasons(withheld),
    )  # fmt: skip


def response(rounds, **changes):
    return figure(rounds, **{"metric": "response_p99", "unit": "ns", **changes})


def losses(count, **changes):
    known = Estimate(value=count, low=count, high=count, confidence=1.0, count=100)
    return figure(**{"metric": "lost_writes", "unit": "count", "exact": True, "estimate": known, **changes})


def result_set(*figures, arm=None, kind="farwrite", **identity):
    return ResultSet(
        kind=kind, source="made-up.json", id="made-up", started_utc="2026-01-02T03:04:05+00:00",
        identity={**IDENTITY, **identity}, figures=list(figures),
        pairing=Pairing(id="experiment", arm=arm, what="made up") if arm else None,
    )  # fmt: skip


def only_row(base, cand, **changes):
    [row] = compare([result_set(base)], [result_set(cand)], **{"history": hours_alike(base), **changes}).rows
    return row


# Errors


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_the_jackknife_of_a_mean_is_its_standard_error(count):
    rounds = np.random.default_rng(count).normal(10, 3, count)
    error, df = jackknife(estimate_of(rounds).without)
    assert error == pytest.approx(rounds.std(ddof=1) / math.sqrt(count), rel=1e-9)
    assert df == count - 1


@pytest.mark.parametrize("seed", range(5))
def test_runs_apart_are_judged_as_by_welch(seed):
    dice = np.random.default_rng(seed)
    ours, theirs = dice.normal(1.0, 0.05, 5), dice.normal(1.1, 0.2, 7)
    change = change_of(figure(ours), figure(theirs), paired=False)
    known = stats.ttest_ind(theirs, ours, equal_var=False)
    assert change.value == pytest.approx(theirs.mean() - ours.mean())
    assert change.df == pytest.approx(known.df)
    assert change.chance() == pytest.approx(known.pvalue)
    assert change.interval() == pytest.approx(known.confidence_interval(0.95))


@pytest.mark.parametrize("seed", range(5))
def test_rounds_side_by_side_are_judged_as_pairs(seed):
    dice = np.random.default_rng(seed)
    mood = dice.normal(0, 1, 6)
    ours, theirs = 10 + mood + dice.normal(0, 0.01, 6), 10.1 + mood + dice.normal(0, 0.01, 6)
    change = change_of(figure(ours), figure(theirs), paired=True)
    known = stats.ttest_rel(theirs, ours)
    assert change.df == known.df
    assert change.chance() == pytest.approx(known.pvalue)
    assert change.interval() == pytest.approx(known.confidence_interval(0.95))
    assert change.error < 0.1 * change_of(figure(ours), figure(theirs), paired=False).error


def test_only_rounds_that_both_arms_have_make_pairs():
    ours = estimate_of([1.0, 1.1, 1.2, 1.3])
    theirs = msgspec.structs.replace(ours, without=[ours.without[0], None, *ours.without[2:]])
    assert change_of(figure(estimate=ours), figure(estimate=theirs), paired=True).df == 2


def test_two_that_do_not_vary_differ_without_error():
    first, second = spread(figure([1.0, 1.0])), spread(figure([2.0, 2.0]))
    assert welch(first, second) == (0.0, 2)
    assert Change(1.0, 0.0, 2).tail_above(0) == Change(1.0, 0.0, 2).chance() == 0
    assert Change(0.0, 0.0, 2).chance() == 1
    assert Change(1.0, 0.0, 2).interval() == (1.0, 1.0)


def test_a_latency_is_no_surer_than_the_slots_it_was_counted_in():
    assert change_of(response([1e6] * 5), response([1e6] * 5), paired=True).error > 1e-4
    assert change_of(figure([1.0] * 5), figure([1.0] * 5), paired=True).error == 0


def test_latencies_are_compared_as_ratios_and_fits_as_differences():
    assert is_relative(response([1e6]))
    assert not is_relative(figure([1.0]))
    assert not is_relative(losses(0))
    slower = only_row(response([1.0e6, 1.01e6, 0.99e6]), response([1.2e6, 1.21e6, 1.19e6]))
    assert slower.change.value == pytest.approx(0.2, rel=1e-3)
    assert slower.change.low < 0.2 < slower.change.high


# The noise floor


def test_the_floor_of_two_halves_is_told_for_whole_runs():
    # Four rounds: six ways to halve them, and half the rounds have twice the variance.
    rounds = [1.0, 1.1, 1.3, 1.7]
    halves = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    expected = max(
        abs(sum(rounds[i] for i in half) / 2 - sum(rounds[i] for i in range(4) if i not in half) / 2) for half in halves
    )
    assert floor_of_splits(figure(rounds)) == pytest.approx(expected / math.sqrt(2))


def test_a_floor_needs_four_rounds():
    assert floor_of_splits(figure([1.0, 2.0, 3.0])) is None
    assert floor_of_splits(figure(estimate=Estimate(value=None))) is None


def test_many_rounds_do_not_take_for_ever_to_split():
    assert floor_of_splits(figure(np.random.default_rng(1).normal(1, 0.1, 30))) > 0


def test_the_floor_is_told_from_all_rounds():
    # 60 rounds differ by a tenth each, so two means of 60 by 0.1 * sqrt(2 / 60); 95 of 100 stay within 1.96 of that.
    rounds = np.random.default_rng(2).normal(1, 0.1, 60)
    assert floor_of_splits(figure(rounds)) == pytest.approx(1.96 * 0.1 * math.sqrt(2 / 60), rel=0.3)
    assert floor_of_splits(figure([1.0] * 10 + [1.0, 2.0] * 25)) > 0


def test_the_floor_between_runs_is_what_runs_of_one_side_differ_by():
    assert floor_of_runs([figure([1.0]), figure([1.1])], [figure([5.0]), figure([5.3])]) == pytest.approx(0.3)


def test_the_95th_percentile_is_rounded_upwards():
    assert percentile_95(range(1, 101)) == 95
    assert percentile_95([3.0]) == 3.0
    assert percentile_95([]) is None


def test_a_change_within_what_the_base_differs_from_itself_is_none():
    base, cand = response([1e6, 1.001e6, 0.999e6, 1e6]), response([1.1e6, 1.101e6, 1.099e6, 1.1e6])
    again = response([1.15e6, 1.151e6, 1.149e6, 1.15e6])
    arms = result_set(base, arm="base"), result_set(cand, arm="cand"), result_set(again, arm="again")
    assert compare([arms[0]], [arms[1]]).rows[0].verdict == "slower"
    found = compare([arms[0]], [arms[1]], aa_control=arms[2])
    assert found.rows[0].verdict == "unresolved"
    assert found.rows[0].floor == pytest.approx(0.15)
    assert found.floor_from == "the base measured twice side by side"


# Many at once


def test_holm_is_what_one_works_out_by_hand():
    # Sorted 0.001 0.01 0.03 0.04, times 4 3 2 1, never falling.
    assert holm([0.04, 0.001, 0.03, 0.01]) == pytest.approx([0.06, 0.004, 0.06, 0.03])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(20))
def test_holm_rejects_what_stepping_down_rejects(seed):
    probabilities = np.random.default_rng(seed).beta(0.3, 3, 12)
    rejected = set()
    for place, index in enumerate(np.argsort(probabilities)):
        if probabilities[index] > ALPHA / (12 - place):
            break
        rejected.add(int(index))
    assert {index for index, p in enumerate(holm(list(probabilities))) if p <= ALPHA} == rejected


def test_a_change_that_is_sure_alone_is_not_among_many():
    dice = np.random.default_rng(3)
    base = response([1.0e6, 1.03e6, 0.97e6, 1.01e6])
    cand = response([1.1e6, 1.12e6, 1.08e6, 1.11e6])
    assert only_row(base, cand).verdict == "slower"
    others = [response(dice.normal(1e6, 3e4, 4), miles=float(miles)) for miles in range(100, 400)]
    rows = compare([result_set(base, *others)], [result_set(cand, *others)], history=hours_alike(base, *others)).rows
    [row] = [row for row in rows if row.labels["miles"] == 20.0]
    assert row.verdict == "unresolved"
    assert "among so many figures" in row.sentence


# Verdicts

STEADY = (1.0e6, 1.002e6, 0.998e6, 1.001e6, 0.999e6)
SHAKY = (1.0e6, 1.6e6, 0.7e6, 1.2e6, 0.8e6)


def times(factor, rounds=STEADY):
    return [factor * value for value in rounds]


@pytest.mark.parametrize(
    ("metric", "unit", "better", "factor", "verdict"),
    [
        ("response_p99", "ns", "less", 1.2, "slower"),
        ("response_p99", "ns", "less", 0.8, "faster"),
        ("throughput", "per_s", "more", 1.2, "faster"),
        ("throughput", "per_s", "more", 0.8, "slower"),
        ("flushes_per_write", "ratio", "less", 1.2, "worse"),
        ("flushes_per_write", "ratio", "less", 0.8, "better"),
        ("rtt_p50", "ns", "", 1.2, "higher"),
        ("rtt_p50", "ns", "", 0.8, "lower"),
        ("response_p99", "ns", "less", 1.01, "same"),
    ],
)
def test_a_change_is_told_by_its_direction(metric, unit, better, factor, verdict):
    base = figure(STEADY, metric=metric, unit=unit, better=better)
    assert only_row(base, figure(times(factor), metric=metric, unit=unit, better=better)).verdict == verdict


def test_same_must_be_earned_by_an_interval_within_the_margin():
    assert only_row(response(STEADY), response(STEADY)).verdict == "same"
    row = only_row(response(SHAKY), response(SHAKY))
    assert (row.verdict, row.change.value) == ("unresolved", 0)
    assert "more rounds" in row.sentence


def test_a_change_that_nobody_would_act_on_is_none_however_sure():
    base, cand = (figure([value] * 5, metric="flushes_per_write", exact=True) for value in (1.0, 1.0001))
    row = only_row(base, cand)
    assert row.p < 1e-9
    assert row.verdict == "same"


def test_the_margin_decides_what_is_the_same():
    base, cand = response(STEADY), response(times(1.03))
    assert only_row(base, cand).verdict == "same"
    assert only_row(base, cand, margin_ratio=0.02).verdict == "slower"
    assert only_row(base, cand, margin_ratio=0.02).margin == 0.02


def test_fits_and_miles_have_margins_in_their_own_unit():
    trips = [1.0, 1.001, 0.999, 1.0]
    assert only_row(figure(trips), figure([value + 0.03 for value in trips])).verdict == "same"
    assert only_row(figure(trips), figure([value + 0.2 for value in trips])).verdict == "worse"
    miles = {"metric": "greatest_miles_p50", "unit": "miles", "better": "more"}
    base = figure([100.0, 100.1, 99.9, 100.0], **miles)
    row = only_row(base, figure([90.0, 90.1, 89.9, 90.0], **miles))
    assert (row.verdict, row.relative, row.margin) == ("worse", False, 2.0)
    assert row.change.value == pytest.approx(-10)


@pytest.mark.parametrize(("base", "cand", "verdict"), [
    (0, 0, "same"), (3, 3, "same"), (0, 1, "worse"), (2, 0, "better"), (2, 5, "unresolved"),
])  # fmt: skip
def test_counts_are_held_against_each_other_as_they_are(base, cand, verdict):
    row = only_row(losses(base), losses(cand))
    assert (row.verdict, row.counted, row.p) == (verdict, True, None)


def test_the_worst_of_several_runs_is_the_count_that_matters():
    row = compare([result_set(losses(0))] * 3, [result_set(losses(0)), result_set(losses(2)), result_set(losses(0))]).rows[0]
    assert (row.verdict, row.cand.value) == ("worse", 2)


def test_what_is_always_zero_is_the_same_and_from_zero_there_is_no_ratio():
    nothing = Estimate(value=0.0, count=10, without=[0.0, 0.0, 0.0])
    zero = figure(estimate=nothing, metric="flushes_per_write", exact=True)
    assert only_row(zero, zero).verdict == "same"
    row = only_row(zero, figure([1.0, 1.0, 1.1], metric="flushes_per_write", exact=True))
    assert (row.verdict, row.change.value) == ("unresolved", None)
    assert "no ratio" in row.sentence


@pytest.mark.parametrize("missing", ["base", "cand"])
def test_a_figure_without_a_value_says_which_side_and_why(missing):
    unknown = response((), estimate=Estimate(value=None, warnings=[needs("p99", 368, 7)]))
    sides = (unknown, response(STEADY)) if missing == "base" else (response(STEADY), unknown)
    row = only_row(*sides)
    assert (row.verdict, row.change.value, row.p) == ("unresolved", None, None)
    assert row.sentence == f"{'baseline' if missing == 'base' else 'candidate'}: p99 needs n >= 368 (n = 7)"


def test_what_neither_side_could_have_is_no_row():
    none = response((), estimate=Estimate(value=None))
    rows = compare([result_set(none, losses(0))], [result_set(none, losses(0))]).rows
    assert [row.metric for row in rows] == ["lost_writes"]


def test_no_verdict_rests_on_what_is_withheld():
    row = only_row(response(STEADY), response(times(2), withheld=["the generator was late"]))
    assert (row.verdict, row.sentence) == ("unresolved", "candidate: the generator was late")
    several = [result_set(response(STEADY)), result_set(response(times(1.01)))]
    row = compare(several, [several[0], result_set(response(times(2), withheld=["late"]))]).rows[0]
    assert (row.verdict, row.sentence) == ("unresolved", "candidate: late")


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_value_that_is_no_latency_is_refused_a_verdict(value):
    assert only_row(response(STEADY), response((), estimate=Estimate(value=value, without=[1.0, 2.0]))).verdict == "unresolved"


def test_one_round_cannot_say_how_much_it_varies():
    row = only_row(response([1e6]), response([2e6]))
    assert row.verdict == "unresolved"
    assert "one round only" in row.sentence


def test_rows_come_worst_first():
    changes = {1.0: 1.5, 2.0: 1.1, 3.0: 0.5, 4.0: 1.0, 5.0: 1.3}
    bases = [response(STEADY, miles=miles) for miles in changes]
    cands = [response(times(factor), miles=miles) for miles, factor in changes.items()]
    rows = compare([result_set(*bases, losses(0))], [result_set(*cands, losses(3))], history=hours_alike(*bases)).rows
    assert [row.verdict for row in rows] == ["worse", "slower", "slower", "slower", "faster", "same"]
    assert [row.labels["miles"] for row in rows[1:4]] == [1.0, 5.0, 2.0]
    assert rows == sorted(rows, key=worst_first)


def test_a_change_of_many_miles_is_no_greater_than_the_share_it_is():
    miles = {"metric": "greatest_miles_p50", "unit": "miles", "better": "more"}
    row = only_row(figure([600.0] * 4, **miles), figure([540.0] * 4, **miles))
    assert size_in_margins(row) == pytest.approx(0.1 / 0.05)


# Several runs a side


def test_several_runs_a_side_are_compared_run_by_run():
    dice = np.random.default_rng(5)
    ours, theirs = dice.normal(1e6, 1e4, 4), dice.normal(1.2e6, 1e4, 5)
    bases = [result_set(response([value] * 3)) for value in ours]
    cands = [result_set(response([value] * 3)) for value in theirs]
    found = compare(bases, cands)
    row = found.rows[0]
    known = stats.ttest_ind(np.log(theirs), np.log(ours), equal_var=False)
    assert (found.unit_of_replication, row.verdict) == ("runs", "slower")
    assert row.p == pytest.approx(known.pvalue)
    assert row.base.value == pytest.approx(math.exp(np.log(ours).mean()))
    assert (row.base.low, row.base.high) == pytest.approx((ours.min(), ours.max()))


def test_ratios_of_counts_vary_from_run_to_run_too():
    runs = [[result_set(figure([level + step] * 3, metric="flushes_per_write", exact=True)) for step in (0, 0.001, 0.002)]
            for level in (1.0, 1.5)]  # fmt: skip
    row = compare(*runs).rows[0]
    assert (row.verdict, row.relative, row.counted) == ("worse", True, False)
    assert row.change.value == pytest.approx(0.5, abs=0.001)


def test_one_run_against_several_is_refused():
    with pytest.raises(UsageError, match="one each, or several each"):
        compare([result_set(response(STEADY))], [result_set(response(STEADY))] * 2)


def test_one_run_a_side_is_warned_about_and_pairs_are_not():
    one = compare([result_set(response(STEADY))], [result_set(response(STEADY))])
    pairs = compare([result_set(response(STEADY), arm="base")], [result_set(response(STEADY), arm="cand")])
    assert (one.unit_of_replication, pairs.unit_of_replication) == ("rounds", "pairs")
    assert "run to run" in one.warnings[0]
    assert pairs.warnings == []


# What is refused


def test_unlike_runs_are_refused_and_every_field_is_named():
    base, cand = result_set(response(STEADY)), result_set(response(STEADY), host="another", link="ferry")
    with pytest.raises(UnfitError) as refused:
        compare([base], [cand])
    for words in ("host (2 x made up | another)", "link (netem | ferry)", "--allow-mismatch host --allow-mismatch link"):
        assert words in str(refused.value)
    found = compare([base], [cand], allowed=["host", "link"])
    assert "the sides differ in host (2 x made up | another)" in found.warnings


def test_runs_over_links_that_were_asked_for_different_things_are_unlike():
    plain, lossy = (made_report(changes=changes) for changes in ((), ("link.loss=1 %", "link.homeward.rate=1gbit")))
    result_sets = [result_set_of(report, report.analysis, "here") for report in (plain, lossy)]
    assert "link_spec" not in result_sets[0].identity
    with pytest.raises(UnfitError) as refused:
        compare(result_sets[:1], result_sets[1:])
    assert "link_spec (none | outward loss 1 %; homeward 1 Gbit/s, loss 1 %)" in str(refused.value)


def test_runs_that_kept_their_processors_awake_otherwise_are_unlike_and_old_ones_are_of_the_series_of_none():
    report = made_report()
    result_sets = {}
    for chosen in (False, "none", True, "spinner", "qos"):  # Booleans as older recordings have them.
        lab = {**msgspec.to_builtins(report.recording.lab), "keep_awake": chosen}
        document = {**msgspec.to_builtins(report), "recording": {**msgspec.to_builtins(report.recording), "lab": lab}}
        result_sets[chosen] = result_set_of(decode(msgspec.json.encode(document), "x"), report.analysis, str(chosen))
    assert result_sets[False].identity == result_sets["none"].identity == result_set_of(report, report.analysis, "x").identity
    assert "keep_awake" not in result_sets["none"].identity and result_sets[True].identity["keep_awake"] == "spinner"
    assert result_sets[True].identity == result_sets["spinner"].identity
    with pytest.raises(UnfitError, match=r"keep_awake \(none \| qos\).*--allow-mismatch keep_awake"):
        compare([result_sets[False]], [result_sets["qos"]])
    allowed = compare([result_sets["spinner"]], [result_sets["qos"]], allowed=["keep_awake"])
    assert "the sides differ in keep_awake (spinner | qos)" in allowed.warnings


def test_arms_of_one_experiment_may_differ_in_what_is_compared():
    base, cand = result_set(response(STEADY), arm="base"), result_set(response(STEADY), arm="cand", link="ferry")
    assert compare([base], [cand]).warnings == ["the sides differ in link (netem | ferry)"]


def test_the_run_behind_the_noise_floor_must_be_like_the_others():
    base = result_set(response(STEADY))
    with pytest.raises(UnfitError, match="host"):
        compare([base], [base], aa_control=result_set(response(STEADY), host="another"))


def test_another_tools_results_are_not_held_against_ours():
    with pytest.raises(UnfitError, match=r"tool \(farwrite \| fio\)"):
        compare([result_set(response(STEADY))], [result_set(response(STEADY), kind="fio")])


def test_an_unknown_field_names_the_nearest():
    with pytest.raises(UsageError, match=r'hots: there is no such field \(did you mean "host"\?\)'):
        compare([result_set(response(STEADY))], [result_set(response(STEADY))], allowed=["hots"])


def test_a_cell_that_one_side_lacks_is_named():
    both = response(STEADY), response(STEADY, miles=150.0)
    for sides, side in (((both, both[:1]), "candidate"), ((both[:1], both), "baseline")):
        base, cand = (result_set(*figures) for figures in sides)
        with pytest.raises(UnfitError, match=rf"The {side} lacks .*150.*--allow-mismatch cells"):
            compare([base], [cand])
        assert len(compare([base], [cand], allowed=["cells"]).rows) == 1


def test_two_with_nothing_in_common_are_refused():
    with pytest.raises(UnfitError, match="nothing to compare"):
        compare([result_set()], [result_set()])


# Whole made-up runs


FEW = ("distance.miles=[0, 60, 150]", "drill.kills=3", 'drill.protocols=["C"]')


@cache
def made(seed, **truth):
    recording = make_recording(changes=FEW, seed=seed, slices=4, writes=600, **truth)
    return result_set_of(Report(schema_version=SCHEMA_VERSION, recording=recording), analyse(recording), f"seed {seed}")


def differs(base, cand):
    return any(row.verdict not in UNCHANGED for row in compare([base], [cand], history=hours_alike(*base.figures)).rows)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("rounds", [3, 5])
def test_a_whole_table_errs_with_alpha_at_most(paired, rounds):
    # A margin of nothing worth mentioning, so that chance alone decides; normal rounds, for which the t-test is exact.
    dice, tables, wrong = np.random.default_rng(rounds), 300, 0
    for _ in range(tables):
        sides = [
            result_set(*(response(np.exp(dice.normal(14, 0.02, rounds)), miles=float(miles)) for miles in range(10)), arm=arm)
                 for arm in (("base", "cand") if paired else (None, None))]  # fmt: skip
        rows = compare([sides[0]], [sides[1]], margin_ratio=1e-6, history=hours_alike(*sides[0].figures)).rows
        wrong += any(row.p is not None and row.p <= ALPHA / 10 for row in rows)
        assert all(row.verdict == "unresolved" or row.p <= ALPHA for row in rows)
    assert wrong <= stats.binom.isf(0.001, tables, ALPHA)


def test_worlds_that_are_alike_are_rarely_told_apart():
    pairs = 8
    wrong = sum(differs(made(seed), made(100 + seed)) for seed in range(pairs))
    assert wrong <= stats.binom.isf(0.01, pairs, ALPHA)


def test_ten_percent_more_trips_are_found():
    for seed in (1, 2):
        rows = compare([made(seed)], [made(200 + seed, k=1.1)], history=hours_alike(*made(seed).figures)).rows
        found = {row.name for row in rows if row.verdict in ("slower", "worse")}
        assert "k_p50 of write, C, depth 1" in found
        assert "response_p50 of write, C, 150 miles, depth 1" in found
        assert not any(", A," in name or "rtt" in name for name in found)


def test_a_run_against_itself_has_not_changed():
    rows = compare([made(1)], [made(1)], history=hours_alike(*made(1).figures)).rows
    assert {row.verdict for row in rows} == {"same", "unresolved"}
    assert {row.change.value for row in rows} <= {0.0, None}


def test_a_write_lost_in_a_drill_is_the_worst_of_all():
    row = compare([made(1)], [made(1, lost_writes_c=1, a_ns=600_000.0)]).rows[0]
    assert (row.metric, row.verdict) == ("drill_lost_writes", "worse")


def two_modes(dice, rounds, writes):
    """Figures of a p99 that lies in the gap between two modes: 1.2 % of the writes take five times as long."""
    times = dice.lognormal(0, 0.1, (rounds, writes)) * np.where(dice.random((rounds, writes)) < 0.012, 5, 1) * 1e6

    def p99(some):
        return float(np.quantile(some, 0.99, method="inverted_cdf"))

    without = [p99(np.delete(times, index, axis=0)) for index in range(rounds)]
    estimate = Estimate(value=p99(times), without=without, by_round=[p99(one) for one in times], count=times.size)
    return msgspec.structs.replace(response([1e6, 1e6]), metric="response_p99", estimate=estimate)


@pytest.mark.parametrize("paired", [True, False])
def test_a_quantile_in_a_gap_between_two_modes_raises_no_more_alarms_than_others(paired):
    dice = np.random.default_rng(1)
    chances = [change_of(two_modes(dice, 5, 400), two_modes(dice, 5, 400), paired).chance() for _ in range(400)]
    for alpha in (0.05, 0.001):
        alarms = sum(chance < alpha for chance in chances)
        assert stats.binom.sf(alarms - 1, len(chances), alpha) > 0.001


# One run a side, each of its own hour


def run_at(level, dice, within=0.02, rounds=5):
    return response(np.exp(math.log(1e6) + level + within * dice.standard_normal(rounds)))


def known(figures):
    """A history of these figures' runs."""
    about = EarlierRuns(results="results", runs=len(figures))
    return RunHistory(about, {key_of(figures[0]): [level_of(item) for item in figures]} if figures else {})


def test_what_runs_differ_by_is_their_variance_less_what_their_rounds_explain():
    levels = [Spread(value, 0.1, 4) for value in (1.0, 1.5, 2.0, 2.5)]
    found = between_runs(levels)
    assert found.variance == pytest.approx(np.var([1.0, 1.5, 2.0, 2.5], ddof=1) - 0.01)
    error, df = error_of_runs(Spread(0, 0.1, 4), Spread(0, 0.2, 6), found)
    assert error**2 == pytest.approx(0.01 + 0.04 + 2 * found.variance)
    assert df == 3  # Of four runs; the rounds have more.
    one, two = Spread(0, 0.1, 4), Spread(0, 0.2, 6)
    assert error_of_runs(one, two, between_runs(levels * 20))[1] == pytest.approx(welch(one, two)[1])
    assert between_runs(levels[:2]) is None


def test_the_degrees_of_freedom_of_two_runs_are_welchs_and_of_runs_without_an_error_their_sum():
    same, sure = (Spread(0, 0.1, 4), Spread(0, 0.1, 6)), (Spread(0, 0.0, 4), Spread(0, 0.0, 6))
    assert error_of_runs(*same, ONE_HOUR) == pytest.approx((math.sqrt(0.02), 4 / (1 / 4 + 1 / 6)))
    assert error_of_runs(*sure, ONE_HOUR) == (0.0, 10)
    differing = between_runs([Spread(value, 0.0, 4) for value in (1.0, 2.0, 3.0)])
    assert error_of_runs(*sure, differing) == (pytest.approx(math.sqrt(2)), 2)


def test_runs_that_differ_by_no_more_than_their_rounds_explain_add_nothing_and_one_hour_is_welch():
    alike = between_runs([Spread(1.0, 0.5, 4)] * 5)
    assert alike.variance == 0
    one, two = Spread(1.0, 0.3, 4), Spread(2.0, 0.2, 5)
    assert error_of_runs(one, two, alike)[0] == pytest.approx(welch(one, two)[0])
    assert error_of_runs(one, two, ONE_HOUR) == pytest.approx(welch(one, two))


@pytest.mark.parametrize("earlier", [3, 8])
@pytest.mark.parametrize("between", [0.0, 0.05])
def test_with_a_history_two_runs_of_a_machine_that_drifts_are_called_different_as_rarely_as_is_stated(between, earlier):
    dice, pairs, called, blind = np.random.default_rng(earlier), 200, 0, 0
    for _ in range(pairs):
        runs = [run_at(between * dice.standard_normal(), dice) for _ in range(earlier + 2)]
        row = only_row(*runs[-2:], history=known(runs[:-2]))
        assert row.runs == earlier
        called += row.verdict not in UNCHANGED
        blind += only_row(*runs[-2:], history=NO_HISTORY).p <= ALPHA
    assert called <= stats.binom.isf(0.001, pairs, ALPHA)
    assert not between or blind > 0.5 * pairs  # What was called a change before: the rounds do not know the hour.


def test_without_a_history_nothing_is_called_a_change_and_nothing_is_the_same():
    base, slow = response(STEADY), response(times(1.2))
    row = only_row(base, slow, history=NO_HISTORY)
    assert (row.verdict, row.runs) == ("differs", 0) and "the hour may be why" in row.sentence
    row = only_row(base, base, history=NO_HISTORY)
    assert row.verdict == "alike" and "their hours may hide a change" in row.sentence
    few = only_row(base, slow, history=known([base] * 2))
    assert few.verdict == "differs"
    found = compare([result_set(base, losses(0))], [result_set(slow, losses(1))])
    assert {row.metric: row.verdict for row in found.rows} == {"response_p99": "differs", "lost_writes": "worse"}
    assert "a change may be of the hour" in found.warnings[0] and "of these two runs only" in found.warnings[0]


def test_what_is_built_in_is_no_hours_business():
    base, more = (figure([value] * 5, metric="flushes_per_write", exact=True) for value in (1.0, 2.0))
    assert only_row(base, more, history=NO_HISTORY).verdict == "worse"
    assert only_row(base, base, history=NO_HISTORY).verdict == "same"


def test_arms_measured_side_by_side_and_several_runs_a_side_need_no_history():
    base, slow = response(STEADY), response(times(1.2))
    assert compare([result_set(base, arm="base")], [result_set(slow, arm="cand")]).rows[0].verdict == "slower"
    assert compare([result_set(base)] * 3, [result_set(slow)] * 3).earlier_runs is None


def test_the_noise_floor_is_what_earlier_runs_differ_by():
    runs = [response(times(factor)) for factor in (1.0, 1.01, 1.04)]
    found = compare([result_set(response(STEADY))], [result_set(response(STEADY))], history=known(runs))
    assert found.rows[0].floor == pytest.approx(0.04, abs=1e-6) and found.floor_from == "earlier runs against each other"


def test_runs_farther_apart_than_the_earlier_ones_together_are_warned_about():
    about = EarlierRuns(results="results", runs=5, first_utc="2026-01-01T00:00:00+00:00", last_utc="2026-01-01T02:00:00+00:00")
    history = RunHistory(about, {key_of(response(STEADY)): [Spread(0.0, 0.0, 4.0)] * 5})
    base = result_set(response(STEADY))
    for hours, warned in ((1, False), (49, True)):
        day = f"2026-01-0{2 + (3 + hours) // 24}T{(3 + hours) % 24:02}:04:05+00:00"
        cand = msgspec.structs.replace(base, id="cand", started_utc=day)
        found = compare([base], [cand], history=history).warnings
        assert bool(found) == warned
        assert not warned or "49 h apart and the 5 earlier ones lie within 2 h" in found[0]
