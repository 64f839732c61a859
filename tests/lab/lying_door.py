"""A door that lies, planted into replicas that are forked afterwards: it stands between a client and the honest loop.

    early       a write is answered at once, and given to the loop 60 ms later
    drops       of every twenty writes one is answered and never given to the loop
    misplaces   of every twenty writes one goes to the block beside its own
    repeats     of every twenty answers one is given twice
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time

from farwrite.engine.frontend import iscsi_state, nbd
from farwrite.engine.frontend import session_kernel as sessions
from farwrite.engine.frontend.frontend import Frontend
from farwrite.engine.frontend.iscsi import pdu

EARLY_S, ONE_OF, PLANTED = 0.06, 20, 19
BLOCK_BYTES = 4096


def plant(monkeypatch, fault, blocks):
    """Have every door of nodes that are forked from now on lie about writes to the first `blocks` blocks."""
    honest = Frontend.adopt

    def adopt(self, connection, kind, flags=0, *rest, **more):
        if flags & (sessions.INNER | iscsi_state.RELAY):
            return honest(self, connection, kind, flags, *rest, **more)
        ours, theirs = socket.socketpair()
        lie = NbdLie if kind == sessions.NBD else IscsiLie
        lie(connection, ours, fault, blocks)
        return honest(self, theirs, kind, flags, *rest, **more)

    monkeypatch.setattr(Frontend, "adopt", adopt)


class Lie:
    """One client's connection and the one to the loop. A message is the whole of a request or of an answer."""

    def __init__(self, client, loop, fault, blocks):
        self.client, self.loop, self.fault, self.blocks = client, loop, fault, blocks
        client.settimeout(None)
        self.swallowed = set()  # tags whose honest answer is kept back
        self.later = queue.SimpleQueue()
        for work in (self.upward, self.downward, self.forward):
            threading.Thread(target=self.guarded, args=(work,), daemon=True).start()

    def guarded(self, work):
        with contextlib.suppress(OSError, EOFError):
            work()
        for one in (self.client, self.loop):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def upward(self):
        stream = self.client.makefile("rb")
        while True:
            message = self.request(stream)
            at = self.write_of(message)
            if at is None or at[1] >= self.blocks * BLOCK_BYTES:
                self.loop.sendall(message)
            elif self.fault == "early":
                self.swallowed.add(at[0])
                self.client.sendall(self.answer_to(message))
                self.later.put((time.monotonic() + EARLY_S, message))
            elif at[0] % ONE_OF != PLANTED or self.fault == "repeats":
                self.loop.sendall(message)
            elif self.fault == "drops":
                self.drop(message)
            else:
                self.loop.sendall(self.beside(message))

    def forward(self):
        while True:
            due_s, message = self.later.get()
            time.sleep(max(due_s - time.monotonic(), 0))
            self.loop.sendall(message)

    def downward(self):
        stream = self.loop.makefile("rb")
        while True:
            tag, message = self.answer(stream)
            if tag in self.swallowed:
                continue
            again = self.fault == "repeats" and tag is not None and tag % ONE_OF == PLANTED
            self.client.sendall(message * (1 + again))


def exactly(stream, size):
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


class NbdLie(Lie):
    """In the words of NBD."""

    def request(self, stream):
        header = exactly(stream, nbd.REQUEST_BYTES)
        _, _, command, _, _, length = nbd.REQUEST.unpack(header)
        return header + exactly(stream, length if command == nbd.WRITE else 0)

    def write_of(self, message):
        _, _, command, cookie, offset, _ = nbd.REQUEST.unpack_from(message)
        return (cookie, offset) if command == nbd.WRITE else None

    def answer_to(self, message):
        return nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, 0, self.write_of(message)[0])

    def drop(self, message):
        self.client.sendall(self.answer_to(message))

    def beside(self, message):
        head = list(nbd.REQUEST.unpack_from(message))
        head[4] ^= BLOCK_BYTES
        return nbd.REQUEST.pack(*head) + message[nbd.REQUEST_BYTES :]

    def answer(self, stream):
        message = exactly(stream, nbd.SIMPLE_REPLY_BYTES)
        return nbd.SIMPLE_REPLY.unpack(message)[2], message


class IscsiLie(Lie):
    """In the words of iSCSI: WRITE(10) with all of its data."""

    def request(self, stream):
        header = exactly(stream, pdu.HEADER_BYTES)
        lengths = pdu.lengths_of(header, 1 << 20)
        return header + exactly(stream, lengths.ahs + lengths.padded)

    answer_bytes = request

    def write_of(self, message):
        if message[0] & 0x3F != pdu.SCSI_COMMAND or message[32] != 0x2A:
            return None
        return pdu.word(message, 16), 512 * pdu.word(message, 34)

    def answer_to(self, message):
        number = pdu.word(message, 24)
        numbers = pdu.Numbers(pdu.word(message, 28), number + 1, number + 64)
        return pdu.scsi_response(pdu.word(message, 16), 0, 0, 0, 0, 0, numbers)

    def drop(self, message):
        """TEST UNIT READY in its place, so that no command is missing; the loop's answer to that is the client's."""
        flags = bytes([message[0], pdu.FINAL | pdu.SIMPLE]) + bytes(6)
        self.loop.sendall(flags + message[8:20] + bytes(4) + message[24:32] + bytes(16))

    def beside(self, message):
        lba = struct.pack(">I", pdu.word(message, 34) ^ BLOCK_BYTES // 512)
        return message[:34] + lba + message[38:]

    def answer(self, stream):
        message = self.answer_bytes(stream)
        return pdu.word(message, 16) if message[0] & 0x3F == pdu.SCSI_RESPONSE else None, message
