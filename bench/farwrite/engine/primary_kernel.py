"""The primary: takes writes, sends each to its peers before it flushes it here, and completes it at its protocol's point.

`submit` stages a write; `progress` is one turn of the loop (send, flush, wait, hear acks); `completable` is the rule.
One thread does it all, and sleeps in one place. The floor of a synchronous write is therefore
max(local flush, RTT + remote flush), not their sum. What happens to a peer that is lost, stale or comes back is
turn_kernel's and resync_kernel's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..base.histogram_kernel import SLOTS
from ..base.histogram_kernel import record as tally
from ..base.host import reactor
from ..base.host.libc import aligned_bytes
from ..base.jit import kernel
from ..workload.payload_kernel import SOLID, fill_grained
from . import journal_kernel as log
from . import record_kernel as record
from . import replica_kernel as replica

# Protocols, as DRBD numbers them; LOCAL has no peer and completes when durable here. TWO_TRIP is C as plain SCSI does it:
# command, ready, data, status. QUORUM completes when W replicas, this one among them, are durable.
LOCAL, A, B, C, TWO_TRIP, QUORUM = 0, 1, 2, 3, 4, 5

# What a lost peer means. END: the loop ends and says so, as a measurement wants it. BLOCK: nothing completes that needs the peer
# until it is back. SUSPEND_REPLICATION: the rest goes on at once, exposed. CONSENT: the rest goes on once it has been
# excused from outside, by a majority or a witness.
END, BLOCK, SUSPEND_REPLICATION, CONSENT = 0, 1, 2, 3

# What a full send buffer means under protocol A. WAIT: new writes are held up, so the recovery point is bounded by memory.
# PULL_AHEAD: go on without the peer, which then catches up from the journal or by extents: the recovery point grows.
WAIT, PULL_AHEAD = 0, 1

# Indices into Primary.at.
PROTOCOL, SEED, COMPLETED, QUORUM_SIZE, POLICY, CONGESTION, PEER_TIMEOUT_NS, BLOCKED = range(8)
NOTED_COMPLETED, NOTED_DURABLE, LAG_WRITES_MAX, LAG_BYTES_MAX, WAIT_BEGIN_NS, WOKEN_NS, EXPOSED = range(8, 15)
VOLUME_BYTES, RESYNC_BYTES_PER_S, RESYNC_BYTES_PER_S_MAX, LATENCY_BUDGET_NS, SUBMITTED_NS = range(15, 20)
AT_WORDS = 20

# Columns of Primary.peer, by peer.
STATE, SENT, RUN_END, RUN_SEQUENCE, SENT_SEQUENCE, RECEIVED, DURABLE, GRANTED, COMMANDED = range(9)
LAST_HEARD_NS, LAST_PING_NS, ASKED_NS, INBOX_FILL, WIRE_BYTES, ACK_COUNT, EXCUSED, LOST_COUNT, LOST_STATUS = range(9, 18)
PARCEL_BEGIN, PARCEL_END, PARCEL_SENT, PARCEL_SEQUENCE = range(18, 22)  # What is sent from memory of its own.
CURSOR, REDO_SEQUENCE, RESYNC_SINCE_NS, RESYNC_BYTES, DIGESTS_SENT, DIGESTS_ANSWERED, VERIFYING, DIFFERENT = range(22, 30)
SYNCED_COUNT = 30  # Times this peer's log was begun anew on this connection: its acks tell for which of them they are.
RESYNC_DUE_NS = 31  # The next piece of a resync or verify goes no sooner.
ASIDE_SENT, ASIDE_HEARD = 32, 33  # Frames on this connection that are not in the log; their ordinals.
DIGESTS_DROPPED = 34  # Digests whose answers are still to come and no longer asked for: a resync has begun meanwhile.
PEER_WORDS = 35

# A peer's state. ABSENT: no connection. LIVE: sent from the staging ring. CATCHING: sent from the journal's file until it has
# caught up. RESYNCING: sent extents of the volume, then the log from where they began.
ABSENT, LIVE, CATCHING, RESYNCING = 0, 1, 2, 3

PEERS_MAX = 4  # Five replicas.
INBOX_BYTES = 64 << 10
PARCEL_BYTES = (1 << 20) + (128 << 10)  # The largest record, and blocks around it.
UNBOUNDED_BYTES_PER_S = 1 << 40
BESIDE_BYTES_PER_S = 640 << 20  # A resync beside writes with a latency budget begins at half of a 10 Gbit/s link.
DIGEST_EXTENTS = 8  # In one frame; its answer has a byte for each.
LAG_RING = 1 << 17  # Writes that may be complete and not yet known durable at any peer; more are not taken.

# Columns of Primary.mail, by peer: what the control thread asks of the loop. The request is written last and cleared by the loop.
REQUEST, MAIL_SOCKET, MAIL_SEQUENCE, MAIL_HOW, MAIL_WORDS = range(5)
NOTHING, ADOPT, EXCUSE, DROP, VERIFY = 0, 1, 2, 3, 4
BY_LOG, BY_EXTENTS, BY_DIGESTS = 0, 1, 2  # How a peer that comes back is brought up to date.


class Primary(NamedTuple):
    """One replica that takes writes. Sequences count from 1; sequence s is the s-th write submitted."""

    at: np.ndarray  # int64, see the indices above
    journal: log.Journal
    ring: reactor.Reactor
    sockets: np.ndarray  # int64 by peer, -1 without a connection
    peer: np.ndarray  # int64, peer x PEER_WORDS
    inbox: np.ndarray  # uint8, peer x bytes: acks as they arrive
    inbox_words: np.ndarray  # int64, the same memory
    parcel: np.ndarray  # uint8, peer x bytes, page-aligned: what is sent to one peer only
    parcel_words: np.ndarray  # int64, the same memory
    wanted: np.ndarray  # uint8, peer x extents: what a resync has still to send
    mail: np.ndarray  # int64, peer x MAIL_WORDS
    submitted_ns: np.ndarray  # int64 by sequence modulo LAG_RING
    completed_ns: np.ndarray  # int64 by sequence modulo LAG_RING
    bytes_before: np.ndarray  # int64 by sequence modulo LAG_RING: user bytes up to and with this write
    lag: np.ndarray  # int64 histogram: ns from a write's completion until it was known durable at a peer


def primary_state(
    journal: log.Journal, ring: reactor.Reactor, sockets: list[int], protocol: int, seed: int, peer_timeout_ns: int,
    quorum: int = 0, policy: int = END, congestion: int = WAIT, peer_count: int = 0, volume_bytes: int = 0,
    parcel_bytes: int = PARCEL_BYTES, lag_ring: int = LAG_RING, latency_budget_ns: int = 0,
) -> Primary:  # fmt: skip
    """A primary that continues where its journal ends, with peers that hold what it holds.

    `peer_count` may exceed the sockets given: those peers are absent and may be adopted later. While writes take longer than
    `latency_budget_ns` (0: however long they take) a resync beside them is slowed down.
    """
    count = max(peer_count, len(sockets))
    at = np.zeros(AT_WORDS, np.int64)
    at[PROTOCOL], at[SEED], at[PEER_TIMEOUT_NS] = protocol, seed, peer_timeout_ns
    at[QUORUM_SIZE], at[POLICY], at[CONGESTION], at[VOLUME_BYTES] = quorum, policy, congestion, volume_bytes
    at[LATENCY_BUDGET_NS] = latency_budget_ns
    at[RESYNC_BYTES_PER_S_MAX] = BESIDE_BYTES_PER_S if latency_budget_ns else UNBOUNDED_BYTES_PER_S
    at[RESYNC_BYTES_PER_S] = at[RESYNC_BYTES_PER_S_MAX]
    for sequence in (COMPLETED, NOTED_COMPLETED, NOTED_DURABLE):
        at[sequence] = journal.at[log.STAGED_SEQUENCE]
    inbox = np.zeros((count, INBOX_BYTES), np.uint8)
    parcel = aligned_bytes(count * parcel_bytes)[: count * parcel_bytes].reshape(count, parcel_bytes)
    journal.at[log.HELD] = log.EVERYTHING_SENT
    made = Primary(
        at, journal, ring, np.full(count, -1, np.int64), np.zeros((count, PEER_WORDS), np.int64), inbox,
        inbox.view(np.int64), parcel, parcel.view(np.int64), np.zeros((count, journal.last_write.size), np.uint8),
        np.zeros((count, MAIL_WORDS), np.int64), np.zeros(lag_ring, np.int64), np.zeros(lag_ring, np.int64),
        np.zeros(lag_ring, np.int64), np.zeros(SLOTS, np.int64),
    )  # fmt: skip
    for index, socket in enumerate(sockets):
        begin_peer(made, index, socket, int(journal.at[log.STAGED_SEQUENCE]), int(reactor.now_ns(ring)))
        made.peer[index, STATE] = LIVE
        made.peer[index, SENT] = made.peer[index, RUN_END] = journal.at[log.STAGED]
    return made


@kernel()
def begin_peer(primary, index, socket, sequence, now_ns):
    """A connection to a peer that is known to hold everything up to `sequence`; its state is still to be set."""
    peer = primary.peer[index]
    excused, lost, wire, acks = peer[EXCUSED], peer[LOST_COUNT], peer[WIRE_BYTES], peer[ACK_COUNT]
    peer[:] = 0
    peer[EXCUSED], peer[LOST_COUNT], peer[WIRE_BYTES], peer[ACK_COUNT] = excused, lost, wire, acks
    for word in (RUN_SEQUENCE, SENT_SEQUENCE, RECEIVED, DURABLE, GRANTED, COMMANDED):
        peer[word] = sequence
    peer[LAST_HEARD_NS] = peer[LAST_PING_NS] = now_ns
    primary.sockets[index] = socket


@kernel()
def completable(protocol, quorum, local_durable, reached, excused):
    """The highest sequence that may complete, given how far each peer has reached the protocol's point.

    Every protocol asks for durability here; they differ in what they ask of the peers (drbdsetup(8), "protocol"). Peers that are
    excused are not asked, except by a quorum, which counts whoever is durable: the W-th furthest of all replicas.
    """
    lowest = local_durable
    if protocol == LOCAL:
        return lowest
    if protocol != QUORUM:
        for index in range(reached.size):
            if not excused[index]:
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
def point_of(protocol):
    """The column of Primary.peer that tells how far a peer has reached the protocol's point."""
    if protocol == A:
        return SENT_SEQUENCE
    if protocol == B:
        return RECEIVED
    return DURABLE


