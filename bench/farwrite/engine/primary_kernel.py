"""The primary: takes writes, sends each to its peers before it flushes it here, and completes it at its protocol's point.

`reserve` gives a write's payload its place in the log and `commit` stages it; `submit` does both with a payload of its own, for
a measured load. `progress` is one turn of the loop (send, flush, wait, hear acks); `completable` is the rule.
One thread does it all, and sleeps in one place. The floor of a synchronous write is therefore
max(local flush, RTT + remote flush), not their sum. What happens to a peer that is lost, stale or comes back is
turn_kernel's and resync_kernel's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..base.histogram_kernel import SLOTS
from ..base.histogram_kernel import record as tally
from ..base.host import libc, reactor
from ..base.host.libc import aligned_bytes
from ..base.jit import kernel
from ..base.row import Row, i64, rows_of
from ..workload.payload_kernel import SOLID, fill_by_profile
from . import journal_kernel as log
from . import record_kernel as record
from . import replica_kernel as replica
from . import room_kernel as room
from . import snapshot_kernel as snapshot

# Protocols, as DRBD numbers them; LOCAL has no peer and completes when durable here. TWO_TRIP is C as plain SCSI does it:
# command, ready, data, status. QUORUM completes when W replicas, this one among them, are durable.
LOCAL, A, B, C, TWO_TRIP, QUORUM = 0, 1, 2, 3, 4, 5

# What a lost peer means. END: the loop ends and says so, as a measurement wants it. BLOCK: nothing completes that needs the peer
# until it is back. SUSPEND_REPLICATION: the rest goes on at once, exposed. CONSENT: the rest goes on once it has been
# detached from outside, by a majority or a witness.
END, BLOCK, SUSPEND_REPLICATION, CONSENT = 0, 1, 2, 3

# What a full send buffer means under protocol A. WAIT: new writes are held up, so the recovery point is bounded by memory.
# PULL_AHEAD: go on without the peer, which then catches up from the journal or by extents: the recovery point grows.
WAIT, PULL_AHEAD = 0, 1

# A peer's state. ABSENT: no connection. LIVE: sent from the staging ring. CATCHING: sent from the journal's file until it has
# caught up. RESYNCING: sent extents of the volume, then the log from where they began.
ABSENT, LIVE, CATCHING, RESYNCING = 0, 1, 2, 3

PEERS_MAX = 4  # Five replicas.
INBOX_BYTES = 64 << 10
RESYNC_BUFFER_BYTES = (1 << 20) + (128 << 10)  # The largest record, and blocks around it.
UNBOUNDED_BYTES_PER_S = 1 << 40
BESIDE_BYTES_PER_S = 640 << 20  # A resync beside writes with a latency budget begins at half of a 10 Gbit/s link.
DIGEST_EXTENTS = 8  # In one frame; its answer has a byte for each.
RUN_BLOCKS = 1 << 14  # Of a snapshot, looked at for one part of an answer: 64 MiB.
LAG_RING = 1 << 17  # Writes that may be complete and not yet known durable at any peer; more are not taken.

# Whether writes wait for a peer (Peer.detached). DETACHED: they did once, and complete without it, so they are in fewer places
# than was asked. NOT_YET: they never did. It is a row of nobody's, or of a replica that was added and is not up to date yet.
WAITED_FOR, DETACHED, NOT_YET = 0, 1, 2

# What the control thread asks of the loop (ControlRequest.request).
NOTHING, ADOPT, DETACH, DROP, VERIFY, VACATE = 0, 1, 2, 3, 4, 5
NO_ROOM = -1101  # What reserve() answers when journal or memory is full.
NO_SPACE = -1103  # What reserve() answers when a write needs more room on the disks than its volume may take.
UNEQUAL = -1102  # What compare_and_write() answers when the volume holds something else.

BY_LOG, BY_EXTENTS, BY_DIGESTS = 0, 1, 2  # How a peer that comes back is brought up to date.


class Leading(Row):
    """What a primary knows of itself. Sequences count writes from 1."""

    protocol = i64("LOCAL to QUORUM")
    seed = i64("of the payloads it makes")
    completed = i64("sequence: highest whose caller was released")
    quorum_size = i64("replicas that must be durable under QUORUM, this one among them")
    policy = i64("what a lost peer means: END, BLOCK, SUSPEND_REPLICATION or CONSENT")
    congestion = i64("what a full send buffer means under A: WAIT or PULL_AHEAD")
    peer_timeout_ns = i64("ns without an answer after which a peer is lost")
    blocked = i64("times a write was not taken because there was no room")
    noted_completed = i64("sequence: highest whose completion is in completed_ns")
    noted_durable = i64("sequence: highest whose lag is in the histogram")
    lag_writes_max = i64("most writes that were complete and not known durable at any peer")
    lag_bytes_max = i64("most user bytes of such writes")
    wait_begin_ns = i64("ns, CLOCK_MONOTONIC: when the last sleep began")
    woken_ns = i64("ns, CLOCK_MONOTONIC: when it ended")
    exposed = i64("writes that completed while a peer was detached")
    volume_bytes = i64("bytes of the volume")
    resync_bytes_per_s = i64("bytes/s at which resyncs go now")
    resync_bytes_per_s_max = i64("bytes/s: the most it is raised to")
    latency_budget_ns = i64("ns: while writes take longer, resyncs are slowed down; 0: never")
    submitted_ns = i64("ns, CLOCK_MONOTONIC: when the newest write was staged")
    marker_sequence = i64("sequence of the newest SNAPSHOT or FORGET that it has staged; the next one waits until it is applied")


class Peer(Row):
    """What a primary knows of one peer. Frames and positions are those of this connection."""

    state = i64("ABSENT, LIVE, CATCHING or RESYNCING")
    sent = i64("position: everything before it was handed to the socket or needs not be sent")
    run_end = i64("position: the end of the run of records that is being sent from sent on")
    run_sequence = i64("sequence of the last record before run_end")
    sent_sequence = i64("sequence: every record up to it was handed to the socket whole")
    received = i64("sequence: highest that the peer has received")
    durable = i64("sequence: highest that the peer has made durable")
    granted = i64("sequence: two-trip C, highest it has given leave to send")
    commanded = i64("sequence: two-trip C, highest it was asked for")
    last_heard_ns = i64("ns, CLOCK_MONOTONIC: when anything arrived last")
    last_ping_ns = i64("ns, CLOCK_MONOTONIC: when a PING was sent last")
    asked_ns = i64("ns, CLOCK_MONOTONIC: since when an answer is due; 0: none is")
    inbox_fill = i64("bytes in the inbox that are no whole frame yet")
    wire_bytes = i64("bytes sent, over all connections")
    ack_count = i64("acks heard, over all connections")
    detached = i64("WAITED_FOR; DETACHED or NOT_YET: writes complete without it")
    lost_count = i64("times it was lost")
    lost_status = i64("why it was lost last, a status of replica_kernel")
    buffer_begin = i64("bytes into the resync buffer: where what is sent from it begins")
    buffer_end = i64("bytes into the resync buffer: where that ends")
    buffer_sent = i64("bytes into the resync buffer: everything before it was handed to the socket")
    cursor = i64("extent: the next to be looked at, for a digest or for what last_write says of it")
    since_sequence = i64("sequence: a resync by extents sends what was written behind it; -1: one by digests")
    wanted_from = i64("extent: a resync has none to send before it")
    wanted_count = i64("extents that a resync has found and not sent yet")
    redo_sequence = i64("sequence behind which the log goes on after a resync")
    told_sequence = i64("sequence of the last extent or digest on this connection: what was applied here by then")
    resync_since_ns = i64("ns, CLOCK_MONOTONIC: when this resync, verify or catching up began")
    resync_bytes = i64("bytes sent since then")
    digests_sent = i64("DIGEST frames of this resync or verify")
    digests_answered = i64("how many of them the peer has answered")
    verifying = i64("1: a verify is under way; 2: it is over, and different tells its result")
    different = i64("extents that a verify has found to differ")
    synced_count = i64("times its log was begun anew: its acks tell for which of them they are")
    resync_due_ns = i64("ns, CLOCK_MONOTONIC: the next piece of a resync or verify goes no sooner")
    aside_sent = i64("frames sent that are not in the log: the ordinal of the last")
    aside_heard = i64("frames heard that are not in the log: the ordinal of the last")
    digests_dropped = i64("digests whose answers are no longer asked for and still to come: a resync has begun meanwhile")


class ControlRequest(Row):
    """What the control thread asks of the loop for one peer. The request is written last, and cleared by the loop."""

    request = i64("NOTHING, ADOPT, DETACH, DROP, VERIFY or VACATE")
    socket = i64("ADOPT: descriptor of its connection")
    sequence = i64("ADOPT: it holds everything up to here")
    how = i64("ADOPT: BY_LOG, BY_EXTENTS or BY_DIGESTS")


class MarkerRequest(Row):
    """A SNAPSHOT or FORGET that Python asks the loop for. The request is written last, and cleared by the loop."""

    request = i64("NOTHING, record_kernel.SNAPSHOT or FORGET")
    extra = i64("of the record: ns, CLOCK_REALTIME, or the sequence of the snapshot")
    name_bytes = i64("SNAPSHOT: bytes of its name")
    sequence = i64("of the record, once it is staged; negative: it cannot be")


class Primary(NamedTuple):
    """One replica that takes writes. Sequences count from 1; sequence s is the s-th write submitted."""

    at: np.ndarray  # Leading, one
    journal: log.Journal
    ring: reactor.Reactor
    sockets: np.ndarray  # int64 by peer, -1 without a connection
    peer: np.ndarray  # Peer, by peer
    no_peer: np.ndarray  # Peer, one: zeros, which a fresh connection begins with
    frame: np.ndarray  # uint8, one header: what is sent between two records
    frame_headers: np.ndarray  # Header, the same memory
    inbox: np.ndarray  # uint8, peer x bytes: acks as they arrive
    inbox_headers: np.ndarray  # Header, the same memory
    resync_buffer: np.ndarray  # uint8, peer x bytes, page-aligned: what is sent to one peer only
    resync_words: np.ndarray  # int64, the same memory
    resync_headers: np.ndarray  # Header, the same memory
    wanted: np.ndarray  # uint8, peer x extents: what a resync has still to send, of those before its cursor
    control_requests: np.ndarray  # ControlRequest, by peer
    marker_request: np.ndarray  # MarkerRequest, one
    marker_name: np.ndarray  # uint8: what it names
    submitted_ns: np.ndarray  # int64 by sequence modulo LAG_RING
    completed_ns: np.ndarray  # int64 by sequence modulo LAG_RING
    bytes_before: np.ndarray  # int64 by sequence modulo LAG_RING: user bytes up to and with this write
    lag: np.ndarray  # int64 histogram: ns from a write's completion until it was known durable at a peer


def primary_state(
    journal: log.Journal, ring: reactor.Reactor, sockets: list[int], protocol: int, seed: int, peer_timeout_ns: int,
    quorum: int = 0, policy: int = END, congestion: int = WAIT, peer_count: int = 0, volume_bytes: int = 0,
    resync_buffer_bytes: int = RESYNC_BUFFER_BYTES, lag_ring: int = LAG_RING, latency_budget_ns: int = 0,
) -> Primary:  # fmt: skip
    """A primary that continues where its journal ends, with peers that hold what it holds.

    `peer_count` may exceed the sockets given: those peers are absent and may be adopted later. While writes take longer than
    `latency_budget_ns` (0: however long they take) a resync beside them is slowed down.
    """
    count = max(peer_count, len(sockets))
    frame, inbox = np.zeros(record.HEADER_BYTES, np.uint8), np.zeros((count, INBOX_BYTES), np.uint8)
    resync_buffer = aligned_bytes(count * resync_buffer_bytes)[: count * resync_buffer_bytes].reshape(count, resync_buffer_bytes)
    journal.at[0].held = log.EVERYTHING_SENT
    header = record.Header.LAYOUT
    made = Primary(
        rows_of(Leading), journal, ring, np.full(count, -1, np.int64), rows_of(Peer, count), rows_of(Peer), frame,
        frame.view(header), inbox, inbox.view(header), resync_buffer, resync_buffer.view(np.int64), resync_buffer.view(header),
        np.zeros((count, journal.last_write.size), np.uint8), rows_of(ControlRequest, count), rows_of(MarkerRequest),
        np.zeros(record.NAME_BYTES_MAX + 1, np.uint8), np.zeros(lag_ring, np.int64), np.zeros(lag_ring, np.int64),
        np.zeros(lag_ring, np.int64), np.zeros(SLOTS, np.int64),
    )  # fmt: skip
    at = made.at[0]
    at.protocol, at.seed, at.peer_timeout_ns = protocol, seed, peer_timeout_ns
    at.quorum_size, at.policy, at.congestion, at.volume_bytes = quorum, policy, congestion, volume_bytes
    at.latency_budget_ns = latency_budget_ns
    at.resync_bytes_per_s = at.resync_bytes_per_s_max = BESIDE_BYTES_PER_S if latency_budget_ns else UNBOUNDED_BYTES_PER_S
    at.completed = at.noted_completed = at.noted_durable = journal.at[0].staged_sequence
    for index, socket in enumerate(sockets):
        begin_peer(made, index, socket, int(journal.at[0].staged_sequence), int(reactor.now_ns(ring)))
        made.peer[index].state = LIVE
        made.peer[index].sent = made.peer[index].run_end = journal.at[0].staged
    return made


@kernel()
def begin_peer(primary, index, socket, sequence, now_ns):
    """A connection to a peer that is known to hold everything up to `sequence`; its state is still to be set."""
    peer = primary.peer[index]
    detached, lost, wire, acks = peer.detached, peer.lost_count, peer.wire_bytes, peer.ack_count
    primary.peer[index] = primary.no_peer[0]
    peer.detached, peer.lost_count, peer.wire_bytes, peer.ack_count = detached, lost, wire, acks
    peer.run_sequence = peer.sent_sequence = peer.received = peer.durable = peer.granted = peer.commanded = sequence
    peer.last_heard_ns = peer.last_ping_ns = now_ns
    primary.sockets[index] = socket


@kernel()
def completable(protocol, quorum, local_durable, reached, detached):
    """The highest sequence that may complete, given how far each peer has reached the protocol's point.

    Every protocol asks for durability here; they differ in what they ask of the peers (drbdsetup(8), "protocol"). Peers that are
    detached are not asked, except by a quorum, which counts whoever is durable: the W-th furthest of all replicas.
    """
    lowest = local_durable
    if protocol == LOCAL:
        return lowest
    if protocol != QUORUM:
        for index in range(reached.size):
            if not detached[index]:
                lowest = min(lowest, reached[index])
        return lowest
    best = np.int64(-1)
    for candidate in range(reached.size + 1):
        level = local_durable if candidate == reached.size else reached[candidate]
        count = np.int64(1 if local_durable >= level else 0)
        for index in range(reached.size):
            if reached[index] >= level:
                count += 1
        if count >= quorum:
            best = max(best, level)
    return min(best, local_durable)


@kernel()
def point_of(peer, protocol):
    """How far a peer has reached the protocol's point: a sequence."""
    if protocol == A:
        return peer.sent_sequence
    if protocol == B:
        return peer.received
    return peer.durable


