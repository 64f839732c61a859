"""The gate: what passes, what fails, what is unknown, how often it is wrong, and what it can see."""

from __future__ import annotations

import math
import subprocess
import sys
from functools import cache
from io import StringIO

import msgspec
import numpy as np
import pytest
from rich.console import Console

from farwrite.analysis.analyse import analyse
from farwrite.analysis.between_runs import RUNS_MIN, EarlierRuns, RunHistory
from farwrite.analysis.change import Spread, key_of
from farwrite.analysis.student_t import critical, tail
from farwrite.analysis.verdict import TAIL
from farwrite.base.errors import UnfitError, UsageError
from farwrite.base.reasons import below_measured, beyond_measured, hours_apart, no_distance, unsound
from farwrite.compare.figures import ResultSet, figures_of, result_set_of
from farwrite.gate.budget import Budget, Budgets, parse
from farwrite.gate.budget_verdict import Case, outcomes_of, verdicts_of
from farwrite.gate.gate import Gate, exit_code_of, gate, metrics_of
from farwrite.recording import SCHEMA_VERSION, Report
from farwrite.report.gate import show_gate
from make_figures import at, figure, hours_alike, measured, result_set
from make_recording import make_recording

AT_20 = measured("response_p50", [0.9e6, 1.0e6, 1.1e6, 1.0e6, 1.0e6])


def promised(text: str, **head) -> Budgets:
    words = [f"{key} = {value}" for key, value in head.items()]
    return parse("\n".join([*words, text]), "b.toml")


def promise(metric: str, limit: str, where: str = "", more: str = "") -> str:
    return f'[[budget]]\nmetric = "{metric}"\n{limit}\n' + (f"where = {{ {where} }}\n" if where else "") + f"{more}\n"


def judged(figures, text: str, baseline=None, **options) -> Gate:
    options = {"history": hours_alike(*(baseline or [])), **options}
    return gate(result_set(*figures), promised(text), result_set(*baseline) if baseline else None, **options)


def only(found: Gate):
    decided, = found.verdicts
    return decided


# Counts


@pytest.mark.parametrize(("limit", "value", "verdict"), [
    ("equals = 3", 3, "pass"), ("equals = 3", 4, "fail"), ("equals = 3", 2, "fail"),
    ("at_most = 3", 3, "pass"), ("at_most = 3", 4, "fail"), ("at_least = 3", 3, "pass"), ("at_least = 3", 2, "fail"),
])  # fmt: skip
def test_a_count_is_compared_as_it_is(limit, value, verdict):
    found = judged([figure("lag_writes_max", value)], promise("lag_writes_max", limit))
    assert found.verdict == verdict and found.tests == 0


def test_a_ratio_of_counts_that_is_its_limit_keeps_it():
    ratio = figure("wire_bytes_per_user_byte", 4160 / 4096 * (1 + 1e-15), without=[1.0, 1.1])
    assert judged([ratio], promise("wire_bytes_per_user_byte", "at_most = 1.015625")).verdict == "pass"


def test_counts_of_two_runs_are_compared_by_share_or_by_difference():
    figures = [figure("lag_writes_max", 12)], [figure("lag_writes_max", 10)]
    for limit, verdict in (('not_worse_by = "20 %"', "pass"), ('not_worse_by = "10 %"', "fail"), ("not_worse_by = 2", "pass"),
                           ("not_worse_by = 1", "fail")):  # fmt: skip
        assert judged(figures[0], promise("lag_writes_max", limit), figures[1]).verdict == verdict


def test_a_ratio_that_no_round_changes_takes_no_part_in_holms_procedure():
    same = figure("flushes_per_write", 1.0, without=[1.0] * 5)
    more = figure("flushes_per_write", 2.0, without=[2.0] * 5)
    text = promise("flushes_per_write", 'not_worse_by = "0 %"')
    assert judged([same], text, [same]).verdict == "pass"
    worse = judged([more], text, [same])
    assert worse.verdict == "fail" and worse.tests == 0


# Measurements, worked out on paper


