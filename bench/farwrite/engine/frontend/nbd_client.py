"""A client of NBD: blocking, with several requests in flight, structured replies and block status. doc/proto.md, doc/uri.md.

`issue` sends a request and `reap` takes the next answer, whosever it is; `ask` is one after the other. Whatever the other end
sends is held against what was asked: a server that lies about lengths, ranges or cookies ends the connection with a sentence.
farwrite copy moves its bytes with it, and tests ask our own door.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from ...base.errors import UnfitError, UsageError
from . import nbd

PORT = 10809  # IANA's.
LIMIT_S = 60.0  # For the next bytes of an answer: longer than a failover of the volume, after which the other end hangs up.
URI_BYTES_MAX, EXPORT_BYTES_MAX, OPTION_DATA_MAX = 4096, 255, 64 << 10
OPTION_REPLIES_MAX = 256
EXTENTS_MAX = 1 << 20  # In one answer; the usual server sends less than a thousandth of that.
STATUS_LENGTHS = range(4, 4 + 8 * EXTENTS_MAX + 1, 8)
MESSAGE_BYTES_MAX = 4096  # Of an error.
STATUS_BYTES_MAX = (1 << 32) - (1 << 16)  # Of one request; a multiple of any block size.


class ConnectionLostError(UnfitError, ConnectionError):
    """The other end is gone, or silent for too long: what was not answered is to be asked again."""


class ProtocolError(UnfitError):
    """The other end does not speak NBD as it is written, or refuses what was asked in the negotiation."""


class Place(NamedTuple):
    """Where an export is: a path of a unix socket, or (host, port)."""

    address: str | tuple[str, int]
    export: str = ""

    @property
    def uri(self) -> str:
        if isinstance(self.address, str):
            return f"nbd+unix:///{quote(self.export, safe='@')}?socket={quote(self.address)}"
        host, port = self.address
        return f"nbd://{f'[{host}]' if ':' in host else host}:{port}/{quote(self.export, safe='@')}"


def place_of(uri: str, what: str) -> Place:
    """The place that a URI names: nbd+unix:///EXPORT?socket=PATH or nbd://HOST:PORT/EXPORT. UsageError for any other."""
    asked = f"{what} {uri[:200]}"
    try:
        if len(uri.encode()) > URI_BYTES_MAX:
            raise ValueError("it is too long")
        parts = urlsplit(uri)
        query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query), max_num_fields=4))
        export = unquote(parts.path[1:], errors="strict")
        port = parts.port
    except ValueError as refusal:  # UnicodeError too.
        raise UsageError(f"{asked}: this is no URI of NBD: {refusal}.") from refusal
    if len(export.encode()) > EXPORT_BYTES_MAX or "\0" in export + query.get("socket", "") or parts.fragment or parts.username:
        raise UsageError(f"{asked}: an export has a name of up to {EXPORT_BYTES_MAX} bytes, and nothing stands behind it.")
    if parts.scheme == "nbd+unix" and not parts.netloc and set(query) == {"socket"} and query["socket"]:
        return Place(query["socket"], export)
    if parts.scheme == "nbd" and parts.hostname and not query:
        return Place((parts.hostname, port or PORT), export)
    if parts.scheme in ("nbds", "nbds+unix"):
        raise UsageError(f"{asked}: this client speaks no TLS. Go through ssh -L, or name the unix socket.")
    raise UsageError(f"{asked}: name a volume as nbd+unix:///EXPORT?socket=PATH or nbd://HOST:PORT/EXPORT.")


class Extent(NamedTuple):
    """A part of an export that is alike in one meta context."""

    begin: int
    end: int
    status: int


@dataclass
class Request:
    """One that is not answered yet, and later its answer."""

    command: int
    offset: int
    length: int
    error: int = 0
    data: bytearray = field(default_factory=bytearray)  # of a READ
    got: int = 0  # bytes of `data` that have come
    extents: dict[str, list[Extent]] = field(default_factory=dict)  # of a BLOCK_STATUS, by context


