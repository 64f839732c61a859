"""The gate tested on itself: how often it would fail a run in which nothing changed, and how small a slow-down it sees.

The report's rounds are drawn anew many times (`gate/bootstrap.py`) as baseline and as candidate; every draw is judged as
a real run is. Slow-downs are then injected, one budget at a time, as if all others had stayed as they are: with Holm's
procedure the others can only make a failure more likely, so what is found here is the least that the gate sees.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from ..analysis.between_runs import ONE_HOUR
from ..analysis.result import unknown_because
from ..analysis.verdict import caveats
from ..progress import Progress
from ..recording import Recording
from .bootstrap import Slowed, World, figure_of_replay
from .budget_verdict import Case, outcomes_of

REPLAYS = 200  # A false-alarm rate of 5 % is then known to within 3 %.
POWER = 0.9
LADDER = (
    0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.10, 0.12, 0.15, 0.20, 0.25, 0.30, 0.40, 0.50, 0.70, 1.0, 1.5, 2.0, 3.0,
    5.0, 10.0, 20.0, 50.0,
)  # fmt: skip
SLOWED_MAX = 1e4  # A limit that no slow-down of this size reaches is none that a slow-down breaks.


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the replays, with the exact 95 % interval of Clopper and Pearson (1934)."""

    found: int
    count: int
    low: float
    high: float

    @property
    def ratio(self) -> float:
        """The share itself."""
        return self.found / self.count

    @classmethod
    def of(cls, found: int, count: int) -> Share:
        from scipy.special import betaincinv

        low = 0.0 if found == 0 else float(betaincinv(found, count - found + 1, 0.025))
        high = 1.0 if found == count else float(betaincinv(found + 1, count - found, 0.975))
        return cls(found=found, count=count, low=low, high=high)


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate sees of one budget for one figure."""

    budget: str
    figure: str
    gating: bool
    replayed: bool  # False: counted, so without noise; or nothing that a slow-down would change
    remark: str = ""
    room: str = ""  # how much slower writes may become until the limit is reached
    false_alarms: Share | None = None  # nothing has changed
    at_limit: Share | None = None  # the truth lies exactly at the limit: no promise is broken yet
    smallest_seen: float | None = None  # the least slow-down, as a ratio, that is failed in nine of ten replays
    power: dict[str, float] = {}  # by slow-down, such as "+10 %": how often it is failed


class SelfTest(msgspec.Struct, frozen=True, kw_only=True):
    """The gate's own figures."""

    alpha: float
    looks: int
    replays: int
    false_alarms: Share  # of the whole gate
    sights: list[Sight]


class Replayed(NamedTuple):
    """A case that can be replayed: the candidate at any slow-down, the baseline as it is."""

    case: Case
    cand: Slowed
    base: np.ndarray | None

    def at(self, slowed: float) -> list[Case]:
        """The case in every replay, the candidate taking `slowed` times as long."""
        values = self.cand(slowed)
        cases = []
        for index, row in enumerate(values):
            base = None
            if self.case.base is not None and self.base is not None:
                base = figure_of_replay(self.case.base, self.base[index])
            # The draws of both sides are independent, whatever the real rounds were, and of one hour.
            figure = figure_of_replay(self.case.figure, row)
            cases.append(self.case._replace(figure=figure, base=base, paired=False, between=ONE_HOUR))
        return cases


