"""Room of a served pool: its nodes and volumes as the ledger knows them (engine/room.py), and limits on the boards of replicas.

Nothing of it is kept: at each opening it follows from what the files take, before any replica runs. Now and then `tend` compares
the ledger with the document, tells it what the replicas have counted, and writes down the limits that it grants.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping

from ...base.errors import FarwriteError, UnfitError
from ...base.host.disk import SNAPSHOTS, VOLUME
from ...engine.room import Ledger
from ..serve.replica import figures_of
from ..voters import Voters
from .document import Copy, Volume
from .placement import JOURNAL_BYTES
from .steps import Pool, allocated_by

TEND_S = 0.25  # A grant of 64 MiB is there for a writer of 256 MB/s.
KEPT_FREE_BYTES = 32 << 20  # Of a node's file system: for the pool's document, ballots, and what snapshots keep meanwhile.
ROUND_BYTES = 4 << 20


class Rooms:
    """The ledger of a pool, kept up with its document and its boards."""

    def __init__(self, pool: Pool, say: Callable[[str], None]) -> None:
        self.pool, self.say = pool, say
        self.ledger = Ledger()
        self.due_s = 0.0
        self.said: dict[str, str] = {}

    def open(self, served: Mapping[str, Voters]) -> None:
        """Every volume stands in the ledger, by what its files take; its replicas, which do not run yet, get their limits."""
        self.match(served)
        self.ledger.open()
        self.write(served)

    def tend(self, served: Mapping[str, Voters]) -> None:
        """Once in a while."""
        now_s = time.monotonic()
        if now_s < self.due_s:
            return
        self.due_s = now_s + TEND_S
        self.match(served)
        for name, group in served.items():
            if name in self.ledger.shares:
                self.note(self.pool.document.volume(name), group)
        self.write(served)

    def note(self, volume: Volume, group: Voters) -> None:
        """What a volume takes on each node, and the limit that whoever leads it holds to."""
        leader = group.leader()
        limit = int(figures_of(group.boards[leader]).room[0]["limit"]) if leader else None
        used, kept = self.taken_by_node(volume, group)
        self.ledger.note(volume.name, used, limit, time.monotonic_ns(), kept)

    def taken_by_node(self, volume: Volume, group: Voters | None) -> tuple[dict[str, int], dict[str, int]]:
        """What a volume takes on each node that has files of it, and what its snapshots keep there."""
        taken = {copy.node: self.taken(volume, copy, group) for copy in copies_with_files(volume)}
        return {node: used for node, (used, _) in taken.items()}, {node: kept for node, (_, kept) in taken.items()}

    def taken(self, volume: Volume, copy: Copy, group: Voters | None) -> tuple[int, int]:
        """What a copy takes, and what is kept for its snapshots: as its replica has counted it, or as its files do while none
        runs."""
        if group is not None and copy.replica in group.boards and group.is_up(copy.replica):
            row = figures_of(group.boards[copy.replica]).room[0]
            if row["allocated"] or row["kept"]:
                return int(row["allocated"]), int(row["kept"])
        directory = self.pool.copy_directory(volume, copy)
        return allocated_by(directory / VOLUME), allocated_by(directory / SNAPSHOTS)

    def match(self, served: Mapping[str, Voters]) -> None:
        """The ledger knows the nodes and volumes that the document has."""
        ledger, document = self.ledger, self.pool.document
        volumes = {volume.name: volume for volume in document.volumes if volume.state != "deleting" and copies_with_files(volume)}
        for name in [name for name in ledger.shares if name not in volumes]:
            ledger.remove_volume(name)
        free = self.free_bytes()
        for node in document.nodes:
            size = max(node.capacity_bytes - JOURNAL_BYTES * len(document.copies_on(node.name)), 0)
            if node.name in free:  # Others may have filled its disk: then it has less.
                used = ledger.room_of(node.name).used if node.name in ledger.sizes else 0
                size = min(size, rounded(used + free[node.name]))
            if node.name not in ledger.sizes:
                ledger.add_node(node.name, size)
            elif ledger.sizes[node.name] != size:
                ledger.resize_node(node.name, size)
        for name, share in ledger.shares.items():
            if share.is_served and name not in served:
                files, _ = self.taken_by_node(volumes[name], None)
                ledger.set_served(name, False, {node: max(size, share.used.get(node, 0)) for node, size in files.items()})
            elif name in served:
                ledger.set_served(name, True)
        for name, volume in volumes.items():
            self.attempt(name, lambda volume=volume: self.match_volume(volume, served.get(volume.name)))  # type: ignore[misc]
        for name in [name for name in ledger.sizes if all(node.name != name for node in document.nodes)]:
            self.attempt(name, lambda name=name: ledger.remove_node(name))  # type: ignore[misc]

    def free_bytes(self) -> dict[str, int]:
        """What each node's file system has left for it: nodes of one file system share it. Nothing of one that is not there."""
        found: dict[str, tuple[int, int]] = {}
        for node in self.pool.document.nodes:
            directory = self.pool.node_directory(node)
            with contextlib.suppress(OSError):
                system = os.statvfs(directory)
                found[node.name] = directory.stat().st_dev, system.f_bavail * system.f_frsize
        sharers = Counter(device for device, _ in found.values())
        return {name: max(free - KEPT_FREE_BYTES, 0) // sharers[device] for name, (device, free) in found.items()}

    def match_volume(self, volume: Volume, group: Voters | None) -> None:
        """A volume with its size and its nodes."""
        ledger, nodes = self.ledger, tuple(copy.node for copy in copies_with_files(volume))
        if volume.name not in ledger.shares:
            used, kept = self.taken_by_node(volume, group)
            try:
                ledger.add_volume(volume.name, nodes, volume.full_bytes, volume.is_reserved, used, group is not None, kept)
            except UnfitError:
                ledger.reclaim()
                raise
            return
        share = ledger.shares[volume.name]
        if share.nodes != nodes:
            ledger.set_nodes(volume.name, nodes)
        if share.size < volume.full_bytes:
            ledger.resize_volume(volume.name, volume.full_bytes)
        elif share.size > volume.full_bytes and not share.is_reserved:  # Nothing is written behind its end.
            share.size = volume.full_bytes

    def attempt(self, name: str, work: Callable[[], None]) -> None:
        """Do it; what there is no room for is said once, and tried again."""
        try:
            work()
            self.said.pop(name, None)
        except FarwriteError as refusal:
            if self.said.get(name) != str(refusal):
                self.said[name] = str(refusal)
                self.say(f"room: {refusal}")

    def write(self, served: Mapping[str, Voters]) -> None:
        """The limits, on every board of a volume's replicas: whoever leads next holds to the same."""
        for name, group in served.items():
            if name not in self.ledger.shares:
                continue
            limit, warn = self.ledger.limit_of(name), self.ledger.warn_of(name)
            for replica in group.replicas:
                row = figures_of(group.boards[replica]).room[0]
                row["limit"], row["warn"] = limit, warn
                row["grants"] = int(self.ledger.may_be_granted(name))


def rounded(size: int) -> int:
    """So that a node's size does not change with every write."""
    return size // ROUND_BYTES * ROUND_BYTES


def copies_with_files(volume: Volume) -> list[Copy]:
    """Copies that take room."""
    return [copy for copy in volume.copies if copy.state != "making" or volume.state == "making"]
