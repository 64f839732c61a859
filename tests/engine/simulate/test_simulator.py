"""Stories from seeds: the engine's own compiled loops, in a world where clock, disks and network are pretended."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from farwrite.base.errors import EXIT_INTERRUPTED, UsageError
from farwrite.commands.simulate import REACHES, Found, never_text, simulate
from farwrite.engine.simulate import changing_replicas, check, exhaustive, focus, lying_disk, search
from farwrite.engine.simulate.lying_disk import differing_extents as real
from farwrite.engine.simulate.story import WRITING_TICKS, Story, tell


@functools.cache
def story(seed):
    """A story that several tests look at."""
    return tell(seed)


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_no_promise_is_broken_in_any_story(first):
    for seed in range(first, first + 20):
        told = story(seed)
        assert told.broken is None, f"farwrite simulate --seed {seed} --verbose\n" + "\n".join(told.lines[-30:])


def test_clocks_that_differ_and_jump_break_no_promise():
    stories = [story(seed) for seed in range(60)]
    jumped = [told for told in stories if any("jumps by" in line for line in told.lines)]
    assert len(jumped) >= 5
    assert not any(told.broken for told in jumped)


def test_a_seed_tells_the_same_story_twice():
    for seed in range(5):
        assert tell(seed) == story(seed)


def test_stories_differ_and_something_happens_in_them():
    stories = [story(seed) for seed in range(60)]
    assert len({told.digest for told in stories}) == len(stories)
    assert sum(told.completed for told in stories) > 900
    assert sum(told.epochs for told in stories) > len(stories)
    lines = "\n".join(line for told in stories for line in told.lines)
    for event in ("by log", "by digests", "loses power", "is killed", "leads epoch 2", "cut:", "replayed", "jumps by",
                  "led by votes", "led by an arbiter"):
        assert event in lines


def test_most_stories_go_around_their_rings_and_every_seldom_thing_happens_in_some():
    stories = [story(seed) for seed in range(100)]
    for name in ("staging rings wrapped", "laps of a journal", "superblocks written"):
        assert sum(told.counts.get(name, 0) > 1 for told in stories) > 50, name
    seldom = (
        "ballots refused", "configurations, readmits", "configurations, strikes", "elections", "failovers", "frames changed",
        "frames forged", "handed over", "joined by digests", "joined by extents", "joined by log", "reads", "restarts",
        "superblocks damaged", "torn tails", "votes", "moments that trouble followed",
        *(f"stories about {name}" for name in focus.MIXES),
    )  # fmt: skip
    assert [name for name in seldom if not any(told.counts.get(name) for told in stories)] == []


def test_stories_go_through_what_has_been_added_and_a_campaign_says_what_it_never_saw():
    found = Found(0)
    for seed in range(200):
        found.add(story(seed))
    for name in ("disks that answered nothing", "votes lost in one direction", "primaries known to have ended",
                 "primaries lost with writes not complete", "votes while a replica was a mixture"):
        assert found.coverage[name], name
    for name in ("bad sectors read", "bad sectors written again", "journals that could not be read", "journal writes lost",
                 "superblock writes lost", "volume writes lost", "volume writes misdirected", "lies found by a verify",
                 "reads of what a disk has lied about", "control messages doubled", "control messages overtaken",
                 *(f"stories with {count} replica{'s' * (count > 1)}" for count in range(1, 6)),
                 *(f"stories under {protocol}" for protocol in ("local", "A", "B", "C", "C2", "quorum"))):
        assert found.coverage[name], name
    assert found.coverage["ticks to write once more, at most"] <= WRITING_TICKS
    never = found.document()["never"]
    assert never == [name for name in REACHES if not found.coverage[name]]
    assert all(name in "\n".join(found.lines()) for name in never)
    assert never_text(Counter(dict.fromkeys(REACHES, 1))) == ""


def test_a_verify_that_misses_an_extent_on_which_a_disk_has_lied_is_found(monkeypatch):
    monkeypatch.setattr(lying_disk, "differing_extents", lambda one, other: 1 + real(one, other))
    lied = next(seed for seed in range(200) if story(seed).counts.get("lies found by a verify"))
    assert "for different, and" in tell(lied).broken


def test_a_lie_excuses_no_other_byte():
    """A replica that lied about one sector and is wrong in another as well."""
    expected, found, untrusted = np.zeros(2048, np.uint8), np.zeros(2048, np.uint8), np.zeros(2048, bool)
    found[100] = 1
    assert not check.is_as(expected, found, untrusted)
    untrusted[:512] = True
    assert check.is_as(expected, found, untrusted)
    found[600] = 1
    assert not check.is_as(expected, found, untrusted)


def test_a_peer_that_lacks_nothing_but_snapshots_joins():
    """Not a byte was written since its last record, and the log has gone over it: no extent would tell how far its copy is."""
    assert story(1373).broken is None


def test_replicas_come_and_go_in_some_stories_and_everything_of_that_happens():
    stories = [told for told in map(story, range(200)) if told.counts.get("stories in which replicas come and go")]
    assert len(stories) >= 10
    for name in ("moves ended", "moves cancelled", "configurations, adds", "configurations, removes", "disks exchanged"):
        assert any(told.counts.get(name) for told in stories), name


@pytest.mark.parametrize("seed", [1475, 4066])
def test_a_snapshot_shows_nothing_of_a_deleted_one_of_a_tail_that_was_rolled_back(monkeypatch, seed):
    """The deleted one has the later sequence, and its blocks were still to leave when the next one was taken."""
    monkeypatch.setattr(changing_replicas, "SHARE", 1.0)
    monkeypatch.setattr(focus, "SHARE", 0.0)
    assert tell(seed).broken is None


def test_a_cluster_that_heals_and_takes_no_write_is_found(monkeypatch):
    real = Story.is_whole

    def is_whole(self):
        self.is_stuck = real(self)
        return self.is_stuck

    def tick(self, troubled, real_tick=Story.tick):
        if getattr(self, "is_stuck", False):
            self.ticks += 1  # Nobody has a turn any more.
        else:
            real_tick(self, troubled)

    monkeypatch.setattr(Story, "is_whole", is_whole)
    monkeypatch.setattr(Story, "tick", tick)
    assert "has not completed" in tell(3).broken


def test_every_sequence_of_one_operation_is_whole_again_wherever_the_power_goes():
    for operations in exhaustive.sequences(1):
        outcome = exhaustive.examine_sequence(operations)
        assert not outcome.broken and outcome.stories >= 6, outcome
    assert len(list(exhaustive.sequences(2))) == 108


def test_all_sequences_are_examined_by_one_command_and_what_cannot_be_is_refused(capsys):
    assert simulate(exhaustive=1, quiet=True, json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sequences"] == told["of"] == 9 and told["crash_points"] > 100 and told["broken"] is None
    for words in ({"exhaustive": 0}, {"exhaustive": 5}, {"exhaustive": 1, "seed": 3}, {"exhaustive": 1, "minutes": 1.0}):
        with pytest.raises(UsageError, match="--exhaustive"):
            simulate(**words)


def test_a_sequence_that_breaks_a_promise_says_which_and_where(monkeypatch):
    def forgets(self, node):
        raise check.Anomaly("planted")

    monkeypatch.setattr(exhaustive.Sequence, "kill", forgets)
    outcome = exhaustive.examine_sequence(("write", "kill primary"))
    assert outcome.broken == "planted" and "power lost at operation 0" in outcome.where


def test_a_search_over_several_processes_tells_every_seed_once_and_in_order(monkeypatch):
    monkeypatch.setattr(search, "CHUNK", 7)
    stories = [told for some in search.search(3, 31) for told in some]
    assert [told.seed for told in stories] == list(range(3, 34))
    assert stories == [story(seed) for seed in range(3, 34)]


def test_a_search_ends_at_the_lowest_broken_seed(monkeypatch):
    monkeypatch.setattr(search, "CHUNK", 4)
    monkeypatch.setattr(search, "tell", lambda seed: replace(tell(seed), broken="planted" if seed in (9, 14, 30) else None))
    stories = [told for some in search.search(0, None) for told in some]
    assert [told.seed for told in stories if told.broken] == [9]
    assert len(stories) == 10


def test_an_interrupted_search_says_how_far_it_has_come_and_leaves_no_process():
    command = [sys.executable, "-m", "farwrite", "simulate", "--seeds", "1000000", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as running:
        try:
            while not children_of(running.pid):
                time.sleep(0.05)
            time.sleep(0.5)
            running.send_signal(signal.SIGINT)
            told, _ = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == EXIT_INTERRUPTED
    answer = json.loads(told)
    assert answer["interrupted"] and answer["broken_seed"] is None
    with pytest.raises(ProcessLookupError):
        os.killpg(running.pid, 0)


def test_who_tells_stories_ends_with_the_one_it_tells_once_nobody_waits():
    pool = search.Processes()
    telling = pool.submit(0, 1_000_000)
    while not telling.running():
        time.sleep(0.01)
    pool.close()
    assert len(telling.result()) < 1_000_000 and not search.ENDED.is_set()


def children_of(process):
    """Processes that it has started."""
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()
