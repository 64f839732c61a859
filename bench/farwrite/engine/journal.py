"""The journal's file: formatted for each run, replayed after a crash.

`format_journal` begins an empty log in a site's files; `replay` finds what a crash left and goes on behind it. Both answer a
Journal that kernels work on. The layout on disk: two superblocks of one block each, then the ring of records. Whether the
volume beside it is of the same time is label.py's.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..base.errors import UnfitError, system_error
from ..base.host import reactor
from ..base.host.disk import Disk
from ..base.host.libc import aligned_bytes
from ..base.jit import kernel
from ..base.row import rows_of
from . import journal_kernel as log
from . import record_kernel as record
from . import replica_kernel as replica
from . import room_kernel as room
from . import snapshot_kernel as snapshot
from .handshake import lead
from .label import GO_ON, area_of, is_labelled, mismatch

LOG = logging.getLogger(__name__)

AHEAD_BYTES = 8 << 20
SPAN_BYTES = 4 << 20  # Of log whose old blocks are kept, then flushed together, then overwritten, while a replay goes on.

# Why a replay stopped reading, by record_kernel's findings.
NOT_NEXT, NOT_APPLICABLE = -20, -21
END_REASONS = {
    record.INCOMPLETE: "the ring ends",
    record.BAD_MAGIC: "no record stands here",
    record.BAD_VERSION: "a record of another version",
    record.BAD_LENGTH: "an impossible length",
    record.BAD_CRC: "a checksum that does not match: torn or damaged",
    record.WRONG_VOLUME: "a record of another volume",
    record.BAD_KIND: "an unknown kind of record",
    NOT_NEXT: "a record of an earlier lap or epoch",
    NOT_APPLICABLE: "a record that no replay can apply",
}


@dataclass(frozen=True)
class Replay:
    """What a replay found: the prefix of writes that survived, and why it ends there."""

    sequence: int
    record_count: int
    end_position: int
    end_reason: str
    damaged: bool  # whether something durable stood behind the end


def capacity_of(chosen: Disk, staging_bytes: int) -> int:
    """Bytes of ring behind the superblocks: a whole number of staging rings."""
    return (chosen.journal_bytes - log.SUPERBLOCK_BYTES) // staging_bytes * staging_bytes


def format_journal(chosen: Disk, volume: int, epoch: int, staging_bytes: int) -> log.Journal:
    """An empty journal of a new volume identity; records of whatever was there before cannot be mistaken for its own.

    The volume's old content stays until it is written over. To cut it off would wait for its pages that are on their way to
    the disk: seconds, after a busy run (ftruncate of 25 000 random pages: 1 to 5 s on the VM this was written on).
    """
    return format_with(chosen, volume, epoch, staging_bytes, 0)


def format_with(
    chosen: Disk, volume: int, epoch: int, staging_bytes: int, flags: int, count: np.ndarray | None = None
) -> log.Journal:
    """format_journal() with these flags from the first instant on. `count` is where what the volume takes is told."""
    journal = log.journal_state(
        capacity_of(chosen, staging_bytes), staging_bytes, volume, epoch, chosen.journal_fd, chosen.volume_fd,
        chosen.volume_bytes, snapshot_fd=chosen.snapshot_fd, room=count,
    )
    room.count_file(journal, reactor.empty())
    journal.at[0].flags, journal.at[0].pair = flags, drawn_pair(journal)
    save(journal)
    return journal


def begin_anew(chosen: Disk, volume: int, staging_bytes: int, count: np.ndarray | None = None) -> log.Journal:
    """The journal of a replica that has none yet, tied to its volume.

    A volume that was tied to another journal holds nobody knows what: the replica is inconsistent, and compared with a primary.
    """
    flags = log.INCONSISTENT if is_labelled(chosen.volume_fd, chosen.volume_bytes) else 0
    journal = format_with(chosen, volume, 0, staging_bytes, flags, count)
    tie(journal)
    return journal


def drawn_pair(journal: log.Journal) -> int:
    """A new identity of a journal and its volume together; none where there is no volume to write a label into."""
    return secrets.randbits(62) | 1 if journal.at[0].volume_bytes != record.NUMBER_MAX else 0


def save(journal: log.Journal, ring: reactor.Reactor | None = None) -> None:
    """Make checkpoint, epoch and flags in journal.at durable in both superblocks, here and now."""
    status = int(replica.save(journal, ring or reactor.empty()))
    if status < 0:
        raise system_error("write the superblocks of a journal", status)


def tie(journal: log.Journal, ring: reactor.Reactor | None = None) -> None:
    """Make volume and journal durable as they are now, in one generation: the label, the volume, then the superblocks.

    For an opening, where nothing is under way. Files without a pair get one.
    """
    at, ring = journal.at[0], ring or reactor.empty()
    at.pair = at.pair or drawn_pair(journal)
    fd, snapshots = int(journal.snapshots.at[0].fd), journal.snapshots
    if fd >= 0 and pair_kept(snapshots, ring) != at.pair:
        snapshots.block_words[0] = at.pair
        if reactor.write_kept(ring, fd, snapshots.block, 0, 8, 0) != 8 or reactor.sync_kept_now(ring, fd) < 0:
            raise UnfitError("The file in which old blocks are kept for snapshots cannot be written: look at the disk.")
    status = int(replica.write_label(journal, ring, int(at.applied_sequence)))
    if status == replica.OK:
        status = int(reactor.sync_now(ring, int(at.volume_fd)))
    if status < 0:
        raise system_error("label and flush the volume", status)
    save(journal, ring)


@contextmanager
def image(journal_fd: int) -> Iterator[np.ndarray]:
    """The whole journal file as bytes, to be read only: a write to them ends the process with SIGSEGV.

    A map that may be read only takes no memory of its own and is counted against none, however large the file: its pages are
    the page cache's, which lets go of them. One that may be written, private or not, is refused where the file is larger than
    memory and swap together. mmap(2); Documentation/mm/overcommit-accounting.
    """
    mapped = mmap.mmap(journal_fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    try:
        yield np.asarray(Readable(mapped))
    finally:
        with contextlib.suppress(BufferError):  # The caller's arrays go first, and the map with the last of them.
            mapped.close()


class Readable:
    """A map as numpy takes it for an array like any other: kernels are compiled for those, and not for read-only ones."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self.held = np.frombuffer(mapped, np.uint8)  # As long as an array is there, the map is.
        self.__array_interface__ = {
            "version": 3, "shape": self.held.shape, "typestr": "|u1", "data": (self.held.ctypes.data, False),
        }  # fmt: skip


