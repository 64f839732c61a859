"""The ferry: first in, first out, never early, nothing lost, nothing written over.

has_room, next_start, admit, next_due and release are pure and run both ways. deliver, collect and ferry call libc, so they
run compiled only, between Unix sockets that keep packets apart as TUN devices do.
"""

import fcntl
import os
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from both_ways import both_ways
from farwrite.host.tun import PACKET_BYTES_MAX
from farwrite.lab import ferry_kernel as ferry
from oracle import ferry_oracle

STEPS = ("has_room", "next_start", "admit", "next_due", "release")
BOTH = list(zip(*(both_ways(getattr(ferry, name)) for name in STEPS), strict=True))
WAYS = [pytest.param(dict(zip(STEPS, (way.values[0] for way in ways), strict=True)), id=ways[0].id) for ways in BOTH]


class Story:
    """Kernel and oracle side by side: one packet arrives or leaves in each, and both must agree on everything."""

    def __init__(self, steps, ring_bytes, ring_packets, seed):
        self.steps = steps
        self.held = ferry.hold(ring_bytes, ring_packets)
        self.queue = ferry_oracle.Hold(ring_bytes, ring_packets)
        self.dice = np.random.default_rng(seed)
        self.now_ns = self.admitted = self.released = self.refused = 0

    def arrive(self, size, delay_ns):
        room = self.steps["has_room"](self.held)
        assert room == self.queue.has_room()
        if not room:
            self.refused += 1
            return
        start = int(self.steps["next_start"](self.held))
        content = self.dice.bytes(size)
        self.held.data[start : start + size] = np.frombuffer(content, np.uint8)
        due_ns = self.steps["admit"](self.held, size, self.now_ns, delay_ns)
        assert due_ns == self.queue.admit(content, self.now_ns, delay_ns) >= self.now_ns + delay_ns
        self.admitted += 1

    def leave(self):
        """What is due leaves; its bytes are still those that were put in, whatever was put in behind them."""
        while (due_ns := self.steps["next_due"](self.held)) <= self.now_ns:
            assert due_ns == self.queue.next_due()
            index = self.held.at[ferry.HEAD] % self.held.start.size
            start, size = int(self.held.start[index]), int(self.held.size[index])
            content, _ = self.queue.release()
            assert self.held.data[start : start + size].tobytes() == content
            self.steps["release"](self.held)
            self.released += 1
        assert due_ns == (ferry.NEVER if not self.queue.queue else self.queue.next_due())

    def kept(self):
        return int(self.held.at[ferry.TAIL] - self.held.at[ferry.HEAD])


def told(steps, seed, step_count):
    """A random story to its end: small packets and the largest, a delay that grows and shrinks."""
    dice = np.random.default_rng(seed)
    ring_bytes = int(dice.integers(PACKET_BYTES_MAX, 4 * PACKET_BYTES_MAX))
    story = Story(steps, ring_bytes, int(dice.integers(1, 40)), seed)
    delay_ns = 0
    for _ in range(step_count):
        story.now_ns += int(dice.integers(0, 500))
        if dice.random() < 0.1:
            delay_ns = int(dice.choice([0, 1, 700, 5_000, 30_000]))
        if dice.random() < 0.7:
            size = dice.choice([1, 64, int(dice.integers(1, 2_000)), int(dice.integers(1, 60_000)), PACKET_BYTES_MAX])
            story.arrive(int(size), delay_ns)
        else:
            story.leave()
        assert story.admitted == story.released + story.kept()
    return story


@pytest.mark.parametrize("steps", WAYS)
@pytest.mark.parametrize("seed", range(60))
def test_every_packet_leaves_in_order_when_due_and_as_it_came(steps, seed):
    story = told(steps, seed, 400)
    story.now_ns = int(ferry.NEVER) - 1
    story.leave()
    assert story.admitted == story.released > 0
    assert story.kept() == 0


def test_the_stories_do_fill_the_ring():
    steps = WAYS[0].values[0]
    assert sum(told(steps, seed, 400).refused for seed in range(20)) > 100


