"""`farwrite show`, `profiles` and `schema`: print what is there already."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from ..base.errors import EXIT_DONE, UsageError, nearest
from .flags import Flag
from .output import present, print_document, printing
from .reports import named
from .values import a_report


def show(
    report: Annotated[Path, a_report],
    *,
    full: Flag = False,
    markdown: Flag = False,
    csv: Flag = False,
    json: Flag = False,
) -> int:
    """Print a report again, from its file alone.

    Parameters
    ----------
    report
        A report.json, the directory or the id of a run, the name of a baseline, or "latest".
    full
        Print the whole report: verdicts in detail, proof of link, floors, fits, drills, counts, host and method.
    markdown
        Print the answer as Markdown, for a pull request or a step summary; with --full the whole report and its tables.
    csv
        Print every figure as a row of CSV, for a spreadsheet: metric, labels, unit, value, interval, and why it is unknown.
    json
        Print the report document instead of the report.
    """
    from ..recording import read

    if markdown + csv + json > 1 or (full and (csv or json)):
        raise UsageError("--full, --markdown, --csv and --json each want stdout: choose one; --full goes with --markdown.")
    if csv:
        from ..compare.figures import read_sheet
        from ..report.csv import figures_csv

        text = figures_csv(read_sheet(named(report)).figures)
        with printing():
            print(text, end="")
        return EXIT_DONE
    found = read(named(report))
    if not markdown:
        present(found, json, full)
        return EXIT_DONE
    from ..analysis import analysis_of
    from ..analysis.answer import answer_of
    from ..report.markdown import answer_markdown, report_markdown

    analysis = analysis_of(found)
    with printing():
        if full:
            print(report_markdown(found, analysis), end="")
        else:
            print(answer_markdown(found.recording.profile.title, answer_of(found.recording, analysis)))
    return EXIT_DONE


def profiles(
    key: str = "",
    /,
    *,
    markdown: Flag = False,
) -> int:
    """List the profiles that come with farwrite, or say what a key of a profile means.

    Parameters
    ----------
    key
        A key ("rounds"), a table ("run"), or both ("run.rounds").
    markdown
        Print all keys as Markdown: docs/profile.md.
    """
    if key or markdown:
        from ..workload import profile_reference as reference

        lines = reference.page().splitlines() if markdown else reference.lines_of(key)
        if not lines:
            known = [name for item in reference.all_keys() for name in (item.name, item.path, item.table.strip("[]"))]
            raise UsageError(f'A profile has no key "{key}"{nearest(key, known)}; docs/profile.md lists all of them.')
        with printing():
            print("\n".join(lines))
        return EXIT_DONE
    from ..workload.catalog import load, shipped

    names = shipped()
    width = max((len(name) for name in names), default=0)
    with printing():
        for name in names:
            print(f"{name:<{width}}  {load(name).title}")
    return EXIT_DONE


def schema(what: Literal["report", "profile"] = "report", /) -> int:
    """Print the JSON Schema of the report document, or of a profile.

    An editor completes and checks the keys of a profile that begins with "#:schema FILE", where FILE holds the latter.

    Parameters
    ----------
    what
        The document that a run saves, or the TOML file that says what to measure.
    """
    if what == "report":
        from ..recording import schema as made
    else:
        from ..workload.profile_schema import schema as made
    with printing():
        print_document(made(), indent=2)
    return EXIT_DONE
