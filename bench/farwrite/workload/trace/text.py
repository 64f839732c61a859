"""Traces of lines: whole lines block by block with the place of each, and a line's grammar as one regular expression.

A possessive expression walks over a whole block and stops at the first wrong line; NumPy's reader turns what passed into
numbers. The formats whose lines are all of one kind use `Grammar`, the others only `Lines`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import NoReturn

import numpy as np

from .columns import Batch, Columns
from .source import Source

LINE_BYTES_MAX = 4096

# 19 digits always fit 64 bits without a sign, and nanoseconds since 1970 need them all.
WHOLE = (rb"[0-9]{1,19}", "a whole number of at least 0 with at most 19 digits")


class Lines:
    """The blocks of a file, cut after a newline; a missing last newline is added."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.above = 0  # Lines before the current block.
        self.begin = 0  # Its first byte.
        self.block = b""

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        for block in self.source.blocks():
            lines, newline, rest_of_block = block.rpartition(b"\n")
            if newline:
                yield from self.next(rest + lines + newline)
                rest = rest_of_block
            else:
                rest += block
            if len(rest) > LINE_BYTES_MAX:
                self.source.refuse(
                    f"a line of over {LINE_BYTES_MAX} bytes before byte {self.source.read_bytes}. Is this a trace?"
                )
        if rest:
            yield from self.next(rest + b"\n")

    def next(self, block: bytes) -> Iterator[bytes]:
        self.block = block
        yield block.replace(b"\r\n", b"\n")
        self.above += block.count(b"\n")
        self.begin += len(block)

    def where(self, line: int, record: int) -> str:
        """The words that lead to a line of the current block, counted from 0, and to the record in it."""
        byte = 0
        for _ in range(line):
            byte = self.block.index(b"\n", byte) + 1
        return f"line {self.above + line + 1} (record {record + 1}) at byte {self.begin + byte}"

    def refuse(self, line: int, record: int, sentence: str) -> NoReturn:
        self.source.refuse(f"{self.where(line, record)}: {sentence}")


class Grammar:
    """The fields of a line, each with its expression and with words for a person."""

    def __init__(self, fields: dict[str, tuple[bytes, str]], *, more: bytes = b"") -> None:
        self.fields = fields
        self.more = more
        line = b",".join(grammar for grammar, _ in fields.values()) + more + rb"\n"
        self.records = re.compile(rb"(?:%s)*+" % line)  # Possessive: it never goes back, and a long file needs no stack.
        self.line = re.compile(rb"^%s" % line, re.MULTILINE)

    def recognises(self, head: bytes) -> bool:
        """Whether the first line is one of ours."""
        return re.match(self.line.pattern, head.partition(b"\n")[0].replace(b"\r", b"") + b"\n") is not None

    def checked(self, text: bytes, above: int, lines: Lines, count: int) -> bytes:
        """The text, `above` lines below the block's beginning, when all its lines are right; with repair, those that are."""
        good_bytes = self.records.match(text).end()  # type: ignore[union-attr]  # It matches nothing, too.
        if good_bytes == len(text):
            return text
        if not lines.source.taking.repair:
            line = text.count(b"\n", 0, good_bytes)
            lines.refuse(above + line, count + line, self.fault(text[good_bytes:].partition(b"\n")[0]))
        kept = b"".join(self.line.findall(text))
        lines.source.repaired["dropped, not a record"] += text.count(b"\n") - kept.count(b"\n")
        return kept

    def fault(self, line: bytes) -> str:
        """What is wrong with a line that is no record, and what to do."""
        if line.startswith(b"#"):
            return "a comment below the header. Move it above the header, or remove it."
        fields = line.split(b",")
        if len(fields) != len(self.fields) and not self.more:
            return f'"{shown(line)}" has {len(fields)} fields, not {len(self.fields)}. Correct or remove the line.'
        for (name, (grammar, wanted)), field in zip(self.fields.items(), fields, strict=False):
            if not re.fullmatch(grammar, field):
                return f'{name} "{shown(field)}" is not {wanted}. Correct or remove the line.'
        return f'"{shown(line)}" is no record of {", ".join(self.fields)}. Correct or remove the line.'


def table(text: bytes, row: np.dtype, columns: tuple[int, ...] | None = None) -> np.ndarray:
    """The lines as rows. Columns that are not asked for may hold any bytes."""
    # 200 000 records: 117 ms; 156 ms by columns of digits, 285 ms by split and int (Xeon 2.5 GHz, NumPy 2.4).
    return np.loadtxt(
        io.BytesIO(text), row, comments=None, delimiter=",", ndmin=1, encoding="latin-1", usecols=columns
    )


Fields = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # As Columns.take() wants them.


def records(
    source: Source, grammar: Grammar, fields: Callable[[bytes, Columns], Fields], tick_ns: int = 1
) -> Iterator[Batch]:
    """The records of a trace whose lines are all of one kind, checked; `fields` makes columns of lines that passed."""
    lines = Lines(source)
    in_block = 0

    def where(index: int) -> str:
        return lines.where(index - in_block, index)

    columns = Columns(source, where, tick_ns)
    for text in lines:
        in_block = columns.count
        if passed := grammar.checked(text, 0, lines, columns.count):
            yield from columns.take(*fields(passed, columns))
    yield from columns.end()


def shown(text: bytes, characters_max: int = 60) -> str:
    """Bytes of a file for an error message: printable, on one line, not too long."""
    words = ascii(text[:characters_max].decode("utf-8", "replace"))[1:-1]
    return words + ("..." if len(text) > characters_max else "")
