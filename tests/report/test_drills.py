"""Drills judged: only trials whose load was alive at the fault are in a bound, and what the others lost is lost all the same."""

import io
import re
import subprocess
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

import make_drill
from farwrite.analysis import drill as judging
from farwrite.analysis import drill_recording as drilled
from farwrite.analysis.analyse import analyse
from farwrite.analysis.answer import answer_of
from farwrite.base.errors import InconclusiveError, LostWriteError, UsageError
from farwrite.commands.drill import drill
from farwrite.compare.figures import result_set_of
from farwrite.experiment.outcome import outcome
from farwrite.gate.budget import parse
from farwrite.gate.gate import gate
from farwrite.recording import SCHEMA_VERSION, Audit, Drill, Report, Uncounted
from farwrite.report.html import page_of
from farwrite.report.terminal import show
from make_recording import changed, make_recording

ROOT = Path(__file__).parents[2]
QUICK = ("run.round=400 ms", "run.survey_echoes=20", "distance.miles=[0, 20, 150]", "drill.kills=4")
CODES = Uncounted.__args__


def report_of(uncounted, lost=0, **truth):
    """A run of four kills and four cuts a protocol; `uncounted` has the code of each trial by kind, protocol and index."""
    recording = make_recording(changes=QUICK, writes=200, **truth)
    made = []
    for item in recording.drills:
        code = uncounted(item)
        audit = item.audit
        if code and lost and item.kind == "kill":
            audit = changed(audit, lost=lost, survived=audit.completed - lost)
        without = {"completed_during_cut": None, "recovery_time_ns": None} if code and item.kind == "cut" else {}
        made.append(changed(item, uncounted=code, alive_ns=50_000_000, audit=audit, **without))
    recording = changed(recording, drills=made)
    analysis = analyse(recording)
    return Report(schema_version=SCHEMA_VERSION, recording=recording, analysis=analysis, answer=answer_of(recording, analysis))


def results(report):
    return {(item.kind, item.protocol): item for item in report.analysis.drills}


def claim(report, name):
    return next(item for item in report.analysis.claims if item.id == name)


def printed(report, width=80):
    file = io.StringIO()
    show(report, report.analysis, Console(file=file, width=width), full=True)
    return file.getvalue()


def none(item):
    return "load-ended"


def one(item):
    return "stalled" if item.index == 0 else None


def test_a_trial_that_does_not_count_is_in_no_bound_and_counted_apart():
    full, found = results(report_of(lambda item: None)), results(report_of(one))
    for kind in ("kill", "cut"):
        item = found[kind, "C"]
        assert (item.count, item.uncounted, item.uncounted_count) == (3, {"stalled": 1}, 1)
        assert item.completed == full[kind, "C"].completed - (900 if kind == "kill" else 2000)
    assert full["kill", "C"].loss_probability_high == pytest.approx(1 - 0.05 ** (1 / 4))
    assert found["kill", "C"].loss_probability_high == pytest.approx(1 - 0.05 ** (1 / 3))
    assert found["kill", "A"].drills_with_loss == 3


@pytest.mark.parametrize("code", CODES)
def test_every_reason_has_a_sentence_that_a_reader_of_any_report_finds(code):
    report = report_of(lambda item: code if item.index == 0 else None)
    sentence = judging.UNCOUNTED[code].format(alive="50.0 ms")
    assert sentence in claim(report, "C2").sentence + " ".join(claim(report, "C2").details)
    assert any(sentence in str(text) for text in report.analysis.warnings)
    text = " ".join(printed(report).split())
    assert f"C at 150 miles: 1 more kill does not count: {sentence}." in text
    assert f"C at 150 miles: 1 more cut does not count: {sentence}." in text
    assert sentence.replace("'", "&#x27;") in page_of(report, report.analysis, "x.json").decode().replace("&#39;", "&#x27;")


def test_no_trial_that_counts_leaves_the_parts_of_a_claim_unknown():
    report = report_of(none, completed_during_cut_c=500)
    found = claim(report, "C2")
    assert found.verdict == "unknown"
    assert "no kill at 150 miles counts" in found.sentence and "no cut of the link counts" in found.sentence
    assert "4 kills do not count: the load had ended before the fault" in found.sentence
    a = claim(report, "C3")
    assert a.verdict == "unknown" and "no kill at 150 miles counts" in a.sentence
    assert claim(report_of(lambda item: None, completed_during_cut_c=500), "C2").verdict == "pass"


