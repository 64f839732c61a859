"""What a snapshot costs the writer at the door of a lone replica: the longest pause, and the median before and after it.

    PYTHONPATH=tests python tests/speed/snapshot_cost.py [--directory DIR] [--seconds 3] [--depths 1 16] [--rounds 5] [--json]

One connection keeps so many random 4 KiB writes under way in the first 64 MiB; after a while a snapshot is taken, and the writes
go on: every block that they reach for the first time is kept. Each round is a new replica, with and without a snapshot in turn,
so that both see the same minutes of this machine. The client is Python and adds its own time to each write, the same to both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import tempfile
import threading
import time
from pathlib import Path

from farwrite.base.host.disk import disk
from farwrite.base.row import rows_of
from farwrite.base.shared_counters import SharedCounters
from farwrite.base.wire.terms import SharedKey, Terms
from farwrite.engine.control import Address
from farwrite.engine.frontend import nbd
from farwrite.engine.frontend import session_kernel as sessions
from farwrite.engine.frontend.frontend import Frontend
from farwrite.engine.node import Node
from farwrite.engine.vote import format_ballot
from served import Client, until

VOLUME_BYTES, JOURNAL_BYTES, STAGING_BYTES, PAGE = 256 << 20, 64 << 20, 8 << 20, 4096
SPREAD_BYTES = 64 << 20
AFTER_S = 1.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as made:
        return int(made.getsockname()[1])


@contextlib.contextmanager
def alone(directory: Path):
    """A node that leads alone, its files in this directory; (node, a client's connection)."""
    with contextlib.ExitStack() as stack:
        ballot_fd = os.memfd_create("ballot")
        stack.callback(os.close, ballot_fd)
        format_ballot(ballot_fd)
        chosen = stack.enter_context(disk(directory, JOURNAL_BYTES, VOLUME_BYTES, snapshots=True))
        frontend, board = Frontend(VOLUME_BYTES), rows_of(SharedCounters)
        stack.callback(frontend.close)
        address = {"a": Address("127.0.0.1", free_port(), free_port())}
        terms = Terms("none", "none", SharedKey(b"k" * 32))
        node = Node("a", chosen, ballot_fd, address, None, 7, board, frontend, terms, staging_bytes=STAGING_BYTES)
        node.stands_at_once = True
        thread = threading.Thread(target=node.run)
        thread.start()
        stack.callback(thread.join)
        stack.callback(lambda: board.__getitem__(0).__setattr__("stop", 1))
        until(frontend.leads, "it to lead")
        ours, theirs = socket.socketpair()
        assert frontend.adopt(theirs, sessions.NBD)
        yield node, Client(ours)


def one_round(directory: Path, depth: int, seconds: float, takes: bool) -> dict[str, float]:
    """Latencies, ns, of writes in three parts: before the instant, in the second after it, and later."""
    with alone(directory) as (node, client):
        draw, data = random.Random(depth), os.urandom(PAGE)
        for place in range(0, SPREAD_BYTES, 1 << 20):  # Something to keep.
            assert client.write(place, data * (1 << 8)) == 0
        begun, parts = {}, {"before": [], "at once": [], "after": []}
        taken_ns = [0]

        def take() -> None:
            made = node.take_snapshot("cost") if takes else None
            took.append((time.monotonic_ns() - taken_ns[0]) / 1e6 if made else 0.0)

        took: list[float] = []
        thread = threading.Thread(target=take)
        begin_ns = time.monotonic_ns()
        while True:
            now_ns = time.monotonic_ns()
            if now_ns - begin_ns > 2 * seconds * 1e9:
                break
            if not taken_ns[0] and now_ns - begin_ns > seconds * 1e9:
                taken_ns[0] = now_ns
                thread.start()
            while len(begun) < depth:
                begun[client.begin(nbd.WRITE, PAGE * draw.randrange(SPREAD_BYTES // PAGE), PAGE, data=data)] = time.monotonic_ns()
            tag, error, _ = client.answer()
            end_ns = time.monotonic_ns()
            assert error == 0
            since_ns = begun.pop(tag)
            part = "before" if not taken_ns[0] else "at once" if since_ns - taken_ns[0] < AFTER_S * 1e9 else "after"
            parts[part].append(end_ns - since_ns)
        thread.join()
        found = {f"{part} p50 us": sorted(ns)[len(ns) // 2] / 1e3 for part, ns in parts.items() if ns}
        found |= {f"{part} longest ms": max(ns) / 1e6 for part, ns in parts.items() if ns}
        found |= {f"{part} writes": len(ns) for part, ns in parts.items()}
        return found | {"snapshot took ms": took[0], "kept MiB": sum(one.kept_bytes for one in node.snapshots()) / (1 << 20)}


def main() -> None:
    reader = argparse.ArgumentParser()
    reader.add_argument("--directory", type=Path)
    reader.add_argument("--seconds", type=float, default=3.0)
    reader.add_argument("--depths", type=int, nargs="+", default=[1, 16])
    reader.add_argument("--rounds", type=int, default=5)
    reader.add_argument("--json", action="store_true")
    asked = reader.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=asked.directory) as directory:
        for number in range(asked.rounds):
            for depth in asked.depths:
                for takes in (True, False) if number % 2 else (False, True):
                    found = one_round(Path(directory), depth, asked.seconds, takes)
                    rows.append({"round": number, "depth": depth, "snapshot": takes, **found})
                    if not asked.json:
                        print({key: round(value, 2) for key, value in rows[-1].items()}, flush=True)
    if asked.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