@pytest.mark.parametrize(("limit_ms", "verdict"), [
    (0.9, "fail"), (0.91, "fail"), (0.92, "unknown"), (0.97, "unknown"), (1.0, "unknown"), (1.05, "unknown"), (1.2, "pass"),
])  # fmt: skip
def test_a_measurement_passes_fails_or_is_unknown(limit_ms, verdict):
    decided = only(judged([AT_20], promise("response_p50", f'at_most = "{limit_ms} ms"')))
    logs = np.log([0.9, 1.0, 1.1, 1.0, 1.0])
    t = (logs.mean() - math.log(limit_ms)) / (logs.std(ddof=1) / math.sqrt(5))
    assert decided.p_fail == pytest.approx(tail(t, 4), abs=1e-4)  # A histogram's slots add a little error.
    assert decided.p_pass == pytest.approx(tail(-t, 4), abs=1e-4)
    assert decided.verdict == verdict == ("fail" if decided.p_fail <= TAIL else "pass" if decided.p_pass <= TAIL else "unknown")


@pytest.mark.parametrize(("link", "is_stream_level"), [("relay", True), ("ferry", False)])
def test_a_gate_knows_on_what_level_its_report_was_measured_and_says_so(link, is_stream_level):
    measured_there = msgspec.structs.replace(result_set(figure("lost_writes", 0)), identity={"host": "a host", "link": link})
    found = gate(measured_there, promised(promise("lost_writes", "equals = 0")))
    assert found.stream_level == is_stream_level
    console = Console(file=StringIO(), width=100)
    show_gate(found, console)
    verdict = next(line for line in console.file.getvalue().splitlines() if "PASS:" in line)
    assert verdict.endswith("(stream-level)") == is_stream_level


def test_at_least_is_at_most_turned_round():
    rounds = [900.0, 1000.0, 1100.0, 1000.0, 1000.0]
    for limit, verdict in ((800, "pass"), (1000, "unknown"), (1200, "fail")):
        assert judged([measured("throughput", rounds)], promise("throughput", f'at_least = "{limit} /s"')).verdict == verdict


def test_a_system_that_does_nothing_fails():
    dead = figure("throughput", 0.0, low=0.0, high=0.0, without=[0.0] * 5)
    assert judged([dead], promise("throughput", 'at_least = "100 /s"')).verdict == "fail"


def test_a_sentence_has_the_value_its_interval_the_limit_and_the_count():
    seen = figure("response_p99", 634_111.0, low=569_087.0, high=714_495.0, count=6110, without=[634_000.0, 634_200.0, 634_100.0])
    found = judged([seen], promise("response_p99", 'at_most = "2 ms"'))
    assert only(found).sentence == (
        "response_p99 of write, C, 20 miles, depth 1 is 0.634 ms [0.569, 0.714] of at most 2 ms (n = 6,110)"
    )


def test_a_value_that_rounds_to_its_limit_is_told_with_more_digits():
    seen = figure("response_p99", 2_000_400.0, count=9, without=[2_000_400.0, 2_000_400.0])
    assert "is 2.00040 ms of at most 2 ms" in only(judged([seen], promise("response_p99", 'at_most = "2 ms"'))).sentence


def test_an_unknown_says_how_many_rounds_would_tell():
    decided = only(judged([AT_20], promise("response_p50", 'at_most = "1.05 ms"')))
    error = np.log([0.9, 1.0, 1.1, 1.0, 1.0]).std(ddof=1)
    room = math.log(1.05) - np.log([0.9, 1.0, 1.1, 1.0, 1.0]).mean()
    needed = decided.rounds_needed
    for rounds, tells in ((needed, True), (needed - 1, False)):
        t = critical(TAIL, rounds - 1) + critical(0.1, rounds - 1)
        assert (t * error / math.sqrt(rounds) <= room) == tells
    assert f"some {needed} rounds instead of 5 would tell" in decided.sentence


def test_what_lies_at_its_limit_is_told_so():
    decided = only(judged([AT_20], promise("response_p50", f'at_most = "{AT_20.estimate.value} ns"')))
    assert decided.verdict == "unknown" and decided.rounds_needed is None and "too close to the limit" in decided.sentence


def test_what_a_gate_sees_is_failed_in_nine_of_ten_runs():
    decided = only(judged([AT_20], promise("response_p50", 'at_most = "1.2 ms"')))
    dice = np.random.default_rng(1)
    sigma = np.log([0.9, 1.0, 1.1, 1.0, 1.0]).std(ddof=1)
    budget = promised(promise("response_p50", 'at_most = "1.2 ms"')).budgets[0]
    cases = [Case(budget, measured("response_p50", decided.sees * np.exp(sigma * dice.standard_normal(5)))) for _ in range(400)]
    failed = sum(outcomes_of([case], 0.05)[0].verdict == "fail" for case in cases)
    assert 0.8 <= failed / 400 <= 0.97


# Many tests, several looks


