"""The survey: what the link and the disks of a lab really deliver, measured with bare loops.

Every cell is surveyed before and after; a link that was not what it claimed voids the cell. The functions marked "in a site"
run in a site's process on the connection that joins the two for as long as the lab lives.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

import numpy as np

from ..base.errors import UnfitError, system_error
from ..base.host.disk import BLOCK_BYTES, Disk
from ..base.host.libc import aligned_bytes
from ..base.wire.congestion import state_congestion
from ..base.wire.handshake import agree
from ..base.wire.terms import IN_THE_CLEAR, Terms
from ..base.wire.tunnel import Tunnel, open_tunnel
from . import survey_kernel as bare
from .relay_door import Address, bound
from .site import AnySite
from .stamps import Stamps

ECHO_BYTES = 64
PROBE = "probe"  # The connection on which a span is surveyed, for as long as the lab lives.
WARMING_ECHOES = 4  # The first packets after a pause find sleeping processors.
CONNECT_TIMEOUT_S = 10.0

KNOCKS = 16  # Connections that may wait at once: strangers knock where a site has no network of its own.

# In a site's process: the socket that waits for the other site, the one that will dial it, the connections that are held by name,
# and the tunnels that carry some of them.
SERVERS: dict[str, socket.socket] = {}
CONNECTIONS: dict[str, socket.socket] = {}
TUNNELS: dict[str, Tunnel] = {}


@dataclass(frozen=True)
class Survey:
    """Delivered round trips, in nanoseconds, in the order they were made."""

    rtt_ns: np.ndarray
    stamps: tuple[Stamps, Stamps] | None = None  # outward and homeward, where packets were stamped

    @property
    def rtt_ns_p50(self) -> float:
        """The median round trip."""
        return float(np.median(self.rtt_ns))

    @property
    def rtt_ns_min(self) -> int:
        """The fastest round trip."""
        return int(self.rtt_ns.min())


def off_ns(rtt_ns_p50: float, asked_rtt_ns: float) -> float:
    """How far a median lies from what was asked."""
    return rtt_ns_p50 - asked_rtt_ns


def join(near: AnySite, far: AnySite, name: str, congestion: str, terms: Terms = IN_THE_CLEAR) -> str:
    """A TCP connection between two sites' processes, without Nagle's delay; each holds it under its own name for it.

    Answers the congestion control in force, which is another than asked where the kernel lacks that. If the terms ask for more
    than TCP, what each holds is its end of a tunnel.
    """
    dialled = far.address, far.call(listen, far.address)
    expected = None
    if near.index in far.doors:
        dialled, expected = far.doors[near.index].passage(near.call(reserve, near.address), dialled)
    else:
        terms = terms.in_private()  # In namespaces there is nobody else who could connect.
    far.start(accept, near.taken(name), congestion, expected, terms)
    in_force = near.call(dial, *dialled, far.held(name), congestion, terms)
    far.answer()
    return in_force


def listen(address: str) -> int:
    """In a site: listen on its own address only; answers the port."""
    server = socket.create_server((address, 0), backlog=KNOCKS)
    server.settimeout(CONNECT_TIMEOUT_S)
    SERVERS["server"] = server
    return server.getsockname()[1]


def accept(name: str, congestion: str, expected: Address | None, terms: Terms) -> str:
    """In a site: take the one connection that was announced, from the address that was announced with it."""
    server = SERVERS.pop("server")
    until_s = time.monotonic() + CONNECT_TIMEOUT_S
    with server:
        while True:
            server.settimeout(max(until_s - time.monotonic(), 0.001))
            try:
                connection, peer = server.accept()
            except TimeoutError as late:
                raise UnfitError("The near site did not reach the far one within 10 s: is the link up?") from late
            if expected is None or peer == tuple(expected):
                return keep(name, connection, congestion, terms, dials=False)
            connection.close()


def reserve(address: str) -> Address:
    """In a site: the address and port that its next dial() will come from. Nobody else can come from there."""
    SERVERS["dialling"] = bound(address)
    return SERVERS["dialling"].getsockname()


def dial(address: str, port: int, name: str, congestion: str, terms: Terms) -> str:
    """In a site: connect to the other one, from where it was announced if it was."""
    connection = SERVERS.pop("dialling", None) or socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.settimeout(CONNECT_TIMEOUT_S)
        connection.connect((address, port))
    except OSError as refusal:
        connection.close()
        raise system_error(f"connect to the far site at {address}", refusal.errno or 110) from refusal
    return keep(name, connection, congestion, terms, dials=True)


def keep(name: str, connection: socket.socket, congestion: str, terms: Terms, dials: bool) -> str:
    """In a site: hold a connection under a name, in place of an older one; answers its congestion control."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    in_force = state_congestion(connection, congestion)  # Some kernels refuse it as a namespace's default.
    connection.settimeout(None)
    hang_up(name)
    if terms.need_a_tunnel:
        TUNNELS[name] = open_tunnel(connection, terms, dials)
        connection = TUNNELS[name].connection
    elif terms.are_proven:
        try:
            agree(connection, terms, dials)
        except BaseException:
            connection.close()
            raise
        connection.settimeout(None)
    CONNECTIONS[name] = connection
    return in_force


