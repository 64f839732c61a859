"""DRBD 8.4 of Debian, both ends in one kernel: two resources that each connect to the other's port on loopback, with netem there.

Measured twice, each on devices of its own: as it comes, with a flush after every write, which ends an epoch and drains what is
under way; and as its manual would have it on disks that answer only what is durable (drbd.conf(5): disk-flushes, md-flushes,
max-buffers). Both are durable at both ends when a write completes. Goals are held against whichever is better there.

Only for a kernel of our own, user-mode Linux (tests/lab/uml/run): DRBD knows no network namespaces, so it is set up in the one
that the kernel began with. The span it is measured over is two sites in that place, surveyed and calibrated like every other.
Debian: drbd-utils; the module comes with user-mode-linux.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from farwrite.base.errors import UnfitError
from farwrite.base.host.disk import disk
from farwrite.experiment.run_journal import Run
from farwrite.lab.lab import LabSpec
from farwrite.lab.link import SetElsewhere
from farwrite.lab.namespace import Namespace
from farwrite.lab.netem import netem_counters
from farwrite.lab.process import Process, process
from farwrite.lab.shared_memory import board
from farwrite.lab.site import Site
from farwrite.lab.span import Span, acquaint, passage_of
from farwrite.lab.stamps import prober

from . import block
from .experiment import Rival

LIMIT_PACKETS = 100_000  # netem drops silently beyond its limit.
LOOPBACK = "127.0.0.1"
PATIENCE_S = 20.0
STATE = Path("/proc/drbd")
DEFAULT_CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")


class Setting(NamedTuple):
    """One way to set DRBD up."""

    name: str  # the contender's
    what: str  # what a completed write is
    flushes: bool  # whether the load flushes after each write
    disk_options: tuple[str, ...]
    net_options: tuple[str, ...]
    first_minor: int
    first_port: int

    @property
    def ends(self) -> tuple[tuple[str, int, int, int], ...]:
        """(resource, minor, own port, peer's port) of the near end and of the far one."""
        minor, port = self.first_minor, self.first_port
        return (f"{self.name}-near", minor, port, port + 1), (f"{self.name}-far", minor + 1, port + 1, port)


SYNCHRONOUS = "with both disks, whose flush it does not wait for; here they are synchronous, so it is durable at both"
AS_IT_COMES = Setting("drbd", f"{SYNCHRONOUS}; as it comes, the load flushes after each write", True, (), (), 10, 7789)
TUNED = Setting(
    "drbd-tuned",
    f"{SYNCHRONOUS}; disk-flushes and md-flushes off, max-buffers and max-epoch-size 8000, al-extents 6007, and no flush "
    "behind a write",
    flushes=False, disk_options=("--disk-flushes=no", "--md-flushes=no", "--disk-barrier=no", "--al-extents=6007"),
    net_options=("--max-buffers=8000", "--max-epoch-size=8000"), first_minor=20, first_port=7799,
)  # fmt: skip
SETTINGS = (AS_IT_COMES, TUNED)


@contextmanager
def drbd(run: Run, span: Span, setting: Setting, devices: Sequence[str]) -> Iterator[Rival]:
    """A device replicated under protocol C, up exactly as long as this block. UnfitError says what is missing or was refused."""
    for program in ("drbdsetup", "drbdmeta"):
        if shutil.which(program) is None:
            raise UnfitError(f"{program} is not installed (Debian: drbd-utils)")
    if not STATE.exists():
        raise UnfitError("this kernel has no DRBD (run me in tests/lab/uml/run with --module lib/lru_cache.ko and drbd.ko)")
    with contextlib.ExitStack() as stack:
        congestion = span.transport["congestion_control"]
        DEFAULT_CONGESTION.write_text(congestion)  # The kernel opens DRBD's connections, with what sockets have by default.
        stack.enter_context(connected(setting, devices))
        device = f"/dev/drbd{setting.first_minor}"
        version = STATE.read_text().split("(")[0].removeprefix("version:").strip()
        yield Rival(
            setting.name, setting.what, f"DRBD {version}; TCP {congestion}", run, span,
            lambda task: span.near.call(block.drive, device, task, setting.flushes),
        )  # fmt: skip


@contextmanager
def connected(setting: Setting, devices: Sequence[str]) -> Iterator[None]:
    """Both resources, on fresh metadata, in step from the beginning (nothing to resync), the near one primary."""
    near, far = (str(minor) for _, minor, _, _ in setting.ends)
    with contextlib.ExitStack() as stack:
        for (name, minor, port, peer), device in zip(setting.ends, devices, strict=True):
            drbdmeta = ("drbdmeta", "--force", str(minor), "v08", device, "internal", "create-md")
            tell(*drbdmeta, answer="yes\n" * 3)
            tell("drbdsetup", "new-resource", name)
            stack.callback(tell, "drbdsetup", "down", name)
            tell("drbdsetup", "new-minor", name, str(minor), "0")
            tell("drbdsetup", "attach", str(minor), device, device, "internal", *setting.disk_options)
            addresses = f"ipv4:{LOOPBACK}:{port}", f"ipv4:{LOOPBACK}:{peer}"
            tell("drbdsetup", "connect", name, *addresses, "--protocol=C", *setting.net_options)
        wait_for("cs:Connected ro:Secondary/Secondary", near, far)
        tell("drbdsetup", "new-current-uuid", "--clear-bitmap", near)
        tell("drbdsetup", "primary", near)
        wait_for("ds:UpToDate/UpToDate", near, far)
        yield


def tell(*words: str, answer: str = "") -> None:
    """One command; UnfitError with its own words when it fails."""
    done = subprocess.run(words, input=answer, capture_output=True, text=True, timeout=PATIENCE_S)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().replace("\n", "; ")
        raise UnfitError(f"{' '.join(words)}: {said or f'exit status {done.returncode}'}.")


def wait_for(state: str, *minors: str) -> None:
    """Until these devices say that they are in this state."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not all(state in said_of(minor) for minor in minors):
        if time.monotonic() > deadline_s:
            raise UnfitError(f'DRBD did not come to "{state}": {STATE.read_text()}')
        time.sleep(0.05)


def said_of(minor: str) -> str:
    """The line of one device in /proc/drbd, " 10: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----"."""
    return next((line for line in STATE.read_text().splitlines() if line.strip().startswith(f"{minor}:")), "")


class Loopback(SetElsewhere):
    """A link between two ports of this machine: one netem on loopback, which every packet of either direction passes once.

    Nothing but its delay is ever set.
    """

    def __init__(self, setter: Process) -> None:
        super().__init__("netem on loopback")
        self.setter = setter

    def set_delay_ns(self, outward_ns: int, homeward_ns: int) -> None:
        """Delay each direction by half of both: there is only one queue."""
        self.setter.call(set_loopback, "change", max(outward_ns + homeward_ns, 0) // 2)

    def counters(self) -> dict[str, int]:
        """What the queue did since it was made."""
        return self.setter.call(netem_counters, "lo")


def set_loopback(command: str, delay_ns: int) -> None:
    """Add, change or delete the qdisc of loopback."""
    from pyroute2 import IPRoute

    with IPRoute() as routes:
        index = routes.link_lookup(ifname="lo")[0]
        if command == "del":
            routes.tc("del", "netem", index=index, handle="1:")
        else:
            routes.tc(command, "netem", index=index, handle="1:", delay=-(-delay_ns // 1000), limit=LIMIT_PACKETS)


@contextmanager
def loopback_span(spec: LabSpec, congestion: str) -> Iterator[Span]:
    """Two sites in the namespace we are in, as far apart as netem on its loopback makes them."""
    with contextlib.ExitStack() as stack:
        here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, here)
        place = Namespace(here, None)
        sites = []
        for name, directory in (("near", spec.near), ("far", spec.far)):
            files = stack.enter_context(disk(directory, spec.journal_bytes, spec.volume_bytes))
            sites.append((name, files, stack.enter_context(board(64))))
        near, far = (stack.enter_context(Site(name, place, files, words)) for name, files, words in sites)
        near.address = far.address = LOOPBACK
        setter = stack.enter_context(process("loopback", place))
        setter.call(set_loopback, "add", 0)
        stack.callback(setter.call, set_loopback, "del", 0)
        met = acquaint(near, far, congestion)
        probes = stack.enter_context(prober(near, far))
        yield Span(near, far, Loopback(setter), *met, prober=probes, passage_ns=passage_of(probes))
