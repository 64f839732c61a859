"""Other tools' results as sheets of figures: fio, HdrHistogram logs, k6, pytest-benchmark; one file a format."""

from __future__ import annotations

from pathlib import Path

from ..errors import UsageError
from ..figure import Sheet


def sheet_of_foreign(path: Path, data: bytes) -> Sheet:
    """The sheet of another tool's file; UsageError when it is none that we read."""
    raise UsageError(f"{path} is neither a farwrite report nor a file of fio, HdrHistogram, k6 or pytest-benchmark.")
