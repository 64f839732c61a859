"""Clients' connections as the loop sees them: a row each, what each has sent and is owed, and which writes it waits for.

What the doors of all protocols share. A client's bytes arrive in its `inbox`, of which a door takes requests; answers are laid
into its `outbox` and sent from there. A write that was taken is owed an answer once its sequence is complete: `Owed` is one such
debt, and a queue holds all of them in the order of the log, because that is the order in which writes complete. Whatever a
client does, it has this much memory and no more; when its outbox, the debts or the log are full it is not read from for a while.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...base.histogram_kernel import SLOTS
from ...base.histogram_kernel import record as tally
from ...base.host import libc
from ...base.host.libc import EPOLL_EVENT_WORDS, lazy_bytes
from ...base.jit import kernel
from ...base.row import Row, i64, rows_of
from .. import primary_kernel as p
from .. import snapshot_kernel as snapshot
from . import iscsi_state

SESSIONS_MAX = 1024
INBOX_BYTES = 64 << 10  # What is larger goes from the socket straight into the log, once so much of it is there.
OUTBOX_BYTES = 64 << 10  # Larger reads are sent from memory that all share.
SCRATCH_BYTES = 1 << 20  # A read is looked up and sent by pieces of so much at most.
SCRATCH_AT = 4096  # Where they begin: a reply's header goes in front.
OWED_MAX = 1 << 16  # Requests of all sessions that wait for a write to complete.
OWED_TO_ONE_MAX = 256  # And of one session.
ANSWER_BYTES_MAX = 64  # Room in the outbox that is kept for each of these: no answer to a write is larger.
MAIL_MAX = 256  # Connections that were handed over and not yet taken by the loop.
LANES, LANE_BYTES = 32, 64 << 10  # Requests under way with the Python thread (`ask`), one of a session.

FREE, NBD, ISCSI = 0, 1, 2  # Kinds of session.
AWAITS_ROOM, NEXT_TURN = 1, 2  # Why a session is not read from, though requests may stand in its inbox.

# Flags of a session.
READ_ONLY = 1 << 0
STRUCTURED = 1 << 1  # NBD: structured replies were negotiated
ALLOCATION = 1 << 2  # NBD: and base:allocation, under nbd.BASE_ALLOCATION_ID
INNER = 1 << 3  # a door's own, behind a client's connection: not counted as a client
CHANGED = 1 << 4  # NBD: and nbd.CHANGED_SINCE, since the snapshot `since`

# What a session's parser is doing.
HEADER, BODY, ZEROS, DISCARD, STREAM, STREAMED, LEAVING = range(7)

# What a door's `serve` answers: MORE bytes are to be received; BLOCKED: there is no room; HANG_UP: the connection is to end.
MORE, BLOCKED, HANG_UP = 0, 1, -1

MSG_MORE = 0x8000  # send(2): more follows at once, so a segment is not sent half full.
SENT_A_TURN = 1 << 20  # Of one client's read, before the next client has its turn.
SEND_MAX = 256 << 10  # Looked up for one send at most: about what a socket takes; the rest of it would be looked up again.
UNREAD_BYTES_MAX = 4 << 20  # About what the kernel lets a socket hold.
WAKE_MARK = 0x7FFFFFFF  # What epoll answers for the wake-up, in place of a session's index.
STALL_NS = 300_000_000_000  # A client that neither takes its answer nor goes on with its request for so long is hung up on.

NO_LANE, ASKED, ANSWERED = 0, 1, 2  # Lane.state


class Session(Row):
    """One client's connection. A row is used again; its generation tells whose it is."""

    socket = i64("descriptor of the connection, which the loop closes; -1 without one")
    generation = i64("counts its connections and their ends: no answer to an earlier one goes out on a later one")
    kind = i64("FREE, NBD or ISCSI")
    flags = i64("READ_ONLY, STRUCTURED, ALLOCATION, INNER, CHANGED; and what its kind has besides")
    number = i64("of the handover: Frontend.adopt counts them from 1")
    size_bytes = i64("bytes of the export: what lies behind is beyond its end")
    block_bytes = i64("requests begin and end at multiples of this; a power of two, 1: anywhere")
    state = i64(
        "HEADER: between requests; BODY: the payload of a write comes; ZEROS: zeros are being written; DISCARD: payload comes "
        "that is not taken; STREAM: a read is being sent; STREAMED: it was; LEAVING: nothing is taken any more, and it ends once "
        "nothing is owed"
    )
    in_begin = i64("bytes into the inbox: everything before it was taken")
    in_end = i64("bytes into the inbox: where what has arrived ends")
    out_begin = i64("bytes into the outbox: everything before it was handed to the socket")
    out_end = i64("bytes into the outbox: where what is laid ends")
    owed = i64("requests that wait for a write to complete")
    wanted = i64("epoll events that are asked for")
    blocked = i64("it is not read from: AWAITS_ROOM, until there is some again; NEXT_TURN, which begins at once")
    command = i64("BODY, ZEROS, DISCARD, STREAM: what it belongs to, in the protocol's numbers")
    tag = i64("BODY, ZEROS, DISCARD, STREAM: the request's name, as the client gave it")
    address = i64("BODY, ZEROS, STREAM: byte offset in the volume of what comes next")
    left = i64("BODY, ZEROS, DISCARD, STREAM: bytes of it that are still to come, or to be sent")
    error = i64("DISCARD: what is answered once all has arrived; 0: nothing")
    asked_ns = i64("ns, CLOCK_MONOTONIC: STREAM: when the read's last byte arrived")
    last_heard_ns = i64("ns, CLOCK_MONOTONIC: when anything arrived, or was taken by the socket, last")
    before = i64("STREAM: bytes of the outbox that go in front of it; what is laid meanwhile goes behind it")
    size = i64("BODY, ZEROS, STREAM: bytes of the whole request")
    snapshot = i64("sequence of the snapshot that is its export; 0: the volume")
    since = i64("CHANGED: sequence of the older snapshot")
    rest = i64("NBD, STREAM, STREAMED: bytes of the read that come behind those that are being sent")
    lane = i64("lane that its request is in, and 1; 0: none; while it is in one nothing further is taken")


