"""How two tunnels meet: greetings in the clear, TLS if it was demanded, and the greetings once more inside it.

The second greeting does two things: it binds the terms to what TLS has proven, and it tells the end that dials whether it was
taken, which TLS 1.3 leaves open. All of it has one time limit; a peer that is silent, or says a byte a minute, meets it.
"""

from __future__ import annotations

import errno
import socket
import time

from ..errors import UnfitError, system_error
from .channel import Channel, Clear, Tls
from .greeting import GREETING_BYTES, TUNNEL, greeting_of, refuse_unlike
from .terms import Terms

HANDSHAKE_LIMIT_S = 10.0  # Two round trips and a signature each; the longest round trip of a profile is 0.25 s.
CHUNK_BYTES = 16 << 10
SEE_THERE = "The other end may say why."


class Patience:
    """A connection that is read and written until one instant and no longer."""

    def __init__(self, connection: socket.socket, limit_s: float) -> None:
        self.connection = connection
        self.limit_s = limit_s
        self.until_s = time.monotonic() + limit_s

    def send(self, data: bytes) -> None:
        """All of it."""
        if data:
            self.left()
            try:
                self.connection.sendall(data)
            except TimeoutError as late:
                raise self.late() from late
            except OSError as refusal:
                raise system_error("speak to the peer", refusal.errno or errno.EPIPE, SEE_THERE) from refusal

    def receive(self, size: int) -> bytes:
        """What has come, at least a byte; UnfitError when the peer hangs up or is silent."""
        self.left()
        try:
            data = self.connection.recv(size)
        except TimeoutError as late:
            raise self.late() from late
        except OSError as refusal:
            raise system_error("hear the peer", refusal.errno or errno.EPIPE, SEE_THERE) from refusal
        if not data:
            raise UnfitError(f"The peer closed the connection instead of agreeing. {SEE_THERE}")
        return data

    def left(self) -> None:
        """Give the socket the time that is left."""
        left_s = self.until_s - time.monotonic()
        if left_s <= 0:
            raise self.late()
        self.connection.settimeout(left_s)

    def late(self) -> UnfitError:
        return UnfitError(f"The peer has not agreed on encryption and compression within {self.limit_s:g} s.")


def agree(connection: socket.socket, terms: Terms, dials: bool, limit_s: float = HANDSHAKE_LIMIT_S) -> Channel:
    """The channel to a peer with the same terms, proven on both sides if it encrypts; UnfitError says what does not fit."""
    patience = Patience(connection, limit_s)
    greeting = greeting_of(terms)
    patience.send(greeting)
    heard = b""
    # A stranger may never say 64 bytes: it is known by its first ones.
    while len(heard) < GREETING_BYTES and TUNNEL.startswith(heard[: len(TUNNEL)]):
        heard += patience.receive(GREETING_BYTES - len(heard))
    refuse_unlike(heard, terms)
    if terms.encryption == "none":
        return Clear()
    tls = Tls(terms, dials)
    prove(patience, tls)
    patience.send(tls.seal(greeting))
    heard = tls.hear(b"", GREETING_BYTES)
    while len(heard) < GREETING_BYTES:
        heard += tls.hear(patience.receive(CHUNK_BYTES), GREETING_BYTES - len(heard))
    refuse_unlike(heard, terms)
    return tls


def prove(patience: Patience, tls: Tls) -> None:
    """Shake hands; whatever TLS has to say is said, a refusal as well."""
    data = b""
    while True:
        try:
            done = tls.shake_hands(data)
        finally:
            patience.send(tls.pending())
        if done:
            return
        data = patience.receive(CHUNK_BYTES)
