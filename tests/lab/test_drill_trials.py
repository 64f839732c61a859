"""Trials of drills in a real lab: a primary killed, everything else done to it, and a replica that drops writes and is caught."""

import pytest
from small_lab import LINK, any_link, compiled, skip_if_forbidden

from farwrite.analysis.drill_answer import judge
from farwrite.analysis.drill_recording import ACKED, KIND, SCHEMA_VERSION, DrillRecording
from farwrite.base.errors import UnfitError
from farwrite.commands.drill import setups_of
from farwrite.experiment.drill import campaign, desk
from farwrite.experiment.drill.trial import play
from farwrite.lab.lab import open_lab
from farwrite.workload.drill_scenario import parse

pytestmark = [pytest.mark.lab, any_link]

SETUP, = setups_of("150", "C", "consent", None, False, 200.0, 64, "4k", "250 ms", "1 s", 1, 1)  # fmt: skip
KILLED = """
title = "The primary is killed and comes back"
end = "2 s"
[[event]]
at = "300 ms"
action = "kill"
site = "near"
[[event]]
at = "1500 ms"
action = "restart"
site = "near"
"""
EVERYTHING = """
title = "What else can be done"
end = "2500 ms"
[[event]]
at = "200 ms"
action = "stop"
site = "far"
[[event]]
at = "400 ms"
action = "continue"
site = "far"
[[event]]
at = "600 ms"
action = "blackhole"
link = ["far", "near"]
[[event]]
at = "800 ms"
action = "heal"
link = ["near", "far"]
[[event]]
at = "1 s"
action = "kill"
site = "third"
[[event]]
at = "1300 ms"
action = "restart"
site = "third"
[[event]]
at = "1600 ms"
action = "switch-over"
site = "far"
"""


@pytest.fixture(scope="module")
def lab():
    """Three sites in a mesh, at their distance."""
    compiled()
    campaign.rehearse()
    try:
        opened = open_lab(campaign.lab_spec("auto" if LINK == "relay" else LINK))
        with opened as made:
            for span, leg in zip((made, made.others[0], made.between[0]), campaign.legs(SETUP.miles), strict=True):
                span.set_distance(leg.asked)
            if made.choice.kind == "relay":
                pytest.skip("No way to emulate a distance between three sites")
            yield made
    except UnfitError as refusal:
        skip_if_forbidden(refusal)
        raise


def judged(lab, text):
    """(trial, its judgement) of one play of a scenario."""
    scenario = parse(text, "d.toml")
    made = play(lab, scenario, SETUP, 0)
    recording = DrillRecording(
        schema_version=SCHEMA_VERSION, kind=KIND, farwrite="0", name="x", started_utc="", command=[], scenario=scenario,
        setup=SETUP, link="", links=[], disk="memory", host={}, trials=[made],
    )  # fmt: skip
    return made, judge(made, recording)


def test_no_acknowledged_write_is_missing_after_the_primary_was_killed(lab):
    made, answer = judged(lab, KILLED)
    assert not made.unknown and answer.verdict.is_clean and not answer.differs
    assert answer.verdict.acked == made.history.outcome.count(ACKED) > 50
    if answer.counts and not made.repaired:  # On a machine that stands still for seconds anything may have happened before.
        assert made.connections[0].node == "near" and answer.recoveries[0].led_by == "far"


def test_replicas_that_were_stopped_cut_off_and_handed_over_hold_the_same(lab):
    made, answer = judged(lab, EVERYTHING)
    assert [event.text for event in made.events] == [
        "stop far", "continue far", "blackhole far to near", "heal near - far", "kill third", "restart third", "switch-over far",
    ]  # fmt: skip
    assert not made.unknown and answer.verdict.is_clean and not answer.differs


def test_a_replica_that_acknowledges_writes_and_drops_them_is_caught(lab, monkeypatch):
    """In the nodes' processes only, which are forked from this one."""
    honest = desk.Desk.__call__

    def drops(self, state):
        for client, number, _ in list(self.arrived):
            if number % 20 == 19:
                client.acks.put(number)
        kept = [one for one in self.arrived if one[1] % 20 != 19]
        self.arrived.clear()
        self.arrived.extend(kept)
        honest(self, state)

    monkeypatch.setattr(desk.Desk, "__call__", drops)
    made, answer = judged(lab, EVERYTHING)
    assert not made.unknown and answer.verdict.lost >= 1 and answer.verdict.is_corrupt
    assert all(number % 20 == 19 for number in answer.verdict.numbers)
