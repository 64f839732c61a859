"""What stands in a replica's two files, told without changing them: how thin the volume is, where the log ends, and why there.

For people, after a run that kept its files or a crash that left them. Replaying is journal.py's.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import UnfitError, UsageError
from ..base.host.disk import JOURNAL, VOLUME, Disk, file_system_of
from ..base.user_file import descriptor_of
from . import journal_kernel as log
from .journal import end_text, examine, image, mismatch_of
from .label import data_bytes

BLOCK_BYTES = 512  # The unit of st_blocks; stat(2).


@dataclass(frozen=True)
class VolumeInfo:
    """Positions in the log are sequences: the s-th write since the volume was made has sequence s."""

    directory: str
    file_system: str
    volume: str  # the identity that replicas of one volume share, in hex
    volume_bytes: int
    allocated_bytes: int  # the rest reads as zeros and takes no room
    extents: int  # runs of allocated bytes
    journal_bytes: int
    capacity_bytes: int  # of the ring of records
    checkpoint_sequence: int  # everything up to here is durable in the volume
    log_sequence: int  # everything up to here survives: what is behind the checkpoint is in the journal
    replay_bytes: int  # what a restart has to replay
    end_reason: str
    damaged: bool  # whether something durable stands behind that end
    promised_epoch: int
    log_epoch: int
    consistent: bool  # false in the middle of a resync
    mismatch: str = ""  # why journal and volume are not of one time, in a sentence


def look(directory: Path) -> VolumeInfo:
    """What stands in a replica's directory. UsageError when no replica's files do, UnfitError when they are no journal."""
    with contextlib.ExitStack() as stack:
        journal_fd, volume_fd = (open_for_reading(stack, directory / name) for name in (JOURNAL, VOLUME))
        journal, volume = os.fstat(journal_fd), os.fstat(volume_fd)
        if journal.st_size < log.SUPERBLOCK_BYTES:
            raise UnfitError(
                f"{directory / JOURNAL} holds {journal.st_size} bytes, and a journal begins with two superblocks of "
                f"{log.SUPERBLOCK_BYTES} together: this is no journal, or its copy broke off."
            )
        volume_bytes = data_bytes(volume_fd)
        chosen = Disk(
            directory=str(directory), file_system=file_system_of(directory), journal_fd=journal_fd, volume_fd=volume_fd,
            journal_bytes=journal.st_size, volume_bytes=volume_bytes, durability="disk", direct=False,
        )  # fmt: skip
        superblock, found = examine(chosen)
        with image(journal_fd) as data:
            why = mismatch_of(chosen, data, found)
            del data
        return VolumeInfo(
            directory=str(directory),
            file_system=file_system_of(directory),
            volume=f"{int(superblock.volume):x}",
            volume_bytes=volume_bytes,
            allocated_bytes=volume.st_blocks * BLOCK_BYTES,
            extents=count_extents(volume_fd, volume_bytes),
            journal_bytes=journal.st_size,
            capacity_bytes=int(superblock.capacity_bytes),
            checkpoint_sequence=int(superblock.tail_sequence),
            log_sequence=int(found.sequence),
            replay_bytes=int(found.position) - int(superblock.tail),
            end_reason=end_text(superblock, found),
            damaged=bool(found.damaged),
            promised_epoch=int(superblock.epoch),
            log_epoch=int(found.epoch),
            consistent=not int(superblock.flags) & log.INCONSISTENT and not found.damaged and not why,
            mismatch=why,
        )


def open_for_reading(stack: contextlib.ExitStack, path: Path) -> int:
    """A descriptor as long as the stack."""
    if not os.path.lexists(path):
        raise UsageError(
            f"{path}: there is no such file. A replica's directory holds {JOURNAL} and {VOLUME}; a run leaves them "
            "with --set lab.keep=true, in near/ and far/ below its results."
        )
    descriptor = descriptor_of(path, "open", pipes=False)
    stack.callback(os.close, descriptor)
    return descriptor


def count_extents(descriptor: int, size: int) -> int:
    """Runs of data in a sparse file, as its file system tells them. lseek(2), SEEK_DATA."""
    count, position = 0, 0
    with contextlib.suppress(OSError):  # ENXIO: nothing but a hole is left.
        while position < size:
            begin = os.lseek(descriptor, position, os.SEEK_DATA)
            position = os.lseek(descriptor, begin, os.SEEK_HOLE)
            count += 1
    return count
