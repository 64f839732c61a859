"""What `run`, `reach` and `sweep` share: options, and once these are understood to measure, present, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ..base.documents import found_at
from ..base.errors import EXIT_DONE, UnfitError, UsageError
from ..base.interruption import exit_code
from ..base.units import counted
from ..workload.tables import Profile
from .flags import Flag, Quiet, Verbose
from .output import present, refuse_both

if TYPE_CHECKING:
    from ..experiment.run_journal import Run
    from ..recording import Report

SEEDS_MAX = 1 << 63


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Session:
    """What every run may be told beside its workload.

    Attributes
    ----------
    set_
        Change any value of the profile, such as run.rounds=3 or cell.write.queue_depth=4. May be repeated.
    seed
        What addresses, payloads, times and the order of cells are drawn from; 1 unless told.
    link
        How the distance is emulated; short for --set lab.link=...
    out
        Directory of the results; by default a new one below results/runs.
    resume
        Continue the interrupted run in this directory.
    strict
        For CI: exit with 3 when a budget of the run's own or a claim fails, with 4 when one is undecided or a cell has no good
        round.
    """

    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)] = ()
    seed: int | None = None
    link: Literal["auto", "netem", "ferry", "relay"] | None = None
    out: Path | None = None
    resume: Path | None = None
    strict: Flag = False

    def __post_init__(self) -> None:
        check_texts(self.out, self.resume)
        if self.seed is not None and not 0 <= self.seed < SEEDS_MAX:
            raise UsageError("--seed must not be negative, and below 2^63.")

    @property
    def changes(self) -> list[str]:
        """What it changes of a profile."""
        return [*self.set_, *([f'lab.link="{self.link}"'] if self.link else [])]

    def continues(self, *others: object) -> bool:
        """Whether a run is continued; UsageError when anything else was asked of it: `others`, or an option of a new run's."""
        if self.resume is None:
            return False
        if any(others) or self.changes or self.out or self.seed is not None:
            raise UsageError("--resume continues a run as it was begun; it goes with --json, --full, --strict, -v and -q only.")
        return True


def check_texts(*words: object) -> None:
    """UsageError for a word that a recording could not hold."""
    from ..workload.toml_reader import is_text

    for word in words:
        if not is_text(str(word)):
            raise UsageError(f"{str(word)!r} is not text, and a recording holds text only. Rename it.")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Showing:
    """What a measuring command prints: where the document goes, and how much is said meanwhile.

    Attributes
    ----------
    full
        Print the whole report, not only its first screen; "farwrite show --full" prints it later.
    json
        Print the report document instead of the report.
    verbose
        Say on stderr of every round that was void or failed why it was.
    quiet
        Say nothing on stderr but refusals.
    """

    full: Flag = False
    json: Flag = False
    verbose: Verbose = False
    quiet: Quiet = False

    def __post_init__(self) -> None:
        refuse_both(self.verbose, self.quiet)


NEW, PLAIN = Session(), Showing()  # What nobody said anything of.


def measured(
    profile: Profile | None, name: str, session: Session, showing: Showing, notes: Sequence[str] = (),
    execute: Callable[[Run], Report] | None = None,
) -> int:  # fmt: skip
    """A new run of a profile, or the one in `session.resume` continued; the report is presented, and the exit code answered.

    `name` is the profile's; of a run that is continued it may be empty, otherwise it must be its name.
    """
    # Wrong words have been refused by now; what follows takes a second to load.
    from ..report.live import region

    with region(showing.verbose, showing.quiet) as progress:
        progress.doing("loading the engine")
        if execute is None:
            from ..experiment.compilation import compile_all

            compile_all(progress)
        from ..experiment import outcome, run  # Not before: a kernel is compiled where its module is imported.
        from ..experiment import run_journal as runs
        from ..recording import REPORT_NAME

        if session.resume is not None:
            made = runs.resume(session.resume, progress, name)
        else:
            assert profile is not None
            seed = 1 if session.seed is None else session.seed
            made = runs.begin(profile, name, seed, runs.directory_for(session.out, name), progress)
            made.notes += notes
        if made.workers and execute is None:
            raise UsageError(f"{made.directory} was spread over machines: continue it with farwrite sweep --resume and --dask.")
        try:
            report = (execute or run.execute)(made)
        except UnfitError as unfit:
            if made.awake is None:  # No lab was opened: what hinders it hinders the next one too.
                raise
            kept = f"{counted(len(made.rounds), 'round')} {'is' if len(made.rounds) == 1 else 'are'} kept"
            raise UnfitError(f"{unfit} {kept}; go on with: farwrite run --resume {made.directory}") from unfit
    present(report, showing.json, showing.full)
    if not showing.quiet:
        print(f"saved: {found_at(made.directory / REPORT_NAME)}", file=sys.stderr)
    refusal = outcome.outcome(report, session.strict)
    if refusal is not None:
        raise refusal
    if report.recording.interrupted:
        print(f"continue with: farwrite run --resume {made.directory}", file=sys.stderr)
        return exit_code()
    return EXIT_DONE
