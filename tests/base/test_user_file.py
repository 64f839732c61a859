"""Files that a user names: whatever they are, they are read or refused with a sentence, and nothing waits for ever."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from farwrite import recording
from farwrite.base.errors import UsageError
from farwrite.base.user_file import open_file, read_file, read_text
from farwrite.commands.import_ import read_foreign
from farwrite.compare.figures import read_result_set
from farwrite.gate import budget
from farwrite.lab import topology
from farwrite.workload.catalog import load
from farwrite.workload.trace.reader import read as read_trace

# Everything that reads a file of the user's.
READERS = {
    "report": recording.read, "sheet": read_result_set, "foreign": lambda path: read_foreign(path, None), "budgets": budget.load,
    "sites": topology.read, "profile": lambda path: load(str(path)), "trace": read_trace,
}  # fmt: skip


@pytest.fixture
def odd(tmp_path):
    """Things that are no files, by what they are called in refusals."""
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "endless.toml").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.toml"))
        yield {
            "a directory": tmp_path / "folder.toml",
            "a character device": tmp_path / "endless.toml",
            "a socket": tmp_path / "s.toml",
        }


@pytest.mark.parametrize("reader", sorted(READERS))
def test_every_reader_refuses_what_is_no_file_and_says_what_it_is(odd, reader):
    for what, path in odd.items():
        if what == "a directory" and reader in ("report", "sheet"):
            continue  # A run's.
        with pytest.raises(UsageError, match=what):
            READERS[reader](path)


@pytest.mark.parametrize("reader", sorted(READERS))
def test_no_reader_waits_for_a_pipe_that_nobody_writes_to(tmp_path, odd, reader, monkeypatch):
    monkeypatch.setattr("farwrite.base.user_file.READ_SECONDS", 0.2)
    with pytest.raises(UsageError, match="pipe"):
        READERS[reader](tmp_path / "pipe.toml")


def test_a_pipe_is_read_to_its_end_however_slowly_it_comes(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write():
        time.sleep(0.1)
        with path.open("wb", buffering=0) as file:
            for part in (b"one ", b"two ", b"three"):
                file.write(part)
                time.sleep(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert read_text(path, "read") == "one two three"
    finally:
        writer.join()


def test_a_pipe_whose_writer_has_closed_it_without_a_byte_is_empty(tmp_path):
    read_end, write_end = os.pipe()
    os.close(write_end)
    assert read_file(f"/dev/fd/{read_end}", "read", seconds=0.3) == b""
    os.close(read_end)


def test_a_pipe_without_an_end_is_given_up(tmp_path):
    read_end, write_end = os.pipe()
    stop = threading.Event()

    def write():
        os.set_blocking(write_end, False)
        while not stop.wait(0.01):
            try:
                os.write(write_end, b"y" * 100)
            except BlockingIOError:
                continue

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with pytest.raises(UsageError, match="did not end in time"):
            read_file(f"/dev/fd/{read_end}", "read", seconds=0.3)
        with pytest.raises(UsageError, match="larger than 1 KiB"):
            read_file(f"/dev/fd/{read_end}", "read", 1024)
    finally:
        stop.set()
        writer.join()
        os.close(read_end)
        os.close(write_end)


def test_a_file_that_claims_no_size_is_read_and_one_that_is_too_large_is_not(tmp_path):
    assert b"MemTotal" in read_file("/proc/meminfo", "read")  # Its size is 0.
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(UsageError, match="larger than"):
        read_file(tmp_path / "huge", "read")
    with pytest.raises(UsageError, match="this is a pipe"):
        os.mkfifo(tmp_path / "pipe")
        open_file(tmp_path / "pipe", "read")


def test_the_systems_refusal_names_what_was_tried(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "none", tmp_path / "loop", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(UsageError, match=r"read the report .*Name a file"):
            read_file(path, "read the report")
    (tmp_path / "bytes").write_bytes(b"ok \xff")
    with pytest.raises(UsageError, match="byte 3 is no UTF-8"):
        read_text(tmp_path / "bytes", "read the report")
