"""The answer of a run: ten lines of 80 columns that a person can decide by, the same wherever they are printed."""

from __future__ import annotations

import html
import io
import re

import msgspec
import pytest
from rich.console import Console

from farwrite.analysis import answered, document_of
from farwrite.analysis.answer import ANSWER_LINES_MAX, LINE_MAX, Line, answer_of, cut, reach_of, shortened
from farwrite.analysis.result import Estimate, GreatestMiles
from farwrite.analysis.void import cause_of, commonest, in_words
from farwrite.base.reasons import link_missed, no_good_round, of_sentence
from farwrite.recording import SCHEMA_VERSION, Report, decode
from farwrite.report.html import page_of
from farwrite.report.markdown import answer_markdown
from farwrite.report.terminal import show
from make_recording import LARGE, SMALL, analysed

ALL_CELLS = tuple(f"write-{protocol}-{miles}" for protocol in "CA" for miles in (0, 20, 60, 100, 150, 186))
JOB = """
title = "What a job does to it"
claims = false
[distance]
miles = [0, 150]
[run]
rounds = 4
round = "500 ms"
[[cell]]
name = "oltp"
protocols = ["C"]
block = "16 KiB"
queue_depth = 8
"""
BUSY = {"foreign_share": 0.52, "own_share": 0.4, "run_delay_ratio": 1.3}
WORLDS = {
    "usual": ((SMALL,), {}),
    "large": ((LARGE,), {}),
    "some void": ((SMALL,), {"void": (("write-C-20", 1), ("write-A-60", 0))}),
    "cells without a round": ((SMALL,), {"always_void": ("write-A-60", "write-A-100")}),
    "no good round": ((SMALL,), {"always_void": ALL_CELLS}),
    "interrupted in memory over streams": ((SMALL,), {"interrupted": True, "durability": "memory", "link": "relay"}),
    "lost": ((SMALL,), {"lost_writes_c": 3, "lost_in_rounds": 2}),
    "late": ((SMALL,), {"late_ns": 900_000.0}),
    "busy": ((SMALL,), BUSY),
    "one round": ((SMALL,), {"changes": ("run.rounds=1",)}),
    "no drill": ((SMALL,), {"changes": ("drill.kills=0",)}),
    "one distance": ((SMALL,), {"changes": ("distance.miles=[400]",)}),
    "slow": ((SMALL,), {"a_ns": 2_500_000.0}),
    "a job": ((JOB,), {}),
}


def texts(world):
    words, options = WORLDS[world]
    return [line.text for line in answer_of(*analysed(*words, **options)).lines]


def printed(recording, analysis, full=False, width=80):
    file = io.StringIO()
    show(Report(schema_version=SCHEMA_VERSION, recording=recording), analysis, Console(file=file, width=width), full)
    return file.getvalue()


@pytest.mark.parametrize("world", WORLDS)
def test_the_first_ten_lines_of_a_report_are_its_answer(world):
    words, options = WORLDS[world]
    recording, analysis = analysed(*words, **options)
    answer = answer_of(recording, analysis)
    for full in (False, True):
        first = printed(recording, analysis, full).splitlines()[: 1 + len(answer.lines)]
        assert len(first) <= 10
        assert first[0] == f"farwrite: {recording.profile.title}"
        assert [line.text in shown for line, shown in zip(answer.lines, first[1:], strict=True)] == [True] * len(answer.lines)
        assert all(len(line) <= LINE_MAX for line in first)


@pytest.mark.parametrize("world", WORLDS)
def test_page_markdown_and_document_say_the_same_lines(world):
    words, options = WORLDS[world]
    recording, analysis = analysed(*words, **options)
    lines = answer_of(recording, analysis).lines
    report = Report(schema_version=SCHEMA_VERSION, recording=recording, analysis=analysis)
    document = msgspec.json.decode(msgspec.json.encode(answered(report)))
    assert [line["text"] for line in document["answer"]["lines"]] == [line.text for line in lines]
    marked = answer_markdown("A title", answer_of(recording, analysis)).replace("\\", "")
    assert all(html.escape(line.text, quote=False) in marked for line in lines)
    page = html.unescape(re.sub(r"<[^>]+>", "", page_of(report, analysis, "made-up.json").decode().split('id="answer"')[1]))
    assert all(line.text in page for line in lines)


