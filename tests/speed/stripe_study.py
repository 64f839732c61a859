"""What the router of a striped volume costs: `tests/speed/stripe_study.py` writes results/stripe.json and stripe.md.

One pool of four nodes with three volumes of two copies: an ordinary one, whose primary clients reach themselves, one behind a
router with one group, and one behind a router with four. The same compiled client writes 4 KiB at random to each in turn, so
many under way, over a unix socket. Every write is answered once it is durable at both sites, as with FUA. Processor time is that
of all processes of the pool, less what they take while nobody writes.
"""

# ruff: noqa: E402 (the rivals lie beside the package)

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench")]

from served_command import FARWRITE, serving

from farwrite.base.documents import save_document
from farwrite.base.files import write_atomically
from farwrite.base.histogram import Histogram
from farwrite.base.host.facts import host_facts
from rivals import nbd as client
from rivals.experiment import Task

OUT = ROOT / "results" / "stripe.json"
SIZE_BYTES, BLOCK_BYTES = 256 << 20, 4096
VOLUMES = {"plain": [], "one": ["--groups", "1"], "four": ["--groups", "4"]}
NAMES = {"plain": "the group's own door", "one": "router, 1 group", "four": "router, 4 groups"}
MILES, DEPTHS, ROUNDS, SECONDS = (0, 20), (1, 64), 7, 2.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--again", action="store_true", help="only the page, of what was measured")
    parser.add_argument("--miles", type=float, nargs="*", default=MILES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--place", type=Path, default=None, help="where the pool's files are made")
    asked = parser.parse_args()
    if not asked.again:
        document: dict[str, Any] = {"host": msgspec.to_builtins(host_facts()), "seconds": asked.seconds, "rounds": []}
        client.rehearse()
        for miles in asked.miles:
            with tempfile.TemporaryDirectory(prefix="fw-", dir=asked.place) as place:
                document["rounds"] += measured(Path(place), miles, asked.rounds, asked.seconds)
            # What there is so far.
            save_document(asked.out, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    found = msgspec.json.decode(asked.out.read_bytes())
    write_atomically(asked.out.with_suffix(".md"), page(found).encode())
    print(page(found))
    return 0


def measured(place: Path, miles: float, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """All rounds at one distance, the three volumes in turn, another one first in each."""
    nodes = [word for node in ("a@near", "b@far", "c@near", "d@far") for word in ("--node", f"{node}=4g")]
    command("pool", "create", str(place / "san"), *nodes)
    for name, words in VOLUMES.items():
        command("volume", "create", name, "--size", str(SIZE_BYTES), "--level", "10", *words, "--pool", str(place / "san"))
    words = [str(place / "san"), "--miles", f"{miles:g}", "--accept-link-error", "--sockets", str(place / "d")]
    found = []
    with serving("pool", "serve", *words) as served:
        pid = int(served["pool"]["pid"])
        for name in VOLUMES:
            write(place, name, 16, 1.0, 1)  # Its files have their blocks then.
        for number in range(rounds):
            for depth in DEPTHS:
                begin_s = processor_s(pid)
                time.sleep(seconds)
                idle_s = processor_s(pid) - begin_s
                order = list(VOLUMES)[number % 3 :] + list(VOLUMES)[: number % 3]
                for name in order:
                    print(f"{miles:g} miles, depth {depth}, {name}, round {number + 1} ...", file=sys.stderr, flush=True)
                    begin_s = processor_s(pid)
                    p50_ns, p99_ns, writes = write(place, name, depth, seconds, number + 2)
                    took_s = max(processor_s(pid) - begin_s - idle_s, 0.0)
                    found.append({
                        "miles": miles, "depth": depth, "volume": name, "round": number, "p50_ns": p50_ns, "p99_ns": p99_ns,
                        "writes_per_s": writes / seconds, "processor_us_per_write": took_s * 1e6 / max(writes, 1),
                    })  # fmt: skip
    return found


def write(place: Path, name: str, depth: int, seconds: float, seed: int) -> tuple[int, int, int]:
    """(p50, p99, writes) of one round."""
    task = Task(BLOCK_BYTES, depth, SIZE_BYTES, int(seconds * 1e9), 10, seed)
    connection, _ = client.connect(socket.AF_UNIX, str(place / "d" / name / "volume.sock"), "volume")
    with connection:
        recorder = client.drive(connection, task)
    counts = Histogram(recorder.response.sum(axis=0))
    return int(counts.quantile(0.5) or 0), int(counts.quantile(0.99) or 0), int(recorder.at[0].completed)


def command(*words: str) -> None:
    subprocess.run([*FARWRITE, *words], check=True, stdout=subprocess.DEVNULL)


def processor_s(pid: int) -> float:
    """Processor time so far of a process and of all that it has begun. proc(5)."""
    parents, ticks = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)], ticks[int(entry.name)] = int(words[1]), int(words[11]) + int(words[12])
    total = 0
    for one in ticks:
        above = one
        while above not in (pid, 0):
            above = parents.get(above, 0)
        total += ticks[one] if above == pid else 0
    return total / TICKS_PER_S


# The page


def page(found: dict[str, Any]) -> str:
    """Medians of rounds; the ratio is the median of the rounds' own ratios, each beside the ordinary volume of the same round."""
    lines = [
        "# What the router of a striped volume costs", "",
        "4 KiB writes at random over a unix socket, answered once durable at both sites; a pool of four nodes on one machine.",
        f"Medians of rounds of {found['seconds']:g} s, the volumes in turn; in brackets the quartiles of the ratio to the",
        "group's own door in the same round. `tests/speed/stripe_study.py` writes this page.", "",
        "| miles | depth | | p50 | ratio | p99 | writes/s | processor time a write | ratio |", "|--|--|--|--|--|--|--|--|--|",
    ]  # fmt: skip
    rounds = found["rounds"]
    for miles in sorted({one["miles"] for one in rounds}):
        for depth in sorted({one["depth"] for one in rounds}):
            here = [one for one in rounds if (one["miles"], one["depth"]) == (miles, depth)]
            plain = {one["round"]: one for one in here if one["volume"] == "plain"}
            for name in VOLUMES:
                some = [one for one in here if one["volume"] == name]
                lines.append(
                    f"| {miles:g} | {depth} | {NAMES[name]} | {median(some, 'p50_ns') / 1e3:,.0f} us "
                    f"| {ratio(some, plain, 'p50_ns')} | {median(some, 'p99_ns') / 1e3:,.0f} us "
                    f"| {median(some, 'writes_per_s'):,.0f} | {median(some, 'processor_us_per_write'):,.1f} us "
                    f"| {ratio(some, plain, 'processor_us_per_write')} |"
                )
    return "\n".join([*lines, ""])


def median(rounds: list[dict[str, Any]], figure: str) -> float:
    return statistics.median(one[figure] for one in rounds)


def ratio(rounds: list[dict[str, Any]], plain: dict[int, dict[str, Any]], figure: str) -> str:
    """The median of the ratios, and their quartiles."""
    ratios = sorted(one[figure] / plain[one["round"]][figure] for one in rounds if plain[one["round"]][figure])
    if not ratios:
        return "unknown"
    low, high = (ratios[0], ratios[-1]) if len(ratios) < 4 else statistics.quantiles(ratios, n=4)[::2]
    return f"{statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
