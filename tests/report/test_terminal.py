"""The terminal report: everything is there, nothing is wider than the console, nothing rests on colour."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from functools import cache

import msgspec
import pytest
from rich.console import Console

from farwrite.analysis.result import Analysis, CellResult, Claim, DrillResult, Estimate, Fit, GreatestMiles
from farwrite.base import physics
from farwrite.base.reasons import needs
from farwrite.recording import LabFacts, Recording, Report
from farwrite.report.digits import UNKNOWN, Digits, grouped
from farwrite.report.terminal import show
from farwrite.workload import profile
from make_figures import as_reasons

MILES = (0.0, 20.0, 60.0, 100.0, 150.0, 186.0)
TRIPS = {"local": 0.0, "A": 0.02, "B": 1.01, "C": 1.03}
LOCAL_NS = {"local": 118_000, "A": 131_000, "B": 290_000, "C": 412_000}
WIDTHS = (80, 100, 140)


def near(value, spread=0.03, count=4000, warnings=()):
    return Estimate(value=value, low=value * (1 - spread), high=value * (1 + spread), confidence=0.952, count=count,
                    warnings=as_reasons(warnings), without=[value * (1 + spread * by) for by in (-0.1, 0.0, 0.1)])  # fmt: skip


def unknown(reason):
    return Estimate(value=None, warnings=as_reasons([reason]))


def cell(protocol, miles, name="write", **changes):
    rtt = 112_000 + physics.rtt_ns_of(miles)
    p50 = LOCAL_NS[protocol] + TRIPS[protocol] * rtt
    floor = 110_000 + (rtt + 90_000 if protocol in "BC" else 0)
    fields = {
        "cell": f"{name}-{protocol}-{miles:g}", "name": name, "protocol": protocol, "miles": miles, "queue_depth": 1,
        "arrival": "closed", "size_bytes": 4096, "rounds_ok": 5, "rounds_void": 0, "rounds_failed": 0,
        "void_reasons": [],
        "asked_rtt_ns": rtt, "rtt_ns_min": near(rtt * 0.99), "rtt_ns_p50": near(rtt * 1.01),
        "rtt_ns_p99": near(rtt * 1.2),
        "warmup_ns": 100_000_000, "steady": True, "response_ns_p50": near(p50),
        "response_ns_p99": near(1.7 * p50, 0.08),
        "response_ns_p999": Estimate(value=None, warnings=[needs("p99.9", 3688, 1204)]), "service_ns_p50": near(p50),
        "wait_ns_p99": near(2_000), "late_ns_p99": near(1_000), "floor_ns": near(floor),
        "floor_text": "RTT echo + far flush, sites alone" if protocol in "BC" else "near flush alone",
        "efficiency": near(floor / p50), "completed_per_s": near(1e9 / p50), "goodput_bytes_per_s": near(4096e9 / p50),
        "offered_per_s": None, "completed": round(5e9 / p50), "unacknowledged": 1,
        "lost": None if protocol == "local" else 0, "damaged": None if protocol == "local" else 0,
        "flushes_per_write": near(1.0), "far_flushes_per_write": near(0 if protocol == "local" else 0.97),
        "wire_bytes_per_user_byte": near(0 if protocol == "local" else 1.0156), "cpu_ns_per_write": near(30_000),
        "lag_ns_p99": near(rtt * 1.4) if protocol == "A" else None,
        "lag_writes_max": 41 if protocol == "A" else None, "lag_bytes_max": 41 * 4096 if protocol == "A" else None,
        "withheld": [],
    }  # fmt: skip
    return CellResult(**{**fields, **changes})


def fits(name="write"):
    return [
        Fit(name=name, protocol=protocol, queue_depth=1, quantile=q, k=near(max(trips, 0.004), 0.02),
            a_ns=near(LOCAL_NS[protocol] * (1 if q == 0.5 else 2)), rtt_ns_low=112_000, rtt_ns_high=3_044_000,
            residual_ns_max=20_000)
        for protocol, trips in TRIPS.items() for q in (0.5, 0.99)
    ]  # fmt: skip


def greatest(name="write"):
    answers = []
    for protocol in "BC":
        for q in (0.5, 0.99):
            for budget in (1e6, 2e6, 5e6, 10e6):
                for factor in (1.0, 1.3, 2.1):
                    miles = physics.miles_of(
                        (budget / (1 if q == 0.5 else 1.7) - LOCAL_NS[protocol]) / 1.03 - 112_000, factor
                    )
                    outside = miles * factor > 186
                    answers.append(GreatestMiles(
                        name=name, protocol=protocol, quantile=q, budget_ns=budget, route_factor=factor,
                        miles=Estimate(value=None, warnings=as_reasons(["beyond it"])) if outside else near(miles, 0.02),
                        outcome="beyond" if outside else "measured", beyond_miles=186 / factor if outside else None))  # fmt: skip
    return answers


def drill(kind, protocol, lost):
    return DrillResult(
        kind=kind, protocol=protocol, miles=150.0, count=20, drills_with_loss=20 if lost else 0,
        loss_probability_high=1.0 if lost else 0.139, lost_writes_max=lost, lost_bytes_max=lost * 4096,
        recovery_point_ns_max=3_100_000.0 if lost else 0.0, completed_during_cut_max=0 if kind == "cut" else None,
        recovery_time_ns_max=431_000_000.0 if kind == "cut" else None)  # fmt: skip


def analysis(cells=None, **changes):
    if cells is None:
        cells = [cell(protocol, miles) for miles in MILES for protocol in TRIPS]
    fields = {
        "version": 1, "cells": cells, "fits": fits(), "miles": greatest(),
        "drills": [drill("kill", "A", 38), drill("kill", "B", 0), drill("kill", "C", 0), drill("cut", "C", 0)],
        "claims": [
            Claim(id="C1", claim="Synchronous replication needs low latency (2 ms), distance up to 20 miles.",
                  verdict="pass", sentence="A protocol C write takes 0.85 ms at 20 miles; 2 ms are spent at 126 miles.",
                  details=["Light in glass needs 0.315 ms for the round trip; the rest is the engine and two disks.",
                           "At a route factor of 2.1 the 2 ms are spent at 60 miles."]),
            Claim(id="C2", claim="Synchronous replication works up to 150 miles, recovery point zero, 100 % available.",
                  verdict="fail", sentence="A cut link stops every write: 150 miles work, 100 % availability does not.",
                  details=["0 of 20 kills lost an acknowledged write: the probability is at most 13.9 %."]),
            Claim(id="C3", claim="Asynchronous replication: any distance, average bandwidth, small recovery point.",
                  verdict="unknown", sentence="The lag did not settle in one of three cells.", details=[]),
        ],
        "base_rtt_ns": near(112_000), "near_flush_ns": near(118_000), "far_flush_ns": near(121_000),
        "near_flush_both_ns": near(160_000), "far_flush_both_ns": near(171_000),
        "warnings": as_reasons(["Both sites share one disk: give each its own with --near and --far to halve the flush."]),
    }  # fmt: skip
    return Analysis(**{**fields, **changes})


def report(durability="disk", interrupted=False, link="ferry"):
    text = """
        title = "How far away can the second copy be?"
        [distance]
        miles = [0, 20, 60, 100, 150, 186]
        [[cell]]
        name = "write"
        protocols = ["local", "A", "B", "C"]
    """
    lab = LabFacts(
        link=link, link_reason="the kernel has no netem (tc: qdisc kind is unknown); the ferry needs only a TUN",
        base_rtt="", delay_ns={}, near_directory="/var/tmp/near", far_directory="/var/tmp/far", near_file_system="ext4",
        far_file_system="ext4", shared_disk=True, durability=durability, direct=True, reactor="io_uring",
        transport={"congestion_control": "cubic"})  # fmt: skip
    recording = Recording(
        farwrite="0.1.0", id="2025-11-22T19-30-00-limits-6f2a", started_utc="2025-11-22T19:30:00Z", duration_s=723.4,
        command=["farwrite", "run", "limits", "--out", "results/runs/a very long name/that goes on and on/report"],
        profile_name="limits", profile=profile.parse(text), profile_digest="0123456789abcdef", seed=7,
        host={"cpu": "Intel(R) Xeon(R) Processor @ 2.10GHz", "cpu_count": 2, "kernel": "6.1.0-18", "virtual": True},
        lab=lab, cells=[], rounds=[], floors=[], drills=[], interrupted=interrupted, notes=[])  # fmt: skip
    return Report(schema_version=1, recording=recording)


def printed(width=80, found=None, of=None, full=True, **console):
    file = io.StringIO()
    show(of or report(), found or analysis(), Console(file=file, width=width, **console), full=full)
    return file.getvalue()


@cache
def usual(width=80, *variant, **options):
    """What is printed of the usual analysis, in a report of these options."""
    return printed(width, of=report(*variant, **options))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("durability", ["disk", "memory"])
def test_no_line_is_wider_than_the_console(width, durability):
    lines = usual(width, durability, interrupted=True).splitlines()
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_median_and_every_distance_is_printed_beside_its_protocol(width):
    text = usual(width)
    section = text[text.index("Write latency") : text.index("Median write latency")]
    miles = None
    rows = {}
    for line in section.splitlines():
        match = re.match(r"\s*(\d+)?\s+(local|A|B|C)\s+(\d+\.\d+)", line)
        if match:
            miles = match[1] or miles
            rows[f"write-{match[2]}-{miles}"] = match[3]
    for c in analysis().cells:
        assert rows[c.cell] == f"{c.response_ns_p50.value / 1e6:.3f}"


@pytest.mark.parametrize("width", WIDTHS)
def test_an_unknown_estimate_says_why(width):
    cells = [cell("C", 20.0, response_ns_p99=unknown("the far clock stood still")), cell("C", 60.0)]
    text = printed(width, analysis(cells))
    assert "the far clock stood still" in text
    assert "n≥3 688" in text


def test_a_withheld_cell_keeps_its_numbers_and_says_why():
    text = printed(80, analysis([cell("C", 20.0, withheld=as_reasons(["the generator was late"])), cell("B", 20.0)]))
    assert "No verdict rests on it: the generator was late" in text
    assert f"{cell('C', 20.0).response_ns_p50.value / 1e6:.3f}" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_in_memory_says_so_in_every_section(width):
    text = " ".join(usual(width, "memory").split())
    for heading in headings(usual(width)):
        assert re.search(re.escape(heading) + r"[^()]*\(journals in memory", text), heading
    assert "journals in memory" not in usual(width)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_of_a_link_of_streams_says_so_in_every_section(width):
    text = " ".join(usual(width, link="relay").split())
    for heading in headings(usual(width)):
        assert re.search(re.escape(heading) + r"[^()]*\(stream-level", text), heading
    assert "stream-level" not in usual(width)


def headings(text):
    return [line for line, before in zip(text.splitlines()[1:], text.splitlines(), strict=False)
            if not before and line and not line.startswith(" ")]  # fmt: skip


def test_no_colour_means_no_escape_codes(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(80, force_terminal=True, color_system=None)
    assert "\x1b" not in text
    assert "\x1b" not in printed(80)  # not a terminal
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b" in printed(80, force_terminal=True, color_system="truecolor")


def test_verdicts_are_words_and_not_only_colours():
    text = usual()
    assert re.search(r"✔ PASS +C1", text)
    assert re.search(r"✘ FAIL +C2", text)
    assert re.search(r"\? UNKNOWN +C3", text)
    for claim in analysis().claims:
        assert claim.sentence.split(":")[0][:40] in text


def test_an_interrupted_run_is_marked():
    assert "INTERRUPTED" in usual(80, interrupted=True)
    assert "INTERRUPTED" not in usual()


def test_a_run_without_cells_says_that_there_is_nothing_to_rule_on():
    reason = unknown("nothing was measured")
    empty = analysis([], fits=[], miles=[], drills=[], claims=[], warnings=[], base_rtt_ns=reason, near_flush_ns=reason,
                     far_flush_ns=reason, near_flush_both_ns=reason, far_flush_both_ns=reason)  # fmt: skip
    text = printed(80, empty)
    assert "No cell was measured" in text
    assert "seed 7" in text


@pytest.mark.parametrize("cells", [
    [cell("C", 20.0)],
    [cell("C", 0.0, response_ns_p50=near(0.0), floor_ns=unknown("no flush was measured"))],
    [cell("C", 20.0, response_ns_p50=unknown("no round was good"))],
    [cell("A", miles / 10) for miles in range(100)],
])  # fmt: skip
def test_few_or_many_points_do_not_break_the_picture(cells):
    for width in (60, 140):
        text = printed(width, analysis(cells, fits=[], miles=[], drills=[]))
        assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_the_picture_marks_every_protocol_with_its_letter(width):
    text = usual(width)
    picture = text[text.index("Median write latency") : text.index("Distance fit")]
    canvas = "\n".join(line for line in picture.splitlines() if "│" in line or "┤" in line)
    for letter in "lABC":
        assert canvas.count(letter) == len(MILES)


def test_a_link_that_was_never_right_is_a_failure_with_its_reason():
    cells = [cell("C", 20.0, rounds_ok=0, rounds_void=5, void_reasons=as_reasons(["delivered 3.1 ms instead of 0.4 ms"]))]
    text = printed(80, analysis(cells))
    assert "0/5/0   ✘ FAIL" in text
    assert "delivered 3.1 ms instead of 0.4 ms" in text


def test_numbers_of_a_column_share_their_places_and_none_is_finer_than_its_interval():
    assert Digits.of([near(0.412e6), near(12.3e6)], 1e6).number(12.3e6) == "12.300"
    assert Digits.of([near(0.412e6, 0.5), near(12.3e6, 0.5)], 1e6).number(0.412e6) == "0.41"
    assert Digits.of([near(0.002)], places_max=3).number(0.002) == "0.002"
    assert Digits.of([unknown("why")]).number(None) == UNKNOWN
    assert grouped(12345.6, 1) == "12 345.6"
    assert grouped(-0.001, 1) == "0.0"


def test_a_bracket_in_a_name_is_a_bracket():
    cells = [cell("C", 20.0, name="[red]mix[/red]")]
    assert printed(80, analysis(cells, fits=fits("[red]mix[/red]"), miles=[])).count("[red]mix[/red]") >= 3


def test_greatest_miles_beyond_the_measured_distances_are_no_number_but_a_bound():
    text = usual()
    assert "> 186" in text and "> 143" in text and "> 186 mi" in text
    for limit in physics.PRODUCT_LIMITS:
        assert limit.name.split(",")[0] in text


def test_writes_lost_under_c_are_shouted_and_under_a_expected():
    text = printed(80, analysis(drills=[drill("kill", "A", 38), drill("kill", "C", 2)]))
    assert "✘ LOST" in text
    assert "lost, as A may" in text


def test_the_report_package_is_cheap_to_import():
    code = (
        "import sys, farwrite.report, farwrite.report.terminal; print({'numba', 'scipy', 'plotext'} & set(sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )


def test_an_analysis_read_back_from_its_file_prints_the_same():
    found = analysis()
    again = msgspec.json.decode(msgspec.json.encode(found), type=Analysis)
    assert printed(80, found) == printed(80, again)


@pytest.mark.parametrize("width", WIDTHS)
def test_long_numbers_and_many_workloads_still_fit(width):
    cells = [
        cell(p, miles, name, size_bytes=size, queue_depth=depth, arrival=arrival, offered_per_s=offered,
             response_ns_p50=near(31_000_000, 0.004), response_ns_p99=near(123_456_789, 0.2),
             response_ns_p999=near(1.2e9), completed_per_s=near(123_456), goodput_bytes_per_s=near(1.2e9),
             steady=False, completed=123_456_789)
        for name, size, depth, arrival, offered in (("a rather long name", 4096, 64, "closed", None),
                                                    ("trace", 65_536, 128, "poisson", 12_345.0))
        for miles in (0.0, 6_000.0) for p in TRIPS
    ]  # fmt: skip
    text = printed(width, analysis(cells, fits=[*fits("a rather long name"), *fits("trace")]))
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert text.count("Write latency") == 2
    assert "12 345 writes/s offered" in text
    assert "No steady state" in text


def test_a_fitted_value_without_an_interval_carries_no_verdict_on_a_products_limit():
    text = printed(100, analysis([cell("C", miles) for miles in (20.0, 60.0, 100.0)]))
    rows = {name: next(line for line in text.splitlines() if line.startswith(name)) for name in ("60 miles: ", "125 miles: ")}
    assert "✔ within 5 ms" in rows["60 miles: "]
    assert "? UNKNOWN" in rows["125 miles: "] and "By the fit and beyond what was measured" not in rows["125 miles: "]
    assert "By the fit, not measured at this distance." in text


@pytest.mark.parametrize(("off_ns", "holds"), [(249_000, "✔ within 5 ms"), (251_000, "? UNKNOWN")])
def test_a_products_limit_is_not_judged_over_a_link_that_is_off_by_more_than_5_percent_of_it(off_ns, holds):
    there = cell("C", 60.0)
    there = msgspec.structs.replace(there, rtt_ns_p50=near(there.asked_rtt_ns + off_ns))
    text = printed(100, analysis([there]))
    row = next(line for line in text.splitlines() if line.startswith("60 miles: "))
    assert holds in row
    assert ("No verdict rests on it: the link's error of 0.251 ms" in text.replace("\n", " ")) == (off_ns > 250_000)
