"""CHAP (RFC 1994, RFC 7143 section 12.1): proof of a secret that both sides hold, without saying it.

`Exchange` is the target's side, pure but for the random bytes that it is given: keys in, keys out, and in the end a name or a
refusal. Where the initiator challenges back (mutual CHAP) the target proves itself with another secret. A challenge that is ours,
or was used on this connection, is refused: its answer would be ours too (RFC 7143 section 12.1.4).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from .text import number_of

CHALLENGE_BYTES = 32
BINARY_BYTES_MAX = 1024  # RFC 7143 section 12.1.3.
SECRET_BYTES_MIN = 12  # 96 bits: what RFC 7143 section 9.2.1 asks for.

# CHAP_A: the registry of IANA, "PPP Authentication Algorithms". SHA-1 (6) is left out; MD5 is what older initiators know.
DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "7": lambda data: hashlib.sha256(data).digest(),
    "5": lambda data: hashlib.md5(data, usedforsecurity=False).digest(),
    "8": lambda data: hashlib.sha3_256(data).digest(),
}


class ChapError(Exception):
    """The initiator has not proven itself; the sentence is for our log, the initiator hears a status only."""


@dataclass(frozen=True)
class Credentials:
    """Who may come in, and as whom we prove ourselves when asked to."""

    secrets: dict[str, bytes] = field(repr=False)  # by the initiator's CHAP name
    own_name: str = ""
    own_secret: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        for secret in (*self.secrets.values(), *([self.own_secret] if self.own_secret else [])):
            if len(secret) < SECRET_BYTES_MIN:
                raise ValueError(f"a CHAP secret of {len(secret)} bytes: give it {SECRET_BYTES_MIN} at least")
        if self.own_secret and self.own_secret in self.secrets.values():
            raise ValueError("the target's CHAP secret is an initiator's as well: give each its own")


def binary_of(value: str) -> bytes | None:
    """What `0x...` (hexadecimal) or `0b...` (base64) stands for; None for anything else, nothing, or too much."""
    if len(value) > 2 * BINARY_BYTES_MAX + 2:
        return None
    try:
        if value[:2] in ("0x", "0X"):
            digits = value[2:]
            data = bytes.fromhex(digits.zfill(len(digits) + len(digits) % 2)) if digits.isalnum() else b""
        elif value[:2] in ("0b", "0B"):
            data = base64.b64decode(value[2:], validate=True)
        else:
            return None
    except (ValueError, binascii.Error):
        return None
    return data if 0 < len(data) <= BINARY_BYTES_MAX else None


def response_of(algorithm: str, identifier: int, secret: bytes, challenge: bytes) -> bytes:
    """CHAP_R: the digest over identifier, secret and challenge."""
    return DIGESTS[algorithm](bytes([identifier]) + secret + challenge)


class Exchange:
    """One connection's: `step` answers the keys of one request; `name` is whose secret was proven, None until then."""

    def __init__(self, credentials: Credentials, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self.credentials, self.random = credentials, random
        self.algorithm = ""
        self.identifier, self.challenge = 0, b""
        self.name: str | None = None

    def step(self, keys: dict[str, str]) -> dict[str, str]:
        """ChapError when the initiator cannot be who it says, or does not keep to the steps."""
        if self.name is not None:
            raise ChapError("it goes on proving itself after it has")
        if "CHAP_A" in keys:
            return self.begin(keys["CHAP_A"])
        if {"CHAP_N", "CHAP_R"} <= keys.keys():
            return self.judge(keys)
        raise ChapError("it sends neither CHAP_A nor CHAP_N and CHAP_R")

    def begin(self, offered: str) -> dict[str, str]:
        """Choose the first of the algorithms offered that we know, and challenge."""
        if self.algorithm:
            raise ChapError("it offers algorithms twice")
        known = [one for one in offered.split(",") if one in DIGESTS]
        if not known:
            raise ChapError(f"of its algorithms, {offered[:40]!r}, we know none")
        self.algorithm = known[0]
        self.identifier, self.challenge = self.random(1)[0], self.random(CHALLENGE_BYTES)
        return {"CHAP_A": self.algorithm, "CHAP_I": str(self.identifier), "CHAP_C": "0x" + self.challenge.hex()}

    def judge(self, keys: dict[str, str]) -> dict[str, str]:
        """Whether its response is right; our own, where it asks for one."""
        if not self.algorithm:
            raise ChapError("it responds before it was challenged")
        name, response = keys["CHAP_N"], binary_of(keys["CHAP_R"])
        secret = self.credentials.secrets.get(name)
        # An unknown name costs the same digest, so that time does not tell which names there are.
        right = response_of(self.algorithm, self.identifier, secret or bytes(SECRET_BYTES_MIN), self.challenge)
        if not hmac.compare_digest(response or b"", right) or secret is None:
            raise ChapError("its name and response do not belong to a secret of ours")
        answer = self.prove(keys) if "CHAP_I" in keys or "CHAP_C" in keys else {}
        self.name = name
        return answer

    def prove(self, keys: dict[str, str]) -> dict[str, str]:
        """Our own response to the initiator's challenge."""
        identifier, challenge = number_of(keys.get("CHAP_I", "")), binary_of(keys.get("CHAP_C", ""))
        if identifier is None or identifier > 255 or challenge is None:
            raise ChapError("its challenge is none")
        if not self.credentials.own_secret:
            raise ChapError("it asks us to prove ourselves, and we were given no secret for that")
        if hmac.compare_digest(challenge, self.challenge):
            raise ChapError("it challenges us with our own challenge")
        response = response_of(self.algorithm, identifier, self.credentials.own_secret, challenge)
        return {"CHAP_N": self.credentials.own_name, "CHAP_R": "0x" + response.hex()}
