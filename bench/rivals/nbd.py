"""An NBD client for measuring: the handshake in Python, the load in `nbd_kernel`.

Writes carry no FUA and are followed by no flush: whoever is measured is set up to answer only what is durable (see qemu.py).
"""

from __future__ import annotations

import socket
import struct
import threading
import time

import numpy as np

from farwrite.base.errors import UnfitError, system_error
from farwrite.targets.load_loop_kernel import Flight, Recorder
from farwrite.targets.replicated import recorder_of

from . import nbd_kernel
from .experiment import Task

# doc/proto.md of the NBD project.
GREETING_MAGIC, OPTION_MAGIC = 0x4E42444D41474943, 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
OPT_GO, REP_ACK, INFO_EXPORT, REP_INFO = 7, 1, 0, 3
COMMAND_WRITE = 1
PATIENCE_S = 10.0
STUCK_S = 20.0  # A write that takes longer is given up: the round has failed.


def connect(family: int, address, export: str) -> tuple[socket.socket, int]:
    """(connection, size of the export), as soon as there is a server; UnfitError when it does not come up or refuses."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(STUCK_S)
        try:
            connection.connect(address)
            return connection, handshake(connection, export)
        except OSError as refusal:
            connection.close()
            if time.monotonic() > deadline_s:
                raise system_error(f"connect to the NBD server at {address!r}", refusal.errno or 110) from refusal
            time.sleep(0.05)


def handshake(connection: socket.socket, export: str) -> int:
    """Fixed newstyle, NBD_OPT_GO; answers the size of the export."""
    magic, option_magic, _ = struct.unpack(">QQH", receive(connection, 18))
    if (magic, option_magic) != (GREETING_MAGIC, OPTION_MAGIC):
        raise UnfitError("What answered is no NBD server.")
    name = export.encode()
    data = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
    connection.sendall(struct.pack(">IQII", FIXED_NEWSTYLE | NO_ZEROES, OPTION_MAGIC, OPT_GO, len(data)) + data)
    size = 0
    while True:
        magic, _, kind, length = struct.unpack(">QIII", receive(connection, 20))
        answer = receive(connection, length)
        if magic != OPTION_REPLY_MAGIC or kind >> 31:
            raise UnfitError(f'The NBD server refuses the export "{export}": {answer.decode(errors="replace") or hex(kind)}.')
        if kind == REP_ACK:
            return size
        if kind == REP_INFO and struct.unpack(">H", answer[:2])[0] == INFO_EXPORT:
            size = struct.unpack(">Q", answer[2:10])[0]


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly so many bytes; ConnectionResetError when the other end has closed."""
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionResetError(104, "closed during the handshake")
        data += part
    return data


def frames_of(task: Task) -> np.ndarray:
    """uint8: a request for each place, complete but for its offset; the payload is noise, which nobody takes for zeros."""
    payload = np.random.default_rng(task.seed).bytes(task.size_bytes)
    requests = (
        struct.pack(">IHHQQI", REQUEST_MAGIC, 0, COMMAND_WRITE, place, 0, task.size_bytes) + payload
        for place in range(task.queue_depth)
    )
    return np.frombuffer(bytearray(b"".join(requests)), np.uint8)


def drive(connection: socket.socket, task: Task) -> Recorder:
    """Drive the export through one round; UnfitError with the server's own error."""
    recorder = recorder_of(task.slice_count)
    flight = Flight(*(np.zeros(task.queue_depth, np.int64) for _ in Flight._fields))
    answers = np.zeros(4096, np.uint8)
    connection.settimeout(None)  # The kernel sleeps in recv(2); a timeout of Python's would make it answer EAGAIN.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(STUCK_S), 0))
    status = int(
        nbd_kernel.drive(
            connection.fileno(), frames_of(task), answers, task.addresses(), task.size_bytes, task.queue_depth,
            task.duration_ns, task.slice_ns, flight, recorder,
        )
    )  # fmt: skip
    if status < 0:
        raise system_error("write through the NBD server", status)
    return recorder


def rehearse() -> None:
    """Compile the loop before the lab forks: one round against a server of a few lines."""
    ours, theirs = socket.socketpair()
    task = Task(size_bytes=512, queue_depth=1, volume_bytes=1 << 20, duration_ns=1, slice_count=1, seed=1)
    with ours, theirs:
        answering = threading.Thread(target=answer_writes, args=(theirs, task.size_bytes))
        answering.start()
        drive(ours, task)
        ours.shutdown(socket.SHUT_WR)
        answering.join()


def answer_writes(connection: socket.socket, size_bytes: int) -> None:
    """A server that completes every write at once and keeps none, until its client has closed."""
    try:
        while True:
            head = receive(connection, nbd_kernel.REQUEST_BYTES)
            receive(connection, size_bytes)
            connection.sendall(struct.pack(">II", nbd_kernel.REPLY_MAGIC, 0) + head[8:16])
    except ConnectionResetError:
        pass
