"""Our own iSCSI initiator: it logs in, and has writes to LUN 0 under way. RFC 7143; SPC-4 and SBC-3 for the commands.

`farwrite drill --door iscsi` writes with it, and `farwrite trips` asks with its login what a target agrees to. A write is one
PDU: its data is immediate, and no target of ours asks for more. Whatever the other end sends is held against what was asked.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

from ....base.errors import UnfitError
from ....base.framing import receive_exactly
from . import pdu, sense
from .login import MOVED_TEMPORARILY
from .text import TEXT_BYTES_MAX, pairs_of, text_of

BLOCK_BYTES = 512
LOGIN_TURNS_MAX = 8
MOVED_PERMANENTLY = 0x0102
SEGMENT_BYTES_MAX = 1 << 20  # Of an answer: sense data, or a mode page.
RECEIVE_BYTES = 64 << 10
# Commands before the first write. Each nexus hears of the power-on first, then of what else has changed.
ATTENTIONS_MAX = 8
READY_TAG, FLUSH_TAG = 0xF0000000, 0xF0000002  # Those of writes are below.
GOOD, CHECK_CONDITION = 0x00, 0x02
WRITE_CACHE_ENABLED, DPO_FUA, WRITE_PROTECTED = 0x04, 0x10, 0x80
FUA = 0x08
LINGER_NOT = (1).to_bytes(4, "little") + bytes(4)  # struct linger: on, for 0 s.

# What is offered: a write of up to 256 KiB in one PDU, no digests.
OFFERED = {
    "HeaderDigest": "None", "DataDigest": "None", "InitialR2T": "No", "ImmediateData": "Yes", "FirstBurstLength": "262144",
    "MaxBurstLength": "262144", "MaxRecvDataSegmentLength": "262144", "MaxOutstandingR2T": "1",
}  # fmt: skip


class MovedError(UnfitError):
    """The target is served by another portal now: `address`, as "host:port"."""

    def __init__(self, address: str) -> None:
        super().__init__(f"The target is served by {address[:80]} now.")
        self.address = address


class Answered(NamedTuple):
    """How a command ended."""

    tag: int
    status: int
    key: int  # sense key of a CHECK CONDITION
    data: bytes

    @property
    def is_unit_attention(self) -> bool:
        """Nothing was done: the initiator was told of a change instead, and is to ask again. SAM-5, section 5.14."""
        return self.status == CHECK_CONDITION and self.key == sense.UNIT_ATTENTION


def login_request(isid: bytes, length: int) -> bytes:
    """The header that goes from operational negotiation straight to the full feature phase."""
    transit = 0x87
    head = bytes([pdu.LOGIN | pdu.IMMEDIATE, transit, 0, 0]) + length.to_bytes(4, "big") + isid + bytes(2)
    return head + (1).to_bytes(4, "big") + bytes(4) + (1).to_bytes(4, "big") + bytes(20)


def receive_login(connection: socket.socket, deadline_s: float) -> tuple[bytes, bytes]:
    """Header and text of a Login Response. ProtocolError for anything else."""
    late, closed = TimeoutError("not answered in time"), ConnectionResetError("hung up")
    header = receive_exactly(connection, pdu.HEADER_BYTES, deadline_s, late, closed)
    lengths = pdu.lengths_of(header, TEXT_BYTES_MAX)
    body = receive_exactly(connection, lengths.ahs + lengths.padded, deadline_s, late, closed)
    if header[0] & 0x3F != pdu.LOGIN_RESPONSE:
        raise pdu.ProtocolError(f"opcode {header[0] & 0x3F:02x}h is no answer to a login")
    return header, body[lengths.ahs : lengths.ahs + lengths.data]


def log_in(
    connection: socket.socket, initiator: str, target: str, isid: bytes, offered: Mapping[str, str], deadline_s: float
) -> tuple[dict[str, str], bytes]:
    """(what was answered to the keys, the header of the last response).

    MovedError where another portal serves the target now, UnfitError for any other status; ProtocolError, TextError and OSError.
    """
    data = text_of({"InitiatorName": initiator, "SessionType": "Normal", "TargetName": target} | dict(offered))
    answered: dict[str, str] = {}
    for _ in range(LOGIN_TURNS_MAX):
        connection.sendall(b"".join(pdu.framed(login_request(isid, len(data)), data)))
        header, text = receive_login(connection, deadline_s)
        answered |= pairs_of(text)
        status = int.from_bytes(header[36:38], "big")
        if status in (MOVED_TEMPORARILY, MOVED_PERMANENTLY):
            raise MovedError(answered.get("TargetAddress", ""))
        if status:
            raise UnfitError(f"refused with status {status:04x}h")
        if header[1] & pdu.FINAL:
            return answered, header
        data = b""
    raise UnfitError(f"no end after {LOGIN_TURNS_MAX} answers")


class IscsiClient:
    """One session of one connection. One thread makes commands and sends them, another takes what is answered (`reap`).

    OSError, ProtocolError, TextError or UnfitError (MovedError) when there is no session to be had, or when it ends.
    """

    def __init__(self, address: tuple[str, int], initiator: str, target: str, isid: bytes, limit_s: float) -> None:
        """Logged in, with nothing more to be told, and sure that a write with FUA is durable when it is answered."""
        deadline_s = time.monotonic() + limit_s
        self.socket = socket.create_connection(address, limit_s)
        self.connected_ns = time.monotonic_ns()
        self.inbox = bytearray()
        self.sending = threading.Lock()  # No PDU into the middle of another.
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, header = log_in(self.socket, initiator, target, isid, OFFERED, deadline_s)
            self.status_sn = (pdu.word(header, 24) + 1) & pdu.NO_TAG
            self.command_sn, self.command_sn_max = pdu.word(header, 28), pdu.word(header, 32)
            self.get_ready(deadline_s)
        except BaseException:
            self.socket.close()
            raise

    # Before the first write

    def get_ready(self, deadline_s: float) -> None:
        """Hear what the unit has to tell, and what its caching page says, both at once."""
        for _ in range(ATTENTIONS_MAX):
            self.send(self.command(READY_TAG, bytes(6)) + self.command(READY_TAG + 1, bytes([0x1A, 0x08, 0x08, 0, 0xFF, 0]), 255))
            found = {one.tag: one for _ in range(2) for one in [self.next_answer(deadline_s)]}
            if set(found) != {READY_TAG, READY_TAG + 1}:
                raise pdu.ProtocolError("an answer is to no command that was sent")
            if any(one.is_unit_attention for one in found.values()):
                continue
            for one in found.values():
                if one.status != GOOD:
                    raise UnfitError(f"the unit is not ready: status {one.status:02x}h, sense key {one.key:x}h")
            check_caching(found[READY_TAG + 1].data)
            return
        raise UnfitError(f"the unit has more than {ATTENTIONS_MAX} changes to tell")

    def flush(self, limit_s: float) -> None:
        """SYNCHRONIZE CACHE(10), answered: what anybody wrote before is durable. Nothing else of ours is under way."""
        deadline_s = time.monotonic() + limit_s
        self.send(self.command(FLUSH_TAG, bytes([0x35]) + bytes(9)))
        answered = self.next_answer(deadline_s)
        if answered.tag != FLUSH_TAG or answered.status != GOOD:
            raise UnfitError(f"the cache was not synchronized: status {answered.status:02x}h, sense key {answered.key:x}h")

    # Commands

    def room(self, command_sn: int) -> int:
        """How many commands the target takes now, the next of which has this CmdSN; below 1 none."""
        return ((self.command_sn_max - command_sn + 1 + (1 << 31)) & pdu.NO_TAG) - (1 << 31)

    def command(self, tag: int, cdb: bytes, reads: int = 0, data: bytes | bytearray | memoryview = b"") -> bytes:
        """The PDU of a simple command to LUN 0 that reads so many bytes, or writes this data. It takes its CmdSN."""
        flags = pdu.FINAL | pdu.SIMPLE | (pdu.READ if reads else pdu.WRITE if len(data) else 0)
        number = self.command_sn
        self.command_sn = (number + 1) & pdu.NO_TAG
        words = (tag, reads or len(data), number, self.status_sn)
        head = bytes([pdu.SCSI_COMMAND, flags, 0, 0]) + len(data).to_bytes(4, "big") + bytes(8)
        return b"".join((head, *(word.to_bytes(4, "big") for word in words), cdb.ljust(16, b"\0"), data))

    def write(self, tag: int, address: int, data: bytes | bytearray | memoryview) -> bytes:
        """The PDU of WRITE(10) with FUA, of whole blocks."""
        assert tag < READY_TAG and address % BLOCK_BYTES == len(data) % BLOCK_BYTES == 0 < len(data)
        where = (address // BLOCK_BYTES).to_bytes(4, "big")
        return self.command(tag, bytes([0x2A, FUA]) + where + b"\0" + (len(data) // BLOCK_BYTES).to_bytes(2, "big"), data=data)

    def send(self, data: bytes) -> None:
        with self.sending:
            self.socket.sendall(data)

    # Answers

    def reap(self) -> list[Answered]:
        """What has been answered, at least one; waits as long as the socket's timeout allows."""
        while True:
            if found := self.taken():
                return found
            piece = self.socket.recv(RECEIVE_BYTES)
            if not piece:
                raise ConnectionResetError("the target has hung up")
            self.inbox += piece

    def next_answer(self, deadline_s: float) -> Answered:
        """The next one, before the first `reap`."""
        while True:
            if (one := self.take()) is not None:
                return one
            self.socket.settimeout(max(deadline_s - time.monotonic(), 0.001))
            piece = self.socket.recv(RECEIVE_BYTES)
            if not piece:
                raise ConnectionResetError("the target has hung up")
            self.inbox += piece

    def taken(self) -> list[Answered]:
        found = []
        while (one := self.take()) is not None:
            found.append(one)
        return found

    def take(self) -> Answered | None:
        """The next answer to a command among the bytes that are there; a ping is answered by the way."""
        while len(self.inbox) >= pdu.HEADER_BYTES:
            header = bytes(self.inbox[: pdu.HEADER_BYTES])
            lengths = pdu.lengths_of(header, SEGMENT_BYTES_MAX)
            size = pdu.HEADER_BYTES + lengths.ahs + lengths.padded
            if len(self.inbox) < size:
                return None
            begin = pdu.HEADER_BYTES + lengths.ahs
            data = bytes(self.inbox[begin : begin + lengths.data])
            del self.inbox[:size]
            if (one := self.understood(header, data)) is not None:
                return one
        return None

    def understood(self, header: bytes, data: bytes) -> Answered | None:
        """The answer that a PDU is; None for a ping. ProtocolError for what ends the session, or was never asked for."""
        opcode, flags = header[0] & 0x3F, header[1]
        self.command_sn_max = later(self.command_sn_max, pdu.word(header, 32))
        if opcode == pdu.NOP_IN:
            if pdu.word(header, 20) != pdu.NO_TAG:
                self.send(self.pong(header))
            return None
        tag, status = pdu.word(header, 16), header[3]
        if opcode == pdu.SCSI_RESPONSE:
            self.status_sn = (pdu.word(header, 24) + 1) & pdu.NO_TAG
            if header[2] != 0:
                raise pdu.ProtocolError(f"the target did not do a command: response {header[2]:02x}h")
            return Answered(tag, status, sense_key_of(data[2:]), b"")
        if opcode == pdu.DATA_IN and flags & pdu.STATUS and tag == READY_TAG + 1:
            self.status_sn = (pdu.word(header, 24) + 1) & pdu.NO_TAG
            return Answered(tag, status, 0, data)
        raise pdu.ProtocolError(f"a PDU of opcode {opcode:02x}h comes, which nothing asked for")

    def pong(self, header: bytes) -> bytes:
        """NOP-Out that answers a NOP-In. RFC 7143, section 11.18."""
        head = bytes([pdu.IMMEDIATE | pdu.NOP_OUT, pdu.FINAL, 0, 0]) + bytes(4) + header[8:16]
        words = (pdu.NO_TAG, pdu.word(header, 20), self.command_sn, self.status_sn)
        return head + b"".join(word.to_bytes(4, "big") for word in words) + bytes(16)

    def close(self) -> None:
        break_off(self.socket)


