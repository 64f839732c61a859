"""What commands do to the file that they are told to write: replaced whole, or left alone where it is no ordinary file."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from console import ROOT, environment, farwrite, words_of
from farwrite.base.errors import UsageError
from farwrite.base.files import descriptor_of, write_atomically

REPORT = ROOT / "results" / "baselines" / "limits.json"
FIO = ROOT / "tests" / "compare" / "foreign" / "fio_json.json"
TRACE = ROOT / "workloads" / "traces" / "pgbench.csv.gz"
BUDGETS = ROOT / "results" / "budgets.toml"
WRITERS = {
    "export-hlog": lambda out: ["export", REPORT, "--cell", "write-C-20", "--hlog", out],
    "export-hgrm": lambda out: ["export", REPORT, "--cell", "write-C-20", "--hgrm", out],
    "import": lambda out: ["import", FIO, "--out", out],
    "html": lambda out: ["html", REPORT, "--out", out],
    "gate-junit": lambda out: ["gate", REPORT, "--budgets", BUDGETS, "--junit", out],
    "gate-markdown": lambda out: ["gate", REPORT, "--budgets", BUDGETS, "--markdown", out],
    "budget": lambda out: ["budget", "suggest", REPORT, "--out", out],
}
EVERYTHING = WRITERS | {"trace": lambda out: ["trace", "convert", TRACE, out, "--to", "1"]}


def device(path: Path) -> None:
    """/dev/full beside the test's own files, which is lost to nobody when it is replaced."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
        with path.open("rb"):
            pass
    except OSError:
        pytest.skip("no device nodes can be made here")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # A name may have 108 bytes.


OTHERS = {"device": device, "fifo": os.mkfifo, "socket": listening}


@pytest.fixture
def other(request, tmp_path, monkeypatch):
    """(what is no ordinary file, its kind)."""
    monkeypatch.chdir(tmp_path)
    OTHERS[request.param](tmp_path / "it.csv")
    return tmp_path / "it.csv"


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("other", OTHERS, indirect=True)
def test_what_is_no_ordinary_file_is_never_replaced_and_nobody_waits_for_it(name, other, tmp_path):
    (tmp_path / "link.csv").symlink_to(other)
    (tmp_path / "second.csv").symlink_to("link.csv")
    before = os.lstat(other)
    for out in (other, tmp_path / "link.csv", tmp_path / "second.csv"):
        done = farwrite(*EVERYTHING[name](out), timeout_s=60)
        assert done.returncode == 2 and done.stdout == "", done.stdout
        assert "Traceback" not in done.stderr and done.stderr.startswith("farwrite: ") and str(out.name) in done.stderr
        assert len(done.stderr.splitlines()) == 1
    after = os.lstat(other)
    assert (after.st_mode, after.st_ino, after.st_rdev) == (before.st_mode, before.st_ino, before.st_rdev)
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "second.csv").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it.csv", "link.csv", "second.csv"]


def test_an_import_over_an_endless_device_ends(tmp_path):
    done = farwrite("import", FIO, "--out", "/dev/zero", timeout_s=60)
    assert (done.returncode, "is a device" in done.stderr) == (2, True), done.stderr


def test_a_link_to_a_file_stays_a_link_and_the_file_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/file")
    for data in (b"made", b"replaced"):
        write_atomically(tmp_path / "link", data)
        assert (tmp_path / "real" / "file").read_bytes() == data and (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["file"]


def test_a_link_to_itself_is_refused_by_the_system(tmp_path):
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomically(tmp_path / "link", b"")
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    ("name", "stdout"),
    [*((name, "-") for name in WRITERS), ("export-hlog", "/dev/stdout"), ("budget", "/dev/stdout"), ("import", "/dev/fd/1")],
)
def test_stdout_is_written_into_and_holds_nothing_else(name, stdout, tmp_path):
    with (tmp_path / "out").open("wb") as out:
        words = words_of(*WRITERS[name](stdout))
        done = subprocess.run(words, env=environment(), stdout=out, stderr=subprocess.PIPE, check=False)
    asked = farwrite(*WRITERS[name](tmp_path / "named"))
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    assert (tmp_path / "out").read_bytes() == (tmp_path / "named").read_bytes()
    assert asked.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["named", "out"]


def test_a_pipe_that_the_shell_opened_is_written_into(tmp_path):
    words = ["bash", "-c", 'exec "$@" --hlog >(cat > piped) | cat', "bash", *words_of("export", REPORT, "--cell", "write-C-20")]
    done = subprocess.run(words, env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert farwrite("export", REPORT, "--cell", "write-C-20", "--hlog", tmp_path / "named").returncode == 0
    assert (tmp_path / "piped").read_bytes() == (tmp_path / "named").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [(["export", REPORT, "--hlog", "-", "--hgrm", "-", "--cell", "write-C-20"], "--hlog and --hgrm both want stdout"),
     (["export", REPORT, "--hgrm", "-"], "Name a directory, or one --cell"),
     (["gate", REPORT, "--budgets", BUDGETS, "--junit", "-", "--markdown", "-"], "both want stdout"),
     (["gate", REPORT, "--budgets", BUDGETS, "--junit", "-", "--json"], "both want stdout")],
)  # fmt: skip
def test_two_documents_do_not_share_stdout(words, said):
    done = farwrite(*words)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr


def test_only_what_is_open_already_is_a_stream():
    streams = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2, "/dev/fd/63": 63, "/proc/self/fd/3": 3}
    assert {text: descriptor_of(Path(text)) for text in streams} == streams
    assert [descriptor_of(Path(text)) for text in ("./-x", "/dev/null", "/dev/fd/x", "stdout")] == [None] * 4


def test_the_sentence_names_the_link_and_what_it_leads_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with pytest.raises(UsageError, match=r"pipe \(by way of .*link\) is a FIFO and no ordinary file"):
        write_atomically(tmp_path / "link", b"")
