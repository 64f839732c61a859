"""HdrHistogram's encoding V2 of a histogram, both ways: what its logs carry and every implementation of it reads.

Our histograms have the layout of an HdrHistogram of three digits that begins at 1, slot for slot, so that nothing is lost. The
payload is a header and then, for each slot up to the last in use, its count, a run of empty slots being one negative
number (ZigZag LEB128). Compressed it goes through zlib, and into a log in base64. AbstractHistogram of HdrHistogram 2.1,
`encodeIntoByteBuffer` and `encodeIntoCompressedByteBuffer`; ZigZagLEB128Codec.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib

import numpy as np

from .errors import UsageError
from .histogram import RANGE_BITS, Histogram

V2_COMPRESSED, V2, COOKIE = 0x1C849304, 0x1C849303, ~0xF0  # The masked bits were a word's size, and are 1 in V2.
HEADER = struct.Struct(">IIIIQQd")  # cookie, length, offset, digits, least and greatest trackable value, ratio
PLAIN_BYTES_MAX = 1 << 24  # The largest layout, 5 digits of 64 bits, with two bytes a slot.
VARINT_BYTES_MAX = 9  # 64 bits: eight times seven, then eight.
WORD_SIZE = 0x10
COUNT_MAX = 10**18  # A value every 30 ns for a thousand years: beyond it a file is damaged.

DIGITS = 3  # Ours: 2048 slots for the first doublings, which three decimal digits need.
LEAST = 1
GREATEST = 1 << RANGE_BITS  # The last slot is of this and of everything above.
COMPRESSION = 6


def payload(histogram: Histogram) -> bytes:
    """The histogram as V2, neither compressed nor in base64."""
    used = histogram.used()
    numbers = np.empty(2 * used.size, np.int64)
    # Before each count the empty slots since the one before, as a negative number; where there are none, nothing stands.
    numbers[0::2] = -np.diff(used, prepend=-1) + 1
    numbers[1::2] = histogram.counts[used]
    body = leb128(numbers[numbers != 0])
    return HEADER.pack(V2 | WORD_SIZE, len(body), 0, DIGITS, LEAST, GREATEST, 1.0) + body


def compressed(histogram: Histogram) -> bytes:
    """The histogram as compressed V2."""
    packed = zlib.compress(payload(histogram), COMPRESSION)
    return struct.pack(">II", V2_COMPRESSED | WORD_SIZE, len(packed)) + packed


def encode(histogram: Histogram) -> str:
    """The histogram as a line of a log has it."""
    return base64.b64encode(compressed(histogram)).decode("ascii")


def leb128(numbers: np.ndarray) -> bytes:
    """Signed numbers as ZigZag LEB128; counts are below 2^62, so the ninth byte, which would have eight bits, is not met."""
    zigzag = ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)
    parts, lengths, left = [], np.ones(zigzag.size, np.int64), zigzag
    while True:
        low, left = (left & np.uint64(0x7F)).astype(np.uint8), left >> np.uint64(7)
        more = left != 0
        parts.append(low | more.view(np.uint8) << 7)
        if not more.any():
            break
        lengths += more
    # A column for each byte of a number; only the first `lengths` of a row are of it.
    table = np.stack(parts, axis=1)
    return table[np.arange(len(parts)) < lengths[:, None]].tobytes()


def decoded(text: str) -> Histogram:
    """One of our own histograms back from its line; UsageError for one of another layout."""
    plain = unpacked(text)
    index, counts = slots_of(plain)
    histogram = Histogram()
    if layout(plain) != (DIGITS, LEAST) or (index.size and index[-1] >= histogram.counts.size):
        raise UsageError("the histogram has another layout than ours")
    histogram.counts[index] = counts
    return histogram


def layout(plain: bytes) -> tuple[int, int]:
    """(decimal digits, least value told from 0), which decide what its slots are; UsageError when no histogram is laid out so."""
    cookie, length, offset, digits, least, _, _ = HEADER.unpack_from(plain)
    if cookie & COOKIE != V2 or length != len(plain) - HEADER.size:
        raise UsageError("the histogram's inner header is damaged")
    if offset or not 0 <= digits <= 5 or not 1 <= least < 1 << 62:
        raise UsageError("the histogram's layout is none that a log of integers has")
    return digits, least


def slots_in_use(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lows, widths, counts), all int64, of the slots in use of any V2 histogram in base64."""
    plain = unpacked(text)
    digits, least = layout(plain)
    # Javadoc of AbstractHistogram, `init` and `valueFromIndex`. Slots below 2 << half_bits have one width.
    half_bits = max((2 * 10**digits - 1).bit_length(), 1) - 1
    unit_bits = least.bit_length() - 1
    index, counts = slots_of(plain)
    shifts = np.maximum((index >> half_bits) - 1, 0)
    within = np.where(index < 1 << half_bits, index, (index & ((1 << half_bits) - 1)) + (1 << half_bits))
    if index.size and half_bits + 1 + int(shifts[-1]) + unit_bits > 63:
        raise UsageError("the histogram counts values of more than 63 bits")
    lows, widths = within << (shifts + unit_bits), np.int64(1) << (shifts + unit_bits)
    return lows, widths, counts


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
    if sum(counts) > COUNT_MAX:
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
