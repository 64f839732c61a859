"""`farwrite ab` as a person types it: which words are refused and how, and what a finished experiment prints."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from console import ONE_FAR, assert_refused, farwrite, words_of

REFUSED, UNFIT = 2, 6

# Half a minute: one cell.
SHORT = [*ONE_FAR, "--set", 'cell.write.protocols=["C"]', "--duration", "60 ms"]


def outside_git(directory: Path) -> dict[str, str]:
    """An environment in which no repository is found above a directory."""
    return {"GIT_CEILING_DIRECTORIES": str(directory.parent)}


def ab(directory: Path, *words: str | Path):
    return farwrite("ab", *words, "--out", directory / "out", cwd=directory, **outside_git(directory))


def assert_nothing_was_begun(done, directory: Path, *said: str) -> None:
    """Refused, and no results."""
    assert_refused(done, *said)
    assert not (directory / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("quikc quick", 'There is no profile "quikc" \\(did you mean "quick"\\?\\). An arm is a profile'),
        ("quick quikc", 'There is no profile "quikc"'),
        ("quick nothing.toml", "There is no profile nothing.toml"),
        ("quick git:HEAD", "git:HEAD is no revision of the repository here.*not a git repository"),
        ("git:HEAD quick --profile quikc", "git:HEAD is no revision"),
        ("quick ./nothing", "There is no file ./nothing. An arm is a profile"),
        ("quick quick --pairs 2", "--pairs must lie between 3 and 500"),
        ("quick quick --pairs 501", "--pairs must lie between 3 and 500"),
        ("quick quick --seed -1", "--seed must not be negative"),
        ("quick quick --set run.rounds=3", "--pairs sets the number of rounds here"),
        ("quick quick --set-cand run.retires=1", 'unknown key "retires"'),
        ("quick quick --set-base run.retires=1", 'unknown key "retires"'),
        ("quick quick --set-cand lab.link=ferry --set-base lab.link=netem", "The arms ask for different links"),
        ("quick quick --duration 1h", "run.round must last 50 ms to 10 min"),
        ("quick quick --set-cand cell.write.trace=nothing", "nothing"),
        ("quick", 'requires an argument|"CAND"'),
    ],
)
def test_wrong_words_are_refused_before_anything_is_opened(tmp_path, words, said):
    assert_nothing_was_begun(ab(tmp_path, *words.split()), tmp_path, said)


@pytest.fixture
def repository(tmp_path):
    """A repository with one commit that has nothing to do with us."""
    if not shutil.which("git"):
        pytest.skip("there is no git here")
    commands = ("init --quiet", "-c user.name=x -c user.email=x@x commit --quiet --allow-empty --message first")
    for words in commands:
        subprocess.run(["git", "-C", str(tmp_path), *words.split()], check=True, capture_output=True)
    return tmp_path


def test_an_unknown_revision_is_refused_with_what_git_says(repository):
    assert_nothing_was_begun(
        ab(repository, "quick", "git:v99"), repository, "git:v99 is no revision.*git rev-parse answers: fatal: "
    )


def test_a_word_of_git_is_no_option_of_git(repository):
    assert_nothing_was_begun(ab(repository, "quick", "git:--help"), repository, "git:--help is no revision")


def test_a_repository_of_something_else_is_refused_and_left_as_it_was(repository):
    done = ab(repository, "quick", "git:HEAD")
    assert_nothing_was_begun(done, repository, "git:HEAD holds no bench/farwrite: call farwrite ab in a checkout of farwrite.")
    assert not (repository / ".git" / "worktrees").exists()


def test_a_file_that_may_not_be_executed_is_refused(tmp_path):
    (tmp_path / "farwrite").write_text("")
    assert_nothing_was_begun(ab(tmp_path, "quick", "./farwrite"), tmp_path, "./farwrite may not be executed")


@pytest.mark.lab
@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "#!/bin/sh\necho 'no such command' >&2; exit 2\n",
            "ended with exit code 2 .*no such command.*older than farwrite ab",
        ),
        ("#!/bin/sh\nexit 0\n", "ended with exit code 0 .*older than farwrite ab, or no farwrite"),
        ("#!/bin/sh\necho hello; cat\n", "answered with what is no message of a farwrite arm"),
        ("#!/bin/sh\ncat\n", "speaks another version"),
        ("#!/nothing/at/all\n", "start .*No such file or directory"),
    ],
)
def test_an_executable_that_is_no_farwrite_is_named(tmp_path, script, said):
    path = tmp_path / "other"
    path.write_text(script)
    path.chmod(0o755)
    done = ab(tmp_path, path, "quick")
    if done.returncode == UNFIT:
        pytest.skip(done.stderr)
    assert_nothing_was_begun(done, tmp_path, "base", said)


def test_the_worker_is_not_for_people_and_says_so(tmp_path):
    done = subprocess.run(
        words_of("arm"), cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == REFUSED
    assert "farwrite ab starts it" in done.stderr
    assert "farwrite arm" not in farwrite("--help").stdout


@pytest.mark.lab
def test_a_finished_experiment_prints_the_comparison_and_where_its_reports_are(tmp_path):
    done = ab(tmp_path, "quick", "quick", *SHORT, "--set-cand", "lab.congestion=reno", "--json")
    if done.returncode == UNFIT:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    comparison = json.loads(done.stdout)
    assert comparison["unit_of_replication"] == "pairs"
    assert "twice" in comparison["floor_from"]
    for arm in ("base", "cand", "again"):
        assert f"out/{arm}/report.json" in done.stderr.replace("\n", "")
        assert farwrite("show", tmp_path / "out" / arm).returncode == 0
    again = farwrite("compare", tmp_path / "out")
    assert again.returncode == 0, again.stderr
