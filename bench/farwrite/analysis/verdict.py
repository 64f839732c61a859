"""The one rule that says pass, fail or unknown, of an estimate, a limit and what speaks against deciding.

The gate, claims, the answer, tables and budgets in tests all ask here, so that one report never gets two answers. In order:

1. What was counted is compared as it is. A run that was interrupted may break a promise and cannot keep one.
2. What was measured carries no verdict when a caveat says so: the run was interrupted, the cell or its latency is withheld, the
   fit runs through such cells, there is no value, the link's error is more than LINK_ERROR_SHARE_MAX of the limit, or there are
   fewer than ROUNDS_MIN rounds.
3. It passes, or fails, when two views of its error agree: the stated interval lies wholly on that side of the limit, and so does
   Student's interval over the rounds with one left out at a time. Each side errs with TAIL at most. In between is unknown.
4. A verdict that would be another without the generator's lateness is withheld.

A gate adds Holm's procedure over its budgets and its own alpha, which both can only withhold: of one budget at the usual alpha it
answers what `decide` does. What a test measured by itself has no rounds (`sampled`): there the stated interval alone decides.
Changes against a baseline are `budget_verdict.py`'s. Loads neither numpy nor scipy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ..base import reasons
from ..base.reasons import Reason
from ..base.units import time_ns
from .change import ALPHA, CONFIDENCE, Change, Spread, is_relative, jackknife, left_out, same, scaled, spread
from .figure import Figure, cell_figure
from .result import LINK_ERROR_SHARE_MAX, ROUNDS_MIN, CellResult, Estimate, Verdict, unknown_because

TAIL = (1 - CONFIDENCE) / 2  # What an interval leaves beyond either end; no test on a value by itself errs more often.
LEAST = 1e-9  # Of a time that may be nothing but lateness: so much stays, because nothing has no logarithm.

Kind = Literal["at_most", "at_least", "equals"]


class Settled(NamedTuple):
    """A verdict that chance has no part in, and what is to be said beside the numbers."""

    verdict: Verdict
    reasons: Sequence[Reason] = ()
    change: float | None = None  # of budget_verdict.py, as it is shown

    @property
    def remark(self) -> str:
        """The first of the reasons, in words."""
        return str(self.reasons[0]) if self.reasons else ""


class Trial(NamedTuple):
    """A value, or a change, against a limit, both turned so that greater is worse."""

    change: Change  # also where it is a value by itself
    limit: float
    sign: int  # -1: turned, because less is worse
    relative: bool  # on a logarithmic scale
    rounds: int
    samples: int = 1  # 2: independent sides
    floor: float | None = None
    ends: tuple[float, float] | None = None  # the stated interval, turned and on the same scale; None: it has no say
    tail: float = 1.0  # what a test may err by at most, whatever the level
    late_ns: float = 0.0  # of it, at most the generator's own lateness,
    shifts: tuple[float, ...] = ()  # how far the change moves when that is taken off, on either side,
    early_ends: tuple[float, float] | None = None  # and where the stated interval then lies
    tested: Figure | None = None  # what stands in for a figure without a value, and
    why: Reason | None = None  # why that has none

    @property
    def p_fail(self) -> float:
        """That chance alone would look as bad, were the promise just kept."""
        return self.change.tail_above(self.limit)

    @property
    def p_pass(self) -> float:
        """That chance alone would look as good, were the promise just broken."""
        if self.change.error == 0:  # Nothing is left to chance, and a limit that is met is kept.
            return 0.0 if self.change.value <= self.limit else 1.0
        return self.change.tail_below(self.limit)

    @property
    def is_beyond(self) -> bool:
        """Whether the whole of the stated interval breaks the promise."""
        return self.ends is None or self.ends[0] > self.limit

    @property
    def is_within(self) -> bool:
        """Whether the whole of it keeps the promise."""
        return self.ends is None or self.ends[1] <= self.limit

    def moved(self, shift: float) -> Trial:
        """The same without lateness."""
        return self._replace(change=self.change._replace(value=self.change.value + shift), ends=self.early_ends)


class Decision(NamedTuple):
    """What became of a promise, and why that is unknown."""

    verdict: Verdict
    reasons: Sequence[Reason] = ()

    @property
    def withheld(self) -> bool:
        """Whether it is unknown for another reason than that the limit lies within the error."""
        return self.verdict == "unknown" and not reasons.limit_inside.among(self.reasons)


def decide(
    figure: Figure, *, at_most: float | None = None, at_least: float | None = None, interrupted: bool = False,
    instead: Figure | None = None, sampled: bool = False, relative: bool | None = None,
) -> Decision:  # fmt: skip
    """The verdict on a figure between limits; `instead` is what decides of miles without a value, `relative` its scale where the
    metric does not tell."""
    limits: list[tuple[Kind, float]] = []
    limits += [("at_most", at_most)] if at_most is not None else []
    limits += [("at_least", at_least)] if at_least is not None else []
    assert limits
    doubt = reasons.interrupted() if interrupted else None
    found = [
        decided(examine(figure, kind, limit, doubt=doubt, instead=instead, sampled=sampled, relative=relative))
        for kind, limit in limits
    ]  # fmt: skip
    verdicts = {item.verdict for item in found}
    verdict: Verdict = "fail" if "fail" in verdicts else "unknown" if "unknown" in verdicts else "pass"
    because = [] if verdict != "unknown" else list(dict.fromkeys(reason for item in found for reason in item.reasons))
    return Decision(verdict, because)


def decided(draft: Trial | Settled) -> Decision:
    """The verdict of one test by itself, at the usual alpha."""
    if isinstance(draft, Settled):
        return Decision(draft.verdict, draft.reasons)
    verdict = verdict_of(draft, draft.p_fail, ALPHA)
    if verdict == "unknown":
        return Decision(verdict, [reasons.limit_inside()])
    if any(verdict_of(moved, moved.p_fail, ALPHA) != verdict for moved in map(draft.moved, draft.shifts)):
        return Decision("unknown", [reasons.lateness(draft.late_ns)])
    return Decision(verdict)


def verdict_of(trial: Trial, p_adjusted: float, level: float) -> Verdict:
    """The rule, where chance has a part; `p_adjusted` is p_fail after Holm's procedure over a family of tests."""
    failed = p_adjusted <= level and trial.p_fail <= trial.tail and trial.is_beyond
    if failed and (trial.floor is None or trial.change.value > trial.floor):
        return "fail"
    # Every budget must pass for a gate to pass, so each is tested at the full level: an intersection-union test errs no
    # more often than one of its parts (Berger 1982, Technometrics 24, 295).
    return "pass" if trial.is_within and trial.p_pass <= min(level, trial.tail) else "unknown"


