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
# magic, version, generation, volume, tail, tail sequence, epoch, capacity, epoch of the record before the tail, flags, durable
# sequence, staging, where the log was begun anew, crc32c over those; then pair, generation of the pair, bytes of the volume,
# crc32c over all before it. The last four are zero in journals that were written before there were pairs.
SUPERBLOCK_WORDS = 18
SUPERBLOCK_CRC, SUPERBLOCK_PAIR, SUPERBLOCK_PAIR_GENERATION, SUPERBLOCK_VOLUME_BYTES, SUPERBLOCK_PAIR_CRC = range(13, 18)

# A volume's label lies behind its data, in two blocks that are written in turn: one is always whole. It tells which state of
# which journal the volume belongs to (label.py). magic, version, generation of the pair, pair, volume, bytes of the volume,
# sequence up to which the journal has every write, crc32c over those.
LABEL_MAGIC, LABEL_VERSION = 0x4C4556575246, 1  # "FRWVEL"
LABEL_GENERATION, LABEL_PAIR, LABEL_VOLUME, LABEL_VOLUME_BYTES, LABEL_SEQUENCE, LABEL_CRC, LABEL_WORDS = range(2, 9)
LABEL_BYTES = 2 * log.BLOCK_BYTES


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
    at = journal.at
    begin = at[log.SEALED] - size
    offset = log.SUPERBLOCK_BYTES + begin % at[log.CAPACITY]
    reactor.begin_write(
        ring, reactor.JOURNAL, at[log.JOURNAL_FD], journal.data, begin % at[log.STAGING], size, offset
    )


@kernel()
def end_flush(journal, ring):
    """Take note of a flush that has returned. Nothing counts as durable before this says so."""
    if reactor.finished(ring, reactor.JOURNAL):
        written = ring.result[reactor.JOURNAL]
        if written < 0:
            return written
        if written != journal.at[log.SEALED] - journal.at[log.DURABLE]:
            return np.int64(SHORT_WRITE)
        log.note_durable(journal)
        journal.at[log.FLUSHED_NS] = reactor.now_ns(ring)
    return np.int64(OK)


@kernel()
def apply(journal, ring, bytes_max):
    """Copy records that are vouched for into the volume, in order, about `bytes_max` of them."""
    at = journal.at
    limit = at[log.VOUCHED]
    position = at[log.APPLIED]
    sequence = at[log.APPLIED_SEQUENCE]
    stop = min(limit, position + bytes_max)
    status = np.int64(OK)
    while position < stop:
        start = position % at[log.STAGING]
        length = record.length_of(journal.words, start)
        if position + record.record_bytes(length) > limit:
            break
        kind = record.kind_of(journal.words, start)
        if kind != record.PAD:
            address = record.address_of(journal.words, start)
            if kind == record.TRIM:
                size = record.trimmed_of(journal.words, start)
                status = np.int64(reactor.trim_volume(ring, at[log.VOLUME_FD], address, size))
                if status < 0:
                    break
            else:
                size = length
                written = reactor.write_volume(
                    ring, at[log.VOLUME_FD], journal.data, start + record.HEADER_BYTES, length, address
                )
                if written < 0:
                    status = written
                    break
                if written != length:
                    status = np.int64(SHORT_WRITE)
                    break
            sequence = record.sequence_of(journal.words, start)
            at[log.APPLIED_EPOCH] = record.epoch_of(journal.words, start)
            log.note_written(journal, address, size, sequence)
        position += record.record_bytes(length)
    log.note_applied(journal, position, sequence)
    return status


@kernel()
def appliable(journal):
    """Whether apply() would find a whole record: then this is no time to sleep."""
    position, limit = journal.at[log.APPLIED], journal.at[log.VOUCHED]
    if position >= limit:
        return False
    return position + record.record_bytes(record.length_of(journal.words, position % journal.at[log.STAGING])) <= limit


@kernel()
def checksum_of_words(block, count):
    """CRC32C over the first words of a superblock or label."""
    return np.int64(crc32c(np.int64(0), block, np.int64(0), np.int64(8) * count))


@kernel()
def superblock_checksum(block):
    """CRC32C over the words of a superblock in front of its checksum."""
    return checksum_of_words(block, np.int64(SUPERBLOCK_CRC))


@kernel()
def seal_superblock(block):
    """Give a superblock its checksums; answers the file offset where it belongs, because the two are written in turn."""
    words = block.view(np.int64)
    words[SUPERBLOCK_CRC] = superblock_checksum(block)
    words[SUPERBLOCK_PAIR_CRC] = checksum_of_words(block, np.int64(SUPERBLOCK_PAIR_CRC))
    return (words[2] % 2) * log.BLOCK_BYTES


