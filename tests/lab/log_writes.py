#!/usr/bin/env python3
"""The real journal on a block device whose every write is recorded, replayed as it stood at each flush.

    tests/lab/uml/run --disk 8 --disk 64 --module drivers/md/dm-mod.ko --module drivers/md/dm-log-writes.ko -- \
        PYTHON tests/lab/log_writes.py record FILE
    PYTHON tests/lab/log_writes.py replay FILE

`record` runs inside user-mode Linux: a replica's journal and volume lie on parts of one device below which dm-log-writes notes
what reaches the disk, and when. Whenever writes have completed, their number is written to a third part, so that every state of
the device says what had been promised by then. `replay` runs anywhere: after each flush in the record the device is as a power
loss would leave it there. The journal is replayed on a copy; nothing that had completed may be missing, and the volume must hold
a prefix of the writes, byte for byte.

The format is the kernel's (Documentation/admin-guide/device-mapper/log-writes.rst; drivers/md/dm-log-writes.c): a superblock,
then each entry in one sector, with its data behind it. Writes without a flush are in it once a flush has covered them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from farwrite.base.host import reactor
from farwrite.base.host.disk import Disk
from farwrite.base.host.libc import aligned_bytes
from farwrite.engine import primary_kernel as primary
from farwrite.engine import replica_kernel as replica
from farwrite.engine import turn_kernel
from farwrite.engine.journal import begin_anew, examine
from farwrite.workload import payload_kernel as payload

# struct log_write_super: magic, version, number of entries, bytes of a sector; struct log_write_entry: sector, sectors, flags,
# bytes of a mark's name. All little-endian.
MAGIC, VERSION = 0x6A736677736872, 1
SUPER, ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8

JOURNAL_BYTES, STAGING_BYTES, VOLUME_BYTES, PART_BYTES = 520 << 10, 64 << 10, 1 << 20, 2 << 20
BLOCK_BYTES, BLOCKS, WRITES, SEED = 4096, 200, 500, 7
AT_ONCE = 6  # Writes that are submitted before the next turn.
MARKS_AT = 4 << 20  # Behind the parts of journal and volume.
FIRST_RECORD_AT = 8 << 10  # Behind two superblocks.
LOST, PLANTED_EVERY = 40, 5
TABLE = {"journal": 0, "volume": PART_BYTES, "marks": MARKS_AT}


class Entry(NamedTuple):
    """One write that reached the device, or a flush (of no bytes), or a mark."""

    offset: int
    size: int
    flags: int
    data: bytes

    @property
    def ends_flush(self) -> bool:
        """Whether everything in front of it, and it, is durable once it is there."""
        return bool(self.flags & (FLUSH | FUA))


def entries_of(log: bytes) -> Iterator[Entry]:
    """What a log holds, in the order in which it became durable. ValueError for what is none."""
    if len(log) < SUPER.size:
        raise ValueError("shorter than a superblock")
    magic, version, count, sector_bytes = SUPER.unpack_from(log)
    if magic != MAGIC or version != VERSION or not 512 <= sector_bytes <= 1 << 16 or sector_bytes & (sector_bytes - 1):
        found = f"magic {magic:#x}, version {version}, sector {sector_bytes}"
        raise ValueError(f"no log of dm-log-writes, version {VERSION}: {found}")
    at = sector_bytes
    for number in range(count):
        if at + ENTRY.size > len(log):
            raise ValueError(f"entry {number} of {count} lies behind the end")
        sector, sectors, flags, _ = ENTRY.unpack_from(log, at)
        at += sector_bytes
        size = sectors * sector_bytes
        held = 0 if flags & (DISCARD | MARK) else size  # A discard has a size and no data; a mark's name is in its own sector.
        if at + held > len(log):
            raise ValueError(f"the data of entry {number} of {count} lie behind the end")
        yield Entry(sector * sector_bytes, size, flags, log[at : at + held])
        at += held


def states(log: bytes, size: int, lost: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the entry, the device) after each flush: the same array, which goes on being written to.

    With `lost` a disk that lies: every so-many-th write into the journal's records never landed.
    """
    device, journaled = np.zeros(size, np.uint8), 0
    for number, entry in enumerate(entries_of(log)):
        if entry.data and FIRST_RECORD_AT <= entry.offset < JOURNAL_BYTES:
            journaled += 1
            if lost and journaled % lost == 0:
                continue
        if entry.flags & DISCARD:
            device[entry.offset : entry.offset + entry.size] = 0
        elif entry.data:
            device[entry.offset : entry.offset + entry.size] = np.frombuffer(entry.data, np.uint8)
        if entry.ends_flush:
            yield number, device


# Inside user-mode Linux


def block_of(number: int) -> int:
    """Which block a write goes to."""
    return number * number % BLOCKS


def create(name: str, table: str) -> Path:
    """A device of the device mapper; there is no udev inside to make its node."""
    subprocess.run(["dmsetup", "create", name, "--noudevsync", "--noudevrules", "--table", table], check=True)
    subprocess.run(["dmsetup", "mknodes"], check=True)
    return Path("/dev/mapper") / name


