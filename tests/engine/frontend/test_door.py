"""Clients at the door of a primary, over real sockets: every command and error, and what clients do to others or themselves."""

import contextlib
import os
import random
import socket
import threading
import time
from pathlib import Path
from types import FunctionType, SimpleNamespace

import numpy as np
import pytest

from farwrite.base.host import reactor
from farwrite.base.host.disk import disk
from farwrite.base.row import rows_of
from farwrite.base.shared_counters import SharedCounters
from farwrite.base.wire.terms import SharedKey, Terms
from farwrite.engine import secondary_kernel as secondary
from farwrite.engine.control import Address
from farwrite.engine.frontend import door_kernel, nbd
from farwrite.engine.frontend import session_kernel as sessions
from farwrite.engine.frontend.frontend import Frontend
from farwrite.engine.journal import format_journal
from farwrite.engine.node import Node
from farwrite.engine.primary_kernel import C
from farwrite.engine.vote import format_ballot
from oracle import nbd_oracle
from ports import free_port
from served import PATIENCE_S, STAGING_BYTES, VOLUME_BYTES, Client, Served, until

STRUCTURED = sessions.STRUCTURED | sessions.ALLOCATION
PAGE = 4096
BLOCK = bytes(range(256)) * 16


@pytest.fixture(scope="module")
def served():
    with contextlib.ExitStack() as stack:
        yield Served(stack)


@pytest.fixture
def stack():
    with contextlib.ExitStack() as made:
        yield made


@pytest.mark.parametrize("flags", [0, STRUCTURED], ids=["simple", "structured"])
def test_every_command_does_what_it_says(served, flags):
    client = served.connect(flags)
    assert client.write(8192, BLOCK) == 0 and client.read(8192, PAGE) == BLOCK
    assert client.write(8192 + 100, b"abc", nbd.FUA) == 0
    assert client.read(8190, 200) == (bytes(2) + BLOCK)[:102] + b"abc" + BLOCK[103:198]
    assert client.ask(nbd.FLUSH) == client.ask(nbd.CACHE, 0, PAGE) == (0, b"")
    assert client.ask(nbd.TRIM, 8192, 512, nbd.FUA)[0] == 0 and client.read(8192, 513) == bytes(512) + BLOCK[512:513]
    for zero in (0, nbd.NO_HOLE, nbd.FAST_ZERO, nbd.FUA | nbd.NO_HOLE):
        assert client.write(16384, BLOCK) == 0
        assert client.ask(nbd.WRITE_ZEROES, 16384 + 1, 4000, zero)[0] == 0
        assert client.read(16384, PAGE) == BLOCK[:1] + bytes(4000) + BLOCK[4001:]
    for command in (nbd.READ, nbd.WRITE, nbd.TRIM, nbd.CACHE, nbd.WRITE_ZEROES):
        assert client.ask(command, 4096, 0)[0] == 0
    client.begin(nbd.DISC)
    assert client.is_hung_up()


