"""A record: 64 bytes of header, then the payload. The journal holds records; so does the wire, byte for byte the same.

That is why a secondary writes what it received without touching it, and why one CRC32C guards a write from the
submitting core to both disks. Everything is little-endian and 64-byte aligned. `Header` says what stands where.

What each frame of a session may carry, beside its own epoch and its ordinal (`refusal_of` in secondary_kernel, `note_answer` in
primary_kernel). Applied, staged, durable and granted are what its receiver knows; extents are those of the volume.

    WRITE      sequence: staged + 1; address and length: is_applicable
    TRIM       sequence: staged + 1; address and extra: is_applicable
    SNAPSHOT   sequence: staged + 1; address: 0; length: 1 to NAME_BYTES_MAX; extra: 0 to NUMBER_MAX
    FORGET     sequence: staged + 1; address: 0; length: 0; extra: 1 to sequence - 1
    PING, GOODBYE  sequence: 0 to staged
    COMMAND    sequence: staged to NUMBER_MAX
    EXTENT     sequence: that of the resync's last frame to NUMBER_MAX; address, length: exactly one extent
    DIGEST     sequence: as EXTENT, when verifying up to staged; address: first extent; length: 8 for each; extra: 0 or 1
    SYNCED     sequence: durable, after digests 0, to that of the resync's last frame or staged; address: that of the resync's
               last frame and of this one to NUMBER_MAX; extra: an epoch up to the session's; payload: as many snapshots as there
               may be, each of a sequence up to address and above that before it, of an epoch up to the session's
    ACK        sequence: durable before to address; address: received before to sent; extra: 0 to SYNCED that were sent
    READY      sequence: granted before to asked
    DIFFERS    sequence: 0 to applied; address, length: the extents of the oldest digest that has no answer

WRITE, TRIM, SNAPSHOT and FORGET have a sequence of their own: SNAPSHOT names the volume as everything before it has left it, and
FORGET gives one up. PAD fills a batch to the block. HELLO introduces. ACK tells how far received and
durable are; COMMAND asks for leave to send up to a sequence and READY gives it (two-trip C). EXTENT, SYNCED, DIGEST and
DIFFERS bring a stale volume up to date (resync_kernel); SYNCED tells which snapshots there are.

The sequence tells a reader of the log whether a record is missing. What is not in the log, and not a HELLO, carries an ordinal in
its place: how many such frames this side has sent on this connection, modulo 2^16. TCP loses none; whoever stands in between may.
"""

from __future__ import annotations

import numpy as np

from ..base.crc_kernel import crc32c
from ..base.jit import kernel
from ..base.row import Row, i64, u8, u16, u32

HEADER_BYTES = 64
WORD_BYTES = 8
MAGIC = 0x31575246  # "FRW1" as it stands in memory.
VERSION = 2

WRITE, PAD, HELLO, ACK, PING, GOODBYE, TRIM, COMMAND, READY, EXTENT, SYNCED, DIGEST, DIFFERS, SNAPSHOT, FORGET = range(1, 16)

LENGTH_MAX = 1 << 20  # A frame from the network may claim no more than this.
NAME_BYTES_MAX = 63  # Of a snapshot's name.
ORDINAL_MASK = 0xFFFF
NUMBER_MAX = (1 << 62) - 1  # Of a sequence, a position or an address: a sum of two of them does not wrap.

# What inspect() finds.
COMPLETE, INCOMPLETE, BAD_MAGIC, BAD_VERSION, BAD_LENGTH, BAD_CRC, WRONG_VOLUME, BAD_KIND = 0, 1, -1, -2, -3, -4, -5, -6


class Header(Row):
    """The first 64 bytes of a record or frame."""

    magic = u32("MAGIC: FRW1")
    crc = u32("CRC32C over the header behind this field and over the payload; a PAD's payload is left out")
    kind = u8("WRITE to FORGET")
    version = u8("VERSION")
    ordinal = u16("of a frame that is not in the log: how many such were sent before it on this connection, and 1; modulo 2^16")
    length = u32("payload bytes; the payload is filled up to a multiple of 64")
    sequence = i64("of the write; PAD: of the last write before it; ACK: durable up to it")
    address = i64("byte offset in the volume; PAD: durable sequence when it was made; ACK: received up to it")
    epoch = i64("in which it was made")
    volume = i64("identity that replicas of one volume share")
    stamp_ns = i64("CLOCK_MONOTONIC of the sender at submit")
    extra = i64(
        "TRIM: bytes given back; SNAPSHOT: its instant, ns, CLOCK_REALTIME of the primary; FORGET: sequence of the snapshot; "
        "ACK: times the log was begun anew on this connection; DIGEST: 1 when verifying; "
        "SYNCED: epoch of the last write before the log's new beginning; zero in every other kind"
    )


@kernel()
def record_bytes(length):
    """Bytes a record with this payload takes: header and payload, rounded up to 64."""
    return np.int64(HEADER_BYTES) + ((np.int64(length) + 63) & ~np.int64(63))


@kernel()
def lies_in(begin, size, lowest, end):
    """Whether `size` things from `begin` on lie between `lowest` and `end`; with size 0, whether `begin` is one of them or `end`.

    Every number of a frame is held against its bounds here. `begin` and `size` are what a peer has sent; `lowest` and `end` are
    ours, from 0 to NUMBER_MAX, and nothing lies in them when `end` is the lower one. What was sent is only compared, and
    subtracted once it is known to be small enough: nothing wraps, whatever was sent.
    """
    return 0 <= size <= end - lowest and lowest <= begin <= end - size


