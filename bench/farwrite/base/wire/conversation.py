"""Whole messages over a connection whose ends have proven who they are: each with its size before it, and none too long.

One limit of time holds for everything said on a connection, the proof as well, so who says a byte now and then meets it like who
says nothing. What is said is proven piece by piece (proof.py, channel.py), on this connection only: an answer that arrives is
that of the end that was asked, to what was asked here.
"""

from __future__ import annotations

import contextlib
import socket
import time

from ..errors import UnfitError, UsageError
from ..framing import Frames, frame
from .channel import Channel
from .handshake import CHUNK_BYTES, Patience, agree_within
from .terms import Terms

MESSAGE_BYTES_MAX = 4096
PURPOSE = b"control"


class Conversation:
    """One end's words and the other's."""

    def __init__(self, patience: Patience, channel: Channel) -> None:
        self.patience, self.channel = patience, channel
        self.frames = Frames(MESSAGE_BYTES_MAX, "little")
        self.frames.put(channel.open(b""))  # What came with the last of the handshake.

    def renew(self, limit_s: float) -> None:
        """Give what is still to be said this long from now."""
        self.patience.until_s = time.monotonic() + limit_s

    @property
    def connection(self) -> socket.socket:
        return self.patience.connection

    def say(self, message: bytes) -> None:
        """One message."""
        assert len(message) <= MESSAGE_BYTES_MAX
        self.patience.send(bytes(self.channel.seal(frame(message, "little"))))

    def hear(self) -> bytes:
        """The other end's next message; UnfitError when it is silent, gone or too long, or what comes is not its own."""
        while (message := self.frames.take()) is None:
            if self.channel.ended:
                raise UnfitError("The peer hung up in the middle of a message.")
            self.frames.put(self.channel.open(self.patience.receive(CHUNK_BYTES)))
            self.patience.send(self.channel.pending())
        return message

    def has_more(self) -> bool:
        """Whether more has come than was heard."""
        return bool(self.frames.waiting) or bool(getattr(self.channel, "waiting", b""))


def require_proof(terms: Terms) -> None:
    """UsageError for terms under which nobody proves who he is."""
    if not terms.are_proven:
        raise UsageError("Replicas and voters prove to each other who they are: give them a shared key, or certificates and TLS.")


def converse(connection: socket.socket, terms: Terms, dials: bool, limit_s: float) -> Conversation:
    """A conversation with who is at the other end and has proven that it may be; all of it within this limit."""
    require_proof(terms)
    with contextlib.suppress(OSError):  # A socket pair has no such thing.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    patience = Patience(connection, limit_s)
    return Conversation(patience, agree_within(patience, terms, dials, PURPOSE))
