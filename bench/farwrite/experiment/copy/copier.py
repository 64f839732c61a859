"""One copy of a served volume's snapshot to another served volume, and one after the other: the bytes of farwrite copy.

A copy takes a snapshot at the source, asks both volumes what may differ, reads that from the snapshot and writes it at the
destination, many requests under way at once; then the destination takes a snapshot of the same name, and that is the recovery
point. Now and then a snapshot at the destination says how far it is (plan.py), so that whoever goes on after a kill, a lost
site or a cut link begins there. Before the last step nothing at the destination looks whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ...base.errors import LostWriteError, UnfitError, UsageError
from ...base.units import NS_PER_S, counted, foreseen_text, format_size, format_time
from ...engine.frontend import nbd
from ...engine.frontend.nbd_client import ConnectionLostError, Extent, NbdClient, Place
from ..serve.control import (
    DIGEST_BYTES_MAX,
    Answer,
    Delete,
    Digest,
    Hold,
    Show,
    SnapshotFigures,
    Take,
    UnansweredError,
    ask,
    connected,
    hold,
)
from .plan import KEPT_AT_SOURCE, PIECE_BYTES, Mark, Sides, Start, marks_of, shipment, start, steps, to_forget
from .ranges import Ranges, ranges_of, size_of

# Under way. Changes of a database are blocks of 4 KiB: 64 of them would fill 11 MB/s at 1500 miles, 1024 fill 1 Gbit/s.
READS_MAX, WRITES_MAX, WRITTEN_BYTES_MAX = 64, 1024, 16 << 20
PART_S = 20.0  # Between two words of how far a copy is: what a kill costs at most.
SAY_S = 30.0  # Between two words of it to a person.
WINDOWS = 16  # Requests for a block status under way: each answers a few dozen extents.
PATIENCE_S = 120.0  # Without any byte moved, while a volume fails over or a link is cut; then the copy is given up.
RETRY_S = 0.5
CHANGED_SINCE, MAY_DIFFER = "farwrite:changed-since:", 1 << 0
LOST = (ConnectionLostError, UnansweredError)  # What may be better soon.
VOLUME = "volume"
ZEROS = bytes(PIECE_BYTES)

Tell = Callable[[str], None]
Seen = dict[str, list[Extent]]  # By context of the block status.
T = TypeVar("T")


@dataclass(frozen=True)
class End:
    """A served volume: where its export is, and its directory of sockets, in which it answers for its snapshots."""

    place: Place
    sockets: Path

    def export(self, snapshot: str = "") -> Place:
        name = self.place.export or VOLUME
        return self.place._replace(export=f"{name}@{snapshot}" if snapshot else name)

    def open(self, snapshot: str = "", contexts: Sequence[str] = ()) -> NbdClient:
        return connected(self.export(snapshot), contexts)

    def look(self, snapshot: str, *since: Mark | None) -> Seen:
        """How it is by block status: where it holds data, and what may differ since each of these. A connection has one
        context of changes."""
        found: Seen = {}
        for names in [[mark.name] for mark in dict.fromkeys(since) if mark] or [[]]:
            contexts = [*([] if found else [nbd.BASE_ALLOCATION]), *(CHANGED_SINCE + name for name in names)]
            with self.open(snapshot, contexts) as client:
                found |= client.extents(0, client.size, WINDOWS)
        return found

    def show(self) -> Answer:
        return ask(self.sockets, Show())

    def take(self, name: str) -> SnapshotFigures:
        """A snapshot of this name."""
        answer = ask(self.sockets, Take(name))
        found = next((one for one in answer.snapshots if one.name == name), None)
        if found is None:
            raise UnfitError(f"The volume at {self.sockets} has taken the snapshot {name} and does not list it.")
        return found

    def forget(self, names: Sequence[str]) -> None:
        for name in names:
            ask(self.sockets, Delete(name))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asks of copying."""

    prefix: str = "copy"
    rate_bits_per_s: int | None = None
    keep: int = 4  # snapshots at the destination
    overwrites: bool = False  # what somebody has written at the destination is given up
    verifies: bool = False
    part_s: float = PART_S
    patience_s: float = PATIENCE_S


