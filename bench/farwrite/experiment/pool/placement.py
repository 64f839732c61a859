"""Where copies are put: decisions on a pool's document and what its nodes have free, without touching either.

Never two copies of a volume on one node. Copies are spread over sites first, so that each site of the pool has one where the
level gives as many; then they go where the least of the room would be promised. A copy is as heavy as its volume's size: what a
thin volume was promised is what it may come to take. A volume that is reserved, or what is written already, must fit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from ...base.errors import UsageError
from ...base.units import format_size
from .document import Copy, Document, StorageNode, Volume

JOURNAL_BYTES = 64 << 20  # Of each copy, beside the volume's own bytes.
WORTH = 0.01  # Of a node's capacity: what a balance must even out for a copy to be moved.


@dataclass(frozen=True)
class Room:
    """What a node has."""

    capacity_bytes: int
    taken_bytes: int  # by what is written, and by what is set aside for reserved volumes
    promised_bytes: int  # the sizes of all its volumes

    @property
    def free_bytes(self) -> int:
        return max(self.capacity_bytes - self.taken_bytes, 0)


class Move(NamedTuple):
    """A copy that is to go from one node to another, or to lead where it lies."""

    volume: str
    replica: str
    to: str
    leads: bool = False  # it stays, and leads
    why: str = ""  # the figures


Allocated = Mapping[tuple[str, str], int]  # Bytes by (volume, node), as its files take them; absent: nothing is known of it.


def taken_by(volume: Volume, allocated_bytes: int) -> int:
    """What a copy takes of its node's room."""
    return max(allocated_bytes, volume.full_bytes if volume.is_reserved else 0) + JOURNAL_BYTES


def room_of(document: Document, allocated: Allocated) -> dict[str, Room]:
    """By node. A copy that is on its way there counts already, and one that leaves still does."""
    found = {}
    for node in document.nodes:
        there = document.copies_on(node.name)
        taken = sum(taken_by(volume, allocated.get((volume.name, node.name), 0)) for volume, _ in there)
        found[node.name] = Room(node.capacity_bytes, taken, sum(volume.size_bytes for volume, _ in there))
    return found


def place(document: Document, volume: Volume, count: int, allocated: Allocated, avoid: Sequence[str] = ()) -> list[str]:
    """Nodes for `count` more copies of a volume, the best first; what leaves does not count as a copy.

    UsageError where its level cannot be given, naming what is missing.
    """
    staying = [copy for copy in volume.copies if copy.state not in ("leaving", "removing") and copy.node not in avoid]
    nodes = {node.name: node for node in document.nodes}
    room = room_of(document, allocated)
    largest = max((allocated.get((volume.name, copy.node), 0) for copy in volume.copies), default=0)
    needed = taken_by(volume, largest)
    sites = [nodes[copy.node].site for copy in staying]
    used = {copy.node for copy in volume.copies}
    chosen: list[str] = []
    for _ in range(count):
        may = [
            node for node in document.nodes
            if node.name not in used and node.name not in avoid and not node.is_leaving and room[node.name].free_bytes >= needed
        ]  # fmt: skip
        if not may:
            raise UsageError(why_not(document, volume, len(staying) + count, needed, room, avoid, used))
        best = min(may, key=lambda node: (sites.count(node.site), ratio_with(room[node.name], volume), node.name))
        chosen.append(best.name)
        used.add(best.name)
        sites.append(best.site)
    check_sites(document, volume, sites, avoid)
    return chosen


def ratio_with(room: Room, volume: Volume) -> float:
    """How much of a node would be promised with this volume on it."""
    return (room.promised_bytes + volume.size_bytes) / room.capacity_bytes


def check_sites(document: Document, volume: Volume, sites: Sequence[str], avoid: Sequence[str] = ()) -> None:
    """UsageError where a site of the pool would have no copy though the level gives as many."""
    of_pool = [
        site for site in document.sites()
        if any(node.site == site and node.name not in avoid and not node.is_leaving for node in document.nodes)
    ]  # fmt: skip
    bare = [site for site in of_pool if site not in sites]
    if bare and len(set(sites)) < min(len(sites), len(of_pool)):
        raise UsageError(
            f"Volume {volume.name} has {len(sites)} copies at level {volume.level}, and site {bare[0]} would have none: no "
            "node there has room for one. Add a node there, or free room."
        )


def why_not(
    document: Document, volume: Volume, copies: int, needed_bytes: int, room: Mapping[str, Room], avoid: Sequence[str],
    used: Collection[str],
) -> str:  # fmt: skip
    """The sentence for a level that cannot be given."""
    able = [node for node in document.nodes if not node.is_leaving and node.name not in avoid]
    if len(able) < copies:
        return (
            f"Volume {volume.name} at level {volume.level} needs {copies} nodes, a copy on each, and the pool "
            f"{document.name} has {len(able)} for it: add nodes with farwrite pool add, or choose a lower --level."
        )
    widest = max((room[node.name].free_bytes for node in able if node.name not in used), default=0)
    return (
        f"Volume {volume.name} at level {volume.level} needs {format_size(needed_bytes)} on each of {copies} nodes, and the next "
        f"one has {format_size(widest)} free: add a node with farwrite pool add, or give back room."
    )


def may_begin(volume: Volume, under_way: Iterable[Volume], leads_on: Mapping[str, str]) -> bool:
    """Whether the copy that this volume waits for may be brought up to date now: a node gives or takes one at a time, so that who
    writes beside it has one of them to wait for. `under_way`: volumes of which one is being brought up to date; `leads_on`: the
    node whose copy leads, which gives it, by volume."""

    def nodes_of(one: Volume, state: str) -> set[str]:
        there = {copy.node for copy in one.copies if copy.state == state}
        return there | {leads_on[one.name]} if there and one.name in leads_on else there

    mine = nodes_of(volume, "making")
    return not any(mine & nodes_of(other, "joining") for other in under_way if other is not volume)