@kernel()
def note_completable(primary):
    """Bring COMPLETED to what the rule allows; it never goes back, whoever joins or leaves."""
    at = primary.at
    reached = primary.peer[:, point_of(at[PROTOCOL])]
    local_durable = primary.journal.at[log.DURABLE_SEQUENCE]
    reachable = completable(at[PROTOCOL], at[QUORUM_SIZE], local_durable, reached, primary.peer[:, EXCUSED])
    at[COMPLETED] = max(at[COMPLETED], reachable)

    assert at[COMPLETED] <= local_durable


@kernel()
def note_submitted(primary, sequence, now_ns):
    """A write has been staged: its instant, and the user bytes up to and with it."""
    place = sequence % primary.bytes_before.size
    primary.bytes_before[place] = primary.journal.at[log.USER_BYTES]
    primary.submitted_ns[place] = primary.at[SUBMITTED_NS] = now_ns


@kernel()
def is_taking(primary, size):
    """Whether there is room for one write more; what stands in its way is hurried when there is none."""
    if log.has_room(primary.journal, size) and outstanding(primary) < primary.completed_ns.size - 1:
        return True
    primary.at[BLOCKED] += 1
    primary.journal.at[log.WANTS_VOUCH] = 1
    return False


@kernel()
def may_enter(journal, kind, address, size, length):
    """Whether a write or trim may get into the log: replay can apply it, and there is room for it when all else is gone."""
    return record.is_applicable(kind, address, size, journal.at[log.VOLUME_BYTES]) and log.is_placeable(journal, length)


