"""The reader of dm-log-writes' format, and the check it feeds; `make log-writes` has them read what a kernel has recorded."""

import os

import log_writes
import numpy as np
import pytest
from log_writes import ENTRY, FLUSH, FUA, JOURNAL_BYTES, MAGIC, MARK, MARKS_AT, SUPER, entries_of, examine_state, states

SECTOR = 512


def log_of(*entries, magic=MAGIC, version=1, count=None, sector=SECTOR):
    """A log of (sector, data, flags), as the kernel writes one."""
    text = SUPER.pack(magic, version, len(entries) if count is None else count, sector).ljust(sector, b"\0")
    for where, data, flags in entries:
        name = data if flags & MARK else b""
        text += (ENTRY.pack(where, 0 if name else len(data) // sector, flags, len(name)) + name).ljust(sector, b"\0")
        text += b"" if name else data
    return text


def test_entries_come_back_in_their_order_with_their_data_and_a_marks_name_is_none():
    log = log_of((8, b"a" * 1024, 0), (0, b"", FLUSH), (0, b"here", MARK), (2, b"b" * 512, FUA))
    assert [(one.offset, one.size, one.data, one.ends_flush) for one in entries_of(log)] == [
        (4096, 1024, b"a" * 1024, False), (0, 0, b"", True), (0, 0, b"", False), (1024, 512, b"b" * 512, True),
    ]  # fmt: skip


@pytest.mark.parametrize("sector", [512, 4096])
def test_the_device_is_told_after_each_flush_and_at_no_other_time(sector):
    log = log_of((1, b"a" * sector, 0), (1, b"b" * sector, 0), (0, b"", FLUSH), (0, b"c" * sector, FUA), (2, b"d" * sector, 0),
                 sector=sector)  # fmt: skip
    told = [(number, device[::sector].tobytes()) for number, device in states(log, 3 * sector)]
    assert told == [(2, b"\0b\0"), (3, b"cb\0")]


@pytest.mark.parametrize("log", [
    b"", log_of(magic=MAGIC + 1), log_of(version=2), log_of(sector=500), log_of(sector=1 << 20), log_of(count=1),
    log_of((0, b"x" * 512, 0))[:-1], log_of((1 << 50, b"", FLUSH), count=1 << 60),
])  # fmt: skip
def test_what_is_no_log_or_was_cut_off_is_refused(log):
    with pytest.raises(ValueError, match=r"superblock|no log|behind the end"):
        list(entries_of(log))


@pytest.fixture(scope="module")
def device():
    """What a device holds when all is written and was flushed, without a kernel that records how it came to that."""
    made = np.zeros(MARKS_AT + log_writes.PART_BYTES, np.uint8)
    files = {name: os.memfd_create(name) for name in log_writes.TABLE}
    for descriptor in files.values():
        os.ftruncate(descriptor, log_writes.PART_BYTES)
    log_writes.write_all(log_writes.disk_of(files["journal"], files["volume"], False), files["marks"])
    for name, at in log_writes.TABLE.items():
        made[at : at + log_writes.PART_BYTES] = np.frombuffer(os.pread(files[name], log_writes.PART_BYTES, 0), np.uint8)
        os.close(files[name])
    return made


def test_a_device_with_everything_is_whole_and_one_that_lacks_what_had_completed_is_not(device):
    assert int.from_bytes(device[MARKS_AT : MARKS_AT + 8].tobytes(), "little") == log_writes.WRITES
    assert examine_state(device, log_writes.WRITES) == ""
    assert "the replay ends at write" in examine_state(device, log_writes.WRITES + 1)
    damaged = device.copy()
    damaged[:JOURNAL_BYTES] = 0
    assert "does not open" in examine_state(damaged, 1)
    newest = {log_writes.block_of(number): number for number in range(log_writes.WRITES)}
    unwritten = next(block for block in range(log_writes.BLOCKS) if block not in newest)
    for block in (min(newest, key=newest.get), unwritten):  # The log still has the last ones, and a replay writes them again.
        damaged = device.copy()
        damaged[log_writes.TABLE["volume"] + block * log_writes.BLOCK_BYTES + 100] ^= 1
        assert f"block {block} holds" in examine_state(damaged, log_writes.WRITES)
