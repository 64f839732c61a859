"""The ferry: first in, first out, never early, nothing lost or written over; unless a way asks for it, and then exactly that.

The steps are pure and run both ways. receive_packet, deliver, collect and ferry call libc, so they
run compiled only, between Unix sockets that keep packets apart as TUN devices do.
"""

import contextlib
import fcntl
import itertools
import os
import socket
import struct
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from both_ways import both_ways
from farwrite.base.host.tun import PACKET_BYTES_MAX, VNET_HEADER_BYTES
from farwrite.lab import ferry_kernel as ferry
from farwrite.lab.ferry import lay_out
from farwrite.workload.jitter import deviations, table_of
from farwrite.workload.link_spec import Bursts, LinkDirection
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
            index = self.held.at[0].head % self.held.start.size
            start, size = int(self.held.start[index]), int(self.held.size[index])
            content, _ = self.queue.release()
            assert self.held.data[start : start + size].tobytes() == content
            self.steps["release"](self.held)
            self.released += 1
        assert due_ns == (ferry.NEVER if not self.queue.queue else self.queue.next_due())

    def kept(self):
        return int(self.held.at[0].tail - self.held.at[0].head)


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
            assert held.at[0].tail - held.at[0].head == 3
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
        assert ferry.collect(held, near_fd, -1, board, 0) == ferry.BURST
        assert ferry.collect(held, near_fd, -1, board, 0) == 100 - ferry.BURST
        assert ferry.collect(held, near_fd, -1, board, 0) == 0
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
        ferry.collect(held, near_fd.fileno(), -1, board, 0)
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
        assert ferry.collect(held, near_fd.fileno(), -1, board, 1) == 3
    assert board[ferry.CUT_DROPS : ferry.CUT_DROPS + 2].tolist() == [0, 3]
    assert ferry.next_due(held) == ferry.NEVER


def test_a_full_hold_is_noted_and_the_packet_waits_in_the_device():
    held, board = ferry.hold(1 << 17, 2), new_board()
    with devices() as ((near, near_fd), (far, far_fd)):
        for name in (b"1", b"2", b"3"):
            near.send(name)
        assert ferry.collect(held, near_fd.fileno(), -1, board, 0) == 2
        assert board[ferry.FULL] == 1
        ferry.deliver(held, far_fd.fileno(), board, 0, time.monotonic_ns())
        assert ferry.collect(held, near_fd.fileno(), -1, board, 0) == 1
        ferry.deliver(held, far_fd.fileno(), board, 0, time.monotonic_ns())
        assert [far.recv(10) for _ in range(3)] == [b"1", b"2", b"3"]


def test_a_device_that_takes_no_more_for_now_loses_nothing():
    held, board = ferry.hold(1 << 20, 1 << 10), new_board()
    sent = [bytes([index % 256]) * 1000 for index in range(600)]
    received, refusals = [], 0
    with devices() as ((near, near_fd), (far, far_fd)):
        for content in sent:
            near.send(content)
            ferry.collect(held, near_fd.fileno(), -1, board, 0)
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
def in_flight(near_end, far_end, board):
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
    with devices() as ((near, near_fd), (far, far_fd)), in_flight(near_fd, far_fd, board):
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
    with devices() as ((near, near_fd), (far, far_fd)), in_flight(near_fd, far_fd, board):
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


def test_a_ferry_that_always_has_something_to_spin_for_gives_way_now_and_then():
    board = new_board()
    board[ferry.POLL_NS] = 1 << 60
    with devices() as ((near, near_fd), (far, far_fd)), in_flight(near_fd, far_fd, board):
        until = time.monotonic() + 60
        while board[ferry.WAKEUPS] < 3:  # Whoever waits for its processor runs then.
            near.send(b"packet")
            assert far.recv(10) == b"packet"
            assert time.monotonic() < until, "it never sleeps, however long it runs"
    assert board[ferry.PACKETS] >= 1 and board[ferry.LOST] == 0


