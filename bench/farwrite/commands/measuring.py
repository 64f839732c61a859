"""What `run`, `reach` and `sweep` share once their words are understood: measure, present, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EXIT_DONE, UnfitError, UsageError
from ..profile import Profile
from .output import interrupted_by, present

if TYPE_CHECKING:
    from ..recording import Report
    from ..run import Run

SEEDS_MAX = 1 << 63


def check_seed(seed: int) -> None:
    """UsageError for a seed that cannot be."""
    if not 0 <= seed < SEEDS_MAX:
        raise UsageError("--seed must not be negative, and below 2^63.")


def check_texts(*words: object) -> None:
    """UsageError for a word that a recording could not hold."""
    from ..profile import is_text

    for word in words:
        if not is_text(str(word)):
            raise UsageError(f"{str(word)!r} is not text, and a recording holds text only. Rename it.")


@dataclass(frozen=True)
class Showing:
    """What a measuring command prints: where the document goes, and how much is said meanwhile."""

    json: bool = False
    full: bool = False
    verbose: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.verbose and self.quiet:
            raise UsageError("--verbose and --quiet contradict each other: choose one.")


def measured(
    profile: Profile | None, name: str, seed: int, out: Path | None, resume: Path | None, showing: Showing,
    notes: Sequence[str] = (), execute: Callable[[Run], Report] | None = None,
) -> int:  # fmt: skip
    """A new run of a profile, or the one in `resume` continued; the report is presented, and the exit code answered."""
    # Wrong words have been refused by now; what follows takes a second to load.
    from ..progress import region

    with region(showing.verbose, showing.quiet) as progress:
        progress.doing("loading the engine")
        if execute is None:
            from ..compilation import compile_all

            compile_all(progress)
        from .. import pipeline  # Not before: a kernel is compiled where its module is imported.
        from .. import run as runs

        if resume is not None:
            made = runs.resume(resume, progress)
        else:
            assert profile is not None
            made = runs.begin(profile, name, seed, runs.directory_for(out, name, seed), progress)
            made.notes += notes
        if made.workers and execute is None:
            raise UsageError(f"{made.directory} was spread over machines: continue it with farwrite sweep --resume and --dask.")
        try:
            report = (execute or pipeline.execute)(made)
        except UnfitError as unfit:
            if not made.rounds:
                raise
            kept = f"{len(made.rounds)} rounds are kept; go on with: farwrite run --resume {made.directory}"
            raise UnfitError(f"{unfit} {kept}") from unfit
    present(report, showing.json, showing.full)
    if not showing.quiet:
        print(f"saved: {made.directory / 'report.json'}", file=sys.stderr)
    refusal = pipeline.outcome(report)
    if refusal is not None:
        raise refusal
    if report.recording.interrupted:
        print(f"continue with: farwrite run --resume {made.directory}", file=sys.stderr)
        return interrupted_by()
    return EXIT_DONE
