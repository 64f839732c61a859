"""A foreign JSON document, read with distrust: every refusal names the file and the place in it.

A `Part` is one object of the document with its way there, `jobs[0].write.lat_ns`. What is asked of it must have the
right type and a size that a quantity can have; what is missing is None or empty, and it is for the reader to mind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ...base.errors import UsageError

GREATEST = 1e18  # In any base unit: 31 years of nanoseconds, an exabyte. Beyond it a file is damaged.
SHOWN_CHARACTERS = 60  # Of a foreign word within one of our sentences.

OBJECT_BEGINS = re.compile(r"^\{", re.MULTILINE)
BLANKS = re.compile(r"\s*")


class Part:
    """An object of the document, and where it stands."""

    def __init__(self, source: str, value: dict[str, Any], place: str = "") -> None:
        self.source = source
        self.value = value
        self.place = place

    def __contains__(self, key: str) -> bool:
        return self.value.get(key) is not None

    def at(self, key: str) -> str:
        """The way to a member, in words."""
        return f"{self.place}.{short(key)}" if self.place else short(key)

    def refusal(self, key: str, what: str) -> UsageError:
        """The sentence that refuses a member."""
        return UsageError(f"{self.source}: {self.at(key)} {what}. The file is damaged; let its tool write it again.")

    def part(self, key: str) -> Part:
        """The object below a key; an empty one when there is none."""
        value = self.value.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.refusal(key, f"is no object but {shown(value)}")
        return Part(self.source, value or {}, self.at(key))

    def members(self) -> Iterator[tuple[str, Part]]:
        """All members with their names; each must be an object."""
        for key in self.value:
            yield key, self.part(key)

    def parts(self, key: str) -> list[Part]:
        """The objects of the list below a key."""
        found = []
        for index, value in enumerate(self.listed(key)):
            if not isinstance(value, dict):
                raise self.refusal(f"{key}[{index}]", f"is no object but {shown(value)}")
            found.append(Part(self.source, value, self.at(f"{key}[{index}]")))
        return found

    def listed(self, key: str) -> list[Any]:
        """The list below a key; empty when there is none."""
        value = self.value.get(key)
        if value is not None and not isinstance(value, list):
            raise self.refusal(key, f"is no list but {shown(value)}")
        return value or []

    def numbers(self, key: str) -> list[float]:
        """The list of numbers below a key, none of them negative."""
        return [self.checked(f"{key}[{index}]", value, 0.0) for index, value in enumerate(self.listed(key))]

    def number(self, key: str, least: float = 0.0) -> float | None:
        """The number below a key; None when there is none."""
        value = self.value.get(key)
        return None if value is None else self.checked(key, value, least)

    def count(self, key: str) -> int:
        """How many of something; 0 when it is not said."""
        return round(self.number(key) or 0)

    def checked(self, key: str, value: Any, least: float) -> float:
        """A value as a number."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refusal(key, f"is no number but {shown(value)}")
        if not least <= value <= GREATEST:  # NaN fails this, too.
            what = "is negative" if -GREATEST <= value < 0 else f"is {shown(value)}, which no measurement gives"
            raise self.refusal(key, what)
        return float(value)

    def text(self, key: str) -> str:
        """The words below a key, fit to be printed; numbers count as words, anything else does not."""
        value = self.value.get(key)
        if isinstance(value, str):
            return clean(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return shown(value)
        return ""


def document(text: str, source: str) -> Part | None:
    """The JSON object in a text: the last one when there are several, and whatever lines stand before; None for no JSON.

    fio writes its warnings in front of its JSON, and with --status-interval one document after the other.
    """
    at = BLANKS.match(text).end()  # type: ignore[union-attr]  # It matches nothing at all, too.
    if not text.startswith("{", at):
        begins = OBJECT_BEGINS.search(text) if '"fio version"' in text else None
        if begins is None:
            return None
        at = begins.start()
    found: Any = None
    while text.startswith("{", at):
        try:
            found, at = json.JSONDecoder().raw_decode(text, at)
        except json.JSONDecodeError as refusal:
            where = f"line {refusal.lineno}, column {refusal.colno}"
            raise UsageError(
                f"{source} is JSON that breaks off or is damaged at {where}: {refusal.msg}. Let its tool write it again."
            ) from refusal
        except RecursionError as refusal:
            raise UsageError(f"{source} is JSON nested so deeply that no benchmark wrote it.") from refusal
        except ValueError as refusal:  # An integer of thousands of digits.
            raise UsageError(f"{source} is JSON with a number too long to be one: {refusal}.") from refusal
        at = BLANKS.match(text, at).end()  # type: ignore[union-attr]
    assert isinstance(found, dict)  # It began with a brace.
    return Part(source, found)


def clean(text: str) -> str:
    """A foreign word fit to be printed and encoded: nothing in it moves a cursor or is half a character."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def short(text: str) -> str:
    """A foreign word fit for a sentence."""
    text = clean(text)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def shown(value: Any) -> str:
    """A foreign value in words."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return f'"{short(value)}"'
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int) and abs(value) > GREATEST:
        return "greater than 10^18" if value > 0 else "less than -10^18"
    return f"{value:.10g}"


def numbered(names: list[str]) -> list[int | None]:
    """For names in order: which of its like each is, from 1; None where a name stands alone."""
    seen: dict[str, int] = {}
    found: list[int | None] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(seen[name])
    return [place if seen[name] > 1 else None for name, place in zip(names, found, strict=True)]
