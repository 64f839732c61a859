"""The words of the command line that set keys of a profile: --miles 0..500, --depth 1,8,32, --size 4k,64k and their like.

`run`, `reach` and `sweep` share them. Each option is turned into what the profile's key holds, before the profile is
validated, so that a refusal names the option and the key. Several depths, sizes, patterns or read shares give every cell
of the profile that many variants.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import re
import typing
from dataclasses import dataclass, field
from typing import Any

from cyclopts import Parameter

from ..base import units
from ..base.errors import UsageError, nearest
from ..base.protocol import NAMES
from ..workload.tables import AddressName

RANGE_POINTS = 6  # Of "0..500" without a step: both ends and four between.
POINTS_MAX = 200
KEYS = {
    "miles": "distance.miles", "protocol": "cell.protocols", "depth": "cell.queue_depth", "size": "cell.block",
    "read_share": "cell.reads", "pattern": "cell.address", "rate": "link.rate", "loss": "link.loss",
}  # fmt: skip
PATTERNS = {name: name for name in typing.get_args(AddressName)} | {"random": "uniform"}
SHORT_SIZES = {"k": "KiB", "m": "MiB", "g": "GiB"}  # As fio and everybody who types has it: 4k is 4096 bytes.


@dataclass(frozen=True, kw_only=True)
class Distances:
    """What was typed of them."""

    miles: str | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """What was typed of the load and the link, unread; None where it was not.

    Attributes
    ----------
    protocol
        Protocols of every cell, such as A,C (cell.protocols).
    depth
        Writes under way at once, such as 1,8,32 (cell.queue_depth).
    size
        Bytes of a write, such as 4k,64k (cell.block).
    read_share
        Shares of reads, such as 0,30% (cell.reads).
    pattern
        Orders of addresses, such as uniform,sequential (cell.address).
    rate
        Rate of the link, such as 1gbit (link.rate).
    loss
        Share of packets that the link loses, such as 0.01% (link.loss).
    """

    protocol: str | None = None
    depth: str | None = None
    size: str | None = None
    read_share: str | None = None
    pattern: str | None = None
    rate: str | None = None
    loss: str | None = None

    def given(self) -> list[str]:
        """The names of the options that were typed."""
        return [name for name in KEYS if getattr(self, name, None) is not None]

    def places(self, points: int) -> dict[str, list[float]] | None:
        """The distances that were typed, as the profile has them."""
        return None

    def change(self, set_: typing.Iterable[str] = (), points: int = RANGE_POINTS) -> Applied:
        """The change of a profile's tables that they ask for; a range of distances without a step has so many points.

        UsageError for words that cannot be, and for a key that --set sets as well.
        """
        for name in self.given():
            refuse_twice(name, set_)
        protocols = [one_of(word, NAMES, "protocol") for word in listed(self.protocol, "protocol")]
        return Applied(
            places=self.places(points),
            protocols=distinct(protocols, "protocol"),
            variants={
                "queue_depth": distinct([whole(word, "depth") for word in listed(self.depth, "depth")], "depth"),
                "block": distinct([size_of(word) for word in listed(self.size, "size")], "size"),
                "reads": distinct([share_of(word, "read_share") for word in listed(self.read_share, "read_share")], "read_share"),
                "address": distinct([PATTERNS[one_of(word, PATTERNS, "pattern")] for word in listed(self.pattern, "pattern")],
                                    "pattern"),
            },
            link={name: value for name, value in (("rate", link_rate(self.rate)), ("loss", link_loss(self.loss))) if value},
        )  # fmt: skip


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options(LoadOptions, Distances):
    """Both; inherited in this order, so that --miles comes first.

    Attributes
    ----------
    miles
        Distances, such as 0,20,150 or 0..500 or 0..500:50 or 100km (distance.miles); every cell is measured at each.
    """

    def places(self, points: int) -> dict[str, list[float]] | None:
        return None if self.miles is None else places_of(self.miles, points)


AS_USUAL, ANYWHERE = LoadOptions(), Options()  # Nothing typed.


@dataclass(frozen=True)
class Applied:
    """What options set, ready to be applied to a profile's tables as TOML has them."""

    places: dict[str, list[float]] | None
    protocols: list[str]
    variants: dict[str, list[Any]]
    link: dict[str, str]
    merged: list[str] = field(default_factory=list)  # cells that had become the same as another, once applied

    def __call__(self, tree: dict[str, Any]) -> set[tuple[str, str]]:
        """Change the tables; answers (first table, key) of what was set."""
        cells = [cell for cell in tree.get("cell", []) if isinstance(cell, dict)] if isinstance(tree.get("cell"), list) else []
        done = set()
        if self.places is not None:
            tree.setdefault("distance", {}).update(self.places)
            done |= {("distance", key) for key in self.places} | {("cell", "miles")}
            for cell in cells:
                cell.pop("miles", None)  # Every cell at every distance that was asked for.
        if self.protocols:
            done.add(("cell", "protocols"))
            for cell in cells:
                cell["protocols"] = list(self.protocols)
                if "quorum" not in self.protocols:
                    cell.pop("quorum", None)
                if "A" not in self.protocols:
                    cell.pop("on_congestion", None)
        if any(self.variants.values()):
            done |= {("cell", key) for key, values in self.variants.items() if values}
            tree["cell"] = [made for cell in tree.get("cell", []) for made in self.variants_of(cell)]
        if self.protocols or self.variants or self.places is not None:
            self.merge(tree)
        if self.link:
            link = tree.setdefault("link", {})
            for key, value in self.link.items():
                for direction in [link, *(link[name] for name in ("outward", "homeward") if isinstance(link.get(name), dict))]:
                    direction.pop(key, None)
                    if key == "loss":
                        direction.pop("bursts", None)
                link[key] = value
                done.add(("link", key))
        return done

    def variants_of(self, cell: Any) -> list[Any]:
        """A cell in every combination of what was asked; only what has several values becomes part of its name."""
        if not isinstance(cell, dict):
            return [cell]
        asked = {key: values for key, values in self.variants.items() if values}
        if cell.get("trace"):  # What was recorded has sizes, places and reads of its own.
            asked = {key: values for key, values in asked.items() if key == "queue_depth"}
        made = []
        for values in itertools.product(*asked.values()):
            variant = copy.deepcopy(cell)
            chosen = dict(zip(asked, values, strict=True))
            if "block" in chosen:
                for key in ("mix", "read_mix", "trim_mix"):
                    variant.pop(key, None)
            variant.update(chosen)
            for job in variant.get("jobs", []) if isinstance(variant.get("jobs"), list) else []:
                if isinstance(job, dict):
                    for key in chosen:
                        job.pop(key, None)
            words = [word_of(key, value) for key, value in chosen.items() if len(asked[key]) > 1]
            variant["name"] = "-".join([str(cell.get("name")), *words])
            made.append(variant)
        return made

    def merge(self, tree: dict[str, Any]) -> None:
        """Leave out what cells would measure that one before them does, now that what was asked has made them alike."""
        kept: list[Any] = []
        for cell in tree.get("cell", []):
            for other in kept:
                both = [name for name in protocols_of(cell) if name in protocols_of(other)]
                if both and covers(other, cell):
                    cell["protocols"] = [name for name in cell["protocols"] if name not in both]
                    which = f'cell "{cell["name"]}" under {" and ".join(both)}'
                    self.merged.append(f'{which} is left out: it is now the same as "{other["name"]}"')
                    if not cell["protocols"]:
                        break
            else:
                kept.append(cell)
        tree["cell"] = kept


