"""The primary's decisions: when a write completes, which acks are believed, and what may be sent and forgotten.

submit, last_sequence and note_ack make no system call of their own and run both ways; progress is the loop and runs
compiled, over a real socket pair.
"""

import socket

import numpy as np
import pytest

from both_ways import both_ways
from farwrite.base.host import libc, reactor
from farwrite.base.host import pretend_kernel as pretend
from farwrite.base.host.disk import disk
from farwrite.base.row import rows_of
from farwrite.engine import journal_kernel as log
from farwrite.engine import primary_kernel as primary
from farwrite.engine import record_kernel as record
from farwrite.engine import replica_kernel as replica
from farwrite.engine import turn_kernel
from oracle import journal_oracle, primary_oracle, record_oracle, secondary_oracle

VOLUME, EPOCH, SEED = 7, 1, 11
PROTOCOLS = {
    "local": primary.LOCAL, "A": primary.A, "B": primary.B, "C": primary.C, "C2": primary.TWO_TRIP, "quorum": primary.QUORUM,
}  # fmt: skip
FOREVER_NS = 10**15


def state(protocol=primary.C, capacity=1 << 20, staging=1 << 18, socket_fd=-1, files=(-1, -1), ring=None):
    journal = log.journal_state(capacity, staging, VOLUME, EPOCH, *files)
    sockets = [] if protocol == primary.LOCAL else [socket_fd]
    return primary.primary_state(journal, ring or reactor.empty(), sockets, protocol, SEED, FOREVER_NS)


def hand_over(made, frame):
    """Put a frame where acks arrive."""
    made.inbox[0, : len(frame)] = np.frombuffer(frame, np.uint8)


def ack(durable, received, **other):
    return record_oracle.header("ack", sequence=durable, address=received, **{"volume": VOLUME, "ordinal": 1, **other})


@pytest.mark.parametrize("completable", both_ways(primary.completable))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_write_completes_when_every_point_of_its_protocol_is_passed(completable, protocol):
    random = np.random.default_rng(len(protocol))
    for _ in range(200):
        here = int(random.integers(0, 12))
        peers = [int(random.integers(0, 12)) for _ in range(int(random.integers(0, 5)))]
        detached = [bool(random.random() < 0.2) for _ in peers]
        quorum = int(random.integers(1, len(peers) + 2))
        answer = completable(PROTOCOLS[protocol], quorum, here, np.array(peers, np.int64), np.array(detached, np.int64))
        assert answer == primary_oracle.completable(protocol, quorum, here, peers, detached)
        assert answer <= here


@pytest.mark.parametrize("note_ack", both_ways(primary.note_ack))
@pytest.mark.parametrize("seed", range(50))
def test_acks_are_believed_exactly_when_they_can_be(note_ack, seed):
    random = np.random.default_rng(seed)
    made, peer = state(), primary_oracle.Peer()
    staged = int(random.integers(0, 20))
    made.peer[0].run_sequence = staged
    for _ in range(40):
        durable, received = sorted(int(random.integers(-1, 22)) for _ in range(2))
        if random.random() < 0.6:
            durable = max(durable, len(peer.durable))
            received = min(max(received, durable, len(peer.received)), max(staged, durable))
        if random.random() < 0.1:
            durable, received = received, durable
        hand_over(made, ack(durable, received))
        assert bool(note_ack(made, 0, 0)) == peer.believes(durable, received, staged)
        assert made.peer[0].durable == len(peer.durable)
        assert made.peer[0].received == len(peer.received)


def after_an_ack(note_ack):
    """Ten records sent, of which 4 are durable and 6 received."""
    made = state()
    made.peer[0].run_sequence = 10
    hand_over(made, ack(4, 6))
    assert note_ack(made, 0, 0)
    return made


@pytest.mark.parametrize("note_ack", both_ways(primary.note_ack))
@pytest.mark.parametrize(
    ("durable", "received"),
    [(11, 11), (5, 11), (2, 6), (4, 5), (4, 3), (-1, 6), (2**62, 2**62), (-(2**63), 6), (6, -(2**63))],
)
def test_an_impossible_ack_is_refused_and_changes_nothing(note_ack, durable, received):
    made = after_an_ack(note_ack)
    hand_over(made, ack(durable, received))
    assert not note_ack(made, 0, 0)
    assert made.peer[0].durable == 4
    assert made.peer[0].received == 6


