"""A whole run, very short, on a real lab: nothing lost, all accounted for, and an interrupted one goes on where it stopped.

Whether a round's link was precise enough is the machine's affair, so rounds may be void; then they say why, and what a round's
writes did is looked at all the same. Only a round that failed has nothing to be looked at, and none of these may.
"""

import dataclasses
import io
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console
from small_lab import LINK, compiled, lab_or_skip, link_here, skip_if_forbidden, small

from farwrite import recording
from farwrite.analysis import document_of
from farwrite.base.errors import UnfitError, UsageError
from farwrite.base.histogram import Histogram
from farwrite.base.host.disk import file_system_of
from farwrite.base.protocol import PROMISES
from farwrite.commands.measuring import Session
from farwrite.commands.run import run as run_command
from farwrite.experiment import measure
from farwrite.experiment import round as rounds
from farwrite.experiment import run as running
from farwrite.experiment import run_journal as runs
from farwrite.experiment.cells import cells_of
from farwrite.experiment.outcome import outcome
from farwrite.progress import Silence
from farwrite.report.terminal import show
from farwrite.workload.link_spec import tolerance_ns
from farwrite.workload.profile import parse

pytestmark = pytest.mark.lab

SEED = 3
SHM = Path("/dev/shm")
BIN_SHARE = 0.01  # A value and its histogram's differ by less; histogram.py.
PROFILE = """
title = "As short as it gets"

[lab]
durability = "memory"
journal = "16 MiB"
volume = "16 MiB"

[distance]
miles = [0, 20]

[run]
rounds = 2
round = "100 ms"
survey_echoes = 10
floor_flushes = 5
retries = 1

[[cell]]
name = "write"
protocols = ["local", "A", "B", "C", "C2"]
queue_depth = 4

[[cell]]
name = "three"
protocols = ["C", "quorum"]
miles = [0]
other_miles = [150]

[drill]
kills = 1
miles = 20
protocols = ["C"]
load = "100 ms"
cut = "200 ms"
"""


def profile():
    return parse(PROFILE, changes=[f"lab.link={LINK}"])


@pytest.fixture(scope="module")
def run_and_report(tmp_path_factory):
    """The run and what it found, made once for this file."""
    compiled()
    run = runs.begin(profile(), "short", SEED, tmp_path_factory.mktemp("run") / "out", Silence())
    try:
        return run, running.execute(run)
    except UnfitError as refusal:
        skip_if_forbidden(refusal)
        raise


@pytest.fixture
def run(run_and_report):
    return run_and_report[0]


@pytest.fixture
def report(run_and_report):
    return run_and_report[1]


def rounds_where(report, condition):
    """The rounds of the cells that this holds for; there are some, or nothing is tested."""
    cells = {cell.id: cell for cell in report.recording.cells}
    found = [(cells[item.cell], item) for item in report.recording.rounds if condition(cells[item.cell])]
    assert {item.index for _, item in found} == set(range(report.recording.profile.run.rounds))
    assert not [item.reasons for _, item in found if item.status == "failed"]
    return found


def count_of(text):
    """How many values a stored histogram holds."""
    return Histogram.decode(text).count


# What was measured.


def test_every_round_notes_what_else_the_machine_did(report):
    for item in report.recording.rounds:
        noise = item.noise
        assert noise is not None and noise.duration_ns > 0
        # A round whose plan a quick disk has used up ends with it.
        assert noise.duration_ns >= item.duration_ns or item.cell.startswith("write-local")
        if noise.foreign_share is None:
            pytest.skip("this kernel does not count what threads ran")
        assert 0 < noise.own_share <= 1 and 0 <= noise.foreign_share <= 1
        assert noise.near_run_delay_ns >= 0 and noise.far_run_delay_ns >= 0 and noise.link_run_delay_ns >= 0
        assert (noise.far_run_delay_ns > 0) == ("local" not in item.cell) or item.status == "failed"


