"""Replicated rounds for tests: both sides as threads over a socket pair, or as processes that may be killed."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from farwrite.base.host import reactor
from farwrite.base.row import rows_of
from farwrite.base.shared_counters import SharedCounters
from farwrite.base.units import NS_PER_S
from farwrite.experiment.compilation import compile_all
from farwrite.lab.process import process
from farwrite.targets import replicated
from farwrite.workload.plan import Load

JOURNAL_BYTES = 24 << 20  # A ring of 16 MiB: two staging rings.
VOLUME_BYTES = 4 << 20
MIXED = ((512, 3.0), (4096, 4.0), (1536, 1.0), (16384, 1.0), (65536, 1.0))

IDENTITIES = itertools.count(1000)  # No volume twice on one disk: what an earlier round left must not pass for this one's.
ENDS: dict[str, socket.socket] = {}  # Both ends of a connection, made before the processes are forked.


@pytest.fixture(scope="session", autouse=True)
def everything_compiled():
    """A peer's patience is shorter than a compiler's work."""
    compile_all()


def load(sizes=MIXED, volume_bytes=VOLUME_BYTES, **other):
    return Load(**{"volume_bytes": volume_bytes, "sizes": sizes, "alignment_bytes": 512, **other})


def order(**chosen) -> replicated.Order:
    """A round of 300 mixed writes in a closed loop, unless chosen otherwise."""
    usual: dict[str, Any] = {
        "protocol": "C", "volume": next(IDENTITIES), "epoch": 1, "seed": 5, "load": load(),
        "write_count_max": 300, "queue_depth": 8, "duration_ns": 60 * NS_PER_S,
        "slice_ns": NS_PER_S, "slice_count": 60, "peer_timeout_ns": 10 * NS_PER_S, "reactor": "plain",
    }  # fmt: skip
    return replicated.Order(**{**usual, **chosen})


def reactors():
    """The reactors of this machine, as parameters."""
    try:
        with reactor.reactor("uring"):
            return ["plain", "uring"]
    except OSError as refusal:
        return ["plain", pytest.param("uring", marks=pytest.mark.skip(reason=f"no io_uring here: {refusal}"))]


@dataclass
class Side:
    """One side in a thread: what it answered or raised, and its board."""

    board: np.ndarray = field(default_factory=lambda: rows_of(SharedCounters))
    answer: dict | None = None
    failure: Exception | None = None
    thread: threading.Thread | None = None

    def start(self, function, *arguments):
        def run():
            try:
                self.answer = function(*arguments)
            except Exception as failure:
                self.failure = failure

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def end(self, timeout_s=30):
        self.thread.join(timeout_s)
        assert not self.thread.is_alive(), "a side does not come to its end"
        if self.failure:
            raise self.failure
        return self.answer


def play(chosen, near_disk, far_disk):
    """A whole round; answers what the near and the far side observed."""
    near_end, far_end = socket.socketpair()
    near, far = Side(), Side()
    with near_end, far_end:
        far.start(replicated.copy_side, chosen, far_disk, far_end, far.board)
        near.start(replicated.write_side, chosen, near_disk, [near_end], near.board, np.zeros(64, np.int64))
        observed = near.end()
        near_end.close()
        return observed, far.end()


def completed_in(observed):
    return int(observed.recorder.at[0].completed)


def issued_in(observed):
    return int(observed.recorder.at[0].issued)


def tcp_pair():
    """Two ends of one connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


@contextlib.contextmanager
def two_processes():
    """(near, far): processes without namespaces, each holding its end of a connection and nobody else's."""
    ENDS["near"], ENDS["far"] = tcp_pair()
    try:
        with process("far") as far, process("near") as near:
            near.call(keep, "near")
            far.call(keep, "far")
            keep("")
            yield near, far
    finally:
        keep("")


def keep(name):
    """Close every end but this one."""
    for other in [other for other in ENDS if other != name]:
        ENDS.pop(other).close()


def write(chosen, disk, board, history):
    """In the near process."""
    return replicated.write_side(chosen, disk, [ENDS["near"]] if "near" in ENDS else [], board.counters, history.words)


def copy(chosen, disk, board):
    """In the far process."""
    return replicated.copy_side(chosen, disk, ENDS["far"], board.counters)
