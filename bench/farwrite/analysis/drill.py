"""What the drills say together: losses with the probability they leave open, the recovery point, the recovery time.

No loss in n kills does not show that there is none to come: it bounds the probability of one
(estimate.loss_probability_high).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..recording import Drill
from .estimate import loss_probability_high
from .result import DrillResult


def drill_results(drills: Iterable[Drill]) -> list[DrillResult]:
    """One result for all drills of a kind under a protocol at a distance."""
    groups: dict[tuple[str, str, float], list[Drill]] = {}
    for drill in drills:
        groups.setdefault((drill.kind, drill.protocol, drill.miles), []).append(drill)
    return [result_of(group) for group in groups.values()]


def result_of(group: Sequence[Drill]) -> DrillResult:
    """Drills alike, together."""
    first = group[0]
    with_loss = sum(drill.audit.lost > 0 for drill in group)
    bound = loss_probability_high(with_loss, len(group)) if first.kind == "kill" else None
    notes = sorted({note for drill in group for note in (drill.note, drill.audit.note) if note})
    silent = sum(drill.recovery_time_ns is None for drill in group)
    if first.kind == "cut" and first.protocol != "A" and silent:
        notes.append(f"in {silent} of {len(group)} cuts no write completed after the link was healed")
    return DrillResult(
        kind=first.kind,
        protocol=first.protocol,
        miles=first.miles,
        count=len(group),
        drills_with_loss=with_loss,
        loss_probability_high=bound,
        lost_writes_max=max(drill.audit.lost for drill in group),
        lost_bytes_max=max(drill.lost_bytes for drill in group),
        recovery_point_ns_max=greatest([drill.recovery_point_ns for drill in group]),
        completed_during_cut_max=greatest([drill.completed_during_cut for drill in group]),
        recovery_time_ns_max=greatest([drill.recovery_time_ns for drill in group]),
        completed=sum(drill.audit.completed for drill in group),
        lost=sum(drill.audit.lost for drill in group),
        damaged=sum(drill.audit.damaged for drill in group),
        notes=notes,
    )


def greatest(values: Iterable[int | None]) -> int | None:
    """The greatest of the values that are known."""
    return max((value for value in values if value is not None), default=None)