def test_the_answer_says_that_nothing_is_known_and_never_that_nothing_was_lost_in_no_kill():
    lines = [line.text for line in report_of(none).answer.lines]
    assert any(text.startswith("what a loss of the near site costs is unknown: 4 kills count for nothing") for text in lines)
    assert not any("in 0 kills" in text for text in lines)
    lines = [line.text for line in report_of(one).answer.lines]
    assert "0 of 2 706 writes lost in 3 kills, 1 more not counted (C): P(loss) at most 63 %" in lines
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("uncounted", [one, none])
def test_a_write_lost_in_a_trial_that_does_not_count_is_lost_all_the_same(uncounted):
    report = report_of(uncounted, lost=2, completed_during_cut_c=500)
    found = claim(report, "C2")
    assert found.verdict == "fail" and "lost 2 and damaged 0 acknowledged writes" in found.sentence.replace("lost 8", "lost 2")
    assert any(line.kind == "loss" and line.verdict == "fail" and "LOST" in line.text for line in report.answer.lines)
    assert "✘ LOST" in printed(report)
    decided = gate(result_set_of(report, report.analysis, "x"), budgets()).verdicts[0]
    assert decided.verdict == "fail" and decided.lost
    assert isinstance(outcome(report), LostWriteError)


def budgets():
    text = '[[budget]]\nmetric = "drill_lost_writes"\nat_most = 0\nwhere = { drill = "kill", protocol = "C" }\n'
    return parse(text, "b.toml")


@pytest.mark.parametrize(("uncounted", "verdict"), [(lambda item: None, "pass"), (one, "pass"), (none, "unknown")])
def test_a_gate_passes_no_promise_that_no_trial_has_tried(uncounted, verdict):
    report = report_of(uncounted)
    (decided,) = gate(result_set_of(report, report.analysis, "x"), budgets()).verdicts
    assert decided.verdict == verdict
    assert (verdict == "unknown") == ("do not count: the load had ended" in decided.sentence)


def test_a_run_none_of_whose_trials_counts_leaves_with_inconclusive():
    assert outcome(report_of(none)) is None  # Measured; what it comes to is in the report.
    refusal = outcome(report_of(none), strict=True)
    assert isinstance(refusal, InconclusiveError)
    assert "no kill at 150 miles counts" in str(refusal) and "the load had ended before the fault" in str(refusal)
    assert outcome(report_of(one)) is None


def test_a_drill_of_an_older_recording_decodes_and_counts():
    old = msgspec.to_builtins(
        Drill(kind="kill", protocol="C", miles=150.0, index=0, audit=Audit(completed=9, survived=9, lost=0, damaged=0),
              lost_bytes=0, recovery_point_ns=0, completed_during_cut=None, recovery_time_ns=None)
    )  # fmt: skip
    for field in ("uncounted", "last_ack_age_ns", "alive_ns"):
        del old[field]
    drill = msgspec.convert(old, Drill)
    (found,) = judging.drill_results([drill])
    assert (drill.uncounted, found.count, found.uncounted) == (None, 1, {})


# Drills of replicas that fail over by themselves


def test_the_summary_row_of_one_drill_is_all_that_a_table_prints(tmp_path, capsys):
    made = make_drill.recording(*map(make_drill.trial, range(3)))
    drilled.save(made, tmp_path / drilled.FILE)
    assert drill(str(tmp_path / drilled.FILE), table=True) == 0
    told = capsys.readouterr().out
    assert re.search(r"^C +consent +150 +3/3 +0 ", told, re.MULTILINE) and "What was read back" not in told
    with pytest.raises(UsageError, match="contradict"):
        drill("primary-killed", table=True, json=True)


@pytest.mark.parametrize(("link", "said"), [
    ("ferry: no netem", "link by ferry"), ("loopback: asked for", "no distance, processes on loopback"),
])  # fmt: skip
def test_a_drill_says_what_joined_its_sites_and_whether_anybody_took_over(tmp_path, capsys, link, said):
    made = msgspec.structs.replace(make_drill.recording(*map(make_drill.trial, range(3))), link=link)
    drilled.save(made, tmp_path / drilled.FILE)
    drill(str(tmp_path / drilled.FILE))
    told = " ".join(capsys.readouterr().out.split())
    assert said in told and "one primary in one epoch from beginning to end in 0 of 3 trials." in told


def test_make_bench_prints_a_drills_row_behind_the_limits_and_fails_with_a_lost_write():
    words = ["make", "--no-print-directory", "-n", "bench"]  # Also where a make has called the tests.
    recipe = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    drilled_behind = r"farwrite run limits; .*farwrite drill primary-killed --trials 2 --memory --table --quiet"
    assert re.search(drilled_behind, recipe, re.DOTALL)
    assert "exit 5" in recipe and recipe.rstrip().endswith("exit $code")
