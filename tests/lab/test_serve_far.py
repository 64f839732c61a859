"""`farwrite serve --far ssh://HOST`: the far replica and the witness on other machines, whose part an sshd on loopback plays."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from leftovers import gone, marked
from sshd import sshd_place, sshd_running

from console import environment, words_of
from farwrite.base.errors import EXIT_UNFIT, EXIT_USAGE, UnfitError
from farwrite.engine.frontend import nbd
from nbd_client import NbdClient

READY_S, END_S, PATIENCE_S = 280, 60, 60
SIZE, BLOCK = 64 << 20, 4096


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return sshd_place(tmp_path_factory.mktemp("ssh"))


@pytest.fixture(scope="module")
def beside(place):
    with sshd_running(place) as words:
        yield words


@pytest.fixture
def disk(tmp_path_factory, place):
    """A directory with a short name: sockets are in it. Nothing of the far machine's is left in the end."""
    made = Path(tmp_path_factory.mktemp("d"))
    yield made
    assert gone(lambda: marked(f"FARWRITE_TEST={place}"), END_S), "something is left of the far machine"
    shutil.rmtree(made)


def environment_of(place, config="ssh_config"):
    return environment(FARWRITE_SSH=f"ssh -F {place}/{config}")


class Serving(SimpleNamespace):
    """A `farwrite serve` that is ready: its document, and what it says meanwhile."""

    def said(self, words, limit_s=PATIENCE_S):
        """Wait until it has said this."""
        until_s = time.monotonic() + limit_s
        while words not in "".join(self.lines):
            assert time.monotonic() < until_s, f"it has not said {words!r}:\n{''.join(self.lines)}"
            time.sleep(0.05)


