"""The journal's arithmetic: where the next record goes, what is flushed together, what may be forgotten.

The journal is a ring of `capacity_bytes` in a preallocated file, behind two superblocks. A position is a byte count that never
wraps; it lives at `position % capacity_bytes` in the file and at `position % staging_bytes` in memory. The second divides the
first, so a record that fits memory without wrapping fits the file too. Everything the engine knows is a position in this one
log, always in this order:

    tail <= saved <= applied <= durable_watermark <= durable <= sealed <= staged

While there are snapshots, `kept` and `walked` lie between applied and durable_watermark (snapshot_kernel).

Records are packed by 64 bytes; a batch that is flushed ends on a block boundary, filled by a PAD record, so no sector that was
acknowledged is ever written again. The PAD tells what was durable when it was made: once its batch is durable too, it is a
durable watermark for everything before the batch, and so is a superblock. Only what a watermark covers gets into the volume.
Whatever bit flips in the log afterwards, the volume is never ahead of it unless somebody still says so. Steps only: time and
system calls are in primary_kernel and secondary_kernel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..base.host.disk import BLOCK_BYTES
from ..base.host.libc import aligned_bytes
from ..base.jit import kernel
from ..base.row import Row, i64, rows_of
from . import record_kernel as record
from . import room_kernel as rooms
from . import snapshot_kernel as snapshot

SUPERBLOCK_BYTES = 2 * BLOCK_BYTES  # Two, written in turn: one is always whole.

EVERYTHING_SENT = np.int64(1) << np.int64(62)
INCONSISTENT = 1  # Positions.flags: the volume is a mixture of two times until its resync is over; it may not be promoted.

EXTENT_BYTES_DEFAULT = 64 << 10  # 8 bytes of memory each: 128 KiB for a volume of 1 GiB.
WATERMARK_AFTER_NS_DEFAULT = 100_000_000  # Longer than any round trip: writes one at a time vouch for each other.
BEGINS = 1 << 17  # Writes whose place in the journal is remembered, for a peer that comes back.


class Positions(Row):
    """A journal's positions (bytes of log, never wrapping), the last sequence before each, and what does not change."""

    tail = i64("position: the oldest record that may still be read")
    applied = i64("position: everything before it is in the volume, not yet flushed there")
    durable = i64("position: everything before it is durable")
    sealed = i64("position: the end of the batch that is being flushed, or was last")
    staged = i64("position: where the next record goes")
    tail_sequence = i64("last sequence before tail")
    applied_sequence = i64("last sequence before applied")
    durable_sequence = i64("last sequence before durable")
    sealed_sequence = i64("last sequence before sealed")
    staged_sequence = i64("last sequence before staged: that of the newest write")
    boundary_sequence = i64("last sequence before the staging ring's end, for a batch that must stop there")
    capacity_bytes = i64("bytes of the ring in the file")
    staging_bytes = i64("bytes of the ring in memory; they divide capacity_bytes")
    epoch = i64("the newest epoch that was promised or is led")
    volume = i64("identity that replicas of one volume share")
    journal_fd = i64("descriptor of the journal's file")
    volume_fd = i64("descriptor of the volume's file")
    generation = i64("superblocks written; the last one lies in block generation % 2")
    flush_count = i64("batches flushed")
    flush_bytes = i64("bytes flushed, PADs included")
    user_bytes = i64("payload bytes of all writes placed")
    checkpoint_count = i64("checkpoints that became durable")
    checkpoint_position = i64("position: the checkpoint that the newest superblock tells of, durable or under way")
    checkpoint_sequence = i64("last sequence before checkpoint_position")
    held = i64("position: memory from here on may not be written over, a peer is still to be sent it; or EVERYTHING_SENT")
    log_epoch = i64("epoch of the last record")
    epoch_begin_sequence = i64("last sequence before the first of epoch")
    previous_epoch = i64("epoch of the record with epoch_begin_sequence")
    known_since = i64("sequence: begins and last_write tell everything after it")
    extent_bytes = i64("bytes of volume that share one place in last_write")
    flags = i64("INCONSISTENT or 0")
    applied_epoch = i64("epoch of the last record applied")
    checkpoint_epoch = i64("epoch of the last record before checkpoint_position")
    saved = i64("position: the newest checkpoint whose superblock is durable; tail is the one before it")
    saved_sequence = i64("last sequence before saved")
    begun = i64("position: where a resync began this log anew; what stands a lap before it was another log's")
    durable_watermark = i64("position: a PAD or superblock on the disk says that everything before it was durable")
    watermark_in_flight = i64("position: what durable_watermark becomes once the superblock under way is durable")
    watermark_only = i64("1: the superblock under way is no checkpoint")
    wants_watermark = i64("1: somebody waits for durable_watermark to move; otherwise it does when nothing else is to be done")
    watermark_after_ns = i64("ns since flushed_ns after which a superblock is written as watermark all the same")
    flushed_ns = i64("ns, CLOCK_MONOTONIC: when the last flush returned")
    padded = i64("1: the batch under way ends with a PAD")
    volume_bytes = i64("bytes of the volume; NUMBER_MAX where a journal is made without one")
    pair = i64("identity of this journal and its volume together (label.py); 0: none")
    pair_generation = i64("times the two were tied, as the newest superblock says")
    labelled = i64("times the two were tied, as the volume's newest label says")
    walked = i64("position: what the records before it overwrite was kept for snapshots, if there are any")
    kept = i64("position: the same, and it is durable")
    walked_blocks = i64("blocks of the record at walked that were kept already: a trim may have many")


