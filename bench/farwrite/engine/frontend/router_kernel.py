"""The router's loop: NBD in from clients, NBD out to the groups that hold the chunks, and the answers back.

A request is taken apart by chunks, and answered once, when every part of it is. A group whose connection is lost gets its parts
again over the next one, in their order; those of clients that are gone never. The order in which this happens is what promises
rest on: whoever hung up is forgotten first, and a lost connection is closed before another one is sent anything. Decision 0064.
"""

from __future__ import annotations

import numpy as np

from ...base.host import libc
from ...base.host.libc import EPOLL_DATA_AT, EPOLL_EVENT_WORDS
from ...base.jit import kernel
from . import nbd
from . import nbd_kernel as wire
from . import router_state as rows
from . import session_kernel as sessions

BYTES_A_TURN = 1 << 20  # Of one client, or from one group, before the next has its turn.
GONE = libc.EPOLLRDHUP | libc.EPOLLHUP | libc.EPOLLERR
SWEEP_NS = 1_000_000_000
WAIT_MS = 500
DIRECT_BYTES = 8 << 10  # So much of a payload goes from the socket to its place without being copied.
ANSWER_BYTES_MAX = 64
EXTENTS_MAX = 64  # In one answer to BLOCK_STATUS, of each meta context.
MESSAGE_BYTES_MAX = 4096  # Of a server's error.
STATUS_BYTES_MAX = 4 + 8 * 4096

MORE, BLOCKED, HANG_UP, TAKEN = sessions.MORE, sessions.BLOCKED, sessions.HANG_UP, wire.TAKEN
PARTS, REQUESTS = rows.PARTS, rows.REQUESTS


# Where a byte lies


@kernel()
def locate(home, seat, shift, address):
    """(group, byte offset in its volume) of a byte of the striped volume."""
    chunk = address >> shift
    return home[chunk], (seat[chunk] << shift) + (address & ((np.int64(1) << shift) - 1))


@kernel()
def part_size(command, address, end, shift):
    """Bytes of the part of a request that begins here: to the end of its chunk, a piece at most where bytes move."""
    chunk_end = ((address >> shift) + 1) << shift
    size = min(end, chunk_end) - address
    if command in (nbd.READ, nbd.WRITE):
        size = min(size, np.int64(rows.PIECE_BYTES))
    return size


@kernel()
def is_in_order(command, flags, session_flags):
    """Whether an answer is a read's in one piece: its parts are laid one behind the other."""
    return command == nbd.READ and (flags & nbd.DF != 0 or not session_flags & sessions.STRUCTURED)


# Rows


@kernel()
def take_part(r, index, request, command, place, length):
    """A part of a session's request, FILLING. There must be one free."""
    session = r.session[index]
    session.free_parts -= 1
    number = r.free_part[index, session.free_parts]
    part = r.part[number]
    part.state, part.request, part.command, part.place, part.length = rows.FILLING, request, command, place, length
    part.use = (part.use + 1) & 0x3FFFFFFF
    part.before = part.after = part.next = -1
    part.filled = 0
    blank(part)
    r.request[request].open += 1
    return number


@kernel()
def blank(part):
    """Nothing of its answer has come."""
    part.got = part.is_hole = part.error = 0
    part.allocations = part.changes = -1


@kernel()
def give_part(r, number):
    """A part's row and memory are free again."""
    part = r.part[number]
    part.state = rows.NO_PART
    index = number // PARTS
    session = r.session[index]
    r.free_part[index, session.free_parts] = number
    session.free_parts += 1


@kernel()
def give_request(r, index, number):
    """A request is answered: its row is free again."""
    session, request, counters = r.session[index], r.request[number], r.counters[0]
    request.used = 0
    r.free_request[index, session.free_requests] = number
    session.free_requests += 1
    counters.requests += 1
    if request.error != 0:
        counters.errors += 1
    elif request.command == nbd.READ:
        counters.reads += 1
        counters.bytes_read += request.length
    elif request.command in (nbd.WRITE, nbd.TRIM, nbd.WRITE_ZEROES):
        counters.writes += 1
        counters.bytes_written += request.length


@kernel()
def push_ready(r, index, item):
    """A part, or -1 minus a request, is to be answered."""
    session = r.session[index]
    r.ready[index, session.ready_end % rows.READY] = item
    session.ready_end += 1


@kernel()
def unlink(r, number):
    """A part leaves its upstream's list."""
    part = r.part[number]
    upstream = r.upstream[part.upstream]
    if upstream.unsent == number:
        upstream.unsent = part.after
    if part.before >= 0:
        r.part[part.before].after = part.after
    else:
        upstream.first = part.after
    if part.after >= 0:
        r.part[part.after].before = part.before
    else:
        upstream.last = part.before
    part.before = part.after = -1
    r.at[0].parts_open -= 1


@kernel()
def issue(r, number, base, group, address):
    """A part is whole: it is behind all others at its group."""
    part, request = r.part[number], r.request[r.part[number].request]
    part.upstream, part.address, part.state = base + group, address, rows.QUEUED
    memory = r.memory[number]
    wire.put_number(memory, 0, 4, np.int64(nbd.REQUEST_MAGIC))
    wire.put_number(memory, 4, 2, request.flags & ~(nbd.DF | nbd.REQ_ONE))
    wire.put_number(memory, 6, 2, part.command)
    wire.put_number(memory, 8, 8, cookie_of(part.use, number))
    wire.put_number(memory, 16, 8, address)
    wire.put_number(memory, 24, 4, part.length)
    upstream = r.upstream[part.upstream]
    part.before, part.after = upstream.last, -1
    if upstream.last >= 0:
        r.part[upstream.last].after = number
    else:
        upstream.first = number
    upstream.last = number
    if upstream.unsent < 0:
        upstream.unsent = number
    r.at[0].parts_open += 1


