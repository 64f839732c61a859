"""The JSON Schema of a profile as it is written: for editors of TOML, which complete keys and mark what is unknown.

Made from the structs of `profile.py` as the reader takes them: a field's suffix is a unit, and its key holds text with one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ..base import units
from .link_spec import LinkDirection, LinkSpec
from .tables import Profile
from .toml_reader import DIRECTION_KEYS, key_of, unit_of

UNITS: dict[str, Mapping[str, float]] = {
    "_ns": units.TIME, "_bytes": units.SIZE, "_bits_per_s": units.RATE, "_per_s": units.FREQUENCY, "_ratio": units.RATIO,
}  # fmt: skip
NUMBER = r"^\s*[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The schema; what types cannot say (ranges, keys that exclude each other) `farwrite run` says, with the line."""
    made = msgspec.json.schema(Profile)
    parts = {name: as_written(part) for name, part in made["$defs"].items()}
    # [link] itself takes the keys of a direction, for both of them.
    both, direction = parts[LinkSpec.__name__], parts[LinkDirection.__name__]
    both["properties"] = {key: direction["properties"][key] for key in sorted(DIRECTION_KEYS)} | both["properties"]
    return {"$schema": DIALECT, "title": "A profile of farwrite", "$ref": made["$ref"], "$defs": parts}


def as_written(part: dict[str, Any]) -> dict[str, Any]:
    """A table's schema with the keys and values of the file."""
    if "properties" not in part:
        return part
    properties = {}
    for field, value in part["properties"].items():
        unit = unit_of(field)
        properties[key_of(field)] = text_with(unit, value) if unit else value
        if isinstance(value.get("default"), dict):  # A table's, by the names of its fields; its own keys have theirs.
            properties[key_of(field)] = {key: word for key, word in value.items() if key != "default"}
    made = part | {"properties": properties}
    if "required" in part:
        made["required"] = [key_of(field) for field in part["required"]]
    return made


def text_with(unit: str, value: dict[str, Any]) -> dict[str, Any]:
    """The schema of a number with one of the units."""
    known = UNITS[unit]
    meaning = f"{value['description']}. " if "description" in value else ""
    made = {"type": "string", "pattern": f"{NUMBER}({'|'.join(re.escape(word) for word in known)})\\s*$",
            "description": f"{meaning}A number with a unit: {', '.join(known)}."}  # fmt: skip
    default = value.get("default")
    return made if default is None else made | {"default": text_of(default, known)}


def text_of(value: float, known: Mapping[str, float]) -> str:
    """A value in the largest unit in which it is a short number."""
    for word, scale in sorted(known.items(), key=lambda item: -item[1]):
        number = f"{value / scale:g}"
        if value and abs(value) >= scale and float(number) * scale == value:
            return f"{number} {word}"
    word, scale = next(iter(known.items()))
    return f"{value / scale:g} {word}"
