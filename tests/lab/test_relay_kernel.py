"""The relay: a stream arrives whole, in order and never early; ends and resets travel as late as bytes; nothing is written over.

The steps are pure and run both ways. deliver, collect and relay call libc, so they run compiled only, between real sockets.
"""

import array
import fcntl
import os
import socket
import struct
import termios
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from both_ways import both_ways
from farwrite.base.row import rows_of
from farwrite.lab import relay_kernel as relay
from oracle import relay_oracle as oracle

STEPS = (
    "has_room", "next_start", "oldest_start", "oldest_size", "admit", "next_due", "release", "pass_wire", "segment_bytes",
    "clear", "drawn_delay", "wants_bytes", "take_in",
)  # fmt: skip
BOTH = list(zip(*(both_ways(getattr(relay, name)) for name in STEPS), strict=True))
WAYS = [pytest.param(dict(zip(STEPS, (way.values[0] for way in ways), strict=True)), id=ways[0].id) for ways in BOTH]
SEGMENT = relay.SEGMENT_BYTES_MAX
KINDS = {relay.END: oracle.END, relay.RESET: oracle.RESET}
PATIENCE_S = 60.0


def new_board():
    return np.zeros(relay.BOARD_WORDS, np.int64)


class Story:
    """Two lanes of kernel and oracle side by side: what happens in one lane is nothing to the other."""

    def __init__(self, steps, ring_bytes, ring_segments, seed):
        self.steps = steps
        self.held = relay.streams(1, ring_bytes, ring_segments)
        self.lanes = [oracle.Lane(ring_bytes, ring_segments) for _ in range(2)]
        self.wires = [oracle.Wire(), oracle.Wire()]
        self.dice = np.random.default_rng(seed)
        self.now_ns = self.admitted = self.released = self.refused = 0

    def arrive(self, lane, size, delay_ns, rate):
        room = self.steps["has_room"](self.held, lane)
        assert room == self.lanes[lane].has_room()
        if not room:
            self.refused += 1
            return
        content = KINDS.get(size) or self.dice.bytes(size)
        if size > 0:
            start = int(self.steps["next_start"](self.held, lane))
            self.held.data[lane, start : start + size] = np.frombuffer(content, np.uint8)
        left_ns = int(self.steps["pass_wire"](self.held, lane, size, self.now_ns, rate))
        assert left_ns == self.wires[lane].passes(size, self.now_ns, rate) >= self.now_ns
        due_ns = int(self.steps["admit"](self.held, lane, size, left_ns, delay_ns))
        assert due_ns == self.lanes[lane].admit(content, left_ns, delay_ns) >= self.now_ns + delay_ns
        self.admitted += 1

    def leave(self, lane):
        """What is due leaves; its bytes are still those that were put in, whatever was put in behind them."""
        steps, queue = self.steps, self.lanes[lane]
        while (due_ns := steps["next_due"](self.held, lane)) <= self.now_ns:
            assert due_ns == queue.next_due()
            start, size = int(steps["oldest_start"](self.held, lane)), int(steps["oldest_size"](self.held, lane))
            content, _ = queue.release()
            assert (KINDS.get(size) or self.held.data[lane, start : start + size].tobytes()) == content
            steps["release"](self.held, lane)
            self.released += 1
        assert due_ns == (relay.NEVER if not queue.queue else queue.next_due())


def told(steps, seed, step_count):
    """A random story to its end: small segments and the largest, ends and resets, a delay and a rate that change."""
    dice = np.random.default_rng(seed)
    story = Story(steps, int(dice.integers(SEGMENT, 4 * SEGMENT)), int(dice.integers(2, 40)), seed)
    delay_ns = rate = 0
    for _ in range(step_count):
        story.now_ns += int(dice.integers(0, 500))
        lane = int(dice.integers(0, 2))
        if dice.random() < 0.1:
            delay_ns = int(dice.choice([0, 1, 700, 5_000, 30_000]))
            rate = int(dice.choice([0, 0, 10**9, 10**12, int(dice.integers(1_000, 10**10))]))
        if dice.random() < 0.7:
            size = dice.choice([0, -1, 1, 64, int(dice.integers(1, 2_000)), int(dice.integers(1, SEGMENT)), SEGMENT])
            story.arrive(lane, int(size), delay_ns, rate)
        else:
            story.leave(lane)
    return story


