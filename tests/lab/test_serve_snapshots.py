"""Snapshots and remote copies of volumes that are really served: under load, and while whoever leads or copies is killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from small_lab import any_link
from test_serve import END_S, SIZE, metrics_of, serving, socket_of, until, writing

from console import environment, farwrite, words_of
from farwrite.engine.frontend.nbd_client import Place
from farwrite.experiment.copy.copier import newest_copy
from farwrite.experiment.copy.plan import marks_of
from farwrite.experiment.serve.control import CONTROL, Show, ask
from nbd_client import NbdClient

pytestmark = [pytest.mark.lab, any_link]

LOADED, BLOCKS = 32 << 20, 512  # Where the writer writes.


@pytest.fixture(scope="module")
def near():
    with serving("--memory", "--metrics", "0") as made:
        yield made


@pytest.fixture(scope="module")
def far():
    with serving("--memory") as made:
        yield made


def sockets(served):
    return Path(served.sockets)


def everything(served, export=b"volume"):
    with NbdClient(socket_of(served), export, limit_s=60) as client:
        return b"".join(client.read(at, 4 << 20) for at in range(0, SIZE, 4 << 20))


def loaded(served):
    """Numbered writes, one after the other, as long as this block; by block the numbers that were answered, in their order."""
    return writing(socket_of(served), LOADED, BLOCKS)


def test_a_snapshot_under_load_is_one_instant_and_stays_as_it_was(near):
    with loaded(near) as writer:
        until(lambda: len(writer.acked) > 50, "writes are not answered")
        before = dict(writer.acked)
        done = farwrite("snapshot", "create", "instant", "--sockets", near.sockets, "--json")
        assert done.returncode == 0, done.stderr
        after = {block: list(numbers) for block, numbers in writer.tried.items()}
        number = writer.number
        until(lambda: writer.number > number + 50, "writes do not go on")
    first, again = everything(near, b"volume@instant"), everything(near, b"volume@instant")
    assert first == again
    held = {}
    for block in range(BLOCKS):
        text = first[LOADED + block * 4096 :][:4096]
        if text.strip(b"\0"):
            held[block] = int(text[5:].split()[0])
            assert text == writer.text(held[block]) and held[block] in after[block]
    last = max(held.values(), default=-1)
    assert all(number <= last for number in before.values()) and before  # Everything that was answered before,
    assert sorted(held.values()) == list(range(max(last - BLOCKS + 1, 0), last + 1))  # and of what came then, a prefix.


def test_control_messages_of_strangers_and_a_snapshot_after_the_near_site_died(near):
    import socket

    for message in (b"", b"\xff" * 5000, b"{}\n", b'{"type":"take"}\n', b'{"type":"hold"}\n'):
        with socket.socket(socket.AF_UNIX) as talk:
            talk.connect(str(sockets(near) / CONTROL))
            with contextlib.suppress(OSError):
                talk.sendall(message)
    assert (sockets(near) / CONTROL).stat().st_mode & 0o077 == 0
    leader = ask(sockets(near), Show()).leader
    with loaded(near) as writer:
        pid = int(metrics_of(near)[f'farwrite_pid{{replica="{leader}"}}'])
        os.kill(pid, signal.SIGKILL)
        until(lambda: has_no_files(pid), "it lives")  # Until then its socket takes callers, who are told that nothing is known.
        done = farwrite("snapshot", "create", "after-death", "--sockets", near.sockets)  # Waits for who leads then.
        assert done.returncode == 0, done.stderr
    assert ask(sockets(near), Show()).leader != leader and writer.acked
    assert everything(near, b"volume@after-death")[LOADED : LOADED + 5] == b"write"
    until(lambda: metrics_of(near).get(f'farwrite_peer_live{{peer="{leader}"}}') == "1", "it does not come back")


def has_no_files(pid):
    """Whether a process that was killed has let go of them: it may be a zombie, or nothing any more."""
    try:
        return not any(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return True


def begins_with_zeros(served):
    with NbdClient(socket_of(served), limit_s=60) as client:
        return not client.read(0, 4096).strip(b"\0")


def test_a_volume_is_copied_though_copier_and_near_site_are_killed_and_what_is_whole_is_what_it_was(near, far):
    story = random.Random(1)
    with NbdClient(socket_of(near)) as client:
        for at in range(0, 24 << 20, 1 << 20):
            assert client.write(at, story.randbytes(1 << 20)) == 0
    words = words_of("copy", near.uri, far.uri, "--json", "--verify", "--rate", "80mbit")
    with loaded(near):
        with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as copier:
            until_s = time.monotonic() + END_S
            while begins_with_zeros(far):  # All of it would take longer to read than to copy.
                assert time.monotonic() < until_s and copier.poll() is None, copier.communicate()
            copier.kill()
        assert all(mark.done_below is not None for mark in marks_of(ask(sockets(far), Show()).snapshots, "copy"))
        with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as copier:
            try:
                time.sleep(1.0)
                leader = ask(sockets(near), Show()).leader
                os.kill(int(metrics_of(near)[f'farwrite_pid{{replica="{leader}"}}']), signal.SIGKILL)
                out, said = copier.communicate(timeout=120)
            finally:
                copier.kill()
        assert copier.returncode == 0, said
    copied = json.loads(out)
    assert copied["is_verified"] and copied["retries"] >= 0
    whole = f"volume@{copied['snapshot']}".encode()
    assert everything(near, whole) == everything(far, whole)
    done = farwrite("copy", near.uri, far.uri, "--json")
    told = json.loads(done.stdout)
    assert told["base"] == copied["snapshot"] and told["shipped_bytes"] <= BLOCKS * 4096 + (1 << 20), (told, done.stderr)
    with NbdClient(socket_of(far)) as client:
        assert client.write(0, b"made at the far volume") == 0
    point = newest_copy(ask(sockets(far), Show()).snapshots, "copy")
    assert farwrite("snapshot", "restore", "last-copy", "--sockets", far.sockets).returncode == 0
    assert everything(far) == everything(far, f"volume@{point}".encode())
    assert Place(socket_of(far)).uri
