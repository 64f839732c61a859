"""The pretend world itself: what arrives, what survives, and that nothing has an effect once the power is out."""

from bisect import bisect_right

import numpy as np
import pytest

from both_ways import both_ways
from farwrite.base.host import pretend_kernel as pretend
from farwrite.base.row import rows_of

DELAY_NS, FLUSH_NS = 1000, 500


def world(ring=1 << 12):
    stream = rows_of(pretend.Stream, 2)
    segments = np.zeros((2, pretend.SEGMENTS), np.int64)
    made = pretend.world(
        np.ones(1, np.int64), 1 << 14, 1 << 13, 1 << 13, stream, np.zeros((2, ring), np.uint8), segments, segments.copy()
    )
    made.at[0].flush_ns = FLUSH_NS
    pretend.connect(made, 0, DELAY_NS, DELAY_NS)
    return made


def some(size, seed=1):
    return np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)


@pytest.mark.parametrize("send", both_ways(pretend.send))
@pytest.mark.parametrize("receive", both_ways(pretend.receive))
@pytest.mark.parametrize("seed", range(20))
def test_a_stream_carries_every_byte_once_in_order_and_not_before_its_time(send, receive, seed):
    random, made = np.random.default_rng(seed), world(997)
    sent, got, due = [], [], []
    buffer = np.zeros(5000, np.uint8)
    for _ in range(300):
        made.clock[0] += int(random.integers(0, 400))
        data = some(int(random.integers(1, 400)), int(random.integers(1 << 30)))
        taken = send(made, 0, data, 0, data.size)
        if taken > 0:
            sent += data[:taken].tolist()
            due += [int(made.clock[0]) + DELAY_NS] * int(taken)
        count = receive(made, 1, buffer, 0, int(random.integers(1, 500)))
        if count > 0:
            got += buffer[:count].tolist()
        assert len(got) <= bisect_right(due, made.clock[0])
    made.clock[0] += DELAY_NS
    while (count := receive(made, 1, buffer, 0, buffer.size)) > 0:
        got += buffer[:count].tolist()
    assert got == sent
    assert count == -pretend.EAGAIN


@pytest.mark.parametrize("read", both_ways(pretend.read_volume))
@pytest.mark.parametrize("write", both_ways(pretend.write_volume))
def test_a_bad_sector_answers_eio_until_all_of_it_is_written_again(read, write):
    made, buffer = world(), np.full(2048, 7, np.uint8)
    write(made, some(2048), 0, 2048, 0)
    made.bad[1] = 1
    assert read(made, buffer, 0, 512, 0) == 512 and read(made, buffer, 0, 512, 1024) == 512
    assert read(made, buffer, 0, 600, 0) == -pretend.EIO == read(made, buffer, 0, 1, 1023)
    write(made, some(2048), 0, 500, 520)  # A part of it.
    assert read(made, buffer, 0, 1, 600) == -pretend.EIO
    write(made, some(2048, 2), 0, 1024, 512)
    assert read(made, buffer, 0, 1024, 512) == 1024 and (buffer[:1024] == some(2048, 2)[:1024]).all()
    assert (made.at[0].mended, made.at[0].refused_reads) == (1, 3)


@pytest.mark.parametrize("write_now", both_ways(pretend.write_now))
def test_what_stood_in_the_journal_before_its_last_write_is_what_a_lost_write_leaves(write_now):
    made, first, second = world(), some(4096), some(4096, 2)
    write_now(made, first, 0, 4096, 0)
    assert not made.before.any()
    write_now(made, second, 0, 512, 512)
    assert (made.before[512:1024] == first[512:1024]).all() and (made.journal[512:1024] == second[:512]).all()
    made.bad_journal[0] = 1
    buffer = np.zeros(512, np.uint8)
    assert pretend.read_journal(made, buffer, 0, 512, 0) == -pretend.EIO
    write_now(made, second, 0, 512, 0)
    assert pretend.read_journal(made, buffer, 0, 512, 0) == 512