def test_a_host_that_takes_half_the_processors_makes_no_round_void_and_no_verdict_on_latency(tmp_path, monkeypatch):
    compiled()
    monkeypatch.setattr(rounds, "steal_between", lambda before, after: 0.5)
    # The writer alone, besides one cell: whether a link was precise must not decide here.
    short = ["cell.write.protocols=['local']", "run.rounds=1", "run.retries=0", "drill.kills=0"]
    made = runs.begin(parse(PROFILE, changes=[f"lab.link={LINK}", *short]), "taken", SEED, tmp_path / "out", Silence())
    try:
        found = running.execute(made)
    except UnfitError as refusal:
        skip_if_forbidden(refusal)
        raise
    assert {item.steal for item in found.recording.rounds} == {0.5}
    assert not any("host took" in reason for item in found.recording.rounds for reason in item.reasons)
    good = [cell for cell in found.analysis.cells if cell.rounds_ok]
    assert good
    for cell in good:
        assert any("host-noise: the host took 50.0%" in str(text) for text in cell.host_noise)


def test_the_link_is_the_one_this_kernel_has(report):
    assert report.recording.lab.link == link_here()


@pytest.mark.skipif(file_system_of(SHM) != "tmpfs", reason="no tmpfs at /dev/shm")
def test_a_journal_in_shared_memory_is_called_what_it_is(report, tmp_path):
    with lab_or_skip(dataclasses.replace(small(directory=tmp_path), near=SHM)) as lab:
        facts = measure.facts_of(lab)
    expected = {"near": "tmpfs is memory"} | ({"far": facts.far_not_durable} if facts.far_not_durable else {})
    assert (facts.near_file_system, facts.durability, facts.not_durable) == ("tmpfs", "disk", expected)
    made = document_of(msgspec.structs.replace(report.recording, lab=facts))
    file = io.StringIO()
    show(made, made.analysis, Console(file=file, width=80), full=True)
    text = " ".join(file.getvalue().split())
    assert "not durable" in text and "tmpfs is memory" in text and "journals on disk" not in text


def test_no_acknowledged_write_is_lost_or_damaged_in_any_round(report):
    assert report.recording.rounds
    for item in report.recording.rounds:
        assert item.audit is not None, item.reasons
        assert (item.audit.lost, item.audit.damaged) == (0, 0)
        assert item.audit.completed == item.completed > 0
        assert item.audit.survived >= item.completed


def test_every_cell_is_measured_in_every_round_until_it_is_good_or_retries_are_used_up(report):
    made = report.recording
    for cell in made.cells:
        for index in range(made.profile.run.rounds):
            attempts = [item for item in made.rounds if (item.cell, item.index) == (cell.id, index)]
            assert [item.attempt for item in attempts] == list(range(len(attempts)))
            assert all(item.status != "ok" for item in attempts[:-1])
            assert attempts[-1].status == "ok" or len(attempts) == made.profile.run.retries + 1
    assert len({item.cell for item in made.rounds}) == 12


def test_a_round_has_reasons_exactly_when_it_is_not_good(report):
    for item in report.recording.rounds:
        assert (item.status == "ok") == (not item.reasons)
        assert all(item.reasons)


def test_a_round_is_void_for_its_link_exactly_when_a_survey_shows_it(report):
    for cell, item in rounds_where(report, lambda cell: cell.asked_rtt_ns and cell.protocol != "local"):
        for when, text in (("before", item.survey_before), ("after", item.survey_after)):
            survey = Histogram.decode(text)
            assert survey.count == report.recording.profile.run.survey_echoes
            # The judge had the exact median, between the two values in the middle; a histogram has bins.
            off_ns = [survey.quantile(q) - cell.asked_rtt_ns for q in (0.5, 0.5 + 0.5 / survey.count)]
            bin_ns = BIN_SHARE * survey.quantile(0.5)
            least_ns = 0 if off_ns[0] < 0 < off_ns[1] else min(map(abs, off_ns))
            is_said = any(reason.startswith(f"the link {when} the round was ") for reason in item.reasons)
            assert is_said or least_ns <= tolerance_ns(cell.asked_rtt_ns) + bin_ns
            assert not is_said or max(map(abs, off_ns)) >= tolerance_ns(cell.asked_rtt_ns) - bin_ns
            assert not (is_said and item.status == "ok")


