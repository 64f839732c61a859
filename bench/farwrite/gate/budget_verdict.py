"""From promises and figures to verdicts: pass, fail or unknown, each with a sentence. Pure arithmetic, no files.

What was counted is compared as it is. What was measured fails when chance would not explain it: Holm's procedure over all
measured tests of the gate keeps the rate of false alarms of the whole gate at alpha, however many budgets it has. It passes
when chance would not explain it were the promise broken. In between lies unknown, which says what would tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ..analysis.between_runs import RUNS_MIN, Between
from ..analysis.change import (
    CONFIDENCE,
    Change,
    change_of,
    holm,
    is_constant,
    is_count,
    is_relative,
    left_out,
    printed_change,
)
from ..analysis.figure import Figure, Label, Unit
from ..analysis.result import Estimate, Verdict, unknown_because
from ..analysis.student_t import critical
from ..analysis.verdict import Settled, Trial, caveats, counted, examine, lateness_shift, verdict_of, within
from ..base import reasons
from ..base.reasons import Reason
from .budget import SAFETY, Budget, Kind

POWER = 0.9  # "it sees a change": in nine of ten runs.
ROUNDS_MAX = 1000  # A profile asks for no more.
POINT_MAX = 700.0  # Of a logarithm; exp of more is no number.


class Case(NamedTuple):
    """A budget, one figure it is about, and what judging that takes."""

    budget: Budget
    figure: Figure
    base: Figure | None = None  # for not_worse_by
    paired: bool = False  # both sides measured round by round beside each other
    floor: float | None = None  # what no change looks like, on the scale of the comparison
    # Of greatest_miles without a value, what decides in its place: the fit's a where distance has no part; the response time
    # at the farthest or the nearest measured distance where the miles lie beyond or below it.
    instead: Figure | None = None
    doubt: Reason | None = None  # why this run may break a promise and not keep one: it was interrupted
    between: Between | None = None  # of not_worse_by, not paired: what the figure differs by from run to run; None: nobody knows


class BudgetVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one budget for one figure."""

    budget: str  # its name
    metric: str
    labels: dict[str, Label]
    figure: str  # in words
    unit: Unit
    exact: bool
    verdict: Verdict
    sentence: str
    reason: str  # the budget's own
    place: str  # of the budget, file:line
    gating: bool
    kind: Kind
    limit: float
    share: bool
    value: Estimate
    base: Estimate | None = None
    change: Estimate | None = None  # of not_worse_by: a ratio less 1, or a difference
    p_fail: float | None = None  # that chance alone would look as bad, were the promise just kept
    p_adjusted: float | None = None  # the same after Holm's procedure: a failure is at most the level
    p_pass: float | None = None  # that chance alone would look as good, were the promise just broken
    floor: float | None = None
    sees: float | None = None  # what would be failed in nine of ten runs: a value, or a change
    rounds_needed: int | None = None  # of an unknown: so many would tell if things are as they look
    lost: bool = False  # acknowledged writes are gone or damaged, more than promised
    reasons: list[Reason] = []  # why it is unknown

    @property
    def measured(self) -> bool:
        """Whether chance had a part in it."""
        return self.p_fail is not None


class Outcome(NamedTuple):
    """A case judged, and not yet put into words."""

    draft: Trial | Settled
    verdict: Verdict
    p_adjusted: float  # after Holm's procedure; nothing where chance has no part
    tests: int  # how many were in its family
    doubt: Reason | None = None  # why its verdict is withheld


def verdicts_of(cases: Sequence[Case], alpha: float, looks: int = 1) -> list[BudgetVerdict]:
    """One verdict a case, in their order; all failures of gating budgets together err with `alpha` over all looks."""
    level = alpha / looks
    return [
        settled(case, outcome.draft) if isinstance(outcome.draft, Settled) else tested(case, outcome.draft, outcome, level)
        for case, outcome in zip(cases, outcomes_of(cases, alpha, looks), strict=True)
    ]


