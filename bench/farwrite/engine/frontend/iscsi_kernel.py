"""iSCSI in its full feature phase: READ, WRITE and SYNCHRONIZE CACHE are done here, everything else by the Python session.

The loop takes a command when nothing can be said against it but by the volume: `is_plain` is that rule. Any other PDU is relayed:
it goes to the Python session under a CmdSN of its own, and what that answers comes back under the numbers of the connection.
Data-Out PDUs go to whoever has their task. So the loop makes nothing possible that Python alone does not do; it only is faster.

Data of a write goes into the log as it comes, each PDU by itself; the write is owed its answer from the last on. Where digests
were agreed on, sessions stay with Python.
"""

from __future__ import annotations

import numpy as np

from ...base.host import libc
from ...base.jit import kernel
from .. import primary_kernel as p
from .. import record_kernel as record
from . import body_kernel as body
from . import iscsi_state as state
from . import session_kernel as sessions
from .iscsi import pdu, sense
from .nbd_kernel import number_at, put_number

HEADER_BYTES = pdu.HEADER_BYTES
NO_TAG = pdu.NO_TAG
BLOCK_BYTES = 512
TRANSFER_BYTES_MAX = 4 << 20  # As the block limits page says.
SMALL_READ_BYTES = 16 << 10
SENSE_BYTES = 20  # its length, and fixed format
ROOM_BYTES = 1024  # In the outbox, before a PDU is looked at: R2Ts and a Reject.
TAKEN = 2

DATA_LOST, NO_SPACE = 0x4705, 0x2707  # Additional sense codes: protocol service CRC error; space allocation failed.

# States of a session's parser, beside those of all doors.
RELAYING, PADDING = 32, 33

WRITE, FLUSH = 1, 2  # Owed.command


@kernel()
def word_at(data, start):
    """32 bits, big-endian."""
    return number_at(data, start, 4)


@kernel()
def put_word(data, start, value):
    put_number(data, start, 4, np.int64(value) & NO_TAG)


@kernel()
def distance(one, other):
    """How far `one` lies behind `other` in serial numbers of 32 bits: 0 to 2^32 - 1."""
    return (one - other) & NO_TAG


@kernel()
def is_plain(data, start, size_bytes, flags, gate):
    """0 when the loop does this SCSI command, 1 when it is Python's. `flags` of the session; `gate` of its slot.

    LUN 0, a simple task, READ, WRITE or SYNCHRONIZE CACHE without anything special, inside the volume, and exactly as many bytes
    as the initiator announces.
    """
    opcode, control = np.int64(data[start + 32]), np.int64(data[start + 1])
    if gate != 0 or data[start + 4] != 0 or number_at(data, start + 8, 8) != 0 or control & 0x07 > 1:
        return np.int64(1)
    group = opcode >> 5
    if group == 4:
        lba, count, last = number_at(data, start + 34, 8), number_at(data, start + 42, 4), np.int64(data[start + 47])
    elif group == 5:
        lba, count, last = number_at(data, start + 34, 4), number_at(data, start + 38, 4), np.int64(data[start + 43])
    else:
        lba, count, last = number_at(data, start + 34, 4), number_at(data, start + 39, 2), np.int64(data[start + 41])
    blocks = size_bytes // BLOCK_BYTES
    if last != 0 or lba < 0 or lba > blocks or count > blocks - lba:
        return np.int64(1)
    expected = word_at(data, start + 20)
    writes, reads = control & pdu.WRITE, control & pdu.READ
    if opcode == 0x35 or opcode == 0x91:
        return np.int64(0 if not writes and not reads and control & pdu.FINAL and expected == 0 else 1)
    if data[start + 33] & 0xE0 != 0 or count == 0 or count * BLOCK_BYTES > TRANSFER_BYTES_MAX or count * BLOCK_BYTES != expected:
        return np.int64(1)
    if opcode == 0x28 or opcode == 0xA8 or opcode == 0x88:
        return np.int64(0 if reads and not writes and control & pdu.FINAL and number_at(data, start + 5, 3) == 0 else 1)
    if opcode == 0x2A or opcode == 0xAA or opcode == 0x8A:
        return np.int64(0 if writes and not reads and not flags & sessions.READ_ONLY else 1)
    return np.int64(1)


@kernel()
def lba_of(data, start):
    """The LBA of a command that is_plain."""
    return number_at(data, start + 34, 8 if data[start + 32] >> 5 == 4 else 4)


# Answers.


