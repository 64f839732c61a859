"""iSCSI PDUs (RFC 7143 section 11): what a header claims, held against bounds, and the headers that a target sends.

A PDU is 48 bytes of header, additional header segments, a digest of both where that was agreed, the data segment filled up to
four bytes, and its digest. `lengths_of` says how many bytes follow a header before any of them is waited for; who breaks a bound
is answered by a ProtocolError, which ends the connection (error recovery level 0, RFC 7143 section 7).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from ....base.crc_kernel import crc32c

HEADER_BYTES = 48
DIGEST_BYTES = 4
AHS_BYTES_MAX = 64  # Longer than any that we read: an extended CDB and a bidirectional length take 24 and 8.
NO_TAG = 0xFFFFFFFF

# What initiators send.
NOP_OUT, SCSI_COMMAND, TASK_MANAGEMENT, LOGIN, TEXT, DATA_OUT, LOGOUT, SNACK = 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10
# What targets send.
NOP_IN, SCSI_RESPONSE, TASK_MANAGEMENT_RESPONSE, LOGIN_RESPONSE, TEXT_RESPONSE = 0x20, 0x21, 0x22, 0x23, 0x24
DATA_IN, LOGOUT_RESPONSE, R2T, ASYNC_MESSAGE, REJECT = 0x25, 0x26, 0x31, 0x32, 0x3F

ABORT_TASK = 1  # A function of TASK_MANAGEMENT.

IMMEDIATE = 0x40  # In the byte of the opcode: delivered at once, beside the order of CmdSN.
FINAL, READ, WRITE, CONTINUE = 0x80, 0x40, 0x20, 0x40
ATTRIBUTE_MASK, SIMPLE, ORDERED, HEAD_OF_QUEUE, ACA = 0x07, 1, 2, 3, 4
# Flags of a SCSI Response and of a Data-In that carries the status.
OVERFLOW, UNDERFLOW, STATUS = 0x04, 0x02, 0x01

# Why a PDU is rejected, RFC 7143 section 11.17.1.
REASON_DATA_DIGEST, REASON_SNACK, REASON_PROTOCOL, REASON_COMMAND, REASON_TOO_MANY = 0x02, 0x03, 0x04, 0x05, 0x06
REASON_FIELD = 0x09


class ProtocolError(Exception):
    """What a peer sent breaks the protocol: the reason for a Reject PDU, and a sentence for our log."""

    def __init__(self, sentence: str, reason: int = REASON_PROTOCOL) -> None:
        super().__init__(sentence)
        self.reason = reason


class Lengths(NamedTuple):
    """How many bytes follow a header."""

    ahs: int
    data: int
    padded: int  # data filled up to four bytes


class Pdu(NamedTuple):
    """One PDU that has arrived whole."""

    header: bytes
    ahs: bytes
    data: bytes

    @property
    def opcode(self) -> int:
        return self.header[0] & 0x3F

    @property
    def is_immediate(self) -> bool:
        return bool(self.header[0] & IMMEDIATE)

    @property
    def flags(self) -> int:
        return self.header[1]

    @property
    def tag(self) -> int:
        """The initiator task tag."""
        return word(self.header, 16)

    @property
    def transfer_tag(self) -> int:
        return word(self.header, 20)

    @property
    def command_sn(self) -> int:
        return word(self.header, 24)

    @property
    def acknowledged_sn(self) -> int:
        """ExpStatSN."""
        return word(self.header, 28)


def word(header: bytes, at: int) -> int:
    """32 bits of a header, big-endian."""
    return int.from_bytes(header[at : at + 4], "big")


def lengths_of(header: bytes | memoryview, data_bytes_max: int) -> Lengths:
    """What follows this header; ProtocolError where that is more than was agreed."""
    ahs, data = header[4] * 4, int.from_bytes(header[5:8], "big")
    if ahs > AHS_BYTES_MAX:
        raise ProtocolError(f"a header announces {ahs} bytes of additional segments, of {AHS_BYTES_MAX} at most", REASON_FIELD)
    if data > data_bytes_max:
        raise ProtocolError(f"a header announces a data segment of {data} bytes, of {data_bytes_max} at most", REASON_FIELD)
    return Lengths(ahs, data, data + (-data) % 4)


def digest(*pieces: bytes | bytearray | memoryview) -> bytes:
    """CRC32C over pieces as one, as it goes over the wire (RFC 7143 section 13.1)."""
    crc = 0
    for piece in pieces:
        if len(piece):
            crc = int(crc32c(crc, np.frombuffer(bytearray(piece), np.uint8), 0, len(piece)))  # It takes no read-only array.
    return crc.to_bytes(4, "little")


def framed(
    header: bytes, data: bytes | memoryview = b"", header_digest: bool = False, data_digest: bool = False
) -> list[bytes | memoryview]:
    """The pieces of a PDU in the order in which they are sent; the header knows the length of the data."""
    pieces: list[bytes | memoryview] = [header]
    if header_digest:
        pieces.append(digest(header))
    if len(data):
        padding = bytes(-len(data) % 4)
        pieces += [data, padding] if padding else [data]
        if data_digest:
            pieces.append(digest(data, padding))
    return pieces


class Numbers(NamedTuple):
    """What every answer tells of the order of things: StatSN, and the window of commands."""

    status_sn: int
    expected_command_sn: int
    command_sn_max: int


LAYOUT = struct.Struct(">BBBB I Q II III III")  # 48 bytes; the words behind the tags differ by opcode.
assert LAYOUT.size == HEADER_BYTES


def header_of(
    opcode: int, flags: int, third: int, fourth: int, length: int, lun: int, tag: int, transfer_tag: int, numbers: Numbers,
    *words: int,
) -> bytes:  # fmt: skip
    """A header that a target sends: they agree in all but the last three words."""
    first, second, third_word = words or (0, 0, 0)
    return LAYOUT.pack(
        opcode, flags, third, fourth, length, lun, tag, transfer_tag, numbers.status_sn & NO_TAG,
        numbers.expected_command_sn & NO_TAG, numbers.command_sn_max & NO_TAG, first, second, third_word,
    )  # fmt: skip


def scsi_response(tag: int, status: int, flags: int, residual: int, data_length: int, data_sn: int, numbers: Numbers) -> bytes:
    """SCSI Response: the command is done at the target; the data segment holds the sense, with its length in front."""
    return header_of(SCSI_RESPONSE, FINAL | flags, 0, status, data_length, 0, tag, 0, numbers, data_sn, 0, residual)


def data_in(
    tag: int, flags: int, status: int, length: int, offset: int, data_sn: int, residual: int, numbers: Numbers
) -> bytes:
    """SCSI Data-In; with STATUS in its flags it ends the command as well."""
    return header_of(DATA_IN, flags, 0, status, length, 0, tag, NO_TAG, numbers, data_sn, offset, residual)


def ready_to_transfer(tag: int, lun: int, transfer_tag: int, number: int, offset: int, length: int, numbers: Numbers) -> bytes:
    return header_of(R2T, FINAL, 0, 0, 0, lun, tag, transfer_tag, numbers, number, offset, length)


def nop_in(tag: int, lun: int, transfer_tag: int, length: int, numbers: Numbers) -> bytes:
    return header_of(NOP_IN, FINAL, 0, 0, length, lun, tag, transfer_tag, numbers)


def task_management_response(tag: int, response: int, numbers: Numbers) -> bytes:
    return header_of(TASK_MANAGEMENT_RESPONSE, FINAL, response, 0, 0, 0, tag, 0, numbers)


def text_response(tag: int, flags: int, transfer_tag: int, length: int, numbers: Numbers) -> bytes:
    return header_of(TEXT_RESPONSE, flags, 0, 0, length, 0, tag, transfer_tag, numbers)


def logout_response(tag: int, response: int, numbers: Numbers) -> bytes:
    return header_of(LOGOUT_RESPONSE, FINAL, response, 0, 0, 0, tag, 0, numbers)


def reject(reason: int, numbers: Numbers) -> bytes:
    """Reject; the header that was rejected is its data segment."""
    return header_of(REJECT, FINAL, reason, 0, HEADER_BYTES, 0, NO_TAG, 0, numbers)


def async_message(event: int, lun: int, numbers: Numbers, first: int = 0, second: int = 0, third: int = 0) -> bytes:
    return header_of(ASYNC_MESSAGE, FINAL, 0, 0, 0, lun, NO_TAG, 0, numbers, event << 24 | first, second << 16 | third, 0)


def login_response(
    flags: int, isid: bytes, session: int, tag: int, status: int, length: int, numbers: Numbers
) -> bytes:
    """Login Response: version 0 is the only one there is; `status` is class and detail."""
    return struct.pack(
        ">BBBB I 6s H I I III HHQ", LOGIN_RESPONSE, flags, 0, 0, length, isid, session, tag, 0, numbers.status_sn & NO_TAG,
        numbers.expected_command_sn & NO_TAG, numbers.command_sn_max & NO_TAG, status, 0, 0,
    )  # fmt: skip
