"""What happens to the links while a load runs: changes at their instants, from the load's begin on, and when they really came.

A thread of the lab's own process, which otherwise only waits for the sites, carries them out. Afterwards the links are what they
were.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..base.units import NS_PER_S
from ..workload.link_spec import Change, LinkSpec, changed, describe_change
from .span import Span

LOOK_S = 0.0005  # How often is looked whether the load has begun.


@dataclass(frozen=True)
class Happened:
    """A change, and when it was carried out: both since the load began."""

    at_ns: int
    happened_ns: int
    what: str


@contextmanager
def changing(spans: Sequence[Span], spec: LinkSpec, begun_ns: Callable[[], int]) -> Iterator[list[Happened]]:
    """Carry out a schedule inside this block, from the instant that `begun_ns` answers (0: not yet begun); the list fills
    as it goes on. Whatever was changed is undone at the end."""
    happened: list[Happened] = []
    if not spec.schedule:
        yield happened
        return
    leaving = threading.Event()
    failure: list[BaseException] = []
    thread = threading.Thread(target=carry_out, args=(spans, spec, begun_ns, leaving, happened, failure), daemon=True)
    thread.start()
    try:
        yield happened
    finally:
        leaving.set()
        thread.join()
        for span in spans:
            span.link.heal()
            span.link.set_directions(*spec.directions)
            span.set_extra(0)
    if failure:
        raise failure[0]


def carry_out(
    spans: Sequence[Span], spec: LinkSpec, begun_ns: Callable[[], int], leaving: threading.Event,
    happened: list[Happened], failure: list[BaseException],
) -> None:  # fmt: skip
    """The thread: wait for the load, then for each change in turn."""
    try:
        while not (begin_ns := begun_ns()):
            if leaving.wait(LOOK_S):
                return
        directions = spec.directions
        for change in spec.schedule:
            if leaving.wait(max(begin_ns + change.at_ns - time.monotonic_ns(), 0) / NS_PER_S):
                return
            directions = (changed(directions[0], change), changed(directions[1], change))
            for span in spans:
                apply(span, change, directions)
            happened.append(Happened(change.at_ns, time.monotonic_ns() - begin_ns, describe_change(change)))
    except BaseException as refusal:  # Raised where the schedule was asked for.
        failure.append(refusal)


def apply(span: Span, change: Change, directions: tuple) -> None:
    """One change on one link."""
    if change.event == "cut":
        span.link.cut()
    elif change.event == "heal":
        span.link.heal()
    else:
        if change.extra_rtt_ns is not None:
            span.set_extra(change.extra_rtt_ns)
        if change.loss_ratio is not None or change.rate_bits_per_s is not None:
            span.link.set_directions(*directions)
