"""What a workload asks for (`Load`), and the plan of every I/O: drawn from it, or taken from a trace.

Profiles build a `Load`, the pipeline calls `draw` or `replay`, the load driver walks through the `Plan`. How instants
and addresses are drawn is left to the kernels, which are not imported before there is something to draw.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base.errors import UsageError, nearest
from ..base.units import NS_PER_S, format_size

if TYPE_CHECKING:
    import numpy as np

    from .plan_kernel import Plan, Recipe
    from .plan_kernel import Sizes as SizeTables

JOB_STREAM = 63  # Of the seed: what the jobs' own seeds are drawn from.

ARRIVALS = ("closed", "fixed", "poisson")
ADDRESSES = ("sequential", "uniform", "zipf", "pareto", "normal", "bands", "shuffle")
ALIGNMENTS_BYTES = (512, 4096)

SECTOR_BYTES = 512  # The least a block device reads or writes.
SIZE_BYTES_MIN = 32  # A payload begins with a stamp of this size: `payload_kernel.STAMP_BYTES`.
SIZE_BYTES_MAX = 64 << 20  # As in traces: more than any disk takes at once.
VOLUME_BYTES_MAX = 1 << 60  # Leaves room to add a size without leaving int64.
QUEUE_DEPTH_MAX = 65_536  # The queue entries of an NVMe queue; NVMe base specification, CAP.MQES.
RATE_PER_S_MIN = 0.001
RATE_PER_S_MAX = 1e9  # One a ns.
SKEW_MAX = 10.0  # Nearly all writes at one place from about 5.
STREAMS_MAX = 1024
RATIO_MAX = 1000.0  # Of compression and dedupe.
DURATION_NS_MAX = 366 * 24 * 3600 * NS_PER_S  # A year, as in traces.
COUNT_MAX = 1 << 30  # 21 bytes each.
JOBS_MAX = 256

# Closed loops have no rate: a plan is drawn for the fastest that a round could be, and a round that outruns it ends early.
CLOSED_PER_S_MAX = 400_000
DRAWN_MAX = 4_000_000  # Of a round's plan.
OPEN_MARGIN = 1.5  # A Poisson plan must not run out just because more arrivals came than expected.

BLOCK_WRITES = 65_536  # 1.4 MiB of plan, which a level-2 cache nearly holds; and Ctrl-C is heard between blocks.

Sizes = tuple[tuple[int, float], ...]  # size in bytes, weight


@dataclass(frozen=True)
class Stretch:
    """Some time in which the rate goes straight from one value to another."""

    lasts_ns: int
    begin_per_s: float
    end_per_s: float
    name: str = ""  # of a phase; empty where the stretches only draw a curve


@dataclass(frozen=True)
class Load:
    """How I/Os arrive, what they are, where they go and how large they are. UsageError says what cannot be.

    With `jobs` it is several loads at once, each with a depth and arrivals of its own; then nothing else counts but the volume.
    """

    volume_bytes: int
    arrival: str = "closed"
    queue_depth: int = 1
    rate_per_s: float | None = None
    address: str = "uniform"
    zipf_skew: float = 0.99  # YCSB's, ZipfianGenerator.java
    sizes: Sizes = ((4096, 1.0),)
    alignment_bytes: int = 4096
    read_sizes: Sizes = ()  # empty: as `sizes`
    trim_sizes: Sizes = ()
    read_share: float = 0.0  # of what is no flush
    trim_share: float = 0.0
    flush_share: float = 0.0  # of everything
    flush_every: int = 0  # writes between two flushes
    region_begin_bytes: int = 0
    region_bytes: int = 0  # 0: to the end of the volume
    streams: int = 1  # sequential
    stride_bytes: int = 0
    pareto_share: float = 0.2  # of the places, which take the rest of the I/O
    normal_mean: float = 0.5  # of the region
    normal_deviation: float = 0.1
    bands: tuple[tuple[float, float], ...] = ()  # share of the I/O, share of the region
    think_ns: int = 0  # closed loop
    think_at_random: bool = False
    think_every: int = 1
    stretches: tuple[Stretch, ...] = ()  # how the rate changes, over and over; then `rate_per_s` is their mean
    stretches_at_random: bool = False  # exponential lengths
    compress_ratio: float = 1.0
    dedupe_ratio: float = 1.0
    name: str = ""  # of a job
    jobs: tuple[Load, ...] = ()

    def __post_init__(self) -> None:
        whole("volume", self.volume_bytes, SECTOR_BYTES, VOLUME_BYTES_MAX)
        if self.jobs:
            whole("jobs", len(self.jobs), 1, JOBS_MAX)
            if any(job.jobs or job.volume_bytes != self.volume_bytes for job in self.jobs):
                raise UsageError("jobs: each must be of the same volume and have no jobs of its own.")
            return
        member("arrival", self.arrival, ARRIVALS)
        member("address", self.address, ADDRESSES)
        whole("queue_depth", self.queue_depth, 1, QUEUE_DEPTH_MAX)
        if self.alignment_bytes not in ALIGNMENTS_BYTES:
            raise UsageError(f"alignment: {self.alignment_bytes} bytes; a disk's block is 512 or 4096 bytes.")
        self.check_arrival()
        for sizes in (self.sizes, self.read_sizes or self.sizes, self.trim_sizes or self.sizes):
            check_sizes(sizes)
        whole("volume", self.volume_bytes, self.alignment_bytes, VOLUME_BYTES_MAX)
        self.check_region()
        self.check_mix()
        number("compress_ratio", self.compress_ratio, 1.0, RATIO_MAX)
        number("dedupe_ratio", self.dedupe_ratio, 1.0, RATIO_MAX)

    def check_arrival(self) -> None:
        """Rates belong to open loops, and time to think to closed ones."""
        if self.arrival == "closed":
            if self.rate_per_s is not None or self.stretches:
                raise UsageError(f'rate: {self.rate_per_s} /s, but a closed loop has none. Use "fixed" or "poisson".')
            whole("think", self.think_ns, 0, DURATION_NS_MAX)
            whole("think_every", self.think_every, 1, COUNT_MAX)
            return
        if self.think_ns:
            raise UsageError(f'think: arrival "{self.arrival}" waits for nobody, so there is no time to think. Use "closed".')
        if self.rate_per_s is None:
            raise UsageError(f'rate: missing; arrival "{self.arrival}" needs writes per second.')
        number("rate", self.rate_per_s, RATE_PER_S_MIN, RATE_PER_S_MAX)
        for stretch in self.stretches:
            whole("a stretch's length", stretch.lasts_ns, 1, DURATION_NS_MAX)
            number("rate", stretch.begin_per_s, 0.0, RATE_PER_S_MAX)
            number("rate", stretch.end_per_s, 0.0, RATE_PER_S_MAX)
        if self.stretches and not any(stretch.begin_per_s + stretch.end_per_s for stretch in self.stretches):
            raise UsageError("rate: it is 0 all the time.")

    def check_region(self) -> None:
        """Where addresses lie, and how they are spread there."""
        whole("region_begin", self.region_begin_bytes, 0, self.volume_bytes - 1)
        whole("region", self.region_bytes, 0, self.volume_bytes)
        if self.region_begin_bytes % self.alignment_bytes or self.region_end > self.volume_bytes:
            raise UsageError(
                f"region: it must begin at a multiple of {self.alignment_bytes} bytes and end within the volume of "
                f"{format_size(self.volume_bytes)}."
            )
        within = self.region_end - self.region_begin_bytes
        if within < self.size_bytes_max:
            what = "volume" if within == self.volume_bytes else "region"
            raise UsageError(f"{what}: {format_size(within)} cannot hold a write of {format_size(self.size_bytes_max)}.")
        number("zipf_skew", self.zipf_skew, 0.0, SKEW_MAX)
        number("pareto_share", self.pareto_share, 0.001, 0.999)
        number("normal_mean", self.normal_mean, 0.0, 1.0)
        number("normal_deviation", self.normal_deviation, 1e-6, 10.0)
        whole("streams", self.streams, 1, STREAMS_MAX)
        if within // self.streams // self.alignment_bytes * self.alignment_bytes < self.size_bytes_max:
            raise UsageError(f"streams: {self.streams} parts of {format_size(within)} cannot hold the largest write each.")
        whole("stride", self.stride_bytes, 0, self.volume_bytes)
        if self.address == "bands" and not self.bands:
            raise UsageError("bands: none given; name at least one share of the I/O with its share of the space.")
        for share, space in self.bands:
            number("a band's share", share, 0.0, 1e9)
            number("a band's space", space, 1e-9, 1e9)
        if self.bands and not sum(share for share, _ in self.bands):
            raise UsageError("bands: all shares are 0; give at least one band some I/O.")
        places = (within - self.size_bytes_max) // self.alignment_bytes + 1
        space = sum(part for _, part in self.bands)
        if any(part / space * places < 1 for share, part in self.bands if share):
            raise UsageError(f"bands: one is narrower than a single place of {places}.")

    def check_mix(self) -> None:
        """Shares of operations."""
        for name in ("read_share", "trim_share", "flush_share"):
            number(name, getattr(self, name), 0.0, 1.0)
        if self.read_share + self.trim_share > 1.0:
            raise UsageError("reads and trims together are more than everything.")
        if self.flush_share == 1.0:
            raise UsageError("flush_share: nothing but flushes is no load.")
        whole("flush_every", self.flush_every, 0, COUNT_MAX)

    @property
    def region_end(self) -> int:
        """Where the region ends, in bytes from the start of the volume."""
        return self.region_begin_bytes + self.region_bytes if self.region_bytes else self.volume_bytes

    @property
    def size_bytes_max(self) -> int:
        return max(size for sizes in (self.sizes, self.read_sizes, self.trim_sizes) for size, _ in sizes)

    @property
    def flushes(self) -> bool:
        """Whether there are any."""
        return self.flush_share > 0 or self.flush_every > 0

    @property
    def parts(self) -> tuple[Load, ...]:
        """The jobs, or the load itself as the only one."""
        return self.jobs or (self,)


def check_sizes(sizes: Sizes) -> None:
    """UsageError unless these are sizes with weights."""
    if not isinstance(sizes, Sequence) or not sizes:
        raise UsageError("sizes: none given; name at least one size with its weight.")
    for entry in sizes:
        if not isinstance(entry, Sequence) or len(entry) != 2:
            raise UsageError(f"sizes: {entry!r} is not a size in bytes and a weight.")
        size, weight = entry
        whole("size", size, SIZE_BYTES_MIN, SIZE_BYTES_MAX)
        number("weight of a size", weight, 0.0, 1e9)
    if sum(weight for _, weight in sizes) <= 0:
        raise UsageError("sizes: all weights are 0; give at least one size a weight.")


def count_max(load: Load, duration_ns: int) -> int:
    """How many I/Os a round's plan must hold, all jobs together."""
    return sum(counts_max(load, duration_ns))


