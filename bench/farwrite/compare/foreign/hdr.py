"""HdrHistogram logs (.hlog), as the HistogramLogWriters of Java, C and Python write them: quantiles over all intervals.

Label: tag, where a line has one. An interval is a round; the log does not say what was recorded nor in which unit, so
it is called latency and is taken as nanoseconds unless told otherwise. Format: javadoc of HistogramLogWriter; the encoding of a
histogram is in `farwrite.base.hdr_codec`.

The second number of a line is the interval's length (Java, Python) or the instant it ended at (C), and the column is called
"EndTimestamp" by C and by old Java alike: what it is, is found from the numbers.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ...analysis.estimate import mean_over_rounds
from ...analysis.figure import Figure, Label, ResultSet
from ...base.errors import UsageError
from ...base.hdr_codec import slots_in_use
from ...base.units import TIME
from .counted import QUANTILES, Counted
from .document import clean, short
from .metrics import figure, identifier, utc

# Neighbouring seconds are more alike than distant ones. A long log is therefore read as this many rounds of several
# neighbouring intervals each: batch means, of which more than 30 are of no use (Schmeiser 1982).
ROUNDS_MAX = 30

YEAR_S = 366 * 86_400.0  # No interval is that long.
ENDS_LEGEND = '"EndTimestamp"'

DIGIT_BITS = 11  # Of a value we keep as many as our own histograms: 1024 slots a doubling.

OURS = re.compile(
    r'^#\[Histogram log format version|"Interval_Compressed_Histogram"|^(Tag=[^,\n]*,)?[\d.]+,[\d.]+,[\d.]+,D?HIST', re.MULTILINE
)
START = re.compile(r"#\[StartTime: *(\d{1,12}(?:\.\d{1,9})?) ")
LINE = re.compile(r"(?:Tag=([^,]*),)?\s*(\d{1,15}(?:\.\d*)?),\s*(\d{1,15}(?:\.\d*)?),\s*(\d{1,19}(?:\.\d*)?),\s*(\S+)")


class Interval(NamedTuple):
    """One line of the log; the arrays are indexed by slot, in the log's unit."""

    tag: str
    start_s: float
    duration_s: float  # as read: the end, where `ends_instead_of_lengths` says so of the log
    shown_max: float  # the greatest value as the writer showed it: divided by a ratio of its choice
    lows: np.ndarray  # int64, ascending
    widths: np.ndarray  # int64
    counts: np.ndarray  # int64


def is_ours(text: str) -> bool:
    """Whether this is a histogram log."""
    return OURS.search(text) is not None