@kernel()
def note_completable(primary):
    """Bring `completed` to what the rule allows; it never goes back, whoever joins or leaves."""
    at = primary.at[0]
    peers = primary.peer
    reached = peers["durable"]
    if at.protocol == A:
        reached = peers["sent_sequence"]
    elif at.protocol == B:
        reached = peers["received"]
    local_durable = primary.journal.at[0].durable_sequence
    reachable = completable(at.protocol, at.quorum_size, local_durable, reached, primary.peer["detached"])
    at.completed = max(at.completed, reachable)

    assert at.completed <= local_durable


@kernel()
def note_submitted(primary, sequence, now_ns):
    """A write has been staged: its instant, and the user bytes up to and with it."""
    place = sequence % primary.bytes_before.size
    primary.bytes_before[place] = primary.journal.at[0].user_bytes
    primary.submitted_ns[place] = primary.at[0].submitted_ns = now_ns


@kernel()
def is_taking(primary, size):
    """Whether there is room for one write more; what stands in its way is hurried when there is none."""
    if log.has_room(primary.journal, size) and outstanding(primary) < primary.completed_ns.size - 1:
        return True
    primary.at[0].blocked += 1
    primary.journal.at[0].wants_watermark = 1
    return False


@kernel()
def may_enter(journal, kind, address, size, length):
    """Whether a write or trim may get into the log: replay can apply it, and there is room for it when all else is gone."""
    return record.is_applicable(kind, address, size, journal.at[0].volume_bytes) and log.is_placeable(journal, length)