def test_failures_are_adjusted_for_being_many_and_passes_are_not():
    ms = [measured("response_p50", [value * factor for factor in (0.99e6, 1.0e6, 1.01e6, 1.0e6)], at(index))
          for index, value in enumerate((1.02, 1.0, 1.0, 1.0))]  # fmt: skip
    text = promise("response_p50", 'at_most = "1.006 ms"')
    alone = judged(ms[:1], text)
    assert alone.verdict == "fail" and 0.0125 < only(alone).p_fail <= 0.025
    together = judged(ms, text)
    worst = together.verdicts[0]
    assert together.tests == 4 and worst.verdict == "unknown"
    assert worst.p_adjusted == pytest.approx(4 * worst.p_fail) and worst.p_fail == only(alone).p_fail
    kept = [measured("response_p50", [0.99e6, 1.0e6, 1.01e6, 1.0e6], at(index)) for index in range(40)]
    limit_ns = 1e6 * math.exp(4.0 * np.log([0.99, 1.0, 1.01, 1.0]).std(ddof=1) / 2)
    found = judged(kept, promise("response_p50", f'at_most = "{limit_ns} ns"'))
    assert found.verdict == "pass" and found.tests == 40
    for decided in found.verdicts:  # Each passes at the level, and none would at its fortieth.
        assert decided.verdict == "pass" and found.level / 40 < decided.p_pass <= found.level / 2


def test_what_is_only_reported_costs_the_others_nothing():
    bad = measured("response_p50", [1.01e6, 1.02e6, 1.03e6, 1.02e6])
    others = [measured("service_p50", [0.99e6, 1.0e6, 1.01e6, 1.0e6], at(index)) for index in range(50)]
    text = promise("response_p50", 'at_most = "1.0073 ms"')
    also = text + promise("service_p50", 'at_most = "1 ms"', more="gating = false")
    alone, beside = judged([bad], text), judged([bad, *others], also)
    assert alone.verdicts[0].p_adjusted == beside.verdicts[0].p_adjusted and beside.tests == 1


@pytest.mark.parametrize(("looks", "verdict"), [(1, "fail"), (2, "fail"), (3, "unknown")])
def test_looks_share_alpha(looks, verdict):
    rounds = [1.01e6, 1.02e6, 1.03e6, 1.02e6]
    budgets = promised(promise("response_p50", 'at_most = "1.006 ms"'), looks=looks)
    found = gate(result_set(measured("response_p50", rounds)), budgets)
    assert 0.05 / 3 < only(found).p_fail <= 0.025 and found.verdict == verdict and found.level == 0.05 / looks


@pytest.mark.parametrize("look", [0, 2, -1])
def test_a_look_too_many_is_refused(look):
    with pytest.raises(UsageError, match=rf"--look {look}: b.toml allows 1"):
        judged([AT_20], promise("response_p50", 'at_most = "2 ms"'), look=look)


def test_the_last_look_allowed_is_not_refused():
    budgets = promised(promise("response_p50", 'at_most = "2 ms"'), looks=3)
    assert gate(result_set(AT_20), budgets, look=3).look == 3


# Against a baseline


def side(scale: float, metric="response_p50", shift: float = 0.0):
    return measured(metric, [scale * value for value in (0.98e6, 1.0e6, 1.02e6, 1.0e6, 1.0e6 + shift)])


def test_a_change_is_held_against_the_limit_and_not_against_nothing():
    text = promise("response_p50", 'not_worse_by = "5 %"')
    for scale, verdict in ((1.0, "pass"), (1.04, "unknown"), (1.05, "unknown"), (1.2, "fail"), (0.5, "pass")):
        assert judged([side(scale)], text, [side(1.0)]).verdict == verdict, scale


def test_less_throughput_is_worse():
    text = promise("throughput", 'not_worse_by = "5 %"')
    for scale, verdict in ((1.0, "pass"), (0.8, "fail"), (2.0, "pass")):
        assert judged([side(scale, "throughput")], text, [side(1.0, "throughput")]).verdict == verdict
    assert "changed by -20.0 % [" in only(judged([side(0.8, "throughput")], text, [side(1.0, "throughput")])).sentence


def test_fits_and_miles_are_compared_by_difference():
    base = measured("greatest_miles_p99", [99.0, 100.0, 101.0, 100.0], at(0))
    less = measured("greatest_miles_p99", [89.0, 90.0, 91.0, 90.0], at(0))
    assert judged([less], promise("greatest_miles_p99", 'not_worse_by = "3 miles"'), [base]).verdict == "fail"
    assert judged([less], promise("greatest_miles_p99", 'not_worse_by = "15 miles"'), [base]).verdict == "pass"


