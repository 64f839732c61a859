"""libc for kernels: one short wrapper per function, answering a value or -errno.

`ExternalFunction` calls cache on disk and cost no interpreter. Every pointer travels as an int64 address, because that is
what array.ctypes.data gives inside nopython code; callers keep the array alive. These wrappers must never run
interpreted (NUMBA_DISABLE_JIT): an external function without the compiler is not a function.
"""

from __future__ import annotations

import mmap
import platform
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..jit import kernel

int32, int64, void = types.int32, types.int64, types.void

CLOCK_MONOTONIC = 1
TIMER_ABSTIME = 1

EAGAIN = 11
EINTR = 4
ENXIO = 6
ENOSPC = 28
EPIPE = 32
ECONNRESET = 104
ENOBUFS = 105
ETIME = 62

MSG_DONTWAIT = 0x40
MSG_NOSIGNAL = 0x4000

POLLIN = 1
POLLOUT = 4
POLLERR = 8
POLLHUP = 16

EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP = 1, 4, 8, 16, 0x2000
EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD = 1, 2, 3
# struct epoll_event in int32: events, then the caller's 64 bits. It is packed on x86-64 alone.
EPOLL_EVENT_WORDS, EPOLL_DATA_AT = (3, 1) if platform.machine() in ("x86_64", "AMD64") else (4, 2)

FIONREAD = 0x541B
SEEK_DATA, SEEK_HOLE = 3, 4
MAP_NORESERVE = 0x4000  # mmap(2); the mmap module of Python 3.11 has no name for it.

errno_location = types.ExternalFunction("__errno_location", types.CPointer(int32)())
libc_read = types.ExternalFunction("read", int64(int32, int64, int64))
libc_write = types.ExternalFunction("write", int64(int32, int64, int64))
libc_pread = types.ExternalFunction("pread", int64(int32, int64, int64, int64))
libc_pwrite = types.ExternalFunction("pwrite", int64(int32, int64, int64, int64))
libc_fdatasync = types.ExternalFunction("fdatasync", int32(int32))
libc_fallocate = types.ExternalFunction("fallocate", int32(int32, int32, int64, int64))
libc_recv = types.ExternalFunction("recv", int64(int32, int64, int64, int32))
libc_send = types.ExternalFunction("send", int64(int32, int64, int64, int32))
libc_shutdown = types.ExternalFunction("shutdown", int32(int32, int32))
libc_close = types.ExternalFunction("close", int32(int32))
libc_ioctl = types.ExternalFunction("ioctl", int32(int32, int64, int64))
libc_lseek = types.ExternalFunction("lseek", int64(int32, int64, int32))
libc_memcpy = types.ExternalFunction("memcpy", int64(int64, int64, int64))
libc_memcmp = types.ExternalFunction("memcmp", int32(int64, int64, int64))
libc_epoll_ctl = types.ExternalFunction("epoll_ctl", int32(int32, int32, int32, int64))
libc_epoll_wait = types.ExternalFunction("epoll_wait", int32(int32, int64, int32, int32))
libc_ppoll = types.ExternalFunction("ppoll", int32(int64, int64, int64, int64))
libc_clock_nanosleep = types.ExternalFunction("clock_nanosleep", int32(int32, int32, int64, int64))
libc_syscall6 = types.ExternalFunction("syscall", int64(int64, int64, int64, int64, int64, int64, int64))


@intrinsic
def fence_acquire(typing_context):
    """No load below moves above: before reading what another party published."""

    def generate(context, builder, signature, args):
        builder.fence("acquire")
        return context.get_dummy_value()

    return void(), generate


@intrinsic
def fence_release(typing_context):
    """No store above moves below: before publishing what another party will read."""

    def generate(context, builder, signature, args):
        builder.fence("release")
        return context.get_dummy_value()

    return void(), generate


@intrinsic
def errno_value(typing_context, pointer):
    """The integer behind __errno_location()."""

    def generate(context, builder, signature, args):
        return builder.load(args[0])

    return int32(pointer), generate