def around(begin: int, size: int) -> list[int]:
    """Where the pieces of a journal's file of `size` bytes begin that are read ahead, from `begin` on and around the ring."""
    return [*range(begin, size, AHEAD_BYTES), *range(log.SUPERBLOCK_BYTES, begin, AHEAD_BYTES)]


# Page faults read a little at a time, and each is waited for: a cold GiB was replayed at 430-480 MB/s, read ahead at 550-620
# (2-core VM, a disk that gives one reader 1.0 GB/s).
@contextmanager
def read_ahead(journal_fd: int, begin: int) -> Iterator[None]:
    """Have the kernel read a journal's ring, from a file offset on and around, ahead of who looks at it. posix_fadvise(2)."""
    left = threading.Event()

    def advise() -> None:
        for offset in around(begin, os.fstat(journal_fd).st_size):
            if left.is_set():
                return
            with contextlib.suppress(OSError):  # It is advice.
                os.posix_fadvise(journal_fd, offset, AHEAD_BYTES, os.POSIX_FADV_WILLNEED)

    reader = threading.Thread(target=advise)
    reader.start()
    try:
        yield
    finally:
        left.set()
        reader.join()


def whole_superblocks(data: np.ndarray) -> list[log.Superblock]:
    """Each whole superblock, the newest first."""
    found = []
    for index in range(2):
        block = data[index * log.BLOCK_BYTES : (index + 1) * log.BLOCK_BYTES].copy()
        superblock = log.superblock_in(block)[0]
        without_pair = not block[replica.CRC_OFFSET + 8 : log.Superblock.LAYOUT.itemsize].any()  # From before there were pairs.
        if (
            superblock.magic == replica.SUPERBLOCK_MAGIC
            and replica.JOURNAL_VERSION_LEAST <= superblock.version <= replica.JOURNAL_VERSION
            and (superblock.version < replica.JOURNAL_VERSION or is_table_whole(block, int(superblock.generation)))
            and superblock.crc == replica.checksum_before(block, replica.CRC_OFFSET)
            and (without_pair or superblock.pair_crc == replica.checksum_before(block, replica.PAIR_CRC_OFFSET))
        ):
            found.append(superblock)
    return sorted(found, key=lambda superblock: -int(superblock.generation))


