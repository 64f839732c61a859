"""What the door costs: writes through NBD beside the engine's own generator, in turns, on the same kind of disk; reads and writes
in bulk beside nbdkit's memory, where that is installed.

    tests/speed/door_speed.py [--directory DIR] [--rounds 5] [--seconds 1]

Both complete a write when it is durable here (protocol local). The client of the door is a compiled closed loop of its own
(rivals/nbd_kernel), in another process, over TCP on this machine. Figures are medians of rounds.
"""

# ruff: noqa: E402 (the tests' helpers and the rivals lie beside the package)

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "bench")]

from farwrite.base.histogram import Histogram
from farwrite.base.host import reactor
from farwrite.base.host.disk import disk
from farwrite.base.row import rows_of
from farwrite.base.shared_counters import SharedCounters
from farwrite.engine import primary_kernel as primary
from farwrite.engine.frontend import nbd
from farwrite.engine.frontend import session_kernel as sessions
from farwrite.engine.frontend.frontend import Frontend
from farwrite.engine.journal import format_journal
from farwrite.targets import replicated
from farwrite.workload.plan import Load
from rivals import nbd as client
from rivals.doors import bulk
from rivals.experiment import Task

MIB = 1 << 20
VOLUME_BYTES, JOURNAL_BYTES, SIZE = 256 * MIB, 256 * MIB, 4096


def generator(directory: Path | None, depth: int, seconds: float) -> tuple[float, float]:
    """(p50 in us, writes/s) of the engine's own load."""
    duration_ns = int(seconds * 1e9)
    order = replicated.Order(
        protocol="local", volume=5, epoch=1, seed=1, load=Load(volume_bytes=VOLUME_BYTES, queue_depth=depth),
        write_count_max=2_000_000, queue_depth=depth, duration_ns=duration_ns, slice_ns=duration_ns // 10, slice_count=10,
        peer_timeout_ns=10**10,
    )  # fmt: skip
    with disk(directory, JOURNAL_BYTES, VOLUME_BYTES) as chosen:
        seen = replicated.write_side(order, chosen, [], rows_of(SharedCounters), np.zeros(1 << 16, np.int64))
    return figures(seen.recorder, seconds)


def figures(recorder, seconds: float) -> tuple[float, float]:
    counts = Histogram(recorder.response.sum(axis=0))
    return (counts.quantile(0.5) or 0) / 1000, int(recorder.at[0].completed) / seconds


def serve(directory: Path | None, port: socket.socket) -> None:
    """In a process of its own: a primary alone that takes one connection after the other, until its parent is gone."""
    with disk(directory, JOURNAL_BYTES, VOLUME_BYTES) as chosen, reactor.reactor() as ring:
        journal = format_journal(chosen, 5, 1, replicated.STAGING_BYTES)
        state = primary.primary_state(journal, ring, [], primary.LOCAL, 1, 10**10, volume_bytes=VOLUME_BYTES)
        frontend = Frontend(VOLUME_BYTES)
        frontend.begin(state)
        frontend.turn(state, True, 0)

        def accept() -> None:
            while True:
                frontend.adopt(port.accept()[0], sessions.NBD)

        threading.Thread(target=accept, daemon=True).start()
        parent = os.getppid()
        while os.getppid() == parent and frontend.turn(state, True) == 0:
            pass


@contextlib.contextmanager
def served(directory: Path | None):
    """Where the door of a server listens."""
    with socket.create_server(("127.0.0.1", 0)) as port:
        child = os.fork()
        if child == 0:
            try:
                serve(directory, port)
            finally:
                os._exit(0)
        try:
            yield port.getsockname()
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)


def door(address, depth: int, seconds: float) -> tuple[float, float]:
    """The same of writes through the door."""
    task = Task(SIZE, depth, VOLUME_BYTES, int(seconds * 1e9), 10, 1)
    with socket.create_connection(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return figures(client.drive(connection, task), seconds)


def nbdkit_bulk(command: int, total: int) -> float | None:
    """The same through nbdkit's memory plugin, None where it is not installed."""
    if shutil.which("nbdkit") is None:
        return None
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "socket"
        server = subprocess.Popen(["nbdkit", "-f", "-U", str(path), "memory", str(VOLUME_BYTES)])
        try:
            while not path.exists():
                time.sleep(0.01)
            connection, _ = client.connect(socket.AF_UNIX, str(path), "")
            with connection:
                bulk(connection, nbd.WRITE, 64)
                return bulk(connection, command, total)
        finally:
            server.kill()
            server.wait()


def own_bulk(command: int, total: int) -> float:
    """Through our door over a Unix socket, files in memory."""
    with tempfile.TemporaryDirectory() as place:
        path = str(Path(place) / "socket")
        with socket.socket(socket.AF_UNIX) as port:
            port.bind(path)
            port.listen()
            child = os.fork()
            if child == 0:
                try:
                    serve(None, port)
                finally:
                    os._exit(0)
            try:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(path)
                    bulk(connection, nbd.WRITE, 64)
                    return bulk(connection, command, total)
            finally:
                os.kill(child, 9)
                os.waitpid(child, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, help="where the disks lie (default: in memory)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    asked = parser.parse_args()
    client.rehearse()
    for depth in (1, 16):
        found: dict[str, list[tuple[float, float]]] = {"generator": [], "door": []}
        for _ in range(asked.rounds + 1):
            found["generator"].append(generator(asked.directory, depth, asked.seconds))
            with served(asked.directory) as address:
                door(address, depth, 0.1)
                found["door"].append(door(address, depth, asked.seconds))
        for name, rounds in found.items():
            p50, rate = np.median(np.array(rounds[1:]), axis=0)
            print(f"depth {depth:2} {name:10} p50 {p50:8.1f} us  {rate:9,.0f} writes/s")
    for name, command in (("write", nbd.WRITE), ("read", nbd.READ)):
        ours = [own_bulk(command, 512) for _ in range(asked.rounds)]
        theirs = [nbdkit_bulk(command, 512) for _ in range(asked.rounds)]
        print(f"1 MiB {name}s: door {np.median(ours):,.0f} MiB/s", end="")
        print(f", nbdkit memory {np.median(theirs):,.0f} MiB/s" if theirs[0] else "")


if __name__ == "__main__":
    main()
