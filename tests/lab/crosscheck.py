"""Hold every emulation against what it was asked for, and against the others: one table.

    tests/lab/crosscheck.py measure LINK OUT.json     on one link of this kernel; in user-mode Linux for netem
    tests/lab/crosscheck.py table results/crosscheck.json docs/links.md FOUND.json...

`make crosscheck` does all of it. A link that this kernel lacks is left out, and the table says so.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from farwrite.base.errors import UnfitError
from farwrite.base.keep_awake import KeepAwake
from farwrite.base.physics import rtt_ns_of
from farwrite.base.units import NS_PER_S, format_rate
from farwrite.experiment.compilation import compile_link
from farwrite.lab.lab import LabSpec, open_lab
from farwrite.lab.probe import (
    FULL_BYTES,
    PROBE_BYTES,
    Z_999,
    bulk_bits_per_s,
    drained_bits_per_s,
    probe,
    share_interval,
)
from farwrite.lab.proof import FULL_BITS, TCP_SHARE
from farwrite.lab.survey import CONNECTIONS
from farwrite.workload.jitter import deviations
from farwrite.workload.link_spec import PLAIN, STREAM_LEVEL_LINKS, Bursts, LinkDirection, LinkSpec

IN_UML = bool(os.environ.get("FARWRITE_UML"))
PACKETS = 100_000
GAP_NS = 60_000 if IN_UML else 20_000
RTT_NS = {"ferry": 30_000, "relay": 60_000, "netem": 100_000 if IN_UML else 30_000}  # The median echo may be off by so much.
RATE_SHARE = 0.03
DELAY_SHARE, DELAY_NS = 0.03, 100_000 if IN_UML else 40_000  # As a survey's tolerance; system calls are slow in user-mode Linux.
SPREAD_SHARE = 0.30 if IN_UML else 0.15  # Lateness adds to jitter; timers are late in user-mode Linux.
BEGIN, END = "<!-- crosscheck -->", "<!-- /crosscheck -->"

BURSTS = Bursts(enter_ratio=0.002, leave_ratio=0.25)
COUNTED = LinkSpec(outward=LinkDirection(loss_ratio=1e-12))  # So that netem takes TCP's packets one by one from the start.
JITTER_NS, JITTER_SHAPES = 1_000_000, ("normal", "uniform", "pareto")
RATES = (5_000_000, 20_000_000, *(() if IN_UML else (200_000_000,)))
PACKETS_ONLY = {
    "loss of 0.1%": ("0.100%", LinkDirection(loss_ratio=0.001)), "loss of 2.0%": ("2.000%", LinkDirection(loss_ratio=0.02)),
    "Gilbert-Elliott, packets a burst": ("4.00", LinkDirection(bursts=BURSTS)),
    "Gilbert-Elliott, loss": (f"{BURSTS.loss_ratio:.3%}", LinkDirection(bursts=BURSTS)),
    "duplicates": ("1.000%", LinkDirection(duplicate_ratio=0.01)),
    "packets sent ahead": ("1.000%", LinkDirection(reorder_ratio=0.01)),
}  # fmt: skip
STREAM = "crosscheck"  # The name of a connection of our own.
STAMP_BYTES = 64


def measure(link: str, out: Path) -> None:
    """Every case on one link."""
    compile_link()
    streams = link in STREAM_LEVEL_LINKS
    try:
        with open_lab(spec_of(link, PLAIN if streams else COUNTED)) as lab:
            found = [*echoes(lab)]
            found += [*stream_ways(lab), *stream_rates(lab)] if streams else [*distances(lab), *directions(lab), *rates(lab)]
        if not streams and not IN_UML:
            with open_lab(spec_of(link, PLAIN, keep_awake="none")) as lab:
                found += speeds(lab)
    except UnfitError as refusal:
        out.write_text(json.dumps({"link": link, "refused": str(refusal), "rows": []}))
        return
    out.write_text(json.dumps({"link": link, "kernel": os.uname().release, "rows": found}))


def spec_of(link: str, asked: LinkSpec, keep_awake: KeepAwake = "none" if IN_UML else "auto") -> LabSpec:
    """A lab without disks to speak of. What sleeps between two echoes wakes later than what is asked to be told apart here."""
    return LabSpec(link, None, None, 16 << 20, 16 << 20, "cubic", link_spec=asked, keep_awake=keep_awake)


def row(case: str, asked: str, delivered: str, met: bool, **numbers: float) -> dict:
    """One line of the table."""
    print(f"{'ok ' if met else 'OFF'} {case}: asked {asked}, delivered {delivered}", file=sys.stderr)
    return {"case": case, "asked": asked, "delivered": delivered, "met": bool(met), **numbers}


def echoes(lab):
    """The round trip from kernel to kernel, at the median."""
    for miles in (1.0, 20.0, 60.0, 150.0, 300.0):
        asked_ns, medians = rtt_ns_of(miles), []
        for _ in range(3):  # As in distances().
            lab.set_rtt(asked_ns)
            medians.append(lab.survey(200).rtt_ns_p50)
        found = min(medians, key=lambda median: abs(median - asked_ns))
        own = not lab.delay_ns[asked_ns] and found > asked_ns
        told = f"{found / 1000:.0f} us" + (", its own: there is no less" if own else "")
        met = own or abs(found - asked_ns) <= RTT_NS[lab.choice.kind]
        yield row(f"round trip, {miles:g} miles", f"{asked_ns / 1000:.0f} us", told, met,
                  asked_ns=asked_ns, delivered_ns=float(found))  # fmt: skip


def distances(lab):
    """One-way delay of each direction, kernel to kernel."""
    for miles in (20.0, 150.0):
        asked_ns = rtt_ns_of(miles) / 2
        medians = []
        for _ in range(3):  # A machine that others use moves between calibration and proof: the best of three is the link's.
            lab.set_rtt(rtt_ns_of(miles))
            stamps = lab.survey(500).stamps
            assert stamps is not None  # A lab whose packets are not stamped is refused when it is opened.
            medians.append([float(np.median(one.delay_ns)) for one in stamps])
        for name, found in zip(("outward", "homeward"), min(medians, key=lambda two: abs(sum(two) - 2 * asked_ns)), strict=True):
            met = abs(found - asked_ns) <= max(DELAY_SHARE * asked_ns, DELAY_NS)
            yield row(f"one-way delay, {miles:g} miles, {name}", f"{asked_ns / 1000:.0f} us", f"{found / 1000:.0f} us", met,
                      asked_ns=asked_ns, delivered_ns=found)  # fmt: skip


def sent(lab, direction, count, gap_ns, payload_bytes=PROBE_BYTES, delay_ns=1_000_000):
    """What arrives outward of so many datagrams over a way."""
    lab.link.set_delay_ns(delay_ns, delay_ns)
    lab.link.set_directions(direction, LinkDirection())
    return probe(lab.near, lab.far, lab.far.address, count, gap_ns, payload_bytes, 4 * delay_ns)


def directions(lab):
    """Loss, bursts, duplicates, reordering, jitter, each alone."""
    for ratio in (0.001, 0.02):
        made = sent(lab, LinkDirection(loss_ratio=ratio), PACKETS, GAP_NS)
        low, high = share_interval(made.lost, made.sent, Z_999)
        yield row(f"loss of {ratio:.1%}", f"{ratio:.3%}", share_text(made.lost, made.sent), low <= ratio <= high,
                  lost=made.lost, sent=made.sent)  # fmt: skip
        yield ordered(f"loss of {ratio:.1%}", made)
    made = sent(lab, LinkDirection(bursts=BURSTS), PACKETS, GAP_NS)
    lengths, asked = made.bursts(), 1 / BURSTS.leave_ratio
    error = (asked * (asked - 1)) ** 0.5 / max(lengths.size, 1) ** 0.5  # Of a geometric length's mean.
    yield row("Gilbert-Elliott, packets a burst", f"{asked:.2f}", f"{lengths.mean():.2f} +- {error:.2f} of {lengths.size}",
              abs(lengths.mean() - asked) <= 3.3 * error, asked_packets=asked, packets=float(lengths.mean()))  # fmt: skip
    visits = (BURSTS.loss_ratio * PACKETS / asked) ** 0.5 / (BURSTS.loss_ratio * PACKETS / asked)
    yield row("Gilbert-Elliott, loss", f"{BURSTS.loss_ratio:.3%}", share_text(made.lost, made.sent),
              abs(made.loss_ratio / BURSTS.loss_ratio - 1) <= 3.3 * visits * 2**0.5, lost=made.lost, sent=made.sent)  # fmt: skip
    yield ordered("Gilbert-Elliott", made)
    made = sent(lab, LinkDirection(duplicate_ratio=0.01), PACKETS // 4, GAP_NS)
    low, high = share_interval(made.duplicates, made.sent, Z_999)
    yield row("duplicates", "1.000%", share_text(made.duplicates, made.sent), low <= 0.01 <= high)
    # Held long enough that there is somebody to overtake even where a machine pauses.
    made = sent(lab, LinkDirection(reorder_ratio=0.01), PACKETS // 4, GAP_NS, delay_ns=5_000_000)
    low, high = share_interval(made.ahead, made.sent, Z_999)
    yield row("packets sent ahead", "1.000%", share_text(made.ahead, made.sent), low <= 0.01 <= high, reordered=made.reordered)
    for shape in JITTER_SHAPES:
        direction = LinkDirection(jitter_ns=JITTER_NS, jitter_shape=shape)
        made = sent(lab, direction, 2_000, 6_000_000, delay_ns=5_000_000)  # Far enough apart that hardly any holds up the next.
        yield jitter_row(direction, made.delay_ns)
        yield ordered(f"jitter, {shape}", made)


def jitter_row(direction: LinkDirection, delay_ns: np.ndarray) -> dict:
    """How far one-way delays spread."""
    asked, found = spread_ns(deviations(direction)), spread_ns(delay_ns)
    return row(f"jitter, {direction.jitter_shape}, half of the middle 68 %", f"{asked / 1000:.0f} us", f"{found / 1000:.0f} us",
               abs(found / asked - 1) <= SPREAD_SHARE, asked_ns=asked, delivered_ns=found)  # fmt: skip


def spread_ns(times_ns: np.ndarray) -> float:
    """Half of what the middle 68 % lie apart, a deviation if it is normal: a busy machine's few late packets are not in it."""
    low, high = np.quantile(times_ns, [0.16, 0.84])
    return float(high - low) / 2


