"""SCSI commands to one logical unit (SPC-4, SBC-3): a command descriptor block and data go in, an Answer comes out.

What needs the volume is a generator: it yields Operations, is sent their Results and returns its Answer, so that a session may
have many commands under way and none waits in a thread. `COMMANDS` is the table of everything that is taken; REPORT SUPPORTED
OPERATION CODES is printed from it. How reservations and unit attentions stand in a command's way is decided in `begin`.

A write is answered when it is complete at the protocol's point, so FUA, DPO and SYNCHRONIZE CACHE cost nothing and WCE is 0.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import pages, reservation, sense, volume
from .pages import Identification, PortGroup
from .reservation import HARMLESS, OTHER, READS, WRITES, Reservations
from .sense import Answer, Sense
from .volume import Operation, Result

BLOCK_BYTES = 512
PIECE_BYTES = 1 << 20  # Operations of more are cut: a record of the log takes no more.
OR_BYTES = pages.COMPARE_BLOCKS_MAX * BLOCK_BYTES
TRIM_BYTES_MAX = 1 << 30
OR_TRIES_MAX = 100
ATTENTIONS_MAX = 8
STATUS_BYTES_MAX = 1 << 30  # GET LBA STATUS looks no further at once.

Steps = Generator[Operation, Result, Answer]
Does = Callable[["Command"], "Answer | Steps"]


@dataclass
class Nexus:
    """An initiator port that has a session: what it has still to be told."""

    name: str
    attentions: list[Sense] = field(default_factory=list)
    close_gate: Callable[[bool], None] = lambda is_closed: None  # closed: the loop does nothing by itself for this nexus

    def tell(self, attention: Sense) -> None:
        if attention not in self.attentions and len(self.attentions) < ATTENTIONS_MAX:
            self.attentions.append(attention)


class StateStore:
    """Where reservations are kept; this one forgets."""

    can_keep = False

    def load(self) -> bytes:
        return b""

    def save(self, image: bytes) -> bool:
        """Whether it is durable."""
        return True


class LogicalUnit:
    """The volume as a disk: what all sessions share of it. Everything here is held under one lock."""

    def __init__(
        self, disk: volume.Volume, identification: Identification, groups: tuple[PortGroup, ...] = (PortGroup(1, 0, (1,)),),
        store: StateStore | None = None,
    ) -> None:  # fmt: skip
        self.disk, self.identification, self.groups = disk, identification, groups
        self.store = store or StateStore()
        self.lock = threading.RLock()
        self.nexuses: dict[str, Nexus] = {}
        self.is_swp = False
        self.reservations = reservation.restored(self.store.load()) or Reservations()
        self.abort: Callable[[Sequence[str]], None] = lambda nexuses: None  # set by the target: ends these nexuses' tasks

    @property
    def blocks(self) -> int:
        return self.disk.bytes // BLOCK_BYTES

    @property
    def is_read_only(self) -> bool:
        return self.is_swp or self.disk.is_read_only

    @property
    def access_state(self) -> int:
        """Of the target port group through which we are seen."""
        ours = self.identification.group
        return next((group.state for group in self.groups if group.number == ours), pages.ACTIVE_OPTIMIZED)

    def attach(self, nexus: str) -> Nexus:
        """A nexus has logged in."""
        with self.lock:
            attached = Nexus(nexus, [sense.POWER_ON])
            self.nexuses[nexus] = attached
            return attached

    def refresh(self) -> None:
        """Open the gates of those nexuses that have nothing to hear and may do everything. Called with the lock."""
        is_closed = self.is_swp or self.access_state == pages.STANDBY
        for name, nexus in self.nexuses.items():
            refused = self.reservations.refuses(name, READS) or self.reservations.refuses(name, WRITES)
            nexus.close_gate(is_closed or refused or bool(nexus.attentions))

    def detach(self, nexus: Nexus) -> None:
        """It is gone: RESERVE(6) ends with it, persistent reservations do not."""
        with self.lock:
            if self.nexuses.get(nexus.name) is nexus:
                del self.nexuses[nexus.name]
                self.reservations.release_6(nexus.name)
                self.refresh()

    def tell_all(self, attention: Sense, but: str = "") -> None:
        with self.lock:
            for nexus in self.nexuses.values():
                if nexus.name != but:
                    nexus.tell(attention)
            self.refresh()

    def reset(self, attention: Sense = sense.LUN_RESET) -> None:
        """LOGICAL UNIT RESET: saved values again, RESERVE(6) gone, everybody is told. Tasks are the target's."""
        with self.lock:
            self.is_swp, self.reservations.reserved_6 = False, ""
            self.tell_all(attention)

    def reload(self) -> None:
        """The volume is served from here from now on: take the reservations that were kept in it."""
        with self.lock:
            self.reservations = reservation.restored(self.store.load()) or Reservations()
            self.refresh()

    def change_groups(self, groups: tuple[PortGroup, ...]) -> None:
        """Roles have changed: who is asked tells the new states, and every nexus is told to ask."""
        with self.lock:
            if groups != self.groups:
                self.groups = groups
                self.tell_all(sense.ACCESS_STATE_CHANGED)

    def resize(self, size: int) -> None:
        """The volume has so many bytes from now on, and every nexus is told to ask."""
        with self.lock:
            self.disk.bytes = size
            self.tell_all(sense.CAPACITY_CHANGED)

    def keep(self) -> bool:
        """Make reservations durable where they are to be."""
        return self.store.save(self.reservations.image()) if self.store.can_keep else True