@pytest.mark.parametrize("steps", WAYS)
def test_a_delay_that_shrinks_lets_nobody_overtake(steps):
    held = ferry.hold(1 << 17, 8)
    assert steps["admit"](held, 10, 1_000, 5_000) == 6_000
    assert steps["admit"](held, 10, 2_000, 0) == 6_000
    assert steps["admit"](held, 10, 7_000, 0) == 7_000


@pytest.mark.parametrize("steps", WAYS)
def test_an_empty_hold_has_nothing_due_and_room(steps):
    held = ferry.hold(PACKET_BYTES_MAX, 1)
    assert steps["next_due"](held) == ferry.NEVER
    assert steps["has_room"](held)


@pytest.mark.parametrize("steps", WAYS)
def test_a_full_hold_refuses_until_its_oldest_packet_has_left(steps):
    for ring_packets, size in ((3, 1), (1000, PACKET_BYTES_MAX)):  # Full of packets, full of bytes.
        held = ferry.hold(3 * PACKET_BYTES_MAX, ring_packets)
        for lap in range(10):
            while steps["has_room"](held):
                steps["admit"](held, size, lap, 0)
            assert held.at[ferry.TAIL] - held.at[ferry.HEAD] == 3
            steps["release"](held)
            assert steps["has_room"](held)


@contextmanager
def devices(count=2):
    """Ends of packet-keeping sockets, (ours, the ferry's), non-blocking at the ferry's end as a TUN device is."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)]
    try:
        for ours, theirs in pairs:
            ours.settimeout(10)
            theirs.setblocking(False)
        yield pairs
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


def new_board():
    return np.zeros(ferry.BOARD_WORDS, np.int64)


@contextmanager
def packet_pipe():
    """(read, write) ends of a pipe that keeps packets apart and has room for 256 of them, which a socket has not."""
    reader, writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 256 * 4096)
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def test_collect_takes_a_burst_and_deliver_passes_it_on_unchanged():
    dice = np.random.default_rng(1)
    held, board = ferry.hold(1 << 20, 1 << 10), new_board()
    sent = [dice.bytes(int(size)) for size in dice.integers(1, 1500, 100)]
    with packet_pipe() as (near_fd, near), packet_pipe() as (far, far_fd):
        for content in sent:
            os.write(near, content)
        assert ferry.collect(held, near_fd, board, 0) == ferry.BURST
        assert ferry.collect(held, near_fd, board, 0) == 100 - ferry.BURST
        assert ferry.collect(held, near_fd, board, 0) == 0
        assert ferry.deliver(held, far_fd, board, 0, time.monotonic_ns())
        assert [os.read(far, 4096) for _ in sent] == sent
    assert board[ferry.PACKETS] == 100
    assert board[ferry.BYTES] == sum(map(len, sent))
    assert not board[ferry.REFUSED : ferry.REFUSED + 2].any()


def test_deliver_leaves_alone_what_is_not_due():
    held, board = ferry.hold(1 << 17, 8), new_board()
    with devices() as ((near, near_fd), (far, far_fd)):
        near.send(b"later")
        board[ferry.DELAY_NS] = 1_000_000_000
        ferry.collect(held, near_fd.fileno(), board, 0)
        due_ns = int(ferry.next_due(held))
        assert ferry.deliver(held, far_fd.fileno(), board, 0, due_ns - 1)
        assert board[ferry.PACKETS] == 0
        assert ferry.deliver(held, far_fd.fileno(), board, 0, due_ns)
        assert far.recv(100) == b"later"


def test_a_cut_link_swallows_packets_and_counts_them():
    held, board = ferry.hold(1 << 17, 8), new_board()
    board[ferry.CUT + 1] = 1
    with devices(1) as ((near, near_fd),):
        for _ in range(3):
            near.send(b"lost")
        assert ferry.collect(held, near_fd.fileno(), board, 1) == 3
    assert board[ferry.CUT_DROPS : ferry.CUT_DROPS + 2].tolist() == [0, 3]
    assert ferry.next_due(held) == ferry.NEVER


def test_a_full_hold_is_noted_and_the_packet_waits_in_the_device():
    held, board = ferry.hold(1 << 17, 2), new_board()
    with devices() as ((near, near_fd), (far, far_fd)):
        for name in (b"1", b"2", b"3"):
            near.send(name)
        assert ferry.collect(held, near_fd.fileno(), board, 0) == 2
        assert board[ferry.FULL] == 1
        ferry.deliver(held, far_fd.fileno(), board, 0, time.monotonic_ns())
        assert ferry.collect(held, near_fd.fileno(), board, 0) == 1
        ferry.deliver(held, far_fd.fileno(), board, 0, time.monotonic_ns())
        assert [far.recv(10) for _ in range(3)] == [b"1", b"2", b"3"]


def test_a_device_that_takes_no_more_for_now_loses_nothing():
    held, board = ferry.hold(1 << 20, 1 << 10), new_board()
    sent = [bytes([index % 256]) * 1000 for index in range(600)]
    received, refusals = [], 0
    with devices() as ((near, near_fd), (far, far_fd)):
        for content in sent:
            near.send(content)
            ferry.collect(held, near_fd.fileno(), board, 0)
            if not ferry.deliver(held, far_fd.fileno(), board, 0, time.monotonic_ns()):
                refusals += 1
                received.append(far.recv(2000))
        while len(received) < len(sent):
            received.append(far.recv(2000))
            ferry.deliver(held, far_fd.fileno(), board, 0, time.monotonic_ns())
    assert received == sent
    assert refusals > 0
    assert board[ferry.REFUSED] == 0


@contextmanager
def under_way(near_end, far_end, board):
    """The ferry's loop in a thread: it holds no GIL."""
    words = np.zeros(4, np.int32), np.zeros(2, np.int64)
    holds = ferry.hold(1 << 20, 1 << 10), ferry.hold(1 << 20, 1 << 10)
    thread = threading.Thread(target=ferry.ferry, args=(near_end.fileno(), far_end.fileno(), *holds, board, *words))
    thread.start()
    try:
        yield
    finally:
        board[ferry.STOP] = 1
        thread.join()


