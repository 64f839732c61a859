"""What both replicas do with their own disk: flush batches, apply to the volume, checkpoint.

These are the thin parts that hold system calls; where bytes go and what may be forgotten is journal_kernel's arithmetic.
Every function answers 0 or a negative status: -errno below 1000, or one of the names here.
"""

from __future__ import annotations

import numpy as np

from ..base.crc_kernel import crc32c
from ..base.host import reactor
from ..base.jit import kernel
from . import journal_kernel as log
from . import record_kernel as record
from . import room_kernel as room
from . import snapshot_kernel as snapshot

OK = 0
PEER_CLOSED = -1001  # The connection ended, or was reset, before we asked it to.
PEER_SILENT = -1002  # Nothing heard for the peer timeout.
BAD_FRAME = -1003  # What arrived is not what our peer may send; the connection is not to be believed any more.
SHORT_WRITE = -1004  # The disk took less than it was given.
STOPPED = -1005  # Asked to stop, and everything received is durable and applied.
INVALID_WRITE = -1006  # A write or trim that no replay could apply (record_kernel.is_applicable): it is not taken.
EIO = 5

APPLY_BYTES = 512 << 10  # Applied at most before looking at the socket again: about 0.1 ms of memory copy.

SUPERBLOCK_MAGIC = 0x4C4F47575246  # "FRWGOL"
# A journal of version 3 may hold SNAPSHOT and FORGET, so that an older farwrite does not read it; one of version 2 has none.
# Frames are of version 2 (record_kernel) either way.
JOURNAL_VERSION, JOURNAL_VERSION_LEAST = 3, 2
LABEL_MAGIC, LABEL_VERSION = 0x4C4556575246, 1  # "FRWVEL"
LABEL_BYTES = 2 * log.BLOCK_BYTES

# Where the checksums lie: what is in front of each is what it guards.
CRC_OFFSET, PAIR_CRC_OFFSET = (log.Superblock.LAYOUT.fields[name][1] for name in ("crc", "pair_crc"))
LABEL_CRC_OFFSET = log.Label.LAYOUT.fields["crc"][1]


@kernel()
def is_from_disk(status):
    """Whether a status is what the disk has answered: then nothing that this replica keeps can be relied on any more."""
    return status == SHORT_WRITE or PEER_CLOSED < status < 0


@kernel()
def begin_flush(journal, ring):
    """Start making durable what is staged, unless a flush is under way: group commit."""
    if ring.state[reactor.JOURNAL] != reactor.IDLE:
        return
    size = log.seal_batch(journal)
    if size == 0:
        return
    at = journal.at[0]
    begin = at.sealed - size
    offset = log.SUPERBLOCK_BYTES + begin % at.capacity_bytes
    reactor.begin_write(
        ring, reactor.JOURNAL, at.journal_fd, journal.data, begin % at.staging_bytes, size, offset
    )


@kernel()
def end_flush(journal, ring):
    """Take note of a flush that has returned. Nothing counts as durable before this says so."""
    if reactor.finished(ring, reactor.JOURNAL):
        written = ring.result[reactor.JOURNAL]
        if written < 0:
            return written
        if written != journal.at[0].sealed - journal.at[0].durable:
            return np.int64(SHORT_WRITE)
        log.note_durable(journal)
        journal.at[0].flushed_ns = reactor.now_ns(ring)
    return np.int64(OK)


@kernel()
def apply(journal, ring, bytes_max):
    """Copy records that a durable watermark covers into the volume, in order, about `bytes_max` of them.

    What they overwrite is kept before, if there are snapshots; a SNAPSHOT or FORGET is the last one in its turn.
    """
    at = journal.at[0]
    snapshot.work(journal, ring)
    status = np.int64(OK)
    limit = snapshot.apply_limit(journal)
    position = at.applied
    sequence = at.applied_sequence
    stop = min(limit, position + bytes_max)
    while position < stop:
        start = position % at.staging_bytes
        length = record.length_of(journal.headers, start)
        if position + record.record_bytes(length) > limit:
            break
        kind = record.kind_of(journal.headers, start)
        if record.is_marker(kind):
            if snapshot.note_marker(journal.snapshots, journal.data, journal.headers, start):
                sequence = record.sequence_of(journal.headers, start)
                at.applied_epoch = record.epoch_of(journal.headers, start)
                position += record.record_bytes(length)
                snapshot.begin_keeping(journal, position)
            break
        if kind != record.PAD:
            address = record.address_of(journal.headers, start)
            if kind == record.TRIM:
                size = record.trimmed_of(journal.headers, start)
                status = np.int64(reactor.trim_volume(ring, at.volume_fd, address, size))
                if status < 0:
                    break
                room.note_trimmed(journal, ring, address, size)
            else:
                size = length
                written = reactor.write_volume(
                    ring, at.volume_fd, journal.data, start + record.HEADER_BYTES, length, address
                )
                if written < 0:
                    status = written
                    break
                if written != length:
                    status = np.int64(SHORT_WRITE)
                    break
                room.note_written(journal.room, at.extent_bytes, address, size)
            sequence = record.sequence_of(journal.headers, start)
            at.applied_epoch = record.epoch_of(journal.headers, start)
            log.note_written(journal, address, size, sequence)
        position += record.record_bytes(length)
    log.note_applied(journal, position, sequence)
    if journal.snapshots.at[0].used > 0 or journal.room.at[0].kept > 0:
        room.note_kept(journal)
    return status


