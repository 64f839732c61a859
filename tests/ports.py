"""Ports of loopback for tests: of a range that the system gives to no connection, so nobody has one by the time it is bound."""

import contextlib
import itertools
import os
import socket

FIRST, COUNT = 10_000, 20_000  # Linux gives connections those from 32768 on (ip_local_port_range); pools take some from 7000 on.
NEXT = itertools.count(37 * os.getpid())  # Another place in each process.


def free_port():
    """One that nobody listens on now, and that this process has not been given before."""
    while True:
        port = FIRST + next(NEXT) % COUNT
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            return port
