"""The gate tested on itself: replays are what a repeated run would show, and slow-downs are found where they are large enough."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from farwrite.analysis.analyse import analyse
from farwrite.analysis.change import floor_of_splits
from farwrite.compare.figures import result_set_of
from farwrite.gate.bootstrap import Dice, World, centres, places, quantile_of_parts
from farwrite.gate.budget import parse
from farwrite.gate.budget_verdict import Case
from farwrite.gate.self_test import LADDER, self_test
from farwrite.progress import Silence
from farwrite.recording import SCHEMA_VERSION, Report
from make_recording import make_recording

REPLAYS = 60


@cache
def result_set(**truth):
    recording = make_recording(**truth)
    return result_set_of(Report(schema_version=SCHEMA_VERSION, recording=recording), analyse(recording), "made-up")


def figure(metric, protocol="C", miles=150.0, **truth):
    wanted = {"protocol": protocol, "miles": miles} if miles is not None else {"protocol": protocol}
    found = [
        item
        for item in result_set(**truth).figures
        if item.metric == metric and wanted.items() <= item.labels.items() and item.labels.get("route", 1.0) == 1.0
        and item.labels.get("budget", "2 ms") == "2 ms"
    ]  # fmt: skip
    assert len(found) == 1, found
    return found[0]


def world(replays=REPLAYS, seed=1, **truth):
    return World(make_recording(**truth), seed, replays)


# Replays


@pytest.mark.parametrize("seed", range(20))
def test_a_quantile_of_parts_is_the_quantile_of_all_their_values(seed):
    dice = np.random.default_rng(seed)
    parts = [np.sort(dice.integers(1, 40, dice.integers(1, 30))).astype(float) for _ in range(4)]
    split = [np.unique(part, return_counts=True) for part in parts]
    for q in (0.01, 0.5, 0.99):
        found = quantile_of_parts([values for values, _ in split], [counts.astype(float) for _, counts in split], q)
        for place, kept in enumerate([parts, *(parts[:out] + parts[out + 1 :] for out in range(4)), *([part] for part in parts)]):
            together = np.sort(np.concatenate(kept))
            assert found[place] == together[max(int(np.ceil(q * together.size - 1e-9 * together.size)), 1) - 1]


def test_drawn_rounds_keep_the_mean_and_the_spread_of_the_rounds():
    levels = np.array([0.1, -0.4, 0.3, 0.0, 0.25])
    dice = Dice.of((1,), 20_000, 5)
    drawn = centres(levels, places(dice, 5), dice)
    assert drawn.mean() == pytest.approx(levels.mean(), abs=0.01)
    assert drawn.std() == pytest.approx(levels.std(ddof=1), rel=0.03)
    assert np.unique(drawn).size == drawn.size  # No draw is another's twin.


@pytest.mark.parametrize(
    ("metric", "miles", "power"),
    [
        ("response_p50", 150.0, 1), ("response_p99", 20.0, 1), ("throughput", 20.0, -1), ("k_p50", None, 1),
        ("efficiency", 20.0, -1),
    ],
)
def test_a_slow_down_moves_a_figure_by_its_factor(metric, miles, power):
    at = world().replay(figure(metric, miles=miles))
    assert at(1.1) == pytest.approx(at(1.0) * 1.1**power, rel=1e-9)


def test_a_slow_down_takes_miles_away():
    at = world().replay(figure("greatest_miles_p50", miles=None))
    assert (at(1.1)[:, 0] < at(1.0)[:, 0]).all()


@pytest.mark.parametrize("metric", ["response_p50", "response_p99", "throughput"])
def test_replays_scatter_about_the_figure_as_much_as_its_error_says(metric):
    asked = figure(metric, miles=20.0, drift_ratio=0.05)
    values = world(replays=400, drift_ratio=0.05).replay(asked)(1.0)
    left_out = np.log(values[:, 1:6])
    errors = np.sqrt(0.8 * ((left_out - left_out.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))
    assert np.log(values[:, 0]).std() == pytest.approx(np.sqrt((errors**2).mean()), rel=0.25)
    assert np.log(values[:, 0]).mean() == pytest.approx(np.log(asked.estimate.value), abs=0.03)


def test_what_was_counted_or_lies_apart_from_the_writes_is_not_replayed():
    for metric in ("lost_writes", "flushes_per_write", "floor"):
        assert world().replay(figure(metric, miles=20.0)) is None


def test_a_cell_without_a_good_round_is_not_replayed():
    truth = {"always_void": ("write-C-150",)}
    assert world(**truth).replay(figure("response_p50", **truth)) is None


def test_the_same_seed_replays_the_same():
    asked = figure("response_p99")
    assert np.array_equal(world().replay(asked)(1.0), world().replay(asked)(1.0))
    assert not np.array_equal(world().replay(asked)(1.0), world(seed=2).replay(asked)(1.0))


# The self-test


def judged(text, replays=REPLAYS, **truth):
    budgets = parse(text)
    cases = []
    for budget in budgets.budgets:
        for item in result_set(**truth).figures:
            if item.metric == budget.metric and all(item.labels.get(key) in some for key, some in budget.where.items()):
                relative = budget.kind == "not_worse_by"
                cases.append(Case(budget, item, item if relative else None, False, floor_of_splits(item) if relative else None))
    assert cases
    return self_test(make_recording(**truth), None, cases, budgets.alpha, budgets.looks, Silence(), replays)


RELATIVE = """
[[budget]]
metric = "response_p50"
where = { protocol = "C", miles = [20, 60, 150] }
not_worse_by = "5 %"
"""


def test_nothing_changed_is_seldom_failed_and_a_large_slow_down_nearly_always():
    made = judged(RELATIVE)
    assert made.false_alarms.low <= made.alpha
    for item in made.sights:
        assert item.replayed
        assert item.smallest_seen in LADDER and item.smallest_seen > 0.05  # What is allowed cannot be failed.
        assert item.at_limit.low <= made.alpha
        assert float(item.room.strip("+%")) == pytest.approx(5, abs=1)


def test_more_noise_makes_the_gate_see_less():
    quiet, noisy = judged(RELATIVE, drift_ratio=0.005), judged(RELATIVE, drift_ratio=0.2)
    pairs = [(one.smallest_seen, two.smallest_seen or np.inf) for one, two in zip(quiet.sights, noisy.sights, strict=True)]
    assert all(one <= two for one, two in pairs) and any(one < two for one, two in pairs)
    assert quiet.sights and all(item.smallest_seen for item in quiet.sights)


def test_a_limit_far_away_leaves_room():
    made = judged('[[budget]]\nmetric = "response_p50"\nwhere = { protocol = "C", miles = 20 }\nat_most = "6 ms"\n')
    (only,) = made.sights
    assert only.false_alarms.found == 0
    assert only.smallest_seen > 2


def test_what_is_counted_needs_no_replay():
    made = judged('[[budget]]\nmetric = "lost_writes"\nequals = 0\n')
    assert all(not item.replayed and "without noise" in item.remark for item in made.sights)
    assert made.false_alarms.found == 0


def test_a_budget_that_is_only_reported_raises_no_alarm():
    text = RELATIVE.replace('"5 %"', '"0 %"') + "gating = false\n"
    assert judged(text).false_alarms.found == 0
