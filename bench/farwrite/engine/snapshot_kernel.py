"""Snapshots of one replica's volume: old blocks are put aside before the log is applied over them, never while a write waits.

A snapshot is a SNAPSHOT record in the log: the volume as everything before it has left it. Applied, it gets a *place* in a table
that every superblock carries, and `work` walks the log ahead of `apply`: what a record is about to change, and the newest
snapshot does not have yet, is copied from the volume to that snapshot's place. Only once the copy is durable may the record be
applied, so the log's positions are, while there are snapshots,

    applied <= kept <= walked <= durable_watermark

All places of a replica are one sparse file, behind a block that tells which replica's. Block b of the volume lies in a place at
b * 4096; behind the blocks stands an entry for each: its CRC32C, and a tag that tells the snapshot. A block of zeros has an entry
and takes no room. To read a snapshot is to look in its own place, then in that of the next newer one, and so on, and last in the
volume as it is applied.

The table changes only where `apply` stands, and nothing is kept, applied or given back before both superblocks tell of a change.
So whatever superblock a replay begins with: what the records up to its `applied` overwrote is kept, and behind a SNAPSHOT that
its table does not tell of nothing has been overwritten. A disk that refuses to keep a block costs the snapshots, never the
volume: they are given up on this replica, all that share the block. Decision 0052.

`journal` is a journal_kernel.Journal. Steps and what they ask of the disk; who waits for it is replica_kernel's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..base.crc_kernel import crc32c
from ..base.host import libc, reactor
from ..base.host.disk import BLOCK_BYTES
from ..base.host.libc import aligned_bytes, lazy_bytes
from ..base.jit import kernel
from ..base.row import Row, i64, rows_of
from . import record_kernel as record

PLACES = 32  # Half of them at most are listed; the other half may still be being emptied.
ENTRY_BYTES = 8
HEAD_AT, TABLE_AT = 472, 512  # In a superblock's block, whose first bytes are the superblock's.

# What a place holds (Entry.state).
FREE, WHOLE, GIVEN_UP, LEAVING, EMPTYING = range(5)

MADE = 1 << 31  # In every tag: zeros are no entry.
BLOCKS_A_TURN = 128  # Looked at, and kept, in one turn of the loop: half a MiB, as much as is applied.
MOVED_A_TURN = 64  # Blocks of a deleted snapshot that are moved to the older one in one turn.
PASSED_A_TURN = 1 << 18  # Blocks without anything kept that are passed over in one turn: 32 KiB of bits, 1 GiB of volume.
EMPTIED_A_TURN = 1024  # Blocks whose room is given back in one turn, if anything is kept of them; a multiple of 8.
OK, EIO = 0, 5


class Entry(Row):
    """One place of the table, as it stands behind a superblock. Zeros: the place is free."""

    sequence = i64("of the SNAPSHOT record")
    epoch = i64("of that record")
    taken_ns = i64("ns, CLOCK_REALTIME of the primary that took it")
    state = i64(
        "1 WHOLE; 2 GIVEN_UP: there is such a snapshot, and this replica cannot serve it; 3 LEAVING: deleted, its blocks move to "
        "the older one; 4 EMPTYING: deleted, its room is given back"
    )
    name_bytes = i64("bytes of its name")
    name_0 = i64("bytes 0 to 7 of the name, UTF-8")
    name_1 = i64("bytes 8 to 15")
    name_2 = i64("bytes 16 to 23")
    name_3 = i64("bytes 24 to 31")
    name_4 = i64("bytes 32 to 39")
    name_5 = i64("bytes 40 to 47")
    name_6 = i64("bytes 48 to 55")
    name_7 = i64("bytes 56 to 63")


class TableHead(Row):
    """What stands before the table of snapshots behind a superblock."""

    generation = i64("of the superblock: otherwise the table belongs to another one, and neither is whole")
    as_of = i64("sequence: the table tells of every SNAPSHOT and FORGET up to here")
    applied = i64("sequence: applied then, so that what every write up to here has overwritten is kept and durable")
    count = i64("places that follow")
    crc = i64("CRC32C over the fields before it and over the places")


class Keeping(Row):
    """What a replica knows of its snapshots together."""

    fd = i64("descriptor of the file that all places lie in; -1: none, and every snapshot is given up here")
    blocks = i64("blocks of the volume, the last one may be a part")
    stride = i64("bytes of a place: its blocks, then its entries")
    volume_bytes = i64("bytes of the volume")
    listed_max = i64("snapshots that there may be; a SNAPSHOT beyond is none")
    used = i64("places that are not free")
    count = i64("places in order")
    newest = i64("index in order of the newest whole one, -1: none")
    todo = i64("places that are to be moved or emptied")
    dirty = i64("superblocks to be durable until both tell of the table")
    saving = i64("1: the superblock under way tells of it")
    as_of = i64("sequence: a SNAPSHOT or FORGET up to here is in the table, also where the log is still to tell of it")
    barrier = i64("position: a SNAPSHOT or FORGET ends here; nothing behind is walked before it is applied")
    written = i64("writes among what is kept, ever")
    flushing = i64("how many of them the flush under way, or the last, covers")
    flushed = i64("how many of them are durable")
    keeping = i64("position: what kept becomes once the flush under way is over")
    tending = i64("place that is being moved or emptied, -1: none")
    cursor = i64("its next block")
    awaited = i64("writes that must be durable before it goes on; 0: none")
    given_up = i64("snapshots that were given up on this replica")
    moved = i64("blocks that were moved to an older snapshot")
    kept_ever = i64("blocks that were kept")


class Snapshots(NamedTuple):
    """The table, and which blocks are kept where."""

    at: np.ndarray  # Keeping, one
    table: np.ndarray  # Entry, by place
    words: np.ndarray  # int64, the same memory
    data: np.ndarray  # uint8, the same memory
    order: np.ndarray  # int64: places that are read from, the oldest snapshot first
    bits: np.ndarray  # uint8, place x bytes: which blocks are kept there
    kept: np.ndarray  # int64 by place: how many
    block: np.ndarray  # uint8, one block, page-aligned: what is being kept or moved
    block_words: np.ndarray  # int64, the same memory
    other: np.ndarray  # uint8, another
    entry: np.ndarray  # uint32, one entry: CRC32C, tag
    entry_bytes: np.ndarray  # uint8, the same memory


ROW_BYTES = Entry.LAYOUT.itemsize
ENTRY_WORDS = ROW_BYTES // 8
TABLE_BYTES = PLACES * ROW_BYTES
HEAD_CRC_OFFSET = TableHead.LAYOUT.fields["crc"][1]  # type: ignore[index]
ZERO_CRC = int(crc32c(np.int64(0), np.zeros(BLOCK_BYTES, np.uint8), np.int64(0), np.int64(BLOCK_BYTES)))
assert HEAD_AT + TableHead.LAYOUT.itemsize <= TABLE_AT and TABLE_AT + TABLE_BYTES <= BLOCK_BYTES


def stride_of(volume_bytes: int) -> int:
    """Bytes of a place of a volume of this size."""
    blocks = -(-volume_bytes // BLOCK_BYTES)
    return (blocks + -(-blocks * ENTRY_BYTES // BLOCK_BYTES)) * BLOCK_BYTES


def file_bytes_max(volume_bytes: int, places: int) -> int:
    """The end of the last place in the file."""
    return BLOCK_BYTES + places * stride_of(volume_bytes)


def snapshots_state(volume_bytes: int, fd: int = -1, places: int = PLACES) -> Snapshots:
    """No snapshots yet. `volume_bytes` 0: of a journal without a volume."""
    assert 0 < places <= PLACES
    table, entry = rows_of(Entry, places), np.zeros(2, np.uint32)
    blocks = -(-volume_bytes // BLOCK_BYTES)
    block, other = aligned_bytes(BLOCK_BYTES), aligned_bytes(BLOCK_BYTES)
    made = Snapshots(
        rows_of(Keeping), table, table.view(np.int64), table.view(np.uint8), np.zeros(places, np.int64),
        lazy_bytes(places, -(-blocks // 8)), np.zeros(places, np.int64), block, block.view(np.int64), other, entry,
        entry.view(np.uint8),
    )  # fmt: skip
    at = made.at[0]
    at.fd, at.blocks, at.stride, at.volume_bytes = fd, blocks, stride_of(volume_bytes), volume_bytes
    at.listed_max, at.newest, at.tending = places // 2, -1, -1
    return made


# The table


@kernel()
def is_listed(state):
    """Whether a snapshot in this state is one that people see."""
    return state in (WHOLE, GIVEN_UP)


@kernel()
def is_kept(snapshots, place, block):
    """Whether this block is kept at this place."""
    return np.int64(snapshots.bits[place, block >> 3]) >> (block & 7) & 1 != 0


@kernel()
def arrange(snapshots):
    """Bring what follows from the table up to date: the order in which places are read, how many are used and to be tended."""
    at = snapshots.at[0]
    at.used = at.count = at.todo = 0
    at.newest = -1
    for place in range(snapshots.table.size):
        row = snapshots.table[place]
        if row.state != FREE:
            at.used += 1
        if row.state == LEAVING or row.state == EMPTYING or (row.state == GIVEN_UP and snapshots.kept[place] > 0):
            at.todo += 1
        if row.state == WHOLE or row.state == LEAVING:
            index = at.count
            while index > 0 and snapshots.table[snapshots.order[index - 1]].sequence > row.sequence:
                snapshots.order[index] = snapshots.order[index - 1]
                index -= 1
            snapshots.order[index] = place
            at.count += 1
    for index in range(at.count):
        if snapshots.table[snapshots.order[index]].state == WHOLE:
            at.newest = index


@kernel()
def note_change(snapshots):
    """The table has changed: nothing goes on before both superblocks tell of it."""
    snapshots.at[0].dirty = 2
    snapshots.at[0].saving = 0
    arrange(snapshots)


@kernel()
def index_of(snapshots, place):
    """Where this place is in the order, -1: nowhere."""
    for index in range(snapshots.at[0].count):
        if snapshots.order[index] == place:
            return np.int64(index)
    return np.int64(-1)


@kernel()
def place_of(snapshots, sequence):
    """The place of the listed snapshot with this sequence, or -1."""
    for place in range(snapshots.table.size):
        if snapshots.table[place].sequence == sequence and is_listed(snapshots.table[place].state):
            return np.int64(place)
    return np.int64(-1)


@kernel()
def free_place(snapshots):
    """The first place that is free, or -1."""
    for place in range(snapshots.table.size):
        if snapshots.table[place].state == FREE:
            return np.int64(place)
    return np.int64(-1)


@kernel()
def is_later_leaving(snapshots, sequence):
    """Whether a deleted snapshot with a later sequence still has blocks here: one of a tail that was rolled back.

    It was taken before what comes now, and places are read and emptied in the order of their sequences.
    """
    for place in range(snapshots.table.size):
        row = snapshots.table[place]
        if row.state == LEAVING and row.sequence >= sequence:
            return True
    return False


@kernel()
def count_listed(snapshots):
    """How many snapshots there are."""
    count = np.int64(0)
    for place in range(snapshots.table.size):
        count += 1 if is_listed(snapshots.table[place].state) else 0
    return count


@kernel()
def forget(snapshots, place):
    """Delete the snapshot at this place: its blocks go to the next older one, or nowhere when there is none."""
    row = snapshots.table[place]
    row.state = LEAVING if row.state == WHOLE and index_of(snapshots, place) > 0 else EMPTYING
    snapshots.at[0].tending = -1
    note_change(snapshots)


@kernel()
def give_up(snapshots, index):
    """The place at this index of the order cannot keep a block that is to be kept: it is lost, and so is every older one."""
    at = snapshots.at[0]
    for older in range(index + 1):
        row = snapshots.table[snapshots.order[older]]
        at.given_up += row.state == WHOLE
        row.state = GIVEN_UP if row.state == WHOLE else EMPTYING
    at.tending = -1
    note_change(snapshots)


@kernel()
def give_up_all(snapshots):
    """Nothing that is kept here can be relied on any more."""
    if snapshots.at[0].count > 0:
        give_up(snapshots, snapshots.at[0].count - 1)


@kernel()
def note_marker(snapshots, data, headers, start):
    """Do what the SNAPSHOT or FORGET at `start` says, everything before it being applied. False when it has no place yet.

    A copy of extents has made the volume whole before a SNAPSHOT behind `as_of` comes.
    """
    at = snapshots.at[0]
    sequence = record.sequence_of(headers, start)
    if sequence <= at.as_of:
        return True  # The table that was read, or told, has it.
    if record.kind_of(headers, start) == record.FORGET:
        place = place_of(snapshots, record.extra_of(headers, start))
        if place >= 0:
            forget(snapshots, place)
        return True
    if count_listed(snapshots) >= at.listed_max:
        return True  # It is none, on every replica alike.
    place = free_place(snapshots)
    if place < 0 or is_later_leaving(snapshots, sequence):
        return False
    row, begin = snapshots.table[place], place * ROW_BYTES + ROW_BYTES - 64
    row.sequence, row.epoch = sequence, record.epoch_of(headers, start)
    row.taken_ns = record.extra_of(headers, start)
    row.name_bytes = record.length_of(headers, start)
    for byte in range(64):
        snapshots.data[begin + byte] = data[start + record.HEADER_BYTES + byte] if byte < row.name_bytes else np.uint8(0)
    row.state = GIVEN_UP if at.fd < 0 else WHOLE  # Last: others may look at it.
    note_change(snapshots)
    return True


@kernel()
def fill_table(snapshots, block, head, generation, applied):
    """Lay the table into a superblock's block, behind the superblock of this generation."""
    at = snapshots.at[0]
    count = np.int64(0)
    for place in range(snapshots.table.size):
        if snapshots.table[place].state != FREE:
            count = np.int64(place + 1)
    for byte in range(count * ROW_BYTES):
        block[TABLE_AT + byte] = snapshots.data[byte]
    head.count, head.applied, head.as_of = count, applied, max(applied, at.as_of)
    seal_table(block, head, generation)


