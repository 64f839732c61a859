"""The ferry's loop: packets off one TUN device, held for the one-way delay, onto the other.

Two directions, each a ring of bytes and a ring of packets in order of arrival. A packet is due a delay after it was read and
never before the one ahead of it, so nothing is reordered unless that is asked for. `admit`, `next_due` and `release` are the
steps of the plain link; `decide_fate`, `transmit` and `deviation_ns` of one that loses, is narrow or jitters. What befalls a
packet is drawn from the seed, its direction and its number, never from time. `ferry` is the loop around them. When a ring is
full, or packets have waited long enough for the rate, the ferry stops reading: the device's own queue then fills.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..base.histogram_kernel import SLOTS, slot_of
from ..base.host import libc
from ..base.host.tun import PACKET_BYTES_MAX, VNET_HEADER_BYTES
from ..base.jit import kernel
from ..base.prng_kernel import UNIT_SHIFT, random_of
from ..base.row import Row, i64, rows_of
from ..base.units import NS_PER_S
from ..workload.link_spec import FRAME_OVERHEAD_BYTES

# Board words shared with the lab, by direction d (0 near to far, 1 far to near) where marked.
STOP, DELAY_NS, CUT, PACKETS, BYTES, CUT_DROPS, REFUSED, LATE_NS_MAX, FULL, WAKEUPS = 0, 2, 4, 6, 8, 10, 12, 14, 16, 18
LATE_NS, LOST, DUPLICATED, REORDERED, CORRUPTED, QUEUE_DROPS, URGENT, ALONE, POLL_NS = 20, 22, 24, 26, 28, 30, 32, 33, 34

# What is asked of a direction besides its delay: WAY_WORDS words from WAY on, then those of the other direction.
WAY, DIRECTION_WORDS = 40, 16
(ASKED, KEY, EXTRA_NS, JITTER_NS, RATE, QUEUE, LOSS, ENTER, LEAVE, BAD_LOSS, GOOD_LOSS, REORDER, DUPLICATE, CORRUPT) = range(14)
# Jitter as a table of equally likely deviations, in TABLE_UNITs of JITTER_NS: one for each direction, as netem has it.
TABLE, TABLE_WORDS, TABLE_UNIT = WAY + 2 * DIRECTION_WORDS, 4096, 8192
TABLE_SHIFT = np.uint64(64 - 12)
LATE = TABLE + 2 * TABLE_WORDS  # How late every packet left, a histogram of SLOTS counts by direction; histogram.py.
BOARD_WORDS = LATE + 2 * SLOTS

SURE = 1 << 53  # Shares travel as whole numbers of 2^-53.

# What one number of a packet's is drawn for; DRAWS for each packet.
FOR_MOVE, FOR_LOSS, FOR_DUPLICATE, FOR_REORDER, FOR_CORRUPT, FOR_BIT, FOR_JITTER, DRAWS = range(8)
# What befalls it.
WHOLE, LOSE, TWICE, AHEAD, DAMAGE = 0, 1, 2, 4, 8

# Held at most per direction. 10 Gbit/s over 300 miles round trip is 6 MB one way.
RING_BYTES = 16 << 20
RING_PACKETS = 1 << 14

NEVER = np.int64(1) << np.int64(62)

# After a packet the ferry goes on looking for so long instead of sleeping (board word POLL_NS; 0 where it may not), because a
# packet that finds it asleep waits until it runs: kernel to kernel at 20 miles under C, median and p99 above light, 12 and 89 us
# without, 1 and 58 us with it (2-core VM, PM QoS). Long enough for a flush between two packets of one write.
POLL_NS_MAX = 250_000
SPIN_NS = 8_000  # A sleep shorter than this costs more than it saves: a system call and a wake-up.
# Waking up costs a virtual processor 3 to 80 us. The ferry wakes up so much earlier than a packet is due and spins for the rest:
# as much as its last sleeps lasted too long, a sixteenth less after each that did not.
EARLY_NS_MIN, EARLY_NS_MAX, EARLY_SHARE = 5_000, 120_000, 16
# Where packets keep coming there is always something to spin for, and an urgent process that never sleeps keeps every kernel
# thread of its processor waiting until the scheduler steps in, 50 ms a second: one that ends direct writes held writers up for a
# second at a time. So it sleeps for so long, whatever waits, after so long without: one that polls has a quiet processor to
# itself, any other may share one with the disk's.
RUN_NS_MAX, SHARED_RUN_NS_MAX, GIVE_WAY_NS = 10_000_000, 1_000_000, 50_000
BURST = 64  # Packets taken from one device before the other is looked at.
WAIT_NS_MAX = 2_000_000  # For the rate, in here; what waits longer does so in the device, where it pushes back.


class Progress(Row):
    """How far one direction is. Packets and bytes are counted and never wrap."""

    head = i64("packet: the oldest that is held")
    tail = i64("packet: the next to be held")
    free = i64("byte: where the next packet is put")
    oldest = i64("byte: where the oldest held packet begins")
    last_due_ns = i64("ns, CLOCK_MONOTONIC: no later packet leaves before this")
    waiting = i64("packet: the first that the rate still holds back")
    number = i64("packets whose fate was drawn")
    in_burst = i64("1: losses come in a burst now")
    free_ns = i64("ns, CLOCK_MONOTONIC: when the wire is free again")
    rest = i64("bits times ns: what is left over of free_ns, less than the rate")


class Hold(NamedTuple):
    """Packets under way in one direction."""

    data: np.ndarray  # uint8, RING_BYTES and room for one packet more, so that none is split
    at: np.ndarray  # Progress, one
    start: np.ndarray  # int64 by packet, byte in data
    size: np.ndarray  # int64 by packet
    due_ns: np.ndarray  # int64 by packet, CLOCK_MONOTONIC
    sent_ns: np.ndarray  # int64 by packet: when the rate lets its last bit leave


def hold(ring_bytes: int = RING_BYTES, ring_packets: int = RING_PACKETS) -> Hold:
    """An empty direction."""
    return Hold(
        np.zeros(ring_bytes + PACKET_BYTES_MAX, np.uint8),
        rows_of(Progress),
        np.zeros(ring_packets, np.int64),
        np.zeros(ring_packets, np.int64),
        np.zeros(ring_packets, np.int64),
        np.zeros(ring_packets, np.int64),
    )


@kernel()
def has_room(held):
    """Whether one more packet of any size may be taken in."""
    at = held.at[0]
    if at.tail - at.head >= held.start.size:
        return False
    ring_bytes = held.data.size - PACKET_BYTES_MAX
    return at.free + PACKET_BYTES_MAX - at.oldest <= ring_bytes


@kernel()
def next_start(held):
    """Where in data the next packet is to be read to."""
    return held.at[0].free % (held.data.size - PACKET_BYTES_MAX)


@kernel()
def admit(held, size, now_ns, delay_ns):
    """Note the packet of `size` bytes that stands at next_start(): due a delay from now, never before the one ahead.

    On a link with a rate, now is when its last bit has left.
    """
    at = held.at[0]
    index = at.tail % held.start.size
    due_ns = max(now_ns + delay_ns, at.last_due_ns)
    held.start[index] = next_start(held)
    held.size[index] = size
    held.due_ns[index] = due_ns
    held.sent_ns[index] = now_ns
    at.last_due_ns = due_ns
    at.free += size
    at.tail += 1

    assert at.tail - at.head <= held.start.size
    return due_ns


@kernel()
def next_due(held):
    """When the oldest packet is due, or NEVER."""
    at = held.at[0]
    if at.head == at.tail:
        return NEVER
    return held.due_ns[at.head % held.start.size]


@kernel()
def release(held):
    """Forget the oldest packet."""
    at = held.at[0]
    assert at.head < at.tail
    at.oldest += held.size[at.head % held.start.size]
    at.head += 1
    if at.head == at.tail:
        at.oldest = at.free


@kernel()
def draw(key, number, purpose):
    """A whole number in [0, SURE) for one purpose of one packet."""
    return np.int64(np.uint64(random_of(np.uint64(key), number * DRAWS + purpose)) >> UNIT_SHIFT)


@kernel()
def decide_fate(held, board, way):
    """What befalls the next packet: LOSE, or any of TWICE, AHEAD and DAMAGE, or WHOLE.

    Gilbert and Elliott's state moves with each packet, which is still lost with the share of the state it met (as in netem).
    """
    at = held.at[0]
    key = board[way + KEY]
    number = at.number
    at.number += 1

    lose = board[way + LOSS]
    if board[way + ENTER] > 0:
        lose = board[way + BAD_LOSS] if at.in_burst else board[way + GOOD_LOSS]
        move = board[way + LEAVE] if at.in_burst else board[way + ENTER]
        if draw(key, number, FOR_MOVE) < move:
            at.in_burst = 1 - at.in_burst
    if lose > 0 and draw(key, number, FOR_LOSS) < lose:
        return LOSE
    verdict = WHOLE
    if board[way + DUPLICATE] > 0 and draw(key, number, FOR_DUPLICATE) < board[way + DUPLICATE]:
        verdict |= TWICE
    if board[way + REORDER] > 0 and draw(key, number, FOR_REORDER) < board[way + REORDER]:
        verdict |= AHEAD
    if board[way + CORRUPT] > 0 and draw(key, number, FOR_CORRUPT) < board[way + CORRUPT]:
        verdict |= DAMAGE
    return verdict


@kernel()
def deviation_ns(board, way, table, number):
    """How much longer than its mean the delay of this packet is, from the table of equally likely deviations."""
    drawn = np.uint64(random_of(np.uint64(board[way + KEY]), number * DRAWS + FOR_JITTER))
    return board[way + JITTER_NS] * board[table + np.int64(drawn >> TABLE_SHIFT)] // TABLE_UNIT


@kernel()
def transmit(held, now_ns, wire_bytes, rate_bits_per_s):
    """When the wire has carried these bytes as well, after what it was given before; it loses no fraction of a nanosecond."""
    at = held.at[0]
    begin_ns, rest = now_ns, np.int64(0)
    if at.free_ns >= now_ns:
        begin_ns, rest = at.free_ns, at.rest
    work = wire_bytes * 8 * NS_PER_S + rest
    at.free_ns = begin_ns + work // rate_bits_per_s
    at.rest = work % rate_bits_per_s

    assert at.free_ns >= now_ns
    return at.free_ns


@kernel()
def waiting(held, now_ns):
    """How many packets the rate holds back."""
    at = held.at[0]
    at.waiting = max(at.waiting, at.head)
    while at.waiting < at.tail and held.sent_ns[at.waiting % held.start.size] <= now_ns:
        at.waiting += 1
    return at.tail - at.waiting


@kernel()
def word_of(data, place):
    """The 16 bits at a place, low byte first, as struct virtio_net_hdr has them."""
    return np.int64(data[place]) | np.int64(data[place + 1]) << 8


@kernel()
def wire_bytes_of(data, start, size):
    """Bytes on an Ethernet wire of the packet at `start`, behind its virtio header: of all the segments it stands for."""
    packet = start + VNET_HEADER_BYTES
    length = size - VNET_HEADER_BYTES
    segment = word_of(data, start + 4)
    if data[start + 1] == 0 or segment == 0:
        return length + FRAME_OVERHEAD_BYTES
    transport = word_of(data, start + 6)  # Where the checksum begins, and so TCP's header; its length is in its 13th byte.
    headers = transport + (np.int64(data[packet + transport + 12]) >> 4) * 4
    segments = max(-(-(length - headers) // segment), np.int64(1))
    return length + (segments - 1) * headers + segments * FRAME_OVERHEAD_BYTES


@kernel()
def turn_bit(held, board, way, start, size):
    """Turn one bit of the packet at `start`, drawn for its number; False for one whose checksum the device has yet to make."""
    if held.data[start] & 1:
        return False
    bits = (size - VNET_HEADER_BYTES) * 8
    bit = np.int64(draw(board[way + KEY], held.at[0].number - 1, FOR_BIT)) % bits
    held.data[start + VNET_HEADER_BYTES + bit // 8] ^= np.uint8(1 << (bit % 8))
    return True


@kernel()
def receive_packet(held, other_fd, board, direction, size, now_ns):
    """Do with the packet at next_start() what is asked of this direction besides a delay."""
    way = WAY + direction * DIRECTION_WORDS
    verdict = decide_fate(held, board, way)
    number = held.at[0].number - 1
    start = next_start(held)
    if verdict == LOSE:
        board[LOST + direction] += 1
        return
    if verdict & DAMAGE and turn_bit(held, board, way, start, size):
        board[CORRUPTED + direction] += 1
    if verdict & AHEAD and libc.write(other_fd, held.data, start, size) == size:
        board[REORDERED + direction] += 1
        board[PACKETS + direction] += 1
        board[BYTES + direction] += size
        return
    for copy in range(2 if verdict & TWICE else 1):
        if copy:
            if not has_room(held):
                break
            twin = next_start(held)
            for byte in range(size):
                held.data[twin + byte] = held.data[start + byte]
            board[DUPLICATED + direction] += 1
        sent_ns = now_ns
        if board[way + RATE] > 0:
            if board[way + QUEUE] > 0 and waiting(held, now_ns) >= board[way + QUEUE]:
                board[QUEUE_DROPS + direction] += 1
                break
            sent_ns = transmit(held, now_ns, wire_bytes_of(held.data, start, size), board[way + RATE])
        delay_ns = board[DELAY_NS + direction] + board[way + EXTRA_NS]
        if board[way + JITTER_NS] > 0:
            delay_ns += deviation_ns(board, way, TABLE + direction * TABLE_WORDS, number)
        admit(held, size, sent_ns, max(delay_ns, np.int64(0)))


@kernel()
def reads_again_ns(held, board, direction):
    """From when on packets are read: those before have waited for the rate long enough. 0 without a rate, or with a queue."""
    way = WAY + direction * DIRECTION_WORDS
    if board[way + RATE] == 0 or board[way + QUEUE] > 0:
        return np.int64(0)
    return held.at[0].free_ns - WAIT_NS_MAX


@kernel()
def deliver(held, fd, board, direction, now_ns):
    """Write every packet that is due; answers False when the device would take no more for now."""
    while next_due(held) <= now_ns:
        index = held.at[0].head % held.start.size
        written = libc.write(fd, held.data, held.start[index], held.size[index])
        if written == -libc.EAGAIN:
            return False
        if written < 0:
            board[REFUSED + direction] += 1
        late_ns = now_ns - held.due_ns[index]
        board[LATE + direction * SLOTS + slot_of(late_ns)] += 1
        board[LATE_NS_MAX + direction] = max(board[LATE_NS_MAX + direction], late_ns)
        board[LATE_NS + direction] += late_ns
        board[PACKETS + direction] += 1
        board[BYTES + direction] += held.size[index]
        release(held)
    return True


@kernel()
def collect(held, fd, other_fd, board, direction):
    """Read what the device holds, up to a burst; answers how many packets. One that shall overtake goes to the other at once."""
    asked = board[WAY + direction * DIRECTION_WORDS + ASKED] != 0
    count = 0
    while count < BURST:
        if not has_room(held):
            board[FULL + direction] += 1
            break
        if asked and libc.monotonic_ns() < reads_again_ns(held, board, direction):
            break
        size = libc.read(fd, held.data, next_start(held), np.int64(PACKET_BYTES_MAX))
        if size <= 0:
            break
        count += 1
        if board[CUT + direction] != 0:
            board[CUT_DROPS + direction] += 1
            continue
        now_ns = libc.monotonic_ns()
        if asked:
            receive_packet(held, other_fd, board, direction, size, now_ns)
        else:
            admit(held, size, now_ns, board[DELAY_NS + direction])
    return count


@kernel()
def early_by_ns(early_ns, overslept_ns):
    """How much earlier than a packet is due to wake up next time, from how late the last sleep ended."""
    wanted_ns = overslept_ns + overslept_ns // 4
    return min(max(wanted_ns, early_ns - early_ns // EARLY_SHARE, EARLY_NS_MIN), EARLY_NS_MAX)


@kernel()
def ferry(near_fd, far_fd, outward, homeward, board, requests, timeout):
    """Carry packets both ways until the board says stop. `requests` is struct pollfd for two, `timeout` a timespec."""
    requests[0] = np.int32(near_fd)
    requests[2] = np.int32(far_fd)
    early_ns = np.int64(EARLY_NS_MIN if board[ALONE] != 0 else EARLY_NS_MAX)
    active_ns = np.int64(0)
    slept_ns = libc.monotonic_ns()
    while board[STOP] == 0:
        packets = board[PACKETS] + board[PACKETS + 1]
        collected = collect(outward, near_fd, far_fd, board, 0) + collect(homeward, far_fd, near_fd, board, 1)
        now_ns = libc.monotonic_ns()
        deliver(outward, far_fd, board, 0, now_ns)
        deliver(homeward, near_fd, board, 1, now_ns)
        now_ns = libc.monotonic_ns()
        if collected > 0 or board[PACKETS] + board[PACKETS + 1] > packets:
            active_ns = now_ns
        rest_ns = min(next_due(outward), next_due(homeward)) - now_ns
        requests[1] = libc.POLLIN if has_room(outward) else 0
        requests[3] = libc.POLLIN if has_room(homeward) else 0
        for direction in range(2):
            again_ns = reads_again_ns(outward if direction == 0 else homeward, board, direction)
            if again_ns > now_ns:
                requests[1 + 2 * direction] = 0
                rest_ns = min(rest_ns, again_ns - now_ns)
        spins = rest_ns < SPIN_NS + early_ns or collected >= BURST or now_ns - active_ns < board[POLL_NS]
        if spins and now_ns - slept_ns < (RUN_NS_MAX if board[POLL_NS] > 0 else SHARED_RUN_NS_MAX):
            continue
        if spins:
            rest_ns = np.int64(GIVE_WAY_NS)
            requests[1] = requests[3] = 0
        else:
            rest_ns = min(rest_ns - early_ns, np.int64(50_000_000))
        timeout[0] = 0
        timeout[1] = rest_ns
        board[WAKEUPS] += 1
        answer = libc.poll(requests, np.int64(2), timeout)
        slept_ns = libc.monotonic_ns()
        if answer == 0 and board[ALONE] == 0 and not spins:
            early_ns = early_by_ns(early_ns, max(slept_ns - now_ns - rest_ns, np.int64(0)))
    return board[PACKETS] + board[PACKETS + 1]
