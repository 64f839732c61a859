"""The histogram: its layout compiled, vectorised and written down; quantiles; a text form that nothing can break."""

import base64
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from both_ways import both_ways
from farwrite.base import hdr_codec, histogram, histogram_kernel
from farwrite.base.errors import UsageError
from farwrite.base.histogram import Histogram
from oracle import histogram_oracle

TABLE = histogram_oracle.slots()
INDEXES = [*range(0, len(TABLE), 97), *range(2040, 2060), *range(3060, 3080), *range(len(TABLE) - 5, len(TABLE))]


def test_both_files_describe_the_same_layout():
    for name in ("EXACT_BITS", "HALF_BITS", "RANGE_BITS", "SATURATED", "SLOTS"):
        assert getattr(histogram, name) == getattr(histogram_kernel, name)
    assert len(TABLE) == histogram.SLOTS


@pytest.mark.parametrize("index_of", both_ways(histogram_kernel.index_of))
def test_a_value_finds_the_slot_that_spans_it(index_of):
    for index in INDEXES:
        assert index_of(TABLE[index][0]) == index_of(TABLE[index][1]) == index
    assert index_of(2**40 - 1) == histogram.SATURATED - 1
    assert index_of(2**63 - 1) == index_of(2**40) == histogram.SATURATED


@pytest.mark.parametrize("slot_of", both_ways(histogram_kernel.slot_of))
def test_a_power_of_two_begins_a_slot(slot_of):
    for power in range(11, 40):
        slots = [slot_of(np.int64((1 << power) + step)) for step in (-1, 0)]
        assert slots[1] == slots[0] + 1


