"""`farwrite snapshot` and `farwrite copy` as a person types them, against volumes that are made up in this process."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time

import numpy as np
import pytest

from console import assert_refused, environment, farwrite, words_of
from fake_volume import FakeVolume
from farwrite.commands import copy as copy_command
from farwrite.experiment.copy.copier import Asked, Copier
from farwrite.experiment.copy.plan import marks_of

SIZE = 1 << 20


@pytest.fixture
def near(tmp_path):
    with contextlib.ExitStack() as stack:
        yield FakeVolume(stack, tmp_path / "near", SIZE, 0xAA)


@pytest.fixture
def far(tmp_path):
    with contextlib.ExitStack() as stack:
        yield FakeVolume(stack, tmp_path / "far", SIZE, 0xBB)


def snapshot(volume, *words, **options):
    return farwrite("snapshot", *words, "--sockets", volume.directory, **options)


def test_a_snapshot_is_created_listed_gone_back_to_and_deleted(near):
    near.write(0, b"then")
    done = snapshot(near, "create", "one")
    assert done.returncode == 0 and done.stdout.startswith("one: taken at 20") and "volume@one" in done.stdout, done.stderr
    near.write(0, b"now!")
    listed = snapshot(near, "list")
    assert "one " in listed.stdout and "UTC" in listed.stdout and "kept for it" in listed.stdout
    document = json.loads(snapshot(near, "list", "--json").stdout)
    assert document["snapshots"][0]["export"] == "volume@one" and document["leader"] == "near"
    back = snapshot(near, "restore", "one")
    assert back.returncode == 0 and bytes(near.head.data[:4]) == b"then", back.stderr
    assert snapshot(near, "delete", "one").stdout == "1 snapshot deleted, 0 left\n"
    assert farwrite("snapshot", "list", FARWRITE_SOCKETS=str(near.directory)).stdout == "no snapshots\n"


def test_a_script_gets_a_document_and_hooks_their_turn(near, tmp_path):
    hooks = "--before", f"echo said; touch {tmp_path}/a", "--after", f"touch {tmp_path}/b"
    done = snapshot(near, "create", "one", "--json", *hooks)
    assert json.loads(done.stdout)["is_whole"] and "said" in done.stderr
    assert (tmp_path / "a").exists() and (tmp_path / "b").exists()


@pytest.mark.parametrize(("words", "said", "code"), [
    ("create a/b", "is no name of a snapshot", 2), ("create one", "already", 2), ("delete none", "no snapshot", 2),
    ("delete", "Name the snapshots", 2), ("restore none", "no snapshot none", 2), ("restore last-copy", "left no whole", 2),
    ("create x --before false", "exit code 1.*No snapshot was taken", 6), ("create x --hook-limit 0s", "0.1 s to an hour", 2),
    ("schedule --every 0.1s", "1 s to a year", 2), ("schedule --every 5", "lacks a unit", 2),
    ("schedule --every 5s --keep 0", "1 to 16", 2), ("schedule --every 5s --name a-b", "letters, digits", 2),
])  # fmt: skip
def test_what_cannot_be_is_said_in_a_sentence(near, words, said, code):
    near.take_snapshot("one")
    assert_refused(snapshot(near, *shlex.split(words)), said, code=code)
    assert list(near.kept) == ["one"]


def test_where_nobody_serves_a_sentence_says_so(tmp_path):
    for words in ("create x", "list", "delete x", "schedule --every 5s", "restore x"):
        done = farwrite("snapshot", *shlex.split(words), "--sockets", tmp_path)
        assert_refused(done, "No farwrite serve answers", code=6)


def test_a_schedule_runs_until_it_is_interrupted(near):
    with subprocess.Popen(
        words_of("snapshot", "schedule", "--every", "1 s", "--keep", "1", "--json", "--sockets", near.directory),
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            lines = [json.loads(process.stdout.readline()) for _ in range(2)]
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=120)
            assert process.returncode == 0 and "the snapshots stay" in said and "Traceback" not in said
        finally:
            process.kill()
    assert lines[0]["name"] < lines[1]["name"] and near.kept


# copy


def copying(near, far, *words):
    return farwrite("copy", near.end.place.uri, far.end.place.uri, *words)


def test_a_copy_is_a_line_for_a_person_and_a_document_for_a_script(near, far):
    near.write(0, os.urandom(100_000))
    done = copying(near, far)
    assert done.returncode == 0 and "copied in full: it is the first" in done.stderr, done.stderr
    assert done.stdout.startswith("copy-000001-") and "whole" in done.stdout
    near.write(0, b"more")
    told = json.loads(copying(near, far, "--json", "--verify").stdout)
    assert told["base"].startswith("copy-000001-") and told["shipped_bytes"] == 4096 and told["is_verified"] is True
    assert not told["is_full"] and 0 < told["recovery_point_s"] < told["recovery_point_s_max"]
    assert np.array_equal(near.head.data, far.head.data)


@pytest.mark.parametrize(("words", "said"), [
    ("x nbd://h/x", "the source x: name a volume"), ("{n} nbds://h/x", "no TLS"), ("{n} nbd://h/x", "--to-sockets"),
    ("nbd://h/x {n}", "--from-sockets"), ("{s} {f}", "name the volume itself"), ("{n} {f} --rate 1kbit", "at least"),
    ("{n} {f} --rate fast", "--rate"), ("{n} {f} --keep 1", "2 to 12"), ("{n} {f} --name a-b", "letters, digits"),
    ("{n} {f} --copies 3", "--every"), ("{n} {f} --every 0s", "1 s to a year"), ("{n} {n}", "same volume"),
])  # fmt: skip
def test_a_copy_that_cannot_be_is_refused_before_anything_moves(near, far, words, said):
    done = farwrite("copy", *shlex.split(words.format(n=near.end.place.uri, s=near.end.export("s").uri, f=far.end.place.uri)))
    assert_refused(done, said, code=2)
    assert not near.kept and not far.kept


def test_an_interrupted_copy_says_how_to_go_on_and_goes_on(near, far):
    near.write(0, os.urandom(SIZE))
    with subprocess.Popen(
        words_of("copy", near.end.place.uri, far.end.place.uri, "--rate", "500kbit"), env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            until_s = time.monotonic() + 60
            while not far.written_bytes:
                assert time.monotonic() < until_s and process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=120)
            assert process.returncode == 130 and out == "" and "goes on from there" in said and "Traceback" not in said
        finally:
            process.kill()
    assert all(mark.done_below is not None for mark in marks_of(far.snapshots(), "copy"))
    assert copying(near, far, "-q").returncode == 0 and np.array_equal(near.head.data, far.head.data)


def test_a_schedule_faster_than_the_copy_is_said(near, far):
    shown, said = [], []
    one = Copier(near.end, far.end, Asked(), said.append)
    copy_command.repeat(one, 0.000001, 3, shown.append, said.append)
    assert len(shown) == 3 and sum("cannot keep up" in sentence for sentence in said) == 2
