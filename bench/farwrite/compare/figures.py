"""From a file to its result set: a farwrite report, a result set that was imported, or another tool's results.

Loads neither numpy nor Numba as long as the report's stored analysis is the one this farwrite would make.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from .. import recording as recordings
from ..analysis import analysis_of
from ..analysis.answer import not_durable_text
from ..analysis.drill_recording import FILE as DRILL_NAME
from ..analysis.drill_recording import KIND as DRILL_KIND
from ..analysis.drill_recording import decode as decode_drill
from ..analysis.figure import METRICS, RESULT_SET_VERSION, Figure, Label, ResultSet, cell_figure, figure_of
from ..analysis.result import Analysis, CellResult, Estimate, PartResult, beaten_doubt, exactly, lateness_share_of
from ..base.documents import found_at, found_in, read_document
from ..base.errors import UsageError
from ..base.reasons import drills_uncounted, sentences, with_codes
from ..base.units import NS_PER_MS
from ..recording import Recording, Report
from ..workload.link_spec import describe

REPORT_NAMES = (recordings.REPORT_NAME, "sheet.json", DRILL_NAME)  # What a directory is asked for.


def read_result_set(path: Path) -> ResultSet:
    """The result set of a file, or of a run's directory; UsageError says what the file is not."""
    path, data = contents(path)
    if is_drill(data):
        from .drills import result_set_of_drill

        return result_set_of_drill(decode_drill(data, str(path)), str(path))
    if is_report(data):
        report = recordings.decode(data, str(path))
        return result_set_of(report, analysis_of(report), str(path))
    if is_result_set(data):
        return decode_result_set(data, str(path))
    from .foreign import result_set_of_foreign

    return result_set_of_foreign(path, data)


def aa_control_beside(baseline: Path, base: ResultSet, cand: ResultSet) -> ResultSet | None:
    """The base measured a second time, where both result sets are arms of one A/B experiment and it lies beside them."""
    if base.pairing is None or cand.pairing is None or base.pairing.id != cand.pairing.id or base.pairing.arm != "base":
        return None
    place = (baseline if baseline.is_dir() else baseline.parent).parent / "again"
    if not holds_report(place):
        return None
    twin = read_result_set(place)
    return twin if twin.pairing and twin.pairing.id == base.pairing.id and twin.pairing.arm == "again" else None


def holds_report(directory: Path) -> bool:
    """Whether a directory is a run's: whether it has a report."""
    return bool(found_in(directory, REPORT_NAMES))


def contents(path: Path) -> tuple[Path, bytes]:
    """(the file, its bytes) of a path that may be a run's directory."""
    if path.is_dir():
        found = found_in(path, REPORT_NAMES)
        if not found:
            raise UsageError(f"{path} is a directory without a {' or '.join(REPORT_NAMES)}.")
        path = found[0]
    path = found_at(path)
    return path, read_document(path, "read the report")


class Kind(msgspec.Struct):
    """Enough of a JSON file to know whose it is."""

    schema_version: int | None = None
    kind: str | None = None
    recording: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    figures: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def kind_of(data: bytes) -> Kind | None:
    """What a file says of itself; None when it is no JSON object."""
    try:
        return msgspec.json.decode(data, type=Kind)
    except recordings.NOT_OURS:
        return None


def is_report(data: bytes) -> bool:
    """Whether this is a farwrite report, even a damaged or newer one."""
    kind = kind_of(data)
    if kind is None:  # Cut off, or no JSON: a report's first words are its schema and its recording.
        return b'"schema_version"' in data[:200] and b'"recording"' in data[:400]
    return kind.schema_version is not None or kind.recording is not msgspec.UNSET


def is_drill(data: bytes) -> bool:
    """Whether this is what a drill observed."""
    kind = kind_of(data)
    return kind is not None and kind.kind == DRILL_KIND


def is_result_set(data: bytes) -> bool:
    """Whether this is a result set that `farwrite import` wrote."""
    kind = kind_of(data)
    return kind is not None and kind.figures is not msgspec.UNSET


def decode_result_set(data: bytes, source: str) -> ResultSet:
    """A result set from its bytes."""
    try:
        document = msgspec.json.decode(data)
        version = document.get("version", 1)
        if isinstance(version, int) and version > RESULT_SET_VERSION:
            raise UsageError(f"{source} is a result set of version {version}; this farwrite reads up to {RESULT_SET_VERSION}.")
        result_set = msgspec.convert(document | {"figures": with_codes(document.get("figures"))}, ResultSet)
    except recordings.NOT_OURS as refusal:
        raise UsageError(f"{source} is no result set: {refusal}.") from refusal
    return msgspec.structs.replace(result_set, source=source, version=RESULT_SET_VERSION)


def result_set_of(report: Report, analysis: Analysis, source: str) -> ResultSet:
    """All figures of a report."""
    recording = report.recording
    return ResultSet(
        kind="farwrite",
        source=source,
        id=recording.id,
        started_utc=recording.started_utc,
        identity=identity_of(recording),
        figures=list(figures_of(analysis)),
        pairing=recording.pairing,
        interrupted=recording.interrupted,
        warnings=sentences(analysis.warnings),
        not_durable=not_durable_text(recording.lab) if recording.lab.not_durable else "",
        budgets=recording.profile.budget,
    )


