"""What a comparison looks like: nothing wider than the console, nothing missing without colour, the forest drawn truly."""

from __future__ import annotations

import io
import re
from functools import cache

import msgspec
import pytest
from rich.console import Console

from farwrite.analysis.change import Comparison, Row, worst_first
from farwrite.analysis.result import Estimate
from farwrite.report import forest
from farwrite.report.comparison import MARK, range_text, reasons_of, show_comparison
from make_figures import as_reasons

WIDTHS = (80, 100, 132)
LEFT, RIGHT = "┊", "┊"


def row(
    metric="response_p50", change=0.0, half=0.01, miles=20.0, base=1e6, verdict="same", unit="ns", relative=True, margin=0.05,
    sentence="why", floor=0.01, counted=False, labels=None, cand=None,
):  # fmt: skip
    if labels is None:
        labels = {"name": "write", "protocol": "C", "miles": miles, "queue_depth": 1}
    words = ", ".join(f"{value:g} miles" if key == "miles" else f"{value}" for key, value in labels.items())
    if change is None:
        changed = Estimate(value=None, warnings=as_reasons([sentence]))
    else:
        changed = Estimate(value=change, low=change - half, high=change + half, confidence=1.0 if counted else 0.95)
    other = cand if cand is not None else base if change is None else base * (1 + change) if relative else base + change
    return Row(
        metric=metric, labels=labels, name=f"{metric} of {words}", unit=unit, exact=counted, relative=relative, counted=counted,
        base=Estimate(value=base), cand=Estimate(value=other), change=changed, p=None if counted or change is None else 0.01,
        floor=floor, margin=margin, verdict=verdict, sentence=sentence,
    )  # fmt: skip


def comparison(*rows, **changes):
    fields = {
        "base": ["base/report.json"], "cand": ["cand/report.json"], "unit_of_replication": "rounds",
        "floor_from": "the base's own rounds", "alpha": 0.05, "margin_ratio": 0.05,
        "rows": sorted(rows, key=worst_first), "warnings": ["one run a side: read it with care"],
    }  # fmt: skip
    return Comparison(**{**fields, **changes})


@cache
def everything():
    """Every kind of row there is."""
    trips = {"name": "write", "protocol": "C", "queue_depth": 1}
    budget = {"name": "write", "protocol": "C", "budget": "2 ms", "route": 1.0}
    return comparison(
        row(change=0.12, verdict="slower", miles=150.0, base=2.6e6),
        row(change=0.002, miles=60.0),
        row(change=0.03, half=0.04, verdict="unresolved", sentence="more rounds would tell"),
        row(change=-0.2, verdict="faster", metric="response_p99", miles=0.0),
        row(change=None, verdict="unresolved", metric="response_p999", sentence="baseline: p99.9 needs n >= 3688 (n = 12)"),
        row("throughput", -0.1, base=123456.0, unit="per_s", verdict="slower"),
        row("cpu_per_write", 9.0, 30.0, base=31e3, verdict="unresolved"),
        row("lag_p99", 0.0, base=6e6), row("rtt_p50", 0.06, base=3e5, verdict="higher"),
        row("flushes_per_write", 0.0, 0.0, base=1.0, unit="ratio"),
        row("k_p50", 0.1, 0.01, base=1.0, unit="ratio", relative=False, margin=0.05, verdict="worse", labels=trips, floor=0.001),
        row("a_p50", 4e3, 9e3, base=3e5, relative=False, margin=2e4, labels=trips, floor=1e3),
        row("greatest_miles_p50", -12.0, 3.0, base=112.0, unit="miles", relative=False, margin=2.0, verdict="worse",
            labels=budget, floor=1.0),
        row("lost_writes", 0.0, 0.0, base=0.0, unit="count", relative=False, counted=True, floor=None),
        row("drill_lost_writes", 3.0, 0.0, base=0.0, unit="count", relative=False, counted=True, floor=None, verdict="worse",
            labels={"drill": "kill", "protocol": "C", "miles": 150.0}),
    )  # fmt: skip


def printed(width=80, of=None, brief=False, **console):
    file = io.StringIO()
    show_comparison(of or everything(), Console(file=file, width=width, **console), brief)
    return file.getvalue()


def one_line(text):
    return " ".join(text.split())


