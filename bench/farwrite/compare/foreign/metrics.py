"""What other tools measure, in our words where the meaning is ours, and in new ones where it is not.

k6 names its own metrics; `k6.py` says how they are called here.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from ...analysis.figure import METRICS as OURS
from ...analysis.figure import Figure, Label, Metric
from ...analysis.result import Estimate
from ...base.reasons import Reason

METRICS: dict[str, Metric] = {
    "service_p50": OURS["service_p50"],  # fio's lat = slat + clat, HOWTO "Interpreting the output".
    "service_p99": Metric("ns", "less", False, "service time from issue, 99th percentile"),
    "service_p999": Metric("ns", "less", False, "service time, 99.9th percentile"),
    "service_mean": Metric("ns", "less", False, "service time, mean"),
    # fio's clat: what its percentiles are of unless lat_percentiles is set. Less than service time, so not called so.
    "completion_p50": Metric("ns", "less", False, "from having been submitted to completion, median"),
    "completion_p99": Metric("ns", "less", False, "from having been submitted to completion, 99th percentile"),
    "completion_p999": Metric("ns", "less", False, "from having been submitted to completion, 99.9th percentile"),
    "completion_mean": Metric("ns", "less", False, "from having been submitted to completion, mean"),
    "throughput": Metric("per_s", "more", False, "I/Os completed per second"),
    "goodput": Metric("bytes_per_s", "more", False, "application bytes completed per second"),
    "cpu_per_io": Metric("ns", "less", False, "processor time of the load's own process per completed I/O"),
    "errors": Metric("count", "less", True, "I/Os that failed; at least 1 when the job ended with an error"),
    # HdrHistogram logs do not say what they recorded: service time, response time, or pauses.
    "latency_p50": Metric("ns", "less", False, "whatever the log recorded, median"),
    "latency_p99": Metric("ns", "less", False, "whatever the log recorded, 99th percentile"),
    "latency_p999": Metric("ns", "less", False, "whatever the log recorded, 99.9th percentile"),
    "recorded_per_s": Metric("per_s", "", False, "values recorded per second"),
    "run_time_p50": Metric("ns", "less", False, "one call of a benchmarked function, median over its rounds"),
    "run_time_min": Metric("ns", "less", False, "one call of a benchmarked function, its fastest round"),
    "run_time_mean": Metric("ns", "less", False, "one call of a benchmarked function, mean over its rounds"),
}


def figure(metric: str, labels: dict[str, Label], estimate: Estimate, withheld: list[Reason] | None = None) -> Figure:
    """One figure in a known metric."""
    known = METRICS[metric]
    return Figure(
        metric=metric, labels=labels, unit=known.unit, better=known.better, exact=known.exact, estimate=estimate,
        withheld=[] if known.exact else withheld or [],
    )  # fmt: skip


def identifier(text: str) -> str:
    """What tells one foreign run from another: these files carry no id, so their content is it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def utc(seconds: float | None) -> str:
    """An instant since 1970 as our recordings write it; empty when there is none that a calendar knows."""
    if not seconds or not 0 < seconds < 1e11:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
