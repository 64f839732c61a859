"""Baseline against candidate: the change of every figure, how sure it is, and whether it is one.

Reads result sets only, loads neither numpy nor scipy. Rounds are what a change and its error are made of: what a figure is in
each round by itself, on a logarithmic scale where ratios matter, and Student's t. Arms of one A/B experiment are compared
round by round, several runs a side run by run. Values pooled over rounds are a report's, and not compared: one round that
stalled moves a pooled p99 by itself, and leaving rounds out of the pool does not show how much (docs/decisions/0010).

A change counts when Holm's procedure over all rows rejects "no change" and it exceeds the noise floor, which is the margin
or what the same thing measured twice differs by. "same" is earned by an interval within the margin; the rest is unresolved.

One run a side was measured in two hours. What hours differ by is in the error where earlier runs show it (`between_runs.py`);
otherwise the verdicts are "differs" and "alike", of these two runs, and nothing is stated about the thing that was measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from ..base.errors import UnfitError, UsageError
from ..base.reasons import remark
from .between_runs import NO_HISTORY, RUNS_MIN, Between, EarlierRuns, RunHistory, error_of_runs
from .figure import Figure, Label, ResultSet, Unit
from .result import Estimate, lateness_share_of, unknown_because
from .student_t import critical, tail

ALPHA = 0.05  # The whole table's false-alarm rate.
CONFIDENCE = 0.95  # Of each interval by itself.
CLOSE_RATIO = 1e-12  # Two ways to compute one ratio of counts differ by less.
MARGIN_RATIO = 0.05  # A smaller change is none that anyone would act on.
RESOLUTION = 2.0**-10  # A histogram's slots are as wide, relative to their value.
MILES_OF = "2 ms"  # The budget whose greatest miles are compared: C1's.
SPLITS = 252  # Ways to halve ten rounds; of more rounds as many halvings are drawn.

Verdict = Literal["faster", "slower", "better", "worse", "higher", "lower", "same", "differs", "alike", "unresolved"]
UNCHANGED: tuple[Verdict, ...] = ("same", "alike", "unresolved")  # All others say that something is not what it was.

# What is compared of a farwrite report, in the order of the table; other figures are there to explain these.
COMPARED = (
    "response_p50", "response_p99", "response_p999", "throughput", "cpu_per_write", "lag_p99", "rtt_p50",
    "flushes_per_write", "far_flushes_per_write", "wire_bytes_per_user_byte", "lost_writes", "damaged_writes",
    "k_p50", "k_p99", "a_p50", "a_p99", "greatest_miles_p50", "greatest_miles_p99",
    "drill_lost_writes", "drill_damaged_writes", "part_response_p50", "part_response_p99", "part_throughput",
    "recovery_time_p50", "recovery_time_p95", "outage_share",
)  # fmt: skip

# Figures that may be zero or negative are compared by difference, with a margin in their own unit.
MARGINS: dict[str, float] = {
    "k_p50": 0.05, "k_p99": 0.05, "a_p50": 20_000.0, "a_p99": 20_000.0,
    "greatest_miles_p50": 2.0, "greatest_miles_p99": 2.0, "outage_share": 0.01,
}  # fmt: skip


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """What comparisons are made of."""


class Row(Struct, frozen=True):
    """One figure of both sides, as it is in a typical round.

    Changes are ratios less 1 where `relative`, differences in the figure's unit elsewhere.
    """

    metric: str
    labels: dict[str, Label]
    name: str
    unit: Unit
    exact: bool
    relative: bool
    counted: bool  # losses and the like: two runs are held against each other as they are
    base: Estimate
    cand: Estimate
    change: Estimate
    p: float | None  # that chance alone would differ as much, before Holm's procedure
    floor: float | None  # what no change looks like: the 95th percentile of |A/A|
    margin: float
    verdict: Verdict
    sentence: str
    runs: int = 0  # earlier runs that show what differs from run to run; of one run a side, none: of these two runs only


class Comparison(Struct, frozen=True):
    """All rows, the worst first within their verdict, and what they rest on."""

    base: list[str]
    cand: list[str]
    unit_of_replication: Literal["pairs", "rounds", "runs"]
    floor_from: str  # where the noise floor comes from, in words
    alpha: float
    margin_ratio: float
    rows: list[Row]
    warnings: list[str]
    earlier_runs: EarlierRuns | None = None  # where what differs from run to run comes from; null: not one run a side


class Spread(NamedTuple):
    """A value on the scale it is compared on, its standard error and the degrees of freedom behind that."""

    value: float
    error: float
    df: float


class Change(NamedTuple):
    """A difference on the scale it is compared on."""

    value: float
    error: float
    df: float

    def tail_above(self, limit: float) -> float:
        """How probable a difference this great or greater is, were the true one `limit`."""
        if self.error == 0:
            return 0.0 if self.value > limit else 1.0
        return tail((self.value - limit) / self.error, self.df)

    def tail_below(self, limit: float) -> float:
        """How probable a difference this small or smaller is, were the true one `limit`."""
        if self.error == 0:
            return 0.0 if self.value < limit else 1.0
        return tail((limit - self.value) / self.error, self.df)

    def chance(self) -> float:
        """How probable a difference this far from nothing is, were there none."""
        return min(1.0, 2 * (self.tail_above(0) if self.value > 0 else self.tail_below(0)))

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """(low, high) around the value."""
        if self.error == 0:
            return self.value, self.value
        half = critical((1 - confidence) / 2, self.df) * self.error
        return self.value - half, self.value + half


# Scales


def is_relative(figure: Figure) -> bool:
    """Whether a figure's change is told as a ratio: not for fits and miles, which may be zero, nor for plain counts."""
    return figure.metric not in MARGINS and not is_count(figure)


