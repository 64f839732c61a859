"""`farwrite compare`: two reports, or several a side, and what changed between them. It judges nothing: `gate` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ..base.errors import EXIT_DONE, UsageError
from .flags import Flag
from .output import console, print_document, printing
from .reports import named, named_each
from .values import a_report

if TYPE_CHECKING:
    pass

ARMS = ("base", "cand", "again")


def compare(
    *reports: Annotated[Path, a_report],
    base: Annotated[list[Path] | None, a_report] = None,
    cand: Annotated[list[Path] | None, a_report] = None,
    again: Annotated[Path | None, a_report] = None,
    brief: Flag = False,
    results: Path = Path("results"),
    allow_mismatch: list[str] | None = None,
    margin: str = "5 %",
    markdown: Flag = False,
    csv: Flag = False,
    json: Flag = False,
) -> int:
    """Compare two reports, or several of each: what changed, and how sure that is.

    Parameters
    ----------
    reports
        BASE and CAND, or BASE..CAND: reports, ids of runs, names of baselines, "latest", or directories that hold several
        runs. Or one alone: the directory of an A/B experiment, whose arms are compared.
    base
        A run of the baseline; give it several times for several runs.
    cand
        A run of the candidate; give it several times for several runs.
    again
        The base measured a second time beside the others: what no change looks like. Found by itself in an A/B
        experiment.
    results
        Directory whose earlier runs show what differs from run to run, where each side is one run.
    brief
        Print only what changed.
    allow_mismatch
        A field in which the sides may differ, such as host or cells; give it several times for several.
    margin
        The greatest change that nobody would act on, such as "5 %".
    markdown
        Print the comparison as a table of Markdown, for a pull request.
    csv
        Print every row as CSV, for a spreadsheet: both sides and the change, each with its interval.
    json
        Print the comparison as a document.
    """
    from functools import cache

    from ..analysis.change import compare as compare_sheets
    from ..compare.figures import again_beside, read_sheet
    from .earlier import history_beside

    if markdown + csv + json > 1:
        raise UsageError("--markdown, --csv and --json each want stdout: choose one.")
    read = cache(read_sheet)  # The same file may stand on both sides.
    margin_ratio = ratio_of(margin)
    words = named_each(reports, experiments=len(reports) == 1)
    bases, cands = sides_of(tuple(words), named_each(base or []), named_each(cand or []))
    base_sheets, cand_sheets = [read(path) for path in bases], [read(path) for path in cands]
    beside = again_beside(bases[0], base_sheets[0], cand_sheets[0]) if len(bases) == 1 else None
    twin = read(named(again)) if again else beside
    one_each = len(base_sheets) == len(cand_sheets) == 1
    history = history_beside(results, base_sheets[0] if one_each else None, cand_sheets[0])
    comparison = compare_sheets(base_sheets, cand_sheets, twin, allow_mismatch or [], margin_ratio, history=history)
    with printing():
        if json:
            print_document(comparison)
        elif csv:
            from ..report.csv import rows_csv

            print(rows_csv(comparison.rows), end="")
        elif markdown:
            from ..report.markdown import comparison_markdown

            print(comparison_markdown(comparison, brief), end="")
        else:
            from ..report.comparison import show_comparison

            show_comparison(comparison, console(), brief)
    return EXIT_DONE


def ratio_of(text: str) -> float:
    """ "5 %" or "0.05" -> 0.05."""
    words = text.strip()
    try:
        value = float(words.removesuffix("%")) / (100 if words.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise UsageError(f'--margin "{text}" is no share between 0 and 1: write it as "5 %" or 0.05.')
    return value


# Which files are meant


def sides_of(reports: tuple[Path, ...], base: list[Path], cand: list[Path]) -> tuple[list[Path], list[Path]]:
    """(files of the baseline, files of the candidate)."""
    if base or cand:
        if reports:
            raise UsageError(
                f"{reports[0]} belongs to neither side: give two reports, or each one with --base or --cand."
            )
        if not (base and cand):
            raise UsageError(f"--{'cand' if base else 'base'} is missing: give one or several runs for each side.")
        return [run for path in base for run in runs_of(path)], [run for path in cand for run in runs_of(path)]
    if len(reports) == 1:
        if not is_experiment(reports[0]):
            raise UsageError(
                f"{reports[0]} alone is nothing to compare: give a second report, or the directory of an A/B experiment "
                "with base and cand in it."
            )
        return [reports[0] / "base"], [reports[0] / "cand"]
    if len(reports) != 2:
        raise UsageError(
            f"{len(reports) or 'no'} reports: give BASE and CAND, or several of each with --base and --cand."
        )
    return runs_of(reports[0]), runs_of(reports[1])


def runs_of(path: Path) -> list[Path]:
    """The runs a path means: itself, or those in the directory it is."""
    from ..compare.figures import REPORT_NAMES, holds_report

    if not path.is_dir() or holds_report(path):
        return [path]
    if is_experiment(path):
        raise UsageError(f"{path} is an A/B experiment: compare its arms by giving it alone, or say {path / 'cand'}.")
    runs = sorted(entry for entry in path.iterdir() if holds_report(entry))
    if not runs:
        raise UsageError(f"{path} is a directory without a {' or '.join(REPORT_NAMES)}, and so are the directories in it.")
    return runs


def is_experiment(path: Path) -> bool:
    """Whether a directory is that of an A/B experiment: an arm in each of base and cand."""
    from ..compare.figures import holds_report

    return path.is_dir() and not holds_report(path) and all(holds_report(path / arm) for arm in ARMS[:2])
