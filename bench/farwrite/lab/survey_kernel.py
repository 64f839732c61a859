"""Bare loops that tell what a link and a disk can do: an echo over TCP, and append-and-flush.

They share nothing with the engine but libc, because they are what the engine is held against.
"""

from __future__ import annotations

import numpy as np

from ..base.host import libc
from ..base.jit import kernel


@kernel()
def receive_whole(fd, data, size):
    """Block until `size` bytes have arrived; answers size, 0 when the peer closed, or -errno."""
    got = np.int64(0)
    while got < size:
        part = libc.receive(fd, data, got, size - got, np.int64(0))
        if part == -libc.EINTR:
            continue
        if part <= 0:
            return part
        got += part
    return got


@kernel()
def receive_polling(fd, data, size):
    """receive_whole() that never sleeps: it asks again until the bytes are there, so that nobody has to wake it."""
    got = np.int64(0)
    while got < size:
        part = libc.receive(fd, data, got, size - got, np.int64(libc.MSG_DONTWAIT))
        if part in (-libc.EINTR, -libc.EAGAIN):
            continue
        if part <= 0:
            return part
        got += part
    return got


@kernel()
def send_whole(fd, data, start, size):
    """Block until the send buffer has taken `size` bytes from `start` on; answers size or -errno."""
    sent = np.int64(0)
    while sent < size:
        part = libc.send(fd, data, start + sent, size - sent, np.int64(0))
        if part == -libc.EINTR:
            continue
        if part < 0:
            return part
        sent += part
    return sent


@kernel()
def answer_echoes(fd, data, request_bytes, answer_bytes, count):
    """Answer `count` requests of `request_bytes` with `answer_bytes` each; answers how many, or -errno."""
    for index in range(count):
        got = receive_whole(fd, data, request_bytes)
        if got <= 0:
            return got if got < 0 else np.int64(index)
        sent = send_whole(fd, data, np.int64(0), answer_bytes)
        if sent < 0:
            return sent
    return np.int64(count)


@kernel()
def answer_flushed(fd, data, request_bytes, answer_bytes, count, file_fd, flush_bytes, file_bytes):
    """Like answer_echoes, but each request is first appended to an O_DSYNC file; answers how many, or -errno."""
    offset = np.int64(0)
    for index in range(count):
        got = receive_whole(fd, data, request_bytes)
        if got <= 0:
            return got if got < 0 else np.int64(index)
        written = libc.pwrite(file_fd, data, np.int64(0), flush_bytes, offset)
        if written != flush_bytes:
            return written if written < 0 else np.int64(-libc.ENOSPC)
        offset += flush_bytes
        if offset + flush_bytes > file_bytes:
            offset = np.int64(0)
        sent = send_whole(fd, data, np.int64(0), answer_bytes)
        if sent < 0:
            return sent
    return np.int64(count)


@kernel()
def measure_echoes(fd, data, request_bytes, answer_bytes, rtt_ns, polls):
    """Fill `rtt_ns` with round trips, one after the other; answers how many, or -errno. Who `polls` for answers never sleeps."""
    for index in range(rtt_ns.size):
        begin = libc.monotonic_ns()
        sent = send_whole(fd, data, np.int64(0), request_bytes)
        if sent < 0:
            return sent
        got = receive_polling(fd, data, answer_bytes) if polls else receive_whole(fd, data, answer_bytes)
        if got <= 0:
            return got if got < 0 else np.int64(index)
        rtt_ns[index] = libc.monotonic_ns() - begin
    return np.int64(rtt_ns.size)


@kernel()
def measure_flushes(fd, data, size, file_bytes, flush_ns):
    """Fill `flush_ns` with the time of one write of `size` bytes to an O_DSYNC file, appended; answers count or -errno."""
    offset = np.int64(0)
    for index in range(flush_ns.size):
        begin = libc.monotonic_ns()
        written = libc.pwrite(fd, data, np.int64(0), size, offset)
        if written != size:
            return written if written < 0 else np.int64(-libc.ENOSPC)
        flush_ns[index] = libc.monotonic_ns() - begin
        offset += size
        if offset + size > file_bytes:
            offset = np.int64(0)
    return np.int64(flush_ns.size)
