"""`farwrite run`: measure a profile and print the report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ..errors import EXIT_DONE, UnfitError, UsageError
from .output import interrupted_by, present


def run(
    profile: str = "limits",
    *,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    duration: str | None = None,
    seed: int = 1,
    link: Literal["auto", "netem", "ferry", "relay"] | None = None,
    far: str | None = None,
    out: Path | None = None,
    resume: Path | None = None,
    full: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"), negative="")] = False,
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), negative="")] = False,
) -> int:
    """Measure a profile and print the report.

    Parameters
    ----------
    profile
        Name of a shipped profile (see "farwrite profiles"), or path of a TOML file or of a fio job file (.fio).
    set_
        Change one value of the profile, such as run.rounds=3 or cell.write.queue_depth=4. May be repeated.
    duration
        Length of each round, such as "2 s"; short for --set run.round=...
    seed
        What addresses, payloads, times and the order of cells are drawn from.
    link
        How the distance is emulated; short for --set lab.link=...
    far
        A machine for the far site, as ssh://host[:port][/directory]: the link to it is measured, not emulated. Short for
        --set lab.far_host=...
    out
        Directory of the results; by default a new one below results/runs.
    resume
        Continue the interrupted run in this directory.
    full
        Print the whole report, not only its first screen; "farwrite show --full" prints it later.
    json
        Print the report document instead of the report.
    verbose
        Say on stderr of every round that was void or failed why it was.
    quiet
        Say nothing on stderr but refusals.
    """
    from ..cells import cells_of
    from ..profile import find, is_text, load

    for word in (profile, str(out), str(resume)):
        if not is_text(word):
            raise UsageError(f"{word!r} is not text, and a recording holds text only. Rename it.")

    if resume is None:
        changes = list(set_ or [])
        changes += [f'run.round="{duration}"'] if duration else []
        changes += [f'lab.link="{link}"'] if link else []
        changes += [f'lab.far_host="{far}"'] if far else []
        bent: list[str] = []
        if profile.endswith(".fio"):
            from ..fio_job import translate

            translated = translate(find(profile), changes)
            chosen, bent = translated.profile, translated.sentences()
            if not quiet:
                print("\n".join(translated.lines()), file=sys.stderr)
        else:
            chosen = load(profile, changes)
        cells_of(chosen)  # A trace that cannot be read is refused before anything is compiled or written.
    elif set_ or duration or link or far or out:
        raise UsageError("--resume continues a run as it was begun; it goes with --json, --full, -v and -q only.")
    if not 0 <= seed < 1 << 63:
        raise UsageError("--seed must not be negative, and below 2^63.")

    if verbose and quiet:
        raise UsageError("--verbose and --quiet contradict each other: choose one.")

    # Wrong words have been refused by now; what follows takes a second to load.
    from ..progress import region

    with region(verbose, quiet) as progress:
        progress.doing("loading the engine")
        from ..compilation import compile_all

        compile_all(progress)
        from .. import pipeline  # Not before: a kernel is compiled where its module is imported.
        from .. import run as runs

        if resume is not None:
            made = runs.resume(resume, progress)
        else:
            directory = runs.directory_for(out, profile, seed)
            made = runs.begin(chosen, profile, seed, directory, progress)
            made.notes += bent
        try:
            report = pipeline.execute(made)
        except UnfitError as unfit:
            if not made.rounds:
                raise
            kept = f"{len(made.rounds)} rounds are kept; go on with: farwrite run --resume {made.directory}"
            raise UnfitError(f"{unfit} {kept}") from unfit
    present(report, json, full)
    if not quiet:
        print(f"saved: {made.directory / 'report.json'}", file=sys.stderr)
    refusal = pipeline.outcome(report)
    if refusal is not None:
        raise refusal
    if report.recording.interrupted:
        print(f"continue with: farwrite run --resume {made.directory}", file=sys.stderr)
        return interrupted_by()
    return EXIT_DONE
