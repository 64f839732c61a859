"""`farwrite run`: measure a profile and print the report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ..errors import UsageError
from .measuring import Showing, check_seed, check_texts, measured


def run(
    profile: str = "limits",
    *,
    miles: str | None = None,
    protocol: str | None = None,
    depth: str | None = None,
    size: str | None = None,
    read_share: str | None = None,
    pattern: str | None = None,
    rate: str | None = None,
    loss: str | None = None,
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
    miles
        Distances, such as 0,20,150 or 0..500 or 0..500:50 or 100km (distance.miles); every cell is measured at each.
    protocol
        Protocols of every cell, such as A,C (cell.protocols).
    depth
        Writes under way at once, such as 1,8,32 (cell.queue_depth).
    size
        Bytes of a write, such as 4k,64k (cell.block).
    read_share
        Shares of reads, such as 0,30% (cell.reads).
    pattern
        Orders of addresses, such as uniform,sequential (cell.address).
    rate
        Rate of the link, such as 1gbit (link.rate).
    loss
        Share of packets that the link loses, such as 0.01% (link.loss).
    set_
        Change any value of the profile, such as run.rounds=3 or cell.write.queue_depth=4. May be repeated.
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
    from ..options import Options
    from ..profile import Change, find, load

    check_texts(profile, out, resume)
    options = Options(miles, protocol, depth, size, read_share, pattern, rate, loss)
    asked = options.change(set_ or [])
    bent: list[str] = []
    if resume is None:
        changes: list[Change] = list(set_ or [])
        changes += [f'run.round="{duration}"'] if duration else []
        changes += [f'lab.link="{link}"'] if link else []
        changes += [f'lab.far_host="{far}"'] if far else []
        changes.append(asked)
        if profile.endswith(".fio"):
            from ..fio_job import translate

            translated = translate(find(profile), changes)
            chosen, bent = translated.profile, translated.sentences()
            if not quiet:
                print("\n".join(translated.lines()), file=sys.stderr)
        else:
            chosen = load(profile, changes)
        cells_of(chosen)  # A trace that cannot be read is refused before anything is compiled or written.
    elif set_ or duration or link or far or out or options.given():
        raise UsageError("--resume continues a run as it was begun; it goes with --json, --full, -v and -q only.")
    check_seed(seed)
    showing = Showing(json, full, verbose, quiet)
    return measured(None if resume else chosen, profile, seed, out, resume, showing, [*bent, *asked.merged])
