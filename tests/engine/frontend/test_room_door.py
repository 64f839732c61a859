"""A volume that may take no more room, at the NBD door: what needs more is refused with ENOSPC, and everything else goes on."""

import contextlib
import threading

import pytest

from farwrite.engine.frontend import nbd
from farwrite.engine.frontend import session_kernel as sessions
from served import VOLUME_BYTES, Served, until

EXTENT, PAGE, MIB = 64 << 10, 4096, 1 << 20
BLOCK = bytes(range(256)) * 16


@pytest.fixture(scope="module")
def served():
    with contextlib.ExitStack() as stack:
        yield Served(stack)


@pytest.fixture
def full(served):
    """An empty volume that may take one MiB, and a client."""
    count, client = served.journal.room.at[0], served.connect(sessions.STRUCTURED | sessions.ALLOCATION)
    count["limit"] = 0
    assert client.ask(nbd.TRIM, 0, VOLUME_BYTES)[0] == 0
    until(lambda: count["allocated"] == 0, "the trim to be applied")
    count["limit"] = MIB
    yield client, count
    count["limit"] = 0
    client.close()


def test_a_write_that_needs_more_is_enospc_and_what_is_there_can_be_written_read_and_trimmed(served, full):
    client, count = full
    assert client.write(0, BLOCK * 256) == 0 and count["allocated"] == MIB
    before, staged = int(count["refused"]), int(served.journal.at[0].staged_sequence)
    assert client.write(2 * MIB, BLOCK) == nbd.ENOSPC
    assert client.write(MIB - PAGE, BLOCK * 2) == nbd.ENOSPC, "also one that is there in part"
    assert client.ask(nbd.WRITE_ZEROES, 2 * MIB, PAGE, nbd.NO_HOLE)[0] == nbd.ENOSPC
    assert served.journal.at[0].staged_sequence == staged and count["refused"] == before + 3
    assert client.write(8192, bytes(PAGE)) == 0 and client.read(8192, 2 * PAGE) == bytes(PAGE) + BLOCK
    assert client.ask(nbd.WRITE_ZEROES, 2 * MIB, PAGE)[0] == 0, "which may leave a hole"
    assert client.ask(nbd.WRITE_ZEROES, 0, PAGE, nbd.NO_HOLE)[0] == 0 and client.ask(nbd.FLUSH)[0] == 0
    assert client.read(2 * MIB, PAGE) == bytes(PAGE) and client.read(MIB - PAGE, PAGE) == BLOCK
    assert client.ask(nbd.TRIM, 0, EXTENT)[0] == 0
    assert client.write(2 * MIB, BLOCK) == 0, "what was trimmed is there to be written"
    assert client.read(2 * MIB, PAGE) == BLOCK and client.write(3 * MIB, BLOCK) == nbd.ENOSPC


def test_a_large_write_that_does_not_fit_is_refused_whole_and_the_limit_may_be_raised_at_any_time(served, full):
    client, count = full
    staged = int(served.journal.at[0].staged_sequence)
    assert client.write(0, BLOCK * 512) == nbd.ENOSPC and served.journal.at[0].staged_sequence == staged
    assert client.read(0, PAGE) == bytes(PAGE)
    count["limit"] = 2 * MIB
    assert client.write(0, BLOCK * 512) == 0 and client.read(2 * MIB - PAGE, PAGE) == BLOCK
    count["limit"] = 0
    assert client.write(8 * MIB, BLOCK) == 0


def test_a_write_waits_for_a_grant_that_is_on_its_way_and_no_longer_than_it_may_be(served, full):
    client, count = full
    assert client.write(0, BLOCK * 256) == 0
    count["grants"] = 1
    try:
        tag = client.begin(nbd.WRITE, 2 * MIB, PAGE, 0, BLOCK)
        until(lambda: count["asked_limit"] == MIB, "the write to wait")
        assert served.connect().read(0, PAGE) == BLOCK, "others go on"
        count["limit"] = 2 * MIB
        assert client.answer()[:2] == (tag, 0)
        assert client.write(4 * MIB, BLOCK * 256) == nbd.ENOSPC, "a limit that is not raised ends the wait"
        asked_ns = int(count["asked_ns"])
        assert client.write(4 * MIB, BLOCK * 256) == nbd.ENOSPC and count["asked_ns"] == asked_ns, "which begins once a limit"
    finally:
        count["grants"] = 0


def test_two_clients_at_once_never_take_more_than_there_is(served, full):
    _, count = full
    answers, most = [], []

    def write(one, first):
        for number in range(24):
            answers.append(one.write((first + 2 * number) * 4 * EXTENT, BLOCK * 64))
            most.append(int(count["allocated"]))

    others = [served.connect() for _ in range(2)]
    threads = [threading.Thread(target=write, args=(one, first)) for first, one in enumerate(others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) == {0, nbd.ENOSPC} and max(most) <= MIB
    assert count["allocated"] >= answers.count(0) * 4 * EXTENT
    for one in others:
        assert one.write(60 * MIB, BLOCK) == nbd.ENOSPC and one.read(0, PAGE) in (BLOCK, bytes(PAGE))
        one.close()
