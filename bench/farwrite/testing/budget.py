"""A budget in a test: what was measured against what was promised, as a verdict with a sentence.

`check` takes samples, an estimate, a pytest-benchmark fixture or a farwrite report, and answers pass, fail, unknown or
skipped. Only an interval that lies wholly on one side of the limit decides; one that encloses it is unknown.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..errors import UsageError, nearest
from ..units import FREQUENCY, KM_PER_MILE, LENGTH_KM, NS_PER_S, SIZE, TIME, digits, format_size, format_time, parse

if TYPE_CHECKING:
    from ..analysis.result import Estimate
    from ..figure import Figure, Sheet

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


@dataclass(frozen=True)
class Quantity:
    """What was measured, in base units; `kind` is None where only the limit can tell."""

    estimate: Estimate
    kind: str | None = None
    withheld: list[str] = field(default_factory=list)  # why no verdict may rest on it


class Skipped(NamedTuple):
    """Nothing was measured, and nobody is to blame for it."""

    reason: str


def judge(estimate: Estimate, at_most: float | None = None, at_least: float | None = None) -> tuple[Judged, str]:
    """(verdict, why it is unknown or "") of an estimate between limits, all in the same unit. pass and fail need the whole
    interval on one side; a limit itself is still within."""
    assert at_most is not None or at_least is not None
    if estimate.value is None:
        return "unknown", "; ".join(estimate.warnings) or "there is no value"
    if estimate.low is None or estimate.high is None:
        return "unknown", "; ".join(estimate.warnings) or "the value has no interval"
    least = -math.inf if at_least is None else at_least
    most = math.inf if at_most is None else at_most
    if estimate.low > most or estimate.high < least:
        return "fail", ""
    if least <= estimate.low and estimate.high <= most:
        return "pass", ""
    return "unknown", "the limit lies inside the interval, which more samples narrow"


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
    limits = [limit(name, text, kind) for text in (at_most, at_least)]
    verdict, why = judge(found.estimate, *limits)
    from ..analysis.result import late_doubt, without_lateness

    late = late_doubt(found.estimate.late_ns, verdict, judge(without_lateness(found.estimate), *limits)[0])
    doubts = [*found.withheld, *([late] if late else [])]
    if verdict != "unknown" and doubts:
        verdict, why = "unknown", "; ".join(doubts)
    return Judgement(name, verdict, sentence(name, found.estimate, verdict, why, kind, *limits))


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
    if isinstance(thing, (str, os.PathLike)) or type(thing).__name__ in ("Recording", "Report", "Sheet", "Figure"):
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
    )  # fmt: skip


def exactly(value: float) -> Estimate:
    """A number that was counted, or that the caller takes as it is: its interval is itself."""
    from ..analysis.result import Estimate

    if math.isnan(value):
        return Estimate(value=None, warnings=["it is not a number"])
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

    count = len(samples)
    if any(math.isnan(sample) for sample in samples):
        return unknown("some samples are not numbers (NaN)", count=count)
    ranks = order_statistic_ranks(count, q) if count else None
    if ranks is None:
        needed = f"a {CONFIDENCE:.0%} interval of {label(q)} needs n >= {count_needed(q):,}".replace("%", " %")
        return unknown(f"{needed}, and there are {count:,}", count=count)
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

        samples = len(benchmark.stats.stats.data)
        reason = (
            f"each sample is a mean over {calls:,} calls, which hides their tail; use benchmark.pedantic(iterations=1)"
        )
        return Quantity(unknown(reason, count=samples), "time")
    return Quantity(scaled(quantile_of(benchmark.stats.stats.data, q), NS_PER_S), "time")


def of_report(name: str, thing: Any, where: Mapping[str, str | float]) -> Quantity:
    """The one figure of a report that `where` and the budget's name speak of."""
    if type(thing).__name__ == "Figure":
        figure, interrupted = thing, False
    else:
        sheet = sheet_from(thing)
        figure, interrupted = one_figure(name, sheet, where), sheet.interrupted
    withheld = [*figure.doubts, *(["the run was interrupted"] if interrupted else [])]
    return Quantity(figure.estimate, KIND_OF_FIGURE[figure.unit], withheld)


def sheet_from(thing: Any) -> Sheet:
    """The sheet of figures of a path, a report or a recording."""
    from ..sheet import read_sheet, sheet_of

    if isinstance(thing, (str, os.PathLike)):
        return read_sheet(Path(thing))
    if type(thing).__name__ == "Sheet":
        return thing
    from ..analysis import analysis_of
    from ..recording import SCHEMA_VERSION, Report

    report = thing if isinstance(thing, Report) else Report(schema_version=SCHEMA_VERSION, recording=thing)
    return sheet_of(report, analysis_of(report), report.recording.id)


def one_figure(name: str, sheet: Sheet, where: Mapping[str, str | float]) -> Figure:
    """The figure with this metric and these labels; UsageError when there is none, or more than one."""
    wanted = dict(where)
    metric = str(wanted.pop("metric", name.replace(" ", "_")))
    named = [figure for figure in sheet.figures if figure.metric == metric]
    if not named:
        known = dict.fromkeys(figure.metric for figure in sheet.figures)
        raise UsageError(f'{name}: {sheet.source} has no metric "{metric}"{nearest(metric, known)}.')
    labels = dict.fromkeys(key for figure in named for key in figure.labels)
    for key in wanted:
        if key not in labels:
            raise UsageError(f'{name}: figures of {metric} have no label "{key}"{nearest(key, labels)}.')
    fitting = [figure for figure in named if all(same(figure.labels.get(k), v) for k, v in wanted.items())]
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(figure.name for figure in (fitting or named)[:4])
    if not fitting:
        raise UsageError(f"{name}: no figure of {metric} in {sheet.source} is as asked. There are: {listed}.")
    raise UsageError(f"{name}: {len(fitting)} figures of {metric} fit; tell them apart with where={{…}}: {listed}.")


def same(has: str | float | None, wanted: str | float) -> bool:
    """Whether a label is as asked; miles are numbers, and numbers need not match to the last bit."""
    if isinstance(has, (int, float)) and isinstance(wanted, (int, float)):
        return math.isclose(has, wanted, rel_tol=1e-6)
    return has == wanted
