"""What must hold of the records in every format, checked in one place, block by block.

A reader hands over a block's columns as recorded; what comes back are batches that a replay can trust: times since the first
record that never fall, sizes and addresses that a disk can have. With repair, wrong records are dropped and late ones are
sorted in, both counted, and memory stays bounded: a record may be at most SORTED_RECORDS places too late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from .source import ADDRESS_BYTES_MAX, DURATION_NS_MAX, IO_BYTES_MAX, Source
from .trace import FLUSH

SORTED_RECORDS = 1 << 17
ONE_DISK = ""  # The name where a format knows only one.


class Batch(NamedTuple):
    """Some records; every array is indexed by record."""

    time_ns: np.ndarray  # int64, since the trace's first record; never falls, from batch to batch neither
    operation: np.ndarray  # int8, WRITE, READ or FLUSH
    address: np.ndarray  # int64, bytes from the start of its disk
    size: np.ndarray  # int32, bytes; 0 for a flush
    disk: np.ndarray  # int32, index into Columns.disks

    def where(self, kept: np.ndarray) -> Batch:
        """The records that `kept` is true for."""
        return self if kept.all() else Batch(*(column[kept] for column in self))


class Columns:
    """Checks a trace block by block.

    `where(index)` turns a record's index into the words that lead a person to it; times come in units of `tick_ns`.
    """

    def __init__(self, source: Source, where: Callable[[int], str], tick_ns: int = 1) -> None:
        self.source = source
        self.where = where
        self.tick_ns = tick_ns
        self.count = 0  # records that were handed over
        self.taken = 0  # of them, that came back
        self.first = np.uint64(0)
        self.last = np.uint64(0)
        self.given_until = np.uint64(0)  # With repair: the time of the last record given back.
        self.disks: dict[str, int] = source.disks
        self.held: Batch | None = None  # With repair: records not given back yet, for later ones may belong before them.

    def take(
        self,
        time: np.ndarray,
        operation: np.ndarray,
        address: np.ndarray,
        size: np.ndarray,
        disk: np.ndarray | None = None,
    ) -> Iterator[Batch]:
        """One block's batches. `time` in ticks, `address` and `size` in bytes are uint64 as recorded, `operation` is int8,
        `disk` what `disk_of` answered."""
        if not time.size:
            return
        if disk is None:
            disk = np.full(time.size, self.disk_of(ONE_DISK), np.int32)
        is_flush = operation == FLUSH
        repair = self.source.taking.repair
        good = np.ones(time.size, np.bool_)

        def check(holds: np.ndarray, found: np.ndarray, otherwise: str, dropped: str) -> None:
            if repair:
                self.source.repaired[f"dropped, {dropped}"] += int((good & ~holds).sum())
                np.logical_and(good, holds, out=good)
            else:
                self.check(holds, found, otherwise)

        room = self.source.taking.volume_bytes
        # Without repair the order of times comes first: it is what a person notices first.
        if not repair:
            self.check_times(time)
        whole, too_large = "it concerns everything. Write 0.", f"more than {IO_BYTES_MAX}. Split or correct it."
        check(size <= IO_BYTES_MAX, size, f"a size of {{}} bytes, {too_large}", "too large")
        check((size > 0) | is_flush, size, "a read or write of {} bytes. Remove it.", "of no bytes")
        check((size == 0) | ~is_flush, size, f"a flush with a size of {{}} bytes; {whole}", "a flush of a part")
        check((address == 0) | ~is_flush, address, f"a flush with the address {{}}; {whole}", "a flush of a part")
        far = f"address {{}}, beyond {ADDRESS_BYTES_MAX}. Correct it."
        check(address <= ADDRESS_BYTES_MAX, address, far, "address too large")
        if room is not None:
            end = np.minimum(address, np.uint64(ADDRESS_BYTES_MAX)) + np.minimum(size, np.uint64(IO_BYTES_MAX))
            beyond = f"address {{}}, which reaches beyond the volume of {room} bytes. Fold or correct it."
            check(end <= room, address, beyond, "beyond the volume")

        # What is still wrong with repair is dropped here, before it has to fit the smaller types.
        raw = Batch(time, operation, address.view(np.int64), np.minimum(size, IO_BYTES_MAX).astype(np.int32), disk).where(good)
        self.count += time.size
        if repair:
            yield from self.sorted(raw)
        else:
            yield from self.given(raw)

    def check_times(self, time: np.ndarray) -> None:
        """Refuse a time that falls, or is more than a year after the first."""
        first, last = (self.first, self.last) if self.count else (time[0], time[0])
        since_first = np.where(time < first, 0, time - first)  # Unsigned; a fall is for `rises`.
        rises = time >= np.concatenate(([last], time[:-1]))
        in_time = since_first <= DURATION_NS_MAX // self.tick_ns
        self.check(in_time, time, "time {}, over a year after the first record. Correct it.")
        self.check(rises, time, "time {} is before that of the record above it. Sort the trace by time.")
        self.first, self.last = first, time[-1]

    def sorted(self, raw: Batch) -> Iterator[Batch]:
        """Give back in the order of time, holding the latest records for those that may still come late."""
        late = raw.time_ns < np.maximum.accumulate(np.concatenate(([self.last], raw.time_ns[:-1])))
        if late.any():
            self.source.repaired["sorted in by time"] += int(late.sum())
        if raw.time_ns.size:
            self.last = max(self.last, raw.time_ns.max())
        held = raw if self.held is None else Batch(*(np.concatenate(pair) for pair in zip(self.held, raw, strict=True)))
        order = np.argsort(held.time_ns, kind="stable")
        held = Batch(*(column[order] for column in held))
        ready = max(held.time_ns.size - SORTED_RECORDS, 0)
        self.held = Batch(*(column[ready:] for column in held))
        yield from self.repaired(Batch(*(column[:ready] for column in held)))

    def repaired(self, ready: Batch) -> Iterator[Batch]:
        """What was sorted, without the records that came too late for it, or a year after all others."""
        if not ready.time_ns.size:
            return
        if not self.taken:
            self.first = self.given_until = ready.time_ns[0]
        too_late = ready.time_ns < self.given_until
        too_far = ~too_late & (ready.time_ns - self.first > DURATION_NS_MAX // self.tick_ns)
        for wrong, what in ((too_late, "too late to be sorted in"), (too_far, "over a year after the first")):
            if wrong.any():
                self.source.repaired[f"dropped, {what}"] += int(wrong.sum())
        good = ready.where(~(too_late | too_far))
        if good.time_ns.size:
            self.given_until = good.time_ns[-1]
            yield from self.given(good)

    def given(self, raw: Batch) -> Iterator[Batch]:
        """The batch with its times in ns since the first record, and only of the disk that is wanted."""
        self.taken += raw.time_ns.size
        batch = raw._replace(time_ns=(raw.time_ns - self.first).astype(np.int64) * self.tick_ns)
        wanted = self.source.taking.disk
        if wanted is not None:
            batch = batch.where(batch.disk == chosen(self.disks, wanted))
        if batch.time_ns.size:
            yield batch

    def end(self) -> Iterator[Batch]:
        """What is still held; refuses a trace that held nothing."""
        if self.held is not None:
            rest, self.held = self.held, None
            yield from self.repaired(rest)
        if not self.taken:
            what = "records that can be kept" if self.source.taking.repair and self.count else "records"
            self.source.refuse(f"it holds no {what}. Was the recording interrupted?")
        wanted = self.source.taking.disk
        if wanted is not None and chosen(self.disks, wanted) < 0:
            known = ", ".join(sorted(self.disks)) if any(self.disks) else "its only one has no name"
            self.source.refuse(f'it holds no disk "{wanted}" (known: {known}). Name one of them.')

    def disk_of(self, name: str) -> int:
        """The index of a disk, known before or new."""
        return self.disks.setdefault(name, len(self.disks))

    def disks_of(self, numbers: np.ndarray) -> np.ndarray:
        """The indices of disks that are called by their numbers."""
        names, places = np.unique(numbers, return_inverse=True)
        return np.array([self.disk_of(str(name)) for name in names.tolist()], np.int32)[places.reshape(-1)]

    def check(self, holds: np.ndarray, found: np.ndarray, otherwise: str) -> None:
        """Refuse at the first record for which `holds` is false, with what was found there."""
        if not holds.all():
            index = int(np.argmin(holds))
            self.source.refuse(f"{self.where(self.count + index)}: {otherwise.format(found[index])}")


def chosen(disks: dict[str, int], word: str) -> int:
    """The index of the disk that a word means: its name, or the end of only one name behind a point; -1 for none."""
    if word in disks:
        return disks[word]
    ends = [index for name, index in disks.items() if name.endswith(f".{word}")]
    return ends[0] if len(ends) == 1 else -1
