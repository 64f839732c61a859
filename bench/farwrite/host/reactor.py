"""One place to wait: a socket, durable writes to a file, and a deadline, in a single system call.

A replica's loop starts durable writes here and then sleeps until a write is durable, its socket is ready or its deadline
has come. Over io_uring all of this is one `io_uring_enter` and a write is truly asynchronous. Where io_uring is forbidden
(Docker's seccomp profile) or absent, the plain form does the same with a blocking pwrite and ppoll: same verbs, same
order of events, no overlap of its own flush with the network. Which of the two runs is in the recording.

The ring is mapped and set up by Python (io_uring_setup(2)); kernels only fill and drain it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from ..jit import kernel
from . import libc

URING, PLAIN = 1, 0

# Indices into Reactor.at.
KIND, RING_FD, SQ_TAIL, SQ_MASK, SQ_ARRAY, CQ_HEAD, CQ_TAIL, CQ_MASK, CQES, PENDING, SYSCALLS, AT_WORDS = range(12)

# What can be under way, one of each at a time: indices into Reactor.state and Reactor.result.
JOURNAL, SUPERBLOCK, VOLUME, READ_READY, WRITE_READY, SLOTS = range(6)

IDLE, BUSY, FINISHED = 0, 1, 2

# What wait() answers, as bits.
READABLE, WRITABLE = 1, 2

SYS_IO_URING_SETUP = 425
SYS_IO_URING_ENTER = 426
OP_FSYNC, OP_POLL_ADD, OP_WRITE = 3, 6, 23
FSYNC_DATASYNC = 1
ENTER_GETEVENTS, ENTER_EXT_ARG = 1, 8
SETUP_COOP_TASKRUN, SETUP_SINGLE_ISSUER, SETUP_DEFER_TASKRUN = 1 << 8, 1 << 12, 1 << 13
FEATURE_SINGLE_MMAP, FEATURE_EXT_ARG = 1 << 0, 1 << 8
OFFSET_SQES = 0x10000000
ENTRIES = 16  # At most SLOTS entries are ever under way.


class Reactor(NamedTuple):
    """The ring's shared memory, and what is under way by slot (JOURNAL .. WRITE_READY)."""

    at: np.ndarray  # int64, see the indices above; ring offsets are in 4-byte words
    ring: np.ndarray  # uint32, the kernel's submission and completion rings
    entries: np.ndarray  # int64, submission entries, eight words each
    state: np.ndarray  # int64 by slot: IDLE, BUSY or FINISHED
    result: np.ndarray  # int64 by slot, valid when FINISHED: bytes or -errno
    scratch: np.ndarray  # int64: timespec, then struct io_uring_getevents_arg
    requests: np.ndarray  # int32: struct pollfd for the plain form


def empty() -> Reactor:
    """A reactor of the plain form; also what the ring's form starts from."""
    at = np.zeros(AT_WORDS, np.int64)
    at[RING_FD] = -1
    return Reactor(
        at=at,
        ring=np.zeros(1, np.uint32),
        entries=np.zeros(8, np.int64),
        state=np.zeros(SLOTS, np.int64),
        result=np.zeros(SLOTS, np.int64),
        scratch=np.zeros(8, np.int64),
        requests=np.zeros(2, np.int32),
    )


@contextmanager
def reactor(kind: str = "auto") -> Iterator[Reactor]:
    """A reactor: "uring", "plain", or "auto" (uring where the system lets us). OSError when "uring" is refused."""
    if kind == "plain":
        yield empty()
        return
    try:
        descriptor, parameters = io_uring_setup()
    except OSError:
        if kind == "uring":
            raise
        yield empty()
        return
    try:
        made = map_ring(descriptor, parameters)
        try:
            yield made
        finally:
            if (made.state[:READ_READY] == BUSY).any():
                drain(made, np.int64(-1))  # A loop that failed leaves writes under way, and their memory is about to go.
    finally:
        os.close(descriptor)


def name_of(chosen: Reactor) -> str:
    """"io_uring" or "pwrite", for recordings."""
    return "io_uring" if chosen.at[KIND] == URING else "pwrite"


