"""NBD's negotiation, fixed newstyle: from the first byte to the export that a client has chosen. Bytes in, decisions out.

`Negotiation` touches no socket: it says how many bytes it wants, and answers each piece with what is to be sent and what comes
next. So it can be driven by a fuzzer as well as by `nbd_door.py`. It asks for exactly the bytes of the next option and none
behind it: what a client says in the clear after STARTTLS is never taken for what it says under TLS, and the first request
stays in the socket for the loop. NetworkBlockDevice/nbd, doc/proto.md.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import nbd

GREETING = struct.Struct(">QQH")
CLIENT_FLAGS = struct.Struct(">I")
OPTION = struct.Struct(">QII")
REPLY = struct.Struct(">QIII")
EXPORT = struct.Struct(">QH")
BLOCK_SIZES = struct.Struct(">HIII")
U16, U32 = struct.Struct(">H"), struct.Struct(">I")
EXPORT_ZEROES = 124

NAME_BYTES_MAX = 4096  # The protocol's longest string.
OPTION_BYTES_MAX = 64 << 10  # No option of ours needs more: four longest strings of a meta context are a quarter of it.
SKIPPED_BYTES_MAX = 1 << 20  # A longer option is answered TOO_BIG and skipped; one beyond this hangs up.
OPTIONS_MAX = 256  # A usual client says three to six.
QUERIES_MAX = 64  # Of meta contexts; there are two kinds to ask for.

ALLOCATION, CHANGED = nbd.BASE_ALLOCATION.encode(), nbd.CHANGED_SINCE.encode()


class Tls(enum.Enum):
    """What the door demands."""

    NONE = "none"
    ALLOWED = "allowed"
    REQUIRED = "required"


class Next(enum.Enum):
    """What is to be done once the answer has been sent."""

    READ = "read"  # `wants` bytes more
    TLS = "tls"  # shake hands, then read
    SERVE = "serve"  # the export is chosen: transmission
    HANG_UP = "hang up"


class Export(NamedTuple):
    """One view of the volume, as clients see it."""

    name: str
    size_bytes: int
    is_read_only: bool = False
    description: str = ""
    snapshot: int = 0  # the sequence of the one that it shows; 0: the volume
    older: Mapping[str, int] = {}  # snapshots that nbd.CHANGED_SINCE may ask about, by name: their sequences


@dataclass
class Chosen:
    """What was agreed with one client."""

    export: Export
    is_structured: bool
    has_allocation: bool  # base:allocation, under nbd.BASE_ALLOCATION_ID
    since: int = 0  # sequence of the snapshot that changed-since is about, under nbd.CHANGED_SINCE_ID; 0: it was not set


class HangUp(Exception):  # noqa: N818  (Control flow within this file.)
    """Nothing can be answered any more: the reason, for the log."""


class Refusal(Exception):  # noqa: N818
    """An option is answered with an error of the protocol, and the next one is read."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence = code, sentence


