"""A trace as a stream of batches, whatever its format; and its outline, which takes one walk through the file.

`Reading` is what info, convert and replays go through: it finds the format, and lays several disks side by side when it is told
where each begins. Nothing here keeps more than a block, except `read` and `window`, which keep what they were asked for.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

from ...base.errors import UsageError, nearest
from . import alibaba, blkparse, csv, iolog, msr, spc, tencent, vscsi
from .columns import Batch
from .source import AS_IT_IS, RECORDS_MAX, Source, Taking
from .trace import READ, WRITE, Trace

FORMATS: tuple[ModuleType, ...] = (csv, iolog, msr, spc, blkparse, vscsi)  # vscsi last: it has no words to be known by.
# Only when they are named: lines of bare numbers may be anybody's.
NAMED_ONLY: tuple[ModuleType, ...] = (alibaba, tencent)
BY_NAME = {module.__name__.rpartition(".")[2]: module for module in (*FORMATS, *NAMED_ONLY)}
BY_SUFFIX = {".csv": csv, ".vscsi": vscsi, ".iolog": iolog, ".spc": spc, ".blkparse": blkparse}
DISK_ALIGNMENT_BYTES = 1 << 20  # Where the next of several disks may begin.


class Reading(AbstractContextManager):
    """An open trace; iterating gives its batches, once. The facts are complete when the last batch has been given."""

    def __init__(self, path: str | Path, taking: Taking = AS_IT_IS, begins: Mapping[str, int] | None = None) -> None:
        """`begins`: the address at which each disk begins; addresses stay those of their own disk without it."""
        self.source = Source(path, taking=taking)
        self.begins = begins or {}

    def __enter__(self) -> Reading:
        self.source.__enter__()
        try:
            self.reader, self.format = format_of(self.source)
        except BaseException:
            self.source.__exit__()
            raise
        return self

    def __exit__(self, *failure) -> None:
        self.source.__exit__(*failure)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.reader.read(self.source):
            if self.begins:
                starts = np.array([self.begins.get(name, 0) for name in self.source.disks], np.int64)
                moved = np.where(batch.size > 0, batch.address + starts[batch.disk], 0)
                batch = batch._replace(address=moved)
            yield batch

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def disks(self) -> list[str]:
        """The names, by Batch.disk; one of no name in formats that know only one disk."""
        return list(self.source.disks)

    @property
    def repaired(self) -> Counter[str]:
        return +self.source.repaired

    @property
    def left_out(self) -> Counter[str]:
        return +self.source.left_out


def format_of(source: Source) -> tuple[ModuleType, str]:
    """The reader of a file, and the format's name; as it was told, or by content, or else by suffix."""
    given = source.taking.format
    if given:
        if given not in BY_NAME:
            raise UsageError(f'--format: there is no "{given}"{nearest(given, BY_NAME)}.')
        return BY_NAME[given], BY_NAME[given].recognises(source.head) or given
    if is_blktrace(source.head):
        raise UsageError(f'Trace "{source.path}" is what blktrace records. Make text of it: {blkparse_command(source.path)}')
    for reader in FORMATS:
        if found := reader.recognises(source.head):
            return reader, found
    named = [BY_SUFFIX[suffix] for suffix in source.path.suffixes if suffix in BY_SUFFIX]
    likely = [reader.recognises(source.head) for reader in NAMED_ONLY if reader.recognises(source.head)]
    if likely and (not named or named[-1] is csv):
        raise UsageError(
            f'Trace "{source.path}" has lines as {likely[0]}\'s have them, but no header that says so. If it is that: '
            f"--format {likely[0]}."
        )
    if not named:
        raise UsageError(
            f'Trace "{source.path}", record 1 at byte 0: of no known format. Give a trace of VMware vSCSI (version 1 or 2), '
            "MSR Cambridge, SPC, a fio I/O log (version 2 or 3), what blkparse prints, or a CSV file with the header "
            f'"{csv.HEADER.decode()}"; plain, gzip or zstd. Traces of Alibaba and Tencent have to be named with --format.'
        )
    return named[-1], named[-1].__name__.rpartition(".")[2]


BLKTRACE_MAGIC = 0x65617400  # BLK_IO_TRACE_MAGIC; its lowest byte is the version. linux/blktrace_api.h


def is_blktrace(head: bytes) -> bool:
    """Whether this is blktrace's binary record, of a machine of either byte order."""
    return any(int.from_bytes(head[:4], order) & ~0xFF == BLKTRACE_MAGIC for order in ("little", "big"))


def blkparse_command(path: Path) -> str:
    """What makes text of blktrace's record: blkparse(1) wants the name without ".blktrace.CPU"."""
    parted = re.fullmatch(r"(.+)\.blktrace\.\d+", str(path))
    if parted is None:
        return f"blkparse -i - < {shlex.quote(str(path))} > {shlex.quote(path.name + '.txt')}"
    return f"blkparse -i {shlex.quote(parted[1])} -o {shlex.quote(Path(parted[1]).name + '.txt')}"


