"""The loop of a primary that has clients: take what they ask, make progress, answer what is complete.

One thread does all of it, and sleeps in one place, the reactor: it waits for peers, disks and an epoll descriptor that holds
every client. Who is ready is asked of epoll once a turn, and whoever has hung up is forgotten before anybody is served: a request
of a connection that is gone, and that was not taken, is then never done, however long it has waited for room. Everybody gets a
bounded share of a turn, and another one is first in each.
"""

from __future__ import annotations

import numpy as np

from ...base.host import libc, reactor
from ...base.host.libc import EPOLL_DATA_AT, EPOLL_EVENT_WORDS
from ...base.jit import kernel
from .. import replica_kernel as replica
from .. import turn_kernel
from . import iscsi_kernel, nbd_kernel
from . import session_kernel as sessions

BYTES_A_TURN = 1 << 20  # Taken of one client before the next has its turn.
GONE = libc.EPOLLRDHUP | libc.EPOLLHUP | libc.EPOLLERR
SWEEP_NS = 1_000_000_000
ROOM_NS = 1_000_000  # Somebody waits for room in the log: it is looked for again after so long, whatever happens.


@kernel()
def serve(doors, primary, index, now_ns):
    """Have the session's door take what stands in its inbox: MORE, BLOCKED or HANG_UP."""
    if doors.session[index].kind == sessions.NBD:
        return nbd_kernel.serve(doors, primary, index, now_ns)
    return np.int64(iscsi_kernel.serve(doors, primary, index, now_ns))


@kernel()
def streamed(doors, primary, index, now_ns):
    """Tell the session's door that what it streamed is sent."""
    if doors.session[index].kind == sessions.NBD:
        nbd_kernel.streamed(doors, primary, index, now_ns)
    else:
        iscsi_kernel.streamed(doors, primary, index, now_ns)


@kernel()
def hang_up(doors, index):
    """End a connection because of what it sent."""
    doors.counters[0].hung_up += 1
    sessions.end(doors, index)


@kernel()
def attend(doors, primary, index):
    """Serve one session: receive while there is something, up to its share; take requests; note for what it waits then."""
    session = doors.session[index]
    taken = np.int64(0)
    drained = False
    while True:
        now_ns = reactor.now_ns(primary.ring)
        before = session.left
        answer = serve(doors, primary, index, now_ns)
        taken += max(before - session.left, 0)
        if answer == sessions.HANG_UP:
            sessions.send_out(doors, primary, index, now_ns)  # What it was answered before that.
            hang_up(doors, index)
            return
        if answer == sessions.BLOCKED:
            doors.counters[0].blocked += session.blocked != sessions.AWAITS_ROOM
            session.blocked = sessions.AWAITS_ROOM
        else:
            session.blocked = 0
        if answer == sessions.BLOCKED or drained or taken >= BYTES_A_TURN:
            sends = session.out_end - session.out_begin + (session.size if session.state == sessions.STREAM else np.int64(0))
            if not send(doors, primary, index, now_ns) or taken >= BYTES_A_TURN:
                return
            taken += sends
            continue
        room = sessions.make_inbox_room(doors, index)
        got = libc.receive(session.socket, doors.inbox[index], session.in_end, room, np.int64(libc.MSG_DONTWAIT))
        if got == -libc.EAGAIN or got == -libc.EINTR:
            drained = True
            continue
        if got <= 0:
            sessions.end(doors, index)
            return
        session.in_end += got
        session.last_heard_ns = now_ns
        taken += got
        drained = got < room


