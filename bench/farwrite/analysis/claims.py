"""The three claims of 2008 judged by one recording: pass, fail or unknown, each with a sentence.

C1  pass when the whole interval of the 4 KiB, depth 1, protocol C p99 at 20 miles lies below 2 ms; fail when the whole
    of it lies above; unknown otherwise, when nothing was measured there, or when no verdict on latency may rest on that
    cell (among the reasons: its link was off by more than LINK_ERROR_SHARE_MAX of the 2 ms; host noise).
C2  three parts: writes at 150 miles complete; no acknowledged write is lost in kills or found missing in rounds; writes
    go on completing while the far site cannot be reached. The claim promises no latency, so latency judges nothing.
C3  two parts: the latency of protocol A does not depend on distance; the recovery point is small. The first is an
    equivalence test: it passes when the whole interval of k lies within NEGLIGIBLE_TRIPS of 0, fails when the whole of
    it lies above, and is unknown otherwise. Of the second the claim gives no number, so the worst over all kills is held
    against SMALL_RECOVERY_POINT_NS.

A claim of several parts fails when one part is refuted, passes when all hold, and is unknown otherwise. That no write
was lost in n kills is never written as a recovery point of nought: only the bound it gives is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import msgspec

from ..physics import PRODUCT_LIMITS, ROUTE_FACTORS, rtt_ns_of
from ..recording import Recording
from ..units import NS_PER_MS, NS_PER_S, digits, format_size, format_time
from .answer import miles_text, time_text
from .distance import NEGLIGIBLE_TRIPS, independent
from .estimate import label
from .result import (
    UNSOUND,
    CellResult,
    Claim,
    DrillResult,
    Estimate,
    Fit,
    GreatestMiles,
    Verdict,
    late_doubt,
    link_doubt,
    without_lateness,
)

C1_MILES, C1_BUDGET_NS = 20.0, 2 * NS_PER_MS
C2_MILES = 150.0
SIZE_BYTES = 4096  # What the tables of 2008 meant by a write.
MILES_TOLERANCE_RATIO = 0.025  # A cell this near stands for the claim's distance: half a mile at 20.
SMALL_RECOVERY_POINT_NS = NS_PER_S  # Our reading of "small": what a person does not notice. The claim has no number.

TEXT = {
    "C1": "synchronous replication needs low latency (2 ms), high bandwidth, distance up to 20 miles",
    "C2": "synchronous replication works up to 150 miles, recovery point zero, 100 % available",
    "C3": "asynchronous replication: any distance, average bandwidth, small recovery point",
}
INTERRUPTED = "the run was interrupted: cells have fewer rounds than asked, or none"
WORD = {"pass": "holds", "fail": "fails", "unknown": "is undecided"}


class Part(NamedTuple):
    """One thing that a claim says, and what this run says to it."""

    verdict: Verdict
    sentence: str


def claims_of(
    recording: Recording,
    cells: Sequence[CellResult],
    fits: Sequence[Fit],
    miles: Sequence[GreatestMiles],
    drills: Sequence[DrillResult],
) -> list[Claim]:
    """All three."""
    found = [
        claim_c1(recording, cells, miles),
        claim_c2(recording, cells, drills),
        claim_c3(recording, cells, fits, drills),
    ]
    if recording.interrupted:
        found = [undecided(claim) for claim in found]
    if not recording.lab.is_stream_level:
        return found
    return [msgspec.structs.replace(claim, sentence=f"{claim.sentence} (stream-level)") for claim in found]


def undecided(claim: Claim) -> Claim:
    """The claim of a run that was interrupted: what it has refuted stays refuted, what held so far is no proof."""
    if claim.verdict != "pass":
        return claim
    sentence = f"{claim.id} is undecided: {INTERRUPTED}; so far, {claim.sentence}"
    return msgspec.structs.replace(claim, verdict="unknown", sentence=sentence)


def claim_c1(recording: Recording, cells: Sequence[CellResult], miles: Sequence[GreatestMiles]) -> Claim:
    """2 ms at 20 miles, and where 2 ms are really spent."""
    cell = the_cell(cells, "C", C1_MILES)
    details = [
        f"2 ms at {label(quantile)}, by glass over straight line: {reach_text(list(items))}"
        for quantile, items in groupby(spent(miles, cell, C1_BUDGET_NS), key=lambda item: item.quantile)
    ]
    details.append(physics_text())
    details += confessions(recording, cell)
    if cell is None or cell.response_ns_p99.value is None:
        return Claim(
            id="C1", claim=TEXT["C1"], verdict="unknown", details=details,
            sentence=f"C1 is undecided: {missing(cell, 'C', C1_MILES)}",
        )  # fmt: skip
    p99 = cell.response_ns_p99
    found, refusal = judged(cell, p99, C1_BUDGET_NS)
    verdict: Verdict = "unknown" if refusal else found
    sentence = f"C1 {WORD[verdict]} at {cell.miles:g} miles: p99 {time_text(p99)} of 2 ms"
    reach = [item for item in spent(miles, cell, C1_BUDGET_NS) if item.quantile == 0.99 and item.route_factor == 1.0]
    if refusal:
        sentence += f", but no verdict may rest on it: {refusal}"
    elif verdict == "unknown" and p99.low is not None:
        sentence += ", whose interval has 2 ms inside: measure more rounds"
    if reach:
        sentence += f"; 2 ms {spent_text(reach[0])}"
    return Claim(id="C1", claim=TEXT["C1"], verdict=verdict, sentence=sentence, details=details)


def claim_c2(recording: Recording, cells: Sequence[CellResult], drills: Sequence[DrillResult]) -> Claim:
    """150 miles, no acknowledged write lost, always available: three parts."""
    cell = the_cell(cells, "C", C2_MILES)
    parts = [works(cell), nothing_lost(cells, drills), available(drills)]
    details: list[str] = []
    if cell is not None and cell.response_ns_p99.value is not None:
        details.append(limits_text(cell))
    details += confessions(recording, cell)
    return combined("C2", parts, details)


def claim_c3(
    recording: Recording, cells: Sequence[CellResult], fits: Sequence[Fit], drills: Sequence[DrillResult]
) -> Claim:
    """Any distance, a small recovery point: two parts, and the bandwidth it took."""
    mine = sorted((item for item in cells if item.protocol == "A"), key=lambda item: (item.name, item.miles))
    recovery = Part("unknown", RELAY_IS_KIND) if recording.lab.is_stream_level else small_recovery_point(drills)
    parts = [any_distance(fits), recovery]
    lagging = [item for item in mine if item.lag_ns_p99 is not None and item.rounds_ok]
    details = [lag_text(list(items)) for _, items in groupby(lagging, key=lambda item: item.name)]
    details += [bandwidth_text(item) for item in mine[-1:] if item.goodput_bytes_per_s.value]
    details += confessions(recording, mine[-1] if mine else None)
    return combined("C3", parts, details)


def combined(name: str, parts: Sequence[Part], details: list[str]) -> Claim:
    """A claim from its parts: those that decide it are its sentence, the others come first among the details."""
    verdicts = [part.verdict for part in parts]
    verdict: Verdict = "fail" if "fail" in verdicts else "unknown" if "unknown" in verdicts else "pass"
    deciding = "; ".join(part.sentence for part in parts if part.verdict == verdict)
    others = [f"{ALSO[part.verdict]}: {part.sentence}" for part in parts if part.verdict != verdict]
    word = {"fail": "fails as it is stated", "pass": "holds"}.get(verdict, WORD[verdict])
    return Claim(
        id=name, claim=TEXT[name], verdict=verdict, sentence=f"{name} {word}: {deciding}", details=[*others, *details]
    )


RELAY_IS_KIND = (
    "a relay takes at once what TCP would hold back for the link's window, so less is lost under protocol A than over packets: "
    "its recovery point is not judged"
)
ALSO: dict[str, str] = {"pass": "holds", "unknown": "undecided", "fail": "refuted"}


# The parts of C2


def works(cell: CellResult | None) -> Part:
    """Whether synchronous writes complete at 150 miles, and how long they take."""
    if cell is None or cell.response_ns_p50.value is None:
        return Part("unknown", missing(cell, "C", C2_MILES))
    sentence = f"at {cell.miles:g} miles a write takes {latency_text(cell)}"
    if cell.withheld:
        return Part("unknown", f"{sentence}, but no verdict may rest on it: {'; '.join(cell.withheld)}")
    return Part("pass", sentence)


def nothing_lost(cells: Sequence[CellResult], drills: Sequence[DrillResult]) -> Part:
    """What of the acknowledged writes was missing at the far site."""
    kills = [item for item in drills if item.kind == "kill" and item.protocol == "C"]
    cuts = [item for item in drills if item.kind == "cut" and item.protocol == "C"]
    in_rounds = sum((item.lost or 0) + (item.damaged or 0) for item in cells if item.protocol == "C")
    in_cuts = sum(item.lost + item.damaged for item in cuts)
    lost = sum(item.lost + item.damaged for item in kills)
    said = "; ".join(kill_text(item) for item in kills)
    if lost or in_rounds or in_cuts:
        also = [f"{in_rounds} acknowledged writes lost or damaged in measured rounds"] if in_rounds else []
        also += [f"{in_cuts} acknowledged writes lost or damaged after a cut"] if in_cuts else []
        return Part("fail", "; ".join(([said] if said else []) + also))
    if not kills:
        return Part("unknown", "no kill was drilled under protocol C, so its recovery point was not measured")
    return Part("pass", said)


def available(drills: Sequence[DrillResult]) -> Part:
    """Whether writes went on completing while the far site could not be reached."""
    cuts = [item for item in drills if item.kind == "cut" and item.protocol == "C"]
    known = [item.completed_during_cut_max for item in cuts if item.completed_during_cut_max is not None]
    if not known:
        return Part("unknown", "no cut of the link was drilled under protocol C, so its availability was not measured")
    count = sum(item.count for item in cuts)
    if not max(known):
        again = [item.recovery_time_ns_max for item in cuts if item.recovery_time_ns_max is not None]
        later = f"; writes completed again {format_time(max(again))} after the heal at the latest" if again else ""
        return Part(
            "fail",
            f"while the far site could not be reached nothing was acknowledged, in {times(count, 'cut')} of the link: "
            f"100 % available is refuted{later}",
        )
    return Part(
        "pass",
        f"while the far site could not be reached writes were acknowledged, up to {max(known)} in one of "
        f"{times(count, 'cut')}; those stood on the near site alone",
    )


# The parts of C3


def any_distance(fits: Sequence[Fit]) -> Part:
    """Whether the latency of protocol A knows the distance."""
    mine = [item for item in fits if item.protocol == "A" and item.quantile == 0.5]
    mine = [item for item in mine if item.queue_depth == 1] or mine
    if not mine:
        return Part("unknown", "protocol A was not measured at three distances, so what distance costs it is not known")
    fit = mine[0]
    k = fit.k
    assert k.value is not None
    if k.low is None or k.high is None or UNSOUND in k.warnings:
        found = f"k {trips_text(k.value)} round trips a write at p50"
        return Part("unknown", f"whether its latency depends on distance cannot be told: {found}, {'; '.join(k.warnings)}")
    low, high = k.low, k.high
    found = f"k {trips_text(k.value)} round trips a write [{trips_text(low)}, {trips_text(high)}] at p50"
    tails = [item.k.value for item in fits if (item.protocol, item.name, item.quantile) == ("A", fit.name, 0.99)]
    if tails and tails[0] is not None:
        found += f", {trips_text(tails[0])} at p99"
    up_to = f"up to {fit.rtt_ns_high / NS_PER_MS:.3g} ms of round trip"
    bound = f"{NEGLIGIBLE_TRIPS:g} round trips"
    if independent(k):
        return Part("pass", f"its latency does not depend on distance {up_to}: {found}, within {bound} of none")
    if low > NEGLIGIBLE_TRIPS:
        return Part("fail", f"its latency grows with distance {up_to}: {found}, more than {bound}")
    return Part("unknown", f"whether its latency depends on distance cannot be told: {found}, which reaches beyond {bound}")


def small_recovery_point(drills: Sequence[DrillResult]) -> Part:
    """What a loss of the near site cost under protocol A, at worst."""
    kills = [item for item in drills if item.kind == "kill" and item.protocol == "A"]
    if not kills:
        return Part("unknown", "no kill was drilled under protocol A, so its recovery point was not measured")
    said = "; ".join(kill_text(item) for item in kills)
    damaged = sum(item.damaged for item in kills)
    if damaged:
        return Part("fail", said)
    known = [item.recovery_point_ns_max for item in kills if item.recovery_point_ns_max is not None]
    if not known:
        return Part("unknown", f"{said}; how old the oldest lost write was is not known")
    bound = f"the claim gives no number, {format_time(SMALL_RECOVERY_POINT_NS)} is ours"
    if max(known) < SMALL_RECOVERY_POINT_NS:
        return Part("pass", f"{said} ({bound})")
    return Part("fail", f"{said}: more than what we call small ({bound})")


def lag_text(cells: Sequence[CellResult]) -> str:
    """How far the far site was behind, from the nearest to the farthest distance of a workload."""

    def lag(cell: CellResult) -> str:
        found = cell.lag_ns_p99
        text = time_text(found) if found is not None and found.value is not None else "unknown"
        return f"{text} at {cell.miles:g} miles"

    ends = dict.fromkeys([lag(cells[0]), lag(cells[-1])])
    return (
        f"{cells[0].name}: lag p99 {', '.join(ends)}; at most {times(max(c.lag_writes_max or 0 for c in cells), 'write')} "
        f"({format_size(max(c.lag_bytes_max or 0 for c in cells))}) not known to be at the far site"
    )


def bandwidth_text(cell: CellResult) -> str:
    """What the link had to carry on average."""
    goodput = cell.goodput_bytes_per_s.value or 0.0
    on_wire = goodput * (cell.wire_bytes_per_user_byte.value or 1.0) * 8
    rate = f"{digits(on_wire / 1e6)} Mbit/s on average"
    return f"{cell.name} at {cell.miles:g} miles needed {rate}, TCP's headers not counted"


# Sentences they share


def the_cell(cells: Sequence[CellResult], protocol: str, miles: float) -> CellResult | None:
    """The closed loop of one 4 KiB write at a time nearest to a distance, if one is near enough; "write" goes first."""
    near = [
        item for item in cells
        if item.protocol == protocol and item.queue_depth == 1 and item.arrival == "closed"
        and item.size_bytes == SIZE_BYTES and abs(item.miles - miles) <= MILES_TOLERANCE_RATIO * miles
    ]  # fmt: skip
    return min(near, key=lambda item: (item.name != "write", abs(item.miles - miles)), default=None)


def judged(cell: CellResult, estimate: Estimate, limit_ns: float) -> tuple[Verdict, str]:
    """(verdict on a latency of a cell against a limit, why it is withheld); the reason is empty when the verdict stands."""
    found = against(estimate, limit_ns)
    if cell.latency_doubts:
        return found, "; ".join(cell.latency_doubts)
    late = late_doubt(estimate.late_ns, found, against(without_lateness(estimate), limit_ns))
    return found, link_doubt(cell.link_error_ns, limit_ns) or late


def against(estimate: Estimate, budget: float) -> Verdict:
    """Pass when the whole interval lies below the budget, fail when the whole of it lies above."""
    if estimate.low is None or estimate.high is None:
        return "unknown"
    return "pass" if estimate.high < budget else "fail" if estimate.low > budget else "unknown"


def missing(cell: CellResult | None, protocol: str, miles: float) -> str:
    """Why there is no figure."""
    if cell is None:
        return f"one 4 KiB write at a time under protocol {protocol} was not measured at {miles:g} miles"
    warnings = cell.response_ns_p50.warnings or cell.response_ns_p99.warnings
    if cell.response_ns_p50.value is not None:
        warnings = cell.response_ns_p99.warnings
    return f"{cell.cell}: {'; '.join(warnings)}"


def spent(miles: Sequence[GreatestMiles], cell: CellResult | None, budget_ns: float) -> list[GreatestMiles]:
    """How far a budget reaches for the workload of a cell (of "write" when there is no such cell)."""
    name = cell.name if cell else "write"
    return [item for item in miles if (item.name, item.protocol, item.budget_ns) == (name, "C", budget_ns)]


def reach_text(items: Sequence[GreatestMiles]) -> str:
    """How far a budget reaches for each route factor, in one line."""
    names = {factor: name for name, factor in ROUTE_FACTORS.items()}
    told = {item.outcome for item in items} & {"measured", "beyond", "below"}
    if not told:
        reasons = dict.fromkeys(warning for item in items for warning in item.miles.warnings)
        return f"cannot be put in miles: {'; '.join(reasons)}"
    said = (f"{item.route_factor:.1f} ({names.get(item.route_factor, 'as asked')}) {far_text(item)}" for item in items)
    return ", ".join(said)


def spent_text(item: GreatestMiles) -> str:
    """Where a budget is spent, in words."""
    if item.outcome == "measured":
        return f"is spent at {far_text(item)}"
    if item.outcome == "beyond":
        return f"holds at {item.beyond_miles:.0f} miles, the farthest measured"
    if item.outcome == "below":
        return f"is spent {far_text(item)}"
    return f"cannot be put in miles: {'; '.join(item.miles.warnings)}"


def far_text(item: GreatestMiles) -> str:
    """Miles with their interval, or on which side of what was measured they lie."""
    if item.outcome == "beyond":
        return f"beyond {item.beyond_miles:.0f} miles, not measured"
    if item.outcome == "below":
        return f"below {item.below_miles:.0f} miles, the nearest measured" if item.below_miles else "before the first mile"
    if item.miles.value is None:
        return "; ".join(item.miles.warnings)
    doubt = f" ({UNSOUND})" if UNSOUND in item.miles.warnings else ""
    return f"{miles_text(item.miles, open_above=item.beyond_miles is not None)}{doubt}"


def physics_text() -> str:
    """Why C1's 2 ms and C2's 150 miles cannot be one rule."""
    near_ms, far_ms = rtt_ns_of(C1_MILES) / NS_PER_MS, rtt_ns_of(C2_MILES) / NS_PER_MS
    return (
        f"light alone needs {near_ms:.3f} ms for the round trip over {C1_MILES:g} miles of glass and {far_ms:.3f} ms "
        f"over {C2_MILES:g}: C1's 2 ms and C2's {C2_MILES:g} miles cannot both follow from one round-trip rule"
    )


def limits_text(cell: CellResult) -> str:
    """A latency beside the limits that products state."""
    if cell.latency_doubts:
        return f"no verdict on the limits that products state, at {cell.miles:g} miles: {'; '.join(cell.latency_doubts)}"
    said = []
    for limit in PRODUCT_LIMITS:
        if limit.rtt_ns is None or limit.rtt_ns < 2 * NS_PER_MS:
            continue
        verdicts = []
        for q, item in ((0.5, cell.response_ns_p50), (0.99, cell.response_ns_p99)):
            found, doubt = judged(cell, item, limit.rtt_ns)
            verdicts.append(doubt or f"{label(q)} {WITHIN[found]}")
        said.append(f"{limit.name}: {', '.join(dict.fromkeys(verdicts))}")
    return f"beside the limits that products state, at {cell.miles:g} miles: {'; '.join(said)}"


WITHIN = {"pass": "within", "fail": "beyond", "unknown": "undecided"}


def kill_text(item: DrillResult) -> str:
    """What kills cost, in writes, bytes and seconds, or the bound when they cost nothing."""
    kills = times(item.count, "kill")
    where = f"{kills} at {item.miles:g} miles"
    bound = f"{item.loss_probability_high:.2g}" if item.loss_probability_high is not None else "unknown"
    damage = f", {item.damaged} damaged" if item.damaged else ""
    if not item.lost:
        return (
            f"0 of {item.completed:,} acknowledged writes lost{damage} in {where}: the probability that a kill loses "
            f"one is below {bound} at 95 %"
        )
    oldest = f", the oldest {format_time(item.recovery_point_ns_max)} old" if item.recovery_point_ns_max else ""
    return (
        f"{item.lost:,} of {item.completed:,} acknowledged writes lost{damage} in {item.drills_with_loss} of {where}; "
        f"at worst {times(item.lost_writes_max, 'write')} ({format_size(item.lost_bytes_max)}){oldest}"
    )


def confessions(recording: Recording, cell: CellResult | None) -> list[str]:
    """What a reader of the verdict has to know of the lab."""
    said = []
    if recording.lab.durability == "memory":
        said.append("journals were in memory: no disk is part of these figures")
    if recording.profile.distance.route_factor != 1.0:
        said.append(f"a mile here is {recording.profile.distance.route_factor:g} miles of glass")
    if cell is not None and cell.rounds_ok:
        said += cell.warnings
    return said


def latency_text(cell: CellResult) -> str:
    """p50 and p99 with their intervals."""
    tail = cell.response_ns_p99
    p99 = f"p99 {time_text(tail)}" if tail.value is not None else f"p99 unknown: {'; '.join(tail.warnings)}"
    return f"p50 {time_text(cell.response_ns_p50)}, {p99}"


def times(count: int, what: str) -> str:
    """ "1 kill", "6 kills"."""
    return f"{count} {what}" if count == 1 else f"{count:,} {what}s"


def trips_text(k: float) -> str:
    """Round trips with two decimals, and no sign before 0.00."""
    return f"{round(k, 2) + 0.0:.2f}"
