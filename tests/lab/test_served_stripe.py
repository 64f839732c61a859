"""A striped volume that is really served: four nodes, two groups, their primaries killed under a writer, snapshots meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from small_lab import any_link
from test_serve import until, writing
from test_served_pool import done, lost, serving

from console import assert_refused, environment, farwrite, words_of
from nbd_client import NbdClient

pytestmark = [pytest.mark.lab, any_link]

MIB = 1 << 20
CHUNK = 64 * MIB  # As the command has it.


@pytest.fixture
def place():
    made = Path(tempfile.mkdtemp(prefix="fw-"))
    yield made
    shutil.rmtree(made)


def test_a_striped_volume_loses_its_primaries_under_a_writer_who_never_reconnects(place):
    """One story, because a pool takes seconds to open: each part says what it shows."""
    san, doors = place / "san", place / "d"
    nodes = [word for name in ("a@near", "b@far", "c@near", "d@far") for word in ("--node", f"{name}=1g")]
    done("pool", "create", san, *nodes, "--json")
    made = done("volume", "create", "db", "--size", str(4 * CHUNK), "--level", "10", "--groups", "2", "--pool", san, "--json")
    assert made["groups"] == 2 and {copy["node"] for copy in made["copies"]} == {"a", "b", "c", "d"}
    assert [one["name"] for one in done("volume", "list", "--pool", san, "--json")] == ["db"]
    with serving(san, doors) as served:
        db = doors / "db" / "volume.sock"
        listed = {one["name"]: one for one in served.pool["volumes"]}
        assert listed["db"]["leader"] == "router" and set(listed) == {"db", "db.0", "db.1"}
        assert_refused(farwrite("volume", "delete", "db.0", "--pool", san), "is a part of the striped volume db")
        # Writes around the border between two groups, one connection all the while.
        with writing(db, begin=CHUNK - 32 * 4096) as writer:
            until(lambda: writer.number > 5, "no write was answered")
            first = writer.client
            for member in ("db.0", "db.1"):
                before = leader_of(doors / member)
                os.kill(before, signal.SIGKILL)
                until(lambda path=doors / member, before=before: has_another_leader(path, before), "nobody succeeds it")
                number = writer.number
                until(lambda number=number: writer.number > number + 100, "writes do not go on")
            for number in range(3):
                snapshot = done("snapshot", "create", f"s{number}", "--sockets", doors / "db", "--json")
                assert snapshot["is_whole"]
            assert writer.client is first, "the writer had to connect again"
        assert lost(writer, db) == []
        # It grows, and its clients that come then see it.
        grown = done("volume", "resize", "db", "--size", str(6 * CHUNK), "--pool", san, "--json")
        until(lambda: size_of(db) == grown["size_bytes"] == 6 * CHUNK, "it does not grow")
        with NbdClient(str(db), limit_s=60) as client:
            assert client.write(6 * CHUNK - 8, b"the end.") == 0 and client.read(6 * CHUNK - 8, 8) == b"the end."
    with serving(san, doors) as served:  # All of it is there again.
        assert lost(writer, db) == [] and len(done("snapshot", "list", "--sockets", doors / "db", "--json")["snapshots"]) == 3
        done("volume", "delete", "db", "--pool", san)
        assert done("volume", "list", "--members", "--pool", san, "--json") == []
    assert not (san / "striped" / "db.json").exists()


def test_a_group_moves_behind_its_router_under_a_writer_who_never_reconnects(place):
    """One story again: passes, one snapshot, a move that is given up, one whose pool is killed."""
    san, doors = place / "san", place / "d"
    nodes = [word for name in ("a@near", "b@far", "c@near", "d@far") for word in ("--node", f"{name}=1g")]
    done("pool", "create", san, *nodes, "--json")
    done("volume", "create", "db", "--size", str(CHUNK), "--level", "10", "--groups", "1", "--pool", san, "--json")
    done("volume", "create", "log", "--size", str(MIB), "--level", "10", "--pool", san, "--json")
    first, second = sorted(nodes_of(san, "db.0")), sorted({"a", "b", "c", "d"} - nodes_of(san, "db.0"))
    to = {number: ["--to", ",".join(second if number % 2 else first), "--pool", san] for number in (1, 2)}
    db = doors / "db" / "volume.sock"
    with serving(san, doors) as served:
        assert_refused(farwrite("migrate", "log", "--by", "passes", *to[1]), "has no router")
        assert_refused(farwrite("migrate", "db", "--by", "passes", "--to", "c", "--pool", san), "takes 2 nodes")
        assert_refused(farwrite("migrate", "db", "--by", "snapshot", "--pause", "1 s", *to[1]), "--pause says when")
        done("snapshot", "create", "monday", "--sockets", doors / "db", "--json")
        assert_refused(farwrite("migrate", "db", "--by", "passes", *to[1]), "Snapshots do not move")
        done("snapshot", "delete", "monday", "--sockets", doors / "db")
        assert members(san) == ["db.0", "log"]
        assert_together(doors / "db", doors / "log")
        with NbdClient(str(db), limit_s=60) as client:
            for at in range(MIB, CHUNK, MIB):
                assert client.write(at, os.urandom(MIB)) == 0
        with writing(db) as writer:
            until(lambda: writer.number > 5, "no write was answered")
            client = writer.client
            moved = done("migrate", "db", "--by", "passes", "--pause", "5 s", *to[1], "--json", "-q")
            assert (moved["by"], moved["replaces"], moved["replica"]) == ("passes", "db.0", "db.1") and moved["passes"] >= 2
            assert moved["copied_bytes"] >= CHUNK - MIB and moved["switch_pause_ns"] > 0
            assert members(san) == ["db.1", "log"] and sorted(nodes_of(san, "db.1")) == second
            said = done("migrate", "db.1", "--by", "snapshot", *to[2])
            assert "db.1 is now db.0 on " in said and "2 passes, the last one while clients waited" in said
            again = done("migrate", "db", "--by", "snapshot", *to[1], "--json", "-q")
            assert again["replica"] == moved["replica"] and again["begin_ns"] > moved["end_ns"], "an earlier one's figures"
            assert writer.client is client, "the writer had to connect again"
        assert lost(writer, db) == []
    # Over a link on which a move takes long. Given up, by Ctrl-C, it stays where it is.
    with serving(san, doors, "--rate", "50mbit") as served, writing(db) as writer:
        until(lambda: writer.number > 5, "no write was answered")
        client = writer.client
        with moving(san, to[2]) as given_up:
            given_up.send_signal(signal.SIGINT)
            assert "given up" in given_up.communicate()[1] and given_up.returncode == 130
        until(lambda: members(san) == ["db.1", "log"], "what was given up is not gone")
        number = writer.number
        until(lambda: writer.number > number + 100, "writes do not go on")
        assert writer.client is client, "the writer had to connect again"
        # Everything is killed while it moves.
        with moving(san, to[2]) as cut_off:
            served.process.kill()
            served.process.wait()
            assert cut_off.communicate()[0] == ""
    with serving(san, doors):
        assert lost(writer, db) == []
        assert members(san) == ["db.1", "log"] and {path.name for path in (san / "nodes").glob("*/db.*")} == {"db.1"}


def assert_together(first, second):
    """Snapshots of a striped and of a plain volume, while a client writes a number to one and then to the other."""
    both, ending = ["--sockets", first, "--sockets", second], threading.Event()

    def write():
        with client_at(first) as one, client_at(second) as other:
            number = 0
            while not ending.is_set():
                number += 1
                assert one.write(0, number.to_bytes(8, "big")) == 0 and other.write(0, number.to_bytes(8, "big")) == 0

    thread = threading.Thread(target=write)
    thread.start()
    try:
        made = [done("snapshot", "create", f"both{number}", *both, "--json") for number in range(3)]
    finally:
        ending.set()
        thread.join()
    found = [[number_in(place, one["export"]) for place in (first, second)] for one in made]
    assert all(one["volumes"] == 2 and one["pause_seconds"] > 0 for one in made)
    assert all(0 <= sooner - later <= 1 for sooner, later in found) and found[0][0] < found[1][0] < found[2][0]
    assert_refused(farwrite("snapshot", "create", "both1", *both), "a snapshot both1 already")
    done("snapshot", "delete", *[one["name"] for one in made], *both)


def client_at(place, export="volume"):
    return NbdClient(str(place / "volume.sock"), export.encode(), limit_s=60)


def number_in(place, export):
    with client_at(place, export) as client:
        return int.from_bytes(client.read(0, 8), "big")


@contextlib.contextmanager
def moving(san, words):
    """`farwrite migrate`, once it copies."""
    words = words_of("migrate", "db", "--by", "passes", *map(str, words))
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as made:
        try:
            until(lambda: members(san) == ["db.0", "db.1", "log"], "nothing moves")
            yield made
        finally:
            made.kill()


def members(san):
    return sorted(one["name"] for one in done("volume", "list", "--members", "--pool", san, "--json") if one["name"] != "db")


def nodes_of(san, name):
    listed = {one["name"]: one for one in done("volume", "list", "--members", "--pool", san, "--json")}
    return {copy["node"] for copy in listed[name]["copies"]}


def has_another_leader(sockets, before):
    try:
        return leader_of(sockets) != before
    except OSError:
        return False


def size_of(path):
    with NbdClient(str(path), limit_s=60) as client:
        return client.size


def leader_of(sockets):
    """The process that listens there: the replica that leads. unix(7), SO_PEERCRED."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(sockets / "volume.sock"))
        return struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