@kernel()
def send(doors, primary, index, now_ns):
    """Send a session what it is to be sent, and ask epoll for what it waits for now.

    True when that made room: what stands in the inbox, behind a read that was sent whole or for want of room for its answer,
    may be taken.
    """
    session = doors.session[index]
    laid = session.out_end - session.out_begin
    makes_room = False
    answer = sessions.send_out(doors, primary, index, now_ns)
    while answer == 1 and session.state == sessions.STREAMED:
        streamed(doors, primary, index, reactor.now_ns(primary.ring))
        makes_room = makes_room or session.state == sessions.HEADER
        answer = sessions.send_out(doors, primary, index, now_ns)
    makes_room = makes_room or (answer == 1 and laid > 0 and session.blocked == sessions.AWAITS_ROOM)
    is_over = answer == 1 and session.state == sessions.LEAVING and session.owed == 0
    if answer == sessions.HANG_UP or is_over:
        sessions.end(doors, index)
        return False
    if makes_room:
        session.blocked = sessions.NEXT_TURN  # Unless it is served now: no event will tell of what stands there.
    wanted = np.int64(0 if session.blocked else libc.EPOLLIN)
    if answer == 0:
        wanted |= libc.EPOLLOUT
    if sessions.ask_events(doors, index, wanted) < 0:
        sessions.end(doors, index)
        return False
    return makes_room


@kernel()
def take_mail(doors, now_ns):
    """Give every connection that was handed over a session; one for which there is no place is closed."""
    at = doors.at[0]
    libc.fence_acquire()
    while at.mail_read < at.mail_written:
        mail = doors.mail[at.mail_read % doors.mail.size]
        if sessions.begin(doors, mail, now_ns) < 0:
            doors.counters[0].refused += 1
        at.mail_read += 1


@kernel()
def take_lanes(doors, primary, now_ns):
    """Take the answers that the Python thread has given, as far as there is room for them."""
    for number in range(doors.lane.size):
        lane = doors.lane[number]
        if lane.state != sessions.ANSWERED:
            continue
        libc.fence_acquire()
        index = lane.session
        session = doors.session[index]
        if session.generation == lane.generation and session.kind != sessions.FREE:
            if lane.size < 0:
                hang_up(doors, index)
            elif sessions.outbox_room(doors, index) < lane.size + sessions.ANSWER_BYTES_MAX:
                continue
            else:
                session.lane = 0
                if session.kind == sessions.ISCSI:
                    iscsi_kernel.answered(doors, primary, index, number, now_ns)
                else:
                    sessions.lay(doors, index, doors.lane_bytes[number], np.int64(0), lane.size)
                attend(doors, primary, index)
        lane.state = sessions.NO_LANE
        doors.at[0].lanes_asked -= 1


@kernel()
def waits_for_room(session):
    """Whether this session is not read from until there is room in the log or among the debts; its own socket has some."""
    return session.kind != sessions.FREE and session.blocked and session.lane == 0 and not session.wanted & libc.EPOLLOUT


@kernel()
def serve_clients(doors, primary):
    """Serve whoever has something to say, or waits for room; the first one is another in each turn."""
    at = doors.at[0]
    count = np.int64(0)
    if at.mail_read < at.mail_written:
        take_mail(doors, reactor.now_ns(primary.ring))
    if reactor.is_door_ready(primary.ring) or at.turn % 64 == 0:
        count = libc.epoll_ready(at.epoll, doors.events[: doors.events.size - EPOLL_EVENT_WORDS])
        if count < 0:
            return np.int64(0) if count == -libc.EINTR else count
    at.turn += 1
    for place in range(count):
        event = place * EPOLL_EVENT_WORDS
        index = np.int64(doors.events[event + EPOLL_DATA_AT])
        if index == sessions.WAKE_MARK:
            libc.read(at.wake, doors.words, np.int64(16), np.int64(8))
            take_mail(doors, reactor.now_ns(primary.ring))
        elif np.int64(doors.events[event]) & GONE:
            sessions.drop_unread(doors, index)
            sessions.end(doors, index)
    if at.is_taking:
        for step in range(count):
            event = (step + at.turn) % count * EPOLL_EVENT_WORDS
            index = np.int64(doors.events[event + EPOLL_DATA_AT])
            happened = np.int64(doors.events[event])
            if index != sessions.WAKE_MARK and not happened & GONE and doors.session[index].kind != sessions.FREE:
                is_free = happened & libc.EPOLLOUT and send(doors, primary, index, reactor.now_ns(primary.ring))
                if (is_free or happened & libc.EPOLLIN) and doors.session[index].kind != sessions.FREE:
                    attend(doors, primary, index)
        live = at.live
        for step in range(live):
            index = (step + at.turn) % live
            if waits_for_room(doors.session[index]):
                attend(doors, primary, index)
        if at.lanes_asked > 0:
            take_lanes(doors, primary, reactor.now_ns(primary.ring))
    return at.failed


