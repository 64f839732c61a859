"""Loops that probe a link packet by packet: numbered datagrams that carry the instant they were sent.

Both sites share one clock, so each datagram tells the one-way delay of its direction. What a crowd of them says (loss, bursts,
order) is found out by probe.py.
"""

from __future__ import annotations

import numpy as np

from ..base.host import libc
from ..base.jit import kernel

HEADER_BYTES = 16  # Number, then CLOCK_MONOTONIC of its sending in ns: two int64 at the front of each datagram.


@kernel(allocates=True)
def send_probes(fd, data, words, count, gap_ns, begin_ns):
    """Send `count` datagrams of data.size bytes from `begin_ns` on, `gap_ns` apart (0: as fast as they go), or -errno.

    `words` is the front of `data` as int64. Sleeps where the gap allows it, and spins for the last stretch.
    """
    timeout = np.zeros(2, np.int64)
    nobody = np.zeros(2, np.int32)
    for number in range(count):
        due_ns = begin_ns + number * gap_ns
        now_ns = libc.monotonic_ns()
        while now_ns < due_ns:
            if due_ns - now_ns > 60_000:
                timeout[1] = min(due_ns - now_ns - 50_000, np.int64(500_000_000))
                libc.poll(nobody, np.int64(0), timeout)
            now_ns = libc.monotonic_ns()
        words[0] = number
        words[1] = now_ns
        done = libc.send(fd, data, np.int64(0), data.size, np.int64(0))
        if done == -libc.ENOBUFS:  # A queue of this machine's own is full: the datagram is lost before the link.
            continue
        if done < 0:
            return done
    return np.int64(count)


@kernel()
def receive_probes(fd, data, words, numbers, sent_ns, got_ns):
    """Note every datagram that arrives until there is room for no more, or none came for the socket's timeout.

    Answers how many, or -errno. A datagram whose content was damaged never gets here: its checksum is wrong.
    """
    count = np.int64(0)
    while count < numbers.size:
        size = libc.receive(fd, data, np.int64(0), data.size, np.int64(0))
        now_ns = libc.monotonic_ns()
        if size == -libc.EINTR:
            continue
        if size == -libc.EAGAIN:
            break
        if size < 0:
            return size
        if size < HEADER_BYTES:
            continue
        numbers[count] = words[0]
        sent_ns[count] = words[1]
        got_ns[count] = now_ns
        count += 1
    return count
