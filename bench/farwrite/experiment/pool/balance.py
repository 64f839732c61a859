"""Which volumes are to be led elsewhere, or to have a copy elsewhere, so that nodes have the same load: decisions on a document
and measured loads, without touching either (decision 0062).

A node's load is what it serves, of the volumes that are led there, and a share of what it stores for others. It is counted in
requests and in bytes, each as a multiple of the average node's; the larger of the two is the node's load. Nodes are even when
none is above 1 + TOLERANCE. To hand over costs no byte and is tried first; then a copy moves, or two are exchanged, where that
gains more and leaves nothing for a balance of room to do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .document import Copy, Document, StorageNode, Volume
from .loads import Load
from .placement import Allocated, Move, Room, apply, best_move, copied, may_move, room_of

COPY_SHARE = 0.6  # Of what a write costs the node that serves it, what it costs one that stores it (decision 0062 measures it).
TOLERANCE = 0.25  # Above the average: nothing moves for less.
WORTH_LEAD, WORTH_COPY = 0.03, 0.08  # Of the average node's load: what a hand-over and a copy's move must even out.
REQUESTS_MIN, BYTES_MIN = 20.0, 1e5  # A second, over all nodes: less is no load.
PLAN_S = 2.0  # Volumes are not looked after while a plan is made.
TRIED_MAX = 20  # Moves that would even out load, and of which the best that leaves room even is taken.

Amount = tuple[float, float]  # requests and bytes a second


class Measured(NamedTuple):
    """What is known of a pool's load."""

    leaders: Mapping[str, str]  # by volume, the replica that leads
    loads: Mapping[str, Load]  # by volume; one that is not measured yet is not there
    resting: frozenset[str] = frozenset()  # volumes that were moved for their load lately
    measured_s: float = 0.0  # at least; 0: no volume is served


@dataclass
class PlannedLoad:
    """What a balance does for load, and what there is to say of it."""

    moves: list[Move] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@dataclass
class Spread:
    """A pool as a plan has it: where volumes are led and their copies lie, and the load that this comes to."""

    document: Document
    leads: dict[str, str]  # by volume, the node
    loads: Mapping[str, Load]

    def amounts(self) -> dict[str, Amount]:
        """Of each node that stays: requests and bytes."""
        found = {node.name: (0.0, 0.0) for node in self.document.nodes if not node.is_leaving}
        for volume in self.document.volumes:
            for copy in volume.copies:
                if copy.node in found and volume.name in self.loads:
                    found[copy.node] = added(found[copy.node], self.amount_of(volume, self.leads.get(volume.name) == copy.node))
        return found

    def amount_of(self, volume: Volume, leads: bool) -> Amount:
        """What a copy of this volume costs its node."""
        load = self.loads[volume.name]
        if leads:
            return load.requests, load.all_bytes
        return COPY_SHARE * load.writes, COPY_SHARE * load.written_bytes

    def ratios(self) -> dict[str, float]:
        """Of each node: its load as a multiple of the average one's."""
        amounts = self.amounts()
        means = means_of(amounts)
        return {node: ratio_of(amount, means) for node, amount in amounts.items()}


def means_of(amounts: Mapping[str, Amount]) -> Amount:
    """Of the average node; 0 of what is too little to be called a load."""
    count = max(len(amounts), 1)
    sums = [sum(amount[what] for amount in amounts.values()) for what in (0, 1)]
    return tuple(total / count if total > least else 0.0 for total, least in zip(sums, (REQUESTS_MIN, BYTES_MIN), strict=True))  # type: ignore[return-value]


def ratio_of(amount: Amount, means: Amount) -> float:
    """A node's load as a multiple of the average one's: the larger of the two."""
    return max((amount[what] / means[what] for what in (0, 1) if means[what]), default=0.0)


class Change(NamedTuple):
    """One or two moves, and what they even out."""

    gain: float  # by how much the higher of the two nodes comes down
    moves: tuple[Move, ...]
    after: Mapping[str, float]  # the ratios of the two nodes then


