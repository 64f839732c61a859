"""From the text of a TOML file to what its types take: units converted, unknown keys and wrong values named with their line."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from ..base import units
from ..base.errors import UsageError, nearest, only_near
from .link_spec import LinkDirection, LinkSpec
from .tables import Profile

# The suffix of a field is its unit; the key in the file goes without.
SUFFIXES: dict[str, Callable[[str, str], float]] = {
    "_ns": units.time_ns,
    "_bytes": units.size_bytes,
    "_bits_per_s": units.rate_bits_per_s,
    "_per_s": units.frequency_per_s,
    "_ratio": units.ratio,
}
# What changes a profile's tables before they are read: `key=value`, or a function that answers which (table, key) it has set.
Change = str | Callable[[dict[str, Any]], set[tuple[str, str]]]
Shape = TypeVar("Shape", bound=msgspec.Struct)
TIMES = {"compress_ratio", "dedupe_ratio"}  # So many times: no shares.


def unit_of(field: str) -> str:
    """The suffix that is a field's unit, empty where it has none."""
    return next((suffix for suffix in SUFFIXES if field.endswith(suffix) and field not in TIMES), "")


def key_of(field: str) -> str:
    """How a field is spelled in the file."""
    return field.removesuffix(unit_of(field))


# Of [link] itself these are of both its directions.
DIRECTION_KEYS = frozenset(key_of(field) for field in LinkDirection.__struct_fields__)


# What other tools, and our own options, call a key: spelled too differently for the nearest word to be it.
ALSO_CALLED = {
    "size": "block", "bs": "block", "blocksize": "block", "block_size": "block", "bytes": "block", "bssplit": "mix",
    "depth": "queue_depth", "iodepth": "queue_depth", "qd": "queue_depth", "threads": "queue_depth", "protocol": "protocols",
    "pattern": "address", "addresses": "address", "read_share": "reads", "read": "reads", "rwmixread": "reads", "trim": "trims",
    "flush": "flushes", "fsync": "flush_every", "fdatasync": "flush_every", "iops": "rate", "bandwidth": "rate", "bw": "rate",
    "duration": "round", "runtime": "round", "loops": "rounds", "repeats": "rounds", "distance": "miles", "delay": "extra_delay",
    "latency": "extra_delay", "thinktime": "think", "numjobs": "count", "offset": "region_begin", "tls": "encryption",
    "p90": "p99", "budget": "p99", "minutes": "time", "emulation": "link", "host": "far_host",
}  # fmt: skip


class Reader:
    """Turns the file's tables into what the structs take, and says where something is wrong."""

    def __init__(self, text: str, source: str) -> None:
        self.lines = text.splitlines()
        self.source = source
        self.changed: set[tuple[str, str]] = set()  # (first table, key) of what the command line has set

    def table(self, tree: dict[str, Any], shape: type[msgspec.Struct], path: tuple) -> dict[str, Any]:
        """One table with its keys renamed to fields and its texts converted to base units."""
        if not isinstance(tree, dict):
            raise UsageError(f"{self.where(path)}: a table was expected.")
        if shape is LinkSpec:
            tree = in_both_directions(tree)
        fields = {key_of(field): field for field in shape.__struct_fields__}
        hints = typing.get_type_hints(shape)
        converted = {}
        for key, value in tree.items():
            here = (*path, key)
            if key not in fields:
                known = [*fields, *DIRECTION_KEYS] if shape is LinkSpec else fields
                other = ALSO_CALLED.get(key)
                near = f' (did you mean "{other}"?)' if other in known else nearest(key, known)
                raise UsageError(f'{self.where(here)}: unknown key "{key}"{near}.')
            field = fields[key]
            converted[field] = self.value(value, field, hints[field], here)
        return converted

    def value(self, value: Any, field: str, hint: Any, path: tuple) -> Any:
        """One value in the form its field wants."""
        inner = typing.get_args(hint)
        if is_table(hint):
            return self.table(value, hint, path)
        if inner and is_table(inner[0]) and isinstance(value, list):
            return [self.table(item, inner[0], (*path, index)) for index, item in enumerate(value)]
        if inner and is_table(inner[0]) and isinstance(value, dict):
            return self.table(value, inner[0], path)
        unit = unit_of(field)
        if not unit:
            return value
        try:
            return SUFFIXES[unit](value, self.where(path))
        except UsageError as refusal:
            raise UsageError(str(refusal)) from None

    def place_of(self, path: tuple) -> tuple:
        """Where a key of a direction stands: in its own table, or in [link] for both."""
        shared = ("link", *path[2:])
        if path[1:2] in (("outward",), ("homeward",)) and self.line_of(path) is None and self.line_of(shared) is not None:
            return shared
        return path

    def where(self, path: tuple) -> str:
        """`file:line: table.key`, as well as the text tells."""
        return f"{self.file_and_line(path)}: {'.'.join(str(part) for part in path)}"

    def file_and_line(self, path: tuple) -> str:
        """`file:line` of a key, or of the table that should have it; what the command line has set has no line."""
        path = self.place_of(path)
        if not any((path[0], part) in self.changed for part in path[:1] + path[-1:] + path[2:3]):
            for length in range(len(path), 0, -1):
                line = self.line_of(path[:length])
                if line:
                    return f"{self.source}:{line}"
        return self.source

    def line_of(self, path: tuple) -> int | None:
        """The line, counted from 1, where exactly this key or table is; an int in `path` is an index of [[tables]]."""
        counts: dict[tuple, int] = {}
        here: tuple = ()
        in_text = False
        for number, line in enumerate(self.lines, 1):
            header = re.match(r"\s*(\[\[?)\s*([\w.\-]+)\s*\]", line)
            key = re.match(r"""\s*["']?([\w.\-]+)["']?\s*=""", line)
            if header and not in_text:
                here = ()
                for name in header.group(2).split("."):
                    here = (*here, counts[here] - 1, name) if here in counts else (*here, name)
                if here == path:
                    return number
                if header.group(1) == "[[":
                    counts[here] = counts.get(here, 0) + 1
                    here = (*here, counts[here] - 1)
                if here == path:
                    return number
            elif key and not in_text and (*here, *key.group(1).split(".")) == path:
                return number
            if (line.count('"""') + line.count("'''")) % 2:
                in_text = not in_text
        return None

    def place(self, refusal: msgspec.ValidationError) -> str:
        """A validation error in our words, with the line of the key it is about."""
        text = str(refusal)
        match = re.search(r" - at `\$\.?(.*)`$", text)
        sentence = text[: match.start()] if match else text
        sentence = re.sub(r"field `(\w+)`", lambda field: f'key "{key_of(field.group(1))}"', sentence)
        if not match:
            return f"{self.source}: {sentence}."
        path: list[str | int] = []
        parts = re.findall(r"(\w+)|\[(\d+|\.\.\.)\]", match.group(1))
        if wrong := re.fullmatch(r"Invalid enum value '(.*)'", sentence):
            choices = choices_at([name for name, _ in parts if name and not name.isdigit()])
            sentence += f"{only_near(wrong.group(1), choices)}: choose one of {', '.join(word or repr('') for word in choices)}"
        for name, index in parts:
            path.append(key_of(name) if name and not name.isdigit() else int(index) if index.isdigit() else 0)
        return f"{self.where(tuple(path))}: {sentence}."