@dataclass
class Outline:
    """What must be known of a trace before it is replayed or laid out."""

    name: str = ""
    source_format: str = ""
    extents: dict[str, int] = field(default_factory=dict)  # one past the last byte touched, by disk
    writes: int = 0
    others: int = 0  # reads and flushes
    reads: int = 0
    duration_ns: int = 0
    write_sizes: Counter[int] = field(default_factory=Counter)

    @property
    def begins(self) -> dict[str, int]:
        """Where each disk begins when they are laid side by side, in the order of their names; empty for a single one."""
        if len(self.extents) < 2:
            return {}
        begins, end = {}, 0
        for name in sorted(self.extents, key=natural):
            begins[name] = end
            end += -(-self.extents[name] // DISK_ALIGNMENT_BYTES) * DISK_ALIGNMENT_BYTES
        return begins

    @property
    def read_share(self) -> float | None:
        """The share of reads among reads and writes; None where there are neither."""
        return self.reads / (self.reads + self.writes) if self.reads + self.writes else None

    @property
    def write_size_median(self) -> int:
        """The size that half of the writes do not exceed; 0 when there is none."""
        passed = 0
        for size, count in sorted(self.write_sizes.items()):
            passed += count
            if 2 * passed >= self.writes:
                return size
        return 0


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts "hm.2" before "hm.10"."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def outline(path: str | Path, taking: Taking = AS_IT_IS) -> Outline:
    """One walk through the file. UsageError says what is wrong, in which record, and what to do."""
    found = Outline()
    extents = np.zeros(0, np.int64)
    with Reading(path, taking) as reading:
        found.name, found.source_format = reading.name, reading.format
        for batch in reading:
            extents = extents_with(extents, batch, len(reading.disks))
            is_write = batch.operation == WRITE
            found.writes += int(is_write.sum())
            found.others += int((~is_write).sum())
            found.reads += int((batch.operation == READ).sum())
            sizes, counts = np.unique(batch.size[is_write], return_counts=True)
            found.write_sizes.update(dict(zip(sizes.tolist(), counts.tolist(), strict=True)))
            found.duration_ns = int(batch.time_ns[-1])
        found.extents = {name: int(end) for name, end in zip(reading.disks, extents, strict=False) if end or len(extents) == 1}
    return found


def extents_with(extents: np.ndarray, batch: Batch, disk_count: int) -> np.ndarray:
    """One past the last byte touched, by disk, with this batch."""
    grown = np.zeros(disk_count, np.int64)
    grown[: extents.size] = extents
    np.maximum.at(grown, batch.disk, batch.address + batch.size)
    return grown


@functools.lru_cache(maxsize=8)
def outline_once(path: str, form: str = "") -> Outline:
    """outline(), once per process; a lab's processes inherit what was found before they were forked. `form`: Taking.format."""
    return outline(path, Taking(format=form))


def reads_text(read_share: float | None) -> str:
    """The share of reads in words: tools disagree whether 0 means read, and a wrong share is the first that a person sees."""
    return "neither reads nor writes" if read_share is None else f"{read_share:.1%} of reads and writes are reads"


def read(path: str | Path, taking: Taking = AS_IT_IS) -> Trace:
    """All of a trace, disks side by side."""
    with Reading(path, taking) as first:
        kept = kept_of(first, iter(first))
        disks = first.disks
    if len(disks) > 1:
        begins = outline(path, taking).begins
        return window(path, 0, None, begins, taking)
    return trace_of(first, kept)


def window(
    path: str | Path, begin_ns: int, end_ns: float | None, begins: Mapping[str, int], taking: Taking = AS_IT_IS
) -> Trace:
    """The records from `begin_ns` until before `end_ns`; nothing else is kept, and nothing behind it is read."""
    with Reading(path, taking, begins) as reading:
        return trace_of(reading, kept_of(reading, between(reading, begin_ns, end_ns)))


def between(batches: Reading, begin_ns: int, end_ns: float | None) -> Iterator[Batch]:
    """The records of a stretch of time."""
    for batch in batches:
        if end_ns is not None and batch.time_ns[0] >= end_ns:
            return
        inside = batch.time_ns >= begin_ns
        if end_ns is not None:
            inside &= batch.time_ns < end_ns
        if inside.any():
            yield batch.where(inside)


def kept_of(reading: Reading, batches: Iterator[Batch]) -> list[Batch]:
    """The batches, held in memory: no more of them than fit."""
    kept, count = [], 0
    for batch in batches:
        count += batch.time_ns.size
        if count > RECORDS_MAX:
            reading.source.refuse(f"more than {RECORDS_MAX} records at once, which is all we keep. Take a part of it.")
        kept.append(batch)
    return kept


def trace_of(reading: Reading, batches: list[Batch]) -> Trace:
    """Batches as one trace; an empty one when there is none."""
    if not batches:
        empty = Batch(*(np.zeros(0, kind) for kind in (np.int64, np.int8, np.int64, np.int32, np.int32)))
        batches = [empty]
    columns = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in Batch._fields}
    return Trace(reading.name, reading.format, **{name: columns[name] for name in Batch._fields if name != "disk"})
