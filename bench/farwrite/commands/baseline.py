"""`farwrite baseline promote` and `farwrite baseline list`: keep a run for others to be held against."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App

from ..base.errors import EXIT_DONE
from .examples import below
from .flags import Flag
from .output import console, printing
from .reports import meant_by
from .values import a_report

if TYPE_CHECKING:
    from ..recording import Recording

baseline = App(name="baseline", help_epilogue=below("baseline"))


@baseline.command(help_epilogue=below("baseline promote"))
def promote(
    run: Annotated[str, a_report],
    *,
    name: str | None = None,
    results: Path = Path("results"),
    force: Flag = False,
) -> int:
    """Keep a run's report as a baseline, analysed anew.

    Parameters
    ----------
    run
        A report.json, the directory of a run, the id of a run below the results, or "latest".
    name
        What it is called; by default as its profile.
    results
        Directory in whose baselines it is kept.
    force
        Keep it even though it was interrupted, lost writes, or has cells on which no verdict may rest.
    """
    from ..compare import baseline as baselines

    done = baselines.promote(str(meant_by(Path(run), results=results) or run), name, results, force)
    with printing():
        print(f"{baselines.readable(done.kept.path)}: {in_words(done.kept.recording)}")
        for reason in done.against:
            print(f"  kept nevertheless: {reason}")
        if done.replaced:
            print(f"  replaced {in_words(done.replaced.recording)}")
        elif done.unreadable:
            print(f"  replaced what could not be read: {done.unreadable}")
        for difference in done.unlike:
            print(f"  unlike the one it replaced in {difference}")
    return EXIT_DONE


@baseline.command(name="list", help_epilogue=below("baseline list"))
def list_(*, results: Path = Path("results")) -> int:
    """List the baselines that are kept.

    Parameters
    ----------
    results
        Directory whose baselines are listed.
    """
    from rich.table import Table

    from ..compare.baseline import baselines, readable
    from ..compare.figures import identity_of
    from ..report.page import Form, Page, add_row, table_of

    kept, unreadable = baselines(results)
    for refusal in unreadable:
        print(f"farwrite: passed over: {refusal}", file=sys.stderr)
    with printing():
        if not kept:
            print(f'No baseline in {readable(results / "baselines")}. "farwrite baseline promote RUN" keeps one.')
            return EXIT_DONE

        def make(form: Form) -> Table:
            table = table_of(form, "name", "run", "started", "link", text_columns=4)
            for one in kept:
                recording = one.recording
                add_row(table, one.name, recording.id, recording.started_utc[:10], recording.lab.link)
            return table

        page = Page(console())
        page.table(make)
        for host in dict.fromkeys(identity_of(one.recording)["host"] for one in kept):
            names = [one.name for one in kept if identity_of(one.recording)["host"] == host]
            page.prose(f"{', '.join(names)}: on {host}", style="dim")
    return EXIT_DONE


def in_words(recording: Recording) -> str:
    """Which run it is, and when it was."""
    return f"run {recording.id} of {recording.started_utc}, profile {recording.profile_name}"