@dataclass
class Command:
    """One command of one nexus, with what came with it."""

    unit: LogicalUnit
    nexus: Nexus
    cdb: bytes
    data: bytes | bytearray | memoryview = b""
    expected: int = 0  # bytes that the initiator means to send or take: EDTL

    def number(self, at: int, size: int) -> int:
        return int.from_bytes(self.cdb[at : at + size], "big")


class Entry(NamedTuple):
    """A command that is taken: its name, its length, which bits of its CDB mean something, and what it does."""

    name: str
    usage: bytes  # the CDB usage data of REPORT SUPPORTED OPERATION CODES: opcode and a mask for every other byte
    does: Does
    kind: str = OTHER  # what reservations make of it
    out_bytes: Callable[[bytes], int] = lambda cdb: 0  # of data that the initiator sends
    in_standby: bool = False


# Ranges.


def extent_of(cdb: bytes) -> tuple[int, int]:
    """LBA and number of blocks of the reads, writes and verifies of every length."""
    if len(cdb) >= 16 and cdb[0] >> 5 == 4:
        return int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big")
    if cdb[0] >> 5 == 0:
        return int.from_bytes(cdb[1:4], "big") & 0x1FFFFF, cdb[4] or 256
    if cdb[0] >> 5 == 5:
        return int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[6:10], "big")
    return int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big")


def transfer_of(cdb: bytes) -> int:
    return extent_of(cdb)[1] * BLOCK_BYTES


def refusal_of(command: Command, lba: int, count: int, limit: int = pages.TRANSFER_BLOCKS_MAX) -> Answer | None:
    """Why a range cannot be: behind the end, or more than one command may move; None when it can."""
    if lba + count > command.unit.blocks:
        return sense.OUT_OF_RANGE
    if count > limit:
        return sense.INVALID_FIELD
    return None


def has_protection(command: Command) -> bool:
    """RDPROTECT, WRPROTECT or VRPROTECT: there is no protection information."""
    return command.cdb[0] >> 5 != 0 and bool(command.cdb[1] & 0xE0)


def failure_of(error: int, reads: bool = False) -> Answer:
    """What an errno of the volume is in SCSI."""
    if error == errno.ENOSPC:
        return sense.NO_SPACE
    if error in (errno.EPERM, errno.EROFS):
        return sense.WRITE_PROTECTED
    if error in (errno.ESHUTDOWN, errno.ENOTCONN, errno.EPIPE):
        return sense.NOT_READY_NOW
    return sense.READ_ERROR if reads else sense.WRITE_ERROR


# Steps on the volume.


def read_pieces(address: int, size: int) -> Generator[Operation, Result, tuple[int, bytes]]:
    """An errno, and the bytes."""
    if size <= PIECE_BYTES:
        result = yield Operation(volume.READ, address, size)
        return result.error, bytes(result.data) if not isinstance(result.data, bytes) else result.data
    pieces = []
    for at in range(0, size, PIECE_BYTES):
        result = yield Operation(volume.READ, address + at, min(PIECE_BYTES, size - at))
        if result.error:
            return result.error, b""
        pieces.append(bytes(result.data))
    return 0, b"".join(pieces)


def write_pieces(address: int, data: bytes | bytearray | memoryview) -> Generator[Operation, Result, int]:
    """An errno."""
    view = memoryview(data)
    for at in range(0, len(view), PIECE_BYTES):
        piece = view[at : at + PIECE_BYTES]
        result = yield Operation(volume.WRITE, address + at, len(piece), piece)
        if result.error:
            return result.error
    return 0


# Commands that move blocks.


def read(command: Command) -> Answer | Steps:
    lba, count = extent_of(command.cdb)
    if has_protection(command):
        return sense.INVALID_FIELD
    refusal = refusal_of(command, lba, count)
    if refusal or count == 0:
        return refusal or Answer()

    def steps() -> Steps:
        error, data = yield from read_pieces(lba * BLOCK_BYTES, count * BLOCK_BYTES)
        return failure_of(error, reads=True) if error else Answer(data=data)

    return steps()


def whole_blocks(command: Command, size: int) -> tuple[memoryview, Answer | None]:
    """The data of a write cut to whole blocks: an initiator may announce less than the command asks for."""
    data = memoryview(command.data)[:size]
    if len(data) == size:
        return data, None
    if command.expected % BLOCK_BYTES:
        return data, sense.INFORMATION_UNIT
    return data[: len(data) - len(data) % BLOCK_BYTES], None


