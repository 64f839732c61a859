"""Replays by themselves, held against the same worked out one draw at a time; and what a self-test says of each budget."""

from __future__ import annotations

import math
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from scipy import stats

from farwrite.analysis.between_runs import ONE_HOUR
from farwrite.analysis.estimate import Draws
from farwrite.analysis.latency import Pool
from farwrite.analysis.sample import MIDDLES_NS, Sample
from farwrite.base import reasons
from farwrite.gate.bootstrap import (
    Dice,
    cpu,
    ends_moved,
    figure_of_replay,
    places,
    quantile_of_parts,
    replay_mean,
    replay_quantile,
)
from farwrite.gate.budget import Budget
from farwrite.gate.budget_verdict import Case, outcomes_of
from farwrite.gate.self_test import LADDER, Replayed, Share, self_test, sight, slowed_to_limit, unseen
from farwrite.progress import Silence
from make_figures import figure

ROUNDS = 3
STILL = Dice(np.array([[0.0, 0.34, 0.99], [0.5, 0.5, 0.5], [0.7, 0.1, 0.4]]), np.zeros((3, ROUNDS)))
MOVED = STILL._replace(moved=np.array([[0.0, 1.0, -1.0], [0.5, -0.5, 0.0], [2.0, 0.0, 1.0]]))


def centre(levels, which, moved):
    """Where a drawn and moved round lies, by the book: Silverman and Young's smoothed bootstrap, its spread as the rounds'."""
    count = len(levels)
    width = count**-0.2
    mean, spread = np.mean(levels), np.std(levels)
    scale = math.sqrt(count / (count - 1) / (1 + width**2))
    return mean + scale * (levels[int(which * count)] - mean + width * spread * moved)


def test_dice_are_those_of_their_seed():
    dice, again, other = Dice.of((1, 2), 4, 3), Dice.of([1, 2], 4, 3), Dice.of((1, 3), 4, 3)
    assert dice.which.shape == dice.moved.shape == (4, 3)
    assert (dice.which == again.which).all() and (dice.moved == again.moved).all() and (dice.which != other.which).any()
    assert ((dice.which >= 0) & (dice.which < 1)).all() and (dice.moved < 0).any()


def test_a_round_is_drawn_by_its_place_and_a_cell_with_fewer_rounds_takes_the_first():
    assert places(STILL, 3).tolist() == [[0, 1, 2], [1, 1, 1], [2, 0, 1]]
    assert places(STILL, 2).tolist() == [[0, 0], [1, 1], [1, 0]]


@pytest.mark.parametrize("dice", [STILL, MOVED], ids=["still", "moved"])
def test_a_mean_is_replayed_with_each_round_left_out_and_each_alone(dice):
    values = [900.0, 1000.0, 1200.0]
    found = replay_mean(np.array(values), dice)
    assert found.shape == (3, 7)
    for replay in range(3):
        drawn = [math.exp(centre(np.log(values), *at)) for at in zip(dice.which[replay], dice.moved[replay], strict=True)]
        assert found[replay, 0] == pytest.approx(np.mean(drawn))
        assert found[replay, 1:4] == pytest.approx([(sum(drawn) - one) / 2 for one in drawn])
        assert found[replay, 4:] == pytest.approx(drawn)
    alone = replay_mean(np.array([5.0]), Dice(STILL.which[:, :1], STILL.moved[:, :1]))
    assert alone == pytest.approx(np.array([[5.0, 0.0, 5.0]] * 3))


@pytest.mark.parametrize("dice", [STILL, MOVED], ids=["still", "moved"])
@pytest.mark.parametrize("q", [0.5, 0.9])
def test_a_quantile_is_replayed_with_each_round_left_out_and_each_alone(dice, q):
    random = np.random.default_rng(3)
    slots = [np.sort(random.integers(5000 + 60 * number, 5040 + 60 * number, 11 + number)) for number in range(ROUNDS)]
    samples = [Sample(*np.unique(some, return_counts=True)) for some in slots]
    found = replay_quantile(Pool("x", range(ROUNDS), samples, Draws(1, ROUNDS)), q, dice)

    def quantile(parts, share):
        values = np.sort(np.concatenate(parts))
        return values[math.ceil(share * len(values) - 1e-9) - 1]

    times_ns = [MIDDLES_NS[some] for some in slots]
    levels = [math.log(quantile([some], 0.5)) for some in times_ns]
    for replay in range(3):
        parts = []
        for which, moved in zip(dice.which[replay], dice.moved[replay], strict=True):
            drawn = int(which * ROUNDS)
            parts.append(times_ns[drawn] * math.exp(centre(levels, which, moved) - levels[drawn]))
        expected = [quantile(parts, q), *(quantile(parts[:out] + parts[out + 1 :], q) for out in range(3)),
                    *(quantile([part], q) for part in parts)]  # fmt: skip
        assert found[replay] == pytest.approx(expected)


def test_the_quantile_of_a_part_left_out_that_is_all_there_is_is_none():
    found = quantile_of_parts([np.array([7.0]), np.array([])], [np.array([2.0]), np.array([])], 0.5)
    assert found[[0, 2, 3]].tolist() == [7.0] * 3 and np.isnan(found[[1, 4]]).all()