def identity_of(recording: Recording) -> dict[str, str]:
    """What two runs must share for a difference between them to mean anything, field by field."""
    host, lab = recording.host, recording.lab
    systems = dict.fromkeys([lab.near_file_system, lab.far_file_system])
    asked = describe(recording.profile.link)
    # Only what is asked for or done, so that runs from before it was known are of the same series as those without.
    more = {"link_spec": asked} if asked else {}
    wire = [(key, value) for key, value in (("encryption", lab.encryption), ("compression", lab.compression)) if value != "none"]
    if lab.keep_awake != "none":
        more["keep_awake"] = str(lab.keep_awake)
    return more | {
        "host": f"{host.get('cpu_count', '?')} x {host.get('cpu') or 'unknown processor'}",
        "kernel": str(host.get("kernel") or "unknown"),
        "link": lab.link,
        "profile": f"{recording.profile_name} {recording.profile_digest}",
        "protocol": " ".join(sorted({cell.protocol for cell in recording.cells})),
        "durability": lab.durability,
        "disk": f"{' and '.join(systems)}, {'direct' if lab.direct else 'buffered'}, "
        f"{'one disk' if lab.shared_disk else 'a disk each'}",
        "reactor": lab.reactor,
        "transport": ", ".join(f"{key} {value}" for key, value in [*sorted(lab.transport.items()), *wire]),
    }


def figures_of(analysis: Analysis) -> Iterator[Figure]:
    """Every figure of an analysis, cell by cell, then the structure, then the drills."""
    for cell in analysis.cells:
        # Efficiency is a share of the response time; and of a floor, where it is one.
        of_share = [doubt for doubt in (lateness_share_of(cell.response_ns_p50), beaten_doubt(cell.efficiency)) if doubt]
        for metric, value in cell_values(cell).items():
            if value is not None:
                yield cell_figure(cell, metric, value, withheld=of_share if metric == "efficiency" else [])
        for part in cell.parts:
            named = {"op": part.operation, "job": part.job, "phase": part.phase}
            of_part: dict[str, Label] = {key: word for key, word in named.items() if word}
            for metric, value in part_values(part).items():
                yield cell_figure(cell, metric, value, of_part)
    for fit in analysis.fits:
        labels: dict[str, Label] = {"name": fit.name, "protocol": fit.protocol, "queue_depth": fit.queue_depth}
        suffix = f"p{100 * fit.quantile:g}".replace(".", "")
        if f"k_{suffix}" in METRICS:
            yield figure_of(f"k_{suffix}", labels, fit.k)
            yield figure_of(f"a_{suffix}", labels, fit.a_ns)
    for found in analysis.miles:
        suffix = f"p{100 * found.quantile:g}".replace(".", "")
        labels = {
            "name": found.name, "protocol": found.protocol, "budget": f"{found.budget_ns / NS_PER_MS:g} ms",
            "route": found.route_factor,
        }  # fmt: skip
        made = figure_of(f"greatest_miles_{suffix}", labels, found.miles)
        yield msgspec.structs.replace(made, beyond=found.beyond_miles, below=found.below_miles)
    for drill in analysis.drills:
        labels = {"drill": drill.kind, "protocol": drill.protocol, "miles": drill.miles}
        for metric, value in {
            "drill_lost_writes": drill.lost_in_all,
            "drill_damaged_writes": drill.damaged_in_all,
            "recovery_point": drill.recovery_point_ns_max,
            "recovery_time": drill.recovery_time_ns_max,
            "loss_probability": drill.loss_probability_high,
        }.items():
            if value and not drill.count:
                yield figure_of(metric, labels, exactly(value, drill.uncounted_count))  # A loss is one whatever counts.
            elif not drill.count:  # That nothing was lost is not known.
                why = drills_uncounted(drill.kind, drill.protocol, drill.uncounted_text)
                yield figure_of(metric, labels, Estimate(value=None, warnings=[why]))
            elif value is not None:
                yield figure_of(metric, labels, exactly(value, drill.count))


def cell_values(cell: CellResult) -> dict[str, Any]:
    """A cell's figures by metric: estimates, or exact values; None where it has none."""
    count = cell.completed
    return {
        "response_p50": cell.response_ns_p50,
        "response_p99": cell.response_ns_p99,
        "response_p999": cell.response_ns_p999,
        "service_p50": cell.service_ns_p50,
        "wait_p99": cell.wait_ns_p99,
        "late_p99": cell.late_ns_p99,
        "floor": cell.floor_ns,
        "efficiency": cell.efficiency,
        "rtt_p50": cell.rtt_ns_p50,
        "rtt_p99": cell.rtt_ns_p99,
        "throughput": cell.completed_per_s,
        "goodput": cell.goodput_bytes_per_s,
        "cpu_per_write": cell.cpu_ns_per_write,
        "lag_p99": cell.lag_ns_p99,
        "lag_writes_max": counted(cell.lag_writes_max, count),
        "lag_bytes_max": counted(cell.lag_bytes_max, count),
        "lost_writes": counted(cell.lost, count),
        "damaged_writes": counted(cell.damaged, count),
        "unacknowledged_writes": counted(cell.unacknowledged, count),
        "flushes_per_write": cell.flushes_per_write,
        "far_flushes_per_write": cell.far_flushes_per_write,
        "wire_bytes_per_user_byte": cell.wire_bytes_per_user_byte,
        "rounds_void": counted(cell.rounds_void, cell.rounds_ok + cell.rounds_void + cell.rounds_failed),
    }


def part_values(part: PartResult) -> dict[str, Estimate]:
    """The figures of one operation of a job. Their metrics have names of their own: a budget on writes is not one on reads."""
    return {
        "part_response_p50": part.response_ns_p50,
        "part_response_p99": part.response_ns_p99,
        "part_response_p999": part.response_ns_p999,
        "part_throughput": part.completed_per_s,
        "part_goodput": part.goodput_bytes_per_s,
    }


def counted(value: float | None, count: int) -> Estimate | None:
    """An exact value; None where there is none."""
    return None if value is None else exactly(value, count)
