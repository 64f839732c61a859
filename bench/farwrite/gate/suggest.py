"""Budgets that fit a report: nothing lost, counts as they are, and as much room as its noise needs and no more.

What is proposed is a start: the report it was made from keeps it, with room for another run of the same. It is for a person to
say what is really promised, and why.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..analysis.between_runs import RUNS_MIN, between_runs, error_of_runs
from ..analysis.change import ALPHA, Spread, change_of, is_relative, key_of, level_of, same, scaled, spread
from ..analysis.figure import Figure, Label, ResultSet
from ..analysis.result import lateness_share_of
from ..analysis.student_t import critical
from ..analysis.verdict import TAIL, caveats
from ..base.reasons import few_rounds, interval_below, interval_beyond
from .budget import RATIOS_OF_COUNTS, SAFETY
from .budget_verdict import POWER

STEPS_PERCENT = (1, 2, 5, 10, 20, 50)  # Not-worse-by comes in these; what needs more is no promise.
RELATIVE = ("response_p50", "response_p99")
TRIPS = ("k_p50", "k_p99")
TRIPS_STEP = 0.05
MILES = ("greatest_miles_p50", "greatest_miles_p99")
MILES_STEP = 5


class Proposal(NamedTuple):
    """One [[budget]] to be written."""

    metric: str
    where: Mapping[str, Label | list[Label]]
    limit: str  # "at_most = 1.05"
    reason: str


def suggest(result_sets: Sequence[ResultSet]) -> str:
    """A budgets file for what these reports have in common, as text."""
    figures = common(result_sets)
    proposals = [
        *nothing_lost(figures), *as_counted(figures), *trips(figures), *not_worse(figures, result_sets), *reach(figures),
    ]  # fmt: skip
    sources = ", ".join(result_set.source for result_set in result_sets)
    head = [
        f"# Proposed by farwrite budget suggest from {one_line(sources)}.",
        "# A start: change what is not what you promise, and say why.",
        "",
        f"title = {quoted(f'Proposed from {one_line(sources)}')}",
        f"alpha = {ALPHA}  # how often the whole gate may fail what keeps every promise",
        "looks = 1  # how often it may be asked about one candidate",
    ]
    return "\n".join([*head, *(line for item in proposals for line in lines_of(item))]) + "\n"


def common(result_sets: Sequence[ResultSet]) -> list[list[Figure]]:
    """Every figure that all reports have, with its values in each."""
    tables = [{key_of(item): item for item in result_set.figures} for result_set in result_sets]
    return [[table[key] for table in tables] for key in tables[0] if all(key in table for table in tables)]


# What is proposed


def nothing_lost(figures: Iterable[Sequence[Figure]]) -> Iterator[Proposal]:
    """Zero, wherever it was zero: by protocol, because A may lose what C must not."""
    for metric, protocols in protocols_of(figures, SAFETY).items():
        kept = [protocol for protocol, many in protocols.items() if all(one.estimate.value == 0 for one in many)]
        if kept:
            where: dict[str, Label | list[Label]] = {} if len(kept) == len(protocols) else {"protocol": [*kept]}
            yield Proposal(metric, where, "equals = 0", "an acknowledged write must be there, and be what was written")


def protocols_of(figures: Iterable[Sequence[Figure]], metrics: Sequence[str]) -> dict[str, dict[str, list[Figure]]]:
    """Figures by metric and protocol."""
    found: dict[str, dict[str, list[Figure]]] = {}
    for many in figures:
        if many[0].metric in metrics:
            by_protocol = found.setdefault(many[0].metric, {})
            by_protocol.setdefault(str(many[0].labels.get("protocol", "")), []).extend(many)
    return found


def as_counted(figures: Iterable[Sequence[Figure]]) -> Iterator[Proposal]:
    """Ratios of counts that were the same in every round of every report: the structure, which no noise excuses."""
    for metric, labels, many in workloads(figures, RATIOS_OF_COUNTS):
        values = [one.estimate.value for one in many]
        first = values[0]
        rounds = [value for one in many for value in one.estimate.without if value is not None]
        if first is not None and all(value is not None and same(value, first) for value in [*values, *rounds]):
            yield Proposal(metric, labels, f"at_most = {first:.9g}", "the same in every round: it is how the engine is built")


def trips(figures: Iterable[Sequence[Figure]]) -> Iterator[Proposal]:
    """Round trips a write takes, at most what these reports cannot exclude."""
    for many in figures:
        if many[0].metric not in TRIPS or not all(usable(one) for one in many):
            continue
        bounds = [bound_of(one, 1) for one in many]
        highs = [*bounds, *(one.estimate.high for one in many if one.estimate.high is not None)]
        limit = math.ceil(max(highs) / TRIPS_STEP + 1e-9) * TRIPS_STEP
        if 0 < limit < math.inf:
            yield Proposal(many[0].metric, many[0].labels, f"at_most = {limit:.10g}",
                           f"{values_of(many)} measured; the next 0.05 above what that leaves open")  # fmt: skip


def not_worse(figures: Iterable[Sequence[Figure]], result_sets: Sequence[ResultSet]) -> Iterator[Proposal]:
    """Response times, held against a baseline: as little worse as this noise lets a gate see."""
    paired = len(result_sets) == 2 and all(result_set.pairing for result_set in result_sets) and (
        len({result_set.pairing.id for result_set in result_sets if result_set.pairing}) == 1
    )
    groups: dict[tuple, tuple[dict[str, Label], int, list[Label]]] = {}
    for many in figures:
        if many[0].metric not in RELATIVE or not all(usable(one) for one in many):
            continue
        needed = noise_of(many, paired)
        percent = next((step for step in STEPS_PERCENT if math.log1p(step / 100) >= needed), None)
        if percent is None:
            continue
        labels = dict(many[0].labels)
        miles = labels.pop("miles", None)
        _, _, places = groups.setdefault((many[0].metric, percent, *labels.items()), (labels, percent, []))
        places += [] if miles is None else [miles]
    reason = "as little as these rounds let a gate tell from nothing: unchanged, it passes in nine of ten runs"
    if len(result_sets) < RUNS_MIN:
        reason += " that farwrite ab measures side by side"
    for (metric, *_), (labels, percent, places) in groups.items():
        where = {**labels, **({"miles": places} if places else {})}
        yield Proposal(metric, where, f'not_worse_by = "{percent} %"', reason)


def noise_of(many: Sequence[Figure], paired: bool) -> float:
    """The room, on the logarithmic scale, in which no change passes with POWER: (t of alpha + t of power) times the error."""
    spreads = [found for found in map(spread, many) if isinstance(found, Spread)]
    worst = max(spreads, key=lambda item: item.error)
    error, df = worst.error * math.sqrt(2), 2 * worst.df
    change = change_of(many[0], many[1], paired=True) if paired else ""
    if not isinstance(change, str):
        error, df = change.error, change.df
    elif apart := between_runs([level for level in map(level_of, many) if level]):
        error, df = error_of_runs(worst, worst, apart)
    elif len(many) > 1:  # What differs from run to run is no part of what differs from round to round.
        mean = math.fsum(item.value for item in spreads) / len(spreads)
        between = math.sqrt(2 * math.fsum((item.value - mean) ** 2 for item in spreads) / (len(spreads) - 1))
        if between > error:
            error, df = between, len(spreads) - 1
    return (critical(ALPHA, df) + critical(1 - POWER, df)) * error


def reach(figures: Iterable[Sequence[Figure]]) -> Iterator[Proposal]:
    """Miles on a straight line of glass, at least what these reports do not exclude; only where something was measured."""
    for many in figures:
        first = many[0]
        if first.metric not in MILES or first.labels.get("route") != 1.0 or not all(usable(one) for one in many):
            continue
        if any(code.among(one.estimate.warnings) for one in many for code in (interval_beyond, interval_below, few_rounds)):
            continue
        lows = [*(bound_of(one, -1) for one in many), *(one.estimate.low for one in many if one.estimate.low is not None)]
        limit = math.floor(min(lows) / MILES_STEP - 1e-9) * MILES_STEP
        if limit > 0:
            yield Proposal(first.metric, first.labels, f"at_least = {limit}",
                           f"{values_of(many)} miles measured; the next {MILES_STEP} below what that leaves open")  # fmt: skip


def usable(figure: Figure) -> bool:
    """Whether a budget can be made from it."""
    value = scaled(figure.estimate.value, is_relative(figure))
    sound = not caveats(figure) and not lateness_share_of(figure.estimate)
    return sound and value is not None and isinstance(spread(figure), Spread)


def bound_of(figure: Figure, side: int) -> float:
    """What a gate of one look would not exclude, upwards (1) or downwards (-1); of figures on the plain scale."""
    found = spread(figure)
    assert isinstance(found, Spread) and not is_relative(figure)
    return found.value + side * critical(min(ALPHA, TAIL), found.df) * found.error


def workloads(
    figures: Iterable[Sequence[Figure]], metrics: Sequence[str]
) -> Iterator[tuple[str, dict[str, Label | list[Label]], list[Figure]]]:
    """(metric, labels, figures) of each workload under each protocol, all its distances together."""
    found: dict[tuple, list[Figure]] = {}
    for many in figures:
        if many[0].metric in metrics:
            labels = tuple((key, value) for key, value in many[0].labels.items() if key != "miles")
            found.setdefault((many[0].metric, labels), []).extend(many)
    for (metric, labels), many in found.items():
        yield metric, dict(labels), many


def values_of(many: Sequence[Figure]) -> str:
    """The values in all reports: "1.049", "1.041 to 1.060"."""
    values = sorted(one.estimate.value for one in many if one.estimate.value is not None)
    ends = [f"{round(value, 3) + 0.0:.3f}" for value in (values[0], values[-1])]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


# TOML


def lines_of(item: Proposal) -> list[str]:
    """A [[budget]] as it is written."""
    where = ", ".join(f"{key_text(key)} = {label_toml(value)}" for key, value in item.where.items())
    return [
        "", "[[budget]]", f"metric = {quoted(item.metric)}", *([f"where = {{ {where} }}"] if where else []), item.limit,
        f"reason = {quoted(item.reason)}",
    ]  # fmt: skip


def key_text(key: str) -> str:
    """A key, quoted where TOML wants it."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else quoted(key)


def label_toml(value: Label | list[Label]) -> str:
    """A label's value, or a list of them."""
    if isinstance(value, list):
        return label_toml(value[0]) if len(value) == 1 else f"[{', '.join(label_toml(one) for one in value)}]"
    return quoted(value) if isinstance(value, str) else f"{value:.12g}"


def quoted(text: str) -> str:
    """A text as TOML takes it: JSON's escapes are TOML's too, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def one_line(text: str) -> str:
    """Text for a comment."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
