"""One turn of the primary's loop, and how peers come and go in it.

Peers are connected by a control thread, which leaves a request for the loop; it is taken at the next turn. A peer that is
lost is given up by the policy that was chosen, never silently.
"""

from __future__ import annotations

import numpy as np

from ..base.host import reactor
from ..base.jit import kernel
from . import journal_kernel as log
from . import primary_kernel as p
from . import replica_kernel as replica
from . import resync_kernel as resyncing


@kernel()
def lose_peer(primary, index, status):
    """A peer is gone. Answers the status that ends the loop, or 0 when the policy goes on."""
    peer = primary.peer[index]
    policy = primary.at[0].policy
    reactor.hang_up(primary.ring, primary.sockets[index])
    primary.sockets[index] = -1
    peer.state, peer.lost_status = p.ABSENT, status
    peer.lost_count += 1
    peer.sent = peer.run_end = 0
    if policy == p.SUSPEND_REPLICATION:
        peer.detached = 1
    return status if policy == p.END else np.int64(replica.OK)


@kernel()
def take_control_request(primary, index, now_ns):
    """Do what the control thread has asked for this peer, if it can be done now."""
    control_request = primary.control_requests[index]
    request = control_request.request
    if request == p.NOTHING:
        return
    peer = primary.peer[index]
    if request == p.ADOPT:
        if peer.state != p.ABSENT:
            lose_peer(primary, index, np.int64(replica.PEER_CLOSED))  # It has come back before we saw it go.
        if not reactor.is_forgotten(primary.ring, index):
            return
        sequence = control_request.sequence
        p.begin_peer(primary, index, control_request.socket, sequence, now_ns)
        begin = log.begin_of(primary.journal, sequence + 1)
        if control_request.how == p.BY_LOG and begin >= 0:
            resyncing.begin_catching(primary, index, begin, sequence, now_ns)
        else:
            how = p.BY_DIGESTS if control_request.how == p.BY_DIGESTS else p.BY_EXTENTS
            resyncing.begin_resync(primary, index, sequence, how, now_ns)
    elif request == p.DETACH:
        peer.detached = 1
    elif request == p.DROP and peer.state != p.ABSENT:
        lose_peer(primary, index, np.int64(replica.PEER_CLOSED))
    elif request == p.VACATE:
        if peer.state != p.ABSENT:
            lose_peer(primary, index, np.int64(replica.PEER_CLOSED))
        if not reactor.is_forgotten(primary.ring, index):
            return
        primary.peer[index] = primary.no_peer[0]  # Nothing that this replica has acknowledged is the next one's.
        peer.detached = p.NOT_YET
    elif request == p.VERIFY and peer.state == p.LIVE and peer.verifying != 1:  # One under way answers as well.
        peer.verifying, peer.cursor, peer.different = 1, 0, 0
        peer.digests_sent = peer.digests_answered = 0
        peer.resync_since_ns, peer.resync_bytes = now_ns, 0
    control_request.request = p.NOTHING


@kernel()
def send_to_peer(primary, index, now_ns):
    """Send a peer what it is due, according to its state; answers 0 or a status."""
    peer = primary.peer[index]
    journal = primary.journal
    if peer.state == p.CATCHING:
        return resyncing.catch_up(primary, index, now_ns)
    if peer.state == p.RESYNCING:
        return resyncing.resync(primary, index, now_ns)
    if peer.buffer_sent < peer.buffer_end or peer.verifying == 1:
        status = resyncing.verify(primary, index, now_ns)
        if status < 0 or peer.buffer_sent < peer.buffer_end:
            return status
    status = p.send_staged(primary, index)
    if status == replica.OK and primary.at[0].protocol == p.A and primary.at[0].congestion == p.PULL_AHEAD:
        if peer.sent < peer.run_end:
            peer.detached = 1  # Its send buffer is full: the writer goes on, and the rest is sent when there is room.
        if journal.at[0].staged - peer.sent > journal.at[0].staging_bytes // 2:
            resyncing.fall_behind(primary, index, now_ns)
    return status


