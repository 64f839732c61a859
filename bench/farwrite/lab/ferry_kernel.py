"""The ferry's loop: packets off one TUN device, held for the one-way delay, onto the other.

Two directions, each a ring of bytes and a ring of packets in order of arrival. A packet is due a delay after it was read and
never before the one ahead of it, so nothing is ever reordered. `admit`, `next_due` and `release` are the steps; `ferry`
is the loop around them. When a ring is full the ferry stops reading: the device's own queue then pushes back on TCP.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..host import libc
from ..host.tun import PACKET_BYTES_MAX
from ..jit import kernel

# Board words shared with the lab, by direction d (0 near to far, 1 far to near) where marked.
STOP, DELAY_NS, CUT, PACKETS, BYTES, CUT_DROPS, REFUSED, LATE_NS_MAX, FULL, WAKEUPS = 0, 2, 4, 6, 8, 10, 12, 14, 16, 18
BOARD_WORDS = 32

# Held at most per direction. 10 Gbit/s over 300 miles round trip is 6 MB one way.
RING_BYTES = 16 << 20
RING_PACKETS = 1 << 14

NEVER = np.int64(1) << np.int64(62)

SPIN_NS = 8_000  # A sleep shorter than this costs more than it saves: a system call and a wake-up.
BURST = 64  # Packets taken from one device before the other is looked at.


class Hold(NamedTuple):
    """Packets under way in one direction."""

    data: np.ndarray  # uint8, RING_BYTES and room for one packet more, so that none is split
    at: np.ndarray  # int64: head packet, tail packet, next free byte, oldest byte still held, last due
    start: np.ndarray  # int64 by packet, byte in data
    size: np.ndarray  # int64 by packet
    due_ns: np.ndarray  # int64 by packet, CLOCK_MONOTONIC


HEAD, TAIL, FREE, OLDEST, LAST_DUE = range(5)


def hold(ring_bytes: int = RING_BYTES, ring_packets: int = RING_PACKETS) -> Hold:
    """An empty direction."""
    return Hold(
        np.zeros(ring_bytes + PACKET_BYTES_MAX, np.uint8),
        np.zeros(5, np.int64),
        np.zeros(ring_packets, np.int64),
        np.zeros(ring_packets, np.int64),
        np.zeros(ring_packets, np.int64),
    )


@kernel()
def has_room(held):
    """Whether one more packet of any size may be taken in."""
    at = held.at
    if at[TAIL] - at[HEAD] >= held.start.size:
        return False
    ring_bytes = held.data.size - PACKET_BYTES_MAX
    return at[FREE] + PACKET_BYTES_MAX - at[OLDEST] <= ring_bytes


@kernel()
def next_start(held):
    """Where in data the next packet is to be read to."""
    return held.at[FREE] % (held.data.size - PACKET_BYTES_MAX)


@kernel()
def admit(held, size, now_ns, delay_ns):
    """Note the packet of `size` bytes that stands at next_start(): due a delay from now, never before the one ahead."""
    at = held.at
    index = at[TAIL] % held.start.size
    due_ns = max(now_ns + delay_ns, at[LAST_DUE])
    held.start[index] = next_start(held)
    held.size[index] = size
    held.due_ns[index] = due_ns
    at[LAST_DUE] = due_ns
    at[FREE] += size
    at[TAIL] += 1

    assert at[TAIL] - at[HEAD] <= held.start.size
    return due_ns


@kernel()
def next_due(held):
    """When the oldest packet is due, or NEVER."""
    at = held.at
    if at[HEAD] == at[TAIL]:
        return NEVER
    return held.due_ns[at[HEAD] % held.start.size]


@kernel()
def release(held):
    """Forget the oldest packet."""
    at = held.at
    assert at[HEAD] < at[TAIL]
    at[OLDEST] += held.size[at[HEAD] % held.start.size]
    at[HEAD] += 1
    if at[HEAD] == at[TAIL]:
        at[OLDEST] = at[FREE]


@kernel()
def deliver(held, fd, board, direction, now_ns):
    """Write every packet that is due; answers False when the device would take no more for now."""
    while next_due(held) <= now_ns:
        index = held.at[HEAD] % held.start.size
        written = libc.write(fd, held.data, held.start[index], held.size[index])
        if written == -libc.EAGAIN:
            return False
        if written < 0:
            board[REFUSED + direction] += 1
        board[LATE_NS_MAX + direction] = max(board[LATE_NS_MAX + direction], now_ns - held.due_ns[index])
        board[PACKETS + direction] += 1
        board[BYTES + direction] += held.size[index]
        release(held)
    return True


@kernel()
def collect(held, fd, board, direction):
    """Read what the device holds, up to a burst; answers how many packets."""
    count = 0
    while count < BURST:
        if not has_room(held):
            board[FULL + direction] += 1
            break
        size = libc.read(fd, held.data, next_start(held), np.int64(PACKET_BYTES_MAX))
        if size <= 0:
            break
        count += 1
        if board[CUT + direction] != 0:
            board[CUT_DROPS + direction] += 1
            continue
        admit(held, size, libc.monotonic_ns(), board[DELAY_NS + direction])
    return count


@kernel()
def ferry(near_fd, far_fd, outward, homeward, board, requests, timeout):
    """Carry packets both ways until the board says stop. `requests` is struct pollfd for two, `timeout` a timespec."""
    requests[0] = np.int32(near_fd)
    requests[2] = np.int32(far_fd)
    while board[STOP] == 0:
        collected = collect(outward, near_fd, board, 0) + collect(homeward, far_fd, board, 1)
        now_ns = libc.monotonic_ns()
        deliver(outward, far_fd, board, 0, now_ns)
        deliver(homeward, near_fd, board, 1, now_ns)
        rest_ns = min(next_due(outward), next_due(homeward)) - libc.monotonic_ns()
        if rest_ns < SPIN_NS or collected >= BURST:
            continue
        rest_ns = min(rest_ns, np.int64(50_000_000))
        requests[1] = libc.POLLIN if has_room(outward) else 0
        requests[3] = libc.POLLIN if has_room(homeward) else 0
        timeout[0] = 0
        timeout[1] = rest_ns
        board[WAKEUPS] += 1
        libc.poll(requests, np.int64(2), timeout)
    return board[PACKETS] + board[PACKETS + 1]
