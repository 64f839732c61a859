"""NBD after its negotiation: requests in, answers out (doc/proto.md, "Transmission phase").

`decide` is the pure part: what a request's header asks for, held against the export, and the error that it gets. The rest moves
bytes. A write's payload goes into the log as soon as so much of it has arrived that nobody waits for the client: from the inbox
when it is small, from the socket straight into the log when it is large, cut into records. Its answer is owed from the last of
them on. Reads are answered at once; a large one is streamed. Where structured replies were negotiated holes are sent as holes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...base.jit import kernel
from .. import primary_kernel as p
from .. import record_kernel as record
from .. import snapshot_kernel as snapshot
from . import body_kernel as body
from . import nbd
from . import session_kernel as sessions

SMALL_READ_BYTES = 16 << 10  # Up to here a read is laid into the outbox, so that many go in one send.
EXTENTS_MAX = 64  # In one answer to BLOCK_STATUS, of each meta context.
PARTS_MAX = 4096  # Looked at for one: a snapshot's neighbours may be alike and lie in different places.
HOLE_BYTES_MIN = 32 << 10  # A shorter hole is sent as zeros: both sides have more work with a chunk than with these.
RUN_BYTES_MAX = 4 << 20  # So much of a read is looked through for holes at once.
ZEROS_A_TURN = 1 << 20  # Of WRITE_ZEROES that must not leave holes, in one turn of the loop.

TAKEN = 2  # What the parts of serve() answer when it may go on.
BAD_MAGIC = -1  # What decide() answers when nothing behind it can be believed.

READ, WRITE, DISC, FLUSH, TRIM = nbd.READ, nbd.WRITE, nbd.DISC, nbd.FLUSH, nbd.TRIM
CACHE, WRITE_ZEROES, BLOCK_STATUS = nbd.CACHE, nbd.WRITE_ZEROES, nbd.BLOCK_STATUS


class Asked(NamedTuple):
    """A request's header."""

    magic: int
    flags: int
    command: int
    tag: int
    address: int
    length: int


@kernel()
def number_at(data, start, size):
    """The big-endian number of `size` bytes at `start`; one of eight bytes may come out negative."""
    value = np.int64(0)
    for byte in range(size):
        value = (value << 8) | np.int64(data[start + byte])
    return value


@kernel()
def put_number(data, start, size, value):
    """Write a big-endian number of `size` bytes at `start`."""
    for byte in range(size):
        data[start + byte] = np.uint8((value >> (8 * (size - 1 - byte))) & 0xFF)


@kernel()
def asked_of(data, start):
    """The request whose header begins at `start`."""
    return Asked(
        number_at(data, start, 4), number_at(data, start + 4, 2), number_at(data, start + 6, 2), number_at(data, start + 8, 8),
        number_at(data, start + 16, 8), number_at(data, start + 24, 4),
    )  # fmt: skip


@kernel()
def allowed_flags(command, session_flags):
    """Which flags a command may carry: FUA any, for it changes nothing here."""
    allowed = np.int64(nbd.FUA)
    if command == WRITE_ZEROES:
        allowed |= nbd.NO_HOLE | nbd.FAST_ZERO
    elif command == READ and session_flags & sessions.STRUCTURED:
        allowed |= nbd.DF
    elif command == BLOCK_STATUS:
        allowed |= nbd.REQ_ONE
    return allowed


