"""Ctrl-C and SIGTERM: KeyboardInterrupt where the main thread is, and a note that long work asks for.

An exception that is raised in a finalizer, or in a callback of C, is printed as ignored and lost (Python's data model,
object.__del__). A command that measures for an hour must not go on because of that.
"""

from __future__ import annotations

import signal
from typing import Any

from .errors import EXIT_INTERRUPTED, EXIT_TERMINATED

CAME: list[int] = []


def heed_signals() -> None:
    """Interruptions are raised and noted from now on; Ctrl-C where it was not ignored before, as in a shell's background jobs."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop_on)


def stop_on(number: int, frame: Any) -> None:
    """SIGTERM is an interruption like Ctrl-C."""
    CAME.append(number)
    raise KeyboardInterrupt


def go_on() -> None:
    """KeyboardInterrupt where an interruption came and its exception was lost."""
    if CAME:
        raise KeyboardInterrupt


def exit_code() -> int:
    """Of an interrupted command: 143 after SIGTERM, 130 after Ctrl-C."""
    return EXIT_TERMINATED if signal.SIGTERM in CAME else EXIT_INTERRUPTED
