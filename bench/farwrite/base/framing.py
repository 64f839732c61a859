"""Messages on a stream of bytes: each with its length before it, or each a line. Framing is written here and nowhere else.

`Frames` and `Lines` cut bytes into messages as they come; they know no descriptor, so whatever carries the bytes (a pipe, a
channel of proven pieces) can feed them. `Reader` feeds one from a descriptor, within a time. No message may be longer than its
reader allows, whatever it claims. Between processes forked from each other, multiprocessing's connections do all this.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from typing import IO, Literal, Protocol

from .errors import UnfitError

LENGTH_BYTES = 4
READ_BYTES = 1 << 20
LOOK_S = 1.0  # Whoever waits is told for how long.

ByteOrder = Literal["little", "big"]


class TooLongError(UnfitError):
    """The other end announces more than a message may have; none of it was read."""


def receive_exactly(connection: socket.socket, size: int, until_s: float, late: Exception, closed: Exception) -> bytes:
    """So many bytes of a socket, however small their pieces. `late` when they are not there at this instant (time.monotonic()),
    `closed` when the other end closes before; and what the system answers."""
    data = bytearray()
    while len(data) < size:
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise late
        connection.settimeout(left_s)
        piece = connection.recv(size - len(data))
        if not piece:
            raise closed
        data += piece
    return bytes(data)


def frame(message: bytes, order: ByteOrder) -> bytes:
    """A message with its length before it."""
    return len(message).to_bytes(LENGTH_BYTES, order) + message


def line(message: bytes) -> bytes:
    """A message, which holds no line break, as a line."""
    return message + b"\n"


def send(stream: IO[bytes], framed: bytes) -> None:
    """All of a framed message, now."""
    stream.write(framed)
    stream.flush()


class Cutter(Protocol):
    """Bytes into messages: put what came, take messages while there are any."""

    def put(self, data: bytes) -> None: ...
    def take(self) -> bytes | None: ...


class Frames:
    """Messages with their lengths before them."""

    def __init__(self, bytes_max: int, order: ByteOrder) -> None:
        self.bytes_max, self.order = bytes_max, order
        self.waiting = bytearray()

    def put(self, data: bytes) -> None:
        self.waiting += data

    def take(self) -> bytes | None:
        """The next message; None when it is not whole yet. TooLongError as soon as one is announced that is."""
        if len(self.waiting) < LENGTH_BYTES:
            return None
        size = int.from_bytes(self.waiting[:LENGTH_BYTES], self.order)
        if size > self.bytes_max:
            raise TooLongError(f"A message has up to {self.bytes_max} bytes, not {size}.")
        end = LENGTH_BYTES + size
        if len(self.waiting) < end:
            return None
        message = bytes(self.waiting[LENGTH_BYTES:end])
        del self.waiting[:end]
        return message


class Lines:
    """Messages that are lines."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.waiting = bytearray()
        self.looked_at = 0  # bytes of `waiting` that hold no line break

    def put(self, data: bytes) -> None:
        self.waiting += data

    def take(self) -> bytes | None:
        """The next message; None when it is not whole yet. TooLongError once it is longer than any may be."""
        end = self.waiting.find(b"\n", self.looked_at)
        self.looked_at = len(self.waiting)
        if max(end, self.looked_at if end < 0 else 0) > self.bytes_max:
            raise TooLongError(f"A line has up to {self.bytes_max} bytes, and this one more.")
        if end < 0:
            return None
        message = bytes(self.waiting[:end])
        del self.waiting[: end + 1]
        self.looked_at = 0
        return message


class Reader:
    """Messages from a descriptor."""

    def __init__(self, stream: IO[bytes], cutter: Cutter) -> None:
        self.descriptor, self.cutter = stream.fileno(), cutter
        self.whole: bytes | None = None  # A message that was looked for and not taken yet.

    def poll(self, timeout_s: float | None = None, waiting: Callable[[float], None] | None = None) -> bool:
        """Whether a message is whole, or the stream at its end, within the timeout, whatever part of one comes meanwhile.

        `waiting` is called about every second with how long it has been.
        """
        begin_s, elapsed_s, looked = time.monotonic(), 0.0, False
        while self.whole is None and (message := self.cutter.take()) is None:
            left_s = None if timeout_s is None else max(timeout_s - elapsed_s, 0)
            if looked and left_s == 0:
                return False
            look_s = left_s if waiting is None else min(LOOK_S if left_s is None else left_s, LOOK_S)
            if select.select([self.descriptor], [], [], look_s)[0]:
                part = os.read(self.descriptor, READ_BYTES)
                if not part:
                    return True
                self.cutter.put(part)
            elif waiting is not None:
                waiting(time.monotonic() - begin_s)
            looked, elapsed_s = True, time.monotonic() - begin_s
        if self.whole is None:
            self.whole = message
        return True

    def take(self, timeout_s: float | None = None, waiting: Callable[[float], None] | None = None) -> bytes | None:
        """The next message; None at the end of the stream, where a part of one is lost. TimeoutError when it takes too long."""
        if not self.poll(timeout_s, waiting):
            raise TimeoutError
        message, self.whole = self.whole, None
        return message
