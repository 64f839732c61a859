"""What the machine itself is like: processors, memory, clock, timers, io_uring, congestion control.

Read from /proc and /sys, and tried where trying is the only way to know. Bounds are those beyond which a quantile of 0.3 ms, the
round trip of 20 miles, is no longer the distance's.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from ...base.host.facts import (
    congestion_controls,
    cpu_model,
    io_uring_refusal,
    memory_available_bytes,
    text_of,
    timer_late_ns,
)
from ...base.units import format_size, format_time
from .finding import Finding

CLOCK_READS = 20_000
CLOCK_NS_MAX = 200  # hpet and acpi_pm take a microsecond and more; the time-stamp counter some 25 ns.
TIMER_LATE_NS_P99_MAX = 1_000_000
LOAD_MAX = 0.3  # runnable processes that are not ours, per processor
STEAL_MAX = 0.01
MEMORY_BYTES_MIN = 1 << 30
SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies")
IO_URING_DISABLED = "/proc/sys/kernel/io_uring_disabled"


def kernel() -> Finding:
    """Which kernel this is."""
    processor = " ".join((cpu_model() or "unknown processor").split())
    return Finding(name="kernel", state="ok", sentence=f"Linux {platform.release()} on {platform.machine()}, {processor}.")


def processors() -> Finding:
    """How many there are for us: a lab has a writer, a copy and a link to run at once."""
    usable, quota = len(os.sched_getaffinity(0)), cpu_quota()
    count = min(usable, quota) if quota else usable
    numbers = {"usable": usable, "quota": quota}
    if count < 2:
        return Finding(
            name="processors", state="poor", numbers=numbers, sentence=f"{count:g} for the writer, the copy and the link.",
            mend="give the machine at least 2, or the container --cpus 2",
        )  # fmt: skip
    spare = "" if count > 2 else ": the writer, the copy and the link share them"
    return Finding(name="processors", state="ok", sentence=f"{count:g}{spare}.", numbers=numbers)


def cpu_quota() -> float | None:
    """Processors that our control group may use, or None without a bound. cgroups(7), cpu.max."""
    words = (text_of("/sys/fs/cgroup/cpu.max") or "max 1").split()
    return None if words[0] == "max" else int(words[0]) / int(words[1])


def memory() -> Finding:
    """What is free for journals, volumes and the load."""
    free = memory_available_bytes()
    if free is None:
        return Finding(name="memory", state="ok", sentence="Free memory is not reported here.")
    state, mend = ("ok", "") if free >= MEMORY_BYTES_MIN else ("poor", "free at least 1 GiB, or make lab.journal smaller")
    return Finding(name="memory", state=state, sentence=f"{format_size(free)} free.", mend=mend, numbers={"free_bytes": free})  # type: ignore[arg-type]


def clock() -> Finding:
    """What reads the time, and what a reading costs."""
    source = text_of("/sys/devices/system/clocksource/clocksource0/current_clocksource") or "unknown"
    others = (text_of("/sys/devices/system/clocksource/clocksource0/available_clocksource") or "").split()
    begin_ns = time.perf_counter_ns()
    for _ in range(CLOCK_READS):
        time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    cost_ns = (time.perf_counter_ns() - begin_ns) / CLOCK_READS
    slow = source in SLOW_CLOCKS or cost_ns > CLOCK_NS_MAX
    better = next((name for name in ("tsc", "kvm-clock") if name in others and name != source), None)
    mend = f"echo {better} > /sys/devices/system/clocksource/clocksource0/current_clocksource" if slow and better else ""
    return Finding(
        name="clock", state="poor" if slow else "ok", mend=mend, numbers={"source": source, "read_ns": round(cost_ns, 1)},
        sentence=f"{source}; a reading costs {format_time(cost_ns)} from Python.",
    )  # fmt: skip


def governor() -> Finding:
    """Whether the processors change their speed."""
    chosen = text_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if chosen is None:
        return Finding(name="governor", state="ok", sentence="Not reported here, as in a virtual machine.")
    steady = chosen == "performance"
    return Finding(
        name="governor", state="ok" if steady else "poor", sentence=f"{chosen}.", numbers={"governor": chosen},
        mend="" if steady else "cpupower frequency-set -g performance",
    )  # fmt: skip


def timers() -> Finding:
    """How late a sleep of 100 us wakes, with a timer slack of 1 ns as every process of a lab has."""
    late = timer_late_ns()
    poor = late["p99"] > TIMER_LATE_NS_P99_MAX
    return Finding(
        name="timers", state="poor" if poor else "ok", numbers={f"late_ns_{name}": value for name, value in late.items()},
        sentence=f"A sleep of 100 us wakes {format_time(late['p50'])} late at the median, {format_time(late['p99'])} at p99.",
        mend="stop what else runs here; on a virtual machine, ask its host for processors of its own" if poor else "",
    )  # fmt: skip


def others(stolen: float | None) -> list[Finding]:
    """What else uses the processors: here, and at the host of a virtual machine."""
    cpus = os.cpu_count() or 1
    load = os.getloadavg()[0] / cpus
    busy = Finding(
        name="other load", state="poor" if load > LOAD_MAX else "ok", numbers={"load_per_processor": round(load, 3)},
        sentence=f"{load:.2f} runnable processes per processor over the last minute.",
        mend="stop what else runs here (top)" if load > LOAD_MAX else "",
    )  # fmt: skip
    if stolen is None:
        return [busy]
    taken = Finding(
        name="steal", state="poor" if stolen > STEAL_MAX else "ok", numbers={"steal_ratio": round(stolen, 4)},
        sentence=f"The host took {stolen:.1%} of the processors while this was found out.",
        mend="move to a host that is less shared, or use a machine of your own" if stolen > STEAL_MAX else "",
    )  # fmt: skip
    return [busy, taken]


def io_uring() -> Finding:
    """Whether the engine can hand a write to the kernel without waiting in it."""
    refusal = io_uring_refusal()
    if refusal is None:
        return Finding(name="io_uring", state="ok", sentence="The kernel allows it.")
    disabled = text_of(IO_URING_DISABLED) not in (None, "0")
    return Finding(
        name="io_uring", state="poor", sentence=f"io_uring_setup: {refusal}. Writes block in pwrite instead.",
        mend="sysctl kernel.io_uring_disabled=0" if disabled else "docker run --security-opt seccomp=unconfined, or Linux 5.11",
    )  # fmt: skip


def congestion() -> Finding:
    """Which congestion controls TCP may use here; labs ask for cubic unless told otherwise."""
    known = congestion_controls()
    default = text_of("/proc/sys/net/ipv4/tcp_congestion_control") or "unknown"
    there = "cubic" in known
    return Finding(
        name="congestion control", state="ok" if there else "poor", numbers={"known": known, "default": default},
        sentence=f"{', '.join(known) or 'unknown'}; the default is {default}." + ("" if there else " Labs ask for cubic."),
        mend="" if there else "modprobe tcp_cubic",
    )  # fmt: skip


def module_there(name: str) -> bool:
    """Whether modprobe would find this module for the kernel that runs."""
    return any(Path("/lib/modules", platform.release()).glob(f"**/{name}.ko*"))