def is_count(figure: Figure) -> bool:
    """Whether two runs may be held against each other without noise: losses may, flushes per write differ by round."""
    return figure.exact and not figure.estimate.without


def same(value: float, other: float) -> bool:
    """Whether two counts, or ratios of counts, are the same."""
    return math.isclose(value, other, rel_tol=CLOSE_RATIO)


def is_constant(figure: Figure) -> bool:
    """Whether every round had the same: the structure of what was measured, where it was counted. No hour changes it, it has no
    noise, and takes no part in Holm's procedure."""
    value = figure.estimate.value
    return value is not None and all(one is None or same(one, value) for one in figure.estimate.without)


def scaled(value: float | None, relative: bool) -> float | None:
    """A value on the scale it is compared on: its logarithm, or itself."""
    if value is None or not math.isfinite(value):
        return None
    if not relative:
        return value
    return math.log(value) if value > 0 else None


def printed_change(change: float, relative: bool) -> float:
    """A change as it is told: a ratio less 1, or a difference."""
    return math.expm1(change) if relative else change


# Errors


def left_out(estimate: Estimate, relative: bool) -> dict[int, float]:
    """By round index: the value with that round left out, on its scale."""
    found = {index: scaled(value, relative) for index, value in enumerate(estimate.without)}
    return {index: value for index, value in found.items() if value is not None}


def jackknife(values: Sequence[float]) -> tuple[float, float]:
    """(standard error, degrees of freedom) from leave-one-out values. Efron and Tibshirani 1993, §11.2."""
    count = len(values)
    mean = math.fsum(values) / count
    return math.sqrt((count - 1) / count * math.fsum((value - mean) ** 2 for value in values)), count - 1


def resolution_error(figure: Figure) -> float:
    """The error of having been counted in slots, on the logarithmic scale."""
    return RESOLUTION / math.sqrt(12) if figure.unit == "ns" and is_relative(figure) else 0.0