def test_processor_time_is_that_of_both_replicas_by_write():
    rounds = [SimpleNamespace(near_cpu_ns=near, far_cpu_ns=far, completed=count)
              for near, far, count in ((100, 50, 10), (None, 30, 10), (20, None, 4))]  # fmt: skip
    assert cpu(rounds).tolist() == [15.0, 3.0, 5.0]


def test_a_figure_of_a_replay_is_its_value_with_each_round_left_out_and_each_alone():
    own = figure("response_p50", 200.0, low=100.0, high=500.0, count=77)
    made = figure_of_replay(own, np.array([400.0, 1.0, math.nan, 3.0, 4.0, 5.0, math.inf])).estimate
    assert (made.value, made.low, made.high, made.count) == (400.0, 200.0, 1000.0, 77)
    assert (made.without, made.by_round) == ([1.0, None, 3.0], [4.0, 5.0, None])
    assert figure_of_replay(own, np.array([math.nan, 1.0, 2.0])).estimate.value is None


def test_an_interval_keeps_its_width_on_the_scale_that_is_compared_on():
    assert ends_moved(figure("response_p50", 200.0, low=100.0, high=500.0), 100.0) == (50.0, 250.0)
    assert ends_moved(figure("k_p50", 2.0, low=1.5, high=4.0), 1.0) == (0.5, 3.0)
    assert ends_moved(figure("response_p50", 0.0, low=-1.0, high=2.0), 5.0) == (4.0, 7.0)  # No ratio to nothing.
    for lacking in ({"low": 1.0}, {"high": 1.0}):
        assert ends_moved(figure("k_p50", 2.0, **lacking), 1.0) == (None, None)
    assert ends_moved(figure("k_p50", None, low=1.0, high=1.0), 1.0) == (None, None)
    assert ends_moved(figure("k_p50", 2.0, low=1.0, high=3.0), None) == (None, None)


# The self-test


@pytest.mark.parametrize(("found", "count"), [(0, 60), (60, 60), (3, 60), (59, 60), (1, 7)])
def test_a_share_has_the_exact_interval_of_clopper_and_pearson(found, count):
    share, known = Share.of(found, count), stats.binomtest(found, count).proportion_ci(0.95, "exact")
    assert (share.ratio, share.low, share.high) == pytest.approx((found / count, known.low, known.high))


def replayed(values, limit, kind="at_most", power=1, base=None, metric="response_p50", share=False):
    """A case whose every replay is `values`, times the slow-down to a power."""
    values = np.asarray(values, float)
    case = Case(Budget(metric=metric, kind=kind, limit=limit, share=share, name="b"), figure(metric, 1.0),
                figure(metric, 1.0) if base is not None else None)  # fmt: skip
    return Replayed(case, lambda slowed: values * slowed**power, None if base is None else np.asarray(base, float))


@pytest.mark.parametrize(("made", "expected"), [
    (replayed([[2.0], [2.0], [9.0]], 3.0), 1.5), (replayed([[2.0]], 1.0), 0.5),
    (replayed([[1000.0]], 800.0, "at_least", -1, metric="throughput"), 1.25),
    (replayed([[2.0]], 3.0, power=0), None), (replayed([[2.0]], 3e9), None),
    (replayed([[2.0], [2.2]], 0.05, "not_worse_by", base=[[2.0], [2.0]], share=True), 1.05 / math.sqrt(1.1)),
    (replayed([[1000.0]], 0.05, "not_worse_by", -1, [[1000.0]], "throughput", True), 1 / 0.95),
    (replayed([[2.0]], 0.1, "not_worse_by", base=[[1.9]], metric="k_p50"), 1.0),
    (replayed([[90.0]], 10.0, "not_worse_by", -1, [[100.0]], "greatest_miles_p50"), 1.0),
])  # fmt: skip
def test_the_slow_down_that_reaches_a_limit_is_found(made, expected):
    assert slowed_to_limit(made) == (None if expected is None else pytest.approx(expected, rel=1e-6))


def test_a_replayed_case_is_of_one_hour_and_not_paired():
    values = np.array([[2.0, 2.0, 2.0, 2.0, 2.0], [3.0, 3.0, 3.0, 3.0, 3.0]])
    made = replayed(values, 0.05, "not_worse_by", base=values + 1, share=True)
    made = made._replace(case=made.case._replace(paired=True))
    first, second = made.at(2.0)
    assert (first.figure.estimate.value, second.figure.estimate.value) == (4.0, 6.0)
    assert (first.base.estimate.value, second.base.estimate.value) == (3.0, 4.0)
    assert not first.paired and first.between is ONE_HOUR
    assert replayed(values, 3.0).at(1.0)[0].base is None


