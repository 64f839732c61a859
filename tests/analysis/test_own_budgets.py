"""A run that is not about the claims of 2008 is answered about itself: its own budgets at its own distances, everywhere alike."""

import html
import io
import re
from functools import cache

import msgspec
import pytest
from rich.console import Console

from console import ROOT
from farwrite.analysis import analysis_of, document_of
from farwrite.analysis.answer import ANSWER_LINES_MAX, answer_of
from farwrite.analysis.figure import ResultSet
from farwrite.analysis.verdict import decide, response_of_cell
from farwrite.base.errors import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, UsageError
from farwrite.commands.options import own_budgets
from farwrite.compare.figures import result_set_of
from farwrite.experiment.outcome import outcome
from farwrite.gate.budget import own_budgets as of_gate
from farwrite.gate.gate import gate
from farwrite.recording import decode
from farwrite.report.html import page_of
from farwrite.report.junit import junit_of
from farwrite.report.markdown import answer_markdown
from farwrite.report.terminal import show
from farwrite.workload.catalog import load
from farwrite.workload.profile import parse
from farwrite.workload.tables import BudgetTable, digest
from make_recording import SMALL, changed, made_report, make_recording

OWN = SMALL.replace("[distance]", 'claims = false\n\n[[budget]]\np99 = "2 ms"\n\n[distance]')
WORDS = {"pass": "✔ PASS", "fail": "✘ FAIL", "unknown": "? UNKNOWN"}


ALL = (*(f"p99 {ms} ms" for ms in range(1, 13)), "p99 1.7 ms", "p50 0.1 ms", "p50 9 ms", "p99.9 9 ms", "p99 2 ms at 60 miles",
       "p99 2 ms at 150 miles")  # fmt: skip
FEW = ("drill.kills=0", "distance.miles=[0, 20, 60, 150]", "run.round=400 ms")


@cache
def with_all(*changes, **options):
    """The report of a run that is about all these budgets, typed as on the command line."""
    parsed = parse(SMALL, "made-up.toml", [own_budgets(ALL)])
    made = make_recording(SMALL, changes=(*FEW, *changes), **options)
    return document_of(changed(made, profile=changed(made.profile, budget=parsed.budget)))


def with_budgets(*budgets, claims=False, **options):
    """The same of a run that is about some of them only: nothing else is computed otherwise."""
    report = with_all(f"claims={str(claims).lower()}", **options)
    recording, analysis = report.recording, report.analysis
    asked = [item for item in recording.profile.budget if item.text in budgets]
    assert len(asked) == len(budgets)
    recording = changed(recording, profile=changed(recording.profile, budget=asked))
    analysis = changed(analysis, budgets=[item for item in analysis.budgets if item.id in budgets])
    return changed(report, recording=recording, analysis=analysis, answer=answer_of(recording, analysis))


def printed(report, full=True, width=120):
    file = io.StringIO()
    show(report, report.analysis, Console(file=file, width=width), full)
    return " ".join(file.getvalue().split())


def page(report):
    text = page_of(report, report.analysis, "report.json").decode()
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text[text.index("<main") : text.index("</main>")])).split())


def lines_of(report, kind="budget"):
    return [line for line in answer_of(report.recording, report.analysis).lines if line.kind == kind]


# What is ruled on


def test_only_a_profile_that_says_so_is_about_the_claims():
    assert load("limits").claims is True
    assert load("quick").claims is load("oltp").claims is parse(SMALL).claims is False
    assert load(str(ROOT / "tests" / "workload" / "fio" / "oltp.fio")).claims is False


def test_a_recording_from_before_this_was_asked_keeps_its_claims():
    report = made_report(SMALL, changes=FEW)
    plain = msgspec.to_builtins(report)
    for key in ("claims", "budget"):
        del plain["recording"]["profile"][key]
    old = decode(msgspec.json.encode(changed(report, recording=plain["recording"], analysis=None)), "old")
    assert old.recording.profile.claims is None
    assert [item.id for item in analysis_of(old).claims] == ["C1", "C2", "C3"]


def test_a_stored_analysis_without_budgets_is_read_as_it_is():
    plain = msgspec.to_builtins(made_report(SMALL, changes=FEW))
    del plain["analysis"]["budgets"]
    plain["analysis"]["claims"][0]["sentence"] = "as it was stored"
    old = analysis_of(decode(msgspec.json.encode(plain), "old"))
    assert old.budgets == [] and old.claims[0].sentence == "as it was stored"


def test_what_is_ruled_on_changes_nothing_of_what_is_measured():
    assert digest(parse(OWN)) == digest(parse(SMALL)) == digest(parse(SMALL, changes=["claims=true"]))


