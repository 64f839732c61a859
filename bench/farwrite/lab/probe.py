"""What a link does to packets, one by one: delay of each direction, loss and its bursts, order, duplicates, rate.

Numbered datagrams go from one site to the other; both share CLOCK_MONOTONIC, so the delay of one direction is known without
halving a round trip. `probe` sends them, `Delivered` is what a crowd of them says. Delay: RFC 7679; order: RFC 4737.
"""

from __future__ import annotations

import math
import socket
import time
from dataclasses import dataclass

import numpy as np

from ..base.errors import UnfitError, system_error
from ..base.units import NS_PER_MS, NS_PER_S
from ..workload.link_spec import FRAME_OVERHEAD_BYTES
from . import probe_kernel as bare
from .site import AnySite

IP_UDP_BYTES = 28
PROBE_BYTES = 64 - 18 - IP_UDP_BYTES  # A datagram that fills the smallest Ethernet frame: header and checksum take 18 of 64.
FULL_BYTES = 1500 - IP_UDP_BYTES  # One that fills the usual largest.
QUIET_S = 0.5  # So long after the last datagram nothing more is waited for; the delay comes on top.
BUFFER_BYTES = 64 << 20
SO_RCVBUFFORCE = 33
Z_95, Z_999 = 1.959964, 3.290527  # Of the normal distribution, two-sided.

RECEIVERS: dict[str, socket.socket] = {}  # In a site's process: the socket that waits for datagrams.


@dataclass(frozen=True)
class Delivered:
    """What arrived of `sent` numbered datagrams, in the order of arrival."""

    sent: int
    payload_bytes: int
    number: np.ndarray
    sent_ns: np.ndarray
    got_ns: np.ndarray

    @property
    def delay_ns(self) -> np.ndarray:
        """One-way delays, in the order of arrival."""
        return self.got_ns - self.sent_ns

    @property
    def lost(self) -> int:
        """Datagrams that never arrived."""
        return self.sent - np.unique(self.number).size

    @property
    def duplicates(self) -> int:
        """Arrivals of what had arrived already."""
        return self.number.size - np.unique(self.number).size

    @property
    def reordered(self) -> int:
        """Datagrams that arrived after one that was sent later. Type-P-Reordered, RFC 4737 section 3.3."""
        _, first = np.unique(self.number, return_index=True)
        arrived = self.number[np.sort(first)]
        return int((arrived < np.maximum.accumulate(arrived)).sum()) if arrived.size else 0

    @property
    def ahead(self) -> int:
        """Datagrams that overtook at least one that was sent earlier: what the reordered ones were reordered by."""
        _, first = np.unique(self.number, return_index=True)
        arrived = self.number[np.sort(first)][::-1]
        return int((arrived > np.minimum.accumulate(arrived)).sum()) if arrived.size else 0

    @property
    def loss_ratio(self) -> float:
        """The share that was lost."""
        return self.lost / self.sent if self.sent else 0.0

    def loss_interval(self, z: float = Z_95) -> tuple[float, float]:
        """The 95 % interval of the loss ratio, or another's, were losses independent of each other."""
        return share_interval(self.lost, self.sent, z)

    def bursts(self) -> np.ndarray:
        """How many datagrams in a row each loss took."""
        arrived = np.zeros(self.sent + 2, bool)
        arrived[0] = arrived[-1] = True
        arrived[1 + self.number[(self.number >= 0) & (self.number < self.sent)]] = True
        gaps = np.diff(np.flatnonzero(arrived)) - 1
        return gaps[gaps > 0]

    def rate_bits_per_s(self) -> float | None:
        """Bits on the wire per second from the first arrival to the last; None for less than two arrivals."""
        if self.got_ns.size < 2:
            return None
        lasted_ns = int(self.got_ns.max() - self.got_ns.min())
        frame_bits = 8 * (self.payload_bytes + IP_UDP_BYTES + FRAME_OVERHEAD_BYTES)
        return (self.got_ns.size - 1) * frame_bits * NS_PER_S / lasted_ns if lasted_ns else None