@kernel()
def seal_table(block, head, generation):
    """Give a table in a superblock's block its generation and its checksum."""
    head.generation = generation
    head.crc = table_checksum(block, head.count)


@kernel()
def table_checksum(block, count):
    """CRC32C over a table's head, and over so many places."""
    before = crc32c(np.int64(0), block, np.int64(HEAD_AT), np.int64(HEAD_AT + HEAD_CRC_OFFSET))
    return np.int64(crc32c(before, block, np.int64(TABLE_AT), np.int64(TABLE_AT) + count * ROW_BYTES))


@kernel()
def note_saving(snapshots):
    """A superblock that tells of the table begins to be written."""
    snapshots.at[0].saving = 1


@kernel()
def note_saved(snapshots):
    """The superblock that was under way is durable."""
    at = snapshots.at[0]
    if at.saving and at.dirty > 0:
        at.dirty -= 1
    at.saving = 0


# One block


@kernel()
def tag_of(sequence):
    """What marks an entry as one of this snapshot's."""
    return np.uint32(MADE | (sequence & (MADE - 1)))


@kernel()
def block_offset(snapshots, place, block):
    """Where in the file this block of a place stands."""
    return BLOCK_BYTES + place * snapshots.at[0].stride + block * BLOCK_BYTES


@kernel()
def entry_offset(snapshots, place, block):
    """Where in the file this block's entry stands."""
    return block_offset(snapshots, place, snapshots.at[0].blocks) + block * ENTRY_BYTES


