"""Where a primary's peers stand, for people: state, what each still lacks, how fast that is sent, and the time left.

Reads the loop's own numbers while it runs; they may be a turn old, and nothing is decided by them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from . import primary_kernel as primary
from . import resync_kernel as resyncing

STATES = {primary.ABSENT: "absent", primary.LIVE: "live", primary.CATCHING: "catching", primary.RESYNCING: "resyncing"}


@dataclass(frozen=True)
class PeerStatus:
    """One peer, now. `left_s` is None while there is nothing to tell it from."""

    state: str
    detached: bool  # whether writes complete without it
    sent_bytes: int  # since this resync began
    left_bytes: int | None
    bytes_per_s: float | None
    left_s: float | None

    def __str__(self) -> str:
        if self.state in ("live", "absent") or self.left_bytes is None:
            return self.state
        time_left = "" if self.left_s is None else f", {self.left_s:.0f} s left"
        return f"{self.state}: {self.sent_bytes >> 20} MiB sent, {self.left_bytes >> 20} MiB to go{time_left}"


@dataclass(frozen=True)
class ReplicaStatus:
    """One replica of a volume, as the one that leads knows it."""

    name: str
    host: str
    port: int
    vote_port: int
    leads: bool
    is_member: bool  # whether the voters have it as one that holds every write, and may lead
    votes: bool
    lag_writes: int  # laid into the log of who leads, and not known durable here
    peer: PeerStatus | None  # None of who leads, and of one that was added a moment ago

    @property
    def state(self) -> str:
        """What it does, in a word."""
        return "leads" if self.leads else self.peer.state if self.peer is not None else "absent"


def peer_status_of(state: primary.Primary, index: int) -> PeerStatus:
    """Where the peer in this place stands."""
    peer = state.peer[index]
    left = int(resyncing.left_bytes(state, index))
    sent = int(peer.resync_bytes)
    elapsed_s = (time.monotonic_ns() - int(peer.resync_since_ns)) / 1e9
    moving = peer.state in (primary.CATCHING, primary.RESYNCING) and sent > 0 and elapsed_s > 0
    bytes_per_s = sent / elapsed_s if moving else None
    return PeerStatus(
        state=STATES[int(peer.state)],
        detached=bool(peer.detached),
        sent_bytes=sent,
        left_bytes=left if left >= 0 else None,
        bytes_per_s=bytes_per_s,
        left_s=left / bytes_per_s if bytes_per_s else None,
    )