def response_of_cell(cell: CellResult, quantile: float) -> Figure:
    """The response time of a cell as a figure that can be decided on."""
    metric, estimate = {
        0.5: ("response_p50", cell.response_ns_p50), 0.99: ("response_p99", cell.response_ns_p99),
        0.999: ("response_p999", cell.response_ns_p999),
    }[quantile]  # fmt: skip
    return cell_figure(cell, metric, estimate)


# What is tested, and how


def examine(
    figure: Figure, kind: Kind, limit: float, *, doubt: Reason | None = None, instead: Figure | None = None,
    sampled: bool = False, relative: bool | None = None,
) -> Trial | Settled:  # fmt: skip
    """The test that a promise comes down to, or its verdict where there is nothing to test."""
    value = figure.estimate.value
    if figure.exact:
        if value is None or math.isnan(value):
            return Settled("unknown", unknown_because(figure.estimate))
        return counted(within(value, limit, kind), doubt)
    if found := caveats(figure, doubt):
        return Settled("unknown", found)
    if value is None:
        if figure.beyond is not None or figure.below is not None:
            return at_the_end(figure, kind, limit, instead, doubt)
        if reasons.no_distance.among(figure.estimate.warnings):
            return without_distance(figure, kind, instead, doubt)
        return Settled("unknown", unknown_because(figure.estimate))
    if off := link_error_of(figure, limit):
        return Settled("unknown", [off])
    assert kind != "equals", "no measurement equals anything; budget.py refuses it"
    return examine_value(figure, limit, 1 if kind == "at_most" else -1, sampled, relative)


