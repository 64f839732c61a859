"""The replication protocols by name, and what a write of each waits for.

The names are DRBD's (drbdsetup(8), "protocol"); C2 is C as plain SCSI does it, command, ready, data, status; quorum completes
when W replicas are durable, the primary among them. Numbers and machine code are the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

ProtocolName = Literal["local", "A", "B", "C", "C2", "quorum"]
NAMES: tuple[ProtocolName, ...] = get_args(ProtocolName)  # The weakest promise first; the order of reports.


class Promise(NamedTuple):
    """What stands when a write completes. Under every protocol it is durable at its primary."""

    trips: int  # round trips it has waited for
    durable_there: bool  # whether it is durable at the peers that were asked for


PROMISES: dict[str, Promise] = {
    "local": Promise(0, False), "A": Promise(0, False), "B": Promise(1, False), "C": Promise(1, True), "C2": Promise(2, True),
    "quorum": Promise(1, True),
}  # fmt: skip

# What these complete stays, whichever one site is lost; what local completes stays on its own disk. A and B promise less.
DURABLE = frozenset(name for name in NAMES if PROMISES[name].durable_there or name == "local")


def majority(replicas: int) -> int:
    """The least number of replicas of which any two such groups have one in common."""
    return replicas // 2 + 1


def asked_peer(protocol: str, quorum: int, rtt_ns: Sequence[float]) -> int:
    """Which of the peers, by their round trips, a write waits for last: the furthest, or the (W - 1)-th nearest of a quorum."""
    nearest_first = sorted(range(len(rtt_ns)), key=lambda index: rtt_ns[index])
    return nearest_first[quorum - 2] if protocol == "quorum" else nearest_first[-1]
