"""A profile: a workload file, validated. What to measure, at which distances, how often.

Profiles are TOML with units in the text ("4 KiB", "1 s"). Inside, the suffix of a field is its unit: the key `round` of the file
is the field `round_ns`, so a number is converted once, here. An unknown key names the nearest one; an error
names its line. `limits` is the default and the project's main job.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from . import units
from .errors import UsageError, nearest
from .shipped import workloads_directory

Arrival = Literal["closed", "fixed", "poisson"]
AddressName = Literal["sequential", "uniform", "zipf"]
ProtocolName = Literal["local", "A", "B", "C"]

# The suffix of a field is its unit; the key in the file goes without.
SUFFIXES: dict[str, Callable[[str, str], float]] = {
    "_ns": units.time_ns,
    "_bytes": units.size_bytes,
    "_per_s": units.frequency_per_s,
}


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What profiles are made of."""


class LabTable(Struct, frozen=True):
    """[lab]: the sites and what joins them."""

    link: Literal["auto", "netem", "ferry"] = "auto"
    durability: Literal["disk", "memory"] = "disk"
    near: str = ""  # directory of the near site's files; empty: where the results go
    far: str = ""
    journal_bytes: int = 64 << 20
    volume_bytes: int = 1 << 30
    congestion: str = "cubic"


class DistanceTable(Struct, frozen=True):
    """[distance]: where the far site is."""

    miles: list[float] = []
    km: list[float] = []
    route_factor: float = 1.0  # glass over straight line
    equipment_ns: int = 0  # one way, on top of the glass

    def in_miles(self) -> list[float]:
        """All distances in miles, in the order of the file."""
        return [*self.miles, *(km / units.KM_PER_MILE for km in self.km)]


class RunTable(Struct, frozen=True):
    """[run]: how often and how long."""

    rounds: int = 5
    round_ns: int = units.NS_PER_S
    survey_echoes: int = 30
    floor_flushes: int = 60
    retries: int = 2  # of a round whose link was not what it claimed
    steal_max: float = 0.05  # share of processor time taken by the host above which a round is set aside


class SizeShare(Struct, frozen=True):
    """One size of a mix."""

    block_bytes: int
    share: float = 1.0


class CellTable(Struct, frozen=True):
    """[[cell]]: one workload, at some distances under some protocols."""

    name: str
    protocols: list[ProtocolName]
    miles: list[float] = []  # empty: every distance of the profile
    arrival: Arrival = "closed"
    queue_depth: int = 1
    rate_per_s: float | None = None
    address: AddressName = "uniform"
    zipf_skew: float = 0.99
    block_bytes: int = 4096
    mix: list[SizeShare] = []  # instead of block: several sizes by share
    trace: str = ""  # recorded I/O instead of arrival, address and block
    time_scale: float = 1.0  # 0.5 replays a trace twice as fast


class DrillTable(Struct, frozen=True):
    """[drill]: what happens when the near site is lost."""

    kills: int = 0
    miles: float = 150.0
    protocols: list[ProtocolName] = []
    queue_depth: int = 8
    load_ns: int = 300 * units.NS_PER_MS
    cut_ns: int = 400 * units.NS_PER_MS


class Profile(Struct, frozen=True):
    """A whole workload file."""

    title: str
    distance: DistanceTable
    cell: list[CellTable]
    reason: str = ""
    lab: LabTable = LabTable()
    run: RunTable = RunTable()
    drill: DrillTable = DrillTable()


