"""Replicas, their disks and the network between them, in one world in memory; the verbs of a story are its methods.

Each replica runs the engine's own loop, a turn at a time. What a control thread does in a real node (meet, promise, lead,
replay) is done here between two turns. Who leads, and which replicas must hold every write, is decided by `membership`: by
votes (elections.py), or by a perfect arbiter (arbiter.py).
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, NamedTuple, Protocol

import numpy as np

from ...base.errors import UnfitError
from ...base.host import pretend_kernel as pretend
from ...base.host import reactor
from ...base.row import rows_of
from ...base.shared_counters import SharedCounters
from .. import journal as replaying
from .. import journal_kernel as log
from .. import primary_kernel as primary
from .. import record_kernel as record
from .. import replica_kernel as replica
from .. import room_kernel as room
from .. import secondary_kernel as secondary
from .. import snapshot_kernel as snapshot
from .. import turn_kernel
from ..ballot import Question
from ..handshake import hello_of, how_to_join, lead
from ..replica_set import PeerRows
from . import check
from .check import EXTENT_BYTES, Anomaly, Shadow, Term, Write
from .voting import Inquiry, Voter

VOLUME = 7
CONNECTIONS, RESYNC_BUFFER, WATERMARK_AFTER_NS = 24, 16 << 10, 5_000_000
READ_BYTES_MAX = 8192
PICTURES_MAX = 64  # No snapshot that is still listed somewhere is so many behind.
NOBODY = np.full(1, -1, np.int64)
ADDED_MAX = 2  # Replicas that may come in a story, besides those that it begins with.

WRITE, TRIM, ZEROS = "write", "trim", "write of zeros"  # What a client submits.

DOWN, IDLE, SETTLING, SECONDARY, PRIMARY = "down", "idle", "settling", "secondary", "primary"

# Bugs that can be planted, to prove that the simulator finds them.
HASTY, UNFENCED, UNCHECKED, OFF_BY_ONE, FORGETFUL = "hasty", "unfenced", "unchecked", "off by one", "forgetful"
UNKEPT, UNASKED, UNLAID = "ballots not kept", "struck unasked", "reads without the journal"
UNBARRED, STALE = "a flush of what is durable", "a compare with what is durable"
EARLY, DROPPED = "applied before what it overwrites is durable", "a deleted snapshot's blocks are dropped"
DEAF, TRUSTING, BLIND = "bad sectors read as zeros", "the end of a log believed", "a verify that finds nothing"

LEAVE = ["state", "lost_count", "run_sequence", "granted"]
BY = {primary.BY_LOG: "log", primary.BY_EXTENTS: "extents", primary.BY_DIGESTS: "digests"}


class Shape(NamedTuple):
    """Sizes of a cluster's memories and files. Small ones: a story goes around each of them again and again."""

    staging_bytes: int
    capacity_bytes: int  # of the journal
    write_bytes_max: int
    volume_bytes: int  # the last extent may be a part of one
    inbox_bytes: int = 32 << 10
    buffer_bytes: int = 16 << 10  # of each direction of a connection
    begins: int = 1024  # no fewer than records fit into the staging ring
    lag_ring: int = 1024
    places: int = 6  # of snapshots: three at most are listed


# Four blocks are the smallest staging ring: with two, each batch waits until a superblock has vouched for the one before it.
TINY = Shape(16 << 10, 32 << 10, 2048, (36 << 10) + 1536, 12 << 10, 8 << 10, 256, 64)
SMALL = Shape(16 << 10, 48 << 10, 2048, 64 << 10, 16 << 10, 16 << 10, 256)
LARGE = Shape(32 << 10, 96 << 10, 8192, 64 << 10)


class Membership(Protocol):
    """Who may lead, and whom a primary may go on without."""

    def promise(self, node: Node, leader: Node) -> bool:
        """Have a replica refuse every older epoch than its leader's from now on; False when it cannot be done now."""

    def came_to_rest(self, node: Node) -> None:
        """A replica's last loop has ended, and everything of it is settled."""

    def detached(self, node: Node) -> list[int]:
        """The places, among its peers, of those that a new primary goes on without."""

    def steps_down_for(self, node: Node, other: Node) -> bool:
        """Whether a primary that reaches this replica hears of a newer epoch."""

    def crashed(self, node: Node, key: int, share: int) -> None:
        """A replica has ended."""

    def recall(self, node: Node) -> bool:
        """What a replica that comes back reads besides its journal; False when its disk ends it again."""

    def control(self, troubled: bool) -> None:
        """What control threads and voters do in one tick."""

    def is_whole(self, leader: Node) -> bool:
        """Whether nobody is left out any more."""


def copy_of(journal: log.Journal) -> log.Positions:
    """A journal's positions as they are now. NumPy's own copy goes field by field: 23 us against 2 us."""
    return np.frombuffer(bytearray(journal.at), log.Positions.LAYOUT)[0]