def caveats(figure: Figure, doubt: Reason | None = None, paired: bool = False) -> list[Reason]:
    """Why no verdict may rest on a measured figure, whatever the limit; empty when one may."""
    found = [doubt] if doubt else []
    found += figure.withheld
    found += [] if paired else figure.host_noise  # Side by side it was the same for both, and is in the error.
    unsound = reasons.unsound.among(figure.estimate.warnings)
    return found + ([unsound] if unsound else [])


def link_error_of(figure: Figure, limit: float) -> Reason | None:
    """Why nothing is decided against a limit: the link's own error is too large a part of it. None when it is not."""
    error_ns = figure.link_error_ns
    if error_ns is None or error_ns <= LINK_ERROR_SHARE_MAX * limit:
        return None
    return reasons.link_error(error_ns, limit, LINK_ERROR_SHARE_MAX)


def counted(kept: bool, doubt: Reason | None) -> Settled:
    """The verdict on a count: a loss in half a run is a loss, no loss in half a run is no proof."""
    if not kept:
        return Settled("fail")
    return Settled("unknown", [doubt]) if doubt else Settled("pass")


def within(value: float, limit: float, kind: Kind) -> bool:
    """Whether a count keeps to its limit."""
    if same(value, limit):
        return True
    return value < limit if kind == "at_most" else value > limit if kind == "at_least" else False


def examine_value(figure: Figure, limit: float, sign: int, sampled: bool, relative: bool | None) -> Trial | Settled:
    """A measured figure against a limit."""
    estimate = figure.estimate
    if sampled and not left_out(estimate, relative=False):
        return by_interval_alone(estimate, limit, sign)
    if scaled(estimate.value, relative=False) is None:  # Neither is it a number.
        return Settled("unknown", unknown_because(estimate))
    natural = is_relative(figure) if relative is None else relative
    # Nothing done in any round has no logarithm, and is still no throughput worth a promise.
    relative = natural and bool(estimate.value) and limit > 0
    bound = scaled(limit, relative)
    assert bound is not None
    ends, early_ends = ends_of(estimate, sign, relative), ends_of(without_lateness(estimate), sign, relative)
    shift = sign * lateness_shift(figure, relative)
    rounds = len(left_out(estimate, relative))
    if rounds < ROUNDS_MIN:
        return Settled("unknown", [reasons.one_round() if rounds < 2 else reasons.few_rounds(rounds)])
    found = spread(figure) if relative == is_relative(figure) else plain_spread(estimate, relative)
    if isinstance(found, str):
        return Settled("unknown", [reasons.remark(found)])
    return Trial(
        Change(sign * found.value, found.error, found.df), sign * bound, sign, relative, rounds, ends=ends, tail=TAIL,
        late_ns=estimate.late_ns, shifts=(shift,) if shift else (), early_ends=early_ends,
    )  # fmt: skip


def by_interval_alone(estimate: Estimate, limit: float, sign: int) -> Trial | Settled:
    """What a test measured by itself against a limit; a sample that never ended may be infinite."""
    value, low, high = estimate.value, estimate.low, estimate.high
    assert value is not None
    if math.isnan(value):
        return Settled("unknown", unknown_because(estimate))
    if low is None or high is None or math.isnan(low + high):
        return Settled("unknown", estimate.warnings or [reasons.no_interval()])
    ends = (low, high) if sign > 0 else (-high, -low)
    late_ns = estimate.late_ns
    shift = -sign * late_ns
    return Trial(
        Change(sign * value, 0.0, math.inf), sign * limit, sign, False, rounds=1, ends=ends, late_ns=late_ns,
        shifts=(shift,) if shift else (), early_ends=(ends[0] + shift, ends[1] + shift),
    )  # fmt: skip