@kernel()
def put_numbers(wire, data, start, takes_status):
    """Write StatSN, ExpCmdSN and MaxCmdSN into a header; one that carries a status takes its StatSN."""
    put_word(data, start + 24, wire.status_sn)
    if takes_status:
        wire.status_sn = (wire.status_sn + 1) & NO_TAG
    put_window(wire, data, start)


@kernel()
def put_window(wire, data, start):
    free = max(wire.window - wire.counted - wire.relayed, 0)
    end = (wire.expected_sn + free - 1) & NO_TAG
    if distance(end, wire.window_end) < 1 << 31:
        wire.window_end = end
    put_word(data, start + 28, wire.expected_sn)
    put_word(data, start + 32, wire.window_end)


@kernel()
def begin_header(doors, index, opcode, flags, tag):
    """Zeros in the outbox where a header begins, with the words that all have; where that is. The caller asked outbox_room()."""
    session = doors.session[index]
    outbox, at = doors.outbox[index], session.out_end
    for byte in range(HEADER_BYTES):
        outbox[at + byte] = 0
    outbox[at] = np.uint8(opcode)
    outbox[at + 1] = np.uint8(flags)
    put_word(outbox, at + 16, tag)
    session.out_end += HEADER_BYTES
    return at


@kernel()
def lay_response(doors, index, tag):
    """SCSI Response: GOOD, everything moved as expected."""
    at = begin_header(doors, index, pdu.SCSI_RESPONSE, pdu.FINAL, tag)
    put_numbers(doors.wire[index], doors.outbox[index], at, True)


@kernel()
def lay_reject(doors, index, reason):
    """Reject the PDU whose header stands first in the inbox, and take nothing more."""
    session = doors.session[index]
    at = begin_header(doors, index, pdu.REJECT, pdu.FINAL, np.int64(NO_TAG))
    outbox = doors.outbox[index]
    outbox[at + 2] = np.uint8(reason)
    outbox[at + 7] = np.uint8(HEADER_BYTES)
    put_numbers(doors.wire[index], outbox, at, True)
    sessions.lay(doors, index, doors.inbox[index], session.in_begin, np.int64(HEADER_BYTES))
    session.state = sessions.LEAVING
    return np.int64(TAKEN)


@kernel()
def lay_failure(doors, index, tag, key, code):
    """SCSI Response: CHECK CONDITION, with this sense key and additional sense code, 0x4705 for 47h/05h."""
    wire = doors.wire[index]
    at = begin_header(doors, index, pdu.SCSI_RESPONSE, pdu.FINAL, tag)
    outbox = doors.outbox[index]
    outbox[at + 3], outbox[at + 7] = np.uint8(0x02), np.uint8(SENSE_BYTES)
    put_numbers(wire, outbox, at, True)
    at += HEADER_BYTES
    for byte in range(SENSE_BYTES):
        outbox[at + byte] = 0
    outbox[at + 1], outbox[at + 2], outbox[at + 4], outbox[at + 9] = np.uint8(18), np.uint8(0x70), np.uint8(key), np.uint8(10)
    outbox[at + 14], outbox[at + 15] = np.uint8(code >> 8), np.uint8(code & 0xFF)
    doors.session[index].out_end += SENSE_BYTES


@kernel()
def pay(doors, primary, index, debt, now_ns):
    """Lay the answer to a command whose write is complete."""
    if doors.session[index].flags & state.CHANNEL:
        tell_comparison(doors, index, debt)
        return
    wire = doors.wire[index]
    wire.counted -= 1
    lay_response(doors, index, debt.tag)
    if debt.command == FLUSH:
        doors.counters[0].flushes += 1
    elif debt.size > 0:
        sessions.note_write(doors, debt, now_ns)


# Reads.


@kernel()
def lay_data_in(doors, index):
    """Lay the header of the next Data-In of the read that is under way; answers its bytes."""
    wire = doors.wire[index]
    size = min(wire.read_bytes - wire.read_at, min(wire.initiator_segment, wire.max_burst - wire.read_burst))
    is_last = wire.read_at + size == wire.read_bytes
    wire.read_burst += size
    ends_burst = is_last or wire.read_burst == wire.max_burst
    flags = (pdu.FINAL if ends_burst else 0) | (pdu.STATUS if is_last else 0)
    if is_last:
        wire.counted -= 1
    at = begin_header(doors, index, pdu.DATA_IN, flags, wire.read_tag)
    outbox = doors.outbox[index]
    put_number(outbox, at + 5, 3, size)
    put_word(outbox, at + 20, np.int64(NO_TAG))
    if is_last:
        put_numbers(wire, outbox, at, True)
    else:
        put_window(wire, outbox, at)
    put_word(outbox, at + 36, wire.data_sn)
    put_word(outbox, at + 40, wire.read_at)
    wire.data_sn += 1
    wire.read_at += size
    if ends_burst:
        wire.read_burst = 0
    return size


