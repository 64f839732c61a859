"""Parts: reads, flushes and trims, jobs and phases have figures and rows of their own; files without them go on decoding."""

import io

import msgspec
import numpy as np
import pytest
from rich.console import Console

import make_recording
from farwrite.analysis.analyse import analyse
from farwrite.analysis.change import compare
from farwrite.base.histogram import Histogram
from farwrite.compare.figures import result_set_of
from farwrite.gate.budget import parse
from farwrite.gate.gate import gate
from farwrite.recording import SCHEMA_VERSION, Part, Report, decode
from farwrite.report.terminal import show
from make_figures import hours_alike


def with_parts():
    """A recording in which a cell has reads and flushes beside its writes, from two jobs."""
    recording = make_recording.make_recording()
    chosen = recording.cells[0].id
    dice = np.random.default_rng(1)

    def parts(index):
        times = {"write": 900_000, "read": 80_000, "flush": 850_000}
        return [
            Part(
                operation=word, completed=2000, completed_bytes=2000 * 4096, job=job,
                response=Histogram.of(dice.normal(ns * (1 + 0.01 * index), ns / 50, 2000).astype(np.int64)).encode(),
            )
            for job in ("pages", "log")
            for word, ns in times.items()
            if (job, word) != ("log", "read")
        ]  # fmt: skip

    rounds = [
        msgspec.structs.replace(item, parts=parts(item.index)) if item.cell == chosen else item for item in recording.rounds
    ]
    return msgspec.structs.replace(recording, rounds=rounds), chosen


@pytest.fixture(scope="module")
def analysed():
    recording, chosen = with_parts()
    return recording, chosen, analyse(recording)


def test_each_part_has_its_own_quantiles_and_rate(analysed):
    recording, chosen, analysis = analysed
    result = next(cell for cell in analysis.cells if cell.cell == chosen)
    assert [(part.job, part.operation) for part in result.parts] == [
        ("pages", "write"), ("pages", "read"), ("pages", "flush"), ("log", "write"), ("log", "flush"),
    ]  # fmt: skip
    read = result.parts[1]
    assert read.response_ns_p50.low < 82_000 < read.response_ns_p50.high * 1.03
    seconds = recording.profile.run.round_ns / 1e9
    assert read.completed_per_s.value == pytest.approx(2000 / seconds)
    assert not any(cell.parts for cell in analysis.cells if cell.cell != chosen)


def test_reads_are_rows_of_their_own_in_the_report(analysed):
    recording, _, analysis = analysed
    console = Console(file=io.StringIO(), width=120, color_system=None)
    show(Report(schema_version=SCHEMA_VERSION, recording=recording), analysis, console, full=True)
    said = console.file.getvalue()
    rows = [line for line in said.splitlines() if " read " in line and "pages" not in line]
    assert rows and "0.08" in rows[0]
    assert "A read is served here" in said


def test_reads_are_compared_and_gated_apart_from_writes(analysed):
    recording, _, analysis = analysed
    made = result_set_of(Report(schema_version=SCHEMA_VERSION, recording=recording), analysis, "base")
    reads = [figure for figure in made.figures if figure.labels.get("op") == "read"]
    assert {figure.metric for figure in reads} == {
        "part_response_p50", "part_response_p99", "part_response_p999", "part_throughput", "part_goodput",
    }  # fmt: skip
    assert all(figure.labels["job"] == "pages" for figure in reads)
    compared = compare([made], [msgspec.structs.replace(made, id="cand")], history=hours_alike(*made.figures))
    row = next(row for row in compared.rows if row.metric == "part_response_p50" and row.labels.get("op") == "read")
    assert row.verdict == "same"
    budgets = '[[budget]]\nmetric = "part_response_p50"\nwhere = { op = "read" }\nat_most = "%s"\n'
    for limit, verdict in (("0.2 ms", "pass"), ("0.01 ms", "fail")):
        assert {decided.verdict for decided in gate(made, parse(budgets % limit)).verdicts} == {verdict}


def test_a_file_without_parts_goes_on_decoding():
    report = make_recording.made_report()
    data = msgspec.json.encode(report)
    for name in (b'"parts":[],', b'"spin_ns":null'):
        assert name in data
    old = data.replace(b',"parts":[],"spin_ns":null', b"").replace(b',"parts":[]', b"")
    assert len(old) < len(data) and decode(old, "old").recording == decode(data, "new").recording
