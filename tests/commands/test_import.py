"""`farwrite import` as a person meets it: what it prints, what it writes, and what it leaves as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from console import farwrite, fresh_farwrite
from farwrite.compare.figures import read_result_set

FILES = Path(__file__).parents[1] / "compare" / "foreign"
REFUSED = 2


def assert_refused(done, *said):
    assert done.returncode == REFUSED, done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    for words in said:
        assert words in done.stderr


@pytest.mark.parametrize("name", ["fio_json_plus.json", "hdrhistogram.hlog", "pytest_benchmark.json"])
def test_import_writes_the_sheet_that_the_file_is_read_as(tmp_path, name):
    done = fresh_farwrite("import", FILES / name, "--out", tmp_path / "sheet.json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"saved: {tmp_path / 'sheet.json'}\n")
    written, direct = read_result_set(tmp_path / "sheet.json"), read_result_set(FILES / name)
    assert written.figures == direct.figures and written.identity == direct.identity
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.json"]


def test_import_prints_the_sheet_when_no_file_is_named(tmp_path):
    printed = farwrite("import", FILES / "fio_json.json")
    assert printed.returncode == 0 and json.loads(printed.stdout)["kind"] == "fio"
    assert farwrite("import", FILES / "fio_json.json", "--out", "-").stdout == printed.stdout


def test_several_files_become_one_sheet_whose_rounds_are_the_runs(tmp_path):
    document = json.loads((FILES / "fio_json.json").read_text())
    document["timestamp"] += 60
    (tmp_path / "second.json").write_text(json.dumps(document))
    done = farwrite("import", FILES / "fio_json.json", tmp_path / "second.json")
    figures = json.loads(done.stdout)["figures"]
    assert {len(item["estimate"]["without"]) for item in figures if not item["exact"]} == {2}
    assert_refused(farwrite("import", FILES / "fio_json.json", FILES / "fio_json.json"), "the same run")
    assert_refused(farwrite("import", FILES / "fio_json.json", FILES / "hdrhistogram.hlog"), "not runs of the same thing")


def test_the_unit_of_a_histogram_log_can_be_told():
    def median(*words: str) -> float:
        figures = json.loads(farwrite("import", FILES / "hdrhistogram.hlog", *words).stdout)["figures"]
        return next(item["estimate"]["value"] for item in figures if item["metric"] == "latency_p50")

    assert median("--unit", "us") == 1000 * median("--unit", "ns") == 1000 * median()
    assert_refused(farwrite("import", FILES / "fio_json.json", "--unit", "ms"), "--unit ms")
    assert_refused(farwrite("import", FILES / "hdrhistogram.hlog", "--unit", "s"))


def test_import_overwrites_a_sheet_and_nothing_else(tmp_path):
    out, other = tmp_path / "sheet.json", tmp_path / "notes.txt"
    other.write_text("not to be lost")
    assert farwrite("import", FILES / "fio_json.json", "--out", out).returncode == 0
    assert farwrite("import", FILES / "pytest_benchmark.json", "--out", out).returncode == 0
    assert read_result_set(out).kind == "pytest-benchmark"
    assert_refused(farwrite("import", FILES / "fio_json.json", "--out", other), "notes.txt", "not overwritten")
    assert other.read_text() == "not to be lost"


def test_import_refuses_what_it_cannot_read_or_write(tmp_path):
    assert_refused(farwrite("import"), "at least one file")
    assert_refused(farwrite("import", tmp_path / "none.json"), "none.json", "No such file")
    assert_refused(farwrite("import", tmp_path), "this is a directory")
    assert_refused(farwrite("import", FILES / "README.md"), "neither a farwrite report nor")
    assert_refused(farwrite("import", FILES / "fio_json.json", "--out", tmp_path / "no" / "sheet.json"), "No such file")
    assert_refused(farwrite("import", FILES / "fio_json.json", "--out", tmp_path), "this is a directory")
    assert farwrite("import", FILES / "fio_json.json", "--out", tmp_path / "sheet.json").returncode == 0
    assert_refused(farwrite("import", tmp_path / "sheet.json"), "farwrite's own")
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.json"]
