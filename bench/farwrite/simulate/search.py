"""Many stories, told on as many processors as we may use; the first that breaks a promise ends the search.

Seeds are handed out in order and stories taken in order, so what is found is the lowest seed, however many processes tell.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

from .story import Told, tell

CHUNK = 50  # Seeds at a time: a second or two, so that an interrupted search ends soon.


def tell_some(first: int, count: int) -> list[Told]:
    """Stories `first` to `first + count - 1`, or up to the first that breaks a promise."""
    stories: list[Told] = []
    while len(stories) < count and not (stories and stories[-1].broken):
        stories.append(tell(first + len(stories)))
    return stories


def leave_interrupts_alone() -> None:
    """Ctrl-C is heard by whoever asked for the stories."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def tellers() -> int:
    """How many processes tell stories: one for each processor we may use."""
    return len(os.sched_getaffinity(0))


def search(first: int, count: int | None) -> Iterator[list[Told]]:
    """Stories in the order of their seeds, some at a time: `count` in all or without end, and none behind a broken one."""
    end = None if count is None else first + count
    if end is not None and end - first <= CHUNK:
        yield tell_some(first, end - first)
        return
    at_once = tellers()
    pool = ProcessPoolExecutor(at_once, multiprocessing.get_context("fork"), leave_interrupts_alone)
    try:
        under_way: deque[Future[list[Told]]] = deque()
        broken = False
        while not broken:
            while len(under_way) < 2 * at_once and (end is None or first < end):
                size = CHUNK if end is None else min(CHUNK, end - first)
                under_way.append(pool.submit(tell_some, first, size))
                first += size
            if not under_way:
                return
            stories = under_way.popleft().result()
            broken = stories[-1].broken is not None
            yield stories
    finally:
        pool.shutdown(cancel_futures=True)