def test_the_usual_answer_has_miles_cost_losses_and_verdicts():
    said = texts("usual")
    assert re.fullmatch(r"C: 2 ms hold to \d+ miles of glass \[\d+, \d+\] at p99, to \d+ \[\d+, \d+\] at p50", said[0])
    assert re.fullmatch(r"150 miles cost 2\.\d\d ms \[.*\] at p50, 2\.\d\d ms \[.*\] at p99", said[1])
    assert re.fullmatch(r"0 of \d \d{3} acknowledged writes lost in 6 kills \(C\): P\(loss\) at most 39 %", said[2])
    assert [text[:2] for text in said[4:7]] == ["C1", "C2", "C3"]
    assert said[-1] == "60 rounds, all good"


def test_void_rounds_are_counted_with_their_cause_in_words():
    assert texts("some void")[-1].startswith("2 of 62 rounds void (")
    assert "us off" not in texts("some void")[-1]
    assert texts("cells without a round")[-1].endswith("; no good round for 2 of 12 cells")


def test_a_run_without_a_good_round_says_that_nothing_is_known_and_why():
    said = texts("no good round")
    assert said[0].startswith("C: how far 2 ms hold is unknown: not one good round")
    assert not any("150 miles cost" in text for text in said)


def test_a_lost_write_is_a_failure_in_the_answer():
    words, options = WORLDS["lost"]
    lost = next(line for line in answer_of(*analysed(*words, **options)).lines if line.kind == "loss")
    assert lost.verdict == "fail"
    assert "LOST" in lost.text and "in 6 kills" in lost.text and "in the rounds" in lost.text


def test_what_must_be_known_first_comes_first():
    assert texts("interrupted in memory over streams")[0] == "⚠ INTERRUPTED before its end, journals in memory, stream-level"
    assert not texts("usual")[0].startswith("⚠")


def test_a_busy_host_is_said_beside_the_verdict_and_no_reach_is_claimed():
    said = texts("busy")
    assert any(text.startswith("C1") and "other programs used 52%" in text for text in said)
    assert not any("hold to" in text for text in said)


def test_a_run_that_is_not_about_the_claims_does_not_rule_on_them():
    kinds = {line.kind for line in answer_of(*analysed(JOB)).lines}
    assert "claim" not in kinds and {"reach", "cost", "loss", "rounds"} <= kinds
    said = texts("a job")
    assert said[0].startswith("oltp, C: 0 miles cost 0.3") and said[1].startswith("150 miles cost 2.")
    assert not any("2 ms" in text for text in said), "nobody has asked about 2 ms"


def test_one_far_distance_says_what_it_is():
    assert texts("one distance")[0] == "C: 2 ms do not hold at 400 miles at p99, the nearest measured"
    assert texts("slow")[0].startswith("C: 2 ms hold at no distance at p99")


@pytest.mark.parametrize(("low", "text"), [
    (None, "beyond 186 miles, not measured"), (186.0, "beyond 186 miles, not measured"),
    (157.2, "beyond 186 miles [157, > 186]"), (0.0, "beyond 186 miles [0, > 186]"),
])  # fmt: skip
def test_a_budget_that_holds_at_the_farthest_distance_has_the_near_end_of_its_interval(low, text):
    found = GreatestMiles(
        name="write", protocol="C", quantile=0.99, budget_ns=5e6, route_factor=1.0, miles=Estimate(value=None, low=low),
        outcome="beyond", beyond_miles=186.0,
    )  # fmt: skip
    assert reach_of(found).text == text