class Node:
    """One replica: its disk, its journal and whatever loop it runs."""

    def __init__(self, cluster, index: int) -> None:
        self.cluster, self.index, self.name = cluster, index, cluster.names[index]
        shape = cluster.shape
        self.world = pretend.world(
            cluster.clock, log.SUPERBLOCK_BYTES + shape.capacity_bytes, shape.volume_bytes,
            max(shape.volume_bytes, shape.staging_bytes), cluster.stream, cluster.in_flight_bytes, cluster.segment_end,
            cluster.segment_due_ns, snapshot.file_bytes_max(shape.volume_bytes, shape.places),
        )  # fmt: skip
        self.shadow = Shadow(np.zeros(shape.volume_bytes, np.uint8))
        self.seen = Shadow(np.zeros(shape.volume_bytes, np.uint8))  # of what its reads must show
        self.submitted = Shadow(np.zeros(shape.volume_bytes, np.uint8))  # of what a compare-and-write is held against
        self.flushes: list[tuple[int, int]] = []  # asked for and not answered: the barrier, and the last write then submitted
        self.durable: dict[int, int] = {}
        self.received: dict[int, int] = {}
        self.lost_until = 0  # it has been durable here up to this write, and is not any more
        self.is_damaged = self.has_crashed = False
        self.damaged_since: int | None = None  # where a log with damage began anew: it stands there as long
        self.is_superblock_damaged = self.is_superblock_torn = False
        self.flags_left = 0  # what its superblocks may say of it: as it was kept last, or as it was to be kept
        self.role = IDLE
        self.state: Any = None  # Primary or Secondary, by role
        self.term: Any = None
        self.wanted_epoch = 0
        self.voter: Voter = Voter(cluster, self.name, self.world, self)
        self.inquiry: Inquiry | None = None
        self.stands_at_once = False
        self.served: Node | None = None  # the primary of its last session
        self.is_powerless = False  # while it is down: its machine does not run either
        self.sync_due_ns = {reactor.VOLUME: 0, reactor.KEPT: 0}  # of the flush of its volume, and of what is kept
        self.rows = PeerRows([name for name in cluster.names if name != self.name], len(cluster.names) - 1)
        self.change = ""  # as a primary: "add NAME" or "remove NAME", to be asked of the voters
        self.successor = ""  # to whom it is to hand over, once that one holds everything
        self.leaves_to = ""  # to whom it is handing over: it says so when its own loop is settled
        self.begin_journal(0)
        self.save()

    def begin_journal(self, epoch: int) -> None:
        shape = self.cluster.shape
        self.ring = reactor.pretended(self.world)
        self.journal = log.journal_state(
            shape.capacity_bytes, shape.staging_bytes, VOLUME, epoch, 0, 0, shape.volume_bytes, EXTENT_BYTES, shape.begins,
            WATERMARK_AFTER_NS, 0, shape.places, self.cluster.count[self.index : self.index + 1],
        )  # fmt: skip

    @property
    def is_up(self) -> bool:
        """Whether its process runs."""
        return self.role != DOWN

    def are_superblocks_whole(self) -> bool:
        """Whether each of the two would be believed alone."""
        for begin in (0, log.BLOCK_BYTES):
            alone = np.zeros(log.SUPERBLOCK_BYTES, np.uint8)
            alone[begin : begin + log.BLOCK_BYTES] = self.world.journal[begin : begin + log.BLOCK_BYTES]
            if replaying.read_superblock(alone) is None:
                return False
        return True

    @property
    def hears_primary(self) -> bool:
        """Whether it leads or is in a session, until everything of that is settled."""
        return self.role in (PRIMARY, SECONDARY, SETTLING)

    @property
    def leads(self) -> bool:
        return self.role == PRIMARY

    def save(self) -> bool:
        """The promise, the flags and the checkpoint of now, durable. A process whose disk refuses that ends."""
        if replica.save(self.journal, self.ring) < 0:
            self.world.at[0].power_in = 0
            return False
        self.remember()
        return True

    @property
    def synced_count(self) -> int:
        """Times its log was begun anew on this connection."""
        return int(self.state.at[0].synced_count) if self.role == SECONDARY else 0

    def remember(self) -> None:
        """What it knows now must outlive a crash. In a turn that its disk has ended, memory may be ahead of what was kept."""
        self.known, self.known_synced = copy_of(self.journal), self.synced_count

    def knew(self) -> log.Positions:
        """What a replica that is gone knew, and what it has told in its last turn. A log begun anew in it may not be kept."""
        at, known = self.journal.at[0], self.known.copy()
        if self.synced_count != self.known_synced:
            return copy_of(self.journal)
        told = self.state.at[0].acked_durable if self.role == SECONDARY else 0
        known.durable_sequence = min(max(known.durable_sequence, told), at.durable_sequence)
        known.flags &= at.flags
        return known

    def ever_durable(self, terms, term: Term, sequence: int) -> bool:
        """Whether this write was ever known durable here."""
        return any(last >= sequence and terms[epoch].holds(term, sequence) for epoch, last in self.durable.items())

    def ever_received(self, terms, term: Term, sequence: int) -> bool:
        """Whether this write was ever received here."""
        return any(last >= sequence and terms[epoch].holds(term, sequence) for epoch, last in self.received.items())

    def note(self) -> None:
        """Remember how far this replica has ever been."""
        at = self.journal.at[0]
        epoch = int(at.log_epoch)
        if epoch not in self.cluster.terms:
            if at.staged_sequence:
                raise Anomaly(f"replica {self.index} has a log of epoch {epoch}, which nobody was granted")
            return
        self.received[epoch] = max(self.received.get(epoch, 0), int(at.staged_sequence))
        durable = int(at.durable_sequence)
        if durable == at.staged_sequence or self.cluster.terms[epoch].epoch_of(durable) == epoch:
            self.durable[epoch] = max(self.durable.get(epoch, 0), int(at.durable_sequence))

    @property
    def is_sound(self) -> bool:
        """Whether this log is a beginning of some history: no mixture, and nothing lost of it."""
        return not (self.journal.at[0].flags & log.INCONSISTENT or self.is_damaged or self.lost_until)

    @property
    def sockets(self) -> list[int]:
        """The connections of whatever runs here, those not yet adopted included."""
        if self.state is None:
            return []
        held = [int(socket) for socket in self.state.sockets if socket >= 0]
        if self.role == PRIMARY:
            held += [int(row.socket) for row in self.state.control_requests if row.request == primary.ADOPT]
        return held