@kernel()
def issue_by_map(r, number, base):
    """A part that has an address goes to the group that its chunk is in."""
    at = r.at[0]
    group, address = locate(r.home, r.seat, at.chunk_shift, r.part[number].place)
    issue(r, number, base, group, address)


@kernel()
def cookie_of(use, number):
    """What a part is called at its group."""
    return (use << 32) | number


@kernel()
def part_of(r, up, cookie):
    """The part that this cookie of an answer means; -1: none that this group was sent."""
    number = cookie & 0xFFFFFFFF
    if number >= r.part.size:
        return np.int64(-1)
    part = r.part[number]
    if part.state != rows.SENT or part.upstream != up or cookie_of(part.use, number) != cookie:
        return np.int64(-1)
    return np.int64(number)


@kernel()
def room_in(box, begin, end):
    """(begin, end, room behind it) of what stands in a box, after it was moved to the front where that costs one copy."""
    if begin == end:
        begin = end = np.int64(0)
    elif begin >= box.size // 2 and end - begin <= begin:
        libc.copy(box, np.int64(0), box, begin, end - begin)
        begin, end = np.int64(0), end - begin
    return begin, end, box.size - end


@kernel()
def room_before_whole(box, begin, end):
    """As `room_in`, of an inbox: a message that has begun must fit, so it is moved to the front whatever that costs."""
    if begin == end:
        begin = end = np.int64(0)
    elif begin > 0 and box.size - end < box.size // 2:
        size = end - begin
        if size <= begin:
            libc.copy(box, np.int64(0), box, begin, size)
        else:
            for byte in range(size):
                box[byte] = box[begin + byte]
        begin, end = np.int64(0), size
    return begin, end, box.size - end


# Requests of clients


@kernel()
def serve(r, index, now_ns):
    """Take what stands in a client's inbox, request by request: MORE, BLOCKED or HANG_UP."""
    session = r.session[index]
    while True:
        if session.state == rows.LEAVING:
            session.in_begin = session.in_end
            return np.int64(MORE)
        if session.discard > 0:
            answer = pass_over(r, index)
        elif session.request >= 0:
            if r.request[session.request].command == nbd.WRITE:
                answer = take_body(r, index)
            else:
                answer = take_apart(r, index)
        else:
            if session.in_end - session.in_begin < nbd.REQUEST_BYTES:
                return np.int64(MORE)
            answer = take_header(r, index, now_ns)
        if answer != TAKEN:
            return np.int64(answer)


@kernel()
def take_header(r, index, now_ns):
    """A request, from its header."""
    session = r.session[index]
    if session.free_requests == 0:
        return np.int64(BLOCKED)
    asked = wire.asked_of(r.inbox[index], session.in_begin)
    error = wire.decide(asked, session.flags, session.size_bytes, np.int64(1), r.at[0].is_shutting_down)
    if error == wire.BAD_MAGIC:
        return np.int64(HANG_UP)
    if asked.command == nbd.DISC:
        session.state = rows.LEAVING
        return np.int64(TAKEN)
    session.in_begin += nbd.REQUEST_BYTES
    session.free_requests -= 1
    number = r.free_request[index, session.free_requests]
    request = r.request[number]
    request.used, request.tag, request.command, request.flags = 1, asked.tag, asked.command, asked.flags
    request.address, request.length, request.asked_ns = asked.address, asked.length, now_ns
    request.next, request.end = asked.address, asked.address + asked.length
    request.open = request.is_split = request.is_ready = 0
    request.error, request.first, request.last, request.laid = error, -1, -1, -1
    if asked.command == nbd.WRITE and asked.length > 0:
        session.request = number
        if error != 0:
            session.discard = asked.length
        else:
            session.coming = asked.length
        return np.int64(TAKEN)
    if error != 0 or asked.command == nbd.CACHE or (asked.length == 0 and asked.command != nbd.FLUSH):
        request.is_split = 1
        push_ready(r, index, -1 - number)
        return np.int64(TAKEN)
    if asked.command == nbd.FLUSH:
        request.next, request.end = 0, r.at[0].groups
    session.request = number
    return np.int64(TAKEN)


@kernel()
def finish_split(r, index):
    """A request has all its parts; one that needs none any more is to be answered."""
    session = r.session[index]
    number, session.request = session.request, -1
    r.request[number].is_split = 1
    see_whether_ready(r, index, number)
    return np.int64(TAKEN)


@kernel()
def see_whether_ready(r, index, number):
    """Have a request be answered, once, when all its parts are; a large read in one piece when its first one is."""
    request = r.request[number]
    if request.is_ready:
        return
    is_whole = request.is_split and request.open == 0
    if is_in_order(request.command, request.flags, r.session[index].flags) and request.length > rows.WHOLE_BYTES_MAX:
        is_whole = is_whole or (request.first >= 0 and r.part[request.first].state == rows.DONE)
    if is_whole:
        request.is_ready = 1
        push_ready(r, index, -1 - number)


