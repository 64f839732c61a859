"""From a recording to its analysis: `analyse` reads like the list of what is found out.

Pure: files in, numbers out, no clock. The dice of the bootstrap are seeded from the recording, so the same file gives
the same numbers anywhere. Only rounds with status "ok" are measured by; losses are counted wherever they were found.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from ..base import reasons
from ..base.protocol import PROMISES
from ..base.reasons import Code, Reason, about, few_rounds, joined, no_bare_flush, no_write, saturated
from ..recording import Cell, OtherRound, Recording, Round, causes_of, waited_for, waited_rtt_ns
from ..workload.link_spec import tolerance_ns
from .answer import not_durable_text
from .breakdown import latency, part_results
from .claims import claims_of
from .distance import BUDGETS_NS, Place, greatest_miles, lines
from .drill import drill_results
from .estimate import Draws, unknown
from .floor import Floor, Flushes, efficiency_of, floor_of, flushes_of, nearest_size, tighter
from .latency import Pool
from .noise import host_noise
from .own_budgets import budget_results
from .reach import reach_of
from .result import (
    ANALYSIS_VERSION,
    ROUNDS_MIN,
    Analysis,
    CellResult,
    DrillResult,
    Estimate,
    FiveRounds,
    OtherResult,
    PartResult,
    beaten_doubt,
    lateness_share_of,
)
from .sample import Sample, decode, decode_all, decode_known, pooled
from .snia import five_rounds
from .steady import MARGIN, Steadiness, steadiness_of
from .throughput import completed_per_s, cpu_ns_per_write, goodput_bytes_per_s, per_second, with_slices
from .void import cause_of

MANY_VOID = 0.1  # Of all rounds, void for their link.
OWN_OF_LAB = 1.2  # From here on an asynchronous write is so much over a local flush that its reader must know why.
DRIFT_ROUNDS_MIN = 8  # Of fewer an autocorrelation cannot be told from chance.


@dataclass(frozen=True)
class Measured:
    """One cell's good rounds, unpacked, on their way to a result."""

    cell: Cell
    rounds: list[Round]
    steadiness: Steadiness
    rtt: Pool  # to the cell's own far site
    waited_rtt: Pool  # to the peer whose acknowledgement a write waits for last; the echoes are its as well
    echo: Pool
    flushed_echo: Pool
    polled_echo: Pool
    polled_flushed_echo: Pool
    response: Pool
    service: Pool
    wait: Pool
    late: Pool
    lag: Pool
    others: list[OtherResult]
    parts: list[PartResult]


def analyse(recording: Recording) -> Analysis:
    """Everything that can be said of one recording."""
    if recording.workers:
        return analyse_workers(recording)
    indices = [item.index for item in recording.rounds] + [item.index for item in recording.floors]
    draws = Draws(recording.seed, 1 + max(indices, default=0))
    flushes = flushes_of(recording.floors, draws, decode)
    base = Pool("base_rtt", [0], [decode(recording.lab.base_rtt)], draws)
    measured = [measure(cell, good_rounds(recording, cell), draws) for cell in recording.cells]
    cells = [cell_result(item, recording, flushes, base) for item in measured]
    fitted = lines(
        [
            Place(
                item.cell, item.waited_rtt, item.response, not result.latency_doubts, recording.lab.distance, late_at(result)
            )
            for item, result in zip(measured, cells, strict=True)
        ]
    )
    fits = [line.fit for line in fitted]
    budgets_ns = budgets_of(recording)
    equipment_ns = recording.profile.distance.equipment_ns
    miles = [found for line in fitted for found in greatest_miles(line, equipment_ns, budgets_ns)]
    drills = drill_results(recording.drills)
    bare = nearest_size(flushes, 4096)
    return Analysis(
        version=ANALYSIS_VERSION,
        cells=cells,
        fits=fits,
        miles=miles,
        drills=drills,
        claims=claims_of(recording, cells, fits, miles, drills) if is_about_claims(recording) else [],
        base_rtt_ns=without(base.estimate(0.5), few_rounds),
        near_flush_ns=flush_estimate(bare, "near_alone"),
        far_flush_ns=flush_estimate(bare, "far_alone"),
        near_flush_both_ns=flush_estimate(bare, "near_both"),
        far_flush_both_ns=flush_estimate(bare, "far_both"),
        warnings=[*warnings_of(recording, cells), *drill_warnings(drills)],
        reach=reach_of(recording, cells, miles),
        budgets=budget_results(recording, cells, miles),
    )


