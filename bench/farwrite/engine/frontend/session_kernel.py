"""Clients' connections as the loop sees them: a row each, what each has sent and is owed, and which writes it waits for.

What the doors of all protocols share. A client's bytes arrive in its `inbox`, of which a door takes requests; answers are laid
into its `outbox` and sent from there. A write that was taken is owed an answer once its sequence is complete: `Owed` is one such
debt, and a queue holds all of them in the order of the log, because that is the order in which writes complete. Whatever a
client does, it has this much memory and no more; when its outbox, the debts or the log are full it is not read from for a while.
"""

from __future__ import annotations

import mmap
from typing import NamedTuple

import numpy as np

from ...base.histogram_kernel import SLOTS
from ...base.row import Row, i64, rows_of

SESSIONS_MAX = 1024
INBOX_BYTES = 64 << 10  # What is larger goes from the socket straight into the log, once so much of it is there.
OUTBOX_BYTES = 64 << 10  # Larger reads are sent from memory that all share, as far as the socket takes them.
SCRATCH_BYTES = 1 << 20  # A read is looked up and sent by pieces of so much at most.
SCRATCH_AT = 4096  # Where they begin: a reply's header goes in front.
OWED_MAX = 1 << 16  # Requests of all sessions that wait for a write to complete.
OWED_TO_ONE_MAX = 256  # And of one session.
ANSWER_BYTES_MAX = 64  # Room in the outbox that is kept for each of these: no answer to a write is larger.
MAIL_MAX = 256  # Connections that were handed over and not yet taken by the loop.
LANES, LANE_BYTES = 32, 64 << 10  # Requests under way with the Python thread (`ask`), one of a session.

FREE, NBD, ISCSI = 0, 1, 2  # Kinds of session.

# Flags of a session.
READ_ONLY = 1 << 0
STRUCTURED = 1 << 1  # NBD: structured replies were negotiated
ALLOCATION = 1 << 2  # NBD: and base:allocation, under nbd.BASE_ALLOCATION_ID

# What a session's parser is doing.
HEADER, BODY, DISCARD, STREAM, LEAVING = range(5)

NO_LANE, ASKED, ANSWERED = 0, 1, 2  # Lane.state


class Session(Row):
    """One client's connection. A row is used again; its generation tells whose it is."""

    socket = i64("descriptor of the connection, which the loop closes; -1 without one")
    generation = i64("connections that this row was given to, and that ended: no answer to an earlier one goes out on a later one")
    kind = i64("FREE, NBD or ISCSI")
    flags = i64("READ_ONLY, STRUCTURED, ALLOCATION")
    number = i64("of the handover: Frontend.adopt counts them from 1")
    size_bytes = i64("bytes of the export: what lies behind is beyond its end")
    block_bytes = i64("requests begin and end at multiples of this; a power of two, 1: anywhere")
    state = i64("HEADER: between requests; BODY: the payload of a write comes; DISCARD: payload that is not taken; STREAM: a read "
                "is being sent; LEAVING: nothing is taken any more, and it ends once nothing is owed")  # fmt: skip
    in_begin = i64("bytes into the inbox: everything before it was taken")
    in_end = i64("bytes into the inbox: where what has arrived ends")
    out_begin = i64("bytes into the outbox: everything before it was handed to the socket")
    out_end = i64("bytes into the outbox: where what is laid ends")
    owed = i64("requests that wait for a write to complete")
    wanted = i64("epoll events that are asked for")
    blocked = i64("1: it is not read from, until there is room again")
    command = i64("BODY, STREAM: what it belongs to, in the protocol's numbers")
    tag = i64("BODY, DISCARD, STREAM: the request's name, as the client gave it")
    address = i64("BODY, STREAM: byte offset in the volume of what comes next")
    left = i64("BODY, DISCARD, STREAM: bytes of it that are still to come, or to be sent")
    error = i64("DISCARD: what is answered once all has arrived; 0: nothing")
    asked_ns = i64("ns, CLOCK_MONOTONIC: STREAM: when the read's last byte arrived")
    last_heard_ns = i64("ns, CLOCK_MONOTONIC: when anything arrived last, or was taken by the socket")
    header_begin = i64("STREAM: bytes into the outbox, where what must be sent before it ends; what is laid meanwhile goes behind it")
    lane = i64("lane that its request is in, and 1; 0: none; while it is in one nothing further is taken")


class Owed(Row):
    """A request that is answered once a write is complete."""

    sequence = i64("of that write")
    session = i64("index of the session")
    generation = i64("of the session when it asked")
    tag = i64("the request's name, as the client gave it")
    command = i64("the request, in the protocol's numbers")
    answer = i64("what is answered then, in the protocol's numbers; 0: success")
    asked_ns = i64("ns, CLOCK_MONOTONIC: when its last byte had arrived")


class Mail(Row):
    """A connection that is handed over to the loop."""

    socket = i64("descriptor; the loop's from now on")
    kind = i64("NBD or ISCSI")
    flags = i64("of the session")
    number = i64("of this handover")
    size_bytes = i64("bytes of the export")
    block_bytes = i64("of the session")


class Lane(Row):
    """A request with the Python thread, and its answer."""

    state = i64("NO_LANE, ASKED or ANSWERED; written last, by whoever hands over")
    session = i64("index of the session")
    generation = i64("of the session when it asked")
    number = i64("of the session's handover")
    size = i64("bytes of the request, then of the answer; -1: the connection is to end")


class Counters(Row):
    """What a frontend has done. Others may read it while the loop runs: on a board, in shared memory."""

    sessions = i64("connections that are served now")
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
    events: np.ndarray  # int32: struct epoll_event, packed as this processor has it
    words: np.ndarray  # int64: small things that system calls want an address of
    counters: np.ndarray  # Counters, one
    writes_ns: np.ndarray  # int64 histogram: from a write's last byte until its reply was handed over
    reads_ns: np.ndarray  # int64 histogram: the same of reads


def lazy_bytes(rows: int, size: int) -> np.ndarray:
    """uint8, rows x size, zeros: memory that is there once it is written to."""
    made = np.frombuffer(mmap.mmap(-1, rows * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    return made.reshape(rows, size)


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
        events=np.zeros(4 * (sessions + 1), np.int32),
        words=np.zeros(8, np.int64),
        counters=rows_of(Counters) if counters is None else counters,
        writes_ns=np.zeros(SLOTS, np.int64) if writes_ns is None else writes_ns,
        reads_ns=np.zeros(SLOTS, np.int64) if reads_ns is None else reads_ns,
    )
    at = made.at[0]
    at.epoll, at.wake, at.lane_wake = epoll, wake, lane_wake
    made.session["socket"] = -1
    return made
