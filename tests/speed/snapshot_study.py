"""What a snapshot costs whoever writes: `make snapshots` writes results/snapshots.json and snapshots.md.

fio keeps so many random 4 KiB writes under way at the NBD door of a served volume; half-way a snapshot is taken and the writes go
on, so every block that they reach for the first time is kept. Each round is followed, or preceded, by one without a snapshot:
what the instant costs is what the two differ by. Beside them, on the same disk, QEMU's internal snapshot of a qcow2 file that
qemu-storage-daemon serves. Completions are fio's own, to the millisecond; response times to the nanosecond.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from served_command import serving

from farwrite.base.documents import save_document
from farwrite.base.files import write_atomically
from farwrite.base.host.facts import host_facts
from farwrite.base.physics import rtt_ns_of
from farwrite.base.units import format_size, format_time
from farwrite.experiment.serve.control import Delete, Show, Take, ask

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "results" / "snapshots.json"
SIZE, SPREAD, BLOCK = 256 << 20, 64 << 20, 4096
MILES, DEPTHS, ROUNDS, RUN_S = (0, 20, 150), (1, 16), 4, 6
SETTLED_S = 1.0  # From then on writes are to be as before, within 10 %.
NS_PER_MS = 1_000_000


class Write(NamedTuple):
    """One of fio's, as its log has it."""

    end_ms: int  # since 1970
    took_ns: int


class Volume(NamedTuple):
    """What is written to, and how a snapshot of it is taken and given up. `take` answers what is kept for it, in bytes."""

    uri: str
    take: Callable[[], object]
    kept: Callable[[], int]
    forget: Callable[[], object]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--again", action="store_true", help="only the page, of what was measured")
    parser.add_argument("--miles", type=float, nargs="*", default=MILES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=RUN_S, help="of a run; the snapshot is taken half-way")
    parser.add_argument("--directory", type=Path, help="for the volumes' files")
    asked = parser.parse_args()
    if not asked.again:
        document: dict[str, Any] = {"host": msgspec.to_builtins(host_facts()), "seconds": asked.seconds, "cases": []}
        with tempfile.TemporaryDirectory(prefix="farwrite-", dir=asked.directory) as place:
            kinds = [(f"farwrite, {miles:g} miles", miles, served(Path(place) / f"{miles:g}", miles)) for miles in asked.miles]
            if shutil.which("qemu-storage-daemon"):
                kinds.append(("qcow2, internal snapshot", None, qcow2(Path(place))))
            for name, miles, opened in kinds:
                with opened as volume:
                    written_once(volume, Path(place))
                    for depth in DEPTHS:
                        print(f"{name}, depth {depth} ...", file=sys.stderr, flush=True)
                        rounds = [pair(volume, depth, number, asked.seconds, Path(place)) for number in range(asked.rounds)]
                        document["cases"].append({"kind": name, "miles": miles, "depth": depth, "rounds": rounds})
        save_document(asked.out, msgspec.json.format(msgspec.json.encode(document), indent=1))
    page = page_of(json.loads(asked.out.read_bytes()))
    write_atomically(asked.out.with_suffix(".md"), page.encode())
    print(page)
    return 0


# What is written to


@contextlib.contextmanager
def served(directory: Path, miles: float) -> Iterator[Volume]:
    """A volume of two replicas so far apart, files on the disk."""
    sockets = directory / "doors"
    directory.mkdir()
    words = ["--miles", f"{miles:g}", "--size", str(SIZE), "--files", str(directory), "--accept-link-error"]
    with serving("serve", *words, "--sockets", str(sockets)) as made:
        yield Volume(
            made["uri"], lambda: ask(sockets, Take("cost")), lambda: ask(sockets, Show()).snapshots[0].kept_bytes,
            lambda: ask(sockets, Delete("cost")),
        )  # fmt: skip


