"""A snapshot of several served volumes at one instant: clients of all of them wait while each is taken.

First every volume has its clients wait, then each takes its snapshot, then each is asked whether they have waited until then.
Only after that one of them goes on. So nothing that was answered behind one volume's snapshot is the cause of anything in
another's. If we are killed clients go on, and a volume deletes what it took and was not asked about again. Decision 0069.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar

from ...base.errors import FarwriteError, UnfitError, UsageError
from .control import (
    ANSWER,
    ANSWER_BYTES_MAX,
    PAUSED_S,
    Answer,
    Delete,
    Pause,
    Request,
    Show,
    SnapshotFigures,
    Take,
    answer_to,
    ask,
    call,
    refused,
)

VOLUMES_MAX = 64

T = TypeVar("T")
S = TypeVar("S")


class Together(NamedTuple):
    """What was taken."""

    snapshots: list[SnapshotFigures]  # of each volume, in their order
    pause_s: float  # for which some client may have waited


def take_together(volumes: Sequence[Path], name: str) -> Together:
    """A snapshot of this name of each volume, all at one instant. `volumes`: their directories of sockets.

    UsageError where one of them is named twice or has a snapshot of this name. UnfitError where it could not be taken of all:
    then it is of none, or the sentence says where one was left.
    """
    if not 2 <= len(volumes) <= VOLUMES_MAX:
        raise UsageError(f"{len(volumes)} volumes: 2 to {VOLUMES_MAX} have a snapshot together.")
    with ThreadPoolExecutor(len(volumes), "snapshots") as pool:
        answers = at_all(pool, volumes, lambda place: ask(place, Show()))
        check_new(volumes, answers, name)
        taken: list[Answer] = []
        begin_s = time.monotonic()
        try:
            with ExitStack() as stack:
                connections = [stack.enter_context(contextlib.closing(one)) for one in at_all(pool, volumes, call)]
                for request in (Pause(), Take(name), Show()):
                    answers = at_all(pool, connections, lambda one, request=request: asked(one, request))  # type: ignore[misc]
                    taken = answers if isinstance(request, Take) else taken
        except BaseException as failure:
            raise_with(failure, forget(pool, volumes, taken, name), name)
        pause_s = time.monotonic() - begin_s
    return Together([next(one for one in answer.snapshots if one.name == name) for answer in answers], pause_s)


def check_new(volumes: Sequence[Path], answers: Sequence[Answer], name: str) -> None:
    """UsageError where a volume is there twice, or has such a snapshot."""
    numbers = [answer.volume for answer in answers]
    for place, number in zip(volumes, numbers, strict=True):
        if numbers.count(number) > 1:
            raise UsageError(f"{place}: this volume is named twice.")
    having = [place for place, answer in zip(volumes, answers, strict=True) if any(one.name == name for one in answer.snapshots)]
    if having:
        raise UsageError(f"There is a snapshot {name} already at {', '.join(map(str, having))}: delete it, or give another name.")


def asked(connection: socket.socket, request: Request) -> Answer:
    """What a volume says while its clients wait. Its refusal is raised."""
    answer = answer_to(connection, request, ANSWER, ANSWER_BYTES_MAX, PAUSED_S + 1)
    if answer.refusal:
        raise refused(answer)
    return answer


def at_all(pool: ThreadPoolExecutor, those: Sequence[T], work: Callable[[T], S]) -> list[S]:
    """Do it with all of them at once. Once all have ended the first refusal is raised; sockets that were made are closed then."""
    waiting = [pool.submit(work, one) for one in those]
    failures = [failure for one in waiting if (failure := one.exception()) is not None]
    if not failures:
        return [one.result() for one in waiting]
    for one in waiting:
        if one.exception() is None and isinstance(made := one.result(), socket.socket):
            made.close()
    raise failures[0]


def forget(pool: ThreadPoolExecutor, volumes: Sequence[Path], taken: Sequence[Answer], name: str) -> list[Path]:
    """Delete what all have taken, and nobody else's of this name; where it is not known to be gone. What only some have taken
    they delete themselves, once we have hung up."""

    def one(asked_of: tuple[Path, Answer]) -> bool:
        place, answer = asked_of
        ours = {(found.sequence, found.taken_ns) for found in answer.snapshots if found.name == name}
        try:
            listed = [found for found in ask(place, Show()).snapshots if found.name == name]
            if any((found.sequence, found.taken_ns) in ours for found in listed):
                ask(place, Delete(name))
        except UsageError:  # It deleted it itself.
            return True
        except (FarwriteError, OSError):
            return False
        return True

    asked_of = list(zip(volumes, taken, strict=False))
    return [place for (place, _), is_gone in zip(asked_of, pool.map(one, asked_of), strict=True) if not is_gone]


def raise_with(failure: BaseException, left: Sequence[Path], name: str) -> NoReturn:
    """The failure, and what it leaves."""
    if not isinstance(failure, FarwriteError | OSError):
        raise failure
    where = f" It may be at {', '.join(map(str, left))}: delete it there." if left else ""
    raise UnfitError(f"The snapshot {name} is not taken: {str(failure).rstrip('.')}.{where}") from failure
