"""A report's latencies as HdrHistogram's tools read them: .hlog, interval by interval, and .hgrm, by percentile.

In the log each interval is a slice of a good round; its tag is the cell, with `.warmup` behind it where the analysis leaves
the slice out. Service and wait times are kept by round, so there an interval is a round. Format: javadoc of
HistogramLogWriter and of AbstractHistogram, `outputPercentileDistribution`; a plotter of either reads ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

import numpy as np

from ..analysis.analyse import good_rounds
from ..analysis.result import Analysis
from ..base.histogram import HALF_BITS, RANGE_BITS, Histogram, highest_of, middle_of
from ..base.units import NS_PER_MS, NS_PER_S
from ..recording import Cell, Recording, Round

TimeName = Literal["response", "service", "wait"]

WARMUP = ".warmup"
LEGEND = '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'
TICKS_PER_HALF = 5  # Lines for each halving of the distance to 100 %, as the reference's own default.


class Interval(NamedTuple):
    """A line of the log."""

    tag: str
    begin_s: float  # since the run began
    duration_s: float
    histogram: Histogram


def hlog(recording: Recording, analysis: Analysis, cells: Sequence[Cell], kind: TimeName) -> Iterator[str]:
    """The lines of a log, in the order of time."""
    started = datetime.fromisoformat(recording.started_utc)
    run = f"run {one_line(recording.id)}, profile {one_line(recording.profile_name)}"
    yield f"#[farwrite {recording.farwrite}: {kind} time in ns, {run}]\n"
    yield "#[Histogram log format version 1.3]\n"
    # Both, for readers differ in which of them they add to the intervals' own times.
    yield f"#[BaseTime: {started.timestamp():.3f} (seconds since epoch)]\n"
    yield f"#[StartTime: {started.timestamp():.3f} (seconds since epoch), {started.isoformat()}]\n"
    yield LEGEND + "\n"
    intervals = [item for cell in cells for item in intervals_of(recording, analysis, cell, kind)]
    for item in sorted(intervals, key=lambda item: item.begin_s):
        # The greatest value goes into its column in ms, as the reference's default ratio has it.
        greatest = (item.histogram.maximum or 0) / NS_PER_MS
        yield f"Tag={item.tag},{item.begin_s:.3f},{item.duration_s:.3f},{greatest:.3f},{item.histogram.encode()}\n"


def intervals_of(recording: Recording, analysis: Analysis, cell: Cell, kind: TimeName) -> Iterator[Interval]:
    """The intervals of one cell's good rounds."""
    tag = tag_of(cell)
    dropped = dropped_slices(recording, analysis, cell)
    for item in good_rounds(recording, cell):
        if kind != "response":
            yield Interval(tag, item.begin_s, item.duration_ns / NS_PER_S, whole(item, kind, 0))
            continue
        for place, part in enumerate(item.slices):
            name = tag + WARMUP if place < dropped else tag
            # The survey before the load is not told apart from it: a slice may have begun that much later.
            begin_s = item.begin_s + part.begin_ns / NS_PER_S
            yield Interval(name, begin_s, part.duration_ns / NS_PER_S, Histogram.decode(part.response))


def dropped_slices(recording: Recording, analysis: Analysis, cell: Cell) -> int:
    """How many leading slices of a round the analysis left out as warm-up."""
    result = next((item for item in analysis.cells if item.cell == cell.id), None)
    rounds = good_rounds(recording, cell)
    if result is None or not result.warmup_ns or not rounds or not rounds[0].slices:
        return 0
    return round(result.warmup_ns / rounds[0].slices[0].duration_ns)


def whole(round_: Round, kind: TimeName, dropped: int) -> Histogram:
    """All of a round but the slices of its warm-up, which only response times can do without."""
    if kind != "response":
        return Histogram.decode(getattr(round_, kind))
    total = Histogram()
    for part in round_.slices[dropped:]:
        total = total.merge(Histogram.decode(part.response))
    return total


def pooled(recording: Recording, analysis: Analysis, cell: Cell, kind: TimeName) -> Histogram:
    """Everything of a cell that the report's own quantiles are of."""
    dropped = dropped_slices(recording, analysis, cell)
    total = Histogram()
    for item in good_rounds(recording, cell):
        total = total.merge(whole(item, kind, dropped))
    return total


def hgrm(histogram: Histogram) -> str:
    """The distribution by percentile, in ms."""
    used = histogram.used()
    counts = histogram.counts[used]
    cumulative = np.cumsum(counts)
    highs = highest_of(used) / NS_PER_MS
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}\n"]
    for level, at in levels(cumulative):
        lines.append(f"{highs[at]:12.3f} {level / 100:2.12f} {cumulative[at]:10d} {100 / (100 - level):14.2f}")
    mean, deviation, greatest, count = 0.0, 0.0, 0.0, 0
    if used.size:
        count, greatest = int(cumulative[-1]), float(highs[-1])
        middles = middle_of(used) / NS_PER_MS
        mean = float((middles * counts).sum() / count)
        deviation = math.sqrt(float((counts * (middles - mean) ** 2).sum() / count))
        lines.append(f"{greatest:12.3f} {1:2.12f} {count:10d}")
    buckets = RANGE_BITS - HALF_BITS + 1
    lines += [
        f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]",
        f"#[Max     = {greatest:12.3f}, Total count    = {count:12d}]",
        f"#[Buckets = {buckets:12d}, SubBuckets     = {2 << HALF_BITS:12d}]",
    ]
    return "\n".join(lines) + "\n"


def levels(cumulative: np.ndarray) -> Iterator[tuple[float, int]]:
    """(percentile, index of the slot that reaches it): ever smaller steps, until all values are counted."""
    level, at = 0.0, 0
    while cumulative.size:
        at = max(at, int(np.searchsorted(100.0 * cumulative / cumulative[-1], level)))
        at = min(at, cumulative.size - 1)
        yield level, at
        if at == cumulative.size - 1:
            return
        half_distance = 2.0 ** (int(math.log2(100.0 / (100.0 - level))) + 1)
        level += 100.0 / (TICKS_PER_HALF * half_distance)


def tag_of(cell: Cell) -> str:
    """The cell's id, without what ends a tag."""
    return one_line(cell.id).replace(",", "_").replace(" ", "_")


def one_line(text: str) -> str:
    return " ".join(text.split())
