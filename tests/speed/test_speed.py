"""Speed, always as a ratio to something bare that was measured in the same minute; absolute numbers are printed beside it.

`make perf` runs these; `make test` leaves them out. The bounds are generous: they catch a kernel that fell back to objects or a
copy that crept in, on any machine, and no busy neighbour.
"""

import os
import time

import numpy as np
import pytest

from farwrite.base import crc_kernel
from farwrite.base.histogram import Histogram
from farwrite.base.histogram_kernel import SLOTS, record
from farwrite.base.host import libc, reactor
from farwrite.base.host.disk import disk
from farwrite.base.jit import kernel
from farwrite.base.row import rows_of
from farwrite.base.shared_counters import SharedCounters
from farwrite.base.units import NS_PER_S
from farwrite.engine import journal_kernel as log
from farwrite.engine import primary_kernel as primary
from farwrite.engine import record_kernel, resync_kernel
from farwrite.engine.journal_kernel import EXTENT_BYTES_DEFAULT
from farwrite.targets import load_loop_kernel as load
from farwrite.targets import null_kernel, replicated
from farwrite.workload import payload_kernel, plan
from farwrite.workload.plan import Load

MIB = 1 << 20
BLOCK = 4096
PIECES = 4096  # How often a piece of 4 KiB is taken, from memory that a level-2 cache holds.
WARM_BYTES = 64 << 10

pytestmark = pytest.mark.benchmark(min_rounds=5, max_time=0.5, warmup=True, warmup_iterations=1)


def best_s(function, times=7):
    """The least of a few timings: what a busy machine cannot make smaller."""
    taken = []
    for _ in range(times + 1):
        begin = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begin)
    return min(taken[1:])


def measure(benchmark, function, floor):
    """(seconds of `function`, seconds of `floor`), the floor once before and once after."""
    before = best_s(floor)
    benchmark(function)
    return benchmark.stats.stats.min, min(before, best_s(floor))


@pytest.fixture
def say(benchmark, request, said):
    """Keeps absolute numbers for the benchmark's JSON and for the end of the session."""

    def keep(**numbers):
        benchmark.extra_info.update({name: round(value, 2) for name, value in numbers.items()})
        said[request.node.name] = numbers

    return keep


# Kernels that only repeat what is measured


@kernel()
def look_at_the_clock(count):
    last = np.int64(0)
    for _ in range(count):
        last = libc.monotonic_ns()
    return last


@kernel()
def record_all(counts, values):
    for index in range(values.size):
        record(counts, values[index])


@kernel()
def count_all(counts, values):
    for index in range(values.size):
        counts[values[index] & 16383] += 1


@kernel()
def checksum_all(data, pieces):
    crc = np.int64(0)
    for piece in range(pieces):
        start = np.int64(piece * BLOCK % WARM_BYTES)
        crc ^= crc_kernel.crc32c(np.int64(0), data, start, start + BLOCK)
    return crc


@kernel()
def fill_all(data, pieces):
    for piece in range(pieces):
        payload_kernel.fill(
            data, np.int64(piece * BLOCK % WARM_BYTES), np.int64(BLOCK), np.int64(7), np.int64(piece), np.int64(0)
        )


@kernel()
def write_all(journal_fd, volume_fd, data, record_bytes, count):
    """What the engine cannot do without: a record into the journal's file, a block into the volume's."""
    for number in range(count):
        libc.pwrite(journal_fd, data, np.int64(0), np.int64(record_bytes), np.int64(number * record_bytes % (8 << 20)))
        libc.pwrite(volume_fd, data, np.int64(0), np.int64(BLOCK), np.int64(number * BLOCK % (8 << 20)))


# Measurements


def test_a_look_at_the_clock_costs_less_than_one_from_python(benchmark, say):
    count = 100_000
    took_s, python_s = measure(benchmark, lambda: look_at_the_clock(count), lambda: [time.monotonic_ns() for _ in range(count)])
    say(clock_ns=took_s / count * 1e9, python_clock_ns=python_s / count * 1e9)
    assert took_s < 1.5 * python_s


def test_a_plan_is_drawn_nearly_as_fast_as_its_random_numbers(benchmark, say):
    count, dice = 262_144, np.random.default_rng(1)
    asked = Load(volume_bytes=1 << 30, arrival="poisson", rate_per_s=1e5)

    def bare():
        np.cumsum(dice.exponential(1e4, count)).astype(np.int64), dice.integers(0, 1 << 18, count) * BLOCK

    took_s, numpy_s = measure(benchmark, lambda: plan.draw(asked, 1, count), bare)
    say(million_writes_per_s=count / took_s / 1e6, numpy_million_per_s=count / numpy_s / 1e6)
    assert took_s < 5 * numpy_s


@pytest.mark.parametrize("spread", ["alike", "anywhere"])
def test_a_value_is_recorded_nearly_as_fast_as_a_counter_is_counted(benchmark, say, spread):
    dice, count = np.random.default_rng(1), 100_000
    values = dice.normal(1e6, 5e4, count) if spread == "alike" else 2 ** dice.uniform(0, 40, count)
    values = values.astype(np.int64)
    counts, bare = np.zeros(SLOTS, np.int64), np.zeros(SLOTS, np.int64)
    took_s, floor_s = measure(benchmark, lambda: record_all(counts, values), lambda: count_all(bare, values))
    assert Histogram(counts).count % count == 0
    say(record_ns=took_s / count * 1e9, count_ns=floor_s / count * 1e9)
    assert took_s < 20 * floor_s