class Pair:
    """Two nodes between which something may move: from `source` to `to`."""

    def __init__(
        self, spread: Spread, amounts: Mapping[str, Amount], room: Mapping[str, Room], source: str, to: str,
        there: Mapping[str, list[tuple[Volume, Copy]]], across_sites: bool, allocated: Allocated,
    ) -> None:  # fmt: skip
        self.spread, self.amounts, self.means, self.room = spread, amounts, means_of(amounts), room
        self.source, self.to, self.there, self.across_sites, self.allocated = source, to, there, across_sites, allocated
        sites = {node.name: node.site for node in spread.document.nodes}
        self.may_lead_there = across_sites or sites[source] == sites[to]

    def back(self) -> Pair:
        """The other direction."""
        return Pair(
            self.spread, self.amounts, self.room, self.to, self.source, self.there, self.across_sites, self.allocated
        )

    def leads(self, volume: Volume) -> bool:
        return self.spread.leads.get(volume.name) == self.source

    def change(self, moved: Amount, *moves: Move) -> Change:
        """What this much from one to the other evens out."""
        source, to = self.amounts[self.source], self.amounts[self.to]
        after = {self.source: ratio_of(less(source, moved), self.means), self.to: ratio_of(added(to, moved), self.means)}
        return Change(max(ratio_of(source, self.means), ratio_of(to, self.means)) - max(after.values()), moves, after)

    def hand_overs(self) -> Iterator[Change]:
        """Volumes that are led at one and have a copy on the other."""
        for volume, _ in self.there[self.source] if self.may_lead_there else ():
            copy = volume.copy_on(self.to)
            if self.leads(volume) and copy is not None:
                moved = less(self.spread.amount_of(volume, True), self.spread.amount_of(volume, False))
                yield self.change(moved, Move(volume.name, copy.replica, self.to, leads=True))

    def copies(self) -> Iterator[tuple[Volume, Copy]]:
        """Copies that may go there. One that leads stays at its site unless volumes may be led elsewhere."""
        document = self.spread.document
        target: StorageNode = document.node(self.to)
        for volume, copy in self.there[self.source]:
            if self.leads(volume) and not self.may_lead_there:
                continue
            if may_move(document, volume, self.source, target, self.room, self.allocated):
                yield volume, copy

    def moves(self) -> Iterator[Change]:
        """Copies that move."""
        for volume, copy in self.copies():
            yield self.change(self.spread.amount_of(volume, self.leads(volume)), Move(volume.name, copy.replica, self.to))

    def exchanges(self) -> Iterator[Change]:
        """Two copies that change their places: of nodes that are equally full that changes nothing."""
        back = self.back()
        returning = list(back.copies())
        for volume, copy in self.copies():
            gives = self.spread.amount_of(volume, self.leads(volume))
            for other, returned in returning:
                if other.name != volume.name:
                    takes = self.spread.amount_of(other, back.leads(other))
                    moves = Move(volume.name, copy.replica, self.to), Move(other.name, returned.replica, self.source)
                    yield self.change(less(gives, takes), *moves)


def plan_load(
    document: Document, measured: Measured, allocated: Allocated, before: Sequence[Move] = (), across_sites: bool = False
) -> PlannedLoad:
    """Hand-overs and moves after which no further one is worth its while; each volume is touched once at most, and none that
    moves `before` (for room)."""
    planned = PlannedLoad()
    if not measured.loads:
        planned.said.append(f"load: measured for {measured.measured_s:.0f} s, too short to move anything by it.")
        return planned
    after = copied(document)
    leads = {}
    for volume in after.volumes:
        leader = volume.copy_named(measured.leaders.get(volume.name, ""))
        if leader is not None:
            leads[volume.name] = leader.node
    for move in before:
        came_from = document.volume(move.volume).copy_named(move.replica)
        if came_from is not None and leads.get(move.volume) == came_from.node:
            leads[move.volume] = move.to
        apply(after, move)
    spread = Spread(after, leads, measured.loads)
    touched = {move.volume for move in before} | set(measured.resting)
    ratios = spread.ratios()
    if not any(ratios.values()):
        planned.said.append("load: there is hardly any, so nothing moves for it.")
        return planned
    planned.said.append(f"load of the nodes, as a multiple of their average: {ratios_text(ratios)}.")
    is_room_even = best_move(after, allocated, ()) is None
    until_s = time.monotonic() + PLAN_S
    while (change := next_change(spread, allocated, touched, across_sites, is_room_even)) is not None:
        if time.monotonic() > until_s:
            planned.said.append("more could be evened out: balance again after these moves.")
            break
        ratios = spread.ratios()
        for move in change.moves:
            planned.moves.append(move._replace(why=why_of(spread, move, change, ratios)))
            touched.add(move.volume)
        for move in change.moves:
            carry_out(spread, move)
    ratios = spread.ratios()
    if planned.moves:
        planned.said.append(f"load of the nodes then: {ratios_text(ratios)}.")
    if (highest := max(ratios.values())) > 1 + TOLERANCE:
        name = max(ratios, key=lambda node: ratios[node])
        names = ", ".join(sorted(measured.resting))
        rests = f" Volumes that were moved lately stay for now: {names}." if names else ""
        sites = "" if across_sites or len(document.sites()) < 2 else " --across-sites allows volumes to be led at another site."
        planned.said.append(
            f"node {name} stays at {highest:.2f}, above the {1 + TOLERANCE:.2f} that are allowed: no move evens out enough to be "
            f"worth its while.{rests}{sites}"
        )
    return planned


