"""Snapshots of one replica: each shows the volume of its instant, whatever is written, deleted, refused or lost afterwards.

A primary without peers in a pretend world, whose disk may lose its power or refuse between any two operations, against a volume
whose snapshots are plain copies (oracle). Many replicas, votes and resyncs are the simulator's.
"""

import os

import numpy as np
import pytest

from farwrite.base.errors import UnfitError, UsageError
from farwrite.base.host import pretend_kernel as pretend
from farwrite.base.host import reactor
from farwrite.base.host.disk import disk
from farwrite.base.row import rows_of
from farwrite.engine import journal as journals
from farwrite.engine import journal_kernel as log
from farwrite.engine import primary_kernel as primary
from farwrite.engine import record_kernel as record
from farwrite.engine import replica_kernel as replica
from farwrite.engine import snapshot_kernel as snapshot
from farwrite.engine import turn_kernel
from farwrite.engine.handshake import lead
from farwrite.engine.journal import begin_anew
from farwrite.engine.node import recall
from farwrite.engine.snapshot import checked_name, snapshots_of
from oracle import snapshot_oracle

VOLUME, EXTENT, PLACES = 7, 4096, 6
CAPACITY, STAGING, VOLUME_BYTES = 64 << 10, 16 << 10, (36 << 10) + 1536
SHARES = (0, 64, 128, 192, 256)  # of 256 sectors of what was under way that are on the disk


