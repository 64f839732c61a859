"""Our histograms in HdrHistogram's encoding, log and distribution, held against the reference's own Python port."""

import base64
import contextlib
import re

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farwrite.analysis import sample
from farwrite.base import hdr_codec
from farwrite.base.errors import UsageError
from farwrite.base.histogram import SLOTS, Histogram, highest_of
from farwrite.compare.foreign import hdr as logs
from farwrite.report import hdr as export
from make_recording import analysed

SOME = settings(max_examples=60, deadline=None)


@st.composite
def histograms(draw):
    """Any histogram, with counts of one byte to eight."""
    slots = draw(st.lists(st.integers(0, SLOTS - 1), max_size=40, unique=True))
    histogram = Histogram()
    for slot in slots:
        histogram.counts[slot] = draw(st.integers(1, 1 << draw(st.integers(0, 50))))
    return histogram


def reference():
    """hdrh.histogram, or a skipped test."""
    return pytest.importorskip("hdrh.histogram", reason="the package hdrhistogram is not installed")


# The encoding


@given(histogram=histograms())
@SOME
def test_what_is_encoded_is_decoded_again(histogram):
    assert Histogram.decode(histogram.encode()) == histogram


@given(histogram=histograms())
@SOME
def test_the_reference_decodes_what_we_encode(histogram):
    theirs = reference().HdrHistogram.decode(histogram.encode())
    used = histogram.used()
    assert theirs.get_total_count() == histogram.count
    for slot in used.tolist():
        assert theirs.get_count_at_index(slot) == histogram.counts[slot]
        assert theirs.get_highest_equivalent_value(theirs.get_value_from_index(slot)) >= highest_of(slot)


@given(values=st.lists(st.integers(1, (1 << 40) - 1), max_size=60))
@SOME
def test_we_decode_what_the_reference_encodes(values):
    theirs = reference().HdrHistogram(1, hdr_codec.GREATEST, 3)
    for value in values:
        theirs.record_value(value)
    assert Histogram.decode(theirs.encode().decode()) == Histogram.of(values)


@given(values=st.lists(st.integers(1, (1 << 40) - 1), min_size=1, max_size=60))
@SOME
def test_payload_and_reference_agree_byte_for_byte(values):
    theirs = reference().HdrHistogram(1, hdr_codec.GREATEST, 3)
    for value in values:
        theirs.record_value(value)
    packed = base64.b64decode(theirs.encode())
    ours = Histogram.of(values)
    assert hdr_codec.unpacked(base64.b64encode(packed).decode()) == hdr_codec.payload(ours.used(), ours.counts[ours.used()])


@given(text=st.text(max_size=80) | st.binary(max_size=60).map(lambda raw: base64.b64encode(raw).decode()))
@SOME
def test_any_text_is_a_histogram_or_a_usage_error(text):
    for read in (Histogram.decode, hdr_codec.slots_in_use):
        with contextlib.suppress(UsageError):
            read(text)


@given(numbers=st.lists(st.integers(-(1 << 55), 1 << 55), min_size=1, max_size=30))
@SOME
def test_numbers_are_written_as_they_are_read(numbers):
    read, bounds = hdr_codec.varints([hdr_codec.leb128(np.array(numbers, np.int64)), b"", b"\x07"])
    assert ((read >> 1) ^ -(read & 1)).tolist() == [*numbers, -4]
    assert bounds.tolist() == [0, len(numbers), len(numbers), len(read)]


# Several quantiles at once


@given(histogram=histograms(), qs=st.lists(st.floats(0, 1), min_size=1, max_size=7))
@SOME
def test_several_quantiles_are_those_asked_for_one_by_one(histogram, qs):
    assert histogram.quantiles(qs) == [histogram.quantile(q) for q in qs]
    mine = sample.decode(histogram.encode())
    assert np.array_equal(mine.quantiles(qs), [mine.quantile(q) for q in qs], equal_nan=True)
    assert histogram.used().tolist() == np.flatnonzero(histogram.counts).tolist()


# The log


def test_a_log_has_an_interval_for_each_slice_in_the_order_of_time_and_our_own_reader_reads_it():
    recording, analysis = analysed()
    lines = list(export.hlog(recording, analysis, recording.cells, "response"))
    intervals = [line for line in lines if line.startswith("Tag=")]
    assert len(intervals) == sum(len(item.slices) for item in recording.rounds if item.status == "ok")
    times = [float(line.split(",")[1]) for line in intervals]
    assert times == sorted(times)
    sheet = logs.sheet_of("".join(lines), "x.hlog", "ns")
    assert {item.labels["tag"].removesuffix(export.WARMUP) for item in sheet.figures} == {cell.id for cell in recording.cells}


