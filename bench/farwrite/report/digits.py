"""How many digits a number deserves: decided once per column, from its values and their intervals.

Numbers that stand under one another are read as one picture, so they share their decimal places and their width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..analysis.result import Estimate
from ..base.units import format_time

UNKNOWN = "–"  # noqa: RUF001
TO = "–"  # noqa: RUF001
SIGNIFICANT = 3
SIGNIFICANT_OF_INTERVAL = 2  # Digits finer than a hundredth of the interval are noise.


@dataclass(frozen=True)
class Digits:
    """The form of one column: base units per unit of its heading, decimal places, widths that align it."""

    scale: float
    places: int
    width: int = 0
    width_low: int = 0
    width_high: int = 0

    @classmethod
    def of(cls, estimates: Iterable[Estimate], scale: float = 1.0, places_max: int = 3) -> Digits:
        """Three digits for the least value, but none that the narrowest interval cannot support."""
        known = [estimate for estimate in estimates if estimate.value is not None]
        least = min((abs(e.value) / scale for e in known if e.value), default=0.0)
        narrowest = min((width_of(e) / scale for e in known if width_of(e) > 0), default=0.0)
        wanted = places_for(least, SIGNIFICANT)
        if narrowest:
            wanted = min(wanted, places_for(narrowest, SIGNIFICANT_OF_INTERVAL))
        bare = cls(scale, max(0, min(places_max, wanted)))
        return cls(
            scale,
            bare.places,
            max((len(bare.number(e.value)) for e in known), default=0),
            max((len(bare.number(e.low)) for e in known), default=0),
            max((len(bare.number(e.high)) for e in known), default=0),
        )

    def number(self, value: float | None) -> str:
        """The number alone, thousands set apart by a space."""
        if value is None or math.isnan(value):
            return UNKNOWN
        if math.isinf(value):
            return "∞" if value > 0 else "-∞"
        return grouped(value / self.scale, self.places)

    def interval(self, estimate: Estimate) -> str:
        """The interval in brackets, aligned; nothing when there is none."""
        if estimate.low is None and estimate.high is None:
            return ""
        return f"[{self.number(estimate.low):>{self.width_low}}, {self.number(estimate.high):>{self.width_high}}]"

    def span(self, estimate: Estimate) -> str:
        """The interval where room is short: low, dash, high."""
        if estimate.low is None and estimate.high is None:
            return ""
        return f"{self.number(estimate.low)}{TO}{self.number(estimate.high)}"


def span_text(estimate: Estimate) -> str:
    """ "2.18 s [2.05, 2.60]", each with its unit; a dash without a value."""
    if estimate.value is None:
        return UNKNOWN
    if estimate.low is None or estimate.high is None:
        return format_time(estimate.value)
    return f"{format_time(estimate.value)} [{format_time(estimate.low)}, {format_time(estimate.high)}]"


def grouped(value: float, places: int = 0) -> str:
    """Fixed decimals, thousands set apart by a space: "12 345.6"."""
    text = f"{value:,.{places}f}".replace(",", " ")
    return text.removeprefix("-") if float(text.replace(" ", "")) == 0 else text


def places_for(value: float, significant: int) -> int:
    """Decimal places that show so many significant digits of a value."""
    if value <= 0 or not math.isfinite(value):
        return 0
    return significant - 1 - math.floor(math.log10(value))


def width_of(estimate: Estimate) -> float:
    """How wide the interval is; 0 when it is open or missing."""
    if estimate.low is None or estimate.high is None:
        return 0.0
    width = estimate.high - estimate.low
    return width if math.isfinite(width) else 0.0
