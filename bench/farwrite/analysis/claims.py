"""The three claims of 2008 judged by one recording: pass, fail or unknown, each with a sentence.

C1  the verdict of `verdict.py` on the 4 KiB, depth 1, protocol C p99 at 20 miles being at most 2 ms; unknown when nothing was
    measured there.
C2  three parts: writes at 150 miles complete; no acknowledged write is lost in kills or found missing in rounds; writes
    go on completing while the far site cannot be reached. The claim promises no latency, so latency judges nothing.
C3  two parts: the latency of protocol A does not depend on distance; the recovery point is small. The first is an
    equivalence test (Schuirmann 1987): it passes when k is at most NEGLIGIBLE_TRIPS and at least as much below 0, fails when
    it is not at most that, and is unknown otherwise. Of the second the claim gives no number, so the worst over all kills is held
    against SMALL_RECOVERY_POINT_NS.

A claim of several parts fails when one part is refuted, passes when all hold, and is unknown otherwise. That no write
was lost in n kills is never written as a recovery point of nought: only the bound it gives is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import msgspec

from ..base import reasons
from ..base.physics import PRODUCT_LIMITS, ROUTE_FACTORS, rtt_ns_of
from ..base.reasons import Reason, joined, unsound
from ..base.units import NS_PER_MS, NS_PER_S, digits, format_size, format_time
from ..recording import Recording
from .answer import beyond_text, miles_text, not_durable_text, time_text
from .distance import NEGLIGIBLE_TRIPS, negligible
from .estimate import label
from .result import CellResult, Claim, DrillResult, Fit, GreatestMiles, Verdict
from .verdict import counted, decide, response_of_cell, within

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
WORD = {"pass": "holds", "fail": "fails", "unknown": "is undecided"}


class Part(NamedTuple):
    """One thing that a claim says, and what this run says to it."""

    verdict: Verdict
    sentence: str
    reasons: tuple[Reason, ...] = ()  # why it is unknown, where that has a code


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
    if not recording.lab.is_stream_level:
        return found
    return [
        msgspec.structs.replace(claim, sentence=f"{claim.sentence} (stream-level)", why=f"{claim.why} (stream-level)")
        for claim in found
    ]


def claim_c1(recording: Recording, cells: Sequence[CellResult], miles: Sequence[GreatestMiles]) -> Claim:
    """2 ms at 20 miles, and where 2 ms are really spent."""
    cell = the_cell(cells, "C", C1_MILES)
    details = [
        f"2 ms at {label(quantile)}, by glass over straight line: {reach_text(list(items))}"
        for quantile, items in groupby(spent(miles, cell, C1_BUDGET_NS), key=lambda item: item.quantile)
    ]
    details.append(physics_text())
    details += caveats(recording, cell)
    if cell is None or cell.response_ns_p99.value is None:
        return Claim(
            id="C1", claim=TEXT["C1"], verdict="unknown", details=details, why=missing(cell, "C", C1_MILES),
            reasons=[] if cell is None else cell.response_ns_p99.warnings,
            sentence=f"C1 is undecided: {missing(cell, 'C', C1_MILES)}",
        )  # fmt: skip
    p99 = cell.response_ns_p99
    found = decide(response_of_cell(cell, 0.99), at_most=C1_BUDGET_NS, interrupted=recording.interrupted)
    verdict = found.verdict
    sentence = f"C1 {WORD[verdict]} at {cell.miles:g} miles: p99 {time_text(p99)} of 2 ms"
    reach = [item for item in spent(miles, cell, C1_BUDGET_NS) if item.quantile == 0.99 and item.route_factor == 1.0]
    tail = f"; 2 ms {spent_text(reach[0])}" if reach else ""
    why = f"p99 {time_text(p99)} of 2 ms"
    if found.withheld:
        sentence += f", but no verdict may rest on it: {joined(found.reasons)}"
        why = joined(found.reasons)
    elif verdict == "unknown":
        sentence += ", whose interval has 2 ms inside: measure more rounds"
        why += ", whose interval has 2 ms inside: measure more rounds"
    return Claim(
        id="C1", claim=TEXT["C1"], verdict=verdict, sentence=sentence + tail, details=details, why=why + tail,
        reasons=[*found.reasons],
    )  # fmt: skip


def claim_c2(recording: Recording, cells: Sequence[CellResult], drills: Sequence[DrillResult]) -> Claim:
    """150 miles, no acknowledged write lost, always available: three parts."""
    cell = the_cell(cells, "C", C2_MILES)
    parts = [works(cell), on_what(recording, nothing_lost(cells, drills)), available(drills)]
    parts = [unless_interrupted(recording, part) for part in parts]
    details: list[str] = []
    if cell is not None and cell.response_ns_p99.value is not None:
        details.append(limits_text(cell, recording.interrupted))
    details += caveats(recording, cell)
    return combined("C2", parts, details)


def claim_c3(
    recording: Recording, cells: Sequence[CellResult], fits: Sequence[Fit], drills: Sequence[DrillResult]
) -> Claim:
    """Any distance, a small recovery point: two parts, and the bandwidth it took."""
    mine = sorted((item for item in cells if item.protocol == "A"), key=lambda item: (item.name, item.miles))
    recovery = Part("unknown", RELAY_IS_KIND) if recording.lab.is_stream_level else small_recovery_point(drills)
    parts = [any_distance(fits, recording.interrupted), unless_interrupted(recording, recovery)]
    lagging = [item for item in mine if item.lag_ns_p99 is not None and item.rounds_ok]
    details = [lag_text(list(items)) for _, items in groupby(lagging, key=lambda item: item.name)]
    details += [bandwidth_text(item) for item in mine[-1:] if item.goodput_bytes_per_s.value]
    details += caveats(recording, mine[-1] if mine else None)
    return combined("C3", parts, details)


def combined(name: str, parts: Sequence[Part], details: list[str]) -> Claim:
    """A claim from its parts: those that decide it are its sentence, the others come first among the details."""
    verdicts = [part.verdict for part in parts]
    verdict: Verdict = "fail" if "fail" in verdicts else "unknown" if "unknown" in verdicts else "pass"
    deciding = "; ".join(part.sentence for part in parts if part.verdict == verdict)
    others = [f"{ALSO[part.verdict]}: {part.sentence}" for part in parts if part.verdict != verdict]
    word = {"fail": "fails as it is stated", "pass": "holds"}.get(verdict, WORD[verdict])
    return Claim(
        id=name, claim=TEXT[name], verdict=verdict, sentence=f"{name} {word}: {deciding}", details=[*others, *details],
        why=deciding, reasons=list(dict.fromkeys(one for part in parts if part.verdict == verdict for one in part.reasons)),
    )  # fmt: skip


def unless_interrupted(recording: Recording, part: Part) -> Part:
    """A part that counts decide: half a run may refute it and cannot prove it."""
    decided = counted(part.verdict != "fail", reasons.interrupted() if recording.interrupted else None)
    if part.verdict != "pass" or decided.verdict == "pass":
        return part
    return Part("unknown", f"{part.sentence}, but {decided.remark}", tuple(decided.reasons))


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
        return Part("unknown", f"{sentence}, but no verdict may rest on it: {joined(cell.withheld)}", tuple(cell.withheld))
    return Part("pass", sentence)


def on_what(recording: Recording, part: Part) -> Part:
    """That no write was lost, with what it was not tried on: processes were killed, and memory outlives a process."""
    if part.verdict != "pass" or not recording.lab.not_durable:
        return part
    text = not_durable_text(recording.lab)
    return Part(part.verdict, f"{part.sentence}; {text}, so this is of killed processes and not of a loss of power")


def nothing_lost(cells: Sequence[CellResult], drills: Sequence[DrillResult]) -> Part:
    """What of the acknowledged writes was missing at the far site."""
    kills = [item for item in drills if item.kind == "kill" and item.protocol == "C"]
    cuts = [item for item in drills if item.kind == "cut" and item.protocol == "C"]
    in_rounds = sum((item.lost or 0) + (item.damaged or 0) for item in cells if item.protocol == "C")
    in_cuts = sum(item.lost_in_all + item.damaged_in_all for item in cuts)
    lost = sum(item.lost_in_all + item.damaged_in_all for item in kills)
    kills_text = "; ".join(kill_text(item) for item in kills)
    if lost or in_rounds or in_cuts:
        also = [f"{in_rounds} acknowledged writes lost or damaged in measured rounds"] if in_rounds else []
        also += [f"{in_cuts} acknowledged writes lost or damaged after a cut"] if in_cuts else []
        return Part("fail", "; ".join(([kills_text] if kills_text else []) + also))
    if not kills:
        return Part("unknown", "no kill was drilled under protocol C, so its recovery point was not measured")
    if not any(item.count for item in kills):
        return Part("unknown", kills_text)
    return Part("pass", kills_text)


def available(drills: Sequence[DrillResult]) -> Part:
    """Whether writes went on completing while the far site could not be reached."""
    cuts = [item for item in drills if item.kind == "cut" and item.protocol == "C"]
    known = [item.completed_during_cut_max for item in cuts if item.completed_during_cut_max is not None]
    uncounted = "".join(f"; {item.uncounted_text}" for item in cuts if item.uncounted)
    if not known:
        what = "counts" if uncounted else "was drilled"
        return Part(
            "unknown", f"no cut of the link {what} under protocol C, so its availability was not measured{uncounted}"
        )
    count = sum(item.count for item in cuts)
    if not max(known):
        resumed_ns = [item.recovery_time_ns_max for item in cuts if item.recovery_time_ns_max is not None]
        later = f"; writes completed again {format_time(max(resumed_ns))} after the heal at the latest" if resumed_ns else ""
        return Part(
            "fail",
            f"while the far site could not be reached nothing was acknowledged, in {times(count, 'cut')} of the link: "
            f"100 % available is refuted{later}{uncounted}",
        )
    return Part(
        "pass",
        f"while the far site could not be reached writes were acknowledged, up to {max(known)} in one of "
        f"{times(count, 'cut')}; those stood on the near site alone{uncounted}",
    )


# The parts of C3


def any_distance(fits: Sequence[Fit], interrupted: bool = False) -> Part:
    """Whether the latency of protocol A knows the distance."""
    mine = [item for item in fits if item.protocol == "A" and item.quantile == 0.5]
    mine = [item for item in mine if item.queue_depth == 1] or mine
    if not mine:
        return Part("unknown", "protocol A was not measured at three distances, so what distance costs it is not known")
    fit = mine[0]
    k = fit.k
    assert k.value is not None
    at_most, at_least = negligible(k, interrupted)
    doubts = [*k.warnings, *(one for one in at_most.reasons if at_most.withheld and one not in k.warnings)]
    if k.low is None or k.high is None or at_most.withheld:
        found = f"k {trips_text(k.value)} round trips a write at p50"
        return Part(
            "unknown", f"whether its latency depends on distance is unknown: {found}, {joined(doubts)}", tuple(doubts)
        )
    low, high = k.low, k.high
    found = f"k {trips_text(k.value)} round trips a write [{trips_text(low)}, {trips_text(high)}] at p50"
    tails = [item.k.value for item in fits if (item.protocol, item.name, item.quantile) == ("A", fit.name, 0.99)]
    if tails and tails[0] is not None:
        found += f", {trips_text(tails[0])} at p99"
    up_to = f"up to {fit.rtt_ns_high / NS_PER_MS:.3g} ms of round trip"
    bound = f"{NEGLIGIBLE_TRIPS:g} round trips"
    if at_most.verdict == at_least.verdict == "pass":
        return Part("pass", f"its latency does not depend on distance {up_to}: {found}, within {bound} of none")
    if at_most.verdict == "fail":
        return Part("fail", f"its latency grows with distance {up_to}: {found}, more than {bound}")
    return Part("unknown", f"whether its latency depends on distance is unknown: {found}, which reaches beyond {bound}")


def small_recovery_point(drills: Sequence[DrillResult]) -> Part:
    """What a loss of the near site cost under protocol A, at worst."""
    kills = [item for item in drills if item.kind == "kill" and item.protocol == "A"]
    if not kills:
        return Part("unknown", "no kill was drilled under protocol A, so its recovery point was not measured")
    kills_text = "; ".join(kill_text(item) for item in kills)
    if sum(item.damaged_in_all for item in kills):
        return Part("fail", kills_text)
    if not any(item.count for item in kills):
        return Part("unknown", kills_text)
    known = [item.recovery_point_ns_max for item in kills if item.recovery_point_ns_max is not None]
    if not known:
        return Part("unknown", f"{kills_text}; how old the oldest lost write was is not known")
    bound = f"the claim gives no number, {format_time(SMALL_RECOVERY_POINT_NS)} is ours"
    if within(max(known), SMALL_RECOVERY_POINT_NS, "at_most"):
        return Part("pass", f"{kills_text} ({bound})")
    return Part("fail", f"{kills_text}: more than what we call small ({bound})")


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


def missing(cell: CellResult | None, protocol: str, miles: float) -> str:
    """Why there is no figure."""
    if cell is None:
        return f"one 4 KiB write at a time under protocol {protocol} was not measured at {miles:g} miles"
    warnings = cell.response_ns_p50.warnings or cell.response_ns_p99.warnings
    if cell.response_ns_p50.value is not None:
        warnings = cell.response_ns_p99.warnings
    return f"{cell.cell}: {joined(warnings)}"


def spent(miles: Sequence[GreatestMiles], cell: CellResult | None, budget_ns: float) -> list[GreatestMiles]:
    """How far a budget reaches for the workload of a cell (of "write" when there is no such cell)."""
    name = cell.name if cell else "write"
    return [item for item in miles if (item.name, item.protocol, item.budget_ns) == (name, "C", budget_ns)]


def reach_text(items: Sequence[GreatestMiles]) -> str:
    """How far a budget reaches for each route factor, in one line."""
    names = {factor: name for name, factor in ROUTE_FACTORS.items()}
    answered = {item.outcome for item in items} & {"measured", "beyond", "below"}
    if not answered:
        return f"cannot be put in miles: {joined(dict.fromkeys(one for item in items for one in item.miles.warnings))}"
    texts = (f"{item.route_factor:.1f} ({names.get(item.route_factor, 'as asked')}) {far_text(item)}" for item in items)
    return ", ".join(texts)


def spent_text(item: GreatestMiles) -> str:
    """Where a budget is spent, in words."""
    if item.outcome == "measured":
        return f"is spent at {far_text(item)}"
    if item.outcome == "beyond":
        return f"holds at {item.beyond_miles:.0f} miles, the farthest measured"
    if item.outcome == "below":
        return f"is spent {far_text(item)}"
    return f"cannot be put in miles: {joined(item.miles.warnings)}"


def far_text(item: GreatestMiles) -> str:
    """Miles with their interval, or on which side of what was measured they lie."""
    if item.outcome == "beyond":
        return beyond_text(item)
    if item.outcome == "below":
        return f"below {item.below_miles:.0f} miles, the nearest measured" if item.below_miles else "before the first mile"
    if item.miles.value is None:
        return joined(item.miles.warnings)
    found = unsound.among(item.miles.warnings)
    doubt = f" ({found})" if found else ""
    return f"{miles_text(item.miles, open_above=item.beyond_miles is not None)}{doubt}"


def physics_text() -> str:
    """Why C1's 2 ms and C2's 150 miles cannot be one rule."""
    near_ms, far_ms = rtt_ns_of(C1_MILES) / NS_PER_MS, rtt_ns_of(C2_MILES) / NS_PER_MS
    return (
        f"light alone needs {near_ms:.3f} ms for the round trip over {C1_MILES:g} miles of glass and {far_ms:.3f} ms "
        f"over {C2_MILES:g}: C1's 2 ms and C2's {C2_MILES:g} miles cannot both follow from one round-trip rule"
    )


def limits_text(cell: CellResult, interrupted: bool = False) -> str:
    """A latency beside the limits that products state."""
    if cell.latency_doubts:
        return f"no verdict on the limits that products state, at {cell.miles:g} miles: {joined(cell.latency_doubts)}"
    clauses = []
    for limit in PRODUCT_LIMITS:
        if limit.rtt_ns is None or limit.rtt_ns < 2 * NS_PER_MS:
            continue
        verdicts = []
        for q in (0.5, 0.99):
            found = decide(response_of_cell(cell, q), at_most=limit.rtt_ns, interrupted=interrupted)
            verdicts.append(joined(found.reasons) if found.withheld else f"{label(q)} {WITHIN[found.verdict]}")
        clauses.append(f"{limit.name}: {', '.join(dict.fromkeys(verdicts))}")
    return f"beside the limits that products state, at {cell.miles:g} miles: {'; '.join(clauses)}"


WITHIN = {"pass": "within", "fail": "beyond", "unknown": "undecided"}


def kill_text(item: DrillResult) -> str:
    """What kills cost, in writes, bytes and seconds, or the bound when they cost nothing."""
    if not item.count:
        return f"no kill at {item.miles:g} miles counts, so its recovery point was not measured; {item.uncounted_text}"
    kills = times(item.count, "kill")
    where = f"{kills} at {item.miles:g} miles"
    uncounted = f"; {item.uncounted_text}" if item.uncounted else ""
    bound = f"{item.loss_probability_high:.2g}" if item.loss_probability_high is not None else "unknown"
    damage = f", {item.damaged} damaged" if item.damaged else ""
    if not item.lost:
        return (
            f"0 of {item.completed:,} acknowledged writes lost{damage} in {where}: the probability that a kill loses "
            f"one is below {bound} at 95 %{uncounted}"
        )
    oldest = f", the oldest {format_time(item.recovery_point_ns_max)} old" if item.recovery_point_ns_max else ""
    return (
        f"{item.lost:,} of {item.completed:,} acknowledged writes lost{damage} in {item.drills_with_loss} of {where}; "
        f"at worst {times(item.lost_writes_max, 'write')} ({format_size(item.lost_bytes_max)}){oldest}{uncounted}"
    )


def caveats(recording: Recording, cell: CellResult | None) -> list[str]:
    """What a reader of the verdict has to know of the lab."""
    notes = []
    if recording.lab.durability == "memory":
        notes.append("journals were in memory: no disk is part of these figures")
    elif recording.lab.not_durable:
        notes.append(f"{not_durable_text(recording.lab)}: no loss of power is part of these figures")
    if recording.profile.distance.route_factor != 1.0:
        notes.append(f"a mile here is {recording.profile.distance.route_factor:g} miles of glass")
    if cell is not None and cell.rounds_ok:
        notes += map(str, cell.warnings)
    return notes


def latency_text(cell: CellResult) -> str:
    """p50 and p99 with their intervals."""
    tail = cell.response_ns_p99
    p99 = f"p99 {time_text(tail)}" if tail.value is not None else f"p99 unknown: {joined(tail.warnings)}"
    return f"p50 {time_text(cell.response_ns_p50)}, {p99}"


def times(count: int, what: str) -> str:
    """ "1 kill", "6 kills"."""
    return f"{count} {what}" if count == 1 else f"{count:,} {what}s"


def trips_text(k: float) -> str:
    """Round trips with two decimals, and no sign before 0.00."""
    return f"{round(k, 2) + 0.0:.2f}"