def outcomes_of(cases: Sequence[Case], alpha: float, looks: int = 1) -> list[Outcome]:
    """The verdicts without their sentences, which take ten times as long: for who judges thousands of cases."""
    level = alpha / looks
    drafts = [draft_of(case) for case in cases]
    outcomes = [Outcome(draft, draft.verdict if isinstance(draft, Settled) else "unknown", math.nan, 0) for draft in drafts]
    # What is only reported alarms nobody: it must not cost the others their sight, so it is a family of its own.
    for gating in (True, False):
        family = [(index, draft) for index, draft in enumerate(drafts)
                  if isinstance(draft, Trial) and cases[index].budget.gating == gating]  # fmt: skip
        trials = [draft for _, draft in family]
        for place, ((index, draft), p) in enumerate(zip(family, holm([draft.p_fail for draft in trials]), strict=True)):
            verdict = verdict_of(draft, p, level)
            turned = verdict != "unknown" and verdict_without_lateness(trials, place, verdict, level) != verdict
            doubt = reasons.lateness(draft.late_ns) if turned else None
            outcomes[index] = Outcome(draft, "unknown" if doubt else verdict, p, len(family), doubt)
    return outcomes


def verdict_without_lateness(trials: Sequence[Trial], place: int, found: Verdict, level: float) -> Verdict:
    """The verdict on one trial of a family with the generator's lateness taken off: `found`, unless that turns it."""
    trial = trials[place]
    for shift in trial.shifts:
        moved = trial.moved(shift)
        p = holm([(moved if other is trial else other).p_fail for other in trials])[place]
        if (verdict := verdict_of(moved, p, level)) != found:
            return verdict
    return found


# What is tested, and how


def draft_of(case: Case) -> Trial | Settled:
    """The test that a case comes down to, or its verdict where there is nothing to test."""
    kind = case.budget.kind
    if kind == "not_worse_by":
        return examine_change(case)
    return examine(case.figure, kind, case.budget.limit, doubt=case.doubt, instead=case.instead)


def examine_change(case: Case) -> Trial | Settled:
    """A figure against the baseline's."""
    budget, figure, base = case.budget, case.figure, case.base
    if base is None:
        return Settled("unknown", [reasons.not_in_baseline()])
    ours, theirs = figure.estimate.value, base.estimate.value
    sign = 1 if figure.better == "less" else -1
    # Counts are compared as they are; so is a ratio of counts that is zero, which has no logarithm.
    plain = is_count(figure) or is_count(base) or not ours or not theirs or not budget.share
    if figure.exact and (plain or (is_constant(figure) and is_constant(base))):
        if ours is None or theirs is None:
            return Settled("unknown", unknown_because(figure.estimate if ours is None else base.estimate))
        allowed = theirs * budget.limit if budget.share else budget.limit
        kept = within(sign * ours, sign * theirs + allowed, "at_most")
        return counted(kept, case.doubt)._replace(change=ours - theirs)
    for side, item in (("baseline", base), ("candidate", figure)):
        if found := caveats(item, case.doubt, case.paired):
            return Settled("unknown", [reasons.about(side, found[0])])
    if ours is None and theirs is None and holds_at_any(figure) and holds_at_any(base):
        return Settled("pass", [reasons.both_hold_anywhere()])
    change = change_of(base, figure, case.paired, case.between)
    if not isinstance(change, str) and not case.paired and case.between is None:
        return Settled("unknown", [reasons.hours_apart(RUNS_MIN)])
    if isinstance(change, str):
        return Settled("unknown", [reasons.remark(change)])
    relative = is_relative(figure)
    assert relative == budget.share, "a share of what may be zero, or a difference of ratios; budget.py refuses both"
    bound = math.log1p(sign * budget.limit) if relative else sign * budget.limit
    rounds = min(rounds_of(figure, relative), rounds_of(base, relative))
    turned = Change(sign * change.value, change.error, change.df)
    late = [sign * lateness_shift(figure, relative), -sign * lateness_shift(base, relative)]
    return Trial(
        turned, sign * bound, sign, relative, rounds, samples=1 if case.paired else 2, floor=case.floor,
        late_ns=max(figure.estimate.late_ns, base.estimate.late_ns), shifts=tuple(shift for shift in late if shift),
    )  # fmt: skip


def rounds_of(figure: Figure, relative: bool) -> int:
    """How many rounds the error of a figure rests on."""
    return len(left_out(figure.estimate, relative))


def holds_at_any(figure: Figure) -> bool:
    """Whether a budget holds at any distance."""
    found = reasons.no_distance.among(figure.estimate.warnings)
    return found is not None and found.numbers.get("holds") == "any"


# Verdicts


def settled(case: Case, draft: Settled) -> BudgetVerdict:
    """The verdict on what chance has no part in."""
    change = None
    if draft.change is not None:
        change = Estimate(value=draft.change, low=draft.change, high=draft.change, confidence=1.0)
    because = [*draft.reasons] if draft.verdict == "unknown" else []
    return verdict_on(case, draft.verdict, with_remark(sentence_of(case, change), draft.remark), change=change, reasons=because)


