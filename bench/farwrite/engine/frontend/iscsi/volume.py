"""What the SCSI layer asks of a volume: operations handed in by number, results taken when they are there.

A `Channel` is one session's: submit, reap, close, and a descriptor that is readable when a result can be taken. Every operation
that has been answered is durable; COMPARE_AND_WRITE is one step for everybody who uses the volume. A `FileVolume` answers at once
and stands for a replicated volume in tests; the engine's own is a channel of the loop (`engine_volume`).
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

READ, WRITE, TRIM, WRITE_ZEROES, COMPARE_AND_WRITE, FLUSH, STATUS = range(7)


class Operation(NamedTuple):
    """One thing to do with some bytes of the volume."""

    kind: int
    address: int = 0
    size: int = 0
    data: bytes | bytearray | memoryview = b""  # WRITE; COMPARE_AND_WRITE: what is written
    compare: bytes | bytearray | memoryview = b""  # COMPARE_AND_WRITE: what must be there


class Result(NamedTuple):
    """What came of it: 0 or an errno; bytes that were read; where a comparison failed; extents of a STATUS."""

    error: int = 0
    data: bytes | bytearray | memoryview = b""
    mismatch: int = -1  # bytes into the comparison of the first that differs
    extents: tuple[tuple[int, bool], ...] = ()  # STATUS: length in bytes, whether there is data


class Channel(Protocol):
    """One user of a volume. `submit` never waits; `reap` gives what is there."""

    def fileno(self) -> int: ...  # -1: results are there as soon as something was submitted
    def submit(self, tag: int, operation: Operation) -> None: ...
    def reap(self) -> list[tuple[int, Result]]: ...
    def close(self) -> None: ...


class Volume(Protocol):
    """A block device. `bytes` is its size, which may change."""

    bytes: int

    @property
    def is_read_only(self) -> bool: ...
    def open(self) -> Channel: ...


class SimpleChannel:
    """Does everything in `submit`."""

    def __init__(self, volume: FileVolume) -> None:
        self.volume = volume
        self.done: list[tuple[int, Result]] = []

    def fileno(self) -> int:
        return -1

    def submit(self, tag: int, operation: Operation) -> None:
        self.done.append((tag, self.volume.perform(operation)))

    def reap(self) -> list[tuple[int, Result]]:
        done, self.done = self.done, []
        return done

    def close(self) -> None:
        self.done = []


class FileVolume:
    """A file, or memory that is one (memfd). One lock makes every operation one step."""

    def __init__(self, descriptor: int, size: int, is_read_only: bool = False, is_durable: bool = True) -> None:
        self.descriptor, self.bytes, self.is_read_only, self.is_durable = descriptor, size, is_read_only, is_durable
        self.lock = threading.Lock()

    def open(self) -> SimpleChannel:
        return SimpleChannel(self)

    def perform(self, operation: Operation) -> Result:
        kind, address, size = operation.kind, operation.address, operation.size
        if address < 0 or size < 0 or address + size > self.bytes:
            return Result(errno.EINVAL)
        try:
            with self.lock:
                return self.perform_locked(kind, address, size, operation)
        except OSError as refusal:
            return Result(refusal.errno or errno.EIO)

    def perform_locked(self, kind: int, address: int, size: int, operation: Operation) -> Result:
        if kind == READ:
            return Result(data=os.pread(self.descriptor, size, address))
        if kind == STATUS:
            return Result(extents=tuple(self.extents(address, size)))
        if kind == FLUSH:
            return Result()
        if self.is_read_only:
            return Result(errno.EPERM)
        if kind == COMPARE_AND_WRITE:
            there, wanted = os.pread(self.descriptor, size, address), bytes(operation.compare)
            if there != wanted:
                return Result(mismatch=next(at for at in range(size) if there[at : at + 1] != wanted[at : at + 1]))
        if kind in (TRIM, WRITE_ZEROES):
            punch(self.descriptor, address, size)
        else:
            written = os.pwrite(self.descriptor, operation.data, address)
            if written != size:
                return Result(errno.EIO)
        if self.is_durable:
            os.fdatasync(self.descriptor)
        return Result()

    def extents(self, address: int, size: int) -> Iterator[tuple[int, bool]]:
        """Holes and data of the file, in turns."""
        at, end = address, address + size
        while at < end:
            try:
                data = min(os.lseek(self.descriptor, at, os.SEEK_DATA), end)
            except OSError:  # ENXIO: no data behind here.
                data = end
            if data > at:
                yield data - at, False
                at = data
            if at < end:
                hole = min(os.lseek(self.descriptor, at, os.SEEK_HOLE), end)
                yield hole - at, True
                at = hole


def punch(descriptor: int, address: int, size: int) -> None:
    """Give bytes back; they read as zeros. fallocate(2) by ctypes: os has posix_fallocate only."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    keep_size_punch_hole = 0x03
    if libc.fallocate(descriptor, keep_size_punch_hole, ctypes.c_int64(address), ctypes.c_int64(size)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def memory_volume(size: int, is_read_only: bool = False) -> Iterator[FileVolume]:
    """A volume in memory, for as long as this block."""
    descriptor = os.memfd_create("volume")
    try:
        os.truncate(descriptor, size)
        yield FileVolume(descriptor, size, is_read_only, is_durable=False)
    finally:
        os.close(descriptor)


@contextmanager
def file_volume(path: Path, is_read_only: bool = False) -> Iterator[FileVolume]:
    """A volume in a file that is there."""
    descriptor = os.open(path, os.O_RDONLY if is_read_only else os.O_RDWR)
    try:
        yield FileVolume(descriptor, os.fstat(descriptor).st_size, is_read_only)
    finally:
        os.close(descriptor)
