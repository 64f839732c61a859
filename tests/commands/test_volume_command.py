"""`farwrite volume info`: what a replica's files hold, told without changing them."""

import json
import os

import pytest

from console import farwrite
from farwrite.base.errors import EXIT_DONE, EXIT_LOST_WRITE, EXIT_UNFIT, EXIT_USAGE
from farwrite.base.host import reactor
from farwrite.base.host.disk import disk
from farwrite.engine import journal_kernel as log
from farwrite.engine import primary_kernel as primary
from farwrite.engine import replica_kernel as replica
from farwrite.engine import turn_kernel
from farwrite.engine.journal import format_journal

VOLUME, STAGING, MIB = 0xFA2, 1 << 20, 1 << 20
WRITES, SIZE, APART = 200, 8192, 256 << 10


@pytest.fixture
def kept(tmp_path):
    """A directory with a replica's two files: 200 writes far apart, the first ten of them trimmed again."""
    with disk(tmp_path / "near", 8 * MIB, 64 * MIB, keep=True) as files, reactor.reactor("plain") as ring:
        journal = format_journal(files, VOLUME, 3, STAGING)
        state = primary.primary_state(journal, ring, [], primary.LOCAL, 1, 10**9, volume_bytes=64 * MIB)
        for number in range(WRITES):
            while not primary.submit(state, number, number * APART, SIZE, 0):
                assert turn_kernel.progress(state, 0) == 0
        for number in range(10):
            while not primary.submit_trim(state, number * APART, SIZE, 0):
                assert turn_kernel.progress(state, 0) == 0
        while state.at[0].completed < journal.at[0].staged_sequence:
            assert turn_kernel.progress(state, 0) == 0
        assert replica.settle(journal, ring) == replica.OK
    return tmp_path / "near"


def test_a_volume_is_thin_and_trim_gives_back_what_it_took(kept):
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    done = farwrite("volume", "info", kept, "--json")
    code, told = done.returncode, json.loads(done.stdout)
    assert code == EXIT_DONE
    assert told["volume_bytes"] == 64 * MIB and told["volume"] == "fa2"
    assert told["log_sequence"] == WRITES + 10 and told["log_epoch"] == 3 and told["consistent"]
    if (kept / "volume").stat().st_blocks * 512 < 64 * MIB:  # A file system that knows holes.
        assert (WRITES - 10) * SIZE <= told["allocated_bytes"] < 2 * WRITES * SIZE
        assert told["extents"] == WRITES - 10
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before


def test_it_is_told_in_sentences(kept):
    done = farwrite("volume", "info", kept)
    code, out = done.returncode, done.stdout
    assert code == EXIT_DONE
    for words in ("64 MiB", "writes 1 to 210 to replay", "of epoch 3", "consistent"):
        assert words in out


def test_a_damaged_journal_is_told_where_it_ends_and_leaves_with_5(kept):
    with (kept / "journal").open("r+b") as file:
        file.seek(log.SUPERBLOCK_BYTES + 5 * (SIZE + 64) + 100)
        file.write(b"rot")
    done = farwrite("volume", "info", kept)
    code, out = done.returncode, done.stdout
    assert code == EXIT_LOST_WRITE
    assert "checksum" in out and "damaged" in out


def test_what_is_no_replica_is_refused_with_a_sentence(tmp_path):
    done = farwrite("volume", "info", tmp_path)
    code, err = done.returncode, done.stderr
    assert code == EXIT_USAGE and "lab.keep" in err
    for name in ("journal", "volume"):
        (tmp_path / name).write_bytes(os.urandom(64 << 10))
    done = farwrite("volume", "info", tmp_path)
    code, err = done.returncode, done.stderr
    assert code == EXIT_UNFIT and "no whole superblock" in err


@pytest.mark.parametrize("size", [0, 1, 15, 512, 4095, 4096, 8191])
def test_a_journal_shorter_than_its_superblocks_is_refused_with_its_size(tmp_path, size):
    for name in ("journal", "volume"):
        (tmp_path / name).write_bytes(os.urandom(size))
    done = farwrite("volume", "info", tmp_path)
    assert done.returncode == EXIT_UNFIT and f"holds {size} bytes" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["journal", "volume"])
@pytest.mark.parametrize(("kind", "word"), [("directory", "a directory"), ("pipe", "a pipe"), ("zero", "a character device")])
def test_what_lies_in_a_files_place_is_named_and_never_waited_for(kept, name, kind, word):
    place = kept / name
    place.unlink()
    if kind == "directory":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero")
    done = farwrite("volume", "info", kept)
    assert done.returncode == EXIT_USAGE and word in done.stderr and "Traceback" not in done.stderr


def test_a_file_a_pipe_and_a_loop_instead_of_the_directory_are_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("file", "pipe", "loop"):
        done = farwrite("volume", "info", tmp_path / name)
        assert done.returncode == EXIT_USAGE and "lab.keep" in done.stderr
