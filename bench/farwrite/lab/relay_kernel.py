"""The relay's loop: bytes off one TCP connection, held for the one-way delay, onto another.

Each connection has two lanes (near to far, far to near), each a ring of bytes and a ring of segments in order of arrival; a
segment is what one recv answered, or the end or the reset of the connection, which travel as late as everything else. A segment
is due a delay after its last bit has left, and never before the one ahead of it: a stream knows no reordering. `pass_wire`,
`admit`, `next_due` and `release` are the steps; `relay` is the loop around them. It opens and closes nothing: that is relay.py's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..base.histogram_kernel import SLOTS, slot_of
from ..base.host import libc
from ..base.jit import kernel
from ..base.prng_kernel import key_of, unit_of
from ..base.row import Row, i64, rows_of

# Board words shared with the lab, by direction d (0 near to far, 1 far to near) where marked.
STOP, DELAY_NS, CUT, SEGMENTS, BYTES, DROPS, LATE_NS_MAX, FULL, WAKEUPS = 0, 2, 4, 6, 8, 10, 12, 14, 16
RATE, JITTERED, SEED = 18, 20, 22  # d: bits per second or 0; d: whether delays are drawn; of the draws
LATE = 32  # How late every segment left, a histogram of SLOTS counts by direction; histogram.py.
BOARD_WORDS = LATE + 2 * SLOTS

# Whether more may come from a lane's source (Lane.reads).
WAITING, READING, ENDED, DONE = range(4)

# Of a connection (Ends.state).
VACANT, OPEN, CLOSING, RESETTING = range(4)
SIDES = ("near_fd", "far_fd")

# What a segment's size says of those that carry no bytes.
END, RESET = 0, -1

CONNECTIONS = 32
SEGMENT_BYTES_MAX = 64 << 10  # As large as segmentation offload makes them.
PACKET_BYTES = 1448  # Of the stream, in a packet of 1500: IP and TCP with timestamps take 52.
PACKET_OVERHEAD_BYTES = 52 + 38  # And Ethernet: preamble, header, checksum and gap. A rate counts them, as a wire's does.
SEGMENT_NS = 1_000_000  # A slow wire is fed in segments that take it no longer than this.
RING_BYTES = 6 << 20  # Under way at most, by lane: what Linux offers as a receive window, tcp_rmem's maximum; tcp(7).
RING_SEGMENTS = 1 << 13

NEVER = np.int64(1) << np.int64(62)

SPIN_NS = 8_000  # A sleep shorter than this costs more than it saves, as in the ferry.
BACKLOG_NS = 1_000_000  # Waiting for the rate at most; beyond it the relay does not read and TCP pushes back.
SLEEP_NS_MAX = 50_000_000
BURST = 16  # Segments taken from one lane before the others are looked at.


class Lane(Row):
    """How far one direction of a connection is. Segments and bytes are counted from the last time that it was empty."""

    head = i64("segment: the oldest that is held")
    tail = i64("segment: the next to be held")
    free = i64("byte: where the next segment is put")
    oldest = i64("byte: where the oldest held segment begins")
    sent = i64("bytes of the oldest segment that its receiver has taken")
    last_due_ns = i64("ns, CLOCK_MONOTONIC: no later segment leaves before this")
    from_ns = i64("ns, CLOCK_MONOTONIC: nothing counts as sent before this")
    reads = i64("WAITING, READING, ENDED or DONE")
    broken = i64("1: its source is gone, as the other end is to hear by a reset")
    deaf = i64("1: its receiver takes nothing any more")
    blocked = i64("1: its receiver's buffer is full")
    drawn = i64("delays drawn")
    polled = i64("index among the sockets that are polled")


class Ends(Row):
    """A connection. Sockets are -1 until they are there; the state is written last by whoever hands it on."""

    near_fd = i64("descriptor of the near socket")
    far_fd = i64("descriptor of the far socket")
    state = i64("VACANT, OPEN, CLOSING or RESETTING")


class Streams(NamedTuple):
    """What is under way, by lane: 2 * connection + direction."""

    data: np.ndarray  # uint8, (lanes, RING_BYTES and room for one segment more, so that none is split)
    size: np.ndarray  # int64, (lanes, RING_SEGMENTS): bytes, or END or RESET
    due_ns: np.ndarray  # int64, (lanes, RING_SEGMENTS), CLOCK_MONOTONIC
    at: np.ndarray  # Lane, by lane
    wire_ns: np.ndarray  # int64 by direction: when the last bit of everything admitted has left


def streams(
    connections: int = CONNECTIONS, ring_bytes: int = RING_BYTES, ring_segments: int = RING_SEGMENTS
) -> Streams:
    """Nothing under way. Pages are touched as far as they are needed."""
    lanes = 2 * connections
    return Streams(
        np.zeros((lanes, ring_bytes + SEGMENT_BYTES_MAX), np.uint8),
        np.zeros((lanes, ring_segments), np.int64),
        np.zeros((lanes, ring_segments), np.int64),
        rows_of(Lane, lanes),
        np.zeros(2, np.int64),
    )


@kernel()
def clear(held, lane, from_ns):
    """A lane for a new connection: empty, and nothing in it counts as sent before `from_ns`."""
    at = held.at[lane]
    at.head = at.tail = at.free = at.oldest = at.sent = at.last_due_ns = 0
    at.broken = at.deaf = at.blocked = at.drawn = at.polled = 0
    at.from_ns, at.reads = from_ns, READING


@kernel()
def socket_of(ends, connection, side):
    """The descriptor of a connection's near (0) or far (1) socket; -1 until it is there."""
    return ends[connection].near_fd if side == 0 else ends[connection].far_fd