def is_table_whole(block: np.ndarray, generation: int) -> bool:
    """Whether the table of snapshots in a superblock's block is this superblock's, and whole."""
    head = log.head_in(block)[0]
    return bool(
        head.generation == generation
        and 0 <= head.count <= snapshot.PLACES
        and head.crc == snapshot.table_checksum(block, int(head.count))
    )


def is_table_in_both(data: np.ndarray) -> bool:
    """Whether both superblocks are whole and tell of the same snapshots."""
    whole = whole_superblocks(data)
    return len(whole) == 2 and table_of(data, whole[0]) == table_of(data, whole[1])


def table_of(data: np.ndarray, superblock: log.Superblock) -> bytes:
    """The places of the table behind a whole superblock; empty where it is of a version that had none."""
    if superblock.version != replica.JOURNAL_VERSION:
        return b""
    block = data[int(superblock.generation) % 2 * log.BLOCK_BYTES :]
    count = int(log.head_in(block[: log.BLOCK_BYTES].copy())[0].count)
    return block[snapshot.TABLE_AT : snapshot.TABLE_AT + count * snapshot.ROW_BYTES].tobytes()


def load_snapshots(data: np.ndarray, superblock: log.Superblock, snapshots: snapshot.Snapshots, ring: reactor.Reactor) -> int:
    """Bring snapshots to what stands behind this superblock, and find what is kept for them. Answers 0 or a status."""
    begin = int(superblock.generation) % 2 * log.BLOCK_BYTES
    block = data[begin : begin + log.BLOCK_BYTES].copy()
    snapshots.words[:] = 0
    if superblock.version == replica.JOURNAL_VERSION:
        head = log.head_in(block)[0]
        size = min(int(head.count) * snapshot.Entry.LAYOUT.itemsize, snapshots.data.size)
        snapshots.data[:size] = block[snapshot.TABLE_AT : snapshot.TABLE_AT + size]
        snapshots.at[0].as_of = head.as_of
    is_mixture = bool(int(superblock.flags) & log.INCONSISTENT)
    status = int(snapshot.load_bits(snapshots, ring, is_mixture))
    if status == 0 and pair_kept(snapshots, ring) != superblock.pair:  # Another replica's, or of a copy without this file.
        snapshot.give_up_all(snapshots)
    # What a killed process has kept may be in the system's cache alone: a block counts as kept only where it is durable.
    if status == 0 and snapshots.at[0].used > 0 and snapshots.at[0].fd >= 0:
        snapshot.flush_now(snapshots, ring)
    return status


def pair_kept(snapshots: snapshot.Snapshots, ring: reactor.Reactor) -> int:
    """The pair whose old blocks are in this file; 0 where none is told of."""
    snapshots.block[:8] = 0
    if snapshots.at[0].fd >= 0:
        reactor.read_kept(ring, int(snapshots.at[0].fd), snapshots.block, 0, 8, 0)
    return int(snapshots.block_words[0])


def kept_up_to(data: np.ndarray, superblock: log.Superblock) -> int:
    """The sequence up to which everything that was overwritten had been kept when this superblock was written."""
    begin = int(superblock.generation) % 2 * log.BLOCK_BYTES
    head = log.head_in(data[begin : begin + log.BLOCK_BYTES].copy())[0]
    return int(head.applied) if superblock.version == replica.JOURNAL_VERSION else record.NUMBER_MAX


def read_superblock(data: np.ndarray) -> log.Superblock | None:
    """The newest whole superblock, or None: no journal stands here."""
    found = whole_superblocks(data)
    return found[0] if found else None


