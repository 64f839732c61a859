"""Tencent block traces: `time,offset,size,operation,volume`, a line an I/O, no header; read when `--format tencent` names them.

The time is in whole seconds, so all I/O of a second comes at its beginning; offset and size are sectors of 512 bytes; operation 0
is a read and 1 a write. SNIA IOTTA repository, Tencent Block Storage Traces, readme.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...base.units import NS_PER_S
from .columns import Batch, Columns
from .source import ADDRESS_BYTES_MAX, IO_BYTES_MAX, Source
from .text import WHOLE, Fields, Grammar, records, table
from .trace import READ, WRITE

SECTOR_BYTES = 512

GRAMMAR = Grammar(
    {
        "time": (rb"[0-9]{1,12}", "whole seconds of at most 12 digits"),
        "offset": WHOLE,
        "size": WHOLE,
        "operation": (rb"[01]", "0 for a read or 1 for a write"),
        "volume": (rb"[0-9]{1,9}", "a number of at most 9 digits"),
    }
)
ROW = np.dtype([("time", np.uint64), ("offset", np.uint64), ("size", np.uint64), ("operation", np.int8), ("volume", np.int64)])


def recognises(head: bytes) -> str:
    """"tencent", or nothing."""
    return "tencent" if GRAMMAR.recognises(head) else ""


def read(source: Source) -> Iterator[Batch]:
    """The records, checked."""
    return records(source, GRAMMAR, fields, NS_PER_S)


def fields(text: bytes, columns: Columns) -> Fields:
    """The columns of lines that passed."""
    rows = table(text, ROW)
    # Bounded first, so that bytes fit 64 bits; what is beyond the bounds is refused as bytes.
    offset = np.minimum(rows["offset"], ADDRESS_BYTES_MAX // SECTOR_BYTES + 1) * SECTOR_BYTES
    size = np.minimum(rows["size"], IO_BYTES_MAX // SECTOR_BYTES + 1) * SECTOR_BYTES
    operation = np.where(rows["operation"] == 1, WRITE, READ).astype(np.int8)
    return rows["time"], operation, offset, size, columns.disks_of(rows["volume"])
