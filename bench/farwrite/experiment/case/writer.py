"""A client of a case: streams of writes at instants drawn beforehand, over one connection to an NBD door, in a thread of its own.

An open loop: a write's instant does not wait for the answer to another, and its response time counts from there. The client is
Python, so its own time is in each figure; `floor_of` measures that part, with reads of one block at the same door.
"""

from __future__ import annotations

import heapq
import random
import select
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...analysis.case_recording import Written
from ...base.errors import UnfitError
from ...base.units import NS_PER_S
from ...engine.frontend import nbd
from ...engine.frontend.nbd_client import NbdClient, Place
from ...workload.case_profile import BLOCK_BYTES, Stream

DEPTH = 128
HOT_SHARE, HOT_SPACE = 0.8, 0.2
GROWTH_BYTES = 64 << 10  # Of an append of the stream that grows.
FLOOR_READS = 100
DATA_BYTES = 4 << 20
PIECE_BYTES = 1 << 20


class Answered(NamedTuple):
    """One write, of CLOCK_MONOTONIC, in ns."""

    intended_ns: int
    issued_ns: int
    done_ns: int
    address: int
    size: int


class Source:
    """A stream with its own region and its own instants."""

    def __init__(self, stream: Stream, begin: int, seed: str, end: int = 0) -> None:
        self.stream, self.begin, self.draw = stream, begin, random.Random(seed)
        self.blocks, self.next = (end - begin if end else stream.region_bytes) // stream.block_bytes, 0
        self.due_ns = 0

    def wait_ns(self) -> int:
        return round(self.draw.expovariate(self.stream.writes_per_s) * NS_PER_S)

    def address(self) -> int:
        if self.stream.place == "append":
            at, self.next = self.next, (self.next + 1) % self.blocks
        else:
            hot = max(int(self.blocks * HOT_SPACE), 1)
            at = self.draw.randrange(hot) if self.draw.random() < HOT_SHARE else self.draw.randrange(hot, self.blocks)
        return self.begin + at * self.stream.block_bytes


