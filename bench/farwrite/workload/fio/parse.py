"""The file format: sections of options, `[global…]` ones for the jobs that follow, and files that include others.

HOWTO.rst of fio, "Job file format"; what it leaves open was tried on fio 3.33. Every option keeps the file and line it stands
in, for refusals, and its place in the order in which options were last set: a job's own come after those of the globals.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...base.errors import UsageError
from ...base.user_file import read_text

INCLUDES_DEEP_MAX = 16  # As fio.
INCLUDES_MAX = 256  # Of one job file: eight files that include one another 14 deep would be 4 * 10^12.
BYTES_MAX = 1 << 20

# fio knows an option by either name, and the later of two lines counts however it is spelt. fio --cmdhelp=all, "alias".
ALIASES = {
    "readwrite": "rw", "blocksize": "bs", "blocksize_range": "bsrange", "blockalign": "ba", "io_limit": "io_size",
    "fileoffset": "offset", "file_size": "filesize", "rate_iops_process": "rate_process", "wait_for_previous": "stonewall",
    "hipri_percentage": "hipri", "timeout": "runtime", "iodepth_batch_submit": "iodepth_batch", "nr_files": "nrfiles",
    "iodepth_batch_complete": "iodepth_batch_complete_min", "blocksize_unaligned": "bs_unaligned", "fill_fs": "fill_device",
    "iomem": "mem", "ratemin": "rate_min", "ratecycle": "rate_cycle", "disable_bw": "disable_bw_measurement",
    "ss": "steadystate", "ss_dur": "steadystate_duration", "ss_ramp": "steadystate_ramp_time",
}  # fmt: skip

# A later line that leaves a direction out, such as "bs=8k,", does not take from it what an earlier one has given.
BY_OPERATION = ("bs", "bsrange", "rate", "rate_iops")


@dataclass(frozen=True)
class Option:
    """One line of a section; an option without "=" has the value "1", as fio reads it."""

    name: str  # its proper one
    value: str
    place: str  # "file:line"
    kb_base: int = 1024  # that held in its section


@dataclass
class Section:
    """A job: its own options after those of the globals above it; of a name the last counts, and stands where it was last set."""

    name: str
    place: str
    options: dict[str, Option] = field(default_factory=dict)
    left_out: list[tuple[Option, str]] = field(default_factory=list)
    own: set[str] = field(default_factory=set)  # names that are not the globals'


def read(path: Path) -> str:
    """The text of a job file."""
    return read_text(path, "read the job file", BYTES_MAX)


def sections_of(text: str, path: Path) -> list[Section]:
    """The jobs of a file, in its order."""
    parser = Parser()
    parser.walk(text, path, 0)
    parser.close()
    if not parser.found:
        raise UsageError(f"{path}: no job in it; a job is a [name] and its options.")
    return parser.found


class HasSectionError(Exception):
    """An included file with a section of its own; `args` are the place and the line."""


class Parser:
    """Reads a job file and what it includes into `found`."""

    def __init__(self) -> None:
        self.found: list[Section] = []
        self.common: dict[str, Option] = {}
        self.open: dict[str, Option] | None = None  # Of the section that is being read.
        self.fresh: set[str] = set()  # Names that this section itself has set.
        self.left_out: list[tuple[Option, str]] = []  # By [global] sections.
        self.included = 0
        self.included_bytes = 0

    def walk(self, text: str, path: Path, depth: int) -> None:
        """One file."""
        for number, line in enumerate(text.splitlines(), 1):
            place = f"{path}:{number}"
            words = re.sub(r"[#;].*", "", line).strip()
            if not words:
                continue
            if words.startswith("["):
                if depth:
                    raise HasSectionError(place, words)
                self.begin(words, place)
                continue
            if self.open is None:
                raise UsageError(f'{place}: "{words}" stands before the first [section].')
            included = re.fullmatch(r"include\s+(\S+)", words)
            if included:
                self.include(path.parent / included.group(1), Option("include", included.group(1), place), depth + 1)
                continue
            name, equals, value = words.partition("=")
            name = name.strip()
            self.set(Option(ALIASES.get(name, name), expanded(value.strip(), place) if equals else "1", place))

    def begin(self, words: str, place: str) -> None:
        """A section's first line. fio takes every name that begins with "global" for globals."""
        if not words.endswith("]") or not words[1:-1].strip():
            raise UsageError(f'{place}: "{words}" is no section: a section is a name in brackets, such as [job].')
        self.close()
        name = words[1:-1].strip()
        if name.startswith("global"):
            self.open = self.common
            return
        self.found.append(Section(name, place, dict(self.common), list(self.left_out)))
        self.open = self.found[-1].options

    def set(self, option: Option) -> None:
        """An option, as the last that was set."""
        assert self.open is not None
        before = self.open.pop(option.name, None)
        if before is not None and option.name in BY_OPERATION:
            option = replace(option, value=filled(option.value, before.value))
        self.open[option.name] = option
        self.fresh.add(option.name)
        if self.open is not self.common:
            self.found[-1].own.add(option.name)

    def close(self) -> None:
        """The end of a section: fio reads its kb_base before the rest of it."""
        given = (self.open or {}).get("kb_base")
        if self.open is not None and given is not None:
            if given.value not in ("1000", "1024"):
                raise UsageError(f"{given.place}: kb_base={given.value}: it must be 1000 or 1024.")
            for name in self.fresh:
                self.open[name] = replace(self.open[name], kb_base=int(given.value))
        self.fresh.clear()

    def include(self, path: Path, option: Option, depth: int) -> None:
        """The options of another file, as if they stood here. fio reads none of a file that has a section."""
        if depth > INCLUDES_DEEP_MAX:
            raise UsageError(f"{option.place}: files include each other more than {INCLUDES_DEEP_MAX} deep.")
        self.included += 1
        text = read(path)
        self.included_bytes += len(text)
        if self.included > INCLUDES_MAX or self.included_bytes > BYTES_MAX:
            raise UsageError(
                f"{option.place}: this job file includes more than {INCLUDES_MAX} files, or more than 1 MiB. Include each once."
            )
        assert self.open is not None
        before, fresh = dict(self.open), set(self.fresh)
        try:
            self.walk(text, path, depth)
        except HasSectionError as found:
            if depth > 1:
                raise
            self.open.clear()
            self.open.update(before)
            self.fresh = fresh
            place, words = found.args
            how = f"left out, as fio does: an included file has options only, and {words} ({place}) is a section"
            (self.left_out if self.open is self.common else self.found[-1].left_out).append((option, how))


def filled(value: str, before: str) -> str:
    """A value a direction, "reads,writes,trims", with what it leaves out as it was set before."""
    parts, earlier = ([part.strip() for part in text.split(",")] for text in (value, before))
    if len(parts) > 3 or "" not in parts:
        return value
    earlier = (earlier + [earlier[-1]] * 2)[:3]
    return ",".join(part or other for part, other in zip([*parts, *[parts[-1]] * (3 - len(parts))], earlier, strict=True))


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
