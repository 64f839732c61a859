"""What a volume takes, counted by a primary in a pretend world, against sets (oracle): also after restarts and power losses.

Many replicas, resyncs and failovers are the simulator's.
"""

import random

import numpy as np
import pytest

from farwrite.base.host import reactor
from farwrite.base.host.disk import disk
from farwrite.base.row import rows_of
from farwrite.engine import journal as journals
from farwrite.engine import primary_kernel as primary
from farwrite.engine import record_kernel as record
from farwrite.engine import replica_kernel as replica
from farwrite.engine import room_kernel as room
from farwrite.engine import turn_kernel
from farwrite.engine.journal import format_journal
from farwrite.engine.node import recall
from oracle import room_oracle

VOLUME, EXTENT, VOLUME_BYTES = 7, 64 << 10, (1 << 20) + 1536
JOURNAL_BYTES, STAGING_BYTES = 4 << 20, 1 << 20
UNIT = 512  # What the oracle counts by; the file system gives back blocks of 4096.
BLOCK = 4096


class Machine:
    """A primary that leads alone, its files in memory, and the oracle beside it."""

    def __init__(self, stack, count=None):
        self.disk = stack.enter_context(disk(None, JOURNAL_BYTES, VOLUME_BYTES))
        self.ring = stack.enter_context(reactor.reactor("plain"))
        self.begin(format_journal(self.disk, VOLUME, 1, STAGING_BYTES))
        self.oracle = room_oracle.Volume(EXTENT, VOLUME_BYTES)

    def begin(self, journal):
        self.journal = journal
        self.state = primary.primary_state(journal, self.ring, [], primary.LOCAL, 5, 10**12, volume_bytes=VOLUME_BYTES)

    @property
    def count(self):
        return self.journal.room.at[0]

    def limit(self, extents):
        self.count["limit"] = extents * EXTENT

    def write(self, address, size):
        return int(primary.submit(self.state, 1, address, size, 1))

    def trim(self, address, size):
        return int(primary.submit_trim(self.state, address, size, 1))

    def settle(self):
        assert replica.settle(self.journal, self.ring) == replica.OK


@pytest.fixture
def machine():
    import contextlib

    with contextlib.ExitStack() as stack:
        yield Machine(stack)


def settle_with(machine):
    machine.settle()
    while machine.oracle.log:
        machine.oracle.apply_one()