def sources_of(streams: Sequence[Stream], size_bytes: int, growth_bytes_per_s: float, seed: int) -> list[Source]:
    """The streams one behind the other, and behind them all the one that grows."""
    found, begin = [], 0
    for stream in streams:
        found.append(Source(stream, begin, f"{seed}/{stream.name}"))
        begin += stream.region_bytes
    if growth_bytes_per_s > 0:
        begin = -(-begin // GROWTH_BYTES) * GROWTH_BYTES
        stream = Stream("growth", growth_bytes_per_s / GROWTH_BYTES, GROWTH_BYTES, "append", size_bytes - begin)
        found.append(Source(stream, begin, f"{seed}/growth"))
    return found


def fill(place: Place, size_bytes: int, seed: int) -> None:
    """The beginning of a volume, written once. UnfitError where it is refused."""
    data = random.Random(seed).randbytes(PIECE_BYTES)
    with NbdClient(place) as client:
        for begin in range(0, size_bytes, PIECE_BYTES):
            client.issue(nbd.WRITE, begin, min(PIECE_BYTES, size_bytes - begin), memoryview(data)[: size_bytes - begin])
            if len(client.in_flight) >= 4:
                check(client)
        while client.in_flight:
            check(client)
        client.flush()


def check(client: NbdClient) -> None:
    """The next answer. UnfitError where a write was refused."""
    _, answer = client.reap()
    if answer.error:
        raise client.failed("write", answer.error)


def floor_of(place: Place, reads: int = FLOOR_READS) -> int:
    """The median of reads of a block, one at a time, in ns."""
    times = []
    with NbdClient(place) as client:
        for _ in range(reads):
            begin_ns = time.monotonic_ns()
            client.read(0, BLOCK_BYTES)
            times.append(time.monotonic_ns() - begin_ns)
    return int(np.median(times))


class Writer:
    """The client, as long as the block."""

    def __init__(self, place: Place, sources: Sequence[Source]) -> None:
        self.place, self.sources = place, sources
        self.answered: list[Answered] = []
        self.failed = 0
        self.failure = ""
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.write, daemon=True)

    def __enter__(self) -> Writer:
        self.thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.ending.set()
        self.thread.join()

    def check(self) -> None:
        """UnfitError where the client has ended by itself."""
        if self.failure:
            raise UnfitError(f"The client that writes has ended: {self.failure}")

    def write(self) -> None:
        try:
            with NbdClient(self.place) as client:
                self.loop(client)
        except (OSError, UnfitError) as failure:
            self.failure = str(failure)

    def loop(self, client: NbdClient) -> None:
        data = memoryview(random.Random(1).randbytes(DATA_BYTES))
        begin_ns = time.monotonic_ns()
        due = [(begin_ns + source.wait_ns(), index) for index, source in enumerate(self.sources)]
        heapq.heapify(due)
        begun: dict[int, tuple[int, int, int, int]] = {}
        while not self.ending.is_set() or begun:
            now_ns, is_ending = time.monotonic_ns(), self.ending.is_set()
            if not is_ending and due[0][0] <= now_ns and len(begun) < DEPTH:
                due_ns, index = due[0]
                source = self.sources[index]
                size, address = source.stream.block_bytes, source.address()
                at = source.draw.randrange(DATA_BYTES - size)
                cookie = client.issue(nbd.WRITE, address, size, data[at : at + size])
                begun[cookie] = due_ns, now_ns, address, size
                heapq.heapreplace(due, (due_ns + source.wait_ns(), index))
                continue
            waits_s = 1.0 if is_ending else 0.1 if len(begun) >= DEPTH else max(due[0][0] - now_ns, 0) / NS_PER_S
            if select.select([client.socket], [], [], min(waits_s, 0.1))[0]:
                cookie, answer = client.reap()
                due_ns, issued_ns, address, size = begun.pop(cookie)
                self.answered.append(Answered(due_ns, issued_ns, time.monotonic_ns(), address, size))
                self.failed += bool(answer.error)


def written_in(
    rows: Sequence[Answered], begin_ns: int, end_ns: int, beside: str, floor_ns: int, pair: int = 0, instant_ns: int = 0,
    taken_ns: int = 0,
) -> Written | None:  # fmt: skip
    """The writes that were intended in a stretch of time; None: there were too few to say anything of."""
    chosen = [row for row in rows if begin_ns <= row.intended_ns < end_ns]
    if len(chosen) < 20:
        return None
    times = np.array([row.done_ns - row.intended_ns for row in chosen])
    late = np.array([row.issued_ns - row.intended_ns for row in chosen])
    changed = {address for row in chosen for address in range(row.address, row.address + row.size, BLOCK_BYTES)}
    second = [row.done_ns - row.intended_ns for row in chosen if instant_ns and row.intended_ns < instant_ns + NS_PER_S]
    # A write that was under way at the instant may have waited for it as well.
    about = [row.done_ns - row.intended_ns for row in rows
             if instant_ns and row.intended_ns < instant_ns + NS_PER_S and row.done_ns >= instant_ns]  # fmt: skip
    return Written(
        beside=beside, seconds=(end_ns - begin_ns) / NS_PER_S, writes=len(chosen), written_bytes=sum(row.size for row in chosen),
        changed_bytes=BLOCK_BYTES * len(changed), p50_ns=int(np.median(times)), p99_ns=int(np.quantile(times, 0.99)),
        max_ns=int(times.max()), late_ns_p99=int(np.quantile(late, 0.99)), floor_ns_p50=floor_ns,
        first_second_ns_p50=int(np.median(second)) if second else 0, first_second_ns_max=max(about, default=0), pair=pair,
        taken_ns=taken_ns,
    )  # fmt: skip