@kernel()
def decide(asked, session_flags, size_bytes, block_bytes, is_shutting_down):
    """0 when this request is to be done, the error that it is answered with, or BAD_MAGIC."""
    if asked.magic != nbd.REQUEST_MAGIC:
        return np.int64(BAD_MAGIC)
    command, length = asked.command, asked.length
    if command == DISC:
        return np.int64(0)
    if is_shutting_down:
        return np.int64(nbd.ESHUTDOWN)
    if command > BLOCK_STATUS or asked.flags & ~allowed_flags(command, session_flags):
        return np.int64(nbd.EINVAL)
    if command == FLUSH:
        return np.int64(0)
    changes = command in (WRITE, TRIM, WRITE_ZEROES)
    if changes and session_flags & sessions.READ_ONLY:
        return np.int64(nbd.EPERM)
    if command == BLOCK_STATUS and (not session_flags & (sessions.ALLOCATION | sessions.CHANGED) or length == 0):
        return np.int64(nbd.EINVAL)
    if (asked.address | length) & (block_bytes - 1):
        return np.int64(nbd.EINVAL)
    if command in (READ, WRITE) and length > nbd.PAYLOAD_BYTES_MAX:
        return np.int64(nbd.EINVAL)
    if not record.lies_in(asked.address, length, np.int64(0), size_bytes):
        return np.int64(nbd.ENOSPC if command in (WRITE, WRITE_ZEROES) else nbd.EINVAL)
    wants_both = nbd.NO_HOLE | nbd.FAST_ZERO
    if command == WRITE_ZEROES and asked.flags & wants_both == wants_both:
        return np.int64(nbd.ENOTSUP)  # Zeros without a hole are written like any other bytes.
    return np.int64(0)


@kernel()
def lay_simple(doors, index, error, tag):
    """Lay a simple reply without data."""
    session = doors.session[index]
    outbox, at = doors.outbox[index], session.out_end
    put_number(outbox, at, 4, np.int64(nbd.SIMPLE_REPLY_MAGIC))
    put_number(outbox, at + 4, 4, error)
    put_number(outbox, at + 8, 8, tag)
    session.out_end += nbd.SIMPLE_REPLY_BYTES


@kernel()
def lay_chunk(doors, index, flags, kind, tag, size):
    """Lay the header of a structured reply's chunk; its payload is laid behind it."""
    session = doors.session[index]
    outbox, at = doors.outbox[index], session.out_end
    put_number(outbox, at, 4, np.int64(nbd.STRUCTURED_REPLY_MAGIC))
    put_number(outbox, at + 4, 2, np.int64(flags))
    put_number(outbox, at + 6, 2, np.int64(kind))
    put_number(outbox, at + 8, 8, tag)
    put_number(outbox, at + 16, 4, np.int64(size))
    session.out_end += nbd.CHUNK_BYTES


@kernel()
def lay_number(doors, index, size, value):
    """Lay one number."""
    session = doors.session[index]
    put_number(doors.outbox[index], session.out_end, size, value)
    session.out_end += size


@kernel()
def lay_answer(doors, index, error, tag, command):
    """Lay the answer to a request that carries no data: success, or the error in the form that its command wants."""
    if error != 0:
        doors.counters[0].errors += 1
    structured = doors.session[index].flags & sessions.STRUCTURED and command in (READ, BLOCK_STATUS)
    if not structured:
        lay_simple(doors, index, np.int64(error), tag)
    elif error == 0:
        lay_chunk(doors, index, nbd.CHUNK_DONE, nbd.CHUNK_NONE, tag, 0)
    else:
        lay_chunk(doors, index, nbd.CHUNK_DONE, nbd.CHUNK_ERROR, tag, 6)
        lay_number(doors, index, 4, np.int64(error))
        lay_number(doors, index, 2, np.int64(0))


@kernel()
def pay(doors, index, debt, now_ns):
    """Lay the answer to a request whose writes are complete."""
    lay_answer(doors, index, debt.answer, debt.tag, debt.command)
    if debt.command == FLUSH:
        doors.counters[0].flushes += 1
    elif debt.answer == 0:
        sessions.note_write(doors, debt, now_ns)


@kernel()
def serve(doors, primary, index, now_ns):
    """Take what stands in the session's inbox, request by request: MORE, BLOCKED or HANG_UP."""
    session = doors.session[index]
    while True:
        if session.state == sessions.STREAM or session.state == sessions.STREAMED:
            return np.int64(sessions.BLOCKED)
        if session.state == sessions.LEAVING:
            session.in_begin = session.in_end
            return np.int64(sessions.MORE)
        if sessions.outbox_room(doors, index) < 2 * sessions.ANSWER_BYTES_MAX:
            return np.int64(sessions.BLOCKED)
        if session.state == sessions.HEADER:
            if session.in_end - session.in_begin < nbd.REQUEST_BYTES:
                return np.int64(sessions.MORE)
            answer = take_request(doors, primary, index, now_ns)
        elif session.state == sessions.BODY:
            answer = take_body(doors, primary, index, now_ns)
        elif session.state == sessions.ZEROS:
            answer = write_zeros(doors, primary, index, now_ns)
        else:
            answer = discard(doors, index)
        if answer != TAKEN:
            return answer