def ordered(case: str, made) -> dict:
    """Nothing reordered, nothing twice."""
    return row(f"{case}: reordered", "none", f"{made.reordered}", not made.reordered and not made.duplicates)


def share_text(count: int, of: int) -> str:
    """A share with its 95 % interval."""
    low, high = share_interval(count, of)
    return f"{count / of:.3%} [{low:.3%}, {high:.3%}]"


def rates(lab):
    """What arrives a second of datagrams that are sent faster than the rate."""
    for rate in RATES:
        per_s = 1.5 * rate / FULL_BITS
        count = max(round(per_s), 400)
        made = sent(lab, LinkDirection(rate_bits_per_s=rate), count, round(NS_PER_S / per_s), FULL_BYTES, 250_000_000 // 4)
        yield rate_row(rate, made.rate_bits_per_s() or 0.0)


def rate_row(rate: int, found: float) -> dict:
    """A rate, counted on the wire."""
    return row(f"rate of {format_rate(rate)}", format_rate(rate), f"{format_rate(found)}, {found / rate - 1:+.2%}",
               abs(found / rate - 1) <= RATE_SHARE, asked_bits_per_s=rate, delivered_bits_per_s=found)  # fmt: skip


def speeds(lab):
    """What the link carries where nothing is asked but a distance, and what it costs while nobody sends."""
    lab.set_rtt(rtt_ns_of(150.0))
    found = max(bulk_bits_per_s(lab.near, lab.far, lab.far.address, 3.0) for _ in range(2))
    yield row("TCP over 150 miles", ">= 2 Gbit/s", format_rate(found), found >= 2e9, delivered_bits_per_s=found)
    lab.set_delay(0)
    best = 0.0
    for _ in range(2):
        made = probe(lab.near, lab.far, lab.far.address, 400_000, 0, PROBE_BYTES)
        best = max(best, made.number.size * NS_PER_S / float(made.got_ns.max() - made.got_ns.min()))
    yield row("frames of 64 bytes", ">= 150 000/s", f"{best:,.0f}/s".replace(",", " "), best >= 150_000, delivered_per_s=best)
    before, begin_s = processor_ns(), time.monotonic()
    time.sleep(2)
    busy = (processor_ns() - before) / (time.monotonic() - begin_s) / NS_PER_S
    yield row("processor while idle, the whole lab", "< 1 %", f"{busy:.2%}", busy < 0.01, share=busy)


def processor_ns() -> int:
    """What all processes that we have started have used of a processor so far. proc(5), schedstat."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return sum(int(Path(f"/proc/{child}/schedstat").read_text().split()[0]) for child in children)


def stream_ways(lab):
    """What a link of streams can show besides a distance, and refuses to pretend."""
    for case, (asked, direction) in PACKETS_ONLY.items():
        try:
            lab.link.set_directions(direction, LinkDirection())
            yield row(case, asked, "taken, and not shown", False)
        except UnfitError:
            yield row(case, asked, "refused", True)
    for shape in JITTER_SHAPES:
        direction = LinkDirection(jitter_ns=JITTER_NS, jitter_shape=shape)
        lab.link.set_delay_ns(5_000_000, 5_000_000)
        lab.link.set_directions(direction, LinkDirection())
        lab.join(STREAM)
        lab.far.start(hear_stamps, lab.near.taken(STREAM), 2_000)
        lab.near.call(say_stamps, lab.held(STREAM), 2_000, 6_000_000)
        delay_ns = lab.far.answer(60)
        lab.link.set_directions(LinkDirection(), LinkDirection())
        yield jitter_row(direction, delay_ns)


def stream_rates(lab):
    """What a stream brings a second while its sender never waits, as packets on a wire of that rate would."""
    lab.link.set_delay_ns(1_000_000, 1_000_000)
    for rate in RATES:
        lab.link.set_directions(LinkDirection(rate_bits_per_s=rate), LinkDirection())
        lab.join(STREAM)
        lab.far.start(hear_flood, lab.near.taken(STREAM))
        lab.near.call(say_flood, lab.held(STREAM), 3.0)
        found = lab.far.answer(60) / TCP_SHARE
        lab.link.set_directions(LinkDirection(), LinkDirection())
        yield rate_row(rate, found)


# In a site.


def say_stamps(name: str, count: int, gap_ns: int) -> None:
    """Send the clock so many times, so far apart."""
    due_ns = time.monotonic_ns()
    for _ in range(count):
        due_ns += gap_ns
        time.sleep(max(due_ns - time.monotonic_ns(), 0) / NS_PER_S)
        CONNECTIONS[name].sendall(time.monotonic_ns().to_bytes(8, "little").ljust(STAMP_BYTES, b"\0"))


def hear_stamps(name: str, count: int) -> np.ndarray:
    """How long ago each stamp was sent when it came."""
    connection, left, delays = CONNECTIONS[name], b"", []
    while len(delays) < count:
        data = left + connection.recv(1 << 16)
        now_ns = time.monotonic_ns()
        whole = len(data) // STAMP_BYTES * STAMP_BYTES
        delays += [now_ns - int.from_bytes(data[at : at + 8], "little") for at in range(0, whole, STAMP_BYTES)]
        left = data[whole:]
    return np.array(delays)


def say_flood(name: str, lasts_s: float) -> None:
    """Send as much as the connection takes, and end it."""
    until_s = time.monotonic() + lasts_s
    with CONNECTIONS.pop(name) as connection:
        while time.monotonic() < until_s:
            connection.sendall(bytes(1 << 14))


def hear_flood(name: str) -> float:
    """Payload bits a second of what comes."""
    return drained_bits_per_s(CONNECTIONS.pop(name))


def table(results: Path, page: Path, found: list[Path]) -> int:
    """The results file, and the table between the two marker lines of the page; 1 when something asked is not delivered."""
    links = [json.loads(path.read_text()) for path in found]
    results.write_text(json.dumps({"packets": PACKETS, "links": links}, indent=1) + "\n")
    carried = [link for link in links if link["rows"]]
    cases = list(dict.fromkeys((one["case"], one["asked"]) for link in carried for one in link["rows"]))
    lines = ["| case | asked | " + " | ".join(f"{link['link']} delivered" for link in carried) + " |"]
    lines.append("|---|---|" + "---|" * len(carried))
    for case, asked in cases:
        cells = [next((one for one in link["rows"] if one["case"] == case), None) for link in carried]
        texts = [("" if one["met"] else "**off** ") + one["delivered"] if one else "-" for one in cells]
        lines.append(f"| {case} | {asked} | " + " | ".join(texts) + " |")
    lines += [f"\n{link['link']} was not measured: {link['refused']}" for link in links if not link["rows"]]
    kernels = ", ".join(f"{link['link']} on Linux {link['kernel']}" for link in carried)
    lines.append(f"\nMeasured: {kernels}; {PACKETS:,} datagrams for a loss.")
    text = page.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    page.write_text(text[:begin] + "\n" + "\n".join(lines) + "\n" + text[end:])
    return int(not all(one["met"] for link in carried for one in link["rows"]))


def main(words: list[str]) -> int:
    if words[0] == "measure":
        measure(words[1], Path(words[2]))
        return 0
    return table(Path(words[1]), Path(words[2]), [Path(word) for word in words[3:]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