DEFAULTS = {"arrival": "closed", "queue_depth": 1, "address": "uniform", "block": "4096 B", "reads": 0.0}


def protocols_of(cell: Any) -> list[str]:
    """A cell's protocols, where it is a cell."""
    found = cell.get("protocols") if isinstance(cell, dict) else None
    return found if isinstance(found, list) else []


def covers(other: dict[str, Any], cell: dict[str, Any]) -> bool:
    """Whether one cell measures the workload of another at all its distances."""
    return workload_of(other) == workload_of(cell) and (not other.get("miles") or other.get("miles") == cell.get("miles"))


def workload_of(cell: dict[str, Any]) -> dict[str, Any]:
    """What tells one cell from another besides its name, its protocols and its distances."""
    workload = {key: value for key, value in (DEFAULTS | cell).items() if key not in ("name", "protocols", "miles")}
    if isinstance(workload["block"], str):
        with contextlib.suppress(UsageError):  # Refused later, with its line.
            workload["block"] = units.size_bytes(workload["block"])
    return workload


def word_of(key: str, value: Any) -> str:
    """A value as part of a cell's name."""
    if key == "queue_depth":
        return f"qd{value}"
    if key == "block":
        return short_size(units.size_bytes(value))
    if key == "reads":
        return f"r{100 * value:g}".replace(".", "_")
    return str(value)


