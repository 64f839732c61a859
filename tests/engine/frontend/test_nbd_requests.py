"""What a request's header asks for and what it is answered, against an oracle, over good, bad and mutated headers."""

import numpy as np
import pytest

from both_ways import both_ways
from farwrite.engine.frontend import body_kernel, nbd, nbd_kernel
from farwrite.engine.frontend import session_kernel as sessions
from oracle import nbd_oracle

SIZE = 1 << 30
MUTATIONS = 100_000


def session_flags(read_only, structured, allocation):
    return sessions.READ_ONLY * read_only | sessions.STRUCTURED * structured | sessions.ALLOCATION * allocation


def some_header(random):
    """A request as clients make them, with a number or two that are less likely."""
    lengths = (0, 1, 512, 4096, 65536, 1 << 20, 32 << 20, (32 << 20) + 1, (1 << 32) - 1, int(random.integers(0, 1 << 32)))
    length = int(random.choice(lengths))
    addresses = (0, 512, 4096, SIZE - length, SIZE - length + 1, SIZE, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
                 int(random.integers(0, SIZE)))  # fmt: skip
    address = max(int(addresses[random.integers(len(addresses))]), 0)
    flags = int(random.choice((0, 0, 1, 2, 4, 8, 16, 18, 32, int(random.integers(0, 1 << 16)))))
    command = int(random.choice((*range(8), 8, 9, int(random.integers(0, 1 << 16)))))
    return nbd_oracle.header(nbd.REQUEST_MAGIC, flags, command, int(random.integers(0, 1 << 63)), address, length)


def mutated(random, header):
    """The header with a bit or a byte of it changed, at times."""
    data = bytearray(header)
    for _ in range(int(random.integers(0, 3))):
        place = int(random.integers(0, 28))
        data[place] = data[place] ^ (1 << int(random.integers(8))) if random.random() < 0.7 else int(random.integers(256))
    return bytes(data)


@pytest.mark.parametrize("asked_of", both_ways(nbd_kernel.asked_of))
def test_a_header_is_read_wherever_it_stands(asked_of):
    random = np.random.default_rng(1)
    for start in (0, 1, 7, 28):
        header = some_header(random)
        data = np.frombuffer(bytes(start) + header + b"\xff", np.uint8)
        assert tuple(asked_of(data, start)) == nbd_oracle.fields(header)


@pytest.mark.parametrize("decide", both_ways(nbd_kernel.decide))
@pytest.mark.parametrize("seed", range(8))
def test_a_request_gets_what_the_protocol_says(decide, seed):
    random = np.random.default_rng(seed)
    read_only, structured, allocation = (bool(seed >> bit & 1) for bit in range(3))
    flags = session_flags(read_only, structured, allocation)
    for _ in range(300):
        header = some_header(random)
        block = int(random.choice((1, 1, 512, 4096)))
        shutting_down = bool(random.random() < 0.1)
        asked = nbd_kernel.asked_of(np.frombuffer(header, np.uint8), 0)
        expected = nbd_oracle.decide(header, SIZE, block, read_only, structured, allocation, shutting_down)
        assert decide(asked, flags, SIZE, block, int(shutting_down)) == expected, header.hex()


def fuzz(count, seed):
    """Hold so many mutated headers against the oracle; how many of each answer there were."""
    random = np.random.default_rng(seed)
    answers = {}
    for number in range(count):
        header = mutated(random, some_header(random))
        read_only, structured, allocation = (bool(number >> bit & 1) for bit in range(3))
        asked = nbd_kernel.asked_of(np.frombuffer(header, np.uint8), 0)
        expected = nbd_oracle.decide(header, SIZE, 1, read_only, structured, allocation)
        answer = int(nbd_kernel.decide(asked, session_flags(read_only, structured, allocation), SIZE, 1, 0))
        assert answer == expected, header.hex()
        answers[answer] = answers.get(answer, 0) + 1
    return answers


def test_mutated_requests_get_what_the_protocol_says():
    answers = fuzz(MUTATIONS // 5, 3)
    assert {0, -1, nbd.EINVAL, nbd.EPERM, nbd.ENOSPC, nbd.ENOTSUP} == set(answers)


@pytest.mark.parametrize("piece_of", both_ways(body_kernel.piece_of))
def test_a_payload_is_taken_once_nobody_waits_for_its_client(piece_of):
    random = np.random.default_rng(2)
    for _ in range(500):
        left = int(random.choice((1, 512, 4096, 65536, 1 << 20, 32 << 20)))
        waiting = int(random.integers(0, min(left, 65536) + 1))
        arrived = int(random.integers(0, left - waiting + 1))
        piece_bytes, inbox = int(random.choice((4096, 65536, 1 << 20))), int(random.choice((4096, 65536)))
        size = int(piece_of(left, waiting, arrived, piece_bytes, inbox))
        assert size == nbd_oracle.piece(left, waiting, arrived, piece_bytes, inbox)
        assert size <= min(left, waiting + arrived, piece_bytes)
