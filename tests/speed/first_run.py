"""What a newcomer meets: `make bench` and `make test` again and again, on an idle machine and beside a busy neighbour.

    tests/speed/first_run.py --idle 10 --busy 3 --tests 1      adds to results/first-run.json and writes the page anew

`make first-run` does that. A busy neighbour is a loop that computes on each processor, or whatever keeps them busy already. Every
run is a fresh start; its report is read for verdicts, void rounds and what decided, and thrown away. What was measured is kept
after each run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from farwrite.analysis import analysis_of
from farwrite.analysis.answer import answer_of
from farwrite.analysis.result import Analysis, Estimate
from farwrite.analysis.void import cause_of
from farwrite.base.documents import found_at
from farwrite.base.host.facts import host_facts
from farwrite.base.units import NS_PER_MS
from farwrite.recording import Recording, causes_of, read

ROOT = Path(__file__).parents[2]
JSON, PAGE = ROOT / "results" / "first-run.json", ROOT / "results" / "first-run.md"
SETTLE_S = 5.0  # Between two runs: what the one before has written reaches the disk.


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """A loop that computes on each processor, as long as this block, unless other work keeps them all busy already."""
    processors = os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        for _ in range(processors if busy and os.getloadavg()[0] < processors else 0):
            burning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(burning.wait)
            stack.callback(burning.kill)
        yield


def bench(busy: bool) -> dict[str, Any]:
    """One run of the main job, as `make bench` starts it."""
    with tempfile.TemporaryDirectory() as directory, neighbour(busy):
        out = Path(directory) / "run"
        begin_s, load = time.monotonic(), os.getloadavg()[0]
        done = subprocess.run(
            [sys.executable, "-m", "farwrite", "run", "limits", "-q", "--out", out], cwd=ROOT, capture_output=True, text=True
        )
        lasted_s = time.monotonic() - begin_s
        row: dict[str, Any] = {
            "what": "bench", "busy": busy, "at_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "load_before": round(load, 2), "seconds": round(lasted_s, 1), "exit": done.returncode,
        }  # fmt: skip
        if not found_at(out / "report.json").exists():
            return row | {"error": done.stderr.strip()[-300:]}
        report = read(out)
    return row | told(report.recording, analysis_of(report))


def told(recording: Recording, analysis: Analysis) -> dict[str, Any]:
    """What a run's report says, as far as the page needs it."""
    bad = [causes_of(item) for item in recording.rounds if item.status != "ok"]
    causes = Counter(cause for reasons in bad for cause in set(map(cause_of, reasons)))
    near = next(item for item in analysis.cells if (item.name, item.protocol, item.miles) == ("write", "C", 20.0))
    far = next(item for item in analysis.cells if (item.name, item.protocol, item.miles) == ("write", "C", 150.0))
    return {
        "claims": {claim.id: claim.verdict for claim in analysis.claims},
        "undecided": {claim.id: claim.sentence for claim in analysis.claims if claim.verdict == "unknown"},
        "rounds": len(recording.rounds), "void": sum(item.status == "void" for item in recording.rounds),
        "failed": sum(item.status == "failed" for item in recording.rounds), "causes": dict(causes.most_common(3)),
        "keep_awake": recording.lab.keep_awake, "link": recording.lab.link,
        "p50_ms": in_ms(near.response_ns_p50), "p99_ms": in_ms(near.response_ns_p99), "far_p50_ms": in_ms(far.response_ns_p50),
        "rtt_off_us": round((near.rtt_ns_p50.value or 0) / 1000 - near.asked_rtt_ns / 1000, 1),
        "answer": [line.text for line in answer_of(recording, analysis).lines],
    }  # fmt: skip


def in_ms(estimate: Estimate) -> list[float | None]:
    """[value, low, high]."""
    return [None if one is None else round(one / NS_PER_MS, 3) for one in (estimate.value, estimate.low, estimate.high)]


def test(busy: bool) -> dict[str, Any]:
    """One `make test`."""
    load = os.getloadavg()[0]
    with neighbour(busy):
        begin_s = time.monotonic()
        done = subprocess.run(["make", "test"], cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    # make has the last word where make has asked.
    ends = [line for line in lines if re.search(r"\d+ (passed|failed)", line)]
    return {
        "what": "test", "busy": busy, "at_utc": datetime.now(UTC).isoformat(timespec="seconds"), "exit": done.returncode,
        "load_before": round(load, 2), "seconds": round(time.monotonic() - begin_s, 1),
        "last": re.sub(r"=+", "", ends[-1]).strip() if ends else "",
        "red": [line.removeprefix("FAILED ").split(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))],
    }  # fmt: skip