@intrinsic
def monotonic_words(typing_context):
    """(seconds, nanoseconds) of CLOCK_MONOTONIC through a timespec on the stack; clock_gettime(2) in the vDSO."""
    result = types.UniTuple(int64, 2)

    def generate(context, builder, signature, args):
        word = context.get_value_type(int64)
        spec = cgutils.alloca_once(builder, word, size=2)
        int32_type = context.get_value_type(int32)
        function_type = ir.FunctionType(int32_type, [int32_type, spec.type])
        function = cgutils.get_or_insert_function(builder.module, function_type, "clock_gettime")
        builder.call(function, [int32_type(CLOCK_MONOTONIC), spec])
        seconds = builder.load(spec)
        nanoseconds = builder.load(builder.gep(spec, [int32_type(1)]))
        return context.make_tuple(builder, result, [seconds, nanoseconds])

    return result(), generate


@kernel()
def errno():
    """The calling thread's errno. Read directly after the call that failed; errno(3)."""
    return int64(errno_value(errno_location()))


@kernel(int64())
def monotonic_ns():
    """CLOCK_MONOTONIC in nanoseconds: one clock for every process and namespace of this machine."""
    seconds, nanoseconds = monotonic_words()
    return seconds * 1_000_000_000 + nanoseconds


@kernel()
def read(fd, data, start, size):
    """Bytes read into data[start:start + size], 0 at the end, or -errno. read(2)."""
    done = libc_read(int32(fd), int64(data.ctypes.data) + start, size)
    return done if done >= 0 else -errno()


@kernel()
def write(fd, data, start, size):
    """Bytes written from data[start:start + size], or -errno. write(2)."""
    done = libc_write(int32(fd), int64(data.ctypes.data) + start, size)
    return done if done >= 0 else -errno()


@kernel()
def pread(fd, data, start, size, offset):
    """Bytes read at a file offset, or -errno. pread(2)."""
    done = libc_pread(int32(fd), int64(data.ctypes.data) + start, size, offset)
    return done if done >= 0 else -errno()


@kernel()
def pwrite(fd, data, start, size, offset):
    """Bytes written at a file offset, or -errno. pwrite(2)."""
    done = libc_pwrite(int32(fd), int64(data.ctypes.data) + start, size, offset)
    return done if done >= 0 else -errno()


@kernel()
def fdatasync(fd):
    """0 once the data is durable, or -errno. fdatasync(2)."""
    done = int64(libc_fdatasync(int32(fd)))
    return done if done >= 0 else -errno()


@kernel()
def punch(fd, offset, size):
    """0 once these bytes of a file are a hole, as far as they are whole blocks, and zeros at its edges, or -errno.

    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE; fallocate(2).
    """
    done = int64(libc_fallocate(int32(fd), int32(3), offset, size))
    return done if done >= 0 else -errno()


@kernel()
def receive(fd, data, start, size, flags):
    """Bytes received into data[start:start + size], 0 when the peer has closed, or -errno. recv(2)."""
    done = libc_recv(int32(fd), int64(data.ctypes.data) + start, size, int32(flags))
    return done if done >= 0 else -errno()


@kernel()
def send(fd, data, start, size, flags):
    """Bytes taken by the send buffer, or -errno; never raises SIGPIPE. send(2)."""
    done = libc_send(int32(fd), int64(data.ctypes.data) + start, size, int32(flags | MSG_NOSIGNAL))
    return done if done >= 0 else -errno()


@kernel()
def shutdown(fd):
    """0 once both directions have ended, or -errno. shutdown(2)."""
    done = int64(libc_shutdown(int32(fd), int32(2)))
    return done if done >= 0 else -errno()


@kernel()
def end_sending(fd):
    """0 once the peer will find the end of the stream behind what was sent, or -errno. shutdown(2), SHUT_WR."""
    done = int64(libc_shutdown(int32(fd), int32(1)))
    return done if done >= 0 else -errno()


@kernel()
def close(fd):
    """0 once the descriptor is given back, or -errno. close(2)."""
    done = int64(libc_close(int32(fd)))
    return done if done >= 0 else -errno()


@kernel()
def available(fd, words):
    """Bytes that can be received from a socket now, or -errno; words[0] is written over. ioctl(2), FIONREAD."""
    words[0] = 0
    done = int64(libc_ioctl(int32(fd), int64(FIONREAD), int64(words.ctypes.data)))
    return words[0] & 0xFFFFFFFF if done >= 0 else -errno()


