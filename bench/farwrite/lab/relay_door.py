"""How a connection between two sites goes through a relay: whoever dials asks the relay's process for a passage first."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

from ..base.errors import UnfitError

Address = tuple[str, int]

PASSAGE_S = 10.0  # A door that nobody has come through by then is closed.


@dataclass(frozen=True)
class Doors:
    """The way to ask a relay's process for passages; any process that holds the socket may."""

    asking: socket.socket

    def passage(self, source: Address, target: Address, outward: bool = True) -> tuple[Address, Address]:
        """(where to dial from `source`, where the connection will reach `target` from): one connection, within PASSAGE_S."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            request = json.dumps({"source": source, "target": target, "outward": outward})
            try:
                socket.send_fds(self.asking, [request.encode()], [theirs.fileno()])
                theirs.close()
                ours.settimeout(PASSAGE_S)
                answer = json.loads(ours.recv(4096) or b"{}")
            except (OSError, ValueError) as gone:
                raise UnfitError(f"The relay's process does not answer: {gone}.") from gone
        if "door" not in answer:
            raise UnfitError(answer.get("refusal", "The relay's process has ended."))
        return tuple(answer["door"]), tuple(answer["exit"])


def bound(address: str) -> socket.socket:
    """A TCP socket that has its address and port already, so that both can be announced before it dials."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.bind((address, 0))
    except BaseException:
        made.close()
        raise
    return made
