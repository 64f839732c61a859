"""Which links can be, to the last value that may be asked for and the first that may not."""

from __future__ import annotations

import math

import msgspec
import pytest

from farwrite.workload.link_spec import (
    PLAIN,
    Bursts,
    Change,
    LinkDirection,
    LinkError,
    LinkSpec,
    changed,
    check,
    is_share,
)

SECOND = 1_000_000_000
BURSTS = Bursts(enter_ratio=0.01, leave_ratio=0.25)


def refusal(spec, **options):
    with pytest.raises(LinkError) as refused:
        check(spec, **options)
    return refused.value


@pytest.mark.parametrize(("field", "least", "most", "step"), [
    ("extra_delay_ns", 0, 10 * SECOND, 1), ("jitter_ns", 0, 10 * SECOND, 1), ("rate_bits_per_s", 1000, 10**12, 1),
    ("queue_packets", 1, 10**6, 1), ("loss_ratio", 0.0, 1.0, 1e-9), ("reorder_ratio", 0.0, 1.0, 1e-9),
    ("duplicate_ratio", 0.0, 1.0, 1e-9), ("corrupt_ratio", 0.0, 1.0, 1e-9),
])  # fmt: skip
@pytest.mark.parametrize("name", ["outward", "homeward"])
def test_each_number_of_a_direction_has_its_bounds(name, field, least, most, step):
    def spec(value):
        return LinkSpec(**{name: LinkDirection(**{field: value})})

    for value in (least, most):
        check(spec(value))
    for value in (least - step, most + step):
        refused = refusal(spec(value))
        assert str(refused).startswith(f"link.{name}.") and refused.path[:2] == ("link", name)
    if isinstance(least, float):
        for value in (math.nan, math.inf):
            refusal(spec(value))


@pytest.mark.parametrize(("mtu", "taken"), [(575, False), (576, True), (65_535, True), (65_536, False), (None, True)])
def test_an_mtu_is_one_that_every_host_takes_and_a_packet_can_have(mtu, taken):
    if taken:
        check(LinkSpec(mtu_bytes=mtu))
    else:
        assert refusal(LinkSpec(mtu_bytes=mtu)).path == ("link", "mtu")


@pytest.mark.parametrize(("shape", "file", "taken"), [
    ("recorded", "delays.txt", True), ("recorded", "", False), ("normal", "delays.txt", False), ("normal", "", True),
])  # fmt: skip
def test_a_recorded_jitter_has_a_file_and_no_other_has(shape, file, taken):
    spec = LinkSpec(outward=LinkDirection(jitter_shape=shape, jitter_file=file))
    check(spec) if taken else refusal(spec)


@pytest.mark.parametrize(("jitter_ns", "extra_ns", "reorder", "delay_ns", "taken"), [
    (1000, 0, 0.0, 1000, True), (1001, 0, 0.0, 1000, False), (1500, 500, 0.0, 1000, True), (1501, 500, 0.0, 1000, False),
    (9999, 0, 0.1, 1000, True), (9999, 0, 0.0, None, True), (1, 0, 0.0, 0, False),
])  # fmt: skip
def test_jitter_is_no_more_than_the_delay_unless_packets_may_be_reordered(jitter_ns, extra_ns, reorder, delay_ns, taken):
    spec = LinkSpec(homeward=LinkDirection(jitter_ns=jitter_ns, extra_delay_ns=extra_ns, reorder_ratio=reorder))
    if taken:
        check(spec, delay_ns)
    else:
        assert "at 20 miles: " in str(refusal(spec, one_way_delay_ns=delay_ns, where="at 20 miles: "))
        assert ": " + "1" in str(refusal(spec, one_way_delay_ns=delay_ns))


@pytest.mark.parametrize(("changes", "taken"), [
    ({}, True), ({"enter_ratio": 0.0}, False), ({"enter_ratio": 1.0}, True), ({"enter_ratio": 1.01}, False),
    ({"leave_ratio": 0.0}, False), ({"leave_ratio": 1.0}, True), ({"leave_ratio": 1.01}, False), ({"bad_loss_ratio": 1.1}, False),
    ({"good_loss_ratio": -0.1}, False), ({"good_loss_ratio": 1.0, "bad_loss_ratio": 0.0}, True),
], ids=str)  # fmt: skip
def test_bursts_have_chances_above_0_and_losses_that_are_shares(changes, taken):
    spec = LinkSpec(outward=LinkDirection(bursts=msgspec.structs.replace(BURSTS, **changes)))
    check(spec) if taken else refusal(spec)
    assert "instead of loss" in str(refusal(LinkSpec(outward=LinkDirection(bursts=BURSTS, loss_ratio=0.1))))


