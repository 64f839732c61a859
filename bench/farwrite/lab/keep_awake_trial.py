"""A trial of what keeps processors awake: echoes, timers and flushes without it and with it, in turn, in half a second.

An echo after a pause shows whether processors wake late; how late a timer is, and what a flush takes, whether what keeps them
awake takes them from the generator or from the disk's threads. It helps only where the first is shorter and neither other longer.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from ..base.host.disk import BLOCK_BYTES, durable_file, preallocate
from ..base.host.libc import aligned_bytes
from ..base.units import format_time
from .process import process

BLOCKS, ECHOES = 8, 24  # Without and with it in turn, in the order ABBA;
PAUSE_S = 0.001  # before each echo the processors may fall asleep.
FLUSHES = 8  # In each block.
HELP_RATIO_MIN = 0.15  # So much shorter an echo must be, in every block: 1 in 10 was so by chance, over all of them.
WORSE_RATIO_MAX, WORSE_NS_MAX = 1.15, 10_000  # A median longer than both together is worse ...
TAIL_RATIO_MAX, TAIL_NS_MAX = 1.5, 50_000  # ... and so is a 90th percentile, which of so few varies more.


@dataclass(frozen=True)
class Times:
    """What one kind of thing took, ns, without and with what was tried."""

    without: list[int]
    with_it: list[int]

    @property
    def p50(self) -> tuple[float, float]:
        """Medians without and with it."""
        return statistics.median(self.without), statistics.median(self.with_it)

    @property
    def p90(self) -> tuple[float, float]:
        """The 90th percentiles without and with it."""
        without, with_it = (sorted(times)[len(times) * 9 // 10] for times in (self.without, self.with_it))
        return without, with_it

    @property
    def shorter(self) -> bool:
        """Whether it helps, in every pair of blocks: what else runs here comes and goes, and helps in some of them."""
        pairs = zip(blocks_of(self.without), blocks_of(self.with_it), strict=True)
        return all(
            statistics.median(after) < (1 - HELP_RATIO_MIN) * statistics.median(before) for before, after in pairs
        )

    @property
    def median_longer(self) -> bool:
        """Whether it harms at the median."""
        before, after = self.p50
        return after > max(WORSE_RATIO_MAX * before, before + WORSE_NS_MAX)

    @property
    def longer(self) -> bool:
        """Whether it harms, at the median or in the tail."""
        before, after = self.p90
        return self.median_longer or after > max(TAIL_RATIO_MAX * before, before + TAIL_NS_MAX)

    @property
    def words(self) -> str:
        """The medians, for a sentence."""
        return " -> ".join(map(format_time, self.p50))

    @property
    def harm(self) -> str:
        """What is longer: the medians, or the tails where only these are."""
        return self.words if self.median_longer else f"{' -> '.join(map(format_time, self.p90))} at p90"


def blocks_of(times: list[int]) -> list[list[int]]:
    """The times of each block."""
    size = len(times) * 2 // BLOCKS
    return [times[begin : begin + size] for begin in range(0, len(times), size)]


@dataclass(frozen=True)
class Trial:
    """Echoes after a pause, how late the pauses ended, and flushes (none where nothing is flushed)."""

    echo: Times
    late: Times
    flush: Times | None = None

    @property
    def harmed(self) -> dict[str, Times]:
        """What takes longer with it, by its name."""
        kinds = {"a timer's lateness": self.late} | ({"a flush": self.flush} if self.flush else {})
        return {name: times for name, times in kinds.items() if times.longer}

    @property
    def helps(self) -> bool:
        """Whether an echo is shorter with it and nothing else longer."""
        return self.echo.shorter and not self.harmed

    @property
    def sentence(self) -> str:
        """What the trial of a spinner showed."""
        if self.helps:
            return f"a spinner on one processor helps (echo {self.echo.words})"
        if not self.echo.shorter:
            return f"a spinner would not help (echo {self.echo.words})"
        return f"a spinner would harm ({', '.join(f'{name} {times.harm}' for name, times in self.harmed.items())})"

    @property
    def numbers(self) -> dict[str, float]:
        """Medians, ns, for a document."""
        found = {}
        for name, times in (("echo", self.echo), ("late", self.late), ("flush", self.flush)):
            if times is not None:
                found[f"{name}_ns_p50"], found[f"{name}_ns_p50_kept_awake"] = times.p50
        return found


@functools.cache
def tried(keeping: Callable[[], AbstractContextManager], directory: Path | None) -> Trial:
    """The trial of a context that keeps processors awake, with flushes in a directory; made once in a process."""
    echoes: tuple[list[int], list[int]] = ([], [])
    lates: tuple[list[int], list[int]] = ([], [])
    flushes: tuple[list[int], list[int]] = ([], [])
    with contextlib.ExitStack() as stack:
        descriptor = None if directory is None else stack.enter_context(trial_file(directory))
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        answering, asking = stack.enter_context(process("echo")), stack.enter_context(process("trial"))
        answering.start(answer, server.fileno())
        asking.call(prepare, server.getsockname()[1], descriptor)
        asking.call(measure, descriptor)  # The first one pays for cold code.
        for block in range(BLOCKS):
            kept = block % 4 in (1, 2)
            with keeping() if kept else nullcontext():
                made = asking.call(measure, descriptor)
            for times, found in zip((echoes, lates, flushes), made, strict=True):
                times[kept].extend(found)
    return Trial(Times(*echoes), Times(*lates), Times(*flushes) if descriptor is not None else None)


@contextmanager
def trial_file(directory: Path) -> Iterator[int]:
    """A file without a name where a write that has returned is durable, as a journal is."""
    descriptor, _ = durable_file(directory, None)
    try:
        preallocate(descriptor, BLOCK_BYTES * FLUSHES, directory)
        yield descriptor
    finally:
        os.close(descriptor)


def answer(listening: int) -> None:
    """In a process: send back what comes, until nothing does."""
    connection, _ = socket.socket(fileno=os.dup(listening)).accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(64):
            connection.sendall(data)


def prepare(port: int, descriptor: int | None) -> None:
    """In a process: connect."""
    global CONNECTION
    CONNECTION = socket.create_connection(("127.0.0.1", port))
    CONNECTION.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


CONNECTION: socket.socket  # In the process that asks.


def measure(descriptor: int | None) -> tuple[list[int], list[int], list[int]]:
    """In a process: (times of echoes; how late the pauses before each echo and flush ended; times of flushes), ns."""
    echoes, lates, flushes = [], [], []
    for _ in range(ECHOES):
        lates.append(pause())
        begin_ns = time.monotonic_ns()
        CONNECTION.sendall(b"x")
        CONNECTION.recv(1)
        echoes.append(time.monotonic_ns() - begin_ns)
    block = aligned_bytes(BLOCK_BYTES)
    for index in range(FLUSHES if descriptor is not None else 0):
        assert descriptor is not None
        lates.append(pause())
        begin_ns = time.monotonic_ns()
        os.pwrite(descriptor, block, index * BLOCK_BYTES)
        flushes.append(time.monotonic_ns() - begin_ns)
    return echoes, lates, flushes


def pause() -> int:
    """Sleep; answers how late it ended, ns."""
    until_ns = time.monotonic_ns() + round(PAUSE_S * 1e9)
    time.sleep(PAUSE_S)
    return time.monotonic_ns() - until_ns