def test_nothing_of_2008_is_said_of_a_run_that_is_not_about_it():
    report = with_budgets("p99 2 ms")
    assert report.analysis.claims == []
    for text in (printed(report), printed(report, full=False), page(report), answer_markdown("x", report.answer)):
        assert not re.search(r"\bC[123] |20 miles of|2008|No claim", text)
        assert "p99 2 ms" in text
    plain = page_of(report, report.analysis, "r").decode()
    assert "what the claims are about" not in plain and '"text":"C1"' not in plain


# The verdict


@pytest.mark.parametrize(
    ("budget", "verdict", "at"),
    [("p99 2 ms", "fail", {0: "pass", 20: "pass", 60: "pass", 150: "fail"}),
     ("p99 9 ms", "pass", dict.fromkeys((0, 20, 60, 150), "pass")),
     ("p50 0.1 ms", "fail", dict.fromkeys((0, 20), "fail")),
     ("p99 2 ms at 60 miles", "pass", {60: "pass"}), ("p99 2 ms at 150 miles", "fail", {150: "fail"}),
     ("p99.9 9 ms", "unknown", {150: "unknown"})],
)  # fmt: skip
def test_each_cell_is_decided_by_the_one_rule_and_all_of_them_decide(budget, verdict, at):
    report = with_budgets(budget)
    found, = report.analysis.budgets
    cells = {cell.cell: cell for cell in report.analysis.cells}
    assert found.verdict == verdict
    for name, said in found.cells.items():
        assert said == decide(response_of_cell(cells[name], found.quantile), at_most=found.limit_ns).verdict
    assert {miles: found.cells[f"write-C-{miles}"] for miles in at} == at
    assert set(found.cells) == {name for name, cell in cells.items() if found.at_miles in (None, cell.miles)}


def test_how_far_a_budget_holds_are_the_miles_of_its_own_distances():
    report = with_budgets("p99 1.7 ms")
    found, = report.analysis.budgets
    straight, = (item for item in report.analysis.miles
                 if (item.budget_ns, item.quantile, item.protocol, item.route_factor) == (1.7e6, 0.99, "C", 1.0))  # fmt: skip
    assert 60 < straight.miles.value < 110
    far = f"holds to {straight.miles.value:.0f} miles of glass"
    assert far in found.sentence and far in lines_of(report)[0].text
    assert "1.3 (best conduit)" in " ".join(found.details)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"interrupted": True}, "the run was interrupted"), ({"foreign_share": 0.6, "run_delay_ratio": 0.4}, "other programs"),
     ({"always_void": ("write-C-60",)}, "not one good round")],
)  # fmt: skip
def test_what_withholds_a_verdict_elsewhere_does_so_here(options, said):
    found, = with_budgets("p99 9 ms", **options).analysis.budgets
    assert found.verdict == "unknown" and said in found.sentence and said in found.why and found.reasons


# Where it is said


def test_budgets_are_said_alike_in_the_answer_the_report_the_page_the_document_and_markdown():
    report = with_budgets("p99 2 ms", "p50 9 ms", "p99 2 ms at 60 miles")
    full, shown = printed(report), page(report)
    lines = {line.text.partition(":")[0]: line for line in lines_of(report)}
    assert list(lines) == ["p99 2 ms", "p50 9 ms", "p99 2 ms at 60 miles"]
    assert sum(line.count("p99 2 ms at 60 miles: C: p99 1.3") for line in printed(report, full=False).splitlines()) == 1
    for found in report.analysis.budgets:
        assert lines[found.id].verdict == found.verdict
        for text in (full, shown):
            assert f"{WORDS[found.verdict]} {found.id}" in text and " ".join(found.sentence.split()) in text
        for text in (full, shown, printed(report, full=False)):
            assert lines[found.id].text in text
    stored = msgspec.json.decode(msgspec.json.encode(report))
    assert [item["verdict"] for item in stored["analysis"]["budgets"]] == ["fail", "pass", "pass"]
    assert [line["verdict"] for line in stored["answer"]["lines"] if line["kind"] == "budget"] == ["fail", "pass", "pass"]
    assert answer_markdown("x", report.answer).count("- ✅ pass: p") == 2
    assert '"text":"p99 2 ms"' in page_of(report, report.analysis, "r").decode().replace('": "', '":"')


def test_many_budgets_leave_the_answer_at_ten_lines_and_say_how_many_more_there_are():
    report = with_budgets(*(f"p99 {ms} ms" for ms in range(1, 13)))
    answer = answer_of(report.recording, report.analysis)
    assert len(answer.lines) == ANSWER_LINES_MAX and len(report.analysis.budgets) == 12
    last = lines_of(report, "claim")[-1].text
    assert re.fullmatch(r"\d+ more verdicts in the whole report: .*", last)
    assert len(lines_of(report)) + int(last.split()[0]) == 12


