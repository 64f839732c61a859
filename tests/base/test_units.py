"""Units: what goes in comes out again, and what is not a quantity is refused with the nearest unit."""

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as some

from farwrite.base import units
from farwrite.base.errors import UsageError

DOORS = [
    (units.time_ns, units.TIME),
    (units.size_bytes, units.SIZE),
    (units.rate_bits_per_s, units.RATE),
    (units.frequency_per_s, units.FREQUENCY),
    (units.distance_km, units.LENGTH_KM),
]


@pytest.mark.parametrize(
    ("door", "text", "value"),
    [
        (units.time_ns, "1.5 ms", 1_500_000),
        (units.time_ns, "0 us", 0),
        (units.time_ns, "2min", 120 * units.NS_PER_S),
        (units.time_ns, "1e3 ns", 1000),
        (units.time_ns, "1_000 us", 1_000_000),
        (units.time_ns, "-3 us", -3000),
        (units.size_bytes, "4 KiB", 4096),
        (units.size_bytes, ".5 GiB", 1 << 29),
        (units.size_bytes, "1 GB", 10**9),
        (units.rate_bits_per_s, "10 Gbit/s", 10**10),
        (units.frequency_per_s, "2000 /s", 2000.0),
        (units.frequency_per_s, "90 /min", 1.5),
        (units.frequency_per_s, "2 k/s", 2000.0),
        (units.distance_km, "20 miles", 32.18688),
        (units.distance_km, "1 mi", 1.609344),
        (units.distance_km, "300 km", 300.0),
    ],
)
def test_a_quantity_is_read_in_base_units(door, text, value):
    assert door(text) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(("door", "known"), DOORS)
def test_every_unit_is_read(door, known):
    for unit, scale in known.items():
        assert door(f"60 {unit}") == pytest.approx(60 * scale)


@pytest.mark.parametrize(
    ("door", "text", "said"),
    [
        (units.time_ns, "3 mss", 'did you mean "ms"'),
        (units.time_ns, "3 sec", "unknown"),
        (units.time_ns, "3 MS", "unknown"),
        (units.time_ns, "3", "lacks a unit"),
        (units.time_ns, "ms", "not a number with a unit"),
        (units.time_ns, "", "not a number with a unit"),
        (units.time_ns, "nan s", "not a number with a unit"),
        (units.time_ns, "3 ms ms", "not a number with a unit"),
        (units.time_ns, 3, "not a number with a unit"),
        (units.time_ns, None, "not a number with a unit"),
        (units.time_ns, "1e400 s", "not finite"),
        (units.size_bytes, "4 KB", 'did you mean "KiB"|did you mean "kB"'),
        (units.distance_km, "20 mils", 'did you mean "miles"'),
        (units.rate_bits_per_s, "10 Gb/s", 'did you mean "Gbit/s"'),
    ],
)
def test_what_is_no_quantity_is_refused_and_the_nearest_unit_named(door, text, said):
    with pytest.raises(UsageError, match=said) as refusal:
        door(text, "the key")
    assert str(refusal.value).startswith("the key: ")


@given(some.integers(0, 10**15))
def test_whole_nanoseconds_survive_their_text(ns):
    assert units.time_ns(f"{ns} ns") == ns


@given(some.text() | some.none() | some.integers() | some.floats() | some.lists(some.text()))
def test_any_text_is_a_finite_number_or_refused(text):
    for door, _ in DOORS:
        with suppress(UsageError):
            assert math.isfinite(door(text))


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0 ns"), (999, "999 ns"), (1000, "1.00 us"), (87_100, "87.1 us"), (931_600, "0.932 ms"), (12e6, "12.0 ms"),
     (1.5e9, "1.50 s"), (-2e6, "-2.00 ms"), (4e12, "4,000 s")],
)  # fmt: skip
def test_a_time_is_written_in_the_unit_that_suits(ns, text):
    assert units.format_time(ns) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (512, "512 B"), (4096, "4 KiB"), (1536, "1.50 KiB"), (3 << 29, "1.50 GiB"), (5 << 40, "5 TiB")],
)
def test_a_size_is_written_in_binary_units(size, text):
    assert units.format_size(size) == text


@given(some.integers(1000, 10**13))
def test_a_written_time_read_again_is_off_by_a_digit_at_most(ns):
    again = units.time_ns(units.format_time(ns).replace(",", ""))
    assert abs(again - ns) <= 0.006 * ns