@pytest.mark.parametrize("steps", WAYS)
@pytest.mark.parametrize("seed", range(40))
def test_every_segment_leaves_in_order_when_due_and_as_it_came(steps, seed):
    story = told(steps, seed, 400)
    story.now_ns = int(relay.NEVER) - 1
    for lane in range(2):
        story.leave(lane)
        assert not any(story.held.at[lane][["head", "tail", "free", "oldest"]])
    assert story.admitted == story.released > 0


def test_the_stories_do_fill_the_ring():
    assert sum(told(WAYS[0].values[0], seed, 400).refused for seed in range(20)) > 100


@pytest.mark.parametrize("steps", WAYS)
def test_a_delay_that_shrinks_lets_nothing_overtake(steps):
    held = relay.streams(1, 1 << 17, 8)
    assert steps["admit"](held, 0, 10, 1_000, 5_000) == 6_000
    assert steps["admit"](held, 0, 10, 2_000, 0) == 6_000
    assert steps["admit"](held, 0, 10, 7_000, 0) == 7_000
    assert steps["admit"](held, 1, 10, 2_000, 0) == 2_000


@pytest.mark.parametrize("steps", WAYS)
def test_a_full_lane_keeps_a_place_for_a_reset(steps):
    held = relay.streams(1, 1 << 20, 5)
    while steps["has_room"](held, 0):
        steps["admit"](held, 0, 1, 0, 0)
    assert held.at[0].tail == 4
    steps["admit"](held, 0, relay.RESET, 0, 0)
    assert held.at[0].tail == 5


@pytest.mark.parametrize("steps", WAYS)
def test_a_slow_wire_is_fed_in_small_segments_and_a_fast_one_in_large(steps):
    assert steps["segment_bytes"](0) == SEGMENT
    assert steps["segment_bytes"](10**12) == SEGMENT
    assert steps["segment_bytes"](10**8) == 12_500  # 1 ms of it.
    assert steps["segment_bytes"](1_000) == relay.PACKET_BYTES


@pytest.mark.parametrize("steps", WAYS)
def test_what_is_sent_before_the_handshake_is_over_counts_as_sent_after_it(steps):
    held, board, jitter_ns = relay.streams(1, 1 << 17, 8), new_board(), np.zeros((2, 8), np.int64)
    board[relay.DELAY_NS] = 100
    steps["clear"](held, 0, 1_000)
    steps["take_in"](held, 0, 10, 300, board, jitter_ns)
    assert steps["next_due"](held, 0) == 1_100
    steps["release"](held, 0)
    steps["take_in"](held, 0, 10, 2_000, board, jitter_ns)
    assert steps["next_due"](held, 0) == 2_100


@pytest.mark.parametrize("steps", WAYS)
def test_jitter_is_drawn_from_the_table_and_again_the_same_from_the_same_seed(steps):
    board, jitter_ns = new_board(), np.array([[-3_000, -500, 500, 3_000], [0, 0, 0, 0]])
    board[relay.DELAY_NS], board[relay.JITTERED], board[relay.SEED] = 1_000, 1, 7
    drawn = []
    for _ in range(2):
        held = relay.streams(1, 1 << 17, 8)
        drawn.append([int(steps["drawn_delay"](held, 0, board, jitter_ns)) for _ in range(400)])
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) == {0, 500, 1_500, 4_000}
    assert min(drawn[0].count(value) for value in (0, 500, 1_500, 4_000)) > 60
    assert steps["drawn_delay"](held, 1, board, jitter_ns) == 0