class Owed(Row):
    """A request that is answered once a write is complete."""

    sequence = i64("of that write")
    session = i64("index of the session")
    generation = i64("of the session when it asked")
    tag = i64("the request's name, as the client gave it")
    command = i64("the request, in the protocol's numbers")
    answer = i64("what is answered then, in the protocol's numbers; 0: success")
    size = i64("bytes that it writes; 0: it is no write")
    asked_ns = i64("ns, CLOCK_MONOTONIC: when its last byte had arrived")


class Mail(Row):
    """A connection that is handed over to the loop."""

    socket = i64("descriptor; the loop's from now on")
    kind = i64("NBD or ISCSI")
    flags = i64("of the session")
    number = i64("of this handover")
    size_bytes = i64("bytes of the export")
    block_bytes = i64("of the session")
    snapshot = i64("of the session")
    since = i64("of the session")


class Lane(Row):
    """A request with the Python thread, and its answer."""

    state = i64("NO_LANE, ASKED or ANSWERED; written last, by whoever hands over")
    session = i64("index of the session")
    generation = i64("of the session when it asked")
    number = i64("of the session's handover")
    size = i64("bytes of the request, then of the answer; -1: the connection is to end")


class Counters(Row):
    """What a frontend has done. Others may read it while the loop runs: on a board, in shared memory."""

    sessions = i64("connections that are served now, the doors' own among them")
    clients = i64("connections of clients among them")
    adopted = i64("connections that were ever served")
    refused = i64("connections that were closed because there was no place for them")
    writes = i64("writes, trims and write-zeroes that were answered with success")
    reads = i64("reads that were handed over whole")
    flushes = i64("flushes that were answered")
    bytes_written = i64("bytes of these writes")
    bytes_read = i64("bytes of these reads")
    errors = i64("requests that were answered with an error")
    hung_up = i64("connections that were ended because of what they sent")
    owed = i64("requests that wait for a write to complete")
    blocked = i64("times a session was not read from because there was no room")


