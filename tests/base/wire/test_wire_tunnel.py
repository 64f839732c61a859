"""Tunnels carry every byte in order or end the connection; what is killed, cut or damaged ends both, with the reason."""

import contextlib
import os
import random
import select
import signal
import socket
import time

import pytest
from wire_ends import KEY, OTHER_KEY, Middle, Pumped, Task, received, tcp_pair, terms_of

from farwrite.base.errors import UnfitError
from farwrite.base.wire import channel, pump
from farwrite.base.wire.terms import Terms
from farwrite.base.wire.tunnel import open_tunnel, tunnel_in_thread
from farwrite.lab.process import process

MODES = [(encryption, compression) for encryption in ("none", "tls") for compression in ("zstd", "lz4", "none")]
MODES.remove(("none", "none"))


def pumped(mode, ends=None):
    """Both ends of a connection with their pumps."""
    dialled, answered = ends or tcp_pair()
    return Pumped(dialled, terms_of(mode), True), Pumped(answered, terms_of(mode), False)


def say(replica, data, dice):
    """Write all of it, in pieces of any size and now and then after a pause."""
    at = 0
    while at < len(data):
        size = dice.choice([1, 64, 4160, 70_000, 400_000])
        replica.sendall(data[at : at + size])
        at += size
        if dice.random() < 0.1:
            time.sleep(0.002)


def hear(replica, size):
    """So many bytes."""
    data = b""
    while len(data) < size and (part := replica.recv(1 << 20)):
        data += part
    return data


def story_of(dice):
    """What one end says: noise and what compresses, none to much."""
    parts = [dice.choice([dice.randbytes, bytes])(dice.choice([1, 100, 5000, 300_000])) for _ in range(dice.randrange(8))]
    return b"".join(parts)


@pytest.mark.parametrize("mode", MODES, ids="-".join)
@pytest.mark.parametrize("seed", range(6))
def test_both_ends_hear_exactly_what_the_other_says_at_the_same_time(mode, seed):
    dice = random.Random(seed)
    near, far = pumped(mode)
    outward, homeward = story_of(dice), story_of(dice)
    tasks = [
        Task(say, near.replica, outward, random.Random(seed)), Task(say, far.replica, homeward, random.Random(-seed)),
        Task(hear, far.replica, len(outward)), Task(hear, near.replica, len(homeward)),
    ]  # fmt: skip
    assert [task.end() for task in tasks] == [None, None, outward, homeward]
    near.replica.close()
    assert near.task.end() == pump.REPLICA_ENDED and far.task.end() == pump.PEER_ENDED
    assert received(far.replica) == b""
    assert near.counts[pump.SENT_PLAIN] == len(outward) == far.counts[pump.RECEIVED_PLAIN]
    if mode[0] == "none":  # Of a TLS stream, what came in one breath with the handshake or behind the end is not counted.
        assert near.counts[pump.SENT] == far.counts[pump.RECEIVED]


@pytest.mark.parametrize("mode", MODES, ids="-".join)
def test_a_lone_write_is_sent_without_waiting_for_company(mode):
    near, far = pumped(mode)
    for size in (1, 64, 4160):
        near.replica.sendall(b"w" * size)
        assert hear(far.replica, size) == b"w" * size
        far.replica.sendall(b"a" * 64)
        assert hear(near.replica, 64) == b"a" * 64
    near.replica.close()
    far.task.end()


@pytest.mark.parametrize("mode", MODES, ids="-".join)
def test_what_was_said_before_hanging_up_still_arrives(mode):
    near, far = pumped(mode)
    last = random.Random(1).randbytes(700_000)
    writing = Task(say, near.replica, last, random.Random(1))
    read = Task(hear, far.replica, len(last))
    writing.end()
    near.replica.close()
    assert read.end() == last
    assert received(far.replica) == b"" and far.task.end() == pump.PEER_ENDED


@pytest.mark.parametrize("mode", MODES, ids="-".join)
def test_a_reader_that_stops_holds_the_writer_up(mode):
    near, far = pumped(mode)
    near.replica.settimeout(0.5)
    noise, written = random.Random(2).randbytes(1 << 16), 0
    with pytest.raises(TimeoutError):
        while True:
            written += near.replica.send(noise)
    assert written < 64 << 20
    assert len(hear(far.replica, written)) == written
    near.replica.close()
    far.task.end()


