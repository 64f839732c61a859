"""`farwrite export`: a report's histograms for HdrHistogram's own tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ..base.errors import EXIT_DONE, UsageError
from .reports import named
from .values import a_report

if TYPE_CHECKING:
    from ..recording import Cell


def export(
    report: Annotated[Path, a_report],
    *,
    hlog: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    hgrm: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    cell: list[str] | None = None,
    time: Literal["response", "service", "wait"] = "response",
) -> int:
    """Write a report's latencies as HdrHistogram's tools read them.

    Parameters
    ----------
    report
        A report.json, the directory or the id of a run, the name of a baseline, or "latest".
    hlog
        Write a histogram log: every slice of every round, tagged with its cell, warm-up apart. "-" is stdout.
    hgrm
        Write the distribution by percentile, in ms, as HdrHistogram's plotter takes it: a file for one cell, a directory
        with a file for each of several.
    cell
        Only this cell, by its id, such as write-C-20; may be given several times.
    time
        Which time: response counts from the intended instant, service from the issue, wait is what lies between.
    """
    from ..analysis import analysis_of
    from ..base.files import descriptor_of
    from ..recording import read
    from ..report import hdr

    if hlog is None and hgrm is None:
        raise UsageError("export: name what to write: --hlog OUT, --hgrm OUT or both.")
    if hlog is not None and hgrm is not None and descriptor_of(hlog) == descriptor_of(hgrm) == 1:
        raise UsageError("--hlog and --hgrm both want stdout: choose one.")
    document = read(named(report))
    cells = chosen(document.recording.cells, cell)
    analysis = analysis_of(document)
    if hgrm is not None:
        for place, one in placed(hgrm, cells):
            write(place, hdr.hgrm(hdr.pooled(document.recording, analysis, one, time)))
    if hlog is not None:
        write(hlog, "".join(hdr.hlog(document.recording, analysis, cells, time)))
    return EXIT_DONE


def chosen(cells: list[Cell], ids: list[str] | None) -> list[Cell]:
    """The cells that were asked for, all without a word; UsageError for one that the report has not."""
    from ..base.errors import nearest

    known = {item.id: item for item in cells}
    for word in ids or []:
        if word not in known:
            raise UsageError(f'--cell: the report has no cell "{word}"{nearest(word, known)}.')
    return [known[word] for word in dict.fromkeys(ids)] if ids else cells


def placed(out: Path, cells: list[Cell]) -> list[tuple[Path, Cell]]:
    """(file, cell) for each: `out` itself for a single one, files in it for several."""
    from ..base.files import descriptor_of
    from ..report.hdr import tag_of

    if len(cells) == 1 and not out.is_dir():
        return [(out, cells[0])]
    if descriptor_of(out) is not None or (out.exists() and not out.is_dir()) or out.suffix:
        raise UsageError(f"--hgrm: {out} would be one file, and there are {len(cells)} cells. Name a directory, or one --cell.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as refusal:
        raise UsageError(f"--hgrm: make {out}: {refusal.strerror}.") from refusal
    return [(out / f"{tag_of(item).replace('/', '_')}.hgrm", item) for item in cells]


def write(path: Path, text: str) -> None:
    """Write atomically, over whatever was exported there before."""
    from ..base.files import descriptor_of, write_atomically

    try:
        write_atomically(path, text.encode())
    except OSError as refusal:
        raise UsageError(f"write {path}: {refusal.strerror}. Name another place.") from refusal
    if descriptor_of(path) is None:
        print(f"saved: {path}", file=sys.stderr)
