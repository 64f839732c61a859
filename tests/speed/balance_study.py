"""What evening out load does: `make balance` writes results/balance.json and balance.md.

A pool of four nodes at one site, eight volumes of two copies, and a client for each that asks for random 4 KiB writes at a rate
of its own, from 100 a second down to 5, and comes back whenever its door moves. Before and after `farwrite pool balance`: what
each node serves, what its processes take of a processor, the nodes' load as the pool counts it, and each client's response times.
Then it is asked again, after a minute of the same load: nothing may move twice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
from served_command import FARWRITE, serving

from farwrite.base.documents import save_document
from farwrite.base.errors import UnfitError
from farwrite.base.files import write_atomically
from farwrite.base.host.facts import host_facts
from farwrite.base.units import format_time
from farwrite.engine.frontend.nbd_client import NbdClient, place_of
from farwrite.experiment.pool.balance import COPY_SHARE, TOLERANCE

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "results" / "balance.json"
SIZE, BLOCK = 64 << 20, 4096
NODES, RATES = "abcd", (100, 80, 60, 40, 20, 10, 5, 5)
MEASURED_S, RESTS_S, CLIENT_S = 20.0, 65.0, 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--again", action="store_true", help="only the page, of what was measured")
    parser.add_argument("--seconds", type=float, default=MEASURED_S)
    parser.add_argument("--rests", type=float, default=RESTS_S)
    asked = parser.parse_args()
    if not asked.again:
        document = {"host": msgspec.to_builtins(host_facts()), **measured(asked.seconds, asked.rests)}
        save_document(asked.out, msgspec.json.format(msgspec.json.encode(document), indent=1))
    page = page_of(json.loads(asked.out.read_bytes()))
    write_atomically(asked.out.with_suffix(".md"), page.encode())
    print(page)
    return 0


def measured(seconds: float, rests: float) -> dict[str, Any]:
    """Before, the balance, after, and the balance that is asked for again."""
    with tempfile.TemporaryDirectory(prefix="farwrite-") as place:
        pool, doors = Path(place) / "san", Path(place) / "doors"
        command("pool", "create", str(pool), *(word for name in NODES for word in ("--node", f"{name}@near=4g")))
        for number in range(len(RATES)):
            command("volume", "create", f"v{number}", "--size", str(SIZE), "--pool", str(pool))
        words = [str(pool), "--miles", "0", "--accept-link-error", "--sockets", str(doors), "--metrics", "0"]
        with serving("pool", "serve", *words) as told, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(doors, f"v{number}", rate)) for number, rate in enumerate(RATES)]
            time.sleep(12)  # Until the pool has measured its load.
            before = part(told, pool, clients, seconds)
            begin_s = time.monotonic()
            balanced = command("pool", "balance", str(pool))
            took_s = time.monotonic() - begin_s
            time.sleep(30)  # The window of the load.
            after = part(told, pool, clients, seconds)
            time.sleep(rests)
            again = command("pool", "balance", str(pool), "--dry-run")
            return {
                "before": before, "after": after, "seconds": took_s,
                "moves": balanced["moves"], "said": balanced["said"], "again": again["moves"],
                "reconnections": sum(client.connections - 1 for client in clients),
            }  # fmt: skip


def part(told: dict[str, Any], pool: Path, clients: list[Client], seconds: float) -> dict[str, Any]:
    """So many seconds of load: by node, and by client."""
    for client in clients:
        client.answered.clear()
    processors = processor_seconds(told)
    time.sleep(seconds)
    used = {node: (value - processors.get(node, 0.0)) / seconds for node, value in processor_seconds(told).items()}
    shown = command("pool", "show", str(pool))["pool"]
    served = dict.fromkeys(NODES, 0.0)
    counted = dict.fromkeys(NODES, 0.0)
    for volume in shown["volumes"]:
        for copy in volume["copies"]:
            load = volume["load"]["writes"] if volume["load"] else 0.0
            served[copy["node"]] += load if copy["leads"] else 0.0
            counted[copy["node"]] += load if copy["leads"] else COPY_SHARE * load
    mean = sum(counted.values()) / len(counted) or 1.0
    return {
        "served": served, "load": {node: value / mean for node, value in counted.items()}, "processor": used,
        "clients": {client.name: [len(client.answered) / seconds, *quantiles(client.answered)] for client in clients},
    }  # fmt: skip


def processor_seconds(told: dict[str, Any]) -> dict[str, float]:
    """Processor time of each node's replicas so far."""
    text = urllib.request.urlopen(told["metrics_uri"], timeout=10).read().decode()
    found = dict.fromkeys(NODES, 0.0)
    for replica, pid in re.findall(r'^farwrite_pid\{volume="\w+",replica="([\w-]+)"\} (\d+)$', text, re.MULTILINE):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found[replica[0]] += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def quantiles(times: list[int]) -> list[float]:
    """Median and 99th percentile, ns; nothing of none."""
    return [statistics.median(times), sorted(times)[int(0.99 * (len(times) - 1))]] if times else []