def table_lines(text, words):
    """The lines of the table rows that bear a verdict of these words."""
    return [line for line in text.splitlines() if re.search(rf"^ +\S.*{words}", line)]


# The page


@pytest.mark.parametrize("width", [50, *WIDTHS])
@pytest.mark.parametrize("brief", [True, False])
def test_no_line_is_wider_than_the_console_and_nothing_is_cut(width, brief):
    text = printed(width, brief=brief)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


@pytest.mark.parametrize("width", WIDTHS)
def test_every_row_is_there_in_words_without_colour(width):
    text = printed(width)
    tables = text[text.index("Response time") :]
    for item in everything().rows:
        if item.counted and item.verdict == "same":
            assert f"{item.metric}: 0 on both sides" in tables
            continue
        assert item.metric in tables
        assert MARK[item.verdict] in tables
    for number in ("2.600", "2.912", "+12.0", "[+11.0, +13.0]", "123 456", "111 110", "-10.0", "+900.0", "+0.10", "-12", "0 → 3"):
        assert number in tables, number


def test_the_summary_says_how_many_of_which_and_the_worst():
    said = one_line(printed(132))
    counts = "2 slower, 3 worse, 1 higher, 1 faster, 5 same, 3 unresolved of 15 figures"
    assert f"{counts}; the worst: drill_lost_writes of kill, C at 150 miles: 0 → 3." in said
    assert "⚠ one run a side: read it with care" in said


def test_what_is_compared_rests_on_something_and_that_is_said():
    said = one_line(printed(100))
    for words in ("rounds of one run a side", "Holm's procedure over 12 figures", "at 5%", "from the base's own rounds",
                  "±5 %", "k ±0.05", "a ±20 us", "greatest_miles ±2 miles"):  # fmt: skip
        assert words in said
    assert "measured side by side" in one_line(printed(100, comparison(row(), unit_of_replication="pairs")))
    assert "whole runs" in one_line(printed(100, comparison(row(), unit_of_replication="runs")))


def test_units_stand_in_the_headings():
    text = printed(132)
    heading = text[text.index("Response time") :].splitlines()[1:3]
    assert heading[0].split() == ["base", "cand", "change", "95%", "interval", "A/A", "±"]
    assert heading[1].split()[:6] == ["miles", "ms", "ms", "%", "%", "%"]


def test_numbers_of_a_column_share_their_places():
    rows = [row(miles=miles, base=base, change=0.1) for miles, base in ((0.0, 0.4e6), (60.0, 12.3e6), (150.0, 101e6))]
    lines = table_lines(printed(100, comparison(*rows)), "= same")
    assert [line.split()[1] for line in lines] == ["0.400", "12.300", "101.000"]
    assert len({line.index(line.split()[1]) + len(line.split()[1]) for line in lines}) == 1


def test_rows_of_a_section_follow_distance_and_the_worst_section_comes_first():
    rows = [row(miles=miles) for miles in (100.0, 0.0, 20.0)]
    rows += [row("response_p99", 0.1 if miles else 0.0, miles=miles, verdict="slower" if miles else "same")
             for miles in (60.0, 150.0, 0.0)]  # fmt: skip
    text = printed(100, comparison(*rows))
    tables = text[text.index("Response time") :]
    assert tables.index("response_p99 of") < tables.index("response_p50 of")
    assert [line.split()[0] for line in table_lines(tables, "= same|✘ slower")] == ["0", "60", "150", "all"]


def test_budgets_are_in_order_of_size():
    labels = [{"name": "write", "protocol": "C", "budget": f"{ms} ms", "route": 1.0} for ms in (10, 1, 5)]
    rows = [row("greatest_miles_p50", float(place), base=100.0 + place, unit="miles", relative=False, margin=20.0, labels=each)
            for place, each in enumerate(labels)]  # fmt: skip
    lines = table_lines(printed(100, comparison(*rows)), "= same")
    assert [line.split()[0] for line in lines] == ["1", "5", "10"]


def test_rows_that_read_alike_are_one():
    text = printed(100, comparison(*(row("flushes_per_write", 0.0, 0.0, miles, 1.0) for miles in (0.0, 20.0, 150.0))))
    [line] = table_lines(text, "= same")
    assert line.split()[:3] == ["all", "1.00", "1.00"]