@kernel()
def begin_read(doors, primary, index, tag, address, size, now_ns):
    """Answer a read: at once when it is small and one PDU, otherwise begin to stream it. False: the disk has refused."""
    wire, session = doors.wire[index], doors.session[index]
    is_small = size <= min(np.int64(SMALL_READ_BYTES), min(wire.initiator_segment, wire.max_burst))
    if is_small:
        got = sessions.look_up(doors, primary, index, doors.outbox[index], session.out_end + HEADER_BYTES, size, address)
        if got != size:
            return False
    else:  # The first piece is looked up here, so that a disk that refuses is answered as such.
        wanted = min(size, np.int64(sessions.SEND_MAX))
        if sessions.look_up(doors, primary, index, doors.scratch, np.int64(sessions.SCRATCH_AT), wanted, address) != wanted:
            return False
    wire.read_tag, wire.read_at, wire.read_bytes, wire.read_address = tag, 0, size, address
    wire.read_burst = wire.data_sn = 0
    wire.counted += 1
    first = lay_data_in(doors, index)
    if is_small:
        session.out_end += size
        sessions.note_read(doors, size, now_ns, now_ns)
    else:
        sessions.begin_stream(doors, index, tag, np.int64(0), address, first, now_ns)
    return True


@kernel()
def streamed(doors, primary, index, now_ns):
    """A Data-In is sent: begin the next one, or go on with requests."""
    wire, session = doors.wire[index], doors.session[index]
    if wire.read_at < wire.read_bytes:
        if sessions.outbox_room(doors, index) < HEADER_BYTES + sessions.ANSWER_BYTES_MAX:
            return  # Tried again once what was laid behind it is sent.
        address, asked_ns = wire.read_address + wire.read_at, session.asked_ns
        size = lay_data_in(doors, index)
        sessions.begin_stream(doors, index, wire.read_tag, np.int64(0), address, size, asked_ns)
        return
    sessions.note_read(doors, wire.read_bytes, session.asked_ns, now_ns)
    session.state = sessions.HEADER


# Writes.


@kernel()
def task_of(doors, index, tag):
    """The place of a task that waits for data, -1 when the loop has none of this tag."""
    tasks = doors.task[index]
    for place in range(tasks.size):
        if tasks[place].is_used and tasks[place].tag == tag:
            return np.int64(place)
    return np.int64(-1)


@kernel()
def free_task(doors, index):
    tasks = doors.task[index]
    for place in range(tasks.size):
        if not tasks[place].is_used:
            return np.int64(place)
    return np.int64(-1)


@kernel()
def drop_tasks(doors, index):
    """Forget every write whose data is still coming: it is aborted, and never answered."""
    wire, tasks = doors.wire[index], doors.task[index]
    for place in range(tasks.size):
        if tasks[place].is_used:
            tasks[place].is_used = 0
            wire.counted -= 1


@kernel()
def drop_task(doors, index, tag):
    """Forget one of them: 1, or 0 when there is none of this tag."""
    place = task_of(doors, index, tag)
    if place < 0:
        return np.int64(0)
    doors.task[index][place].is_used = 0
    doors.wire[index].counted -= 1
    return np.int64(1)


@kernel()
def ask_for_data(doors, index, task):
    """R2Ts for what of a write has not come, as many as may be outstanding. The outbox has room for them."""
    wire = doors.wire[index]
    while task.asked < task.needed and task.bursts_asked - task.bursts_done < min(wire.max_outstanding, 8):
        size = min(wire.max_burst, task.needed - task.asked)
        at = begin_header(doors, index, pdu.R2T, pdu.FINAL, task.tag)
        outbox = doors.outbox[index]
        put_word(outbox, at + 20, task.bursts_asked)
        put_numbers(wire, outbox, at, False)
        put_word(outbox, at + 36, task.bursts_asked)
        put_word(outbox, at + 40, task.asked)
        put_word(outbox, at + 44, size)
        if task.bursts_asked == task.bursts_done:
            task.burst_end = task.asked + size
        task.asked += size
        task.bursts_asked += 1