def copying():
    """A copy of as many pieces, by numpy."""
    source, target = np.ones(WARM_BYTES, np.uint8), np.zeros(WARM_BYTES, np.uint8)

    def copy():
        for _ in range(PIECES * BLOCK // WARM_BYTES):
            target[:] = source

    return copy


def test_a_checksum_is_within_reach_of_a_copy(benchmark, say):
    data = libc.aligned_bytes(WARM_BYTES)
    data[:] = np.arange(WARM_BYTES) % 251
    took_s, copy_s = measure(benchmark, lambda: checksum_all(data, PIECES), copying())
    total = PIECES * BLOCK / 1e9
    say(crc_gb_per_s=total / took_s, copy_gb_per_s=total / copy_s)
    assert took_s < (15 if crc_kernel.INSTRUCTIONS else 100) * copy_s


def test_a_payload_is_made_within_reach_of_a_copy(benchmark, say):
    data = libc.aligned_bytes(WARM_BYTES)
    took_s, copy_s = measure(benchmark, lambda: fill_all(data, PIECES), copying())
    total = PIECES * BLOCK / 1e9
    say(fill_gb_per_s=total / took_s, copy_gb_per_s=total / copy_s)
    assert took_s < (40 if crc_kernel.INSTRUCTIONS else 150) * copy_s


@pytest.mark.parametrize("queue_depth", [1, 32])
def test_the_loop_itself_costs_a_few_looks_at_the_clock(benchmark, say, queue_depth):
    count = 100_000
    asked = Load(volume_bytes=MIB, queue_depth=queue_depth)
    drawn = plan.draw(asked, 1, count)
    history = np.zeros(1 << 16, np.int64)

    def drive():
        recorder = replicated.recorder_of(10)
        load.drive(
            drawn, replicated.jobs_of(asked, np.array([0, count]), queue_depth), 60 * NS_PER_S, NS_PER_S, 20_000,
            null_kernel.null_target(), replicated.flight_of(queue_depth), recorder, rows_of(SharedCounters), history,
            np.zeros(0, np.int64),
        )  # fmt: skip
        assert recorder.at[0].completed == count

    took_s, clock_s = measure(benchmark, drive, lambda: look_at_the_clock(count))
    say(thousand_writes_per_s=count / took_s / 1e3, ns_per_write=took_s / count * 1e9, clock_ns=clock_s / count * 1e9)
    assert took_s < 25 * clock_s


@pytest.mark.parametrize("queue_depth", [1, 32])
def test_the_engine_costs_little_more_than_the_bare_writes_it_makes(benchmark, say, queue_depth):
    count = 4000
    # One write at a time is flushed alone, in whole blocks; many share a batch.
    record_bytes = 2 * BLOCK if queue_depth == 1 else BLOCK + record_kernel.HEADER_BYTES
    order = replicated.Order(
        protocol="local", volume=5, epoch=1, seed=1, load=Load(volume_bytes=16 * MIB, queue_depth=queue_depth),
        write_count_max=count, queue_depth=queue_depth, duration_ns=60 * NS_PER_S,
        slice_ns=6 * NS_PER_S, slice_count=10, peer_timeout_ns=NS_PER_S, reactor="plain",
    )  # fmt: skip
    taken_ns = []
    with disk(None, 24 * MIB, 16 * MIB) as memory:

        def drive():
            board, history = rows_of(SharedCounters), np.zeros(1 << 16, np.int64)
            at = replicated.write_side(order, memory, [], board, history).recorder.at[0]
            assert at.completed == count
            taken_ns.append(int(at.last_completion_ns - at.begin_ns))

        journal_fd, volume_fd = os.memfd_create("journal"), os.memfd_create("volume")
        data = libc.aligned_bytes(2 * BLOCK)
        try:
            _, bare_s = measure(benchmark, drive, lambda: write_all(journal_fd, volume_fd, data, record_bytes, count))
        finally:
            os.close(journal_fd)
            os.close(volume_fd)
    took_s = min(taken_ns) / 1e9  # The round alone: the journal is formatted and the plan drawn outside of it.
    say(us_per_write=took_s / count * 1e6, bare_us_per_write=bare_s / count * 1e6, times_bare=took_s / bare_s)
    assert took_s < 10 * bare_s


def test_a_turn_of_a_resync_takes_no_longer_on_a_volume_of_a_tebibyte(benchmark, say):
    """Its first two turns, with nothing to send: 2^24 extents against three times as many as one turn looks at."""
    turns = {}
    with disk(None, 24 * MIB, MIB) as memory:

        def turns_of(extents):
            size = extents * EXTENT_BYTES_DEFAULT
            journal = log.journal_state(16 * MIB, 8 * MIB, 5, 1, memory.journal_fd, memory.volume_fd, size)
            log.begin_at(journal, 0, 9)
            journal.at[0].known_since = 0
            made = primary.primary_state(journal, reactor.empty(), [], primary.C, 1, NS_PER_S, peer_count=1, volume_bytes=size)

            def begin():
                resync_kernel.begin_resync(made, 0, 5, primary.BY_EXTENTS, 1)
                assert resync_kernel.resync(made, 0, 1) == 0

            def all_of_it():
                begin()
                count = 1
                while made.peer[0].cursor < extents:
                    resync_kernel.resync(made, 0, 1)
                    count += 1
                turns[extents] = count

            return begin, all_of_it

        (large, whole), (small, _) = turns_of((1 << 40) // EXTENT_BYTES_DEFAULT), turns_of(3 * resync_kernel.EXTENTS_PER_TURN)
        taken_s, floor_s = measure(benchmark, large, small)
        whole_s = best_s(whole, 2)
    say(us_per_turn=taken_s / 2 * 1e6, floor_us=floor_s / 2 * 1e6, ms_for_all_extents=whole_s * 1e3, turns=max(turns.values()))
    assert taken_s < 8 * floor_s
