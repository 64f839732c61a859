"""What happens to a cluster, drawn from one seed: writes, reads, crashes, cuts, failing disks, elections; then everything heals.

`tell` retells one seed; the same seed gives the same story, line by line, on every machine.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field

from ...base.host import pretend_kernel as pretend
from ...base.units import counted
from .. import journal_kernel as log
from .. import primary_kernel as primary
from .. import replica_kernel as replica
from .. import snapshot_kernel as snapshot
from ..ballot import Question
from . import adversary, check
from .arbiter import Arbiter
from .changing_replicas import ChangingReplicas
from .check import Anomaly
from .cluster import DOWN, LARGE, PRIMARY, READ_BYTES_MAX, SECONDARY, SMALL, TINY, TRIM, WRITE, ZEROS, Cluster, Node
from .elections import Elections
from .focus import ALIGNED_SIZES, OPERATIONS_MAX, Focus
from .lying_disk import LyingDisks

# Without a peer nothing else is asked of a write than to be durable here; "local" says that it is meant so.
ALONE = {"C": primary.C, "local": primary.LOCAL}
PROTOCOLS = {"C": primary.C, "quorum": primary.QUORUM, "C2": primary.TWO_TRIP, "A": primary.A, "B": primary.B}
POLICIES = {
    "block": primary.BLOCK, "consent": primary.CONSENT, "suspend-replication": primary.SUSPEND_REPLICATION, "end": primary.END,
}  # fmt: skip
SIZES = (512, 512, 1024, 2048, 4096, 8192)
HEALING_TICKS = 3000
ALONE_SHARE = 0.03  # Little can happen to one replica.
WRITING_TICKS = 300  # In which a write must complete once everything is whole.
SKEW_NS_MAX = 3_600_000_000_000
ENOSPC, EIO = 28, 5
COMPARE = "compare-and-write"
EMPTY_ARE_REFUSED = hasattr(replica, "INVALID_WRITE")  # Whether a write of no bytes is refused before it is staged.

HEAD_BYTES = snapshot.TableHead.LAYOUT.itemsize
TENDING_TICKS = 1000  # In which the room of what was deleted is given back.

DESCRIBED = ("tail", "applied", "durable", "sealed", "staged")  # Positions that a story's lines tell.


@dataclass(frozen=True)
class StoryResult:
    """How one story went."""

    seed: int
    digest: str
    broken: str | None
    lines: list[str]
    writes: int
    completed: int
    epochs: int
    ticks: int
    counts: dict[str, int] = field(default_factory=dict)  # what it went through, by name


class Story:
    """One seed's cluster and what happens to it."""

    lies: LyingDisks | None = None
    changing: ChangingReplicas | None = None

    def __init__(self, seed: int, bug: str = "") -> None:
        self.random = draw = random.Random(seed)
        self.focus = focus = Focus(seed)
        self.lines: list[str] = []
        self.hash = hashlib.blake2b(digest_size=8)
        self.ticks = 0
        count = draw.choice((2, 2, 3, 3, 4, 5))
        self.protocol = draw.choice(tuple(PROTOCOLS))
        self.policy = draw.choice((*POLICIES, "consent"))  # The one in which most is decided.
        count, self.protocol, self.policy = focus.cluster_of(count, self.protocol, self.policy)
        if self.protocol == "quorum":
            count = max(count, 3)
            self.policy = "block"
        quorum = count // 2 + 1 if draw.random() < 0.8 else count
        congestion = primary.PULL_AHEAD if self.protocol == "A" and draw.random() < 0.7 else primary.WAIT
        swarm = random.Random(f"swarm of {seed}")  # Of its own, as above: few replicas are alone.
        if self.protocol != "quorum" and swarm.random() < ALONE_SHARE and focus.mix is None:
            count, quorum, self.protocol = 1, 1, swarm.choice(tuple(ALONE))
        self.cluster = cluster = Cluster(
            count, (PROTOCOLS | ALONE)[self.protocol], POLICIES[self.policy], congestion, quorum, seed, self.tell, bug,
            focus.shape_of(draw.choice((TINY, TINY, SMALL, LARGE))), draw,
        )  # fmt: skip
        cluster.latency_budget_ns = draw.choice((0, 300_000, 3_000_000))
        self.quantum_ns = draw.choice((100_000, 300_000, 800_000))
        cluster.peer_timeout_ns = self.quantum_ns * draw.choice((10, 30, 100))
        cluster.sync_ns = self.quantum_ns * draw.choice((0, 2, 10))
        self.elections: Elections | None = None
        if focus.is_voting(draw.random() < 0.5):
            witness = draw.random() < (0.8 if count % 2 == 0 else 0.3)
            changing = ChangingReplicas(self, seed)
            self.changing = changing if changing.is_on else None
            self.elections = Elections(cluster, witness, changing.apart if changing.is_on else 0)
            network = self.elections.network
            network.loss_ratio, network.doubled_ratio = draw.choice((0.0, 0.05, 0.3)), draw.choice((0.0, 0.1))
            network.delay_ns_max = self.quantum_ns * draw.choice((1, 2, 6)) // 2
            self.elections.ask_ns_max = 3 * network.delay_ns_max + 4 * self.quantum_ns
            # An election is three round trips, and a tick half a quantum.
            self.elections.stand_chance = draw.choice((0.3, 0.3, 1.0)) / max(8.0, 12 * network.delay_ns_max / self.quantum_ns)
        self.arbiter = Arbiter(cluster)
        cluster.membership = self.elections or self.arbiter
        healing = draw.choice((0.01, 0.03))
        # Which troubles this story knows, and how often they come, by tick.
        self.trouble = {
            name: rate if draw.random() < share else 0.0
            for name, rate, share in (
                ("crash", 0.006, 0.6), ("power", 0.006, 0.6), ("cut", 0.02, 0.7), ("heal", healing, 1.0), ("reset", 0.006, 0.5),
                ("refuse", 0.002, 0.2), ("slow", 0.02, 0.6), ("flip", 0.3, 0.7), ("adversary", 0.08, 0.3),
                ("depose", 0.012, 0.5), ("pause", 0.01, 0.5), ("verify", 0.01, 0.2), ("jump", 0.01, 0.3),
                ("superblock", 0.06, 0.5), ("forge", 0.06, 0.3), ("ballot", 0.05, 0.4), ("hand over", 0.02, 0.4),
                ("witness", 0.01, 0.5), ("stray", 0.02, 0.3), ("blackhole", 0.01, 0.4), ("stall", 0.01, 0.4),
            )
        }  # fmt: skip
        self.trouble |= focus.rates()
        sizes_max = cluster.shape.write_bytes_max
        self.sizes = tuple(size for size in ALIGNED_SIZES if size <= sizes_max) if focus.is_aligned else SIZES
        self.hurry = draw.choice((0.2, 0.6, 0.95))
        self.read_share = draw.choice((0.0, 0.2, 0.6))
        self.asking = random.Random(f"clients of {seed}")  # Of its own: a story without them is as it was before there were any.
        self.asks_more = self.asking.random() < 0.5  # Whether clients ask for more than writes, trims and reads.
        self.taking = random.Random(f"snapshots of {seed}")
        takes = self.taking.choice((0.0, 0.05, 0.2)), self.taking.choice((0.03, 0.15))
        self.takes = focus.takes_of(takes)  # snapshots a turn, and deletions
        self.length = draw.choice((80, 150, 300, 500))
        self.limiting = random.Random(f"room of {seed}")
        self.limits = self.limiting.choice((0.0, 0.0, 0.01, 0.05))  # changes of what volumes may take, by tick
        self.paused: dict[int, int] = {}
        self.cut_until = 0  # Until then the network stays as it is.
        self.stalled: dict[int, int] = {}  # by replica: until when its disk answers nothing
        self.lies = LyingDisks(self, seed) if self.changing is None else None  # What differs is compared in stories of its own.
        cluster.counts[f"stories with {counted(count, 'replica')}"] = cluster.counts[f"stories under {self.protocol}"] = 1
        if focus.name:
            cluster.counts[f"stories about {focus.name}"] = 1
        by = "an arbiter" if self.elections is None else f"votes{' and a witness' if self.elections.witness else ''}"
        if self.changing is not None and self.elections is not None:
            cluster.counts["stories in which replicas come and go"] = 1
            by = f"the votes of {', '.join(self.elections.names)}, while {len(cluster.nodes) - count} more may come"
        self.tell(f"seed {seed}: {count} replicas, led by {by}, protocol {self.protocol}, policy {self.policy}, quorum {quorum}, "
                  f"{', '.join(name for name, rate in self.trouble.items() if rate)}"
                  f"{f'; about {focus.name}' if focus.name else ''}")

    def tell(self, line: str) -> None:
        line = f"{self.ticks:5d} {line}"
        self.lines.append(line)
        self.hash.update(line.encode())

    def run(self) -> None:
        """The troubled part, then the healing; Anomaly when an invariant does not hold."""
        for node in self.cluster.nodes:
            node.world.at[0].flush_ns = 100_000
            node.world.at[0].skew_ns = self.random.randrange(SKEW_NS_MAX)  # Machines boot when they like.
        if self.elections is None:
            self.arbiter.elect(self.cluster.nodes[0])
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
        self.begin_processes(troubled)
        if self.changing is not None:
            self.changing.tick(troubled)
        cluster.asleep = {cluster.names[index] for index, until in self.paused.items() if until > self.ticks and troubled}
        for node in cluster.nodes:
            node.ring.at[0].stalled = int(self.stalled.get(node.index, 0) > self.ticks and troubled)
        cluster.membership.control(troubled)
        order = cluster.nodes[:]
        draw.shuffle(order)
        for node in order:
            if node.name in cluster.asleep:
                continue
            if node.role == PRIMARY and troubled and not node.successor and draw.random() < self.hurry:
                self.write(node)
            if node.role == PRIMARY and troubled and draw.random() < self.read_share:
                self.read(node)
            if node.role == PRIMARY and troubled and not node.successor:
                self.take_snapshots(node)
            cluster.turn(node)
            if node.role == PRIMARY and troubled and draw.random() < self.read_share:
                self.read(node)
            if troubled and self.focus.has_come(node):
                self.follow_moment(node)
            if node.world.at[0].power_in == 0:
                cluster.crash(node, draw.getrandbits(62), draw.choice((0, 64, 128, 192, 256)), True, draw.random() < 0.5)
            elif node.role != DOWN and self.ticks % 8 == node.index:
                check.check_prefix(node, cluster.terms)

    def write(self, node: Node) -> None:
        """Submit a write or two, or what else clients ask for; at times a write of no bytes."""
        draw, shape = self.random, self.cluster.shape
        for _ in range(draw.choice((1, 1, 2, 4, 6))):
            size = min(draw.choice(self.sizes), shape.write_bytes_max)
            address = 512 * draw.randrange((shape.volume_bytes - size) // 512 + 1)
            kind = TRIM if draw.random() < 0.05 else WRITE
            if EMPTY_ARE_REFUSED and draw.random() < 0.02:
                size = 0
            if self.asks_more and size > 0:
                kind = self.asking.choices((kind, ZEROS, COMPARE), (0.8, 0.1, 0.1))[0]
                if self.asking.random() < 0.1:
                    self.cluster.flush(node)
            if kind == COMPARE:
                differs_at = self.asking.choice((-1, self.asking.randrange(size)))
                is_taken = self.cluster.compare_and_write(node, address, size, differs_at)
            else:
                is_taken = self.cluster.submit(node, kind, address, size)
            if not is_taken or node.role != PRIMARY:
                return

    def follow_moment(self, node: Node) -> None:
        """What the story watches has just changed here: soon the power goes out, or the primary is lost or cut off."""
        draw, cluster = self.focus.random, self.cluster
        leader = cluster.leader()
        cluster.counts["moments that trouble followed"] += 1
        if self.focus.moment not in ("peers", "configuration") or leader is None or draw.random() < 0.3:
            if node.role != DOWN and node.world.at[0].power_in != 0:
                node.world.at[0].power_in = draw.randrange(OPERATIONS_MAX)
        elif draw.random() < 0.5:
            leader.world.at[0].power_in = 0  # It is gone behind its next turn, or this one.
        else:
            others = [place for place in range(cluster.place_count) if place != leader.index]
            cluster.partition([(leader.index, place) for place in others])
            self.cut_until = self.ticks + draw.choice((0, 20, 100))
            self.tell(f"cut: {[leader.index]} from the rest")

    def take_snapshots(self, node: Node) -> None:
        """Take a snapshot, or delete one."""
        takes, deletes = self.takes
        if self.taking.random() < takes:
            self.cluster.take_snapshot(node)
        elif takes and self.taking.random() < deletes:
            self.cluster.delete_snapshot(node, self.taking.randrange(8))

    def read(self, node: Node) -> None:
        """Read anything, at times across the volume's end."""
        draw, shape = self.random, self.cluster.shape
        size = draw.choice((512, 1024, 4096, READ_BYTES_MAX))
        self.cluster.read(node, draw.randrange(shape.volume_bytes), size)

    def begin_processes(self, troubled: bool) -> None:
        """Whoever is down comes back, sooner or later."""
        draw, cluster = self.random, self.cluster
        for node in cluster.nodes:
            if node.role == DOWN and (not troubled or draw.random() < 0.04):
                again = troubled and self.trouble["power"] and draw.random() < 0.2
                power_in = draw.randrange(1, 12) if again else -1
                power_in = self.focus.power_in(power_in) if troubled else power_in
                cluster.restart(node, power_in, draw.getrandbits(62), draw.choice((0, 64, 128, 192, 256)))

    def make_trouble(self) -> None:
        """What goes wrong in this tick."""
        draw, cluster = self.random, self.cluster
        happens = {name: draw.random() < rate for name, rate in self.trouble.items()}
        if self.ticks < self.cut_until:
            happens |= {"cut": False, "heal": False, "blackhole": False}
        node = draw.choice(cluster.nodes)
        key, share = draw.getrandbits(62), draw.choice((0, 64, 128, 192, 256))
        if happens["crash"]:
            leader = cluster.leader()
            if leader is not None and draw.random() < 0.3:  # Its process alone: whoever it led is told at once.
                cluster.crash(leader, key, share, False, False)
            else:
                cluster.crash(node, key, share, draw.random() < 0.7, draw.random() < 0.3)
        if happens["power"] and node.role != DOWN and node.world.at[0].power_in != 0:
            node.world.at[0].power_in = draw.randrange(1, 12)
        if happens["refuse"] and node.role != DOWN:
            node.world.at[0].fail_errno = draw.choice((EIO, ENOSPC))
            node.world.at[0].fail_in = draw.randrange(1, 12)
        if self.takes[0] and self.taking.random() < 0.004 and node.role != DOWN:
            node.world.at[0].kept_fail_in = self.taking.randrange(12)
            self.tell(f"the disk of replica {node.index} has no room for what is to be kept for snapshots")
        if happens["cut"]:
            leader = cluster.leader()
            if leader is not None and draw.random() < 0.4:
                side = {leader.index}  # Alone, and does not know it: whoever is left elects another, given the time.
                self.cut_until = self.ticks + draw.choice((0, 60, 200))
            else:
                side = {other.index for other in cluster.nodes if draw.random() < 0.5}
                if self.elections is not None:
                    side |= {self.elections.place(name) for name in self.elections.apart if draw.random() < 0.5}
            pairs = [(a, b) for a in side for b in range(cluster.place_count) if b not in side]
            cluster.partition(pairs)
            self.tell(f"cut: {sorted(side)} from the rest")
        if happens["blackhole"]:
            ways = [tuple(draw.sample(range(cluster.place_count), 2)) for _ in range(draw.choice((1, 1, 2)))]
            cluster.partition(cluster.cut, ways)
            self.tell(f"lost in one direction: {', '.join(f'{one} to {other}' for one, other in ways)}")
        if happens["stall"] and node.role != DOWN:
            self.stalled[node.index] = self.ticks + draw.choice((3, 20, 100))
            self.tell(f"the disk of replica {node.index} answers nothing until {self.stalled[node.index]}")
            cluster.counts["disks that answered nothing"] += 1
        if happens["heal"] and (cluster.cut or cluster.blackholes):
            cluster.partition([])
            self.tell("the network heals")
        if happens["reset"] and node.sockets:
            self.tell(f"connections of replica {node.index} are reset")
            cluster.reset(node)
        if happens["slow"]:
            node.world.at[0].flush_ns = draw.choice((10_000, 100_000, 3_000_000))
            cluster.delay_ns = draw.choice((10_000, 200_000, 2_000_000))
        if happens["pause"]:
            self.paused[node.index] = self.ticks + draw.randrange(5, 60)
        if happens["jump"]:  # As after a machine was suspended: its clock has gone on without it.
            jump_ns = draw.choice((5_000_000, 50_000_000, 10_000_000_000))
            node.world.at[0].skew_ns += jump_ns
            self.tell(f"the clock of replica {node.index} jumps by {jump_ns // 1_000_000} ms")
        if happens["depose"]:
            other = draw.choice(cluster.nodes)
            if (self.elections or self.arbiter).depose(other):
                self.tell(f"replica {other.index} is to lead")
        if self.elections is not None:
            self.trouble_voters(self.elections, happens)
        down = [one for one in cluster.nodes if one.role == DOWN]
        if happens["flip"] and down:
            self.damage_journal(draw.choice(down))
        if happens["superblock"] and down:
            self.damage_superblock(draw.choice(down))
        if happens["verify"] and node.role == PRIMARY and len(cluster.nodes) > 1:
            control_request = draw.choice(node.state.control_requests)
            if control_request.request == primary.NOTHING:
                control_request.request = primary.VERIFY
        if happens["adversary"] and node.role == PRIMARY:
            adversary.meddle(cluster, node, self.focus.bit_of_frame)
        if happens["forge"] and node.role == PRIMARY:
            adversary.forge(cluster, node)
        if self.limits and self.limiting.random() < self.limits:
            cluster.limit(self.limiting.choice((0.0, 0.1, 0.3, 0.6, 0.9, 1.2)))
        if self.lies is not None:
            self.lies.make_trouble()

    def may_damage_journal(self, node: Node) -> bool:
        """Whether what a journal has lost can be made good.

        A log that loses its durable end, and cannot know it, is more than votes can make good. Nor is the only whole replica
        damaged, while others are gone on without or are in the middle of a copy, or come into the middle of one by what the last
        primary has sent them before it was lost.
        """
        cluster = self.cluster
        is_only = any(not one.is_sound for one in cluster.nodes) or bool(self.arbiter.out - {node.index})
        is_only |= node.index == cluster.newest.leader and any(one.role == SECONDARY for one in cluster.nodes)
        is_only |= len(cluster.nodes) == 1
        # One thing at a time is made good.
        return self.elections is None and not is_only and not node.is_superblock_damaged

    def damage_journal(self, node: Node) -> None:
        """A bit flips in a journal."""
        cluster = self.cluster
        if not self.may_damage_journal(node):
            return
        bit = self.focus.bit_to_flip(node, self.bit_to_flip(node))
        in_superblock = bit < 8 * log.SUPERBLOCK_BYTES
        if not in_superblock or node.are_superblocks_whole():
            pretend.flip_bit(node.world.journal, bit)
            node.is_damaged = True
            node.is_superblock_damaged |= in_superblock
            cluster.counts["bits flipped in journals"] += 1
            self.tell(f"bit {bit} of the journal of replica {node.index} flips")

    def bit_to_flip(self, node: Node) -> int:
        """A bit of a journal: most often in its last two blocks, where damage and a torn batch look alike."""
        capacity = self.cluster.shape.capacity_bytes
        if self.random.random() < 0.4:
            return self.random.randrange(8 * (log.SUPERBLOCK_BYTES + capacity))
        position = int(node.known.durable) - self.random.randrange(1, 2 * log.BLOCK_BYTES)
        return 8 * (log.SUPERBLOCK_BYTES + position % capacity) + self.random.randrange(8)

    def damage_superblock(self, node: Node) -> None:
        """A bit flips in what one superblock says: the other one is whole, and loses nothing."""
        if not (node.is_damaged or node.is_superblock_damaged) and node.are_superblocks_whole():
            node.is_superblock_damaged = True
            which = self.random.randrange(2)
            bit = 8 * log.BLOCK_BYTES * which + self.random.randrange(8 * (replica.CRC_OFFSET + 8))
            if self.taking.random() < 0.3:
                bit = 8 * (log.BLOCK_BYTES * which + snapshot.HEAD_AT) + self.taking.randrange(8 * HEAD_BYTES)
            pretend.flip_bit(node.world.journal, bit)
            self.tell(f"a bit of superblock {which} of replica {node.index} flips")
            self.cluster.counts["superblocks damaged"] += 1

    def trouble_voters(self, elections: Elections, happens: dict[str, bool]) -> None:
        """What goes wrong with ballots and voters, and who is told to hand over."""
        draw, cluster = self.random, self.cluster
        if happens["witness"] and elections.witness is not None:
            voters = list(elections.apart.values())
            voter = voters[0] if len(voters) == 1 else draw.choice(voters)
            if voter.answers:
                voter.world.at[0].power_in = draw.randrange(4)
        if happens["ballot"]:
            elections.damage()
        if happens["stray"]:
            elections.ask_astray(draw.choice(cluster.nodes))
        leader = cluster.leader()
        if happens["hand over"] and leader is not None and len(cluster.nodes) > 1:
            to = draw.choice([other.name for other in cluster.nodes if other is not leader])
            leader.voter.answer_to(Question("hand_over", "operator", members=(to,)))
            self.tell(f"replica {leader.index} is told to hand over to {to}")

    def heal(self) -> None:
        """No more trouble: everybody comes back, somebody leads, and all become equal."""
        cluster = self.cluster
        self.tell("everything heals")
        cluster.partition([])
        if self.limits:
            cluster.limit(0.0)
        cluster.delay_ns, cluster.sync_ns = 200_000, 0
        self.quantum_ns = max(self.quantum_ns, 400_000)
        self.paused.clear()
        self.stalled.clear()
        worlds = [node.world for node in cluster.nodes]
        if self.elections is not None:
            self.elections.network.loss_ratio, self.elections.stand_chance = 0.0, 0.03
            self.elections.network.delay_ns_max, self.elections.ask_ns_max = 100_000, 4 * self.quantum_ns
            worlds += [voter.world for voter in self.elections.apart.values()]
        for world in worlds:
            world.at[0].flush_ns = 100_000
            world.at[0].kept_fail_in = -1
            if world.at[0].power_in != 0:
                world.at[0].power_in = world.at[0].fail_in = -1
        if self.lies is not None:
            self.lies.heal()
        if self.changing is not None:
            self.changing.end_moves()
        self.become_whole()
        self.write_once_more()
        self.become_whole()
        self.give_room_back()
        if self.lies is not None:
            self.lies.repair()
        check.check_equal(cluster)
        for node in cluster.replicas():
            check.check_prefix(node, cluster.terms)
            check.check_tended(node)
        leader = cluster.leader()
        assert leader is not None
        self.tell(f"whole at write {int(leader.journal.at[0].staged_sequence)} of epoch {leader.term.epoch}")

    def become_whole(self) -> None:
        """Convergence: within so many ticks one leads and all others have everything."""
        begin = self.ticks
        for _ in range(HEALING_TICKS):
            self.tick(False)
            if self.is_whole():
                break
        else:
            raise Anomaly(f"not whole {HEALING_TICKS} ticks after healing: {self.describe()}")
        counts = self.cluster.counts
        counts["ticks to become whole, at most"] = max(counts["ticks to become whole, at most"], self.ticks - begin)

    def give_room_back(self) -> None:
        """Every replica empties the places of deleted snapshots, and stays whole meanwhile."""
        for _ in range(TENDING_TICKS):
            if not any(node.journal.snapshots.at[0].todo for node in self.cluster.replicas()) and self.is_whole():
                return
            self.tick(False)
        raise Anomaly(f"deleted snapshots take room {TENDING_TICKS} ticks after everything was whole: {self.describe()}")

    def write_once_more(self) -> None:
        """Liveness: a write that is begun now completes within so many ticks, whoever leads then."""
        cluster, begin = self.cluster, self.ticks
        sequence, term = 0, None
        while True:
            leader = cluster.leader()
            if leader is not None and leader.term is not term and cluster.submit(leader, WRITE, 0, 512):
                sequence, term = int(leader.journal.at[0].staged_sequence), leader.term
            if term is not None and leader is not None and leader.term is term and leader.state.at[0].completed >= sequence:
                break
            if self.ticks - begin > WRITING_TICKS:
                raise Anomaly(f"a write has not completed {WRITING_TICKS} ticks after everything was whole: {self.describe()}")
            self.tick(False)
        counts = cluster.counts
        counts["ticks to write once more, at most"] = max(counts["ticks to write once more, at most"], self.ticks - begin)

    def count_passes(self) -> None:
        """How often positions have gone around memories and files: they never go back, whoever restarts."""
        counts, shape = self.cluster.counts, self.cluster.shape
        for node in self.cluster.nodes:
            at = node.journal.at[0]
            counts["staging rings wrapped"] += int(at.staged) // shape.staging_bytes
            counts["laps of a journal"] += int(at.staged) // shape.capacity_bytes
            counts["superblocks written"] += int(at.generation)
            keeping = node.journal.snapshots.at[0]
            counts["blocks kept for snapshots"] += int(keeping.kept_ever)
            counts["blocks moved to an older snapshot"] += int(keeping.moved)
            counts["snapshots given up"] += int(keeping.given_up)
        if self.elections is not None:
            counts["control messages doubled"] += self.elections.network.doubled
            counts["control messages overtaken"] += self.elections.network.overtaken

    def describe(self) -> str:
        """Where everybody stands."""
        return "; ".join(self.describe_one(node) for node in self.cluster.nodes)

    def describe_one(self, node: Node) -> str:
        """Where one replica stands."""
        at = node.journal.at[0]
        positions, sequences = ([int(at[name + of]) for name in DESCRIBED] for of in ("", "_sequence"))
        told = f"{node.index} {node.role} at {positions} {sequences} epoch {int(at.epoch)} flags {int(at.flags)}"
        if self.elections is not None:
            ballot = node.voter.ballot
            told += f" promised {ballot.epoch} to {ballot.candidate or 'nobody'}"
            told += f" members of {ballot.age} {' '.join(ballot.members)}"
        if node.role == PRIMARY:
            states, completed = node.state.peer["state"].tolist(), int(node.state.at[0].completed)
            told += f" peers {states} completed {completed}"
        return told

    def is_whole(self) -> bool:
        """Whether one primary leads and every other replica has everything, durable and applied."""
        leader = self.cluster.leader()
        nodes = self.cluster.replicas(leader)
        if leader is None or any(node.role in (PRIMARY, DOWN) for node in nodes if node is not leader):
            return False
        end = leader.journal.at[0].staged_sequence
        if leader.state.at[0].completed != end:
            return False
        if self.changing is not None:
            if not self.changing.is_whole(leader):
                return False
        elif (leader.state.peer["state"] != primary.LIVE).any() or (leader.state.peer["durable"] != end).any():
            return False
        if not self.cluster.membership.is_whole(leader):
            return False
        return all(
            node.journal.at[0].applied_sequence == end and not node.journal.at[0].flags & log.INCONSISTENT for node in nodes
        )


def tell(seed: int, bug: str = "") -> StoryResult:
    """One seed's story."""
    story = Story(seed, bug)
    broken = None
    try:
        story.run()
    except Anomaly as found:
        broken = str(found)
        story.tell(f"BROKEN: {broken}")
    except (AssertionError, ArithmeticError, LookupError, ValueError) as failure:  # A loop has itself found what must not be.
        broken = f"a loop failed: {failure!r}"
        story.tell(f"BROKEN: {broken}")
    cluster = story.cluster
    story.count_passes()
    for node in cluster.nodes:
        story.hash.update(node.world.cached.tobytes())
        story.hash.update(node.journal.at.tobytes())
    return StoryResult(
        seed, story.hash.hexdigest(), broken, story.lines, cluster.number,
        sum(max(term.completed - term.boundary, 0) for term in cluster.terms.values()), max(cluster.terms), story.ticks,
        dict(sorted(cluster.counts.items())),
    )  # fmt: skip
