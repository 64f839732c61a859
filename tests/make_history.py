"""Results directories made up: result sets of one night each, and reports where a test is about reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

from farwrite.analysis.analyse import analyse
from farwrite.analysis.figure import METRICS, Figure, ResultSet
from farwrite.analysis.result import Estimate
from farwrite.base.reasons import needs
from farwrite.recording import SCHEMA_VERSION, Report, save
from make_figures import as_reasons
from make_recording import make_recording

FIRST = datetime(2026, 9, 20, 3, tzinfo=UTC)
IDENTITY = {"host": "2 x made up", "link": "netem", "profile": "limits abc"}
BRIEF = ("run.round=200 ms", "run.survey_echoes=20", "drill.kills=0", "distance.miles=[20]")


def figure(value, metric="response_p99", withheld=(), **labels):
    """One figure; at 20 miles under C unless labels say otherwise."""
    known = METRICS[metric]
    wide = None if value is None else value * 0.03
    estimate = Estimate(value=None, warnings=[needs("p99", 368, 7)]) if value is None else Estimate(
        value=value, low=value - wide, high=value + wide, confidence=0.95, count=4000
    )  # fmt: skip
    return Figure(
        metric=metric, labels=labels or {"name": "write", "protocol": "C", "miles": 20.0, "queue_depth": 1.0},
        unit=known.unit, better=known.better, exact=known.exact, estimate=estimate, withheld=as_reasons(withheld),
    )  # fmt: skip


def night(index):
    """When the run of a night started."""
    return (FIRST + timedelta(days=index)).isoformat()


def result_set(index, *figures, **changes):
    """The result set of one night."""
    fields = {"kind": "farwrite", "source": "", "id": f"run-{index:03}", "started_utc": night(index), "identity": IDENTITY}
    return ResultSet(**{**fields, "figures": list(figures), **changes})


def put(results: Path, one: ResultSet, place: str | None = None) -> Path:
    """Store a result set as a run; its file."""
    path = results / (place or f"runs/{one.id}/sheet.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(one))
    return path


def nights(results: Path, count: int, step_at: int | None = None, size: float = 0.09, seed: int = 1, **labels) -> list[float]:
    """So many runs with noise of 2 % around 0.487 ms, `size` more from a run on; their values."""
    logs = 0.02 * np.random.default_rng(seed).standard_normal(count)
    if step_at is not None:
        logs[step_at:] += np.log1p(size)
    values = (487_000 * np.exp(logs)).tolist()
    for index, value in enumerate(values):
        put(results, result_set(index, figure(value, **labels)))
    return values


@cache
def report(seed: int = 1, **changes) -> Report:
    """A small report with its analysis."""
    recording = make_recording(seed=seed, changes=BRIEF)
    recording = msgspec.structs.replace(recording, id=f"run-{seed}", started_utc=night(seed), **changes)
    return Report(schema_version=SCHEMA_VERSION, recording=recording, analysis=analyse(recording))


def put_report(results: Path, one: Report) -> Path:
    """Store a report as a run; its directory."""
    directory = results / "runs" / one.recording.id
    directory.mkdir(parents=True, exist_ok=True)
    save(one, directory / "report.json")
    return directory