@kernel()
def appliable(journal):
    """Whether apply() would find a whole record: then this is no time to sleep."""
    position, limit = journal.at[0].applied, snapshot.apply_limit(journal)
    if position >= limit:
        return False
    if position + record.record_bytes(record.length_of(journal.headers, position % journal.at[0].staging_bytes)) > limit:
        return False
    return not snapshot.waits_for_place(journal)


@kernel()
def is_busy(journal, ring):
    """Whether the next turn has something to do with the disk that no event will announce: then this is no time to sleep."""
    return appliable(journal) or snapshot.has_work(journal, ring)


@kernel()
def checksum_before(block, offset):
    """CRC32C over the bytes of a superblock or label in front of the field at `offset`."""
    return np.int64(crc32c(np.int64(0), block, np.int64(0), np.int64(offset)))


@kernel()
def seal_superblock(block, superblock):
    """Give the superblock at the beginning of `block` its checksums; answers the file offset where it belongs."""
    superblock.crc = checksum_before(block, CRC_OFFSET)
    superblock.pair_crc = checksum_before(block, PAIR_CRC_OFFSET)
    return superblock.generation % 2 * log.BLOCK_BYTES


@kernel()
def fill_superblock(journal):
    """The next superblock, in journal.block; answers the file offset where it belongs."""
    at = journal.at[0]
    at.generation += 1
    at.watermark_in_flight = at.durable
    journal.block[:] = 0
    superblock = journal.superblock[0]
    superblock.magic, superblock.version = SUPERBLOCK_MAGIC, JOURNAL_VERSION
    superblock.generation = at.generation
    superblock.volume = at.volume
    superblock.tail, superblock.tail_sequence = at.checkpoint_position, at.checkpoint_sequence
    superblock.epoch = at.epoch
    superblock.capacity_bytes, superblock.staging_bytes = at.capacity_bytes, at.staging_bytes
    superblock.tail_epoch = at.checkpoint_epoch
    superblock.flags = at.flags
    superblock.durable_sequence = at.durable_sequence
    superblock.begun = at.begun
    at.pair_generation = at.labelled
    superblock.pair, superblock.pair_generation = at.pair, at.pair_generation
    superblock.volume_bytes = at.volume_bytes
    snapshot.fill_table(journal.snapshots, journal.block, journal.head[0], at.generation, at.applied_sequence)
    return seal_superblock(journal.block, superblock)


@kernel()
def label_offset(volume_bytes, generation):
    """Where the label of this generation lies in the volume's file."""
    return (volume_bytes + log.BLOCK_BYTES - 1) // log.BLOCK_BYTES * log.BLOCK_BYTES + generation % 2 * log.BLOCK_BYTES


@kernel()
def write_label(journal, ring, sequence):
    """Begin the pair's next generation, in the volume first, not yet durable. 0 or a status; nothing is done without a pair.

    The flush of the volume that must follow makes the label durable, and the superblock behind that tells of the same
    generation. So the label is of the journal's generation, or of the next one when the power went out in between. `sequence`
    is that of a write up to which the journal has every one, before and after that superblock. No superblock may be under
    way: its memory is used, and it would tell of a label that is not durable.
    """
    at = journal.at[0]
    if at.pair == 0:
        return np.int64(OK)
    first = at.pair_generation + 1
    at.labelled = first
    journal.block[:] = 0
    label = journal.label[0]
    label.magic, label.version = LABEL_MAGIC, LABEL_VERSION
    label.generation, label.pair = first, at.pair
    label.volume, label.volume_bytes = at.volume, at.volume_bytes
    label.sequence = sequence
    label.crc = checksum_before(journal.block, LABEL_CRC_OFFSET)
    # The first label goes into both blocks: one of the pair before this one must not outlive it.
    for generation in range(first, first + (2 if first == 1 else 1)):
        written = reactor.write_volume(
            ring, at.volume_fd, journal.block, np.int64(0), np.int64(log.BLOCK_BYTES),
            label_offset(at.volume_bytes, generation),
        )  # fmt: skip
        if written != log.BLOCK_BYTES:
            return written if written < 0 else np.int64(SHORT_WRITE)
    return np.int64(OK)


