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
from ..base.row import Row, i64, rows_of
from . import journal_kernel as log
from . import record_kernel as record
from . import replica_kernel as replica
from . import room_kernel as room
from . import snapshot_kernel as snapshot
from .primary_kernel import B
from .resync_kernel import DIGEST_BYTES, DIGEST_EXTENTS, digest, extent_size

INBOX_BYTES = 4 << 20  # Several of the largest records.
OUTBOX_BYTES = 8192  # Answers on their way; an answer to a digest is one header and at most a block.

# What accept() decides.
TAKEN, NO_ROOM, NOT_NEXT, OUTSIDE, OLD_EPOCH = 0, 1, -1011, -1012, -1013

# Why a frame was refused (`refused`), for people.
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


class Following(Row):
    """What a secondary knows of this connection."""

    protocol = i64("LOCAL to QUORUM, of primary_kernel")
    inbox_fill = i64("bytes in the inbox that were not taken yet")
    volume_bytes = i64("bytes of the volume")
    acked_received = i64("sequence: received, as the last ack says")
    acked_durable = i64("sequence: durable, as the last ack says")
    ack_due = i64("1: an ack is owed though it tells nothing new")
    out_begin = i64("bytes into the outbox: everything before it was handed to the socket")
    out_end = i64("bytes into the outbox: where the next answer goes")
    closing = i64("1: the primary has said goodbye")
    refused = i64("why a frame was refused, a key of REFUSALS; 0: none was")
    ack_count = i64("acks put into the outbox")
    session_epoch = i64("epoch in which this connection began")
    consistent_from = i64("sequence: once it is applied the volume is whole again; 0: no resync has said so")
    extent_count = i64("extents written into the volume")
    heard_ns = i64("ns, CLOCK_MONOTONIC: when anything arrived last")
    grant_due = i64("sequence that a COMMAND has asked leave for; 0: none")
    synced_count = i64("times the log was begun anew")
    aside_sent = i64("frames sent that are not in the log: the ordinal of the last")
    aside_heard = i64("frames heard that are not in the log: the ordinal of the last")
    as_of = i64("sequence of the newest extent or digest: what the primary had applied by then")
    digested = i64("1: digests have come since the log was begun anew; only they find out that it goes back")


class Secondary(NamedTuple):
    """One replica that receives writes."""

    at: np.ndarray  # Following, one
    journal: log.Journal
    ring: reactor.Reactor
    sockets: np.ndarray  # int64, one word
    inbox: np.ndarray  # uint8, frames as they arrive
    inbox_words: np.ndarray  # int64, the same memory
    inbox_headers: np.ndarray  # Header, the same memory
    outbox: np.ndarray  # uint8, answers being sent
    outbox_headers: np.ndarray  # Header, the same memory
    scratch: np.ndarray  # uint8, one extent
    scratch_words: np.ndarray  # int64, the same memory
    board: np.ndarray  # SharedCounters, one: shared with the lab


def secondary_state(
    journal: log.Journal, ring: reactor.Reactor, socket: int, protocol: int, volume_bytes: int, board: np.ndarray,
    inbox_bytes: int = INBOX_BYTES,
) -> Secondary:  # fmt: skip
    """A secondary that continues where its journal ends."""
    inbox, outbox, scratch = (
        aligned_bytes(size) for size in (inbox_bytes, OUTBOX_BYTES, int(journal.at[0].extent_bytes))
    )
    made = Secondary(
        rows_of(Following), journal, ring, np.full(1, socket, np.int64), inbox, inbox.view(np.int64),
        inbox.view(record.Header.LAYOUT), outbox, outbox.view(record.Header.LAYOUT), scratch, scratch.view(np.int64), board,
    )  # fmt: skip
    at, positions = made.at[0], journal.at[0]
    at.protocol, at.volume_bytes = protocol, volume_bytes
    at.acked_received = at.acked_durable = positions.staged_sequence
    at.session_epoch = positions.epoch
    positions.held = log.EVERYTHING_SENT  # It may have been a primary, whose peers had still to be sent something.
    return made


