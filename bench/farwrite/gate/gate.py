"""The gate: a report held against its budgets. Finds the figures that each budget is about and what they are compared with.

`budget_verdict.py` judges them; what is printed or written of it is `report/`'s. Reads result sets only, loads neither numpy nor
scipy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from ..analysis.between_runs import NO_HISTORY, RUNS_MIN, EarlierRuns, RunHistory
from ..analysis.change import are_paired, check_alike, floors_of_aa_control, hours_apart, key_of, noise_floor
from ..analysis.figure import METRICS, Figure, Label, Metric, ResultSet, label_text
from ..analysis.result import Estimate, Verdict
from ..base import reasons
from ..base.errors import (
    EXIT_DONE,
    EXIT_GATE_FAILED,
    EXIT_INCONCLUSIVE,
    EXIT_LOST_WRITE,
    UnfitError,
    UsageError,
    nearest,
)
from ..workload.link_spec import STREAM_LEVEL_LINKS
from .budget import SAFETY, Budget, Budgets
from .budget_verdict import BudgetVerdict, Case, verdicts_of

LISTED_MAX = 6  # Of what there is instead of what was asked for.
AUDITED = ("lost_writes", "damaged_writes")  # What every cell should have; a cell without was not audited.


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """What became of every budget, the worst first, and what that rests on."""

    verdict: Verdict
    report: str
    baseline: str | None
    budgets: str  # the file
    title: str
    started_utc: str  # of the report
    alpha: float
    look: int
    looks: int
    level: float  # what this look may err by
    tests: int  # measured ones of gating budgets: Holm's family
    floor_from: str  # where the noise floor comes from, in words; empty when nothing is held against a baseline
    verdicts: list[BudgetVerdict] = msgspec.field(name="rulings")
    warnings: list[str]
    stream_level: bool = False  # the report is of a link that delayed streams of bytes, not packets
    earlier_runs: EarlierRuns | None = None  # of two runs, where what differs from run to run comes from; null: not two runs

    def count(self, verdict: Verdict) -> int:
        """How many gating verdicts are this one."""
        return sum(item.gating and item.verdict == verdict for item in self.verdicts)


def gate(
    result_set: ResultSet, budgets: Budgets, baseline: ResultSet | None = None, aa_control: ResultSet | None = None,
    look: int = 1, allowed: Iterable[str] = (), history: RunHistory = NO_HISTORY,
) -> Gate:  # fmt: skip
    """Every budget ruled on. UsageError when a budget selects nothing, UnfitError when the runs are unlike.

    `history` has earlier runs like the baseline: what differs from run to run, where the two were not measured side by side.
    """
    if not 1 <= look <= budgets.looks:
        raise UsageError(
            f"--look {look}: {budgets.source} allows {budgets.looks} a candidate, and alpha is shared among them. "
            "Say looks = 2 or 3 there before the first one."
        )
    cases, warnings = cases_of(result_set, budgets, baseline, aa_control, allowed, history)
    verdicts = verdicts_of(cases, budgets.alpha, budgets.looks)
    gating = [item for item in verdicts if item.gating]
    if not gating:
        warnings.append("every budget is only reported: this gate cannot fail")
    if result_set.not_durable and any(item.metric in SAFETY for item in verdicts):
        warnings.append(f"{result_set.not_durable}: lost writes are those of killed processes, not of a loss of power")
    held = baseline if any(case.budget.kind == "not_worse_by" for case in cases) else None
    if baseline and not held:
        warnings.append("no budget is held against the baseline: not_worse_by is what does that")
    two_runs = held is not None and not are_paired(held, result_set)
    if aa_control:
        floor_from = "the base measured twice side by side"
    elif two_runs and history.about.runs >= RUNS_MIN:
        floor_from = "earlier runs against each other"
    else:
        floor_from = "the baseline's own rounds, split in half in every way"
    return Gate(
        verdict=verdict_of_all(gating),
        report=result_set.source,
        baseline=held.source if held else None,
        budgets=budgets.source,
        title=budgets.title,
        started_utc=result_set.started_utc,
        alpha=budgets.alpha,
        look=look,
        looks=budgets.looks,
        level=budgets.level,
        tests=sum(item.measured for item in gating),
        floor_from=floor_from if held else "",
        verdicts=sorted(verdicts, key=worst_first),
        warnings=warnings,
        stream_level=result_set.identity.get("link") in STREAM_LEVEL_LINKS,
        earlier_runs=history.about if two_runs else None,
    )


def verdict_of_all(verdicts: Sequence[BudgetVerdict]) -> Verdict:
    """All must pass; one failure is a failure, whatever is unknown beside it."""
    found = {item.verdict for item in verdicts}
    return "fail" if "fail" in found else "unknown" if "unknown" in found else "pass"


RANK: dict[Verdict, int] = {"fail": 0, "unknown": 1, "pass": 2}


def worst_first(decided: BudgetVerdict) -> tuple:
    """Sorts verdicts: what decides before what is only reported, lost writes first of all, otherwise as in the file."""
    return not decided.gating, RANK[decided.verdict], not decided.lost


def exit_code_of(found: Gate, inconclusive: Literal["fail", "pass"] | None = None) -> int:
    """The exit code of a gate; `inconclusive` is what unknown counts as, its own code when None."""
    if found.verdict == "fail":
        return EXIT_LOST_WRITE if any(item.lost and item.gating for item in found.verdicts) else EXIT_GATE_FAILED
    if found.verdict == "pass":
        return EXIT_DONE
    return {None: EXIT_INCONCLUSIVE, "fail": EXIT_GATE_FAILED, "pass": EXIT_DONE}[inconclusive]


def metrics_of(*result_sets: ResultSet | None) -> dict[str, Metric]:
    """What budgets may be about: every metric of ours, and those of other tools' result sets."""
    found = dict(METRICS)
    for result_set in result_sets:
        for item in result_set.figures if result_set else ():
            found.setdefault(item.metric, Metric(item.unit, item.better, item.exact, ""))
    return found