def short_size(size_bytes: int) -> str:
    """4096 is "4k"."""
    for unit, scale in (("m", 1 << 20), ("k", 1 << 10)):
        if size_bytes % scale == 0 and size_bytes:
            return f"{size_bytes // scale}{unit}"
    return str(size_bytes)


ASKED_BUDGET = re.compile(r"\s*(p50|p99\.9|p999|p99)(?:\s*(?:<=|[:=])\s*|\s+)(\S.*?)(?:\s+at\s+(\S.*?))?\s*")


def own_budgets(words: typing.Iterable[str]) -> typing.Callable[[dict[str, Any]], set[tuple[str, str]]]:
    """The change of a profile's tables that adds budgets typed as "p99 2 ms" or "p99 2 ms at 40 miles"; UsageError for others."""
    tables = [own_budget(word) for word in words]

    def add(tree: dict[str, Any]) -> set[tuple[str, str]]:
        there = tree.get("budget", [])
        tree["budget"] = [*there, *tables] if isinstance(there, list) else there
        return {("budget", "budget")} if tables else set()

    return add


def own_budget(word: str) -> dict[str, Any]:
    """One of them, as [[budget]] has it."""
    asked = f'--budget "{word}"'
    match = ASKED_BUDGET.fullmatch(word)
    if match is None:
        raise UsageError(
            f'{asked}: write a quantile of a write\'s response time and its limit, such as "p99 2 ms" or "p99 2 ms at 40 miles" '
            "(p50, p99 or p99.9). Budgets on anything else are for farwrite gate."
        )
    quantile, limit, place = match.groups()
    table: dict[str, Any] = {quantile.replace(".", ""): f"{units.time_ns(limit, asked)} ns"}
    if place is not None:
        bare = re.fullmatch(r"\d+(?:\.\d*)?|\.\d+", place)
        table["miles"] = float(place) if bare else units.distance_km(place, asked) / units.KM_PER_MILE
    return table


def refuse_twice(name: str, set_: typing.Iterable[str]) -> None:
    """UsageError when --set sets the key that an option sets."""
    first, _, last = KEYS[name].partition(".")
    also = {"miles": ("miles", "km")}.get(name, (last,))
    for change in set_:
        words = change.partition("=")[0].strip().split(".")
        if len(words) >= 2 and words[0] == first and words[-1] in also and (first != "link" or len(words) <= 3):
            raise UsageError(f"{option(name)} sets {KEYS[name]}, and so does --set {change}: give one of the two.")


def option(name: str) -> str:
    """How an option is typed."""
    return "--" + name.replace("_", "-")


def asked_by(name: str) -> str:
    """An option with the key of the profile that it sets, for errors."""
    return f"{option(name)} ({KEYS[name]})"


def listed(text: str | None, name: str) -> list[str]:
    """The words between the commas."""
    if text is None:
        return []
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UsageError(f'{asked_by(name)}: "{text}" is not a list such as {EXAMPLES[name]}.')
    return words


EXAMPLES = {
    "miles": "0,20,150 or 0..500 or 100km", "protocol": "A,C", "depth": "1,8,32", "size": "4k,64k", "read_share": "0,30%",
    "pattern": "uniform,sequential", "rate": "1gbit", "loss": "0.01%",
}  # fmt: skip


def distinct(values: list[Any], name: str) -> list[Any]:
    """The values. UsageError when one is named twice."""
    twice = next((value for index, value in enumerate(values) if value in values[:index]), None)
    if twice is not None:
        raise UsageError(f'{asked_by(name)}: "{twice}" is named twice.')
    return values


def one_of(word: str, known: typing.Iterable[str], name: str) -> str:
    """A word that is known."""
    if word not in known:
        raise UsageError(f'{asked_by(name)}: there is no "{word}"{nearest(word, known)}.')
    return word


def whole(word: str, name: str) -> int:
    """A whole number; its bounds are the profile's affair."""
    if not re.fullmatch(r"\d{1,9}", word):
        raise UsageError(f'{asked_by(name)}: "{word}" is not a whole number.')
    return int(word)


