"""k6's end-of-test summary, as --summary-export writes it, as handleSummary() receives it, or machine-readable as of k6 1.5.

Metrics keep k6's names: `http_req_duration_p95`, `_p50` for its med, `_mean` for its avg, `_min`, `_max`; a counter such as
`iterations` and its rate `iterations_per_s`; a rate such as `checks` by its name alone, as a share of 1. Tags of a submetric,
`http_req_duration{expected_response:true}`, are labels. k6's times are milliseconds, whatever summaryTimeUnit shows:
k6 documentation, "Custom summary"; formats: `summarizeMetricsToObject` and `oldJSONSummary` in k6's source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from ...analysis.estimate import CONFIDENCE
from ...analysis.figure import Better, Figure, Label, ResultSet, Unit
from ...analysis.result import Estimate
from ...base.units import NS_PER_MS
from .counted import ONE_RUN, from_percentiles, plain
from .document import GREATEST, Part, clean
from .metrics import identifier

Type = Literal["counter", "gauge", "rate", "trend", ""]

PERCENTILE = re.compile(r"p\(?(\d{1,3}(?:\.\d{1,9})?)\)?")  # "p(95)"; "p95" in the machine-readable one.
SUBMETRIC = re.compile(r"([^{]*)\{(.*)\}", re.DOTALL)

# What --summary-export does not say: which of k6's own metrics are times, which are bytes.
TIMES = re.compile(
    r"http_req_(blocked|connecting|tls_handshaking|sending|waiting|receiving|duration)|iteration_duration|group_duration|"
    r"ws_(connecting|session_duration|ping)|grpc_req_duration|browser_http_req_duration|browser_web_vital_(fcp|fid|inp|lcp|ttfb)"
)
BYTES = re.compile(r"(browser_)?data_(sent|received)")

BETTER: dict[str, Better] = {
    "checks": "more", "iterations": "more", "http_reqs": "more", "iterations_per_s": "more", "http_reqs_per_s": "more",
    "http_req_failed": "less", "browser_http_req_failed": "less", "dropped_iterations": "less",
    "dropped_iterations_per_s": "less",
}  # fmt: skip

# Whose number is how many values a trend is of: http_req_duration has one for each of http_reqs.
COUNTED_BY = {"http_req_": "http_reqs", "iteration_duration": "iterations", "ws_session_duration": "ws_sessions"}

NUMERIC_LABELS = ("miles", "queue_depth")  # Of ours; a tag that is called so is words.


def is_ours(document: Part) -> bool:
    """Whether this is k6's summary."""
    if is_machine_readable(document):
        return True
    metrics = document.value.get("metrics")
    return isinstance(metrics, dict) and ("root_group" in document or "iterations" in metrics or "http_reqs" in metrics)


def is_machine_readable(document: Part) -> bool:
    """Whether this is the summary that lists its metrics below "results"."""
    results, metadata = document.value.get("results"), document.value.get("metadata")
    return isinstance(results, dict) and isinstance(results.get("metrics"), list) and isinstance(metadata, dict) and (
        "k6Version" in metadata
    )


def metrics_of(document: Part) -> Part:
    """The metrics by their names, whichever summary it is."""
    if not is_machine_readable(document):
        return document.part("metrics")
    results = document.part("results")
    found: dict[str, Any] = {}
    for index, part in enumerate(results.parts("metrics")):
        name = part.text("name")
        if not name or name in found:
            raise results.refusal(f"metrics[{index}]", "has no name of its own")
        found[name] = part.value
    return Part(document.source, found, results.at("metrics"))


def is_stream(text: str) -> bool:
    """Whether this is what `k6 run --out json` writes: a line a point, which is no summary."""
    return text.startswith('{"') and re.search(r'"type":\s*"(Metric|Point)"', text[:2000]) is not None


def result_set_of(document: Part, text: str) -> ResultSet:
    """All figures of a summary."""
    metrics = metrics_of(document)
    figures: dict[tuple, Figure] = {}
    for name, part in metrics.members():
        for item in figures_of(name, part, metrics):
            figures.setdefault((item.metric, *sorted(item.labels.items())), item)  # p(50) says what med has said.
    warnings = []
    if any(item.unit == "" for item in figures.values()) and not any("values" in part for _, part in metrics.members()):
        warnings.append("--summary-export leaves open what custom metrics are in; the data of handleSummary() says it")
    return ResultSet(
        kind="k6", source=document.source, id=identifier(text), started_utc=started(document), identity={},
        figures=list(figures.values()), warnings=warnings,
    )  # fmt: skip


def started(document: Part) -> str:
    """When the machine-readable summary was made, in UTC; the others do not say."""
    text = document.part("metadata").text("generatedAt") if is_machine_readable(document) else ""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return ""


