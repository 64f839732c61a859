"""Bringing a stale peer up to date while writes go on: the primary's side.

From the journal's file when it still holds the range; otherwise by the extents written since the peer's last write, which
`last_write` tells; otherwise, after divergence or when that is not known, by comparing digests of every extent. A copy of
extents is a mixture of times; the log is then sent again from where the copying began, which makes it whole (redo of a fuzzy
copy: Mohan et al., ARIES, 1992). Every step does one piece of work and looks at EXTENTS_PER_TURN extents at most, so a write in
the foreground waits for one such step, whatever the volume's size.
"""

from __future__ import annotations

import numpy as np

from ..base.crc_kernel import crc32c
from ..base.host import reactor
from ..base.host.disk import BLOCK_BYTES
from ..base.jit import kernel
from . import journal_kernel as log
from . import primary_kernel as primary_side
from . import record_kernel as record
from . import replica_kernel as replica
from . import snapshot_kernel as snapshot
from .primary_kernel import (
    ABSENT,
    BY_DIGESTS,
    BY_EXTENTS,
    CATCHING,
    DIGEST_EXTENTS,
    LIVE,
    RESYNCING,
)  # fmt: skip

READ_BYTES = 128 << 10  # Of the journal's file at once: 60 us on the VM this was written on.
DIGEST_BYTES = 8
EXTENTS_PER_TURN = 1 << 15  # Looked at in one turn, whatever the volume's size: 60 us on a busy 2-core VM; 2 GiB of volume.
DIGESTS_IN_FLIGHT = 16  # Digests sent and not answered: 8 MiB of volume compared per round trip.
SCRATCH = 4096  # Where in the resync buffer an extent is read to while its digest is made.
PACE_BYTES_PER_S_MIN = 1 << 20  # Beside writes over their budget, so that it ends all the same; DRBD's c-min-rate is a quarter.
FOREGROUND_NS = 100_000_000  # Without a write for so long there is nobody to make room for.

MIX = np.int64(-7046029254386353131)  # 2^64 / golden ratio, odd.


@kernel()
def digest(data, words, start, size):
    """64 bits that tell one extent from another: CRC32C and, because two CRCs would agree, a multiplicative hash."""
    mixed = np.int64(size)
    for word in range(start >> 3, (start + size) >> 3):
        mixed = (mixed ^ words[word]) * MIX
        mixed ^= mixed >> 29
    return (crc32c(np.int64(0), data, start, start + size) << 32) | (mixed & np.int64(0xFFFFFFFF))


@kernel()
def extent_size(volume_bytes, extent_bytes, extent):
    """Bytes of an extent; the last one may be shorter."""
    return min(extent_bytes, volume_bytes - extent * extent_bytes)


@kernel()
def is_within_rate(primary, index, now_ns):
    """Whether the next piece of a resync may go."""
    return primary.peer[index].resync_due_ns <= now_ns


