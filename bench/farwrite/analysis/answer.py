"""The answer of a run, for a decision: how far a budget holds, what the distance costs, what was lost, and the verdicts.

A run whose profile is about the claims of 2008 is asked their questions: how far 2 ms hold, what 150 miles cost. Any other is
answered about itself: its own budgets, what a round trip costs it, and its own farthest distance.

At most ANSWER_LINES_MAX lines of 80 columns. The terminal, the HTML page, Markdown and the JSON document all print these
lines, so that they never differ. Only what the analysis has found is said here; a text that is too long is cut where a clause
ends, and stands in full among the verdicts of the whole report. Nothing heavy is imported: `show --json` comes past.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from ..base.protocol import NAMES, PROMISES
from ..base.reasons import joined, least_needed, unsound
from ..base.units import NS_PER_MS, NS_PER_S, format_time
from ..recording import LabFacts, Recording
from .result import Analysis, CellResult, Claim, DrillResult, Estimate, GreatestMiles, Struct, Verdict
from .verdict import decide, response_of_cell
from .void import rounds_text

ANSWER_LINES_MAX = 9  # With the title above them: ten.
LINE_MAX = 80
MARK_COLUMNS = 11  # "? UNKNOWN" and a gap: what a verdict takes of its line.
BUDGET_NS = 2 * NS_PER_MS  # The latency of the first claim.
FAR_MILES = 150.0  # The distance of the second.
NEAR_MILES = 20.0
CLAIM_SIZE_BYTES = 4096
MILES_TOLERANCE_RATIO = 0.025  # As claims.py: a cell this near stands for the claim's distance.
QUANTILES = ((0.99, "p99"), (0.5, "p50"))
PREFERRED = ("C", "quorum", "C2", "B", "A", "local")  # Whose miles are asked for first.

IN_MEMORY = "journals in memory"
STREAM_LEVEL = "stream-level"
REAL_LINK = "measured, not emulated"
NAMED = {"C1": "2 ms to 20 miles", "C2": "150 miles, 100 % available", "C3": "async, any distance"}

Kind = Literal["caution", "reach", "budget", "cost", "loss", "behind", "claim", "rounds"]


class Line(Struct, frozen=True):
    """One line of the answer."""

    kind: Kind
    text: str
    verdict: Verdict | None = None  # of a budget or a claim; "fail" where acknowledged writes were lost

    @property
    def room(self) -> int:
        """How many characters the text may have."""
        return LINE_MAX - (MARK_COLUMNS if self.verdict else 0)


class Answer(Struct, frozen=True):
    """What a person who decides has to know, the most important first."""

    lines: list[Line]


def answer_of(recording: Recording, analysis: Analysis) -> Answer:
    """The answer of one run."""
    cells = main_cells(analysis)
    of_2008 = recording.profile.claims is not False  # Of older recordings nobody has said that they are about anything else.
    asked_ns = recording.profile.reach.budget_ns or (BUDGET_NS if of_2008 else None)
    found = [caution_line(recording)]
    if not cells:
        found.append(Line(kind="reach", text="No cell was measured: nothing can be said of any distance."))
    elif asked_ns:
        found.append(reach_line(prefix_of(cells[0]), cells, analysis, asked_ns, recording.interrupted))
    elif not analysis.budgets:
        found.append(trips_line(prefix_of(cells[0]), cells, analysis))
    verdicts = [Line(kind="budget", verdict=item.verdict, text=f"{item.id}: {item.why}") for item in analysis.budgets]
    after = [cost_line(cells, of_2008), loss_line(analysis), behind_line(recording, analysis, of_2008)]
    claims = [claim_line(claim, analysis) for claim in analysis.claims if concerns(claim, analysis)]
    last = Line(kind="rounds", text=rounds_text(recording, analysis.cells))
    room = ANSWER_LINES_MAX - sum(item is not None for item in [*found, *after, last])
    verdicts, claims = those_that_fit(verdicts, claims, room)
    lines = [item for item in [*found, *verdicts, *after, *claims, last] if item is not None]
    assert len(lines) <= ANSWER_LINES_MAX
    return Answer(lines=[shortened(item) for item in lines])


def those_that_fit(budgets: list[Line], claims: list[Line], room: int) -> tuple[list[Line], list[Line]]:
    """The verdicts there is room for, and in place of the others a line that counts them: a run's own budgets go first."""
    if len(budgets) + len(claims) <= room:
        return budgets, claims
    kept, kept_claims = budgets[: room - 1], claims[: max(room - 1 - len(budgets), 0)]
    others = [*budgets[len(kept) :], *claims[len(kept_claims) :]]
    count: dict[str, int] = {}
    for item in others:
        word = {"pass": "passed", "fail": "failed"}.get(item.verdict or "", "unknown")
        count[word] = count.get(word, 0) + 1
    counts = ", ".join(f"{number} {word}" for word, number in count.items())
    return kept, [*kept_claims, Line(kind="claim", text=f"{times(len(others), 'more verdict')} in the whole report: {counts}")]


