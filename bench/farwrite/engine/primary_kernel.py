"""The primary: takes writes, sends each to its peer before it flushes it here, and completes it at its protocol's point.

`submit` stages a write; `progress` is one turn of the loop (send, flush, wait, hear acks); `completable` is the rule.
One thread does it all, and sleeps in one place. The floor of a synchronous write is therefore
max(local flush, RTT + remote flush), not their sum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..histogram_kernel import SLOTS
from ..histogram_kernel import record as tally
from ..host import libc, reactor
from ..host.libc import aligned_bytes
from ..jit import kernel
from ..payload_kernel import fill
from . import journal_kernel as log
from . import record_kernel as record
from . import replica_kernel as replica

# Protocols, as DRBD numbers them; LOCAL has no peer and completes when durable here.
LOCAL, A, B, C = 0, 1, 2, 3

# Indices into Primary.at.
SOCKET, PROTOCOL, SEED, SENT, RUN_END, RUN_SEQUENCE, SENT_SEQUENCE = range(7)
PEER_RECEIVED, PEER_DURABLE, COMPLETED = range(7, 10)
LAST_HEARD_NS, LAST_PING_NS, PEER_TIMEOUT_NS, WIRE_BYTES, INBOX_FILL, BLOCKED, ACK_COUNT = range(10, 17)
NOTED_COMPLETED, NOTED_DURABLE, LAG_WRITES_MAX, LAG_BYTES_MAX, WAIT_BEGIN_NS, WOKEN_NS, ASKED_NS = range(17, 24)
AT_WORDS = 24

INBOX_BYTES = 64 << 10
LAG_RING = 1 << 17  # Writes that may be complete and not yet known durable at the peer; more are not taken.


class Primary(NamedTuple):
    """One replica that takes writes. Sequences count from 1; sequence s is the s-th write submitted."""

    at: np.ndarray  # int64, see the indices above
    journal: log.Journal
    ring: reactor.Reactor
    inbox: np.ndarray  # uint8, acks as they arrive
    inbox_words: np.ndarray  # int64, the same memory
    completed_ns: np.ndarray  # int64 by sequence modulo LAG_RING
    bytes_before: np.ndarray  # int64 by sequence modulo LAG_RING: user bytes up to and with this write
    lag: np.ndarray  # int64 histogram: ns from a write's completion until it was known durable at the peer


def primary_state(
    journal: log.Journal, ring: reactor.Reactor, socket: int, protocol: int, seed: int, peer_timeout_ns: int
) -> Primary:
    """A primary that continues where its journal ends."""
    inbox = aligned_bytes(INBOX_BYTES)
    at = np.zeros(AT_WORDS, np.int64)
    at[SOCKET], at[PROTOCOL], at[SEED], at[PEER_TIMEOUT_NS] = socket, protocol, seed, peer_timeout_ns
    at[SENT] = at[RUN_END] = journal.at[log.STAGED]
    for sequence in (
        RUN_SEQUENCE, SENT_SEQUENCE, PEER_RECEIVED, PEER_DURABLE, COMPLETED, NOTED_COMPLETED, NOTED_DURABLE
    ):  # fmt: skip
        at[sequence] = journal.at[log.STAGED_SEQUENCE]
    at[LAST_HEARD_NS] = at[LAST_PING_NS] = libc.monotonic_ns()
    completed_ns, bytes_before = np.zeros(LAG_RING, np.int64), np.zeros(LAG_RING, np.int64)
    return Primary(at, journal, ring, inbox, inbox.view(np.int64), completed_ns, bytes_before, np.zeros(SLOTS, np.int64))


@kernel()
def completable(protocol, local_durable, sent, peer_received, peer_durable):
    """The highest sequence that may complete, given how far each point has been reached.

    Every protocol asks for durability here; they differ in what they ask of the peer (drbdsetup(8), "protocol").
    """
    if protocol == C:
        return min(local_durable, peer_durable)
    if protocol == B:
        return min(local_durable, peer_received)
    if protocol == A:
        return min(local_durable, sent)
    return local_durable


@kernel()
def submit(primary, number, address, size, now_ns):
    """Stage write `number` (counted from 0 in the plan); False when journal or memory is full: ask again after progress."""
    journal = primary.journal
    if not log.has_room(journal, size) or outstanding(primary) >= LAG_RING - 1:
        primary.at[BLOCKED] += 1
        return False
    start = log.place(journal, size)
    primary.bytes_before[journal.at[log.STAGED_SEQUENCE] % LAG_RING] = journal.at[log.USER_BYTES]
    fill(journal.data, start + record.HEADER_BYTES, np.int64(size), primary.at[SEED], np.int64(number), np.int64(address))
    record.seal(
        journal.data, journal.words, start, record.WRITE, size, journal.at[log.STAGED_SEQUENCE], address,
        journal.at[log.EPOCH], journal.at[log.VOLUME], now_ns,
    )  # fmt: skip
    return True


@kernel()
def send_staged(primary):
    """Hand staged records to the send buffer until it is full; answers 0 or a status."""
    at = primary.at
    journal = primary.journal
    while True:
        if at[SENT] == at[RUN_END]:
            at[SENT_SEQUENCE] = at[RUN_SEQUENCE]
            begin = log.skip_pads(journal, at[SENT], journal.at[log.STAGED])
            end = log.run_end(journal, begin, journal.at[log.STAGED])
            at[SENT], at[RUN_END] = begin, end
            if begin == end:
                return np.int64(replica.OK)
            # The run's last record tells its sequence: everything staged up to here, less what follows the run.
            at[RUN_SEQUENCE] = last_sequence(journal, begin, end)
        start = at[SENT] % journal.at[log.STAGING]
        sent = libc.send(at[SOCKET], journal.data, start, at[RUN_END] - at[SENT], np.int64(libc.MSG_DONTWAIT))
        if sent == -libc.EAGAIN or sent == -libc.EINTR:
            return np.int64(replica.OK)
        if sent < 0:
            return np.int64(replica.PEER_CLOSED)
        at[SENT] += sent
        at[WIRE_BYTES] += sent
        if at[ASKED_NS] == 0:
            at[ASKED_NS] = libc.monotonic_ns()


@kernel()
def last_sequence(journal, begin, end):
    """Sequence of the last record in a run of WRITE records."""
    first = record.sequence_of(journal.words, begin % journal.at[log.STAGING])
    position = begin
    count = 0
    while position < end:
        start = position % journal.at[log.STAGING]
        position += record.record_bytes(record.length_of(journal.words, start))
        count += 1
    return first + count - 1


@kernel()
def hear(primary, now_ns):
    """Take in what the peer has sent: acks only. Answers 0 or a status; a frame that is not an ack ends the peering."""
    at = primary.at
    while True:
        room = INBOX_BYTES - at[INBOX_FILL]
        got = libc.receive(at[SOCKET], primary.inbox, at[INBOX_FILL], room, np.int64(libc.MSG_DONTWAIT))
        if got == -libc.EAGAIN or got == -libc.EINTR:
            return np.int64(replica.OK)
        if got <= 0:
            return np.int64(replica.PEER_CLOSED)
        at[LAST_HEARD_NS] = now_ns
        at[ASKED_NS] = 0
        at[INBOX_FILL] += got
        consumed = np.int64(0)
        while True:
            found = record.inspect(
                primary.inbox, primary.inbox_words, consumed, at[INBOX_FILL] - consumed, primary.journal.at[log.VOLUME]
            )
            if found == record.INCOMPLETE:
                break
            if found != record.COMPLETE:
                return np.int64(replica.BAD_FRAME)
            if not note_ack(primary, consumed):
                return np.int64(replica.BAD_FRAME)
            consumed += record.HEADER_BYTES
        left = at[INBOX_FILL] - consumed
        for index in range(left):
            primary.inbox[index] = primary.inbox[consumed + index]
        at[INBOX_FILL] = left
        if got < room:
            return np.int64(replica.OK)


@kernel()
def note_ack(primary, start):
    """Take note of one ack; False when it claims what cannot be: more than was sent, or less than before."""
    at = primary.at
    words = primary.inbox_words
    durable = record.sequence_of(words, start)
    received = record.address_of(words, start)
    if record.kind_of(words, start) != record.ACK or record.epoch_of(words, start) != primary.journal.at[log.EPOCH]:
        return False
    if durable < at[PEER_DURABLE] or received < at[PEER_RECEIVED] or durable > received:
        return False
    if received > primary.journal.at[log.STAGED_SEQUENCE]:
        return False
    at[PEER_DURABLE] = durable
    at[PEER_RECEIVED] = received
    at[ACK_COUNT] += 1
    return True


@kernel()
def note_lag(primary, now_ns):
    """Note how long each write was complete here before it was known durable at the peer: what a lost site would cost.

    An upper bound: the ack itself was under way for one one-way delay. Under protocol C it is 0 by definition.
    """
    at = primary.at
    while at[NOTED_COMPLETED] < at[COMPLETED]:
        at[NOTED_COMPLETED] += 1
        primary.completed_ns[at[NOTED_COMPLETED] % LAG_RING] = now_ns
    while at[NOTED_DURABLE] < min(at[PEER_DURABLE], at[COMPLETED]):
        at[NOTED_DURABLE] += 1
        tally(primary.lag, now_ns - primary.completed_ns[at[NOTED_DURABLE] % LAG_RING])
    behind = max(at[COMPLETED] - at[PEER_DURABLE], 0)
    at[LAG_WRITES_MAX] = max(at[LAG_WRITES_MAX], behind)
    if behind > 0:
        exposed = primary.bytes_before[at[COMPLETED] % LAG_RING] - primary.bytes_before[at[PEER_DURABLE] % LAG_RING]
        at[LAG_BYTES_MAX] = max(at[LAG_BYTES_MAX], exposed)


@kernel()
def outstanding(primary):
    """Writes the peer has not yet made durable, as far as we have heard."""
    if primary.at[PROTOCOL] == LOCAL:
        return np.int64(0)
    return primary.journal.at[log.STAGED_SEQUENCE] - primary.at[PEER_DURABLE]


@kernel()
def keep_alive(primary, now_ns):
    """Ask an idle peer for a sign of life; PEER_SILENT when it has been asked and has not answered for the timeout.

    Data is a question too. A pause of our own, in which nobody was asked, is nobody's silence.
    """
    at = primary.at
    if at[PROTOCOL] == LOCAL:
        return np.int64(replica.OK)
    if at[ASKED_NS] != 0 and now_ns - at[ASKED_NS] > at[PEER_TIMEOUT_NS]:
        return np.int64(replica.PEER_SILENT)
    interval_ns = at[PEER_TIMEOUT_NS] // 4
    if now_ns - at[LAST_HEARD_NS] > interval_ns and now_ns - at[LAST_PING_NS] > interval_ns and at[SENT] == at[RUN_END]:
        at[LAST_PING_NS] = now_ns
        ping = np.zeros(record.HEADER_BYTES, np.uint8)
        journal = primary.journal
        record.seal(
            ping, ping.view(np.int64), np.int64(0), record.PING, 0, journal.at[log.STAGED_SEQUENCE], np.int64(0),
            journal.at[log.EPOCH], journal.at[log.VOLUME], now_ns,
        )  # fmt: skip
        sent = libc.send(at[SOCKET], ping, np.int64(0), np.int64(record.HEADER_BYTES), np.int64(libc.MSG_DONTWAIT))
        if 0 < sent < record.HEADER_BYTES:
            return np.int64(replica.PEER_CLOSED)  # Half a frame cannot be taken back.
        if at[ASKED_NS] == 0:
            at[ASKED_NS] = now_ns
    return np.int64(replica.OK)


@kernel()
def progress(primary, deadline_ns):
    """One turn: send, flush, apply, sleep until something happens or the deadline, hear acks. Answers 0 or a status."""
    at = primary.at
    journal = primary.journal
    ring = primary.ring
    peered = at[PROTOCOL] != LOCAL
    if peered:
        status = send_staged(primary)
        if status < 0:
            return status
    else:
        at[SENT] = journal.at[log.STAGED]
    replica.begin_flush(journal, ring)
    tail = journal.at[log.TAIL]
    free_until = min(journal.at[log.DURABLE], at[SENT])
    status = replica.apply(journal, free_until, np.int64(replica.APPLY_BYTES))
    if status < 0:
        return status
    status = replica.checkpoint(journal, ring)
    if status < 0:
        return status

    now_ns = libc.monotonic_ns()
    timeout_ns = min(max(deadline_ns - now_ns, 0), at[PEER_TIMEOUT_NS] // 8)
    # A write may be waiting for the room we have just made, or can still make: nothing else would wake us for it.
    if journal.at[log.TAIL] != tail or replica.appliable(journal, free_until):
        timeout_ns = np.int64(0)
    want_writable = peered and at[SENT] < at[RUN_END]
    ready = reactor.wait(ring, at[SOCKET], want_writable, timeout_ns)
    if ready < 0:
        return ready
    at[WAIT_BEGIN_NS] = now_ns
    now_ns = libc.monotonic_ns()
    at[WOKEN_NS] = now_ns
    if peered and ready & reactor.READABLE:
        status = hear(primary, now_ns)
        if status < 0:
            return status
    status = replica.end_flush(journal, ring)
    if status < 0:
        return status
    at[COMPLETED] = completable(
        at[PROTOCOL], journal.at[log.DURABLE_SEQUENCE], at[SENT_SEQUENCE], at[PEER_RECEIVED], at[PEER_DURABLE]
    )
    if peered:
        note_lag(primary, now_ns)
    return keep_alive(primary, now_ns)
