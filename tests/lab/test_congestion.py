"""Protocol A when its link is full: the writer is held up, or pulls ahead and its peer catches up. Either way nothing is lost."""

import time

import pytest
from small_lab import lab_or_skip, load_begun, small

from farwrite.base.units import NS_PER_MS
from farwrite.experiment.round import audit_of, finish_sides, start_sides
from rounds import completed_in, issued_in, load, order

pytestmark = pytest.mark.lab

BLOCK_BYTES = 64 << 10
MEMORY_BYTES = (8 << 20) + (64 << 20)  # Staging, and more than any socket buffer holds.


@pytest.fixture(scope="module")
def lab():
    with lab_or_skip(small()) as opened:
        yield opened


def play_with_a_cut(lab, pulls_ahead):
    """A round in which the link is cut for a while; (what was observed, writes completed during the cut, its audit)."""
    chosen = order(
        protocol="A", pulls_ahead=pulls_ahead, load=load(sizes=((BLOCK_BYTES, 1.0),), volume_bytes=16 << 20),
        write_count_max=1 << 20, duration_ns=30_000 * NS_PER_MS, slice_ns=3_000 * NS_PER_MS, slice_count=10,
    )  # fmt: skip
    counters = lab.near.board.counters
    start_sides(lab, chosen)
    load_begun(lab.near.process, lab.near.board)
    lab.link.cut()
    before = int(counters[0].completed)
    time.sleep(0.3)
    during = int(counters[0].completed) - before
    lab.link.heal()
    time.sleep(0.3)
    counters[0].stop = 1  # The plan is longer than a busy machine needs for all of this.
    observed = finish_sides(lab, chosen).near
    audit, _ = audit_of(lab, chosen, completed_in(observed))
    return observed, during, audit


def test_a_writer_that_waits_completes_no_more_than_memory_holds(lab):
    observed, during, audit = play_with_a_cut(lab, pulls_ahead=False)
    assert during * BLOCK_BYTES <= MEMORY_BYTES  # None, where the memory was full before the cut.
    assert observed.exposed == 0
    assert (audit.lost, audit.damaged) == (0, 0)


def test_a_writer_that_pulls_ahead_goes_on_and_its_peer_catches_up(lab):
    observed, during, audit = play_with_a_cut(lab, pulls_ahead=True)
    assert during > 0
    assert observed.exposed > 0
    assert observed.catch_up_ns is not None
    assert (audit.lost, audit.damaged) == (0, 0)
    assert audit.survived == issued_in(observed)
