"""Our client of NBD against servers that keep to the protocol, and against those that do not."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading

import pytest

from fake_volume import BLOCK, FakeVolume
from farwrite.base.errors import UnfitError, UsageError
from farwrite.engine.frontend import nbd
from farwrite.engine.frontend.nbd_client import NbdClient, Place, place_of

SIZE = 2 << 20
CHANGED = "farwrite:changed-since:one"


@pytest.mark.parametrize(("uri", "place"), [
    ("nbd+unix:///volume?socket=/a/b.sock", Place("/a/b.sock", "volume")),
    ("nbd+unix:///?socket=/a%20b.sock", Place("/a b.sock", "")),
    ("nbd://host:5/volume%40one", Place(("host", 5), "volume@one")),
    ("nbd://[::1]/x", Place(("::1", 10809), "x")),
])  # fmt: skip
def test_a_uri_names_a_place(uri, place):
    assert place_of(uri, "source") == place and place_of(place.uri, "source") == place


@pytest.mark.parametrize("uri", [
    "", "volume.sock", "http://x", "nbd://", "nbd://h:99999/x", "nbd+unix:///x", "nbd+unix://host/x?socket=/s", "nbds://host/x",
    "nbd://user@host/x", "nbd+unix:///x?socket=/s&socket2=1", "nbd://h/" + "x" * 300, "nbd://h/%ff",
    "nbd+unix:///x?socket=" + "s" * 5000,
    "nbd://h/x#y", "nbd://[::1/x", "nbd+unix:///x?socket=%00",
])  # fmt: skip
def test_a_uri_that_names_none_is_refused_with_a_sentence(uri):
    with pytest.raises(UsageError, match="source"):
        place_of(uri, "source")


def test_requests_under_way_are_answered_whole_and_status_comes_by_context(tmp_path):
    with contextlib.ExitStack() as stack:
        volume = FakeVolume(stack, tmp_path / "v", SIZE, 1)
        volume.write(0, bytes(range(256)) * 1024)
        volume.take_snapshot("one")
        volume.write(1 << 20, b"x" * BLOCK)
        volume.empty(2 * BLOCK, BLOCK)
        for at in range(10, 40, 2):
            volume.write(at * BLOCK, b"y")
        client = stack.enter_context(NbdClient(volume.end.place, [nbd.BASE_ALLOCATION, CHANGED, "none:such"]))
        asked = {client.issue(nbd.READ, at, 9000): at for at in range(0, 200_000, 5000)}
        while client.in_flight:
            cookie, answer = client.reap()
            assert answer.data == volume.head.data[asked[cookie] :][:9000].tobytes()
        for windows in (1, 4, 16):
            found = client.extents(0, SIZE, windows)
            assert set(found) == {nbd.BASE_ALLOCATION, CHANGED}
            for context, flags, bit in ((nbd.BASE_ALLOCATION, ~volume.head.allocated, 3),
                                        (CHANGED, volume.head.version > 1, 1)):  # fmt: skip
                at = 0
                for one in found[context]:
                    assert one.begin == at and one.status in (0, bit)
                    assert (flags[at // BLOCK : one.end // BLOCK] == bool(one.status)).all()
                    at = one.end
                assert at == SIZE
        assert client.read(SIZE - 5, 5) == bytes(5)
        with NbdClient(volume.end.export("one")) as frozen:
            assert frozen.write(0, b"x") == nbd.EPERM and frozen.read(1 << 20, 3) == bytes(3)
        with pytest.raises(UnfitError, match="refused by the server: there is no such export"):
            NbdClient(volume.end.export("two"))


# Servers that do not


def greeted(size=SIZE):
    """What an honest server says until transmission, without contexts."""
    info = struct.pack(">HQH", 0, size, nbd.TRANSMISSION_FLAGS)
    return (
        struct.pack(">QQH", nbd.INIT_MAGIC, nbd.OPTION_MAGIC, 3)
        + struct.pack(">QIII", nbd.OPTION_REPLY_MAGIC, nbd.OPT_GO, nbd.REP_INFO, len(info)) + info
        + struct.pack(">QIII", nbd.OPTION_REPLY_MAGIC, nbd.OPT_GO, nbd.REP_ACK, 0)
    )  # fmt: skip


def greeted_with_context():
    context = struct.pack(">I", 3) + nbd.BASE_ALLOCATION.encode()
    hello = greeted()
    return (
        hello[:18] + struct.pack(">QIII", nbd.OPTION_REPLY_MAGIC, nbd.OPT_STRUCTURED_REPLY, nbd.REP_ACK, 0)
        + struct.pack(">QIII", nbd.OPTION_REPLY_MAGIC, nbd.OPT_SET_META_CONTEXT, nbd.REP_META_CONTEXT, len(context)) + context
        + struct.pack(">QIII", nbd.OPTION_REPLY_MAGIC, nbd.OPT_SET_META_CONTEXT, nbd.REP_ACK, 0) + hello[18:]
    )  # fmt: skip


@contextlib.contextmanager
def lying(tmp_path, says):
    """A server that says these bytes to whoever comes, and hangs up once its client does."""
    path = tmp_path / "lie"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def lie():
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    connection.sendall(says)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 16):
                        pass

        thread = threading.Thread(target=lie)
        thread.start()
        try:
            yield Place(str(path), "volume")
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            path.unlink()


def chunk(kind, data, cookie=1, flags=1):
    return nbd.CHUNK.pack(nbd.STRUCTURED_REPLY_MAGIC, flags, kind, cookie, len(data)) + data


@pytest.mark.parametrize("answer", [
    b"", b"\0" * 64, nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, 0, 1) + bytes(4096), chunk(nbd.CHUNK_NONE, b""),
    chunk(nbd.CHUNK_DATA, struct.pack(">Q", 0) + bytes(4096), cookie=9),
    chunk(nbd.CHUNK_DATA, struct.pack(">Q", 4096) + bytes(4096)),
    chunk(nbd.CHUNK_DATA, struct.pack(">Q", 0) + bytes(4097)), chunk(nbd.CHUNK_DATA, struct.pack(">Q", 0) + bytes(100)),
    chunk(nbd.CHUNK_HOLE, struct.pack(">QI", 0, 5000)), chunk(nbd.CHUNK_HOLE, struct.pack(">QI", 0, 0)),
    2 * chunk(nbd.CHUNK_DATA, struct.pack(">Q", 0) + bytes(4096), flags=0),
    chunk(nbd.CHUNK_BLOCK_STATUS, struct.pack(">III", 3, 4096, 0)), chunk(17, b"x" * 20), chunk(nbd.CHUNK_ERROR, b"x"),
    nbd.CHUNK.pack(nbd.STRUCTURED_REPLY_MAGIC, 1, nbd.CHUNK_DATA, 1, 0xFFFFFFFF),
])  # fmt: skip
def test_a_lie_about_a_read_ends_the_connection_with_a_sentence(tmp_path, answer):
    with lying(tmp_path, greeted_with_context() + answer) as place, NbdClient(place, [nbd.BASE_ALLOCATION], 5.0) as client:
        client.issue(nbd.READ, 0, 4096)
        with pytest.raises(UnfitError, match=r"does not keep to the protocol|answers no more"):
            client.reap()


@pytest.mark.parametrize("answer", [
    chunk(nbd.CHUNK_BLOCK_STATUS, struct.pack(">III", 4, 4096, 0)), chunk(nbd.CHUNK_BLOCK_STATUS, struct.pack(">I", 3)),
    chunk(nbd.CHUNK_BLOCK_STATUS, struct.pack(">III", 3, 0, 0)), chunk(nbd.CHUNK_NONE, b""),
    chunk(nbd.CHUNK_BLOCK_STATUS, struct.pack(">5I", 3, 4096, 0, 4096, 0)), chunk(nbd.CHUNK_DATA, bytes(100)),
])  # fmt: skip
def test_a_lie_about_a_status_ends_the_connection_with_a_sentence(tmp_path, answer):
    with lying(tmp_path, greeted_with_context() + answer) as place, NbdClient(place, [nbd.BASE_ALLOCATION], 5.0) as client:
        refused = pytest.raises(UnfitError, match="does not keep to the protocol")
        with refused:
            client.extents(0, 4096)


def test_mutated_servers_are_refused_with_a_sentence(tmp_path):
    story = random.Random(3)
    good = greeted_with_context() + chunk(nbd.CHUNK_BLOCK_STATUS, struct.pack(">III", 3, 4096, 0))
    good += chunk(nbd.CHUNK_DATA, struct.pack(">Q", 0) + bytes(64), cookie=2)
    for _ in range(300):
        data = bytearray(good)
        for _ in range(story.randrange(1, 5)):
            data[story.randrange(len(data))] = story.randrange(256)
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(lying(tmp_path, bytes(data[: story.randrange(len(data) // 2, len(data) + 1)])))
            stack.enter_context(contextlib.suppress(UnfitError))
            client = stack.enter_context(NbdClient(place, [nbd.BASE_ALLOCATION], 5.0))
            client.extents(0, 4096)
            client.read(0, 64)


def test_a_server_that_is_silent_or_too_large_is_given_up(tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "silent"))
        listening.listen()
        with pytest.raises(UnfitError, match="silent"):
            NbdClient(Place(str(tmp_path / "silent"), "x"), limit_s=0.2)
    with lying(tmp_path, greeted(1 << 63)) as place, pytest.raises(UnfitError, match="how large"):
        NbdClient(place)