def test_what_compresses_takes_fewer_bytes_of_the_network_and_encryption_few_more():
    rows = b"".join(b"%08d,near,far,2.364 ms\n" % row for row in range(20_000))
    sent = {}
    for mode in (("tls", "none"), ("tls", "zstd"), ("tls", "lz4"), ("none", "zstd")):
        near, far = pumped(mode)
        writing = Task(near.replica.sendall, rows)
        assert hear(far.replica, len(rows)) == rows
        writing.end()
        near.replica.close()
        near.task.end()
        far.task.end()
        sent[mode] = near.counts[pump.SENT] / len(rows)
    assert 1 < sent["tls", "none"] < 1.02
    assert sent["tls", "zstd"] < 0.5 and sent["tls", "lz4"] < 0.7
    assert sent["none", "zstd"] <= sent["tls", "zstd"]


# The network is hostile.


def damaging(at):
    """A change of one bit of the byte that is `at` bytes behind where the handshake ended."""

    def change(data, seen):
        begun = change.begun
        if begun is not None and seen <= begun + at < seen + len(data):
            data[begun + at - seen] ^= 0x10
        return data

    change.begun = None
    return change


@pytest.mark.parametrize("mode", MODES, ids="-".join)
@pytest.mark.parametrize("at", [0, 3, 9, 21, 300, 5000, 20_000])
def test_from_a_damaged_byte_on_nothing_is_delivered_and_the_connection_ends(mode, at):
    change = damaging(at)
    middle = Middle(change)
    near, far = pumped(mode, (middle.dialled, middle.answered))
    near.replica.sendall(b"whole")
    assert hear(far.replica, 5) == b"whole"
    change.begun = middle.seen
    dice = random.Random(at)
    blocks = [dice.randbytes(4160) for _ in range(10)]
    with contextlib.suppress(OSError):
        for block in blocks:
            near.replica.sendall(block)
            time.sleep(0.005)  # A frame and a TLS record each.
        near.replica.shutdown(socket.SHUT_WR)  # A damaged length may wait for more than was sent.
    delivered = received(far.replica)
    assert b"".join(blocks).startswith(delivered) and len(delivered) <= at
    ended = far.task.end()
    assert ended not in (pump.PEER_ENDED, pump.REPLICA_ENDED)
    near.replica.close()


@pytest.mark.parametrize("mode", MODES, ids="-".join)
def test_a_connection_that_is_cut_is_told_from_one_that_was_ended(mode):
    middle = Middle()
    near, far = pumped(mode, (middle.dialled, middle.answered))
    near.replica.sendall(b"whole")
    assert hear(far.replica, 5) == b"whole"
    middle.hang_up()
    assert received(far.replica) == b"" == received(near.replica)
    for end in (near, far):
        assert end.task.end() == pump.CUT_OFF


def test_nothing_that_was_recorded_can_be_played_again():
    recorded = []
    middle = Middle(lambda data, at: recorded.append(bytes(data)) or data)
    near, far = pumped(("tls", "none"), (middle.dialled, middle.answered))
    near.replica.sendall(b"write 1")
    assert hear(far.replica, 7) == b"write 1"
    time.sleep(0.05)
    middle.right.sendall(recorded[-1])
    assert received(far.replica) == b""
    assert "bad record mac" in far.task.end()
    near.replica.close()
    dialled, answered = tcp_pair()
    later = Pumped(answered, terms_of(("tls", "none")), False)
    for data in recorded:
        dialled.sendall(data)
    assert isinstance(later.task.end(), UnfitError)


def test_a_key_seals_no_more_records_than_it_may(monkeypatch):
    monkeypatch.setattr(channel, "RECORDS_MAX", 5)
    near, far = pumped(("tls", "none"))
    for number in range(4):  # One was for the handshake.
        near.replica.sendall(bytes([number]) * 100)
        assert hear(far.replica, 100) == bytes([number]) * 100
    near.replica.sendall(b"too many")
    assert received(near.replica) == b"" == received(far.replica)
    assert "connect again" in near.task.end() and far.task.end() == pump.CUT_OFF


# Processes.

HELD = {}


def dial(port, terms):
    """In the other process: the tunnel's end that dials."""
    HELD["tunnel"] = open_tunnel(socket.create_connection(("127.0.0.1", port)), terms, dials=True)
    return HELD["tunnel"].pid


def speak(data):
    HELD["tunnel"].connection.sendall(data)


def listen(size):
    return hear(HELD["tunnel"].connection, size)


def counts():
    tunnel = HELD["tunnel"]
    return tunnel.sent_bytes, tunnel.received_bytes, tunnel.cpu_ns


def end_of(limit_s):
    return HELD["tunnel"].ended(limit_s)


def read_on():
    return received(HELD["tunnel"].connection)


def hang_up():
    HELD["tunnel"].close()


