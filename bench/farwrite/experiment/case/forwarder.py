"""In a far site of a lab: bytes between a TCP port of that site and a unix socket, for a client at the near one, until killed.

    python -m farwrite.experiment.case.forwarder ADDRESS PORT PATH
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import sys
import threading

from ...base.wire.door import accepted

PIECE_BYTES = 1 << 20
BACKLOG = 64


def command(port: int, path: str) -> str:
    """For the shell of a far site, which finds its address in $FAR, as every command there."""
    return f'exec {shlex.quote(sys.executable)} -m {__name__} "$FAR" {port} {shlex.quote(path)}'


def forward(address: str, port: int, path: str) -> None:
    """Each connection by itself."""
    with socket.create_server((address, port), backlog=BACKLOG) as listening:
        while True:
            come = accepted(listening)
            if come is None:
                continue
            try:
                threading.Thread(target=carry, args=(come[0], path), daemon=True).start()
            except RuntimeError:  # No thread can be started.
                come[0].close()


def carry(here: socket.socket, path: str) -> None:
    """In a thread: one connection, both directions. It ends at once where nobody listens behind it."""
    with contextlib.suppress(OSError, RuntimeError), here, socket.socket(socket.AF_UNIX) as there:
        here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there.connect(path)
        back = threading.Thread(target=pour, args=(there, here), daemon=True)
        back.start()
        pour(here, there)
        back.join()


def pour(one: socket.socket, other: socket.socket) -> None:
    """One direction, until its end; then both are over."""
    place = bytearray(PIECE_BYTES)
    with contextlib.suppress(OSError):
        while count := one.recv_into(place):
            other.sendall(memoryview(place)[:count])
    for end in (one, other):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    forward(sys.argv[1], int(sys.argv[2]), sys.argv[3])
