"""The secondary: receives records, makes them durable, and says so; nothing else.

`refusal_of` holds every number of a frame against its bounds, before `accept` does what the frame says (pure, but for a
resync's); `turn` is one turn of the loop, `serve` the loop. What arrives is treated as hostile: a frame out of order, out of
the volume, of another volume or with a wrong checksum ends the connection and is never written.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..base.host import reactor
from ..base.host.disk import BLOCK_BYTES
from ..base.host.libc import aligned_bytes
from ..base.jit import kernel
from . import journal_kernel as log
from . import record_kernel as record
from . import replica_kernel as replica
from .primary_kernel import B
from .resync_kernel import DIGEST_BYTES, DIGEST_EXTENTS, digest, extent_size

# Indices into Secondary.at.
PROTOCOL, INBOX_FILL, VOLUME_BYTES, ACKED_RECEIVED, ACKED_DURABLE, ACK_DUE, OUT_BEGIN, OUT_END = range(8)
CLOSING, REFUSED, ACK_COUNT, SESSION_EPOCH, CONSISTENT_FROM, EXTENT_COUNT, HEARD_NS, GRANT_DUE = range(8, 16)
SYNCED_COUNT = 16  # Times the log was begun anew on this connection.
ASIDE_SENT, ASIDE_HEARD = 17, 18  # Frames on this connection that are not in the log; their ordinals.
AS_OF = 19  # Sequence of the newest extent or digest on this connection: what the primary has applied by then.
DIGESTED = 20  # Whether digests have come since the log was begun anew: only they find out that it goes back.
AT_WORDS = 21

INBOX_BYTES = 4 << 20  # Several of the largest records.
OUTBOX_BYTES = 8192  # Answers on their way; an answer to a digest is one header and at most a block.

# What accept() decides.
TAKEN, NO_ROOM, NOT_NEXT, OUTSIDE, OLD_EPOCH = 0, 1, -1011, -1012, -1013

# Why a frame was refused (REFUSED), for people.
REFUSALS = {
    NOT_NEXT: "a sequence or an ordinal that cannot come next",
    OUTSIDE: "a number outside of its bounds",
    OLD_EPOCH: "an epoch that is not this session's",
    record.BAD_MAGIC: "bytes that are no frame",
    record.BAD_VERSION: "a frame of another version",
    record.BAD_LENGTH: "an impossible length",
    record.BAD_CRC: "a checksum that does not match",
    record.WRONG_VOLUME: "a frame of another volume",
    record.BAD_KIND: "a kind of frame that no primary sends",
}


class Secondary(NamedTuple):
    """One replica that receives writes."""

    at: np.ndarray  # int64, see the indices above
    journal: log.Journal
    ring: reactor.Reactor
    sockets: np.ndarray  # int64, one word
    inbox: np.ndarray  # uint8, frames as they arrive
    inbox_words: np.ndarray  # int64, the same memory
    outbox: np.ndarray  # uint8, answers being sent
    outbox_words: np.ndarray  # int64, the same memory
    scratch: np.ndarray  # uint8, one extent
    scratch_words: np.ndarray  # int64, the same memory
    board: np.ndarray  # int64, shared with the lab: word 0 asks to stop, word 1 is the durable sequence


def secondary_state(
    journal: log.Journal, ring: reactor.Reactor, socket: int, protocol: int, volume_bytes: int, board: np.ndarray,
    inbox_bytes: int = INBOX_BYTES,
) -> Secondary:  # fmt: skip
    """A secondary that continues where its journal ends."""
    inbox, outbox, scratch = (
        aligned_bytes(size) for size in (inbox_bytes, OUTBOX_BYTES, int(journal.at[log.EXTENT_BYTES]))
    )
    at = np.zeros(AT_WORDS, np.int64)
    at[PROTOCOL], at[VOLUME_BYTES] = protocol, volume_bytes
    at[ACKED_RECEIVED] = at[ACKED_DURABLE] = journal.at[log.STAGED_SEQUENCE]
    at[SESSION_EPOCH] = journal.at[log.EPOCH]
    journal.at[log.HELD] = log.EVERYTHING_SENT  # It may have been a primary, whose peers had still to be sent something.
    return Secondary(
        at, journal, ring, np.full(1, socket, np.int64), inbox, inbox.view(np.int64), outbox, outbox.view(np.int64),
        scratch, scratch.view(np.int64), board,
    )  # fmt: skip


@kernel()
def is_said_by_primary(kind):
    """Whether a primary may send frames of this kind once the two have met."""
    return (
        kind == record.WRITE or kind == record.TRIM or kind == record.PING or kind == record.GOODBYE
        or kind == record.COMMAND or kind == record.EXTENT or kind == record.SYNCED or kind == record.DIGEST
    )  # fmt: skip


@kernel()
def refusal_of_record(secondary, start):
    """Why the complete WRITE or TRIM at inbox byte `start` may not be staged, or TAKEN."""
    journal = secondary.journal
    words = secondary.inbox_words
    kind, epoch = record.kind_of(words, start), record.epoch_of(words, start)
    if secondary.at[SESSION_EPOCH] != journal.at[log.EPOCH]:
        return OLD_EPOCH  # We have promised a newer one since this connection began.
    if epoch > journal.at[log.EPOCH] or epoch < journal.at[log.LOG_EPOCH]:
        return OLD_EPOCH
    if record.sequence_of(words, start) != journal.at[log.STAGED_SEQUENCE] + 1:
        return NOT_NEXT
    if kind == record.WRITE and record.word_of(words, start) != 0:
        return OUTSIDE
    address, size = record.address_of(words, start), record.written_of(words, start)
    if not record.is_applicable(kind, address, size, secondary.at[VOLUME_BYTES]):
        return OUTSIDE
    return TAKEN if log.is_placeable(journal, record.length_of(words, start)) else OUTSIDE


@kernel()
def refusal_of_copy(secondary, start):
    """Why the complete EXTENT or DIGEST at inbox byte `start` may not be believed, or TAKEN."""
    at = secondary.at
    words = secondary.inbox_words
    nothing, most = np.int64(0), np.int64(record.NUMBER_MAX)
    as_of, address = record.sequence_of(words, start), record.address_of(words, start)
    length, word = record.length_of(words, start), record.word_of(words, start)
    extent_bytes, extents = secondary.journal.at[log.EXTENT_BYTES], np.int64(secondary.journal.last_write.size)
    if record.kind_of(words, start) == record.EXTENT:
        if not record.lies_in(as_of, nothing, at[AS_OF], most):
            return NOT_NEXT
        if word != 0 or length == 0 or not record.lies_in(address, length, nothing, at[VOLUME_BYTES]):
            return OUTSIDE
        whole = extent_size(at[VOLUME_BYTES], extent_bytes, address // extent_bytes)
        return TAKEN if address % extent_bytes == 0 and length == whole else OUTSIDE
    staged = secondary.journal.at[log.STAGED_SEQUENCE]
    # A verify compares what the log has brought: all that it is about was sent before it.
    if not record.lies_in(as_of, nothing, at[AS_OF], staged if word else most):
        return NOT_NEXT
    count = length // DIGEST_BYTES
    if not record.lies_in(word, nothing, nothing, np.int64(1)) or count * DIGEST_BYTES != length:
        return OUTSIDE
    if not record.lies_in(count, nothing, np.int64(1), np.int64(DIGEST_EXTENTS)):
        return OUTSIDE
    return TAKEN if record.lies_in(address, count, nothing, extents) else OUTSIDE


@kernel()
def refusal_of_synced(secondary, start):
    """Why the log may not be begun anew as the complete SYNCED at inbox byte `start` says, or TAKEN.

    It goes back behind what is durable here only when digests have found that ours is another history, and never further
    than what the primary has told of while it copied.
    """
    at = secondary.at
    journal = secondary.journal
    words = secondary.inbox_words
    nothing = np.int64(0)
    sequence, consistent_from = record.sequence_of(words, start), record.address_of(words, start)
    lowest = nothing if at[DIGESTED] else journal.at[log.DURABLE_SEQUENCE]
    if not record.lies_in(sequence, nothing, lowest, max(at[AS_OF], journal.at[log.STAGED_SEQUENCE])):
        return NOT_NEXT
    if not record.lies_in(consistent_from, nothing, max(at[AS_OF], sequence), np.int64(record.NUMBER_MAX)):
        return NOT_NEXT
    if not record.lies_in(record.word_of(words, start), nothing, nothing, journal.at[log.EPOCH]):
        return OLD_EPOCH
    return TAKEN


@kernel()
def refusal_of(secondary, start):
    """Why the complete frame at inbox byte `start` is refused, or TAKEN: every number in it, before any of it is acted on."""
    at = secondary.at
    words = secondary.inbox_words
    kind = record.kind_of(words, start)
    if kind == record.WRITE or kind == record.TRIM:
        return refusal_of_record(secondary, start)
    epoch = secondary.journal.at[log.EPOCH]
    if record.epoch_of(words, start) != epoch or at[SESSION_EPOCH] != epoch:
        return OLD_EPOCH
    if not record.is_next(words, start, at[ASIDE_HEARD]):
        return NOT_NEXT
    if kind == record.EXTENT or kind == record.DIGEST:
        return refusal_of_copy(secondary, start)
    if kind == record.SYNCED:
        return refusal_of_synced(secondary, start)
    staged, nothing = secondary.journal.at[log.STAGED_SEQUENCE], np.int64(0)
    is_command = kind == record.COMMAND
    lowest, highest = staged if is_command else nothing, np.int64(record.NUMBER_MAX) if is_command else staged
    if not record.lies_in(record.sequence_of(words, start), nothing, lowest, highest):
        return NOT_NEXT
    return TAKEN if record.address_of(words, start) == 0 and record.word_of(words, start) == 0 else OUTSIDE


@kernel()
def accept_record(secondary, start):
    """Stage the complete WRITE or TRIM at inbox byte `start`; answers TAKEN, NO_ROOM, or why it is refused."""
    journal = secondary.journal
    words = secondary.inbox_words
    length = record.length_of(words, start)
    found = refusal_of_record(secondary, start)
    if found != TAKEN:
        return found
    if not log.has_room(journal, length):
        journal.at[log.WANTS_VOUCH] = 1
        return NO_ROOM
    target = log.place(journal, length)
    size = record.record_bytes(length)
    source, goal = start >> 3, target >> 3
    for word in range(size >> 3):  # A slice assignment would look for overlap first, and count references.
        journal.words[goal + word] = words[source + word]
    journal.at[log.LOG_EPOCH] = record.epoch_of(words, start)
    return TAKEN


@kernel()
def is_settled(journal, ring):
    """Whether everything received is durable and in the volume: the state that digests and extents are about."""
    at = journal.at
    if at[log.APPLIED_SEQUENCE] == at[log.STAGED_SEQUENCE] and ring.state[reactor.JOURNAL] == reactor.IDLE:
        return True
    at[log.WANTS_VOUCH] = 1  # Who asks waits for it.
    return False


@kernel()
def mark(secondary, flags):
    """Make FLAGS durable before anything that depends on it happens; waits for the disk. Answers TAKEN, NO_ROOM or -errno."""
    journal = secondary.journal
    ring = secondary.ring
    if ring.state[reactor.SUPERBLOCK] != reactor.IDLE or ring.state[reactor.VOLUME] != reactor.IDLE:
        return np.int64(NO_ROOM)
    journal.at[log.FLAGS] = flags
    status = replica.save(journal, ring)
    return np.int64(TAKEN) if status == replica.OK else status


@kernel()
def accept_extent(secondary, start):
    """Write one extent of a resync straight into the volume, which is a mixture of times from here on."""
    journal = secondary.journal
    words = secondary.inbox_words
    address, size = record.address_of(words, start), record.length_of(words, start)
    if not is_settled(journal, secondary.ring):
        return np.int64(NO_ROOM)
    secondary.at[CONSISTENT_FROM] = 0  # Of a resync before this one on the same connection, if any.
    if not journal.at[log.FLAGS] & log.INCONSISTENT:
        status = mark(secondary, journal.at[log.FLAGS] | log.INCONSISTENT)
        if status != TAKEN:
            return status
    written = reactor.write_volume(
        secondary.ring, journal.at[log.VOLUME_FD], secondary.inbox, start + record.HEADER_BYTES, size, address
    )
    if written != size:
        return written if written < 0 else np.int64(replica.SHORT_WRITE)
    secondary.at[EXTENT_COUNT] += 1
    secondary.at[AS_OF] = record.sequence_of(words, start)
    return np.int64(TAKEN)


@kernel()
def accept_synced(secondary, start):
    """The extents are all here: begin the log anew behind their sequence; whole once CONSISTENT_FROM is applied."""
    at = secondary.at
    journal = secondary.journal
    words = secondary.inbox_words
    sequence, consistent_from = record.sequence_of(words, start), record.address_of(words, start)
    busy = secondary.ring.state[reactor.SUPERBLOCK] != reactor.IDLE or secondary.ring.state[reactor.VOLUME] != reactor.IDLE
    if busy or not is_settled(journal, secondary.ring):
        return np.int64(NO_ROOM)
    # Whether this log is kept or the next one is: it holds everything up to the lower of the two.
    status = replica.write_label(journal, secondary.ring, min(sequence, journal.at[log.DURABLE_SEQUENCE]))
    if status == replica.OK:
        status = reactor.sync_now(secondary.ring, journal.at[log.VOLUME_FD])
    if status < 0:
        return status
    position = (journal.at[log.STAGED] + BLOCK_BYTES - 1) // BLOCK_BYTES * BLOCK_BYTES
    log.restart(journal, position, sequence, record.word_of(words, start))
    status = mark(secondary, log.INCONSISTENT if consistent_from > sequence else np.int64(0))
    if status != TAKEN:
        return status  # The disk still tells of the old log, and nobody has been told of the new one.
    at[CONSISTENT_FROM] = consistent_from
    at[ACKED_RECEIVED] = at[ACKED_DURABLE] = sequence
    at[ACK_DUE] = 1
    at[SYNCED_COUNT] += 1
    at[DIGESTED] = 0
    return np.int64(TAKEN)


@kernel()
def accept_digest(secondary, start):
    """Compare digests of some extents with our own, and answer which differ."""
    at = secondary.at
    journal = secondary.journal
    words = secondary.inbox_words
    first, count = record.address_of(words, start), record.length_of(words, start) // DIGEST_BYTES
    extent_bytes = journal.at[log.EXTENT_BYTES]
    verifying = record.word_of(words, start) != 0
    behind = journal.at[log.APPLIED_SEQUENCE] < record.sequence_of(words, start)
    if verifying and behind:
        journal.at[log.WANTS_VOUCH] = 1
    if (verifying and behind) or (not verifying and not is_settled(journal, secondary.ring)):
        return np.int64(NO_ROOM)
    if OUTBOX_BYTES - at[OUT_END] < record.record_bytes(count) + record.HEADER_BYTES:
        return np.int64(NO_ROOM)
    answer = at[OUT_END] + record.HEADER_BYTES
    for place in range(count):
        size = extent_size(at[VOLUME_BYTES], extent_bytes, first + place)
        got = reactor.read_volume(
            secondary.ring, journal.at[log.VOLUME_FD], secondary.scratch, np.int64(0), size, (first + place) * extent_bytes
        )
        if got != size:
            return got if got < 0 else np.int64(replica.SHORT_WRITE)
        ours = digest(secondary.scratch, secondary.scratch_words, np.int64(0), size)
        theirs = words[(start + record.HEADER_BYTES) // 8 + place]
        secondary.outbox[answer + place] = 1 if ours != theirs else 0
    record.seal(
        secondary.outbox, secondary.outbox_words, at[OUT_END], record.DIFFERS, count, record.sequence_of(words, start),
        first, journal.at[log.EPOCH], journal.at[log.VOLUME], reactor.now_ns(secondary.ring), np.int64(0), at[ASIDE_SENT] + 1,
    )  # fmt: skip
    at[ASIDE_SENT] += 1
    at[OUT_END] += record.record_bytes(count)
    at[AS_OF] = max(at[AS_OF], record.sequence_of(words, start))
    if not verifying:
        at[DIGESTED] = 1
    return np.int64(TAKEN)


@kernel()
def accept_command(secondary, start):
    """Two-trip C: give leave for everything up to the command's sequence."""
    secondary.at[GRANT_DUE] = record.sequence_of(secondary.inbox_words, start)
    return np.int64(TAKEN)


