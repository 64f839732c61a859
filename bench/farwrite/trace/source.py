"""A trace file as a bounded stream of bytes, plain or gzip, and the checks that hold in every format.

The format readers use it. It knows no format, only how much a trace may hold before we call it a mistake. Whatever
the file system, gzip or a check refuses leaves as a UsageError.
"""

from __future__ import annotations

import gzip
import io
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

import numpy as np

from ..errors import UsageError
from . import FLUSH

BLOCK_BYTES = 8 << 20
BYTES_MAX = 2 << 30  # Unpacked. A gigabyte is a day of a busy disk; a few kilobytes of gzip can claim to be far more.
RECORDS_MAX = 50_000_000  # 21 bytes each once read: 1 GiB of arrays.
IO_BYTES_MAX = 64 << 20  # Of one I/O. Disks and hypervisors split at 32 MiB or well below; more is a broken size field.
ADDRESS_BYTES_MAX = 1 << 60  # 1 EiB; leaves room to add a size without leaving int64.
DURATION_NS_MAX = 366 * 24 * 3600 * 10**9  # A year. One corrupt time would otherwise make a plan of centuries.

GZIP_MAGIC = b"\x1f\x8b"


class Source(AbstractContextManager):
    """An open trace file: its first block as `head`, all of it as `blocks()`. Tests set smaller bounds."""

    def __init__(self, path: str | Path, bytes_max: int = BYTES_MAX, block_bytes: int = BLOCK_BYTES):
        self.path = Path(path)
        self.bytes_max = bytes_max
        self.block_bytes = block_bytes

    @property
    def name(self) -> str:
        return self.path.name.split(".")[0] or self.path.name

    def __enter__(self) -> Source:
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):  # Before open(), which would wait for ever on a pipe.
                what = "a directory" if self.path.is_dir() else "not a regular file"
                self.refuse(f"this is {what}. Name a trace file.")
            self.file = self.path.open("rb")
        except (OSError, ValueError) as refusal:  # ValueError: a null character inside the name.
            self.refuse(f"{getattr(refusal, 'strerror', None) or refusal}. Give the path of a file that can be read.")
        try:
            packed = self.file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            self.file.seek(0)
            self.stream: io.BufferedIOBase = gzip.GzipFile(fileobj=self.file) if packed else self.file
            self.read_bytes = 0
            self.head = self.next_block()
            if not self.head:
                self.refuse("the file is empty. Was the recording or the copy interrupted?")
        except BaseException:
            self.file.close()
            raise
        return self

    def __exit__(self, *failure) -> None:
        self.file.close()

    def blocks(self) -> Iterator[bytes]:
        """The bytes from the start, once, in blocks of `block_bytes`; only the last may be shorter."""
        block = self.head
        while block:
            yield block
            block = self.next_block()

    def next_block(self) -> bytes:
        parts, missing = [], self.block_bytes
        try:
            while missing and (part := self.stream.read(missing)):
                parts.append(part)
                missing -= len(part)
                self.read_bytes += len(part)
        except EOFError:
            self.refuse(f"the gzip stream ends early, after {self.read_bytes} unpacked bytes. Copy the file again.")
        except (gzip.BadGzipFile, zlib.error) as refusal:
            self.refuse(f"not valid gzip after {self.read_bytes} unpacked bytes ({refusal}). Copy the file again.")
        except OSError as refusal:
            self.refuse(f"reading at byte {self.read_bytes}: {refusal.strerror or refusal}.")
        if self.read_bytes > self.bytes_max:
            self.refuse(f"more than {self.bytes_max} bytes unpacked, which is all we read. Cut the trace into parts.")
        return b"".join(parts)

    def refuse(self, sentence: str) -> NoReturn:
        raise UsageError(f'Trace "{self.path}": {sentence}') from None


class Columns:
    """Collects a trace block by block and checks, in one place, what must hold in every format.

    `where(index)` turns a record's index into the words that lead a person to it; times come in units of `tick_ns`.
    """

    def __init__(self, source: Source, where: Callable[[int], str], tick_ns: int = 1) -> None:
        self.source = source
        self.where = where
        self.tick_ns = tick_ns
        self.count = 0
        self.first = np.uint64(0)
        self.last = np.uint64(0)
        self.blocks: list[tuple[np.ndarray, ...]] = []

    def append(self, time: np.ndarray, operation: np.ndarray, address: np.ndarray, size: np.ndarray) -> None:
        """Add one block. `time` in ticks, `address` and `size` in bytes are uint64 as recorded, `operation` is int8."""
        if not time.size:
            return
        if not self.count:
            self.first = self.last = time[0]
        is_flush = operation == FLUSH
        duration_max = DURATION_NS_MAX // self.tick_ns

        since_first = np.where(time < self.first, 0, time - self.first)  # Unsigned; a fall is for `rises`.
        rises = time >= np.concatenate(([self.last], time[:-1]))
        self.check(since_first <= duration_max, time, "time {}, over a year after the first record. Correct it.")
        self.check(rises, time, "time {} is before that of the record above it. Sort the trace by time.")
        self.check(size <= IO_BYTES_MAX, size, f"a size of {{}} bytes, more than {IO_BYTES_MAX}. Split or correct it.")
        self.check((size > 0) | is_flush, size, "a read or write of {} bytes. Remove it.")
        self.check((size == 0) | ~is_flush, size, "a flush with a size of {} bytes; it concerns everything. Write 0.")
        self.check((address == 0) | ~is_flush, address, "a flush with the address {}; it concerns everything. Write 0.")
        self.check(address <= ADDRESS_BYTES_MAX, address, f"address {{}}, beyond {ADDRESS_BYTES_MAX}. Correct it.")

        if self.count + time.size > RECORDS_MAX:
            self.source.refuse(f"more than {RECORDS_MAX} records, which is all we read. Cut the trace into parts.")
        time_ns = since_first.astype(np.int64) * self.tick_ns
        self.blocks.append((time_ns, operation, address.astype(np.int64), size.astype(np.int32)))
        self.count += time.size
        self.last = time[-1]

    def check(self, holds: np.ndarray, found: np.ndarray, otherwise: str) -> None:
        """Refuse at the first record for which `holds` is false, with what was found there."""
        if not holds.all():
            index = int(np.argmin(holds))
            self.source.refuse(f"{self.where(self.count + index)}: {otherwise.format(found[index])}")

    def joined(self) -> dict[str, np.ndarray]:
        if not self.count:
            self.source.refuse("it holds no records. Was the recording interrupted?")
        names = ("time_ns", "operation", "address", "size")
        return {name: np.concatenate(parts) for name, parts in zip(names, zip(*self.blocks, strict=True), strict=True)}
