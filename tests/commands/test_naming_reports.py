"""How a report is named wherever a command takes one: a path, `latest`, the id of a run, a baseline, or two as A..B."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from console import farwrite
from farwrite.commands.reports import pair_of
from farwrite.recording import save
from make_recording import SMALL, made_report

EARLY, LATE = "20260101T000000Z-small-aaaaaa", "20260102T000000Z-small-bbbbbb"


def named_report(name, seed=1):
    """A made-up report with this id."""
    made = made_report(SMALL, seed=seed)
    return msgspec.structs.replace(made, recording=msgspec.structs.replace(made.recording, id=name))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A place with two runs and a baseline. The run that began first was saved last, as one that was continued is."""
    place = tmp_path_factory.mktemp("kept")
    for name, seed, second in ((EARLY, 1, 2000), (LATE, 2, 1000)):
        directory = place / "results" / "runs" / name
        directory.mkdir(parents=True)
        os.utime(save(named_report(name, seed), directory / "report.json"), (second, second))
    (place / "results" / "runs" / "20260103T000000Z-torn-cccccc").mkdir()
    (place / "results" / "baselines").mkdir()
    save(named_report("kept", 3), place / "results" / "baselines" / "small.json")
    return place


def shown(kept, word):
    done = farwrite("show", "--json", word, cwd=kept)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["recording"]["id"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [("latest", EARLY), (EARLY, EARLY), ("bbbbbb", LATE), ("20260102", LATE), ("small", "kept"), (f"results/runs/{LATE}", LATE),
     (f"./results/../results/runs/{LATE}/report.json", LATE)],
)  # fmt: skip
def test_a_word_means_a_report(kept, word, meant):
    assert shown(kept, word) == meant


def test_what_is_there_as_a_path_is_that_path(kept, tmp_path):
    (tmp_path / "results").symlink_to(kept / "results")
    for name in ("latest", "aaaaaa..bbbbbb"):
        save(named_report("path"), tmp_path / name)
        assert shown(tmp_path, name) == "path"


@pytest.mark.parametrize(
    ("words", "said"),
    [(["show", "2026"], '"2026" is the id of 2 runs'), (["show", "lates"], 'did you mean "latest"'),
     (["show", "cccccc"], 'There is no report "cccccc"'), (["show", "aaaaaa..bbbbbb"], "two reports"),
     (["html", "aaaaaa..bbbbbb", "latest"], "3 reports"), (["export", "a..b", "--hlog", "x"], "two reports"),
     (["gate", "a..b", "--baseline", "c", "--budgets", "x"], "give one of the two"),
     (["compare", "aaaaaa..nothing"], "\"nothing\"")],
)  # fmt: skip
def test_a_word_that_means_none_or_too_many_is_refused_in_a_sentence(kept, words, said):
    done = farwrite(*words, cwd=kept)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_without_a_run_there_is_no_latest_and_how_to_make_one_is_said(tmp_path):
    done = farwrite("show", "latest", cwd=tmp_path)
    assert done.returncode == 2 and '"farwrite run" makes one' in done.stderr


def test_two_reports_are_compared_by_one_word(kept):
    pair = farwrite("compare", "aaaaaa..bbbbbb", "--json", cwd=kept)
    apart = farwrite("compare", f"results/runs/{EARLY}", f"results/runs/{LATE}", "--json", cwd=kept)
    assert (pair.returncode, pair.stdout) == (0, apart.stdout)
    absolute = f"{kept}/results/runs/{EARLY}..{kept}/results/runs/{LATE}"
    assert json.loads(farwrite("compare", absolute, "--json", cwd=kept).stdout)["rows"] == json.loads(pair.stdout)["rows"]
    assert farwrite("html", "small..latest", "--out", "page.html", cwd=kept).returncode == 0
    assert "What changed" in (kept / "page.html").read_text()


def test_a_gate_holds_the_second_against_the_first(kept, tmp_path):
    budgets = tmp_path / "budgets.toml"
    budgets.write_text('[[budget]]\nmetric = "response_p50"\nnot_worse_by = "90 %"\nwhere = { miles = 20 }\n')
    done = farwrite("gate", "aaaaaa..bbbbbb", "--budgets", budgets, "--json", cwd=kept)
    assert done.returncode in (0, 3, 4), done.stderr
    found = json.loads(done.stdout)
    assert EARLY in found["baseline"] and LATE in found["report"]


@pytest.mark.parametrize("command", [["budget", "suggest", "aaaaaa"], ["export", "latest", "--hlog", "-"],
                                     ["baseline", "promote", "latest", "--name", "new", "--force"]])  # fmt: skip
def test_every_command_that_takes_a_report_takes_a_word(kept, command):
    done = farwrite(*command, cwd=kept)
    assert done.returncode == 0 and done.stdout, done.stderr


@pytest.mark.parametrize(
    ("word", "pair"),
    [("a..b", ("a", "b")), ("/x/a../y/b", ("/x/a", "/y/b")), ("../a..../b", ("../a", "../b")), ("../a/b", None), ("x/../y", None),
     ("a..", None), ("..b", None), ("a.b", None)],
)  # fmt: skip
def test_two_dots_join_two_reports_and_are_a_part_of_paths_as_well(word, pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pair_of(Path(word)) == (pair and tuple(map(Path, pair)))