@kernel()
def take_request(doors, primary, index, now_ns):
    """Do what one header asks for. It stays in the inbox when there is no room for what it asks."""
    session = doors.session[index]
    asked = asked_of(doors.inbox[index], session.in_begin)
    error = decide(asked, session.flags, session.size_bytes, session.block_bytes, doors.at[0].is_shutting_down)
    if error == BAD_MAGIC:
        return np.int64(sessions.HANG_UP)
    command, tag, address, length = asked.command, asked.tag, asked.address, asked.length
    if error == 0 and length > 0 and (command == WRITE or (command == WRITE_ZEROES and asked.flags & nbd.NO_HOLE)):
        # Of the whole request, before anything of it is taken.
        refused = p.room_refusal(primary, address, length)
        if refused == p.NO_ROOM:
            return np.int64(sessions.BLOCKED)
        if refused < 0:
            primary.journal.room.at[0].refused += 1
            error = np.int64(nbd.ENOSPC)
    if command == DISC:
        session.state = sessions.LEAVING
        session.in_begin = session.in_end
        return np.int64(TAKEN)
    if command == WRITE and length > 0:
        session.in_begin += nbd.REQUEST_BYTES
        session.state = sessions.BODY if error == 0 else sessions.DISCARD
        session.error, session.command, session.tag = error, command, tag
        session.address, session.left, session.size = address, length, length
        return np.int64(TAKEN)
    is_void = error != 0 or command == CACHE or (length == 0 and command != FLUSH)
    if is_void:
        answered = np.int64(TAKEN)
        lay_answer(doors, index, error, tag, command)
    elif command == READ:
        in_chunks = session.flags & sessions.STRUCTURED and not asked.flags & nbd.DF
        if in_chunks:
            answered = begin_chunks(doors, primary, index, tag, address, length, now_ns)
        else:
            answered = begin_read(doors, primary, index, tag, address, length, now_ns)
    elif command == BLOCK_STATUS:
        answered = lay_extents(doors, primary, index, tag, address, length, asked.flags & nbd.REQ_ONE)
    elif command == FLUSH:
        answered = flush(doors, primary, index, tag, now_ns)
    elif command == WRITE_ZEROES and asked.flags & nbd.NO_HOLE:
        session.state, session.command, session.tag = sessions.ZEROS, command, tag
        session.address, session.left, session.size = address, length, length
        answered = np.int64(TAKEN)
    else:
        answered = trim(doors, primary, index, tag, command, address, length, now_ns)
    if answered == TAKEN:
        session.in_begin += nbd.REQUEST_BYTES
    return answered


@kernel()
def flush(doors, primary, index, tag, now_ns):
    """Answer a flush once everything that was submitted before it, by anyone, is complete."""
    if not sessions.may_owe(doors, index):
        return np.int64(sessions.BLOCKED)
    sessions.owe(doors, index, p.barrier(primary), tag, np.int64(FLUSH), np.int64(0), np.int64(0), now_ns)
    return np.int64(TAKEN)


@kernel()
def trim(doors, primary, index, tag, command, address, length, now_ns):
    """Give a range back: it reads as zeros, which is what WRITE_ZEROES asks for as well."""
    if not sessions.may_owe(doors, index):
        return np.int64(sessions.BLOCKED)
    place = p.reserve(primary, record.TRIM, address, length)
    if place < 0:
        return np.int64(sessions.BLOCKED if place == p.NO_ROOM else sessions.HANG_UP)
    sequence = p.commit(primary, place, record.TRIM, address, length, now_ns)
    sessions.owe(doors, index, sequence, tag, command, np.int64(0), length, now_ns)
    return np.int64(TAKEN)


