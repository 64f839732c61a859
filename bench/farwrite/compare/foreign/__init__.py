"""Other tools' results as result sets: fio, HdrHistogram logs, k6, pytest-benchmark; one file a format.

A file is known by what is in it, not by its name. What the numbers are called here stands in `metrics.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ...analysis.figure import ResultSet
from ...base.errors import UsageError

TimeUnit = Literal["ns", "us", "ms"]

LOOKED_FOR = (
    'fio\'s --output-format=json ("fio version"), an HdrHistogram log ("Interval_Compressed_Histogram"), '
    'k6\'s summary ("metrics" and "root_group", or "results" and "k6Version") '
    'or pytest-benchmark\'s JSON ("machine_info" and "benchmarks")'
)


def result_set_of_foreign(path: Path, data: bytes, unit: TimeUnit | None = None) -> ResultSet:
    """The result set of another tool's file; UsageError when it is none that we read.

    `unit` is what an HdrHistogram log counted in, because it does not say; the other formats do.
    """
    from . import fio, hdr, k6, pytest_benchmark
    from .document import document

    source = str(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as refusal:
        raise UsageError(f"{source} is not text: byte {refusal.start} is no UTF-8. Looked for {LOOKED_FOR}.") from refusal
    if hdr.is_ours(text):
        return with_figures(hdr.result_set_of(text, source, unit))
    if unit is not None:
        raise UsageError(f"--unit {unit}: only an HdrHistogram log leaves its unit open, and {source} is none.")
    found = document(text, source)
    for tool in (fio, pytest_benchmark, k6):
        if found is not None and tool.is_ours(found):
            return with_figures(tool.result_set_of(found, text))
    if k6.is_stream(text):
        raise UsageError(f"{source} is k6's stream of single points (--out json). Save its summary: k6 run --summary-export.")
    raise UsageError(f"{source} is neither a farwrite report nor another tool's that we read. Looked for {LOOKED_FOR}.")


def with_figures(result_set: ResultSet) -> ResultSet:
    """The result set, as long as something in it was measured. Two files that nothing was read from would compare as the same."""
    if any(item.estimate.value is not None and not (item.exact and item.estimate.value == 0) for item in result_set.figures):
        return result_set
    raise UsageError(
        f"{result_set.source} is {result_set.kind}'s, and no figure came out of it: it holds no I/O, "
        "or keeps it where this farwrite does "
        "not look. Look at the file; a run that did nothing has nothing to compare."
    )
