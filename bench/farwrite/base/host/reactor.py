"""One place to wait: sockets, durable writes to a file, and a deadline, in a single system call.

A replica's loop starts durable writes here and then sleeps until a write is durable, a socket is ready or its deadline
has come. It reads the clock and its sockets through here as well, so that everything a replica knows of the world passes
this file: the third form, pretend, is a world in memory (pretend_kernel), and the same machine code runs in it.

Over io_uring all of this is one `io_uring_enter` and a write is truly asynchronous. Where io_uring is forbidden (Docker's
seccomp profile) or absent, the plain form does the same with a blocking pwrite and ppoll: same verbs, same
order of events, no overlap of its own flush with the network. Which of the two runs is in the recording.

The ring is mapped and set up by Python (io_uring_setup(2)); kernels only fill and drain it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from ..jit import kernel
from ..row import Row, i64, rows_of
from . import libc
from . import pretend_kernel as pretend

PLAIN, URING, PRETEND = 0, 1, 2

SOCKETS_MAX = 5  # A replica waits for this many peers at most, and for its clients' door.

# What can be under way, one of each at a time: indices into Reactor.state and Reactor.result.
JOURNAL, SUPERBLOCK, VOLUME, KEPT, READ_READY = range(5)
WRITE_READY = READ_READY + SOCKETS_MAX
DOOR_READY = WRITE_READY + SOCKETS_MAX
SLOTS = DOOR_READY + 1

IDLE, BUSY, FINISHED = 0, 1, 2

EAGAIN, EINTR = libc.EAGAIN, libc.EINTR

# What wait() answers, as bits by socket: socket p is readable (bit p), writable (bit p + 8).
READABLE, WRITABLE = 1, 1 << 8

SYS_IO_URING_SETUP = 425
SYS_IO_URING_ENTER = 426
SYS_COPY_FILE_RANGE = 326 if platform.machine() == "x86_64" else 285
OP_FSYNC, OP_POLL_ADD, OP_WRITE = 3, 6, 23
FSYNC_DATASYNC = 1
ENTER_GETEVENTS, ENTER_EXT_ARG = 1, 8
SETUP_COOP_TASKRUN, SETUP_SINGLE_ISSUER, SETUP_DEFER_TASKRUN = 1 << 8, 1 << 12, 1 << 13
FEATURE_SINGLE_MMAP, FEATURE_EXT_ARG = 1 << 0, 1 << 8
OFFSET_SQES = 0x10000000
NO_DATA = pretend.NO_DATA
ENTRIES = 16  # At most SLOTS entries are ever under way.
NOTHING = pretend.nothing()


class Ring(Row):
    """Where io_uring's ring lies, and what has been asked of it. Offsets are in 4-byte words of Reactor.ring."""

    kind = i64("PLAIN, URING or PRETEND")
    ring_fd = i64("descriptor of the ring; -1 without one")
    sq_tail = i64("offset of the submission queue's tail")
    sq_mask = i64("submission entries, less 1")
    sq_array = i64("offset of the submission queue's array of entry numbers")
    cq_head = i64("offset of the completion queue's head")
    cq_tail = i64("offset of the completion queue's tail")
    cq_mask = i64("completion entries, less 1")
    cqes = i64("offset of the completion entries")
    pending = i64("entries that were filled and not yet submitted")
    syscalls = i64("times the system was asked")
    door_fd = i64("descriptor that wait() waits for as well: an epoll descriptor that holds every client; -1 without one")
    stalled = i64("1: the disk answers nothing: what has come to its end is not told of; for drills and the simulator")
    abandoned = i64("1: the disk's answers are waited for no longer")
    image_fd = i64("descriptor of what the volume's last flush has kept, for drills that cut the power; -1 without one")
    image_bytes = i64("bytes of the volume; the image holds it twice, and behind that the number of the half that counts")
    image_half = i64("the half that counts, 0 or 1")


class Reactor(NamedTuple):
    """The ring's shared memory, and what is under way by slot (JOURNAL .. WRITE_READY)."""

    at: np.ndarray  # Ring, one
    ring: np.ndarray  # uint32, the kernel's submission and completion rings
    entries: np.ndarray  # int64, submission entries, eight words each
    state: np.ndarray  # int64 by slot: IDLE, BUSY or FINISHED
    result: np.ndarray  # int64 by slot, valid when FINISHED: bytes or -errno
    scratch: np.ndarray  # int64: timespec, then struct io_uring_getevents_arg
    requests: np.ndarray  # int32: struct pollfd by socket, for the plain form
    world: pretend.World  # where the pretend form lives; empty in the others


