"""Floors are put together from what a protocol waits for, and an efficiency is one of rounds that belong together."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from farwrite.analysis.estimate import Draws
from farwrite.analysis.floor import (
    Echo,
    Flushes,
    efficiency_of,
    floor_of,
    flushes_of,
    nearest_size,
    record_bytes,
    tighter,
)
from farwrite.analysis.latency import Pool
from farwrite.analysis.sample import decode
from farwrite.base.histogram import Histogram
from farwrite.base.reasons import no_bare_echo, no_bare_flush, no_part_of_floor, no_write
from make_recording import make_recording

MOODS = (0.7, 0.85, 1.0, 1.2, 1.4)  # of the machine, round by round
ROUNDS = len(MOODS)


def pool(name, ns, moods=MOODS, count=300, indices=range(ROUNDS)):
    """Times about `ns`, in rounds that differ by their moods."""
    dice = np.random.default_rng(len(name))
    samples = [
        decode(Histogram.of((ns * mood * np.exp(0.01 * dice.standard_normal(count))).astype(np.int64)).encode()) for mood in moods
    ]
    return Pool(name, indices, samples, Draws(1, ROUNDS))


def empty(name):
    return pool(name, 1, count=0)


def flushes(near=100_000, far=150_000, both=2.0):
    return Flushes(4096 * 2, pool("near_alone", near), pool("far_alone", far), pool("near_both", near * both),
                   pool("far_both", far * both))  # fmt: skip


def floor_with(cell, flushes, rtt, echo, flushed, shared):
    return floor_of(cell, flushes, rtt, Echo(echo), Echo(flushed), shared)


def floor(protocol, rtt=1_000_000, shared=False, flushed=True, echo=True, **ns):
    cell = replace_protocol(protocol)
    return floor_with(
        cell, flushes(**ns), pool("rtt", rtt), pool("echo", rtt + 5000) if echo else empty("echo"),
        pool("flushed", rtt + 200_000) if flushed else empty("flushed"), shared,
    )  # fmt: skip


def replace_protocol(protocol):
    import msgspec

    return msgspec.structs.replace(make_recording().cells[0], protocol=protocol)


@pytest.mark.parametrize(("protocol", "options", "expected"), [
    ("local", {}, 100_000),
    ("A", {}, 100_000),
    ("B", {}, 1_005_000),
    ("B", {"near": 3_000_000}, 3_000_000),
    ("C", {}, 1_200_000),
    ("C", {"near": 3_000_000}, 3_000_000),
    ("C2", {}, 2_200_000),
    ("quorum", {}, 1_200_000),
    ("C", {"flushed": False}, 1_155_000),
    ("C2", {"flushed": False}, 2_155_000),
    ("C", {"shared": True, "rtt": 190_000}, 195_000 + 300_000),  # One way 95 us: the flushes of 100 us overlap.
    ("C", {"shared": True, "rtt": 210_000}, 410_000),  # One way 105 us: they do not.
    ("C", {"shared": False, "rtt": 190_000}, 390_000),
    ("C2", {"shared": True, "rtt": 190_000}, 190_000 + 195_000 + 300_000),
    ("C", {"shared": True, "rtt": 190_000, "near": 400_000, "far": 100_000}, 800_000),
])  # fmt: skip
def test_a_floor_is_the_longer_of_here_and_away(protocol, options, expected):
    found = floor(protocol, **options)
    assert found.estimate.value == pytest.approx(expected, rel=0.01)
    assert found.estimate.low <= found.estimate.value <= found.estimate.high
    assert np.median(found.replicates) == pytest.approx(expected, rel=0.15)
    assert found.estimate.count == 1500
    # With the slowest round left out all of it is faster.
    assert found.without[4] < found.estimate.value * 1.0001 and found.without[0] > found.estimate.value * 0.9999


def test_a_floor_of_which_a_part_is_missing_is_none():
    assert floor("C", echo=False).estimate.warnings == [no_bare_echo()]
    assert floor("B", echo=False).estimate.value is None
    assert floor("A", echo=False).estimate.value is not None
    cell = replace_protocol("C")
    assert floor_with(cell, None, pool("rtt", 1e6), pool("echo", 1e6), pool("flushed", 1e6), False).estimate.value is None
    bare = replace(flushes(), near_alone=empty("near_alone"))
    found = floor_with(cell, bare, pool("rtt", 1e6), pool("echo", 1e6), pool("flushed", 1e6), False).estimate
    assert found.warnings == [no_bare_flush()]
    bare = replace(flushes(), far_alone=empty("far_alone"))
    found = floor_with(cell, bare, pool("rtt", 1e6), pool("echo", 1e6), empty("flushed"), False).estimate
    assert found.warnings == [no_part_of_floor()]


@pytest.mark.parametrize(("size", "expected"), [(512, 4096), (4032, 4096), (4033, 8192), (4096, 8192), (65536, 69632)])
def test_a_record_is_flushed_in_whole_blocks_with_its_header(size, expected):
    assert record_bytes(size) == expected
    known = [replace(flushes(), size_bytes=blocks * 4096) for blocks in (1, 2, 17)]
    assert nearest_size(known, size).size_bytes == expected
    assert nearest_size([], size) is None


def test_an_efficiency_is_paired_round_by_round():
    """Floor and write are slow in the same rounds, by half and more: their ratio is known to a few percent all the same."""
    found = efficiency_of(floor("local"), pool("response", 200_000))
    assert found.value == pytest.approx(0.5, rel=0.01)
    assert 0.48 < found.low <= 0.5 <= found.high < 0.52
    assert found.without == [pytest.approx(0.5, rel=0.01)] * ROUNDS


def test_rounds_that_slow_the_write_alone_are_in_its_efficiency():
    calm = floor_with(replace_protocol("local"), replace(flushes(), near_alone=pool("near", 100_000, [1.0] * ROUNDS)),
                    *[empty("none")] * 3, False)  # fmt: skip
    found = efficiency_of(calm, pool("response", 200_000))
    assert found.low < 0.4 and found.high > 0.6
    assert found.without[4] > found.value * 0.999 and found.without[0] < found.value * 1.001
    assert found.count == 1500


def test_an_efficiency_without_a_floor_or_a_write_is_none():
    assert efficiency_of(floor("C", echo=False), pool("response", 1e6)).warnings == [no_bare_echo()]
    assert efficiency_of(floor("C"), empty("response")).warnings == [no_write()]


def test_two_rounds_give_a_floor_no_interval():
    two = replace(flushes(), near_alone=pool("near", 100_000, MOODS[:2], indices=range(2)))
    found = floor_with(replace_protocol("A"), two, *[empty("none")] * 3, False).estimate
    assert found.value is not None and found.low is None


def test_an_interval_of_what_cannot_be_negative_ends_above_zero():
    """Of rounds that differ fivefold the plain bootstrap, stretched for three rounds, would reach below 0."""
    wild = pool("response", 200_000, (0.2, 1.0, 5.0), indices=range(3))
    calm = replace(flushes(), near_alone=pool("near", 100_000, (1.0, 1.0, 1.0), indices=range(3)))
    found = efficiency_of(floor_with(replace_protocol("local"), calm, *[empty("none")] * 3, False), wild)
    assert 0 < found.low < 0.1 and found.high > 2
    rough = replace(flushes(), near_alone=pool("near", 100_000, (0.2, 1.0, 5.0), indices=range(3)))
    assert floor_with(replace_protocol("local"), rough, *[empty("none")] * 3, False).estimate.low > 0


def test_a_floor_rests_on_the_fewest_rounds_and_values_of_its_parts():
    echo = pool("echo", 1_000_000, MOODS[:3], count=100, indices=range(3))
    found = floor_with(replace_protocol("B"), flushes(), pool("rtt", 1e6), echo, empty("flushed"), False).estimate
    assert (found.count, len([one for one in found.without if one is not None])) == (300, 5)
    two = pool("echo", 1_000_000, MOODS[:2], indices=range(2))
    found = floor_with(replace_protocol("B"), flushes(), pool("rtt", 1e6), two, empty("flushed"), False).estimate
    assert found.low is None


def test_a_floor_says_what_it_was_put_together_from():
    assert floor("B").text == "RTT echo" and floor("B", near=3_000_000).text == "near flush alone"
    assert floor("A").text == "near flush, alone"
    assert floor("C2").text == "a trip for leave + RTT echo with the far flush in it"


def test_bare_flushes_are_one_pool_a_size_over_the_rounds_they_were_measured_in():
    def measured(index, size, near_ns):
        names = ("near_alone", "far_alone", "near_both", "far_both")
        texts = {name: Histogram.of(np.full(10, near_ns * place)).encode() for place, name in enumerate(names, 1)}
        return SimpleNamespace(index=index, size_bytes=size, **texts)

    large, small = flushes_of([measured(0, 8192, 1e5), measured(2, 4096, 3e5), measured(1, 8192, 2e5)], Draws(1, 3), decode)[::-1]
    assert (small.size_bytes, large.size_bytes) == (4096, 8192)
    assert (small.near_alone.indices, large.near_alone.indices) == ([2], [0, 1])
    for place, one in enumerate((small.near_alone, small.far_alone, small.near_both, small.far_both), 1):
        assert one.count == 10 and one.quantile(0.5) == pytest.approx(3e5 * place, rel=1e-3)
    assert [large.near_alone.alone(0.5)[index] for index in (0, 1)] == pytest.approx([1e5, 2e5], rel=1e-3)
    assert large.near_alone.name == "near_alone/8192"


def test_the_tighter_of_two_echoes_is_the_floors():
    slow, fast, none = pool("slow", 2e5), pool("fast", 1e5), empty("none")
    assert tighter(slow, fast) == Echo(fast, "busy-polled ") and tighter(fast, slow) == Echo(fast)
    assert tighter(none, slow) == Echo(slow, "busy-polled ") and tighter(slow, none) == Echo(slow)
    assert tighter(slow, slow) == Echo(slow)
    uneven = pool("uneven", 1e5, moods=(1.0, 1.0, 1.0, 9.0, 9.0))  # At the median the tighter one, and nowhere above it.
    assert tighter(slow, uneven) == Echo(uneven, "busy-polled ") and tighter(uneven, slow) == Echo(uneven)


def test_an_efficiency_whose_interval_lies_above_1_names_the_floor_that_was_beaten():
    slow, fast = (floor_with(replace_protocol("local"), flushes(near=ns), None, None, None, False) for ns in (300_000, 100_000))
    beaten, kept = (efficiency_of(one, pool("response", 150_000)) for one in (slow, fast))
    assert kept.warnings == [] and beaten.value == pytest.approx(2, rel=0.02)
    assert str(beaten.warnings[-1]).startswith("the floor was measured as near flush, alone, 0.3")