@kernel()
def is_said_by_primary(kind):
    """Whether a primary may send frames of this kind once the two have met."""
    return (
        record.is_logged(kind) or kind == record.PING or kind == record.GOODBYE
        or kind == record.COMMAND or kind == record.EXTENT or kind == record.SYNCED or kind == record.DIGEST
    )  # fmt: skip


@kernel()
def refusal_of_record(secondary, start):
    """Why the complete record of the log at inbox byte `start` may not be staged, or TAKEN."""
    journal = secondary.journal
    headers = secondary.inbox_headers
    kind, epoch = record.kind_of(headers, start), record.epoch_of(headers, start)
    if secondary.at[0].session_epoch != journal.at[0].epoch:
        return OLD_EPOCH  # We have promised a newer one since this connection began.
    if epoch > journal.at[0].epoch or epoch < journal.at[0].log_epoch:
        return OLD_EPOCH
    if record.sequence_of(headers, start) != journal.at[0].staged_sequence + 1:
        return NOT_NEXT
    if record.is_marker(kind):
        sequence, extra = record.sequence_of(headers, start), record.extra_of(headers, start)
        length = record.length_of(headers, start)
        return TAKEN if record.is_marker_applicable(kind, record.address_of(headers, start), length, extra, sequence) else OUTSIDE
    if kind == record.WRITE and record.extra_of(headers, start) != 0:
        return OUTSIDE
    address, size = record.address_of(headers, start), record.written_of(headers, start)
    if not record.is_applicable(kind, address, size, secondary.at[0].volume_bytes):
        return OUTSIDE
    return TAKEN if log.is_placeable(journal, record.length_of(headers, start)) else OUTSIDE


