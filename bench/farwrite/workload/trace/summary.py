"""What kind of load a trace is: op mix, sizes, gaps, working set, bursts, and what it writes per second.

`farwrite trace info` prints it. One walk through the file and bounded memory: sizes and gaps are counted in histograms, the
working set in bit maps, and the seconds of the trace in a histogram and a line of at most POINTS_MAX points.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np

from ...base.histogram import SLOTS, index_of, lowest_of
from ...base.units import NS_PER_S
from .columns import Batch
from .reader import Reading, extents_with
from .source import AS_IT_IS, Taking
from .trace import FLUSH, READ, WRITE

NAMES = {"write": WRITE, "read": READ, "flush": FLUSH}
QUANTILES = {"p01": 0.01, "p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
BLOCK_BYTES = 4096  # The grain of the working set.
PAGE_BLOCKS = 1 << 15  # 128 MiB of addresses: 4 KiB of bits.
PAGES_MAX = 1 << 16  # 256 MiB of bits; 8 TiB touched densely.
IO_BLOCKS_AT_ONCE = 1 << 22  # Blocks of working set that are spelled out at a time.
POINTS_MAX = 512


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """What summaries are made of."""


class Spread(Struct, frozen=True):
    """How a quantity is spread; quantiles within 0.1 %, least, greatest and mean exact. All null: there was nothing."""

    count: int
    least: int | None
    p01: int | None
    p50: int | None
    p90: int | None
    p99: int | None
    p999: int | None
    greatest: int | None
    mean: float | None


class Operation(Struct, frozen=True):
    """All records of one operation."""

    name: str
    count: int
    share: float
    bytes: int
    size_bytes: Spread
    sequential: float | None  # share that begins where the one before it, of this operation and disk, ended


class DiskUse(Struct, frozen=True):
    """One disk of the trace."""

    name: str
    records: int
    extent_bytes: int  # one past the last byte touched


class Rate(Struct, frozen=True):
    """What came in each whole or begun second of the trace."""

    p50: float
    p99: float
    greatest: float
    mean: float


class Point(Struct, frozen=True):
    """A stretch of the trace."""

    begin_s: float
    write_bytes_per_s: float
    read_bytes_per_s: float


class Summary(Struct, frozen=True):
    """What `farwrite trace info` says."""

    name: str
    format: str
    records: int
    duration_ns: int
    disks: list[DiskUse]
    disk: str | None  # the only one that was looked at; null: all
    operations: list[Operation]
    read_share: float | None  # of reads and writes
    gap_ns: Spread  # between one record and the next
    write_gap_ns: Spread
    working_set_bytes: int  # 4 KiB blocks touched, all disks
    write_working_set_bytes: int
    working_set_is_least: bool  # the trace touches more places than are kept apart
    overwritten: float | None  # share of written bytes that went where the trace had written before
    write_bytes_per_s: Rate
    writes_per_s: Rate
    dispersion: float | None  # variance over mean of writes a second: 1 for Poisson arrivals, more for bursts
    gap_variation: float | None  # standard deviation over mean of the gaps between writes: 1 for Poisson arrivals
    points: list[Point]
    repaired: dict[str, int]
    left_out: dict[str, int]


class Spreading:
    """Counts a quantity; a slot is no wider than a thousandth of what it counts."""

    def __init__(self) -> None:
        self.counts = np.zeros(SLOTS, np.int64)
        self.count, self.total, self.squares = 0, 0, 0.0
        self.least: int | None = None
        self.greatest: int | None = None

    def add(self, values: np.ndarray) -> None:
        if not values.size:
            return
        self.counts += np.bincount(index_of(values), minlength=SLOTS)
        self.count += values.size
        self.total += int(values.sum())
        self.squares += float((values.astype(np.float64) ** 2).sum())
        least, greatest = int(values.min()), int(values.max())
        self.least = least if self.least is None else min(self.least, least)
        self.greatest = greatest if self.greatest is None else max(self.greatest, greatest)

    def quantile(self, q: float) -> int | None:
        """The least value of the slot that the ceil(q * count)-th smallest is in: multiples of 4 KiB stay what they are."""
        if not self.count:
            return None
        rank = max(math.ceil(q * self.count), 1)
        found = int(lowest_of(np.searchsorted(np.cumsum(self.counts), rank)))
        return min(max(found, self.least or 0), self.greatest or 0)

    def spread(self) -> Spread:
        quantiles = {name: self.quantile(q) for name, q in QUANTILES.items()}
        mean = self.total / self.count if self.count else None
        return Spread(count=self.count, least=self.least, greatest=self.greatest, mean=mean, **quantiles)

    def variance(self) -> float | None:
        if self.count < 2:
            return None
        mean = self.total / self.count
        return max(self.squares / self.count - mean**2, 0.0)


class Places:
    """Which blocks have been touched: a bit each, in pages that exist once something in them was."""

    def __init__(self) -> None:
        self.pages: dict[tuple[int, int], np.ndarray] = {}
        self.blocks = 0
        self.full = False

    def touch(self, disk: np.ndarray, address: np.ndarray, size: np.ndarray) -> int:
        """How many blocks of these I/O had been touched before, by an earlier batch or within this one."""
        overwritten = 0
        for number in np.unique(disk):
            mine = (disk == number) & (size > 0)
            first = address[mine] // BLOCK_BYTES
            count = (address[mine] + size[mine] - 1) // BLOCK_BYTES - first + 1
            # Large I/O spell out to many blocks: a part of the batch at a time.
            cuts = np.flatnonzero(np.diff(np.cumsum(count) // IO_BLOCKS_AT_ONCE, prepend=0))
            for part_first, part_count in zip(np.split(first, cuts), np.split(count, cuts), strict=True):
                overwritten += self.touch_blocks(int(number), spelled_out(part_first, part_count))
        return overwritten

    def touch_blocks(self, disk: int, blocks: np.ndarray) -> int:
        distinct = np.unique(blocks)
        overwritten = blocks.size - distinct.size
        page_of = distinct // PAGE_BLOCKS
        for page in np.unique(page_of):
            inside = distinct[np.searchsorted(page_of, page) : np.searchsorted(page_of, page, "right")] % PAGE_BLOCKS
            bits = self.pages.get((disk, int(page)))
            if bits is None:
                if len(self.pages) >= PAGES_MAX:
                    self.full = True
                    continue
                bits = self.pages[(disk, int(page))] = np.zeros(PAGE_BLOCKS // 8, np.uint8)
            flags = np.unpackbits(bits)
            known = int(flags[inside].sum())
            flags[inside] = 1
            bits[:] = np.packbits(flags)
            overwritten += known
            self.blocks += inside.size - known
        return overwritten


def spelled_out(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """first, first + 1, … for each of the runs, one behind the other."""
    if not first.size:
        return first
    ends = np.cumsum(count)
    return np.arange(ends[-1]) - np.repeat(ends - count, count) + np.repeat(first, count)


class Seconds:
    """What came in each second. Times never fall, so a second is over once a later one begins."""

    def __init__(self) -> None:
        self.second = 0
        self.open = np.zeros(3, np.int64)  # of the second under way: writes, bytes written, bytes read
        self.writes, self.written = Spreading(), Spreading()
        self.width = 1  # seconds that a point stands for
        self.points = np.zeros((POINTS_MAX, 2), np.int64)

    def add(self, second: np.ndarray, sums: np.ndarray) -> None:
        """`sums` is of shape (seconds, 3), `second` which ones these are, ascending."""
        for number, row in zip(second.tolist(), sums, strict=True):
            if number > self.second:
                self.close()
                self.writes.count += (gap := number - self.second - 1)  # Seconds in which nothing came.
                self.written.count += gap
                self.writes.counts[0] += gap
                self.written.counts[0] += gap
                if gap:
                    self.writes.least = self.written.least = 0
                self.second = number
            self.open += row
            while number // self.width >= POINTS_MAX:
                self.points = np.concatenate(
                    [self.points.reshape(-1, 2, 2).sum(axis=1), np.zeros((POINTS_MAX // 2, 2), np.int64)]
                )
                self.width *= 2
            self.points[number // self.width] += row[1:]

    def close(self) -> None:
        self.writes.add(self.open[:1])
        self.written.add(self.open[1:2])
        self.open[:] = 0


def rate(seconds: Spreading) -> Rate:
    return Rate(
        p50=float(seconds.quantile(0.5) or 0), p99=float(seconds.quantile(0.99) or 0),
        greatest=float(seconds.greatest or 0), mean=seconds.total / max(seconds.count, 1),
    )  # fmt: skip


class Gaps:
    """From one record to the next."""

    def __init__(self) -> None:
        self.last: int | None = None
        self.spreading = Spreading()

    def add(self, time_ns: np.ndarray) -> None:
        if time_ns.size:
            before = [] if self.last is None else [self.last]
            self.spreading.add(np.diff(np.concatenate((np.array(before, np.int64), time_ns))))
            self.last = int(time_ns[-1])


class Sequence:
    """How many I/O begin where the one before on their disk ended."""

    def __init__(self) -> None:
        self.ends: dict[int, int] = {}
        self.count = 0

    def add(self, batch: Batch) -> None:
        for disk in np.unique(batch.disk).tolist():
            mine = batch.disk == disk
            address, size = batch.address[mine], batch.size[mine]
            before = np.concatenate(([self.ends.get(disk, -1)], (address + size)[:-1]))
            self.count += int((address == before).sum())
            self.ends[disk] = int(address[-1] + size[-1])


def summarise(path: str | Path, taking: Taking = AS_IT_IS) -> Summary:
    """One walk through a trace. UsageError says what is wrong, in which record, and what to do."""
    sizes = {name: Spreading() for name in NAMES}
    sequences = {name: Sequence() for name in NAMES}
    gaps, write_gaps, seconds = Gaps(), Gaps(), Seconds()
    touched, written = Places(), Places()
    extents = np.zeros(0, np.int64)
    records_by_disk = np.zeros(0, np.int64)
    written_blocks, overwritten, duration_ns = 0, 0, 0
    with Reading(path, taking) as reading:
        for batch in reading:
            for name, operation in NAMES.items():
                part = batch.where(batch.operation == operation)
                sizes[name].add(part.size.astype(np.int64))
                if operation != FLUSH and part.size.size:
                    sequences[name].add(part)
            is_write = batch.operation == WRITE
            gaps.add(batch.time_ns)
            write_gaps.add(batch.time_ns[is_write])
            touched.touch(batch.disk, batch.address, batch.size)
            overwritten += written.touch(batch.disk[is_write], batch.address[is_write], batch.size[is_write])
            ends = batch.address[is_write] + batch.size[is_write]
            written_blocks += int(((ends - 1) // BLOCK_BYTES - batch.address[is_write] // BLOCK_BYTES + 1).sum())
            seconds.add(*by_second(batch))
            extents = extents_with(extents, batch, len(reading.disks))
            counts = np.bincount(batch.disk, minlength=len(reading.disks))
            counts[: records_by_disk.size] += records_by_disk
            records_by_disk = counts
            duration_ns = int(batch.time_ns[-1])
    seconds.close()
    records = sum(item.count for item in sizes.values())
    points = min(duration_ns // NS_PER_S // seconds.width + 1, POINTS_MAX)
    used = [
        DiskUse(name=name, records=int(count), extent_bytes=int(end))
        for name, count, end in zip(reading.disks, records_by_disk, extents, strict=False)
        if count
    ]
    return Summary(
        name=reading.name,
        format=reading.format,
        records=records,
        duration_ns=duration_ns,
        disks=used,
        disk=taking.disk,
        operations=[
            Operation(
                name=name, count=item.count, share=item.count / records, bytes=item.total, size_bytes=item.spread(),
                sequential=sequences[name].count / item.count if item.count and name != "flush" else None,
            )
            for name, item in sizes.items()
        ],
        read_share=ratio(sizes["read"].count, sizes["read"].count + sizes["write"].count),
        gap_ns=gaps.spreading.spread(),
        write_gap_ns=write_gaps.spreading.spread(),
        working_set_bytes=touched.blocks * BLOCK_BYTES,
        write_working_set_bytes=written.blocks * BLOCK_BYTES,
        working_set_is_least=touched.full or written.full,
        overwritten=overwritten / written_blocks if written_blocks else None,
        write_bytes_per_s=rate(seconds.written),
        writes_per_s=rate(seconds.writes),
        dispersion=ratio(seconds.writes.variance(), seconds.writes.total / max(seconds.writes.count, 1)),
        gap_variation=variation(write_gaps.spreading),
        points=[
            Point(
                begin_s=float(index * seconds.width), write_bytes_per_s=float(written_bytes / seconds.width),
                read_bytes_per_s=float(read_bytes / seconds.width),
            )
            for index, (written_bytes, read_bytes) in enumerate(seconds.points[:points].tolist())
        ],
        repaired=dict(reading.repaired),
        left_out=dict(reading.left_out),
    )  # fmt: skip


def by_second(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """(seconds, the sums of `Seconds.open` in each)."""
    second = batch.time_ns // NS_PER_S
    numbers, starts = np.unique(second, return_index=True)
    is_write = batch.operation == WRITE
    columns = [is_write, np.where(is_write, batch.size, 0), np.where(batch.operation == READ, batch.size, 0)]
    return numbers, np.stack([np.add.reduceat(column.astype(np.int64), starts) for column in columns], axis=1)


def ratio(part: float | None, whole: float) -> float | None:
    return part / whole if part is not None and whole else None


def variation(spreading: Spreading) -> float | None:
    variance = spreading.variance()
    return ratio(None if variance is None else math.sqrt(variance), spreading.total / max(spreading.count, 1))
