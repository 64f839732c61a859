"""What a crowd of numbered datagrams says of a link, against the plainest counting; and what netem is told, byte by byte."""

import random
import struct
from collections import Counter

import msgspec
import numpy as np
import pytest

from farwrite.lab.netem_options import WORD_MAX, Asked, options_of
from farwrite.lab.probe import Delivered, share_interval
from farwrite.lab.proof import OneWay, Spread, errors_of, refusals
from farwrite.workload.jitter import deviations, table_of
from farwrite.workload.link_spec import Bursts, LinkDirection


def delivered(numbers, sent, payload_bytes=18, gap_ns=1000):
    numbers = np.array(numbers, np.int64)
    return Delivered(sent, payload_bytes, numbers, numbers * gap_ns, 5_000_000 + np.arange(numbers.size) * gap_ns)


@pytest.mark.parametrize("seed", range(100))
def test_losses_bursts_duplicates_and_order_are_what_counting_by_hand_gives(seed):
    dice = random.Random(seed)
    sent = dice.randint(1, 60)
    numbers = [number for number in range(sent) for _ in range(dice.choice([0, 1, 1, 1, 2]))]
    for _ in range(dice.randint(0, 5)):
        if numbers:
            numbers.insert(dice.randrange(len(numbers)), numbers.pop(dice.randrange(len(numbers))))
    made = delivered(numbers, sent)

    times = Counter(numbers)
    assert made.lost == sum(number not in times for number in range(sent))
    assert made.duplicates == sum(count - 1 for count in times.values())
    first = list(dict.fromkeys(numbers))
    assert made.reordered == sum(any(other > number for other in first[:place]) for place, number in enumerate(first))
    assert made.ahead == sum(any(other < number for other in first[place:]) for place, number in enumerate(first))
    text = "".join("." if number in times else "x" for number in range(sent))
    assert sorted(made.bursts()) == sorted(len(run) for run in text.split(".") if run)


def test_a_rate_counts_what_ethernet_adds():
    made = delivered(range(101), 101, payload_bytes=1472, gap_ns=12_304)  # 1538 bytes in 12.304 us: 1 Gbit/s.
    assert made.rate_bits_per_s() == pytest.approx(1e9)
    assert delivered([0], 1).rate_bits_per_s() is None


def test_the_interval_of_a_share_holds_it_about_as_often_as_it_says():
    dice = np.random.default_rng(1)
    held = 0
    for count in dice.binomial(2000, 0.01, 1000):
        low, high = share_interval(int(count), 2000)
        held += low <= 0.01 <= high
    assert 920 <= held <= 980
    assert share_interval(0, 100)[0] == 0
    assert 0.02 < share_interval(0, 100)[1] < 0.05
    assert share_interval(0, 0) == (0.0, 1.0)


# netem's message: linux/pkt_sched.h says what must be where.


def told(direction, delay_ns=1_000_007, lost=False):
    options = options_of(Asked(delay_ns, direction, lost, 1500))
    return options, dict(options["attrs"])


def test_netem_is_told_nanoseconds_and_a_rate_that_keeps_packets_in_line():
    options, attributes = told(LinkDirection())
    assert options["delay"] == 1_000_007 // 64
    assert struct.unpack("=q", attributes["TCA_NETEM_LATENCY64"]) == (1_000_007,)
    assert struct.unpack("=Q", attributes["TCA_NETEM_RATE64"]) == (125_000_000_000,)
    assert struct.unpack("=IiIi", attributes["TCA_NETEM_RATE"]) == (WORD_MAX, 0, 0, 0)
    assert (options["loss"], options["gap"], options["duplicate"], options["limit"]) == (0, 0, 0, 100_000)
    assert "TCA_NETEM_LOSS" not in attributes
    assert "TCA_NETEM_DELAY_DIST" not in attributes


def test_netem_is_told_shares_of_2_to_the_32_and_a_cut_is_all():
    options, attributes = told(LinkDirection(loss_ratio=0.25, duplicate_ratio=0.5, reorder_ratio=0.125, corrupt_ratio=1.0))
    assert options["loss"] == round(WORD_MAX / 4)
    assert options["duplicate"] == round(WORD_MAX / 2)
    assert options["gap"] == 1
    assert struct.unpack("=2I", attributes["TCA_NETEM_REORDER"]) == (round(WORD_MAX / 8), 0)
    assert struct.unpack("=2I", attributes["TCA_NETEM_CORRUPT"]) == (WORD_MAX, 0)
    assert told(LinkDirection(loss_ratio=0.25), lost=True)[0]["loss"] == WORD_MAX


