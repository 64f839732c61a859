"""What was to be reached, and whether it was: every goal a ratio or a figure with its interval over rounds, and a bound.

"met" and "not met" need the whole interval on one side of the bound; what lies on both is "open" and says where its value is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from farwrite.analysis.change import jackknife
from farwrite.analysis.distance import DISTANCES_MIN, theil_sen
from farwrite.analysis.estimate import CONFIDENCE, mean_over_rounds
from farwrite.analysis.result import CellResult, Estimate
from farwrite.analysis.student_t import critical
from farwrite.base.reasons import joined, remark
from farwrite.base.units import digits
from farwrite.workload.link_spec import FRAME_OVERHEAD_BYTES

from .result import Doors, Goal, Part, Recovery, Rivals

DOOR = "door"
OURS, OURS_B, OURS_A, LOCAL, IPERF = "farwrite C", "farwrite B", "farwrite A", "farwrite local", "iperf3"
DRBD, QEMU = "drbd", "qemu"  # What the names of their settings begin with.
BULK_BYTES, BULK_DEPTH = 1 << 20, 8
MTU_BYTES, TCP_IP_BYTES = 1500, 52  # Headers with TCP's timestamps.
MBIT_BYTES, GIGABIT_BYTES_PER_S = 125_000, 125_000_000
NEAR_MILES, FAR_MILES, BEYOND_MILES = 20.0, 150.0, 3000.0
NOT_MEASURED = "not measured"


def goals_of(made: Rivals) -> list[Goal]:
    """Every goal, judged."""
    found: list[Goal] = []
    for goals in (ferry_goals, gigabit_goals, unaided_goals, netem_goals, sustained_goals):
        part = made.parts.get(goals.__name__.removesuffix("_goals"))
        found += [
            Goal(part=goals.__name__.removesuffix("_goals"), goal=goal, verdict=verdict, measured=told)
            for goal, verdict, told in (goals(part) if part else ())
        ]
    if made.recovery:
        found.append(recovery_goal(made.recovery))
    if made.doors:
        judged = doors_alone_goals(made.doors)
        found += [Goal(part="doors", goal=goal, verdict=verdict, measured=told) for goal, verdict, told in judged]
    return found


Judged = tuple[str, str, str]  # goal, verdict, measured


def ferry_goals(part: Part) -> Iterator[Judged]:
    """Against the floor, QEMU and iperf3."""
    for miles, bound in ((FAR_MILES, 1.05), (NEAR_MILES, 1.20)):
        cell = part.cell(OURS, miles, 1)
        yield at_most(f"C, one write at a time, {miles:g} miles: p50 <= floor x {bound:g}", over_floor(cell), bound)
    fit = part.fit(OURS)
    yield within("C, one write at a time: k = 1.00 +- 0.02 round trips", fit.k if fit else None, 0.98, 1.02)
    yield within("C, one write at a time: k of the time above the floor = 0.00 +- 0.02", k_above_floor(part), -0.02, 0.02)
    for miles in (NEAR_MILES, FAR_MILES):
        ours, rival = part.cell(OURS, miles, 1), best(part, QEMU, miles, 1, p50_of)
        name = called(part, rival, QEMU)
        both = "response_ns_p50", "floor_ns"
        ratio = ratio_of(parts(ours, *both), parts(rival, *both), over=difference)
        yield at_most(f"C, one write at a time, {miles:g} miles: time above the floor <= a third of {name}'s", ratio, 1 / 3)
    for miles in (NEAR_MILES, FAR_MILES):
        ours, rival = part.cell(OURS, miles, 16), best(part, QEMU, miles, 16, fewest)
        name = called(part, rival, QEMU)
        ratio = ratio_of(parts(ours, "completed_per_s"), parts(rival, "completed_per_s"))
        goal, verdict, told = at_least(f"C, 16 at a time, {miles:g} miles: writes a second >= 2 x {name}'s", ratio, 2.0)
        yield goal, verdict, told + at_the_floor(ours, rival)
    yield from door_goals(part)
    bulk = part.cell(OURS, FAR_MILES, BULK_DEPTH, BULK_BYTES)
    stream = part.cell(IPERF, FAR_MILES, 1, BULK_BYTES)
    ratio = ratio_of(parts(bulk, "goodput_bytes_per_s"), parts(stream, "goodput_bytes_per_s"))
    yield at_least(f"C, 1 MiB writes, {FAR_MILES:g} miles: goodput >= 90 % of iperf3's", ratio, 0.9)


def door_goals(part: Part) -> Iterator[Judged]:
    """What the NBD door costs: against the engine's own generator, and against QEMU behind the same client."""
    for miles in (NEAR_MILES, FAR_MILES):
        sides = [parts(part.cell(name, miles, 1), "response_ns_p50") for name in (DOOR, OURS)]
        more = jackknifed([*sides[0], *sides[1]], difference) if sides[0] and sides[1] else None
        yield at_most(f"NBD door, one write at a time, {miles:g} miles: p50 <= our generator's + 60 us", more, 60e3, 1e3, " us")
    for miles in (NEAR_MILES, FAR_MILES):
        rival = best(part, QEMU, miles, 16, fewest)
        ratio = ratio_of(parts(part.cell(DOOR, miles, 16), "completed_per_s"), parts(rival, "completed_per_s"))
        yield at_least(f"NBD door, 16 at a time, {miles:g} miles: writes a second > {called(part, rival, QEMU)}'s", ratio, 1.0)