def to_be_written(command: Command) -> tuple[int, memoryview, Answer | None]:
    """(byte address, whole blocks, None) of a command that writes the data it comes with; with its answer when it writes none."""
    nothing = memoryview(b"")
    lba, count = extent_of(command.cdb)
    if has_protection(command):
        return 0, nothing, sense.INVALID_FIELD
    refusal = refusal_of(command, lba, count)
    if refusal or count == 0:
        return 0, nothing, refusal or Answer()
    if command.unit.is_read_only:
        return 0, nothing, sense.WRITE_PROTECTED
    return lba * BLOCK_BYTES, *whole_blocks(command, count * BLOCK_BYTES)


def write(command: Command) -> Answer | Steps:
    return write_with(command, verifies=False)


def write_and_verify(command: Command) -> Answer | Steps:
    if command.cdb[1] & 0x06 in (0x04, 0x06):
        return sense.INVALID_FIELD
    return write_with(command, verifies=True)


def write_with(command: Command, verifies: bool) -> Answer | Steps:
    first, data, refusal = to_be_written(command)
    if refusal:
        return refusal

    def steps() -> Steps:
        error = yield from write_pieces(first, data)
        if error:
            return failure_of(error)
        if verifies:
            error, there = yield from read_pieces(first, len(data))
            if error:
                return failure_of(error, reads=True)
            if command.cdb[1] & 0x02 and there != data:
                return miscompare(there, data)
        return Answer()

    return steps()


def write_atomic(command: Command) -> Answer | Steps:
    """WRITE ATOMIC(16): one record of the log, which is replayed whole or not at all."""
    lba, count = int.from_bytes(command.cdb[2:10], "big"), int.from_bytes(command.cdb[12:14], "big")
    if has_protection(command):
        return sense.INVALID_FIELD
    refusal = refusal_of(command, lba, count, pages.ATOMIC_BLOCKS_MAX)
    if int.from_bytes(command.cdb[10:12], "big"):
        return sense.INVALID_FIELD  # No boundary within a write is promised less.
    if refusal or count == 0:
        return refusal or Answer()
    if command.unit.is_read_only:
        return sense.WRITE_PROTECTED
    if len(command.data) != count * BLOCK_BYTES:
        return sense.INFORMATION_UNIT

    def steps() -> Steps:
        result = yield Operation(volume.WRITE, lba * BLOCK_BYTES, len(command.data), command.data)
        return failure_of(result.error) if result.error else Answer()

    return steps()


def miscompare(there: bytes | memoryview, wanted: bytes | bytearray | memoryview) -> Answer:
    """MISCOMPARE DURING VERIFY; the information field is where the first byte differs."""
    first = next((at for at, (one, other) in enumerate(zip(there, wanted, strict=False)) if one != other), 0)
    return sense.check(sense.MISCOMPARE, 0x1D00, first)


def verify_bytes(cdb: bytes) -> int:
    check = cdb[1] >> 1 & 3
    return {1: transfer_of(cdb), 3: BLOCK_BYTES if transfer_of(cdb) else 0}.get(check, 0)


def verify(command: Command) -> Answer | Steps:
    lba, count = extent_of(command.cdb)
    check = command.cdb[1] >> 1 & 3
    if has_protection(command) or check == 2:
        return sense.INVALID_FIELD
    refusal = refusal_of(command, lba, count, pages.TRANSFER_BLOCKS_MAX if check else command.unit.blocks)
    if refusal or count == 0:
        return refusal or Answer()
    if check == 0:
        return Answer()  # The medium is verified where it lies: every read of the log is held against its checksum.
    if len(command.data) < verify_bytes(command.cdb):
        return sense.INFORMATION_UNIT
    wanted = memoryview(command.data)[: verify_bytes(command.cdb)]

    def steps() -> Steps:
        error, there = yield from read_pieces(lba * BLOCK_BYTES, count * BLOCK_BYTES)
        if error:
            return failure_of(error, reads=True)
        whole = bytes(wanted) * count if check == 3 else wanted
        return Answer() if there == whole else miscompare(there, whole)

    return steps()


def compare_and_write(command: Command) -> Answer | Steps:
    lba, count = int.from_bytes(command.cdb[2:10], "big"), command.cdb[13]
    if has_protection(command):
        return sense.INVALID_FIELD
    refusal = refusal_of(command, lba, count, pages.COMPARE_BLOCKS_MAX)
    if count == 0 and command.expected:
        return sense.INVALID_FIELD  # Data for no blocks: a count that was cut to a byte.
    if refusal or count == 0:
        return refusal or Answer()
    if command.unit.is_read_only:
        return sense.WRITE_PROTECTED
    size = count * BLOCK_BYTES
    if len(command.data) != 2 * size or command.expected != 2 * size:
        return sense.INFORMATION_UNIT
    data = memoryview(command.data)

    def steps() -> Steps:
        result = yield Operation(volume.COMPARE_AND_WRITE, lba * BLOCK_BYTES, size, data[size:], data[:size])
        if result.error:
            return failure_of(result.error)
        return sense.check(sense.MISCOMPARE, 0x1D00, result.mismatch) if result.mismatch >= 0 else Answer()

    return steps()


