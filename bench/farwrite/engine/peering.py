"""How two replicas meet: one HELLO each way, before any write.

Each says which volume it holds, at which epoch, and up to which write; the primary also says the protocol. Replicas
that do not fit part again with a sentence instead of writing into each other's volumes. Bringing a stale replica up to
date is not done here.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

import numpy as np

from ..errors import UnfitError
from . import record_kernel as record

MEET_TIMEOUT_S = 30.0  # The peer may be drawing its plan.


@dataclass(frozen=True)
class Hello:
    """What a replica says of itself."""

    volume: int
    epoch: int
    sequence: int
    protocol: int


def send_hello(connection: socket.socket, hello: Hello) -> None:
    """Hand one HELLO to the send buffer."""
    frame = np.zeros(record.HEADER_BYTES, np.uint8)
    record.seal(
        frame, frame.view(np.int64), 0, record.HELLO, 0, hello.sequence, hello.protocol, hello.epoch, hello.volume, 0
    )
    connection.sendall(frame.tobytes())


def receive_hello(connection: socket.socket, volume: int) -> Hello:
    """The peer's HELLO; UnfitError when the peer closes, or says anything else."""
    data = b""
    while len(data) < record.HEADER_BYTES:
        part = connection.recv(record.HEADER_BYTES - len(data))
        if not part:
            raise UnfitError("The peer closed the connection instead of introducing itself.")
        data += part
    frame = np.frombuffer(bytearray(data), np.uint8)
    words = frame.view(np.int64)
    found = record.inspect(frame, words, 0, len(data), volume)
    if found == record.WRONG_VOLUME:
        raise UnfitError(f"The peer holds another volume ({int(words[5]):x}, ours is {volume:x}).")
    if found == record.BAD_VERSION:
        raise UnfitError("The peer speaks another version of the replication protocol.")
    if found != record.COMPLETE or record.kind_of(words, 0) != record.HELLO:
        raise UnfitError("What the peer sent is not a HELLO; it is not a replica of ours.")
    return Hello(volume, int(words[4]), int(words[2]), int(words[3]))


def meet(connection: socket.socket, mine: Hello, primary: bool) -> Hello:
    """Exchange HELLOs and answer the peer's; UnfitError when the two cannot go on together. Leaves it non-blocking."""
    connection.settimeout(MEET_TIMEOUT_S)
    try:
        theirs = exchange(connection, mine, primary)
    except TimeoutError as late:
        raise UnfitError(f"The peer has not introduced itself within {MEET_TIMEOUT_S:g} s.") from late
    connection.setblocking(False)
    return theirs


def exchange(connection: socket.socket, mine: Hello, primary: bool) -> Hello:
    """The two HELLOs, the primary's first."""
    if primary:
        send_hello(connection, mine)
    theirs = receive_hello(connection, mine.volume)
    if not primary:
        send_hello(connection, mine)
    if theirs.protocol != mine.protocol:
        raise UnfitError(f"The peer replicates by protocol number {theirs.protocol}, we by {mine.protocol}.")
    if theirs.epoch != mine.epoch:
        raise UnfitError(f"The peer is at epoch {theirs.epoch}, we are at {mine.epoch}.")
    if theirs.sequence != mine.sequence:
        raise UnfitError(f"The peer holds {theirs.sequence} writes, we hold {mine.sequence}: it must be resynced first.")
    return theirs
