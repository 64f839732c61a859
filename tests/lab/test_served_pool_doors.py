"""A pool's doors are those of `serve`: TCP, iSCSI and metrics, for as many volumes as there are; and how it ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from small_lab import any_link
from test_serve import metrics_of, running, until
from test_serve_iscsi import GOOD, KEY, REGISTER, key_count, portal_of, read, write
from test_served_pool import SIZE, done, place

from console import assert_refused, farwrite, words_of
from engine.frontend.iscsi.initiator import NAME, Initiator
from farwrite.base.errors import UnfitError
from farwrite.engine.frontend.iscsi import login
from farwrite.engine.frontend.iscsi.store import AREA_BYTES
from nbd_client import NbdClient

__all__ = ["place"]  # A fixture.
pytestmark = [pytest.mark.lab, any_link]


def serving(directory, sockets, *words):
    words = ["--miles", "20", "--sockets", sockets, "--json", "--accept-link-error", *words]
    return running(words_of("pool", "serve", directory, *words), start_new_session=True)


def volume_named(san, name):
    return next(one for one in done("volume", "list", "--pool", san, "--json") if one["name"] == name)


def logged_in(portal, target, isid=b"\x80\0\0\0\0\1"):
    """A session with the disk, as an initiator begins it that knows the pool's portal alone."""
    made = []

    def begins():
        with Initiator(portal, isid=isid) as first:
            status, answers, _ = first.login_request({"InitiatorName": NAME, "TargetName": target})
        assert status == login.MOVED_TEMPORARILY, hex(status)
        host, port = answers["TargetAddress"].partition(",")[0].rsplit(":", 1)
        try:
            one = Initiator((host, int(port)), isid=isid)
            one.log_in(target_name=target)
            assert one.command(bytes(6)).status == 2
        except (OSError, EOFError, AssertionError):
            return False
        made.append(one)
        return True

    until(begins, "no session begins")
    return made[0]


def identity(one):
    """The device identification page."""
    return bytes(one.command(bytes([0x12, 1, 0x83, 0, 255, 0]), reads=255).data)


def capacity(one):
    return (int.from_bytes(bytes(one.command(bytes([0x25]) + bytes(9), reads=8).data)[:4], "big") + 1) * 512


def held(pid, word):
    """How many files with this word in their names the children of a process hold."""
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    names = []
    for child in children:
        for link in Path(f"/proc/{child}/fd").glob("*"):
            try:
                names.append(str(link.readlink()))
            except OSError:
                continue
    return sum(word in name for name in names)


def write_on(path, answered):
    """Write one block after the other until that is refused; the last thing that is noted is how."""
    with NbdClient(path, limit_s=60) as client:
        for number in range(4096, 2 * SIZE // 4096):
            try:
                error = client.write(number * 4096, number.to_bytes(8, "big") * 512)
            except (OSError, EOFError, UnfitError):
                error = "hung up"
            answered.append(error or number)
            if error:
                return


def test_a_pool_is_reached_by_tcp_and_iscsi_wherever_it_is_led_and_ends_in_order_with_its_whole_process_group(place):
    """One story, because a pool takes seconds to open."""
    san, doors = place / "s", place / "e"
    done("pool", "create", san, "--node", "a@near=1g", "--node", "b@far=1g", "--node", "c@near=1g", "--json")
    assert_refused(farwrite("pool", "serve", san, "--miles", "20", "--listen", "0.0.0.0", "--iscsi", "0"), "--chap")
    assert_refused(farwrite("pool", "serve", san, "--miles", "20", "--forget-reservations", "x"), 'no volume "x"')
    done("volume", "create", "old", "--size", "1m", "--pool", san, "--json")
    done("volume", "create", "db", "--size", str(SIZE), "--pool", san, "--json")
    with serving(san, doors, "--port", "0", "--iscsi", "0", "--metrics", "0") as served:
        db = volume_named(san, "db")
        near = next(copy["node"] for copy in db["copies"] if copy["site"] == "near")
        until(lambda: volume_named(san, "db")["leader"].startswith(near), "it is led at the first site")
        (_, target), portal = portal_of(db["iscsi_uri"]), served.iscsi_portal.rpartition(":")
        portal = portal[0], int(portal[2])
        # The same bytes at every door.
        with logged_in(portal, target) as one, NbdClient(("127.0.0.1", int(db["tcp_uri"].rpartition(":")[2]))) as client:
            assert capacity(one) == SIZE == client.size and write(one, 8, b"by iSCSI".ljust(512, b".")) == GOOD
            assert client.read(8 * 512, 8) == b"by iSCSI"
            named = identity(one)
            parameters = bytes(8) + KEY.to_bytes(8, "big") + bytes(8)
            assert one.command(bytes([0x5F, REGISTER, 0, 0, 0, 0, 0, 0, 24, 0]), data=parameters).status == GOOD
            # It grows: a session hears of it, and reaches as far. Where reservations are kept is behind all of it.
            done("volume", "resize", "db", "--size", str(2 * SIZE), "--pool", san, "--json")
            until(lambda: one.command(bytes(6)).status == 2, "no unit attention")
            assert capacity(one) == 2 * SIZE and write(one, 2 * SIZE // 512 - 1, b"at its end".ljust(512, b".")) == GOOD
            assert write(one, 2 * SIZE // 512, bytes(512)) == 2 and client.size == SIZE
            leads = next(copy["replica"] for copy in db["copies"] if copy["node"] == near)
            clients = f'farwrite_clients{{volume="db",replica="{leads}"}}'
            until(lambda: metrics_of(served)[clients] == "2", "two clients: a session that is over may be counted for a moment")
            values = metrics_of(served)
            assert values[f'farwrite_leads{{volume="db",replica="{leads}"}}'] == "1"
            assert int(values[f'farwrite_node_promised_bytes{{node="{near}"}}']) >= SIZE + AREA_BYTES
            assert int(values[f'farwrite_node_led{{node="{near}"}}']) >= 1
        # Another node leads it: the same disk at the same address, with its reservations.
        done("migrate", "db", "--to", "c" if near == "a" else "a", "--from", near, "--pool", san, "--json", "-q")
        with logged_in(portal, target) as one:
            assert identity(one) == named and key_count(one) == 1 and capacity(one) == 2 * SIZE
            assert read(one, 8, 1)[:8] == b"by iSCSI" and read(one, 2 * SIZE // 512 - 1, 1)[:10] == b"at its end"
        # What is deleted gives its room back: no process of another volume holds its files.
        done("volume", "create", "new", "--size", "1m", "--pool", san, "--json")
        assert held(served.process.pid, "/old/") > 0
        done("volume", "delete", "old", "--pool", san)
        until(lambda: not held(served.process.pid, "/old/"), "files of a deleted volume are held")
        until(lambda: 'volume="old"' not in "".join(metrics_of(served)), "metrics of a deleted volume")
        assert 'volume="new"' in "".join(metrics_of(served))
        # A service manager ends it: every process is sent the signal.
        path, answered = doors / "db" / "volume.sock", []
        writer = threading.Thread(target=write_on, args=(str(path), answered))
        writer.start()
        until(lambda: len(answered) > 20, "no write was answered")
        os.killpg(served.process.pid, signal.SIGTERM)
        assert served.process.wait(60) == 0
        writer.join(60)
        assert answered.pop() in (errno.ESHUTDOWN, "hung up")
    assert "interrupted" in served.said and "has ended" not in served.said and "could be answered" not in served.said
    with serving(san, doors), NbdClient(str(path), limit_s=60) as client:
        assert [number for number in answered if client.read(number * 4096, 8) != number.to_bytes(8, "big")] == []