class NbdClient:
    """One connection to one export.

    OSError when it cannot be connected to, ConnectionLostError when it ends or falls silent, ProtocolError when the export or a
    context is not there or what comes is not NBD. Not for two threads at once.
    """

    def __init__(self, place: Place, contexts: Sequence[str] = (), limit_s: float = LIMIT_S) -> None:
        self.place, self.limit_s, self.size, self.flags = place, limit_s, 0, 0
        self.contexts: dict[int, str] = {}
        self.in_flight: dict[int, Request] = {}
        self.cookie, self.is_structured, self.option = 0, False, 0
        if isinstance(place.address, str):
            self.socket = socket.socket(socket.AF_UNIX)
        else:
            self.socket = socket.create_connection(place.address, limit_s)
        self.connected_ns = time.monotonic_ns()  # Over TCP; the negotiation follows.
        try:
            self.socket.settimeout(limit_s)
            if isinstance(place.address, str):
                self.socket.connect(place.address)
            else:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.negotiate(contexts)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> NbdClient:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Take leave, unless the other end is gone."""
        with contextlib.suppress(OSError, UnfitError):
            if not self.in_flight:
                self.socket.settimeout(1.0)
                self.send(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.DISC, 0, 0, 0))
        self.socket.close()

    # The negotiation

    def negotiate(self, contexts: Sequence[str]) -> None:
        """From the greeting to the export."""
        magic, option_magic, flags = struct.unpack(">QQH", self.heard(18))
        if (magic, option_magic) != (nbd.INIT_MAGIC, nbd.OPTION_MAGIC) or not flags & nbd.FLAG_FIXED_NEWSTYLE:
            raise ProtocolError(f"What answers at {self.place.uri} does not speak NBD, fixed newstyle.")
        own = nbd.FLAG_C_FIXED_NEWSTYLE | (nbd.FLAG_C_NO_ZEROES if flags & nbd.FLAG_NO_ZEROES else 0)
        self.send(struct.pack(">I", own))
        name = string(self.place.export)
        if contexts:
            for _ in self.option_replies(nbd.OPT_STRUCTURED_REPLY, b""):
                raise ProtocolError(f"{self.place.uri}: the answer to STRUCTURED_REPLY has parts.")
            self.is_structured = True
            asked = name + struct.pack(">I", len(contexts)) + b"".join(map(string, contexts))
            for kind, data in self.option_replies(nbd.OPT_SET_META_CONTEXT, asked):
                if kind == nbd.REP_META_CONTEXT and len(data) > 4 and (found := data[4:].decode(errors="replace")) in contexts:
                    self.contexts[int.from_bytes(data[:4], "big")] = found
        for kind, data in self.option_replies(nbd.OPT_GO, name + bytes(2)):
            if kind == nbd.REP_INFO and len(data) == 12 and data[:2] == bytes(2):
                self.size, self.flags = struct.unpack(">QH", data[2:])
        if not self.flags & nbd.HAS_FLAGS or self.size >= 1 << 63:
            raise ProtocolError(f"{self.place.uri}: the server does not say how large the export is.")

    def option_replies(self, option: int, data: bytes) -> list[tuple[int, bytes]]:
        """All that is answered to an option before its ACK."""
        self.send(struct.pack(">QII", nbd.OPTION_MAGIC, option, len(data)) + data)
        found: list[tuple[int, bytes]] = []
        while True:
            magic, of, kind, length = struct.unpack(">QIII", self.heard(20))
            if magic != nbd.OPTION_REPLY_MAGIC or of != option or length > OPTION_DATA_MAX or len(found) > OPTION_REPLIES_MAX:
                raise ProtocolError(f"{self.place.uri}: the answer to option {option} is none of NBD's.")
            answer = bytes(self.heard(length))
            if kind & nbd.REP_FLAG_ERROR:
                why = answer[:MESSAGE_BYTES_MAX].decode(errors="replace").rstrip(".") or f"error {kind & 0xFFFF}"
                raise ProtocolError(f"{self.place.uri} is refused by the server: {why}.")
            if kind == nbd.REP_ACK:
                return found
            found.append((kind, answer))

    # Requests

    def issue(
        self, command: int, offset: int = 0, length: int = 0, data: bytes | bytearray | memoryview = b"", flags: int = 0
    ) -> int:
        """Send a request; the cookie that its answer will have."""
        self.cookie += 1
        asked = nbd.REQUEST.pack(nbd.REQUEST_MAGIC, flags, command, self.cookie, offset, length)
        self.in_flight[self.cookie] = Request(command, offset, length)
        self.send(asked, socket.MSG_MORE if data else 0)
        if data:
            self.send(data)
        return self.cookie

    def reap(self) -> tuple[int, Request]:
        """(cookie, answer) of the next request that is answered whole."""
        assert self.in_flight
        while True:
            magic = int.from_bytes(self.heard(4), "big")
            if magic == nbd.SIMPLE_REPLY_MAGIC:
                return self.take_simple()
            if magic != nbd.STRUCTURED_REPLY_MAGIC or not self.is_structured:
                raise self.lie("an answer does not begin like one")
            if (done := self.take_chunk()) is not None:
                return done

    def take_simple(self) -> tuple[int, Request]:
        """A simple reply, whose first word is read."""
        error, cookie = struct.unpack(">Iq", self.heard(12))
        asked = self.asked(cookie)
        if self.is_structured and asked.command in (nbd.READ, nbd.BLOCK_STATUS):
            raise self.lie("a structured reply was due")
        asked.error = error
        if asked.command == nbd.READ and not error:
            asked.data = self.heard(asked.length)
        del self.in_flight[cookie]
        return cookie, asked

    def take_chunk(self) -> tuple[int, Request] | None:
        """One chunk of a structured reply; the request once it was the last."""
        flags, kind, cookie, length = struct.unpack(">HHqI", self.heard(16))
        asked = self.asked(cookie)
        if kind == nbd.CHUNK_DATA and asked.command == nbd.READ and 8 < length <= 8 + asked.length:
            self.take_data(asked, length - 8)
        elif kind == nbd.CHUNK_HOLE and asked.command == nbd.READ and length == 12:
            self.take_hole(asked)
        elif kind == nbd.CHUNK_BLOCK_STATUS and asked.command == nbd.BLOCK_STATUS and length in STATUS_LENGTHS:
            self.take_extents(asked, self.heard(length))
        elif kind in (nbd.CHUNK_ERROR, nbd.CHUNK_ERROR_OFFSET) and 6 <= length <= MESSAGE_BYTES_MAX:
            error = int.from_bytes(self.heard(length)[:4], "big")
            asked.error = asked.error or error or nbd.EIO
        elif not (kind == nbd.CHUNK_NONE and length == 0 and flags & nbd.CHUNK_DONE):
            raise self.lie(f"a chunk of kind {kind} with {length} bytes answers command {asked.command}")
        if not flags & nbd.CHUNK_DONE:
            return None
        if not asked.error and (
            (asked.command == nbd.READ and asked.got != asked.length)
            or (asked.command == nbd.BLOCK_STATUS and set(asked.extents) != set(self.contexts.values()))
        ):
            raise self.lie("an answer is over and not whole")
        del self.in_flight[cookie]
        return cookie, asked

    def take_data(self, asked: Request, size: int) -> None:
        offset = int.from_bytes(self.heard(8), "big")
        self.check_part(asked, offset, size)
        if size == asked.length:
            asked.data = self.heard(size)
            return
        asked.data = asked.data or bytearray(asked.length)
        at = offset - asked.offset
        self.hear_into(memoryview(asked.data)[at : at + size])

    def take_hole(self, asked: Request) -> None:
        offset, size = struct.unpack(">QI", self.heard(12))
        self.check_part(asked, offset, size)
        asked.data = asked.data or bytearray(asked.length)

    def check_part(self, asked: Request, offset: int, size: int) -> None:
        """Parts lie in the range that was asked for, and together are no more than it."""
        asked.got += size
        is_inside = asked.offset <= offset and size > 0 and offset + size <= asked.offset + asked.length
        if not is_inside or asked.got > asked.length:
            raise self.lie("data comes that was not asked for")

    def take_extents(self, asked: Request, data: bytearray) -> None:
        context = self.contexts.get(int.from_bytes(data[:4], "big"))
        at, end, found = asked.offset, asked.offset + asked.length, []
        for length, status in struct.iter_unpack(">II", data[4:]):
            if length == 0 or at >= end:
                raise self.lie("a block status has extents of nothing")
            found.append(Extent(at, min(at + length, end), status))
            at += length
        if context is None or context in asked.extents or not found:
            raise self.lie("a block status is of no context that was asked for")
        asked.extents[context] = found

    # One at a time

    def ask(self, command: int, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0) -> tuple[int, bytes]:
        """(error, what was read) of one request while no other is under way; the error is 0 for success."""
        assert not self.in_flight
        self.issue(command, offset, length, data, flags)
        answer = self.reap()[1]
        return answer.error, bytes(answer.data)

    def write(self, offset: int, data: bytes, flags: int = 0) -> int:
        """The error of a write."""
        return self.ask(nbd.WRITE, offset, len(data), data, flags)[0]

    def read(self, offset: int, length: int) -> bytes:
        """What stands there; UnfitError with the server's error."""
        error, data = self.ask(nbd.READ, offset, length)
        if error:
            raise self.failed("read", error)
        return data

    def flush(self) -> None:
        """Everything answered before is durable; UnfitError with the server's error."""
        if error := self.ask(nbd.FLUSH)[0]:
            raise self.failed("flush", error)

    def extents(self, begin: int, end: int, windows: int = 1) -> dict[str, list[Extent]]:
        """By context, how the range is: so many parts of it are asked for at once, each on from where its last answer ended.
        A context that the server does not have is missing."""
        assert not self.in_flight
        if not self.contexts:
            return {}
        found: dict[str, list[Extent]] = {context: [] for context in self.contexts.values()}
        step = min(-(-(end - begin) // windows) + 0xFFFF & ~0xFFFF, STATUS_BYTES_MAX)
        waiting = [(at, min(at + step, end)) for at in range(begin, end, step)][::-1] if end > begin else []
        until: dict[int, int] = {}
        while waiting or until:
            while waiting and len(until) < windows:
                at, stop = waiting.pop()
                until[self.issue(nbd.BLOCK_STATUS, at, stop - at)] = stop
            cookie, answer = self.reap()
            if answer.error:
                raise self.failed("ask for the block status", answer.error)
            stop = until.pop(cookie)
            told = min(extents[-1].end for extents in answer.extents.values())
            for context, extents in answer.extents.items():
                found[context] += [Extent(one.begin, min(one.end, told), one.status) for one in extents if one.begin < told]
            if told < stop:
                waiting.append((told, stop))
        for extents in found.values():
            extents.sort()
        return found

    # Bytes

    def asked(self, cookie: int) -> Request:
        """What an answer is to."""
        if cookie not in self.in_flight:
            raise self.lie("an answer is to nothing that was asked")
        return self.in_flight[cookie]

    def lie(self, what: str) -> ProtocolError:
        return ProtocolError(f"{self.place.uri}: the server does not keep to the protocol: {what}.")

    def failed(self, what: str, error: int) -> UnfitError:
        """The exception for an error that was answered; a server that ends is one that is gone."""
        kind = ConnectionLostError if error == nbd.ESHUTDOWN else UnfitError
        return kind(f"{what} at {self.place.uri}: {ERRORS.get(error, f'error {error}')}.")

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> None:
        try:
            self.socket.sendall(data, flags)
        except OSError as gone:
            raise self.lost(gone) from gone

    def heard(self, size: int) -> bytearray:
        """The next so many bytes."""
        data = bytearray(size)
        self.hear_into(memoryview(data))
        return data

    def hear_into(self, place: memoryview) -> None:
        """Fill this; a byte now and then does not renew the time there is for all of it, which is longer for more."""
        until_s = time.monotonic() + self.limit_s
        while place:
            try:
                self.socket.settimeout(max(until_s - time.monotonic(), 0.001))
                count = self.socket.recv_into(place)
            except OSError as gone:
                raise self.lost(gone) from gone
            if not count:
                raise self.lost(None)
            place = place[count:]

    def lost(self, gone: OSError | None) -> ConnectionLostError:
        why = "it is silent" if isinstance(gone, TimeoutError) else (gone.strerror if gone and gone.strerror else "it hung up")
        return ConnectionLostError(f"{self.place.uri} answers no more: {why}.")


ERRORS: Mapping[int, str] = {
    nbd.EPERM: "it may only be read", nbd.EIO: "input/output error", nbd.ENOMEM: "the server has no memory left",
    nbd.EINVAL: "the server does not take this request", nbd.ENOSPC: "no room is left there",
    nbd.ENOTSUP: "the server cannot do this", nbd.ESHUTDOWN: "the server is about to end",
}  # fmt: skip


def string(text: str) -> bytes:
    """With its length before it."""
    data = text.encode()
    return struct.pack(">I", len(data)) + data
