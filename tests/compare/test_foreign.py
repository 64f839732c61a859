"""Other tools' results: their real files give the numbers that they give, and a damaged one is refused with a sentence."""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib
from copy import deepcopy
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from farwrite.analysis.figure import Figure, Sheet
from farwrite.base import hdr_codec as encoding
from farwrite.base.errors import UsageError
from farwrite.base.reasons import sentences
from farwrite.compare.figures import decode_sheet, read_sheet
from farwrite.compare.foreign import hdr, sheet_of_foreign
from farwrite.compare.foreign.counted import from_percentiles
from farwrite.compare.foreign.metrics import METRICS
from farwrite.compare.foreign.runs import joined, mean_over_runs

FILES = Path(__file__).parent / "foreign"
SAMPLES = sorted(path.name for path in FILES.glob("*.*") if path.name not in ("README.md", "hdrhistogram_quantiles.json"))

# A run of k6 as handleSummary() is given it. Fields: k6 documentation, "Custom summary".
K6 = {
    "root_group": {"name": "", "path": "", "id": "d41d8cd98f00b204e9800998ecf8427e", "groups": [], "checks": []},
    "options": {"summaryTrendStats": ["avg", "min", "med", "max", "p(90)", "p(95)"], "summaryTimeUnit": "s", "noColor": False},
    "state": {"isStdOutTTY": False, "isStdErrTTY": False, "testRunDurationMs": 30_000.0},
    "metrics": {
        "http_req_duration": {
            "type": "trend",
            "contains": "time",
            "values": {"avg": 12.5, "min": 2.0, "med": 10.0, "max": 90.0, "p(90)": 20.0, "p(95)": 25.0, "p(99.9)": 80.0},
            "thresholds": {"p(95)<500": {"ok": True}},
        },
        "http_req_duration{expected_response:true}": {
            "type": "trend", "contains": "time", "values": {"avg": 12.0, "min": 2.0, "med": 9.5, "max": 90.0, "p(95)": 24.0},
        },
        "http_reqs": {"type": "counter", "contains": "default", "values": {"count": 3000, "rate": 100.0}},
        "iterations": {"type": "counter", "contains": "default", "values": {"count": 1500, "rate": 50.0}},
        "data_sent": {"type": "counter", "contains": "data", "values": {"count": 60000, "rate": 2000.0}},
        "http_req_failed": {"type": "rate", "contains": "default", "values": {"rate": 0.01, "passes": 30, "fails": 2970}},
        "vus": {"type": "gauge", "contains": "default", "values": {"value": 10, "min": 1, "max": 10}},
        "my waiting-time": {"type": "trend", "contains": "default", "values": {"avg": -3.0, "med": -4.0}},
    },
}  # fmt: skip


def k6_export() -> dict:
    """The same run as --summary-export writes it: values beside each other, a rate called value, no types."""
    metrics = {}
    for name, metric in K6["metrics"].items():
        metrics[name] = {"value" if key == "rate" and metric["type"] == "rate" else key: value
                         for key, value in metric["values"].items()}  # fmt: skip
        if "thresholds" in metric:
            metrics[name]["thresholds"] = dict.fromkeys(metric["thresholds"], False)
    return {"root_group": K6["root_group"], "metrics": metrics}


def sheet_of(document, unit=None) -> Sheet:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return sheet_of_foreign(Path("a/file"), data, unit)


@cache
def sample(name: str) -> Sheet:
    return read_sheet(FILES / name)


@cache
def sample_json(name: str) -> dict:
    return json.loads((FILES / name).read_text())


def figure(sheet: Sheet, metric: str, **labels) -> Figure:
    found = [item for item in sheet.figures if item.metric == metric and item.labels == labels]
    assert len(found) == 1, [item.name for item in sheet.figures]
    return found[0]


def refusal(document, unit=None) -> str:
    with pytest.raises(UsageError) as caught:
        sheet_of(document, unit)
    sentence = str(caught.value)
    assert "a/file" in sentence and sentence.endswith((".", "?")), sentence
    return sentence


# All formats


