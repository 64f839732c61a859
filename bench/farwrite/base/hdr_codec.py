"""HdrHistogram's encoding V2 of a histogram, both ways: what recordings and its logs carry and every implementation of it reads.

Our histograms have the layout of an HdrHistogram of three digits that begins at 1, slot for slot, so that nothing is lost. The
payload is a header and then, for each slot up to the last in use, its count, a run of empty slots being one negative
number (ZigZag LEB128). Compressed it goes through zlib, and into a log in base64. AbstractHistogram of HdrHistogram 2.1,
`encodeIntoByteBuffer` and `encodeIntoCompressedByteBuffer`; ZigZagLEB128Codec. Numbers are coded as arrays, of many histograms at
once where there are many: a recording holds thousands.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from .errors import UsageError

V2_COMPRESSED, V2, COOKIE = 0x1C849304, 0x1C849303, ~0xF0  # The masked bits were a word's size, and are 1 in V2.
HEADER = struct.Struct(">IIIIQQd")  # cookie, length, offset, digits, least and greatest trackable value, ratio
PLAIN_BYTES_MAX = 1 << 24  # The largest layout, 5 digits of 64 bits, with two bytes a slot.
VARINT_BYTES_MAX = 9  # 64 bits: eight times seven, then eight. We refuse the last of them, which no count has.
WORD_SIZE = 0x10
SLOTS_MAX = 1 << 23  # The largest layout has 6.3 million.
COUNT_MAX = (1 << 63) - (1 << 53)  # What an int64 holds, less what rounding its sum to a float may hide.
BEGINNING = "HIST"  # Of every line, by the cookie.

DIGITS = 3  # Ours: 2048 slots for the first doublings, which three decimal digits need.
LEAST = 1
RANGE_BITS = 40  # 18 minutes: longer than any write that a person would call one.
GREATEST = 1 << RANGE_BITS  # The last slot is of this and of everything above.
COMPRESSION = 6

Slots = tuple[np.ndarray, np.ndarray]  # (index, count), int64, of the slots in use, ascending


def payload(used: np.ndarray, counts: np.ndarray) -> bytes:
    """The slots in use of one of our histograms as V2, neither compressed nor in base64."""
    numbers = np.empty(2 * used.size, np.int64)
    # Before each count the empty slots since the one before, as a negative number; where there are none, nothing stands.
    numbers[0::2] = -np.diff(used, prepend=-1) + 1
    numbers[1::2] = counts
    body = leb128(numbers[numbers != 0])
    return HEADER.pack(V2 | WORD_SIZE, len(body), 0, DIGITS, LEAST, GREATEST, 1.0) + body


def encode(used: np.ndarray, counts: np.ndarray) -> str:
    """The same compressed, as a line of a log and a recording have it."""
    packed = zlib.compress(payload(used, counts), COMPRESSION)
    return base64.b64encode(struct.pack(">II", V2_COMPRESSED | WORD_SIZE, len(packed)) + packed).decode("ascii")


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


def decoded(texts: Sequence[str], slots: int, bytes_max: int = PLAIN_BYTES_MAX) -> list[Slots]:
    """The slots in use of histograms of our layout, which has so many. UsageError for one of another, or a damaged one."""
    plains = [unpacked(text, bytes_max) for text in texts]
    if any(layout(plain) != (DIGITS, LEAST) for plain in plains):
        raise UsageError("the histogram has another layout than ours")
    found = slots_of(plains)
    if any(index.size and index[-1] >= slots for index, _ in found):
        raise UsageError("the histogram has more slots than our layout")
    return found


def slots_in_use(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lows, widths, counts), all int64, of the slots in use of any V2 histogram in base64."""
    plain = unpacked(text)
    digits, least = layout(plain)
    # Javadoc of AbstractHistogram, `init` and `valueFromIndex`. Slots below 2 << half_bits have one width.
    half_bits = max((2 * 10**digits - 1).bit_length(), 1) - 1
    unit_bits = least.bit_length() - 1
    index, counts = slots_of([plain])[0]
    shifts = np.maximum((index >> half_bits) - 1, 0)
    within = np.where(index < 1 << half_bits, index, (index & ((1 << half_bits) - 1)) + (1 << half_bits))
    if index.size and half_bits + 1 + int(shifts[-1]) + unit_bits > 63:
        raise UsageError("the histogram counts values of more than 63 bits")
    lows, widths = within << (shifts + unit_bits), np.int64(1) << (shifts + unit_bits)
    return lows, widths, counts


