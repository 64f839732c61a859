"""A miniature of each loop, run once before anything is measured and before the lab forks: its processes then start with
machine code. Numba keeps the result on disk; `compilation` fills that cache and shows how far it has come.

What a lab without an engine needs is in `warm_link.py`: importing this file compiles the engine.
"""

from __future__ import annotations

import socket
import threading

import numpy as np

from ..base.host import reactor
from ..base.host.disk import Disk, disk
from ..base.row import rows_of
from ..base.shared_counters import SharedCounters
from ..base.units import NS_PER_MS, NS_PER_S
from ..engine import secondary_kernel as secondary
from ..engine.journal import format_journal
from ..lab.precompile import rehearse_echo, rehearse_links
from ..targets import replicated
from ..workload.plan import Load

JOURNAL_BYTES = 24 << 20
VOLUME_BYTES = 16 << 20


def rehearse_all() -> None:
    """Every loop kernel once, in miniature."""
    rehearse()
    rehearse_echo()
    rehearse_links()


def compile_near() -> None:
    """The primary's half: the load and the engine of the near site."""
    with disk(None, JOURNAL_BYTES, VOLUME_BYTES) as near:
        replicated.write_side(order_of("local"), near, [], rows_of(SharedCounters), np.zeros(64, np.int64))


def compile_far() -> None:
    """The secondary's half, with the links and the surveys."""
    rehearse_links()
    rehearse_echo()
    with disk(None, JOURNAL_BYTES, VOLUME_BYTES) as far:
        compile_secondary(order_of(), far)


def order_of(protocol: str = "C") -> replicated.Order:
    """A round of a few milliseconds; the peer timeout is long because the peer may still be compiling."""
    return replicated.Order(
        protocol=protocol, volume=1, epoch=1, seed=1, load=Load(volume_bytes=VOLUME_BYTES),
        write_count_max=64, queue_depth=4, duration_ns=5 * NS_PER_MS,
        slice_ns=NS_PER_MS, slice_count=5, peer_timeout_ns=600 * NS_PER_S,
    )  # fmt: skip


def rehearse() -> None:
    """A replicated round between two threads, with journals in memory, and its audit."""
    order = order_of()
    near_end, far_end = socket.socketpair()
    with disk(None, JOURNAL_BYTES, VOLUME_BYTES) as near, disk(None, JOURNAL_BYTES, VOLUME_BYTES) as far:
        compile_secondary(order, far)
        copying = threading.Thread(target=replicated.copy_side, args=(order, far, far_end, rows_of(SharedCounters)))
        copying.start()
        observed = replicated.write_side(order, near, [near_end], rows_of(SharedCounters), np.zeros(64, np.int64))
        near_end.close()
        copying.join()
        replicated.audit_side(order, far, int(observed.recorder.at[0].completed))


def compile_secondary(order: replicated.Order, far: Disk) -> None:
    """The secondary's loop, with a board that asks to stop at once. First and alone: two threads would only wait."""
    with reactor.reactor("plain") as ring:
        journal = format_journal(far, order.volume, order.epoch, replicated.STAGING_BYTES)
        stopping = rows_of(SharedCounters)
        stopping[0].stop = 1
        secondary.serve(secondary.secondary_state(journal, ring, -1, secondary.B, far.volume_bytes, stopping))