@pytest.mark.parametrize("name", SAMPLES)
def test_a_real_file_is_known_by_its_content_and_its_sheet_survives_being_saved(name):
    sheet = sample(name)
    assert sheet.kind == name.split("_json")[0].split(".")[0].split("_warned")[0].replace("_", "-")
    assert sheet.figures
    assert decode_sheet(msgspec.json.encode(sheet), sheet.source) == sheet


@pytest.mark.parametrize("name", SAMPLES)
def test_every_figure_is_told_apart_and_lies_in_its_interval(name):
    sheet = sample(name)
    keys = [(item.metric, *sorted(item.labels.items())) for item in sheet.figures]
    assert len(set(keys)) == len(keys)
    for item in sheet.figures:
        estimate = item.estimate
        assert item.unit == METRICS[item.metric].unit
        assert estimate.value is not None or estimate.warnings
        if estimate.low is not None:
            assert estimate.low <= estimate.value <= estimate.high
            assert estimate.confidence >= 0.95 or len(estimate.without) in (4, 5)
        elif not item.exact:
            assert estimate.warnings, item.name


@pytest.mark.parametrize("name", [name for name in SAMPLES if not name.endswith(".hlog")])
def test_a_single_run_says_that_it_does_not_know_how_well_it_repeats(name):
    for item in sample(name).figures:
        assert item.estimate.without == []
        if not item.exact and item.estimate.value is not None:
            assert "one run: its repeatability is not known" in sentences(item.estimate.warnings)


def test_what_nobody_wrote_is_refused_with_the_list_of_what_was_looked_for():
    for data in (b"", b"hello", b"{}", b"[]", b'{"metrics": 1}', b'{"jobs": []}', b"\n\n{\nstruct {}\n", b"[" * 100_000):
        sentence = refusal(data)
        assert all(word in sentence for word in ("fio", "HdrHistogram", "k6", "pytest-benchmark")) or "JSON" in sentence
    assert "UTF-8" in refusal(b'{"fio version": "\xff"}')
    assert "summary-export" in refusal(b'{"type":"Metric","data":{},"metric":"vus"}\n{"type":"Point","data":{}}\n')