@pytest.mark.parametrize("note_ack", both_ways(primary.note_ack))
@pytest.mark.parametrize(("durable", "received"), [(4, 6), (4, 7), (5, 6), (6, 6), (10, 10)])
def test_an_ack_at_the_edge_of_what_can_be_is_believed(note_ack, durable, received):
    """The same again, a step in one of its two numbers, everything that was sent."""
    made = after_an_ack(note_ack)
    hand_over(made, ack(durable, received))
    assert note_ack(made, 0, 0)
    assert (made.peer[0].durable, made.peer[0].received) == (durable, received)


@pytest.mark.parametrize("note_answer", both_ways(primary.note_answer))
@pytest.mark.parametrize("kind", ["write", "pad", "hello", "ping", "goodbye"])
def test_what_no_secondary_says_is_no_answer(note_answer, kind):
    made = state()
    hand_over(made, record_oracle.header(kind, volume=VOLUME, ordinal=1))
    assert not note_answer(made, 0, 0)


@pytest.mark.parametrize("note_answer", both_ways(primary.note_answer))
def test_an_answer_that_is_not_the_next_is_none(note_answer):
    made = state()
    made.peer[0].run_sequence = 10
    for ordinal, is_next in ((0, False), (2, False), (1, True), (1, False), (3, False), (2, True)):
        hand_over(made, ack(0, 0, ordinal=ordinal))
        assert bool(note_answer(made, 0, 0)) == is_next


@pytest.mark.parametrize("submit", both_ways(primary.submit))
def test_a_submitted_write_stands_in_memory_as_the_oracle_would_write_it(submit):
    from oracle import payload_oracle

    made = state()
    for number, size in enumerate((512, 1000, 4096)):
        begin = int(made.journal.at[0].staged)
        assert submit(made, number, 8192 * number, size, 5)
        payload = payload_oracle.payload(size, SEED, number, 8192 * number)
        frame = record_oracle.write(payload, number + 1, 8192 * number, EPOCH, VOLUME, stamp_ns=5)
        assert made.journal.data[begin : begin + len(frame)].tobytes() == frame


@pytest.mark.parametrize("overlay", both_ways(primary.overlay))
@pytest.mark.parametrize("seed", range(10))
def test_a_read_sees_what_is_durable_and_not_yet_in_the_volume(overlay, seed):
    random = np.random.default_rng(seed)
    made = state(staging=1 << 18, capacity=1 << 18)
    volume = random.integers(0, 256, 16384).astype(np.uint8)
    expected = volume.copy()
    for number in range(12):
        size, place = int(random.integers(1, 9)) * 64, int(random.integers(0, 15000))
        if random.random() < 0.3:
            assert primary.submit_trim(made, place, size, 0)
            content = np.zeros(size, np.uint8)
        else:
            assert primary.submit(made, number, place, size, 0)
            begin = int(made.journal.at[0].staged) - size
            content = made.journal.data[begin : begin + size].copy()
        if number % 4 == 3:
            log.seal_batch(made.journal)
        if number < 8:  # The last batch is not durable yet.
            expected[place : place + size] = content
        if number == 7:
            log.note_durable(made.journal)
    for _ in range(50):
        address = int(random.integers(0, 16000))
        size = int(random.integers(1, 16384 - address + 1))
        data = np.full(size + 20, 7, np.uint8)
        data[10 : 10 + size] = volume[address : address + size]
        overlay(made.journal, data, 10, size, address, made.journal.at[0].durable)
        assert (data[10 : 10 + size] == expected[address : address + size]).all()
        assert (data[:10] == 7).all() and (data[10 + size :] == 7).all()


@pytest.mark.parametrize("commit", both_ways(primary.commit))
@pytest.mark.parametrize("reserve", both_ways(primary.reserve))
def test_a_place_that_is_reserved_is_nowhere_until_it_is_committed(reserve, commit):
    """Over many laps of the ring, every other place being given up: log and lap are as if it had never been reserved."""
    made = state(staging=16384, capacity=16384)
    at, payload = made.journal.at[0], np.arange(1500, dtype=np.int64).astype(np.uint8)
    for number in range(60):
        if number % 2:
            assert reserve(made, record.TRIM, 512, 4096) > 0
            begun = int(at.staged), int(at.staged_sequence), int(at.user_bytes)
            assert reserve(made, record.WRITE, 0, 1000) > 0
            assert begun[1:] == (at.staged_sequence, at.user_bytes) and at.staged - begun[0] < 1064 and begun[0] <= at.staged
        place = reserve(made, record.WRITE, 64 * number, 1500)
        assert place > 0
        made.journal.data[place : place + 1500] = payload
        sequence = int(commit(made, place, record.WRITE, 64 * number, 1500, 5))
        assert sequence == at.staged_sequence == number + 1
        frame = record_oracle.write(payload.tobytes(), sequence, 64 * number, EPOCH, VOLUME, stamp_ns=5)
        assert made.journal.data[place - 64 : place - 64 + len(frame)].tobytes() == frame
        log.seal_batch(made.journal)
        log.note_durable(made.journal)
        at.tail = at.applied = at.durable_watermark = at.durable
        at.applied_sequence = at.durable_sequence
    assert at.user_bytes == 60 * 1500 and at.staged > 5 * 16384


