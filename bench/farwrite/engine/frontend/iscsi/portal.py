"""Where initiators come in: a listening socket, a thread for each connection, a time limit for logging in.

Strangers are few at any time; of too many, the one that has been there longest is hung up on. A session that begins keeps its
thread until it ends. Beyond loopback and the network of a lab a portal opens only with CHAP.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ....base.errors import UsageError
from ....base.framing import receive_exactly
from ....base.wire.congestion import state_congestion
from ....base.wire.door import SparseLog
from . import pdu, relay
from .login import LOGIN_BYTES_MAX, Identity, Joined, Login, Rules
from .pdu import Pdu, ProtocolError
from .relay import Gates
from .session import Session
from .target import Target

LOG = logging.getLogger(__name__)
PORT = 3260
LOGIN_S = 15.0
STRANGERS_MAX = 64
THREADS_MAX = 512  # Of strangers, sessions, and those that are ending: while there are more nobody is accepted.
BACKLOG = 128
PAUSE_S, REST_S = 0.1, 0.005


def require_protection(address: str, target: Target, in_lab: bool = False) -> None:
    """Raises UsageError for a portal that everybody on a real network could log in to."""
    if in_lab or target.credentials is not None:
        return
    if not ipaddress.ip_address(address).is_loopback:
        raise UsageError(
            f"offer {target.name} at {address}: everybody who reaches this address could write to the volume. "
            "Give initiators a CHAP name and secret, or listen at 127.0.0.1."
        )


def receive_pdu(connection: socket.socket, deadline: float) -> Pdu:
    """The next PDU of a login, which has no digests."""
    late, closed = TimeoutError("it did not log in in time"), ConnectionResetError("it hung up before it had logged in")
    header = receive_exactly(connection, pdu.HEADER_BYTES, deadline, late, closed)
    lengths = pdu.lengths_of(header, LOGIN_BYTES_MAX)
    ahs = receive_exactly(connection, lengths.ahs, deadline, late, closed)
    return Pdu(header, ahs, receive_exactly(connection, lengths.padded, deadline, late, closed)[: lengths.data])


class Portal:
    """The connections of one listening socket."""

    def __init__(
        self, listening: socket.socket, target: Target, login_s: float = LOGIN_S, gates: Gates | None = None
    ) -> None:
        self.listening, self.target, self.login_s, self.gates = listening, target, login_s, gates
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.strangers: dict[socket.socket, None] = {}  # in the order in which they came
        self.threads: set[threading.Thread] = set()
        self.log = SparseLog(LOG, "iSCSI")

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listening.getsockname()[:2]
        return host, port

    def run(self) -> None:
        """Accept until the portal is closed."""
        while not self.closing.is_set():
            if len(self.threads) >= THREADS_MAX and not self.closing.wait(REST_S):
                continue
            try:
                connection, caller = self.listening.accept()
            except OSError as refusal:
                if not self.closing.wait(PAUSE_S):
                    self.log.warning("accept a connection: %s.", refusal.strerror)
                continue
            try:
                self.begin(connection, str(caller[0]))
            except (RuntimeError, MemoryError) as refusal:  # No thread can be started.
                self.log.warning("listen to %s: %s.", caller[0], refusal)
                connection.close()
                self.closing.wait(PAUSE_S)

    def begin(self, connection: socket.socket, caller: str) -> None:
        thread = threading.Thread(target=self.serve, args=(connection, caller), daemon=True)
        with self.lock:  # Until it has started: who closes the portal waits for every thread that he finds.
            if self.closing.is_set():
                connection.close()
                return
            if len(self.strangers) >= STRANGERS_MAX:
                oldest = next(iter(self.strangers))
                del self.strangers[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
            thread.start()
            self.strangers[connection] = None
            self.threads.add(thread)

    def serve(self, connection: socket.socket, caller: str) -> None:
        """In a thread of its own: one connection, from its first byte to its end."""
        session: Session | None = None
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session, login = self.log_in(connection)
            with self.lock:
                self.strangers.pop(connection, None)
            if session is None:
                return
            terms = login.terms
            if session.gates is not None and relay.can_relay(terms):
                session.connection, terms = relay.hand_over(session.gates, connection, session.slot, self.target, login)
                session.is_relayed = True
            if session.gates is not None and session.nexus is not None:
                session.nexus.close_gate = functools.partial(session.gates.set, session.slot)
            session.run(terms, login.status_sn, login.expected_command_sn)
        except (OSError, ProtocolError) as refusal:
            if not self.closing.is_set():
                self.log.warning("%s was not let in: %s", caller, refusal)
        except Exception:  # Our own fault, and only this initiator's loss.
            LOG.exception("our own fault, serving %s", caller)
        finally:
            with self.lock:
                self.strangers.pop(connection, None)
                self.threads.discard(threading.current_thread())
            if session is not None and not session.ended.is_set():
                session.finish()
            connection.close()

    def log_in(self, connection: socket.socket) -> tuple[Session | None, Login]:
        """The session of a connection, None when it was refused."""
        deadline = time.monotonic() + self.login_s
        made: list[Session] = []

        def join(identity: Identity) -> Joined:
            def member() -> Session:
                gates = None if identity.is_discovery else self.gates
                made.append(Session(connection, self.target, identity, gates))
                return made[0]

            return self.target.join(identity, member)

        host = connection.getsockname()[0]
        rules: Rules = self.target.rules(join, f"[{host}]" if ":" in host else host)
        login = Login(rules)
        try:
            while True:
                reply = login.reply(receive_pdu(connection, deadline))
                connection.settimeout(max(deadline - time.monotonic(), 0.01))
                connection.sendall(b"".join(reply.pieces))
                if reply.is_full_feature:
                    return made[0], login
                if reply.is_refused:
                    raise ProtocolError(reply.why)
        except BaseException:
            for session in made:
                session.finish()
            raise

    def close(self) -> None:
        """No more connections; those that there are end."""
        self.closing.set()
        with contextlib.suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        with self.lock:
            strangers, threads = list(self.strangers), list(self.threads)
        for connection in strangers:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.target.close()
        for thread in threads:
            thread.join(10)


@contextmanager
def portal(
    target: Target, address: str = "127.0.0.1", port: int = 0, in_lab: bool = False, login_s: float = LOGIN_S,
    gates: Gates | None = None,
) -> Iterator[Portal]:
    """A target offered at an address, exactly as long as this block."""
    require_protection(address, target, in_lab)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        state_congestion(listening)
        listening.listen(BACKLOG)
        with portal_of(listening, target, login_s, gates) as opened:
            yield opened


@contextmanager
def portal_of(
    listening: socket.socket, target: Target, login_s: float = LOGIN_S, gates: Gates | None = None
) -> Iterator[Portal]:
    """A target offered at a socket that listens, exactly as long as this block; nobody listens there afterwards."""
    opened = Portal(listening, target, login_s, gates)
    thread = threading.Thread(target=opened.run, daemon=True)
    thread.start()
    try:
        yield opened
    finally:
        opened.close()
        thread.join(10)