def load(name: str, changes: Iterable[str] = ()) -> Profile:
    """The profile of this name or path, with `key=value` changes; UsageError with line and nearest key when it is wrong."""
    path = find(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as refusal:
        raise UsageError(f"read the profile {path}: {refusal}") from refusal
    return parse(text, str(path), changes)


def parse(text: str, source: str = "profile", changes: Iterable[str] = ()) -> Profile:
    """A profile from its text."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as refusal:
        raise UsageError(f"{source}: {refusal}") from refusal
    reader = Reader(text, source)
    for change in changes:
        apply_change(tree, change)
    converted = reader.table(tree, Profile, ())
    try:
        profile = msgspec.convert(converted, Profile)
    except msgspec.ValidationError as refusal:
        raise UsageError(reader.place(refusal)) from refusal
    check(profile, source)
    return profile


def find(name: str) -> Path:
    """The file of a shipped profile, or a path as it is."""
    if name.endswith(".toml") or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"There is no profile {name}.")
        return path
    path = workloads_directory() / f"{name}.toml"
    if not path.is_file():
        raise UsageError(f'There is no profile "{name}"{nearest(name, shipped())}.')
    return path


def shipped() -> list[str]:
    """Names of the profiles that come with farwrite."""
    return sorted(path.stem for path in workloads_directory().glob("*.toml"))


def digest(profile: Profile) -> str:
    """Sixteen hex digits that name exactly this workload, wherever its files lie."""
    measured = msgspec.structs.replace(profile, lab=msgspec.structs.replace(profile.lab, near="", far=""))
    return hashlib.blake2b(msgspec.json.encode(measured), digest_size=8).hexdigest()


def key_of(field: str) -> str:
    """How a field is spelled in the file."""
    for suffix in SUFFIXES:
        if field.endswith(suffix):
            return field[: -len(suffix)]
    return field


class Reader:
    """Turns the file's tables into what the structs take, and says where something is wrong."""

    def __init__(self, text: str, source: str) -> None:
        self.lines = text.splitlines()
        self.source = source

    def table(self, tree: dict[str, Any], shape: type[msgspec.Struct], path: tuple) -> dict[str, Any]:
        """One table with its keys renamed to fields and its texts converted to base units."""
        if not isinstance(tree, dict):
            raise UsageError(f"{self.where(path)}: a table was expected.")
        fields = {key_of(field): field for field in shape.__struct_fields__}
        hints = typing.get_type_hints(shape)
        converted = {}
        for key, value in tree.items():
            here = (*path, key)
            if key not in fields:
                raise UsageError(f'{self.where(here)}: unknown key "{key}"{nearest(key, fields)}.')
            field = fields[key]
            converted[field] = self.value(value, field, hints[field], here)
        return converted

    def value(self, value: Any, field: str, hint: Any, path: tuple) -> Any:
        """One value in the form its field wants."""
        inner = typing.get_args(hint)
        if isinstance(hint, type) and issubclass(hint, Struct):
            return self.table(value, hint, path)
        if inner and isinstance(inner[0], type) and issubclass(inner[0], Struct) and isinstance(value, list):
            return [self.table(item, inner[0], (*path, index)) for index, item in enumerate(value)]
        for suffix, convert in SUFFIXES.items():
            if field.endswith(suffix):
                try:
                    return convert(value, self.where(path))
                except UsageError as refusal:
                    raise UsageError(str(refusal)) from None
        return value

    def where(self, path: tuple) -> str:
        """`file:line: table.key`, as well as the text tells; changes made on the command line have no line."""
        name = ".".join(str(part) for part in path)
        line = self.line_of(path)
        return f"{self.source}:{line}: {name}" if line else f"{self.source}: {name}"

    def line_of(self, path: tuple) -> int | None:
        """The line where the last key of `path` is set, counted from 1."""
        keys = [part for part in path if isinstance(part, str)]
        indices = [part for part in path if isinstance(part, int)]
        if not keys:
            return None
        wanted = keys[-1]
        header, passed = "", 0
        for number, line in enumerate(self.lines, 1):
            match = re.match(r"\s*(\[\[?)\s*([\w.\-]+)\s*\]", line)
            if match:
                header = match.group(2)
                if len(keys) > 1 and header == keys[0]:
                    passed += 1
                if header == wanted and len(keys) == 1:
                    return number
                continue
            inside = header == ".".join(keys[:-1]) and (not indices or passed == indices[0] + 1)
            if inside and re.match(rf"""\s*["']?{re.escape(wanted)}["']?\s*=""", line):
                return number
        return None

    def place(self, refusal: msgspec.ValidationError) -> str:
        """A validation error in our words, with the line of the key it is about."""
        text = str(refusal)
        match = re.search(r" - at `\$\.?(.*)`$", text)
        if not match:
            return f"{self.source}: {text}"
        path: list[str | int] = []
        for name, index in re.findall(r"(\w+)|\[(\d+|\.\.\.)\]", match.group(1)):
            path.append(key_of(name) if name else int(index) if index.isdigit() else 0)
        return f"{self.where(tuple(path))}: {text[: match.start()]}."


def apply_change(tree: dict[str, Any], change: str) -> None:
    """One `--set table.key=value` (`cell.NAME.key=value` for a cell, `cell.key=value` for all of them)."""
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise UsageError(f'--set {change}: write key=value, such as "run.rounds=3".')
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, last = key.strip().split(".")
    places: list[Any] = [tree]
    for table in tables:
        reached = []
        for place in places:
            if isinstance(place, list):
                reached += [item for item in place if item.get("name") == table]
            elif isinstance(place, dict):
                reached.append(place.setdefault(table, {}))
        if not reached:
            raise UsageError(f'--set {change}: there is no "{table}" here.')
        places = reached
    for place in places:
        for target in place if isinstance(place, list) else [place]:
            if not isinstance(target, dict):
                raise UsageError(f'--set {change}: "{key}" is not a table\'s key.')
            target[last] = value


def check(profile: Profile, source: str) -> None:
    """What types cannot say; UsageError for the first promise that is broken."""

    def refuse(unless: bool, sentence: str) -> None:
        if not unless:
            raise UsageError(f"{source}: {sentence}")

    distances = profile.distance.in_miles()
    refuse(bool(distances), "distance.miles or distance.km must name at least one distance.")
    refuse(all(0 <= miles <= 15_000 for miles in distances), "a distance must lie between 0 and 15 000 miles.")
    refuse(1.0 <= profile.distance.route_factor <= 10, "distance.route_factor is glass over straight line: 1 to 10.")
    refuse(profile.distance.equipment_ns >= 0, "distance.equipment must not be negative.")
    refuse(1 <= profile.run.rounds <= 1000, "run.rounds must lie between 1 and 1000.")
    refuse(profile.run.round_ns >= 50 * units.NS_PER_MS, "run.round must last at least 50 ms.")
    refuse(5 <= profile.run.survey_echoes <= 10_000, "run.survey_echoes must lie between 5 and 10 000.")
    refuse(5 <= profile.run.floor_flushes <= 10_000, "run.floor_flushes must lie between 5 and 10 000.")
    refuse(0 <= profile.run.retries <= 20, "run.retries must lie between 0 and 20.")
    refuse(profile.lab.journal_bytes >= 16 << 20, "lab.journal must be at least 16 MiB.")
    refuse(profile.lab.volume_bytes >= 16 << 20, "lab.volume must be at least 16 MiB.")
    refuse(bool(profile.cell), "at least one [[cell]] is needed.")
    names = [cell.name for cell in profile.cell]
    refuse(len(set(names)) == len(names), "every cell needs a name of its own.")
    for cell in profile.cell:
        check_cell(cell, distances, refuse)
    refuse(0 <= profile.drill.kills <= 1000, "drill.kills must lie between 0 and 1000.")


def check_cell(cell: CellTable, distances: list[float], refuse: Callable[[bool, str], None]) -> None:
    """The promises of one cell."""
    name = f'cell "{cell.name}"'
    refuse(re.fullmatch(r"[\w\-]+", cell.name) is not None, f"{name}: a name is letters, digits, _ and -.")
    refuse(bool(cell.protocols), f"{name}: protocols must name at least one of A, B, C or local.")
    refuse(1 <= cell.queue_depth <= 4096, f"{name}: queue_depth must lie between 1 and 4096.")
    refuse(cell.arrival == "closed" or bool(cell.trace) or (cell.rate_per_s or 0) > 0,
           f'{name}: arrival "{cell.arrival}" needs a rate, such as rate = "500 /s".')  # fmt: skip
    refuse(cell.time_scale > 0, f"{name}: time_scale must be above 0.")
    refuse(0 <= cell.zipf_skew <= 10, f"{name}: zipf_skew must lie between 0 and 10.")
    for size in [cell.block_bytes, *(item.block_bytes for item in cell.mix)]:
        refuse(512 <= size <= 1 << 20 and size % 512 == 0,
               f"{name}: a block is a multiple of 512 B from 512 B to 1 MiB.")  # fmt: skip
    refuse(all(item.share > 0 for item in cell.mix), f"{name}: a share must be above 0.")
    for miles in cell.miles:
        refuse(any(abs(miles - known) < 1e-9 for known in distances),
               f"{name}: {miles:g} miles is not among the profile's distances.")  # fmt: skip
