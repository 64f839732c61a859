"""HdrHistogram logs (.hlog), as the HistogramLogWriters of Java, C and Python write them: quantiles over all intervals.

Label: tag, where a line has one. An interval is a round; the log does not say what was recorded nor in which unit, so
it is called latency and is taken as nanoseconds unless told otherwise. Format: javadoc of HistogramLogWriter; encoding:
AbstractHistogram of HdrHistogram 2.1, `encodeIntoByteBuffer`, and ZigZagLEB128Codec.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..analysis.estimate import mean_over_rounds
from ..errors import UsageError
from ..figure import Figure, Label, Sheet
from ..units import TIME
from .counted import QUANTILES, Counted
from .document import GREATEST, clean, short
from .metrics import figure, identifier, utc

# Neighbouring seconds are more alike than distant ones. A long log is therefore read as this many rounds of several
# neighbouring intervals each: batch means, of which more than 30 are of no use (Schmeiser 1982).
ROUNDS_MAX = 30

V2_COMPRESSED, V2, COOKIE = 0x1C849304, 0x1C849303, ~0xF0  # The masked bits were a word's size, and are 1 in V2.
HEADER = struct.Struct(">IIIIQQd")  # cookie, length, offset, digits, least and greatest trackable value, ratio
PLAIN_BYTES_MAX = 1 << 24  # The largest layout, 5 digits of 64 bits, with two bytes a slot.
VARINT_BYTES_MAX = 9  # 64 bits: eight times seven, then eight.
DIGIT_BITS = 11  # Of a value we keep as many as our own histograms: 1024 slots a doubling.

OURS = re.compile(
    r'^#\[Histogram log format version|"Interval_Compressed_Histogram"|^(Tag=[^,\n]*,)?[\d.]+,[\d.]+,[\d.]+,D?HIST', re.MULTILINE
)
START = re.compile(r"#\[StartTime: *(\d{1,12}(?:\.\d{1,9})?) ")
LINE = re.compile(r"(?:Tag=([^,]*),)?\s*(\d{1,15}(?:\.\d*)?),\s*(\d{1,15}(?:\.\d*)?),\s*(\d{1,19}(?:\.\d*)?),\s*(\S+)")


class Interval(NamedTuple):
    """One line of the log; the arrays are indexed by slot, in the log's unit."""

    tag: str
    duration_s: float
    shown_max: float  # the greatest value as the writer showed it: divided by a ratio of its choice
    lows: np.ndarray  # int64, ascending
    widths: np.ndarray  # int64
    counts: np.ndarray  # int64


def is_ours(text: str) -> bool:
    """Whether this is a histogram log."""
    return OURS.search(text) is not None


def sheet_of(text: str, source: str, unit: str | None) -> Sheet:
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
    if not by_tag:
        raise UsageError(f"{source} is an HdrHistogram log without an interval.")
    figures = [item for tag, intervals in by_tag.items() for item in figures_of(tag, intervals, float(TIME[unit or "ns"]))]
    return Sheet(
        kind="hdrhistogram", source=source, id=identifier(text), started_utc=started, identity={}, figures=figures,
        warnings=[] if unit else unit_doubts([item for intervals in by_tag.values() for item in intervals]),
    )  # fmt: skip


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
    tag, _, duration, greatest, histogram = match.groups()
    return Interval(clean(tag or ""), float(duration), float(greatest), *decode(histogram))


def decode(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lows, widths, counts) of the slots in use: what `encodeIntoCompressedByteBuffer` wrote, in base64."""
    plain = unpacked(text)
    cookie, length, offset, digits, least, _, _ = HEADER.unpack_from(plain)
    if cookie & COOKIE != V2 or length != len(plain) - HEADER.size:
        raise UsageError("the histogram's inner header is damaged")
    if offset or not 0 <= digits <= 5 or not 1 <= least < 1 << 62:
        raise UsageError("the histogram's layout is none that a log of integers has")
    # The layout: javadoc of AbstractHistogram, `init` and `valueFromIndex`. Slots below 2 << half_bits have one width.
    half_bits = max((2 * 10**digits - 1).bit_length(), 1) - 1
    unit_bits = least.bit_length() - 1
    index, counts = slots_of(plain)
    shifts = np.maximum((index >> half_bits) - 1, 0)
    within = np.where(index < 1 << half_bits, index, (index & ((1 << half_bits) - 1)) + (1 << half_bits))
    if index.size and half_bits + 1 + int(shifts[-1]) + unit_bits > 63:
        raise UsageError("the histogram counts values of more than 63 bits")
    lows, widths = within << (shifts + unit_bits), np.int64(1) << (shifts + unit_bits)
    # More digits than our own histograms have say nothing about a quantile, and cost memory for every round.
    _, bits = np.frexp(lows.astype(np.float64))
    coarse = np.int64(1) << np.maximum(bits.astype(np.int64) - DIGIT_BITS, 0)
    widths = np.maximum(widths, coarse)
    lows, places = np.unique(lows // widths * widths, return_inverse=True)
    merged, widest = np.zeros(lows.size, np.int64), np.zeros(lows.size, np.int64)
    np.add.at(merged, places, counts)
    np.maximum.at(widest, places, widths)
    return lows, widest, merged


def unpacked(text: str) -> bytes:
    """The bytes inside a line's text."""
    try:
        packed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as refusal:
        raise UsageError("the histogram is no base64") from refusal
    if len(packed) < 8:
        raise UsageError("the histogram breaks off")
    cookie, length = struct.unpack_from(">II", packed)
    if cookie & COOKIE != V2_COMPRESSED:
        raise UsageError(f"a histogram with cookie {cookie:#x} is none of compressed integers in encoding V2")
    if length != len(packed) - 8:
        raise UsageError("the histogram breaks off")
    unpacking = zlib.decompressobj()
    try:
        plain = unpacking.decompress(packed[8:], PLAIN_BYTES_MAX)
    except zlib.error as refusal:
        raise UsageError("the histogram does not unpack") from refusal
    if not unpacking.eof or len(plain) < HEADER.size:
        raise UsageError("the histogram breaks off, or is larger than any")
    return plain


def slots_of(plain: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(index, count) of the slots in use: a positive number is the next slot's count, a negative one skips as many."""
    indices, counts = [], []
    at, index = HEADER.size, 0
    while at < len(plain):
        number, at = zigzag(plain, at)
        if number > 0:
            indices.append(index)
            counts.append(number)
        index += -number if number < 0 else 1
        if index > 1 << 23:  # The largest layout has 6.3 million.
            raise UsageError("the histogram has more slots than any")
    if sum(counts) > GREATEST:
        raise UsageError("the histogram counts more values than any run has")
    return np.array(indices, np.int64), np.array(counts, np.int64)


def zigzag(plain: bytes, at: int) -> tuple[int, int]:
    """(the signed number that begins at byte `at`, where the next begins): LEB128 whose ninth byte has all its bits."""
    value = 0
    for place in range(VARINT_BYTES_MAX):
        if at + place >= len(plain):
            raise UsageError("the histogram's last count breaks off")
        byte = plain[at + place]
        if place == VARINT_BYTES_MAX - 1:
            return unsigned(value | byte << 56), at + place + 1
        value |= (byte & 0x7F) << 7 * place
        if byte <= 0x7F:
            return unsigned(value), at + place + 1
    raise AssertionError("the ninth byte is the last")


def unsigned(value: int) -> int:
    """Zig-zag undone: 0, 1, 2, 3 are 0, -1, 1, -2."""
    return value >> 1 ^ -(value & 1)
