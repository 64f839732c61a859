"""A cell's quantiles: the text of a histogram read to the same counts, intervals that cover, refusals that say why."""

import base64
import zlib

import numpy as np
import pytest

from farwrite.analysis.estimate import Draws, order_statistic_ranks
from farwrite.analysis.latency import Pool
from farwrite.analysis.sample import Sample, decode, pooled, rank
from farwrite.base.errors import UsageError
from farwrite.base.histogram import SLOTS, Histogram
from farwrite.base.reasons import sentences


def sample_of(values) -> Sample:
    return decode(Histogram.of(np.asarray(values, np.int64)).encode())


def pool_of(rounds, seed=1) -> Pool:
    return Pool("x", range(len(rounds)), [sample_of(values) for values in rounds], Draws(seed, len(rounds)))


@pytest.mark.parametrize("seed", range(20))
def test_a_sample_is_what_the_histogram_says(seed):
    dice = np.random.default_rng(seed)
    values = np.exp(dice.uniform(0, 30, dice.integers(0, 2000))).astype(np.int64)
    histogram = Histogram.of(values)
    sample = decode(histogram.encode())
    assert np.array_equal(np.bincount(sample.slot, sample.counts, len(histogram.counts)), histogram.counts)
    assert (sample.count, sample.saturated) == (histogram.count, histogram.saturated)
    for q in (0.0, 0.07, 0.5, 0.99, 0.999, 1.0):
        if histogram.count:
            assert sample.quantile(q) == histogram.quantile(q)


