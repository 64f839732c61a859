"""From the keys of a cell, or of one of its jobs, to the Loads that a plan is drawn from; and what of the keys cannot be.

Profiles check with it and cells are made with it. A key is refused through `require(unless, key, sentence)`, which knows the
line. What numbers a Load may hold is left to `plan.py`, whose refusals are passed on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from ..base import units
from ..base.errors import UsageError
from .plan import CLOSED_PER_S_MAX, DRAWN_MAX, JOBS_MAX, OPEN_MARGIN, Load, Stretch, open_count
from .tables import CellTable, Phase, SizeShare

RATE_PER_S_MIN, RATE_PER_S_MAX = 0.001, float(CLOSED_PER_S_MAX)

CELL_ONLY = (
    "name", "protocols", "miles", "other_miles", "quorum", "on_congestion", "trace", "trace_format",
    "time_scale", "phases", "jobs",
)  # fmt: skip
NOT_INHERITED = ("rate_per_s",)  # Jobs share the cell's; they do not have it each.
ROWS_MAX = 64  # Names of jobs times phases: each has four histograms of 254 kB.
JOB_ONLY = ("count", "apart", "share")

# What a Load calls a thing, and the key it comes from.
LOAD_KEYS = {"sizes": "block", "size": "block", "read_share": "reads", "trim_share": "trims", "a band's space": "bands"}
DIURNAL_PARTS = 96  # Straight pieces: a quarter of an hour of a day.


def joint_load_of(table: CellTable, volume_bytes: int) -> Load:
    """How the I/Os of a cell are drawn; with jobs, each for itself."""
    if not table.jobs:
        return loads_of(table, volume_bytes, table.phases)[0]
    jobs = [load for job in jobs_of(table) for load in loads_of(job, volume_bytes, table.phases)]
    return Load(volume_bytes=volume_bytes, queue_depth=sum(job.queue_depth for job in jobs), jobs=tuple(jobs))


def jobs_of(table: CellTable) -> list[CellTable]:
    """The jobs of a cell; those of an open loop without a rate of their own have their share of the cell's."""
    sharing = [job for job in table.jobs if job.rate_per_s is None and job.arrival != "closed"]
    shares = sum(job.share * job.count for job in sharing)
    return [
        msgspec.structs.replace(job, rate_per_s=table.rate_per_s * job.share / shares)
        if table.rate_per_s and job in sharing else job
        for job in table.jobs
    ]  # fmt: skip


def check(
    cell: CellTable, volume_bytes: int, round_ns: int, require: Callable[..., None], require_of_job: Callable[..., None]
) -> None:
    """The promises of a cell's load and of its jobs."""
    for field in JOB_ONLY:
        require(getattr(cell, field) == default_of(cell, field), field, f"{field} is for a job of a cell: [[cell.jobs]].")
    require(not cell.trace_format or bool(cell.trace), "trace_format", "trace_format is for a cell with a trace.")
    require(not cell.trace or not cell.jobs, "jobs", "a trace has no jobs: it is replayed as it was recorded.")
    if not cell.jobs:
        check_load(cell, cell.phases, volume_bytes, require, bool(cell.trace))
    names = [job.name for job in cell.jobs]
    require(len(set(names)) == len(names), "jobs", "every job needs a name of its own.")
    require(max(len(names), 1) * max(len(cell.phases), 1) <= ROWS_MAX, "jobs" if names else "phases",
            f"at most {ROWS_MAX} jobs times phases have figures of their own; give those that are alike a count.")  # fmt: skip
    for place, job in enumerate(jobs_of(cell)):
        check_job(cell, job, volume_bytes, partial(require_of_job, place))
    require(sum(job.count for job in cell.jobs) <= JOBS_MAX, "jobs", f"a cell has at most {JOBS_MAX} jobs.")
    if not cell.trace:
        parts = joint_load_of(cell, volume_bytes).parts
        asked = sum(open_count(part, round_ns / units.NS_PER_S) for part in parts if part.arrival != "closed")
        require(asked / OPEN_MARGIN <= DRAWN_MAX, "rate" if cell.rate_per_s else "phases" if cell.phases else "jobs",
                f"about {asked / OPEN_MARGIN:,.0f} I/Os a round are too many for a plan of {DRAWN_MAX:,}: ask for fewer, or "
                "shorter rounds.")  # fmt: skip


def default_of(table: CellTable, field: str) -> Any:
    """What a key is when it is not given."""
    found = next(item for item in msgspec.structs.fields(table) if item.name == field)
    return found.default if found.default is not msgspec.NODEFAULT else found.default_factory()


def check_job(cell: CellTable, job: CellTable, volume_bytes: int, require: Callable[..., None]) -> None:
    """The promises of one job of a cell."""
    for field in CELL_ONLY[1:]:
        require(getattr(job, field) == default_of(job, field), field, f"{field} is for the whole cell.")
    require(re.fullmatch(r"[\w\-]+", job.name) is not None, "name", "a name is letters, digits, _ and -.")
    require(1 <= job.count <= JOBS_MAX, "count", f"count must lie between 1 and {JOBS_MAX}.")
    require(0 < job.share <= 1e6, "share", "share must be above 0, and at most 1 000 000.")
    check_load(job, cell.phases, volume_bytes, require)