@kernel()
def begin_write(doors, index, now_ns):
    """Take a write whose header stands first: TAKEN, BLOCKED, or HANG_UP after a Reject."""
    session, wire = doors.session[index], doors.wire[index]
    inbox, start = doors.inbox[index], session.in_begin
    control, size = np.int64(inbox[start + 1]), number_at(inbox, start + 5, 3)
    tag, needed, address = word_at(inbox, start + 16), word_at(inbox, start + 20), lba_of(inbox, start) * BLOCK_BYTES
    first = min(wire.first_burst, needed)
    is_final = control & pdu.FINAL
    if size > first or (size > 0 and not wire.unasked & 2) or (not is_final and not wire.unasked & 1):
        return lay_reject(doors, index, np.int64(pdu.REASON_PROTOCOL))
    ends = is_final and size == needed
    place = np.int64(-1)
    if not ends:
        place = free_task(doors, index)
        if place < 0 or task_of(doors, index, tag) >= 0:
            return lay_reject(doors, index, np.int64(pdu.REASON_PROTOCOL))
        task = doors.task[index][place]
        task.is_used, task.tag, task.address, task.needed, task.received = 1, tag, address, needed, 0
        task.data_sn = task.bursts_asked = task.bursts_done = 0
        task.takes_unasked, task.burst_end, task.asked = (0 if is_final else 1), first, size
    wire.expected_sn = (wire.expected_sn + 1) & NO_TAG
    wire.counted += 1
    begin_body(doors, index, place, tag, address, size, needed, now_ns)
    return np.int64(TAKEN)


@kernel()
def begin_body(doors, index, place, tag, address, size, needed, now_ns):
    """The data segment of the PDU that stands first goes into the log from here on; its header is taken."""
    session, wire = doors.session[index], doors.wire[index]
    session.in_begin += HEADER_BYTES
    session.state, session.tag, session.address, session.left, session.size = sessions.BODY, tag, address, size, needed
    session.asked_ns = now_ns
    wire.task, wire.padding, wire.ends = place, -size & 3, 1 if place < 0 else 0


@kernel()
def take_data(doors, index, place, now_ns):
    """A Data-Out for a write of ours, whose header stands first. Data out of order ends the write (RFC 7143 section 7.9)."""
    session, wire = doors.session[index], doors.wire[index]
    inbox, start = doors.inbox[index], session.in_begin
    task = doors.task[index][place]
    size, is_final = number_at(inbox, start + 5, 3), inbox[start + 1] & pdu.FINAL != 0
    transfer_tag, offset = word_at(inbox, start + 20), word_at(inbox, start + 40)
    is_next = offset == task.received and word_at(inbox, start + 36) == task.data_sn and inbox[start + 4] == 0
    end = task.received + size
    if transfer_tag == NO_TAG:
        fits = task.takes_unasked and end <= task.burst_end
    else:
        is_asked = not task.takes_unasked and task.bursts_done < task.bursts_asked and transfer_tag == task.bursts_done
        fits = is_asked and end <= task.burst_end and is_final == (end == task.burst_end)
    if not is_next or not fits:
        task.is_used = 0
        wire.counted -= 1
        lay_failure(doors, index, task.tag, sense.ABORTED_COMMAND, DATA_LOST)
        session.in_begin += HEADER_BYTES
        session.state, session.left = sessions.DISCARD, np.int64(inbox[start + 4]) * 4 + size + (-size & 3)
        return np.int64(TAKEN)
    task.data_sn += 1
    if transfer_tag == NO_TAG:
        task.asked = end
        if is_final:
            task.takes_unasked, task.data_sn = 0, 0
    elif is_final:
        task.bursts_done += 1
        task.data_sn = 0
        task.burst_end = min(end + wire.max_burst, task.needed)
    begin_body(doors, index, place, task.tag, task.address + offset, size, task.needed, now_ns)
    return np.int64(TAKEN)


@kernel()
def take_body(doors, primary, index, now_ns):
    """Take a piece of the data segment into the log, if enough of it has arrived."""
    session = doors.session[index]
    if session.left == 0:
        return end_body(doors, primary, index, now_ns)
    size = body.next_piece(doors, index)
    if size <= 0:
        return size
    if not sessions.may_owe(doors, index):
        return np.int64(sessions.BLOCKED)
    sequence = body.take_piece(doors, primary, index, size, now_ns)
    if sequence == p.NO_SPACE:
        return refuse_rest(doors, index)
    if sequence < 0:
        return np.int64(sessions.BLOCKED if sequence == p.NO_ROOM else sessions.HANG_UP)
    if session.left == 0:
        return end_body(doors, primary, index, now_ns)
    return np.int64(TAKEN)