def spread(figure: Figure) -> Spread | str:
    """A figure by itself as it was pooled, or why it cannot be judged; its error is the larger of two ways to see it."""
    relative = is_relative(figure)
    value = scaled(figure.estimate.value, relative)
    if value is None:
        if figure.estimate.value == 0:
            return "it is 0, and no ratio tells a change from that"
        return str(unknown_because(figure.estimate)[0])
    if is_count(figure):
        return Spread(value, 0.0, math.inf)
    known = list(left_out(figure.estimate, relative).values())
    if len(known) < 2:
        return "one round only: how much it varies is not known"
    error, df = jackknife(known)
    rounds = list(rounds_of(figure).values())
    if len(rounds) >= 2:
        error = max(error, mean_of(rounds).error)
    return Spread(value, math.hypot(error, resolution_error(figure)), df)


def rounds_of(figure: Figure) -> dict[int, float]:
    """By round index: what the figure is in that round by itself, on its scale.

    Where only values with a round left out are known, their pseudo-values stand for the rounds; of a mean they are the rounds.
    """
    relative = is_relative(figure)
    alone = {index: scaled(value, relative) for index, value in enumerate(figure.estimate.by_round)}
    known = {index: value for index, value in alone.items() if value is not None}
    value = scaled(figure.estimate.value, relative)
    if known or value is None:
        return known
    without = left_out(figure.estimate, relative)
    count = len(without)
    return {index: count * value - (count - 1) * other for index, other in without.items()}


def mean_of(values: Sequence[float]) -> Spread:
    """The mean with its standard error; at least two values."""
    count = len(values)
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Spread(mean, math.sqrt(variance / count), count - 1)


def always_zero(figure: Figure) -> bool:
    """Whether it is 0 in every round, as the far flushes of protocol local are."""
    return figure.estimate.value == 0 and not any(figure.estimate.without)


def change_of(base: Figure, cand: Figure, paired: bool, between: Between | None = None) -> Change | str:
    """The candidate less the baseline, or why that cannot be said; `between` is what the figure differs by from run to run."""
    for side, figure in (("baseline", base), ("candidate", cand)):
        # What else the machine did hit both sides alike where they were measured side by side.
        doubts = figure.withheld if paired else figure.doubts
        if doubts:
            return f"{side}: {doubts[0]}"
    if always_zero(base) and always_zero(cand):
        return Change(0.0, 0.0, math.inf)
    first, second = spread(base), spread(cand)
    for side, found in (("baseline", first), ("candidate", second)):
        if isinstance(found, str):
            return f"{side}: {found}"
    assert isinstance(first, Spread) and isinstance(second, Spread)
    if is_count(base):
        return Change(second.value - first.value, 0.0, math.inf)
    ours, theirs = rounds_of(base), rounds_of(cand)
    resolution = resolution_error(base) * math.sqrt(2)
    both = sorted(ours.keys() & theirs.keys())
    if paired and len(both) >= 2:
        pairs = mean_of([theirs[index] - ours[index] for index in both])
        return Change(pairs.value, math.hypot(pairs.error, resolution), pairs.df)
    if min(len(ours), len(theirs)) < 2:
        return f"{'baseline' if len(ours) < 2 else 'candidate'}: not two whole rounds to compare by"
    one, two = mean_of(list(ours.values())), mean_of(list(theirs.values()))
    error, df = welch(one, two) if between is None or paired else error_of_runs(one, two, between)
    return Change(two.value - one.value, math.hypot(error, resolution), df)


def level_of(figure: Figure) -> Spread | None:
    """A figure as one run of several: its mean over rounds, on its scale; None of counts and of fewer than two rounds."""
    rounds = list(rounds_of(figure).values())
    if is_count(figure) or len(rounds) < 2:
        return None
    mean = mean_of(rounds)
    return mean._replace(error=math.hypot(mean.error, resolution_error(figure)))


def welch(first: Spread, second: Spread) -> tuple[float, float]:
    """(standard error, degrees of freedom) of the difference of two that have nothing in common. Welch 1947."""
    one, two = first.error**2, second.error**2
    if one + two == 0:
        return 0.0, first.df + second.df
    return math.sqrt(one + two), (one + two) ** 2 / (one**2 / first.df + two**2 / second.df)


