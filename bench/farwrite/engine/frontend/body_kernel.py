"""A write's payload, from a client's inbox and socket into the log: what every door does with it.

Nothing of it has a place in the log before so much has arrived that nobody waits for the client. What stands in the inbox is
copied; the rest goes from the socket straight into the log.
"""

from __future__ import annotations

import numpy as np

from ...base.host import libc
from ...base.jit import kernel
from .. import primary_kernel as p
from .. import record_kernel as record
from . import session_kernel as sessions

DIRECT_BYTES = 32 << 10  # So much of a larger write that has arrived goes straight into the log.
BLOCK_MASK = 4095  # Where a large write is cut.


@kernel()
def piece_of(left, waiting, arrived, piece_bytes, inbox_bytes):
    """How much of a write's payload is to be taken now: 0 when more of it must arrive first.

    `left` bytes are still to be taken, of which `waiting` stand in the inbox and `arrived` more in the socket. A client that
    sends slowly gathers its payload in the inbox, and has no place in the log until so much is there.
    """
    whole = min(left, piece_bytes)
    here = waiting + arrived
    if here >= whole:
        return whole
    if here >= min(np.int64(DIRECT_BYTES), inbox_bytes):
        return here & ~np.int64(BLOCK_MASK)
    return np.int64(0)


@kernel()
def next_piece(doors, index):
    """Bytes of the session's payload that are to be taken now; MORE when others must arrive first, or HANG_UP."""
    session = doors.session[index]
    inbox_bytes, piece_bytes = np.int64(doors.inbox.shape[1]), doors.at[0].piece_bytes
    waiting = min(session.in_end - session.in_begin, session.left)
    arrived = np.int64(0)
    if waiting < min(session.left, piece_bytes):
        if session.left <= inbox_bytes // 2:
            return np.int64(sessions.MORE)  # It is soon here, and stands in the inbox then.
        arrived = libc.available(session.socket, doors.words)
        if arrived < 0:
            return np.int64(sessions.HANG_UP)
        arrived = min(arrived, session.left - waiting)
    return piece_of(session.left, waiting, arrived, piece_bytes, inbox_bytes)


@kernel()
def take_piece(doors, primary, index, size, now_ns):
    """Take the bytes that next_piece() has found into the log: the record's sequence, what reserve() refuses with, or HANG_UP."""
    session = doors.session[index]
    place = p.reserve(primary, record.WRITE, session.address, size)
    if place < 0:
        return place
    data = primary.journal.data
    done = min(session.in_end - session.in_begin, size)
    libc.copy(data, place, doors.inbox[index], session.in_begin, done)
    waited = done
    while done < size:
        got = libc.receive(session.socket, data, place + done, size - done, np.int64(libc.MSG_DONTWAIT))
        if got == -libc.EINTR:
            continue
        if got <= 0:
            return np.int64(sessions.HANG_UP)  # It was there; the connection is gone. Nothing was staged.
        done += got
    session.in_begin += waited
    sequence = p.commit(primary, place, record.WRITE, session.address, size, now_ns)
    session.address += size
    session.left -= size
    return sequence
