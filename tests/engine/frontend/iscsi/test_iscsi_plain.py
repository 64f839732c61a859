"""Which commands the loop takes, against an oracle, over good, bad and mutated headers."""

import random

import numpy as np
import pytest

from both_ways import both_ways
from farwrite.engine.frontend import iscsi_kernel
from farwrite.engine.frontend import session_kernel as sessions
from oracle import iscsi_oracle

SIZE = 1 << 30


def some_header(pick):
    """A SCSI command as initiators send it, with a number or two that are less likely."""
    opcode = pick.choice([0x28, 0xA8, 0x88, 0x2A, 0xAA, 0x8A, 0x35, 0x91, 0x08, 0x89, 0x9C, pick.randrange(256)])
    blocks = SIZE // 512
    count = pick.choice([0, 1, 8, 8, 512, 8192, 8193, 65535, blocks])
    edges = [blocks - count, blocks - count + 1, blocks, (1 << 32) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
    lba = pick.choice([0, 0, 0, 0, 1, 1, *edges])
    lba = max(lba, 0)
    if opcode >> 5 == 4:
        body = lba.to_bytes(8, "big") + (count & 0xFFFFFFFF).to_bytes(4, "big") + bytes(2)
    elif opcode >> 5 == 5:
        body = (lba & 0xFFFFFFFF).to_bytes(4, "big") + count.to_bytes(4, "big") + bytes(2)
    else:
        body = (lba & 0xFFFFFFFF).to_bytes(4, "big") + b"\0" + (count & 0xFFFF).to_bytes(2, "big") + b"\0"
    cdb = (bytes([opcode, pick.choice([0, 0, 0, 0, 0, 8, 0x18, 0x20, 0xE0])]) + body).ljust(16, b"\0")
    moved = count * 512 if opcode not in (0x35, 0x91) else 0
    expected = pick.choice([moved, moved, moved, moved + 512, 0, 100]) & 0xFFFFFFFF
    fitting = 0x81 if opcode in (0x35, 0x91) else 0xC1 if opcode in (0x28, 0xA8, 0x88) else 0xA1
    flags = pick.choice([fitting] * 8 + [0x81, 0x80, 0xC1, 0xC0, 0xA1, 0x21, 0xE1, 0xC2, 0x41])
    immediate = pick.choice([0, 0, 512, 4096]) if fitting == 0xA1 or pick.random() < 0.1 else 0
    head = bytes([1, flags, 0, 0, pick.choice([0] * 9 + [1])]) + immediate.to_bytes(3, "big")
    head += pick.choice([0] * 9 + [1 << 48]).to_bytes(8, "big")
    return head + (7).to_bytes(4, "big") + expected.to_bytes(4, "big") + bytes(8) + cdb


@pytest.mark.parametrize("is_plain", both_ways(iscsi_kernel.is_plain))
@pytest.mark.parametrize("seed", range(4))
def test_the_loop_takes_what_is_plain_and_nothing_else(is_plain, seed):
    pick, taken = random.Random(seed), 0
    for _ in range(2000):
        header = bytearray(some_header(pick))
        for _ in range(pick.choice([0, 0, 0, 1, 2])):
            header[pick.randrange(48)] ^= 1 << pick.randrange(8)
        start, is_read_only, gate = pick.choice([0, 7, 48]), pick.random() < 0.2, pick.choice([0, 0, 0, 0, 1])
        data = np.frombuffer(bytearray(start) + header, np.uint8)
        flags = np.int64(sessions.READ_ONLY if is_read_only else 0)
        answer = is_plain(data, np.int64(start), np.int64(SIZE), flags, np.int64(gate))
        expected = iscsi_oracle.is_plain(bytes(header), SIZE, is_read_only, gate)
        assert (answer == 0) == expected, bytes(header).hex()
        taken += expected
    assert taken > 50
