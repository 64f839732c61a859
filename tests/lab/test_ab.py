"""Arms side by side in a real lab: who measures when, at which distance, what counts, and that nothing stays behind.

Whether a link was precise is the machine's affair: retries are many, steal is allowed, and distances are so long that 3 % of them
are 0.1 ms and 0.2 ms. No time is asserted.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import msgspec
import pytest
from holder import children
from leftovers import Surroundings, gone, marked
from nobody import NOBODY, as_nobody, open_to_all
from small_lab import IN_UML, LINK, any_link, compiled, link_here, skip_if_forbidden
from test_nothing_left import HERE, PATIENCE_S, STOPS

import console
from farwrite.base.documents import found_at
from farwrite.base.errors import EXIT_UNFIT, UnfitError, UsageError
from farwrite.compare.figures import read_sheet
from farwrite.experiment.ab import arm as words
from farwrite.experiment.ab import experiment as experiments
from farwrite.experiment.ab.arm import arm_of
from farwrite.experiment.ab.experiment import Experiment, execute, outcome_of
from farwrite.experiment.ab.worker import Worker
from farwrite.lab.lab import Lab
from farwrite.recording import read

pytestmark = [pytest.mark.lab, any_link]


ROOT = HERE.parents[1]


def left():
    """Our children, but for the process that answers for fresh interpreters (console.py)."""
    return [pid for pid in children(os.getpid()) if pid != console.warm_pid()]


ARMS = ["base", "cand", "again"]
PAIRS = 2
PAIRS_OF_THE_COMMAND = 3  # Its least.
PROFILE = """
title = "As short as it gets"

[lab]
durability = "memory"
journal = "16 MiB"
volume = "16 MiB"

[distance]
miles = [200, 400]

[run]
round = "60 ms"
survey_echoes = 10
floor_flushes = 5
retries = 5
steal_max = 1.0

[[cell]]
name = "write"
protocols = ["local", "C"]
queue_depth = 4
"""


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The path of the shortest profile."""
    path = tmp_path_factory.mktemp("profile") / "short.toml"
    path.write_text(PROFILE)
    return str(path)


def asked(directory, base, cand, profile="quick", both=(), base_alone=(), cand_alone=()):
    """An experiment as the command would put it together."""
    done = [f"run.rounds={2 * PAIRS}", f"lab.link={LINK}"]
    compiled()
    arms = [
        arm_of("base", base, profile, [*both, *base_alone], done),
        arm_of("cand", cand, profile, [*both, *cand_alone], done),
        arm_of("again", base, profile, [*both, *base_alone], done),
    ]
    return Experiment(arms, PAIRS, seed=4, directory=directory)


def measured(experiment):
    """Its reports; skips where no lab may be opened."""
    try:
        return execute(experiment)
    except UnfitError as refusal:
        skip_if_forbidden(refusal)
        raise


@pytest.fixture(scope="module")
def played(tmp_path_factory, short):
    """(directory, reports, what happened in order) of an experiment whose candidate has another congestion control."""
    directory = tmp_path_factory.mktemp("ab") / "out"
    happened = []
    hold, measure_round = Lab.hold, experiments.measure_round

    def hold_told(lab, outward_ns, homeward_ns):
        happened.append(("delay", outward_ns + homeward_ns))
        hold(lab, outward_ns, homeward_ns)

    def measure_round_told(experiment, lab, arm, cell, index, attempt):
        happened.append((arm.arm.name, cell, index, attempt))
        return measure_round(experiment, lab, arm, cell, index, attempt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lab, "hold", hold_told)
        patch.setattr(experiments, "measure_round", measure_round_told)
        made = measured(asked(directory, short, short, cand_alone=["lab.congestion=reno"]))
    return directory, made, happened