def test_arms_of_one_experiment_are_compared_round_by_round():
    mood = [1.0, 1.5, 0.8, 1.2, 1.1]  # What the machine did to both.
    base = measured("response_p50", [1e6 * one for one in mood])
    cand = measured("response_p50", [1.1e6 * one * extra for one, extra in zip(mood, (1.0, 1.01, 0.99, 1.0, 1.0), strict=True)])
    budgets = promised(promise("response_p50", 'not_worse_by = "5 %"'))
    # The base's own rounds differ by half: only its A/A arm shows that beside each other they do not.
    again = result_set(measured("response_p50", [1.001e6 * one for one in mood]), arm="again")
    apart = gate(result_set(cand), budgets, result_set(base))
    beside = gate(result_set(cand, arm="cand"), budgets, result_set(base, arm="base"), again)
    assert apart.verdict == "unknown" and any("of these two runs only" in text for text in apart.warnings)
    assert beside.verdict == "fail" and not beside.warnings and beside.floor_from == "the base measured twice side by side"


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.2, 2.0])
def test_two_runs_of_different_hours_decide_nothing_until_earlier_runs_show_what_hours_differ_by(scale):
    budgets = promised(promise("response_p50", 'not_worse_by = "5 %"') + promise("lost_writes", "equals = 0"))
    lost, kept = figure("lost_writes", 1), figure("lost_writes", 0)
    found = gate(result_set(side(scale), kept), budgets, result_set(side(1.0), kept))
    assert found.verdict == "unknown" and found.earlier_runs.runs == 0
    assert str(hours_apart(RUNS_MIN)) in found.verdicts[0].sentence and "a change may be of the hour" in found.warnings[0]
    # What is counted needs no hour.
    assert gate(result_set(side(scale), lost), budgets, result_set(side(1.0), kept)).verdict == "fail"
    few = hours_alike(side(1.0), runs=2)
    assert gate(result_set(side(scale), kept), budgets, result_set(side(1.0), kept), history=few).verdict == "unknown"
    told = gate(result_set(side(scale), kept), budgets, result_set(side(1.0), kept), history=hours_alike(side(1.0)))
    assert told.verdict == ("fail" if scale > 1.05 else "pass") and told.earlier_runs.runs == 9


def test_earlier_runs_that_differ_make_a_gate_as_unsure_as_they_are():
    budgets = promised(promise("response_p50", 'not_worse_by = "5 %"'))
    levels = [Spread(math.log(1e6) + apart, 0.005, 4) for apart in (-0.1, 0.1, -0.05, 0.05, 0.0, 0.08, -0.08, 0.02)]
    restless = RunHistory(EarlierRuns(results="results", runs=8), {key_of(side(1.0)): levels})
    for scale in (1.0, 1.12):
        assert gate(result_set(side(scale)), budgets, result_set(side(1.0)), history=restless).verdict == "unknown"
    assert gate(result_set(side(2.0)), budgets, result_set(side(1.0)), history=restless).verdict == "fail"


def test_a_failure_must_exceed_what_the_same_thing_measured_twice_differs_by():
    budgets = promised(promise("response_p50", 'not_worse_by = "5 %"'))
    again = result_set(side(1.3), arm="again")
    found = gate(result_set(side(1.2), arm="cand"), budgets, result_set(side(1.0), arm="base"), again)
    assert only(found).verdict == "unknown" and only(found).p_adjusted <= 0.05 and only(found).floor == pytest.approx(0.3)
    assert "beyond chance, but the same thing measured twice differs by up to +30.0 %" in only(found).sentence


def test_a_relative_budget_needs_a_baseline():
    with pytest.raises(UsageError, match=r'b.toml:1: "response_p50" is held against a baseline: .*--baseline'):
        judged([AT_20], promise("response_p50", 'not_worse_by = "5 %"'))


def test_runs_that_are_unlike_are_not_compared_unless_that_is_allowed():
    budgets = promised(promise("response_p50", 'not_worse_by = "5 %"'))
    with pytest.raises(UnfitError, match="--allow-mismatch host"):
        gate(result_set(side(1.0)), budgets, result_set(side(1.0), host="another"))
    known = hours_alike(side(1.0))
    other = result_set(side(1.0), host="another")
    assert gate(result_set(side(1.0)), budgets, other, allowed=["host"], history=known).verdict == "pass"
    with pytest.raises(UsageError, match="no such field"):
        gate(result_set(side(1.0)), budgets, result_set(side(1.0)), allowed=["hots"])


