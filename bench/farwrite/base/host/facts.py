"""What machine this is and what it was doing: the facts a reader of a report needs before believing it.

Read from /proc and /sys, and tried where only trying tells. What cannot be known is null, never guessed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

PR_SET_TIMERSLACK = 29
SYS_IO_URING_SETUP = 425
IO_URING_PARAMS_BYTES = 120
SLEEPS = 200  # Together some 40 ms.
SLEEP_NS = 100_000

LIBRARIES = ("numba", "llvmlite", "numpy", "msgspec", "pyroute2")


def host_facts() -> dict[str, Any]:
    """The machine, its kernel, its clock and our versions."""
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": cpu_model(),
        "cpu_count": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "virtual": "hypervisor" in cpu_flags(),
        "clock_source": text_of("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "governor": text_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "load_average_1min": os.getloadavg()[0],
        "python": platform.python_version(),
        "libraries": {name: version_of(name) for name in LIBRARIES},
        "git_revision": git_revision(),
        "cpu_usable": len(os.sched_getaffinity(0)),
        "memory_available_bytes": memory_available_bytes(),
        "congestion_controls": congestion_controls(),
        "io_uring": io_uring_refusal() or "allowed",
        "timer_late_ns": timer_late_ns(),
    }


def text_of(path: str) -> str | None:
    """One line of a file of the system, or None."""
    try:
        return Path(path).read_text().strip() or None
    except OSError:
        return None


def version_of(package: str) -> str | None:
    """An installed package's version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str | None:
    """The processor's name as it calls itself."""
    for line in (text_of("/proc/cpuinfo") or "").splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return None


def cpu_flags() -> list[str]:
    """Feature flags of the first processor."""
    for line in (text_of("/proc/cpuinfo") or "").splitlines():
        if line.startswith(("flags", "Features")):
            return line.split(":", 1)[1].split()
    return []


def memory_available_bytes() -> int | None:
    """What may still be used without swapping; /proc/meminfo, proc(5)."""
    for line in (text_of("/proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return None


def congestion_controls() -> list[str]:
    """What TCP may use here; tcp(7)."""
    return (text_of("/proc/sys/net/ipv4/tcp_available_congestion_control") or "").split()


def io_uring_refusal() -> str | None:
    """None when this process may make a ring, otherwise the system's answer. io_uring_setup(2)."""
    parameters = ctypes.create_string_buffer(IO_URING_PARAMS_BYTES)
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(SYS_IO_URING_SETUP, 1, parameters)
    if descriptor < 0:
        return os.strerror(ctypes.get_errno())
    os.close(descriptor)
    return None


def timer_late_ns() -> dict[str, int]:
    """p50 and p99 of how late a sleep of 100 us wakes, in a thread of its own whose timer slack is 1 ns. prctl(2)."""
    late_ns: list[int] = []

    def sleep() -> None:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)  # Of this thread alone.
        for _ in range(SLEEPS):
            begin_ns = time.monotonic_ns()
            time.sleep(SLEEP_NS / 1e9)
            late_ns.append(time.monotonic_ns() - begin_ns - SLEEP_NS)

    sleeping = threading.Thread(target=sleep)
    sleeping.start()
    sleeping.join()
    late_ns.sort()
    return {"p50": late_ns[SLEEPS // 2], "p99": late_ns[SLEEPS * 99 // 100]}


def git_revision() -> str | None:
    """The revision of the checkout we run from, with "+" when it was changed; None when there is none."""
    here = Path(__file__).resolve().parent
    try:
        revision = git(here, "rev-parse", "--short=12", "HEAD")
        changed = git(here, "status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return revision + ("+" if changed else "")


def git(directory: Path, *words: str) -> str:
    """What git answers in a directory."""
    done = subprocess.run(
        ["git", "-C", str(directory), *words], capture_output=True, text=True, timeout=5, check=True
    )  # fmt: skip
    return done.stdout.strip()


def processor_time() -> tuple[int, int]:
    """(stolen, total) processor time since boot in ticks, over all processors; /proc/stat, proc(5)."""
    line = (text_of("/proc/stat") or "cpu 0 0 0 0 0 0 0 0").splitlines()[0]
    fields = [int(field) for field in line.split()[1:9]]
    return fields[7] if len(fields) > 7 else 0, sum(fields)


def steal_between(before: tuple[int, int], after: tuple[int, int]) -> float | None:
    """Share of processor time that the host took between two readings; None when too little time passed."""
    total = after[1] - before[1]
    return (after[0] - before[0]) / total if total > 0 else None


def command_line() -> list[str]:
    """The command as it was given, without the path of this machine."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]
