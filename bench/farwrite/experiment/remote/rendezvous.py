"""How the two sites' processes find each other: a TCP connection whose first bytes are a token that only ssh has carried."""

from __future__ import annotations

import contextlib
import hmac
import os
import selectors
import socket
import time

from ...base.errors import UnfitError, system_error
from ...base.wire.door import accepted
from ...base.wire.terms import Terms
from ...lab.survey import CONNECT_TIMEOUT_S, keep

TOKEN_BYTES = 32
TOKEN_TIMEOUT_S = 2.0  # for a stranger to say what it wants
STRANGERS_MAX = 256  # listened to at once
BACKLOG = 1024  # Who comes while nobody accepts waits there, and the near site behind them: not to be full of strangers.
LOOPBACK = "127.0.0.1"
WELCOME = b"\x01"
WAITING: dict[str, socket.socket] = {}  # In the far site's process: the socket it inherited.


def listening() -> socket.socket:
    """In the far site: where it waits for the near one. No other address of this machine, let alone every one of them, answers.

    The address is that on which ssh came in, so whoever reached the one reaches the other; what only ssh reaches, it forwards.
    """
    for address in (ssh_address(), LOOPBACK):
        with contextlib.suppress(OSError):  # It may be an address that only sshd has: of a proxy, of another namespace.
            (family, _, _, _, place), *_ = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            return socket.create_server(place, family=family, backlog=BACKLOG)
    raise UnfitError(f"The far site cannot listen on {LOOPBACK}.")


def ssh_address() -> str:
    """The address of this machine that the ssh connection came in on; loopback where there is none. ssh(1), SSH_CONNECTION."""
    words = os.environ.get("SSH_CONNECTION", "").split()
    return words[2] if len(words) == 4 else LOOPBACK


def accept_token(token: bytes, name: str, congestion: str, terms: Terms, timeout_s: float = CONNECT_TIMEOUT_S) -> str:
    """In the far site: hold the connection that knows the token; strangers are sent away. Answers its congestion control."""
    connection = known_by(token, WAITING["server"], timeout_s)
    connection.setblocking(True)
    connection.sendall(WELCOME)
    return keep(name, connection, congestion, terms, dials=False)


def known_by(token: bytes, server: socket.socket, timeout_s: float) -> socket.socket:
    """The first connection that begins with the token. All are listened to at once, so a stranger costs nobody time.

    Who says something else, or nothing for a while, is sent away; of very many, the one that has waited longest.
    """
    until_s = time.monotonic() + timeout_s
    received: dict[socket.socket, bytes] = {}  # of who has not said 32 bytes yet, in the order in which they came
    since_s: dict[socket.socket, float] = {}
    server.setblocking(False)
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())

        def send_away(stranger: socket.socket) -> None:
            selector.unregister(stranger)
            del received[stranger], since_s[stranger]
            stranger.close()

        stack.callback(lambda: [send_away(stranger) for stranger in list(received)])  # type: ignore[func-returns-value]

        selector.register(server, selectors.EVENT_READ)
        while (now_s := time.monotonic()) < until_s:
            for silent in [one for one in received if now_s - since_s[one] > TOKEN_TIMEOUT_S]:
                send_away(silent)
            oldest_s = min((since_s[one] + TOKEN_TIMEOUT_S for one in received), default=until_s)
            for key, _ in selector.select(max(min(oldest_s, until_s) - now_s, 0.001)):
                one: socket.socket = key.fileobj  # type: ignore[assignment]
                if one is server:
                    come = accepted(server)
                    if come is None:
                        continue
                    newcomer, _ = come
                    newcomer.setblocking(False)
                    if len(received) == STRANGERS_MAX:
                        send_away(next(iter(received)))
                    received[newcomer], since_s[newcomer] = b"", now_s
                    selector.register(newcomer, selectors.EVENT_READ)
                elif one in received:
                    heard = heard_from(one, TOKEN_BYTES - len(received[one]))
                    received[one] += heard
                    if not heard or (len(received[one]) == TOKEN_BYTES and not hmac.compare_digest(received[one], token)):
                        send_away(one)
                    elif len(received[one]) == TOKEN_BYTES:
                        del received[one]  # So that it stays open.
                        return one
    raise UnfitError(f"The near site did not reach the far one within {timeout_s:g} s.")


def heard_from(stranger: socket.socket, size: int) -> bytes:
    """What it has said, at most so much; nothing when it has gone."""
    with contextlib.suppress(OSError):
        return stranger.recv(size)
    return b""


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
