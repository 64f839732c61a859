"""A link does what is asked of it besides a distance, and nothing else: on the ferry, and on netem in user-mode Linux.

Shares are held against five standard errors of so many packets; times only where they hold by construction.
"""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from small_lab import IN_UML, PATIENCE_S, skip_if_forbidden, small

from farwrite.base.errors import UnfitError
from farwrite.experiment.compilation import compile_link
from farwrite.lab import ferry_kernel
from farwrite.lab.ferry import Ferry
from farwrite.lab.lab import open_lab
from farwrite.lab.link import SetElsewhere
from farwrite.lab.netem import Netem
from farwrite.lab.probe import FULL_BYTES, bulk_bits_per_s, probe
from farwrite.lab.schedule import changing
from farwrite.workload.link_spec import PLAIN, Bursts, Change, LinkDirection, LinkSpec

pytestmark = pytest.mark.lab

COUNT = 2_000 if IN_UML else 10_000
GAP_NS = 100_000 if IN_UML else 20_000
# So that TCP is told of no offload at once.
LOSSY = LinkSpec(outward=LinkDirection(loss_ratio=1e-9), homeward=LinkDirection(loss_ratio=1e-9))
MS = 1_000_000


@pytest.fixture(scope="module")
def opened():
    compile_link()  # Nothing here writes.
    try:
        with open_lab(replace(small(), link_spec=LOSSY)) as lab:
            yield lab
    except UnfitError as refusal:
        skip_if_forbidden(refusal)
        raise


@pytest.fixture
def lab(opened):
    yield opened
    opened.link.set_directions(LinkDirection(), LinkDirection())
    opened.link.heal()
    opened.set_delay(0)


def sent(lab, direction, count=COUNT, gap_ns=GAP_NS, delay_ns=MS, homeward=False, **options):
    """What arrives of datagrams over a way with some delay."""
    lab.link.set_delay_ns(delay_ns, delay_ns)
    lab.link.set_directions(*((LinkDirection(), direction) if homeward else (direction, LinkDirection())))
    ends = (lab.far, lab.near) if homeward else (lab.near, lab.far)
    return probe(*ends, ends[1].address, count, gap_ns, delay_ns=delay_ns, **options)


def about(found, share, of):
    """Within five standard errors of a share."""
    assert abs(found - share * of) <= 5 * (of * share * (1 - share)) ** 0.5 + 1


@pytest.mark.parametrize("homeward", [False, True], ids=["outward", "homeward"])
def test_a_plain_link_loses_reorders_and_doubles_nothing(lab, homeward):
    made = sent(lab, LinkDirection(), homeward=homeward)
    assert (made.lost, made.reordered, made.duplicates) == (0, 0, 0)
    assert made.delay_ns.min() >= MS - 64


@pytest.mark.parametrize("homeward", [False, True], ids=["outward", "homeward"])
def test_losses_are_as_many_as_asked_and_in_one_direction(lab, homeward):
    made = sent(lab, LinkDirection(loss_ratio=0.05), homeward=homeward)
    about(made.lost, 0.05, COUNT)
    other = sent(lab, LinkDirection(), homeward=not homeward, count=300)
    assert other.lost == 0
    assert (made.reordered, made.duplicates) == (0, 0)


def test_bursts_are_as_long_as_asked(lab):
    bursts = Bursts(enter_ratio=0.02, leave_ratio=0.25)
    made = sent(lab, LinkDirection(bursts=bursts))
    lengths = made.bursts()
    assert lengths.size > 10
    assert abs(lengths.mean() - 4) < 5 * 12**0.5 / lengths.size**0.5
    assert made.reordered == 0


def test_duplicates_and_packets_ahead_are_as_many_as_asked(lab):
    about(sent(lab, LinkDirection(duplicate_ratio=0.1)).duplicates, 0.1, COUNT)
    made = sent(lab, LinkDirection(reorder_ratio=0.1))
    assert made.lost == made.duplicates == 0
    assert 0 < int((made.delay_ns < MS - 64).sum()) <= 0.1 * COUNT + 5 * (COUNT * 0.09) ** 0.5  # A busy machine hides some.
    assert made.reordered > 0


def test_damaged_packets_are_refused_by_their_checksum(lab):
    made = sent(lab, LinkDirection(corrupt_ratio=0.3))
    assert 0 < made.lost <= 0.3 * COUNT + 5 * (COUNT * 0.21) ** 0.5


@pytest.mark.parametrize("shape", ["uniform", "normal", "pareto"])
def test_jitter_is_seen_and_reorders_nothing(lab, shape):
    jitter_ns = 400_000
    made = sent(lab, LinkDirection(jitter_ns=jitter_ns, jitter_shape=shape), count=COUNT // 10,
                gap_ns=10 * GAP_NS, delay_ns=2 * MS)
    assert (made.lost, made.reordered, made.duplicates) == (0, 0, 0)
    assert np.quantile(made.delay_ns, 0.9) - np.quantile(made.delay_ns, 0.1) > jitter_ns / 4


def test_extra_delay_makes_a_link_asymmetric(lab):
    assert sent(lab, LinkDirection(extra_delay_ns=5 * MS), count=200).delay_ns.min() >= 6 * MS - 64
    homeward = (sent(lab, LinkDirection(), homeward=True, count=200).delay_ns.min() for _ in range(20))
    assert any(delay_ns < 6 * MS for delay_ns in homeward), "who takes them in may be late, but not always"


