"""A small iSCSI initiator for tests: it says what a test wants it to say, right or wrong."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack, contextmanager

from farwrite.engine.frontend.iscsi import engine_volume, pages, pdu, portal, relay, scsi, target, volume
from farwrite.engine.frontend.iscsi.text import pairs_of, text_of

TARGET = "iqn.2026-11.org.farwrite:tested"
NAME = "iqn.2026-11.org.example:host"
BLOCK = 512
# What an initiator offers that lets our terms through.
KEYS = {
    "HeaderDigest": "None", "DataDigest": "None", "InitialR2T": "No", "ImmediateData": "Yes", "MaxOutstandingR2T": "8",
    "FirstBurstLength": "262144", "MaxBurstLength": "16776192", "MaxRecvDataSegmentLength": "262144",
}  # fmt: skip


@contextmanager
def target_in_memory(size=64 << 20, is_read_only=False, login_s=15.0, **more):
    """A portal on loopback whose disk lies in memory."""
    with volume.memory_volume(size, is_read_only) as disk:
        unit = scsi.LogicalUnit(disk, pages.Identification(7, TARGET))
        with portal.portal(target.Target(TARGET, unit, **more), login_s=login_s) as opened:
            yield opened


@contextmanager
def target_in_loop(**more):
    """A portal whose disk is what a primary leads, in this process; its `served`, and everything that the loop can do it does."""
    import served  # Its kernels take a while to compile.

    with ExitStack() as stack:
        primary = served.Served(stack)
        disk = engine_volume.EngineVolume(primary.frontend, served.VOLUME_BYTES)
        unit = scsi.LogicalUnit(disk, pages.Identification(7, TARGET))
        gates = relay.Gates(primary.frontend)
        opened = stack.enter_context(portal.portal(target.Target(TARGET, unit, **more), gates=gates))
        opened.served = primary
        yield opened


def header(opcode, flags=0x80, data=b"", lun=0, tag=1, words=(0,) * 7, third=0, immediate=False, ahs=b""):
    """48 bytes: the seven words behind the tag are the opcode's own."""
    first = bytes([opcode | (0x40 if immediate else 0), flags, third >> 8, third & 0xFF, len(ahs) // 4])
    return first + len(data).to_bytes(3, "big") + lun.to_bytes(8, "big") + struct.pack(">8I", tag, *words)


class Initiator:
    """One connection. `log_in` comes first; `command` sends one SCSI command and plays its part until the status comes."""

    def __init__(self, address, name=NAME, isid=b"\x80\0\0\0\0\1", limit_s=20.0):
        self.socket = socket.create_connection(address, timeout=limit_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.name, self.isid = name, isid
        self.command_sn, self.expected_status_sn, self.tag = 1, 0, 0
        self.header_digest = self.data_digest = False
        self.keys: dict[str, str] = {}
        self.ready_counts: list[int] = []  # R2Ts of each command
        self.window = 0

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.socket.close()

    # PDUs.

    def send(self, head, data=b"", digests=True):
        pieces = pdu.framed(head, data, self.header_digest and digests, self.data_digest and digests)
        self.socket.sendall(b"".join(pieces))

    def exactly(self, size):
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise EOFError("the target has hung up")
            data += piece
        return data

    def receive(self):
        head = self.exactly(48)
        lengths = pdu.lengths_of(head, 1 << 24)
        if self.header_digest:
            assert self.exactly(4) == pdu.digest(head)
        padded = self.exactly(lengths.padded)
        if self.data_digest and lengths.data:
            assert self.exactly(4) == pdu.digest(padded)
        got = pdu.Pdu(head, b"", padded[: lengths.data])
        if got.opcode not in (pdu.R2T,) and not (got.opcode == pdu.DATA_IN and not got.flags & pdu.STATUS):
            self.expected_status_sn = (pdu.word(head, 24) + 1) & 0xFFFFFFFF
        if got.opcode != pdu.LOGIN_RESPONSE:
            self.window = (pdu.word(head, 32) - pdu.word(head, 28) + 1) & 0xFFFFFFFF
        return got

    def next_tag(self):
        self.tag += 1
        return self.tag

    # Login.

    def login_request(self, keys, current=1, following=3, transit=True, continued=False, session=0, tag=None, version=0):
        data = keys if isinstance(keys, bytes) else text_of(keys)
        flags = (0x80 if transit else 0) | (0x40 if continued else 0) | current << 2 | (following if transit else 0)
        head = bytes([0x43, flags, version, version, 0]) + len(data).to_bytes(3, "big") + self.isid + session.to_bytes(2, "big")
        head += struct.pack(">IHHII", self.next_tag() if tag is None else tag, 0, 0, self.command_sn, self.expected_status_sn)
        self.send(head + bytes(16), data, digests=False)
        answer = self.receive()
        assert answer.opcode == pdu.LOGIN_RESPONSE
        return int.from_bytes(answer.header[36:38], "big"), pairs_of(answer.data), answer.header[1]

    def log_in(self, keys=None, kind="Normal", target_name=TARGET, session=0):
        """Log in without proof, and keep to what was agreed on."""
        named = {"InitiatorName": self.name, "SessionType": kind}
        if kind == "Normal":
            named["TargetName"] = target_name
        status, answers, _ = self.login_request(named | (KEYS if keys is None else keys), session=session)
        assert status == 0, hex(status)
        self.keys = answers
        self.header_digest = answers.get("HeaderDigest") == "CRC32C"
        self.data_digest = answers.get("DataDigest") == "CRC32C"
        return self

    def ready(self):
        """Log in and hear the unit attention of a new nexus."""
        self.log_in()
        assert self.command(bytes(6)).status == 2
        return self

    # Commands.

    def request(
        self, cdb, data=b"", expected=None, reads=0, immediate_bytes=None, flags=None, is_immediate=False, lun=0, attribute=1,
        follow=True,
    ):  # fmt: skip
        """Send a SCSI command and what goes with it unasked; its tag."""
        tag = self.next_tag()
        writes = len(data) > 0 or (flags is not None and bool(flags & pdu.WRITE))
        length = expected if expected is not None else len(data) or reads
        first = min(int(self.keys.get("FirstBurstLength", 65536)), length)
        unasked = first if self.keys.get("InitialR2T") == "No" else min(first, 262144)
        takes = self.keys.get("ImmediateData") != "No"
        sent = min(len(data), unasked, 262144) if immediate_bytes is None and takes else min(len(data), immediate_bytes or 0)
        follows = writes and self.keys.get("InitialR2T") == "No" and sent < min(first, len(data)) and immediate_bytes is not None
        told = (0 if follows else pdu.FINAL) | (pdu.WRITE if writes else pdu.READ if reads else 0) | attribute
        if flags is not None:
            told = flags
        head = header(
            pdu.SCSI_COMMAND, told, data[:sent], lun << 48, tag, (length, self.command_sn, self.expected_status_sn, 0, 0, 0, 0),
            immediate=is_immediate,
        )  # fmt: skip
        if not is_immediate:
            self.command_sn = (self.command_sn + 1) & 0xFFFFFFFF
        self.send(head[:32] + cdb.ljust(16, b"\0"), data[:sent])
        if follows and follow:
            self.data_out(tag, 0xFFFFFFFF, data, sent, min(first, len(data)) - sent)
        return tag

    def data_out(self, tag, transfer_tag, data, offset, length, piece=65536, numbers=None):
        at = 0
        for number, begin in enumerate(range(0, length, piece)):
            size = min(piece, length - begin)
            final = pdu.FINAL if begin + size == length else 0
            told = number if numbers is None else numbers[number]
            body = data[offset + at : offset + at + size]
            words = (transfer_tag, 0, self.expected_status_sn, 0, told, offset + at, 0)
            self.send(header(pdu.DATA_OUT, final, body, 0, tag, words), body)
            at += size

    def command(self, cdb, data=b"", **more):
        """A whole command; the Outcome."""
        return self.outcome(self.request(cdb, data, **more), data)

    def outcome(self, tag, data=b""):
        got, readies = bytearray(), 0
        while True:
            answer = self.receive()
            assert answer.tag == tag, (answer, tag)
            if answer.opcode == pdu.R2T:
                readies += 1
                offset, length = pdu.word(answer.header, 40), pdu.word(answer.header, 44)
                self.data_out(tag, answer.transfer_tag, data, offset, length)
                continue
            if answer.opcode == pdu.DATA_IN:
                assert pdu.word(answer.header, 40) == len(got)
                got += answer.data
                if not answer.flags & pdu.STATUS:
                    continue
            self.ready_counts.append(readies)
            return Outcome(answer, bytes(got))

    def read(self, lba, count):
        return self.command(bytes([0x28, 0]) + lba.to_bytes(4, "big") + b"\0" + count.to_bytes(2, "big"), reads=count * BLOCK)

    def write(self, lba, data, **more):
        count = len(data) // BLOCK
        return self.command(bytes([0x2A, 0]) + lba.to_bytes(4, "big") + b"\0" + count.to_bytes(2, "big"), data, **more)

    def manage(self, function, referenced=0xFFFFFFFF, lun=0):
        self.send(self.manage_header(function, referenced, lun))
        return self.tag

    def manage_header(self, function, referenced, lun=0):
        words = (referenced, self.command_sn, self.expected_status_sn, 0, 0, 0, 0)
        return header(pdu.TASK_MANAGEMENT, 0x80 | function, b"", lun << 48, self.next_tag(), words, immediate=True)


class Outcome:
    """How a command ended."""

    def __init__(self, answer, data):
        self.data = data
        self.status = answer.header[3]
        self.flags = answer.flags & (pdu.OVERFLOW | pdu.UNDERFLOW)
        self.residual = pdu.word(answer.header, 44)
        sense = answer.data[2:] if answer.opcode == pdu.SCSI_RESPONSE and len(answer.data) > 2 else b""
        self.key = sense[2] & 0xF if sense else 0
        self.code = int.from_bytes(sense[12:14], "big") if sense else 0
        self.information = int.from_bytes(sense[3:7], "big") if sense else 0

    @property
    def is_good(self):
        return self.status == 0