@kernel()
def is_zero(words):
    """Whether a block holds nothing but zeros."""
    found = np.int64(0)
    for word in range(words.size):
        found |= words[word]
    return found == 0


@kernel()
def is_needed(snapshots, block):
    """Whether the newest whole snapshot has neither kept this block nor finds it in a newer place."""
    return not is_between(snapshots, snapshots.at[0].newest, snapshots.at[0].count, block)


@kernel()
def put_block(snapshots, ring, place, block, crc):
    """Lay snapshots.block at a place, with this checksum; False when the disk refuses. Not durable yet."""
    at = snapshots.at[0]
    was_kept = is_kept(snapshots, place, block)
    if not was_kept:  # Before it is written: whatever becomes of it, its room is given back one day.
        snapshots.bits[place, block >> 3] |= np.uint8(1 << (block & 7))
        snapshots.kept[place] += 1
    at.written += 1
    if was_kept or crc != ZERO_CRC or not is_zero(snapshots.block_words):
        written = reactor.write_kept(
            ring, at.fd, snapshots.block, np.int64(0), np.int64(BLOCK_BYTES), block_offset(snapshots, place, block)
        )
        if written != BLOCK_BYTES:
            return False
    snapshots.entry[0], snapshots.entry[1] = np.uint32(crc), tag_of(snapshots.table[place].sequence)
    written = reactor.write_kept(
        ring, at.fd, snapshots.entry_bytes, np.int64(0), np.int64(ENTRY_BYTES), entry_offset(snapshots, place, block)
    )
    return written == ENTRY_BYTES