def hang_up(name: str) -> None:
    """In a site: close a held connection, if there is one."""
    older = CONNECTIONS.pop(name, None)
    if older is not None:
        older.close()
    tunnel = TUNNELS.pop(name, None)
    if tunnel is not None:
        tunnel.close()


def survey(
    near: AnySite, far: AnySite, count: int, request_bytes: int = ECHO_BYTES, answer_bytes: int = ECHO_BYTES,
    flushed: bool = False, polled: bool = False,
) -> Survey:  # fmt: skip
    """Measure `count` round trips of a bare echo between the sites; the far one flushes each before it answers if asked, and the
    near one polls for the answer instead of sleeping.
    """
    disk = far.disk if flushed else None
    far.start(answer_requests, request_bytes, answer_bytes, count + WARMING_ECHOES, disk, near.taken(PROBE))
    rtt_ns = near.call(measure_requests, request_bytes, answer_bytes, count + WARMING_ECHOES, far.held(PROBE), polled)
    far.answer()
    return Survey(rtt_ns[WARMING_ECHOES:])


def answer_requests(request_bytes: int, answer_bytes: int, count: int, disk: Disk | None, held: str = PROBE) -> None:
    """In the far site: answer so many echoes, each after an append and flush to the journal file if there is one."""
    probe = CONNECTIONS[held].fileno()
    flush_bytes = whole_blocks(request_bytes)
    data = aligned_bytes(max(flush_bytes, answer_bytes))
    if disk is None:
        answer = int(bare.answer_echoes(probe, data, request_bytes, answer_bytes, count))
    else:
        answer = int(
            bare.answer_flushed(
                probe, data, request_bytes, answer_bytes, count, disk.journal_fd, flush_bytes, disk.journal_bytes
            )
        )
    if answer != count:
        raise UnfitError(f"The probe connection ended after {max(answer, 0)} of {count} echoes.")


def measure_requests(
    request_bytes: int, answer_bytes: int, count: int, held: str = PROBE, polled: bool = False
) -> np.ndarray:
    """In the near site: time so many echoes, in ns."""
    data = np.zeros(max(request_bytes, answer_bytes), np.uint8)
    rtt_ns = np.zeros(count, np.int64)
    answer = int(bare.measure_echoes(CONNECTIONS[held].fileno(), data, request_bytes, answer_bytes, rtt_ns, polled))
    if answer != count:
        raise UnfitError(f"The probe connection ended after {max(answer, 0)} of {count} echoes.")
    return rtt_ns


def whole_blocks(size: int) -> int:
    """A size rounded up to what a journal is flushed in."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def flush_floor(disk: Disk, size: int, count: int) -> np.ndarray:
    """In a site: the time of `count` bare appends of `size` bytes to its journal file, each durable on return; in ns."""
    rounded = whole_blocks(size)
    data = aligned_bytes(rounded)
    flush_ns = np.zeros(count, np.int64)
    answer = int(bare.measure_flushes(disk.journal_fd, data, rounded, disk.journal_bytes, flush_ns))
    if answer < 0:
        raise system_error(f"append to the journal in {disk.directory}", answer)
    return flush_ns
