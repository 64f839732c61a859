"""Guests: somebody's own commands at a site. Started in its network as who they are, and ended with it, whatever
they left behind.

What lives in a site's network namespace and is not the lab's own is a guest, even when it has detached itself. A warden outlives
us by as long as it takes to end the guests when we are killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..base.errors import UnfitError
from ..base.host.parent_death import die_with
from .namespace import CLONE_NEWUSER, Place, uninterrupted, unshare

LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp, proc(5).
KILLS_MAX = 500  # Looks for guests that fork while they are killed, 2 ms apart.
LOOK_S = 0.002


def inhabitants(*namespaces: Place) -> Iterator[int]:
    """Numbers of the processes whose network is one of these."""
    here = {(seen.st_dev, seen.st_ino) for seen in (os.fstat(namespace.net_fd) for namespace in namespaces)}
    for name in os.listdir("/proc"):  # noqa: PTH208  (Path.iterdir takes five times as long.)
        if name.isdigit():
            with contextlib.suppress(OSError):  # It has ended meanwhile, or is somebody else's.
                theirs = os.stat(f"/proc/{name}/ns/net")  # noqa: PTH116
                if (theirs.st_dev, theirs.st_ino) in here:
                    yield int(name)


def listening_ports(pid: int) -> set[int]:
    """TCP ports on which somebody listens in the network of this process."""
    ports = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == LISTENING:
                    ports.add(int(local.rpartition(":")[2], 16))
    return ports


def entering(namespace: Place, as_root: bool = False, signals: Collection[int] | None = None) -> Callable[[], None]:
    """What a fork does before it becomes a command: enter the namespace, and from then on die with its parent.

    Not lab.process.become: a command should find Ctrl-C and its timers as usual. `signals` are those that it finds blocked.
    """
    parent, user, group = os.getpid(), os.getuid(), os.getgid()

    def enter() -> None:
        namespace.enter()
        if not as_root:
            be_oneself(namespace, user, group)
        die_with(parent)
        if signals is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)

    return enter


def be_oneself(namespace: Place, user: int, group: int) -> None:
    """Without root a site's user namespace makes everybody root there, as whom PostgreSQL, for one, refuses to start. In a user
    namespace within it the process is again who it was. user_namespaces(7)."""
    if namespace.user_fd is None or user == 0:
        return
    with contextlib.suppress(OSError, UnfitError):  # Where no second one is allowed, it stays root.
        unshare(CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} 0 1")
        Path("/proc/self/gid_map").write_text(f"{group} 0 1")


def allow_ping() -> str:
    """In a site: let everybody ping without further rights, as distributions do; answers the groups that may. icmp(7)."""
    setting = Path("/proc/sys/net/ipv4/ping_group_range")
    for groups in ("0 2147483647", "0 0"):  # A user namespace knows one group.
        with contextlib.suppress(OSError):
            setting.write_text(groups)
            return groups
    return "none"


def ask_to_end(namespaces: Sequence[Place], spared: Collection[int], patience_s: float) -> None:
    """SIGTERM to every guest, and wait so long for them to go."""
    for pid in set(inhabitants(*namespaces)) - set(spared):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)
    until_s = time.monotonic() + patience_s
    while time.monotonic() < until_s and set(inhabitants(*namespaces)) - set(spared):
        time.sleep(0.02)


def kill_all(namespaces: Sequence[Place], spared: Collection[int] = ()) -> None:
    """SIGKILL to every guest, until there is none."""
    for _ in range(KILLS_MAX):
        left = set(inhabitants(*namespaces)) - set(spared)
        if not left:
            return
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(LOOK_S)


@contextmanager
def reaper(namespaces: Sequence[Place]) -> Iterator[int]:
    """The number of a process that ends the guests of these places if we are killed within this block.

    The kernel itself ends what we have started (PR_SET_PDEATHSIG), but not what that has started.
    """
    parent = os.getpid()
    with uninterrupted():
        pid = os.fork()
        if pid == 0:
            try:
                keep_watch(parent, namespaces)
            finally:
                os._exit(0)
    try:
        yield pid
    finally:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def keep_watch(parent: int, namespaces: Sequence[Place]) -> None:
    """In the warden: wait until its parent has ended, then end the guests. What is sent to our session does not reach it."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # Whoever reads our output must not wait for the warden.
        os.dup2(nowhere, stream)
    with contextlib.suppress(ProcessLookupError):
        watched = os.pidfd_open(parent)
        if os.getppid() == parent:
            select.select([watched], [], [])
    kill_all(namespaces)