def is_about_claims(recording: Recording) -> bool:
    """Whether the claims of 2008 are ruled on: where the profile is about them, and asks no other question than theirs."""
    asked = recording.profile
    return asked.claims is not False and not (asked.reach.budget_ns or asked.sweep.time_ns)


def budgets_of(recording: Recording) -> tuple[int, ...]:
    """The budgets whose greatest miles are looked for: that of a search, otherwise the usual ones and the run's own."""
    asked = recording.profile
    if asked.reach.budget_ns:
        return (asked.reach.budget_ns,)
    return tuple(sorted({*BUDGETS_NS, *(item.limit_ns for item in asked.budget)}))


def analyse_workers(recording: Recording) -> Analysis:
    """The analysis of cells that were spread over machines: those of each machine against its own floors, then all together."""
    parts = []
    for number, worker in enumerate(recording.workers):
        if worker.cells:
            mine = set(worker.cells)
            part = msgspec.structs.replace(
                recording, workers=[], host=worker.host, lab=worker.lab,
                cells=[cell for cell in recording.cells if cell.id in mine],
                rounds=[item for item in recording.rounds if item.cell in mine],
                floors=[item for item in recording.floors if item.worker == number],
            )  # fmt: skip
            parts.append((number, analyse(part)))
    if not parts:
        return analyse(msgspec.structs.replace(recording, workers=[]))
    by_cell = {cell.cell: cell for _, part in parts for cell in part.cells}
    cells = [by_cell[cell.id] for cell in recording.cells if cell.id in by_cell]
    first = parts[0][1]
    miles = [item for _, part in parts for item in part.miles]
    return msgspec.structs.replace(
        first,
        cells=cells,
        fits=[fit for _, part in parts for fit in part.fits],
        miles=miles,
        budgets=budget_results(recording, cells, miles),
        warnings=[about(f"machine {number + 1}", reason) for number, part in parts for reason in part.warnings],
    )


def late_at(result: CellResult) -> list[float]:
    """The quantiles of which too much is the generator's lateness for a fit."""
    return [q for q, found in ((0.5, result.response_ns_p50), (0.99, result.response_ns_p99)) if lateness_share_of(found)]


def good_rounds(recording: Recording, cell: Cell) -> list[Round]:
    """The rounds of a cell that may be averaged in, by index."""
    good = [item for item in recording.rounds if item.cell == cell.id and item.status == "ok"]
    return sorted(good, key=lambda item: (item.index, item.attempt))


def measure(cell: Cell, rounds: list[Round], draws: Draws) -> Measured:
    """The cell's histograms, unpacked, without the slices of its warm-up."""
    slices = [decode_all(item.response for item in round_.slices) for round_ in rounds]
    steadiness = steadiness_of(slices)
    indices = [round_.index for round_ in rounds]

    def pool(name: str, samples: Iterable, batches: Sequence[Sample] = ()) -> Pool:
        return Pool(f"{cell.id}/{name}", indices, list(samples), draws, batches)

    kept = [items[steadiness.dropped :] for items in slices]

    links = [waited_for(cell, item) for item in rounds]
    own = all(link is item for link, item in zip(links, rounds, strict=True))

    def surveyed(name: str, links: Sequence[Round | OtherRound]) -> Pool:
        found = decode_all(text for item in links for text in (item.survey_before, item.survey_after))
        return pool(name, map(pooled, zip(found[::2], found[1::2], strict=True)))

    def echoed(name: str, field: str) -> Pool:
        return pool(name, decode_known(getattr(item, field) for item in links))

    late = pool("late", decode_all(item.late for item in rounds))
    return Measured(
        cell=cell,
        rounds=rounds,
        steadiness=steadiness,
        rtt=surveyed("rtt", rounds),
        waited_rtt=surveyed("rtt" if own else "waited_rtt", links),
        echo=echoed("echo", "echo_floor"),
        flushed_echo=echoed("flushed_echo", "flushed_echo_floor"),
        polled_echo=echoed("polled_echo", "polled_echo_floor"),
        polled_flushed_echo=echoed("polled_flushed_echo", "polled_flushed_echo_floor"),
        response=pool("response", (pooled(items) for items in kept), [item for items in kept for item in items]),
        service=pool("service", decode_all(item.service for item in rounds)),
        wait=pool("wait", decode_all(item.wait for item in rounds)),
        late=late,
        lag=pool("lag", decode_known(item.lag for item in rounds)),
        others=[
            OtherResult(
                miles=other.miles, asked_rtt_ns=other.asked_rtt_ns,
                rtt_ns_p50=surveyed(f"rtt {place + 1}", [item.others[place] for item in rounds]).estimate(0.5),
            )
            for place, other in enumerate(cell.others)
        ],
        parts=part_results(cell, rounds, draws, late),
    )  # fmt: skip