@pytest.mark.parametrize(("made", "said"), [
    (figure("lost_writes", 0.0), "counted, so without noise: it sees a change of one"),
    (figure("response_p50", 1.0, withheld=["the link was off"]), "unknown in this report: the link was off"),
    (figure("response_p50", None, warnings=["too few"]), "unknown in this report: too few"),
    (figure("rtt_p50", 1.0), "a slow-down of writes does not change it"),
], ids=str)  # fmt: skip
def test_what_was_not_replayed_says_why(made, said):
    case = Case(Budget(metric=made.metric, kind="at_most", limit=1.0, name="b", gating=False), made)
    found = unseen(case)
    assert (found.remark, found.replayed, found.gating, found.budget, found.figure) == (said, False, False, "b", made.name)
    noisy = msgspec.structs.replace(figure("rtt_p50", 1.0), host_noise=[reasons.other_programs(0.5, 0.25)])
    beside = [unseen(Case(case.budget, noisy, paired=paired)).remark for paired in (False, True)]
    assert beside[0].startswith("unknown in this report") and beside[1] == "a slow-down of writes does not change it"


def test_what_a_gate_sees_of_a_budget_is_the_least_step_that_nine_of_ten_replays_fail():
    """Ten replays that agree with themselves: each fails as soon as it lies above the limit."""
    values = np.array([[1.0 + 0.01 * number] * 9 for number in range(10)]) * 1e6
    made = replayed(values, 1.2e6)
    alarms = np.array([True] + [False] * 9)
    found = sight(made, alarms, 0.05, 1)
    assert found.smallest_seen == next(step for step in LADDER if 1.01 * (1 + step) > 1.2 * 1.001)
    for step, share in found.power.items():
        cases = made.at(1 + float(step.strip("+%")) / 100)
        assert share == sum(outcomes_of([case], 0.05, 1)[0].verdict == "fail" for case in cases) / 10
    assert (found.false_alarms.found, found.false_alarms.count, found.room) == (1, 10, f"{1.2 / 1.045 - 1:+.0%}")
    assert found.at_limit.found == 5 and found.at_limit.count == 10  # The upper half lies above it.
    beyond = sight(replayed(values, 1e12), alarms, 0.05, 1)
    assert (beyond.smallest_seen, beyond.room, beyond.at_limit) == (None, "", None) and set(beyond.power.values()) == {0.0}


MADE: list = []  # Worlds, as they were asked for.


class Pretend:
    """A world whose replays are given."""

    def __init__(self, recording, seed, replays):
        MADE.append((recording, seed, replays))
        self.recording = recording

    def replay(self, asked):
        values = np.array([[1.0 + 0.1 * number] * 9 for number in range(10)]) * 1e6
        return None if asked.metric == "rtt_p50" else lambda slowed: values * slowed * (2 if self.recording == "base" else 1)


def test_a_self_test_counts_the_replays_in_which_any_gating_budget_fails(monkeypatch):
    monkeypatch.setattr("farwrite.gate.self_test.World", Pretend)
    MADE.clear()

    def case(limit, gating=True, metric="response_p50", base=None):
        budget = Budget(metric=metric, kind="at_most" if base is None else "not_worse_by", limit=limit, name="b", gating=gating,
                        share=base is not None)  # fmt: skip
        return Case(budget, figure(metric, 1e6), base)

    cases = [case(1.75e6), case(1.85e6), case(1.05e6, gating=False), case(1.0, metric="rtt_p50")]
    found = self_test("ours", None, cases, 0.05, 1, Silence(), 10)
    assert MADE == [("ours", 1, 10), ("ours", 2, 10)]
    assert (found.false_alarms.found, found.false_alarms.count, found.replays, found.alpha, found.looks) == (2, 10, 10, 0.05, 1)
    assert [item.replayed for item in found.sights] == [True, True, True, False]
    assert [item.false_alarms.found for item in found.sights[:3]] == [2, 1, 9]
    MADE.clear()
    held = self_test("ours", "base", [case(0.05, base=figure("response_p50", 1e6))], 0.05, 1, Silence(), 10)
    assert MADE == [("ours", 1, 10), ("base", 2, 10)]
    assert held.false_alarms.found == 0 and held.sights[0].room == "+110%"  # The base is twice as slow.
    reported = self_test("ours", None, [case(1.05e6, gating=False)], 0.05, 1, Silence(), 10)
    assert reported.false_alarms.found == 0 and reported.sights[0].false_alarms.found == 9


def test_each_family_shares_alpha_among_those_of_it_that_are_replayed(monkeypatch):
    monkeypatch.setattr("farwrite.gate.self_test.World", Pretend)
    levels = []

    def seen(item, alarms, level, looks):
        levels.append(level)
        return unseen(item.case)

    monkeypatch.setattr("farwrite.gate.self_test.sight", seen)
    figures = [figure("response_p50", 1e6)] * 3 + [figure("response_p50", 1e6, withheld=["late"]), figure("response_p50", None),
                                                   figure("lost_writes", 0.0), figure("rtt_p50", 1.0)]  # fmt: skip
    cases = [Case(Budget(metric=one.metric, kind="at_most", limit=2e6, name="b", gating=place != 2), one)
             for place, one in enumerate(figures)]  # fmt: skip
    found = self_test("ours", None, cases, 0.05, 1, Silence(), 10)
    assert levels == [0.025, 0.025, 0.05] and len(found.sights) == 7
