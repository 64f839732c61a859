"""Bringing a stale peer up to date while writes go on: the primary's side.

From the journal's file when it still holds the range; otherwise by the extents written since the peer's last write, which
`last_write` tells; otherwise, after divergence or when that is not known, by comparing digests of every extent. A copy of
extents is a mixture of times; the log is then sent again from where the copying began, which makes it whole (redo of a fuzzy
copy: Mohan et al., ARIES, 1992). Every step does one piece of work, so a write in the foreground waits for at most one.
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
from .primary_kernel import (
    ABSENT,
    ASIDE_SENT,
    ASKED_NS,
    BY_DIGESTS,
    BY_EXTENTS,
    CATCHING,
    COMMANDED,
    CURSOR,
    DIGEST_EXTENTS,
    DIGESTS_ANSWERED,
    DIGESTS_DROPPED,
    DIGESTS_SENT,
    DURABLE,
    EXCUSED,
    GRANTED,
    LATENCY_BUDGET_NS,
    LIVE,
    PARCEL_BEGIN,
    PARCEL_END,
    PARCEL_SENT,
    RECEIVED,
    REDO_SEQUENCE,
    RESYNC_BYTES,
    RESYNC_BYTES_PER_S,
    RESYNC_BYTES_PER_S_MAX,
    RESYNC_DUE_NS,
    RESYNC_SINCE_NS,
    RESYNCING,
    RUN_END,
    RUN_SEQUENCE,
    SENT,
    SENT_SEQUENCE,
    STATE,
    SUBMITTED_NS,
    SYNCED_COUNT,
    VERIFYING,
    WIRE_BYTES,
)  # fmt: skip

READ_BYTES = 128 << 10  # Of the journal's file at once: 60 us on the VM this was written on.
DIGEST_BYTES = 8
DIGESTS_UNDER_WAY = 16  # Digests sent and not answered: 8 MiB of volume compared per round trip.
SCRATCH = 4096  # Where in a parcel an extent is read to while its digest is made.
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
    return primary.peer[index, RESYNC_DUE_NS] <= now_ns


@kernel()
def paced(bytes_per_s, slowest_ns, budget_ns, bytes_per_s_max):
    """The rate of a resync after a write beside it took `slowest_ns`: half when that was too long, otherwise a little more."""
    if slowest_ns > budget_ns:
        return max(bytes_per_s // 2, np.int64(PACE_BYTES_PER_S_MIN))
    return min(bytes_per_s + max(bytes_per_s // 32, np.int64(PACE_BYTES_PER_S_MIN // 16)), bytes_per_s_max)


@kernel()
def keep_budget(primary, before, now_ns):
    """Bring the rate of resyncs to what the writes completed since `before` say: the oldest of them waited longest."""
    at = primary.at
    if at[LATENCY_BUDGET_NS] == 0 or at[primary_side.COMPLETED] == before:
        return
    slowest_ns = now_ns - primary.submitted_ns[(before + 1) % primary.submitted_ns.size]
    at[RESYNC_BYTES_PER_S] = paced(at[RESYNC_BYTES_PER_S], slowest_ns, at[LATENCY_BUDGET_NS], at[RESYNC_BYTES_PER_S_MAX])


@kernel()
def begin_parcel(primary, index, begin, end):
    """Have parcel[begin:end] sent next; beside writes in the foreground, the one after it waits until the rate allows it."""
    peer = primary.peer[index]
    at = primary.at
    peer[PARCEL_BEGIN], peer[PARCEL_SENT], peer[PARCEL_END] = begin, begin, end
    peer[RESYNC_BYTES] += end - begin
    now_ns = reactor.now_ns(primary.ring)
    pause_ns = np.int64((end - begin) * 1e9 / at[RESYNC_BYTES_PER_S])
    idle = at[LATENCY_BUDGET_NS] > 0 and now_ns - at[SUBMITTED_NS] > FOREGROUND_NS
    peer[RESYNC_DUE_NS] = now_ns if idle else max(peer[RESYNC_DUE_NS], now_ns) + pause_ns


@kernel()
def send_parcel(primary, index):
    """Hand what is left of the parcel to the send buffer; answers 0 or a status."""
    peer = primary.peer[index]
    while peer[PARCEL_SENT] < peer[PARCEL_END]:
        sent = reactor.send(
            primary.ring, primary.sockets[index], primary.parcel[index], peer[PARCEL_SENT],
            peer[PARCEL_END] - peer[PARCEL_SENT],
        )  # fmt: skip
        if sent == -reactor.EAGAIN or sent == -reactor.EINTR:
            return np.int64(replica.OK)
        if sent < 0:
            return np.int64(replica.PEER_CLOSED)
        peer[PARCEL_SENT] += sent
        peer[WIRE_BYTES] += sent
        if peer[ASKED_NS] == 0:
            peer[ASKED_NS] = reactor.now_ns(primary.ring)
    return np.int64(replica.OK)


@kernel()
def begin_catching(primary, index, position, sequence, now_ns):
    """Send the log from `position`, where the record behind `sequence` begins."""
    peer = primary.peer[index]
    peer[STATE] = CATCHING
    peer[SENT] = peer[RUN_END] = position
    peer[SENT_SEQUENCE] = peer[RUN_SEQUENCE] = sequence
    peer[RESYNC_SINCE_NS], peer[RESYNC_BYTES] = now_ns, 0


@kernel()
def begin_resync(primary, index, sequence, how, now_ns):
    """Send what was written after `sequence` (BY_EXTENTS), or whatever differs (BY_DIGESTS)."""
    peer = primary.peer[index]
    journal = primary.journal
    extents = journal.last_write.size
    if sequence < journal.at[log.KNOWN_SINCE]:
        how = BY_DIGESTS
    peer[STATE] = RESYNCING
    peer[REDO_SEQUENCE] = journal.at[log.APPLIED_SEQUENCE]
    peer[DIGESTS_DROPPED] += peer[DIGESTS_SENT] - peer[DIGESTS_ANSWERED]
    peer[DIGESTS_SENT] = peer[DIGESTS_ANSWERED] = peer[VERIFYING] = 0
    peer[RESYNC_SINCE_NS], peer[RESYNC_BYTES] = now_ns, 0
    peer[CURSOR] = 0 if how == BY_DIGESTS else extents
    if how == BY_DIGESTS:
        # It holds another history: nothing of ours yet.
        peer[RECEIVED] = peer[DURABLE] = peer[SENT_SEQUENCE] = peer[RUN_SEQUENCE] = 0
        peer[GRANTED] = peer[COMMANDED] = 0
    for extent in range(extents):
        primary.wanted[index, extent] = 1 if how == BY_EXTENTS and journal.last_write[extent] > sequence else 0


@kernel()
def catch_up(primary, index, now_ns):
    """A piece of the log from the journal's file; the peer is live again once the rest is in memory. Answers 0 or a status."""
    peer = primary.peer[index]
    journal = primary.journal
    at = journal.at
    status = send_parcel(primary, index)
    if status < 0 or peer[PARCEL_SENT] < peer[PARCEL_END]:
        return status
    peer[SENT_SEQUENCE] = peer[RUN_SEQUENCE]
    if peer[SENT] >= at[log.STAGED] - at[log.STAGING] // 2:
        peer[RUN_END] = peer[SENT]
        peer[STATE] = LIVE
        return np.int64(replica.OK)
    if peer[SENT] < at[log.TAIL]:
        begin_resync(primary, index, peer[SENT_SEQUENCE], BY_EXTENTS, now_ns)
        return np.int64(replica.OK)
    if not is_within_rate(primary, index, now_ns):
        return np.int64(replica.OK)
    if not read_parcel(primary, index, np.int64(READ_BYTES)) and not read_parcel(
        primary, index, np.int64(primary.parcel.shape[1])
    ):
        return np.int64(-replica.EIO)
    return send_parcel(primary, index)


