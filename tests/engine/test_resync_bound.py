"""A resync looks at a bounded number of extents in each turn, whatever the volume's size, and passes over each once."""

import numpy as np
import pytest

from farwrite.base.host import pretend_kernel as pretend
from farwrite.base.host import reactor
from farwrite.base.row import rows_of
from farwrite.engine import journal_kernel as log
from farwrite.engine import primary_kernel as primary
from farwrite.engine import record_kernel as record
from farwrite.engine import replica_kernel as replica
from farwrite.engine import resync_kernel
from interpreted import Interpreter

EXTENTS, EXTENT, BOUND = 103, 64, 8
CAPACITY, STAGING = 64 << 10, 16 << 10
LOOKED = []


class Watched(np.ndarray):
    """An array that tells which of its elements were read, alone or in a row."""

    def __getitem__(self, key):
        LOOKED.append(key)
        return super().__getitem__(key)


@pytest.fixture
def resyncing():
    kernels = Interpreter().module(resync_kernel)
    for kernel in (kernels.begin_resync, kernels.find_written, kernels.next_wanted, kernels.resync):
        kernel.__globals__["EXTENTS_PER_TURN"] = BOUND
    return kernels


def state():
    """A primary with one peer, both up to write 9, on a disk and a network in memory."""
    segments = np.zeros((2, pretend.SEGMENTS), np.int64)
    world = pretend.world(
        np.ones(1, np.int64), log.SUPERBLOCK_BYTES + CAPACITY, EXTENTS * EXTENT, STAGING, rows_of(pretend.Stream, 2),
        np.zeros((2, 1 << 16), np.uint8), segments, segments.copy(),
    )  # fmt: skip
    pretend.connect(world, 0, 0, 0)
    journal = log.journal_state(CAPACITY, STAGING, 7, 1, 0, 0, EXTENTS * EXTENT, EXTENT, 64)
    log.begin_at(journal, 0, 9)
    journal.at[0].known_since = 0
    made = primary.primary_state(
        journal, reactor.pretended(world), [0], primary.C, 1, 10**12, volume_bytes=EXTENTS * EXTENT, resync_buffer_bytes=8192,
        lag_ring=64,
    )  # fmt: skip
    return world, made, made._replace(journal=journal._replace(last_write=journal.last_write.view(Watched)),
                                      wanted=made.wanted.view(Watched))  # fmt: skip


def received(world):
    """(kind, address, payload bytes) of each frame that the peer has been sent since the last time."""
    data = np.zeros(1 << 16, np.uint8)
    size = max(int(pretend.receive(world, 1, data, 0, data.size)), 0)
    headers, at, frames = data.view(record.Header.LAYOUT), 0, []
    while at < size:
        header = headers[at >> 6]
        frames.append((int(header.kind), int(header.address), int(header.length)))
        at += int(record.record_bytes(int(header.length)))
    return frames


@pytest.mark.parametrize("chosen", [(), (0,), (102,), (3, 4, 50, 90), range(0, 103, 9), range(103)])
def test_a_resync_by_extents_looks_at_few_extents_a_turn_and_sends_exactly_those_written(resyncing, chosen):
    world, made, watched = state()
    made.journal.last_write[list(chosen)] = 7
    made.journal.last_write[[index for index in range(EXTENTS) if index not in chosen]] = 5
    LOOKED.clear()
    resyncing.begin_resync(watched, 0, 5, primary.BY_EXTENTS, 1)
    sent, looked, turns = [], len(LOOKED), 0
    assert looked <= BOUND
    while made.peer[0].state == primary.RESYNCING:
        LOOKED.clear()
        assert resyncing.resync(watched, 0, 1) == replica.OK
        assert len(LOOKED) <= 2 * BOUND + 1
        assert resyncing.left_bytes(watched, 0) >= 0
        sent += received(world)
        looked, turns = looked + len(LOOKED), turns + 1
    assert looked <= 2 * EXTENTS + 2 * turns  # Each once in last_write, once in wanted, and again where a turn went on.
    # Where no byte was written, one extent all the same: it tells how far the copy is.
    assert sent == [(record.EXTENT, EXTENT * index, EXTENT) for index in chosen or [0]] + [(record.SYNCED, 9, 0)]


def test_a_resync_by_digests_keeps_its_place_and_sends_exactly_those_that_differ(resyncing):
    world, made, watched = state()
    made.wanted[0] = 1  # Of a resync before this one.
    resyncing.begin_resync(watched, 0, 5, primary.BY_DIGESTS, 1)
    differing, sent, answers = {0, 7, 8, 60, 102}, [], 0
    while made.peer[0].state == primary.RESYNCING:
        LOOKED.clear()
        assert resyncing.resync(watched, 0, 1) == replica.OK
        assert len(LOOKED) <= BOUND + 1
        for kind, address, length in received(world):
            if kind != record.DIGEST:
                sent.append((kind, address))
                continue
            count = length // resync_kernel.DIGEST_BYTES
            frame = np.zeros(128, np.uint8)
            frame[64 : 64 + count] = [address + place in differing for place in range(count)]
            answers += 1
            record.seal(
                frame, frame.view(record.Header.LAYOUT), 0, record.DIFFERS, count, 0, address, 1, 7, 0, 0, answers
            )  # fmt: skip
            pretend.send(world, 1, frame, 0, frame.size)
        assert primary.hear(made, 0, 1) == replica.OK
    assert sent == [(record.EXTENT, EXTENT * index) for index in sorted(differing)] + [(record.SYNCED, 9)]
    assert made.peer[0].wanted_count == 0
