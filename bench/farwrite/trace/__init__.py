"""Recorded I/O, ready to be replayed: when each write, read and flush was issued, where it went and how large it was.

`find` turns a word into a file, `reading.Reading` a file into a stream of batches, `read` into a whole `Trace`. One file a format
knows the bytes: `vscsi.py` (VMware), `msr.py`, `spc.py`, `iolog.py` (fio), `blkparse.py` and `csv.py` (our own, see
workloads/README.md), each with two verbs, `recognises` and `read`. `source.py` opens and unpacks, `columns.py` checks and mends.
Profiles replay with it; `summary.py` and `convert.py` are `farwrite trace`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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


def read(path: str | Path) -> Trace:
    """The whole trace in `path`, several disks side by side; its content says which format, or else its suffix.

    UsageError says what is wrong, in which record, and what to do.
    """
    from .reading import whole

    return whole(path)


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
