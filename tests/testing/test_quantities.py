"""What a budget in a test may be about, number by number: units, quantiles, estimates and the figures of a report."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from farwrite.analysis.result import Estimate
from farwrite.base import reasons
from farwrite.base.errors import UsageError
from farwrite.testing.budget import (
    KIND_OF_FIGURE,
    Quantity,
    asked_quantile,
    check,
    exactly,
    in_unit,
    judge,
    kind_of_limit,
    limit,
    of_report,
    one_figure,
    quantile_of,
    quantity,
    same,
    scaled,
)
from make_figures import at, figure, measured, result_set


def sure(value, spread=0.0, **fields):
    return Estimate(value=value, low=value - spread, high=value + spread, confidence=0.95, count=100, **fields)


@pytest.mark.parametrize(("unit", "kind", "base"), [
    ("s", "time", 1e9), ("ms", "time", 1e6), ("KiB", "size", 1024), ("/s", "frequency", 1), ("MB/s", "bytes a second", 1e6),
    ("miles", "distance", 1), ("km", "distance", 1 / 1.609344), ("", "number", 1), (None, None, 1),
])  # fmt: skip
def test_a_quantity_is_in_the_base_unit_of_its_kind(unit, kind, base):
    found = in_unit(sure(2.0), unit, "x")
    assert found.kind == kind and found.estimate.value == pytest.approx(2 * base)
    if unit:
        assert kind_of_limit("x", f"5 {unit}") == kind and limit("x", f"5 {unit}", kind) == pytest.approx(5 * base)


def test_a_limit_without_a_unit_is_a_number_and_none_is_none():
    assert kind_of_limit("x", 5) == "number" and limit("x", 5, "number") == 5.0 and limit("x", None, "time") is None
    with pytest.raises(UsageError, match='"parsec" is unknown'):
        kind_of_limit("x", "5 parsec")


def test_all_of_an_estimate_is_scaled():
    made = scaled(sure(2.0, 1.0, late_ns=0.5, without=[1.0, None], by_round=[None, 3.0], warnings=[reasons.unsound()]), 10)
    assert (made.value, made.low, made.high, made.late_ns) == (20, 10, 30, 5)
    assert (made.without, made.by_round, made.confidence, made.count) == ([10, None], [None, 30], 0.95, 100)
    assert made.warnings == [reasons.unsound()] and scaled(Estimate(value=None), 10).value is None


@pytest.mark.parametrize(("words", "q"), [
    ("p5", 0.05), ("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("p9999", 0.9999), ("p99.9", 0.999), ("p05", 0.05),
    ("the median", 0.5), (0.25, 0.25),
])  # fmt: skip
def test_a_quantile_is_told_in_percent_or_as_a_share(words, q):
    assert asked_quantile("x", words) == pytest.approx(q)


@pytest.mark.parametrize("words", [0.0, 1.0, -0.1, "p0", "p50 or p99", "", "http2"])
def test_a_quantile_lies_between_0_and_1_and_is_one(words):
    with pytest.raises(UsageError):
        asked_quantile("x", words)
    for q in (1e-9, 1 - 1e-9):
        assert asked_quantile("x", q) == q


def test_a_quantile_of_samples_is_an_order_statistic():
    found = quantile_of(list(range(1000, 0, -1)), 0.9)
    assert (found.value, found.count) == (900, 1000) and found.low < 900 < found.high and found.confidence >= 0.95
    assert quantile_of([1.0, float("nan")] * 9, 0.5).count == 18 and quantile_of([], 0.5).count == 0


def test_a_number_is_exact_and_no_number_is_unknown():
    made = exactly(7.0)
    assert (made.value, made.low, made.high, made.confidence, made.count) == (7.0, 7.0, 7.0, 1.0, 1)
    assert exactly(float("nan")).value is None
    # Counted: equal to its limit it keeps it; measured, the same numbers leave no room for doubt either.
    assert judge(Quantity(made), at_most=7.0)[0] == judge(Quantity(made), at_least=7.0)[0] == "pass"
    assert judge(Quantity(made), at_most=6.9)[0] == "fail"
    for unknown in (sure(7.0, 1.0), Estimate(value=None)):
        assert judge(Quantity(unknown), at_most=7.5)[0] == "unknown"
    wide = Estimate(value=7.0, low=7.0, high=8.0, count=1)
    assert judge(Quantity(wide), at_most=7.5)[0] == "unknown"
    assert judge(Quantity(Estimate(value=7.0, low=7.0, high=7.0, confidence=0.9)), at_most=7.0)[0] == "pass"


def test_what_is_compared_as_a_ratio_is_times_sizes_and_rates():
    skewed = [1.0, 1.0, 1.0, 4.0]
    without = [(sum(skewed) - one) / 3 for one in skewed]
    made = Estimate(value=1.75, low=1.7, high=1.8, confidence=0.95, without=without)
    kinds = {"time": "unknown", "size": "unknown", "frequency": "unknown", "number": "pass", "distance": "pass"}
    for kind, verdict in kinds.items():
        assert judge(Quantity(made, kind), at_most=5.5)[0] == judge(Quantity(made), at_most=5.5, kind=kind)[0] == verdict


def test_why_a_judgement_is_unknown_is_told():
    assert judge(Quantity(sure(7.0, 1.0)), at_most=7.5)[1] == str(reasons.limit_inside())
    assert judge(Quantity(sure(7.0)), at_most=9.0)[1] == ""


def test_what_may_be_handed_over():
    assert quantity("p50", sure(2.0), None, "ms", None).estimate.value == 2e6
    survey = SimpleNamespace(rtt_ns=1, quantile=lambda q: sure(q))
    assert quantity("p99", survey, None, None, None) == Quantity(sure(0.99), "time")
    assert quantity("x", 3, None, "s", None).estimate.value == quantity("x", np.float64(3), None, "s", None).estimate.value == 3e9
    assert quantity("x", np.array(3), None, "s", None).estimate.value == 3e9
    samples = quantity("p50", iter([1, 2, 3, 4, 5, 6]), None, "ms", None)
    assert (samples.estimate.value, samples.kind) == (3e6, "time")
    for thing in ([1, 2], object(), ["a"]):
        with pytest.raises(UsageError):
            quantity("p50", thing, None, None, None)


def benchmark(data=(), iterations=1, disabled=False, measured=True):
    stats = SimpleNamespace(iterations=iterations, stats=SimpleNamespace(data=list(data))) if measured else None
    return SimpleNamespace(pedantic=None, stats=stats, disabled=disabled)


def test_a_benchmark_is_a_quantile_of_its_rounds_in_seconds():
    data = [0.001 * place for place in range(1, 1001)]
    found = quantity("p50", benchmark(data), None, None, None)
    assert found.estimate.value == pytest.approx(0.5e9) and found.kind == "time"
    assert quantity("p50", benchmark(data, 7), None, None, None).estimate.value == pytest.approx(0.5e9)
    tail = quantity("p99", benchmark(data, 7), None, None, None).estimate
    assert tail.value is None and tail.count == 1000 and "mean over 7 calls" in str(tail.warnings[0])
    assert quantity("p99", benchmark(data, 1), None, None, None).estimate.value == pytest.approx(0.99e9)
    assert check("p99", benchmark(measured=False, disabled=True), at_most="1 s").verdict == "skipped"
    with pytest.raises(UsageError, match="measured nothing yet"):
        check("p99", benchmark(measured=False), at_most="1 s")


def test_a_figure_of_a_report_is_the_only_one_that_fits():
    sheet = result_set(*(measured("response_p50", [1e6] * 4, at(miles)) for miles in (20, 60)), figure("lost_writes", 0.0))
    assert one_figure("response p50", sheet, {"miles": 20}) is sheet.figures[0]
    assert one_figure("x", sheet, {"metric": "lost_writes"}) is sheet.figures[2]
    for name, where, said in (("response_p50", {}, "2 figures"), ("response_p50", {"miles": 21}, "no figure of response_p50"),
                              ("response_p50", {"site": 1}, 'no label "site"'), ("response_p5", {}, "no metric")):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            one_figure(name, sheet, where)
    found = of_report("response_p50", sheet, {"miles": 60})
    assert (found.figure, found.kind, found.instead, found.interrupted) == (sheet.figures[1], "time", None, False)
    assert of_report("response_p50", msgspec.structs.replace(sheet, interrupted=True), {"miles": 60}).interrupted
    alone = of_report("x", sheet.figures[2], {})
    assert (alone.figure, alone.kind) == (sheet.figures[2], KIND_OF_FIGURE["count"])
    half = msgspec.structs.replace(sheet, interrupted=True)
    assert check("response_p50", half, at_most="9 s", where={"miles": 20}).verdict == "unknown"
    assert check("response_p50", sheet, at_most="9 s", where={"miles": 20}).verdict == "pass"


@pytest.mark.parametrize(("has", "wanted", "alike"), [
    (20.0, 20, True), (20.0, 20.00001, True), (20.0, 20.0001, False), ("C", "C", True), ("C", "B", False), (None, 20, False),
    ("20", 20, False), (20, "20", False),
])  # fmt: skip
def test_labels_are_alike_where_their_numbers_nearly_are(has, wanted, alike):
    assert same(has, wanted) == alike


def test_both_limits_are_kept_or_one_is_broken():
    assert check("x", 5, at_most=5, at_least=5).verdict == "pass"
    assert check("x", 5, at_most=4, at_least=1).verdict == check("x", 5, at_most=9, at_least=6).verdict == "fail"
    assert check("x", 5, at_least=4) == ("x", "pass", "x is 5, as promised at least 4.")
    with pytest.raises(UsageError, match="needs a limit"):
        check("x", 5)