def late_refusal(bases: Sequence[Figure], cands: Sequence[Figure]) -> str:
    """Why two sides are not compared: too much of a time is the generator's lateness. Empty when it is not."""
    sides = [("baseline", figure) for figure in bases] + [("candidate", figure) for figure in cands]
    return next((f"{side}: {doubt}" for side, figure in sides if (doubt := lateness_share_of(figure.estimate))), "")


def change_of_runs(bases: Sequence[Figure], cands: Sequence[Figure]) -> Change | str:
    """The same from several runs a side, each run one value: what differs from run to run is in the error."""
    if all(map(always_zero, [*bases, *cands])):
        return Change(0.0, 0.0, math.inf)
    sides = []
    for side, figures in (("baseline", bases), ("candidate", cands)):
        for figure in figures:
            if figure.doubts:
                return f"{side}: {figure.doubts[0]}"
        values = [scaled(figure.estimate.value, is_relative(figure)) for figure in figures]
        known = [value for value in values if value is not None]
        if len(known) < 2:
            return f"{side}: {len(known)} of {len(values)} runs have a value"
        if is_count(figures[0]):
            sides.append(Spread(max(known), 0.0, math.inf))  # The worst count is the one that matters.
        else:
            sides.append(mean_of(known))
    return Change(sides[1].value - sides[0].value, *welch(*sides))


# The noise floor


def noise_floor(
    base: Figure, history: RunHistory, between: Between | None, aa_floors: Mapping[str, float] | None
) -> float | None:
    """What no change of a figure looks like: what the base differed by from itself where it was measured twice (`aa_floors`, by
    metric); else what earlier runs differ by, where they show it; else what its own rounds do, split in half."""
    if aa_floors is not None:
        return aa_floors.get(base.metric)
    if between is not None:
        return percentile_95(apart([level.value for level in history.levels[key_of(base)]]))
    return floor_of_splits(base)


def floor_of_splits(figure: Figure) -> float | None:
    """The 95th percentile of |A/A| when a run's own rounds are split in half, in every way or in many; None for too few.

    A half has half the rounds, so a difference of halves is scaled to what two whole runs would show.
    """
    rounds = list(rounds_of(figure).values())
    count = len(rounds)
    if count < 4:
        return None
    half = count // 2
    scale = math.sqrt((2 / count) / (1 / half + 1 / (count - half)))
    total = sum(rounds)
    parts = map(sum, halvings(rounds, half))
    return percentile_95(scale * abs(part / half - (total - part) / (count - half)) for part in parts)


def halvings(rounds: Sequence[float], half: int) -> Iterable[Sequence[float]]:
    """Every choice of `half` rounds where there are at most SPLITS, otherwise that many drawn, always the same."""
    if math.comb(len(rounds), half) <= SPLITS:
        return itertools.combinations(rounds, half)
    import random

    dice = random.Random(len(rounds))
    return (dice.sample(rounds, half) for _ in range(SPLITS))


def percentile_95(values: Iterable[float]) -> float | None:
    """The 95th percentile, upwards; None of nothing."""
    ordered = sorted(values)
    return ordered[math.ceil(0.95 * len(ordered)) - 1] if ordered else None


def floors_of_aa_control(bases: Sequence[Figure], twins: dict[tuple, Figure]) -> dict[str, float]:
    """By metric: the 95th percentile over all cells of what base and base-again differ by."""
    found: dict[str, list[float]] = {}
    for figure in bases:
        twin = twins.get(key_of(figure))
        ours, theirs = rounds_of(figure), rounds_of(twin) if twin else {}
        if len(ours) >= 2 and len(theirs) >= 2:
            difference = mean_of(list(theirs.values())).value - mean_of(list(ours.values())).value
            found.setdefault(figure.metric, []).append(abs(difference))
    return {metric: percentile_95(values) or 0.0 for metric, values in found.items()}


