"""MSR Cambridge traces: `Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime`, a line an I/O, no header.

Timestamps are Windows file times, ticks of 100 ns since 1601; offset and size are bytes; the response time is left unread.
A disk is called by host and number: "hm.1". SNIA IOTTA repository, MSR Cambridge Block I/O Traces, readme.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .columns import Batch, Columns
from .source import Source
from .text import WHOLE, Fields, Grammar, records, table
from .trace import READ, WRITE

TICK_NS = 100

GRAMMAR = Grammar(
    {
        "timestamp": WHOLE,
        "hostname": (rb"[0-9A-Za-z_.-]{1,32}", "a name of at most 32 letters, digits and -_."),
        "disk": (rb"[0-9]{1,4}", "a number of at most 4 digits"),
        "type": (rb"(?:Read|Write|read|write|READ|WRITE)", "Read or Write"),
        "offset": WHOLE,
        "size": WHOLE,
        "response time": WHOLE,
    }
)
ROW = np.dtype(
    [("time", np.uint64), ("host", "S32"), ("disk", "S4"), ("type", "S1"), ("offset", np.uint64), ("size", np.uint64)]
)


def recognises(head: bytes) -> str:
    """"msr", or nothing."""
    return "msr" if GRAMMAR.recognises(head) else ""


def read(source: Source) -> Iterator[Batch]:
    """The records, checked."""
    return records(source, GRAMMAR, fields, TICK_NS)


def fields(text: bytes, columns: Columns) -> Fields:
    """The columns of lines that passed."""
    rows = table(text, ROW, (0, 1, 2, 3, 4, 5))
    is_write = (rows["type"] == b"W") | (rows["type"] == b"w")
    names, places = np.unique(rows[["host", "disk"]], return_inverse=True)
    known = [columns.disk_of(f"{host.decode()}.{disk.decode()}") for host, disk in names.tolist()]
    disk = np.array(known, np.int32)[places.reshape(-1)]
    operation = np.where(is_write, WRITE, READ).astype(np.int8)
    return rows["time"], operation, rows["offset"], rows["size"], disk
