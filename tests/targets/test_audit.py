"""The audit: it finds every fault that is planted, and none where there is none."""

import contextlib
import errno
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from farwrite.base.errors import UnfitError
from farwrite.base.host import reactor
from farwrite.base.host.disk import disk
from farwrite.base.host.libc import aligned_bytes
from farwrite.engine import journal_kernel as log
from farwrite.engine.journal import examine, image, replay
from farwrite.targets import audit_kernel, replicated
from farwrite.targets.replicated import TraceWindow
from farwrite.workload.payload_kernel import SOLID, fill
from farwrite.workload.plan_kernel import TRIM, WRITE, Plan
from oracle.record_oracle import rounded
from rounds import (
    JOURNAL_BYTES,
    MIXED,
    VOLUME_BYTES,
    completed_in,
    everything_compiled,  # noqa: F401
    load,
    order,
    play,
)

TRACES = Path(__file__).parents[2] / "workloads" / "traces"


@pytest.fixture(scope="module")
def disks():
    with disk(None, JOURNAL_BYTES, VOLUME_BYTES) as near, disk(None, JOURNAL_BYTES, VOLUME_BYTES) as far:
        yield near, far


class Played:
    """A clean round, and what was written where in it."""

    def __init__(self, disks, **chosen):
        self.order = order(**chosen)
        self.near, self.far = disks
        volume_bytes = self.far.volume_bytes
        observed, _ = play(self.order, self.near, self.far)
        self.completed = completed_in(observed)
        self.plan = replicated.plan_and_bounds(self.order, volume_bytes)[0]
        self.random = np.random.default_rng(self.order.seed)
        if volume_bytes > VOLUME_BYTES:
            return
        # The last write of every sector, backwards as the audit sees it; -1 where none was.
        self.owner = np.full(VOLUME_BYTES // 512, -1)
        for number in range(self.completed):
            self.owner[self.sectors(number)] = number

    def sectors(self, number):
        first = int(self.plan.address[number]) // 512
        return range(first, first + int(self.plan.size[number]) // 512)

    def audit(self):
        return replicated.audit_side(self.order, self.far, self.completed)

    def settle(self):
        """Move the journal's tail to its end, so that nothing planted is repaired from it."""
        replay(self.far, replicated.STAGING_BYTES)

    def payload(self, number):
        size = int(self.plan.size[number])
        data = np.zeros(rounded(size), np.uint8)
        fill(data, 0, size, self.order.seed, number, int(self.plan.address[number]))
        return data[:size].tobytes()

    def read(self, sector, count=1):
        return os.pread(self.far.volume_fd, 512 * count, 512 * sector)

    def overwrite(self, sector, data):
        assert os.pwrite(self.far.volume_fd, data, 512 * sector) == len(data)

    def visible(self):
        """Writes that no later one covers anywhere."""
        return [n for n in range(self.completed) if all(self.owner[sector] == n for sector in self.sectors(n))]


def is_clean(found):
    return found.lost == found.damaged == found.lost_bytes == 0


@pytest.mark.parametrize("seed", range(12))
def test_a_clean_round_raises_no_alarm(disks, seed):
    random = np.random.default_rng(seed)
    sizes = tuple((512 * int(random.integers(1, 129)), float(random.random() + 0.1)) for _ in range(4))
    played = Played(
        disks, seed=seed, queue_depth=int(random.choice([1, 8, 64])), protocol=str(random.choice(["A", "B", "C"])),
        load=load(
            sizes, volume_bytes=int(random.choice([256 << 10, 1 << 20, VOLUME_BYTES])),
            address=str(random.choice(["uniform", "zipf", "sequential"])), queue_depth=8,
        ),
    )  # fmt: skip
    found = played.audit()
    assert found.completed == found.survived == 300
    assert is_clean(found)
    assert played.audit() == found


@pytest.mark.parametrize("begin_s", [0, 0.3, 2])
@pytest.mark.parametrize("trace", sorted(path.name for path in TRACES.glob("*.csv*")))
def test_a_window_of_a_trace_raises_no_alarm(disks, trace, begin_s):
    begin_ns = int(begin_s * 1e9)
    played = Played(
        disks, load=None, trace=TraceWindow(str(TRACES / trace), begin_ns, 0.5),
        duration_ns=250_000_000, queue_depth=64,
    )  # fmt: skip
    assert is_clean(played.audit())
    assert played.audit().survived == played.completed


@pytest.mark.parametrize("seed", range(20))
def test_one_flipped_bit_of_the_volume_is_one_damaged_write(disks, seed):
    played = Played(disks, seed=seed)
    played.settle()
    assert is_clean(played.audit())
    sector = int(played.random.choice(np.flatnonzero(played.owner >= 0)))
    data = bytearray(played.read(sector))
    data[int(played.random.integers(512))] ^= 1 << int(played.random.integers(8))
    played.overwrite(sector, bytes(data))
    assert played.audit().damaged == 1
    assert played.audit().lost == 0


def test_damage_that_the_journal_still_covers_is_repaired_as_after_a_crash(disks):
    played = Played(disks, seed=1)
    played.overwrite(int(np.flatnonzero(played.owner >= 0)[0]), bytes(512))
    assert is_clean(played.audit())


def last_record(disk):
    """File offset of the last WRITE record's header."""
    superblock, found = examine(disk)
    position, end, last = int(superblock.tail), int(found.position), None
    capacity = int(superblock.capacity_bytes)
    while position < end:
        offset = log.SUPERBLOCK_BYTES + position % capacity
        header = os.pread(disk.journal_fd, 64, offset)
        last = offset if header[8] == 1 else last
        position += rounded(int.from_bytes(header[12:16], "little"))
    return last


def test_a_dropped_last_write_is_lost(disks):
    played = Played(disks, seed=2)
    os.pwrite(played.far.journal_fd, bytes(64), last_record(played.far))
    found = played.audit()
    assert found.survived == played.completed - 1
    assert found.lost == 1
    assert found.lost_bytes == played.plan.size[played.completed - 1]


def test_a_flipped_bit_in_the_last_record_loses_it(disks):
    played = Played(disks, seed=3)
    offset = last_record(played.far) + 64 + 17
    byte = os.pread(played.far.journal_fd, 1, offset)[0]
    os.pwrite(played.far.journal_fd, bytes([byte ^ 4]), offset)
    assert played.audit().lost == 1


@pytest.mark.parametrize("seed", range(10))
def test_two_swapped_blocks_are_two_damaged_writes(disks, seed):
    played = Played(disks, seed=seed)
    played.settle()
    one, other = (int(sector) for sector in played.random.choice(np.flatnonzero(played.owner >= 0), 2, replace=False))
    data = played.read(one), played.read(other)
    played.overwrite(one, data[1])
    played.overwrite(other, data[0])
    assert played.audit().damaged == len({played.owner[one], played.owner[other]})


@pytest.mark.parametrize("seed", range(10))
def test_an_older_writes_content_is_damage(disks, seed):
    """A lost overwrite: the block holds what stood there before, whole and with a good checksum of its own."""
    played = Played(disks, seed=seed, load=load(((4096, 1.0),), volume_bytes=128 << 10, alignment_bytes=4096))
    played.settle()
    addresses = played.plan.address[: played.completed]
    last = int(played.random.choice([n for n in played.visible() if (addresses[:n] == addresses[n]).any()]))
    older = np.flatnonzero(addresses[:last] == addresses[last])
    played.overwrite(int(addresses[last]) // 512, played.payload(int(older[-1])))
    assert played.audit().damaged == 1


@pytest.mark.parametrize("seed", range(10))
def test_a_write_at_a_wrong_address_is_damage_in_both_places(disks, seed):
    played = Played(disks, seed=seed, load=load(((4096, 1.0),)))
    played.settle()
    visible = played.visible()
    misdirected, victim = (int(number) for number in played.random.choice(visible, 2, replace=False))
    there, here = (int(played.plan.address[number]) // 512 for number in (victim, misdirected))
    played.overwrite(there, played.payload(misdirected))
    assert played.audit().damaged == 1
    played.overwrite(here, bytes(4096))
    assert played.audit().damaged == 2


def test_a_volume_that_was_wiped_is_all_damaged(disks):
    played = Played(disks, seed=4)
    played.settle()
    played.overwrite(0, bytes(VOLUME_BYTES))
    assert played.audit().damaged == len({*played.owner.tolist()} - {-1})


def test_another_rounds_journal_is_not_judged(disks):
    played = Played(disks, seed=5)
    with pytest.raises(UnfitError, match="another volume"):
        replicated.audit_side(order(volume=played.order.volume + 1), played.far, 1)


def test_another_seed_does_not_pass(disks):
    played = Played(disks, seed=6)
    found = replicated.audit_side(order(volume=played.order.volume, seed=7), played.far, played.completed)
    assert found.damaged > 100


def test_mixed_sizes_do_overlap():
    assert len(MIXED) > 3
    plan = replicated.plan_and_bounds(order(), VOLUME_BYTES)[0]
    ends = plan.address + plan.size
    overlaps = [(plan.address[:n] < ends[n]) & (ends[:n] > plan.address[n]) for n in range(1, 300)]
    assert sum(found.any() for found in overlaps) > 100


# Volumes larger than memory

TIB = 1 << 40  # The largest volume that a profile may have; both files are sparse.


@contextlib.contextmanager
def little_room(room_bytes=256 << 20):
    """So many bytes of address space more than this process has, and no more: setrlimit(2), RLIMIT_AS."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    has_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has_bytes + room_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_volume_larger_than_memory_is_audited_in_little_of_it():
    with disk(None, JOURNAL_BYTES, TIB) as near, disk(None, JOURNAL_BYTES, TIB) as far:
        played = Played((near, far), load=load(volume_bytes=TIB))
        assert int(played.plan.address.max()) > TIB // 2
        with little_room():
            found = played.audit()
        assert found.survived == played.completed and is_clean(found)
        played.settle()
        last = int(played.plan.address[played.completed - 1]) // 512
        played.overwrite(last, bytes(512))
        with little_room():
            assert played.audit().damaged == 1


def test_a_journal_larger_than_memory_is_read_without_reserving_any():
    descriptor = os.memfd_create("journal")
    try:
        os.ftruncate(descriptor, TIB)
        os.pwrite(descriptor, b"end", TIB - 3)
        with image(descriptor) as data:
            assert data.size == TIB and bytes(data[-3:]) == b"end"
            del data
    finally:
        os.close(descriptor)


def test_a_volume_that_cannot_be_read_is_no_verdict_on_its_writes(disks):
    played = Played(disks, seed=7)
    played.settle()
    os.ftruncate(played.far.volume_fd, 0)
    try:
        with pytest.raises(UnfitError, match=f"for its audit: {os.strerror(errno.EIO)}"):
            played.audit()
    finally:
        os.ftruncate(played.far.volume_fd, VOLUME_BYTES)


@pytest.mark.parametrize("window_bytes", [512, 1000, audit_kernel.WINDOW_BYTES])
@pytest.mark.parametrize("seed", range(8))
def test_what_is_damaged_is_what_differs_byte_by_byte(seed, window_bytes):
    """Held against a volume in memory where every byte knows its last writer."""
    random = np.random.default_rng(seed)
    count, volume_bytes = 60, 256 << 10
    plan = Plan.of_count(count)
    plan.size[:] = 512 * random.choice([1, 3, 8, 64, 200], count)
    plan.address[:] = [512 * int(random.integers((volume_bytes - size) // 512 + 1)) for size in plan.size]
    plan.operation[:] = np.where(random.random(count) < 0.3, TRIM, WRITE)
    volume, owner = np.zeros(volume_bytes, np.uint8), np.full(volume_bytes, -1)
    for number in range(count):
        begin, size = int(plan.address[number]), int(plan.size[number])
        data = np.zeros(rounded(size), np.uint8)
        if plan.operation[number] == WRITE:
            fill(data, 0, size, seed, number, begin)
        volume[begin : begin + size], owner[begin : begin + size] = data[:size], number
    spoilt = random.choice(np.flatnonzero(owner >= 0), seed, replace=False)
    volume[spoilt] ^= 1
    descriptor = os.memfd_create("volume")
    try:
        assert os.pwrite(descriptor, volume, 0) == volume_bytes
        cuts, first = audit_kernel.cuts_of(plan.address, plan.size)
        found = audit_kernel.count_damaged(
            reactor.empty(), descriptor, plan, np.arange(count), count, seed, np.full(count, SOLID), cuts, first,
            np.zeros(cuts.size, np.bool_), aligned_bytes(1 << 20), aligned_bytes(1 << 20)[:window_bytes],
        )  # fmt: skip
    finally:
        os.close(descriptor)
    assert found == len(set(owner[spoilt].tolist()))