def test_budgets_go_before_claims_where_a_run_has_both():
    report = with_budgets("p99 3 ms", claims=True)
    assert [item.id for item in report.analysis.verdicts] == ["p99 3 ms", "C1", "C2", "C3"]
    assert {1e6, 2e6, 3e6} <= {item.budget_ns for item in report.analysis.miles}
    assert len(lines_of(report)) == 1 and len(answer_of(report.recording, report.analysis).lines) <= ANSWER_LINES_MAX


def test_without_a_budget_the_answer_is_what_distance_costs():
    report = with_budgets()
    reach, = lines_of(report, "reach")
    assert re.fullmatch(r"C: p50 is 1\.\d\d round trips \[.*\] \+ 0\.\d+ ms \[.*\]", reach.text)
    assert lines_of(report, "cost")[0].text.startswith("150 miles cost")
    assert not report.analysis.verdicts


# Who else asks


def test_the_gate_holds_a_report_against_its_own_budgets_and_comes_to_the_same():
    for budget in ("p99 2 ms", "p99 9 ms", "p99 2 ms at 60 miles"):
        report = with_budgets(budget)
        encoded = msgspec.json.encode(result_set_of(report, report.analysis, "report.json"))
        result_set = msgspec.json.decode(encoded, type=ResultSet)
        found = gate(result_set, of_gate(result_set.budgets))
        assert found.verdict == report.analysis.budgets[0].verdict
        assert {item.budget for item in found.verdicts} == {budget} and budget in junit_of(found, None)


def test_strict_makes_a_budget_of_the_run_count_and_nothing_else_does():
    for budget, code in (("p99 2 ms", EXIT_GATE_FAILED), ("p99.9 9 ms", EXIT_INCONCLUSIVE), ("p99 9 ms", None)):
        report = with_budgets(budget)
        assert outcome(report) is None
        refusal = outcome(report, strict=True)
        assert code is None if refusal is None else (refusal.exit_code, budget in str(refusal)) == (code, True)


# Words


@pytest.mark.parametrize(
    ("word", "table"),
    [("p99 2 ms", BudgetTable(p99_ns=2_000_000)), ("p50=900us", BudgetTable(p50_ns=900_000)),
     (" p99.9 <= 1.5 s ", BudgetTable(p999_ns=1_500_000_000)), ("p99: 2ms at 100", BudgetTable(p99_ns=2_000_000, miles=100)),
     ("p99 2 ms at 0 miles", BudgetTable(p99_ns=2_000_000, miles=0)),
     ("p50 2 ms at 96.56064km", BudgetTable(p50_ns=2_000_000, miles=60))],
)  # fmt: skip
def test_a_budget_is_typed_as_it_is_said(word, table):
    made, = parse(SMALL, changes=[own_budgets([word])]).budget
    assert made.quantile == table.quantile and made.limit_ns == table.limit_ns
    assert made.miles == (None if table.miles is None else pytest.approx(table.miles))
    again, = parse(SMALL, changes=[own_budgets([made.text])]).budget
    assert again.text == made.text


@pytest.mark.parametrize(
    ("words", "said"),
    [(["p99"], 'such as "p99 2 ms"'), (["throughput 2000 /s"], "farwrite gate"), (["p99 2"], "lacks a unit"),
     (["p98 2 ms"], "p50, p99"), (["p99 2 parsec"], '"parsec"'), (["p99 0 ms"], "one quantile"),
     (["p99 11 s"], "at most at 10 s"),
     (["p99 2 ms at 61 miles"], "0, 20, 60, 100, 150, 186 miles"), (["p99 2 ms at noon"], "noon"),
     (["p99 2 ms", "p99 2ms"], "named twice")],
)  # fmt: skip
def test_a_budget_that_means_nothing_is_refused_with_what_would(words, said):
    with pytest.raises(UsageError) as refusal:
        parse(SMALL, "x.toml", [own_budgets(words)])
    assert said in str(refusal.value)


def test_a_budget_of_a_profile_is_refused_with_its_line():
    wrong = OWN.replace('p99 = "2 ms"', 'p99 = "2 ms"\np50 = "1 ms"')
    with pytest.raises(UsageError, match=r"x\.toml:\d+: budget: it is for one quantile"):
        parse(wrong, "x.toml")
    with pytest.raises(UsageError, match=r'x\.toml:\d+: budget\.0\.p98: unknown key "p98"'):
        parse(OWN.replace('p99 = "2 ms"', 'p98 = "2 ms"'), "x.toml")
