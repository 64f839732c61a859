"""Many stories, told on as many processors as we may use; the first that breaks a promise ends the search.

Seeds are handed out in order and stories taken in order, so what is found is the lowest seed, however many processes tell.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from ...base.host.parent_death import die_with
from .story import StoryResult, tell

CHUNK = 50  # Seeds at a time: a second or two.
ENDED = multiprocessing.get_context("fork").Event()  # Nobody waits for stories any more.


def tell_some(first: int, count: int) -> list[StoryResult]:
    """Stories `first` to `first + count - 1`, or up to the first that breaks a promise; fewer once the search has ended."""
    stories: list[StoryResult] = []
    while len(stories) < count and not (stories and stories[-1].broken) and not ENDED.is_set():
        stories.append(tell(first + len(stories)))
    return stories


def begin_worker(parent: int) -> None:
    """Ctrl-C is heard by whoever asked for the stories, and a worker lives no longer than that process, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with(parent)


def tellers() -> int:
    """How many processes tell stories: one for each processor we may use."""
    return len(os.sched_getaffinity(0))


class Pool(Protocol):
    """Somebody who tells some stories at once."""

    at_once: int

    def submit(self, first: int, count: int) -> Any:
        """Begin tell_some(first, count); its `result()` waits for it."""

    def close(self) -> None:
        """Begin nothing more."""


class Processes:
    """Processes of this machine, one for each processor we may use."""

    def __init__(self) -> None:
        self.at_once = tellers()
        self.pool = ProcessPoolExecutor(self.at_once, multiprocessing.get_context("fork"), begin_worker, (os.getpid(),))

    def submit(self, first: int, count: int) -> Any:
        return self.pool.submit(tell_some, first, count)

    def close(self) -> None:
        ENDED.set()
        try:
            self.pool.shutdown(cancel_futures=True)
        finally:
            ENDED.clear()


class Workers:
    """The workers of a Dask cluster. Kernels are compiled once a worker, with the first of its stories."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.at_once = sum(worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())
        self.futures: list[Any] = []

    def submit(self, first: int, count: int) -> Any:
        future = self.client.submit(tell_some, first, count, pure=False, retries=0)
        self.futures.append(future)
        return future

    def close(self) -> None:
        self.client.cancel(self.futures)


@contextmanager
def over_dask(address: str) -> Iterator[Workers]:
    """The workers of the Dask scheduler at this address. UnfitError when there are none, or not with this farwrite."""
    from ...base.dask_client import connected, require_version

    with connected(address) as client:
        require_version(client)
        yield Workers(client)


def search(first: int, count: int | None, pool: Pool | None = None) -> Iterator[list[StoryResult]]:
    """Stories in the order of their seeds, some at a time: `count` in all or without end, and none behind a broken one."""
    end = None if count is None else first + count
    if pool is None and end is not None and end - first <= CHUNK:
        yield tell_some(first, end - first)
        return
    pool = pool or Processes()
    at_once = pool.at_once
    try:
        in_flight: deque[Any] = deque()
        broken = False
        while not broken:
            while len(in_flight) < 2 * at_once and (end is None or first < end):
                size = CHUNK if end is None else min(CHUNK, end - first)
                in_flight.append(pool.submit(first, size))
                first += size
            if not in_flight:
                return
            stories = in_flight.popleft().result()
            broken = stories[-1].broken is not None
            yield stories
    finally:
        pool.close()