class Facing(Row):
    """What the loop knows of all its clients together."""

    epoll = i64("descriptor: every client's connection, and the wake-up")
    wake = i64("descriptor of an eventfd: Python has something for the loop")
    lane_wake = i64("descriptor of an eventfd: the loop has something for the Python thread")
    mail_read = i64("mails taken, ever")
    mail_written = i64("mails put, ever")
    owed_begin = i64("debts paid or dropped, ever")
    owed_end = i64("debts made, ever")
    is_taking = i64("1: requests are taken; 0: what was taken completes, and nothing else is looked at")
    is_shutting_down = i64("1: requests are answered with the protocol's word for that")
    returns = i64("1: run() is to return at once")
    turn = i64("turns so far: who is served first goes round by it")
    live = i64("index behind the last session that is used")
    piece_bytes = i64("the largest record that a write is cut into")
    lanes_asked = i64("lanes that are ASKED or ANSWERED")
    failed = i64("status that ends the primary: what the disk has answered while a client was served; 0: none")
    stall_ns = i64("ns after which a client that is in the middle of something and does not go on is hung up on")
    swept_ns = i64("ns, CLOCK_MONOTONIC: when such clients were looked for last")


class Doors(NamedTuple):
    """All that the loop has of its clients."""

    at: np.ndarray  # Facing, one
    session: np.ndarray  # Session, by session
    inbox: np.ndarray  # uint8, session x INBOX_BYTES
    outbox: np.ndarray  # uint8, session x OUTBOX_BYTES
    owed: np.ndarray  # Owed, by debt modulo its size
    mail: np.ndarray  # Mail, by mail modulo its size
    lane: np.ndarray  # Lane, by lane
    lane_bytes: np.ndarray  # uint8, lane x LANE_BYTES
    scratch: np.ndarray  # uint8: headers, then what is read of the volume, for whoever is served
    events: np.ndarray  # int32: struct epoll_event by session, the wake-up, and one that epoll_ctl is asked with
    words: np.ndarray  # int64: small things that system calls want an address of
    counters: np.ndarray  # Counters, one
    writes_ns: np.ndarray  # int64 histogram: from a write's last byte until its reply was handed over
    reads_ns: np.ndarray  # int64 histogram: the same of reads
    wire: np.ndarray  # iscsi_state.Wire, by session
    task: np.ndarray  # iscsi_state.Task, session x task
    gate: np.ndarray  # int64 by slot: not 0: the Python session is to see every command


def doors_state(
    epoll: int, wake: int, lane_wake: int, sessions: int = SESSIONS_MAX, inbox_bytes: int = INBOX_BYTES,
    outbox_bytes: int = OUTBOX_BYTES, owed: int = OWED_MAX, counters: np.ndarray | None = None,
    writes_ns: np.ndarray | None = None, reads_ns: np.ndarray | None = None,
) -> Doors:  # fmt: skip
    """Doors without clients. Counters and histograms may lie in memory that others share."""
    made = Doors(
        at=rows_of(Facing),
        session=rows_of(Session, sessions),
        inbox=lazy_bytes(sessions, inbox_bytes),
        outbox=lazy_bytes(sessions, outbox_bytes),
        owed=rows_of(Owed, owed),
        mail=rows_of(Mail, MAIL_MAX),
        lane=rows_of(Lane, LANES),
        lane_bytes=lazy_bytes(LANES, LANE_BYTES),
        scratch=lazy_bytes(1, SCRATCH_AT + SCRATCH_BYTES)[0],
        events=np.zeros(EPOLL_EVENT_WORDS * (sessions + 2), np.int32),
        words=np.zeros(8, np.int64),
        counters=rows_of(Counters) if counters is None else counters,
        writes_ns=np.zeros(SLOTS, np.int64) if writes_ns is None else writes_ns,
        reads_ns=np.zeros(SLOTS, np.int64) if reads_ns is None else reads_ns,
        wire=rows_of(iscsi_state.Wire, sessions),
        task=rows_of(iscsi_state.Task, (sessions, iscsi_state.TASKS)),
        gate=np.ones(iscsi_state.SLOTS, np.int64),
    )
    at = made.at[0]
    at.epoll, at.wake, at.lane_wake, at.stall_ns = epoll, wake, lane_wake, STALL_NS
    made.session["socket"] = -1
    return made


