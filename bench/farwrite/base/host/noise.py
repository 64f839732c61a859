"""Host noise: what this machine did besides the measurement while a load ran.

How long our own processes waited for a processor (run-queue delay), and how much of the processors other programs used. The
kernel's threads and interrupts are no program's: most of what they do beside a load is the load's own flushes and packets. Two
readings of /proc, one before the load and one after it; what the kernel does not tell is None. What the host of a virtual
machine took (steal) is facts.py's. Whether it was too much is the analysis's to say.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..units import NS_PER_S

Pids = Iterable[int | None]  # None: a process of another machine, or of another lab, of which nothing is known.


@dataclass(frozen=True)
class Thread:
    """One thread of ours, since it began: /proc/PID/task/TID/schedstat, in ns. Documentation/scheduler/sched-stats.rst."""

    pid: int
    ran_ns: int
    waited_ns: int  # runnable, and not running: on a run queue


@dataclass(frozen=True)
class Reading:
    """The machine at one instant."""

    at_ns: int
    foreign_ticks: int  # that programs which are not ours have used, those that they waited for included
    total_ticks: int  # of all processors since boot
    threads: dict[int, Thread]  # of this process and all its descendants, by thread number; without those that tell nothing
    parents: dict[int, int]  # of our processes


@dataclass(frozen=True)
class Noise:
    """What happened between two readings."""

    duration_ns: int
    near_run_delay_ns: int | None
    far_run_delay_ns: int | None
    link_run_delay_ns: int | None
    own_share: float | None  # of all processors' time, used by our processes
    foreign_share: float | None  # the same by programs that are not ours


def read_noise() -> Reading:
    """The machine now. Some 5 ms with a hundred processes."""
    programs = running()
    parents = family(os.getpid(), programs)
    foreign = sum(item.used_ticks for pid, item in programs.items() if pid not in parents and not item.is_kernels)
    threads = {tid: item for pid in parents for tid, item in threads_of(pid)}
    return Reading(time.monotonic_ns(), foreign, total_ticks(), threads, parents)


def noise_between(before: Reading, after: Reading, near: Pids, far: Pids, link: Pids) -> Noise:
    """What happened meanwhile; a process counts with its descendants, such as a replica with its tunnels."""
    shares = shares_between(before, after)
    return Noise(
        duration_ns=after.at_ns - before.at_ns,
        near_run_delay_ns=run_delay_ns(before, after, near),
        far_run_delay_ns=run_delay_ns(before, after, far),
        link_run_delay_ns=run_delay_ns(before, after, link),
        own_share=shares[0],
        foreign_share=shares[1],
    )


def run_delay_ns(before: Reading, after: Reading, pids: Pids) -> int | None:
    """How long these processes waited for a processor, all their threads together; None when that of any is not known."""
    waited_ns = 0
    for pid in pids:
        if pid is None:
            return None
        ours = {child for child in after.parents if descends(child, pid, after.parents)}
        found = {tid: item for tid, item in after.threads.items() if item.pid in ours}
        if pid not in before.threads or pid not in found:  # Gone, or its kernel does not count.
            return None
        waited_ns += sum(item.waited_ns - waited_before_ns(before, tid) for tid, item in found.items())
    return waited_ns


def waited_before_ns(before: Reading, tid: int) -> int:
    """What a thread had waited by then; nothing when it began later."""
    return before.threads[tid].waited_ns if tid in before.threads else 0


def shares_between(before: Reading, after: Reading) -> tuple[float | None, float | None]:
    """(ours, all other programs') share of all processors' time; None where the kernel does not count what threads ran.

    Other programs are counted by ticks, our threads to the nanosecond, so a second on two processors is a percent uncertain.
    """
    total = after.total_ticks - before.total_ticks
    if total <= 0 or os.getpid() not in before.threads or os.getpid() not in after.threads:
        return None, None
    ran_ns = sum(
        item.ran_ns - (before.threads[tid].ran_ns if tid in before.threads else 0) for tid, item in after.threads.items()
    )
    own = ran_ns * os.sysconf("SC_CLK_TCK") / NS_PER_S
    foreign = after.foreign_ticks - before.foreign_ticks
    return min(max(own / total, 0.0), 1.0), min(max(foreign / total, 0.0), 1.0)


def descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    """Whether a process is another one, or one of its descendants."""
    while pid != ancestor and pid in parents:
        pid = parents[pid]
    return pid == ancestor


@dataclass(frozen=True)
class Program:
    """One process: /proc/PID/stat, proc(5)."""

    parent: int
    is_kernels: bool  # a thread of the kernel's own
    used_ticks: int  # user and system, and of its children that it has waited for


PF_KTHREAD = 0x00200000  # linux/sched.h


def running() -> dict[int, Program]:
    """Every process there is, by its number."""
    found = {}
    for name in listed("/proc"):
        text = contents(f"/proc/{name}/stat")
        words = text[text.rfind(")") + 1 :].split()  # A command's name may hold anything.
        if len(words) > 14:
            parent, flags, used = int(words[1]), int(words[6]), sum(int(word) for word in words[11:15])
            found[int(name)] = Program(parent, bool(flags & PF_KTHREAD), used)
    return found


def family(root: int, programs: Mapping[int, Program]) -> dict[int, int]:
    """Our processes, each with its parent: `root` and all its descendants."""
    children: dict[int, list[int]] = {}
    for pid, program in programs.items():
        children.setdefault(program.parent, []).append(pid)
    found = {root: os.getppid()}
    left = [root]
    while left:
        parent = left.pop()
        for child in children.get(parent, []):
            found[child] = parent
            left.append(child)
    return found


def threads_of(pid: int) -> list[tuple[int, Thread]]:
    """(its number, what is counted) of each thread of a process; without those of which the kernel counts nothing."""
    found = []
    for name in listed(f"/proc/{pid}/task"):
        numbers = contents(f"/proc/{pid}/task/{name}/schedstat").split()
        # "0 0 0" is what a kernel without CONFIG_SCHED_INFO says of everybody; who is there to be read has run.
        if len(numbers) == 3 and numbers != ["0", "0", "0"]:
            found.append((int(name), Thread(pid, int(numbers[0]), int(numbers[1]))))
    return found


def total_ticks() -> int:
    """All processors' time since boot, in ticks; /proc/stat, proc(5)."""
    return sum(int(word) for word in contents("/proc/stat").split("\n", 1)[0].split()[1:9])


def listed(directory: str) -> list[str]:
    """The numbers among a directory's names; none when it is gone or not to be read."""
    try:
        return [item.name for item in os.scandir(directory) if item.name.isdigit()]
    except OSError:
        return []


def contents(path: str) -> str:
    """A file of the system; empty when it is gone or not to be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
