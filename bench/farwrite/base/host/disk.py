"""A site's two files, journal and volume: without names, so nothing is left whatever is killed, unless they are to be kept.

The journal is written once in full, so that later writes into it change no metadata, and is opened so that a write
that has returned is durable: past the page cache where the file system allows direct I/O. The volume is sparse. What
stands in them is the engine's business.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import UnfitError, system_error
from ..file_systems import memory_text
from .libc import aligned_bytes

BLOCK_BYTES = 4096  # Direct I/O wants the disk's logical block; 4096 suits 512-byte disks as well.
FILL_BYTES = 4 << 20

JOURNAL, VOLUME, SNAPSHOTS = "journal", "volume", "snapshots"  # The names of files that are kept.

MOUNTS = Path("/proc/self/mountinfo")
BLOCKS = Path("/sys/dev/block")
ESCAPED = re.compile(r"\\([0-7]{3})")  # A space in a path is \040 there.
IN_MEMORY_DEVICE = re.compile(r"(ram|zram|nullb)\d+")  # brd, zram and null_blk.
LAYERS_MAX = 8  # Of loop devices, overlays and mapped devices on each other.

OTHER_DIRECTORY = "Free some room, or name another directory with --set lab.near=DIR and --set lab.far=DIR."
OTHER_VOLUME = "Name the directory of a kept volume."


@dataclass(frozen=True)
class Disk:
    """A site's two files, by descriptor: every process of the site inherits them, and they outlive each of it."""

    directory: str
    file_system: str
    journal_fd: int
    volume_fd: int
    journal_bytes: int
    volume_bytes: int
    durability: Literal["disk", "memory"]  # as asked
    direct: bool
    snapshot_fd: int = -1  # of what is kept for snapshots; -1: none can be served from here
    not_durable: str = ""  # why a flushed write would not survive a power loss; empty: it would, as far as the system tells


@contextmanager
def disk(
    directory: Path | None, journal_bytes: int, volume_bytes: int, keep: bool = False, advice: str = "", snapshots: bool = False
) -> Iterator[Disk]:  # fmt: skip
    """The journal and the volume of one site in `directory`, or in memory when it is None. UnfitError without room.

    With `keep` the directory is made, and the files have names in it and stay. `advice` is what a refusal says to do. With
    `snapshots` there is a third file, which is as large as what it keeps.
    """
    advice = advice or OTHER_DIRECTORY
    with contextlib.ExitStack() as stack:
        if directory is None:
            journal_fd, direct = os.memfd_create("farwrite-journal"), False
            stack.callback(os.close, journal_fd)
            volume_fd = os.memfd_create("farwrite-volume")
        else:
            if keep:
                make_directory(directory, advice)
            check_room(directory, journal_bytes, advice)
            journal_fd, direct = durable_file(directory, JOURNAL if keep else None, advice)
            stack.callback(os.close, journal_fd)
            volume_fd = new_file(directory, VOLUME if keep else None, 0)
        stack.callback(os.close, volume_fd)
        snapshot_fd = -1
        if snapshots:
            if directory is None:
                snapshot_fd = os.memfd_create("farwrite-snapshots")
            else:
                snapshot_fd = new_file(directory, SNAPSHOTS if keep else None, 0)
            stack.callback(os.close, snapshot_fd)
        preallocate(journal_fd, journal_bytes, directory, advice)
        make_sparse(volume_fd, volume_bytes, directory, "" if advice == OTHER_DIRECTORY else advice)
        yield Disk(
            directory="memory" if directory is None else str(directory),
            file_system="memory" if directory is None else file_system_of(directory),
            journal_fd=journal_fd,
            volume_fd=volume_fd,
            journal_bytes=journal_bytes,
            volume_bytes=volume_bytes,
            durability="memory" if directory is None else "disk",
            direct=direct,
            snapshot_fd=snapshot_fd,
            not_durable="memory" if directory is None else why_not_durable(directory),
        )


