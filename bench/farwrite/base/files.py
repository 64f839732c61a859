"""Files written whole: the old one or the new one, never a half, and nothing left behind by a failure.

One guard for everything that writes a file somebody named: `ordinary` answers what is replaced, and refuses devices, FIFOs
and sockets, also behind links. What is open already is written into instead: `-` and /dev/stdout, and /dev/fd/N.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

from .errors import UsageError

STDOUT = "-"
OPEN_ALREADY = {STDOUT: 1, "/dev/stdout": 1, "/dev/stderr": 2}
DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d{1,9})")
KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file beside its place and move it there once it is durable; into what is open already, at once.

    OSError as the system answers; UsageError where something lies that is no ordinary file.
    """
    descriptor = descriptor_of(path)
    if descriptor is not None:
        write_into(descriptor, data)
        return
    place = ordinary(path)
    import tempfile  # 10 ms that only who writes should wait for.

    descriptor, name = tempfile.mkstemp(prefix=".farwrite-", dir=place.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(place)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def descriptor_of(path: Path) -> int | None:
    """The descriptor that a path names, where it names one that is open already: `-`, /dev/stdout, /dev/fd/63."""
    text = str(path)
    match = DESCRIPTOR.fullmatch(text)
    return int(match.group(1)) if match else OPEN_ALREADY.get(text)


def ordinary(path: Path) -> Path:
    """The file that writing to a path makes or replaces: itself, or what its links lead to. UsageError when there is none.

    Renaming a file over a device node, a FIFO or a socket would remove it, and as root nothing else forbids that.
    OSError where the system does not let us look. A directory is left to it: it takes no file's place.
    """
    place = Path(os.path.realpath(path))
    try:
        kind = stat.S_IFMT(place.stat().st_mode)
    except FileNotFoundError:
        return place
    if kind in KINDS:
        through = f" (by way of {path})" if str(place) != os.path.abspath(path) else ""  # noqa: PTH100
        raise UsageError(
            f'{place}{through} is {KINDS[kind]} and no ordinary file, so it is not written. Name another file, or "-" for stdout.'
        )
    return place


def write_into(descriptor: int, data: bytes) -> None:
    """All of it into what is open already, behind what was printed. A reader who stops early has read enough."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BrokenPipeError:
            return


def workloads_directory() -> Path:
    """The folder `workloads`, with the shipped profiles and below it `traces`."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "workloads", package.parents[1] / "workloads"):
        if place.is_dir():
            return place
    raise UsageError(f"The shipped workloads are missing in {package}. Install farwrite again, or name a file by path.")