def check_load(
    cell: CellTable, phases: list[Phase], volume_bytes: int, require: Callable[..., None], replayed: bool = False
) -> None:
    """The promises of one load, a cell's or a job's."""
    open_loop = cell.arrival != "closed" and not replayed
    require(1 <= cell.queue_depth <= 4096, "queue_depth", "queue_depth must lie between 1 and 4096.")
    rate_per_s = cell.rate_per_s or 0
    phased = bool(phases) and not cell.rate_per_s
    require(not open_loop or phased or RATE_PER_S_MIN <= rate_per_s <= RATE_PER_S_MAX, "rate" if rate_per_s else "arrival",
            f'arrival "{cell.arrival}" needs a rate, such as rate = "500 /s"; at most 400 000 /s.')  # fmt: skip
    require(open_loop or not phases, "phases", 'phases change the rate of an open loop: "fixed" or "poisson".')
    for phase in phases:
        require(re.fullmatch(r"[\w\-]+", phase.name) is not None, "phases", "a phase's name is letters, digits, _ and -.")
        require(phase.lasts_ns >= units.NS_PER_MS, "phases", f'phase "{phase.name}" must last 1 ms or longer.')
        require(all(0 <= rate <= RATE_PER_S_MAX for rate in (phase.rate_per_s, phase.rate_end_per_s or 0)), "phases",
                f'phase "{phase.name}": a rate must lie between 0 and 400 000 /s.')  # fmt: skip
    require(len({phase.name for phase in phases}) == len(phases), "phases", "every phase needs a name of its own.")
    require(
        not phased or any(phase.rate_per_s or phase.rate_end_per_s for phase in phases),
        "phases",
        "no phase has a rate.",
    )
    burst, diurnal = cell.burst, cell.diurnal
    curves = [key for key, given in (("burst", burst.on_ns), ("diurnal", diurnal.period_ns), ("phases", phased)) if given]
    require(len(curves) < 2, curves[-1] if curves else "burst", f"{' and '.join(curves)} both change the rate: choose one.")
    require(open_loop or not (burst.on_ns or diurnal.period_ns), "burst" if burst.on_ns else "diurnal",
            'a rate that changes is for an open loop: "fixed" or "poisson".')  # fmt: skip
    require((burst.on_ns > 0) == (burst.off_ns > 0) and min(burst.on_ns, burst.off_ns) >= 0, "burst",
            'a burst has a time on and a time off, such as burst = {on = "100 ms", off = "900 ms"}.')  # fmt: skip
    require(0 <= burst.rate_off_per_s <= RATE_PER_S_MAX, "burst", "burst.rate_off must lie between 0 and 400 000 /s.")
    require(
        diurnal.period_ns == 0 or diurnal.period_ns >= units.NS_PER_MS,
        "diurnal",
        "diurnal.period must be 1 ms or longer.",
    )
    require(0 <= diurnal.least <= 1, "diurnal", "diurnal.least is a share of the rate: 0 to 1.")
    require(0 <= cell.think_ns <= 60 * units.NS_PER_S, "think", "think must lie between 0 s and 1 min.")
    require(not cell.think_ns or (not open_loop and not replayed), "think",
            "time to think is for a closed loop: an open one waits for nobody.")  # fmt: skip
    require(1 <= cell.think_every <= 1_000_000, "think_every", "think_every must lie between 1 and 1 000 000.")
    require(0 <= cell.zipf_skew <= 10, "zipf_skew", "zipf_skew must lie between 0 and 10.")
    mixes = (("mix", cell.mix), ("read_mix", cell.read_mix), ("trim_mix", cell.trim_mix))
    for key, sizes in (
        ("block", [cell.block_bytes]),
        *((key, [item.block_bytes for item in mix]) for key, mix in mixes),
    ):
        require(all(512 <= size <= 1 << 20 and size % 512 == 0 for size in sizes), key,
                "a block is a multiple of 512 B from 512 B to 1 MiB.")  # fmt: skip
    for key, mix in mixes:
        require(all(0 < item.share <= 1e9 for item in mix), key, "a share must be above 0, and at most 1e9.")
    for key in ("reads", "trims", "hot_share", "hot_space"):
        require(0 <= getattr(cell, key) <= 1, key, f"{key} is a share: 0 to 1.")
    require(0 <= cell.flushes < 1, "flushes", "flushes is a share of the I/O: 0 to less than 1.")
    require(cell.reads + cell.trims <= 1, "reads", "reads and trims together are more than everything.")
    require(0 <= cell.flush_every <= 1_000_000, "flush_every", "flush_every must lie between 0 and 1 000 000.")
    require(cell.address != "hot-spot" or 0 < cell.hot_space < 1, "hot_space", "hot_space must lie between 0 and 1.")
    for key in ("compress_ratio", "dedupe_ratio"):
        require(1 <= getattr(cell, key) <= 1000, key, f"{key} is a size before to a size after: 1 to 1000.")
    for key, size in (
        ("region_begin", cell.region_begin_bytes),
        ("region", cell.region_bytes),
        ("stride", cell.stride_bytes),
    ):
        require(0 <= size <= volume_bytes and size % 512 == 0, key,
                f"{key} must be whole sectors of 512 B, and not more than the volume.")  # fmt: skip
    if not replayed and not cell.jobs:
        try:
            loads_of(cell, volume_bytes, phases)
        except UsageError as refusal:
            what = str(refusal).partition(":")[0]
            require(False, LOAD_KEYS.get(what, what), str(refusal))


