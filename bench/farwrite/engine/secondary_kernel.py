"""The secondary: receives records, makes them durable, and says so; nothing else.

`accept_record` is the decision about one frame (pure); `serve` is the loop. What arrives is treated as hostile: a frame out of
order, out of the volume, of another volume or with a wrong checksum ends the connection and is never written.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..host import libc, reactor
from ..host.libc import aligned_bytes
from ..jit import kernel
from . import journal_kernel as log
from . import record_kernel as record
from . import replica_kernel as replica
from .primary_kernel import B

# Indices into Secondary.at.
SOCKET, PROTOCOL, INBOX_FILL, VOLUME_BYTES, ACKED_RECEIVED, ACKED_DURABLE, ACK_DUE, ACK_LEFT = range(8)
CLOSING, REFUSED, ACK_COUNT = range(8, 11)
AT_WORDS = 11

INBOX_BYTES = 4 << 20  # Several of the largest records.

# What accept_record decides.
STAGED_IT, NO_ROOM, NOT_NEXT, OUTSIDE, OLD_EPOCH = 0, 1, -11, -12, -13


class Secondary(NamedTuple):
    """One replica that receives writes."""

    at: np.ndarray  # int64, see the indices above
    journal: log.Journal
    ring: reactor.Reactor
    inbox: np.ndarray  # uint8, frames as they arrive
    inbox_words: np.ndarray  # int64, the same memory
    ack: np.ndarray  # uint8, the ack being sent
    board: np.ndarray  # int64, shared with the lab: word 0 asks to stop, word 1 is the durable sequence


def secondary_state(
    journal: log.Journal, ring: reactor.Reactor, socket: int, protocol: int, volume_bytes: int, board: np.ndarray
) -> Secondary:
    """A secondary that continues where its journal ends."""
    inbox = aligned_bytes(INBOX_BYTES)
    at = np.zeros(AT_WORDS, np.int64)
    at[SOCKET], at[PROTOCOL], at[VOLUME_BYTES] = socket, protocol, volume_bytes
    at[ACKED_RECEIVED] = at[ACKED_DURABLE] = journal.at[log.STAGED_SEQUENCE]
    return Secondary(at, journal, ring, inbox, inbox.view(np.int64), aligned_bytes(record.HEADER_BYTES), board)


@kernel()
def accept_record(secondary, start):
    """Stage the complete WRITE frame at inbox byte `start`; answers STAGED_IT, NO_ROOM, or why it is refused."""
    journal = secondary.journal
    words = secondary.inbox_words
    length = record.length_of(words, start)
    address = record.address_of(words, start)
    if record.epoch_of(words, start) != journal.at[log.EPOCH]:
        return OLD_EPOCH
    if record.sequence_of(words, start) != journal.at[log.STAGED_SEQUENCE] + 1:
        return NOT_NEXT
    if address < 0 or address > secondary.at[VOLUME_BYTES] - length:
        return OUTSIDE
    if not log.has_room(journal, length):
        return NO_ROOM
    target = log.place(journal, length)
    size = record.record_bytes(length)
    journal.data[target : target + size] = secondary.inbox[start : start + size]
    return STAGED_IT


@kernel()
def parse(secondary):
    """Take all complete frames out of the inbox; answers 0, or BAD_FRAME with the reason in REFUSED."""
    at = secondary.at
    consumed = np.int64(0)
    status = np.int64(replica.OK)
    while True:
        found = record.inspect(
            secondary.inbox, secondary.inbox_words, consumed, at[INBOX_FILL] - consumed,
            secondary.journal.at[log.VOLUME],
        )  # fmt: skip
        if found == record.INCOMPLETE:
            break
        if found == record.COMPLETE:
            kind = record.kind_of(secondary.inbox_words, consumed)
            if kind == record.WRITE:
                # The payload's rounding up to 64 bytes travels too, outside the checksum.
                size = record.record_bytes(record.length_of(secondary.inbox_words, consumed))
                if at[INBOX_FILL] - consumed < size:
                    break
                found = accept_record(secondary, consumed)
                if found == NO_ROOM:
                    break
                if found == STAGED_IT:
                    consumed += size
                    continue
            elif record.epoch_of(secondary.inbox_words, consumed) != secondary.journal.at[log.EPOCH]:
                found = np.int64(OLD_EPOCH)
            elif kind == record.PING:
                at[ACK_DUE] = 1
                consumed += record.HEADER_BYTES
                continue
            elif kind == record.GOODBYE:
                at[CLOSING] = 1
                consumed += record.HEADER_BYTES
                continue
            else:
                found = np.int64(record.BAD_KIND)
        at[REFUSED] = found
        status = np.int64(replica.BAD_FRAME)
        break
    left = at[INBOX_FILL] - consumed
    if consumed > 0 and left > 0:
        for index in range(left):
            secondary.inbox[index] = secondary.inbox[consumed + index]
    at[INBOX_FILL] = left
    return status


@kernel()
def send_ack(secondary):
    """Tell the primary how far received and durable are, if that is news; one small frame, never two halves mixed."""
    at = secondary.at
    journal = secondary.journal
    if at[ACK_LEFT] == 0:
        received = journal.at[log.STAGED_SEQUENCE]
        durable = journal.at[log.DURABLE_SEQUENCE]
        news = durable > at[ACKED_DURABLE] or (at[PROTOCOL] == B and received > at[ACKED_RECEIVED])
        if not news and at[ACK_DUE] == 0:
            return np.int64(replica.OK)
        record.seal(
            secondary.ack, secondary.ack.view(np.int64), np.int64(0), record.ACK, 0, durable, received,
            journal.at[log.EPOCH], journal.at[log.VOLUME], libc.monotonic_ns(),
        )  # fmt: skip
        at[ACKED_RECEIVED], at[ACKED_DURABLE], at[ACK_DUE] = received, durable, 0
        at[ACK_LEFT] = record.HEADER_BYTES
        at[ACK_COUNT] += 1
    sent = libc.send(
        at[SOCKET], secondary.ack, np.int64(record.HEADER_BYTES) - at[ACK_LEFT], at[ACK_LEFT], np.int64(libc.MSG_DONTWAIT)
    )
    if sent == -libc.EAGAIN or sent == -libc.EINTR:
        return np.int64(replica.OK)
    if sent < 0:
        return np.int64(replica.PEER_CLOSED)
    at[ACK_LEFT] -= sent
    return np.int64(replica.OK)


@kernel()
def serve(secondary):
    """Receive, flush and acknowledge until the primary says goodbye, is gone, or the board asks to stop.

    Everything received is durable and applied when this returns, whatever the reason; a status below 0 from the disk is
    the exception.
    """
    at = secondary.at
    journal = secondary.journal
    ring = secondary.ring
    outcome = np.int64(replica.OK)
    tail = journal.at[log.TAIL]
    while outcome == replica.OK:
        if secondary.board[0] != 0:
            outcome = np.int64(replica.STOPPED)
            break
        # A frame in the inbox may wait for the room we have just made, or can still make: nothing else would wake us.
        making_room = journal.at[log.TAIL] != tail or replica.appliable(journal, journal.at[log.DURABLE])
        tail = journal.at[log.TAIL]
        ready = reactor.wait(ring, at[SOCKET], at[ACK_LEFT] > 0, np.int64(0 if making_room else 50_000_000))
        if ready < 0:
            return ready
        status = replica.end_flush(journal, ring)
        if status < 0:
            return status
        if journal.at[log.DURABLE_SEQUENCE] > at[ACKED_DURABLE] or at[ACK_LEFT] > 0:
            outcome = send_ack(secondary)
        if ready & reactor.READABLE or (at[INBOX_FILL] > 0 and ready == 0):
            outcome = receive_frames(secondary, outcome)
        # Received is acknowledged before the flush begins, because in the plain form the flush holds everything up.
        if outcome == replica.OK and (at[PROTOCOL] == B or at[ACK_DUE] > 0):
            outcome = send_ack(secondary)
        replica.begin_flush(journal, ring)
        status = replica.apply(journal, journal.at[log.DURABLE], np.int64(replica.APPLY_BYTES))
        if status < 0:
            return status
        status = replica.checkpoint(journal, ring)
        if status < 0:
            return status
        secondary.board[1] = journal.at[log.DURABLE_SEQUENCE]
        if at[CLOSING] and journal.at[log.DURABLE_SEQUENCE] == journal.at[log.STAGED_SEQUENCE] and at[ACK_LEFT] == 0:
            if at[ACKED_DURABLE] == journal.at[log.DURABLE_SEQUENCE]:
                break
    status = replica.settle(journal, ring, journal.at[log.STAGED])
    secondary.board[1] = journal.at[log.DURABLE_SEQUENCE]
    return outcome if status == replica.OK else status


@kernel()
def receive_frames(secondary, outcome):
    """Read what the socket holds and parse it; answers the loop's next outcome."""
    at = secondary.at
    room = INBOX_BYTES - at[INBOX_FILL]
    if room > 0:
        got = libc.receive(at[SOCKET], secondary.inbox, at[INBOX_FILL], room, np.int64(libc.MSG_DONTWAIT))
        if got == 0 or (got < 0 and got != -libc.EAGAIN and got != -libc.EINTR):
            parse(secondary)
            return np.int64(replica.PEER_CLOSED)
        if got > 0:
            at[INBOX_FILL] += got
    status = parse(secondary)
    return status if status < 0 else outcome
