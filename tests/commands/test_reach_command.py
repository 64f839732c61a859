"""`farwrite reach`, `sweep` and what runs over Dask, as a person types them: on real labs, as short as they can be."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from contextlib import contextmanager

import pytest
from test_command import assert_refused

from console import farwrite, fresh_farwrite
from farwrite.base.physics import miles_of
from farwrite.recording import read

pytestmark = pytest.mark.lab

# Half a second of load a cell; steal and a missed link must not decide a test of the command line.
QUICK = [
    "--set", "lab.durability=memory", "--set", "run.round=100ms", "--set", "run.steal_max=1.0", "--set", "run.survey_echoes=10",
    "--set", "run.retries=5",
]  # fmt: skip
DONE, INCONCLUSIVE = 0, 4


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A real and very short search: (finished command, its directory)."""
    directory = tmp_path_factory.mktemp("reach") / "run"
    return farwrite("reach", "--p50", "8 ms", "--minutes", "0.1", *QUICK, "--out", directory), directory


def test_a_search_answers_or_says_why_not(searched):
    done, directory = searched
    assert done.returncode in (DONE, INCONCLUSIVE), done.stderr
    report = read(directory)
    cells, found = report.recording.cells, report.analysis["reach"]
    assert len(cells) >= 3
    assert all(0 <= cell.miles <= miles_of(8e6) for cell in cells)
    assert all(item.audit and (item.audit.lost, item.audit.damaged) == (0, 0) for item in report.recording.rounds)
    assert "8 ms at p50, write under C" in done.stdout
    if found["unknown"]:
        assert done.returncode == INCONCLUSIVE and "unknown" in done.stdout
        return
    assert done.returncode == DONE
    assert "miles [" in done.stdout and "km [" in done.stdout and "route factor 2.1" in done.stdout
    for item in found["miles"]:
        miles = item["miles"]
        assert 0 < miles["low"] <= miles["value"] <= miles["high"] <= miles_of(8e6, item["route_factor"])


def test_a_search_is_a_report_like_any_other(searched, tmp_path):
    done, directory = searched
    shown = farwrite("show", directory)
    assert shown.returncode == DONE
    assert shown.stdout == done.stdout
    assert farwrite("html", directory, "--out", tmp_path / "page.html").returncode == DONE
    assert "8 ms at p50" in (tmp_path / "page.html").read_text()
    compared = farwrite("compare", directory, directory, "--json")
    assert compared.returncode == DONE, compared.stderr
    budgets = tmp_path / "budgets.toml"
    budgets.write_text('title = "t"\n[[budget]]\nname = "none lost"\nmetric = "lost_writes"\nat_most = 0\n')
    gated = farwrite("gate", directory, "--budgets", budgets)
    assert gated.returncode == DONE, gated.stdout + gated.stderr


def test_a_search_that_is_over_goes_on_as_a_run_does_and_measures_no_more(searched, tmp_path):
    _, directory = searched
    before = (directory / "cells.jsonl").read_bytes()
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "cells.jsonl").write_bytes(before)
    done = farwrite("run", "--resume", copy)
    assert done.returncode in (DONE, INCONCLUSIVE), done.stderr
    assert (copy / "cells.jsonl").read_bytes().startswith(before)
    assert {cell.id for cell in read(directory).recording.cells} <= {cell.id for cell in read(copy).recording.cells}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], r"--p99 \"4 ms\" \(reach.p99\), or --p50"),
        (["--p99", "4"], r"--p99 \(reach.p99\): \"4\" lacks a unit"),
        (["--p99", "4 ms", "--depth", "1,2"], "one cell under one protocol"),
        (["--p99", "4 ms", "--protocol", "local"], "no far site"),
        (["--p99", "4 ms", "--depth", "1", "--set", "cell.queue_depth=2"], "cell.queue_depth, and so does --set"),
        (["--p99", "4 ms", "--resume", "nowhere"], "it goes with --json"),
        (["--p99", "4 ms", "--minutes", "0"], "reach.time"),
        (["--p99", "4 ms", "--set", "lab.far_host=ssh://somewhere"], "no distance is searched for"),
    ],
)
def test_a_question_that_cannot_be_is_refused(words, said, tmp_path):
    assert_refused(farwrite("reach", *words, cwd=tmp_path), said)
    assert list(tmp_path.iterdir()) == []


