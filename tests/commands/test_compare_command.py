"""`farwrite compare` as a person meets it: which files it takes, what it prints, what it refuses, what it never loads."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from functools import cache

import msgspec
import pytest

from console import ROOT, assert_refused, document_of, document_text, environment, farwrite
from farwrite.analysis.change import Comparison
from farwrite.recording import SCHEMA_VERSION, Pairing, save
from make_recording import changed, made_report

REFUSED, UNFIT = 2, 6
BASELINE = ROOT / "results" / "baselines" / "limits.json"

FEW = ("distance.miles=[0, 60, 150]", "run.round=400 ms", 'cell.protocols=["C"]', "drill.kills=0")


@cache
def synthetic(seed=1, arm=None, link="netem", **truth):
    report = made_report(changes=FEW, seed=seed, slices=4, link=link, **truth)
    if arm:
        pairing = Pairing(id="experiment", arm=arm, what="made up")
        report = changed(report, recording=changed(report.recording, pairing=pairing))
    return report


def put(directory, **which):
    directory.mkdir(parents=True)
    save(synthetic(**which), directory / "report.json")
    return directory


@pytest.fixture
def two(tmp_path):
    """A base, and a candidate that takes a fifth more round trips."""
    put(tmp_path / "base")
    put(tmp_path / "cand", seed=2, k=1.2)
    return tmp_path


@pytest.fixture
def earlier(two):
    """A results directory with four earlier runs of the base."""
    for seed in (11, 12, 13, 14):
        put(two / "results" / "runs" / f"run-{seed}", seed=seed)
    return two / "results"


@pytest.fixture
def experiment(tmp_path):
    """The directory of an A/B experiment."""
    for arm, seed, k in (("base", 1, 1.0), ("cand", 2, 1.2), ("again", 3, 1.0)):
        put(tmp_path / "ab" / arm, arm=arm, seed=seed, k=k)
    return tmp_path / "ab"


def document(*words, **where):
    done = farwrite("compare", *words, "--json", **where)
    assert (done.returncode, done.stderr) == (0, "")
    return msgspec.json.decode(done.stdout, type=Comparison)


# What is printed


@pytest.mark.parametrize("columns", [80, 120])
def test_two_reports_are_compared_and_getting_slower_is_no_failure(two, earlier, columns):
    done = farwrite("compare", two / "base", two / "cand" / "report.json", "--results", earlier, COLUMNS=str(columns))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"\d+ slower, .* figures; the worst: ", done.stdout)
    assert "✘ slower" in done.stdout
    assert "from what 4 earlier runs like these in" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= columns


def test_without_earlier_runs_two_reports_differ_and_nothing_is_called_slower(two):
    done = farwrite("compare", two / "base", two / "cand", "--results", two / "results", cwd=two)
    words = " ".join(done.stdout.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert "≠ differs" in words and "slower" not in words and "of these two runs only" in words
    assert "no earlier run like these in" in words and "a change may be of the hour" in words
    found = document(two / "base", two / "cand", "--results", two / "results")
    assert found.earlier_runs.runs == 0 and not any(row.runs for row in found.rows)
    assert {row.verdict for row in found.rows if not row.counted} <= {"differs", "alike", "unresolved", "same"}


def test_a_run_that_is_compared_is_none_of_the_earlier_ones(two, earlier):
    put(earlier / "runs" / "base again", seed=1)
    put(earlier / "runs" / "unlike", seed=15, link="ferry")
    assert document(two / "base", two / "cand", "--results", earlier).earlier_runs.runs == 4


def test_the_brief_form_is_shorter(two, earlier):
    brief = farwrite("compare", two / "base", two / "cand", "--brief", "--results", earlier).stdout
    assert "✘ slower" in brief
    assert "= same" not in brief
    assert len(brief) < len(farwrite("compare", two / "base", two / "cand", "--results", earlier).stdout)


def test_a_report_may_be_compared_with_itself(two):
    done = farwrite("compare", two / "base", two / "base")
    assert (done.returncode, done.stderr) == (0, "")
    assert "No change found" in done.stdout


def test_a_comparison_is_csv_or_markdown_where_that_is_asked_for(two):
    words = ["compare", two / "base", two / "cand"]
    rows = farwrite(*words, "--csv")
    assert (rows.returncode, rows.stderr) == (0, "") and rows.stdout.startswith("metric,name,")
    table = farwrite(*words, "--markdown")
    assert (table.returncode, table.stderr) == (0, "") and "\n| figure | first | second |" in table.stdout
    assert farwrite(*words, "--markdown", "--csv").returncode == REFUSED


def test_the_shipped_baseline_can_be_compared():
    done = farwrite("compare", BASELINE, BASELINE, "--brief")
    assert (done.returncode, done.stderr) == (0, "")
    assert "No change found" in done.stdout


def test_in_a_pipe_there_are_no_escape_codes_and_no_color_is_obeyed(two, earlier):
    words = ("compare", two / "base", two / "cand", "--brief", "--results", earlier)
    coloured = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|9[0-7]|38)\b")
    assert "\x1b" not in farwrite(*words).stdout
    assert coloured.search(farwrite(*words, FORCE_COLOR="1").stdout)
    assert not coloured.search(farwrite(*words, FORCE_COLOR="1", NO_COLOR="1").stdout)


def test_the_document_is_the_comparison(two, earlier):
    found = document(two / "base", two / "cand", "--results", earlier)
    assert (found.base, found.cand) == ([str(two / "base" / "report.json")], [str(two / "cand" / "report.json")])
    assert found.unit_of_replication == "rounds"
    [row] = [row for row in found.rows if row.name == "response_p50 of write, C, 150 miles, depth 1"]
    assert row.verdict == "slower" and row.runs == found.earlier_runs.runs == 4
    assert 0.1 < row.change.low < row.change.value < row.change.high < 0.25
    assert msgspec.json.decode(msgspec.json.encode(found), type=Comparison) == found


# Which files are meant


def test_several_runs_a_side_are_compared_by_runs(tmp_path):
    for seed in (1, 2, 3):
        put(tmp_path / "old" / f"run-{seed}", seed=seed)
        put(tmp_path / "new" / f"run-{seed}", seed=10 + seed)
    (tmp_path / "old" / "notes").mkdir()
    by_directory = document(tmp_path / "old", tmp_path / "new")
    assert by_directory.unit_of_replication == "runs"
    assert [len(by_directory.base), len(by_directory.cand)] == [3, 3]
    words = [word for seed in (1, 2, 3) for word in ("--base", tmp_path / "old" / f"run-{seed}")]
    words += [word for seed in (1, 2, 3) for word in ("--cand", tmp_path / "new" / f"run-{seed}")]
    assert document(*words) == by_directory
    assert_refused(farwrite("compare", tmp_path / "old", tmp_path / "new" / "run-1"), "one each, or several each")


def test_an_experiment_alone_is_its_arms_with_its_own_noise_floor(experiment):
    found = document(experiment)
    assert found.unit_of_replication == "pairs"
    assert found.floor_from == "the base measured twice side by side"
    assert found == document(experiment / "base", experiment / "cand" / "report.json")
    assert found == document(experiment / "base", experiment / "cand", "--again", experiment / "again")


def test_a_twin_that_is_of_another_experiment_is_not_taken(experiment):
    (experiment / "again" / "report.json").unlink()
    save(synthetic(seed=3), experiment / "again" / "report.json")
    assert document(experiment).floor_from != "the base measured twice side by side"
    assert document(experiment / "cand", experiment / "base").floor_from != "the base measured twice side by side"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("base", ["alone is nothing to compare"]),
        ("", ["no reports: give BASE and CAND"]),
        ("base cand base", ["3 reports"]),
        ("base --base cand --cand cand", ["belongs to neither side"]),
        ("--base base", ["--cand is missing"]),
        ("--cand base", ["--base is missing"]),
        ("base nothing.json", ["nothing.json: No such file"]),
        ("base empty", ["empty is a directory without a report.json"]),
        ("base ab", ["ab is an A/B experiment", "ab/cand"]),
        ("base cand --margin 0", ['--margin "0" is no share']),
        ("base cand --margin 5", ["no share between 0 and 1", '"5 %" or 0.05']),
        ("base cand --margin much", ["no share"]),
        ("base cand --margin nan%", ["no share"]),
        ("base cand --allow-mismatch hots", ["hots", 'did you mean "host"']),
        ("base cand --breif", ["--breif"]),
    ],
)
def test_words_that_make_no_sense_are_refused(two, words, said):
    (two / "empty").mkdir()
    for arm in ("base", "cand"):
        put(two / "ab" / arm, arm=arm)
    assert_refused(farwrite("compare", *shlex.split(words), cwd=two), *said)


@pytest.mark.parametrize("text", ["20 %", "20%", "0.2"])
def test_a_margin_is_a_share(two, text):
    assert document(two / "base", two / "cand", "--margin", text).margin_ratio == pytest.approx(0.2)


def test_unlike_runs_are_unfit_until_it_is_allowed(two):
    put(two / "other", link="ferry")
    done = farwrite("compare", two / "base", two / "other")
    assert_refused(done, r"link \(netem \| ferry\)", "--allow-mismatch link", code=UNFIT)
    found = document(two / "base", two / "other", "--allow-mismatch", "link")
    assert "the sides differ in link (netem | ferry)" in found.warnings


# Bad reports


def damaged(path, change):
    tree = document_of(path)
    change(tree)
    path.write_text(json.dumps(tree))


@pytest.mark.parametrize("place", ["base", "cand"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("truncated", "is not a farwrite report|damaged"),
        ("foreign", "neither a farwrite report nor"),
        ("text", "neither a farwrite report nor"),
        ("newer", "has schema 999; this farwrite reads up to"),
        ("not a number", "is not a farwrite report|damaged"),
        ("hurt", "is damaged or not a farwrite report"),
        ("empty", "report"),
    ],
)
def test_a_report_that_is_none_is_refused(two, place, name, said):
    path = two / place / "report.json"
    text = document_text(path)
    bad = {
        "truncated": text[: len(text) // 2], "foreign": '{"a": 1}', "text": "hello\n", "empty": "",
        "newer": text.replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 999', 1),
        "not a number": text.replace('"duration_s": ', '"duration_s": NaN, "was": ', 1),
        "hurt": text.replace('"seed": ', '"seed": "x", "was": ', 1),
    }  # fmt: skip
    path.write_text(bad[name])
    assert_refused(farwrite("compare", two / "base", two / "cand"), said)


def test_an_old_analysis_is_made_again_from_its_recording(two):
    known = document(two / "base", two / "cand")
    damaged(two / "base" / "report.json", lambda tree: tree["analysis"].update(version=1))
    damaged(two / "cand" / "report.json", lambda tree: tree.update(analysis=None))
    assert document(two / "base", two / "cand") == known


def test_an_analysis_that_was_bent_out_of_shape_is_made_again(two):
    known = document(two / "base", two / "cand")
    damaged(two / "base" / "report.json", lambda tree: tree["analysis"]["cells"][0].pop("response_ns_p50"))
    assert document(two / "base", two / "cand") == known


@pytest.mark.parametrize("value", [-1.0, 0.0, 1e308, None])
def test_a_number_that_was_edited_is_no_crash(two, value):
    def edit(tree):
        for cell in tree["analysis"]["cells"]:
            cell["response_ns_p50"].update(value=value, without=[value] * 5)

    damaged(two / "cand" / "report.json", edit)
    done = farwrite("compare", two / "base", two / "cand")
    assert (done.returncode, done.stderr) == (0, "")


# What is never loaded


@pytest.mark.parametrize("options", ["", "--brief", "--json"])
@pytest.mark.parametrize("runs", [0, 4])
def test_comparing_loads_nothing_heavy(two, options, runs, request):
    if runs:
        farwrite("compare", two / "base", two / "cand", "--results", request.getfixturevalue("earlier"))  # Makes the index.
    heavy = "numpy numba scipy llvmlite pyroute2 plotext plotly tomllib hashlib"
    code = (
        "import atexit, os, sys\n"
        f"atexit.register(lambda: os.write(2, ('LOADED ' + ' '.join(set(sys.modules) & set({heavy.split()!r}))).encode()))\n"
        f"sys.argv = ['farwrite', 'compare', 'base', 'cand', *{options.split()!r}]\n"
        "from farwrite.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=two, env=environment(), capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.stdout
    assert done.stderr.split("LOADED ")[1].split() == []
