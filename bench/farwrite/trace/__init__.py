"""Recorded I/O, ready to be replayed: when each write, read and flush was issued, where it went and how large it was.

`find` turns a word into a file, `read` a file into a `Trace`. One file a format knows the bytes: `vscsi.py` (VMware)
and `csv.py` (our own, see workloads/README.md); `source.py` opens, unpacks and bounds. Profiles use this.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from ..errors import UsageError, nearest
from ..shipped import workloads_directory

WRITE = 1
READ = 2
FLUSH = 3

SUFFIX = ".csv.gz"  # Of the traces we ship.


@dataclass(frozen=True, eq=False)
class Trace:
    """What was recorded; every array is indexed by record.

    A flush has address and size 0 and concerns all writes before it.
    """

    name: str
    source_format: str
    time_ns: np.ndarray  # int64, issued, since the first record; never falls
    operation: np.ndarray  # int8, WRITE, READ or FLUSH
    address: np.ndarray  # int64, bytes from the start of the volume
    size: np.ndarray  # int32, bytes; at least 1, 0 for a flush

    @property
    def count(self) -> int:
        return self.time_ns.size

    @property
    def duration_ns(self) -> int:
        """From the first record to the last."""
        return int(self.time_ns[-1])

    @property
    def address_bytes_max(self) -> int:
        """One past the last byte that any record touches: a volume of this size holds the whole trace."""
        return int((self.address + self.size).max())


@functools.lru_cache(maxsize=8)
def read_once(path: str) -> Trace:
    """read(), once per process; a lab's processes inherit what was read before they were forked."""
    return read(path)


def read(path: str | Path) -> Trace:
    """The trace in `path`, plain or gzip; its content says which format, or else its suffix.

    UsageError says what is wrong, in which record, and what to do.
    """
    from . import csv, vscsi
    from .source import Source

    with Source(path) as source:
        if csv.recognises(source.head):
            reader: ModuleType = csv
        elif vscsi.recognises(source.head):
            reader = vscsi
        else:
            suffixes = {".csv": csv, ".vscsi": vscsi}
            named = [suffixes[suffix] for suffix in source.path.suffixes if suffix in suffixes]
            if not named:
                raise UsageError(
                    f'Trace "{source.path}", record 1 at byte 0: of no known format. Give a VMware vSCSI trace of '
                    f'version 1 or 2 or a CSV file with the header "{csv.HEADER.decode()}", plain or gzip.'
                )
            reader = named[-1]
        source_format, columns = reader.read(source)
    return Trace(source.name, source_format, **columns)


def find(name: str | Path) -> Path:
    """The file for a word: "pgbench" is the shipped trace; with a folder or a suffix it is a path and used as it is."""
    path = Path(name)
    if path.suffix or path.name != str(name):
        return path
    files = (workloads_directory() / "traces").glob(f"*{SUFFIX}")
    shipped = {file.name.removesuffix(SUFFIX): file for file in files}
    if path.name not in shipped:
        raise UsageError(f'Trace "{name}" is not shipped{nearest(path.name, shipped)}. A file of yours is ./{name}.')
    return shipped[path.name]
