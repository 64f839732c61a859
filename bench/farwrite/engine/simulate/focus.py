"""What a story concentrates on: trouble that seldom meets its moment by chance comes there again and again.

Chance alone seldom ends a replica between two certain writes of its disk, damages the one record that matters, or has a record
end where an older one began. A story with a focus draws its cluster and its rates from a mix that leads there, and watches what
its replicas go through: when that changes, the power goes out within the next few operations of the disk, or the primary is
lost or cut off. Drawn apart from the story: one without a focus is as it was.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import journal_kernel as log
from .. import record_kernel as record
from .cluster import DOWN, LARGE, PRIMARY, SECONDARY, SMALL, TINY, Node, Shape

SHARE = 0.4  # Of the stories, those that have a focus.
# Payloads whose records fill a block together: so a record ends where one of an earlier lap, or of a torn batch, has begun.
ALIGNED_SIZES = (448, 448, 960, 1984, 4032)
OPERATIONS_MAX = 8  # Of the disk, after a moment, within which the power goes out.


@dataclass(frozen=True)
class Mix:
    """What a story with this focus draws from, where it differs from others. Empty: as others do."""

    moments: tuple[str, ...]  # kinds of change that are watched, of which a story takes one
    rates: dict[str, float] = field(default_factory=dict)  # of troubles, by tick
    is_voting: bool | None = None
    counts: tuple[int, ...] = ()
    protocols: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = ()
    takes: tuple[tuple[float, float], ...] = ()  # snapshots a turn, and deletions


MIXES = {
    "journals": Mix(
        ("log", "copy"), {"crash": 0.012, "power": 0.012, "flip": 0.5, "cut": 0.02, "heal": 0.03, "depose": 0.012},
        is_voting=False, counts=(2, 2, 3), policies=("consent", "suspend-replication", "block"), shapes=(TINY,),
    ),
    "copies": Mix(
        ("copy", "peers"), {"adversary": 0.2, "crash": 0.008, "power": 0.008, "reset": 0.01, "verify": 0.03, "cut": 0.02},
        counts=(2, 3), shapes=(TINY, SMALL, LARGE, LARGE),
    ),
    "histories": Mix(
        ("copy", "log"), {"cut": 0.03, "heal": 0.03, "depose": 0.03, "crash": 0.004, "power": 0.004, "flip": 0.3},
        counts=(2, 3), protocols=("A", "B", "C", "C"), policies=("suspend-replication", "suspend-replication", "consent"),
        shapes=(TINY,),
    ),
    "votes": Mix(
        ("configuration", "peers"),
        {"cut": 0.03, "heal": 0.03, "depose": 0.03, "crash": 0.008, "hand over": 0.03, "blackhole": 0.01, "witness": 0.02},
        is_voting=True, counts=(2, 3, 3, 4), protocols=("C", "C", "quorum"), policies=("consent",),
    ),
    "snapshots": Mix(
        ("snapshots", "copy"), {"crash": 0.008, "power": 0.012, "flip": 0.3, "cut": 0.01, "heal": 0.03},
        counts=(2, 2, 3), shapes=(TINY, SMALL), takes=((0.2, 0.15), (0.1, 0.3)),
    ),
}  # fmt: skip


class Focus:
    """What one story concentrates on; without a mix, on nothing."""

    def __init__(self, seed: int) -> None:
        self.random = draw = random.Random(f"focus of {seed}")
        self.name = draw.choice(sorted(MIXES)) if draw.random() < SHARE else ""
        self.mix = mix = MIXES.get(self.name)
        self.moment = draw.choice(mix.moments) if mix else ""
        self.chance = draw.choice((0.1, 0.3))
        self.left = draw.choice((4, 12, 30))  # moments that are used
        self.is_aligned = mix is not None and draw.random() < 0.4
        self.before: dict[int, Any] = {}  # by replica: what was watched, after its last turn

    def cluster_of(self, count: int, protocol: str, policy: str) -> tuple[int, str, str]:
        """How many replicas there are, under which protocol and policy; these where the mix says nothing of it."""
        draw, mix = self.random, self.mix
        if mix is None:
            return count, protocol, policy
        count = draw.choice(mix.counts or (count,))
        return count, draw.choice(mix.protocols or (protocol,)), draw.choice(mix.policies or (policy,))

    def shape_of(self, shape: Shape) -> Shape:
        return self.random.choice(self.mix.shapes) if self.mix and self.mix.shapes else shape

    def is_voting(self, drawn: bool) -> bool:
        """Whether votes decide who leads."""
        return drawn if self.mix is None or self.mix.is_voting is None else self.mix.is_voting

    def takes_of(self, takes: tuple[float, float]) -> tuple[float, float]:
        return self.random.choice(self.mix.takes) if self.mix and self.mix.takes else takes

    def rates(self) -> dict[str, float]:
        """Of the troubles that are told otherwise than they were drawn."""
        return self.mix.rates if self.mix else {}

    def power_in(self, drawn: int) -> int:
        """Operations of the disk until the power goes out again while a replica comes back; -1: it does not."""
        if self.mix is None or self.random.random() < 0.6:
            return drawn
        return self.random.randrange(1, self.random.choice((6, 20, 60)))

    def bit_to_flip(self, node: Node, drawn: int) -> int:
        """A bit of a journal: of the header of a record that a replay reads, or of anything between the tail and the end."""
        draw = self.random
        if self.mix is None or draw.random() < 0.3:
            return drawn
        capacity = int(node.cluster.shape.capacity_bytes)
        begin, end = int(node.known.tail), int(node.known.durable)
        places = [position for position in range(begin, end, record.HEADER_BYTES) if is_header_at(node, position % capacity)]
        if not places:
            return drawn
        place = draw.choice(places[-4:] if draw.random() < 0.5 else places)
        bit = 8 * (log.SUPERBLOCK_BYTES + place % capacity)
        first, bits = draw.choice(((8, 8), (8, 64), (0, 512)))
        return bit + (8 * first if bits < 512 else 0) + draw.randrange(bits)

    def bit_of_frame(self, begins: list[int], drawn: int) -> int:
        """A bit of what is under way: of the kind, ordinal or length of a frame."""
        draw = self.random
        if self.mix is None or not begins or draw.random() < 0.5:
            return drawn
        return 8 * (draw.choice(begins) + 8) + draw.randrange(draw.choice((8, 64)))

    def has_come(self, node: Node) -> bool:
        """Whether what is watched of this replica has just changed, and is to be followed by trouble."""
        if self.mix is None or self.left == 0:
            return False
        now = WATCHED[self.moment](node)
        before = self.before.get(node.index)
        self.before[node.index] = now
        if before in (None, now) or now is None or self.random.random() >= self.chance:
            return False
        self.left -= 1
        return True


def is_header_at(node: Node, place: int) -> bool:
    """Whether a record seems to begin at this byte of a journal's ring."""
    begin = log.SUPERBLOCK_BYTES + place
    return bytes(node.world.journal[begin : begin + 4]) == b"FRW1"


