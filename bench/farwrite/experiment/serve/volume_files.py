"""What a served volume consists of on a disk: its settings, and a directory for each voter's files.

    DIR/volume.json     what the volume is: its number, size, replicas, protocol and policy, and the distance it was made for
    DIR/near/           journal, volume, snapshots, ballot; likewise far/ and third/
    DIR/lock            held by who serves it

Of a volume on several machines each has such a directory, with the files of its own voters; near's also has

    DIR/machines.json   how the machines met last

Without a directory that is kept the same files have no names, or are memory, and are gone with the command.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ...base.errors import UnfitError, UsageError, system_error
from ...base.files import write_atomically
from ...base.host.disk import OTHER_VOLUME, Disk, disk, kept_disk, why_not_durable
from ...base.user_file import TEXT_BYTES_MAX, read_text
from ...engine.frontend.iscsi.store import AREA_BYTES
from ...engine.vote import format_ballot
from ...targets.replicated import PROTOCOLS
from ...workload.drill_scenario import SITES, PolicyName
from ..voters import names_of

SETTINGS, LOCK, BALLOT = "volume.json", "lock", "ballot"
JOURNAL_BYTES = 64 << 20  # Flushes the volume once for every third of it; replaying it all takes less than a second.
SIZE_BYTES_MIN, SIZE_BYTES_MAX = 1 << 20, 1 << 44
FORMAT = 1
OTHER_PLACE = "Free some room, choose a smaller --size, or name another directory with --keep or --files, or --memory."
LOCK_S = 3.0  # The processes of a serve that was killed die with it, in a moment.


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the volume is. All but the distance stays as it was made."""

    format: int = FORMAT
    volume: int  # its number, which every record and every replica names
    size_bytes: int  # what clients see; behind it the replicas hold an area for iSCSI's reservations
    replicas: int
    has_witness: bool
    protocol: str
    policy: PolicyName
    quorum: int
    peer_timeout_ns: int
    link: dict[str, str | float]  # --miles, --rate and so on, as typed
    far: str = ""  # ssh://HOST/DIR of the far replica; empty: all of it is in a lab of one machine
    far_command: str = "farwrite"  # what farwrite is called there, and at the witness's
    witness: str = ""  # ssh://HOST/DIR of the witness; empty: it is where near is

    def __post_init__(self) -> None:
        if not (
            self.format == FORMAT and 0 < self.volume < 1 << 63 and SIZE_BYTES_MIN <= self.size_bytes <= SIZE_BYTES_MAX
            and self.replicas in (2, 3) and self.protocol in PROTOCOLS and 0 <= self.quorum <= self.replicas
            and 0 < self.peer_timeout_ns < 1 << 40
        ):  # fmt: skip
            raise ValueError("a number in it is none that farwrite serve writes")


def new_number() -> int:
    """A volume's number, drawn: two volumes never mistake each other's records."""
    return secrets.randbits(62) | 1


@dataclass(frozen=True)
class Files:
    """By voter, descriptors that every process inherits."""

    disks: dict[str, Disk]
    ballots: dict[str, int]
    text: str  # where they are, and whether that is durable


def read_settings(directory: Path) -> Settings:
    """The settings of a kept volume; UsageError where there is none."""
    path = directory / SETTINGS
    if directory.is_dir() and not path.exists():
        raise UsageError(f"{directory} holds no volume: name the directory that farwrite serve --keep made.")
    try:
        return msgspec.json.decode(read_text(path, "read the volume in", TEXT_BYTES_MAX), type=Settings)
    except msgspec.MsgspecError as refusal:
        raise UsageError(f"{path}: this is not what farwrite serve --keep writes: {refusal}.") from refusal