@kernel()
def refuse_rest(doors, index):
    """Others have taken the room that was there when the write began: it ends, and what comes of it is not taken."""
    session, wire = doors.session[index], doors.wire[index]
    if wire.task >= 0:
        doors.task[index][wire.task].is_used = 0
    wire.counted -= 1
    lay_failure(doors, index, session.tag, sense.DATA_PROTECT, NO_SPACE)
    session.state, session.left = sessions.DISCARD, session.left + wire.padding
    wire.padding = 0
    return np.int64(TAKEN)


@kernel()
def end_body(doors, primary, index, now_ns):
    """A data segment is in the log: the write is owed its answer, or more data is asked for."""
    session, wire = doors.session[index], doors.wire[index]
    if not sessions.may_owe(doors, index) or sessions.outbox_room(doors, index) < ROOM_BYTES:
        return np.int64(sessions.BLOCKED)
    is_whole = wire.ends != 0
    if not is_whole:
        task = doors.task[index][wire.task]
        task.received = session.address - task.address
        if task.received == task.needed and not task.takes_unasked:
            task.is_used = 0
            is_whole = True
        elif not task.takes_unasked:
            ask_for_data(doors, index, task)
    if is_whole:
        sessions.owe(
            doors, index, p.barrier(primary), session.tag, np.int64(WRITE), np.int64(0), session.size, session.asked_ns
        )
    session.state = PADDING
    return np.int64(TAKEN)


@kernel()
def pass_padding(doors, index):
    session, wire = doors.session[index], doors.wire[index]
    if session.in_end - session.in_begin < wire.padding:
        return np.int64(sessions.MORE)
    session.in_begin += wire.padding
    wire.padding = 0
    session.state = sessions.HEADER
    return np.int64(TAKEN)


# The relay.


@kernel()
def hurry(doors, primary, index, now_ns):
    """Send what was laid for another row than the one that is served. True while that row goes on."""
    session = doors.session[index]
    if session.state == sessions.STREAM or session.state == sessions.STREAMED:
        return True  # It is sent behind what is under way.
    answer = sessions.send_out(doors, primary, index, now_ns)
    wanted = np.int64(0 if session.blocked else libc.EPOLLIN)
    if answer == 0:
        wanted |= libc.EPOLLOUT
    if answer == sessions.HANG_UP or sessions.ask_events(doors, index, wanted) < 0:
        sessions.end(doors, index)
        return False
    return True


@kernel()
def partner_of(doors, index):
    """The other row of this session, -1 when it has ended."""
    wire = doors.wire[index]
    other = wire.partner - 1
    if other < 0 or doors.session[other].generation != wire.partner_generation:
        return np.int64(-1)
    return np.int64(other)


@kernel()
def relay(doors, primary, index, takes_number, now_ns):
    """Give the PDU whose header stands first to Python, a command under the number that comes next there."""
    session, wire = doors.session[index], doors.wire[index]
    other = partner_of(doors, index)
    if other < 0:
        return np.int64(sessions.HANG_UP)
    if sessions.outbox_room(doors, other) < ROOM_BYTES:
        return np.int64(sessions.BLOCKED)
    inbox, start = doors.inbox[index], session.in_begin
    opcode, tasked = inbox[start] & 0x3F, np.int64(inbox[start + 1]) & 0x07
    size = number_at(inbox, start + 5, 3)
    total = np.int64(inbox[start + 4]) * 4 + size + (-size & 3)
    if opcode != pdu.DATA_OUT and opcode != pdu.SNACK:
        put_word(inbox, start + 24, wire.relay_sn)
    if takes_number:
        wire.relay_sn = (wire.relay_sn + 1) & NO_TAG
        wire.expected_sn = (wire.expected_sn + 1) & NO_TAG
        wire.relayed += 1
        if opcode == pdu.SCSI_COMMAND and tasked > 1:
            wire.in_order = 1
    sessions.lay(doors, other, inbox, start, np.int64(HEADER_BYTES))
    session.in_begin += HEADER_BYTES
    session.state, session.left = RELAYING, total
    return relay_data(doors, primary, index, now_ns)


@kernel()
def relay_data(doors, primary, index, now_ns):
    """Give more of the PDU that is being relayed."""
    session = doors.session[index]
    other = partner_of(doors, index)
    if other < 0:
        return np.int64(sessions.HANG_UP)
    room = sessions.outbox_room(doors, other)
    size = min(min(session.in_end - session.in_begin, session.left), room)
    sessions.lay(doors, other, doors.inbox[index], session.in_begin, size)
    session.in_begin += size
    session.left -= size
    if not hurry(doors, primary, other, now_ns):
        return np.int64(sessions.HANG_UP)
    if session.left == 0:
        session.state = sessions.HEADER
        return np.int64(TAKEN)
    return np.int64(sessions.MORE if size < room else sessions.BLOCKED)