# What a way asks for.

SOME_OF_EACH = LinkDirection(loss_ratio=0.1, duplicate_ratio=0.2, reorder_ratio=0.3, corrupt_ratio=0.15)
IN_BURSTS = LinkDirection(bursts=Bursts(0.05, 0.25, 0.9, 0.01), duplicate_ratio=0.1)


def board_of(way, direction=0, seed=1):
    """A board that asks for this way."""
    board = new_board()
    lay_out(board, direction, way, seed)
    return board


def way_at(direction):
    return ferry.WAY + direction * ferry.DIRECTION_WORDS


@pytest.mark.parametrize("decide_fate", both_ways(ferry.decide_fate))
@pytest.mark.parametrize("way", [LinkDirection(), SOME_OF_EACH, IN_BURSTS], ids=["plain", "each", "bursts"])
@pytest.mark.parametrize("direction", [0, 1])
def test_what_befalls_a_packet_follows_from_seed_direction_and_number(decide_fate, way, direction):
    words = {"lose": ferry.LOSE, "twice": ferry.TWICE, "ahead": ferry.AHEAD, "damage": ferry.DAMAGE}
    for seed in (1, 7):
        held, board = ferry.hold(1 << 17, 8), board_of(way, direction, seed)
        oracle = ferry_oracle.Judge(way, seed, direction)
        for _ in range(300):
            assert decide_fate(held, board, way_at(direction)) == sum(words[word] for word in oracle.befalls())


def verdicts(way, count, seed=1):
    held, board = ferry.hold(1 << 17, 8), board_of(way, 0, seed)
    return np.array([ferry.decide_fate(held, board, way_at(0)) for _ in range(count)])


def test_each_share_is_that_of_many_packets():
    count = 40_000
    found = verdicts(SOME_OF_EACH, count)
    kept = found[found != ferry.LOSE]
    for made, share, of in (
        ((found == ferry.LOSE).sum(), 0.1, count), ((kept & ferry.TWICE != 0).sum(), 0.2, kept.size),
        ((kept & ferry.AHEAD != 0).sum(), 0.3, kept.size), ((kept & ferry.DAMAGE != 0).sum(), 0.15, kept.size),
    ):  # fmt: skip
        assert abs(made - share * of) < 5 * (of * share * (1 - share)) ** 0.5


def test_bursts_are_as_long_and_as_rare_as_gilbert_and_elliott_say():
    bursts = Bursts(enter_ratio=0.01, leave_ratio=0.25)
    lost = verdicts(LinkDirection(bursts=bursts), 100_000) == ferry.LOSE
    edges = np.flatnonzero(np.diff(np.concatenate([[False], lost, [False]]).astype(int)))
    lengths = edges[1::2] - edges[::2]
    assert abs(lengths.mean() - 4) < 5 * 12**0.5 / lengths.size**0.5  # A geometric length: variance (1 - r) / r^2.
    assert abs(lost.mean() - bursts.loss_ratio) < 0.01