@kernel()
def get_block(snapshots, ring, place, block, data):
    """Read a block that is kept at a place into data: 1 when it is whole, 0 when it is not, -errno. entry[0] is its checksum."""
    at = snapshots.at[0]
    data[:BLOCK_BYTES] = 0
    got = reactor.read_kept(ring, at.fd, data, np.int64(0), np.int64(BLOCK_BYTES), block_offset(snapshots, place, block))
    if got < 0:
        return got
    snapshots.entry[:] = 0
    got = reactor.read_kept(
        ring, at.fd, snapshots.entry_bytes, np.int64(0), np.int64(ENTRY_BYTES), entry_offset(snapshots, place, block)
    )
    if got < 0:
        return got
    is_ours = snapshots.entry[1] == tag_of(snapshots.table[place].sequence)
    is_whole = np.int64(snapshots.entry[0]) == crc32c(np.int64(0), data, np.int64(0), np.int64(BLOCK_BYTES))
    return np.int64(1 if is_ours and is_whole else 0)


@kernel()
def is_kept_zeros(snapshots, ring, place, block):
    """Whether the entry of a block at this place says that it holds zeros: what lost its bytes reads as zeros, and is none."""
    snapshots.entry[:] = 0
    at = np.int64(entry_offset(snapshots, place, block))
    got = reactor.read_kept(ring, snapshots.at[0].fd, snapshots.entry_bytes, np.int64(0), np.int64(ENTRY_BYTES), at)
    is_ours = snapshots.entry[1] == tag_of(snapshots.table[place].sequence)
    return got == ENTRY_BYTES and is_ours and np.int64(snapshots.entry[0]) == ZERO_CRC


@kernel()
def keep_block(snapshots, ring, volume_fd, block, skips_zeros):
    """Keep one block of the volume, as it is, for the newest whole snapshot, not yet durable.

    `skips_zeros`: what comes leaves zeros as they are. A block that cannot be read, or a disk that does not take it, costs the
    snapshots.
    """
    at = snapshots.at[0]
    size = min(np.int64(BLOCK_BYTES), at.volume_bytes - block * BLOCK_BYTES)
    snapshots.block[size:] = 0
    got = reactor.read_volume(ring, volume_fd, snapshots.block, np.int64(0), size, block * BLOCK_BYTES)
    if got != size:  # A sector that cannot be read: what is about to be written there mends it.
        give_up_all(snapshots)
        return
    if skips_zeros and is_zero(snapshots.block_words):
        return
    crc = np.int64(crc32c(np.int64(0), snapshots.block, np.int64(0), np.int64(BLOCK_BYTES)))
    at.kept_ever += 1
    if not put_block(snapshots, ring, snapshots.order[at.newest], block, crc):
        give_up_all(snapshots)


@kernel()
def flush_now(snapshots, ring):
    """Make what was written among the kept blocks durable, and wait for it; a disk that refuses costs the snapshots."""
    at = snapshots.at[0]
    if reactor.sync_kept_now(ring, at.fd) < 0:
        give_up_all(snapshots)
    else:
        at.flushed = at.flushing = at.written


