"""An iSCSI target: its name, its logical unit, and the sessions that are open. Connections are `session.Session`s, a thread each.

What concerns more than one session is decided here: who may join, who replaces whom (session reinstatement, RFC 7143 section
6.3.5), and resets, which end the tasks of all sessions before they are answered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from . import login, scsi, sense
from .chap import Credentials
from .login import Identity, Joined, Offer, Rules
from .reservation import nexus_name

SESSIONS_MAX = 64
DISCOVERIES_MAX = 32  # Sessions that only ask where targets are: of more the oldest ends.
REINSTATEMENT_S = 10.0
COMMAND_WINDOW = 64


class Member(Protocol):
    """What a target asks of a session. Every verb may be called from any thread."""

    identity: Identity
    ended: threading.Event

    def post(self, work: Callable[[], None]) -> bool: ...  # done in the session's thread; False when it has ended
    def abort_all(self, done: Callable[[], None]) -> None: ...  # in the session's thread
    def leave(self, why: str) -> None: ...


class Countdown:
    """Calls `done` once, when it was counted down from `count` to 0, from whatever threads."""

    def __init__(self, count: int, done: Callable[[], None]) -> None:
        self.count, self.done, self.lock = count, done, threading.Lock()

    def down(self) -> None:
        with self.lock:
            self.count -= 1
            is_over = self.count == 0
        if is_over:
            self.done()


@dataclass
class Target:
    """One target with one logical unit, LUN 0. `addresses` are its portals, "host:port", as SendTargets tells them."""

    name: str
    unit: scsi.LogicalUnit
    addresses: Callable[[], Sequence[str]] = lambda: ()
    portal_group: int = 1
    offer: Offer = field(default_factory=Offer)
    credentials: Credentials | None = None
    initiators: frozenset[str] | None = None
    redirect: Callable[[str], str | None] = lambda target: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.sessions: dict[tuple[str, bytes], Member] = {}
        self.discoveries: dict[Member, None] = {}  # in the order in which they came
        self.handles = 0
        self.unit.abort = self.abort_nexuses

    def rules(self, join: Callable[[Identity], Joined], here: str) -> Rules:
        """For the login of one connection, which came in at this host; `join` decides whether its session may begin."""
        return Rules(
            frozenset({self.name}), join, self.portal_group, self.offer, self.credentials, self.initiators, self.redirect,
            COMMAND_WINDOW,
        )  # fmt: skip

    def listed(self, here: str, port: int) -> dict[str, list[str]]:
        """What SendTargets tells at this host and port: targets and their addresses."""
        return {self.name: list(self.addresses()) or [f"{here}:{port}"]}

    def next_handle(self) -> int:
        self.handles = self.handles % 0xFFFF + 1
        return self.handles

    def join(self, identity: Identity, member: Callable[[], Member]) -> Joined:
        """Whether a session may begin. An older one of the same initiator port ends first, with all that it had under way."""
        if identity.is_discovery:
            return self.join_discovery(member)
        key = (identity.initiator, identity.isid)
        with self.lock:
            if identity.session:  # It wants to add a connection to a session: there is one a session.
                return Joined(login.TOO_MANY_CONNECTIONS if key in self.sessions else login.NO_SUCH_SESSION)
            before = self.sessions.get(key)
        if before is not None:
            before.leave("its initiator has logged in anew")
            if not before.ended.wait(REINSTATEMENT_S):
                return Joined(login.SERVICE_UNAVAILABLE)
        with self.lock:
            if len(self.sessions) >= SESSIONS_MAX:
                return Joined(login.OUT_OF_RESOURCES)
            if key in self.sessions:  # Another came between.
                return Joined(login.SERVICE_UNAVAILABLE)
            try:
                self.sessions[key] = member()
            except OSError:  # The replica does not lead.
                return Joined(login.SERVICE_UNAVAILABLE)
            return Joined(login.SUCCESS, self.next_handle())

    def join_discovery(self, member: Callable[[], Member]) -> Joined:
        """A discovery session begins; it has no initiator port that another could replace."""
        with self.lock:
            oldest = next(iter(self.discoveries)) if len(self.discoveries) >= DISCOVERIES_MAX else None
            if oldest is not None:
                del self.discoveries[oldest]
            try:
                self.discoveries[member()] = None
            except OSError:
                return Joined(login.OUT_OF_RESOURCES)
            joined = Joined(login.SUCCESS, self.next_handle())
        if oldest is not None:
            oldest.leave("others want to know where targets are")
        return joined

    def part(self, member: Member) -> None:
        """A session has ended."""
        key = (member.identity.initiator, member.identity.isid)
        with self.lock:
            self.discoveries.pop(member, None)
            if self.sessions.get(key) is member:
                del self.sessions[key]

    def members(self) -> list[Member]:
        with self.lock:
            return list(self.sessions.values())

    def reset(self, done: Callable[[], None], attention: sense.Sense) -> None:
        """Abort the tasks of every session, reset the logical unit, then call `done`."""

        def finish() -> None:
            self.unit.reset(attention)
            done()

        self.abort_members(self.members(), finish)

    def abort_members(self, members: Iterable[Member], done: Callable[[], None]) -> None:
        """Call `done` once no task of these sessions is under way."""
        listed = list(members)
        countdown = Countdown(len(listed) + 1, done)
        for member in listed:
            if not member.post(lambda member=member: member.abort_all(countdown.down)):  # type: ignore[misc]
                countdown.down()
        countdown.down()

    def abort_nexuses(self, names: Sequence[str]) -> None:
        """PREEMPT AND ABORT: end the tasks of these nexuses; nobody waits for it."""
        listed = [one for one in self.members() if nexus_name(one.identity.initiator, one.identity.isid) in names]
        self.abort_members(listed, lambda: None)

    def close(self) -> None:
        """End every session."""
        with self.lock:
            discoveries = list(self.discoveries)
        for member in [*self.members(), *discoveries]:
            member.leave("the target is shut down")
