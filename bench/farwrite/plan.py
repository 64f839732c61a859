"""What a workload asks for (`Load`), and the plan of every write: drawn from it, or taken from a trace.

Profiles build a `Load`, the pipeline calls `draw` or `replay`, the load driver walks through the `Plan`. How instants
and addresses are drawn is left to the kernels, which are not imported before there is something to draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import UsageError, nearest
from .units import NS_PER_S, format_size

if TYPE_CHECKING:
    from .plan_kernel import Plan, Recipe

ARRIVALS = ("closed", "fixed", "poisson")
ADDRESSES = ("sequential", "uniform", "zipf")
ALIGNMENTS_BYTES = (512, 4096)

SECTOR_BYTES = 512  # The least a block device reads or writes.
SIZE_BYTES_MIN = 32  # A payload begins with a stamp of this size: `payload_kernel.STAMP_BYTES`.
SIZE_BYTES_MAX = 64 << 20  # As in traces: more than any disk takes at once.
VOLUME_BYTES_MAX = 1 << 60  # Leaves room to add a size without leaving int64.
QUEUE_DEPTH_MAX = 65_536  # The queue entries of an NVMe queue; NVMe base specification, CAP.MQES.
RATE_PER_S_MIN = 0.001
RATE_PER_S_MAX = 1e9  # One a ns.
SKEW_MAX = 10.0  # Nearly all writes at one place from about 5.
DURATION_NS_MAX = 366 * 24 * 3600 * NS_PER_S  # A year, as in traces.
COUNT_MAX = 1 << 30  # 21 bytes each.

BLOCK_WRITES = 65_536  # 1.4 MiB of plan, which a level-2 cache nearly holds; and Ctrl-C is heard between blocks.


@dataclass(frozen=True)
class Load:
    """How writes arrive, where they go and how large they are. UsageError says what cannot be."""

    volume_bytes: int
    arrival: str = "closed"
    queue_depth: int = 1
    rate_per_s: float | None = None
    address: str = "uniform"
    zipf_skew: float = 0.99  # YCSB's, ZipfianGenerator.java
    sizes: tuple[tuple[int, float], ...] = ((4096, 1.0),)  # size in bytes, weight
    alignment_bytes: int = 4096

    def __post_init__(self) -> None:
        member("arrival", self.arrival, ARRIVALS)
        member("address", self.address, ADDRESSES)
        whole("queue_depth", self.queue_depth, 1, QUEUE_DEPTH_MAX)
        if self.alignment_bytes not in ALIGNMENTS_BYTES:
            raise UsageError(f"alignment: {self.alignment_bytes} bytes; a disk's block is 512 or 4096 bytes.")

        if self.arrival == "closed" and self.rate_per_s is not None:
            raise UsageError(f'rate: {self.rate_per_s} /s, but a closed loop has none. Use "fixed" or "poisson".')
        if self.arrival != "closed":
            if self.rate_per_s is None:
                raise UsageError(f'rate: missing; arrival "{self.arrival}" needs writes per second.')
            number("rate", self.rate_per_s, RATE_PER_S_MIN, RATE_PER_S_MAX)
        number("zipf_skew", self.zipf_skew, 0.0, SKEW_MAX)

        if not isinstance(self.sizes, Sequence) or not self.sizes:
            raise UsageError("sizes: none given; name at least one size with its weight.")
        for entry in self.sizes:
            if not isinstance(entry, Sequence) or len(entry) != 2:
                raise UsageError(f"sizes: {entry!r} is not a size in bytes and a weight.")
            size, weight = entry
            whole("size", size, SIZE_BYTES_MIN, SIZE_BYTES_MAX)
            number("weight of a size", weight, 0.0, 1e9)
        if sum(weight for _, weight in self.sizes) <= 0:
            raise UsageError("sizes: all weights are 0; give at least one size a weight.")

        whole("volume", self.volume_bytes, self.alignment_bytes, VOLUME_BYTES_MAX)
        if self.volume_bytes < self.size_bytes_max:
            raise UsageError(
                f"volume: {format_size(self.volume_bytes)} cannot hold a write of {format_size(self.size_bytes_max)}."
            )

    @property
    def size_bytes_max(self) -> int:
        return max(size for size, _ in self.sizes)

    @property
    def size_bytes_mean(self) -> float:
        return sum(size * weight for size, weight in self.sizes) / sum(weight for _, weight in self.sizes)


def draw(load: Load, seed: int, count: int, block_writes: int = BLOCK_WRITES) -> Plan:
    """`count` writes of this load; the same for the same seed, on every machine and whatever `block_writes` is."""
    from .plan_kernel import Plan, draw_block

    whole("seed", seed, 0, (1 << 63) - 1)
    whole("count", count, 0, COUNT_MAX)
    whole("block", block_writes, 1, COUNT_MAX)
    if load.rate_per_s is not None and count / load.rate_per_s * NS_PER_S > DURATION_NS_MAX:
        raise UsageError(f"count: {count} writes at {load.rate_per_s:g} /s take over a year. Ask for fewer.")

    recipe = recipe_of(load, seed)
    plan = Plan.of_count(count)
    for start in range(0, count, block_writes):
        draw_block(plan.part(start, min(start + block_writes, count)), recipe, start)
    return plan


def recipe_of(load: Load, seed: int) -> Recipe:
    """The load in the numbers the kernel takes, before the first write."""
    from .address_kernel import Addresses
    from .arrival_kernel import Arrivals
    from .plan_kernel import Recipe

    cumulative = np.cumsum([float(weight) for _, weight in load.sizes])
    cumulative /= cumulative[-1]
    cumulative[-1] = 1.0
    return Recipe(
        seed=seed,
        arrival=ARRIVALS.index(load.arrival),
        address=ADDRESSES.index(load.address),
        sizes=np.array([size for size, _ in load.sizes], np.int32),
        cumulative=cumulative,
        arrivals=Arrivals.at_rate(load.rate_per_s or 1.0),
        addresses=Addresses.over(load.volume_bytes, load.alignment_bytes, load.size_bytes_max, load.zipf_skew, seed),
    )


@dataclass(frozen=True)
class ReplayNotes:
    """What a replay changed or left out of the trace: counts of records."""

    kept: int
    reads_left_out: int
    flushes_left_out: int
    folded: int  # moved, because they lay outside the volume
    widened: int  # rounded out to whole sectors

    def sentences(self) -> list[str]:
        """For the report's warnings; empty when the replay is the trace."""
        said = [
            (self.reads_left_out, "reads of the trace were left out: only writes are replayed."),
            (self.flushes_left_out, "flushes of the trace were left out: every write here is durable by itself."),
            (self.folded, "writes lay outside the volume and were folded into it: more overwrites than were recorded."),
            (self.widened, f"writes were rounded out to whole sectors of {SECTOR_BYTES} bytes."),
        ]
        return [f"{count} {words}" for count, words in said if count]