def empty() -> Reactor:
    """A reactor of the plain form; also what the ring's form starts from."""
    made = Reactor(
        at=rows_of(Ring),
        ring=np.zeros(1, np.uint32),
        entries=np.zeros(8, np.int64),
        state=np.zeros(SLOTS, np.int64),
        result=np.zeros(SLOTS, np.int64),
        scratch=np.zeros(8, np.int64),
        requests=np.zeros(2 * (SOCKETS_MAX + 1), np.int32),
        world=NOTHING,
    )
    made.at[0].ring_fd = made.at[0].door_fd = made.at[0].image_fd = -1
    return made


def pretended(world: pretend.World) -> Reactor:
    """A reactor whose clock, disk and sockets are a world in memory."""
    made = empty()._replace(world=world)
    made.at[0].kind = PRETEND
    return made


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
                drain(made)  # A loop that failed leaves writes under way, and their memory is about to go.
    finally:
        os.close(descriptor)


def name_of(chosen: Reactor) -> str:
    """"io_uring", "pwrite" or "pretend", for recordings."""
    return ("pwrite", "io_uring", "pretend")[int(chosen.at[0].kind)]


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
    at = made.at[0]
    at.kind, at.ring_fd = URING, descriptor
    at.sq_tail, at.sq_mask, at.sq_array = sq_tail, int(ring[sq_mask]), sq_array
    at.cq_head, at.cq_tail, at.cq_mask, at.cqes = cq_head, cq_tail, int(ring[cq_mask]), cqes
    return made


@kernel()
def prepare(reactor, slot, opcode, fd, offset, address, size, flags):
    """Fill the next submission entry; the coming wait() hands it to the kernel."""
    at = reactor.at[0]
    tail = np.int64(reactor.ring[at.sq_tail])
    index = tail & at.sq_mask
    entry = index * 8
    for word in range(8):
        reactor.entries[entry + word] = 0
    reactor.entries[entry] = opcode | (np.int64(fd) << 32)
    reactor.entries[entry + 1] = offset
    reactor.entries[entry + 2] = address
    reactor.entries[entry + 3] = size | (np.int64(flags) << 32)
    reactor.entries[entry + 4] = slot
    reactor.ring[at.sq_array + index] = np.uint32(index)
    libc.fence_release()
    reactor.ring[at.sq_tail] = np.uint32(tail + 1)
    at.pending += 1
    reactor.state[slot] = BUSY


@kernel()
def now_ns(reactor):
    """The clock everything in a replica goes by: CLOCK_MONOTONIC."""
    if reactor.at[0].kind == PRETEND:
        return pretend.now_ns(reactor.world)
    return libc.monotonic_ns()


@kernel()
def send(reactor, socket, data, start, size):
    """Bytes of data[start:start + size] that the send buffer took, or -errno (-EAGAIN: it is full); never waits."""
    if reactor.at[0].kind == PRETEND:
        return pretend.send(reactor.world, socket, data, start, size)
    return libc.send(socket, data, start, size, np.int64(libc.MSG_DONTWAIT))


@kernel()
def receive(reactor, socket, data, start, size):
    """Bytes received into data[start:start + size], 0 when the peer has closed, or -errno; never waits."""
    if reactor.at[0].kind == PRETEND:
        return pretend.receive(reactor.world, socket, data, start, size)
    return libc.receive(socket, data, start, size, np.int64(libc.MSG_DONTWAIT))


@kernel()
def hang_up(reactor, socket):
    """End a connection in both directions; its descriptor stays whoever's it is. shutdown(2)."""
    if reactor.at[0].kind == PRETEND:
        pretend.hang_up(reactor.world, socket)
    else:
        libc.shutdown(socket)


@kernel()
def write_volume(reactor, fd, data, start, size, offset):
    """Bytes written into a volume, not yet durable, or -errno. pwrite(2)."""
    if reactor.at[0].kind == PRETEND:
        return pretend.write_volume(reactor.world, data, start, size, offset)
    return libc.pwrite(fd, data, start, size, offset)


@kernel()
def trim_volume(reactor, fd, offset, size):
    """0 once the bytes read as zeros and the whole blocks among them are given back, or -errno. fallocate(2)."""
    if reactor.at[0].kind == PRETEND:
        return pretend.trim_volume(reactor.world, offset, size)
    return libc.punch(fd, offset, size)


@kernel()
def read_volume(reactor, fd, data, start, size, offset):
    """Bytes read of a volume, what was just written included, or -errno. pread(2)."""
    if reactor.at[0].kind == PRETEND:
        return pretend.read_volume(reactor.world, data, start, size, offset)
    return libc.pread(fd, data, start, size, offset)


