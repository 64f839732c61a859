"""The replicated volume as a channel of operations: an NBD client of the loop, over a socket pair.

Each iSCSI session has its own, so operations of all sessions are clients of the one loop like any others, and what they are
answered is complete at the protocol's point. Compare-and-write, which NBD has no word for, goes over a second pair
(`iscsi_state.ASK`). When the replica leads no more both ends are hung up on: what was not answered is then unknown, and the
session ends without a word about it.
"""

from __future__ import annotations

import select
import socket

from .. import iscsi_state, nbd
from .. import session_kernel as sessions
from ..frontend import Frontend
from .volume import COMPARE_AND_WRITE, FLUSH, READ, STATUS, TRIM, WRITE, WRITE_ZEROES, Operation, Result

COMMANDS = {
    READ: nbd.READ, WRITE: nbd.WRITE, TRIM: nbd.TRIM, WRITE_ZEROES: nbd.WRITE_ZEROES, FLUSH: nbd.FLUSH, STATUS: nbd.BLOCK_STATUS,
}  # fmt: skip
RECEIVE_BYTES = 256 << 10


class Pipe:
    """One socket to the loop: bytes out as far as it takes them, and what has come in."""

    def __init__(self, frontend: Frontend, kind: int, flags: int, size: int, waits: select.epoll) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        self.waits, self.wanted = waits, select.EPOLLIN
        self.outbox, self.inbox = bytearray(), bytearray()
        if not frontend.adopt(theirs, kind, flags, size):
            self.socket.close()
            raise ConnectionRefusedError("this replica does not lead")
        waits.register(self.socket, self.wanted)

    def put(self, *pieces: bytes | bytearray | memoryview) -> None:
        for piece in pieces:
            self.outbox += piece
        self.flush()

    def flush(self) -> None:
        while self.outbox:
            try:
                sent = self.socket.send(memoryview(self.outbox)[: 1 << 20])
            except (BlockingIOError, InterruptedError):
                break
            del self.outbox[:sent]
        wanted = select.EPOLLIN | (select.EPOLLOUT if self.outbox else 0)
        if wanted != self.wanted:
            self.waits.modify(self.socket, wanted)
            self.wanted = wanted

    def fill(self) -> None:
        """Take what is there; ConnectionResetError once the loop has hung up."""
        while True:
            try:
                got = self.socket.recv(RECEIVE_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            if not got:
                raise ConnectionResetError("this replica does not lead any more")
            self.inbox += got

    def take(self, size: int) -> bytes:
        taken = bytes(memoryview(self.inbox)[:size])
        del self.inbox[:size]
        return taken

    def close(self) -> None:
        self.socket.close()


class EngineChannel:
    """One session's operations on the replicated volume."""

    def __init__(self, volume: EngineVolume) -> None:
        self.volume = volume
        self.waits = select.epoll()
        flags = sessions.INNER | sessions.STRUCTURED | sessions.ALLOCATION | (sessions.READ_ONLY if volume.is_read_only else 0)
        try:
            self.requests = Pipe(volume.frontend, sessions.NBD, flags, volume.bytes, self.waits)
        except OSError:
            self.waits.close()
            raise
        self.comparisons: Pipe | None = None
        self.pending: dict[int, Operation] = {}

    def fileno(self) -> int:
        return self.waits.fileno()

    def submit(self, tag: int, operation: Operation) -> None:
        self.pending[tag] = operation
        if operation.kind == COMPARE_AND_WRITE:
            if self.comparisons is None:
                flags = sessions.INNER | iscsi_state.CHANNEL
                self.comparisons = Pipe(self.volume.frontend, sessions.ISCSI, flags, self.volume.bytes, self.waits)
            ask = iscsi_state.ASK.pack(iscsi_state.ASK_MAGIC, 0, tag, operation.address, operation.size)
            self.comparisons.put(ask, operation.compare, operation.data)
            return
        command = COMMANDS[operation.kind]
        flags = nbd.DF if command == nbd.READ else 0  # In one chunk, as next_reply() has it.
        header = nbd.REQUEST.pack(nbd.REQUEST_MAGIC, flags, command, tag, operation.address, operation.size)
        self.requests.put(header, operation.data)

    def reap(self) -> list[tuple[int, Result]]:
        results: list[tuple[int, Result]] = []
        if not self.pending:
            return results
        for pipe in (self.requests, self.comparisons):
            if pipe is not None:
                pipe.flush()
                pipe.fill()
        while (answer := self.next_reply(self.requests)) is not None:
            results.append(answer)
        while self.comparisons is not None and len(self.comparisons.inbox) >= iscsi_state.TOLD.size:
            _, error, tag, mismatch = iscsi_state.TOLD.unpack(self.comparisons.take(iscsi_state.TOLD.size))
            del self.pending[tag]
            results.append((tag, Result(error, mismatch=mismatch)))
        return results

    def next_reply(self, pipe: Pipe) -> tuple[int, Result] | None:
        """The reply that stands first, None while it is not whole. Ours are of one chunk."""
        if len(pipe.inbox) < nbd.SIMPLE_REPLY_BYTES:
            return None
        if int.from_bytes(pipe.inbox[:4], "big") == nbd.SIMPLE_REPLY_MAGIC:
            _, error, tag = nbd.SIMPLE_REPLY.unpack(pipe.take(nbd.SIMPLE_REPLY_BYTES))
            del self.pending[tag]
            return tag, Result(error)
        if len(pipe.inbox) < nbd.CHUNK_BYTES:
            return None
        _, _, kind, tag, size = nbd.CHUNK.unpack_from(pipe.inbox)
        if len(pipe.inbox) < nbd.CHUNK_BYTES + size:
            return None
        payload = memoryview(pipe.take(nbd.CHUNK_BYTES + size))[nbd.CHUNK_BYTES :]
        del self.pending[tag]
        if kind == nbd.CHUNK_DATA:
            return tag, Result(data=payload[8:])
        if kind == nbd.CHUNK_BLOCK_STATUS:
            words = [int.from_bytes(payload[at : at + 4], "big") for at in range(4, size, 4)]
            extents = tuple((length, not flags & nbd.STATUS_HOLE) for length, flags in zip(words[::2], words[1::2], strict=True))
            return tag, Result(extents=extents)
        return tag, Result(int.from_bytes(payload[:4], "big") if kind & nbd.CHUNK_ERROR else 0)

    def close(self) -> None:
        self.requests.close()
        if self.comparisons is not None:
            self.comparisons.close()
        self.waits.close()


class EngineVolume:
    """What a frontend's replica leads; `bytes` of it."""

    def __init__(self, frontend: Frontend, size: int, is_read_only: bool = False) -> None:
        self.frontend, self.bytes, self.is_read_only = frontend, size, is_read_only

    def open(self) -> EngineChannel:
        return EngineChannel(self)