@pytest.mark.parametrize("rate", [5_000_000, 20_000_000])
def test_no_more_arrives_than_the_rate_lets_through(lab, rate):
    count = rate // 8 // 1538 // 2  # Half a second's worth.
    made = sent(lab, LinkDirection(rate_bits_per_s=rate), count=count, gap_ns=0, payload_bytes=FULL_BYTES)
    assert (made.lost, made.reordered) == (0, 0)
    lasted_ns = int(made.got_ns.max() - made.sent_ns.min())
    assert count * 1538 * 8e9 / lasted_ns <= 1.001 * rate
    assert made.delay_ns[-1] >= 400 * MS  # Those in front went first.


def test_a_full_queue_drops_what_comes(lab):
    made = sent(lab, LinkDirection(rate_bits_per_s=5_000_000, queue_packets=20), count=300, gap_ns=0, payload_bytes=FULL_BYTES)
    assert 150 < made.lost < 300
    assert made.reordered == 0


def test_tcp_keeps_within_the_rate_of_a_slow_link(lab):
    lab.link.set_directions(LinkDirection(rate_bits_per_s=20_000_000, queue_packets=100), LinkDirection())
    assert 5e6 < bulk_bits_per_s(lab.near, lab.far, lab.far.address, 1.5) <= 20e6


def test_what_the_link_did_is_counted(lab):
    before = lab.link.counters()
    made = sent(lab, LinkDirection(loss_ratio=0.2), count=1000)
    counted = {name: value - before[name] for name, value in lab.link.counters().items()}
    assert counted["drops" if lab.link.kind == "netem" else "lost"] >= made.lost > 0


def test_the_distance_is_proven_without_what_else_is_asked(opened):
    opened.spec = LinkSpec(outward=LinkDirection(extra_delay_ns=20 * MS))
    try:
        opened.link.set_directions(*opened.spec.directions)
        assert opened.survey(10).rtt_ns_p50 < 20 * MS
        assert opened.echo_floor(5, 64, 64).rtt_ns_min >= 20 * MS - 64
    finally:
        opened.spec = LOSSY
        opened.link.set_directions(LinkDirection(), LinkDirection())


# What is scheduled while a load runs.


def happens(happened, count):
    """Once so many changes have been made; the limit is there so that a broken test ends."""
    limit_s = time.monotonic() + PATIENCE_S
    while len(happened) < count:
        assert time.monotonic() < limit_s, happened
        time.sleep(0.001)


NEVER = Change(at_ns=10_000 * MS, event="cut")  # The load is over before.


def test_a_change_happens_once_the_load_has_begun_and_is_undone(opened):
    spec = LinkSpec(
        outward=LOSSY.outward, homeward=LOSSY.homeward, schedule=(Change(at_ns=20 * MS, extra_rtt_ns=10 * MS), NEVER)
    )
    opened.set_delay(MS)
    begin_ns = [0]
    with changing([opened], spec, lambda: begin_ns[0]) as happened:
        assert opened.survey(5).rtt_ns_p50 < 10 * MS
        assert not happened
        begin_ns[0] = time.monotonic_ns()
        happens(happened, 1)
        assert opened.survey(3).rtt_ns_min >= 11 * MS - 200
    assert opened.survey(5).rtt_ns_p50 < 10 * MS


def test_a_schedule_happens_in_order_never_early_and_is_undone(opened):
    spec = LinkSpec(
        outward=LOSSY.outward, homeward=LOSSY.homeward,
        schedule=(
            Change(at_ns=20 * MS, extra_rtt_ns=10 * MS), Change(at_ns=100 * MS, loss_ratio=1.0),
            Change(at_ns=150 * MS, event="cut"), Change(at_ns=200 * MS, event="heal"), NEVER,
        ),
    )  # fmt: skip
    opened.set_delay(MS)
    with changing([opened], spec, time.monotonic_ns) as happened:
        happens(happened, 4)
    assert [item.at_ns for item in happened] == [20 * MS, 100 * MS, 150 * MS, 200 * MS]
    assert all(item.happened_ns >= item.at_ns for item in happened)
    assert [item.what.split("s ", 1)[1] for item in happened][1:3] == ["loss 100 %", "cut"]
    assert opened.survey(5).rtt_ns_p50 < 10 * MS
    assert probe(opened.near, opened.far, opened.far.address, 100, GAP_NS).lost == 0


def test_a_cut_of_one_direction_leaves_the_other():
    words = np.zeros(ferry_kernel.BOARD_WORDS, np.int64)
    link, cut = Ferry(words, [], 0), words[ferry_kernel.CUT : ferry_kernel.CUT + 2]
    link.cut(homeward=False)
    assert cut.tolist() == [1, 0]
    link.cut(outward=False)
    assert cut.tolist() == [1, 1]
    link.heal()
    link.cut(outward=False)
    assert cut.tolist() == [0, 1]


def test_netem_loses_everything_at_the_end_that_sends_in_the_direction_that_is_cut():
    class End:
        def call(self, function, interface, command, asked, segments):
            self.lost = asked.lost

    near, far = End(), End()
    link = Netem(near, far, "x", PLAIN)
    link.cut(homeward=False)
    assert (near.lost, far.lost) == (True, False)
    link.cut(outward=False)
    assert (near.lost, far.lost) == (True, True)
    link.heal()
    assert (near.lost, far.lost) == (False, False)


def test_a_change_that_the_link_refuses_is_raised_where_it_was_asked_for(opened):
    asked = threading.Event()

    class Refusing(SetElsewhere):
        def cut(self, outward=True, homeward=True):
            asked.set()
            raise UnfitError("no knife")

    link, opened.link = opened.link, Refusing("none")
    try:
        with (
            pytest.raises(UnfitError, match="no knife"),
            changing([opened], LinkSpec(schedule=(Change(at_ns=0, event="cut"),)), time.monotonic_ns),
        ):
            assert asked.wait(PATIENCE_S)
    finally:
        opened.link = link
        opened.link.set_directions(LinkDirection(), LinkDirection())
