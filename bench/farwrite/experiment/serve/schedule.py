"""When snapshots are taken and which are kept, and what somebody's commands do around the instant. For the command line.

A hook makes a snapshot consistent for an application: `before` has it write out what it holds and stand still, `after` lets it
go on. `after` is run whatever becomes of `before` and of the snapshot, and each has its time; a hook that takes longer is killed
with everything it has started.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ...base.errors import FarwriteError, UnfitError
from ...base.units import format_time
from .control import Delete, Show, SnapshotFigures, Take, UnansweredError, ask
from .together import take_together

HOOK_S = 30.0


@dataclass(frozen=True)
class Hooks:
    """Commands for the shell; empty: none."""

    before: str = ""
    after: str = ""
    limit_s: float = HOOK_S


NO_HOOKS = Hooks()


class HookError(UnfitError):
    """A hook has failed."""


@contextmanager
def around(hooks: Hooks, name: str, volumes: Sequence[Path]) -> Iterator[None]:
    """Between `before` and `after`. HookError when one of them fails; then `after` has been run all the same."""
    try:
        if hooks.before:
            run_hook("before", hooks.before, hooks.limit_s, name, volumes)
        yield
    except BaseException:
        if hooks.after:
            with contextlib.suppress(HookError):  # What failed first is said.
                run_hook("after", hooks.after, hooks.limit_s, name, volumes)
        raise
    if hooks.after:
        run_hook("after", hooks.after, hooks.limit_s, name, volumes)


def run_hook(which: str, words: str, limit_s: float, name: str, volumes: Sequence[Path]) -> None:
    """One hook to its end; what it prints goes to stderr. HookError when it fails or takes too long."""
    environment = os.environ | {"FARWRITE_SNAPSHOT": name, "FARWRITE_SOCKETS": ":".join(map(str, volumes))}
    with subprocess.Popen(
        ["/bin/sh", "-c", words], env=environment, stdin=subprocess.DEVNULL, stdout=2, stderr=2, start_new_session=True
    ) as made:  # fmt: skip
        try:
            code = made.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise HookError(f"--{which} has not ended within {format_time(limit_s * 1e9)}, and was killed: {words}.") from None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(made.pid, signal.SIGKILL)
    if code:
        raise HookError(f"--{which} ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}: {words}.")


@dataclass(frozen=True)
class Taken:
    """A snapshot, and how long its request took, hooks apart."""

    snapshot: SnapshotFigures  # of several volumes that of the first
    seconds: float
    volumes: int = 1  # that have it, of one instant
    pause_s: float | None = None  # for which clients of several volumes may have waited


def take(volumes: Sequence[Path], name: str, hooks: Hooks = NO_HOOKS) -> Taken:
    """Take a snapshot of each of these volumes, all at one instant. UnfitError when a hook fails: before it, none was taken;
    after it, one was, and that is said."""
    found: Taken | None = None
    try:
        with around(hooks, name, volumes):
            begin_s = time.monotonic()
            if len(volumes) == 1:
                found = Taken(taken_for_sure(volumes[0], name), time.monotonic() - begin_s)
            else:
                together = take_together(volumes, name)
                took_s = time.monotonic() - begin_s
                found = Taken(together.snapshots[0], took_s, len(volumes), together.pause_s)
    except HookError as failure:
        how = "Yet the snapshot was taken" if found is not None else "No snapshot was taken"
        raise UnfitError(f"{failure} {how}.") from failure
    return found


def taken_for_sure(sockets: Path, name: str) -> SnapshotFigures:
    """Take it. When whoever led is gone before its answer, the next one knows whether it was taken; if not, it takes it."""
    begin_ns = time.time_ns()
    try:
        answer = ask(sockets, Take(name))
    except UnansweredError:
        answer = ask(sockets, Show())
        if not any(one.name == name and one.taken_ns >= begin_ns for one in answer.snapshots):
            answer = ask(sockets, Take(name))
    found = next((one for one in answer.snapshots if one.name == name), None)
    if found is None:
        raise UnfitError(f"The snapshot {name} was taken and is not listed: farwrite snapshot list says what there is now.")
    return found


def name_at(prefix: str, seconds: float) -> str:
    """The name of a scheduled snapshot; those of one schedule sort by their instants."""
    return f"{prefix}-{datetime.fromtimestamp(seconds, UTC):%Y%m%dT%H%M%SZ}"


def to_delete(snapshots: list[SnapshotFigures], prefix: str, keep: int) -> list[str]:
    """Names of this schedule's snapshots beyond the newest so many."""
    form = re.compile(rf"{re.escape(prefix)}-\d{{8}}T\d{{6}}Z")
    own = sorted(one.name for one in snapshots if form.fullmatch(one.name))
    return own[: max(len(own) - keep, 0)]


@dataclass(frozen=True)
class Schedule:
    """Every so often; the newest so many are kept."""

    every_s: float
    keep: int
    prefix: str = "every"
    hooks: Hooks = NO_HOOKS


def keep_schedule(
    volumes: Sequence[Path], schedule: Schedule, taken: Callable[[Taken], None], tell: Callable[[str], None]
) -> None:
    """Take snapshots of these volumes and delete the oldest until interrupted. What cannot be done in time is told in a line, and
    the next one is tried when it is due."""
    for due_s in instants(schedule.every_s, tell):
        name = name_at(schedule.prefix, due_s)
        try:
            taken(take(volumes, name, schedule.hooks))
        except FarwriteError as refusal:
            tell(f"{name} was not taken in order: {refusal}")
        for sockets in volumes:
            try:
                for old in to_delete(ask(sockets, Show()).snapshots, schedule.prefix, schedule.keep):
                    ask(sockets, Delete(old))
            except FarwriteError as refusal:
                tell(f"An old snapshot was not deleted: {refusal}")


def instants(every_s: float, tell: Callable[[str], None]) -> Iterator[float]:
    """Since 1970, each time that something is due, once it is: now, and then every so often. Those that passed meanwhile are
    left out, and it is told how many."""
    begin_s, since_s, count = time.time(), time.monotonic(), 0
    while True:
        yield begin_s + count * every_s
        passed_s = time.monotonic() - since_s
        following = int(passed_s // every_s) + 1
        if following > count + 1:
            left_out = following - count - 1
            tell(
                f"What was due every {format_time(every_s * 1e9)} took {format_time((passed_s - count * every_s) * 1e9)}: "
                f"{left_out} {'instant was' if left_out == 1 else 'instants were'} left out."
            )
        count = following
        time.sleep(max(since_s + count * every_s - time.monotonic(), 0))