@kernel()
def submit(primary, number, address, size, now_ns, grain=SOLID):
    """Stage write `number` (counted from 0 in the plan): 1; or 0 when journal or memory is full: ask again after progress.

    INVALID_WRITE, and nothing is staged, when it has no bytes, too many, or some outside of the volume: never ask again.
    """
    journal = primary.journal
    if not may_enter(journal, record.WRITE, np.int64(address), np.int64(size), np.int64(size)):
        return np.int64(replica.INVALID_WRITE)
    if not is_taking(primary, size):
        return np.int64(0)
    start = log.place(journal, size)
    sequence = journal.at[log.STAGED_SEQUENCE]
    note_submitted(primary, sequence, now_ns)
    fill_grained(
        journal.data, start + record.HEADER_BYTES, np.int64(size), primary.at[SEED], np.int64(number), np.int64(address),
        np.int64(grain),
    )  # fmt: skip
    record.seal(
        journal.data, journal.words, start, record.WRITE, size, sequence, address,
        journal.at[log.EPOCH], journal.at[log.VOLUME], now_ns,
    )  # fmt: skip
    return np.int64(1)


@kernel()
def submit_trim(primary, address, size, now_ns):
    """Stage giving back `size` bytes at `address`; a write like any other but without payload. Answers what submit() does."""
    journal = primary.journal
    if not may_enter(journal, record.TRIM, np.int64(address), np.int64(size), np.int64(0)):
        return np.int64(replica.INVALID_WRITE)
    if not is_taking(primary, np.int64(0)):
        return np.int64(0)
    start = log.place(journal, np.int64(0))
    sequence = journal.at[log.STAGED_SEQUENCE]
    note_submitted(primary, sequence, now_ns)
    record.seal(
        journal.data, journal.words, start, record.TRIM, 0, sequence, address, journal.at[log.EPOCH],
        journal.at[log.VOLUME], now_ns, size,
    )  # fmt: skip
    return np.int64(1)


