"""What correlated writes are worth, counted by hand."""

import numpy as np

from farwrite.analysis.effective_sample_size import BATCHES_MIN, effective_count
from farwrite.analysis.sample import Sample

LOW, HIGH = 100, 200  # slots


def batch(below, above):
    """Writes of two durations."""
    kept = [(slot, count) for slot, count in ((LOW, below), (HIGH, above)) if count]
    return Sample(np.array([slot for slot, _ in kept], np.int64), np.array([count for _, count in kept], np.int64))


def test_ten_batches_scatter_by_their_sample_variance():
    """Each has 2 or 8 of 10 writes below the median: a variance of 90 / 9, where independent writes have 2.5."""
    batches = [batch(below, 10 - below) for below in [2, 8] * 5]
    assert effective_count(batches, 0.5) == 25  # 100 writes; without Bessel's correction 28.


def test_batches_of_unlike_sizes_are_held_against_their_own_share():
    sizes, below = np.array([5, 15] * 6), np.array([1, 12] * 6)
    batches = [batch(less, size - less) for size, less in zip(sizes, below, strict=True)]
    share = below.sum() / sizes.sum()
    scatter = ((below - share * sizes) ** 2).sum() * 12 / 11
    assert effective_count(batches, 0.5) == round(sizes.sum() ** 2 * share * (1 - share) / scatter)


def test_writes_are_worth_no_more_than_they_are_and_at_least_one():
    assert effective_count([batch(5, 5)] * 10, 0.5) == 100  # Nothing scatters.
    assert effective_count([batch(4, 6), batch(6, 4)] * 5, 0.5) == 100  # They scatter less than independent ones: 225.
    assert effective_count([batch(1000, 0)] * 5 + [batch(0, 1000)] * 5 + [batch(1, 0)], 0.5) >= 1


def test_so_many_batches_are_needed_and_empty_ones_are_none():
    empty = batch(0, 0)
    assert BATCHES_MIN == 10
    assert effective_count([batch(2, 8), batch(8, 2)] * 5, 0.5) is not None
    nine = [batch(2, 8), batch(8, 2)] * 4 + [batch(8, 2)]
    assert effective_count([*nine, batch(8, 2)], 0.5) is not None
    assert effective_count(nine + [empty] * 5, 0.5) is None


def test_where_no_write_lies_beyond_the_quantile_nothing_can_scatter():
    assert effective_count([batch(10, 0)] * 12, 0.5) is None
    assert effective_count([batch(2, 8), batch(8, 2)] * 5, 0.99) is None
    assert effective_count([batch(10, 0)] * 9 + [batch(9, 1)], 0.5) is not None
