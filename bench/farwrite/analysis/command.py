"""What a command costs at 0 miles and at a distance: percentiles of both, the difference in round trips, and what lies between.

The estimators are those of every report: exact intervals of order statistics, widened to hold the bootstrap over rounds, and the
line of `distance.py`, here through two places. Its x is the round trip that the link delivered, not the one asked for: at
0 miles a packet still needs the emulation's own passage, and a difference of distances must not contain it twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..base import reasons
from ..base.physics import Distance, rtt_ns_of
from ..base.reasons import Reason
from ..base.units import format_time
from ..recording import Cell, Repeated, Turn
from ..workload.link_spec import tolerance_ns
from .distance import Line, Place, independent, line_of
from .estimate import Draws, from_replicates, listed, unknown
from .latency import Pool
from .result import ROUNDS_MIN, Estimate, Struct

SEED = 1
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
BETWEEN = (0.25, 0.5, 0.75)  # of the distance

Effect = Literal["more", "less", "none", "unclear", "unknown"]


class Times(Pool):
    """Single times, round by round, each a value of its own: a run of a second is not counted in slots of a millisecond."""

    def __init__(self, name: str, rounds: Sequence[Sequence[float]], draws: Draws) -> None:
        kept = [(index, times) for index, times in enumerate(rounds) if len(times)]
        flat = np.concatenate([np.asarray(times, np.float64) for _, times in kept]) if kept else np.zeros(0)
        values, place = np.unique(flat, return_inverse=True)
        counts = np.zeros((len(kept), values.size))
        np.add.at(counts, (np.repeat(np.arange(len(kept)), [len(times) for _, times in kept]), place.reshape(-1)), 1)
        self.name, self.draws = name, draws
        self.indices = [index for index, _ in kept]
        self.values_ns = values
        self.by_round = np.cumsum(counts, axis=1)
        self.cumulative = self.by_round.sum(axis=0)
        self.saturated = 0
        self.made = {}


class Side(Struct, frozen=True):
    """The command at one of the two distances."""

    miles: float
    asked_rtt_ns: float
    rtt_ns_p50: Estimate  # as the link delivered it
    runs: int
    run_ns_p50: Estimate
    run_ns_p90: Estimate
    run_ns_p99: Estimate
    run_ns_p999: Estimate
    run_ns_min: float | None
    run_ns_max: float | None


class Between(Struct, frozen=True):
    """What the median run is expected to take at a distance between the two that were measured."""

    miles: float
    run_ns_p50: Estimate


class CommandResult(Struct, frozen=True):
    """The answer."""

    at_0: Side
    far: Side
    added_ns: Estimate  # median at the distance less median at 0 miles
    k: Estimate  # the same in round trips: how many a run waits for one after the other
    a_ns: Estimate  # what a run takes apart from them
    effect: Effect
    between: list[Between]


def analyse_command(made: Repeated) -> CommandResult:
    """The figures of a recording."""
    draws = Draws(SEED, len(made.rounds))
    turns: dict[bool, list[Turn]] = {False: [pair.at_0 for pair in made.rounds], True: [pair.far for pair in made.rounds]}
    runs = {far: Times(f"run {far}", [turn.run_ns for turn in turns[far]], draws) for far in turns}
    trips = {far: Times(f"rtt {far}", [turn.rtt_ns for turn in turns[far]], draws) for far in turns}
    distances = {False: Distance(0.0, 0), True: Distance(made.miles, made.asked_rtt_ns)}
    sides = {far: side_of(distances[far], trips[far], runs[far]) for far in turns}
    places = [Place(cell_of(distances[far]), trips[far], runs[far], sound=True) for far in (False, True)]
    obstacle = obstacle_of(made, sides[False], sides[True])
    if obstacle is not None:
        nothing = unknown(obstacle, count=min(side.runs for side in sides.values()))
        return CommandResult(
            at_0=sides[False], far=sides[True], added_ns=nothing, k=nothing, a_ns=nothing, effect="unknown", between=[]
        )
    line = line_of(places, 0.5)
    added_ns = of_both(line, lambda rtt_ns, run_ns: run_ns[..., 1] - run_ns[..., 0])
    impossible = beats_light(line)
    k, a_ns = (unknown(impossible, count=line.k.count),) * 2 if impossible else (line.k, line.a_ns)
    return CommandResult(
        at_0=sides[False], far=sides[True], added_ns=added_ns, k=k, a_ns=a_ns, effect=effect_of(line, added_ns),
        between=[] if impossible else between(line, made),
    )  # fmt: skip


def cell_of(asked: Distance) -> Cell:
    """A distance as the fit knows it. "local" promises no round trip: a command need not make any."""
    return Cell(
        id=f"run-{asked.miles:g}", name="run", protocol="local", miles=asked.miles, asked_rtt_ns=asked.rtt_ns, queue_depth=1,
        arrival="closed", size_bytes=0, offered_per_s=None,
    )  # fmt: skip


def side_of(asked: Distance, trips: Times, runs: Times) -> Side:
    """One side's figures."""
    ends = runs.values_ns
    return Side(
        miles=asked.miles, asked_rtt_ns=asked.rtt_ns, rtt_ns_p50=trips.estimate(0.5), runs=runs.count,
        **{f"run_ns_{name}": runs.estimate(q) for name, q in QUANTILES.items()},
        run_ns_min=float(ends[0]) if ends.size else None, run_ns_max=float(ends[-1]) if ends.size else None,
    )  # fmt: skip


