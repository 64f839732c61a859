"""What a logical unit says of itself: INQUIRY with its vital product data, mode pages, target port groups, supported commands.

Pure functions of an `Identification` and a few facts; scsi.py cuts their answers to the allocation length. The identity comes
from the volume's number, so it is the same at every site that serves the volume, and a host with several paths sees one disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

VENDOR, PRODUCT, REVISION = b"FARWRITE", b"VOLUME          ", b"0001"

# What is not limited by the engine is limited so that one command costs bounded memory.
TRANSFER_BLOCKS_MAX = 8192  # 4 MiB of 512 bytes
COMPARE_BLOCKS_MAX = 32  # 16 KiB: with as much to compare it stands in the loop's memory whole
UNMAP_DESCRIPTORS_MAX = 256
WRITE_SAME_BLOCKS_MAX = 1 << 15
ATOMIC_BLOCKS_MAX = 2048  # 1 MiB: one record of the log
PHYSICAL_BYTES = 4096

ACTIVE_OPTIMIZED, ACTIVE_NON_OPTIMIZED, STANDBY, UNAVAILABLE, TRANSITIONING = 0x0, 0x1, 0x2, 0x3, 0xF
STATES_SUPPORTED = 0x80 | 0x08 | 0x04 | 0x01  # transitioning, unavailable, standby, active/optimized


class PortGroup(NamedTuple):
    """A site: its target port group, the access state of the volume there, and its relative target ports."""

    number: int
    state: int
    ports: tuple[int, ...]


@dataclass(frozen=True)
class Identification:
    """Which volume this is, and through which port it is seen."""

    volume: int  # the number of the replicated volume
    target: str  # iSCSI name of the target
    port: int = 1  # relative target port identifier
    group: int = 1

    @property
    def serial(self) -> bytes:
        return f"{self.volume & ((1 << 64) - 1):016x}".encode()

    @property
    def naa(self) -> bytes:
        """An identifier of NAA 3h, locally assigned: we own no company identifier."""
        digest = hashlib.blake2b(self.serial, digest_size=8, person=b"farwrite").digest()
        return bytes([0x30 | digest[0] & 0x0F]) + digest[1:]


def standard_inquiry(is_there: bool = True) -> bytes:
    """SPC-4 section 6.6.2; a logical unit that is not there answers as well."""
    descriptors = b"".join(code.to_bytes(2, "big") for code in (0x00A0, 0x0460, 0x04C0, 0x0960))  # SAM-5, SPC-4, SBC-3, iSCSI
    body = (
        bytes([0x00 if is_there else 0x7F, 0, 0x06, 0x12, 91, 0x10 if is_there else 0, 0, 0x02])
        + VENDOR + PRODUCT + REVISION + bytes(22) + descriptors
    )  # fmt: skip
    return body + bytes(96 - len(body))


def page(code: int, body: bytes) -> bytes:
    return bytes([0, code]) + len(body).to_bytes(2, "big") + body


def designator(code_set: int, association: int, kind: int, data: bytes) -> bytes:
    """One of the device identification page; association 1 is the target port's, whose protocol is told: iSCSI."""
    first = 0x50 | code_set if association else code_set
    second = (0x80 if association else 0) | association << 4 | kind
    return bytes([first, second, 0, len(data)]) + data


def padded_name(name: str) -> bytes:
    data = name.encode() + b"\0"
    return data + bytes(-len(data) % 4)


def vital_product_data(code: int, who: Identification) -> bytes | None:
    """A VPD page; None for one that there is not."""
    if code == 0x00:
        return page(code, bytes(sorted(VPD_PAGES)))
    if code == 0x80:
        return page(code, who.serial)
    if code == 0x83:
        port_name = f"{who.target},t,0x{who.group:04x}"
        return page(code, b"".join((
            designator(1, 0, 3, who.naa),
            designator(2, 0, 1, VENDOR + who.serial),
            designator(1, 1, 4, bytes(2) + who.port.to_bytes(2, "big")),
            designator(1, 1, 5, bytes(2) + who.group.to_bytes(2, "big")),
            designator(3, 1, 8, padded_name(port_name)),
        )))  # fmt: skip
    if code == 0x86:  # Simple, ordered and head of queue tasks; a unit attention is cleared for the nexus that hears it.
        return page(code, bytes([0, 0x07]) + bytes(58))
    if code == 0xB0:
        return page(code, block_limits())
    if code == 0xB1:
        return page(code, (1).to_bytes(2, "big") + bytes(58))  # non-rotating
    if code == 0xB2:
        # UNMAP and both WRITE SAME give back; what was given back reads as zeros; thin. No threshold exponent: the level above
        # which 38h/07h is told is set where the volume is served, and no initiator changes it.
        return page(code, bytes([0, 0x80 | 0x40 | 0x20 | 0x04, 0x02, 0]))
    return None