def cell_result(measured: Measured, recording: Recording, flushes: list[Flushes], base: Pool) -> CellResult:
    """One cell over all its good rounds."""
    cell, rounds, dropped = measured.cell, measured.rounds, measured.steadiness.dropped
    mine = [item for item in recording.rounds if item.cell == cell.id]
    rtt_ns = measured.rtt.quantile(0.5)
    # Nothing is claimed at 0 miles, where an echo takes the lab's own and a packet the emulation's passage.
    at_none_ns = rtt_ns if recording.lab.distance == "light" else base.quantile(0.5)
    asked_rtt_ns = float(cell.asked_rtt_ns) or at_none_ns
    bare = nearest_size(flushes, cell.size_bytes)
    floor = floor_of(
        cell, bare, measured.waited_rtt, tighter(measured.echo, measured.polled_echo),
        tighter(measured.flushed_echo, measured.polled_flushed_echo), recording.lab.shared_disk,
    )  # fmt: skip
    completed = sum(item.completed for item in rounds)
    audits = [item.audit for item in mine if item.audit]
    lags = [item for item in rounds if item.lag is not None]
    light_ns = light_ns_of(cell) if recording.lab.distance == "light" else 0.0
    result = CellResult(
        cell=cell.id,
        name=cell.name,
        protocol=cell.protocol,
        miles=cell.miles,
        queue_depth=cell.queue_depth,
        arrival=cell.arrival,
        size_bytes=cell.size_bytes,
        rounds_ok=len(rounds),
        rounds_void=sum(item.status == "void" for item in mine),
        rounds_failed=sum(item.status == "failed" for item in mine),
        void_reasons=sorted({reason for item in mine if item.status != "ok" for reason in causes_of(item)}, key=str),
        asked_rtt_ns=asked_rtt_ns if asked_rtt_ns == asked_rtt_ns else 0.0,
        rtt_ns_min=measured.rtt.minimum(),
        rtt_ns_p50=measured.rtt.estimate(0.5),
        rtt_ns_p99=measured.rtt.estimate(0.99),
        warmup_ns=max((sum(part.duration_ns for part in item.slices[:dropped]) for item in rounds), default=0),
        steady=measured.steadiness.steady,
        response_ns_p50=not_beyond_light(latency(cell, measured.response, measured.late, 0.5), light_ns),
        response_ns_p99=not_beyond_light(latency(cell, measured.response, measured.late, 0.99), light_ns),
        response_ns_p999=not_beyond_light(latency(cell, measured.response, measured.late, 0.999), light_ns),
        service_ns_p50=measured.service.estimate(0.5),
        wait_ns_p99=latency(cell, measured.wait, measured.late, 0.99),
        late_ns_p99=measured.late.estimate(0.99),
        floor_ns=floor.estimate,
        floor_text=floor_text(floor, recording),
        efficiency=efficiency_of(floor, measured.response),
        completed_per_s=completed_per_s(rounds, dropped, None if cell.arrival == "trace" else cell.offered_per_s),
        goodput_bytes_per_s=goodput_bytes_per_s(rounds, dropped),
        offered_per_s=cell.offered_per_s,
        completed=completed,
        unacknowledged=sum(item.unacknowledged for item in rounds),
        lost=sum(item.lost for item in audits) if audits else None,
        damaged=sum(item.damaged for item in audits) if audits else None,
        flushes_per_write=share(rounds, "flushes", "completed"),
        far_flushes_per_write=share(rounds, "far_flushes", "completed"),
        wire_bytes_per_user_byte=share(rounds, "wire_bytes", "completed_bytes"),
        cpu_ns_per_write=cpu_ns_per_write(rounds),
        lag_ns_p99=measured.lag.estimate(0.99) if lags else None,
        lag_writes_max=max((item.lag_writes_max for item in lags), default=None),
        lag_bytes_max=max((item.lag_bytes_max for item in lags), default=None),
        withheld=withheld(measured, asked_rtt_ns, rtt_ns),
        warnings=cell_warnings(measured),
        others=measured.others,
        parts=measured.parts,
        quorum=cell.quorum,
        exposed=sum(item.exposed for item in rounds),
        five_rounds=five_of(measured) if recording.profile.run.steady else [],
        effective_count=measured.response.effective_count(0.5),
        host_noise=host_noise(cell, rounds, recording.profile.run.steal_max),
        catch_up_ns_max=max((item.catch_up_ns for item in rounds if item.catch_up_ns is not None), default=None),
    )
    if doubt := lateness_share_of(result.response_ns_p99):
        result = msgspec.structs.replace(result, warnings=[*result.warnings, about("response p99", doubt)])
    return result if rounds else with_reason(result, why_none(mine))


