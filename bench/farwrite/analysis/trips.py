"""How many round trips a write waits for one after the other: measured, and as the negotiated keys of iSCSI foretell it.

k is the difference of two medians in round trips: (median at the distance - median at 0 miles) / (round trip there - round trip
at 0 miles). Its interval takes the ends of both medians' exact intervals (order statistics) against each other, so it holds k at
least as often as both hold their medians. An NBD write carries its data: one trip. Of an iSCSI write, data beyond what the
initiator may send unasked waits for an R2T, a trip for each MaxBurstLength.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import median
from typing import NamedTuple

from ..base import reasons
from ..base.physics import rtt_ns_of
from ..base.units import format_time
from ..recording import MeasuredTarget, TripsRecording, WritesOfSize
from ..workload.link_spec import tolerance_ns
from .estimate import order_statistic_ranks, unknown
from .result import Estimate, Struct

# What libiscsi, and with it QEMU, offers (libiscsi 1.19, lib/init.c and lib/login.c).
OFFERED = {
    "HeaderDigest": "None", "DataDigest": "None", "InitialR2T": "No", "ImmediateData": "Yes", "FirstBurstLength": "262144",
    "MaxBurstLength": "262144", "MaxRecvDataSegmentLength": "262144", "MaxOutstandingR2T": "1",
}  # fmt: skip
# What holds where nothing is said: RFC 7143, section 13.
DEFAULTS = {
    "InitialR2T": "Yes", "ImmediateData": "Yes", "FirstBurstLength": "65536", "MaxBurstLength": "262144",
    "MaxRecvDataSegmentLength": "8192", "MaxOutstandingR2T": "1",
}  # fmt: skip
FORETOLD_MILES = (20.0, 150.0)
LENGTH_MIN, LENGTH_MAX = 512, (1 << 24) - 1  # RFC 7143, sections 13.12 to 13.14.


class WriteTerms(NamedTuple):
    """The agreed keys that decide a write's trips."""

    initial_r2t: bool
    immediate_data: bool
    first_burst_bytes: int
    max_burst_bytes: int
    segment_bytes: int  # MaxRecvDataSegmentLength that the target declared

    @property
    def unsolicited_bytes(self) -> int:
        """Data that may go out with the command or right behind it: RFC 7143, sections 13.10, 13.11 and 13.14."""
        if not self.initial_r2t:
            return self.first_burst_bytes
        return min(self.first_burst_bytes, self.segment_bytes) if self.immediate_data else 0


# What would be the best for a write of so many bytes, a key each.
LOOSENED = {
    "InitialR2T": lambda terms, size: terms._replace(initial_r2t=False),
    "ImmediateData": lambda terms, size: terms._replace(immediate_data=True),
    "FirstBurstLength": lambda terms, size: terms._replace(first_burst_bytes=max(size, terms.first_burst_bytes)),
    "MaxRecvDataSegmentLength": lambda terms, size: terms._replace(segment_bytes=max(size, terms.segment_bytes)),
}


class TripsRow(Struct, frozen=True):
    """Writes of one size at one target."""

    size_bytes: int
    at_0_ns_p50: Estimate
    far_ns_p50: Estimate
    rtt_ns: float  # that the distance added, as the link delivered it
    k: Estimate
    k_fastest: float | None  # the same of the fastest write at each distance, where a busy machine has the least part
    expected: int | None  # by the formula; None: the keys are unknown
    costly_keys: list[list[str]]  # any one of these sets of keys, loosened, would make it one trip
    foretold_ns: list[float | None]  # a + k RTT at FORETOLD_MILES


class TargetTrips(Struct, frozen=True):
    """One target."""

    name: str
    kind: str
    unsolicited_bytes: int | None
    max_burst_bytes: int | None
    rows: list[TripsRow]


class TripsResult(Struct, frozen=True):
    """The answer."""

    foretold_miles: list[float]
    targets: list[TargetTrips]


def agreed(answered: Mapping[str, str]) -> dict[str, str]:
    """What holds after a login in which OFFERED met these answers. RFC 7143, section 6.2: the answer to a key is its result;
    MaxRecvDataSegmentLength is each side's own."""
    return {key: answered.get(key, default) for key, default in DEFAULTS.items()}


def terms_of(keys: Mapping[str, str]) -> WriteTerms | None:
    """The numbers of agreed keys; None where one of them is none, or outside of what the protocol has."""
    lengths = [keys.get(key, "") for key in ("FirstBurstLength", "MaxBurstLength", "MaxRecvDataSegmentLength")]
    if not all(value.isascii() and value.isdecimal() and LENGTH_MIN <= int(value[:10]) <= LENGTH_MAX for value in lengths):
        return None
    if not {keys.get("InitialR2T"), keys.get("ImmediateData")} <= {"Yes", "No"}:
        return None
    first, burst, segment = (int(value[:10]) for value in lengths)
    return WriteTerms(keys["InitialR2T"] == "Yes", keys["ImmediateData"] == "Yes", first, burst, segment)


