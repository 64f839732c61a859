"""What machine this is and what it was doing: the facts a reader of a report needs before believing it.

Read from /proc and /sys only. What cannot be read is null, never guessed.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

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
