"""A payload packed field by field into bytes."""

import struct
from itertools import islice

from oracle import prng_oracle
from oracle.crc_oracle import crc32c

PAYLOAD = 4


def payload(size, seed, write_number, address):
    key = prng_oracle.key_of(seed, PAYLOAD)
    words = prng_oracle.sequence(prng_oracle.nth(key, write_number))
    rest = b"".join(struct.pack("<Q", word) for word in islice(words, size // 8))[: size - 32]
    fields = b"FRWP" + struct.pack("<IqqI", size, write_number, address, key & 0xFFFFFFFF)
    return fields + struct.pack("<I", crc32c(fields + rest)) + rest


def check(block, address):
    """The write number, or a word for what is wrong."""
    magic, size, write_number, stamped, _, crc = struct.unpack("<4sIqqII", block[:32])
    if magic == bytes(4):
        return "blank"
    if magic != b"FRWP":
        return "foreign"
    if stamped != address:
        return "wrong address"
    if size != len(block):
        return "wrong size"
    return write_number if crc == crc32c(block[:28] + block[32:]) else "bad checksum"


def contents(count, writes_own):
    """Which content each write carries: of 1024 in a row the first `writes_own` are new, the others repeat them in turn."""
    carried, fresh = [], 0
    for number in range(count):
        if number % 1024 == 0:
            window = []
        if len(window) < writes_own:
            window.append(fresh)
            carried.append(fresh)
            fresh += 1
        else:
            carried.append(window[number % 1024 % writes_own])
    return carried