class Superblock(Row):
    """What a replica promises and where its replay begins. Two lie in front of the ring and are written in turn.

    The last four fields are zero in journals that were written before there were pairs.
    """

    magic = i64("SUPERBLOCK_MAGIC: FRWGOL")
    version = i64("of the records behind it: record_kernel.VERSION")
    generation = i64("counts superblocks; this one lies in block generation % 2")
    volume = i64("identity that replicas of one volume share")
    tail = i64("position where a replay begins: everything before it is durable in the volume")
    tail_sequence = i64("last sequence before tail")
    epoch = i64("the newest epoch promised")
    capacity_bytes = i64("bytes of the ring")
    tail_epoch = i64("epoch of the last record before tail; later ones follow in the log itself")
    flags = i64("1: the volume is a mixture of two times (INCONSISTENT)")
    durable_sequence = i64("durable when this was written: a replay that ends before it has met damage")
    staging_bytes = i64("no batch is larger; divides capacity_bytes")
    begun = i64("position where a resync began the log anew, otherwise -capacity_bytes")
    crc = i64("CRC32C over all fields before it")
    pair = i64("identity of journal and volume together; 0: none")
    pair_generation = i64("times the two were tied (Label.generation)")
    volume_bytes = i64("bytes of the volume without its label; NUMBER_MAX without a volume")
    pair_crc = i64("CRC32C over all fields before it")


class Found(Row):
    """What a scan of a journal has found: where the log ends, and why."""

    position = i64("position: the end of the log")
    sequence = i64("last sequence before it")
    count = i64("writes and trims from where the scan began")
    reason = i64("why it stopped there, a key of journal.END_REASONS")
    epoch = i64("epoch of the last record")
    damaged = i64("1: something durable stood behind the end")
    kind = i64("of the record that cannot be applied, where the scan stopped at one")
    address = i64("its byte offset in the volume")
    size = i64("bytes that it would change")


class Label(Row):
    """Which state of which journal a volume belongs to. Two lie behind the volume's data and are written in turn (label.py)."""

    magic = i64("LABEL_MAGIC: FRWVEL")
    version = i64("LABEL_VERSION: 1")
    generation = i64("times journal and volume were tied; this one lies in block generation % 2")
    pair = i64("identity of journal and volume together")
    volume = i64("identity that replicas of one volume share")
    volume_bytes = i64("bytes of the volume's data")
    sequence = i64("the journal has every write up to this one")
    crc = i64("CRC32C over all fields before it")


class Journal(NamedTuple):
    """The ring in memory and the positions in it."""

    at: np.ndarray  # Positions, one
    data: np.ndarray  # uint8, staging_bytes of them, page-aligned
    words: np.ndarray  # int64, the same memory
    headers: np.ndarray  # Header, the same memory, one every 64 bytes
    block: np.ndarray  # uint8, one block, page-aligned: what is written as superblock or label
    superblock: np.ndarray  # Superblock, one, at the beginning of block
    label: np.ndarray  # Label, one, at the beginning of block
    head: np.ndarray  # TableHead, one, in block behind the superblock
    begins: np.ndarray  # int64 by sequence modulo its size: where the record begins
    last_write: np.ndarray  # int64 by extent: sequence of the last write applied to it
    snapshots: snapshot.Snapshots
    room: rooms.Room