def test_every_write_of_a_round_is_accounted_for(report):
    for item in report.recording.rounds:
        assert item.issued == item.completed + item.unacknowledged
        assert count_of(item.service) == count_of(item.wait) == item.completed
        assert sum(count_of(part.response) for part in item.slices) == sum(part.completed for part in item.slices)
        assert sum(part.completed for part in item.slices) <= item.completed
        assert item.completed_bytes == 4096 * item.completed


def test_a_write_is_never_faster_than_the_distances_its_protocol_waits_for(report):
    looked_at = set()
    for cell, item in rounds_where(report, lambda cell: PROMISES[cell.protocol].durable_there):
        link = recording.waited_for(cell, item)
        if cell.miles or link is not item:
            fastest_ns = min(Histogram.decode(text).quantile(0) for text in (link.survey_before, link.survey_after))
            # An echo is delay and overhead, and a write cannot spare the delay; of 20 miles that is more than half.
            assert Histogram.decode(item.service).quantile(0) > PROMISES[cell.protocol].trips * fastest_ns / 2
            looked_at.add(cell.id)
    assert looked_at == {"write-C-20", "write-C2-20", "three-C-0"}


def test_a_quorum_does_not_wait_for_its_furthest_replica(report):
    for _, item in rounds_where(report, lambda cell: cell.id == "three-quorum-0"):
        far = item.others[0]
        slowest_ns = min(Histogram.decode(text).quantile(0) for text in (far.survey_before, far.survey_after))
        assert Histogram.decode(item.service).quantile(0) < slowest_ns / 2


def test_every_replica_is_sent_every_write_and_audited(report):
    for _, item in rounds_where(report, lambda cell: cell.name == "three"):
        assert item.wire_bytes >= 2 * 4096 * item.issued
        assert [other.survived for other in item.others] == [item.issued]  # It has caught up before it was told goodbye.
        assert all(other.far_flushes > 0 and other.link["packets"] > 0 for other in item.others)
        assert item.catch_up_ns is not None


def test_protocols_use_the_link_as_they_say(report):
    protocol = {cell.id: cell.protocol for cell in report.recording.cells}
    for item in report.recording.rounds:
        if protocol[item.cell] == "local":
            assert item.wire_bytes == item.far_flushes == 0
        else:
            assert item.wire_bytes >= item.issued * 4096
            assert item.peer_timeout_ns >= 1_000_000_000
            assert item.far_flushes > 0
            assert item.link["packets"] > 0
        assert item.link["drops"] == item.link["cut_drops"] == 0
        assert (item.lag is not None) == (protocol[item.cell] in ("A", "B"))


def test_bare_flushes_are_measured_once_per_round(report):
    assert [(item.index, item.size_bytes) for item in report.recording.floors] == [(0, 8192), (1, 8192)]
    assert all(count_of(item.far_both) == 5 for item in report.recording.floors)


def test_a_lost_near_site_costs_no_write_acknowledged_under_c(report):
    (kill,) = [item for item in report.recording.drills if item.kind == "kill"]
    assert kill.audit.completed > 0
    assert (kill.audit.lost, kill.audit.damaged, kill.lost_bytes, kill.recovery_point_ns) == (0, 0, 0, 0)


def test_a_cut_link_stops_acknowledgements_under_c_and_nothing_is_lost(report):
    (cut,) = [item for item in report.recording.drills if item.kind == "cut"]
    assert cut.completed_during_cut == 0
    assert (cut.audit.lost, cut.audit.damaged) == (0, 0)
    assert cut.recovery_time_ns is None or cut.recovery_time_ns > 0
    assert (cut.recovery_time_ns is not None) or cut.note


