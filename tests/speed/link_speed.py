"""How fast and how true the link is: TCP over 150 miles, packets a second, and how far the median round trip is off.

    .venv/bin/python tests/speed/link_speed.py [--link ferry] [--seconds 3]

Prints numbers of one run on this machine; asserts nothing. Both ends and what carries the packets share its processors.
"""

import argparse
import subprocess

from farwrite.lab.lab import LabSpec, open_lab
from farwrite.lab.probe import PROBE_BYTES, bulk_bits_per_s, probe
from farwrite.physics import rtt_ns_of
from farwrite.warm import compile_all

FLOOD = 400_000


def iperf(lab, seconds):
    """bits/s of iperf3 from the near to the far site, or None where it is not installed."""
    import json
    import shutil

    if shutil.which("iperf3") is None:
        return None
    lab.far.start(output_of, ["iperf3", "-s", "-1", "-B", lab.far.address])
    words = ["iperf3", "-J", "-c", lab.far.address, "-t", str(seconds), "-O", "1"]
    for _ in range(50):
        said = lab.near.call(output_of, words, timeout_s=seconds + 30)
        if "end" in (told := json.loads(said)) and "sum_received" in told["end"]:
            break
    lab.far.answer(30)
    return told["end"]["sum_received"]["bits_per_second"]


def output_of(words):
    return subprocess.run(words, capture_output=True, text=True).stdout


def main():
    reader = argparse.ArgumentParser()
    reader.add_argument("--link", default="auto")
    reader.add_argument("--seconds", type=int, default=3)
    given = reader.parse_args()
    compile_all()
    spec = LabSpec(given.link, None, None, 16 << 20, 16 << 20, "cubic")
    with open_lab(spec) as lab:
        print(f"link {lab.choice.kind}, base round trip {lab.base.rtt_ns_p50 / 1000:.1f} us at the median")
        lab.set_rtt(rtt_ns_of(150))
        for _ in range(2):
            own = bulk_bits_per_s(lab.near, lab.far, lab.far.address, given.seconds)
            print(f"TCP at 150 miles, sockets of our own: {own / 1e9:.2f} Gbit/s")
            rate = iperf(lab, given.seconds)
            print(f"TCP at 150 miles, iperf3: {rate / 1e9:.2f} Gbit/s" if rate else "iperf3 is not installed")
        lab.set_delay(0)
        for _ in range(2):
            made = probe(lab.near, lab.far, lab.far.address, FLOOD, 0, PROBE_BYTES)
            lasted_s = (made.got_ns.max() - made.got_ns.min()) / 1e9
            print(f"64-byte frames, flooded: {made.number.size / lasted_s:,.0f} arrive a second, {made.loss_ratio:.1%} do not")
        for miles in (1, 5, 20, 60, 150, 300):
            asked_ns = rtt_ns_of(miles)
            missed = []
            for _ in range(3):
                lab.forget(asked_ns)
                lab.set_rtt(asked_ns)
                missed.append(lab.survey(200).rtt_ns_p50 - asked_ns)
            said = ", ".join(f"{off / 1000:+.1f}" for off in missed)
            print(f"{miles:4} miles, {asked_ns / 1000:.0f} us: median off by {said} us")
        print(lab.link.counters())


if __name__ == "__main__":
    main()