def unaided_goals(part: Part) -> Iterator[Judged]:
    """Against a bound, and against a writer without a peer."""
    deep = part.cell(OURS, NEAR_MILES, 64)
    yield at_most("C, 64 at a time: processor time of both replicas <= 15 us a write",
                  deep.cpu_ns_per_write if deep else None, 15_000.0, 1000.0, " us")  # fmt: skip
    ratio = ratio_of(
        parts(part.cell(OURS_A, BEYOND_MILES, 1), "response_ns_p50"), parts(part.cell(LOCAL, BEYOND_MILES, 1), "response_ns_p50")
    )
    yield at_most(f"A, one write at a time, {BEYOND_MILES:g} miles: p50 <= 1.1 x local's", ratio, 1.1)


def gigabit_goals(part: Part) -> Iterator[Judged]:
    """Against iperf3, and against what frames of the link's size leave of its rate."""
    ours, stream = part.cell(OURS, FAR_MILES, BULK_DEPTH, BULK_BYTES), part.cell(IPERF, FAR_MILES, 1, BULK_BYTES)
    at = f"C, 1 MiB writes, {FAR_MILES:g} miles, 1 Gbit/s: goodput"
    ratio = ratio_of(parts(ours, "goodput_bytes_per_s"), parts(stream, "goodput_bytes_per_s"))
    yield at_least(f"{at} >= 90 % of iperf3's", ratio, 0.9)
    most = GIGABIT_BYTES_PER_S * (MTU_BYTES - TCP_IP_BYTES) / (MTU_BYTES + FRAME_OVERHEAD_BYTES)
    yield at_least(
        f"{at} >= 95 % of the {most / MBIT_BYTES:.0f} Mbit/s that frames of {MTU_BYTES} bytes leave",
        ours.goodput_bytes_per_s if ours else None, 0.95 * most, MBIT_BYTES, " Mbit/s",
    )  # fmt: skip


def at_the_floor(ours: CellResult | None, rival: CellResult | None) -> str:
    """What the ratio of writes a second would be if each of ours took no longer than the floor."""
    floor, others = parts(ours, "floor_ns"), parts(rival, "completed_per_s")
    if ours is None or floor is None or others is None or not floor[0].value or not others[0].value:
        return ""
    return f"; {digits(ours.queue_depth * 1e9 / floor[0].value / others[0].value)} if every write took just the floor"