def page_of(found: dict[str, Any]) -> str:
    """The page."""
    benches = [row for row in found["rows"] if row["what"] == "bench"]
    tests = [row for row in found["rows"] if row["what"] == "test"]
    host = found["host"]
    lines = [
        "# What a newcomer meets", "",
        "`make first-run`: the main job (`farwrite run limits`, as `make bench` starts it) and `make test`, again and again,",
        f"each a fresh start, on one machine ({host.get('cpu', 'unknown processor')}, {host.get('cpu_count', '?')} processors, "
        f"Linux {host.get('kernel', '?')}).",
        "Busy: beside a loop that computes on each processor, or other work that keeps all of them busy. C2 fails as it should:",
        "a cut link refutes 100 % available.", "",
        *summaries(benches), "", *table(BENCH_HEADS, map(bench_row, range(1, 1 + len(benches)), benches)),
    ]  # fmt: skip
    why = dict.fromkeys(text for row in benches for text in row.get("undecided", {}).values())
    if why:
        lines += ["", "Undecided, and why:", "", *(f"- {text}" for text in why)]
    if tests:
        lines += ["", *table(TEST_HEADS, map(test_row, range(1, 1 + len(tests)), tests))]
    return "\n".join(lines) + "\n"


BENCH_HEADS = (
    "run", "busy", "C1", "C2", "C3", "p99 at 20 miles, ms", "p50 at 20, 150 miles, ms", "void of rounds", "most often",
    "RTT off at 20 miles", "s", "exit",
)  # fmt: skip
TEST_HEADS = ("make test", "busy", "exit", "s", "last line", "red")


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(map(str, row))} |" for row in (heads, ["---"] * len(heads), *rows)]


def summaries(benches: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What all idle runs say together, and all busy ones."""
    for busy in (False, True):
        mine = [row for row in benches if row["busy"] == busy]
        if mine:
            decided = sum(bool(row.get("claims")) and "unknown" not in row["claims"].values() for row in mine)
            first = sum(row.get("claims", {}).get("C1", "unknown") != "unknown" for row in mine)
            times = [row["seconds"] for row in mine]
            void, rounds = (sum(row.get(name, 0) for row in mine) for name in ("void", "rounds"))
            yield (
                f"- {'Beside a busy neighbour' if busy else 'Idle'}: C1 decided in {first} of {len(mine)} runs, all three claims "
                f"in {decided}; {void} of {rounds} rounds void; {min(times):.0f} to {max(times):.0f} s a run."
            )


def bench_row(number: int, row: dict[str, Any]) -> list[Any]:
    """One run of the main job."""
    head, tail = [number, yes(row["busy"])], [f"{row['seconds']:.0f}", row["exit"]]
    if "claims" not in row:
        return [*head, "-", "-", "-", row.get("error", ""), "", "", "", "", *tail]
    value, low, high = row["p99_ms"]
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return [
        *head, *(row["claims"].get(name, "-") for name in ("C1", "C2", "C3")),
        "unknown" if value is None else f"{value:.3f}{interval}", f"{row['p50_ms'][0]}, {row['far_p50_ms'][0]}",
        f"{row['void']} of {row['rounds']}", next(iter(row["causes"]), ""), f"{row['rtt_off_us']:+.1f} us", *tail,
    ]  # fmt: skip


def test_row(number: int, row: dict[str, Any]) -> list[Any]:
    """One run of the tests."""
    return [number, yes(row["busy"]), row["exit"], f"{row['seconds']:.0f}", row["last"], ", ".join(row["red"])]


def yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    for name, what in (("idle", "runs of the main job on the machine as it is"), ("busy", "the same beside a busy neighbour"),
                       ("tests", "runs of make test"), ("busy-tests", "the same beside a busy neighbour")):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=0, help=what)
    parser.add_argument("--fresh", action="store_true", help="forget what was recorded before")
    asked = parser.parse_args()
    found = json.loads(JSON.read_text()) if JSON.exists() and not asked.fresh else {"rows": []}
    found["host"] = host_facts()
    work = [(bench, False)] * asked.idle + [(bench, True)] * asked.busy
    work += [(test, False)] * asked.tests + [(test, True)] * asked.busy_tests
    for number, (measure, busy) in enumerate(work, 1):
        time.sleep(SETTLE_S)
        row = measure(busy)
        found["rows"].append(row)
        JSON.write_text(json.dumps(found, indent=1) + "\n")
        PAGE.write_text(page_of(found))
        what = row.get("claims") or row.get("last") or row.get("error")
        lasted = f"exit {row['exit']}, {row['seconds']:.0f} s"
        print(f"{number} of {len(work)}: {row['what']}, busy: {yes(busy)}, {lasted}, {what}", flush=True)


if __name__ == "__main__":
    main()