@pytest.mark.parametrize("name", ["lowest_of", "highest_of", "middle_of"])
def test_a_slot_knows_what_it_spans(name):
    wanted = {
        "lowest_of": [lowest for lowest, _ in TABLE],
        "highest_of": [highest for _, highest in TABLE],
        "middle_of": [(lowest + highest) // 2 for lowest, highest in TABLE],
    }[name]
    assert getattr(histogram, name)(np.arange(len(TABLE))).tolist() == wanted
    for kernel in both_ways(getattr(histogram_kernel, name)):
        assert [kernel.values[0](np.int64(index)) for index in INDEXES] == [wanted[index] for index in INDEXES]


def test_the_vectorised_layout_is_the_kernels():
    spread = np.exp(np.random.default_rng(0).uniform(0, 43, 10_000)).astype(np.int64)
    values_ns = np.concatenate([np.arange(10_000), spread])
    assert histogram.index_of(values_ns).tolist() == [histogram_kernel.index_of(value) for value in values_ns]


def test_no_slot_is_wider_than_a_thousandth_of_what_it_counts():
    assert all((highest - lowest) * 1000 <= lowest for lowest, highest in TABLE)


@pytest.mark.parametrize("record", both_ways(histogram_kernel.record))
def test_recording_counts_each_value_once(record):
    values_ns = np.random.default_rng(1).integers(0, 1 << 41, 1000)
    recorded = Histogram()
    for value in values_ns:
        record(recorded.counts, value)
    assert recorded == Histogram.of(values_ns)
    assert recorded.count == 1000
    assert recorded.saturated == int((values_ns >= 1 << 40).sum()) > 0


@pytest.mark.parametrize("record", both_ways(histogram_kernel.record))
def test_time_that_runs_backwards_is_refused(record):
    with pytest.raises(AssertionError):
        record(Histogram().counts, -1)


@pytest.mark.parametrize("seed", range(10))
def test_quantiles_are_those_of_the_sorted_values(seed):
    random = np.random.default_rng(seed)
    values_ns = random.lognormal(13, 2, int(random.integers(1, 500))).astype(np.int64)
    recorded = Histogram.of(values_ns)
    for q in ("0", "0.01", "0.07", "0.5", "0.9", "0.99", "0.999", "1"):
        wanted = histogram_oracle.quantile(values_ns.tolist(), q)
        assert recorded.quantile(float(q)) == pytest.approx(wanted, rel=0.0005, abs=0.5)
    assert values_ns.max() <= recorded.maximum <= values_ns.max() * 1.001


def test_a_quantile_is_the_decimal_it_prints_as():
    assert Histogram.of(np.arange(1, 101)).quantile(0.07) == 7
    assert Histogram.of(np.arange(1, 101)).quantile(np.float64(0.29)) == 29


def test_an_empty_histogram_has_no_quantiles():
    assert Histogram().quantile(0.5) is None and Histogram().maximum is None and Histogram().count == 0


@pytest.mark.parametrize("q", [-0.1, 1.1, float("nan")])
def test_a_quantile_outside_0_to_1_is_refused(q):
    with pytest.raises(ValueError):
        Histogram.of(np.ones(3)).quantile(q)


def test_merging_is_recording_everything_in_one():
    one, other = np.arange(0, 100_000, 7), np.arange(0, 10**9, 9_999_991)
    assert Histogram.of(one).merge(Histogram.of(other)) == Histogram.of(np.concatenate([one, other]))


COUNTS = some.dictionaries(some.integers(0, histogram.SLOTS - 1), some.integers(1, 1 << 56), max_size=60)


@given(COUNTS)
def test_the_text_form_brings_everything_back(slots):
    recorded = Histogram()
    for index, count in slots.items():
        recorded.counts[index] = count
    assert Histogram.decode(recorded.encode()) == recorded


def test_the_fullest_histogram_comes_back():
    recorded = Histogram(np.full(histogram.SLOTS, 1 << 47))
    assert Histogram.decode(recorded.encode()) == recorded


def test_the_text_form_is_small():
    values_ns = np.random.default_rng(0).lognormal(13, 0.3, 100_000).astype(np.int64)
    assert len(Histogram.of(values_ns).encode()) < 6000


def text_of(plain):
    return base64.b64encode(zlib.compress(bytes(plain))).decode()


BASE64 = some.binary().map(lambda data: base64.b64encode(data).decode())


@given(some.one_of(some.text(), BASE64, some.none(), some.integers()))
def test_any_other_text_is_refused(text):
    with pytest.raises(UsageError):
        Histogram.decode(text)


@settings(max_examples=300)
@given(some.binary(max_size=40).map(lambda data: text_of(b"\x01" + data)))
def test_any_content_is_a_histogram_or_refused(text):
    try:
        decoded = Histogram.decode(text)
    except UsageError:
        return
    assert Histogram.decode(decoded.encode()) == decoded


@settings(max_examples=300)
@given(some.data())
def test_a_damaged_text_is_refused(data):
    intact = Histogram.of(np.arange(0, 10**6, 1009))
    text = intact.encode()
    at = data.draw(some.integers(0, len(text) - 1))
    damaged = data.draw(some.sampled_from([text[:at], text[:at] + data.draw(some.characters()) + text[at + 1 :]]))
    try:
        decoded = Histogram.decode(damaged)
    except UsageError as refusal:
        assert str(refusal).startswith("histogram: ")
        return
    assert decoded == intact  # The checksum of zlib lets nothing else through.


@pytest.mark.parametrize(
    ("plain", "sentence"),
    [
        (b"", "version missing"),
        (b"\x02", "version 2"),
        (b"\x01\x05", "last count .* missing"),
        (b"\x01\x80", "cut off"),
        (b"\x01\x00\x01", "no sense"),
        (b"\x01\x05\x01\x00\x01", "no sense"),
        (b"\x01\x05\x00", "no sense"),
        (b"\x01" + b"\xff" * 10 + b"\x01\x01", "too long"),
        (b"\x01\xff\xff\x7f\x01", "no sense"),
        (b"\x01\xff\xf0\x01\x01\xff\xf0\x01\x01", "more slots"),
        (b"\x01" + (b"\x01" + b"\xff" * 8 + b"\x7f") * 2, "counts more"),
        (bytes(histogram.PLAIN_BYTES_MAX + 1), "unpacks to more"),
    ],
)
def test_each_corruption_of_a_text_of_schema_1_has_its_sentence(plain, sentence):
    with pytest.raises(UsageError, match=sentence):
        Histogram.decode(text_of(plain))


def v2_of(body, **header):
    """A text of schema 2 with this body, of signed numbers or of bytes."""
    told = {"cookie": hdr_codec.V2 | 0x10, "offset": 0, "digits": 3, "least": 1, "greatest": 1 << 40, "ratio": 1.0} | header
    data = body if isinstance(body, bytes) else hdr_codec.leb128(np.array(body, np.int64))
    cookie, *rest = told.values()
    packed = zlib.compress(hdr_codec.HEADER.pack(cookie, len(data), *rest) + data)
    return base64.b64encode(struct.pack(">II", hdr_codec.V2_COMPRESSED | 0x10, len(packed)) + packed).decode()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (v2_of([-(1 << 22), -(1 << 22), -2, 1]), "more slots"),
        (v2_of([-(1 << 55)] * 512 + [5]), "more slots than any"),
        (v2_of([-histogram.SLOTS, 1]), "more slots than our layout"),
        (v2_of([1 << 61] * 4), "counts more"),
        (v2_of(b"\x02\x80"), "breaks off"),
        (v2_of(b"\xff" * 9 + b"\x01"), "too long"),
        (v2_of([1], digits=2), "another layout"),
        (v2_of([1], least=2), "another layout"),
        (v2_of([1], offset=3), "layout is none"),
        (v2_of([1], cookie=hdr_codec.V2 + 1), "inner header"),
        (v2_of([0] * histogram.PLAIN_BYTES_MAX), "unpacks to more"),
        ("HIST", "breaks off"),
    ],
)
def test_each_corruption_of_a_text_has_its_sentence(text, sentence):
    assert Histogram.decode(v2_of([5, -2, 7])).counts[:5].tolist() == [5, 0, 0, 7, 0]
    with pytest.raises(UsageError, match=f"histogram: .*{sentence}"):
        Histogram.decode(text)