@pytest.mark.parametrize("reserve", both_ways(primary.reserve))
def test_no_place_is_reserved_for_what_cannot_be_or_without_room(reserve):
    made = state(staging=16384, capacity=16384)
    made.journal.at[0].volume_bytes = 1 << 20
    wrong = ((0, 0), (-1, 5), ((1 << 20) - 4, 5), (0, 16000), (1 << 62, 1 << 62))
    for kind, address, size in (*((record.WRITE, *one) for one in wrong), (record.ACK, 0, 5), (record.TRIM, 0, (1 << 20) + 1)):
        assert reserve(made, kind, address, size) == replica.INVALID_WRITE
    assert primary.submit(made, 0, 0, 4096, 0) == primary.submit(made, 1, 0, 4096, 0) == 1
    assert reserve(made, record.WRITE, 0, 4096) == primary.NO_ROOM and made.at[0].blocked == 1
    assert reserve(made, record.TRIM, 0, 1 << 20) > 0


def pretended(staging=1 << 18):
    """A primary whose volume of 8 KiB is in memory."""
    nothing = rows_of(pretend.Stream, 0), np.zeros((0, 1), np.uint8)
    segments = np.zeros((0, pretend.SEGMENTS), np.int64), np.zeros((0, pretend.SEGMENTS), np.int64)
    world = pretend.world(np.ones(1, np.int64), 0, 8192, 8192, *nothing, *segments)
    return state(ring=reactor.pretended(world), staging=staging)


@pytest.mark.parametrize("compare_and_write", both_ways(primary.compare_and_write))
@pytest.mark.parametrize("seed", range(6))
def test_a_compare_and_write_sees_all_that_was_submitted_and_writes_exactly_when_it_is_equal(compare_and_write, seed):
    random, made, model = np.random.default_rng(seed), pretended(), bytearray(8192)
    seen = np.zeros(5000, np.uint8)
    for _ in range(80):
        size = int(random.choice((1, 512, 700, 4096)))
        address = int(random.integers(0, 8192 - size + 1))
        what = random.random()
        sequence = int(made.journal.at[0].staged_sequence)
        if what < 0.2:
            assert primary.submit_trim(made, address, size, 0) == 1
            model[address : address + size] = bytes(size)
        elif what < 0.4:
            assert primary.submit_zeros(made, address, size, 0) == 1
            model[address : address + size] = bytes(size)
        else:
            expected = np.frombuffer(bytes(9) + model[address : address + size], np.uint8).copy()
            data = random.integers(0, 256, size + 3).astype(np.uint8)
            differs = random.random() < 0.5
            if differs:
                expected[9 + int(random.integers(size))] ^= 0x10
            answer = int(compare_and_write(made, expected, 9, data, 3, address, size, seen, 7, 0))
            assert answer == (primary.UNEQUAL if differs else 1)
            assert seen[7 : 7 + size].tobytes() == model[address : address + size]
            assert made.journal.at[0].staged_sequence == sequence + (not differs)
            if not differs:
                model[address : address + size] = data[3:].tobytes()
        assert primary.barrier(made) == made.journal.at[0].staged_sequence
        if random.random() < 0.2:  # Durable, and nothing vouches for the end of it yet.
            log.seal_batch(made.journal)
            log.note_durable(made.journal)
    assert primary.read_submitted(made, seen, 0, 4096, 100) == 4096
    assert seen[:4096].tobytes() == model[100:4196]


def test_bytes_and_zeros_that_are_submitted_are_in_the_log_as_the_oracle_has_them():
    made, data = state(), np.random.default_rng(1).integers(0, 256, 3000).astype(np.uint8)
    for number, (begin, size) in enumerate(((0, 3000), (17, 1), (100, 64))):
        place = int(made.journal.at[0].staged)
        assert primary.submit_bytes(made, data, begin, 999, size, 5) == 1
        frame = record_oracle.write(data[begin : begin + size].tobytes(), number + 1, 999, EPOCH, VOLUME, stamp_ns=5)
        assert made.journal.data[place : place + len(frame)].tobytes() == frame
    place = int(made.journal.at[0].staged)
    made.journal.data[place:] = 7
    assert primary.submit_zeros(made, 999, 100, 5) == 1
    frame = record_oracle.write(bytes(100), 4, 999, EPOCH, VOLUME, stamp_ns=5)[: record.HEADER_BYTES + 100]
    assert made.journal.data[place : place + len(frame)].tobytes() == frame
    assert primary.submit_bytes(made, data, 0, 999, 0, 5) == primary.submit_zeros(made, -1, 5, 5) == replica.INVALID_WRITE