@dataclass
class Negotiation:
    """One client's. `take` is given exactly `wants` bytes each time."""

    exports: Sequence[Export]  # the first is what the empty name means
    tls: Tls = Tls.NONE
    wants: int = CLIENT_FLAGS.size
    is_encrypted: bool = False
    is_structured: bool = False
    chosen: Chosen | None = None
    why: str = ""  # it has hung up
    _is_fixed: bool = False
    _no_zeroes: bool = False
    _contexts_of: bytes | None = None  # the export's name that meta contexts were set for
    _has_allocation: bool = False  # base:allocation is one of them
    _since: int = 0  # and so is changed-since, of this snapshot
    _option: int | None = None  # whose data is read next
    _skips: int = 0  # bytes of an option that is too long, still to come
    _options: int = 0
    _step: Callable[[bytes], tuple[bytes, Next]] = field(init=False)

    def __post_init__(self) -> None:
        self._step = self._client_flags

    def greeting(self) -> bytes:
        """The server speaks first."""
        return GREETING.pack(nbd.INIT_MAGIC, nbd.OPTION_MAGIC, nbd.FLAG_FIXED_NEWSTYLE | nbd.FLAG_NO_ZEROES)

    def take(self, data: bytes) -> tuple[bytes, Next]:
        """(what is to be sent, what comes next) after exactly `wants` bytes."""
        assert len(data) == self.wants and self.chosen is None and not self.why
        try:
            return self._step(data)
        except HangUp as reason:
            self.why = str(reason)
            return b"", Next.HANG_UP

    # The steps

    def _client_flags(self, data: bytes) -> tuple[bytes, Next]:
        (flags,) = CLIENT_FLAGS.unpack(data)
        if flags & ~(nbd.FLAG_C_FIXED_NEWSTYLE | nbd.FLAG_C_NO_ZEROES):
            raise HangUp(f"the client flags {flags:#x} are not among those that were offered")
        self._is_fixed, self._no_zeroes = bool(flags & nbd.FLAG_C_FIXED_NEWSTYLE), bool(flags & nbd.FLAG_C_NO_ZEROES)
        return self._await_option(b"")

    def _await_option(self, answer: bytes) -> tuple[bytes, Next]:
        self._step, self.wants = self._header, OPTION.size
        return answer, Next.READ

    def _header(self, data: bytes) -> tuple[bytes, Next]:
        magic, option, length = OPTION.unpack(data)
        if magic != nbd.OPTION_MAGIC:
            raise HangUp("what should be an option does not begin with IHAVEOPT")
        self._options += 1
        if self._options > OPTIONS_MAX:
            raise HangUp(f"more than {OPTIONS_MAX} options")
        if not self._is_fixed and option != nbd.OPT_EXPORT_NAME:
            raise HangUp(f"option {option} of a client that does not speak fixed newstyle")
        if length > SKIPPED_BYTES_MAX or (option == nbd.OPT_EXPORT_NAME and length > NAME_BYTES_MAX):
            raise HangUp(f"option {option} with {length} bytes")
        self._option = option
        if length > OPTION_BYTES_MAX:
            self._skips = length
            return self._skip()
        self._step, self.wants = self._data, length
        return (b"", Next.READ) if length else self._data(b"")

    def _skip(self) -> tuple[bytes, Next]:
        if self._skips:
            self._step, self.wants = self._skipped, min(self._skips, OPTION_BYTES_MAX)
            return b"", Next.READ
        refusal = Refusal(nbd.REP_ERR_TOO_BIG, f"at most {OPTION_BYTES_MAX} bytes are read of an option")
        return self._await_option(self._error(refusal))

    def _skipped(self, data: bytes) -> tuple[bytes, Next]:
        self._skips -= len(data)
        return self._skip()

    def _data(self, data: bytes) -> tuple[bytes, Next]:
        """One whole option."""
        option = self._option
        assert option is not None
        if option == nbd.OPT_EXPORT_NAME:
            return self._export_name(data)
        if option == nbd.OPT_ABORT:
            self.why = "the client has ended the negotiation"
            return self._reply(nbd.REP_ACK), Next.HANG_UP
        try:
            if option == nbd.OPT_STARTTLS:
                return self._start_tls(data)
            if self.tls is Tls.REQUIRED and not self.is_encrypted:
                raise Refusal(nbd.REP_ERR_TLS_REQD, "this server needs TLS: STARTTLS first")
            handler = HANDLERS.get(option)
            if handler is None:
                raise Refusal(nbd.REP_ERR_UNSUP, f"option {option} is not supported")
            answer = handler(self, data)
        except Refusal as refusal:
            return self._await_option(self._error(refusal))
        if self.chosen is not None:
            return answer, Next.SERVE
        return self._await_option(answer)

    def _reply(self, kind: int, data: bytes = b"") -> bytes:
        assert self._option is not None
        return REPLY.pack(nbd.OPTION_REPLY_MAGIC, self._option, kind, len(data)) + data

    def _error(self, refusal: Refusal) -> bytes:
        return self._reply(refusal.code, refusal.sentence.encode())

    # The options

    def _start_tls(self, data: bytes) -> tuple[bytes, Next]:
        if data:
            raise Refusal(nbd.REP_ERR_INVALID, "STARTTLS has no data")
        if self.is_encrypted:
            raise Refusal(nbd.REP_ERR_INVALID, "this connection has TLS already")
        if self.tls is Tls.NONE:
            raise Refusal(nbd.REP_ERR_POLICY, "this server was started without certificates: --tls DIR gives it some")
        answer = self._reply(nbd.REP_ACK)
        # Whatever was agreed in the clear may have been somebody else's word.
        self.is_encrypted, self.is_structured, self._contexts_of = True, False, None
        self._await_option(b"")
        return answer, Next.TLS

    def _export_name(self, name: bytes) -> tuple[bytes, Next]:
        """The old way: no error can be answered."""
        if self.tls is Tls.REQUIRED and not self.is_encrypted:
            raise HangUp("EXPORT_NAME without TLS, which this server needs")
        try:
            export = self._find(name)
        except Refusal as refusal:
            raise HangUp(refusal.sentence) from refusal
        self._choose(export, name)
        zeroes = b"" if self._no_zeroes else bytes(EXPORT_ZEROES)
        return EXPORT.pack(export.size_bytes, self._flags_of(export)) + zeroes, Next.SERVE

    def _list(self, data: bytes) -> bytes:
        if data:
            raise Refusal(nbd.REP_ERR_INVALID, "LIST has no data")
        found = b""
        for export in self.exports:
            name = export.name.encode()
            found += self._reply(nbd.REP_SERVER, U32.pack(len(name)) + name + export.description.encode())
        return found + self._reply(nbd.REP_ACK)

    def _structured_reply(self, data: bytes) -> bytes:
        if data:
            raise Refusal(nbd.REP_ERR_INVALID, "STRUCTURED_REPLY has no data")
        self.is_structured = True
        return self._reply(nbd.REP_ACK)

    def _info(self, data: bytes) -> bytes:
        return self._described(data)[0]

    def _go(self, data: bytes) -> bytes:
        answer, export, name = self._described(data)
        self._choose(export, name)
        return answer

    def _described(self, data: bytes) -> tuple[bytes, Export, bytes]:
        """INFO and GO answer the same."""
        name, rest = self._string(data)
        if len(rest) < U16.size:
            raise Refusal(nbd.REP_ERR_INVALID, "the number of information requests is missing")
        (count,) = U16.unpack_from(rest)
        if len(rest) != U16.size * (1 + count):
            raise Refusal(nbd.REP_ERR_INVALID, f"{count} information requests do not fill the option")
        asked = set(struct.unpack_from(f">{count}H", rest, U16.size))
        export = self._find(name)
        answer = self._reply(nbd.REP_INFO, U16.pack(nbd.INFO_EXPORT) + EXPORT.pack(export.size_bytes, self._flags_of(export)))
        # Always: who does not ask may know it all the same, and INFO and GO say the same.
        sizes = nbd.BLOCK_BYTES_MIN, nbd.BLOCK_BYTES_PREFERRED, nbd.PAYLOAD_BYTES_MAX
        answer += self._reply(nbd.REP_INFO, BLOCK_SIZES.pack(nbd.INFO_BLOCK_SIZE, *sizes))
        if nbd.INFO_NAME in asked:
            answer += self._reply(nbd.REP_INFO, U16.pack(nbd.INFO_NAME) + export.name.encode())
        if nbd.INFO_DESCRIPTION in asked and export.description:
            answer += self._reply(nbd.REP_INFO, U16.pack(nbd.INFO_DESCRIPTION) + export.description.encode())
        return answer + self._reply(nbd.REP_ACK), export, name

    def _list_contexts(self, data: bytes) -> bytes:
        _, queries, export = self._queries(data)
        is_asked = not queries or b"base:" in queries or ALLOCATION in queries
        names = [ALLOCATION] if is_asked else []
        wants_all = not queries or b"farwrite:" in queries or CHANGED in queries
        names += [name for older in export.older if (name := CHANGED + older.encode()) in queries or wants_all]
        return b"".join(self._context(0, name) for name in names) + self._reply(nbd.REP_ACK)

    def _set_contexts(self, data: bytes) -> bytes:
        self._contexts_of = None  # A later SET takes the place of an earlier one, also where it fails.
        name, queries, export = self._queries(data)
        self._has_allocation = ALLOCATION in queries
        known = {CHANGED + older.encode(): sequence for older, sequence in export.older.items()}
        changed = next((query for query in queries if query in known), b"")  # One at most: there is one number for it.
        self._since = known.get(changed, 0)
        if self._has_allocation or changed:
            self._contexts_of = name
        found = self._context(nbd.BASE_ALLOCATION_ID, ALLOCATION) if self._has_allocation else b""
        found += self._context(nbd.CHANGED_SINCE_ID, changed) if changed else b""
        return found + self._reply(nbd.REP_ACK)

    def _context(self, number: int, name: bytes) -> bytes:
        return self._reply(nbd.REP_META_CONTEXT, U32.pack(number) + name)

    def _queries(self, data: bytes) -> tuple[bytes, list[bytes], Export]:
        """(name of the export, what is asked of it, the export)."""
        if not self.is_structured:
            raise Refusal(nbd.REP_ERR_INVALID, "meta contexts need STRUCTURED_REPLY first")
        name, rest = self._string(data)
        if len(rest) < U32.size:
            raise Refusal(nbd.REP_ERR_INVALID, "the number of queries is missing")
        (count,) = U32.unpack_from(rest)
        if count > QUERIES_MAX:
            raise Refusal(nbd.REP_ERR_TOO_BIG, f"at most {QUERIES_MAX} queries are answered at once")
        rest, queries = rest[U32.size :], []
        for _ in range(count):
            query, rest = self._string(rest)
            queries.append(query)
        if rest:
            raise Refusal(nbd.REP_ERR_INVALID, f"{len(rest)} bytes behind the last query")
        return name, queries, self._find(name)

    # What they share

    def _string(self, data: bytes) -> tuple[bytes, bytes]:
        """A string with its length before it, and what follows."""
        if len(data) < U32.size:
            raise Refusal(nbd.REP_ERR_INVALID, "the length of a string is missing")
        (length,) = U32.unpack_from(data)
        if length > len(data) - U32.size:
            raise Refusal(nbd.REP_ERR_INVALID, f"a string of {length} bytes does not fit into the option")
        if length > NAME_BYTES_MAX:
            raise Refusal(nbd.REP_ERR_TOO_BIG, f"a string has at most {NAME_BYTES_MAX} bytes")
        return data[U32.size : U32.size + length], data[U32.size + length :]

    def _find(self, name: bytes) -> Export:
        for export in self.exports:
            if export.name.encode() == name or (not name and export is self.exports[0]):
                return export
        known = ", ".join(export.name for export in self.exports)
        raise Refusal(nbd.REP_ERR_UNKNOWN, f"there is no export of this name; there are: {known}")

    def _flags_of(self, export: Export) -> int:
        only_read, df = nbd.IS_READ_ONLY * export.is_read_only, nbd.SEND_DF * self.is_structured
        return nbd.TRANSMISSION_FLAGS | only_read | df

    def _choose(self, export: Export, name: bytes) -> None:
        is_set = self.is_structured and self._contexts_of == name
        since = self._since if is_set else 0
        self.chosen = Chosen(export, self.is_structured, is_set and self._has_allocation, since)


HANDLERS: Mapping[int, Callable[[Negotiation, bytes], bytes]] = {
    nbd.OPT_LIST: Negotiation._list, nbd.OPT_INFO: Negotiation._info, nbd.OPT_GO: Negotiation._go,
    nbd.OPT_STRUCTURED_REPLY: Negotiation._structured_reply, nbd.OPT_LIST_META_CONTEXT: Negotiation._list_contexts,
    nbd.OPT_SET_META_CONTEXT: Negotiation._set_contexts,
}  # fmt: skip
