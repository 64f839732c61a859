"""A peer that was away, fell behind or went another way is brought up to date while writes go on.

The loops themselves, over socket pairs and files in memory: the primary's turns here, each secondary in a thread of its own.
"""

import contextlib
import errno
import itertools
import os
import select
import socket
import threading
import time

import numpy as np
import pytest

from both_ways import both_ways
from farwrite.base.host import reactor
from farwrite.base.host.disk import disk
from farwrite.base.row import rows_of
from farwrite.base.shared_counters import SharedCounters
from farwrite.engine import journal_kernel as log
from farwrite.engine import primary_kernel as primary
from farwrite.engine import replica_kernel as replica
from farwrite.engine import resync_kernel as resyncing
from farwrite.engine import secondary_kernel as secondary
from farwrite.engine import turn_kernel
from farwrite.engine.handshake import Hello, hello_of, how_to_join, lead
from farwrite.engine.peer_status import peer_status_of
from farwrite.workload.payload_kernel import fill

VOLUME, SEED, VOLUME_BYTES, STAGING, EXTENT = 7, 11, 1 << 20, 64 << 10, 4096
PATIENCE_S = 60


class Far:
    """A secondary in a thread, on a disk that outlives its connections."""

    def __init__(self, files, protocol, capacity):
        self.files, self.protocol = files, protocol
        self.journal = log.journal_state(
            capacity, STAGING, VOLUME, 1, files.journal_fd, files.volume_fd, VOLUME_BYTES, EXTENT
        )
        self.board, self.thread, self.socket = rows_of(SharedCounters), None, None
        self.status = None

    def connect(self):
        """Our end of a connection to it."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
            end.setblocking(False)
        self.socket = theirs
        state = secondary.secondary_state(
            self.journal, reactor.empty(), theirs.fileno(), self.protocol, VOLUME_BYTES, self.board
        )
        self.state = state
        self.thread = threading.Thread(target=self.run, args=(state,))
        self.thread.start()
        return ours

    def run(self, state):
        self.status = int(secondary.serve(state))

    def leave(self):
        """Stop serving, as a crash of its process would; what it has received is durable."""
        if self.thread:
            self.board[0].stop = 1
            self.thread.join()
            self.socket.close()
            self.board[0].stop, self.thread = 0, None

    def volume(self):
        return os.pread(self.files.volume_fd, VOLUME_BYTES, 0)


class Near:
    """The primary, its turns, and what the volume should hold."""

    def __init__(self, stack, protocol, peers=1, capacity=2 << 20, **options):
        self.stack = stack
        self.files = stack.enter_context(disk(None, 16 << 20, VOLUME_BYTES))
        self.journal = log.journal_state(
            capacity, STAGING, VOLUME, 1, self.files.journal_fd, self.files.volume_fd, VOLUME_BYTES, EXTENT
        )
        self.far = [Far(stack.enter_context(disk(None, 16 << 20, VOLUME_BYTES)), protocol, capacity) for _ in range(peers)]
        self.sockets = [far.connect() for far in self.far]
        self.state = primary.primary_state(
            self.journal, reactor.empty(), [end.fileno() for end in self.sockets], protocol, SEED, 10**12,
            volume_bytes=VOLUME_BYTES, **options,
        )  # fmt: skip
        self.expected = bytearray(VOLUME_BYTES)
        self.number = 0
        self.random = np.random.default_rng(5)
        stack.callback(self.end)

    def end(self):
        for far in self.far:
            far.leave()
        for end in self.sockets:
            end.close()

    def turn(self):
        assert turn_kernel.progress(self.state, 0) == replica.OK

    def until(self, condition, what):
        limit_s = time.monotonic() + PATIENCE_S
        while not condition():
            self.turn()
            assert time.monotonic() < limit_s, f"{what}: {self.state.peer}"

    def write(self, count, region=VOLUME_BYTES):
        for _ in range(count):
            size = int(self.random.choice([512, 4096, 8192]))
            address = 512 * int(self.random.integers(0, (region - size) // 512 + 1))
            self.until(lambda a=address, s=size: primary.submit(self.state, self.number, a, s, time.monotonic_ns()), "room")
            data = np.zeros(size, np.uint8)
            fill(data, 0, size, SEED, self.number, address)
            self.expected[address : address + size] = data.tobytes()
            self.number += 1
            if self.random.random() < 0.5:
                self.turn()

    def complete(self):
        self.until(lambda: self.state.at[0].completed == self.journal.at[0].staged_sequence, "completion")

    def lose(self, index=0):
        self.far[index].leave()
        self.until(lambda: self.state.peer[index].state == primary.ABSENT, "the loss to be seen")

    def come_back(self, index=0, how=None, sequence=None):
        theirs = hello_of(self.far[index].journal, 0)
        self.sockets.append(self.far[index].connect())
        control_request = self.state.control_requests[index]
        control_request.socket = self.sockets[-1].fileno()
        control_request.sequence = theirs.sequence if sequence is None else sequence
        control_request.how = how_to_join(self.journal, theirs) if how is None else how
        control_request.request = primary.ADOPT
        self.until(lambda: control_request.request == primary.NOTHING, "adoption")
        return int(control_request.how)

    def caught_up(self, index=0):
        peer = self.state.peer[index]
        return peer.state == primary.LIVE and peer.durable == self.journal.at[0].staged_sequence

    def check(self):
        """Every replica that is connected holds exactly what was written."""
        self.complete()
        for index in range(len(self.far)):
            if self.state.peer[index].state != primary.ABSENT:
                self.until(lambda i=index: self.caught_up(i), "catching up")
        for far in self.far:
            far.leave()
            assert not far.journal.at[0].flags & log.INCONSISTENT
        assert replica.settle(self.journal, self.state.ring) == replica.OK
        assert os.pread(self.files.volume_fd, VOLUME_BYTES, 0) == bytes(self.expected)
        for index, far in enumerate(self.far):
            if self.state.peer[index].state != primary.ABSENT:
                assert far.volume() == bytes(self.expected), f"replica {index + 1}"


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(
    ("protocol", "options"),
    [(primary.C, {}), (primary.TWO_TRIP, {}), (primary.A, {}), (primary.B, {}), (primary.QUORUM, {"quorum": 2})],
)
def test_every_protocol_keeps_three_replicas_alike(stack, protocol, options):
    near = Near(stack, protocol, 2, **options)
    near.write(300)
    near.check()


def test_under_block_nothing_completes_without_the_peer_and_everything_once_it_is_back(stack):
    near = Near(stack, primary.C, policy=primary.BLOCK)
    near.write(20)
    near.complete()
    near.lose()
    before = int(near.state.at[0].completed)
    near.write(5)
    for _ in range(50):
        near.turn()
    assert near.state.at[0].completed == before
    assert near.come_back() == primary.BY_LOG
    near.check()
    assert near.state.at[0].exposed == 0


def test_suspended_replication_goes_on_alone_counts_what_is_exposed_and_heals_from_the_journal(stack):
    near = Near(stack, primary.C, policy=primary.SUSPEND_REPLICATION)
    near.write(20)
    near.complete()
    near.lose()
    near.write(40)
    near.complete()
    assert near.state.at[0].exposed == 40
    assert near.come_back() == primary.BY_LOG
    near.write(40)
    near.until(lambda: near.caught_up(), "catching up")
    near.until(lambda: near.state.peer[0].detached == 0, "being asked again")
    exposed = int(near.state.at[0].exposed)
    near.write(20)
    near.check()
    assert near.state.at[0].exposed == exposed


def test_without_consent_a_lost_peer_blocks_and_with_it_the_rest_goes_on(stack):
    near = Near(stack, primary.C, policy=primary.CONSENT)
    near.write(10)
    near.complete()
    near.lose()
    near.write(3)
    for _ in range(30):
        near.turn()
    assert near.state.at[0].completed == 10
    near.state.control_requests[0].request = primary.DETACH
    near.complete()
    near.check()


def test_a_quorum_of_two_in_three_goes_on_without_either_peer_and_not_without_both(stack):
    near = Near(stack, primary.QUORUM, 2, quorum=2, policy=primary.BLOCK)
    near.write(20)
    near.complete()
    near.lose(0)
    near.write(20)
    near.complete()
    near.lose(1)
    near.write(3)
    for _ in range(30):
        near.turn()
    assert near.state.at[0].completed == 40
    near.come_back(0)
    near.complete()
    near.come_back(1)
    near.check()


@pytest.mark.parametrize("during", [0, 200])
def test_a_peer_whose_range_the_journal_has_forgotten_gets_the_extents_written_since(stack, during):
    near = Near(stack, primary.C, capacity=128 << 10, policy=primary.SUSPEND_REPLICATION)
    near.write(50)
    near.complete()
    near.lose()
    near.write(200, region=VOLUME_BYTES // 4)
    near.complete()
    assert near.come_back() == primary.BY_EXTENTS
    near.write(during)
    near.check()
    assert near.far[0].state.at[0].extent_count >= VOLUME_BYTES // 4 // EXTENT // 2


@pytest.mark.parametrize("during", [0, 200])
def test_a_peer_with_another_history_is_told_only_what_differs(stack, during):
    near = Near(stack, primary.C, capacity=128 << 10, policy=primary.SUSPEND_REPLICATION)
    near.write(100)
    near.complete()
    near.until(lambda: near.journal.at[0].applied_sequence == near.number, "the volume")
    near.lose()
    os.pwrite(near.far[0].files.volume_fd, b"another history" * 1000, 300_000)
    assert near.come_back(how=primary.BY_DIGESTS, sequence=0) == primary.BY_DIGESTS
    near.write(during)
    near.check()
    if not during:
        assert near.far[0].state.at[0].extent_count == len({*range(300_000 // EXTENT, 314_999 // EXTENT + 1)})


def test_a_peer_shows_that_it_lives_with_each_extent_that_it_takes(stack):
    near = Near(stack, primary.C, capacity=128 << 10, policy=primary.SUSPEND_REPLICATION)
    near.write(50)
    near.complete()
    near.lose()
    near.write(400)
    near.complete()
    assert near.come_back() == primary.BY_EXTENTS
    peer = near.state.peer[0]
    begun_ns = int(peer.last_heard_ns)
    near.until(lambda: peer.last_heard_ns > begun_ns or peer.synced_count, "a sign of life")
    assert not peer.synced_count  # No PING was sent: that is due after a quarter of 1000 s.
    near.check()


class Slow:
    """A way between two sockets that holds megabytes and lets them out slowly, a piece at a time; back it is as fast as any."""

    PIECE, PAUSE_S = 16 << 10, 0.02

    def __init__(self, stack, far):
        self.ours, near = socket.socketpair()
        for end in (self.ours, near):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.ours.setblocking(False)
        self.near, self.far = near, far
        for end in (self.ours, near, far):
            stack.callback(end.close)
        threads = [threading.Thread(target=pour, args=words, daemon=True)
                   for words in ((near, far, self.PAUSE_S), (far, near, 0.0))]  # fmt: skip
        for thread in threads:
            thread.start()
        stack.callback(lambda: [thread.join() for thread in threads])
        stack.callback(near.shutdown, socket.SHUT_RDWR)


def pour(source, goal, pause_s):
    """Everything, piece by piece, until either end is gone."""
    with contextlib.suppress(OSError):
        while select.select([source], [], [])[0] and (data := source.recv(Slow.PIECE)):
            view = memoryview(data)
            while view:
                select.select([], [goal], [])
                view = view[goal.send(view) :]
            time.sleep(pause_s)
    with contextlib.suppress(OSError):
        goal.shutdown(socket.SHUT_RDWR)


def test_a_resync_over_a_link_that_is_slower_than_the_peer_timeout_is_not_begun_anew(stack):
    near = Near(stack, primary.C, capacity=128 << 10, policy=primary.SUSPEND_REPLICATION)
    near.lose()
    near.write(400)
    near.complete()
    way = Slow(stack, near.far[0].connect())
    near.state.at[0].peer_timeout_ns = 900_000_000  # The whole takes more than a second.
    control_request = near.state.control_requests[0]
    control_request.socket, control_request.sequence, control_request.how = way.ours.fileno(), 0, primary.BY_EXTENTS
    control_request.request = primary.ADOPT
    lost = int(near.state.peer[0].lost_count)
    begin_s = time.monotonic()
    near.until(lambda: near.state.peer[0].lost_count > lost or near.caught_up(), "the resync")
    assert near.state.peer[0].lost_count == lost and time.monotonic() - begin_s > 1
    near.check()


def test_a_disk_that_refuses_a_copied_extent_is_not_mistaken_for_a_peer_that_lies(stack):
    near = Near(stack, primary.C, capacity=128 << 10, policy=primary.SUSPEND_REPLICATION)
    near.lose()
    near.write(200)
    near.complete()
    near.far[0].journal.at[0].volume_fd = -1
    near.come_back()
    near.until(lambda: near.state.peer[0].state == primary.ABSENT or near.far[0].status is not None, "the refusal")
    near.far[0].thread.join(PATIENCE_S)
    assert near.far[0].status == -errno.EBADF


def test_writes_that_overtake_a_slow_resync_are_in_the_copy(stack):
    near = Near(stack, primary.C, capacity=128 << 10, policy=primary.SUSPEND_REPLICATION)
    near.lose()
    near.write(200)
    near.state.at[0].resync_bytes_per_s = 20 << 20
    near.come_back()
    near.write(600)
    near.check()


@pytest.mark.parametrize("paced", both_ways(resyncing.paced))
def test_a_resync_halves_its_rate_when_a_write_beside_it_is_over_budget_and_regains_it_slowly(paced):
    most, rate = 100 << 20, 100 << 20
    for _ in range(20):
        slower = int(paced(rate, 2_000, 1_000, most))
        assert slower == max(rate // 2, resyncing.PACE_BYTES_PER_S_MIN)
        rate = slower
    assert rate == resyncing.PACE_BYTES_PER_S_MIN
    for _ in range(500):
        faster = int(paced(rate, 1_000, 1_000, most))
        assert rate <= faster <= min(most, rate + max(rate // 32, resyncing.PACE_BYTES_PER_S_MIN // 16))
        rate = faster
    assert rate == most


def test_a_resync_beside_writes_over_their_budget_sends_no_more_than_its_least_rate(stack):
    near = Near(stack, primary.C, capacity=128 << 10, policy=primary.SUSPEND_REPLICATION, latency_budget_ns=1)
    near.write(20)
    near.complete()
    near.lose()
    near.write(200)
    near.complete()
    assert near.state.at[0].resync_bytes_per_s == resyncing.PACE_BYTES_PER_S_MIN
    near.come_back()
    peer = near.state.peer[0]
    near.until(lambda: peer.state == primary.RESYNCING, "the resync")
    begin_ns = time.monotonic_ns()
    for _ in range(40):
        near.write(1)
        near.turn()
        allowed = resyncing.PACE_BYTES_PER_S_MIN * (time.monotonic_ns() - begin_ns) / 1e9
        assert peer.resync_bytes <= allowed + 4 * (EXTENT + 64) or peer.state != primary.RESYNCING
    near.state.at[0].submitted_ns -= 10 * resyncing.FOREGROUND_NS  # Nobody writes any more: nobody is in its way.
    near.check()


def test_progress_and_time_left_of_a_resync_follow_from_what_is_left_and_how_fast_it_went(stack):
    near = Near(stack, primary.C, capacity=128 << 10, policy=primary.SUSPEND_REPLICATION)
    near.write(50)
    near.complete()
    near.lose()
    assert peer_status_of(near.state, 0).state == "absent" and peer_status_of(near.state, 0).left_s is None
    near.write(200)
    near.complete()
    near.come_back()
    near.turn()
    seen = [peer_status_of(near.state, 0)]
    while seen[-1].state != "live":
        near.turn()
        seen.append(peer_status_of(near.state, 0))
    states = [one.state for one in seen]
    assert states[0] in ("resyncing", "catching") and "live" in states
    copied = [one for one in seen if one.state == "resyncing"]
    assert all(later.left_bytes <= one.left_bytes for one, later in itertools.pairwise(copied))
    assert all(one.left_s is None or one.left_s >= 0 for one in seen)
    near.check()


def test_pulling_ahead_never_waits_for_a_peer_that_does_not_read(stack):
    near = Near(stack, primary.A, capacity=2 << 20, congestion=primary.PULL_AHEAD)
    near.far[0].leave()  # Nobody reads; the socket pair stays open at our end only through the new one below.
    near.until(lambda: True, "")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        near.state = primary.primary_state(
            near.journal, reactor.empty(), [ours.fileno()], primary.A, SEED, 10**12, volume_bytes=VOLUME_BYTES,
            congestion=primary.PULL_AHEAD, policy=primary.SUSPEND_REPLICATION,
        )  # fmt: skip
        near.write(400)
        near.complete()
        assert near.state.peer[0].detached == 1
        assert near.state.peer[0].state != primary.LIVE
        near.state.control_requests[0].request = primary.DROP
        near.turn()
    near.come_back()
    near.write(50)
    near.check()


@pytest.mark.parametrize("half_sent", [1, 2])
def test_of_a_record_half_sent_the_rest_goes_first_though_its_header_is_written_over(stack, half_sent):
    """Memory is held from the first byte that is still to be sent: the header once told garbage, and the loop failed."""
    near = Near(stack, primary.A, congestion=primary.PULL_AHEAD, policy=primary.SUSPEND_REPLICATION)
    journal, peer = near.journal, near.state.peer[0]
    for number in (1, 2):
        assert primary.submit(near.state, number, 8192 * number, 8192, 1)
    begins = [int(journal.begins[1]), int(journal.begins[2]), int(journal.at[0].staged)]
    peer.run_end, peer.run_sequence = begins[2], 2
    peer.sent = sent = begins[half_sent - 1] + 6000
    rest = bytes(journal.data[sent : begins[half_sent]])
    journal.data[:sent] = 0xEE  # As newer records may, a turn of the ring later.
    resyncing.fall_behind(near.state, 0, 5)
    assert bytes(near.state.resync_buffer[0, : len(rest)]) == rest and peer.buffer_end == len(rest)
    assert peer.state == primary.CATCHING and peer.sent == begins[half_sent]
    assert peer.sent_sequence == half_sent


def alike(stack, damage):
    """A primary whose peer's volume holds the same, but for `damage` in its second half."""
    near = Near(stack, primary.C, policy=primary.BLOCK)
    near.write(100)
    near.complete()
    near.until(lambda: near.far[0].journal.at[0].applied_sequence == near.number, "the far volume")
    if damage:
        os.pwrite(near.far[0].files.volume_fd, b"rot", VOLUME_BYTES - 5000)
    return near