# --- What the answer is about ----------------------------------------------------------------------------------


def main_cells(analysis: Analysis) -> list[CellResult]:
    """The cells of the main workload under the protocol that is asked about, nearest first.

    The claims' own workload where there is one (closed loop, depth 1, protocol C), otherwise the first one under the
    strictest protocol that was measured.
    """

    def order(cell: CellResult) -> tuple[int, bool]:
        return PREFERRED.index(cell.protocol) if cell.protocol in PREFERRED else len(PREFERRED), not is_claims_load(cell)

    first = min(analysis.cells, key=order, default=None)  # The first of equals: the profile's order.
    if first is None:
        return []
    same = [item for item in analysis.cells if (item.name, item.protocol) == (first.name, first.protocol)]
    return sorted(same, key=lambda item: item.miles)


def is_claims_load(cell: CellResult) -> bool:
    """One 4 KiB write at a time, as the claims of 2008 meant it."""
    return cell.arrival == "closed" and cell.queue_depth == 1 and cell.size_bytes == CLAIM_SIZE_BYTES


def prefix_of(cell: CellResult) -> str:
    """Whose miles they are: the protocol, and the workload where it is not the plain write."""
    return f"{cell.protocol}: " if cell.name == "write" else f"{cell.name}, {cell.protocol}: "


def concerns(claim: Claim, analysis: Analysis) -> bool:
    """Whether this run has to do with a claim: it is decided, or cells or drills for it were asked for."""
    if claim.verdict != "unknown":
        return True
    load = [item for item in analysis.cells if is_claims_load(item)]
    if claim.id == "C3":
        return any(item.protocol == "A" for item in load) or any(item.protocol == "A" for item in analysis.drills)
    miles = NEAR_MILES if claim.id == "C1" else FAR_MILES
    asked = any(item.protocol == "C" and is_near(item.miles, miles) for item in load)
    return asked or (claim.id == "C2" and any(item.protocol == "C" for item in analysis.drills))


def is_near(miles: float, asked: float) -> bool:
    """Whether a cell stands for a claim's distance."""
    return abs(miles - asked) <= MILES_TOLERANCE_RATIO * asked


# --- How far ---------------------------------------------------------------------------------------------------


class Reach(NamedTuple):
    """How far a budget holds, as a sentence needs it: the one place where reports read GreatestMiles."""

    kind: Literal["miles", "beyond", "any", "none", "unknown"]
    text: str  # "97 miles [79, 104]", "beyond 186 miles", "any distance", "no distance", "unknown"
    why: str = ""  # why it is unknown


def reach_of(found: GreatestMiles | None) -> Reach:
    """What one GreatestMiles says."""
    if found is None:
        return Reach("unknown", "unknown", "")
    if doubt := unsound.among(found.miles.warnings):
        return Reach("unknown", "unknown", str(doubt))
    if found.outcome == "measured" and found.miles.value is not None:
        return Reach("miles", miles_text(found.miles, open_above=found.beyond_miles is not None))
    if found.outcome == "beyond":
        return Reach("beyond", beyond_text(found))
    if found.outcome == "below":
        return Reach("none", f"less than {found.below_miles:.4g} miles" if found.below_miles else "no distance")
    if found.outcome == "any":
        return Reach("any", "any distance")
    if found.outcome == "none":
        return Reach("none", "no distance")
    return Reach("unknown", "unknown", joined(found.miles.warnings))


def beyond_text(found: GreatestMiles) -> str:
    """ "beyond 186 miles, not measured"; "beyond 186 miles [157, > 186]" where the interval begins nearer than that."""
    far = found.beyond_miles or 0.0
    miles = f"{far:.0f}" if far >= 10 else f"{far:.2g}"
    if found.miles.low is None or found.miles.low >= far:
        return f"beyond {miles} miles, not measured"
    return f"beyond {miles} miles [{found.miles.low:.0f}, > {miles}]"