@kernel()
def is_busy(primary, index):
    """Whether a peer is owed work that no event will announce."""
    peer = primary.peer[index]
    return peer.state == p.CATCHING or peer.state == p.RESYNCING or peer.verifying == 1


@kernel()
def serve_peers(primary, now_ns):
    """Send every peer what it is due; answers 0 or the status that ends the loop."""
    journal = primary.journal
    held = log.EVERYTHING_SENT
    for index in range(primary.sockets.size):
        if primary.control_requests[index].request != p.NOTHING:
            take_control_request(primary, index, now_ns)
        if primary.peer[index].state == p.ABSENT:
            continue
        status = send_to_peer(primary, index, now_ns)
        if status < 0:
            status = lose_peer(primary, index, status)
            if status < 0:
                return status
        elif primary.peer[index].state == p.LIVE:
            held = min(held, primary.peer[index].sent)
    journal.at[0].held = held
    return np.int64(replica.OK)


@kernel()
def hear_peers(primary, ready, now_ns):
    """Hear whoever has something to say, and give up whoever has been silent too long; answers 0 or a status."""
    for index in range(primary.sockets.size):
        if primary.peer[index].state == p.ABSENT:
            reactor.forget_socket(primary.ring, index)
            continue
        status = np.int64(replica.OK)
        if ready & (reactor.READABLE << index):
            status = p.hear(primary, index, now_ns)
        if status == replica.OK:
            status = p.keep_alive(primary, index, now_ns)
        if status < 0:
            status = lose_peer(primary, index, status)
            if status < 0:
                return status
    return np.int64(replica.OK)


@kernel()
def note_exposed(primary, before):
    """Count the writes that completed while a peer was detached: they are in fewer places than was asked."""
    at = primary.at[0]
    for index in range(primary.sockets.size):
        if primary.peer[index].detached == p.DETACHED:
            at.exposed += at.completed - before
            return


@kernel()
def progress(primary, deadline_ns):
    """One turn: send, flush, apply, sleep until something happens or the deadline, hear acks. Answers 0 or a status."""
    at = primary.at[0]
    journal = primary.journal
    ring = primary.ring
    peered = at.protocol != p.LOCAL
    now_ns = reactor.now_ns(ring)
    if primary.marker_request[0].request != p.NOTHING:
        p.take_marker_request(primary, now_ns)
    if peered:
        status = serve_peers(primary, now_ns)
        if status < 0:
            return status
    replica.begin_flush(journal, ring)
    tail = journal.at[0].tail
    status = replica.apply(journal, ring, np.int64(replica.APPLY_BYTES))
    if status < 0:
        return status
    status = replica.checkpoint(journal, ring)
    if status < 0:
        return status

    now_ns = reactor.now_ns(ring)
    timeout_ns = min(max(deadline_ns - now_ns, 0), at.peer_timeout_ns // 8)
    # A write may be waiting for the room we have just made, or can still make: nothing else would wake us for it.
    if journal.at[0].tail != tail or replica.is_busy(journal, ring):
        timeout_ns = np.int64(0)
    want_writable = np.int64(0)
    for index in range(primary.sockets.size):
        peer = primary.peer[index]
        if peer.state == p.ABSENT:
            continue
        if peer.sent < peer.run_end or peer.buffer_sent < peer.buffer_end:
            want_writable |= np.int64(1) << index
        elif is_busy(primary, index):
            timeout_ns = min(timeout_ns, np.int64(200_000))
    ready = reactor.wait(ring, primary.sockets, want_writable, timeout_ns)
    if ready < 0:
        return ready
    at.wait_begin_ns = now_ns
    now_ns = reactor.now_ns(ring)
    at.woken_ns = now_ns
    if peered:
        status = hear_peers(primary, ready, now_ns)
        if status < 0:
            return status
    status = replica.end_flush(journal, ring)
    if status < 0:
        return status
    before = at.completed
    p.note_completable(primary)
    if peered:
        p.note_lag(primary, now_ns)
        note_exposed(primary, before)
        resyncing.keep_budget(primary, before, now_ns)
        for index in range(primary.sockets.size):
            resyncing.rejoin(primary, index, now_ns)
    return np.int64(replica.OK)
