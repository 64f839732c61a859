"""fio's JSON, `--output-format=json` or `json+`: figures for every job and kind of I/O.

Labels: job and op (read, write, trim, sync, or their sum, mixed), host in a client's file, and clone where jobs share a
name. Percentiles of fio are of completion latency unless the job sets lat_percentiles=1; only those of `lat_ns` are our
service time. Field by field: fio HOWTO, "JSON output" and "JSON+ output"; slots: plat_idx_to_val in fio's stat.c.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import numpy as np

from ...analysis.figure import Figure, Label, ResultSet
from ...analysis.result import Estimate
from ...base.reasons import Reason, job_failed, sentences
from ...base.units import NS_PER_MS
from .counted import QUANTILES, Counted, from_percentiles, mean_of, plain
from .document import Part, numbered, short
from .metrics import figure, identifier, utc

OPERATIONS = ("read", "write", "trim", "sync")
MIXED = "mixed"  # Their sum: in their place with unified_rw_reporting=1, beside them with =both. fio HOWTO.

SLOT_BITS = 6  # FIO_IO_U_PLAT_BITS: 64 slots a doubling, and every value below 128 a slot of its own.
SLOT_DIGITS_MAX = 19  # Of 64 bits.

# Options that say where the I/O goes and what is written about it, rather than what it is.
NO_LOAD = (
    "name", "description", "filename", "filename_format", "directory", "output", "group_reporting", "percentile_list",
    "lat_percentiles", "clat_percentiles", "slat_percentiles", "log_avg_msec", "write_bw_log", "write_lat_log",
    "write_iops_log", "write_hist_log", "log_hist_msec", "disk_util", "unlink", "stonewall", "new_group",
)  # fmt: skip


def is_ours(document: Part) -> bool:
    """Whether fio wrote this."""
    return "fio version" in document


def result_set_of(document: Part, text: str) -> ResultSet:
    """All figures of all jobs."""
    version = document.text("fio version")
    major = re.search(r"(\d{1,9})\.", version)
    if major and int(major[1]) < 3:
        raise document.refusal("fio version", f"is {short(version)}, and before fio 3.0 times were in microseconds")
    jobs = document.parts("jobs") or document.parts("client_stats")
    if not jobs:
        raise document.refusal("jobs", "holds no job")
    shared = document.part("global options")
    names = [job.text("jobname") for job in jobs]
    clones = numbered([f"{name} {job.text('hostname')}" for name, job in zip(names, jobs, strict=True)])
    identity = {"fio": major[1] if major else version}
    figures: list[Figure] = []
    warnings = []
    for name, clone, job in zip(names, clones, jobs, strict=True):
        labels: dict[str, Label] = {"job": name}
        if job.text("hostname"):
            labels["host"] = job.text("hostname")
        if clone is not None:
            labels["clone"] = float(clone)
        withheld = failure(name, job)
        warnings += sentences(withheld)
        identity[f"job {name}"] = options_of(shared, job)
        figures += figures_of(job, labels, withheld)
    if any(clone is not None for clone in clones):
        warnings.append("jobs share a name: with fio's group_reporting=1 their numbers are one")
    return ResultSet(
        kind="fio", source=document.source, id=identifier(text), started_utc=utc(document.number("timestamp")),
        identity=identity, figures=figures, warnings=list(dict.fromkeys(warnings)),
    )  # fmt: skip


def failure(name: str, job: Part) -> list[Reason]:
    """What is wrong with a job that ended with an error."""
    error = job.count("error")
    if not error:
        return []
    reason = os.strerror(error) if error < 1 << 31 else "unknown"
    return [job_failed(f"fio ended job {short(name)} with error {error} ({reason})")]


def options_of(shared: Part, job: Part) -> str:
    """The options that make two jobs the same load, in words."""
    own = job.part("job options")
    options = {key: part.text(key) for part in (shared, own) for key in part.value}
    return ", ".join(f"{key} {value}".strip() for key, value in sorted(options.items()) if key not in NO_LOAD)


def figures_of(job: Part, labels: dict[str, Label], withheld: list[Reason]) -> Iterator[Figure]:
    """The figures of one job."""
    counts = {operation: job.part(operation).count("total_ios") for operation in (*OPERATIONS, MIXED)}
    completed = max(sum(counts[operation] for operation in OPERATIONS), counts[MIXED])
    for operation, total in counts.items():
        part = job.part(operation)
        here = {**labels, "op": operation}
        for metric, estimate in times_of(part, total):
            yield figure(metric, here, estimate, withheld)
        for metric, key in (("throughput", "iops"), ("goodput", "bw_bytes")):
            value = part.number(key)
            if total and value is not None:
                yield figure(metric, here, plain(value, total), withheld)
    run_time_ms, user, system = job.number("job_runtime"), job.number("usr_cpu"), job.number("sys_cpu")
    if completed and run_time_ms and user is not None and system is not None:
        cpu_ns = (user + system) / 100 * run_time_ms * NS_PER_MS
        yield figure("cpu_per_io", labels, plain(cpu_ns / completed, completed), withheld)
    failed = max(job.count("total_err"), 1 if job.count("error") else 0)
    yield figure("errors", labels, Estimate(value=failed, low=failed, high=failed, confidence=1.0, count=completed))


def times_of(part: Part, total: int) -> Iterator[tuple[str, Estimate]]:
    """(metric, estimate) of the service and completion times that one kind of I/O has."""
    for key, word in (("lat_ns", "service"), ("clat_ns", "completion")):
        times = part.part(key)
        bins = times.part("bins")
        count = times.count("N") if "N" in times else total
        if not count:
            continue
        counted = slots_of(bins, times) if bins.value else None
        known = percentiles_of(times)
        for suffix, q in QUANTILES.items():
            estimate = counted.estimate(q) if counted else from_percentiles(known, q, count)
            if estimate is not None:
                yield f"{word}_{suffix}", estimate
        mean = times.number("mean")
        if mean is not None:
            yield f"{word}_mean", mean_of(mean, times.number("stddev"), count)


def slots_of(bins: Part, times: Part) -> Counted | None:
    """The slots of json+: fio names each by its middle; None when they hold nothing."""
    found = []
    for key in bins.value:
        if not key.isascii() or not key.isdigit() or len(key) > SLOT_DIGITS_MAX:
            raise bins.refusal(key, "names no slot")
        count = bins.count(key)
        if count:
            found.append((int(key), count))
    if not found:
        return None
    middles = np.array([middle for middle, _ in sorted(found)], np.float64)
    widths = np.array([1 << max(middle.bit_length() - SLOT_BITS - 1, 0) for middle, _ in sorted(found)], np.float64)
    lows, highs = middles - widths // 2, middles + (widths - 1) // 2
    greatest = times.number("max")
    if greatest is not None:  # fio's last slot, from 17 s on, has no end; but the greatest value is known by itself.
        highs[-1] = max(greatest, lows[-1])
        middles[-1] = min(middles[-1], highs[-1])
    return Counted(lows, middles, highs, np.array([[count for _, count in sorted(found)]], np.float64))


def percentiles_of(times: Part) -> dict[float, float]:
    """By q, what fio lists: its percentiles, and the least and greatest value."""
    known = {}
    listed = times.part("percentile")
    for key in listed.value:
        value = listed.number(key)
        if re.fullmatch(r"\d{1,3}(\.\d{1,9})?", key) and value is not None and float(key) <= 100:
            known[round(float(key) / 100, 11)] = value
    for q, key in ((0.0, "min"), (1.0, "max")):
        value = times.number(key)
        if value is not None:
            known[q] = value
    return known