@kernel()
def paced(bytes_per_s, slowest_ns, budget_ns, bytes_per_s_max):
    """The rate of a resync after a write beside it took `slowest_ns`: half when that was too long, otherwise a little more."""
    if slowest_ns > budget_ns:
        return max(bytes_per_s // 2, np.int64(PACE_BYTES_PER_S_MIN))
    return min(bytes_per_s + max(bytes_per_s // 32, np.int64(PACE_BYTES_PER_S_MIN // 16)), bytes_per_s_max)


@kernel()
def keep_budget(primary, before, now_ns):
    """Bring the rate of resyncs to what the writes completed since `before` say: the oldest of them waited longest."""
    at = primary.at[0]
    if at.latency_budget_ns == 0 or at.completed == before:
        return
    slowest_ns = now_ns - primary.submitted_ns[(before + 1) % primary.submitted_ns.size]
    at.resync_bytes_per_s = paced(at.resync_bytes_per_s, slowest_ns, at.latency_budget_ns, at.resync_bytes_per_s_max)


@kernel()
def begin_resync_buffer(primary, index, begin, end):
    """Have buffer[begin:end] sent next; beside writes in the foreground, the one after it waits until the rate allows it."""
    peer = primary.peer[index]
    at = primary.at[0]
    peer.buffer_begin, peer.buffer_sent, peer.buffer_end = begin, begin, end
    peer.resync_bytes += end - begin
    now_ns = reactor.now_ns(primary.ring)
    pause_ns = np.int64((end - begin) * 1e9 / at.resync_bytes_per_s)
    idle = at.latency_budget_ns > 0 and now_ns - at.submitted_ns > FOREGROUND_NS
    peer.resync_due_ns = now_ns if idle else max(peer.resync_due_ns, now_ns) + pause_ns


@kernel()
def send_resync_buffer(primary, index):
    """Hand what is left in the resync buffer to the send buffer; answers 0 or a status."""
    peer = primary.peer[index]
    while peer.buffer_sent < peer.buffer_end:
        sent = reactor.send(
            primary.ring, primary.sockets[index], primary.resync_buffer[index], peer.buffer_sent,
            peer.buffer_end - peer.buffer_sent,
        )  # fmt: skip
        if sent == -reactor.EAGAIN or sent == -reactor.EINTR:
            return np.int64(replica.OK)
        if sent < 0:
            return np.int64(replica.PEER_CLOSED)
        peer.buffer_sent += sent
        peer.wire_bytes += sent
        if peer.asked_ns == 0:
            peer.asked_ns = reactor.now_ns(primary.ring)
    return np.int64(replica.OK)


@kernel()
def begin_catching(primary, index, position, sequence, now_ns):
    """Send the log from `position`, where the record behind `sequence` begins."""
    peer = primary.peer[index]
    peer.state = CATCHING
    peer.sent = peer.run_end = position
    peer.sent_sequence = peer.run_sequence = sequence
    peer.resync_since_ns, peer.resync_bytes = now_ns, 0


@kernel()
def begin_resync(primary, index, sequence, how, now_ns):
    """Send what was written after `sequence` (BY_EXTENTS), or whatever differs (BY_DIGESTS)."""
    peer = primary.peer[index]
    journal = primary.journal
    if sequence < journal.at[0].known_since:
        how = BY_DIGESTS
    peer.state = RESYNCING
    peer.redo_sequence = journal.at[0].applied_sequence
    peer.digests_dropped += peer.digests_sent - peer.digests_answered
    peer.digests_sent = peer.digests_answered = peer.verifying = 0
    peer.resync_since_ns, peer.resync_bytes = now_ns, 0
    peer.cursor = peer.wanted_from = peer.wanted_count = 0
    peer.since_sequence = -1 if how == BY_DIGESTS else sequence
    if how == BY_DIGESTS:
        # It holds another history: nothing of ours yet.
        peer.received = peer.durable = peer.sent_sequence = peer.run_sequence = 0
        peer.granted = peer.commanded = 0
    else:
        find_written(primary, index)


@kernel()
def find_written(primary, index):
    """Look at the next extents of a resync by extents: those written behind `since_sequence` are to be sent.

    One that is written again while the rest is looked at is sent too. It need not be: the log brings that write.
    """
    peer = primary.peer[index]
    last_write = primary.journal.last_write
    for extent in range(peer.cursor, min(peer.cursor + EXTENTS_PER_TURN, last_write.size)):
        is_wanted = last_write[extent] > peer.since_sequence
        primary.wanted[index, extent] = is_wanted
        peer.wanted_count += is_wanted
    peer.cursor = min(peer.cursor + EXTENTS_PER_TURN, last_write.size)


@kernel()
def catch_up(primary, index, now_ns):
    """A piece of the log from the journal's file; the peer is live again once the rest is in memory. Answers 0 or a status."""
    peer = primary.peer[index]
    journal = primary.journal
    at = journal.at[0]
    status = send_resync_buffer(primary, index)
    if status < 0 or peer.buffer_sent < peer.buffer_end:
        return status
    peer.sent_sequence = peer.run_sequence
    if peer.sent >= at.staged - at.staging_bytes // 2:
        peer.run_end = peer.sent
        peer.state = LIVE
        return np.int64(replica.OK)
    if peer.sent < at.tail:
        begin_resync(primary, index, peer.sent_sequence, BY_EXTENTS, now_ns)
        return np.int64(replica.OK)
    if not is_within_rate(primary, index, now_ns):
        return np.int64(replica.OK)
    if not fill_resync_buffer(primary, index, np.int64(READ_BYTES)) and not fill_resync_buffer(
        primary, index, np.int64(primary.resync_buffer.shape[1])
    ):
        return np.int64(-replica.EIO)
    return send_resync_buffer(primary, index)


@kernel()
def fill_resync_buffer(primary, index, bytes_max):
    """Read whole records from the journal's file at `sent`, and have them sent; False when there is no whole sound record."""
    peer = primary.peer[index]
    journal = primary.journal
    at = journal.at[0]
    data, headers = primary.resync_buffer[index], primary.resync_headers[index]
    begin = peer.sent // BLOCK_BYTES * BLOCK_BYTES
    ring_end = (begin // at.capacity_bytes + 1) * at.capacity_bytes
    size = min(min(at.durable, ring_end) - begin, min(bytes_max, data.size) // BLOCK_BYTES * BLOCK_BYTES)
    if size <= 0:
        return peer.sent >= at.durable  # The disk is behind: there is nothing to read yet.
    got = reactor.read_journal(
        primary.ring, at.journal_fd, data, np.int64(0), size, log.SUPERBLOCK_BYTES + begin % at.capacity_bytes
    )
    if got != size:
        return False
    start = peer.sent - begin
    end = start
    while end < size:
        if record.inspect(data, headers, end, size - end, at.volume) != record.COMPLETE:
            break
        length = record.record_bytes(record.length_of(headers, end))
        if end + length > size:
            break
        if record.kind_of(headers, end) == record.PAD:
            if start < end:
                break
            start = end + length
        else:
            peer.run_sequence = record.sequence_of(headers, end)
        end += length
    if end == peer.sent - begin:
        return False
    peer.sent = peer.run_end = begin + end
    if start < end:
        begin_resync_buffer(primary, index, start, end)
    return True


@kernel()
def resync(primary, index, now_ns):
    """One piece of a resync: digests, an extent, or its end. Answers 0 or a status."""
    peer = primary.peer[index]
    journal = primary.journal
    status = send_resync_buffer(primary, index)
    if status < 0 or peer.buffer_sent < peer.buffer_end or not is_within_rate(primary, index, now_ns):
        return status
    extents = journal.last_write.size
    if peer.cursor < extents and peer.since_sequence >= 0:
        find_written(primary, index)
    elif peer.cursor < extents and peer.digests_sent - peer.digests_answered < DIGESTS_IN_FLIGHT:
        status = make_digests(primary, index, np.int64(0))
        return status if status < 0 else send_resync_buffer(primary, index)
    extent = next_wanted(primary, index)
    if extent >= 0:
        status = make_extent(primary, index, extent)
        return status if status < 0 else send_resync_buffer(primary, index)
    if peer.wanted_from < extents:
        return np.int64(replica.OK)
    if max(peer.told_sequence, peer.since_sequence) < peer.redo_sequence:
        # No byte was written since, and snapshots were taken or deleted: an extent that is alike tells how far the copy is.
        primary.wanted[index, 0] = 1
        peer.wanted_count += 1
        status = make_extent(primary, index, np.int64(0))
        return status if status < 0 else send_resync_buffer(primary, index)
    return end_resync(primary, index, now_ns)


@kernel()
def next_wanted(primary, index):
    """The first extent still to be sent, or -1 when the next ones are not: all are sent, not known yet, or too many to look at.

    `wanted_from` moves over those that need not be sent, so each is passed over once.
    """
    peer = primary.peer[index]
    known = peer.cursor
    if peer.since_sequence < 0:
        known = min(peer.digests_answered * DIGEST_EXTENTS, known)
    end = min(peer.wanted_from + EXTENTS_PER_TURN, known)
    while peer.wanted_from < end and not primary.wanted[index, peer.wanted_from]:
        peer.wanted_from += 1
    return peer.wanted_from if peer.wanted_from < end else np.int64(-1)


@kernel()
def make_digests(primary, index, verifying):
    """The digests of the next few extents, into the resync buffer; answers 0 or a status."""
    peer = primary.peer[index]
    journal = primary.journal
    at = journal.at[0]
    data, words, headers = primary.resync_buffer[index], primary.resync_words[index], primary.resync_headers[index]
    first = peer.cursor
    count = min(np.int64(DIGEST_EXTENTS), journal.last_write.size - first)
    for place in range(count):
        size = extent_size(primary.at[0].volume_bytes, at.extent_bytes, first + place)
        got = reactor.read_volume(
            primary.ring, at.volume_fd, data, np.int64(SCRATCH), size, (first + place) * at.extent_bytes
        )
        if got != size:
            return got if got < 0 else np.int64(replica.SHORT_WRITE)
        words[record.HEADER_BYTES // 8 + place] = digest(data, words, np.int64(SCRATCH), size)
        if not verifying:
            primary.wanted[index, first + place] = 0  # Until the answer says otherwise.
    length = count * DIGEST_BYTES
    record.seal(
        data, headers, np.int64(0), record.DIGEST, length, at.applied_sequence, first, at.epoch, at.volume,
        reactor.now_ns(primary.ring), verifying, peer.aside_sent + 1,
    )  # fmt: skip
    peer.aside_sent += 1
    peer.told_sequence = at.applied_sequence
    peer.cursor += count
    peer.digests_sent += 1
    begin_resync_buffer(primary, index, np.int64(0), record.record_bytes(length))
    return np.int64(replica.OK)


@kernel()
def make_extent(primary, index, extent):
    """One extent as it is now, into the resync buffer; answers 0 or a status."""
    peer = primary.peer[index]
    journal = primary.journal
    at = journal.at[0]
    data, headers = primary.resync_buffer[index], primary.resync_headers[index]
    address = extent * at.extent_bytes
    size = extent_size(primary.at[0].volume_bytes, at.extent_bytes, extent)
    got = reactor.read_volume(primary.ring, at.volume_fd, data, np.int64(record.HEADER_BYTES), size, address)
    if got != size:
        return got if got < 0 else np.int64(replica.SHORT_WRITE)
    record.seal(
        data, headers, np.int64(0), record.EXTENT, size, at.applied_sequence, address, at.epoch, at.volume,
        reactor.now_ns(primary.ring), np.int64(0), peer.aside_sent + 1,
    )  # fmt: skip
    peer.aside_sent += 1
    peer.told_sequence = at.applied_sequence
    primary.wanted[index, extent] = 0
    peer.wanted_count -= 1
    begin_resync_buffer(primary, index, np.int64(0), record.record_bytes(size))
    return np.int64(replica.OK)


@kernel()
def end_resync(primary, index, now_ns):
    """All extents are sent: tell the peer from where its log goes on, or copy once more what was written meanwhile."""
    peer = primary.peer[index]
    journal = primary.journal
    at = journal.at[0]
    redo = peer.redo_sequence
    begin = log.begin_of(journal, redo + 1)
    if begin < 0:
        begin_resync(primary, index, redo, BY_EXTENTS, now_ns)
        return np.int64(replica.OK)
    log_epoch = at.log_epoch if redo > at.epoch_begin_sequence else at.previous_epoch
    size = snapshot.lay_listed(journal.snapshots, primary.resync_words[index], np.int64(record.HEADER_BYTES // 8))
    record.seal(
        primary.resync_buffer[index], primary.resync_headers[index], np.int64(0), record.SYNCED, size, redo,
        at.applied_sequence, at.epoch, at.volume, now_ns, log_epoch, peer.aside_sent + 1,
    )  # fmt: skip
    peer.aside_sent += 1
    begin_catching(primary, index, begin, redo, now_ns)
    peer.synced_count += 1
    begin_resync_buffer(primary, index, np.int64(0), record.record_bytes(size))
    return send_resync_buffer(primary, index)


@kernel()
def verify(primary, index, now_ns):
    """One piece of an online verify of a live peer: digests, between two runs of the log. Answers 0 or a status."""
    peer = primary.peer[index]
    status = send_resync_buffer(primary, index)
    if status < 0 or peer.buffer_sent < peer.buffer_end:
        return status
    if peer.cursor >= primary.journal.last_write.size:
        if peer.digests_answered == peer.digests_sent:
            peer.verifying = 2  # Done; DIFFERENT tells the result.
        return np.int64(replica.OK)
    full = peer.digests_sent - peer.digests_answered >= DIGESTS_IN_FLIGHT
    # A digest tells of the volume as of the last write applied here: the peer must have that write before it.
    behind = peer.sent != peer.run_end or peer.sent_sequence < primary.journal.at[0].applied_sequence
    if full or behind or not is_within_rate(primary, index, now_ns):
        return np.int64(replica.OK)
    status = make_digests(primary, index, np.int64(1))
    return status if status < 0 else send_resync_buffer(primary, index)


@kernel(allocates=True)
def fall_behind(primary, index, now_ns):
    """Go on without a live peer whose link is full: it will catch up. What is left of a record half sent goes first.

    Its beginning is held no longer: a header there may have been written over. Where it ends follows from where the next begins.
    """
    peer = primary.peer[index]
    journal = primary.journal
    sequence, end = peer.sent_sequence, peer.sent
    if peer.sent < peer.run_end:
        sequence = peer.run_sequence
        while journal.begins[sequence % journal.begins.size] > peer.sent:
            sequence -= 1
        end = peer.run_end if sequence == peer.run_sequence else journal.begins[(sequence + 1) % journal.begins.size]
    left = end - peer.sent
    start = peer.sent % journal.at[0].staging_bytes
    primary.resync_buffer[index, :left] = journal.data[start : start + left]
    begin_catching(primary, index, end, sequence, now_ns)
    begin_resync_buffer(primary, index, np.int64(0), left)
    peer.detached = 1


@kernel()
def rejoin(primary, index, now_ns):
    """Ask the peer again for what its protocol asks of it, once it is as far as the writes that have completed."""
    peer = primary.peer[index]
    reached = primary_side.point_of(peer, primary.at[0].protocol)
    if peer.detached and peer.state == LIVE and reached >= primary.at[0].completed:
        peer.detached = 0


@kernel()
def left_bytes(primary, index):
    """About how many bytes a peer still lacks: for progress and time left."""
    peer = primary.peer[index]
    journal = primary.journal
    if peer.state == CATCHING or peer.state == LIVE:
        return journal.at[0].staged - peer.sent
    if peer.state == ABSENT:
        return np.int64(-1)
    return (peer.wanted_count + journal.last_write.size - peer.cursor) * journal.at[0].extent_bytes
