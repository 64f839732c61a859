"""Every key of a profile with its unit or choices, its default and its meaning: `farwrite profiles KEY`, docs/profile.md.

Read off the structs of `profile.py` and `link_spec.py`, where each field says its meaning once.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from .link_spec import LinkDirection, LinkSpec
from .profile_schema import UNITS, text_of
from .tables import Profile
from .toml_reader import is_table, key_of, parts_of, unit_of

KINDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}
QUANTITIES = {"_ns": "time", "_bytes": "size", "_bits_per_s": "rate", "_per_s": "frequency", "_ratio": "share"}


@dataclass(frozen=True)
class Key:
    """One key: the table it stands in, as a file writes it, and what may be said of it."""

    table: str  # "[run]", "[[cell]]"
    name: str
    kind: str  # the quantity, or the choices
    default: str  # empty: the key is required
    meaning: str

    @property
    def path(self) -> str:
        """How `--set` names it: "run.rounds"."""
        inside = self.table.strip("[]")
        return f"{inside}.{self.name}" if inside else self.name


def all_keys() -> list[Key]:
    """All of them, in the order of the tables."""
    return list(keys_of(Profile, ""))


def keys_of(shape: type[msgspec.Struct], table: str) -> Iterator[Key]:
    """The keys of a table, then those of the tables within it. [[cell.jobs]] takes the keys of [[cell]]."""
    inner: list[tuple[type[msgspec.Struct], str]] = []
    # [link] itself takes the keys of a direction, for both of them.
    shapes = (LinkDirection, shape) if shape is LinkSpec else (shape,)
    hinted = [(field, typing.get_type_hints(one, include_extras=True)) for one in shapes for field in msgspec.structs.fields(one)]
    for field, hints in hinted:
        hint, meaning = meaning_of(hints[field.name])
        found = [part for part in parts_of(hint) if is_table(part)]
        name = key_of(field.name)
        if found and found[0] not in (shape, LinkDirection):
            path = ".".join(part for part in (table.strip("[]"), name) if part)
            inner.append((found[0], f"[[{path}]]" if is_many(hint) else f"[{path}]"))
        if not (found and shape is Profile):
            yield Key(table, name, kind_of(hint, field.name), default_of(field), meaning)
    for one, path in inner:
        yield from keys_of(one, path)


def meaning_of(hint: Any) -> tuple[Any, str]:
    """(type, what its Meta says) of a field."""
    if typing.get_origin(hint) is not typing.Annotated:
        return hint, ""
    kind, *extras = typing.get_args(hint)
    return kind, next((extra.description or "" for extra in extras if isinstance(extra, msgspec.Meta)), "")


def is_many(hint: Any) -> bool:
    """Whether a field holds several of its type."""
    return typing.get_origin(hint) in (list, tuple)


def kind_of(hint: Any, field: str) -> str:
    """What may stand behind the equals sign."""
    if unit := unit_of(field):
        return QUANTITIES[unit]
    parts = [part for part in parts_of(hint) if part not in (type(None), ...)]
    if any(map(is_table, parts)):
        return "tables" if is_many(hint) else "a table"
    choices = [str(word) for part in parts if typing.get_origin(part) is Literal for word in typing.get_args(part)]
    words = [*(word or '""' for word in dict.fromkeys(choices)), *(KINDS[part] for part in parts if part in KINDS)]
    return ("list of " if is_many(hint) else "") + ", ".join(words)


def default_of(field: msgspec.structs.FieldInfo) -> str:
    """What holds where a file does not say it."""
    if field.default_factory is not msgspec.NODEFAULT:
        return "empty"
    if field.default is msgspec.NODEFAULT:
        return ""
    unit = unit_of(field.name)
    if field.default is None or isinstance(field.default, (msgspec.Struct, tuple)):
        return "none"
    if unit:
        return text_of(field.default, UNITS[unit])
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return str(field.default) or '""'


def lines_of(word: str) -> list[str]:
    """What to print of the keys that a word names; empty where it names none."""
    made = []
    for key in matching(word):
        units = next((f" ({', '.join(UNITS[unit])})" for unit, name in QUANTITIES.items() if name == key.kind), "")
        default = f"default {key.default}" if key.default else "required"
        made.append(f"{key.table} {key.name}".strip() + f": {key.kind}{units}, {default}")
        made.append(f"    {key.meaning}")
    return made


def matching(word: str) -> list[Key]:
    """Those of a table ("run"), of a name ("rounds"), or of a path ("run.rounds")."""
    asked = word.strip("[]")
    return [key for key in all_keys() if asked in (key.name, key.path, key.table.strip("[]"))]


def page() -> str:
    """docs/profile.md."""
    lines = [
        "# Every key of a profile", "",
        "Made by `farwrite profiles --markdown` from the types that read a profile. A key is set on the command line as well:",
        "`--set run.rounds=10`, `--set cell.NAME.block=\"8 KiB\"`.",
        "[workloads/limits.toml](../workloads/limits.toml) is a whole profile;",
        "[workloads/README.md](../workloads/README.md) explains loads.", "",
        "What has a unit is text, such as `\"8 KiB\"`:", "", "| value | units |", "|---|---|",
        *(f"| {QUANTITIES[unit]} | {', '.join(f'`{word}`' for word in words)} |" for unit, words in UNITS.items()),
    ]  # fmt: skip
    notes = {
        "[link]": "The keys of a direction stand in `[link]` for both, or in `[link.outward]` and `[link.homeward]`.",
        "[[cell]]": "`[[cell.jobs]]` takes these as well, for one of several loads at once.",
    }
    table = None
    for key in all_keys():
        if key.table != table:
            table = key.table
            note = [notes[table], ""] if table in notes else []
            lines += ["", f"## `{table}`" if table else "## At the top", "", *note]
            lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
        words = (f"`{key.name}`", key.kind, f"`{key.default}`" if key.default else "required", key.meaning)
        lines.append("| " + " | ".join(word.replace("|", "\\|") for word in words) + " |")
    return "\n".join(lines) + "\n"
