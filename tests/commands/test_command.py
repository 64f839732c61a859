"""The command line as a person meets it: what is printed where, what is refused how, and every exit code."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from console import (
    SHORT,
    assert_refused,
    document_of,
    document_text,
    environment,
    farwrite,
    fresh_farwrite,
    journal_rounds,
    words_of,
)
from farwrite import __version__
from farwrite.base.documents import found_at
from farwrite.recording import SCHEMA_VERSION, save
from farwrite.workload.catalog import shipped
from make_recording import LARGE, SMALL, made_report

REFUSED, UNFIT, INTERRUPTED, TERMINATED = 2, 6, 130, 143


@pytest.fixture
def run_directory(tmp_path):
    """A directory with the report of a made-up run."""
    save(made_report(SMALL), tmp_path / "report.json")
    return tmp_path


@pytest.fixture(scope="session")
def measured(tmp_path_factory):
    """A real and very short run: (finished command, its directory)."""
    directory = tmp_path_factory.mktemp("run") / "measured"
    return fresh_farwrite("run", "quick", *SHORT, "--out", directory), directory


# What loads nothing and measures nothing


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["show", "--help"], []])
def test_help_is_given_and_exits_with_0(words):
    done = farwrite(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: farwrite" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_version_is_printed():
    assert farwrite("--version").stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("words", "never"),
    [
        ("--help", "numpy numba scipy llvmlite pyroute2 plotext msgspec"),
        ("run --help", "numpy numba scipy llvmlite pyroute2 plotext"),
        ("profiles", "numpy numba scipy llvmlite pyroute2 plotext"),
        ("schema", "numpy numba scipy llvmlite pyroute2 plotext"),
        ("show --json report.json", "numpy numba scipy llvmlite pyroute2 plotext"),
        ("show report.json", "numba scipy llvmlite pyroute2"),
        ("show nothing.json", "numpy numba scipy llvmlite pyroute2 plotext"),
        ("run limitz", "numba scipy llvmlite pyroute2 plotext"),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(run_directory, words, never):
    code = (
        "import atexit, os, sys\n"
        "atexit.register(lambda: os.write(2, ('LOADED ' + ' '.join(set(sys.modules) & set(sys.argv.pop().split()))).encode()))\n"
        f"sys.argv = ['farwrite', *{shlex.split(words)!r}]\n"
        "from farwrite.cli import main\n"
        "try:\n    main()\nfinally:\n"
        f"    sys.argv.append({never!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=run_directory, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stderr.split("LOADED ")[1].split() == []


def test_every_shipped_profile_is_listed_on_a_line_of_its_own():
    done = farwrite("profiles")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == shipped()
    assert all(len(line.split(maxsplit=1)[1]) > 10 for line in done.stdout.splitlines())


# schema


@cache
def printed_schema():
    done = farwrite("schema")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def faults(document):
    """Where a document is not what the printed schema says, as JSON paths."""
    Draft202012Validator.check_schema(printed_schema())
    return sorted(fault.json_path for fault in Draft202012Validator(printed_schema()).iter_errors(document))


@pytest.mark.parametrize("text", [SMALL, LARGE])
def test_a_saved_report_is_what_the_schema_says(tmp_path, text):
    save(made_report(text), tmp_path / "report.json")
    document = document_of(tmp_path / "report.json")
    assert faults(document) == []
    del document["recording"]["rounds"][0]["survey_before"]
    document["recording"]["seed"] = "1"
    assert faults(document) == ["$.recording.rounds[0]", "$.recording.seed"]


def test_a_measured_report_is_what_the_schema_says(measured):
    assert faults(document_of(measured[1] / "report.json")) == []


# show


@pytest.mark.parametrize("text", [SMALL, LARGE])
@pytest.mark.parametrize("columns", [80, 100, 140])
@pytest.mark.parametrize("full", [[], ["--full"]])
def test_a_report_is_printed_and_no_line_is_too_long(tmp_path, text, columns, full):
    from rich.cells import cell_len

    save(made_report(text), tmp_path / "report.json")
    done = farwrite("show", *full, tmp_path, COLUMNS=str(columns))
    assert (done.returncode, done.stderr) == (0, "")
    assert "C1 (2 ms to 20 miles)" in done.stdout and "Write latency" in done.stdout
    assert ("Verdicts" in done.stdout and "Proof of link" in done.stdout) == bool(full)
    assert [line for line in done.stdout.splitlines() if cell_len(line) > columns] == []


def test_a_report_in_a_pipe_has_no_escape_codes(run_directory):
    assert "\x1b" not in farwrite("show", run_directory).stdout
    assert "\x1b" not in farwrite("show", run_directory, NO_COLOR="1").stdout


def test_no_color_is_obeyed_even_where_colour_could_be(run_directory):
    coloured = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|4[0-7]|9[0-7]|38|48)\b")
    assert coloured.search(farwrite("show", run_directory, FORCE_COLOR="1").stdout)
    assert not coloured.search(farwrite("show", run_directory, FORCE_COLOR="1", NO_COLOR="1").stdout)


def test_the_answer_is_printed_as_markdown(run_directory):
    done = farwrite("show", "--markdown", run_directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("### farwrite: A made-up run\n\n- C: 2 ms hold to ")
    for words in (["--markdown", "--json"], ["--csv", "--json"], ["--csv", "--full"]):
        assert_refused(farwrite("show", *words, run_directory), "choose one")


def test_a_whole_report_is_printed_as_markdown_and_its_figures_as_csv(run_directory):
    whole = farwrite("show", "--full", "--markdown", run_directory)
    assert (whole.returncode, whole.stderr) == (0, "") and "\n| miles |" in whole.stdout
    rows = farwrite("show", "--csv", run_directory)
    assert (rows.returncode, rows.stderr) == (0, "")
    assert rows.stdout.startswith("metric,name,protocol,miles,queue_depth,") and "\nresponse_p50,write,C,150" in rows.stdout


def test_the_json_of_a_report_is_its_file(run_directory):
    for place in (run_directory, run_directory / "report.json"):
        done = farwrite("show", "--json", place)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == document_text(run_directory / "report.json")


@pytest.mark.parametrize("words", ["show report.json", "show --json report.json", "schema", "profiles", "--help", "run --help"])
def test_a_reader_who_leaves_early_is_no_crash(run_directory, words):
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        words_of(*words.split()), cwd=run_directory, env=environment(), stdout=write_end, stderr=subprocess.PIPE, text=True,
        check=False,
    )  # fmt: skip
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_behind_stdout_is_said_and_no_crash(run_directory):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            words_of("show", "report.json"), cwd=run_directory, env=environment(), stdout=full, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (UNFIT, "farwrite: print to stdout: No space left on device.\n")


# Refusals


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "limitz"], ['no profile "limitz"', 'did you mean "limits"']),
        (["run", "no/such.toml"], ["no profile no/such.toml"]),
        (["run", "quick", "--set", "run.ronds=3"], ['unknown key "ronds"', 'did you mean "rounds"']),
        (["run", "quick", "--set", "run.rounds"], ["write key=value"]),
        (["run", "quick", "--set", "cell.writes.queue_depth=1"], ['no "writes"']),
        (["run", "quick", "--duration", "3 secs"], ['unit "secs"']),
        (["run", "quick", "--duration", "3"], ["lacks a unit"]),
        (["run", "quick", "--duration", '"'], ["not a number with a unit"]),
        (["run", "quick", "--set", "distance.miles=[-20]"], ["between 0 and 15 000"]),
        (["run", "quick", "--set", "cell.write.trace=pgbanch"], ['did you mean "pgbench"']),
        (["run", "quick", "--set", "title=\udcff"], ["not text"]),
        (["run", "quick", "--out", "\udcff"], ["not text"]),
        (["run", "quick", "--seed", "-1"], ["--seed must not be negative"]),
        (["run", "quick", "--seed", "9" * 30], ["2.63"]),
        (["run", "quick", "--seed", "x"], ["--seed"]),
        (["run", "quick", "--link", "pigeon"], ["--link"]),
        (["run", "quick", "--lnik", "ferry"], ["--lnik"]),
        (["run", "--resume", ".", "--seed", "3", "--duration", "1 s"], ["--resume"]),
        (["run", "mine.toml"], [r"mine\.toml:2: tittle", 'did you mean "title"']),
        (["show"], ["REPORT|report"]),
        (["show", "nothing.json"], [r"nothing\.json", "No such file"]),
        (["show", "empty"], [r"empty/report\.json", "No such file"]),
        (["show", "mine.toml"], ["not a farwrite report"]),
        (["show", "newer.json"], [f"schema {SCHEMA_VERSION + 1}", "Upgrade"]),
        (["show", "cut.json"], ["not a farwrite report"]),
        (["schema", "3"], ["3"]),
        (["shwo"], ["shwo"]),
    ],
)
def test_wrong_words_are_refused_with_one_sentence(tmp_path, words, said):
    (tmp_path / "mine.toml").write_text('# mine\ntittle = "x"\n')
    (tmp_path / "empty").mkdir()
    (tmp_path / "newer.json").write_text(f'{{"schema_version": {SCHEMA_VERSION + 1}, "recording": {{}}}}')
    (tmp_path / "cut.json").write_text('{"schema_version": 1, "recording": {"farwr')
    before = sorted(tmp_path.rglob("*"))
    assert_refused(farwrite(*words, cwd=tmp_path), *said)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("journal", "said"),
    [
        (None, "No such file"),
        ("not a journal\n", "line 1"),
        ('{"type": "heading"}\n', "line 1"),
    ],
)
def test_what_is_no_run_is_not_continued(tmp_path, journal, said):
    if journal is not None:
        (tmp_path / "cells.jsonl").write_text(journal)
    assert_refused(farwrite("run", "--resume", tmp_path), said)


# Runs


@pytest.mark.lab
def test_a_run_prints_its_report_on_stdout_and_the_rest_on_stderr(measured):
    done, directory = measured
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("farwrite: A quick look") and "\n400 miles cost " in done.stdout
    assert "2 ms hold" not in done.stdout and "C1" not in done.stdout, "nobody has asked about 2 ms"
    assert "saved:" not in done.stdout and f"saved: {found_at(directory / 'report.json')}" in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in directory.iterdir()) == ["cells.jsonl", found_at(directory / "report.json").name]


@pytest.mark.lab
def test_what_a_run_printed_is_printed_again_from_its_file(measured):
    done, directory = measured
    assert farwrite("show", directory).stdout == done.stdout


@pytest.mark.lab
def test_a_run_measures_every_cell_in_every_round(measured):
    recording = document_of(measured[1] / "report.json")["recording"]
    good = sorted((item["cell"], item["index"]) for item in recording["rounds"] if item["status"] == "ok")
    assert good == [(f"write-{protocol}-400", index) for protocol in "AC" for index in range(2)]
    assert all(item["audit"]["lost"] == item["audit"]["damaged"] == 0 for item in recording["rounds"])
    assert not recording["interrupted"]


@pytest.mark.lab
def test_a_run_does_not_overwrite_another(measured):
    _, directory = measured
    before = {path: path.read_bytes() for path in directory.iterdir()}
    assert_refused(farwrite("run", "quick", *SHORT, "--out", directory), "holds a run already", "--resume")
    assert {path: path.read_bytes() for path in directory.iterdir()} == before


@pytest.mark.lab
def test_a_place_where_nothing_can_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert_refused(farwrite("run", "quick", *SHORT, "--out", tmp_path / "file" / "run"), "Not a directory", "--out")


def interrupted_after(rounds, number, directory, words):
    """Start a run, send it a signal once its journal holds so many rounds, and wait for its end."""
    running = subprocess.Popen(
        words_of(*words), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        limit_s = time.monotonic() + 120
        while len(journal_rounds(directory)) < rounds:
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < limit_s, f"fewer than {rounds} rounds"
            time.sleep(0.01)
        # Ctrl-C reaches every process of the terminal; a service manager's SIGTERM only the one it started.
        if number == signal.SIGINT:
            os.killpg(running.pid, number)
        else:
            os.kill(running.pid, number)
        stdout, stderr = running.communicate(timeout=60)
    finally:
        running.kill()
    return subprocess.CompletedProcess(words, running.returncode, stdout, stderr)


@pytest.mark.lab
def test_an_interrupted_run_is_saved_and_continued_and_measures_only_what_was_missing(tmp_path):
    directory = tmp_path / "run"
    words = ["run", "quick", *SHORT, "--set", "run.rounds=4", "--set", "run.round=150ms", "--out", directory]
    parts = []
    for wanted, number, code in ((2, signal.SIGTERM, TERMINATED), (4, signal.SIGINT, INTERRUPTED)):
        done = interrupted_after(wanted, number, directory, words)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr and f"--resume {directory}" in done.stderr.replace("\n", "")
        assert "INTERRUPTED" in done.stdout
        saved = document_of(directory / "report.json")["recording"]
        assert saved["interrupted"]
        assert saved["rounds"] == journal_rounds(directory)
        parts.append(saved["rounds"])
        words = ["run", "--resume", directory]
    done = farwrite("run", "--resume", directory, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout == document_text(directory / "report.json")
    whole = json.loads(done.stdout)["recording"]
    assert not whole["interrupted"] and len([note for note in whole["notes"] if "continued" in note]) >= 1
    assert 2 <= len(parts[0]) < len(parts[1]) < len(whole["rounds"])
    assert parts[1][: len(parts[0])] == parts[0] and whole["rounds"][: len(parts[1])] == parts[1]
    good = sorted((item["cell"], item["index"]) for item in whole["rounds"] if item["status"] == "ok")
    assert good == [(f"write-{protocol}-400", index) for protocol in "AC" for index in range(4)]
    assert sorted(path.name for path in directory.iterdir()) == ["cells.jsonl", found_at(directory / "report.json").name]


# Where it cannot work


def in_private_mounts(mount, *words):
    """The command in a mount namespace of its own, after `mount` was done there; skips where that is forbidden."""
    command = f"{mount} && exec {shlex.join(words_of(*words))}"
    probe = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"no mount namespace here: {probe.stderr.strip()}")
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", command], env=environment(), capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.lab
def test_a_disk_without_room_is_refused_before_anything_is_measured(tmp_path):
    place = tmp_path / "tiny"
    place.mkdir()
    done = in_private_mounts(
        f"mount -t tmpfs -o size=8m none {shlex.quote(str(place))}", "run", "quick", *SHORT, "--set", "lab.durability=disk",
        "--set", f"lab.near={place}", "--set", f"lab.far={place}", "--out", tmp_path / "run",
    )  # fmt: skip
    assert_refused(done, "8 MiB free", "64 MiB needed", "lab.near=DIR", code=UNFIT)


@pytest.mark.lab
def test_a_machine_without_tun_is_told_what_to_do(tmp_path):
    done = in_private_mounts(
        "mount --bind /dev/null /dev/net/tun", "run", "quick", *SHORT, "--link", "ferry", "--out", tmp_path / "run"
    )
    assert_refused(done, "/dev/net/tun", "modprobe tun|--device", code=UNFIT)


@pytest.mark.lab
def test_a_machine_without_tun_and_netem_takes_the_relay_and_says_why(tmp_path, measured):
    if document_of(measured[1] / "report.json")["recording"]["lab"]["link"] == "netem":
        pytest.skip("the kernel has netem: nothing is missing")
    brief = ["--set", "run.rounds=1", "--set", "run.retries=0"]
    in_private_mounts("mount --bind /dev/null /dev/net/tun", "run", "quick", *SHORT, *brief, "--out", tmp_path / "run")
    lab = document_of(tmp_path / "run" / "report.json")["recording"]["lab"]
    assert lab["link"] == "relay"
    assert "ferry: " in lab["link_reason"] and "netem: " in lab["link_reason"]


@pytest.mark.lab
def test_netem_is_refused_where_the_kernel_has_none(tmp_path, measured):
    if document_of(measured[1] / "report.json")["recording"]["lab"]["link"] == "netem":
        pytest.skip("the kernel has netem")
    done = farwrite("run", "quick", *SHORT, "--link", "netem", "--out", tmp_path / "run")
    assert_refused(done, "netem", code=UNFIT)


def test_the_console_script_is_this_command():
    script = Path(sys.executable).with_name("farwrite")
    if not script.exists():
        pytest.skip("farwrite is not installed beside this Python")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")
