"""Kernel to kernel: how long packets take from one site's kernel to the other's, by the kernels' own software timestamps.

A datagram is stamped when its sender's kernel hands it to the packet scheduler (before any qdisc, so that netem's delay counts)
and when its receiver's kernel takes it off the device. Neither stamp waits for an application, so a processor that is asleep, or
busy, is not mistaken for a long fibre. Both kernels are one, so each direction's delay is known without halving a round trip.
The lab's own process holds both sockets: it can send beside a load, and what arrives wakes nobody.

Linux Documentation/networking/timestamping.rst; one-way delay: RFC 7679.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.reduction import recv_handle, send_handle

import numpy as np

from ..base.errors import UnfitError, system_error
from ..base.units import NS_PER_S
from . import process as processes
from .site import Site

SO_TIMESTAMPING = 37  # and SCM_TIMESTAMPING: linux/net_tstamp.h
RX_SOFTWARE, SOFTWARE, OPT_ID, TX_SCHED, OPT_TSONLY = 1 << 3, 1 << 4, 1 << 7, 1 << 8, 1 << 11
SOL_IP, IP_RECVERR = 0, 11
RECVERR = struct.Struct("IBBBBII")  # sock_extended_err: errno, origin, type, code, pad, info, data
ORIGIN_TIMESTAMPING = 4
TIMESPEC = struct.Struct("qq")
NUMBER = struct.Struct("q")

PAYLOAD_BYTES = 64  # As the surveys' echoes.
ANCILLARY_BYTES = 512
RECEIVE_BYTES = 1 << 20
DROPPED = (errno.ENOBUFS, errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH)  # A probe that was lost is counted as lost.

BURST_GAP_S = 0.0008  # Between probes before and after a round: a processor has no time to fall deeply asleep.
BESIDE_GAP_S = 0.02  # Beside a load: fifty a second and direction, under 1 % of a processor.
LAST_S = 0.05  # For the last to arrive, on top of the distance.
STAMPING_S = 10.0  # For the kernel to begin to stamp.
FIRST_S = 3.0  # For one of a burst to arrive at all: whoever carries the packets may have to wait that long for a processor.


@dataclass
class Stamps:
    """The delays of one direction: probes sent, and what those that arrived took, in ns, in the order they were sent."""

    sent: int
    delay_ns: np.ndarray

    @property
    def min_ns(self) -> int:
        """The fastest. UnfitError when none arrived."""
        self.check(self.delay_ns.size)
        return int(self.delay_ns.min())

    def paired_ns(self, homeward: Stamps) -> np.ndarray:
        """Round trips in ns: one for each probe outward and the one homeward that was sent with it. UnfitError for none."""
        pairs = min(self.delay_ns.size, homeward.delay_ns.size)
        self.check(pairs)
        return self.delay_ns[:pairs] + homeward.delay_ns[:pairs]

    def check(self, arrived: int) -> None:
        """Refuse to speak of the delay of none."""
        if not arrived:
            raise UnfitError(f"Not one of {self.sent} stamped probes came over the link each way: is it up?")


@dataclass
class Direction:
    """One direction's two sockets, and the stamps that have been read."""

    sender: socket.socket
    receiver: socket.socket
    sent: int = 0  # since the socket was opened: the kernel numbers datagrams alike
    begin: int = 0  # the first number that the next take() is to tell of
    left_ns: dict[int, int] = field(default_factory=dict)
    came_ns: dict[int, int] = field(default_factory=dict)

    def send(self) -> None:
        """One probe. What the network refuses was lost, and is counted so."""
        data = NUMBER.pack(self.sent).ljust(PAYLOAD_BYTES, b"\0")
        try:
            self.sender.send(data)
        except OSError as refusal:
            if refusal.errno not in DROPPED:
                raise system_error("send a stamped probe over the link", refusal.errno or 0) from refusal
            return  # The kernel has not numbered it.
        self.sent += 1

    def read(self) -> None:
        """Every stamp that has come so far; waits for none."""
        for data, stamp_ns in self.drain(self.receiver, 0):
            if len(data) == PAYLOAD_BYTES:
                self.came_ns.setdefault(NUMBER.unpack_from(data)[0], stamp_ns)
        for number, stamp_ns in self.drain(self.sender, socket.MSG_ERRQUEUE):
            self.left_ns[number] = stamp_ns

    def drain(self, opened: socket.socket, flags: int) -> Iterator[tuple]:
        """(payload, stamp) of what arrived; (number, stamp) from an error queue."""
        while True:
            try:
                data, ancillary, _, _ = opened.recvmsg(PAYLOAD_BYTES, ANCILLARY_BYTES, flags | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as refusal:
                if refusal.errno in DROPPED:
                    continue
                raise system_error("read the stamp of a probe", refusal.errno or 0) from refusal
            stamp_ns, number = stamp_of(ancillary)
            if stamp_ns:
                yield (number if flags else data), stamp_ns

    def arrived(self) -> list[int]:
        """The numbers of the probes sent since the last take() that have both stamps."""
        return [number for number in range(self.begin, self.sent) if number in self.came_ns and number in self.left_ns]

    def take(self) -> Stamps:
        """What the probes sent since the last take() did."""
        numbers = self.arrived()
        delay_ns = np.array([self.came_ns[number] - self.left_ns[number] for number in numbers], np.int64)
        delay_ns = delay_ns[delay_ns >= 0]  # The stamps' clock may be set; a probe that meets that has no delay.
        taken = Stamps(self.sent - self.begin, delay_ns)
        self.begin = self.sent
        self.left_ns.clear()
        self.came_ns.clear()
        return taken


def stamp_of(ancillary: list) -> tuple[int, int]:
    """(CLOCK_REALTIME in ns, number of the datagram) of a control message; 0 where there is no stamp."""
    stamp_ns, number = 0, -1
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPING and len(data) >= TIMESPEC.size:
            seconds, rest_ns = TIMESPEC.unpack_from(data)
            stamp_ns = seconds * NS_PER_S + rest_ns
        elif level == SOL_IP and kind == IP_RECVERR and len(data) >= RECVERR.size:
            error = RECVERR.unpack_from(data)
            if error[1] == ORIGIN_TIMESTAMPING:
                number = error[6]
    return stamp_ns, number


class Prober:
    """Both directions of a span: stamped probes before, beside and after a load."""

    def __init__(self, near: socket.socket, far: socket.socket, homeward: tuple[socket.socket, socket.socket]) -> None:
        self.outward = Direction(near, far)
        self.homeward = Direction(*homeward)
        self.directions = (self.outward, self.homeward)

    def burst(self, count: int, rtt_ns: float) -> tuple[Stamps, Stamps]:
        """`count` probes each way, close to each other, and what they took: of at least one each way, unless the link is down."""
        for _ in range(count):
            self.send()
            time.sleep(BURST_GAP_S)
        return self.finish(rtt_ns, FIRST_S)

    def send(self) -> None:
        """One probe each way, and whatever stamps have come."""
        for direction in self.directions:
            direction.send()
            direction.read()

    def finish(self, rtt_ns: float, first_s: float = 0.0) -> tuple[Stamps, Stamps]:
        """Wait for the last, no longer than it can take, and tell; in a direction that none came over, `first_s` longer."""
        last_s = time.monotonic() + rtt_ns / NS_PER_S + LAST_S
        while True:
            for direction in self.directions:
                direction.read()
            sent = [direction.sent - direction.begin for direction in self.directions]
            arrived = [len(direction.arrived()) for direction in self.directions]
            if arrived == sent or time.monotonic() >= last_s + (0.0 if all(arrived) else first_s):
                return self.outward.take(), self.homeward.take()
            time.sleep(BURST_GAP_S)


@contextmanager
def beside(probers: list[Prober]) -> Iterator[None]:
    """Probes on these spans for as long as this block lasts; `finish` of each then tells what they took."""
    over = threading.Event()

    def probe() -> None:
        while not over.wait(BESIDE_GAP_S):
            with contextlib.suppress(UnfitError):  # A site that died tells so itself.
                for prober in probers:
                    prober.send()

    thread = threading.Thread(target=probe, name="stamped probes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def prober(near: Site, far: Site) -> Iterator[Prober]:
    """Stamped probes between two sites that a link has joined, open exactly as long as this block."""
    with contextlib.ExitStack() as stack:
        sockets = {}
        for name, site in (("near", near), ("far", far)):
            sockets[name] = [stack.enter_context(datagrams(site)) for _ in range(2)]
        for near_end, far_end in zip(sockets["near"], sockets["far"], strict=True):
            near_end.connect(far_end.getsockname())
            far_end.connect(near_end.getsockname())
        (near_out, near_in), (far_in, far_out) = sockets["near"], sockets["far"]
        yield Prober(near_out, far_in, (far_out, near_in))


def datagrams(site: Site) -> socket.socket:
    """A stamped socket for datagrams in a site's namespace, held by us."""
    site.call(have_stamped, site.address)
    site.start(give_datagrams, site.address)
    descriptor = recv_handle(site.running.connection)
    site.answer()
    return socket.socket(fileno=descriptor)


STAMPED: list[socket.socket] = []  # In a site: as long as one is open, the kernel stamps what arrives.


def have_stamped(address: str) -> None:
    """In a site: have the kernel stamp what arrives from now on, until the process ends.

    The kernel begins in a work queue (net_enable_timestamp, net/core/dev.c), which waits while realtime threads, such as other
    labs' ferries, have its processor; a burst of probes has come and gone by then, not one of them stamped.
    """
    if not STAMPED:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        STAMPED.append(opened)
        opened.bind((address, 0))
        opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, RX_SOFTWARE | SOFTWARE)
        await_stamp(opened, STAMPING_S)


def await_stamp(opened: socket.socket, limit_s: float) -> None:
    """Send datagrams to the socket itself until one comes with a stamp; UnfitError when none has within the limit."""
    begin_s = time.monotonic()
    while True:
        opened.sendto(bytes(PAYLOAD_BYTES), opened.getsockname())
        _, ancillary, _, _ = opened.recvmsg(PAYLOAD_BYTES, ANCILLARY_BYTES)
        if stamp_of(ancillary)[0]:
            return
        if time.monotonic() - begin_s > limit_s:
            raise UnfitError(f"The kernel has not begun to stamp datagrams within {limit_s:g} s: no distance can be proven here.")
        time.sleep(BURST_GAP_S)


def give_datagrams(address: str) -> None:
    """In a site: open a stamped socket for datagrams, hand it to our parent, and keep none."""
    assert processes.CONNECTION is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((address, 0))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, RX_SOFTWARE | TX_SCHED | SOFTWARE | OPT_ID | OPT_TSONLY)
        send_handle(processes.CONNECTION, opened.fileno(), os.getppid())
