"""A miniature of each loop, run once before anything is measured and before the lab forks: its processes then start with
machine code. Numba keeps the result on disk; `compilation` fills that cache and shows how far it has come.
"""

from __future__ import annotations

import os
import socket
import threading

import numpy as np

from .engine import secondary_kernel as secondary
from .engine.journal import format_journal
from .host import reactor
from .host.disk import Disk, disk
from .lab import ferry_kernel, probe_kernel, relay_kernel, survey_kernel
from .lab.ferry import lay_out
from .link_spec import Way
from .plan import Load
from .target import replicated
from .units import NS_PER_MS, NS_PER_S

JOURNAL_BYTES = 24 << 20
VOLUME_BYTES = 16 << 20
def rehearse_all() -> None:
    """Every loop kernel once, in miniature."""
    rehearse()
    rehearse_echo()
    rehearse_links()


def compile_link() -> None:
    """Only what a link and its survey need: a few seconds instead of a minute or more."""
    rehearse_links()
    rehearse_echo()


def compile_near() -> None:
    """The primary's half: the load and the engine of the near site."""
    with disk(None, JOURNAL_BYTES, VOLUME_BYTES) as near:
        words = np.zeros(64, np.int64)
        replicated.write_side(order_of("local"), near, [], words, words)


def compile_far() -> None:
    """The secondary's half, with the links and the surveys."""
    rehearse_links()
    rehearse_echo()
    with disk(None, JOURNAL_BYTES, VOLUME_BYTES) as far:
        compile_secondary(order_of(), far)


def order_of(protocol: str = "C") -> replicated.Order:
    """A round of a few milliseconds; the peer timeout is long because the peer may still be compiling."""
    return replicated.Order(
        protocol=protocol, volume=1, epoch=1, seed=1, load=Load(volume_bytes=VOLUME_BYTES), trace_path="",
        trace_begin_ns=0, time_scale=1.0, write_count_max=64, queue_depth=4, duration_ns=5 * NS_PER_MS,
        slice_ns=NS_PER_MS, slice_count=5, peer_timeout_ns=600 * NS_PER_S,
    )  # fmt: skip


def rehearse() -> None:
    """A replicated round between two threads, with journals in memory, and its audit."""
    order = order_of()
    near_end, far_end = socket.socketpair()
    with disk(None, JOURNAL_BYTES, VOLUME_BYTES) as near, disk(None, JOURNAL_BYTES, VOLUME_BYTES) as far:
        compile_secondary(order, far)
        copying = threading.Thread(target=replicated.copy_side, args=(order, far, far_end, np.zeros(64, np.int64)))
        copying.start()
        words = np.zeros(64, np.int64)
        observed = replicated.write_side(order, near, [near_end], words, words)
        near_end.close()
        copying.join()
        replicated.audit_side(order, far, int(observed["recorder"].at[1]))


def compile_secondary(order: replicated.Order, far: Disk) -> None:
    """The secondary's loop, with a board that asks to stop at once. First and alone: two threads would only wait."""
    with reactor.reactor("plain") as ring:
        journal = format_journal(far, order.volume, order.epoch, replicated.STAGING_BYTES)
        stopping = np.ones(64, np.int64)
        secondary.serve(secondary.secondary_state(journal, ring, -1, secondary.B, far.volume_bytes, stopping))


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
    board, ends = np.zeros(relay_kernel.BOARD_WORDS, np.int64), np.zeros((1, relay_kernel.END_WORDS), np.int64)
    board[relay_kernel.STOP] = 1
    held = relay_kernel.streams(1, 1 << 17, 16)
    relay_kernel.clear(held, 0, 0)
    relay_kernel.post(ends, 0, relay_kernel.VACANT)
    relay_kernel.relay(
        held, ends, board, np.zeros((2, 16), np.int64), -1, -1, np.zeros(6, np.int32), np.zeros(2, np.int64)
    )