@pytest.mark.parametrize("seed", range(20))
def test_what_is_counted_is_what_the_file_and_the_log_take_and_nothing_goes_beyond_the_limit(machine, seed):
    draw, oracle = random.Random(seed), machine.oracle
    refused = 0
    for turn in range(200):
        if draw.random() < 0.05:
            machine.limit(draw.choice((0, 1, 4, 9, 17)))
        size = BLOCK * draw.choice((1, 1, 2, 16, 20))
        address = draw.randrange((VOLUME_BYTES - size) // BLOCK + 1) * BLOCK
        if draw.random() < 0.4:
            whole = draw.random() < 0.5
            address, size = (address // EXTENT * EXTENT, EXTENT) if whole else (address, size)
            size = min(size, VOLUME_BYTES - address)
            assert machine.trim(address, size) == 1
            oracle.log.append((False, address, size))
        else:
            before, fits = int(machine.journal.at[0].staged_sequence), oracle.fits(address, size, int(machine.count["limit"]))
            answer = machine.write(address, size)
            if answer == 0:  # A trim in the log may give something back, or memory is full.
                assert fits or any(not is_write for is_write, _, _ in oracle.log)
                settle_with(machine)
                answer, fits = machine.write(address, size), oracle.fits(address, size, int(machine.count["limit"]))
            assert answer == (1 if fits else primary.NO_SPACE), turn
            if fits:
                oracle.log.append((True, address, size))
            else:
                refused += 1
                assert machine.journal.at[0].staged_sequence == before
        if draw.random() < 0.2:
            settle_with(machine)
        assert machine.count["allocated"] == len(oracle.taken()) * EXTENT, turn
    assert machine.count["refused"] == refused


def test_a_replica_that_is_opened_again_counts_what_its_file_and_its_log_hold(machine):
    assert machine.write(0, BLOCK) == machine.write(5 * EXTENT - 512, 1024) == machine.write(9 * EXTENT, EXTENT) == 1
    assert machine.trim(9 * EXTENT, EXTENT - BLOCK) == 1
    machine.settle()
    assert machine.count["allocated"] == 4 * EXTENT
    board = rows_of(room.Count)
    board[0].limit, board[0].allocated, board[0].refused = 3 * EXTENT, 77, 5
    machine.begin(recall(machine.disk, VOLUME, STAGING_BYTES, board))
    assert board[0].allocated == 4 * EXTENT and board[0].limit == 3 * EXTENT and board[0].refused == 0
    assert board[0].promised == -(-VOLUME_BYTES // EXTENT) * EXTENT
    assert machine.write(EXTENT, BLOCK) == primary.NO_SPACE and machine.write(4096, BLOCK) == 1
    board[0].limit = 5 * EXTENT
    assert machine.write(EXTENT, BLOCK) == 1 and board[0].allocated == 5 * EXTENT


def test_a_trim_gives_room_to_who_writes_right_after_it(machine):
    machine.limit(2)
    assert machine.write(0, BLOCK) == machine.write(EXTENT, BLOCK) == 1
    machine.settle()
    assert machine.write(2 * EXTENT, BLOCK) == primary.NO_SPACE
    assert machine.trim(0, EXTENT) == 1
    assert machine.write(2 * EXTENT, BLOCK) == 0, "it waits for the trim to be applied"
    answers = []
    while 1 not in answers and len(answers) < 40:
        assert turn_kernel.progress(machine.state, 0) == replica.OK
        answers.append(machine.write(2 * EXTENT, BLOCK))
    assert {*answers[:-1]} == {0} and answers[-1] == 1 and machine.count["refused"] == 1
    assert machine.trim(5 * EXTENT, EXTENT) == 1, "of what takes no room"
    assert machine.write(3 * EXTENT, BLOCK) == primary.NO_SPACE, "nothing is waited for that gives nothing back"


def test_an_extent_is_given_back_once_its_last_block_is_and_not_before(machine):
    assert machine.write(0, EXTENT) == 1
    machine.settle()
    for at in range(0, EXTENT, EXTENT // 4):
        assert machine.count["allocated"] == EXTENT
        assert machine.trim(at, EXTENT // 4) == 1
        machine.settle()
    assert machine.count["allocated"] == 0
    assert machine.write(0, EXTENT) == machine.trim(0, EXTENT) == machine.write(BLOCK, BLOCK) == 1
    machine.settle()
    assert machine.count["allocated"] == EXTENT, "what is written behind the trim is there"


def test_zeros_that_keep_their_room_and_a_compare_and_write_are_refused_like_writes(machine):
    machine.limit(1)
    assert machine.write(0, BLOCK) == 1
    assert int(primary.submit_zeros(machine.state, EXTENT, BLOCK, 1)) == primary.NO_SPACE
    nothing, data, seen = np.zeros(512, np.uint8), np.ones(512, np.uint8), np.zeros(512, np.uint8)
    ask = machine.state, nothing, 0, data, 0
    assert int(primary.compare_and_write(*ask, 3 * EXTENT, 512, seen, 0, 1)) == primary.NO_SPACE
    assert int(primary.compare_and_write(*ask, 8192, 512, seen, 0, 1)) == 1
    assert int(primary.submit_zeros(machine.state, 4096, BLOCK, 1)) == 1
    assert machine.journal.at[0].staged_sequence == 3


def test_what_snapshots_keep_refuses_no_write(machine):
    machine.limit(3)
    assert machine.write(0, BLOCK) == machine.write(EXTENT, BLOCK) == 1
    machine.settle()
    machine.count["kept"] = 9 * EXTENT
    assert machine.write(2 * EXTENT, BLOCK) == 1 and machine.write(3 * EXTENT, BLOCK) == primary.NO_SPACE


def test_a_limit_below_what_is_used_takes_nothing_away(machine):
    assert machine.write(0, 4 * EXTENT) == 1
    machine.limit(2)
    assert machine.write(BLOCK, BLOCK) == 1 and machine.write(4 * EXTENT, BLOCK) == primary.NO_SPACE
    machine.settle()
    assert machine.trim(0, 2 * EXTENT) == 1
    machine.settle()
    assert machine.write(4 * EXTENT, BLOCK) == primary.NO_SPACE and machine.write(0, BLOCK) == primary.NO_SPACE
    assert machine.trim(2 * EXTENT, EXTENT) == 1
    machine.settle()
    assert machine.write(0, BLOCK) == 1


def test_the_count_of_an_opening_is_of_runs_of_data(machine):
    data = np.ones(BLOCK, np.uint8)
    for address in (0, EXTENT - BLOCK, 3 * EXTENT + 8192, VOLUME_BYTES - BLOCK):
        assert reactor.write_volume(machine.ring, machine.disk.volume_fd, data, 0, BLOCK, address) == BLOCK
    again = journals.format_journal(machine.disk, VOLUME, 1, STAGING_BYTES)
    held = np.flatnonzero(again.room.extent).tolist()
    assert held == [0, 3, (VOLUME_BYTES - BLOCK) // EXTENT, (VOLUME_BYTES - 1) // EXTENT]
    assert again.room.at[0].allocated == len(held) * EXTENT
    assert record.WRITE == 1  # note_staged tells kinds apart by it