@dataclass(kw_only=True)
class Copied:
    """What one copy came to."""

    snapshot: str
    base: str | None
    why_full: str
    taken_ns: int
    resumed_at: int | None = None
    changed_bytes: int = 0  # at the source since the base
    shipped_bytes: int = 0  # written at the destination
    zeroed_bytes: int = 0  # made holes there
    retries: int = 0
    seconds: float = 0.0  # from the snapshot, or from where it was resumed, to its being whole at the destination
    recovery_point_s: float = 0.0  # how old the snapshot is when it is whole there
    recovery_point_s_max: float | None = None  # how old the one before it was just then
    is_verified: bool | None = None


class Pace:
    """No more than so many bits a second, over a second at most saved up."""

    def __init__(self, rate_bits_per_s: int | None) -> None:
        self.ns_per_byte = 8 * NS_PER_S / rate_bits_per_s if rate_bits_per_s else 0.0
        self.due_ns = time.monotonic_ns()

    def wait(self, size: int) -> None:
        """Until these bytes may go."""
        if not self.ns_per_byte:
            return
        now_ns = time.monotonic_ns()
        if self.due_ns > now_ns:
            time.sleep((self.due_ns - now_ns) / 1e9)
        self.due_ns = max(self.due_ns, now_ns - NS_PER_S // 10) + round(size * self.ns_per_byte)


@dataclass
class Stream:
    """Requests under way from one export to the other."""

    source: NbdClient
    destination: NbdClient
    pace: Pace
    copied: Copied
    moved: Callable[[], None] = field(default=lambda: None)
    under_way: int = 0  # bytes that are written and not answered

    def issue(self, offset: int, length: int, is_data: bool) -> None:
        """One step; waits while too many are under way."""
        while len(self.source.in_flight) >= READS_MAX:
            self.pass_on()
        if is_data:
            self.source.issue(nbd.READ, offset, length)
        else:
            self.empty(offset, length)

    def pass_on(self) -> None:
        """The next read that is answered goes on to the destination."""
        _, read = self.source.reap()
        if read.error:
            raise self.source.failed("read", read.error)
        if ZEROS.startswith(read.data):
            self.empty(read.offset, read.length)
            return
        self.pace.wait(read.length)
        self.make_room()
        self.destination.issue(nbd.WRITE, read.offset, read.length, read.data)
        self.under_way += read.length
        self.copied.shipped_bytes += read.length
        self.moved()

    def empty(self, offset: int, length: int) -> None:
        """Zeros there, as a hole where that can be."""
        self.make_room()
        self.destination.issue(nbd.WRITE_ZEROES, offset, length)
        self.copied.zeroed_bytes += length
        self.moved()

    def make_room(self) -> None:
        while len(self.destination.in_flight) >= WRITES_MAX or self.under_way >= WRITTEN_BYTES_MAX:
            self.acknowledge()

    def acknowledge(self) -> None:
        """One write is durable at the destination."""
        _, written = self.destination.reap()
        if written.error:
            raise self.destination.failed("write", written.error)
        self.under_way -= written.length if written.command == nbd.WRITE else 0

    def drain(self) -> None:
        """Everything issued is at the destination, durable."""
        while self.source.in_flight:
            self.pass_on()
        while self.destination.in_flight:
            self.acknowledge()
        self.destination.flush()


class Copier:
    """Copies from one end to the other, one after the other."""

    def __init__(
        self, source: End, destination: End, asked: Asked, tell: Tell, check: Callable[[], None] = lambda: None
    ) -> None:
        """`check` raises when the copy is to be given up; it is called whenever something has moved, and while nothing does."""
        self.source, self.destination, self.asked, self.tell, self.check = source, destination, asked, tell, check
        self.moved_s = time.monotonic()
        self.is_under_way = False

    def copy(self) -> Copied:
        """One copy to its end, however often an end is lost meanwhile. The last loss is raised when nothing moves for long."""
        begin_s, self.is_under_way = time.monotonic(), True
        copied, retries = self.insistently(self.attempt)
        copied.seconds = time.monotonic() - begin_s
        if self.asked.verifies:
            self.insistently(lambda: self.verify(copied))
        try:
            self.tidy(copied)
        except LOST as lost:
            self.tell(f"{str(lost).rstrip('.')}. What no copy needs any more is deleted after the next one.")
        copied.retries, self.is_under_way = retries, False
        return copied

    def insistently(self, work: Callable[[], T]) -> tuple[T, int]:
        """What it answers, and how often an end was lost until then."""
        losses, told_s = 0, 0.0
        self.note_moved()
        while True:
            try:
                return work(), losses
            except LOST as lost:
                if time.monotonic() - self.moved_s > self.asked.patience_s:
                    raise
                if told_s < self.moved_s:  # Once for each time that something had moved before.
                    self.tell(f"{str(lost).rstrip('.')}. The copy goes on from where it is once both volumes answer.")
                    told_s = time.monotonic()
                losses += 1
                time.sleep(RETRY_S)
                self.check()

    def note_moved(self) -> None:
        self.moved_s = time.monotonic()
        self.check()

    def attempt(self) -> Copied:
        """One copy while both ends last."""
        with hold(self.destination.sockets, Hold()), ExitStack() as stack:
            here, there = self.source.show(), self.destination.show()
            if here.volume == there.volume:
                raise UsageError("Both ends are the same volume: a copy is to another one.")
            began = start(here.snapshots, there.snapshots, self.asked.prefix, here.volume)
            head = stack.enter_context(self.destination.open())
            theirs = self.destination.look("", began.base, began.part, began.reached)
            self.check_destination(began, head, theirs)
            taken = self.snapshot_of(began, here)
            frozen = stack.enter_context(self.source.open(taken.name))
            if frozen.size > head.size:
                raise UsageError(
                    f"The destination has {format_size(head.size)} and the source {format_size(frozen.size)}: it is too small."
                )
            seen, why_full = seen_by(began, frozen.size, self.source.look(taken.name, began.base), theirs)
            copied = Copied(
                snapshot=taken.name, base=began.base.name if began.base and not why_full else None, why_full=why_full,
                taken_ns=taken.taken_ns, resumed_at=began.part.done_below if began.part else None,
            )  # fmt: skip
            if why_full and not began.part:
                self.tell(f"{taken.name} is copied in full: {why_full}.")
            moved = shipment(seen, began.part.done_below or 0 if began.part else 0)
            copied.changed_bytes = moved.changed_bytes
            stream = Stream(frozen, head, Pace(self.asked.rate_bits_per_s), copied, self.note_moved)
            self.ship(stream, began, steps(moved), size_of(moved.data))
            self.destination.take(taken.name)  # From here on it is whole, and the recovery point.
            now_ns = time.time_ns()
            copied.recovery_point_s = (now_ns - taken.taken_ns) / 1e9
            before = next((one for one in here.snapshots if began.base and one.name == began.base.name), None)
            copied.recovery_point_s_max = None if before is None else (now_ns - before.taken_ns) / 1e9
        return copied

    # Before anything moves

    def check_destination(self, began: Start, head: NbdClient, theirs: Seen) -> None:
        """UsageError when somebody has written at the destination what a copy would overwrite, unless that is asked for."""
        for needed, what in ((nbd.SEND_WRITE_ZEROES, "write zeroes"), (nbd.SEND_FLUSH, "flush")):
            if not head.flags & needed or head.flags & nbd.IS_READ_ONLY:
                raise UsageError(f"{head.place.uri} cannot be copied to: it does not let us {what}.")
        if self.asked.overwrites or began.was_interrupted:
            return
        changed = changed_in(theirs, began.reached)
        if began.reached and changed is None:
            self.tell(f"whether somebody has written to the destination since {began.reached.name} cannot be told any more.")
            return
        if written := size_of(data_in(theirs) if changed is None else changed):
            since = f"since {began.reached.name}" if began.reached else "and no copy of this source"
            raise UsageError(
                f"The destination has {format_size(written)} that somebody has written there {since}, and a copy would take it "
                "away: give --overwrite if that is meant, as on the way back after a failover."
            )

    def snapshot_of(self, began: Start, here: Answer) -> SnapshotFigures:
        """The snapshot at the source, taken now unless an interrupted copy has left it; that it is under way is at the
        destination before a byte is."""
        name = began.mark.name
        if began.is_new:
            taken = self.source.take(name)
            self.destination.take(began.mark.part(0).name)
        else:
            taken = next(one for one in here.snapshots if one.name == name)
        self.destination.forget([mark.name for mark in began.stale])
        return taken

    # While it moves

    def ship(self, stream: Stream, began: Start, todo: Iterable[tuple[int, int, bool]], data_bytes: int) -> None:
        """Every step; how far it is is said at the destination now and then, and to whoever looks."""
        part = began.part or began.mark.part(0)
        begin_s, done, told_s = time.monotonic(), 0, time.monotonic() + SAY_S
        next_s = begin_s + self.asked.part_s
        for offset, length, is_data in todo:
            if time.monotonic() >= told_s:
                told_s = time.monotonic() + SAY_S
                left_s = (data_bytes - done) / max(done, 1) * (time.monotonic() - begin_s)
                self.tell(f"{began.mark.name}: {format_size(done)} of {format_size(data_bytes)}, {foreseen_text(left_s)} left.")
            if time.monotonic() >= next_s:
                stream.drain()
                if offset > (part.done_below or 0):
                    self.destination.take(began.mark.part(offset).name)
                    self.destination.forget([part.name])
                    part = began.mark.part(offset)
                next_s = time.monotonic() + self.asked.part_s
            stream.issue(offset, length, is_data)
            done += length if is_data else 0
        stream.drain()

    # When it is whole

    def verify(self, copied: Copied) -> None:
        """Both ends' digests of the snapshot are the same, or the destination forgets it and LostWriteError is raised."""
        name = copied.snapshot
        with self.source.open(name) as frozen:
            size = frozen.size
        for offset in range(0, size, DIGEST_BYTES_MAX):
            asked = Digest(name, offset, min(DIGEST_BYTES_MAX, size - offset))
            if ask(self.source.sockets, asked).digest != ask(self.destination.sockets, asked).digest:
                self.destination.forget([name])
                raise LostWriteError(
                    f"{name} differs at the destination from the source, between bytes {offset:,} and {offset + asked.length:,}; "
                    "it is deleted there. Has somebody written to the destination during the copy?"
                )
            self.note_moved()
        copied.is_verified = True

    def tidy(self, copied: Copied) -> None:
        """Forget what no later copy needs."""
        ours, theirs = (marks_of(end.show().snapshots, self.asked.prefix) for end in (self.source, self.destination))
        newest = next((mark for mark in theirs if mark.name == copied.snapshot), None)
        if newest is not None:
            self.source.forget(to_forget(ours, newest, KEPT_AT_SOURCE, theirs))
            self.destination.forget(to_forget(theirs, newest, self.asked.keep, theirs))


def seen_by(began: Start, size: int, ours: Seen, theirs: Seen) -> tuple[Sides, str]:
    """What both sides say of themselves; why it is a copy in full, empty when it is none."""
    source, destination = changed_in(ours, began.base), changed_in(theirs, began.base)
    is_known = source is not None and destination is not None
    why_full = began.why_full or ("" if is_known else "a volume does not say what has changed")
    seen = Sides(
        size, data_in(ours), data_in(theirs), None if why_full else source, None if why_full else destination,
        changed_in(theirs, began.part),
    )  # fmt: skip
    return seen, why_full


def changed_in(seen: Seen, since: Mark | None) -> Ranges | None:
    """What may differ since that; None where it is not known."""
    extents = seen.get(CHANGED_SINCE + since.name) if since else None
    return None if extents is None else ranges_of((one.begin, one.end) for one in extents if one.status & MAY_DIFFER)


def data_in(seen: Seen) -> Ranges:
    """What is not known to read as zeros."""
    extents = seen.get(nbd.BASE_ALLOCATION)
    if extents is None:
        raise UnfitError("A volume does not say where it holds data: only volumes that farwrite serve serves are copied.")
    return ranges_of((one.begin, one.end) for one in extents if not one.status & nbd.STATUS_ZERO)


# Made primary


def restore(end: End, name: str, rate_bits_per_s: int | None = None) -> Copied:
    """Put a volume back to what it was at one of its snapshots: only what may have changed since is written. Killed in the
    middle, it is to be done again: the snapshot stays as it is."""
    with hold(end.sockets, Hold()) as found, ExitStack() as stack:
        taken = next((one for one in found.snapshots if one.name == name), None)
        if taken is None or not taken.is_whole:
            raise UsageError(f"There is no snapshot {name} that can be read here: farwrite snapshot list shows what there is.")
        context = CHANGED_SINCE + name
        head = stack.enter_context(end.open("", [nbd.BASE_ALLOCATION, context]))
        frozen = stack.enter_context(end.open(name, [nbd.BASE_ALLOCATION]))
        theirs = head.extents(0, head.size, WINDOWS)
        changed = None if context not in theirs else ranges_of(
            (one.begin, one.end) for one in theirs[context] if one.status & MAY_DIFFER
        )  # fmt: skip
        data = data_in(frozen.extents(0, frozen.size, WINDOWS))
        moved = shipment(Sides(head.size, data, data_in(theirs), changed, changed, None))
        copied = Copied(snapshot=name, base=None, why_full="", taken_ns=taken.taken_ns, changed_bytes=moved.changed_bytes)
        begin_s = time.monotonic()
        stream = Stream(frozen, head, Pace(rate_bits_per_s), copied)
        for step in steps(moved):
            stream.issue(*step)
        stream.drain()
        copied.seconds = time.monotonic() - begin_s
    return copied


def newest_copy(snapshots: Sequence[SnapshotFigures], prefix: str) -> str:
    """The newest recovery point that farwrite copy has left. UsageError where there is none."""
    whole = [mark for mark, one in marks_of(snapshots, prefix).items() if mark.done_below is None and one.is_whole]
    if not whole:
        raise UsageError("farwrite copy has left no whole snapshot here: there is nothing to go back to.")
    return whole[-1].name


def sentence_of(copied: Copied) -> str:
    """One copy in one line."""
    how = f"changes since {copied.base}" if copied.base else "in full"
    resumed = f", resumed at {format_size(copied.resumed_at)}" if copied.resumed_at else ""
    lost = f", {counted(copied.retries, 'connection')} lost on the way" if copied.retries else ""
    verified = ", verified" if copied.is_verified else ""
    return (
        f"{copied.snapshot}: {format_size(copied.shipped_bytes)} shipped ({how}{resumed}) in "
        f"{format_time(copied.seconds * 1e9)}, whole {format_time(copied.recovery_point_s * 1e9)} after its instant"
        f"{lost}{verified}"
    )


def document_of(copied: Copied) -> dict[str, Any]:
    """The same for a script."""
    from dataclasses import asdict

    return asdict(copied) | {"is_full": copied.base is None}