@kernel()
def set_up(doors, index):
    """Join the two rows of a session: the relay's first PDU says on what terms."""
    session = doors.session[index]
    if session.in_end - session.in_begin < HEADER_BYTES:
        return np.int64(sessions.MORE)
    inbox, start, slot = doors.inbox[index], session.in_begin, session.flags >> state.SLOT_SHIFT
    if inbox[start] != state.SETUP_OPCODE:
        return np.int64(sessions.HANG_UP)
    for other in range(doors.session.size):
        client = doors.session[other]
        if client.kind != sessions.ISCSI or client.flags & state.RELAY or client.flags >> state.SLOT_SHIFT != slot:
            continue
        wire, ours = doors.wire[other], doors.wire[index]
        if wire.number == client.number:
            continue
        tasks = doors.task[other]
        for place in range(tasks.size):
            tasks[place].is_used = 0
        wire.number, ours.number = client.number, session.number
        wire.partner, wire.partner_generation = index + 1, session.generation
        ours.partner, ours.partner_generation = other + 1, client.generation
        wire.slot = slot
        wire.status_sn, wire.expected_sn = word_at(inbox, start + 8), word_at(inbox, start + 12)
        wire.first_burst, wire.max_burst = word_at(inbox, start + 16), word_at(inbox, start + 20) & ~np.int64(511)
        wire.max_outstanding = word_at(inbox, start + 24)
        wire.initiator_segment, wire.target_segment = word_at(inbox, start + 28) & ~np.int64(511), word_at(inbox, start + 32)
        wire.unasked, wire.window = word_at(inbox, start + 36), word_at(inbox, start + 40)
        wire.relay_sn, wire.window_end = wire.expected_sn, (wire.expected_sn + wire.window - 1) & NO_TAG
        wire.relayed = wire.counted = wire.in_order = wire.padding = 0
        session.in_begin += HEADER_BYTES
        client.blocked = sessions.NEXT_TURN
        return np.int64(TAKEN)
    return np.int64(sessions.HANG_UP)


@kernel()
def take_answer(doors, primary, index, now_ns):
    """Give a PDU of Python's to the initiator, under the numbers of its connection."""
    session, ours = doors.session[index], doors.wire[index]
    if ours.number != session.number:
        return set_up(doors, index)
    if session.in_end - session.in_begin < HEADER_BYTES:
        return np.int64(sessions.MORE)
    inbox, start = doors.inbox[index], session.in_begin
    size = number_at(inbox, start + 5, 3)
    total = HEADER_BYTES + size + (-size & 3)
    if total > doors.inbox.shape[1]:
        return np.int64(sessions.HANG_UP)
    if session.in_end - start < total:
        return np.int64(sessions.MORE)
    other = partner_of(doors, index)
    if other < 0:
        return np.int64(sessions.HANG_UP)
    if sessions.outbox_room(doors, other) < total + ROOM_BYTES:
        return np.int64(sessions.BLOCKED)
    wire = doors.wire[other]
    opcode, flags = inbox[start] & 0x3F, np.int64(inbox[start + 1])
    if opcode == state.DROP_OPCODE:
        drop_tasks(doors, other)
        if doors.session[other].owed > 0 or sessions.outbox_room(doors, index) < ROOM_BYTES:
            return np.int64(sessions.BLOCKED)  # What is in the log is answered before.
        sessions.lay(doors, index, inbox, start, total)
        session.in_begin += total
        return np.int64(TAKEN)
    free = distance(word_at(inbox, start + 32) + 1, word_at(inbox, start + 28))
    wire.relayed = distance(wire.relay_sn, word_at(inbox, start + 28)) + wire.window - min(free, wire.window)
    if wire.relayed == 0:
        wire.in_order = 0
    has_status = not (opcode == pdu.R2T or (opcode == pdu.DATA_IN and not flags & pdu.STATUS))
    is_asking = opcode == pdu.NOP_IN and word_at(inbox, start + 16) == NO_TAG
    if has_status or opcode == pdu.R2T:
        put_numbers(wire, inbox, start, has_status and not is_asking)
    else:
        put_window(wire, inbox, start)
    sessions.lay(doors, other, inbox, start, total)
    session.in_begin += total
    if not hurry(doors, primary, other, now_ns):
        return np.int64(sessions.HANG_UP)
    return np.int64(TAKEN)


@kernel()
def answered(doors, primary, index, number, now_ns):
    """The Python thread of the slow lane has nothing to do with iSCSI: a session has its relay."""


# Compare-and-write, for the Python sessions.


