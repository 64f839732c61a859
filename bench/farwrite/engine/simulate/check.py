"""What must be true of a cluster, whatever happens to it: the model of its histories and the invariants held against it.

A `Term` is the history of one primary: what it took over, and the writes it added. A replica's state is then a position in
one term, and everything it holds follows from that. `Anomaly` carries the sentence of an invariant that did not hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .. import journal_kernel as log
from .. import primary_kernel as primary
from .. import record_kernel as record
from .. import snapshot_kernel as snapshot

EXTENT_BYTES, SECTOR_BYTES = 4096, 512


class Anomaly(Exception):  # noqa: N818 (the vocabulary's word)
    """An invariant does not hold."""


@dataclass
class Write:
    """One write of the model; `data` None gives bytes back."""

    number: int
    address: int
    size: int
    data: np.ndarray | None
    marker: tuple[int, int] | None = None  # of a SNAPSHOT or FORGET: its kind, and whose sequence a FORGET tells


@dataclass
class Term:
    """What one primary holds: everything of `parent` up to `boundary`, then `writes`."""

    epoch: int
    leader: int
    parent: Term | None
    boundary: int
    writes: list[Write] = field(default_factory=list)
    begun: bool = False  # whether its primary lived to take a write; a term that was granted and never began binds nobody
    completed: int = 0  # highest sequence whose caller was released in this term, 0 when none was
    held_by: dict[int, int] = field(default_factory=dict)  # by replica: highest completed while it was asked too
    read: int = 0  # a read in this term has seen everything up to here

    @property
    def last(self) -> int:
        """The highest sequence submitted."""
        return self.boundary + len(self.writes)

    def term_of(self, sequence: int) -> Term:
        """The term in which this sequence was submitted, as this history tells it."""
        term = self
        while sequence <= term.boundary and term.parent is not None:
            term = term.parent
        return term

    def epoch_of(self, sequence: int) -> int:
        """The epoch of this sequence's record."""
        return self.term_of(sequence).epoch

    def write(self, sequence: int) -> Write:
        """The write of this sequence."""
        term = self.term_of(sequence)
        return term.writes[sequence - term.boundary - 1]

    def holds(self, other: Term, sequence: int, last: int | None = None) -> bool:
        """Whether this history, up to `last`, has the same write at `sequence` as the other."""
        last = self.last if last is None else last
        return sequence == 0 or (sequence <= last and self.epoch_of(sequence) == other.epoch_of(sequence))


@dataclass
class Shadow:
    """What a replica's volume must look like, moved along with it."""

    image: np.ndarray
    sequence: int = 0
    epoch: int = 0
    listed: dict[int, int] = field(default_factory=dict)  # snapshots by sequence: their epochs
    listed_max: int = 3

    def note_marker(self, term: Term, sequence: int, marker: tuple[int, int]) -> None:
        """A SNAPSHOT or FORGET in the history."""
        kind, extra = marker
        if kind == record.FORGET:
            self.listed.pop(extra, None)
        elif len(self.listed) < self.listed_max:
            self.listed[sequence] = term.epoch_of(sequence)

    def move(self, term: Term, sequence: int) -> None:
        """Bring the image to this position of a term."""
        if self.sequence > sequence or (self.sequence and term.epoch_of(self.sequence) != self.epoch):
            self.image[:] = 0
            self.sequence = 0
            self.listed.clear()
        for number in range(self.sequence + 1, sequence + 1):
            write = term.write(number)
            if write.marker is not None:
                self.note_marker(term, number, write.marker)
                continue
            self.image[write.address : write.address + write.size] = 0 if write.data is None else write.data
        self.sequence = sequence
        self.epoch = term.epoch_of(sequence) if sequence else 0


def check_prefix(node, terms: dict[int, Term]) -> None:
    """A replica that calls itself consistent has in its volume exactly what the writes up to its applied sequence leave.

    So it is whatever its journal has lost: a volume that may be ahead of its log is known to be a mixture (decision 0029).
    """
    at = node.journal.at[0]
    sequence = int(at.applied_sequence)
    check_room(node)
    check_snapshots(node)
    if at.flags & log.INCONSISTENT:
        return
    epoch = int(at.applied_epoch)
    term = terms.get(epoch)
    if term is None or (sequence and (sequence > term.last or (term.epoch_of(sequence) != epoch and sequence != term.boundary))):
        raise Anomaly(f"replica {node.index} says it has applied write {sequence} of epoch {epoch}, which nobody ever submitted")
    if sequence >= node.lost_until:
        node.lost_until, node.is_damaged = 0, False  # It holds again whatever it has lost.
    node.shadow.move(term, sequence)
    if not is_as(node.shadow.image, node.world.cached, node.cluster.untrusted):
        where = int(np.flatnonzero((node.shadow.image != node.world.cached) & ~node.cluster.untrusted)[0])
        raise Anomaly(f"replica {node.index} at write {sequence} of epoch {epoch} does not hold that prefix: byte {where}")
    check_listed(node, node.shadow.listed)