def five_of(measured: Measured) -> list[FiveRounds]:
    """What SNIA's rule says of throughput and of the median response time, round by round, warm-up left out."""
    dropped = measured.steadiness.dropped
    rounds = with_slices(measured.rounds, dropped)
    rates = [per_second(item, dropped, "within") for item in rounds]
    medians = measured.response.alone(0.5)
    of_response = measured.response.indices
    return [
        five_rounds("completed_per_s", [item.index for item in rounds], rates),
        five_rounds("response_ns_p50", of_response, [float(medians[index]) for index in of_response]),
    ]


def floor_text(floor: Floor, recording: Recording) -> str:
    """How the floor was put together, and on what."""
    if recording.lab.durability == "memory":
        return f"{floor.text}, in memory"
    return f"{floor.text}, {not_durable_text(recording.lab)}" if recording.lab.not_durable else floor.text


def share(rounds: Sequence[Round], part: str, whole: str) -> Estimate:
    """A ratio of counts over all rounds."""
    parts = {item.index: getattr(item, part) for item in rounds}
    wholes = {item.index: getattr(item, whole) for item in rounds}
    total, of = sum(parts.values()), sum(wholes.values())
    if not of:
        return unknown(no_write())
    without = [
        (total - parts[index]) / (of - wholes[index]) if index in parts and of > wholes[index] else None
        for index in range(1 + max(parts))
    ]
    ratio = total / of
    return Estimate(value=ratio, low=ratio, high=ratio, confidence=1.0, count=of, without=without)


def why_none(mine: Sequence[Round]) -> Reason:
    """Why a cell has no good round, the most frequent reason first."""
    often = [reason for reason, _ in Counter(reason for item in mine for reason in causes_of(item)).most_common(3)]
    if not often:
        return reasons.no_good_round("it was not measured", "it was not measured")
    return reasons.no_good_round(joined(often), ", ".join(dict.fromkeys(map(cause_of, often))))


def with_reason(result: CellResult, reason: Reason) -> CellResult:
    """A result without a measurement, whose every estimate says why."""
    fields = {
        name: unknown(reason) for name in result.__struct_fields__ if isinstance(getattr(result, name), Estimate)
    }  # fmt: skip
    return msgspec.structs.replace(result, floor_text="not measured", withheld=[reason], **fields)


def withheld(measured: Measured, asked_rtt_ns: float, rtt_ns: float) -> list[Reason]:
    """Why no verdict may rest on this cell; empty when one may."""
    found = []
    if 0 < len(measured.rounds) < ROUNDS_MIN:
        found.append(few_rounds(len(measured.rounds)))
    off_ns = rtt_ns - asked_rtt_ns
    if measured.cell.protocol != "local" and abs(off_ns) > tolerance_ns(asked_rtt_ns):
        found.append(reasons.link_not_as_asked(rtt_ns, asked_rtt_ns))
    if faster := faster_than_light(measured):
        found.append(faster)
    return found


