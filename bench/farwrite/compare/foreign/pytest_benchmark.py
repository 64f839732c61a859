"""pytest-benchmark's JSON: the time one call of each benchmarked function takes.

Label: benchmark, its full name. With the single rounds (--benchmark-json, or --benchmark-save-data) the median has an
exact interval; without them its quartiles enclose one. Rounds follow each other within one run, so they do not show how
well a run repeats. Times in the file are seconds: pytest-benchmark documentation, "Usage".
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from msgspec.structs import replace

from ...analysis.figure import Figure, Label, ResultSet
from ...analysis.result import Estimate
from ...base.reasons import remark
from ...base.units import NS_PER_S
from .counted import ONE_RUN, Counted, from_percentiles, mean_of
from .document import Part, numbered
from .metrics import figure, identifier

QUARTILES = {"min": 0.0, "q1": 0.25, "median": 0.5, "q3": 0.75, "max": 1.0}


def is_ours(document: Part) -> bool:
    """Whether pytest-benchmark wrote this."""
    return "machine_info" in document and "benchmarks" in document


def result_set_of(document: Part, text: str) -> ResultSet:
    """All figures of all benchmarks."""
    benchmarks = document.parts("benchmarks")
    if not benchmarks:
        raise document.refusal("benchmarks", "holds no benchmark")
    names = [item.text("fullname") or item.text("name") for item in benchmarks]
    figures: list[Figure] = []
    for name, clone, item in zip(names, numbered(names), benchmarks, strict=True):
        labels: dict[str, Label] = {"benchmark": name}
        if clone is not None:
            labels["clone"] = float(clone)
        figures += [figure(metric, labels, estimate) for metric, estimate in estimates_of(item.part("stats"))]
    return ResultSet(
        kind="pytest-benchmark", source=document.source, id=identifier(text), started_utc=started(document.text("datetime")),
        identity=identity_of(document.part("machine_info")), figures=figures,
    )  # fmt: skip


def identity_of(machine: Part) -> dict[str, str]:
    """The processor and the Python; not the machine's name: cloud runners of one kind are alike."""
    cpu = machine.part("cpu")
    brand = cpu.text("brand_raw") or cpu.text("brand") or machine.text("processor") or "unknown processor"
    return {
        "host": f"{cpu.text('count') or '?'} x {brand}",
        "python": f"{machine.text('python_implementation')} {machine.text('python_version')}".strip(),
        "system": f"{machine.text('system')} {machine.text('machine')}".strip(),
    }


def started(text: str) -> str:
    """The instant the file gives, in UTC; empty when it gives none."""
    try:
        instant = datetime.fromisoformat(text)
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return ""


def estimates_of(stats: Part) -> Iterator[tuple[str, Estimate]]:
    """(metric, estimate) of one benchmark; times in ns."""
    values = [NS_PER_S * value for value in stats.numbers("data")]
    count = len(values) or stats.count("rounds")
    known = {q: NS_PER_S * value for key, q in QUARTILES.items() if (value := stats.number(key)) is not None}
    median = Counted.of(values).estimate(0.5) if values else from_percentiles(known, 0.5, count)
    if median is not None:
        yield "run_time_p50", with_value(median, known.get(0.5))
    if 0.0 in known:
        yield "run_time_min", Estimate(value=known[0.0], count=count, warnings=[ONE_RUN, remark("a least value has no interval")])
    mean, deviation = stats.number("mean"), stats.number("stddev")
    if mean is not None:
        yield "run_time_mean", mean_of(NS_PER_S * mean, None if deviation is None else NS_PER_S * deviation, count)


def with_value(estimate: Estimate, value: float | None) -> Estimate:
    """The estimate at the tool's own value: of an even number of rounds its median lies between two of them."""
    low, high = estimate.low, estimate.high
    if value is None or low is None or high is None:
        return estimate
    return replace(estimate, value=value, low=min(low, value), high=max(high, value))