@kernel()
def accept_ping(secondary, start):
    """Owe a sign of life: nothing that was sent before it is missing."""
    secondary.at[ACK_DUE] = 1
    return np.int64(TAKEN)


@kernel()
def accept_aside(secondary, start):
    """accept() of a frame that is not in the log."""
    at = secondary.at
    kind = record.kind_of(secondary.inbox_words, start)
    found = np.int64(refusal_of(secondary, start))
    if found != TAKEN:
        return found
    if kind == record.PING:
        return accept_ping(secondary, start)
    if kind == record.COMMAND:
        return accept_command(secondary, start)
    if kind == record.EXTENT:
        return accept_extent(secondary, start)
    if kind == record.SYNCED:
        return accept_synced(secondary, start)
    if kind == record.DIGEST:
        return accept_digest(secondary, start)
    at[CLOSING] = 1  # A GOODBYE.
    return np.int64(TAKEN)


@kernel()
def accept(secondary, start):
    """Do what the complete frame at inbox byte `start` says; answers TAKEN, NO_ROOM (later), or why it is refused."""
    kind = record.kind_of(secondary.inbox_words, start)
    if kind == record.WRITE or kind == record.TRIM:
        return np.int64(accept_record(secondary, start))
    answer = np.int64(accept_aside(secondary, start))
    if answer == TAKEN:
        secondary.at[ASIDE_HEARD] += 1
    return answer