def test_a_document_nested_without_end_is_refused():
    assert "nested" in refusal(b'{"fio version":' + b'{"a":' * 200_000)
    assert "number too long" in refusal(b'{"fio version": ' + b"9" * 10_000 + b"}")


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_that_breaks_off_anywhere_is_refused_or_shorter_but_never_a_crash(name):
    data = (FILES / name).read_bytes().rstrip()
    for end in range(0, len(data), max(len(data) // 150, 1)):
        try:
            sheet = sheet_of(data[:end])
        except UsageError as sentence:
            assert "a/file" in str(sentence)
        else:
            assert name.endswith(".hlog") and len(sheet.figures) <= len(sample(name).figures)


ODD = some.one_of(
    some.none(), some.booleans(), some.integers(), some.floats(), some.text(max_size=5), some.just({}), some.just([]),
    some.just(10**400), some.just(-1), some.just([1, "a"]), some.just({"values": {"avg": "x"}}), some.just("\ud800\x1b[2J"),
)  # fmt: skip


def places(value, way=()):
    """The way to every value of a document."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield (*way, key)
        yield from places(member, (*way, key))


@pytest.mark.parametrize("name", ["fio_json_plus.json", "fio_json.json", "pytest_benchmark.json", "k6", "k6 export"])
@settings(max_examples=80, deadline=None)
@given(data=some.data())
def test_whatever_stands_in_a_file_it_is_read_or_refused_with_its_place(name, data):
    original = {"k6": K6, "k6 export": k6_export()}.get(name) or sample_json(name)
    document = deepcopy(original)
    for _ in range(data.draw(some.integers(1, 3))):
        way = data.draw(some.sampled_from(list(places(document))))
        parent = document
        for key in way[:-1]:
            parent = parent[key]
        parent[way[-1]] = deepcopy(data.draw(ODD))  # Otherwise one list might come to stand within itself.
    try:
        sheet = sheet_of(document)
    except UsageError as sentence:
        assert str(sentence).isprintable()
        return
    assert decode_sheet(msgspec.json.encode(sheet), sheet.source) == sheet  # So no NaN, and no half of a character.
    for item in sheet.figures:
        assert item.name.isprintable()
        for value in (item.estimate.value, item.estimate.low, item.estimate.high):
            assert value is None or math.isfinite(value)


@settings(max_examples=150, deadline=None)
@given(lines=some.lists(some.one_of(some.text(max_size=30), some.sampled_from((FILES / "hdrhistogram.hlog").read_text().split())),
                        max_size=6), cut=some.integers(0, 200))  # fmt: skip
def test_whatever_stands_in_a_histogram_log_it_is_read_or_refused(lines, cut):
    text = "#[Histogram log format version 1.3]\n" + "\n".join(lines)
    try:
        sheet_of(text[: len(text) - cut].encode("utf-8", "replace"))
    except UsageError as sentence:
        assert "a/file" in str(sentence)


# fio


def test_quantiles_from_the_slots_of_json_plus_are_those_that_fio_lists():
    written = sample_json("fio_json_plus.json")["jobs"][0]
    held = 0
    for op in ("read", "write", "sync"):
        for key, word in (("lat_ns", "service"), ("clat_ns", "completion")):
            for suffix, listed in (("p50", "50.000000"), ("p99", "99.000000"), ("p999", "99.900000")):
                if key not in written[op]:
                    continue
                estimate = figure(sample("fio_json_plus.json"), f"{word}_{suffix}", job="mixed", op=op).estimate
                if estimate.value is None:
                    assert "needs n >=" in str(estimate.warnings[0])
                else:
                    assert estimate.value == written[op][key]["percentile"][listed]
                    assert estimate.high <= written[op][key]["max"]
                    held += 1
    assert held


def test_completion_latency_of_fio_is_not_called_service_time():
    sheet = sample("fio_json.json")
    metrics = {item.metric for item in sheet.figures if item.labels.get("op") == "write"}
    assert {"completion_p50", "completion_p99", "service_mean"} <= metrics
    assert not {"service_p50", "service_p99", "service_p999"} & metrics


def test_listed_percentiles_of_fio_enclose_the_interval_that_its_slots_would_give():
    document = deepcopy(sample_json("fio_json_plus.json"))
    for part in (document["jobs"][0][op] for op in ("read", "write")):
        del part["lat_ns"]["bins"]
    wide, narrow = sheet_of(document), sample("fio_json_plus.json")
    for metric in ("service_p50", "service_p99", "service_p999"):
        for op in ("read", "write"):
            outer, inner = (figure(sheet, metric, job="mixed", op=op).estimate for sheet in (wide, narrow))
            assert outer.value == inner.value and outer.confidence == inner.confidence
            slot = inner.value / 64
            assert outer.low <= inner.low + slot and inner.high - slot <= outer.high


def test_a_note_of_fio_before_its_json_is_passed_over():
    sheet = sample("fio_warned.json")
    assert (FILES / "fio_warned.json").read_text().startswith("note:")
    assert figure(sheet, "throughput", job="w", op="write").estimate.count == 256


def test_of_several_documents_of_a_running_fio_the_last_one_counts():
    early = deepcopy(sample_json("fio_json.json"))
    early["jobs"] = early["jobs"][:1]
    both = json.dumps(early) + "\n" + json.dumps(sample_json("fio_json.json"))
    assert sheet_of(both.encode()).figures == sample("fio_json.json").figures
    assert "breaks off" in refusal((both + "\n{").encode())


def test_the_load_of_a_fio_job_is_its_identity_and_its_place_is_not():
    identity = sample("fio_json.json").identity
    assert identity == {
        "fio": "3",
        "job first": "bs 4k, direct 1, ioengine psync, rw write, size 16m",
        "job second": "bs 4k, direct 1, ioengine psync, rw randread, size 16m",
    }
    moved = deepcopy(sample_json("fio_json.json"))
    moved["global options"]["filename"] = "/dev/elsewhere"
    assert sheet_of(moved).identity == identity


def test_a_fio_job_that_failed_counts_errors_and_its_times_are_withheld():
    document = deepcopy(sample_json("fio_json.json"))
    document["jobs"][0]["error"] = 28
    sheet = sheet_of(document)
    assert figure(sheet, "errors", job="first").estimate.value == 1
    assert figure(sheet, "errors", job="first").withheld == []
    assert "No space left on device" in figure(sheet, "throughput", job="first", op="write").withheld[0].sentence
    assert figure(sheet, "throughput", job="second", op="read").withheld == []
    document["jobs"][0]["total_err"] = 7
    assert figure(sheet_of(document), "errors", job="first").estimate.value == 7


def test_fio_jobs_of_one_name_are_told_apart():
    document = deepcopy(sample_json("fio_json.json"))
    document["jobs"][1]["jobname"] = "first"
    sheet = sheet_of(document)
    assert figure(sheet, "throughput", job="first", clone=1.0, op="write")
    assert figure(sheet, "throughput", job="first", clone=2.0, op="read")
    assert "group_reporting" in sheet.warnings[0]


def test_a_value_that_no_measurement_gives_is_refused_with_its_place():
    for odd, what in ((-1, "negative"), ("4096", "no number"), (float("nan"), "no measurement"), (1e300, "no measurement")):
        document = deepcopy(sample_json("fio_json.json"))
        document["jobs"][1]["read"]["clat_ns"]["mean"] = odd
        assert "jobs[1].read.clat_ns.mean" in refusal(document) and what in refusal(document)
    assert "before fio 3.0" in refusal({"fio version": "fio-2.21", "jobs": [{}]})
    assert "holds no job" in refusal({"fio version": "fio-3.36"})


# HdrHistogram


CASES = json.loads((FILES / "hdrhistogram_quantiles.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=[f"{case['n']} values" for case in CASES])
def test_a_decoded_histogram_has_the_quantiles_that_hdrhistogram_reads_from_it(case):
    lows, widths, counts = hdr.decode(case["text"])
    assert counts.sum() == case["n"]
    cumulative = np.cumsum(counts)
    for percent, greatest in case["q"].items():
        slot = np.searchsorted(cumulative, math.ceil(float(percent) / 100 * case["n"] - 1e-9))
        # Theirs is the greatest value of a slot; our slots are as fine, or have three digits.
        assert lows[slot] <= greatest <= lows[slot] + widths[slot] - 1
        assert greatest - lows[slot] <= max(greatest / 32, widths[slot])


def test_a_histogram_log_is_summed_over_its_intervals_by_tag():
    # p50 and p99 of all intervals together, as hdrhistogram 0.10.8 gives them: the greatest value of the slot.
    for labels, theirs in (({}, (1_073_151, 2_736_127)), ({"tag": "B"}, (2_162_687, 5_472_255))):
        for metric, value in zip(("latency_p50", "latency_p99"), theirs, strict=True):
            item = figure(sample("hdrhistogram.hlog"), metric, **labels)
            assert item.estimate.value <= value <= item.estimate.value * (1 + 1 / 128)
            assert item.estimate.count == 1200 and len(item.estimate.without) == 4
        assert figure(sample("hdrhistogram.hlog"), "latency_p999", **labels).estimate.value is None
        assert figure(sample("hdrhistogram.hlog"), "recorded_per_s", **labels).estimate.value == 300
    assert sample("hdrhistogram.hlog").started_utc == "2015-09-09T15:24:39+00:00"


def test_leaving_an_interval_out_is_reading_the_log_without_it():
    text = (FILES / "hdrhistogram.hlog").read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("#", '"', "Tag"))]
    for index, line in enumerate(lines):
        shorter = figure(sheet_of(text.replace(line, "").encode()), "latency_p50").estimate
        assert figure(sample("hdrhistogram.hlog"), "latency_p50").estimate.without[index] == shorter.value


def test_a_long_log_has_rounds_of_neighbouring_intervals():
    head, *intervals = (FILES / "hdrhistogram.hlog").read_text().split("\n0.000000,", 1)
    line = "0.000000," + intervals[0].splitlines()[0]
    estimate = figure(sheet_of((head + ("\n" + line) * 100).encode()), "latency_p50").estimate
    assert len(estimate.without) == hdr.ROUNDS_MAX and estimate.count == 30_000


def test_an_interval_that_counted_nothing_changes_nothing():
    header = encoding.HEADER.pack(encoding.V2 | 0x10, 0, 0, 3, 1, 3_600_000, 1.0)
    packed = zlib.compress(header)
    empty = base64.b64encode(struct.pack(">II", encoding.V2_COMPRESSED | 0x10, len(packed)) + packed).decode()
    text = (FILES / "hdrhistogram.hlog").read_text() + f"4.0,1.0,0.000,{empty}\n"
    assert sheet_of(text.encode()).figures == sample("hdrhistogram.hlog").figures


def test_the_unit_of_a_log_scales_it_and_is_doubted_when_the_log_speaks_against_it():
    data = (FILES / "hdrhistogram.hlog").read_bytes()
    in_us = sheet_of(data, "us")
    assert in_us.warnings == []
    for item in sample("hdrhistogram.hlog").figures:
        value = figure(in_us, item.metric, **item.labels).estimate.value
        assert value == (item.estimate.value and item.estimate.value * (1000 if item.unit == "ns" else 1))
    assert "taken as ns" in sample("hdrhistogram.hlog").warnings[0]
    # Divided by 1000 instead of 1 000 000 the greatest values stand for microseconds shown as milliseconds.
    lines = data.decode().splitlines()
    shown = [line.replace(",3.000000,", ",3000.000000,") for line in lines if line[0] == "0" or line[0] == "#"]
    assert "--unit us" in sheet_of("\n".join(shown).encode()).warnings[0]


def test_the_unit_may_only_be_told_for_a_log():
    assert "--unit us" in refusal(sample_json("fio_json.json"), "us")


def test_a_damaged_histogram_is_refused_with_its_line():
    good = (FILES / "hdrhistogram.hlog").read_text().splitlines()
    for damaged, what in (
        (good[5][:-40], "breaks off|base64|unpack"),
        (good[5].replace("HISTFA", "HISTEg"), "cookie"),
        ("1.0,1.0,2.0", "no interval"),
        ("nan,1.0,2.0," + good[5].split(",")[3], "no interval"),
        (good[5].replace("4nC1", "4nC2"), "unpack"),
    ):
        sentence = refusal("\n".join([*good[:5], damaged]).encode())
        assert "line 6" in sentence and any(word in sentence for word in what.split("|")), sentence
    assert "without an interval" in refusal("\n".join(good[:5]).encode())


def test_a_histogram_cannot_be_made_to_fill_the_memory():
    def refused(plain: bytes) -> str:
        packed = zlib.compress(plain)
        text = base64.b64encode(struct.pack(">II", encoding.V2_COMPRESSED | 0x10, len(packed)) + packed).decode()
        return refusal(f"0.0,1.0,2.0,{text}".encode())

    def header(length: int) -> bytes:
        return encoding.HEADER.pack(encoding.V2 | 0x10, length, 0, 3, 1, 3_600_000, 1.0)

    assert "larger than any" in refused(bytes(1 << 26))
    assert "larger than any" in refused(header(9) + b"\xff" * 9)  # Skips 2^63 slots.
    assert "larger than any" in refused(header(10) + b"\xff" * 9 + b"\x02")
    assert "more slots" in refused(header(4) + b"\xff\xff\xff\x7f")  # Skips 2^27.
    assert "63 bits" in refused(header(4) + b"\xff\xff\x07\x02")  # Slot 65 536 of a layout of 3 digits.
    assert "larger than any" in refused(header(9) + b"\xfe" + b"\xff" * 8)
    assert "counts more" in refused(header(27) + (b"\xfe" + b"\xff" * 7 + b"\x7f") * 3)
    assert "breaks off" in refused(header(1) + b"\x80")


# k6


def test_times_of_k6_are_nanoseconds_and_keep_their_names():
    sheet = sheet_of(K6)
    for metric, ms in (("p50", 10), ("p95", 25), ("p999", 80), ("mean", 12.5), ("max", 90), ("min", 2)):
        item = figure(sheet, f"http_req_duration_{metric}")
        if metric != "p999":
            assert item.estimate.value == ms * 1e6
        else:
            assert "needs n >= 3688 (n = 3000)" in str(item.estimate.warnings[0])
        assert (item.unit, item.better, item.exact) == ("ns", "less", False)
    p95 = figure(sheet, "http_req_duration_p95").estimate
    assert (p95.low, p95.high, p95.count) == (20e6, 80e6, 3000)
    assert figure(sheet, "http_req_duration_p95", expected_response="true").estimate.value == 24e6


def test_counters_rates_and_gauges_of_k6_have_their_units_and_directions():
    sheet = sheet_of(K6)
    shapes = {item.metric: (item.estimate.value, item.unit, item.better) for item in sheet.figures}
    assert shapes["iterations_per_s"] == (50.0, "per_s", "more")
    assert shapes["iterations"] == (1500, "count", "more")
    assert shapes["data_sent_per_s"] == (2000.0, "bytes_per_s", "")
    assert shapes["vus"] == (10, "", "")
    assert shapes["my_waiting_time_p50"] == (-4.0, "", "")
    assert shapes["http_req_failed"] == (0.01, "ratio", "less")
    failed = figure(sheet, "http_req_failed").estimate
    # Clopper and Pearson: at either end, as few as 30 of 3000 or as many have a probability of 2.5 %.
    assert at_most(29, 3000, failed.low) == pytest.approx(0.975)
    assert at_most(30, 3000, failed.high) == pytest.approx(0.025)


def at_most(hits: int, count: int, share: float) -> float:
    """The probability of at most so many hits."""
    return math.fsum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(hits + 1))


def test_the_summary_export_of_k6_says_the_same_as_its_handle_summary():
    exported, handled = sheet_of(k6_export()), sheet_of(K6)
    assert exported.figures == handled.figures
    assert "custom metrics" in exported.warnings[0] and handled.warnings == []


def test_a_tag_of_k6_that_is_called_like_a_number_of_ours_is_still_words():
    document = {"root_group": {}, "metrics": {"waits{miles:twenty,queue_depth:8}": {"type": "gauge", "values": {"value": 1}}}}
    assert sheet_of(document).figures[0].name == "waits of tag miles twenty, tag queue_depth 8"


# pytest-benchmark


def test_run_times_of_pytest_benchmark_are_its_own_in_nanoseconds():
    sheet = sample("pytest_benchmark.json")
    for written in sample_json("pytest_benchmark.json")["benchmarks"]:
        for metric, key in (("run_time_p50", "median"), ("run_time_min", "min"), ("run_time_mean", "mean")):
            item = figure(sheet, metric, benchmark=written["fullname"])
            assert item.estimate.value == pytest.approx(1e9 * written["stats"][key])
            assert item.estimate.count == written["stats"]["rounds"]
    assert set(sheet.identity) == {"host", "python", "system"}
    assert "vm" not in sheet.identity.values()


def test_without_the_single_rounds_the_quartiles_enclose_the_median():
    document = deepcopy(sample_json("pytest_benchmark.json"))
    for written in document["benchmarks"]:
        del written["stats"]["data"]
        written["stats"]["rounds"] = 100
        estimate = figure(sheet_of(document), "run_time_p50", benchmark=written["fullname"]).estimate
        assert estimate.value == 1e9 * written["stats"]["median"]
        assert (estimate.low, estimate.high) == (1e9 * written["stats"]["q1"], 1e9 * written["stats"]["q3"])
        assert any("as wide as the percentiles" in str(warning) for warning in estimate.warnings)


# Estimates


def test_more_values_than_a_binomial_distribution_takes_still_have_an_interval():
    counts = np.full((1, 100), 1e14)
    estimate = hdr.Counted(*[np.arange(100.0)] * 3, counts).estimate(0.5)
    assert (estimate.value, estimate.low, estimate.high, estimate.count) == (49, 49, 50, 10**16)
    known = {q / 100: float(q) for q in range(101)}
    assert from_percentiles(known, 0.5, 10**16).confidence >= 0.95


@settings(max_examples=80, deadline=None)
@given(seed=some.integers(0, 2**32), count=some.integers(6, 400))
def test_an_enclosed_interval_holds_the_exact_one_however_percentiles_are_defined(seed, count):
    values = np.sort(np.random.default_rng(seed).lognormal(0, 1, count))
    exact = hdr.Counted.of(values).estimate(0.5)
    for method in ("inverted_cdf", "linear", "median_unbiased", "higher", "lower"):
        known = {q: float(np.quantile(values, q, method=method)) for q in (0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0)}
        found = from_percentiles(known, 0.5, count)
        assert found.low <= exact.low and exact.high <= found.high
    assert from_percentiles(known, 0.77, count) is None


# Several runs


def runs_of(*values: float) -> list[Sheet]:
    """Runs of fio whose I/Os a second are these."""
    made = []
    for value in values:
        document = deepcopy(sample_json("fio_json.json"))
        document["timestamp"] += len(made)
        document["jobs"][0]["write"]["iops"] = value
        made.append(sheet_of_foreign(Path(f"run{len(made)}"), json.dumps(document).encode()))
    return made


def test_runs_are_averaged_as_ratios_and_each_is_left_out_once():
    item = figure(joined(runs_of(100.0, 200.0, 400.0)), "throughput", job="first", op="write")
    assert item.estimate.value == pytest.approx(200.0)
    assert item.estimate.without == pytest.approx([math.sqrt(200 * 400), 200.0, math.sqrt(100 * 200)])
    assert item.estimate.low < 200 < item.estimate.high
    assert item.estimate.count == 3 and item.estimate.warnings == []


def test_the_worst_run_decides_what_is_counted_exactly():
    runs = runs_of(100.0, 101.0)
    document = deepcopy(sample_json("fio_json.json"))
    document["jobs"][0]["error"] = 5
    item = figure(joined([*runs, sheet_of(document)]), "errors", job="first")
    assert (item.estimate.value, item.estimate.without) == (1, [])
    both = joined([*runs, sheet_of(document)])
    assert figure(both, "throughput", job="first", op="write").withheld[0].sentence.startswith("a/file: ")


def test_one_run_is_its_own_sheet_and_the_same_run_twice_is_none():
    runs = runs_of(100.0)
    assert joined(runs) is runs[0]
    with pytest.raises(UsageError, match="the same run"):
        joined([*runs, *runs])


def test_runs_of_different_things_are_not_averaged():
    other = deepcopy(sample_json("fio_json.json"))
    other["jobs"][0]["job options"]["rw"] = "read"
    with pytest.raises(UsageError, match=r"job first is .*write.* in the one"):
        joined([sample("fio_json.json"), sheet_of(other)])
    with pytest.raises(UsageError, match="tool is fio in the one and k6 in the other"):
        joined([sample("fio_json.json"), sheet_of(K6)])


@given(values=some.lists(some.one_of(some.none(), some.floats(-1e24, 1e24)), min_size=1), as_ratio=some.booleans())
def test_the_mean_over_any_runs_is_finite_and_within_its_interval(values, as_ratio):
    estimate = mean_over_runs(values, as_ratio, [])
    known = [value for value in values if value is not None]
    if not known:
        assert estimate.value is None
        return
    assert min(known) - 1e-6 * abs(min(known)) <= estimate.value <= max(known) + 1e-6 * abs(max(known))
    if estimate.low is not None:
        assert math.isfinite(estimate.low) and math.isfinite(estimate.high)
        assert len(estimate.without) == len(values)


# What another tool's file may hold beside what was looked for


def fio_job(**parts) -> dict:
    """fio's JSON of one job; `parts` are its kinds of I/O."""
    return {"fio version": "fio-3.33", "jobs": [{"jobname": "j", "error": 0, **parts}]}


def fio_part(count: int, p50: int, per_s: float) -> dict:
    times = {"min": 10, "max": 900, "mean": 120.0, "stddev": 3.0, "N": count, "percentile": {"50.000000": p50, "99.000000": 800}}
    return {"total_ios": count, "iops": per_s, "bw_bytes": 4096 * per_s, "clat_ns": times}


def test_a_fio_run_whose_directions_are_reported_as_one_is_read():
    sheet = sheet_of(fio_job(mixed=fio_part(5000, 77, 1234.5)))
    assert figure(sheet, "throughput", job="j", op="mixed").estimate.value == 1234.5
    assert figure(sheet, "goodput", job="j", op="mixed").estimate.value == 4096 * 1234.5
    assert figure(sheet, "completion_p50", job="j", op="mixed").estimate.value == 77
    assert figure(sheet, "errors", job="j").estimate.count == 5000


def test_a_fio_run_that_reports_both_counts_no_io_twice():
    sheet = sheet_of(fio_job(read=fio_part(3000, 50, 300.0), write=fio_part(2000, 90, 200.0), mixed=fio_part(5000, 70, 500.0)))
    assert figure(sheet, "errors", job="j").estimate.count == 5000
    assert figure(sheet, "throughput", job="j", op="mixed").estimate.value == 500.0
    assert figure(sheet, "throughput", job="j", op="read").estimate.value == 300.0


@pytest.mark.parametrize(
    "document",
    [
        fio_job(read={"total_ios": 0, "iops": 0.0}),
        fio_job(combined=fio_part(5000, 77, 1234.5)),
        {"root_group": {"name": ""}, "metrics": {}},
        {"metadata": {"k6Version": "1.5.0"}, "results": {"metrics": []}},
        {"machine_info": {"node": "x"}, "benchmarks": [{"fullname": "f", "stats": {}}]},
        b'#[Histogram log format version 1.2]\n"StartTimestamp","EndTimestamp","Interval_Max","Interval_Compressed_Histogram"\n',
    ],
)  # fmt: skip
def test_a_file_that_no_figure_comes_out_of_is_refused_instead_of_being_the_same_as_another(document):
    sentence = refusal(document)
    assert "no figure" in sentence or "without an interval" in sentence


def test_a_fio_job_that_only_failed_still_has_its_error():
    document = fio_job(read={"total_ios": 0})
    document["jobs"][0]["error"] = 5
    assert figure(sheet_of(document), "errors", job="j").estimate.value == 1


def machine_readable() -> dict:
    """The run of K6 as k6 1.5 writes it with --new-machine-readable-summary: metrics in a list, percentiles without brackets."""
    metrics = []
    for name, metric in K6["metrics"].items():
        values = {key.replace("(", "").replace(")", ""): value for key, value in metric["values"].items()}
        if metric["type"] == "rate":
            values = {"rate": values["rate"], "matches": values["passes"], "total": values["passes"] + values["fails"]}
        metrics.append({"name": name, "type": metric["type"], "contains": metric["contains"], "values": values})
    return {
        "version": "1.0.0", "metadata": {"generatedAt": "2025-05-06T07:08:09+02:00", "k6Version": "1.5.0"},
        "config": {"script": "s.js"}, "results": {"metrics": metrics, "checks": []},
    }  # fmt: skip


def test_k6s_machine_readable_summary_gives_the_same_figures_as_the_other():
    one, other = sheet_of(machine_readable()), sheet_of(K6)
    assert one.kind == "k6" and one.started_utc == "2025-05-06T05:08:09+00:00"
    assert one.figures == other.figures
    damaged = machine_readable()
    damaged["results"]["metrics"].append(damaged["results"]["metrics"][0])
    assert "has no name of its own" in refusal(damaged)


def some_histogram() -> str:
    """The encoded histogram of the shipped log's first interval."""
    text = (FILES / "hdrhistogram.hlog").read_text()
    return next(line.rpartition(",")[2] for line in text.splitlines() if line and line[0] not in '#"')


@pytest.mark.parametrize("legend", ["Interval_Length", "EndTimestamp", None])
@pytest.mark.parametrize("epoch", [0.0, 1_600_000_000.0])
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_second_number_of_a_log_is_known_for_a_length_or_an_end_by_the_numbers_alone(legend, epoch, ends, count):
    if ends and epoch == 0 and count == 2 and legend != "EndTimestamp":
        pytest.skip("0 to 2, then 2 to 4, is as well two seconds and then four; C's writer knows only instants since 1970")
    header = f'"StartTimestamp","{legend}","Interval_Max","Interval_Compressed_Histogram"\n' if legend else ""
    histogram, seconds = some_histogram(), 2.0
    lines = [
        f"{epoch + seconds * index:.3f},{epoch + seconds * (index + 1) if ends else seconds:.3f},9.0,{histogram}"
        for index in range(count)
    ]
    sheet = sheet_of(("#[Histogram log format version 1.2]\n" + header + "\n".join(lines) + "\n").encode())
    recorded = sum(int(item) for item in encoding.slots_in_use(histogram)[2])
    assert figure(sheet, "recorded_per_s").estimate.value == pytest.approx(recorded / seconds)