@kernel()
def reserve(primary, kind, address, size):
    """Where the payload of a WRITE or TRIM goes in the staging ring (journal.data), or a negative answer.

    NO_ROOM when journal or memory is full: ask again after progress. INVALID_WRITE when it has no bytes, too many, or some
    outside of the volume: never ask again. NO_SPACE when it needs extents beyond the volume's limit. Nothing is staged before
    commit(), and a place that is not committed was never there; between the two nothing else may happen to the journal.
    """
    journal = primary.journal
    size = np.int64(size)
    length = size if kind == record.WRITE else np.int64(0)
    if not may_enter(journal, kind, np.int64(address), size, length):
        return np.int64(replica.INVALID_WRITE)
    if kind == record.WRITE and journal.room.at[0].limit != 0:
        refused = room_refusal(primary, np.int64(address), size)
        if refused < 0:
            journal.room.at[0].refused += refused == NO_SPACE
            return refused
    if not is_taking(primary, length):
        return np.int64(NO_ROOM)
    return log.reserve(journal, length) + record.HEADER_BYTES


@kernel()
def room_refusal(primary, address, size):
    """0 when a write may take the extents that it needs, NO_SPACE when not; NO_ROOM when a TRIM in the log or a grant may help.

    What was trimmed is given back once the TRIM is applied, which is later than it is complete: who was answered to his TRIM may
    write there.
    """
    journal = primary.journal
    if room.fits(journal.room, journal.at[0].extent_bytes, address, size):
        return np.int64(0)
    if journal.at[0].applied_sequence < journal.room.at[0].trim_sequence:
        journal.at[0].wants_watermark = 1
        return np.int64(NO_ROOM)
    return np.int64(NO_ROOM if room.may_be_granted(journal, reactor.now_ns(primary.ring)) else NO_SPACE)