@kernel()
def parse(secondary):
    """Take all complete frames out of the inbox; answers 0, what the disk said, or BAD_FRAME with the reason in REFUSED."""
    at = secondary.at
    consumed = np.int64(0)
    status = np.int64(replica.OK)
    while True:
        found = np.int64(
            record.inspect(
                secondary.inbox, secondary.inbox_words, consumed, at[INBOX_FILL] - consumed,
                secondary.journal.at[log.VOLUME],
            )
        )  # fmt: skip
        if found == record.INCOMPLETE:
            fill = at[INBOX_FILL] - consumed
            length = record.length_of(secondary.inbox_words, consumed) if fill >= record.HEADER_BYTES else np.int64(0)
            if record.record_bytes(length) <= secondary.inbox.size:
                break
            found = np.int64(record.BAD_LENGTH)  # It is never whole: nothing of it is waited for.
        if found == record.COMPLETE and not is_said_by_primary(record.kind_of(secondary.inbox_words, consumed)):
            found = np.int64(record.BAD_KIND)  # Before anything of it is waited for.
        if found == record.COMPLETE:
            # The payload's rounding up to 64 bytes travels too, outside the checksum.
            size = record.record_bytes(record.length_of(secondary.inbox_words, consumed))
            if at[INBOX_FILL] - consumed < size:
                break
            found = accept(secondary, consumed)
            if found == NO_ROOM:
                break
            if found == TAKEN:
                consumed += size
                continue
            if replica.is_from_disk(found):
                status = np.int64(found)
                break
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
def answer(secondary, kind, sequence, address):
    """Put one answer behind those on their way; False when there is no room."""
    at = secondary.at
    if at[OUT_END] + record.HEADER_BYTES > OUTBOX_BYTES:
        return False
    record.seal(
        secondary.outbox, secondary.outbox_words, at[OUT_END], kind, 0, sequence, address,
        secondary.journal.at[log.EPOCH], secondary.journal.at[log.VOLUME], reactor.now_ns(secondary.ring),
        at[SYNCED_COUNT] if kind == record.ACK else np.int64(0), at[ASIDE_SENT] + 1,
    )  # fmt: skip
    at[ASIDE_SENT] += 1
    at[OUT_END] += record.HEADER_BYTES
    return True


