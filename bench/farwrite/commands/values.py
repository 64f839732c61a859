"""What a shell may complete a value with: names of reports, profiles, metrics and traces; paths where none of them is meant.

`Annotated[Path, a_report]` in a command is all that is needed. Asked at each press of the key: nothing heavy is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from ..base.documents import named_below
from .reports import LATEST, RESULTS, runs_below

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext

PATHS_MAX = 200  # More are not read by anybody.


def with_paths(names: Iterable[str], typed: str) -> list[str]:
    """The names that begin so; paths where a path is typed, or no name begins so."""
    found = [name for name in names if name.startswith(typed)]
    return found if found and "/" not in typed else [*found, *paths(typed)]


def paths(typed: str) -> list[str]:
    """Files and directories whose path begins so, the latter with a slash behind."""
    directory, _, beginning = typed.rpartition("/")
    place = Path(f"{directory}/" if directory or typed.startswith("/") else ".").expanduser()
    before = typed[: len(typed) - len(beginning)]
    try:
        with os.scandir(place) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries if entry.name.startswith(beginning))
    except OSError:
        return []
    shown = [name + "/" * is_dir for name, is_dir in found if beginning.startswith(".") or not name.startswith(".")]
    return [before + name for name in shown[:PATHS_MAX]]


def reports(context: CompletionContext) -> list[str]:
    """Whatever `commands/reports.py` takes for a report; behind A.. the other one."""
    typed = context.incomplete
    runs = [path.name for path in reversed(runs_below(experiments=True))]
    kept = list(named_below(RESULTS / "baselines"))
    names = [*([LATEST] if runs else []), *kept, *runs]
    base, dots, _ = typed.rpartition("..")
    if dots and base and not base.endswith("/"):
        return [name for name in (f"{base}..{name}" for name in names) if name.startswith(typed)]
    return with_paths(names, typed)


def profiles(context: CompletionContext) -> list[str]:
    """Shipped profiles."""
    from ..workload.catalog import shipped

    return with_paths(shipped(), context.incomplete)


def metrics(context: CompletionContext) -> dict[str, str]:
    """Metrics of a report, with what they mean."""
    from ..analysis.figure import METRICS

    return {name: metric.meaning for name, metric in METRICS.items()}


def traces(context: CompletionContext) -> list[str]:
    """Shipped traces. The names of their files say them; `trace/` would load NumPy."""
    from ..base.files import workloads_directory

    names = sorted(path.name.partition(".")[0] for path in (workloads_directory() / "traces").iterdir())
    return with_paths(names, context.incomplete)

a_report, a_profile = Parameter(completer=reports), Parameter(completer=profiles)
a_metric, a_trace = Parameter(completer=metrics), Parameter(completer=traces)
