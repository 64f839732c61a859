"""A record as bytes put one behind the other, and what may stand wrong in one, looked at in the order of belief."""

import struct

from oracle import crc_oracle

MAGIC = b"FRW1"
KINDS = {
    "write": 1, "pad": 2, "hello": 3, "ack": 4, "ping": 5, "goodbye": 6, "trim": 7, "command": 8, "ready": 9, "extent": 10,
    "synced": 11, "digest": 12, "differs": 13, "snapshot": 14, "forget": 15,
}  # fmt: skip
LADEN = {KINDS[name] for name in ("write", "pad", "hello", "extent", "synced", "digest", "differs", "snapshot")}


def rounded(length):
    """Bytes a record takes: a header of 64, then the payload in whole 64s."""
    size = 64
    while size < 64 + length:
        size += 64
    return size


def header(kind, length=0, sequence=0, address=0, epoch=1, volume=7, stamp_ns=0, version=2, payload=b"", ordinal=0):
    """The 64 bytes; `length` is what they claim, `payload` what their checksum really covers."""
    kind = KINDS.get(kind, kind)
    rest = struct.pack("<BBHIqqqqqq", kind, version, ordinal, length, sequence, address, epoch, volume, stamp_ns, 0)
    return MAGIC + struct.pack("<I", crc_oracle.crc32c(rest + payload)) + rest


def write(payload, sequence, address, epoch=1, volume=7, stamp_ns=0):
    """A whole WRITE record, filled up with zeros."""
    head = header("write", len(payload), sequence, address, epoch, volume, stamp_ns, payload=payload)
    return (head + payload).ljust(rounded(len(payload)), b"\0")


def inspect(data, volume):
    """A word for what stands at the beginning of `data`."""
    if len(data) < 64:
        return "incomplete"
    magic, checksum, kind, version, _, length, _, _, _, its_volume, _, _ = struct.unpack("<4sIBBHIqqqqqq", data[:64])
    if magic != MAGIC:
        return "bad magic"
    if version != 2:
        return "bad version"
    if kind not in KINDS.values():
        return "bad kind"
    if length > 1 << 20 or (length and kind not in LADEN):
        return "bad length"
    guarded = data[8:64] if kind == KINDS["pad"] else data[8 : 64 + length]
    if kind != KINDS["pad"] and len(data) < 64 + length:
        return "incomplete"
    if checksum != crc_oracle.crc32c(guarded):
        return "bad crc"
    return "complete" if its_volume == volume else "wrong volume"


def fields(data):
    """(kind, length, sequence, address, epoch) of a header."""
    _, _, kind, _, _, length, sequence, address, epoch = struct.unpack("<4sIBBHIqqq", data[:40])
    return kind, length, sequence, address, epoch


def ordinal_of(data):
    """What a header says of its place among the frames that are not in the log."""
    return struct.unpack("<H", data[10:12])[0]
