"""Throughput counts what completed within the round and after its warm-up, and nothing else."""

import numpy as np
import pytest

from farwrite.analysis.throughput import (
    completed_per_s,
    cpu_ns_per_write,
    estimated,
    goodput_bytes_per_s,
    per_second,
    with_slices,
)
from farwrite.base.histogram import Histogram
from farwrite.base.reasons import few_rounds
from farwrite.base.units import NS_PER_MS
from make_recording import changed, make_recording

SLICE_NS = 100 * NS_PER_MS


def made_round(within, index=0, response_ms=None, **other):
    """A round of slices of 100 ms, each with so many writes; `response_ms`: of every write, instants not counted."""
    first = make_recording().rounds[0]
    text = Histogram.of(np.zeros(0, np.int64)).encode()
    slices = [
        changed(
            first.slices[0], begin_ns=number * SLICE_NS, duration_ns=SLICE_NS, completed=count, completed_bytes=512 * count,
            within=count if response_ms is None else None, within_bytes=512 * count if response_ms is None else None,
            response=text if response_ms is None else Histogram.of(np.full(count, response_ms * NS_PER_MS, np.int64)).encode(),
        )
        for number, count in enumerate(within)
    ]  # fmt: skip
    return changed(first, index=index, slices=slices, **other)


@pytest.mark.parametrize("dropped", [0, 1, 2, 3])
def test_the_slices_of_the_warm_up_count_neither_their_writes_nor_their_time(dropped):
    item = made_round([900, 500, 100, 140])
    kept = [900, 500, 100, 140][dropped:]
    assert per_second(item, dropped, "within") == pytest.approx(sum(kept) / (0.1 * len(kept)))
    assert per_second(item, dropped, "within_bytes") == pytest.approx(512 * sum(kept) / (0.1 * len(kept)))


@pytest.mark.parametrize(("dropped", "writes"), [(0, 200 + 100 + 50), (1, 100 + 100 + 50), (2, 50 + 50)])
def test_of_older_recordings_what_the_warm_up_completes_later_counts_where_it_completed(dropped, writes):
    """Every write takes half a slice: half of each slice's writes complete in the next, and of the last after the round."""
    item = made_round([200, 100, 100], response_ms=50)
    assert estimated(item, dropped, "within") == pytest.approx(writes, rel=0.01)
    assert estimated(item, dropped, "within_bytes") == pytest.approx(512 * writes, rel=0.01)
    assert per_second(item, dropped, "within") == pytest.approx(writes / (0.1 * (3 - dropped)), rel=0.01)


def test_writes_that_all_complete_after_the_round_are_no_throughput():
    assert estimated(made_round([10, 10], response_ms=1000), 0, "within") == 0


def test_the_mean_is_one_of_rounds_and_keeps_their_indices():
    rounds = [made_round([100, 110], 0), made_round([100, 130], 2), made_round([100, 120], 3)]
    found = completed_per_s(rounds, 1)
    assert found.value == pytest.approx(1200)
    assert found.count == 3
    assert found.without == [pytest.approx(1250), None, pytest.approx(1150), pytest.approx(1200)]
    assert goodput_bytes_per_s(rounds, 1).value == pytest.approx(1200 * 512)


def test_a_round_with_nothing_left_after_its_warm_up_is_none():
    rounds = [made_round([100, 100, 100]), made_round([100, 100], 1), made_round([100], 2)]
    assert with_slices(rounds, 2) == rounds[:1]
    assert with_slices(rounds, 1) == rounds[:2]
    assert completed_per_s([], 0).value is None


@pytest.mark.parametrize(("offered", "behind"), [(None, False), (1200.0, False), (1250.0, False), (1300.0, True)])
def test_an_offered_load_is_kept_up_with_unless_the_whole_interval_lies_below_95_percent(offered, behind):
    rounds = [made_round([count], index) for index, count in enumerate([119, 120, 121])]  # high: 1224.8
    assert bool(completed_per_s(rounds, 0, offered).warnings) is behind


def test_processor_time_needs_writes_and_a_recording_of_it():
    known = made_round([100], completed=100, near_cpu_ns=3000, far_cpu_ns=None)
    assert cpu_ns_per_write([known]).value == 30
    for unknown in (changed(known, near_cpu_ns=None), changed(known, completed=0)):
        assert cpu_ns_per_write([unknown]).value is None
        assert cpu_ns_per_write([unknown, known]).value == 30


def test_processor_time_is_summed_over_all_replicas():
    from make_recording import analysed

    recording, _ = analysed(changes=("run.round=400 ms", "drill.kills=0", "cell.write.other_miles=[20]", "run.rounds=3"))
    item = next(one for one in recording.rounds if one.others)
    known = changed(
        item, completed=10, near_cpu_ns=100, far_cpu_ns=20, others=[changed(other, far_cpu_ns=3) for other in item.others]
    )
    assert cpu_ns_per_write([known]).value == pytest.approx((100 + 20 + 3 * len(item.others)) / 10)
    unknown = changed(known, far_cpu_ns=None, others=[changed(other, far_cpu_ns=None) for other in item.others])
    assert cpu_ns_per_write([unknown]).value == 10


def test_a_slice_without_single_writes_or_without_a_length_counts_as_a_whole_where_it_began():
    """As of another tool's stream."""
    item = made_round([200, 100, 100], response_ms=50)
    empty = Histogram.of(np.zeros(0, np.int64)).encode()
    streams = [changed(part, response=empty) for part in item.slices]
    assert estimated(changed(item, slices=streams), 0, "within") == 400
    assert estimated(changed(item, slices=streams), 1, "within") == 200
    assert estimated(changed(item, slices=streams), 1, "within_bytes") == 512 * 200
    at_once = changed(item, slices=[*item.slices, changed(item.slices[2], begin_ns=3 * SLICE_NS, duration_ns=0, completed=7)])
    assert estimated(at_once, 2, "within") == pytest.approx(50 + 50 + 7, rel=0.01)


def test_one_round_has_no_interval_that_stays_behind():
    found = completed_per_s([made_round([100])], 0, 1e6)
    assert found.high is None and found.warnings == [few_rounds(1)]

