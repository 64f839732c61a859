"""Mutated requests at the door: it neither ends nor hangs nor leaks, and shows no byte of what lies beyond a client's export."""

import contextlib
import random
import select
import socket

from farwrite.engine.frontend import nbd
from farwrite.engine.frontend import session_kernel as sessions
from served import VOLUME_BYTES, Served, until

EXPORT_BYTES = 1 << 20
SECRET = b"another client's"
REQUESTS = 4000  # tests/speed/nbd_fuzz.py sends a million.
A_CONNECTION = 40
SILENCE_S = 0.004


def some_requests(draw, client):
    """Requests of one connection, some of whose bits are changed, lengths left out, or payloads too short."""
    parts = []
    for _ in range(A_CONNECTION):
        command = draw.choice((nbd.WRITE, *range(8), 9)) if draw.random() < 0.99 else nbd.DISC
        command = nbd.READ if command == nbd.DISC and draw.random() < 0.9 else command
        length = draw.choice((0, 1, 512, 4096, 4096, 9000))
        if draw.random() < 0.1:
            length = draw.choice((EXPORT_BYTES, (32 << 20) + 1, draw.getrandbits(32)))
        address = draw.choice((0, 4096, EXPORT_BYTES - 512, EXPORT_BYTES, draw.getrandbits(64), draw.randrange(EXPORT_BYTES)))
        payload = draw.randbytes(min(length, 9000)) if command == nbd.WRITE else b""
        flags = draw.choice((0, 0, 0, 1, 2, 4, 8, 16, draw.getrandbits(16)))
        data = bytearray(client.request(command, address, length, flags))
        if draw.random() < 0.02:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        parts.append(bytes(data) + payload[: len(payload) if draw.random() < 0.95 else 7])
    return b"".join(parts)


def exchange(connection, data):
    """Send these bytes as fast as they are taken, and answer what comes back until it is silent or hung up."""
    heard = bytearray()
    connection.setblocking(False)
    while True:
        readable, writable, _ = select.select([connection], [connection] if data else [], [], SILENCE_S)
        if not readable and not writable:
            return bytes(heard)
        with contextlib.suppress(BlockingIOError):
            if readable:
                part = connection.recv(1 << 20)
                if not part:
                    return bytes(heard)
                heard += part
            if writable:
                try:
                    data = data[connection.send(data[: 64 << 10]) :]
                except (BrokenPipeError, ConnectionResetError):
                    data = b""


def fuzz(served, requests, seed):
    """Send so many mutated requests over as many connections as it takes; how many bytes came back."""
    draw, heard = random.Random(seed), 0
    other = served.connect()
    for place in range(EXPORT_BYTES, 2 * EXPORT_BYTES, 1 << 18):
        assert other.write(place, SECRET * ((1 << 18) // len(SECRET))) == 0
    for _ in range(-(-requests // A_CONNECTION)):
        flags = draw.choice((0, sessions.STRUCTURED, sessions.STRUCTURED | sessions.ALLOCATION, sessions.READ_ONLY))
        client = served.connect(flags, size_bytes=EXPORT_BYTES, block_bytes=draw.choice((1, 1, 512)))
        with contextlib.suppress(ConnectionResetError):
            said = exchange(client.connection, some_requests(draw, client))
            assert SECRET not in said
            heard += len(said)
        client.close()
    assert other.read(EXPORT_BYTES, EXPORT_BYTES) == SECRET * (EXPORT_BYTES // len(SECRET))
    assert other.read(2 * EXPORT_BYTES, 4096) == bytes(4096)
    other.close()
    until(lambda: served.frontend.count() == 0, "everybody to be forgotten")
    assert served.status == 0
    return heard


def test_mutated_requests_end_nothing_and_show_nobody_anything():
    with contextlib.ExitStack() as stack:
        served = Served(stack)
        assert fuzz(served, REQUESTS, 1) > 100_000
        assert served.counters.errors > REQUESTS // 20 and served.counters.hung_up > 0


def test_what_the_slow_lane_answers_is_sent_and_not_to_a_successor():
    """By hand, as a door would: this loop knows no request that it leaves to Python."""
    with contextlib.ExitStack() as stack:
        asked = []
        served = Served(stack, answers_slowly=lambda context, data: asked.append((context, data)) or data[::-1])
        ours, theirs = socket.socketpair()
        assert served.frontend.adopt(theirs, sessions.NBD, context="whose")
        until(lambda: served.counters.sessions == 1, "it to be there")
        served.end()
        doors = served.frontend.doors
        for is_gone in (False, True):
            doors.inbox[0, :5] = list(b"12345")
            assert sessions.ask(doors, 0, 0, 5)
            until(lambda: doors.lane[0].state == sessions.ANSWERED, "an answer")
            doors.session[0].generation += is_gone
            served.frontend.turn(served.state, True, 1_000_000)
            assert doors.lane[0].state == sessions.NO_LANE and doors.at[0].lanes_asked == 0
            ours.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                assert ours.recv(100) == b"54321" and not is_gone
        assert asked == [("whose", b"12345")] * 2
        assert doors.session[0].size_bytes == VOLUME_BYTES
