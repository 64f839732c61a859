"""Reservations kept in the replicated volume itself, in an area that no client is offered: so they are wherever the volume is.

Two slots are written in turns, each with a count and a checksum, so a write that was cut leaves the state before it. Whoever
offers the volume offers `AREA_BYTES` less of it, at every door.
"""

from __future__ import annotations

import select
import threading
import time

from . import volume
from .reservation import restored
from .scsi import StateStore
from .volume import Operation, Result

SLOT_BYTES = 64 << 10
AREA_BYTES = 2 * SLOT_BYTES
COUNT_BYTES = 8
PATIENCE_S = 10.0


class VolumeStore(StateStore):
    """The area from byte `address` of a volume on. One user at a time: the site that serves the volume."""

    can_keep = True

    def __init__(self, disk: volume.Volume, address: int) -> None:
        self.disk, self.address = disk, address
        self.lock = threading.Lock()
        self.count = 0

    def load(self) -> bytes:
        """The newest image that is whole; nothing where none is, or nobody leads."""
        with self.lock:
            newest = b""
            self.count = 0
            for slot in range(2):
                result = self.perform(Operation(volume.READ, self.address + slot * SLOT_BYTES, SLOT_BYTES))
                data = bytes(result.data)
                count = int.from_bytes(data[:COUNT_BYTES], "big")
                if not result.error and count > self.count and restored(data[COUNT_BYTES:]) is not None:
                    self.count, newest = count, data[COUNT_BYTES:]
            return newest

    def save(self, image: bytes) -> bool:
        with self.lock:
            data = ((self.count + 1).to_bytes(COUNT_BYTES, "big") + image).ljust(512, b"\0")
            if len(data) > SLOT_BYTES:
                return False
            self.count += 1  # Also of one that fails: it may be there all the same.
            slot = self.count % 2
            return not self.perform(Operation(volume.WRITE, self.address + slot * SLOT_BYTES, len(data), data)).error

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
