"""The index is never the truth, unlike runs are never joined, and a baseline is not kept lightly."""

from __future__ import annotations

import gzip
import math
import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from farwrite.analysis.change import key_of
from farwrite.analysis.result import ANALYSIS_VERSION
from farwrite.base.errors import UsageError
from farwrite.base.reasons import needs
from farwrite.compare import baseline, history
from farwrite.compare.baseline import baselines, promote
from farwrite.compare.history import INDEX_NAME
from farwrite.recording import Pairing, read, save
from make_history import IDENTITY, figure, night, nights, put, put_report, report, result_set

METRIC = "response_p99"


@pytest.fixture
def results(tmp_path):
    """An empty results directory."""
    directory = tmp_path / "results"
    (directory / "runs").mkdir(parents=True)
    return directory


def values(found, index=0):
    return [point.estimate.value for point in found.series[index].points]


def look(results, *where, metric=METRIC):
    return history.history(results, metric, where)


@pytest.fixture
def reads(monkeypatch):
    """The files that are really read, as names of their runs."""
    read_files = []

    def reading(path):
        read_files.append(path.parent.name)
        return real(path)

    real = history.read_result_set
    monkeypatch.setattr(history, "read_result_set", reading)
    return read_files


# Series


def test_a_series_is_in_order_of_time_whatever_the_files_are_called(results):
    put(results, result_set(0, figure(3.0), id="a", started_utc="2026-01-03T00:00:00+00:00"))
    put(results, result_set(1, figure(1.0), id="b", started_utc="2026-01-01T12:00:00Z"))
    put(results, result_set(2, figure(2.0), id="c", started_utc="2026-01-02T01:00:00+13:00"))  # Noon of the first, UTC.
    put(results, result_set(3, figure(2.5), id="d", started_utc="2026-01-02T00:00:00"))
    assert values(look(results)) == [1.0, 2.0, 2.5, 3.0]


def test_a_run_that_does_not_say_when_it_was_stands_where_its_file_was_written(results):
    for index in (0, 2):
        put(results, result_set(index, figure(float(index))))
    path = put(results, result_set(1, figure(1.0), started_utc=""))
    seconds = history.moment(night(1), 0).timestamp()
    os.utime(path, (seconds, seconds))
    assert values(look(results)) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("field", ["host", "link", "profile"])
def test_unlike_runs_are_not_joined(results, field):
    put(results, result_set(0, figure(1.0)))
    put(results, result_set(1, figure(2.0), identity={**IDENTITY, field: "another"}))
    put(results, result_set(2, figure(3.0)))
    found = look(results)
    assert found.unlike == [field]
    assert sorted(map(tuple, (values(found, 0), values(found, 1)))) == [(1.0, 3.0), (2.0,)]


def test_another_tools_runs_are_not_joined_with_ours(results):
    put(results, result_set(0, figure(1.0)))
    put(results, result_set(1, figure(2.0), kind="fio"))
    assert {one.kind for one in look(results).series} == {"farwrite", "fio"}


def test_labels_that_are_equal_are_one_series_whole_number_or_not(results):
    put(results, result_set(0, figure(1.0, miles=20, name="write")))
    put(results, result_set(1, figure(2.0, name="write", miles=20.0)))
    assert values(look(results)) == [1.0, 2.0]


def test_a_candidate_is_unlike_its_base_and_the_base_again_is_no_further_run(results):
    for index, arm in enumerate(["base", "cand", "again"]):
        pairing = Pairing(id="x", arm=arm, what="")
        put(results, result_set(index, figure(float(index)), pairing=pairing), f"runs/ab/{arm}/sheet.json")
    put(results, result_set(5, figure(5.0)))
    found = look(results)
    assert found.unlike == ["arm"]
    assert sorted(map(tuple, (values(found, 0), values(found, 1)))) == [(0.0, 5.0), (1.0,)]


def test_a_change_is_at_the_run_that_made_it(results):
    nights(results, 60, step_at=41)
    (change,) = look(results).series[0].changes
    assert change.index == 41
    assert change.change.low < 0.09 < change.change.high


def test_what_no_verdict_may_rest_on_is_shown_and_changes_nothing(results):
    nights(results, 30)
    for index in range(30, 36):
        put(results, result_set(index, figure(1e6, withheld=["the generator was late"])))
    put(results, result_set(36, figure(None)))
    (one,) = look(results).series
    assert len(one.points) == 37
    assert one.changes == []
    assert one.points[36].estimate.warnings == [needs("p99", 368, 7)]


