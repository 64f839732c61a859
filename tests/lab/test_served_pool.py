"""A pool that is really served: volumes made, moved and grown under a writer, a node drained, all killed and opened again."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from small_lab import any_link
from test_serve import running, until, writing

from console import assert_refused, farwrite, words_of
from farwrite.base.errors import EXIT_UNFIT
from nbd_client import NbdClient

pytestmark = [pytest.mark.lab, any_link]

MIB = 1 << 20
SIZE = 32 * MIB


def serving(directory, sockets, *other):
    """`farwrite pool serve`: what it says once every volume is served."""
    words = ["--miles", "20", "--sockets", sockets, "--json", "--accept-link-error", *other]
    return running(words_of("pool", "serve", directory, *words))


def done(*words):
    """The document of a command that must work."""
    ended = farwrite(*words)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout) if "--json" in words else ended.stdout


def lost(writer, path):
    with NbdClient(str(path), limit_s=60) as client:
        return writer.lost(client.read)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a short name: paths of sockets are."""
    made = Path(tempfile.mkdtemp(prefix="fw-"))
    yield made
    shutil.rmtree(made)


def test_a_pool_serves_moves_grows_drains_and_is_there_again_after_everything_was_killed(place):
    """One story, because a pool takes seconds to open: each part says what it shows."""
    san, doors = place / "san", place / "d"
    done("pool", "create", san, "--node", "a@near=1g", "--node", "b@far=1g", "--node", "c@near=1g", "--json")
    first = done("volume", "create", "db", "--size", str(SIZE), "--pool", san, "--json")
    assert {copy["site"] for copy in first["copies"]} == {"near", "far"} and first["uri"] == ""
    with serving(san, doors) as served:
        # A volume of a pool at rest is served when that is, and another is made meanwhile.
        assert [one["name"] for one in served.pool["volumes"]] == ["db"]
        log = done("volume", "create", "log", "--size", str(SIZE), "--level", "0", "--pool", san, "--json")
        assert log["leader"].startswith(log["copies"][0]["node"]) and Path(log["sockets"]) == doors / "log"
        refused = farwrite("volume", "create", "log", "--size", "1m", "--pool", san)
        assert_refused(refused, "has a volume log already")
        assert_refused(farwrite("pool", "remove", san, "b"), "would have no copy at site far|would lose its level")
        assert_refused(farwrite("pool", "serve", san, "--miles", "20"), "is open already", code=EXIT_UNFIT)
        snapshot = done("snapshot", "create", "one", "--sockets", doors / "db", "--json")
        assert snapshot["is_whole"]
        # One copy moves under a writer, and the one that leads does.
        db = doors / "db" / "volume.sock"
        with writing(db) as writer:
            until(lambda: writer.acked, "no write was answered")
            leading = next(copy for copy in done("volume", "list", "--pool", san, "--json")[0]["copies"] if copy["leads"])
            free = next(name for name in ("a", "c") if name != leading["node"])
            moved = done("migrate", "db", "--to", free, "--from", leading["node"], "--pool", san, "--json", "-q")
            time.sleep(0.3)
        assert moved["replaces"] == leading["replica"] and moved["switch_pause_ns"] > 0 and moved["write_ns_max"] > 0
        assert moved["copied_bytes"] > 0 and lost(writer, db) == []
        now = done("volume", "list", "--pool", san, "--json")[0]
        assert {copy["node"] for copy in now["copies"]} == {free, "b"} and not (san / "nodes" / leading["node"] / "db").exists()
        assert done("snapshot", "list", "--sockets", doors / "db", "--json")["volume"] == first["number"]
        # A level is raised, on the volume that has one copy, under a writer.
        with writing(doors / "log" / "volume.sock") as other:
            raised = done("volume", "set-level", "log", "10", "--pool", san, "--json")
        assert len(raised["copies"]) == 2 and lost(other, doors / "log" / "volume.sock") == []
        # It grows; a smaller one is refused where something is written, and while a client is there.
        grown = done("volume", "resize", "db", "--size", str(SIZE + 8 * MIB), "--pool", san, "--json")
        with NbdClient(str(db), limit_s=60) as client:
            assert client.size == grown["size_bytes"] == SIZE + 8 * MIB
            assert client.write(SIZE + 4 * MIB, b"behind" * 100) == 0
            assert_refused(farwrite("volume", "resize", "db", "--size", str(SIZE), "--pool", san), "1 client that may write")
        smaller = "volume", "resize", "db", "--size", str(SIZE), "--pool", san
        until(lambda: "1 client" not in farwrite(*smaller).stderr, "its client stays")
        assert_refused(farwrite(*smaller), "uses what lies behind")
        # A node is drained under both writers, then let go.
        busy = "a" if any(copy["node"] == "a" for copy in done("volume", "list", "--pool", san, "--json")[0]["copies"]) else "c"
        with writing(db, 16 * MIB) as writer:
            until(lambda: writer.acked, "no write was answered")
            drained = done("pool", "remove", san, busy, "--json")
        assert busy not in [node["name"] for node in drained["nodes"]] and lost(writer, db) == []
        # Everything is killed.
        with writing(db, 24 * MIB) as last:
            until(lambda: last.acked, "no write was answered")
            served.process.kill()
            served.process.wait()
    done("pool", "add", san, "--node", "e@near=1g", "--json")
    with serving(san, doors):
        assert lost(last, db) == [] and lost(writer, db) == [] and lost(other, doors / "log" / "volume.sock") == []
        balanced = done("pool", "balance", san, "--json")
        assert [move[2] for move in balanced["moves"]] == ["e"] and lost(last, db) == []
        done("volume", "delete", "log", "--pool", san)
        assert not (doors / "log").exists()
    shown = done("pool", "show", san)
    assert "at rest" in shown and "volume db" in shown and "volume log" not in shown
