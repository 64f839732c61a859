"""What a request of NBD is answered, by the sentences of doc/proto.md, with dictionaries and plain numbers."""

import struct

NAMES = ["read", "write", "disc", "flush", "trim", "cache", "write_zeroes", "block_status"]
ERRORS = {"EPERM": 1, "EIO": 5, "EINVAL": 22, "ENOSPC": 28, "ENOTSUP": 95, "ESHUTDOWN": 108}
FLAGS = {"fua": 1, "no_hole": 2, "df": 4, "req_one": 8, "fast_zero": 16}
CHANGES = {"write", "trim", "write_zeroes"}


def header(magic, flags, command, tag, address, length):
    return struct.pack(">IHHQQI", magic, flags, command, tag, address, length)


def fields(data):
    magic, flags, command, tag, address, length = struct.unpack(">IHHqqI", data)
    return magic, flags, command, tag, address, length


def decide(data, size, block, read_only=False, structured=False, allocation=False, shutting_down=False):
    """0, an error, or -1 when the connection is to end."""
    magic, flags, command, _, address, length = struct.unpack(">IHHQQI", data)
    if magic != 0x25609513:
        return -1
    name = NAMES[command] if command < len(NAMES) else "unknown"
    if name == "disc":
        return 0
    if shutting_down:
        return ERRORS["ESHUTDOWN"]
    allowed = {"fua"}
    allowed |= {"write_zeroes": {"no_hole", "fast_zero"}, "block_status": {"req_one"}}.get(name, set())
    if name == "read" and structured:
        allowed |= {"df"}
    if name == "unknown" or flags not in {sum(FLAGS[one] for one in some) for some in subsets(allowed)}:
        return ERRORS["EINVAL"]
    if name == "flush":
        return 0
    if name in CHANGES and read_only:
        return ERRORS["EPERM"]
    if name == "block_status" and (not allocation or length == 0):
        return ERRORS["EINVAL"]
    if address % block or length % block:
        return ERRORS["EINVAL"]
    if name in ("read", "write") and length > 32 * 1024 * 1024:
        return ERRORS["EINVAL"]
    if address + length > size:
        return ERRORS["ENOSPC" if name in ("write", "write_zeroes") else "EINVAL"]
    if name == "write_zeroes" and flags & FLAGS["no_hole"] and flags & FLAGS["fast_zero"]:
        return ERRORS["ENOTSUP"]
    return 0


def subsets(names):
    found = [set()]
    for name in sorted(names):
        found += [some | {name} for some in found]
    return found


def chunks(extents, address, length):
    """How a read is answered in chunks: [(kind, offset, size)], of extents (size, is_hole) that begin at `address`.

    Neighbours of a kind are one here. A small read is a hole only as a whole; a short hole is sent as zeros unless it is the end.
    """
    kinds, at, end = [], address, address + length
    for size, is_hole in extents:
        stop = min(at + size, end)
        counts = (at, stop) == (address, end) if length <= 16384 else stop - at >= 32768 or stop == end
        kind = "hole" if is_hole and counts else "data"
        if kinds and kinds[-1][0] == kind:
            kinds[-1] = (kind, kinds[-1][1], kinds[-1][2] + stop - at)
        else:
            kinds.append((kind, at, stop - at))
        at = stop
        if at == end:
            return kinds
    raise AssertionError("extents are missing")


def piece(left, waiting, arrived, piece_bytes, inbox_bytes):
    """How much of a write is taken now: all that may be, once it is here; else whole pages, once there are many."""
    wanted = left if left < piece_bytes else piece_bytes
    here = waiting + arrived
    if here >= wanted:
        return wanted
    enough = 32768 if inbox_bytes > 32768 else inbox_bytes
    return here // 4096 * 4096 if here >= enough else 0
