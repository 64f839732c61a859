"""What blkparse prints of a block device's trace, in its default format.

    8,0    3       11     0.009507758   697  Q   W 223490 + 56 [kjournald]

An I/O passes several actions; one of them stands for it: Q (queued: asked for, before merging), or D (issued to the driver) or C
(complete) where the head of the file has no Q. Sectors are 512 bytes. In RWBS a leading F is a flush before the I/O or, without
sectors, alone; D is a discard and left out. blkparse(1), DEFAULT OUTPUT; kernel/trace/blktrace.c, `blk_fill_rwbs`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...base.units import NS_PER_S
from .columns import Batch, Columns
from .iolog import as_columns
from .source import Source
from .text import Lines, shown
from .trace import FLUSH, READ, WRITE

SECTOR_BYTES = 512
ACTIONS = (b"Q", b"D", b"C")  # The earliest that a file has is nearest to what the application asked for.

# Device, CPU, sequence, seconds, nanoseconds, process, action, RWBS.
EVENT = rb"^[ \t]*(\d{1,7},\d{1,7}) +\d{1,6} +\d{1,19} +(\d{1,9})\.(\d{9}) +\d{1,10} +([A-Z]{1,2}|m)(?: +([A-Z]{1,8}))?(?: |$)"
LINE = re.compile(EVENT)
EXTENT = re.compile(rb" *(\d{1,16}) \+ (\d{1,10})(?: |$)")
SUMMARY = re.compile(rb"(?:CPU ?\d+|Total) \(")  # What follows the events: sums by processor and of all.
FIRST_EVENTS = {action: re.compile(EVENT.replace(rb"([A-Z]{1,2}|m)", rb"(%s)" % action), re.MULTILINE) for action in ACTIONS}


def recognises(head: bytes) -> str:
    """"blkparse-Q" and so on, by the action that is read, or nothing."""
    first = head.lstrip().partition(b"\n")[0].rstrip(b"\r")
    return f"blkparse-{action_of(head).decode()}" if LINE.match(first) else ""


def action_of(head: bytes) -> bytes:
    """The action that stands for an I/O."""
    return next((action for action in ACTIONS if FIRST_EVENTS[action].search(head)), ACTIONS[0])


def read(source: Source) -> Iterator[Batch]:
    """The records, checked."""
    lines = Lines(source)
    numbers: list[int] = []  # Of the block's records: the lines they stand in.
    in_block = 0

    def where(index: int) -> str:
        return lines.where(numbers[index - in_block], index)

    columns = Columns(source, where)
    wanted = action_of(source.head)
    summing_up = False
    for text in lines:
        in_block = columns.count
        numbers.clear()
        rows: list[tuple[int, int, int, int, int]] = []
        for number, line in enumerate(text.split(b"\n")[:-1]):
            summing_up = summing_up or SUMMARY.match(line) is not None
            if summing_up or not line.strip():
                continue
            event = LINE.match(line)
            if event is None:
                if not source.taking.repair:
                    wrong = f'"{shown(line)}" is not an event as blkparse prints it. Correct or remove the line.'
                    lines.refuse(number, columns.count + len(rows), wrong)
                source.repaired["dropped, not a record"] += 1
                continue
            device, seconds, nanoseconds, action, rwbs = event.groups()
            if action != wanted:
                continue
            time_ns = int(seconds) * NS_PER_S + int(nanoseconds)
            disk = columns.disk_of(device.decode())
            extent = EXTENT.match(line, event.end())
            for operation, sector, count in ios_of(rwbs or b"", extent, source):
                rows.append((time_ns, operation, sector * SECTOR_BYTES, count * SECTOR_BYTES, disk))
                numbers.append(number)
        yield from columns.take(*as_columns(rows))
    yield from columns.end()


def ios_of(rwbs: bytes, extent: re.Match | None, source: Source) -> Iterator[tuple[int, int, int]]:
    """(operation, sector, sectors) of what an event asks for; what is neither write, read nor flush is counted."""
    sector, count = (int(extent[1]), int(extent[2])) if extent else (0, 0)
    if rwbs.startswith(b"F"):
        yield FLUSH, 0, 0
        if not count:
            return
        rwbs = rwbs[1:]
    operation = {b"W": WRITE, b"R": READ}.get(rwbs[:1])
    if rwbs[:1] == b"D":
        source.left_out["discards"] += 1
    elif operation is None or extent is None:
        source.left_out["requests without sectors"] += 1
    else:
        yield operation, sector, count