def floor_of_runs(bases: Sequence[Figure], cands: Sequence[Figure]) -> float | None:
    """The 95th percentile of what two runs of one side differ by."""
    differences = []
    for figures in (bases, cands):
        values = [scaled(figure.estimate.value, is_relative(figure)) for figure in figures]
        differences += apart([value for value in values if value is not None])
    return percentile_95(differences)


def apart(levels: Sequence[float]) -> list[float]:
    """What each two of them differ by."""
    return [abs(one - two) for one, two in itertools.combinations(levels, 2)]


# Many at once


def holm(probabilities: Sequence[float]) -> list[float]:
    """Probabilities adjusted for being many: reject where at most alpha, and all together err with alpha. Holm 1979."""
    order = sorted(range(len(probabilities)), key=lambda index: probabilities[index])
    adjusted = [0.0] * len(probabilities)
    greatest = 0.0
    for place, index in enumerate(order):
        greatest = max(greatest, min(1.0, (len(order) - place) * probabilities[index]))
        adjusted[index] = greatest
    return adjusted


# Comparing


def compare(
    bases: Sequence[ResultSet],
    cands: Sequence[ResultSet],
    aa_control: ResultSet | None = None,
    allowed: Iterable[str] = (),
    margin_ratio: float = MARGIN_RATIO,
    alpha: float = ALPHA,
    history: RunHistory = NO_HISTORY,
) -> Comparison:
    """Every figure that both sides have. UnfitError names the fields in which the runs are unlike.

    `history` has earlier runs like the baseline, neither side among them: what differs from run to run, of one run a side.
    """
    allowed = set(allowed)
    warnings = check_alike([*bases, *([aa_control] if aa_control else [])], cands, allowed)
    kind = replication(bases, cands)
    base_figures, cand_figures = [by_key(result_set) for result_set in bases], [by_key(result_set) for result_set in cands]
    check_complete(base_figures, cand_figures, allowed)
    sides = [*base_figures, *cand_figures]
    keys = [key for key in base_figures[0] if all(key in item for item in sides) and applies(item[key] for item in sides)]
    if not keys:
        raise UnfitError("The two sides have no figure in common: there is nothing to compare.")

    aa_floors = floors_of_aa_control(list(base_figures[0].values()), by_key(aa_control)) if aa_control else {}
    if aa_control:
        floor_from = "the base measured twice side by side"
    elif kind == "runs":
        floor_from = "runs of one side against each other"
    elif kind == "rounds" and history.about.runs >= RUNS_MIN:
        floor_from = "earlier runs against each other"
    else:
        floor_from = "the base's own rounds, split in half in every way"
    if kind == "rounds":
        warnings += hours_apart(bases[0], cands[0], history)

    drafts = []
    for key in keys:
        ours, theirs = [item[key] for item in base_figures], [item[key] for item in cand_figures]
        between = history.between(key) if kind == "rounds" else None
        if kind == "runs":
            change, floor = late_refusal(ours, theirs) or change_of_runs(ours, theirs), floor_of_runs(ours, theirs)
        else:
            change = late_refusal(ours, theirs) or change_of(ours[0], theirs[0], kind == "pairs", between)
            floor = noise_floor(ours[0], history, between, aa_floors if aa_control else None)
        drafts.append(Draft(middle(ours), middle(theirs), change, floor, kind == "rounds", between.runs if between else 0))
    rows = rows_of(drafts, margin_ratio, alpha)
    return Comparison(
        base=[result_set.source for result_set in bases],
        cand=[result_set.source for result_set in cands],
        unit_of_replication=kind,
        floor_from=floor_from,
        alpha=alpha,
        margin_ratio=margin_ratio,
        rows=sorted(rows, key=worst_first),
        warnings=warnings,
        earlier_runs=history.about if kind == "rounds" else None,
    )


class Draft(NamedTuple):
    """A row that has not been judged yet: how sure it must be depends on all of them."""

    base: Figure
    cand: Figure
    change: Change | str
    floor: float | None
    hours_apart: bool  # one run a side, each of its own hour
    runs: int  # earlier runs that show what hours differ by


