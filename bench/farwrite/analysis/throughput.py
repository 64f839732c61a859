"""What completed per second, round by round, between the end of the warm-up and the end of the round.

A write counts where it completed, not where it was intended: what a backlog completes after the round's end is no throughput
of the round. Older recordings have their writes by intended instant only; what of them completed within is then estimated from
their response times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from ..base import reasons
from ..base.units import NS_PER_S
from ..recording import Round
from .estimate import mean_over_rounds, unknown
from .result import Estimate
from .sample import MIDDLES_NS, decode_all

KEEPS_UP = 0.95  # Of the offered load. A Poisson round of 1 000 writes scatters by 3 %.


def completed_per_s(rounds: Sequence[Round], dropped: int, offered_per_s: float | None = None) -> Estimate:
    """Writes completed per second within the round; with a warning when they stay behind what was offered."""
    estimate = mean_per_second(rounds, dropped, "within")
    if offered_per_s and estimate.high is not None and estimate.high < KEEPS_UP * offered_per_s:
        return msgspec.structs.replace(estimate, warnings=[*estimate.warnings, reasons.behind_the_load(offered_per_s)])
    return estimate


def goodput_bytes_per_s(rounds: Sequence[Round], dropped: int) -> Estimate:
    """Application bytes completed per second: no headers, no retransmissions (RFC 2647 §3.17)."""
    return mean_per_second(rounds, dropped, "within_bytes")


Field = Literal["within", "within_bytes"]


def mean_per_second(rounds: Sequence[Round], dropped: int, field: Field) -> Estimate:
    """The mean over rounds of what completed within them, per second."""
    kept = with_slices(rounds, dropped)
    values = [per_second(item, dropped, field) for item in kept]
    return mean_over_rounds(values, [item.index for item in kept])


def cpu_ns_per_write(rounds: Sequence[Round]) -> Estimate:
    """Processor time of all replicas per completed write; the whole round counts, its warm-up too."""
    known = [item for item in rounds if item.near_cpu_ns is not None and item.completed]
    if not known:
        return unknown(reasons.no_processor_time())
    values = [sum(cpu_ns_of(item)) / item.completed for item in known]
    return mean_over_rounds(values, [item.index for item in known])


def cpu_ns_of(round_: Round) -> list[int]:
    """What each replica's process used in a round."""
    return [round_.near_cpu_ns or 0, round_.far_cpu_ns or 0, *(other.far_cpu_ns or 0 for other in round_.others)]


def with_slices(rounds: Sequence[Round], dropped: int) -> list[Round]:
    """The rounds that have anything left after the warm-up."""
    return [round_ for round_ in rounds if sum(item.duration_ns for item in round_.slices[dropped:]) > 0]


def per_second(round_: Round, dropped: int, field: Field) -> float:
    """What completed in a round after the slices of its warm-up, per second of the rest."""
    kept = round_.slices[dropped:]
    duration_ns = sum(item.duration_ns for item in kept)
    counted = [getattr(item, field) for item in kept]
    done = sum(counted) if None not in counted else estimated(round_, dropped, field)
    return done * NS_PER_S / duration_ns


def estimated(round_: Round, dropped: int, field: Field) -> float:
    """The same for a round whose completions were not counted by instant.

    The writes of a slice are taken to have been intended evenly over it; each completes its response time later.
    """
    begin_ns, last = round_.slices[dropped].begin_ns, round_.slices[-1]
    end_ns = last.begin_ns + last.duration_ns
    total = 0.0
    for item, sample in zip(round_.slices, decode_all(item.response for item in round_.slices), strict=True):
        whole = item.completed if field == "within" else item.completed_bytes
        if not sample.count or not item.duration_ns:
            # No single writes are known, as of another tool's stream: all of a slice counts in it.
            total += whole if item.begin_ns >= begin_ns else 0
            continue
        first_ns = item.begin_ns + MIDDLES_NS[sample.slot]

        def before(instant_ns: float, first_ns: np.ndarray = first_ns, lasts_ns: int = item.duration_ns) -> np.ndarray:
            return np.clip((instant_ns - first_ns) / lasts_ns, 0.0, 1.0)

        share = float((sample.counts * (before(end_ns) - before(begin_ns))).sum()) / sample.count
        total += whole * share
    return total
