"""What nodes that come and go cost whoever writes meanwhile: `make nodes` writes results/nodes.json and nodes.md.

A pool of four nodes at two sites, six volumes of two copies, each written once, and a client at each that asks for random 4 KiB
writes at a rate of its own. A fifth node is added and the pool balanced; it is removed again, and drained for that; then another
node's copies are lost, and it is removed, so that they are made anew from the other site's. What was moved beside the least that
could be, how long it took, and the clients' response times before, meanwhile and after: as fast as it goes, and with a latency
budget (`pool serve --latency-budget`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from balance_study import Client, command
from served_command import serving

from farwrite.base.documents import save_document
from farwrite.base.files import write_atomically
from farwrite.base.host.facts import host_facts
from farwrite.base.units import format_size, format_time, time_ns
from farwrite.engine.frontend import nbd
from farwrite.engine.frontend.nbd_client import NbdClient, place_of
from farwrite.experiment.pool.control import Show, ask

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "results" / "nodes.json"
NODES, NEW, LOST = {"a": "near", "b": "far", "c": "near", "d": "far"}, "e", "b"
VOLUMES, SIZE, RATE = 6, 64 << 20, 50.0
BUDGET = "10 ms"
MOST_NS = time_ns(BUDGET)
MILES, BUDGETS, ROUNDS = 20, (None, BUDGET), 3
CALM_S = 8.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--again", action="store_true", help="only the page, of what was measured")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    if not asked.again:
        events: list[dict[str, Any]] = []
        for number in range(asked.rounds):
            for budget in BUDGETS:
                print(f"round {number + 1}, budget {budget or 'none'} ...", file=sys.stderr, flush=True)
                events += [{"budget": budget, **one} for one in round_of(budget)]
        document = {"host": msgspec.to_builtins(host_facts()), "miles": MILES, "events": events}
        save_document(asked.out, msgspec.json.format(msgspec.json.encode(document), indent=1))
    page = page_of(json.loads(asked.out.read_bytes()))
    write_atomically(asked.out.with_suffix(".md"), page.encode())
    print(page)
    return 0


def round_of(budget: str | None) -> list[dict[str, Any]]:
    """All three events, one after the other."""
    with tempfile.TemporaryDirectory(prefix="farwrite-") as made:
        place = Path(made)
        pool = place / "san"
        command("pool", "create", str(pool), *(word for name, site in NODES.items() for word in ("--node", f"{name}@{site}=4g")))
        for number in range(VOLUMES):
            command("volume", "create", f"v{number}", "--size", str(SIZE), "--level", "10", "--pool", str(pool))
        with served(place, budget):
            for number in range(VOLUMES):
                fill(place, f"v{number}")
            with clients_of(place) as clients:
                command("pool", "add", str(pool), "--node", f"{NEW}@near=4g")
                near = sum(site == "near" for site in NODES.values())
                events = [event(place, clients, "added", VOLUMES * SIZE // (near + 1), "pool", "balance", str(pool))]
                held = held_by(pool, NEW)
                events.append(event(place, clients, "drained", held, "pool", "remove", str(pool), NEW))
        held = held_by(pool, LOST)
        for copy in (pool / "nodes" / LOST).iterdir():
            if copy.is_dir():
                shutil.rmtree(copy)
        with served(place, budget), clients_of(place) as clients:
            events.append(event(place, clients, "lost", held, "pool", "remove", str(pool), LOST))
        return events


@contextlib.contextmanager
def served(place: Path, budget: str | None) -> Iterator[None]:
    words = [str(place / "san"), "--miles", f"{MILES:g}", "--accept-link-error", "--sockets", str(place / "doors")]
    words += ["--latency-budget", budget] if budget else []
    with serving("pool", "serve", *words):
        yield


@contextlib.contextmanager
def clients_of(place: Path) -> Iterator[list[Client]]:
    """One at each volume."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Client(place / "doors", f"v{number}", RATE)) for number in range(VOLUMES)]


def fill(place: Path, name: str) -> None:
    """Write all of a volume."""
    with NbdClient(place_of(f"nbd+unix:///volume?socket={place}/doors/{name}/volume.sock", "the volume")) as client:
        for start in range(0, SIZE, 1 << 20):
            client.issue(nbd.WRITE, start, 1 << 20, random.Random(start).randbytes(1 << 20))
            client.reap()


