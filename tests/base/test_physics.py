"""Physics: the published figures, and the way from miles to nanoseconds and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from farwrite.base.physics import FIBRE_NS_PER_KM, PRODUCT_LIMITS, miles_of, rtt_ns_of

MILES = some.floats(0, 15_000)
ROUTES = some.floats(1, 10)


@pytest.mark.parametrize(
    ("miles", "ms"), [(0, 0.0), (20, 0.315), (60, 0.946), (100, 1.576), (125, 1.970), (150, 2.364), (186, 2.932)]
)
def test_light_in_glass_needs_what_the_tables_say(miles, ms):
    assert rtt_ns_of(miles) / 1e6 == pytest.approx(ms, abs=0.0005)


def test_two_milliseconds_are_spent_after_126_9_miles():
    assert miles_of(2e6) == pytest.approx(126.9, abs=0.05)


def test_a_kilometre_of_glass_takes_4_897_nanoseconds():
    assert round(FIBRE_NS_PER_KM) == 4897


def test_at_the_rule_of_thumb_150_miles_cost_nearly_five_milliseconds():
    assert rtt_ns_of(150, route_factor=2.1) / 1e6 == pytest.approx(4.97, abs=0.01)


def test_equipment_counts_once_in_each_direction():
    assert rtt_ns_of(150, 1.0, 100_000) - rtt_ns_of(150) == 200_000


def test_a_round_trip_shorter_than_its_equipment_reaches_less_than_nothing():
    assert miles_of(100_000, equipment_ns=100_000) < 0


@given(MILES, ROUTES, some.integers(0, 10**9))
def test_miles_come_back_from_their_round_trip(miles, route, equipment_ns):
    # A round trip is whole nanoseconds, and one of them is 63 millionths of a mile.
    again = miles_of(rtt_ns_of(miles, route, equipment_ns), route, equipment_ns)
    assert again == pytest.approx(miles, abs=1e-4)


@given(MILES, MILES, ROUTES)
def test_farther_is_never_faster(one, other, route):
    assert (rtt_ns_of(one, route) <= rtt_ns_of(other, route)) or one > other


def test_every_product_limit_is_a_round_trip_or_a_distance():
    assert all((limit.rtt_ns is None) != (limit.miles is None) for limit in PRODUCT_LIMITS)