def check_caching(data: bytes) -> None:
    """UnfitError where the caching page has an answered write lie in a cache, and FUA cannot be asked for. SBC-3, 6.4.5."""
    pages = 4 + (data[3] if len(data) > 3 else 0)
    if len(data) < pages + 3 or data[pages] & 0x3F != 0x08:
        raise UnfitError("the unit has no caching page, so nobody knows when a write is durable")
    if data[2] & WRITE_PROTECTED:
        raise UnfitError("the unit may only be read")
    if data[pages + 2] & WRITE_CACHE_ENABLED and not data[2] & DPO_FUA:
        raise UnfitError("the unit caches writes, and takes no FUA")


def sense_key_of(data: bytes) -> int:
    """The sense key of sense data in fixed or descriptor format; 0 where there is none. SPC-4, section 4.5."""
    if len(data) < 3:
        return 0
    return data[1 if data[0] & 0x7F in (0x72, 0x73) else 2] & 0x0F


def later(one: int, other: int) -> int:
    """The later of two serial numbers of 32 bits. RFC 1982."""
    return other if (other - one) & pdu.NO_TAG < 1 << 31 else one


def break_off(connection: socket.socket) -> None:
    """End a connection so that nothing of it is sent any more, and wake who waits for it (socket(7), SO_LINGER)."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()

