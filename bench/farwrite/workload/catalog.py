"""A profile by its name or path: shipped, a TOML file, or a fio job file that is translated."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ..base.errors import UsageError, nearest
from ..base.files import workloads_directory
from ..base.user_file import TEXT_BYTES_MAX, read_file, read_text
from .fio.translate import translate
from .profile import parse
from .tables import Profile
from .toml_reader import Change


def load(name: str, changes: Iterable[Change] = ()) -> Profile:
    """The profile of this name or path, with `key=value` changes; UsageError with line and nearest key when it is wrong."""
    path = find(name)
    if is_fio_job(path):
        return translate(path, changes).profile
    return parse(read_text(path, "read the profile", TEXT_BYTES_MAX), str(path), changes)


def find(name: str) -> Path:
    """The file of a shipped profile, or a path as it is."""
    path = Path(name)
    if name.endswith((".toml", *FIO_SUFFIXES)) or "/" in name:
        if not is_there(path):
            raise UsageError(f"There is no profile {name}.")
        return path
    ours = workloads_directory() / f"{name}.toml"
    if is_file(ours):
        return ours
    if is_file(path):
        return path
    raise UsageError(f'There is no profile "{name}"{nearest(name, shipped())}.')


FIO_SUFFIXES = (".fio", ".job")
SECTION = re.compile(r"^\s*\[[^\[\]]+\]\s*$", re.MULTILINE)
FIO_OPTION = re.compile(r"^\s*(rw|readwrite|bs|blocksize|ioengine|size|filename|iodepth|runtime|direct)\s*=", re.MULTILINE)


def is_fio_job(path: Path) -> bool:
    """Whether a file is a fio job, by its name or by what is in it; UsageError when it is neither that nor a profile."""
    import tomllib

    if path.suffix in (".toml", *FIO_SUFFIXES):
        return path.suffix != ".toml"
    text = read_file(path, "read the profile", TEXT_BYTES_MAX).decode("utf-8", "replace")
    if SECTION.search(text) and FIO_OPTION.search(text):
        return True
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError):
        tree = {}
    if not tree.keys() & {"cell", "distance", "title"}:
        raise UsageError(f"{path} is neither a profile (a TOML file with [[cell]]) nor a fio job file.")
    return False


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except OSError:  # A name too long, a folder we may not enter.
        return False


def is_there(path: Path) -> bool:
    """Whether there is anything of that name: a pipe is read, too, and what else it is, is said when it is opened."""
    try:
        return path.exists()
    except OSError:
        return False


def shipped() -> list[str]:
    """Names of the profiles that come with farwrite."""
    return sorted(path.stem for path in workloads_directory().glob("*.toml"))
