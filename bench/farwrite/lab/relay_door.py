"""How a connection between two sites goes through a relay: whoever dials asks the relay's process for a passage first."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..base.errors import UnfitError

Address = tuple[str, int]

PASSAGE_S = 10.0  # A door that nobody has come through by then is closed.


@dataclass(frozen=True)
class Doors:
    """The way to ask a relay's process for passages; any process that holds the socket may."""

    asking: socket.socket

    def passage(self, source: Address, target: Address, outward: bool = True) -> tuple[Address, Address]:
        """(where to dial from `source`, where the connection will reach `target` from): one connection, within PASSAGE_S."""
        with self.asked({"source": source, "target": target, "outward": outward}, PASSAGE_S) as (answer, _):
            return tuple(answer["door"]), tuple(answer["exit"])

    @contextmanager
    def asked(self, request: dict[str, Any], limit_s: float) -> Iterator[tuple[dict[str, Any], socket.socket]]:
        """(the answer to one request, where more of it may come): UnfitError without a door."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                socket.send_fds(self.asking, [json.dumps(request).encode()], [theirs.fileno()])
                theirs.close()
                ours.settimeout(max(min(limit_s, PASSAGE_S), 0.001))
                answer = json.loads(ours.recv(4096) or b"{}")
            except (OSError, ValueError) as gone:
                raise UnfitError(f"The relay's process does not answer: {gone}.") from gone
            if "door" not in answer:
                raise UnfitError(answer.get("refusal", "The relay's process has ended."))
            yield answer, ours


@dataclass(frozen=True)
class Passages:
    """Connections from one site to another through a relay, each announced before it is dialled.

    For processes that know each other by address (a replica that looks for its peers): they dial by calling this. It waits for
    what becomes of the connection, so a port at which nobody listens is a refusal, as it is without a relay.
    """

    asking_fd: int  # of Doors.asking, in a process that has inherited it
    source: str
    outward: bool

    def __call__(self, target: Address, limit_s: float) -> socket.socket:
        """A connection to this address. OSError as connect(2) has it; UnfitError without a relay."""
        until_s = time.monotonic() + limit_s
        with contextlib.ExitStack() as undo:
            doors = Doors(undo.enter_context(socket.socket(fileno=os.dup(self.asking_fd))))
            connection = bound(self.source)
            failed = undo.enter_context(contextlib.ExitStack())
            failed.callback(connection.close)
            request = {"source": connection.getsockname(), "target": target, "outward": self.outward, "follows": True}
            answer, follows = undo.enter_context(doors.asked(request, limit_s))
            connection.settimeout(max(until_s - time.monotonic(), 0.001))
            connection.connect(tuple(answer["door"]))
            follows.settimeout(max(until_s - time.monotonic(), 0.001))
            error = json.loads(follows.recv(4096) or b"{}").get("error", errno.ECONNRESET)
            if error:
                raise OSError(error, os.strerror(error))  # Of the subclass that the number has: ConnectionRefusedError.
            failed.pop_all()
            return connection


def bound(address: str) -> socket.socket:
    """A TCP socket that has its address and port already, so that both can be announced before it dials."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.bind((address, 0))
    except BaseException:
        made.close()
        raise
    return made
