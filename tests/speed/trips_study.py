"""How many round trips a write waits for at targets of several makers: `make trips` writes results/trips.json and trips.md.

Each target stands at the far end of a lab of its own, measured by `farwrite trips`. What is not installed is named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from farwrite.analysis.trips import FORETOLD_MILES, analyse_trips
from farwrite.base.documents import save_document
from farwrite.base.files import write_atomically
from farwrite.base.host.facts import host_facts
from farwrite.recording import TripsRecording

ROOT = Path(__file__).resolve().parents[2]
TGT = """export TGT_IPC_SOCKET=./socket
tgtd -f --iscsi portal=$FAR:3260 & until tgtadm --op show --mode system >/dev/null 2>&1; do sleep 0.1; done
tgtadm --op new --mode target --tid 1 -T iqn.2026-11.org.example:disk
{keys}tgtadm --op new --mode logicalunit --tid 1 --lun 1 -b $PWD/disk.img
tgtadm --op bind --mode target --tid 1 -I ALL; wait"""
TUNED = "".join(
    f"tgtadm --op update --mode target --tid 1 -n {key} -v {value}\n"
    for key, value in (("InitialR2T", "No"), ("FirstBurstLength", "262144"), ("MaxRecvDataSegmentLength", "262144"))
)
QSD = (
    "qemu-storage-daemon --blockdev driver=file,filename=disk.img,node-name=disk "
    "--nbd-server addr.type=inet,addr.host=$FAR,addr.port=10809 --export type=nbd,id=disk,node-name=disk,name=disk,writable=on"
)
ISCSI, NBD = "iscsi://$FAR:3260/iqn.2026-11.org.example:disk/1", "nbd://$FAR:10809/disk"
RIVALS = {  # name: (program, command, URI)
    "tgt, as it comes": ("tgtd", TGT.format(keys=""), ISCSI),
    "tgt, three keys changed": ("tgtd", TGT.format(keys=TUNED), ISCSI),
    "qemu-nbd": ("qemu-nbd", "qemu-nbd -t -p 10809 -x disk -f raw disk.img", NBD),
    "qemu-storage-daemon": ("qemu-storage-daemon", QSD, NBD),
    "nbdkit": ("nbdkit", "nbdkit -f -p 10809 memory 64M", "nbd://$FAR:10809"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "trips.json")
    parser.add_argument("--again", action="store_true", help="only the page, of what was measured")
    parser.add_argument("words", nargs="*", help="more words for farwrite trips, behind --")
    asked = parser.parse_args()
    if not asked.again:
        document = {"recordings": {}, "left_out": {}, "host": msgspec.to_builtins(host_facts())}
        measured(document, "our doors", [], asked.words)
        for name, (program, command, uri) in RIVALS.items():
            if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
                document["left_out"][name] = f"{program} is not installed"
                continue
            measured(document, name, ["--far", command, "--uri", uri], asked.words)
        save_document(asked.out, msgspec.json.format(msgspec.json.encode(document), indent=1))
    page = page_of(json.loads(asked.out.read_bytes()))
    write_atomically(asked.out.with_suffix(".md"), page.encode())
    print(page)
    return 0


def measured(document: dict, name: str, words: list[str], more: list[str]) -> None:
    """One lab's recording, or why there is none."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="farwrite-") as place:
        with (Path(place) / "disk.img").open("wb") as image:
            image.truncate(64 << 20)
        done = subprocess.run(
            [sys.executable, "-m", "farwrite", "trips", "--json", *words, *more], cwd=place, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    if done.returncode:
        document["left_out"][name] = done.stderr.strip().splitlines()[-1]
    else:
        document["recordings"][name] = json.loads(done.stdout)["recording"]


def page_of(document: dict) -> str:
    """The table, a row a target: k of each size with what was foretold, then the keys and the costs."""
    made = {name: msgspec.convert(one, TripsRecording) for name, one in document["recordings"].items()}
    found = {name: analyse_trips(one) for name, one in made.items()}
    first = next(iter(made.values()))
    lines = [
        "# Round trips of a write", "",
        f"`make trips`, {first.started_utc[:10]}, farwrite {first.farwrite}: {first.initiator}, one write at a time, "
        f"{first.miles:g} miles ({first.link}), TCP {first.congestion}. k of the fastest write, then of the median with its "
        "interval; in brackets what the protocol foretells.", "",
    ]  # fmt: skip
    sizes = [one.size_bytes for one in first.targets[0].writes]
    lines += [row(["target", *(size_text(size) for size in sizes)]), row(["---"] * (len(sizes) + 1))]
    named = [
        (observed.name if name == "our doors" else name, observed, target)
        for name in made
        for observed, target in zip(made[name].targets, found[name].targets, strict=True)
    ]
    for name, _, target in named:
        lines.append(row([name, *(k_text(one) for one in target.rows)]))
    lines += ["", f"What a write takes, ms: p50 at 0 miles, then p50 at 0 miles + k round trips of light at "
              f"{' and '.join(f'{miles:g}' for miles in FORETOLD_MILES)} miles, k of the fastest.", ""]
    lines += [row(["target", *(size_text(size) for size in sizes)]), row(["---"] * (len(sizes) + 1))]
    for name, _, target in named:
        lines.append(row([name, *(cost_text(one) for one in target.rows)]))
    lines += ["", "| iSCSI target | agreed | the second trip is cost by |", "|---|---|---|"]
    for name, observed, target in named:
        if observed.kind == "iscsi":
            agreed = ", ".join(f"{key}={value}" for key, value in observed.keys.items()) or observed.keys_unknown
            costs = "; ".join(
                f"{size_text(one.size_bytes)}: {' or '.join(' with '.join(keys) for keys in one.costly_keys)}"
                for one in target.rows
                if one.costly_keys
            )
            lines.append(row([name, agreed, costs or "nothing"]))
    lines += [""] + [f"Left out: {name}: {why}." for name, why in document["left_out"].items()]
    return "\n".join(lines).rstrip() + "\n"


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def size_text(size: int) -> str:
    return f"{size >> 10} KiB" if size < 1 << 20 else f"{size >> 20} MiB"


def k_text(one) -> str:
    """ "1.02; 1.1 [1.0, 1.3] (1)"."""
    k = one.k
    if k.value is None:
        return "unknown"
    interval = f" [{k.low:.1f}, {k.high:.1f}]" if k.low is not None else ""
    return f"**{one.k_fastest:.2f}**; {k.value:.2f}{interval} ({one.expected or '?'})"


def cost_text(one) -> str:
    """At 0 miles and at the distances."""
    if one.k_fastest is None:
        return "unknown"
    at_0_ns = one.at_0_ns_p50.value
    return "; ".join(f"{ns / 1e6:.2f}" for ns in (at_0_ns, *costs_of(one)))


def costs_of(one) -> list[float]:
    """ns at FORETOLD_MILES, with k of the fastest in place of the median's."""
    return [
        one.at_0_ns_p50.value + (told - one.at_0_ns_p50.value) * one.k_fastest / one.k.value if one.k.value else told
        for told in one.foretold_ns
    ]


if __name__ == "__main__":
    sys.exit(main())
