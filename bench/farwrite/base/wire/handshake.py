"""How two ends meet: greetings in the clear, then what the terms demand: TLS and the greetings once more inside it, or the
proof of a shared key.

The second greeting does two things: it binds the terms to what TLS has proven, and it tells the end that dials whether it was
taken, which TLS 1.3 leaves open. All of it has one time limit; a peer that is silent, or says a byte a minute, meets it.
"""

from __future__ import annotations

import errno
import socket
import time

from ..errors import UnfitError, system_error
from .channel import Channel, Clear, Tls, TlsStream
from .greeting import GREETING_BYTES, TUNNEL, greeting_of, refuse_unlike
from .proof import NONCE_BYTES, TAG_BYTES, KeyProof
from .terms import SharedKey, Terms

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

    def receive_exactly(self, size: int) -> bytes:
        """So many bytes, however small their pieces."""
        data = b""
        while len(data) < size:
            data += self.receive(size - len(data))
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
    """The channel of a replica's bytes to a peer with the same terms, proven on both sides as they say; UnfitError says what does
    not fit. A key alone proves the two ends, once; what follows is as the replica says it."""
    channel = agree_within(Patience(connection, limit_s), terms, dials)
    return channel if terms.encryption == "tls" else Clear()


def agree_within(patience: Patience, terms: Terms, dials: bool, purpose: bytes = b"wire") -> Channel:
    """The same, in what time is left. A proof by key is one for this purpose only."""
    greeting = greeting_of(terms)
    patience.send(greeting)
    heard = b""
    # A stranger may never say 64 bytes: it is known by its first ones.
    while len(heard) < GREETING_BYTES and TUNNEL.startswith(heard[: len(TUNNEL)]):
        heard += patience.receive(GREETING_BYTES - len(heard))
    refuse_unlike(heard, terms)
    if terms.encryption == "none":
        if terms.identity is not None:
            return prove_key(patience, terms.identity, dials, purpose + b" " + greeting)
        return Clear()
    tls = Tls(terms, dials)
    prove(patience, tls)
    patience.send(tls.seal(greeting))
    heard = tls.hear(b"", GREETING_BYTES)
    while len(heard) < GREETING_BYTES:
        heard += tls.hear(patience.receive(CHUNK_BYTES), GREETING_BYTES - len(heard))
    refuse_unlike(heard, terms)
    return tls


def prove(patience: Patience, tls: TlsStream) -> None:
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


def prove_key(patience: Patience, key: SharedKey, dials: bool, purpose: bytes) -> Channel:
    """Show that we hold the key and be shown the same; no byte more is read than that takes."""
    proof = KeyProof(key.key, dials, purpose)
    patience.send(proof.nonce)
    patience.send(proof.meet(patience.receive_exactly(NONCE_BYTES)))
    if not proof.is_proven_by(patience.receive_exactly(TAG_BYTES)):
        raise UnfitError("The peer does not hold our key: it is nobody's replica, or has another key. Give both ends the same.")
    return proof.channel()