@contextlib.contextmanager
def serving(place, beside, *words, config="ssh_config"):
    """It ends in order with exit code 0, unless it was killed."""
    with subprocess.Popen(
        [*beside, *words_of("serve", "--json", *words)], env=environment_of(place, config), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        lines: list[str] = []
        reading = threading.Thread(target=lambda: lines.extend(iter(process.stderr.readline, "")))
        reading.start()
        try:
            text = ""
            while not text.endswith("\n}\n"):
                line = process.stdout.readline()
                if not line:
                    process.wait(END_S)
                    reading.join(END_S)
                    pytest.fail("".join(lines))
                text += line
            yield Serving(process=process, lines=lines, **json.loads(text))
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(END_S)
            reading.join(END_S)
            assert process.returncode in (0, -signal.SIGKILL) and "Traceback" not in "".join(lines), "".join(lines)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def refused(place, beside, *words):
    """(exit code, what it said)"""
    done = subprocess.run(
        [*beside, *words_of("serve", "--json", *words)], env=environment_of(place), capture_output=True, text=True,
        timeout=READY_S, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


class Writer(threading.Thread):
    """Writes at a volume until it is told to end, to who answers; `answered` is what must be there."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.answered, self.count, self.is_over, self.random = path, {}, 0, False, random.Random(7)

    def run(self):
        while not self.is_over:
            with contextlib.suppress(OSError, UnfitError), NbdClient(self.path) as client:
                while not self.is_over:
                    address = self.random.randrange(SIZE // BLOCK // 2) * BLOCK
                    data = self.random.randbytes(BLOCK)
                    self.answered.pop(address, None)  # Until it is answered either may be there.
                    if client.write(address, data) == 0:
                        self.answered[address], self.count = data, self.count + 1
            time.sleep(0.05)

    def grows(self, by=20):
        """Wait until it was answered so many times more."""
        until_s, before = time.monotonic() + PATIENCE_S, self.count
        while self.count < before + by:
            assert time.monotonic() < until_s, "writes are not answered"
            time.sleep(0.02)

    def end(self):
        self.is_over = True
        self.join(PATIENCE_S)
        assert self.answered and not self.is_alive()


def assert_all_there(path, answered):
    """Every write that was answered is read."""
    with NbdClient(path) as client:
        for address, data in answered.items():
            assert client.read(address, BLOCK) == data, address


DIAL = "import socket, sys; print(socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(8).decode())"


def run_beside(beside, port):
    """What a TCP port of the machines says first."""
    done = subprocess.run([*beside, sys.executable, "-c", DIAL, port], capture_output=True, timeout=PATIENCE_S, check=False)
    return done.stdout.strip()


def keeps_up(beside, served, peer="far"):
    """Wait until this replica holds all that who leads does."""
    asks = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
    told = {"live": 1, "detached": 0, "lag_writes": 0}
    wanted = [f'farwrite_peer_{name}{{peer="{peer}"}} {value}' for name, value in told.items()]
    until_s = time.monotonic() + PATIENCE_S
    while True:
        words = [*beside, sys.executable, "-c", asks, served.metrics_uri]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        if all(line in done.stdout for line in wanted):
            return
        assert time.monotonic() < until_s, done.stdout
        time.sleep(0.2)


def bytes_of(directory):
    return (directory / "volume").read_bytes()[:SIZE]


def test_a_far_replica_over_ssh_holds_every_write_comes_back_when_killed_and_goes_on_without_ssh(place, beside, disk):
    new = ("--far", f"ssh://farhost{disk}/far", "--far-command", place / "farwrite", "--keep", disk / "near", "--size", SIZE)
    with serving(place, beside, *new, "--sockets", disk / "s", "--metrics", 0) as served:
        assert (served.link, served.leader) == ("real", "near")
        assert "as measured" in served.distance and "TCP directly; TLS 1.3" in served.distance
        writer = Writer(f"{served.sockets}/volume.sock")
        writer.start()
        writer.grows()
        os.kill(served.elsewhere["far"]["voter_pid"], signal.SIGKILL)
        writer.grows()
        served.said("farhost: far is started again")
        os.kill(served.elsewhere["far"]["ssh_pid"], signal.SIGKILL)
        served.said("far is not heard")
        writer.grows()
        served.said("far at farhost is attached again")
        served.lines.clear()
        os.kill(served.elsewhere["far"]["pid"], signal.SIGKILL)  # Its supervisor, and the replica with it.
        writer.grows()
        served.said("far at farhost is attached again")
        writer.grows()
        writer.end()
        keeps_up(beside, served)
        seen = [line for line in served.lines if "is not heard" in line]  # More than once, where the machine holds it up.
        assert seen and "ssh is tried again" in seen[0]
    assert bytes_of(disk / "near" / "near") == bytes_of(disk / "far" / "far")
    assert {one.name for one in (disk / "far").iterdir()} == {"far", "volume.json", "lock"}
    with serving(place, beside, "--volume", disk / "near", "--sockets", disk / "s") as served:
        assert_all_there(f"{served.sockets}/volume.sock", writer.answered)
        os.killpg(served.process.pid, signal.SIGKILL)  # Far goes on, with a key that near does not know any more.
    (place / "other_config").write_text("Host farhost\n  HostName 127.0.0.1\n  Port 9\n")
    again = ("--volume", disk / "near", "--sockets", disk / "s", "--metrics", 0)
    with serving(place, beside, *again, config="other_config") as served:
        assert served.leader == "near" and "not reached now" in served.distance
        writer = Writer(f"{served.sockets}/volume.sock")
        writer.start()
        writer.grows()  # By the witness's leave.
        (place / "other_config").write_text((place / "ssh_config").read_text())
        served.said("far at farhost is attached again")
        writer.grows()
        writer.end()
        keeps_up(beside, served)
    assert bytes_of(disk / "near" / "near") == bytes_of(disk / "far" / "far")
    (disk / "far").rename(disk / "moved")
    code, said = refused(place, beside, "--volume", disk / "near")
    assert code == EXIT_USAGE and "far has no files" in said, said


def test_the_far_replica_leads_when_near_and_its_ssh_are_killed_and_near_comes_back_to_it(place, beside, disk):
    new = (
        "--far", "ssh://farhost", "--far-keep", disk / "far", "--witness", f"ssh://farhost{disk}/third",
        "--far-command", place / "farwrite", "--keep", disk / "near", "--size", SIZE, "--port", 0, "--far-listen", "127.0.0.1",
    )  # fmt: skip
    with serving(place, beside, *new, "--sockets", disk / "s") as served:
        there = served.elsewhere["far"]["tcp_uri"].rpartition(":")[2]
        assert run_beside(beside, there) == b""  # Nobody listens there while near leads.
        writer = Writer(f"{served.sockets}/volume.sock")
        writer.start()
        writer.grows(50)
        os.killpg(served.process.pid, signal.SIGKILL)
        far_door = disk / "far" / "sockets" / "far.sock"
        until_s = time.monotonic() + PATIENCE_S
        while not far_door.exists():
            assert time.monotonic() < until_s, "far does not lead"
            time.sleep(0.05)
        writer.end()
    assert_all_there(str(far_door), writer.answered)
    assert run_beside(beside, there) == b"NBDMAGIC"
    with pytest.raises(AssertionError):  # A write that is missing is found.
        assert_all_there(str(far_door), {**writer.answered, 0: b"never written".ljust(BLOCK, b"!")})
    later = Writer(str(far_door))
    later.start()
    later.grows()
    with serving(place, beside, "--volume", disk / "near", "--sockets", disk / "s") as served:
        assert served.leader == "far" and served.elsewhere["far"]["host"] == "farhost"
        later.grows()
        later.end()
        assert_all_there(str(far_door), later.answered)
    assert bytes_of(disk / "near" / "near") == bytes_of(disk / "far" / "far")


def test_where_only_ssh_gets_through_voters_meet_through_it_and_it_is_said(place, beside, disk):
    """`behind` stands at an address that nobody reaches (RFC 5737) but through another machine's ssh."""
    new = ("--far", f"ssh://behind{disk}/far", "--far-command", place / "farwrite", "--keep", disk / "near", "--size", SIZE)
    with serving(place, beside, *new, "--sockets", disk / "s", "--metrics", 0) as served:
        assert "through ssh (the ports are closed); TLS 1.3" in served.distance
        with NbdClient(f"{served.sockets}/volume.sock") as client:
            assert client.write(0, b"x" * BLOCK, nbd.FUA) == 0
            for pid in served.forward_pids:
                os.kill(pid, signal.SIGKILL)
            assert client.write(BLOCK, b"y" * BLOCK, nbd.FUA) == 0  # By the witness's leave, or once ssh is there again.
        keeps_up(beside, served)
        os.kill(served.pids["near"], signal.SIGKILL)
        served.said("far leads and its doors are open")
        with NbdClient(str(disk / "far" / "sockets" / "far.sock")) as client:
            assert client.read(0, BLOCK) == b"x" * BLOCK
            assert client.write(2 * BLOCK, b"z" * BLOCK) == 0
        keeps_up(beside, served, "near")
    for directory in (disk / "near" / "near", disk / "far" / "far"):
        assert bytes_of(directory)[: 3 * BLOCK] == b"x" * BLOCK + b"y" * BLOCK + b"z" * BLOCK


def test_what_cannot_be_served_over_ssh_is_refused_and_leaves_nothing(place, beside, disk):
    keep = ("--keep", disk / "near", "--size", SIZE)
    code, said = refused(place, beside, "--far", f"ssh://farhost{disk}/far", "--far-command", "/no/farwrite", *keep)
    assert code == EXIT_USAGE and "There is no farwrite at farhost" in said and "--far-command" in said, said
    code, said = refused(place, beside, "--far", f"ssh://farhost:9{disk}/far", *keep)
    assert code == EXIT_UNFIT and "ended with exit code 255" in said, said
    code, said = refused(
        place, beside, "--far", f"ssh://farhost{disk}/far", "--far-command", place / "farwrite", *keep, "--port", 0,
        "--far-listen", "192.0.2.1",
    )  # fmt: skip
    assert code == EXIT_USAGE and "needs certificates: --far-tls" in said, said
    assert not (disk / "near").exists() and not (disk / "far").exists()
    (disk / "far").mkdir()
    (disk / "far" / "volume.json").write_text("{}")
    code, said = refused(place, beside, "--far", f"ssh://farhost{disk}/far", "--far-command", place / "farwrite", *keep)
    assert code == EXIT_USAGE and "holds a volume" in said, said
    assert not (disk / "near").exists()
