"""A revision of the repository we are in, checked out in a temporary directory for as long as a block.

A second process removes it: it waits for the end of a pipe that we hold, so it does its work also when we are killed.
git-worktree(1).
"""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...base.errors import UsageError
from ...base.host.parent_death import die_with
from ...lab.namespace import uninterrupted

# $1: the temporary directory, $2: git's own folder for all worktrees, $3: for ours. Not `git worktree remove`: it refuses one
# that was not completed. `read` ends with whoever holds the other end of its input. Where we were killed or interrupted, what
# git has started may still be writing files: it is looked for until nothing has come for half a second.
SWEEP = """
read -r word
quiet=0
while [ $quiet -lt 5 ]; do
    rm -rf "$1" "$2/$3"
    [ "$word" = done ] && break
    sleep 0.1
    if [ -e "$1" ] || [ -e "$2/$3" ]; then quiet=0; else quiet=$((quiet + 1)); fi
done
rmdir "$2"
"""


def git(*words: str) -> str:
    """What git answers here; UsageError with its own words when it refuses."""
    try:
        # Hooks of the user's are for the user's checkouts.
        done = subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, preexec_fn=functools.partial(die_with, os.getpid()),
        )  # fmt: skip
    except FileNotFoundError as missing:
        raise UsageError("An arm git:REVISION needs git, and there is none here.") from missing
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UsageError(f"git {words[0]} answers: {lines[-1].rstrip('.')}.")
    return done.stdout.strip()


def commit_of(revision: str) -> str:
    """The commit that a revision names in the repository we are in; UsageError with what git says when there is none."""
    try:
        return git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except UsageError as refusal:
        raise UsageError(f"git:{revision} is no revision of the repository here. {refusal}") from refusal


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """A directory with a revision's files, alone in a temporary directory; both are gone after this block."""
    commit = commit_of(revision)
    repository = Path(git("rev-parse", "--git-common-dir")).absolute()
    with swept(repository / "worktrees") as temporary:
        directory = temporary / temporary.name  # git calls a worktree by its last name, and this one is nobody else's.
        git("worktree", "add", "--detach", str(directory), commit)
        yield directory


@contextmanager
def swept(worktrees: Path) -> Iterator[Path]:
    """A temporary directory; it and git's note of the worktree in it go after this block, or when this process is no more."""
    with uninterrupted():
        temporary = Path(tempfile.mkdtemp(prefix="farwrite-ab-"))
        # A session of its own: what ends ours must not end it.
        sweeper = subprocess.Popen(
            ["sh", "-c", SWEEP, "sh", str(temporary), str(worktrees), temporary.name], stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/",
        )  # fmt: skip
    word = b"done\n"
    try:
        yield temporary
    except KeyboardInterrupt:
        word = b""  # An interrupted git has been killed, but not the process that it checks files out with.
        raise
    finally:
        with uninterrupted():
            assert sweeper.stdin is not None
            sweeper.stdin.write(word)
            sweeper.stdin.close()
            sweeper.wait()