def reaches(cells: Sequence[CellResult], analysis: Analysis, budget_ns: float) -> dict[str, Reach]:
    """By quantile: how far a budget holds over straight glass for these cells' workload and protocol."""
    name, protocol = cells[0].name, cells[0].protocol
    straight = {
        item.quantile: item for item in analysis.miles
        if (item.name, item.protocol, item.route_factor) == (name, protocol, 1.0) and item.budget_ns == budget_ns
    }  # fmt: skip
    return {label: reach_of(straight.get(quantile)) for quantile, label in QUANTILES}


def reach_line(
    prefix: str, cells: Sequence[CellResult], analysis: Analysis, budget_ns: float, interrupted: bool = False
) -> Line:
    """How far a budget holds: interpolated over distance, otherwise from the distances that were measured."""
    budget = f"{budget_ns / NS_PER_MS:g} ms"
    if all(item.response_ns_p50.value is None for item in cells):
        return Line(kind="reach", text=f"{prefix}how far {budget} hold is unknown: {cells[0].response_ns_p50.warnings[0]}")
    found = reaches(cells, analysis, budget_ns)
    known = {label: reach for label, reach in found.items() if reach.kind != "unknown"}
    if not known:
        return Line(kind="reach", text=f"{prefix}{measured_reach(cells, budget_ns, found['p99'].why, interrupted)}")
    label, reach = next(iter(known.items()))
    sentence = f"{budget} hold {held(reach)} at {label}"
    other = known.get("p50") if label == "p99" else None
    if other is not None and other.text != reach.text:
        words = held(other)
        sentence += f", {words.replace(' miles of glass', '') if reach.kind == 'miles' else words} at p50"
    if label == "p50":
        sentence += "; p99 unknown"
    return Line(kind="reach", text=prefix + sentence)


def held(reach: Reach) -> str:
    """ "to 97 miles of glass [79, 104]"."""
    if reach.kind == "miles":
        return f"to {reach.text.replace(' miles', ' miles of glass', 1)}"
    return reach.text if reach.kind == "beyond" else f"at {reach.text}"


def measured_reach(cells: Sequence[CellResult], budget_ns: float, why: str, interrupted: bool = False) -> str:
    """Where a budget holds among the distances measured, where no line was fitted through them."""
    budget = f"{budget_ns / NS_PER_MS:g} ms"
    for quantile, label in QUANTILES:
        found = [
            (item.miles, decide(response_of_cell(item, quantile), at_most=budget_ns, interrupted=interrupted).verdict)
            for item in cells
        ]  # fmt: skip
        held_at = [miles for miles, verdict in found if verdict == "pass"]
        broken_at = [miles for miles, verdict in found if verdict == "fail"]
        if held_at and broken_at:
            return f"{budget} hold at {max(held_at):.4g} miles and not at {min(broken_at):.4g} at {label}"
        if held_at:
            return f"{budget} hold at {label} at {max(held_at):.4g} miles, the farthest measured"
        if broken_at:
            return f"{budget} do not hold at {min(broken_at):.4g} miles at {label}, the nearest measured"
    doubted = (item for item in cells if item.latency_doubts and item.response_ns_p50.value is not None)
    withheld = next((str(item.latency_doubts[0]) for item in doubted), "")
    doubt = withheld if why == str(unsound()) else ""  # What its cells lack says more.
    return f"how far {budget} hold is unknown: {doubt or why or withheld or 'fewer than three distances, and none decides'}"


def trips_line(prefix: str, cells: Sequence[CellResult], analysis: Analysis) -> Line | None:
    """What distance costs a write of a run without a budget: round trips and what is no distance, or the nearest distance's."""
    first = cells[0]
    mine = [item for item in analysis.fits if (item.name, item.protocol, item.quantile) == (first.name, first.protocol, 0.5)]
    fit = mine[0] if mine else None
    if all(item.response_ns_p50.value is None for item in cells):
        return Line(kind="reach", text=f"{prefix}what a write takes is unknown: {first.response_ns_p50.warnings[0]}")
    if fit is None or fit.k.value is None or fit.a_ns.value is None or unsound.among(fit.k.warnings):
        known = [item for item in cells if item.response_ns_p50.value is not None]
        return Line(kind="reach", text=f"{prefix}{cost_text(known[0])}") if len(known) > 1 else None
    trips = f"{round(fit.k.value, 2) + 0.0:.2f} round trips"
    if fit.k.low is not None and fit.k.high is not None:
        trips += f" [{round(fit.k.low, 2) + 0.0:.2f}, {round(fit.k.high, 2) + 0.0:.2f}]"
    return Line(kind="reach", text=f"{prefix}p50 is {trips} + {time_text(fit.a_ns)}")