VPD_PAGES = (0x00, 0x80, 0x83, 0x86, 0xB0, 0xB1, 0xB2)


def block_limits() -> bytes:
    """SBC-3 section 6.6.4, with the atomic writes of SBC-4."""
    body = bytearray(60)

    def put(at: int, size: int, value: int) -> None:
        body[at - 4 : at - 4 + size] = value.to_bytes(size, "big")

    put(4, 1, 1)  # WSNZ: WRITE SAME of zero blocks is refused.
    put(5, 1, COMPARE_BLOCKS_MAX)
    put(6, 2, PHYSICAL_BYTES // 512)
    put(8, 4, TRANSFER_BLOCKS_MAX)
    put(12, 4, 512)  # OPTIMAL TRANSFER LENGTH: 256 KiB is one trip.
    put(20, 4, 0xFFFFFFFF)
    put(24, 4, UNMAP_DESCRIPTORS_MAX)
    put(28, 4, PHYSICAL_BYTES // 512)
    put(32, 4, 0x80000000)
    put(36, 8, WRITE_SAME_BLOCKS_MAX)
    put(44, 4, ATOMIC_BLOCKS_MAX)
    return bytes(body)


def mode_pages(code: int, subpage: int, control: int, is_swp: bool) -> bytes | None:
    """The pages that MODE SENSE asks for; None for one that there is not. `control`: 0 current, 1 changeable, 2 default."""
    if subpage not in (0x00, 0xFF) or (subpage == 0xFF and code != 0x3F):
        return None
    changeable = control == 1
    swp = 0x08 if changeable or (is_swp and control == 0) else 0
    pages = {
        # WCE is 0: a write that was answered is durable at the protocol's point. DRA: nothing is read ahead.
        0x08: bytes([0x08, 18]) + (bytes(18) if changeable else bytes([0x00]) + bytes(9) + bytes([0x20]) + bytes(7)),
        0x0A: bytes([0x0A, 10, 0, 0 if changeable else 0x10, swp, 0, 0, 0, 0, 0, 0, 0]),  # commands may be reordered
        0x1C: bytes([0x1C, 10]) + (bytes(10) if changeable else bytes([0x08]) + bytes(9)),  # exceptions are not reported
    }
    if code == 0x3F:
        return b"".join(pages[one] for one in sorted(pages))
    return pages.get(code)


def mode_data(
    is_long: bool, pages: bytes, blocks: int, block_bytes: int, with_descriptor: bool, long_lba: bool, is_read_only: bool
) -> bytes:
    """The header and block descriptor of MODE SENSE(6) or (10), and the pages."""
    descriptor = b""
    if with_descriptor:
        if long_lba:
            descriptor = blocks.to_bytes(8, "big") + bytes(4) + block_bytes.to_bytes(4, "big")
        else:
            descriptor = min(blocks, 0xFFFFFFFF).to_bytes(4, "big") + block_bytes.to_bytes(4, "big")
    specific = 0x10 | (0x80 if is_read_only else 0)  # DPO and FUA are taken.
    if is_long:
        length = 6 + len(descriptor) + len(pages)
        head = length.to_bytes(2, "big") + bytes([0, specific, 1 if long_lba else 0, 0]) + len(descriptor).to_bytes(2, "big")
    else:
        head = bytes([min(3 + len(descriptor) + len(pages), 255), 0, specific, len(descriptor)])
    return head + descriptor + pages


def port_groups(groups: tuple[PortGroup, ...], extended: bool) -> bytes:
    """REPORT TARGET PORT GROUPS, SPC-4 section 6.36."""
    body = b""
    for group in groups:
        preferred = 0x80 if group.state == ACTIVE_OPTIMIZED else 0
        body += bytes([preferred | group.state, STATES_SUPPORTED]) + group.number.to_bytes(2, "big")
        body += bytes([0, 0, 0, len(group.ports)])
        body += b"".join(bytes(2) + port.to_bytes(2, "big") for port in group.ports)
    head = bytes([0x10, 30, 0, 0]) if extended else b""  # implicit transition time: seconds
    return (len(head) + len(body)).to_bytes(4, "big") + head + body


def report_luns(select: int) -> bytes:
    """The one logical unit, LUN 0; no well-known ones."""
    units = b"" if select == 1 else bytes(8)
    return len(units).to_bytes(4, "big") + bytes(4) + units
