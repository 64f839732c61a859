"""What commands print: the document on stdout, whatever becomes of its reader; and what an interruption's exit code is."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..base.errors import UsageError, system_error

# For encodings that lack them: a character as wide that every encoding has.
PLAIN = {
    "✔": "+", "✘": "x", "⚠": "!", "●": "*", "·": ".", "•": "*", "µ": "u", "±": "~", "≥": ">", "≤": "<", "…": ".", "━": "-",
    "─": "-", "│": "|", "┃": "|", "╺": "-", "╸": "-", "▸": ">", "◂": "<", "→": ">", "←": "<", "█": "#", "╭": "+", "╮": "+",
    "╰": "+", "╯": "+", "\u2013": "-", "\u2019": "'", "\xd7": "x",
}  # fmt: skip
SURROGATES = range(0xD800, 0xE000)  # A byte of a file's name that is no text.


def plainer(refusal: UnicodeError) -> tuple[str, int]:
    """For an encoding that lacks a character: one as wide that it has; the bytes of a name that is no text as escapes."""
    if not isinstance(refusal, UnicodeEncodeError):
        raise refusal
    made = [PLAIN.get(one, escaped(one)) for one in refusal.object[refusal.start : refusal.end]]
    return "".join(made), refusal.end


def escaped(character: str) -> str:
    """A question mark; what a name holds that is no text as it is written in a shell."""
    return repr(character)[1:-1] if ord(character) in SURROGATES else "?"


codecs.register_error("farwrite", plainer)


def ready_streams() -> None:
    """Make all three streams such that writing to them cannot fail for a reason of ours.

    What was closed by whoever started us leads nowhere: its number would otherwise be that of the next file we open, and what
    is printed would stand in a journal. What the encoding of stdout lacks is printed plainer.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            assert nowhere == number  # The lowest number that is free.
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="farwrite")


def present(report: Any, json: bool, full: bool = False) -> None:
    """The report on stdout: as a document, or for a person: the first screen or all of it."""
    from ..analysis import analysis_of, answered

    with printing():
        if json:
            print_document(answered(report))
        else:
            from ..report.terminal import show as show_in_terminal

            show_in_terminal(report, analysis_of(report), console(), full)


def print_document(value: Any, indent: int = 1) -> None:
    """A value as JSON on stdout, for scripts: UTF-8, whatever the terminal's encoding is (RFC 8259, section 8.1)."""
    import msgspec

    print_bytes(msgspec.json.format(msgspec.json.encode(value), indent=indent) + b"\n")


def print_bytes(data: bytes) -> None:
    """Bytes on stdout, behind what was printed."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


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


def refuse_both(verbose: bool, quiet: bool) -> None:
    """UsageError for -v and -q at once."""
    if verbose and quiet:
        raise UsageError("--verbose and --quiet contradict each other: choose one.")