@kernel()
def save(journal, ring):
    """Make epoch and flags durable in both superblocks, so that no damage to one leads back before them. 0 or a status.

    For what a replica promises: it waits for the disk. No checkpoint may be under way.
    """
    for _ in range(2):
        offset = fill_superblock(journal)
        written = reactor.write_now(
            ring, journal.at[0].journal_fd, journal.block, np.int64(0), np.int64(log.BLOCK_BYTES), offset
        )
        if written != log.BLOCK_BYTES:
            return written if written < 0 else np.int64(SHORT_WRITE)
        log.note_watermark(journal, journal.at[0].watermark_in_flight)
    journal.snapshots.at[0].dirty = 0
    return np.int64(OK)


@kernel()
def begin_superblock(journal, ring, watermark_only):
    """Start writing the next superblock: as a checkpoint, or to vouch for what is durable and nothing else."""
    journal.at[0].watermark_only = watermark_only
    snapshot.note_saving(journal.snapshots)
    offset = fill_superblock(journal)
    reactor.begin_write(
        ring, reactor.SUPERBLOCK, journal.at[0].journal_fd, journal.block, np.int64(0), np.int64(log.BLOCK_BYTES), offset
    )


@kernel()
def checkpoint(journal, ring):
    """Move one step along: volume labelled and flushed, superblock durable, the journal's tail free. Or vouch, in between."""
    at = journal.at[0]
    if reactor.finished(ring, reactor.VOLUME):
        if ring.result[reactor.VOLUME] < 0:
            return ring.result[reactor.VOLUME]
        begin_superblock(journal, ring, 0)
    if reactor.finished(ring, reactor.SUPERBLOCK):
        written = ring.result[reactor.SUPERBLOCK]
        if written != log.BLOCK_BYTES:
            return written if written < 0 else np.int64(SHORT_WRITE)
        log.note_watermark(journal, at.watermark_in_flight)
        snapshot.note_saved(journal.snapshots)
        if not at.watermark_only:
            log.free_to_checkpoint(journal)
    idle = ring.state[reactor.VOLUME] == reactor.IDLE and ring.state[reactor.SUPERBLOCK] == reactor.IDLE
    if idle and journal.snapshots.at[0].dirty > 0:
        begin_superblock(journal, ring, 1)
    elif idle and log.wants_checkpoint(journal):
        at.checkpoint_position = at.applied
        at.checkpoint_sequence = at.applied_sequence
        at.checkpoint_epoch = at.applied_epoch
        status = write_label(journal, ring, at.applied_sequence)
        if status < 0:
            return status
        reactor.begin_sync(ring, reactor.VOLUME, at.volume_fd)
    elif idle and log.wants_watermark(journal, ring.state[reactor.JOURNAL] != reactor.IDLE, reactor.now_ns(ring)):
        begin_superblock(journal, ring, 1)
    return np.int64(OK)


@kernel()
def settle_turn(journal, ring):
    """One turn of settle(), without sleeping: 1 when there is more to do, 0 when nothing is left, or a status."""
    status = end_flush(journal, ring)
    if status < 0:
        return status
    begin_flush(journal, ring)
    status = apply(journal, ring, np.int64(APPLY_BYTES))
    if status < 0:
        return status
    if ring.state[reactor.JOURNAL] != reactor.IDLE or appliable(journal):
        return np.int64(1)
    # A flush that failed before we were called is not tried again.
    if journal.at[0].durable < journal.at[0].sealed:
        return np.int64(-EIO)
    if journal.at[0].durable_watermark == journal.at[0].durable and is_all_kept(journal):
        return np.int64(OK)
    if journal.at[0].durable_watermark < journal.at[0].durable:
        journal.at[0].wants_watermark = 1
    status = checkpoint(journal, ring)
    return status if status < 0 else np.int64(1)


@kernel()
def is_all_kept(journal):
    """Whether nothing is left that snapshots hold up: all that a watermark covers is applied, and the table is saved."""
    return journal.snapshots.at[0].dirty == 0 and (
        journal.snapshots.at[0].used == 0 or journal.at[0].applied == journal.at[0].durable_watermark
    )


@kernel()
def drained(ring):
    """Wait until nothing is under way; 0, or what the disk has answered to a superblock or a flush: nobody asks later."""
    status = reactor.drain(ring)
    for slot in (reactor.SUPERBLOCK, reactor.VOLUME):
        if status == OK and ring.state[slot] == reactor.FINISHED:
            status = min(ring.result[slot], np.int64(OK))
    return status


@kernel(allocates=True)
def settle(journal, ring):
    """Flush everything that is staged and apply it, waiting as long as the disk takes. For the end of a run.

    -EIO once somebody has given the disk up (Ring.abandoned).
    """
    nobody = np.full(1, -1, np.int64)
    while True:
        if ring.at[0].abandoned != 0:
            return np.int64(-EIO)
        status = settle_turn(journal, ring)
        if status < 0:
            return status
        if status == OK:
            status = drained(ring)
            snapshot.end_keeping(journal, ring)
            return status
        more = is_busy(journal, ring)
        answer = reactor.wait(ring, nobody, np.int64(0), np.int64(0 if more else 10_000_000))
        if answer < 0:
            return answer