def taken_extents(node) -> np.ndarray:
    """By extent, whether a replica's file holds any of it, or a write in its log will put something there."""
    at, staging = node.journal.at[0], node.cluster.shape.staging_bytes
    extents = -(-node.cluster.shape.volume_bytes // EXTENT_BYTES)
    sectors = np.zeros(extents * (EXTENT_BYTES // SECTOR_BYTES), bool)
    sectors[: node.world.held.size] = node.world.held != 0
    taken: np.ndarray = np.asarray(sectors.reshape(extents, -1).any(axis=1))
    position = int(at.applied)
    while position < at.staged:
        header = node.journal.headers[position % staging // record.HEADER_BYTES]
        if header.kind == record.WRITE:
            taken[int(header.address) // EXTENT_BYTES : -(-int(header.address + header.length) // EXTENT_BYTES)] = True
        position += int(record.record_bytes(int(header.length)))
    return taken


def kept_bytes(node) -> int:
    """What is kept for snapshots, by the blocks of which the bits say so."""
    return int(np.bitwise_count(node.journal.snapshots.bits).sum()) * log.BLOCK_BYTES


def is_too_much(node, address: int, size: int) -> bool:
    """Whether a write there needs more room than the volume may take; counted anew from the files and the log."""
    counted = node.cluster.count[node.index]
    limit = int(counted.limit)
    if limit == 0 or size == 0:
        return False
    taken = taken_extents(node)
    more = int((~taken[address // EXTENT_BYTES : -(-(address + size) // EXTENT_BYTES)]).sum())
    return more > 0 and (int(taken.sum()) + more) * EXTENT_BYTES > limit


def check_room(node) -> None:
    """A replica knows what its volume takes: what its file holds and its log will put there, and what snapshots keep."""
    counted, taken = node.journal.room.at[0], int(taken_extents(node).sum()) * EXTENT_BYTES
    if counted.allocated != taken:
        raise Anomaly(f"replica {node.index} counts {int(counted.allocated)} bytes taken by its volume, which takes {taken}")
    if counted.kept < kept_bytes(node):
        raise Anomaly(f"replica {node.index} counts {int(counted.kept)} bytes kept for snapshots, which are {kept_bytes(node)}")


def check_snapshots(node) -> None:
    """Whatever has happened to a replica, a snapshot that it calls whole shows the volume of its instant."""
    cluster, snapshots = node.cluster, node.journal.snapshots
    for row in snapshots.table[snapshots.table["state"] == snapshot.WHOLE]:
        sequence, epoch = int(row.sequence), int(row.epoch)
        picture = cluster.pictures.get((epoch, sequence))
        if picture is None:
            raise Anomaly(f"replica {node.index} has a snapshot {sequence} of epoch {epoch}, which nobody ever took")
        data = cluster.snapshot_bytes
        got = int(snapshot.read_snapshot(node.journal, node.ring, data, 0, data.size, 0, sequence))
        if got != data.size:
            if node.world.bad.any():
                continue  # A sector of the volume cannot be read.
            raise Anomaly(f"replica {node.index} calls snapshot {sequence} whole, and a read of it answers {got}")
        cluster.counts["snapshots read"] += 1
        expected = np.frombuffer(picture, np.uint8)
        if not is_as(expected, data, cluster.untrusted):
            where = int(np.flatnonzero((data != expected) & ~cluster.untrusted)[0])
            raise Anomaly(f"snapshot {sequence} of epoch {epoch} at replica {node.index} is not of its instant: byte {where}")


def check_listed(node, expected: dict[int, int]) -> None:
    """Which snapshots there are is what the log says, on every replica alike."""
    snapshots = node.journal.snapshots
    if snapshots.at[0].as_of > node.journal.at[0].applied_sequence:
        return  # A primary has told which there will be.
    rows = snapshots.table[(snapshots.table["state"] == snapshot.WHOLE) | (snapshots.table["state"] == snapshot.GIVEN_UP)]
    listed = {int(row.sequence): int(row.epoch) for row in rows}
    if listed != expected:
        raise Anomaly(f"replica {node.index} lists snapshots {sorted(listed)}, and its log tells of {sorted(expected)}")


def check_tended(node) -> None:
    """Once nothing is left to do, what was deleted takes no room, and what is kept is what the bits say."""
    snapshots, kept = node.journal.snapshots, node.world.kept_cached
    if node.journal.room.at[0].kept != kept_bytes(node):
        raise Anomaly(f"replica {node.index} counts more kept for snapshots than there is, and nothing is left to give back")
    stride = int(snapshots.at[0].stride)
    for place, row in enumerate(snapshots.table):
        begin = log.BLOCK_BYTES + place * stride
        if row.state == snapshot.FREE and kept[begin : begin + stride].any():
            raise Anomaly(f"replica {node.index} has a free place {place} with something in it")
        if row.state in (snapshot.LEAVING, snapshot.EMPTYING):
            raise Anomaly(f"replica {node.index} has not given back the room of a deleted snapshot")


def is_as(expected: np.ndarray, found: np.ndarray, untrusted: np.ndarray) -> bool:
    """Whether two stretches of a volume are the same, but for bytes about which a disk has lied."""
    return np.array_equal(expected, found) or bool((untrusted | (expected == found)).all())


def check_completed(cluster, node, term: Term, before: int, completed: int, detached: list[int]) -> None:
    """What has just completed had reached what the protocol asks, as the replicas themselves know."""
    protocol = cluster.protocol
    it = f"write {completed} of epoch {term.epoch} completed"
    if not node.ever_durable(cluster.terms, term, completed):
        raise Anomaly(f"{it} before it was durable at its primary")
    peers = [other for other in cluster.nodes if cluster.slot(node, other) >= 0]
    asked = [other for other in peers if not detached[cluster.slot(node, other)]]
    if protocol in (primary.C, primary.TWO_TRIP):
        for other in asked:
            if not other.ever_durable(cluster.terms, term, completed):
                raise Anomaly(f"{it} under C, never durable at replica {other.index}")
    if protocol == primary.B:
        for other in asked:
            if not other.ever_received(cluster.terms, term, completed):
                raise Anomaly(f"{it} under B, never received by replica {other.index}")
    if protocol == primary.QUORUM:
        count = 1 + sum(other.ever_durable(cluster.terms, term, completed) for other in peers)
        if count < cluster.quorum:
            raise Anomaly(f"{it} at {count} replicas, {cluster.quorum} were asked")
    newest = cluster.newest
    may_diverge = protocol == primary.A or (cluster.policy == primary.SUSPEND_REPLICATION and protocol != primary.QUORUM)
    # What it had received, and told, is gone with its power: that is B's promise, not a breach of it.
    may_diverge = may_diverge or (protocol == primary.B and cluster.nodes[newest.leader].has_crashed)
    if newest is not term and not newest.holds(term, completed):
        if may_diverge:
            return  # Exposed: a newer term has already begun without it.
        raise Anomaly(f"epoch {term.epoch} released write {completed} after epoch {newest.epoch} had begun without it")
    term.completed = max(term.completed, completed)
    for other in asked:
        term.held_by[other.index] = completed
    term.held_by[node.index] = completed


def check_read(node, address: int, data: np.ndarray) -> None:
    """A read shows the volume as one write has left it: no older one than the newest that has completed or was read before.

    By its own primary: one that was deposed and does not know it yet may answer old reads (engine/node.py).
    """
    term, end = node.term, address + data.size
    lowest = max(int(node.state.at[0].completed), term.read)
    node.seen.move(term, lowest)
    expected = node.seen.image[address:end].copy()
    for sequence in range(lowest, term.last + 1):
        if sequence > lowest:
            write = term.write(sequence)
            begin, stop = max(write.address, address), min(write.address + write.size, end)
            if begin >= stop:
                continue
            expected[begin - address : stop - address] = (
                0 if write.data is None else write.data[begin - write.address : stop - write.address]
            )
        if is_as(expected, data, node.cluster.untrusted[address:end]):
            term.read = sequence
            return
    raise Anomaly(
        f"a read of {data.size} bytes at {address} by replica {node.index} in epoch {term.epoch} does not show write {lowest}, "
        f"which had completed or was read before, nor any of those behind it"
    )


def check_verified(node) -> None:
    """A verify has found no difference but lies: that every replica holds a prefix is checked after every turn of it."""
    untrusted = node.cluster.untrusted
    lies = np.unique(np.flatnonzero(untrusted) // EXTENT_BYTES).size if untrusted.any() else 0
    for slot, row in enumerate(node.state.peer):
        if row.different > lies:
            raise Anomaly(f"a verify by replica {node.index} takes {row.different} extents of peer {slot} for different")


def check_promotion(cluster, node, term: Term) -> None:
    """No completed write is missing in a new term, but those whose loss the protocol or policy allows."""
    for old in cluster.terms.values():
        if old is term or old.completed == 0:
            continue
        required = old.completed
        if cluster.protocol == primary.A and node.index != old.leader:
            required = 0
        elif cluster.protocol == primary.B and node.index != old.leader:
            required = 0 if node.has_crashed else old.held_by.get(node.index, 0)
        elif cluster.policy == primary.SUSPEND_REPLICATION and cluster.protocol != primary.QUORUM:
            required = old.held_by.get(node.index, 0)
        if not term.holds(old, required):
            raise Anomaly(
                f"write {required} of epoch {old.epoch} was completed and is missing in epoch {term.epoch}, which begins "
                f"behind write {term.boundary}"
            )
        while old.completed and not term.holds(old, old.completed):
            old.completed -= 1  # Lost with leave: nobody is asked for it again.
        for index in old.held_by:
            old.held_by[index] = min(old.held_by[index], old.completed)


def check_equal(cluster) -> None:
    """After healing and resync every replica's volume is the same."""
    first, *_ = nodes = cluster.replicas()
    for node in nodes:
        if node.journal.at[0].flags & log.INCONSISTENT:
            raise Anomaly(f"replica {node.index} still calls itself inconsistent after everything has healed")
        if not np.array_equal(first.world.cached, node.world.cached):
            where = int(np.flatnonzero(first.world.cached != node.world.cached)[0])
            raise Anomaly(f"replicas {first.index} and {node.index} differ at byte {where} after everything has healed")
