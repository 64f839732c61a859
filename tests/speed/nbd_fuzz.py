"""A million mutated requests, against the oracle one by one and at a door over real sockets.

    tests/speed/nbd_fuzz.py [--requests 1000000] [--seed 1]
"""

# ruff: noqa: E402 (the tests lie beside each other)

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "engine" / "frontend"), str(TESTS.parent / "bench")]

import test_door_fuzz
import test_nbd_requests

from served import Served


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    begun = time.monotonic()
    answers = test_nbd_requests.fuzz(asked.requests, asked.seed)
    print(f"{asked.requests:,} headers as the oracle says, {time.monotonic() - begun:.0f} s: {dict(sorted(answers.items()))}")
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        served = Served(stack)
        heard = test_door_fuzz.fuzz(served, asked.requests, asked.seed)
        row = {name: int(served.counters[name]) for name in served.counters.dtype.names}
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20
    took_s = time.monotonic() - begun
    print(f"{asked.requests:,} requests at the door, {took_s:.0f} s, {heard >> 20:,} MiB heard, {resident} MiB here")
    print(row)


if __name__ == "__main__":
    main()
