"""Alibaba block traces: `device,operation,offset,length,time`, a line an I/O, no header; read when `--format alibaba` names them.

The operation is R or W, offset and length are bytes, the time microseconds; a device is a virtual disk, called by its number.
Alibaba Cloud, block-traces, README.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...base.units import NS_PER_US
from .columns import Batch, Columns
from .source import Source
from .text import WHOLE, Fields, Grammar, records, table
from .trace import READ, WRITE

GRAMMAR = Grammar(
    {
        "device": (rb"[0-9]{1,9}", "a number of at most 9 digits"),
        "operation": (rb"[RW]", "one of R, W"),
        "offset": WHOLE,
        "length": WHOLE,
        "time": WHOLE,
    }
)
ROW = np.dtype([("device", np.int64), ("operation", "S1"), ("offset", np.uint64), ("length", np.uint64), ("time", np.uint64)])


def recognises(head: bytes) -> str:
    """"alibaba", or nothing."""
    return "alibaba" if GRAMMAR.recognises(head) else ""


def read(source: Source) -> Iterator[Batch]:
    """The records, checked."""
    return records(source, GRAMMAR, fields, NS_PER_US)


def fields(text: bytes, columns: Columns) -> Fields:
    """The columns of lines that passed."""
    rows = table(text, ROW)
    operation = np.where(rows["operation"] == b"W", WRITE, READ).astype(np.int8)
    disk = columns.disks_of(rows["device"])
    return rows["time"], operation, rows["offset"], rows["length"], disk
