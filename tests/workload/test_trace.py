"""Recorded I/O is read exactly, and whatever is wrong with it is said with the file, the place and what to do."""

import errno
import gzip
import importlib.util
import os
import re
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farwrite.base.errors import UsageError
from farwrite.base.files import workloads_directory
from farwrite.workload.trace import reader, source
from farwrite.workload.trace.trace import FLUSH, READ, WRITE, find

REPOSITORY = Path(__file__).resolve().parents[2]
RECORDED = Path(os.environ.get("FARWRITE_TRACES", REPOSITORY / "../shared/data")) / "cloudphysics-vm.vscsi.gz"

HEADER = "time_ns,operation,address,size\n"
LETTER = {WRITE: "w", READ: "r", FLUSH: "f"}
COMMAND = {WRITE: 0x2A, READ: 0x28, FLUSH: 0x35}
V1 = struct.Struct("<IIIHHQQ")  # serial, length, scatter-gather, command, version, block, time in us
V2 = struct.Struct("<HHIIIQQQ")  # command, version, serial, length, scatter-gather, block, time in us, response


def v1(time_us=0, command=0x2A, block=0, length=512, version=0x100):
    return V1.pack(0x80000001, length, 1, command, version, block, time_us)


def v2(time_us=0, command=0x2A, block=0, length=512, version=0x200):
    return V2.pack(command, version, 7, length, 1, block, time_us, 250)


def rows_of(recorded):
    columns = (recorded.time_ns, recorded.operation, recorded.address, recorded.size)
    return [tuple(int(value) for value in row) for row in zip(*columns, strict=True)]


