"""What commands print: the document on stdout, whatever becomes of its reader; and what an interruption's exit code is."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import EXIT_INTERRUPTED, EXIT_TERMINATED, system_error


def present(report: Any, json: bool, full: bool = False) -> None:
    """The report on stdout: as a document, or for a person: the first screen or all of it."""
    from ..analysis import analysis_of, answered

    with printing():
        if json:
            print_document(answered(report))
        else:
            from ..report.terminal import show as show_in_terminal

            show_in_terminal(report, analysis_of(report), console(), full)


def print_document(value: Any) -> None:
    """A value as JSON on stdout, for scripts."""
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=1).decode() + "\n")


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