@kernel()
def ask_events(doors, index, wanted):
    """Have epoll tell of these events of a session's socket, and of its end; 0 or -errno."""
    session = doors.session[index]
    wanted |= libc.EPOLLRDHUP
    if session.wanted == wanted:
        return np.int64(0)
    operation = libc.EPOLL_CTL_ADD if session.wanted == 0 else libc.EPOLL_CTL_MOD
    session.wanted = wanted
    last = doors.events.size - EPOLL_EVENT_WORDS
    return libc.epoll_control(doors.at[0].epoll, operation, session.socket, wanted, index, doors.events[last:])


@kernel()
def begin(doors, mail, now_ns):
    """Give a connection a session; its index, or -1 when there is no place or no way to wait for it: it is closed then."""
    for index in range(doors.session.size):
        session = doors.session[index]
        if session.kind != FREE:
            continue
        session.generation += 1
        session.socket, session.kind, session.flags, session.number = mail.socket, mail.kind, mail.flags, mail.number
        session.size_bytes, session.block_bytes = mail.size_bytes, mail.block_bytes
        session.snapshot, session.since = mail.snapshot, mail.since
        session.state = HEADER
        session.in_begin = session.in_end = session.out_begin = session.out_end = session.before = 0
        session.owed = session.blocked = session.wanted = session.left = session.rest = session.error = session.lane = 0
        session.last_heard_ns = now_ns
        doors.at[0].live = max(doors.at[0].live, index + 1)
        doors.counters[0].sessions += 1
        doors.counters[0].clients += 0 if session.flags & INNER else 1
        doors.counters[0].adopted += 1
        if ask_events(doors, np.int64(index), np.int64(libc.EPOLLIN)) < 0:
            end(doors, np.int64(index))
            return np.int64(-1)
        return np.int64(index)
    libc.close(mail.socket)
    return np.int64(-1)


@kernel()
def part(doors, index):
    """The other row of an iSCSI session sends what is laid for it and ends as well."""
    wire = doors.wire[index]
    other = wire.partner - 1
    wire.partner = wire.number = 0
    if other >= 0 and doors.session[other].generation == wire.partner_generation:
        doors.session[other].state = LEAVING
        doors.session[other].blocked = NEXT_TURN


