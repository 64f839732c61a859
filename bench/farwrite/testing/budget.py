"""A budget in a test: what was measured against what was promised, as a verdict with a sentence.

`check` takes samples, an estimate, a pytest-benchmark fixture or a farwrite report, and answers pass, fail, unknown or
skipped. `verdict.py` decides, as it does for the gate and for claims: a report gets no other answer here than there.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..base.errors import UsageError, nearest
from ..base.units import (
    FREQUENCY,
    KM_PER_MILE,
    LENGTH_KM,
    NS_PER_S,
    SIZE,
    TIME,
    digits,
    format_size,
    format_time,
    parse,
)

if TYPE_CHECKING:
    from ..analysis.figure import Figure, ResultSet, Unit
    from ..analysis.result import Estimate

Judged = Literal["pass", "fail", "unknown"]
Verdict = Literal["pass", "fail", "unknown", "skipped"]
Limit = str | float | None  # "2 ms", or a number in base units

QUANTILE_WORD = re.compile(r"(?<![A-Za-z0-9])p(\d+(?:\.\d+)?)(?![A-Za-z0-9])")


class Judgement(NamedTuple):
    """What became of one budget."""

    name: str
    verdict: Verdict
    sentence: str


class Kind(NamedTuple):
    """A kind of quantity: its units with their size in base units, and the base unit's own name."""

    units: Mapping[str, float]
    base: str


KINDS = {
    "time": Kind(TIME, "ns"),
    "size": Kind(SIZE, "B"),
    "frequency": Kind(FREQUENCY, "/s"),
    "bytes a second": Kind({f"{unit}/s": scale for unit, scale in SIZE.items()}, "B/s"),
    "distance": Kind({unit: km / KM_PER_MILE for unit, km in LENGTH_KM.items()}, "miles"),
    "number": Kind({"": 1.0}, ""),
}
# The units of a report's figures.
KIND_OF_FIGURE = {
    "ns": "time", "bytes": "size", "per_s": "frequency", "bytes_per_s": "bytes a second", "miles": "distance",
    "ratio": "number", "count": "number", "": "number",
}  # fmt: skip
ON_A_PLAIN_SCALE = ("distance", "number")  # What may be 0 or less; the rest is decided on as a ratio to its limit.


@dataclass(frozen=True)
class Quantity:
    """What was measured, in base units; `kind` is None where only the limit can tell."""

    estimate: Estimate
    kind: str | None = None
    figure: Figure | None = None  # of a report
    instead: Figure | None = None  # beside miles without a value: what decides in their place
    interrupted: bool = False  # the run ended before its end


class Skipped(NamedTuple):
    """Nothing was measured, and nobody is to blame for it."""

    reason: str


def judge(
    found: Quantity, at_most: float | None = None, at_least: float | None = None, kind: str = ""
) -> tuple[Judged, str]:
    """(verdict, why it is unknown or "") of a quantity between limits, all in the same unit."""
    from ..analysis.figure import Figure
    from ..analysis.verdict import decide
    from ..base.reasons import joined

    estimate, figure = found.estimate, found.figure
    if figure is None:  # Not of a report: a number that was counted, or what the test itself has measured.
        known = found.kind or kind
        ends = {estimate.low, estimate.value, estimate.high}
        exact = estimate.value is not None and estimate.confidence in (None, 1.0) and len(ends) == 1
        unit: Unit = "ns" if known == "time" else ""
        figure = Figure(metric="", labels={}, unit=unit, better="", exact=exact, estimate=estimate)
        decision = decide(figure, at_most=at_most, at_least=at_least, sampled=True, relative=known not in ON_A_PLAIN_SCALE)
    else:
        decision = decide(figure, at_most=at_most, at_least=at_least, instead=found.instead, interrupted=found.interrupted)
    return decision.verdict, joined(decision.reasons)