@kernel()
def read(primary, data, start, size, address):
    """Bytes read of the volume as the completed writes have left it, or a status. Served here, without the peers.

    What is durable in the journal and not yet in the volume is laid over it; a write that is not complete may be seen.
    """
    journal = primary.journal
    while replica.appliable(journal):
        status = replica.apply(journal, primary.ring, np.int64(replica.APPLY_BYTES))
        if status < 0:
            return status
    got = reactor.read_volume(primary.ring, journal.at[log.VOLUME_FD], data, start, size, address)
    if got > 0:
        overlay(journal, data, start, got, address)
    return got


@kernel()
def overlay(journal, data, start, size, address):
    """Lay the durable writes that the volume has not yet over what was read of it."""
    position = journal.at[log.APPLIED]
    while position < journal.at[log.DURABLE]:
        place = position % journal.at[log.STAGING]
        kind, length = record.kind_of(journal.words, place), record.length_of(journal.words, place)
        if kind != record.PAD:
            begin = record.address_of(journal.words, place)
            written = record.written_of(journal.words, place)
            for byte in range(max(begin, address), min(begin + written, address + size)):
                source = journal.data[place + record.HEADER_BYTES + byte - begin] if kind == record.WRITE else np.uint8(0)
                data[start + byte - address] = source
        position += record.record_bytes(length)


