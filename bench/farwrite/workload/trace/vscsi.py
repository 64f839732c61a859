"""VMware vSCSI traces, versions 1 and 2: fixed little-endian records, one an I/O of a virtual disk.

Layout as in libCacheSim, traceReader/include/vscsi.h (CloudPhysics). Version 1 is proven on a public trace of theirs,
version 2 only on records built by our own tests: we know of no public file. Its response time is left unread.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...base.units import NS_PER_US
from .columns import Batch, Columns
from .source import ADDRESS_BYTES_MAX, Source
from .trace import FLUSH, READ, WRITE

BLOCK_BYTES = 512  # The unit of a logical block number, whatever the guest's own sector size.

WHAT = [("command", "<u2"), ("version", "<u2")]
HOW_MUCH = [("serial", "<u4"), ("length", "<u4"), ("scatter_gather", "<u4")]
WHERE_AND_WHEN = [("block", "<u8"), ("time_us", "<u8")]
RECORD = {
    1: np.dtype([*HOW_MUCH, *WHAT, *WHERE_AND_WHEN]),
    2: np.dtype([*WHAT, *HOW_MUCH, *WHERE_AND_WHEN, ("response", "<u8")]),
}

COMMAND = {
    WRITE: (0x0A, 0x2A, 0xAA, 0x8A),  # WRITE(6), (10), (12), (16): SBC-4.
    READ: (0x08, 0x28, 0xA8, 0x88),  # READ likewise.
    FLUSH: (0x35, 0x91),  # SYNCHRONIZE CACHE(10), (16).
}
OPERATION = np.zeros(1 << 16, np.int8)
for operation, commands in COMMAND.items():
    OPERATION[list(commands)] = operation


def version_of(head: bytes) -> int | None:
    """1 or 2 when the first two records, or the only one, carry that version in its place; else None."""
    for version, record in RECORD.items():
        records = np.frombuffer(head[: len(head) // record.itemsize * record.itemsize][: 2 * record.itemsize], record)
        if records.size and (records["version"] >> 8 == version).all():
            return version
    return None


def recognises(head: bytes) -> str:
    """"vscsi-1", "vscsi-2" or nothing."""
    version = version_of(head)
    return f"vscsi-{version}" if version else ""


def read(source: Source) -> Iterator[Batch]:
    """The records, checked."""
    version = version_of(source.head)
    if version is None:
        source.refuse("record 1 at byte 0: not a vSCSI record of version 1 or 2. Is it cut in front, or other format?")
    record = RECORD[version]

    def where(index: int) -> str:
        return f"record {index + 1} at byte {index * record.itemsize}"

    columns = Columns(source, where, NS_PER_US)
    rest = b""
    for block in source.blocks():
        block = rest + block
        whole = len(block) // record.itemsize * record.itemsize
        records, rest = np.frombuffer(block[:whole], record), block[whole:]

        stated = records["version"] >> 8
        operation = OPERATION[records["command"]]
        known = operation != 0
        if source.taking.repair:
            good = known & (stated == version)
            source.repaired["dropped, not a record"] += int((~good).sum())
            records, operation = records[good], operation[good]
        else:
            columns.check(stated == version, stated, f"version {{}} in a trace of version {version}. Copy the file again.")
            wrong = "SCSI command {:#04x} is no read, write or flush. Remove the record."
            columns.check(known, records["command"], wrong)
        io = operation != FLUSH
        block_number = np.minimum(records["block"], ADDRESS_BYTES_MAX // BLOCK_BYTES + 1)  # So that bytes fit 64 bits.
        address = np.where(io, block_number * BLOCK_BYTES, np.uint64(0))
        size = np.where(io, records["length"].astype(np.uint64), np.uint64(0))
        yield from columns.take(records["time_us"], operation, address, size)
    if rest and source.taking.repair:
        source.repaired["dropped, cut off at the end"] += 1
    elif rest:
        cut = f"{where(columns.count)}: {len(rest)} bytes instead of {record.itemsize}"
        source.refuse(f"{cut}. Was the copy interrupted?")
    yield from columns.end()
