"""What moving a volume costs whoever writes meanwhile: `make migrations` writes results/migrations.json and migrations.md.

A pool of four nodes, a volume of two copies, and a client that keeps so many random 4 KiB writes under way at its door and comes
back whenever the door moves. `farwrite migrate` moves one copy by mirroring, the one that leads or the other, to the free node at
its site; or both copies of a volume behind a router to the two free nodes, by passes or by one snapshot. Then the same onto a
destination at half the speed: over a link with half the rate at which the far copy was moved before. The client's own clock
tells its response times before, while and after, and its longest time without an answer.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from served_command import FARWRITE, serving

from farwrite.base.documents import save_document
from farwrite.base.errors import EXIT_UNFIT, UnfitError
from farwrite.base.files import write_atomically
from farwrite.base.host.facts import host_facts
from farwrite.base.physics import rtt_ns_of
from farwrite.base.units import format_rate, format_size, format_time
from farwrite.engine.frontend import nbd
from farwrite.engine.frontend.nbd_client import NbdClient, place_of

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "results" / "migrations.json"
SIZE, WRITTEN, BLOCK = 256 << 20, 128 << 20, 4096
MILES, DEPTHS, ROUNDS = (0, 20, 150), (1, 16), 3
SWITCH_NS_MAX, COPIED_MAX = 20_000_000, 1.05  # The goals: and a round trip; of what is allocated.
CALM_S = 2.0  # Of load before a move, and after it.
CLIENT_S = 0.02  # The client looks for a door anew so often.
NODES = {"a": "near", "b": "far", "c": "near", "d": "far"}
ROLES = ("leads", "follows")
MIRRORED, ROUTED = "db", "big"  # The volume of which one copy moves at a time; the one behind a router.
GROUP_MOVES = ("passes", "snapshot")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--again", action="store_true", help="only the page, of what was measured")
    parser.add_argument("--miles", type=float, nargs="*", default=MILES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    if not asked.again:
        document: dict[str, Any] = {"host": msgspec.to_builtins(host_facts()), "written_bytes": WRITTEN, "moves": []}
        for miles in asked.miles:
            with tempfile.TemporaryDirectory(prefix="farwrite-") as place, served(Path(place), miles) as pool:
                for number in range(asked.rounds):
                    for depth, role in itertools.product(DEPTHS, (*ROLES, *GROUP_MOVES)):
                        print(f"{miles:g} miles, depth {depth}, {role}, round {number + 1} ...", file=sys.stderr, flush=True)
                        there = {"miles": miles, "depth": depth, "role": role}
                        document["moves"].append(there | moved(pool, depth, role))
            if rate := half_rate(document["moves"], miles):
                with tempfile.TemporaryDirectory(prefix="farwrite-") as place, served(Path(place), miles, rate) as pool:
                    for number in range(asked.rounds):
                        print(f"{miles:g} miles, half the speed, round {number + 1} ...", file=sys.stderr, flush=True)
                        for depth, role in ((DEPTHS[-1], "follows"), *((DEPTHS[0], by) for by in GROUP_MOVES)):
                            there = {"miles": miles, "depth": depth, "role": f"{role}, {format_rate(rate)}"}
                            document["moves"].append(there | moved(pool, depth, role))
        save_document(asked.out, msgspec.json.format(msgspec.json.encode(document), indent=1))
    page = page_of(json.loads(asked.out.read_bytes()))
    write_atomically(asked.out.with_suffix(".md"), page.encode())
    print(page)
    return 0


def command(*words: str, may_be_refused: bool = False) -> Any:
    """The document that a command of farwrite prints; None where it is refused and may be."""
    done = subprocess.run([*FARWRITE, *words, "--json"], capture_output=True, text=True, check=False)
    if done.returncode == EXIT_UNFIT and may_be_refused:
        print(f"    {done.stderr.splitlines()[-1]}", file=sys.stderr, flush=True)
        return None
    if done.returncode:
        raise SystemExit(f"farwrite {' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def half_rate(moves: list[dict[str, Any]], miles: float) -> int:
    """Half of the bits a second at which far copies were moved at this distance; 0 where that is not known."""
    said = [one["said"] for one in moves if one["miles"] == miles and one["role"] == "follows"]
    rates = [one["copied_bytes"] / (one["whole_ns"] - one["begin_ns"]) for one in said if one["whole_ns"] > one["begin_ns"]]
    return round(statistics.median(rates) * 8e9 / 2 / 1e6) * 1_000_000 if rates else 0


@contextlib.contextmanager
def served(place: Path, miles: float, rate: int = 0) -> Iterator[Path]:
    """A served pool with both volumes, written to once."""
    pool = place / "san"
    nodes = [word for name, site in NODES.items() for word in ("--node", f"{name}@{site}=2g")]
    command("pool", "create", str(pool), *nodes)
    volume = ("--size", str(SIZE), "--level", "10", "--pool", str(pool))
    command("volume", "create", MIRRORED, *volume)
    command("volume", "create", ROUTED, *volume, "--groups", "1")
    words = [str(pool), "--miles", f"{miles:g}", "--accept-link-error", "--sockets", str(place / "doors")]
    words += ["--rate", f"{rate} bit/s"] if rate else []
    with serving("pool", "serve", *words):
        for name in (MIRRORED, ROUTED):
            with client_of(place, name) as client:
                for start in range(0, WRITTEN, 1 << 20):
                    client.issue(nbd.WRITE, start, 1 << 20, random.Random(start).randbytes(1 << 20))
                    client.reap()
        yield place


def client_of(place: Path, volume: str) -> NbdClient:
    return NbdClient(place_of(f"nbd+unix:///volume?socket={place}/doors/{volume}/volume.sock", "the volume"))


# The load


class Load:
    """A client that keeps so many writes under way, and comes back when its door moves. What was under way then is begun anew."""

    def __init__(self, place: Path, volume: str, depth: int) -> None:
        self.place, self.volume, self.depth, self.ending = place, volume, depth, threading.Event()
        self.answered: list[tuple[int, int]] = []  # (when, after how long): of monotonic time, ns
        self.connections = 0
        self.thread = threading.Thread(target=self.write)

    def write(self) -> None:
        draw, data = random.Random(1), random.Random(2).randbytes(BLOCK)
        while not self.ending.is_set():
            try:
                with client_of(self.place, self.volume) as client:
                    self.connections += 1
                    self.serve(client, draw, data)
            except (OSError, UnfitError):  # The door moves, or is about to.
                time.sleep(CLIENT_S)

    def serve(self, client: NbdClient, draw: random.Random, data: bytes) -> None:
        begun: dict[int, int] = {}
        while begun or not self.ending.is_set():
            while len(begun) < self.depth and not self.ending.is_set():
                now_ns = time.monotonic_ns()
                begun[client.issue(nbd.WRITE, BLOCK * draw.randrange(WRITTEN // BLOCK), BLOCK, data)] = now_ns
            cookie, _ = client.reap()
            now_ns = time.monotonic_ns()
            self.answered.append((now_ns, now_ns - begun.pop(cookie)))

    def __enter__(self) -> Load:
        self.thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.ending.set()
        self.thread.join()


def moved(place: Path, depth: int, role: str) -> dict[str, Any]:
    """One move under load: what the command says of it, None where it did not converge, and what the client saw."""
    name = ROUTED if role in GROUP_MOVES else MIRRORED
    (volume,) = [one for one in command("volume", "list", "--pool", str(place / "san")) if one["name"] == name]
    used = {one["node"] for one in volume["copies"]}
    if role in GROUP_MOVES:
        words = ["--by", role, "--to", ",".join(node for node in NODES if node not in used)]
    else:
        (copy,) = [one for one in volume["copies"] if one["leads"] == (role == "leads")]
        (free,) = [node for node, site in NODES.items() if node not in used and site == copy["site"]]
        words = ["--from", copy["node"], "--to", free]
    with Load(place, name, depth) as load:
        time.sleep(CALM_S)
        begin_ns = time.monotonic_ns()
        said = command("migrate", name, *words, "--pool", str(place / "san"), may_be_refused=role == "passes")
        end_ns = time.monotonic_ns()
        time.sleep(CALM_S)
    instants = [when for when, _ in load.answered]
    gaps = [later - sooner for sooner, later in itertools.pairwise(instants)]
    parts = {
        "before": [took for when, took in load.answered if when < begin_ns],
        "while": [took for when, took in load.answered if begin_ns <= when < end_ns],
        "after": [took for when, took in load.answered if when >= end_ns],
    }
    return {
        "said": said, "pause_ns": max(gaps), "connections": load.connections,
        **{f"{name}_ns_p50": statistics.median(times) if times else None for name, times in parts.items()},
        **{f"{name}_writes": len(times) for name, times in parts.items()},
    }  # fmt: skip


# The page


HEADS = (
    "miles", "depth", "what moves", "converged", "takes", "copied over allocated", "switch", "longest without an answer",
    "p50 before", "while", "after", "client connected anew", "goal: switch in 20 ms + 1 round trip", "goal: 1.05 copied",
)  # fmt: skip
WHAT = {
    "leads": "the copy that leads, mirrored", "follows": "the other copy, mirrored", "passes": "both copies, in passes",
    "snapshot": "both copies, one snapshot",
}  # fmt: skip


def page_of(document: dict[str, Any]) -> str:
    """The table: a row a case, medians over its rounds."""
    cases: dict[tuple[float, int, str], list[dict[str, Any]]] = {}
    for one in document["moves"]:
        cases.setdefault((one["miles"], one["depth"], one["role"]), []).append(one)
    host = document["host"]
    cpu, kernel = host.get("cpu", "an unknown processor"), host.get("kernel", "?")
    lines = [
        "# What moving a volume costs whoever writes meanwhile", "",
        f"`make migrations`: a volume of two copies, {format_size(document['written_bytes'])} of it written; a client with so "
        "many random 4 KiB writes under way, which comes back to the door when it moves. `farwrite migrate` mirrors one copy to "
        "another node at its site, or moves both copies behind a router to the other two nodes, in passes (the last one is due "
        "when a pass took no longer than 300 ms) or by one snapshot; what is written faster than it is copied does not converge. "
        "The switch is the time in which nobody is served; it and the longest time without an answer are of those that "
        "converged. Medians over rounds, the greatest in brackets. The client is Python, and looks for the door every "
        f"{format_time(round(CLIENT_S * 1e9))}: that is in its pause. That a move that is cancelled, and a crash at any "
        "step, leaves one whole volume is proven by tests ([docs/san.md](../docs/san.md#pools-and-volumes)).", "",
        f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}", *(row_of(*key, rounds) for key, rounds in cases.items()), "",
        f"Measured on {cpu}, {host.get('cpu_count', '?')} processors, Linux {kernel}.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def kept_in(values: list[float], most: float) -> str:
    """In how many moves a goal was reached."""
    return f"{sum(value <= most for value in values)} of {len(values)}" if values else "-"


def row_of(miles: float, depth: int, role: str, rounds: list[dict[str, Any]]) -> str:
    """A case's row."""

    def middle(values: list[float]) -> str:
        return f"{format_time(statistics.median(values))} [{format_time(max(values))}]" if values else "-"

    what, _, rate = role.partition(", ")
    done = [one for one in rounds if one["said"]]
    said = [one["said"] for one in done]
    copied = [one["copied_over_allocated"] for one in said if one["copied_over_allocated"]]
    cells = [
        f"{miles:g}", depth, ", ".join([WHAT[what], *([rate] if rate else [])]), f"{len(said)} of {len(rounds)}",
        middle([1e9 * one["seconds"] for one in said]),
        f"{statistics.median(copied):.2f}" if copied else "-",
        middle([one["switch_pause_ns"] for one in said if one["switch_pause_ns"]]), middle([one["pause_ns"] for one in done]),
        *(middle([one[f"{part}_ns_p50"] for one in rounds if one[f"{part}_ns_p50"]]) for part in ("before", "while", "after")),
        f"{max(one['connections'] for one in rounds) - 1} times",
        *(("-", "-") if what in GROUP_MOVES else (
            kept_in([one["switch_pause_ns"] for one in said if one["switch_pause_ns"]], SWITCH_NS_MAX + rtt_ns_of(miles)),
            kept_in(copied, COPIED_MAX),
        )),
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
