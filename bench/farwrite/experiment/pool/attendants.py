"""Processes that answer for a whole pool: its metrics, and the address at which initiators find every volume.

What they know is fixed when they are forked; another takes the place of one when volumes, copies or nodes have come or gone. The
socket is the pool's: who comes in between waits.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ...base.errors import FarwriteError
from ...base.wire.congestion import state_congestion
from ...base.wire.door import BACKLOG
from ...engine.frontend.iscsi.chap import Credentials
from ...engine.frontend.iscsi.directory import Directory
from ...engine.frontend.iscsi.portal import portal_of
from ...lab.process import Process, process
from ...lab.shared_memory import Board
from ..serve.figures import MetricLines, Observed, metrics_text
from ..voters import quieten
from .group import run_alone

AGAIN_S = 1.0
NODE_FIGURES = (
    ("node_size_bytes", "gauge", "Bytes of the node that the pool's volumes may take."),
    ("node_used_bytes", "gauge", "Bytes that volumes take there."),
    ("node_set_aside_bytes", "gauge", "Bytes that were granted to volumes there, used or not."),
    ("node_promised_bytes", "gauge", "Sizes of the volumes that have a copy there."),
    ("node_free_bytes", "gauge", "Bytes that may still be granted there."),
    ("node_led", "gauge", "Volumes that are led there."),
    ("node_copies", "gauge", "Copies that lie there."),
)


class Attendant:
    """One such process, begun anew when what it is to know has changed, or when it has ended."""

    def __init__(self, name: str, listening: socket.socket, task: Callable[..., None], say: Callable[[str], None]) -> None:
        self.name, self.listening, self.task, self.say = name, listening, task, say
        state_congestion(listening)
        listening.listen(BACKLOG)
        self.stack = contextlib.ExitStack()
        self.made: Process | None = None
        self.known: object = None
        self.due_s = 0.0

    def tend(self, known: object, *arguments: Any) -> None:
        """Have it run with these arguments; `known` says when they are others."""
        if self.made is not None and known == self.known and not self.made.poll(0):
            return
        now_s = time.monotonic()
        if now_s < self.due_s:
            return
        self.due_s = now_s + AGAIN_S
        self.close()
        try:
            made = self.stack.enter_context(process(self.name))
            descriptor = self.listening.fileno()
            made.start(run_alone, [descriptor], self.task, descriptor, *arguments)
        except (FarwriteError, OSError) as refusal:
            self.say(f"{self.name}: {refusal}")
            self.close()
            return
        self.made, self.known = made, known

    def close(self) -> None:
        self.made = None
        self.stack.close()


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


def serve_directory(descriptor: int, ports: Mapping[str, int], credentials: Credentials | None, is_verbose: bool) -> None:
    """In a process of its own: tell initiators of every target, and send them there, until we are ended."""
    quieten(is_verbose)
    with socket.socket(fileno=descriptor) as listening:
        listening.setblocking(True)
        with portal_of(listening, Directory(ports, credentials)):
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