@pytest.fixture
def joined():
    """A process with one end of a tunnel, and our own end: (process, tunnel, its tunnel's pid), for terms."""
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(process("other"))

        def join(terms, ours=None):
            with socket.create_server(("127.0.0.1", 0)) as server:
                other.start(dial, server.getsockname()[1], terms)
                accepted, _ = server.accept()
            try:
                made = stack.enter_context(open_tunnel(accepted, ours or terms, dials=False))
            except UnfitError as refusal:
                with pytest.raises(UnfitError) as there:
                    other.answer(20)
                return refusal, there.value
            made.connection.settimeout(20)
            return other, made, other.answer(20)

        yield join


@pytest.mark.parametrize("mode", MODES, ids="-".join)
def test_two_processes_speak_through_tunnels_of_their_own(joined, mode):
    other, tunnel, pid = joined(terms_of(mode))
    assert pid not in (os.getpid(), other.pid, tunnel.pid)
    said = random.Random(1).randbytes(100_000)
    other.call(speak, said)
    assert hear(tunnel.connection, len(said)) == said
    other.start(listen, len(said))
    tunnel.connection.sendall(said)
    assert other.answer(20) == said
    sent, got, cpu_ns = other.call(counts)
    assert (sent, got) == (tunnel.received_bytes, tunnel.sent_bytes) and cpu_ns > 0
    other.call(hang_up)
    assert received(tunnel.connection) == b"" and tunnel.ended(20) == pump.PEER_ENDED


def test_ends_that_do_not_fit_are_refused_in_the_processes_that_opened_them(joined):
    refusals = joined(Terms("tls", "none", KEY), Terms("tls", "none", OTHER_KEY))
    assert all("another key" in str(refusal) for refusal in refusals)
    refusals = joined(Terms("none", "lz4"), Terms("none", "zstd"))
    assert all("Give both ends the same" in str(refusal) for refusal in refusals)


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_a_killed_tunnel_is_a_peer_that_has_hung_up_at_both_ends(joined, whose):
    other, tunnel, pid = joined(terms_of(("tls", "zstd")))
    other.call(speak, b"whole")
    assert hear(tunnel.connection, 5) == b"whole"
    os.kill(tunnel.pid if whose == "ours" else pid, signal.SIGKILL)
    assert received(tunnel.connection) == b"" == other.call(read_on)
    assert {tunnel.ended(20), other.call(end_of, 20)} == {"", pump.CUT_OFF}
    assert tunnel.received_bytes > 5  # What was counted outlives it.
    other.call(hang_up)


def test_a_tunnel_dies_with_the_process_that_opened_it(joined):
    other, tunnel, pid = joined(terms_of(("tls", "none")))
    other.kill()
    assert received(tunnel.connection) == b""
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            if stat.read().rpartition(") ")[2].startswith("Z"):
                return  # Dead, and nobody here who reaps orphans.
        time.sleep(0.01)
    pytest.fail("it lives on")


def test_a_tunnel_keeps_no_other_connection_of_its_process_open(joined):
    ours, theirs = socket.socketpair()
    _, tunnel, _ = joined(terms_of(("none", "lz4")))
    theirs.close()
    ours.settimeout(20)
    assert ours.recv(1) == b""
    tunnel.close()
    with pytest.raises(ProcessLookupError):
        os.kill(tunnel.pid, 0)


def test_hanging_up_ends_a_tunnel_even_when_its_peer_has_vanished(joined, monkeypatch):
    other, tunnel, pid = joined(terms_of(("tls", "none")))
    os.kill(pid, signal.SIGSTOP)  # It holds its connection and says nothing, as a machine without power.
    try:
        begun_s = time.monotonic()
        tunnel.close()
        assert time.monotonic() - begun_s < 20
        with pytest.raises(ProcessLookupError):
            os.kill(tunnel.pid, 0)
    finally:
        os.kill(pid, signal.SIGCONT)
    other.call(hang_up)


@pytest.mark.parametrize("drops", [False, True])
def test_what_a_gone_client_had_said_and_was_not_taken_is_dropped_where_that_is_asked_for(drops):
    """A client that is gone may have written anew elsewhere: what is held up of the old connection must not come behind that."""
    ours, client = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    loop = tunnel_in_thread(ours, channel.Clear(), Terms("none", "none", None), drops=drops)
    client.setblocking(False)
    sent, until_s = 0, time.monotonic() + 1
    while time.monotonic() < until_s:  # The tunnel has taken what it takes, and all room behind it is full.
        with contextlib.suppress(BlockingIOError):
            sent += client.send(bytes(1 << 16))
        time.sleep(0.001)
    client.close()
    loop.settimeout(10)
    if drops:
        poller = select.poll()
        poller.register(loop, select.POLLRDHUP)
        assert poller.poll(10_000), "it is not known yet that the client is gone"
    heard = sum(len(piece) for piece in iter(lambda: loop.recv(1 << 16), b""))
    assert (heard < sent) if drops else (heard == sent)
    loop.close()
