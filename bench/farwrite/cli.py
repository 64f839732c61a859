"""The command line: words in, typed options out, one call, one exit.

The only place that parses, prints errors and exits. Nothing heavy is imported before a command needs it: `--help`,
`profiles`, `schema` and `show` never load Numba.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from . import __version__
from .errors import (
    EXIT_CRASH,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    EXIT_USAGE,
    FarwriteError,
    UsageError,
    system_error,
)

app = App(
    name="farwrite",
    help="How far away can the second copy of a write be? Durable replicated writes, measured across emulated miles.",
    version=__version__,
    help_format="plaintext",
    help_on_error=False,
)


@app.command
def run(
    profile: str = "limits",
    *,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    duration: str | None = None,
    seed: int = 1,
    link: Literal["auto", "netem", "ferry"] | None = None,
    out: Path | None = None,
    resume: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Measure a profile and print the report.

    Parameters
    ----------
    profile
        Name of a shipped profile (see "farwrite profiles") or path of a TOML file.
    set_
        Change one value of the profile, such as run.rounds=3 or cell.write.queue_depth=4. May be repeated.
    duration
        Length of each round, such as "2 s"; short for --set run.round=...
    seed
        What addresses, payloads, times and the order of cells are drawn from.
    link
        How the distance is emulated; short for --set lab.link=...
    out
        Directory of the results; by default a new one below results/runs.
    resume
        Continue the interrupted run in this directory.
    json
        Print the report document instead of the report.
    """
    from .cells import cells_of
    from .profile import is_text, load

    for word in (profile, str(out), str(resume)):
        if not is_text(word):
            raise UsageError(f"{word!r} is not text, and a recording holds text only. Rename it.")

    if resume is None:
        changes = list(set_ or [])
        changes += [f'run.round="{duration}"'] if duration else []
        changes += [f'lab.link="{link}"'] if link else []
        chosen = load(profile, changes)
        cells_of(chosen)  # A trace that cannot be read is refused before anything is compiled or written.
    elif set_ or duration or link or out:
        raise UsageError("--resume continues a run as it was begun; it goes with no other option than --json.")
    if not 0 <= seed < 1 << 63:
        raise UsageError("--seed must not be negative, and below 2^63.")

    # Wrong words have been refused by now; what follows takes a second to load.
    from . import pipeline
    from . import run as runs
    from .progress import bar
    from .warm import compile_all

    with bar() as progress:
        progress.doing("loading the engine (compiled on first use)")
        compile_all(progress)
        if resume is not None:
            made = runs.resume(resume, progress)
        else:
            directory = runs.directory_for(out, profile, seed)
            made = runs.begin(chosen, profile, seed, directory, progress)
        report = pipeline.execute(made)
    present(report, json)
    print(f"saved: {made.directory / 'report.json'}", file=sys.stderr)
    refusal = pipeline.outcome(report)
    if refusal is not None:
        raise refusal
    if report.recording.interrupted:
        print(f"continue with: farwrite run --resume {made.directory}", file=sys.stderr)
        return interrupted_by()
    return EXIT_DONE


@app.command
def show(report: Path, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Print a report again, from its file alone.

    Parameters
    ----------
    report
        A report.json, or the directory of a run.
    json
        Print the report document instead of the report.
    """
    from .recording import read

    present(read(report), json)
    return EXIT_DONE


@app.command
def profiles() -> int:
    """List the profiles that come with farwrite."""
    from .profile import load, shipped

    names = shipped()
    width = max((len(name) for name in names), default=0)
    with printing():
        for name in names:
            print(f"{name:<{width}}  {load(name).title}")
    return EXIT_DONE


@app.command
def schema() -> int:
    """Print the JSON Schema of the report document."""
    import msgspec

    from .recording import schema as document_schema

    with printing():
        print(msgspec.json.format(msgspec.json.encode(document_schema()), indent=2).decode())
    return EXIT_DONE


def present(report: Any, json: bool) -> None:
    """The report on stdout: as a document, or for a person."""
    with printing():
        if json:
            import msgspec

            sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n")
        else:
            from .analysis import analysis_of
            from .report.terminal import show as show_in_terminal

            show_in_terminal(report, analysis_of(report), console())


@contextmanager
def printing() -> Iterator[None]:
    """What is printed inside reaches stdout. A reader who stops early has read enough; no room is an error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        abandon_stdout()
    except OSError as refusal:
        abandon_stdout()
        raise system_error("print to stdout", refusal.errno or 0) from refusal


def console() -> Any:
    """A console on stdout that leaves it to us what a closed pipe means; rich's own would exit with 1."""
    from rich.console import Console

    class Stdout(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Stdout()


def abandon_stdout() -> None:
    """Nobody reads any more, or there is no room: what is still to be printed goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


STOPPED_BY: list[int] = []


def stop_on(number: int, frame: Any) -> None:
    """SIGTERM is an interruption like Ctrl-C; remembered for the exit code."""
    STOPPED_BY.append(number)
    raise KeyboardInterrupt


def interrupted_by() -> int:
    """The exit code of an interrupted command: 143 after SIGTERM, 130 after Ctrl-C."""
    return EXIT_TERMINATED if signal.SIGTERM in STOPPED_BY else EXIT_INTERRUPTED


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, stop_on)
    try:
        code = app(sys.argv[1:], exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()  # Here, where a closed pipe is caught, and not while the interpreter ends.
    except CycloptsError as refusal:
        print(f"farwrite: {refusal}", file=sys.stderr)
        code = EXIT_USAGE
    except FarwriteError as refusal:
        print(f"farwrite: {refusal}", file=sys.stderr)
        code = refusal.exit_code
    except SystemExit as leaving:  # How rich answers to a closed pipe while it prints the help.
        code = EXIT_DONE if isinstance(leaving.__context__, BrokenPipeError) else leaving.code
        abandon_stdout()
    except KeyboardInterrupt:
        print("farwrite: interrupted before anything was measured.", file=sys.stderr)
        code = interrupted_by()
    except BrokenPipeError:
        abandon_stdout()
        code = EXIT_DONE
    except Exception:
        import traceback

        traceback.print_exc()
        print("farwrite: this is our own fault; please report it with the lines above.", file=sys.stderr)
        code = EXIT_CRASH
    sys.exit(code if isinstance(code, int) else EXIT_DONE)


if __name__ == "__main__":
    main()