def result_set_of(text: str, source: str, unit: str | None) -> ResultSet:
    """All figures of a log."""
    started = ""
    by_tag: dict[str, list[Interval]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith(("#", '"')):
            match = START.match(line)
            started = started or (utc(float(match[1])) if match else "")
            continue
        try:
            interval = interval_of(line)
        except UsageError as refusal:
            what = f"{source}, line {number}: {refusal}"
            raise UsageError(f"{what}. Is the log cut off? Take out the line to read the rest.") from refusal
        by_tag.setdefault(interval.tag, []).append(interval)
    if ends_instead_of_lengths(list(by_tag.values()), ENDS_LEGEND in text):
        by_tag = {
            tag: [item._replace(duration_s=item.duration_s - item.start_s) for item in intervals]
            for tag, intervals in by_tag.items()
        }
    if not by_tag:
        raise UsageError(f"{source} is an HdrHistogram log without an interval.")
    figures = [item for tag, intervals in by_tag.items() for item in figures_of(tag, intervals, float(TIME[unit or "ns"]))]
    return ResultSet(
        kind="hdrhistogram", source=source, id=identifier(text), started_utc=started, identity={}, figures=figures,
        warnings=[] if unit else unit_doubts([item for intervals in by_tag.values() for item in intervals]),
    )  # fmt: skip


def ends_instead_of_lengths(series: Sequence[Sequence[Interval]], legend: bool) -> bool:
    """Whether the second column holds instants. Each tag is a series of its own; `legend`: the column is called so.

    Lengths lead from one start to the next, ends are the next start; where both fit, or there is one interval only, the legend
    decides, unless the length would be a year and more.
    """
    items = [item for intervals in series for item in intervals]
    if any(item.duration_s <= item.start_s > 0 for item in items):
        return False  # It would have ended when it began, or before.
    if any(item.duration_s - item.start_s < YEAR_S <= item.duration_s for item in items):
        return True  # A time since 1970.
    pairs = [pair for intervals in series for pair in itertools.pairwise(intervals)]
    as_ends = math.fsum(abs(one.duration_s - other.start_s) for one, other in pairs)
    as_lengths = math.fsum(abs(one.start_s + one.duration_s - other.start_s) for one, other in pairs)
    return as_ends < as_lengths or (legend and as_ends == as_lengths and any(item.start_s > 0 for item in items))


def unit_doubts(intervals: Sequence[Interval]) -> list[str]:
    """That nanoseconds are a guess; and whether the column Interval_Max speaks against it.

    Writers divide that column by 1 000 000 unless told otherwise, which shows ns as ms. One who recorded us divides by 1000.
    """
    ratios = [
        (item.lows[-1] + item.widths[-1] - 1) / item.shown_max for item in intervals if item.lows.size and item.shown_max > 0
    ]
    if ratios and round(math.log10(max(float(np.median(ratios)), 1.0))) == 3:
        return ["the log shows its greatest values divided by 1000, as of us shown in ms; taken as ns: is it --unit us?"]
    return ["the log does not say its unit: taken as ns (--unit)"]


def figures_of(tag: str, intervals: Sequence[Interval], scale: float) -> Iterator[Figure]:
    """The figures of one tag over its intervals; `scale` takes its values to ns."""
    labels: dict[str, Label] = {"tag": tag} if tag else {}
    used = [item for item in intervals if item.counts.size]
    if not used:
        return
    rounds = [block.tolist() for block in np.array_split(np.arange(len(used)), min(len(used), ROUNDS_MAX))]
    pool = pool_of([[used[index] for index in block] for block in rounds], scale)
    for suffix, q in QUANTILES.items():
        yield figure(f"latency_{suffix}", labels, pool.estimate(q))
    rates = []
    for block in rounds:
        seconds = math.fsum(used[index].duration_s for index in block)
        if seconds > 0:
            rates.append(sum(int(used[index].counts.sum()) for index in block) / seconds)
    if rates and len(rates) == len(rounds):
        yield figure("recorded_per_s", labels, mean_over_rounds(rates, range(len(rates))))


def pool_of(rounds: Sequence[Sequence[Interval]], scale: float) -> Counted:
    """What the rounds counted, slot by slot; intervals may differ in their range and digits."""
    lows = np.unique(np.concatenate([item.lows for block in rounds for item in block]))
    widths = np.zeros(lows.size, np.int64)
    counts = np.zeros((len(rounds), lows.size))
    for row, block in enumerate(rounds):
        for item in block:
            places = np.searchsorted(lows, item.lows)
            counts[row, places] += item.counts
            widths[places] = np.maximum(widths[places], item.widths)
    return Counted(scale * lows, scale * (lows + (widths >> 1)), scale * (lows + widths - 1), counts)


def interval_of(line: str) -> Interval:
    """A line of the log; UsageError says what it lacks, for the caller to say where."""
    match = LINE.fullmatch(line)
    if match is None:
        raise UsageError(f'"{short(line)}" is no interval: not start, length, greatest value and histogram')
    tag, start, duration, greatest, histogram = match.groups()
    return Interval(clean(tag or ""), float(start), float(duration), float(greatest), *decode(histogram))


def decode(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lows, widths, counts) of the slots in use."""
    lows, widths, counts = slots_in_use(text)
    # More digits than our own histograms have say nothing about a quantile, and cost memory for every round.
    _, bits = np.frexp(lows.astype(np.float64))
    coarse = np.int64(1) << np.maximum(bits.astype(np.int64) - DIGIT_BITS, 0)
    widths = np.maximum(widths, coarse)
    lows, places = np.unique(lows // widths * widths, return_inverse=True)
    merged, widest = np.zeros(lows.size, np.int64), np.zeros(lows.size, np.int64)
    np.add.at(merged, places, counts)
    np.maximum.at(widest, places, widths)
    return lows, widest, merged