def test_netem_is_told_bursts_as_the_kernel_has_them_and_a_cut_goes_before():
    direction = LinkDirection(bursts=Bursts(enter_ratio=0.5, leave_ratio=0.25, bad_loss_ratio=1.0, good_loss_ratio=0.0))
    length, kind, *model = struct.unpack("=HH4I", told(direction)[1]["TCA_NETEM_LOSS"])
    assert (length, kind) == (20, 2)
    assert model == [round(WORD_MAX / 2), round(WORD_MAX / 4), 0, 0]  # p, r, what gets through when bad, what does not when good
    options, attributes = told(direction, lost=True)
    assert options["loss"] == WORD_MAX
    assert "TCA_NETEM_LOSS" not in attributes


def test_netem_is_told_a_rate_in_bytes_and_counts_a_frame_as_a_wire_does():
    options, attributes = told(LinkDirection(rate_bits_per_s=10**9, queue_packets=50), delay_ns=1_538_000)
    assert struct.unpack("=IiIi", attributes["TCA_NETEM_RATE"]) == (125_000_000, 24, 0, 0)  # 14 bytes of 38 it counts itself.
    assert options["limit"] == 50 + 125  # In line, and on their way: 12.304 us each.


@pytest.mark.parametrize("shape", ["normal", "uniform", "pareto"])
def test_netem_draws_jitter_from_the_table_that_the_ferry_draws_from(shape):
    direction = LinkDirection(jitter_ns=123_456, jitter_shape=shape)
    _, attributes = told(direction)
    unit_ns, table = table_of(direction)
    assert struct.unpack("=q", attributes["TCA_NETEM_JITTER64"]) == (unit_ns,)
    entries = np.frombuffer(attributes["TCA_NETEM_DELAY_DIST"], np.int16)
    assert (entries == table).all()
    assert np.allclose(unit_ns * table / 8192, deviations(direction), atol=unit_ns / 8192)


# The proof of a link.


def one_way(**fields):
    plain = OneWay(
        asked=LinkDirection(), asked_delay_ns=1e6, delay=None, sent=10_000, lost=0, loss_ratio=0.0,
        loss_low=0.0, loss_high=0.001, bursts=0,
        burst_packets_mean=None, burst_packets_max=0, reordered=0, duplicates=0, rate_bits_per_s=None, rate_by="",
    )  # fmt: skip
    return msgspec.structs.replace(plain, **fields)


def refused(off_ns=0, **fields):
    rtt = Spread(2e6 + off_ns, 2e6 + off_ns, 2e6 + off_ns, 0.0, 100)
    errors = errors_of(rtt, Spread(1e4, 2e4, 3e4, 0.0, 60), 2e6, {"late_ns": 300_000, "packets": 100})
    return refusals(rtt, 2_000_000, {"outward": one_way(**fields), "homeward": one_way()}, errors)


def test_a_link_that_delivers_what_was_asked_is_refused_nothing():
    assert refused() == []
    assert refused(asked=LinkDirection(loss_ratio=0.01), lost=110, loss_ratio=0.011) == []
    assert refused(asked=LinkDirection(reorder_ratio=0.01, duplicate_ratio=0.01), reordered=900, duplicates=99) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"off_ns": 70_000}, "the round trip is +70 us off"),
        ({"off_ns": -110_000}, "more than 5 % of 2 ms"),
        ({"lost": 20, "loss_ratio": 0.002}, "outward: 0.200% of the packets were lost, 0.000% were asked for"),
        ({"reordered": 1}, "outward: 1 packets were reordered"),
        ({"duplicates": 2}, "outward: 2 packets came twice"),
        ({"asked": LinkDirection(rate_bits_per_s=1000), "rate_bits_per_s": 1040.0}, "the rate is +4.0% off"),
        ({"asked": LinkDirection(rate_bits_per_s=1000), "rate_bits_per_s": 900.0}, "carries no more"),
    ],
)
def test_what_is_not_delivered_is_said(fields, words):
    assert any(words in sentence for sentence in refused(**fields))


def test_an_error_budget_is_the_sum_of_its_parts():
    errors = errors_of(Spread(2e6, 2.01e6, 3e6, 0.0, 100), 20_000, 2e6, {"late_ns": 300_000, "packets": 100})
    assert (errors.emulation_ns, errors.kernel_stack_ns, errors.scheduler_ns) == (10_000, 20_000, 6_000)
    assert errors.sum_ns == 16_000  # What the emulation takes at its fastest is not off: packets are held for so much less.
    assert errors.share_of_claim == pytest.approx(0.008)
    untold = errors_of(Spread(1.99e6, 2.01e6, 3e6, 0.0, 100), 20_000, 2e6, {"packets": 100})
    assert untold.scheduler_ns == 20_000