@kernel()
def send_staged(primary, index):
    """Hand staged records to a live peer's send buffer until it is full; answers 0 or a status."""
    peer = primary.peer[index]
    journal = primary.journal
    two_trip = primary.at[PROTOCOL] == TWO_TRIP
    while True:
        if peer[SENT] == peer[RUN_END]:
            peer[SENT_SEQUENCE] = peer[RUN_SEQUENCE]
            if two_trip and not send_command(primary, index):
                return np.int64(replica.PEER_CLOSED)
            begin = log.skip_pads(journal, peer[SENT], journal.at[log.STAGED])
            sequence_max = peer[GRANTED] if two_trip else journal.at[log.STAGED_SEQUENCE]
            end = log.run_end(journal, begin, journal.at[log.STAGED], sequence_max)
            peer[SENT], peer[RUN_END] = begin, end
            if begin == end:
                return np.int64(replica.OK)
            # The run's last record tells its sequence: everything staged up to here, less what follows the run.
            peer[RUN_SEQUENCE] = last_sequence(journal, begin, end)
        start = peer[SENT] % journal.at[log.STAGING]
        sent = reactor.send(primary.ring, primary.sockets[index], journal.data, start, peer[RUN_END] - peer[SENT])
        if sent == -reactor.EAGAIN or sent == -reactor.EINTR:
            return np.int64(replica.OK)
        if sent < 0:
            return np.int64(replica.PEER_CLOSED)
        peer[SENT] += sent
        peer[WIRE_BYTES] += sent
        if peer[ASKED_NS] == 0:
            peer[ASKED_NS] = reactor.now_ns(primary.ring)


@kernel()
def send_command(primary, index):
    """Two-trip C: ask leave to send what has been staged since the last command. False when the connection is gone."""
    peer = primary.peer[index]
    staged = primary.journal.at[log.STAGED_SEQUENCE]
    if staged == peer[COMMANDED]:
        return True
    sent = send_word(primary, index, record.COMMAND, staged)
    if sent == record.HEADER_BYTES:
        peer[COMMANDED] = staged
        if peer[ASKED_NS] == 0:
            peer[ASKED_NS] = reactor.now_ns(primary.ring)
    return sent == record.HEADER_BYTES or sent == 0


@kernel(allocates=True)
def send_word(primary, index, kind, sequence):
    """Send one header between two records: its bytes, 0 when the buffer is full, or a status."""
    journal = primary.journal
    frame = np.zeros(record.HEADER_BYTES, np.uint8)
    record.seal(
        frame, frame.view(np.int64), np.int64(0), kind, 0, sequence, np.int64(0), journal.at[log.EPOCH],
        journal.at[log.VOLUME], reactor.now_ns(primary.ring), np.int64(0), primary.peer[index, ASIDE_SENT] + 1,
    )  # fmt: skip
    sent = reactor.send(primary.ring, primary.sockets[index], frame, np.int64(0), np.int64(record.HEADER_BYTES))
    if sent == -reactor.EAGAIN or sent == -reactor.EINTR:
        return np.int64(0)
    primary.peer[index, ASIDE_SENT] += 1
    return sent if sent == record.HEADER_BYTES else np.int64(replica.PEER_CLOSED)  # Half of one cannot be taken back.


@kernel()
def last_sequence(journal, begin, end):
    """Sequence of the last record in a run of writes."""
    first = record.sequence_of(journal.words, begin % journal.at[log.STAGING])
    position = begin
    count = 0
    while position < end:
        start = position % journal.at[log.STAGING]
        position += record.record_bytes(record.length_of(journal.words, start))
        count += 1
    return first + count - 1