# --- What it costs, and what was lost --------------------------------------------------------------------------


def cost_line(cells: Sequence[CellResult], of_2008: bool) -> Line | None:
    """What a write takes at the claims' 150 miles, or at the farthest distance there is."""
    known = [item for item in cells if item.response_ns_p50.value is not None]
    if not known:
        return None
    return Line(kind="cost", text=cost_text(far_cell(known, of_2008)))


def cost_text(cell: CellResult) -> str:
    """What a write takes at one distance."""
    text = f"{cell.miles:.4g} miles cost {time_text(cell.response_ns_p50)} at p50"
    tail = cell.response_ns_p99
    text += f", {time_text(tail)} at p99" if tail.value is not None else f"; {no_p99(tail)}"
    if cell.latency_doubts:
        text += f"; no verdict rests on it: {cell.latency_doubts[0]}"
    return text


def far_cell(cells: Sequence[CellResult], of_2008: bool) -> CellResult:
    """The one at the claims' 150 miles where the run is about them, otherwise the farthest."""
    farthest = max(cells, key=lambda item: item.miles)
    return next((item for item in cells if of_2008 and is_near(item.miles, FAR_MILES)), farthest)


def loss_line(analysis: Analysis) -> Line | None:
    """What of the acknowledged writes was lost under protocols that wait for the far site."""
    cells = [item for item in analysis.cells if waits(item.protocol)]
    kills = [item for item in analysis.drills if item.kind == "kill" and waits(item.protocol)]
    cuts = [item for item in analysis.drills if item.kind == "cut" and waits(item.protocol)]
    protocols = ", ".join(sorted({item.protocol for item in kills}, key=NAMES.index))
    in_rounds = sum((item.lost or 0) + (item.damaged or 0) for item in cells)
    in_rounds += sum(item.damaged or 0 for item in analysis.cells if not waits(item.protocol))
    in_cuts = sum(item.lost_in_all + item.damaged_in_all for item in cuts)
    in_kills = sum(item.lost_in_all + item.damaged_in_all for item in kills)
    if in_rounds or in_cuts or in_kills:
        places = (
            (in_kills, times(count_of(kills) + uncounted_of(kills), "kill")),
            (in_cuts, times(count_of(cuts) + uncounted_of(cuts), "cut")),
            (in_rounds, "the rounds"),
        )
        losses = ", ".join(f"{grouped(lost)} in {where}" for lost, where in places if lost)
        return Line(kind="loss", verdict="fail", text=f"acknowledged writes LOST or damaged: {losses}")
    if kills and not count_of(kills):
        reasons = list(dict.fromkeys(reason for item in kills for reason in item.uncounted_reasons))
        what = f"{times(uncounted_of(kills), 'kill')} count{'s' if uncounted_of(kills) == 1 else ''} for nothing"
        return Line(kind="loss", text=f"what a loss of the near site costs is unknown: {what}: {reasons[0]}")
    if kills:
        completed = grouped(sum(item.completed for item in kills))
        others = f"{grouped(uncounted_of(kills))} more not counted" if uncounted_of(kills) else ""
        what = "writes lost" if others else "acknowledged writes lost"
        text = f"0 of {completed} {what} in {times(count_of(kills), 'kill')}" + (f", {others}" if others else "")
        bounds = [item.loss_probability_high for item in kills if item.loss_probability_high is not None]
        text += f" ({protocols})" + (f": P(loss) at most {100 * max(bounds):.2g} %" if bounds else "")
        return Line(kind="loss", text=text)
    audited = [item for item in cells if item.lost is not None]
    if not audited:
        return None
    completed = grouped(sum(item.completed for item in audited))
    return Line(kind="loss", text=f"0 of {completed} acknowledged writes missing at the far site; no kill was drilled")