def share_interval(count: int, of: int, z: float = Z_95) -> tuple[float, float]:
    """The interval of a share, from `count` of so many. Wilson 1927, which is sound near 0 and 1."""
    if of == 0:
        return 0.0, 1.0
    share, square = count / of, z**2
    centre = (share + square / (2 * of)) / (1 + square / of)
    half = z * math.sqrt(share * (1 - share) / of + square / (4 * of * of)) / (1 + square / of)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def probe(
    sender: AnySite, receiver: AnySite, to: str, count: int, gap_ns: int, payload_bytes: int = PROBE_BYTES, delay_ns: int = 0
) -> Delivered:
    """Send `count` datagrams `gap_ns` apart (0: as fast as they go) to a site's address, and see what arrives.

    `delay_ns` is about how long the link holds them: for how long to wait for the last.
    """
    lasts_s = count * gap_ns / NS_PER_S + delay_ns / NS_PER_S
    port = receiver.call(open_receiver, to, QUIET_S + delay_ns / NS_PER_S)
    receiver.start(receive_datagrams, 2 * count + 64)
    sender.call(send_datagrams, to, port, count, gap_ns, payload_bytes, timeout_s=lasts_s + 60)
    number, sent_ns, got_ns = receiver.answer(lasts_s + 60)
    return Delivered(count, payload_bytes, number, sent_ns, got_ns)


def open_receiver(address: str, quiet_s: float) -> int:
    """In a site: a socket for datagrams with room for many; answers its port."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)  # Root of a namespace may; socket(7).
    except OSError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    opened.bind((address, 0))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(quiet_s))
    RECEIVERS["datagrams"] = opened
    return opened.getsockname()[1]


def timeval(seconds: float) -> bytes:
    """struct timeval."""
    return np.array([int(seconds), round((seconds % 1) * 1e6)], np.int64).tobytes()


def receive_datagrams(count_max: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """In a site: (number, sent, got) of what arrives until it has been quiet for the socket's timeout.

    The first is waited for a little longer: it is sent only now.
    """
    data = np.zeros(1 << 16, np.uint8)
    found = np.zeros((3, count_max), np.int64)
    with RECEIVERS.pop("datagrams") as opened:
        until_s = time.monotonic() + 2.0
        count = 0
        while count == 0 and time.monotonic() < until_s:
            count = int(bare.receive_probes(opened.fileno(), data, data[:16].view(np.int64), *found))
    if count < 0:
        raise system_error("receive datagrams over the link", count)
    return found[0, :count].copy(), found[1, :count].copy(), found[2, :count].copy()


def send_datagrams(address: str, port: int, count: int, gap_ns: int, payload_bytes: int) -> None:
    """In a site: numbered datagrams to the other one."""
    data = np.zeros(max(payload_bytes, bare.HEADER_BYTES), np.uint8)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.connect((address, port))
        begin_ns = time.monotonic_ns() + NS_PER_MS
        done = int(bare.send_probes(opened.fileno(), data, data[:16].view(np.int64), count, gap_ns, begin_ns))
    if done < 0:
        raise system_error("send datagrams over the link", done)


def bulk_bits_per_s(sender: AnySite, receiver: AnySite, to: str, lasts_s: float) -> float:
    """Bits per second that one TCP connection carries to a site's address, by what arrives in the second half."""
    port = receiver.call(open_bulk, to)
    receiver.start(drain_bulk)
    sender.call(pour_bulk, to, port, lasts_s, timeout_s=lasts_s + 60)
    return receiver.answer(lasts_s + 60)


def open_bulk(address: str) -> int:
    """In a site: listen for one connection; answers the port."""
    opened = socket.create_server((address, 0), backlog=1)
    opened.settimeout(10)
    RECEIVERS["bulk"] = opened
    return opened.getsockname()[1]


def drain_bulk() -> float:
    """In a site: take what the connection that was announced brings; bits per second."""
    with RECEIVERS.pop("bulk") as server:
        connection, _ = server.accept()
    return drained_bits_per_s(connection)


def drained_bits_per_s(connection: socket.socket) -> float:
    """What a connection brings until its end, in bits per second over the second half of its time."""
    times, totals = [], []
    with connection:
        data = memoryview(bytearray(1 << 20))
        total = 0
        while part := connection.recv_into(data):
            total += part
            times.append(time.monotonic_ns())
            totals.append(total)
    if len(times) < 2:
        raise UnfitError("Nothing to speak of came over the link.")
    middle = int(np.searchsorted(times, (times[0] + times[-1]) // 2))
    lasted_ns = times[-1] - times[middle]
    return 8 * (totals[-1] - totals[middle]) * NS_PER_S / lasted_ns if lasted_ns else 0.0


def pour_bulk(address: str, port: int, lasts_s: float) -> None:
    """In a site: send as much as a connection takes."""
    data = bytes(1 << 18)
    with socket.create_connection((address, port), timeout=30) as connection:
        until_s = time.monotonic() + lasts_s
        while time.monotonic() < until_s:
            connection.sendall(data)