@pytest.mark.parametrize(("outward_ns", "homeward_ns"), [(0, 0), (3_000_000, 0), (0, 3_000_000), (1_000_000, 4_000_000)])
def test_each_direction_is_held_for_its_own_delay(outward_ns, homeward_ns):
    board = new_board()
    board[ferry.DELAY_NS : ferry.DELAY_NS + 2] = outward_ns, homeward_ns
    with devices() as ((near, near_fd), (far, far_fd)), under_way(near_fd, far_fd, board):
        for sender, receiver, asked_ns in ((near, far, outward_ns), (far, near, homeward_ns)):
            for index in range(5):
                begin_ns = time.monotonic_ns()
                sender.send(b"%d" % index)
                assert receiver.recv(10) == b"%d" % index
                assert time.monotonic_ns() - begin_ns >= asked_ns
    assert board[ferry.PACKETS : ferry.PACKETS + 2].tolist() == [5, 5]


def test_the_ferry_carries_both_ways_at_once_and_counts_what_it_carried():
    dice = np.random.default_rng(2)
    board = new_board()
    board[ferry.DELAY_NS : ferry.DELAY_NS + 2] = 200_000
    letters = [[dice.bytes(int(size)) for size in dice.integers(1, 3000, 500)] for _ in range(2)]
    got = [[], []]
    with devices() as ((near, near_fd), (far, far_fd)), under_way(near_fd, far_fd, board):
        readers = [
            threading.Thread(target=lambda end=end, mine=mine: mine.extend(end.recv(1 << 16) for _ in range(500)))
            for end, mine in ((far, got[0]), (near, got[1]))
        ]
        for reader in readers:
            reader.start()
        for outward, homeward in zip(*letters, strict=True):
            near.send(outward)
            far.send(homeward)
        for reader in readers:
            reader.join()
    assert got == letters
    assert board[ferry.PACKETS : ferry.PACKETS + 2].tolist() == [500, 500]
    assert board[ferry.BYTES : ferry.BYTES + 2].tolist() == [sum(map(len, side)) for side in letters]