class Cluster:
    """Some replicas and what is between them."""

    membership: Membership

    def __init__(
        self, count: int, protocol: int, policy: int, congestion: int, quorum: int, seed: int, tell, bug: str = "",
        shape: Shape = LARGE, draw: random.Random | None = None,
    ) -> None:  # fmt: skip
        self.protocol, self.policy, self.congestion, self.quorum, self.seed = protocol, policy, congestion, quorum, seed
        self.bug, self.tell, self.shape, self.random = bug, tell, shape, draw or random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.names = self.founders = tuple(f"r{index}" for index in range(count))
        self.place_count = count + 1  # in the network: of the replicas, and of a witness
        self.changes = False  # whether its replicas do
        self.is_moving = False  # whether one is being moved now
        self.clock = np.ones(1, np.int64)
        streams = 2 * CONNECTIONS
        self.stream = rows_of(pretend.Stream, streams)
        self.stream["closed"] = 1
        self.in_flight_bytes = np.zeros((streams, shape.buffer_bytes), np.uint8)
        self.segment_end = np.zeros((streams, pretend.SEGMENTS), np.int64)
        self.segment_due_ns = np.zeros((streams, pretend.SEGMENTS), np.int64)
        self.ends: dict[int, tuple[int, int]] = {}  # by connection: (primary's index, secondary's index)
        self.meddled: set[int] = set()  # connections on which somebody has changed something
        self.forged: dict[int, tuple[int, str]] = {}  # by stream: where a frame that lies begins, and what it says
        self.terms: dict[int, Term] = {0: Term(0, -1, None, 0, begun=True)}
        self.newest = self.terms[0]  # the newest term that has begun
        self.votes: dict[tuple[str, str, int], str] = {}  # by voter, "grant" or "configure", and epoch: to whom it said yes
        self.cut: set[frozenset[int]] = set()
        self.blackholes: set[tuple[int, int]] = set()  # (from, to): what the first says does not reach the second
        self.asleep: set[str] = set()  # whose processes have no processor now
        self.number = 0
        self.delay_ns = 200_000
        self.peer_timeout_ns = 20_000_000
        self.latency_budget_ns = 0
        self.sync_ns = 0  # that a volume's flush takes longer than a journal's write
        self.forgets_votes = bug == UNKEPT
        self.read_bytes = np.zeros(READ_BYTES_MAX, np.uint8)
        self.pictures: dict[tuple[int, int], bytes] = {}  # by epoch and sequence: what a snapshot must show, wherever it is whole
        self.snapshot_bytes = np.zeros(shape.volume_bytes, np.uint8)
        self.count = rows_of(room.Count, count + ADDED_MAX)  # by replica: what its volume takes, and its limit, as on a board
        self.untrusted = np.zeros(shape.volume_bytes, bool)  # bytes of the volume that a disk has lied about, at any replica
        self.nodes = [Node(self, index) for index in range(count)]
        if bug == HASTY:
            for node in self.nodes:
                node.world.at[0].hasty = 1
        if bug == DEAF:
            for node in self.nodes:
                node.world.at[0].deaf = 1

    def begin_changes(self, count: int) -> None:
        """As many more, ADDED_MAX at most, which hold nothing and are no replicas yet, but may become some."""
        self.changes = True
        first = len(self.names)
        self.names = (*self.names, *(f"r{index}" for index in range(first, first + count)))
        self.nodes += [Node(self, index) for index in range(first, first + count)]

    # The network

    def slot(self, node: Node, other: Node) -> int:
        """The place of `other` among the peers of `node`."""
        return node.rows.of(other.name)

    def peer_of(self, node: Node, slot: int) -> Node:
        return self.nodes[self.names.index(node.rows.names[slot])]

    def replicas(self, leader: Node | None = None) -> list[Node]:
        """Those of the volume as this one knows them, or else whoever leads; all that there are where they never change."""
        leader = leader or self.leader()
        named = leader.voter.ballot.replicas if leader is not None else ()
        if not self.changes or leader is None:
            return self.nodes
        names = [one.name for one in named] or self.founders
        return [node for node in self.nodes if node.name in names]

    def is_cut(self, one: Node, other: Node) -> bool:
        """Whether the two cannot speak with each other: that takes both directions."""
        pair = one.index, other.index
        return frozenset(pair) in self.cut or pair in self.blackholes or pair[::-1] in self.blackholes

    def partition(self, pairs, blackholes=()) -> None:
        """Cut exactly these pairs of replicas from each other, and exactly these directions (from, to)."""
        self.cut, self.blackholes = {frozenset(pair) for pair in pairs}, set(blackholes)
        for connection, (one, other) in self.ends.items():
            is_cut = frozenset((one, other)) in self.cut
            for stream, way in ((2 * connection, (one, other)), (2 * connection + 1, (other, one))):
                self.stream[stream].stalled = 1 if is_cut or way in self.blackholes else 0

    def socket_pair(self, one: Node, other: Node) -> int | None:
        """A fresh connection's first socket, None when all are in use."""
        for connection in range(CONNECTIONS):
            first = 2 * connection
            if self.stream[first].closed and self.stream[first + 1].closed:
                if any(first <= socket <= first + 1 for node in self.nodes if node.role != DOWN for socket in node.sockets):
                    continue
                pretend.connect(one.world, first, self.delay_ns, self.delay_ns)
                self.meddled.discard(connection)
                self.forged.pop(first, None)
                self.forged.pop(first + 1, None)
                self.ends[connection] = (one.index, other.index)
                return first
        return None

    def reset(self, node: Node) -> None:
        """All connections of a replica end, as its peers will hear."""
        for socket in node.sockets:
            pretend.hang_up(node.world, socket)

    # Disks and processes

    def crash(self, node: Node, key: int, share: int, power: bool, silent: bool) -> None:
        """A replica is gone: with its power, or only its process. `silent`: nobody is told."""
        if node.role == DOWN:
            return
        how = ("loses power" if power else "is killed") + (", silently" if silent else "")
        self.tell(f"replica {node.index} {how}, as {node.role} at durable {int(node.journal.at[0].durable_sequence)}")
        for socket in node.sockets:
            if silent:
                self.stream[socket].silent = 1
            pretend.hang_up(node.world, socket)
        node.is_superblock_torn = bool(node.world.flight[reactor.SUPERBLOCK].kind)  # Its table reaches over several sectors.
        pretend.crash(node.world, key, share, 1 if power else 0)
        if node.role in (SECONDARY, SETTLING):
            node.has_crashed = True
        node.flags_left = int(node.known.flags | node.journal.at[0].flags)
        node.known = node.knew()
        self.note_crash(node)
        node.role, node.is_powerless = DOWN, power or silent
        node.inquiry, node.stands_at_once, node.successor, node.leaves_to = None, False, "", ""
        self.membership.crashed(node, key, share)

    def restart(self, node: Node, power_in: int = -1, key: int = 0, share: int = 0) -> None:
        """Replay what stands on the disk and wait to be asked. `power_in`: disk operations until the power goes out again."""
        if node.world.bad_journal.any():
            self.counts["journals that could not be read"] += 1
            return  # Its process ends with the system's words, and is started again.
        data = node.world.journal
        superblock = replaying.read_superblock(data)
        if superblock is None:
            raise Anomaly(f"replica {node.index} has no whole superblock any more")
        if not (node.is_superblock_damaged or node.is_superblock_torn or node.are_superblocks_whole()):
            raise Anomaly(f"replica {node.index} has only one whole superblock, and nobody has damaged the other")
        if self.bug == UNCHECKED:
            self.skip_checksums(data, superblock)
        found = replaying.find_end(data, superblock)
        if self.bug == TRUSTING:
            found.damaged = 0
        if found.damaged and node.is_damaged:
            node.damaged_since = int(superblock.begun)
        elif found.damaged and node.damaged_since != superblock.begun:
            raise Anomaly(f"replica {node.index} takes its log for damaged behind write {int(found.sequence)}, and nothing was")
        before, is_torn = node.known, self.is_torn(data, found)
        node.begin_journal(0)
        sequence = int(superblock.tail_sequence)
        node.world.at[0].power_in = power_in
        if not (self.replay(node, superblock, found) and self.membership.recall(node)):
            pretend.crash(node.world, key, share, 1)
            self.membership.crashed(node, key, share)
            node.known = before
            if node.is_damaged:
                node.flags_left |= int(node.journal.at[0].flags)  # It found the damage, and a superblock may tell of it now.
            self.tell(f"replica {node.index} loses power while it comes back")
            return
        node.world.at[0].power_in = -1
        node.is_superblock_damaged = node.is_superblock_torn = False  # Both have been written again.
        at = node.journal.at[0]
        self.counts["restarts"] += 1
        self.counts["torn tails"] += is_torn
        self.tell(
            f"replica {node.index} is back: writes {sequence + 1}..{int(found.sequence)} replayed, epoch {int(at.log_epoch)}, "
            f"because {replaying.END_REASONS.get(int(found.reason))}"
        )
        if at.durable_sequence < before.durable_sequence:
            if not node.is_damaged:
                known = int(before.durable_sequence)
                raise Anomaly(f"replica {node.index} knew write {known} to be durable; its replay ends at {int(found.sequence)}")
            node.lost_until = max(node.lost_until, int(before.staged_sequence))
            self.counts["ends of a log lost, and nothing there could tell"] += not at.flags & log.INCONSISTENT
        elif before.log_epoch == at.log_epoch:
            node.is_damaged = False
        if at.epoch < before.epoch:
            raise Anomaly(f"replica {node.index} has forgotten its promise of epoch {int(before.epoch)}")
        if before.flags & log.INCONSISTENT and not at.flags & log.INCONSISTENT:
            raise Anomaly(f"replica {node.index} has forgotten that it is inconsistent")
        if at.flags & log.INCONSISTENT and not (node.flags_left & log.INCONSISTENT or node.is_damaged):
            raise Anomaly(f"replica {node.index} calls itself inconsistent, and nothing was damaged")
        node.role, node.state = IDLE, None
        node.note()
        check.check_prefix(node, self.terms)

    def begin_anew(self, node: Node) -> None:
        """What an operator does with a replica that differs: it comes back as one that is to be compared with the primary."""
        self.crash(node, 0, 0, False, False)
        self.restart(node)
        node.journal.at[0].flags |= log.INCONSISTENT
        node.save()

    def replay(self, node: Node, superblock, found) -> bool:
        """What a process does with its journal before it speaks to anybody; False when its disk has ended it."""
        if replaying.apply_found(node.world.journal, superblock, node.ring, 0, 0, found, node.journal.snapshots) < 0:
            return False
        if reactor.sync_now(node.ring, 0) < 0:
            return False
        try:
            replaying.resume(node.journal, node.ring, superblock, found)
        except UnfitError:
            return False
        return node.save()

    def is_torn(self, data: np.ndarray, found: log.Found) -> bool:
        """Whether a later record stands behind the end of a log, less than a batch further on, or one is there in part."""
        capacity = self.shape.capacity_bytes
        places = (int(found.position) + np.arange(0, self.shape.staging_bytes, record.HEADER_BYTES)) % capacity
        headers = data.view(record.Header.LAYOUT)[(log.SUPERBLOCK_BYTES + places) // record.HEADER_BYTES]
        later = (headers["magic"] == record.MAGIC) & (headers["sequence"] > found.sequence)
        return bool(later.any() or found.reason == record.BAD_CRC)

    def skip_checksums(self, data, superblock) -> None:
        """The planted bug: whatever looks like a record is believed."""
        headers = data.view(record.Header.LAYOUT)
        position = int(superblock.tail)
        capacity = self.shape.capacity_bytes
        for _ in range(capacity // 64):
            start = log.SUPERBLOCK_BYTES + position % capacity
            room = capacity - position % capacity - record.HEADER_BYTES
            header = headers[start // record.HEADER_BYTES]
            if header.magic != record.MAGIC or header.length > room:
                return
            header.crc = record.checksum(data, start, int(header.kind), int(header.length))
            position += int(record.record_bytes(int(header.length)))

    # Control

    def leader(self) -> Node | None:
        """The primary of the newest term, if it runs."""
        term = self.newest
        for node in self.nodes:
            if node.role == PRIMARY and node.term is term:
                return node
        return None

    def detached(self, node: Node) -> list[int]:
        """By peer: whether the primary goes on without it, or has been told to."""
        state = node.state
        return [
            int(state.peer[slot].detached or state.control_requests[slot].request == primary.DETACH)
            for slot in range(len(node.rows.names))
        ]

    def is_quiet(self, node: Node) -> bool:
        """Whether nothing is under way on this replica's disk, so that its superblock may be written."""
        return not node.ring.state[: reactor.READ_READY].any()

    def stop(self, node: Node) -> None:
        """End whatever loop this replica runs, and let its disk come to rest."""
        if node.role in (PRIMARY, SECONDARY):
            self.reset(node)
            node.role = SETTLING
            node.inquiry, node.successor, node.leaves_to = None, "", ""

    def note_vote(self, voter: str, question: Question) -> None:
        """A voter gives its vote, or keeps a configuration: in one epoch to one candidate, and of one primary."""
        before = self.votes.setdefault((voter, question.ask, question.epoch), question.name)
        if before != question.name:
            raise Anomaly(
                f"voter {voter} says yes to {question.name} ({question.ask}) in epoch {question.epoch}, in which it has "
                f"already said so to {before}"
            )
        self.counts["votes"] += question.ask == "grant"

    # What a campaign must have been through: counted, so that one that was not says so (REACHES).

    def note_reached(self, question: Question) -> None:
        """A vote was given, or a configuration kept: what went on meanwhile."""
        word = "votes" if question.ask == "grant" else "configurations"
        states = [row["state"] for node in self.nodes if node.role == PRIMARY for row in node.state.peer]
        self.counts[f"{word} during a resync"] += primary.RESYNCING in states
        self.counts[f"{word} while a log was caught up"] += primary.CATCHING in states
        mixed = any(node.journal.at[0].flags & log.INCONSISTENT for node in self.nodes)
        self.counts[f"{word} while a replica was a mixture"] += mixed
        self.counts[f"{word} while a disk answered nothing"] += any(node.ring.at[0].stalled for node in self.nodes)
        self.counts[f"{word} while one direction was lost"] += bool(self.blackholes)
        self.counts[f"{word} while two called themselves primary"] += sum(node.role == PRIMARY for node in self.nodes) > 1

    def note_crash(self, node: Node) -> None:
        """A replica is about to be gone: what it was doing."""
        if node.role == PRIMARY:
            states = node.state.peer["state"].tolist()
            self.counts["primaries lost during a resync"] += primary.RESYNCING in states
            self.counts["primaries lost while they handed over"] += bool(node.successor)
            self.counts["primaries lost during a move"] += self.is_moving
            self.counts["primaries lost with writes not complete"] += bool(
                node.journal.at[0].staged_sequence > node.state.at[0].completed
            )
        keeping = node.journal.snapshots.at[0]
        self.counts["replicas lost while blocks were on their way to be kept"] += bool(keeping.written > keeping.flushed)
        self.counts["replicas lost before a snapshot was in both superblocks"] += bool(keeping.dirty)
        is_leaving = (node.journal.snapshots.table["state"] == snapshot.LEAVING).any()
        self.counts["replicas lost while a deleted snapshot's blocks moved"] += bool(is_leaving)
        self.counts["replicas lost in the middle of a copy"] += bool(node.journal.at[0].flags & log.INCONSISTENT)
        self.counts["replicas lost while their disk answered nothing"] += bool(node.ring.at[0].stalled)

    def hand_over(self, node: Node, to: str) -> bool:
        """What a replica makes of being told to hand over: the primary waits until `to` holds everything, `to` itself stands."""
        if to == node.name:
            node.stands_at_once = True
            return True
        if node.role != PRIMARY or to not in self.names or node.successor:
            return False
        node.successor = to
        return True

    def begin_term(self, node: Node, epoch: int) -> bool:
        """Have a replica lead in an epoch that it was granted; False when its disk ends it before it does."""
        if epoch in self.terms:
            raise Anomaly(f"replica {node.index} leads in epoch {epoch}, and so did replica {self.terms[epoch].leader}")
        parent = self.terms[int(node.journal.at[0].log_epoch)]
        check.check_prefix(node, self.terms)
        before = self.newest
        lead(node.journal, epoch)
        term = Term(epoch, node.index, parent, int(node.journal.at[0].staged_sequence))
        self.terms[epoch] = term
        if not node.save():
            return False  # Granted, and lost before it took a write.
        term.begun, self.newest = True, max(term, before, key=lambda one: one.epoch)
        check.check_promotion(self, node, term)
        peers = [other.name for other in self.replicas(node) if other is not node]
        node.rows = PeerRows(peers, max(len(peers), primary.PEERS_MAX) if self.changes else len(peers))
        node.state = primary.primary_state(
            node.journal, node.ring, [], self.protocol, self.seed, self.peer_timeout_ns, self.quorum, self.policy,
            self.congestion, len(node.rows.names), self.shape.volume_bytes, RESYNC_BUFFER,
            self.shape.lag_ring, self.latency_budget_ns,
        )  # fmt: skip
        node.term, node.role, node.successor, node.change = term, PRIMARY, "", ""
        node.flushes.clear()
        if self.changes:
            node.rows.begin(node.state, node.voter.ballot.members)
        for slot in self.membership.detached(node):
            node.state.peer[slot].detached = 1
        self.counts["failovers"] += before.leader not in (-1, node.index)
        self.tell(f"replica {node.index} leads epoch {epoch} from write {term.boundary}")
        return True

    def join(self, node: Node, other: Node) -> bool:
        """Connect a primary with an idle replica, as two control threads would."""
        slot = self.slot(node, other)
        control_request = node.state.control_requests[slot]
        if self.is_cut(node, other) or other.role == DOWN or control_request.request != primary.NOTHING:
            return False
        if self.membership.steps_down_for(node, other):
            self.tell(f"replica {node.index} hears of a newer epoch from replica {other.index} and steps down")
            self.stop(node)
            return False
        if other.role != IDLE or other.inquiry is not None:
            return False
        theirs = hello_of(other.journal, self.protocol)
        socket = self.socket_pair(node, other)
        if socket is None or not self.membership.promise(other, node):
            if socket is not None:
                self.stream[socket : socket + 2]["closed"] = 1
            return False
        how = how_to_join(node.journal, theirs)
        sequence = theirs.sequence
        if self.bug == OFF_BY_ONE and how == primary.BY_EXTENTS:
            sequence += 1
        control_request.socket, control_request.sequence, control_request.how = socket, sequence, how
        control_request.request = primary.ADOPT
        other.state = secondary.secondary_state(
            other.journal, other.ring, socket + 1, self.protocol, self.shape.volume_bytes, rows_of(SharedCounters),
            self.shape.inbox_bytes,
        )  # fmt: skip
        other.role, other.served = SECONDARY, node
        self.counts[f"joined by {BY[how]}"] += 1
        self.tell(
            f"replica {other.index} joins {node.index} at write {theirs.sequence} of epoch {theirs.log_epoch}, by {BY[how]}"
        )
        return True

    # Turns

    def submit(self, node: Node, kind: str, address: int, size: int) -> bool:
        """Stage a WRITE, TRIM or ZEROS at a primary; False when there is no room. One of no bytes is refused, room or not."""
        now_ns = int(pretend.now_ns(node.world))
        staged = int(node.journal.at[0].staged_sequence)
        is_too_much = kind != TRIM and check.is_too_much(node, address, size)
        if kind == TRIM:
            done = int(primary.submit_trim(node.state, address, size, now_ns))
        elif kind == ZEROS:
            done = int(primary.submit_zeros(node.state, address, size, now_ns))
        else:
            done = int(primary.submit(node.state, self.number, address, size, now_ns))
        if size == 0:
            if done >= 0 or node.journal.at[0].staged_sequence != staged:
                raise Anomaly(f"replica {node.index} takes a {kind} of no bytes: {done}")
            self.counts["empty writes refused"] += 1
            return True
        self.check_room(node, done, is_too_much, staged, f"{kind} of {size} bytes at {address}")
        if done == primary.NO_SPACE:
            return True
        if done > 0:
            if kind == ZEROS:
                self.counts["zeros written"] += 1
            self.note_staged(node, address, size, np.zeros(size, np.uint8) if kind == ZEROS else None, kind != TRIM)
        return done > 0

    def check_room(self, node: Node, answer: int, is_too_much: bool, staged: int, what: str) -> None:
        """A write that needs more room than the volume may take is refused and in no log, and no other one is."""
        if answer == primary.NO_SPACE:
            self.counts["writes refused for room"] += 1
            if not is_too_much:
                raise Anomaly(f"replica {node.index} refuses a {what} for lack of room, and there is enough")
            if node.journal.at[0].staged_sequence != staged:
                raise Anomaly(f"replica {node.index} has a {what} in its log that it has refused for lack of room")
        elif answer == 1 and is_too_much:
            raise Anomaly(f"replica {node.index} takes a {what}, which needs more room than its volume may take")

    def limit(self, share: float) -> None:
        """Set what every replica's volume may take: a share of its size; 0: as much as there is."""
        self.count["limit"] = int(self.shape.volume_bytes * share) if share else 0
        self.counts["limits set"] += bool(share)
        self.tell(f"volumes may take {int(self.count[0].limit) or 'all there is'}")

    def take_snapshot(self, node: Node) -> bool:
        """Stage a SNAPSHOT at a primary, and remember what it must show; False when there is no room."""
        if not self.stage_marker(node, record.SNAPSHOT, self.number):
            return False
        node.submitted.move(node.term, node.term.last)
        if len(self.pictures) > PICTURES_MAX:
            self.pictures.pop(next(iter(self.pictures)))
        self.pictures[node.term.epoch, node.term.last] = node.submitted.image.tobytes()
        self.counts["snapshots taken"] += 1
        self.tell(f"replica {node.index} takes snapshot {node.term.last} of epoch {node.term.epoch}")
        return True

    def delete_snapshot(self, node: Node, choice: int) -> bool:
        """Stage a FORGET of one of the snapshots that a primary lists; False without one, or without room."""
        table = node.journal.snapshots.table
        listed = table["sequence"][(table["state"] == snapshot.WHOLE) | (table["state"] == snapshot.GIVEN_UP)]
        if not listed.size:
            return False
        sequence = int(np.sort(listed)[choice % listed.size])
        if not self.stage_marker(node, record.FORGET, sequence):
            return False
        self.counts["snapshots deleted"] += 1
        self.tell(f"replica {node.index} deletes snapshot {sequence}")
        return True

    def stage_marker(self, node: Node, kind: int, extra: int) -> bool:
        """Stage a SNAPSHOT or FORGET, and add it to the model."""
        name = np.frombuffer(f"s{self.number}".encode().ljust(8, b"x"), np.uint8).copy()
        size = name.size if kind == record.SNAPSHOT else 0
        if primary.submit_marker(node.state, kind, name, size, extra, int(pretend.now_ns(node.world))) <= 0:
            return False
        node.term.writes.append(Write(self.number, 0, 0, None, (kind, extra)))
        self.number += 1
        return True

    def note_staged(self, node: Node, address: int, size: int, data: np.ndarray | None, has_payload: bool) -> None:
        """Add what was staged last to the model; its bytes are taken from the log where they are not known."""
        if data is None and has_payload:
            at, staging = node.journal.at[0], self.shape.staging_bytes
            begin = (int(at.staged) - int(record.record_bytes(size))) % staging + record.HEADER_BYTES
            data = node.journal.data[begin : begin + size].copy()
        node.term.writes.append(Write(self.number, address, size, data))
        self.number += 1

    def compare_and_write(self, node: Node, address: int, size: int, differs_at: int) -> bool:
        """Compare-and-write at a primary: with what the model holds there, but for one byte (-1: none). False without room.

        It must be equal exactly when the model is, whatever of it is complete, and what it was compared with is what it shows.
        """
        if self.untrusted[address : address + size].any():
            return True  # What is to be found there is not known.
        node.submitted.move(node.term, node.term.last)
        holds = node.submitted.image[address : address + size].copy()
        expected, data = holds.copy(), np.random.default_rng(self.number).integers(0, 256, size).astype(np.uint8)
        if differs_at >= 0:
            expected[differs_at] ^= 1
        now_ns = int(pretend.now_ns(node.world))
        staged, is_too_much = int(node.journal.at[0].staged_sequence), check.is_too_much(node, address, size)
        if self.bug == STALE:
            answer = int(primary.read(node.state, self.read_bytes, 0, size, address))
            if answer > 0:
                is_equal = np.array_equal(self.read_bytes[:size], expected)
                answer = int(primary.submit_bytes(node.state, data, 0, address, size, now_ns)) if is_equal else primary.UNEQUAL
        else:
            answer = int(
                primary.compare_and_write(node.state, expected, 0, data, 0, address, size, self.read_bytes, 0, now_ns)
            )
        if node.world.at[0].power_in == 0:
            return True
        self.check_room(node, answer, is_too_much, staged, f"compare-and-write of {size} bytes at {address}")
        if answer == primary.NO_SPACE:
            return True
        if answer == 0:
            return False
        if answer == 1 and differs_at < 0:
            self.note_staged(node, address, size, data, has_payload=True)
            self.counts["compared and written"] += 1
        elif answer == primary.UNEQUAL and differs_at >= 0 and np.array_equal(self.read_bytes[:size], holds):
            self.counts["compared and found unequal"] += 1
        elif answer in (1, primary.UNEQUAL):
            what = "equal" if answer == 1 else "not what was expected"
            raise Anomaly(
                f"a compare-and-write of {size} bytes at {address} by replica {node.index} finds {what} behind write "
                f"{node.term.last}"
            )
        else:
            self.ended(node, answer)
        return True

    def flush(self, node: Node) -> None:
        """A client asks a primary for a flush: it is answered once everything that was submitted before is complete."""
        barrier = int(node.journal.at[0].durable_sequence if self.bug == UNBARRED else primary.barrier(node.state))
        node.flushes.append((barrier, node.term.last))

    def answer_flushes(self, node: Node) -> None:
        """Answer the flushes whose barrier is complete, and hold that against what was submitted when they were asked for."""
        completed = int(node.state.at[0].completed)
        while node.flushes and node.flushes[0][0] <= completed:
            _, submitted = node.flushes.pop(0)
            if completed < submitted:
                raise Anomaly(f"replica {node.index} answers a flush before write {submitted}, which came before it, is complete")
            self.counts["flushes"] += 1

    def read(self, node: Node, address: int, size: int) -> None:
        """Read at a primary, and hold what comes back against what must be seen."""
        if self.bug == UNLAID:
            got = int(reactor.read_volume(node.ring, 0, self.read_bytes, 0, size, address))
        else:
            got = int(primary.read(node.state, self.read_bytes, 0, size, address))
        if node.world.at[0].power_in == 0:
            return
        if got < 0:
            self.ended(node, got)
            return
        if got != min(size, self.shape.volume_bytes - address):
            raise Anomaly(f"a read of {size} bytes at {address} by replica {node.index} answers {got}")
        self.counts["reads"] += 1
        self.counts["reads of what a disk has lied about"] += bool(self.untrusted[address : address + got].any())
        check.check_read(node, address, self.read_bytes[:got])

    def turn(self, node: Node) -> None:
        """One turn of whatever this replica does."""
        if node.role in (DOWN, IDLE):
            return  # Everything is settled, and nobody has come.
        status = 0
        if self.bug in (EARLY, DROPPED):
            self.spoil_snapshots(node)
        if node.role == PRIMARY:
            status = self.turn_primary(node)
        elif node.role == SECONDARY:
            status = int(secondary.turn(node.state, 0))
        else:
            reactor.wait(node.ring, NOBODY, 0, 0)
            left = int(replica.settle_turn(node.journal, node.ring))
            status = min(left, 0) or int(replica.checkpoint(node.journal, node.ring))
            if status == 0 and left == 0 and node.role == SETTLING and self.is_quiet(node):
                node.role, node.state = IDLE, node.state if node.term is self.newest else None
                self.membership.came_to_rest(node)
        node.note()
        self.slow_sync(node)
        if node.world.at[0].power_in == 0:
            return
        if self.forged:
            self.check_forged(node, status)
        if status < 0:
            self.ended(node, status)
        if node.world.at[0].power_in != 0:
            node.remember()

    def spoil_snapshots(self, node: Node) -> None:
        """The planted bugs of snapshots."""
        at, snapshots = node.journal.at[0], node.journal.snapshots
        if self.bug == EARLY and snapshots.at[0].newest >= 0:
            at.kept = at.walked
        leaving = snapshots.table["state"] == snapshot.LEAVING
        if self.bug == DROPPED and leaving.any():
            snapshots.table["state"][leaving] = snapshot.EMPTYING
            snapshots.at[0].tending = -1
            snapshot.arrange(snapshots)

    def check_refusal(self, node: Node, socket: int, refused: int) -> None:
        """What two replicas of ours say to each other is refused by neither."""
        if socket // 2 not in self.meddled:
            raise Anomaly(f"replica {node.index} refuses ({refused}) a frame that nobody has changed")

    def check_lost(self, node: Node, before: list[tuple[int, int]]) -> None:
        """A primary gives up no peer for what it said, but one that has promised a newer epoch. `before`: losses, socket."""
        for slot, (lost, socket) in enumerate(before):
            peer = node.state.peer[slot]
            is_new = peer.lost_count > lost and peer.lost_status == replica.BAD_FRAME
            if is_new and self.peer_of(node, slot).journal.at[0].epoch == node.journal.at[0].epoch:
                self.check_refusal(node, socket, replica.BAD_FRAME)

    def check_forged(self, node: Node, status: int) -> None:
        """A frame that lies, with a right checksum, ends the session of whoever receives it."""
        if node.role not in (PRIMARY, SECONDARY):
            return
        for slot, socket in enumerate(node.state.sockets.tolist()):
            stream = socket ^ 1
            if socket < 0 or stream not in self.forged:
                continue
            begin, lie = self.forged[stream]
            waiting = node.state.peer[slot].inbox_fill if node.role == PRIMARY else node.state.at[0].inbox_fill
            if status == 0 and self.stream[stream].read - waiting > begin:
                raise Anomaly(f"replica {node.index} has taken a frame that lies: {lie}")

    def ended(self, node: Node, status: int) -> None:
        """A loop has ended."""
        if status <= replica.PEER_CLOSED and status != replica.SHORT_WRITE and node.role in (SECONDARY, PRIMARY):
            refused = int(node.state.at[0].refused) if node.role == SECONDARY else 0
            if status == replica.BAD_FRAME and refused not in (0, secondary.OLD_EPOCH):
                self.check_refusal(node, int(node.state.sockets[0]), refused)
            why = f", refused {refused}" if node.role == SECONDARY else ""
            self.tell(f"replica {node.index} ends as {node.role}: status {status}{why}")
            self.stop(node)
            return
        self.tell(f"replica {node.index}: its disk answers {status}")
        node.world.at[0].power_in = 0

    def slow_sync(self, node: Node) -> None:
        """A volume's flush takes longer than a journal's write: so much is written meanwhile that the journal may be full."""
        for slot, due_ns in node.sync_due_ns.items():
            flight = node.world.flight[slot]
            if flight.kind == pretend.SYNCING and flight.due_ns != due_ns:
                flight.due_ns += self.sync_ns
                node.sync_due_ns[slot] = int(flight.due_ns)

    def check_leave(self, node: Node, before: list[list[int]]) -> None:
        """Two-trip C: a live peer is sent only what it has given leave for. `before`: its row before this turn."""
        for slot, (was, lost, run, granted) in enumerate(before):
            state, lost_now, run_now, _ = node.state.peer[slot][LEAVE].tolist()
            if was == state == primary.LIVE and lost == lost_now and run_now > max(run, granted):
                raise Anomaly(f"replica {node.index} sends peer {slot} up to write {run_now}, which gave leave up to {granted}")

    def turn_primary(self, node: Node) -> int:
        """One turn of a primary, and what it released held against the truth."""
        state = node.state
        before = int(state.at[0].completed)
        detached = state.peer["detached"].tolist()
        for slot in range(len(detached)):
            if state.control_requests[slot].request in (primary.DETACH, primary.VACATE):
                detached[slot] = 1
            if self.bug == FORGETFUL and state.peer[slot].state == primary.RESYNCING:
                state.peer[slot].redo_sequence = node.journal.at[0].applied_sequence
        leave = state.peer[LEAVE].tolist()
        lost = list(zip(state.peer["lost_count"].tolist(), state.sockets.tolist(), strict=True))
        status = int(turn_kernel.progress(state, 0))
        self.check_lost(node, lost)
        if self.protocol == primary.TWO_TRIP:
            self.check_leave(node, leave)
        if node.world.at[0].power_in == 0:
            return status
        node.note()
        completed = int(state.at[0].completed)
        if completed > before:
            if self.policy == primary.SUSPEND_REPLICATION:
                detached = [max(pair) for pair in zip(detached, state.peer["detached"].tolist(), strict=True)]
            check.check_completed(self, node, node.term, before, completed, detached)
        self.answer_flushes(node)
        check.check_verified(node)
        return status
