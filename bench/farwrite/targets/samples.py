"""Every I/O of a round by itself: a .npy file that the load fills through memory, and that NumPy opens as it is.

Kept where a profile says `[run] samples = true`: beside the report, a file for each round. A row is an I/O of the plan, several
jobs one behind the other; its columns are `load_kernel`'s: number, intended, issued and completed in ns since the round's begin
(zeros where it was never completed), size in bytes and operation. The file is laid out and made durable
before the load begins, so that the measured loop only writes to memory that is there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..base.errors import UnfitError

if TYPE_CHECKING:
    from ..workload.plan_kernel import Plan

FOLDER = "samples"  # Beside the report.
COLUMNS = ("number", "intended_ns", "issued_ns", "completed_ns", "size", "operation")


def file_of(cell: str, index: int, attempt: int) -> str:
    """The file of a round, as the report names it: relative to the run's directory."""
    return f"{FOLDER}/{cell}-{index}-{attempt}.npy"


@contextlib.contextmanager
def samples_of(path: str, plan: Plan) -> Iterator[np.ndarray | None]:
    """Room for a plan's writes in a file of this name, cut to those that completed at the end; None without a name."""
    if not path:
        yield None
        return
    rows = plan.intended_ns.size
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.int64, shape=(max(rows, 1), len(COLUMNS)))
        mapped[:rows] = 0
        mapped[:rows, 0] = np.arange(rows)
        mapped[:rows, 4] = plan.size
        mapped[:rows, 5] = plan.operation
        sync(mapped, path)  # Blocks are found now, and not while the load is measured.
    except OSError as refusal:
        raise UnfitError(f"keep samples in {path}: {refusal.strerror}. Make room, or leave out run.samples.") from refusal
    try:
        yield np.asarray(mapped)[:rows]
    finally:
        completed = np.flatnonzero(mapped[:, 3])
        kept = int(completed[-1]) + 1 if completed.size else 0
        mapped.flush()
        begin = mapped.offset
        del mapped
        cut(path, kept, begin)


def sync(mapped: np.memmap, path: str) -> None:
    """Make the file durable as it is."""
    mapped.flush()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cut(path: str, rows: int, begin: int) -> None:
    """Keep the first `rows` rows. NumPy leaves room in a header for any number of them, so nothing has to move."""
    with open(path, "r+b") as file:  # noqa: PTH123
        kind = np.lib.format.dtype_to_descr(np.dtype(np.int64))
        header = {"descr": kind, "fortran_order": False, "shape": (rows, len(COLUMNS))}
        np.lib.format.write_array_header_1_0(file, header)
        assert file.tell() == begin
        file.truncate(begin + rows * len(COLUMNS) * 8)
