"""`pool.sock`: what is asked of a pool that is served, and of one at rest; what strangers may say."""

from __future__ import annotations

import contextlib
import random
import resource
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from types import SimpleNamespace

import pytest

from console import assert_refused, environment, farwrite, words_of
from farwrite.base.errors import EXIT_USAGE, UnfitError, UsageError
from farwrite.experiment.pool import control, placement, steps
from farwrite.experiment.pool.balance import Measured
from farwrite.experiment.pool.control import (
    REQUEST_BYTES_MAX,
    Answer,
    Balance,
    Cancel,
    CreateVolume,
    DeleteVolume,
    Migrate,
    RemoveNode,
    SetLevel,
    Show,
    ask,
    carry_out,
    desk_in,
    directory_fd,
    figures_of,
)
from farwrite.experiment.pool.document import StorageNode, checked_node, load
from farwrite.experiment.pool.steps import AtRest, create, opened

MIB = 1 << 20


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(placement, "JOURNAL_BYTES", 256 << 10)
    monkeypatch.setattr(steps, "LOCK_S", 0.0)


@pytest.fixture
def directory(tmp_path):
    create(tmp_path / "san", "san", [StorageNode("a", "near", 1 << 30), StorageNode("b", "far", 1 << 30)])
    return tmp_path / "san"


@contextlib.contextmanager
def served(directory, queue=None):
    """The pool open in a thread of ours, which answers as the serving loop does."""
    ending = threading.Event()
    with opened(directory) as pool, desk_in(directory) as desk:

        def loop():
            while not ending.is_set():
                for request, caller in desk.turn():
                    try:
                        answer = carry_out(pool, request, AtRest(), queue)
                        answer.pool = figures_of(pool, {})
                    except (UsageError, UnfitError) as refusal:
                        answer = Answer(refusal=str(refusal), exit_code=refusal.exit_code)
                    desk.answer(caller, answer)
                time.sleep(0.002)

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield desk
        finally:
            ending.set()
            thread.join()


@pytest.mark.parametrize("is_served", [False, True])
def test_a_pool_is_changed_by_who_serves_it_or_on_its_document(directory, is_served):
    with served(directory) if is_served else contextlib.nullcontext():
        figures = ask(directory, CreateVolume("db", MIB, "10")).pool
        assert figures.is_served == is_served and [copy.node for copy in figures.volumes[0].copies] == ["a", "b"]
        assert figures.promised_bytes == 2 * MIB
        for request, said in (
            (CreateVolume("db", MIB, "10"), "already"), (CreateVolume("x", MIB, "5"), "0, 10, 10"),
            (SetLevel("db", "10+2"), "4 nodes"),
            (RemoveNode("a"), "lose its level"), (Migrate("db", "b"), "while the pool is served"), (Cancel("db"), "on its way"),
            (Balance(go=True), "while the pool is served"), (DeleteVolume("x"), "no volume"),
        ):  # fmt: skip
            with pytest.raises(UsageError, match=said):
                ask(directory, request)
        assert ask(directory, Balance()).moves == []
        ask(directory, DeleteVolume("db"))
    assert load(directory).volumes == [] and not (directory / control.SOCKET).exists()


def test_moves_of_a_balance_wait_for_their_turn(directory):
    with opened(directory) as pool:
        pool.add_nodes([StorageNode("c", "near", 1 << 30)])
        for name in ("x", "y"):
            pool.create_volume(name, MIB, "10", False, MIB, AtRest())
        queue = deque()
        moves = carry_out(pool, Balance(go=True), AtRest(), queue).moves
        assert list(queue) == moves


