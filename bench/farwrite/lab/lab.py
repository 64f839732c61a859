"""The lab: two sites or more, the link between them, and what was found out about both before anything is measured.

`open_lab` builds it and takes it down; a span (lab/span.py) moves two sites apart and calibrates until the survey agrees. Another
process may stand its own sites in the same places (`joined_lab`). The lab knows nothing of engines: targets are given its sites.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..host.disk import disk
from .board import Board, board
from .link import Choice, SetElsewhere, choose, emulate
from .namespace import Namespace, namespaces
from .site import Site
from .span import Span, acquaint
from .survey import PROBE, flush_floor

HISTORY_WORDS = 1 << 16
ISSUED_WORDS = 1 << 23  # More than a plan ever has I/Os; touched only where several jobs decide the order.


@dataclass(frozen=True)
class LabSpec:
    """What is asked of a lab."""

    link: str  # "auto", "netem" or "ferry"
    near: Path | None  # directory of the near site's files; None: in memory
    far: Path | None
    journal_bytes: int
    volume_bytes: int
    congestion: str
    others: int = 0  # far sites besides the one


@dataclass
class Lab(Span):
    """Two sites at a distance that can be changed; further far sites, where they were asked for, have spans of their own."""

    choice: Choice
    history: Board  # completion instants of the running load by write number modulo its size
    issued: Board  # numbers in the plan by sequence, where the running load decides its order
    others: list[Span]

    @property
    def spans(self) -> list[Span]:
        """The links from the near site, this lab's own first."""
        return [self, *self.others]

    def flush_floors(self, size: int, count: int) -> dict[str, np.ndarray]:
        """Bare append-and-flush times in ns: each site alone, then both at once (they may share a disk)."""
        near_alone = self.near.call(flush_floor, self.near.disk, size, count)
        far_alone = self.far.call(flush_floor, self.far.disk, size, count)
        self.far.start(flush_floor, self.far.disk, size, count)
        near_both = self.near.call(flush_floor, self.near.disk, size, count)
        far_both = self.far.answer()
        return {"near_alone": near_alone, "far_alone": far_alone, "near_both": near_both, "far_both": far_both}

    def revive(self) -> None:
        """Kill what is left of all sites, heal the links, start them again and join them; nothing they did goes on."""
        sites = [self.near, *(span.far for span in self.spans)]
        for site in sites:
            site.kill()
        for span in self.spans:
            span.link.heal()
        for site in sites:
            site.begin()
        for span in self.spans:
            span.join(PROBE)


class JoinedSpan(Span):
    """A span in another process's places: how far apart they are is that process's to set and to correct."""

    def set_rtt(self, asked_rtt_ns: int) -> None:
        pass

    def correct(self, asked_rtt_ns: int, missed_ns: float) -> bool:
        return False


class JoinedLab(JoinedSpan, Lab):
    """A lab in another process's places."""


@contextmanager
def open_lab(spec: LabSpec) -> Iterator[Lab]:
    """Two sites or more and the links between them, open exactly as long as this block. UnfitError says what is forbidden."""
    with contextlib.ExitStack() as stack:  # Undoes a half-built lab in the right order.
        places = stack.enter_context(namespaces(2 + spec.others))
        near, fars, history, issued = stack.enter_context(sites(spec, places))
        choice = choose(spec.link, near)
        links = [stack.enter_context(emulate(choice, near, far)) for far in fars]
        spans = [(near, far, link, *acquaint(near, far, spec.congestion)) for far, link in zip(fars, links, strict=True)]
        yield Lab(*spans[0], choice, history, issued, [Span(*span) for span in spans[1:]])


@contextmanager
def joined_lab(spec: LabSpec, places: list[Namespace], choice: Choice) -> Iterator[Lab]:
    """More sites in the places of a lab that another process holds open, joined by its links."""
    with sites(spec, places) as (near, fars, history, issued):
        spans = [(near, far, SetElsewhere(choice.kind), *acquaint(near, far, spec.congestion)) for far in fars]
        yield JoinedLab(*spans[0], choice, history, issued, [JoinedSpan(*span) for span in spans[1:]])


@contextmanager
def sites(spec: LabSpec, places: list[Namespace]) -> Iterator[tuple[Site, list[Site], Board, Board]]:
    """(near, far ones, history, issued): sites with disks and processes of their own, one in each place."""
    import pyroute2  # noqa: F401  (Before the forks, which then have it. 0.55 -> 0.17 s per lab on a 2-core VM.)

    with contextlib.ExitStack() as stack:
        history = stack.enter_context(board(HISTORY_WORDS))
        issued = stack.enter_context(board(ISSUED_WORDS))
        made = []
        for index in range(len(places)):  # All files before all processes, which share what was made before them.
            directory = spec.far if index else spec.near
            files = stack.enter_context(disk(directory, spec.journal_bytes, spec.volume_bytes))
            made.append((files, stack.enter_context(board(64))))
        names = ["near", "far", *(f"far {index}" for index in range(1, len(places) - 1))]
        standing = [
            stack.enter_context(Site(name, place, *files, max(index - 1, 0)))
            for index, (name, place, files) in enumerate(zip(names, places, made, strict=True))
        ]
        yield standing[0], standing[1:], history, issued