@contextlib.contextmanager
def qcow2(directory: Path) -> Iterator[Volume]:
    """A qcow2 file that qemu-storage-daemon serves."""
    image, door, control = directory / "one.qcow2", directory / "qemu.sock", directory / "qmp.sock"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, str(SIZE)], check=True)
    words = [
        "qemu-storage-daemon", "--blockdev", f"driver=file,node-name=file,filename={image}",
        "--blockdev", "driver=qcow2,node-name=image,file=file", "--nbd-server", f"addr.type=unix,addr.path={door}",
        "--export", "type=nbd,id=one,node-name=image,name=volume,writable=on",
        "--chardev", f"socket,id=control,path={control},server=on,wait=off", "--monitor", "chardev=control",
    ]  # fmt: skip

    def tell(verb: str, **arguments: str) -> None:
        with socket.socket(socket.AF_UNIX) as made:
            made.connect(str(control))
            talk = made.makefile("rw")
            talk.readline()
            for question in ({"execute": "qmp_capabilities"}, {"execute": verb, "arguments": arguments}):
                talk.write(json.dumps(question) + "\n")
                talk.flush()
                while "event" in (answer := json.loads(talk.readline())):
                    pass
                if "error" in answer:
                    raise SystemExit(f"QEMU: {answer['error']['desc']}")

    before = [0]

    def take() -> None:
        before[0] = image.stat().st_blocks * 512
        tell("blockdev-snapshot-internal-sync", device="image", name="cost")

    with subprocess.Popen(words) as process:
        try:
            until_there(control)
            yield Volume(f"nbd+unix:///volume?socket={door}", take, lambda: image.stat().st_blocks * 512 - before[0],
                         lambda: tell("blockdev-snapshot-delete-internal-sync", device="image", name="cost"))  # fmt: skip
        finally:
            process.terminate()
            process.wait()


def until_there(path: Path) -> None:
    limit_s = time.monotonic() + 10
    while not path.exists():
        if time.monotonic() > limit_s:
            raise SystemExit(f"{path} is not there after 10 s.")
        time.sleep(0.01)


# The load


def fio(volume: Volume, place: Path, *more: str) -> list[str]:
    return [
        "fio", "--name=load", "--ioengine=nbd", f"--uri={volume.uri}", f"--bs={BLOCK}", f"--size={SPREAD}", "--thread",
        f"--output={place / 'fio.txt'}", *more,
    ]  # fmt: skip


def written_once(volume: Volume, place: Path) -> None:
    """Something to keep."""
    subprocess.run(fio(volume, place, "--rw=write", "--bs=1m", "--iodepth=4"), check=True, stdout=subprocess.DEVNULL)


def writes_of(volume: Volume, depth: int, seconds: int, takes: bool, place: Path) -> tuple[list[Write], int, int]:
    """One run; its writes, and when the snapshot was asked for and answered, in ms since 1970 (or half-way without one)."""
    log = place / "load"
    words = fio(
        volume, place, "--rw=randwrite", f"--iodepth={depth}", "--time_based", f"--runtime={seconds}", f"--write_lat_log={log}",
        "--log_unix_epoch=1", "--randrepeat=0", "--norandommap",
    )  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as load:
        time.sleep(seconds / 2)
        asked_ms = time.time_ns() // NS_PER_MS
        if takes:
            volume.take()
        answered_ms = time.time_ns() // NS_PER_MS
    if load.returncode:
        raise SystemExit(f"fio ended with exit code {load.returncode}: {(place / 'fio.txt').read_text()[-500:]}")
    (found,) = place.glob("load_lat*.log")
    rows = [line.split(",") for line in found.read_text().splitlines()]
    for one in place.glob("load_*.log"):
        one.unlink()
    return [Write(int(row[0]), int(row[1])) for row in rows], asked_ms, answered_ms


def pair(volume: Volume, depth: int, number: int, seconds: int, place: Path) -> dict[str, Any]:
    """A run with a snapshot and one without, in turn: their figures, in ns, and the bytes that were kept."""
    found: dict[str, Any] = {}
    for takes in (True, False) if number % 2 else (False, True):
        found["with" if takes else "without"] = figures(*writes_of(volume, depth, seconds, takes, place))
        if takes:
            found["kept_bytes"] = volume.kept()
            volume.forget()
            time.sleep(1)  # What it kept is given back in the background.
    return found


