"""One rule: whoever asks, of one estimate, one limit and one set of caveats there is one verdict; and no wording decides."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from farwrite.analysis import claims
from farwrite.analysis.analyse import analyse
from farwrite.analysis.answer import measured_reach
from farwrite.analysis.result import Estimate
from farwrite.analysis.verdict import decide
from farwrite.base import reasons
from farwrite.base.reasons import Code, Reason
from farwrite.compare.figures import decode_result_set, read_result_set, result_set_of
from farwrite.gate.budget import parse
from farwrite.gate.budget_verdict import Case, outcomes_of
from farwrite.gate.gate import gate, verdict_of_all
from farwrite.gate.suggest import suggest
from farwrite.recording import SCHEMA_VERSION, Report, causes_of
from farwrite.testing.budget import check
from make_figures import at, figure, measured, result_set
from make_recording import LARGE, SMALL, analysed, make_recording

MS = 1e6
LIMIT_NS = 2 * MS
QUICK = ("run.round=400 ms", "run.survey_echoes=20", "distance.miles=[0, 20, 100, 150]", "drill.kills=3")
WITHHELD = [reasons.few_rounds(2), reasons.link_not_as_asked(1e6, 2e6)]
NOISE = [reasons.other_programs(0.5, 0.25)]


@cache
def a_run(**options):
    return analysed(SMALL, changes=QUICK, **options)


def written(estimate: Estimate, link_error_ns: float, withheld, noise, interrupted: bool):
    """(recording, analysis) whose only cell is C at 20 miles with this p99."""
    recording, analysis = a_run()
    cell = next(item for item in analysis.cells if item.cell == "write-C-20")
    rtt = msgspec.structs.replace(cell.rtt_ns_p50, value=cell.asked_rtt_ns + link_error_ns)
    nothing = Estimate(value=None, warnings=[reasons.nothing_counted()])
    cell = msgspec.structs.replace(
        cell, response_ns_p99=estimate, response_ns_p50=nothing, rtt_ns_p50=rtt, withheld=withheld, host_noise=noise
    )
    recording = msgspec.structs.replace(recording, interrupted=interrupted)
    return recording, msgspec.structs.replace(analysis, cells=[cell], fits=[], miles=[], drills=[])


def everywhere(recording, analysis) -> dict[str, str]:
    """The verdict on p99 at 20 miles being at most 2 ms, of everybody who gives one."""
    cell = analysis.cells[0]
    report = Report(schema_version=SCHEMA_VERSION, recording=recording)
    made = result_set_of(report, analysis, "made up")
    budget = parse('[[budget]]\nmetric = "response_p99"\nat_most = "2 ms"', "b.toml")
    words = measured_reach([cell], claims.C1_BUDGET_NS, "", recording.interrupted)
    return {
        "claim": claims.claim_c1(recording, [cell], []).verdict,
        "gate": gate(made, budget).verdict,
        "test": check("response_p99", made, at_most="2 ms").verdict,
        "answer": "unknown" if "is unknown" in words else "fail" if "do not hold" in words else "pass",
    }


@some.composite
def estimates(draw) -> Estimate:
    """Near the limit and far from it, sure and unsure, of any number of rounds."""
    value = draw(some.floats(0.5, 6)) * MS
    if draw(some.integers(0, 19)) == 0:
        return Estimate(value=None, warnings=[reasons.needs("p99", 368, 7)])
    wide = draw(some.sampled_from([0.0, 0.01, 0.1, 0.5]))
    about = value * (1 - wide), value * (1 + wide)
    ends = draw(some.sampled_from([about, (min(value, LIMIT_NS), max(value, LIMIT_NS)), None]))
    apart = draw(some.sampled_from([0.0, 0.002, 0.02, 0.2]))
    rounds = draw(some.lists(some.floats(-1, 1), min_size=0, max_size=6))
    without = [value * (1 + apart * each) for each in rounds]
    low, high = ends or (None, None)
    late_ns = draw(some.sampled_from([0.0, 0.0, 0.05 * value, 0.6 * value]))
    codes = draw(some.sampled_from([[], [], [], [reasons.unsound()], [reasons.saturated(1)]]))
    return Estimate(
        value=value, low=low, high=high, confidence=0.95, count=999, without=without, late_ns=late_ns, warnings=codes
    )  # fmt: skip


CAVEATS = some.fixed_dictionaries({
    "link_error_ns": some.sampled_from([0.0, 0.0, 90_000.0, 110_000.0]),
    "withheld": some.sampled_from([[], [], [], WITHHELD]),
    "noise": some.sampled_from([[], [], [], NOISE]),
    "interrupted": some.sampled_from([False, False, False, True]),
})  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(estimates(), CAVEATS)
def test_claims_gate_budgets_in_tests_and_the_answer_give_one_verdict(estimate, caveats):
    found = everywhere(*written(estimate, **caveats))
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize(("p99_ms", "verdict"), [(1.2, "pass"), (3.0, "fail"), (1.99, "unknown")])
def test_the_property_meets_all_three_verdicts(p99_ms, verdict):
    without = [p99_ms * MS * by for by in (0.995, 1.0, 1.005, 1.0)]
    sure = Estimate(value=p99_ms * MS, low=0.97 * p99_ms * MS, high=1.03 * p99_ms * MS, confidence=0.95, without=without)
    found = everywhere(*written(sure, 0.0, [], [], False))
    assert set(found.values()) == {verdict}, found


@pytest.mark.parametrize(("limit_of_value", "verdict"), [(0.91, "fail"), (0.92, "unknown"), (1.08, "unknown"), (1.1, "pass")])
def test_everybody_asks_for_the_same_certainty(limit_of_value, verdict):
    """At 0.92 and 1.08 chance alone looks so in 2.5 to 5 of 100 runs: enough for a test at 5 %, not for an interval of 95 %."""
    scale = LIMIT_NS / limit_of_value
    made = measured("response_p99", [scale * by for by in (0.9, 1.0, 1.1, 1.0, 1.0)]).estimate
    narrow = msgspec.structs.replace(made, low=made.value * 0.999, high=made.value * 1.001, confidence=0.95)
    found = everywhere(*written(narrow, 0.0, [], [], False))
    assert set(found.values()) == {verdict}, found


@pytest.mark.parametrize("caveats", [
    {"withheld": WITHHELD}, {"noise": NOISE}, {"interrupted": True}, {"link_error_ns": 101_000.0},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("p99_ms", [1.2, 3.0])
def test_each_caveat_withholds_what_was_measured(caveats, p99_ms):
    sure = Estimate(value=p99_ms * MS, low=p99_ms * MS, high=p99_ms * MS, confidence=0.95, without=[p99_ms * MS] * 5)
    words = {"link_error_ns": 0.0, "withheld": [], "noise": [], "interrupted": False} | caveats
    assert set(everywhere(*written(sure, **words)).values()) == {"unknown"}


@pytest.mark.parametrize(("rounds", "interval"), [(2, True), (0, True), (1, False)])
def test_too_few_rounds_decide_nothing_however_narrow_the_interval(rounds, interval):
    ends = {"low": 1e6, "high": 1e6, "confidence": 0.95} if interval else {}
    found = decide(figure("response_p99", 1e6, without=[1e6] * rounds, **ends), at_most=LIMIT_NS)
    assert found.verdict == "unknown" and found.withheld
    assert [one.code for one in found.reasons] == ["one_round" if rounds < 2 else "few_rounds"]


def test_a_committed_report_gets_one_answer():
    """Its rounds say 3.18 ms are within 5 ms, its interval [2.46, 6.07] does not: the gate once passed what a test did not."""
    made = read_result_set(Path(__file__).parents[2] / "results" / "baselines" / "flush" / "base" / "report.json")
    text = '[[budget]]\nmetric = "response_p99"\nat_most = "5 ms"\nwhere = { miles = 150, protocol = "C" }\n'
    in_a_test = check("response_p99", made, at_most="5 ms", where={"miles": 150, "protocol": "C"})
    assert gate(made, parse(text, "b.toml")).verdict == in_a_test.verdict == "unknown"
    words, where = 'route = 1, budget = "5 ms", protocol = "C"', {"route": 1, "budget": "5 ms", "protocol": "C"}
    miles = f'[[budget]]\nmetric = "greatest_miles_p99"\nat_least = 60\nwhere = {{ {words} }}\n'
    assert gate(made, parse(miles, "b.toml")).verdict == check("greatest_miles_p99", made, at_least=60, where=where).verdict


@pytest.mark.parametrize("figures", [
    [figure("greatest_miles_p99", None, {"budget": "2 ms", "route": 1.0, "name": "write", "protocol": "A"},
            warnings=[reasons.no_distance("any")]), measured("a_p99", [1e5, 1.1e5, 1e5], {"name": "write", "protocol": "A"})],
    [msgspec.structs.replace(
        figure("greatest_miles_p99", None, {"budget": "2 ms", "route": 1.0, "name": "write", "protocol": "C"},
               warnings=[reasons.beyond_measured(150.0)]), beyond=150.0),
     measured("response_p99", [1.5e6, 1.52e6, 1.51e6], at(150))],
], ids=["no distance", "beyond"])  # fmt: skip
def test_miles_without_a_value_are_one_verdict_of_gate_and_test(figures):
    made = result_set(*figures)
    found = gate(made, parse('[[budget]]\nmetric = "greatest_miles_p99"\nat_least = 100', "b.toml")).verdict
    assert found == check("greatest_miles_p99", made, at_least=100).verdict == "pass"


def miles_beyond(reason, labels=None, **ends):
    """Greatest miles without a value."""
    made = figure("greatest_miles_p99", None, {"budget": "2 ms"} if labels is None else labels, warnings=[reason])
    return msgspec.structs.replace(made, **ends)


@pytest.mark.parametrize(("there_ms", "asked", "verdict"), [
    (1.5, {"at_least": 149}, "pass"), (1.5, {"at_least": 150}, "pass"), (1.5, {"at_least": 151}, "unknown"),
    (2.5, {"at_least": 150}, "fail"), (1.5, {"at_most": 100}, "unknown"), (1.5, {"at_most": 200}, "unknown"),
    (None, {"at_least": 100}, "unknown"),
])  # fmt: skip
def test_miles_beyond_what_was_measured_are_decided_by_the_farthest(there_ms, asked, verdict):
    there = None if there_ms is None else narrow(there_ms)
    made = miles_beyond(reasons.beyond_measured(150.0), beyond=150.0)
    assert decide(made, instead=there, **asked).verdict == verdict
    nameless = miles_beyond(reasons.beyond_measured(150.0), labels={}, beyond=150.0)
    assert decide(nameless, instead=there, **asked).verdict == "unknown"


@pytest.mark.parametrize(("there_ms", "asked", "verdict"), [
    (2.5, {"at_least": 20}, "fail"), (2.5, {"at_least": 21}, "fail"), (2.5, {"at_least": 19}, "unknown"),
    (2.5, {"at_most": 30}, "unknown"), (None, {"at_least": 30}, "unknown"),
])  # fmt: skip
def test_miles_below_what_was_measured_are_decided_by_the_nearest(there_ms, asked, verdict):
    there = None if there_ms is None else narrow(there_ms)
    assert decide(miles_beyond(reasons.exceeded_at_nearest(20.0), below=20.0), instead=there, **asked).verdict == verdict


@pytest.mark.parametrize(("holds_at", "alone"), [("any", "pass"), ("none", "fail"), ("unclear", "unknown")])
def test_where_distance_has_no_part_a_decides_and_without_it_what_the_analysis_found(holds_at, alone):
    made, nameless = (miles_beyond(reasons.no_distance(holds_at), labels) for labels in (None, {}))
    a_ns = figure("a_p99", 1.5 * MS, without=[1.5 * MS * by for by in ROUNDS])
    assert decide(made, at_least=60, instead=a_ns).verdict == "pass"
    assert decide(made, at_least=60).verdict == decide(nameless, at_least=60, instead=a_ns).verdict == alone
    assert decide(made, at_most=60, instead=a_ns).verdict == "unknown"


def test_both_views_of_the_error_must_agree():
    rounds = [0.99e6, 1.0e6, 1.01e6, 1.0e6]
    wide = {"low": 0.5e6, "high": 2.5e6}
    for limit, verdict in ((LIMIT_NS, "pass"), (0.7e6, "fail")):
        assert decide(measured("response_p99", rounds), at_most=limit).verdict == verdict
        assert decide(measured("response_p99", rounds, **wide), at_most=limit).verdict == "unknown"  # The interval says no.
    scattered = measured("response_p99", [0.4e6, 1.6e6, 1.0e6, 1.0e6], low=0.99e6, high=1.01e6)
    assert decide(scattered, at_most=1.2e6).verdict == "unknown"  # The rounds say no.


def test_a_limit_is_within_itself_and_at_least_is_at_most_turned_round():
    made = figure("k_p50", 2.0, low=2.0, high=2.0, without=[2.0] * 4)
    assert decide(made, at_most=2).verdict == decide(made, at_least=2).verdict == "pass"
    assert decide(made, at_most=1.99).verdict == decide(made, at_least=2.01).verdict == "fail"
    assert decide(made, at_most=3, at_least=1).verdict == "pass" and decide(made, at_most=3, at_least=2.5).verdict == "fail"


ROUNDS = [0.995, 1.0, 1.005, 1.0]


def narrow(ms, late_ms=0.0, low_ms=None, high_ms=None):
    """A p99 whose rounds agree within half a percent; its stated interval, where there is one, may be wider."""
    ends = {"low": low_ms * MS, "high": high_ms * MS, "confidence": 0.95} if low_ms else {}
    return figure("response_p99", ms * MS, without=[ms * MS * by for by in ROUNDS], late_ns=late_ms * MS, **ends)


@pytest.mark.parametrize(("made", "verdict"), [
    (narrow(2.5), "fail"), (narrow(2.5, late_ms=0.1), "fail"), (narrow(2.5, late_ms=1.0), "unknown"),
    (narrow(1.5), "pass"), (narrow(1.5, late_ms=1.0), "pass"),
    (narrow(2.5, 1.0, 2.45, 2.55), "unknown"), (narrow(2.5, 0.1, 2.45, 2.55), "fail"),
    (narrow(3.0, 0.1, 2.05, 4.0), "unknown"), (narrow(3.0, 0.01, 2.05, 4.0), "fail"),  # Only the interval's end is turned.
], ids=str)  # fmt: skip
def test_a_verdict_that_would_be_another_without_the_generators_lateness_is_withheld(made, verdict):
    found = decide(made, at_most=LIMIT_NS)
    assert found.verdict == verdict
    assert [one.code for one in found.reasons] == (["lateness"] if verdict == "unknown" else [])
    at_least = decide(made, at_least=LIMIT_NS).verdict  # What cannot be told one way cannot be told the other.
    assert at_least == {"fail": "pass", "pass": "fail", "unknown": "unknown"}[verdict]


def test_what_a_test_measured_by_itself_is_decided_by_its_interval_and_by_rounds_where_it_has_them():
    ends = {"low": 1.4e6, "high": 1.6e6}
    assert decide(figure("response_p99", 1.5e6, **ends), at_most=LIMIT_NS, sampled=True).verdict == "pass"
    assert decide(figure("response_p99", 1.5e6, **ends), at_most=1.5e6, sampled=True).verdict == "unknown"
    assert decide(figure("response_p99", 1.5e6, **ends), at_most=1e6, sampled=True).verdict == "fail"
    assert decide(figure("response_p99", 1.5e6, **ends), at_most=LIMIT_NS).verdict == "unknown"  # A report's has rounds.
    scattered = measured("response_p99", [0.5e6, 3e6, 1.5e6, 1.5e6], **ends)
    assert decide(scattered, at_most=LIMIT_NS, sampled=True).verdict == "unknown"
    about_0 = figure("response_p99", 0.0, low=-0.01, high=0.01, without=[-1.0, 0.0, 0.0, -0.5])
    assert decide(about_0, at_most=0.02, sampled=True).verdict == "unknown"


def by_interval(value, low, high, limit, is_most):
    """What an interval alone says, in plain words."""
    if is_most:
        return "fail" if min(low, value) > limit else "pass" if max(high, value) <= limit else "unknown"
    return "fail" if max(high, value) < limit else "pass" if min(low, value) >= limit else "unknown"


@settings(max_examples=300, deadline=None)
@given(some.floats(0.5, 4), some.floats(0, 1), some.floats(0, 1), some.sampled_from([0.0, 0.1, 0.7]), some.booleans())
def test_an_interval_alone_decides_where_it_lies_wholly_on_one_side_late_or_not(value, below, above, late, is_most):
    low, high = value - below, value + above
    made = figure("k_p50", value, low=low, high=high, late_ns=late)
    found = decide(made, sampled=True, **({"at_most": 2.0} if is_most else {"at_least": 2.0}))
    as_it_is, early = (by_interval(value - off, low - off, high - off, 2.0, is_most) for off in (0.0, late))
    assert found.verdict == (as_it_is if early == as_it_is else "unknown")
    code = "limit_inside" if as_it_is == "unknown" else "lateness"
    assert [one.code for one in found.reasons] == ([code] if found.verdict == "unknown" else [])


@pytest.mark.parametrize(("estimate", "verdict", "code"), [
    ({"value": 1.0, "high": 1.1}, "unknown", "no_interval"), ({"value": 1.0, "low": 0.9}, "unknown", "no_interval"),
    ({"value": 1.0, "low": float("nan"), "high": 1.1}, "unknown", "no_interval"),
    ({"value": 1.0, "low": 0.9, "high": float("nan")}, "unknown", "no_interval"),
    ({"value": 1.0, "warnings": [reasons.few_rounds(2)]}, "unknown", "few_rounds"),
    ({"value": float("nan"), "low": 0.9, "high": 1.1}, "unknown", None),
    ({"value": float("inf"), "low": float("inf"), "high": float("inf")}, "fail", None),
], ids=str)  # fmt: skip
def test_a_sample_without_an_interval_decides_nothing_and_one_that_never_ended_is_over_every_limit(estimate, verdict, code):
    found = decide(figure("k_p50", **estimate), at_most=2.0, sampled=True)
    assert found.verdict == verdict
    assert code is None or [one.code for one in found.reasons] == [code]


NAN = float("nan")


@pytest.mark.parametrize(("low", "high", "at_most", "at_least"), [
    (None, None, "fail", "pass"), (2.4, None, "fail", "pass"), (None, 2.6, "fail", "pass"),  # Half an interval has no say.
    (2.4, 2.6, "fail", "pass"), (1.9, 2.6, "unknown", "unknown"), (2.1, 9.0, "fail", "pass"),
    (-1.0, 2.6, "unknown", "unknown"), (0.0, 2.6, "unknown", "unknown"), (NAN, 2.6, "unknown", "unknown"),
    (2.1, NAN, "fail", "pass"),
], ids=str)  # fmt: skip
def test_an_interval_has_a_say_in_both_directions(low, high, at_most, at_least):
    ends = {"low": low and low * MS, "high": high and high * MS}
    made = figure("response_p99", 2.5 * MS, without=[2.5 * MS * by for by in ROUNDS], **ends)
    assert (decide(made, at_most=LIMIT_NS).verdict, decide(made, at_least=LIMIT_NS).verdict) == (at_most, at_least)


@pytest.mark.parametrize(("low", "high", "at_most", "at_least"), [
    (1.4, 1.6, "pass", "fail"), (1.4, 2.1, "unknown", "unknown"), (-1.0, 1.6, "pass", "fail"), (1.4, None, "pass", "fail"),
    (1.4, NAN, "unknown", "unknown"),
], ids=str)  # fmt: skip
def test_an_interval_has_a_say_on_the_other_side_of_the_limit_too(low, high, at_most, at_least):
    made = figure("response_p99", 1.5 * MS, without=[1.5 * MS * by for by in ROUNDS], low=low * MS, high=high and high * MS)
    assert (decide(made, at_most=LIMIT_NS).verdict, decide(made, at_least=LIMIT_NS).verdict) == (at_most, at_least)


@pytest.mark.parametrize(("value_ms", "late_ms", "at_most"), [
    (2.5, 0.1, "fail"), (2.5, 0.6, "unknown"), (1.9, 0.5, "pass"), (1.5, 0.6, "pass"),
])  # fmt: skip
def test_lateness_is_taken_off_a_figure_that_is_compared_by_difference(value_ms, late_ms, at_most):
    made = figure("a_p50", value_ms * MS, without=[value_ms * MS * by for by in ROUNDS], late_ns=late_ms * MS)
    assert decide(made, at_most=LIMIT_NS).verdict == at_most
    assert decide(made, at_least=LIMIT_NS).verdict == {"fail": "pass", "pass": "fail", "unknown": "unknown"}[at_most]


def test_a_value_without_a_logarithm_has_no_verdict_where_its_scale_is_given():
    found = decide(figure("k_p50", -1.0, without=[1.0] * 4), at_most=5, relative=True)
    assert found.verdict == "unknown" and [one.code for one in found.reasons] == ["remark"]


def test_a_ratio_below_1_has_a_logarithm_as_well():
    made = figure("efficiency", 0.9, low=0.8, high=0.95, without=[0.9 * by for by in ROUNDS])
    assert (decide(made, at_least=0.7).verdict, decide(made, at_most=0.99).verdict) == ("pass", "pass")
    values = [0.2, 0.2, 0.2, 0.8]
    skewed = figure("efficiency", 0.35, without=[(sum(values) - one) / 3 for one in values])
    by_ratio, by_difference = (decide(skewed, at_most=0.9, relative=relative).verdict for relative in (None, False))
    assert (by_ratio, by_difference) == ("unknown", "pass")


def test_a_scale_that_the_metric_does_not_tell_may_be_given():
    values = [1.0, 1.0, 1.0, 4.0]
    skewed = figure("k_p50", 1.75, without=[(sum(values) - one) / 3 for one in values])
    assert decide(skewed, at_most=5.5).verdict == "pass"
    assert decide(skewed, at_most=5.5, relative=True).verdict == "unknown"
    assert decide(skewed, at_most=5.5, relative=False).verdict == "pass"


def test_a_limit_of_0_is_a_limit():
    assert decide(narrow(1.5), at_most=0).verdict == "fail"
    assert decide(figure("response_p99", 0.0, without=[0.0] * 4), at_most=0).verdict == "pass"


def test_a_link_may_be_off_by_a_twentieth_of_the_limit_and_no_more():
    for error_ns, verdict in ((0.05 * LIMIT_NS, "pass"), (0.05 * LIMIT_NS + 1, "unknown")):
        made = msgspec.structs.replace(narrow(1.5), link_error_ns=error_ns)
        assert decide(made, at_most=LIMIT_NS).verdict == verdict


def test_a_count_that_is_no_number_is_unknown():
    assert decide(figure("lost_writes", float("nan")), at_most=0).verdict == "unknown"
    assert decide(figure("lost_writes", 0.0), at_most=0).verdict == "pass"


@settings(max_examples=100, deadline=None)
@given(some.lists(estimates(), min_size=1, max_size=12), some.sampled_from([0.01, 0.05, 0.25]), some.integers(1, 3))
def test_more_budgets_more_looks_and_another_alpha_can_only_withhold(many, alpha, looks):
    budget = parse('[[budget]]\nmetric = "response_p99"\nat_most = "2 ms"', "b.toml").budgets[0]
    made = [msgspec.structs.replace(figure("response_p99", 1.0, at(place)), estimate=one) for place, one in enumerate(many)]
    alone = [decide(item, at_most=LIMIT_NS).verdict for item in made]
    found = [outcome.verdict for outcome in outcomes_of([Case(budget, item) for item in made], alpha, looks)]
    assert all(there in (here, "unknown") for here, there in zip(alone, found, strict=True))


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize(("truth", "lost"), [({}, False), ({"lost_in_rounds": 3}, True), ({"lost_writes_c": 2}, True)], ids=str)
def test_what_was_lost_is_one_verdict_of_claim_and_gate(truth, lost, interrupted):
    recording, analysis = a_run(interrupted=interrupted, completed_during_cut_c=9, **truth)
    claim = next(item for item in analysis.claims if item.id == "C2")
    report = Report(schema_version=SCHEMA_VERSION, recording=recording)
    made = result_set_of(report, analysis, "made up")
    where = 'equals = 0\nwhere = { protocol = "C" }\n'
    text = "".join(f'[[budget]]\nmetric = "{name}"\n{where}' for name in ("lost_writes", "drill_lost_writes"))
    verdict = verdict_of_all(gate(made, parse(text, "b.toml")).verdicts)
    assert claim.verdict == verdict == ("fail" if lost else "unknown" if interrupted else "pass")
    in_a_test = check("lost", made, at_most=0, where={"metric": "drill_lost_writes", "protocol": "C", "drill": "kill"})
    assert in_a_test.verdict == ("fail" if truth.get("lost_writes_c") else "unknown" if interrupted else "pass")


@settings(max_examples=100, deadline=None)
@given(some.floats(-0.1, 0.3), some.sampled_from([0.001, 0.01, 0.05]), some.sampled_from([0.0, 0.002, 0.03]),
       some.integers(0, 5), some.booleans())  # fmt: skip
def test_whether_latency_depends_on_distance_is_one_verdict_of_claim_and_gate(value, wide, apart, rounds, interrupted):
    _, analysis = a_run()
    fit = next(item for item in analysis.fits if (item.protocol, item.quantile) == ("A", 0.5))
    without = [value + apart * (place - (rounds - 1) / 2) for place in range(rounds)]
    k = Estimate(value=value, low=value - wide, high=value + wide, confidence=0.95, without=without)
    part = claims.any_distance([msgspec.structs.replace(fit, k=k)], interrupted)
    made = msgspec.structs.replace(figure("k_p50", value, {"protocol": "A"}), estimate=k)
    budgets = parse('[[budget]]\nmetric = "k_p50"\nat_most = 0.05', "b.toml")
    found = gate(result_set(made, interrupted=interrupted), budgets).verdict
    least = decide(made, at_least=-0.05, interrupted=interrupted).verdict  # The claim has a lower bound as well.
    assert part.verdict == (found if found != "pass" or least == "pass" else "unknown")


# Codes


AWKWARD = {
    "quiet": {}, "one round": {"changes": (*QUICK, "run.rounds=1"), "writes": 500},
    "void": {"always_void": ("write-C-20",), "void": (("write-C-150", 1), ("write-A-20", 1))},
    "void and asleep": {"void": tuple((f"write-{p}-{m}", 1) for p in "CA" for m in (0, 20, 100, 150))},
    "busy": {"foreign_share": 0.52, "own_share": 0.4},
    "late": {"text": LARGE, "late_ns": 150_000.0, "changes": ("run.round=400 ms",)},
    "saturated": {"saturated": True}, "off": {"link_off_ns": 120_000}, "interrupted": {"interrupted": True},
}  # fmt: skip
BUDGETS = "".join(f'[[budget]]\nmetric = "{metric}"\nname = "{place}"\n{limit}\n' for place, (metric, limit) in enumerate((
    ("response_p99", 'at_most = "2 ms"'), ("response_p50", 'at_most = "0.3 ms"'), ("greatest_miles_p99", "at_least = 60"),
    ("greatest_miles_p50", "at_least = 100"), ("greatest_miles_p50", "at_least = 5"), ("k_p50", "at_most = 1.2"),
    ("lost_writes", "equals = 0"), ("throughput", 'at_least = "500 /s"'),
)))  # fmt: skip


def decided(recording) -> dict[str, object]:
    """Everything that is decided on a recording, without a word of it."""
    analysis = analyse(recording)
    report = Report(schema_version=SCHEMA_VERSION, recording=recording)
    made = result_set_of(report, analysis, "made up")
    verdicts = gate(made, parse(BUDGETS, "b.toml")).verdicts
    proposed = [line for line in suggest([made]).splitlines() if line.startswith(("metric", "where", "at_", "equals", "not_"))]
    warned = [reason.code for reason in analysis.warnings]
    slept = any("mends" in str(reason.numbers.get("advice")) for reason in analysis.warnings if "advice" in reason.numbers)
    return {
        "claims": [(claim.id, claim.verdict) for claim in analysis.claims],
        "gate": sorted((item.budget, item.figure, item.verdict) for item in verdicts),
        "outcomes": [(item.outcome, item.beyond_miles, item.below_miles) for item in analysis.miles],
        "left out": [fit.left_out for fit in analysis.fits], "proposed": proposed, "warned": warned, "slept": slept,
    }


@pytest.mark.parametrize("name", AWKWARD)
def test_no_wording_decides(name, monkeypatch):
    """Every sentence is replaced by the same word, those that rounds were recorded with too: nothing is decided otherwise."""
    options = {"text": SMALL, "changes": QUICK, **AWKWARD[name]}
    recording = make_recording(**options)
    host = {**recording.host, "virtual": True}
    rounds = [msgspec.structs.replace(item, causes=causes_of(item)) for item in recording.rounds]
    recording = msgspec.structs.replace(recording, rounds=rounds, host=host)
    before = decided(recording)
    made = Code.__call__

    def wordless(self, *args, **kwargs):
        return msgspec.structs.replace(made(self, *args, **kwargs), sentence="because")

    monkeypatch.setattr(Code, "__call__", wordless)
    mute = [
        msgspec.structs.replace(
            item, reasons=["because"] * len(item.reasons),
            causes=[msgspec.structs.replace(one, sentence="because") for one in item.causes],
        )
        for item in rounds
    ]  # fmt: skip
    assert decided(msgspec.structs.replace(recording, rounds=mute)) == before


def test_codes_have_one_place_and_their_numbers_are_stored_with_their_sentence():
    made = reasons.needs("p99", 368, 7)
    stored = json.loads(msgspec.json.encode(made))
    numbers = {"quantile": "p99", "least": 368, "count": 7}
    assert stored == {"code": "needs", "sentence": "p99 needs n >= 368 (n = 7)", "numbers": numbers}
    assert msgspec.convert(stored, Reason) == made and reasons.CODES["needs"].among([made]) is made
    assert reasons.unsound.among([made]) is None and reasons.least_needed([made]) == 368


def test_a_code_that_is_not_known_is_kept_with_its_sentence():
    later = msgspec.json.decode(b'{"code": "of_tomorrow", "sentence": "it snowed", "numbers": {"cm": 3}, "more": 1}', type=Reason)
    assert str(later) == "it snowed" and not any(code.among([later]) for code in reasons.CODES.values())


def test_sentences_that_older_sheets_stored_are_given_their_codes():
    old = msgspec.to_builtins(result_set(
        figure("k_p50", 1.0, without=[1.0, 1.1, 0.9]), figure("response_p50", 1e6, withheld=["the generator was late"]),
    ))  # fmt: skip
    old["version"] = 1
    old["figures"][0]["estimate"]["warnings"] = ["fitted through cells that no verdict may rest on", "something else"]
    old["figures"][1]["withheld"] = ["the generator was late"]
    read = decode_result_set(json.dumps(old).encode(), "old.json")
    k, response = read.figures
    assert [one.code for one in k.estimate.warnings] == ["unsound", "remark"]
    assert str(response.withheld[0]) == "the generator was late"
    assert decide(k, at_most=9.0).verdict == decide(response, at_most=9e9).verdict == "unknown"
    assert decode_result_set(msgspec.json.encode(read), "new.json").figures == read.figures


@pytest.mark.parametrize(("text", "code"), [
    ("the link before the round was +412 us off", "link_missed"),
    ("the link to the site 60 miles away after the round was +1 us off", "link_missed"),
    ("7% of the packets outward left more than 40 us late", "packets_late"), ("the host took 12%", "stolen"),
    ("the engine stopped: no room", "engine_stopped"), ("another arm's round beside it was void", "neighbour_void"),
    ("unshare(CLONE_NEWUSER): Operation not permitted", "remark"),
])  # fmt: skip
def test_what_older_recordings_say_of_a_round_is_given_its_code(text, code):
    assert reasons.of_sentence(text) == Reason(code=code, sentence=text)
