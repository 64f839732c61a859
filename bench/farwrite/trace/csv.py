"""Our own trace format: comment lines, the header `time_ns,operation,address,size`, then a line an I/O.

workloads/README.md describes it for people. Here one regular expression is the grammar and finds the first wrong line;
NumPy's reader turns what passed into numbers.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import numpy as np

from . import FLUSH, READ, WRITE
from .source import Columns, Source

HEADER = b"time_ns,operation,address,size"
COMMENT = b"#"

# 19 digits always fit 64 bits without a sign, and nanoseconds since 1970 need them all.
WHOLE = (rb"[0-9]{1,19}", "a whole number of at least 0 with at most 19 digits")
FIELD = {"time_ns": WHOLE, "operation": (rb"[wrf]", "one of w, r, f"), "address": WHOLE, "size": WHOLE}
LINE = b",".join(grammar for grammar, _ in FIELD.values()) + rb"\n"
RECORDS = re.compile(rb"(?:%s)*+" % LINE)  # Possessive: it never goes back, and a long file needs no stack.
LINE_BYTES_MAX = 4096  # For a comment; a record needs 62.

ROW = np.dtype([("time_ns", np.uint64), ("operation", "S1"), ("address", np.uint64), ("size", np.uint64)])
OPERATION = np.zeros(256, np.int8)
OPERATION[[ord("w"), ord("r"), ord("f")]] = WRITE, READ, FLUSH


def recognises(head: bytes) -> bool:
    return head.startswith((COMMENT, HEADER))


def read(source: Source) -> tuple[str, dict[str, np.ndarray]]:
    """("csv", the columns of a Trace)."""
    lines_above = 0  # The header and the comments before it.

    def where(index: int) -> str:
        return f"line {lines_above + index + 1} (record {index + 1})"

    columns = Columns(source, where)
    for text in whole_lines(source):
        if not lines_above:
            text, lines_above = below_header(text, source)
        good_bytes = RECORDS.match(text).end()  # type: ignore[union-attr]  # It matches nothing, too.
        if good_bytes < len(text):
            index = columns.count + text.count(b"\n", 0, good_bytes)
            bad_line = text[good_bytes:].partition(b"\n")[0]
            source.refuse(f"{where(index)}: {fault(bad_line)}")
        if text:
            # 200 000 records: 117 ms; 156 ms by columns of digits, 285 ms by split and int (Xeon 2.5 GHz, NumPy 2.4).
            rows = np.loadtxt(io.BytesIO(text), ROW, comments=None, delimiter=",", ndmin=1, encoding="ascii")
            columns.append(rows["time_ns"], OPERATION[rows["operation"].view(np.uint8)], rows["address"], rows["size"])
    return "csv", columns.joined()


def whole_lines(source: Source) -> Iterator[bytes]:
    """The blocks of the file, cut after a newline; a missing last newline is added."""
    rest = b""
    for block in source.blocks():
        lines, newline, rest_of_block = block.rpartition(b"\n")
        if newline:
            yield (rest + lines + newline).replace(b"\r\n", b"\n")
            rest = rest_of_block
        else:
            rest += block
        if len(rest) > LINE_BYTES_MAX:
            source.refuse(f"a line of over {LINE_BYTES_MAX} bytes before byte {source.read_bytes}. Is this a trace?")
    if rest:
        yield (rest + b"\n").replace(b"\r\n", b"\n")


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


def fault(line: bytes) -> str:
    """What is wrong with a line that is no record, and what to do."""
    if line.startswith(COMMENT):
        return "a comment below the header. Move it above the header."
    fields = line.split(b",")
    if len(fields) != len(FIELD):
        return f'"{shown(line)}" has {len(fields)} fields, not {len(FIELD)}. Correct or remove the line.'
    for (name, (grammar, wanted)), field in zip(FIELD.items(), fields, strict=True):
        if not re.fullmatch(grammar, field):
            return f'{name} "{shown(field)}" is not {wanted}. Correct or remove the line.'
    raise AssertionError(f"{line!r} is a record")


def shown(text: bytes, characters_max: int = 60) -> str:
    """Bytes of a file for an error message: printable, on one line, not too long."""
    words = ascii(text[:characters_max].decode("utf-8", "replace"))[1:-1]
    return words + ("..." if len(text) > characters_max else "")