@kernel()
def read_parcel(primary, index, bytes_max):
    """Read whole records from the journal's file at SENT, and have them sent; False when there is no whole sound record."""
    peer = primary.peer[index]
    journal = primary.journal
    at = journal.at
    data, words = primary.parcel[index], primary.parcel_words[index]
    begin = peer[SENT] // BLOCK_BYTES * BLOCK_BYTES
    ring_end = (begin // at[log.CAPACITY] + 1) * at[log.CAPACITY]
    size = min(min(at[log.DURABLE], ring_end) - begin, min(bytes_max, data.size) // BLOCK_BYTES * BLOCK_BYTES)
    if size <= 0:
        return peer[SENT] >= at[log.DURABLE]  # The disk is behind: there is nothing to read yet.
    got = reactor.read_journal(
        primary.ring, at[log.JOURNAL_FD], data, np.int64(0), size, log.SUPERBLOCK_BYTES + begin % at[log.CAPACITY]
    )
    if got != size:
        return False
    start = peer[SENT] - begin
    end = start
    while end < size:
        if record.inspect(data, words, end, size - end, at[log.VOLUME]) != record.COMPLETE:
            break
        length = record.record_bytes(record.length_of(words, end))
        if end + length > size:
            break
        if record.kind_of(words, end) == record.PAD:
            if start < end:
                break
            start = end + length
        else:
            peer[RUN_SEQUENCE] = record.sequence_of(words, end)
        end += length
    if end == peer[SENT] - begin:
        return False
    peer[SENT] = peer[RUN_END] = begin + end
    if start < end:
        begin_parcel(primary, index, start, end)
    return True


@kernel()
def resync(primary, index, now_ns):
    """One piece of a resync: digests, an extent, or its end. Answers 0 or a status."""
    peer = primary.peer[index]
    journal = primary.journal
    status = send_parcel(primary, index)
    if status < 0 or peer[PARCEL_SENT] < peer[PARCEL_END] or not is_within_rate(primary, index, now_ns):
        return status
    extents = journal.last_write.size
    if peer[CURSOR] < extents and peer[DIGESTS_SENT] - peer[DIGESTS_ANSWERED] < DIGESTS_UNDER_WAY:
        status = make_digests(primary, index, np.int64(0))
        return status if status < 0 else send_parcel(primary, index)
    extent = next_wanted(primary, index)
    if extent >= 0:
        status = make_extent(primary, index, extent)
        return status if status < 0 else send_parcel(primary, index)
    if peer[CURSOR] < extents or peer[DIGESTS_SENT] > peer[DIGESTS_ANSWERED]:
        return np.int64(replica.OK)
    return end_resync(primary, index, now_ns)


@kernel()
def next_wanted(primary, index):
    """The first extent still to be sent, or -1."""
    for extent in range(primary.wanted.shape[1]):
        if primary.wanted[index, extent]:
            return np.int64(extent)
    return np.int64(-1)


@kernel()
def make_digests(primary, index, verifying):
    """The digests of the next few extents, as a parcel; answers 0 or a status."""
    peer = primary.peer[index]
    journal = primary.journal
    at = journal.at
    data, words = primary.parcel[index], primary.parcel_words[index]
    first = peer[CURSOR]
    count = min(np.int64(DIGEST_EXTENTS), journal.last_write.size - first)
    for place in range(count):
        size = extent_size(primary.at[primary_side.VOLUME_BYTES], at[log.EXTENT_BYTES], first + place)
        got = reactor.read_volume(
            primary.ring, at[log.VOLUME_FD], data, np.int64(SCRATCH), size, (first + place) * at[log.EXTENT_BYTES]
        )
        if got != size:
            return got if got < 0 else np.int64(replica.SHORT_WRITE)
        words[record.HEADER_BYTES // 8 + place] = digest(data, words, np.int64(SCRATCH), size)
    length = count * DIGEST_BYTES
    record.seal(
        data, words, np.int64(0), record.DIGEST, length, at[log.APPLIED_SEQUENCE], first, at[log.EPOCH], at[log.VOLUME],
        reactor.now_ns(primary.ring), verifying, peer[ASIDE_SENT] + 1,
    )  # fmt: skip
    peer[ASIDE_SENT] += 1
    peer[CURSOR] += count
    peer[DIGESTS_SENT] += 1
    begin_parcel(primary, index, np.int64(0), record.record_bytes(length))
    return np.int64(replica.OK)


@kernel()
def make_extent(primary, index, extent):
    """One extent as it is now, as a parcel; answers 0 or a status."""
    journal = primary.journal
    at = journal.at
    data, words = primary.parcel[index], primary.parcel_words[index]
    address = extent * at[log.EXTENT_BYTES]
    size = extent_size(primary.at[primary_side.VOLUME_BYTES], at[log.EXTENT_BYTES], extent)
    got = reactor.read_volume(primary.ring, at[log.VOLUME_FD], data, np.int64(record.HEADER_BYTES), size, address)
    if got != size:
        return got if got < 0 else np.int64(replica.SHORT_WRITE)
    record.seal(
        data, words, np.int64(0), record.EXTENT, size, at[log.APPLIED_SEQUENCE], address, at[log.EPOCH], at[log.VOLUME],
        reactor.now_ns(primary.ring), np.int64(0), primary.peer[index, ASIDE_SENT] + 1,
    )  # fmt: skip
    primary.peer[index, ASIDE_SENT] += 1
    primary.wanted[index, extent] = 0
    begin_parcel(primary, index, np.int64(0), record.record_bytes(size))
    return np.int64(replica.OK)


@kernel()
def end_resync(primary, index, now_ns):
    """All extents are sent: tell the peer from where its log goes on, or copy once more what was written meanwhile."""
    peer = primary.peer[index]
    journal = primary.journal
    at = journal.at
    redo = peer[REDO_SEQUENCE]
    begin = log.begin_of(journal, redo + 1)
    if begin < 0:
        begin_resync(primary, index, redo, BY_EXTENTS, now_ns)
        return np.int64(replica.OK)
    log_epoch = at[log.LOG_EPOCH] if redo > at[log.EPOCH_BEGIN_SEQUENCE] else at[log.PREVIOUS_EPOCH]
    record.seal(
        primary.parcel[index], primary.parcel_words[index], np.int64(0), record.SYNCED, 0, redo,
        at[log.APPLIED_SEQUENCE], at[log.EPOCH], at[log.VOLUME], now_ns, log_epoch, peer[ASIDE_SENT] + 1,
    )  # fmt: skip
    peer[ASIDE_SENT] += 1
    begin_catching(primary, index, begin, redo, now_ns)
    peer[SYNCED_COUNT] += 1
    begin_parcel(primary, index, np.int64(0), np.int64(record.HEADER_BYTES))
    return send_parcel(primary, index)


@kernel()
def verify(primary, index, now_ns):
    """One piece of an online verify of a live peer: digests, between two runs of the log. Answers 0 or a status."""
    peer = primary.peer[index]
    status = send_parcel(primary, index)
    if status < 0 or peer[PARCEL_SENT] < peer[PARCEL_END]:
        return status
    if peer[CURSOR] >= primary.journal.last_write.size:
        if peer[DIGESTS_ANSWERED] == peer[DIGESTS_SENT]:
            peer[VERIFYING] = 2  # Done; DIFFERENT tells the result.
        return np.int64(replica.OK)
    full = peer[DIGESTS_SENT] - peer[DIGESTS_ANSWERED] >= DIGESTS_UNDER_WAY
    # A digest tells of the volume as of the last write applied here: the peer must have that write before it.
    behind = peer[SENT] != peer[RUN_END] or peer[SENT_SEQUENCE] < primary.journal.at[log.APPLIED_SEQUENCE]
    if full or behind or not is_within_rate(primary, index, now_ns):
        return np.int64(replica.OK)
    status = make_digests(primary, index, np.int64(1))
    return status if status < 0 else send_parcel(primary, index)


@kernel(allocates=True)
def fall_behind(primary, index, now_ns):
    """Go on without a live peer whose link is full: it will catch up. What is left of a record half sent goes first.

    Its beginning is held no longer: a header there may have been written over. Where it ends follows from where the next begins.
    """
    peer = primary.peer[index]
    journal = primary.journal
    sequence, end = peer[SENT_SEQUENCE], peer[SENT]
    if peer[SENT] < peer[RUN_END]:
        sequence = peer[RUN_SEQUENCE]
        while journal.begins[sequence % journal.begins.size] > peer[SENT]:
            sequence -= 1
        end = peer[RUN_END] if sequence == peer[RUN_SEQUENCE] else journal.begins[(sequence + 1) % journal.begins.size]
    left = end - peer[SENT]
    start = peer[SENT] % journal.at[log.STAGING]
    primary.parcel[index, :left] = journal.data[start : start + left]
    begin_catching(primary, index, end, sequence, now_ns)
    begin_parcel(primary, index, np.int64(0), left)
    peer[EXCUSED] = 1


@kernel()
def rejoin(primary, index, now_ns):
    """Ask the peer again for what its protocol asks of it, once it is as far as the writes that have completed."""
    peer = primary.peer[index]
    reached = peer[primary_side.point_of(primary.at[primary_side.PROTOCOL])]
    if peer[EXCUSED] and peer[STATE] == LIVE and reached >= primary.at[primary_side.COMPLETED]:
        peer[EXCUSED] = 0


@kernel()
def left_bytes(primary, index):
    """About how many bytes a peer still lacks: for progress and time left."""
    peer = primary.peer[index]
    journal = primary.journal
    if peer[STATE] == CATCHING or peer[STATE] == LIVE:
        return journal.at[log.STAGED] - peer[SENT]
    if peer[STATE] == ABSENT:
        return np.int64(-1)
    wanted = np.int64(0)
    for extent in range(journal.last_write.size):
        wanted += primary.wanted[index, extent]
    return (wanted + journal.last_write.size - peer[CURSOR]) * journal.at[log.EXTENT_BYTES]
