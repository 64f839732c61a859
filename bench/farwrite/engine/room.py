"""Room as a pool shares it out: who may take how much, so that no byte of a node is promised to two volumes at once.

A volume may be written as far as its *limit* (room_kernel.Count.limit), which the replica that leads holds to before it takes
a write. What its snapshots keep comes on top: it takes room of its node, and none of the limit, so no snapshot ever refuses a
write. The `Ledger` of a pool raises limits in *grants* from what is free on every node that has a replica of the volume,
before the volume needs them: what was granted is set aside on each of these nodes, used or not. A *reserved* volume is granted
its whole size at once. The ledger is arithmetic in memory: nothing of it is kept, for what a volume takes is counted by its
replicas, and limits follow from that and from what is free.

    ledger = Ledger()
    ledger.add_node("a", 10 << 30)                                # likewise "b"
    ledger.add_volume("old", ("a", "b"), 1 << 40, used=counted)   # what was there before, as its replicas have counted it
    limits = ledger.open()                                        # nothing is granted before all that is used is known
    limits = ledger.add_volume("new", ("a", "b"), 100 << 30)      # by volume: what changed, to be written to the boards
    limits = ledger.note("new", {"a": used_a, "b": used_b}, limit)  # now and then; limit: as it stands on the leader's board

Lowering a limit frees nothing before it is certain that nobody writes up to the old one: two notes that tell the new one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..base.errors import UnfitError, UsageError
from ..base.units import format_size

STEP_BYTES = 64 << 20  # Of a grant: a second of 64 MB/s, and 1/16 000 of a TiB that may lie idle.
EXTENT_BYTES = 64 << 10
WARN_RATIO = 0.8  # Of a node; lvmthin(7) has dmeventd warn from there on.
SAMPLES, SAMPLE_NS, RATE_NS_MIN = 32, 1_000_000_000, 10_000_000_000
NOT_ONE = 1  # A limit that lets no extent be taken: 0 would be none.


def whole_extents(size: int) -> int:
    """This many bytes, and what is missing to a whole number of extents."""
    return -(-size // EXTENT_BYTES) * EXTENT_BYTES


@dataclass(frozen=True)
class NodeRoom:
    """How one node stands. Bytes."""

    name: str
    size: int
    used: int  # what its replicas take
    set_aside: int  # granted to its volumes, what they use included
    promised: int  # sizes of its volumes
    is_short: bool  # used is above the warning level

    @property
    def free(self) -> int:
        """What may still be granted; negative where volumes take more than there is."""
        return self.size - self.set_aside


@dataclass
class Share:
    """What the ledger knows of one volume."""

    nodes: tuple[str, ...]
    size: int
    is_reserved: bool
    is_served: bool = True  # somebody may write to it
    limit: int = 0
    held: int = 0  # what it may still write up to: the limit, or one before it that was lowered lately
    confirmed: int = 0  # notes that told the limit since it was lowered
    lowered_to: int = 0  # what it had left then
    used: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)  # for snapshots

    @property
    def left(self) -> int:
        """What it may still take."""
        return self.limit - max(self.used.values())

    @property
    def is_granted(self) -> bool:
        """Whether its limit is raised as it is written."""
        return self.is_served and not self.is_reserved

    def note(self, used: Mapping[str, int], kept: Mapping[str, int] | None = None) -> None:
        """What it takes now, and what its snapshots keep; nodes that it is not on are passed over."""
        self.used |= {node: int(size) for node, size in used.items() if node in self.nodes}
        self.kept |= {node: int(size) for node, size in (kept or {}).items() if node in self.nodes}

    def taken(self, node: str) -> int:
        """Bytes that it and its snapshots take of a node."""
        return self.used.get(node, 0) + self.kept.get(node, 0)

    def granted(self, node: str) -> int:
        """Bytes of a node that it may come to take by writes."""
        return max(self.limit, self.held, self.used.get(node, 0))

    def charge(self, node: str) -> int:
        """Bytes that are set aside for it on a node."""
        return self.granted(node) + self.kept.get(node, 0)


class Ledger:
    """Nodes with room, and volumes that were granted some. One thread uses it."""

    def __init__(self, step_bytes: int = STEP_BYTES, warn_ratio: float = WARN_RATIO) -> None:
        if step_bytes <= 0 or step_bytes % EXTENT_BYTES:
            raise UsageError(f"a grant of {step_bytes} bytes: it must be a multiple of {EXTENT_BYTES}.")
        self.step_bytes, self.warn_ratio = step_bytes, warn_ratio
        self.is_open = False
        self.sizes: dict[str, int] = {}
        self.shares: dict[str, Share] = {}
        self.samples: deque[tuple[int, int]] = deque(maxlen=SAMPLES)  # when, and what was used in all

    def open(self) -> dict[str, int]:
        """All nodes and volumes that there were are added: begin to grant. Answers every volume's limit."""
        self.is_open = True
        self.grant()
        return {name: self.limit_of(name) for name in self.shares}

    # Nodes

    def add_node(self, name: str, size: int) -> dict[str, int]:
        """A node of which the pool may use so many bytes. Answers the limits that have changed."""
        if name in self.sizes:
            raise UsageError(f"There is a node {name} already.")
        self.sizes[name] = size
        return self.grant()

    def resize_node(self, name: str, size: int) -> dict[str, int]:
        """The node has more room, or less. Less than is set aside takes back what is granted and not used."""
        is_less = size < self.size_of(name)
        self.sizes[name] = size
        return (self.take_back([name], 0) if is_less and self.room_of(name).free < 0 else {}) | self.grant()

    def remove_node(self, name: str) -> None:
        """The node is gone. UsageError while a volume has a replica there."""
        self.size_of(name)
        if holders := [volume for volume, share in self.shares.items() if name in share.nodes]:
            raise UsageError(f"Node {name} has replicas of {', '.join(sorted(holders))}: move them first.")
        del self.sizes[name]

    # Volumes

    def add_volume(
        self, name: str, nodes: Sequence[str], size: int, reserved: bool = False, used: Mapping[str, int] | None = None,
        is_served: bool = True, kept: Mapping[str, int] | None = None,
    ) -> dict[str, int]:  # fmt: skip
        """A volume with a replica on each of these nodes; `used`, `kept`: what it and its snapshots take there already, when a
        pool is opened.

        UnfitError when a reserved one does not fit, before anything changes. Answers the limits that have changed.
        """
        if name in self.shares:
            raise UsageError(f"There is a volume {name} already.")
        if not nodes or len(set(nodes)) != len(nodes) or size <= 0:
            raise UsageError(f"Volume {name} needs a size and nodes, each once.")
        for node in nodes:
            self.size_of(node)
        taken = {node: int((used or {}).get(node, 0)) for node in nodes}
        share = Share(tuple(nodes), size, reserved, is_served, used=taken)
        share.note({}, kept)
        at_least = whole_extents(size) if reserved else 0
        if self.is_open:
            self.require(share, at_least, name)
        share.limit = share.held = max(at_least, whole_extents(max(share.used.values())))
        self.shares[name] = share
        return {name: self.limit_of(name)} | self.grant()

    def remove_volume(self, name: str) -> dict[str, int]:
        """The volume is deleted: what was set aside for it is free."""
        self.share_of(name)
        del self.shares[name]
        return self.grant()

    def set_served(self, name: str, is_served: bool, used: Mapping[str, int] | None = None) -> dict[str, int]:
        """Whether the volume's replicas run. A thin one of which none does holds no room beyond what it takes: `used`, now that
        nobody writes to it any more."""
        share = self.share_of(name)
        if share.is_served == is_served:
            return {}
        share.is_served = is_served
        share.note(used or {})
        if not share.is_granted and not share.is_reserved:
            share.limit = share.held = whole_extents(max(share.used.values()))
            share.confirmed = 0
        return {name: self.limit_of(name)} | self.grant()

    def resize_volume(self, name: str, size: int) -> dict[str, int]:
        """The volume is larger; UnfitError when a reserved one would not fit. Smaller ones are not made."""
        share = self.share_of(name)
        if size < share.size:
            raise UsageError(f"Volume {name} has {format_size(share.size)}, and cannot be made smaller here.")
        limit = max(share.limit, whole_extents(size)) if share.is_reserved else share.limit
        for node in share.nodes:
            if limit - share.limit > self.growth(share, node) and limit > share.limit:
                raise UnfitError(f"Volume {name} cannot be reserved with {format_size(size)}: node {node} has not so much free.")
        changed = {name: max(limit, NOT_ONE)} if limit != share.limit else {}
        share.size, share.limit, share.held = size, limit, max(share.held, limit)
        return changed | self.grant()

    def set_nodes(self, name: str, nodes: Sequence[str], used: Mapping[str, int] | None = None) -> dict[str, int]:
        """The volume's replicas are on these nodes. UnfitError when what was granted does not fit on a new one."""
        share = self.share_of(name)
        if not nodes or len(set(nodes)) != len(nodes):
            raise UsageError(f"Volume {name} needs nodes, each once.")
        for node in nodes:
            if node not in share.nodes and self.room_of(node).free < share.charge(node):
                raise UnfitError(f"Volume {name} takes {format_size(share.charge(node))}, which node {node} has not free.")
        share.nodes = tuple(nodes)
        share.used = {node: int((used or {}).get(node, share.used.get(node, 0))) for node in nodes}
        share.kept = {node: share.kept.get(node, 0) for node in nodes}
        return self.grant()

    # Grants

    def note(
        self, name: str, used: Mapping[str, int], limit: int | None = None, now_ns: int = 0, kept: Mapping[str, int] | None = None
    ) -> dict[str, int]:
        """What the volume takes on its nodes now, the limit that the replica that leads holds to (None: not known), and what its
        snapshots keep.

        Answers the limits that have changed, of whichever volume: they are to be written to the boards of all its replicas.
        """
        share = self.share_of(name)
        share.note(used, kept)
        if share.held != share.limit and limit is not None:
            share.confirmed = share.confirmed + 1 if limit == self.limit_of(name) else 0
            if share.confirmed > 1:
                share.held = share.limit
        if now_ns and (not self.samples or now_ns - self.samples[-1][0] >= SAMPLE_NS):
            self.samples.append((now_ns, sum(max(map(one.taken, one.nodes)) for one in self.shares.values())))
        return self.even_out() | self.grant()

    def grant(self) -> dict[str, int]:
        """Raise the limit of whoever has less than a step left, as long as all its nodes have room. Who has least comes first."""
        changed: dict[str, int] = {}
        while self.is_open:
            least = sorted(self.shares.items(), key=lambda one: (one[1].left, one[0]))
            for name, share in least:
                if not share.is_served:
                    continue
                most, left = whole_extents(share.size), share.left
                step = min(self.step_bytes, most - share.limit, *(self.growth(share, node) for node in share.nodes))
                step = step // EXTENT_BYTES * EXTENT_BYTES
                if left < self.step_bytes and step > 0:
                    share.limit += step
                    share.held = max(share.held, share.limit)
                    changed[name] = self.limit_of(name)
                    break
            else:
                break
        return changed

    def even_out(self) -> dict[str, int]:
        """Where a node has nothing to grant, take back from those that have more left than an even share, if another there has
        less than half of that: what is granted and not written must not keep a writer waiting."""
        changed: dict[str, int] = {}
        for node in self.sizes:
            here = {name: share for name, share in self.shares.items() if node in share.nodes and share.is_granted}
            if not here or self.room_of(node).free >= EXTENT_BYTES:
                continue
            fair = sum(max(share.left, 0) for share in here.values()) // len(here)
            fair = min(fair, self.step_bytes) // EXTENT_BYTES * EXTENT_BYTES
            if all(share.left >= fair // 2 or share.limit >= whole_extents(share.size) for share in here.values()):
                continue
            for name, share in here.items():
                if share.held == share.limit and share.left > fair:  # One at a time: what was taken back is on its way.
                    changed |= self.lower(name, share, fair)
        return changed

    def growth(self, share: Share, node: str) -> int:
        """How far the limit of a volume may be raised by what its node has free, and by what was taken back from it lately if it
        has written half of the rest."""
        gives = share.held > share.limit and share.left >= share.lowered_to // 2
        own = max(share.limit, share.used.get(node, 0)) if gives else share.granted(node)
        return self.room_of(node).free + own - share.limit

    def may_be_granted(self, name: str) -> bool:
        """Whether a volume that needs more is to wait for it: on each of its nodes there is room that nobody has written, even if
        others have to give it back first, and more of it than they keep."""
        share = self.share_of(name)
        return share.is_granted and all(self.unwritten(node) > 0 for node in share.nodes)

    def unwritten(self, node: str) -> int:
        """Bytes of a node that no volume has written and none has reserved, without two extents for each."""
        here = [share for share in self.shares.values() if node in share.nodes]
        taken = sum(share.charge(node) if share.is_reserved else share.taken(node) for share in here)
        return self.size_of(node) - taken - 2 * EXTENT_BYTES * len(here)

    def reclaim(self) -> dict[str, int]:
        """Lower the limits of thin volumes that have more than two steps left, so that others may be granted it."""
        return self.take_back(self.sizes, 2 * self.step_bytes)

    def take_back(self, nodes: Sequence[str] | Mapping[str, int], left: int | None = None) -> dict[str, int]:
        """Lower the limits of thin volumes on these nodes: to what they use and `left`; a step unless said."""
        changed: dict[str, int] = {}
        for name, share in self.shares.items():
            if share.is_reserved or not any(node in share.nodes for node in nodes):
                continue
            changed |= self.lower(name, share, self.step_bytes if left is None else left)
        return changed

    def lower(self, name: str, share: Share, left: int) -> dict[str, int]:
        """Lower a volume's limit to what it uses and `left`, if that is less. Answers what has changed."""
        wanted = whole_extents(max(share.used.values()) + left)
        if wanted >= share.limit:
            return {}
        share.held, share.confirmed, share.limit, share.lowered_to = max(share.held, share.limit), 0, wanted, left
        return {name: self.limit_of(name)}

    # What there is

    def room_of(self, node: str) -> NodeRoom:
        """How a node stands."""
        size, here = self.size_of(node), [share for share in self.shares.values() if node in share.nodes]
        used = sum(share.taken(node) for share in here)
        return NodeRoom(
            node, size, used, sum(share.charge(node) for share in here), sum(share.size for share in here),
            used > size * self.warn_ratio,
        )  # fmt: skip

    def rooms(self) -> list[NodeRoom]:
        """How every node stands, by name."""
        return [self.room_of(node) for node in sorted(self.sizes)]

    def pool(self) -> NodeRoom:
        """All nodes together. A volume counts on each node that it is on."""
        rooms = self.rooms()
        return NodeRoom(
            "pool", sum(one.size for one in rooms), sum(one.used for one in rooms), sum(one.set_aside for one in rooms),
            sum(one.promised for one in rooms), any(one.is_short for one in rooms),
        )  # fmt: skip

    def limit_of(self, name: str) -> int:
        """What is to stand as limit on the boards of a volume's replicas."""
        return max(self.share_of(name).limit, NOT_ONE)

    def warn_of(self, name: str) -> int:
        """What is to stand as warn there: 1, so that it is said, while one of its nodes is above the level and it is thin."""
        share = self.share_of(name)
        return int(not share.is_reserved and any(self.room_of(node).is_short for node in share.nodes))

    def full_in_ns(self) -> int | None:
        """Until the first node is full if all goes on as in the notes of late; None while nothing grows, or little is known."""
        if len(self.samples) < 2:
            return None
        (first_ns, first), (last_ns, last) = self.samples[0], self.samples[-1]
        if last_ns - first_ns < RATE_NS_MIN or last <= first:
            return None
        left = min((one.size - one.used for one in self.rooms()), default=0)
        return max(left, 0) * (last_ns - first_ns) // (last - first)

    # Inside

    def size_of(self, node: str) -> int:
        if node not in self.sizes:
            raise UsageError(f"There is no node {node}.")
        return self.sizes[node]

    def share_of(self, name: str) -> Share:
        if name not in self.shares:
            raise UsageError(f"There is no volume {name}.")
        return self.shares[name]

    def require(self, share: Share, limit: int, name: str) -> None:
        """UnfitError when a volume that is not in the ledger yet cannot be granted so much."""
        for node in share.nodes if share.is_reserved else ():
            if (free := self.room_of(node).free) < limit:
                raise UnfitError(
                    f"Volume {name} is to be reserved and takes {format_size(limit)}; node {node} has "
                    f"{format_size(max(free, 0))} that is not set aside for others. Make it smaller or thin, or add a node."
                )


def is_above_level(count: Any) -> bool:
    """Whether the volume takes more than its warning level."""
    return 0 < int(count["warn"]) < int(count["allocated"])


class RoomLevel:
    """Says once when a volume passes its warning level, and once when it refuses writes for lack of room."""

    def __init__(self) -> None:
        self.is_warned = False
        self.refused = 0
        self.is_full = False

    def news(self, count: Any) -> str:
        """A sentence when there is something new in a room_kernel.Count; empty otherwise."""
        used, limit, warn, refused = (int(count[name]) for name in ("allocated", "limit", "warn", "refused"))
        was_warned, had_refused, was_full = self.is_warned, self.refused, self.is_full
        self.is_warned, self.refused = is_above_level(count), refused
        self.is_full = refused > had_refused or (was_full and bool(limit) and used + EXTENT_BYTES > limit)
        if self.is_full and not was_full:
            return (
                f"the volume takes {format_size(used)} of the {format_size(limit)} that it may, and writes that need more are "
                "refused; what is there can be read, written over and trimmed. Trim, or allow it more."
            )
        if self.is_warned and not was_warned:
            most = f" of {format_size(limit)}" if limit else ""
            return f"the volume takes {format_size(used)}{most}, which is above its warning level of {format_size(warn)}."
        return ""
