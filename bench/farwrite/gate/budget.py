"""Budgets: what was promised, and how often it may be asked whether it was kept.

A budgets file is TOML with units in the text ("2 ms", "60 miles", "5 %"). Inside, limits are in the base unit of their metric.
What is wrong in it is refused here with its line; which figures of a report a budget means is `gate.py`'s to find.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..analysis.change import ALPHA, MARGINS
from ..analysis.figure import METRICS, Label, Metric, label_text
from ..base import units
from ..base.errors import UsageError, nearest
from ..base.units import KM_PER_MILE, NS_PER_MS
from ..base.user_file import TEXT_BYTES_MAX, read_text
from ..workload import tables
from ..workload.toml_reader import Reader, tables_of

LOOKS_MAX = 3  # Who asks more often is waiting for the answer he wants.
ALPHA_MAX = 0.25  # A gate that is wrong more often than once in four is asked by nobody.

Kind = Literal["at_most", "at_least", "equals", "not_worse_by"]
KINDS: tuple[Kind, ...] = ("at_most", "at_least", "equals", "not_worse_by")

# Acknowledged writes that are gone or not what was written: the one failure with an exit code of its own.
SAFETY = ("lost_writes", "damaged_writes", "drill_lost_writes", "drill_damaged_writes")

# Exact, and yet from round to round they differ: compared as ratios (`compare.is_count`).
RATIOS_OF_COUNTS = ("flushes_per_write", "far_flushes_per_write", "wire_bytes_per_user_byte")

BYTE_RATE = {f"{unit}/s": scale for unit, scale in units.SIZE.items()}
MILES = {unit: km / KM_PER_MILE for unit, km in units.LENGTH_KM.items()}
PERCENT = re.compile(r"\s*(\d{1,9}(?:\.\d{0,9})?)\s*%\s*")

# How a limit is written by the unit of its metric: the units it may have, and an example for who wrote something else.
WRITTEN: dict[str, tuple[Mapping[str, float], str]] = {
    "ns": (units.TIME, '"2 ms"'),
    "bytes": (units.SIZE, '"64 KiB"'),
    "per_s": (units.FREQUENCY, '"2000 /s"'),
    "bytes_per_s": (BYTE_RATE, '"20 MB/s"'),
    "miles": (MILES, '60 or "60 miles"'),
    "ratio": ({}, "1.05"),
    "count": ({}, "0"),
    "": ({}, "1.5"),
}
PLAIN = ("miles", "ratio", "count", "")  # Units whose limits may be numbers without one.


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """What budgets are made of."""


class Budget(Struct, frozen=True):
    """One promise about every figure that it selects."""

    metric: str
    kind: Kind
    limit: float  # in the metric's base unit; a share of the baseline where `share`
    share: bool = False  # not_worse_by = "5 %" rather than a difference
    where: dict[str, list[Label]] = {}  # label -> any of these; empty: every figure of the metric
    name: str = ""
    reason: str = ""
    gating: bool = True  # False: shown, and never decides
    place: str = ""  # file:line, for errors


class Budgets(Struct, frozen=True):
    """A whole file of them."""

    budgets: list[Budget]
    title: str = ""
    alpha: float = ALPHA  # how often the whole gate may fail what keeps every promise
    looks: int = 1  # how often it may be asked about one candidate
    source: str = "budgets"

    @property
    def level(self) -> float:
        """What one look may err by: alpha is shared evenly among the looks (Bonferroni)."""
        return self.alpha / self.looks

    def __post_init__(self) -> None:
        assert 0 < self.alpha <= ALPHA_MAX and 1 <= self.looks <= LOOKS_MAX


OWN = "the run's own budgets"


def own_budgets(tables: Sequence[tables.BudgetTable]) -> Budgets:
    """The budgets that a run was given itself, as a gate holds it against them."""
    return Budgets(
        title="The run's own budgets",
        budgets=[
            Budget(
                metric=f"response_p{100 * table.quantile:g}".replace(".", ""), kind="at_most", limit=float(table.limit_ns),
                where={} if table.miles is None else {"miles": [table.miles]}, name=table.text, place=OWN,
            )
            for table in tables
        ],
        source=OWN,
    )  # fmt: skip


class Table(tables.Struct, frozen=True):
    """[[budget]] as it is written; exactly one of the four limits is given."""

    metric: str
    name: str = ""
    where: dict[str, Any] = msgspec.field(default_factory=dict)
    at_most: Any = None
    at_least: Any = None
    equals: Any = None
    not_worse_by: Any = None
    reason: str = ""
    gating: bool = True


class File(tables.Struct, frozen=True):
    """The file as it is written."""

    title: str = ""
    alpha: float = ALPHA
    looks: int = 1
    budget: list[Table] = msgspec.field(default_factory=list)


def load(path: Path, metrics: Mapping[str, Metric] = METRICS) -> Budgets:
    """The budgets of a file; UsageError with line and nearest word when it is wrong."""
    return parse(read_text(path, "read the budgets", TEXT_BYTES_MAX), str(path), metrics)


def parse(text: str, source: str = "budgets", metrics: Mapping[str, Metric] = METRICS) -> Budgets:
    """Budgets from their text; `metrics` are those that a report may be asked for."""
    file, reader = tables_of(text, source, File, source)
    refuse_unless(0 < file.alpha <= ALPHA_MAX, reader.where(("alpha",)), f"must be above 0, and at most {ALPHA_MAX}")
    refuse_unless(1 <= file.looks <= LOOKS_MAX, reader.where(("looks",)), f"must lie between 1 and {LOOKS_MAX}")
    refuse_unless(bool(file.budget), reader.source, "at least one [[budget]] is needed")
    budgets: list[Budget] = []
    for index, table in enumerate(file.budget):
        made = budget_of(table, index, reader, metrics)
        earlier = next((other for other in budgets if other.name == made.name), None)
        refuse_unless(earlier is None, reader.where(("budget", index, "name" if table.name else "metric")),
                      f'a budget above is "{made.name}" already: give each a name of its own')  # fmt: skip
        budgets.append(made)
    return Budgets(title=file.title, alpha=file.alpha, looks=file.looks, budgets=budgets, source=source)


def refuse_unless(kept: bool, where: str, sentence: str) -> None:
    """UsageError unless it holds."""
    if not kept:
        raise UsageError(f"{where}: {sentence}.")


def budget_of(table: Table, index: int, reader: Reader, metrics: Mapping[str, Metric]) -> Budget:
    """One budget, its words understood."""

    def where(*keys: str) -> str:
        return reader.where(("budget", index, *keys))

    if table.metric not in metrics:
        raise UsageError(f'{where("metric")}: unknown metric "{table.metric}"{nearest(table.metric, metrics)}.')
    given = [kind for kind in KINDS if getattr(table, kind) is not None]
    if len(given) != 1:
        found = " and ".join(given) if given else "none"
        raise UsageError(f"{where()}: exactly one of {', '.join(KINDS)} is needed; it has {found}.")
    kind = given[0]
    limit, share = limit_of(getattr(table, kind), kind, table.metric, metrics[table.metric], where(kind))
    selector = {label: choices_of(label, value, where("where")) for label, value in table.where.items()}
    return Budget(
        metric=table.metric, kind=kind, limit=limit, share=share, where=selector,
        name=table.name or name_of(table.metric, selector), reason=" ".join(table.reason.split()), gating=table.gating,
        place=reader.file_and_line(("budget", index)),
    )  # fmt: skip


def name_of(metric: str, selector: Mapping[str, list[Label]]) -> str:
    """What a budget is called that was given no name: "response_p99, C, 20 miles"."""
    return ", ".join([metric, *(any_of([choice_text(key, one) for one in many]) for key, many in selector.items())])


def choice_text(key: str, value: Label) -> str:
    """A label in words, also where a text was written for a number: no figure has it, which is `gate.py`'s to say."""
    return f'{key} "{value}"' if isinstance(value, str) and key in ("miles", "queue_depth") else label_text(key, value)


