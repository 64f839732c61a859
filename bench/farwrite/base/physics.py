"""What distance costs before any machine is involved: light in glass, and the equipment on the way.

The one place where miles become nanoseconds, each constant with its source. Nothing here is measured by us.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import UsageError
from .units import KM_PER_MILE, time_ns

LIGHT_KM_PER_S = 299_792.458  # Exact, by the definition of the metre.
GROUP_INDEX = 1.4682  # At 1550 nm; Corning SMF-28 Ultra data sheet, ITU-T G.652 fibre.
FIBRE_NS_PER_KM = 1e9 * GROUP_INDEX / LIGHT_KM_PER_S  # 4897.4: 204 190 km/s.

# How much longer the glass is than the straight line between two sites (Bozkurt et al., arXiv:1811.10737).
ROUTE_FACTORS = {"ideal": 1.0, "best conduit": 1.3, "rule of thumb": 2.1}


@dataclass(frozen=True)
class ProductLimit:
    """A limit that products state for synchronous replication, as a round-trip time or as a distance."""

    name: str
    rtt_ns: int | None = None
    miles: float | None = None


PRODUCT_LIMITS = (
    ProductLimit("1 ms: Azure Local rooms", rtt_ns=1_000_000),
    ProductLimit("2 ms: LeftHand/StoreVirtual multi-site", rtt_ns=2_000_000),
    ProductLimit("5 ms: vSAN stretched cluster, Storage Replica", rtt_ns=5_000_000),
    ProductLimit("10 ms: vMSC, Portworx", rtt_ns=10_000_000),
    ProductLimit("60 miles: PowerStore Metro", miles=60),
    ProductLimit("125 miles: SRDF/S", miles=125),
    ProductLimit("186 miles: Metro Mirror", miles=186),
)


def rtt_ns_of(miles: float, route_factor: float = 1.0, equipment_ns: float = 0.0) -> int:
    """The round trip over so many miles: twice the glass, and twice the one-way delay of the equipment."""
    return round(2 * (miles * KM_PER_MILE * route_factor * FIBRE_NS_PER_KM + equipment_ns))


def miles_of(rtt_ns: float, route_factor: float = 1.0, equipment_ns: float = 0.0) -> float:
    """How many miles a round trip reaches; negative when the equipment alone takes longer."""
    return (rtt_ns / 2 - equipment_ns) / (FIBRE_NS_PER_KM * route_factor * KM_PER_MILE)


@dataclass(frozen=True)
class Distance:
    """How far apart the sites are asked to be; a round trip of 0 asks for the lab's own and no more."""

    miles: float
    rtt_ns: int
    is_ping: bool = False  # the round trip is that of an echo, this host's own part in it included

    @property
    def text(self) -> str:
        """In words: "20 miles"."""
        return f"{self.miles:.4g} miles"


def distance(
    miles: float | None = None, *, km: float | None = None, rtt: str | None = None, route_factor: float = 1.0
) -> Distance:
    """The distance that one of miles, kilometres and round trip ("2 ms") speaks of; none of them is 0 miles.

    `route_factor` is how much longer the glass is than the straight line; physics.ROUTE_FACTORS names some.
    """
    given = {name: value for name, value in (("miles", miles), ("km", km), ("rtt", rtt)) if value is not None}
    if len(given) > 1:
        raise UsageError(f"distance: say one of miles, km and rtt, not {' and '.join(given)}.")
    if not isinstance(route_factor, (int, float)) or not 1 <= route_factor < math.inf:
        raise UsageError(
            f"distance: route_factor is {route_factor!r}, and no route is shorter than the straight line (1.0)."
        )
    if rtt is not None:
        rtt_ns = time_ns(rtt, "distance, its rtt")
        if rtt_ns < 0:
            raise UsageError(f'distance: a round trip of "{rtt}" is less than none.')
        return Distance(miles_of(rtt_ns, route_factor), rtt_ns, is_ping=True)
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise UsageError(f"distance: {name}={value!r} is not a length; say a number such as {name}=20.")
    length_miles = float(miles or 0.0) if km is None else km / KM_PER_MILE
    return Distance(length_miles, rtt_ns_of(length_miles, route_factor))