@kernel()
def is_applicable(kind, address, size, volume_bytes):
    """Whether replay can apply a WRITE or TRIM of so many bytes: one that can is some bytes of the volume, and fits a record.

    What is submitted, what a primary sends and what a replay finds is held against this one rule: nothing else gets into a log.
    """
    largest = np.int64(LENGTH_MAX) if kind == WRITE else np.int64(NUMBER_MAX)
    known = kind in (WRITE, TRIM)
    return known and 1 <= size <= largest and lies_in(address, size, np.int64(0), volume_bytes)


@kernel()
def is_marker(kind):
    """Whether a record of the log changes no byte of the volume, and which snapshots there are instead."""
    return kind in (SNAPSHOT, FORGET)


@kernel()
def is_logged(kind):
    """Whether records of this kind are in the log and have a sequence of their own."""
    return kind in (WRITE, TRIM) or is_marker(kind)


@kernel()
def is_marker_applicable(kind, address, length, extra, sequence):
    """is_applicable() of a SNAPSHOT or FORGET with this sequence."""
    if address != 0:
        return False
    if kind == SNAPSHOT:
        return 1 <= length <= NAME_BYTES_MAX and lies_in(extra, np.int64(0), np.int64(0), np.int64(NUMBER_MAX))
    return length == 0 and lies_in(extra, np.int64(0), np.int64(1), sequence - 1)


@kernel()
def kind_of(headers, start):
    """The kind of the record whose header begins at byte `start`."""
    return np.int64(headers[start >> 6].kind)


@kernel()
def length_of(headers, start):
    """Payload bytes of the record at `start`."""
    return np.int64(headers[start >> 6].length)


@kernel()
def sequence_of(headers, start):
    """Sequence of the record at `start`."""
    return headers[start >> 6].sequence


@kernel()
def address_of(headers, start):
    """Address of the record at `start`."""
    return headers[start >> 6].address


@kernel()
def epoch_of(headers, start):
    """Epoch of the record at `start`."""
    return headers[start >> 6].epoch


@kernel()
def ordinal_of(headers, start):
    """Ordinal of the frame at `start` among those that are not in the log."""
    return np.int64(headers[start >> 6].ordinal)


@kernel()
def is_next(headers, start, count):
    """Whether the frame at `start`, which is not in the log, is the one behind the `count` that were heard before it."""
    return ordinal_of(headers, start) == (count + 1) & ORDINAL_MASK


@kernel()
def has_payload(kind):
    """Whether records of this kind may carry bytes behind their header."""
    return kind in (WRITE, PAD, HELLO, EXTENT, SYNCED, DIGEST, DIFFERS, SNAPSHOT)


@kernel()
def guarded_length(kind, length):
    """Payload bytes the CRC covers: a PAD's filling means nothing and is left out."""
    return np.int64(0) if kind == PAD else np.int64(length)


@kernel()
def checksum(data, start, kind, length):
    """CRC32C over the header behind its checksum and over the payload."""
    end = start + HEADER_BYTES + guarded_length(kind, length)
    return crc32c(np.int64(0), data, start + WORD_BYTES, end)


@kernel()
def extra_of(headers, start):
    """The field of the header at `start` whose meaning is its kind's."""
    return headers[start >> 6].extra


@kernel()
def trimmed_of(headers, start):
    """Bytes that the TRIM record at `start` gives back."""
    return extra_of(headers, start)


@kernel()
def written_of(headers, start):
    """Bytes of the volume that the record of the log at `start` changes."""
    kind = kind_of(headers, start)
    if kind == TRIM:
        return trimmed_of(headers, start)
    return np.int64(0) if is_marker(kind) else length_of(headers, start)


@kernel()
def seal(data, headers, start, kind, length, sequence, address, epoch, volume, stamp_ns, extra=0, ordinal=0):
    """Write the header of the record at `start`, whose payload already stands behind it. `headers` is the memory of `data`."""
    assert start & 63 == 0
    header = headers[start >> 6]
    header.kind, header.version, header.ordinal, header.length = kind, VERSION, ordinal & ORDINAL_MASK, length
    header.sequence, header.address = sequence, address
    header.epoch, header.volume = epoch, volume
    header.stamp_ns, header.extra = stamp_ns, extra
    header.magic, header.crc = MAGIC, checksum(data, start, kind, length)


@kernel()
def inspect(data, headers, start, available, volume):
    """What stands at `start` with `available` bytes in hand: COMPLETE, INCOMPLETE, or what is wrong with it.

    Nothing behind the header is believed before the header itself is plausible, and no length before it is bounded.
    """
    if available < HEADER_BYTES:
        return INCOMPLETE
    header = headers[start >> 6]
    kind, length = kind_of(headers, start), length_of(headers, start)
    if header.magic != MAGIC:
        return BAD_MAGIC
    if header.version != VERSION:
        return BAD_VERSION
    if kind < WRITE or kind > FORGET:
        return BAD_KIND
    if length > LENGTH_MAX or (length > 0 and not has_payload(kind)):
        return BAD_LENGTH
    if available < HEADER_BYTES + guarded_length(kind, length):
        return INCOMPLETE
    if header.crc != checksum(data, start, kind, length):
        return BAD_CRC
    if header.volume != volume:
        return WRONG_VOLUME
    return COMPLETE
