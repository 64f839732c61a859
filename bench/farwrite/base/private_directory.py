"""Where code is kept between runs: a directory that nobody but its user, and root, can put anything into.

Numba unpickles what it finds in its cache, and unpickling runs what stands there: whoever can write in the cache, or can put
another directory in its place, runs code as us. `private_directory` answers the first of the places it is given that is safe,
otherwise a new one that goes with this process. jit.py asks before Numba is imported, so only the standard library is used.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import grp
import os
import pwd
import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .errors import UnfitError

LINKS_MAX = 40  # In one path, as the kernel follows them; path_resolution(7).
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")  # Where a directory whose name nobody can know is made.


def private_directory(places: Iterable[Path], name: str, what: str) -> Path:
    """The first of these directories that is safe and can be written, made where it is missing; otherwise a new one of this name.

    A place where others could put something is passed over, and so is said on stderr, with what to do about it; `what` are the
    words for what is kept there. UnfitError where there is no safe place at all.
    """
    refused: list[str] = []
    for place in map(Path.absolute, places):
        try:
            reason = why_untrusted(place)
            if not reason:
                make_private(place)
                reason = why_untrusted(place)
            if not reason and not os.access(place, os.W_OK | os.X_OK):
                continue
        except OSError:
            continue
        if reason:
            refused.append(reason)
            continue
        if refused:
            say(f"{what} are not kept where others could put code of theirs: {'; '.join(refused)}. {place} is used instead.")
        return place
    made = fresh(name)
    why = f"are not kept where others could put code of theirs: {'; '.join(refused)}" if refused else (
        "can be kept nowhere: name a directory of your own that can be written with XDG_CACHE_HOME"
    )  # fmt: skip
    say(f"{what} {why}. This run makes its own, which takes a minute or two, and removes them at its end.")
    return made


def say(sentence: str) -> None:
    """On stderr, for whoever started this."""
    print(f"farwrite: {sentence}", file=sys.stderr)


def fresh(name: str) -> Path:
    """A new directory of this name in one whose name nobody can know, removed when this process ends. UnfitError without one."""
    tried = list(dict.fromkeys([tempfile.gettempdir(), *TEMPORARY]))
    for parent in tried:
        try:
            made = Path(tempfile.mkdtemp(prefix="farwrite-", dir=parent))
        except OSError:
            continue
        if not why_untrusted(made):
            atexit.register(remove, made, os.getpid())
            place = made / name
            place.mkdir(mode=0o700)
            return place
        made.rmdir()
    raise UnfitError(
        f"There is no directory where only you can write; {', '.join(tried)} were tried. Name one with TMPDIR or XDG_CACHE_HOME."
    )


def remove(made: Path, pid: int) -> None:
    """Remove what this process has made; its forks leave it."""
    if os.getpid() == pid:
        shutil.rmtree(made, ignore_errors=True)


def make_private(place: Path) -> None:
    """The directory, and those above it that are missing, for nobody else; one that was there already is closed to others."""
    missing = [place]
    while not os.path.lexists(missing[-1].parent):
        missing.append(missing[-1].parent)
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
    found = place.stat()
    if found.st_mode & 0o077 and found.st_uid == os.geteuid():
        place.chmod(0o700)


# Who can put something there


def why_untrusted(place: Path) -> str:
    """Who else could put files into a directory, and what to do about it; empty: nobody. One to be made is as safe as its parent.

    Every directory and every link on the way is looked at. It belongs to us or to root, and others may write in it only where
    its sticky bit keeps them from renaming what is not theirs. The directory itself is ours, and nobody else writes in it.
    OSError where we may not look.
    """
    waiting = [part for part in reversed(place.absolute().parts) if part != "/"]
    here = Path("/")
    reason = why_shared(here, here.lstat())
    links = 0
    while waiting and not reason:
        name = waiting.pop()
        if name == "..":
            here = here.parent
            continue
        step = here / name
        try:
            found = step.lstat()
        except FileNotFoundError:
            return ""
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > LINKS_MAX:
                return f"{step} is one of too many links"
            reason = why_foreign(step, found)
            target = step.readlink()
            here = Path("/") if target.is_absolute() else here
            waiting += [part for part in reversed(target.parts) if part != "/"]
        elif not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(step))
        else:
            here = step
            reason = why_shared(step, found) if waiting else ""
    return reason or why_not_ours(here, here.lstat())


def why_foreign(path: Path, found: os.stat_result) -> str:
    """Why a directory or a link cannot be relied on: it belongs to a user who is neither us nor root.

    In a user namespace root may have no number; it is then whoever owns the root of the file system.
    """
    if found.st_uid in (os.geteuid(), 0, os.lstat("/").st_uid):
        return ""
    return f"{path} belongs to {user(found.st_uid)} (name a directory of your own with XDG_CACHE_HOME)"


def why_shared(path: Path, found: os.stat_result) -> str:
    """The same of a directory on the way, in which others could put another directory in the place of ours."""
    if is_written_by_others(found) and not found.st_mode & stat.S_ISVTX:
        return f"others can write in {path}, mode {stat.S_IMODE(found.st_mode):o} (chmod go-w {shlex.quote(str(path))})"
    return why_foreign(path, found)


def why_not_ours(path: Path, found: os.stat_result) -> str:
    """The same of the directory itself. Where others could write, something of theirs may lie there already."""
    if found.st_uid != os.geteuid():
        return f"{path} belongs to {user(found.st_uid)} (name a directory of your own with XDG_CACHE_HOME)"
    if is_written_by_others(found):
        return f"others can write in {path}, mode {stat.S_IMODE(found.st_mode):o} (rm -r {shlex.quote(str(path))})"
    return ""


def is_written_by_others(found: os.stat_result) -> bool:
    """Whether anybody but its owner may write in a directory. The group that has its user's name and no other member is nobody
    else: with it many systems go together with a umask of 002."""
    group = bool(found.st_mode & stat.S_IWGRP) and not is_own_group(found.st_gid)
    return group or bool(found.st_mode & stat.S_IWOTH)


def is_own_group(number: int) -> bool:
    """Whether a group is the one that our user was given alone. Root needs none."""
    try:
        us, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(number)
    except KeyError:
        return False
    others = {*group.gr_mem, *(one.pw_name for one in pwd.getpwall() if one.pw_gid == number)} - {us.pw_name}
    return bool(us.pw_uid) and us.pw_gid == number and group.gr_name == us.pw_name and not others


def user(number: int) -> str:
    """A user by name, where there is one."""
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"