def trips_of(size_bytes: int, terms: WriteTerms) -> int:
    """1 + ceil((size - unsolicited) / MaxBurst), one R2T outstanding at a time."""
    return 1 + math.ceil(max(size_bytes - terms.unsolicited_bytes, 0) / terms.max_burst_bytes)


def costly_keys(size_bytes: int, terms: WriteTerms) -> list[list[str]]:
    """The smallest sets of keys that, changed, would have this write take one trip; none where it does."""
    if trips_of(size_bytes, terms) == 1:
        return []
    for count in range(1, len(LOOSENED) + 1):
        found = []
        for names in combinations(LOOSENED, count):
            changed = terms
            for name in names:
                changed = LOOSENED[name](changed, size_bytes)
            if trips_of(size_bytes, changed) == 1:
                found.append(list(names))
        if found:
            return found
    raise AssertionError("all keys at their best let every write go out at once")


def analyse_trips(made: TripsRecording) -> TripsResult:
    """The figures of a recording."""
    return TripsResult(list(FORETOLD_MILES), [analyse_target(target, made) for target in made.targets])


def analyse_target(target: MeasuredTarget, made: TripsRecording) -> TargetTrips:
    """One target's."""
    terms = terms_of(target.keys) if target.kind == "iscsi" else None
    return TargetTrips(
        name=target.name, kind=target.kind, unsolicited_bytes=terms.unsolicited_bytes if terms else None,
        max_burst_bytes=terms.max_burst_bytes if terms else None,
        rows=[row_of(writes, target.kind, terms, made) for writes in target.writes],
    )  # fmt: skip


def row_of(writes: WritesOfSize, kind: str, terms: WriteTerms | None, made: TripsRecording) -> TripsRow:
    """One size's."""
    at_0, far = median_of(writes.at_0.run_ns), median_of(writes.far.run_ns)
    near_rtt_ns, far_rtt_ns = median(writes.at_0.rtt_ns), median(writes.far.rtt_ns)
    rtt_ns = far_rtt_ns - near_rtt_ns
    k = k_of(at_0, far, rtt_ns, made.asked_rtt_ns)
    foretold: list[float | None] = [None] * len(FORETOLD_MILES)
    if k.value is not None and at_0.value is not None:
        foretold = [at_0.value + k.value * rtt_ns_of(miles, made.route_factor) for miles in FORETOLD_MILES]
    size = writes.size_bytes
    return TripsRow(
        size_bytes=size, at_0_ns_p50=at_0, far_ns_p50=far, rtt_ns=rtt_ns, k=k,
        k_fastest=(min(writes.far.run_ns) - min(writes.at_0.run_ns)) / rtt_ns if k.value is not None else None,
        expected=1 if kind == "nbd" else trips_of(size, terms) if terms else None,
        costly_keys=costly_keys(size, terms) if terms else [], foretold_ns=foretold,
    )  # fmt: skip


def median_of(times_ns: Sequence[float]) -> Estimate:
    """The median with its exact interval; an end of it alone where there are too few for one."""
    if not times_ns:
        return unknown(reasons.remark("nothing was measured"))
    ranks = order_statistic_ranks(len(times_ns), 0.5)
    value, ordered = float(median(times_ns)), sorted(times_ns)
    if ranks is None:
        return Estimate(value=value, count=len(ordered))
    low, high, confidence = ranks
    return Estimate(value, float(ordered[low - 1]), float(ordered[high - 1]), confidence, len(ordered))


def k_of(at_0: Estimate, far: Estimate, rtt_ns: float, asked_rtt_ns: int) -> Estimate:
    """The difference of two medians in round trips. Its confidence is what both intervals have together at least (Bonferroni)."""
    if at_0.value is None or far.value is None:
        return unknown(*(at_0.warnings or far.warnings))
    if rtt_ns <= tolerance_ns(asked_rtt_ns):
        return unknown(reasons.remark(
            f"the link delivered {format_time(rtt_ns)} more than at 0 miles, no more than it may be off by: ask for a greater "
            "distance"
        ))  # fmt: skip
    value, count = (far.value - at_0.value) / rtt_ns, min(at_0.count, far.count)
    if at_0.low is None or at_0.high is None or far.low is None or far.high is None:
        return Estimate(value=value, count=count)
    both = (at_0.confidence or 0.0) + (far.confidence or 0.0) - 1
    return Estimate(value, (far.low - at_0.high) / rtt_ns, (far.high - at_0.low) / rtt_ns, both, count)
