"""A primary with clients on this machine: its loop in a thread, files in memory, and an NBD client in plain Python."""

import contextlib
import socket
import struct
import threading
import time

from farwrite.base.host import reactor
from farwrite.base.host.disk import disk
from farwrite.engine import primary_kernel as primary
from farwrite.engine.frontend import nbd
from farwrite.engine.frontend import session_kernel as sessions
from farwrite.engine.frontend.frontend import Frontend
from farwrite.engine.journal import format_journal

VOLUME_BYTES, JOURNAL_BYTES, STAGING_BYTES = 64 << 20, 32 << 20, 4 << 20
PATIENCE_S = 60.0
TURN_NS = 20_000_000


class Served:
    """A primary that leads, and whether its writes complete: a peer that is absent holds them up until `release`."""

    def __init__(self, stack, staging=STAGING_BYTES, stalled=False, sockets=(), **options):
        self.disk = stack.enter_context(disk(None, JOURNAL_BYTES, VOLUME_BYTES))
        self.ring = stack.enter_context(reactor.reactor("plain"))
        self.journal = format_journal(self.disk, 7, 1, staging)
        self.state = primary.primary_state(
            self.journal, self.ring, list(sockets), primary.C, 1, 10**12, policy=primary.BLOCK, peer_count=1,
            volume_bytes=VOLUME_BYTES,
        )  # fmt: skip
        self.state.peer[0].detached = not stalled and not sockets
        self.frontend = Frontend(VOLUME_BYTES, **options)
        stack.callback(self.frontend.close)
        self.frontend.begin(self.state)
        self.frontend.turn(self.state, True, 0)  # Compiles, where that has not been.
        self.status, self.turns, self.is_over, self.taking = 0, 0, False, True
        self.loop = threading.Thread(target=self.turn)
        self.loop.start()
        stack.callback(self.end)

    def turn(self):
        while not self.is_over and self.status == 0:
            self.status = self.frontend.turn(self.state, self.taking, TURN_NS)
            self.turns += 1

    def release(self):
        self.state.peer[0].detached = 1

    def stall(self):
        self.state.peer[0].detached = 0

    def end(self):
        self.is_over = True
        self.frontend.hurry()
        self.loop.join(PATIENCE_S)
        assert not self.loop.is_alive()

    def connect(self, flags=0, **options):
        ours, theirs = socket.socketpair()
        assert self.frontend.adopt(theirs, sessions.NBD, flags, **options)
        return Client(ours, flags)

    @property
    def counters(self):
        return self.frontend.counters[0]


def until(condition, what):
    limit_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < limit_s, what
        time.sleep(0.002)


class Client:
    """One connection. `begin` sends a request and answers its tag; `answer` takes the next answer, whosever it is."""

    def __init__(self, connection, flags=0):
        self.connection, self.structured, self.number, self.lengths = connection, bool(flags & sessions.STRUCTURED), 100, {}
        connection.settimeout(PATIENCE_S)

    def close(self):
        self.connection.close()

    def request(self, command, address=0, length=0, flags=0, data=b""):
        self.number += 1
        if command == nbd.READ:
            self.lengths[self.number] = length
        return nbd.REQUEST.pack(nbd.REQUEST_MAGIC, flags, command, self.number, address, length) + data

    def begin(self, command, address=0, length=0, flags=0, data=b""):
        self.connection.sendall(self.request(command, address, length, flags, data))
        return self.number

    def take(self, size):
        data = bytearray()
        while len(data) < size:
            part = self.connection.recv(min(size - len(data), 1 << 20))
            if not part:
                raise ConnectionResetError("hung up")
            data += part
        return bytes(data)

    def answer(self):
        """(tag, error, payload): of a read its bytes, of a BLOCK_STATUS its extents."""
        magic = self.take(4)
        if magic == struct.pack(">I", nbd.SIMPLE_REPLY_MAGIC):
            error, tag = struct.unpack(">Iq", self.take(12))
            length = self.lengths.pop(tag, 0)
            assert not (length and self.structured), "a read is answered in chunks once that was negotiated"
            return tag, error, self.take(0 if error else length)
        assert magic == struct.pack(">I", nbd.STRUCTURED_REPLY_MAGIC), magic.hex()
        flags, kind, tag, size = struct.unpack(">HHqI", self.take(16))
        payload = self.take(size)
        if kind in (nbd.CHUNK_DATA, nbd.CHUNK_HOLE):
            return self.read_chunks(tag, flags, kind, payload)
        assert flags == nbd.CHUNK_DONE
        self.lengths.pop(tag, 0)
        if kind == nbd.CHUNK_ERROR:
            error, size = struct.unpack(">IH", payload)
            assert size == 0
            return tag, error, b""
        if kind == nbd.CHUNK_NONE:
            return tag, 0, b""
        if kind == nbd.CHUNK_BLOCK_STATUS:
            numbers = struct.unpack(f">{len(payload) // 4}I", payload)
            assert numbers[0] == nbd.BASE_ALLOCATION_ID
            return tag, 0, list(zip(numbers[1::2], numbers[2::2], strict=True))
        raise AssertionError(f"a chunk of kind {kind}")

    def read_chunks(self, tag, flags, kind, payload):
        """The rest of a read's answer, of which this is the first chunk: each begins where the one before it ended."""
        data, length = bytearray(), self.lengths.pop(tag)
        self.chunks, begin = [], None
        while True:
            offset = int.from_bytes(payload[:8], "big")
            size = len(payload) - 8 if kind == nbd.CHUNK_DATA else int.from_bytes(payload[8:], "big")
            assert size > 0 and (begin is None or offset == begin + len(data))
            begin = offset if begin is None else begin
            self.chunks.append((kind, offset, size))
            data += payload[8:] if kind == nbd.CHUNK_DATA else bytes(size)
            if flags & nbd.CHUNK_DONE:
                assert len(data) == length
                return tag, 0, bytes(data)
            assert self.take(4) == struct.pack(">I", nbd.STRUCTURED_REPLY_MAGIC)
            flags, kind, same, size = struct.unpack(">HHqI", self.take(16))
            payload = self.take(size)
            assert same == tag
            if kind == nbd.CHUNK_ERROR:
                return tag, int.from_bytes(payload[:4], "big"), b""

    def ask(self, command, address=0, length=0, flags=0, data=b""):
        tag = self.begin(command, address, length, flags, data)
        answered, error, payload = self.answer()
        assert answered == tag
        return error, payload

    def write(self, address, data, flags=0):
        return self.ask(nbd.WRITE, address, len(data), flags, data)[0]

    def read(self, address, length, flags=0):
        error, data = self.ask(nbd.READ, address, length, flags)
        assert error == 0
        return data

    def is_hung_up(self):
        """Whether nothing comes any more but the end."""
        with contextlib.suppress(ConnectionResetError):
            return self.connection.recv(1) == b""
        return True

    def hears_nothing(self, for_s=0.05):
        self.connection.settimeout(for_s)
        try:
            self.connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.connection.settimeout(PATIENCE_S)
        return False
