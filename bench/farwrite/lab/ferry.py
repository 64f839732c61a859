"""The ferry: a delay line in user space between two TUN devices, for kernels without netem.

Owns the two devices' descriptors and the process that carries the packets. Delay and cut change at once, through memory
shared with that process. Rate, loss and reordering it does not emulate.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..errors import UnfitError
from . import ferry_kernel as carrying
from .board import Board, board
from .process import process
from .site import Site, addresses_of, interface_of


class Ferry:
    """The carrying link: one-way delay per direction (0 near to far, 1 far to near)."""

    kind = "ferry"

    def __init__(self, words: np.ndarray) -> None:
        self.board = words

    def set_delay_ns(self, outward_ns: int, homeward_ns: int) -> None:
        """Hold packets this long from now on; those under way keep their time."""
        self.board[carrying.DELAY_NS : carrying.DELAY_NS + 2] = max(outward_ns, 0), max(homeward_ns, 0)

    def cut(self) -> None:
        """Lose every packet in both directions until heal()."""
        self.board[carrying.CUT : carrying.CUT + 2] = 1

    def heal(self) -> None:
        """Carry packets again."""
        self.board[carrying.CUT : carrying.CUT + 2] = 0

    def counters(self) -> dict[str, int]:
        """What the link did since it was made, both directions together."""
        pairs = {
            "packets": carrying.PACKETS, "bytes": carrying.BYTES, "drops": carrying.REFUSED,
            "cut_drops": carrying.CUT_DROPS, "full": carrying.FULL,
        }  # fmt: skip
        return {name: int(self.board[word] + self.board[word + 1]) for name, word in pairs.items()}


@contextmanager
def ferry(near: Site, far: Site) -> Iterator[Ferry]:
    """Join two sites by TUN devices and a process that carries packets between them. UnfitError without TUN."""
    with contextlib.ExitStack() as stack:
        descriptors = []
        for site, address in zip((near, far), addresses_of(far.index), strict=True):
            descriptor = site.open_tun(interface_of(far.index), address)
            stack.callback(os.close, descriptor)
            descriptors.append(descriptor)
        shared = stack.enter_context(board(carrying.BOARD_WORDS))
        carrier = stack.enter_context(process("ferry"))
        carrier.start(carry, *descriptors, shared)
        if carrier.poll(0.05):
            carrier.answer()
            raise UnfitError("The ferry process ended as soon as it was started.")
        yield Ferry(shared.words)


def carry(near_fd: int, far_fd: int, shared: Board) -> int:
    """The ferry process's only call: lasts until it is stopped or killed."""
    with contextlib.suppress(OSError):  # As urgent as a user may be; without the right to, at normal priority.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    return int(
        carrying.ferry(
            near_fd, far_fd, carrying.hold(), carrying.hold(), shared.words, np.zeros(4, np.int32), np.zeros(2, np.int64)
        )
    )