@pytest.mark.parametrize("lacks", ["report", "baseline"])
def test_a_cell_that_one_side_lacks_is_not_passed_over(lacks):
    both, one = [side(1.0), measured("response_p50", [1e6, 1e6, 1.1e6], at(150))], [side(1.0)]
    sides = (one, both) if lacks == "report" else (both, one)
    text = promise("response_p50", 'not_worse_by = "5 %"')
    with pytest.raises(UnfitError, match="lacks write, C, 150 miles"):
        judged(sides[0], text, sides[1])
    found = judged(sides[0], text, sides[1], allowed=["cells"])
    assert found.verdict == ("pass" if lacks == "report" else "unknown")


def test_a_baseline_that_nothing_is_held_against_is_mentioned():
    found = judged([AT_20], promise("response_p50", 'at_most = "2 ms"'), [AT_20])
    assert found.baseline is None and any("no budget is held against the baseline" in text for text in found.warnings)


# What cannot be decided


@pytest.mark.parametrize(("unclear", "reason"), [
    (figure("response_p50", 1e6, withheld=["the generator was late"]), "the generator was late"),
    (figure("response_p50", None, warnings=["needs n >= 368"]), "needs n >= 368"),
    (figure("response_p50", None), "it has no value"),
    (measured("response_p50", [1e6]), "one round only"),
    (figure("response_p50", math.nan, without=[1.0, 2.0]), "it has no value"),
    (figure("response_p50", 1e6, without=[1e6, 1e6, 1e6], warnings=[unsound()]), str(unsound())),
])  # fmt: skip
def test_what_cannot_be_decided_is_unknown_with_its_reason(unclear, reason):
    for text, baseline in ((promise("response_p50", 'at_most = "2 ms"'), None),
                           (promise("response_p50", 'not_worse_by = "5 %"'), [AT_20])):  # fmt: skip
        found = judged([unclear], text, baseline)
        assert found.verdict == "unknown" and reason in only(found).sentence and not only(found).measured


@pytest.mark.parametrize(("off_ns", "verdict"), [(None, "pass"), (99_000.0, "pass"), (101_000.0, "unknown")])
def test_a_limit_in_time_is_not_judged_over_a_link_that_is_off_by_more_than_5_percent_of_it(off_ns, verdict):
    item = msgspec.structs.replace(AT_20, link_error_ns=off_ns)
    found = judged([item], promise("response_p50", 'at_most = "2 ms"'))
    assert found.verdict == verdict
    assert ("is more than 5% of the 2.00 ms it is judged against" in only(found).sentence) == (verdict == "unknown")
    # A change is judged over the same link on both sides.
    assert judged([item], promise("response_p50", 'not_worse_by = "40 %"'), [AT_20]).verdict == "pass"


def test_only_latencies_that_wait_for_the_link_know_how_far_it_was_off():
    analysis = analyse(make_recording())
    known = {(f.metric, f.labels.get("protocol")) for f in figures_of(analysis) if f.link_error_ns is not None}
    assert ("response_p99", "C") in known and ("service_p50", "C") in known
    assert not any(protocol in ("A", "local") or "floor" in metric or "k_" in metric for metric, protocol in known)


def test_an_interrupted_run_may_break_a_promise_but_not_keep_one():
    budgets = promised(promise("lost_writes", "equals = 0") + promise("response_p50", 'at_most = "2 ms"'))
    for lost, verdicts in ((0, ["unknown", "unknown"]), (1, ["fail", "unknown"])):
        found = gate(result_set(figure("lost_writes", lost), AT_20, interrupted=True), budgets)
        assert [item.verdict for item in found.verdicts] == verdicts
        assert "interrupted" in found.verdicts[1].sentence


def test_an_interrupted_baseline_decides_nothing():
    budgets = promised(promise("response_p50", 'not_worse_by = "5 %"'))
    assert gate(result_set(side(1.2)), budgets, result_set(side(1.0), interrupted=True)).verdict == "unknown"


def test_a_cell_that_was_not_audited_is_not_free_of_losses():
    cells = [figure("lost_writes", 0), AT_20, measured("response_p50", [1e6, 1e6], at(150))]
    found = judged(cells, promise("lost_writes", "equals = 0"))
    assert found.verdict == "unknown" and len(found.verdicts) == 2
    assert "150 miles, depth 1 has no value (exactly 0 promised): what stands" in found.verdicts[0].sentence


# Where distance has no part


def miles_without(holds: str):
    labels = {"name": "write", "protocol": "A", "budget": "2 ms", "route": 1.0}
    return figure("greatest_miles_p99", None, labels, warnings=[no_distance(holds)])


