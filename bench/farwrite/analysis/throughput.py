"""What completed per second, round by round, without the slices of the warm-up."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..recording import Round, Slice
from ..units import NS_PER_S, digits
from .estimate import mean_over_rounds
from .result import Estimate

KEEPS_UP = 0.95  # Of the offered load. A Poisson round of 1 000 writes scatters by 3 %.


def completed_per_s(rounds: Sequence[Round], dropped: int, offered_per_s: float | None = None) -> Estimate:
    """Writes completed per second; with a warning when they stay behind what was offered."""
    kept = [round_.slices[dropped:] for round_ in with_slices(rounds, dropped)]
    estimate = mean_over_rounds([per_second(slices, "completed") for slices in kept])
    if offered_per_s and estimate.high is not None and estimate.high < KEEPS_UP * offered_per_s:
        warning = f"stays behind the offered {digits(offered_per_s)} writes a second: response times grow without limit"
        return msgspec.structs.replace(estimate, warnings=[*estimate.warnings, warning])
    return estimate


def goodput_bytes_per_s(rounds: Sequence[Round], dropped: int) -> Estimate:
    """Application bytes completed per second: no headers, no retransmissions (RFC 2647 §3.17)."""
    kept = [round_.slices[dropped:] for round_ in with_slices(rounds, dropped)]
    return mean_over_rounds([per_second(slices, "completed_bytes") for slices in kept])


def with_slices(rounds: Sequence[Round], dropped: int) -> list[Round]:
    """The rounds that have anything left after the warm-up."""
    return [round_ for round_ in rounds if sum(item.duration_ns for item in round_.slices[dropped:]) > 0]


def per_second(slices: Sequence[Slice], field: str) -> float:
    """The sum of a field over slices, per second of their duration."""
    duration_ns = sum(item.duration_ns for item in slices)
    return sum(getattr(item, field) for item in slices) * NS_PER_S / duration_ns