@kernel()
def refusal_of_copy(secondary, start):
    """Why the complete EXTENT or DIGEST at inbox byte `start` may not be believed, or TAKEN."""
    at = secondary.at[0]
    headers = secondary.inbox_headers
    nothing, most = np.int64(0), np.int64(record.NUMBER_MAX)
    as_of, address = record.sequence_of(headers, start), record.address_of(headers, start)
    length, word = record.length_of(headers, start), record.extra_of(headers, start)
    extent_bytes, extents = secondary.journal.at[0].extent_bytes, np.int64(secondary.journal.last_write.size)
    if record.kind_of(headers, start) == record.EXTENT:
        if not record.lies_in(as_of, nothing, at.as_of, most):
            return NOT_NEXT
        if word != 0 or length == 0 or not record.lies_in(address, length, nothing, at.volume_bytes):
            return OUTSIDE
        whole = extent_size(at.volume_bytes, extent_bytes, address // extent_bytes)
        return TAKEN if address % extent_bytes == 0 and length == whole else OUTSIDE
    staged = secondary.journal.at[0].staged_sequence
    # A verify compares what the log has brought: all that it is about was sent before it.
    if not record.lies_in(as_of, nothing, at.as_of, staged if word else most):
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
    at = secondary.at[0]
    journal = secondary.journal
    headers = secondary.inbox_headers
    nothing = np.int64(0)
    sequence, consistent_from = record.sequence_of(headers, start), record.address_of(headers, start)
    lowest = nothing if at.digested else journal.at[0].durable_sequence
    if not record.lies_in(sequence, nothing, lowest, max(at.as_of, journal.at[0].staged_sequence)):
        return NOT_NEXT
    if not record.lies_in(consistent_from, nothing, max(at.as_of, sequence), np.int64(record.NUMBER_MAX)):
        return NOT_NEXT
    if not record.lies_in(record.extra_of(headers, start), nothing, nothing, journal.at[0].epoch):
        return OLD_EPOCH
    is_list = snapshot.is_list(
        journal.snapshots, secondary.inbox_words, (start + record.HEADER_BYTES) >> 3, record.length_of(headers, start),
        consistent_from, journal.at[0].epoch,
    )  # fmt: skip
    return TAKEN if is_list else OUTSIDE


@kernel()
def refusal_of(secondary, start):
    """Why the complete frame at inbox byte `start` is refused, or TAKEN: every number in it, before any of it is acted on."""
    at = secondary.at[0]
    headers = secondary.inbox_headers
    kind = record.kind_of(headers, start)
    if record.is_logged(kind):
        return refusal_of_record(secondary, start)
    epoch = secondary.journal.at[0].epoch
    if record.epoch_of(headers, start) != epoch or at.session_epoch != epoch:
        return OLD_EPOCH
    if not record.is_next(headers, start, at.aside_heard):
        return NOT_NEXT
    if kind == record.EXTENT or kind == record.DIGEST:
        return refusal_of_copy(secondary, start)
    if kind == record.SYNCED:
        return refusal_of_synced(secondary, start)
    staged, nothing = secondary.journal.at[0].staged_sequence, np.int64(0)
    is_command = kind == record.COMMAND
    lowest, highest = staged if is_command else nothing, np.int64(record.NUMBER_MAX) if is_command else staged
    if not record.lies_in(record.sequence_of(headers, start), nothing, lowest, highest):
        return NOT_NEXT
    return TAKEN if record.address_of(headers, start) == 0 and record.extra_of(headers, start) == 0 else OUTSIDE


@kernel()
def accept_record(secondary, start):
    """Stage the complete record of the log at inbox byte `start`; answers TAKEN, NO_ROOM, or why it is refused."""
    journal = secondary.journal
    words, headers = secondary.inbox_words, secondary.inbox_headers
    length = record.length_of(headers, start)
    found = refusal_of_record(secondary, start)
    if found != TAKEN:
        return found
    if not log.has_room(journal, length):
        journal.at[0].wants_watermark = 1
        return NO_ROOM
    target = log.place(journal, length)
    size = record.record_bytes(length)
    source, goal = start >> 3, target >> 3
    for word in range(size >> 3):  # A slice assignment would look for overlap first, and count references.
        journal.words[goal + word] = words[source + word]
    kind = record.kind_of(headers, start)
    if not record.is_marker(kind):
        address, changed = record.address_of(headers, start), record.written_of(headers, start)
        room.note_staged(journal.room, journal.at[0].extent_bytes, kind, address, changed, journal.at[0].staged_sequence)
    journal.at[0].log_epoch = record.epoch_of(headers, start)
    return TAKEN


@kernel()
def is_settled(journal, ring):
    """Whether everything received is durable and in the volume: the state that digests and extents are about."""
    at = journal.at[0]
    if at.applied_sequence == at.staged_sequence and ring.state[reactor.JOURNAL] == reactor.IDLE:
        return journal.snapshots.at[0].dirty == 0 and ring.state[reactor.KEPT] == reactor.IDLE
    at.wants_watermark = 1  # Who asks waits for it.
    return False


@kernel()
def mark(secondary, flags):
    """Make `flags` durable before anything that depends on it happens; waits for the disk. Answers TAKEN, NO_ROOM or -errno."""
    journal = secondary.journal
    ring = secondary.ring
    if ring.state[reactor.SUPERBLOCK] != reactor.IDLE or ring.state[reactor.VOLUME] != reactor.IDLE:
        return np.int64(NO_ROOM)
    journal.at[0].flags = flags
    status = replica.save(journal, ring)
    return np.int64(TAKEN) if status == replica.OK else status


@kernel()
def accept_extent(secondary, start):
    """Write one extent of a resync straight into the volume, which is a mixture of times from here on."""
    journal = secondary.journal
    headers = secondary.inbox_headers
    address, size = record.address_of(headers, start), record.length_of(headers, start)
    if not is_settled(journal, secondary.ring):
        return np.int64(NO_ROOM)
    secondary.at[0].consistent_from = 0  # Of a resync before this one on the same connection, if any.
    if not journal.at[0].flags & log.INCONSISTENT:
        status = mark(secondary, journal.at[0].flags | log.INCONSISTENT)
        if status != TAKEN:
            return status
    kept = keep_extent(secondary, address, size)
    if kept != TAKEN:
        return kept
    is_hole = is_zeros(secondary, start + record.HEADER_BYTES, size)
    if is_hole:
        refused = np.int64(reactor.trim_volume(secondary.ring, journal.at[0].volume_fd, address, size))
        if refused < 0:
            return refused
    else:
        written = reactor.write_volume(
            secondary.ring, journal.at[0].volume_fd, secondary.inbox, start + record.HEADER_BYTES, size, address
        )
        if written != size:
            return written if written < 0 else np.int64(replica.SHORT_WRITE)
    room.note_copied(journal, address, is_hole)
    secondary.at[0].extent_count += 1
    secondary.at[0].as_of = record.sequence_of(headers, start)
    return np.int64(TAKEN)


@kernel()
def is_zeros(secondary, begin, size):
    """Whether inbox[begin:begin + size] is nothing but zeros: a copy of a hole stays a hole."""
    for word in range(begin >> 3, (begin + size) >> 3):
        if secondary.inbox_words[word] != 0:
            return False
    found = np.int64(0)
    for byte in range((begin + size) & ~np.int64(7), begin + size):
        found |= secondary.inbox[byte]
    return found == 0


@kernel()
def keep_extent(secondary, address, size):
    """Keep for the snapshots what an extent will overwrite, durably; waits for the disk. TAKEN or NO_ROOM."""
    journal, ring = secondary.journal, secondary.ring
    before = journal.snapshots.at[0].written
    snapshot.keep_range(journal.snapshots, ring, journal.at[0].volume_fd, address, size, False, False)
    if journal.snapshots.at[0].written > before and journal.snapshots.at[0].dirty == 0:
        snapshot.flush_now(journal.snapshots, ring)
    return np.int64(NO_ROOM if journal.snapshots.at[0].dirty > 0 else TAKEN)  # Given up: not before the disk tells of it.


@kernel()
def accept_synced(secondary, start):
    """The extents are all here: begin the log anew behind their sequence; whole once `consistent_from` is applied."""
    at = secondary.at[0]
    journal = secondary.journal
    headers = secondary.inbox_headers
    sequence, consistent_from = record.sequence_of(headers, start), record.address_of(headers, start)
    busy = secondary.ring.state[reactor.SUPERBLOCK] != reactor.IDLE or secondary.ring.state[reactor.VOLUME] != reactor.IDLE
    if busy or not is_settled(journal, secondary.ring):
        return np.int64(NO_ROOM)
    words, size = (start + record.HEADER_BYTES) >> 3, record.length_of(headers, start)
    if not snapshot.may_adopt(journal.snapshots, secondary.inbox_words, words, size):
        return np.int64(NO_ROOM)
    # Whether this log is kept or the next one is: it holds everything up to the lower of the two.
    status = replica.write_label(journal, secondary.ring, min(sequence, journal.at[0].durable_sequence))
    if status == replica.OK:
        status = reactor.sync_now(secondary.ring, journal.at[0].volume_fd)
    if status < 0:
        return status
    position = (journal.at[0].staged + BLOCK_BYTES - 1) // BLOCK_BYTES * BLOCK_BYTES
    log.restart(journal, position, sequence, record.extra_of(headers, start))
    snapshot.adopt(journal.snapshots, secondary.inbox_words, words, size, consistent_from)
    status = mark(secondary, log.INCONSISTENT if consistent_from > sequence else np.int64(0))
    if status != TAKEN:
        return status  # The disk still tells of the old log, and nobody has been told of the new one.
    at.consistent_from = consistent_from
    at.acked_received = at.acked_durable = sequence
    at.ack_due = 1
    at.synced_count += 1
    at.digested = 0
    return np.int64(TAKEN)


@kernel()
def accept_digest(secondary, start):
    """Compare digests of some extents with our own, and answer which differ."""
    at = secondary.at[0]
    journal = secondary.journal
    words, headers = secondary.inbox_words, secondary.inbox_headers
    first, count = record.address_of(headers, start), record.length_of(headers, start) // DIGEST_BYTES
    extent_bytes = journal.at[0].extent_bytes
    verifying = record.extra_of(headers, start) != 0
    behind = journal.at[0].applied_sequence < record.sequence_of(headers, start)
    if verifying and behind:
        journal.at[0].wants_watermark = 1
    if (verifying and behind) or (not verifying and not is_settled(journal, secondary.ring)):
        return np.int64(NO_ROOM)
    if OUTBOX_BYTES - at.out_end < record.record_bytes(count) + record.HEADER_BYTES:
        return np.int64(NO_ROOM)
    answer = at.out_end + record.HEADER_BYTES
    for place in range(count):
        size = extent_size(at.volume_bytes, extent_bytes, first + place)
        got = reactor.read_volume(
            secondary.ring, journal.at[0].volume_fd, secondary.scratch, np.int64(0), size, (first + place) * extent_bytes
        )
        if got != size:
            return got if got < 0 else np.int64(replica.SHORT_WRITE)
        ours = digest(secondary.scratch, secondary.scratch_words, np.int64(0), size)
        theirs = words[(start + record.HEADER_BYTES) // 8 + place]
        secondary.outbox[answer + place] = 1 if ours != theirs else 0
    record.seal(
        secondary.outbox, secondary.outbox_headers, at.out_end, record.DIFFERS, count, record.sequence_of(headers, start),
        first, journal.at[0].epoch, journal.at[0].volume, reactor.now_ns(secondary.ring), np.int64(0), at.aside_sent + 1,
    )  # fmt: skip
    at.aside_sent += 1
    at.out_end += record.record_bytes(count)
    at.as_of = max(at.as_of, record.sequence_of(headers, start))
    if not verifying:
        at.digested = 1
    return np.int64(TAKEN)


@kernel()
def accept_command(secondary, start):
    """Two-trip C: give leave for everything up to the command's sequence."""
    secondary.at[0].grant_due = record.sequence_of(secondary.inbox_headers, start)
    return np.int64(TAKEN)


@kernel()
def accept_ping(secondary, start):
    """Owe a sign of life: nothing that was sent before it is missing."""
    secondary.at[0].ack_due = 1
    return np.int64(TAKEN)


@kernel()
def accept_aside(secondary, start):
    """accept() of a frame that is not in the log."""
    at = secondary.at[0]
    kind = record.kind_of(secondary.inbox_headers, start)
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
    at.closing = 1  # A GOODBYE.
    return np.int64(TAKEN)


@kernel()
def accept(secondary, start):
    """Do what the complete frame at inbox byte `start` says; answers TAKEN, NO_ROOM (later), or why it is refused."""
    kind = record.kind_of(secondary.inbox_headers, start)
    if record.is_logged(kind):
        return np.int64(accept_record(secondary, start))
    answer = np.int64(accept_aside(secondary, start))
    if answer == TAKEN:
        secondary.at[0].aside_heard += 1
    return answer


@kernel()
def show_life(secondary):
    """Acknowledge though it tells nothing new, behind each extent that was taken; while we take, the primary is not silent.

    A PING waits in the sockets behind megabytes of extents, on a slow disk or link for longer than the primary lets a peer be
    silent. One that was given up is compared with the primary's digests from the first extent on.
    """
    secondary.at[0].heard_ns = reactor.now_ns(secondary.ring)
    secondary.at[0].ack_due = 1
    send_answers(secondary)  # That the primary is gone is seen where it is received from.


@kernel()
def parse(secondary):
    """Take all complete frames out of the inbox; answers 0, what the disk said, or BAD_FRAME with the reason in `refused`."""
    at = secondary.at[0]
    consumed = np.int64(0)
    status = np.int64(replica.OK)
    while True:
        found = np.int64(
            record.inspect(
                secondary.inbox, secondary.inbox_headers, consumed, at.inbox_fill - consumed,
                secondary.journal.at[0].volume,
            )
        )  # fmt: skip
        if found == record.INCOMPLETE:
            fill = at.inbox_fill - consumed
            length = record.length_of(secondary.inbox_headers, consumed) if fill >= record.HEADER_BYTES else np.int64(0)
            if record.record_bytes(length) <= secondary.inbox.size:
                break
            found = np.int64(record.BAD_LENGTH)  # It is never whole: nothing of it is waited for.
        if found == record.COMPLETE and not is_said_by_primary(record.kind_of(secondary.inbox_headers, consumed)):
            found = np.int64(record.BAD_KIND)  # Before anything of it is waited for.
        if found == record.COMPLETE:
            # The payload's rounding up to 64 bytes travels too, outside the checksum.
            size = record.record_bytes(record.length_of(secondary.inbox_headers, consumed))
            if at.inbox_fill - consumed < size:
                break
            found = accept(secondary, consumed)
            if found == NO_ROOM:
                break
            if found == TAKEN:
                if record.kind_of(secondary.inbox_headers, consumed) == record.EXTENT:
                    show_life(secondary)
                consumed += size
                continue
            if replica.is_from_disk(found):
                status = np.int64(found)
                break
        at.refused = found
        status = np.int64(replica.BAD_FRAME)
        break
    left = at.inbox_fill - consumed
    if consumed > 0 and left > 0:
        for index in range(left):
            secondary.inbox[index] = secondary.inbox[consumed + index]
    at.inbox_fill = left
    return status


@kernel()
def answer(secondary, kind, sequence, address):
    """Put one answer behind those on their way; False when there is no room."""
    at = secondary.at[0]
    if at.out_end + record.HEADER_BYTES > OUTBOX_BYTES:
        return False
    record.seal(
        secondary.outbox, secondary.outbox_headers, at.out_end, kind, 0, sequence, address,
        secondary.journal.at[0].epoch, secondary.journal.at[0].volume, reactor.now_ns(secondary.ring),
        at.synced_count if kind == record.ACK else np.int64(0), at.aside_sent + 1,
    )  # fmt: skip
    at.aside_sent += 1
    at.out_end += record.HEADER_BYTES
    return True


@kernel()
def send_answers(secondary):
    """Tell the primary how far received and durable are, if that is news, and whatever else it has asked."""
    at = secondary.at[0]
    journal = secondary.journal
    if at.grant_due > 0 and answer(secondary, record.READY, at.grant_due, np.int64(0)):
        at.grant_due = 0
    received = journal.at[0].staged_sequence
    durable = journal.at[0].durable_sequence
    news = durable > at.acked_durable or (at.protocol == B and received > at.acked_received)
    # While one is on its way the next collects: a lone ack is never delayed, many become one.
    if (news or at.ack_due > 0) and at.out_end - at.out_begin <= record.HEADER_BYTES:
        if answer(secondary, record.ACK, durable, received):
            at.acked_received, at.acked_durable, at.ack_due = received, durable, 0
            at.ack_count += 1
    while at.out_begin < at.out_end:
        sent = reactor.send(secondary.ring, secondary.sockets[0], secondary.outbox, at.out_begin, at.out_end - at.out_begin)
        if sent == -reactor.EAGAIN or sent == -reactor.EINTR:
            return np.int64(replica.OK)
        if sent < 0:
            return np.int64(replica.PEER_CLOSED)
        at.out_begin += sent
    at.out_begin = at.out_end = 0
    return np.int64(replica.OK)


@kernel()
def note_consistent(secondary):
    """Once the log has made the copied extents whole, say so on the disk."""
    journal = secondary.journal
    inconsistent = journal.at[0].flags & log.INCONSISTENT
    if inconsistent and journal.at[0].applied_sequence < secondary.at[0].consistent_from <= journal.at[0].durable_sequence:
        journal.at[0].wants_watermark = 1
    if inconsistent and 0 < secondary.at[0].consistent_from <= journal.at[0].applied_sequence:
        status = mark(secondary, journal.at[0].flags & ~np.int64(log.INCONSISTENT))
        return status if status < 0 else np.int64(replica.OK)
    return np.int64(replica.OK)


@kernel()
def turn(secondary, timeout_ns):
    """One turn: sleep until something happens, then receive, flush, apply and acknowledge. Answers 0, STOPPED or a status.

    STOPPED also when the primary has said goodbye and everything is durable and acknowledged.
    """
    at = secondary.at[0]
    journal = secondary.journal
    ring = secondary.ring
    if secondary.board[0].stop != 0:
        return np.int64(replica.STOPPED)
    # A frame in the inbox may wait for the room we can still make: nothing else would wake us.
    waiting = at.inbox_fill > 0 and ring.state[reactor.JOURNAL] == reactor.IDLE
    making_room = replica.is_busy(journal, ring)
    if making_room:
        timeout_ns = np.int64(0)
    elif waiting:
        timeout_ns = min(timeout_ns, np.int64(1_000_000))
    ready = reactor.wait(ring, secondary.sockets, np.int64(1 if at.out_begin < at.out_end else 0), timeout_ns)
    if ready < 0:
        return ready
    status = replica.end_flush(journal, ring)
    if status < 0:
        return status
    outcome = np.int64(replica.OK)
    if journal.at[0].durable_sequence > at.acked_durable or at.out_begin < at.out_end:
        outcome = send_answers(secondary)
    if ready & reactor.READABLE or (at.inbox_fill > 0 and ready == 0):
        outcome = receive_frames(secondary, outcome)
    # Received is acknowledged before the flush begins, because in the plain form the flush holds everything up.
    if outcome == replica.OK and (at.protocol == B or at.ack_due > 0 or at.grant_due > 0 or at.out_end > 0):
        outcome = send_answers(secondary)
    replica.begin_flush(journal, ring)
    status = replica.apply(journal, ring, np.int64(replica.APPLY_BYTES))
    if status == replica.OK:
        status = note_consistent(secondary)
    if status == replica.OK:
        status = replica.checkpoint(journal, ring)
    if status < 0:
        return status
    secondary.board[0].durable_sequence = journal.at[0].durable_sequence
    everything = journal.at[0].durable_sequence == journal.at[0].staged_sequence == at.acked_durable
    if outcome == replica.OK and at.closing and everything and at.out_begin == at.out_end:
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
    secondary.board[0].durable_sequence = secondary.journal.at[0].durable_sequence
    if outcome == replica.STOPPED and secondary.at[0].closing:
        outcome = np.int64(replica.OK)
    return outcome if status == replica.OK else status


@kernel()
def receive_frames(secondary, outcome):
    """Read what the socket holds and parse it; answers the loop's next outcome."""
    at = secondary.at[0]
    room = secondary.inbox.size - at.inbox_fill
    if room > 0:
        got = reactor.receive(secondary.ring, secondary.sockets[0], secondary.inbox, at.inbox_fill, room)
        if got == 0 or (got < 0 and got != -reactor.EAGAIN and got != -reactor.EINTR):
            status = parse(secondary)
            return status if replica.is_from_disk(status) else np.int64(replica.PEER_CLOSED)
        if got > 0:
            at.inbox_fill += got
            at.heard_ns = reactor.now_ns(secondary.ring)
    status = parse(secondary)
    return status if status < 0 else outcome
