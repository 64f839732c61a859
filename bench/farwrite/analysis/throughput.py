"""What completed per second, round by round, without the slices of the warm-up."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..recording import Round, Slice
from ..units import NS_PER_S, digits
from .estimate import mean_over_rounds, unknown
from .result import Estimate

KEEPS_UP = 0.95  # Of the offered load. A Poisson round of 1 000 writes scatters by 3 %.


def completed_per_s(rounds: Sequence[Round], dropped: int, offered_per_s: float | None = None) -> Estimate:
    """Writes completed per second; with a warning when they stay behind what was offered."""
    estimate = mean_per_second(rounds, dropped, "completed")
    if offered_per_s and estimate.high is not None and estimate.high < KEEPS_UP * offered_per_s:
        warning = f"stays behind the offered {digits(offered_per_s)} writes a second: response times grow without limit"
        return msgspec.structs.replace(estimate, warnings=[*estimate.warnings, warning])
    return estimate


def goodput_bytes_per_s(rounds: Sequence[Round], dropped: int) -> Estimate:
    """Application bytes completed per second: no headers, no retransmissions (RFC 2647 §3.17)."""
    return mean_per_second(rounds, dropped, "completed_bytes")


def mean_per_second(rounds: Sequence[Round], dropped: int, field: str) -> Estimate:
    """The mean over rounds of a field of the slices, per second."""
    kept = with_slices(rounds, dropped)
    values = [per_second(item.slices[dropped:], field) for item in kept]
    return mean_over_rounds(values, [item.index for item in kept])


def cpu_ns_per_write(rounds: Sequence[Round]) -> Estimate:
    """Processor time of all replicas per completed write; the whole round counts, its warm-up too."""
    known = [item for item in rounds if item.near_cpu_ns is not None and item.completed]
    if not known:
        return unknown("processor time was not recorded")
    values = [sum(cpu_ns_of(item)) / item.completed for item in known]
    return mean_over_rounds(values, [item.index for item in known])


def cpu_ns_of(round_: Round) -> list[int]:
    """What each replica's process used in a round."""
    return [round_.near_cpu_ns or 0, round_.far_cpu_ns or 0, *(other.far_cpu_ns or 0 for other in round_.others)]


def with_slices(rounds: Sequence[Round], dropped: int) -> list[Round]:
    """The rounds that have anything left after the warm-up."""
    return [round_ for round_ in rounds if sum(item.duration_ns for item in round_.slices[dropped:]) > 0]


def per_second(slices: Sequence[Slice], field: str) -> float:
    """The sum of a field over slices, per second of their duration."""
    duration_ns = sum(item.duration_ns for item in slices)
    return sum(getattr(item, field) for item in slices) * NS_PER_S / duration_ns
