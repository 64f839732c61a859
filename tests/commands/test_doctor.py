"""`farwrite doctor`: what it says is what the machine answers, and every finding that is not ok says what to do."""

import json
import os
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from console import farwrite
from farwrite.base.errors import EXIT_UNFIT
from farwrite.base.host.facts import host_facts
from farwrite.lab import keep_awake as awake
from farwrite.lab.doctor import emulation, machine
from farwrite.lab.doctor.finding import Diagnosis, Finding
from farwrite.lab.keep_awake_trial import Times, Trial
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
        Finding(
            name="flush", state="missing", sentence="write in /: Read-only file system.", mend="name another directory"
        ),
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


def test_doctor_and_a_lab_give_one_answer(tmp_path, monkeypatch):
    """Of what keeps the machine awake, and why: both ask the same function, whatever it finds."""
    device, driver = tmp_path / "cpu_dma_latency", tmp_path / "current_driver"
    same = Trial(*(Times([100] * 20, [100] * 20) for _ in range(3)))
    monkeypatch.setattr(
        awake, "HERE", awake.Machine(device, driver, tmp_path / "ns", lambda: True, lambda directory: same)
    )
    device.touch()
    for idle, chosen, state in (("haltpoll", "qos", "ok"), ("none", "none", "poor")):
        driver.write_text(idle)
        found, decided = emulation.keep_awake(tmp_path), awake.decide("auto", tmp_path)
        assert (decided.chosen, found.state, found.mend) == (chosen, state, decided.mend)
        assert decided.reason in found.sentence and f"keep_awake = {chosen}" in found.sentence
        assert found.numbers["keep_awake"] == chosen and "lab.keep_awake=true" not in found.mend
