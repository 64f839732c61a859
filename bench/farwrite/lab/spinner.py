"""The spinner: one idle-priority process on one processor, so that a virtual machine's do not fall asleep at its host.

It yields to everything else (SCHED_IDLE). Never one on each processor: that starves the hypervisor's own threads, such as the
disk's (fdatasync fell from 6 000-8 000/s to 1 000/s on a VM with two). sched(7).

It gives up its turn all the time (sched_yield), because the scheduler lets a task that computes keep what is left of its slice,
an idle one as well: beside a plain loop the median local write took 4.00 ms, a tick, and beside this one 0.13 (Linux 6.18, a VM
with two processors).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from .process import process


@contextmanager
def spinning() -> Iterator[None]:
    """A spinner as long as this block, or as long as we live."""
    with process("keep-awake") as spinner:
        spinner.start(spin)
        yield


def spin() -> None:
    """In the process: use what nobody else wants of the last processor we may use."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    while True:
        os.sched_yield()