@pytest.mark.parametrize("transmit", both_ways(ferry.transmit))
@pytest.mark.parametrize("rate", [1_000, 999_983, 10**9, 10**11, 10**12])
def test_a_wire_carries_one_packet_after_the_other_and_loses_no_time(transmit, rate):
    dice = np.random.default_rng(rate)
    held, wire, now_ns = ferry.hold(1 << 17, 8), ferry_oracle.Wire(rate), 1_000
    for _ in range(300):
        now_ns += int(dice.integers(0, 2 * 8 * 10**12 // rate))
        size = int(dice.integers(40, 1500))
        assert transmit(held, now_ns, size, rate) == wire.transmit(now_ns, size)


@pytest.mark.parametrize("waiting", both_ways(ferry.waiting))
def test_what_waits_for_the_rate_is_what_has_not_left(waiting):
    dice = np.random.default_rng(3)
    held, wire, now_ns = ferry.hold(1 << 20, 1 << 10), ferry_oracle.Wire(10**9), 1_000
    for _ in range(500):
        now_ns += int(dice.integers(0, 13_000))
        assert waiting(held, now_ns) == wire.waiting(now_ns)
        ferry.admit(held, 100, ferry.transmit(held, now_ns, 1000, 10**9), 50_000)
        wire.transmit(now_ns, 1000)
        while ferry.next_due(held) <= now_ns:
            ferry.release(held)


def header(segment_bytes=0, transport=20, flags=0):
    """A virtio header: checksum flags, kind of offload, header length, segment size, where the checksum begins, and lies."""
    kind = 1 if segment_bytes else 0
    return struct.pack("<BBHHHH", flags, kind, 0, segment_bytes, transport, 16)


@pytest.mark.parametrize("wire_bytes_of", both_ways(ferry.wire_bytes_of))
@pytest.mark.parametrize("segment_bytes", [0, 536, 1448])
@pytest.mark.parametrize("size", [60, 1500, 1501, 30_000, 65_535])
def test_a_large_segment_counts_as_the_packets_it_stands_for(wire_bytes_of, segment_bytes, size):
    packet = bytearray(size)
    packet[20 + 12] = 8 << 4  # TCP's header: 32 bytes.
    data = np.frombuffer(bytes(3) + header(segment_bytes) + bytes(packet), np.uint8)
    asked = ferry_oracle.wire_bytes(size, segment_bytes, 52)
    assert wire_bytes_of(data, 3, VNET_HEADER_BYTES + size) == asked


@pytest.mark.parametrize("turn_bit", both_ways(ferry.turn_bit))
def test_damage_is_one_bit_of_the_packet_and_never_where_its_checksum_is_missing(turn_bit):
    held, board = ferry.hold(1 << 17, 8), board_of(LinkDirection(corrupt_ratio=1.0))
    seen = set()
    for number in range(1, 200):
        held.at[0].number = number
        held.data[:] = 0
        assert turn_bit(held, board, way_at(0), 5, VNET_HEADER_BYTES + 40)
        (place,) = np.flatnonzero(held.data)
        assert 15 <= place < 55
        assert int(held.data[place]).bit_count() == 1
        seen.add(int(place))
    assert len(seen) > 30
    held.data[:] = 0
    held.data[5] = 1
    assert not turn_bit(held, board, way_at(0), 5, VNET_HEADER_BYTES + 40)
    assert held.data.sum() == 1


@pytest.mark.parametrize("deviation_ns", both_ways(ferry.deviation_ns))
@pytest.mark.parametrize("shape", ["uniform", "normal", "pareto"])
def test_jitter_has_the_deviation_and_the_mean_that_were_asked(deviation_ns, shape):
    way = LinkDirection(jitter_ns=200_000, jitter_shape=shape)
    board = board_of(way, 1)
    made = np.array([deviation_ns(board, way_at(1), ferry.TABLE + ferry.TABLE_WORDS, number) for number in range(4000)])
    wide = 200_000 / 3**0.5 if shape == "uniform" else 200_000
    assert abs(made.mean()) < 5 * wide / 4000**0.5
    asked = deviations(way)
    assert abs(asked.std() / wide - 1) < 0.001
    for share in (0.05, 0.5, 0.95):
        assert abs((made <= np.quantile(asked, share)).mean() - share) < 0.03


def test_a_recorded_jitter_is_that_of_the_record_or_scaled(tmp_path):
    record = tmp_path / "delays"
    record.write_text("# one-way, ns\n1000000\n1200000\n\n1100000\n3000000\n")
    own = deviations(LinkDirection(jitter_shape="recorded", jitter_file=str(record)))
    assert abs(own.max() - (3_000_000 - 1_575_000)) < 1_000
    scaled = deviations(LinkDirection(jitter_shape="recorded", jitter_file=str(record), jitter_ns=1000))
    assert np.allclose(scaled / own, scaled[0] / own[0])
    unit_ns, table = table_of(LinkDirection(jitter_shape="recorded", jitter_file=str(record)))
    assert abs(unit_ns * table.max() / 8192 - own.max()) < unit_ns / 4096


def carried(way, packets, now_ns=0):
    """What arrives of packets that one burst brings, and the board."""
    held, board = ferry.hold(1 << 20, 1 << 10), board_of(way)
    board[ferry.DELAY_NS] = 1_000_000
    with packet_pipe() as (near_fd, near), packet_pipe() as (far, far_fd):
        for packet in packets:
            os.write(near, packet)
        ferry.collect(held, near_fd, far_fd, board, 0)
        ferry.deliver(held, far_fd, board, 0, ferry.NEVER - 1)
        got = []
        with contextlib.suppress(BlockingIOError):
            while True:
                got.append(os.read(far, 4096))
    return got, board


PACKETS = [header() + bytes([number]) * 50 for number in range(40)]


def test_the_same_seed_loses_the_same_packets():
    got, board = carried(LinkDirection(loss_ratio=0.3), PACKETS)
    again, _ = carried(LinkDirection(loss_ratio=0.3), PACKETS)
    assert got == again
    assert 0 < len(got) < 40
    assert board[ferry.LOST] == 40 - len(got)
    assert got == [packet for packet in PACKETS if packet in got]  # In order.


def test_a_packet_sent_twice_arrives_twice_in_a_row():
    got, board = carried(LinkDirection(duplicate_ratio=1.0), PACKETS[:5])
    assert got == [packet for packet in PACKETS[:5] for _ in range(2)]
    assert board[ferry.DUPLICATED] == 5


def test_a_packet_sent_ahead_overtakes_those_that_are_held():
    got, board = carried(LinkDirection(reorder_ratio=0.3), PACKETS)
    assert sorted(got) == sorted(PACKETS)
    ahead = int(board[ferry.REORDERED])
    assert 0 < ahead < 40
    assert got[:ahead] == sorted(got[:ahead])
    assert got[ahead:] == sorted(got[ahead:])
    assert got != PACKETS


def test_a_damaged_packet_differs_by_one_bit():
    got, board = carried(LinkDirection(corrupt_ratio=1.0), PACKETS)
    assert board[ferry.CORRUPTED] == 40
    for sent, came in zip(PACKETS, got, strict=True):
        assert (int.from_bytes(sent) ^ int.from_bytes(came)).bit_count() == 1


def test_a_full_queue_drops_what_comes_and_one_without_a_bound_nothing():
    got, board = carried(LinkDirection(rate_bits_per_s=1_000_000, queue_packets=7), PACKETS)
    assert got == PACKETS[:7]
    assert board[ferry.QUEUE_DROPS] == 33
    got, board = carried(LinkDirection(rate_bits_per_s=1_000_000), PACKETS)
    assert 1 <= len(got) < 40  # The rest waits in the device.
    assert got == PACKETS[: len(got)]
    assert board[ferry.QUEUE_DROPS] == 0


def test_jitter_reorders_nothing():
    got, _ = carried(LinkDirection(jitter_ns=500_000), PACKETS)
    assert got == PACKETS


@pytest.mark.parametrize("early_by_ns", both_ways(ferry.early_by_ns))
def test_the_ferry_wakes_up_as_early_as_its_sleeps_were_late_and_forgets_slowly(early_by_ns):
    assert early_by_ns(10_000, 40_000) == 50_000
    assert early_by_ns(50_000, 0) == 50_000 - 50_000 // ferry.EARLY_SHARE
    assert early_by_ns(10_000, 10_000_000) == ferry.EARLY_NS_MAX
    early_ns, steps = ferry.EARLY_NS_MAX, []
    while not steps or steps[-1] != early_ns:
        steps.append(early_ns)
        early_ns = int(early_by_ns(early_ns, 0))
    assert all(one > other for one, other in itertools.pairwise(steps))
    assert early_ns == ferry.EARLY_NS_MIN
