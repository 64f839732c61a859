"""TCP's congestion control: stated for every connection that is ours, and not whatever the host has as its default.

Figures over a distance depend on it: under BBR, which some hosts have, a loss costs another time than under CUBIC, and a write
that fills the window is paced. So a replica's connections, its doors' and the sites' own default are CUBIC (RFC 9438), Linux's,
unless the kernel lacks it or lets nobody choose it (net.ipv4.tcp_allowed_congestion_control); which one is in force is said.
"""

from __future__ import annotations

import contextlib
import socket

CONGESTION = "cubic"
NAME_BYTES_MAX = 16  # TCP_CA_NAME_MAX


def state_congestion(connection: socket.socket, name: str = CONGESTION) -> str:
    """Set it for a TCP connection, or for all that a listening socket will accept; answers what is in force, "" for no TCP."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return ""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, NAME_BYTES_MAX).rstrip(b"\0").decode()