def loads_of(table: CellTable, volume_bytes: int, phases: list[Phase]) -> list[Load]:
    """How the I/Os of a cell without jobs, or of a job and its like, are drawn."""
    region_begin = table.region_begin_bytes
    region = table.region_bytes or volume_bytes - region_begin
    own = table.count if table.apart else 1
    aligned = all(size % 4096 == 0 for size in (*sizes_in(table), region_begin, region, table.stride_bytes))
    alignment = 4096 if aligned else 512
    part = region // own // alignment * alignment
    open_loop = table.arrival != "closed"
    rate = table.rate_per_s
    stretches = stretches_of(table, rate, phases) if open_loop else ()
    if open_loop and rate is None and stretches:
        rate = mean_per_s(stretches)
    bands = {"bands": [(band.share, band.space) for band in table.bands],
             "hot-spot": [(table.hot_share, table.hot_space), (1 - table.hot_share, 1 - table.hot_space)]}  # fmt: skip
    return [
        Load(
            volume_bytes=volume_bytes, arrival=table.arrival, queue_depth=table.queue_depth,
            rate_per_s=rate if open_loop else None, address="bands" if table.address == "hot-spot" else table.address,
            zipf_skew=table.zipf_skew, sizes=shares_of(table.mix) or ((table.block_bytes, 1.0),), alignment_bytes=alignment,
            read_sizes=shares_of(table.read_mix), trim_sizes=shares_of(table.trim_mix), read_share=table.reads,
            trim_share=table.trims, flush_share=table.flushes, flush_every=table.flush_every,
            region_begin_bytes=region_begin + copy % own * part,
            region_bytes=part if table.region_bytes or own > 1 else 0, streams=table.streams, stride_bytes=table.stride_bytes,
            pareto_share=table.pareto_share, normal_mean=table.normal_mean, normal_deviation=table.normal_deviation,
            bands=tuple(bands.get(table.address, ())), think_ns=table.think_ns, think_at_random=table.think_at_random,
            think_every=table.think_every, stretches=stretches,
            stretches_at_random=table.burst.at_random and bool(table.burst.on_ns),
            compress_ratio=table.compress_ratio, dedupe_ratio=table.dedupe_ratio, name=table.name,
        )
        for copy in range(table.count)
    ]  # fmt: skip


def sizes_in(table: CellTable) -> list[int]:
    """Every size that a load has."""
    mixed = [item.block_bytes for mix in (table.mix, table.read_mix, table.trim_mix) for item in mix]
    return mixed if table.mix else [table.block_bytes, *mixed]


def shares_of(mix: list[SizeShare]) -> tuple[tuple[int, float], ...]:
    """A mix as a Load takes it."""
    return tuple((item.block_bytes, item.share) for item in mix)


def stretches_of(table: CellTable, rate_per_s: float | None, phases: list[Phase]) -> tuple[Stretch, ...]:
    """How the rate of an open loop changes; empty when it does not."""
    burst, diurnal = table.burst, table.diurnal
    if burst.on_ns and rate_per_s:
        off = burst.rate_off_per_s
        return Stretch(burst.on_ns, rate_per_s, rate_per_s), Stretch(burst.off_ns, off, off)
    if diurnal.period_ns and rate_per_s:
        height = [
            rate_per_s * (diurnal.least + (1 - diurnal.least) * (1 - math.cos(2 * math.pi * part / DIURNAL_PARTS)) / 2)
            for part in range(DIURNAL_PARTS + 1)
        ]
        lasts_ns = max(diurnal.period_ns // DIURNAL_PARTS, 1)
        return tuple(Stretch(lasts_ns, height[part], height[part + 1]) for part in range(DIURNAL_PARTS))
    if phases and not table.rate_per_s:
        ends = [phase.rate_per_s if phase.rate_end_per_s is None else phase.rate_end_per_s for phase in phases]
        return tuple(Stretch(phase.lasts_ns, phase.rate_per_s, end, phase.name) for phase, end in zip(phases, ends, strict=True))
    return ()


def mean_per_s(stretches: tuple[Stretch, ...]) -> float:
    """The rate over all stretches."""
    lasts_ns = sum(stretch.lasts_ns for stretch in stretches)
    return sum((s.begin_per_s + s.end_per_s) / 2 * s.lasts_ns for s in stretches) / lasts_ns
