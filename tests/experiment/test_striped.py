"""A striped volume's router and its doors, with groups in plain Python: what clients see, snapshots, a group that is lost."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import replace

import pytest

from fake_volume import BLOCK, FakeVolume
from farwrite.base.errors import UnfitError, UsageError
from farwrite.engine.frontend import nbd
from farwrite.engine.frontend.nbd_client import Place
from farwrite.experiment.pool.router_process import Order, routed
from farwrite.experiment.serve.control import Delete, Show, Take, ask
from nbd_client import NbdClient

CHUNK, GROUPS = 64 << 10, 3
SIZE = 12 * CHUNK
MEMBER = SIZE // GROUPS + CHUNK  # Room to grow.


class Striped:
    """Three groups, and their router."""

    def __init__(self, stack, directory):
        self.members = [FakeVolume(stack, directory / f"db.{group}", MEMBER, group + 1) for group in range(GROUPS)]
        for member in self.members:
            member.answers_in_order = True  # As our doors do.
        self.sockets = directory / "db"
        self.sockets.mkdir(mode=0o700)
        places = tuple(member.directory for member in self.members)
        self.order = Order("db", 99, SIZE, CHUNK, self.sockets, places, directory / "striped" / "db.json")
        self.stack = stack
        self.serve()

    def serve(self):
        self.serving = contextlib.ExitStack()
        self.stack.callback(self.serving.close)
        self.router, self.keeper = self.serving.enter_context(routed(self.order))

    def client(self, export=b"volume", **words):
        return NbdClient(str(self.sockets / "volume.sock"), export, **words)


@pytest.fixture
def striped(tmp_path_factory):
    directory = tmp_path_factory.mktemp("s")
    directory.chmod(0o700)
    with contextlib.ExitStack() as stack:
        yield Striped(stack, directory)


def until(condition, what="it"):
    limit_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit_s, f"{what} did not come"
        time.sleep(0.01)


def test_what_is_written_across_chunks_lies_in_its_groups_and_is_read_back(striped):
    data = os.urandom(5 * CHUNK)
    with striped.client() as client:
        assert client.size == SIZE and client.flags & nbd.CAN_MULTI_CONN
        assert client.write(CHUNK // 2, data) == 0
        assert client.read(CHUNK // 2, len(data)) == data
        client.flush()
        assert client.ask(nbd.TRIM, CHUNK, 2 * CHUNK)[0] == 0
        assert client.write(SIZE - 1, b"ab") == nbd.ENOSPC
        wanted = bytearray(SIZE)
        wanted[CHUNK // 2 : CHUNK // 2 + len(data)] = data
        wanted[CHUNK : 3 * CHUNK] = bytes(2 * CHUNK)
        assert client.read(0, SIZE) == wanted
    for chunk in range(SIZE // CHUNK):
        held = striped.members[chunk % GROUPS].head.data[chunk // GROUPS * CHUNK :][:CHUNK]
        assert held.tobytes() == bytes(wanted[chunk * CHUNK : (chunk + 1) * CHUNK])


def test_block_status_goes_from_chunk_to_chunk_and_a_snapshot_tells_what_may_differ(striped):
    with striped.client(contexts=[nbd.BASE_ALLOCATION]) as client:
        assert client.write(3 * CHUNK, bytes([1]) * BLOCK) == 0
        found = client.extents(0, SIZE)[nbd.BASE_ALLOCATION]
        assert [(one.begin, one.end) for one in found if not one.status] == [(3 * CHUNK, 3 * CHUNK + BLOCK)]
    ask(striped.sockets, Take("one"))
    with striped.client() as client:
        assert client.write(7 * CHUNK, bytes([2]) * BLOCK) == 0
    ask(striped.sockets, Take("two"))
    with striped.client(b"volume@two", contexts=[nbd.CHANGED_SINCE + "one"]) as client:
        found = client.extents(0, SIZE)[nbd.CHANGED_SINCE + "one"]
        assert [(one.begin, one.end) for one in found if one.status] == [(7 * CHUNK, 7 * CHUNK + BLOCK)]
        assert client.write(0, b"no") == nbd.EPERM


def test_a_snapshot_of_all_groups_is_listed_once_it_is_whole_and_shows_its_instant(striped):
    with striped.client() as client:
        assert client.write(0, b"a" * 3 * CHUNK) == 0
        answer = ask(striped.sockets, Take("monday"))
        assert [one.name for one in answer.snapshots] == ["monday"] and answer.volume == f"{99:x}"
        assert client.write(0, b"b" * 3 * CHUNK) == 0
    with striped.client(b"volume@monday") as client:
        assert client.read(0, 3 * CHUNK) == b"a" * 3 * CHUNK
    for number, member in enumerate(striped.members):  # What is kept for it is what all of them keep.
        ((inner, (one, view)),) = member.kept.items()
        member.kept[inner] = replace(one, kept_bytes=4096 << number), view
    assert [one.kept_bytes for one in ask(striped.sockets, Show()).snapshots] == [4096 * 7]
    with pytest.raises(UsageError, match="There is a snapshot monday already"):
        ask(striped.sockets, Take("monday"))
    with pytest.raises(UsageError, match="48 bytes at most"):
        ask(striped.sockets, Take("x" * 49))
    # It is there again after the router was killed; what no list has is given back.
    striped.members[1].take_snapshot("half.12345678")
    striped.serving.close()
    striped.serve()
    striped.keeper.delete_unlisted()
    assert [one.name for one in ask(striped.sockets, Show()).snapshots] == ["monday"]
    assert all(len(member.kept) == 1 for member in striped.members)
    ask(striped.sockets, Delete("monday"))
    assert not any(member.kept for member in striped.members)


def test_where_one_group_cannot_take_it_there_is_no_snapshot_and_answers_go_on(striped):
    for number in range(16):
        striped.members[2].take_snapshot(f"other.{number:08}")
    with striped.client() as client:
        with pytest.raises(UnfitError, match="at most 16 snapshots"):
            ask(striped.sockets, Take("monday"))
        assert client.write(0, b"a" * 3 * CHUNK) == 0
    assert not striped.members[0].kept and not striped.members[1].kept and not ask(striped.sockets, Show()).snapshots


def test_of_two_writes_in_order_no_snapshot_has_the_second_alone(striped):
    """Write A to one group, wait for its answer, write B to another one."""
    stop, counts = threading.Event(), []

    def write():
        with striped.client() as client:
            count = 0
            while not stop.is_set():
                count += 1
                assert client.write(0, count.to_bytes(8, "big")) == 0
                assert client.write(CHUNK, count.to_bytes(8, "big")) == 0
            counts.append(count)

    writer = threading.Thread(target=write)
    writer.start()
    pairs = []
    for number in range(8):
        ask(striped.sockets, Take(f"s{number}"))
        with striped.client(b"volume@" + f"s{number}".encode()) as client:
            a, b = (int.from_bytes(client.read(at, 8), "big") for at in (0, CHUNK))
        pairs.append((a, b))
        ask(striped.sockets, Delete(f"s{number}"))
    stop.set()
    writer.join()
    assert counts and all(b <= a <= b + 1 for a, b in pairs) and pairs[-1][0] > pairs[0][0]


def test_a_group_whose_connections_are_cut_is_asked_again_and_no_client_notices(striped):
    with striped.client() as client:
        for number in range(60):
            striped.members[number % GROUPS].cut_after = number % 5 + 1
            assert client.write(number * 4096 % (SIZE - 3 * CHUNK), bytes([number + 1]) * 2 * CHUNK) == 0
        until(striped.router.are_linked)
        assert client.read(59 * 4096 % (SIZE - 3 * CHUNK), 2 * CHUNK) == bytes([60]) * 2 * CHUNK
    assert int(striped.router.state.counters[0].lost) > 20


def test_a_group_that_is_away_holds_up_its_own_requests_alone(striped):
    path = striped.members[0].directory / "volume.sock"
    away = path.with_name("away.sock")
    with striped.client() as client:
        assert client.write(0, b"x") == 0
        path.rename(away)
        striped.members[0].cut()
        waiting = client.issue(nbd.WRITE, 0, 4, b"late")
        done = client.issue(nbd.WRITE, CHUNK, 4, b"soon")
        assert client.reap()[0] == done and waiting in client.in_flight
        away.rename(path)
        assert client.reap()[0] == waiting
        assert client.read(0, 4) == b"late"


def test_a_volume_grows_under_a_writer_and_who_comes_then_sees_it(striped):
    with striped.client() as client:
        assert client.write(SIZE - 4, b"last") == 0
        striped.router.resize(SIZE + GROUPS * CHUNK)
        assert client.read(SIZE - 4, 4) == b"last"
        assert client.write(SIZE, b"beyond") == nbd.ENOSPC
    with striped.client() as client:
        assert client.size == SIZE + GROUPS * CHUNK
        assert client.write(SIZE, b"beyond") == 0 and client.read(SIZE - 4, 10) == b"lastbeyond"


def test_a_group_that_is_too_small_or_none_is_not_connected_to(tmp_path_factory, caplog):
    directory = tmp_path_factory.mktemp("s")
    with contextlib.ExitStack() as stack:
        small = FakeVolume(stack, directory / "db.0", CHUNK, 1)
        sockets = directory / "db"
        sockets.mkdir(mode=0o700)
        order = Order("db", 99, 4 * CHUNK, CHUNK, sockets, (small.directory,), directory / "db.json")
        router, _ = stack.enter_context(routed(order))
        until(lambda: "it has 65536 bytes, and 262144 are needed" in caplog.text)
        assert not router.are_linked()
        router.state.at[0].limit_ns = 200_000_000
        client = NbdClient(str(sockets / "volume.sock"))
        with pytest.raises(UnfitError, match="hung up"):
            client.read(0, 10)
        router.look()
        assert "has not answered for" in caplog.text
        client.close()


def test_views_that_nobody_uses_are_let_go_and_too_many_are_refused(striped, monkeypatch):
    ask(striped.sockets, Take("one"))
    with striped.client(b"volume@one") as client:
        client.read(0, 10)
        assert len(striped.router.bases) == 2
    monkeypatch.setattr("farwrite.engine.frontend.router.IDLE_VIEWS_S", 0)
    until(lambda: (striped.router.look(), len(striped.router.bases) == 1)[1])
    assert Place(str(striped.sockets / "volume.sock")).uri.startswith("nbd+unix")
