"""A trace: what was recorded, as arrays; and where the shipped ones are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...base.errors import UsageError, nearest
from ...base.files import workloads_directory

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
