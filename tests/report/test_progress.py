"""What a person sees while it runs: how far it has come, what was void and why, and how much is left; and nothing else."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np
import pytest
from rich.console import Console

from farwrite import progress as telling
from farwrite.base.errors import EXIT_CRASH, FarwriteError
from farwrite.base.reasons import link_missed, of_sentence
from farwrite.experiment import compilation, measure
from farwrite.experiment.run_journal import Run
from farwrite.progress import LINE_EVERY_S, Bar, Lines, Pace, Silence, left_text
from farwrite.recording import causes_of
from farwrite.report.live import Region, region
from make_recording import SMALL, make_recording

VOID = (("write-C-20", 1), ("write-A-60", 0), ("write-C-150", 2))


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def recorded():
    """A made-up run with three void rounds."""
    return make_recording(SMALL, void=VOID)


def played(told, count=None):
    """Tell of the rounds of that run as the pipeline does."""
    recording = recorded()
    cells = {cell.id: cell for cell in recording.cells}
    told.begin(recording.cells, 5, [])
    told.expect(60.0)
    for made in recording.rounds[:count]:
        told.doing(f"round {made.index + 1}/5 · {made.cell}")
        if made.status == "ok":
            told.measured(cells[made.cell], made)
            told.did(1.0)
        else:
            told.voided(f"{made.cell}, round {made.index + 1}", made.status, causes_of(made))
    return recording


def terminal(width=80, height=24):
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)


def shown(region, width=80, height=24):
    """The region as it stands."""
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(region)
    return console.file.getvalue()


# How much is left


def test_repeats_lengthen_what_is_left():
    clock = Clock()
    pace = Pace(clock)
    pace.expect(100.0)
    assert pace.left_s == 100.0
    clock.now_s = 30.0
    pace.did(10.0)  # Three times as long as foreseen.
    assert pace.left_s == pytest.approx(270.0)
    assert pace.share == pytest.approx(0.1)
    pace.did(200.0)
    assert (pace.left_s, pace.share) == (0.0, 1.0)


@pytest.mark.parametrize(("seconds", "said"), [
    (0.2, "about 1 s left"), (59, "about 59 s left"), (109.7, "about 1 min 50 s left"), (119, "about 2 min left"),
    (59.7, "about 1 min left"), (3596, "about 1 h left"), (3900, "about 1 h 5 min left"),
])  # fmt: skip
def test_what_is_left_is_said_no_finer_than_it_is_known(seconds, said):
    assert left_text(seconds) == said


# Void rounds


@pytest.mark.parametrize("make", [
    lambda verbose: Lines(Console(file=io.StringIO(), width=80), verbose),
    lambda verbose: Region(terminal(), verbose),
])  # fmt: skip
@pytest.mark.parametrize("verbose", [False, True])
def test_a_void_round_has_a_line_of_its_own_only_when_asked_for(make, verbose):
    told = make(verbose)
    played(told)
    said = told.console.file.getvalue()
    for cell, index in VOID:
        assert (f"{cell}, round {index + 1}: void:" in said) == verbose
    assert told.voids.count == len(VOID)


def test_a_bar_counts_void_rounds_with_their_commonest_cause(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with telling.bar() as told:
        assert isinstance(told, Lines)
    from rich.progress import Progress, TextColumn

    console = terminal()
    with Progress(TextColumn("{task.description}"), console=console, auto_refresh=False) as shown_by:
        told = Bar(shown_by, console)
        told.doing("pair 1/3")
        told.voided("a", "void", [link_missed("after", "", -73e3)])
        told.voided("b", "void", [link_missed("before", "", 80e3), of_sentence("the host took 9% of the processors")])
        assert told.voids.text == "2 void: most often the link was off"
        assert told.progress.tasks[0].description == "pair 1/3, 2 void: most often the link was off"


# Without a terminal


def test_lines_are_sparse_and_say_how_far_it_is():
    clock, console = Clock(), Console(file=io.StringIO(), width=80)
    told = Lines(console, clock=clock)
    told.doing("compiling")
    for done in [0] * 50 + list(range(100)):  # Nothing is done for some seconds, and that is one line.
        told.counted("functions", done, 100)
    told.expect(100.0)
    for step in range(100):
        clock.now_s = float(step + 1)
        told.doing(f"round {step}")
        told.voided("x", "void", [of_sentence("the link was 3 us off")])
        told.did(1.0)
    lines = console.file.getvalue().splitlines()
    assert lines[:2] == ["compiling: 0 of 100 functions", "about 1 min 40 s left"]
    assert len(lines) == 2 + int(100 // LINE_EVERY_S)
    assert lines[2] == "round 14, 15 void: the link was off, about 1 min 20 s left"


def test_what_lasts_and_is_said_again_becomes_a_line_where_nothing_else_is_told():
    clock, console = Clock(), Console(file=io.StringIO(), width=80)
    told = Lines(console, clock=clock)
    for second in range(100):
        clock.now_s = float(second)
        told.doing(f"starting an arm, {second} s so far")
    lines = console.file.getvalue().splitlines()
    assert lines == [f"starting an arm, {second} s so far" for second in (30, 60, 90)]


def test_quiet_says_nothing_and_a_pipe_gets_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with region(quiet=True) as told:
        played(told)
        assert type(told) is Silence
    assert sys.stderr.getvalue() == ""
    with region() as told:
        assert type(told) is Lines
        played(told)
    assert "\x1b" not in sys.stderr.getvalue()


# The live region


def test_the_chart_fills_in_as_rounds_are_measured():
    region = Region(terminal())
    before = shown(region)
    recording = played(region, count=0)
    assert "Median write latency" not in before and "Median write latency in ms against miles: write" in shown(region)
    marks = [marked(shown(region))]
    for count in (4, 12, None):
        region = Region(terminal())
        played(region, count)
        marks.append(marked(shown(region)))
    assert marks[0] == 0 < marks[1] < marks[2] <= marks[3] == len(recording.cells)


def marked(text):
    """How many cells the chart shows."""
    canvas = [line for line in text.splitlines() if "│" in line or "┤" in line]
    return sum(line.count(letter) for line in canvas for letter in "AC")


def test_the_region_says_where_it_is_what_was_void_and_what_is_left():
    region = Region(terminal())
    played(region, 40)
    text = shown(region)
    assert "round" in text and " of 60 rounds, about " in text
    assert "void: the link was off" in text
    assert "us off" not in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 16), (200, 60)])
def test_the_region_fits_the_terminal(width, height):
    region = Region(terminal(width, height))
    played(region)
    lines = shown(region, width, height).splitlines()
    assert len(lines) < height and max(map(len, lines)) <= width


def test_a_low_terminal_has_no_chart():
    region = Region(terminal(80, 8))
    played(region)
    text = shown(region, 80, 8)
    assert "Median" not in text and "60 of 60 rounds" in text and len(text.splitlines()) <= 4


def test_a_continued_run_shows_what_it_has_already():
    recording = recorded()
    region = Region(terminal())
    region.begin(recording.cells, 5, recording.rounds)
    assert marked(shown(region)) == len(recording.cells)
    assert region.voids.count == len(VOID)


@pytest.mark.parametrize("ends", [None, KeyboardInterrupt, RuntimeError])
def test_the_terminal_is_as_it_was_whatever_ends_the_region(ends):
    console = terminal()
    try:
        with Region(console) as told:
            played(told, 10)
            if ends is not None:
                raise ends
    except (KeyboardInterrupt, RuntimeError):
        pass
    said = console.file.getvalue()
    assert said.rfind("\x1b[?25h") > said.rfind("\x1b[?25l") >= 0  # The cursor is shown again.


# What the pipeline tells


class Recorder(Silence):
    """Keeps the typed events."""

    def __init__(self):
        self.events = []

    def measured(self, cell, made):
        self.events.append(("measured", cell.id, made.index))

    def voided(self, what, status, reasons):
        self.events.append((status, what, tuple(map(str, reasons))))


def test_the_pipeline_tells_of_every_round_once(tmp_path, monkeypatch):
    recording = recorded()
    run = Run(recording.profile, "small", 1, tmp_path, Recorder(), cells=recording.cells[:2])
    good = next(item for item in recording.rounds if item.status == "ok")
    attempts = []

    def measure_cell(run, lab, cell, index, attempt):
        attempts.append((cell.id, index, attempt))
        void = (index, attempt) == (0, 0)
        changed = {"cell": cell.id, "index": index, "attempt": attempt}
        changed |= {"status": "void", "reasons": ["the link was 3 us off"]} if void else {}
        return msgspec.structs.replace(good, **changed)

    monkeypatch.setattr(measure, "measure_cell", measure_cell)
    monkeypatch.setattr(measure, "measure_floors", lambda *_: None)
    measure.measure(run, None)
    rounds = recording.profile.run.rounds
    told = run.progress.events
    assert [item for item in told if item[0] == "void"] == [
        ("void", f"{cell}, round 1", ("the link was 3 us off",))
        for cell, index, attempt in attempts if (index, attempt) == (0, 0)
    ]  # fmt: skip
    assert sorted(item[1:] for item in told if item[0] == "measured") == sorted(
        (cell.id, index) for cell in run.cells for index in range(rounds)
    )


# Compilation


class Counted(Silence):
    def __init__(self):
        self.text, self.counts = "", []

    def doing(self, text):
        self.text = text

    def counted(self, what, done, total):
        self.counts.append((done, total))


def compiles(functions):
    """Work that compiles so many small functions of its own."""

    def work():
        import numba

        for number in range(functions):
            numba.njit(eval(f"lambda x: x + {number}"))(1)

    return work


def test_the_count_moves_from_the_start_and_ends_where_the_work_does(monkeypatch, tmp_path):
    monkeypatch.setattr(compilation, "cache", lambda: tmp_path / "new")
    for name, functions in (("near_half", 2), ("far_half", 1), ("the_rest", 1), ("calls_half", 0)):
        monkeypatch.setattr(compilation, name, compiles(functions))
    told = Counted()
    made = compilation.compile_beside(told)
    assert made >= 4
    assert told.counts[0] == (0, compilation.FUNCTIONS) and told.counts[-1] == (made, compilation.FUNCTIONS)
    assert compilation.SECONDS in told.text


def test_how_long_it_takes_is_what_it_took_the_last_time(monkeypatch, tmp_path):
    monkeypatch.setattr(compilation, "cache", lambda: tmp_path / "new")
    assert compilation.expected() == (compilation.FUNCTIONS, compilation.SECONDS)
    for name, text, age_s in (("older", "300 40\n", 9), ("newest", "412 77\n", 1), ("before counts were kept", "", 0)):
        (tmp_path / name).mkdir()
        marker = tmp_path / name / compilation.MARKER
        marker.write_text(text)
        os.utime(marker, (time.time() - age_s,) * 2)
    assert compilation.expected() == (412, "77 s the last time")


def test_a_count_that_stands_still_is_seen_to_go_on(monkeypatch, tmp_path):
    """A large function takes a minute on a busy machine: the seconds move, on a terminal and in the lines of a pipe."""
    monkeypatch.setattr(compilation, "cache", lambda: tmp_path / "new")
    monkeypatch.setattr(compilation, "link_part", lambda: time.sleep(1.2))

    class Heard(Counted):
        heard: ClassVar[list[str]] = []

        def doing(self, text):
            self.heard.append(text)

    compilation.compile_link_beside(Heard())
    assert [re.search(r"(\d+) s so far", text)[1] for text in Heard.heard][:2] == ["0", "1"]
    clock, console = Clock(), Console(file=io.StringIO(), width=100)
    told = Lines(console, clock=clock)
    for second in range(100):
        clock.now_s = float(second)
        told.doing(f"compiling, {second} s so far")
        told.counted("functions", 3, 100)
    said = console.file.getvalue().splitlines()
    assert said[1] == f"compiling, {LINE_EVERY_S:.0f} s so far: 3 of 100 functions" and len(said) == 1 + int(99 // LINE_EVERY_S)


def test_a_link_is_compiled_without_the_engine_once(monkeypatch, tmp_path):
    cache = tmp_path / "kernels" / "of this text"  # Beside it are those of other texts.
    cache.mkdir(parents=True)
    monkeypatch.setattr(compilation, "cache", lambda: cache)
    monkeypatch.setattr(compilation, "link_part", compiles(2))
    for name in ("near_half", "far_half", "the_rest", "calls_half"):
        monkeypatch.setattr(compilation, name, raises)
    monkeypatch.setattr("farwrite.lab.precompile.rehearse_link", lambda: None)
    told = Counted()
    compilation.compile_link(told)
    assert told.counts[0] == (0, compilation.LINK_FUNCTIONS) and told.counts[-1][0] >= 2
    told.counts.clear()
    compilation.compile_link(told)
    assert told.counts == [] and not (cache / compilation.MARKER).exists()
    (cache / compilation.LINK_MARKER).unlink()
    (cache / compilation.MARKER).touch()  # Whoever has everything has the link.
    compilation.compile_link(told)
    assert told.counts == []


def test_no_compiling_process_outlives_an_interruption():
    class Interrupted(Silence):
        def counted(self, what, done, total):
            raise KeyboardInterrupt

    counts = np.zeros(1, np.int64)
    made = compilation.compiler(lambda: signal.pause(), counts, 0)
    with pytest.raises(KeyboardInterrupt):
        compilation.wait_for([made], Interrupted(), counts, 1)
    with pytest.raises(ProcessLookupError):
        os.kill(made.pid, 0)


def raises():
    os.write(2, b"a remark of Numba\n")
    raise TypeError("cannot determine the type of x")


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def leaves():
    os.write(2, b"the linker: no space left\n")
    os._exit(7)


@pytest.mark.parametrize("failing", ["near_half", "far_half", "the_rest", "calls_half"])
@pytest.mark.parametrize(("work", "words"), [
    (raises, ["ended with exit status 1", "a remark of Numba", "TypeError: cannot determine the type of x", "in raises"]),
    (dies, ["was ended by signal 9 (Killed)", "when memory is short", "It printed nothing."]),
    (leaves, ["ended with exit status 7", "the linker: no space left"]),
])  # fmt: skip
def test_a_compiling_process_that_fails_ends_the_warm_up_with_its_status_and_its_words(
    monkeypatch, tmp_path, failing, work, words
):
    monkeypatch.setattr(compilation, "cache", lambda: tmp_path)
    for name in ("near_half", "far_half", "the_rest", "calls_half"):
        monkeypatch.setattr(compilation, name, work if name == failing else compiles(0))
    before = children()
    with pytest.raises(FarwriteError) as failure:
        compilation.compile_all()
    assert failure.value.exit_code == EXIT_CRASH
    assert all(word in str(failure.value) for word in words), failure.value
    assert not (tmp_path / compilation.MARKER).exists()
    assert children() == before


def children():
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def test_what_a_compiling_process_that_succeeds_says_is_passed_on(capsys):
    counts = np.zeros(1, np.int64)
    compilation.wait_for([compilation.compiler(lambda: os.write(2, b"a warning\n"), counts, 0)], Silence(), counts, 1)
    assert capsys.readouterr().err == "a warning\n"


def test_no_command_compiles_before_that_is_shown_and_a_lab_loads_no_engine():
    code = """
import sys
from farwrite.experiment import compilation
from farwrite.cli import ended

def look(told):
    print([name for name in sys.modules if name.endswith("_kernel")], file=sys.stderr)
    raise SystemExit

compilation.compile_link = compilation.compile_all = compilation.fill_cache = look
for words in ("lab --miles 1 -- true", "lab --miles 1 --measure -- true", "survey", "simulate --seeds 1", "run quick"):
    ended(words.split())
import farwrite.experiment.repeat, farwrite.lab.precompile
print([name for name in sys.modules if name.startswith(("farwrite.engine", "farwrite.targets"))], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line for line in done.stderr.splitlines() if line.startswith("[")] == ["[]"] * 6, done.stderr


def test_nothing_is_compiled_before_it_is_shown():
    code = "import sys, farwrite.experiment.compilation; print([name for name in sys.modules if name.endswith('_kernel')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