def test_a_read_that_ends_with_the_volume_sees_it_too():
    made = pretended()
    assert primary.submit(made, 0, 7680, 512, 0)
    written = made.journal.data[64:576].copy()
    log.seal_batch(made.journal)
    log.note_durable(made.journal)  # Nothing vouches for it yet: it is not in the volume.
    data = np.full(4096, 7, np.uint8)
    assert primary.read(made, data, 0, 4096, 6144) == 2048
    assert (data[:1536] == 0).all() and (data[1536:2048] == written).all() and (data[2048:] == 7).all()


@pytest.mark.parametrize("submit", both_ways(primary.submit))
def test_a_write_without_room_is_not_taken_and_changes_nothing(submit):
    made = state(staging=16384, capacity=16384)
    assert submit(made, 0, 0, 4096, 0) == submit(made, 1, 0, 4096, 0) == 1
    before = made.journal.at.copy()
    before[0].wants_watermark = 1  # It waits for room, and says so.
    assert submit(made, 2, 0, 4096, 0) == 0
    assert (made.journal.at == before).all()
    assert made.at[0].blocked == 1


@pytest.mark.parametrize("last_sequence", both_ways(primary.last_sequence))
@pytest.mark.parametrize("seed", range(20))
def test_a_run_knows_its_last_sequence(last_sequence, seed):
    random = np.random.default_rng(seed)
    made = state(staging=65536)
    oracle = journal_oracle.Journal(1 << 20, 65536)
    number = 0
    for _ in range(60):
        size = int(random.choice([32, 512, 4096, 5000]))
        if primary.submit(made, number, 0, size, 0):
            oracle.place(size)
            number += 1
        if random.random() < 0.2:
            log.seal_batch(made.journal)
            oracle.seal_batch()
        if random.random() < 0.1:
            log.note_durable(made.journal)
            oracle.durable = oracle.applied = oracle.sealed
            log.note_applied(made.journal, oracle.applied, oracle.writes_before(oracle.applied))
    known = [position for position in oracle.boundaries() if position >= oracle.applied]
    checked = 0
    for begin in known:
        end = oracle.run_end(begin, oracle.staged)
        if end > begin:
            assert last_sequence(made.journal, begin, end) == oracle.writes_before(end)
            checked += 1
    assert checked


def frames_of(data):
    """The frames of a stream, their headers believed after inspection by the kernel."""
    array = np.frombuffer(bytearray(data) + bytearray(-len(data) % 64), np.uint8)
    headers = array.view(record.Header.LAYOUT)
    at, frames = 0, []
    while record.inspect(array, headers, at, len(data) - at, VOLUME) == record.COMPLETE:
        size = record_oracle.rounded(int(record.length_of(headers, at)))
        if len(data) - at < size:
            break
        frames.append(bytes(data[at : at + size]))
        at += size
    return frames, len(data) - at


@pytest.mark.parametrize("kind", ["plain", "uring"])
@pytest.mark.parametrize("protocol", [primary.A, primary.B, primary.C])
@pytest.mark.parametrize("seed", range(2))
def test_a_peer_that_reads_in_drips_is_sent_every_record_whole_and_once(kind, protocol, seed):
    """A record that is half sent must not be overwritten, however far the flush and the volume are."""
    random = np.random.default_rng(seed)
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    near.setblocking(False)
    received = bytearray()
    with near, far, disk(None, 4 << 20, 4 << 20) as files, ring_or_skip(kind) as ring:
        made = state(
            protocol, 256 << 10, 64 << 10, near.fileno(), (files.journal_fd, files.volume_fd), ring
        )  # fmt: skip
        number = acks = 0
        for turn in range(400):
            size = int(random.choice([512, 4096, 16384 - 64]))
            while number < 300 and primary.submit(made, number, size * (number % 8), size, 0):
                number += 1
            assert turn_kernel.progress(made, libc.monotonic_ns()) == replica.OK
            assert made.journal.at[0].staged - made.peer[0].sent <= made.journal.at[0].staging_bytes
            if turn > 20:
                received += drip(far, int(random.choice([100, 1000, 7000, 60000])))
            frames, _ = frames_of(received) if turn % 8 == 0 else ([], 0)
            if frames:  # The peer acknowledges, as B and C and the memory for lag want it.
                acks += 1
                far.sendall(ack(len(frames), len(frames), ordinal=acks))
        while made.peer[0].sent < made.journal.at[0].staged or number < 300:
            received += drip(far, 1 << 20)
            while number < 300 and primary.submit(made, number, 0, 512, 0):
                number += 1
            assert turn_kernel.progress(made, libc.monotonic_ns()) == replica.OK
        received += drip(far, 1 << 20)
        assert replica.settle(made.journal, ring) == replica.OK
        frames, left = frames_of(received)
    assert left == 0
    assert [record_oracle.fields(frame)[2] for frame in frames] == list(range(1, number + 1))
    assert secondary_oracle.parse(frames[0], VOLUME, EPOCH, 4 << 20)[0] == frames[:1]