@pytest.fixture
def file(tmp_path):
    def write(content, name="x.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def refusal(path):
    """The sentence with which reading is refused; it always names the file and advises something."""
    with pytest.raises(UsageError) as refused:
        reader.read(path)
    sentence = str(refused.value)
    assert str(path) in sentence
    assert re.search(r"[.?] ", sentence) or sentence.endswith((".", "?"))
    return sentence


def records():
    """Any valid trace as rows, first time 0."""
    write_or_read = st.tuples(
        st.integers(0, 10**9), st.sampled_from([WRITE, READ]), st.integers(0, 2**50), st.integers(1, 2**17)
    )
    flush = st.tuples(st.integers(0, 10**9), st.just(FLUSH), st.just(0), st.just(0))

    def in_order(rows):
        gaps = np.cumsum([0, *(row[0] for row in rows[1:])]).tolist()
        return [(time_us, *row[1:]) for time_us, row in zip(gaps, rows, strict=True)]

    return st.lists(write_or_read | flush, min_size=1, max_size=40).map(in_order)


# Reading


@given(
    rows=records(),
    comment=st.sampled_from(["", "# one\n#two\n"]),
    packed=st.booleans(),
    end=st.sampled_from(["", "\n"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_csv_trace_is_read_as_it_was_written(file, rows, comment, packed, end):
    lines = [f"{time_ns},{LETTER[operation]},{address},{size}" for time_ns, operation, address, size in rows]
    text = (comment + HEADER + "\n".join(lines) + end).encode()
    recorded = reader.read(file(gzip.compress(text) if packed else text))

    assert rows_of(recorded) == rows
    assert recorded.source_format == "csv"
    assert recorded.name == "x"


@given(rows=records(), packed=st.booleans(), version=st.sampled_from([1, 2]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_vscsi_trace_of_either_version_is_read_as_it_was_written(file, rows, packed, version):
    record = {1: v1, 2: v2}[version]
    content = b"".join(
        record(5_000 + time_us, COMMAND[operation], address // 512, size) for time_us, operation, address, size in rows
    )
    recorded = reader.read(file(gzip.compress(content) if packed else content, "disk.vscsi"))

    assert rows_of(recorded) == [(t * 1000, operation, a // 512 * 512, size) for t, operation, a, size in rows]
    assert recorded.source_format == f"vscsi-{version}"


def test_the_columns_have_the_types_that_kernels_ask_for(file):
    for recorded in (reader.read(file(HEADER + "0,w,0,1\n")), reader.read(file(v1()))):
        columns = (recorded.time_ns, recorded.operation, recorded.address, recorded.size)
        assert [column.dtype for column in columns] == [np.int64, np.int8, np.int64, np.int32]
        assert all(column.flags.c_contiguous and column.flags.writeable for column in columns)


def test_times_count_from_the_first_record_even_when_they_were_written_since_1970(file):
    recorded = reader.read(file(HEADER + "1795374501530231975,w,4096,512\n1795374501530232975,f,0,0\n"))
    assert recorded.time_ns.tolist() == [0, 1000]
    assert (recorded.count, recorded.duration_ns) == (2, 1000)


def test_the_content_and_not_the_suffix_decides_the_format(file):
    assert reader.read(file(v1() + v1(9), "x.csv")).source_format == "vscsi-1"
    assert reader.read(file(HEADER + "0,w,0,1", "x.vscsi")).source_format == "csv"
    assert reader.read(file(gzip.compress(v2()), "no-suffix")).source_format == "vscsi-2"


def test_lines_may_end_as_on_windows(file):
    recorded = reader.read(file((HEADER + "0,w,0,1\n7,f,0,0\n").replace("\n", "\r\n")))
    assert rows_of(recorded) == [(0, WRITE, 0, 1), (7, FLUSH, 0, 0)]


def test_reading_and_writing_commands_of_all_lengths_are_known_and_a_flush_loses_its_range(file):
    commands = [0x0A, 0x2A, 0xAA, 0x8A, 0x08, 0x28, 0xA8, 0x88, 0x35, 0x91]
    content = b"".join(v1(0, command, 3, 1024) for command in commands)
    rows = rows_of(reader.read(file(content)))
    assert rows == [(0, WRITE, 1536, 1024)] * 4 + [(0, READ, 1536, 1024)] * 4 + [(0, FLUSH, 0, 0)] * 2


@pytest.mark.parametrize("block_bytes", [48, 61, 100, 1 << 20])
def test_a_file_read_in_any_blocks_is_the_same_file(file, monkeypatch, block_bytes):
    rows = [(i * 1000, WRITE, i * 8192, 8192) for i in range(100)]
    text = "# c\n" + HEADER + "".join(f"{t},w,{a},{size}\n" for t, _, a, size in rows)
    binary = b"".join(v1(t // 1000, block=a // 512, length=size) for t, _, a, size in rows)
    monkeypatch.setattr(source.Source.__init__, "__defaults__", (source.BYTES_MAX, block_bytes))

    assert rows_of(reader.read(file(text))) == rows
    assert rows_of(reader.read(file(binary, "x.vscsi"))) == rows
    assert "line 103 (record 101)" in refusal(file(text + "x\n"))
    assert "record 101 at byte 3200" in refusal(file(binary + b"x"))


# Refusing


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("5,x,0,1", 'operation "x" is not one of w, r, f'),
        ("5,write,0,1", 'operation "write" is not one of w, r, f'),
        ("5,,0,1", 'operation "" is not'),
        ("5,w,0,-1", 'size "-1" is not a whole number of at least 0'),
        ("5,w,0,1.5", 'size "1.5" is not a whole number'),
        ("5,w, 0,1", 'address " 0" is not a whole number'),
        ("5,w,0x10,1", 'address "0x10" is not a whole number'),
        ("12345678901234567890,w,0,1", "is not a whole number of at least 0 with at most 19 digits"),
        ("5,w,0", "has 3 fields, not 4"),
        ("5,w,0,1,", "has 5 fields, not 4"),
        ("", "has 1 fields, not 4"),
        ("# later", "a comment below the header. Move it above"),
        ("5,w,0,0", "a read or write of 0 bytes. Remove it."),
        ("5,f,0,8", "a flush with a size of 8 bytes"),
        ("5,f,8,0", "a flush with the address 8"),
        ("5,w,0,67108865", "a size of 67108865 bytes, more than 67108864"),
        ("5,w,9999999999999999999,1", "address 9999999999999999999, beyond"),
        ("2,w,0,1", "time 2 is before that of the record above it. Sort"),
        ("9999999999999999999,w,0,1", "over a year after the first record"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number_and_what_is_wrong(file, line, words):
    sentence = refusal(file("# c\n" + HEADER + "3,w,0,512\n4,r,0,512\n" + line + "\n9,w,0,1\n"))
    assert "line 5 (record 3)" in sentence
    assert words in sentence


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (v1(5, command=0x12), "SCSI command 0x12 is no read, write or flush"),
        (v1(5, version=0x300), "version 3 in a trace of version 1"),
        (v1(5, length=0), "a read or write of 0 bytes"),
        (v1(5, length=0xFFFFFFFF), "a size of 4294967295 bytes"),
        (v1(5, block=2**63), "beyond"),
        (v1(2), "time 2 is before"),
        (v1(2**64 - 1), "over a year after"),
        (v1(5)[:31], "31 bytes instead of 32"),
    ],
)
def test_a_wrong_vscsi_record_is_refused_with_its_number_and_byte(file, record, words):
    sentence = refusal(file(v1(3) + v1(4) + record, "x.vscsi"))
    assert "record 3 at byte 64" in sentence
    assert words in sentence


@pytest.mark.parametrize("name", ["x.csv", "x.vscsi", "x.vscsi.gz", "x"])
@pytest.mark.parametrize("content", [b"\0" * 64, b"hello, world\n" * 9, b"\xff" * 33, b"1,w,0,1\n", b"PK\x03\x04"])
def test_a_file_of_another_format_is_refused_at_its_beginning(file, name, content):
    assert re.search(r"line 1: |record 1 at byte 0", refusal(file(content, name)))


def test_a_vscsi_trace_of_a_later_version_is_refused(file):
    assert "version 1 or 2" in refusal(file(v1(version=0x300) * 3, "x.vscsi"))


@pytest.mark.parametrize("content", [b"", gzip.compress(b"", mtime=0)])
def test_an_empty_file_is_refused_as_empty(file, content):
    assert "the file is empty" in refusal(file(content))


@pytest.mark.parametrize("content", [HEADER, "# c\n" + HEADER, HEADER.strip()])
def test_a_header_without_records_is_refused(file, content):
    assert "holds no records" in refusal(file(content))


def test_comments_without_a_header_are_refused(file):
    assert "line 2: the header" in refusal(file("# only this\n"))
    assert 'line 2: "0,w,0,1" where the header' in refusal(file("# c\n0,w,0,1\n"))


def test_a_file_without_line_ends_is_refused_early(file):
    assert "a line of over 4096 bytes" in refusal(file("#" + "x" * 5000))


@pytest.mark.parametrize("cut", [3, 12, 40, -9, -1])
def test_a_gzip_cut_anywhere_is_refused(file, cut):
    packed = gzip.compress(HEADER.encode() + b"".join(b"%d,w,%d,512\n" % (i, i * 7919 % 1009) for i in range(1000)))
    assert "gzip" in refusal(file(packed[:cut], "x.csv.gz"))


def test_a_damaged_gzip_is_refused(file):
    packed = bytearray(gzip.compress(HEADER.encode() + b"1,w,0,1\n" * 1000))
    packed[-6] ^= 1
    assert "not valid gzip" in refusal(file(bytes(packed), "x.csv.gz"))


def test_a_gzip_that_unpacks_to_more_than_the_bound_is_refused(file):
    path = file(gzip.compress(b"#" + b"\n#" * 100_000))
    with pytest.raises(UsageError, match=r"more than 5000 bytes unpacked"), source.Source(path, 5000, 1000) as opened:
        list(opened.blocks())


def test_more_records_than_the_bound_are_refused(file, monkeypatch):
    monkeypatch.setattr(reader, "RECORDS_MAX", 3)
    assert reader.read(file(v1() * 3)).count == 3
    assert "more than 3 records" in refusal(file(v1() * 4))


def test_what_is_no_readable_file_is_refused(tmp_path, file):
    assert "a directory" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "absent.csv")
    assert "null" in refusal("a\0b.csv")
    os.mkfifo(tmp_path / "pipe")
    assert "this is a pipe" in refusal(tmp_path / "pipe")


def test_a_file_we_may_not_read_is_refused(file, monkeypatch):
    def denied(*_, **__):  # Not chmod: root, as which labs often run, reads every file.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    path = file(HEADER)
    monkeypatch.setattr(os, "open", denied)
    assert "Permission denied" in refusal(path)


def reads_or_is_refused(path):
    try:
        recorded = reader.read(path)
    except UsageError as refused:
        assert str(path) in str(refused)
        return
    assert recorded.count > 0 and recorded.duration_ns >= 0 and (recorded.address >= 0).all()
    assert (np.diff(recorded.time_ns) >= 0).all() and (recorded.size >= 0).all() and (recorded.address >= 0).all()
    assert np.isin(recorded.operation, (WRITE, READ, FLUSH)).all()


CSV_PIECES = st.sampled_from(
    [HEADER, "0,w,0,1\n", "9,f,0,0\n", "#", "\n", "\r\n", ",", "w", "f", "1" * 19, "-1", "0", " ", "e", "é", "\0"]
)
VSCSI_PIECES = st.sampled_from(
    [v1(), v1(7), v2(), v2(7), v1(2**64 - 1), v1(block=2**64 - 1), v1(command=0), b"\x1f\x8b", b"\0"]
)


@given(
    content=st.binary(max_size=200)
    | st.lists(CSV_PIECES).map(lambda parts: (HEADER + "".join(parts)).encode())
    | st.lists(CSV_PIECES).map(lambda parts: "".join(parts).encode())
    | st.lists(VSCSI_PIECES | st.binary(max_size=9)).map(b"".join)
    | st.lists(st.binary(min_size=32, max_size=32)).map(lambda parts: v1() + v1() + b"".join(parts)),
    name=st.sampled_from(["x.csv", "x.vscsi", "x.csv.gz", "x"]),
    packed=st.booleans(),
    cut=st.integers(0, 40),
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_a_trace_or_a_usage_error(file, content, name, packed, cut):
    content = gzip.compress(content) if packed else content
    reads_or_is_refused(file(content, name))
    reads_or_is_refused(file(content[: len(content) - cut], name))


# Finding


def test_a_bare_name_is_a_shipped_trace_and_a_path_is_itself():
    assert find("pgbench") == workloads_directory() / "traces" / "pgbench.csv.gz"
    for path in ("./pgbench", "folder/pgbench", "pgbench.csv", "/a/b.vscsi.gz"):
        assert find(path) == Path(path)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r'did you mean "pgbench"'):
        find("pgbnech")
    with pytest.raises(UsageError, match=r"known: .*pgbench"):
        find("zzz")


# The recorded files


def test_the_recorded_vmware_disk_is_read_whole():
    if not RECORDED.exists():
        pytest.skip(f"{RECORDED.name} is not there; FARWRITE_TRACES may name its folder")
    recorded = reader.read(RECORDED)
    assert (recorded.name, recorded.source_format) == ("cloudphysics-vm", "vscsi-1")
    assert recorded.count == 113_872
    assert (recorded.operation == WRITE).sum() == 66_898
    assert (recorded.size.min(), recorded.size.max()) == (512, 69_632)
    assert recorded.duration_ns == 7_200_089_885_000


def test_the_shipped_database_trace_is_small_and_its_log_writes_are_flushed():
    path = find("pgbench")
    assert path.stat().st_size <= 1_000_000
    recorded = reader.read(path)

    is_write, is_flush = recorded.operation == WRITE, recorded.operation == FLUSH
    assert recorded.count >= 20_000 and is_write.sum() + is_flush.sum() == recorded.count
    assert 59e9 < recorded.duration_ns <= 60e9
    assert (recorded.address + recorded.size).max() < 1 << 30
    assert (is_write[:-1] & is_flush[1:]).sum() > 0.95 * is_flush.sum()  # A commit: its log is written, then flushed.
    assert is_write.sum() > 1.2 * is_flush.sum()  # And the checkpoint writes pages, many to a flush.


def test_the_shipped_trace_is_packed_without_a_name_or_a_time():
    header = find("pgbench").read_bytes()[:10]
    assert header[3] == 0 and header[4:8] == b"\0\0\0\0"


def test_a_large_csv_trace_is_read_in_less_than_a_second(file):
    path = file(HEADER + "".join(f"{i * 1000},w,{i * 7919 % 100_003 * 4096},4096\n" for i in range(200_000)))
    took_s = []
    for _ in range(3):
        begin_s = time.perf_counter()
        assert reader.read(path).count == 200_000
        took_s.append(time.perf_counter() - begin_s)
    assert min(took_s) < 1


# How the shipped trace was made


def converter():
    spec = importlib.util.spec_from_file_location("strace_to_csv", workloads_directory() / "strace_to_csv.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STRACE = """\
7 1.000000000 pwritev(5</c/pg_wal/xlogtemp.7>, [...], 32, 0) = 262144
7 1.100000000 rename("pg_wal/xlogtemp.7", "pg_wal/01") = 0
7 2.000000900 pwrite64(5</c/pg_wal/01>, ""..., 8192, 16384 <unfinished ...>
8 2.000005000 pwrite64(6</c/base/5/123>, ""..., 8192, 8192) = 8192
7 2.000007000 <... pwrite64 resumed>) = 8192
7 2.000009000 fdatasync(5</c/pg_wal/01>) = 0
8 2.100000000 rename("pg_wal/01", "pg_wal/02") = 0
7 2.200000000 write(3</c/global/pg_control>, ""..., 8192) = 8192
7 2.300000000 pwrite64(5</c/pg_wal/02>, ""..., 8192, 0) = 8192
7 2.400000000 pwrite64(5</c/pg_wal/xlogtemp.7>, ""..., 8192, 0) = -1 ENOSPC (No space left on device)
7 2.500000000 pwrite64(5</c/pg_wal/xlogtemp.7>, ""..., 8192, 0) = 8192
7 2.600000000 write(9<socket:[77]>, ""..., 60) = 60
7 2.700000000 write(9</c/pg_stat_tmp/x>, ""..., 60) = 60
7 9.000000000 fdatasync(5</c/pg_wal/02>) = 0
8 9.000000000 +++ exited with 0 +++
"""


def test_a_recycled_log_segment_keeps_its_address_and_a_new_file_gets_its_own():
    kept, counts = (made := converter()).records(STRACE.splitlines(), "/c", 2 * 10**9, 9 * 10**9)
    rows, volume_bytes = made.on_one_volume(kept)
    assert rows == [
        "0,w,16384,8192",
        f"4000,w,{(1 << 20) + 8192},8192",
        "8000,f,0,0",
        f"199999000,w,{2 << 20},8192",
        "299999000,w,0,8192",
        f"499999000,w,{3 << 20},8192",
    ]
    assert volume_bytes == 4 << 20
    assert counts["left out, failed: pwrite64 pg_wal"] == 1