def counts_max(load: Load, duration_ns: int) -> list[int]:
    """The same for each job. Closed loops share what one alone would get."""
    seconds = duration_ns / NS_PER_S
    closed = sum(part.arrival == "closed" for part in load.parts)
    opened = [0 if part.arrival == "closed" else open_count(part, seconds) for part in load.parts]
    left = max(min(round(CLOSED_PER_S_MAX * seconds), DRAWN_MAX - sum(opened)), 0)
    return [count or left // closed for count in opened]


def open_count(load: Load, seconds: float) -> int:
    """How many I/Os an open loop may ask for in a round: at its highest rate all the time, and some more."""
    rate_per_s = max([load.rate_per_s or 0.0, *(max(s.begin_per_s, s.end_per_s) for s in load.stretches)])
    flushes = 1 / (1 - load.flush_share) + (1 / load.flush_every if load.flush_every else 0)
    return round(rate_per_s * seconds * flushes * OPEN_MARGIN) + 1000


def draw(load: Load, seed: int, count: int, block_writes: int = BLOCK_WRITES) -> Plan:
    """`count` I/Os of this load; the same for the same seed, on every machine and whatever `block_writes` is."""
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


def draw_jobs(load: Load, seed: int, counts: Sequence[int]) -> tuple[Plan, np.ndarray]:
    """The plans of all jobs one behind the other, and where each begins and the last one ends.

    A job's draws depend on the seed and its place among the jobs, so that a job more changes no other. A load without jobs is
    its only one.
    """
    import numpy as np

    from ..base.prng_kernel import random_at
    from .plan_kernel import Plan

    if not load.jobs:
        (count,) = counts
        return draw(load, seed, count), np.array([0, count], np.int64)
    drawn = [
        draw(job, int(random_at(seed, JOB_STREAM, place)) >> 1, count)
        for place, (job, count) in enumerate(zip(load.jobs, counts, strict=True))
    ]
    plan = Plan(*(np.concatenate(columns) for columns in zip(*drawn, strict=True)))
    return plan, np.concatenate(([0], np.cumsum(counts))).astype(np.int64)


def recipe_of(load: Load, seed: int) -> Recipe:
    """The load in the numbers the kernel takes, before the first I/O."""
    import numpy as np

    from .address_kernel import Addresses
    from .arrival_kernel import Arrivals, Shape
    from .plan_kernel import Mix, Recipe

    shape = Shape.of([(s.lasts_ns, s.begin_per_s, s.end_per_s) for s in load.stretches], load.stretches_at_random)
    return Recipe(
        seed=seed,
        arrival=ARRIVALS.index(load.arrival),
        address=ADDRESSES.index(load.address),
        region_begin=load.region_begin_bytes,
        think_ns=float(load.think_ns),
        think_at_random=load.think_at_random,
        think_every=load.think_every,
        mix=Mix.of(load.read_share, load.trim_share, load.flush_share, load.flush_every),
        sizes=sizes_of(load),
        arrivals=Arrivals.at_rate(load.rate_per_s or 1.0, shape),
        addresses=Addresses.over(
            load.region_end - load.region_begin_bytes, load.alignment_bytes, load.size_bytes_max, load.zipf_skew, seed,
            load.streams, load.stride_bytes, load.pareto_share, load.normal_mean, load.normal_deviation, load.bands,
            tabled=load.address == "zipf",
        ),
        carried=np.zeros(2, np.int64),
    )  # fmt: skip


def sizes_of(load: Load) -> SizeTables:
    """The load's sizes as the kernel takes them; operations with the same sizes share a table."""
    import numpy as np

    from .plan_kernel import FLUSH, READ, TRIM, WRITE
    from .plan_kernel import Sizes as SizeTables

    size: list[int] = []
    cumulative: list[float] = []
    begin, end = np.zeros(5, np.int64), np.zeros(5, np.int64)
    known: dict[Sizes, int] = {}
    for operation, sizes in ((WRITE, load.sizes), (READ, load.read_sizes), (TRIM, load.trim_sizes)):
        chosen = tuple(sizes or load.sizes)
        if chosen not in known:
            known[chosen] = len(size)
            shares = np.cumsum([float(weight) for _, weight in chosen])
            shares /= shares[-1]
            shares[-1] = 1.0
            size += [each for each, _ in chosen]
            cumulative += shares.tolist()
        begin[operation], end[operation] = known[chosen], known[chosen] + len(chosen)
    assert end[FLUSH] == begin[FLUSH]
    return SizeTables(np.array(size, np.int32), np.array(cumulative), begin, end)


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
        counts = [
            (self.reads_left_out, "reads of the trace were left out: only writes are replayed."),
            (self.flushes_left_out, "flushes of the trace were left out: every write here is durable by itself."),
            (self.folded, "writes lay outside the volume and were folded into it: more overwrites than were recorded."),
            (self.widened, f"writes were rounded out to whole sectors of {SECTOR_BYTES} bytes."),
        ]
        return [f"{count} {words}" for count, words in counts if count]


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
    import numpy as np

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


def from_arrays(intended_ns: np.ndarray, address: np.ndarray, size: np.ndarray, operation: np.ndarray | None = None) -> Plan:
    """A plan with columns of one's own, copied into the types kernels take; all writes if `operation` is left out."""
    import numpy as np

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
        raise UsageError(f"trace: record {int(wrong.argmax()) + 1}: {sentence}")


def member(what: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise UsageError(f'{what}: "{word}" is unknown{nearest(str(word), known)}.')


def whole(what: str, value: int, least: int, most: int) -> None:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"{what}: {value!r} is not a whole number from {least} to {most}.")


def number(what: str, value: float, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise UsageError(f"{what}: {value!r} is not a finite number.")
    if not least <= value <= most:
        raise UsageError(f"{what}: {value:g} is not between {least:g} and {most:g}.")