def a_of(*rounds: float):
    return measured("a_p99", rounds, {"name": "write", "protocol": "A", "queue_depth": 1})


@pytest.mark.parametrize(("a", "verdict"), [
    ((1e5, 1.1e5, 1e5), "pass"), ((1.9e6, 2.1e6, 2e6), "unknown"), ((3e6, 3.1e6, 3e6), "fail"),
])  # fmt: skip
def test_miles_without_end_are_decided_by_what_does_not_depend_on_them(a, verdict):
    found = judged([miles_without("unclear"), a_of(*a)], promise("greatest_miles_p99", "at_least = 100"))
    assert found.verdict == verdict and found.tests == 1 and "a_p99 is" in only(found).sentence


@pytest.mark.parametrize(("holds", "words", "verdict"), [
    ("any", "holds at any", "pass"), ("none", "holds at none", "fail"),
    ("unclear", "too close to the budget to tell whether it holds", "unknown"),
])  # fmt: skip
def test_without_the_fit_the_analysis_is_believed(holds, words, verdict):
    found = judged([miles_without(holds)], promise("greatest_miles_p99", "at_least = 100"))
    assert found.verdict == verdict and words in only(found).sentence
    assert judged([miles_without(holds)], promise("greatest_miles_p99", "at_most = 100")).verdict == "unknown"


def beyond(miles: float, below: bool = False):
    labels = {"name": "write", "protocol": "C", "budget": "2 ms", "route": 1.0}
    made = figure("greatest_miles_p99", None, labels, warnings=[below_measured(miles) if below else beyond_measured(miles)])
    return msgspec.structs.replace(made, **({"below": miles} if below else {"beyond": miles}))


@pytest.mark.parametrize(("rounds", "asked", "verdict"), [
    ((1.5e6, 1.52e6, 1.51e6), 100, "pass"), ((1.5e6, 1.52e6, 1.51e6), 150, "pass"), ((1.5e6, 1.52e6, 1.51e6), 151, "unknown"),
    ((1.7e6, 2.4e6, 1.8e6), 100, "unknown"),
])  # fmt: skip
def test_miles_beyond_what_was_measured_are_decided_by_the_farthest_response_time(rounds, asked, verdict):
    result_set = [beyond(150), measured("response_p99", [5e5, 5.1e5, 5e5], at(20)), measured("response_p99", rounds, at(150))]
    found = judged(result_set, promise("greatest_miles_p99", f"at_least = {asked}"))
    assert found.verdict == verdict
    assert "beyond 150 miles, not measured" in only(found).sentence
    if verdict == "pass":
        assert "response_p99 of write, C, 150 miles" in only(found).sentence and found.tests == 1


def test_miles_below_what_was_measured_are_decided_by_the_nearest_response_time():
    result_set = [beyond(20, below=True), measured("response_p99", [3e6, 3.1e6, 3e6], at(20)),
             measured("response_p99", [9e6, 9e6, 9e6], at(150))]  # fmt: skip
    assert judged(result_set, promise("greatest_miles_p99", "at_least = 60")).verdict == "fail"
    assert judged(result_set, promise("greatest_miles_p99", "at_least = 10")).verdict == "unknown"


def test_any_distance_before_and_after_is_no_worse():
    text = promise("greatest_miles_p99", "not_worse_by = 3")
    assert judged([miles_without("any")], text, [miles_without("any")]).verdict == "pass"
    assert judged([miles_without("none")], text, [miles_without("any")]).verdict == "unknown"


def test_the_codes_of_the_analysis_are_those_the_gate_looks_for():
    made = analyse(make_recording(changes=(*SMALLER, 'cell.protocols=["A"]'), writes=400))
    codes = [reason for found in made.miles if found.protocol == "A" for reason in found.miles.warnings]
    assert no_distance("any") in codes


# Selecting


CELLS = [measured("response_p50", [1e6, 1.1e6], at(miles, protocol=protocol)) for miles in (20.0, 150.0) for protocol in "CA"]


@pytest.mark.parametrize(("where", "count"), [
    ("", 4), ('protocol = "C"', 2), ("miles = 20", 2), ("miles = 20.0", 2), ("miles = [20, 150]", 4),
    ('miles = 20, protocol = "A"', 1), ('protocol = ["A", "C"], miles = 150', 2),
])  # fmt: skip
def test_a_budget_is_about_every_figure_with_its_labels(where, count):
    assert len(judged(CELLS, promise("response_p50", 'at_most = "9 ms"', where)).verdicts) == count


