"""Other tools' traces: what each line means, several disks, zstd, repair; and no bytes whatever bring a reader down."""

import gzip
import shutil
import subprocess
import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from farwrite.base.errors import UsageError
from farwrite.workload.trace import columns, convert, summary
from farwrite.workload.trace.convert import Change
from farwrite.workload.trace.reader import Reading, outline, read, window
from farwrite.workload.trace.source import Taking
from farwrite.workload.trace.trace import FLUSH, READ, WRITE

FUZZ = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
SOME = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

MSR = b"""\
128166372003061629,hm,0,Write,7014912,4096,26
128166372016382155,hm,1,Read,1074696192,512,113
128166372026382245,hm,0,Read,2048,24576,4011
"""
SPC = b"""\
0,303567,3584,w,0.000000
1,55590,3072,w,0.000000
 0 , 303574,3584, R ,0.026214 ,more,1
"""
IOLOG2 = b"""\
fio version 2 iolog
/dev/sda add
/dev/sda open
/dev/sda write 0 4096
/dev/sda wait 1500 0
/dev/sda read 8192 512
/dev/sda wait 500
/dev/sda trim 0 4096
/dev/sda datasync 8192 512
/dev/sda close
"""
IOLOG3 = b"""\
fio version 3 iolog
18 /tmp/f add
110 /tmp/f open
114 /tmp/f write 0 4096
100116 /tmp/f read 4096 512
100168 /tmp/f sync 4096 0
100300 /tmp/f close
"""
BLKPARSE = b"""\
  8,0    3        1     0.000000000   697  Q   W 223490 + 8 [kjournald]
  8,0    3        2     0.000000829   697  G   W 223490 + 8 [kjournald]
  8,0    3        3     0.000001200   697  P   N [kjournald]
  8,0    3        4     0.000001900     0  m   N cfq workload slice:300
  8,0    3        5     0.000010000   697  D   W 223490 + 8 [kjournald]
  8,0    1        1     0.000020000   698  Q FWFSM 224000 + 16 [jbd2/sda1-8]
  8,0    1        2     0.000030000   698  Q FWS [jbd2/sda1-8]
  8,16   1        3     0.000040000   698  Q  RA 8 + 256 [dd]
  8,0    1        4     0.000050000   698  Q  DS 0 + 2048 [fstrim]
  8,0    1        5     0.000051000   698  U   N [dd] 1
  8,0    3        6     0.000900000     0  C   W 223490 + 8 [0]
CPU3 (8,0):
 Reads Queued:           1,      128KiB\t Writes Queued:           2,       12KiB
Total (8,0):
 Reads Queued:           1,      128KiB

Throughput (R/W): 0KiB/s / 0KiB/s
Events (8,0): 11 entries
Skips: 0 forward (0 -   0.0%)
"""
EXAMPLES = {"x.csv": MSR, "x.spc": SPC, "x.log": IOLOG2, "x.iolog": IOLOG3, "x.txt": BLKPARSE}
NAMES = {"x.csv": "msr", "x.spc": "spc", "x.log": "iolog-2", "x.iolog": "iolog-3", "x.txt": "blkparse-Q"}