@kernel()
def send_answers(secondary):
    """Tell the primary how far received and durable are, if that is news, and whatever else it has asked."""
    at = secondary.at
    journal = secondary.journal
    if at[GRANT_DUE] > 0 and answer(secondary, record.READY, at[GRANT_DUE], np.int64(0)):
        at[GRANT_DUE] = 0
    received = journal.at[log.STAGED_SEQUENCE]
    durable = journal.at[log.DURABLE_SEQUENCE]
    news = durable > at[ACKED_DURABLE] or (at[PROTOCOL] == B and received > at[ACKED_RECEIVED])
    # While one is on its way the next collects: a lone ack is never delayed, many become one.
    if (news or at[ACK_DUE] > 0) and at[OUT_END] - at[OUT_BEGIN] <= record.HEADER_BYTES:
        if answer(secondary, record.ACK, durable, received):
            at[ACKED_RECEIVED], at[ACKED_DURABLE], at[ACK_DUE] = received, durable, 0
            at[ACK_COUNT] += 1
    while at[OUT_BEGIN] < at[OUT_END]:
        sent = reactor.send(secondary.ring, secondary.sockets[0], secondary.outbox, at[OUT_BEGIN], at[OUT_END] - at[OUT_BEGIN])
        if sent == -reactor.EAGAIN or sent == -reactor.EINTR:
            return np.int64(replica.OK)
        if sent < 0:
            return np.int64(replica.PEER_CLOSED)
        at[OUT_BEGIN] += sent
    at[OUT_BEGIN] = at[OUT_END] = 0
    return np.int64(replica.OK)


