"""Plans: every column against its oracle, blocks that leave no trace, and loads and traces that are refused."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from both_ways import both_ways
from farwrite.base.errors import UsageError
from farwrite.workload import plan, plan_kernel
from farwrite.workload.plan import Load, Stretch, counts_max, draw, draw_jobs, from_arrays, replay
from farwrite.workload.plan_kernel import FLUSH, READ, TRIM, WRITE, Plan
from farwrite.workload.trace import trace
from oracle import arrival_oracle, plan_oracle

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
    Load(GIB, address="pareto", think_ns=1000, think_at_random=True, think_every=3),
    Load(GIB, address="normal", arrival="poisson", rate_per_s=50.0, stretches=(Stretch(10**9, 0.0, 100.0),)),
    Load(GIB, address="bands", bands=((4, 1), (0, 1), (1, 3)), sizes=MIXED, alignment_bytes=512),
    Load(1 << 22, address="shuffle", sizes=((16384, 1), (4096, 1))),
    Load(
        GIB, address="sequential", streams=5, stride_bytes=65536, arrival="fixed", rate_per_s=9000.0,
        stretches=(Stretch(10**6, 9000.0, 9000.0), Stretch(5 * 10**6, 0.0, 0.0)), stretches_at_random=True,
        region_begin_bytes=1 << 20, region_bytes=1 << 28,
    ),
]  # fmt: skip
WORDS = {"write": WRITE, "read": READ, "flush": FLUSH, "trim": TRIM}
BLENDED_LOADS = [
    Load(GIB, read_share=0.7, trim_share=0.1, flush_share=0.05, arrival="poisson", rate_per_s=100.0, sizes=MIXED,
         read_sizes=((8192, 1),), trim_sizes=((65536, 2), (131072, 1))),
    Load(1 << 20, flush_every=1, address="sequential", arrival="fixed", rate_per_s=1000.0),
    Load(1 << 20, flush_every=7, read_share=0.5, address="sequential"),
]  # fmt: skip


def writes(drawn):
    return list(zip(drawn.intended_ns.tolist(), drawn.address.tolist(), drawn.size.tolist(), strict=True))


def same(one, other):
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_a_plan_is_what_the_oracle_draws(load, seed):
    assert writes(draw(load, seed, 500)) == plan_oracle.draw(load, seed, 500)


@pytest.mark.parametrize("draw_block", both_ways(plan_kernel.draw_block))
@pytest.mark.parametrize("load", [*DRAWN_LOADS, *BLENDED_LOADS])
def test_a_block_is_the_same_compiled_and_interpreted(draw_block, load):
    drawn = Plan.of_count(300)
    draw_block(drawn, plan.recipe_of(load, 5), 0)
    assert same(drawn, draw(load, 5, 300))


@pytest.mark.parametrize("draw_sizes", both_ways(plan_kernel.draw_sizes))
def test_sizes_come_with_their_weights(draw_sizes):
    drawn = np.empty(2000, np.int32)
    recipe = plan.recipe_of(Load(GIB, sizes=MIXED), 1)
    draw_sizes(drawn, np.full(2000, WRITE, np.int8), recipe.sizes, 1, 0)
    assert drawn.tolist() == plan_oracle.draw_sizes(MIXED, 1, 2000)
    assert (drawn == 512).mean() == pytest.approx(0.3, abs=0.05)
    assert not (drawn == 65536).any()


@pytest.mark.parametrize("load", [*DRAWN_LOADS, *BLENDED_LOADS])
def test_the_size_of_blocks_leaves_no_trace(load):
    assert same(draw(load, 9, 10_500, block_writes=1000), draw(load, 9, 10_500, block_writes=10_500))


@pytest.mark.parametrize("load", DRAWN_LOADS)
def test_every_write_is_inside_aligned_and_in_order(load):
    drawn = draw(load, 3, 20_000)
    assert (drawn.address >= 0).all() and (drawn.address + drawn.size <= load.volume_bytes).all()
    assert not (drawn.address % load.alignment_bytes).any()
    assert load.arrival == "closed" or (np.diff(drawn.intended_ns) >= 0).all()
    assert drawn.intended_ns.min() >= 0
    assert (drawn.operation == WRITE).all()


@pytest.mark.parametrize("load", BLENDED_LOADS)
@pytest.mark.parametrize("seed", range(3))
def test_operations_are_the_oracles_and_flushes_come_with_the_write_before_them(load, seed):
    drawn = draw(load, seed, 3000)
    shares = load.flush_share, load.read_share, load.trim_share, load.flush_every
    assert drawn.operation.tolist() == [WORDS[word] for word in plan_oracle.operations(seed, 3000, *shares)]
    flush = drawn.operation == FLUSH
    assert not drawn.size[flush].any() and not drawn.address[flush].any() and drawn.size[~flush].min() > 0
    if load.arrival == "fixed":
        instants = arrival_oracle.fixed(Fraction(load.rate_per_s), int((~flush).sum()))
        assert drawn.intended_ns.tolist() == arrival_oracle.follow(instants, drawn.operation.tolist(), FLUSH)
    if load.read_sizes:
        assert set(drawn.size[drawn.operation == READ]) == {8192}
        assert set(drawn.size[drawn.operation == TRIM]) == {65536, 131072}
        assert set(drawn.size[drawn.operation == WRITE]) == {512, 4096, 5000}


def test_a_log_that_flushes_after_every_write_is_as_dense_as_one_that_does_not():
    load = BLENDED_LOADS[1]
    drawn = draw(load, 1, 2000)
    plain = draw(Load(1 << 20, address="sequential", arrival="fixed", rate_per_s=1000.0), 1, 1000)
    assert same(Plan(*(column[drawn.operation == WRITE] for column in drawn)), plain)


def test_many_sizes_are_found_as_few_are():
    sizes = tuple((512 * size, size % 3 + 1) for size in range(1, 130))
    drawn = draw(Load(GIB, sizes=sizes, alignment_bytes=512), 4, 3000)
    assert drawn.size.tolist() == plan_oracle.draw_sizes(sizes, 4, 3000)


def test_shares_of_operations_are_met():
    drawn = draw(BLENDED_LOADS[0], 8, 200_000).operation
    expected = np.array([0.95 * 0.2, 0.95 * 0.7, 0.05, 0.95 * 0.1]) * drawn.size
    assert stats.chisquare(np.bincount(drawn, minlength=5)[1:], expected).pvalue > 0.01


def test_a_job_draws_the_same_whoever_works_beside_it():
    one = Load(GIB, name="one", read_share=0.5)
    two = Load(GIB, name="two", arrival="poisson", rate_per_s=10.0)
    both, bounds = draw_jobs(Load(GIB, jobs=(one, two)), 3, [100, 50])
    alone, _ = draw_jobs(Load(GIB, jobs=(one,)), 3, [100])
    assert bounds.tolist() == [0, 100, 150] and same(both.part(0, 100), alone)
    assert both.address[100:].tolist() != both.address[:50].tolist()
    undivided, whole = draw_jobs(one, 3, [100])
    assert whole.tolist() == [0, 100] and same(undivided, draw(one, 3, 100))


def test_a_plan_has_room_for_bursts_and_flushes():
    steady = Load(GIB, arrival="fixed", rate_per_s=1000.0)
    logged = Load(GIB, arrival="fixed", rate_per_s=1000.0, flush_every=1)
    bursts = Load(GIB, arrival="fixed", rate_per_s=1000.0, stretches=(Stretch(10**9, 5000.0, 0.0),))
    one, two, three = (counts_max(load, 10**9)[0] - 1000 for load in (steady, logged, bursts))
    assert (two, three) == (2 * one, 5 * one)
    assert sum(counts_max(Load(GIB, jobs=(Load(GIB),) * 4), 10**9)) == counts_max(Load(GIB), 10**9)[0]


def test_a_longer_plan_begins_like_a_shorter_one():
    load = DRAWN_LOADS[4]
    assert same(draw(load, 3, 2000).part(0, 700), draw(load, 3, 700))


def test_an_empty_plan_is_a_plan():
    assert draw(Load(GIB), 1, 0).address.size == 0


def test_operations_are_numbered_as_in_traces():
    assert (WRITE, READ, FLUSH) == (trace.WRITE, trace.READ, trace.FLUSH)


def test_the_smallest_size_holds_a_stamp():
    from farwrite.workload import payload_kernel

    assert plan.SIZE_BYTES_MIN == payload_kernel.STAMP_BYTES


def test_kinds_are_numbered_in_the_order_of_their_words():
    from farwrite.workload import address_kernel, arrival_kernel

    assert [getattr(arrival_kernel, word.upper()) for word in plan.ARRIVALS] == [0, 1, 2]
    assert [getattr(address_kernel, word.upper()) for word in plan.ADDRESSES] == list(range(7))


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
        ({"think_ns": 5, "arrival": "fixed", "rate_per_s": 1.0}, "waits for nobody"),
        ({"read_share": 0.7, "trim_share": 0.4}, "more than everything"),
        ({"flush_share": 1.0}, "no load"),
        ({"region_begin_bytes": 1000}, "multiple of 4096"),
        ({"region_begin_bytes": 4096, "region_bytes": GIB}, "end within the volume"),
        ({"region_bytes": 4096, "sizes": ((8192, 1.0),)}, "region: 4 KiB cannot hold"),
        ({"address": "bands"}, "bands: none given"),
        ({"bands": ((0.0, 1.0),)}, "all shares are 0"),
        ({"bands": ((0.5, 1e-7), (0.5, 1.0))}, "narrower than a single place"),
        ({"streams": 0}, "streams"),
        ({"streams": 1024, "region_bytes": 1 << 20}, "cannot hold the largest write each"),
        ({"pareto_share": 0.0}, "pareto_share"),
        ({"normal_deviation": 0.0}, "normal_deviation"),
        ({"dedupe_ratio": 0.5}, "dedupe_ratio"),
        ({"arrival": "poisson", "rate_per_s": 1.0, "stretches": (Stretch(10, 0.0, 0.0),)}, "0 all the time"),
        ({"jobs": (Load(4096 * 7),)}, "same volume"),
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
    code = "import sys; from farwrite.workload.plan import Load; Load(1 << 20); sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
