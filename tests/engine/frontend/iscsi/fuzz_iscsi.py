"""Mutated PDUs against a live target: `python fuzz_iscsi.py 200000 [seed [loop]]`; a test plays 10 000.

Every round is a login of one initiator, valid or mutated, and PDUs that are mutated copies of valid ones. Meanwhile another
initiator writes and reads, and finds its data as it left it. After the last round the target has no session, thread or memory too
many, and what the fuzzed initiator was sent holds nothing of the other's data.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import resource
import struct
import sys
import threading
import time
from pathlib import Path

from initiator import KEYS, NAME, TARGET, Initiator, header, target_in_loop, target_in_memory

from farwrite.engine.frontend.iscsi import pdu
from farwrite.engine.frontend.iscsi.text import text_of

SECRET = b"OF THE OTHER ONE " * 31  # 527 bytes; no block of the fuzzed initiator's range holds it.
PDUS_A_CONNECTION = 40
FATAL = (0, 1, 4, 5, 6, 7, 24, 25, 26, 27)  # opcode, flags, lengths, CmdSN
OPCODES = (0x28, 0x2A, 0x88, 0x8A, 0x12, 0x1A, 0x5A, 0x15, 0x55, 0x42, 0x41, 0x93, 0x89, 0x8B, 0x9E, 0xA0, 0xA3, 0x5E, 0x5F, 0x25,
           0x35, 0x2F, 0x2E, 0x00, 0x03, 0x16, 0x17, 0x9C)  # fmt: skip
OTHERS_LBA = 60_000


class Fuzzer:
    """What one seed sends."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.received = 0

    def cdb(self) -> bytes:
        pick = self.random
        opcode = pick.choice([*OPCODES, pick.randrange(256)])
        lba, count = pick.choice([0, 1, 1000, 0x1FFFF, 0x20000, 0xFFFFFFFF]), pick.choice([0, 1, 1, 2, 8, 255, 65535])
        if lba + count > OTHERS_LBA and lba < 0x1FFFF:
            count = 8
        if opcode >> 5 == 4:
            first = bytes([pick.choice([0, 0, 0x10, 0x12, pick.randrange(32)])])
            body = first + lba.to_bytes(8, "big") + count.to_bytes(4, "big")
        else:
            body = bytes([pick.choice([0, 0, 1, pick.randrange(32)])]) + lba.to_bytes(4, "big") + b"\0" + count.to_bytes(2, "big")
        return (bytes([opcode]) + body).ljust(16, b"\0")

    def valid(self, one: Initiator) -> tuple[bytes, bytes]:
        pick = self.random
        kind = pick.choice([pdu.SCSI_COMMAND] * 12 + [pdu.NOP_OUT, pdu.TASK_MANAGEMENT, pdu.TEXT] + [pdu.DATA_OUT] * 3)
        if pick.random() < 0.01:
            kind = pdu.SNACK  # It ends the connection.
        tag = pick.choice([one.next_tag(), pick.randrange(100)])
        data = bytes([pick.randrange(256)]) * pick.choice([0, 0, 24, 512, 1024, 4096])
        sn = one.command_sn
        if kind == pdu.SCSI_COMMAND:
            flags = pick.choice([0xA1, 0xA1, 0xA1, 0x21]) if data else pick.choice([0x81, 0xC1, 0xC1, 0xA1])
            expected = max(pick.choice([0, 512, 8192, 1 << 20]), len(data))
            head = header(kind, flags, data, pick.choice([0] * 5 + [1 << 48]), tag, (expected, sn, 0, 0, 0, 0, 0))
            head = head[:32] + self.cdb()
        elif kind == pdu.DATA_OUT:
            words = (pick.choice([0xFFFFFFFF] * 8 + [1, 2]), 0, 0, 0, pick.randrange(3), pick.choice([0, 512, len(data)]), 0)
            head = header(kind, pick.choice([0, 0x80]), data, 0, pick.randrange(1, one.tag + 1), words)
        elif kind == pdu.TEXT:
            data = text_of({"SendTargets": pick.choice(["All", "", TARGET, "x"])})
            head = header(kind, pick.choice([0x80, 0x40]), data, 0, tag, (0xFFFFFFFF, sn, 0, 0, 0, 0, 0))
        else:
            words = (pick.choice([0xFFFFFFFF, tag - 1 & 0xFFFFFFFF]), sn, 0, 0, 0, 0, 0)
            head = header(kind, 0x80 | pick.randrange(6), data, 0, tag, words, immediate=pick.random() < 0.5)
        if not head[0] & 0x40 and kind not in (pdu.DATA_OUT, pdu.SNACK):
            one.command_sn += 1
        return head, data

    def mutated(self, head: bytes, data: bytes) -> bytes:
        pick, whole = self.random, bytearray(head + data + bytes(-len(data) % 4))
        for _ in range(pick.choice([0, 0, 0, 1, 1, 2, 5])):
            place = pick.randrange(min(len(whole), 48)) if pick.random() < 0.9 else pick.randrange(len(whole))
            if place in FATAL and pick.random() < 0.9:
                continue  # It ends the connection or its order of commands, and with it what could be learnt from it.
            whole[place] = pick.choice([0, 1, 0x7F, 0x80, 0xFF, pick.randrange(256)])
        return bytes(whole)

    def connection(self, address, count: int) -> int:
        """One connection's PDUs; how many were sent."""
        pick = self.random
        with Initiator(address, NAME + ":fuzz", b"\x80fuzz\0", limit_s=5) as one:
            keys = KEYS | {key: pick.choice(["Yes", "No", "1", "512", "x", "0x7", ""]) for key in pick.sample(sorted(KEYS), 2)}
            keys = {key: value for key, value in keys.items() if "Digest" not in key}
            named = {"InitiatorName": one.name, "SessionType": pick.choice(["Normal"] * 8 + ["Discovery"]), "TargetName": TARGET}
            if pick.random() < 0.1:
                data = text_of(named)
                head = bytes([0x43, 0x87, 0, 0, 0]) + len(data).to_bytes(3, "big") + one.isid + bytes(2)
                head += struct.pack(">IHHII", 1, 0, 0, 1, 0)
                one.socket.sendall(self.mutated(head + bytes(16), data))
                self.drain(one)
                return 1
            if one.login_request(named | keys)[0]:
                return 1
            sent = 1
            with contextlib.suppress(OSError):
                for _ in range(count):
                    one.socket.sendall(self.mutated(*self.valid(one)))
                    sent += 1
            self.drain(one)
            return sent

    def drain(self, one: Initiator) -> None:
        """All that the target says, until it says nothing more for a moment."""
        one.socket.settimeout(0.02)
        kept = b""
        with contextlib.suppress(OSError):
            while piece := one.socket.recv(1 << 20):
                self.received += len(piece)
                kept = kept[-512:] + piece
                assert SECRET[:512] not in kept, "bytes of the other initiator were shown"


