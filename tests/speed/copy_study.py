"""Synchronous beside asynchronous, with numbers: `make copies` writes results/copies.json and copies.md.

A writer changes a served volume at a rate. Over a link of a distance and a rate, farwrite copy ships it every few seconds to
another served volume: how long its writes take, and how old the recovery point becomes. The same load, distance and rate under
protocols A and C, by farwrite run: how long its writes take there, and how far the far copy is behind.
"""

from __future__ import annotations

import argparse
import contextlib
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

import msgspec
from served_command import FARWRITE, serving

from farwrite.base.documents import save_document
from farwrite.base.files import write_atomically
from farwrite.base.host.facts import host_facts
from farwrite.base.units import format_rate, format_size, format_time
from farwrite.engine.frontend import nbd
from farwrite.engine.frontend.nbd_client import NbdClient, place_of
from farwrite.experiment.case import forwarder

ROOT = Path(__file__).resolve().parents[2]
SIZE, BLOCK = 256 << 20, 4096
PERIOD_S, COPIES = 10.0, 3  # The first is in full, or brings what the last case left; it is not counted.
PORT = 10809
MILES, RATES = (150, 1500), ("100 Mbit/s", "1 Gbit/s")
CHANGES = (1 << 20, 8 << 20)  # Bytes a second that the load writes, to places of its own choice.
PROFILE = """
title = "The load of a copy study"
[lab]
durability = "memory"
[distance]
miles = [{miles}]
[link]
rate = "{rate}"
[run]
rounds = 3
round = "3 s"
[[cell]]
name = "load"
protocols = ["A", "C"]
block = "4 KiB"
arrival = "poisson"
rate = "{writes} /s"
queue_depth = 1024
[drill]
kills = 0
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "copies.json")
    parser.add_argument("--again", action="store_true", help="only the page, of what was measured")
    parser.add_argument("--only-copies", action="store_true", help="keep what was measured under A and C")
    parser.add_argument("--miles", type=float, nargs="*", default=MILES)
    parser.add_argument("--rate", nargs="*", default=RATES)
    parser.add_argument("--changes", type=int, nargs="*", default=CHANGES)
    asked = parser.parse_args()
    if not asked.again:
        document = {"period_s": PERIOD_S, "size_bytes": SIZE, "host": msgspec.to_builtins(host_facts()), "cases": []}
        with tempfile.TemporaryDirectory(prefix="farwrite-") as place, contextlib.ExitStack() as stack:
            source = stack.enter_context(served(Path(place) / "s"))
            destination = stack.enter_context(served(Path(place) / "d"))
            for miles in asked.miles:
                for rate in asked.rate:
                    for change in asked.changes:
                        print(f"{miles:g} miles, {rate}, {format_size(change)}/s ...", file=sys.stderr, flush=True)
                        case = {"miles": miles, "rate": rate, "change_bytes_per_s": change}
                        case |= copied(source, destination, miles, rate, change)
                        document["cases"].append(case)
        before = json.loads(asked.out.read_bytes())["cases"] if asked.only_copies else []
        for case in document["cases"]:
            same = [one for one in before if all(one[name] == case[name] for name in ("miles", "rate", "change_bytes_per_s"))]
            case["synchronous"] = same[0]["synchronous"] if same else run_beside(case)
        save_document(asked.out, msgspec.json.format(msgspec.json.encode(document), indent=1))
    page = page_of(json.loads(asked.out.read_bytes()))
    write_atomically(asked.out.with_suffix(".md"), page.encode())
    print(page)
    return 0


@contextlib.contextmanager
def served(sockets: Path) -> Iterator[dict]:
    """A volume that is served, and what it says of itself."""
    words = ["--miles", "20", "--size", str(SIZE), "--memory", "--accept-link-error", "--sockets", str(sockets)]
    with serving("serve", *words) as made:
        yield made


def copied(source: dict, destination: dict, miles: float, rate: str, change: int) -> dict:
    """What copying comes to while the load runs, over a link like that."""
    far = forwarder.command(PORT, f"{destination['sockets']}/volume.sock")
    copying = [
        *FARWRITE, "copy", source["uri"], f"nbd://$FAR:{PORT}/volume", "--to-sockets", destination["sockets"], "--every",
        f"{PERIOD_S} s", "--copies", str(COPIES), "--json", "--overwrite",
    ]  # fmt: skip
    line = " ".join(word if "$" in word else f"'{word}'" for word in copying)
    link = ["--miles", f"{miles:g}", "--rate", rate, "--accept-link-error"]
    words = [*FARWRITE, "lab", *link, "--far", far, "--wait-port", str(PORT), "--", "sh", "-c", line]
    with load(source["uri"], change) as times_ns:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    copies = [json.loads(line) for line in done.stdout.splitlines()][1:]
    said = [line for line in done.stderr.splitlines() if "keep up" in line]
    times = sorted(times_ns)
    return {
        "copies": copies, "falls_behind": bool(said), "writes": len(times), "write_ns_p50": quantile(times, 0.5),
        "write_ns_p99": quantile(times, 0.99),
    }  # fmt: skip


@contextlib.contextmanager
def load(uri: str, change: int) -> Iterator[list[int]]:
    """Writes of one block at instants drawn beforehand, to places drawn as well; their response times, from the instant on."""
    ending, times_ns, story = threading.Event(), [], random.Random(1)

    def write() -> None:
        with NbdClient(place_of(uri, "the source")) as client:
            due_ns, asked = time.monotonic_ns(), {}
            while not ending.is_set():
                due_ns += round(story.expovariate(change / BLOCK) * 1e9)
                while (now_ns := time.monotonic_ns()) < due_ns or len(asked) >= 256:
                    if asked:
                        cookie, _ = client.reap()
                        times_ns.append(time.monotonic_ns() - asked.pop(cookie))
                    elif now_ns < due_ns:
                        time.sleep((due_ns - now_ns) / 1e9)
                asked[client.issue(nbd.WRITE, story.randrange(SIZE // BLOCK) * BLOCK, BLOCK, story.randbytes(BLOCK))] = due_ns
            while asked:
                cookie, _ = client.reap()
                times_ns.append(time.monotonic_ns() - asked.pop(cookie))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield times_ns
    finally:
        ending.set()
        thread.join()


def run_beside(case: dict) -> dict:
    """The same load under A and C over the same link: response times, and how far the far copy is behind."""
    with tempfile.TemporaryDirectory(prefix="farwrite-") as place:
        profile = Path(place) / "load.toml"
        profile.write_text(PROFILE.format(miles=case["miles"], rate=case["rate"], writes=case["change_bytes_per_s"] // BLOCK))
        done = subprocess.run(
            [*FARWRITE, "run", str(profile), "--json", "-q", "--out", f"{place}/out"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if not done.stdout:
        return {"left_out": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"}
    found = {}
    for cell in json.loads(done.stdout)["analysis"]["cells"]:
        found[cell["protocol"]] = {name: value_of(cell, name) for name in ("response_ns_p50", "response_ns_p99", "lag_ns_p99")}
    return found


def value_of(cell: dict, name: str) -> float | None:
    """A figure of a cell, where it is known."""
    found = cell.get(name)
    return found.get("value") if isinstance(found, dict) else None


def quantile(times: list[int], q: float) -> int | None:
    return times[min(int(q * len(times)), len(times) - 1)] if times else None


def page_of(document: dict) -> str:
    """The table: a row a case."""
    columns = ["miles", "link", "changes", "copy takes", "shipped", "recovery point, at best", "at worst", "write p50", "p99",
               "A: p50", "A: behind, p99", "C: p50", "C: behind"]  # fmt: skip
    lines = [
        "# Asynchronous beside synchronous", "",
        f"`make copies`: a volume of {format_size(document['size_bytes'])}, written to in blocks of 4 KiB at random places;",
        f"farwrite copy every {document['period_s']:g} s over the link, {COPIES - 1} copies after the first (median; the",
        "worst of all), beside protocols A and C of the engine with the same load over the same link. All files in memory.",
        "A write of the copied volume is answered by its own two replicas, 20 miles apart, wherever the copy goes. Only the",
        "copy's bytes cross the link; the requests for snapshots do not, which would add a round trip or two.", "",
        "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns),
    ]  # fmt: skip
    for case in document["cases"]:
        copies, beside = case["copies"], case.get("synchronous", {})
        names = ("seconds", "shipped_bytes", "recovery_point_s")
        middle = {name: statistics.median(one[name] for one in copies) for name in names}
        worst = max(one["recovery_point_s_max"] or 0 for one in copies)
        a, c = beside.get("A", {}), beside.get("C", {})
        lines.append("| " + " | ".join([
            f"{case['miles']:g}", format_rate_of(case["rate"]), f"{format_size(case['change_bytes_per_s'])}/s",
            time_text(middle["seconds"] * 1e9) + (" (falls behind)" if case["falls_behind"] else ""),
            format_size(middle["shipped_bytes"]), time_text(middle["recovery_point_s"] * 1e9), time_text(worst * 1e9),
            time_text(case["write_ns_p50"]), time_text(case["write_ns_p99"]), time_text(a.get("response_ns_p50")),
            time_text(a.get("lag_ns_p99")), time_text(c.get("response_ns_p50")), "nothing" if c else "unknown",
        ]) + " |")  # fmt: skip
    left = [f"{one['miles']:g} miles, {one['rate']}: {one['synchronous']['left_out']}" for one in document["cases"]
            if "left_out" in one.get("synchronous", {})]  # fmt: skip
    return "\n".join([*lines, "", *(f"Left out beside: {one}" for one in left)]).rstrip() + "\n"


def format_rate_of(text: str) -> str:
    from farwrite.base.units import rate_bits_per_s

    return format_rate(rate_bits_per_s(text))


def time_text(ns: float | None) -> str:
    return "unknown" if ns is None else format_time(ns)


if __name__ == "__main__":
    sys.exit(main())
