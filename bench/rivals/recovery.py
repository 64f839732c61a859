"""How fast a journal is replayed into its volume after a crash, beside a bare read of the same file in the same minute."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from farwrite.base.errors import UnfitError
from farwrite.base.host.disk import disk
from farwrite.base.host.libc import aligned_bytes
from farwrite.base.row import rows_of
from farwrite.base.shared_counters import SharedCounters
from farwrite.base.units import NS_PER_S
from farwrite.engine import journal_kernel as log
from farwrite.engine.journal import capacity_of, examine, format_journal
from farwrite.engine.record_kernel import HEADER_BYTES
from farwrite.targets import replicated
from farwrite.workload.plan import Load

MIB = 1 << 20
WRITE_BYTES = 4096
QUEUE_DEPTH = 64
READ_BYTES = 4 * MIB
VOLUME, EPOCH, SEED = 7, 1, 1


def measure(directory: Path, journal_bytes: int, rounds: int, say: Callable[[str], None]) -> dict:
    """Fill a journal with 4 KiB writes, then replay the whole of it so many times; bytes a second of each."""
    staging = replicated.STAGING_BYTES
    with disk(directory, journal_bytes + log.SUPERBLOCK_BYTES, journal_bytes) as files:
        capacity = capacity_of(files, staging)
        # A batch ends on a whole block: with 64 writes under way a twentieth of the ring is more than that takes.
        count = int(capacity * 0.95) // (WRITE_BYTES + HEADER_BYTES)
        say(f"recovery: filling a journal of {journal_bytes // MIB} MiB with {count} writes")
        order = replicated.Order(
            protocol="local", volume=VOLUME, epoch=EPOCH, seed=SEED,
            load=Load(volume_bytes=journal_bytes, queue_depth=QUEUE_DEPTH),
            write_count_max=count, queue_depth=QUEUE_DEPTH,
            duration_ns=600 * NS_PER_S, slice_ns=60 * NS_PER_S, slice_count=10, peer_timeout_ns=NS_PER_S,
        )  # fmt: skip
        board, history = rows_of(SharedCounters), np.zeros(1 << 16, np.int64)
        completed = int(replicated.write_side(order, files, [], board, history).recorder.at[0].completed)
        replays, reads, found_bytes = [], [], 0
        for index in range(rounds):
            say(f"recovery: replay {index + 1} of {rounds}")
            format_journal(files, VOLUME, EPOCH, staging)  # Checkpoints are forgotten: the log begins where it began.
            forget(files.journal_fd)
            reads.append(read_bytes_per_s(files.journal_fd, journal_bytes))
            forget(files.journal_fd)
            forget(files.volume_fd)  # What a crash leaves behind is on the disk, and nowhere else.
            begin_s = time.monotonic()
            _, found = examine(files, apply=True)
            taken_s = time.monotonic() - begin_s
            if int(found.sequence) != completed:
                raise UnfitError(f"The replay found {int(found.sequence)} of {completed} writes.")
            found_bytes = int(found.position)
            replays.append(found_bytes / taken_s)
    return {"journal_bytes": journal_bytes, "replayed_bytes": found_bytes, "writes": completed,
            "replay_bytes_per_s": replays, "bare_read_bytes_per_s": reads}  # fmt: skip


def forget(descriptor: int) -> None:
    """Have the page cache hold nothing of a file. posix_fadvise(2)."""
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def read_bytes_per_s(descriptor: int, size: int) -> float:
    """A bare read of the file from its beginning, past the page cache where it is open for direct I/O."""
    data = aligned_bytes(READ_BYTES)
    begin_s = time.monotonic()
    for offset in range(0, size, READ_BYTES):
        os.preadv(descriptor, [data], offset)
    return size / (time.monotonic() - begin_s)
