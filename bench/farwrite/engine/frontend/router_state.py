"""What a router remembers: its clients, their requests, the parts of these, and the groups that the parts go to.

A request of a client is taken apart into *parts*: each lies in one chunk of the volume, so in one replica group, and has at most
PIECE_BYTES of payload in memory of its own. A part is what is sent to a group, sent again when that group's connection was lost,
and answered. An *upstream* is one connection to one group; the groups of one export are a *view*, so many upstreams in a row.
Everything is a row of fixed memory, PARTS and REQUESTS of each for one client: a client that reads no answers, or a group that
takes nothing more, stops the reading from those clients whose rows are used up, and nobody else.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...base.host.libc import EPOLL_EVENT_WORDS, lazy_bytes
from ...base.row import Row, i64, rows_of
from .router_map import CHUNK_BYTES_MIN, CHUNKS_MAX, GROUPS_MAX

CLIENTS_MAX = 32
UPSTREAMS_MAX = 128  # Eight views of 16 groups, or 32 of four.
PARTS, REQUESTS = 128, 128  # Of one client.
PIECE_BYTES = 64 << 10
HEADER_AT, PAYLOAD_AT = 0, 28  # In a part's memory: the request as it is sent.
PART_BYTES = PAYLOAD_AT + PIECE_BYTES + 4
READY = 256  # Parts and requests of one client that wait to be answered: no more than there are.
INBOX_BYTES, OUTBOX_BYTES = 128 << 10, 256 << 10  # Of a client, and of an upstream; a whole reply fits.
WHOLE_BYTES_MAX = 4 << 20  # Up to here a read without chunks is answered once all of it is there: its error is then exact.
MAIL_MAX = 256

FREE, OPEN, LEAVING = 0, 1, 2  # Session.state
UNUSED, DOWN, UP = 0, 1, 2  # Upstream.state
NO_PART, FILLING, QUEUED, SENT, DONE = range(5)  # Part.state
CLIENT, LINK, CUT = 1, 2, 3  # Mail.kind

UPSTREAM_MARK, WAKE_MARK = 1 << 20, 1 << 30  # What epoll answers: a session's index, an upstream's and the first, the wake-up.

# Why an upstream was cut: what its server has sent.
NO_LIE, LIE_MAGIC, LIE_COOKIE, LIE_KIND, LIE_LENGTH, LIE_RANGE, LIE_SHORT, LIE_CONTEXT = range(8)


class Session(Row):
    """One client's connection. A row is used again; its parts that are under way then are nobody's until they are answered."""

    socket = i64("descriptor of the connection, which the loop closes; -1 without one")
    state = i64("FREE, OPEN or LEAVING: nothing is taken any more, and it ends once nothing is owed")
    flags = i64("READ_ONLY, STRUCTURED, ALLOCATION, CHANGED of session_kernel")
    base = i64("index of the first upstream of its view")
    size_bytes = i64("bytes of the export")
    in_begin = i64("bytes into the inbox: everything before it was taken")
    in_end = i64("bytes into the inbox: where what has arrived ends")
    out_begin = i64("bytes into the outbox: everything before it was handed to the socket")
    out_end = i64("bytes into the outbox: where what is laid ends")
    wanted = i64("epoll events that are asked for; 0: epoll does not know it")
    blocked = i64("1: it is not read from, until there is room again")
    request = i64("index of the request that is being taken apart; -1: between requests")
    coming = i64("bytes of its payload that no part has yet")
    discard = i64("bytes of its payload that are passed over, because it is answered with an error")
    part = i64("index of the part that is being filled; -1: none")
    free_parts = i64("how many are in free_part")
    free_requests = i64("how many are in free_request")
    ready_begin = i64("answers laid, ever")
    ready_end = i64("answers that were ready, ever")
    last_heard_ns = i64("ns, CLOCK_MONOTONIC: when anything arrived, or was taken by the socket, last")


class Request(Row):
    """What a client has asked for."""

    used = i64("1: it is not answered yet")
    tag = i64("its cookie, as the client gave it")
    command = i64("in NBD's numbers")
    flags = i64("in NBD's numbers")
    address = i64("byte offset in the volume")
    length = i64("bytes")
    next = i64("where its next part begins; FLUSH: the group that is asked next")
    end = i64("where its last part ends; FLUSH: the number of groups")
    open = i64("parts that are not answered")
    is_split = i64("1: it has all its parts")
    is_ready = i64("1: its answer waits to be laid")
    error = i64("the first one that a part was answered with, in NBD's numbers")
    first = i64("READ in one piece, BLOCK_STATUS: index of its first part that is not laid; -1: none")
    last = i64("and of its last one")
    laid = i64("READ in one piece: bytes that are laid; -1: not even the header")
    asked_ns = i64("ns, CLOCK_MONOTONIC: when its header was taken")


class Part(Row):
    """A part of a request, in one group."""

    state = i64("NO_PART; FILLING: its payload comes; QUEUED: to be sent; SENT: to be answered; DONE: to be laid")
    request = i64("index of the request; -1: of a client that is gone")
    upstream = i64("index of the upstream")
    command = i64("in NBD's numbers")
    address = i64("byte offset in the group's volume")
    length = i64("bytes")
    place = i64("byte offset in the striped volume")
    filled = i64("FILLING: bytes of its payload that are here")
    use = i64("counts the uses of this row: half of the cookie, so that no answer to an earlier one is taken for this one's")
    before = i64("index of the part before it at its upstream; -1: none")
    after = i64("index of the part behind it; -1: none")
    next = i64("READ in one piece: index of the next part of the request; -1: none yet")
    got = i64("READ: bytes that have come, from its beginning on")
    is_hole = i64("READ: 1: all of it is one hole")
    error = i64("in NBD's numbers")
    allocations = i64("BLOCK_STATUS: extents of base:allocation in its memory; -1: it was not answered")
    changes = i64("BLOCK_STATUS: extents of changed-since, behind those; -1: it was not answered")


class Upstream(Row):
    """A connection to the door of one group, for one view."""

    socket = i64("descriptor, which the loop closes; -1 without one")
    state = i64("UNUSED; DOWN: there is to be a connection; UP")
    allocation = i64("the server's number of base:allocation; -1: it has none")
    changed = i64("the server's number of changed-since; -1: it has none")
    in_begin = i64("as of a session")
    in_end = i64("as of a session")
    out_begin = i64("as of a session")
    out_end = i64("as of a session")
    wanted = i64("as of a session")
    first = i64("index of the oldest part that is not answered; -1: none")
    last = i64("and of the newest")
    unsent = i64("index of the first of them that is not in the outbox; -1: none")
    links = i64("connections so far")
    losses = i64("connections that were lost so far")
    lie = i64("why the last one was cut by us; NO_LIE: it was not")
    down_ns = i64("ns, CLOCK_MONOTONIC: since when it is DOWN")


class Mail(Row):
    """Something that Python hands over."""

    kind = i64("CLIENT, LINK or CUT: have this upstream's connection end")
    socket = i64("descriptor; the loop's from now on")
    index = i64("LINK, CUT: the upstream; CLIENT: the view")
    flags = i64("CLIENT: of the session")
    size_bytes = i64("CLIENT: of the export")
    allocation = i64("LINK: of the upstream")
    changed = i64("LINK: of the upstream")


class Counters(Row):
    """What a router has done."""

    sessions = i64("clients that are served now")
    adopted = i64("clients that were ever served")
    refused = i64("clients for which there was no place")
    requests = i64("requests that were answered")
    errors = i64("of them with an error")
    writes = i64("writes that were answered with success")
    bytes_written = i64("bytes of these")
    reads = i64("reads that were answered with success")
    bytes_read = i64("bytes of these")
    parts = i64("parts that were sent")
    resent = i64("of them again, after a connection was lost")
    lost = i64("connections to groups that were lost")
    lied = i64("of them cut by us, because of what came")
    late = i64("clients that were hung up on because a group had not answered in time")
    late_group = i64("the upstream of the last of these")
    hung_up = i64("clients that were hung up on because of what they sent or did not take")
    blocked = i64("times that a client was not read from because there was no room")


class Facing(Row):
    """What the loop knows of all together."""

    epoll = i64("descriptor")
    wake = i64("descriptor of an eventfd: Python has something for the loop")
    lost_wake = i64("descriptor of an eventfd: an upstream is down")
    mail_read = i64("mails taken, ever")
    mail_written = i64("mails put, ever")
    groups = i64("groups of the volume")
    chunk_shift = i64("a chunk has 1 << chunk_shift bytes")
    map_version = i64("of the map of chunks")
    holds = i64("not 0: no answer is laid, written by Python")
    held = i64("the same, once the loop keeps to it")
    fences = i64("not 0: no part is sent to a group that is not yet, written by Python")
    fenced = i64("the same, once the loop keeps to it")
    parts_open = i64("parts that are QUEUED or SENT")
    stop = i64("1: run() is to return")
    is_shutting_down = i64("1: requests are answered with the protocol's word for that")
    live = i64("index behind the last session that is used")
    upstreams = i64("index behind the last upstream that is used")
    turn = i64("turns so far: who is served first goes round by it")
    limit_ns = i64("ns after which a client whose request no group has answered is hung up on")
    stall_ns = i64("ns after which a client that is in the middle of something and does not go on is hung up on")
    swept_ns = i64("ns, CLOCK_MONOTONIC: when such clients were looked for last")


class State(NamedTuple):
    """All of it."""

    at: np.ndarray  # Facing, one
    session: np.ndarray  # Session
    request: np.ndarray  # Request, session x REQUESTS
    part: np.ndarray  # Part, session x PARTS
    upstream: np.ndarray  # Upstream
    free_part: np.ndarray  # int64, session x PARTS: a stack, so that the memory of few parts is used again and again
    free_request: np.ndarray  # int64, session x REQUESTS
    ready: np.ndarray  # int64, session x READY: a part's index, or -1 minus a request's
    inbox: np.ndarray  # uint8, session x INBOX_BYTES
    outbox: np.ndarray  # uint8, session x OUTBOX_BYTES
    up_inbox: np.ndarray  # uint8, upstream x INBOX_BYTES
    up_outbox: np.ndarray  # uint8, upstream x OUTBOX_BYTES
    memory: np.ndarray  # uint8, part x PART_BYTES
    home: np.ndarray  # int64, by chunk: its group
    seat: np.ndarray  # int64, by chunk: which chunk of that group's volume it is
    mail: np.ndarray  # Mail
    events: np.ndarray  # int32: struct epoll_event by session and upstream, and the wake-up
    scratch: np.ndarray  # int32: one that epoll_ctl is asked with
    words: np.ndarray  # int64: small things that system calls want an address of
    counters: np.ndarray  # Counters, one


def router_state(epoll: int, wake: int, lost_wake: int, groups: int, chunk_bytes: int, clients: int = CLIENTS_MAX) -> State:
    """A router without clients and connections."""
    assert chunk_bytes & (chunk_bytes - 1) == 0 and chunk_bytes >= CHUNK_BYTES_MIN and 1 <= groups <= GROUPS_MAX
    made = State(
        at=rows_of(Facing),
        session=rows_of(Session, clients),
        request=rows_of(Request, clients * REQUESTS),
        part=rows_of(Part, clients * PARTS),
        upstream=rows_of(Upstream, UPSTREAMS_MAX),
        free_part=np.arange(clients * PARTS).reshape(clients, PARTS)[:, ::-1].copy(),
        free_request=np.arange(clients * REQUESTS).reshape(clients, REQUESTS)[:, ::-1].copy(),
        ready=np.zeros((clients, READY), np.int64),
        inbox=lazy_bytes(clients, INBOX_BYTES),
        outbox=lazy_bytes(clients, OUTBOX_BYTES),
        up_inbox=lazy_bytes(UPSTREAMS_MAX, INBOX_BYTES),
        up_outbox=lazy_bytes(UPSTREAMS_MAX, OUTBOX_BYTES),
        memory=lazy_bytes(clients * PARTS, PART_BYTES),
        home=np.zeros(CHUNKS_MAX, np.int64),
        seat=np.zeros(CHUNKS_MAX, np.int64),
        mail=rows_of(Mail, MAIL_MAX),
        events=np.zeros(EPOLL_EVENT_WORDS * (clients + UPSTREAMS_MAX + 1), np.int32),
        scratch=np.zeros(EPOLL_EVENT_WORDS, np.int32),
        words=np.zeros(8, np.int64),
        counters=rows_of(Counters),
    )
    at = made.at[0]
    at.epoll, at.wake, at.lost_wake, at.groups, at.chunk_shift = epoll, wake, lost_wake, groups, chunk_bytes.bit_length() - 1
    made.session["socket"] = made.upstream["socket"] = -1
    made.session["free_parts"], made.session["free_requests"] = PARTS, REQUESTS
    made.session["request"] = made.session["part"] = -1
    for name in ("first", "last", "unsent"):
        made.upstream[name] = -1
    return made
