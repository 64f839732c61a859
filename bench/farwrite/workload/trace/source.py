"""A trace file as a bounded stream of bytes, plain, gzip or zstd, and how a reader wants it taken.

The format readers use it. It knows no format, only how much a trace may hold before we call it a mistake. Whatever
the file system, a packer or a check refuses leaves as a UsageError, unless the reader asked for repair: then what can be
had is taken, and what was done about the rest is counted in `repaired`.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ...base.errors import UsageError
from ...base.user_file import open_file

BLOCK_BYTES = 8 << 20
READ_BYTES = 128 << 10  # At once: what is lost where a packed stream breaks off and the rest is repaired.
BYTES_MAX = 1 << 40  # Unpacked. Weeks of a busy array; a small packed file can claim to be far more.
RECORDS_MAX = 50_000_000  # That we keep: 21 bytes each, 1 GiB of arrays. What only streams by may be more.
IO_BYTES_MAX = 64 << 20  # Of one I/O. Disks and hypervisors split at 32 MiB or well below; more is a broken size field.
ADDRESS_BYTES_MAX = 1 << 60  # 1 EiB; leaves room to add a size without leaving int64.
DURATION_NS_MAX = 366 * 24 * 3600 * 10**9  # A year. One corrupt time would otherwise make a plan of centuries.

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # RFC 8878, 3.1.1


@dataclass(frozen=True)
class Taking:
    """How a trace is to be taken."""

    repair: bool = False  # leave out or sort what is wrong, and count it, instead of refusing the file
    disk: str | None = None  # of a trace of several: this one only
    volume_bytes: int | None = None  # refuse what lies beyond
    format: str = ""  # what it is; empty: found from its content


AS_IT_IS = Taking()


class Source(AbstractContextManager):
    """An open trace file: its first block as `head`, all of it as `blocks()`. Tests set smaller bounds."""

    def __init__(
        self, path: str | Path, bytes_max: int = BYTES_MAX, block_bytes: int = BLOCK_BYTES, *, taking: Taking = AS_IT_IS
    ) -> None:
        self.path = Path(path)
        self.bytes_max = bytes_max
        self.block_bytes = block_bytes
        self.taking = taking
        self.disks: dict[str, int] = {}  # Names, in the order in which they came.
        self.repaired: Counter[str] = Counter()  # What was done about records that were wrong, and how often.
        self.left_out: Counter[str] = Counter()  # What is right, but no write, read or flush.

    @property
    def name(self) -> str:
        return self.path.name.split(".")[0] or self.path.name

    def __enter__(self) -> Source:
        self.file = open_file(self.path, "read the trace")
        try:
            magic = self.file.read(len(ZSTD_MAGIC))
            self.file.seek(0)
            self.packing, self.stream = unpacking(magic, self.file)
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
            while missing and (part := self.stream.read(min(missing, READ_BYTES))):
                parts.append(part)
                missing -= len(part)
                self.read_bytes += len(part)
        except EOFError:
            self.breaks_off(f"the {self.packing} stream ends early, after {self.read_bytes} unpacked bytes.")
        except (gzip.BadGzipFile, zlib.error, DamagedZstdError) as refusal:
            self.breaks_off(f"not valid {self.packing} after {self.read_bytes} unpacked bytes ({refusal}).")
        except OSError as refusal:
            self.refuse(f"reading at byte {self.read_bytes}: {refusal.strerror or refusal}.")
        if self.read_bytes > self.bytes_max:
            self.refuse(f"more than {self.bytes_max} bytes unpacked, which is all we read. Cut the trace into parts.")
        return b"".join(parts)

    def breaks_off(self, sentence: str) -> None:
        """Refuse a packed stream that cannot be read on; repair takes what came before."""
        if not self.taking.repair:
            self.refuse(f"{sentence} Copy the file again.")
        self.stream = io.BytesIO()
        self.repaired["end of the packed stream lost"] += 1

    def refuse(self, sentence: str) -> NoReturn:
        raise UsageError(f'Trace "{self.path}": {sentence}') from None


class DamagedZstdError(Exception):
    """A zstd stream that cannot be read on."""


class ZstdStream:
    """A zstd file as plain bytes, frame after frame; EOFError where it ends inside a frame."""

    def __init__(self, file: Any) -> None:
        import zstandard  # The standard library has one from Python 3.14 on.

        self.file, self.error, self.new = file, zstandard.ZstdError, zstandard.ZstdDecompressor
        self.frame: Any = None
        self.packed, self.plain = b"", b""

    def read(self, size: int) -> bytes:
        while not self.plain:
            if not self.packed:
                # A small piece at a time: one that unpacks to ten thousand times as much still fits the memory.
                self.packed = self.file.read(4096)
                if not self.packed:
                    if self.frame is not None:
                        raise EOFError
                    return b""
            if self.frame is None:
                self.frame = self.new(max_window_size=WINDOW_BYTES_MAX).decompressobj()
            try:
                self.plain = self.frame.decompress(self.packed)
            except self.error as refusal:
                raise DamagedZstdError(str(refusal)) from None
            self.packed = b""
            if self.frame.eof:
                self.packed, self.frame = self.frame.unused_data, None
        part, self.plain = self.plain[:size], self.plain[size:]
        return part


WINDOW_BYTES_MAX = 128 << 20  # What `zstd --long` needs without being asked again: its decoder's own default.


def unpacking(magic: bytes, file: Any) -> tuple[str, Any]:
    """(what the file is packed with, what reads it unpacked)."""
    if magic.startswith(GZIP_MAGIC):
        return "gzip", gzip.GzipFile(fileobj=file)
    if magic == ZSTD_MAGIC:
        return "zstd", ZstdStream(file)
    return "plain", file