@kernel()
def fill_superblock(journal):
    """The next superblock, in journal.superblock; answers the file offset where it belongs."""
    at = journal.at
    at[log.GENERATION] += 1
    at[log.VOUCHING] = at[log.DURABLE]
    words = journal.superblock.view(np.int64)
    words[:] = 0
    words[0] = SUPERBLOCK_MAGIC
    words[1] = record.VERSION
    words[2] = at[log.GENERATION]
    words[3] = at[log.VOLUME]
    words[4] = at[log.CHECKPOINT_POSITION]
    words[5] = at[log.CHECKPOINT_SEQUENCE]
    words[6] = at[log.EPOCH]
    words[7] = at[log.CAPACITY]
    words[8] = at[log.CHECKPOINT_EPOCH]  # Where a replay begins: later epochs follow in the log itself.
    words[9] = at[log.FLAGS]
    words[10] = at[log.DURABLE_SEQUENCE]  # A replay that ends before it has met damage, not the end.
    words[11] = at[log.STAGING]  # No batch is larger.
    words[12] = at[log.BEGUN]
    at[log.PAIR_GENERATION] = at[log.LABELLED]
    words[SUPERBLOCK_PAIR] = at[log.PAIR]
    words[SUPERBLOCK_PAIR_GENERATION] = at[log.PAIR_GENERATION]
    words[SUPERBLOCK_VOLUME_BYTES] = at[log.VOLUME_BYTES]
    return seal_superblock(journal.superblock)


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
    at = journal.at
    if at[log.PAIR] == 0:
        return np.int64(OK)
    first = at[log.PAIR_GENERATION] + 1
    at[log.LABELLED] = first
    words = journal.superblock.view(np.int64)
    words[:] = 0
    words[0], words[1] = LABEL_MAGIC, LABEL_VERSION
    words[LABEL_GENERATION], words[LABEL_PAIR] = first, at[log.PAIR]
    words[LABEL_VOLUME], words[LABEL_VOLUME_BYTES] = at[log.VOLUME], at[log.VOLUME_BYTES]
    words[LABEL_SEQUENCE] = sequence
    words[LABEL_CRC] = checksum_of_words(journal.superblock, np.int64(LABEL_CRC))
    # The first label goes into both blocks: one of the pair before this one must not outlive it.
    for generation in range(first, first + (2 if first == 1 else 1)):
        written = reactor.write_volume(
            ring, at[log.VOLUME_FD], journal.superblock, np.int64(0), np.int64(log.BLOCK_BYTES),
            label_offset(at[log.VOLUME_BYTES], generation),
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
            ring, journal.at[log.JOURNAL_FD], journal.superblock, np.int64(0), np.int64(log.BLOCK_BYTES), offset
        )
        if written != log.BLOCK_BYTES:
            return written if written < 0 else np.int64(SHORT_WRITE)
        log.note_vouched(journal, journal.at[log.VOUCHING])
    return np.int64(OK)


@kernel()
def begin_superblock(journal, ring, vouches_only):
    """Start writing the next superblock: as a checkpoint, or to vouch for what is durable and nothing else."""
    journal.at[log.VOUCHES_ONLY] = vouches_only
    offset = fill_superblock(journal)
    reactor.begin_write(
        ring, reactor.SUPERBLOCK, journal.at[log.JOURNAL_FD], journal.superblock, np.int64(0), np.int64(log.BLOCK_BYTES), offset
    )


@kernel()
def checkpoint(journal, ring):
    """Move one step along: volume labelled and flushed, superblock durable, the journal's tail free. Or vouch, in between."""
    at = journal.at
    if reactor.finished(ring, reactor.VOLUME):
        if ring.result[reactor.VOLUME] < 0:
            return ring.result[reactor.VOLUME]
        begin_superblock(journal, ring, 0)
    if reactor.finished(ring, reactor.SUPERBLOCK):
        written = ring.result[reactor.SUPERBLOCK]
        if written != log.BLOCK_BYTES:
            return written if written < 0 else np.int64(SHORT_WRITE)
        log.note_vouched(journal, at[log.VOUCHING])
        if not at[log.VOUCHES_ONLY]:
            log.free_to_checkpoint(journal)
    idle = ring.state[reactor.VOLUME] == reactor.IDLE and ring.state[reactor.SUPERBLOCK] == reactor.IDLE
    if idle and log.wants_checkpoint(journal):
        at[log.CHECKPOINT_POSITION] = at[log.APPLIED]
        at[log.CHECKPOINT_SEQUENCE] = at[log.APPLIED_SEQUENCE]
        at[log.CHECKPOINT_EPOCH] = at[log.APPLIED_EPOCH]
        status = write_label(journal, ring, at[log.APPLIED_SEQUENCE])
        if status < 0:
            return status
        reactor.begin_sync(ring, reactor.VOLUME, at[log.VOLUME_FD])
    elif idle and log.wants_vouch(journal, ring.state[reactor.JOURNAL] != reactor.IDLE, reactor.now_ns(ring)):
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
    if journal.at[log.DURABLE] < journal.at[log.SEALED]:
        return np.int64(-EIO)
    if journal.at[log.VOUCHED] == journal.at[log.DURABLE]:
        return np.int64(OK)
    journal.at[log.WANTS_VOUCH] = 1
    status = checkpoint(journal, ring)
    return status if status < 0 else np.int64(1)


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
    """Flush everything that is staged and apply it, waiting as long as the disk takes. For the end of a run."""
    nobody = np.full(1, -1, np.int64)
    while True:
        status = settle_turn(journal, ring)
        if status < 0:
            return status
        if status == OK:
            return drained(ring)
        more = appliable(journal)
        answer = reactor.wait(ring, nobody, np.int64(0), np.int64(0 if more else 10_000_000))
        if answer < 0:
            return answer
