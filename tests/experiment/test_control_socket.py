"""`control.sock` of a served volume: what is asked, what is refused, and what a caller may say or leave unsaid."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time

import pytest

from fake_volume import FakeVolume
from farwrite.base.errors import FarwriteError, UnfitError, UsageError
from farwrite.engine.control import Address
from farwrite.engine.peer_status import PeerStatus, ReplicaStatus
from farwrite.experiment.serve import control
from farwrite.experiment.serve.control import (
    CONTROL,
    DIGEST_BYTES_MAX,
    REQUEST_BYTES_MAX,
    Delete,
    Digest,
    Hold,
    Show,
    Take,
    ask,
    hold,
    sockets_in_use,
)

SIZE = 3 << 20


@pytest.fixture
def volume(tmp_path):
    with contextlib.ExitStack() as stack:
        yield FakeVolume(stack, tmp_path / "v", SIZE, 0xABC)


def said(volume, data, limit_s=10.0):
    """All that is answered to these bytes."""
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(limit_s)
        talk.connect(str(volume.directory / CONTROL))
        with contextlib.suppress(BrokenPipeError):
            talk.sendall(data)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := talk.recv(1 << 16):
                found += piece
        return found


def test_snapshots_are_taken_listed_and_deleted(volume):
    answer = ask(volume.directory, Take("one"))
    assert [one.name for one in answer.snapshots] == ["one"] and answer.volume == "abc" and answer.leader == "near"
    assert [one.name for one in ask(volume.directory, Show()).snapshots] == ["one"]
    with pytest.raises(UsageError, match="already") as refusal:
        ask(volume.directory, Take("one"))
    assert refusal.value.exit_code == 2
    assert ask(volume.directory, Delete("one")).snapshots == []
    for number in range(16):
        ask(volume.directory, Take(f"s{number}"))
    with pytest.raises(UnfitError, match="at most 16") as refusal:
        ask(volume.directory, Take("more"))
    assert refusal.value.exit_code == 6


@pytest.mark.parametrize("message", [
    b"", b"{}", b"null", b"[]", b"17", b"{", b"\xff\xfe", b'{"type":"take"}', b'{"type":"take","name":7}', b'{"type":"steal"}',
    b'{"type":"take","name":"x","more":1}', b'{"type":"take","name":"a/b"}', b'{"type":"take","name":""}',
    b'{"type":"take","name":"' + b"n" * 64 + b'"}', b'{"type":"delete","name":"nothing"}', b"[" * 4000,
    b'{"type":"digest","name":"x","offset":-1,"length":5}', b'{"type":"digest","name":"x","offset":0,"length":0}',
    b'{"type":"digest","name":"x","offset":0,"length":%d}' % (DIGEST_BYTES_MAX + 1),
    b'{"type":"digest","name":"x","offset":9223372036854775807,"length":1}',
    b'{"type":"digest","name":"none","offset":0,"length":1}',
    b'{"type":"digest","name":"x","offset":1,"length":1}', b'{"type":"digest","name":"x","offset":0,"length":%d}' % (SIZE + 1),
])  # fmt: skip
def test_a_malformed_request_is_answered_with_its_refusal_and_changes_nothing(volume, message):
    ask(volume.directory, Take("x"))
    answer = json.loads(said(volume, message + b"\n"))
    assert answer["refusal"].endswith((".", ")")) and answer["exit_code"] in (2, 6) and "Traceback" not in answer["refusal"]
    assert [one.name for one in ask(volume.directory, Show()).snapshots] == ["x"]


def test_mutated_requests_end_nothing(volume):
    story = random.Random(5)
    good = b'{"type":"take","name":"a-name"}\n{"type":"digest","name":"a-name","offset":0,"length":4096}\n'
    for _ in range(300):
        data = bytearray(good)
        for _ in range(story.randrange(1, 6)):
            data[story.randrange(len(data))] = story.randrange(256)
        answer = said(volume, bytes(data) + b"\n")
        assert not answer or json.loads(answer)["exit_code"] in (0, 2, 6)
    ask(volume.directory, Show())


def test_an_oversized_request_is_refused_and_a_slow_one_holds_up_nobody(volume, monkeypatch):
    assert json.loads(said(volume, b"x" * (REQUEST_BYTES_MAX + 1)))["exit_code"] == 2
    assert json.loads(said(volume, b"x" * (1 << 20) + b"\n"))["exit_code"] == 2
    monkeypatch.setattr(control, "LISTEN_S", 0.3)
    with contextlib.ExitStack() as stack:
        for _ in range(80):  # More than are listened to at once.
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.connect(str(volume.directory / CONTROL))
            with contextlib.suppress(OSError):
                one.sendall(b'{"type"')
        ask(volume.directory, Show())
    assert said(volume, b'{"type":"sho', 60.0) == b""


def test_another_user_is_not_listened_to(volume, monkeypatch):
    monkeypatch.setattr(control.os, "geteuid", lambda: 4242)
    monkeypatch.setattr(control.struct, "unpack", lambda *_: (1, 4243, 1))
    assert said(volume, b'{"type":"take","name":"stolen"}\n') == b""
    monkeypatch.undo()
    assert ask(volume.directory, Show()).snapshots == []


def test_a_fault_of_ours_is_said_and_the_next_one_is_answered(volume, monkeypatch):
    monkeypatch.setattr(volume, "take_snapshot", lambda name: 1 // 0)
    with pytest.raises(FarwriteError, match="our own fault") as refusal:
        ask(volume.directory, Take("x"))
    assert refusal.value.exit_code == 1
    ask(volume.directory, Show())


def test_who_leads_no_more_is_not_the_one_to_be_believed(volume):
    volume.desk.leads = lambda: False
    with pytest.raises(control.UnansweredError, match="no snapshot"):
        ask(volume.directory, Delete("none"))


def test_one_copier_at_a_time_until_it_hangs_up(volume, monkeypatch):
    monkeypatch.setattr(control, "HOLD_S", 0.05)
    with hold(volume.directory, Hold()):
        with pytest.raises(UnfitError, match="Another farwrite copy"):
            ask(volume.directory, Hold())
        ask(volume.directory, Take("meanwhile"))
    until_s = time.monotonic() + 60
    while True:
        with contextlib.suppress(UnfitError):
            ask(volume.directory, Hold())
            break
        assert time.monotonic() < until_s


def test_a_digest_is_that_of_the_bytes_however_the_holes_lie(volume):
    volume.write(0, b"data")
    volume.write(1 << 20, bytes(1 << 20))  # Allocated zeros.
    volume.take_snapshot("one")
    volume.empty(1 << 20, 1 << 20)
    volume.take_snapshot("two")
    volume.write((2 << 20) + 5, b"x")
    volume.take_snapshot("three")

    def digest(name, offset, length):
        return ask(volume.directory, Digest(name, offset, length)).digest

    assert digest("one", 0, SIZE) == digest("two", 0, SIZE) != digest("three", 0, SIZE)
    assert digest("one", 0, 2 << 20) == digest("three", 0, 2 << 20)
    assert digest("one", 0, 1 << 20) != digest("one", 1 << 20, 1 << 20)


def test_nobody_there_and_nobody_who_leads_have_a_sentence_each(tmp_path, monkeypatch):
    with pytest.raises(UnfitError, match="No farwrite serve answers"):
        ask(tmp_path, Show())
    with pytest.raises(UnfitError, match="No farwrite serve answers"):
        ask(tmp_path / "none", Show())
    monkeypatch.setattr(control, "FAILOVER_S", 0.3)
    monkeypatch.setattr(control, "is_served", lambda sockets: True)
    with pytest.raises(UnfitError, match="no replica leads"):
        ask(tmp_path, Show())


@pytest.mark.parametrize("answer", [b"", b"{", b"x" * (control.ANSWER_BYTES_MAX + 2), b'{"snapshots":7}\n', None])
def test_an_answer_that_is_none_leaves_open_what_was_done(tmp_path, answer):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / CONTROL))
        listening.listen()

        def lie():
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(4096)
                connection.sendall(answer) if answer is not None else time.sleep(0.6)

        lying = threading.Thread(target=lie)
        lying.start()
        with pytest.raises(UnfitError, match="not known whether"):
            ask(tmp_path, Show(), 0.3)
        lying.join()


def test_the_only_volume_that_is_served_is_meant(tmp_path, monkeypatch):
    monkeypatch.delenv("FARWRITE_SOCKETS", raising=False)
    monkeypatch.setattr(control.tempfile, "gettempdir", lambda: str(tmp_path))
    with pytest.raises(UsageError, match="--sockets DIR"):
        sockets_in_use(None)
    monkeypatch.setattr(control, "is_served", lambda place: place.name != "farwrite-old")
    for name in ("farwrite-old", "farwrite-a"):
        (tmp_path / name).mkdir()
    assert sockets_in_use(None) == tmp_path / "farwrite-a"
    (tmp_path / "farwrite-b").mkdir()
    with pytest.raises(UsageError, match="2 volumes"):
        sockets_in_use(None)
    monkeypatch.setenv("FARWRITE_SOCKETS", "/else")
    assert str(sockets_in_use(None)) == "/else" and str(sockets_in_use(tmp_path)) == str(tmp_path)


# Replicas


class Replicated:
    """Who leads a volume of three replicas."""

    def __init__(self):
        live = PeerStatus("live", False, 0, 10, None, None)
        self.found = {
            name: ReplicaStatus(name, "10.0.0.1", 7000, 7001, name == "a", True, False, 3, None if name == "a" else live)
            for name in "ab"
        }
        self.asked = []

    def snapshots(self):
        return []

    def replica_statuses(self):
        return list(self.found.values())

    def add_replica(self, name, address):
        self.asked.append((name, address))
        self.found[name] = ReplicaStatus(name, *address[:3], False, False, False, 9, None)

    def remove_replica(self, name):
        if name not in self.found:
            raise UsageError(f"remove the replica {name}: there is no replica {name} (a, b).")
        del self.found[name]

    def request_hand_over(self, to):
        raise UnfitError(f"hand over to {to}: it does not hold everything yet.")


@pytest.fixture
def replicated(tmp_path):
    keeper = Replicated()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / CONTROL))
        listening.listen()
        with control.control_door(listening, control.Desk(keeper, "abc", "a", None), "the door"):
            yield keeper, tmp_path


def test_replicas_are_listed_added_and_removed_and_what_cannot_be_is_refused(replicated):
    keeper, sockets = replicated
    assert [(one.name, one.state, one.leads, one.lag_writes) for one in ask(sockets, control.Replicas()).replicas] == [
        ("a", "leads", True, 3), ("b", "live", False, 3),
    ]  # fmt: skip
    found = ask(sockets, control.AddReplica("c", "10.0.0.3", 7002, 7003)).replicas
    assert keeper.asked == [("c", Address("10.0.0.3", 7002, 7003))]
    assert (found[-1].name, found[-1].state, found[-1].is_member) == ("c", "absent", False)
    assert [one.name for one in ask(sockets, control.RemoveReplica("b")).replicas] == ["a", "c"]
    with pytest.raises(UsageError, match="no replica z"):
        ask(sockets, control.RemoveReplica("z"))
    with pytest.raises(UnfitError, match="does not hold everything"):
        ask(sockets, control.HandOver("b"))


@pytest.mark.parametrize("message", [
    b'{"type":"add-replica","name":"c"}', b'{"type":"add-replica","name":"c","host":"h","port":"1","vote_port":1}',
    b'{"type":"remove-replica"}', b'{"type":"hand-over","name":3}', b'{"type":"replicas","more":1}',
])  # fmt: skip
def test_a_malformed_request_about_replicas_changes_none(replicated, message):
    keeper, sockets = replicated
    with socket.socket(socket.AF_UNIX) as talk:
        talk.connect(str(sockets / CONTROL))
        talk.sendall(message + b"\n")
        answer = json.loads(talk.makefile().readline())
    assert answer["exit_code"] == 2 and sorted(keeper.found) == ["a", "b"] and keeper.asked == []