def figures(writes: list[Write], asked_ms: int, answered_ms: int) -> dict[str, Any]:
    """Of one run: the median before the instant, in the second from its answer on, and later; and the longest write about it."""
    settled_ms = answered_ms + round(1000 * SETTLED_S)
    parts = {
        "before": [one.took_ns for one in writes if one.end_ms < asked_ms],
        "at_once": [one.took_ns for one in writes if asked_ms <= one.end_ms < settled_ms],
        "settled": [one.took_ns for one in writes if one.end_ms >= settled_ms],
    }
    found: dict[str, Any] = {"took_ms": answered_ms - asked_ms}
    for name, times in parts.items():
        found |= {f"{name}_writes": len(times), f"{name}_ns_p50": statistics.median(times), f"{name}_ns_max": max(times)}
    return found


# The page


def middle(case: dict[str, Any], arm: str, name: str) -> float:
    return statistics.median(one[arm][name] for one in case["rounds"])


def ratio(case: dict[str, Any], arm: str, name: str) -> list[float]:
    """Of each round: a median after the instant over that before it."""
    return sorted(one[arm][f"{name}_ns_p50"] / one[arm]["before_ns_p50"] for one in case["rounds"])


def span(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{values[0]:.2f}, {values[-1]:.2f}]"


HEADS = (
    "what", "depth", "p50 before", "first second, of before", "later, of before", "later, without a snapshot",
    "longest write about it", "the same without", "goal: 10 ms + 1 round trip", "goal: within 10 %", "`create` took", "kept",
)  # fmt: skip
PAUSE_NS_MAX, SETTLED_MAX = 10 * NS_PER_MS, 1.10


def page_of(document: dict[str, Any]) -> str:
    """The table: a row a case."""
    lines = [
        "# What a snapshot costs whoever writes", "",
        f"`make snapshots`: fio's random 4 KiB writes over {format_size(SPREAD)} at an NBD door, {document['seconds']} s a run; "
        f"half-way a snapshot. {len(document['cases'][0]['rounds'])} pairs of a run with one and one without, in turn; medians "
        "over rounds, in brackets the least and the greatest round. *first second* and *later* are medians of response times "
        "over the median before the instant. A write at the door of farwrite is durable at both ends when it is answered; QEMU's "
        "are in its host's cache. Goals: the longest write about the instant takes at most 10 ms and a round trip; after one "
        "second the median is within 10 % of that before it.", "",
        f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}", *map(row_of, document["cases"]),
    ]  # fmt: skip
    host = document["host"]
    cpu, kernel = host.get("cpu", "an unknown processor"), host.get("kernel", "?")
    lines += ["", f"Measured on {cpu}, {host.get('cpu_count', '?')} processors, Linux {kernel}."]
    return "\n".join(lines) + "\n"


def kept_in(case: dict[str, Any], is_kept: Callable[[dict[str, Any]], bool]) -> str:
    """In how many of its rounds a goal was reached."""
    return f"{sum(map(is_kept, case['rounds']))} of {len(case['rounds'])}"


def row_of(case: dict[str, Any]) -> str:
    """A case's row."""
    kept = statistics.median(one["kept_bytes"] for one in case["rounds"])
    cells = [
        case["kind"], case["depth"], format_time(middle(case, "with", "before_ns_p50")), span(ratio(case, "with", "at_once")),
        span(ratio(case, "with", "settled")), span(ratio(case, "without", "settled")),
        format_time(middle(case, "with", "at_once_ns_max")), format_time(middle(case, "without", "at_once_ns_max")),
        kept_in(case, lambda one: one["with"]["at_once_ns_max"] <= PAUSE_NS_MAX + rtt_ns_of(case["miles"] or 0.0)),
        kept_in(case, lambda one: one["with"]["settled_ns_p50"] <= SETTLED_MAX * one["with"]["before_ns_p50"]),
        f"{middle(case, 'with', 'took_ms'):.0f} ms", format_size(round(kept)),
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
