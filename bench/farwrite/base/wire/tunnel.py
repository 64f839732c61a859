"""A tunnel: a process beside a replica's that carries its connection over the network, encrypted and compressed as agreed.
Or a thread, for who makes connections from threads, which must not fork (`tunnel_in_thread`).

The replica goes on speaking plain records, over a socket pair, with a processor and a Python of its own. The tunnel dies with the
process that opened it; when it dies itself, both replicas see a peer that has hung up.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import select
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from ..errors import FarwriteError, UnfitError
from ..host.parent_death import die_with
from ..interruption import SIGNALS
from .channel import Channel
from .frames import FRAME_BYTES_MAX, codec_of
from .handshake import HANDSHAKE_LIMIT_S, agree
from .identity import context_of
from .pump import COUNTS, PARTING_LIMIT_S, RECEIVED, SENT, Pump, part
from .terms import Terms

AGREED = b"\0"
WORD_BYTES = 8
TEXT_BYTES = 4096


class Tunnel(AbstractContextManager):
    """What a replica's process holds of its tunnel."""

    def __init__(self, connection: socket.socket, pid: int, words: int, counts: memoryview) -> None:
        self.connection = connection  # Ours, instead of the network's.
        self.pid = pid
        self.words = words  # The pipe on which the tunnel says how it went.
        self.counts = counts
        self.open = True
        self.ending: bytes = b""
        self.ending_is_whole = False

    def __exit__(self, *failure: Any) -> None:
        self.close()

    @property
    def sent_bytes(self) -> int:
        """Bytes sealed and given to the network since the two tunnels agreed, TCP's own headers not among them."""
        return self.counts[SENT]

    @property
    def received_bytes(self) -> int:
        """Bytes taken from the network since then."""
        return self.counts[RECEIVED]

    @property
    def cpu_ns(self) -> int:
        """Processor time the tunnel has used. clock_getcpuclockid(3): the clock of a process is made of its number."""
        return time.clock_gettime_ns(~self.pid << 3 | 2) if self.open else 0

    def ended(self, limit_s: float) -> str | None:
        """Why the tunnel ends, if it does within the limit; "" when it was killed. Known before its connections end."""
        until_s = time.monotonic() + limit_s
        while not self.ending_is_whole and readable(self.words, until_s - time.monotonic()):
            words = os.read(self.words, TEXT_BYTES)
            self.ending += words
            self.ending_is_whole = not words
        return self.ending.decode(errors="replace") if self.ending_is_whole else None

    def close(self) -> None:
        """Hang up; the peer is given a moment to take what is still under way."""
        if not self.open:
            return
        self.connection.close()
        self.ended(0)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # Reaped by somebody else.
            gone = os.pidfd_open(self.pid)
            if not readable(gone, 2 * PARTING_LIMIT_S):
                os.kill(self.pid, signal.SIGKILL)
            os.close(gone)
            os.waitpid(self.pid, 0)
        os.close(self.words)
        self.ending_is_whole = True
        self.open = False


def open_tunnel(network: socket.socket, terms: Terms, dials: bool, limit_s: float = HANDSHAKE_LIMIT_S) -> Tunnel:
    """A tunnel that has agreed with the one at the other end; takes the connection over. UnfitError says what did not fit.

    To be called by a process's only thread: forks want that, and the tunnel ends with the thread that opened it.
    """
    prepare(terms)
    ours, theirs = socket.socketpair()
    words, ending = os.pipe()
    counts = memoryview(mmap.mmap(-1, WORD_BYTES * COUNTS)).cast("q")
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            for number in SIGNALS:  # They are for the process that opened us; we end with it.
                signal.signal(number, signal.SIG_IGN)
            die_with(parent)
            close_all_but([0, 1, 2, network.fileno(), theirs.fileno(), ending])
            carry(network, theirs, terms, dials, limit_s, counts, ending)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    network.close()
    theirs.close()
    os.close(ending)
    made = Tunnel(ours, pid, words, counts)
    try:
        first = heard(words, limit_s + PARTING_LIMIT_S)
        if first != AGREED:
            rest = made.ended(2 * PARTING_LIMIT_S) or ""
            raise UnfitError((first.decode() + rest) or "The tunnel's process ended before it agreed with its peer.")
    except BaseException:
        made.close()
        raise
    return made


def tunnel_in_thread(network: socket.socket, channel: Channel, terms: Terms, drops: bool = False) -> socket.socket:
    """Our end of a tunnel in a thread of this process; takes the connection over, whose ends have agreed on this channel.

    It ends when either side hangs up; with `drops` what the network's had said and was not taken yet is never delivered.
    It shares this process's Python with whoever else wants it.
    """
    ours, theirs = socket.socketpair()
    counts = memoryview(bytearray(WORD_BYTES * COUNTS)).cast("q")
    pump = Pump(theirs, network, channel, *codec_of(terms.compression), counts, drops)

    def run() -> None:
        with contextlib.closing(theirs), contextlib.closing(network):
            pump.run()
            pump.finish()

    threading.Thread(target=run, daemon=True).start()
    return ours


def heard(words: int, limit_s: float) -> bytes:
    """The first byte of what a tunnel says: nothing when it is gone or late."""
    return os.read(words, 1) if readable(words, limit_s) else b""


def readable(descriptor: int, limit_s: float) -> bool:
    """Whether there is something to read, or the other end has gone, within the limit."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(max(limit_s, 0) * 1000))


def prepare(terms: Terms) -> None:
    """Load and try what the terms need, so that every tunnel forked from here on has it; a bad certificate is refused here."""
    if terms.encryption == "tls" and terms.identity is not None:
        context_of(terms.identity, dials=True)
    packer, _ = codec_of(terms.compression)
    packer.pack(memoryview(bytes(FRAME_BYTES_MAX)))


def carry(network: socket.socket, replica: socket.socket, terms: Terms, dials: bool, limit_s: float,
          counts: memoryview, ending: int) -> None:  # fmt: skip
    """In the tunnel's process: agree, carry, and say how either went."""
    gc.freeze()  # What was inherited is not ours to tidy: that would copy it, page by page.
    try:
        channel = agree(network, terms, dials, limit_s)
    except FarwriteError as refusal:
        os.write(ending, str(refusal).encode()[:TEXT_BYTES])
        os.close(ending)
        part(network)
        return
    os.write(ending, AGREED)
    pump = Pump(replica, network, channel, *codec_of(terms.compression), counts)
    os.write(ending, pump.run().encode()[:TEXT_BYTES])
    os.close(ending)
    pump.finish()


def close_all_but(kept: Iterable[int]) -> None:
    """Hold no other connection of the parent's open: its peers would never learn that it has hung up."""
    from_here = 0
    for descriptor in sorted(kept):
        if from_here < descriptor:  # CPython 3.11 takes closerange(0, 0) for everything.
            os.closerange(from_here, descriptor)
        from_here = descriptor + 1
    os.closerange(from_here, DESCRIPTORS_MAX)


DESCRIPTORS_MAX = (1 << 31) - 1  # close_range(2) takes it in one call.
