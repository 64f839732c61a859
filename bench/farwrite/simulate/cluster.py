"""Replicas, their disks and the network between them, in one world in memory; the verbs of a story are its methods.

Each replica runs the engine's own loop, a turn at a time. What a control thread does in a real node (meet, promise, lead,
replay) is done here between two turns; a perfect arbiter stands for membership.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import journal as replaying
from ..engine import journal_kernel as log
from ..engine import primary_kernel as primary
from ..engine import record_kernel as record
from ..engine import replica_kernel as replica
from ..engine import secondary_kernel as secondary
from ..engine import turn_kernel
from ..engine.peering import hello_of, how_to_join, lead
from ..errors import UnfitError
from ..host import pretend_kernel as pretend
from ..host import reactor
from . import check
from .check import Anomaly, Shadow, Term, Write

VOLUME, VOLUME_BYTES, EXTENT_BYTES = 7, 64 << 10, 4096
CAPACITY, STAGING, PARCEL, INBOX, RING, BEGINS = 64 << 10, 16 << 10, 16 << 10, 32 << 10, 16 << 10, 1024
CONNECTIONS, VOUCH_AFTER_NS = 24, 5_000_000
NOBODY = np.full(1, -1, np.int64)

DOWN, IDLE, SETTLING, SECONDARY, PRIMARY = "down", "idle", "settling", "secondary", "primary"

# Bugs that can be planted, to prove that the simulator finds them.
HASTY, UNFENCED, UNCHECKED, OFF_BY_ONE, FORGETFUL = "hasty", "unfenced", "unchecked", "off by one", "forgetful"


class Node:
    """One replica: its disk, its journal and whatever loop it runs."""

    def __init__(self, cluster, index: int) -> None:
        self.cluster, self.index = cluster, index
        self.world = pretend.world(
            cluster.clock, log.SUPERBLOCK_BYTES + CAPACITY, VOLUME_BYTES, VOLUME_BYTES, cluster.stream, cluster.glass,
            cluster.segment_end, cluster.segment_due_ns,
        )  # fmt: skip
        self.shadow = Shadow(np.zeros(VOLUME_BYTES, np.uint8))
        self.durable: dict[int, int] = {}
        self.received: dict[int, int] = {}
        self.mixed_until = 0
        self.is_damaged = self.has_crashed = False
        self.role = IDLE
        self.state: Any = None  # Primary or Secondary, by role
        self.term: Any = None
        self.wanted_epoch = 0
        self.begin_journal(0)
        self.save()

    def begin_journal(self, epoch: int) -> None:
        self.ring = reactor.pretended(self.world)
        self.journal = log.journal_state(
            CAPACITY, STAGING, VOLUME, epoch, 0, 0, VOLUME_BYTES, EXTENT_BYTES, BEGINS, VOUCH_AFTER_NS
        )

    def save(self) -> bool:
        """The promise, the flags and the checkpoint of now, durable. A process whose disk refuses that ends."""
        if replica.save(self.journal, self.ring) < 0:
            self.world.at[pretend.POWER_IN] = 0
            return False
        self.remember()
        return True

    @property
    def synced_count(self) -> int:
        """Times its log was begun anew on this connection."""
        return int(self.state.at[secondary.SYNCED_COUNT]) if self.role == SECONDARY else 0

    def remember(self) -> None:
        """What it knows now must outlive a crash. In a turn that its disk has ended, memory may be ahead of what was kept."""
        self.known, self.known_synced = self.journal.at.copy(), self.synced_count

    def knew(self) -> np.ndarray:
        """What a replica that is gone knew, and what it has told in its last turn. A log begun anew in it may not be kept."""
        at, known = self.journal.at, self.known.copy()
        if self.synced_count != self.known_synced:
            return at.copy()
        told = self.state.at[secondary.ACKED_DURABLE] if self.role == SECONDARY else 0
        known[log.DURABLE_SEQUENCE] = min(max(known[log.DURABLE_SEQUENCE], told), at[log.DURABLE_SEQUENCE])
        known[log.FLAGS] &= at[log.FLAGS]
        return known

    def ever_durable(self, terms, term: Term, sequence: int) -> bool:
        """Whether this write was ever known durable here."""
        return any(last >= sequence and terms[epoch].holds(term, sequence) for epoch, last in self.durable.items())

    def ever_received(self, terms, term: Term, sequence: int) -> bool:
        """Whether this write was ever received here."""
        return any(last >= sequence and terms[epoch].holds(term, sequence) for epoch, last in self.received.items())

    def note(self) -> None:
        """Remember how far this replica has ever been."""
        at = self.journal.at
        epoch = int(at[log.LOG_EPOCH])
        if epoch not in self.cluster.terms:
            if at[log.STAGED_SEQUENCE]:
                raise Anomaly(f"replica {self.index} has a log of epoch {epoch}, which nobody was granted")
            return
        self.received[epoch] = max(self.received.get(epoch, 0), int(at[log.STAGED_SEQUENCE]))
        durable = int(at[log.DURABLE_SEQUENCE])
        if durable == at[log.STAGED_SEQUENCE] or self.cluster.terms[epoch].epoch_of(durable) == epoch:
            self.durable[epoch] = max(self.durable.get(epoch, 0), int(at[log.DURABLE_SEQUENCE]))

    @property
    def is_sound(self) -> bool:
        """Whether this log is a beginning of some history: no mixture, and nothing lost of it."""
        return not (self.journal.at[log.FLAGS] & log.INCONSISTENT or self.is_damaged or self.mixed_until)

    @property
    def sockets(self) -> list[int]:
        """The connections of whatever runs here, those still in the mail included."""
        if self.state is None:
            return []
        held = [int(socket) for socket in self.state.sockets if socket >= 0]
        if self.role == PRIMARY:
            held += [int(row[primary.MAIL_SOCKET]) for row in self.state.mail if row[primary.REQUEST] == primary.ADOPT]
        return held


class Cluster:
    """Some replicas and what is between them."""

    def __init__(
        self, count: int, protocol: int, policy: int, congestion: int, quorum: int, seed: int, tell, bug: str = ""
    ) -> None:  # fmt: skip
        self.protocol, self.policy, self.congestion, self.quorum, self.seed = protocol, policy, congestion, quorum, seed
        self.bug, self.tell = bug, tell
        self.clock = np.ones(1, np.int64)
        streams = 2 * CONNECTIONS
        self.stream = np.zeros((streams, pretend.STREAM_WORDS), np.int64)
        self.stream[:, pretend.CLOSED] = 1
        self.glass = np.zeros((streams, RING), np.uint8)
        self.segment_end = np.zeros((streams, pretend.SEGMENTS), np.int64)
        self.segment_due_ns = np.zeros((streams, pretend.SEGMENTS), np.int64)
        self.ends: dict[int, tuple[int, int]] = {}  # by connection: (primary's index, secondary's index)
        self.terms: dict[int, Term] = {0: Term(0, -1, None, 0, begun=True)}
        self.cut: set[frozenset[int]] = set()
        self.out: set[int] = set()  # who the arbiter has excused in the newest term
        self.number = 0
        self.delay_ns = 200_000
        self.peer_timeout_ns = 20_000_000
        self.latency_budget_ns = 0
        self.nodes = [Node(self, index) for index in range(count)]
        if bug == HASTY:
            for node in self.nodes:
                node.world.at[pretend.HASTY] = 1

    # The network

    def slot(self, node: Node, other: Node) -> int:
        """The place of `other` among the peers of `node`."""
        return other.index if other.index < node.index else other.index - 1

    def peer_of(self, node: Node, slot: int) -> Node:
        return self.nodes[slot if slot < node.index else slot + 1]

    def is_cut(self, one: Node, other: Node) -> bool:
        return frozenset((one.index, other.index)) in self.cut

    def partition(self, pairs) -> None:
        """Cut exactly these pairs of replicas from each other."""
        self.cut = {frozenset(pair) for pair in pairs}
        for connection, (one, other) in self.ends.items():
            stalled = 1 if frozenset((one, other)) in self.cut else 0
            self.stream[2 * connection : 2 * connection + 2, pretend.STALLED] = stalled

    def socket_pair(self, one: Node, other: Node) -> int | None:
        """A fresh connection's first socket, None when all are in use."""
        for connection in range(CONNECTIONS):
            first = 2 * connection
            if self.stream[first, pretend.CLOSED] and self.stream[first + 1, pretend.CLOSED]:
                if any(first <= socket <= first + 1 for node in self.nodes if node.role != DOWN for socket in node.sockets):
                    continue
                pretend.connect(one.world, first, self.delay_ns, self.delay_ns)
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
        self.tell(f"replica {node.index} {how}, as {node.role} at durable {int(node.journal.at[log.DURABLE_SEQUENCE])}")
        if node.role == PRIMARY:
            self.excused_at_last = self.excused(node)
        for socket in node.sockets:
            if silent:
                self.stream[socket, pretend.SILENT] = 1
            pretend.hang_up(node.world, socket)
        pretend.crash(node.world, key, share, 1 if power else 0)
        if node.role in (SECONDARY, SETTLING):
            node.has_crashed = True
        node.known = node.knew()
        node.role = DOWN

    def restart(self, node: Node, power_in: int = -1, key: int = 0, share: int = 0) -> None:
        """Replay what stands on the disk and wait to be asked. `power_in`: disk operations until the power goes out again."""
        data = node.world.journal
        superblock = replaying.read_superblock(data)
        if superblock is None:
            raise Anomaly(f"replica {node.index} has no whole superblock any more")
        if self.bug == UNCHECKED:
            self.skip_checksums(data, superblock)
        found = replaying.find_end(data, superblock)
        before = node.known
        node.begin_journal(0)
        sequence = int(superblock[5])
        node.world.at[pretend.POWER_IN] = power_in
        if not self.replay(node, superblock, found):
            pretend.crash(node.world, key, share, 1)
            node.known = before
            self.tell(f"replica {node.index} loses power while it comes back")
            return
        node.world.at[pretend.POWER_IN] = -1
        at = node.journal.at
        self.tell(
            f"replica {node.index} is back: writes {sequence + 1}..{int(found[1])} replayed, epoch {int(at[log.LOG_EPOCH])}, "
            f"because {replaying.END_REASONS.get(int(found[3]))}"
        )
        if at[log.DURABLE_SEQUENCE] < before[log.DURABLE_SEQUENCE]:
            if not node.is_damaged:
                known = int(before[log.DURABLE_SEQUENCE])
                raise Anomaly(f"replica {node.index} knew write {known} to be durable; its replay ends at {int(found[1])}")
            node.mixed_until = max(node.mixed_until, int(before[log.STAGED_SEQUENCE]))
        elif before[log.LOG_EPOCH] == at[log.LOG_EPOCH]:
            node.is_damaged = False
        if at[log.EPOCH] < before[log.EPOCH]:
            raise Anomaly(f"replica {node.index} has forgotten its promise of epoch {int(before[log.EPOCH])}")
        if before[log.FLAGS] & log.INCONSISTENT and not at[log.FLAGS] & log.INCONSISTENT:
            raise Anomaly(f"replica {node.index} has forgotten that it is inconsistent")
        node.role, node.state = IDLE, None
        node.note()
        check.check_prefix(node, self.terms)

    def replay(self, node: Node, superblock, found) -> bool:
        """What a process does with its journal before it speaks to anybody; False when its disk has ended it."""
        if replaying.apply_found(node.world.journal, superblock, node.ring, 0, 0, found) < 0:
            return False
        if reactor.sync_now(node.ring, 0) < 0:
            return False
        try:
            replaying.resume(node.journal, node.ring, superblock, found)
        except UnfitError:
            return False
        return node.save()

    def skip_checksums(self, data, superblock) -> None:
        """The planted bug: whatever looks like a record is believed."""
        words = data.view(np.int64)
        position = int(superblock[4])
        for _ in range(CAPACITY // 64):
            start = log.SUPERBLOCK_BYTES + position % CAPACITY
            room = CAPACITY - position % CAPACITY - record.HEADER_BYTES
            if words[start >> 3] & 0xFFFFFFFF != record.MAGIC or record.length_of(words, start) > room:
                return
            size = record.checksum(data, start, record.kind_of(words, start), record.length_of(words, start))
            words[start >> 3] = np.int64(record.MAGIC) | (np.int64(size) << 32)
            position += int(record.record_bytes(record.length_of(words, start)))

    # Control

    @property
    def newest(self) -> Term:
        """The newest term that has begun."""
        return self.terms[max(epoch for epoch, term in self.terms.items() if term.begun)]

    def leader(self) -> Node | None:
        """The primary of the newest term, if it runs."""
        term = self.newest
        for node in self.nodes:
            if node.role == PRIMARY and node.term is term:
                return node
        return None

    def excused(self, node: Node) -> list[int]:
        """By peer: whether the primary goes on without it, or has been told to."""
        state = node.state
        return [
            int(state.peer[slot, primary.EXCUSED] or state.mail[slot, primary.REQUEST] == primary.EXCUSE)
            for slot in range(len(self.nodes) - 1)
        ]

    def is_quiet(self, node: Node) -> bool:
        """Whether nothing is under way on this replica's disk, so that its superblock may be written."""
        return not node.ring.state[: reactor.READ_READY].any()

    def promise(self, node: Node, epoch: int) -> bool:
        """Have a replica refuse every older epoch from now on; False when it cannot be done now."""
        if node.journal.at[log.EPOCH] >= epoch:
            return node.journal.at[log.EPOCH] == epoch
        if not self.is_quiet(node):
            return False
        node.journal.at[log.EPOCH] = epoch
        return node.save()

    def stop(self, node: Node) -> None:
        """End whatever loop this replica runs, and let its disk come to rest."""
        if node.role in (PRIMARY, SECONDARY):
            self.reset(node)
            node.role = SETTLING

    def may_lead(self, node: Node) -> bool:
        """Whether the arbiter would grant this idle, settled replica a new term."""
        newest = self.newest
        if not node.is_sound:
            return False
        if newest.epoch == 0 or self.protocol == primary.QUORUM:
            return True
        if node.index == newest.leader:
            return True
        old = self.nodes[newest.leader]
        # A state that the old primary's process had last is what its crash leaves to the arbiter.
        excused = old.state is not None and old.term is newest and self.excused(old)[self.slot(old, node)]
        if old.term is not newest or old.state is None:
            excused = node.index in self.out
        if self.policy == primary.SUSPEND_REPLICATION:
            return True
        if self.protocol == primary.A:
            return True
        if self.bug == UNFENCED:
            return True
        return not excused and node.index not in self.out

    def elect(self, node: Node) -> bool:
        """Have an idle replica lead in a new epoch, if it may."""
        epoch = max(self.terms) + 1
        if node.role != IDLE or not self.is_quiet(node) or not self.may_lead(node):
            return False
        members = [node]
        if self.protocol == primary.QUORUM:
            # The newest primary, come back, has all that completed: it needs the others' promise, not their logs.
            returns = self.newest.leader == node.index
            members = [
                other for other in self.nodes
                if other.role in (IDLE, SECONDARY, SETTLING) and not self.is_cut(node, other)
                and (returns or other.is_sound)
            ]  # fmt: skip
            if len(members) < len(self.nodes) - self.quorum + 1 or not all(self.is_quiet(other) for other in members):
                return False
            reach = {
                other.index: (int(other.journal.at[log.LOG_EPOCH]), int(other.journal.at[log.DURABLE_SEQUENCE]))
                for other in members
            }
            if not returns and reach[node.index] != max(reach.values()):
                return False
            if self.bug != UNFENCED and not all(self.promise(other, epoch) for other in members):
                return False
        parent = self.terms[int(node.journal.at[log.LOG_EPOCH])]
        check.check_prefix(node, self.terms)
        lead(node.journal, epoch)
        term = Term(epoch, node.index, parent, int(node.journal.at[log.STAGED_SEQUENCE]))
        self.terms[epoch] = term
        if not node.save():
            return False  # Granted, and lost before it took a write.
        term.begun = True
        check.check_promotion(self, node, term)
        node.state = primary.primary_state(
            node.journal, node.ring, [], self.protocol, self.seed, self.peer_timeout_ns, self.quorum, self.policy,
            self.congestion, len(self.nodes) - 1, VOLUME_BYTES, PARCEL, 1024, self.latency_budget_ns,
        )  # fmt: skip
        node.term, node.role = term, PRIMARY
        # Who was excused lacks completed writes, and a new term asks for none of them back: it stays out until it has caught up.
        self.out.discard(node.index)
        if self.policy == primary.CONSENT:
            for index in self.out:
                node.state.peer[self.slot(node, self.nodes[index]), primary.EXCUSED] = 1
        if self.policy == primary.SUSPEND_REPLICATION:
            node.state.peer[:, primary.EXCUSED] = 1
        self.tell(f"replica {node.index} leads epoch {epoch} from write {term.boundary}")
        return True

    def join(self, node: Node, other: Node) -> bool:
        """Connect a primary with an idle replica, as two control threads would."""
        slot = self.slot(node, other)
        mail = node.state.mail[slot]
        if self.is_cut(node, other) or other.role != IDLE or mail[primary.REQUEST] != primary.NOTHING:
            return False
        if other.journal.at[log.EPOCH] > node.journal.at[log.EPOCH]:
            self.tell(f"replica {node.index} hears of epoch {int(other.journal.at[log.EPOCH])} and steps down")
            self.stop(node)
            return False
        theirs = hello_of(other.journal, self.protocol)
        socket = self.socket_pair(node, other)
        if socket is None or not self.promise(other, int(node.journal.at[log.EPOCH])):
            if socket is not None:
                self.stream[socket : socket + 2, pretend.CLOSED] = 1
            return False
        how = how_to_join(node.journal, theirs)
        sequence = theirs.sequence
        if self.bug == OFF_BY_ONE and how == primary.BY_EXTENTS:
            sequence += 1
        mail[primary.MAIL_SOCKET], mail[primary.MAIL_SEQUENCE], mail[primary.MAIL_HOW] = socket, sequence, how
        mail[primary.REQUEST] = primary.ADOPT
        other.state = secondary.secondary_state(
            other.journal, other.ring, socket + 1, self.protocol, VOLUME_BYTES, np.zeros(8, np.int64), INBOX
        )
        other.role = SECONDARY
        by = ("log", "extents", "digests")[how]
        self.tell(f"replica {other.index} joins {node.index} at write {theirs.sequence} of epoch {theirs.log_epoch}, by {by}")
        return True

    # Turns

    def submit(self, node: Node, address: int, size: int, trim: bool) -> bool:
        """Stage one write at a primary; False when there is no room."""
        now_ns = int(pretend.now_ns(node.world))
        if trim:
            done = primary.submit_trim(node.state, address, size, now_ns)
        else:
            done = primary.submit(node.state, self.number, address, size, now_ns)
        if done:
            at = node.journal.at
            end = int(at[log.STAGED]) % STAGING
            begin = (end - int(record.record_bytes(size))) % STAGING + record.HEADER_BYTES
            data = None if trim else node.journal.data[begin : begin + size].copy()
            node.term.writes.append(Write(self.number, address, size, data))
            self.number += 1
        return bool(done)

    def turn(self, node: Node) -> None:
        """One turn of whatever this replica does."""
        if node.role == DOWN:
            return
        status = 0
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
        node.note()
        if node.world.at[pretend.POWER_IN] == 0:
            return
        if status < 0:
            self.ended(node, status)
        if node.world.at[pretend.POWER_IN] != 0:
            node.remember()

    def ended(self, node: Node, status: int) -> None:
        """A loop has ended."""
        if status <= replica.PEER_CLOSED and status != replica.SHORT_WRITE and node.role in (SECONDARY, PRIMARY):
            why = f", refused {int(node.state.at[secondary.REFUSED])}" if node.role == SECONDARY else ""
            self.tell(f"replica {node.index} ends as {node.role}: status {status}{why}")
            self.stop(node)
            return
        self.tell(f"replica {node.index}: its disk answers {status}")
        node.world.at[pretend.POWER_IN] = 0

    def turn_primary(self, node: Node) -> int:
        """One turn of a primary, and what it released held against the truth."""
        state = node.state
        before = int(state.at[primary.COMPLETED])
        excused = state.peer[:, primary.EXCUSED].tolist()
        for slot in range(len(excused)):
            if state.mail[slot, primary.REQUEST] == primary.EXCUSE:
                excused[slot] = 1
            if self.bug == FORGETFUL and state.peer[slot, primary.STATE] == primary.RESYNCING:
                state.peer[slot, primary.REDO_SEQUENCE] = node.journal.at[log.APPLIED_SEQUENCE]
        status = int(turn_kernel.progress(state, 0))
        if node.world.at[pretend.POWER_IN] == 0:
            return status
        node.note()
        completed = int(state.at[primary.COMPLETED])
        if completed > before:
            if self.policy == primary.SUSPEND_REPLICATION:
                excused = [max(pair) for pair in zip(excused, state.peer[:, primary.EXCUSED].tolist(), strict=True)]
            check.check_completed(self, node, node.term, before, completed, excused)
        check.check_verified(node)
        return status