def test_the_index_of_a_change_counts_unsound_runs_too(results):
    nights(results, 40, step_at=25)
    put(results, result_set(3, figure(None)))
    put(results, result_set(7, figure(1e9, withheld=["late"])))
    (one,) = look(results).series
    assert [change.index for change in one.changes] == [25]


def test_a_baseline_that_is_a_copy_of_a_run_counts_once_and_lends_its_name(results):
    put(results, result_set(0, figure(1.0)))
    put(results, result_set(1, figure(2.0)))
    put(results, result_set(1, figure(2.0)), "baselines/good.json")
    put(results, result_set(1, figure(2.0)), "baselines/better.json")
    (one,) = look(results).series
    assert [(point.estimate.value, point.baselines) for point in one.points] == [(1.0, []), (2.0, ["better", "good"])]
    assert one.points[1].source == "runs/run-001/sheet.json"


def test_a_baseline_whose_run_is_gone_is_a_run(results):
    put(results, result_set(1, figure(2.0)), "baselines/good.json")
    assert values(look(results)) == [2.0]


def test_reports_and_sheets_at_any_depth_are_found(results):
    put_report(results, report(1))
    put(results, result_set(50, figure(1.0, name="write", protocol="C", miles=20.0, queue_depth=1.0)), "runs/a/b/c/sheet.json")
    found = look(results, "protocol=C")
    assert {point.run for one in found.series for point in one.points} == {"run-050", "run-1"}


def test_a_report_with_an_older_analysis_is_analysed_again(results):
    made = report(1)
    old = msgspec.to_builtins(made.analysis) | {"version": ANALYSIS_VERSION - 1, "cells": []}
    put_report(results, msgspec.structs.replace(made, analysis=old))
    expected = next(cell for cell in made.analysis.cells if cell.protocol == "C").response_ns_p99.value
    assert values(look(results, "protocol=C")) == [expected]


# --where


@pytest.fixture
def four(results):
    """Protocols A and C at 20 and 150 miles, and C at 7 on another host."""
    figures = [
        figure(1.0, name="write", protocol=protocol, miles=miles) for protocol in "AC" for miles in (20.0, 150.0)
    ]
    put(results, result_set(0, *figures))
    put(results, result_set(1, figure(1.0, name="write", protocol="C", miles=7.0), identity={**IDENTITY, "host": "4 x other"}))
    return results


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ([], 5), (["protocol=C"], 3), (["miles=20"], 2), (["miles=20.0"], 2), (["miles = 20", "protocol=C"], 1),
        (["host=other"], 1), (["host=4 X OTHER"], 1), (["kind=farwrite"], 5), (["link=netem", "miles=2e1"], 2),
    ],
)  # fmt: skip
def test_where_keeps_the_series_that_have_all_of_it(four, where, count):
    assert len(look(four, *where).series) == count


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("mile=20", r'no label "mile" \(did you mean "miles"\?\). Its labels: name, protocol, miles; of runs: host, kind, link'),
        ("protocol=D", r"no series of response_p99 has it. There is protocol A, C"),
        ("miles=twenty", r"There is miles 7, 20, 150\."),
        ("protocol=c", r"There is protocol A, C"),
        ("miles", r"write it as key=value"),
        ("=20", r"write it as key=value"),
    ],
)
def test_a_where_that_finds_nothing_says_what_there_is(four, where, said):
    with pytest.raises(UsageError, match=said):
        look(four, where)


def test_labels_that_no_series_has_together_are_named_together(four):
    with pytest.raises(UsageError, match="has protocol=A and miles=7 together"):
        look(four, "protocol=A", "miles=7")


def test_a_metric_that_does_not_exist_names_the_nearest(four):
    with pytest.raises(UsageError, match=r'there is no metric "respons_p99" \(did you mean "response_p99"\?\)'):
        look(four, metric="respons_p99")


def test_a_metric_that_no_report_has_is_told_from_one_that_does_not_exist(four):
    with pytest.raises(UsageError, match=r"no report below .* has lag_p99: age of the oldest write"):
        look(four, metric="lag_p99")


