"""A closed loop over one NBD connection: raw request and reply frames, no Python from issue to completion.

Replies may come in any order; each names by its handle the place whose write it completes, and the place is used again at once.
The protocol is doc/proto.md of the NBD project. Only its two simplest frames are known here: a write, and a simple reply.
"""

from __future__ import annotations

import numpy as np

from farwrite.base.host import libc
from farwrite.base.jit import kernel
from farwrite.lab.survey_kernel import send_whole
from farwrite.targets.load_loop_kernel import note_completion
from farwrite.workload.plan_kernel import WRITE

REQUEST_BYTES = 28  # magic u32, flags u16, type u16, handle u64, offset u64, length u32; big-endian
OFFSET_AT = 16
REPLY_BYTES = 16  # magic u32, error u32, handle u64
REPLY_MAGIC = 0x67446698
EPROTO = 71


@kernel()
def big_endian(data, start, size):
    """The unsigned number in data[start:start + size]."""
    value = np.int64(0)
    for index in range(size):
        value = value << 8 | np.int64(data[start + index])
    return value


@kernel()
def put_big_endian(data, start, size, value):
    """A number into data[start:start + size]."""
    for index in range(size):
        data[start + index] = np.uint8(value >> 8 * (size - 1 - index) & 255)


@kernel()
def issue(fd, frames, stride, place, address, flight):
    """Send the write of one place; its size or -errno."""
    put_big_endian(frames, place * stride + OFFSET_AT, 8, address)
    now_ns = libc.monotonic_ns()
    flight.intended_ns[place] = now_ns
    flight.issued_ns[place] = now_ns
    return send_whole(fd, frames, place * stride, stride)


@kernel()
def drive(fd, frames, answers, addresses, size, queue_depth, duration_ns, slice_ns, flight, recorder):
    """Keep `queue_depth` writes under way for so long, then wait for the last; 0 or -errno, the server's own included.

    `frames` holds a whole request for each place, all but its offset filled in; `flight` has a place for each.
    """
    at = recorder.at[0]
    stride = np.int64(REQUEST_BYTES + size)
    begin_ns = libc.monotonic_ns()
    end_ns = begin_ns + duration_ns
    at.begin_ns = begin_ns
    in_flight = np.int64(0)
    now_ns = begin_ns
    while now_ns < end_ns and in_flight < queue_depth:
        sent = issue(fd, frames, stride, in_flight, addresses[at.issued % addresses.size], flight)
        if sent < 0:
            return sent
        at.issued += 1
        in_flight += 1
    got = np.int64(0)
    while in_flight > 0:
        part = libc.receive(fd, answers, got, np.int64(answers.size) - got, np.int64(0))
        if part == -libc.EINTR:
            continue
        if part <= 0:
            return part if part < 0 else np.int64(-libc.ECONNRESET)
        got += part
        now_ns = libc.monotonic_ns()
        used = np.int64(0)
        while got - used >= REPLY_BYTES:
            place = big_endian(answers, used + 8, 8)
            error = big_endian(answers, used + 4, 4)
            if big_endian(answers, used, 4) != REPLY_MAGIC or place < 0 or place >= queue_depth:
                return np.int64(-EPROTO)
            if error != 0:
                return -error
            note_completion(
                recorder, 0, WRITE, size, flight.intended_ns[place], flight.issued_ns[place], 0, now_ns, slice_ns
            )  # fmt: skip
            used += REPLY_BYTES
            if now_ns < end_ns:
                sent = issue(fd, frames, stride, place, addresses[at.issued % addresses.size], flight)
                if sent < 0:
                    return sent
                at.issued += 1
            else:
                in_flight -= 1
        for index in range(used, got):
            answers[index - used] = answers[index]
        got -= used
    at.end_ns = libc.monotonic_ns()
    return np.int64(0)
