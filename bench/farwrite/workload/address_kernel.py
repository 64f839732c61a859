"""Where each write goes: byte addresses in a region of the volume, aligned, with the whole write inside it.

The plan uses it: sequential streams, uniform, Zipf and Pareto with the hot places scattered about, normal, bands (a hot spot is
two of them), and a shuffle that repeats no place before all had their turn. How large a write is was decided
before; what an address means on a disk is left to the target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
from numba import float64, int32, int64, uint64, void

from ..base.jit import inline_kernel, kernel
from ..base.prng_kernel import ADDRESS, ANGLE, SCATTER, key_of, mix, open_unit_of, random_of, unit_of

# Kinds of address.
SEQUENTIAL, UNIFORM, ZIPF, PARETO, NORMAL, BANDS, SHUFFLE = range(7)

# Up to so many places Zipf is drawn from a table of 12 bytes each, at one random number and one look a draw; beyond it, by
# rejection. 262 144 places: 5 ns against 60 (Intel Xeon 2.5 GHz VM, numba 0.68).
TABLE_PLACES_MAX = 1 << 20

FEISTEL_ROUNDS = 4  # Luby and Rackoff, "How to construct pseudorandom permutations", 1988: four hide what went in.

ATTEMPT_SHIFT = 48  # Attempt a of write n draws at index n + a * 2^48: no plan has that many writes.

SCATTER_ROUNDS = 3
SCATTER_FACTOR = np.uint64(0xD1342543DE82EF95)  # Odd; Steele and Vigna, "Spectrally good multipliers", 2021.

TURN = 2.0 * math.pi

SERIES_BELOW = 1e-8  # Under this the functions below are their series to full precision; at 0 they would be 0/0.


class Table(NamedTuple):
    """Any distribution over places, for one draw a look (Walker's alias method as Vose builds it, 1991); indexed by place."""

    keep: np.ndarray  # float64: the part of a cell that is this place's own
    other: np.ndarray  # int32: whose the rest is

    @classmethod
    def empty(cls) -> Table:
        return cls(np.zeros(0), np.zeros(0, np.int32))


class Bands(NamedTuple):
    """Stretches of places with a share of the draws each; indexed by band."""

    cumulative: np.ndarray  # float64, the share of this band and those before it; the last is 1
    begin: np.ndarray  # int64, first place
    count: np.ndarray  # int64, places

    @classmethod
    def of(cls, bands: Sequence[tuple[float, float]], places: int) -> Bands:
        """From pairs of (share of the draws, share of the space), which need not add up to one."""
        share, space = np.array(bands or [(1.0, 1.0)], np.float64).T
        cumulative = np.cumsum(share) / share.sum()
        cumulative[-1] = 1.0
        ends = np.floor(np.cumsum(space) / space.sum() * places + 0.5).astype(np.int64)
        ends[-1] = places
        begin = np.concatenate(([0], ends[:-1])).astype(np.int64)
        return cls(cumulative, begin, ends - begin)


class Addresses(NamedTuple):
    """How addresses are drawn from one region; all but `next_address` is constant."""

    next_address: np.ndarray  # int64 by stream: where its next sequential write begins
    volume_bytes: int  # of the region; addresses count from its start
    alignment_bytes: int
    places: int  # addresses at which even the largest write fits: 0, alignment, ... (places - 1) * alignment
    skew: float  # Zipf: rank r (from 1) is drawn with a weight of r ** -skew
    integral_first: float  # H(1.5) - h(1), see `zipf_rank`
    integral_last: float  # H(places + 0.5)
    shortcut: float  # x this close below its rank needs no second look
    bits: int  # the least number for which places <= 2 ** bits
    scatter_key: int  # uint64
    stride_bytes: int  # from one sequential write to the next; 0: where the one before ended
    power: float  # Pareto: a unit to this power
    mean: float  # normal, in places
    deviation: float
    slot_bytes: int  # a shuffle's places do not overlap
    slots: int
    table: Table  # Zipf's, already scattered; empty when it would be too large
    bands: Bands

    @classmethod
    def over(
        cls, volume_bytes: int, alignment_bytes: int, size_bytes_max: int, skew: float = 0.0, seed: int = 0,
        streams: int = 1, stride_bytes: int = 0, pareto_share: float = 0.2, mean: float = 0.5, deviation: float = 0.1,
        bands: Sequence[tuple[float, float]] = (), tabled: bool = False,
    ) -> Addresses:  # fmt: skip
        places = (volume_bytes - size_bytes_max) // alignment_bytes + 1
        assert places >= 1
        slot_bytes = (size_bytes_max + alignment_bytes - 1) // alignment_bytes * alignment_bytes
        stream_bytes = volume_bytes // streams // alignment_bytes * alignment_bytes
        scatter_key = np.uint64(key_of(seed, SCATTER))
        bits = (places - 1).bit_length()
        table = Table.empty()
        if tabled and places <= TABLE_PLACES_MAX:
            table = Table(np.empty(places), np.empty(places, np.int32))
            fill_zipf_table(table.keep, table.other, float(skew), bits, scatter_key)
        return cls(
            next_address=np.arange(streams, dtype=np.int64) * stream_bytes,
            volume_bytes=volume_bytes,
            alignment_bytes=alignment_bytes,
            places=places,
            skew=float(skew),
            integral_first=integral(1.5, float(skew)) - 1.0,
            integral_last=integral(places + 0.5, float(skew)),
            shortcut=2.0 - integral_inverse(integral(2.5, float(skew)) - weight(2.0, float(skew)), float(skew)),
            bits=bits,
            scatter_key=scatter_key,
            stride_bytes=stride_bytes,
            power=math.log(pareto_share) / math.log(1.0 - pareto_share),
            mean=mean * (places - 1),
            deviation=deviation * places,
            slot_bytes=slot_bytes,
            slots=max(volume_bytes // slot_bytes, 1),
            table=table,
            bands=Bands.of(bands, places),
        )


@inline_kernel
def expm1_over(x):
    """(e**x - 1) / x, and its limit 1 at 0."""
    if abs(x) > SERIES_BELOW:
        return math.expm1(x) / x
    return 1.0 + x * 0.5


@inline_kernel
def log1p_over(x):
    """log(1 + x) / x, and its limit 1 at 0."""
    if abs(x) > SERIES_BELOW:
        return math.log1p(x) / x
    return 1.0 - x * 0.5


@inline_kernel
def weight(x, skew):
    """h: x ** -skew."""
    return math.exp(-skew * math.log(x))


@inline_kernel
def integral(x, skew):
    """H: an integral of h, (x ** (1 - skew) - 1) / (1 - skew), written so that it passes through log(x) at skew 1."""
    log_x = math.log(x)
    return expm1_over((1.0 - skew) * log_x) * log_x


@inline_kernel
def integral_inverse(area, skew):
    """The x for which H(x) is `area`. Rounding may carry the product just below -1, where no logarithm is."""
    return math.exp(log1p_over(max(area * (1.0 - skew), -1.0)) * area)


@inline_kernel
def zipf_rank(addresses, key, index):
    """A rank from 0 to places - 1 with a probability proportional to (rank + 1) ** -skew, exact for every skew >= 0.

    Rejection-inversion: Hoermann and Derflinger, "Rejection-inversion to generate variates from monotone discrete
    distributions", ACM TOMACS 6(3), 1996. Measured at skews 0 to 10 and 1 to 10^9 places: 1.02 attempts on average
    at worst.
    """
    skew = addresses.skew
    attempt = np.int64(index)
    while True:
        area = addresses.integral_last + unit_of(key, attempt) * (addresses.integral_first - addresses.integral_last)
        x = integral_inverse(area, skew)
        rank = min(max(np.int64(x + 0.5), np.int64(1)), np.int64(addresses.places))
        if rank - x <= addresses.shortcut or area >= integral(rank + 0.5, skew) - weight(np.float64(rank), skew):
            return rank - 1
        attempt += np.int64(1) << ATTEMPT_SHIFT


@inline_kernel
def scatter(rank, places, bits, key):
    """A permutation of 0 to places - 1, another for every key: ranks that follow each other come to lie far apart.

    Adding, multiplying by an odd number and folding the upper half down can each be undone within `bits` bits, so
    together they permute 2 ** bits; what lands outside walks on until it is inside (cycle walking: Black and Rogaway,
    "Ciphers with arbitrary finite domains", CT-RSA 2002), less than twice on average.
    """
    mask = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    half = np.uint64((np.int64(bits) + 1) >> 1)
    value = np.uint64(rank)
    while True:
        for turn in range(SCATTER_ROUNDS):
            value = ((value + np.uint64(random_of(key, turn))) * SCATTER_FACTOR) & mask
            value ^= value >> half
        if value < np.uint64(places):
            return np.int64(value)


@inline_kernel
def shuffle(rank, places, key):
    """A permutation of 0 to places - 1 without a table, another for every key: a Feistel network over the least even number of
    bits that holds them, and what lands outside walks on (at most four times as many, so four steps on average at worst)."""
    half = np.int64(1)
    while np.int64(1) << (2 * half) < places:
        half += 1
    mask = (np.uint64(1) << np.uint64(half)) - np.uint64(1)
    value = np.uint64(rank)
    while True:
        left, right = value >> np.uint64(half), value & mask
        for turn in range(FEISTEL_ROUNDS):
            left, right = right, left ^ (np.uint64(mix(np.uint64(random_of(key, turn)) ^ right)) & mask)
        value = (left << np.uint64(half)) | right
        if value < np.uint64(places):
            return np.int64(value)


@kernel(void(float64[::1], int32[::1], float64, int64, uint64), allocates=True)
def fill_zipf_table(keep, other, skew, bits, scatter_key):
    """Zipf's law as a table: every cell weighs the same, and holds a part of its own place and the rest of a commoner one.

    Places are scattered already. The weights are the closed form; what rounding leaves over stays with the cell's own place.
    """
    places = keep.size
    total = 0.0
    for rank in range(places - 1, -1, -1):  # The small ones first: they would be lost beside the large.
        total += math.exp(-skew * math.log(rank + 1.0))
    for rank in range(places):
        at = scatter(rank, places, bits, scatter_key)
        keep[at] = math.exp(-skew * math.log(rank + 1.0)) / total * places
        other[at] = at
    waiting = np.empty(places, np.int32)  # Cells with room from the front, overfull ones from the back.
    few, many = np.int64(0), np.int64(places)
    for at in range(places):
        if keep[at] < 1.0:
            waiting[few] = at
            few += 1
        else:
            many -= 1
            waiting[many] = at
    while few > 0 and many < places:
        few -= 1
        poor, rich = waiting[few], waiting[many]
        other[poor] = rich
        keep[rich] -= 1.0 - keep[poor]
        if keep[rich] < 1.0:
            many += 1
            waiting[few] = rich
            few += 1


ADDRESSES = numba.typeof(Addresses.over(1 << 20, 4096, 4096))


@kernel(void(int64[::1], int32[::1], ADDRESSES, int64))
def sequential(address, size, addresses, first):
    """Each write where the one before in its stream ended, rounded up to the alignment, or a stride further on; at the beginning
    of the stream's own part again where it would not fit. Writes take the streams in turn; a flush (size 0) moves nothing."""
    alignment, stride = np.int64(addresses.alignment_bytes), np.int64(addresses.stride_bytes)
    streams = addresses.next_address.size
    part = addresses.volume_bytes // streams // alignment * alignment
    for i in range(address.size):
        stream = np.int64(first + i) % streams if streams > 1 else np.int64(0)
        begin = stream * part
        end = np.int64(addresses.volume_bytes) if streams == 1 else begin + part
        next_address = addresses.next_address[stream]
        if next_address + size[i] > end:
            next_address = begin
        address[i] = next_address
        step = stride if stride > 0 else np.int64(size[i])
        if size[i] > 0:
            addresses.next_address[stream] = next_address + ((step + alignment - 1) & -alignment)


@kernel(void(int64[::1], ADDRESSES, int64, int64))
def uniform(address, addresses, seed, first):
    """Every place alike, the first draw for write `first`.

    A unit of 53 bits times the number of places: no two probabilities differ by more than places / 2^53 of themselves.
    """
    key = np.uint64(key_of(seed, ADDRESS))
    places, alignment = np.float64(addresses.places), np.int64(addresses.alignment_bytes)
    for i in range(address.size):
        address[i] = np.int64(unit_of(key, first + i) * places) * alignment


@kernel(void(int64[::1], ADDRESSES, int64, int64))
def zipf(address, addresses, seed, first):
    """Places by Zipf's law, the hot ones scattered, the first draw for write `first`: from the table if there is one."""
    key = np.uint64(key_of(seed, ADDRESS))
    places, alignment = np.int64(addresses.places), np.int64(addresses.alignment_bytes)
    keep, other = addresses.table.keep, addresses.table.other
    if keep.size > 0:
        for i in range(address.size):
            unit = unit_of(key, first + i) * places
            cell = np.int64(unit)
            address[i] = (cell if unit - cell < keep[cell] else np.int64(other[cell])) * alignment
        return
    for i in range(address.size):
        rank = zipf_rank(addresses, key, first + i)
        address[i] = scatter(rank, places, addresses.bits, addresses.scatter_key) * alignment


@kernel(void(int64[::1], ADDRESSES, int64, int64))
def pareto(address, addresses, seed, first):
    """Self-similar: a share h of the places takes 1 - h of the writes, and of those places again h takes 1 - h, scattered.

    Gray and others, "Quickly generating billion-record synthetic databases", SIGMOD 1994; as fio's pareto.
    """
    key = np.uint64(key_of(seed, ADDRESS))
    places, alignment = np.int64(addresses.places), np.int64(addresses.alignment_bytes)
    for i in range(address.size):
        rank = np.int64(places * math.exp(addresses.power * math.log(open_unit_of(key, first + i))))
        address[i] = scatter(min(rank, places - 1), places, addresses.bits, addresses.scatter_key) * alignment


@kernel(void(int64[::1], ADDRESSES, int64, int64))
def normal(address, addresses, seed, first):
    """Around one place, thinning out to both sides; what falls outside of the region is drawn again (Box and Muller, 1958)."""
    key, angles = np.uint64(key_of(seed, ADDRESS)), np.uint64(key_of(seed, ANGLE))
    places, alignment = np.int64(addresses.places), np.int64(addresses.alignment_bytes)
    for i in range(address.size):
        attempt = np.int64(first + i)
        while True:
            away = math.sqrt(-2.0 * math.log(open_unit_of(key, attempt))) * math.cos(TURN * unit_of(angles, attempt))
            place = math.floor(addresses.mean + addresses.deviation * away + 0.5)
            if 0 <= place < places:
                break
            attempt += np.int64(1) << ATTEMPT_SHIFT
        address[i] = np.int64(place) * alignment


@kernel(void(int64[::1], ADDRESSES, int64, int64))
def banded(address, addresses, seed, first):
    """Every band its share, and inside a band every place alike. One number decides both: what is left of it after the band."""
    key = np.uint64(key_of(seed, ADDRESS))
    alignment = np.int64(addresses.alignment_bytes)
    cumulative, begin, count = addresses.bands
    for i in range(address.size):
        unit = unit_of(key, first + i)
        band = 0
        while unit >= cumulative[band]:
            band += 1
        below = cumulative[band - 1] if band > 0 else 0.0
        inside = np.int64((unit - below) / (cumulative[band] - below) * count[band])
        address[i] = (begin[band] + min(inside, count[band] - 1)) * alignment


@kernel(void(int64[::1], ADDRESSES, int64, int64))
def shuffled(address, addresses, seed, first):
    """Every slot once in random order, then every slot once more in another order, and so on. Nothing is remembered."""
    key = np.uint64(key_of(seed, ADDRESS))
    slots, slot_bytes = np.int64(addresses.slots), np.int64(addresses.slot_bytes)
    for i in range(address.size):
        number = np.int64(first + i)
        lap = np.uint64(random_of(key, number // slots))
        address[i] = shuffle(number % slots, slots, lap) * slot_bytes