GRID = ["--miles", "300,400", "--depth", "1,4", "--minutes", "0.05", *QUICK]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A real and very short sweep: (finished command, its directory)."""
    directory = tmp_path_factory.mktemp("sweep") / "run"
    return farwrite("sweep", *GRID, "--out", directory, NO_COLOR="1"), directory


def test_a_sweep_is_one_recording_and_a_heat_map(swept):
    done, directory = swept
    assert done.returncode == DONE, done.stderr
    made = read(directory).recording
    assert [cell.id for cell in made.cells] == ["write-qd1-C-300", "write-qd1-C-400", "write-qd4-C-300", "write-qd4-C-400"]
    good = {(item.cell, item.index) for item in made.rounds if item.status == "ok"}
    assert all({(cell.id, index) for index in range(3)} & good for cell in made.cells)
    assert "\x1b" not in done.stdout, "NO_COLOR"
    lines = done.stdout.splitlines()
    head = next(number for number, line in enumerate(lines) if line.split() == ["miles", "300", "400"])
    assert [line.split()[:2] for line in lines[head + 1 : head + 3]] == [["write-qd1", "C"], ["write-qd4", "C"]]
    assert max(map(len, lines)) <= 80


def test_a_sweeps_page_has_its_heat_map(swept, tmp_path):
    _, directory = swept
    assert farwrite("html", directory, "--out", tmp_path / "page.html").returncode == DONE
    page = (tmp_path / "page.html").read_text()
    assert 'data-chart="heat"' in page and '"heatmap"' in page


def test_a_sweep_is_continued_from_its_journal(swept, tmp_path):
    _, directory = swept
    lines = (directory / "cells.jsonl").read_bytes().splitlines(keepends=True)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "cells.jsonl").write_bytes(b"".join(lines[:4]))
    done = farwrite("sweep", "--resume", copy)
    assert done.returncode == DONE, done.stderr
    assert (copy / "cells.jsonl").read_bytes().startswith(b"".join(lines[:4]))
    made = read(copy).recording
    keys = [(item.cell, item.index, item.attempt) for item in made.rounds]
    assert len(set(keys)) == len(keys)
    assert {item.cell for item in made.rounds} == {cell.id for cell in made.cells}


# Over Dask.


CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    options = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1")
    with LocalCluster(**options) as made:
        print(made.scheduler_address, flush=True)
        sys.stdin.read()
"""


@contextmanager
def cluster(directory):
    """Two workers of one thread each, on loopback, without a dashboard; in a process of its own, because what Dask brings along
    changes how exceptions are pickled, and leaves children behind."""
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("distributed is not installed")
    script = directory / "cluster.py"
    script.write_text(CLUSTER)
    with subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as made:
        try:
            yield made.stdout.readline().strip()
        finally:
            made.stdin.close()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("cluster")) as address:
        yield address


def test_a_sweep_over_two_workers_is_merged_into_one_recording(scheduler, tmp_path):
    directory = tmp_path / "run"
    done = fresh_farwrite("sweep", *GRID, "--set", "run.rounds=1", "--dask", scheduler, "--out", directory)
    assert done.returncode in (DONE, INCONCLUSIVE), done.stderr  # Two labs share this machine: a round may be void.
    made = read(directory).recording
    rows = [{cell.rpartition("-")[0] for cell in worker.cells} for worker in made.workers]
    assert sorted(map(sorted, rows)) == [["write-qd1-C"], ["write-qd4-C"]], "all distances of a workload on one machine"
    assert {cell for worker in made.workers for cell in worker.cells} == {cell.id for cell in made.cells}
    assert all(worker.host["kernel"] and worker.lab.link for worker in made.workers)
    assert {item.cell for item in made.rounds} == {cell.id for cell in made.cells}
    assert {item.worker for item in made.floors} == {0, 1}
    assert any("share a machine" in note for note in made.notes)
    assert farwrite("show", directory).stdout == done.stdout
    assert "machine 2 measured write-qd" in farwrite("show", directory, "--full").stdout

    # Cut off after its first rounds: what is complete stays with its machine, what is not is measured anew, by one machine.
    lines = (directory / "cells.jsonl").read_bytes().splitlines(keepends=True)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "cells.jsonl").write_bytes(b"".join(lines[:5]))
    assert_refused(farwrite("run", "--resume", copy), "--resume and --dask")
    again = fresh_farwrite("sweep", "--resume", copy, "--dask", scheduler)
    assert again.returncode in (DONE, INCONCLUSIVE), again.stderr
    made = read(copy).recording
    keys = [(item.cell, item.index, item.attempt) for item in made.rounds]
    assert len(set(keys)) == len(keys)
    assert {item.cell for item in made.rounds} == {cell.id for cell in made.cells}


def test_seeds_are_spread_over_workers_and_tell_the_same_stories(scheduler):
    there = fresh_farwrite("simulate", "--seeds", "8", "--from", "5", "--json", "--dask", scheduler)
    assert there.returncode == DONE, there.stderr
    here = json.loads(farwrite("simulate", "--seeds", "8", "--from", "5", "--json").stdout)
    assert json.loads(there.stdout) == here


def test_a_scheduler_that_is_not_there_is_named_and_nothing_is_begun(tmp_path):
    assert_refused(farwrite("sweep", *GRID, "--dask", "localhost", cwd=tmp_path), "tcp://127.0.0.1:8786")
    done = fresh_farwrite("simulate", "--seeds", "8", "--dask", "tcp://127.0.0.1:9")
    assert_refused(done, "connect to the Dask scheduler at tcp://127.0.0.1:9.*dask worker", code=6)


def test_without_the_extra_its_name_is_said(tmp_path):
    (tmp_path / "distributed.py").write_text("raise ImportError('no module named distributed')\n")
    done = fresh_farwrite("simulate", "--seeds", "8", "--dask", "tcp://127.0.0.1:9", PYTHONPATH=str(tmp_path))
    assert_refused(done, r"farwrite\[dask\]")
