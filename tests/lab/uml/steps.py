"""What the scripts in user-mode Linux share: programs with a limit, waiting, and what is said to the test outside."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

LIMIT_S = 120
T0_S = time.monotonic()


def tell(sentence: str) -> None:
    """A line for whoever reads outside, which may wait for it."""
    print(sentence, flush=True)


def beat() -> None:
    """Say BEAT and for how long we run, every other second: that this kernel lives, whatever its I/O waits for."""

    def go_on() -> None:
        while True:
            tell(f"BEAT {time.monotonic() - T0_S:.0f}")
            time.sleep(2)

    threading.Thread(target=go_on, daemon=True).start()


def report_after(limit_s: float, *commands: str) -> None:
    """What these say on stderr, should we still run by then: whoever waits for I/O that never ends cannot say it any more."""

    def report() -> None:
        for words in commands:
            try:
                done = subprocess.run(
                    words, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10, check=False
                )
                step(f"{words}:\n{done.stdout}")
            except subprocess.TimeoutExpired:
                step(f"{words}: no answer within 10 s")

    timer = threading.Timer(limit_s, report)
    timer.daemon = True
    timer.start()


def step(sentence: str) -> None:
    """What is done next, and when; on stderr."""
    print(f"{time.monotonic() - T0_S:6.1f} s  {sentence}", file=sys.stderr, flush=True)


def run(*words: str | Path, code: int = 0, limit_s: float = LIMIT_S, **options) -> str:
    """A program's output; it has to end with this code."""
    step(" ".join(map(str, words))[:120])
    done = subprocess.run(
        [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit_s, check=False,
        **options,
    )  # fmt: skip
    if done.returncode != code:
        sys.exit(f"{words} answered {done.returncode}:\n{done.stdout}")
    return done.stdout


def until(holds, what: str, limit_s: float = LIMIT_S) -> None:
    """Wait for it."""
    end_s = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > end_s:
            sys.exit(f"{what} has not happened within {limit_s:g} s")
        time.sleep(0.05)


def written_files(directory: Path, count: int = 8) -> dict[str, str]:
    """Files of bytes that do not repeat, durable when this returns; digest by name."""
    found = {}
    for number in range(count):
        data = os.urandom(100_000 + 7919 * number)
        with (directory / f"file{number}").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        found[f"file{number}"] = hashlib.sha256(data).hexdigest()
    directory_fd = os.open(directory, os.O_RDONLY)
    os.fsync(directory_fd)
    os.close(directory_fd)
    return found


def check_files(directory: Path, digests: dict[str, str]) -> None:
    """Whether they are whole."""
    for name, digest in digests.items():
        if hashlib.sha256((directory / name).read_bytes()).hexdigest() != digest:
            sys.exit(f"{name} is not what was written")