def obstacle_of(made: Repeated, at_0: Side, far: Side) -> Reason | None:
    """Why nothing can be said of the distance; None where something can."""
    for side in (at_0, far):
        for estimate in (side.run_ns_p50, side.rtt_ns_p50):
            if estimate.value is None:
                return estimate.warnings[0]
    if len(made.rounds) < ROUNDS_MIN:
        return reasons.few_rounds(len(made.rounds))
    apart_ns = (far.rtt_ns_p50.value or 0.0) - (at_0.rtt_ns_p50.value or 0.0)
    if apart_ns <= tolerance_ns(made.asked_rtt_ns):
        return reasons.remark(
            f"the link delivered {format_time(apart_ns)} more than at 0 miles, no more than it may be off by: ask for a greater "
            "distance"
        )
    return None


def beats_light(line: Line) -> Reason | None:
    """Why k cannot be: round trips that one waits for one after the other take no longer than the whole run does."""
    high = line.a_ns.value if line.a_ns.high is None else line.a_ns.high
    if high is None or high >= 0:
        return None
    run_ns, rtt_ns = float(line.latency_ns.value[1]), float(line.rtt_ns.value[1])
    return reasons.latency_below_light(run_ns, (line.k.value or 0.0) * rtt_ns)


def of_both(line: Line, made_of) -> Estimate:
    """Something made of round trips and medians of both places, with its interval over rounds."""
    value, many, without, alone = (made_of(rtt_ns, run_ns) for rtt_ns, run_ns in zip(line.rtt_ns, line.latency_ns, strict=True))
    return from_replicates(
        float(value), many, line.rounds, line.fit.k.count, without=listed(without, line.indices),
        by_round=listed(alone, line.indices),
    )  # fmt: skip


def effect_of(line: Line, added_ns: Estimate) -> Effect:
    """What the distance does to a run."""
    assert added_ns.low is not None and added_ns.high is not None
    if independent(line.k):
        return "none"
    return "more" if added_ns.low > 0 else "less" if added_ns.high < 0 else "unclear"


def between(line: Line, made: Repeated) -> list[Between]:
    """The straight line between both places, at distances between them and nowhere else.

    What a run takes is a maximum of sums that each rise straight with the distance, so it lies on this line or below it.
    """
    found = []
    for share in BETWEEN:
        miles = share * made.miles
        rtt_ns = share * made.asked_rtt_ns if made.is_ping else rtt_ns_of(miles, made.route_factor)
        if not line.rtt_ns.value[0] < rtt_ns < line.rtt_ns.value[1]:
            continue

        def at(trips_ns: np.ndarray, run_ns: np.ndarray, rtt_ns: float = rtt_ns) -> np.ndarray:
            near, far = trips_ns[..., 0], trips_ns[..., 1]
            with np.errstate(divide="ignore", invalid="ignore"):
                part = np.clip((rtt_ns - near) / (far - near), 0.0, 1.0)
            return run_ns[..., 0] + part * (run_ns[..., 1] - run_ns[..., 0])

        found.append(Between(miles=miles, run_ns_p50=of_both(line, at)))
    return found
