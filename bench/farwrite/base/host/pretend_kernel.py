"""A world in memory for one replica: clock, disk and connections, as the simulator wants them.

The same loops that run over io_uring run here. Time stands still until the simulator moves it; a flush returns when its
time has come; what is not flushed may be lost, in part, by a crash; a connection is a stream of bytes that arrive later,
or never. Nobody sleeps: `sleep` notes until when one would have. Power may go out between any two operations on the disk:
from then on nothing has an effect, and `crash` leaves what a disk would still hold. A disk may lie: a sector that is bad
answers EIO until it is written again, and `before` is what a lost write of the journal leaves. What goes wrong, and when, is
told from outside (engine/simulate/story.py, lying_disk.py); nothing here is drawn but which sectors a crash tears.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..jit import kernel
from ..prng_kernel import random_of
from ..row import Row, i64, rows_of

SECTOR_BYTES = 512
FLIGHTS = 4  # journal, superblock, volume, what is kept for snapshots: the reactor's slots
KEPT = 3

# What is under way in a slot (Operation.kind).
WRITING, SYNCING, UNLANDED = 1, 2, 3

SEGMENTS = 64

EIO, EAGAIN, ENOSPC, ECONNRESET = 5, 11, 28, 104
NO_DATA = 1 << 62  # Behind every byte of a volume.


class Conditions(Row):
    """What befalls one replica's machine, and what it has done."""

    node = i64("index of the replica")
    wake_ns = i64("ns, virtual: until when it would sleep if nothing happened")
    flush_ns = i64("ns that a flush takes")
    sent_bytes = i64("bytes its streams have taken")
    received_bytes = i64("bytes it has received")
    power_in = i64("operations of the disk until the power goes out; -1: never")
    fail_in = i64("operations of the disk until one is refused; -1: never")
    fail_errno = i64("errno that it is refused with")
    hasty = i64("1, a planted bug: a flush returns before it has landed, as on a disk whose cache lies")
    operations = i64("operations of the disk so far")
    kept_fail_in = i64("writes among what is kept for snapshots until there is no room for more of them; -1: never")
    skew_ns = i64("ns that its clock is ahead of the world's")
    refused_reads = i64("reads that met a bad sector")
    mended = i64("bad sectors that were written again")
    deaf = i64("1, a planted bug: a read of a bad sector answers zeros instead of EIO")


class Operation(Row):
    """A durable write or a flush under way, by slot."""

    kind = i64("WRITING, SYNCING or UNLANDED; 0: nothing is under way")
    offset = i64("byte of the journal that it begins at")
    size = i64("bytes")
    due_ns = i64("ns, virtual: when it is over")
    result = i64("bytes, 0 or -errno")


class Stream(Row):
    """One direction of a connection: what `socket` s sends is stream s, what it receives s ^ 1. Byte counts never wrap."""

    written = i64("bytes sent into it")
    read = i64("bytes received from it")
    segment_head = i64("segments that were received whole")
    segment_tail = i64("segments sent")
    delay_ns = i64("ns, one way")
    last_due_ns = i64("ns, virtual: when what was sent last arrives")
    closed = i64("1: its sender has closed it")
    stalled = i64("1: nothing arrives, for the network is cut")
    silent = i64("1: that it is closed never arrives")


class World(NamedTuple):
    """What one replica can see; clock, stream and its bytes are shared by all replicas of a simulation."""

    clock: np.ndarray  # int64, one word: virtual CLOCK_MONOTONIC
    at: np.ndarray  # Conditions, one
    journal: np.ndarray  # uint8, what stands on the disk
    volume: np.ndarray  # uint8, what stands on the disk
    cached: np.ndarray  # uint8, the volume as reads see it
    kept: np.ndarray  # uint8, what is kept for snapshots, as it stands on the disk
    kept_cached: np.ndarray  # uint8, the same as reads see it
    kept_flying: np.ndarray  # uint8, the same as the flush under way makes it durable
    flight: np.ndarray  # Operation, by slot
    flying: np.ndarray  # uint8, slot x bytes: what they write
    stream: np.ndarray  # Stream, by stream
    in_flight_bytes: np.ndarray  # uint8, stream x bytes: rings of bytes under way
    segment_end: np.ndarray  # int64, stream x SEGMENTS: byte count up to which a segment goes
    segment_due_ns: np.ndarray  # int64, stream x SEGMENTS
    bad: np.ndarray  # uint8 by sector of the volume: 1: reading it answers EIO until it is written again
    bad_journal: np.ndarray  # uint8 by sector of the journal, likewise
    before: np.ndarray  # uint8, by byte of the journal what stood there before it was written last
    held: np.ndarray  # uint8 by sector of the volume: 1: its file has a block there; 0: it is a hole