def behind_line(recording: Recording, analysis: Analysis, of_2008: bool) -> Line | None:
    """What asynchronous replication takes at the same distance, and what a disaster would take."""
    cells = [item for item in analysis.cells if item.protocol == "A" and item.response_ns_p50.value is not None]
    if not cells:
        return None
    first = next((item.name for item in cells if is_claims_load(item)), cells[0].name)
    cell = far_cell([item for item in cells if item.name == first], of_2008)
    text = f"A at {cell.miles:.4g} miles: p50 {format_time(cell.response_ns_p50.value or 0)}"
    if cell.lag_ns_p99 is not None and cell.lag_ns_p99.value is not None:
        text += f", lag p99 {format_time(cell.lag_ns_p99.value)}"
    kills = [item for item in analysis.drills if item.kind == "kill" and item.protocol == "A" and item.count]
    if kills and not recording.lab.is_stream_level:
        lost, completed = sum(item.lost for item in kills), sum(item.completed for item in kills)
        text += f", {grouped(lost)} of {grouped(completed)} lost in {times(count_of(kills), 'kill')}"
    return Line(kind="behind", text=text)


def waits(protocol: str) -> bool:
    """Whether a write waits for the far site before it completes."""
    return protocol in PROMISES and PROMISES[protocol].trips > 0


def count_of(drills: Iterable[DrillResult]) -> int:
    """How many single drills these are, of those that count."""
    return sum(item.count for item in drills)


def uncounted_of(drills: Iterable[DrillResult]) -> int:
    """How many single drills do not count."""
    return sum(item.uncounted_count for item in drills)


# --- The claims, and what to know before any number -------------------------------------------------------------


def claim_line(claim: Claim, analysis: Analysis) -> Line:
    """A claim's name, its verdict, and in a few words what decided it."""
    brief = {"C1": brief_c1, "C2": brief_c2, "C3": brief_c3}.get(claim.id)
    text = (brief(claim, analysis) if brief and claim.verdict != "unknown" else "") or claim.why or claim.sentence
    name = f"{claim.id} ({NAMED[claim.id]})" if claim.id in NAMED else claim.id
    return Line(kind="claim", verdict=claim.verdict, text=f"{name}: {text}")


def brief_c1(claim: Claim, analysis: Analysis) -> str:
    """The p99 at 20 miles."""
    for cell in main_cells(analysis):
        if is_near(cell.miles, NEAR_MILES) and cell.response_ns_p99.value is not None and is_claims_load(cell):
            return f"p99 {time_text(cell.response_ns_p99)} at {cell.miles:.4g} miles"
    return ""


def brief_c2(claim: Claim, analysis: Analysis) -> str:
    """What refuted it, or that nothing did."""
    kills = [item for item in analysis.drills if item.kind == "kill" and item.protocol == "C"]
    cuts = [item for item in analysis.drills if item.kind == "cut" and item.protocol == "C"]
    during = [item.completed_during_cut_max for item in cuts if item.completed_during_cut_max is not None]
    lost = sum(item.lost_in_all + item.damaged_in_all for item in [*kills, *cuts])
    lost += sum((item.lost or 0) + (item.damaged or 0) for item in analysis.cells if item.protocol == "C")
    if claim.verdict == "pass":
        return "none lost, and writes went on while the link was cut"
    clauses = [f"{times(lost, 'write')} lost"] if lost else []
    clauses += [f"no write completed during {times(count_of(cuts), 'cut')}"] if during and not max(during) else []
    return ", ".join(clauses)


def brief_c3(claim: Claim, analysis: Analysis) -> str:
    """k of protocol A, and the oldest write that a kill lost."""
    mine = [item for item in analysis.fits if (item.protocol, item.quantile) == ("A", 0.5)]
    fit = next((item for item in mine if item.queue_depth == 1), mine[0] if mine else None)
    clauses = []
    if fit is not None and fit.k.value is not None and fit.k.low is not None and fit.k.high is not None:
        k, low, high = (f"{round(each, 2) + 0.0:.2f}" for each in (fit.k.value, fit.k.low, fit.k.high))
        clauses.append(f"k {k} [{low}, {high}]")
    kills = [item for item in analysis.drills if (item.kind, item.protocol) == ("kill", "A") and item.count]
    if kills:
        points = [item.recovery_point_ns_max for item in kills if item.recovery_point_ns_max]
        where = f"lost in {times(count_of(kills), 'kill')}"
        clauses.append(f"up to {format_time(max(points))} lost" if points else f"{sum(item.lost for item in kills)} {where}")
    return ", ".join(clauses)


