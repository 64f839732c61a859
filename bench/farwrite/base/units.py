"""The one door between words with units and the integers inside: nanoseconds, bytes, bits per second.

Profiles and the command line say "20 miles", "4 KiB", "2 ms"; everything behind this file counts in base units.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from .errors import UsageError, nearest

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000

KM_PER_MILE = 1.609344  # International mile, exact since 1959.

TIME = {"ns": 1, "us": NS_PER_US, "ms": NS_PER_MS, "s": NS_PER_S, "min": 60 * NS_PER_S, "h": 3600 * NS_PER_S}
SIZE = {
    "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
RATE = {
    "bit/s": 1, "kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9, "Tbit/s": 10**12,
    "kbit": 10**3, "mbit": 10**6, "gbit": 10**9, "tbit": 10**12,  # As tc(8) and people write them: "10gbit".
}  # fmt: skip
RATIO = {"%": 0.01, "ppm": 1e-6}
LENGTH_KM = {"km": 1.0, "mi": KM_PER_MILE, "mile": KM_PER_MILE, "miles": KM_PER_MILE}
FREQUENCY = {"/s": 1, "k/s": 1_000, "/min": 1 / 60}

QUANTITY = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z/%]*)\s*")


def parse(text: str, units: Mapping[str, float], what: str) -> float:
    """The number in base units; UsageError naming the nearest unit when the unit is not one of `units`."""
    match = QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise UsageError(f'{what}: "{text}" is not a number with a unit ({", ".join(units)}).')
    number, unit = match.groups()
    if unit not in units:
        raise UsageError(f'{what}: unit "{unit}" in "{text}" is unknown{nearest(unit, units)}.' if unit
                         else f'{what}: "{text}" lacks a unit ({", ".join(units)}).')  # fmt: skip
    value = float(number.replace("_", "")) * units[unit]
    if not math.isfinite(value):
        raise UsageError(f'{what}: "{text}" is not finite.')
    return value


def time_ns(text: str, what: str = "time") -> int:
    """"1.5 ms" -> 1_500_000."""
    return round(parse(text, TIME, what))


def size_bytes(text: str, what: str = "size") -> int:
    """"4 KiB" -> 4096."""
    return round(parse(text, SIZE, what))


def rate_bits_per_s(text: str, what: str = "rate") -> int:
    """"10 Gbit/s" -> 10_000_000_000."""
    return round(parse(text, RATE, what))


def ratio(text: str, what: str = "share") -> float:
    """"0.01 %" -> 0.0001."""
    return parse(text, RATIO, what)


def frequency_per_s(text: str, what: str = "rate") -> float:
    """"2000 /s" -> 2000.0."""
    return parse(text, FREQUENCY, what)


def distance_km(text: str, what: str = "distance") -> float:
    """"20 miles" -> 32.18688."""
    return parse(text, LENGTH_KM, what)


def format_time(ns: float) -> str:
    """Three significant digits in the unit that suits: "0.932 ms", "87.1 us"."""
    for unit, scale in (("s", NS_PER_S), ("ms", NS_PER_MS), ("us", NS_PER_US)):
        if abs(ns) >= scale or (unit == "ms" and abs(ns) >= scale / 10):
            return f"{digits(ns / scale)} {unit}"
    return f"{digits(ns)} ns"


def foreseen_text(seconds: float) -> str:
    """How long something will take: "45 s", "3 min 50 s", "1 h 5 min"; ten seconds are as exact as it gets above a minute."""
    if seconds < 59.5:
        return f"{max(round(seconds), 1)} s"
    minutes, rest = divmod(max(round(seconds / 10), 6) * 10, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def format_rate(bits_per_s: float) -> str:
    """ "10 Gbit/s"."""
    for unit in ("Tbit/s", "Gbit/s", "Mbit/s", "kbit/s"):
        if bits_per_s >= RATE[unit]:
            value = bits_per_s / RATE[unit]
            return f"{int(value)} {unit}" if value == int(value) else f"{digits(value)} {unit}"
    return f"{digits(bits_per_s)} bit/s"


def format_size(size: float) -> str:
    """Binary units: "4 KiB", "1.50 GiB"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if abs(size) >= SIZE[unit]:
            value = size / SIZE[unit]
            return f"{int(value)} {unit}" if value == int(value) else f"{digits(value)} {unit}"
    return f"{int(size)} B"


def counted(count: int, what: str) -> str:
    """ "1 finding", "2 findings", "1,024 writes"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def digits(value: float, significant: int = 3) -> str:
    """A number with `significant` digits and no exponent below a million."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = significant - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(places, 0)}f}"
