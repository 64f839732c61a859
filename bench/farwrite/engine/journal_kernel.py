"""The journal's arithmetic: where the next record goes, what is flushed together, what may be forgotten.

The journal is a ring of `CAPACITY` bytes in a preallocated file, behind two superblocks. A position is a byte count that
never wraps; it lives at `position % CAPACITY` in the file and at `position % STAGING` in memory, where STAGING divides
CAPACITY, so a record that fits memory without wrapping fits the file too. Everything the engine knows is a position in
this one log, always in this order:

    tail <= saved <= applied <= vouched <= durable <= sealed <= staged

Records are packed by 64 bytes; a batch that is flushed ends on a block boundary, filled by a PAD record, so no sector
that was acknowledged is ever written again. The PAD tells what was durable when it was made: once its batch is durable too, it
vouches for everything before the batch, and so does a superblock. Only what is vouched for gets into the volume. Whatever bit
flips in the log afterwards, the volume is never ahead of it unless somebody still says so. Steps only: time and system calls
are in primary_kernel and secondary_kernel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..base.host.disk import BLOCK_BYTES
from ..base.host.libc import aligned_bytes
from ..base.jit import kernel
from . import record_kernel as record

SUPERBLOCK_BYTES = 2 * BLOCK_BYTES  # Two, written in turn: one is always whole.

# Indices into Journal.at: positions, the last sequence up to each position, then what does not change.
TAIL, APPLIED, DURABLE, SEALED, STAGED = range(5)
TAIL_SEQUENCE, APPLIED_SEQUENCE, DURABLE_SEQUENCE, SEALED_SEQUENCE, STAGED_SEQUENCE = range(5, 10)
BOUNDARY_SEQUENCE = 10  # Last sequence before the staging ring's end, for a batch that must stop there.
CAPACITY, STAGING, EPOCH, VOLUME, JOURNAL_FD, VOLUME_FD, GENERATION = range(11, 18)
FLUSH_COUNT, FLUSH_BYTES, USER_BYTES, CHECKPOINT_COUNT, CHECKPOINT_POSITION, CHECKPOINT_SEQUENCE = range(18, 24)
HELD = 24  # Memory from here on may not be written over: a peer has still to be sent it. EVERYTHING_SENT when no peer has.
LOG_EPOCH, EPOCH_BEGIN_SEQUENCE, PREVIOUS_EPOCH = 25, 26, 27  # Of the last record; before EPOCH's first; before that one.
KNOWN_SINCE, EXTENT_BYTES, FLAGS = 28, 29, 30  # `begins` and `last_write` tell everything after this sequence.
APPLIED_EPOCH, CHECKPOINT_EPOCH = 31, 32  # Of the last record applied, and of the last one before the checkpoint.
SAVED, SAVED_SEQUENCE = 33, 34  # The newest checkpoint whose superblock is durable. The tail is the one before it.
BEGUN = 35  # Where a resync began this log anew: what stands a lap before it was another log's.
VOUCHED = 36  # A PAD or superblock on the disk says that everything before this was durable.
VOUCHING, VOUCHES_ONLY = 37, 38  # What the superblock under way will say; whether it is no checkpoint.
WANTS_VOUCH, VOUCH_AFTER_NS, FLUSHED_NS, PADDED = 39, 40, 41, 42  # Somebody waits for it; otherwise it comes when nothing does.
VOLUME_BYTES = 43  # NUMBER_MAX where a journal is made without a volume.
PAIR = 44  # Identity of this journal and its volume together (label.py); 0: none.
PAIR_GENERATION, LABELLED = 45, 46  # Times the two were tied, as the newest superblock says; as the volume's newest label says.
AT_WORDS = 47

EVERYTHING_SENT = np.int64(1) << np.int64(62)
INCONSISTENT = 1  # FLAGS: the volume is a mixture of two times until its resync is over; it may not be promoted.

EXTENT_BYTES_DEFAULT = 64 << 10  # 8 bytes of memory each: 128 KiB for a volume of 1 GiB.
VOUCH_AFTER_NS_DEFAULT = 100_000_000  # Longer than any round trip: writes one at a time vouch for each other.
BEGINS = 1 << 17  # Writes whose place in the journal is remembered, for a peer that comes back.


class Journal(NamedTuple):
    """The ring in memory and the positions in it."""

    at: np.ndarray  # int64, see the indices above
    data: np.ndarray  # uint8, STAGING bytes, page-aligned
    words: np.ndarray  # int64, the same memory
    superblock: np.ndarray  # uint8, one block, page-aligned
    begins: np.ndarray  # int64 by sequence modulo its size: where the record begins
    last_write: np.ndarray  # int64 by extent: sequence of the last write applied to it


def journal_state(
    capacity_bytes: int, staging_bytes: int, volume: int, epoch: int, journal_fd: int, volume_fd: int, volume_bytes: int = 0,
    extent_bytes: int = EXTENT_BYTES_DEFAULT, begins: int = BEGINS, vouch_after_ns: int = VOUCH_AFTER_NS_DEFAULT,
) -> Journal:  # fmt: skip
    """An empty Journal that begins at position 0."""
    assert capacity_bytes % staging_bytes == 0
    assert staging_bytes % BLOCK_BYTES == 0
    data = aligned_bytes(staging_bytes)
    at = np.zeros(AT_WORDS, np.int64)
    at[CAPACITY], at[STAGING] = capacity_bytes, staging_bytes
    at[EPOCH], at[VOLUME] = epoch, volume
    at[JOURNAL_FD], at[VOLUME_FD] = journal_fd, volume_fd
    at[HELD], at[EXTENT_BYTES] = EVERYTHING_SENT, extent_bytes
    at[VOLUME_BYTES] = volume_bytes or record.NUMBER_MAX
    at[BEGUN], at[VOUCH_AFTER_NS] = -capacity_bytes, vouch_after_ns
    at[LOG_EPOCH] = at[APPLIED_EPOCH] = at[CHECKPOINT_EPOCH] = epoch
    extents = -(-volume_bytes // extent_bytes)
    return Journal(
        at, data, data.view(np.int64), aligned_bytes(BLOCK_BYTES), np.zeros(begins, np.int64), np.zeros(extents, np.int64)
    )


def begin_at(journal: Journal, position: int, sequence: int) -> None:
    """Go on at a position and after a sequence, everything before being durable and applied."""
    at = journal.at
    for index in (TAIL, APPLIED, VOUCHED, DURABLE, SEALED, STAGED, CHECKPOINT_POSITION, SAVED):
        at[index] = position
    for index in (
        TAIL_SEQUENCE, APPLIED_SEQUENCE, DURABLE_SEQUENCE, SEALED_SEQUENCE, STAGED_SEQUENCE, BOUNDARY_SEQUENCE,
        CHECKPOINT_SEQUENCE, SAVED_SEQUENCE, KNOWN_SINCE, EPOCH_BEGIN_SEQUENCE,
    ):  # fmt: skip
        at[index] = sequence


@kernel()
def restart(journal, position, sequence, log_epoch):
    """begin_at() after a resync: the log goes on at `position` behind `sequence`, whose record was of `log_epoch`."""
    at = journal.at
    at[TAIL] = at[APPLIED] = at[DURABLE] = at[SEALED] = at[STAGED] = at[CHECKPOINT_POSITION] = position
    at[TAIL_SEQUENCE] = at[APPLIED_SEQUENCE] = at[DURABLE_SEQUENCE] = at[SEALED_SEQUENCE] = sequence
    at[STAGED_SEQUENCE] = at[BOUNDARY_SEQUENCE] = at[CHECKPOINT_SEQUENCE] = at[KNOWN_SINCE] = sequence
    at[SAVED], at[SAVED_SEQUENCE] = position, sequence
    at[BEGUN] = at[VOUCHED] = position
    at[LOG_EPOCH] = at[APPLIED_EPOCH] = at[CHECKPOINT_EPOCH] = log_epoch
    journal.last_write[:] = 0


@kernel()
def pad_to_end(journal):
    """Bytes between the next record's place and the end of the ring."""
    at = journal.at
    return at[STAGING] - at[STAGED] % at[STAGING]