def test_the_reference_reads_our_log(tmp_path):
    reference()
    from hdrh.histogram import HdrHistogram
    from hdrh.log import HistogramLogReader

    recording, analysis = analysed()
    cell = recording.cells[0]
    (tmp_path / "x.hlog").write_text("".join(export.hlog(recording, analysis, [cell], "response")))
    reader = HistogramLogReader(str(tmp_path / "x.hlog"), HdrHistogram(1, hdr_codec.GREATEST, 3))
    total = HdrHistogram(1, hdr_codec.GREATEST, 3)
    while reader.add_next_interval_histogram(total):
        pass
    every = [Histogram.decode(part.response) for item in export.good_rounds(recording, cell) for part in item.slices]
    assert total.get_total_count() == sum(item.count for item in every)
    assert reader.get_start_time_sec() > 1.7e9


def test_the_warm_up_is_tagged_apart_and_left_out_of_the_distribution():
    recording, analysis = analysed()
    cell = recording.cells[0]
    slices = recording.rounds[0].slices
    late = [msgspec.structs.replace(item, warmup_ns=2 * slices[0].duration_ns) for item in analysis.cells]
    analysis = msgspec.structs.replace(analysis, cells=late)
    rounds = export.good_rounds(recording, cell)
    tags = [item.tag for item in export.intervals_of(recording, analysis, cell, "response")]
    assert tags.count(cell.id + export.WARMUP) == 2 * len(rounds)
    left = sum(part.completed for item in rounds for part in item.slices[2:])
    assert export.pooled(recording, analysis, cell, "response").count == left


@pytest.mark.parametrize("kind", ["service", "wait"])
def test_service_and_wait_have_an_interval_a_round(kind):
    recording, analysis = analysed()
    cell = recording.cells[0]
    found = list(export.intervals_of(recording, analysis, cell, kind))
    assert len(found) == len(export.good_rounds(recording, cell))


# The distribution

LINE = re.compile(r" *(\d+\.\d{3}) (\d\.\d{12}) +(\d+)(?: +(\d+\.\d{2}))?")


@given(histogram=histograms())
@SOME
def test_each_line_of_a_distribution_is_a_percentile_of_the_histogram(histogram):
    rows = [LINE.fullmatch(line) for line in export.hgrm(histogram).splitlines()]
    rows = [row for row in rows if row]
    assert bool(rows) == bool(histogram.count)
    counted = np.cumsum(histogram.counts)
    for row in rows:
        value, level, total = float(row[1]), float(row[2]), int(row[3])
        slot = int(np.searchsorted(counted, total))
        assert counted[slot] == total
        assert value == pytest.approx(int(highest_of(slot)) / 1e6, abs=0.0006)
        assert total >= level * histogram.count * (1 - 1e-9)
    if rows:
        assert rows[-1][2] == "1.000000000000" and int(rows[-1][3]) == histogram.count


def test_the_reference_finds_the_same_percentiles_mean_and_maximum(tmp_path):
    theirs = reference().HdrHistogram(1, hdr_codec.GREATEST, 3)
    values = np.random.default_rng(4).lognormal(13, 0.4, 3000).astype(np.int64)
    for value in values.tolist():
        theirs.record_value(value)
    with (tmp_path / "x.hgrm").open("wb") as file:
        theirs.output_percentile_distribution(file, 1e6)
    ours, text = export.hgrm(Histogram.of(values)), (tmp_path / "x.hgrm").read_text()
    assert ours.splitlines()[:2] == text.splitlines()[:2]
    # Which percentiles are printed depends on rounding steps down, as the reference in Java does and its port does not.
    for line in ours.splitlines()[2:-4]:
        value, _, total, _ = LINE.fullmatch(line).groups()
        assert theirs.get_value_at_percentile(100 * int(total) / 3000) / 1e6 == pytest.approx(float(value), abs=0.0006)
    mean, greatest = re.compile(r"#\[Mean +=\s+([\d.]+)"), re.compile(r"#\[Max +=\s+([\d.]+)")
    for pattern in (mean, greatest):
        assert float(pattern.search(ours)[1]) == pytest.approx(float(pattern.search(text)[1]), abs=0.002)