def ends_of(estimate: Estimate, sign: int, relative: bool) -> tuple[float, float] | None:
    """The stated interval turned and on a scale; None where there is none."""
    if estimate.low is None or estimate.high is None:
        return None
    low, high = (-math.inf if relative and end <= 0 else scaled(end, relative) for end in (estimate.low, estimate.high))
    low, high = -math.inf if low is None else low, math.inf if high is None else high  # An end that is no number is nowhere.
    return (low, high) if sign > 0 else (-high, -low)


def without_lateness(estimate: Estimate) -> Estimate:
    """The estimate with all the lateness taken off that may be in it: as fast as it can have been."""
    from msgspec.structs import replace

    late_ns = estimate.late_ns
    value, low, high = (None if end is None else max(end - late_ns, 0.0) for end in (estimate.value, estimate.low, estimate.high))
    return replace(estimate, value=value, low=low, high=high) if late_ns else estimate


def lateness_shift(figure: Figure, relative: bool) -> float:
    """How far a figure moves on its scale, downwards, when all of the generator's lateness is taken off that may be in it."""
    value, late_ns = figure.estimate.value, figure.estimate.late_ns
    if not value or not late_ns:
        return 0.0
    return math.log(max(1 - late_ns / value, LEAST)) if relative else -late_ns


def plain_spread(estimate: Estimate, relative: bool = False) -> Spread | str:
    """A figure by itself on another scale than its own."""
    known = list(left_out(estimate, relative).values())
    value = scaled(estimate.value, relative)
    if value is None:
        return str(unknown_because(estimate)[0])
    return Spread(value, *jackknife(known))


# Where distance has no part, and where miles lie outside of what was measured


def without_distance(figure: Figure, kind: Kind, instead: Figure | None, doubt: Reason | None) -> Trial | Settled:
    """The latency is `a` at every distance, so a's own test against the budget in ns decides; it has an error and can be
    one of Holm's family, which the analysis's words cannot."""
    ns = figure.labels.get("budget")
    found = reasons.no_distance.among(figure.estimate.warnings)
    assert found is not None
    if kind != "at_least":
        return Settled("unknown", figure.estimate.warnings)
    if instead is not None and isinstance(ns, str):
        return in_its_place(instead, time_ns(ns), found, doubt)
    holds = found.numbers.get("holds")
    return Settled("pass" if holds == "any" else "fail" if holds == "none" else "unknown", [found])


def at_the_end(
    figure: Figure, kind: Kind, limit: float, there: Figure | None, doubt: Reason | None
) -> Trial | Settled:
    """The miles lie beyond the farthest measured distance, or below the nearest: the response time there decides.

    A budget kept at the farthest holds at every distance up to it and says nothing of one further away; one exceeded at the
    nearest holds at none from there on.
    """
    ns = figure.labels.get("budget")
    end = figure.below if figure.beyond is None else figure.beyond
    because = unknown_because(figure.estimate)
    assert end is not None
    reaches = limit <= end if figure.beyond is not None else limit >= end
    if kind != "at_least" or not reaches or there is None or not isinstance(ns, str):
        return Settled("unknown", because)
    return in_its_place(there, time_ns(ns), because[0], doubt)


def in_its_place(there: Figure, limit_ns: int, why: Reason, doubt: Reason | None) -> Trial | Settled:
    """The test of the figure that decides instead of one without a value."""
    found = examine(there, "at_most", limit_ns, doubt=doubt)
    return found._replace(tested=there, why=why) if isinstance(found, Trial) else found
