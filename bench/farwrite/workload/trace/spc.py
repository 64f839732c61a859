"""SPC traces, as the UMass repository has them: `ASU,LBA,size,opcode,timestamp`, a line an I/O, no header.

An application storage unit (ASU) is a disk; the logical block address counts blocks of 512 bytes, the size bytes, the timestamp
seconds. White space around fields and further fields are allowed. SPC Trace File Format Specification, revision 1.0.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ...base.units import NS_PER_S
from .columns import Batch, Columns
from .source import ADDRESS_BYTES_MAX, Source
from .text import Fields, Grammar, records, table
from .trace import READ, WRITE

BLOCK_BYTES = 512  # What the specification leaves to the trace's description; all of UMass's say 512.
SPACE = rb"[ \t]*"


def spaced(grammar: bytes) -> bytes:
    return SPACE + grammar + SPACE


GRAMMAR = Grammar(
    {
        "ASU": (spaced(rb"[0-9]{1,4}"), "a number of at most 4 digits"),
        "LBA": (spaced(rb"[0-9]{1,19}"), "a whole number of at most 19 digits"),
        "size": (spaced(rb"[0-9]{1,19}"), "a whole number of at most 19 digits"),
        "opcode": (spaced(rb"[rRwW]"), "one of r, w"),
        "timestamp": (spaced(rb"[0-9]{1,9}(?:\.[0-9]{0,9})?"), "seconds, at most 9 digits before and behind the point"),
    },
    more=rb"(?:,[^\n]{0,256})?",
)
ROW = np.dtype([("disk", np.int32), ("block", np.uint64), ("size", np.uint64), ("opcode", "S1"), ("time_s", np.float64)])
BLANKS = re.compile(rb"[ \t]+")


def recognises(head: bytes) -> str:
    """"spc", or nothing."""
    return "spc" if GRAMMAR.recognises(head) else ""


def read(source: Source) -> Iterator[Batch]:
    """The records, checked."""
    return records(source, GRAMMAR, fields)


def fields(text: bytes, columns: Columns) -> Fields:
    """The columns of lines that passed."""
    rows = table(BLANKS.sub(b"", text), ROW, (0, 1, 2, 3, 4))
    # A double holds the nanoseconds of 104 days exactly, and a longer trace's to a few.
    time_ns = np.rint(rows["time_s"] * NS_PER_S).astype(np.uint64)
    is_write = (rows["opcode"] == b"W") | (rows["opcode"] == b"w")
    block = np.minimum(rows["block"], ADDRESS_BYTES_MAX // BLOCK_BYTES + 1)  # So that bytes fit 64 bits.
    operation = np.where(is_write, WRITE, READ).astype(np.int8)
    return time_ns, operation, block * BLOCK_BYTES, rows["size"], columns.disks_of(rows["disk"])
