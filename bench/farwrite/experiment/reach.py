"""The greatest distance at which a budget holds, searched for: where to measure next, and when to stop.

`next_distances` decides, from what was measured and nothing else; `search` measures there with the rounds of an ordinary run
and asks again. The answer itself is the analysis' greatest miles, computed from the recording like any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base.physics import miles_of
from ..base.protocol import PROMISES
from ..base.units import NS_PER_MS, NS_PER_S
from ..workload.profile import MILES_MAX
from ..workload.tables import Profile
from .cells import cell_of

if TYPE_CHECKING:
    from ..analysis.result import Analysis
    from ..lab.lab import Lab
    from ..recording import Cell
    from .run_journal import Run

ROUNDS_A_STEP = 5  # The least from which an interval over rounds says anything (94 %).
ROUNDS_MIN = 3  # The least for a bootstrap over rounds; the first distances get them whatever the time budget is.
FARTHEST_WITHOUT_TRIPS = 3000.0  # miles: where writes wait for no round trip, the budget sets no bound; a continent is one.
RESOLUTION = 0.01  # of the distance: nearer to each other than this, two distances are one
RESOLUTION_MILES = 0.5
WIDTH_SHARE, WIDTH_MILES = 0.04, 2.0  # An interval of the crossing this narrow, the wider of both, ends the search.
CONFIDENCE_MIN = 0.85  # Four rounds: three that happen to agree end no search.
SPREAD_PARTS = 8  # New distances lie this part of the bracket to either side of the crossing that is expected.

ROUND_NS_MIN, ROUND_NS_MAX = 500 * NS_PER_MS, 30 * NS_PER_S
WRITES_A_ROUND = {0.5: 20, 0.99: 200}  # at the budget itself: p99 needs 368 writes over all rounds


@dataclass(frozen=True)
class Point:
    """The quantile at a distance that was measured."""

    miles: float
    value_ns: float
    low_ns: float
    high_ns: float


@dataclass(frozen=True)
class Bracket:
    """Two measured distances between which the budget is exhausted, and where between them."""

    near: Point
    far: Point
    miles: float
    doubt_miles: float  # what the latencies' own intervals leave open of it


def farthest_of(profile: Profile) -> float:
    """The miles whose light alone exhausts the budget: no measurement can hold it farther away."""
    trips = min(PROMISES[protocol].trips for cell in profile.cell for protocol in cell.protocols)
    if not trips:
        return FARTHEST_WITHOUT_TRIPS
    distance = profile.distance
    bound = miles_of(profile.reach.budget_ns / trips, distance.route_factor, distance.equipment_ns)
    return min(max(bound, 0.0), float(MILES_MAX))


def round_ns_of(budget_ns: int, quantile: float, queue_depth: int = 1) -> int:
    """A round long enough for a quantile of writes that take as long as the budget."""
    wanted = WRITES_A_ROUND[quantile] * budget_ns / max(queue_depth, 1)
    return round(min(max(wanted, ROUND_NS_MIN), ROUND_NS_MAX))


def rising(points: Sequence[Point]) -> list[Point]:
    """The points by distance, as a curve that never falls: neighbours that fall are pooled (Ayer et al. 1955).

    A write over a longer distance is not faster; where one looks so, that is noise of the rounds.
    """
    blocks: list[list[Point]] = []
    for point in sorted(points, key=lambda point: point.miles):
        blocks.append([point])
        while len(blocks) > 1 and mean(blocks[-1]) < mean(blocks[-2]):
            last = blocks.pop()
            blocks[-1] = [*blocks[-1], *last]
    return [
        Point(point.miles, mean(block), min(mean(block), point.low_ns), max(mean(block), point.high_ns))
        for block in blocks
        for point in block
    ]


def mean(block: Sequence[Point]) -> float:
    """The mean latency of a block."""
    return sum(point.value_ns for point in block) / len(block)


def bracket_of(points: Sequence[Point], budget_ns: float) -> Bracket | None:
    """Where the measured curve crosses the budget; None when all of it lies on one side."""
    curve = rising(points)
    within = [point for point in curve if point.value_ns <= budget_ns]
    beyond = [point for point in curve if point.value_ns > budget_ns]
    if not within or not beyond:
        return None
    near, far = within[-1], beyond[0]
    slope = (far.value_ns - near.value_ns) / (far.miles - near.miles)
    half_ns = max(point.high_ns - point.low_ns for point in (near, far)) / 2
    return Bracket(near, far, near.miles + (budget_ns - near.value_ns) / slope, half_ns / slope)


def resolution_of(miles: float) -> float:
    """How far apart two distances must be to be told apart."""
    return max(RESOLUTION_MILES, RESOLUTION * miles)


def next_distances(points: Sequence[Point], budget_ns: float, farthest: float) -> list[float]:
    """Where to measure next; distances that were measured already are named to be measured again. Empty: nowhere.

    First nothing, half and all of light's own bound. Then on both sides of the crossing that is expected, ever closer to
    it, and once the bracket is as narrow as distances can be told apart, its two ends again.
    """
    if not points:
        return sorted({0.0, rounded(farthest / 2), rounded(farthest)})
    measured = sorted(point.miles for point in points)
    bracket = bracket_of(points, budget_ns)
    if bracket is None:
        nearest = min(points, key=lambda point: point.miles)
        if nearest.low_ns > budget_ns:
            return []  # Exhausted before the first mile, and sure of it.
        if min(point.value_ns for point in points) > budget_ns:
            return [nearest.miles] if nearest.miles == 0 else [0.0, nearest.miles]
        last = max(points, key=lambda point: point.miles)
        if last.miles + resolution_of(farthest) < farthest:
            return [last.miles, rounded(farthest)]
        return [] if last.high_ns <= budget_ns else [last.miles]
    near, far = bracket.near.miles, bracket.far.miles
    resolution = resolution_of(bracket.miles)
    if far - near <= 2 * resolution:
        return [near, far]
    apart = max((far - near) / SPREAD_PARTS, min(bracket.doubt_miles, (far - near) / 3), resolution)
    chosen = set()
    for wanted in (bracket.miles - apart, bracket.miles + apart):
        known = min(measured, key=lambda miles: abs(miles - wanted))
        inside = min(max(wanted, near), far)
        chosen.add(known if abs(known - inside) < resolution else rounded(inside))
    return sorted(chosen)


def rounded(miles: float) -> float:
    """A distance as one would name it: whole miles from 20 on, tenths below; never beyond where it was."""
    return float(math.floor(miles)) if miles >= 20 else math.floor(10 * miles) / 10


def points_of(analysis: Analysis, quantile: float) -> list[Point]:
    """What the analysis says of the quantile at each distance."""
    found = []
    for cell in analysis.cells:
        estimate = cell.response_ns_p99 if quantile == 0.99 else cell.response_ns_p50
        if estimate.value is not None and cell.rounds_ok:
            low = estimate.value if estimate.low is None else estimate.low
            high = estimate.value if estimate.high is None else estimate.high
            found.append(Point(cell.miles, estimate.value, low, high))
    return found


def narrow_enough(analysis: Analysis, points: Sequence[Point], budget_ns: float) -> bool:
    """Whether the analysis' answer needs no more rounds: bracketed closely, and its interval narrow."""
    found = analysis.reach.miles if analysis.reach else []
    answer = next((item.miles for item in found if item.route_factor == 1.0), None)
    bracket = bracket_of(points, budget_ns)
    if answer is None or answer.value is None or answer.low is None or answer.high is None or bracket is None:
        return False
    allowed = max(WIDTH_SHARE * answer.value, WIDTH_MILES)
    if (answer.confidence or 0.0) < CONFIDENCE_MIN:
        return False
    return answer.high - answer.low <= allowed and bracket.far.miles - bracket.near.miles <= 4 * allowed


