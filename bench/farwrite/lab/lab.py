"""The lab: two sites or more, the link between them, and what was found out about both before anything is measured.

`open_lab` builds it and takes it down; a span (lab/span.py) moves two sites apart as light has it. Another
process may stand its own sites in the same places (`joined_lab`). The lab knows nothing of engines: targets are given its sites.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from ..base.host.disk import disk
from ..base.keep_awake import KeepAwake
from ..base.wire.terms import KEY_BYTES_MIN, CompressionName, EncryptionName, SharedKey, Terms
from ..base.wire.tunnel import prepare
from ..workload.link_spec import PLAIN, STREAM_LEVEL_LINKS, LinkSpec
from .keep_awake import Decision, awake
from .link import Choice, SetElsewhere, bare, emulate, ground
from .namespace import Place
from .relay_door import Doors
from .shared_memory import Board, board
from .site import Site
from .span import Span, acquaint, passage_of
from .stamps import Prober, prober
from .survey import PROBE, flush_floor

HISTORY_WORDS = 1 << 16
ISSUED_WORDS = 1 << 23  # More than a plan ever has I/Os; touched only where several jobs decide the order.


@dataclass(frozen=True)
class LabSpec:
    """What is asked of a lab."""

    link: str  # "auto", "netem", "ferry" or "relay"
    near: Path | None  # directory of the near site's files; None: in memory
    far: Path | None
    journal_bytes: int
    volume_bytes: int
    congestion: str
    others: int = 0  # far sites besides the one
    mesh: bool = False  # far sites are joined to each other as well
    names: tuple[str, ...] = ()  # of the sites; empty: near, far, far 1 ...
    link_spec: LinkSpec = PLAIN  # what is asked of every link besides the distance,
    link_specs: tuple[tuple[int, int, LinkSpec], ...] = ()  # but for those between the sites of these two indices
    polls: bool = True  # a link in user space may have a processor to itself while packets come; not where programs want it
    keep: bool = False  # the sites' files have names, in a directory of each site's own, and stay
    keep_awake: KeepAwake = "auto"  # lab/keep_awake.py
    flushed: Path | None = None  # directory in which others than this lab's sites flush; None: nobody does
    encryption: EncryptionName = "none"  # of what is replicated
    compression: CompressionName = "none"

    def link_spec_of(self, near: Site, far: Site) -> LinkSpec:
        """What is asked of the link between two sites."""
        here = (near.index, far.index)
        return next((spec for one, other, spec in self.link_specs if (one, other) == here), self.link_spec)

    def terms(self) -> Terms:
        """What the ends of this lab's connections demand: with a key of its own, which lives in memory as long as the lab."""
        return Terms(self.encryption, self.compression, SharedKey(secrets.token_bytes(KEY_BYTES_MIN)))


@dataclass
class Lab(Span):
    """Two sites at a distance that can be changed; further far sites, where they were asked for, have spans of their own."""

    choice: Choice
    history: Board  # completion instants of the running load by write number modulo its size
    issued: Board  # numbers in the plan by sequence, where the running load decides its order
    others: list[Span]
    between: list[Span] = field(default_factory=list, kw_only=True)  # the links between far sites, in a mesh
    awake: Decision = field(default=Decision(), kw_only=True)  # what keeps the processors from sleeping
    placed: list[Site] = field(default_factory=list, kw_only=True)  # its sites in places of this machine, the near one first

    @property
    def far_host(self) -> dict[str, Any] | None:
        """Facts of the far machine; None where it is this one."""
        return None

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
        spans = [*self.spans, *self.between]
        for span in spans:
            span.link.heal()
        for site in sites:
            site.begin()
        for span in spans:
            span.join(PROBE)


class JoinedSpan(Span):
    """A span in another process's places: how far apart they are is that process's to set."""

    @property
    def proves_distance(self) -> bool:
        """Not where more is asked of the link, which is not ours to set aside, nor where the link's account is another's."""
        return self.spec.is_plain and self.prober is not None


class JoinedLab(JoinedSpan, Lab):
    """A lab in another process's places."""