def any_of(texts: list[str]) -> str:
    """ "A, B or C"."""
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


# Limits


def limit_of(value: Any, kind: Kind, name: str, metric: Metric, where: str) -> tuple[float, bool]:
    """(the limit in base units, whether it is a share of the baseline)."""
    if kind == "not_worse_by":
        return worsening(value, name, metric, where)
    refuse_unless(kind != "equals" or metric.exact, where, f"{name} is measured, and no measurement equals anything: "
                  "say at_most or at_least")  # fmt: skip
    limit = amount(value, metric, where)
    refuse_unless(limit > 0 or metric.exact or name in MARGINS, where, f"{name} is never 0: the limit must be above it")
    return limit, False


def worsening(value: Any, name: str, metric: Metric, where: str) -> tuple[float, bool]:
    """How much worse than the baseline a metric may be. What may be zero changes by a difference, the rest by a share."""
    refuse_unless(metric.better != "", where, f"{name} has no better direction: say at_most or at_least")
    percent = PERCENT.fullmatch(value) if isinstance(value, str) else None
    if percent is None:
        refuse_unless(name in MARGINS or (metric.exact and name not in RATIOS_OF_COUNTS), where,
                      f'the change of {name} is told as a share: write it as a percentage, such as "5 %"')  # fmt: skip
        return amount(value, metric, where), False
    refuse_unless(name not in MARGINS, where, f"{name} may be zero, and a share of nothing is nothing: write the difference, "
                  f"such as {'0.02' if metric.unit == 'ratio' else WRITTEN[metric.unit][1]}")  # fmt: skip
    share = float(percent.group(1)) / 100
    refuse_unless(share < 1 or metric.better == "less", where, f"{name} cannot become worse by 100 %, and still be there")
    return share, True


def amount(value: Any, metric: Metric, where: str) -> float:
    """A limit in the metric's base unit: a text with a unit, or a number where the metric has none."""
    known, example = WRITTEN[metric.unit]
    if isinstance(value, str) and known:
        number = units.parse(value, known, where)
    elif isinstance(value, int | float) and not isinstance(value, bool) and metric.unit in PLAIN:
        number = finite(value)
    else:
        raise UsageError(f"{where}: {value!r} is no limit here: write it like {example}.")
    refuse_unless(math.isfinite(number) and number >= 0, where, f"{value!r} must be finite and not negative")
    return number


def finite(value: float) -> float:
    """A number as a float; TOML's integers may be larger than any."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


# Selectors


def choices_of(label: str, value: Any, where: str) -> list[Label]:
    """The values of a label that a budget is about: one, or any of several."""
    many = value if isinstance(value, list) else [value]
    refuse_unless(bool(many), where, f"{label}: an empty list selects nothing")
    return [choice_of(label, one, where) for one in many]


def choice_of(label: str, value: Any, where: str) -> Label:
    """One of them."""
    if isinstance(value, str):
        # A budget's time is a label of the greatest miles: "2000 us" and "2 ms" are the same one.
        return f"{units.time_ns(value, where) / NS_PER_MS:g} ms" if label == "budget" else value
    refuse_unless(isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(finite(value)), where,
                  f"{label} = {value!r}: a label is a text or a number, or a list of them")  # fmt: skip
    return float(value)
