"""Ctrl-C, SIGTERM and a terminal that is closed (SIGHUP): KeyboardInterrupt where the main thread is, and a note that long work
asks for.

An exception that is raised in a finalizer, or in a callback of C, is printed as ignored and lost (Python's data model,
object.__del__). A command that measures for an hour must not go on because of that.
"""

from __future__ import annotations

import signal
from typing import Any

from .errors import EXIT_HUNG_UP, EXIT_INTERRUPTED, EXIT_TERMINATED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

CAME: list[int] = []


def heed_signals() -> None:
    """Interruptions are raised and noted from now on; those excepted that were ignored before, as Ctrl-C is in
    a shell's background jobs and SIGHUP under nohup."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop_on)


def stop_on(number: int, frame: Any) -> None:
    """SIGTERM and SIGHUP are interruptions like Ctrl-C."""
    CAME.append(number)
    raise KeyboardInterrupt


def go_on() -> None:
    """KeyboardInterrupt where an interruption came and its exception was lost."""
    if CAME:
        raise KeyboardInterrupt


def exit_code() -> int:
    """Of an interrupted command: 143 after SIGTERM, 129 after SIGHUP, 130 after Ctrl-C."""
    if signal.SIGTERM in CAME:
        return EXIT_TERMINATED
    return EXIT_HUNG_UP if signal.SIGHUP in CAME else EXIT_INTERRUPTED