class Machine:
    """One replica that leads alone, and the oracle beside it."""

    def __init__(self):
        stream, segments = rows_of(pretend.Stream, 2), np.zeros((2, pretend.SEGMENTS), np.int64)
        self.world = pretend.world(
            np.ones(1, np.int64), log.SUPERBLOCK_BYTES + CAPACITY, VOLUME_BYTES, max(VOLUME_BYTES, STAGING), stream,
            np.zeros((2, 64), np.uint8), segments, segments.copy(), snapshot.file_bytes_max(VOLUME_BYTES, PLACES),
        )  # fmt: skip
        self.world.at[0].flush_ns = 100_000
        self.history = []
        self.ring, self.journal = reactor.pretended(self.world), self.new_journal()
        assert replica.save(self.journal, self.ring) == replica.OK
        self.begin()

    def new_journal(self):
        return log.journal_state(CAPACITY, STAGING, VOLUME, 1, 0, 0, VOLUME_BYTES, EXTENT, 1024, 1_000_000, 0, PLACES)

    def begin(self):
        self.state = primary.primary_state(
            self.journal, self.ring, [], primary.LOCAL, 5, 10**12, volume_bytes=VOLUME_BYTES, lag_ring=1024
        )

    @property
    def at(self):
        return self.journal.snapshots.at[0]

    def turn(self, count=1):
        for _ in range(count):
            self.world.clock[0] += 60_000
            status = turn_kernel.progress(self.state, 0)
            if self.world.at[0].power_in == 0:
                return
            assert status == replica.OK

    def settle(self, limit=400):
        """Turns until everything is applied and tended."""
        for _ in range(limit):
            self.turn()
            at = self.journal.at[0]
            if self.world.at[0].power_in == 0:
                return
            if at.applied_sequence == at.staged_sequence and not self.at.todo and not self.at.dirty:
                return
        pytest.fail("it does not come to rest")

    def until_staged(self, submit):
        for _ in range(400):
            if submit() == 1:
                return
            self.turn()
            if self.world.at[0].power_in == 0:
                return
        pytest.fail("there is never room")

    def write(self, address, data):
        if len(data) > 4096:  # No record of this small ring is larger.
            self.write(address, data[:4096])
            self.write(address + 4096, data[4096:])
            return
        data = np.frombuffer(data, np.uint8).copy()
        self.until_staged(lambda: primary.submit_bytes(self.state, data, 0, address, data.size, 0))
        self.history.append(lambda volume: volume.write(address, data.tobytes()))

    def trim(self, address, size):
        self.until_staged(lambda: primary.submit_trim(self.state, address, size, 0))
        self.history.append(lambda volume: volume.write(address, bytes(size)))

    def take(self, name="a snapshot"):
        data = np.frombuffer(name.encode(), np.uint8).copy()
        self.until_staged(lambda: primary.submit_marker(self.state, record.SNAPSHOT, data, data.size, 1234, 0))
        self.history.append(lambda volume: volume.take(name))
        return int(self.journal.at[0].staged_sequence)

    def forget(self, sequence):
        nothing = np.zeros(1, np.uint8)
        self.until_staged(lambda: primary.submit_marker(self.state, record.FORGET, nothing, 0, sequence, 0))
        self.history.append(lambda volume: volume.forget(sequence))

    def oracle(self):
        """What the applied part of the history leaves."""
        volume = snapshot_oracle.Volume(VOLUME_BYTES, PLACES // 2)
        for event in self.history[: int(self.journal.at[0].applied_sequence)]:
            event(volume)
        return volume

    def read(self, sequence, size=VOLUME_BYTES, address=0):
        data = np.zeros(size, np.uint8)
        got = int(snapshot.read_snapshot(self.journal, self.ring, data, 0, size, address, sequence))
        return data.tobytes() if got == size else got

    def check(self):
        """Every snapshot that is whole shows its instant, and those that there are, are."""
        volume, table = self.oracle(), self.journal.snapshots
        assert [(one.sequence, one.name) for one in snapshots_of(table)] == [
            (sequence, name) for sequence, (name, _) in sorted(volume.snapshots.items())
        ]
        for one in snapshots_of(table):
            if one.is_whole:
                assert self.read(one.sequence) == volume.snapshots[one.sequence][1], one
        return volume

    def comes_back(self, key, power=1):
        """The power is lost, or the process alone, and the replica opens again."""
        pretend.crash(self.world, key, SHARES[key % len(SHARES)], power)
        assert self.open(-1) is not None
        self.check()

    def open(self, power_in):
        """Replay what stands there; None when the power went out meanwhile."""
        data = self.world.journal
        self.world.at[0].power_in = power_in
        self.ring, self.journal = reactor.pretended(self.world), self.new_journal()
        superblock = journals.read_superblock(data)
        found = journals.find_end(data, superblock)
        try:
            if journals.apply_found(data, superblock, self.ring, 0, 0, found, self.journal.snapshots) < 0:
                return None
            if reactor.sync_now(self.ring, 0) < 0:
                return None
            journals.resume(self.journal, self.ring, superblock, found)
        except UnfitError:
            return None
        del self.history[int(found.sequence) :]
        lead(self.journal, int(superblock.epoch) + 1)
        if replica.save(self.journal, self.ring) < 0:
            return None
        self.begin()
        return self


def random_event(machine, random):
    kind = random.choice(["write", "write", "write", "trim", "take", "forget"], p=[0.3, 0.3, 0.2, 0.05, 0.1, 0.05])
    size = int(random.choice([512, 1024, 4096]))
    address = 512 * int(random.integers(0, (VOLUME_BYTES - size) // 512 + 1))
    if kind == "write":
        machine.write(address, random.integers(0, 256, size).astype(np.uint8).tobytes())
    elif kind == "trim":
        machine.trim(0 if random.random() < 0.2 else address, VOLUME_BYTES if random.random() < 0.1 and address == 0 else size)
    elif kind == "take":
        machine.take(f"s{random.integers(1000)}")
    else:
        listed = snapshots_of(machine.journal.snapshots)
        if listed:
            machine.forget(listed[int(random.integers(len(listed)))].sequence)
    machine.turn(int(random.integers(0, 4)))


@pytest.mark.parametrize("seed", range(12))
def test_a_snapshot_shows_its_instant_whatever_is_written_deleted_or_lost_afterwards(seed):
    machine, random = Machine(), np.random.default_rng(seed)
    for step in range(150):
        random_event(machine, random)
        if step % 10 == 0:
            machine.check()
        if random.random() < 0.04:
            machine.comes_back(int(random.integers(1 << 30)), power=int(random.random() < 0.7))
    machine.settle()
    machine.check()
    assert machine.at.kept_ever > 0 or machine.at.used == 0


def scripted(machine):
    """Two snapshots, writes before, between and behind them, and the deletion of the one that shares."""
    machine.write(0, b"a" * 4096)
    machine.write(8192, b"a" * 1024)
    first = machine.take("first")
    machine.write(0, b"b" * 512)
    machine.turn(3)
    machine.write(12288, b"b" * 4096)
    second = machine.take("second")
    machine.write(0, b"c" * 4096)
    machine.write(8192, b"c" * 4096)
    machine.trim(12288, 4096)
    machine.turn(3)
    machine.forget(second)
    machine.write(16384, b"d" * 512)
    machine.turn(6)
    third = machine.take("third")
    machine.write(0, b"e" * 512)
    machine.forget(first)
    machine.settle()
    return first, second, third


def test_whenever_the_power_goes_out_every_snapshot_is_of_its_instant():
    whole = Machine()
    scripted(whole)
    points = int(whole.world.at[0].operations)
    assert points > 60
    for point in range(points):
        machine = Machine()
        machine.world.at[0].power_in = point
        scripted(machine)
        machine.comes_back(point)
        if point % 5 == 0:  # And again, while it comes back.
            pretend.crash(machine.world, point, SHARES[point % 4], 1)
            if machine.open(point % 7) is None:
                machine.comes_back(point + 1)
        machine.world.at[0].power_in = -1
        machine.settle()
        machine.check()


def test_what_a_killed_process_had_kept_in_the_systems_cache_alone_is_durable_before_it_is_relied_on():
    """A process is killed while blocks are on their way to be kept; it comes back, goes on, and then the power goes out."""
    whole = Machine()
    scripted(whole)
    for point in range(int(whole.world.at[0].operations)):
        machine = Machine()
        machine.world.at[0].power_in = point
        scripted(machine)
        machine.comes_back(point, power=0)
        machine.write(0, b"f" * 4096)
        machine.turn(1 + point % 9)
        machine.comes_back(point + 1)
        machine.settle()
        machine.check()


def test_without_snapshots_nothing_is_kept_and_the_log_is_applied_as_before():
    machine = Machine()
    for place in range(8):
        machine.write(4096 * place, bytes([place + 1]) * 4096)
    machine.settle()
    assert machine.at.kept_ever == machine.at.written == 0
    assert not machine.world.kept_cached.any()


def test_what_a_deleted_snapshot_kept_goes_to_the_older_one_and_the_rest_of_its_room_is_given_back():
    machine = Machine()
    machine.write(0, b"a" * 8192)
    older = machine.take("older")
    machine.write(0, b"b" * 4096)
    newer = machine.take("newer")
    machine.write(0, b"c" * 8192)
    machine.settle()
    kept = {one.name: one.kept_bytes for one in snapshots_of(machine.journal.snapshots)}
    assert kept == {"older": 4096, "newer": 8192}
    machine.forget(newer)
    machine.settle()
    assert [(one.name, one.kept_bytes) for one in snapshots_of(machine.journal.snapshots)] == [("older", 8192)]
    assert machine.at.moved == 1 and machine.read(older) == b"a" * 8192 + bytes(VOLUME_BYTES - 8192)
    machine.forget(older)
    machine.settle()
    assert not machine.world.kept_cached.any() and machine.at.used == 0
    assert machine.read(older) == -snapshot.EIO


def test_snapshots_beyond_what_is_kept_are_none_and_a_place_is_used_again():
    machine = Machine()
    for number in range(PLACES // 2 + 1):
        machine.write(0, bytes([number + 1]) * 512)
        machine.take(f"s{number}")
    machine.settle()
    machine.check()
    assert len(snapshots_of(machine.journal.snapshots)) == PLACES // 2
    for number in range(3 * PLACES):  # As fast as they go: a place may still be being emptied.
        machine.forget(snapshots_of(machine.journal.snapshots)[0].sequence)
        machine.write(0, bytes([number + 9]) * 512)
        machine.take(f"t{number}")
        machine.write(4096, bytes([number + 9]) * 512)
        machine.settle() if number % 4 == 0 else machine.turn(9)
        machine.check()


def test_a_disk_without_room_for_what_is_to_be_kept_costs_the_snapshots_and_not_the_volume():
    given_up = 0
    for point in range(4):
        machine = Machine()
        machine.write(0, b"a" * 4096)
        machine.take("first")
        machine.settle()
        machine.write(0, b"b" * 4096)
        machine.world.at[0].kept_fail_in = point
        machine.settle()
        machine.world.at[0].kept_fail_in = -1
        lost = [one for one in snapshots_of(machine.journal.snapshots) if not one.is_whole]
        given_up += len(lost)
        for _ in range(2):
            assert machine.check().data == machine.world.cached.tobytes()
            assert [one.is_whole for one in snapshots_of(machine.journal.snapshots)] == [not lost]
            machine.comes_back(point)
        machine.take("second")
        machine.write(0, b"c" * 4096)
        machine.settle()
        machine.check()
        assert snapshots_of(machine.journal.snapshots)[-1].is_whole
    assert given_up == 2  # The block, or its entry.


def test_a_kept_block_that_is_damaged_is_an_error_and_never_another_content():
    machine = Machine()
    machine.write(0, bytes(range(256)) * 32)
    sequence = machine.take("first")
    machine.write(0, b"b" * 8192)
    machine.settle()
    begin = int(snapshot.block_offset(machine.journal.snapshots, 0, 0))
    for bit in range(8 * begin, 8 * (begin + 4096), 97):
        pretend.flip_bit(machine.world.kept_cached, bit)
        assert machine.read(sequence, 4096) == -snapshot.EIO
        assert machine.read(sequence, 4096, 4096) == bytes(range(256)) * 16
        pretend.flip_bit(machine.world.kept_cached, bit)
    entry = int(snapshot.entry_offset(machine.journal.snapshots, 0, 0))
    for bit in range(8 * entry, 8 * (entry + 8)):
        pretend.flip_bit(machine.world.kept_cached, bit)
        assert machine.read(sequence, 4096) == -snapshot.EIO
        pretend.flip_bit(machine.world.kept_cached, bit)
    machine.check()


@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_table_leaves_the_other_superblock_and_every_snapshot(which):
    machine = Machine()
    scripted(machine)
    machine.world.journal[which * log.BLOCK_BYTES + snapshot.TABLE_AT + 9] ^= 4
    assert len(journals.whole_superblocks(machine.world.journal)) == 1
    machine.comes_back(3)


def test_a_superblock_whose_table_is_of_another_one_is_not_whole():
    machine = Machine()
    scripted(machine)
    block = machine.world.journal[: log.BLOCK_BYTES]
    old = block.copy()
    machine.write(0, b"x" * 512)
    machine.take("fourth")
    machine.settle()
    assert not np.array_equal(block, old)
    block[512:] = old[512:]  # A torn write: its first sector is new, the rest as it was.
    assert len(journals.whole_superblocks(machine.world.journal)) == 1
    machine.comes_back(3)


def test_a_journal_from_before_there_were_snapshots_opens_and_can_have_some():
    machine = Machine()
    machine.write(0, b"a" * 4096)
    machine.settle()
    for begin in (0, log.BLOCK_BYTES):
        block = machine.world.journal[begin : begin + log.BLOCK_BYTES]
        superblock = log.superblock_in(block)[0]
        block[snapshot.HEAD_AT :] = 0
        superblock.version = 2
        replica.seal_superblock(block, superblock)
    machine.comes_back(1)
    machine.take("first")
    machine.write(0, b"b" * 4096)
    machine.settle()
    machine.comes_back(2)
    assert journals.read_superblock(machine.world.journal).version == replica.JOURNAL_VERSION


def test_what_may_differ_between_two_snapshots_is_all_that_does():
    machine, random = Machine(), np.random.default_rng(3)
    for _ in range(200):
        random_event(machine, random)
    machine.settle()
    volume, snapshots = machine.check(), machine.journal.snapshots
    listed = [one.sequence for one in snapshots_of(snapshots)]
    for older in listed:
        first = int(snapshot.index_of(snapshots, snapshot.place_of(snapshots, older)))
        for newer in [*(one for one in listed if one >= older), 0]:
            last = int(snapshot.index_of(snapshots, snapshot.place_of(snapshots, newer))) if newer else int(snapshots.at[0].count)
            told, position = set(), 0
            while position < VOLUME_BYTES:
                stop, may_differ = primary.changed_at(machine.state, position, VOLUME_BYTES, first, last, newer == 0)
                assert stop > position
                told |= set(range(position // 4096, -(-stop // 4096))) if may_differ else set()
                position = int(stop)
            assert volume.differing(older, newer, 4096) <= told
            if newer == older:
                assert not told


def test_old_blocks_of_another_replica_are_not_taken_for_ours(tmp_path):
    """A copy of journal and volume without the third file, or with that of another replica."""
    with disk(tmp_path / "a", 1 << 20, 1 << 20, keep=True, snapshots=True) as files:
        journal, ring = begin_anew(files, VOLUME, 64 << 10), reactor.empty()
        lead(journal, 1)
        state = primary.primary_state(journal, ring, [], primary.LOCAL, 5, 10**12, volume_bytes=1 << 20)
        name = np.frombuffer(b"first", np.uint8).copy()
        assert primary.submit(state, 0, 0, 4096, 0) == 1
        assert primary.submit_marker(state, record.SNAPSHOT, name, name.size, 1, 0) == 1
        assert primary.submit(state, 1, 0, 4096, 0) == 1
        assert replica.settle(journal, ring) == replica.OK
        before = os.pread(files.snapshot_fd, 1 << 20, 0)
        again = recall(files, VOLUME, 64 << 10)
        assert [one.is_whole for one in snapshots_of(again.snapshots)] == [True]
        data = np.zeros(4096, np.uint8)
        assert snapshot.read_snapshot(again, ring, data, 0, 4096, 0, 2) == 4096
        assert data.tobytes() == before[4096:8192]
        os.ftruncate(files.snapshot_fd, 0)
        again = recall(files, VOLUME, 64 << 10)
        assert [one.is_whole for one in snapshots_of(again.snapshots)] == [False]
        assert snapshot.read_snapshot(again, ring, data, 0, 4096, 0, 2) == -snapshot.EIO


def test_names_that_are_none_are_refused_with_what_is_wrong():
    for name, why in (("", "1 to 63 bytes"), ("x" * 64, "and this has 64"), ("a b", "' ' may not"), ("a@b", "'@' may not"),
                      ("a/b", "'/' may not"), ("a\n", "'\\\\n' may not"), ("\ud800", "not Unicode"), ("ä" * 32, "has 64")):
        with pytest.raises(UsageError, match=why):
            checked_name(name)
    assert checked_name("nightly-2026.11.30") == b"nightly-2026.11.30" and checked_name("ä" * 31)