@contextmanager
def kept_disk(directory: Path, volume_bytes: int) -> Iterator[Disk]:
    """The files that `disk(..., keep=True)` left in a directory, as they are. UnfitError where they cannot be opened."""
    with contextlib.ExitStack() as stack:
        descriptor, direct = -1, False
        for flags in (os.O_DIRECT | os.O_DSYNC, os.O_DSYNC):
            with contextlib.suppress(OSError):
                descriptor, direct = os.open(directory / JOURNAL, os.O_RDWR | flags), bool(flags & os.O_DIRECT)
                break
        else:
            raise UnfitError(f"open {directory / JOURNAL}: it is not there, or may not be written. {OTHER_VOLUME}")
        stack.callback(os.close, descriptor)
        try:
            volume_fd = os.open(directory / VOLUME, os.O_RDWR)
        except OSError as refusal:
            attempt = f"open {directory / VOLUME}"
            raise system_error(attempt, refusal.errno or 0, OTHER_VOLUME) from refusal
        stack.callback(os.close, volume_fd)
        try:
            snapshot_fd = os.open(directory / SNAPSHOTS, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as refusal:
            raise system_error(f"open {directory / SNAPSHOTS}", refusal.errno or 0, OTHER_VOLUME) from refusal
        stack.callback(os.close, snapshot_fd)
        yield Disk(
            directory=str(directory), file_system=file_system_of(directory), journal_fd=descriptor, volume_fd=volume_fd,
            journal_bytes=os.fstat(descriptor).st_size, volume_bytes=volume_bytes, durability="disk", direct=direct,
            snapshot_fd=snapshot_fd,
            not_durable=why_not_durable(directory),
        )  # fmt: skip


def check_room(directory: Path, needed_bytes: int, advice: str = OTHER_DIRECTORY) -> None:
    """UnfitError when the file system of `directory` lacks room for a journal and as much again for the volume."""
    try:
        state = os.statvfs(directory)
    except OSError as refusal:
        raise system_error(f"look at {directory}", refusal.errno or 0, "Name an existing directory.") from refusal
    free_bytes = state.f_bavail * state.f_frsize
    if free_bytes < 2 * needed_bytes:
        raise UnfitError(
            f"{directory}: {free_bytes >> 20} MiB free, {2 * needed_bytes >> 20} MiB needed for one site's journal and "
            f"volume. {advice}"
        )


def make_directory(directory: Path, advice: str = OTHER_DIRECTORY) -> None:
    """The directory, and those above it. UnfitError when it cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as refusal:
        raise system_error(f"make {directory}", refusal.errno or 0, advice) from refusal


def new_file(directory: Path, name: str | None, flags: int) -> int:
    """A descriptor of a new, empty file, without a name when that is None; OSError when the file system refuses the flags."""
    if name is not None:
        return os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | flags, 0o600)
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | flags, 0o600)
    except OSError as refusal:
        if refusal.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            raise
    # Without O_TMPFILE (NFS, overlay, hostfs): a name for an instant.
    descriptor, name = tempfile.mkstemp(prefix=".farwrite-", dir=directory)
    os.close(descriptor)
    try:
        return os.open(name, os.O_RDWR | flags)
    finally:
        Path(name).unlink()


def durable_file(directory: Path, name: str | None, advice: str = OTHER_DIRECTORY) -> tuple[int, bool]:
    """(descriptor, whether it is direct) of a file where a write that has returned is durable; UnfitError when refused."""
    for flags, direct in ((os.O_DIRECT | os.O_DSYNC, True), (os.O_DSYNC, False)):
        try:
            descriptor = new_file(directory, name, flags)
        except OSError as refusal:
            if direct:
                continue
            raise system_error(f"create a file in {directory}", refusal.errno or 0, advice) from refusal
        try:
            os.pwrite(descriptor, aligned_bytes(BLOCK_BYTES), 0)
            return descriptor, direct
        except OSError as refusal:
            os.close(descriptor)
            if not direct:
                raise system_error(f"write in {directory}", refusal.errno or 0, advice) from refusal
    raise AssertionError("the second form either answers or raises")


def preallocate(descriptor: int, size: int, directory: Path | None, advice: str = OTHER_DIRECTORY) -> None:
    """Write every block once: a later write into it changes no metadata, so its flush is one disk write."""
    block = aligned_bytes(FILL_BYTES)
    try:
        with contextlib.suppress(OSError):
            os.posix_fallocate(descriptor, 0, size)
        for offset in range(0, size, FILL_BYTES):
            part = block[: min(FILL_BYTES, size - offset)]
            if os.pwrite(descriptor, part, offset) != len(part):
                raise OSError(errno.ENOSPC, "short write")
    except OSError as refusal:
        attempt = f"write {size >> 20} MiB of journal in {directory}"
        raise system_error(attempt, refusal.errno or 0, advice) from refusal


def make_sparse(descriptor: int, size: int, directory: Path | None, advice: str = "") -> None:
    """Give a volume its size; UnfitError where the file system has no files so large, or the user may have none. ftruncate(2)."""
    try:
        os.ftruncate(descriptor, size)
    except OSError as refusal:
        attempt = f"make a sparse volume of {size >> 20} MiB in {directory or 'memory'}"
        smaller = "Choose a smaller one (--set lab.volume=..., or a fio job's size), or another directory (--set lab.near=DIR)."
        raise system_error(attempt, refusal.errno or 0, advice or smaller) from refusal


@dataclass(frozen=True)
class Mount:
    """What a directory lies on, as /proc/self/mountinfo tells it. proc(5)."""

    point: str
    file_system: str
    device: str  # "8:1"; of a file system without one "0:27"
    source: str  # "/dev/sda1"
    options: tuple[str, ...]  # of the file system


NO_MOUNT = Mount("", "unknown", "", "", ())


def mount_of(directory: Path) -> Mount:
    """The mount that a directory lies on: of those above it the nearest, of several on one point the last."""
    found = NO_MOUNT
    resolved = str(directory.resolve())
    for line in MOUNTS.read_text().splitlines():
        fields = [ESCAPED.sub(lambda match: chr(int(match.group(1), 8)), field) for field in line.split()]
        point, rest = fields[4], fields[fields.index("-") + 1 :]
        inside = point == "/" or resolved == point or resolved.startswith(point + "/")
        if inside and len(point) >= len(found.point):
            options = tuple(rest[2].split(",")) if len(rest) > 2 else ()
            found = Mount(point, rest[0], fields[2], rest[1], options)
    return found


def file_system_of(directory: Path) -> str:
    """The type of the file system `directory` lies on."""
    return mount_of(directory).file_system


def why_not_durable(directory: Path, depth: int = 0) -> str:
    """Why a flush in this directory does not survive a power loss: "tmpfs is memory", "ext4 on ram0, which is memory".

    Empty where it does as far as the system tells: what a disk's own cache loses, or a host keeps in memory, is not seen here.
    """
    mount = mount_of(directory)
    if depth > LAYERS_MAX:
        return ""
    if mount.file_system == "overlay":
        upper = next((option.partition("=")[2] for option in mount.options if option.startswith("upperdir=")), "")
        below = why_not_durable(Path(upper), depth + 1) if upper and Path(upper).is_dir() else ""
        return f"overlay on {below}" if below else ""
    return memory_text(mount.file_system) or on_device(mount, depth)


def on_device(mount: Mount, depth: int) -> str:
    """The same of a file system on a block device."""
    number = mount.device
    if number.startswith("0:"):  # btrfs and others give their own number, and the device by name.
        try:
            state = Path(mount.source).stat()
        except OSError:
            return ""
        if not stat.S_ISBLK(state.st_mode):
            return ""
        number = f"{os.major(state.st_rdev)}:{os.minor(state.st_rdev)}"
    reason = device_in_memory((BLOCKS / number).resolve(), depth)
    return f"{mount.file_system} on {reason}" if reason else ""


def device_in_memory(device: Path, depth: int) -> str:
    """Why a block device is memory: its directory below /sys; empty where it is not, or not known to be."""
    if depth > LAYERS_MAX or not device.is_dir():
        return ""
    if IN_MEMORY_DEVICE.fullmatch(device.name):
        return f"{device.name}, which is memory"
    for place in (device, device.parent):  # A partition has its disk's directory above it.
        with contextlib.suppress(OSError):
            file = Path((place / "loop" / "backing_file").read_text().strip())
            below = why_not_durable(file.parent, depth + 1)
            return f"{device.name} over a file on {below}" if below else ""
    with contextlib.suppress(OSError):
        for part in sorted((device / "slaves").iterdir()):
            if reason := device_in_memory(part.resolve(), depth + 1):
                return f"{device.name} over {reason}"
    return ""