def remark_of(case: Case, trial: Trial) -> str:
    """What was tested instead of a figure without a value; empty where that has one."""
    if trial.tested is None:
        return ""
    ns = case.figure.labels.get("budget")
    value = f"is {quantity_of(trial.tested)} of at most {ns}"
    if trial.why is not None and trial.why.code == reasons.no_distance.name:
        return f"does not depend on distance, {trial.tested.metric} {value}"
    return f"{trial.why}; {trial.tested.name} {value}"


def with_remark(sentence: str, remark: str) -> str:
    """A sentence and what is to be added."""
    return f"{sentence}: {remark}" if remark else sentence


def tested(case: Case, trial: Trial, outcome: Outcome, level: float) -> BudgetVerdict:
    """The verdict on a measurement."""
    rounds_needed = None
    remark = remark_of(case, trial)
    because: list[Reason] = []
    if outcome.doubt:
        because = [outcome.doubt]
        remark = f"{remark}; {outcome.doubt}" if remark else str(outcome.doubt)
    elif outcome.verdict == "unknown":
        because = [reasons.limit_inside()]
        if outcome.p_adjusted <= level and trial.p_fail <= trial.tail and trial.is_beyond:
            floor = in_words(trial.floor or 0.0, trial, case)
            advice = (
                f"beyond chance, but the same thing measured twice differs by up to {floor} as well: "
                "measure both side by side with farwrite ab"
            )
        else:
            rounds_needed = rounds_for(trial, level, outcome.tests)
            advice = f"{not_excluded(case, trial, level, outcome.tests)}; {more_rounds(trial, rounds_needed)}"
        remark = f"{remark}; {advice}" if remark else advice
    change = printed_estimate(trial) if case.budget.kind == "not_worse_by" else None
    return verdict_on(
        case, outcome.verdict, with_remark(sentence_of(case, change), remark), change=change,
        p_fail=trial.p_fail, p_adjusted=outcome.p_adjusted, p_pass=trial.p_pass,
        floor=None if trial.floor is None else printed_change(trial.floor, trial.relative),
        sees=printed_point(sees(trial, level, outcome.tests), trial, case), rounds_needed=rounds_needed,
        reasons=because,
    )  # fmt: skip


def verdict_on(case: Case, verdict: Verdict, sentence: str, **more: object) -> BudgetVerdict:
    """A verdict with what it takes from its case."""
    budget, figure = case.budget, case.figure
    value = figure.estimate.value
    least = case.base.estimate.value if budget.kind == "not_worse_by" and case.base else budget.limit
    lost = budget.metric in SAFETY and verdict == "fail" and value is not None and value > (least or 0)
    return BudgetVerdict(
        budget=budget.name, metric=figure.metric, labels=figure.labels, figure=figure.name, unit=figure.unit,
        exact=figure.exact, verdict=verdict, sentence=sentence, reason=budget.reason,
        place=budget.place, gating=budget.gating,
        kind=budget.kind, limit=budget.limit, share=budget.share, value=figure.estimate,
        base=case.base.estimate if case.base else None, lost=lost, **more,  # type: ignore[arg-type]
    )  # fmt: skip


# How much it can see


def t_of(probability: float, df: float) -> float:
    """Student's t for words and forecasts. Whole degrees of freedom, rounded down: a little careful, and remembered."""
    return critical(min(probability, 0.5), math.inf if math.isinf(df) else max(math.floor(df), 1))


def failing_level(trial: Trial, level: float, tests: int) -> float:
    """What a failure may err by; Holm's procedure at its strictest."""
    return min(level / tests, trial.tail)


def passing_level(trial: Trial, level: float) -> float:
    """What a pass may err by."""
    return min(level, trial.tail)


def seen_error(trial: Trial) -> float:
    """The standard error; that of the stated interval where that is the wider one on the side of the limit."""
    error, df = trial.change.error, trial.change.df
    if trial.ends is None or not error:
        return error
    end = trial.ends[1] if trial.change.value <= trial.limit else trial.ends[0]
    stated = abs(end - trial.change.value) / t_of(trial.tail, df)
    return max(error, stated) if math.isfinite(stated) else error


