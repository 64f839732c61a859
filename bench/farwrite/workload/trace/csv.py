"""Our own trace format: comment lines, the header `time_ns,operation,address,size`, then a line an I/O.

workloads/README.md describes it for people.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .columns import Batch, Columns
from .source import Source
from .text import WHOLE, Grammar, Lines, shown, table
from .trace import FLUSH, READ, WRITE

HEADER = b"time_ns,operation,address,size"
COMMENT = b"#"

GRAMMAR = Grammar({"time_ns": WHOLE, "operation": (rb"[wrf]", "one of w, r, f"), "address": WHOLE, "size": WHOLE})
ROW = np.dtype([("time_ns", np.uint64), ("operation", "S1"), ("address", np.uint64), ("size", np.uint64)])
OPERATION = np.zeros(256, np.int8)
OPERATION[[ord("w"), ord("r"), ord("f")]] = WRITE, READ, FLUSH


def recognises(head: bytes) -> str:
    """"csv", or nothing."""
    return "csv" if head.startswith((COMMENT, HEADER)) else ""


def read(source: Source) -> Iterator[Batch]:
    """The records, checked."""
    lines = Lines(source)
    above = 0  # Lines of the current block before its first record: the header and the comments before it.
    in_block = 0  # Records that had been handed over before the current block.

    def where(index: int) -> str:
        return lines.where(above + index - in_block, index)

    columns = Columns(source, where)
    headed = False
    for text in lines:
        above, in_block = 0, columns.count
        if not headed:
            text, above = below_header(text, source)
            headed = True
        text = GRAMMAR.checked(text, above, lines, columns.count)
        if text:
            rows = table(text, ROW)
            yield from columns.take(
                rows["time_ns"], OPERATION[rows["operation"].view(np.uint8)], rows["address"], rows["size"]
            )
    yield from columns.end()


def below_header(text: bytes, source: Source) -> tuple[bytes, int]:
    """What follows the header, and how many lines that is from the top."""
    number = 0
    while text:
        line, _, text = text.partition(b"\n")
        number += 1
        if line == HEADER:
            break
        if not line.startswith(COMMENT):
            source.refuse(f'line {number}: "{shown(line)}" where the header "{HEADER.decode()}" must be. Add it.')
    else:
        source.refuse(f'line {number + 1}: the header "{HEADER.decode()}" is missing below the comments. Add it.')
    return text, number