def test_a_section_without_a_value_is_one_line_with_the_reason():
    rows = [row("cpu_per_write", None, miles=miles, verdict="unresolved", sentence="baseline: not recorded")
            for miles in (0.0, 20.0, 150.0)]  # fmt: skip
    text = printed(100, comparison(*rows))
    assert "cpu_per_write of write, C, depth 1  ? unresolved¹⁾ at all 3" in text
    assert "¹⁾ baseline: not recorded" in text


def test_reasons_that_differ_in_numbers_only_are_one_footnote():
    rows = [row("response_p999", None, miles=miles, verdict="unresolved", sentence=f"p99.9 needs n >= 3688 (n = {miles:g})")
            for miles in (20.0, 60.0)]  # fmt: skip
    late = [row("response_p99", None, miles=miles, verdict="unresolved", sentence=f"{miles / 100} ms late at p99")
            for miles in (20.0, 60.0)]  # fmt: skip
    found = set(reasons_of([*rows, *late]).values())
    assert found == {"p99.9 needs n >= 3688", "0.2 to 0.6 ms late at p99"}
    assert range_text(["10", "9"]) == "9 to 10"


def test_what_is_unresolved_points_at_its_reason():
    text = printed(100)
    assert "? unresolved¹⁾" in text
    assert "¹⁾ more rounds would tell" in text


# Brief


def test_the_brief_form_has_only_what_changed():
    text = printed(100, brief=True)
    for words in ("? unresolved", "= same", "cpu_per_write", "a_p50", "flushes_per_write"):
        assert words not in text[text.index("What changed") :]
    for words in ("+12.0 %", "✘ worse", "✔ faster", "↑ higher", "0 → 3"):
        assert words in text
    assert "15 figures" in text
    assert len(text.splitlines()) < len(printed(100).splitlines())


def test_the_brief_form_of_no_change_says_so_and_how_it_was_judged():
    text = printed(80, comparison(row(), row(miles=60.0)), brief=True)
    assert "No change found: 2 same of 2 figures." in text
    assert "What changed" not in text
    assert "Response time" not in text
    assert "How it was judged" in text


def test_what_changed_is_a_line_a_section_and_the_worst_is_first():
    text = printed(132, brief=True)
    lines = text[text.index("What changed") : text.index("Losses")].splitlines()[1:]
    lines = [line for line in lines if line.startswith(("✘", "✔", "↑"))]
    assert lines[0] == "✘ worse   drill_lost_writes of kill, C at 150 miles: 0 → 3"
    assert lines[-1].startswith("✔ faster  response_p99 of write, C, depth 1 at 0 miles: -20.0 % [-21.0, -19.0]")
    several = [row(miles=miles, change=change, verdict="slower") for miles, change in ((20.0, 0.2), (60.0, 0.1))]
    said = one_line(printed(80, comparison(*several), brief=True))
    assert "response_p50 of write, C, depth 1 at 20, 60 miles: +10.0 to +20.0 %" in said


# Odd input


@pytest.mark.parametrize("brief", [True, False])
@pytest.mark.parametrize("width", [60, *WIDTHS])
def test_an_empty_comparison_is_said(width, brief):
    text = printed(width, comparison(), brief)
    assert "none of 0 figures" in text
    assert max(map(len, text.splitlines())) <= width


def test_a_bracket_in_a_name_is_a_bracket():
    labels = {"name": "[red]mix[/red] [/]", "protocol": "C", "miles": 20.0, "queue_depth": 1}
    hostile = row(labels=labels, change=0.3, verdict="slower", sentence="[bold]x[/bold]")
    text = printed(132, comparison(hostile, warnings=["[blink]"], base=["[dir]/report.json"]))
    assert text.count("[red]mix[/red] [/]") == 3
    assert "[blink]" in text
    assert "[dir]/report.json" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_long_names_and_numbers_are_folded_and_never_cut(width):
    labels = {"job": "a very long name of a job " * 5, "op": "write"}
    rows = [
        row("mean", 99.0, 1e6, labels=labels, base=123_456_789e3, verdict="unresolved"),
        row("mean", -0.9, 0.05, labels={"job": "b", "op": "write"}, base=999_456_789e3, verdict="faster"),
        row("rate of things", 0.0, labels={}, base=123_456_789_012.0, unit="per_s"),
    ]
    text = printed(width, comparison(*rows))
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert one_line(text).count(one_line(labels["job"])) == 1
    assert ">+999" in text
    assert "123 456 789 012" in text


