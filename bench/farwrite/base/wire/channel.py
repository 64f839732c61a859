"""What a byte becomes on the network: itself, or TLS 1.3 (or itself with a proof: proof.py). None touches a socket; the pump
carries what they answer.

`seal` turns bytes of ours into bytes for the peer, `open` the reverse; `pending` is what TLS wants sent of its own accord, and
`end` says that no more will come. Under TLS an end that was not said is told from one that was.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Protocol

from ..errors import UnfitError
from .identity import context_of, only_certificate
from .terms import Terms

RECORD_BYTES = 16 << 10  # The most that one TLS record holds; RFC 8446 §5.1.
# As many may be sealed by one key of AES-GCM (RFC 8446 §5.5: 2^24.5); Python has no word for a new key on the same connection.
RECORDS_MAX = 23_000_000


class DamagedError(UnfitError):
    """The bytes of the connection are not what the peer's tunnel sends: damaged, forged, or a bomb."""


class Channel(Protocol):
    """One end."""

    ended: bool

    def seal(self, data: bytes | memoryview) -> bytes | memoryview: ...
    def open(self, data: bytes | memoryview) -> bytes: ...
    def pending(self) -> bytes: ...
    def end(self) -> bytes: ...


class Clear:
    """The null form."""

    ended = False

    def seal(self, data: bytes | memoryview) -> bytes | memoryview:
        return data

    def open(self, data: bytes | memoryview) -> bytes:
        return bytes(data)

    def pending(self) -> bytes:
        return b""

    def end(self) -> bytes:
        return b""


class TlsStream:
    """TLS over bytes in memory, by a context; RFC 8446."""

    def __init__(self, context: ssl.SSLContext, dials: bool) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=not dials)
        self.ended = False
        self.sealed = 0  # records

    def shake_hands(self, data: bytes) -> bool:
        """Take what the peer said so far; whether it is done. UnfitError when the two do not agree."""
        self.incoming.write(data)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLCertVerificationError as refusal:
            raise UnfitError(self.unproven(refusal.verify_message)) from refusal
        except ssl.SSLError as refusal:
            raise UnfitError(f"No TLS 1.3 with the peer: {reason_of(refusal)}.") from refusal
        return True

    def unproven(self, reason: str) -> str:
        """The sentence for a certificate that is not taken."""
        return f"The peer's certificate is not signed by the authority that we were given ({reason})."

    def hear(self, data: bytes, size: int) -> bytes:
        """At most `size` bytes of what the peer says, nothing when more must come first; the rest is left to `open`."""
        self.incoming.write(data)
        try:
            return self.tls.read(size)
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLError as refusal:
            raise UnfitError(f"The peer ended the connection: {reason_of(refusal)}.") from refusal

    def seal(self, data: bytes | memoryview) -> bytes:
        """Records that only the peer can open; UnfitError once the key has sealed as many as it may."""
        self.sealed += -(-len(data) // RECORD_BYTES)
        if self.sealed > RECORDS_MAX:
            raise UnfitError(f"The key of this connection has sealed {RECORDS_MAX:,} records, and may no more: connect again.")
        self.tls.write(data)
        return self.outgoing.read()

    def open(self, data: bytes | memoryview) -> bytes:
        """What whole records of the peer say; DamagedError for a record that is not as the peer sealed it.

        What lay before a damaged record in the same breath is not given out either.
        """
        self.incoming.write(data)
        pieces = []
        try:
            while piece := self.tls.read(RECORD_BYTES):
                pieces.append(piece)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as refusal:
            raise DamagedError(f"TLS ended the connection: {reason_of(refusal)}.") from refusal
        return b"".join(pieces)

    def pending(self) -> bytes:
        """An alert or an answer that TLS itself has for the peer."""
        return self.outgoing.read()

    def end(self) -> bytes:
        """close_notify."""
        with contextlib.suppress(ssl.SSLError):  # It would wait for the peer's own, which may never come.
            self.tls.unwrap()
        return self.outgoing.read()


class Tls(TlsStream):
    """TLS 1.3 between two that hold the same key."""

    def __init__(self, terms: Terms, dials: bool) -> None:
        assert terms.identity is not None
        super().__init__(context_of(terms.identity, dials), dials)
        self.only = only_certificate(terms.identity, dials)

    def shake_hands(self, data: bytes) -> bool:
        """As above, and both have proven that they hold the key."""
        if not super().shake_hands(data):
            return False
        if self.only != self.tls.getpeercert(binary_form=True):
            raise UnfitError("The peer's certificate is vouched for, and yet not the one that our key gives.")
        return True

    def unproven(self, reason: str) -> str:
        return (
            f"The peer is not who our key vouches for ({reason}): "
            "it holds another key, or is nobody's replica. Give both ends the same."
        )


def reason_of(refusal: ssl.SSLError) -> str:
    """OpenSSL's reason in plain words; an alert is the peer's."""
    words = (refusal.reason or str(refusal)).lower().replace("_", " ")
    _, alert, alert_name = words.partition("alert ")
    return f"the peer refused ours with the alert {alert_name!r} (another key, or another authority?)" if alert else words
