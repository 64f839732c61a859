"""What farwrite says when the world refuses, and with which exit code it leaves.

Every error a person can meet is one of these; `cli.py` prints the sentence and exits with `exit_code`. A broken promise
inside our own code is an `assert` and ends as a crash (exit code 1).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_CRASH = 1
EXIT_USAGE = 2
EXIT_GATE_FAILED = 3
EXIT_INCONCLUSIVE = 4
EXIT_LOST_WRITE = 5
EXIT_UNFIT = 6
EXIT_HUNG_UP = 129
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class FarwriteError(Exception):
    """A refusal with a sentence: what was tried, what was answered, what to do next."""

    exit_code = EXIT_CRASH


class UsageError(FarwriteError):
    """The words, the profile, the trace or the report are not what they must be."""

    exit_code = EXIT_USAGE


class BrokenError(FarwriteError):
    """Everything ran, and something that was promised does not hold."""

    exit_code = EXIT_GATE_FAILED


class InconclusiveError(FarwriteError):
    """Everything ran, and yet the question cannot be answered."""

    exit_code = EXIT_INCONCLUSIVE


class LostWriteError(FarwriteError):
    """The system under test lost or corrupted an acknowledged write."""

    exit_code = EXIT_LOST_WRITE


class UnfitError(FarwriteError):
    """This machine, at this moment, cannot carry the experiment."""

    exit_code = EXIT_UNFIT


def error_of(exit_code: int) -> type[UsageError] | type[UnfitError]:
    """What another process of ours refused with, by the exit code that it has told."""
    return UsageError if exit_code == EXIT_USAGE else UnfitError


def system_error(attempt: str, errno: int, advice: str = "") -> UnfitError:
    """An UnfitError for a refused system call: `attempt` with the system's own words, then the advice."""
    sentence = f"{attempt}: {os.strerror(abs(errno))}."
    return UnfitError(f"{sentence} {advice}".strip())


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)`, or a list of what is known when nothing is near."""
    choices = sorted(known)
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if near:
        return f' (did you mean "{near[0]}"?)'
    return f" (known: {', '.join(choices)})" if choices else ""


def only_near(word: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)` where one is near, and nothing otherwise."""
    near = nearest(word, known)
    return near if "did you mean" in near else ""