@pytest.mark.parametrize(("where", "said"), [
    ("mils = 20", r'response_p50 has no label "mils" \(did you mean "miles"\?\)'),
    ("miles = 21", r"has no response_p50 with miles 21; it has 20, 150\."),
    ("miles = [20, 21]", r"miles 21"),
    ('protocol = "B"', r'protocol "B"; it has "C", "A"\.'),
    ('miles = "20"', r'miles "20"; it has 20, 150'),
    ('miles = 150, protocol = "B"', r'protocol "B"'),
])  # fmt: skip
def test_a_selector_that_selects_nothing_names_what_there_is(where, said):
    with pytest.raises(UsageError, match=rf"b\.toml:\d: .*{said}"):
        judged(CELLS, promise("response_p50", 'at_most = "9 ms"', where))


def test_a_combination_that_is_not_there_names_what_is():
    with pytest.raises(UsageError, match=r'selects no response_p50 with miles 150; with that there are write, A, 150 miles'):
        judged([CELLS[0], CELLS[3]], promise("response_p50", 'at_most = "9 ms"', 'miles = 150, protocol = "C"'))


def test_a_metric_that_the_report_lacks_is_refused():
    with pytest.raises(UsageError, match=r'made-up has no response_p99 \(did you mean "response_p50"\?\)'):
        judged([AT_20], promise("response_p99", 'at_most = "1 ms"'))


@pytest.mark.parametrize("text", [
    promise("k_p50", "at_most = 1", more="gating = false"),
    promise("response_p50", 'not_worse_by = "5 %"', more="gating = false"),
    promise("response_p50", 'at_most = "1 ms"', "miles = 21", more="gating = false"),
])  # fmt: skip
def test_what_is_only_reported_and_not_there_is_a_warning(text):
    found = judged([AT_20, figure("lost_writes", 0)], promise("lost_writes", "equals = 0") + text)
    assert found.verdict == "pass" and len(found.verdicts) == 1
    assert len(found.warnings) == 1 and found.warnings[0].startswith("not reported: b.toml:")


def test_metrics_of_other_tools_are_known_from_their_sheets():
    assert "response_p50" in metrics_of(None, result_set(AT_20)) and metrics_of(result_set(AT_20))["k_p50"].unit == "ratio"


# The whole gate


def test_one_failure_is_a_failure_and_the_worst_comes_first():
    figures = [figure("unacknowledged_writes", 1), figure("lost_writes", 1), figure("damaged_writes", 0), AT_20]
    text = promise("damaged_writes", "equals = 0") + promise("response_p50", 'at_most = "1 ms"')
    found = judged(figures, text + promise("unacknowledged_writes", "equals = 0") + promise("lost_writes", "equals = 0"))
    assert found.verdict == "fail" and [found.count(verdict) for verdict in ("fail", "unknown", "pass")] == [2, 1, 1]
    assert [item.metric for item in found.verdicts] == ["lost_writes", "unacknowledged_writes", "response_p50", "damaged_writes"]


@pytest.mark.parametrize(("figures", "text", "inconclusive", "code"), [
    ([figure("lost_writes", 0)], promise("lost_writes", "equals = 0"), None, 0),
    ([figure("lost_writes", 1)], promise("lost_writes", "equals = 0"), "pass", 5),
    ([figure("drill_damaged_writes", 1)], promise("drill_damaged_writes", "at_most = 0"), None, 5),
    ([figure("lost_writes", 0)], promise("lost_writes", "equals = 1"), None, 3),
    ([figure("lost_writes", 1)], promise("lost_writes", "equals = 0", more="gating = false"), None, 0),
    ([figure("lag_writes_max", 1)], promise("lag_writes_max", "equals = 0"), "pass", 3),
    ([AT_20], promise("response_p50", 'at_most = "1 ms"'), None, 4),
    ([AT_20], promise("response_p50", 'at_most = "1 ms"'), "pass", 0),
    ([AT_20], promise("response_p50", 'at_most = "1 ms"'), "fail", 3),
])  # fmt: skip
def test_the_exit_code_is_the_verdict(figures, text, inconclusive, code):
    assert exit_code_of(judged(figures, text), inconclusive) == code


def test_more_losses_than_the_baseline_are_losses():
    lost = promise("lost_writes", "not_worse_by = 0")
    assert exit_code_of(judged([figure("lost_writes", 2)], lost, [figure("lost_writes", 1)])) == 5
    assert exit_code_of(judged([figure("lost_writes", 1)], lost, [figure("lost_writes", 1)])) == 0