def self_test(
    recording: Recording, base: Recording | None, cases: Sequence[Case], alpha: float, looks: int, progress: Progress,
    replays: int = REPLAYS,
) -> SelfTest:  # fmt: skip
    """Replay a report through its gate; without a baseline the report is its own."""
    progress.expect(2.0 * len(cases))
    progress.doing("replaying rounds")
    cand_world, base_world = World(recording, 1, replays), World(base or recording, 2, replays)
    replayed = {index: replayed_case(case, cand_world, base_world) for index, case in enumerate(cases)}

    progress.doing("replaying the gate with nothing changed")
    unchanged = {index: item.at(1.0) for index, item in replayed.items() if item is not None}
    failed = np.zeros((replays, len(cases)), bool)
    for number in range(replays):
        drawn = [unchanged[index][number] if index in unchanged else case for index, case in enumerate(cases)]
        failed[number] = [outcome.verdict == "fail" for outcome in outcomes_of(drawn, alpha, looks)]
    gating = [index for index in unchanged if cases[index].budget.gating]

    sights = []
    for index, case in enumerate(cases):
        progress.doing(f"slowing down: {case.figure.name}")
        item = replayed[index]
        family = max(sum(other.budget.gating == case.budget.gating for other in (cases[i] for i in unchanged)), 1)
        sights.append(unseen(case) if item is None else sight(item, failed[:, index], alpha / family, looks))
        progress.did(2.0)
    return SelfTest(
        alpha=alpha, looks=looks, replays=replays, sights=sights,
        false_alarms=Share.of(int(failed[:, gating].any(axis=1).sum()), replays),
    )  # fmt: skip


def replayed_case(case: Case, cand_world: World, base_world: World) -> Replayed | None:
    """The case with its noise; None when it has none."""
    if case.figure.exact or case.figure.estimate.value is None or caveats(case.figure, paired=case.paired):
        return None
    cand = cand_world.replay(case.figure)
    if cand is None:
        return None
    if case.base is None:
        return Replayed(case, cand, None)
    base = base_world.replay(case.base)
    return None if base is None else Replayed(case, cand, base(1.0))


def unseen(case: Case) -> Sight:
    """What is said of a case that was not replayed."""
    if case.figure.exact:
        remark = "counted, so without noise: it sees a change of one"
    elif doubts := caveats(case.figure, paired=case.paired):
        remark = f"unknown in this report: {doubts[0]}"
    elif case.figure.estimate.value is None:
        remark = f"unknown in this report: {unknown_because(case.figure.estimate)[0]}"
    else:
        remark = "a slow-down of writes does not change it"
    return Sight(budget=case.budget.name, figure=case.figure.name, gating=case.budget.gating, replayed=False, remark=remark)


def sight(item: Replayed, alarms: np.ndarray, level: float, looks: int) -> Sight:
    """How often a case fails with nothing changed, at its limit, and beyond it."""
    replays = alarms.size

    def failures(slowed: float) -> int:
        return sum(outcomes_of([case], level, looks)[0].verdict == "fail" for case in item.at(slowed))

    known: dict[float, int] = {}

    def enough(step: float) -> bool:
        known[step] = failures(1 + step)
        return known[step] >= POWER * replays

    found = bisect_left(LADDER, True, key=enough)
    smallest = LADDER[found] if found < len(LADDER) else None
    limit = slowed_to_limit(item)
    room = "" if limit is None else f"{limit - 1:+.0%}"
    return Sight(
        budget=item.case.budget.name, figure=item.case.figure.name, gating=item.case.budget.gating, replayed=True,
        room=room, false_alarms=Share.of(int(alarms.sum()), replays),
        at_limit=Share.of(failures(limit), replays) if limit is not None else None, smallest_seen=smallest,
        power={f"{step:+.0%}": count / replays for step, count in sorted(known.items())},
    )  # fmt: skip


def slowed_to_limit(item: Replayed) -> float | None:
    """The slow-down that brings the figure, typically, exactly to its limit; None when none does."""
    budget = item.case.budget

    def excess(slowed: float) -> float:
        values = item.cand(slowed)[:, 0]
        if item.base is None:
            return float(np.nanmedian(values)) - budget.limit
        worse = 1.0 if item.case.figure.better == "less" else -1.0
        if budget.share:
            return float(np.nanmedian(np.log(values / item.base[:, 0]))) - float(np.log1p(worse * budget.limit))
        return float(np.nanmedian(values - item.base[:, 0])) - worse * budget.limit

    low, high = 1 / SLOWED_MAX, SLOWED_MAX
    rising = excess(high) > excess(low)
    if (excess(low) > 0) == (excess(high) > 0):
        return None
    for _ in range(40):
        middle = float(np.sqrt(low * high))
        if (excess(middle) > 0) == rising:
            high = middle
        else:
            low = middle
    return high