def choices_at(fields: list[str]) -> list[str]:
    """The words that the field at the end of this path may hold."""
    hint: Any = Profile
    for field in fields:
        shape = next(part for part in parts_of(hint) if is_table(part))
        hint = typing.get_type_hints(shape)[field]
    return [word for part in parts_of(hint) if typing.get_origin(part) is Literal for word in typing.get_args(part)]


def parts_of(hint: Any) -> list[Any]:
    """The types that a hint is made of, whatever lists and alternatives they are in."""
    if typing.get_origin(hint) in (None, Literal):
        return [hint]
    return [part for inner in typing.get_args(hint) for part in parts_of(inner)]


def is_table(hint: Any) -> bool:
    """Whether a field holds a table of its own."""
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def in_both_directions(tree: dict[str, Any]) -> dict[str, Any]:
    """[link] with the keys of a direction moved to both; what a direction's own table says of them goes before. Losses are
    either in bursts or not, so its own of one kind go before those of the other."""
    shared = {key: value for key, value in tree.items() if key in DIRECTION_KEYS}
    moved = {key: value for key, value in tree.items() if key not in DIRECTION_KEYS}
    for name in ("outward", "homeward") if shared else ():
        own = tree.get(name, {})
        if isinstance(own, dict):
            instead = {"loss", "bursts"} if own.keys() & {"loss", "bursts"} else set()
            own = {key: value for key, value in shared.items() if key not in instead} | own
        moved[name] = own
    return moved


def is_text(word: str) -> bool:
    """Whether a word of the command line is text: its bytes may be anything, and a recording holds text only."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def tree_of(text: str, said: str) -> dict[str, Any]:
    """What a text of TOML says. UsageError, which begins with `said`, when it is none."""
    import tomllib

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as refusal:  # ValueError: not TOML, or a number of thousands of digits.
        raise UsageError(f"{said}: {refusal}") from refusal


def tables_of(text: str, source: str, shape: type[Shape], said: str) -> tuple[Shape, Reader]:
    """The tables of a text as this shape, and the reader that knows their lines. UsageError with the line of what is wrong."""
    reader = Reader(text, source)
    tree = tree_of(text, said)
    try:
        return msgspec.convert(reader.table(tree, shape, ()), shape), reader
    except msgspec.ValidationError as refusal:
        raise UsageError(reader.place(refusal)) from refusal


def apply_change(tree: dict[str, Any], change: str) -> tuple[str, str]:
    """One `--set table.key=value` (`cell.NAME.key=value` for a cell, `cell.key=value` for all of them).

    Answers the first table and the key, for `Reader.changed`.
    """
    import tomllib

    if not is_text(change):
        raise UsageError(f"--set {change!r} is not text.")
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise UsageError(f'--set {change}: write key=value, such as "run.rounds=3".')
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    *tables, last = key.strip().split(".")
    places: list[Any] = [tree]
    for table in tables:
        reached = []
        for place in places:
            if isinstance(place, list):
                reached += [item for item in place if isinstance(item, dict) and item.get("name") == table]
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
    return (tables or [last])[0], last