def search(run: Run, lab: Lab) -> None:
    """Measure at the distances that say most about the crossing, until its interval is narrow or the time is spent."""
    from ..analysis.analyse import analyse
    from .expected import round_s
    from .measure import measure_round
    from .run_journal import recording_of

    asked = run.profile.reach
    farthest = farthest_of(run.profile)
    limit_s = asked.time_ns / NS_PER_S - len(run.rounds) * round_s(run)  # An interrupted search has spent some already.
    run.cells = list(run.chosen)
    index = 1 + max((item.index for item in run.rounds), default=-1)
    begin_s = run.elapsed_s()
    pace_s, spent = round_s(run), 0  # Seconds a round of one cell takes, with its void attempts; how many were measured.
    while True:
        analysis = analyse(recording_of(run)) if run.rounds else None
        points = points_of(analysis, asked.quantile) if analysis else []
        if analysis and narrow_enough(analysis, points, asked.budget_ns):
            return
        chosen = next_distances(points, asked.budget_ns, farthest)
        left_s = limit_s - (run.elapsed_s() - begin_s)
        affordable = min(int(left_s / max(len(chosen) * pace_s, 1e-9)), ROUNDS_A_STEP)
        if not chosen or (points and affordable < ROUNDS_MIN):
            return  # A distance of one or two rounds would say nothing, and spoil what is known.
        cells = [cell_at(run, miles) for miles in chosen]
        title = f"{asked.budget_ns / NS_PER_MS:g} ms · {expectation(points, asked.budget_ns, farthest)}"
        for _ in range(max(affordable, ROUNDS_MIN)):
            measure_round(run, lab, cells, index, title)
            index += 1
            spent += len(cells)
            pace_s = max(round_s(run), (run.elapsed_s() - begin_s) / spent)


def expectation(points: Sequence[Point], budget_ns: float, farthest: float) -> str:
    """What is known of the answer so far, for who waits for it."""
    bracket = bracket_of(points, budget_ns)
    if bracket is None:
        return f"at most {farthest:.0f} miles, by light"
    return f"between {bracket.near.miles:g} and {bracket.far.miles:g} miles, about {bracket.miles:.0f}"


def cell_at(run: Run, miles: float) -> Cell:
    """The run's cell at a distance; a new one is noted in the journal before it is measured."""
    from .run_journal import Entry, keep

    workload = run.workloads[run.profile.cell[0].name]
    cell = cell_of(run.profile, workload, workload.table.protocols[0], miles)
    if all(other.id != cell.id for other in run.cells):
        keep(run, Entry(chosen=cell))
        run.cells.append(cell)
    return cell