@kernel()
def answer_clients(doors, primary):
    """Answer whatever was waiting for the writes that are complete now, and send what is laid."""
    at = doors.at[0]
    if at.owed_begin == at.owed_end or doors.owed[at.owed_begin % doors.owed.size].sequence > primary.at[0].completed:
        return
    now_ns = reactor.now_ns(primary.ring)
    while at.owed_begin < at.owed_end:
        debt = doors.owed[at.owed_begin % doors.owed.size]
        if debt.sequence > primary.at[0].completed:
            break
        at.owed_begin += 1
        session = doors.session[debt.session]
        if session.generation != debt.generation:
            continue  # Whoever asked is gone, and this is not his connection any more.
        session.owed -= 1
        if session.kind == sessions.NBD:
            nbd_kernel.pay(doors, debt.session, debt, now_ns)
        else:
            iscsi_kernel.pay(doors, primary, debt.session, debt, now_ns)
    for index in range(at.live):
        session = doors.session[index]
        is_due = session.out_begin < session.out_end or session.state == sessions.LEAVING
        if session.kind != sessions.FREE and is_due and not session.wanted & libc.EPOLLOUT:
            send(doors, primary, np.int64(index), now_ns)


@kernel()
def sweep(doors, now_ns):
    """Hang up on those who are in the middle of something and have not gone on with it for too long."""
    at = doors.at[0]
    if now_ns - at.swept_ns < SWEEP_NS:
        return
    at.swept_ns = now_ns
    for index in range(at.live):
        session = doors.session[index]
        is_amid = session.out_begin < session.out_end or session.state == sessions.STREAM or (
            not session.blocked and (session.in_begin < session.in_end or session.state != sessions.HEADER)
        )
        is_ours = session.owed > 0 or session.lane != 0  # It is we who have not answered.
        if session.kind != sessions.FREE and is_amid and not is_ours and now_ns - session.last_heard_ns > at.stall_ns:
            hang_up(doors, np.int64(index))


@kernel()
def leave(doors):
    """Hang up on everybody, those included who were not taken yet; what is owed is forgotten."""
    at = doors.at[0]
    while at.mail_read < at.mail_written:
        libc.close(doors.mail[at.mail_read % doors.mail.size].socket)
        at.mail_read += 1
    for index in range(doors.session.size):
        sessions.end(doors, np.int64(index))
    at.owed_begin = at.owed_end
    doors.counters[0].owed = 0


@kernel()
def next_look(doors, now_ns, until_ns):
    """By when sessions that are not read from are to be looked at again, for no event will tell of it: until_ns at most."""
    look_ns = until_ns
    for index in range(doors.at[0].live):
        session = doors.session[index]
        if waits_for_room(session):
            look_ns = min(look_ns, now_ns if session.blocked == sessions.NEXT_TURN else now_ns + ROOM_NS)
    return look_ns


@kernel()
def run(doors, primary, until_ns):
    """Serve clients and make progress until an instant, or until Python asks for the loop: 0, or the status that ends it."""
    at = doors.at[0]
    status = np.int64(replica.OK)
    while status == replica.OK and not at.returns:
        status = serve_clients(doors, primary)
        if status < 0:
            break
        answer_clients(doors, primary)  # A flush with nothing in front of it.
        now_ns = reactor.now_ns(primary.ring)
        if now_ns >= until_ns:
            break
        status = turn_kernel.progress(primary, next_look(doors, now_ns, until_ns))
        answer_clients(doors, primary)
        sweep(doors, now_ns)
        doors.counters[0].owed = at.owed_end - at.owed_begin
    at.returns = 0
    return status
