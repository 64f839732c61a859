"""Reservations kept in the replicated volume itself, in an area that no client is offered: so they are wherever the volume is.

Whoever offers the volume offers `AREA_BYTES` less of it, at every door.

There are two slots, and a save writes the same image into both, one after the other, each durable before anybody is told, as with
ballots (0037). So what was told stands in both, and one damaged slot forgets nothing: the other has it, or a newer image that
nobody was told of. A damaged slot is written again before anything else is. Both damaged: refused, since who holds the disk is
not known. Volumes from before that have an image in one slot at a time, in turns: there a damaged slot may have been the newer
one, and is refused as well.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from typing import NamedTuple

from ....base.errors import UnfitError
from . import volume
from .reservation import restored
from .scsi import StateStore
from .volume import Operation, Result

SLOT_BYTES = 64 << 10
AREA_BYTES = 2 * SLOT_BYTES
COUNT_BYTES = 8
TWICE = 1 << 63  # In a count: this image stands in both slots, or is about to.
PATIENCE_S = 10.0

DAMAGED = (
    "The reservations that are kept in the volume cannot be read: {what}. Who may write to the disk is not known, so it is not "
    "offered over iSCSI. Go back to a copy of the volume's files; or, if no cluster's initiator is at work, have them forgotten "
    "with --forget-reservations, and register anew."
)


class Slot(NamedTuple):
    """What was found in one slot: an image, nothing that was ever written, or damage."""

    number: int = 0  # of its save
    image: bytes = b""
    is_twice: bool = False
    damage: str = ""
    error: int = 0  # of the volume, when the slot could not be read


class VolumeStore(StateStore):
    """The area from byte `address` of a volume on. One user at a time: the site that serves the volume."""

    can_keep = True

    def __init__(self, disk: volume.Volume, address: int) -> None:
        self.disk, self.address = disk, address
        self.lock = threading.Lock()
        self.count = 0

    def load(self) -> bytes:
        """The image that was saved last, nothing where none was.

        UnfitError for damage that may have hidden a newer one; OSError where the volume cannot be read at all: nobody leads.
        """
        with self.lock:
            slots = [self.read(number) for number in range(2)]
            if all(slot.error for slot in slots):
                raise OSError(slots[0].error, os.strerror(slots[0].error))
            newest = max(slots, key=lambda slot: slot.number)
            damaged = [number for number, slot in enumerate(slots) if slot.damage]
            if damaged and not newest.is_twice:
                what = "; ".join(f"slot {number}: {slots[number].damage}" for number in damaged)
                raise UnfitError(DAMAGED.format(what=what))
            self.count = newest.number
            for number in damaged:
                if not self.write(number, newest.image):
                    raise UnfitError(DAMAGED.format(what=f"slot {number} is damaged and cannot be written again"))
            return newest.image

    def save(self, image: bytes) -> bool:
        with self.lock:
            if COUNT_BYTES + len(image) > SLOT_BYTES:
                return False
            self.count += 1  # Also of one that fails: it may be there all the same.
            return self.write(0, image) and self.write(1, image)

    def forget(self) -> bool:
        """Begin anew, whatever the slots hold; whether that is durable."""
        with self.lock:
            self.count = 0
            area = Operation(volume.WRITE_ZEROES, self.address, AREA_BYTES)
            return not self.perform(area).error

    def read(self, number: int) -> Slot:
        """What one slot holds."""
        result = self.perform(Operation(volume.READ, self.address + number * SLOT_BYTES, SLOT_BYTES))
        data = bytes(result.data)
        if result.error or len(data) != SLOT_BYTES:
            error = result.error or errno.EIO
            return Slot(damage=f"reading it failed: {os.strerror(error)}", error=error)
        if not any(data):
            return Slot()
        count, image = int.from_bytes(data[:COUNT_BYTES], "big"), data[COUNT_BYTES:]
        if restored(image) is None:
            return Slot(damage="what stands there does not match its checksum")
        return Slot(count & ~TWICE, image, bool(count & TWICE))

    def write(self, number: int, image: bytes) -> bool:
        """Make this image, under the count, durable in one slot."""
        data = ((self.count | TWICE).to_bytes(COUNT_BYTES, "big") + image)[:SLOT_BYTES].ljust(512, b"\0")
        return not self.perform(Operation(volume.WRITE, self.address + number * SLOT_BYTES, len(data), data)).error

    def perform(self, operation: Operation) -> Result:
        """One operation, waited for."""
        try:
            channel = self.disk.open()
        except OSError as refusal:
            return Result(refusal.errno or 5)
        deadline = time.monotonic() + PATIENCE_S
        try:
            channel.submit(1, operation)
            while True:
                for _, result in channel.reap():
                    return result
                left = deadline - time.monotonic()
                if left <= 0 or channel.fileno() < 0:
                    return Result(5)
                select.select([channel.fileno()], [], [], left)
        except OSError as refusal:
            return Result(refusal.errno or 5)
        finally:
            channel.close()
