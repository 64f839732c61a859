"""Drills on a real lab whose load is not what it should be at the fault: each is kept, says why, and is in no bound."""

import os
import signal
import time
from types import SimpleNamespace

import msgspec
import pytest
from small_lab import LINK, any_link, lab_or_skip

from farwrite.analysis.drill import drill_results
from farwrite.base.errors import UnfitError
from farwrite.base.reasons import joined
from farwrite.base.row import rows_of
from farwrite.base.shared_counters import SharedCounters
from farwrite.base.units import NS_PER_MS, NS_PER_S
from farwrite.experiment import measure, sides
from farwrite.experiment import run as running
from farwrite.experiment import run_journal as runs
from farwrite.experiment.drill import drills
from farwrite.progress import Silence
from farwrite.workload.profile import parse

pytestmark = [pytest.mark.lab, any_link]

PROFILE = """
title = "Drills"

[lab]
durability = "memory"
journal = "16 MiB"
volume = "16 MiB"

[distance]
miles = [20]

[[cell]]
name = "write"
protocols = ["C"]

[drill]
kills = 1
miles = 20
protocols = ["C"]
load = "100 ms"
cut = "100 ms"
"""
PERFORM = {"kill": drills.kill_drill, "cut": drills.cut_drill}
WRITE = sides.write
ALIVE_NS_MIN = drills.ALIVE_NS_MIN


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    profile = parse(PROFILE, changes=[f"lab.link={LINK}"])
    return runs.begin(profile, "drills", 1, tmp_path_factory.mktemp("run") / "out", Silence())


@pytest.fixture(scope="module")
def lab(run):
    with lab_or_skip(measure.lab_spec(run.profile, run.directory)) as lab:
        yield lab


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A machine whose processors are taken acknowledges nothing for a second, and no trial here is about that."""
    monkeypatch.setattr(drills, "ALIVE_NS_MIN", 60 * NS_PER_S)


@pytest.fixture
def plant(lab, monkeypatch):
    """A monkeypatch that is gone before the sites' processes are forked anew."""
    yield monkeypatch
    monkeypatch.undo()
    lab.revive()


def after_the_load(monkeypatch, fault):
    """Plant a fault between the load and what is done to it."""
    real = drills.load_for

    def load_for(lab, seconds):
        real(lab, seconds)
        fault(lab)

    monkeypatch.setattr(drills, "load_for", load_for)


def kill_near(lab):
    os.kill(lab.near.process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, lab.near.process.pid, os.WEXITED | os.WNOWAIT)


def stop_near(lab):
    os.kill(lab.near.process.pid, signal.SIGSTOP)
    time.sleep(2 * ALIVE_NS_MIN / 1e9)


def write_that_fails(*arguments):
    """The near side of an engine that stops with an error when half of its load is over."""
    observed = WRITE(*arguments)
    return msgspec.structs.replace(observed, status=-28)


def write_that_does_nothing(*arguments):
    time.sleep(600)


def write_that_never_begins(*arguments):
    raise UnfitError("meet the far site: Connection refused.")


def near_died(monkeypatch):
    after_the_load(monkeypatch, kill_near)


def stalled(monkeypatch):
    monkeypatch.setattr(drills, "ALIVE_NS_MIN", ALIVE_NS_MIN)
    after_the_load(monkeypatch, stop_near)


def load_ended(monkeypatch):
    for planned in ("kill_load_ns", "cut_load_ns"):
        monkeypatch.setattr(drills, planned, lambda *arguments: 10 * NS_PER_MS)
    after_the_load(monkeypatch, lambda lab: lab.near.poll(60.0))


def engine_stopped(monkeypatch):
    load_ended(monkeypatch)
    monkeypatch.setattr(sides, "write", write_that_fails)


def nothing_acknowledged(monkeypatch):
    monkeypatch.setattr(drills, "BEGIN_NS_MAX", 300 * NS_PER_MS)
    monkeypatch.setattr(sides, "write", write_that_does_nothing)


FAULTS = {
    "near-died": near_died, "stalled": stalled, "load-ended": load_ended, "engine-stopped": engine_stopped,
    "nothing-acknowledged": nothing_acknowledged,
}  # fmt: skip


@pytest.mark.parametrize("kind", PERFORM)
def test_a_trial_whose_load_was_alive_counts(run, lab, kind):
    made = PERFORM[kind](run, lab, "C", 0)
    assert made.uncounted is None and made.audit.completed > 0
    assert 0 <= made.last_ack_age_ns <= made.alive_ns
    (found,) = drill_results([made])
    assert (found.count, found.uncounted) == (1, {})


@pytest.mark.parametrize("kind", PERFORM)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_trial_whose_load_was_not_alive_at_the_fault_does_not_count_and_says_why(run, lab, plant, kind, fault):
    FAULTS[fault](plant)
    made = PERFORM[kind](run, lab, "C", 1)
    assert made.uncounted == fault
    assert (made.audit.lost, made.audit.damaged) == (0, 0)
    assert made.completed_during_cut is None and made.recovery_time_ns is None
    (found,) = drill_results([made])
    assert (found.count, found.loss_probability_high, found.uncounted) == (0, None, {fault: 1})
    if fault == "engine-stopped":
        assert made.note == os.strerror(28)


def test_a_near_side_that_never_began_is_a_trial_with_its_reason(run, lab, plant):
    plant.setattr(sides, "write", write_that_never_begins)
    made = drills.kill_drill(run, lab, "C", 2)
    assert (made.uncounted, made.audit.completed, made.note) == ("engine-stopped", 0, "meet the far site: Connection refused.")


def test_the_lab_is_whole_again_after_trials_that_did_not_count(run, lab):
    assert drills.cut_drill(run, lab, "C", 3).uncounted is None


def test_a_recovery_that_never_comes_is_not_waited_for_without_end():
    near = SimpleNamespace(board=SimpleNamespace(counters=rows_of(SharedCounters)), poll=lambda seconds: False)
    found = drills.recovery_after(SimpleNamespace(near=near), 0, time.monotonic_ns(), "C", limit_ns=20 * NS_PER_MS)
    assert found is None


@pytest.mark.parametrize("load_ms", [1, 300, 60_000])
@pytest.mark.parametrize("cut_ms", [1, 400, 60_000])
def test_a_planned_load_outlasts_everything_that_is_waited_for(load_ms, cut_ms):
    table = parse(PROFILE, changes=[f"drill.load={load_ms} ms", f"drill.cut={cut_ms} ms"]).drill
    assert drills.kill_load_ns(table) > drills.BEGIN_NS_MAX + drills.LOAD_SHARES[1] * table.load_ns
    rtt_ns = 50 * NS_PER_MS
    waited_ns = drills.BEGIN_NS_MAX + table.load_ns + max(table.cut_ns, rtt_ns + drills.GRACE_NS) + drills.recovery_ns_max(table)
    assert drills.cut_load_ns(table, rtt_ns) > waited_ns + table.load_ns


def test_a_run_says_at_once_which_drills_do_not_count_and_keeps_them(run, lab, plant):
    near_died(plant)
    again = runs.begin(run.profile, "drills", 1, run.directory.parent / "uncounted", Silence())
    said = []
    again.progress.say = said.append
    measure.drill(again, lab)
    assert [item.uncounted for item in again.drills] == ["near-died", "near-died"]
    assert runs.resume(again.directory, Silence()).drills == again.drills
    assert said[0].startswith("kill 1 under C does not count (near-died")
    again.cells, again.lab_facts = [], measure.facts_of(lab)
    report = running.finished(again)
    assert "kill drills under C: 1 kill does not count" in joined(report.analysis.warnings)
