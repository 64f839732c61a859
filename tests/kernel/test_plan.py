"""Plans: every column against its oracle, blocks that leave no trace, and loads and traces that are refused."""

import subprocess
import sys

import numpy as np
import pytest

from both_ways import both_ways
from farwrite import plan, plan_kernel, trace
from farwrite.errors import UsageError
from farwrite.plan import Load, draw, from_arrays, replay
from farwrite.plan_kernel import FLUSH, READ, WRITE, Plan
from oracle import plan_oracle

GIB = 1 << 30
MIXED = ((512, 3), (4096, 5), (65536, 0), (5000, 2))

LOADS = [
    Load(GIB),
    Load(GIB, sizes=MIXED, alignment_bytes=512),
    Load(1 << 20, address="sequential", sizes=MIXED),
    Load(GIB, arrival="fixed", rate_per_s=3000.0),
]
DRAWN_LOADS = [
    *LOADS,
    Load(GIB, arrival="poisson", rate_per_s=3000.0, sizes=MIXED),
    Load(GIB, arrival="poisson", rate_per_s=3000.0, address="zipf", zipf_skew=1.0, sizes=MIXED),
    Load(1 << 20, arrival="fixed", rate_per_s=0.5, address="sequential", sizes=MIXED),
]


def writes(drawn):
    return list(zip(drawn.intended_ns.tolist(), drawn.address.tolist(), drawn.size.tolist(), strict=True))


def same(one, other):
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_a_plan_is_what_the_oracle_draws(load, seed):
    assert writes(draw(load, seed, 500)) == plan_oracle.draw(load, seed, 500)


@pytest.mark.parametrize("draw_block", both_ways(plan_kernel.draw_block))
@pytest.mark.parametrize("load", DRAWN_LOADS)
def test_a_block_is_the_same_compiled_and_interpreted(draw_block, load):
    drawn = Plan.of_count(300)
    draw_block(drawn, plan.recipe_of(load, 5), 0)
    assert same(drawn, draw(load, 5, 300))


@pytest.mark.parametrize("draw_sizes", both_ways(plan_kernel.draw_sizes))
def test_sizes_come_with_their_weights(draw_sizes):
    drawn = np.empty(2000, np.int32)
    recipe = plan.recipe_of(Load(GIB, sizes=MIXED), 1)
    draw_sizes(drawn, recipe.sizes, recipe.cumulative, 1, 0)
    assert drawn.tolist() == plan_oracle.draw_sizes(MIXED, 1, 2000)
    assert (drawn == 512).mean() == pytest.approx(0.3, abs=0.05)
    assert not (drawn == 65536).any()


@pytest.mark.parametrize("load", DRAWN_LOADS)
def test_the_size_of_blocks_leaves_no_trace(load):
    assert same(draw(load, 9, 10_500, block_writes=1000), draw(load, 9, 10_500, block_writes=10_500))


@pytest.mark.parametrize("load", DRAWN_LOADS)
def test_every_write_is_inside_aligned_and_in_order(load):
    drawn = draw(load, 3, 20_000)
    assert (drawn.address >= 0).all() and (drawn.address + drawn.size <= load.volume_bytes).all()
    assert not (drawn.address % load.alignment_bytes).any()
    assert (np.diff(drawn.intended_ns) >= 0).all() and drawn.intended_ns[0] >= 0
    assert (drawn.operation == WRITE).all()


def test_a_longer_plan_begins_like_a_shorter_one():
    load = DRAWN_LOADS[4]
    assert same(draw(load, 3, 2000).part(0, 700), draw(load, 3, 700))


def test_an_empty_plan_is_a_plan():
    assert draw(Load(GIB), 1, 0).address.size == 0


def test_operations_are_numbered_as_in_traces():
    assert (WRITE, READ, FLUSH) == (trace.WRITE, trace.READ, trace.FLUSH)


def test_the_smallest_size_holds_a_stamp():
    from farwrite import payload_kernel

    assert plan.SIZE_BYTES_MIN == payload_kernel.STAMP_BYTES


def test_kinds_are_numbered_in_the_order_of_their_words():
    from farwrite import address_kernel, arrival_kernel

    assert [getattr(arrival_kernel, word.upper()) for word in plan.ARRIVALS] == [0, 1, 2]
    assert [getattr(address_kernel, word.upper()) for word in plan.ADDRESSES] == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"arrival": "poison", "rate_per_s": 1.0}, 'did you mean "poisson"'),
        ({"address": "zipfian"}, 'did you mean "zipf"'),
        ({"queue_depth": 0}, "queue_depth"),
        ({"queue_depth": 1.5}, "queue_depth"),
        ({"queue_depth": True}, "queue_depth"),
        ({"rate_per_s": 10.0}, "closed loop has none"),
        ({"arrival": "fixed"}, "missing"),
        ({"arrival": "fixed", "rate_per_s": 0.0}, "rate"),
        ({"arrival": "fixed", "rate_per_s": float("nan")}, "finite"),
        ({"arrival": "fixed", "rate_per_s": 2e9}, "rate"),
        ({"zipf_skew": -0.1}, "zipf_skew"),
        ({"zipf_skew": float("inf")}, "zipf_skew"),
        ({"sizes": ()}, "sizes"),
        ({"sizes": ((31, 1.0),)}, "size"),
        ({"sizes": ((4096.0, 1.0),)}, "size"),
        ({"sizes": ((4096, -1.0),)}, "weight"),
        ({"sizes": ((4096, 0.0),)}, "weights are 0"),
        ({"sizes": (4096,)}, "not a size in bytes and a weight"),
        ({"sizes": ((GIB, 1.0),)}, "size"),
        ({"volume_bytes": 0}, "volume"),
        ({"volume_bytes": 1 << 61}, "volume"),
        ({"volume_bytes": 4096, "sizes": ((8192, 1.0),)}, "cannot hold"),
        ({"alignment_bytes": 1000}, "512 or 4096"),
    ],
)
def test_an_impossible_load_is_refused(words, sentence):
    with pytest.raises(UsageError, match=sentence):
        Load(**{"volume_bytes": GIB, **words})