def test_a_directory_without_reports_or_none_at_all_is_refused(results, tmp_path):
    with pytest.raises(UsageError, match="there is no readable report below"):
        look(results)
    with pytest.raises(UsageError, match="is no directory"):
        look(tmp_path / "nothing")


# The index


def test_a_second_use_reads_no_report(results, reads):
    nights(results, 3)
    first = look(results)
    assert sorted(reads) == ["run-000", "run-001", "run-002"]
    reads.clear()
    assert look(results) == first
    assert reads == []


def test_only_what_changed_is_read_again(results, reads):
    nights(results, 3)
    look(results)
    reads.clear()
    put(results, result_set(1, figure(7.0), notes := figure(8.0, metric="throughput")))
    put(results, result_set(3, figure(9.0)))
    shutil.rmtree(results / "runs" / "run-000")
    assert values(look(results))[0] == 7.0
    assert values(look(results))[2] == 9.0
    assert sorted(reads) == ["run-001", "run-003"]
    assert values(look(results, metric="throughput")) == [notes.estimate.value]


def test_a_report_that_was_replaced_within_one_tick_of_the_clock_is_noticed(results):
    path = put(results, result_set(0, figure(1.0)))
    look(results)
    before = path.stat()
    beside = put(results, result_set(0, figure(2.0)), "runs/run-000/new")
    os.utime(beside, ns=(before.st_atime_ns, before.st_mtime_ns))
    beside.replace(path)
    after = path.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    assert values(look(results)) == [2.0]


@pytest.mark.parametrize("seed", range(6))
def test_the_index_says_what_a_new_one_would_whatever_happened_to_the_files(results, seed, tmp_path):
    dice = random.Random(seed)
    put(results, result_set(99, figure(1.0)))
    for _ in range(12):
        for _ in range(dice.randrange(4)):
            index = dice.randrange(8)
            place = dice.choice([f"runs/run-{index}/sheet.json", f"baselines/b{index}.json"])
            act = dice.randrange(5)
            if act < 3:
                put(results, result_set(index, figure(dice.random(), miles=float(dice.randrange(2)))), place)
            elif act == 3:
                (results / place).unlink(missing_ok=True)
            else:
                (results / place).parent.mkdir(parents=True, exist_ok=True)
                (results / place).write_text("{")
        kept = look(results)
        aside = results / INDEX_NAME
        aside.rename(tmp_path / "aside")
        assert look(results) == kept
        (tmp_path / "aside").replace(aside)


def spoil_text(path):
    path.write_text("this is no database, and it is long enough to be told from an empty one" * 100)


def spoil_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_pages(path):
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes(len(data) - 100))


def other_database(path):
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.executescript("CREATE TABLE about (x INT); INSERT INTO about VALUES (1); CREATE TABLE figure (y TEXT);")


def older(path):
    with closing(sqlite3.connect(path)) as index:
        index.executescript("UPDATE about SET stamp = 'farwrite 0.0'; ALTER TABLE figure DROP COLUMN warnings;")


@pytest.mark.parametrize("spoil", [spoil_text, spoil_half, spoil_pages, other_database, older])
def test_an_index_that_is_damaged_older_or_not_ours_is_made_anew_with_one_line(results, spoil):
    nights(results, 5)
    first = look(results)
    spoil(results / INDEX_NAME)
    second = look(results)
    assert second.series == first.series
    assert len(second.notices) == 1
    assert "made anew from the reports" in second.notices[0]
    assert look(results) == first


def test_an_empty_file_becomes_the_index(results):
    nights(results, 2)
    (results / INDEX_NAME).touch()
    assert look(results).notices == []


def test_an_index_that_cannot_be_kept_is_kept_in_memory(results):
    expected = nights(results, 3)
    (results / INDEX_NAME).mkdir()
    found = look(results)
    assert values(found) == expected
    assert len(found.notices) == 1
    assert "kept in memory" in found.notices[0]