@kernel()
def drop_unread(doors, index):
    """Read away what a client that has hung up had said last. Closing a socket over unread bytes resets the connection, unix ones
    too: one that said DISC and waits for our end would take that for an error. No more than a socket holds."""
    inbox = doors.inbox[index]
    for _ in range(UNREAD_BYTES_MAX // INBOX_BYTES):
        if libc.receive(doors.session[index].socket, inbox, np.int64(0), np.int64(inbox.size), np.int64(libc.MSG_DONTWAIT)) <= 0:
            return


@kernel()
def end(doors, index):
    """A connection ends: what it has sent and was not taken is forgotten, and what it is owed is never answered."""
    session = doors.session[index]
    if session.kind == FREE:
        return
    last = doors.events.size - EPOLL_EVENT_WORDS
    libc.epoll_control(
        doors.at[0].epoll, libc.EPOLL_CTL_DEL, session.socket, np.int64(0), index, doors.events[last:]
    )  # Closing does not take it out while a process that was forked meanwhile holds the connection too.
    libc.shutdown(session.socket)
    libc.close(session.socket)
    session.kind, session.socket = FREE, -1
    session.generation += 1
    part(doors, index)
    session.owed = session.blocked = session.lane = 0
    session.in_begin = session.in_end = session.out_begin = session.out_end = 0
    doors.counters[0].sessions -= 1
    doors.counters[0].clients -= 0 if session.flags & INNER else 1
    live = doors.at[0].live
    while live > 0 and doors.session[live - 1].kind == FREE:
        live -= 1
    doors.at[0].live = live


@kernel()
def outbox_room(doors, index):
    """Bytes that may be laid into a session's outbox, beside what is kept for the answers it is owed."""
    session = doors.session[index]
    if session.out_begin == session.out_end:
        session.out_begin = session.out_end = 0
    kept = session.owed * ANSWER_BYTES_MAX
    if session.out_begin > 0 and session.out_end + kept + ANSWER_BYTES_MAX > doors.outbox.shape[1] // 2:
        outbox = doors.outbox[index]
        size = session.out_end - session.out_begin
        for byte in range(size):
            outbox[byte] = outbox[session.out_begin + byte]
        session.out_begin, session.out_end = 0, size
    return doors.outbox.shape[1] - session.out_end - kept


@kernel()
def may_owe(doors, index):
    """Whether one request more of this session may wait for a write: there is a place for it, and room for its answer."""
    at = doors.at[0]
    if at.owed_end - at.owed_begin >= doors.owed.size or doors.session[index].owed >= OWED_TO_ONE_MAX:
        return False
    return outbox_room(doors, index) >= 2 * ANSWER_BYTES_MAX


@kernel()
def owe(doors, index, sequence, tag, command, answer, size, asked_ns):
    """Answer a request of this session once everything up to `sequence` is complete. The caller has asked may_owe()."""
    at, session = doors.at[0], doors.session[index]
    debt = doors.owed[at.owed_end % doors.owed.size]
    debt.sequence, debt.session, debt.generation = sequence, index, session.generation
    debt.tag, debt.command, debt.answer, debt.size, debt.asked_ns = tag, command, answer, size, asked_ns
    at.owed_end += 1
    session.owed += 1


@kernel()
def lay(doors, index, data, start, size):
    """Lay an answer of data[start:start + size] into the outbox; the caller has asked outbox_room()."""
    session = doors.session[index]
    assert size <= doors.outbox.shape[1] - session.out_end
    libc.copy(doors.outbox[index], session.out_end, data, start, size)
    session.out_end += size


@kernel()
def make_inbox_room(doors, index):
    """Move what was not taken to the inbox's beginning; answers the bytes that may be received behind it."""
    session = doors.session[index]
    if session.in_begin > 0:
        inbox = doors.inbox[index]
        size = session.in_end - session.in_begin
        for byte in range(size):
            inbox[byte] = inbox[session.in_begin + byte]
        session.in_begin, session.in_end = 0, size
    return doors.inbox.shape[1] - session.in_end


@kernel()
def begin_stream(doors, index, tag, command, address, size, asked_ns):
    """Send so many bytes of the volume behind what is laid in the outbox, their header last; take nothing meanwhile."""
    session = doors.session[index]
    session.state, session.before = STREAM, session.out_end - session.out_begin
    session.tag, session.command, session.address, session.left = tag, command, address, size
    session.size, session.asked_ns = size, asked_ns


@kernel()
def send_outbox(doors, index, size, flags):
    """Send so many bytes of the outbox at most: 1 once they are gone, 0 when the socket is full, or HANG_UP."""
    session = doors.session[index]
    while size > 0:
        sent = libc.send(session.socket, doors.outbox[index], session.out_begin, size, np.int64(libc.MSG_DONTWAIT | flags))
        if sent == -libc.EINTR:
            continue
        if sent == -libc.EAGAIN:
            return np.int64(0)
        if sent <= 0:
            return np.int64(HANG_UP)
        session.out_begin += sent
        session.before -= min(session.before, sent)
        size -= sent
    return np.int64(1)


@kernel()
def look_up(doors, primary, index, data, start, size, address):
    """Bytes read of the volume as the completed writes have left it, or of the session's snapshot, or -errno.

    A volume that cannot be written ends the primary.
    """
    if doors.session[index].snapshot != 0:
        return snapshot.read_snapshot(primary.journal, primary.ring, data, start, size, address, doors.session[index].snapshot)
    status = p.apply_all(primary)
    if status < 0:
        doors.at[0].failed = status
        return status
    return p.read_up_to(primary, data, start, size, address, primary.journal.at[0].durable)


@kernel()
def send_stream(doors, primary, index):
    """Send of the read that is under way what the socket takes: 1 once all is gone, 0 when the socket is full, or HANG_UP.

    What the socket did not take is looked up again later: a client that stops reading holds no memory for what it has asked.
    """
    session = doors.session[index]
    turn_ends = session.left - SENT_A_TURN
    while session.left > 0:
        if session.left <= turn_ends:
            return np.int64(0)  # Others have their turn; epoll tells at once that the socket takes more.
        size = min(session.left, np.int64(SEND_MAX))
        if look_up(doors, primary, index, doors.scratch, np.int64(SCRATCH_AT), size, session.address) != size:
            return np.int64(HANG_UP)  # Its header has promised these bytes.
        sent = libc.send(session.socket, doors.scratch, np.int64(SCRATCH_AT), size, np.int64(libc.MSG_DONTWAIT))
        if sent == -libc.EAGAIN or sent == -libc.EINTR:
            return np.int64(0)
        if sent <= 0:
            return np.int64(HANG_UP)
        session.address += sent
        session.left -= sent
        if sent < size:
            return np.int64(0)
    return np.int64(1)


@kernel()
def send_out(doors, primary, index, now_ns):
    """Send a session what it is to be sent: 1 when nothing is left, 0 when its socket is full, or HANG_UP.

    A read that is sent whole leaves the session STREAMED; what was laid behind it is sent by the next call.
    """
    session = doors.session[index]
    if session.state == STREAM:
        before = session.out_begin
        answer = send_outbox(doors, index, session.before, MSG_MORE)
        left = session.left
        if answer == 1:
            answer = send_stream(doors, primary, index)
        if session.out_begin != before or session.left != left:
            session.last_heard_ns = now_ns
        if answer == 1:
            session.state = STREAMED
        return answer
    if session.out_begin == session.out_end:
        return np.int64(1)
    before = session.out_begin
    answer = send_outbox(doors, index, session.out_end - session.out_begin, 0)
    if session.out_begin != before:
        session.last_heard_ns = now_ns
    return answer


@kernel()
def note_write(doors, debt, now_ns):
    """Count a write that is answered with success."""
    counters = doors.counters[0]
    counters.writes += 1
    counters.bytes_written += debt.size
    tally(doors.writes_ns, max(now_ns - debt.asked_ns, 0))


@kernel()
def note_read(doors, size, asked_ns, now_ns):
    """Count a read that was handed over."""
    counters = doors.counters[0]
    counters.reads += 1
    counters.bytes_read += size
    tally(doors.reads_ns, max(now_ns - asked_ns, 0))


@kernel()
def ask(doors, index, start, size):
    """Put size bytes of the inbox from `start` on into the slow lane, for the Python thread. False when no lane is free, or it is
    too large for one."""
    session = doors.session[index]
    if size > doors.lane_bytes.shape[1]:
        return False
    for number in range(doors.lane.size):
        lane = doors.lane[number]
        if lane.state != NO_LANE:
            continue
        lane.session, lane.generation, lane.number, lane.size = index, session.generation, session.number, size
        libc.copy(doors.lane_bytes[number], np.int64(0), doors.inbox[index], start, size)
        session.lane = number + 1
        doors.at[0].lanes_asked += 1
        libc.fence_release()
        lane.state = ASKED
        doors.words[1] = 1
        libc.write(doors.at[0].lane_wake, doors.words, np.int64(8), np.int64(8))
        return True
    return False
