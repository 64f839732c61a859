"""What the tests of the wire share: connections over loopback, both ends at once, and somebody in the middle."""

import socket
import threading
from contextlib import closing, suppress

from farwrite.base.wire.handshake import agree
from farwrite.base.wire.terms import SharedKey, Terms

KEY = SharedKey(bytes(range(32)))
OTHER_KEY = SharedKey(bytes(range(1, 33)))
PATIENCE_S = 60


def terms_of(mode):
    """("tls", "zstd") as terms of a shared key."""
    encryption, compression = mode
    return Terms(encryption, compression, KEY if encryption == "tls" else None)


def tcp_pair():
    """(dialled, answered) ends of a connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        dialled = socket.create_connection(server.getsockname())
        answered, _ = server.accept()
    for end in (dialled, answered):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.settimeout(PATIENCE_S)
    return dialled, answered


class Task:
    """A function in a thread: what it answered, or raised."""

    def __init__(self, function, *arguments, **named):
        self.answer = self.failure = None

        def run():
            try:
                self.answer = function(*arguments, **named)
            except Exception as failure:
                self.failure = failure

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def end(self):
        """What came of it."""
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive(), "it does not come to its end"
        return self.failure or self.answer


def agreed(dialled_terms, answered_terms, limit_s=PATIENCE_S):
    """What came of two ends that meet: (dialling end's channel or refusal, answering end's)."""
    dialled, answered = tcp_pair()
    with dialled, answered:
        there = Task(agree_and_part, answered, answered_terms, False, limit_s)
        here = Task(agree_and_part, dialled, dialled_terms, True, limit_s)
        return here.end(), there.end()


def agree_and_part(connection, terms, dials, limit_s):
    """agree(), and the end of the connection if it fails, as the tunnel does."""
    try:
        return agree(connection, terms, dials, limit_s)
    except Exception:
        connection.shutdown(socket.SHUT_WR)
        raise


class Pumped:
    """One end with its pump in a thread: `replica` is what a replica would hold."""

    def __init__(self, network, terms, dials):
        from farwrite.base.wire.pump import COUNTS  # Here, for who needs neither frames nor their kernels.

        self.replica, inner = socket.socketpair()
        self.replica.settimeout(PATIENCE_S)
        self.counts = memoryview(bytearray(8 * COUNTS)).cast("q")
        self.task = Task(self.carry, inner, network, terms, dials)

    def carry(self, inner, network, terms, dials):
        from farwrite.base.wire.frames import codec_of
        from farwrite.base.wire.pump import Pump

        with closing(inner), closing(network):
            channel = agree(network, terms, dials)
            made = Pump(inner, network, channel, *codec_of(terms.compression), self.counts)
            said = made.run()
            made.finish()
            return said


class Middle:
    """Two connections joined by somebody who reads along and may change bytes or hang up."""

    def __init__(self, change=None):
        self.dialled, self.left = tcp_pair()
        self.right, self.answered = tcp_pair()
        self.seen = 0  # bytes from the dialling end
        self.change = change or (lambda data, at: data)
        for source, sink, changes in ((self.left, self.right, True), (self.right, self.left, False)):
            threading.Thread(target=self.forward, args=(source, sink, changes), daemon=True).start()

    def forward(self, source, sink, changes):
        try:
            while data := source.recv(65536):
                if changes:
                    data, self.seen = self.change(bytearray(data), self.seen), self.seen + len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def hang_up(self):
        for end in (self.left, self.right):
            with suppress(OSError):  # It may have been passed on already.
                end.shutdown(socket.SHUT_RDWR)


def received(replica):
    """All that a replica reads until its connection ends."""
    data = b""
    try:
        while part := replica.recv(1 << 20):
            data += part
    except ConnectionResetError:
        pass
    return data