def sees(trial: Trial, level: float, tests: int) -> float:
    """What would be failed in nine of ten runs, turned."""
    error, df = seen_error(trial), trial.change.df
    if error == 0:
        return max(trial.limit, trial.floor or trial.limit)
    failed_from = trial.limit + t_of(failing_level(trial, level, tests), df) * error
    return max(failed_from, trial.floor or failed_from) + t_of(1 - POWER, df) * error


def rounds_for(trial: Trial, level: float, tests: int) -> int | None:
    """How many rounds would tell, in nine of ten runs and if things are as they look; None for more than a run may have."""
    distance = abs(trial.change.value - trial.limit)
    kept = trial.change.value <= trial.limit
    needed = passing_level(trial, level) if kept else failing_level(trial, level, tests)
    seen = seen_error(trial)

    def tells(rounds: int) -> bool:
        df = trial.samples * (rounds - 1)
        error = seen * math.sqrt(trial.rounds / rounds)
        return (t_of(needed, df) + t_of(1 - POWER, df)) * error <= distance

    low, high = max(trial.rounds, 2), ROUNDS_MAX
    if not tells(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if tells(middle) else (middle + 1, high)
    return high


def more_rounds(trial: Trial, rounds: int | None) -> str:
    """What would help, in words."""
    if rounds is None:
        return "it lies too close to the limit for any number of rounds to tell"
    if rounds <= trial.rounds:
        return f"measure again: {trial.rounds} rounds tell in most runs"
    return f"some {rounds} rounds instead of {trial.rounds} would tell"


# Words


class Form(NamedTuple):
    """How the numbers of one sentence are told: a value and its interval share unit and decimals."""

    scale: float
    word: str
    places: int

    def number(self, value: float) -> str:
        """A number without its unit."""
        if not math.isfinite(value):
            return f"{value:g}"
        text = f"{value / self.scale:,.{self.places}f}"
        return text.removeprefix("-") if not text.strip("-0.") else text  # No sign before 0.000, as in every table.

    def text(self, value: float) -> str:
        """A number with its unit."""
        return f"{self.number(value)} {self.word}".strip()


PREFIXES: dict[str, tuple[tuple[str, float], ...]] = {
    "ns": (("s", 1e9), ("ms", 1e6), ("us", 1e3), ("ns", 1)),
    "bytes": (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)),
    "bytes_per_s": (("MB/s", 1e6),),
    "per_s": (("/s", 1),),
    "miles": (("miles", 1),),
}


def form_of(value: float, unit: Unit, significant: int = 3) -> Form:
    """The form that suits a value."""
    size = abs(value) if math.isfinite(value) else 0.0
    choices = PREFIXES.get(unit, (("", 1),))
    # A tenth of a millisecond is 0.1 ms, as everywhere in farwrite's reports.
    word, scale = next((item for item in choices if size >= item[1] * (0.1 if item[0] == "ms" else 1)), choices[-1])
    if unit == "ratio" and significant == 3:
        return Form(scale, word, 3)  # 1.049 round trips, 0.001 of them: what matters is behind the point.
    whole = unit in ("count", "bytes") and size / scale == size // scale
    places = 0 if not size or whole else max(significant - 1 - math.floor(math.log10(size / scale)), 0)
    return Form(scale, word, places)


def quantity(value: float, unit: Unit, significant: int = 3) -> str:
    """A number in the unit that suits."""
    return form_of(value, unit, significant).text(value)


def trimmed(value: float, unit: Unit, significant: int = 6) -> str:
    """A number as a person would write it: "2 ms", not "2.00 ms"."""
    form = form_of(value, unit, significant)
    number = form.number(value)
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {form.word}".strip()


def quantity_of(figure: Figure, limit: float | None = None) -> str:
    """A value with its interval; with more digits where three would make it look like the limit that it is not."""
    estimate, unit = figure.estimate, figure.unit
    assert estimate.value is not None
    if figure.exact:
        return trimmed(estimate.value, unit)
    alike = limit is not None and limit != estimate.value and quantity(limit, unit) == quantity(estimate.value, unit)
    form = form_of(estimate.value, unit, 6 if alike else 3)
    return form.text(estimate.value) + interval_text(estimate, form)