@kernel()
def next_data(reactor, fd, offset):
    """Where the next data of a volume's file begins, `offset` or behind; NO_DATA where only a hole is left. lseek(2).

    A file that cannot be asked is all data; so is a device that answers 0 to every question (/dev/full; noop_llseek in Linux).
    """
    if reactor.at[0].kind == PRETEND:
        return pretend.next_data(reactor.world, offset)
    found = libc.seek(fd, offset, np.int64(libc.SEEK_DATA))
    if found == -libc.ENXIO:
        return np.int64(NO_DATA)
    return max(found, np.int64(offset))


@kernel()
def next_hole(reactor, fd, offset):
    """Where the data that stands at `offset` of a volume's file ends; NO_DATA where that cannot be asked. lseek(2)."""
    if reactor.at[0].kind == PRETEND:
        return pretend.next_hole(reactor.world, offset)
    found = libc.seek(fd, offset, np.int64(libc.SEEK_HOLE))
    return found if found > offset else np.int64(NO_DATA)


@kernel()
def read_journal(reactor, fd, data, start, size, offset):
    """Bytes read of a journal's file, or -errno. The file may be open for direct I/O: whole blocks, aligned memory."""
    if reactor.at[0].kind == PRETEND:
        return pretend.read_journal(reactor.world, data, start, size, offset)
    return libc.pread(fd, data, start, size, offset)


@kernel()
def write_kept(reactor, fd, data, start, size, offset):
    """Bytes written among what is kept for snapshots, not yet durable, or -errno. pwrite(2)."""
    if reactor.at[0].kind == PRETEND:
        return pretend.write_kept(reactor.world, data, start, size, offset)
    return libc.pwrite(fd, data, start, size, offset)


@kernel()
def read_kept(reactor, fd, data, start, size, offset):
    """Bytes read of what is kept for snapshots, or -errno. pread(2)."""
    if reactor.at[0].kind == PRETEND:
        return pretend.read_kept(reactor.world, data, start, size, offset)
    return libc.pread(fd, data, start, size, offset)


@kernel()
def trim_kept(reactor, fd, offset, size):
    """0 once these bytes of what was kept for snapshots are given back, or -errno. fallocate(2)."""
    if reactor.at[0].kind == PRETEND:
        return pretend.trim_kept(reactor.world, offset, size)
    return libc.punch(fd, offset, size)


@kernel()
def sync_kept_now(reactor, fd):
    """0 once everything that is kept for snapshots is durable, or -errno; waits for the disk."""
    if reactor.at[0].kind == PRETEND:
        return pretend.sync_kept_now(reactor.world)
    return libc.fdatasync(fd)


@kernel()
def begin_write(reactor, slot, fd, data, start, size, offset):
    """Start writing data[start:start + size] at a file offset; the slot is FINISHED once the write has returned.

    Durable on return only if the file was opened with O_DSYNC, as journals are.
    """
    assert reactor.state[slot] == IDLE
    if reactor.at[0].kind == URING:
        prepare(reactor, slot, OP_WRITE, fd, offset, np.int64(data.ctypes.data) + start, size, 0)
    elif reactor.at[0].kind == PRETEND:
        pretend.begin_write(reactor.world, slot, data, start, size, offset)
        reactor.state[slot] = BUSY
    else:
        reactor.at[0].syscalls += 1
        reactor.result[slot] = libc.pwrite(fd, data, start, size, offset)
        reactor.state[slot] = FINISHED


@kernel()
def begin_sync(reactor, slot, fd):
    """Start making everything written to a file durable; fdatasync(2)."""
    assert reactor.state[slot] == IDLE
    if reactor.at[0].image_fd >= 0 and slot == VOLUME:
        keep_image(reactor, fd)
    if reactor.at[0].kind == URING:
        prepare(reactor, slot, OP_FSYNC, fd, 0, 0, 0, FSYNC_DATASYNC)
    elif reactor.at[0].kind == PRETEND:
        pretend.begin_sync(reactor.world, slot)
        reactor.state[slot] = BUSY
    else:
        reactor.at[0].syscalls += 1
        reactor.result[slot] = libc.fdatasync(fd)
        reactor.state[slot] = FINISHED


@kernel()
def write_now(reactor, fd, data, start, size, offset):
    """Bytes written at a file offset and durable, as begin_write's are, or -errno; waits for the disk."""
    if reactor.at[0].kind == PRETEND:
        return pretend.write_now(reactor.world, data, start, size, offset)
    return libc.pwrite(fd, data, start, size, offset)


