"""What it costs to read and to pass on what the load recorded."""

import numpy as np
import pytest
from test_speed import best_s, measure

from farwrite.analysis import sample
from farwrite.base import hdr_codec
from farwrite.base.histogram import Histogram

pytestmark = pytest.mark.benchmark(min_rounds=5, max_time=0.5, warmup=True, warmup_iterations=1)

SEVEN = (0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 1.0)


@pytest.fixture
def slice_of_a_round():
    """What a slice of a second looks like: some thousand writes around half a millisecond, and a tail."""
    dice = np.random.default_rng(7)
    return Histogram.of(np.concatenate([dice.normal(500_000, 15_000, 4000), dice.exponential(2e6, 40)]).clip(1).astype(np.int64))


def test_seven_quantiles_cost_little_more_than_a_look_at_all_slots(benchmark, said, request, slice_of_a_round):
    compact = sample.decode(slice_of_a_round.encode())
    took_s, floor_s = measure(benchmark, lambda: compact.quantiles(SEVEN), lambda: slice_of_a_round.counts.sum())
    whole_s = best_s(lambda: slice_of_a_round.quantiles(SEVEN), 200)
    said[request.node.name] = {"seven_us": took_s * 1e6, "of_all_slots_us": whole_s * 1e6, "sum_us": floor_s * 1e6}
    assert took_s < 20 * floor_s


def test_an_encoded_histogram_costs_a_few_looks_at_all_slots(benchmark, said, request, slice_of_a_round):
    counts = slice_of_a_round.counts

    def payload():
        used = slice_of_a_round.used()
        return hdr_codec.payload(used, counts[used])

    took_s, floor_s = measure(benchmark, payload, lambda: np.flatnonzero(counts))
    packed_s = best_s(slice_of_a_round.encode, 200)
    said[request.node.name] = {"payload_us": took_s * 1e6, "packed_us": packed_s * 1e6, "floor_us": floor_s * 1e6}
    assert took_s < 20 * floor_s
