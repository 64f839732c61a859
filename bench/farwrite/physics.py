"""What distance costs before any machine is involved: light in glass, and the equipment on the way.

The one place where miles become nanoseconds, each constant with its source. Nothing here is measured by us.
"""

from __future__ import annotations

from dataclasses import dataclass

from .units import KM_PER_MILE

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