def test_the_report_decodes_again_as_it_was_written(run, report):
    again = recording.read(run.directory)
    assert again.recording == report.recording
    assert msgspec.to_builtins(again.analysis) == msgspec.json.decode(msgspec.json.encode(report.analysis))


def test_the_outcome_is_good_when_anything_was_measured_and_strict_asks_for_every_cell(report):
    good = {item.cell for item in report.recording.rounds if item.status == "ok"}
    assert (outcome(report) is None) == bool(good)
    if len(good) < len(report.recording.cells):
        assert outcome(report, strict=True) is not None


def test_the_journal_holds_what_the_report_holds(run, report):
    again = runs.resume(run.directory, Silence())
    assert again.rounds == report.recording.rounds
    assert again.floors == report.recording.floors
    assert again.drills == report.recording.drills
    assert (again.profile, again.seed) == (run.profile, run.seed)


# What is interrupted.


def cut_off(run, directory, line_count, torn=b""):
    """The run's journal as it was after so many lines, in a directory of its own."""
    directory.mkdir()
    lines = run.journal.read_bytes().splitlines(keepends=True)
    (directory / "cells.jsonl").write_bytes(b"".join(lines[:line_count]) + torn)
    return directory


class PaperLab:
    """A lab on paper: nothing is measured, so that only the bookkeeping is seen."""

    spans = ()

    def flush_floors(self, size, count):
        return dict.fromkeys(("near_alone", "far_alone", "near_both", "far_both"), np.full(count, size))


@pytest.fixture
def on_paper(monkeypatch, report):
    """Rounds and drills that are copies of measured ones, good at once."""
    good = report.recording.rounds[0]

    def copied_round(run, lab, cell, index, attempt):
        return msgspec.structs.replace(good, cell=cell.id, index=index, attempt=attempt, status="ok", reasons=[])

    def copied_drill(kind):
        return lambda run, lab, protocol, index: next(
            msgspec.structs.replace(item, protocol=protocol, index=index)
            for item in report.recording.drills
            if item.kind == kind
        )

    monkeypatch.setattr(measure, "measure_cell", copied_round)
    monkeypatch.setattr(measure, "kill_drill", copied_drill("kill"))
    monkeypatch.setattr(measure, "cut_drill", copied_drill("cut"))


def go_on(directory):
    """Continue the run in `directory` on paper; answers (the run, how many lines its journal had when it went on)."""
    again = runs.resume(directory, Silence())
    again.cells = cells_of(again.profile)
    before = len(again.journal.read_bytes().splitlines())
    measure.measure(again, PaperLab())
    measure.drill(again, PaperLab())
    return again, before


def test_a_run_cut_off_after_any_line_measures_only_what_is_missing(run, on_paper, tmp_path):
    lines = run.journal.read_bytes().splitlines()
    for line_count in range(1, len(lines) + 1):
        again, before = go_on(cut_off(run, tmp_path / str(line_count), line_count))
        assert before == line_count
        good = [(item.cell, item.index) for item in again.rounds if item.status == "ok"]
        assert sorted(good) == sorted((cell.id, index) for cell in again.cells for index in range(2))
        assert [item.index for item in again.floors] == sorted({item.index for item in again.floors})
        assert sorted(item.kind for item in again.drills) == ["cut", "kill"]
        decided = again.awake is not None  # Not where only the heading was left.
        assert len(lines_of(again)) == 1 + decided + len(again.rounds) + len(again.floors) + len(again.drills)
        assert lines_of(again)[:line_count] == lines[:line_count]


def lines_of(run):
    return run.journal.read_bytes().splitlines()


@pytest.mark.parametrize("seed", range(5))
def test_a_line_that_was_cut_off_is_measured_again(run, on_paper, tmp_path, seed):
    dice = random.Random(seed)
    lines = run.journal.read_bytes().splitlines()
    line_count = dice.randrange(1, len(lines))
    torn = lines[line_count][: dice.randrange(1, len(lines[line_count]))]
    again, before = go_on(cut_off(run, tmp_path / "torn", line_count, torn))
    assert before == line_count
    assert len({(item.cell, item.index) for item in again.rounds if item.status == "ok"}) == 24


