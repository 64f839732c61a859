"""Compile everything before anything is measured, and before the lab forks: its processes then start with machine code.

A miniature of each loop is run once in this process. Numba keeps the result on disk, so only the first run after an
install, or after an edit, waits for it.
"""

from __future__ import annotations

import os
import socket
import threading
import time

import numpy as np

from .host.disk import disk
from .lab import ferry_kernel, survey_kernel
from .plan import Load
from .progress import Progress, Silence
from .target import replicated
from .units import NS_PER_MS, NS_PER_S

COMPILE_S = 45.0  # On the 2.5 GHz Xeon this was written on; only for the time left.


def compile_all(progress: Progress | None = None) -> float:
    """Run every loop kernel once, in miniature; answers the seconds it took."""
    told = progress or Silence()
    begin_s = time.monotonic()
    told.doing("compiling the replication engine (only the first time)")
    rehearse("C", 600)
    told.doing("compiling the link and its survey (only the first time)")
    rehearse_echo()
    rehearse_ferry()
    return time.monotonic() - begin_s


def rehearse(protocol: str, peer_timeout_s: int) -> None:
    """A replicated round of a few milliseconds between two threads, with journals in memory."""
    order = replicated.Order(
        protocol=protocol, volume=1, epoch=1, seed=1, load=Load(volume_bytes=16 << 20), trace_path="", trace_begin_ns=0,
        time_scale=1.0, write_count_max=64, queue_depth=4, duration_ns=5 * NS_PER_MS, slice_ns=NS_PER_MS, slice_count=5,
        peer_timeout_ns=peer_timeout_s * NS_PER_S,
    )  # fmt: skip
    near_end, far_end = socket.socketpair()
    with near_end, far_end, disk(None, 24 << 20, 16 << 20) as near, disk(None, 24 << 20, 16 << 20) as far:
        board = np.zeros(64, np.int64)
        # The secondary first, alone: two threads that compile at once only wait for each other.
        near_end.close()
        compile_secondary(order, far, far_end)
        near_end, far_end = socket.socketpair()
        copying = threading.Thread(target=replicated.copy_side, args=(order, far, far_end, board))
        copying.start()
        observed = replicated.write_side(order, near, near_end, np.zeros(64, np.int64), np.zeros(64, np.int64))
        near_end.close()
        copying.join()
        far_end.close()
        replicated.audit_side(order, far, int(observed["recorder"].at[1]))


def compile_secondary(order: replicated.Order, far, far_end: socket.socket) -> None:
    """Compile the secondary's loop by serving a board that asks to stop at once."""
    from .engine import secondary_kernel as secondary
    from .engine.journal import format_journal
    from .host import reactor

    with reactor.reactor("plain") as ring:
        journal = format_journal(far, order.volume, order.epoch, replicated.STAGING_BYTES)
        stopping = np.ones(64, np.int64)
        secondary.serve(secondary.secondary_state(journal, ring, far_end.fileno(), 3, far.volume_bytes, stopping))


def rehearse_echo() -> None:
    """One echo between two threads, and one flush."""
    near_end, far_end = socket.socketpair()
    data, rtt_ns = np.zeros(64, np.uint8), np.zeros(1, np.int64)
    with near_end, far_end:
        survey_kernel.answer_echoes(far_end.fileno(), data, 64, 64, 0)
        answering = threading.Thread(target=survey_kernel.answer_echoes, args=(far_end.fileno(), data, 64, 64, 1))
        answering.start()
        survey_kernel.measure_echoes(near_end.fileno(), np.zeros(64, np.uint8), 64, 64, rtt_ns)
        answering.join()
    memory = os.memfd_create("farwrite-rehearsal")
    try:
        survey_kernel.measure_flushes(memory, data, 64, 4096, rtt_ns)
    finally:
        os.close(memory)


def rehearse_ferry() -> None:
    """The ferry's loop with a board that asks to stop at once."""
    board = np.zeros(ferry_kernel.BOARD_WORDS, np.int64)
    board[ferry_kernel.STOP] = 1
    ferry_kernel.ferry(
        -1, -1, ferry_kernel.hold(1 << 16, 16), ferry_kernel.hold(1 << 16, 16), board, np.zeros(4, np.int32),
        np.zeros(2, np.int64),
    )  # fmt: skip
