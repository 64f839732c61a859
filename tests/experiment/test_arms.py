"""Arms without a lab: the order they are played in, what their workers are told, what counts, and what words mean."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from farwrite.base import framing
from farwrite.base.errors import LostWriteError, UnfitError, UsageError
from farwrite.base.host.noise import Noise
from farwrite.experiment.ab import experiment as experiments
from farwrite.experiment.ab import message, worktree
from farwrite.experiment.ab import worker as workers
from farwrite.experiment.ab.arm import arm_of
from farwrite.experiment.ab.experiment import Experiment, noise_seen, order_of, outcome_of, set_aside, start_order
from farwrite.recording import SCHEMA_VERSION, HostNoise, Pairing, Report, read, upgraded
from farwrite.workload.catalog import load, shipped
from farwrite.workload.tables import without_defaults
from make_recording import SMALL, make_recording

ARMS = ("base", "cand", "again")


RESULTS = Path(__file__).parents[2] / "results"


def experiment(tmp_path, pairs=6, seed=1):
    arms = [arm_of(name, "quick", "quick", [], []) for name in ARMS]
    return Experiment(arms, pairs, seed, tmp_path)


def test_whoever_waits_for_an_arm_is_told_for_how_long(monkeypatch):
    monkeypatch.setattr(framing, "LOOK_S", 0.01)
    reads, writes = os.pipe()
    without_defaults = []

    def waiting(seconds):
        without_defaults.append(seconds)
        if len(without_defaults) == 3:
            os.write(writes, b"joined\nand more")

    with open(reads, "rb") as answers, open(writes, "wb"):  # noqa: PTH123
        made = workers.Worker(arm_of("base", "quick", "quick", [], []), None, None, answers, None)
        assert made.read_line(60.0, "joined the lab", waiting) == b"joined"
        assert len(without_defaults) == 3 and without_defaults == sorted(without_defaults)
        with pytest.raises(UnfitError, match="has not joined the lab within 0 s"):
            made.read_line(0.05, "joined the lab", waiting)


# The order of starts.


def test_arms_start_side_by_side_but_for_those_whose_kernels_another_compiles():
    def names(*words):
        arms = [arm_of(name, word, "quick", [], []) for name, word in zip(ARMS, words, strict=True)]
        return [[arm.name for arm in side_by_side] for side_by_side in start_order(arms)]

    assert names("quick", "quick", "quick") == names("quick", "git:HEAD", "quick") == [["base", "cand", "again"], []]
    assert names("git:HEAD", "git:HEAD", "git:HEAD") == [["base"], ["cand", "again"]]
    assert names("git:HEAD", "quick", "git:HEAD") == [["base", "cand"], ["again"]]


def test_the_histograms_of_an_older_arm_are_of_today_once_it_has_answered():
    """Its lines are read as they are: a revision from before schema 2 has histograms in an encoding of its own."""
    older = read(RESULTS / "baselines" / "flush" / "cand").recording
    asks, answers = os.pipe(), os.pipe()
    with open(asks[1], "wb") as questions, open(asks[0], "rb"), open(answers[0], "rb") as heard, open(answers[1], "wb") as said:  # noqa: PTH123
        made = workers.Worker(arm_of("base", "quick", "quick", [], []), None, questions, heard, None)
        message.say(said, message.Answer(round=older.rounds[0]))
        assert made.measure("write-C-20", 0, 0, 10.0) == upgraded(older.rounds[0]) != older.rounds[0]
        message.say(said, message.Answer(floors=older.floors[:2]))
        assert made.floors(0) == upgraded(older.floors[:2])
        message.say(said, message.Answer(floors=[msgspec.structs.replace(older.floors[0], near_alone="eJ none")]))
        with pytest.raises(UsageError, match="what is no message of a farwrite arm"):
            made.floors(0)


# The order of arms.


@pytest.mark.parametrize("seed", range(20))
def test_an_order_is_its_own_mirror_image_and_has_every_arm_twice(tmp_path, seed):
    made = experiment(tmp_path, seed=seed)
    for repetition in range(7):
        order = order_of(made, repetition, "write-C-20")
        assert order == order[::-1]
        assert sorted(order) == sorted(2 * ARMS)


@pytest.mark.parametrize("seed", range(20))
def test_within_three_laps_every_arm_stands_at_every_place_once(tmp_path, seed):
    made = experiment(tmp_path, seed=seed)
    for first in (0, 3):
        orders = [order_of(made, repetition, "write-C-20") for repetition in range(first, first + 3)]
        assert all(set(arms) == set(ARMS) for arms in zip(*orders, strict=True))


def test_a_seed_draws_the_same_orders_again_and_cells_have_orders_of_their_own(tmp_path):
    one, two = experiment(tmp_path), experiment(tmp_path)
    cells = [f"write-C-{miles}" for miles in range(20)]
    assert [order_of(one, 0, cell) for cell in cells] == [order_of(two, 0, cell) for cell in cells]
    assert len({tuple(order_of(one, 0, cell)) for cell in cells}) > 1


# A profile on its way.


@pytest.mark.parametrize("name", shipped())
def test_a_profile_arrives_as_it_was_sent(name):
    profile = load(name)
    sent = msgspec.json.decode(msgspec.json.encode(without_defaults(profile)))
    assert message.understood(sent) == profile
    assert message.misread(msgspec.to_builtins(profile), msgspec.to_builtins(message.understood(sent))) is None


def test_only_what_is_no_default_travels():
    sent = without_defaults(load("quick"))
    assert "trace" not in sent["cell"][0]
    assert "congestion" not in sent["lab"]
    assert sent["lab"]["durability"] == "memory"


def test_a_key_that_the_other_farwrite_does_not_know_is_refused():
    sent = without_defaults(load("quick"))
    with pytest.raises(UsageError, match=r"does not know everything the profile asks for.*later"):
        message.understood(sent | {"later": 1})
    with pytest.raises(UsageError, match=r"cell\[0\]\.later"):
        message.understood(sent | {"cell": [sent["cell"][0] | {"later": 1}]})


def test_what_keeps_the_machine_awake_is_no_arms_affair():
    """An arm of another revision knows booleans, or nothing of it; the experiment keeps the machine awake for all."""
    profile = load("quick", ["lab.keep_awake=qos"])
    sent = message.task_profile(profile)
    assert "keep_awake" in without_defaults(profile)["lab"] and "keep_awake" not in sent["lab"]
    assert message.task_profile(load("quick")) == without_defaults(load("quick"))
    theirs = msgspec.to_builtins(message.understood(sent))
    ours, theirs = (
        message.without_ours(one)
        for one in (msgspec.to_builtins(profile), {**theirs, "lab": {**theirs["lab"], "keep_awake": False}})
    )
    assert message.misread(ours, theirs) is None


def test_a_default_that_another_farwrite_has_otherwise_is_found_out():
    ours = msgspec.to_builtins(load("quick"))
    theirs = msgspec.to_builtins(load("quick", ["run.steal_max=0.5"]))
    assert message.misread(ours, theirs) == "run.steal_max"
    assert message.misread(ours, {**ours, "later": 1}) is None
    theirs = msgspec.to_builtins(load("quick", ["cell.write.queue_depth=2"]))
    assert message.misread(ours, theirs) == "cell.queue_depth"


# A palindrome that does not count.


def rounds():
    return make_recording(SMALL).rounds


def test_a_good_round_of_a_broken_palindrome_is_void_and_says_why():
    good = next(item for item in rounds() if item.status == "ok")
    aside = set_aside(good)
    assert (aside.status, aside.reasons) == ("void", ["another arm's round beside it was void"])
    assert set_aside(aside) == aside


def test_a_round_that_lost_writes_is_never_hidden_behind_another_arms_void():
    good = next(item for item in rounds() if item.status == "ok" and item.audit)
    lost = msgspec.structs.replace(good, audit=msgspec.structs.replace(good.audit, lost=1))
    assert set_aside(lost) == lost


def test_a_lost_write_of_any_arm_names_the_arm_and_comes_before_everything_else():
    made = make_recording(SMALL)
    good = next(item for item in made.rounds if item.status == "ok" and item.audit)
    lost = msgspec.structs.replace(good, audit=msgspec.structs.replace(good.audit, lost=1))
    reports = {}
    for name, kept in (("base", []), ("cand", [*made.rounds, lost]), ("again", made.rounds)):
        pairing = Pairing(id="1", arm=name, what=f"{name} as typed")
        recording = msgspec.structs.replace(made, rounds=kept, pairing=pairing)
        reports[name] = Report(schema_version=SCHEMA_VERSION, recording=recording)
    refusal = outcome_of(reports)
    assert isinstance(refusal, LostWriteError)
    assert str(refusal).startswith("Arm cand (cand as typed): 1 acknowledged writes were lost")


# Words.


def test_an_arm_says_what_was_asked_for():
    arm = arm_of("cand", "quick", "limits", ["run.retries=1"], ["drill.kills=0"])
    assert (arm.what, arm.profile_name) == ("quick --set run.retries=1", "quick")
    assert (arm.profile.run.retries, arm.profile.drill.kills) == (1, 0)


def test_git_is_asked_for_the_commit_and_its_refusal_is_quoted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UsageError, match=r"git:HEAD is no revision of the repository here.*not a git repository"):
        worktree.commit_of("HEAD")


def test_who_holds_the_link_adds_to_an_arms_host_noise_what_it_alone_can_see(monkeypatch):
    """An arm sees neither the process that carries packets nor that the other arms are no strangers."""
    here = Noise(2_000, None, None, 500, 0.6, 0.1)
    monkeypatch.setattr(experiments, "read_noise", lambda: None)
    monkeypatch.setattr(experiments, "noise_between", lambda before, after, near, far, link: here if link == [7] else None)
    lab = SimpleNamespace(spans=[SimpleNamespace(link=SimpleNamespace(carriers=(7,)))])
    arm = HostNoise(
        duration_ns=1_000, near_run_delay_ns=1, far_run_delay_ns=2, link_run_delay_ns=None, own_share=None, foreign_share=None
    )
    seen = HostNoise(
        duration_ns=1_000, near_run_delay_ns=1, far_run_delay_ns=2, link_run_delay_ns=250, own_share=0.6, foreign_share=0.1
    )
    assert noise_seen(arm, lab, None) == seen
    assert noise_seen(None, lab, None) is None  # A revision from before it was noted.


def test_files_that_an_interrupted_checkout_still_writes_are_removed_too(tmp_path):
    line = 'for part in 1 2 3 4 5; do mkdir -p "$1/$part"; sleep 0.1; done'
    with pytest.raises(KeyboardInterrupt), worktree.swept(tmp_path / "worktrees") as temporary:
        writing = subprocess.Popen(["sh", "-c", line, "sh", str(temporary)])
        raise KeyboardInterrupt
    assert writing.wait(20) == 0
    assert not temporary.exists()
