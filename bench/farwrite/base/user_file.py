"""Files that a user names, opened for reading: the one place that knows their kind, their size and how long they may take.

A regular file is read as it is. A pipe, such as <(command) of a shell, is read to its end, within READ_SECONDS. A directory, a
device and a socket are refused before a byte of them is read, for a device may have no end and a pipe without a writer no
beginning. Whatever the system refuses leaves as a UsageError that says what was tried.
"""

from __future__ import annotations

import os
import select
import stat
import time
from pathlib import Path
from typing import BinaryIO

from .errors import UsageError

BYTES_MAX = 1 << 30  # A report with every round of a long run is some tens of MiB.
TEXT_BYTES_MAX = 16 << 20  # Of what people write: profiles, budgets, sites.
READ_SECONDS = 10.0  # For a pipe, from the first look to its end.
BLOCK_BYTES = 1 << 20
POLL_SECONDS = 0.05

KINDS = (
    (stat.S_ISDIR, "a directory"), (stat.S_ISCHR, "a character device"), (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"), (stat.S_ISFIFO, "a pipe"),
)  # fmt: skip


def kind_of(mode: int) -> str:
    """What a file is, in words; empty for a regular one."""
    return next((words for holds, words in KINDS if holds(mode)), "")


def descriptor_of(path: Path | str, doing: str, pipes: bool = True) -> int:
    """A descriptor to read a user's file by; the caller closes it. UsageError for what is no file, or cannot be opened.

    `doing` is the attempt in words, such as "read the report". The open itself never waits: O_NONBLOCK, open(2).
    """
    attempt = f"{doing} {path}".strip()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as refusal:
        # A device may refuse to be opened, and a socket always does; what it is says more than the errno.
        raise UsageError(f"{attempt}: {refused_kind(path) or refusal.strerror}. Name a file that can be read.") from refusal
    except ValueError as refusal:  # A null character within the name.
        raise UsageError(f"{attempt}: {refusal}. Name a file that can be read.") from refusal
    kind = kind_of(os.fstat(descriptor).st_mode)
    if kind and not (pipes and kind == "a pipe"):
        os.close(descriptor)
        raise UsageError(f"{attempt}: this is {kind}, not a file. Name a file that can be read.")
    return descriptor


def refused_kind(path: Path | str) -> str:
    """Of a file that could not be opened: what it is, where that is the reason."""
    try:
        kind = kind_of(Path(path).stat().st_mode)
    except OSError:
        return ""
    return f"this is {kind}, not a file" if kind and kind != "a pipe" else ""


def open_file(path: Path | str, doing: str) -> BinaryIO:
    """A regular file of the user's, open for reading and seeking. UsageError for anything else."""
    return os.fdopen(descriptor_of(path, doing, pipes=False), "rb")


def read_file(path: Path | str, doing: str, bytes_max: int = BYTES_MAX, seconds: float | None = None) -> bytes:
    """All bytes of a user's file. UsageError when it is no file, too large, not readable, or a pipe that does not end in time.

    `seconds` is how long it may take; READ_SECONDS unless told.
    """
    attempt = f"{doing} {path}".strip()
    descriptor = descriptor_of(path, doing)
    try:
        found = os.fstat(descriptor)
        if found.st_size > bytes_max:
            raise too_large(attempt, bytes_max)
        is_pipe = stat.S_ISFIFO(found.st_mode)
        deadline = time.monotonic() + (READ_SECONDS if seconds is None else seconds)
        parts: list[bytes] = []
        size = 0
        while part := next_block(descriptor, is_pipe, bool(parts), deadline, attempt):
            parts.append(part)
            size += len(part)
            if size > bytes_max:
                raise too_large(attempt, bytes_max)
    except OSError as refusal:
        raise UsageError(f"{attempt}: {refusal.strerror}. Name a file that can be read.") from refusal
    finally:
        os.close(descriptor)
    return b"".join(parts)


def too_large(attempt: str, bytes_max: int, form: str = "") -> UsageError:
    """The refusal of a file that holds more than what it is named for ever does."""
    from .units import format_size

    return UsageError(f"{attempt}: {form}it is larger than {format_size(bytes_max)}, more than is read of such a file.")


def next_block(descriptor: int, is_pipe: bool, begun: bool, deadline: float, attempt: str) -> bytes:
    """The next bytes; none at the end. A pipe that nobody has opened for writing yet is waited for until the deadline."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        try:
            part = os.read(descriptor, BLOCK_BYTES)
        except BlockingIOError:  # A pipe whose writer has written nothing yet.
            part = None
        if part or not is_pipe:
            return part or b""
        hung_up = any(event & select.POLLHUP for _, event in poll.poll(0))
        if part == b"" and (begun or hung_up):
            return b""
        if time.monotonic() >= deadline:
            raise UsageError(f"{attempt}: this is a pipe that did not end in time. Write it to a file, and name that.")
        poll.poll(POLL_SECONDS * 1000)
        if part == b"":
            time.sleep(POLL_SECONDS)  # Without a writer poll(2) answers at once.


def read_text(path: Path | str, doing: str, bytes_max: int = BYTES_MAX) -> str:
    """The text of a user's file, in UTF-8."""
    attempt = f"{doing} {path}".strip()
    try:
        return read_file(path, doing, bytes_max).decode("utf-8")
    except UnicodeDecodeError as refusal:
        raise UsageError(f"{attempt}: byte {refusal.start} is no UTF-8, so this is no text.") from refusal
