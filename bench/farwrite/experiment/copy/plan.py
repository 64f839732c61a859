"""What is to be copied, decided from what both volumes hold. Pure; `copier.py` asks the volumes and moves the bytes.

Everything that a copy must remember stands at the volumes themselves, as names of their snapshots:

    copy-000007-9a3c1f2e3d4c             at the source: the instant that is being copied; at the destination: it is there, whole
    copy-000007-9a3c1f2e3d4c-part-40000  at the destination: of that one everything below 0x40000 is there

The base of a copy is the newest that both hold. Shipped is what either side says may differ from it: at the source between the
base and the new snapshot, at the destination since the base. So it does not matter who wrote to the destination meanwhile, a copy
that was interrupted or clients after a failover; the way back is the same rule with the ends exchanged.
"""

from __future__ import annotations

import heapq
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..serve.control import SnapshotFigures
from .ranges import Ranges, clipped, difference, intersection, pieces, union

PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,15}")
ORIGIN_DIGITS = 4
KEPT_AT_SOURCE = 2  # The base of the next copy, and the one before it in case that is interrupted.
PIECE_BYTES = 256 << 10  # Of data; 64 of them under way fill 1 Gbit/s over 130 ms.
ZEROES_BYTES = 32 << 20


class Mark(NamedTuple):
    """A snapshot that is copied, or so much of it."""

    prefix: str
    number: int
    tag: str  # Four digits of the volume whose instant it is, and eight drawn: the same number may be another snapshot.
    done_below: int | None = None  # bytes that are there, of one that is not whole

    @property
    def name(self) -> str:
        part = "" if self.done_below is None else f"-part-{self.done_below:x}"
        return f"{self.prefix}-{self.number:06}-{self.tag}{part}"

    @property
    def origin(self) -> str:
        return self.tag[:ORIGIN_DIGITS]

    @property
    def whole(self) -> Mark:
        return self._replace(done_below=None)

    def part(self, done_below: int) -> Mark:
        return self._replace(done_below=done_below)


def marks_of(snapshots: Iterable[SnapshotFigures], prefix: str) -> dict[Mark, SnapshotFigures]:
    """Those of farwrite copy among a volume's snapshots that can be read there, oldest first."""
    form = re.compile(rf"{re.escape(prefix)}-(\d{{6,9}})-([0-9a-f]{{12}})(?:-part-([0-9a-f]{{1,16}}))?")
    found = {}
    for one in snapshots:
        if match := form.fullmatch(one.name):
            number, tag, part = match.groups()
            found[Mark(prefix, int(number), tag, None if part is None else int(part, 16))] = one
    return dict(sorted(found.items(), key=lambda item: (item[0].number, item[0].done_below or 0)))


@dataclass(frozen=True)
class Start:
    """Where a copy begins."""

    mark: Mark
    is_new: bool  # its snapshot is to be taken at the source
    base: Mark | None
    part: Mark | None  # what is there of it already
    why_full: str  # empty when there is a base
    stale: tuple[Mark, ...]  # parts at the destination that nobody goes on with
    was_interrupted: bool  # an earlier copy has written at the destination, and was not finished
    reached: Mark | None  # what the destination was, of this source's snapshots, when a copy last ended


def start(source: Sequence[SnapshotFigures], destination: Sequence[SnapshotFigures], prefix: str, volume: str) -> Start:
    """Which snapshot of the source, the volume of this number, is copied next, from which base, and what of it is there."""
    ours, theirs = marks_of(source, prefix), marks_of(destination, prefix)
    origin = f"{int(volume, 16) & 0xFFFF:04x}"
    there = [mark for mark in theirs if mark.done_below is None]
    both = [mark for mark in there if mark in ours]
    base = next((mark for mark in reversed(both) if ours[mark].is_whole and theirs[mark].is_whole), None)
    parts = [mark for mark in theirs if mark.done_below is not None]
    resumable = [
        mark for mark in parts
        if mark.whole in ours and ours[mark.whole].is_whole and mark.number > (there[-1].number if there else 0)
    ]  # fmt: skip
    part = max(resumable, key=lambda mark: (mark.number, mark.done_below), default=None)
    known = [mark for mark in there if mark.origin == origin]
    why_full = "" if base else (
        "no snapshot that both have can be read at both any more" if both
        else "the source keeps no snapshot that the destination has" if known else "it is the first"
    )  # fmt: skip
    number = max((mark.number for mark in [*ours, *theirs]), default=0) + 1
    mark = part.whole if part else Mark(prefix, number, origin + secrets.token_hex(4))
    stale = tuple(one for one in parts if one != part)
    return Start(mark, part is None, base, part, why_full, stale, bool(parts), base or (known[-1] if known else None))


class Sides(NamedTuple):
    """What both exports say of themselves, as far as it was asked."""

    size_bytes: int
    source_data: Ranges  # not known to be zeros in the snapshot that is copied
    destination_data: Ranges  # not known to be zeros in the destination's volume
    source_changed: Ranges | None  # between the base and that snapshot; None without a base
    destination_changed: Ranges | None  # since the base
    changed_since_part: Ranges | None  # since the part was there


class Shipment(NamedTuple):
    """What a copy moves."""

    data: Ranges
    zeroes: Ranges
    changed_bytes: int  # of the source since the base; all of its data without one


def shipment(seen: Sides, done_below: int = 0) -> Shipment:
    """What must be written for the destination to be what the snapshot is."""
    wanted: Ranges = [(0, seen.size_bytes)] if seen.size_bytes else []
    if seen.source_changed is not None and seen.destination_changed is not None:
        wanted = union(seen.source_changed, seen.destination_changed)
    if done_below:
        redone = [(0, done_below)] if seen.changed_since_part is None else clipped(seen.changed_since_part, 0, done_below)
        wanted = union(clipped(wanted, done_below, seen.size_bytes), redone)
    wanted = clipped(wanted, 0, seen.size_bytes)
    data = intersection(wanted, seen.source_data)
    zeroes = intersection(difference(wanted, seen.source_data), seen.destination_data)
    changed = seen.source_data if seen.source_changed is None else seen.source_changed
    return Shipment(data, zeroes, sum(end - begin for begin, end in changed))


def steps(moved: Shipment) -> Iterator[tuple[int, int, bool]]:
    """(offset, length, whether it is data) of each request, in the order of the addresses."""
    data = ((offset, length, True) for offset, length in pieces(moved.data, PIECE_BYTES))
    zeroes = ((offset, length, False) for offset, length in pieces(moved.zeroes, ZEROES_BYTES))
    return heapq.merge(data, zeroes)


def to_forget(marks: Iterable[Mark], newest: Mark, keep: int, useful: Iterable[Mark]) -> list[str]:
    """Names of one side's marks that are needed no more once the newest is at both ends: all but the last few useful ones."""
    found, wanted = list(marks), set(useful)
    kept = {newest, *[mark for mark in found if mark.done_below is None and mark in wanted][-keep:]}
    return [mark.name for mark in found if mark not in kept and mark.number <= newest.number]