@kernel()
def take_apart(r, index):
    """Send a request without payload to the groups that it is about, part by part."""
    session, at = r.session[index], r.at[0]
    request = r.request[session.request]
    while request.next < request.end:
        if session.free_parts == 0 or at.fences:
            return np.int64(BLOCKED)
        if request.command == nbd.FLUSH:
            number = take_part(r, index, session.request, request.command, np.int64(0), np.int64(0))
            issue(r, number, session.base, request.next, np.int64(0))
            request.next += 1
            continue
        size = part_size(request.command, request.next, request.end, at.chunk_shift)
        number = take_part(r, index, session.request, request.command, request.next, size)
        issue_by_map(r, number, session.base)
        if request.command == nbd.BLOCK_STATUS:
            # An answer may be about less than was asked: the client goes on from where it ends.
            request.first = number
            request.next = request.end
        else:
            if is_in_order(request.command, request.flags, session.flags):
                chain(r, request, number)
            request.next += size
    return finish_split(r, index)


@kernel()
def chain(r, request, number):
    """A part is the last one so far of a read in one piece."""
    if request.last >= 0 and request.first >= 0:
        r.part[request.last].next = number
    else:
        request.first = number
    request.last = number


@kernel()
def take_body(r, index):
    """Take the payload of a write into its parts; each goes to its group as soon as it is whole."""
    session, at = r.session[index], r.at[0]
    request = r.request[session.request]
    while session.coming > 0:
        if session.part < 0:
            if session.free_parts == 0:
                return np.int64(BLOCKED)
            size = part_size(request.command, request.next, request.end, at.chunk_shift)
            session.part = take_part(r, index, session.request, request.command, request.next, size)
        part = r.part[session.part]
        size = min(part.length - part.filled, session.in_end - session.in_begin)
        libc.copy(r.memory[session.part], rows.PAYLOAD_AT + part.filled, r.inbox[index], session.in_begin, size)
        part.filled += size
        session.in_begin += size
        if part.filled < part.length:
            return np.int64(MORE)
        if at.fences:
            return np.int64(BLOCKED)
        issue_by_map(r, session.part, session.base)
        session.part = -1
        session.coming -= part.length
        request.next += part.length
    return finish_split(r, index)


@kernel()
def pass_over(r, index):
    """Pass over the payload of a write that is answered with an error, once all of it has come."""
    session = r.session[index]
    size = min(session.in_end - session.in_begin, session.discard)
    session.in_begin += size
    session.discard -= size
    if session.discard > 0:
        return np.int64(MORE)
    return finish_split(r, index)


@kernel()
def attend(r, index, now_ns):
    """Serve one client: receive while there is something, up to its share, and take its requests."""
    session = r.session[index]
    taken = np.int64(0)
    drained = False
    while True:
        answer = serve(r, index, now_ns)
        if answer == HANG_UP:
            hang_up(r, index)
            return
        was_blocked, session.blocked = session.blocked, 0
        if answer == BLOCKED:
            r.counters[0].blocked += 1 - was_blocked
            session.blocked = 1
            return
        if taken >= BYTES_A_TURN:
            session.blocked = 1  # Looked at again in the next turn, which is at once.
            return
        if drained:
            return
        got, wanted = receive_for(r, index)
        if got == -libc.EAGAIN or got == -libc.EINTR:
            return
        if got <= 0:
            end(r, index)
            return
        session.last_heard_ns = now_ns
        taken += got
        drained = got < wanted


@kernel()
def receive_for(r, index):
    """(bytes received or -errno, bytes asked for): into a part's memory where much of its payload is to come, or the inbox."""
    session = r.session[index]
    flags = np.int64(libc.MSG_DONTWAIT)
    if session.part >= 0 and session.in_begin == session.in_end:
        part = r.part[session.part]
        wanted = part.length - part.filled
        if wanted >= DIRECT_BYTES:
            got = libc.receive(session.socket, r.memory[session.part], rows.PAYLOAD_AT + part.filled, wanted, flags)
            part.filled += max(got, np.int64(0))
            return got, wanted
    session.in_begin, session.in_end, room = room_before_whole(r.inbox[index], session.in_begin, session.in_end)
    got = libc.receive(session.socket, r.inbox[index], session.in_end, room, flags)
    session.in_end += max(got, np.int64(0))
    return got, room


@kernel()
def hang_up(r, index):
    """End a client's connection because of what it sent, or did not take."""
    r.counters[0].hung_up += 1
    end(r, index)


@kernel()
def end(r, index):
    """A client's connection ends. What was not sent to a group is never sent; what was is nobody's, and not sent again."""
    session = r.session[index]
    if session.state == rows.FREE:
        return
    libc.epoll_control(r.at[0].epoll, libc.EPOLL_CTL_DEL, session.socket, np.int64(0), index, r.scratch)
    libc.shutdown(session.socket)
    libc.close(session.socket)
    session.socket, session.state = -1, rows.FREE
    for place in range(PARTS):
        number = index * PARTS + place
        part = r.part[number]
        if part.state == rows.QUEUED:
            unlink(r, number)
            give_part(r, number)
        elif part.state == rows.SENT:
            part.request = -1
        elif part.state != rows.NO_PART:
            give_part(r, number)
    for place in range(REQUESTS):
        r.request[index * REQUESTS + place].used = 0
        r.free_request[index, place] = index * REQUESTS + place
    session.free_requests = REQUESTS
    session.request = session.part = -1
    session.coming = session.discard = session.blocked = session.wanted = 0
    session.in_begin = session.in_end = session.out_begin = session.out_end = 0
    session.ready_begin = session.ready_end = 0
    r.counters[0].sessions -= 1
    at = r.at[0]
    while at.live > 0 and r.session[at.live - 1].state == rows.FREE:
        at.live -= 1