def io_uring_setup() -> tuple[int, np.ndarray]:
    """The ring's descriptor and the filled struct io_uring_params as 30 uint32 words; OSError when refused."""
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    errno = 0
    # Completions are only looked for when we ask (6.1); older kernels know less: take what there is.
    for flags in (SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN, SETUP_COOP_TASKRUN, 0):
        parameters = np.zeros(30, np.uint32)
        parameters[2] = flags
        descriptor = syscall(SYS_IO_URING_SETUP, ENTRIES, ctypes.c_void_p(parameters.ctypes.data))
        if descriptor >= 0:
            features = int(parameters[5])
            if features & FEATURE_SINGLE_MMAP and features & FEATURE_EXT_ARG:
                return descriptor, parameters
            os.close(descriptor)
            raise OSError(38, "io_uring of this kernel lacks EXT_ARG (needs Linux 5.11)")
        errno = ctypes.get_errno()
        if errno != 22:
            break
    raise OSError(errno, f"io_uring_setup: {os.strerror(errno)}")


def map_ring(descriptor: int, parameters: np.ndarray) -> Reactor:
    """The shared rings as arrays. struct io_sqring_offsets starts at word 10, io_cqring_offsets at word 20."""
    sq_entries, cq_entries = int(parameters[0]), int(parameters[1])
    sq_tail, sq_mask, sq_array = (int(parameters[10 + field]) // 4 for field in (1, 2, 6))
    cq_head, cq_tail, cq_mask, cqes = (int(parameters[20 + field]) // 4 for field in (0, 1, 2, 5))
    size = 4 * max(sq_array + sq_entries, cqes + 4 * cq_entries)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    ring = np.frombuffer(mmap.mmap(descriptor, size, flags, protection), np.uint32)
    entries = np.frombuffer(
        mmap.mmap(descriptor, 64 * sq_entries, flags, protection, offset=OFFSET_SQES), np.int64
    )
    made = empty()._replace(ring=ring, entries=entries)
    for index, value in (
        (KIND, URING), (RING_FD, descriptor), (SQ_TAIL, sq_tail), (SQ_MASK, int(ring[sq_mask])), (SQ_ARRAY, sq_array),
        (CQ_HEAD, cq_head), (CQ_TAIL, cq_tail), (CQ_MASK, int(ring[cq_mask])), (CQES, cqes),
    ):  # fmt: skip
        made.at[index] = value
    return made


@kernel()
def prepare(reactor, slot, opcode, fd, offset, address, size, flags):
    """Fill the next submission entry; the coming wait() hands it to the kernel."""
    at = reactor.at
    tail = np.int64(reactor.ring[at[SQ_TAIL]])
    index = tail & at[SQ_MASK]
    entry = index * 8
    for word in range(8):
        reactor.entries[entry + word] = 0
    reactor.entries[entry] = opcode | (np.int64(fd) << 32)
    reactor.entries[entry + 1] = offset
    reactor.entries[entry + 2] = address
    reactor.entries[entry + 3] = size | (np.int64(flags) << 32)
    reactor.entries[entry + 4] = slot
    reactor.ring[at[SQ_ARRAY] + index] = np.uint32(index)
    libc.fence_release()
    reactor.ring[at[SQ_TAIL]] = np.uint32(tail + 1)
    at[PENDING] += 1
    reactor.state[slot] = BUSY


@kernel()
def begin_write(reactor, slot, fd, data, start, size, offset):
    """Start writing data[start:start + size] at a file offset; the slot is FINISHED once the write has returned.

    Durable on return only if the file was opened with O_DSYNC, as journals are.
    """
    assert reactor.state[slot] == IDLE
    if reactor.at[KIND] == URING:
        prepare(reactor, slot, OP_WRITE, fd, offset, np.int64(data.ctypes.data) + start, size, 0)
    else:
        reactor.at[SYSCALLS] += 1
        reactor.result[slot] = libc.pwrite(fd, data, start, size, offset)
        reactor.state[slot] = FINISHED


@kernel()
def begin_sync(reactor, slot, fd):
    """Start making everything written to a file durable; fdatasync(2)."""
    assert reactor.state[slot] == IDLE
    if reactor.at[KIND] == URING:
        prepare(reactor, slot, OP_FSYNC, fd, 0, 0, 0, FSYNC_DATASYNC)
    else:
        reactor.at[SYSCALLS] += 1
        reactor.result[slot] = libc.fdatasync(fd)
        reactor.state[slot] = FINISHED


@kernel()
def finished(reactor, slot):
    """True once for each operation that has come to its end; its answer is then in reactor.result[slot]."""
    if reactor.state[slot] != FINISHED:
        return False
    reactor.state[slot] = IDLE
    return True


@kernel()
def wait(reactor, fd, want_writable, timeout_ns):
    """Sleep until something is finished, `fd` is ready or the time is over; answers READABLE and WRITABLE bits, or -errno.

    `timeout_ns` 0 looks without sleeping. A finished operation that nobody has asked for yet ends the sleep at once.
    """
    for slot in range(READ_READY):
        if reactor.state[slot] == FINISHED:
            timeout_ns = 0
    reactor.at[SYSCALLS] += 1
    if reactor.at[KIND] == URING:
        return wait_uring(reactor, fd, want_writable, max(timeout_ns, 0))
    return wait_plain(reactor, fd, want_writable, max(timeout_ns, 0))


@kernel()
def wait_uring(reactor, fd, want_writable, timeout_ns):
    """wait() over io_uring_enter(2) with an extended argument."""
    at = reactor.at
    if reactor.state[READ_READY] == IDLE and fd >= 0:
        prepare(reactor, READ_READY, OP_POLL_ADD, fd, 0, 0, 0, libc.POLLIN)
    if want_writable and reactor.state[WRITE_READY] == IDLE:
        prepare(reactor, WRITE_READY, OP_POLL_ADD, fd, 0, 0, 0, libc.POLLOUT)

    scratch = reactor.scratch
    scratch[0] = timeout_ns // 1_000_000_000
    scratch[1] = timeout_ns % 1_000_000_000
    scratch[2] = 0
    scratch[3] = 8
    scratch[4] = np.int64(scratch.ctypes.data)
    answer = libc.syscall6(
        SYS_IO_URING_ENTER, at[RING_FD], at[PENDING], np.int64(1 if timeout_ns > 0 else 0),
        ENTER_GETEVENTS | ENTER_EXT_ARG, np.int64(scratch.ctypes.data) + 16, 24,
    )  # fmt: skip
    if answer < 0:
        # A timed-out or interrupted wait has still submitted everything unless it says otherwise by its count.
        if answer != -libc.ETIME and answer != -libc.EINTR and answer != -libc.EAGAIN:
            return answer
        if answer == -libc.ETIME:
            at[PENDING] = 0
    else:
        at[PENDING] -= min(answer, at[PENDING])

    head = np.int64(reactor.ring[at[CQ_HEAD]])
    tail = np.int64(reactor.ring[at[CQ_TAIL]])
    libc.fence_acquire()
    while head != tail:
        completion = at[CQES] + (head & at[CQ_MASK]) * 4
        slot = np.int64(reactor.ring[completion])
        reactor.result[slot] = np.int64(np.int32(reactor.ring[completion + 2]))
        reactor.state[slot] = FINISHED
        head = (head + 1) & 0xFFFFFFFF
    libc.fence_release()
    reactor.ring[at[CQ_HEAD]] = np.uint32(head)

    ready = 0
    if finished(reactor, READ_READY):
        ready |= READABLE
    if finished(reactor, WRITE_READY):
        ready |= WRITABLE
    return np.int64(ready)


@kernel()
def wait_plain(reactor, fd, want_writable, timeout_ns):
    """wait() over ppoll(2)."""
    events = libc.POLLIN | (libc.POLLOUT if want_writable else 0)
    reactor.requests[0] = np.int32(fd)
    reactor.requests[1] = np.int32(events)
    reactor.scratch[0] = timeout_ns // 1_000_000_000
    reactor.scratch[1] = timeout_ns % 1_000_000_000
    answer = libc.poll(reactor.requests, np.int64(1), reactor.scratch)
    if answer < 0:
        return np.int64(0) if answer == -libc.EINTR else answer
    returned = np.int64(reactor.requests[1]) >> 16
    ready = 0
    if answer > 0 and returned & (libc.POLLIN | libc.POLLERR | libc.POLLHUP):
        ready |= READABLE
    if answer > 0 and returned & libc.POLLOUT:
        ready |= WRITABLE
    return np.int64(ready)


@kernel()
def drain(reactor, fd):
    """Wait until no write or sync is under way, so that their memory may go. Answers 0 or -errno."""
    while True:
        busy = False
        for slot in range(READ_READY):
            busy = busy or reactor.state[slot] == BUSY
        if not busy:
            return np.int64(0)
        answer = wait(reactor, fd, False, np.int64(100_000_000))
        if answer < 0:
            return answer
