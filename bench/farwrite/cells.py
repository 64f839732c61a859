"""From a profile to cells: every workload under every protocol at every distance, with its physics and its plan's recipe."""

from __future__ import annotations

from .errors import UsageError
from .physics import rtt_ns_of
from .plan import Load
from .profile import CellTable, Profile
from .protocol import majority
from .recording import Cell, Other
from .trace import find
from .trace.reading import outline_once
from .units import format_size

# Closed loops have no rate: a plan is drawn for the fastest that a round could be, and a round that outruns it ends early.
CLOSED_PER_S_MAX = 400_000
SIZE_BYTES_MAX = 1 << 20  # What the engine's records may hold.
OPEN_MARGIN = 1.5  # A Poisson plan must not run out just because more arrivals came than expected.


def cells_of(profile: Profile) -> list[Cell]:
    """All cells, in the order of the profile."""
    distances = profile.distance.in_miles()
    cells = []
    for table in profile.cell:
        for protocol in table.protocols:
            for miles in table.miles or distances:
                cells.append(
                    Cell(
                        id=f"{table.name}-{protocol}-{miles:g}",
                        name=table.name,
                        protocol=protocol,
                        miles=miles,
                        asked_rtt_ns=asked_rtt_ns_of(miles, profile),
                        queue_depth=table.queue_depth,
                        arrival="trace" if table.trace else table.arrival,
                        size_bytes=median_size(table),
                        offered_per_s=offered(table),
                        note=note_of(table),
                        others=[] if protocol == "local" else others_of(table, profile),
                        quorum=quorum_of(table) if "quorum" in table.protocols else 0,
                        on_congestion=table.on_congestion if protocol == "A" else "block",
                    )
                )
    return cells


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


def table_of(profile: Profile, cell: Cell) -> CellTable:
    """The workload a cell was made from."""
    return next(table for table in profile.cell if table.name == cell.name)


def median_size(table: CellTable) -> int:
    """The size of a write that half of the writes do not exceed."""
    if table.trace:
        trace = outline_once(str(find(table.trace)))
        if not trace.writes:
            raise UsageError(f'cell "{table.name}": the trace {trace.name} holds no write. Nothing can be replayed.')
        if max(trace.write_sizes) > SIZE_BYTES_MAX:
            largest = format_size(max(trace.write_sizes))
            raise UsageError(f'cell "{table.name}": trace {trace.name} writes {largest} at once; a record holds 1 MiB.')
        return trace.write_size_median
    if not table.mix:
        return table.block_bytes
    half = sum(item.share for item in table.mix) / 2
    passed = 0.0
    for item in sorted(table.mix, key=lambda item: item.block_bytes):
        passed += item.share
        if passed >= half:
            return item.block_bytes
    return table.mix[-1].block_bytes


def offered(table: CellTable) -> float | None:
    """Writes per second the workload asks for; None for a closed loop."""
    if table.trace:
        trace = outline_once(str(find(table.trace)))
        return trace.writes / (max(trace.duration_ns, 1) / 1e9) / table.time_scale
    return None if table.arrival == "closed" else table.rate_per_s


def note_of(table: CellTable) -> str:
    """What a reader must know of a workload besides its numbers."""
    if not table.trace:
        return ""
    trace = outline_once(str(find(table.trace)))
    disks = f", of {len(trace.extents)} disks laid side by side" if len(trace.extents) > 1 else ""
    return (
        f"trace {trace.name}: {trace.writes} writes over {trace.duration_ns / 1e9:.0f} s{disks}, a window of it per round; "
        f"{trace.others} reads and flushes left out (a write here is durable when it completes)"
    )


def load_of(table: CellTable, volume_bytes: int) -> Load | None:
    """How the plan is drawn; None for a trace."""
    if table.trace:
        return None
    sizes = tuple((item.block_bytes, item.share) for item in table.mix) or ((table.block_bytes, 1.0),)
    aligned = all(size % 4096 == 0 for size, _ in sizes)
    return Load(
        volume_bytes=volume_bytes,
        arrival=table.arrival,
        queue_depth=table.queue_depth,
        rate_per_s=table.rate_per_s if table.arrival != "closed" else None,
        address=table.address,
        zipf_skew=table.zipf_skew,
        sizes=sizes,
        alignment_bytes=4096 if aligned else 512,
    )


def write_count_max(table: CellTable, duration_ns: int) -> int:
    """How many writes a round's plan must hold."""
    seconds = duration_ns / 1e9
    if table.arrival == "closed":
        return min(round(CLOSED_PER_S_MAX * seconds), 4_000_000)
    return round((table.rate_per_s or 0) * seconds * OPEN_MARGIN) + 1000