@kernel()
def hear(primary, index, now_ns):
    """Take in what a peer has sent. Answers 0 or a status; a frame that no secondary may send ends the peering."""
    peer = primary.peer[index]
    inbox, words = primary.inbox[index], primary.inbox_words[index]
    while True:
        room = INBOX_BYTES - peer[INBOX_FILL]
        got = reactor.receive(primary.ring, primary.sockets[index], inbox, peer[INBOX_FILL], room)
        if got == -reactor.EAGAIN or got == -reactor.EINTR:
            return np.int64(replica.OK)
        if got <= 0:
            return np.int64(replica.PEER_CLOSED)
        peer[LAST_HEARD_NS] = now_ns
        peer[ASKED_NS] = 0
        peer[INBOX_FILL] += got
        consumed = np.int64(0)
        while True:
            fill = peer[INBOX_FILL] - consumed
            # Nothing longer is an answer, and nothing of it is waited for.
            if fill >= record.HEADER_BYTES and record.length_of(words, consumed) > DIGEST_EXTENTS:
                return np.int64(replica.BAD_FRAME)
            found = record.inspect(inbox, words, consumed, fill, primary.journal.at[log.VOLUME])
            if found == record.INCOMPLETE:
                break
            if found != record.COMPLETE:
                return np.int64(replica.BAD_FRAME)
            # The payload's rounding up to 64 bytes travels too, outside the checksum.
            size = record.record_bytes(record.length_of(words, consumed))
            if fill < size:
                break
            if not note_answer(primary, index, consumed):
                return np.int64(replica.BAD_FRAME)
            consumed += size
        left = peer[INBOX_FILL] - consumed
        for byte in range(left):
            inbox[byte] = inbox[consumed + byte]
        peer[INBOX_FILL] = left
        if got < room:
            return np.int64(replica.OK)


@kernel()
def note_answer(primary, index, start):
    """Take note of one frame of a secondary; False when it is none, is not the next, or claims what cannot be."""
    peer = primary.peer[index]
    words = primary.inbox_words[index]
    kind = record.kind_of(words, start)
    if record.epoch_of(words, start) != primary.journal.at[log.EPOCH] or not record.is_next(words, start, peer[ASIDE_HEARD]):
        return False
    peer[ASIDE_HEARD] += 1
    if kind == record.ACK:
        return note_ack(primary, index, start)
    if record.word_of(words, start) != 0:
        return False
    if kind == record.READY:
        granted = record.sequence_of(words, start)
        if record.address_of(words, start) != 0 or not record.lies_in(granted, np.int64(0), peer[GRANTED], peer[COMMANDED]):
            return False
        peer[GRANTED] = granted
        return True
    if kind == record.DIFFERS:
        return note_differs(primary, index, start)
    return False


@kernel()
def note_ack(primary, index, start):
    """Take note of one ack; False when it claims what cannot be: more than was sent, or less than before."""
    peer = primary.peer[index]
    words = primary.inbox_words[index]
    durable = record.sequence_of(words, start)
    received = record.address_of(words, start)
    begun = record.word_of(words, start)
    nothing = np.int64(0)
    if not record.lies_in(begun, nothing, nothing, peer[SYNCED_COUNT]):
        return False
    if not record.lies_in(received, nothing, nothing, np.int64(record.NUMBER_MAX)):
        return False
    if not record.lies_in(durable, nothing, nothing, received):
        return False
    # Before its log began anew a peer speaks of another history, and its numbers mean nothing in ours.
    if peer[STATE] == RESYNCING or begun < peer[SYNCED_COUNT]:
        return True
    sent = max(peer[RUN_SEQUENCE], peer[SENT_SEQUENCE])
    if durable < peer[DURABLE] or not record.lies_in(received, nothing, peer[RECEIVED], sent):
        return False
    peer[DURABLE] = durable
    peer[RECEIVED] = received
    peer[ACK_COUNT] += 1
    return True


@kernel()
def note_differs(primary, index, start):
    """Take note of which extents of one digest the peer holds differently; False when it answers what was not asked.

    Digests are made of DIGEST_EXTENTS extents from the first one on, and answered in their order.
    """
    peer = primary.peer[index]
    inbox = primary.inbox[index]
    first = record.address_of(primary.inbox_words[index], start)
    count = record.length_of(primary.inbox_words[index], start)
    as_of = record.sequence_of(primary.inbox_words[index], start)
    extents = np.int64(primary.wanted.shape[1])
    nothing = np.int64(0)
    if count == 0 or not record.lies_in(first, count, nothing, extents):
        return False
    if not record.lies_in(as_of, nothing, nothing, primary.journal.at[log.APPLIED_SEQUENCE]):
        return False
    if peer[DIGESTS_DROPPED] > 0:
        peer[DIGESTS_DROPPED] -= 1
        return True
    asked = peer[DIGESTS_ANSWERED] * DIGEST_EXTENTS
    if peer[DIGESTS_ANSWERED] >= peer[DIGESTS_SENT] or first != asked or count != min(DIGEST_EXTENTS, extents - asked):
        return False
    peer[DIGESTS_ANSWERED] += 1
    for place in range(count):
        if inbox[start + record.HEADER_BYTES + place] == 0:
            continue
        if peer[VERIFYING] == 0:
            primary.wanted[index, first + place] = 1
        elif primary.journal.last_write[first + place] <= as_of and not log.is_to_be_written(primary.journal, first + place):
            peer[DIFFERENT] += 1  # Not written since, not even by what the peer may have applied before us: they do differ.
    return True