def test_an_interrupted_migration_gives_up_the_copy_that_was_on_its_way(directory):
    """Here nothing moves the copy on: it stays where the request put it."""
    with opened(directory) as pool:
        pool.add_nodes([StorageNode("c", "near", 1 << 30)])
        pool.create_volume("db", MIB, "10", False, MIB, AtRest())
    with served(directory, deque()), subprocess.Popen(
        words_of("migrate", "db", "--to", "c", "--pool", directory), env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            until_s = time.monotonic() + 60
            while all(copy.node != "c" for copy in load(directory).volumes[0].copies):
                assert time.monotonic() < until_s and process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            out, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and out == "" and "given up: the copy c-3" in told and "Traceback" not in told
    states = [(copy.node, copy.state) for copy in load(directory).volumes[0].copies]
    assert states == [("a", "in"), ("b", "in"), ("c", "removing")]
    with opened(directory) as pool:
        assert [copy.node for copy in pool.document.volumes[0].copies] == ["a", "b"]


def said(directory, data, limit_s=10.0):
    """All that is answered to these bytes."""
    with socket.socket(socket.AF_UNIX) as talk, directory_fd(directory) as descriptor:
        talk.settimeout(limit_s)
        talk.connect(f"/proc/self/fd/{descriptor}/{control.SOCKET}")
        with contextlib.suppress(OSError):
            talk.sendall(data)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := talk.recv(1 << 16):
                found += piece
        return found


def test_whatever_is_said_at_the_pools_socket_is_answered_or_hung_up_on(directory, monkeypatch):
    monkeypatch.setattr(control, "CALLER_S", 0.5)
    story = random.Random(5)
    whole = [b'{"type":"show"}\n', b'{"type":"create","name":"db","size_bytes":1048576,"level":"10"}\n',
             b'{"type":"remove","node":"a"}\n']  # fmt: skip
    with served(directory) as desk, contextlib.ExitStack() as silent:
        for _ in range(30):  # More than are waited with: the first are hung up on.
            talk = silent.enter_context(socket.socket(socket.AF_UNIX))
            with directory_fd(directory) as descriptor:
                talk.connect(f"/proc/self/fd/{descriptor}/{control.SOCKET}")
            time.sleep(0.005)
        assert len(desk.callers) <= control.CALLERS_MAX + 1
        assert b'"refusal":""' in said(directory, whole[0])
        for message in (b"{}\n", b"null\n", b"\xff\xfe\n", b"[" * 3000 + b"\n", b'{"type":"steal"}\n',
                        b'{"type":"show","more":1}\n', b'{"type":"create","name":"x","size_bytes":-1,"level":"10"}\n',
                        b'{"type":"add","nodes":[{"name":"x","site":"moon","capacity_bytes":1}]}\n',
                        b"x" * (REQUEST_BYTES_MAX + 2)):  # fmt: skip
            assert b"refusal" in said(directory, message) and b'"refusal":""' not in said(directory, message)
        assert f'"exit_code":{EXIT_USAGE}'.encode() in said(directory, b"x" * (REQUEST_BYTES_MAX + 2))
        for _ in range(300):
            data = bytearray(story.choice(whole[:1] + whole[2:]))
            for _ in range(story.randint(1, 4)):
                data[story.randrange(len(data))] = story.randrange(256)
            said(directory, bytes(data).replace(b"\n", b"?") + b"\n")
        assert b'"refusal":""' in said(directory, whole[0])
        assert b"within 0.5 s" in said(directory, b'{"type":')
    assert {node.name for node in load(directory).nodes} >= {"b"} and load(directory).volumes == []


def test_nobody_there_and_a_pool_that_is_open_elsewhere_have_a_sentence_each(directory, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="holds no pool"):
        ask(tmp_path, Show())
    monkeypatch.setattr(control, "OPENS_S", 0.1)
    with opened(directory), pytest.raises(UnfitError, match="does not answer"):
        ask(directory, Show())


def test_without_a_descriptor_left_who_calls_waits_and_nothing_ends(directory):
    with opened(directory) as pool, desk_in(directory) as desk, socket.socket(socket.AF_UNIX) as talk:
        with directory_fd(directory) as descriptor:
            talk.connect(f"/proc/self/fd/{descriptor}/{control.SOCKET}")
        talk.sendall(b'{"type":"show"}\n')
        with no_descriptors():
            assert list(desk.turn()) == [] and "Too many open files" in desk.failure
        heard = list(desk.turn())
        assert len(heard) == 1 and desk.failure == ""
        desk.answer(heard[0][1], Answer(pool=figures_of(pool, {})))
        assert b'"refusal":""' in talk.recv(1 << 16)


@contextlib.contextmanager
def no_descriptors():
    """None can be had inside this block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as last:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno(), hard))
        try:
            with contextlib.ExitStack() as held:
                with contextlib.suppress(OSError):
                    while True:
                        held.enter_context(socket.socket())
                yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_second_balance_takes_the_place_of_what_is_left_of_the_first_and_it_can_be_stopped(directory):
    with opened(directory) as pool:
        pool.add_nodes([StorageNode("c", "near", 1 << 30)])
        for name in ("x", "y", "z", "w"):
            pool.create_volume(name, 16 * MIB, "0", False, 16 * MIB, AtRest())
            pool.document.volume(name).copies[0].node = "a"
            pool.document.volume(name).copies[0].replica = "a-1"
        queue = deque()
        group = SimpleNamespace(measured=lambda: Measured({}, {}))
        first = carry_out(pool, Balance(go=True), group, queue)
        assert list(queue) == first.moves and len(first.moves) > 1 and "too short" in first.said[0]
        assert all("promised: a " in move.why for move in first.moves)
        carry_out(pool, Balance(go=True), group, queue)
        assert list(queue) == first.moves, "nothing is to be moved twice"
        assert carry_out(pool, Balance(stop=True), group, queue).moves == first.moves and not queue
        with pytest.raises(UsageError, match="while the pool is served"):
            carry_out(pool, Balance(stop=True), AtRest(), None)


@pytest.mark.parametrize("request_", [DeleteVolume("\udcff"), Migrate("db", "\udcfe"), SetLevel("db", "\udcff")])
def test_words_that_are_no_text_are_refused_before_anybody_is_asked(directory, request_):
    with pytest.raises(UsageError, match="bytes that are no UTF-8"):
        ask(directory, request_)
    with pytest.raises(UsageError, match=r"its directory .* has bytes that are no UTF-8"):
        checked_node(StorageNode("q", "near", 1 << 30, "/tmp/\udcff"))


# The commands, on a pool at rest


def test_a_pool_at_rest_from_the_command_line(tmp_path):
    san, disk = tmp_path / "san", tmp_path / "disk"
    made = farwrite("pool", "create", san, "--node", "a@near=1g", "--node", f"b@far=1g:{disk}")
    assert made.returncode == 0 and "pool san: 2 nodes, 0 volumes, at rest" in made.stdout, made.stderr
    created = farwrite("volume", "create", "db", "--size", "1m", FARWRITE_POOL=str(san))
    assert created.returncode == 0 and "a (near), b (far)" in created.stdout, created.stderr
    assert (disk / "db" / "journal").exists()
    info = farwrite("volume", "info", disk / "db")
    assert info.returncode in (0, 2, 6) and "Traceback" not in info.stderr
    grown = farwrite("volume", "resize", "db", "--size", "2m", "--pool", san)
    assert grown.returncode == 0 and "2 MiB" in grown.stdout, grown.stderr
    for words, sentence in (
        (("pool", "create", san, "--node", "a@near=1g"), "holds a pool already"),
        (("pool", "create", tmp_path / "x", "--node", "a"), "NAME@SITE=SIZE"),
        (("pool", "create", tmp_path / "x", "--node", "a@moon=1g"), "no site"),
        (("pool", "add", san, "--node", "a@near=1g"), "already"),
        (("pool", "remove", san, "a"), "lose its level"), (("pool", "remove", san, "z"), "no node"),
        (("pool", "show", tmp_path), "holds no pool"),
        (("pool", "balance", san), "while the pool is served"), (("pool", "serve", san), "How far away"),
        (("volume", "create", "db", "--size", "1m", "--pool", san), "already"),
        (("volume", "create", "x", "--size", "5", "--pool", san), "1 MiB"),
        (("volume", "create", "x", "--size", "1m", "--level", "5", "--pool", san), "--level"), (("volume", "list"), "Which pool"),
        (("volume", "create", "x", "--size", "2m", "--grows-to", "1m", "--pool", san), "less than"),
        (("volume", "resize", "db", "--size", "1m", "--pool", san), "while it is served"),
        (("volume", "delete", "x", "--pool", san), "no volume"),
        (("volume", "resize", "db", "--size", "1g", "--pool", san), "can grow to 2 MiB"),
        (("migrate", "db", "--to", "b", "--pool", san), "while the pool is served"),
        (("migrate", "db", "--pool", san), "--to NODE"),
        (("migrate", "db", "--cancel", "--pool", san), "on its way"),
    ):  # fmt: skip
        assert_refused(farwrite(*words), sentence)
    added = farwrite("pool", "add", san, "--node", "c@near=1g", "--json")
    assert added.returncode == 0 and '"name": "c"' in added.stdout
    drained = farwrite("pool", "remove", san, "a")
    assert drained.returncode == 0 and "being removed" in drained.stdout and "moves to node c" in drained.stderr
    assert farwrite("pool", "remove", san, "a", "--keep").returncode == 0
    assert farwrite("volume", "set-level", "db", "10+1", "--pool", san).stderr.count("at rest") == 1
    assert farwrite("volume", "delete", "db", "--pool", san).stdout == "volume db is deleted\n"
    gone = farwrite("pool", "remove", san, "a", "--json")
    assert gone.returncode == 0 and '"name": "a"' not in gone.stdout and not (san / "nodes" / "a").exists()