def palindromes(happened):
    """By (cell, lap, attempt): what happened from its first round to its last."""
    found = {}
    for place, event in enumerate(happened):
        if event[0] != "delay":
            _, cell, index, attempt = event
            first, _ = found.get((cell, index // 2, attempt), (place, place))
            found[cell, index // 2, attempt] = (first, place)
    return {key: happened[first : last + 1] for key, (first, last) in found.items()}


# Who measures when.


def test_every_cell_is_played_as_a_palindrome_of_the_three_arms_in_every_lap(played):
    _, reports, happened = played
    cells = [cell.id for cell in reports["base"].recording.cells]
    assert {key[:2] for key in palindromes(happened)} == {(cell, lap) for cell in cells for lap in range(PAIRS)}
    for (_, lap, _), events in palindromes(happened).items():
        order = [event[0] for event in events]
        assert order == order[::-1]
        assert sorted(order) == sorted(2 * ARMS)
        assert [event[2] for event in events] == 3 * [2 * lap] + 3 * [2 * lap + 1]


def test_the_distance_is_not_touched_within_a_palindrome(played):
    _, _, happened = played
    assert any(event[0] == "delay" for event in happened)
    for events in palindromes(happened).values():
        assert len(events) == 6
        assert all(event[0] != "delay" for event in events)


def test_rounds_are_stored_in_the_order_they_were_played(played):
    _, reports, happened = played
    rounds = [(item.begin_s, name, item) for name, report in reports.items() for item in report.recording.rounds]
    rounds.sort(key=lambda entry: entry[0])
    stored = [(name, item.cell, item.index, item.attempt) for _, name, item in rounds]
    assert stored == [event for event in happened if event[0] != "delay"]


# What counts.


def test_every_arm_has_two_good_rounds_of_each_pair_and_no_index_twice(played):
    _, reports, _ = played
    for report in reports.values():
        made = report.recording
        good = [(item.cell, item.index) for item in made.rounds if item.status == "ok"]
        assert len(set(good)) == len(good)
        for cell in made.cells:
            for pair in range(PAIRS):
                indices = {2 * pair, 2 * pair + 1}
                whole = {index for name, index in good if name == cell.id} & indices
                tries = [item for item in made.rounds if item.cell == cell.id and item.index in indices]
                # Whether a palindrome was good is the machine's affair; it is played again until then, or to the last retry.
                assert whole == indices or (not whole and len(tries) == 2 * (made.profile.run.retries + 1))


def test_no_arm_loses_an_acknowledged_write(played):
    _, reports, _ = played
    assert outcome_of(reports) is None
    for report in reports.values():
        for item in report.recording.rounds:
            assert (item.audit.lost, item.audit.damaged) == (0, 0)
            assert item.completed > 0


def test_the_link_is_counted_where_it_is(played):
    _, reports, _ = played
    for report in reports.values():
        for item in report.recording.rounds:
            assert item.link["packets"] > 0
            assert item.link["drops"] == item.link["cut_drops"] == 0


def test_floors_are_every_arms_own_and_of_every_round(played):
    _, reports, _ = played
    for report in reports.values():
        assert sorted(item.index for item in report.recording.floors) == list(range(2 * PAIRS))


# What is saved.


def test_the_reports_say_which_experiment_and_which_arm_they_are(played, short):
    directory, reports, _ = played
    stored = {name: read(directory / name).recording for name in ARMS}
    assert len({made.pairing.id for made in stored.values()}) == 1
    for name, made in stored.items():
        assert made.pairing.arm == name
        assert made.pairing.what == (f"{short} --set lab.congestion=reno" if name == "cand" else short)
        assert made.id == f"out-{name}"
        assert made.profile.run.rounds == 2 * PAIRS
        assert not made.interrupted
        assert msgspec.to_builtins(made.cells) == msgspec.to_builtins(reports[name].recording.cells)


def test_an_option_of_one_arm_is_in_force_there_alone(played):
    _, reports, _ = played
    in_force = {name: made.recording.lab.transport["congestion_control"] for name, made in reports.items()}
    assert in_force["base"] == in_force["again"] == "cubic"
    assert in_force["cand"] == "reno"


def test_all_arms_had_one_link_with_one_calibration(played):
    _, reports, _ = played
    facts = [made.recording.lab for made in reports.values()]
    assert len({(lab.link, lab.base_rtt, tuple(lab.delay_ns.items())) for lab in facts}) == 1
    assert len({(lab.keep_awake, lab.keep_awake_reason) for lab in facts}) == 1 and facts[0].keep_awake_reason
    assert facts[0].link == link_here()


def test_each_report_is_one_that_other_commands_read(played):
    directory, _, _ = played
    figures = [{(item.metric, str(item.labels)) for item in read_sheet(directory / name).figures} for name in ARMS]
    assert figures[0] == figures[1] == figures[2]
    assert any(metric == "response_p50" for metric, _ in figures[0])


def test_a_directory_that_holds_an_experiment_is_not_written_to_again(played, short):
    directory, _, _ = played
    with pytest.raises(UsageError, match="holds a base already"):
        execute(asked(directory, short, short))


# What does not count.


@pytest.fixture(scope="module")
def broken(tmp_path_factory, short):
    """(the refusal, recordings by arm, children left) of an experiment whose candidate has a cell more than the base, is void
    once, and is killed when one pair is whole."""
    directory = tmp_path_factory.mktemp("broken") / "out"
    measure = Worker.measure

    def measure_injured(self, cell, index, attempt, timeout_s):
        if self.arm.name == "cand" and index == 2:
            self.process.kill()
        item = measure(self, cell, index, attempt, timeout_s)
        if (self.arm.name, index, attempt) == ("cand", 1, 0):
            return msgspec.structs.replace(item, status="void", reasons=["injected"])
        return item

    wide = Path(short).with_name("wide.toml")
    wide.write_text(PROFILE.replace('["local", "C"]', '["C", "B"]'))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UnfitError) as refusal:
        patch.setattr(Worker, "measure", measure_injured)
        measured(asked(directory, short, str(wide), both=["distance.miles=[400]", "run.retries=20"]))
    return str(refusal.value), {name: read(directory / name).recording for name in ARMS}, left()


def test_only_cells_of_both_arms_are_compared_and_a_palindrome_with_a_void_round_is_played_again_whole(broken):
    _, recordings, _ = broken
    for name, made in recordings.items():
        assert [cell.id for cell in made.cells] == ["write-C-400"]
        assert len([note for note in made.notes if "the other arm has no such cell" in note]) == 1
        first = [item for item in made.rounds if (item.index // 2, item.attempt) == (0, 0)]
        assert [item.index for item in first] == [0, 1]
        assert all(item.status == "void" for item in first)
        assert all(item.reasons for item in first)
        assert name != "cand" or first[1].reasons == ["injected"]
        good = [item for item in made.rounds if item.status == "ok"]
        assert sorted(item.index for item in good) == [0, 1]
        assert all(item.attempt > 0 for item in good)


def test_arms_without_a_common_cell_are_refused_and_leave_nothing(tmp_path, short):
    other = Path(short).with_name("other.toml")
    other.write_text(PROFILE.replace('name = "write"', 'name = "other"'))
    with pytest.raises(UsageError, match=r"no cell in common: write-local-200, .* against other-local-200"):
        measured(asked(tmp_path / "out", short, str(other)))
    assert list(tmp_path.iterdir()) == []


def test_arms_at_different_distances_are_refused(tmp_path, short):
    with pytest.raises(UsageError, match="write-local-200 is another distance in each arm"):
        measured(asked(tmp_path / "out", short, short, cand_alone=["distance.route_factor=2.0"]))


# Workers.


def test_a_killed_worker_ends_the_experiment_with_a_sentence_and_what_was_whole_is_saved(broken):
    refusal, recordings, still_there = broken
    assert re.search(r"Arm cand \(.*\) was killed by SIGKILL before it had measured write-C-400", refusal)
    assert still_there == []
    for made in recordings.values():
        assert made.interrupted
        assert {item.index for item in made.rounds} == {0, 1}
        assert any("was killed by SIGKILL" in note for note in made.notes)


def test_a_worker_killed_before_anything_was_whole_leaves_nothing(tmp_path, short, monkeypatch):
    monkeypatch.setattr(
        Worker, "floors", lambda self, index: self.process.kill() or self.measure("write-C-400", 0, 0, 60)
    )
    with pytest.raises(UnfitError, match=r"Arm base .* was killed by SIGKILL"):
        measured(asked(tmp_path / "out", short, short, both=["distance.miles=[400]", 'cell.write.protocols=["C"]']))
    assert left() == []
    assert list(tmp_path.iterdir()) == []


# The command, stopped.


def ab(*words, **other):
    """The command as a process of its own session."""
    return subprocess.Popen(
        [sys.executable, "-m", "farwrite", "ab", *map(str, words), "--link", LINK], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, **other,
    )  # fmt: skip


def workers_of(word):
    """Workers among the processes that carry a word, from their command lines."""
    found = []
    for pid in marked(word):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[-2:] == [b"arm", b""]:
            found.append(pid)
    return found


def wait_until(true, limit_s=120):
    until_s = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < until_s
        time.sleep(0.01)


# SIGTERM is sent while a revision is compiled, see below.
@pytest.mark.parametrize(("number", "code"), [STOPS[0], STOPS[2]], ids=lambda value: getattr(value, "name", ""))
def test_a_command_stopped_in_the_middle_leaves_no_process_and_no_file(tmp_path, short, number, code):
    compiled()
    word = uuid.uuid4().hex
    there = Surroundings(tmp_path / "data")
    where = there.directory / "out"
    with ab(
        short, short, "--out", where, "--pairs", "500", "--set", "lab.durability=disk",
        env=os.environ | {"FARWRITE_TEST": word},
    ) as run:  # fmt: skip
        # All workers stand, each with two sites: the coordinator, its sites, what carries the link, and nine of theirs.
        wait_until(lambda: run.poll() is not None or len(workers_of(word)) >= 9)
        if run.poll() == EXIT_UNFIT:
            pytest.skip(run.stderr.read())
        time.sleep(1)
        os.killpg(run.pid, number) if number == signal.SIGINT else run.send_signal(number)
        said = run.communicate()[1]
        assert run.returncode == code, said
    assert gone(lambda: marked(word)), marked(word)
    names = [f"out/{name}" for name in ARMS]
    reports = [f"{name}/{found_at(there.directory / name / 'report.json').name}" for name in names]
    there.assert_nothing_left(expected_files=["out", *names, *reports])
    if number == signal.SIGKILL:
        assert list(where.iterdir()) == []
    for report in where.glob("*/report.json*"):
        assert read(report).recording.interrupted


# Revisions.


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository whose only commit is the farwrite under test."""
    if not shutil.which("git"):
        pytest.skip("there is no git here")
    directory = tmp_path_factory.mktemp("repository")
    without = shutil.ignore_patterns("__pycache__")
    for name in ("bench/farwrite", "workloads"):
        shutil.copytree(ROOT / name, directory / name, ignore=without)
    git(directory, "init", "--quiet")
    git(directory, "add", "--all")
    git(directory, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "--message", "all of it")
    return directory


def git(directory, *words):
    return subprocess.run(
        ["git", "-C", str(directory), *words], check=True, capture_output=True, text=True, env=outside_git()
    ).stdout


def outside_git():
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


def traces_of(repository, temporary):
    """What an arm of a revision could leave."""
    return [*temporary.iterdir(), *(repository / ".git").glob("worktrees/*")]


@pytest.mark.skipif(IN_UML, reason="the same on any link; proven outside")
def test_a_revision_runs_its_own_code_and_is_gone_afterwards_and_so_does_another_farwrite_behind_a_shell_that_talks(
    repository, tmp_path, short, monkeypatch
):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.chdir(repository)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    from_source, checkouts = words.from_source, []

    def from_source_noted(bench, environment):
        checkouts.append(bench)
        return from_source(bench, environment)

    monkeypatch.setattr(words, "from_source", from_source_noted)
    script = tmp_path / "farwrite"
    script.write_text(f'#!/bin/sh\necho "a wrapper that talks"  >&2\n{sys.executable} -m farwrite "$@"\n')
    script.chmod(0o755)
    profile = Path(short).with_name("rev.toml")
    profile.write_text(PROFILE.replace("[200, 400]", "[400]").replace('["local", "C"]', '["C"]').replace("= 5", "= 20"))
    reports = measured(asked(tmp_path / "out", str(script), "git:HEAD", profile=str(profile)))
    assert outcome_of(reports) is None
    assert len(checkouts) == 1
    assert str(checkouts[0]).startswith(str(temporary))
    revision = git(repository, "rev-parse", "--short=12", "HEAD").strip()
    assert reports["cand"].recording.host["git_revision"] == revision
    assert reports["cand"].recording.pairing.what == f"git:HEAD --profile {profile}"
    assert reports["base"].recording.host["git_revision"] != revision
    assert reports["base"].recording.pairing.what == f"{script} --profile {profile}"
    assert gone(left)
    assert traces_of(repository, temporary) == []
    assert git(repository, "worktree", "list").count("\n") == 1


@pytest.mark.parametrize(("number", "code"), STOPS[1:], ids=lambda value: getattr(value, "name", ""))
def test_a_command_stopped_while_a_revision_starts_leaves_no_worktree(repository, tmp_path, short, number, code):
    compiled()
    word = uuid.uuid4().hex
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with ab(
        "git:HEAD", short, "--profile", short, "--out", tmp_path / "out", cwd=repository,
        env=outside_git() | {"FARWRITE_TEST": word, "TMPDIR": str(temporary)},
    ) as run:  # fmt: skip
        wait_until(lambda: run.poll() is not None or list(temporary.glob("*/*/bench")))
        if run.poll() == EXIT_UNFIT:
            pytest.skip(run.stderr.read())
        assert (repository / ".git" / "worktrees").is_dir()
        run.send_signal(number)
        said = run.communicate()[1]
        assert run.returncode == code, said
    assert gone(lambda: marked(word)), marked(word)
    assert traces_of(repository, temporary) == []


# Without root.


def test_arms_need_no_root_where_user_namespaces_are_allowed(open_tmp, short):
    word = uuid.uuid4().hex
    scratch = open_to_all(open_tmp / "scratch")
    there = Surroundings(open_tmp / "data")
    profile = shutil.copy(short, scratch / "short.toml")
    command = [
        *(sys.executable, "-m", "farwrite", "ab", profile, profile, "--link", LINK, "--out", there.directory / "out"),
        *("--set", "distance.miles=[400]", "--set", 'cell.write.protocols=["C"]', "--set", "run.retries=2"),
    ]
    with as_nobody(scratch, there.directory, command, "666", word) as run:
        said = run.communicate(timeout=30 * PATIENCE_S)[1]
    if "unshare(" in said and not IN_UML:
        pytest.skip(said)
    # Whether the link was precise is the machine's affair.
    assert run.returncode == 0 or "No round had the link it was meant to have" in " ".join(said.split()), said
    assert gone(lambda: marked(word)), marked(word)
    for name in ARMS:
        made = read(there.directory / "out" / name).recording
        assert {item.index for item in made.rounds} == set(range(2 * PAIRS_OF_THE_COMMAND))
        assert all(item.status in ("ok", "void") and item.completed for item in made.rounds)
        assert found_at(there.directory / "out" / name / "report.json").stat().st_uid == NOBODY