def netem_goals(part: Part) -> Iterator[Judged]:
    """Against DRBD, one write at a time."""
    for miles in (NEAR_MILES, FAR_MILES):
        yield from latency_goals(part, miles, 1, "one write")


def latency_goals(part: Part, miles: float, queue_depth: int, at_a_time: str) -> Iterator[Judged]:
    """C's and B's p50 against that of DRBD's C, in its better setting."""
    rival = best(part, DRBD, miles, queue_depth, p50_of)
    for name, bound in ((OURS, 1.1), (OURS_B, 1.0)):
        ratio = ratio_of(parts(part.cell(name, miles, queue_depth), "response_ns_p50"), parts(rival, "response_ns_p50"))
        what = f"{name.removeprefix('farwrite ')}, {at_a_time} at a time, {miles:g} miles"
        yield at_most(f"{what}: p50 <= {bound:g} x {called(part, rival, DRBD)}'s", ratio, bound)


def sustained_goals(part: Part) -> Iterator[Judged]:
    """Against DRBD, 16 at a time."""
    for miles in (NEAR_MILES, FAR_MILES):
        yield from latency_goals(part, miles, 16, "16")
        ours, rival = part.cell(OURS, miles, 16), best(part, DRBD, miles, 16, fewest)
        ratio = ratio_of(parts(ours, "completed_per_s"), parts(rival, "completed_per_s"))
        yield at_least(f"C, 16 at a time, {miles:g} miles: writes a second > {called(part, rival, DRBD)}'s", ratio, 1.0)


def recovery_goal(made: Recovery) -> Goal:
    """500 MB/s, or what the disk's own read gives."""
    replay, read = mean_over_rounds(made.replay_bytes_per_s), mean_over_rounds(made.bare_read_bytes_per_s)
    assert read.value is not None
    bound = min(500e6, read.value)
    goal = f"replay of a journal of {made.journal_bytes >> 20} MiB: >= 500 MB/s or a bare read's {read.value / 1e6:.0f} MB/s"
    goal, verdict, told = at_least(goal, replay, bound, 1e6, " MB/s")
    return Goal(part="recovery", goal=goal, verdict=verdict, measured=told)


def doors_alone_goals(made: Doors) -> Iterator[Judged]:
    """Requests a second against tgt's, and four fifths of nbdkit's bulk."""
    for load in made.loads():
        bulk = load.startswith("NBD")
        ours, rival, bound = ("NBD door", "nbdkit", 0.8) if bulk else (DOOR, "tgt", 1.0)
        sides = [mean_over_rounds(values, range(len(values))) for values in (made.rounds(ours, load), made.rounds(rival, load))]
        ratio = ratio_of([sides[0]], [sides[1]]) if all(side.value for side in sides) else None
        what = "MiB/s" if bulk else "requests a second"
        yield at_least(f"{load}: {what} >= {'' if bound == 1 else f'{bound:g} x '}{rival}'s", ratio, bound)


def best(part: Part, rival: str, miles: float, queue_depth: int, order: Callable[[CellResult], float]) -> CellResult | None:
    """The better of a rival's settings at this."""
    names = [name for name in part.names() if name.startswith(rival)]
    cells = [cell for name in names if (cell := part.cell(name, miles, queue_depth))]
    return min(cells, key=order, default=None)


def p50_of(cell: CellResult) -> float:
    """The least is the best."""
    return cell.response_ns_p50.value or math.inf


def fewest(cell: CellResult) -> float:
    """The most writes a second are the best."""
    return -(cell.completed_per_s.value or 0)


def called(part: Part, cell: CellResult | None, rival: str) -> str:
    """The name of a rival's better setting, or its own where none was measured."""
    return part.named(cell) if cell else rival


def over_floor(cell: CellResult | None) -> Estimate | None:
    """p50 over the floor of the same rounds."""
    return ratio_of(parts(cell, "response_ns_p50"), parts(cell, "floor_ns"))


