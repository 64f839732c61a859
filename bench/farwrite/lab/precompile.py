"""A miniature of the loops that a link and its survey need, run once before the lab forks: all that `farwrite lab`,
`farwrite survey` and the tests' fixture run. Nothing of the engine is imported.
"""

from __future__ import annotations

import os
import socket
import threading

import numpy as np

from ..base.row import rows_of
from ..workload.link_spec import Way
from . import ferry_kernel, probe_kernel, relay_kernel, survey_kernel
from .ferry import lay_out


def rehearse_link() -> None:
    """Each of them once."""
    rehearse_links()
    rehearse_echo()


def rehearse_echo() -> None:
    """One echo between two threads, and one flush."""
    near_end, far_end = socket.socketpair()
    data, rtt_ns = np.zeros(64, np.uint8), np.zeros(1, np.int64)
    with near_end, far_end:
        survey_kernel.answer_echoes(far_end.fileno(), data, 64, 64, 0)
        survey_kernel.answer_flushed(far_end.fileno(), data, 64, 64, 0, -1, 64, 4096)
        answering = threading.Thread(target=survey_kernel.answer_echoes, args=(far_end.fileno(), data, 64, 64, 1))
        answering.start()
        survey_kernel.measure_echoes(near_end.fileno(), np.zeros(64, np.uint8), 64, 64, rtt_ns, False)
        answering.join()
    near_end, far_end = socket.socketpair()
    with near_end, far_end:
        words, found = np.zeros(2, np.int64), np.zeros((3, 1), np.int64)
        probe_kernel.send_probes(near_end.fileno(), words.view(np.uint8), words, 1, 0, 0)
        probe_kernel.receive_probes(far_end.fileno(), data, data[:16].view(np.int64), *found)
    memory = os.memfd_create("farwrite-rehearsal")
    try:
        survey_kernel.measure_flushes(memory, data, 64, 4096, rtt_ns)
    finally:
        os.close(memory)


def rehearse_links() -> None:
    """The loops that carry a link in user space."""
    rehearse_ferry()
    rehearse_relay()


def rehearse_ferry() -> None:
    """The ferry's loop with a board that asks to stop at once, and what is drawn for a way."""
    board = np.zeros(ferry_kernel.BOARD_WORDS, np.int64)
    board[ferry_kernel.STOP] = 1
    lay_out(board, 0, Way(), 1)
    ferry_kernel.ferry(
        -1, -1, ferry_kernel.hold(1 << 16, 16), ferry_kernel.hold(1 << 16, 16), board, np.zeros(4, np.int32),
        np.zeros(2, np.int64),
    )  # fmt: skip


def rehearse_relay() -> None:
    """The relay's loop with a board that asks to stop at once, and what its doorkeeper calls."""
    board, ends = np.zeros(relay_kernel.BOARD_WORDS, np.int64), rows_of(relay_kernel.Ends)
    board[relay_kernel.STOP] = 1
    held = relay_kernel.streams(1, 1 << 17, 16)
    relay_kernel.clear(held, 0, 0)
    relay_kernel.post(ends, 0, relay_kernel.VACANT)
    relay_kernel.relay(
        held, ends, board, np.zeros((2, 16), np.int64), -1, -1, np.zeros(6, np.int32), np.zeros(2, np.int64)
    )