@kernel()
def post(ends, connection, state):
    """Hand a connection over: what was written of it before is seen by whoever sees the state."""
    libc.fence_release()
    ends[connection].state = state


@kernel()
def has_room(held, lane):
    """Whether one more segment of any size may be taken in. One place is kept for a reset."""
    at = held.at
    if at[lane].tail - at[lane].head >= held.size.shape[1] - 1:
        return False
    ring_bytes = held.data.shape[1] - SEGMENT_BYTES_MAX
    return at[lane].free + SEGMENT_BYTES_MAX - at[lane].oldest <= ring_bytes


@kernel()
def next_start(held, lane):
    """Where in the lane's data the next segment is to be read to."""
    return held.at[lane].free % (held.data.shape[1] - SEGMENT_BYTES_MAX)


@kernel()
def oldest_start(held, lane):
    """Where in the lane's data the oldest segment stands."""
    return held.at[lane].oldest % (held.data.shape[1] - SEGMENT_BYTES_MAX)


@kernel()
def segment_bytes(rate_bits_per_s):
    """How much to read at once: as much as there is, or what a slow wire carries in SEGMENT_NS."""
    if rate_bits_per_s <= 0:
        return np.int64(SEGMENT_BYTES_MAX)
    carried = rate_bits_per_s // (8 * (np.int64(1_000_000_000) // SEGMENT_NS))
    return min(max(carried, np.int64(PACKET_BYTES)), np.int64(SEGMENT_BYTES_MAX))


