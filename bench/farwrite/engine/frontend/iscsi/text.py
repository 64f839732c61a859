"""iSCSI text (RFC 7143 section 6.1): `key=value` with a zero byte behind each, from bytes that may be anything."""

from __future__ import annotations

import re

TEXT_BYTES_MAX = 64 << 10  # Of one negotiation, over all PDUs that continue it.
PAIRS_MAX = 256
KEY = re.compile(r"[A-Z][A-Za-z0-9.+@_-]{0,62}")
NAME = re.compile(r"(iqn\.[0-9]{4}-[0-9]{2}\.[a-z0-9.:-]{1,210}|(eui|naa)\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{32})")
NUMBER = re.compile(r"[0-9]{1,20}|0[xX][0-9A-Fa-f]{1,16}")


class TextError(ValueError):
    """Bytes that are no text of iSCSI."""


def pairs_of(data: bytes) -> dict[str, str]:
    """Keys and values in their order. TextError for what the grammar or a bound forbids, and for a key that comes twice."""
    if len(data) > TEXT_BYTES_MAX:
        raise TextError(f"a text of {len(data)} bytes, of {TEXT_BYTES_MAX} at most")
    pairs: dict[str, str] = {}
    for piece in data.rstrip(b"\0").split(b"\0"):
        if not piece:
            continue
        try:
            key, equals, value = piece.decode("utf-8").partition("=")
        except UnicodeDecodeError:
            raise TextError("a text that is not UTF-8") from None
        if not equals or not KEY.fullmatch(key):
            raise TextError(f"{piece[:40]!r} is no key=value")
        if key in pairs:
            raise TextError(f"{key} comes twice")
        if len(pairs) == PAIRS_MAX:
            raise TextError(f"more than {PAIRS_MAX} keys")
        pairs[key] = value
    return pairs


def text_of(pairs: dict[str, str] | list[tuple[str, str]]) -> bytes:
    """As `pairs_of` reads it; a list may hold a key several times, as SendTargets' answer does."""
    listed = pairs.items() if isinstance(pairs, dict) else pairs
    return b"".join(f"{key}={value}".encode() + b"\0" for key, value in listed)


def number_of(value: str) -> int | None:
    """A decimal or hexadecimal number; None for anything else."""
    return int(value, 0 if value[:2] in ("0x", "0X") else 10) if NUMBER.fullmatch(value) else None