def test_another_tools_figures_have_chapters_of_their_own():
    rows = [row("mean", labels={"test": name}, base=base) for name, base in (("fast", 20e3), ("slow", 3e9))]
    text = printed(100, comparison(*rows))
    assert "mean of test fast" in text
    assert re.search(r"us +us +%", text)
    assert re.search(r" s +s +%", text)


def test_no_colour_means_no_escape_codes(monkeypatch):
    assert "\x1b" not in printed(80)
    assert "\x1b[" in printed(80, force_terminal=True, color_system="truecolor")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*\b(3[0-7]|9[0-7]|38)\b", printed(80, force_terminal=True))


def test_a_comparison_read_back_prints_the_same():
    again = msgspec.json.decode(msgspec.json.encode(everything()), type=Comparison)
    assert printed(80, again) == printed(80)


# The forest


@pytest.mark.parametrize("width", [13, 15, 49])
@pytest.mark.parametrize(("low", "value", "high"), [
    (-0.08, -0.02, 0.06), (0.02, 0.05, 0.09), (-0.09, -0.07, -0.05), (-0.001, 0.0, 0.001), (-0.1, 0.0, 0.1),
])  # fmt: skip
def test_a_line_begins_left_of_its_value_and_ends_right_of_it(width, low, value, high):
    drawn = forest.draw(forest.Axis(0.1, 0.05, width), low, value, high, "").plain
    assert len(drawn) == width
    marks = [place for place, mark in enumerate(drawn) if mark in "━┿╸╺●"]
    at = drawn.index("●")
    assert marks == list(range(marks[0], marks[-1] + 1))
    assert marks[0] <= at <= marks[-1]
    for end, place in ((low, marks[0]), (value, at), (high, marks[-1])):
        assert abs((end + 0.1) / 0.2 * width - (place + 0.5)) <= 1


def test_zero_is_in_the_middle_and_the_margin_around_it():
    drawn = forest.nothing(forest.Axis(0.1, 0.05, 21)).plain
    assert drawn.index("│") == 10
    assert drawn.index("┊") == 5
    assert drawn.rindex("┊") == 15
    assert forest.draw(forest.Axis(0.1, 0.05, 21), -0.09, 0.02, 0.09, "").plain[10] == "┿"


@pytest.mark.parametrize(("low", "value", "high", "first", "last"), [
    (-0.3, 0.0, 0.01, "◂", " "), (-0.01, 0.0, 0.3, " ", "▸"), (0.2, 0.3, 0.4, " ", "▸"), (-0.4, -0.3, -0.2, "◂", " "),
    (-1.0, 0.5, 1.0, "◂", "▸"),
])  # fmt: skip
def test_what_runs_off_the_axis_ends_in_an_arrow(low, value, high, first, last):
    drawn = forest.draw(forest.Axis(0.1, 0.05, 21), low, value, high, "").plain
    assert (drawn[0], drawn[-1]) == (first, last)
    assert ("●" in drawn) == (abs(value) <= 0.1)


def test_lines_are_drawn_to_half_a_character():
    axis = forest.Axis(1.0, 0.5, 21)
    ends = [forest.draw(axis, 0.0, 0.0, step / 21, "").plain.rstrip(" ┊")[-1] for step in (2.2, 3.2, 4.2, 5.2)]
    assert ends == ["━", "╸", "━", "╸"]


@pytest.mark.parametrize(("ends", "margin", "limit"), [
    ([0.01, -0.02], 0.05, 0.1), ([0.12] * 10, 0.05, 0.15), ([0.12] * 19 + [80.0], 0.05, 0.15), ([], 0.02, 0.04),
    ([], 0.0, 1.0), ([float("inf")], 0.05, 0.1), ([66.0, -20.0], 2.0, 80.0),
])  # fmt: skip
def test_an_axis_shows_the_margin_twice_and_most_intervals(ends, margin, limit):
    assert forest.limit_of(ends, margin) == pytest.approx(limit)


def test_all_ratios_share_an_axis():
    text = printed(132)
    scales = re.findall(r"-(\d+) +0 +\+\1\b", text)
    assert len(scales) >= 5
    assert scales[0] == scales[1]