def why_unread(data: np.ndarray) -> str:
    """Why no superblock was read, in a sentence."""
    both = [log.superblock_in(data[block:])[0] for block in (0, log.BLOCK_BYTES)]
    versions = {int(superblock.version) for superblock in both if superblock.magic == replica.SUPERBLOCK_MAGIC}
    newest = replica.JOURNAL_VERSION
    if versions and not versions & {*range(replica.JOURNAL_VERSION_LEAST, newest + 1)}:
        return f"a journal of version {max(versions)}; this farwrite reads up to version {newest}. Begin with new files."
    return "no whole superblock; this is not a journal, or it is damaged."


def is_blank(data: np.ndarray) -> bool:
    """Whether nothing was ever written where superblocks are: damage is not taken for a new journal."""
    return not data[: log.SUPERBLOCK_BYTES].any()


@kernel()
def scan(data, headers, capacity, volume, volume_bytes, position, limit, sequence, epoch, ring, volume_fd, apply, found):
    """Walk the records from `position` to `limit` at most and, with `apply`, copy each into the volume.

    Stops at the first thing that is not the next record of this volume, or that cannot be applied to it. `found` receives
    all but `damaged`, which is for `judge` to fill. Answers 0 or -errno from the volume.
    """
    count = np.int64(0)
    reason = np.int64(record.INCOMPLETE)
    while position < limit:
        offset = log.SUPERBLOCK_BYTES + position % capacity
        available = capacity - position % capacity
        reason = np.int64(record.inspect(data, headers, offset, available, volume))
        if reason != record.COMPLETE:
            break
        kind = record.kind_of(headers, offset)
        length = record.length_of(headers, offset)
        is_write = record.is_logged(kind)
        expected = sequence + 1 if is_write else sequence
        stale = record.sequence_of(headers, offset) != expected or record.epoch_of(headers, offset) < epoch
        if stale or not (is_write or kind == record.PAD):
            reason = np.int64(NOT_NEXT)
            break
        if record.record_bytes(length) > available:
            reason = np.int64(record.BAD_LENGTH)
            break
        if is_write:
            address, size = record.address_of(headers, offset), record.written_of(headers, offset)
            if record.is_marker(kind):
                sound = record.is_marker_applicable(kind, address, length, record.extra_of(headers, offset), expected)
            else:
                sound = record.is_applicable(kind, address, size, volume_bytes)
            if not sound:
                reason = np.int64(NOT_APPLICABLE)
                found.kind, found.address, found.size = kind, address, size
                break
            epoch = record.epoch_of(headers, offset)
            sequence = expected
            count += 1
            if apply:
                status = apply_one(data, headers, offset, ring, volume_fd)
                if status < 0:
                    return status
        position += record.record_bytes(length)
    found.position, found.sequence, found.count, found.reason, found.epoch = position, sequence, count, reason, epoch
    return np.int64(0)


@kernel()
def stands_behind(data, headers, capacity, volume, begin, batch_end, position, sequence, epoch):
    """Whether something durable stood behind a log that ends at `position` with `sequence`.

    Between `begin` and one lap behind `position` a whole PAD vouches for later writes; or a whole record of a later write stands
    behind `batch_end`.
    """
    for place in range(begin, position + capacity, record.HEADER_BYTES):
        offset = log.SUPERBLOCK_BYTES + place % capacity
        available = capacity - place % capacity
        if headers[offset >> 6].magic != record.MAGIC:
            continue
        if record.inspect(data, headers, offset, available, volume) == record.COMPLETE:
            is_pad = record.kind_of(headers, offset) == record.PAD
            found = record.address_of(headers, offset) if is_pad else record.sequence_of(headers, offset)
            later = sequence < found <= sequence + capacity // record.HEADER_BYTES and record.epoch_of(headers, offset) >= epoch
            if later and (is_pad or place >= batch_end):
                return True
    return False