def test_what_too_few_writes_leave_unknown_is_said():
    recording, analysis = analysed(SMALL, writes=60)
    said = [line.text for line in answer_of(recording, analysis).lines]
    assert said[0].endswith("at p50; p99 unknown")
    assert said[1].endswith("at p50; p99 needs n >= 368 writes")
    text = printed(recording, analysis)
    assert "unknown at p99: fewer than three distances have one" in text and "at p99  " not in text


def test_one_round_is_the_reason_and_not_a_cell_that_has_none():
    said = answer_of(*analysed(SMALL, changes=("run.rounds=1", "distance.miles=[0, 20]"), always_void=("write-C-0",))).lines[0]
    assert said.text == "C: how far 2 ms hold is unknown: one round only: no interval over rounds"


def test_a_drill_that_was_not_made_is_no_proof():
    assert any("no kill was drilled" in text for text in texts("no drill"))


@pytest.mark.parametrize(("text", "short"), [
    ("one, more; two, and a third clause", "one, more"),
    ("p99 0.99 ms [0.82, 1.28] of all", "p99 0.99 ms ..."),
    ("nothing but words that go on", "nothing but ..."),
])  # fmt: skip
def test_a_text_that_is_too_long_ends_where_a_clause_or_a_word_does_and_not_inside_an_interval(text, short):
    assert cut(text, 16) == short
    assert shortened(Line(kind="claim", text=text)).text == text


def test_reasons_that_differ_in_their_numbers_are_one_cause():
    reasons = [[link_missed("before", "", -73e3), link_missed("after", "", 41e3)], [of_sentence("the host took 12%")]]
    assert commonest([*reasons, [link_missed("after", " to the site 60 miles away", 50e3)]]) == "the link was off"
    assert cause_of(of_sentence("the host took 9% of the processors")) == "the host took the processors"
    none = no_good_round("the link was 3 us off; the link was 4 us off", "the link was off")
    assert in_words(none) == "not one good round: the link was off"
    assert commonest([]) == ""


def test_an_older_document_is_given_its_answer():
    recording, _ = analysed(SMALL)
    made = msgspec.to_builtins(document_of(recording))
    assert len(made["answer"]["lines"]) <= ANSWER_LINES_MAX
    del made["answer"]
    old = decode(msgspec.json.encode(made), "old")
    assert old.answer is None
    assert answered(old).answer == answer_of(recording, analysed(SMALL)[1])


# The first screen


def test_the_first_screen_has_no_footnotes_and_says_once_why_a_cell_is_missing():
    recording, analysis = analysed(SMALL, always_void=("write-A-60", "write-A-100"))
    text = printed(recording, analysis)
    assert not re.search("[⁰¹²³⁴⁵⁶⁷⁸⁹]", text)
    assert "no A at 60, 100 miles: not one good round" in " ".join(text.split())
    assert text.count("not one good round") == 1
    full = printed(recording, analysis, full=True)
    for page in (text, full):
        assert not [line for line in page.splitlines() if re.match(r"\s*(60|100)?\s+A\S*\s+–", line)]  # noqa: RUF001


def test_the_first_screen_shows_every_median_and_how_far_budgets_hold():
    recording, analysis = analysed(SMALL)
    text = printed(recording, analysis)
    for cell in analysis.cells:
        assert f"{cell.response_ns_p50.value / 1e6:.3f}" in text
    assert "Greatest miles of glass at which a budget holds: write, protocol C" in text
    assert "beyond 186 miles, not measured" in text
    assert len(text.splitlines()) < 45


def test_a_withheld_cell_is_marked_and_its_reason_is_said_once():
    recording, analysis = analysed(SMALL, **BUSY)
    text = " ".join(printed(recording, analysis).split())
    assert len(re.findall(r"\? no verdict on latency rests on .*? other programs used 52% of the processors", text)) == 1


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("world", WORLDS)
def test_no_line_of_the_first_screen_is_too_long(world, width):
    words, options = WORLDS[world]
    assert max(map(len, printed(*analysed(*words, **options), width=width).splitlines())) <= width
