"""One trace made into another: a stretch of it, faster or slower, folded into a smaller volume; for us or for fio.

`farwrite trace convert` is this. It streams: memory does not grow with the trace. The file takes its place only once it is whole.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UsageError
from ...base.files import ordinary
from ...base.units import NS_PER_US, format_size
from . import csv, iolog
from .columns import Batch
from .reader import Reading, between, outline
from .source import AS_IT_IS, DURATION_NS_MAX, Taking
from .trace import FLUSH, READ, WRITE

SECTOR_BYTES = 512
LETTER = {WRITE: "w", READ: "r", FLUSH: "f"}
ACTION = {WRITE: "write", READ: "read", FLUSH: "sync"}
PACKED = {".gz": "gzip", ".zst": "zstd"}
OURS, FIO = ".csv", ".iolog"
GZIP_LEVEL, ZSTD_LEVEL = 6, 9


@dataclass(frozen=True)
class Change:
    """What becomes of the records."""

    begin_ns: int = 0
    end_ns: int | None = None
    time_scale: float = 1.0
    fold_bytes: int | None = None
    file_name: str = "farwrite.img"  # of an I/O log: the file that fio shall write to


@dataclass
class Made:
    """What was written, and what was changed on the way."""

    records: int = 0
    reads: int = 0
    writes: int = 0
    folded: int = 0
    duration_ns: int = 0
    disks: list[str] = field(default_factory=list)
    repaired: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def read_share(self) -> float | None:
        """The share of reads among reads and writes; None where there are neither."""
        return self.reads / (self.reads + self.writes) if self.reads + self.writes else None


def convert(path: Path, out: Path, change: Change, taking: Taking = AS_IT_IS) -> Made:
    """Write the records of `path` to `out`, whose suffixes say how. UsageError when either cannot be."""
    form, packing = form_of(out)
    made = Made()
    # Several disks are laid side by side, which takes knowing how long each is.
    begins = outline(path, taking).begins if taking.disk is None else {}
    with Reading(path, taking, begins) as reading, written(out, packing) as write:
        write(heading(form, change, reading).encode())
        for batch in between(reading, change.begin_ns, change.end_ns):
            batch = changed(batch, change, made, path)
            write(lines_of(batch, form, change).encode())
            made.records += batch.time_ns.size
            made.reads += int((batch.operation == READ).sum())
            made.writes += int((batch.operation == WRITE).sum())
            made.duration_ns = int(batch.time_ns[-1])
        if not made.records:
            raise UsageError(f'Trace "{path}": no record lies in that stretch of time. Choose another --from and --to.')
        if form == FIO:
            write(f"{made.duration_ns // NS_PER_US} {change.file_name} close\n".encode())
    made.disks = list(begins) or [name for name in reading.disks if name]
    made.repaired, made.left_out = reading.repaired, reading.left_out
    return made


def form_of(out: Path) -> tuple[str, str]:
    """(OURS or FIO, how it is packed) of a file by its suffixes."""
    suffixes = list(out.suffixes)
    packing = PACKED.get(suffixes[-1], "") if suffixes else ""
    if packing:
        suffixes.pop()
    form = suffixes[-1] if suffixes else ""
    if form not in (OURS, FIO):
        raise UsageError(f"{out}: a trace is written as {OURS}, {OURS}.gz or {OURS}.zst, or for fio as {FIO}. Name it so.")
    if form == FIO and packing:
        raise UsageError(f"{out}: fio reads no packed log. Leave out {out.suffix}.")
    return form, packing


def changed(batch: Batch, change: Change, made: Made, path: Path) -> Batch:
    """The batch moved to the new begin, at the new speed, in the new volume."""
    time_ns = batch.time_ns - change.begin_ns
    if change.time_scale != 1:
        # NumPy's floats round above 2^53 ns, 104 days, by less than a microsecond.
        scaled = np.floor(time_ns * change.time_scale)
        if scaled[-1] > DURATION_NS_MAX:
            raise UsageError(f'Trace "{path}": at a scale of {change.time_scale:g} it takes over a year. Use a smaller one.')
        time_ns = scaled.astype(np.int64)
    if change.fold_bytes is None:
        return batch._replace(time_ns=time_ns)
    address, folded = fold(batch, change.fold_bytes, path)
    made.folded += folded
    return batch._replace(time_ns=time_ns, address=address)


def fold(batch: Batch, volume_bytes: int, path: Path) -> tuple[np.ndarray, int]:
    """(addresses within the volume, how many had to move): modulo its size, and down by what would still stick out."""
    end = volume_bytes // SECTOR_BYTES * SECTOR_BYTES
    if batch.size.max() > end:
        largest = format_size(int(batch.size.max()))
        raise UsageError(f'Trace "{path}": an I/O of {largest} does not fit {format_size(end)}. Fold into a larger volume.')
    size = batch.size.astype(np.int64)
    address = np.where(size > 0, np.minimum(batch.address % end, end - size), 0)
    return address, int((address != batch.address).sum())


def heading(form: str, change: Change, reading: Reading) -> str:
    """What stands above the records."""
    if form == FIO:
        return f"{iolog.FIRST_LINE[3].decode()}\n0 {change.file_name} add\n0 {change.file_name} open\n"
    what = f"# from {reading.name} ({reading.format}) by farwrite trace convert\n"
    return what.encode("ascii", "replace").decode() + csv.HEADER.decode() + "\n"


def lines_of(batch: Batch, form: str, change: Change) -> str:
    """The records, a line each."""
    names, times = (ACTION, batch.time_ns // NS_PER_US) if form == FIO else (LETTER, batch.time_ns)
    rows = zip(times.tolist(), batch.operation.tolist(), batch.address.tolist(), batch.size.tolist(), strict=True)
    if form == FIO:
        return "".join(f"{time} {change.file_name} {names[kind]} {address} {size}\n" for time, kind, address, size in rows)
    return "".join(f"{time},{names[kind]},{address},{size}\n" for time, kind, address, size in rows)


@contextmanager
def written(out: Path, packing: str) -> Iterator[Callable[[bytes], Any]]:
    """What writes to a file that takes its place only when all was well; UsageError when the system refuses."""
    try:
        place = ordinary(out)
        beside = place.with_name(f".farwrite-{os.getpid()}-{place.name}")
        with ExitStack() as stack:
            file = stack.enter_context(beside.open("xb"))
            stack.callback(beside.unlink, missing_ok=True)  # Once it is in its place, there is none.
            with packed(file, packing) as stream:
                yield stream.write
            file.flush()
            os.fsync(file.fileno())
            beside.replace(place)
    except OSError as refusal:
        raise UsageError(f"write {out}: {refusal.strerror}. Name another place.") from refusal


def packed(file: Any, packing: str) -> Any:
    """A stream that packs what is written to it; closing it leaves the file open."""
    if packing == "gzip":
        import gzip

        return gzip.GzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=file, mtime=0)
    if packing == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(file, closefd=False)
    from contextlib import nullcontext

    return nullcontext(file)