@kernel()
def seek(fd, offset, whence):
    """The offset of the next data or hole of a file (SEEK_DATA, SEEK_HOLE), or -errno. lseek(2)."""
    done = libc_lseek(int32(fd), offset, int32(whence))
    return done if done >= 0 else -errno()


@kernel()
def copy(target, at, source, begin, size):
    """source[begin:begin + size] into target[at:]; they may not overlap. memcpy(3)."""
    assert at >= 0 and begin >= 0 and size >= 0 and size <= target.size - at and size <= source.size - begin
    libc_memcpy(int64(target.ctypes.data) + at, int64(source.ctypes.data) + begin, int64(size))


@kernel()
def are_equal(one, at, other, begin, size):
    """Whether one[at:at + size] and other[begin:begin + size] are the same bytes. memcmp(3)."""
    assert at >= 0 and begin >= 0 and size >= 0 and size <= one.size - at and size <= other.size - begin
    return libc_memcmp(int64(one.ctypes.data) + at, int64(other.ctypes.data) + begin, int64(size)) == 0


@kernel()
def epoll_control(epoll, operation, fd, events, mark, scratch):
    """0 once epoll asks for these events of fd, and answers them with `mark`, or -errno. scratch is int32. epoll_ctl(2)."""
    scratch[0] = events
    scratch[EPOLL_DATA_AT], scratch[EPOLL_DATA_AT + 1] = mark, 0
    done = int64(libc_epoll_ctl(int32(epoll), int32(operation), int32(fd), int64(scratch.ctypes.data)))
    return done if done >= 0 else -errno()


@kernel()
def epoll_ready(epoll, events):
    """How many descriptors are ready now, written into events (int32, EPOLL_EVENT_WORDS each), or -errno. epoll_wait(2)."""
    most = events.size // EPOLL_EVENT_WORDS
    done = int64(libc_epoll_wait(int32(epoll), int64(events.ctypes.data), int32(most), int32(0)))
    return done if done >= 0 else -errno()


@kernel()
def epoll_await(epoll, events, timeout_ms):
    """As `epoll_ready`, after waiting for the first of them for so long at most. epoll_wait(2)."""
    most = events.size // EPOLL_EVENT_WORDS
    done = int64(libc_epoll_wait(int32(epoll), int64(events.ctypes.data), int32(most), int32(timeout_ms)))
    return done if done >= 0 else -errno()


@kernel()
def poll(requests, count, timeout):
    """How many descriptors are ready, 0 after the timeout, or -errno. ppoll(2).

    `requests` is int32, two words per descriptor: fd, then events in the low and returned events in the high half
    (struct pollfd). `timeout` is int64: seconds, nanoseconds.
    """
    done = int64(libc_ppoll(int64(requests.ctypes.data), count, int64(timeout.ctypes.data), 0))
    return done if done >= 0 else -errno()


@kernel(allocates=True)
def sleep_until(when_ns):
    """Sleep until an instant of CLOCK_MONOTONIC; a signal may end it earlier. clock_nanosleep(2)."""
    until = np.empty(2, np.int64)
    until[0], until[1] = when_ns // 1_000_000_000, when_ns % 1_000_000_000
    return int64(libc_clock_nanosleep(int32(CLOCK_MONOTONIC), int32(TIMER_ABSTIME), int64(until.ctypes.data), 0))


@kernel()
def syscall6(number, a, b, c, d, e, f):
    """The raw system call, or -errno. syscall(2)."""
    done = libc_syscall6(number, a, b, c, d, e, f)
    return done if done >= 0 else -errno()


def aligned_bytes(size: int) -> Any:
    """`size` zeroed bytes (uint8) that begin on a page, as direct I/O wants them. All there: no write will wait for a page."""
    made = np.frombuffer(mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    made[:: mmap.PAGESIZE] = 0  # MAP_POPULATE is not enough in user-mode Linux.
    return made


def lazy_bytes(rows: int, size: int) -> Any:
    """uint8, rows x size, zeros: memory that is there once it is written to, and is promised to nobody before."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    return np.frombuffer(mmap.mmap(-1, max(rows * size, 1), flags=flags), np.uint8)[: rows * size].reshape(rows, size)