@pytest.mark.parametrize(("seed", "count"), [(-1, 10), (1 << 63, 10), (0, -1), (0.5, 10), (0, 1 << 40)])
def test_an_impossible_draw_is_refused(seed, count):
    with pytest.raises(UsageError):
        draw(Load(GIB), seed, count)


def test_a_plan_of_years_is_refused():
    with pytest.raises(UsageError, match="over a year"):
        draw(Load(GIB, arrival="fixed", rate_per_s=0.001), 0, 1_000_000)


def columns(records):
    time_ns, operation, address, size = zip(*records, strict=True)
    return np.array(time_ns), np.array(operation, np.int8), np.array(address), np.array(size, np.int32)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("time_scale", [1.0, 0.5, 3.0])
def test_a_replay_is_what_the_oracle_replays(seed, time_scale):
    random = np.random.default_rng(seed)
    records = [
        (when, int(random.choice([WRITE, READ, FLUSH])), 512 * random.integers(300), 512 * random.integers(1, 9))
        for when in np.sort(random.integers(0, 10**12, 50)).tolist()
    ]
    replayed, notes = replay(*columns(records), 65536, time_scale)
    assert writes(replayed) == plan_oracle.replay(records, 65536, time_scale)
    operations = [operation for _, operation, *_ in records]
    assert (notes.kept, notes.reads_left_out, notes.flushes_left_out) == tuple(map(operations.count, (1, 2, 3)))
    outside = [address + size > 65536 for _, operation, address, size in records if operation == WRITE]
    assert notes.folded == sum(outside)


def test_a_replay_begins_with_its_first_write_and_says_what_it_left_out():
    records = [(0, READ, 0, 512), (5, FLUSH, 0, 0), (100, WRITE, 1024, 512), (150, WRITE, 4096, 512)]
    replayed, notes = replay(*columns(records), GIB)
    assert replayed.intended_ns.tolist() == [0, 50]
    assert len(notes.sentences()) == 2 and notes.sentences()[0].startswith("1 reads")


def test_a_replay_that_changes_nothing_says_nothing():
    _, notes = replay(*columns([(7, WRITE, 512, 512)]), GIB)
    assert notes.sentences() == []


def test_writes_are_rounded_out_to_sectors():
    replayed, notes = replay(*columns([(0, WRITE, 100, 20), (1, WRITE, 500, 100), (2, WRITE, 1024, 512)]), GIB)
    assert writes(replayed) == [(0, 0, 512), (1, 0, 1024), (2, 1024, 512)]
    assert notes.widened == 2


def test_a_year_of_nanoseconds_stays_exact_at_scale_one():
    year_ns = 365 * 24 * 3600 * 10**9 + 1
    replayed, _ = replay(*columns([(0, WRITE, 0, 512), (year_ns, WRITE, 0, 512)]), GIB)
    assert replayed.intended_ns[-1] == year_ns


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([(5, WRITE, 0, 512), (4, WRITE, 0, 512)], "record 2: its time"),
        ([(5, READ, 0, 512), (5, WRITE, 0, 512), (4, READ, 0, 512)], "record 3: its time"),
        ([(0, READ, 0, 512)], "no write"),
        ([(0, 9, 0, 512)], "record 1: its operation"),
        ([(0, WRITE, -512, 512)], "record 1: its address"),
        ([(0, WRITE, 0, 0)], "record 1: its size"),
        ([(0, WRITE, 0, 512), (1, WRITE, 0, 1 << 20)], "record 2: it writes more than the whole volume"),
    ],
)
def test_an_impossible_trace_is_refused_with_its_record(records, sentence):
    with pytest.raises(UsageError, match=sentence):
        replay(*columns(records), 65536)


def test_columns_of_different_length_are_refused():
    with pytest.raises(UsageError, match="length"):
        replay(np.zeros(2), np.zeros(1), np.zeros(1), np.zeros(1), GIB)


@pytest.mark.parametrize("time_scale", [-1.0, float("nan"), 1e9])
def test_an_impossible_time_scale_is_refused(time_scale):
    with pytest.raises(UsageError, match="time_scale"):
        replay(*columns([(0, WRITE, 0, 512)]), GIB, time_scale)


def test_own_columns_become_a_plan():
    made = from_arrays([0, 1], [0, 512], [512, 512])
    assert [column.dtype for column in made] == [np.int64, np.int64, np.int32, np.int8]
    assert made.operation.tolist() == [WRITE, WRITE]


def test_a_load_needs_no_numba():
    code = "import sys; from farwrite.plan import Load; Load(1 << 20); sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
