"""`farwrite html`: write a report as one page that any browser shows, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..base.errors import EXIT_DONE, UsageError, system_error
from ..base.files import descriptor_of, write_atomically
from .output import printing
from .reports import named_each
from .values import a_report

NAME = "report.html"


def html(
    report: Annotated[Path, a_report],
    other: Annotated[Path | None, a_report] = None,
    *,
    out: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    results: Path = Path("results"),
    allow_mismatch: Annotated[list[str] | None, Parameter(negative="")] = None,
) -> int:
    """Write a report as one HTML page, with charts, that needs no network.

    Parameters
    ----------
    report
        A report.json, the directory or the id of a run, the name of a baseline, or "latest".
    other
        A second report: the page then shows what changed from the first to it. A..B says the same in one word.
    out
        The file to write; report.html beside the report by default, "-" is stdout. Only an earlier page of ours is replaced.
    results
        Directory whose earlier runs show what differs from run to run, where two runs are compared.
    allow_mismatch
        Compare although the runs differ in this, such as host. May be repeated.
    """
    from ..recording import read

    reports = named_each([report] if other is None else [report, other])
    if len(reports) > 2:
        raise UsageError(f"{len(reports)} reports: a page shows one, or what changed from one to another.")
    report, other = reports[0], reports[1] if len(reports) == 2 else None
    if allow_mismatch and other is None:
        raise UsageError("--allow-mismatch is about two reports; name the other one.")
    document = read(report)
    place = out or (report / NAME if report.is_dir() else report.with_name(NAME))
    check_place(place)

    from ..analysis import analysis_of
    from ..report.html import page_of

    analysis = analysis_of(document)
    comparison = None
    if other is not None:
        from ..analysis.change import compare
        from ..compare.figures import read_result_set, result_set_of
        from .earlier import history_beside

        base, cand = result_set_of(document, analysis, str(report)), read_result_set(other)
        comparison = compare([base], [cand], allowed=allow_mismatch or [], history=history_beside(results, base, cand))
    save(page_of(document, analysis, str(report), comparison), place)
    if descriptor_of(place) is None:
        with printing():
            print(f"saved: {place}")
    return EXIT_DONE


def check_place(place: Path, option: str = "--out") -> None:
    """Refuse to write where something lies that is not an earlier page of ours."""
    from ..report.html import MARKER_WITHIN, is_ours

    if descriptor_of(place) is not None:
        return
    if not place.parent.is_dir():
        raise UsageError(f"{option} {place}: there is no directory {place.parent}. Make it, or name another one.")
    if place.is_dir():
        raise UsageError(f"--out {place} is a directory. Name a file in it, such as {place / NAME}.")
    if not place.exists():
        return
    if not place.is_file():
        raise UsageError(f"--out {place} is not a file. Name another one.")
    try:
        with place.open("rb") as file:
            beginning = file.read(MARKER_WITHIN)
    except OSError as refusal:
        raise UsageError(f"read {place}, which is to be replaced: {refusal.strerror}.") from refusal
    if not is_ours(beginning):
        raise UsageError(f"{place} is there already and is no HTML report of farwrite. Name another file with --out.")


def save(page: bytes, place: Path) -> None:
    """Write the page atomically: the old one or the new one, never a half."""
    try:
        write_atomically(place, page)
    except OSError as refusal:
        raise system_error(f"write {place}", refusal.errno or 0) from refusal