@kernel()
def ask_events(r, socket, before, wanted, mark):
    """Have epoll tell of these events of a socket, and of its end; 0 or -errno."""
    if before == wanted:
        return np.int64(0)
    operation = libc.EPOLL_CTL_ADD if before == 0 else libc.EPOLL_CTL_MOD
    return libc.epoll_control(r.at[0].epoll, operation, socket, wanted, mark, r.scratch)


# Answers to clients


@kernel()
def lay_simple(box, at, error, tag):
    """Lay a simple reply; where it ends."""
    wire.put_number(box, at, 4, np.int64(nbd.SIMPLE_REPLY_MAGIC))
    wire.put_number(box, at + 4, 4, error)
    wire.put_number(box, at + 8, 8, tag)
    return at + nbd.SIMPLE_REPLY_BYTES


@kernel()
def lay_chunk(box, at, flags, kind, tag, size):
    """Lay the header of a chunk; where it ends."""
    wire.put_number(box, at, 4, np.int64(nbd.STRUCTURED_REPLY_MAGIC))
    wire.put_number(box, at + 4, 2, np.int64(flags))
    wire.put_number(box, at + 6, 2, np.int64(kind))
    wire.put_number(box, at + 8, 8, tag)
    wire.put_number(box, at + 16, 4, np.int64(size))
    return at + nbd.CHUNK_BYTES


@kernel()
def lay_error(box, at, error, tag):
    """Lay the last chunk of an answer: an error, or nothing more; where it ends."""
    if error == 0:
        return lay_chunk(box, at, nbd.CHUNK_DONE, nbd.CHUNK_NONE, tag, 0)
    at = lay_chunk(box, at, nbd.CHUNK_DONE, nbd.CHUNK_ERROR, tag, 6)
    wire.put_number(box, at, 4, error)
    wire.put_number(box, at + 4, 2, np.int64(0))
    return at + 6


@kernel()
def lay_part(r, box, at, flags, number, tag):
    """Lay a part of a read as a chunk of its own; where it ends."""
    part = r.part[number]
    if part.is_hole:
        at = lay_chunk(box, at, flags, nbd.CHUNK_HOLE, tag, 12)
        wire.put_number(box, at, 8, part.place)
        wire.put_number(box, at + 8, 4, part.length)
        return at + 12
    at = lay_chunk(box, at, flags, nbd.CHUNK_DATA, tag, part.length + 8)
    wire.put_number(box, at, 8, part.place)
    libc.copy(box, at + 8, r.memory[number], np.int64(rows.PAYLOAD_AT), part.length)
    return at + 8 + part.length


@kernel()
def lay_status(r, box, at, flags, number, session_flags, tag):
    """Lay what a part has brought of the block status: a chunk for each meta context of the session; where it ends."""
    part = r.part[number]
    has_allocation, has_changed = session_flags & sessions.ALLOCATION != 0, session_flags & sessions.CHANGED != 0
    for context in range(2):
        count = max(part.allocations if context == 0 else part.changes, np.int64(0))
        if not (has_allocation if context == 0 else has_changed):
            continue
        most = min(count, np.int64(1)) if flags & nbd.REQ_ONE else count
        is_last = context == 1 or not has_changed
        at = lay_chunk(box, at, nbd.CHUNK_DONE if is_last else 0, nbd.CHUNK_BLOCK_STATUS, tag, 4 + 8 * most)
        wire.put_number(box, at, 4, np.int64(nbd.BASE_ALLOCATION_ID if context == 0 else nbd.CHANGED_SINCE_ID))
        begin = rows.PAYLOAD_AT + 8 * EXTENTS_MAX * context
        libc.copy(box, at + 4, r.memory[number], np.int64(begin), 8 * most)
        at += 4 + 8 * most
    return at


@kernel()
def lay_in_order(r, index, number):
    """Go on with a read that is answered in one piece: 1 once all of it is laid, 0: there is no room or not all has come, or
    HANG_UP: a part has failed behind others that were laid."""
    session, request = r.session[index], r.request[number]
    box = r.outbox[index]
    structured = session.flags & sessions.STRUCTURED
    if request.laid < 0:
        if box.size - session.out_end < ANSWER_BYTES_MAX:
            return np.int64(0)
        if structured:
            at = lay_chunk(box, session.out_end, nbd.CHUNK_DONE, nbd.CHUNK_DATA, request.tag, request.length + 8)
            wire.put_number(box, at, 8, request.address)
            session.out_end = at + 8
        else:
            session.out_end = lay_simple(box, session.out_end, np.int64(0), request.tag)
        request.laid = 0
    while request.first >= 0:
        place = request.first
        part = r.part[place]
        if part.state != rows.DONE or box.size - session.out_end < part.length:
            return np.int64(0)
        if part.error != 0:
            return np.int64(HANG_UP)
        libc.copy(box, session.out_end, r.memory[place], np.int64(rows.PAYLOAD_AT), part.length)
        session.out_end += part.length
        request.laid += part.length
        request.first = part.next
        if request.first < 0:
            request.last = -1
        give_part(r, place)
    return np.int64(1 if request.laid == request.length else 0)