@kernel()
def commit(primary, place, kind, address, size, now_ns):
    """Stage what was reserved at `place`, its payload being there: seal and count it. Answers its sequence."""
    journal = primary.journal
    start = place - record.HEADER_BYTES
    length = np.int64(size) if kind == record.WRITE else np.int64(0)
    sequence = log.commit(journal, start, length)
    room.note_staged(journal.room, journal.at[0].extent_bytes, kind, np.int64(address), np.int64(size), sequence)
    note_submitted(primary, sequence, now_ns)
    record.seal(
        journal.data, journal.headers, start, kind, length, sequence, address, journal.at[0].epoch, journal.at[0].volume, now_ns,
        np.int64(size) - length,
    )  # fmt: skip
    return sequence


@kernel()
def submit(primary, number, address, size, now_ns, payload_profile=SOLID):
    """Stage write `number` (counted from 0 in the plan) with the payload that follows from it: 1, or what taken() makes of it."""
    place = reserve(primary, record.WRITE, address, size)
    if place < 0:
        return taken(place)
    fill_by_profile(
        primary.journal.data, place, np.int64(size), primary.at[0].seed, np.int64(number), np.int64(address),
        np.int64(payload_profile),
    )  # fmt: skip
    commit(primary, place, record.WRITE, address, size, now_ns)
    return np.int64(1)


@kernel()
def taken(answer):
    """What a target answers to a write, of what reserve() has: 0 when there is no room now, otherwise why it is refused."""
    return np.int64(0) if answer == NO_ROOM else np.int64(answer)


@kernel()
def submit_trim(primary, address, size, now_ns):
    """Stage giving back `size` bytes at `address`, which read as zeros from then on; a write like any other but without payload.

    Answers what submit() does.
    """
    place = reserve(primary, record.TRIM, address, size)
    if place < 0:
        return taken(place)
    commit(primary, place, record.TRIM, address, size, now_ns)
    return np.int64(1)


@kernel()
def submit_zeros(primary, address, size, now_ns):
    """Stage `size` bytes of zeros at `address` that keep their room on every replica's disk. Answers what submit() does.

    Where the room may be given back, submit_trim() does the same to whoever reads, at any size and without a payload.
    """
    place = reserve(primary, record.WRITE, address, size)
    if place < 0:
        return taken(place)
    primary.journal.data[place : place + size] = 0
    commit(primary, place, record.WRITE, address, size, now_ns)
    return np.int64(1)