def check(
    name: str, thing: Any, *, at_most: Limit = None, at_least: Limit = None, quantile: float | str | None = None,
    unit: str | None = None, where: Mapping[str, str | float] | None = None,
) -> Judgement:  # fmt: skip
    """The judgement of what was measured. UsageError when what is asked makes no sense, whatever was measured."""
    if at_most is None and at_least is None:
        raise UsageError(f'{name}: a budget needs a limit, such as at_most="2 ms".')
    found = quantity(name, thing, quantile, unit, where)
    if isinstance(found, Skipped):
        return Judgement(name, "skipped", f"{name}: {found.reason}.")
    kind = found.kind or kind_of_limit(name, at_most if at_most is not None else at_least)
    most, least = limit(name, at_most, kind), limit(name, at_least, kind)
    verdict, why = judge(found, most, least, kind)
    return Judgement(name, verdict, sentence(name, found.estimate, verdict, why, kind, most, least))


def sentence(
    name: str, estimate: Estimate, verdict: Verdict, why: str, kind: str, at_most: float | None, at_least: float | None
) -> str:
    """The judgement in one sentence: value, interval, count and limit."""
    words = {"at most": at_most, "at least": at_least}
    budget = " and ".join(f"{word} {show(value, kind)}" for word, value in words.items() if value is not None)
    if estimate.value is None:
        return f"{name} is unknown: {why} (budget: {budget})."
    value = f"{name} is {show(estimate.value, kind)}{interval(estimate, kind)}"
    if verdict == "unknown":
        return f"{value}; whether that is {budget} is unknown: {why}."
    return f"{value}, {'as promised' if verdict == 'pass' else 'but was promised to be'} {budget}."


def interval(estimate: Estimate, kind: str) -> str:
    """How sure a value is; nothing for what was counted."""
    if estimate.low is None or estimate.high is None:
        return f" (n {estimate.count:,})"
    if estimate.low == estimate.high and estimate.confidence in (None, 1.0):
        return ""
    sure = "" if estimate.confidence is None else f"{100 * estimate.confidence:.3g} % "
    return f" ({sure}interval {show(estimate.low, kind)} to {show(estimate.high, kind)}, n {estimate.count:,})"


def show(value: float, kind: str) -> str:
    """A number in base units as a person says it."""
    if kind == "time":
        return format_time(value)
    if kind in ("size", "bytes a second"):
        return format_size(value) + ("/s" if kind == "bytes a second" else "")
    unit = {"frequency": " /s", "distance": " miles"}.get(kind, "")
    return (f"{value:,.0f}" if value == int(value) else digits(value)) + unit


# Limits and units.


def limit(name: str, text: Limit, kind: str) -> float | None:
    """A limit in base units."""
    if text is None:
        return None
    if isinstance(text, str):
        return parse(text, KINDS[kind].units, f"{name}, its limit")
    return float(text)


def kind_of_limit(name: str, text: Limit) -> str:
    """What kind of quantity a limit speaks of."""
    if not isinstance(text, str):
        return "number"
    unit = text.strip().lstrip("+-0123456789._").strip()
    return kind_of_unit(f'{name}, its limit "{text}"', unit)


def kind_of_unit(what: str, unit: str) -> str:
    """What kind of quantity a unit measures; UsageError naming the nearest."""
    for kind, (units, _) in KINDS.items():
        if unit in units:
            return kind
    known = [unit for kind in KINDS.values() for unit in kind.units if unit]
    raise UsageError(f'{what}: unit "{unit}" is unknown{nearest(unit, known)}.')


# What can be measured.