def record(path: Path) -> None:
    """Write WRITES blocks through a primary without peers, and leave the log of what reached the device in `path`."""
    create("recorded", f"0 {(MARKS_AT + PART_BYTES) // 512} log-writes /dev/ubda /dev/ubdb")
    parts = {name: create(name, f"0 {PART_BYTES // 512} linear /dev/mapper/recorded {at // 512}") for name, at in TABLE.items()}
    direct = os.O_RDWR | os.O_DIRECT | os.O_DSYNC
    journal_fd, volume_fd = os.open(parts["journal"], direct), os.open(parts["volume"], os.O_RDWR)
    marks_fd = os.open(parts["marks"], direct)
    write_all(disk_of(journal_fd, volume_fd, True), marks_fd)
    for descriptor in (journal_fd, volume_fd, marks_fd):
        os.close(descriptor)
    for name in (*parts, "recorded"):
        subprocess.run(["dmsetup", "remove", "--noudevsync", name], check=True)
    log = Path("/dev/ubdb").read_bytes()
    path.write_bytes(log)
    print(f"{WRITES} writes, {sum(entry.ends_flush for entry in entries_of(log))} flushes")


def disk_of(journal_fd: int, volume_fd: int, direct: bool) -> Disk:
    """A replica's disk of these descriptors."""
    return Disk("recorded", "none", journal_fd, volume_fd, JOURNAL_BYTES, VOLUME_BYTES, "disk", direct)


def write_all(chosen: Disk, marks_fd: int) -> None:
    """All writes, a few at once, and after every turn how many had completed."""
    sector, told = aligned_bytes(512)[:512], 0
    with reactor.reactor("plain") as ring:
        journal = begin_anew(chosen, 1, STAGING_BYTES)
        state = primary.primary_state(journal, ring, [], primary.LOCAL, SEED, 1_000_000_000, volume_bytes=VOLUME_BYTES)
        number = 0
        while number < WRITES or told < WRITES:
            for _ in range(AT_ONCE):
                if number < WRITES and primary.submit(
                    state, number, block_of(number) * BLOCK_BYTES, BLOCK_BYTES, 0, payload.SOLID
                ):
                    number += 1
            if (status := int(turn_kernel.progress(state, 0))) < 0:
                raise RuntimeError(f"the primary ended with status {status}")
            if state.at[0].completed > told:
                told = int(state.at[0].completed)
                sector[:8] = np.frombuffer(struct.pack("<Q", told), np.uint8)
                os.pwrite(marks_fd, sector, 0)
        if (status := int(replica.settle(journal, ring))) < 0:
            raise RuntimeError(f"the replica did not come to rest: status {status}")


# Anywhere


@dataclasses.dataclass
class Found:
    """What a replay of all states came to."""

    states: int = 0
    opened: int = 0  # of them, those in which the journal was there already
    completed: int = 0  # writes that had completed in the last one
    broken: list[str] = dataclasses.field(default_factory=list)


def examine_all(log: bytes, every: int = 1, lost: int = 0) -> Found:
    """Replay the journal in every state after a flush (or in one of `every`) and hold it against what had been promised."""
    found = Found()
    for number, device in states(log, MARKS_AT + PART_BYTES, lost):
        found.states += 1
        if found.states % every:
            continue
        found.completed = int.from_bytes(device[MARKS_AT : MARKS_AT + 8].tobytes(), "little")
        if not device[:JOURNAL_BYTES].any() and not found.completed:
            continue  # Before it was made.
        if why := examine_state(device, found.completed):
            found.broken.append(f"after entry {number}, {found.completed} completed: {why}")
        found.opened += 1
    return found


def examine_state(device: np.ndarray, completed: int) -> str:
    """Why a device does not hold what it has to; empty when it does."""
    with copies(device) as (journal_fd, volume_fd):
        try:
            _, ended = examine(disk_of(journal_fd, volume_fd, False), apply=True)
        except Exception as failure:  # Whatever it is, such a journal must open.
            return f"it does not open: {failure}" if completed else ""
        last = int(ended.sequence)
        if last < completed:
            return f"the replay ends at write {last}"
        newest = {block_of(number): number for number in range(last)}
        block = aligned_bytes(BLOCK_BYTES)[:BLOCK_BYTES]
        for index in range(BLOCKS):
            block[:] = np.frombuffer(os.pread(volume_fd, BLOCK_BYTES, index * BLOCK_BYTES), np.uint8)
            number, address = newest.get(index), index * BLOCK_BYTES
            holds = payload.matches(block, 0, BLOCK_BYTES, SEED, number, address) if number is not None else not block.any()
            if not holds:
                held = int(payload.check(block, 0, BLOCK_BYTES, address))
                return f"block {index} holds {held}, and {number} is the newest up to {last}"
    return ""


@contextlib.contextmanager
def copies(device: np.ndarray) -> Iterator[tuple[int, int]]:
    """Files in memory that hold what the device's parts of journal and volume hold."""
    with contextlib.ExitStack() as stack:
        made = []
        for name, size in (("journal", JOURNAL_BYTES), ("volume", PART_BYTES)):
            made.append(os.memfd_create(f"farwrite-{name}"))
            stack.callback(os.close, made[-1])
            os.pwrite(made[-1], device[TABLE[name] : TABLE[name] + size].tobytes(), 0)
        yield made[0], made[1]


def main() -> int:
    """The command; 5 when a promise is broken, as farwrite says it."""
    verb, name = sys.argv[1:]
    if verb == "record":
        record(Path(name))
        return 0
    log = Path(name).read_bytes()
    found, planted = examine_all(log), examine_all(log, PLANTED_EVERY, LOST)
    print(f"{found.opened} of {found.states} states after a flush replayed, {found.completed} writes completed in the last one: "
          f"{len(found.broken)} broken.")
    for why in found.broken[:10]:
        print(why)
    lies = f"{len(planted.broken)} of {planted.opened} broken"
    print(f"With every {LOST}th write into the journal lost, as by a disk that lies: {lies}.")
    return 5 if found.broken or not found.opened or found.completed != WRITES or not planted.broken else 0


if __name__ == "__main__":
    sys.exit(main())
