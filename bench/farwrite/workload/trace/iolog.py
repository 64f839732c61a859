"""fio I/O logs, versions 2 and 3: what `write_iolog` writes and `read_iolog` replays.

Version 2 is `file action [offset length]` and knows time only from `wait`, which counts microseconds from the wait before;
version 3 puts microseconds in front of every line and has no wait. add, open and close are passed over, and trims counted as left
out. A sync or datasync is a flush. fio HOWTO, "Trace file format v2" and "v3"; that version 3 counts microseconds is in its
iolog.c, `log_io_u`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ...base.units import NS_PER_US
from .columns import Batch, Columns
from .source import Source
from .text import Lines, shown
from .trace import FLUSH, READ, WRITE

FIRST_LINE = {2: b"fio version 2 iolog", 3: b"fio version 3 iolog"}

OPERATION = {b"write": WRITE, b"read": READ, b"sync": FLUSH, b"datasync": FLUSH}
ABOUT_FILES = (b"add", b"open", b"close")
LEFT_OUT = {b"trim": "trims", b"sync_file_range": "hints to write back"}

DIGITS = rb"[0-9]{1,19}"
LINE = re.compile(rb"(\S{1,256}) +([a-z_]+)(?: +(%s)(?: +(%s))?)? *" % (DIGITS, DIGITS))
TIMED = re.compile(rb"(%s) +" % DIGITS)


def version_of(head: bytes) -> int:
    """2 or 3; 0 for neither."""
    return next((version for version, line in FIRST_LINE.items() if head.startswith(line)), 0)


def recognises(head: bytes) -> str:
    """"iolog-2", "iolog-3" or nothing."""
    version = version_of(head)
    return f"iolog-{version}" if version else ""


def read(source: Source) -> Iterator[Batch]:
    """The records, checked."""
    version = version_of(source.head)
    if not version:
        source.refuse(f'line 1: "{FIRST_LINE[3].decode()}" is missing, the first line of a fio I/O log. Add it.')
    lines = Lines(source)
    numbers: list[int] = []  # Of the block's records: the lines they stand in.
    in_block = 0

    def where(index: int) -> str:
        return lines.where(numbers[index - in_block], index)

    columns = Columns(source, where, NS_PER_US)
    waited_us = 0
    for text in lines:
        in_block = columns.count
        numbers.clear()
        rows: list[tuple[int, int, int, int, int]] = []
        for number, line in enumerate(text.split(b"\n")[:-1]):
            if not number and not lines.above:
                continue  # The first line of all is the version.
            taken = fields_of(line, version)
            if isinstance(taken, str):
                if not source.taking.repair:
                    lines.refuse(number, columns.count + len(rows), f"{taken} Correct or remove the line.")
                source.repaired["dropped, not a record"] += 1
                continue
            time_us, name, action, offset, size = taken
            if action == b"wait":
                waited_us += offset
            elif action in LEFT_OUT:
                source.left_out[LEFT_OUT[action]] += 1
            elif action in OPERATION:
                operation = OPERATION[action]
                if operation == FLUSH:
                    offset = size = 0
                time_us = waited_us if version == 2 else time_us
                rows.append((min(time_us, LATEST_US), operation, offset, size, columns.disk_of(name.decode("utf-8", "replace"))))
                numbers.append(number)
        yield from columns.take(*as_columns(rows))
    yield from columns.end()


LATEST_US = (1 << 63) - 1  # Waits may add up to more than a year; that is refused, not wrapped round.


def fields_of(line: bytes, version: int) -> tuple[int, bytes, bytes, int, int] | str:
    """(time in us, file, action, offset, length) of a line, or what is wrong with it."""
    time_us = 0
    if version == 3:
        timed = TIMED.match(line)
        if timed is None:
            return f'"{shown(line)}" does not begin with a time in microseconds.'
        time_us, line = int(timed[1]), line[timed.end() :]
    match = LINE.fullmatch(line)
    if match is None:
        return f'"{shown(line)}" is not a file, an action, an offset and a length.'
    name, action, offset, size = match.groups()
    if action in ABOUT_FILES:
        return (time_us, name, action, 0, 0) if offset is None else f'"{shown(line)}" has an offset, and {action.decode()} none.'
    if action == b"wait":
        if version == 3:
            return '"wait" is not allowed in version 3.'
        return (0, name, action, int(offset), 0) if offset else f'"{shown(line)}" does not say how long.'
    if action not in OPERATION and action not in LEFT_OUT:
        return f'action "{shown(action)}" is unknown to fio.'
    if size is None:
        return f'"{shown(line)}" lacks its offset or its length.'
    return time_us, name, action, int(offset), int(size)


def as_columns(rows: list[tuple[int, int, int, int, int]]) -> tuple[np.ndarray, ...]:
    """The rows (time, operation, address, size, disk) as the arrays that `Columns.take` takes."""
    time, operation, address, size, disk = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return (
        np.array(time, np.uint64), np.array(operation, np.int8), np.array(address, np.uint64), np.array(size, np.uint64),
        np.array(disk, np.int32),
    )  # fmt: skip
