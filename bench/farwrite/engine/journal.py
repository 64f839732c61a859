"""The journal's file: formatted for each run, replayed after a crash.

`format_journal` begins an empty log in a site's files; `replay` finds what a crash left and goes on behind it. Both answer a
Journal that kernels work on. The layout on disk: two superblocks of one block each, then the ring of records.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ..crc_kernel import crc32c
from ..errors import UnfitError, system_error
from ..host import libc
from ..host.disk import Disk
from ..jit import kernel
from . import journal_kernel as log
from . import record_kernel as record
from . import replica_kernel as replica

# Why a replay stopped reading, by record_kernel's findings.
NOT_NEXT = -20
END_REASONS = {
    record.INCOMPLETE: "the ring ends",
    record.BAD_MAGIC: "no record stands here",
    record.BAD_VERSION: "a record of another version",
    record.BAD_LENGTH: "an impossible length",
    record.BAD_CRC: "a checksum that does not match: torn or damaged",
    record.WRONG_VOLUME: "a record of another volume",
    record.BAD_KIND: "an unknown kind of record",
    NOT_NEXT: "a record of an earlier lap or epoch",
}


@dataclass(frozen=True)
class Replay:
    """What a replay found: the prefix of writes that survived, and why it ends there."""

    sequence: int
    record_count: int
    end_position: int
    end_reason: str


def capacity_of(chosen: Disk, staging_bytes: int) -> int:
    """Bytes of ring behind the superblocks: a whole number of staging rings."""
    return (chosen.journal_bytes - log.SUPERBLOCK_BYTES) // staging_bytes * staging_bytes


def format_journal(chosen: Disk, volume: int, epoch: int, staging_bytes: int) -> log.Journal:
    """An empty journal of a new volume identity; records of whatever was there before cannot be mistaken for its own.

    The volume's old content stays until it is written over. To cut it off would wait for its pages that are on their way to
    the disk: seconds, after a busy run (ftruncate of 25 000 random pages: 1 to 5 s on the VM this was written on).
    """
    journal = log.journal_state(
        capacity_of(chosen, staging_bytes), staging_bytes, volume, epoch, chosen.journal_fd, chosen.volume_fd
    )
    for _ in range(2):
        write_superblock(journal)
    return journal


def write_superblock(journal: log.Journal) -> None:
    """Make the checkpoint in journal.at durable, here and now."""
    offset = int(replica.fill_superblock(journal))
    written = os.pwrite(int(journal.at[log.JOURNAL_FD]), memoryview(journal.superblock), offset)  # type: ignore[arg-type]
    assert written == log.BLOCK_BYTES


@contextmanager
def image(journal_fd: int) -> Iterator[np.ndarray]:
    """The whole journal file as bytes; a private map, so that nothing done to it reaches the file."""
    mapped = mmap.mmap(journal_fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    try:
        yield np.frombuffer(mapped, np.uint8)
    finally:
        with contextlib.suppress(BufferError):  # The caller's arrays go first, and the map with the last of them.
            mapped.close()


def read_superblock(data: np.ndarray) -> np.ndarray | None:
    """The words of the newest whole superblock, or None: no journal stands here."""
    best = None
    for index in range(2):
        block = data[index * log.BLOCK_BYTES : (index + 1) * log.BLOCK_BYTES]
        words = block[: 8 * replica.SUPERBLOCK_WORDS].copy().view(np.int64)
        whole = (
            words[0] == replica.SUPERBLOCK_MAGIC
            and words[1] == record.VERSION
            and words[8] == crc32c(0, block, 0, 64)
        )
        if whole and (best is None or words[2] > best[2]):
            best = words
    return best


@kernel()
def scan(data, words, capacity, volume, position, sequence, epoch, volume_fd, found):
    """Walk the records from `position` and copy each into the volume (unless volume_fd is -1).

    Stops at the first thing that is not the next record of this volume. `found` receives: position, sequence, count of
    writes, why it stopped, epoch of the last one. Answers 0 or -errno from the volume.
    """
    count = np.int64(0)
    reason = np.int64(record.INCOMPLETE)
    begin = position
    while position - begin < capacity:
        offset = log.SUPERBLOCK_BYTES + position % capacity
        available = capacity - position % capacity
        reason = np.int64(record.inspect(data, words, offset, available, volume))
        if reason != record.COMPLETE:
            break
        kind = record.kind_of(words, offset)
        length = record.length_of(words, offset)
        expected = sequence + 1 if kind == record.WRITE else sequence
        stale = record.sequence_of(words, offset) != expected or record.epoch_of(words, offset) < epoch
        if stale or (kind != record.WRITE and kind != record.PAD):
            reason = np.int64(NOT_NEXT)
            break
        if record.record_bytes(length) > available:
            reason = np.int64(record.BAD_LENGTH)
            break
        epoch = record.epoch_of(words, offset)
        if kind == record.WRITE:
            sequence = expected
            count += 1
            if volume_fd >= 0:
                body = offset + record.HEADER_BYTES
                written = libc.pwrite(volume_fd, data, body, length, record.address_of(words, offset))
                if written != length:
                    return written if written < 0 else np.int64(replica.SHORT_WRITE)
        position += record.record_bytes(length)
    found[0], found[1], found[2], found[3], found[4] = position, sequence, count, reason, epoch
    return np.int64(0)


def examine(chosen: Disk, apply: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(superblock words, scan's findings) of a journal as it lies there; UnfitError when there is none."""
    with image(chosen.journal_fd) as data:
        superblock = read_superblock(data)
        if superblock is None:
            raise UnfitError(f"{chosen.directory}: no whole superblock; this is not a journal, or it is damaged.")
        found = np.zeros(5, np.int64)
        capacity, volume, tail, sequence, epoch = (int(superblock[word]) for word in (7, 3, 4, 5, 6))
        if not 0 < capacity <= chosen.journal_bytes - log.SUPERBLOCK_BYTES:
            raise UnfitError(f"{chosen.directory}: the superblock tells of another size of journal.")
        volume_fd = chosen.volume_fd if apply else -1
        status = scan(data, data.view(np.int64), capacity, volume, tail, sequence, epoch, volume_fd, found)
        del data
    if status < 0:
        raise system_error(f"apply the journal to the volume in {chosen.directory}", int(status))
    return superblock, found


