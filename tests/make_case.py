"""Made-up recordings of cases: what a test says of figures that no machine had to produce."""

from farwrite.analysis.case_recording import (
    COPY,
    KIND,
    PLAIN,
    SCHEMA_VERSION,
    SNAPSHOT,
    CaseRecording,
    Copied,
    DatabasePart,
    FaultsPart,
    SteadyCell,
    SteadyPart,
    ThinPart,
    ThinVolume,
    Written,
)
from farwrite.analysis.drill_answer import PhaseAnswer
from farwrite.analysis.drill_servers import Pauses
from farwrite.analysis.result import Estimate
from farwrite.workload import case_profile

MS, MIB = 1_000_000, 1 << 20
MADE = {"link": "ferry", "disk": "disk", "host": {"cpu": "a <processor>", "kernel": "6"}, "seconds": {}}


def recording(name, **changes):
    """A case of this name in which nothing was measured, but for `changes`."""
    words = {
        "schema_version": SCHEMA_VERSION, "kind": KIND, "farwrite": "0", "name": name, "started_utc": "2030-01-01T00:00:00+00:00",
        "command": ["farwrite", "case", name], "case": case_profile.load(name), "quick": False, **MADE, **changes,
    }  # fmt: skip
    return CaseRecording(**words)


def ns(value, spread=0.1, count=1000):
    return Estimate(value=value, low=value * (1 - spread), high=value * (1 + spread), confidence=0.95, count=count)


def steady(p99_ms=1.0, doubts=()):
    cells = [
        SteadyCell(miles=miles, rounds=5, completed=1000, p50=ns(0.3 * MS + more), p99=ns(p99_ms * MS), floor=ns(0.2 * MS),
                   lost=0, doubts=list(doubts)) for miles, more in ((0.0, 0), (0.5, 8_000))
    ]  # fmt: skip
    return SteadyPart(report="steady/report.json", cells=cells)


def faults(lost=0, longest_s=3.0, never=0):
    back = PhaseAnswer(event="cut near - far", kind="fault", time_p50=ns(2.5e9, count=3), time_p95=Estimate(value=None),
                       phases_p50={}, without=0, taken_over=3)  # fmt: skip
    pauses = [Pauses(event="cut near - far", longest_ns=[round(longest_s * 1e9)] * 100, never=never),
              Pauses(event="switch-over near", longest_ns=[500 * MS] * 100, never=0)]  # fmt: skip
    return FaultsPart(report="drill/drill.json", trials=3, counted=3, acked=30_000, lost=lost, damaged=0,
                      loss_probability_high=0.63, bound_ns=250 * MS, events=[back], pauses=pauses)  # fmt: skip


def thin(volumes=4, size=32 * MIB):
    made = [
        ThinVolume(name=f"server{index:03d}", written_bytes=8 * MIB, stored_bytes=[8 * MIB, 8 * MIB], used_bytes=10 * MIB,
                   seconds=1.0) for index in range(volumes)
    ]  # fmt: skip
    return ThinPart(volumes=made, journal_bytes=64 * MIB, nodes=4, capacity_bytes=round(0.75 * volumes * 2 * size), copies=2)


def written(beside, p50_ms, pair=0, **changes):
    words = {"seconds": 8.0, "writes": 2800, "written_bytes": 32 * MIB, "changed_bytes": 24 * MIB, "p50_ns": round(p50_ms * MS),
             "p99_ns": round(4 * p50_ms * MS), "max_ns": 50 * MS, "late_ns_p99": 100_000, "floor_ns_p50": 200_000, "pair": pair,
             "first_second_ns_p50": round(1.2 * p50_ms * MS), "first_second_ns_max": 9 * MS,
             "taken_ns": 3 * MS} | changes  # fmt: skip
    return Written(beside=beside, **words)


def database(pairs=6, slower=1.05, shipped=16 * MIB, falls_behind=False, copies=6):
    periods = [written(PLAIN, 1.0 + 0.01 * pair, pair) for pair in range(pairs)]
    periods += [written(SNAPSHOT, slower * (1.0 + 0.01 * pair), pair) for pair in range(pairs)]
    periods += [written(COPY, 1.1, index) for index in range(copies)]
    first = Copied(is_full=True, seconds=20.0, changed_bytes=0, shipped_bytes=192 * MIB, recovery_point_s=20.0,
                   recovery_point_s_max=None)  # fmt: skip
    more = [
        Copied(is_full=False, seconds=2.0 + 0.1 * index, changed_bytes=shipped, shipped_bytes=shipped, recovery_point_s=2.0,
               recovery_point_s_max=10.0 + 0.1 * index) for index in range(copies)
    ]  # fmt: skip
    return DatabasePart(
        periods=periods, copies=[first, *more], used_before_bytes=100 * MIB, used_after_bytes=100 * MIB + 47_533_000,
        grown_s=100.0, flush_ns_p50=MS, falls_behind=falls_behind,
    )  # fmt: skip
