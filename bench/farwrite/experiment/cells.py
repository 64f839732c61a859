"""From a profile to cells: every workload under every protocol at every distance, with its physics and its plan's recipe.

A `Workload` is a table of the profile with its trace found and read through; whoever measures a cell is given it, once a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..base.errors import UsageError
from ..base.physics import rtt_ns_of
from ..base.protocol import ProtocolName, majority
from ..base.units import format_size
from ..recording import Cell, Other
from ..workload.load_checks import joint_load_of
from ..workload.plan import Load
from ..workload.tables import CellTable, Profile
from ..workload.trace.reader import Outline, outline_once, reads_text
from ..workload.trace.trace import find

ANY_VOLUME_BYTES = 1 << 50  # For what does not depend on it.
SIZE_BYTES_MAX = 1 << 20  # What the engine's records may hold.


@dataclass(frozen=True)
class Workload:
    """What cells are made of."""

    table: CellTable
    trace_path: Path | None = None  # of a workload that replays one,
    trace: Outline | None = None  # and what must be known of it


def workload_of(table: CellTable) -> Workload:
    """A table's workload. UsageError for a trace that cannot be read."""
    if not table.trace:
        return Workload(table)
    path = find(table.trace)
    return Workload(table, path, outline_once(str(path), table.trace_format))


def workloads_of(profile: Profile) -> dict[str, Workload]:
    """All workloads of a profile, by name."""
    return {table.name: workload_of(table) for table in profile.cell}


def cells_of(profile: Profile, workloads: Mapping[str, Workload] | None = None) -> list[Cell]:
    """All cells, in the order of the profile."""
    distances = profile.distance.in_miles()
    return [
        cell_of(profile, workload, protocol, miles)
        for workload in (workloads_of(profile) if workloads is None else workloads).values()
        for protocol in workload.table.protocols
        for miles in workload.table.miles or distances
    ]


def cell_of(profile: Profile, workload: Workload, protocol: ProtocolName, miles: float) -> Cell:
    """One workload of a profile under one protocol at one distance."""
    table = workload.table
    return Cell(
        id=f"{table.name}-{protocol}-{miles:g}",
        name=table.name,
        protocol=protocol,
        miles=miles,
        asked_rtt_ns=asked_rtt_ns_of(miles, profile),
        queue_depth=sum(job.queue_depth * job.count for job in table.jobs) or table.queue_depth,
        arrival=arrival_of(table),
        size_bytes=median_size(workload),
        offered_per_s=offered(workload),
        note=note_of(workload),
        others=[] if protocol == "local" else others_of(table, profile),
        quorum=quorum_of(table) if "quorum" in table.protocols else 0,
        on_congestion=table.on_congestion if protocol == "A" else "block",
    )


def others_of(table: CellTable, profile: Profile) -> list[Other]:
    """The cell's further secondaries."""
    return [Other(miles=miles, asked_rtt_ns=asked_rtt_ns_of(miles, profile)) for miles in table.other_miles]


def others_of_all(profile: Profile) -> int:
    """How many further secondaries the cell with most of them has."""
    return max(len(table.other_miles) for table in profile.cell)


def quorum_of(table: CellTable) -> int:
    """How many replicas must be durable before a write completes under protocol quorum."""
    return table.quorum or majority(2 + len(table.other_miles))


def asked_rtt_ns_of(miles: float, profile: Profile) -> int:
    """The round trip that a distance of this profile asks for."""
    return rtt_ns_of(miles, profile.distance.route_factor, profile.distance.equipment_ns)


def median_size(workload: Workload) -> int:
    """The size of a write that half of the writes do not exceed."""
    table, trace = workload.table, workload.trace
    if trace is not None:
        if not trace.writes:
            raise UsageError(f'cell "{table.name}": the trace {trace.name} holds no write. Nothing can be replayed.')
        if max(trace.write_sizes) > SIZE_BYTES_MAX:
            largest = format_size(max(trace.write_sizes))
            raise UsageError(f'cell "{table.name}": trace {trace.name} writes {largest} at once; a record holds 1 MiB.')
        return trace.write_size_median
    shares = sorted(
        (size, weight / sum(each for _, each in load.sizes) * (load.rate_per_s or load.queue_depth))
        for load in writing(loads(table))
        for size, weight in load.sizes
    )
    passed = np.cumsum([weight for _, weight in shares])
    return shares[int(np.searchsorted(passed, passed[-1] / 2 * (1 - 1e-12)))][0]


def loads(table: CellTable) -> tuple[Load, ...]:
    """The loads of a cell that is no trace, one for each job, wherever its volume ends."""
    return joint_load_of(table, ANY_VOLUME_BYTES).parts


def writing(parts: tuple[Load, ...]) -> list[Load]:
    """The loads that write; all of them where none does."""
    return [load for load in parts if load.read_share + load.trim_share < 1] or list(parts)


def arrival_of(table: CellTable) -> str:
    """closed, fixed, poisson or trace; jobs, where they differ."""
    kinds = {job.arrival for job in table.jobs} or {table.arrival}
    return "trace" if table.trace else kinds.pop() if len(kinds) == 1 else "jobs"


def offered(workload: Workload) -> float | None:
    """Writes per second the workload asks for; None where a closed loop asks for what completes, or nothing is written."""
    table, trace = workload.table, workload.trace
    if trace is not None:
        return trace.writes / (max(trace.duration_ns, 1) / 1e9) / table.time_scale
    parts = loads(table)
    writes = [round((load.rate_per_s or 0.0) * (1 - load.read_share - load.trim_share), 9) for load in parts]
    return None if any(load.rate_per_s is None for load in parts) else sum(writes) or None


def note_of(workload: Workload) -> str:
    """What a reader must know of a workload besides its numbers."""
    trace = workload.trace
    if trace is None:
        return ""
    disks = f", of {len(trace.extents)} disks laid side by side" if len(trace.extents) > 1 else ""
    return (
        f"trace {trace.name}: {trace.writes} writes over {trace.duration_ns / 1e9:.0f} s{disks}, a window of it per round; "
        f"{trace.others} reads and flushes left out (a write here is durable when it completes); {reads_text(trace.read_share)}"
    )


def load_of(table: CellTable, volume_bytes: int) -> Load | None:
    """How the plan is drawn; None for a trace."""
    return None if table.trace else joint_load_of(table, volume_bytes)
