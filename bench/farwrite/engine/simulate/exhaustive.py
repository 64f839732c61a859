"""Every short sequence of operations, with the power lost at every operation of a disk: complete where seeds are only many.

After CrashMonkey's bounded black-box testing (Mohan et al., OSDI 2018): most crash bugs need few operations. Two replicas, one
disk of which loses its power after the n-th thing that it is asked to do, n from 0 until the sequence is over before. Then all
heals as in a story: everything must be whole, equal, and a write must complete.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice, product
from typing import Any, NamedTuple

from .. import primary_kernel as primary
from . import search
from .arbiter import Arbiter
from .check import Anomaly
from .cluster import DOWN, TINY, TRIM, WRITE, Cluster, Node
from .story import HEALING_TICKS, POLICIES, PROTOCOLS, Story

OPERATIONS = (
    "write", "large write", "trim", "read", "cut", "heal", "kill primary", "kill secondary", "depose", "snapshot", "delete",
)  # fmt: skip
LENGTH_MAX = 4
TICKS = 6  # After each operation: a flush and a round trip.
POINTS_MAX = 400  # Of a sequence's disk: more than any has.
SHARES = (0, 128, 256)  # Of 256 sectors that were under way: none, about half and all of them reach the disk.
KEY = 5  # Which half.
TROUBLES = Story(0).trouble.keys()  # None of them happens here.


class Outcome(NamedTuple):
    """What became of all crash points of one sequence."""

    operations: tuple[str, ...]
    stories: int
    broken: str  # "" when no promise was broken
    where: str  # under which protocol, at whose disk and which point


class Sequence(Story):
    """One sequence under one protocol, with the power of one replica's disk lost at one point."""

    def __init__(self, operations: tuple[str, ...], protocol: str, policy: str, victim: int, point: int, share: int) -> None:
        self.random, self.lines, self.hash, self.ticks = random.Random(1), [], blake2b(digest_size=8), 0
        self.protocol, self.policy, self.operations = protocol, policy, operations
        self.victim, self.point, self.share = victim, point, share
        self.cluster = Cluster(
            2, PROTOCOLS[protocol], POLICIES[policy], primary.WAIT, 2, 1, self.tell, "", TINY, self.random
        )  # fmt: skip
        self.quantum_ns = 300_000
        self.cluster.peer_timeout_ns = 30 * self.quantum_ns
        self.elections = None
        self.arbiter = Arbiter(self.cluster)
        self.cluster.membership = self.arbiter
        self.trouble = dict.fromkeys(TROUBLES, 0.0)
        self.hurry = self.read_share = self.limits = 0.0
        self.length = 0
        self.taking, self.takes = random.Random(1), (0.0, 0.0)
        self.paused, self.stalled = {}, {}
        self.is_reached, self.left = False, dict[int, int]()

    def run(self) -> None:
        """The sequence, then the healing."""
        for node in self.cluster.nodes:
            node.world.at[0].flush_ns = 100_000
        self.arbiter.elect(self.cluster.nodes[0])
        for _ in range(HEALING_TICKS):
            self.tick(False)
            if self.is_whole():
                break
        world = self.cluster.nodes[self.victim].world
        world.at[0].power_in = self.point
        for operation in self.operations:
            self.tell(f"-- {operation}")
            self.do(operation)
            for _ in range(TICKS):
                self.tick(False)
                self.lose_power()
        self.is_reached |= world.at[0].power_in == 0
        self.left.clear()
        if world.at[0].power_in > 0:
            world.at[0].power_in = -1
        self.heal()

    def lose_power(self) -> None:
        """Note that the point was reached: `tick` has ended the replica, and brings it back with the next one."""
        self.is_reached |= self.cluster.nodes[self.victim].role == DOWN and self.victim not in self.left

    def do(self, operation: str) -> None:
        """One operation, as far as it can be done now."""
        cluster = self.cluster
        leader = cluster.leader()
        others = [node for node in cluster.nodes if node is not leader]
        if operation == "cut":
            cluster.partition([(0, 1)])
        elif operation == "heal":
            cluster.partition([])
        elif operation == "depose":
            self.arbiter.depose(others[0])
        elif operation == "kill secondary":
            self.kill(others[0])
        elif leader is None:
            return
        elif operation == "kill primary":
            self.kill(leader)
        elif operation == "read":
            cluster.read(leader, 0, 4096)
        elif operation == "snapshot":
            cluster.take_snapshot(leader)
        elif operation == "delete":
            cluster.delete_snapshot(leader, 0)
        else:
            size = 2048 if operation == "large write" else 512
            cluster.submit(leader, TRIM if operation == "trim" else WRITE, 512 * (cluster.number % 3), size)

    def kill(self, node: Node) -> None:
        """The process alone; what is left until the power goes is left to the one that comes after it."""
        if node.role != DOWN and node.world.at[0].power_in != 0:
            self.left[node.index] = int(node.world.at[0].power_in)
            self.cluster.crash(node, KEY, self.share, False, False)

    def begin_processes(self, troubled: bool) -> None:
        """Whoever is down comes back at once; the power may go while it does, or as much later as it would have."""
        for node in self.cluster.nodes:
            if node.role == DOWN:
                left = self.left.pop(node.index, -1)
                self.cluster.restart(node, left, KEY, self.share)
                if node.role != DOWN:
                    node.world.at[0].power_in = left


def sequences(length: int) -> Iterator[tuple[str, ...]]:
    """Every sequence of up to so many operations; one that begins by healing or deleting nothing is a shorter one."""
    for count in range(1, length + 1):
        for found in product(OPERATIONS, repeat=count):
            if found[0] not in ("heal", "delete"):
                yield found


def examine_sequence(operations: tuple[str, ...]) -> Outcome:
    """A sequence under each protocol that promises something, at every point of either disk."""
    stories = 0
    for protocol, policy in (("C", "consent"), ("C", "block"), ("A", "suspend-replication")):
        for victim in range(2):
            for point in range(POINTS_MAX):
                share = SHARES[point % len(SHARES)]
                story = Sequence(operations, protocol, policy, victim, point, share)
                stories += 1
                broken = ""
                try:
                    story.run()
                except Anomaly as found:
                    broken = str(found)
                except (AssertionError, ArithmeticError, LookupError, ValueError) as failure:
                    broken = f"a loop failed: {failure!r}"
                if broken:
                    where = f"{protocol}, {policy}, disk of replica {victim}, power lost at operation {point}"
                    return Outcome(operations, stories, broken, where)
                if not story.is_reached:
                    break
    return Outcome(operations, stories, "", "")


def examine_all(length: int) -> Iterator[Outcome]:
    """Every sequence of up to `length` operations, shorter ones first, on all processors; none behind a broken one."""
    pool, waiting, todo = search.Processes(), deque[Any](), sequences(length)
    try:
        while True:
            ahead = 4 * pool.at_once - len(waiting)
            waiting += [pool.pool.submit(examine_sequence, operations) for operations in islice(todo, ahead)]
            if not waiting:
                return
            outcome = waiting.popleft().result()
            yield outcome
            if outcome.broken:
                return
    finally:
        pool.close()
