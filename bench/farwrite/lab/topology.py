"""A layout: which sites there are, how far apart, what is asked of each link, and what runs where.

From the words of `farwrite lab`, or from a TOML file with several sites. Every two sites are joined; where the file says nothing
of two far ones, a packet between them goes as far as by way of the near site.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import msgspec

from ..base.errors import UsageError, nearest
from ..base.physics import Distance, distance
from ..base.units import RATE, format_time, parse, time_ns
from ..base.user_file import TEXT_BYTES_MAX, read_text
from ..workload.link_spec import PLAIN, LinkDirection, LinkSpec, check
from ..workload.tables import Struct
from ..workload.toml_reader import tables_of

NEAR = "near"
SITES_MAX = 5  # Ten links, a process each where the ferry carries them.
TC_RATE = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}  # As tc(8) spells them.
SHARE = re.compile(r"\s*([0-9.eE+-]+)\s*(%?)\s*")


@dataclass(frozen=True)
class Leg:
    """What is asked between two sites."""

    near: str
    far: str
    asked: Distance
    spec: LinkSpec

    @property
    def text(self) -> str:
        """In words: "150 miles, 1 Gbit/s, 0.01 % lost"."""
        direction = self.spec.outward
        words = [self.asked.text]
        words += [rate_text(direction.rate_bits_per_s)] if direction.rate_bits_per_s else []
        words += [f"{100 * direction.loss_ratio:.3g} % lost"] if direction.loss_ratio else []
        words += [f"jitter {format_time(direction.jitter_ns)}"] if direction.jitter_ns else []
        return ", ".join(words)


@dataclass(frozen=True)
class Layout:
    """Sites by name, the near one first; the legs between every two of them, the near one's first."""

    names: tuple[str, ...]
    legs: tuple[Leg, ...]
    commands: Mapping[str, list[str]]

    def index(self, name: str) -> int:
        """The number of a site."""
        return self.names.index(name)


# From a file.


class LinkTable(Struct, frozen=True):
    """[[link]]: two sites, how far apart, and what else is asked between them."""

    sites: list[str]
    miles: float | None = None
    km: float | None = None
    rtt: str | None = None
    route_factor: float | None = None
    rate: str | None = None
    loss: str | None = None
    jitter: str | None = None


class SiteTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[site.NAME]: what runs there."""

    command: str | list[str]


class File(Struct, frozen=True):
    """The whole file."""

    link: list[LinkTable]
    site: dict[str, SiteTable] = msgspec.field(default_factory=dict)
    route_factor: float = 1.0


def read(path: Path) -> Layout:
    """The layout in a TOML file; UsageError with its line when it is wrong."""
    text = read_text(path, "read the sites in", TEXT_BYTES_MAX)
    file, _ = tables_of(text, str(path), File, f"read the sites in {path}")
    return layout_of(file, str(path))


def layout_of(file: File, source: str) -> Layout:
    """The layout that a file describes."""
    names = list(dict.fromkeys([NEAR, *(name for table in file.link for name in table.sites)]))
    if not 2 <= len(names) <= SITES_MAX:
        raise UsageError(f"{source}: {len(names)} sites; a lab has 2 to {SITES_MAX}.")
    for name in names:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,30}", name):
            raise UsageError(f'{source}: "{name}" is no name for a site: small letters, digits, - and _.')
    legs_given: dict[tuple[str, str], Leg] = {}
    for table in file.link:
        if len(set(table.sites)) != 2 or len(table.sites) != 2:
            raise UsageError(f"{source}: a link joins two sites, not {table.sites}.")
        one, other = sorted(table.sites, key=names.index)
        if (one, other) in legs_given:
            raise UsageError(f"{source}: the link between {one} and {other} is there twice.")
        legs_given[one, other] = leg_of(one, other, table, file.route_factor)
    for name in names[1:]:
        if (NEAR, name) not in legs_given:
            raise UsageError(f'{source}: how far is {name} from near? Add a [[link]] with sites = ["near", "{name}"].')
    for name in file.site:
        if name not in names:
            raise UsageError(f'{source}: no link leads to the site "{name}"{nearest(name, names)}.')
    pairs = combinations(names, 2)  # The near site's come first.
    legs = tuple(legs_given.get(pair) or through_near(legs_given, *pair) for pair in pairs)
    return Layout(tuple(names), legs, {name: command_of(table.command) for name, table in file.site.items()})


def leg_of(near: str, far: str, table: LinkTable, route_factor: float) -> Leg:
    """One link of a file."""
    asked = distance(
        table.miles, km=table.km, rtt=table.rtt, route_factor=table.route_factor or route_factor
    )  # fmt: skip
    return Leg(near, far, asked, spec_of(asked, table.rate, table.loss, table.jitter))


def through_near(legs_given: Mapping[tuple[str, str], Leg], one: str, other: str) -> Leg:
    """The link between two far sites of which nothing was said."""
    parts = legs_given[NEAR, one].asked, legs_given[NEAR, other].asked
    return Leg(one, other, Distance(sum(part.miles for part in parts), sum(part.rtt_ns for part in parts)), PLAIN)


# From words.


def two_sites(
    asked: Distance, rate: str | None = None, loss: str | None = None, jitter: str | None = None, far: str | None = None
) -> Layout:
    """A near site and a far one."""
    leg = Leg(NEAR, "far", asked, spec_of(asked, rate, loss, jitter))
    return Layout((NEAR, "far"), (leg,), {"far": command_of(far)} if far else {})


def spec_of(asked: Distance, rate: str | None, loss: str | None, jitter: str | None) -> LinkSpec:
    """What is asked of both directions; UsageError for what cannot be."""
    direction = LinkDirection(
        rate_bits_per_s=bits_per_s(rate) if rate else None, loss_ratio=share(loss, "loss") if loss else 0.0,
        jitter_ns=time_ns(jitter, "jitter") if jitter else 0,
    )  # fmt: skip
    spec = LinkSpec(direction, direction)
    check(spec, asked.rtt_ns // 2)
    return spec


def bits_per_s(text: str) -> int:
    """"1gbit" or "1 Gbit/s" -> 1_000_000_000."""
    return round(parse(text, RATE | TC_RATE, "rate"))


def share(text: str, what: str) -> float:
    """"0.01%" or "0.0001" -> 0.0001."""
    match = SHARE.fullmatch(text)
    try:
        assert match is not None
        return float(match.group(1)) / (100 if match.group(2) else 1)
    except (AssertionError, ValueError):
        raise UsageError(f'{what}: "{text}" is not a share such as "0.01%".') from None


def rate_text(bits: int) -> str:
    """1_000_000_000 -> "1 Gbit/s"."""
    unit, scale = max(((unit, scale) for unit, scale in RATE.items() if scale <= bits), key=lambda item: item[1])
    return f"{bits / scale:.4g} {unit}"


def command_of(command: str | list[str]) -> list[str]:
    """The words of a command; a line of text is the shell's."""
    return ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