class Faults(logging.Handler):
    """Our own faults, as the portal logs them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(logging.Formatter().format(record))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (counted, not walked)


def play(pdus: int, seed: int = 1, made=target_in_memory) -> dict[str, float]:
    """The counts; AssertionError for whatever must not happen."""
    faults = Faults()
    logging.getLogger("farwrite.engine.frontend.iscsi").addHandler(faults)
    logging.getLogger("farwrite.engine.frontend.iscsi").propagate = False
    with made() as opened:
        over, failures = threading.Event(), []

        def other() -> None:
            """Honest work beside it. A reset of the fuzzed one may cost an attention, nothing else."""
            try:
                with Initiator(opened.address, NAME + ":honest", limit_s=30) as one:
                    one.ready()
                    block = SECRET[:512]
                    while not over.is_set():
                        for done in (lambda: one.write(OTHERS_LBA, block), lambda: one.read(OTHERS_LBA, 1)):
                            outcome = done()
                            while outcome.key == 6:
                                outcome = done()
                            if outcome.status == 0x18:
                                continue
                            assert outcome.is_good or outcome.code == 0x2700, (outcome.status, outcome.code)  # or write-protected
                            assert not outcome.data or outcome.data == block
                        time.sleep(0.002)
            except EOFError:  # A cold reset ends every session: so it must be.
                if not over.is_set():
                    other()
            except Exception as failure:
                failures.append(failure)

        honest = threading.Thread(target=other)
        honest.start()
        fuzzer, sent, number = Fuzzer(seed), 0, 0
        before = descriptors()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        while sent < pdus:
            number += 1
            try:
                sent += fuzzer.connection(opened.address, PDUS_A_CONNECTION)
            except (EOFError, ConnectionResetError, BrokenPipeError):
                sent += 1
            assert not failures, failures
            assert not faults.told, faults.told[0]
        over.set()
        honest.join(30)
        assert not honest.is_alive() and not failures, failures
        limit = time.monotonic() + 20
        while opened.target.members() or len(opened.threads) > 0:
            assert time.monotonic() < limit, f"sessions stay behind: {opened.target.members()}"
            time.sleep(0.05)
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        assert descriptors() <= before + 4, (descriptors(), before)
        assert grown_kib < 400_000, grown_kib
        with Initiator(opened.address) as one:
            one.ready()
            assert one.command(bytes([0x12, 0, 0, 0, 96, 0]), reads=96).is_good
        return {"pdus": sent, "connections": number, "received": fuzzer.received, "grown_kib": grown_kib}


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[3])]
    begun = time.monotonic()
    where = target_in_loop if "loop" in sys.argv else target_in_memory
    told = play(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1, where)
    print(told, f"{time.monotonic() - begun:.1f} s")