@pytest.mark.parametrize("flags", [0, STRUCTURED], ids=["simple", "structured"])
def test_every_error_is_the_protocols_and_the_connection_goes_on(served, flags):
    client, reader = served.connect(flags), served.connect(flags | sessions.READ_ONLY)
    end = VOLUME_BYTES
    assert client.ask(nbd.READ, end - 1, 2)[0] == client.ask(nbd.TRIM, end, 1)[0] == nbd.EINVAL
    assert client.ask(nbd.READ, 1 << 63, 4096)[0] == client.ask(nbd.CACHE, (1 << 64) - 1, 4096)[0] == nbd.EINVAL
    assert client.write(end - 1, b"12") == client.ask(nbd.WRITE_ZEROES, end, 1)[0] == nbd.ENOSPC
    assert client.write((1 << 64) - 512, bytes(1024)) == nbd.ENOSPC
    assert client.ask(99)[0] == client.ask(nbd.READ, 0, 1, 1 << 9)[0] == nbd.EINVAL
    assert client.ask(nbd.WRITE_ZEROES, 0, 1, nbd.DF)[0] == client.ask(nbd.FLUSH, 0, 0, nbd.REQ_ONE)[0] == nbd.EINVAL
    assert client.write(0, b"x", nbd.NO_HOLE) == client.ask(nbd.READ, 0, (32 << 20) + 1)[0] == nbd.EINVAL
    assert client.ask(nbd.WRITE_ZEROES, 0, PAGE, nbd.NO_HOLE | nbd.FAST_ZERO)[0] == nbd.ENOTSUP
    assert client.write(0, bytes((32 << 20) + 512)) == nbd.EINVAL
    assert client.ask(nbd.READ, 0, 512, nbd.DF)[0] == (0 if flags else nbd.EINVAL)
    assert client.ask(nbd.BLOCK_STATUS, 0, 0)[0] == nbd.EINVAL
    assert reader.write(0, BLOCK) == reader.ask(nbd.TRIM, 0, 1)[0] == reader.ask(nbd.WRITE_ZEROES, 0, 1)[0] == nbd.EPERM
    assert client.write(0, BLOCK) == 0 and reader.read(0, PAGE) == BLOCK
    strict = served.connect(flags, block_bytes=512, size_bytes=1 << 20)
    assert strict.write(100, bytes(512)) == strict.ask(nbd.READ, 0, 100)[0] == nbd.EINVAL
    assert strict.write((1 << 20) - 512, bytes(1024)) == nbd.ENOSPC and strict.write((1 << 20) - 512, bytes(512)) == 0


def test_a_read_that_found_no_room_for_its_answer_is_taken_once_there_is_some(served):
    """Nothing but its own send makes that room. Left to the next look, a millisecond later, each outbox full took as long."""
    client, count = served.connect(), 300
    at_once = sessions.OUTBOX_BYTES // (PAGE + 64) - 1  # Reads whose answers the outbox holds.

    def fastest_ns(burst):
        took = []
        for _ in range(10):
            begin_ns = time.monotonic_ns()
            for first in range(0, count, burst):
                size = min(burst, count - first)
                sender = threading.Thread(
                    target=client.connection.sendall, args=(b"".join(client.request(nbd.READ, 0, PAGE) for _ in range(size)),)
                )
                sender.start()
                client.take(size * (16 + PAGE))
                sender.join()
            took.append(time.monotonic_ns() - begin_ns)
        client.lengths.clear()
        return min(took)

    looks = count // at_once - 1
    assert fastest_ns(count) < fastest_ns(at_once) + looks * door_kernel.ROOM_NS // 2


def test_holes_are_told_of_and_what_waits_in_the_log_is_none(stack):
    served = Served(stack)
    client = served.connect(STRUCTURED)
    plain = served.connect(sessions.STRUCTURED)
    assert plain.ask(nbd.BLOCK_STATUS, 0, PAGE)[0] == nbd.EINVAL
    hole, data = nbd.STATUS_HOLE | nbd.STATUS_ZERO, 0
    assert client.ask(nbd.BLOCK_STATUS, 0, VOLUME_BYTES) == (0, [(VOLUME_BYTES, hole)])
    assert client.write(1 << 20, BLOCK) == 0
    expected = [(1 << 20, hole), (PAGE, data), (VOLUME_BYTES - (1 << 20) - PAGE, hole)]
    assert client.ask(nbd.BLOCK_STATUS, 0, VOLUME_BYTES) == (0, expected)
    until(lambda: served.journal.at[0].applied == served.journal.at[0].staged, "what was written to be in the volume")
    assert client.ask(nbd.BLOCK_STATUS, 0, VOLUME_BYTES) == (0, expected)
    assert client.ask(nbd.BLOCK_STATUS, 0, VOLUME_BYTES, nbd.REQ_ONE) == (0, [(1 << 20, hole)])
    assert client.ask(nbd.BLOCK_STATUS, 1 << 20, 100, nbd.REQ_ONE) == (0, [(100, data)])
    for number in range(100):
        assert client.write((2 << 20) + 2 * PAGE * number, BLOCK) == 0
    extents = client.ask(nbd.BLOCK_STATUS, 2 << 20, 1 << 20)[1]
    assert extents == [(PAGE, data), (PAGE, hole)] * 32
    assert client.ask(nbd.WRITE_ZEROES, 4 << 20, 1 << 20, nbd.NO_HOLE)[0] == 0
    assert client.ask(nbd.BLOCK_STATUS, 4 << 20, 2 << 20) == (0, [(1 << 20, data), (1 << 20, hole)])
    assert client.ask(nbd.TRIM, 4 << 20, 1 << 20)[0] == 0
    until(lambda: served.journal.at[0].applied == served.journal.at[0].staged, "what was given back to be so")
    assert client.ask(nbd.BLOCK_STATUS, 4 << 20, 2 << 20) == (0, [(2 << 20, hole)])


