"""Which SCSI commands the loop does by itself, in the plainest Python."""

READS, WRITES, FLUSHES = {0x28: 10, 0xA8: 12, 0x88: 16}, {0x2A: 10, 0xAA: 12, 0x8A: 16}, {0x35: 10, 0x91: 16}


def is_plain(header, size_bytes, is_read_only, gate):
    """Whether the loop does it: a header of 48 bytes, an export of so many bytes."""
    flags, cdb = header[1], header[32:48]
    if gate or header[4] or any(header[8:16]) or flags & 7 not in (0, 1):
        return False
    length = (READS | WRITES | FLUSHES).get(cdb[0])
    if length is None or cdb[length - 1]:
        return False
    if length == 16:
        lba, count = int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big")
    elif length == 12:
        lba, count = int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[6:10], "big")
    else:
        lba, count = int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big")
    if lba + count > size_bytes // 512:
        return False
    is_final, reads, writes = bool(flags & 0x80), bool(flags & 0x40), bool(flags & 0x20)
    expected = int.from_bytes(header[20:24], "big")
    if cdb[0] in FLUSHES:
        return is_final and not reads and not writes and expected == 0
    if cdb[1] & 0xE0 or not 0 < count * 512 == expected <= 4 << 20:
        return False
    if cdb[0] in READS:
        return is_final and reads and not writes and not any(header[5:8])
    return writes and not reads and not is_read_only