def quantity(
    name: str, thing: Any, quantile: float | str | None, unit: str | None, where: Mapping[str, str | float] | None
) -> Quantity | Skipped:
    """What was handed over, as a quantity."""
    if hasattr(thing, "pedantic") and hasattr(thing, "stats"):
        return of_benchmark(name, thing, quantile)
    if all(hasattr(thing, part) for part in ("value", "low", "high", "count")):
        return in_unit(thing, unit, name)
    if hasattr(thing, "rtt_ns") and hasattr(thing, "quantile"):
        return Quantity(thing.quantile(asked_quantile(name, quantile)), "time")
    if isinstance(thing, (str, os.PathLike)) or type(thing).__name__ in ("Recording", "Report", "ResultSet", "Figure"):
        return of_report(name, thing, where or {})
    if isinstance(thing, (int, float)) or getattr(thing, "shape", None) == ():
        return in_unit(exactly(float(thing)), unit, name)
    try:
        samples = [float(sample) for sample in thing]
    except (TypeError, ValueError) as refusal:
        raise UsageError(
            f"{name}: a budget takes samples, a number, an Estimate, a survey, the benchmark fixture or a report; "
            f"this is {type(thing).__name__} ({refusal})."
        ) from refusal
    if unit is None:
        raise UsageError(f'{name}: say the unit of the samples, such as unit="s".')
    return in_unit(quantile_of(samples, asked_quantile(name, quantile)), unit, name)


def in_unit(estimate: Estimate, unit: str | None, name: str) -> Quantity:
    """An estimate in base units; without a unit it is in base units already."""
    if unit is None:
        return Quantity(estimate)
    kind = kind_of_unit(f"{name}, its samples", unit)
    scale = KINDS[kind].units[unit]
    return Quantity(scaled(estimate, scale), kind)


def scaled(estimate: Estimate, scale: float) -> Estimate:
    """An estimate in a smaller unit."""
    from ..analysis.result import Estimate

    ends = [None if end is None else end * scale for end in (estimate.value, estimate.low, estimate.high)]
    return Estimate(
        value=ends[0], low=ends[1], high=ends[2], confidence=estimate.confidence, count=estimate.count,
        warnings=list(estimate.warnings),
        without=[None if value is None else value * scale for value in estimate.without],
        by_round=[None if value is None else value * scale for value in estimate.by_round], late_ns=estimate.late_ns * scale,
    )  # fmt: skip


def exactly(value: float) -> Estimate:
    """A number that was counted, or that the caller takes as it is: its interval is itself."""
    from ..analysis.result import Estimate
    from ..base.reasons import remark

    if math.isnan(value):
        return Estimate(value=None, warnings=[remark("it is not a number")])
    return Estimate(value=value, low=value, high=value, confidence=1.0, count=1)


def asked_quantile(name: str, quantile: float | str | None) -> float:
    """The quantile as a ratio: 0.99, "p99", or the one in the budget's name, "commit p99.9"."""
    if isinstance(quantile, (int, float)):
        q = float(quantile)
    else:
        words = name if quantile is None else quantile
        found = QUANTILE_WORD.findall(words.replace("_", " "))
        if not found and "median" in words:
            found = ["50"]
        if len(found) != 1:
            raise UsageError(f'{name}: say which quantile of the samples, as quantile="p99" or in the name.')
        whole = found[0]
        q = float(whole) / 100 if "." in whole or len(whole) < 3 else float(f"0.{whole}")  # p999 is p99.9.
    if not 0 < q < 1:
        raise UsageError(f"{name}: a quantile lies between 0 and 1, and {q:g} does not.")
    return q


def quantile_of(samples: Sequence[float], q: float) -> Estimate:
    """A quantile with its exact order-statistic interval; without a value when the sample cannot support it.

    Exact for independent samples. Those of one process share its mood, so the truth over many runs is a little wider.
    """
    from ..analysis.estimate import CONFIDENCE, count_needed, label, order_statistic_ranks, unknown
    from ..analysis.result import Estimate
    from ..analysis.sample import rank
    from ..base.reasons import needs_samples, remark

    count = len(samples)
    if any(math.isnan(sample) for sample in samples):
        return unknown(remark("some samples are not numbers (NaN)"), count=count)
    ranks = order_statistic_ranks(count, q) if count else None
    if ranks is None:
        return unknown(needs_samples(label(q), CONFIDENCE, count_needed(q), count), count=count)
    ascending = sorted(samples)
    low, high, confidence = ranks
    return Estimate(
        value=float(ascending[rank(count, q) - 1]), low=float(ascending[low - 1]), high=float(ascending[high - 1]),
        confidence=confidence, count=count,
    )  # fmt: skip