def light_ns_of(cell: Cell) -> float:
    """What light takes for the round trips that a write of this cell waits for; 0: for none."""
    return float(PROMISES[cell.protocol].trips * waited_rtt_ns(cell))


def not_beyond_light(estimate: Estimate, light_ns: float) -> Estimate:
    """The same with an interval that begins where light does, if each round did: from few rounds it is stretched beyond them."""
    known = [value for value in estimate.by_round if value is not None]
    if estimate.low is None or estimate.low >= light_ns or min(known, default=0.0) < light_ns:
        return estimate
    return msgspec.structs.replace(estimate, low=light_ns)


def faster_than_light(measured: Measured) -> Reason | None:
    """Why the latency of a protocol that waits for its peer can be none: light takes longer, by more than a link may be off."""
    light_ns = light_ns_of(measured.cell)
    median_ns = measured.response.quantile(0.5)
    return reasons.faster_than_light(median_ns, light_ns) if median_ns < light_ns - tolerance_ns(light_ns) else None


def cell_warnings(measured: Measured) -> list[Reason]:
    """What a reader must know of the whole cell."""
    warnings = []
    exposed = sum(item.exposed for item in measured.rounds)
    if exposed:
        caught_up = [item.catch_up_ns for item in measured.rounds]
        known = [item for item in caught_up if item is not None]
        warnings.append(reasons.exposed(exposed, max(known) if known == caught_up else None))
    steadiness = measured.steadiness
    if measured.rounds and steadiness.steady is None:
        warnings.append(reasons.steadiness_unknown())
    if steadiness.steady is False:
        warnings.append(reasons.unsteady(steadiness.growth_ratio, MARGIN))
    blocked = sum(item.blocked for item in measured.rounds)
    if blocked:
        warnings.append(reasons.waited_for_room(blocked))
    unacknowledged = sum(item.unacknowledged for item in measured.rounds)
    if unacknowledged:
        warnings.append(reasons.unacknowledged(unacknowledged))
    unissued = sum(item.unissued for item in measured.rounds)
    if unissued:
        warnings.append(reasons.unissued(unissued))
    return warnings


def flush_estimate(flushes: Flushes | None, name: str) -> Estimate:
    """The median bare flush of 4 KiB writes' records."""
    return unknown(no_bare_flush()) if flushes is None else getattr(flushes, name).estimate(0.5)


def without(estimate: Estimate, warning: Code) -> Estimate:
    """The estimate without a warning that does not apply to it: the base round trip is measured once, not in rounds."""
    return msgspec.structs.replace(estimate, warnings=[item for item in estimate.warnings if item.code != warning.name])


def warnings_of(recording: Recording, cells: Sequence[CellResult]) -> list[Reason]:
    """What a reader must know of the whole run before believing a number of it."""
    warnings = []
    if recording.lab.is_stream_level:
        warnings.append(reasons.stream_level())
    if recording.lab.durability == "memory":
        warnings.append(reasons.in_memory())
    elif recording.lab.not_durable:
        warnings.append(reasons.not_durable(not_durable_text(recording.lab)))
    elif recording.lab.shared_disk:
        warnings.append(reasons.shared_disk())
    if recording.interrupted:
        warnings.append(reasons.interrupted())
    for status in ("void", "failed"):
        bad = [item for item in recording.rounds if item.status == status]
        if bad:
            often = Counter(reason for item in bad for reason in causes_of(item)).most_common(1)
            advice = sleep_advice(recording) if status == "void" and may_have_slept(recording, bad) else ""
            most = str(often[0][0]) if often else ""
            warnings.append(reasons.rounds_left_out(status, len(bad), len(recording.rounds), most, advice))
    without_rounds = [item.cell for item in cells if not item.rounds_ok]
    if without_rounds:
        warnings.append(reasons.cells_without_rounds(", ".join(without_rounds)))
    warnings += steal_warnings(recording) + shared_host_warnings(recording, cells)
    noisy = [item.cell for item in cells if item.host_noise]
    if noisy:
        warnings.append(reasons.busy_cells(len(noisy), len(cells)))
    warnings += beaten_warnings(cells)
    warnings += drift_warnings(cells)
    endless = [item.cell for item in cells if saturated.among(item.response_ns_p50.warnings)]
    if endless:
        warnings.append(reasons.saturated_cells(", ".join(endless)))
    damaged = sum(item.damaged or 0 for item in cells)
    if damaged:
        warnings.append(reasons.damaged_writes(damaged))
    return warnings


