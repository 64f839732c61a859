"""Figures: every number a report can be asked for, each with its metric, its labels and how sure it is.

A `Sheet` is what compare, gate, history and the pytest plugin read. It is drawn from a report's analysis or from another
tool's results (`foreign/`), and knows which runs may be compared with which. A figure is named by its metric and told from others
by its labels: `response_p99` of {name: write, protocol: C, miles: 20, queue_depth: 1}.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from ..base.reasons import Reason
from ..recording import Pairing
from ..workload.tables import BudgetTable
from .result import CellResult, Estimate

RESULT_SET_VERSION = 2  # 1 had sentences without codes.

Unit = Literal["ns", "bytes", "per_s", "bytes_per_s", "ratio", "count", "miles", ""]
Better = Literal["less", "more", ""]
Label = str | float


class Metric(NamedTuple):
    """What a metric is: its unit, which direction is better, whether it is counted rather than measured."""

    unit: Unit
    better: Better
    exact: bool
    meaning: str

    @property
    def note(self) -> str:
        """Its unit, and which direction is better: " (ns, less is better)"."""
        words = [self.unit, f"{self.better} is better" if self.better else ""]
        return f" ({', '.join(word for word in words if word)})" if any(words) else ""


QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}

# Every metric of a farwrite report. Another tool's result set may have others beside these.
METRICS: dict[str, Metric] = {
    "response_p50": Metric("ns", "less", False, "response time from the intended instant, median"),
    "response_p99": Metric("ns", "less", False, "response time, 99th percentile"),
    "response_p999": Metric("ns", "less", False, "response time, 99.9th percentile"),
    "service_p50": Metric("ns", "less", False, "service time from issue, median"),
    "wait_p99": Metric("ns", "less", False, "wait for issue in our own backlog, 99th percentile"),
    "late_p99": Metric("ns", "less", False, "lateness of the generator, 99th percentile"),
    "floor": Metric("ns", "", False, "what a bare echo and flush take in this lab, at the median"),
    "efficiency": Metric("ratio", "more", False, "floor over response time at the median"),
    "rtt_p50": Metric("ns", "", False, "delivered round trip, median"),
    "rtt_p99": Metric("ns", "", False, "delivered round trip, 99th percentile"),
    "throughput": Metric("per_s", "more", False, "writes completed per second"),
    "goodput": Metric("bytes_per_s", "more", False, "application bytes completed per second"),
    "cpu_per_write": Metric("ns", "less", False, "processor time of both replicas per completed write"),
    "lag_p99": Metric("ns", "less", False, "age of the oldest write not known at the far site, 99th percentile"),
    "lag_writes_max": Metric("count", "less", True, "writes not known at the far site, at most"),
    "lag_bytes_max": Metric("bytes", "less", True, "bytes not known at the far site, at most"),
    "lost_writes": Metric("count", "less", True, "acknowledged writes missing at the far site"),
    "damaged_writes": Metric("count", "less", True, "writes at the far site that are not what was written"),
    "unacknowledged_writes": Metric("count", "less", True, "writes issued and never acknowledged"),
    "flushes_per_write": Metric("ratio", "less", True, "journal flushes at the near site per completed write"),
    "far_flushes_per_write": Metric("ratio", "less", True, "journal flushes at the far site per completed write"),
    "wire_bytes_per_user_byte": Metric("ratio", "less", True, "bytes sent to the far site per byte written"),
    "rounds_void": Metric("count", "less", True, "rounds whose link or machine was not what it must be"),
    "part_response_p50": Metric("ns", "less", False, "response time of one operation of a job, median"),
    "part_response_p99": Metric("ns", "less", False, "response time of one operation of a job, 99th percentile"),
    "part_response_p999": Metric("ns", "less", False, "response time of one operation of a job, 99.9th percentile"),
    "part_throughput": Metric("per_s", "more", False, "I/Os of one operation of a job completed per second"),
    "part_goodput": Metric("bytes_per_s", "more", False, "bytes of one operation of a job completed per second"),
    "k_p50": Metric("ratio", "less", False, "serial round trips a write takes, fitted at the median"),
    "k_p99": Metric("ratio", "less", False, "serial round trips a write takes, fitted at the 99th percentile"),
    "a_p50": Metric("ns", "less", False, "what a write takes apart from distance, fitted at the median"),
    "a_p99": Metric("ns", "less", False, "what a write takes apart from distance, fitted at the 99th percentile"),
    "greatest_miles_p50": Metric("miles", "more", False, "the greatest distance within the budget, at the median"),
    "greatest_miles_p99": Metric("miles", "more", False, "the greatest distance within the budget, at p99"),
    "drill_lost_writes": Metric("count", "less", True, "acknowledged writes lost over all drills of a kind"),
    "drill_damaged_writes": Metric("count", "less", True, "damaged writes over all drills of a kind"),
    "recovery_point": Metric("ns", "less", True, "age of the oldest write lost in a drill, at worst"),
    "recovery_time": Metric("ns", "less", True, "from the heal of a link to the next completed write, at worst"),
    "recovery_time_p50": Metric("ns", "less", False, "of farwrite drill: from an event to the next write that is served, median"),
    "recovery_time_p95": Metric("ns", "less", False, "of farwrite drill: the same, 95th percentile over trials"),
    "outage_share": Metric("ratio", "less", False, "of farwrite drill: share of a trial's time without a write within the bound"),
    "loss_probability": Metric("ratio", "less", True, "95 % bound on the probability that a kill loses a write"),
}


def metrics_page() -> str:
    """docs/metrics.md."""
    rows = [
        (f"`{name}`", one.unit or "none", one.better or "neither", "counted" if one.exact else "measured", one.meaning)
        for name, one in METRICS.items()
    ]
    return "\n".join([
        "# Every metric of a report", "",
        "Made by `farwrite budget metrics --markdown`. `compare`, `gate`, `history` and the pytest fixtures name figures by",
        "these, and tell figures of one metric apart by labels (`protocol`, `miles`, `name`, `queue_depth`, `budget`). What is",
        "counted is compared as it is; what is measured has an interval.", "",
        "| metric | unit | better | how | meaning |", "|---|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows),
    ])  # fmt: skip


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """What result sets are made of."""


class Figure(Struct, frozen=True):
    """One number: `estimate.value` is None when it is unknown, and its warnings say why."""

    metric: str
    labels: dict[str, Label]
    unit: Unit
    better: Better
    exact: bool  # counted, so without noise: compared as it is
    estimate: Estimate
    withheld: list[Reason] = []  # why no verdict may rest on it; empty when one may
    link_error_ns: float | None = None  # how far off the link was that this latency has waited for; None: it has not
    host_noise: list[Reason] = []  # why none may that holds it against a limit, or a quieter run
    beyond: float | None = None  # of miles: the value, or its interval's end, lies beyond these, the farthest measured
    below: float | None = None  # the same, below the nearest measured

    @property
    def doubts(self) -> list[Reason]:
        """Why no verdict on it by itself may rest on this run; empty when one may."""
        return [*self.withheld, *self.host_noise]

    @property
    def name(self) -> str:
        """The figure in words: "response_p99 of write, C, 20 miles"."""
        words = ", ".join(label_text(key, value) for key, value in self.labels.items())
        return f"{self.metric} of {words}" if words else self.metric


class ResultSet(Struct, frozen=True):
    """All figures of one report, and what another one must share with it to be compared."""

    kind: str  # "farwrite", or the tool that measured
    source: str  # the file
    id: str
    started_utc: str
    identity: dict[str, str]  # field by field: host, link, profile …
    figures: list[Figure]
    pairing: Pairing | None = None
    interrupted: bool = False
    warnings: list[str] = []
    version: int = RESULT_SET_VERSION
    not_durable: str = ""  # which journals would not survive a power loss, and why; empty: none, or not told
    budgets: list[BudgetTable] = []  # the run's own


def label_text(key: str, value: Label) -> str:
    """A label in words."""
    if isinstance(value, str):
        return value if key in ("name", "protocol", "drill", "job", "op") else f"{key} {value}"
    if key == "miles":
        return f"{value:g} miles"
    return f"{'depth' if key == 'queue_depth' else key} {value:g}"


# Figures of ours


def figure_of(
    metric: str, labels: dict[str, Label], estimate: Estimate, withheld: Sequence[Reason] = (),
    link_error_ns: float | None = None, host_noise: Sequence[Reason] = (),
) -> Figure:  # fmt: skip
    """One figure of ours. What was counted is not made doubtful by a busy machine: only measurements are withheld."""
    known = METRICS[metric]
    return Figure(
        metric=metric, labels=labels, unit=known.unit, better=known.better, exact=known.exact, estimate=estimate,
        withheld=[] if known.exact else [*withheld], link_error_ns=link_error_ns,
        host_noise=[] if known.exact else [*host_noise],
    )  # fmt: skip


def cell_figure(
    cell: CellResult, metric: str, estimate: Estimate, more: dict[str, Label] | None = None, withheld: Sequence[Reason] = ()
) -> Figure:
    """One figure of a cell, with all that withholds verdicts on it; `more` are further labels, `withheld` further reasons."""
    labels: dict[str, Label] = {
        "name": cell.name, "protocol": cell.protocol, "miles": cell.miles, "queue_depth": cell.queue_depth,
    }  # fmt: skip
    return figure_of(
        metric, labels | (more or {}), estimate, [*cell.withheld, *withheld], off_by(cell, metric), cell.host_noise
    )


def off_by(cell: CellResult, metric: str) -> float | None:
    """How far off the link was that a latency has waited for; None where it waited for none."""
    waited = metric.removeprefix("part_").startswith(("response", "service")) and cell.protocol not in ("local", "A")
    return cell.link_error_ns if waited else None
