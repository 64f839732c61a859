"""Which figures a budget is about, what each is held against and what stands in for one without a value."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from farwrite.analysis.between_runs import RUNS_MIN, EarlierRuns, RunHistory
from farwrite.analysis.change import Spread, key_of
from farwrite.analysis.figure import METRICS, Metric
from farwrite.base.errors import EXIT_DONE, EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, EXIT_LOST_WRITE, UnfitError, UsageError
from farwrite.gate.budget import Budget, Budgets
from farwrite.gate.gate import (
    cases_of,
    check_complete,
    exit_code_of,
    fits,
    gate,
    instead_of,
    matches,
    metrics_of,
    not_audited,
    same,
    select,
    verdict_of_all,
    worst_first,
)
from make_figures import at, figure, hours_alike, measured, result_set

ROUNDS = [0.99e6, 1.0e6, 1.01e6, 1.0e6]


def budget(metric="response_p50", kind="at_most", limit=2e6, where=None, **more):
    return Budget(metric=metric, kind=kind, limit=limit, where=where or {}, name=more.pop("name", "b"), place="b.toml:1", **more)


def worse(metric="response_p50", **more):
    return budget(metric, "not_worse_by", 0.05, share=True, **more)


# Selecting


@pytest.mark.parametrize(("value", "choice", "alike"), [
    (20, 20.0, True), (20.0, 20 + 1e-9, True), (20.0, 20.001, False), ("C", "C", True), ("C", "B", False), (None, "C", False),
    ("20", 20.0, False), (0.0, 1e-10, True), (0.0, 1e-8, False),
])  # fmt: skip
def test_two_labels_are_the_same_where_their_numbers_are(value, choice, alike):
    assert same(value, choice) == alike


def test_a_budget_is_about_figures_with_one_of_each_label_that_it_asks_for():
    made = measured("response_p50", ROUNDS, at(20))
    for where, expected in (({}, True), ({"miles": [20.0, 60.0]}, True), ({"miles": [60.0]}, False), ({"protocol": ["C"]}, True),
                            ({"miles": [20.0], "protocol": ["B"]}, False), ({"none": ["x"]}, False)):  # fmt: skip
        assert fits(made, budget(where=where)) == matches(made, budget(where=where)) == expected
    assert not matches(made, budget("response_p99")) and fits(made, budget("response_p99"))


def test_a_selection_is_all_of_the_metric_or_refused_with_what_there_is():
    labels = at(20), at(60), at(20, protocol="A")
    sheet = result_set(*(measured("response_p50", ROUNDS, one) for one in labels))
    assert len(select(sheet, budget(), None)) == 3 and len(select(sheet, budget(where={"miles": [20.0]}), None)) == 2
    assert [item.labels["protocol"] for item in select(sheet, budget(where={"miles": [20.0], "protocol": ["A"]}), None)] == ["A"]
    for where, said in (({"site": ["x"]}, 'no label "site"'), ({"miles": [21.0]}, "no response_p50 with miles 21; it has 20, 60"),
                        ({"miles": [60.0], "protocol": ["C", "A"]}, 'selects no response_p50 with protocol "A"')):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            select(sheet, budget(where=where), None)
    mixed = result_set(*sheet.figures, measured("response_p50", ROUNDS, {"name": "other"}))
    assert len(select(mixed, budget(where={"miles": [60.0]}), None)) == 1
    with pytest.raises(UsageError, match="it has 20, 60"):
        select(mixed, budget(where={"miles": [21.0]}), None)
    with pytest.raises(UsageError, match="has no response_p99"):
        select(sheet, budget("response_p99"), None)
    with pytest.raises(UsageError, match="held against a baseline"):
        select(sheet, worse(), None)
    assert len(select(sheet, worse(), sheet)) == 3


@pytest.mark.parametrize("metric", ["lost_writes", "damaged_writes"])
def test_cells_that_nobody_audited_are_unknown_and_not_without_losses(metric):
    cells = [measured("response_p50", ROUNDS, at(miles)) for miles in (20, 60, 100)]
    sheet = result_set(*cells, figure(metric, 0.0, at(20)))
    chosen = select(sheet, budget(metric, "equals", 0.0), None)
    assert [(item.labels["miles"], item.estimate.value) for item in chosen] == [(20, 0.0), (60, None), (100, None)]
    assert all(item.exact and item.metric == metric and item.unit == METRICS[metric].unit for item in chosen)
    assert [one.code for one in chosen[1].estimate.warnings] == ["not_audited"]
    near = budget(metric, "equals", 0.0, where={"miles": [60.0]})
    assert [item.labels["miles"] for item in not_audited(sheet, near, [])] == [60]
    assert not_audited(sheet, budget("lag_writes_max"), []) == []
    assert gate(sheet, Budgets(budgets=[budget(metric, "equals", 0.0)])).verdict == "unknown"


def test_metrics_are_ours_and_those_of_other_tools():
    other = msgspec.structs.replace(figure("k_p50", 1.0), metric="iops_of_fio", unit="per_s", better="more", exact=True)
    found = metrics_of(result_set(other, figure("k_p50", 1.0)), None)
    assert found["iops_of_fio"] == Metric("per_s", "more", True, "") and found["k_p50"] == METRICS["k_p50"]
    assert metrics_of() == METRICS and "iops_of_fio" not in METRICS


# What stands in for miles


def miles_of(labels=None, **ends):
    made = figure("greatest_miles_p50", None, labels or {"name": "write", "protocol": "C", "budget": "2 ms", "route": 1.0})
    return msgspec.structs.replace(made, **ends)


def test_in_the_place_of_miles_stands_the_response_at_the_end_of_what_was_measured_or_the_height():
    responses = [measured("response_p50", ROUNDS, at(miles)) for miles in (60, 20, 150)]
    others = [measured("response_p50", ROUNDS, at(300, protocol="A")), measured("response_p99", ROUNDS, at(400)),
              measured("response_p50", ROUNDS, at(1, name="other")),
              measured("a_p50", ROUNDS, {"name": "write", "protocol": "A"})]  # fmt: skip
    height = measured("a_p50", ROUNDS, {"name": "write", "protocol": "C"})
    sheet = result_set(*responses, *others, height)
    assert instead_of(miles_of(beyond=150.0), sheet) is sheet.figures[2]
    assert instead_of(miles_of(below=20.0), sheet) is sheet.figures[1]
    assert instead_of(miles_of(), sheet) is sheet.figures[-1]
    assert instead_of(figure("greatest_miles_p50", 60.0), sheet) is None and instead_of(figure("k_p50", None), sheet) is None
    assert instead_of(miles_of(beyond=150.0), result_set(height)) is instead_of(miles_of(below=20.0), result_set(height)) is None
    slope = figure("k_p50", None, {"name": "write", "protocol": "C"})
    assert instead_of(slope, result_set(slope)) is None
    twice = result_set(*responses, measured("response_p50", ROUNDS, at(150, queue_depth=4)))
    assert instead_of(miles_of(beyond=150.0), twice) is None  # Of two nobody knows which.


# Cases


def history(*figures, runs=9):
    return hours_alike(*figures, runs=runs)


def test_a_case_against_a_baseline_has_its_figure_there_and_the_noise_of_its_rounds():
    ours, theirs = measured("response_p50", ROUNDS, at(20)), measured("response_p50", [0.9e6, 1.0e6, 1.2e6, 1.0e6], at(20))
    (case,), warnings = cases_of(result_set(ours), Budgets(budgets=[worse()]), result_set(theirs), None, (), history(ours))
    assert (case.figure, case.base, case.paired, case.doubt) == (ours, theirs, False, None)
    assert case.floor == 0.0 and case.between.runs == 9 and warnings == []  # Of runs that did not differ.
    (case,), warnings = cases_of(result_set(ours), Budgets(budgets=[worse()]), result_set(theirs))
    assert case.floor > 0.01 and case.between is None and "run to run is not known" in warnings[0]
    arms = result_set(ours, arm="cand"), result_set(theirs, arm="base")
    (case,), warnings = cases_of(arms[0], Budgets(budgets=[worse()]), arms[1], None, (), history(ours))
    assert case.paired and case.between is None and case.floor > 0.01 and warnings == []
    again = result_set(measured("response_p50", [1.1 * value for value in ROUNDS], at(20)), arm="again")
    (case,), _ = cases_of(arms[0], Budgets(budgets=[worse()]), arms[1], again)
    assert case.floor == pytest.approx(0.08, abs=0.02)


def test_a_promise_by_itself_needs_no_baseline_and_what_has_no_twin_there_has_no_base():
    ours = measured("response_p50", ROUNDS, at(20))
    (case,), warnings = cases_of(result_set(ours), Budgets(budgets=[budget()]), result_set())
    assert case.base is None and case.instead is None and not case.paired and warnings == []
    other = measured("response_p50", ROUNDS, at(60))
    (case,), _ = cases_of(result_set(ours), Budgets(budgets=[worse()]), result_set(other), None, ["cells"])
    assert case.base is None and case.floor is None


@pytest.mark.parametrize(("ours", "theirs"), [(False, False), (True, False), (False, True), (True, True)])
def test_an_interruption_of_either_side_is_a_doubt(ours, theirs):
    sheets = [result_set(measured("response_p50", ROUNDS), interrupted=half) for half in (ours, theirs)]
    (change, alone), warnings = cases_of(sheets[0], Budgets(budgets=[worse(name="a"), budget()]), sheets[1])
    assert ([] if change.doubt is None else [change.doubt.code]) == (["interrupted"] if ours or theirs else [])
    assert (alone.doubt is not None) == ours
    assert sum("interrupted run" in warning for warning in warnings) == ours + theirs
    _, warnings = cases_of(sheets[0], Budgets(budgets=[budget()]))
    assert warnings == (["made-up is of an interrupted run"] if ours else [])


def test_what_is_only_reported_is_left_out_with_a_warning_and_what_gates_is_refused():
    sheet = result_set(measured("response_p50", ROUNDS))
    reported, gating = budget("response_p99", gating=False), budget()
    cases, warnings = cases_of(sheet, Budgets(budgets=[reported, gating]))
    assert [case.budget for case in cases] == [gating] and warnings[0].startswith("not reported: ")
    with pytest.raises(UsageError):
        cases_of(sheet, Budgets(budgets=[budget("response_p99")]))


def test_a_cell_that_only_one_side_has_is_refused_unless_cells_may_differ():
    one, two = measured("response_p50", ROUNDS, at(20)), measured("response_p50", ROUNDS, at(60))
    for ours, theirs, lacking in (([one], [one, two], "ours"), ([one, two], [one], "theirs")):
        sheets = result_set(*ours, source="ours"), result_set(*theirs, source="theirs")
        with pytest.raises(UnfitError, match=f"{lacking} lacks"):
            check_complete(ours, sheets[1], sheets[0], worse(), set())
        check_complete(ours, sheets[1], sheets[0], worse(), {"cells"})
        check_complete(ours, sheets[1], sheets[0], worse(where={"miles": [20.0]}), set()) if lacking == "ours" else None


# The whole gate


def test_where_the_floor_comes_from_and_how_many_runs_stand_behind_it():
    ours = result_set(measured("response_p50", ROUNDS))
    few = RunHistory(EarlierRuns(results="r", runs=RUNS_MIN - 1), {key_of(ours.figures[0]): [Spread(0.0, 0.0, 4.0)] * 2})
    enough = history(*ours.figures, runs=RUNS_MIN)
    own = "the baseline's own rounds, split in half in every way"
    for known, words in ((few, own), (enough, "earlier runs against each other")):
        found = gate(ours, Budgets(budgets=[worse()]), ours, history=known)
        assert found.floor_from == words and found.earlier_runs == known.about and found.baseline == "made-up"
    assert gate(ours, Budgets(budgets=[worse()]), ours, ours, history=enough).floor_from == "the base measured twice side by side"
    arms = [result_set(measured("response_p50", ROUNDS), arm=arm) for arm in ("base", "cand")]
    paired = gate(arms[1], Budgets(budgets=[worse()]), arms[0], history=enough)
    assert paired.floor_from.startswith("the baseline's own rounds") and paired.earlier_runs is None
    alone = gate(ours, Budgets(budgets=[budget()]), ours)
    assert (alone.floor_from, alone.baseline, alone.earlier_runs) == ("", None, None)
    assert alone.warnings == ["no budget is held against the baseline: not_worse_by is what does that"]
    assert gate(ours, Budgets(budgets=[budget()])).warnings == []


def test_a_gate_counts_its_tests_and_says_when_it_cannot_fail():
    sheet = result_set(measured("response_p50", ROUNDS), figure("lost_writes", 1.0), figure("throughput", None, warnings=["x"]))
    reported = budget("lost_writes", "equals", 0.0, gating=False)
    made = Budgets(budgets=[budget(), reported, budget("throughput", "at_least", 1.0)], looks=3)
    found = gate(sheet, made, look=3)
    assert (found.tests, found.look, found.looks, found.level, found.alpha) == (1, 3, 3, 0.05 / 3, 0.05)
    assert found.verdict == "unknown" and (found.count("pass"), found.count("unknown"), found.count("fail")) == (1, 1, 0)
    assert found.warnings == [] and [item.verdict for item in found.verdicts] == ["unknown", "pass", "fail"]
    alone = gate(sheet, Budgets(budgets=[reported]))
    assert alone.verdict == "pass" and alone.warnings == ["every budget is only reported: this gate cannot fail"]
    memory = msgspec.structs.replace(sheet, not_durable="in memory")
    assert gate(memory, Budgets(budgets=[budget()])).warnings == []
    assert len(gate(memory, Budgets(budgets=[budget(), budget("lost_writes", "equals", 1.0, name="c")])).warnings) == 1
    said, = gate(memory, Budgets(budgets=[budget("lost_writes", "equals", 1.0)])).warnings
    assert said.startswith("in memory: lost writes are those of killed processes")
    for look in (0, 4):
        with pytest.raises(UsageError):
            gate(sheet, made, look=look)


def one(verdict, gating=True, lost=False):
    return SimpleNamespace(verdict=verdict, gating=gating, lost=lost)


def test_the_worst_comes_first_and_what_decides_before_what_is_reported():
    lost, failed, unknown, passed = one("fail", lost=True), one("fail"), one("unknown"), one("pass")
    reported = one("fail", gating=False, lost=True)
    assert sorted([passed, reported, unknown, failed, lost], key=worst_first) == [lost, failed, unknown, passed, reported]
    assert [verdict_of_all(some) for some in ([passed, failed, unknown], [passed, unknown], [passed], [])] == \
        ["fail", "unknown", "pass", "pass"]


@pytest.mark.parametrize(("verdict", "verdicts", "inconclusive", "code"), [
    ("fail", [one("fail", lost=True)], None, EXIT_LOST_WRITE),
    ("fail", [one("fail"), one("fail", lost=True), one("pass")], None, EXIT_LOST_WRITE),
    ("fail", [one("fail")], None, EXIT_GATE_FAILED),
    ("fail", [one("fail"), one("fail", False, True)], None, EXIT_GATE_FAILED), ("pass", [], "fail", EXIT_DONE),
    ("unknown", [], None, EXIT_INCONCLUSIVE), ("unknown", [], "fail", EXIT_GATE_FAILED), ("unknown", [], "pass", EXIT_DONE),
], ids=str)  # fmt: skip
def test_an_exit_code_tells_losses_from_failures_and_both_from_unknown(verdict, verdicts, inconclusive, code):
    assert exit_code_of(SimpleNamespace(verdict=verdict, verdicts=verdicts), inconclusive) == code
