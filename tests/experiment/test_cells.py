"""Cells: every workload under every protocol at every distance, and how its plan is drawn."""

import gzip

import pytest

from farwrite.base.errors import UsageError
from farwrite.base.physics import rtt_ns_of
from farwrite.base.units import NS_PER_S
from farwrite.experiment.cells import cells_of, load_of, workloads_of
from farwrite.workload.catalog import load, shipped
from farwrite.workload.plan import OPEN_MARGIN, count_max
from farwrite.workload.profile import parse

TEXT = """
title = "t"
[distance]
miles = [0, 20, 150]
km = [300]
route_factor = 1.3
equipment = "10 us"
[[cell]]
name = "one"
protocols = ["C", "A"]
[[cell]]
name = "two"
protocols = ["local"]
miles = [20]
queue_depth = 7
arrival = "poisson"
rate = "100 /s"
address = "zipf"
zipf_skew = 0.5
mix = [{block = "64 KiB", share = 1}, {block = "512 B", share = 2}, {block = "4 KiB", share = 2}]
"""


def cell(change):
    return parse(TEXT, "p.toml", change).cell[1]


def with_trace(tmp_path, rows, scale="1.0"):
    """A profile whose second cell replays a trace of these rows."""
    path = tmp_path / "mine.csv.gz"
    path.write_bytes(gzip.compress(("time_ns,operation,address,size\n" + "\n".join(rows) + "\n").encode()))
    return parse(TEXT, "p.toml", [f'cell.two.trace="{path}"', f"cell.two.time_scale={scale}"])


def test_cells_come_in_the_order_of_the_profile():
    made = cells_of(parse(TEXT))
    miles = ["0", "20", "150", "186.411"]
    assert [item.id for item in made] == [f"one-{p}-{m}" for p in "CA" for m in miles] + ["two-local-20"]


@pytest.mark.parametrize("name", shipped())
def test_every_cell_of_a_shipped_profile_has_an_id_of_its_own(name):
    made = cells_of(load(name))
    assert len({item.id for item in made}) == len(made) > 0


@pytest.mark.parametrize("name", shipped())
def test_every_cell_of_a_shipped_profile_has_a_plan_that_can_be_drawn(name):
    loaded = load(name)
    for item in cells_of(loaded):
        table = workloads_of(loaded)[item.name].table
        assert (load_of(table, loaded.lab.volume_bytes) is None) == bool(table.trace)


def test_a_cell_asks_for_the_round_trip_of_its_distance_route_and_equipment():
    for item in cells_of(parse(TEXT)):
        assert item.asked_rtt_ns == rtt_ns_of(item.miles, 1.3, 10_000)


def test_at_zero_miles_and_without_equipment_nothing_is_asked():
    assert cells_of(parse(TEXT, "p.toml", ["distance.equipment=0 us"]))[0].asked_rtt_ns == 0


def test_a_closed_loop_offers_nothing_and_an_open_one_its_rate():
    closed, *_, open_loop = cells_of(parse(TEXT))
    assert (closed.arrival, closed.offered_per_s) == ("closed", None)
    assert (open_loop.arrival, open_loop.offered_per_s, open_loop.queue_depth) == ("poisson", 100.0, 7)


@pytest.mark.parametrize(
    ("mix", "median"),
    [
        ('[{block = "64 KiB", share = 1}, {block = "512 B", share = 2}, {block = "4 KiB", share = 2}]', 4096),
        ('[{block = "64 KiB", share = 1}, {block = "4 KiB", share = 1}]', 4096),
        ('[{block = "64 KiB", share = 1.01}, {block = "4 KiB", share = 1}]', 65536),
        ('[{block = "8 KiB"}]', 8192),
        ("[]", 4096),
    ],
)
def test_half_of_the_writes_are_not_larger_than_the_median_size(mix, median):
    parsed = parse(TEXT, "p.toml", [f"cell.two.mix={mix}"])
    assert cells_of(parsed)[-1].size_bytes == median


def test_a_load_has_what_the_profile_says():
    made = load_of(cell([]), 1 << 30)
    assert (made.arrival, made.queue_depth, made.rate_per_s, made.address) == ("poisson", 7, 100.0, "zipf")
    assert made.zipf_skew == 0.5 and made.volume_bytes == 1 << 30
    assert made.sizes == ((65536, 1.0), (512, 2.0), (4096, 2.0))


def test_writes_are_aligned_to_4096_only_if_all_sizes_are():
    assert load_of(cell([]), 1 << 30).alignment_bytes == 512
    assert load_of(cell(["cell.two.mix=[]"]), 1 << 30).alignment_bytes == 4096


def test_a_rate_is_no_part_of_a_closed_loop():
    assert load_of(cell(["cell.two.arrival=closed"]), 1 << 30).rate_per_s is None


@pytest.mark.parametrize("seconds", [0.05, 1, 60])
def test_a_round_of_an_open_loop_has_more_plan_than_it_will_need(seconds):
    table = cell([])
    needed = table.rate_per_s * seconds
    assert count_max(load_of(table, 1 << 30), round(seconds * NS_PER_S)) >= needed * OPEN_MARGIN + 5 * needed**0.5


def test_a_closed_round_never_has_more_plan_than_memory():
    closed = load_of(cell(["cell.two.arrival=closed", "cell.two.rate=0 /s"]), 1 << 30)
    assert count_max(closed, 3600 * NS_PER_S) == 4_000_000


def test_a_trace_gives_rate_size_and_a_note(tmp_path):
    rows = ["0,w,0,512", "500000000,w,4096,4096", "1000000000,r,0,4096", "2000000000,w,0,8192"]
    item = cells_of(with_trace(tmp_path, rows))[-1]
    assert (item.arrival, item.size_bytes, item.offered_per_s) == ("trace", 4096, 1.5)
    assert "3 writes over 2 s" in item.note and "1 reads and flushes left out" in item.note


def test_a_trace_replayed_twice_as_fast_offers_twice_as_much(tmp_path):
    rows = ["0,w,0,512", "2000000000,w,4096,4096"]
    assert cells_of(with_trace(tmp_path, rows, "0.5"))[-1].offered_per_s == 2.0


def test_a_trace_without_writes_is_refused(tmp_path):
    with pytest.raises(UsageError):
        cells_of(with_trace(tmp_path, ["0,r,0,512", "5,r,0,512"]))


@pytest.mark.parametrize("trace", ["pgbanch", "no/such.csv", "/", "x" * 5000])
def test_a_trace_that_is_not_there_is_refused(trace):
    with pytest.raises(UsageError):
        cells_of(parse(TEXT, "p.toml", [f'cell.two.trace="{trace}"']))