def replay(chosen: Disk, staging_bytes: int) -> tuple[log.Journal, Replay]:
    """Bring the volume to the end of what survived, and go on behind it in a new epoch.

    Ends with a checkpoint: the old tail of the log, torn records included, can never be read again.
    """
    superblock, found = examine(chosen, apply=True)
    position, sequence, count, reason, epoch = (int(value) for value in found)
    os.fdatasync(chosen.volume_fd)
    journal = log.journal_state(
        int(superblock[7]), staging_bytes, int(superblock[3]), max(epoch, int(superblock[6])) + 1,
        chosen.journal_fd, chosen.volume_fd,
    )  # fmt: skip
    at = journal.at
    at[log.GENERATION] = superblock[2]
    resumed = -(-position // log.BLOCK_BYTES) * log.BLOCK_BYTES
    for index in (log.TAIL, log.APPLIED, log.DURABLE, log.SEALED, log.STAGED, log.CHECKPOINT_POSITION):
        at[index] = resumed
    for index in (
        log.TAIL_SEQUENCE, log.APPLIED_SEQUENCE, log.DURABLE_SEQUENCE, log.SEALED_SEQUENCE, log.STAGED_SEQUENCE,
        log.BOUNDARY_SEQUENCE, log.CHECKPOINT_SEQUENCE,
    ):  # fmt: skip
        at[index] = sequence
    for _ in range(2):  # Both, so that no damage to one leads back before this replay.
        write_superblock(journal)
    return journal, Replay(sequence, count, position, END_REASONS.get(reason, "the log ends"))
