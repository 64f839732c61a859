"""How a striped volume is cut into chunks, and where each lies: numbers that the pool's document and the router share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

CHUNK_BYTES = 64 << 20  # Of a volume that lie in one group, unless said.
CHUNK_BYTES_MIN = 64 << 10
GROUPS_MAX = 16
CHUNKS_MAX = 1 << 18  # 16 TiB of 64 MiB.


class Map(NamedTuple):
    """Which chunk is where."""

    version: int
    chunk_bytes: int
    home: np.ndarray  # by chunk: its group
    seat: np.ndarray  # by chunk: which chunk of that group's volume it is


def map_of(size_bytes: int, chunk_bytes: int, groups: int, version: int = 1) -> Map:
    """Chunks dealt out to the groups in turn."""
    chunks = np.arange(-(-size_bytes // chunk_bytes))
    return Map(version, chunk_bytes, chunks % groups, chunks // groups)


def member_bytes(size_bytes: int, chunk_bytes: int, groups: int) -> int:
    """How large the volume of each group must be: whole chunks, as many for each."""
    return -(-size_bytes // (chunk_bytes * groups)) * chunk_bytes