def test_an_index_that_another_process_holds_is_copied_and_brought_up_to_date_in_memory(results, monkeypatch, reads):
    nights(results, 3)
    look(results)
    reads.clear()
    put(results, result_set(3, figure(9.0)))
    monkeypatch.setattr(history, "BUSY_S", 0.05)
    with closing(sqlite3.connect(results / INDEX_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        found = look(results)
        other.execute("ROLLBACK")
    assert values(found)[3] == 9.0
    assert set(reads) == {"run-003"}
    assert "locked" in found.notices[0]


def test_a_compressed_file_is_read_as_the_plain_one_and_counts_once_where_both_are(results):
    expected = nights(results, 3)
    plain = sorted((results / "runs").glob("*/sheet.json"))[1]
    packed = plain.with_name("sheet.json.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert values(look(results)) == expected  # Both are there.
    plain.unlink()
    for _ in range(2):
        found = look(results)
        assert values(found) == expected and not found.notices
    packed.write_bytes(packed.read_bytes()[:-9])
    found = look(results)
    assert values(found) == [expected[0], expected[2]] and "ends early" in found.notices[0]


def test_a_file_that_cannot_be_read_is_named_each_time_and_costs_no_other(results):
    expected = nights(results, 2)
    (results / "runs" / "broken").mkdir()
    (results / "runs" / "broken" / "report.json").write_text('{"schema_version": 1, "recording": {')
    (results / "runs" / "gone").mkdir()
    (results / "runs" / "gone" / "report.json").symlink_to("nowhere")
    for _ in range(2):
        found = look(results)
        assert values(found) == expected
        assert len(found.notices) == 2
        assert any("broken/report.json" in notice for notice in found.notices)
        assert any("gone/report.json: No such file" in notice for notice in found.notices)


@pytest.mark.parametrize("fault", [ZeroDivisionError("x"), OverflowError("y"), UnicodeError("z")])
def test_a_file_that_our_own_code_cannot_cope_with_costs_no_other(results, monkeypatch, fault):
    expected = nights(results, 2)
    bad = put(results, result_set(9, figure(1.0)))
    real = history.read_result_set

    def reading(path):
        if path == bad:
            raise fault
        return real(path)

    monkeypatch.setattr(history, "read_result_set", reading)
    found = look(results)
    assert values(found) == expected
    assert type(fault).__name__ in found.notices[0]


def test_numbers_beyond_what_the_index_can_hold_cost_no_other_report(results):
    expected = nights(results, 2)
    huge = msgspec.structs.replace(figure(1.0), estimate=msgspec.structs.replace(figure(1.0).estimate, count=1 << 80))
    path = put(results, result_set(9))
    path.write_bytes(msgspec.json.encode(result_set(9)).replace(b'"figures":[]', b'"figures":[' + encoded(huge) + b"]"))
    assert values(look(results)) == expected


def encoded(one):
    """A figure whose count is more than msgspec would write."""
    small = msgspec.structs.replace(one, estimate=msgspec.structs.replace(one.estimate, count=12345))
    return msgspec.json.encode(small).replace(b"12345", str(one.estimate.count).encode())


def test_a_file_name_that_is_no_text_is_indexed_all_the_same(results):
    put(results, result_set(0, figure(1.0)), os.fsdecode(b"runs/\xff\xfe/sheet.json"))
    found = look(results)
    assert values(found) == [1.0]
    assert found.series[0].points[0].source == "runs/\\xff\\xfe/sheet.json"
    msgspec.json.encode(found)


def test_a_long_reading_is_told_about(results, monkeypatch):
    nights(results, 3)
    monkeypatch.setattr(history, "PATIENCE_S", -1.0)
    told = []
    monkeypatch.setattr(history, "bar", lambda: Telling(told))
    look(results)
    assert any("runs/run-00" in text for text in told)


class Telling:
    """A progress bar that writes down what it is told."""

    def __init__(self, told):
        self.told = told

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        pass

    def expect(self, seconds):
        assert seconds >= 0

    def doing(self, text):
        self.told.append(text)

    def did(self, seconds):
        assert seconds >= 0


# Baselines


def test_a_baseline_is_the_report_analysed_by_this_farwrite(results):
    made = report(1)
    stale = msgspec.structs.replace(made, analysis={"version": ANALYSIS_VERSION, "cells": "edited"})
    done = promote(str(put_report(results, stale)), None, results, force=False)
    assert done.kept.path == results / "baselines" / "made-up.json"
    assert (done.against, done.replaced, done.unlike) == ([], None, [])
    kept = read(done.kept.path)
    assert kept.recording == made.recording
    assert kept.analysis == msgspec.to_builtins(made.analysis)
    assert [path.name for path in done.kept.path.parent.iterdir()] == ["made-up.json"]


@pytest.mark.parametrize("word", ["{results}/runs/run-1", "{results}/runs/run-1/report.json", "run-1"])
def test_a_run_is_named_by_its_file_its_directory_or_its_id(results, word):
    put_report(results, report(1))
    assert promote(word.format(results=results), "kept", results, force=False).kept.recording.id == "run-1"


def test_a_run_that_does_not_exist_names_the_nearest(results):
    put_report(results, report(1))
    with pytest.raises(UsageError, match=r'nor a run below .*runs \(did you mean "run-1"\?\)'):
        promote("run_1", None, results, force=False)


def with_audit(made, protocol, status="ok", **audit):
    """The report with other audits in the first round of a protocol's cell."""
    recording = made.recording
    cell = next(cell.id for cell in recording.cells if cell.protocol == protocol)
    rounds = list(recording.rounds)
    index = next(index for index, item in enumerate(rounds) if item.cell == cell)
    rounds[index] = msgspec.structs.replace(
        rounds[index], status=status, audit=msgspec.structs.replace(rounds[index].audit, **audit)
    )
    return msgspec.structs.replace(made, recording=msgspec.structs.replace(recording, rounds=rounds))


def late(made):
    """The report as one of open loops, with a generator that was late all the time."""
    rounds = [msgspec.structs.replace(item, late=item.slices[0].response) for item in made.recording.rounds]
    cells = [msgspec.structs.replace(cell, arrival="poisson") for cell in made.recording.cells]
    return msgspec.structs.replace(made, recording=msgspec.structs.replace(made.recording, rounds=rounds, cells=cells))


def busy(made):
    """The report of a machine of which the host took a third."""
    rounds = [msgspec.structs.replace(item, steal=0.33) for item in made.recording.rounds]
    return msgspec.structs.replace(made, recording=msgspec.structs.replace(made.recording, rounds=rounds))


def voided(made):
    """The report without one good round of protocol A."""
    rounds = [
        msgspec.structs.replace(item, status="void") if "-A-" in item.cell else item for item in made.recording.rounds
    ]
    return msgspec.structs.replace(made, recording=msgspec.structs.replace(made.recording, rounds=rounds))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda made: report(1, interrupted=True), "it was interrupted"),
        (lambda made: with_audit(made, "C", lost=2), "write-C-20: 2 acknowledged writes lost, 0 damaged"),
        (lambda made: with_audit(made, "C", "void", lost=2), "write-C-20: 2 acknowledged writes lost"),
        (lambda made: with_audit(made, "A", damaged=1), "write-A-20: 0 acknowledged writes lost, 1 damaged"),
        (voided, "write-A-20: not one good round"),
        (late, "write-C-20: no verdict may rest on it: up to"),
        (busy, "write-C-20: no verdict may rest on it: host-noise: the host took 33.0%"),
    ],
)
def test_what_speaks_against_a_baseline_is_named_and_can_be_overruled(results, spoil, reason):
    directory = put_report(results, spoil(report(1)))
    with pytest.raises(UsageError, match=f"is not kept as a baseline:(.|\n)*{reason}(.|\n)*--force"):
        promote(str(directory), None, results, force=False)
    assert not (results / "baselines").exists()
    done = promote(str(directory), None, results, force=True)
    assert any(reason in one for one in done.against)
    assert done.kept.path.is_file()


