"""What a word of `farwrite ab` means: a profile, a revision of the repository we are in, or another installed farwrite.

`arm_of` refuses a wrong word before anything is compiled or opened; `launched` makes an arm's farwrite ready to be started,
for as long as a block.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...base.errors import UsageError, nearest
from ...workload.catalog import load, shipped
from ...workload.tables import Profile
from .worktree import commit_of, worktree

ArmName = Literal["base", "cand", "again"]

REVISION = "git:"
PACKAGE = Path(__file__).parents[2]
WORDS = "An arm is a profile (see farwrite profiles), git:REVISION, or the path of another farwrite."


@dataclass(frozen=True)
class Arm:
    """One side of an experiment, as it was asked for."""

    name: ArmName
    word: str
    what: str  # the word with the options that are this arm's
    profile: Profile
    profile_name: str


@dataclass(frozen=True)
class Launch:
    """How the farwrite of an arm is started."""

    command: list[str]
    environment: dict[str, str]
    package: Path | None  # the code that must then be running; None where that is the executable's own affair


def arm_of(name: ArmName, word: str, profile: str, changes: list[str], done: list[str]) -> Arm:
    """The arm that a word asks for; `profile` is what arms measure that are none themselves, `done` are changes that every
    experiment makes."""
    if is_revision(word):
        commit_of(word.removeprefix(REVISION))
    elif is_executable(word):
        check_executable(word)
    else:
        check_profile(word)
        profile = word
    options = [f"--set {change}" for change in changes]
    named = [] if profile == word else [f"--profile {profile}"]
    chosen = load(profile, [*changes, *done])
    if chosen.lab.far_host:
        raise UsageError(f"{word}: arms share an emulated distance; lab.far_host is for farwrite run.")
    return Arm(name, word, " ".join([word, *named, *options]), chosen, profile)


def is_revision(word: str) -> bool:
    """Whether a word names a revision."""
    return word.startswith(REVISION)


def is_executable(word: str) -> bool:
    """Whether a word names an executable: a path that is no profile."""
    return "/" in word and not word.endswith(".toml")


def is_ours(word: str) -> bool:
    """Whether a word names a profile, which the farwrite that is running measures."""
    return not is_revision(word) and not is_executable(word)


def check_profile(word: str) -> None:
    """UsageError unless this is a shipped profile or may be a file of one."""
    if not word.endswith(".toml") and word not in shipped():
        raise UsageError(f'There is no profile "{word}"{nearest(word, shipped())}. {WORDS}')


def check_executable(word: str) -> None:
    """UsageError unless there is a file that we may execute."""
    path = Path(word).expanduser()
    if not path.is_file():
        raise UsageError(f"There is no file {word}. {WORDS}")
    if not os.access(path, os.X_OK):
        raise UsageError(f"{word} may not be executed: name the command itself, such as /opt/venv/bin/farwrite.")


@contextmanager
def launched(word: str) -> Iterator[Launch]:
    """How to start what a word names, valid as long as this block."""
    if is_revision(word):
        with worktree(word.removeprefix(REVISION)) as directory:
            bench = directory / "bench"
            if not (bench / "farwrite").is_dir():
                raise UsageError(f"{word} holds no bench/farwrite: call farwrite ab in a checkout of farwrite.")
            # Our cache of machine code is of our sources: a revision chooses its own, which is ours if its kernels are.
            yield from_source(bench, environment_without("NUMBA_CACHE_DIR"))
    elif is_executable(word):
        yield Launch([str(Path(word).expanduser().absolute())], environment_without("NUMBA_CACHE_DIR"), None)
    else:
        yield from_source(PACKAGE.parent, dict(os.environ))


def from_source(bench: Path, environment: dict[str, str]) -> Launch:
    """The farwrite in this directory, run by this interpreter."""
    path = [str(bench), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**environment, "PYTHONPATH": os.pathsep.join(path)}
    # -P: a directory named farwrite where we happen to be is not the arm.
    return Launch([sys.executable, "-P", "-m", "farwrite"], environment, bench / "farwrite")


def environment_without(name: str) -> dict[str, str]:
    """Our environment less one variable."""
    return {key: value for key, value in os.environ.items() if key != name}