@pytest.fixture
def file(tmp_path):
    def write(content, name="x"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def rows_of(recorded):
    columns = (recorded.time_ns, recorded.operation, recorded.address, recorded.size)
    return [tuple(int(value) for value in row) for row in zip(*columns, strict=True)]


def batches_of(path, taking):
    """(every record with its disk's name, the reading)."""
    rows = []
    with Reading(path, taking) as reading:
        for batch in reading:
            rows += [(reading.disks[disk], *row) for disk, row in zip(batch.disk.tolist(), rows_of(batch), strict=True)]
    return rows, reading


def refusal(path, taking=None):
    with pytest.raises(UsageError) as refused:
        batches_of(path, taking or Taking())
    assert str(path) in str(refused.value)
    return str(refused.value)


# What lines mean


def test_msr_times_are_ticks_of_100_ns_and_disks_are_named_by_host_and_number(file):
    rows, reading = batches_of(file(MSR), Taking())
    assert rows == [
        ("hm.0", 0, WRITE, 7014912, 4096),
        ("hm.1", 1_332_052_600, READ, 1074696192, 512),
        ("hm.0", 2_332_061_600, READ, 2048, 24576),
    ]
    assert reading.format == "msr"


def test_spc_addresses_are_blocks_and_times_seconds_and_space_and_more_fields_are_allowed(file):
    rows, _ = batches_of(file(SPC), Taking())
    assert rows == [
        ("0", 0, WRITE, 303567 * 512, 3584),
        ("1", 0, WRITE, 55590 * 512, 3072),
        ("0", 26_214_000, READ, 303574 * 512, 3584),
    ]


def test_an_iolog_of_version_2_knows_time_from_its_waits(file):
    rows, reading = batches_of(file(IOLOG2), Taking())
    assert [row[1:] for row in rows] == [(0, WRITE, 0, 4096), (1_500_000, READ, 8192, 512), (2_000_000, FLUSH, 0, 0)]
    assert reading.left_out == {"trims": 1}


def test_an_iolog_of_version_3_has_microseconds_before_each_line(file):
    rows, _ = batches_of(file(IOLOG3), Taking())
    assert [row[1:] for row in rows] == [(0, WRITE, 0, 4096), (100_002_000, READ, 4096, 512), (100_054_000, FLUSH, 0, 0)]


def test_of_blkparse_the_queued_events_count_and_a_leading_f_is_a_flush_before(file):
    rows, reading = batches_of(file(BLKPARSE), Taking())
    assert rows == [
        ("8,0", 0, WRITE, 223490 * 512, 4096),
        ("8,0", 20_000, FLUSH, 0, 0),
        ("8,0", 20_000, WRITE, 224000 * 512, 8192),
        ("8,0", 30_000, FLUSH, 0, 0),
        ("8,16", 40_000, READ, 4096, 131072),
    ]
    assert reading.left_out == {"discards": 1}


@pytest.mark.parametrize(("gone", "name"), [(b"Q", "blkparse-D"), (b"QD", "blkparse-C")])
def test_without_queued_events_the_next_action_stands_for_an_io(file, gone, name):
    kept = b"".join(line for line in BLKPARSE.splitlines(True) if not any(b"  %c " % a in line for a in gone))
    rows, reading = batches_of(file(kept), Taking())
    assert reading.format == name
    assert [row[2:] for row in rows] == [(WRITE, 223490 * 512, 4096)]


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("packed", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_every_format_is_known_by_its_content_however_it_is_packed(file, name, packed, end):
    recorded = read(file(packed(EXAMPLES[name].replace(b"\n", end)), "no-suffix"))
    assert recorded.source_format == NAMES[name]
    assert recorded.count == read(file(EXAMPLES[name])).count


def test_zstd_frames_one_behind_the_other_are_one_trace(file):
    half = MSR.index(b"\n") + 1
    two = zstandard.compress(MSR[:half]) + zstandard.compress(MSR[half:])
    assert read(file(two)).count == 3


@pytest.mark.parametrize("cut", [5, 20, -1])
def test_a_zstd_cut_anywhere_is_refused(file, cut):
    packed = zstandard.compress(bytes(np.random.default_rng(1).integers(48, 57, 5000, np.uint8)))
    assert "zstd" in refusal(file(packed[:cut], "x.csv"))


# Refusing


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("x.csv", b"128166372026382245,hm,0,Trim,0,1,1", 'type "Trim" is not Read or Write'),
        ("x.csv", b"128166372026382245,hm,0,Read,0,1", "has 6 fields, not 7"),
        ("x.csv", b"128166372000000000,hm,0,Read,0,512,1", "is before that of the record above it"),
        ("x.csv", b"128166372026382245,hm,0,Read,0,0,1", "a read or write of 0 bytes"),
        ("x.spc", b"0,1,512,x,1.0", 'opcode "x" is not one of r, w'),
        ("x.spc", b"0,1,512,w,1e3", 'timestamp "1e3" is not seconds'),
        ("x.spc", b"0,1,512,w,0.02", "is before that of the record above it"),
        ("x.spc", b"0,9999999999999999999,512,w,1.0", "beyond"),
        ("x.log", b"/dev/sda writes 0 1", 'action "writes" is unknown to fio'),
        ("x.log", b"/dev/sda write 0", "lacks its offset or its length"),
        ("x.log", b"/dev/sda wait", "does not say how long"),
        ("x.log", b"/dev/sda wait 9223372036854775807\n/dev/sda write 0 1", "over a year"),
        ("x.iolog", b"/tmp/f write 0 1", "does not begin with a time"),
        ("x.iolog", b"200000 /tmp/f wait 5 0", '"wait" is not allowed in version 3'),
        ("x.iolog", b"5 /tmp/f write 0 1", "is before that of the record above it"),
        ("x.txt", b"8,0 0 1 nonsense", "is not an event as blkparse prints it"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number_and_its_byte(file, name, line, words):
    content = EXAMPLES[name] if name != "x.txt" else BLKPARSE[: BLKPARSE.index(b"CPU3")]
    above, count = content.count(b"\n"), read(file(content)).count
    above += line.count(b"\n")
    sentence = refusal(file(content + line + b"\n", name))
    byte = len(content) + (line.rindex(b"\n") + 1 if b"\n" in line else 0)
    assert f"line {above + 1} (record {count + 1}) at byte {byte}: " in sentence
    assert words in sentence


def test_an_address_beyond_the_stated_volume_is_refused(file):
    sentence = refusal(file(MSR), Taking(volume_bytes=1 << 30))
    assert "line 2 (record 2) at byte 46: address 1074696192, which reaches beyond" in sentence
    assert len(batches_of(file(MSR), Taking(volume_bytes=1 << 31))[0]) == 3


# Repair


def test_repair_drops_what_is_no_record_and_sorts_what_came_late_and_counts_both(file):
    lines = MSR.splitlines(True)
    late = lines[0].replace(b"2003", b"2010").replace(b"7014912", b"1")
    bad = [b"nonsense\n", lines[2].replace(b"24576", b"0")]
    rows, reading = batches_of(file(b"".join([*lines, late, *bad])), Taking(repair=True))

    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert [row[3] for row in rows] == [7014912, 1, 1074696192, 2048]
    assert reading.repaired == {"dropped, not a record": 1, "dropped, of no bytes": 1, "sorted in by time": 1}


def test_repair_drops_a_record_that_comes_later_than_what_is_held_for_sorting(file, monkeypatch):
    monkeypatch.setattr(columns, "SORTED_RECORDS", 2)
    monkeypatch.setattr("farwrite.workload.trace.source.Source.__init__.__defaults__", (1 << 40, 60))
    in_order = list(range(0, 300, 10))
    rows, reading = batches_of(file(trace_of_times([*in_order, 5, 300])), Taking(repair=True))
    assert [row[1] for row in rows] == [*in_order, 300]
    assert reading.repaired["dropped, too late to be sorted in"] == 1


def trace_of_times(times):
    return b"time_ns,operation,address,size\n" + b"".join(b"%d,w,0,512\n" % time for time in times)


@pytest.mark.parametrize("packed", [gzip.compress, zstandard.compress])
def test_repair_takes_what_comes_before_the_end_of_a_cut_file(file, packed):
    content = trace_of_times(np.cumsum(np.random.default_rng(3).integers(0, 1 << 30, 300_000)).tolist())
    whole = packed(content)
    rows, reading = batches_of(file(whole[: len(whole) // 2]), Taking(repair=True))
    assert 50_000 < len(rows) < 250_000
    assert reading.repaired["end of the packed stream lost"] == 1


def test_a_trace_of_which_nothing_can_be_kept_is_refused_even_with_repair(file):
    assert "no records that can be kept" in refusal(file(trace_of_times([0]).replace(b"512", b"0")), Taking(repair=True))


@given(times=st.lists(st.integers(0, 1000), min_size=1, max_size=60))
@SOME
def test_repair_gives_all_records_in_the_order_of_time(file, times):
    rows, _ = batches_of(file(trace_of_times(times)), Taking(repair=True))
    assert [row[1] for row in rows] == [time - min(times) for time in sorted(times)]


# Several disks


def test_several_disks_are_laid_side_by_side_in_the_order_of_their_names(file):
    assert outline(file(MSR)).begins == {"hm.0": 0, "hm.1": 7 << 20}
    assert read(file(MSR)).address.tolist() == [7014912, (7 << 20) + 1074696192, 2048]


@pytest.mark.parametrize("word", ["hm.1", "1"])
def test_one_disk_is_chosen_by_its_name_or_number(file, word):
    rows, _ = batches_of(file(MSR), Taking(disk=word))
    assert [row[0] for row in rows] == ["hm.1"]


def test_a_disk_that_is_not_there_is_refused_with_those_that_are(file):
    assert 'no disk "7" (known: hm.0, hm.1)' in refusal(file(MSR), Taking(disk="7"))
    assert "has no name" in refusal(file(trace_of_times([0])), Taking(disk="7"))


def test_disk_10_comes_after_disk_9(file):
    lines = b"".join(b"%d,0,512,w,%d.0\n" % (unit, time) for time, unit in enumerate([10, 9, 2]))
    assert list(outline(file(lines)).begins) == ["2", "9", "10"]


# Any bytes


PIECES = st.sampled_from(
    [line + b"\n" for content in EXAMPLES.values() for line in content.splitlines()]
    + [b"", b"\n", b" ", b",", b"1" * 19, b"-1", b"w", b"\0", b"\xff", b"Q", b"fio version 2 iolog\n", b"\x28\xb5\x2f\xfd", b"#"]
)


@given(
    content=st.lists(PIECES | st.binary(max_size=9)).map(b"".join)
    | st.builds(lambda whole, at, junk: whole[:at] + junk + whole[at:], st.sampled_from(list(EXAMPLES.values())),
                st.integers(0, 300), st.binary(max_size=12)),
    name=st.sampled_from([*EXAMPLES, "x.blkparse", "x"]),
    packed=st.sampled_from([bytes, gzip.compress, zstandard.compress]),
    cut=st.integers(0, 40),
    repair=st.booleans(),
)  # fmt: skip
@example(content=b"0,303567,3584,w,0.000000,\x80more\n", name="x.csv", packed=bytes, cut=0, repair=False)
@FUZZ
def test_any_bytes_are_a_trace_or_a_usage_error(file, content, name, packed, cut, repair):
    content = packed(content)
    for part in (content, content[: len(content) - cut]):
        path = file(part, name)
        try:
            found = summary.summarise(path, Taking(repair=repair))
        except UsageError as refused:
            assert str(path) in str(refused)
            continue
        assert found.records > 0 and found.duration_ns >= 0
        recorded = window(path, 0, None, outline(path, Taking(repair=repair)).begins, Taking(repair=repair))
        assert recorded.count == found.records
        assert (np.diff(recorded.time_ns) >= 0).all() and (recorded.address >= 0).all() and (recorded.size >= 0).all()


# Windows and memory


def test_a_window_holds_the_records_of_its_stretch_and_reads_no_further(file):
    path = file(trace_of_times([0, 10, 20, 30]) + b"broken\n" * 9)
    with pytest.raises(UsageError):
        window(path, 10, 30, {})
    path = file(trace_of_times([0, 10, 20, 30]))
    assert window(path, 10, 30, {}).time_ns.tolist() == [10, 20]
    assert window(path, 31, 40, {}).count == 0


def test_what_is_asked_of_a_long_trace_takes_no_more_memory_than_of_a_short_one(file, monkeypatch):
    monkeypatch.setattr("farwrite.workload.trace.source.Source.__init__.__defaults__", (1 << 40, 1 << 18))
    peaks = []
    for count in (20_000, 200_000):
        path = file(trace_of_times(range(0, count * 1000, 1000)), f"{count}.csv")
        summary.summarise(path)
        tracemalloc.start()
        summary.summarise(path)
        window(path, 1000, 2000, {})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + (1 << 20)


# The summary


def plain(rows):
    return b"time_ns,operation,address,size\n" + b"".join(b"%d,%s,%d,%d\n" % row for row in rows)


def test_a_summary_counts_what_was_asked_and_where(file):
    second = 10**9
    rows = [(0, b"w", 0, 8192), (1, b"w", 8192, 4096), (2, b"f", 0, 0), (3 * second, b"w", 0, 4096)]
    rows.append((3 * second + 5, b"r", 0, 512))
    found = summary.summarise(file(plain(rows)))
    writes, reads, flushes = found.operations

    assert (writes.count, reads.count, flushes.count) == (3, 1, 1)
    assert (writes.bytes, writes.sequential, writes.size_bytes.p50, writes.size_bytes.greatest) == (16384, 1 / 3, 4096, 8192)
    assert (found.working_set_bytes, found.write_working_set_bytes, found.overwritten) == (12288, 12288, 0.25)
    rate = found.write_bytes_per_s  # 12 KiB, nothing, nothing, 4 KiB
    assert (rate.greatest, rate.mean, rate.p50) == (12288, 4096, 0)
    assert found.write_gap_ns.greatest == 3 * second - 1
    assert [point.write_bytes_per_s for point in found.points] == [12288, 0, 0, 4096]


@given(rows=st.lists(st.tuples(st.integers(0, 3 * 10**9), st.sampled_from([b"w", b"r"]), st.integers(0, 1 << 36),
                               st.integers(1, 1 << 20)), min_size=1, max_size=50))  # fmt: skip
@SOME
def test_a_summary_agrees_with_counting_it_the_plain_way(file, rows):
    rows = [(0, *rows[0][1:]), *sorted(rows[1:])]
    found = summary.summarise(file(plain(rows)))

    def blocks(kinds):
        return [block for _, kind, at, size in rows if kind in kinds for block in range(at // 4096, (at + size - 1) // 4096 + 1)]

    written = blocks([b"w"])
    per_second = [sum(row[3] for row in rows if row[1] == b"w" and row[0] // 10**9 == s) for s in range(rows[-1][0] // 10**9 + 1)]
    assert found.working_set_bytes == 4096 * len(set(blocks([b"w", b"r"])))
    assert found.write_working_set_bytes == 4096 * len(set(written))
    assert found.overwritten == (pytest.approx(1 - len(set(written)) / len(written)) if written else None)
    assert found.write_bytes_per_s.greatest == max(per_second)
    assert found.write_bytes_per_s.mean == pytest.approx(np.mean(per_second))
    assert found.writes_per_s.mean == pytest.approx(sum(row[1] == b"w" for row in rows) / len(per_second))
    points = sum(point.write_bytes_per_s for point in found.points)
    assert points == pytest.approx(sum(per_second))


def test_poisson_arrivals_have_a_dispersion_and_a_variation_of_one(file):
    gaps = np.random.default_rng(5).exponential(10**9 / 200, 60_000)
    found = summary.summarise(file(trace_of_times(np.cumsum(gaps).astype(np.int64).tolist())))
    assert found.dispersion == pytest.approx(1, abs=0.3)
    assert found.gap_variation == pytest.approx(1, abs=0.03)


def test_a_trace_of_months_is_drawn_with_as_many_points_as_one_of_minutes(file):
    found = summary.summarise(file(trace_of_times([0, 10**9, 90 * 86400 * 10**9])))
    assert 2 < len(found.points) <= summary.POINTS_MAX
    assert sum(point.write_bytes_per_s for point in found.points) * found.points[1].begin_s == pytest.approx(3 * 512)


# Converting


@pytest.mark.parametrize("name", ["o.csv", "o.csv.gz", "o.csv.zst", "o.iolog"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_what_is_converted_reads_like_what_it_was_made_from(file, tmp_path, name, example):
    path, out = file(EXAMPLES[example]), tmp_path / name
    convert.convert(path, out, Change())
    was, now = read(path), read(out)
    grain = 1000 if name == "o.iolog" else 1
    assert [(t // grain, *rest) for t, *rest in rows_of(was)] == [(t // grain, *rest) for t, *rest in rows_of(now)]


def test_a_stretch_is_cut_out_scaled_and_folded(file, tmp_path):
    rows = [(0, b"w", 0, 512), (100, b"w", 5000 * 512, 1024), (200, b"f", 0, 0), (301, b"r", 1023 * 512, 1024), (400, b"w", 0, 1)]
    out = tmp_path / "o.csv"
    made = convert.convert(file(plain(rows)), out, Change(begin_ns=100, end_ns=400, time_scale=0.5, fold_bytes=1024 * 512))
    assert rows_of(read(out)) == [(0, WRITE, 904 * 512, 1024), (50, FLUSH, 0, 0), (100, READ, 1022 * 512, 1024)]
    assert (made.records, made.folded) == (3, 2)


@given(rows=st.lists(st.tuples(st.integers(0, 1 << 59), st.integers(1, 1 << 16)), min_size=1, max_size=40),
       volume=st.integers(1 << 16, 1 << 40))  # fmt: skip
@SOME
def test_what_is_folded_lies_within_the_volume(file, tmp_path, rows, volume):
    convert.convert(file(plain([(0, b"w", *row) for row in rows])), tmp_path / "o.csv", Change(fold_bytes=volume))
    recorded = read(tmp_path / "o.csv")
    assert (recorded.address + recorded.size).max() <= volume
    assert recorded.size.tolist() == [size for _, size in rows]


def test_nothing_is_left_of_a_conversion_that_fails(file, tmp_path):
    path = file(trace_of_times([0, 10]) + b"broken\n")
    for out in ("o.csv", "o.csv.gz", "o.csv.zst", "o.iolog"):
        with pytest.raises(UsageError):
            convert.convert(path, tmp_path / out, Change())
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("name", "words"), [("o.txt", "Name it so"), ("o", "Name it so"), ("o.iolog.gz", "no packed log")])
def test_a_format_we_do_not_write_is_refused(file, tmp_path, name, words):
    with pytest.raises(UsageError, match=words):
        convert.convert(file(MSR), tmp_path / name, Change())


def test_fio_replays_what_was_converted_for_it(file, tmp_path):
    if not shutil.which("fio"):
        pytest.skip("fio is not installed")
    rows = [(0, b"w", 0, 4096), (1_000_000, b"w", 8192, 4096), (2_000_000, b"f", 0, 0), (100_000_000, b"r", 0, 4096)]
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 16))
    convert.convert(file(plain(rows)), tmp_path / "o.iolog", Change(file_name=str(disk)))
    command = ["fio", "--name=replay", f"--read_iolog={tmp_path / 'o.iolog'}", "--ioengine=sync", "--thread=1"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    if "version 3 iolog" in said.stderr or "iolog version 1" in said.stderr:
        pytest.skip("this fio does not know version 3 of its logs")
    assert said.returncode == 0, said.stderr
    assert "issued rwts: total=1,2,0,1" in said.stdout


# Traces without a header, read when they are named


ALIBABA = b"""\
3,R,126703644672,4096,1577808000000046
87,W,8192,16384,1577808000000112
3,W,0,512,1577808001000000
"""
TENCENT = b"""\
1538323200,12910952,128,0,1063
1538323200,6338688,8,1,1081
1538323202,0,1,1,1063
"""


def test_alibabas_times_are_microseconds_and_its_devices_disks(file):
    rows, reading = batches_of(file(ALIBABA), Taking(format="alibaba"))
    assert rows == [
        ("3", 0, READ, 126703644672, 4096), ("87", 66_000, WRITE, 8192, 16384), ("3", 999_954_000, WRITE, 0, 512),
    ]  # fmt: skip
    assert reading.format == "alibaba"


def test_tencents_0_is_a_read_its_sectors_512_bytes_and_its_times_seconds(file):
    rows, reading = batches_of(file(TENCENT), Taking(format="tencent"))
    assert rows == [
        ("1063", 0, READ, 12910952 * 512, 65536), ("1081", 0, WRITE, 6338688 * 512, 4096), ("1063", 2 * 10**9, WRITE, 0, 512),
    ]  # fmt: skip
    assert reading.format == "tencent"


@pytest.mark.parametrize(("content", "name"), [(ALIBABA, "alibaba"), (TENCENT, "tencent")])
def test_lines_of_bare_numbers_are_read_only_when_named_and_the_word_is_told(file, content, name):
    assert f"--format {name}" in refusal(file(content))
    assert "line 1 (record 1)" in refusal(file(content), Taking(format="tencent" if name == "alibaba" else "alibaba"))
    assert "line 4 (record 4)" in refusal(file(content + b"nonsense\n"), Taking(format=name))
    assert "at byte" in refusal(file(content + content), Taking(format=name))  # Its times fall.
    _, mended = batches_of(file(content + b"nonsense\n"), Taking(format=name, repair=True))
    assert mended.repaired == {"dropped, not a record": 1}
    assert whole_sizes(file(gzip.compress(content)), name) == whole_sizes(file(content), name)


def whole_sizes(path, name):
    return [row[-1] for row in batches_of(path, Taking(format=name))[0]]


def test_numbers_beyond_any_disk_are_refused_as_bytes_and_do_not_wrap(file):
    for line in (b"1,9223372036854775807,8,1,1\n", b"1,0,36028797018963968,1,1\n", b"1,36028797018963968,8,1,1\n"):
        sentence = refusal(file(line), Taking(format="tencent"))
        assert "Correct" in sentence or "Split" in sentence


def test_a_format_that_does_not_exist_is_answered_with_those_that_do(file):
    with pytest.raises(UsageError, match=r'there is no "alibab" .did you mean "alibaba"'):
        batches_of(file(ALIBABA), Taking(format="alibab"))


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("version", [7, 8])
def test_what_blktrace_records_is_answered_with_the_command_that_makes_text_of_it(file, order, version):
    record = (0x65617400 | version).to_bytes(4, order) + bytes(44)
    sentence = refusal(file(record, "sda.blktrace.0"))
    assert "blkparse -i " in sentence and "sda -o sda.txt" in sentence
    sentence = refusal(file(record, "x y.bin"))
    assert "blkparse -i - < '" in sentence and "> 'x y.bin.txt'" in sentence


@FUZZ
@given(st.binary(max_size=200), st.sampled_from(["alibaba", "tencent"]), st.booleans())
@example(b"1,2,3,1,1\n" * 3, "tencent", False)
def test_no_bytes_bring_a_named_reader_down(file, content, name, repair):
    with Contained():
        batches_of(file(content), Taking(format=name, repair=repair))


class Contained:
    """Lets a UsageError pass, and nothing else."""

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        return kind is not None and issubclass(kind, UsageError)


def test_the_share_of_reads_is_of_reads_and_writes(file):
    assert outline(file(TENCENT), Taking(format="tencent")).read_share == pytest.approx(1 / 3)
    assert summary.summarise(file(ALIBABA), Taking(format="alibaba")).read_share == pytest.approx(1 / 3)
    assert outline(file(b"time_ns,operation,address,size\n0,f,0,0\n")).read_share is None


# A trace as a run


def test_a_trace_replays_itself_with_a_title_of_its_own_and_a_volume_that_holds_it(file):
    from farwrite.experiment.cells import cells_of
    from farwrite.workload.trace.replay import profile_of

    lines = [b"%d,%s,%d,4096,%d" % (5, b"RW"[i % 4 > 0 : (i % 4 > 0) + 1], (i * 8192) % (1 << 25), i * 1000) for i in range(8000)]
    path = file(b"\n".join(lines) + b"\n", "my volume.csv.gz")
    profile, notes = profile_of(str(path), "alibaba")
    assert profile.title == "Trace my volume.csv.gz, replayed" and profile.cell[0].name == "my-volume"
    assert (1 << 25) <= profile.lab.volume_bytes <= (1 << 25) + (2 << 20)
    assert profile.run.round_ns == 2 * 10**9 and any("25.0% of reads and writes are reads" in note for note in notes)
    cells = cells_of(profile)
    assert {cell.arrival for cell in cells} == {"trace"} and all("25.0% of reads" in cell.note for cell in cells)
    assert profile_of("pgbench", "")[0].cell[0].trace == "pgbench"  # By its name, which another machine knows, too.
    changed, _ = profile_of(str(path), "alibaba", ["distance.miles=[7]", 'run.round="300 ms"'])
    assert (changed.distance.miles, changed.run.round_ns) == ([7.0], 300_000_000)


def test_each_round_of_a_named_trace_is_a_window_of_it(file):
    from dataclasses import replace

    from farwrite.targets.replicated import Order, TraceWindow, plan_and_bounds

    path = file(b"".join(b"1,W,%d,4096,%d\n" % (i * 4096, i * 1_000_000) for i in range(100)), "t.csv")
    order = Order(
        protocol="C", volume=1, epoch=1, seed=1, load=None,
        write_count_max=0, queue_depth=1024, duration_ns=5 * 10**9, slice_ns=10**9, slice_count=5, peer_timeout_ns=10**9,
        trace=TraceWindow(str(path), 10 * 10**9, format="alibaba"),
    )  # fmt: skip
    for begin in (10, 50):
        of_begin = replace(order, trace=TraceWindow(str(path), begin * 10**9, format="alibaba"))
        plan, _ = plan_and_bounds(of_begin, 1 << 30)
        assert plan.address.tolist() == [i * 4096 for i in range(begin, begin + 5)]


def test_a_slow_trace_gets_longer_rounds_and_one_without_a_write_is_refused(file):
    from farwrite.workload.trace.replay import profile_of

    slow = file(b"".join(b"%d,%d,8,1,1\n" % (i, i * 8) for i in range(600)), "slow.csv")
    assert profile_of(str(slow), "tencent")[0].run.round_ns == 60 * 10**9
    with pytest.raises(UsageError, match="no write"):
        profile_of(str(file(b"1,0,8,0,1\n", "reads.csv")), "tencent")