def held_by(pool: Path, node: str) -> int:
    """Bytes of the copies on a node."""
    shown = command("pool", "show", str(pool))["pool"]
    return sum(copy["allocated_bytes"] for one in shown["volumes"] for copy in one["copies"] if copy["node"] == node)


def event(place: Path, clients: list[Client], name: str, ideal_bytes: int, *words: str) -> dict[str, Any]:
    """One command under load: what was moved and what the clients saw."""
    parts: dict[str, list[int]] = {}
    parts["before"] = heard(clients, lambda: time.sleep(CALM_S))
    begin_ns = time.time_ns()
    parts["while"] = heard(clients, lambda: command(*words))
    end_ns = time.time_ns()
    parts["after"] = heard(clients, lambda: time.sleep(CALM_S))
    moves = [one for one in ask(place / "san", Show()).migrations if one.begin_ns >= begin_ns]
    return {
        "event": name, "seconds": (end_ns - begin_ns) / 1e9, "moves": len(moves), "ideal_bytes": ideal_bytes,
        "moved_bytes": sum(one.copied_bytes for one in moves), "reconnections": sum(one.connections - 1 for one in clients),
        "parts": {name: told(times) for name, times in parts.items()},
    }  # fmt: skip


def heard(clients: list[Client], work: Any) -> list[int]:
    """Response times of all clients while something is done."""
    for client in clients:
        client.answered.clear()
    work()
    return sorted(took for client in clients for took in tuple(client.answered))


def told(times: list[int]) -> dict[str, int]:
    """What response times, sorted, come to; ns."""
    most = [("p50_ns", 0.5), ("p99_ns", 0.99), ("max_ns", 1.0)] if times else []
    over = sum(took > MOST_NS for took in times)
    return {"writes": len(times), "over": over, **{name: times[int(share * (len(times) - 1))] for name, share in most}}


# The page


def page_of(document: dict[str, Any]) -> str:
    """A row for each event, with and without a budget: all rounds together."""
    rows: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for one in document["events"]:
        rows.setdefault((one["event"], one["budget"]), []).append(one)
    host = document["host"]
    lines = [
        "# What nodes that come and go cost whoever writes meanwhile", "",
        f"`make nodes`: a pool of four nodes, two at each of two sites {document['miles']} miles apart; {VOLUMES} volumes of two "
        f"copies and {format_size(SIZE)}, all of it written; a client at each asks for {RATE:g} random 4 KiB writes/s, and "
        "its response times count from the intended instant. *added*: a third node at the near site, then `farwrite pool "
        "balance`. *drained*: `farwrite pool remove` of that node. *lost*: the far node's copies are gone, `farwrite pool "
        "remove` has them made anew at the other one. The least is what an even share comes to, or what the node held. With a "
        "budget (`pool serve --latency-budget`) a copy goes slower while a write of its volume took longer. Medians over "
        f"rounds, and the longest of how long it takes; last the share of writes that took longer than {BUDGET}.",
        "",
        "| event | budget | rounds | takes | moved, of the least | p50 [p99] before | while | after | over the budget while |",
        f"|{'---|' * 9}", *(row_of(*key, rounds) for key, rounds in rows.items()), "",
        f"Measured on {host.get('cpu', 'an unknown processor')}, {host.get('cpu_count', '?')} processors, Linux "
        f"{host.get('kernel', '?')}.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def row_of(name: str, budget: str | None, rounds: list[dict[str, Any]]) -> str:
    def quantiles(part: str) -> str:
        found = [one["parts"][part] for one in rounds if one["parts"][part]["writes"]]
        p50, p99 = (statistics.median(one[name] for one in found) if found else 0 for name in ("p50_ns", "p99_ns"))
        return f"{format_time(p50)} [{format_time(p99)}]" if found else "-"

    meanwhile = [one["parts"]["while"] for one in rounds]
    writes = sum(one["writes"] for one in meanwhile)
    over = f"{sum(one['over'] for one in meanwhile) / writes:.2%} of {writes:,}" if writes else "-"
    seconds = sorted(one["seconds"] for one in rounds)
    moved = sum(one["moved_bytes"] for one in rounds) / max(sum(one["ideal_bytes"] for one in rounds), 1)
    cells = [
        name, budget or "none", str(len(rounds)), f"{seconds[len(seconds) // 2]:.1f} s [{seconds[-1]:.1f} s]", f"{moved:.2f}",
        *(quantiles(part) for part in ("before", "while", "after")), over,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