@kernel()
def pass_wire(held, direction, size, sent_ns, rate_bits_per_s):
    """When the last bit of a segment that was sent then has left: the wire carries one after the other. No rate: at once."""
    if rate_bits_per_s <= 0 or size <= 0:
        return sent_ns
    begin_ns = max(held.wire_ns[direction], sent_ns)
    wire_bytes = size + -(-size // PACKET_BYTES) * PACKET_OVERHEAD_BYTES
    held.wire_ns[direction] = begin_ns + wire_bytes * np.int64(8_000_000_000) // rate_bits_per_s
    return held.wire_ns[direction]


@kernel()
def admit(held, lane, size, left_ns, delay_ns):
    """Note the segment of `size` bytes that stands at next_start(): due a delay after it left, never before the one ahead."""
    at = held.at
    index = at[lane].tail % held.size.shape[1]
    due_ns = max(left_ns + delay_ns, at[lane].last_due_ns)
    held.size[lane, index] = size
    held.due_ns[lane, index] = due_ns
    at[lane].last_due_ns = due_ns
    at[lane].free += max(size, 0)
    at[lane].tail += 1

    assert at[lane].tail - at[lane].head <= held.size.shape[1]
    return due_ns


@kernel()
def next_due(held, lane):
    """When the oldest segment is due, or NEVER."""
    at = held.at
    if at[lane].head == at[lane].tail:
        return NEVER
    return held.due_ns[lane, at[lane].head % held.due_ns.shape[1]]


@kernel()
def oldest_size(held, lane):
    """The size of the oldest segment, or what it is instead of bytes."""
    return held.size[lane, held.at[lane].head % held.size.shape[1]]


@kernel()
def release(held, lane):
    """Forget the oldest segment. An empty lane begins anew, where the processor's cache still has it."""
    at = held.at
    assert at[lane].head < at[lane].tail
    at[lane].oldest += max(oldest_size(held, lane), 0)
    at[lane].head += 1
    at[lane].sent = 0
    if at[lane].head == at[lane].tail:
        assert at[lane].oldest == at[lane].free
        at[lane].head = 0
        at[lane].tail = 0
        at[lane].oldest = 0
        at[lane].free = 0


@kernel()
def drawn_delay(held, lane, board, jitter_ns):
    """The one-way delay of the lane's next segment: the asked one, and a deviation drawn from the direction's quantiles."""
    direction = lane & 1
    delay_ns = board[DELAY_NS + direction]
    if board[JITTERED + direction] == 0:
        return delay_ns
    draw = held.at[lane].drawn
    held.at[lane].drawn += 1
    place = np.int64(unit_of(np.uint64(key_of(board[SEED], lane)), draw) * jitter_ns.shape[1])
    return max(delay_ns + jitter_ns[direction, place], np.int64(0))


@kernel()
def wants_bytes(held, lane, board, now_ns):
    """Whether the lane's source is to be read: more may come, the link is whole, and there is room in ring and wire."""
    if held.at[lane].reads != READING or board[CUT + (lane & 1)] != 0:
        return False
    return has_room(held, lane) and held.wire_ns[lane & 1] - now_ns <= BACKLOG_NS


@kernel()
def take_in(held, lane, size, now_ns, board, jitter_ns):
    """Admit what was just received: on the wire now, or when the handshake is over."""
    left_ns = pass_wire(held, lane & 1, size, now_ns, board[RATE + (lane & 1)])
    admit(held, lane, size, max(left_ns, held.at[lane].from_ns), drawn_delay(held, lane, board, jitter_ns))


@kernel()
def collect(held, lane, fd, board, jitter_ns):
    """Read what the lane's source has sent, up to a burst."""
    direction = lane & 1
    limit = segment_bytes(board[RATE + direction])
    for _ in range(BURST):
        if not wants_bytes(held, lane, board, libc.monotonic_ns()):
            break
        start = lane * held.data.shape[1] + next_start(held, lane)
        size = libc.receive(fd, held.data, start, limit, np.int64(libc.MSG_DONTWAIT))
        if size == -libc.EAGAIN or size == -libc.EINTR:
            break
        if size <= 0:
            held.at[lane].reads = ENDED
            if size < 0:
                size = np.int64(RESET)
                held.at[lane ^ 1].deaf = 1
            take_in(held, lane, size, libc.monotonic_ns(), board, jitter_ns)
            break
        take_in(held, lane, size, libc.monotonic_ns(), board, jitter_ns)
        if size < limit:
            break
    if held.at[lane].reads == READING and not has_room(held, lane):
        board[FULL + direction] += 1


@kernel()
def send_back_reset(held, lane, board, jitter_ns):
    """The lane's source refused what was sent to it: its reset travels this way, once the link carries anything."""
    if held.at[lane].broken != 0 and board[CUT + (lane & 1)] == 0:
        held.at[lane].broken = 0
        held.at[lane].reads = ENDED
        take_in(held, lane, np.int64(RESET), libc.monotonic_ns(), board, jitter_ns)


@kernel()
def deliver(held, lane, fd, ends, board, now_ns):
    """Write every segment that is due. A socket that takes no more for now is noted as blocked."""
    at, direction = held.at, lane & 1
    at[lane].blocked = 0
    while next_due(held, lane) <= now_ns:
        size = oldest_size(held, lane)
        if size == RESET:
            ends[lane >> 1].state = RESETTING
            return
        if at[lane].deaf != 0:
            board[DROPS + direction] += 1
            if size == END:
                at[lane].reads = DONE
        elif size == END:
            libc.end_sending(fd)
            at[lane].reads = DONE
        else:
            start = lane * held.data.shape[1] + oldest_start(held, lane)
            sent = libc.send(fd, held.data, start + at[lane].sent, size - at[lane].sent, np.int64(libc.MSG_DONTWAIT))
            if sent == -libc.EAGAIN or sent == -libc.EINTR:
                at[lane].blocked = 1
                return
            if sent < 0:
                at[lane].deaf = 1
                at[lane ^ 1].broken = 1
                continue
            at[lane].sent += sent
            if at[lane].sent < size:
                continue
            late_ns = now_ns - next_due(held, lane)
            board[LATE + direction * SLOTS + slot_of(late_ns)] += 1
            board[LATE_NS_MAX + direction] = max(board[LATE_NS_MAX + direction], late_ns)
            board[SEGMENTS + direction] += 1
            board[BYTES + direction] += size
        release(held, lane)
    if at[lane].reads == DONE and at[lane ^ 1].reads == DONE:
        ends[lane >> 1].state = CLOSING


@kernel(allocates=True)
def relay(held, ends, board, jitter_ns, wake_fd, note_fd, requests, timeout):
    """Carry bytes both ways until the board says stop.

    `requests` is struct pollfd for the wake-up and both sockets of each connection, `timeout` a timespec. A byte in wake_fd says
    that the board or a connection is new; one is written to note_fd when a connection is to be closed.
    """
    note = np.zeros(8, np.uint8)
    while board[STOP] == 0:
        now_ns = libc.monotonic_ns()
        until_ns = now_ns + SLEEP_NS_MAX
        count = 1
        requests[0] = np.int32(wake_fd)
        requests[1] = libc.POLLIN
        libc.fence_acquire()
        for connection in range(ends.shape[0]):
            if ends[connection].state != OPEN:
                continue
            for direction in range(2):
                lane = 2 * connection + direction
                send_back_reset(held, lane, board, jitter_ns)
                sink = socket_of(ends, connection, 1 - direction)
                if sink >= 0 and ends[connection].state == OPEN:
                    deliver(held, lane, sink, ends, board, now_ns)
                    if held.at[lane].blocked == 0:
                        until_ns = min(until_ns, next_due(held, lane))
            if ends[connection].state != OPEN:
                libc.write(note_fd, note, np.int64(0), np.int64(1))
                continue
            for side in range(2):  # The socket of the near side, then of the far one: source of one lane, sink of the other.
                lane = 2 * connection + side
                events = 0
                if wants_bytes(held, lane, board, now_ns):
                    events = libc.POLLIN
                elif held.wire_ns[side] - now_ns > BACKLOG_NS and held.at[lane].reads == READING:
                    until_ns = min(until_ns, held.wire_ns[side] - BACKLOG_NS)
                if held.at[lane ^ 1].blocked != 0:
                    events |= libc.POLLOUT
                fd = socket_of(ends, connection, side)
                if fd >= 0 and events != 0:
                    requests[2 * count] = np.int32(fd)
                    requests[2 * count + 1] = np.int32(events)
                    held.at[lane].polled = count
                    count += 1
                else:
                    held.at[lane].polled = 0
        rest_ns = until_ns - libc.monotonic_ns()
        timeout[0] = 0
        timeout[1] = rest_ns if rest_ns >= SPIN_NS else 0
        board[WAKEUPS] += 1
        if libc.poll(requests, np.int64(count), timeout) <= 0:
            continue
        if requests[1] >> 16 != 0:
            libc.read(wake_fd, note, np.int64(0), np.int64(8))
        for connection in range(ends.shape[0]):
            if ends[connection].state != OPEN:
                continue
            for side in range(2):
                lane = 2 * connection + side
                place = held.at[lane].polled
                if place != 0 and requests[2 * place + 1] >> 16 & ~libc.POLLOUT != 0:
                    collect(held, lane, socket_of(ends, connection, side), board, jitter_ns)
    return board[SEGMENTS] + board[SEGMENTS + 1]
