"""`farwrite lab`: run any command at the near end of an emulated distance, and another one at the far end; or time it there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ..base.errors import EXIT_DONE, UsageError
from .flags import Flag, Quiet, Verbose
from .link_options import NOTHING_ASKED, LinkOptions, load_link
from .output import console, print_document, printing, refuse_both

if TYPE_CHECKING:
    from ..lab.topology import Layout

WARMUPS = 2
MINUTES, MINUTES_MAX = 1.0, 1440
RUNS_MAX = 100_000


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Repetition:
    """What was typed of a measurement, unread.

    Attributes
    ----------
    runs
        With --measure: how many runs at each distance, instead of as many as fit into the time. A median needs 6, a p99 368.
    minutes
        With --measure: how long all runs may take together, 1 unless told; at least 10 runs at each distance are made.
    warmup
        With --measure: runs at each distance before those that count; 2 unless told.
    json
        With --measure: print the times and what they come to as a document.
    verbose
        With --measure: say on stderr of every round that was left out why it was.
    """

    runs: int | None = None
    minutes: float | None = None
    warmup: int | None = None
    json: Flag = False
    verbose: Verbose = False

    def refuse(self) -> None:
        """UsageError for whatever is about a measurement, where none is asked for."""
        for name in ("runs", "minutes", "warmup", "json", "verbose"):
            if getattr(self, name) not in (None, False):
                raise UsageError(f"--{name} goes with --measure, which repeats the command and times it.")

    def check(self, layout: Layout, words: list[str], sites: Path | None) -> None:
        """UsageError for what cannot be measured."""
        if sites is not None:
            raise UsageError("--measure is about one distance: it goes with --miles, --km or --rtt, not with --sites.")
        if not words:
            raise UsageError("--measure repeats a command: give it after --, such as -- psql -h $FAR -c 'select 1'.")
        if not layout.legs[0].asked.rtt_ns:
            raise UsageError("--measure compares 0 miles with a distance: give one above 0.")
        if self.runs is not None and self.minutes is not None:
            raise UsageError("--runs and --minutes both say how many runs there are: give one of the two.")
        if self.runs is not None and not 1 <= self.runs <= RUNS_MAX:
            raise UsageError(f"--runs {self.runs}: 1 to {RUNS_MAX:,} at each distance.")
        if self.minutes is not None and not 0 < self.minutes <= MINUTES_MAX:
            raise UsageError(f"--minutes {self.minutes:g}: give a number above 0, and at most {MINUTES_MAX:,}.")
        if self.warmup is not None and not 1 <= self.warmup <= RUNS_MAX:
            raise UsageError(f"--warmup {self.warmup}: at least 1, which tells how long a run takes, and at most {RUNS_MAX:,}.")


ONCE = Repetition()  # Nothing typed.


def lab(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    asked: LinkOptions = NOTHING_ASKED,
    link: Literal["auto", "netem", "ferry", "relay"] = "auto",
    far: str | None = None,
    wait_port: int | None = None,
    sites: Path | None = None,
    volume: str | None = None,
    root: Flag = False,
    accept_link_error: Flag = False,
    measure: Flag = False,
    repetition: Repetition = ONCE,
    quiet: Quiet = False,
) -> int:
    """Run a command with the network of a near site; a far site is an emulated distance away.

    Everything but the network is as it is: files, users, processes. The commands find the sites' addresses in NEAR and FAR, and
    where they are in FARWRITE_SITE. Without a command a shell is opened. Its exit code is ours; with it the lab ends, and
    everything that still runs in it.

    With --measure the command is repeated at 0 miles and at the distance, taking turns, and what a run costs at both is printed:
    percentiles with intervals, and the difference in round trips.

    Parameters
    ----------
    command
        What to run at the near site, after "--".
    link
        How the distance is emulated.
    far
        What to run at the far site, a line for the shell. It is started first; what it prints goes to standard error. If it
        fails, the near command is sent SIGTERM.
    wait_port
        Start the near command only when the far one listens on this TCP port.
    sites
        A TOML file with several sites and the links between them, instead of a distance.
    volume
        Bytes of a volume that both sites hold, such as 1g: the commands find its URI in NBD (farwrite serve has more to say).
    root
        Without root: be root in the sites, not yourself, to change their network.
    accept_link_error
        Go on although a link does not deliver what was asked; otherwise that ends with exit code 6.
    measure
        Repeat the command and time it. Its output is not shown; a run that fails ends it all with its own output and exit code.
    quiet
        Say nothing of our own on stderr but refusals.
    """
    from ..lab.topology import NEAR, read

    refuse_both(repetition.verbose, quiet)
    if sites is None:
        layout = asked.layout(far)
    elif asked != NOTHING_ASKED or far is not None:
        raise UsageError("--sites defines all links and commands: give no other option about a link with it.")
    else:
        layout = read(sites)
    if wait_port is not None and not 0 < wait_port < 65536:
        raise UsageError("--wait-port is a TCP port: 1 to 65535.")
    words = list(command) or layout.commands.get(NEAR) or []
    if volume is not None:
        if measure or sites is not None:
            raise UsageError("--volume is a volume of near and far: it goes with neither --measure nor --sites.")
        from .serve import serve_in_lab

        shell = [os.environ.get("SHELL", "/bin/sh")]
        return serve_in_lab(words or shell, asked, volume, layout, link, wait_port, root, accept_link_error, quiet)
    if measure:
        repetition.check(layout, words, sites)
    else:
        repetition.refuse()
    load_link(repetition.verbose, quiet)
    if measure:
        return measured(repetition, layout, link, words, asked.route, wait_port, root, accept_link_error, quiet)
    from ..lab.session import open_session

    return open_session(layout, link, words or [os.environ.get("SHELL", "/bin/sh")], wait_port, root, accept_link_error, quiet)


def measured(
    repetition: Repetition, layout: Layout, link: str, words: list[str], route: float, wait_port: int | None, root: bool,
    accept_link_error: bool, quiet: bool,
) -> int:  # fmt: skip
    """Repeat the command, print what it costs; answers our exit code: the command's own where a run failed."""
    from ..experiment.repeat import Asked, CommandFailedError, StoppedError, repeat
    from ..lab.session import open_to, say
    from ..progress import bar

    asked = Asked(
        command=words, leg=layout.legs[0], route_factor=route, runs=repetition.runs,
        time_s=60 * (MINUTES if repetition.minutes is None else repetition.minutes),
        warmups=WARMUPS if repetition.warmup is None else repetition.warmup, accept_error=accept_link_error,
    )  # fmt: skip
    with open_to(layout, link, root, accept_link_error, quiet) as session:
        try:
            made = repeat(session, asked, wait_port, partial(bar, repetition.verbose, quiet))
        except CommandFailedError as failed:
            say(f"{failed.what} ended with exit code {failed.code}; what it printed stands above.")
            return failed.code
        except StoppedError:
            say("interrupted before the first round was done.")
            return 128 + (session.stopped_by or 0)
    from ..analysis.command import analyse_command

    result = analyse_command(made)
    with printing():
        if repetition.json:
            print_document({"repeated": made, "result": result})
        else:
            from ..report.command import show_command

            show_command(made, result, console())
    return 128 + (session.stopped_by or 0) if made.interrupted else EXIT_DONE
