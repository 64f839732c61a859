"""`farwrite history` and `farwrite baseline` as a person meets them."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import msgspec
import pytest

from console import environment, farwrite, words_of
from make_history import IDENTITY, figure, nights, put, put_report, report, result_set


@pytest.fixture
def place(tmp_path):
    """Where commands are typed: a directory with 60 nights, the level of C at 20 miles 9 % higher from the 42nd on."""
    nights(tmp_path / "results", 60, step_at=41)
    return tmp_path


def assert_refused(done, *said):
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Traceback" not in done.stderr
    for words in said:
        assert re.search(words, done.stderr), done.stderr


@pytest.mark.parametrize("words", ["history --help", "baseline --help", "baseline promote --help", "baseline list --help"])
def test_help_fits_80_columns_and_loads_nothing_heavy(words):
    never = "numpy numba scipy llvmlite pyroute2 plotext msgspec"
    code = (
        "import atexit, os, sys\n"
        f"never = {never!r}.split()\n"
        "atexit.register(lambda: os._exit(9) if [name for name in never if name in sys.modules] else None)\n"
        "from farwrite.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()], env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: farwrite" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("words", ["history response_p99", "baseline list"])
def test_nothing_is_compiled_to_read_what_was_measured(place, words):
    code = (
        "import sys\nfrom farwrite.cli import main\n"
        "try:\n    main()\nfinally:\n    assert not {'numba', 'scipy', 'llvmlite'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()], cwd=place, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_change_is_drawn_marked_and_told(place):
    done = farwrite("history", "response_p99", "--where", "protocol=C", "--where", "miles=20", cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "write, C, 20 miles, depth 1" in done.stdout
    assert re.search(r"▲ run-041 +2026-10-31 03:00 +0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", done.stdout)
    told = " ".join(done.stdout[done.stdout.index("▲ since run") :].split())
    assert re.match(
        r"▲ since run run-041 \(2026-10-31\): 0\.4\d\d -> 0\.53\d ms, "
        r"\+(8|9|10)\.\d % \[\+\d\.\d, \+\d+\.\d\], p < 0\.0001, worse",
        told,
    )
    assert done.stdout.count("●") >= 40  # The picture.


def test_a_change_for_the_better_says_so(tmp_path):
    nights(tmp_path / "results", 30, step_at=15, size=-0.2)
    done = farwrite("history", "response_p99", cwd=tmp_path)
    assert re.search(r"▼ since run run-015[^▼]*-\d\d\.\d %[^▼]*better", done.stdout)


def test_the_last_runs_are_shown_and_all_of_them_decide(place):
    done = farwrite("history", "response_p99", "--last", "10", cwd=place)
    assert "run-050" in done.stdout
    assert "run-049" not in done.stdout
    assert "1 earlier change not shown." in done.stdout
    assert "50 earlier runs: --last 60 lists them" in done.stdout
    assert_refused(farwrite("history", "response_p99", "--last", "0", cwd=place), "at least 1")


def test_the_document_has_every_run_and_every_change(place):
    done = farwrite("history", "response_p99", "--json", "--last", "3", cwd=place)
    document = json.loads(done.stdout)
    (series,) = document["series"]
    assert document["metric"] == "response_p99"
    assert len(series["points"]) == 60
    assert series["identity"] == IDENTITY
    assert series["unit"] == "ns"
    assert [series["points"][change["index"]]["run"] for change in series["changes"]] == ["run-041"]
    assert series["points"][0]["estimate"]["low"] < series["points"][0]["estimate"]["value"]


def test_unlike_runs_are_drawn_apart_and_the_difference_is_named(place):
    put(place / "results", result_set(70, figure(5e5), identity={**IDENTITY, "link": "ferry"}))
    done = farwrite("history", "response_p99", cwd=place)
    assert "2 kinds of runs, kept apart because they differ in link." in done.stdout
    assert "Runs of link ferry" in done.stdout
    assert "Runs of link netem" in done.stdout
    assert "this series has 1." in done.stdout


def test_many_series_are_a_line_each_and_the_way_to_one_is_named(tmp_path):
    for index in range(20):
        figures = [
            figure(4e5 * (1 + miles / 100) * (1.2 if index > 9 and miles else 1), name="write", protocol=protocol, miles=miles)
            for protocol in "AC" for miles in (0.0, 20.0, 150.0)
        ]  # fmt: skip
        put(tmp_path / "results", result_set(index, *figures))
    done = farwrite("history", "response_p99", cwd=tmp_path)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert len(re.findall(r"^[AC], \d+ miles .* 20 +[\d.]+ \[", done.stdout, re.MULTILINE)) == 6
    assert done.stdout.count("▲ +20.0 % since 2026-09-30") == 4
    words = done.stdout[done.stdout.index("  --where") :].splitlines()[0].split()
    assert words == ["--where", "protocol=C", "--where", "miles=150"]
    assert "▲ since run run-010" in farwrite("history", "response_p99", *words, cwd=tmp_path).stdout


@pytest.mark.parametrize("width", [60, 100, 200])
def test_nothing_is_wider_than_the_console(place, width):
    done = farwrite("history", "response_p99", cwd=place, COLUMNS=str(width))
    assert max(map(len, done.stdout.splitlines())) <= width


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["respons_p99"], 'did you mean "response_p99"'),
        (["lag_p99"], "no report below results has lag_p99"),
        (["response_p99", "--where", "mile=20"], 'did you mean "miles".*Its labels: name, protocol, miles, queue_depth'),
        (["response_p99", "--where", "miles=21"], r"There is miles 20\."),
        (["response_p99", "--where", "miles"], "key=value"),
        (["response_p99", "--results", "nothing"], "nothing is no directory"),
        ([], "metric requires an argument"),
    ],
)
def test_what_cannot_be_found_is_refused_with_what_there_is(place, words, said):
    assert_refused(farwrite("history", *words, cwd=place), said)


def test_a_damaged_index_is_made_anew_with_one_line_on_stderr(place):
    first = farwrite("history", "response_p99", cwd=place)
    (place / "results" / "index.sqlite").write_text("rubbish" * 1000)
    second = farwrite("history", "response_p99", cwd=place)
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert len(second.stderr.splitlines()) == 1
    assert "made anew from the reports" in second.stderr


def test_a_file_that_cannot_be_read_is_named_on_stderr(place):
    (place / "results" / "runs" / "run-000" / "sheet.json").write_text("{")
    done = farwrite("history", "response_p99", cwd=place)
    assert done.returncode == 0
    assert done.stderr.startswith("farwrite: passed over: results/runs/run-000/sheet.json")


def test_several_at_once_say_the_same(place):
    words = words_of("history", "response_p99", "--json")
    started = [
        subprocess.Popen(words, cwd=place, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(5)
    ]
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * 5
    assert not any("farwrite:" in errors for _, errors in said)
    assert len({document for document, _ in said}) == 1


def test_a_baseline_is_kept_listed_and_replaced(tmp_path):
    results = tmp_path / "results"
    for seed in (1, 2):
        put_report(results, report(seed))
    none = farwrite("baseline", "list", cwd=tmp_path)
    assert (none.returncode, none.stderr) == (0, "")
    assert "No baseline in results/baselines" in none.stdout
    first = farwrite("baseline", "promote", "run-1", "--name", "night", cwd=tmp_path)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("results/baselines/night.json: run run-1 of 2026-09-21")
    again = farwrite("baseline", "promote", "results/runs/run-2", "--name", "night", cwd=tmp_path)
    assert "replaced run run-1 of 2026-09-21" in again.stdout
    listed = farwrite("baseline", "list", "--results", results)
    assert re.search(r"night +run-2 +2026-09-22 +netem", listed.stdout)
    drawn = farwrite("history", "response_p50", "--where", "protocol=C", cwd=tmp_path)
    assert "baseline night" in drawn.stdout


def test_a_run_that_was_interrupted_is_no_baseline_unless_forced(tmp_path):
    directory = put_report(tmp_path / "results", report(1, interrupted=True))
    assert_refused(farwrite("baseline", "promote", directory, cwd=tmp_path), "it was interrupted", "--force")
    forced = farwrite("baseline", "promote", directory, "--force", cwd=tmp_path)
    assert forced.returncode == 0
    assert "kept nevertheless: it was interrupted" in forced.stdout


def test_a_baseline_of_another_kind_of_run_says_what_is_unlike(tmp_path):
    made = report(2)
    host = msgspec.structs.replace(made.recording, host={**made.recording.host, "kernel": "9.9"})
    put_report(tmp_path / "results", report(1))
    put_report(tmp_path / "results", msgspec.structs.replace(made, recording=host))
    farwrite("baseline", "promote", "run-1", cwd=tmp_path)
    done = farwrite("baseline", "promote", "run-2", cwd=tmp_path)
    assert "unlike the one it replaced in kernel: 6.1.0 -> 9.9" in done.stdout