def of_benchmark(name: str, benchmark: Any, quantile: float | str | None) -> Quantity | Skipped:
    """A quantile of what pytest-benchmark's fixture measured in this test."""
    if benchmark.stats is None:
        if benchmark.disabled:
            return Skipped("pytest-benchmark is disabled, so nothing was measured")
        raise UsageError(
            f"{name}: the benchmark fixture has measured nothing yet; call it before its budget is checked."
        )
    q = asked_quantile(name, quantile)
    calls = benchmark.stats.iterations
    if calls > 1 and q != 0.5:
        from ..analysis.estimate import unknown
        from ..base.reasons import remark

        samples = len(benchmark.stats.stats.data)
        reason = remark(
            f"each sample is a mean over {calls:,} calls, which hides their tail; use benchmark.pedantic(iterations=1)"
        )
        return Quantity(unknown(reason, count=samples), "time")
    return Quantity(scaled(quantile_of(benchmark.stats.stats.data, q), NS_PER_S), "time")


def of_report(name: str, thing: Any, where: Mapping[str, str | float]) -> Quantity:
    """The one figure of a report that `where` and the budget's name speak of."""
    from ..gate.gate import instead_of

    if type(thing).__name__ == "Figure":
        return Quantity(thing.estimate, KIND_OF_FIGURE[thing.unit], thing)
    result_set = result_set_from(thing)
    figure = one_figure(name, result_set, where)
    return Quantity(figure.estimate, KIND_OF_FIGURE[figure.unit], figure, instead_of(figure, result_set), result_set.interrupted)


def result_set_from(thing: Any) -> ResultSet:
    """The result set of a path, a report or a recording."""
    from ..compare.figures import read_result_set, result_set_of

    if isinstance(thing, (str, os.PathLike)):
        return read_result_set(Path(thing))
    if type(thing).__name__ == "ResultSet":
        return thing
    from ..analysis import analysis_of
    from ..recording import SCHEMA_VERSION, Report

    report = thing if isinstance(thing, Report) else Report(schema_version=SCHEMA_VERSION, recording=thing)
    return result_set_of(report, analysis_of(report), report.recording.id)


def one_figure(name: str, result_set: ResultSet, where: Mapping[str, str | float]) -> Figure:
    """The figure with this metric and these labels; UsageError when there is none, or more than one."""
    wanted = dict(where)
    metric = str(wanted.pop("metric", name.replace(" ", "_")))
    named = [figure for figure in result_set.figures if figure.metric == metric]
    if not named:
        known = dict.fromkeys(figure.metric for figure in result_set.figures)
        raise UsageError(f'{name}: {result_set.source} has no metric "{metric}"{nearest(metric, known)}.')
    labels = dict.fromkeys(key for figure in named for key in figure.labels)
    for key in wanted:
        if key not in labels:
            raise UsageError(f'{name}: figures of {metric} have no label "{key}"{nearest(key, labels)}.')
    fitting = [figure for figure in named if all(same(figure.labels.get(k), v) for k, v in wanted.items())]
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(figure.name for figure in (fitting or named)[:4])
    if not fitting:
        raise UsageError(f"{name}: no figure of {metric} in {result_set.source} is as asked. There are: {listed}.")
    raise UsageError(f"{name}: {len(fitting)} figures of {metric} fit; tell them apart with where={{…}}: {listed}.")


def same(has: str | float | None, wanted: str | float) -> bool:
    """Whether a label is as asked; miles are numbers, and numbers need not match to the last bit."""
    if isinstance(has, (int, float)) and isinstance(wanted, (int, float)):
        return math.isclose(has, wanted, rel_tol=1e-6)
    return has == wanted