@kernel()
def submit_bytes(primary, data, start, address, size, now_ns):
    """Stage a write of data[start:start + size]. Answers what submit() does."""
    place = reserve(primary, record.WRITE, address, size)
    if place < 0:
        return taken(place)
    libc.copy(primary.journal.data, place, data, np.int64(start), np.int64(size))
    commit(primary, place, record.WRITE, address, size, now_ns)
    return np.int64(1)


@kernel()
def submit_marker(primary, kind, name, name_bytes, extra, now_ns):
    """Stage a SNAPSHOT of this name, or a FORGET: 1; 0 when there is no room, or the one before it is not applied yet."""
    journal = primary.journal
    at = journal.at[0]
    if at.applied_sequence < primary.at[0].marker_sequence or not is_taking(primary, np.int64(name_bytes)):
        return np.int64(0)
    if not record.is_marker_applicable(kind, np.int64(0), np.int64(name_bytes), extra, at.staged_sequence + 1):
        return np.int64(replica.INVALID_WRITE)
    start = log.reserve(journal, np.int64(name_bytes))
    libc.copy(journal.data, start + record.HEADER_BYTES, name, np.int64(0), np.int64(name_bytes))
    sequence = log.commit(journal, start, np.int64(name_bytes))
    note_submitted(primary, sequence, now_ns)
    record.seal(
        journal.data, journal.headers, start, kind, name_bytes, sequence, np.int64(0), at.epoch, at.volume, now_ns, extra
    )
    primary.at[0].marker_sequence = sequence
    return np.int64(1)


@kernel()
def take_marker_request(primary, now_ns):
    """Stage the SNAPSHOT or FORGET that Python has asked for, if there is room for it now."""
    asked = primary.marker_request[0]
    answer = submit_marker(primary, asked.request, primary.marker_name, asked.name_bytes, asked.extra, now_ns)
    if answer != 0:
        asked.sequence = primary.journal.at[0].staged_sequence if answer > 0 else answer
        libc.fence_release()
        asked.request = NOTHING


@kernel()
def compare_and_write(primary, expected, expected_start, data, start, address, size, seen, seen_start, now_ns):
    """Write data[start:start + size] if the volume, with everything that was submitted, holds expected[expected_start:] there.

    1 when it did and the write is staged. Otherwise nothing is: 0 without room; UNEQUAL, and what stands there is then in
    seen[seen_start:]; INVALID_WRITE; or what the disk has answered. One loop takes all writes, so nothing comes in between.
    Before UNEQUAL is told to a client all that was submitted must be complete: what it was compared with may not be durable.
    """
    place = reserve(primary, record.WRITE, address, size)
    if place < 0:
        return taken(place)
    got = read_submitted(primary, seen, seen_start, np.int64(size), np.int64(address))
    if got < 0:
        return got
    for byte in range(np.int64(size)):
        if seen[seen_start + byte] != expected[expected_start + byte]:
            return np.int64(UNEQUAL)
        primary.journal.data[place + byte] = data[start + byte]
    commit(primary, place, record.WRITE, address, size, now_ns)
    return np.int64(1)


@kernel()
def barrier(primary):
    """The sequence whose completion answers a flush: then everything that was submitted before it, by anyone, is complete.

    A write is complete at its protocol's point, and durable where that says: a flush has nothing more to do than wait.
    """
    return primary.journal.at[0].staged_sequence


@kernel()
def apply_all(primary):
    """Apply what may be applied to the volume; 0 or a status, which ends the primary."""
    journal = primary.journal
    while replica.appliable(journal):
        status = replica.apply(journal, primary.ring, np.int64(replica.APPLY_BYTES))
        if status < 0:
            return status
    return np.int64(replica.OK)


@kernel()
def read(primary, data, start, size, address):
    """Bytes read of the volume as the completed writes have left it, or a status. Served here, without the peers.

    What is durable in the journal and not yet in the volume is laid over it; a write that is not complete may be seen.
    """
    status = apply_all(primary)
    if status < 0:
        return status
    return read_up_to(primary, data, start, size, address, primary.journal.at[0].durable)


@kernel()
def read_submitted(primary, data, start, size, address):
    """read(), but as all that was submitted will leave it: what a compare-and-write is held against."""
    status = apply_all(primary)
    if status < 0:
        return status
    return read_up_to(primary, data, start, size, address, primary.journal.at[0].staged)


@kernel()
def read_up_to(primary, data, start, size, address, position):
    """Bytes read of the volume with the log up to `position` laid over it, or -errno."""
    journal = primary.journal
    got = reactor.read_volume(primary.ring, journal.at[0].volume_fd, data, start, size, address)
    if got > 0:
        overlay(journal, data, start, got, address, position)
    return got


@kernel()
def overlay(journal, data, start, size, address, end):
    """Lay the writes of the log up to position `end` that the volume has not yet over what was read of it."""
    position = journal.at[0].applied
    while position < end:
        place = position % journal.at[0].staging_bytes
        kind, length = record.kind_of(journal.headers, place), record.length_of(journal.headers, place)
        if kind != record.PAD:
            begin = record.address_of(journal.headers, place)
            written = record.written_of(journal.headers, place)
            for byte in range(max(begin, address), min(begin + written, address + size)):
                source = journal.data[place + record.HEADER_BYTES + byte - begin] if kind == record.WRITE else np.uint8(0)
                data[start + byte - address] = source
        position += record.record_bytes(length)


