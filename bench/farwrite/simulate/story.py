"""What happens to a cluster, drawn from one seed: writes, crashes, cuts, refusals of the disk, elections; then everything heals.

`tell` retells one seed; the same seed gives the same story, line by line, on every machine.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

import numpy as np

from ..engine import journal_kernel as log
from ..engine import primary_kernel as primary
from ..engine import record_kernel as record
from ..host import pretend_kernel as pretend
from . import check
from .check import Anomaly
from .cluster import CAPACITY, DOWN, IDLE, PRIMARY, RING, SECONDARY, SETTLING, VOLUME_BYTES, Cluster, Node

PROTOCOLS = {"C": primary.C, "quorum": primary.QUORUM, "C2": primary.TWO_TRIP, "A": primary.A, "B": primary.B}
POLICIES = {
    "block": primary.BLOCK, "consent": primary.CONSENT, "suspend-replication": primary.SUSPEND_REPLICATION, "end": primary.END,
}  # fmt: skip
SIZES = (512, 512, 1024, 4096)
HEALING_TICKS = 3000
SKEW_NS_MAX = 3_600_000_000_000
ENOSPC, EIO = 28, 5


@dataclass(frozen=True)
class Told:
    """How one story went."""

    seed: int
    digest: str
    broken: str | None
    lines: list[str]
    writes: int
    completed: int
    epochs: int
    ticks: int


class Story:
    """One seed's cluster and what happens to it."""

    def __init__(self, seed: int, bug: str = "") -> None:
        self.random = draw = random.Random(seed)
        self.lines: list[str] = []
        self.hash = hashlib.blake2b(digest_size=8)
        self.ticks = 0
        count = draw.choice((2, 2, 3, 3, 4, 5))
        self.protocol = draw.choice(tuple(PROTOCOLS))
        self.policy = draw.choice((*POLICIES, "consent"))  # The one in which most is decided.
        if self.protocol == "quorum":
            count = max(count, 3)
            self.policy = "block"
        quorum = count // 2 + 1 if draw.random() < 0.8 else count
        congestion = primary.PULL_AHEAD if self.protocol == "A" and draw.random() < 0.7 else primary.WAIT
        self.cluster = Cluster(
            count, PROTOCOLS[self.protocol], POLICIES[self.policy], congestion, quorum, seed, self.tell, bug
        )
        self.cluster.latency_budget_ns = draw.choice((0, 300_000, 3_000_000))
        # Which troubles this story knows, and how often they come, by tick.
        self.trouble = {
            name: rate if draw.random() < share else 0.0
            for name, rate, share in (
                ("crash", 0.006, 0.6), ("power", 0.006, 0.6), ("cut", 0.01, 0.6), ("heal", 0.03, 1.0), ("reset", 0.006, 0.5),
                ("refuse", 0.002, 0.2), ("slow", 0.02, 0.6), ("flip", 0.003, 0.15), ("adversary", 0.01, 0.2),
                ("depose", 0.008, 0.5), ("pause", 0.01, 0.5), ("verify", 0.01, 0.2), ("jump", 0.01, 0.3),
            )
        }  # fmt: skip
        self.hurry = draw.choice((0.1, 0.5, 0.9))
        self.quantum_ns = draw.choice((50_000, 200_000, 800_000))
        self.length = draw.choice((80, 150, 300))
        self.paused: dict[int, int] = {}
        self.tell(f"seed {seed}: {count} replicas, protocol {self.protocol}, policy {self.policy}, quorum {quorum}, "
                  f"{', '.join(name for name, rate in self.trouble.items() if rate)}")

    def tell(self, line: str) -> None:
        line = f"{self.ticks:5d} {line}"
        self.lines.append(line)
        self.hash.update(line.encode())

    def run(self) -> None:
        """The troubled part, then the healing; Anomaly when an invariant does not hold."""
        for node in self.cluster.nodes:
            node.world.at[pretend.FLUSH_NS] = 100_000
            node.world.at[pretend.SKEW_NS] = self.random.randrange(SKEW_NS_MAX)  # Machines boot when they like.
        self.cluster.elect(self.cluster.nodes[0])
        for _ in range(self.length):
            self.tick(True)
        self.heal()

    def tick(self, troubled: bool) -> None:
        """A little time passes; everybody has a turn, in some order."""
        draw, cluster = self.random, self.cluster
        self.ticks += 1
        cluster.clock[0] += draw.randrange(1, self.quantum_ns)
        if troubled:
            self.make_trouble()
        self.control(troubled)
        order = cluster.nodes[:]
        draw.shuffle(order)
        for node in order:
            if self.paused.get(node.index, 0) > self.ticks and troubled:
                continue
            if node.role == PRIMARY and troubled and draw.random() < self.hurry:
                self.write(node)
            cluster.turn(node)
            if node.world.at[pretend.POWER_IN] == 0:
                cluster.crash(node, draw.getrandbits(62), draw.choice((0, 64, 128, 192, 256)), True, draw.random() < 0.5)
            elif node.role != DOWN and self.ticks % 8 == node.index:
                check.check_prefix(node, cluster.terms)

    def write(self, node: Node) -> None:
        """Submit a write or two."""
        draw = self.random
        for _ in range(draw.choice((1, 1, 2, 4))):
            size = draw.choice(SIZES)
            address = 512 * draw.randrange((VOLUME_BYTES - size) // 512 + 1)
            if not self.cluster.submit(node, address, size if size else 512, draw.random() < 0.05):
                return

    def control(self, troubled: bool) -> None:
        """What control threads and the arbiter do."""
        draw, cluster = self.random, self.cluster
        leader = cluster.leader()
        for node in cluster.nodes:
            if node.role == DOWN and (not troubled or draw.random() < 0.04):
                again = troubled and self.trouble["power"] and draw.random() < 0.2
                cluster.restart(
                    node, draw.randrange(1, 12) if again else -1, draw.getrandbits(62), draw.choice((0, 64, 128, 192, 256))
                )
        for node in cluster.nodes:
            if node.role != PRIMARY:
                continue
            for other in cluster.nodes:
                if other is node:
                    continue
                slot = cluster.slot(node, other)
                peer, mail = node.state.peer[slot], node.state.mail[slot]
                if mail[primary.REQUEST] != primary.NOTHING:
                    continue
                if peer[primary.STATE] != primary.ABSENT and not (other.role == IDLE and draw.random() < 0.05):
                    continue  # It may come back before it was seen to go.
                if other.role == SECONDARY and not cluster.is_cut(node, other) and (node is leader) and draw.random() < 0.2:
                    self.tell(f"replica {other.index} gives up its old connection")
                    cluster.stop(other)
                elif other.role == PRIMARY and node is leader and not cluster.is_cut(node, other) and draw.random() < 0.2:
                    self.tell(f"replica {other.index} hears of epoch {node.term.epoch} and steps down")
                    cluster.stop(other)
                elif other.role == IDLE and other.wanted_epoch == 0 and (not troubled or draw.random() < 0.2):
                    cluster.join(node, other)
                    if node.role != PRIMARY:
                        break
                elif (
                    self.policy == "consent" and node is leader and not peer[primary.EXCUSED]
                    and not any(candidate.wanted_epoch for candidate in cluster.nodes) and draw.random() < 0.15
                ):  # fmt: skip
                    mail[primary.REQUEST] = primary.EXCUSE
                    cluster.out.add(other.index)
                    self.tell(f"replica {other.index} is excused in epoch {node.term.epoch}")
            if node is leader and node.role == PRIMARY:
                excused = cluster.excused(node)
                cluster.out = {other.index for other in cluster.nodes if other is not node and excused[cluster.slot(node, other)]}
        self.hold_elections(troubled, leader)

    def hold_elections(self, troubled: bool, leader: Node | None) -> None:
        """Somebody leads, sooner or later."""
        draw, cluster = self.random, self.cluster
        for node in cluster.nodes:
            if node.wanted_epoch:
                if node.role == DOWN or node.wanted_epoch <= max(cluster.terms):
                    node.wanted_epoch = 0
                elif node.role == SECONDARY or node.role == PRIMARY:
                    cluster.stop(node)
                elif node.role == IDLE:
                    cluster.elect(node)
                    node.wanted_epoch = 0
        if leader is None and not any(node.wanted_epoch for node in cluster.nodes) and (not troubled or draw.random() < 0.1):
            candidate = draw.choice(cluster.nodes)
            if candidate.role in (IDLE, SETTLING, SECONDARY) and cluster.may_lead(candidate):
                candidate.wanted_epoch = max(cluster.terms) + 1

    def make_trouble(self) -> None:
        """What goes wrong in this tick."""
        draw, cluster = self.random, self.cluster
        happens = {name: draw.random() < rate for name, rate in self.trouble.items()}
        node = draw.choice(cluster.nodes)
        key, share = draw.getrandbits(62), draw.choice((0, 64, 128, 192, 256))
        if happens["crash"]:
            cluster.crash(node, key, share, draw.random() < 0.7, draw.random() < 0.3)
        if happens["power"] and node.role != DOWN:
            node.world.at[pretend.POWER_IN] = draw.randrange(1, 12)
        if happens["refuse"] and node.role != DOWN:
            node.world.at[pretend.FAIL_ERRNO] = draw.choice((EIO, ENOSPC))
            node.world.at[pretend.FAIL_IN] = draw.randrange(1, 12)
        if happens["cut"]:
            side = {other.index for other in cluster.nodes if draw.random() < 0.5}
            pairs = [(a, b) for a in side for b in range(len(cluster.nodes)) if b not in side]
            cluster.partition(pairs)
            self.tell(f"cut: {sorted(side)} from the rest")
        if happens["heal"] and cluster.cut:
            cluster.partition([])
            self.tell("the network heals")
        if happens["reset"] and node.sockets:
            self.tell(f"connections of replica {node.index} are reset")
            cluster.reset(node)
        if happens["slow"]:
            node.world.at[pretend.FLUSH_NS] = draw.choice((10_000, 100_000, 3_000_000))
            cluster.delay_ns = draw.choice((10_000, 200_000, 2_000_000))
        if happens["pause"]:
            self.paused[node.index] = self.ticks + draw.randrange(5, 60)
        if happens["jump"]:  # As after a machine was suspended: its clock has gone on without it.
            jump_ns = draw.choice((5_000_000, 50_000_000, 10_000_000_000))
            node.world.at[pretend.SKEW_NS] += jump_ns
            self.tell(f"the clock of replica {node.index} jumps by {jump_ns // 1_000_000} ms")
        if happens["depose"]:
            other = draw.choice(cluster.nodes)
            if other.role != DOWN and cluster.may_lead(other) and not any(one.wanted_epoch for one in cluster.nodes):
                other.wanted_epoch = max(cluster.terms) + 1
                self.tell(f"replica {other.index} is to lead")
        # Whoever is gone on without, or is in the middle of a copy, holds too little: the only whole one is not damaged as well.
        spared = any(not one.is_sound for one in cluster.nodes) or bool(cluster.out - {node.index})
        if happens["flip"] and node.role == DOWN and not spared:
            bit = draw.randrange(8 * (log.SUPERBLOCK_BYTES + CAPACITY))
            pretend.flip_bit(node.world.journal, bit)
            node.is_damaged = True
            self.tell(f"bit {bit} of the journal of replica {node.index} flips")
        if happens["verify"] and node.role == PRIMARY:
            mail = draw.choice(node.state.mail)
            if mail[primary.REQUEST] == primary.NOTHING:
                mail[primary.REQUEST] = primary.VERIFY
        if happens["adversary"] and node.role == PRIMARY:
            self.meddle(node)

    def meddle(self, node: Node) -> None:
        """Somebody changes what is under way to a peer, or from it."""
        draw, cluster = self.random, self.cluster
        for slot, socket in enumerate(node.state.sockets.tolist()):
            if socket < 0:
                continue
            stream = socket if draw.random() < 0.7 else socket ^ 1
            row = cluster.stream[stream]
            read, written = int(row[pretend.READ]), int(row[pretend.WRITTEN])
            if written - read < record.HEADER_BYTES:
                continue
            places = np.arange(read, written) % RING
            flying = cluster.glass[stream, places]
            first = -read % 64
            begins = [at for at in range(first, flying.size - 7, 64) if bytes(flying[at : at + 4]) == b"FRW1"]
            how = draw.choice(("flip", "drop", "double", "swap", "oversize"))
            if how == "flip" or len(begins) < 3:
                how = "flip"
                bit = draw.randrange(8 * flying.size)
                flying[bit >> 3] ^= 1 << (bit & 7)
            elif how == "oversize":
                at = draw.choice(begins[:-1])
                flying[at + 12 : at + 16] = (255, 255, 255, draw.choice((0, 15, 127)))
            else:
                index = draw.randrange(len(begins) - 2)
                a, b, c = begins[index : index + 3]
                one, two = flying[a:b], flying[b:c]
                parts = {"drop": (two,), "double": (one, one, two), "swap": (two, one)}[how]
                flying = np.concatenate((flying[:a], *parts, flying[c:]))
                if flying.size > RING:
                    continue
            added = flying.size - (written - read)
            cluster.glass[stream, (read + np.arange(flying.size)) % RING] = flying
            row[pretend.WRITTEN] += added
            if added:
                for segment in range(int(row[pretend.SEGMENT_HEAD]), int(row[pretend.SEGMENT_TAIL])):
                    place = segment % pretend.SEGMENTS
                    last = segment == int(row[pretend.SEGMENT_TAIL]) - 1
                    end = int(cluster.segment_end[stream, place])
                    cluster.segment_end[stream, place] = row[pretend.WRITTEN] if last else min(end, int(row[pretend.WRITTEN]))
            self.tell(f"{how} in what is under way {'to' if stream == socket else 'from'} peer {slot} of replica {node.index}")

    def heal(self) -> None:
        """No more trouble: everybody comes back, somebody leads, and all become equal."""
        cluster = self.cluster
        self.tell("everything heals")
        cluster.partition([])
        cluster.delay_ns = 200_000
        self.quantum_ns = max(self.quantum_ns, 400_000)
        self.paused.clear()
        for node in cluster.nodes:
            node.world.at[pretend.FLUSH_NS] = 100_000
            if node.world.at[pretend.POWER_IN] != 0:
                node.world.at[pretend.POWER_IN] = node.world.at[pretend.FAIL_IN] = -1
        for _ in range(HEALING_TICKS):
            self.tick(False)
            if self.is_whole():
                break
        else:
            raise Anomaly(f"not whole {HEALING_TICKS} ticks after healing: {self.describe()}")
        check.check_equal(cluster)
        for node in cluster.nodes:
            check.check_prefix(node, cluster.terms)
        leader = cluster.leader()
        assert leader is not None
        self.tell(f"whole at write {int(leader.journal.at[log.STAGED_SEQUENCE])} of epoch {leader.term.epoch}")

    def describe(self) -> str:
        """Where everybody stands."""
        return "; ".join(self.describe_one(node) for node in self.cluster.nodes)

    def describe_one(self, node: Node) -> str:
        """Where one replica stands."""
        at = node.journal.at
        positions, sequences = at[log.TAIL : log.STAGED + 1].tolist(), at[log.TAIL_SEQUENCE : log.STAGED_SEQUENCE + 1].tolist()
        told = f"{node.index} {node.role} at {positions} {sequences} epoch {int(at[log.EPOCH])} flags {int(at[log.FLAGS])}"
        if node.role == PRIMARY:
            states, completed = node.state.peer[:, primary.STATE].tolist(), int(node.state.at[primary.COMPLETED])
            told += f" peers {states} completed {completed}"
        return told

    def is_whole(self) -> bool:
        """Whether one primary leads and every other replica has everything, durable and applied."""
        leader = self.cluster.leader()
        if leader is None or any(node.role in (PRIMARY, DOWN) for node in self.cluster.nodes if node is not leader):
            return False
        end = leader.journal.at[log.STAGED_SEQUENCE]
        if leader.state.at[primary.COMPLETED] != end or (leader.state.peer[:, primary.STATE] != primary.LIVE).any():
            return False
        if (leader.state.peer[:, primary.DURABLE] != end).any():
            return False
        return all(
            node.journal.at[log.APPLIED_SEQUENCE] == end and not node.journal.at[log.FLAGS] & log.INCONSISTENT
            for node in self.cluster.nodes
        )


def tell(seed: int, bug: str = "") -> Told:
    """One seed's story."""
    story = Story(seed, bug)
    broken = None
    try:
        story.run()
    except Anomaly as found:
        broken = str(found)
        story.tell(f"BROKEN: {broken}")
    except (AssertionError, ValueError, IndexError) as failure:  # A loop of the engine has itself found what must not be.
        broken = f"a loop failed: {failure!r}"
        story.tell(f"BROKEN: {broken}")
    cluster = story.cluster
    for node in cluster.nodes:
        story.hash.update(node.world.cached.tobytes())
        story.hash.update(node.journal.at.tobytes())
    return Told(
        seed, story.hash.hexdigest(), broken, story.lines, cluster.number,
        sum(max(term.completed - term.boundary, 0) for term in cluster.terms.values()), max(cluster.terms), story.ticks,
    )  # fmt: skip