# Cases


def cases_of(
    result_set: ResultSet, budgets: Budgets, baseline: ResultSet | None = None, aa_control: ResultSet | None = None,
    allowed: Iterable[str] = (),
    history: RunHistory = NO_HISTORY,
) -> tuple[list[Case], list[str]]:  # fmt: skip
    """(one case for every figure of every budget, warnings)."""
    allowed = set(allowed)
    warnings: list[str] = []
    paired = False
    base_figures: dict[tuple, Figure] = {}
    floors: dict[str, float] = {}
    relative = [budget for budget in budgets.budgets if budget.kind == "not_worse_by"]
    if relative and baseline is not None:
        warnings += check_alike([baseline], [result_set], allowed)
        base_figures = {key_of(item): item for item in baseline.figures}
        paired = are_paired(baseline, result_set)
        if aa_control is not None:
            floors = floors_of_aa_control(baseline.figures, {key_of(item): item for item in aa_control.figures})
        if not paired:
            warnings += hours_apart(baseline, result_set, history)
    elif result_set.interrupted:
        warnings.append(f"{result_set.source} is of an interrupted run")
    doubt = reasons.interrupted() if result_set.interrupted else None

    cases = []
    for budget in budgets.budgets:
        try:
            figures = select(result_set, budget, baseline)
        except UsageError as refusal:
            if budget.gating:
                raise
            warnings.append(f"not reported: {refusal}")  # What never decides must not do so by being refused.
            continue
        if budget.kind != "not_worse_by":
            cases += [Case(budget, item, instead=instead_of(item, result_set), doubt=doubt) for item in figures]
            continue
        assert baseline is not None
        check_complete(figures, baseline, result_set, budget, allowed)
        half = doubt or (reasons.about("baseline", reasons.interrupted()) if baseline.interrupted else None)
        for item in figures:
            base = base_figures.get(key_of(item))
            between = None if paired else history.between(key_of(item))
            floor = noise_floor(base, history, between, floors if aa_control else None) if base else None
            cases.append(Case(budget, item, base, paired, floor, doubt=half, between=between))
    return cases, warnings


def check_complete(
    figures: Sequence[Figure], baseline: ResultSet, result_set: ResultSet, budget: Budget, allowed: set[str]
) -> None:
    """UnfitError when a budget is about a figure that one side lacks: a slow cell must not pass by being left out."""
    if "cells" in allowed:
        return
    ours = {key_of(item) for item in figures}
    theirs = {key_of(item): item for item in baseline.figures if matches(item, budget)}
    lost = [theirs[key] for key in theirs if key not in ours]
    new = [item for item in figures if key_of(item) not in theirs]
    for missing, side in ((lost, result_set.source), (new, baseline.source)):
        if missing:
            raise UnfitError(
                f'{budget.place}: "{budget.name}": {side} lacks {names_of(missing)}, which the other side measured. '
                "Measure both alike, or judge the rest with --allow-mismatch cells."
            )