@kernel()
def last_block(address, size):
    """The last block that so many bytes at `address` touch."""
    return (address + size - 1) // BLOCK_BYTES


@kernel()
def keep_range(snapshots, ring, volume_fd, address, size, is_replay, is_trim):
    """Keep what this range holds for the newest whole snapshot, not yet durable.

    In a replay a block counts as kept only if it is whole: one that is not was never overwritten, since that waits until it is.
    """
    at = snapshots.at[0]
    if size <= 0:
        return
    block, last = address // BLOCK_BYTES, last_block(address, size)
    while block <= last and at.newest >= 0:
        needed = is_needed(snapshots, block)
        if not needed and is_replay and is_kept_last(snapshots, block):
            found = get_block(snapshots, ring, snapshots.order[at.newest], block, snapshots.other)
            if found < 0:
                give_up_all(snapshots)
                break
            needed = found == 0
        if needed and is_trim:
            data_block = next_data_block(ring, volume_fd, block, last)
            if data_block > block:
                block = data_block
                continue
        if needed:
            keep_block(snapshots, ring, volume_fd, block, is_trim)
        block += 1


@kernel()
def is_kept_last(snapshots, block):
    """Whether a block is kept for the newest whole snapshot, and in no newer place: then it may have been on its way there."""
    at = snapshots.at[0]
    is_newer = is_between(snapshots, at.newest + 1, at.count, block)
    return not is_newer and is_kept(snapshots, snapshots.order[at.newest], block)