@kernel()
def take_comparison(doors, primary, index, now_ns):
    """Do one compare-and-write; what it came to is told once everything that it was compared with is complete."""
    session, inbox, start = doors.session[index], doors.inbox[index], doors.session[index].in_begin
    head = np.int64(32)
    if session.in_end - start < head:
        return np.int64(sessions.MORE)
    tag, address, size = number_at(inbox, start + 8, 8), number_at(inbox, start + 16, 8), number_at(inbox, start + 24, 8)
    if word_at(inbox, start) != state.ASK_MAGIC or not 1 <= size <= state.COMPARE_BYTES_MAX:
        return np.int64(sessions.HANG_UP)
    if not record.lies_in(address, size, np.int64(0), session.size_bytes):
        return np.int64(sessions.HANG_UP)
    if session.in_end - start < head + 2 * size:
        return np.int64(sessions.MORE)
    if not sessions.may_owe(doors, index):
        return np.int64(sessions.BLOCKED)
    compared, written = start + head, start + head + size
    answer = p.compare_and_write(primary, inbox, compared, inbox, written, address, size, doors.scratch, np.int64(0), now_ns)
    if answer == 0:
        return np.int64(sessions.BLOCKED)
    mismatch = np.int64(-1)
    if answer == p.NO_SPACE:
        mismatch = np.int64(-libc.ENOSPC)
    elif answer == p.UNEQUAL:
        mismatch = np.int64(0)
        while doors.scratch[mismatch] == inbox[compared + mismatch]:
            mismatch += 1
    elif answer < 0:
        return np.int64(sessions.HANG_UP)
    sessions.owe(doors, index, p.barrier(primary), tag, np.int64(WRITE), mismatch, np.int64(0), now_ns)
    session.in_begin += head + 2 * size
    return np.int64(TAKEN)


@kernel()
def tell_comparison(doors, index, debt):
    outbox, at = doors.outbox[index], doors.session[index].out_end
    put_number(outbox, at, 4, np.int64(state.TOLD_MAGIC))
    is_refused = debt.answer < -1
    put_number(outbox, at + 4, 4, -debt.answer if is_refused else np.int64(0))
    put_number(outbox, at + 8, 8, debt.tag)
    put_number(outbox, at + 16, 8, np.int64(-1) if is_refused else debt.answer)
    doors.session[index].out_end += 24


# Everything.


@kernel()
def serve(doors, primary, index, now_ns):
    """Take what stands in the session's inbox: MORE, BLOCKED or HANG_UP."""
    session = doors.session[index]
    while True:
        if session.state == sessions.STREAM or session.state == sessions.STREAMED:
            return np.int64(sessions.BLOCKED)
        if session.state == sessions.LEAVING:
            session.in_begin = session.in_end
            return np.int64(sessions.MORE)
        if sessions.outbox_room(doors, index) < ROOM_BYTES + 2 * sessions.ANSWER_BYTES_MAX:
            return np.int64(sessions.BLOCKED)
        if session.flags & state.CHANNEL:
            answer = take_comparison(doors, primary, index, now_ns)
        elif session.flags & state.RELAY:
            answer = take_answer(doors, primary, index, now_ns)
        elif doors.wire[index].number != session.number:
            return np.int64(sessions.BLOCKED)  # It is not set up yet.
        elif session.state == sessions.BODY:
            answer = take_body(doors, primary, index, now_ns)
        elif session.state == PADDING:
            answer = pass_padding(doors, index)
        elif session.state == RELAYING:
            answer = relay_data(doors, primary, index, now_ns)
        elif session.state == sessions.DISCARD:
            answer = discard(doors, index)
        else:
            answer = take_pdu(doors, primary, index, now_ns)
        if answer != TAKEN:
            return answer


@kernel()
def discard(doors, index):
    session = doors.session[index]
    size = min(session.in_end - session.in_begin, session.left)
    session.in_begin += size
    session.left -= size
    if session.left > 0:
        return np.int64(sessions.MORE)
    session.state = sessions.HEADER
    return np.int64(TAKEN)