@kernel()
def sync_now(reactor, fd):
    """0 once everything written to the volume is durable, or -errno; waits for the disk."""
    if reactor.at[0].kind == PRETEND:
        return pretend.sync_now(reactor.world)
    if reactor.at[0].image_fd < 0:
        return libc.fdatasync(fd)
    keep_image(reactor, fd)
    answer = libc.fdatasync(fd)
    if answer == 0:
        choose_image(reactor)
    return answer


@kernel()
def finished(reactor, slot):
    """True once for each operation that has come to its end; its answer is then in reactor.result[slot]."""
    if reactor.state[slot] != FINISHED or (reactor.at[0].stalled != 0 and slot < READ_READY):
        return False
    reactor.state[slot] = IDLE
    if slot == VOLUME and reactor.at[0].image_fd >= 0 and reactor.result[slot] >= 0:
        choose_image(reactor)
    return True


@kernel()
def keep_image(reactor, fd):
    """Copy a volume as it is now into the half of its image that does not count: what a flush that begins now will keep."""
    at = reactor.at[0]
    scratch = reactor.scratch
    scratch[0], scratch[1] = 0, (1 - at.image_half) * at.image_bytes
    left = at.image_bytes
    while left > 0:
        here = np.int64(scratch.ctypes.data)
        copied = libc.syscall6(SYS_COPY_FILE_RANGE, np.int64(fd), here, at.image_fd, here + 8, left, np.int64(0))
        assert copied > 0
        left -= copied


@kernel()
def choose_image(reactor):
    """A flush has come to its end: what was copied at its beginning counts from now on, whatever becomes of this process."""
    at = reactor.at[0]
    at.image_half = 1 - at.image_half
    reactor.scratch[0] = at.image_half
    written = libc.pwrite(at.image_fd, reactor.scratch.view(np.uint8), np.int64(0), np.int64(8), 2 * at.image_bytes)
    assert written == 8


@kernel()
def wait(reactor, sockets, want_writable, timeout_ns):
    """Sleep until something is finished, a socket is ready or the time is over; answers READABLE and WRITABLE bits, or -errno.

    `sockets` is int64, -1 where there is none; bit p of `want_writable` asks for socket p's send buffer as well.
    `timeout_ns` 0 looks without sleeping. A finished operation that nobody has asked for yet ends the sleep at once. So does
    the door, where there is one (Ring.door_fd): is_door_ready() tells of it.
    """
    for slot in range(READ_READY):
        if reactor.state[slot] == FINISHED and reactor.at[0].stalled == 0:
            timeout_ns = 0
    timeout_ns = max(timeout_ns, 0)
    reactor.at[0].syscalls += 1
    if reactor.at[0].kind == URING:
        return wait_uring(reactor, sockets, want_writable, timeout_ns)
    if reactor.at[0].kind == PRETEND:
        return wait_pretend(reactor, sockets, want_writable, timeout_ns)
    return wait_plain(reactor, sockets, want_writable, timeout_ns)


@kernel()
def wait_pretend(reactor, sockets, want_writable, timeout_ns):
    """wait() in a world in memory: nobody sleeps, the world is told until when one would have."""
    for slot in range(READ_READY):
        if reactor.state[slot] == BUSY and pretend.is_over(reactor.world, slot):
            reactor.result[slot] = pretend.finish(reactor.world, slot)
            reactor.state[slot] = FINISHED
            timeout_ns = 0
    ready = np.int64(0)
    for index in range(sockets.size):
        if sockets[index] >= 0:
            if pretend.is_readable(reactor.world, sockets[index]):
                ready |= READABLE << index
            if want_writable >> index & 1 and pretend.is_writable(reactor.world, sockets[index]):
                ready |= WRITABLE << index
    pretend.sleep(reactor.world, np.int64(0) if ready else timeout_ns)
    return ready