@pytest.mark.parametrize("steps", WAYS)
def test_nothing_is_read_for_a_link_that_is_cut_or_a_wire_that_is_behind(steps):
    held, board = relay.streams(1, 1 << 17, 8), new_board()
    steps["clear"](held, 0, 0)
    assert steps["wants_bytes"](held, 0, board, 0)
    board[relay.CUT] = 1
    assert not steps["wants_bytes"](held, 0, board, 0)
    board[relay.CUT] = 0
    steps["pass_wire"](held, 0, 10_000, 0, 10_000_000)
    assert not steps["wants_bytes"](held, 0, board, 0)
    assert steps["wants_bytes"](held, 0, board, held.wire_ns[0] - relay.BACKLOG_NS)
    held.at[0].reads = relay.ENDED
    assert not steps["wants_bytes"](held, 0, board, held.wire_ns[0])


# The loop, between real sockets.


def tcp_pair():
    """Two ends of a TCP connection on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname())
        other, _ = listening.accept()
    for end in (one, other):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.settimeout(PATIENCE_S)
    return one, other


class Carried:
    """A connection through the loop, which runs in a thread: it holds no GIL."""

    def __init__(self, board, ring_bytes=1 << 20, ring_segments=1 << 10):
        self.board = board
        self.held = relay.streams(1, ring_bytes, ring_segments)
        self.ends = rows_of(relay.Ends)
        (self.near, self.near_side), (self.far, self.far_side) = tcp_pair(), tcp_pair()
        self.wake_read, self.wake_write = os.pipe()
        self.notes, self.note_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        for lane in range(2):
            relay.clear(self.held, lane, 0)
        self.ends[0].near_fd, self.ends[0].far_fd = self.near_side.fileno(), self.far_side.fileno()
        relay.post(self.ends, 0, relay.OPEN)

    def run(self):
        jitter_ns, words = np.zeros((2, 8), np.int64), (np.zeros(6, np.int32), np.zeros(2, np.int64))
        relay.relay(self.held, self.ends, self.board, jitter_ns, self.wake_read, self.note_write, *words)

    def wake(self):
        os.write(self.wake_write, b"\0")

    def has_counted(self, sizes):
        """The loop counts what it has sent, so a receiver may be quicker."""
        until_s = time.monotonic() + PATIENCE_S
        while self.board[relay.BYTES : relay.BYTES + 2].tolist() != sizes:
            assert time.monotonic() < until_s, self.board
            time.sleep(0.001)

    def has_sent(self, segments):
        """Once the loop has sent so many outwards."""
        until_s = time.monotonic() + PATIENCE_S
        while self.board[relay.SEGMENTS] < segments:
            assert time.monotonic() < until_s, self.board
            time.sleep(0.001)

    def has_taken(self):
        """Once the loop has read everything that near has sent; tcp(7), SIOCINQ."""
        until_s, unread = time.monotonic() + PATIENCE_S, array.array("i", [1])
        while unread[0]:
            assert time.monotonic() < until_s, self.board
            fcntl.ioctl(self.near_side, termios.FIONREAD, unread)
            time.sleep(0.001)

    def ended(self):
        """The state the loop left the connection in, once it says that it is through with it."""
        os.read(self.notes, 1)
        return int(self.ends[0].state)

    def close(self):
        for end in (self.near, self.near_side, self.far, self.far_side):
            end.close()
        for descriptor in (self.wake_read, self.wake_write, self.notes, self.note_write):
            os.close(descriptor)


@contextmanager
def carried(outward_ns=0, homeward_ns=0, **rings):
    board = new_board()
    board[relay.DELAY_NS : relay.DELAY_NS + 2] = outward_ns, homeward_ns
    made = Carried(board, **rings)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        board[relay.STOP] = 1
        made.wake()
        thread.join()
        made.close()


def received(end, size):
    """So many bytes from a socket, or what came before its end."""
    parts = []
    while size > 0 and (part := end.recv(min(size, 1 << 20))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def test_nothing_arrives_before_its_delay_in_either_direction():
    with carried(2_000_000, 5_000_000) as made:
        for sender, receiver, delay_ns in ((made.near, made.far, 2_000_000), (made.far, made.near, 5_000_000)):
            for _ in range(5):
                begin_ns = time.monotonic_ns()
                sender.sendall(b"x" * 100)
                assert received(receiver, 100) == b"x" * 100
                assert time.monotonic_ns() - begin_ns >= delay_ns
        made.has_counted([500, 500])


def test_streams_pass_both_ways_at_once_whole_and_in_order():
    letters = [np.random.default_rng(seed).bytes(20 << 20) for seed in range(2)]
    with carried(300_000, 700_000) as made:
        sides = [(made.near, made.far), (made.far, made.near)]
        senders = [threading.Thread(target=side[0].sendall, args=(letter,)) for side, letter in zip(sides, letters, strict=True)]
        got = [b"", b""]

        def take(index):
            got[index] = received(sides[index][1], len(letters[index]))

        takers = [threading.Thread(target=take, args=(index,)) for index in range(2)]
        for thread in senders + takers:
            thread.start()
        for thread in senders + takers:
            thread.join()
        assert got == letters
        made.has_counted([len(letter) for letter in letters])
        assert not made.board[relay.DROPS : relay.DROPS + 2].any()


def test_a_receiver_that_does_not_read_makes_the_sender_wait():
    letter = np.random.default_rng(1).bytes(40 << 20)
    with carried(ring_bytes=1 << 17, ring_segments=16) as made:
        sending = threading.Thread(target=made.near.sendall, args=(letter,))
        sending.start()
        sending.join(0.5)
        assert sending.is_alive()
        assert made.board[relay.FULL] > 0
        assert received(made.far, len(letter)) == letter
        sending.join()


def test_the_end_of_a_stream_travels_behind_its_bytes_and_leaves_the_other_direction_open():
    with carried(3_000_000, 1_000_000) as made:
        begin_ns = time.monotonic_ns()
        made.near.sendall(b"last words")
        made.near.shutdown(socket.SHUT_WR)
        assert received(made.far, 1_000) == b"last words"
        assert time.monotonic_ns() - begin_ns >= 3_000_000
        made.far.sendall(b"heard")
        assert received(made.near, 5) == b"heard"
        made.far.shutdown(socket.SHUT_WR)
        assert received(made.near, 1) == b""
        assert made.ended() == relay.CLOSING


def test_a_reset_travels_as_late_as_bytes_do():
    with carried(4_000_000, 0) as made:
        begin_ns = time.monotonic_ns()
        made.near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        made.near.close()
        assert made.ended() == relay.RESETTING
        assert time.monotonic_ns() - begin_ns >= 4_000_000


def test_who_sends_to_one_that_is_gone_hears_of_it_after_a_round_trip():
    with carried(2_000_000, 3_000_000) as made:
        made.far.close()
        assert made.near.recv(1) == b""
        made.near.sendall(b"x")  # The answer to this is a reset, and it meets the next.
        made.has_sent(1)
        time.sleep(0.01)
        begin_ns = time.monotonic_ns()
        made.near.sendall(b"y")
        assert made.ended() == relay.RESETTING
        assert time.monotonic_ns() - begin_ns >= 5_000_000
        assert made.board[relay.DROPS] > 0


def test_a_cut_holds_what_is_sent_until_it_is_healed_and_lets_arrive_what_was_under_way():
    with carried(300_000_000, 0) as made:
        made.near.sendall(b"under way")
        made.has_taken()
        made.board[relay.CUT : relay.CUT + 2] = 1
        made.near.sendall(b"later")
        assert received(made.far, 9) == b"under way"
        made.far.settimeout(0.1)
        with pytest.raises(TimeoutError):
            made.far.recv(1)
        made.far.settimeout(PATIENCE_S)
        healed_ns = time.monotonic_ns()
        made.board[relay.CUT : relay.CUT + 2] = 0
        made.wake()
        assert received(made.far, 5) == b"later"
        assert time.monotonic_ns() - healed_ns >= 300_000_000


def test_a_rate_is_not_exceeded():
    size, rate = 1 << 20, 100_000_000
    with carried() as made:
        made.board[relay.RATE] = rate
        begin_ns = time.monotonic_ns()
        sending = threading.Thread(target=made.near.sendall, args=(bytes(size),))
        sending.start()
        assert len(received(made.far, size)) == size
        sending.join()
        assert time.monotonic_ns() - begin_ns >= 8_000_000_000 * size // rate