@kernel()
def take_pdu(doors, primary, index, now_ns):
    """Do, relay or ignore the PDU whose header stands first."""
    session, wire = doors.session[index], doors.wire[index]
    if session.in_end - session.in_begin < HEADER_BYTES:
        return np.int64(sessions.MORE)
    inbox, start = doors.inbox[index], session.in_begin
    opcode, is_immediate = inbox[start] & 0x3F, inbox[start] & pdu.IMMEDIATE != 0
    size = number_at(inbox, start + 5, 3)
    if size > wire.target_segment or inbox[start + 4] * 4 > pdu.AHS_BYTES_MAX:
        return lay_reject(doors, index, np.int64(pdu.REASON_FIELD))
    if opcode == state.DROP_OPCODE or opcode == state.SETUP_OPCODE:
        return lay_reject(doors, index, np.int64(pdu.REASON_COMMAND))
    if opcode == pdu.DATA_OUT:
        place = task_of(doors, index, word_at(inbox, start + 16))
        if place >= 0:
            return take_data(doors, index, place, now_ns)
        return relay(doors, primary, index, False, now_ns)
    takes_number = not is_immediate and (
        opcode == pdu.SCSI_COMMAND or opcode == pdu.NOP_OUT or opcode == pdu.TASK_MANAGEMENT or opcode == pdu.TEXT
        or opcode == pdu.LOGOUT
    )  # fmt: skip
    if takes_number:
        ahead = distance(word_at(inbox, start + 24), wire.expected_sn)
        if ahead > distance(wire.window_end, wire.expected_sn) or distance(wire.window_end + 1, wire.expected_sn) == 0:
            session.in_begin += HEADER_BYTES  # Outside of the window: ignored without a word.
            session.state, session.left = sessions.DISCARD, np.int64(inbox[start + 4]) * 4 + size + (-size & 3)
            return np.int64(TAKEN)
        if ahead != 0:
            return lay_reject(doors, index, np.int64(pdu.REASON_PROTOCOL))  # On one connection none overtakes another.
    if opcode == pdu.SCSI_COMMAND and takes_number and not wire.in_order and not doors.at[0].is_shutting_down:
        libc.fence_acquire()
        if is_plain(inbox, start, session.size_bytes, session.flags, doors.gate[wire.slot]) == 0:
            return take_command(doors, primary, index, now_ns)
    if opcode == pdu.TASK_MANAGEMENT or (opcode == pdu.SCSI_COMMAND and inbox[start + 1] & 0x07 > 1):
        if session.owed > 0:
            return np.int64(sessions.BLOCKED)  # What came before is answered before.
        other = partner_of(doors, index)
        if other < 0:
            return np.int64(sessions.HANG_UP)
        if sessions.outbox_room(doors, other) < ROOM_BYTES:
            return np.int64(sessions.BLOCKED)
        if opcode == pdu.TASK_MANAGEMENT and inbox[start + 1] & 0x7F != pdu.ABORT_TASK:
            drop_tasks(doors, index)
        elif opcode == pdu.TASK_MANAGEMENT:
            inbox[start + state.ABORTED_AT] = np.uint8(drop_task(doors, index, word_at(inbox, start + 20)))
    return relay(doors, primary, index, takes_number, now_ns)


@kernel()
def take_command(doors, primary, index, now_ns):
    """Do a command that is_plain."""
    session, wire = doors.session[index], doors.wire[index]
    inbox, start = doors.inbox[index], session.in_begin
    control, tag = np.int64(inbox[start + 1]), word_at(inbox, start + 16)
    if control & pdu.WRITE:
        if not sessions.may_owe(doors, index):
            return np.int64(sessions.BLOCKED)
        refused = p.room_refusal(primary, lba_of(inbox, start) * BLOCK_BYTES, word_at(inbox, start + 20))
        if refused == p.NO_ROOM:
            return np.int64(sessions.BLOCKED)
        if refused < 0:
            return relay(doors, primary, index, True, now_ns)  # Python takes its data, and answers what there is to say.
        return begin_write(doors, index, now_ns)
    if control & pdu.READ:
        size = word_at(inbox, start + 20)
        if sessions.outbox_room(doors, index) < ROOM_BYTES + HEADER_BYTES + min(size, np.int64(SMALL_READ_BYTES)):
            return np.int64(sessions.BLOCKED)
        wire.expected_sn = (wire.expected_sn + 1) & NO_TAG
        if not begin_read(doors, primary, index, tag, lba_of(inbox, start) * BLOCK_BYTES, size, now_ns):
            wire.expected_sn = (wire.expected_sn - 1) & NO_TAG
            return relay(doors, primary, index, True, now_ns)
    else:
        if not sessions.may_owe(doors, index):
            return np.int64(sessions.BLOCKED)
        wire.counted += 1
        sessions.owe(doors, index, p.barrier(primary), tag, np.int64(FLUSH), np.int64(0), np.int64(0), now_ns)
        wire.expected_sn = (wire.expected_sn + 1) & NO_TAG
    session.in_begin += HEADER_BYTES
    return np.int64(TAKEN)