def test_judging_loads_neither_numpy_nor_scipy():
    code = "import sys, farwrite.gate.gate, farwrite.gate.suggest; "
    code += "import farwrite.report.gate, farwrite.report.junit, farwrite.report.markdown; "
    code += "assert not {'numpy', 'scipy', 'numba'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# How often it is wrong, and what it finds


def binomial_bound(count: int, probability: float, error: float = 1e-3) -> int:
    """What a Binomial(count, probability) exceeds with less than `error`."""
    total, k = 0.0, -1
    while total < 1 - error:
        k += 1
        total += math.comb(count, k) * probability**k * (1 - probability) ** (count - k)
    return k


@pytest.mark.parametrize("kind", ["absolute at the limit", "unchanged and paired", "unchanged and apart"])
def test_false_alarms_of_the_whole_gate_are_as_rare_as_alpha_says(kind):
    gates, budgets, rounds, alpha = 400, 6, 5, 0.05
    dice = np.random.default_rng(7)
    absolute = kind.startswith("absolute")
    budget = (Budget(metric="response_p50", kind="at_most", limit=1e6) if absolute
              else Budget(metric="response_p50", kind="not_worse_by", limit=0.0, share=True))  # fmt: skip
    alarms = 0
    for _ in range(gates):
        cases = []
        for _ in range(budgets):
            mood = dice.standard_normal(rounds)  # Of the machine, round by round; hits both sides when they are paired.
            base, cand = (0.1 * mood + 0.05 * dice.standard_normal(rounds) for _ in range(2))
            if kind.endswith("apart"):
                base = 0.1 * dice.standard_normal(rounds)
            sides = [measured("response_p50", 1e6 * np.exp(one)) for one in (cand, base)]
            cases.append(Case(budget, sides[0]) if absolute else Case(budget, *sides, paired=kind.endswith("paired")))
        alarms += any(outcome.verdict == "fail" for outcome in outcomes_of(cases, alpha))
    assert alarms <= binomial_bound(gates, alpha)


SMALLER = ("distance.miles=[0, 20, 150]", "run.round=200 ms", "drill.kills=0")

GATE = "\n".join([
    promise("response_p50", 'not_worse_by = "5 %"', 'protocol = "C"'), promise("k_p50", "not_worse_by = 0.05", 'protocol = "C"'),
    promise("response_p50", 'at_most = "2 ms"', 'protocol = "C", miles = 20', 'name = "20 miles"'),
    promise("lost_writes", "equals = 0"), promise("flushes_per_write", 'not_worse_by = "1 %"'),
])  # fmt: skip


@cache
def world(seed: int, **truth) -> ResultSet:
    made = make_recording(changes=(*SMALLER, 'cell.protocols=["C"]'), seed=seed, writes=400, **truth)
    return result_set_of(Report(schema_version=SCHEMA_VERSION, recording=made), analyse(made), f"world {seed}")


def test_worlds_in_which_nothing_changed_are_not_failed_more_often_than_alpha():
    # Each world against the next, in a circle: few worlds take little time.
    alike = hours_alike(*world(1).figures)
    gates = [gate(world(seed), promised(GATE), world(seed % 6 + 1), history=alike) for seed in range(1, 7)]
    assert sum(found.verdict == "fail" for found in gates) <= binomial_bound(len(gates), 0.05, error=0.02)


@pytest.mark.parametrize(("truth", "metric"), [({"a_ns": 450_000.0}, "response_p50"), ({"k": 1.3}, "k_p50"),
                                               ({"lost_in_rounds": 1}, "lost_writes")])  # fmt: skip
def test_a_world_that_became_worse_is_failed(truth, metric):
    found = gate(world(1, **truth), promised(GATE), world(2), history=hours_alike(*world(2).figures))
    assert found.verdict == "fail" and metric in {item.metric for item in found.verdicts if item.verdict == "fail"}


def test_a_world_that_became_faster_is_not_failed():
    assert gate(world(1, a_ns=200_000.0), promised(GATE), world(2), history=hours_alike(*world(2).figures)).verdict != "fail"


def test_verdicts_come_in_the_order_of_their_cases():
    budget = promised(promise("response_p50", 'at_most = "2 ms"')).budgets[0]
    cases = [Case(budget, figure("response_p50", None, at(miles))) for miles in range(5)]
    assert [item.labels["miles"] for item in verdicts_of(cases, 0.05)] == [0, 1, 2, 3, 4]
    assert verdicts_of([], 0.05) == []