def size_of(word: str) -> str:
    """A size as the profile has it."""
    return f"{bytes_of(word, asked_by('size'))} B"


def bytes_of(word: str, where: str) -> int:
    """A size in bytes: "8k" is 8 KiB, and a bare number is bytes."""
    short = re.fullmatch(r"(\d+)\s*([kKmMgG])", word)
    if short:
        word = f"{short.group(1)} {SHORT_SIZES[short.group(2).lower()]}"
    return units.size_bytes(f"{word} B" if word.isdigit() else word, where)


def share_of(word: str, name: str) -> float:
    """ "30%" or "0.3"."""
    try:
        value = float(word)
    except ValueError:
        value = units.ratio(word, asked_by(name))
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise UsageError(f'{asked_by(name)}: "{word}" is not a share from 0 to 1 (0 % to 100 %).')
    return value


def link_rate(text: str | None) -> str | None:
    """The rate of the link, which is one for the whole run."""
    if text is None:
        return None
    refuse_list(text, "rate")
    if text.strip().endswith("/s") and "bit" not in text.lower():
        raise UsageError(
            f'{asked_by("rate")}: "{text}" is no rate of a link, such as 1gbit. Writes a second are --set cell.rate="{text}".'
        )
    units.rate_bits_per_s(text, asked_by("rate"))
    return text


def link_loss(text: str | None) -> str | None:
    """The share of packets that the link loses."""
    if text is None:
        return None
    refuse_list(text, "loss")
    return f"{share_of(text, 'loss') / units.RATIO['%']:.12g} %"


def refuse_list(text: str, name: str) -> None:
    """UsageError for several values of what a run has one of."""
    if "," in text:
        raise UsageError(f'{asked_by(name)}: "{text}": all cells of a run share one link. Give one value a run.')


def places_of(text: str, points: int = RANGE_POINTS) -> dict[str, list[float]]:
    """{"miles", "km"}: "0,20,150", "0..500", "0..500:50", "100km"; each in the unit it was given in."""
    found: dict[str, list[float]] = {"miles": [], "km": []}
    for word in listed(text, "miles"):
        begin, dots, rest = word.partition("..")
        end, colon, step = rest.partition(":")
        if not dots:
            key, value = place_of(word, "miles", text)
            found[key].append(value)
            continue
        key, last = place_of(end, "miles", text)
        begin_key, first = place_of(begin, key, text)
        if begin_key != key:
            raise UsageError(f'{asked_by("miles")}: "{word}" begins in {begin_key} and ends in {key}.')
        found[key] += spread(first, last, place_of(step, key, text)[1] if colon else None, points, word)
    every = [*found["miles"], *(km / units.KM_PER_MILE for km in found["km"])]
    distinct([f"{miles:g}" for miles in every], "miles")
    if len(every) > POINTS_MAX:
        raise UsageError(f"{asked_by('miles')}: {len(every)} distances; at most {POINTS_MAX} are measured in one run.")
    return found


def place_of(word: str, unit: str, text: str) -> tuple[str, float]:
    """("miles" or "km", the number) of one distance; `unit` is that of a bare number."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*", word)
    if match is None:
        raise UsageError(f'{asked_by("miles")}: "{text}" is not {EXAMPLES["miles"]}.')
    given = match.group(2) or unit
    if given not in units.LENGTH_KM:
        raise UsageError(f'{asked_by("miles")}: unit "{given}" is unknown{nearest(given, units.LENGTH_KM)}.')
    return ("km" if given == "km" else "miles"), float(match.group(1))


def spread(first: float, last: float, step: float | None, points: int, word: str) -> list[float]:
    """Distances from first to last, both among them: so many points, or every step."""
    if first >= last or (step is not None and step <= 0):
        raise UsageError(f'{asked_by("miles")}: "{word}" is no range: write it from near to far, such as 0..500 or 0..500:50.')
    if step is None:
        return [round(first + (last - first) * index / (points - 1), 3) for index in range(points)]
    count = math.floor((last - first) / step + 1e-9) + 1
    if count > POINTS_MAX:
        raise UsageError(f'{asked_by("miles")}: "{word}" is {count} distances; at most {POINTS_MAX} are measured in one run.')
    inside = [round(first + index * step, 3) for index in range(count)]
    return inside if math.isclose(inside[-1], last, abs_tol=1e-3) else [*inside, last]