# Moving what is there


def plan_drain(document: Document, name: str, allocated: Allocated) -> list[Move]:
    """Where each copy of a node goes, so that it can be let go. UsageError where one has nowhere to go."""
    moves: list[Move] = []
    after = copied(document)
    after.node(name).is_leaving = True
    for volume in after.volumes:
        copy = volume.copy_on(name)
        if copy is None or copy.state in ("leaving", "removing") or volume.state == "deleting":
            continue
        try:
            (to,) = place(after, volume, 1, allocated, avoid=[name])
        except UsageError as refusal:
            raise UsageError(
                f"Node {name} cannot be removed: it holds a copy of volume {volume.name}, which would lose its level. {refusal}"
            ) from refusal
        nodes = {node.name: node.site for node in after.nodes}
        sites = {nodes[one.node] for one in volume.copies}
        if len({nodes[one.node] for one in volume.copies if one is not copy} | {nodes[to]}) < len(sites):
            raise UsageError(
                f"Node {name} cannot be removed: volume {volume.name} would have no copy at site {nodes[name]}. Add another node "
                "there first, or lower its level with farwrite volume set-level."
            )
        moves.append(Move(volume.name, copy.replica, to))
        apply(after, moves[-1])
    return moves


def plan_balance(document: Document, allocated: Allocated) -> list[Move]:
    """Moves after which no further one is worth its while for evening out what each node has promised; each copy once at most.

    From the fullest node to the emptiest, as long as a copy may go that way; then between the next two.
    """
    after, moves = copied(document), []
    moved: set[tuple[str, str]] = set()
    while (move := best_move(after, allocated, moved)) is not None:
        moves.append(move._replace(why=promises_text(after, move, allocated)))
        moved.add((move.volume, apply(after, move)))
    return moves


def promises_text(document: Document, move: Move, allocated: Allocated) -> str:
    """How full the two nodes of a move are by what they have promised, before and after it."""
    volume = document.volume(move.volume)
    copy = volume.copy_named(move.replica)
    assert copy is not None
    room = room_of(document, allocated)
    words = []
    for name, more in ((copy.node, -volume.size_bytes), (move.to, volume.size_bytes)):
        before, whole = room[name].promised_bytes, room[name].capacity_bytes
        words.append(f"{name} {before / whole:.0%} -> {(before + more) / whole:.0%}")
    return f"{format_size(volume.size_bytes)}; promised: {', '.join(words)}"


def best_move(
    document: Document, allocated: Allocated, moved: Collection[tuple[str, str]], among: Collection[str] | None = None
) -> Move | None:
    """The next move of a balance, `among` those from or to these nodes; None where none is worth its while."""
    room = room_of(document, allocated)
    there: dict[str, list[tuple[Volume, Copy]]] = {node.name: [] for node in document.nodes}
    for volume in document.volumes:
        if volume.state == "ready" and all(copy.state == "in" for copy in volume.copies):
            for copy in volume.copies:
                if (volume.name, copy.replica) not in moved:
                    there[copy.node].append((volume, copy))
    by_fullness = sorted(document.nodes, key=lambda node: (room[node.name].promised_bytes / node.capacity_bytes, node.name))
    for source in reversed(by_fullness):
        for to in by_fullness:
            if among is not None and source.name not in among and to.name not in among:
                continue
            found = [
                (gained, Move(volume.name, copy.replica, to.name)) for volume, copy in there[source.name]
                if (gained := evened(room, volume.size_bytes, source.name, to.name)) > WORTH
                and may_move(document, volume, source.name, to, room, allocated)
            ]  # fmt: skip
            gained, move = max(found, default=(0.0, None))
            if gained > WORTH:
                return move
    return None


def evened(room: Mapping[str, Room], size_bytes: int, source: str, to: str) -> float:
    """By how much a move lowers the fuller of two nodes: positive when that is worth moving for.

    A move that would only exchange who is fuller is worth nothing.
    """
    high = room[source].promised_bytes / room[source].capacity_bytes
    raised = (room[to].promised_bytes + size_bytes) / room[to].capacity_bytes
    lowered = (room[source].promised_bytes - size_bytes) / room[source].capacity_bytes
    return high - max(raised, lowered)


def may_move(
    document: Document, volume: Volume, source: str, to: StorageNode, room: Mapping[str, Room], allocated: Allocated
) -> bool:
    """Whether a copy may go there: a node that stays, without a copy of it, with room, and no site loses its only one."""
    if to.is_leaving or volume.copy_on(to.name) is not None:
        return False
    if room[to.name].free_bytes < taken_by(volume, allocated.get((volume.name, source), 0)):
        return False
    nodes = {node.name: node.site for node in document.nodes}
    before = {nodes[copy.node] for copy in volume.copies}
    after = {nodes[copy.node] for copy in volume.copies if copy.node != source} | {to.site}
    return len(after) >= len(before)


def apply(document: Document, move: Move) -> str:
    """The document as it is once the copy has moved; answers the name of the new replica."""
    volume = document.volume(move.volume)
    copy = volume.copy_named(move.replica)
    assert copy is not None
    copy.node, copy.replica = move.to, volume.next_replica(move.to)
    return copy.replica


def copied(document: Document) -> Document:
    """Another one with the same contents."""
    return msgspec.convert(msgspec.to_builtins(document), Document)
