"""`farwrite doctor`: what it says is what the machine answers, and every finding that is not ok says what to do."""

import dataclasses
import json
import os
import time
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from console import farwrite
from farwrite.doctor import emulation, machine
from farwrite.doctor.finding import Diagnosis, Finding
from farwrite.errors import EXIT_UNFIT
from farwrite.host.facts import host_facts
from farwrite.lab.awake import awake
from farwrite.lab.process import process
from farwrite.recording import LabFacts
from farwrite.report.doctor import show_diagnosis

NAMES = {
    "kernel", "namespaces", "netem", "TUN", "files", "flush", "io_uring", "congestion control", "timers", "clock", "processors",
    "governor", "memory", "other load", "sleepiness",
}  # fmt: skip


def test_the_document_has_every_finding_once_and_a_mend_for_what_is_not_ok(tmp_path):
    done = farwrite("doctor", "--json", "--out", tmp_path)
    made = msgspec.json.decode(done.stdout, type=Diagnosis)
    assert done.returncode == (0 if made.fit else EXIT_UNFIT)
    assert made.links[-1] == "relay"
    names = [finding.name for finding in made.findings]
    assert len(names) == len(set(names)) and set(names) >= NAMES
    assert {finding.name for finding in made.findings if finding.state == "missing" and not finding.mend} <= {"netem"}
    assert list(tmp_path.iterdir()) == []


def test_the_report_says_what_can_be_emulated_first(tmp_path):
    done = farwrite("doctor", "--out", tmp_path / "not" / "made")
    assert "A distance can be emulated here" in done.stdout.split("\n")[0]
    assert not (tmp_path / "not").exists()
    assert all(len(line.rstrip()) <= 80 for line in done.stdout.splitlines())


def test_a_machine_on_which_nothing_can_run_is_told_what_to_do():
    found = [
        Finding(name="namespaces", state="missing", sentence="unshare: Operation not permitted.", mend="run as root"),
        Finding(name="netem", state="missing", sentence="Cannot be tried without a namespace."),
        Finding(name="TUN", state="ok", sentence="The ferry can carry packets."),
        Finding(name="flush", state="missing", sentence="write in /: Read-only file system.", mend="name another directory"),
    ]
    made = Diagnosis(farwrite="1", links=emulation.links_of(found), findings=found, took_s=1.0)
    assert not made.fit
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: PTH123
    show_diagnosis(made, console)
    said = console.export_text()
    assert "Nothing can be measured here" in said and "→ run as root" in said and "→ name another directory" in said


@pytest.mark.parametrize(
    ("states", "links"),
    [(("ok", "ok", "ok"), ["netem", "ferry", "relay"]), (("ok", "missing", "ok"), ["ferry", "relay"]),
     (("ok", "missing", "missing"), ["relay"]), (("missing", "missing", "ok"), ["relay"])],
)  # fmt: skip
def test_packets_need_a_namespace_and_netem_or_tun_and_streams_nothing(states, links):
    names = ("namespaces", "netem", "TUN")
    found = [Finding(name=name, state=state, sentence="") for name, state in zip(names, states, strict=True)]
    assert emulation.links_of(found) == links


def test_a_forbidden_namespace_names_the_setting_that_forbids_it(monkeypatch):
    def refused(count):
        raise emulation.UnfitError("unshare(CLONE_NEWUSER): Operation not permitted. Long advice.")

    monkeypatch.setattr(emulation, "namespaces", refused)
    monkeypatch.setattr(emulation, "text_of", lambda path: "1" if "apparmor" in path else None)
    found = emulation.namespace_finding()
    assert (found.state, found.mend) == ("missing", "sysctl kernel.apparmor_restrict_unprivileged_userns=0")
    assert found.sentence == "unshare(CLONE_NEWUSER): Operation not permitted."


@pytest.mark.parametrize(("source", "state"), [("tsc", "ok"), ("hpet", "poor")])
def test_a_clock_that_is_slow_to_read_is_poor(monkeypatch, source, state):
    answers = {"current_clocksource": source, "available_clocksource": "tsc hpet"}
    monkeypatch.setattr(machine, "text_of", lambda path: answers.get(Path(path).name))
    monkeypatch.setattr(machine, "CLOCK_NS_MAX", 1e9)
    found = machine.clock()
    assert found.state == state
    assert ("echo tsc >" in found.mend) == (state == "poor")


def test_the_facts_of_every_recording_tell_of_timers_and_congestion_control():
    facts = host_facts()
    assert facts["timer_late_ns"]["p99"] >= facts["timer_late_ns"]["p50"] >= 0
    assert json.loads(json.dumps(facts)) == facts
    assert facts["cpu_usable"] == len(os.sched_getaffinity(0))


def test_a_recording_made_before_machines_were_kept_awake_can_be_read():
    assert {field.name: field.default for field in msgspec.structs.fields(LabFacts)}["keep_awake"] is False


def spinners():
    """Children of ours that are of idle priority."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            if int(words[1]) == os.getpid() and words[0] != "Z" and os.sched_getscheduler(int(entry.name)) == os.SCHED_IDLE:
                found.append(int(entry.name))
    return found


def wait_for(true):
    until_s = time.monotonic() + 20
    while not true() and time.monotonic() < until_s:
        time.sleep(0.01)
    return true()


def test_one_spinner_of_idle_priority_runs_on_one_processor_as_long_as_it_is_wanted():
    with awake(False):
        assert spinners() == []
    with awake():
        assert wait_for(lambda: len(spinners()) == 1)
        (pid,) = spinners()
        assert wait_for(lambda: len(os.sched_getaffinity(pid)) == 1)
    assert spinners() == []


def test_a_spinner_dies_with_whoever_wanted_it(tmp_path):
    with process("keeper") as keeper:
        keeper.start(spun_by_a_child, str(tmp_path / "pid"))
        assert wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
        spinner = int((tmp_path / "pid").read_text())
        keeper.kill()
    assert wait_for(lambda: not Path(f"/proc/{spinner}").exists() or state_of(spinner) == "Z")


def spun_by_a_child(place):
    """In a process: keep awake, say who spins, and stay."""
    with awake():
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        Path(place).write_text(f"{children[-1]}\n")
        time.sleep(600)


def state_of(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "Z"


def test_a_profile_can_ask_for_it():
    from farwrite.pipeline import lab_spec
    from farwrite.profile import load

    assert not lab_spec(load("quick"), Path()).keep_awake
    spec = lab_spec(load("quick", ["lab.keep_awake=true"]), Path())
    assert dataclasses.asdict(spec)["keep_awake"] is True
