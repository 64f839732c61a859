"""Documents on disk: large ones are gzip, either form is read by the plain name, and hostile ones are refused in a sentence."""

import gzip
import os
from pathlib import Path

import pytest

from console import farwrite
from farwrite.base import documents
from farwrite.base.documents import found_at, named_below, read_document, save_document
from farwrite.base.errors import UsageError

SMALL, LARGE = b'{"a": 1}\n', b'{"a": "' + os.urandom(1).hex().encode() * documents.PLAIN_BYTES_MAX + b'"}\n'


def test_a_large_document_is_gzip_that_other_tools_open_and_is_read_under_its_plain_name(tmp_path):
    plain = tmp_path / "report.json"
    assert save_document(plain, SMALL) == plain and plain.read_bytes() == SMALL
    packed = save_document(plain, LARGE)
    assert packed == tmp_path / "report.json.gz" and os.listdir(tmp_path) == [packed.name]  # noqa: PTH208
    assert gzip.decompress(packed.read_bytes()) == LARGE == read_document(plain, "read") == read_document(packed, "read")
    assert packed.stat().st_mode & 0o777 == 0o644 and found_at(plain) == packed
    before = packed.read_bytes()
    assert save_document(plain, LARGE) == packed and packed.read_bytes() == before  # No time of its own in it.
    assert save_document(plain, SMALL) == plain and os.listdir(tmp_path) == [plain.name]  # noqa: PTH208


@pytest.mark.parametrize(("old", "new"), [(SMALL, LARGE), (LARGE, SMALL)])
def test_a_save_that_is_interrupted_before_the_other_form_is_removed_leaves_one_document_whole(tmp_path, monkeypatch, old, new):
    save_document(tmp_path / "x.json", old)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_document(tmp_path / "x.json", new)
    assert read_document(tmp_path / "x.json", "read") in (old, new)


def test_what_is_no_ordinary_file_is_not_removed_for_a_compressed_one(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "directory.json").mkdir()
    for name, refusal in (("pipe.json", UsageError), ("directory.json", OSError)):
        with pytest.raises(refusal):
            save_document(tmp_path / name, LARGE)
    assert sorted(os.listdir(tmp_path)) == ["directory.json", "pipe.json"]  # noqa: PTH208


def test_names_are_those_of_documents_in_either_form_each_once(tmp_path):
    for name in ("b.json", "a.json.gz", "b.json.gz", "c.d.json", "other.gz", "x.toml"):
        (tmp_path / name).write_bytes(SMALL)
    assert {name: path.name for name, path in named_below(tmp_path).items()} == {
        "a": "a.json.gz", "b": "b.json", "c.d": "c.d.json"
    }  # fmt: skip


GZIP = gzip.compress(SMALL * 100)


@pytest.mark.parametrize(
    ("data", "said"),
    [(GZIP[:-1], "ends early"), (GZIP[:12], "ends early"), (GZIP[:2], "ends early"), (GZIP + b"x", "is followed by 1 bytes"),
     (GZIP + GZIP, "is followed by"), (GZIP[:20] + b"\xff\xff" + GZIP[22:], "is damaged"), (GZIP[:-8] + bytes(8), "is damaged"),
     (b"\x1f\x8b\x08\xe0" + GZIP[4:], "is damaged")],
)  # fmt: skip
def test_damaged_gzip_is_refused_in_a_sentence(tmp_path, data, said):
    (tmp_path / "report.json.gz").write_bytes(data)
    with pytest.raises(UsageError, match=said):
        read_document(tmp_path / "report.json", "read")


@pytest.mark.parametrize("words", [["show", "report.json"], ["compare", ".", "."], ["import", "report.json.gz"]])
def test_a_command_refuses_a_damaged_document(tmp_path, words):
    (tmp_path / "report.json.gz").write_bytes(GZIP[:-1])
    done = farwrite(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and "its gzip data ends early" in done.stderr.replace("\n", " ")


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "UNPACKED_BYTES_MAX", 1 << 20)
    (tmp_path / "bomb.json").write_bytes(gzip.compress(bytes(100 << 20), 9))  # Known by its bytes, not by its name.
    with pytest.raises(UsageError, match="unpacked, it is larger than 1 MiB"):
        read_document(tmp_path / "bomb.json", "read")
    (tmp_path / "just.json.gz").write_bytes(gzip.compress(bytes(1 << 20)))
    assert read_document(tmp_path / "just.json", "read") == bytes(1 << 20)


def test_a_document_that_could_not_be_read_again_is_not_compressed(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "UNPACKED_BYTES_MAX", documents.PLAIN_BYTES_MAX)
    assert save_document(tmp_path / "x.json", LARGE).name == "x.json"