@kernel()
def give_done_parts_of(r, request):
    """What has come of a read in one piece that has failed is free again."""
    while request.first >= 0 and r.part[request.first].state == rows.DONE:
        place = request.first
        request.first = r.part[place].next
        give_part(r, place)
    if request.first < 0:
        request.last = -1


@kernel()
def give_parts_of(r, request):
    """What a read in one piece, or a block status, holds is free again."""
    while request.first >= 0:
        place = request.first
        request.first = r.part[place].next
        give_part(r, place)


@kernel()
def lay_ready(r, index):
    """Lay the answers that are ready, as far as the outbox has room: 1: something was laid, 0: nothing, or HANG_UP."""
    session = r.session[index]
    box = r.outbox[index]
    laid = np.int64(0)
    while session.ready_begin < session.ready_end and not r.at[0].holds:
        session.out_begin, session.out_end, room = room_in(box, session.out_begin, session.out_end)
        item = r.ready[index, session.ready_begin % rows.READY]
        if item >= 0:
            part = r.part[item]
            if room < ANSWER_BYTES_MAX + part.length:
                return laid
            request = r.request[part.request]
            is_alone = part.length == request.length
            session.out_end = lay_part(r, box, session.out_end, nbd.CHUNK_DONE if is_alone else 0, item, request.tag)
            owner = part.request
            give_part(r, item)
            if is_alone:
                give_request(r, index, owner)
        else:
            number = -1 - item
            request = r.request[number]
            if request.error == 0 and is_in_order(request.command, request.flags, session.flags) and request.length > 0:
                before = session.out_end
                answer = lay_in_order(r, index, number)
                laid = np.int64(1) if session.out_end > before else laid
                if answer != 1:
                    return answer if answer == HANG_UP else laid
            elif room < ANSWER_BYTES_MAX + 2 * (nbd.CHUNK_BYTES + 4 + 8 * EXTENTS_MAX):
                return laid
            elif request.laid >= 0:
                return np.int64(HANG_UP)  # Its header has promised bytes that do not come.
            elif not request.is_split or request.open > 0:
                give_done_parts_of(r, request)  # A large read that has failed: its other parts are waited for.
                return laid
            elif request.command == nbd.BLOCK_STATUS and request.error == 0:
                session.out_end = lay_status(r, box, session.out_end, request.flags, request.first, session.flags, request.tag)
            elif request.command in (nbd.READ, nbd.BLOCK_STATUS) and session.flags & sessions.STRUCTURED:
                session.out_end = lay_error(box, session.out_end, request.error, request.tag)
            else:
                session.out_end = lay_simple(box, session.out_end, request.error, request.tag)
            give_parts_of(r, request)
            give_request(r, index, number)
        session.ready_begin += 1
        laid = np.int64(1)
    return laid


@kernel()
def send(r, index, now_ns):
    """Lay and send a client's answers as far as its socket takes them, and ask epoll for what it waits for now."""
    session = r.session[index]
    is_full = False
    while True:
        answer = lay_ready(r, index)
        if answer == HANG_UP:
            hang_up(r, index)
            return
        if session.out_begin == session.out_end:
            break
        done = libc.send(
            session.socket, r.outbox[index], session.out_begin, session.out_end - session.out_begin, np.int64(libc.MSG_DONTWAIT)
        )
        if done == -libc.EAGAIN or done == -libc.EINTR:
            is_full = True
            break
        if done < 0:
            end(r, index)
            return
        session.out_begin += done
        session.last_heard_ns = now_ns
    if session.state == rows.LEAVING and session.free_requests == REQUESTS and session.out_begin == session.out_end:
        end(r, index)
        return
    wanted = np.int64(libc.EPOLLRDHUP)
    if not session.blocked:
        wanted |= libc.EPOLLIN
    if is_full:
        wanted |= libc.EPOLLOUT
    if ask_events(r, session.socket, session.wanted, wanted, np.int64(index)) < 0:
        end(r, index)
        return
    session.wanted = wanted


# Groups


@kernel()
def lose(r, up, now_ns):
    """A connection to a group ends: it is closed before anything else is done. Its parts will be sent again, in their order, but
    for those of clients that are gone."""
    upstream = r.upstream[up]
    if upstream.state != rows.UP:
        return
    libc.epoll_control(r.at[0].epoll, libc.EPOLL_CTL_DEL, upstream.socket, np.int64(0), np.int64(0), r.scratch)
    libc.shutdown(upstream.socket)
    libc.close(upstream.socket)
    upstream.socket, upstream.state, upstream.down_ns = -1, rows.DOWN, now_ns
    upstream.wanted = upstream.in_begin = upstream.in_end = upstream.out_begin = upstream.out_end = 0
    upstream.losses += 1
    r.counters[0].lost += 1
    number = upstream.first
    while number >= 0:
        part = r.part[number]
        after = part.after
        if part.request < 0:
            unlink(r, number)
            give_part(r, number)
        elif part.state == rows.SENT:
            part.state = rows.QUEUED
            r.counters[0].resent += 1
            blank(part)
        number = after
    upstream.unsent = upstream.first
    r.words[0] = 1
    libc.write(r.at[0].lost_wake, r.words, np.int64(0), np.int64(8))