def test_writes_that_protocol_a_lost_in_a_void_round_do_not_speak_against_a_baseline(results):
    directory = put_report(results, with_audit(report(1), "A", "void", lost=5))
    assert promote(str(directory), None, results, force=False).against == []


def test_what_a_baseline_replaces_is_named_with_what_was_unlike(results):
    promote(str(put_report(results, report(1))), None, results, force=False)
    other = report(2)
    lab = msgspec.structs.replace(other.recording.lab, link="ferry")
    changed = msgspec.structs.replace(other, recording=msgspec.structs.replace(other.recording, lab=lab))
    done = promote(str(put_report(results, changed)), None, results, force=False)
    assert (done.replaced.recording.id, done.replaced.recording.started_utc) == ("run-1", night(1))
    assert done.unlike == ["link: netem -> ferry"]
    assert read(done.kept.path).recording.id == "run-2"


def test_a_baseline_that_cannot_be_read_can_be_replaced(results):
    (results / "baselines").mkdir()
    (results / "baselines" / "made-up.json").write_text("rubbish")
    done = promote(str(put_report(results, report(1))), None, results, force=False)
    assert done.replaced is None
    assert "is not a farwrite report" in done.unreadable


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "-x", "a b", "x\n", "\udcff", ".json"])
def test_a_baselines_name_is_a_plain_file_name(results, name):
    directory = put_report(results, report(1))
    with pytest.raises(UsageError, match="cannot name a baseline"):
        promote(str(directory), name, results, force=False)