def drip(far, size):
    try:
        return far.recv(size, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


def ring_or_skip(kind):
    if kind == "uring":
        try:
            with reactor.reactor("uring"):
                pass
        except OSError as refusal:
            pytest.skip(f"no io_uring here: {refusal}")
    return reactor.reactor(kind)


def test_a_turn_that_frees_room_does_not_sleep():
    """A blocked write is woken by nothing else: neither by what is applied later, nor by a checkpoint."""
    with disk(None, 17 << 20, 4 << 20) as files, reactor.reactor("plain") as ring:
        made = state(primary.LOCAL, 16 << 20, 2 << 20, -1, (files.journal_fd, files.volume_fd), ring)
        number, slept_ns = 0, 0
        assert turn_kernel.progress(made, 0) == replica.OK  # Compiled, if it was not.
        while number < 200:
            while number < 200 and primary.submit(made, number, 0, 65536, 0):
                number += 1
            begin_ns = libc.monotonic_ns()
            assert turn_kernel.progress(made, begin_ns + 10**9) == replica.OK
            if number < 200:
                slept_ns = max(slept_ns, libc.monotonic_ns() - begin_ns)
        assert slept_ns < 9e8
        assert replica.settle(made.journal, ring) == replica.OK
        assert made.journal.at[0].applied_sequence == 200


@pytest.mark.parametrize("slot", [reactor.SUPERBLOCK, reactor.VOLUME])
def test_what_the_disk_answers_as_a_run_ends_is_the_runs_status(slot):
    """A checkpoint under way is not asked about any more; what it failed with would be lost, and the next one build on it."""
    made = state(primary.LOCAL)
    for status in (0, -libc.ENOSPC):
        made.ring.state[slot], made.ring.result[slot] = reactor.FINISHED, status
        assert replica.settle(made.journal, made.ring) == status


@pytest.mark.parametrize("protocol", [primary.A, primary.B, primary.C])
def test_the_turn_completes_what_the_rule_says_and_no_more(protocol):
    near, far = socket.socketpair()
    with near, far, disk(None, 4 << 20, 4 << 20) as files, reactor.reactor("plain") as ring:
        near.setblocking(False)
        made = state(protocol, 2 << 20, 2 << 20, near.fileno(), (files.journal_fd, files.volume_fd), ring)
        for number in range(10):
            assert primary.submit(made, number, 0, 4096, 0)
        for _ in range(4):
            assert turn_kernel.progress(made, 0) == replica.OK
        assert made.at[0].completed == (10 if protocol == primary.A else 0)
        far.sendall(ack(3, 7))
        assert turn_kernel.progress(made, 0) == replica.OK
        assert made.at[0].completed == {primary.A: 10, primary.B: 7, primary.C: 3}[protocol]


def test_acks_that_arrive_in_pieces_are_put_together():
    near, far = socket.socketpair()
    with near, far, disk(None, 4 << 20, 4 << 20) as files, reactor.reactor("plain") as ring:
        near.setblocking(False)
        made = state(primary.C, 2 << 20, 2 << 20, near.fileno(), (files.journal_fd, files.volume_fd), ring)
        for number in range(10):
            assert primary.submit(made, number, 0, 4096, 0)
        for _ in range(4):
            assert turn_kernel.progress(made, 0) == replica.OK
        for byte in ack(2, 2) + ack(5, 9, ordinal=2):
            far.sendall(bytes([byte]))
            assert turn_kernel.progress(made, 0) == replica.OK
        assert made.peer[0].durable == 5
        assert made.peer[0].received == 9
        assert made.peer[0].inbox_fill == 0