@kernel()
def best_durable(primary):
    """The furthest that any peer is known to be durable: what would survive the loss of this site."""
    best = np.int64(-1)
    for index in range(primary.peer.shape[0]):
        best = max(best, primary.peer[index, DURABLE])
    return best


@kernel()
def note_lag(primary, now_ns):
    """Note how long each write was complete here before it was known durable at a peer: what a lost site would cost.

    An upper bound: the ack itself was under way for one one-way delay. Under protocol C it is 0 by definition.
    """
    at = primary.at
    ring = primary.completed_ns.size
    durable = best_durable(primary)
    while at[NOTED_COMPLETED] < at[COMPLETED]:
        at[NOTED_COMPLETED] += 1
        primary.completed_ns[at[NOTED_COMPLETED] % ring] = now_ns
    while at[NOTED_DURABLE] < min(durable, at[COMPLETED]):
        at[NOTED_DURABLE] += 1
        tally(primary.lag, now_ns - primary.completed_ns[at[NOTED_DURABLE] % ring])
    behind = max(at[COMPLETED] - durable, 0)
    at[LAG_WRITES_MAX] = max(at[LAG_WRITES_MAX], behind)
    if 0 < behind < ring:
        exposed = primary.bytes_before[at[COMPLETED] % ring] - primary.bytes_before[durable % ring]
        at[LAG_BYTES_MAX] = max(at[LAG_BYTES_MAX], exposed)


@kernel()
def outstanding(primary):
    """Writes no peer has made durable yet, as far as we have heard; none counts while the peers are excused."""
    if primary.at[PROTOCOL] == LOCAL or primary.peer.shape[0] == 0:
        return np.int64(0)
    for index in range(primary.peer.shape[0]):
        if primary.peer[index, EXCUSED] == 0:
            return primary.journal.at[log.STAGED_SEQUENCE] - best_durable(primary)
    return np.int64(0)


@kernel()
def keep_alive(primary, index, now_ns):
    """Ask an idle peer for a sign of life; PEER_SILENT when it has been asked and has not answered for the timeout.

    Data is a question too. A pause of our own, in which nobody was asked, is nobody's silence.
    """
    peer = primary.peer[index]
    timeout_ns = primary.at[PEER_TIMEOUT_NS]
    if peer[ASKED_NS] != 0 and now_ns - peer[ASKED_NS] > timeout_ns:
        return np.int64(replica.PEER_SILENT)
    between_records = peer[SENT] == peer[RUN_END] and peer[PARCEL_SENT] == peer[PARCEL_END]
    interval_ns = timeout_ns // 4
    if not between_records and peer[ASKED_NS] == 0 and now_ns - peer[LAST_HEARD_NS] > interval_ns:
        peer[ASKED_NS] = now_ns  # What the send buffer holds, and no longer takes, asks in our place.
    if between_records and now_ns - peer[LAST_HEARD_NS] > interval_ns and now_ns - peer[LAST_PING_NS] > interval_ns:
        peer[LAST_PING_NS] = now_ns
        if send_word(primary, index, record.PING, peer[RUN_SEQUENCE]) < 0:
            return np.int64(replica.PEER_CLOSED)
        if peer[ASKED_NS] == 0:
            peer[ASKED_NS] = now_ns
    return np.int64(replica.OK)
