"""The file format: sections of options, `[global]` ones for the jobs that follow, and files that include others.

HOWTO.rst of fio, "Job file format". Every option keeps the file and line it stands in, for refusals.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError

INCLUDES_MAX = 16  # As fio.
BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class Option:
    """One line of a section; an option without "=" has the value "1", as fio reads it."""

    name: str
    value: str
    place: str  # "file:line"


@dataclass
class Section:
    """A job: its own options after those of the globals above it; the last of a name counts."""

    name: str
    place: str
    options: dict[str, Option] = field(default_factory=dict)


def read(path: Path) -> str:
    """The text of a job file."""
    try:
        if path.stat().st_size > BYTES_MAX:
            raise UsageError(f"{path} is larger than 1 MiB: this is no job file.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as refusal:
        raise UsageError(f"read the job file {path}: {refusal}.") from refusal


def sections_of(text: str, path: Path) -> list[Section]:
    """The jobs of a file, in its order."""
    found: list[Section] = []
    common: dict[str, Option] = {}
    walk(text, path, found, common, None, 0)
    if not found:
        raise UsageError(f"{path}: no job in it; a job is a [name] and its options.")
    return found


def walk(
    text: str, path: Path, found: list[Section], common: dict[str, Option], open_options: dict[str, Option] | None, depth: int
) -> dict[str, Option] | None:
    """Read one file into `found` and `common`; answers the options of the section that is still open."""
    for number, line in enumerate(text.splitlines(), 1):
        place = f"{path}:{number}"
        words = line.strip()
        if not words or words[0] in "#;":
            continue
        header = re.fullmatch(r"\[([^\]]+)\]\s*(?:[#;].*)?", words)
        if header:
            name = header.group(1).strip()
            if name == "global":
                open_options = common
            else:
                found.append(Section(name, place, dict(common)))
                open_options = found[-1].options
            continue
        included = re.fullmatch(r"include\s+(\S+)", words)
        if included:
            if depth >= INCLUDES_MAX:
                raise UsageError(f"{place}: files include each other more than {INCLUDES_MAX} deep.")
            other = path.parent / included.group(1)
            open_options = walk(read(other), other, found, common, open_options, depth + 1)
            continue
        if open_options is None:
            raise UsageError(f'{place}: "{words}" stands before the first [section].')
        name, equals, value = re.sub(r"\s+[#;].*$", "", words).partition("=")
        name = name.strip().lower()
        open_options[name] = Option(name, expanded(value.strip(), place) if equals else "1", place)
    return open_options


def expanded(value: str, place: str) -> str:
    """The value with ${VARIABLES} of the environment in their places."""

    def variable(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise UsageError(f"{place}: the environment has no variable {name}.")
        return os.environ[name]

    known = {"$ncpus": os.cpu_count() or 1, "$pagesize": 4096}
    for word, number in known.items():
        value = value.replace(word, str(number))
    return re.sub(r"\$\{(\w+)\}", variable, value)
