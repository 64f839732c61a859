"""`farwrite gate` and `farwrite budget suggest` as a person meets them: every exit code, every file they write."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as Xml

import msgspec
import pytest

from console import ROOT, document_of, farwrite, fresh_farwrite
from farwrite.gate.budget import parse
from farwrite.recording import Pairing, Report, save
from make_recording import SMALL, changed, made_report

PASSED, REFUSED, FAILED, INCONCLUSIVE, LOST, UNFIT = 0, 2, 3, 4, 5, 6
BASELINE = ROOT / "results" / "baselines" / "limits.json"


@cache
def made(seed: int = 1, arm: str = "", **truth) -> Report:
    report = made_report(SMALL, seed=seed, **truth)
    if arm:
        report = changed(report, recording=changed(report.recording, pairing=Pairing(id="one", arm=arm, what=arm)))
    return report


@pytest.fixture
def report(tmp_path):
    """The file of a made-up report."""

    def write(name: str = "report.json", **truth) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        return save(made(**truth), path)

    return write


@pytest.fixture
def earlier(tmp_path):
    """Writes a results directory with earlier runs like a report."""

    def write(runs: int = 4, **truth) -> Path:
        for seed in range(11, 11 + runs):
            path = tmp_path / "results" / "runs" / f"run-{seed}" / "report.json"
            path.parent.mkdir(parents=True)
            save(made(seed=seed, **truth), path)
        return tmp_path / "results"

    return write


@pytest.fixture
def budgets(tmp_path):
    """A budgets file of these [[budget]] bodies."""

    def write(*bodies: str, head: str = "") -> Path:
        path = tmp_path / "budgets.toml"
        path.write_text("\n".join([head, *(f"[[budget]]\n{body}" for body in bodies)]))
        return path

    return write


KEPT = 'metric = "lost_writes"\nequals = 0'
BROKEN = 'metric = "response_p50"\nat_most = "1 ms"\nwhere = { protocol = "C", miles = 150 }\nreason = "We said so."'
OPEN = 'metric = "response_p999"\nat_most = "9 ms"\nwhere = { protocol = "C", miles = 150 }'
RELATIVE = 'metric = "response_p50"\nnot_worse_by = "20 %"\nwhere = { protocol = "C" }'


def assert_refused(done, *said, code=REFUSED):
    """Exit code, nothing on stdout, one clear sentence on stderr, and no traceback."""
    assert done.returncode == code, done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    sentence, = [line for line in done.stderr.splitlines() if line.startswith("farwrite: ")]
    for words in said:
        assert re.search(words, done.stderr), sentence


# Exit codes


@pytest.mark.parametrize(("bodies", "truth", "words", "code", "said"), [
    ([KEPT], {}, [], PASSED, "✔ PASS"),
    ([KEPT, BROKEN], {}, [], FAILED, "promised because: We said so."),
    ([KEPT, OPEN], {}, [], INCONCLUSIVE, "? UNKNOWN"),
    ([KEPT, OPEN], {}, ["--inconclusive", "pass"], PASSED, "? UNKNOWN"),
    ([KEPT, OPEN], {}, ["--inconclusive", "fail"], FAILED, "? UNKNOWN"),
    ([KEPT, BROKEN, OPEN], {"lost_in_rounds": 1}, [], LOST, "✘ FAIL"),
    ([KEPT, BROKEN], {"interrupted": True}, [], INCONCLUSIVE, "interrupted"),
])  # fmt: skip
def test_the_exit_code_is_the_verdict(report, budgets, bodies, truth, words, code, said):
    done = farwrite("gate", report(**truth), "--budgets", budgets(*bodies), *words)
    assert done.returncode == code and said in done.stdout and not done.stderr, done.stderr


def test_a_baseline_that_is_like_it_is_compared(report, budgets, earlier):
    path = report()
    words = ["gate", path, "--budgets", budgets(RELATIVE), "--baseline", report("base.json", seed=2)]
    words += ["--results", earlier()]
    done = farwrite(*words)
    said = " ".join(done.stdout.split())
    assert done.returncode == PASSED and "changed by" in said
    assert "what differs from run to run: 4 earlier runs like these" in said
    assert json.loads(farwrite(*words, "--json").stdout)["earlier_runs"]["runs"] == 4


@pytest.mark.parametrize("k", [1.0, 2.0])
def test_two_runs_without_earlier_ones_are_inconclusive_for_it_may_be_the_hour(report, budgets, tmp_path, k):
    words = ["gate", report(k=k), "--budgets", budgets(RELATIVE), "--baseline", report("base.json", seed=2)]
    done = farwrite(*words, "--results", tmp_path / "results")
    said = " ".join(done.stdout.split())
    assert done.returncode == INCONCLUSIVE and "a change may be of the hour" in said and "farwrite ab" in said


def test_a_baseline_that_is_unlike_is_not_compared_unless_that_is_allowed(report, budgets, earlier):
    path = report()
    words = ["gate", path, "--budgets", budgets(RELATIVE), "--baseline", report("base.json", seed=2, link="ferry"),
             "--results", earlier(link="ferry")]  # fmt: skip
    assert_refused(farwrite(*words), "--allow-mismatch link", code=UNFIT)
    assert farwrite(*words, "--allow-mismatch", "link").returncode == PASSED


def test_the_arm_measured_twice_is_found_beside_the_baseline(report, budgets, tmp_path):
    for arm, seed in (("base", 1), ("cand", 2), ("again", 3)):
        report(f"{arm}/report.json", seed=seed, arm=arm)
    done = farwrite("gate", tmp_path / "cand", "--budgets", budgets(RELATIVE), "--baseline", tmp_path / "base", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == PASSED and document["floor_from"] == "the base measured twice side by side"
    assert not document["warnings"] and all(item["floor"] is not None for item in document["rulings"])


# What is refused


@pytest.mark.parametrize(("bodies", "words", "said"), [
    (['metric = "respons_p50"\nat_most = "1 ms"'], [], r'budgets.toml:3: .*did you mean "response_p50"'),
    (['metric = "response_p50"\nat_most = "1 msec"'], [], r"budgets.toml:4: .*unit"),
    (['metric = "k_p50"\nat_most = nan'], [], "finite"),
    (['metric = "response_p50"\nat_most = "1 ms"\nwhere = { miles = 21 }'], [], "it has 0, 20, 60, 100, 150, 186"),
    (['metric = "response_p50"\nat_most = "1 ms"\nwhere = { mile = 20 }'], [], 'did you mean "miles"'),
    (['metric = "cpu_per_writ"\nat_most = "1 ms"'], [], 'did you mean "cpu_per_write"'),
    ([RELATIVE], [], "--baseline"),
    ([KEPT], ["--look", "2"], "--look 2: .* allows 1"),
    ([KEPT], ["--inconclusive", "maybe"], "(?i)inconclusive"),
    ([KEPT], ["--json", "--annotations"], "both want stdout"),
    ([KEPT], ["--json", "--markdown", "-"], "both want stdout"),
    ([KEPT], ["--junit", "/no/such/place.xml"], "write /no/such/place.xml: No such file"),
    ([KEPT], ["--junit", "/dev/null"], "no ordinary file"),
    ([KEPT], ["--markdown", "/tmp"], "no ordinary file"),
    ([], [], "at least one"),
])  # fmt: skip
def test_wrong_words_are_refused(report, budgets, bodies, words, said):
    assert_refused(farwrite("gate", report(), "--budgets", budgets(*bodies), *words), said)


def test_a_gate_without_budgets_says_where_to_get_some(report, tmp_path):
    assert_refused(farwrite("gate", report(), cwd=tmp_path), "farwrite budget suggest")


def test_a_report_that_is_none_is_refused(tmp_path, budgets):
    (tmp_path / "no.json").write_text("{}")
    assert_refused(farwrite("gate", tmp_path / "no.json", "--budgets", budgets(KEPT)))


@pytest.mark.parametrize(("bodies", "said"), [
    ([KEPT], "nothing measured decides, so nothing is left to chance"),
    ([KEPT, OPEN], "no measured figure was tested against chance: 0 decided without, 1 unknown"),
    ([KEPT, 'metric = "greatest_miles_p50"\nat_least = "1 miles"\nwhere = { budget = "9 ms", protocol = "C" }'], None),
    ([KEPT, BROKEN], "1 measured test"),
])  # fmt: skip
def test_the_last_line_says_what_decided(report, budgets, bodies, said):
    done = farwrite("gate", report(), "--budgets", budgets(*bodies))
    last = " ".join(done.stdout.split())[-400:]
    assert said in last if said else "nothing measured decides" not in last, last


def test_a_report_edited_by_hand_is_judged_by_its_recording(report, budgets):
    path = report()
    document = document_of(path)
    document["analysis"]["cells"][0]["lost"] = "none"
    for cell in document["analysis"]["cells"][1:]:
        cell["lost"] = 7
    path.write_text(json.dumps(document))
    assert farwrite("gate", path, "--budgets", budgets(KEPT)).returncode == PASSED


def test_a_cell_without_one_good_round_is_unknown(report, budgets):
    path = report(always_void=("write-C-20",))
    cell = 'metric = "response_p50"\nat_most = "9 ms"\nwhere = { protocol = "C", miles = 20 }'
    done = farwrite("gate", path, "--budgets", budgets(cell))
    assert done.returncode == INCONCLUSIVE and "not one good round" in " ".join(done.stdout.split())


# What is written


def test_the_document_has_every_verdict(report, budgets):
    done = farwrite("gate", report(), "--budgets", budgets(KEPT, BROKEN), "--json")
    document = json.loads(done.stdout)
    assert done.returncode == FAILED and document["verdict"] == "fail" and document["tests"] == 1
    assert {"verdict", "sentence", "p_fail", "p_adjusted", "sees", "limit", "value"} <= document["rulings"][0].keys()


def test_files_are_written_and_may_be_written_again(report, budgets, tmp_path):
    junit, markdown = tmp_path / "verdicts.xml", tmp_path / "verdicts.md"
    path = report()
    words = ["gate", path, "--budgets", budgets(KEPT, BROKEN), "--junit", junit, "--markdown", markdown]
    for _ in range(2):
        assert farwrite(*words).returncode == FAILED
        assert Xml.parse(junit).getroot().get("failures") == "1"
        assert markdown.read_text().count("### farwrite gate") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["budgets.toml", path.name, "verdicts.md", "verdicts.xml"]


def test_a_link_is_not_written_through(report, budgets, tmp_path):
    (tmp_path / "precious").write_text("keep me")
    (tmp_path / "verdicts.xml").symlink_to(tmp_path / "precious")
    assert_refused(farwrite("gate", report(), "--budgets", budgets(KEPT), "--junit", tmp_path / "verdicts.xml"), "ordinary file")
    assert (tmp_path / "precious").read_text() == "keep me"


def test_githubs_summary_is_appended_to(report, budgets, tmp_path):
    summary = tmp_path / "summary.md"
    summary.write_text("of an earlier step\n")
    done = farwrite("gate", report(), "--budgets", budgets(KEPT), "--markdown", summary, GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == PASSED
    assert summary.read_text().startswith("of an earlier step\n") and "### farwrite gate" in summary.read_text()


def test_markdown_on_stdout_is_markdown_alone(report, budgets):
    done = farwrite("gate", report(), "--budgets", budgets(KEPT), "--markdown", "-")
    assert done.returncode == PASSED and done.stdout.startswith("### farwrite gate")


def test_annotations_are_printed_only_when_asked_for(report, budgets):
    path = report()
    words = ["gate", path, "--budgets", budgets(BROKEN)]
    assert "::error" not in farwrite(*words, GITHUB_ACTIONS="true").stdout
    lines = farwrite(*words, "--annotations").stdout.splitlines()
    assert sum(line.startswith("::error file=") for line in lines) == 1


def test_it_fits_eighty_columns(report, budgets):
    done = farwrite("gate", report(), "--budgets", budgets(KEPT, BROKEN, OPEN))
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_judging_a_current_report_loads_neither_numpy_nor_scipy(report, budgets):
    words = ("gate", str(report()), "--budgets", str(budgets(KEPT, BROKEN)))
    done = fresh_farwrite(*words, PYTHONPROFILEIMPORTTIME="1")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == FAILED and "farwrite.gate.budget_verdict" in loaded
    assert not {"numpy", "scipy", "numba"} & loaded


def test_the_projects_own_budgets_are_the_default_and_its_baseline_keeps_them():
    done = farwrite("gate", BASELINE, cwd=ROOT)
    assert done.returncode == PASSED and "What farwrite promises of itself" in done.stdout


# Proposals


def test_a_report_keeps_the_budgets_that_were_proposed_from_it(report, tmp_path):
    path, proposed = report("base/report.json", arm="base"), tmp_path / "proposed.toml"
    assert fresh_farwrite("budget", "suggest", path, "--out", proposed).returncode == PASSED
    beside = report("cand/report.json", arm="cand")
    assert farwrite("gate", beside, "--budgets", proposed, "--baseline", path).returncode == PASSED
    assert farwrite("budget", "suggest", path).stdout == proposed.read_text()
    assert len(parse(proposed.read_text()).budgets) > 8


def test_proposals_replace_nothing_and_need_a_report(report, tmp_path):
    (tmp_path / "mine.toml").write_text("mine")
    assert_refused(farwrite("budget", "suggest", report(), "--out", tmp_path / "mine.toml"), "File exists")
    assert_refused(farwrite("budget", "suggest"), "From which reports")
    assert (tmp_path / "mine.toml").read_text() == "mine"


def test_proposals_from_unlike_reports_are_refused(report):
    assert_refused(farwrite("budget", "suggest", report(), report("b.json", link="ferry")), "unlike", code=UNFIT)


def test_the_document_is_decodable_by_its_own_type(report, budgets):
    from farwrite.gate.gate import Gate

    done = farwrite("gate", report(), "--budgets", budgets(KEPT, BROKEN), "--json")
    assert msgspec.json.decode(done.stdout, type=Gate).verdict == "fail"
