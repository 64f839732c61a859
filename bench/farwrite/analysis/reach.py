"""The answer of a search: the greatest distance at which its budget holds, or why that is unknown.

The miles are those of distance.py, at the quantile and the budget that were asked for; here they are held against what the cells
around them say of themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..base.reasons import Reason, about, few_distances, spent_at_nothing
from ..recording import Recording
from .estimate import label
from .result import CellResult, Estimate, GreatestMiles, ReachResult
from .verdict import decide, response_of_cell


def reach_of(recording: Recording, cells: Sequence[CellResult], miles: Sequence[GreatestMiles]) -> ReachResult | None:
    """What the run says to its question; None where it has none."""
    asked = recording.profile.reach
    if not asked.budget_ns:
        return None
    table = recording.profile.cell[0]
    mine = [item for item in miles if (item.quantile, item.budget_ns) == (asked.quantile, asked.budget_ns)]
    spent = spent_before_the_first_mile(cells, asked.quantile, asked.budget_ns, recording.interrupted)
    if spent is not None:
        mine = [msgspec.structs.replace(item, miles=nothing(spent)) for item in mine]
        reasons: list[Reason] = []
    else:
        reasons = reasons_of(cells, mine, asked.quantile)
    return ReachResult(
        name=table.name, protocol=table.protocols[0], quantile=asked.quantile, budget_ns=asked.budget_ns, miles=mine,
        nothing_ns=None if spent is None else spent, unknown=list(dict.fromkeys(reasons)),
    )  # fmt: skip


def response_of(cell: CellResult, quantile: float) -> Estimate:
    """The response time of a cell at the quantile that was asked for."""
    return cell.response_ns_p99 if quantile == 0.99 else cell.response_ns_p50


def spent_before_the_first_mile(
    cells: Sequence[CellResult], quantile: float, budget_ns: float, interrupted: bool
) -> Estimate | None:
    """The latency at 0 miles where it is over the budget already."""
    for cell in cells:
        found = response_of_cell(cell, quantile)
        if cell.miles == 0 and decide(found, at_most=budget_ns, interrupted=interrupted).verdict == "fail":
            return found.estimate
    return None


def nothing(spent: Estimate) -> Estimate:
    """0 miles, known as well as the latency there."""
    return Estimate(
        value=0.0, low=0.0, high=0.0, confidence=spent.confidence, count=spent.count,
        warnings=[spent_at_nothing()],
    )  # fmt: skip


def reasons_of(cells: Sequence[CellResult], miles: Sequence[GreatestMiles], quantile: float) -> list[Reason]:
    """Why the answer is unknown; empty when it is known."""
    straight = next((item for item in miles if item.route_factor == 1.0), None)
    if straight is None:
        known = [cell for cell in cells if response_of(cell, quantile).value is not None]
        why = [reason for cell in cells if cell not in known for reason in response_of(cell, quantile).warnings[:1]]
        return [few_distances(label(quantile), len(known), len(cells)), *why]
    if straight.outcome in ("any", "none"):
        return []
    if straight.outcome != "measured" or straight.miles.value is None:
        return list(straight.miles.warnings)
    near = around(cells, straight.miles.value)
    return [about(f"at {cell.miles:g} miles", reason) for cell in near for reason in cell.latency_doubts]


def around(cells: Sequence[CellResult], miles: float) -> list[CellResult]:
    """The measured cells nearest to a distance on its two sides."""
    below = [cell for cell in cells if cell.miles <= miles and cell.rounds_ok]
    above = [cell for cell in cells if cell.miles > miles and cell.rounds_ok]
    return sorted(below, key=lambda cell: cell.miles)[-1:] + sorted(above, key=lambda cell: cell.miles)[:1]