def test_a_baseline_that_cannot_be_written_leaves_the_old_one(results, monkeypatch):
    directory = put_report(results, report(1))
    old = promote(str(directory), None, results, force=False).kept.path.read_bytes()
    other = put_report(results, report(2))

    def refuse(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(UsageError, match="No space left on device"):
        promote(str(other), None, results, force=False)
    assert [path.read_bytes() for path in (results / "baselines").iterdir()] == [old]


def test_baselines_are_listed_by_name_and_those_that_cannot_be_read_are_named(results):
    (results / "baselines").mkdir()
    for seed, name in ((2, "a"), (1, "b")):
        save(report(seed), results / "baselines" / f"{name}.json")
    (results / "baselines" / "c.json").write_text("[]")
    kept, unreadable = baselines(results)
    assert [(one.name, one.recording.id) for one in kept] == [("a", "run-2"), ("b", "run-1")]
    assert len(unreadable) == 1
    assert "c.json" in unreadable[0]
    assert baseline.baselines(results / "nothing") == ([], [])


# What runs differ by


def with_rounds(value, **labels):
    one = figure(value, **labels)
    rounds = [value * factor for factor in (0.99, 1.0, 1.01)]
    return msgspec.structs.replace(one, estimate=msgspec.structs.replace(one.estimate, by_round=rounds, without=rounds))


def test_earlier_runs_are_those_that_are_alike_in_everything_and_neither_compared_nor_interrupted(tmp_path):
    for index, value in enumerate((1e6, 1.1e6, 1.2e6, 1.3e6, 5e6, 6e6)):
        put(tmp_path, result_set(index, with_rounds(value), interrupted=index == 4))
    put(tmp_path, result_set(3, with_rounds(1.3e6)), "baselines/night.json")  # A copy of a run.
    put(tmp_path, result_set(7, with_rounds(9e6), identity={**IDENTITY, "host": "another"}))
    put(tmp_path, result_set(8, with_rounds(9e6), pairing=Pairing(id="x", arm="cand", what="")))
    put(tmp_path, result_set(9, with_rounds(9e6), pairing=Pairing(id="x", arm="again", what="")))
    compared = [result_set(5, with_rounds(6e6)), result_set(6, with_rounds(7e6))]
    found = history.earlier_runs(tmp_path, compared[0], compared)
    assert (found.about.runs, found.about.first_utc, found.about.last_utc) == (4, night(0), night(3))
    levels, = found.levels.values()
    assert sorted(level.value for level in levels) == pytest.approx([
        math.log(value) + sum(map(math.log, (0.99, 1.01))) / 3 for value in (1e6, 1.1e6, 1.2e6, 1.3e6)
    ])  # fmt: skip
    assert found.between(key_of(compared[0].figures[0])).runs == 4
    assert "4 earlier runs like these in" in found.about.text and "2026-09-20 to 2026-09-23" in found.about.text


def test_a_figure_that_no_verdict_may_rest_on_is_in_no_spread(tmp_path):
    for index in range(4):
        late = ["the generator was late"] if index == 1 else ()
        kept = with_rounds(1e6)
        put(tmp_path, result_set(index, msgspec.structs.replace(kept, withheld=list(late)), with_rounds(2e6, miles=60.0)))
    like = result_set(9, with_rounds(1e6), with_rounds(2e6, miles=60.0))
    found = history.earlier_runs(tmp_path, like, [like])
    assert [len(found.levels[key_of(item)]) for item in like.figures] == [3, 4]


def test_where_there_are_no_results_there_are_no_earlier_runs(tmp_path):
    like = result_set(0, with_rounds(1e6))
    found = history.earlier_runs(tmp_path / "none", like, [like])
    assert found.about.runs == 0 and found.between(key_of(like.figures[0])) is None
    assert "no earlier run like these in" in found.about.text
