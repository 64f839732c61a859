"""`farwrite ab`: two versions, profiles or settings side by side in one lab, and the base twice."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ..base.documents import found_at
from ..base.errors import EXIT_DONE, EXIT_UNFIT, UsageError
from ..base.interruption import exit_code
from .flags import Flag, Quiet, Verbose
from .measuring import SEEDS_MAX, check_texts
from .output import refuse_both
from .values import a_profile

if TYPE_CHECKING:
    from ..experiment.ab.arm import Arm, ArmName
    from ..recording import Report

PAIRS_MIN, PAIRS_MAX = 3, 500


def ab(
    base: Annotated[str, a_profile],
    cand: Annotated[str, a_profile],
    /,
    *,
    profile: Annotated[str, a_profile] = "quick",
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    set_base: Annotated[list[str] | None, Parameter(name="--set-base", negative="")] = None,
    set_cand: Annotated[list[str] | None, Parameter(name="--set-cand", negative="")] = None,
    pairs: int = 3,
    duration: str | None = None,
    seed: int = 1,
    link: Literal["auto", "netem", "ferry", "relay"] | None = None,
    out: Path | None = None,
    json: Flag = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Run two versions, profiles or settings side by side in one lab and compare them.

    Each of the two is a profile (by name or path), git:REVISION of the repository here, or the path of another farwrite.
    The base is measured twice, so that it is known what no difference looks like. Drills are not run.

    Parameters
    ----------
    base
        What is compared against: a profile, git:REVISION, or the path of a farwrite.
    cand
        What is compared, in the same words.
    profile
        What a revision or another farwrite measures.
    set_
        Change one value of the profile of both, such as cell.write.queue_depth=4. May be repeated.
    set_base
        The same for the base alone.
    set_cand
        The same for the candidate alone.
    pairs
        Pairs of rounds of each arm and cell; multiples of 3 give each arm each place in the order equally often.
    duration
        Length of each round, such as "2 s"; short for --set run.round=...
    seed
        What addresses, payloads, times and all orders are drawn from.
    link
        How the distance is emulated; short for --set lab.link=...
    out
        Directory of the three reports; by default a new one below results/runs.
    json
        Print the comparison as a document.
    verbose
        Say on stderr of every round that was void or failed why it was.
    quiet
        Say nothing on stderr but refusals.
    """
    refuse_both(verbose, quiet)
    check(pairs, seed, (base, cand, profile, str(out)), [*(set_ or []), *(set_base or []), *(set_cand or [])])
    common = list(set_ or [])
    common += [f'run.round="{duration}"'] if duration else []
    common += [f'lab.link="{link}"'] if link else []
    arms = arms_of((base, common + (set_base or [])), (cand, common + (set_cand or [])), profile, pairs)

    # Wrong words have been refused by now; what follows takes a second to load.
    from ..progress import bar

    with bar(verbose, quiet) as progress:
        progress.doing("loading the engine")
        from ..experiment.compilation import compile_all

        compile_all(progress)
        from ..experiment import run_journal as runs
        from ..experiment.ab.experiment import Experiment, execute

        directory = runs.directory_for(out, "ab")
        reports = execute(Experiment(arms, pairs, seed, directory, progress))
    return presented(reports, directory, json, quiet)


def check(pairs: int, seed: int, words: Iterable[str], changes: Iterable[str]) -> None:
    """UsageError for what cannot be measured or stored."""
    check_texts(*words)
    if not PAIRS_MIN <= pairs <= PAIRS_MAX:
        raise UsageError(f"--pairs must lie between {PAIRS_MIN} and {PAIRS_MAX}: fewer give no error.")
    if not 0 <= seed < SEEDS_MAX:
        raise UsageError("--seed must not be negative, and below 2^63.")
    for change in changes:
        if change.partition("=")[0].strip() == "run.rounds":
            raise UsageError(f"--set {change}: --pairs sets the number of rounds here.")


def arms_of(base: tuple[str, list[str]], cand: tuple[str, list[str]], profile: str, pairs: int) -> list[Arm]:
    """Base, candidate and the base again, from the word of each and its changes; UsageError where they cannot share a lab."""
    from ..experiment.ab.arm import arm_of
    from ..experiment.cells import cells_of

    # What a recording's profile says is what was done: two rounds a pair, and no drill.
    done = [f"run.rounds={2 * pairs}", "drill.kills=0"]
    sides: dict[ArmName, tuple[str, list[str]]] = {"base": base, "cand": cand, "again": base}
    arms = [arm_of(name, word, profile, changes, done) for name, (word, changes) in sides.items()]
    if arms[0].profile.lab.link != arms[1].profile.lab.link:
        raise UsageError("The arms ask for different links, and there is one for all: say --link.")
    if arms[0].profile.link != arms[1].profile.link:
        raise UsageError("The arms ask different things of the link ([link]), and there is one for all.")
    if arms[0].profile.link.schedule:
        raise UsageError("farwrite ab cannot follow link.schedule: each arm's load begins in its own process. Use farwrite run.")
    for arm in arms[:2]:
        cells_of(arm.profile)  # A trace that cannot be read is refused before anything is compiled.
    return arms


def presented(reports: dict[ArmName, Report], directory: Path, json: bool, quiet: bool) -> int:
    """Say where the reports are, print the comparison; answers the exit code."""
    from ..experiment.ab.experiment import outcome_of
    from ..recording import REPORT_NAME

    for name in () if quiet else reports:
        print(f"saved: {found_at(directory / name / REPORT_NAME)}", file=sys.stderr)
    refusal = outcome_of(reports)
    if refusal is None or refusal.exit_code != EXIT_UNFIT:  # Without one good round there is nothing to compare.
        from .compare import compare

        compare(directory, json=json)
    if refusal is not None:
        raise refusal
    if any(report.recording.interrupted for report in reports.values()):
        return exit_code()
    return EXIT_DONE
