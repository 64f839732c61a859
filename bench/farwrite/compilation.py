"""Compile everything before anything is measured: in processes beside this one, which shows how far they have come.

Nothing that holds a kernel is imported here before the cache is filled: a kernel with a signature is compiled where its module
is imported. Numba keeps the result on disk, so only the first run after an install, or after an edit, waits for it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numba.core import event

from . import jit
from .host.lifetime import die_with
from .progress import Progress, Silence

# Of a first compilation, where none on this machine has left its own figures in MARKER.
FUNCTIONS = 507
SECONDS = "50 to 95 s on two idle processors"
POLL_S = 0.1
MARKER = "complete"  # In the cache directory: how many functions were compiled there, and in how many seconds.


def compile_all(progress: Progress | None = None) -> float:
    """Have every loop kernel in the cache and in this process; answers the seconds it took."""
    begin_s = time.monotonic()
    marker = cache() / MARKER
    if not marker.exists():
        functions = compile_beside(progress or Silence())
        with contextlib.suppress(OSError):
            marker.write_text(f"{functions} {time.monotonic() - begin_s:.0f}\n")
    from .warm import rehearse_all

    rehearse_all()
    return time.monotonic() - begin_s


def cache() -> Path:
    """Where the compiled kernels of these sources are."""
    return Path(jit.numba.config.CACHE_DIR)  # type: ignore[attr-defined]


def expected() -> tuple[int, str]:
    """(functions to compile, how long that takes), as the last compilation on this machine had it, whatever the sources."""
    found = []
    with contextlib.suppress(OSError):
        for marker in cache().parent.glob(f"*/{MARKER}"):
            words = marker.read_text().split()
            if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[0]):
                found.append((marker.stat().st_mtime, int(words[0]), f"{words[1]} s the last time"))
    return max(found)[1:] if found else (FUNCTIONS, SECONDS)


def compile_beside(told: Progress) -> int:
    """Fill the cache from two processes, then from one that needs what both have compiled; how many functions there were.

    Numba compiles one function at a time in each process. The two begin at opposite ends of what both need.
    """
    functions, lasts = expected()
    told.doing(f"compiling, once after an install or an edit: {lasts}")
    told.counted("functions", 0, functions)
    counts = np.frombuffer(mmap.mmap(-1, 3 * 8), np.int64)  # Shared with the processes that compile.
    wait_for([compiler(near_half, counts, 0), compiler(far_half, counts, 1)], told, counts, functions)
    wait_for([compiler(the_rest, counts, 2)], told, counts, functions)
    return int(counts.sum())


def compiler(work: Callable[[], object], counts: np.ndarray, place: int) -> int:
    """A process that does this work and counts what it compiles for it."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        die_with(parent)
        event.register("numba:compile", Ticker(counts, place))
        work()
        code = 0
    finally:
        os._exit(code)  # What failed is compiled again by the process that needs it, which can say why.


def wait_for(children: Sequence[int], told: Progress, counts: np.ndarray, functions: int) -> None:
    """Show the count until all have ended; none of them outlives us."""
    running = list(children)
    try:
        while running:
            running = [pid for pid in running if os.waitpid(pid, os.WNOHANG) == (0, 0)]
            count = int(counts.sum())
            told.counted("functions", count, max(functions, count))
            time.sleep(POLL_S if running else 0)
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


class Ticker(event.Listener):
    """Counts each function that has been compiled."""

    def __init__(self, counts: np.ndarray, place: int) -> None:
        self.counts, self.place = counts, place

    def on_start(self, event: event.Event) -> None:
        pass

    def on_end(self, event: event.Event) -> None:
        self.counts[self.place] += 1


def near_half() -> None:
    """What the near site runs."""
    from . import crc_kernel, histogram_kernel, payload_kernel  # noqa: F401  (compiled as they are imported)
    from .warm import compile_near

    compile_near()


def far_half() -> None:
    """What the far site, the links and the surveys run."""
    from . import plan_kernel  # noqa: F401  (with the addresses and arrivals that it imports)
    from .warm import compile_far

    compile_far()


def the_rest() -> None:
    """What is left when both halves are there."""
    from .warm import rehearse_all

    rehearse_all()