@pytest.mark.parametrize("damage", [False, True])
def test_a_verify_of_live_replicas_finds_what_differs_and_nothing_else(stack, damage):
    near = alike(stack, damage)
    near.state.control_requests[0].request = primary.VERIFY
    near.write(100, region=VOLUME_BYTES // 2)
    near.until(lambda: near.state.peer[0].verifying == 2, "the verify")
    assert near.state.peer[0].different == int(damage)


@pytest.mark.parametrize("damage", [False, True])
def test_a_verify_does_not_take_for_a_difference_what_the_peer_has_applied_before_us(stack, damage):
    near = alike(stack, damage)
    near.until(lambda: near.journal.at[0].applied_sequence == near.number, "our own volume")
    near.journal.at[0].watermark_after_ns = 10**18
    near.write(3, region=VOLUME_BYTES // 2)
    near.complete()
    near.until(lambda: near.far[0].journal.at[0].applied_sequence == near.number, "the far volume")
    assert near.journal.at[0].applied_sequence < near.number
    near.state.control_requests[0].request = primary.VERIFY
    near.until(lambda: near.state.peer[0].verifying == 2, "the verify")
    assert near.state.peer[0].different == int(damage)


def test_a_peer_joins_by_the_log_only_where_its_log_is_a_beginning_of_ours():
    journal = log.journal_state(512 << 10, STAGING, VOLUME, 3, -1, -1, VOLUME_BYTES, EXTENT)
    for _ in range(10):
        log.place(journal, 512)
    lead(journal, 5)
    for _ in range(10):
        log.place(journal, 512)

    def how(sequence, log_epoch, consistent=True):
        return how_to_join(journal, Hello(VOLUME, 5, sequence, primary.C, log_epoch, consistent))

    assert how(20, 5) == how(11, 5) == how(10, 3) == how(5, 3) == how(0, 0) == primary.BY_LOG
    assert how(11, 3) == primary.BY_DIGESTS  # An unacknowledged tail of the old epoch.
    assert how(0, 4) == primary.BY_DIGESTS  # It led epoch 4 and wrote nothing; our first record is of epoch 3.
    assert how(21, 5) == how(10, 4) == how(10, 2) == how(10, 3, consistent=False) == primary.BY_DIGESTS