def figures_of(name: str, part: Part, metrics: Part) -> Iterator[Figure]:
    """The figures of one metric."""
    base, labels = name_of(name)
    values = part.part("values") if "values" in part else part
    contains = part.text("contains") if "contains" in part else contains_of(base)
    kind = type_of(part, values)
    if kind == "trend":
        yield from trend(base, labels, values, contains, count_of(name, values, metrics))
    elif kind == "rate":
        key = "rate" if "rate" in values else "value"
        share = values.number(key)
        if share is not None and share > 1:
            raise values.refusal(key, f"is {share:.6g}, and a share is 1 at most")
        if share is not None:
            passes, fails = values.count("passes"), values.count("fails")
            if "total" in values:  # The machine-readable one counts so.
                passes, fails = values.count("matches"), max(values.count("total") - values.count("matches"), 0)
            yield made(base, labels, "ratio", share_of(share, passes, passes + fails), BETTER.get(base, ""))
    elif kind == "counter":
        count, rate = values.number("count", -GREATEST), values.number("rate", -GREATEST)
        if count is not None:
            yield made(base, labels, "bytes" if contains == "data" else "count", plain(count), BETTER.get(base, ""))
        if rate is not None:
            unit: Unit = "bytes_per_s" if contains == "data" else "per_s"
            yield made(f"{base}_per_s", labels, unit, plain(rate), BETTER.get(f"{base}_per_s", ""))
    elif kind == "gauge":
        value = values.number("value", -GREATEST)
        if value is not None:
            unit, scale = scale_of(contains)
            yield made(base, labels, unit, plain(scale * value), "")


def trend(base: str, labels: dict[str, Label], values: Part, contains: str, count: int) -> Iterator[Figure]:
    """The percentiles, the mean and the extremes of a trend."""
    unit, scale = scale_of(contains)
    better: Better = "less" if contains == "time" else ""
    known: dict[float, float] = {}
    for key in values.value:
        q = q_of(key)
        value = values.number(key, 0.0 if contains == "time" else -GREATEST) if q is not None else None
        if q is not None and value is not None:
            known[q] = scale * value
    for q, value in known.items():
        if 0 < q < 1:
            estimate = from_percentiles(known, q, count) or plain(value, count)
            yield made(f"{base}_p{100 * q:.10g}".replace(".", ""), labels, unit, estimate, better)
        else:
            yield made(f"{base}_{'max' if q else 'min'}", labels, unit, plain(value, count), better)
    mean = values.number("avg", -GREATEST)
    if mean is not None:
        yield made(f"{base}_mean", labels, unit, plain(scale * mean, count), better)


def made(metric: str, labels: dict[str, Label], unit: Unit, estimate: Estimate, better: Better) -> Figure:
    """A figure of k6; none of them is exact, not even a count: another run counts another number."""
    return Figure(metric=metric, labels=labels, unit=unit, better=better, exact=False, estimate=estimate)


def name_of(name: str) -> tuple[str, dict[str, Label]]:
    """(metric, labels) of a metric's or a submetric's name."""
    match = SUBMETRIC.fullmatch(name)
    base, tags = match.groups() if match else (name, "")
    labels: dict[str, Label] = {}
    for tag in filter(None, (word.strip() for word in tags.split(","))):
        key, found, value = tag.partition(":")
        key = clean(key if found else "tag").strip().strip("\"'")
        labels[f"tag {key}" if key in NUMERIC_LABELS else key] = clean(value if found else tag).strip().strip("\"'")
    return re.sub(r"\W+", "_", base, flags=re.ASCII), labels


def type_of(part: Part, values: Part) -> Type:
    """Which kind of metric this is: as handleSummary() has it, or as its fields tell."""
    kind = part.text("type")
    if kind in ("counter", "gauge", "rate", "trend"):
        return kind  # type: ignore[return-value]
    if "passes" in values and "fails" in values:
        return "rate"
    if "avg" in values or any(0 < (q_of(key) or 0) < 1 for key in values.value):
        return "trend"
    if "value" in values:
        return "gauge"
    return "counter" if "count" in values or "rate" in values else ""


def contains_of(base: str) -> str:
    """What a metric of k6's own contains: time, data or neither."""
    return "time" if TIMES.fullmatch(base) else "data" if BYTES.fullmatch(base) else "default"


def scale_of(contains: str) -> tuple[Unit, float]:
    """(unit, factor to it) of what a metric contains."""
    return ("ns", NS_PER_MS) if contains == "time" else ("bytes", 1) if contains == "data" else ("", 1)


def q_of(key: str) -> float | None:
    """Which quantile a field is: of "p(95)" 0.95, of "med" 0.5, of "min" and "max" 0 and 1; None of others."""
    if key in ("min", "med", "max"):
        return {"min": 0.0, "med": 0.5, "max": 1.0}[key]
    match = PERCENTILE.fullmatch(key)
    return round(float(match[1]) / 100, 11) if match and float(match[1]) <= 100 else None


def count_of(name: str, values: Part, metrics: Part) -> int:
    """How many values a trend is of; 0 when the summary does not say."""
    if "count" in values:
        return values.count("count")
    for beginning, counter in COUNTED_BY.items():
        if name.startswith(beginning) and "{" not in name:
            part = metrics.part(counter)
            return (part.part("values") if "values" in part else part).count("count")
    return 0


def share_of(share: float, hits: int, count: int) -> Estimate:
    """A share of 1 with its exact interval, as if requests were independent. Clopper and Pearson 1934."""
    if not count:
        return plain(share)
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(hits, count - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - tail)) if hits < count else 1.0
    return Estimate(
        value=share, low=min(low, share), high=max(high, share), confidence=CONFIDENCE, count=count, warnings=[ONE_RUN]
    )