def judge_end(data: np.ndarray, superblock: log.Superblock, found: log.Found) -> None:
    """Tell damage from the end of a log: `damaged` where something durable stood behind what a scan has found.

    A torn batch may leave any of its records, so only what lies more than a batch further is proof, or a PAD that vouches for a
    later write, or a superblock that does; and nothing that another log has left there before this one was begun. The volume may
    then be ahead of the log: a mixture. Otherwise it is not, because only what is vouched for is applied.
    """
    capacity, position, sequence = int(superblock.capacity_bytes), int(found.position), int(found.sequence)
    begin, batch_end = max(position, int(superblock.begun) + capacity), position + int(superblock.staging_bytes)
    behind = stands_behind(
        data, headers_in(data), capacity, int(superblock.volume), begin, batch_end, position, sequence, int(found.epoch)
    )
    found.damaged = sequence < superblock.durable_sequence or behind or found.reason == NOT_APPLICABLE


def headers_in(data: np.ndarray) -> np.ndarray:
    """The same memory as headers, one every 64 bytes."""
    return data[: data.size // record.HEADER_BYTES * record.HEADER_BYTES].view(record.Header.LAYOUT)


@kernel()
def apply_one(data, headers, offset, ring, volume_fd):
    """One record of a journal's image into the volume; 0 or a status."""
    address = record.address_of(headers, offset)
    if record.is_marker(record.kind_of(headers, offset)):
        return np.int64(0)
    if record.kind_of(headers, offset) == record.TRIM:
        return reactor.trim_volume(ring, volume_fd, address, record.trimmed_of(headers, offset))
    length = record.length_of(headers, offset)
    written = reactor.write_volume(ring, volume_fd, data, offset + record.HEADER_BYTES, length, address)
    if written == length:
        return np.int64(0)
    return written if written < 0 else np.int64(replica.SHORT_WRITE)


def examine(
    chosen: Disk, apply: bool = False, refuse: bool = True, snapshots: snapshot.Snapshots | None = None
) -> tuple[log.Superblock, log.Found]:
    """(superblock, scan's findings) of a journal as it lies there; UnfitError when there is none.

    With `apply` the volume is brought to what was found, and refused when it is not of the journal's time, but for an audit
    (`refuse` False), which counts what is missing. What that overwrites is kept for `snapshots`, which are then as they were.
    """
    with image(chosen.journal_fd) as data:
        whole = whole_superblocks(data)
        if not whole:
            raise UnfitError(f"{chosen.directory}: {why_unread(data)}")
        superblock = whole[0]
        capacity, staging = int(superblock.capacity_bytes), int(superblock.staging_bytes)
        if not 0 < capacity <= chosen.journal_bytes - log.SUPERBLOCK_BYTES or not 0 < staging <= capacity or capacity % staging:
            raise UnfitError(f"{chosen.directory}: the superblock tells of another size of journal.")
        with read_ahead(chosen.journal_fd, log.SUPERBLOCK_BYTES + int(superblock.tail) % capacity):
            found = find_end(data, superblock)
        status = 0
        if apply:
            if refuse and (why := mismatch_of(chosen, data, found)):
                raise UnfitError(f"{chosen.directory}: {why}. {GO_ON}")
            if found.reason == NOT_APPLICABLE:
                LOG.error("%s: %s", chosen.directory, end_text(superblock, found))
            status = apply_found(data, superblock, reactor.empty(), chosen.journal_fd, chosen.volume_fd, found, snapshots)
        del data
    if status < 0:
        raise system_error(f"apply the journal to the volume in {chosen.directory}", int(status))
    return superblock, found


def mismatch_of(chosen: Disk, data: np.ndarray, found: log.Found) -> str:
    """Why this volume and the journal in `data` are not of one time, in a sentence; empty when they are."""
    whole = whole_superblocks(data)
    return mismatch(whole[0], len(whole), found, chosen.volume_bytes, area_of(chosen.volume_fd, chosen.volume_bytes))


def end_text(superblock: log.Superblock, found: log.Found) -> str:
    """Why a log ends where a scan has found its end; of a record that cannot be applied which one, and how to go on."""
    if found.reason != NOT_APPLICABLE:
        return END_REASONS.get(int(found.reason), "the log ends")
    offset = log.SUPERBLOCK_BYTES + int(found.position % superblock.capacity_bytes)
    what = "trim" if found.kind == record.TRIM else "write"
    return (
        f"{END_REASONS[NOT_APPLICABLE]}: write {int(found.sequence) + 1}, a {what} of {int(found.size)} bytes at "
        f"{int(found.address)}, at byte {offset} of the journal. The volume holds everything before it. This replica may "
        "not lead, and is compared extent by extent with the primary that it joins; when no replica is whole, put both files "
        "back from one backup"
    )


def find_end(data: np.ndarray, superblock: log.Superblock) -> log.Found:
    """What scan() finds from where a superblock says that the log begins, and what judge() makes of its end."""
    found = rows_of(log.Found)[0]
    begin = Place(int(superblock.tail), int(superblock.tail_sequence), int(superblock.tail_epoch))
    scan_from(data, superblock, reactor.empty(), -1, False, found, begin, begin.position + int(superblock.capacity_bytes))
    judge_end(data, superblock, found)
    return found


def apply_found(
    data: np.ndarray, superblock: log.Superblock, ring: reactor.Reactor, journal_fd: int, volume_fd: int, found: log.Found,
    snapshots: snapshot.Snapshots | None = None,
) -> int:  # fmt: skip
    """Copy into the volume what find_end() has found: a superblock vouches for that first, as for everything there.

    It goes to the place of the older one, with the newest table of snapshots: so both tell of it before anything is applied.
    The power may have gone between the two, and the newer one may be damaged before it is written again.
    `superblock` is brought to what then stands on the disk, and `snapshots` to what the log leaves. Answers 0 or a status.
    """
    kept = kept_up_to(data, superblock)
    if snapshots is not None and (status := load_snapshots(data, superblock, snapshots, ring)) < 0:
        return status
    is_told_once = snapshots is not None and not is_table_in_both(data)
    if superblock.durable_sequence < found.sequence or is_told_once:
        old = int(superblock.generation) % 2 * log.BLOCK_BYTES
        superblock.durable_sequence = max(superblock.durable_sequence, found.sequence)
        if (status := save_found(data[old : old + log.BLOCK_BYTES], superblock, ring, journal_fd)) < 0:
            return status
    begin = Place(int(superblock.tail), int(superblock.tail_sequence), int(superblock.tail_epoch))
    if snapshots is None:
        return scan_from(data, superblock, ring, volume_fd, True, found, begin, int(found.position))
    return apply_spans(data, superblock, ring, journal_fd, volume_fd, found, snapshots, begin, kept)


class Place(NamedTuple):
    """Where a scan begins: a position in the log, and what is before it."""

    position: int
    sequence: int  # of the last record before it
    epoch: int  # of that record


def save_found(
    old: np.ndarray, superblock: log.Superblock, ring: reactor.Reactor, journal_fd: int,
    snapshots: snapshot.Snapshots | None = None, sequence: int = 0,
) -> int:  # fmt: skip
    """Write the next superblock while nothing runs yet, with the table of `snapshots` as of a sequence, or of the block `old`.

    Answers 0 or a status.
    """
    block = aligned_bytes(log.BLOCK_BYTES)
    superblock.generation += 1
    if superblock.version == replica.JOURNAL_VERSION:
        block[snapshot.HEAD_AT :] = old[snapshot.HEAD_AT :]
    superblock.version = replica.JOURNAL_VERSION
    copy, head = log.superblock_in(block), log.head_in(block)[0]
    copy[0] = superblock
    if snapshots is not None:
        snapshot.fill_table(snapshots, block, head, int(superblock.generation), sequence)
    snapshot.seal_table(block, head, int(superblock.generation))
    place = replica.seal_superblock(block, copy[0])
    written = int(reactor.write_now(ring, journal_fd, block, 0, log.BLOCK_BYTES, place))
    if written != log.BLOCK_BYTES:
        return written if written < 0 else replica.SHORT_WRITE
    return 0


@kernel()
def keep_span(data, headers, capacity, begin, end, sequence, snapshots, ring, volume_fd, kept):
    """Keep what the records from `begin` on will overwrite, behind the sequence `kept`: (where it ended, and why).

    It ends at `end`, after SPAN_BYTES, behind the sequence `kept`, or before a SNAPSHOT or FORGET that the table does not tell of
    (the second is True then).
    """
    position, stop, is_before = begin, min(end, begin + SPAN_BYTES), False
    while position < stop:
        offset = log.SUPERBLOCK_BYTES + position % capacity
        kind = record.kind_of(headers, offset)
        if kind != record.PAD:
            sequence = record.sequence_of(headers, offset)
            if record.is_marker(kind) and sequence > snapshots.at[0].as_of:
                return position, True
            if sequence <= kept:
                is_before = True
            elif is_before:  # What comes before is in the volume first.
                return position, False
            else:
                snapshot.keep_range(
                    snapshots, ring, volume_fd, record.address_of(headers, offset), record.written_of(headers, offset), True,
                    kind == record.TRIM,
                )  # fmt: skip
        position += record.record_bytes(record.length_of(headers, offset))
    return position, False


def apply_spans(
    data: np.ndarray, superblock: log.Superblock, ring: reactor.Reactor, journal_fd: int, volume_fd: int, found: log.Found,
    snapshots: snapshot.Snapshots, begin: Place, kept: int,
) -> int:  # fmt: skip
    """Apply a log piece by piece, each after what it overwrites is kept, and the table is saved wherever it changes.

    `kept`: what the records up to this sequence overwrote was kept before. Answers 0 or a status.
    """
    headers, capacity, end = headers_in(data), int(superblock.capacity_bytes), int(found.position)
    part = rows_of(log.Found)[0]
    while begin.position < end:
        written = int(snapshots.at[0].written)
        stop, at_marker = keep_span(
            data, headers, capacity, begin.position, end, begin.sequence, snapshots, ring, volume_fd, kept
        )
        if snapshots.at[0].written > written and snapshots.at[0].dirty == 0:
            snapshot.flush_now(snapshots, ring)
        if (status := save_changed(superblock, ring, journal_fd, snapshots, begin.sequence)) < 0:
            return status
        if stop > begin.position:
            if (status := int(scan_from(data, superblock, ring, volume_fd, True, part, begin, int(stop)))) < 0:
                return status
            begin = Place(int(part.position), int(part.sequence), int(part.epoch))
        if at_marker:
            offset = log.SUPERBLOCK_BYTES + begin.position % capacity
            while not snapshot.note_marker(snapshots, data, headers, offset):
                if (status := empty_one(superblock, ring, journal_fd, snapshots, begin.sequence)) < 0:
                    return status
            header = headers[offset // record.HEADER_BYTES]
            size = int(record.record_bytes(int(header.length)))
            begin = Place(begin.position + size, int(header.sequence), int(header.epoch))
            if (status := save_changed(superblock, ring, journal_fd, snapshots, begin.sequence)) < 0:
                return status
    return 0


def save_changed(
    superblock: log.Superblock, ring: reactor.Reactor, journal_fd: int, snapshots: snapshot.Snapshots, sequence: int
) -> int:
    """Have both superblocks tell of a table that has changed, as of a sequence. Answers 0 or a status."""
    nothing = np.zeros(log.BLOCK_BYTES, np.uint8)
    while snapshots.at[0].dirty > 0:
        if (status := save_found(nothing, superblock, ring, journal_fd, snapshots, sequence)) < 0:
            return status
        snapshots.at[0].dirty -= 1
    return 0


def empty_one(
    superblock: log.Superblock, ring: reactor.Reactor, journal_fd: int, snapshots: snapshot.Snapshots, sequence: int
) -> int:
    """Have a deleted snapshot leave its place, or a piece of that. Answers 0 or a status."""
    at = snapshots.at[0]
    snapshot.tend(snapshots, ring)
    if at.awaited > at.flushed:
        if (status := int(reactor.sync_kept_now(ring, int(at.fd)))) < 0:
            return status
        at.flushed = at.flushing = at.written
    return save_changed(superblock, ring, journal_fd, snapshots, sequence)


def scan_from(
    data: np.ndarray, superblock: log.Superblock, ring: reactor.Reactor, volume_fd: int, apply: bool, found: log.Found,
    begin: Place, limit: int,
) -> int:  # fmt: skip
    """scan() of the log that a superblock tells of, from a place in it to a position."""
    return scan(
        data, headers_in(data), int(superblock.capacity_bytes), int(superblock.volume),
        int(superblock.volume_bytes) or record.NUMBER_MAX, begin.position, limit, begin.sequence, begin.epoch, ring, volume_fd,
        apply, found,
    )  # fmt: skip


def whole_blocks(position: int) -> int:
    """This position, or the next that begins a block."""
    return -(-position // log.BLOCK_BYTES) * log.BLOCK_BYTES


def zero_torn_tail(journal: log.Journal, ring: reactor.Reactor, superblock: log.Superblock, found: log.Found) -> int:
    """Write zeros over what a torn batch has left behind the end that a scan has found, before the log goes on there.

    Records that were never acknowledged would otherwise be taken for durable ones a lap later, or replayed behind others. The
    block in which the log ends is written again as it is; nothing that counts is touched. Answers 0 or a status.
    """
    position, capacity = int(found.position), int(superblock.capacity_bytes)
    fd, data = journal.at[0].journal_fd, journal.data
    begin = position // log.BLOCK_BYTES * log.BLOCK_BYTES
    end = min(whole_blocks(position + int(superblock.staging_bytes)), int(superblock.tail) + capacity)
    while begin < end:
        place = log.SUPERBLOCK_BYTES + begin % capacity
        size = min(end - begin, capacity - begin % capacity, data.size)
        kept = max(position - begin, 0)
        if kept:
            reactor.read_journal(ring, fd, data, 0, log.BLOCK_BYTES, place)
        data[kept : log.BLOCK_BYTES] = 0
        written = reactor.write_now(ring, fd, data, 0, size, place)
        data[:kept] = 0
        if written != size:
            return int(written) if written < 0 else replica.SHORT_WRITE
        begin += size
    return 0


def resume(journal: log.Journal, ring: reactor.Reactor, superblock: log.Superblock, found: log.Found) -> None:
    """Have an empty journal go on behind what a scan has found and applied, on the next whole block.

    A primary must take a new epoch before it writes (peering.lead). After damage the volume may be ahead of the log, so it is
    marked inconsistent: such a replica may not lead, and is compared with one that does. UnfitError when the disk refuses.
    """
    at = journal.at[0]
    log.begin_at(journal, whole_blocks(int(found.position)), int(found.sequence))
    at.pair = superblock.pair
    at.pair_generation = at.labelled = superblock.pair_generation
    at.generation, at.epoch = superblock.generation, superblock.epoch
    at.flags = superblock.flags | (log.INCONSISTENT if found.damaged else 0)
    at.begun = superblock.begun
    at.log_epoch = at.applied_epoch = at.checkpoint_epoch = found.epoch
    if found.damaged:
        snapshot.give_up_all(journal.snapshots)
    room.count_file(journal, ring)
    if not found.damaged and (status := zero_torn_tail(journal, ring, superblock, found)) < 0:
        raise system_error("write behind the end of a journal", status)


def replay(chosen: Disk, staging_bytes: int) -> tuple[log.Journal, Replay]:
    """Bring the volume to the end of what survived, and go on behind it in a new epoch.

    Ends with a checkpoint: the old tail of the log, torn records included, can never be read again.
    """
    snapshots = snapshot.snapshots_state(chosen.volume_bytes, chosen.snapshot_fd)
    superblock, found = examine(chosen, apply=True, snapshots=snapshots)
    journal = log.journal_state(
        int(superblock.capacity_bytes), staging_bytes, int(superblock.volume), int(superblock.epoch), chosen.journal_fd,
        chosen.volume_fd, chosen.volume_bytes,
    )._replace(snapshots=snapshots)  # fmt: skip
    resume(journal, reactor.empty(), superblock, found)
    lead(journal, max(int(found.epoch), int(superblock.epoch)) + 1)
    tie(journal)
    return journal, Replay(
        int(found.sequence), int(found.count), int(found.position), end_text(superblock, found), bool(found.damaged)
    )