def next_change(
    spread: Spread, allocated: Allocated, touched: set[str], across_sites: bool, is_room_even: bool
) -> Change | None:
    """What evens out most, from the node with the highest load on; what costs less comes first."""
    amounts, room = spread.amounts(), room_of(spread.document, allocated)
    ratios = spread.ratios()
    there = movable_copies(spread, touched)
    for source in [node for node in sorted(ratios, key=lambda node: -ratios[node]) if ratios[node] > 1 + TOLERANCE]:
        pairs = [
            Pair(spread, amounts, room, source, to, there, across_sites, allocated)
            for to in sorted(ratios, key=lambda node: ratios[node]) if ratios[to] < ratios[source]
        ]  # fmt: skip
        found = [change for pair in pairs for change in pair.hand_overs()]
        best = max(found, key=lambda change: change.gain, default=None)
        if best is not None and best.gain >= WORTH_LEAD:
            return best
        for kind in (Pair.moves, Pair.exchanges):
            found = [change for pair in pairs for change in kind(pair) if change.gain >= WORTH_COPY]
            for best in sorted(found, key=lambda change: -change.gain)[:TRIED_MAX]:
                if not is_room_even or stays_even(spread.document, best, allocated):
                    return best
    return None


def movable_copies(spread: Spread, touched: set[str]) -> dict[str, list[tuple[Volume, Copy]]]:
    """By node: copies of volumes that nothing is done to."""
    found: dict[str, list[tuple[Volume, Copy]]] = {node.name: [] for node in spread.document.nodes}
    for volume in spread.document.volumes:
        if volume.name in touched or volume.name not in spread.loads or volume.state != "ready":
            continue
        if all(copy.state == "in" for copy in volume.copies):
            for copy in volume.copies:
                found[copy.node].append((volume, copy))
    return found


def stays_even(document: Document, change: Change, allocated: Allocated) -> bool:
    """Whether a balance of room would leave it so: otherwise it would be moved back."""
    sizes = {document.volume(move.volume).size_bytes for move in change.moves}
    if len(change.moves) == 2 and len(sizes) == 1:
        return True
    after = copied(document)
    for move in change.moves:
        apply(after, move)
    return best_move(after, allocated, (), set(change.after)) is None


def carry_out(spread: Spread, move: Move) -> None:
    """The spread once a move is done."""
    volume = spread.document.volume(move.volume)
    if move.leads:
        spread.leads[move.volume] = move.to
        return
    copy = volume.copy_named(move.replica)
    assert copy is not None
    if spread.leads.get(move.volume) == copy.node:
        spread.leads[move.volume] = move.to
    apply(spread.document, move)


def added(one: Amount, other: Amount) -> Amount:
    return one[0] + other[0], one[1] + other[1]


def less(one: Amount, other: Amount) -> Amount:
    return one[0] - other[0], one[1] - other[1]


# For people


def why_of(spread: Spread, move: Move, change: Change, ratios: Mapping[str, float]) -> str:
    """The figures of a move."""
    load = spread.loads[move.volume]
    nodes = ", ".join(f"{node} {ratios[node]:.2f} -> {ratio:.2f}" for node, ratio in change.after.items())
    together = " with the other" if len(change.moves) > 1 else ""
    return f"{load.requests:,.0f} requests/s, {load.all_bytes / 1e6:,.1f} MB/s; load{together}: {nodes} of the average"


def ratios_text(ratios: Mapping[str, float]) -> str:
    return ", ".join(f"{node} {ratio:.2f}" for node, ratio in sorted(ratios.items()))