@contextmanager
def open_lab(spec: LabSpec) -> Iterator[Lab]:
    """Two sites or more and the links between them, open exactly as long as this block. UnfitError says what is forbidden."""
    terms = prepared(spec)
    with contextlib.ExitStack() as stack:  # Undoes a half-built lab in the right order.
        kept = stack.enter_context(awake(spec.keep_awake, spec.flushed or spec.near))
        choice, places = stack.enter_context(ground(spec.link, 2 + spec.others))
        near, fars, history, issued = stack.enter_context(sites(spec, places))
        pairs = [(near, far) for far in fars] + (list(combinations(fars, 2)) if spec.mesh else [])
        specs = [spec.link_spec_of(*pair) for pair in pairs]
        links = [
            stack.enter_context(emulate(choice, *pair, asked, polls=spec.polls and len(pairs) == 1))
            for pair, asked in zip(pairs, specs, strict=True)
        ]
        spans, proofs = [], []
        for pair, link, asked in zip(pairs, links, specs, strict=True):
            with bare(link, asked):
                spans.append((*pair, link, *acquaint(*pair, spec.congestion)))
                proofs.append(proof_of(stack, choice, *pair))
        others = [
            Span(*span, spec=asked, terms=terms, **proof)
            for span, asked, proof in zip(spans[1:], specs[1:], proofs[1:], strict=True)
        ]
        yield Lab(
            *spans[0], choice, history, issued, others[: spec.others], spec=specs[0], terms=terms, **proofs[0],
            between=others[spec.others :], awake=kept, placed=[near, *fars],
        )  # fmt: skip


class Stamping(TypedDict, total=False):
    """What a span is given where packets can be stamped."""

    prober: Prober
    passage_ns: tuple[int, int]


def proof_of(stack: contextlib.ExitStack, choice: Choice, near: Site, far: Site) -> Stamping:
    """Stamped probes between two sites that hold nothing back yet, open as long as the stack; nothing for streams."""
    if choice.kind in STREAM_LEVEL_LINKS:
        return {}
    made = stack.enter_context(prober(near, far))
    return {"prober": made, "passage_ns": passage_of(made)}


@contextmanager
def joined_lab(spec: LabSpec, places: list[Place], choice: Choice, doors: Sequence[Doors] = ()) -> Iterator[Lab]:
    """More sites in the places of a lab that another process holds open, joined by its links; a relay is asked through doors."""
    terms = prepared(spec)
    with contextlib.ExitStack() as stack:
        near, fars, history, issued = stack.enter_context(sites(spec, places))
        for far, door in zip(fars, doors, strict=False):
            far.doors[near.index] = door
        spans = [(near, far, SetElsewhere(choice.kind), *acquaint(near, far, spec.congestion)) for far in fars]
        # How fast the bare emulation is, is the opener's to know: the link may be at a distance already.
        proofs: list[Stamping] = [proof_of(stack, choice, near, far) for far in fars]
        others: list[Span] = [
            JoinedSpan(*span, spec=spec.link_spec, terms=terms, **proof)
            for span, proof in zip(spans[1:], proofs[1:], strict=True)
        ]
        yield JoinedLab(
            *spans[0], choice, history, issued, others, spec=spec.link_spec, terms=terms, **proofs[0], placed=[near, *fars]
        )


def prepared(spec: LabSpec) -> Terms:
    """The terms of a lab, and what they need loaded before the sites are forked, which then have it."""
    terms = spec.terms()
    prepare(terms)
    return terms


@contextmanager
def sites(spec: LabSpec, places: list[Place]) -> Iterator[tuple[Site, list[Site], Board, Board]]:
    """(near, far ones, history, issued): sites with disks and processes of their own, one in each place."""
    import pyroute2  # noqa: F401  (Before the forks, which then have it. 0.55 -> 0.17 s per lab on a 2-core VM.)

    with contextlib.ExitStack() as stack:
        history = stack.enter_context(board(HISTORY_WORDS))
        names = spec.names or ("near", "far", *(f"far {index}" for index in range(1, len(places) - 1)))
        issued = stack.enter_context(board(ISSUED_WORDS))
        made = []
        for index, name in enumerate(names):  # All files before all processes, which share what was made before them.
            directory = spec.far if index else spec.near
            if directory is not None and spec.keep:
                directory = directory / name.replace(" ", "-")
            files = stack.enter_context(disk(directory, spec.journal_bytes, spec.volume_bytes, spec.keep))
            made.append((files, stack.enter_context(board(64))))
        opened = [
            stack.enter_context(Site(name, place, *files, index))
            for index, (name, place, files) in enumerate(zip(names, places, made, strict=True))
        ]
        yield opened[0], opened[1:], history, issued
