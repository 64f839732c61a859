"""Verdicts as other tools read them: JUnit XML, Markdown, GitHub's annotations; and as a person does in a terminal."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from farwrite.gate.budget import parse
from farwrite.gate.gate import Gate, gate
from farwrite.report.gate import show_gate
from farwrite.report.junit import junit_of
from farwrite.report.markdown import ANNOTATIONS_MAX, annotations_of, escaped, markdown_of, plain
from make_figures import at, figure, measured, result_set

BUDGETS = """
title = 'Promises | of <us> & "others"'
[[budget]]
name = "lost | <b>"
metric = "lost_writes"
equals = 0
reason = "because | of *that*"
[[budget]]
name = "open"
metric = "response_p50"
at_most = "1 ms"
[[budget]]
name = "kept"
metric = "damaged_writes"
equals = 0
[[budget]]
name = "only told"
metric = "lag_writes_max"
equals = 0
gating = false
"""


def found(**options) -> Gate:
    """One failure, one unknown, two that pass, one failure that decides nothing."""
    odd = at(20, name="a|b\n<script>`x`")
    figures = [figure("lost_writes", 2, odd, count=10), measured("response_p50", [0.9e6, 1e6, 1.1e6], at(20)),
               figure("damaged_writes", 0, at(20)), figure("damaged_writes", 0, odd), figure("lag_writes_max", 3),
               figure("lost_writes", 0, at(20)), measured("response_p50", [0.1e6, 0.1e6, 0.11e6], odd)]  # fmt: skip
    return gate(result_set(*figures), parse(BUDGETS, "dir/b,1.toml"), **options)


# JUnit

# What a tag may have in junit-10.xsd of Jenkins' xunit plugin, which GitLab, Azure and the GitHub actions read too.
SHAPE = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": ({"name", "tests", "failures", "errors", "time", "skipped", "timestamp"}, {"properties", "testcase"}),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": ({"name", "time", "classname"}, {"skipped", "error", "failure", "system-out"}),
    "skipped": ({"message"}, set()),
    "error": ({"message", "type"}, set()),
    "failure": ({"message", "type"}, set()),
    "system-out": (set(), set()),
}


def check_shape(element: Xml.Element) -> None:
    attributes, children = SHAPE[element.tag]
    assert set(element.attrib) <= attributes
    for child in element:
        assert child.tag in children
        check_shape(child)


def test_junit_has_a_case_for_each_budget_and_figure_and_counts_them():
    root = Xml.fromstring(junit_of(found()).encode())
    check_shape(root)
    suite, = root.findall("testsuite")
    cases = suite.findall("testcase")
    tags = [next(iter(case)).tag for case in cases]
    assert len(cases) == 7 == int(suite.get("tests")) and re.fullmatch(r"[\d-]+T[\d:]+", suite.get("timestamp"))
    assert [int(suite.get(name)) for name in ("failures", "errors", "skipped")] == [1, 1, 1]
    assert [tags.count(tag) for tag in ("failure", "error", "skipped", "system-out")] == [1, 1, 1, 4]
    assert len({(case.get("classname"), case.get("name")) for case in cases}) == 7


def test_junit_says_what_failed_and_why_it_was_promised():
    failure = Xml.fromstring(junit_of(found())).find(".//failure")
    assert "is 2 of exactly 0" in failure.get("message") and failure.get("type") == "lost"
    assert "promised because: because | of *that*" in failure.text


@pytest.mark.parametrize(("inconclusive", "errors", "skipped"), [(None, 1, 1), ("fail", 1, 1), ("pass", 0, 2)])
def test_junit_skips_what_is_unknown_only_where_that_passes(inconclusive, errors, skipped):
    root = Xml.fromstring(junit_of(found(), inconclusive))
    assert len(root.findall(".//error")) == errors and len(root.findall(".//skipped")) == skipped


@given(st.text(max_size=50))
@settings(max_examples=100, deadline=None)
def test_junit_is_xml_whatever_a_cell_is_called(name):
    budgets = parse('[[budget]]\nmetric="lost_writes"\nequals=0')
    text = junit_of(gate(result_set(figure("lost_writes", 1, {"name": name})), budgets))
    check_shape(Xml.fromstring(text.encode("utf-8", "surrogatepass")))


# Markdown


def test_markdown_shows_the_worst_first_and_folds_the_rest_away():
    text = markdown_of(found())
    assert text.index("❌ fail") < text.index("❔ unknown") < text.index("<details>") < text.index("✅ pass")
    assert text.count("<details>") == text.count("</details>") == 2
    assert "1 failed, 1 unknown, 4 passed; 1 only reported" in text


def test_markdown_keeps_its_tables_whatever_a_cell_is_called():
    for line in markdown_of(found()).splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5, line
    assert "<script>" not in markdown_of(found()) and "<b>" not in markdown_of(found())


@pytest.mark.parametrize(("text", "said"), [
    ("a|b", r"a\|b"), ("a\nb", "a b"), ("<b>&", "&lt;b&gt;&amp;"), ("`*_[]~#!@\\", r"\`\*\_\[\]\~\#\!\@\\"),
    ("20 miles", "20 miles"),
])  # fmt: skip
def test_markdown_takes_text_for_text(text, said):
    assert plain(text) == said


# Annotations


def test_a_failure_is_an_error_and_an_unknown_a_warning_at_the_line_of_the_budget():
    error, warning = annotations_of(found())
    assert error.startswith("::error file=dir/b%2C1.toml,line=3,title=lost | <b>::lost_writes of a|b%0A<script>")
    assert warning.startswith("::warning file=dir/b%2C1.toml,line=8,title=open::response_p50 of write")
    assert "\n" not in error + warning


@pytest.mark.parametrize(("text", "also", "said"), [
    ("100 %", "", "100 %25"), ("a\r\nb", "", "a%0D%0Ab"), ("%0A", "", "%250A"), ("a:b,c", ":,", "a%3Ab%2Cc"),
    ("a:b,c", "", "a:b,c"),
])  # fmt: skip
def test_annotations_escape_what_github_would_read(text, also, said):
    assert escaped(text, also) == said


def test_no_more_annotations_are_printed_than_github_shows():
    many = [figure("lost_writes", 1, at(miles)) for miles in range(25)]
    lines = list(annotations_of(gate(result_set(*many), parse('[[budget]]\nmetric = "lost_writes"\nequals = 0', "b.toml"))))
    assert len(lines) == ANNOTATIONS_MAX + 1 and lines[-1] == "::notice title=farwrite gate::15 more are in the report"


def test_what_is_only_reported_or_passes_is_not_annotated():
    assert not any("only told" in line or "kept" in line for line in annotations_of(found()))


# The terminal


def printed(gate_: Gate, width: int = 80) -> str:
    stream = io.StringIO()
    show_gate(gate_, Console(file=stream, width=width, force_terminal=False))
    return stream.getvalue()


def test_the_terminal_shows_the_worst_first_and_the_reason_of_what_failed():
    text = printed(found())
    words = ("✘ FAIL  lost | <b>", "? UNKNOWN  open", "✔ PASS  kept", "Reported only", "✘ FAIL  only told")
    places = [text.index(word) for word in words]
    assert places == sorted(places)
    assert "promised because: because | of *that*" in text
    assert "✘ FAIL: 1 failed, 1 unknown, 4 passed; 1 only reported" in text
    assert "at most 5 % of all runs (2 measured tests, Holm's procedure)" in " ".join(text.split())
    assert "look 1 of 1" in " ".join(text.split())


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(width):
    assert all(len(line.rstrip()) <= width for line in printed(found(), width).splitlines())


def test_the_terminal_says_how_small_a_change_the_gate_sees():
    text = " ".join(printed(found()).split())
    assert "What this gate sees: failed in nine of ten runs like this one · open: " in text


def test_many_that_pass_are_one_line_with_the_closest_to_its_limit():
    figures = [figure("lag_writes_max", count, at(miles)) for miles, count in enumerate((1, 9, 3))]
    text = " ".join(printed(gate(result_set(*figures), parse('[[budget]]\nmetric = "lag_writes_max"\nat_most = 10'))).split())
    assert "the closest of 3: lag_writes_max of write, C, 1 miles, depth 1 is 9 of at most 10" in text
