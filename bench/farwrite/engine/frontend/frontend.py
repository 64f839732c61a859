"""The seam between Python and the loop that serves clients: connections go in here, and counters come out.

A replica that leads has one loop, which serves its clients and drives replication (door_kernel.run). Whoever accepts,
negotiates or logs in does so in Python, in threads of his own, and then hands the connected socket over: `adopt`. From there on
no Python runs for a request, but for those that a door puts into the slow lane (`answers_slowly`).

    frontend = Frontend(volume_bytes)
    node = Node(..., clients=frontend, ...)        # calls begin, turn and leave, from its loop's thread
    frontend.adopt(connection, NBD, STRUCTURED)    # from any thread, while the node leads
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import primary_kernel as p
from . import session_kernel as sessions

TURN_NS = 50_000_000  # At most so long until the node looks whether it is to stop.

# What answers a slow request: the context that was given to adopt(), and the request's bytes; None ends the connection.
Answering = Callable[[Any, bytes], bytes | None]


class Frontend:
    """The clients of one replica. Everything but begin, turn and leave may be called from any thread at any time."""

    def __init__(
        self, volume_bytes: int, sessions_max: int = sessions.SESSIONS_MAX, answers_slowly: Answering | None = None,
        counters: np.ndarray | None = None, writes_ns: np.ndarray | None = None, reads_ns: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """`counters` (a Counters row) and the histograms may lie in shared memory, for others to read while it runs."""
        raise NotImplementedError

    # For doors.

    def adopt(
        self, connection: socket.socket, kind: int, flags: int = 0, size_bytes: int = 0, block_bytes: int = 1,
        context: Any = None,
    ) -> bool:  # fmt: skip
        """Hand a connected socket over to the loop, whatever becomes of it: the caller does not use or close it any more.

        False, and it is closed, when this replica does not lead or has no place for it. The connection begins between two
        requests: whatever negotiation read of it must end exactly there. `size_bytes` 0: as large as the volume.
        """
        raise NotImplementedError

    def leads(self) -> bool:
        """Whether connections would be taken now."""
        raise NotImplementedError

    def count(self) -> int:
        """Connections that are served now."""
        raise NotImplementedError

    def shut_down(self, limit_s: float) -> bool:
        """Answer new requests with the protocol's word for that, and wait until nothing is owed; False when that took too long."""
        raise NotImplementedError

    # For the node, in its loop's thread.

    def begin(self, state: p.Primary) -> None:
        """A replica begins to lead: connections are taken from now on."""
        raise NotImplementedError

    def turn(self, state: p.Primary, taking: bool, lasts_ns: int = TURN_NS) -> int:
        """Serve and replicate for so long, or until somebody wakes the loop; 0, or the status that ends the primary.

        Not `taking`, what was taken completes and is answered, and nothing new is looked at.
        """
        raise NotImplementedError

    def leave(self) -> None:
        """It leads no more: everybody is hung up on at once, and what is not answered never is."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave, and give back what it holds."""
        raise NotImplementedError
