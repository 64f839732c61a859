"""`farwrite html`: where it writes, what it refuses, and with which exit code."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from console import farwrite, fresh_farwrite
from farwrite.recording import save
from farwrite.report.html import MARKER
from make_recording import changed, made_report

FEW = ("distance.miles=[20, 150]", "run.rounds=3", "run.round=100 ms", 'cell.protocols=["C"]', "drill.kills=0")


def stored(place: Path, **truth) -> Path:
    report = made_report(changes=FEW, **truth)
    save(changed(report, analysis=msgspec.to_builtins(report.analysis)), place)
    return place


def refused(*words, code: int = 2) -> str:
    """The one sentence of a refusal."""
    done = farwrite("html", *words)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("farwrite: ") and done.stderr.count("\n") == 1
    return done.stderr


def test_a_page_is_written_beside_the_report_and_again_over_itself(tmp_path):
    report = stored(tmp_path / "report.json")
    for _ in range(2):
        done = fresh_farwrite("html", report)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"saved: {tmp_path / 'report.html'}\n"
        assert MARKER in (tmp_path / "report.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_the_directory_of_a_run_is_a_report(tmp_path):
    stored(tmp_path / "report.json")
    assert farwrite("html", tmp_path).returncode == 0
    assert (tmp_path / "report.html").is_file()


def test_a_file_that_is_not_a_page_of_ours_is_never_replaced(tmp_path):
    report = stored(tmp_path / "report.json")
    for name in ("notes.html", "report.html"):
        (tmp_path / name).write_text("mine")
        assert "is no HTML report of farwrite" in refused(report, "--out", tmp_path / name)
        assert (tmp_path / name).read_text() == "mine"
    assert "is no HTML report of farwrite" in refused(report)


def test_an_earlier_page_of_ours_is_replaced(tmp_path):
    report, out = stored(tmp_path / "report.json"), tmp_path / "page.html"
    assert farwrite("html", report, "--out", out).returncode == 0
    out.write_bytes(MARKER)
    assert farwrite("html", report, "--out", out).returncode == 0
    assert out.stat().st_size > 1_000_000


def test_out_must_be_a_file_in_a_directory_that_is_there(tmp_path):
    report = stored(tmp_path / "report.json")
    assert "there is no directory" in refused(report, "--out", tmp_path / "missing" / "page.html")
    assert "is a directory" in refused(report, "--out", tmp_path)
    assert "is not a file" in refused(report, "--out", "/dev/null")


@pytest.mark.parametrize("content", ["", "no report", '{"schema_version": 1}', '{"schema_version": 99, "recording": {}}'])
def test_what_is_no_report_is_refused_in_one_sentence(tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    refused(tmp_path / "report.json")
    assert not (tmp_path / "report.html").exists()


def test_a_report_that_is_missing_is_refused(tmp_path):
    assert "No such file" in refused(tmp_path / "report.json")


def test_two_reports_make_a_page_with_what_changed(tmp_path):
    one, two = stored(tmp_path / "one.json"), stored(tmp_path / "two.json", seed=2, a_ns=600_000.0)
    assert farwrite("html", one, two, "--out", tmp_path / "both.html").returncode == 0
    assert "What changed" in (tmp_path / "both.html").read_text()


def test_unlike_reports_are_refused_unless_one_knows_better(tmp_path):
    one, two = stored(tmp_path / "one.json"), stored(tmp_path / "two.json", durability="memory")
    out = tmp_path / "both.html"
    sentence = refused(one, two, "--out", out, code=6)
    assert "--allow-mismatch durability" in sentence and not out.exists()
    allowed = [word for field in ("durability", "disk") for word in ("--allow-mismatch", field)]
    assert farwrite("html", one, two, "--out", out, *allowed).returncode == 0
    assert "--allow-mismatch is about two reports" in refused(one, "--allow-mismatch", "host")
