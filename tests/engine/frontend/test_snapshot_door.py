"""Snapshots through a node's verbs and its door: real files and sockets, clients that write meanwhile, a killed process."""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import numpy as np
import pytest

from farwrite.base.errors import UnfitError, UsageError
from farwrite.base.host import reactor
from farwrite.base.host.disk import disk
from farwrite.base.row import rows_of
from farwrite.base.shared_counters import SharedCounters
from farwrite.base.wire.terms import SharedKey, Terms
from farwrite.engine import node
from farwrite.engine import snapshot_kernel as snapshot
from farwrite.engine.control import Address
from farwrite.engine.frontend import nbd
from farwrite.engine.frontend import session_kernel as sessions
from farwrite.engine.frontend.frontend import Frontend
from farwrite.engine.frontend.nbd_client import ProtocolError
from farwrite.engine.frontend.nbd_door import nbd_door
from farwrite.engine.node import Node, recall
from farwrite.engine.vote import format_ballot
from farwrite.experiment.serve.replica import exports_of
from nbd_client import NbdClient
from ports import free_port
from served import PATIENCE_S, Client, Served, until

VOLUME_BYTES, JOURNAL_BYTES, STAGING_BYTES = (4 << 20) + 512, 8 << 20, 1 << 20
PAGE = 4096
STRUCTURED = sessions.STRUCTURED | sessions.ALLOCATION


