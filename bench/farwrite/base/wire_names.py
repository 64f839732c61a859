"""Encryption and compression of a replica's bytes on the wire, by the names that profiles and recordings use."""

from __future__ import annotations

from typing import Literal

EncryptionName = Literal["none", "tls"]
CompressionName = Literal["none", "zstd", "lz4"]
