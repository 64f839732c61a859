"""Which emulations of a distance this machine allows, what its disk takes, and what keeps it awake.

Everything is tried: a namespace is made, netem put on a loopback, files without names opened, an echo timed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from functools import partial
from pathlib import Path

from ...base.errors import FarwriteError, UnfitError
from ...base.host.disk import file_system_of, why_not_durable
from ...base.host.facts import text_of
from ...base.host.tun import tun_works
from ...base.units import format_time
from .. import keep_awake as awake
from ..keep_awake_trial import tried
from ..namespace import may_unshare_net, namespaces
from ..process import process
from .finding import Finding
from .machine import module_there

BLOCK_BYTES = 4096
FLUSHES = 60
FLUSH_NS_P50_MAX = 1_000_000  # A network disk; an array's cache takes 0.1 to 0.3 ms.

NO_NAMESPACES = (
    ("kernel.unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
    ("user.max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
)


def places() -> list[Finding]:
    """Namespaces, netem and TUN: what a lab stands on."""
    found = [namespace_finding()]
    placed = found[0].state == "ok"
    netem = netem_finding(placed)
    tun = tun_refusal() if placed else "Cannot be tried without a namespace"
    ferry = Finding(
        name="TUN", state="missing", sentence=f"{tun.rstrip('.')}. The ferry cannot carry packets.",
        mend="modprobe tun; without root also chmod 666 /dev/net/tun; in Docker --device /dev/net/tun --cap-add NET_ADMIN",
    ) if tun else Finding(name="TUN", state="ok", sentence="The ferry can carry packets.")  # fmt: skip
    return [*found, netem, ferry]


def namespace_finding() -> Finding:
    """Whether a site may have a network of its own."""
    root = may_unshare_net()
    try:
        with namespaces(1):
            pass
    except UnfitError as refusal:
        mend = next((words for name, bad, words in NO_NAMESPACES if text_of(f"/proc/sys/{name.replace('.', '/')}") == bad), "")
        return Finding(
            name="namespaces", state="missing", sentence=f"{str(refusal).partition('. ')[0]}.",
            mend=mend or "run as root, or docker run --privileged (or --cap-add SYS_ADMIN --cap-add NET_ADMIN)",
        )  # fmt: skip
    return Finding(name="namespaces", state="ok", sentence="As root." if root else "Without root: user namespaces are allowed.")


def tun_refusal() -> str | None:
    """Why no TUN device can be made in a place of its own; None when it can."""
    try:
        with namespaces(1) as (place,), process("trial", place) as trial:
            return trial.call(tun_works)
    except UnfitError as unfit:
        return str(unfit)


def netem_finding(placed: bool) -> Finding:
    """Whether the kernel itself can delay packets."""
    if not placed:
        return Finding(name="netem", state="missing", sentence="Cannot be tried without a namespace.")
    from ..netem import try_netem

    try:
        with namespaces(1) as (place,), process("trial", place) as trial:
            refusal = trial.call(try_netem)
    except UnfitError as unfit:
        refusal = str(unfit)
    if refusal is None:
        return Finding(name="netem", state="ok", sentence="The kernel delays packets.")
    mend = "modprobe sch_netem" if module_there("sch_netem") else "a kernel with CONFIG_NET_SCH_NETEM"
    sentence = f"{refusal}. The ferry stands in for it where TUN is there."
    return Finding(name="netem", state="missing", sentence=sentence, mend=mend)


def links_of(findings: list[Finding]) -> list[str]:
    """The emulations that can carry a distance, the preferred one first; the relay, for streams only, asks for nothing."""
    state = {finding.name: finding.state for finding in findings}
    packets = [link for link, needed in (("netem", "netem"), ("ferry", "TUN")) if state[needed] == "ok"]
    return [*(packets if state["namespaces"] == "ok" else []), "relay"]


# Disks.


def disk(directory: Path) -> list[Finding]:
    """Files without names past the page cache in the directory where results go, and what a flush of 4 KiB takes there."""
    place = nearest_existing(directory)
    system = file_system(place)
    direct, unnamed = opens(place, os.O_DIRECT), opens(place, os.O_TMPFILE)
    lacking = [name for name, there in (("O_DIRECT", direct), ("O_TMPFILE", unnamed)) if not there]
    files = Finding(
        name="files", state="poor" if lacking else "ok", numbers={"o_direct": direct, "o_tmpfile": unnamed},
        sentence=f"{place}: " + (f"no {' and no '.join(lacking)}." if lacking else "direct I/O, and files without names."),
        mend="name a directory on ext4 or xfs with --set lab.near=DIR --set lab.far=DIR" if lacking else "",
    )  # fmt: skip
    try:
        alone, both = flush_ns(place, direct), flush_ns(place, direct, beside=True)
    except OSError as refusal:
        return [system, files, Finding(
            name="flush", state="missing", sentence=f"write in {place}: {refusal.strerror}.", mend="name another directory",
        )]  # fmt: skip
    p50, p99 = quantiles(alone)
    both_p50, _ = quantiles(both)
    poor = p50 > FLUSH_NS_P50_MAX
    flush = Finding(
        name="flush", state="poor" if poor else "ok",
        numbers={"p50_ns": p50, "p99_ns": p99, "both_sites_p50_ns": both_p50, "shared": True},
        sentence=f"4 KiB made durable: {format_time(p50)} at the median, {format_time(p99)} at p99; {format_time(both_p50)} when "
        "two sites do so at once, who share this disk unless lab.near and lab.far name two.",
        mend="a local disk, or --set lab.durability=memory to see the link alone" if poor else "",
    )  # fmt: skip
    return [system, files, flush]


def file_system(place: Path) -> Finding:
    """What a flushed write is on there: a disk, or memory that a power loss empties."""
    kind, reason = file_system_of(place), why_not_durable(place)
    return Finding(
        name="file system", state="poor" if reason else "ok", numbers={"file_system": kind, "not_durable": reason},
        sentence=f"{place} is on {kind}" + (f": not durable ({reason}), a power loss takes what was flushed." if reason else "."),
        mend="name a directory on a disk with --set lab.near=DIR --set lab.far=DIR" if reason else "",
    )  # fmt: skip


def nearest_existing(directory: Path) -> Path:
    """The directory, or the one in which it would be made."""
    resolved = directory.expanduser().absolute()
    return next(place for place in (resolved, *resolved.parents) if place.is_dir())


def opens(place: Path, flag: int) -> bool:
    """Whether a file may be opened so here."""
    import tempfile

    with contextlib.suppress(OSError):
        if flag & os.O_TMPFILE == os.O_TMPFILE:
            os.close(os.open(place, flag | os.O_RDWR, 0o600))
            return True
        with tempfile.NamedTemporaryFile(dir=place, prefix=".farwrite-") as made:
            os.close(os.open(made.name, flag | os.O_RDWR))
            return True
    return False


def flush_ns(place: Path, direct: bool, beside: bool = False) -> list[int]:
    """Times of bare durable writes of 4 KiB over blocks that were written before; with another writer beside them if asked."""
    import tempfile

    def times(found: list[int]) -> None:
        with tempfile.TemporaryFile(dir=place) as file, mmap.mmap(-1, BLOCK_BYTES) as block:
            os.pwrite(file.fileno(), bytes(BLOCK_BYTES * FLUSHES), 0)
            os.fsync(file.fileno())
            flags = os.O_RDWR | os.O_DSYNC | (os.O_DIRECT if direct else 0)
            durable = os.open(f"/proc/self/fd/{file.fileno()}", flags)
            try:
                for index in range(FLUSHES):
                    begin_ns = time.perf_counter_ns()
                    os.pwrite(durable, block, index * BLOCK_BYTES)
                    found.append(time.perf_counter_ns() - begin_ns)
            finally:
                os.close(durable)

    if not beside:
        alone: list[int] = []
        times(alone)
        return alone
    results: list[list[int]] = [[], []]
    writers = [threading.Thread(target=times, args=(result,)) for result in results]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return results[0] + results[1]


def quantiles(times_ns: list[int]) -> tuple[int, int]:
    """Median and p99, the latter of so few only an impression."""
    ordered = sorted(times_ns)
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]


# Keeping the machine awake.


def keep_awake(directory: Path) -> Finding:
    """What a run here would keep its processors awake with, by the same decision, and what that is good for, measured."""
    decision = awake.decide("auto", nearest_existing(directory))
    trial = decision.trial
    try:
        if decision.chosen == "qos":
            trial = tried(partial(awake.held, awake.HERE.device), nearest_existing(directory))
    except (FarwriteError, OSError):  # What cannot be written to has a finding of its own.
        pass
    brings = f" With it an echo after a pause takes {trial.echo.words}." if trial and decision.chosen == "qos" else ""
    return Finding(
        name="sleepiness", state="poor" if decision.mend else "ok", mend=decision.mend or "",
        sentence=f"Runs have lab.keep_awake = {decision.chosen}: {decision.reason}.{brings}",
        numbers={"keep_awake": decision.chosen} | (trial.numbers if trial else {}),
    )  # fmt: skip
