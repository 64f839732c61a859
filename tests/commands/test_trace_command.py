"""`farwrite trace` as a person meets it: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json

import pytest

from console import farwrite, fresh_farwrite
from farwrite.workload.trace.reader import read

REFUSED = 2
HEADER = "time_ns,operation,address,size\n"
TRACE = HEADER + "0,w,0,4096\n1500000000,r,1048576,4096\n2500000000,w,4096,4096\n2600000000,f,0,0\n"
MSR = "128166372003061629,hm,0,Write,7014912,4096,26\n128166372016382155,hm,1,Read,1074696192,512,113\n"


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(TRACE)
    return file


def assert_refused(done, *said):
    assert done.returncode == REFUSED, done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    for words in said:
        assert words in done.stderr


def test_info_says_what_is_asked_and_draws_what_is_written(path):
    done = fresh_farwrite("trace", "info", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("mine: 4 records over 2.60 s, csv\n")
    for words in ("50.0%", "write size", "write gap", "working set in 4 KiB blocks: 12 KiB, written 8 KiB", "seconds"):
        assert words in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_info_knows_the_shipped_trace_by_its_name_and_prints_a_document():
    found = json.loads(farwrite("trace", "info", "pgbench", "--json").stdout)
    assert (found["records"], found["format"], found["repaired"]) == (64_429, "csv", {})
    assert [item["count"] for item in found["operations"]] == [41_378, 0, 23_051]


def test_info_names_the_disks_and_looks_at_one(tmp_path):
    (tmp_path / "hm.msr").write_text(MSR)
    both = farwrite("trace", "info", tmp_path / "hm.msr").stdout
    assert "2 disks" in both and "hm.0" in both and "hm.1" in both
    one = farwrite("trace", "info", tmp_path / "hm.msr", "--disk", "1").stdout
    assert "Of the trace's disks only 1 was looked at." in one and "1 records" in one
    assert_refused(farwrite("trace", "info", tmp_path / "hm.msr", "--disk", "9"), 'no disk "9"', "known: hm.0, hm.1")


def test_what_is_wrong_is_refused_with_its_place_and_repaired_when_told(tmp_path):
    (tmp_path / "bad.csv").write_text(TRACE + "9,w,0,1\nnonsense\n")
    assert_refused(farwrite("trace", "info", tmp_path / "bad.csv"), "line 7 (record 6) at byte")
    done = farwrite("trace", "info", tmp_path / "bad.csv", "--repair")
    assert "dropped, not a record: 1" in done.stdout and "sorted in by time: 1" in done.stdout


def test_convert_cuts_stretches_and_folds(path, tmp_path):
    out = tmp_path / "part.csv.zst"
    done = farwrite("trace", "convert", path, out, "--from", "1", "--to", "2.6 s", "--scale", "2", "--fold", "64 KiB")
    assert (done.returncode, done.stdout) == (0, "")
    said = ["2 records over 3.00 s", "50.0% of reads and writes are reads"]
    said.append("1 folded into 64 KiB: more overwrites than were recorded")
    assert done.stderr.splitlines() == [f"saved: {out}", *(f"  {line}" for line in said)]
    made = read(out)
    assert (made.time_ns.tolist(), made.address.tolist()) == ([0, 2 * 10**9], [0, 4096])


def test_convert_says_where_several_disks_went(tmp_path):
    (tmp_path / "hm.msr").write_text(MSR)
    done = farwrite("trace", "convert", tmp_path / "hm.msr", tmp_path / "o.iolog", "--fio-file", "/dev/null")
    assert "2 disks side by side: hm.0, hm.1" in done.stderr
    assert (tmp_path / "o.iolog").read_text().splitlines() == [
        "fio version 3 iolog", "0 /dev/null add", "0 /dev/null open", "0 /dev/null write 7014912 4096",
        "1332052 /dev/null read 1082036224 512", "1332052 /dev/null close",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "2", "--to", "1"], "--to"),
        (["--from", "-1"], "--from"),
        (["--from", "5 min"], "no record lies in that stretch"),
        (["--from", "5 parsecs"], "parsecs"),
        (["--fold", "1 KiB"], "does not fit"),
        (["--fold", "0 B"], "--fold"),
        (["--volume", "4 KiB"], "beyond the volume of 4096 bytes"),
        (["--scale", "0"], "--scale"),
        (["--fio-file", "a b"], "--fio-file"),
    ],
)
def test_words_that_cannot_be_are_refused_and_nothing_is_written(path, tmp_path, words, said):
    assert_refused(farwrite("trace", "convert", path, tmp_path / "o.csv", *words), said)
    assert not (tmp_path / "o.csv").exists()


def test_convert_does_not_overwrite_what_it_reads(path):
    assert_refused(farwrite("trace", "convert", path, path), "is the trace itself")
    assert path.read_text() == TRACE


TENCENT = "1538323200,16,8,0,7\n1538323200,32,8,1,7\n1538323201,48,8,1,7\n1538323201,48,8,1,7\n"


def test_a_trace_without_a_header_is_read_when_it_is_named_and_every_command_says_the_share_of_reads(tmp_path):
    trace_path, out = tmp_path / "t.csv", tmp_path / "o.csv"
    trace_path.write_text(TENCENT)
    assert_refused(farwrite("trace", "info", trace_path), "--format tencent")
    done = farwrite("trace", "info", trace_path, "--format", "tencent")
    assert done.returncode == 0 and "25.0% of reads and writes are reads" in done.stdout
    assert json.loads(farwrite("trace", "info", trace_path, "--format", "tencent", "--json").stdout)["read_share"] == 0.25
    done = farwrite("trace", "convert", trace_path, out, "--format", "tencent")
    assert "25.0% of reads and writes are reads" in done.stderr
    lines = ["0,r,8192,4096", "0,w,16384,4096", "1000000000,w,24576,4096", "1000000000,w,24576,4096"]
    assert out.read_text().splitlines()[2:] == lines
    assert "neither reads nor writes" not in done.stderr


def test_run_refuses_words_about_traces_that_contradict_each_other(path, tmp_path):
    assert_refused(farwrite("run", "limits", "--trace", path), "another workload")
    assert_refused(farwrite("run", "--format", "tencent"), "goes with --trace")
    assert_refused(farwrite("run", "--trace", tmp_path / "none.csv"), "No such file")
    assert_refused(farwrite("run", "--trace", path, "--format", "tencen"), 'did you mean "tencent"')
    assert_refused(farwrite("run", "--trace", "pgbenhc"), 'did you mean "pgbench"')
