"""Thousands of clients at both doors at once, silent, half logged in, or logged in and silent: bounded memory, and others go on.

FARWRITE_CROWD says how many; 2000 unless set.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.frontend.iscsi.initiator import NAME, TARGET, Initiator
from farwrite.engine.frontend import nbd
from farwrite.engine.frontend.iscsi import target
from nbd_client import NbdClient

CROWD = int(os.environ.get("FARWRITE_CROWD", "2000"))
LIMIT_S, PATIENCE_S = 2.0, 60.0
LET_IN, OUT_OF_RESOURCES = 0, 0x0302
# What a replica may hold for a crowd, whatever its size: 64 and 32 sessions of iSCSI with 1 MiB each to receive into, 1024 NBD
# clients' pages, the stacks of as many threads as both doors let run.
GROWTH_BYTES_MAX = 256 << 20
THREADS_MAX = 1100

HELLO = (3).to_bytes(4, "big")
GO = nbd.OPTION_MAGIC.to_bytes(8, "big") + nbd.OPT_GO.to_bytes(4, "big") + (6).to_bytes(4, "big") + bytes(6)


class Server:
    """A process with both doors; what it takes of the machine."""

    def __init__(self):
        words = [sys.executable, Path(__file__).parent / "crowd.py", str(LIMIT_S)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.nbd, self.iscsi = (("127.0.0.1", int(port)) for port in self.process.stdout.readline().split())

    def status(self, name):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise AssertionError(f"its process has ended: {self.process.poll()}")

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(PATIENCE_S) == 0


@pytest.fixture(scope="module")
def files():
    """As many files as a crowd is, and a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CROWD + 500
    if hard not in (resource.RLIM_INFINITY,) and hard < wanted:
        pytest.skip(f"this user may not have {wanted} files open (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def server(files):
    made = Server()
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


class Honest:
    """A client that was there before: writes and reads back, one after the other, until told."""

    def __init__(self, address):
        self.client, self.count, self.is_over = NbdClient(address), 0, False
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        while not self.is_over:
            data = self.count.to_bytes(8, "big") * 64
            assert self.client.write(self.count % 64 * 4096, data) == 0
            assert self.client.read(self.count % 64 * 4096, len(data)) == data
            self.count += 1

    def goes_on(self):
        before, until_s = self.count, time.monotonic() + PATIENCE_S
        while self.count < before + 3:
            assert self.thread.is_alive() and time.monotonic() < until_s
            time.sleep(0.002)

    def close(self):
        self.is_over = True
        self.thread.join(PATIENCE_S)
        self.client.socket.close()


def login_text(number, kind, transit):
    """A login request of an initiator port of its own."""
    words = {"InitiatorName": f"{NAME}{number}", "SessionType": kind}
    words |= {"TargetName": TARGET} if kind == "Normal" else {}
    data = b"".join(f"{key}={value}\0".encode() for key, value in words.items())
    flags = 0x87 if transit else 0x04
    head = bytes([0x43, flags, 0, 0, 0]) + len(data).to_bytes(3, "big") + b"\x80\0" + number.to_bytes(4, "big") + bytes(2)
    return (head + (1).to_bytes(4, "big") + bytes(4) + (1).to_bytes(4, "big")).ljust(48, b"\0") + data + bytes(-len(data) % 4)


def words_of(number):
    """(whether it comes to the iSCSI portal, what it says before it falls silent): ten kinds of clients in turns.

    One in a hundred is an NBD client that is served, so that there is a place for the honest."""
    kinds = (
        (False, b""), (False, HELLO), (False, HELLO + GO[:13]), (False, HELLO + GO[: None if is_served(number) else 20]),
        (False, os.urandom(64)),
        (True, b""), (True, login_text(number, "Normal", True)[:47]), (True, login_text(number, "Normal", False)),
        (True, login_text(number, "Discovery", True)), (True, login_text(number, "Normal", True)),
    )  # fmt: skip
    return kinds[number % len(kinds)]


def is_served(number):
    """Whether this one has said enough to be served over NBD."""
    return number % 100 == 3


def retried(get_in):
    """What a client that tries again gets: of too many strangers it may be the one that has to go."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return get_in()
        except (OSError, EOFError, AssertionError):
            assert time.monotonic() < until_s
            time.sleep(0.05)


def open_crowd(stack, server, count, among):
    """So many of them; `among` is called now and then meanwhile."""
    crowd = []
    for number in range(count):
        to_iscsi, words = words_of(number)
        one = stack.enter_context(socket.socket())
        one.settimeout(PATIENCE_S)
        one.connect(server.iscsi if to_iscsi else server.nbd)
        with contextlib.suppress(ConnectionError):
            one.sendall(words)
        crowd.append(one)
        if number % (count // 4) == count // 8:
            among()
    return crowd


def still_open(crowd):
    """Those that the server has not hung up on. poll(2)."""
    waits = select.poll()
    for one in crowd:
        waits.register(one, select.POLLRDHUP)
    gone = {descriptor for descriptor, _ in waits.poll(0)}
    return [place for place, one in enumerate(crowd) if one.fileno() not in gone]


def test_a_crowd_at_both_doors_takes_bounded_memory_and_the_others_go_on(server):
    with contextlib.ExitStack() as stack:
        honest = Honest(server.nbd)
        stack.callback(honest.close)
        with Initiator(server.iscsi) as one:
            one.ready()
        honest.goes_on()
        before = server.status("VmRSS")

        def read_once():
            with NbdClient(server.nbd, limit_s=5) as client:
                assert client.read(0, 8) is not None

        def somebody_new_comes():
            honest.goes_on()
            assert server.status("Threads") < THREADS_MAX
            retried(read_once)
            honest.goes_on()

        crowd = open_crowd(stack, server, CROWD, somebody_new_comes)
        silent = [place for place in range(CROWD) if place % 10 not in (8, 9) and not is_served(place)]
        until_s = time.monotonic() + PATIENCE_S
        while set(silent) & set(still_open(crowd)):
            assert time.monotonic() < until_s, "strangers are still there"
            honest.goes_on()
        left = still_open(crowd)
        assert [place for place in left if place % 10 < 5]  # Served, and silent.
        assert len([place for place in left if place % 10 == 8]) <= target.DISCOVERIES_MAX
        logged_in = [place for place in left if place % 10 == 9]
        assert 0 < len(logged_in) <= target.SESSIONS_MAX
        answered = {status_of(crowd[place]) for place in range(9, CROWD, 10) if place not in left}
        # LET_IN: a session that was asked whether anybody is there, and ended when nobody said so, where all this takes long.
        assert OUT_OF_RESOURCES in answered <= {None, LET_IN, OUT_OF_RESOURCES}
        assert (server.status("VmHWM") - before) * 1024 < GROWTH_BYTES_MAX
        for one in crowd:
            one.close()

        def log_in():
            with Initiator(server.iscsi) as again:
                again.ready()

        retried(log_in)  # Their places are free.
        honest.goes_on()
        print(f"{CROWD} clients: {server.status('VmHWM') - before} KiB more, {len(left)} kept", file=sys.stderr)
    server.close()


def status_of(connection):
    """What a login was answered that was hung up on: None when it had to go before it was read."""
    try:
        answer = connection.recv(48, socket.MSG_WAITALL)
    except ConnectionError:
        return None
    return int.from_bytes(answer[36:38], "big") if len(answer) == 48 else None
