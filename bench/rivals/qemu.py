"""QEMU's storage daemon: a quorum of a local file and the far site's file over NBD, each durable before it answers.

Both files are synchronous by their inode (and QEMU opens its own for direct I/O), so a write is one trip and no flush follows it:
the best that this quorum can do. With FUA, or a flush after the write, it would take two trips. The far end is QEMU itself, or
nbdkit, because QEMU's NBD server of Debian 12 waits for delayed acknowledgements when several writes are under way. TCP uses the
congestion control that ours does.
Debian: qemu-system-common, nbdkit.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from farwrite.base.errors import UnfitError
from farwrite.experiment.run_journal import Run
from farwrite.lab.lab import Lab
from farwrite.targets.load_loop_kernel import Recorder

from . import daemon, nbd
from .experiment import Rival, Task

DAEMON, NBDKIT = "qemu-storage-daemon", "nbdkit"
WHAT = "durable at both"
NAGLE = (
    "; its NBD server answers a small reply behind one that is not yet acknowledged only when that is (Nagle's algorithm against "
    "delayed acknowledgements of 40 ms), which is its p99 with several writes under way"
)
CONNECTIONS: dict[str, socket.socket] = {}  # In the near site's process: to the near daemon, by the contender's name.


@contextmanager
def qemu(run: Run, lab: Lab, name: str, far_program: str, port: int) -> Iterator[Rival]:
    """The quorum, running exactly as long as this block. UnfitError says what is not installed, or what it answered."""
    for program in {DAEMON, far_program}:
        if shutil.which(program) is None:
            raise UnfitError(f"{program} is not installed (Debian: qemu-system-common, nbdkit)")
    size = run.profile.lab.volume_bytes
    near_path, far_path = (str(Path(site.disk.directory) / f"{name}-{site.name}") for site in (lab.near, lab.far))
    try:
        congestion = lab.transport["congestion_control"]
        for site in (lab.near, lab.far):
            site.call(daemon.use_congestion_control, congestion)
        lab.far.call(daemon.make_image, far_path, size)
        lab.near.call(daemon.make_image, near_path, size)
        lab.far.call(daemon.start, name, far_words(far_program, lab.far.address, port, far_path))
        lab.far.call(wait_for, name, (lab.far.address, port))
        lab.near.call(daemon.start, name, near_words(name, lab.far.address, port, near_path))
        lab.near.call(open_client, name, size)
        lab.far.call(daemon.take_name, far_path)
        lab.near.call(daemon.take_name, near_path)
        version = daemon.first_line([DAEMON, "--version"])
        if far_program == NBDKIT:
            version += f"; {daemon.first_line([NBDKIT, '--version'])}"
        what = WHAT if far_program == NBDKIT else WHAT + NAGLE
        yield Rival(name, what, f"{version}; TCP {congestion}", run, lab, lambda task: lab.near.call(drive, name, task))
    finally:
        with suppress(UnfitError):
            lab.near.call(close_client, name)
            lab.far.call(daemon.stop, name)
        for path in (near_path, far_path):
            Path(path).unlink(missing_ok=True)


def near_words(name: str, far_address: str, port: int, path: str) -> list[str]:
    """The near daemon: the quorum, behind a Unix socket that has no file."""
    return [
        DAEMON,
        *("--blockdev", f"driver=file,node-name=here,filename={path},cache.direct=on,aio=io_uring"),
        *("--blockdev", f"driver=nbd,node-name=there,server.type=inet,server.host={far_address},server.port={port},export=far"),
        *("--blockdev", "driver=quorum,node-name=both,vote-threshold=2,children.0=here,children.1=there"),
        *("--nbd-server", f"addr.type=unix,addr.path=farwrite-{name},addr.abstract=on"),
        *("--export", "type=nbd,id=both,node-name=both,name=both,writable=on"),
    ]


def far_words(program: str, address: str, port: int, path: str) -> list[str]:
    """The far end: one file behind NBD over TCP."""
    if program == NBDKIT:
        return [NBDKIT, "--foreground", "--ipaddr", address, "--port", str(port), "file", path]
    return [
        DAEMON,
        *("--blockdev", f"driver=file,node-name=there,filename={path},cache.direct=on,aio=io_uring"),
        *("--nbd-server", f"addr.type=inet,addr.host={address},addr.port={port}"),
        *("--export", "type=nbd,id=far,node-name=there,name=far,writable=on"),
    ]


def wait_for(name: str, address: tuple[str, int]) -> None:
    """In the far site: until its server answers."""
    connected(name, socket.AF_INET, address, "far").close()


def open_client(name: str, size: int) -> None:
    """In the near site: until its daemon answers, and hold the connection."""
    CONNECTIONS[name] = connected(name, socket.AF_UNIX, f"\0farwrite-{name}", "both", size)


def connected(name: str, family: int, address, export: str, size: int = 0) -> socket.socket:
    """A connection to a program of ours, or its last words."""
    try:
        connection, offered = nbd.connect(family, address, export)
    except UnfitError:
        daemon.check(name)
        raise
    if offered < size:
        connection.close()
        raise UnfitError(f"The export has {offered} bytes instead of {size}.")
    return connection


def drive(name: str, task: Task) -> Recorder:
    """In the near site: one round."""
    daemon.check(name)
    return nbd.drive(CONNECTIONS[name], task)


def close_client(name: str) -> None:
    """In the near site: hang up, and end the daemon."""
    connection = CONNECTIONS.pop(name, None)
    if connection is not None:
        connection.close()
    daemon.stop(name)