def journal_state(
    capacity_bytes: int, staging_bytes: int, volume: int, epoch: int, journal_fd: int, volume_fd: int, volume_bytes: int = 0,
    extent_bytes: int = EXTENT_BYTES_DEFAULT, begins: int = BEGINS, watermark_after_ns: int = WATERMARK_AFTER_NS_DEFAULT,
    snapshot_fd: int = -1, places: int = snapshot.PLACES, room: np.ndarray | None = None,
) -> Journal:  # fmt: skip
    """An empty Journal that begins at position 0. Without `snapshot_fd` no snapshot can be served from here.

    `room` is where the volume's room_kernel.Count lies, on a board that others read; its own memory unless given.
    """
    assert capacity_bytes % staging_bytes == 0
    assert staging_bytes % BLOCK_BYTES == 0
    data, block = aligned_bytes(staging_bytes), aligned_bytes(BLOCK_BYTES)
    made = Journal(
        rows_of(Positions), data, data.view(np.int64), data.view(record.Header.LAYOUT), block, superblock_in(block),
        label_in(block), head_in(block), np.zeros(begins, np.int64), np.zeros(-(-volume_bytes // extent_bytes), np.int64),
        snapshot.snapshots_state(volume_bytes, snapshot_fd, places), rooms.room_state(volume_bytes, extent_bytes, room),
    )  # fmt: skip
    at = made.at[0]
    at.capacity_bytes, at.staging_bytes = capacity_bytes, staging_bytes
    at.epoch = at.log_epoch = at.applied_epoch = at.checkpoint_epoch = epoch
    at.volume, at.volume_bytes = volume, volume_bytes or record.NUMBER_MAX
    at.journal_fd, at.volume_fd = journal_fd, volume_fd
    at.held, at.extent_bytes = EVERYTHING_SENT, extent_bytes
    at.begun, at.watermark_after_ns = -capacity_bytes, watermark_after_ns
    return made


def superblock_in(block: np.ndarray) -> np.ndarray:
    """The superblock at the beginning of a block of bytes: the same memory."""
    return block[: Superblock.LAYOUT.itemsize].view(Superblock.LAYOUT)


def head_in(block: np.ndarray) -> np.ndarray:
    """The head of the table of snapshots in a superblock's block: the same memory."""
    return block[snapshot.HEAD_AT : snapshot.HEAD_AT + snapshot.TableHead.LAYOUT.itemsize].view(snapshot.TableHead.LAYOUT)


def label_in(block: np.ndarray) -> np.ndarray:
    """The label at the beginning of a block of bytes: the same memory."""
    return block[: Label.LAYOUT.itemsize].view(Label.LAYOUT)


def begin_at(journal: Journal, position: int, sequence: int) -> None:
    """Go on at a position and after a sequence, everything before being durable and applied."""
    at = journal.at[0]
    at.tail = at.applied = at.durable_watermark = at.durable = at.sealed = at.staged = position
    at.checkpoint_position = at.saved = at.walked = at.kept = position
    at.tail_sequence = at.applied_sequence = at.durable_sequence = at.sealed_sequence = at.staged_sequence = sequence
    at.boundary_sequence = at.checkpoint_sequence = at.saved_sequence = at.known_since = sequence
    at.epoch_begin_sequence = sequence


@kernel()
def restart(journal, position, sequence, log_epoch):
    """begin_at() after a resync: the log goes on at `position` behind `sequence`, whose record was of `log_epoch`."""
    at = journal.at[0]
    at.tail = at.applied = at.durable = at.sealed = at.staged = at.checkpoint_position = position
    at.tail_sequence = at.applied_sequence = at.durable_sequence = at.sealed_sequence = sequence
    at.staged_sequence = at.boundary_sequence = at.checkpoint_sequence = at.known_since = sequence
    at.saved, at.saved_sequence = position, sequence
    at.begun = at.durable_watermark = at.walked = at.kept = position
    at.walked_blocks = 0
    at.log_epoch = at.applied_epoch = at.checkpoint_epoch = log_epoch
    journal.last_write[:] = 0


@kernel()
def pad_to_end(journal):
    """Bytes between the next record's place and the end of the ring."""
    at = journal.at[0]
    return at.staging_bytes - at.staged % at.staging_bytes


@kernel()
def is_placeable(journal, length):
    """Whether there is room for a record with this payload when nothing else is in the ring, wherever the ring then stands.

    Otherwise it might be waited for without end: a record that does not fit before the ring's end needs that rest as well, which
    is less than the record.
    """
    return 2 * record.record_bytes(length) + BLOCK_BYTES <= journal.at[0].staging_bytes


@kernel()
def has_room(journal, length):
    """Whether a record with this payload may be placed now, with what its batch's PAD may need."""
    at = journal.at[0]
    needed = record.record_bytes(length)
    to_end = pad_to_end(journal)
    if needed > to_end:
        needed += to_end
    needed += BLOCK_BYTES
    kept = min(at.applied, at.held)
    return at.staged + needed - kept <= at.staging_bytes and at.staged + needed - at.tail <= at.capacity_bytes


@kernel()
def place_pad(journal, size):
    """A PAD record of `size` bytes, header included, at the staged end; its address is the durable sequence of now."""
    at = journal.at[0]
    start = at.staged % at.staging_bytes
    record.seal(
        journal.data, journal.headers, start, record.PAD, size - record.HEADER_BYTES,
        at.staged_sequence, at.durable_sequence, at.epoch, at.volume, np.int64(0),
    )  # fmt: skip
    at.staged += size


@kernel()
def reserve(journal, length):
    """Where the next record with this payload will begin in the staging ring; nothing is staged before commit().

    The caller has asked has_room() first. A place that is not committed after all was never there. Nothing else is placed, and
    no batch sealed, between the two.
    """
    at = journal.at[0]
    needed = record.record_bytes(length)
    to_end = pad_to_end(journal)
    if needed > to_end:
        place_pad(journal, to_end)
        at.boundary_sequence = at.staged_sequence
    start = at.staged % at.staging_bytes

    assert start + needed <= at.staging_bytes
    assert at.staged + needed - at.applied <= at.staging_bytes
    return start


@kernel()
def commit(journal, start, length):
    """Stage the record that was reserved at `start`: from now on it is sent and flushed. Answers its sequence."""
    at = journal.at[0]
    assert start == at.staged % at.staging_bytes
    begin = at.staged
    at.staged += record.record_bytes(length)
    at.staged_sequence += 1
    journal.begins[at.staged_sequence % journal.begins.size] = begin
    if at.staged % at.staging_bytes == 0:
        at.boundary_sequence = at.staged_sequence
    at.user_bytes += length
    return at.staged_sequence


@kernel()
def place(journal, length):
    """Reserve and stage the next record at once; answers its start in the staging ring. Its bytes are still to be written."""
    start = reserve(journal, length)
    commit(journal, start, length)
    return start


@kernel()
def seal_batch(journal):
    """Close what is staged into one batch to be flushed; answers its bytes, 0 when nothing waits.

    The batch begins at the old `sealed` position, now at `sealed` less the bytes. It never crosses the ring's end: what lies
    behind the end is the next batch.
    """
    at = journal.at[0]
    begin = at.sealed
    if at.staged == begin:
        return np.int64(0)
    ring_end = (begin // at.staging_bytes + 1) * at.staging_bytes
    at.padded = 0
    if at.staged > ring_end:
        at.sealed = ring_end
        at.sealed_sequence = at.boundary_sequence
    else:
        rest = at.staged % BLOCK_BYTES
        if rest != 0:
            place_pad(journal, BLOCK_BYTES - rest)
            at.padded = 1
        at.sealed = at.staged
        at.sealed_sequence = at.staged_sequence

    assert at.sealed % BLOCK_BYTES == 0
    return at.sealed - begin


@kernel()
def note_durable(journal):
    """The flush of the sealed batch has returned."""
    at = journal.at[0]
    at.flush_count += 1
    at.flush_bytes += at.sealed - at.durable
    if at.padded and not is_first_pass(journal):
        note_watermark(journal, at.durable)
    at.durable = at.sealed
    at.durable_sequence = at.sealed_sequence


@kernel()
def is_first_pass(journal):
    """Whether PADs of another log may still stand where this one will: then they are no evidence, and only superblocks are."""
    return journal.at[0].durable < journal.at[0].begun + journal.at[0].capacity_bytes


@kernel()
def note_watermark(journal, position):
    """Something durable says that everything before `position` was."""
    at = journal.at[0]
    at.durable_watermark = max(at.durable_watermark, position)
    at.wants_watermark = 0


@kernel()
def wants_watermark(journal, is_flushing, now_ns):
    """Whether a superblock should vouch for what is durable: all is quiet, or somebody waits and no batch under way will do."""
    at = journal.at[0]
    if at.durable_watermark == at.durable:
        return False
    asked = at.wants_watermark != 0 and (not is_flushing or is_first_pass(journal))
    return asked or now_ns - at.flushed_ns > at.watermark_after_ns


@kernel()
def skip_pads(journal, position, limit):
    """The first position from here that is not a PAD, or `limit`."""
    at = journal.at[0]
    while position < limit:
        start = position % at.staging_bytes
        if record.kind_of(journal.headers, start) != record.PAD:
            break
        position += record.record_bytes(record.length_of(journal.headers, start))
    return position


@kernel()
def run_end(journal, position, limit, sequence_max):
    """The end of the unbroken run of writes up to `sequence_max` that begins at `position`: what one send may hand over."""
    at = journal.at[0]
    ring_end = (position // at.staging_bytes + 1) * at.staging_bytes
    while position < min(limit, ring_end):
        start = position % at.staging_bytes
        if record.kind_of(journal.headers, start) == record.PAD or record.sequence_of(journal.headers, start) > sequence_max:
            break
        position += record.record_bytes(record.length_of(journal.headers, start))
    return position


@kernel()
def note_written(journal, address, length, sequence):
    """The write of this sequence is in the volume now: its extents were last written by it."""
    extent_bytes = journal.at[0].extent_bytes
    for extent in range(address // extent_bytes, min((address + length - 1) // extent_bytes + 1, journal.last_write.size)):
        journal.last_write[extent] = sequence


@kernel()
def is_to_be_written(journal, extent):
    """Whether a write that is staged, and not yet in the volume, goes to this extent."""
    at = journal.at[0]
    position = at.applied
    while position < at.staged:
        start = position % at.staging_bytes
        if record.kind_of(journal.headers, start) != record.PAD:
            begin = record.address_of(journal.headers, start)
            end = begin + record.written_of(journal.headers, start)
            if begin < (extent + 1) * at.extent_bytes and end > extent * at.extent_bytes:
                return True
        position += record.record_bytes(record.length_of(journal.headers, start))
    return False


@kernel()
def begin_of(journal, sequence):
    """Where the record of `sequence` begins in the journal (`staged` for the next one), or -1 when that is no longer known."""
    at = journal.at[0]
    if sequence == at.staged_sequence + 1:
        return at.staged
    forgotten = sequence <= at.known_since or at.staged_sequence - sequence >= journal.begins.size
    if forgotten or sequence > at.staged_sequence:
        return np.int64(-1)
    begin = journal.begins[sequence % journal.begins.size]
    return begin if begin >= at.tail else np.int64(-1)


@kernel()
def note_applied(journal, position, sequence):
    """Everything before `position` is in the volume (not yet flushed there)."""
    journal.at[0].applied = position
    journal.at[0].applied_sequence = sequence


@kernel()
def wants_checkpoint(journal):
    """Whether a third of the ring has been staged since the last one, or little room is left, and one would help."""
    at = journal.at[0]
    due = at.staged - at.saved > at.capacity_bytes // 3 and at.applied > at.saved
    return due or (at.staged - at.tail > at.capacity_bytes // 4 * 3 and at.applied > at.tail)


@kernel()
def free_to_checkpoint(journal):
    """A superblock has become durable: move the tail to the checkpoint before it, which the other superblock tells of.

    So a replay may begin with either of the two, and damage to the newer one loses nothing.
    """
    at = journal.at[0]
    at.tail, at.tail_sequence = at.saved, at.saved_sequence
    at.saved, at.saved_sequence = at.checkpoint_position, at.checkpoint_sequence
    at.checkpoint_count += 1

    assert at.tail <= at.saved <= at.applied <= at.durable_watermark <= at.durable <= at.sealed <= at.staged