@kernel()
def pump(r, up, now_ns):
    """Send a group its parts as far as its socket takes them."""
    upstream = r.upstream[up]
    if upstream.state != rows.UP:
        return
    box = r.up_outbox[up]
    is_full = False
    while True:
        while upstream.unsent >= 0:
            number = upstream.unsent
            part = r.part[number]
            size = rows.PAYLOAD_AT + (part.length if part.command == nbd.WRITE else np.int64(0))
            upstream.out_begin, upstream.out_end, room = room_in(box, upstream.out_begin, upstream.out_end)
            if room < size:
                break
            libc.copy(box, upstream.out_end, r.memory[number], np.int64(0), size)
            upstream.out_end += size
            part.state = rows.SENT
            upstream.unsent = part.after
            r.counters[0].parts += 1
        if upstream.out_begin == upstream.out_end:
            break
        done = libc.send(
            upstream.socket, box, upstream.out_begin, upstream.out_end - upstream.out_begin, np.int64(libc.MSG_DONTWAIT)
        )
        if done == -libc.EAGAIN or done == -libc.EINTR:
            is_full = True
            break
        if done < 0:
            lose(r, up, now_ns)
            return
        upstream.out_begin += done
    wanted = np.int64(libc.EPOLLIN | libc.EPOLLRDHUP)
    if is_full:
        wanted |= libc.EPOLLOUT
    if ask_events(r, upstream.socket, upstream.wanted, wanted, np.int64(rows.UPSTREAM_MARK + up)) < 0:
        lose(r, up, now_ns)
        return
    upstream.wanted = wanted


@kernel()
def hear(r, up, now_ns):
    """Take what a group answers, up to its share."""
    upstream = r.upstream[up]
    taken = np.int64(0)
    while taken < BYTES_A_TURN:
        box = r.up_inbox[up]
        upstream.in_begin, upstream.in_end, room = room_before_whole(box, upstream.in_begin, upstream.in_end)
        got = libc.receive(upstream.socket, box, upstream.in_end, room, np.int64(libc.MSG_DONTWAIT))
        if got == -libc.EAGAIN or got == -libc.EINTR:
            return
        if got <= 0:
            lose(r, up, now_ns)
            return
        upstream.in_end += got
        taken += got
        lie = take_replies(r, up)
        if lie != rows.NO_LIE:
            upstream.lie = lie
            r.counters[0].lied += 1
            lose(r, up, now_ns)
            return
        if got < room:
            return


@kernel()
def take_replies(r, up):
    """Take the whole messages in a group's inbox; NO_LIE, or what is wrong with one. A message is held against what was asked
    before its payload is waited for, so that whatever comes fits."""
    upstream = r.upstream[up]
    box = r.up_inbox[up]
    while upstream.in_end - upstream.in_begin >= nbd.SIMPLE_REPLY_BYTES:
        begin = upstream.in_begin
        magic = wire.number_at(box, begin, 4)
        if magic != nbd.SIMPLE_REPLY_MAGIC and magic != nbd.STRUCTURED_REPLY_MAGIC:
            return np.int64(rows.LIE_MAGIC)
        number = part_of(r, up, wire.number_at(box, begin + 8, 8))
        if number < 0:
            return np.int64(rows.LIE_COOKIE)
        part = r.part[number]
        if magic == nbd.SIMPLE_REPLY_MAGIC:
            if part.command in (nbd.READ, nbd.BLOCK_STATUS):
                return np.int64(rows.LIE_KIND)
            upstream.in_begin += nbd.SIMPLE_REPLY_BYTES
            part.error = wire.number_at(box, begin + 4, 4)
            complete(r, number)
            continue
        if upstream.in_end - begin < nbd.CHUNK_BYTES:
            return np.int64(rows.NO_LIE)
        flags, kind = wire.number_at(box, begin + 4, 2), wire.number_at(box, begin + 6, 2)
        length = wire.number_at(box, begin + 16, 4)
        lie = wrong_with(part, flags, kind, length)
        if lie != rows.NO_LIE:
            return lie
        if upstream.in_end - begin < nbd.CHUNK_BYTES + length:
            return np.int64(rows.NO_LIE)
        lie = take_chunk(r, up, number, kind, box, begin + nbd.CHUNK_BYTES, length)
        if lie != rows.NO_LIE:
            return lie
        upstream.in_begin += nbd.CHUNK_BYTES + length
        if flags & nbd.CHUNK_DONE:
            if part.error == 0 and not is_all_there(r, up, part):
                return np.int64(rows.LIE_SHORT)
            complete(r, number)
    return np.int64(rows.NO_LIE)


