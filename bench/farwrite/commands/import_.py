"""`farwrite import`: results of other tools as a result set, which compare and gate read like a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..analysis.figure import ResultSet
from ..base.documents import read_document
from ..base.errors import EXIT_DONE, UsageError
from ..base.files import STDOUT, descriptor_of, ordinary, write_atomically
from ..compare.foreign import TimeUnit, result_set_of_foreign
from .output import printing


def import_files(
    *files: Path, out: Annotated[Path, Parameter(allow_leading_hyphen=True)] = Path(STDOUT), unit: TimeUnit | None = None
) -> int:
    """Read results of fio, HdrHistogram, k6 or pytest-benchmark as a result set.

    Several files are runs of the same thing: their figures are averaged, and how they differ becomes the interval.

    Parameters
    ----------
    files
        What the tools wrote: fio's JSON, .hlog, k6's summary, pytest-benchmark's JSON.
    out
        The result set to write; - prints it.
    unit
        What an HdrHistogram log counted in; ns unless told.
    """
    from ..compare.foreign.runs import joined

    if not files:
        raise UsageError("import: name at least one file, such as fio.json.")
    result_set = joined([read_foreign(path, unit) for path in files])
    data = encoded(result_set)
    if descriptor_of(out) is None:
        write_result_set(data, out)
        print(f"saved: {out}", file=sys.stderr)
    else:
        with printing():
            write_atomically(out, data)
    return EXIT_DONE


def read_foreign(path: Path, unit: TimeUnit | None) -> ResultSet:
    """The result set of one file; UsageError when it is one of our own, which needs no import."""
    from ..compare.figures import is_report, is_result_set

    data = read_document(path, "import")
    if is_report(data) or is_result_set(data):
        raise UsageError(f"{path} is farwrite's own: compare and gate read it as it is.")
    return result_set_of_foreign(path, data, unit)


def encoded(result_set: ResultSet) -> bytes:
    """The result set as a document."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(result_set), indent=1) + b"\n"


def write_result_set(data: bytes, path: Path) -> None:
    """Write a result set atomically, over nothing but another one: a mistyped --out must not cost a result."""
    from ..compare.figures import is_result_set

    try:
        if path.exists() and not is_result_set(read_document(ordinary(path), "write the result set over")):
            raise UsageError(f"{path} is no result set, so it is not overwritten. Name another --out.")
        write_atomically(path, data)
    except OSError as refusal:
        raise UsageError(f"write the result set {path}: {refusal.strerror}. Name another --out.") from refusal