def replay(
    time_ns: np.ndarray,
    operation: np.ndarray,
    address: np.ndarray,
    size: np.ndarray,
    volume_bytes: int,
    time_scale: float = 1.0,
) -> tuple[Plan, ReplayNotes]:
    """The writes of a trace as a plan: the first is due at 0, the others at their distance from it times `time_scale`.

    Whole sectors only, as a block device would write them. An address outside the volume is taken modulo the volume,
    and moved down by as much as the write would still stick out.
    """
    from .plan_kernel import FLUSH, READ, WRITE

    whole("volume", volume_bytes, SECTOR_BYTES, VOLUME_BYTES_MAX)
    number("time_scale", time_scale, 0.0, 1e6)
    time_ns, operation = np.asarray(time_ns, np.int64), np.asarray(operation, np.int8)
    address, size = np.asarray(address, np.int64), np.asarray(size, np.int64)
    if not time_ns.shape == operation.shape == address.shape == size.shape or time_ns.ndim != 1:
        raise UsageError("trace: its columns differ in length.")

    kept = operation == WRITE
    none_of_ours = ~np.isin(operation, (WRITE, READ, FLUSH))
    refuse_where(none_of_ours, "its operation is none of write, read and flush.")
    if not kept.any():
        raise UsageError(f"trace: it holds {time_ns.size} records and no write. Nothing can be replayed.")
    backwards = np.concatenate(([False], time_ns[1:] < time_ns[:-1]))
    refuse_where(backwards, "its time is before that of the record above it. Sort the trace by time.")
    off = kept & ((address < 0) | (address > VOLUME_BYTES_MAX))
    refuse_where(off, f"its address is not between 0 and {VOLUME_BYTES_MAX} bytes.")
    refuse_where(kept & ((size < 1) | (size > SIZE_BYTES_MAX)), f"its size is not 1 to {SIZE_BYTES_MAX} bytes.")

    end = volume_bytes // SECTOR_BYTES * SECTOR_BYTES
    start = address & -SECTOR_BYTES
    length = ((address + size + SECTOR_BYTES - 1) & -SECTOR_BYTES) - start
    refuse_where(kept & (length > end), f"it writes more than the whole volume of {format_size(volume_bytes)}.")
    inside = np.minimum(start % end, np.maximum(end - length, 0))

    since_ns = (time_ns - time_ns[np.argmax(kept)])[kept]
    due_ns = since_ns if time_scale == 1 else np.floor(since_ns * float(time_scale))
    if due_ns[-1] > DURATION_NS_MAX:
        raise UsageError(f"trace: at a time scale of {time_scale:g} it takes over a year. Use a smaller one.")

    notes = ReplayNotes(
        kept=int(kept.sum()),
        reads_left_out=int((operation == READ).sum()),
        flushes_left_out=int((operation == FLUSH).sum()),
        folded=int((kept & (inside != start)).sum()),
        widened=int((kept & (length != size)).sum()),
    )
    assert notes.kept + notes.reads_left_out + notes.flushes_left_out == time_ns.size
    return from_arrays(due_ns, inside[kept], length[kept], operation[kept]), notes


def from_arrays(
    intended_ns: np.ndarray, address: np.ndarray, size: np.ndarray, operation: np.ndarray | None = None
) -> Plan:
    """A plan with columns of one's own, copied into the types kernels take; all writes if `operation` is left out."""
    from .plan_kernel import WRITE, Plan

    plan = Plan(
        np.array(intended_ns, np.int64, ndmin=1),
        np.array(address, np.int64, ndmin=1),
        np.array(size, np.int32, ndmin=1),
        np.full(np.size(intended_ns), WRITE, np.int8) if operation is None else np.array(operation, np.int8, ndmin=1),
    )
    assert len({column.shape for column in plan}) == 1
    return plan


def refuse_where(wrong: np.ndarray, sentence: str) -> None:
    """UsageError at the first record, counted from 1, for which `wrong` holds."""
    if wrong.any():
        raise UsageError(f"trace: record {int(np.argmax(wrong)) + 1}: {sentence}")


def member(what: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise UsageError(f'{what}: "{word}" is unknown{nearest(str(word), known)}.')


def whole(what: str, value: int, least: int, most: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"{what}: {value!r} is not a whole number from {least} to {most}.")


def number(what: str, value: float, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
        raise UsageError(f"{what}: {value!r} is not a finite number.")
    if not least <= value <= most:
        raise UsageError(f"{what}: {value:g} is not between {least:g} and {most:g}.")