def test_a_run_that_goes_on_is_kept_awake_as_it_began_whatever_would_be_chosen_now(run, report, tmp_path):
    lab = report.recording.lab
    assert lab.keep_awake in ("qos", "spinner", "none") and lab.keep_awake_reason
    directory = cut_off(run, tmp_path / "awake", 4)
    journal = directory / "cells.jsonl"
    entry = msgspec.json.encode({"type": "entry", "awake": {"chosen": "spinner", "reason": "it was so"}})
    lines = [entry if b'"awake":{' in line else line for line in journal.read_bytes().splitlines()]
    journal.write_bytes(b"\n".join(lines) + b"\n")
    again = runs.resume(directory, Silence())
    assert (again.awake.chosen, again.awake.reason) == ("spinner", "it was so")
    assert running.as_begun(again).lab.keep_awake == "spinner" and again.profile.lab.keep_awake == "auto"


def test_a_damaged_line_in_the_middle_is_refused_by_its_number(run, tmp_path):
    directory = cut_off(run, tmp_path / "damaged", 5)
    lines = (directory / "cells.jsonl").read_bytes().splitlines()
    (directory / "cells.jsonl").write_bytes(b"\n".join([*lines[:2], b'{"type":"entry","round":3}', *lines[3:]]) + b"\n")
    with pytest.raises(UsageError, match="line 3"):
        runs.resume(directory, Silence())


def test_a_run_that_fails_half_way_says_how_to_go_on(run, tmp_path, monkeypatch):
    directory = cut_off(run, tmp_path / "failed", 5)

    def fails(made):
        raise UnfitError("connect to the far site at 10.0.0.2: Connection timed out.")

    monkeypatch.setattr(running, "execute", fails)
    with pytest.raises(UnfitError, match=f"timed out. [0-9]+ rounds are kept; go on with: farwrite run --resume {directory}$"):
        run_command(session=Session(resume=directory))


def test_a_directory_with_a_run_is_not_written_over(run):
    with pytest.raises(UsageError, match="--resume"):
        runs.begin(profile(), "short", SEED, run.directory, Silence())


def test_a_run_that_is_continued_on_a_real_lab_ends_as_one_run(run, report, tmp_path):
    lines = run.journal.read_bytes().splitlines()
    again = runs.resume(cut_off(run, tmp_path / "again", len(lines) - 3), Silence())
    old = list(again.rounds)
    assert running.as_begun(again).lab.keep_awake == report.recording.lab.keep_awake
    made = running.execute(again).recording
    assert made.rounds[: len(old)] == old
    assert made.profile == report.recording.profile
    assert (made.lab.keep_awake, made.lab.keep_awake_reason) == (again.awake.chosen, again.awake.reason)
    assert {item.cell for item in made.rounds} == {cell.id for cell in made.cells}
    assert all(item.audit and (item.audit.lost, item.audit.damaged) == (0, 0) for item in made.rounds)
    assert sorted(item.kind for item in made.drills) == ["cut", "kill"]
    assert any(note.startswith("continued at") for note in made.notes)
    assert made.started_utc == report.recording.started_utc


class CtrlC(Silence):
    """A person who presses Ctrl-C when so much has been done."""

    def __init__(self, steps):
        self.left = steps

    def did(self, seconds):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_an_interrupted_run_is_saved_as_far_as_it_came_and_can_be_continued(run, tmp_path):
    interrupted = runs.begin(profile(), "short", SEED, tmp_path / "out", CtrlC(steps=2))
    made = running.execute(interrupted)
    assert made.recording.interrupted
    assert len({item.cell for item in made.recording.rounds}) == 2
    assert recording.read(interrupted.directory).recording == made.recording
    assert len(runs.resume(interrupted.directory, Silence()).rounds) == len(made.recording.rounds)