class Alone:
    """A node that leads alone, and its door."""

    def __init__(self, stack, chosen, ballot_fd):
        addresses, self.board = {"a": Address("127.0.0.1", free_port(), free_port())}, rows_of(SharedCounters)
        self.frontend = Frontend(VOLUME_BYTES)
        stack.callback(self.frontend.close)
        self.node = Node(
            "a", chosen, ballot_fd, addresses, None, 7, self.board, self.frontend, Terms("none", "none", SharedKey(b"k" * 32)),
            staging_bytes=STAGING_BYTES,
        )  # fmt: skip
        self.node.stands_at_once = True
        self.thread = threading.Thread(target=self.node.run)
        self.thread.start()
        stack.callback(self.end)
        until(self.frontend.leads, "it to lead")

    def end(self):
        self.board[0].stop = 1
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()

    def connect(self, flags=0, **options):
        ours, theirs = socket.socketpair()
        assert self.frontend.adopt(theirs, sessions.NBD, flags, **options)
        return Client(ours, flags)

    def reader(self, made, flags=0, **options):
        return self.connect(flags | sessions.READ_ONLY, snapshot=made.sequence, **options)

    def applied(self):
        at = self.node.journal.at[0]
        until(lambda: at.applied_sequence == at.staged_sequence, "the log to be applied")


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Before any node leads: a loop that is still being compiled serves nobody."""
    with contextlib.ExitStack() as made:
        Served(made)


@pytest.fixture
def stack():
    with contextlib.ExitStack() as made:
        yield made


@pytest.fixture
def files(stack, tmp_path):
    ballot_fd = os.memfd_create("ballot")
    stack.callback(os.close, ballot_fd)
    format_ballot(ballot_fd)
    return stack.enter_context(disk(tmp_path / "a", JOURNAL_BYTES, VOLUME_BYTES, keep=True, snapshots=True)), ballot_fd


@pytest.fixture
def alone(stack, files):
    return Alone(stack, *files)


def all_of(client):
    return b"".join(client.read(at, min(1 << 20, VOLUME_BYTES - at)) for at in range(0, VOLUME_BYTES, 1 << 20))


def scribble(client, draw, count):
    for _ in range(count):
        size = draw.choice((512, PAGE, 3 * PAGE, 200))
        assert client.write(draw.randrange(VOLUME_BYTES - size), draw.randbytes(size)) == 0


def test_a_snapshot_of_a_volume_that_nobody_writes_to_does_not_wait_until_all_is_quiet(alone, monkeypatch):
    monkeypatch.setattr(node, "SNAPSHOT_S", PATIENCE_S)
    alone.applied()
    alone.node.journal.at[0].watermark_after_ns = 1 << 60
    assert alone.node.take_snapshot("monday").is_whole
    alone.node.delete_snapshot("monday")
    assert not alone.node.snapshots()


def test_while_clients_are_paused_nothing_new_is_looked_at_and_a_snapshot_is_taken_all_the_same(alone):
    writer = alone.connect()
    assert writer.write(0, b"a" * PAGE) == 0
    with alone.node.paused(PATIENCE_S) as holds, alone.node.paused(PATIENCE_S):
        tag = writer.begin(nbd.WRITE, 0, PAGE, 0, b"b" * PAGE)
        made = alone.node.take_snapshot("monday")
        assert holds() and alone.node.journal.at[0].staged_sequence == made.sequence
    assert writer.answer()[:2] == (tag, 0)
    assert alone.reader(made).read(0, PAGE) == b"a" * PAGE and writer.read(0, PAGE) == b"b" * PAGE


def test_clients_wait_no_longer_than_they_may_whatever_is_done_meanwhile(alone):
    writer = alone.connect()
    with alone.node.paused(0.2) as holds:
        assert writer.write(0, b"a" * PAGE) == 0, "the loop goes on by itself"
        assert not holds()
    alone.node.handing_over = True
    with pytest.raises(UnfitError, match="does not lead"), alone.node.paused(0.2):
        pass
    alone.node.handing_over = False


def test_what_is_copied_from_a_snapshot_under_load_is_what_the_volume_held_at_its_instant(alone, stack, tmp_path):
    writer, draw = alone.connect(), random.Random(1)
    scribble(writer, draw, 150)
    held = all_of(writer)  # Nobody writes now.
    made = alone.node.take_snapshot("monday")
    is_over = threading.Event()

    def load():
        while not is_over.is_set():
            scribble(writer, draw, 5)

    thread = threading.Thread(target=load)
    thread.start()
    stack.callback(thread.join)
    stack.callback(is_over.set)
    for flags in (0, STRUCTURED):
        assert all_of(alone.reader(made, flags)) == held
    path = tmp_path / "nbd.sock"
    listening = stack.enter_context(socket.socket(socket.AF_UNIX))
    listening.bind(str(path))
    listening.listen(16)

    def adopt(connection, chosen):
        flags = sessions.READ_ONLY * chosen.export.is_read_only | sessions.STRUCTURED * chosen.is_structured
        flags |= sessions.ALLOCATION * chosen.has_allocation | sessions.CHANGED * bool(chosen.since)
        size, sequence = chosen.export.size_bytes, chosen.export.snapshot
        alone.frontend.adopt(connection, sessions.NBD, flags, size, snapshot=sequence, since=chosen.since)

    stack.enter_context(nbd_door(listening, lambda: exports_of(VOLUME_BYTES, alone.node.snapshots()), adopt))
    with NbdClient(str(path), b"volume@monday") as client:
        assert client.size == VOLUME_BYTES and client.flags & nbd.IS_READ_ONLY
        assert client.read(0, 1 << 20) == held[: 1 << 20]
        assert client.write(0, b"x" * 512) == nbd.EPERM
    with pytest.raises(ProtocolError, match="there is no export of this name; there are: volume, volume-ro, volume@monday"):
        NbdClient(str(path), b"volume@tuesday")
    for tool, words in (
        ("nbdcopy", [f"nbd+unix:///volume@monday?socket={path}", tmp_path / "copied"]),
        ("qemu-img", ["convert", "-O", "raw", f"nbd+unix:///volume@monday?socket={path}", tmp_path / "converted"]),
    ):
        if shutil.which(tool):
            subprocess.run([tool, *map(str, words)], check=True, timeout=60)
            assert words[-1].read_bytes()[:VOLUME_BYTES] == held
    if shutil.which("nbdinfo"):
        found = subprocess.run(["nbdinfo", "--list", f"nbd+unix://?socket={path}"], capture_output=True, text=True, check=True)
        assert 'export="volume@monday"' in found.stdout and "farwrite:changed-since:monday" in found.stdout
    is_over.set()
    thread.join()
    alone.applied()
    assert all_of(alone.reader(made)) == held != all_of(writer)
    assert alone.node.snapshots()[0].kept_bytes > 0


def test_verbs_of_a_node_refuse_with_a_sentence_what_cannot_be(stack, files):
    with contextlib.ExitStack() as first_run:
        alone = Alone(first_run, *files)
        writer = alone.connect()
        assert writer.write(0, b"a" * PAGE) == 0
        before_ns = time.time_ns()
        made = alone.node.take_snapshot("monday")
        assert made.name == "monday" and before_ns <= made.taken_ns <= time.time_ns() and made.is_whole
        with pytest.raises(UsageError, match="There is a snapshot monday already"):
            alone.node.take_snapshot("monday")
        with pytest.raises(UsageError, match="There is no snapshot tuesday"):
            alone.node.delete_snapshot("tuesday")
        with pytest.raises(UsageError, match="'@' may not be in one"):
            alone.node.take_snapshot("a@b")
        assert writer.write(0, b"b" * PAGE) == 0
        for number in range(15):
            alone.node.take_snapshot(f"s{number}")
        with pytest.raises(UnfitError, match="There are 16 snapshots already, and no more than 16 are kept"):
            alone.node.take_snapshot("one-more")
        reader = alone.reader(made)
        assert reader.read(0, PAGE) == b"a" * PAGE
        alone.node.delete_snapshot("s3")
        assert [one.name for one in alone.node.snapshots()] == ["monday", *(f"s{number}" for number in range(15) if number != 3)]
        assert alone.reader(made).read(0, PAGE) == b"a" * PAGE
    with pytest.raises(UnfitError, match="The replica a does not lead"):
        alone.node.take_snapshot("late")
    alone = Alone(stack, *files)  # Its successor.
    assert len(alone.node.snapshots()) == 15 and all(one.is_whole for one in alone.node.snapshots())
    reader = alone.reader(made)
    assert reader.read(0, PAGE) == b"a" * PAGE
    assert alone.connect().read(0, PAGE) == b"b" * PAGE
    alone.node.delete_snapshot("monday")
    error, _ = reader.ask(nbd.READ, 0, PAGE)
    assert error == nbd.EIO
    until(lambda: alone.node.snapshots()[0].kept_bytes == 0, "its room to be given back")


def statuses(client, contexts, address=0, length=VOLUME_BYTES):
    """By context the status of each page, asked for until all is told."""
    told = {context: [] for context in contexts}
    position = address
    while position < address + length:
        tag = client.begin(nbd.BLOCK_STATUS, position, address + length - position)
        reached = []
        for context in contexts:
            flags, kind, answered, size = struct.unpack(">HHqI", client.take(20)[4:])
            assert kind == nbd.CHUNK_BLOCK_STATUS and answered == tag
            assert bool(flags & nbd.CHUNK_DONE) == (context == contexts[-1])
            numbers = struct.unpack(f">{size // 4}I", client.take(size))
            assert numbers[0] == context
            told[context] += [(size, status) for size, status in zip(numbers[1::2], numbers[2::2], strict=True)]
            reached.append(sum(numbers[1::2]))
        if len(set(reached)) > 1:  # Only as far as all have told.
            return None
        position += reached[0]
    return {context: [status for size, status in parts for _ in range(-(-size // PAGE))] for context, parts in told.items()}


def test_block_status_tells_of_a_snapshot_what_is_a_hole_and_what_may_differ(alone):
    writer = alone.connect()
    allocation, changed = nbd.BASE_ALLOCATION_ID, nbd.CHANGED_SINCE_ID
    assert writer.write(4 * PAGE, b"a" * PAGE) == 0
    older = alone.node.take_snapshot("older")
    assert writer.write(4 * PAGE, b"b" * PAGE) == writer.write(9 * PAGE, b"b" * PAGE) == 0
    newer = alone.node.take_snapshot("newer")
    assert writer.write(20 * PAGE, b"c" * PAGE) == 0
    assert writer.ask(nbd.TRIM, 4 * PAGE, PAGE)[0] == 0
    alone.applied()
    pages = -(-VOLUME_BYTES // PAGE)

    def told(client, context):
        return {page for page, status in enumerate(statuses(client, [context])[context]) if bool(status) == (context == changed)}

    for made, data in ((older, {4}), (newer, {4, 9})):
        assert told(alone.reader(made, STRUCTURED), allocation) == data
    since = {"since": older.sequence}
    flags = sessions.STRUCTURED | sessions.CHANGED
    assert told(alone.reader(older, flags, **since), changed) == set()
    assert told(alone.reader(newer, flags, **since), changed) == {4, 9}
    assert told(alone.connect(flags, **since), changed) == {4, 9, 20}
    assert told(alone.connect(flags, since=newer.sequence), changed) == {4, 20}
    both = statuses(alone.reader(newer, flags | STRUCTURED, **since), [allocation, changed], 4 * PAGE, PAGE)
    assert both == {allocation: [0], changed: [1]}
    gone = alone.connect(flags, **since)
    alone.node.delete_snapshot("older")
    assert gone.ask(nbd.BLOCK_STATUS, 0, PAGE)[0] == nbd.EIO
    assert len(statuses(alone.reader(newer, STRUCTURED), [allocation])[allocation]) == pages


def serve_until_killed(files, pipe):
    """In a process of its own: take a snapshot under load, tell what it shows, and go on writing."""
    with contextlib.ExitStack() as stack:
        alone = Alone(stack, *files)
        writer, draw = alone.connect(), random.Random(3)
        scribble(writer, draw, 200)
        held = all_of(writer)
        made = alone.node.take_snapshot("before")
        scribble(writer, draw, 50)
        os.write(pipe, hashlib.sha256(held).digest() + made.sequence.to_bytes(8, "little"))
        while True:
            scribble(writer, draw, 10)


@pytest.mark.parametrize("after_s", [0.0, 0.15])
def test_a_snapshot_outlives_a_process_that_is_killed_while_it_keeps_blocks(files, after_s):
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            serve_until_killed(files, writes)
        finally:
            os._exit(1)
    try:
        os.close(writes)
        told = os.read(reads, 40)
        assert len(told) == 40
        time.sleep(after_s)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reads)
    journal = recall(files[0], 7, STAGING_BYTES)
    data = np.zeros(VOLUME_BYTES, np.uint8)
    sequence = int.from_bytes(told[32:], "little")
    assert snapshot.read_snapshot(journal, reactor.empty(), data, 0, VOLUME_BYTES, 0, sequence) == VOLUME_BYTES
    assert hashlib.sha256(data.tobytes()).digest() == told[:32]
