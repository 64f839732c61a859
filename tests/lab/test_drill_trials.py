"""Trials of drills in a real lab: a primary killed, everything else done to it, and a replica that drops writes and is caught."""

import contextlib
import itertools
import os

import lying_door
import pytest
from small_lab import LINK, any_link, compiled, skip_if_forbidden

from farwrite.analysis.drill_answer import judge
from farwrite.analysis.drill_recording import ACKED, KIND, SCHEMA_VERSION, STANDS, DrillRecording
from farwrite.base.errors import UnfitError
from farwrite.base.host.disk import BLOCK_BYTES
from farwrite.commands.drill import setups_of
from farwrite.experiment.compilation import compile_doors
from farwrite.experiment.drill import campaign, cluster, desk
from farwrite.experiment.drill.trial import play
from farwrite.lab.lab import open_lab
from farwrite.progress import Silence
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
JUMPED = """
title = "The primary comes back with a clock that is a month ahead, and leads again"
end = "3500 ms"
[[event]]
at = "300 ms"
action = "kill"
site = "near"
[[event]]
at = "900 ms"
action = "restart"
site = "near"
clock_ahead = "720 h"
[[event]]
at = "2200 ms"
action = "switch-over"
site = "near"
"""
PATIENT, = setups_of("150", "C", "consent", None, False, 200.0, 64, "4k", "250 ms", "20 s", 1, 1)  # fmt: skip
BUSY, = setups_of("150", "C", "consent", None, False, 1000.0, 64, "4k", "250 ms", "1 s", 1, 1)  # fmt: skip
NBD, ISCSI = setups_of("150", "C", "consent", None, False, 500.0, 64, "4k", "250 ms", "1 s", 1, 1, "nbd,iscsi")
DOORS = [pytest.param(NBD, id="nbd"), pytest.param(ISCSI, id="iscsi")]
SHORT = """
title = "The primary is killed"
end = "800 ms"
[[event]]
at = "300 ms"
action = "kill"
site = "near"
"""
THERE_AND_BACK = """
title = "Handed over, killed, and handed back to who was killed first"
end = "3 s"
[[event]]
at = "300 ms"
action = "switch-over"
site = "far"
[[event]]
at = "800 ms"
action = "kill"
site = "near"
[[event]]
at = "1200 ms"
action = "restart"
site = "near"
[[event]]
at = "2200 ms"
action = "switch-over"
site = "near"
"""
POWER = """
title = "The far machine loses its power, and is back before it lacks more than a log brings it"
end = "2200 ms"
[[event]]
at = "1500 ms"
action = "power-off"
site = "far"
[[event]]
at = "1550 ms"
action = "restart"
site = "far"
"""
DISKS = """
title = "Links that are slow and lossy, a disk that stalls for a while, then one that refuses every write, then one that is full"
end = "4500 ms"
[[event]]
at = "200 ms"
action = "slow"
link = ["near", "far"]
extra_rtt = "4 ms"
[[event]]
at = "400 ms"
action = "lossy"
link = ["near", "far"]
loss = "5 %"
[[event]]
at = "700 ms"
action = "heal"
link = ["near", "far"]
[[event]]
at = "900 ms"
action = "disk-stall"
site = "far"
[[event]]
at = "1200 ms"
action = "disk-heal"
site = "far"
[[event]]
at = "1500 ms"
action = "disk-refuse"
site = "near"
[[event]]
at = "2500 ms"
action = "restart"
site = "near"
[[event]]
at = "3 s"
action = "disk-full"
site = "far"
[[event]]
at = "4 s"
action = "restart"
site = "far"
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
    compile_doors(Silence())
    campaign.rehearse("nbd")
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


def judged(lab, text, setup=SETUP):
    """(trial, its judgement) of one play of a scenario."""
    scenario = parse(text, "d.toml")
    made = play(lab, scenario, setup, 0)
    recording = DrillRecording(
        schema_version=SCHEMA_VERSION, kind=KIND, farwrite="0", name="x", started_utc="", command=[], scenario=scenario,
        setup=setup, link="", links=[], disk="memory", host={}, trials=[made],
    )  # fmt: skip
    return made, judge(made, recording)


def served_by(made):
    """The nodes that the client went over to. Who comes in the moment in which a node hands over may be hung up on there once."""
    return [node for node, _ in itertools.groupby(one.node for one in made.connections)]


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


def test_the_successor_of_a_killed_process_does_not_wait_as_for_a_silent_one(lab):
    """A silent one is waited for at least 80 s with this peer timeout: longer than a trial has patience."""
    made, answer = judged(lab, KILLED.replace("1500 ms", "1900 ms"), PATIENT)
    assert not made.unknown and answer.verdict.is_clean and not made.repaired
    assert served_by(made) == ["near", "far"]


def test_what_no_flush_had_covered_is_lost_with_the_power_and_what_was_acknowledged_is_not(lab):
    made, answer = judged(lab, POWER, BUSY)
    assert "sectors of far that were lost with the power" in made.events[0].note
    assert not made.unknown and answer.verdict.is_clean and not answer.differs and answer.verdict.acked > 500


def test_a_disk_that_answers_flushes_and_keeps_only_the_label_is_caught(lab, monkeypatch):
    """Checkpoints believed its answers, so a replay does not bring back what is behind them. There must have been some: a machine
    that is busy writes too little in a trial at times, or stands still until nothing is known of it."""
    honest, power_off = desk.DrilledNode.loop_reactor, cluster.Cluster.power_off

    @contextlib.contextmanager
    def lies(self):
        with honest(self) as ring:
            ring.at[0].image_fd = -1
            yield ring

    def keeps_label(self, name):
        size, label_bytes = cluster.size_of(self.disks[name]), 2 * BLOCK_BYTES
        label = os.pread(self.disks[name].volume_fd, label_bytes, size - label_bytes)
        for half in (1, 2):
            os.pwrite(self.images[name], label, half * size - label_bytes)
        return power_off(self, name)

    monkeypatch.setattr(desk.DrilledNode, "loop_reactor", lies)
    monkeypatch.setattr(cluster.Cluster, "power_off", keeps_label)
    for _ in range(8):
        made, answer = judged(lab, POWER, BUSY)
        if answer.differs and not made.unknown:
            break
    assert not made.unknown and answer.differs == ["far"]


def test_disks_that_stall_refuse_and_are_full_and_links_that_are_bad_lose_nothing(lab):
    made, answer = judged(lab, DISKS)
    assert not made.unknown and answer.verdict.is_clean and not answer.differs
    assert any(remark.startswith("near ended by itself") for remark in made.remarks)
    assert any("No space left on device" in remark for remark in made.remarks)


def test_a_clock_that_is_a_month_ahead_costs_no_more_than_the_kill(lab):
    made, answer = judged(lab, JUMPED)
    assert made.events[1].text == "restart near, its clock 2,592,000 s ahead"
    assert not made.unknown and answer.verdict.is_clean and not answer.differs
    if answer.counts and not made.repaired:
        assert served_by(made)[:3] == ["near", "far", "near"]
    instants_ns = [note.at_ns for note in made.notes]
    assert max(instants_ns) - min(instants_ns) < 600e9, "notes are told by the clock that all share"


# Through doors


@pytest.mark.parametrize("setup", DOORS)
def test_through_a_door_nothing_is_lost_and_the_client_finds_who_leads_by_itself(lab, setup):
    made, answer = judged(lab, THERE_AND_BACK, setup)
    assert not made.unknown and answer.verdict.is_clean and not answer.differs and not made.strays
    assert answer.verdict.acked == made.history.outcome.count(ACKED) > 300
    has_handed_back = not any(event.note for event in made.events)  # Near may not hold everything again by then.
    if has_handed_back and not made.repaired and not any("the machine was busy" in remark for remark in made.remarks):
        assert served_by(made) == ["near", "far", "near"]
        stood = [note.node for note in made.notes if note.what == STANDS]
        assert stood == ["near", "far", "near"], "far had handed over, and whom it had succeeded itself was killed meanwhile"
        epochs = [one.epoch for one in made.connections]
        assert epochs == sorted(epochs) and len(set(epochs) - {0}) == 3
        route = answer.recoveries[0].route
        assert route is not None and sum(route.values()) == answer.recoveries[0].phases["route"]
        assert answer.recoveries[1].route is None, "nobody took over when the secondary was killed"


@pytest.mark.parametrize("setup", DOORS)
@pytest.mark.parametrize("fault", ["early", "drops", "misplaces", "repeats"])
def test_a_door_that_lies_is_caught(lab, monkeypatch, fault, setup):
    lying_door.plant(monkeypatch, fault, setup.block_count)
    made, answer = judged(lab, SHORT, setup)
    verdict = answer.verdict
    assert not made.unknown and verdict is not None
    if fault == "early":  # What had been answered, and was on its way to the log still when its process was killed.
        assert verdict.lost >= 1 and not verdict.damaged
    elif fault == "drops":
        assert verdict.lost >= 1 and verdict.is_corrupt and all(number % 20 == 19 for number in verdict.numbers)
    elif fault == "misplaces":
        assert verdict.damaged >= 1
    else:
        assert made.strays >= 1 and any("had not been asked" in remark for remark in made.remarks)


def test_without_privileges_a_kill_is_played_through_a_door_on_loopback(tmp_path):
    compiled()
    made = campaign.run("killed", parse(SHORT, "d.toml"), ISCSI, "relay", None, tmp_path, Silence())
    answer = judge(made.trials[0], made)
    assert made.setup.door == "iscsi" and not made.trials[0].unknown and answer.verdict.is_clean
    assert answer.verdict.acked > 50


def test_without_privileges_a_kill_is_played_on_loopback_and_the_recording_says_that_there_was_no_distance(tmp_path):
    compiled()
    made = campaign.run("killed", parse(KILLED, "d.toml"), SETUP, "relay", None, tmp_path, Silence())
    assert made.setup.miles == 0 and made.link.startswith("loopback: ") and "no distance" in made.links[0]
    answer = judge(made.trials[0], made)
    assert not made.trials[0].unknown and answer.verdict.is_clean and answer.verdict.acked > 50
    with pytest.raises(UnfitError, match="150 miles cannot be emulated"):
        campaign.run("killed", parse(KILLED, "d.toml"), SETUP, "relay", None, tmp_path / "b", Silence(), is_distance_asked=True)
