"""Proof of a shared key without encryption: both ends show that they hold it, and then say everything under a key of this
connection alone.

Each end says a fresh nonce and answers both nonces with HMAC-SHA-256 under a key of its role. Fresh at both ends: what was
recorded proves nothing again. A key for each role: what one end says can never be sent back to it as the other's. The terms and
the purpose are in what is proven, so a proof for one port is none at another. For one machine and its private networks, where
nobody can change the bytes of a connection but everybody may make one; between machines the terms say TLS.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from .channel import DamagedError

NONCE_BYTES = 32
TAG_BYTES = hashlib.sha256().digest_size
SIZE_BYTES = 4
PIECE_BYTES_MAX = 16 << 10
ROLES = ("dials", "answers")


def tag(key: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA-256 of these parts, each with its length, so that no two lists of parts give the same bytes. RFC 2104."""
    made = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        made.update(len(part).to_bytes(8, "little") + part)
    return made.digest()


class KeyProof:
    """One end's half of the proof."""

    def __init__(self, key: bytes, dials: bool, purpose: bytes) -> None:
        self.key, self.purpose = key, purpose
        self.own, self.other = ROLES if dials else ROLES[::-1]
        self.dials = dials
        self.nonce = os.urandom(NONCE_BYTES)
        self.of_connection = b""

    def meet(self, nonce: bytes) -> bytes:
        """Our proof, once the other end's nonce is known."""
        nonces = (self.nonce, nonce) if self.dials else (nonce, self.nonce)
        self.of_connection = tag(self.key, b"farwrite proof 1", self.purpose, *nonces)
        return self.proof_of(self.own)

    def proof_of(self, role: str) -> bytes:
        return tag(self.of_connection, b"proof", role.encode())

    def is_proven_by(self, proof: bytes) -> bool:
        """Whether the other end has shown that it holds the key, on this connection, in its role."""
        return hmac.compare_digest(self.proof_of(self.other), proof)

    def channel(self) -> Keyed:
        """What is said from here on."""
        return Keyed(*(tag(self.of_connection, b"says", role.encode()) for role in (self.own, self.other)))


class Keyed:
    """Readable bytes in numbered pieces, each with proof of who said it on this connection, and as which of its pieces."""

    ended = False  # Nothing says so but the connection's own end.

    def __init__(self, own: bytes, other: bytes) -> None:
        self.own, self.other = own, other
        self.sealed = self.opened = 0  # pieces
        self.waiting = b""

    def seal(self, data: bytes | memoryview) -> bytes:
        pieces = [data[begin : begin + PIECE_BYTES_MAX] for begin in range(0, len(data), PIECE_BYTES_MAX)]
        return b"".join(self.seal_piece(bytes(piece)) for piece in pieces)

    def seal_piece(self, piece: bytes) -> bytes:
        proof = tag(self.own, self.sealed.to_bytes(8, "little"), piece)
        self.sealed += 1
        return len(piece).to_bytes(SIZE_BYTES, "little") + piece + proof

    def open(self, data: bytes | memoryview) -> bytes:
        """What whole pieces say; DamagedError for one that is not the next as the other end said it."""
        self.waiting += data
        pieces = []
        while len(self.waiting) >= SIZE_BYTES:
            size = int.from_bytes(self.waiting[:SIZE_BYTES], "little")
            if not 0 < size <= PIECE_BYTES_MAX:
                raise DamagedError(f"A piece has 1 to {PIECE_BYTES_MAX} bytes, not {size}.")
            end = SIZE_BYTES + size + TAG_BYTES
            if len(self.waiting) < end:
                break
            piece, proof = self.waiting[SIZE_BYTES : SIZE_BYTES + size], self.waiting[SIZE_BYTES + size : end]
            if not hmac.compare_digest(tag(self.other, self.opened.to_bytes(8, "little"), piece), proof):
                raise DamagedError("What was received on this connection is not what the other end sent, or not the next of it.")
            self.opened += 1
            self.waiting = self.waiting[end:]
            pieces.append(piece)
        return b"".join(pieces)

    def pending(self) -> bytes:
        return b""

    def end(self) -> bytes:
        return b""
