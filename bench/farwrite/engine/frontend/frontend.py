"""The seam between Python and the loop that serves clients: connections go in here, and counters come out.

A replica that leads has one loop, which serves its clients and drives replication (door_kernel.run). Whoever accepts,
negotiates or logs in does so in Python, in threads of his own, and then hands the connected socket over: `adopt`. From there on
no Python runs for a request, but for those that a door puts into the slow lane.

    frontend = Frontend(volume_bytes)
    node = Node(..., clients=frontend, ...)        # calls begin, turn and leave, from its loop's thread
    frontend.adopt(connection, NBD, STRUCTURED)    # from any thread, while the node leads
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ...base.host import libc
from ...base.host.disk import BLOCK_BYTES
from .. import primary_kernel as p
from .. import record_kernel as record
from . import door_kernel
from . import session_kernel as sessions

TURN_NS = 50_000_000  # At most so long until the node looks whether it is to stop.
WAIT_S = 0.01

LOG = logging.getLogger(__name__)

# Answers a request in the slow lane, of adopt()'s context and the request's bytes; None ends the connection.
Answering = Callable[[Any, bytes], bytes | None]


def piece_bytes_of(staging_bytes: int) -> int:
    """The largest record that a client's write is cut into: a quarter of the memory, so that one comes while others go."""
    return max(min(record.LENGTH_MAX, staging_bytes // 4) // BLOCK_BYTES * BLOCK_BYTES, BLOCK_BYTES)


class Frontend:
    """The clients of one replica. Everything but begin, turn and leave may be called from any thread at any time."""

    def __init__(
        self, volume_bytes: int, sessions_max: int = sessions.SESSIONS_MAX, answers_slowly: Answering | None = None,
        counters: np.ndarray | None = None, writes_ns: np.ndarray | None = None, reads_ns: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """`counters` (a Counters row) and the histograms may lie in shared memory, for others to read while it runs."""
        self.volume_bytes, self.answers_slowly = volume_bytes, answers_slowly
        self.epoll = select.epoll()
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.lane_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.doors = sessions.doors_state(
            self.epoll.fileno(), self.wake_fd, self.lane_fd, sessions_max, counters=counters, writes_ns=writes_ns,
            reads_ns=reads_ns,
        )  # fmt: skip
        # Of connections that are ours. On a board they are still those of a process that was killed, and would be its forever.
        self.doors.counters[0].sessions = self.doors.counters[0].clients = self.doors.counters[0].owed = 0
        asked = int(
            libc.epoll_control(
                self.epoll.fileno(), libc.EPOLL_CTL_ADD, self.wake_fd, libc.EPOLLIN, sessions.WAKE_MARK, self.doors.events
            )
        )
        assert asked == 0, os.strerror(-asked)
        self.lock = threading.Lock()  # of the mail, and of whether anybody leads
        self.turning = threading.Lock()  # of the doors' state: the loop's, while it turns
        self.state: p.Primary | None = None
        self.is_closed = False
        self.contexts: dict[int, Any] = {}  # by number of the handover
        self.slow: threading.Thread | None = None
        if answers_slowly is not None:
            self.slow = threading.Thread(target=self.answer_slowly, daemon=True)
            self.slow.start()

    @property
    def counters(self) -> np.ndarray:
        """What it has done: a Counters row."""
        return self.doors.counters

    # For doors.

    def adopt(
        self, connection: socket.socket, kind: int, flags: int = 0, size_bytes: int = 0, block_bytes: int = 1,
        context: Any = None, snapshot: int = 0, since: int = 0,
    ) -> bool:  # fmt: skip
        """Hand a connected socket over to the loop, whatever becomes of it: the caller does not use or close it any more.

        False, and it is closed, when this replica does not lead or has no place for it. The connection begins between two
        requests: whatever negotiation read of it must end exactly there. `size_bytes` 0: as large as the volume.
        `snapshot` is the sequence of the one that is read, 0 for the volume; `since` that of the one that CHANGED is about.
        """
        assert block_bytes & (block_bytes - 1) == 0 and 0 <= size_bytes <= self.volume_bytes
        at = self.doors.at[0]
        with self.lock:
            waiting = int(at.mail_written) - int(at.mail_read)
            places = len(self.doors.session) - int(self.counters[0].sessions)
            if self.state is None or waiting >= min(sessions.MAIL_MAX, places):
                self.counters[0].refused += 1
                connection.close()
                return False
            if connection.family in (socket.AF_INET, socket.AF_INET6):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = int(at.mail_written) + 1
            self.remember(number, context)
            mail = self.doors.mail[int(at.mail_written) % sessions.MAIL_MAX]
            mail.kind, mail.flags, mail.number = kind, flags, number
            mail.size_bytes, mail.block_bytes = size_bytes or self.volume_bytes, block_bytes
            mail.snapshot, mail.since = snapshot, since
            mail.socket = connection.detach()
            at.mail_written = number
        self.wake()
        return True

    def resize_blocks(self, before: int, size_bytes: int) -> None:
        """Sessions of initiators, and what these have of their own, reach as far as the volume does from now on."""
        at, session = self.doors.at[0], self.doors.session
        with self.lock:
            for number in range(int(at.mail_read), int(at.mail_written)):
                mail = self.doors.mail[number % sessions.MAIL_MAX]
                if mail.size_bytes == before and (mail.kind == sessions.ISCSI or mail.flags & sessions.INNER):
                    mail.size_bytes = size_bytes
            of_blocks = (session["kind"] == sessions.ISCSI) | (session["flags"] & sessions.INNER > 0)
            session["size_bytes"][of_blocks & (session["size_bytes"] == before)] = size_bytes

    def remember(self, number: int, context: Any) -> None:
        """Keep what belongs to a connection as long as that lasts."""
        at = self.doors.at[0]
        if len(self.contexts) > 2 * len(self.doors.session):
            live = {*self.doors.session["number"].tolist(), *range(int(at.mail_read) + 1, number)}
            self.contexts = {one: kept for one, kept in self.contexts.items() if one in live}
        if context is not None:
            self.contexts[number] = context

    def wake(self) -> None:
        """Have the loop look at its mail and its lanes now."""
        os.eventfd_write(self.wake_fd, 1)

    def leads(self) -> bool:
        """Whether connections would be taken now."""
        return self.state is not None

    def count(self) -> int:
        """Connections that are served now, and those that are handed over."""
        at = self.doors.at[0]
        return int(self.counters[0].sessions) + int(at.mail_written) - int(at.mail_read)

    def shut_down(self, limit_s: float) -> bool:
        """Answer new requests with the protocol's word for that, and wait until nothing is owed; False when it took too long."""
        self.doors.at[0].is_shutting_down = 1
        limit = time.monotonic() + limit_s
        while self.is_owing():
            if time.monotonic() > limit:
                return False
            time.sleep(WAIT_S)
        return True

    def is_owing(self) -> bool:
        """Whether something that a client asked for is not answered, or not handed over."""
        session = self.doors.session
        amid = (session["out_begin"] < session["out_end"]) | (session["state"] == sessions.STREAM) | (session["owed"] > 0)
        return bool((amid & (session["kind"] != sessions.FREE)).any())

    # For the node, in its loop's thread.

    def begin(self, state: p.Primary) -> None:
        """A replica begins to lead: connections are taken from now on."""
        with self.turning, self.lock:
            at = self.doors.at[0]
            at.failed = at.returns = at.is_shutting_down = 0
            at.piece_bytes = piece_bytes_of(int(state.journal.at[0].staging_bytes))
            state.ring.at[0].door_fd = self.epoll.fileno()
            self.state = state

    def turn(self, state: p.Primary, taking: bool, lasts_ns: int = TURN_NS) -> int:
        """Serve and replicate for so long, or until hurry(); 0, or the status that ends the primary.

        Not `taking`, what was taken completes and is answered, and nothing new is looked at.
        """
        with self.turning:
            self.doors.at[0].is_taking = 1 if taking else 0
            return int(door_kernel.run(self.doors, state, time.monotonic_ns() + lasts_ns))

    def hurry(self) -> None:
        """End the turn that is under way: there is something that the node is to see at once."""
        self.doors.at[0].returns = 1
        self.wake()

    def leave(self) -> None:
        """It leads no more: everybody is hung up on at once, and what is not answered never is."""
        with self.lock:
            state, self.state = self.state, None
        if state is None:
            return
        self.hurry()
        with self.turning, self.lock:
            door_kernel.leave(self.doors)
            state.ring.at[0].door_fd = -1
            self.contexts.clear()

    def close(self) -> None:
        """Leave, and give back what it holds."""
        if self.is_closed:
            return
        self.leave()
        self.is_closed = True
        if self.slow is not None:
            os.eventfd_write(self.lane_fd, 1)
            self.slow.join()
        self.epoll.close()
        os.close(self.wake_fd)
        os.close(self.lane_fd)

    # The slow lane.

    def answer_slowly(self) -> None:
        """In a thread: answer what the loop leaves to Python, one request of a session at a time."""
        while True:
            os.eventfd_read(self.lane_fd)
            if self.is_closed:
                return
            for number in range(sessions.LANES):
                if self.doors.lane[number].state == sessions.ASKED:
                    self.answer_lane(number)

    def answer_lane(self, number: int) -> None:
        """Answer one request; one that fails ends its connection."""
        assert self.answers_slowly is not None
        lane = self.doors.lane[number]
        request = self.doors.lane_bytes[number, : int(lane.size)].tobytes()
        try:
            answer = self.answers_slowly(self.contexts.get(int(lane.number)), request)
        except Exception:
            LOG.exception("a client's request could not be answered, and its connection ends")
            answer = None
        if answer is None or len(answer) > sessions.LANE_BYTES:
            lane.size = -1
        else:
            self.doors.lane_bytes[number, : len(answer)] = np.frombuffer(answer, np.uint8)
            lane.size = len(answer)
        lane.state = sessions.ANSWERED
        self.wake()
