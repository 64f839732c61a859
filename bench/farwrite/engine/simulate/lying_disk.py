"""Disks that lie in a story: sectors that cannot be read, acknowledged writes that never land, writes that land elsewhere.

What a checksum, a later record or a superblock can tell, a replica must find by itself. A volume has no checksums: which of its
bytes a lie has reached is known to the model alone (`Cluster.untrusted`); every other byte is held against the history as ever,
and a verify must find exactly those extents in which replicas differ. Drawn apart from the story: one without lies is as it was.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from ...base.host.pretend_kernel import SECTOR_BYTES
from .. import journal as replaying
from .. import journal_kernel as log
from .. import primary_kernel as primary
from . import check
from .check import Anomaly
from .cluster import BLIND, DOWN, Cluster, Node

VERIFY_TICKS = 3000
SHARE = 0.4  # Of stories in which disks lie at all; the others go as deep into everything else as they did before.
# How often each comes, by tick, in a story that knows it; and which share of those stories does.
TROUBLES = (
    ("bad sector", 0.02, 0.5), ("bad sector of the journal", 0.004, 0.3), ("readable again", 0.02, 1.0),
    ("lost in the volume", 0.02, 0.3), ("misdirected in the volume", 0.02, 0.3),
    ("lost in the journal", 0.3, 0.5), ("misdirected in the journal", 0.3, 0.3), ("lost superblock", 0.06, 0.5),
)  # fmt: skip


class LyingDisks:
    """The lies of one story."""

    def __init__(self, story: Any, seed: int) -> None:
        self.story, self.cluster = story, story.cluster
        self.random = draw = random.Random(f"disks of {seed}")
        share_of_all = 1.0 if draw.random() < SHARE else 0.0
        self.rates = {name: rate if draw.random() < share_of_all * share else 0.0 for name, rate, share in TROUBLES}

    def make_trouble(self) -> None:
        """What goes wrong in this tick."""
        draw, cluster = self.random, self.cluster
        happens = {name for name, rate in self.rates.items() if draw.random() < rate}
        node = draw.choice(cluster.nodes)
        if "bad sector" in happens:
            make_bad(cluster, node, node.world.bad, draw, "volume")
        if "bad sector of the journal" in happens:
            make_bad(cluster, node, node.world.bad_journal[log.SUPERBLOCK_BYTES // SECTOR_BYTES :], draw, "journal")
        if "readable again" in happens:
            node.world.bad_journal[:] = 0
        for how in ("lost", "misdirected"):
            if f"{how} in the volume" in happens:
                lie_in_volume(cluster, draw.choice(cluster.nodes), draw, how == "misdirected")
        down = [one for one in cluster.nodes if one.role == DOWN]
        if down:
            node = draw.choice(down)
            for how in ("lost", "misdirected"):
                if f"{how} in the journal" in happens and self.story.may_damage_journal(node):
                    lie_in_journal(cluster, node, draw, how == "misdirected")
            if "lost superblock" in happens:
                lose_superblock(cluster, node)

    def heal(self) -> None:
        """Every sector can be read from now on. What it holds is what it held."""
        for node in self.cluster.nodes:
            self.cluster.counts["bad sectors read"] += int(node.world.at[0].refused_reads)
            self.cluster.counts["bad sectors written again"] += int(node.world.at[0].mended)
            node.world.bad[:] = node.world.bad_journal[:] = 0

    def repair(self) -> None:
        """When all have caught up: a verify finds what differs, and whoever differs from the primary is compared with it.

        Which of two is right no verify can tell. Here the primary is believed, right or wrong: an operator has to know.
        """
        cluster = self.cluster
        if len(cluster.nodes) == 1 or not cluster.untrusted.any():
            return
        leader = self.verify()
        for other in cluster.nodes:
            if other is not leader and differing_extents(leader, other):
                cluster.counts["replicas that differed, compared"] += 1
                cluster.begin_anew(other)
        self.story.become_whole()
        leader = self.verify()
        if any(differing_extents(leader, other) for other in cluster.nodes):
            raise Anomaly(f"replicas still differ from replica {leader.index} after they have been compared with it")

    def verify(self) -> Node:
        """Have whoever leads verify all its peers, and hold what it finds against what stands there; answers who led."""
        story, cluster = self.story, self.cluster
        term, begin = None, story.ticks
        while True:
            leader = cluster.leader()
            if leader is not None and leader.term is not term and story.is_whole():
                term = leader.term
                for request in leader.state.control_requests:
                    request.request = primary.VERIFY
            elif leader is not None and leader.term is term and bool((leader.state.peer["verifying"] == 2).all()):
                break
            if story.ticks - begin > VERIFY_TICKS:
                raise Anomaly(f"no verify has ended within {VERIFY_TICKS} ticks: {story.describe()}")
            story.tick(False)
        for other in cluster.nodes:
            if other is not leader:
                found = 0 if cluster.bug == BLIND else int(leader.state.peer[cluster.slot(leader, other)].different)
                there = differing_extents(leader, other)
                if found != there:
                    raise Anomaly(
                        f"a verify by replica {leader.index} takes {found} extents of replica {other.index} for different, "
                        f"and {there} are"
                    )
                cluster.counts["lies found by a verify"] += found
        return leader


def differing_extents(one: Node, other: Node) -> int:
    """In how many extents two volumes differ."""
    return np.unique(np.flatnonzero(one.world.cached != other.world.cached) // check.EXTENT_BYTES).size


def make_bad(cluster: Cluster, node: Node, bad: np.ndarray, draw: random.Random, of: str) -> None:
    """A few sectors next to each other can be read no more, until they are written again."""
    first, count = draw.randrange(bad.size), draw.choice((1, 1, 2, 8))
    bad[first : first + count] = 1
    cluster.tell(f"{count} sectors of the {of} of replica {node.index} cannot be read any more")
    cluster.counts[f"sectors of a {of} that went bad"] += count


def lie_in_volume(cluster: Cluster, node: Node, draw: random.Random, is_misdirected: bool) -> None:
    """A sector that was written since the last flush, and acknowledged, is as it was before; or stands elsewhere instead."""
    world = node.world
    fresh = np.flatnonzero((world.cached != world.volume).reshape(-1, SECTOR_BYTES).any(axis=1))
    if not fresh.size:
        return
    sector = int(draw.choice(fresh.tolist()))
    place = slice(SECTOR_BYTES * sector, SECTOR_BYTES * (sector + 1))
    if is_misdirected:
        other = draw.randrange(world.cached.size // SECTOR_BYTES)
        elsewhere = slice(SECTOR_BYTES * other, SECTOR_BYTES * (other + 1))
        world.cached[elsewhere] = world.cached[place]
        cluster.untrusted[elsewhere] = True
    if not (is_misdirected and other == sector):
        world.cached[place] = world.volume[place]
    cluster.untrusted[place] = True
    how = f"lands in sector {other} instead" if is_misdirected else "never lands"
    cluster.tell(f"what replica {node.index} has written to sector {sector} of its volume {how}")
    cluster.counts[f"volume writes {'misdirected' if is_misdirected else 'lost'}"] += 1


def lie_in_journal(cluster: Cluster, node: Node, draw: random.Random, is_misdirected: bool) -> None:
    """The last write of a block, most often of the last ones of the log, never landed, as a replica that comes back finds."""
    world, capacity = node.world, cluster.shape.capacity_bytes
    back = draw.randrange(1, 2 * log.BLOCK_BYTES if draw.random() < 0.5 else capacity)
    begin = log.SUPERBLOCK_BYTES + (int(node.known.durable) - back) % capacity // log.BLOCK_BYTES * log.BLOCK_BYTES
    place = slice(begin, begin + log.BLOCK_BYTES)
    if np.array_equal(world.journal[place], world.before[place]):
        return
    if is_misdirected:
        other = log.SUPERBLOCK_BYTES + log.BLOCK_BYTES * draw.randrange(capacity // log.BLOCK_BYTES)
        world.journal[other : other + log.BLOCK_BYTES] = world.journal[place]
    world.journal[place] = world.before[place]
    node.is_damaged = True
    how = f"has landed at byte {other}" if is_misdirected else "has never landed"
    cluster.tell(f"what replica {node.index} wrote last at byte {begin} of its journal {how}")
    cluster.counts[f"journal writes {'misdirected' if is_misdirected else 'lost'}"] += 1


def lose_superblock(cluster: Cluster, node: Node) -> None:
    """The newest superblock never landed: the one before it is whole, and nothing is lost with that."""
    world = node.world
    newest = replaying.read_superblock(world.journal)
    if newest is None or node.is_damaged or node.is_superblock_damaged or not node.are_superblocks_whole():
        return
    begin = int(newest.generation) % 2 * log.BLOCK_BYTES
    place = slice(begin, begin + log.BLOCK_BYTES)
    if not world.before[place].any():
        return  # There was none before: the file is as new.
    world.journal[place] = world.before[place]
    node.is_superblock_damaged = True
    cluster.tell(f"the newest superblock of replica {node.index}, generation {int(newest.generation)}, has never landed")
    cluster.counts["superblock writes lost"] += 1