def world(
    clock: np.ndarray, journal_bytes: int, volume_bytes: int, flying_bytes: int, stream: np.ndarray, in_flight_bytes: np.ndarray,
    segment_end: np.ndarray, segment_due_ns: np.ndarray, kept_bytes: int = 0,
) -> World:  # fmt: skip
    """An empty disk in a shared world."""
    at = rows_of(Conditions)
    at[0].power_in = at[0].fail_in = at[0].kept_fail_in = -1
    return World(
        clock, at, np.zeros(journal_bytes, np.uint8), np.zeros(volume_bytes, np.uint8),
        np.zeros(volume_bytes, np.uint8), np.zeros(kept_bytes, np.uint8), np.zeros(kept_bytes, np.uint8),
        np.zeros(kept_bytes, np.uint8), rows_of(Operation, FLIGHTS),
        np.zeros((FLIGHTS, flying_bytes), np.uint8), stream, in_flight_bytes, segment_end, segment_due_ns,
        np.zeros(-(-volume_bytes // SECTOR_BYTES), np.uint8), np.zeros(-(-journal_bytes // SECTOR_BYTES), np.uint8),
        np.zeros(journal_bytes, np.uint8), np.zeros(-(-volume_bytes // SECTOR_BYTES), np.uint8),
    )  # fmt: skip


def nothing() -> World:
    """No world: what reactors of the other forms carry."""
    return world(
        np.zeros(1, np.int64), 0, 0, 0, rows_of(Stream, 0), np.zeros((0, 1), np.uint8),
        np.zeros((0, SEGMENTS), np.int64), np.zeros((0, SEGMENTS), np.int64),
    )  # fmt: skip


@kernel()
def now_ns(world):
    """This replica's clock: the virtual one, and how far it is off."""
    return world.clock[0] + world.at[0].skew_ns


@kernel()
def sleep(world, timeout_ns):
    """Note until when this replica would sleep if nothing happened."""
    world.at[0].wake_ns = world.clock[0] + timeout_ns


@kernel()
def refusal(world):
    """One operation of the disk begins: 0, or the -errno it is refused with. Without power nothing has an effect any more."""
    at = world.at[0]
    if at.power_in == 0:
        return np.int64(-EIO)
    if at.power_in > 0:
        at.power_in -= 1
    at.operations += 1
    if at.fail_in > 0:
        at.fail_in -= 1
    elif at.fail_in == 0:
        return -at.fail_errno
    return np.int64(0)


@kernel()
def is_bad(bad, offset, size):
    """Whether a sector of these bytes cannot be read."""
    return bad[offset // SECTOR_BYTES : (offset + size + SECTOR_BYTES - 1) // SECTOR_BYTES].any()


@kernel()
def mend(world, bad, offset, size):
    """Sectors that are written as a whole can be read again: a disk puts another in the place of a bad one."""
    for sector in range((offset + SECTOR_BYTES - 1) // SECTOR_BYTES, (offset + size) // SECTOR_BYTES):
        world.at[0].mended += bad[sector]
        bad[sector] = 0


@kernel(allocates=True)
def read_of(world, disk, bad, data, start, size, offset):
    """Read of a disk's bytes: how many, fewer at its end, or -EIO where a sector is bad."""
    count = max(min(size, disk.size - offset), 0)
    if is_bad(bad, offset, count):
        world.at[0].refused_reads += 1
        if world.at[0].deaf == 0:
            return np.int64(-EIO)
        data[start : start + count] = 0
    else:
        data[start : start + count] = disk[offset : offset + count]
    return np.int64(count)


@kernel(allocates=True)
def put_into_journal(world, data, start, size, offset):
    """What a write leaves in the journal, and what stood there before."""
    world.before[offset : offset + size] = world.journal[offset : offset + size]
    world.journal[offset : offset + size] = data[start : start + size]
    mend(world, world.bad_journal, offset, size)


@kernel(allocates=True)
def begin_write(world, slot, data, start, size, offset):
    """Begin a durable write to the journal; over after FLUSH_NS."""
    refused = refusal(world)
    land(world, slot)
    flight = world.flight[slot]
    flight.kind, flight.offset, flight.size = WRITING, offset, size
    flight.due_ns, flight.result = world.clock[0] + world.at[0].flush_ns, refused if refused < 0 else np.int64(size)
    world.flying[slot, :size] = data[start : start + size]


@kernel(allocates=True)
def begin_sync(world, slot):
    """Begin to make the volume durable as it is now, or what is kept for snapshots; over after FLUSH_NS."""
    refused = refusal(world)
    flight = world.flight[slot]
    flight.kind, flight.offset, flight.size = SYNCING, 0, 0
    if slot == KEPT:
        world.kept_flying[:] = world.kept_cached
    else:
        world.flying[slot, : world.cached.size] = world.cached
        flight.size = world.cached.size
    flight.due_ns, flight.result = world.clock[0] + world.at[0].flush_ns, refused


@kernel()
def is_over(world, slot):
    """Whether the operation's time has come."""
    if world.at[0].power_in == 0:
        return False
    return world.flight[slot].due_ns <= world.clock[0] or world.at[0].hasty != 0


@kernel(allocates=True)
def finish(world, slot):
    """Let the operation take effect; answers its result."""
    flight = world.flight[slot]
    if flight.kind == WRITING and flight.due_ns > world.clock[0]:
        flight.kind = UNLANDED
        return flight.result
    offset, size, kind = flight.offset, flight.size, flight.kind
    flight.kind = 0
    if slot == KEPT:
        if flight.result >= 0:
            world.kept[:] = world.kept_flying
    elif flight.result >= 0 and kind == SYNCING:
        world.volume[offset : offset + size] = world.flying[slot, :size]
    elif flight.result >= 0:
        put_into_journal(world, world.flying[slot], np.int64(0), size, offset)
    return flight.result


@kernel(allocates=True)
def land(world, slot):
    """Let what a lying disk has only promised reach it at last."""
    flight = world.flight[slot]
    if flight.kind == UNLANDED:
        put_into_journal(world, world.flying[slot], np.int64(0), flight.size, flight.offset)
        flight.kind = 0


@kernel(allocates=True)
def tear(target, others, offset, size, key, share):
    """Let about `share` of 256 sectors of others[:size] land at target[offset:]; which ones follows from `key`."""
    for sector in range(0, size, SECTOR_BYTES):
        end = min(sector + SECTOR_BYTES, size)
        drawn = np.int64(np.uint64(random_of(np.uint64(key), (offset + sector) // SECTOR_BYTES)) & np.uint64(255))
        if drawn < share:
            target[offset + sector : offset + end] = others[sector:end]


@kernel(allocates=True)
def crash(world, key, share, power):
    """Leave what the disk holds after a loss of power (`power` 1), or of the process alone (0: its cache stays)."""
    for slot in range(FLIGHTS):
        flight = world.flight[slot]
        if flight.kind == UNLANDED and (flight.due_ns <= world.clock[0] or not power):
            land(world, slot)
        elif (flight.kind == WRITING or flight.kind == UNLANDED) and flight.result >= 0:
            tear(world.journal, world.flying[slot], flight.offset, flight.size, key, share)
        elif slot == KEPT and flight.kind == SYNCING and flight.result >= 0 and power:
            tear(world.kept, world.kept_flying, np.int64(0), world.kept.size, key + 3, share)
        elif flight.kind == SYNCING and flight.result >= 0 and power:
            tear(world.volume, world.flying[slot], np.int64(0), flight.size, key + 1, share)
        flight.kind = 0
    if power:
        tear(world.volume, world.cached, np.int64(0), world.cached.size, key + 2, share)
        world.cached[:] = world.volume
        tear(world.kept, world.kept_cached, np.int64(0), world.kept.size, key + 4, share)
        world.kept_cached[:] = world.kept
    world.at[0].power_in = world.at[0].fail_in = world.at[0].kept_fail_in = -1


@kernel()
def flip_bit(data, bit):
    """Turn one bit of what stands there."""
    data[bit >> 3] ^= np.uint8(1 << (bit & 7))


@kernel(allocates=True)
def write_now(world, data, start, size, offset):
    """A durable write to the journal that takes no time."""
    refused = refusal(world)
    if refused < 0:
        return refused
    put_into_journal(world, data, start, size, offset)
    return np.int64(size)


@kernel(allocates=True)
def sync_now(world):
    """Make the volume durable; takes no time."""
    refused = refusal(world)
    if refused < 0:
        return refused
    world.volume[:] = world.cached
    return np.int64(0)


@kernel(allocates=True)
def write_volume(world, data, start, size, offset):
    """Write into the volume's cache; bytes written."""
    refused = refusal(world)
    if refused < 0:
        return refused
    world.cached[offset : offset + size] = data[start : start + size]
    for sector in range(offset // SECTOR_BYTES, (offset + size + SECTOR_BYTES - 1) // SECTOR_BYTES):
        world.held[sector] = 1
    mend(world, world.bad, offset, size)
    return np.int64(size)


@kernel()
def trim_volume(world, offset, size):
    """Give bytes of the volume back: they read as zeros."""
    refused = refusal(world)
    if refused < 0:
        return refused
    world.cached[offset : offset + size] = 0
    for sector in range((offset + SECTOR_BYTES - 1) // SECTOR_BYTES, (offset + size) // SECTOR_BYTES):
        world.held[sector] = 0
    mend(world, world.bad, offset, size)
    return np.int64(0)


@kernel()
def next_data(world, offset):
    """Where the next data of the volume begins, `offset` or behind; NO_DATA where only a hole is left."""
    for sector in range(offset // SECTOR_BYTES, world.held.size):
        if world.held[sector] != 0:
            return max(np.int64(offset), np.int64(sector * SECTOR_BYTES))
    return np.int64(NO_DATA)


@kernel()
def next_hole(world, offset):
    """Where the data that stands at `offset` of the volume ends."""
    for sector in range(offset // SECTOR_BYTES, world.held.size):
        if world.held[sector] == 0:
            return np.int64(sector * SECTOR_BYTES)
    return np.int64(world.held.size * SECTOR_BYTES)


@kernel(allocates=True)
def read_volume(world, data, start, size, offset):
    """Read of the volume's cache; bytes read, fewer at its end, or -EIO."""
    return read_of(world, world.cached, world.bad, data, start, size, offset)


@kernel(allocates=True)
def write_kept(world, data, start, size, offset):
    """Write among what is kept for snapshots; bytes written."""
    refused = refusal(world)
    if refused < 0:
        return refused
    if world.at[0].kept_fail_in == 0:
        return np.int64(-ENOSPC)
    if world.at[0].kept_fail_in > 0:
        world.at[0].kept_fail_in -= 1
    world.kept_cached[offset : offset + size] = data[start : start + size]
    return np.int64(size)


@kernel(allocates=True)
def read_kept(world, data, start, size, offset):
    """Read of what is kept for snapshots; bytes read, fewer at its end."""
    count = max(min(size, world.kept_cached.size - offset), 0)
    data[start : start + count] = world.kept_cached[offset : offset + count]
    return np.int64(count)


@kernel()
def trim_kept(world, offset, size):
    """Give back bytes of what was kept for snapshots."""
    refused = refusal(world)
    if refused < 0:
        return refused
    world.kept_cached[offset : offset + size] = 0
    return np.int64(0)


@kernel(allocates=True)
def sync_kept_now(world):
    """Make what is kept for snapshots durable; takes no time."""
    refused = refusal(world)
    if refused < 0:
        return refused
    world.kept[:] = world.kept_cached
    return np.int64(0)


@kernel(allocates=True)
def read_journal(world, data, start, size, offset):
    """Read of the journal as it stands on the disk; bytes read, fewer at its end, or -EIO."""
    return read_of(world, world.journal, world.bad_journal, data, start, size, offset)


@kernel()
def has_ended(world, stream_index):
    """Whether the end of this stream has arrived: its sender has closed it, and the word of that came through."""
    stream = world.stream[stream_index]
    return stream.closed != 0 and not stream.silent and not stream.stalled and stream.last_due_ns <= world.clock[0]


@kernel(allocates=True)
def send(world, socket, data, start, size):
    """Bytes taken by the stream, or -errno. What is sent to an end that has closed is taken until the word of that arrives."""
    stream = world.stream[socket]
    if stream.closed or has_ended(world, socket ^ 1) or world.at[0].power_in == 0:
        return np.int64(-ECONNRESET)
    ring = world.in_flight_bytes.shape[1]
    count = min(size, ring - (stream.written - stream.read))
    if count <= 0 or stream.segment_tail - stream.segment_head == SEGMENTS:
        return np.int64(-EAGAIN)
    begin = stream.written % ring
    first = min(count, ring - begin)
    world.in_flight_bytes[socket, begin : begin + first] = data[start : start + first]
    world.in_flight_bytes[socket, : count - first] = data[start + first : start + count]
    stream.written += count
    stream.last_due_ns = max(stream.last_due_ns, world.clock[0] + stream.delay_ns)
    place = stream.segment_tail % SEGMENTS
    world.segment_end[socket, place] = stream.written
    world.segment_due_ns[socket, place] = stream.last_due_ns
    stream.segment_tail += 1
    world.at[0].sent_bytes += count
    return np.int64(count)


@kernel()
def arrived(world, stream_index):
    """How many bytes of a stream have arrived and not been received."""
    stream = world.stream[stream_index]
    if stream.stalled:
        return np.int64(0)
    end = stream.read
    for segment in range(stream.segment_head, stream.segment_tail):
        if world.segment_due_ns[stream_index, segment % SEGMENTS] > world.clock[0]:
            break
        end = world.segment_end[stream_index, segment % SEGMENTS]
    return end - stream.read


@kernel(allocates=True)
def receive(world, socket, data, start, size):
    """Bytes that have arrived, 0 when the other end has closed and nothing is left, or -errno."""
    from_stream = socket ^ 1
    stream = world.stream[from_stream]
    if world.stream[socket].closed:
        return np.int64(-ECONNRESET)
    count = min(size, arrived(world, from_stream))
    if count == 0:
        return np.int64(0) if has_ended(world, from_stream) else np.int64(-EAGAIN)
    ring = world.in_flight_bytes.shape[1]
    begin = stream.read % ring
    first = min(count, ring - begin)
    data[start : start + first] = world.in_flight_bytes[from_stream, begin : begin + first]
    data[start + first : start + count] = world.in_flight_bytes[from_stream, : count - first]
    stream.read += count
    while stream.segment_head < stream.segment_tail and world.segment_end[
        from_stream, stream.segment_head % SEGMENTS
    ] <= stream.read:
        stream.segment_head += 1
    world.at[0].received_bytes += count
    return np.int64(count)


@kernel()
def is_readable(world, socket):
    """Whether receive() would answer anything but -EAGAIN."""
    return world.stream[socket].closed != 0 or has_ended(world, socket ^ 1) or arrived(world, socket ^ 1) > 0


@kernel()
def is_writable(world, socket):
    """Whether send() would answer anything but -EAGAIN."""
    stream = world.stream[socket]
    if stream.closed or has_ended(world, socket ^ 1):
        return True
    full = stream.written - stream.read >= world.in_flight_bytes.shape[1]
    return not full and stream.segment_tail - stream.segment_head < SEGMENTS


@kernel()
def hang_up(world, socket):
    """Close our end; what is under way still arrives, and the word of the end behind it."""
    stream = world.stream[socket]
    if not stream.closed:
        stream.closed = 1
        stream.last_due_ns = max(stream.last_due_ns, world.clock[0] + stream.delay_ns)


@kernel()
def connect(world, socket, delay_ns, back_ns):
    """A fresh connection whose two ends are `socket` and `socket ^ 1`, with its one-way delays."""
    for index, delay in ((socket, delay_ns), (socket ^ 1, back_ns)):
        stream = world.stream[index]
        stream.written = stream.read = stream.segment_head = stream.segment_tail = 0
        stream.closed = stream.stalled = stream.silent = 0
        stream.delay_ns, stream.last_due_ns = delay, world.clock[0]
