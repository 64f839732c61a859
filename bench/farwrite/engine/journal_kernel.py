"""The journal's arithmetic: where the next record goes, what is flushed together, what may be forgotten.

The journal is a ring of `CAPACITY` bytes in a preallocated file, behind two superblocks. A position is a byte count that
never wraps; it lives at `position % CAPACITY` in the file and at `position % STAGING` in memory, where STAGING divides
CAPACITY, so a record that fits memory without wrapping fits the file too. Everything the engine knows is a position in
this one log, always in this order:

    tail <= applied <= durable <= sealed <= staged

Records are packed by 64 bytes; a batch that is flushed ends on a block boundary, filled by a PAD record, so no sector
that was acknowledged is ever written again. Steps only: time and system calls are in primary_kernel and secondary_kernel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..host.disk import BLOCK_BYTES
from ..host.libc import aligned_bytes
from ..jit import kernel
from . import record_kernel as record

SUPERBLOCK_BYTES = 2 * BLOCK_BYTES  # Two, written in turn: one is always whole.

# Indices into Journal.at: positions, the last sequence up to each position, then what does not change.
TAIL, APPLIED, DURABLE, SEALED, STAGED = range(5)
TAIL_SEQUENCE, APPLIED_SEQUENCE, DURABLE_SEQUENCE, SEALED_SEQUENCE, STAGED_SEQUENCE = range(5, 10)
BOUNDARY_SEQUENCE = 10  # Last sequence before the staging ring's end, for a batch that must stop there.
CAPACITY, STAGING, EPOCH, VOLUME, JOURNAL_FD, VOLUME_FD, GENERATION = range(11, 18)
FLUSH_COUNT, FLUSH_BYTES, USER_BYTES, CHECKPOINT_COUNT, CHECKPOINT_POSITION, CHECKPOINT_SEQUENCE = range(18, 24)
AT_WORDS = 24


class Journal(NamedTuple):
    """The ring in memory and the positions in it."""

    at: np.ndarray  # int64, see the indices above
    data: np.ndarray  # uint8, STAGING bytes, page-aligned
    words: np.ndarray  # int64, the same memory
    superblock: np.ndarray  # uint8, one block, page-aligned


def journal_state(capacity_bytes: int, staging_bytes: int, volume: int, epoch: int, journal_fd: int, volume_fd: int):
    """An empty Journal that begins at position 0."""
    assert capacity_bytes % staging_bytes == 0
    assert staging_bytes % BLOCK_BYTES == 0
    data = aligned_bytes(staging_bytes)
    at = np.zeros(AT_WORDS, np.int64)
    at[CAPACITY], at[STAGING] = capacity_bytes, staging_bytes
    at[EPOCH], at[VOLUME] = epoch, volume
    at[JOURNAL_FD], at[VOLUME_FD] = journal_fd, volume_fd
    return Journal(at, data, data.view(np.int64), aligned_bytes(BLOCK_BYTES))


@kernel()
def pad_to_end(journal):
    """Bytes between the next record's place and the end of the ring."""
    at = journal.at
    return at[STAGING] - at[STAGED] % at[STAGING]


@kernel()
def has_room(journal, length):
    """Whether a record with this payload may be placed now, with what its batch's PAD may need."""
    at = journal.at
    needed = record.record_bytes(length)
    to_end = pad_to_end(journal)
    if needed > to_end:
        needed += to_end
    needed += BLOCK_BYTES
    return at[STAGED] + needed - at[APPLIED] <= at[STAGING] and at[STAGED] + needed - at[TAIL] <= at[CAPACITY]


@kernel()
def place_pad(journal, size):
    """A PAD record of `size` bytes, header included, at the staged end."""
    at = journal.at
    start = at[STAGED] % at[STAGING]
    record.seal(
        journal.data, journal.words, start, record.PAD, size - record.HEADER_BYTES,
        at[STAGED_SEQUENCE], np.int64(0), at[EPOCH], at[VOLUME], np.int64(0),
    )  # fmt: skip
    at[STAGED] += size