def or_write(command: Command) -> Answer | Steps:
    """ORWRITE(16): read, or, and compare-and-write, again while others write between."""
    first, data, refusal = to_be_written(command)
    if refusal:
        return refusal

    def steps() -> Steps:
        for at in range(0, len(data), OR_BYTES):
            piece = data[at : at + OR_BYTES]
            address, size = first + at, len(piece)
            for _ in range(OR_TRIES_MAX):
                result = yield Operation(volume.READ, address, size)
                if result.error:
                    return failure_of(result.error, reads=True)
                there = bytes(result.data)
                both = (int.from_bytes(there, "little") | int.from_bytes(piece, "little")).to_bytes(size, "little")
                result = yield Operation(volume.COMPARE_AND_WRITE, address, size, both, there)
                if result.error:
                    return failure_of(result.error)
                if result.mismatch < 0:
                    break
            else:
                return Answer(sense.BUSY)
        return Answer()

    return steps()


def write_same_bytes(cdb: bytes) -> int:
    return 0 if cdb[0] == 0x93 and cdb[1] & 0x01 else BLOCK_BYTES


def write_same(command: Command) -> Answer | Steps:
    lba, count = extent_of(command.cdb)
    unmaps, anchors, no_data = bool(command.cdb[1] & 0x08), bool(command.cdb[1] & 0x10), write_same_bytes(command.cdb) == 0
    if has_protection(command) or anchors or command.cdb[1] & 0x06 or count == 0:
        return sense.INVALID_FIELD
    refusal = refusal_of(command, lba, count, pages.WRITE_SAME_BLOCKS_MAX)
    if refusal:
        return refusal
    if command.unit.is_read_only:
        return sense.WRITE_PROTECTED
    if not no_data and (len(command.data) != BLOCK_BYTES or command.expected != BLOCK_BYTES):
        return sense.INFORMATION_UNIT
    address, size = lba * BLOCK_BYTES, count * BLOCK_BYTES
    pattern = bytes(command.data)

    def steps() -> Steps:
        if not any(pattern):
            result = yield Operation(volume.TRIM if unmaps else volume.WRITE_ZEROES, address, size)
            return failure_of(result.error) if result.error else Answer()
        piece = pattern * (min(size, PIECE_BYTES) // BLOCK_BYTES)
        for at in range(0, size, PIECE_BYTES):
            part = piece[: min(PIECE_BYTES, size - at)]
            result = yield Operation(volume.WRITE, address + at, len(part), part)
            if result.error:
                return failure_of(result.error)
        return Answer()

    return steps()


def unmap(command: Command) -> Answer | Steps:
    if command.cdb[1] & 0x01:
        return sense.INVALID_FIELD
    data = bytes(command.data)
    if command.number(7, 2) == 0:
        return Answer()
    if len(data) < 8:
        return sense.PARAMETER_LENGTH
    if command.unit.is_read_only:
        return sense.WRITE_PROTECTED
    length = min(int.from_bytes(data[2:4], "big"), len(data) - 8)
    ranges = []
    for at in range(8, 8 + length - length % 16, 16):
        lba, count = int.from_bytes(data[at : at + 8], "big"), int.from_bytes(data[at + 8 : at + 12], "big")
        if lba + count > command.unit.blocks:
            return sense.OUT_OF_RANGE
        ranges.append((lba, count))
    if len(ranges) > pages.UNMAP_DESCRIPTORS_MAX:
        return sense.INVALID_PARAMETER

    def steps() -> Steps:
        for lba, count in ranges:
            address, end = lba * BLOCK_BYTES, (lba + count) * BLOCK_BYTES
            for at in range(address, end, TRIM_BYTES_MAX):
                result = yield Operation(volume.TRIM, at, min(TRIM_BYTES_MAX, end - at))
                if result.error:
                    return failure_of(result.error)
        return Answer()

    return steps()


def synchronize_cache(command: Command) -> Answer | Steps:
    lba, count = extent_of(command.cdb)
    if lba + count > command.unit.blocks:
        return sense.OUT_OF_RANGE

    def steps() -> Steps:
        result = yield Operation(volume.FLUSH)
        return failure_of(result.error) if result.error else Answer()

    return steps()


def prefetch(command: Command) -> Answer | Steps:
    lba, count = extent_of(command.cdb)
    return sense.OUT_OF_RANGE if lba + count > command.unit.blocks else Answer()


def get_lba_status(command: Command) -> Answer | Steps:
    """Where the volume has holes, by whole blocks."""
    lba, room = command.number(2, 8), command.number(10, 4)
    if lba >= command.unit.blocks:
        return sense.OUT_OF_RANGE
    if room < 24:
        return sense.INVALID_FIELD
    size = min((command.unit.blocks - lba) * BLOCK_BYTES, STATUS_BYTES_MAX)

    def steps() -> Steps:
        result = yield Operation(volume.STATUS, lba * BLOCK_BYTES, size)
        if result.error:
            return failure_of(result.error, reads=True)
        body, at = b"", lba
        for count, has_data in merged_blocks(result.extents):
            body += at.to_bytes(8, "big") + min(count, 0xFFFFFFFF).to_bytes(4, "big") + bytes([0 if has_data else 1, 0, 0, 0])
            at += count
            if len(body) + 8 >= room:
                break
        return Answer(data=((len(body) + 4).to_bytes(4, "big") + bytes(4) + body)[:room])

    return steps()


def merged_blocks(extents: tuple[tuple[int, bool], ...]) -> list[tuple[int, bool]]:
    """Extents of bytes as runs of blocks: a block with any data has data."""
    runs: list[tuple[int, bool]] = []
    byte = begin = 0
    for size, has_data in extents:
        byte += size
        end = -(-byte // BLOCK_BYTES) if has_data else byte // BLOCK_BYTES
        if end > begin:
            if runs and runs[-1][1] == has_data:
                runs[-1] = (runs[-1][0] + end - begin, has_data)
            else:
                runs.append((end - begin, has_data))
            begin = end
    return runs


# Commands about the unit.


def inquiry(command: Command) -> Answer | Steps:
    has_page, code, room = command.cdb[1] & 0x01, command.cdb[2], command.number(3, 2)
    if command.cdb[1] & 0x02 or (not has_page and code):
        return sense.INVALID_FIELD
    data = pages.vital_product_data(code, command.unit.identification) if has_page else pages.standard_inquiry()
    return sense.INVALID_FIELD if data is None else Answer(data=data[:room])


def test_unit_ready(command: Command) -> Answer | Steps:
    return Answer()


def request_sense(command: Command) -> Answer | Steps:
    """The oldest unit attention, which is then told; nothing else is kept."""
    if command.cdb[1] & 0x01:
        return sense.INVALID_FIELD
    with command.unit.lock:
        told = command.nexus.attentions.pop(0) if command.nexus.attentions else Sense(sense.NO_SENSE, 0)
    return Answer(data=told.fixed()[: command.cdb[4]])


def report_luns(command: Command) -> Answer | Steps:
    select, room = command.cdb[2], command.number(6, 4)
    if select > 2 or room < 16:
        return sense.INVALID_FIELD
    return Answer(data=pages.report_luns(select)[:room])


def read_capacity_10(command: Command) -> Answer | Steps:
    if command.number(2, 4) and not command.cdb[8] & 0x01:
        return sense.INVALID_FIELD
    last = min(command.unit.blocks - 1, 0xFFFFFFFF)
    return Answer(data=last.to_bytes(4, "big") + BLOCK_BYTES.to_bytes(4, "big"))


def read_capacity_16(command: Command) -> Answer | Steps:
    if command.number(2, 8) and not command.cdb[14] & 0x01:
        return sense.INVALID_FIELD
    exponent = (pages.PHYSICAL_BYTES // BLOCK_BYTES).bit_length() - 1
    data = (command.unit.blocks - 1).to_bytes(8, "big") + BLOCK_BYTES.to_bytes(4, "big") + bytes([0, exponent, 0xC0, 0])
    return Answer(data=(data + bytes(16))[: command.number(10, 4)])


def mode_sense(command: Command) -> Answer | Steps:
    is_long = command.cdb[0] == 0x5A
    control, code, subpage = command.cdb[2] >> 6, command.cdb[2] & 0x3F, command.cdb[3]
    if control == 3:
        return sense.SAVING_UNSUPPORTED
    listed = pages.mode_pages(code, subpage, control, command.unit.is_swp)
    if listed is None:
        return sense.INVALID_FIELD
    data = pages.mode_data(
        is_long, listed, command.unit.blocks, BLOCK_BYTES, not command.cdb[1] & 0x08, is_long and bool(command.cdb[1] & 0x10),
        command.unit.is_read_only,
    )  # fmt: skip
    return Answer(data=data[: command.number(7, 2) if is_long else command.cdb[4]])


def mode_select_bytes(cdb: bytes) -> int:
    return int.from_bytes(cdb[7:9], "big") if cdb[0] == 0x55 else cdb[4]


def mode_select(command: Command) -> Answer | Steps:
    """SWP may be changed, everything else must stay as it is."""
    is_long, data = command.cdb[0] == 0x55, bytes(command.data)
    if command.cdb[1] & 0x01 or not command.cdb[1] & 0x10:
        return sense.INVALID_FIELD  # Nothing is saved; pages have the format of the standard.
    size = mode_select_bytes(command.cdb)
    if size == 0:
        return Answer()
    head = 8 if is_long else 4
    if len(data) < size or size < head:
        return sense.PARAMETER_LENGTH
    descriptors = int.from_bytes(data[6:8], "big") if is_long else data[3]
    if head + descriptors > size or descriptors not in (0, 8, 16):
        return sense.PARAMETER_LENGTH
    descriptor = data[head : head + descriptors]
    if descriptors and int.from_bytes(descriptor[-3:], "big") != BLOCK_BYTES:
        return sense.INVALID_PARAMETER
    is_swp, at = command.unit.is_swp, head + descriptors
    while at < size:
        code, length = data[at] & 0x3F, data[at + 1] if at + 1 < size else 0
        body = data[at : at + 2 + length]
        now = pages.mode_pages(code, 0, 0, is_swp) if code != 0x3F else None
        if data[at] & 0x40 or now is None:
            return sense.INVALID_PARAMETER
        if len(body) != len(now):
            return sense.PARAMETER_LENGTH
        mask = pages.mode_pages(code, 0, 1, is_swp) or b""
        if any((new ^ old) & ~may for new, old, may in zip(body[2:], now[2:], mask[2:], strict=True)):
            return sense.INVALID_PARAMETER
        if code == 0x0A:
            is_swp = bool(body[4] & 0x08)
        at += 2 + length
    with command.unit.lock:
        if is_swp != command.unit.is_swp:
            command.unit.is_swp = is_swp
            command.unit.tell_all(sense.MODE_CHANGED, but=command.nexus.name)
    return Answer()


def start_stop(command: Command) -> Answer | Steps:
    """START STOP UNIT: the medium cannot be taken out, and is always turning."""
    if command.cdb[4] & 0x02 or command.cdb[4] >> 4:
        return sense.INVALID_FIELD
    return Answer()


def reserve_6(command: Command) -> Answer | Steps:
    if command.cdb[1] & 0x11:
        return sense.INVALID_FIELD  # Extents and third parties are obsolete.
    with command.unit.lock:
        return command.unit.reservations.reserve_6(command.nexus.name)


def release_6(command: Command) -> Answer | Steps:
    if command.cdb[1] & 0x11:
        return sense.INVALID_FIELD
    with command.unit.lock:
        return command.unit.reservations.release_6(command.nexus.name)


def persistent_reserve_in(command: Command) -> Answer | Steps:
    with command.unit.lock:
        if command.unit.reservations.reserved_6:
            return sense.CONFLICT
        data = command.unit.reservations.report(command.cdb[1] & 0x1F, command.unit.store.can_keep)
    return sense.INVALID_FIELD if data is None else Answer(data=data[: command.number(7, 2)])


def persistent_reserve_out(command: Command) -> Answer | Steps:
    size = command.number(5, 4)
    if len(command.data) < size:
        return sense.PARAMETER_LENGTH
    unit = command.unit
    with unit.lock:
        before = unit.reservations.image()
        outcome = unit.reservations.perform(
            command.nexus.name, command.cdb[1] & 0x1F, command.cdb[2], bytes(command.data[:size]), unit.store.can_keep
        )
        if outcome.has_changed and not unit.keep():
            was = reservation.restored(before)
            assert was is not None
            unit.reservations = was
            return sense.check(sense.HARDWARE_ERROR, 0x4400)
        for name, attention in outcome.attentions:
            if name in unit.nexuses:
                unit.nexuses[name].tell(attention)
    if outcome.aborted:
        unit.abort([name for name in outcome.aborted if name != command.nexus.name])
    return outcome.answer


def report_target_port_groups(command: Command) -> Answer | Steps:
    extended = command.cdb[1] >> 5
    if extended > 1:
        return sense.INVALID_FIELD
    return Answer(data=pages.port_groups(command.unit.groups, bool(extended))[: command.number(6, 4)])


def report_task_management(command: Command) -> Answer | Steps:
    """ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, and I_T NEXUS RESET by another login."""
    extended = bool(command.cdb[2] & 0x80)
    data = bytes([0x80 | 0x40 | 0x10 | 0x08 | 0x02, 0, 0, 12 if extended else 0]) + bytes(12 if extended else 0)
    return sense.INVALID_FIELD if command.number(6, 4) < 4 else Answer(data=data[: command.number(6, 4)])


def report_opcodes(command: Command) -> Answer | Steps:
    """REPORT SUPPORTED OPERATION CODES: all of them, or one (SPC-4 section 6.34)."""
    with_timeouts, option = bool(command.cdb[2] & 0x80), command.cdb[2] & 0x07
    code, action, room = command.cdb[3], command.number(4, 2), command.number(6, 4)
    timeouts = (10).to_bytes(2, "big") + bytes(10) if with_timeouts else b""
    if option == 0:
        body = b""
        for (one, service), entry in COMMANDS.items():
            flags = (0x02 if with_timeouts else 0) | (0x01 if service is not None else 0)
            body += bytes([one, 0]) + (service or 0).to_bytes(2, "big") + bytes([0, flags])
            body += len(entry.usage).to_bytes(2, "big") + timeouts
        return Answer(data=(len(body).to_bytes(4, "big") + body)[:room])
    has_actions = any(one == code and service is not None for one, service in COMMANDS)
    if option > 3 or (option == 1 and has_actions) or (option == 2 and not has_actions and (code, None) in COMMANDS):
        return sense.INVALID_FIELD
    found = COMMANDS.get((code, action if has_actions and option > 1 else None))
    if found is None:
        return Answer(data=bytes([0, 0x01, 0, 0])[:room])
    flags = (0x80 if with_timeouts else 0) | 0x03
    return Answer(data=(bytes([0, flags]) + len(found.usage).to_bytes(2, "big") + found.usage + timeouts)[:room])


def usage(opcode: int, mask: str, action: int | None = None) -> bytes:
    """CDB usage data: the opcode, and the rest in hexadecimal; a service action stands in its own bits."""
    data = bytearray(bytes([opcode]) + bytes.fromhex(mask))
    if action is not None:
        data[1] = data[1] & 0xE0 | action
    return bytes(data)


LBA_10, LBA_12, LBA_16 = "ffffffff00ffff07", "ffffffffffffffff0007", "ffffffffffffffffffffffff0007"


def of_blocks(opcodes: dict[int, str], name: str, flags: str, does: Does, kind: str, out: Callable[[bytes], int] = lambda cdb: 0):
    """The variants of one command: its length follows from the opcode's group."""
    return {
        (opcode, None): Entry(f"{name}({length})", usage(opcode, flags + mask), does, kind, out)
        for opcode, length in opcodes.items()
        for mask in ({"10": LBA_10, "12": LBA_12, "16": LBA_16}[length],)
    }


def entry(opcode: int, action: int | None, name: str, mask: str, does: Does, kind: str = OTHER, **more) -> dict:
    return {(opcode, action): Entry(name, usage(opcode, mask, action), does, kind, **more)}


COMMANDS: dict[tuple[int, int | None], Entry] = (
    entry(0x00, None, "TEST UNIT READY", "0000000007", test_unit_ready, HARMLESS)
    | entry(0x03, None, "REQUEST SENSE", "010000ff07", request_sense, HARMLESS, in_standby=True)
    | entry(0x08, None, "READ(6)", "1fffffff07", read, READS)
    | entry(0x0A, None, "WRITE(6)", "1fffffff07", write, WRITES, out_bytes=transfer_of)
    | entry(0x12, None, "INQUIRY", "01ffffff07", inquiry, HARMLESS, in_standby=True)
    | entry(0x15, None, "MODE SELECT(6)", "110000ff07", mode_select, OTHER, out_bytes=mode_select_bytes, in_standby=True)
    | entry(0x16, None, "RESERVE(6)", "0000000007", reserve_6, HARMLESS)
    | entry(0x17, None, "RELEASE(6)", "0000000007", release_6, HARMLESS)
    | entry(0x1A, None, "MODE SENSE(6)", "08ffffff07", mode_sense, OTHER, in_standby=True)
    | entry(0x1B, None, "START STOP UNIT", "01000ff707", start_stop, OTHER)
    | entry(0x25, None, "READ CAPACITY(10)", "00ffffffff0000" "0107", read_capacity_10, HARMLESS)
    | of_blocks({0x28: "10", 0xA8: "12", 0x88: "16"}, "READ", "f8", read, READS)
    | of_blocks({0x2A: "10", 0xAA: "12", 0x8A: "16"}, "WRITE", "f8", write, WRITES, transfer_of)
    | of_blocks({0x2E: "10", 0xAE: "12", 0x8E: "16"}, "WRITE AND VERIFY", "f6", write_and_verify, WRITES, transfer_of)
    | of_blocks({0x2F: "10", 0xAF: "12", 0x8F: "16"}, "VERIFY", "f6", verify, READS, verify_bytes)
    | of_blocks({0x34: "10", 0x90: "16"}, "PRE-FETCH", "02", prefetch, READS)
    | of_blocks({0x35: "10", 0x91: "16"}, "SYNCHRONIZE CACHE", "06", synchronize_cache, WRITES)
    | of_blocks({0x41: "10", 0x93: "16"}, "WRITE SAME", "f9", write_same, WRITES, write_same_bytes)
    | of_blocks({0x8B: "16"}, "ORWRITE", "f8", or_write, WRITES, transfer_of)
    | entry(0x42, None, "UNMAP", "0100000000" "00ffff07", unmap, WRITES, out_bytes=lambda cdb: int.from_bytes(cdb[7:9], "big"))
    | entry(0x55, None, "MODE SELECT(10)", "1100000000" "00ffff07", mode_select, out_bytes=mode_select_bytes, in_standby=True)
    | entry(0x5A, None, "MODE SENSE(10)", "18ffff0000" "00ffff07", mode_sense, OTHER, in_standby=True)
    | entry(0x89, None, "COMPARE AND WRITE", "f8ffffffffffffffff" "000000ff0007", compare_and_write, WRITES,
            out_bytes=lambda cdb: 2 * cdb[13] * BLOCK_BYTES)
    | entry(0x9C, None, "WRITE ATOMIC(16)", "f8ffffffffffffffff" "0000ffff0007", write_atomic, WRITES,
            out_bytes=lambda cdb: int.from_bytes(cdb[12:14], "big") * BLOCK_BYTES)
    | entry(0x9E, 0x10, "READ CAPACITY(16)", "1fffffffffffffffff" "ffffffff0107", read_capacity_16, HARMLESS)
    | entry(0x9E, 0x12, "GET LBA STATUS", "1fffffffffffffffff" "ffffffff0007", get_lba_status, READS)
    | entry(0xA0, None, "REPORT LUNS", "00ff000000" "ffffffff0007", report_luns, HARMLESS, in_standby=True)
    | entry(0xA3, 0x0A, "REPORT TARGET PORT GROUPS", "ff00000000" "ffffffff0007", report_target_port_groups, HARMLESS,
            in_standby=True)
    | entry(0xA3, 0x0C, "REPORT SUPPORTED OPERATION CODES", "1f87ffffff" "ffffffff0007", report_opcodes, HARMLESS,
            in_standby=True)
    | entry(0xA3, 0x0D, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", "1f80000000" "ffffffff0007",
            report_task_management, HARMLESS,
            in_standby=True)
)  # fmt: skip
for _action, _name in enumerate(("READ KEYS", "READ RESERVATION", "REPORT CAPABILITIES", "READ FULL STATUS")):
    COMMANDS |= entry(0x5E, _action, f"PERSISTENT RESERVE IN, {_name}", "1f00000000" "00ffff07", persistent_reserve_in, HARMLESS,
                      in_standby=True)  # fmt: skip
for _action, _name in enumerate((
    "REGISTER", "RESERVE", "RELEASE", "CLEAR", "PREEMPT", "PREEMPT AND ABORT", "REGISTER AND IGNORE EXISTING KEY",
    "REGISTER AND MOVE",
)):  # fmt: skip
    COMMANDS |= entry(0x5F, _action, f"PERSISTENT RESERVE OUT, {_name}", "1fff0000ff" "ffffff07", persistent_reserve_out,
                      HARMLESS, out_bytes=lambda cdb: int.from_bytes(cdb[5:9], "big"), in_standby=True)  # fmt: skip

WITH_ACTIONS = {opcode for opcode, action in COMMANDS if action is not None}
CDB_BYTES = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}  # By group, the opcode's first three bits.
TELLS_NO_ATTENTION = {0x12, 0xA0, 0x03}  # INQUIRY, REPORT LUNS and REQUEST SENSE are answered first (SAM-5 section 5.14).


def entry_of(cdb: bytes) -> Entry | None:
    """The row of the table that a CDB belongs to."""
    return COMMANDS.get((cdb[0], cdb[1] & 0x1F if cdb[0] in WITH_ACTIONS else None))


def out_bytes_of(cdb: bytes) -> int:
    """Bytes that the initiator is to send with this command."""
    found = entry_of(cdb)
    return found.out_bytes(cdb) if found else 0


def begin(command: Command, lun: int) -> Answer | Steps:
    """What becomes of a command: an Answer, or the steps to one."""
    begun = decide(command, lun)
    with command.unit.lock:
        command.unit.refresh()
    return begun


def decide(command: Command, lun: int) -> Answer | Steps:
    cdb = command.cdb
    if lun != 0:
        return begin_elsewhere(command)
    with command.unit.lock:
        if command.nexus.attentions and cdb[0] not in TELLS_NO_ATTENTION:
            return Answer(sense.CHECK_CONDITION, b"", command.nexus.attentions.pop(0))
        found = entry_of(cdb)
        if found is None:
            return sense.INVALID_FIELD if cdb[0] in WITH_ACTIONS else sense.INVALID_OPCODE
        if cdb[CDB_BYTES[cdb[0] >> 5] - 1] & 0x04:  # NACA in the control byte
            return sense.INVALID_FIELD
        if not found.in_standby and command.unit.access_state == pages.STANDBY:
            return sense.STANDBY
        if command.unit.reservations.refuses(command.nexus.name, found.kind):
            return sense.CONFLICT
        if command.unit.reservations.reserved_6 not in ("", command.nexus.name) and cdb[0] == 0x00:
            return sense.CONFLICT
    return found.does(command)


def begin_elsewhere(command: Command) -> Answer:
    """A logical unit that is not there."""
    cdb = command.cdb
    if cdb[0] == 0x12 and not cdb[1] & 0x03 and not cdb[2]:
        return Answer(data=pages.standard_inquiry(is_there=False)[: command.number(3, 2)])
    if cdb[0] == 0xA0:
        answer = report_luns(command)
        assert isinstance(answer, Answer)
        return answer
    if cdb[0] == 0x03:
        assert sense.NO_LOGICAL_UNIT.sense is not None
        return Answer(data=sense.NO_LOGICAL_UNIT.sense.fixed()[: cdb[4]])
    return sense.NO_LOGICAL_UNIT