@kernel()
def finish_write(doors, index, sequence, now_ns):
    """The last record of a write is staged: its answer is owed."""
    session = doors.session[index]
    sessions.owe(doors, index, sequence, session.tag, session.command, np.int64(0), session.size, now_ns)
    session.state = sessions.HEADER


@kernel()
def write_zeros(doors, primary, index, now_ns):
    """Write zeros that must keep their room, some of them in this turn."""
    session = doors.session[index]
    end = session.left - ZEROS_A_TURN
    while session.left > 0:
        if session.left <= end or not sessions.may_owe(doors, index):
            return np.int64(sessions.BLOCKED)
        size = min(session.left, doors.at[0].piece_bytes)
        answer = p.submit_zeros(primary, session.address, size, now_ns)
        if answer == p.NO_SPACE:  # Others have taken what was there when it began.
            lay_answer(doors, index, np.int64(nbd.ENOSPC), session.tag, session.command)
            session.state = sessions.HEADER
            return np.int64(TAKEN)
        if answer != 1:
            return np.int64(sessions.BLOCKED)
        session.address += size
        session.left -= size
    finish_write(doors, index, p.barrier(primary), now_ns)
    return np.int64(TAKEN)


@kernel()
def take_body(doors, primary, index, now_ns):
    """Take a piece of a write's payload into the log, if enough of it has arrived."""
    session = doors.session[index]
    size = body.next_piece(doors, index)
    if size <= 0:
        return size
    is_last = size == session.left
    if is_last and not sessions.may_owe(doors, index):
        return np.int64(sessions.BLOCKED)
    sequence = body.take_piece(doors, primary, index, size, now_ns)
    if sequence == p.NO_SPACE:  # Others have taken what was there when its header came; the rest of it is not taken.
        session.state, session.error = sessions.DISCARD, nbd.ENOSPC
        return np.int64(TAKEN)
    if sequence < 0:
        return np.int64(sessions.BLOCKED if sequence == p.NO_ROOM else sessions.HANG_UP)
    if is_last:
        finish_write(doors, index, sequence, now_ns)
    return np.int64(TAKEN)


@kernel()
def discard(doors, index):
    """Pass over the payload of a write that is not taken; its error is answered once all of it has arrived."""
    session = doors.session[index]
    size = min(session.in_end - session.in_begin, session.left)
    session.in_begin += size
    session.left -= size
    if session.left > 0:
        return np.int64(sessions.MORE)
    lay_answer(doors, index, session.error, session.tag, session.command)
    session.state = sessions.HEADER
    return np.int64(TAKEN)


@kernel()
def begin_read(doors, primary, index, tag, address, length, now_ns):
    """Answer a read: at once when it is small, otherwise begin to stream it."""
    session = doors.session[index]
    structured = session.flags & sessions.STRUCTURED
    header = nbd.CHUNK_BYTES + 8 if structured else nbd.SIMPLE_REPLY_BYTES
    is_small = length <= SMALL_READ_BYTES
    if sessions.outbox_room(doors, index) < sessions.ANSWER_BYTES_MAX + header + (length if is_small else 0):
        return np.int64(sessions.BLOCKED)
    outbox, at = doors.outbox[index], session.out_end
    if is_small:
        got = sessions.look_up(doors, primary, index, outbox, at + header, length, address)
    else:  # The first piece is looked up here, so that a disk that refuses is answered as such.
        size = min(length, np.int64(sessions.SEND_MAX))
        got = sessions.look_up(doors, primary, index, doors.scratch, np.int64(sessions.SCRATCH_AT), size, address)
        got = length if got == size else got
    if got != length:
        lay_answer(doors, index, np.int64(nbd.EIO), tag, np.int64(READ))
        return np.int64(TAKEN)
    if structured:
        lay_data_chunk(doors, index, nbd.CHUNK_DONE, tag, address, length)
    else:
        lay_simple(doors, index, np.int64(0), tag)
    if is_small:
        session.out_end += length
        sessions.note_read(doors, length, now_ns, now_ns)
    else:
        sessions.begin_stream(doors, index, tag, np.int64(READ), address, length, now_ns)
    return np.int64(TAKEN)


