"""What the drills say together: losses with the probability they leave open, the recovery point, the recovery time.

No loss in n kills does not show that there is none to come: it bounds the probability of one
(estimate.loss_probability_high). n is the number of trials in which writes were being acknowledged at the fault. The others
are counted apart; what they lost is lost all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..base.units import format_time
from ..recording import Drill, Uncounted
from .estimate import loss_probability_high
from .result import DrillResult

UNCOUNTED: dict[Uncounted, str] = {
    "near-died": "the near site's process had died before the fault",
    "engine-stopped": "the engine had stopped before the fault",
    "load-ended": "the load had ended before the fault",
    "nothing-acknowledged": "no write had been acknowledged at the fault",
    "stalled": "no write was acknowledged in the {alive} before the fault",
}


def drill_results(drills: Iterable[Drill]) -> list[DrillResult]:
    """One result for all drills of a kind under a protocol at a distance."""
    groups: dict[tuple[str, str, float], list[Drill]] = {}
    for drill in drills:
        groups.setdefault((drill.kind, drill.protocol, drill.miles), []).append(drill)
    return [result_of(group) for group in groups.values()]


def result_of(group: Sequence[Drill]) -> DrillResult:
    """Drills alike, together."""
    first = group[0]
    counted = [drill for drill in group if drill.uncounted is None]
    others = [drill for drill in group if drill.uncounted is not None]
    with_loss = sum(drill.audit.lost > 0 for drill in counted)
    bound = loss_probability_high(with_loss, len(counted)) if first.kind == "kill" and counted else None
    notes = sorted({note for drill in group for note in (drill.note, drill.audit.note) if note})
    silent = sum(drill.recovery_time_ns is None for drill in counted)
    if first.kind == "cut" and first.protocol != "A" and silent:
        notes.append(f"in {silent} of {len(counted)} cuts no write completed after the link was healed")
    return DrillResult(
        kind=first.kind,
        protocol=first.protocol,
        miles=first.miles,
        count=len(counted),
        drills_with_loss=with_loss,
        loss_probability_high=bound,
        lost_writes_max=max((drill.audit.lost for drill in counted), default=0),
        lost_bytes_max=max((drill.lost_bytes for drill in counted), default=0),
        recovery_point_ns_max=greatest([drill.recovery_point_ns for drill in counted]),
        completed_during_cut_max=greatest([drill.completed_during_cut for drill in counted]),
        recovery_time_ns_max=greatest([drill.recovery_time_ns for drill in counted]),
        completed=sum(drill.audit.completed for drill in counted),
        lost=sum(drill.audit.lost for drill in counted),
        damaged=sum(drill.audit.damaged for drill in counted),
        notes=notes,
        uncounted=dict(Counter(drill.uncounted for drill in others if drill.uncounted)),
        uncounted_reasons=list(dict.fromkeys(uncounted_text(drill) for drill in others)),
        uncounted_lost=sum(drill.audit.lost for drill in others),
        uncounted_damaged=sum(drill.audit.damaged for drill in others),
    )


def uncounted_text(drill: Drill) -> str:
    """Why a trial does not count, in words."""
    assert drill.uncounted is not None
    return UNCOUNTED[drill.uncounted].format(alive=format_time(drill.alive_ns or 0))


def greatest(values: Iterable[int | None]) -> int | None:
    """The greatest of the values that are known."""
    return max((value for value in values if value is not None), default=None)