def v1_of(recorded):
    """A histogram as a recording of schema 1 has it, a byte at a time."""
    plain, last = bytearray([1]), -1
    for slot in np.flatnonzero(recorded.counts).tolist():
        for number in (slot - last, int(recorded.counts[slot])):
            while number > 0x7F:
                plain.append(number & 0x7F | 0x80)
                number >>= 7
            plain.append(number)
        last = slot
    return text_of(plain)


@settings(max_examples=60)
@given(some.lists(COUNTS, max_size=5), some.data())
def test_histograms_of_both_schemas_are_read_together_and_in_their_order(many, data):
    made = [Histogram() for _ in many]
    for recorded, slots in zip(made, many, strict=True):
        for index, count in slots.items():
            recorded.counts[index] = count
    texts = [data.draw(some.sampled_from([v1_of, Histogram.encode]))(recorded) for recorded in made]
    for recorded, (slots, counts) in zip(made, histogram.slots_in_use(texts), strict=True):
        assert slots.tolist() == recorded.used().tolist() and counts.tolist() == recorded.counts[recorded.used()].tolist()


def test_what_follows_the_end_is_refused():
    packed = zlib.compress(b"\x01")
    for data in (packed[:-1], packed + b"more"):
        with pytest.raises(UsageError, match="ends early or goes on"):
            Histogram.decode(base64.b64encode(data).decode())


def test_a_hostile_text_does_not_expand():
    bomb = text_of(bytes(100_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(UsageError):
            Histogram.decode(bomb)
        with pytest.raises(UsageError, match="more than any histogram"):
            Histogram.decode("A" * 10_000_000)
        assert tracemalloc.get_traced_memory()[1] < 12_000_000  # Ten of them are the second text itself.
    finally:
        tracemalloc.stop()


def test_reading_histograms_needs_no_numba():
    code = "import sys; import farwrite.base.histogram; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