@kernel()
def wrong_with(part, flags, kind, length):
    """NO_LIE when a chunk of this kind and length may answer a part."""
    if kind == nbd.CHUNK_NONE:
        return np.int64(rows.NO_LIE if length == 0 and flags & nbd.CHUNK_DONE else rows.LIE_LENGTH)
    if kind == nbd.CHUNK_ERROR or kind == nbd.CHUNK_ERROR_OFFSET:
        return np.int64(rows.NO_LIE if 6 <= length <= MESSAGE_BYTES_MAX else rows.LIE_LENGTH)
    if kind == nbd.CHUNK_DATA and part.command == nbd.READ:
        return np.int64(rows.NO_LIE if 8 < length <= 8 + part.length - part.got else rows.LIE_LENGTH)
    if kind == nbd.CHUNK_HOLE and part.command == nbd.READ:
        return np.int64(rows.NO_LIE if length == 12 else rows.LIE_LENGTH)
    if kind == nbd.CHUNK_BLOCK_STATUS and part.command == nbd.BLOCK_STATUS:
        return np.int64(rows.NO_LIE if 12 <= length <= STATUS_BYTES_MAX and length % 8 == 4 else rows.LIE_LENGTH)
    return np.int64(rows.LIE_KIND)


@kernel()
def take_chunk(r, up, number, kind, box, at, length):
    """Take the payload of a chunk. Data comes in the order of its addresses, as our doors send it, so none can be missing."""
    part = r.part[number]
    memory = r.memory[number]
    if kind == nbd.CHUNK_DATA:
        if wire.number_at(box, at, 8) != part.address + part.got:
            return np.int64(rows.LIE_RANGE)
        libc.copy(memory, rows.PAYLOAD_AT + part.got, box, at + 8, length - 8)
        part.got += length - 8
    elif kind == nbd.CHUNK_HOLE:
        size = wire.number_at(box, at + 8, 4)
        if wire.number_at(box, at, 8) != part.address + part.got or size == 0 or size > part.length - part.got:
            return np.int64(rows.LIE_RANGE)
        for byte in range(rows.PAYLOAD_AT + part.got, rows.PAYLOAD_AT + part.got + size):
            memory[byte] = 0
        part.is_hole = 1 if size == part.length else 0
        part.got += size
    elif kind == nbd.CHUNK_BLOCK_STATUS:
        return take_status(r, up, number, box, at, length)
    elif kind != nbd.CHUNK_NONE:
        error = wire.number_at(box, at, 4)
        if part.error == 0:
            part.error = error if error != 0 else np.int64(nbd.EIO)
    return np.int64(rows.NO_LIE)