@contextmanager
def new_files(settings: Settings, directory: Path | None, keep: bool, here: Sequence[str] = SITES) -> Iterator[Files]:
    """Files for a new volume's voters that are here: in memory, without names in a directory, or kept there."""
    replicas, voters = those_of(settings, here)
    with contextlib.ExitStack() as stack:
        if keep:
            assert directory is not None
            was_there = directory.exists()
            make_directory(directory)
            stack.enter_context(locked(directory))
            if (directory / SETTINGS).exists():
                raise UsageError(f"{directory} holds a volume: open it with --volume {directory}, or name another --keep.")
            for name in voters:
                if (directory / name).exists():
                    raise UsageError(f"{directory / name} is there and belongs to no volume: remove it, or name another --keep.")
            stack.enter_context(whole_or_nothing(directory, voters, was_there))
        disks, ballots = {}, {}
        for name in replicas:
            place = directory / name if directory and keep else directory
            size_bytes = settings.size_bytes + AREA_BYTES
            disks[name] = stack.enter_context(disk(place, JOURNAL_BYTES, size_bytes, keep, OTHER_PLACE, snapshots=True))
        for name in voters:
            ballots[name] = ballot_in(directory / name) if directory and keep else os.memfd_create(f"farwrite-ballot-{name}")
            stack.callback(os.close, ballots[name])
            format_ballot(ballots[name])
        if keep and directory:
            write_atomically(directory / SETTINGS, msgspec.json.format(msgspec.json.encode(settings), indent=1) + b"\n")
            make_durable(directory, *(directory / name for name in voters))
        yield Files(disks, ballots, text_of(directory))


@contextmanager
def kept_files(settings: Settings, directory: Path, here: Sequence[str] = SITES) -> Iterator[Files]:
    """The files of a volume that was kept: of its voters that are here."""
    replicas, voters = those_of(settings, here)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(directory))
        disks = {name: stack.enter_context(kept_disk(directory / name, settings.size_bytes + AREA_BYTES)) for name in replicas}
        ballots = {}
        for name in voters:
            try:
                ballots[name] = os.open(directory / name / BALLOT, os.O_RDWR)
            except OSError as refusal:
                advice = "A voter without its ballot has forgotten what it promised: put the file back from where it went."
                raise system_error(f"open {directory / name / BALLOT}", refusal.errno or 0, advice) from refusal
            stack.callback(os.close, ballots[name])
        yield Files(disks, ballots, text_of(directory))


def those_of(settings: Settings, here: Sequence[str]) -> tuple[list[str], list[str]]:
    """(replicas, voters) of the volume that are among these."""
    replicas, voters = names_of(settings.replicas, settings.has_witness)
    return [name for name in replicas if name in here], [name for name in voters if name in here]


@contextmanager
def whole_or_nothing(directory: Path, voters: Sequence[str], was_there: bool) -> Iterator[None]:
    """Until the settings are written there is no volume: what there is of its files goes when they cannot all be made."""
    try:
        yield
    finally:
        if not (directory / SETTINGS).exists():
            for name in voters:
                shutil.rmtree(directory / name, ignore_errors=True)
            (directory / LOCK).unlink(missing_ok=True)
            if not was_there:
                with contextlib.suppress(OSError):  # Somebody has put something else in it.
                    directory.rmdir()


def make_directory(directory: Path) -> None:
    """For nobody else."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as refusal:
        raise system_error(f"make {directory}", refusal.errno or 0, "Name another --keep.") from refusal


def ballot_in(directory: Path) -> int:
    """A new, empty file for a voter's ballot."""
    directory.mkdir(exist_ok=True)
    try:
        return os.open(directory / BALLOT, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as refusal:
        raise system_error(f"make {directory / BALLOT}", refusal.errno or 0) from refusal


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Nobody else serves the volume inside this block. The lock is the open file's: it goes with the last of our processes."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as refusal:
        raise system_error(f"open the volume in {directory}", refusal.errno or 0, OTHER_VOLUME) from refusal
    try:
        if not lock_within(descriptor, LOCK_S):
            raise UnfitError(f"The volume in {directory} is served already, by another farwrite serve: end that first.")
        yield
    finally:
        os.close(descriptor)


def lock_within(descriptor: int, limit_s: float) -> bool:
    """Take the lock of an open file, which goes with the last process that has it; False when somebody keeps it for so long."""
    until_s = time.monotonic() + limit_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until_s:
                return False
        time.sleep(0.05)


def is_locked(path: Path, flags: int = 0) -> bool:
    """Whether another process keeps this locked. What cannot be opened is not."""
    try:
        descriptor = os.open(path, os.O_RDONLY | flags)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def make_durable(*directories: Path) -> None:
    """Names as well: fsync(2) of a file says nothing of its name."""
    for directory in directories:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def text_of(directory: Path | None) -> str:
    """Where the files are, and whether a power loss would spare them."""
    if directory is None:
        return "memory, so nothing survives a power loss"
    reason = why_not_durable(directory)
    return f"{directory}{f' ({reason}: nothing there survives a power loss)' if reason else ''}"