def unpacked(text: str, bytes_max: int = PLAIN_BYTES_MAX) -> bytes:
    """The bytes inside a line's text."""
    packed = from_base64(text)
    if len(packed) < 8:
        raise UsageError("the histogram breaks off")
    cookie, length = struct.unpack_from(">II", packed)
    if cookie & COOKIE != V2_COMPRESSED:
        raise UsageError(f"a histogram with cookie {cookie:#x} is none of compressed integers in encoding V2")
    if length != len(packed) - 8:
        raise UsageError("the histogram breaks off")
    plain = inflated(packed[8:], bytes_max)
    if len(plain) < HEADER.size:
        raise UsageError("the histogram breaks off")
    return plain


def from_base64(text: str) -> bytes:
    """What base64 says."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as refusal:  # ValueError: characters that are not even ASCII.
        raise UsageError("the histogram is no base64") from refusal


def inflated(packed: bytes, bytes_max: int) -> bytes:
    """What zlib compressed: all of `packed`, and no more than is allowed, whatever it claims."""
    unpacking = zlib.decompressobj()
    try:
        plain = unpacking.decompress(packed, bytes_max + 1)
    except zlib.error as refusal:
        raise UsageError("the histogram does not unpack") from refusal
    if len(plain) > bytes_max:
        raise UsageError(f"the histogram is larger than any: it unpacks to more than {bytes_max} bytes")
    if not unpacking.eof or unpacking.unused_data:
        raise UsageError("the histogram ends early or goes on after its end")
    return plain


def layout(plain: bytes) -> tuple[int, int]:
    """(decimal digits, least value told from 0), which decide what its slots are; UsageError when no histogram is laid out so."""
    cookie, length, offset, digits, least, _, _ = HEADER.unpack_from(plain)
    if cookie & COOKIE != V2 or length != len(plain) - HEADER.size:
        raise UsageError("the histogram's inner header is damaged")
    if offset or not 0 <= digits <= 5 or not 1 <= least < 1 << 62:
        raise UsageError("the histogram's layout is none that a log of integers has")
    return digits, least


def slots_of(plains: Sequence[bytes]) -> list[Slots]:
    """The slots in use of each: a positive number is the next slot's count, a negative one skips as many."""
    bodies = [plain[HEADER.size :] for plain in plains]
    if any(body and body[-1] > 0x7F for body in bodies):
        raise UsageError("the histogram's last count breaks off, or is larger than any")
    numbers, bounds = varints(bodies)
    numbers = (numbers >> 1) ^ -(numbers & 1)
    steps = np.where(numbers < 0, -numbers, 1)
    if steps.size and steps.max() > SLOTS_MAX:  # Nor could their sum be trusted.
        raise UsageError("the histogram has more slots than any")
    ends = np.cumsum(steps)
    found = []
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        base = ends[begin - 1] if begin else 0
        mine = numbers[begin:end]
        used = np.flatnonzero(mine > 0)
        index, counts = ends[begin:end][used] - base - 1, mine[used]
        if (end > begin and ends[end - 1] - base > SLOTS_MAX) or counts.sum(dtype=np.float64) > COUNT_MAX:
            raise UsageError("the histogram has more slots than any, or counts more than any run has")
        found.append((index, counts))
    return found


def varints(bodies: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """(int64, the unsigned numbers in LEB128 bytes, of all bodies behind each other; where each body's begin, and the end).

    Every body ends with the end of a number: its last byte is below 0x80.
    """
    plain = np.frombuffer(b"".join(bodies), np.uint8)
    last = plain < 0x80
    bounds = np.concatenate(([0], np.cumsum(last)))[np.cumsum([0, *map(len, bodies)])]
    if not plain.size:
        return np.zeros(0, np.int64), bounds
    ends = np.flatnonzero(last)
    begins = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - begins + 1
    if lengths.max() > VARINT_BYTES_MAX:
        raise UsageError("a number of the histogram is too long, and larger than any")
    within = np.arange(plain.size) - np.repeat(begins, lengths)
    return np.add.reduceat((plain & 0x7F).astype(np.int64) << 7 * within, begins), bounds