@kernel()
def take_status(r, up, number, box, at, length):
    """Take the extents of one meta context, those that lie in what was asked for."""
    part, upstream = r.part[number], r.upstream[up]
    memory = r.memory[number]
    context = wire.number_at(box, at, 4)
    is_allocation = context == upstream.allocation
    if not is_allocation and context != upstream.changed:
        return np.int64(rows.LIE_CONTEXT)
    if (part.allocations if is_allocation else part.changes) >= 0:
        return np.int64(rows.LIE_CONTEXT)
    begin = rows.PAYLOAD_AT + (0 if is_allocation else 8 * EXTENTS_MAX)
    left, count = part.length, np.int64(0)
    for place in range((length - 4) // 8):
        size = wire.number_at(box, at + 4 + 8 * place, 4)
        if size == 0:
            return np.int64(rows.LIE_RANGE)
        if left == 0 or count == EXTENTS_MAX:
            break
        size = min(size, left)
        wire.put_number(memory, begin + 8 * count, 4, size)
        wire.put_number(memory, begin + 8 * count + 4, 4, wire.number_at(box, at + 8 + 8 * place, 4))
        left -= size
        count += 1
    if is_allocation:
        part.allocations = count
    else:
        part.changes = count
    return np.int64(rows.NO_LIE)


@kernel()
def is_all_there(r, up, part):
    """Whether an answer without an error that is over is whole."""
    upstream = r.upstream[up]
    if part.command == nbd.READ:
        return part.got == part.length
    if part.command == nbd.BLOCK_STATUS:
        has_allocation = upstream.allocation < 0 or part.allocations > 0
        return has_allocation and (upstream.changed < 0 or part.changes > 0)
    return True


@kernel()
def complete(r, number):
    """A part is answered: its request is, once all its parts are."""
    part = r.part[number]
    unlink(r, number)
    owner = part.request
    if owner < 0:
        give_part(r, number)
        return
    request, index = r.request[owner], owner // REQUESTS
    request.open -= 1
    part.state = rows.DONE
    if part.error != 0 and request.error == 0:
        request.error = part.error
    if request.command == nbd.READ and not is_in_order(request.command, request.flags, r.session[index].flags):
        if part.error == 0:
            push_ready(r, index, number)
            if part.length == request.length:
                return  # Its chunk is the last one, and answers the request.
        else:
            give_part(r, number)
    elif request.command != nbd.READ and request.command != nbd.BLOCK_STATUS:
        give_part(r, number)
    see_whether_ready(r, index, owner)


# The loop


@kernel()
def begin_client(r, mail, now_ns):
    """Give a client a session, or close its connection where there is no place."""
    for index in range(r.session.size):
        session = r.session[index]
        if session.state != rows.FREE:
            continue
        session.socket, session.state, session.flags = mail.socket, rows.OPEN, mail.flags
        session.base, session.size_bytes, session.last_heard_ns = mail.index, mail.size_bytes, now_ns
        r.at[0].live = max(r.at[0].live, np.int64(index + 1))
        r.counters[0].sessions += 1
        r.counters[0].adopted += 1
        send(r, np.int64(index), now_ns)  # Asks for its events.
        return
    libc.close(mail.socket)
    r.counters[0].refused += 1


@kernel()
def take_mail(r, now_ns):
    """Take what Python has handed over."""
    at = r.at[0]
    libc.fence_acquire()
    while at.mail_read < at.mail_written:
        mail = r.mail[at.mail_read % r.mail.size]
        if mail.kind == rows.CLIENT:
            begin_client(r, mail, now_ns)
        elif mail.kind == rows.CUT:
            lose(r, mail.index, now_ns)
        else:
            lose(r, mail.index, now_ns)  # Closed before the next one is sent anything.
            upstream = r.upstream[mail.index]
            upstream.socket, upstream.state, upstream.lie = mail.socket, rows.UP, rows.NO_LIE
            upstream.allocation, upstream.changed = mail.allocation, mail.changed
            upstream.links += 1
            at.upstreams = max(at.upstreams, mail.index + 1)
            pump(r, mail.index, now_ns)
        at.mail_read += 1


@kernel()
def late_upstream(r, index, now_ns):
    """The upstream that has not answered a client's part in time; -1: none."""
    for place in range(PARTS):
        part = r.part[index * PARTS + place]
        if part.state not in (rows.QUEUED, rows.SENT) or part.request < 0:
            continue
        if now_ns - r.request[part.request].asked_ns > r.at[0].limit_ns:
            return part.upstream
    return np.int64(-1)


@kernel()
def sweep(r, now_ns):
    """Hang up on whoever waits for a group for too long, or is in the middle of something and does not go on with it."""
    at = r.at[0]
    if now_ns - at.swept_ns < SWEEP_NS:
        return
    at.swept_ns = now_ns
    for index in range(at.live):
        session = r.session[index]
        if session.state == rows.FREE:
            continue
        late = late_upstream(r, np.int64(index), now_ns)
        if late >= 0:
            r.counters[0].late_group = late
            r.counters[0].late += 1
            end(r, np.int64(index))
            continue
        is_amid = session.out_begin < session.out_end or session.in_begin < session.in_end or session.request >= 0
        is_ours = session.free_parts < PARTS and session.part < 0 and session.out_begin == session.out_end
        if is_amid and not is_ours and now_ns - session.last_heard_ns > at.stall_ns:
            hang_up(r, np.int64(index))


@kernel()
def drop_unread(r, index):
    """Read away what a client that has hung up had said last: closing over unread bytes would reset its connection."""
    for _ in range(sessions.UNREAD_BYTES_MAX // rows.INBOX_BYTES):
        inbox = r.inbox[index]
        got = libc.receive(r.session[index].socket, inbox, np.int64(0), np.int64(inbox.size), np.int64(libc.MSG_DONTWAIT))
        if got <= 0:
            return


@kernel()
def turn(r, timeout_ms):
    """Wait for something, and do what there is to do; 0, or -errno."""
    at = r.at[0]
    count = libc.epoll_await(at.epoll, r.events, np.int64(timeout_ms))
    if count < 0 and count != -libc.EINTR:
        return count
    now_ns = libc.monotonic_ns()
    at.turn += 1
    at.held, at.fenced = at.holds, at.fences  # Before anything is laid or sent in this turn.
    for place in range(count):  # Whoever has hung up is forgotten first: what it asked for and was not sent never is.
        event = place * EPOLL_EVENT_WORDS
        index = np.int64(r.events[event + EPOLL_DATA_AT])
        if index < rows.UPSTREAM_MARK and np.int64(r.events[event]) & GONE:
            drop_unread(r, index)
            end(r, index)
    for place in range(count):
        event = place * EPOLL_EVENT_WORDS
        mark = np.int64(r.events[event + EPOLL_DATA_AT])
        if mark == rows.WAKE_MARK:
            libc.read(at.wake, r.words, np.int64(16), np.int64(8))
        elif mark >= rows.UPSTREAM_MARK and np.int64(r.events[event]) & (libc.EPOLLIN | GONE):
            hear(r, mark - rows.UPSTREAM_MARK, now_ns)
    for step in range(count):
        event = (step + at.turn) % count * EPOLL_EVENT_WORDS
        index = np.int64(r.events[event + EPOLL_DATA_AT])
        happened = np.int64(r.events[event])
        if index < rows.UPSTREAM_MARK and happened & libc.EPOLLIN and r.session[index].state != rows.FREE:
            attend(r, index, now_ns)
    take_mail(r, now_ns)
    live = at.live
    for step in range(live):
        index = (step + at.turn) % live
        if r.session[index].state != rows.FREE:
            send(r, index, now_ns)
            if r.session[index].state != rows.FREE and r.session[index].blocked:
                attend(r, index, now_ns)
                if r.session[index].state != rows.FREE:
                    send(r, index, now_ns)
    for up in range(at.upstreams):
        upstream = r.upstream[up]
        if upstream.unsent >= 0 or upstream.out_begin < upstream.out_end:
            pump(r, np.int64(up), now_ns)
    sweep(r, now_ns)
    return np.int64(0)


@kernel()
def has_more(r):
    """Whether a client has used up its share of a turn and may go on: no event will tell of it."""
    for index in range(r.at[0].live):
        session = r.session[index]
        if session.state != rows.FREE and session.blocked and session.free_parts > 0 and session.free_requests > 0:
            return not r.at[0].fences
    return False


@kernel()
def run(r):
    """Route until Python says stop; 0, or -errno."""
    status = np.int64(0)
    while status == 0 and not r.at[0].stop:
        status = turn(r, 0 if has_more(r) else WAIT_MS)
    return status
