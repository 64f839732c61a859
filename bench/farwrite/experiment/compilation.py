"""Compile everything before anything is measured: in processes beside this one, which shows how far they have come.

Nothing that holds a kernel is imported here before the cache is filled: a kernel with a signature is compiled where its module
is imported. Numba keeps the result on disk, so only the first run after an install, or after an edit, waits for it. A process
that fails ends it all, with its exit status and what it said. A large function takes many seconds, on a busy machine a minute:
the seconds so far are told beside the count, so that it is seen to go on.

    python -m farwrite.experiment.compilation          fills the cache
    python -m farwrite.experiment.compilation doors    and with what doors need
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numba.core import event

from ..base import jit, linking
from ..base.errors import FarwriteError
from ..base.host.parent_death import die_with
from ..progress import Progress, Silence, bar

# Of a first compilation, where none on this machine has left its own figures in MARKER.
FUNCTIONS, LINK_FUNCTIONS, DOOR_FUNCTIONS = 507, 96, 120
SECONDS, LINK_SECONDS = "50 to 95 s on two idle processors", "15 to 30 s on an idle processor"
DOOR_SECONDS = "30 to 60 s on an idle processor"
POLL_S = 0.1
OUTPUT_LINES_MAX = 30  # Of what a failed process said: Numba's reasons stand at the end.
# In the cache directory: how many functions were compiled, and in how many seconds: all that a run needs, those of the link,
# or those that doors need besides.
MARKER, LINK_MARKER, DOOR_MARKER = "complete", "link", "doors"
UNTOLD = {MARKER: (FUNCTIONS, SECONDS), LINK_MARKER: (LINK_FUNCTIONS, LINK_SECONDS), DOOR_MARKER: (DOOR_FUNCTIONS, DOOR_SECONDS)}


def compile_all(progress: Progress | None = None) -> float:
    """Have every loop kernel in the cache and in this process; answers the seconds it took."""
    begin_s = time.monotonic()
    progress = progress or Silence()
    fill_cache(progress)
    progress.doing("loading the engine")
    from .precompile import rehearse_all

    rehearse_all()
    return time.monotonic() - begin_s


def compile_link(progress: Progress | None = None) -> float:
    """The same of what a link and its survey need, which is all that a lab without an engine runs."""
    begin_s = time.monotonic()
    progress = progress or Silence()
    if not (cache() / MARKER).exists():
        fill(LINK_MARKER, compile_link_beside, progress)
    progress.doing("loading the link")
    from ..lab.precompile import rehearse_link

    rehearse_link()
    return time.monotonic() - begin_s


def fill_cache(progress: Progress) -> None:
    """Have every loop kernel in the cache."""
    fill(MARKER, compile_beside, progress)


def fill(name: str, compile_: Callable[[Progress], int], progress: Progress) -> None:
    """Compile, unless the marker of this name says that it was done."""
    marker, begin_s = cache() / name, time.monotonic()
    if not marker.exists():
        functions = compile_(progress)
        with contextlib.suppress(OSError):
            marker.write_text(f"{functions} {time.monotonic() - begin_s:.0f}\n")


def cache() -> Path:
    """Where the compiled kernels of these sources are."""
    return Path(jit.numba.config.CACHE_DIR)  # type: ignore[attr-defined]


def expected(name: str = MARKER) -> tuple[int, str]:
    """(functions to compile, how long that takes), as the last compilation on this machine had it, whatever the sources."""
    found = []
    with contextlib.suppress(OSError):
        for marker in filter(Path.is_file, cache().parent.glob(f"*/{name}")):
            words = marker.read_text().split()
            if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[0]):
                found.append((marker.stat().st_mtime, int(words[0]), f"{words[1]} s the last time"))
    return max(found)[1:] if found else UNTOLD[name]


def compile_doors(progress: Progress) -> None:
    """All that a replica with doors needs, in the cache and in this process."""
    fill_cache(progress)
    fill(DOOR_MARKER, compile_doors_beside, progress)
    progress.doing("loading the engine and its doors")
    doors_part()


def compile_beside(progress: Progress) -> int:
    """Fill the cache from two processes, then from two that need what both have compiled; how many functions there were.

    Numba compiles one function at a time in each process. The first two begin at opposite ends of what both need.
    """
    return stages(MARKER, [[near_half, far_half], [the_rest, calls_half]], progress)


def compile_link_beside(progress: Progress) -> int:
    """The same for what a link needs: little enough for one process."""
    return stages(LINK_MARKER, [[link_part]], progress)


def compile_doors_beside(progress: Progress) -> int:
    """The same for what doors need besides: one large function calls most of it."""
    return stages(DOOR_MARKER, [[doors_part]], progress)


def stages(name: str, work: Sequence[Sequence[Callable[[], object]]], progress: Progress) -> int:
    """One stage after the other, the parts of each in processes side by side; how many functions were compiled."""
    functions, lasts = expected(name)
    clock = Clock(f"compiling, once after an install or an edit ({lasts})", progress)
    clock.tell()
    progress.counted("functions", 0, functions)
    counts = np.frombuffer(mmap.mmap(-1, 8 * sum(map(len, work))), np.int64)  # Shared with the processes that compile.
    place = iter(range(counts.size))
    for parts in work:
        wait_for([compiler(part, counts, next(place)) for part in parts], progress, counts, functions, clock)
    return int(counts.sum())


class Clock:
    """Says what is being done and for how many seconds by now, once a second."""

    def __init__(self, what: str, progress: Progress) -> None:
        self.what, self.progress, self.begin_s, self.reported_s = what, progress, time.monotonic(), -1

    def tell(self) -> None:
        """Say it, where it is another second."""
        seconds = int(time.monotonic() - self.begin_s)
        if seconds != self.reported_s:
            self.reported_s = seconds
            self.progress.doing(f"{self.what}, {seconds} s so far")


class Compiler(NamedTuple):
    """A process that compiles."""

    what: str
    pid: int
    stderr_file: IO[bytes]  # its standard error


def compiler(work: Callable[[], object], counts: np.ndarray, place: int) -> Compiler:
    """A process that does this work and counts what it compiles for it. What it says on standard error is kept."""
    parent = os.getpid()
    stderr_file = tempfile.TemporaryFile()  # Closed by who waits for it.
    pid = os.fork()
    if pid:
        return Compiler(getattr(work, "__name__", "work"), pid, stderr_file)
    code = 1
    try:
        die_with(parent)
        os.dup2(stderr_file.fileno(), 2)
        event.register("numba:compile", Ticker(counts, place))
        work()
        code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(code)


def wait_for(
    children: Sequence[Compiler], progress: Progress, counts: np.ndarray, functions: int, clock: Clock | None = None
) -> None:
    """Show the count until all have ended; none of them outlives us. FarwriteError for one that failed."""
    running = list(children)
    try:
        while running:
            for child in list(running):
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    running.remove(child)
                    ended(child, os.waitstatus_to_exitcode(status))
            if clock is not None:
                clock.tell()
            count = int(counts.sum())
            progress.counted("functions", count, max(functions, count))
            time.sleep(POLL_S if running else 0)
    finally:
        for child in running:
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
        for child in children:
            child.stderr_file.close()


def ended(child: Compiler, code: int) -> None:
    """Pass on the output of a process that has ended. FarwriteError with its exit status and its words when it failed."""
    child.stderr_file.seek(0)
    lines = child.stderr_file.read().decode(errors="replace").splitlines()
    if code == 0:
        for line in lines:
            print(line, file=sys.stderr)
        return
    how = f"was ended by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"ended with exit status {code}"
    words = "\n".join(["Its output:", *lines[-OUTPUT_LINES_MAX:]]) if lines else "It printed nothing."
    advice = (
        "The system ends processes when memory is short: free some and start again."
        if code == -signal.SIGKILL
        else f"Remove {cache()} and start again; if it stays, report it with these lines."
    )
    raise FarwriteError(f"compile {child.what.replace('_', ' ')}: its process {how}. {advice}\n{words}")


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
    from ..base import crc_kernel, histogram_kernel  # noqa: F401  (compiled as they are imported)
    from ..workload import payload_kernel  # noqa: F401
    from .precompile import compile_near

    compile_near()


def far_half() -> None:
    """What the far site, the links and the surveys run."""
    from ..workload import plan_kernel  # noqa: F401  (with the addresses and arrivals that it imports)
    from .precompile import compile_far

    compile_far()


def link_part() -> None:
    """What a lab without an engine runs."""
    from ..lab.precompile import rehearse_link

    rehearse_link()


def doors_part() -> None:
    """What a replica with doors runs."""
    from .pool.router_process import rehearse_router
    from .serve.replica import rehearse_replica

    rehearse_replica()
    rehearse_router()
    linking.emit_called()


def the_rest() -> None:
    """What is left when both halves are there."""
    from .precompile import rehearse_all

    rehearse_all()
    emit_calls(0)


def calls_half() -> None:
    """Half of what Python calls once in a while."""
    emit_calls(1)


def emit_calls(share: int) -> None:
    """One of two shares of what a node, a drill's desk and a run call from Python, apart from their loops."""
    from . import precompile, voters  # noqa: F401
    from .drill import desk  # noqa: F401

    linking.emit_called(share=share, shares=2)


if __name__ == "__main__":
    with bar() as shown:
        if "doors" in sys.argv[1:]:
            compile_doors(shown)
        else:
            compile_all(shown)