def hours_apart(base: ResultSet, cand: ResultSet, history: RunHistory) -> list[str]:
    """What one run a side cannot know, in sentences."""
    about = history.about
    if about.runs < RUNS_MIN:
        return [
            f"one run a side, and what differs from run to run is not known ({about.text}; {RUNS_MIN} are needed): a change may "
            "be of the hour, and verdicts are of these two runs only; use farwrite ab, or give several runs a side"
        ]
    between_s, spanned_s = seconds(base.started_utc, cand.started_utc), seconds(about.first_utc, about.last_utc)
    if between_s is None or spanned_s is None or between_s <= spanned_s:
        return []
    return [
        f"the two runs lie {between_s / 3600:.3g} h apart and the {about.runs} earlier ones lie within {spanned_s / 3600:.3g} h: "
        "what differs over a longer time than that is not known, and may be taken for a change"
    ]


def seconds(one: str, other: str) -> float | None:
    """How far two instants lie apart; None where one cannot be read."""
    from datetime import UTC, datetime

    try:
        first, second = (datetime.fromisoformat(text) for text in (one, other))
    except ValueError:
        return None
    first, second = (moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in (first, second))
    return abs((second - first).total_seconds())


def replication(bases: Sequence[ResultSet], cands: Sequence[ResultSet]) -> Literal["pairs", "rounds", "runs"]:
    """What an error is made of: pairs of rounds, rounds, or whole runs."""
    if len(bases) > 1 and len(cands) > 1:
        return "runs"
    if len(bases) > 1 or len(cands) > 1:
        raise UsageError("One run on one side and several on the other: give one each, or several each.")
    return "pairs" if are_paired(bases[0], cands[0]) else "rounds"


def are_paired(base: ResultSet, cand: ResultSet) -> bool:
    """Whether two reports are arms of one experiment, measured round by round beside each other."""
    return base.pairing is not None and cand.pairing is not None and base.pairing.id == cand.pairing.id


def check_alike(bases: Sequence[ResultSet], cands: Sequence[ResultSet], allowed: set[str]) -> list[str]:
    """Warnings about what differs and is allowed to; UnfitError for the rest."""
    everyone = [*bases, *cands]
    warnings = [f"{result_set.source} is of an interrupted run" for result_set in everyone if result_set.interrupted]
    fields: dict[str, None] = dict.fromkeys(field for result_set in everyone for field in ["tool", *result_set.identity])
    unknown = allowed - set(fields) - {"cells"}
    if unknown:
        from ..base.errors import nearest

        word = sorted(unknown)[0]
        raise UsageError(f'--allow-mismatch {word}: there is no such field{nearest(word, [*fields, "cells"])}.')
    paired = all(one.pairing for one in everyone) and len({one.pairing.id for one in everyone if one.pairing}) == 1
    unlike = []
    for field in fields:
        values = dict.fromkeys(one.kind if field == "tool" else one.identity.get(field, "") for one in everyone)
        if len(values) == 1:
            continue
        words = f"{field} ({' | '.join(value or 'none' for value in values)})"
        if paired or field in allowed:
            warnings.append(f"the sides differ in {words}")
        else:
            unlike.append((field, words))
    if unlike:
        options = " ".join(f"--allow-mismatch {field}" for field, _ in unlike)
        raise UnfitError(
            f"These runs are unlike, and a difference between them would mean nothing: {'; '.join(w for _, w in unlike)}. "
            f"Measure both alike, or say that you know better: {options}."
        )
    return warnings


def check_complete(bases: list[dict], cands: list[dict], allowed: set[str]) -> None:
    """UnfitError when a cell is on one side only."""
    if "cells" in allowed:
        return

    def cells(sides: list[dict]) -> set[tuple]:
        return {key[1] for side in sides for key in side}

    for side, has, other in (("candidate", cells(bases), cands), ("baseline", cells(cands), bases)):
        for figures in other:
            missing = sorted(has - cells([figures]), key=str)
            if missing:
                names = "; ".join(", ".join(str(value) for _, value in labels) for labels in missing[:3])
                raise UnfitError(
                    f"The {side} lacks what the other side measured: {names}{' …' if len(missing) > 3 else ''}. "
                    "Compare the rest with --allow-mismatch cells."
                )