@kernel()
def is_placeable(journal, length):
    """Whether there is room for a record with this payload when nothing else is in the ring, wherever the ring then stands.

    Otherwise it might be waited for without end: a record that does not fit before the ring's end needs that rest as well, which
    is less than the record.
    """
    return 2 * record.record_bytes(length) + BLOCK_BYTES <= journal.at[STAGING]


@kernel()
def has_room(journal, length):
    """Whether a record with this payload may be placed now, with what its batch's PAD may need."""
    at = journal.at
    needed = record.record_bytes(length)
    to_end = pad_to_end(journal)
    if needed > to_end:
        needed += to_end
    needed += BLOCK_BYTES
    kept = min(at[APPLIED], at[HELD])
    return at[STAGED] + needed - kept <= at[STAGING] and at[STAGED] + needed - at[TAIL] <= at[CAPACITY]


@kernel()
def place_pad(journal, size):
    """A PAD record of `size` bytes, header included, at the staged end; its address is the durable sequence of now."""
    at = journal.at
    start = at[STAGED] % at[STAGING]
    record.seal(
        journal.data, journal.words, start, record.PAD, size - record.HEADER_BYTES,
        at[STAGED_SEQUENCE], at[DURABLE_SEQUENCE], at[EPOCH], at[VOLUME], np.int64(0),
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
    journal.begins[at[STAGED_SEQUENCE] % journal.begins.size] = at[STAGED] - needed
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
    at[PADDED] = 0
    if at[STAGED] > ring_end:
        at[SEALED] = ring_end
        at[SEALED_SEQUENCE] = at[BOUNDARY_SEQUENCE]
    else:
        rest = at[STAGED] % BLOCK_BYTES
        if rest != 0:
            place_pad(journal, BLOCK_BYTES - rest)
            at[PADDED] = 1
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
    if at[PADDED] and not is_first_lap(journal):
        note_vouched(journal, at[DURABLE])
    at[DURABLE] = at[SEALED]
    at[DURABLE_SEQUENCE] = at[SEALED_SEQUENCE]


@kernel()
def is_first_lap(journal):
    """Whether PADs of another log may still stand where this one will: then they are no evidence, and only superblocks are."""
    return journal.at[DURABLE] < journal.at[BEGUN] + journal.at[CAPACITY]


@kernel()
def note_vouched(journal, position):
    """Something durable says that everything before `position` was."""
    at = journal.at
    at[VOUCHED] = max(at[VOUCHED], position)
    at[WANTS_VOUCH] = 0


@kernel()
def wants_vouch(journal, is_flushing, now_ns):
    """Whether a superblock should vouch for what is durable: all is quiet, or somebody waits and no batch under way will do."""
    at = journal.at
    if at[VOUCHED] == at[DURABLE]:
        return False
    asked = at[WANTS_VOUCH] != 0 and (not is_flushing or is_first_lap(journal))
    return asked or now_ns - at[FLUSHED_NS] > at[VOUCH_AFTER_NS]


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
def run_end(journal, position, limit, sequence_max):
    """The end of the unbroken run of writes up to `sequence_max` that begins at `position`: what one send may hand over."""
    at = journal.at
    ring_end = (position // at[STAGING] + 1) * at[STAGING]
    while position < min(limit, ring_end):
        start = position % at[STAGING]
        if record.kind_of(journal.words, start) == record.PAD or record.sequence_of(journal.words, start) > sequence_max:
            break
        position += record.record_bytes(record.length_of(journal.words, start))
    return position


@kernel()
def note_written(journal, address, length, sequence):
    """The write of this sequence is in the volume now: its extents were last written by it."""
    extent_bytes = journal.at[EXTENT_BYTES]
    for extent in range(address // extent_bytes, min((address + length - 1) // extent_bytes + 1, journal.last_write.size)):
        journal.last_write[extent] = sequence


@kernel()
def is_to_be_written(journal, extent):
    """Whether a write that is staged, and not yet in the volume, goes to this extent."""
    at = journal.at
    position = at[APPLIED]
    while position < at[STAGED]:
        start = position % at[STAGING]
        if record.kind_of(journal.words, start) != record.PAD:
            begin = record.address_of(journal.words, start)
            end = begin + record.written_of(journal.words, start)
            if begin < (extent + 1) * at[EXTENT_BYTES] and end > extent * at[EXTENT_BYTES]:
                return True
        position += record.record_bytes(record.length_of(journal.words, start))
    return False


@kernel()
def begin_of(journal, sequence):
    """Where the record of `sequence` begins in the journal (STAGED for the next one), or -1 when that is no longer known."""
    at = journal.at
    if sequence == at[STAGED_SEQUENCE] + 1:
        return at[STAGED]
    forgotten = sequence <= at[KNOWN_SINCE] or at[STAGED_SEQUENCE] - sequence >= journal.begins.size
    if forgotten or sequence > at[STAGED_SEQUENCE]:
        return np.int64(-1)
    begin = journal.begins[sequence % journal.begins.size]
    return begin if begin >= at[TAIL] else np.int64(-1)


@kernel()
def note_applied(journal, position, sequence):
    """Everything before `position` is in the volume (not yet flushed there)."""
    journal.at[APPLIED] = position
    journal.at[APPLIED_SEQUENCE] = sequence


@kernel()
def wants_checkpoint(journal):
    """Whether a third of the ring has been staged since the last one, or little room is left, and one would help."""
    at = journal.at
    due = at[STAGED] - at[SAVED] > at[CAPACITY] // 3 and at[APPLIED] > at[SAVED]
    return due or (at[STAGED] - at[TAIL] > at[CAPACITY] // 4 * 3 and at[APPLIED] > at[TAIL])


@kernel()
def free_to_checkpoint(journal):
    """A superblock has become durable: move the tail to the checkpoint before it, which the other superblock tells of.

    So a replay may begin with either of the two, and damage to the newer one loses nothing.
    """
    at = journal.at
    at[TAIL], at[TAIL_SEQUENCE] = at[SAVED], at[SAVED_SEQUENCE]
    at[SAVED], at[SAVED_SEQUENCE] = at[CHECKPOINT_POSITION], at[CHECKPOINT_SEQUENCE]
    at[CHECKPOINT_COUNT] += 1

    assert at[TAIL] <= at[SAVED] <= at[APPLIED] <= at[VOUCHED] <= at[DURABLE] <= at[SEALED] <= at[STAGED]