def drill_warnings(drills: Sequence[DrillResult]) -> list[Reason]:
    """Which drills are in no bound, and why."""
    return [reasons.drills_uncounted(item.kind, item.protocol, item.uncounted_text) for item in drills if item.uncounted]


def beaten_warnings(cells: Sequence[CellResult]) -> list[Reason]:
    """Which engines were faster than what was measured as their floor: a floor that can be beaten is none."""
    found = [item for item in cells if beaten_doubt(item.efficiency)]
    if not found:
        return []
    floors = "; ".join(dict.fromkeys(item.floor_text for item in found))
    shares = [item.efficiency.value or 0.0 for item in found]
    return [reasons.beaten_cells(", ".join(item.cell for item in found), min(shares), max(shares), floors)]


def may_have_slept(recording: Recording, void: Sequence[Round]) -> bool:
    """Whether many rounds are void for their link, on a machine whose processors wake late from a sleep that can be forbidden."""
    for_link = [item for item in void if reasons.link_missed.among(causes_of(item))]
    can_be_kept = bool(recording.host.get("virtual")) and recording.lab.keep_awake == "none"
    return can_be_kept and len(for_link) > MANY_VOID * len(recording.rounds)


def sleep_advice(recording: Recording) -> str:
    """Why nothing kept the processors awake, where that was recorded, and what mends it, by the same decision as doctor's."""
    why, mend = recording.lab.keep_awake_reason, recording.lab.keep_awake_mend
    because = f" ({why})" if why else ""
    advice = f"what mends it: {mend}" if mend else "nothing mends it here"
    if mend is None:
        advice = "farwrite doctor says what mends it"
    return f"; nothing kept the processors awake{because}, and one that sleeps wakes late: {advice}"


def drift_warnings(cells: Sequence[CellResult]) -> list[Reason]:
    """Whether rounds are like the rounds before them, in all cells together: intervals take them for independent.

    The lag-1 autocorrelation of the rounds' medians (logarithms, each less its cell's mean, averaged over cells), against what
    chance gives: 2 / sqrt(n). Of few rounds it says nothing.
    """
    rows = [
        {index: math.log(value) for index, value in enumerate(cell.response_ns_p50.by_round) if value}
        for cell in cells if not cell.withheld
    ]  # fmt: skip
    rows = [row for row in rows if len(row) >= DRIFT_ROUNDS_MIN]
    indices = sorted(set.intersection(*(set(row) for row in rows))) if rows else []
    if len(indices) < DRIFT_ROUNDS_MIN:
        return []
    levels = [sum(row[index] - sum(row.values()) / len(row) for row in rows) / len(rows) for index in indices]
    mean = sum(levels) / len(levels)
    apart = [level - mean for level in levels]
    scatter = sum(one * one for one in apart)
    alike = sum(one * other for one, other in pairwise(apart)) / scatter if scatter else 0.0
    if alike <= 2 / math.sqrt(len(indices)):
        return []
    return [reasons.drifted(alike, len(indices))]


def shared_host_warnings(recording: Recording, cells: Sequence[CellResult]) -> list[Reason]:
    """How much of an asynchronous write was this lab's own: its writer waits for no peer, but all sites are one machine."""
    shares = [
        item.response_ns_p50.value / item.floor_ns.value
        for item in cells
        if item.protocol == "A" and item.response_ns_p50.value and item.floor_ns.value
    ]
    if recording.lab.far_host is not None or not shares or max(shares) < OWN_OF_LAB:
        return []
    return [reasons.shared_host(min(shares), max(shares), recording.lab.shared_disk)]


def steal_warnings(recording: Recording) -> list[Reason]:
    """What the host took of the processors in good rounds."""
    steal_max = recording.profile.run.steal_max
    taken = [item.steal for item in recording.rounds if item.status == "ok" and item.steal is not None]
    if taken and max(taken) > steal_max / 2:
        return [reasons.stolen_at_most(max(taken), steal_max)]
    if recording.rounds and all(item.steal is None for item in recording.rounds):
        return [reasons.steal_unknown()]
    return []
