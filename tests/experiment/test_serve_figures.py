"""What a served volume tells of itself: a line that follows whoever leads, and everything by replica for a machine."""

import contextlib
import re
from types import SimpleNamespace

import numpy as np
import pytest

from farwrite.base.histogram_kernel import record
from farwrite.engine import primary_kernel as primary
from farwrite.experiment.serve import figures
from farwrite.experiment.serve.figures import LastSecond, Observed, leader_of, metrics_text
from farwrite.experiment.serve.replica import BOARD_WORDS, figures_of, tell_peers
from farwrite.experiment.voters import seat_of
from farwrite.lab.shared_memory import board

REPLICAS = ("near", "far", "third")


@pytest.fixture
def boards():
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(board(BOARD_WORDS)) for name in REPLICAS}


@pytest.fixture
def clock(monkeypatch):
    made = SimpleNamespace(now_s=100.0)
    monkeypatch.setattr(figures.time, "monotonic", lambda: made.now_s)
    return made


def leads(boards, name, epoch):
    boards[name].counters[0].led_epoch = epoch


def counts(boards, name, writes=0, reads=0, size=4096, took_ns=1_000_000):
    """A replica answers so many more requests."""
    counted, seen = figures_of(boards[name]).counters[0], figures_of(boards[name]).writes_ns
    counted.writes += writes
    counted.bytes_written += writes * size
    counted.reads += reads
    for _ in range(writes):
        record(seen, np.int64(took_ns))


def rates(line):
    """(writes/s, MB/s, reads/s) as the line tells them."""
    found = re.search(r"([\d,]+) writes/s, ([\d.,]+) MB/s, ([\d,]+) reads/s", line)
    return tuple(float(one.replace(",", "")) for one in found.groups())


def test_each_line_tells_what_came_since_the_one_before(boards, clock):
    last = LastSecond()
    assert last.line(boards, REPLICAS, ["far"]) == "nobody leads; far down"
    leads(boards, "near", 3)
    counts(boards, "near", writes=100, reads=30)
    clock.now_s += 2
    assert rates(last.line(boards, REPLICAS, [])) == (50, 0.2, 15)
    counts(boards, "near", writes=20, reads=10, took_ns=80_000_000)
    clock.now_s += 1
    line = last.line(boards, REPLICAS, [])
    assert rates(line) == (20, 0.1, 10) and line.startswith("near leads, 0 clients")
    assert re.search(r"p50 (79|80|81)\S* ms", line)  # Of these twenty alone.
    clock.now_s += 1
    line = last.line(boards, REPLICAS, [])
    assert rates(line) == (0, 0, 0) and "p50" not in line


def test_who_leads_for_the_second_time_has_not_done_all_of_that_in_the_last_second(boards, clock):
    last = LastSecond()
    leads(boards, "near", 1)
    counts(boards, "near", writes=5000, reads=400)
    clock.now_s += 1
    last.line(boards, REPLICAS, [])
    leads(boards, "near", 0)
    leads(boards, "far", 2)
    counts(boards, "far", writes=10, reads=7)
    clock.now_s += 1
    assert rates(last.line(boards, REPLICAS, [])) == (10, 0, 7)
    leads(boards, "far", 0)
    leads(boards, "near", 3)  # It counts on where it ended, beyond what the far one has.
    counts(boards, "near", writes=30, reads=2)
    clock.now_s += 1
    assert rates(last.line(boards, REPLICAS, [])) == (30, 0.1, 2)


def test_of_two_that_say_they_lead_the_later_epoch_does(boards):
    leads(boards, "near", 4)
    leads(boards, "third", 5)
    assert leader_of(boards, REPLICAS) == "third"


def test_peers_are_told_of_by_their_own_names_with_what_is_not_durable_there(boards, clock):
    leads(boards, "near", 1)
    row = primary.Peer.LAYOUT
    peers = np.zeros(2, row).view(np.recarray)  # In the order of their names: far, third.
    peers[0].state, peers[0].durable, peers[0].received = primary.LIVE, 90, 100
    peers[1].state, peers[1].detached, peers[1].durable = primary.ABSENT, 1, 40
    state = SimpleNamespace(journal=SimpleNamespace(at=[SimpleNamespace(staged_sequence=100)]))
    tell_peers(state, figures_of(boards["near"]).peer, peers)
    assert LastSecond().line(boards, REPLICAS, []).endswith("far live 10 writes behind, third absent (detached) 60 writes behind")
    text = metrics_text([Observed("", boards, REPLICAS)])
    for line in ('peer_live{peer="far"} 1', 'peer_live{peer="third"} 0', 'peer_detached{peer="third"} 1',
                 'peer_lag_writes{peer="far"} 10', 'peer_lag_writes{peer="third"} 60'):  # fmt: skip
        assert f"\nfarwrite_{line}\n" in text


def test_metrics_are_each_replicas_own_and_counted_once(boards):
    leads(boards, "near", 7)
    seat_of(boards["far"]).ready = 1
    counts(boards, "near", writes=12, reads=5)
    counts(boards, "far", writes=3)
    text = metrics_text([Observed("", boards, REPLICAS)])
    for line in ('leads{replica="near"} 1', 'leads{replica="far"} 0', 'epoch{replica="near"} 7', 'ready{replica="far"} 1',
                 'writes_total{replica="near"} 12', 'writes_total{replica="far"} 3', 'reads_total{replica="near"} 5',
                 'bytes_written_total{replica="near"} 49152', 'write_seconds_count{replica="near"} 12',
                 'read_seconds_count{replica="near"} 0'):  # fmt: skip
        assert f"\nfarwrite_{line}\n" in text, line
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