@kernel()
def lay_data_chunk(doors, index, flags, tag, address, size):
    """Lay the header of a chunk of data; its bytes are laid or streamed behind it."""
    lay_chunk(doors, index, flags, nbd.CHUNK_DATA, tag, size + 8)
    lay_number(doors, index, 8, address)


@kernel()
def lay_hole_chunk(doors, index, flags, tag, address, size):
    """Lay a chunk that says: so many zeros, from this address on."""
    lay_chunk(doors, index, flags, nbd.CHUNK_HOLE, tag, 12)
    lay_number(doors, index, 8, address)
    lay_number(doors, index, 4, size)


@kernel()
def run_at(primary, address, end):
    """(where it ends, whether it is a hole) of what a read up to `end` sends in one chunk from `address` on."""
    stop, is_hole = p.extent_at(primary, address, end)
    if is_hole and (stop - address >= HOLE_BYTES_MIN or stop == end):
        return stop, True
    limit = min(np.int64(end), address + RUN_BYTES_MAX)
    while stop < limit:
        further, is_hole = p.extent_at(primary, stop, end)
        if is_hole and (further - stop >= HOLE_BYTES_MIN or further == end):
            break
        stop = further
    return stop, False


@kernel()
def begin_chunks(doors, primary, index, tag, address, length, now_ns):
    """Answer a read by chunks of data and of holes; one of a snapshot by data alone, each block held against its checksum."""
    session = doors.session[index]
    if session.snapshot != 0:
        return begin_read(doors, primary, index, tag, address, length, now_ns)
    if length <= SMALL_READ_BYTES:
        stop, is_hole = p.extent_at(primary, address, address + length)
        if not is_hole or stop < address + length:
            return begin_read(doors, primary, index, tag, address, length, now_ns)
        lay_hole_chunk(doors, index, nbd.CHUNK_DONE, tag, address, length)  # serve() has asked for the room.
        sessions.note_read(doors, length, now_ns, now_ns)
        return np.int64(TAKEN)
    session.tag, session.address, session.rest, session.size, session.asked_ns = tag, address, length, length, now_ns
    session.state, session.left = sessions.STREAMED, 0
    next_chunks(doors, primary, index, now_ns)
    return np.int64(TAKEN)


@kernel()
def next_chunks(doors, primary, index, now_ns):
    """Go on with a read that is answered by chunks: lay holes, up to data that is streamed, to the end, or to a full outbox."""
    session = doors.session[index]
    tag, size, asked_ns = session.tag, session.size, session.asked_ns
    while session.rest > 0:
        if sessions.outbox_room(doors, index) < 2 * sessions.ANSWER_BYTES_MAX:
            return  # Tried again once what is laid is sent.
        address = session.address
        stop, is_hole = run_at(primary, address, address + session.rest)
        session.rest -= stop - address
        flags = np.int64(nbd.CHUNK_DONE if session.rest == 0 else 0)
        if is_hole:
            lay_hole_chunk(doors, index, flags, tag, address, stop - address)
            session.address = stop
            continue
        first = min(stop - address, np.int64(sessions.SEND_MAX))  # Looked up here: a disk that refuses is answered as such.
        if sessions.look_up(doors, primary, index, doors.scratch, np.int64(sessions.SCRATCH_AT), first, address) != first:
            session.rest, session.state = 0, sessions.HEADER
            lay_answer(doors, index, np.int64(nbd.EIO), tag, np.int64(READ))
            return
        lay_data_chunk(doors, index, flags, tag, address, stop - address)
        sessions.begin_stream(doors, index, tag, np.int64(READ), address, stop - address, asked_ns)
        session.size = size
        return
    sessions.note_read(doors, size, asked_ns, now_ns)
    session.state = sessions.HEADER