@kernel()
def note_consistent(secondary):
    """Once the log has made the copied extents whole, say so on the disk."""
    journal = secondary.journal
    inconsistent = journal.at[log.FLAGS] & log.INCONSISTENT
    if inconsistent and journal.at[log.APPLIED_SEQUENCE] < secondary.at[CONSISTENT_FROM] <= journal.at[log.DURABLE_SEQUENCE]:
        journal.at[log.WANTS_VOUCH] = 1
    if inconsistent and 0 < secondary.at[CONSISTENT_FROM] <= journal.at[log.APPLIED_SEQUENCE]:
        status = mark(secondary, journal.at[log.FLAGS] & ~np.int64(log.INCONSISTENT))
        return status if status < 0 else np.int64(replica.OK)
    return np.int64(replica.OK)


@kernel()
def turn(secondary, timeout_ns):
    """One turn: sleep until something happens, then receive, flush, apply and acknowledge. Answers 0, STOPPED or a status.

    STOPPED also when the primary has said goodbye and everything is durable and acknowledged.
    """
    at = secondary.at
    journal = secondary.journal
    ring = secondary.ring
    if secondary.board[0] != 0:
        return np.int64(replica.STOPPED)
    # A frame in the inbox may wait for the room we can still make: nothing else would wake us.
    waiting = at[INBOX_FILL] > 0 and ring.state[reactor.JOURNAL] == reactor.IDLE
    making_room = replica.appliable(journal)
    if making_room:
        timeout_ns = np.int64(0)
    elif waiting:
        timeout_ns = min(timeout_ns, np.int64(1_000_000))
    ready = reactor.wait(ring, secondary.sockets, np.int64(1 if at[OUT_BEGIN] < at[OUT_END] else 0), timeout_ns)
    if ready < 0:
        return ready
    status = replica.end_flush(journal, ring)
    if status < 0:
        return status
    outcome = np.int64(replica.OK)
    if journal.at[log.DURABLE_SEQUENCE] > at[ACKED_DURABLE] or at[OUT_BEGIN] < at[OUT_END]:
        outcome = send_answers(secondary)
    if ready & reactor.READABLE or (at[INBOX_FILL] > 0 and ready == 0):
        outcome = receive_frames(secondary, outcome)
    # Received is acknowledged before the flush begins, because in the plain form the flush holds everything up.
    if outcome == replica.OK and (at[PROTOCOL] == B or at[ACK_DUE] > 0 or at[GRANT_DUE] > 0 or at[OUT_END] > 0):
        outcome = send_answers(secondary)
    replica.begin_flush(journal, ring)
    status = replica.apply(journal, ring, np.int64(replica.APPLY_BYTES))
    if status == replica.OK:
        status = note_consistent(secondary)
    if status == replica.OK:
        status = replica.checkpoint(journal, ring)
    if status < 0:
        return status
    secondary.board[1] = journal.at[log.DURABLE_SEQUENCE]
    everything = journal.at[log.DURABLE_SEQUENCE] == journal.at[log.STAGED_SEQUENCE] == at[ACKED_DURABLE]
    if outcome == replica.OK and at[CLOSING] and everything and at[OUT_BEGIN] == at[OUT_END]:
        return np.int64(replica.STOPPED)
    return outcome