def command(*words: str) -> Any:
    """The document that a command of farwrite prints."""
    done = subprocess.run([*FARWRITE, *words, "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"farwrite {' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


class Client:
    """Asks for so many writes a second at a volume's door, one after the other; the next instant does not wait for an answer."""

    def __init__(self, doors: Path, name: str, rate: float) -> None:
        self.place = place_of(f"nbd+unix:///volume?socket={doors}/{name}/volume.sock", "the volume")
        self.name, self.rate, self.ending = name, rate, threading.Event()
        self.answered: list[int] = []  # ns from the intended instant on
        self.connections = 0
        self.thread = threading.Thread(target=self.write)

    def write(self) -> None:
        draw, data = random.Random(self.name), random.Random(2).randbytes(BLOCK)
        due_ns = time.monotonic_ns()
        while not self.ending.is_set():
            try:
                with NbdClient(self.place, []) as client:
                    self.connections += 1
                    while not self.ending.is_set():
                        time.sleep(max(due_ns - time.monotonic_ns(), 0) / 1e9)
                        client.write(BLOCK * draw.randrange(SIZE // BLOCK), data)
                        self.answered.append(time.monotonic_ns() - due_ns)
                        due_ns += int(draw.expovariate(self.rate) * 1e9)
            except (OSError, UnfitError):  # The door moves.
                time.sleep(CLIENT_S)

    def __enter__(self) -> Client:
        self.thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.ending.set()
        self.thread.join()


def page_of(document: dict[str, Any]) -> str:
    """What moved, and a row for each node and each client."""
    host = document["host"]
    lines = [
        "# Load, evened out", "",
        f"`make balance`: eight volumes of two copies on four nodes at one site, {', '.join(map(str, RATES))} random "
        f"4 KiB writes a second; tolerance {1 + TOLERANCE:.2f} times the average, a stored write counts as {COPY_SHARE:g} of a "
        "served one "
        f"([0062](../docs/decisions/0062-load-decides-who-leads.md)). {host.get('cpu', 'An unknown processor')}, "
        f"Linux {host.get('kernel', '?')}.", "",
        f"{len(document['moves'])} moves in {document['seconds']:.1f} s, {document['reconnections']} clients connected anew:", "",
    ]  # fmt: skip
    for volume, replica, to, leads, why in document["moves"]:
        lines.append(f"- {volume}: {f'the copy on {to} leads' if leads else f'{replica} moves to {to}'} ({why})")
    lines += ["", f"Asked again with the same load: {len(document['again'])} moves.", ""]
    lines += ["| node | writes/s served before | after | load before | after | processor before | after |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|"]
    before, after = document["before"], document["after"]
    for node in NODES:
        row = [f"{one['served'][node]:.0f}" for one in (before, after)] + [f"{one['load'][node]:.2f}" for one in (before, after)]
        row += [f"{one['processor'][node]:.1%}" for one in (before, after)]
        lines.append(f"| {node} | {' | '.join(row)} |")
    lines += ["", "| volume | asked | p50 before | after | p99 before | after |", "|---|--:|--:|--:|--:|--:|"]
    for (name, was), (_, now), rate in zip(before["clients"].items(), after["clients"].items(), RATES, strict=True):
        cells = [format_time(value) for pair in zip(was[1:], now[1:], strict=True) for value in pair]
        lines.append(f"| {name} | {rate}/s | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
