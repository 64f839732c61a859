"""Five steady rounds are found as SNIA defines them, and correlated writes are worth fewer than they are."""

import msgspec
import numpy as np
import pytest

from farwrite.analysis.effective_sample_size import effective_count
from farwrite.analysis.sample import decode
from farwrite.analysis.snia import badness, five_rounds
from farwrite.base.histogram import Histogram
from make_recording import analysed


def found(*values):
    return five_rounds("completed_per_s", range(len(values)), values)


def test_level_rounds_are_steady_from_the_first():
    steady = found(100, 101, 99, 100, 100, 100)
    assert (steady.reached, steady.first_round, steady.last_round) == (True, 0, 4)
    assert steady.excursion == pytest.approx(0.02)


def test_the_first_steady_window_counts():
    steady = found(200, 150, 100, 101, 99, 100, 100, 100)
    assert (steady.reached, steady.first_round, steady.last_round) == (True, 2, 6)


@pytest.mark.parametrize(
    ("values", "reached"),
    [
        ((90, 110, 100, 110, 90), True),  # max - min is 20 % of the average
        ((89, 110.5, 100, 110.5, 90), False),
        ((95, 97.5, 100, 102.5, 105), True),  # the line gains 10 %
        ((94.9, 97.4, 100, 102.6, 105.1), False),
        ((105.1, 102.6, 100, 97.4, 94.9), False),
    ],
)
def test_the_bounds_are_20_and_10_percent(values, reached):
    assert found(*values).reached is reached


def test_where_nothing_is_steady_the_steadiest_window_is_shown():
    wild = found(100, 200, 100, 200, 100, 150, 110, 150)
    assert wild.reached is False and wild.first_round == 1


@pytest.mark.parametrize(("excursion", "slope", "expected"), [(0.3, 0.2, 2.0), (0.3, -0.2, 2.0), (0.5, 0.1, 2.5)])
def test_a_window_is_as_bad_as_the_worse_of_both(excursion, slope, expected):
    made = msgspec.structs.replace(found(1, 1, 1, 1, 1), excursion=excursion, slope=slope)
    assert badness(made) == pytest.approx(expected)


def test_four_rounds_cannot_be_five():
    assert found(1, 1, 1, 1).reached is None


def test_rounds_without_a_number_or_with_nothing_in_them_are_in_no_window():
    for unknown in (np.nan, np.inf):
        found_there = found(100, 100, unknown, 100, 101, 100, 99, 100, 100)
        assert (found_there.reached, found_there.first_round, found_there.last_round) == (True, 3, 7)
    for wild in ((np.nan, 100, 200, 100, 200, 100), (100, 200, 100, 200, 100, np.nan), (np.inf, 100, 200, 100, 200, 100)):
        assert found(*wild).first_round == (0 if np.isnan(wild[-1]) else 1)
    assert found(0, 0, 0, 0, 0).reached is None and found(-1, -1, -1, -1, -1).reached is None
    assert found(0.5, 0.5, 0.5, 0.5, 0.5).reached is True


def test_a_run_that_asks_is_told_and_one_that_does_not_is_not():
    _, analysis = analysed(changes=('run.steady="snia"',))
    assert all(len(cell.five_rounds) == 2 and cell.five_rounds[0].reached is not None for cell in analysis.cells)
    _, analysis = analysed()
    assert not any(cell.five_rounds for cell in analysis.cells)


def batches_of(count, writes, mood, seed=1):
    """Batches of writes, each batch slower or faster as a whole by a factor of that spread."""
    dice = np.random.default_rng(seed)
    values = [dice.lognormal(13, 0.2, writes) * np.exp(mood * dice.normal()) for _ in range(count)]
    return [decode(Histogram.of(part.astype(np.int64)).encode()) for part in values]


@pytest.mark.parametrize("q", [0.5, 0.9])
def test_independent_writes_are_worth_about_themselves(q):
    effective_sample_size = [effective_count(batches_of(30, 200, 0.0, seed), q) for seed in range(20)]
    assert 4000 < np.median(effective_sample_size) <= 6000


def test_writes_that_share_a_mood_are_worth_little_more_than_their_batches():
    effective_sample_size = [effective_count(batches_of(30, 200, 0.5, seed), 0.5) for seed in range(20)]
    assert 20 < np.median(effective_sample_size) < 120


def test_few_batches_say_nothing():
    assert effective_count(batches_of(9, 200, 0.0), 0.5) is None
    assert effective_count([], 0.5) is None
