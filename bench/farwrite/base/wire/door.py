"""A port whose every caller is listened to at once, until it has proven who it is or its time is over.

A thread for each caller, so nobody waits for a stranger who says nothing, or little at a time. Strangers are few at any time: of
too many, the one that has been there longest is hung up on, among those of the host that has most of them. Nothing that a caller
does ends the door, and what is refused is logged, though not without bound.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import FarwriteError, system_error
from .congestion import state_congestion
from .conversation import Conversation, converse, require_proof
from .terms import Terms

STRANGERS_MAX = 64  # Not proven yet.
PROVEN_MAX = 64  # Proven, and not answered yet.
THREADS_MAX = 512  # Of both, and of those that were hung up on and are ending: while there are more nobody is accepted.
BACKLOG = 1024  # Who comes while nobody accepts waits there, the honest behind strangers.
PAUSE_S, REST_S = 0.1, 0.005  # Where a caller cannot be taken; where others are ending.
LOG_PER_WINDOW, LOG_WINDOW_S = 50, 10.0

Greet = Callable[[socket.socket], Any]  # Hears a stranger until it has proven who it is; what it answers is admitted.
Admit = Callable[[Any, Any], bool]  # With the caller's address: whether the connection is kept by whom it was given to.


def accepted(listening: socket.socket) -> tuple[socket.socket, Any] | None:
    """Whoever has come, and from where; None where nobody can be taken now.

    Without a descriptor left accept(2) refuses at once and whoever has come waits still: a loop that looks again would spin.
    """
    try:
        return listening.accept()
    except (TimeoutError, BlockingIOError, ConnectionAbortedError):
        return None
    except OSError:
        time.sleep(REST_S)
        return None


class SparseLog:
    """Warnings, so many in a while and no more; how many were left out is said with the next."""

    def __init__(self, log: logging.Logger, name: str) -> None:
        self.log, self.name = log, name
        self.lock = threading.Lock()
        self.window_s, self.count, self.left_out = -LOG_WINDOW_S, 0, 0

    def warning(self, text: str, *arguments: object) -> None:
        with self.lock:
            now_s = time.monotonic()
            if now_s - self.window_s >= LOG_WINDOW_S:
                self.window_s, self.count = now_s, 0
            if self.count == LOG_PER_WINDOW:
                self.left_out += 1
                return
            self.count += 1
            left_out, self.left_out = self.left_out, 0
        more = f" ({left_out} warnings before this one were left out)" if left_out else ""
        self.log.warning(f"%s: {text}{more}", self.name, *arguments)


class Door:
    """The callers of one port."""

    def __init__(self, listening: socket.socket, greet: Greet, admit: Admit, log: SparseLog) -> None:
        self.listening, self.greet, self.admit, self.log = listening, greet, admit, log
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.strangers: dict[socket.socket, str] = {}  # and their hosts, in the order in which they came
        self.proven: set[socket.socket] = set()
        self.threads: set[threading.Thread] = set()

    def run(self) -> None:
        """Accept until the door is closed."""
        while not self.closing.is_set():
            if len(self.threads) >= THREADS_MAX and not self.closing.wait(REST_S):
                continue
            try:
                connection, caller = self.listening.accept()
            except OSError as refusal:  # The door is closed; or no descriptor is left, accept(2).
                if not self.closing.wait(PAUSE_S):
                    self.log.warning("accept a connection: %s.", refusal.strerror)
                continue
            try:
                self.begin(connection, caller)
            except (RuntimeError, MemoryError) as refusal:  # No thread can be started.
                self.log.warning("listen to %s: %s.", caller, refusal)
                self.end(connection)
                self.closing.wait(PAUSE_S)

    def begin(self, connection: socket.socket, caller: Any) -> None:
        """Listen to one more; hang up on another when there are too many."""
        thread = threading.Thread(target=self.listen, args=(connection, caller), daemon=True)
        with self.lock:
            self.strangers[connection] = str(caller[0]) if caller else ""  # Who comes over a unix socket has no address.
            if len(self.strangers) > STRANGERS_MAX:
                crowd = Counter(self.strangers.values()).most_common(1)[0][0]
                oldest = next(one for one, host in self.strangers.items() if host == crowd)
                del self.strangers[oldest]
                hang_up(oldest)
            self.threads.add(thread)
        try:
            thread.start()
        except BaseException:
            with self.lock:
                self.threads.discard(thread)
            raise

    def listen(self, connection: socket.socket, caller: object) -> None:
        """In a thread of its own: one caller, from its greeting to its end."""
        kept = False
        try:
            greeted = self.greet(connection)
            if self.is_let_in(connection):
                kept = self.admit(greeted, caller)
        except (FarwriteError, OSError) as refusal:
            if not self.closing.is_set():
                self.log.warning("%s was not listened to any longer: %s", caller, refusal)
        except Exception:  # Our own fault, and only this caller's loss.
            self.log.warning("our own fault, listening to %s:\n%s", caller, traceback.format_exc())
        finally:
            self.end(connection, kept)

    def is_let_in(self, connection: socket.socket) -> bool:
        """Whether a stranger that has proven who it is may go on."""
        with self.lock:
            if self.strangers.pop(connection, None) is None or self.closing.is_set():  # Hung up on meanwhile.
                return False
            if len(self.proven) == PROVEN_MAX:
                self.log.warning("too many at once: one more that proved who it is was not answered.")
                return False
            self.proven.add(connection)
            return True

    def end(self, connection: socket.socket, kept: bool = False) -> None:
        """Forget a caller."""
        with self.lock:
            self.strangers.pop(connection, None)
            self.proven.discard(connection)
            self.threads.discard(threading.current_thread())
            if not kept:
                connection.close()

    def close(self) -> None:
        """Hang up on everybody, and wait for those that are being answered."""
        self.closing.set()
        with self.lock:
            for connection in (*self.strangers, *self.proven):
                hang_up(connection)
            threads = list(self.threads)
        for thread in threads:
            thread.join()


def hang_up(connection: socket.socket) -> None:
    """Have whoever waits for this connection wake up; it is closed by the thread that has it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens on this address only. UnfitError where it cannot be had."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        state_congestion(made)  # Of whoever is accepted as well.
        made.listen(BACKLOG)
    except OSError as refusal:
        made.close()
        advice = "Another process may listen there, or the address is none of this machine's."
        raise system_error(f"listen on {host} port {port}", refusal.errno or 0, advice) from refusal
    return made


@contextmanager
def door(
    host: str, port: int, terms: Terms, admit: Callable[[Conversation, Any], bool], limit_s: float, log: SparseLog
) -> Iterator[Door]:
    """A door that is open inside this block. `admit` is called in the caller's own thread, once it has proven who it is.

    UnfitError where the address cannot be had, UsageError where the terms ask for no proof.
    """
    require_proof(terms)

    def greet(connection: socket.socket) -> Conversation:
        return converse(connection, terms, dials=False, limit_s=limit_s)

    with listener(host, port) as listening, opened(Door(listening, greet, admit, log)) as made:
        yield made


@contextmanager
def opened(made: Door) -> Iterator[Door]:
    """A door whose callers are heard inside this block; its listening socket is hung up on at the end."""
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.closing.set()
        hang_up(made.listening)  # Wakes who accepts.
        thread.join()
        made.close()