@kernel()
def next_data_block(ring, volume_fd, block, last):
    """The first block from here on, up to behind `last`, that is no hole in the volume: a trim leaves a hole as it is."""
    if ring.at[0].kind == reactor.PRETEND:
        return block
    data_at = libc.seek(volume_fd, block * BLOCK_BYTES, libc.SEEK_DATA)
    if data_at == -libc.ENXIO:
        return last + 1
    return max(block, min(data_at // BLOCK_BYTES, last + 1))


# Ahead of apply


@kernel()
def apply_limit(journal):
    """The position up to which the log may be applied."""
    at, keeping = journal.at[0], journal.snapshots.at[0]
    if keeping.dirty > 0:
        return at.applied
    return min(at.durable_watermark, at.kept) if keeping.newest >= 0 else at.durable_watermark


@kernel()
def begin_keeping(journal, position):
    """The SNAPSHOT or FORGET that ends at `position` is applied: what is behind it is to be kept."""
    at = journal.at[0]
    at.kept = at.walked = position
    at.walked_blocks = 0
    journal.snapshots.at[0].barrier = position


@kernel()
def is_walkable(journal):
    """Whether walk() would go on now."""
    at, keeping = journal.at[0], journal.snapshots.at[0]
    if keeping.newest < 0 or keeping.dirty > 0 or at.applied < keeping.barrier or at.walked >= at.durable_watermark:
        return False
    start = at.walked % at.staging_bytes
    if at.walked + record.record_bytes(record.length_of(journal.headers, start)) > at.durable_watermark:
        return False
    return not record.is_marker(record.kind_of(journal.headers, start)) or at.applied == at.walked


@kernel()
def walk(journal, ring):
    """Keep what the next records will overwrite, a bounded number of blocks."""
    at, snapshots = journal.at[0], journal.snapshots
    keeping = snapshots.at[0]
    left = np.int64(BLOCKS_A_TURN)
    while left > 0 and is_walkable(journal):
        start = at.walked % at.staging_bytes
        kind = record.kind_of(journal.headers, start)
        size = record.written_of(journal.headers, start) if kind != record.PAD else np.int64(0)
        if size > 0:
            address = record.address_of(journal.headers, start)
            first, last = address // BLOCK_BYTES, last_block(address, size)
            while left > 0 and keeping.newest >= 0 and first + at.walked_blocks <= last:
                block = first + at.walked_blocks
                left -= 1
                if is_needed(snapshots, block):
                    data_block = next_data_block(ring, at.volume_fd, block, last) if kind == record.TRIM else block
                    if data_block > block:
                        at.walked_blocks = data_block - first
                        continue
                    keep_block(snapshots, ring, at.volume_fd, block, kind == record.TRIM)
                at.walked_blocks += 1
            if keeping.newest < 0 or first + at.walked_blocks <= last:
                break
        at.walked += record.record_bytes(record.length_of(journal.headers, start))
        at.walked_blocks = 0
        left -= 1
        if record.is_marker(kind):
            keeping.barrier = at.walked
            at.kept = at.walked


@kernel()
def next_to_tend(snapshots):
    """What is to be tended next: a place that is to be emptied, else the oldest whose blocks are to be moved. -1: nothing."""
    for place in range(snapshots.table.size):
        row = snapshots.table[place]
        if row.state == EMPTYING or (row.state == GIVEN_UP and snapshots.kept[place] > 0):
            return np.int64(place)
    for index in range(snapshots.at[0].count):
        if snapshots.table[snapshots.order[index]].state == LEAVING:
            return snapshots.order[index]
    return np.int64(-1)


@kernel()
def is_tendable(snapshots):
    """Whether tend() would go on now."""
    at = snapshots.at[0]
    if at.dirty > 0 or at.todo == 0:
        return False
    return at.tending < 0 or at.awaited == 0 or at.flushed >= at.awaited


@kernel()
def tend(snapshots, ring):
    """A piece of what deleted snapshots have left to do: move a few blocks, give some room back."""
    at = snapshots.at[0]
    if not is_tendable(snapshots):
        return
    if at.tending < 0:
        at.tending, at.cursor, at.awaited = next_to_tend(snapshots), 0, 0
        if at.tending < 0:
            return
    if snapshots.table[at.tending].state == LEAVING:
        move_some(snapshots, ring)
    else:
        empty_some(snapshots, ring)


@kernel()
def move_some(snapshots, ring):
    """Move a few blocks of a deleted snapshot to the next older one, which has read them here until now."""
    at = snapshots.at[0]
    place = at.tending
    index = index_of(snapshots, place)
    if index > 0 and at.awaited == 0:
        older = snapshots.order[index - 1]
        moved, passed = 0, 0
        while at.cursor < at.blocks and moved < MOVED_A_TURN and passed < PASSED_A_TURN:
            if at.cursor & 7 == 0 and snapshots.bits[place, at.cursor >> 3] == 0:
                at.cursor += 8
                passed += 8
                continue
            if is_kept(snapshots, place, at.cursor):
                moved += 1
                if not move_block(snapshots, ring, place, older, at.cursor):
                    give_up(snapshots, index - 1)
                    return
            at.cursor += 1
            passed += 1
        if at.cursor < at.blocks:
            return
        at.awaited = at.written
        if at.flushed < at.awaited:
            return
    snapshots.table[place].state = EMPTYING
    at.tending = -1
    note_change(snapshots)


@kernel()
def move_block(snapshots, ring, place, older, block):
    """Move one block, damaged or not, unless the older snapshot has its own; False when it cannot be."""
    if is_kept(snapshots, older, block):
        return True
    if get_block(snapshots, ring, place, block, snapshots.block) < 0:
        return False
    snapshots.at[0].moved += 1
    return put_block(snapshots, ring, older, block, np.int64(snapshots.entry[0]))


@kernel()
def empty_some(snapshots, ring):
    """Give back some of the room of a place that nothing is read from any more; a deleted snapshot's is free in the end."""
    at = snapshots.at[0]
    place = at.tending
    passed = 0
    while at.cursor < at.blocks and passed < PASSED_A_TURN:
        first = at.cursor
        end = min(first + EMPTIED_A_TURN, at.blocks)
        is_empty = True
        for byte in range(first >> 3, (end + 7) >> 3):
            is_empty = is_empty and snapshots.bits[place, byte] == 0
        at.cursor, passed = end, passed + EMPTIED_A_TURN
        if is_empty:
            continue
        refused = reactor.trim_kept(ring, at.fd, block_offset(snapshots, place, first), (end - first) * BLOCK_BYTES)
        if refused == OK:
            refused = reactor.trim_kept(ring, at.fd, entry_offset(snapshots, place, first), (end - first) * ENTRY_BYTES)
        if refused < 0:
            at.cursor = first
            return  # Tried again.
        snapshots.bits[place, first >> 3 : (end + 7) >> 3] = 0
        if at.cursor < at.blocks:
            return
    if at.cursor < at.blocks:
        return
    if at.awaited == 0:
        if at.fd >= 0 and reactor.trim_kept(ring, at.fd, block_offset(snapshots, place, np.int64(0)), at.stride) < 0:
            return
        at.written += 1
        at.awaited = at.written
    if at.flushed < at.awaited and at.fd >= 0:
        return
    snapshots.kept[place] = 0
    at.tending, at.awaited = -1, 0
    if snapshots.table[place].state == EMPTYING:
        snapshots.words[place * ENTRY_WORDS : (place + 1) * ENTRY_WORDS] = 0
        note_change(snapshots)
    else:
        arrange(snapshots)


@kernel()
def wants_flush(journal):
    """Whether what was written among the kept blocks is to be made durable now."""
    at, keeping = journal.at[0], journal.snapshots.at[0]
    if keeping.written == keeping.flushing or keeping.fd < 0:
        return False
    return (keeping.newest >= 0 and at.kept < at.walked) or keeping.awaited > keeping.flushing


@kernel()
def end_keeping(journal, ring):
    """Take note of a flush of what is kept that has returned; one that was refused costs the snapshots."""
    at, keeping = journal.at[0], journal.snapshots.at[0]
    if reactor.finished(ring, reactor.KEPT):
        if ring.result[reactor.KEPT] < 0:
            give_up_all(journal.snapshots)
            keeping.tending = -1
        else:
            keeping.flushed = keeping.flushing
            if keeping.newest >= 0:
                at.kept = max(at.kept, keeping.keeping)
    if ring.state[reactor.KEPT] == reactor.IDLE:
        keeping.flushing = keeping.flushed


@kernel()
def waits_for_place(journal):
    """Whether the record that is applied next is a SNAPSHOT that has no place yet."""
    at, keeping, snapshots = journal.at[0], journal.snapshots.at[0], journal.snapshots
    start = at.applied % at.staging_bytes
    if record.kind_of(journal.headers, start) != record.SNAPSHOT:
        return False
    sequence = record.sequence_of(journal.headers, start)
    if keeping.used < snapshots.table.size and not is_later_leaving(snapshots, sequence):
        return False
    return sequence > keeping.as_of and count_listed(snapshots) < keeping.listed_max


@kernel()
def work(journal, ring):
    """Everything that snapshots ask for in a turn, before the log is applied."""
    at, snapshots = journal.at[0], journal.snapshots
    keeping = snapshots.at[0]
    if keeping.used == 0 and ring.state[reactor.KEPT] == reactor.IDLE:
        return
    end_keeping(journal, ring)
    walk(journal, ring)
    tend(snapshots, ring)
    if keeping.newest >= 0 and keeping.written == keeping.flushed:
        at.kept = max(at.kept, at.walked)
    if ring.state[reactor.KEPT] == reactor.IDLE and wants_flush(journal):
        keeping.flushing, keeping.keeping = keeping.written, at.walked
        reactor.begin_sync(ring, reactor.KEPT, keeping.fd)


@kernel()
def has_work(journal, ring):
    """Whether work() would go on without anything having happened: then this is no time to sleep."""
    if journal.snapshots.at[0].used == 0:
        return False
    return is_walkable(journal) or is_tendable(journal.snapshots)


# Reading


@kernel()
def source_of(snapshots, index, block):
    """The place in which the snapshot at this index of the order finds a block; -1: in the volume."""
    for newer in range(index, snapshots.at[0].count):
        if is_kept(snapshots, snapshots.order[newer], block):
            return snapshots.order[newer]
    return np.int64(-1)


@kernel()
def read_snapshot(journal, ring, data, start, size, address, sequence):
    """Bytes read of a snapshot into data[start:], or -EIO when it is not whole here or a block of it is damaged, or -errno."""
    snapshots = journal.snapshots
    place = place_of(snapshots, sequence)
    index = index_of(snapshots, place) if place >= 0 else np.int64(-1)
    if index < 0:
        return np.int64(-EIO)
    end = min(address + size, snapshots.at[0].volume_bytes)
    position = address
    while position < end:
        block = position // BLOCK_BYTES
        source = source_of(snapshots, index, block)
        stop = min(end, (block + 1) * BLOCK_BYTES)
        if source < 0:
            while stop < end and source_of(snapshots, index, stop // BLOCK_BYTES) < 0:
                stop = min(end, stop + BLOCK_BYTES)
            got = reactor.read_volume(ring, journal.at[0].volume_fd, data, start + position - address, stop - position, position)
            if got != stop - position:
                return got if got < 0 else np.int64(-EIO)
        else:
            found = get_block(snapshots, ring, source, block, snapshots.other)
            if found != 1:
                return found if found < 0 else np.int64(-EIO)
            libc.copy(data, start + position - address, snapshots.other, position - block * BLOCK_BYTES, stop - position)
        position = stop
    return end - address


@kernel()
def differs_until(snapshots, older, newer, address, end, blocks_max):
    """(where it ends, whether it may differ) of what begins at `address`, between two indices of the order; `count` is now."""
    block = address // BLOCK_BYTES
    may_differ = is_between(snapshots, older, newer, block)
    last = min(last_block(address, end - address), block + blocks_max)
    while block < last and is_between(snapshots, older, newer, block + 1) == may_differ:
        block += 1
    return min(end, (block + 1) * BLOCK_BYTES), may_differ


@kernel()
def is_between(snapshots, older, newer, block):
    """Whether a block is kept at one of the places from one index of the order to before another.

    So it was overwritten between the two: it is kept for the older snapshot, or for one in between.
    """
    index = older
    while index < newer and not is_kept(snapshots, snapshots.order[index], block):
        index += 1
    return index < newer


# At an opening


@kernel()
def load_bits(snapshots, ring, verifies):
    """Find which blocks are kept where, from the entries; 0 or -errno.

    `verifies`: a copy of extents was broken off, which no replay repeats. What was on its way to the newest whole snapshot then
    does not count as kept, and was not overwritten.
    """
    at = snapshots.at[0]
    chunk = np.int64(BLOCK_BYTES // ENTRY_BYTES)
    entries = snapshots.block.view(np.uint32)
    for place in range(snapshots.table.size):
        snapshots.kept[place] = 0
        snapshots.bits[place, :] = 0
        if snapshots.table[place].state == FREE or at.fd < 0:
            continue
        tag = tag_of(snapshots.table[place].sequence)
        first = np.int64(0)
        while first < at.blocks:
            offset = entry_offset(snapshots, place, first)
            if ring.at[0].kind != reactor.PRETEND:
                data_at = libc.seek(at.fd, offset, libc.SEEK_DATA)
                if data_at == -libc.ENXIO or data_at >= block_offset(snapshots, place + 1, np.int64(0)):
                    break
                if data_at > offset:
                    first += (data_at - offset) // ENTRY_BYTES // chunk * chunk
                    offset = entry_offset(snapshots, place, first)
            snapshots.block[:] = 0
            size = min(chunk, at.blocks - first)
            got = reactor.read_kept(ring, at.fd, snapshots.block, np.int64(0), size * ENTRY_BYTES, offset)
            if got < 0:
                return got
            for index in range(size):
                if entries[2 * index + 1] == tag:
                    block = first + index
                    snapshots.bits[place, block >> 3] |= np.uint8(1 << (block & 7))
                    snapshots.kept[place] += 1
            first += chunk
    arrange(snapshots)
    for index in range(1, at.count):
        if snapshots.table[snapshots.order[index]].state == LEAVING:  # What was on its way to the older one is still here.
            drop_torn(snapshots, ring, snapshots.order[index - 1], snapshots.order[index])
    if verifies and at.newest >= 0:
        drop_torn(snapshots, ring, snapshots.order[at.newest], snapshots.order[at.newest])
    return np.int64(OK)


@kernel()
def drop_torn(snapshots, ring, place, beside):
    """Let the blocks that are kept at both places count as kept at the first only where they are whole."""
    for byte in range(snapshots.bits.shape[1]):
        both = np.int64(snapshots.bits[place, byte]) & np.int64(snapshots.bits[beside, byte])
        for bit in range(8):
            if both >> bit & 1 and get_block(snapshots, ring, place, np.int64(8 * byte + bit), snapshots.other) != 1:
                snapshots.bits[place, byte] &= np.uint8(255 ^ (1 << bit))
                snapshots.kept[place] -= 1


# What a peer is told


@kernel()
def lay_listed(snapshots, words, start):
    """Lay the listed snapshots, the oldest first, into words[start:], as Entry rows without a state; answers their bytes."""
    before, count = np.int64(0), np.int64(0)
    while True:
        found = np.int64(-1)
        for place in range(snapshots.table.size):
            row = snapshots.table[place]
            if is_listed(row.state) and row.sequence > before:
                if found < 0 or row.sequence < snapshots.table[found].sequence:
                    found = np.int64(place)
        if found < 0:
            return count * ROW_BYTES
        for word in range(ENTRY_WORDS):
            words[start + count * ENTRY_WORDS + word] = snapshots.words[found * ENTRY_WORDS + word]
        words[start + count * ENTRY_WORDS + 3] = 0
        before = snapshots.table[found].sequence
        count += 1


@kernel()
def is_list(snapshots, words, start, size, as_of, epoch):
    """Whether `size` bytes from words[start] on are what lay_listed() makes as of a sequence, in epochs up to this one."""
    count = size // ROW_BYTES
    if count * ROW_BYTES != size or count > snapshots.at[0].listed_max:
        return False
    before, nothing = np.int64(0), np.int64(0)
    for index in range(count):
        at = start + index * ENTRY_WORDS
        if not record.lies_in(words[at], nothing, before + 1, as_of):
            return False
        if not record.lies_in(words[at + 1], nothing, nothing, epoch):
            return False
        if not record.lies_in(words[at + 2], nothing, nothing, np.int64(record.NUMBER_MAX)) or words[at + 3] != 0:
            return False
        if not record.lies_in(words[at + 4], nothing, np.int64(1), np.int64(record.NAME_BYTES_MAX)):
            return False
        before = words[at]
    return True


@kernel()
def told_at(snapshots, words, start, count, place):
    """Which of the snapshots in a list is the one at this place, or -1."""
    row = snapshots.table[place]
    for index in range(count):
        if words[start + index * ENTRY_WORDS] == row.sequence and words[start + index * ENTRY_WORDS + 1] == row.epoch:
            return np.int64(index)
    return np.int64(-1)


@kernel()
def may_adopt(snapshots, words, start, size):
    """Whether there are free places for every snapshot of a list that is not here."""
    count = size // ROW_BYTES
    missing, free = count, np.int64(0)
    for place in range(snapshots.table.size):
        state = snapshots.table[place].state
        if state == FREE:
            free += 1
        elif is_listed(state) and told_at(snapshots, words, start, count, np.int64(place)) >= 0:
            missing -= 1
    return free >= missing


@kernel()
def adopt(snapshots, words, start, size, as_of):
    """Take the primary's list as of a sequence for ours: what is not in it is deleted, what is not here is given up here."""
    count = size // ROW_BYTES
    for place in range(snapshots.table.size):
        if is_listed(snapshots.table[place].state) and told_at(snapshots, words, start, count, np.int64(place)) < 0:
            forget(snapshots, np.int64(place))
    for index in range(count):
        begin = start + index * ENTRY_WORDS
        found = place_of(snapshots, words[begin])
        if found >= 0:
            continue
        place = free_place(snapshots)
        for word in range(ENTRY_WORDS):
            snapshots.words[place * ENTRY_WORDS + word] = words[begin + word]
        snapshots.table[place].state = GIVEN_UP
        snapshots.kept[place] = 0
    snapshots.at[0].as_of = as_of
    note_change(snapshots)