def test_bursts_lose_what_their_states_lose_for_as_long_as_they_last():
    assert BURSTS.loss_ratio == pytest.approx(0.01 / 0.26)
    both = Bursts(enter_ratio=0.1, leave_ratio=0.3, bad_loss_ratio=0.5, good_loss_ratio=0.02)
    assert both.loss_ratio == pytest.approx(0.25 * 0.5 + 0.75 * 0.02)


@pytest.mark.parametrize(("change", "said"), [
    (Change(at_ns=0, loss_ratio=0.0), ""), (Change(at_ns=5, event="cut"), ""), (Change(at_ns=5, event="heal"), ""),
    (Change(at_ns=-1, event="cut"), "in order of time"), (Change(at_ns=5), "nothing is changed"),
    (Change(at_ns=5, event="cut", loss_ratio=0.1), "goes with no other key"),
    (Change(at_ns=5, extra_rtt_ns=0), ""), (Change(at_ns=5, extra_rtt_ns=20 * SECOND), ""),
    (Change(at_ns=5, extra_rtt_ns=-1), "0 s to 20 s"), (Change(at_ns=5, extra_rtt_ns=20 * SECOND + 1), "0 s to 20 s"),
    (Change(at_ns=5, loss_ratio=1.0), ""), (Change(at_ns=5, loss_ratio=1.1), "loss is a share"),
    (Change(at_ns=5, rate_bits_per_s=1000), ""), (Change(at_ns=5, rate_bits_per_s=999), "1 kbit/s"),
    (Change(at_ns=5, rate_bits_per_s=10**12), ""), (Change(at_ns=5, rate_bits_per_s=10**12 + 1), "1 Tbit/s"),
    (Change(at_ns=5, rate_bits_per_s=1000, loss_ratio=2.0), "loss is a share"),
])  # fmt: skip
def test_a_change_is_of_something_and_within_bounds(change, said):
    if said:
        refused = refusal(LinkSpec(schedule=(change,)))
        assert said in str(refused) and refused.path == ("link", "schedule", 0)
    else:
        check(LinkSpec(schedule=(change,)))


def test_changes_come_in_order_of_time():
    first, second = Change(at_ns=5, event="cut"), Change(at_ns=6, event="heal")
    check(LinkSpec(schedule=(first, first, second)))
    assert refusal(LinkSpec(schedule=(first, second, first))).path == ("link", "schedule", 2)


def test_a_change_leaves_what_it_does_not_name_as_it_was():
    slow = LinkDirection(rate_bits_per_s=10**6, bursts=BURSTS, jitter_ns=7)
    assert changed(slow, Change(at_ns=0, event="cut")) == slow
    assert changed(slow, Change(at_ns=0, rate_bits_per_s=2000)) == msgspec.structs.replace(slow, rate_bits_per_s=2000)
    lossy = changed(slow, Change(at_ns=0, loss_ratio=0.0))
    assert lossy == msgspec.structs.replace(slow, loss_ratio=0.0, bursts=None)


@pytest.mark.parametrize(("direction", "plain", "jitters", "counts"), [
    (LinkDirection(), True, False, False), (LinkDirection(extra_delay_ns=1), False, False, False),
    (LinkDirection(jitter_ns=1), False, True, False),
    (LinkDirection(jitter_shape="recorded", jitter_file="x"), False, True, False),
    (LinkDirection(loss_ratio=0.1), False, False, True), (LinkDirection(bursts=BURSTS), False, False, True),
    (LinkDirection(reorder_ratio=0.1), False, False, True), (LinkDirection(duplicate_ratio=0.1), False, False, True),
    (LinkDirection(corrupt_ratio=0.1), False, False, True), (LinkDirection(queue_packets=9), False, False, True),
    (LinkDirection(rate_bits_per_s=999_999_999), False, False, True),
    (LinkDirection(rate_bits_per_s=10**9), False, False, False),
], ids=str)  # fmt: skip
def test_a_direction_knows_what_is_asked_of_it(direction, plain, jitters, counts):
    assert (direction.is_plain, direction.has_jitter, direction.counts_packets) == (plain, jitters, counts)
    spec = LinkSpec(homeward=direction, seed=5)
    assert spec.is_plain == plain and spec.directions == (LinkDirection(), direction)
    assert PLAIN.is_plain and not LinkSpec(mtu_bytes=1500).is_plain


def test_a_share_is_a_number_from_0_to_1():
    assert [is_share(share) for share in (-0.1, 0, 1, 1.1, math.nan, math.inf)] == [False, True, True, False, False, False]