@kernel()
def place(journal, length):
    """Reserve the next record and answer its start in the staging ring. The caller has asked has_room() first."""
    at = journal.at
    needed = record.record_bytes(length)
    to_end = pad_to_end(journal)
    if needed > to_end:
        place_pad(journal, to_end)
        at[BOUNDARY_SEQUENCE] = at[STAGED_SEQUENCE]
    start = at[STAGED] % at[STAGING]
    at[STAGED] += needed
    at[STAGED_SEQUENCE] += 1
    if at[STAGED] % at[STAGING] == 0:
        at[BOUNDARY_SEQUENCE] = at[STAGED_SEQUENCE]
    at[USER_BYTES] += length

    assert start + needed <= at[STAGING]
    assert at[STAGED] - at[APPLIED] <= at[STAGING]
    return start


@kernel()
def seal_batch(journal):
    """Close what is staged into one batch to be flushed; answers its bytes, 0 when nothing waits.

    The batch begins at the old SEALED position, now at `SEALED - bytes`. It never crosses the ring's end: what lies
    behind the end is the next batch.
    """
    at = journal.at
    begin = at[SEALED]
    if at[STAGED] == begin:
        return np.int64(0)
    ring_end = (begin // at[STAGING] + 1) * at[STAGING]
    if at[STAGED] > ring_end:
        at[SEALED] = ring_end
        at[SEALED_SEQUENCE] = at[BOUNDARY_SEQUENCE]
    else:
        rest = at[STAGED] % BLOCK_BYTES
        if rest != 0:
            place_pad(journal, BLOCK_BYTES - rest)
        at[SEALED] = at[STAGED]
        at[SEALED_SEQUENCE] = at[STAGED_SEQUENCE]

    assert at[SEALED] % BLOCK_BYTES == 0
    return at[SEALED] - begin


@kernel()
def note_durable(journal):
    """The flush of the sealed batch has returned."""
    at = journal.at
    at[FLUSH_COUNT] += 1
    at[FLUSH_BYTES] += at[SEALED] - at[DURABLE]
    at[DURABLE] = at[SEALED]
    at[DURABLE_SEQUENCE] = at[SEALED_SEQUENCE]


@kernel()
def skip_pads(journal, position, limit):
    """The first position from here that is not a PAD, or `limit`."""
    at = journal.at
    while position < limit:
        start = position % at[STAGING]
        if record.kind_of(journal.words, start) != record.PAD:
            break
        position += record.record_bytes(record.length_of(journal.words, start))
    return position


@kernel()
def run_end(journal, position, limit):
    """The end of the unbroken run of WRITE records that begins at `position`: what one send may hand over."""
    at = journal.at
    ring_end = (position // at[STAGING] + 1) * at[STAGING]
    while position < min(limit, ring_end):
        start = position % at[STAGING]
        if record.kind_of(journal.words, start) == record.PAD:
            break
        position += record.record_bytes(record.length_of(journal.words, start))
    return position


@kernel()
def note_applied(journal, position, sequence):
    """Everything before `position` is in the volume (not yet flushed there)."""
    journal.at[APPLIED] = position
    journal.at[APPLIED_SEQUENCE] = sequence


@kernel()
def wants_checkpoint(journal):
    """Whether the ring is more than half full and some of it has been applied."""
    at = journal.at
    return at[STAGED] - at[TAIL] > at[CAPACITY] // 2 and at[APPLIED] > at[TAIL]


@kernel()
def free_to_checkpoint(journal):
    """Move the tail to the checkpoint whose superblock has become durable."""
    at = journal.at
    at[TAIL] = at[CHECKPOINT_POSITION]
    at[TAIL_SEQUENCE] = at[CHECKPOINT_SEQUENCE]
    at[CHECKPOINT_COUNT] += 1

    assert at[TAIL] <= at[APPLIED] <= at[DURABLE] <= at[SEALED] <= at[STAGED]