def instead_of(figure: Figure, result_set: ResultSet) -> Figure | None:
    """Beside greatest miles without a value: the response time at the end of what was measured beyond or below which they lie;

    otherwise the fit's `a`, which is the latency where distance has no part.
    """
    if not figure.metric.startswith("greatest_miles") or figure.estimate.value is not None:
        return None
    outside = figure.beyond is not None or figure.below is not None
    metric = figure.metric.replace("greatest_miles", "response" if outside else "a")
    found = [item for item in result_set.figures if item.metric == metric
             and all(item.labels.get(key) == figure.labels.get(key) for key in ("name", "protocol"))]  # fmt: skip
    if outside:
        places = [float(item.labels["miles"]) for item in found]
        end = max(places, default=0.0) if figure.beyond is not None else min(places, default=0.0)
        found = [item for item, place in zip(found, places, strict=True) if place == end]
    return found[0] if len(found) == 1 else None


# Selecting


def select(result_set: ResultSet, budget: Budget, baseline: ResultSet | None) -> list[Figure]:
    """The figures that a budget is about; UsageError names what there is when that is nothing."""
    if budget.kind == "not_worse_by" and baseline is None:
        raise UsageError(
            f'{budget.place}: "{budget.name}" is held against a baseline: give the report of one with --baseline.'
        )
    figures = [item for item in result_set.figures if item.metric == budget.metric]
    if not figures:
        known = {item.metric for item in result_set.figures}
        raise UsageError(f"{budget.place}: {result_set.source} has no {budget.metric}{nearest(budget.metric, known)}.")
    for label, choices in budget.where.items():
        check_label(figures, label, choices, result_set, budget)
    found = [item for item in figures if matches(item, budget)]
    for label, choices in budget.where.items():
        for choice in choices:
            if not any(same(item.labels.get(label), choice) for item in found):
                others = [item for item in figures if same(item.labels.get(label), choice)]
                raise UsageError(
                    f'{budget.place}: "{budget.name}" selects no {budget.metric} with {label} {shown(choice)}; '
                    f"with that there are {names_of(others)}."
                )
    return found + not_audited(result_set, budget, found)


def check_label(figures: Sequence[Figure], label: str, choices: Sequence[Label], result_set: ResultSet, budget: Budget) -> None:
    """UsageError when no figure has such a label, or none of a value asked for."""
    labels = dict.fromkeys(key for item in figures for key in item.labels)
    if label not in labels:
        raise UsageError(f'{budget.place}: {budget.metric} has no label "{label}"{nearest(label, labels)}.')
    known = list(dict.fromkeys(item.labels[label] for item in figures if label in item.labels))
    for choice in choices:
        if not any(same(value, choice) for value in known):
            raise UsageError(
                f"{budget.place}: {result_set.source} has no {budget.metric} with {label} {shown(choice)}; "
                f"it has {', '.join(shown(value) for value in known)}."
            )


def matches(figure: Figure, budget: Budget) -> bool:
    """Whether a budget is about a figure."""
    return figure.metric == budget.metric and fits(figure, budget)


def fits(figure: Figure, budget: Budget) -> bool:
    """Whether a figure's labels are those a budget asks for."""
    return all(any(same(figure.labels.get(label), one) for one in many) for label, many in budget.where.items())


def same(value: Label | None, choice: Label) -> bool:
    """Whether two label values are the same; 20 and 20.0 are."""
    if isinstance(value, int | float) and isinstance(choice, int | float):
        return math.isclose(value, choice, rel_tol=1e-9, abs_tol=1e-9)
    return value == choice


def shown(value: Label) -> str:
    """A label's value in a sentence."""
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


def names_of(figures: Sequence[Figure]) -> str:
    """Figures by their labels, the first few."""
    names = [", ".join(label_text(key, value) for key, value in item.labels.items()) for item in figures]
    return "; ".join(names[:LISTED_MAX]) + (f" and {len(names) - LISTED_MAX} more" if len(names) > LISTED_MAX else "")


def not_audited(result_set: ResultSet, budget: Budget, found: Sequence[Figure]) -> list[Figure]:
    """Cells that a budget on losses is about and that nobody looked at afterwards: nothing lost is not known there."""
    if budget.metric not in AUDITED:
        return []
    audited = {key_of(item)[1] for item in found}
    cells = [item for item in result_set.figures if item.metric == "response_p50" and fits(item, budget)]
    unknown = Estimate(value=None, warnings=[reasons.not_audited()])
    known = METRICS[budget.metric]
    return [
        Figure(metric=budget.metric, labels=item.labels, unit=known.unit, better=known.better, exact=True, estimate=unknown)
        for item in cells if key_of(item)[1] not in audited
    ]  # fmt: skip