def caution_line(recording: Recording) -> Line | None:
    """What must be known before any number is read."""
    lab = recording.lab
    status = ["INTERRUPTED before its end"] if recording.interrupted else []
    long, short = ", ".join([*status, *cautions(lab, long=True)]), ", ".join([*status, *cautions(lab, long=False)])
    if not short:
        return None
    text = long if len(long) + 2 <= LINE_MAX else short
    return Line(kind="caution", text=f"⚠ {text}")


def cautions(lab: LabFacts, long: bool) -> list[str]:
    """What the lab's figures are not, in the words of every heading or with what they mean."""
    memory = f"{IN_MEMORY}: not a statement about disks" if long else IN_MEMORY
    stream = f"{STREAM_LEVEL}: bytes were delayed, not packets" if long else STREAM_LEVEL
    if lab.durability != "memory" and lab.not_durable:
        memory = f"{not_durable_text(lab)}: a power loss empties it" if long else which_not_durable(lab)
    real = f"{REAL_LINK}: its distance is that of the machines" if long else REAL_LINK
    applies = {memory: bool(lab.not_durable), stream: lab.is_stream_level, real: lab.far_host is not None}
    return [words for words, holds in applies.items() if holds]


def not_durable_text(lab: LabFacts) -> str:
    """Which journals would not survive a power loss, and on what they are: "far journal not durable (tmpfs is memory)"."""
    if lab.durability == "memory":
        return f"{IN_MEMORY} and not durable"
    reasons = lab.not_durable
    alike = len(set(reasons.values())) == 1
    why = next(iter(reasons.values())) if alike else ", ".join(f"{site}: {reason}" for site, reason in reasons.items())
    return f"{which_not_durable(lab)} ({why})"


def which_not_durable(lab: LabFacts) -> str:
    """The same without the reason, for headings: "far journal not durable"."""
    sites = list(lab.not_durable)
    return f"{sites[0]} journal not durable" if len(sites) == 1 else "journals not durable"


# --- Words and numbers -----------------------------------------------------------------------------------------


def shortened(line: Line) -> Line:
    """A line that fits, cut where a clause ends."""
    if len(line.text) <= line.room:
        return line
    return Line(kind=line.kind, verdict=line.verdict, text=cut(line.text, line.room))


def cut(text: str, room: int) -> str:
    """The text without its last clauses, or its last words where the first clause alone is too long."""
    outside = re.sub(r"[\[(][^\])]*[\])]", lambda found: "x" * len(found.group()), text)  # No cut within an interval.
    for mark in ("; ", ", ", ": "):
        at = outside.rfind(mark, 0, room + 1)
        if at > room // 2:
            return text[:at]
    return text[: text.rfind(" ", 0, room - 3)] + " ..."


def no_p99(tail: Estimate) -> str:
    """Why there is no p99: "p99 needs n >= 368 writes"."""
    least = least_needed(tail.warnings)
    if least is not None:
        return f"p99 needs n >= {least} writes"
    return f"p99 unknown: {joined(tail.warnings)}" if tail.warnings else "p99 unknown"


def time_text(estimate: Estimate) -> str:
    """ "0.932 ms [0.901, 0.970]": the interval in the value's unit and with its decimals."""
    assert estimate.value is not None
    text = format_time(estimate.value)
    if estimate.low is None or estimate.high is None:
        return text
    number, unit = text.split()
    decimals = len(number.partition(".")[2])
    scale = {"s": NS_PER_S, "ms": NS_PER_MS, "us": 1_000, "ns": 1}[unit]
    return f"{text} [{estimate.low / scale:.{decimals}f}, {estimate.high / scale:.{decimals}f}]"


def miles_text(estimate: Estimate, open_above: bool = False) -> str:
    """ "112 miles [108, 115]": whole miles, because no site is placed more finely; "[108, > 115]" ends where measuring did."""
    assert estimate.value is not None
    text = f"{estimate.value:.0f} miles"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{estimate.low:.0f}, {'> ' if open_above else ''}{estimate.high:.0f}]"


def times(count: int, what: str) -> str:
    """ "1 kill", "6 kills"."""
    return f"{grouped(count)} {what}" if count == 1 else f"{grouped(count)} {what}s"


def grouped(count: int) -> str:
    """Thousands set apart by a space: "5 294"."""
    return f"{count:,}".replace(",", " ")
