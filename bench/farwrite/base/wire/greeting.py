"""The first bytes on a connection with a tunnel: each end says its terms in 64 readable bytes, and hears the other's.

64, because that is what a replica without a tunnel reads before it judges a peer: so both kinds know each other at once and
part with a sentence, instead of waiting for more. What is said here is not trusted: under TLS it is said again, inside.
"""

from __future__ import annotations

from ..errors import UnfitError
from .terms import Terms

GREETING_BYTES = 64
VERSION = 1
TUNNEL = b"farwrite-wire/"
REPLICA = b"FRW"  # The magic of a record without its version; engine.record_kernel.
TLS_RECORDS = (b"\x16\x03", b"\x15\x03")  # A handshake, an alert; RFC 8446 §5.1.


def greeting_of(terms: Terms) -> bytes:
    """What an end with these terms says."""
    return f"farwrite-wire/{VERSION} {terms.text}\n".encode().ljust(GREETING_BYTES)


def refuse_unlike(heard: bytes, terms: Terms) -> None:
    """UnfitError unless the peer's greeting is ours."""
    if heard == greeting_of(terms):
        return
    if not heard.startswith(TUNNEL):
        plain = "The peer is a replica that neither encrypts nor compresses its connection."
        other = "What the peer sent is no greeting; it is not a replica of ours."
        known = plain if heard.startswith(REPLICA) else stranger(heard) or other
        raise UnfitError(f"{known} This end demands {terms.text!r}.")
    version, demands = demands_of(heard)
    if version != str(VERSION):
        raise UnfitError(f"The peer's tunnel has version {version!r}, ours {VERSION}. Bring both to one version.")
    raise UnfitError(f"The peer demands {demands!r}, we {terms.text!r}. Give both ends the same encryption and compression.")


def demands_of(greeting: bytes) -> tuple[str, str]:
    """(version, terms) that a tunnel's greeting tells, whatever they are."""
    version, _, demands = greeting.decode(errors="replace").rstrip().removeprefix(TUNNEL.decode()).partition(" ")
    return version, demands


def stranger(heard: bytes) -> str | None:
    """Who begins like this and is no plain replica, as a sentence; None when it is none that we know."""
    if heard.startswith(TUNNEL):
        _, demands = demands_of(heard[:GREETING_BYTES])
        return f"The peer encrypts or compresses its connection ({demands!r}), and this end does not. Give both ends the same."
    if heard.startswith(TLS_RECORDS):
        return "The peer speaks TLS of its own, without the greeting of our tunnel."
    return None
