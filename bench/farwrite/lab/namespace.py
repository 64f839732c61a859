"""A site's network namespace: anonymous, held by a descriptor, gone with the last process that holds it.

A short-lived child unshares it and we keep it open through /proc; so a site's process may be killed and started again
without its network going away, and when we are killed nothing stays behind. Without root the namespaces of one lab live in
one user namespace, in which we are root; with root no user namespace is needed. namespaces(7), user_namespaces(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import UnfitError, system_error
from ..base.units import NS_PER_S

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
CLONE_NEWTIME = 0x80

NOTHING = -1  # In place of a descriptor.

NO_NAMESPACES = (
    "A lab needs root or unprivileged user namespaces, and this system forbids them "
    "(sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, or a container's seccomp "
    'profile). Run as root, in Docker with "--privileged", or with "--link relay", which needs neither.'
)


@dataclass(frozen=True)
class Namespace:
    """Descriptors of a network namespace and, without root, of the user namespace that owns it."""

    net_fd: int
    user_fd: int | None
    address: None = None  # It gets one from each of its links.

    def enter(self) -> None:
        """Move the calling process in. It must have one thread."""
        if self.user_fd is not None:
            setns(self.user_fd, CLONE_NEWUSER)
        setns(self.net_fd, CLONE_NEWNET)


@dataclass(frozen=True)
class Loopback:
    """The null form: this machine's own network, in which a site has no more than a loopback address."""

    address: str
    net_fd: int = NOTHING
    user_fd: None = None

    def enter(self) -> None:
        """Nothing is entered, and nothing unshared."""


Place = Namespace | Loopback


def enter_time(ahead_ns: int) -> None:
    """Move the calling process, which must have one thread, to where CLOCK_MONOTONIC and CLOCK_BOOTTIME are so far ahead.

    As for a machine that was resumed or began to count anew; CLOCK_REALTIME is the machine's own everywhere. A process cannot
    be moved again later, nor with several threads, so a clock does not jump under one that runs. time_namespaces(7).
    """
    unshare(CLONE_NEWTIME)
    offset = f"{ahead_ns // NS_PER_S} {ahead_ns % NS_PER_S}"
    try:
        Path("/proc/self/timens_offsets").write_text(f"monotonic {offset}\nboottime {offset}\n")
        entered = os.open("/proc/self/ns/time_for_children", os.O_RDONLY)
    except OSError as refusal:
        raise system_error("set the clock of a time namespace", refusal.errno or 0) from refusal
    try:
        setns(entered, CLONE_NEWTIME)
    finally:
        os.close(entered)


def loopbacks(count: int) -> list[Loopback]:
    """`count` places with addresses of their own in 127.0.0.0/8, drawn by process number so that labs that run side by side do
    not share them; where only 127.0.0.1 is up (macOS), they all have that."""
    pid = os.getpid()
    subnet = f"127.{64 + (pid >> 8) % 128}.{pid & 255}"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        try:
            trial.bind((f"{subnet}.1", 0))
        except OSError:
            return [Loopback("127.0.0.1")] * count
    return [Loopback(f"{subnet}.{1 + index}") for index in range(count)]


def unshare(flags: int) -> None:
    """unshare(2); UnfitError with advice when it is refused."""
    answer = libc().unshare(flags)
    if answer != 0:
        name = {CLONE_NEWTIME: "CLONE_NEWTIME", CLONE_NEWNET: "CLONE_NEWNET"}.get(flags, "CLONE_NEWUSER")
        raise system_error(f"unshare({name})", ctypes.get_errno(), NO_NAMESPACES)


def setns(descriptor: int, kind: int) -> None:
    """setns(2); UnfitError when it is refused."""
    if libc().setns(descriptor, kind) != 0:
        raise system_error("enter a site's namespace: setns", ctypes.get_errno())


def libc():
    """The C library with errno kept."""
    return ctypes.CDLL(None, use_errno=True)


@contextmanager
def namespaces(count: int) -> Iterator[list[Namespace]]:
    """`count` new network namespaces of one lab, open exactly as long as this block. UnfitError when forbidden."""
    with contextlib.ExitStack() as stack:
        user_fd: int | None = None
        made = []
        for _ in range(count):
            net_fd, first_user_fd = unshared_child(user_fd)
            stack.callback(os.close, net_fd)
            if first_user_fd is not None:
                stack.callback(os.close, first_user_fd)
                user_fd = first_user_fd
            made.append(Namespace(net_fd, user_fd))
        yield made


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP wait until this block is over. CPython runs hooks around a fork and drops what is raised in
    them, so that an interruption in these milliseconds would be lost."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unshared_child(user_fd: int | None) -> tuple[int, int | None]:
    """(net descriptor, user descriptor or None) of a namespace that a child made and that we now hold.

    The first unprivileged child also makes the user namespace; later ones join it through `user_fd`.
    """
    privileged = may_unshare_net()
    ready_read, ready_write = os.pipe()
    leave_read, leave_write = os.pipe()
    with uninterrupted():
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(leave_write)
                if privileged:
                    unshare(CLONE_NEWNET)
                elif user_fd is None:
                    user, group = os.getuid(), os.getgid()
                    unshare(CLONE_NEWUSER | CLONE_NEWNET)
                    Path("/proc/self/setgroups").write_text("deny")
                    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
                    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
                else:
                    setns(user_fd, CLONE_NEWUSER)
                    unshare(CLONE_NEWNET)
                os.write(ready_write, b"ok")
                os.read(leave_read, 1)
                status = 0
            except BaseException as refusal:  # The parent gives the reason; a forked child must never return.
                os.write(ready_write, str(refusal).encode()[:4000])
            finally:
                os._exit(status)
    os.close(ready_write)
    os.close(leave_read)
    try:
        answer = os.read(ready_read, 4096)
        if answer != b"ok":
            raise UnfitError(answer.decode() or NO_NAMESPACES)
        net = os.open(f"/proc/{child}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if privileged or user_fd is not None:
            return net, None
        return net, os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_read)
        os.close(leave_write)
        os.waitpid(child, 0)


def may_unshare_net() -> bool:
    """Whether this process has CAP_SYS_ADMIN and CAP_NET_ADMIN (bits 21 and 12 of CapEff), so needs no user namespace."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            return bool(effective >> 21 & 1 and effective >> 12 & 1)
    return False
