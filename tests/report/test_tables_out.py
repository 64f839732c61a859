"""Figures as CSV and whole reports as Markdown: nothing is lost on the way, and other people's words stay words."""

from __future__ import annotations

import csv
import io
import re
from functools import cache

import msgspec
import pytest

from awkward import RECORDINGS
from farwrite.analysis.analyse import analyse
from farwrite.analysis.between_runs import NO_HISTORY
from farwrite.analysis.change import compare
from farwrite.compare.figures import result_set_of
from farwrite.recording import SCHEMA_VERSION, Report
from farwrite.report.csv import figures_csv, rows_csv
from farwrite.report.markdown import comparison_markdown, report_markdown
from make_recording import LARGE, analysed

HOSTILE = 'write | "x", <b>\n#1'


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def result_set(recording, analysis):
    return result_set_of(Report(schema_version=SCHEMA_VERSION, recording=recording), analysis, "made-up.json")


@cache
def both():
    result_sets = [result_set(*analysed(LARGE)), result_set(*analysed(LARGE, seed=2, a_ns=500_000.0))]
    return compare(result_sets[:1], result_sets[1:], history=NO_HISTORY)


def test_every_figure_is_a_row_with_its_labels_and_its_whole_number():
    figures = result_set(*analysed(LARGE)).figures
    rows = read(figures_csv(figures))
    assert len(rows) == len(figures) > 100
    for row, figure in zip(rows, figures, strict=True):
        assert (row["metric"], row["unit"]) == (figure.metric, figure.unit)
        assert all(row[name] == str(label) for name, label in figure.labels.items())
        for name, number in (("value", figure.estimate.value), ("low", figure.estimate.low), ("high", figure.estimate.high)):
            assert (float(row[name]) if row[name] else None) == number
        assert bool(row["unknown_because"]) == (figure.estimate.value is None)
    assert any("needs n >= " in row["unknown_because"] for row in rows)


def test_every_row_of_a_comparison_is_a_row():
    comparison = both()
    rows = read(rows_csv(comparison.rows))
    assert [(row["metric"], row["verdict"]) for row in rows] == [(row.metric, row.verdict) for row in comparison.rows]
    for row, made in zip(rows, comparison.rows, strict=True):
        assert (float(row["change"]) if row["change"] else None) == made.change.value
        assert (float(row["base_low"]) if row["base_low"] else None) == made.base.low


def test_words_of_others_stay_in_their_cell():
    first = result_set(*analysed(LARGE)).figures[:3]
    figures = [msgspec.structs.replace(figure, labels={**figure.labels, "name": HOSTILE}) for figure in first]
    assert [row["name"] for row in read(figures_csv(figures))] == [HOSTILE] * 3
    recording, analysis = analysed(LARGE)
    cells = [msgspec.structs.replace(c, name=HOSTILE) for c in analysis.cells]
    report = Report(schema_version=SCHEMA_VERSION, recording=recording)
    check_tables(report_markdown(report, msgspec.structs.replace(analysis, cells=cells)))


def check_tables(text):
    """Every table has as many cells in each line, and a rule under its headings."""
    tables = re.findall(r"(?:^\|.*\|$\n?)+", text, re.M)
    for table in tables:
        lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.strip().splitlines()]
        assert len({len(line) for line in lines}) == 1, table
        assert all(re.fullmatch(r" -{3}:? ", rule) for rule in lines[1]), table
    assert "<b>" not in text and "\x1b" not in text
    return tables


@pytest.mark.parametrize("name", ["no_line", "void_everywhere", "interrupted", "in_memory"])
def test_a_whole_report_is_markdown_whatever_is_strange_about_it(name):
    recording = RECORDINGS[name]()
    analysis = analyse(recording)
    text = report_markdown(Report(schema_version=SCHEMA_VERSION, recording=recording), analysis)
    assert check_tables(text)
    assert "Proof of link" in text and ("INTERRUPTED" in text) == recording.interrupted
    for cell in analysis.cells:
        if cell.response_ns_p50.value is not None:
            assert f"{cell.response_ns_p50.value / 1e6:.3f}"[:4] in text


def test_a_comparison_is_a_table_of_markdown_and_in_brief_only_what_changed():
    comparison = both()
    whole, brief = comparison_markdown(comparison), comparison_markdown(comparison, brief=True)
    (table,), (short,) = check_tables(whole), check_tables(brief)
    assert table.count("\n|") - 1 == len(comparison.rows) > short.count("\n|") - 1 > 0