@kernel()
def extent_at(primary, address, end):
    """(where it ends, whether it is a hole) of what begins at `address` in the volume and ends at `end` at the latest.

    A hole reads as zeros and takes no room on this replica's disk. What a write in the log will fill is none, and what it holds
    back from being looked up (another kind of file, a pretended one) is called data, which is always safe to say.
    """
    journal = primary.journal
    is_hole, stop = False, np.int64(end)
    if primary.ring.at[0].kind != reactor.PRETEND:
        fd = journal.at[0].volume_fd
        data_at = libc.seek(fd, np.int64(address), libc.SEEK_DATA)
        is_hole = data_at == -libc.ENXIO or data_at > address
        if not is_hole:
            hole_at = libc.seek(fd, np.int64(address), libc.SEEK_HOLE)
            stop = min(stop, hole_at) if hole_at > address else stop
        elif data_at > 0:
            stop = min(stop, data_at)
    if not is_hole:
        return stop, False
    position = journal.at[0].applied
    while position < journal.at[0].staged:
        place = position % journal.at[0].staging_bytes
        if record.kind_of(journal.headers, place) == record.WRITE:
            begin = record.address_of(journal.headers, place)
            if begin <= address < begin + record.length_of(journal.headers, place):
                return min(np.int64(end), begin + record.length_of(journal.headers, place)), False
            if address < begin < stop:
                stop = begin
        position += record.record_bytes(record.length_of(journal.headers, place))
    return stop, True


