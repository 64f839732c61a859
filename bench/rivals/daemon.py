"""Somebody else's program in a site: started in its namespace, and gone with the site's process.

The functions are called in a site (Site.call); what they start dies with the process they are called in, whatever kills that.
"""

from __future__ import annotations

import array
import fcntl
import os
import subprocess
from pathlib import Path

from farwrite.base.errors import UnfitError
from farwrite.base.host.disk import preallocate
from farwrite.lab.process import die_with

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_SYNC_FL = 0x80086601, 0x40086602, 0x8  # ioctl_iflags(2)

RUNNING: dict[str, subprocess.Popen] = {}  # In a site's process, by name.


def use_congestion_control(name: str) -> None:
    """In a site: what TCP has on its routes, which is all that a program without a word for it can be given.

    Not the namespace's default: in any but the first the kernel allows only what every user may choose there, reno as a rule.
    """
    shown = subprocess.run(["ip", "route", "show"], capture_output=True, text=True, check=True).stdout
    for route in shown.splitlines():
        words = route.partition(" congctl ")[0].split()
        done = subprocess.run(["ip", "route", "replace", *words, "congctl", name], capture_output=True, text=True)
        if done.returncode:
            raise UnfitError(f"make {name} the congestion control of TCP on the route {route.strip()}: {done.stderr.strip()}.")


def make_image(path: str, size: int) -> None:
    """In a site: a new preallocated file on which every write is synchronous.

    The inode says so (chattr +S), so that a program which opens the file without O_DSYNC still answers only what is durable.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_DIRECT, 0o600)
    try:
        preallocate(descriptor, size, Path(path).parent)
        os.fsync(descriptor)
        flags = array.array("l", [0])
        fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, flags)
        flags[0] |= FS_SYNC_FL
        fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, flags)
    except OSError as refusal:
        raise UnfitError(f"make every write to {path} synchronous (chattr +S): {refusal.strerror}.") from refusal
    finally:
        os.close(descriptor)


def take_name(path: str) -> None:
    """In a site: an image that has been opened needs no name any more, and goes with who opened it."""
    Path(path).unlink(missing_ok=True)


def start(name: str, words: list[str]) -> int:
    """In a site: start a program that dies with us; answers its process number."""
    parent = os.getpid()
    made = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=lambda: die_with(parent)
    )
    RUNNING[name] = made
    return made.pid


def check(name: str) -> None:
    """In a site: UnfitError with its last words when the program has ended."""
    made = RUNNING.get(name)
    if made is None:
        raise UnfitError(f"{name} went with the site's process, which was started anew.")
    if made.poll() is not None:
        assert made.stderr is not None
        words = made.stderr.read().decode(errors="replace").strip()
        raise UnfitError(f"{made.args[0]} ended with {made.returncode}: {words or 'and said nothing'}.")  # type: ignore[index,str-bytes-safe]


def stop(name: str) -> None:
    """In a site: end a program of ours, if it runs."""
    made = RUNNING.pop(name, None)
    if made is not None:
        made.kill()
        made.wait()


def first_line(words: list[str]) -> str:
    """What a program says of its version."""
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()[0]