# What is watched, by kind: a value that changes with it, None while there is nothing of the kind.


def watched_log(node: Node) -> Any:
    """Checkpoints, and where the log was begun anew."""
    at = node.journal.at[0]
    return None if node.role == DOWN else (int(at.saved), int(at.begun))


def watched_copy(node: Node) -> Any:
    """A copy of extents into this replica."""
    if node.role != SECONDARY:
        return None
    at = node.state.at[0]
    return int(at.synced_count), int(at.extent_count), int(node.journal.at[0].flags)


def watched_snapshots(node: Node) -> Any:
    """The table of snapshots, and whether both superblocks tell of it."""
    snapshots = node.journal.snapshots
    return None if node.role == DOWN else (snapshots.table["state"].tolist(), int(snapshots.at[0].dirty))


def watched_peers(node: Node) -> Any:
    """Whom a primary waits for, and how it brings each up to date."""
    if node.role != PRIMARY:
        return None
    return node.state.peer["detached"].tolist(), np.asarray(node.state.peer["state"]).tolist()


def watched_configuration(node: Node) -> Any:
    """Which configuration a replica knows."""
    return None if node.role == DOWN else node.voter.ballot.age


WATCHED = {
    "log": watched_log, "copy": watched_copy, "snapshots": watched_snapshots, "peers": watched_peers,
    "configuration": watched_configuration,
}  # fmt: skip
