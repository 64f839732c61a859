"""What the worker of an arm does: join the lab that it is told of, then measure what it is asked to, until nobody asks.

Its standard output carries answers and nothing else: whatever prints is sent to standard error.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from ... import __version__
from ...base.errors import FarwriteError, UsageError
from ...base.framing import Reader
from ...base.host.facts import host_facts
from ...base.host.parent_death import die_with
from ...lab.lab import Lab, joined_lab
from ...lab.link import Choice
from ...lab.namespace import Loopback, Namespace, Place
from ...lab.relay_door import Doors
from ...recording import NOT_OURS
from ..cells import cells_of
from ..compilation import compile_all
from ..measure import facts_of, flush_floors, lab_spec, record_sizes
from ..round import measure_cell
from ..run_journal import Run
from .arm import PACKAGE
from .message import VERSION, Answer, Head, Joined, Network, Refusal, Request, Task, lines_of, say, understood


def serve() -> None:
    """Be the worker of an arm, from the first line of standard input to its end."""
    die_with(os.getppid())
    with answers() as out:
        try:
            requests = lines_of(sys.stdin.buffer)
            first = requests.take()
            if not first:
                raise UsageError("farwrite arm is not for people: farwrite ab starts it.")
            measure_arm(task_of(first), requests, out)
        except FarwriteError as refusal:
            say(out, Answer(refusal=Refusal(sentence=str(refusal), exit_code=refusal.exit_code)))
            raise


@contextmanager
def answers() -> Iterator[IO[bytes]]:
    """The way to who asks; for this block standard output goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(kept, "wb", closefd=False) as out:
            yield out
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def task_of(text: bytes) -> Task:
    """The task in the first line; UsageError when it is of another version than ours."""
    try:
        head = msgspec.json.decode(text, type=Head)
        if head.version == VERSION:
            return msgspec.json.decode(text, type=Task)
    except NOT_OURS as refusal:
        raise UsageError(f"farwrite arm received a message that it cannot decode: {refusal}.") from refusal
    raise UsageError(f"farwrite {__version__} speaks version {VERSION} of the messages to arms, not {head.version}.")


def measure_arm(task: Task, requests: Reader, out: IO[bytes]) -> None:
    """Join the lab and do what each line asks."""
    profile = understood(task.profile)
    run = Run(profile, task.profile_name, task.seed, Path(task.directory))
    run.cells = cells_of(profile, run.workloads)
    compile_all()
    choice = Choice(task.network.link, task.network.link_reason)
    doors = [Doors(socket.socket(fileno=descriptor)) for descriptor in task.network.door_fds]
    with joined_lab(lab_spec(profile, run.directory), places_of(task.network), choice, doors) as lab:
        say(out, Answer(joined=joined(run, lab)))
        while (text := requests.take()) is not None:
            say(out, answer_to(msgspec.json.decode(text, type=Request), run, lab))


def places_of(network: Network) -> list[Place]:
    """The places of the lab by the descriptors that we inherited, or by their addresses."""
    if network.addresses:
        return [Loopback(address) for address in network.addresses]
    return [Namespace(fd, network.user_fd) for fd in (network.near_fd, network.far_fd, *network.other_fds)]


def joined(run: Run, lab: Lab) -> Joined:
    """Who we are, and what we understood."""
    return Joined(
        version=VERSION, farwrite=__version__, package=str(PACKAGE), profile=msgspec.to_builtins(run.profile),
        host=host_facts(), lab=facts_of(lab), cells=run.cells,
    )  # fmt: skip


def answer_to(request: Request, run: Run, lab: Lab) -> Answer:
    """What a request asks for."""
    if request.floors is not None:
        return Answer(floors=[flush_floors(run, lab, request.floors, size) for size in record_sizes(run)])
    assert request.measure is not None
    cell = next(cell for cell in run.cells if cell.id == request.measure.cell)
    return Answer(round=measure_cell(run, lab, cell, request.measure.index, request.measure.attempt))