def test_an_end_arrives_behind_the_bytes_and_a_silent_one_never():
    made, buffer = world(), np.zeros(100, np.uint8)
    pretend.send(made, 0, some(10), 0, 10)
    pretend.hang_up(made, 0)
    assert pretend.receive(made, 1, buffer, 0, 100) == -pretend.EAGAIN
    made.clock[0] += DELAY_NS
    assert pretend.receive(made, 1, buffer, 0, 100) == 10
    assert pretend.receive(made, 1, buffer, 0, 100) == 0
    assert pretend.send(made, 1, buffer, 0, 10) == -pretend.ECONNRESET
    made.stream[0].silent = 1
    assert pretend.receive(made, 1, buffer, 0, 100) == -pretend.EAGAIN
    assert pretend.send(made, 1, buffer, 0, 10) == 10


def test_nothing_arrives_while_the_link_is_cut_and_everything_once_it_heals():
    made, buffer = world(), np.zeros(100, np.uint8)
    pretend.send(made, 0, some(10), 0, 10)
    made.stream[0].stalled = 1
    made.clock[0] += 10 * DELAY_NS
    assert not pretend.is_readable(made, 1)
    made.stream[0].stalled = 0
    assert pretend.is_readable(made, 1)
    assert pretend.receive(made, 1, buffer, 0, 100) == 10


def test_a_flush_counts_when_its_time_has_come():
    made, data = world(), some(4096)
    pretend.begin_write(made, 0, data, 0, 4096, 8192)
    assert not pretend.is_over(made, 0)
    assert not made.journal.any()
    made.clock[0] += FLUSH_NS
    assert pretend.is_over(made, 0)
    assert pretend.finish(made, 0) == 4096
    assert (made.journal[8192:12288] == data).all()


@pytest.mark.parametrize("share", [0, 128, 256])
def test_a_crash_tears_a_flush_sector_by_sector(share):
    made, data = world(), some(4096)
    pretend.begin_write(made, 0, data, 0, 4096, 8192)
    pretend.crash(made, 77, share, 1)
    landed = [(made.journal[at : at + 512] == data[at - 8192 : at - 7680]).all() for at in range(8192, 12288, 512)]
    untouched = [not made.journal[at : at + 512].any() for at in range(8192, 12288, 512)]
    assert all(a != b for a, b in zip(landed, untouched, strict=True))
    assert {0: sum(landed) == 0, 128: 0 < sum(landed) < 8, 256: sum(landed) == 8}[share]


def test_what_was_not_synced_may_go_with_the_power_and_stays_when_only_the_process_dies():
    for power in (0, 1):
        made, data = world(), some(4096)
        assert pretend.write_volume(made, data, 0, 4096, 0) == 4096
        pretend.crash(made, 77, 0, power)
        assert made.cached[:4096].any() == (power == 0)
        pretend.write_volume(made, data, 0, 4096, 0)
        pretend.sync_now(made)
        pretend.crash(made, 77, 0, power)
        assert (made.cached[:4096] == data).all()


def test_without_power_nothing_has_an_effect():
    made, data = world(), some(512)
    made.at[0].power_in = 1
    assert pretend.write_now(made, data, 0, 512, 0) == 512
    before = made.journal.copy()
    for attempt in (
        pretend.write_now(made, data, 0, 512, 1024), pretend.write_volume(made, data, 0, 512, 0), pretend.sync_now(made),
        pretend.trim_volume(made, 0, 512),
    ):  # fmt: skip
        assert attempt == -pretend.EIO
    assert pretend.send(made, 0, data, 0, 512) == -pretend.ECONNRESET
    pretend.begin_write(made, 0, data, 0, 512, 2048)
    made.clock[0] += FLUSH_NS
    assert not pretend.is_over(made, 0)
    assert (made.journal == before).all()
    assert not made.cached.any()


def test_a_hasty_flush_returns_at_once_and_is_lost_by_a_crash_before_its_time():
    made, data = world(), some(4096)
    made.at[0].hasty = 1
    pretend.begin_write(made, 0, data, 0, 4096, 8192)
    assert pretend.is_over(made, 0)
    assert pretend.finish(made, 0) == 4096
    pretend.crash(made, 77, 0, 1)
    assert not made.journal.any()