@kernel()
def snapshot_extent_at(primary, address, end, index):
    """extent_at() of the snapshot at this index of snapshot_kernel's order. A kept block whose bytes are lost is no hole."""
    snapshots = primary.journal.snapshots
    block = address // snapshot.BLOCK_BYTES
    source, last = snapshot.source_of(snapshots, index, block), min((end - 1) // snapshot.BLOCK_BYTES, block + RUN_BLOCKS)
    while block < last and snapshot.source_of(snapshots, index, block + 1) == source:
        block += 1
    stop = min(np.int64(end), (block + 1) * snapshot.BLOCK_BYTES)
    if primary.ring.at[0].kind == reactor.PRETEND:
        return stop, False
    fd, base = primary.journal.at[0].volume_fd, np.int64(0)
    if source >= 0:
        fd, base = snapshots.at[0].fd, snapshot.block_offset(snapshots, source, np.int64(0))
    data_at = libc.seek(fd, base + address, libc.SEEK_DATA)
    if data_at == -libc.ENXIO or data_at > base + address:
        stop = stop if data_at < 0 else min(stop, data_at - base)
        if source < 0:
            return stop, True
        zeros_end = block_begin = address // snapshot.BLOCK_BYTES * snapshot.BLOCK_BYTES
        while zeros_end < stop and snapshot.is_kept_zeros(snapshots, primary.ring, source, zeros_end // snapshot.BLOCK_BYTES):
            zeros_end += snapshot.BLOCK_BYTES
        return (min(stop, zeros_end), True) if zeros_end > block_begin else (stop, False)
    hole_at = libc.seek(fd, base + address, libc.SEEK_HOLE)
    return (min(stop, hole_at - base) if hole_at > base + address else stop), False


@kernel()
def changed_at(primary, address, end, older, newer, is_volume):
    """(where it ends, whether it may differ) of what begins at `address`, between two indices of snapshot_kernel's order.

    `is_volume`: `newer` is the volume as all that was submitted leaves it.
    """
    journal = primary.journal
    stop, may_differ = snapshot.differs_until(journal.snapshots, older, newer, address, np.int64(end), np.int64(RUN_BLOCKS))
    if may_differ or not is_volume:
        return stop, may_differ
    position = journal.at[0].applied
    while position < journal.at[0].staged:
        place = position % journal.at[0].staging_bytes
        if record.kind_of(journal.headers, place) != record.PAD:
            begin, size = record.address_of(journal.headers, place), record.written_of(journal.headers, place)
            if begin <= address < begin + size:
                return min(stop, begin + size), True
            if size > 0 and address < begin < stop:
                stop = begin
        position += record.record_bytes(record.length_of(journal.headers, place))
    return stop, False


@kernel()
def send_staged(primary, index):
    """Hand staged records to a live peer's send buffer until it is full; answers 0 or a status."""
    peer = primary.peer[index]
    journal = primary.journal
    two_trip = primary.at[0].protocol == TWO_TRIP
    while True:
        if peer.sent == peer.run_end:
            peer.sent_sequence = peer.run_sequence
            if two_trip and not send_command(primary, index):
                return np.int64(replica.PEER_CLOSED)
            begin = log.skip_pads(journal, peer.sent, journal.at[0].staged)
            sequence_max = peer.granted if two_trip else journal.at[0].staged_sequence
            end = log.run_end(journal, begin, journal.at[0].staged, sequence_max)
            peer.sent, peer.run_end = begin, end
            if begin == end:
                return np.int64(replica.OK)
            # The run's last record tells its sequence: everything staged up to here, less what follows the run.
            peer.run_sequence = last_sequence(journal, begin, end)
        start = peer.sent % journal.at[0].staging_bytes
        sent = reactor.send(primary.ring, primary.sockets[index], journal.data, start, peer.run_end - peer.sent)
        if sent == -reactor.EAGAIN or sent == -reactor.EINTR:
            return np.int64(replica.OK)
        if sent < 0:
            return np.int64(replica.PEER_CLOSED)
        peer.sent += sent
        peer.wire_bytes += sent
        if peer.asked_ns == 0:
            peer.asked_ns = reactor.now_ns(primary.ring)


@kernel()
def send_command(primary, index):
    """Two-trip C: ask leave to send what has been staged since the last command. False when the connection is gone."""
    peer = primary.peer[index]
    staged = primary.journal.at[0].staged_sequence
    if staged == peer.commanded:
        return True
    sent = send_word(primary, index, record.COMMAND, staged)
    if sent == record.HEADER_BYTES:
        peer.commanded = staged
        if peer.asked_ns == 0:
            peer.asked_ns = reactor.now_ns(primary.ring)
    return sent == record.HEADER_BYTES or sent == 0


@kernel()
def send_word(primary, index, kind, sequence):
    """Send one header between two records: its bytes, 0 when the buffer is full, or a status."""
    at = primary.journal.at[0]
    peer = primary.peer[index]
    record.seal(
        primary.frame, primary.frame_headers, np.int64(0), kind, 0, sequence, np.int64(0), at.epoch, at.volume,
        reactor.now_ns(primary.ring), np.int64(0), peer.aside_sent + 1,
    )  # fmt: skip
    sent = reactor.send(primary.ring, primary.sockets[index], primary.frame, np.int64(0), np.int64(record.HEADER_BYTES))
    if sent == -reactor.EAGAIN or sent == -reactor.EINTR:
        return np.int64(0)
    peer.aside_sent += 1
    return sent if sent == record.HEADER_BYTES else np.int64(replica.PEER_CLOSED)  # Half of one cannot be taken back.


@kernel()
def last_sequence(journal, begin, end):
    """Sequence of the last record in a run of writes."""
    first = record.sequence_of(journal.headers, begin % journal.at[0].staging_bytes)
    position = begin
    count = 0
    while position < end:
        start = position % journal.at[0].staging_bytes
        position += record.record_bytes(record.length_of(journal.headers, start))
        count += 1
    return first + count - 1


@kernel()
def hear(primary, index, now_ns):
    """Take in what a peer has sent. Answers 0 or a status; a frame that no secondary may send ends the peering."""
    peer = primary.peer[index]
    inbox, headers = primary.inbox[index], primary.inbox_headers[index]
    while True:
        room = INBOX_BYTES - peer.inbox_fill
        got = reactor.receive(primary.ring, primary.sockets[index], inbox, peer.inbox_fill, room)
        if got == -reactor.EAGAIN or got == -reactor.EINTR:
            return np.int64(replica.OK)
        if got <= 0:
            return np.int64(replica.PEER_CLOSED)
        peer.last_heard_ns = now_ns
        peer.asked_ns = 0
        peer.inbox_fill += got
        consumed = np.int64(0)
        while True:
            fill = peer.inbox_fill - consumed
            # Nothing longer is an answer, and nothing of it is waited for.
            if fill >= record.HEADER_BYTES and record.length_of(headers, consumed) > DIGEST_EXTENTS:
                return np.int64(replica.BAD_FRAME)
            found = record.inspect(inbox, headers, consumed, fill, primary.journal.at[0].volume)
            if found == record.INCOMPLETE:
                break
            if found != record.COMPLETE:
                return np.int64(replica.BAD_FRAME)
            # The payload's rounding up to 64 bytes travels too, outside the checksum.
            size = record.record_bytes(record.length_of(headers, consumed))
            if fill < size:
                break
            if not note_answer(primary, index, consumed):
                return np.int64(replica.BAD_FRAME)
            consumed += size
        left = peer.inbox_fill - consumed
        for byte in range(left):
            inbox[byte] = inbox[consumed + byte]
        peer.inbox_fill = left
        if got < room:
            return np.int64(replica.OK)


@kernel()
def note_answer(primary, index, start):
    """Take note of one frame of a secondary; False when it is none, is not the next, or claims what cannot be."""
    peer = primary.peer[index]
    headers = primary.inbox_headers[index]
    kind = record.kind_of(headers, start)
    if record.epoch_of(headers, start) != primary.journal.at[0].epoch or not record.is_next(headers, start, peer.aside_heard):
        return False
    peer.aside_heard += 1
    if kind == record.ACK:
        return note_ack(primary, index, start)
    if record.extra_of(headers, start) != 0:
        return False
    if kind == record.READY:
        granted = record.sequence_of(headers, start)
        if record.address_of(headers, start) != 0 or not record.lies_in(granted, np.int64(0), peer.granted, peer.commanded):
            return False
        peer.granted = granted
        return True
    if kind == record.DIFFERS:
        return note_differs(primary, index, start)
    return False


@kernel()
def note_ack(primary, index, start):
    """Take note of one ack; False when it claims what cannot be: more than was sent, or less than before."""
    peer = primary.peer[index]
    headers = primary.inbox_headers[index]
    durable = record.sequence_of(headers, start)
    received = record.address_of(headers, start)
    begun = record.extra_of(headers, start)
    nothing = np.int64(0)
    if not record.lies_in(begun, nothing, nothing, peer.synced_count):
        return False
    if not record.lies_in(received, nothing, nothing, np.int64(record.NUMBER_MAX)):
        return False
    if not record.lies_in(durable, nothing, nothing, received):
        return False
    # Before its log began anew a peer speaks of another history, and its numbers mean nothing in ours.
    if peer.state == RESYNCING or begun < peer.synced_count:
        return True
    sent = max(peer.run_sequence, peer.sent_sequence)
    if durable < peer.durable or not record.lies_in(received, nothing, peer.received, sent):
        return False
    peer.durable = durable
    peer.received = received
    peer.ack_count += 1
    return True


@kernel()
def note_differs(primary, index, start):
    """Take note of which extents of one digest the peer holds differently; False when it answers what was not asked.

    Digests are made of DIGEST_EXTENTS extents from the first one on, and answered in their order.
    """
    peer = primary.peer[index]
    inbox = primary.inbox[index]
    first = record.address_of(primary.inbox_headers[index], start)
    count = record.length_of(primary.inbox_headers[index], start)
    as_of = record.sequence_of(primary.inbox_headers[index], start)
    extents = np.int64(primary.wanted.shape[1])
    nothing = np.int64(0)
    if count == 0 or not record.lies_in(first, count, nothing, extents):
        return False
    if not record.lies_in(as_of, nothing, nothing, primary.journal.at[0].applied_sequence):
        return False
    if peer.digests_dropped > 0:
        peer.digests_dropped -= 1
        return True
    asked = peer.digests_answered * DIGEST_EXTENTS
    if peer.digests_answered >= peer.digests_sent or first != asked or count != min(DIGEST_EXTENTS, extents - asked):
        return False
    peer.digests_answered += 1
    for place in range(count):
        if inbox[start + record.HEADER_BYTES + place] == 0:
            continue
        if peer.verifying == 0:
            primary.wanted[index, first + place] = 1
            peer.wanted_count += 1
        elif primary.journal.last_write[first + place] <= as_of and not log.is_to_be_written(primary.journal, first + place):
            peer.different += 1  # Not written since, not even by what the peer may have applied before us: they do differ.
    return True


@kernel()
def best_durable(primary):
    """The furthest that any peer is known to be durable: what would survive the loss of this site."""
    best = np.int64(-1)
    for index in range(primary.peer.shape[0]):
        best = max(best, primary.peer[index].durable)
    return best


@kernel()
def note_lag(primary, now_ns):
    """Note how long each write was complete here before it was known durable at a peer: what a lost site would cost.

    An upper bound: the ack itself was under way for one one-way delay. Under protocol C it is 0 by definition.
    """
    at = primary.at[0]
    ring = primary.completed_ns.size
    durable = best_durable(primary)
    while at.noted_completed < at.completed:
        at.noted_completed += 1
        primary.completed_ns[at.noted_completed % ring] = now_ns
    while at.noted_durable < min(durable, at.completed):
        at.noted_durable += 1
        tally(primary.lag, now_ns - primary.completed_ns[at.noted_durable % ring])
    behind = max(at.completed - durable, 0)
    at.lag_writes_max = max(at.lag_writes_max, behind)
    if 0 < behind < ring:
        exposed = primary.bytes_before[at.completed % ring] - primary.bytes_before[durable % ring]
        at.lag_bytes_max = max(at.lag_bytes_max, exposed)


@kernel()
def outstanding(primary):
    """Writes no peer has made durable yet, as far as we have heard; none counts while the peers are detached."""
    if primary.at[0].protocol == LOCAL or primary.peer.shape[0] == 0:
        return np.int64(0)
    for index in range(primary.peer.shape[0]):
        if primary.peer[index].detached == 0:
            return primary.journal.at[0].staged_sequence - best_durable(primary)
    return np.int64(0)


@kernel()
def keep_alive(primary, index, now_ns):
    """Ask an idle peer for a sign of life; PEER_SILENT when it has been asked and has not answered for the timeout.

    Data is a question too. A pause of our own, in which nobody was asked, is nobody's silence.
    """
    peer = primary.peer[index]
    timeout_ns = primary.at[0].peer_timeout_ns
    if peer.asked_ns != 0 and now_ns - peer.asked_ns > timeout_ns:
        return np.int64(replica.PEER_SILENT)
    between_records = peer.sent == peer.run_end and peer.buffer_sent == peer.buffer_end
    interval_ns = timeout_ns // 4
    if not between_records and peer.asked_ns == 0 and now_ns - peer.last_heard_ns > interval_ns:
        peer.asked_ns = now_ns  # What the send buffer holds, and no longer takes, asks in our place.
    if between_records and now_ns - peer.last_heard_ns > interval_ns and now_ns - peer.last_ping_ns > interval_ns:
        peer.last_ping_ns = now_ns
        if send_word(primary, index, record.PING, peer.run_sequence) < 0:
            return np.int64(replica.PEER_CLOSED)
        if peer.asked_ns == 0:
            peer.asked_ns = now_ns
    return np.int64(replica.OK)
