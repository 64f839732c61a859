"""Processes that answer for a whole pool: its metrics, and the address at which initiators find every volume.

What the one for metrics knows is fixed when it is forked: another takes its place when volumes, copies or nodes have come or
gone. The socket is the pool's: who comes in between waits, and who had come to the one before is answered by that. Where the
targets' portals are stands on a board, which the other one reads.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...base.errors import FarwriteError
from ...base.wire.congestion import state_congestion
from ...base.wire.door import BACKLOG
from ...engine.frontend.iscsi.chap import Credentials
from ...engine.frontend.iscsi.directory import Directory
from ...engine.frontend.iscsi.portal import portal_of
from ...lab.process import Process, process
from ...lab.shared_memory import Board, board
from ..serve.figures import REQUEST_S, MetricLines, Observed, metrics_text
from ..serve.replica import target_name
from ..voters import quieten
from .document import VOLUMES_MAX
from .group import run_alone

AGAIN_S = 1.0
LEAVES_S = REQUEST_S + 2.0  # For one whose place another has taken to end: it may be in the middle of an answer.
PORTS_WORDS = 2 * (VOLUMES_MAX + 1)
NODE_FIGURES = (
    ("node_size_bytes", "gauge", "Bytes of the node that the pool's volumes may take."),
    ("node_used_bytes", "gauge", "Bytes that volumes take there."),
    ("node_set_aside_bytes", "gauge", "Bytes that were granted to volumes there, used or not."),
    ("node_promised_bytes", "gauge", "Sizes of the volumes that have a copy there."),
    ("node_free_bytes", "gauge", "Bytes that may still be granted there."),
    ("node_led", "gauge", "Volumes that are led there."),
    ("node_copies", "gauge", "Copies that lie there."),
)


@dataclass
class Serving:
    """One such process."""

    own: contextlib.ExitStack
    made: Process
    ends: Board  # its word says that another has taken its place
    until_s: float = math.inf


class Attendant:
    """One such process, begun anew when what it is to know has changed, or when it has ended. The one before answers to its end
    who has come to it."""

    def __init__(self, name: str, listening: socket.socket, task: Callable[..., None], say: Callable[[str], None]) -> None:
        self.name, self.listening, self.task, self.say = name, listening, task, say
        state_congestion(listening)
        listening.listen(BACKLOG)
        self.serving: Serving | None = None
        self.leaving: list[Serving] = []
        self.known: object = None
        self.due_s = 0.0

    def tend(self, known: object, *arguments: Any) -> None:
        """Have it run with these arguments; `known` says when they are others."""
        now_s = time.monotonic()
        for one in [one for one in self.leaving if one.made.poll(0) or now_s > one.until_s]:
            one.own.close()
            self.leaving.remove(one)
        if (self.serving is not None and known == self.known and not self.serving.made.poll(0)) or now_s < self.due_s:
            return
        self.due_s = now_s + AGAIN_S
        before, self.serving = self.serving, None
        if before is not None:
            before.ends.words[0], before.until_s = 1, now_s + LEAVES_S
            self.leaving.append(before)
        with contextlib.ExitStack() as own:
            try:
                ends = own.enter_context(board(1))  # First: who is forked then knows it.
                made = own.enter_context(process(self.name))
                descriptor = self.listening.fileno()
                made.start(run_alone, [descriptor], self.task, descriptor, ends, *arguments)
            except (FarwriteError, OSError) as refusal:
                self.say(f"{self.name}: {refusal}")
                return
            self.serving, self.known = Serving(own.pop_all(), made, ends), known

    def close(self) -> None:
        for one in (*self.leaving, *([self.serving] if self.serving is not None else [])):
            one.own.close()
        self.leaving, self.serving = [], None


@contextmanager
def attendant(
    name: str, listening: socket.socket, task: Callable[..., None], say: Callable[[str], None]
) -> Iterator[Attendant]:
    """One that runs inside this block, once it was tended."""
    made = Attendant(name, listening, task, say)
    try:
        yield made
    finally:
        made.close()


class Ports(Mapping[str, int]):
    """On a board: the targets that there are, and the port of each one's portal. A volume's row is its door's."""

    def __init__(self, words: Any) -> None:
        self.rows = words[:PORTS_WORDS].reshape(-1, 2)

    def note(self, found: Mapping[int, tuple[int, int]]) -> None:
        """What there is now: by door, a volume's number and port. Whoever reads meanwhile finds a volume not, or right."""
        for place, row in enumerate(self.rows):
            number, port = found.get(place, (0, 0))
            if (row[0], row[1]) != (number, port):
                row[0] = 0
                row[1] = port
                row[0] = number

    def now(self) -> dict[str, int]:
        return {target_name(int(number)): int(port) for number, port in self.rows if number}

    def __getitem__(self, target: str) -> int:
        return self.now()[target]

    def __iter__(self) -> Iterator[str]:
        return iter(self.now())

    def __len__(self) -> int:
        return len(self.now())


def serve_directory(descriptor: int, ends: Board, ports: Board, credentials: Credentials | None, is_verbose: bool) -> None:
    """In a process of its own: tell initiators of every target, and send them there, until we are ended."""
    quieten(is_verbose)
    with socket.socket(fileno=descriptor) as listening:
        listening.setblocking(True)
        with portal_of(listening, Directory(Ports(ports.words), credentials)):
            threading.Event().wait()


def pool_metrics_text(volumes: Sequence[Observed], nodes: Sequence[str], board: Board) -> str:
    """All of a pool's metrics: of its volumes, and of its nodes, whose figures stand on the board in the order of their names."""
    page = MetricLines()
    for at, (name, kind, about) in enumerate(NODE_FIGURES):
        rows = [(f'node="{node}"', float(node_row(board, place)[at])) for place, node in enumerate(nodes)]
        page.family(name, kind, about, rows)
    return metrics_text(volumes) + page.text()


def node_row(board: Board, place: int) -> Any:
    """The figures of the node at this place."""
    return board.words[place * len(NODE_FIGURES) : (place + 1) * len(NODE_FIGURES)]