def k_above_floor(part: Part) -> Estimate | None:
    """What a round trip more adds to our time above the floor: the floor's own k is that of the lab, and no engine's."""
    cells = [cell for cell in part.cells if part.named(cell) == OURS and cell.queue_depth == 1 and cell.rounds_ok]
    columns = [parts(cell, "rtt_ns_p50", "response_ns_p50", "floor_ns") for cell in cells]
    if len(cells) < DISTANCES_MIN or None in columns:
        return None

    def slope(values: Sequence[float]) -> float:
        rtt, response, floor = np.array(values).reshape(-1, 3).T
        return float(theil_sen(rtt, response - floor)[0])

    return jackknifed([item for column in columns if column for item in column], slope)


def parts(cell: CellResult | None, *names: str) -> list[Estimate] | None:
    """Estimates of a cell; None when one is not known."""
    found = [getattr(cell, name) for name in names] if cell else []
    return found if found and all(item.value is not None for item in found) else None


def first(values: Sequence[float]) -> float:
    return values[0]


def difference(values: Sequence[float]) -> float:
    return values[0] - values[1]


def ratio_of(
    above: list[Estimate] | None, below: list[Estimate] | None, over: Callable[[Sequence[float]], float] = first
) -> Estimate | None:
    """A ratio of what `over` makes of each side, with a jackknife over the rounds that both sides have; None when unknown."""
    if above is None or below is None:
        return None

    def ratio(values: Sequence[float]) -> float:
        under = over(values[len(above) :])
        return over(values[: len(above)]) / under if under else math.nan

    return jackknifed([*above, *below], ratio)


def jackknifed(found: list[Estimate], statistic: Callable[[Sequence[float]], float]) -> Estimate:
    """A statistic of several estimates, with an interval over the rounds that all of them have."""
    value = statistic([item.value for item in found])  # type: ignore[misc]
    columns = [item.without for item in found]
    rows = [row for row in range(min(map(len, columns))) if all(column[row] is not None for column in columns)]
    left_out = [statistic([column[row] for column in columns]) for row in rows]  # type: ignore[misc]
    count = min(item.count for item in found)
    if len(rows) < 3:
        return Estimate(value=value, count=count, warnings=[remark(f"{len(rows)} rounds: no interval")])
    error, freedom = jackknife(left_out)
    half = critical((1 - CONFIDENCE) / 2, freedom) * error if freedom else math.inf
    return Estimate(value=value, low=value - half, high=value + half, confidence=CONFIDENCE, count=count)


def at_most(goal: str, found: Estimate | None, bound: float, scale: float = 1.0, unit: str = "") -> Judged:
    """Whether a figure stays at or below its bound."""
    return within(goal, found, -math.inf, bound, scale, unit)


def at_least(goal: str, found: Estimate | None, bound: float, scale: float = 1.0, unit: str = "") -> Judged:
    """Whether a figure reaches its bound."""
    return within(goal, found, bound, math.inf, scale, unit)


def within(goal: str, found: Estimate | None, low: float, high: float, scale: float = 1.0, unit: str = "") -> Judged:
    """Whether a figure lies within bounds, judged by its interval."""
    if found is None or found.value is None or math.isnan(found.value):
        return goal, NOT_MEASURED, joined(found.warnings) if found else ""
    told = f"{digits(found.value / scale)}{unit}"
    inside = low <= found.value <= high
    if found.low is None or found.high is None:
        return goal, "open", f"{told}, no interval ({joined(found.warnings)})"
    told += f" [{digits(found.low / scale)}, {digits(found.high / scale)}], n = {found.count}"
    if low <= found.low and found.high <= high:
        return goal, "met", told
    if found.high < low or found.low > high:
        return goal, "not met", told
    return goal, "open", f"{told}; its value would {'meet' if inside else 'miss'} it"