@kernel()
def streamed(doors, primary, index, now_ns):
    """A read, or a chunk of one, was sent whole: the next request may be taken, or the next chunk follows."""
    session = doors.session[index]
    if session.rest > 0:
        next_chunks(doors, primary, index, now_ns)
        return
    sessions.note_read(doors, session.size, session.asked_ns, now_ns)
    session.state = sessions.HEADER


@kernel()
def index_in_order(primary, sequence):
    """Where the snapshot with this sequence is read from: an index of snapshot_kernel's order; -1 when it is not whole here."""
    snapshots = primary.journal.snapshots
    place = snapshot.place_of(snapshots, sequence)
    return snapshot.index_of(snapshots, place) if place >= 0 else np.int64(-1)


@kernel()
def lay_extents(doors, primary, index, tag, address, length, only_one):
    """Answer BLOCK_STATUS: for each meta context of the session the parts of the range, as many as one answer holds."""
    session = doors.session[index]
    most = np.int64(1 if only_one else EXTENTS_MAX)
    if sessions.outbox_room(doors, index) < sessions.ANSWER_BYTES_MAX + 2 * (nbd.CHUNK_BYTES + 4 + 8 * most):
        return np.int64(sessions.BLOCKED)
    has_allocation, has_changed = session.flags & sessions.ALLOCATION != 0, session.flags & sessions.CHANGED != 0
    now = index_in_order(primary, session.snapshot) if session.snapshot != 0 else primary.journal.snapshots.at[0].count
    older = index_in_order(primary, session.since) if has_changed else now
    if now < 0 or older < 0 or older > now:
        lay_answer(doors, index, np.int64(nbd.EIO), tag, np.int64(BLOCK_STATUS))
        return np.int64(TAKEN)
    if has_allocation:
        flags, number = np.int64(0 if has_changed else nbd.CHUNK_DONE), np.int64(nbd.BASE_ALLOCATION_ID)
        lay_context(doors, primary, index, tag, flags, number, address, address + length, most, now, now)
    if has_changed:
        flags, number = np.int64(nbd.CHUNK_DONE), np.int64(nbd.CHANGED_SINCE_ID)
        lay_context(doors, primary, index, tag, flags, number, address, address + length, most, older, now)
    return np.int64(TAKEN)


@kernel()
def lay_context(doors, primary, index, tag, flags, number, address, end, most, older, now):
    """Lay the parts of a range, from its beginning on, as one meta context tells them. `older`, `now`: index_in_order()."""
    header_at = doors.session[index].out_end
    lay_chunk(doors, index, flags, nbd.CHUNK_BLOCK_STATUS, tag, 0)
    lay_number(doors, index, 4, number)
    position, count, looked = address, np.int64(0), 0
    while position < end and count < most and looked < PARTS_MAX:
        stop, status = part_at(doors, primary, index, number, position, end, older, now)
        looked += 1
        while stop < end and looked < PARTS_MAX:  # Neighbours that are alike are one.
            further, status_too = part_at(doors, primary, index, number, stop, end, older, now)
            looked += 1
            if status_too != status:
                break
            stop = further
        lay_number(doors, index, 4, stop - position)
        lay_number(doors, index, 4, status)
        position = stop
        count += 1
    put_number(doors.outbox[index], header_at + 16, 4, 4 + 8 * count)


@kernel()
def part_at(doors, primary, index, number, position, end, older, now):
    """(where it ends, its status) of what begins at `position`, as the meta context of this number tells it."""
    is_volume = doors.session[index].snapshot == 0
    if number == nbd.CHANGED_SINCE_ID:
        stop, may_differ = p.changed_at(primary, position, end, older, now, is_volume)
        return stop, np.int64(nbd.STATUS_CHANGED if may_differ else 0)
    if is_volume:
        stop, is_hole = p.extent_at(primary, position, end)
    else:
        stop, is_hole = p.snapshot_extent_at(primary, position, end, now)
    return stop, np.int64(nbd.STATUS_HOLE | nbd.STATUS_ZERO if is_hole else 0)