def test_damaged_text_is_refused_in_words():
    text = Histogram.of(np.arange(100)).encode()
    for wrong in ("", "nonsense", text[: len(text) // 2], text[::-1]):
        with pytest.raises(UsageError, match="histogram"):
            decode(wrong)


def test_pooling_adds_counts():
    parts = [np.arange(5), np.arange(3, 9), np.arange(0)]
    together, expected = pooled(sample_of(part) for part in parts), sample_of(np.concatenate(parts))
    assert np.array_equal(together.slot, expected.slot)
    assert np.array_equal(together.counts, expected.counts)


def test_a_quantile_the_sample_cannot_support_says_how_many_writes_it_needs():
    estimate = pool_of([np.arange(1, 101), np.arange(1, 101), np.arange(1, 101)]).estimate(0.99)
    assert estimate.value is None
    assert estimate.count == 300
    assert sentences(estimate.warnings) == ["p99 needs n >= 368 (n = 300)"]
    assert sentences(pool_of([[], []]).estimate(0.5).warnings) == ["nothing was counted"]


def test_two_rounds_that_differ_have_a_wide_interval_and_no_verdict():
    writes = np.random.default_rng(1).integers(1000, 2000, 500)
    two = pool_of([writes, writes * 102 // 100]).estimate(0.5)
    assert two.low < 1400 and two.high > 1600  # Student's t of two rounds; from the writes alone 1464 to 1590.


def test_few_rounds_are_confessed():
    writes = np.random.default_rng(1).integers(1000, 2000, 500)
    one, two, three = (pool_of([writes] * count).estimate(0.5) for count in (1, 2, 3))
    assert sentences(one.warnings) == ["one round only: no interval over rounds"]
    assert sentences(two.warnings) == ["2 rounds only: no verdict rests on so few"]
    assert three.warnings == []
    assert one.confidence >= 0.95 and three.confidence == pytest.approx(0.95)


def test_a_histogram_that_was_too_short_is_confessed():
    estimate = pool_of([[1000] * 50 + [1 << 41]] * 3).estimate(0.5)
    assert "3 values were 18 minutes or longer" in str(estimate.warnings[0])


@pytest.mark.parametrize("q", [0.5, 0.99])
def test_the_interval_covers_the_true_quantile_when_rounds_do_not_differ(q):
    dice = np.random.default_rng(3)
    true = np.exp(0.2 * {0.5: 0.0, 0.99: 2.3263479}[q]) * 1e6
    covered = 0
    for repetition in range(80):
        rounds = [np.exp(0.2 * dice.standard_normal(400)) * 1e6 for _ in range(5)]
        estimate = pool_of(rounds, repetition).estimate(q)
        covered += estimate.low <= true * 1.001 and true * 0.999 <= estimate.high
    assert covered >= 73  # If it were 95 %, fewer in one of twenty series.


def test_the_interval_covers_the_true_median_when_rounds_differ_much_more_than_writes():
    """What writes alone would get wrong nearly every time."""
    dice = np.random.default_rng(4)
    covered = by_writes = 0
    for repetition in range(80):
        moods = np.exp(0.1 * dice.standard_normal(6))
        rounds = [1e6 * mood * np.exp(0.02 * dice.standard_normal(400)) for mood in moods]
        estimate = pool_of(rounds, repetition).estimate(0.5)
        covered += estimate.low <= 1e6 <= estimate.high
        writes = np.sort(np.concatenate(rounds))
        by_writes += writes[1152] <= 1e6 <= writes[1247]
    assert covered >= 71
    assert by_writes < 48


def test_replicates_agree_with_resampling_every_write():
    """The short cut through Beta and cumulative counts against the plain double bootstrap."""
    dice = np.random.default_rng(6)
    rounds = [np.round(1e5 * mood * np.exp(0.2 * dice.standard_normal(300))) for mood in (0.95, 1.0, 1.03, 1.06)]
    pool = pool_of(rounds)
    plain = []
    for _ in range(4000):
        chosen = np.concatenate([rounds[index] for index in dice.integers(0, 4, 4)])
        plain.append(np.quantile(dice.choice(chosen, chosen.size), 0.5))
    assert np.mean(pool.replicates(0.5)) == pytest.approx(np.mean(plain), rel=0.002)
    assert np.std(pool.replicates(0.5)) == pytest.approx(np.std(plain), rel=0.1)
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert np.quantile(pool.replicates(0.5), level) == pytest.approx(np.quantile(plain, level), rel=0.005)


def test_one_slow_round_hardly_moves_the_median():
    dice = np.random.default_rng(8)
    rounds = [1e6 * np.exp(0.05 * dice.standard_normal(500)) for _ in range(5)]
    calm = pool_of(rounds).estimate(0.5).value
    assert pool_of([*rounds[:4], rounds[4] * 5]).estimate(0.5).value == pytest.approx(calm, rel=0.03)


@pytest.mark.parametrize("q", [0.5, 0.9])
def test_writes_of_rounds_that_are_all_alike_still_scatter(q):
    """Rounds that do not differ leave the noise of their writes: what a quantile of so many values varies by."""
    writes = np.exp(0.2 * np.random.default_rng(9).standard_normal(400)) * 1e6
    pool = pool_of([writes] * 5)
    plain = np.quantile(np.random.default_rng(1).choice(writes, (2000, 2000)), q, axis=1)
    assert np.std(pool.replicates(q)) == pytest.approx(np.std(plain), rel=0.1)
    found = pool.estimate(q)
    assert found.high - found.low > 3.9 * np.std(plain)


def test_an_interval_is_never_narrower_than_that_of_its_writes():
    for seed in range(40):
        dice = np.random.default_rng(seed)
        pool = pool_of([np.exp(0.2 * dice.standard_normal(40)) * 1e6 for _ in range(20)], seed)
        low, high, achieved = order_statistic_ranks(800, 0.5)
        found = pool.estimate(0.5)
        assert found.low <= pool.at(low) and found.high >= pool.at(high)
        assert found.confidence <= achieved


@pytest.mark.parametrize(("count", "q", "place"), [
    (10, 0.0, 1), (10, 0.01, 1), (10, 0.1, 1), (10, 0.11, 2), (100, 0.07, 7), (100, 0.29, 29), (1, 0.5, 1), (2, 0.5, 1),
    (3, 0.5, 2), (1000, 0.999, 999), (1000, 0.9991, 1000), (10, 1.0, 10), (3_000_000, 0.999, 2_997_000),
])  # fmt: skip
def test_a_quantile_is_the_value_of_its_rank(count, q, place):
    assert rank(count, q) == place


def text_of(plain):
    """Any bytes, packed as the text of a histogram is."""
    return base64.b64encode(zlib.compress(plain)).decode()


def varint(number):
    """LEB128."""
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


LAST = SLOTS - 1


@pytest.mark.parametrize("numbers", [
    [], [1, 1], [1, 5, 1, 7], [0, 1], [5, 1, 0, 1], [5, 0], [5], [5, 1, 2], [1, 1, 0, 3], [SLOTS, 9], [SLOTS + 1, 9],
    [LAST, 1, 1, 1], [LAST, 1, 2, 1], [5, 1, 3, 0], [2**40, 1], [300, 70_000, 1, 2**35], [1, 2**62],
])  # fmt: skip
def test_a_sample_reads_and_refuses_what_a_histogram_does(numbers):
    """Against Histogram.decode, number by number: slots by their distance, counts above 0."""
    text = text_of(b"\x01" + b"".join(map(varint, numbers)))
    try:
        expected = Histogram.decode(text)
    except UsageError:
        with pytest.raises(UsageError, match="histogram"):
            decode(text)
        return
    sample = decode(text)
    assert sample.slot.tolist() == np.flatnonzero(expected.counts).tolist()
    assert sample.counts.tolist() == expected.counts[expected.counts > 0].tolist()
    assert sample.count == expected.count and sample.saturated == expected.saturated


@pytest.mark.parametrize("plain", [
    b"", b"\x02", b"\x01\x05", b"\x01\x80", b"\x01\x05\x81", b"\x01" + b"\xff" * 10 + b"\x01\x01", b"\x01\xff\xff\x7f\x01",
    b"\x00", b"\x03\x01\x01",
])  # fmt: skip
def test_a_sample_refuses_bytes_that_are_no_numbers(plain):
    with pytest.raises(UsageError, match="histogram"):
        decode(text_of(plain))


def test_samples_answer_several_quantiles_at_once_and_none_of_nothing():
    some, none = sample_of([1, 2, 2, 3, 9]), sample_of([])
    assert some.quantiles([0.2, 0.5, 0.7, 1.0]) == [some.quantile(q) for q in (0.2, 0.5, 0.7, 1.0)] == [1, 2, 3, 9]
    assert np.isnan(none.quantile(0.5)) and np.isnan(none.quantiles([0.1, 0.5])).all() and len(none.quantiles([0.1, 0.5])) == 2
    assert (none.count, none.saturated, pooled([]).count, pooled([none, none]).count) == (0, 0, 0, 0)
    assert pooled([none, some]) is some
    assert sample_of([5, 1 << 41, 1 << 42]).saturated == 2