@kernel()
def serve(secondary):
    """Receive, flush and acknowledge until the primary says goodbye, is gone, or the board asks to stop.

    Everything received is durable and applied when this returns, whatever the reason; a status below 0 from the disk is
    the exception.
    """
    outcome = np.int64(replica.OK)
    while outcome == replica.OK:
        outcome = turn(secondary, np.int64(50_000_000))
    if replica.is_from_disk(outcome):
        return outcome
    status = replica.settle(secondary.journal, secondary.ring)
    if status == replica.OK:
        status = note_consistent(secondary)
    secondary.board[1] = secondary.journal.at[log.DURABLE_SEQUENCE]
    if outcome == replica.STOPPED and secondary.at[CLOSING]:
        outcome = np.int64(replica.OK)
    return outcome if status == replica.OK else status


@kernel()
def receive_frames(secondary, outcome):
    """Read what the socket holds and parse it; answers the loop's next outcome."""
    at = secondary.at
    room = secondary.inbox.size - at[INBOX_FILL]
    if room > 0:
        got = reactor.receive(secondary.ring, secondary.sockets[0], secondary.inbox, at[INBOX_FILL], room)
        if got == 0 or (got < 0 and got != -reactor.EAGAIN and got != -reactor.EINTR):
            status = parse(secondary)
            return status if replica.is_from_disk(status) else np.int64(replica.PEER_CLOSED)
        if got > 0:
            at[INBOX_FILL] += got
            at[HEARD_NS] = reactor.now_ns(secondary.ring)
    status = parse(secondary)
    return status if status < 0 else outcome
