"""How the two sites' processes find each other: a TCP connection whose first bytes are a token that only ssh has carried."""

from __future__ import annotations

import contextlib
import hmac
import socket
import time

from ..errors import UnfitError, system_error
from ..lab.survey import CONNECT_TIMEOUT_S, keep
from ..wire.terms import Terms

TOKEN_BYTES = 32
TOKEN_TIMEOUT_S = 2.0  # for a stranger to say what it wants
WELCOME = b"\x01"
WAITING: dict[str, socket.socket] = {}  # In the far site's process: the socket it inherited.


def accept_token(token: bytes, name: str, congestion: str, terms: Terms) -> str:
    """In the far site: hold the connection that knows the token; strangers are sent away. Answers its congestion control."""
    until_s = time.monotonic() + CONNECT_TIMEOUT_S
    server = WAITING["server"]
    while True:
        server.settimeout(max(until_s - time.monotonic(), 0.001))
        try:
            connection, _ = server.accept()
        except TimeoutError as late:
            raise UnfitError("The near site did not reach the far one within 10 s.") from late
        if said(connection, token):
            connection.sendall(WELCOME)
            return keep(name, connection, congestion, terms, dials=False)
        connection.close()


def said(connection: socket.socket, token: bytes) -> bool:
    """Whether the first bytes of a connection are the token."""
    connection.settimeout(TOKEN_TIMEOUT_S)
    with contextlib.suppress(OSError):
        return hmac.compare_digest(connection.recv(TOKEN_BYTES, socket.MSG_WAITALL), token)
    return False


def dial_token(host: str, port: int, token: bytes, name: str, congestion: str, terms: Terms, timeout_s: float) -> str:
    """In the near site: connect, say the token, and be welcomed. UnfitError when that cannot be."""
    connection = None
    try:
        connection = socket.create_connection((host, port), timeout=timeout_s)
        connection.sendall(token)
        if connection.recv(1) != WELCOME:
            raise ConnectionResetError(104, "not welcomed")
    except OSError as refusal:
        if connection is not None:
            connection.close()
        raise system_error(f"connect to {host} port {port}", refusal.errno or 110) from refusal
    return keep(name, connection, congestion, terms, dials=True)