def extents_of(client, address, length):
    """All of them: an answer to BLOCK_STATUS holds a bounded number."""
    found, at = [], address
    while at < address + length:
        error, extents = client.ask(nbd.BLOCK_STATUS, at, address + length - at)
        assert error == 0
        found += [(size, bool(kind & nbd.STATUS_HOLE)) for size, kind in extents]
        at = address + sum(size for size, _ in found)
    return found


def joined(chunks):
    """The chunks of a read's answer, neighbours of a kind as one."""
    found = []
    for kind, offset, size in chunks:
        name = "hole" if kind == nbd.CHUNK_HOLE else "data"
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1], found[-1][2] + size)
        else:
            found.append((name, offset, size))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_read_sends_holes_as_holes_and_its_bytes_are_those_of_a_simple_one(stack, seed):
    served, draw = Served(stack), random.Random(seed)
    client, simple = served.connect(STRUCTURED), served.connect()
    end = 12 << 20
    seen = set()
    for turn in range(40):
        pages = draw.choice((1, 2, 8, 9, 40, 500))
        place = draw.randrange(end // PAGE - pages) * PAGE
        if draw.random() < 0.5:
            assert client.write(place, draw.randbytes(pages * PAGE)) == 0
        else:
            assert client.ask(nbd.TRIM, place, pages * PAGE)[0] == 0
        length = draw.choice((1, 512, PAGE, 16384, 16385, 65536, 300_000, 1 << 20, end))
        address = draw.choice((0, place, draw.randrange(end - length + 1))) if length < end else 0
        data = client.read(address, length)
        assert data == simple.read(address, length), turn
        until(lambda: served.journal.at[0].applied == served.journal.at[0].staged, "everything to be in the volume")
        assert client.read(address, length) == data
        expected = nbd_oracle.chunks(extents_of(client, address, length), address, length)
        assert joined(client.chunks) == expected, turn
        seen |= {kind for kind, _, _ in expected} | {len(expected) > 2}
        assert client.read(address, length, nbd.DF) == data and client.chunks == [(nbd.CHUNK_DATA, address, length)]
    assert seen == {"hole", "data", True, False}


def test_reads_in_chunks_that_are_asked_for_at_once_are_answered_in_their_order_and_counted_whole(stack):
    """A data chunk of 1 MiB fills the socket: what follows waits for it."""
    served = Served(stack)
    client = served.connect(STRUCTURED)
    data = os.urandom(1 << 20)
    for place in (0, 2 << 20, 4 << 20):
        assert client.write(place, data) == 0
    before = int(served.counters.bytes_read)
    tags = [client.begin(nbd.READ, address, length) for address, length in ((0, 6 << 20), (1 << 20, 1 << 20), (2 << 20, 5 << 20))]
    write = client.begin(nbd.WRITE, 8 << 20, PAGE, 0, BLOCK)
    whole = (data + bytes(1 << 20)) * 3
    assert client.answer() == (tags[0], 0, whole) and [kind for kind, _, _ in client.chunks] == [1, 2] * 3
    assert client.answer() == (tags[1], 0, bytes(1 << 20)) and client.chunks == [(nbd.CHUNK_HOLE, 1 << 20, 1 << 20)]
    assert client.answer() == (tags[2], 0, whole[: 4 << 20] + bytes(1 << 20))
    assert client.answer()[:2] == (write, 0)
    until(lambda: served.counters.bytes_read == before + (12 << 20), "all to be counted")


def test_a_disk_that_refuses_a_read_in_chunks_is_answered_as_such(stack):
    served = Served(stack)
    client = served.connect(STRUCTURED)
    assert client.write(0, bytes([1]) * (1 << 20)) == 0
    until(lambda: served.journal.at[0].applied == served.journal.at[0].staged, "it to be in the volume")
    descriptor, served.journal.at[0].volume_fd = int(served.journal.at[0].volume_fd), -1
    for length in (PAGE, 1 << 20):
        assert client.ask(nbd.READ, 0, length) == (nbd.EIO, b"")
    served.journal.at[0].volume_fd = descriptor
    assert client.read(0, 2 << 20) == bytes([1]) * (1 << 20) + bytes(1 << 20)


def test_requests_in_one_piece_and_byte_by_byte_are_the_same(served):
    client = served.connect()
    whole = b"".join(client.request(nbd.WRITE, PAGE * number, PAGE, 0, BLOCK) for number in range(40))
    whole += b"".join(client.request(nbd.READ, PAGE * number, 200) for number in range(40)) + client.request(nbd.FLUSH)
    client.connection.sendall(whole)
    answers = [client.answer() for _ in range(81)]
    assert len({tag for tag, _, _ in answers}) == 81 and not any(error for _, error, _ in answers)
    assert sum(data == BLOCK[:200] for _, _, data in answers) <= 40
    for byte in client.request(nbd.WRITE, 500, 30, 0, b"drip" * 8)[:58]:
        client.connection.sendall(bytes([byte]))
    assert client.answer() == (client.number, 0, b"")
    assert client.read(500, 30) == (b"drip" * 8)[:30]


def test_what_clients_read_is_what_was_answered_last(served):
    """Three clients take turns with random requests, each seeing at once what the others were answered."""
    draw, base = random.Random(5), 8 << 20
    model = bytearray(2 << 20)
    clients = [served.connect(), served.connect(STRUCTURED), served.connect()]
    assert clients[0].ask(nbd.TRIM, base, len(model))[0] == 0
    for number in range(250):
        client = draw.choice(clients)
        size = min(draw.choice((1, 512, 4096, 20000, 65536, 300_000, 1 << 20)), len(model))
        address = draw.randrange(len(model) - size + 1)
        what = draw.choice(("write", "write", "read", "read", "trim", "zeros"))
        if what == "write":
            data = random.Random(number).randbytes(size)
            assert client.write(base + address, data) == 0
            model[address : address + size] = data
        elif what == "read":
            assert client.read(base + address, size) == model[address : address + size]
        else:
            command = nbd.TRIM if what == "trim" else nbd.WRITE_ZEROES
            assert client.ask(command, base + address, size, nbd.NO_HOLE if what == "zeros" else 0)[0] == 0
            model[address : address + size] = bytes(size)
    assert clients[0].read(base, len(model)) == model


def test_the_largest_payload_goes_in_and_comes_out(served):
    client, data = served.connect(STRUCTURED), random.Random(1).randbytes(32 << 20)
    assert client.write(16 << 20, data) == 0
    assert client.read(16 << 20, len(data)) == data
    assert served.connect().read(16 << 20, len(data)) == data


@pytest.mark.parametrize("flags", [0, STRUCTURED], ids=["simple", "structured"])
def test_large_requests_that_are_asked_for_at_once_are_all_answered(served, flags):
    """More than a client's share of a turn stands in its inbox: it is served again, though no event tells of that."""
    client, size = served.connect(flags), 1 << 20
    tags = [client.begin(nbd.READ, number * size, size) for number in range(12)] + [client.begin(nbd.FLUSH)]
    assert sorted(client.answer()[0] for _ in tags) == tags
    data = random.Random(2).randbytes(size)
    writing = threading.Thread(target=lambda: [client.begin(nbd.WRITE, number * size, size, 0, data) for number in range(12)])
    writing.start()
    assert [client.answer()[1] for _ in range(12)] == [0] * 12
    writing.join()
    assert client.read(11 * size, size) == data


def test_a_client_that_says_disc_and_more_and_hangs_up_finds_an_orderly_end(served):
    client = served.connect()
    client.connection.sendall(client.request(nbd.DISC) + client.request(nbd.READ, 0, 4096))
    client.connection.shutdown(socket.SHUT_WR)
    assert client.connection.recv(1) == b""


def test_a_client_that_stops_reading_or_writing_disturbs_nobody(served):
    greedy, half, other = served.connect(), served.connect(), served.connect()
    for _ in range(60):
        greedy.begin(nbd.READ, 0, 1 << 20)
    half.connection.sendall(half.request(nbd.WRITE, 2 << 20, 1 << 20) + bytes(70_000))  # Where the other does not write.
    staged = int(served.journal.at[0].staged)
    for number in range(300):
        assert other.write(PAGE * number, BLOCK) == 0
    assert served.journal.at[0].staged - staged < 300 * 4200 + (4 << 20)
    assert greedy.answer()[1] == 0
    greedy.close()
    half.close()
    assert other.read(0, PAGE) == BLOCK


def test_a_client_that_lies_about_lengths_or_magic_is_hung_up_on_and_others_go_on(served):
    other = served.connect()
    bad = served.connect()
    bad.connection.sendall(bad.request(nbd.READ, 0, 512) + b"not a request, and long enough to be one")
    assert bad.answer()[1] == 0
    assert bad.is_hung_up()
    draw = random.Random(3)
    for _ in range(100):
        client = served.connect(draw.choice((0, STRUCTURED)))
        asked = [client.request(draw.randrange(9), draw.randrange(1 << 26), draw.randrange(1 << 12)) for _ in range(9)]
        data = bytearray(b"".join(asked))
        for _ in range(draw.randrange(4)):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        client.connection.sendall(data)
        client.close()
    assert other.write(0, BLOCK) == 0
    until(lambda: served.frontend.count() == live(served), "those that are gone to be forgotten")


def live(served):
    return int(np.count_nonzero(served.frontend.doors.session["kind"]))


def test_writes_that_are_held_up_are_answered_once_they_are_complete_and_a_flush_waits_for_everybodys(stack):
    served = Served(stack, stalled=True)
    one, other = served.connect(), served.connect()
    assert other.ask(nbd.FLUSH)[0] == 0  # Nothing was submitted.
    tags = [one.begin(nbd.WRITE, PAGE * number, PAGE, data=BLOCK) for number in range(5)]
    until(lambda: served.journal.at[0].staged_sequence == 5, "the writes to be staged")
    flush = other.begin(nbd.FLUSH)
    assert one.hears_nothing() and other.hears_nothing()
    served.release()
    assert [one.answer()[0] for _ in tags] == tags
    assert other.answer() == (flush, 0, b"")


def test_no_answer_to_a_client_that_is_gone_reaches_its_successor(stack):
    served = Served(stack, stalled=True)
    gone = served.connect()
    for number in range(20):
        gone.begin(nbd.WRITE, PAGE * number, PAGE, data=BLOCK)
    gone.begin(nbd.FLUSH)
    until(lambda: served.journal.at[0].staged_sequence == 20, "its writes to be staged")
    gone.close()
    until(lambda: served.frontend.count() == 0, "it to be gone")
    successor = served.connect()
    until(lambda: served.counters.sessions == 1, "the next to be there")
    assert served.frontend.doors.session[0].kind == sessions.NBD  # The same row.
    served.release()
    until(lambda: served.state.at[0].completed == 20, "the writes to complete")
    assert successor.hears_nothing()
    assert successor.read(0, PAGE) == BLOCK


def test_a_write_that_waited_for_room_is_never_done_once_its_client_is_gone(stack):
    """What stalled must not come back over what its successor has written: moosefs and ydb have lost data so."""
    served = Served(stack, stalled=True)
    gone, size = served.connect(), 512
    for _ in range(sessions.OWED_TO_ONE_MAX + 40):
        gone.begin(nbd.WRITE, 0, size, data=b"old!" * (size // 4))
    row = served.frontend.doors.session[0]
    until(lambda: row.owed == sessions.OWED_TO_ONE_MAX and row.blocked, "as many to be under way as may be")
    assert served.counters.blocked  # What is left stands in its inbox and in the socket.
    staged = int(served.journal.at[0].staged_sequence)
    gone.close()
    until(lambda: served.frontend.count() == 0, "it to be gone")
    successor = served.connect()
    tag = successor.begin(nbd.WRITE, 0, size, data=b"new!" * (size // 4))
    served.release()
    assert successor.answer() == (tag, 0, b"")
    assert served.journal.at[0].staged_sequence == staged + 1
    assert successor.read(0, size) == b"new!" * (size // 4)
    time.sleep(0.05)
    assert successor.read(0, size) == b"new!" * (size // 4)


def test_a_full_log_holds_everybody_up_and_loses_nothing(stack):
    served = Served(stack, staging=64 << 10, stalled=True)
    clients = [served.connect() for _ in range(4)]
    sent = threading.Thread(target=lambda: [client.begin(nbd.WRITE, PAGE * (100 * place + number), PAGE, data=BLOCK)
                                            for number in range(100) for place, client in enumerate(clients)])  # fmt: skip
    sent.start()
    until(lambda: served.counters.blocked > 0, "the log to be full")
    served.release()
    for client in clients:
        assert [client.answer()[1] for _ in range(100)] == [0] * 100
    sent.join()
    assert clients[0].read(0, 400 * PAGE) == BLOCK * 400


def test_when_it_leads_no_more_everybody_is_hung_up_on_and_nothing_is_answered(stack):
    served = Served(stack, stalled=True)
    clients = [served.connect() for _ in range(3)]
    for client in clients:
        client.begin(nbd.WRITE, 0, PAGE, data=BLOCK)
    until(lambda: served.journal.at[0].staged_sequence == 3, "the writes to be staged")
    served.end()
    served.frontend.leave()
    assert all(client.is_hung_up() for client in clients)
    ours, theirs = socket.socketpair()
    assert not served.frontend.adopt(theirs, sessions.NBD) and Client(ours).is_hung_up()
    assert served.frontend.count() == 0


def test_new_requests_are_not_taken_while_it_hands_over_or_shuts_down(stack):
    served = Served(stack)
    client = served.connect()
    served.taking, before = False, served.turns
    until(lambda: served.turns >= before + 2, "a turn that was begun since")
    tag = client.begin(nbd.WRITE, 0, PAGE, data=BLOCK)
    assert client.hears_nothing()
    served.taking = True
    assert client.answer() == (tag, 0, b"")
    assert served.frontend.shut_down(PATIENCE_S)
    assert client.write(0, BLOCK) == client.ask(nbd.READ, 0, 512)[0] == nbd.ESHUTDOWN


def test_what_is_owed_is_not_forgotten_by_a_shutdown_and_a_replica_that_leads_again_serves_again(stack):
    served = Served(stack, stalled=True)
    client = served.connect()
    client.begin(nbd.WRITE, 0, PAGE, data=BLOCK)
    until(lambda: served.counters.owed == 1, "the write to be taken")
    assert not served.frontend.shut_down(0.02)
    served.end()
    served.frontend.leave()
    facing = served.frontend.doors.at[0]
    assert client.is_hung_up() and facing.owed_begin == facing.owed_end and served.counters.owed == 0
    served.release()
    served.frontend.begin(served.state)
    again = served.connect()
    tag = again.begin(nbd.READ, 0, 512)
    served.frontend.turn(served.state, True, 50_000_000)
    assert again.answer() == (tag, 0, BLOCK[:512])
    assert served.frontend.shut_down(PATIENCE_S)


def test_everything_is_counted_once(stack):
    served = Served(stack)
    client, other = served.connect(), served.connect(sessions.READ_ONLY)
    until(lambda: served.counters.sessions == 2, "both to be there")
    before = {name: int(served.counters[name]) for name in sessions.Counters.LAYOUT.names}
    assert client.write(0, BLOCK * 3) == client.ask(nbd.TRIM, 0, 512)[0] == 0
    assert client.ask(nbd.WRITE_ZEROES, 0, 1024, nbd.NO_HOLE)[0] == client.ask(nbd.FLUSH)[0] == 0
    assert len(client.read(0, 100)) == 100 and len(client.read(0, 1 << 20)) == 1 << 20
    assert client.ask(nbd.READ, VOLUME_BYTES, 1)[0] == nbd.EINVAL and other.ask(nbd.TRIM, 0, 1)[0] == nbd.EPERM
    bad = served.connect()
    bad.connection.sendall(bytes(28))
    assert bad.is_hung_up()
    client.begin(nbd.DISC)
    assert client.is_hung_up()
    until(lambda: served.counters.sessions == 1, "one to be left")
    came = {name: int(served.counters[name]) - value for name, value in before.items()}
    assert came == {
        "sessions": -1, "clients": -1, "adopted": 1, "refused": 0, "writes": 3, "reads": 2, "flushes": 1,
        "bytes_written": 3 * PAGE + 512 + 1024, "bytes_read": 100 + (1 << 20), "errors": 2, "hung_up": 1, "owed": 0,
        "blocked": came["blocked"],
    }  # fmt: skip
    assert (served.frontend.doors.writes_ns.sum(), served.frontend.doors.reads_ns.sum()) == (3, 2)


def test_a_board_that_a_killed_process_has_left_tells_of_no_connections_and_takes_no_places():
    """What was done stays counted; who was served then is gone, and would be one client less with each crash."""
    counters = rows_of(sessions.Counters)
    counters[0].sessions, counters[0].clients, counters[0].owed, counters[0].writes = 3, 3, 7, 1000
    made = Frontend(VOLUME_BYTES, sessions_max=4, counters=counters)
    try:
        assert made.count() == 0 and (counters[0].clients, counters[0].owed, counters[0].writes) == (0, 0, 1000)
    finally:
        made.close()


def test_a_connection_that_cannot_be_waited_for_is_closed_once(stack):
    """Twice, and the second time it may be somebody else's by then."""
    closed = []
    scope = dict(vars(door_kernel))
    scope["libc"] = SimpleNamespace(close=closed.append, fence_acquire=lambda: None)
    scope["sessions"] = SimpleNamespace(begin=lambda doors, mail, now_ns: closed.append(mail.socket) or -1)  # As it promises.
    take_mail = FunctionType(door_kernel.take_mail.py_func.__code__, scope)
    made = Frontend(VOLUME_BYTES)
    stack.callback(made.close)
    made.doors.mail[0].socket, made.doors.at[0].mail_written = 99, 1
    take_mail(made.doors, 0)
    assert closed == [99] and made.counters[0].refused == 1 and made.doors.at[0].mail_read == 1


def test_a_file_in_place_of_a_connection_is_refused_and_closed(stack):
    """epoll takes none: as where the system allows no more to be waited for."""
    served = Served(stack)
    file_fd = os.memfd_create("no connection")
    place = os.fstat(file_fd).st_ino
    assert served.frontend.adopt(SimpleNamespace(family=socket.AF_UNIX, detach=lambda: file_fd), sessions.NBD)
    until(lambda: served.counters.refused == 1, "it to be refused")
    with contextlib.suppress(OSError):  # It is closed, and its number may be another's by now.
        assert os.fstat(file_fd).st_ino != place
    assert served.counters.sessions == 0 and served.connect().read(0, 512) == bytes(512)


def test_many_clients_are_served_and_more_are_closed(stack):
    served = Served(stack, sessions_max=300)
    clients = []
    while len(clients) < 300:
        clients.append(served.connect())
        if 2 * len(clients) >= 300:  # On its way a client is counted twice.
            until(lambda: served.counters.sessions == len(clients), "everybody to be there")
    ours, theirs = socket.socketpair()
    assert not served.frontend.adopt(theirs, sessions.NBD) and Client(ours).is_hung_up()
    tags = [client.begin(nbd.WRITE, PAGE * number, PAGE, data=BLOCK) for number, client in enumerate(clients)]
    assert [client.answer() for client in clients] == [(tag, 0, b"") for tag in tags]
    for client in clients[:299]:
        client.close()
    until(lambda: served.counters.sessions == 1, "those to be gone")
    assert clients[299].read(0, 300 * PAGE) == BLOCK * 300
    assert len(list(Path("/proc/self/fd").iterdir())) < 300


def test_no_python_runs_for_reads_and_writes(served):
    client, before, counted = served.connect(), served.turns, served.counters.writes
    begun_s = time.monotonic()
    for number in range(1000):
        client.write(PAGE * (number % 100), BLOCK)
        client.read(0, PAGE)
    assert served.counters.writes >= counted + 1000
    assert served.turns - before <= (time.monotonic() - begun_s) / 0.02 + 2  # As many as there are without any client.


def test_a_client_that_neither_goes_on_nor_takes_its_answer_is_hung_up_on(stack):
    served = Served(stack)
    served.frontend.doors.at[0].stall_ns = 100_000_000
    idle, half, deaf = (served.connect() for _ in range(3))
    half.connection.sendall(half.request(nbd.WRITE, 0, PAGE)[:40])
    for _ in range(8):
        deaf.begin(nbd.READ, 0, 1 << 20)
    assert half.is_hung_up()
    until(lambda: served.counters.sessions == 1, "the deaf one to be gone")
    assert idle.write(0, BLOCK) == 0


def test_a_secondary_holds_what_clients_were_answered(stack):
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    ours.setblocking(False)
    far = stack.enter_context(disk(None, 32 << 20, VOLUME_BYTES))
    journal = format_journal(far, 7, 1, STAGING_BYTES)
    ring, board = stack.enter_context(reactor.reactor("plain")), rows_of(SharedCounters)
    state = secondary.secondary_state(journal, ring, theirs.fileno(), C, VOLUME_BYTES, board)
    thread = threading.Thread(target=lambda: secondary.serve(state))
    thread.start()
    served = Served(stack, sockets=[ours.fileno()])
    clients = [served.connect(), served.connect()]
    for number in range(60):
        assert clients[number % 2].write(100_000 * number, random.Random(number).randbytes(3000)) == 0
    assert clients[0].ask(nbd.WRITE_ZEROES, 50, 2000)[0] == 0
    durable = int(journal.at[0].durable_sequence)
    assert durable >= 61
    expected = clients[1].read(0, 6_100_000)
    until(lambda: journal.at[0].applied_sequence == durable, "the far one to apply")
    board[0].stop = 1
    thread.join(PATIENCE_S)
    assert os.pread(far.volume_fd, 6_100_000, 0) == expected


def test_a_node_serves_clients_while_it_leads_and_its_successor_has_what_was_answered(stack):
    ballot_fd = os.memfd_create("ballot")
    stack.callback(os.close, ballot_fd)
    format_ballot(ballot_fd)
    chosen = stack.enter_context(disk(None, 32 << 20, VOLUME_BYTES))
    for number in range(2):
        addresses, board = {"a": Address("127.0.0.1", free_port(), free_port())}, rows_of(SharedCounters)
        frontend = Frontend(VOLUME_BYTES)
        made = Node("a", chosen, ballot_fd, addresses, None, 7, board, frontend, Terms("none", "none", SharedKey(b"k" * 32)))
        made.stands_at_once = True
        ours, theirs = socket.socketpair()
        assert not frontend.adopt(theirs, sessions.NBD) and Client(ours).is_hung_up()
        thread = threading.Thread(target=made.run)
        thread.start()
        until(frontend.leads, "it to lead")
        ours, theirs = socket.socketpair()
        assert frontend.adopt(theirs, sessions.NBD)
        client = Client(ours)
        assert client.read(PAGE * number, PAGE) == bytes(PAGE)
        assert client.write(PAGE * number, BLOCK) == 0
        assert client.read(0, PAGE * (number + 1)) == BLOCK * (number + 1)
        board[0].stop = 1
        assert client.is_hung_up()
        thread.join(PATIENCE_S)
        assert not thread.is_alive() and board[0].led_epoch == 0
        frontend.close()
