"""What a search answers: the miles at its budget, nothing where that is spent before the first mile, or why it is unknown."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from farwrite.analysis.reach import around, nothing, reach_of, reasons_of, response_of, spent_before_the_first_mile
from farwrite.analysis.result import Estimate, GreatestMiles
from farwrite.base import reasons
from make_recording import analysed

QUICK = ("run.round=400 ms", "run.survey_echoes=20", "distance.miles=[0, 20, 100, 150]", "drill.kills=3")
MS = 1e6


def known(ms, rounds=5):
    return Estimate(value=ms * MS, low=0.99 * ms * MS, high=1.01 * ms * MS, confidence=0.95, count=77, without=[ms * MS] * rounds)


def a_cell(miles, p50=1.0, p99=2.0, **changes):
    """C at so many miles with these latencies in ms; None: unknown."""
    cell = next(item for item in analysed(changes=QUICK, writes=200)[1].cells if item.cell == "write-C-20")
    none = Estimate(value=None, warnings=[reasons.needs(f"{miles}", 9, 1)])
    p50, p99 = (none if one is None else known(one) for one in (p50, p99))
    link = msgspec.structs.replace(cell.rtt_ns_p50, value=cell.asked_rtt_ns)
    return msgspec.structs.replace(cell, miles=miles, response_ns_p50=p50, response_ns_p99=p99, rtt_ns_p50=link, **changes)


def reached(value=60.0, outcome="measured", factor=1.0, quantile=0.99, budget_ns=2 * MS, warnings=()):
    return GreatestMiles(
        name="write", protocol="C", quantile=quantile, budget_ns=budget_ns, route_factor=factor, outcome=outcome,
        miles=Estimate(value=value, low=value, high=value, warnings=list(warnings)), beyond_miles=None, below_miles=None,
    )  # fmt: skip


def a_run(budget_ns=2 * MS, quantile=0.99, interrupted=False):
    tables = [SimpleNamespace(name="write", protocols=["C", "A"]), SimpleNamespace(name="x", protocols=["B"])]
    profile = SimpleNamespace(reach=SimpleNamespace(budget_ns=budget_ns, quantile=quantile), cell=tables)
    return SimpleNamespace(profile=profile, interrupted=interrupted)


def test_a_run_that_asks_nothing_is_answered_nothing():
    assert reach_of(a_run(budget_ns=0), [], []) is None


def test_the_answer_has_the_miles_at_its_quantile_and_its_budget():
    mine, others = [reached(), reached(30.0, factor=2.1)], [reached(quantile=0.5), reached(budget_ns=1 * MS)]
    found = reach_of(a_run(), [a_cell(20), a_cell(100)], [others[0], *mine, others[1]])
    assert found.miles == mine and found.unknown == [] and found.nothing_ns is None
    assert (found.name, found.protocol, found.quantile, found.budget_ns) == ("write", "C", 0.99, 2 * MS)


def test_a_budget_that_is_spent_at_0_miles_reaches_nothing_and_that_is_known():
    cells = [a_cell(20, withheld=[reasons.unsound()]), a_cell(0, p99=3.0)]
    found = reach_of(a_run(), cells, [reached(None, "below", warnings=[reasons.exceeded_at_nearest(0.0)])])
    assert found.nothing_ns == known(3.0) and found.unknown == []
    miles = found.miles[0].miles
    assert (miles.value, miles.low, miles.high, miles.confidence, miles.count) == (0.0, 0.0, 0.0, 0.95, 77)
    assert miles.warnings == [reasons.spent_at_nothing()] and miles == nothing(known(3.0))
    assert reach_of(a_run(interrupted=True), cells, []).nothing_ns is None


@pytest.mark.parametrize(("cells", "quantile", "spent"), [
    ([a_cell(0, p99=3.0)], 0.99, True), ([a_cell(0, p99=3.0)], 0.5, False), ([a_cell(0, p50=3.0)], 0.5, True),
    ([a_cell(20, p99=3.0)], 0.99, False), ([a_cell(0, p99=1.9)], 0.99, False), ([a_cell(0, p99=2.001)], 0.99, False),
    ([a_cell(0, p99=1.9), a_cell(0, p99=3.0)], 0.99, True), ([a_cell(0, p99=None)], 0.99, False),
], ids=str)  # fmt: skip
def test_only_a_failure_at_0_miles_spends_a_budget(cells, quantile, spent):
    found = spent_before_the_first_mile(cells, quantile, 2 * MS, False)
    assert (found is not None) == spent
    assert not spent or found.value == 3 * MS
    assert spent_before_the_first_mile(cells, quantile, 2 * MS, True) is None  # Half a run refutes no latency.


def test_too_few_distances_say_how_many_there_are_and_why():
    cells = [a_cell(0), a_cell(20, p99=None), a_cell(60, p99=None)]
    found = reasons_of(cells, [reached(factor=2.1)], 0.99)
    assert found == [reasons.few_distances("p99", 1, 3), reasons.needs("20", 9, 1), reasons.needs("60", 9, 1)]
    assert reasons_of(cells, [], 0.5) == [reasons.few_distances("p50", 3, 3)]
    assert response_of(cells[0], 0.99) is cells[0].response_ns_p99 and response_of(cells[0], 0.5) is cells[0].response_ns_p50


def test_an_answer_is_unknown_for_the_reasons_of_its_miles_and_of_the_cells_beside_them():
    doubt, noise = reasons.unsound(), reasons.other_programs(0.5, 0.25)
    cells = [a_cell(miles, withheld=[doubt], host_noise=[noise] if miles == 20 else []) for miles in (0, 20, 150)] + [a_cell(100)]
    assert reasons_of(cells, [reached(60.0)], 0.99) == [reasons.about("at 20 miles", one) for one in (doubt, noise)]
    assert reasons_of(cells, [reached(120.0)], 0.99) == [reasons.about("at 150 miles", doubt)]
    for outcome in ("any", "none"):
        assert reasons_of(cells, [reached(None, outcome, warnings=[doubt])], 0.99) == []
    for outcome, value in (("beyond", None), ("unknown", 60.0), ("measured", None)):
        assert reasons_of(cells, [reached(30.0, factor=2.1), reached(value, outcome, warnings=[noise])], 0.99) == [noise]


def test_cells_beside_a_distance_are_the_nearest_good_ones_on_both_sides():
    cells = [a_cell(miles) for miles in (150, 20, 0, 100)] + [a_cell(30, rounds_ok=0), a_cell(90, rounds_ok=0)]
    for miles, expected in ((60, [20, 100]), (20, [20, 100]), (19.9, [0, 20]), (200, [150]), (-1, [0]), (100, [100, 150])):
        assert [cell.miles for cell in around(cells, miles)] == expected