@kernel()
def wait_uring(reactor, sockets, want_writable, timeout_ns):
    """wait() over io_uring_enter(2) with an extended argument."""
    at = reactor.at[0]
    if at.door_fd >= 0 and reactor.state[DOOR_READY] == IDLE:
        prepare(reactor, DOOR_READY, OP_POLL_ADD, at.door_fd, 0, 0, 0, libc.POLLIN)
    for index in range(sockets.size):
        fd = sockets[index]
        if fd >= 0 and reactor.state[READ_READY + index] == IDLE:
            prepare(reactor, READ_READY + index, OP_POLL_ADD, fd, 0, 0, 0, libc.POLLIN)
        if fd >= 0 and want_writable >> index & 1 and reactor.state[WRITE_READY + index] == IDLE:
            prepare(reactor, WRITE_READY + index, OP_POLL_ADD, fd, 0, 0, 0, libc.POLLOUT)

    scratch = reactor.scratch
    scratch[0] = timeout_ns // 1_000_000_000
    scratch[1] = timeout_ns % 1_000_000_000
    scratch[2] = 0
    scratch[3] = 8
    scratch[4] = np.int64(scratch.ctypes.data)
    answer = libc.syscall6(
        SYS_IO_URING_ENTER, at.ring_fd, at.pending, np.int64(1 if timeout_ns > 0 else 0),
        ENTER_GETEVENTS | ENTER_EXT_ARG, np.int64(scratch.ctypes.data) + 16, 24,
    )  # fmt: skip
    if answer < 0:
        # A timed-out or interrupted wait has still submitted everything unless it says otherwise by its count.
        if answer != -libc.ETIME and answer != -libc.EINTR and answer != -libc.EAGAIN:
            return answer
        if answer == -libc.ETIME:
            at.pending = 0
    else:
        at.pending -= min(answer, at.pending)

    head = np.int64(reactor.ring[at.cq_head])
    tail = np.int64(reactor.ring[at.cq_tail])
    libc.fence_acquire()
    while head != tail:
        completion = at.cqes + (head & at.cq_mask) * 4
        slot = np.int64(reactor.ring[completion])
        reactor.result[slot] = np.int64(np.int32(reactor.ring[completion + 2]))
        reactor.state[slot] = FINISHED
        head = (head + 1) & 0xFFFFFFFF
    libc.fence_release()
    reactor.ring[at.cq_head] = np.uint32(head)

    ready = np.int64(0)
    for index in range(SOCKETS_MAX):
        if finished(reactor, READ_READY + index):
            ready |= READABLE << index
        if finished(reactor, WRITE_READY + index):
            ready |= WRITABLE << index
    return ready


@kernel()
def wait_plain(reactor, sockets, want_writable, timeout_ns):
    """wait() over ppoll(2)."""
    for index in range(sockets.size):
        reactor.requests[2 * index] = np.int32(sockets[index])  # Negative ones are passed over.
        reactor.requests[2 * index + 1] = np.int32(libc.POLLIN | (libc.POLLOUT if want_writable >> index & 1 else 0))
    door = sockets.size
    reactor.requests[2 * door], reactor.requests[2 * door + 1] = np.int32(reactor.at[0].door_fd), np.int32(libc.POLLIN)
    reactor.scratch[0] = timeout_ns // 1_000_000_000
    reactor.scratch[1] = timeout_ns % 1_000_000_000
    answer = libc.poll(reactor.requests, np.int64(sockets.size + 1), reactor.scratch)
    if answer < 0:
        return np.int64(0) if answer == -libc.EINTR else answer
    if answer > 0 and np.int64(reactor.requests[2 * door + 1]) >> 16 != 0:
        reactor.state[DOOR_READY] = FINISHED
    ready = np.int64(0)
    for index in range(sockets.size):
        returned = np.int64(reactor.requests[2 * index + 1]) >> 16
        if answer > 0 and returned & (libc.POLLIN | libc.POLLERR | libc.POLLHUP):
            ready |= READABLE << index
        if answer > 0 and returned & libc.POLLOUT:
            ready |= WRITABLE << index
    return ready


@kernel()
def is_door_ready(reactor):
    """True once for each wait() in which the door became readable."""
    return finished(reactor, DOOR_READY)


@kernel()
def forget_socket(reactor, index):
    """Let go of a connection that was hung up: what was asked about it has been answered, or is answered at once."""
    for slot in (READ_READY + index, WRITE_READY + index):
        if reactor.state[slot] == FINISHED:
            reactor.state[slot] = IDLE


@kernel()
def is_forgotten(reactor, index):
    """Whether nothing is under way on this socket's place, so that another socket may take it."""
    return reactor.state[READ_READY + index] == IDLE and reactor.state[WRITE_READY + index] == IDLE


@kernel(allocates=True)
def drain(reactor):
    """Wait until no write or sync is under way, so that their memory may go. Answers 0 or -errno."""
    nobody = np.full(1, -1, np.int64)
    while True:
        busy = False
        for slot in range(READ_READY):
            busy = busy or reactor.state[slot] == BUSY
        if not busy:
            return np.int64(0)
        answer = wait(reactor, nobody, np.int64(0), np.int64(100_000_000))
        if answer < 0:
            return answer