def interval_text(estimate: Estimate, form: Form) -> str:
    """ " [0.569, 0.714]"; nothing where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f" [{form.number(estimate.low)}, {form.number(estimate.high)}]"


def sentence_of(case: Case, change: Estimate | None) -> str:
    """ "response_p99 of write, C, 20 miles, depth 1 is 0.634 ms [0.569, 0.714] of at most 2 ms (n = 6,110)"."""
    budget, figure, base = case.budget, case.figure, case.base
    limit = limit_text(budget, figure.unit)
    count = f" (n = {figure.estimate.count:,})" if figure.estimate.count else ""
    if budget.kind != "not_worse_by":
        if figure.estimate.value is None:
            return f"{figure.name} has no value ({limit} promised)"
        return f"{figure.name} is {quantity_of(figure, budget.limit)} of {limit}{count}"
    if change is None or change.value is None or base is None:
        return f"{figure.name} cannot be held against the baseline ({limit} promised)"
    assert base.estimate.value is not None and figure.estimate.value is not None
    before, after = (trimmed(one, figure.unit) if figure.exact and figure.unit != "ratio" else quantity(one, figure.unit)
                     for one in (base.estimate.value, figure.estimate.value))  # fmt: skip
    relative = is_relative(figure) and change.confidence != 1.0
    return f"{figure.name} changed by {change_text(change, figure.unit, relative)}, from {before} to {after}, of {limit}{count}"


def limit_text(budget: Budget, unit: Unit) -> str:
    """ "at most 2 ms", "at most 5 % worse"."""
    if budget.kind == "not_worse_by":
        return f"at most {f'{100 * budget.limit:.4g} %' if budget.share else trimmed(budget.limit, unit)} worse"
    words = "exactly" if budget.kind == "equals" else budget.kind.replace("_", " ")
    return f"{words} {trimmed(budget.limit, unit)}"


def change_text(change: Estimate, unit: Unit, relative: bool) -> str:
    """ "+3.2 % [+1.1, +5.4]", or a difference in the figure's unit."""
    assert change.value is not None
    if relative:
        form = Form(0.01, "%", 1)
    else:
        widest = max(abs(one) for one in (change.value, change.low or 0.0, change.high or 0.0) if math.isfinite(one))
        form = form_of(widest, unit)

    def signed(value: float) -> str:
        return f"{'+' if value >= 0 else '-'}{form.number(abs(value))}"

    text = f"{signed(change.value)} {form.word}".strip()
    if change.low is None or change.high is None or change.confidence == 1.0:
        return text
    return f"{text} [{signed(change.low)}, {signed(change.high)}]"


def printed_estimate(trial: Trial) -> Estimate:
    """The change as it is told, turned back."""
    low, high = sorted(printed_change(trial.sign * end, trial.relative) for end in trial.change.interval())
    value = printed_change(trial.sign * trial.change.value, trial.relative)
    return Estimate(value=value, low=low, high=high, confidence=CONFIDENCE, count=trial.rounds)


def printed_point(turned: float, trial: Trial, case: Case) -> float:
    """A point on a trial's scale as it is told: a value, or a change."""
    point = min(trial.sign * turned, POINT_MAX) if trial.relative else trial.sign * turned
    if case.budget.kind == "not_worse_by":
        return printed_change(point, trial.relative)
    return math.exp(point) if trial.relative else point


def sight_of(decided: BudgetVerdict) -> str:
    """What a budget would fail in nine of ten runs, in words: "3.02 ms", "a change of +12.1 %"."""
    if decided.sees is None:
        return ""
    if decided.unit == "miles" and decided.kind == "at_least" and decided.value.value is not None and decided.sees <= 0:
        return "nothing: its rounds differ too much"
    if decided.kind != "not_worse_by":
        unit: Unit = decided.unit if decided.value.value is not None else "ns"  # Without miles it is the fit's `a`.
        return quantity(decided.sees, unit)
    return f"a change of {change_text(Estimate(value=decided.sees), decided.unit, decided.share)}"


def in_words(turned: float, trial: Trial, case: Case) -> str:
    """The same in words."""
    point = printed_point(turned, trial, case)
    if case.budget.kind == "not_worse_by":
        return change_text(Estimate(value=point), case.figure.unit, trial.relative)
    # Where distance has no part it is the fit's `a` that was tested.
    figure = case.figure if case.figure.estimate.value is not None or case.instead is None else case.instead
    return quantity(point, figure.unit)


def not_excluded(case: Case, trial: Trial, level: float, tests: int) -> str:
    """What the rounds leave open, in words."""
    kept = trial.change.value <= trial.limit
    needed = passing_level(trial, level) if kept else failing_level(trial, level, tests)
    margin = t_of(needed, trial.change.df) * seen_error(trial)
    bound = trial.change.value + (margin if kept else -margin)
    return f"its {trial.rounds} rounds do not exclude {in_words(bound, trial, case)}"