def key_of(figure: Figure) -> tuple:
    """What makes two figures of different runs the same one."""
    return figure.metric, tuple(sorted(figure.labels.items()))


def applies(figures: Iterable[Figure]) -> bool:
    """Whether any of these has a value, or a reason for having none: the far flushes of protocol local have neither."""
    return any(item.estimate.value is not None or item.estimate.warnings for item in figures)


def by_key(result_set: ResultSet) -> dict[tuple, Figure]:
    """The figures of a result set that are compared."""
    kept = [item for item in result_set.figures if result_set.kind != "farwrite" or item.metric in COMPARED]
    # Miles are told for every budget and route, all from one fit: one of them stands for all.
    return {
        key_of(item): item
        for item in kept
        if item.labels.get("route", 1.0) == 1.0 and item.labels.get("budget", MILES_OF) == MILES_OF
    }


def typical(figure: Figure) -> Estimate:
    """The figure in a typical round, which is what is compared; as it is where its rounds are not known.

    A closed loop completes few writes in a slow round, so the pooled value speaks for the fast ones.
    """
    rounds = list(rounds_of(figure).values())
    if is_count(figure) or len(rounds) < 2:
        return figure.estimate
    mean = mean_of(rounds)
    ends = Change(mean.value, mean.error, mean.df).interval()
    value, low, high = (math.exp(min(end, 700.0)) if is_relative(figure) else end for end in (mean.value, *ends))
    return msgspec.structs.replace(figure.estimate, value=value, low=low, high=high, confidence=CONFIDENCE)


def middle(figures: Sequence[Figure]) -> Figure:
    """The figure that stands for a side: of several runs their middle value, with all of them as its interval."""
    if len(figures) == 1:
        return figures[0]
    first = figures[0]
    values = sorted(item.estimate.value for item in figures if item.estimate.value is not None)
    if not values:
        return first
    relative = is_relative(first)
    mean = math.fsum(scaled(value, relative) or 0.0 for value in values) / len(values)
    value = max(values) if is_count(first) else math.exp(mean) if relative else mean
    varies: list[float | None] = [None] if first.estimate.without else []  # It is no plain count, and has no rounds either.
    estimate = Estimate(value=value, low=values[0], high=values[-1], count=len(values), without=varies)
    return msgspec.structs.replace(first, estimate=estimate)


def rows_of(drafts: Sequence[Draft], margin_ratio: float, alpha: float) -> list[Row]:
    """Each draft with its verdict, all of them together erring with `alpha`."""
    adjusted: dict[int, tuple[float, float]] = {}
    # The round trip is no result but a condition of the others: a family of its own, which costs them no sight.
    for result in (True, False):
        tested = [draft for draft in drafts if isinstance(draft.change, Change) and not is_count(draft.base)
                  and bool(draft.base.better) == result]  # fmt: skip
        probabilities = [draft.change.chance() for draft in tested if isinstance(draft.change, Change)]
        adjusted |= {id(draft): (p, q) for draft, p, q in zip(tested, probabilities, holm(probabilities), strict=True)}
    rows = []
    for draft in drafts:
        p, p_adjusted = adjusted.get(id(draft), (None, None))
        rows.append(row_of(draft, p, p_adjusted, margin_ratio, alpha))
    return rows


def row_of(draft: Draft, p: float | None, p_adjusted: float | None, margin_ratio: float, alpha: float) -> Row:
    """One row with its verdict and sentence."""
    figure = draft.base
    relative = is_relative(figure)
    margin = MARGINS.get(figure.metric, margin_ratio)

    def row(change: Estimate, verdict: Verdict, sentence: str) -> Row:
        return Row(
            metric=figure.metric, labels=figure.labels, name=figure.name, unit=figure.unit, exact=figure.exact,
            relative=relative, counted=is_count(figure), base=typical(draft.base), cand=typical(draft.cand), change=change, p=p,
            floor=None if draft.floor is None else printed_change(draft.floor, relative), margin=margin, verdict=verdict,
            sentence=sentence, runs=draft.runs,
        )  # fmt: skip

    if isinstance(draft.change, str):
        return row(Estimate(value=None, warnings=[remark(draft.change)]), "unresolved", draft.change)
    change = draft.change
    if is_count(figure):
        estimate = Estimate(value=change.value, low=change.value, high=change.value, confidence=1.0)
        if change.value == 0:
            return row(estimate, "same", "counted, and equal")
        if draft.base.estimate.value and draft.cand.estimate.value:
            return row(estimate, "unresolved", "both sides have some: a count of accidents has no interval")
        return row(estimate, direction(figure, change.value), "counted: none on one side, some on the other")
    low, high = change.interval()
    estimate = Estimate(
        value=printed_change(change.value, relative), low=printed_change(low, relative),
        high=printed_change(high, relative), confidence=CONFIDENCE,
        count=round(change.df) + 1 if math.isfinite(change.df) else 0,
    )  # fmt: skip
    assert p_adjusted is not None
    floor = draft.floor or 0.0
    bound = math.log1p(margin) if relative else margin
    structure = all(item.exact and is_constant(item) for item in (draft.base, draft.cand))
    these_two = draft.hours_apart and not draft.runs and not structure
    if -bound < low and high < bound:
        if these_two:
            inside = "the whole interval lies within the margin, of these two runs: their hours may hide a change"
            return row(estimate, "alike", inside)
        return row(estimate, "same", "the whole interval lies within the margin")
    if p_adjusted <= alpha and abs(change.value) > max(floor, bound):
        if these_two:
            return row(estimate, "differs", "these two runs differ beyond what their rounds explain; the hour may be why")
        return row(estimate, direction(figure, change.value), "a change beyond chance and beyond the noise floor")
    if p_adjusted <= alpha and abs(change.value) > bound:
        return row(estimate, "unresolved", "beyond chance, but within what the same thing measured twice differs by")
    if p_adjusted <= alpha:
        return row(estimate, "unresolved", "a change beyond chance, though its value lies within the margin")
    if low > 0 or high < 0:
        return row(estimate, "unresolved", "likely a change, but not sure enough among so many figures: more rounds would tell")
    return row(estimate, "unresolved", "the interval reaches beyond the margin: more rounds would tell")


def direction(figure: Figure, change: float) -> Verdict:
    """A change in words: faster and slower for times and rates, better and worse for the rest."""
    if not figure.better:
        return "higher" if change > 0 else "lower"
    good = (change < 0) == (figure.better == "less")
    if figure.unit in ("ns", "per_s", "bytes_per_s"):
        return "faster" if good else "slower"
    return "better" if good else "worse"


RANK: dict[Verdict, int] = {
    "slower": 0, "worse": 0, "higher": 1, "lower": 1, "differs": 1, "unresolved": 2, "faster": 3, "better": 3, "same": 4,
    "alike": 4,
}  # fmt: skip


def worst_first(row: Row) -> tuple:
    """Sorts rows: what got worse first, counts before all, then by size; then what is open; then the rest."""
    return RANK[row.verdict], not row.counted, -size_in_margins(row)


def size_in_margins(row: Row) -> float:
    """How great a change is beside what nobody would act on. Of a value with a unit also as a share, whichever is less:
    66 of 600 miles are as much as 11 % of a latency, and a k of 0.1 instead of 0.01 is not ten times worse.
    """
    if row.change.value is None:
        return -1.0
    size = abs(row.change.value)
    if row.relative or not row.base.value:
        return size / row.margin
    return min(size / row.margin, size / abs(row.base.value) / MARGIN_RATIO)
