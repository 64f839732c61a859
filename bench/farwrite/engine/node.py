"""A replica that fails over by itself: secondary, candidate and primary in one process, one after the other.

The calling thread runs the loops; others answer votes and hear who comes to the replica's port (control.py), and while we lead
one connects to absent peers and asks the voters for consent. When a thread or the disk fails the node ends with its reason: it
leads no more and gives no vote. A node begins as a secondary, whatever it was before; who leads is only ever decided by votes.
Reads are not leased: a primary that was cut off may answer old reads, but completes no write.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from ..base.errors import FarwriteError, system_error
from ..base.host import reactor
from ..base.host.disk import Disk
from ..base.row import rows_of
from ..base.shared_counters import SharedCounters
from ..base.wire.conversation import require_proof
from ..base.wire.door import SparseLog, hang_up
from ..base.wire.terms import Terms
from . import election, turn_kernel
from . import journal_kernel as log
from . import primary_kernel as p
from . import replica_kernel as replica
from . import secondary_kernel as secondary
from .ballot import Answer, Question, is_epoch_in_reach
from .control import Address, Arrivals, ask, ask_all, introduce, introductions, votes_served
from .handshake import hello_of, how_to_join, is_to_be_readmitted, is_to_be_struck, lead, may_succeed, meet
from .journal import begin_anew, capacity_of, examine, image, is_blank, resume, save, tie
from .peer_status import PeerStatus, peer_status_of
from .vote import BallotError, Voter

STAGING_BYTES = 1 << 20
PEER_TIMEOUT_NS = 1_000_000_000
CONTROL_S = 0.05  # Between two looks of the control thread: little beside the peer timeout.

LOG = logging.getLogger(__name__)

TURN_NS = 1_000_000  # Of clients that are looked at in Python.


class Clients(Protocol):
    """Whose writes a node takes while it leads. All three are called in the thread of its loop."""

    def begin(self, state: p.Primary) -> None:
        """It leads from now on."""

    def turn(self, state: p.Primary, taking: bool) -> int:
        """Turns of its loop, of 50 ms at most: 0, or the status that ends it. Not `taking`: no new writes."""

    def leave(self) -> None:
        """It leads no more: whoever was not answered never is."""


class PolledClients:
    """Clients that are asked in Python, once a turn, for what they have to write: this object is called with the primary."""

    def __call__(self, state: p.Primary) -> None:
        pass

    def begin(self, state: p.Primary) -> None:
        pass

    def turn(self, state: p.Primary, taking: bool) -> int:
        if taking:
            self(state)
        return int(turn_kernel.progress(state, time.monotonic_ns() + TURN_NS))

    def leave(self) -> None:
        pass


def recall(chosen: Disk, volume: int, staging_bytes: int) -> log.Journal:
    """The journal as it lies on the disk, replayed into the volume; a new one where none is. The promised epoch stays.

    UnfitError for a journal that cannot be read, or is of another time than the volume: it is not written over.
    """
    with image(chosen.journal_fd) as data:
        blank = is_blank(data)
        del data
    if blank:
        return begin_anew(chosen, volume, staging_bytes)
    superblock, found = examine(chosen, apply=True)
    journal = log.journal_state(
        capacity_of(chosen, staging_bytes), staging_bytes, volume, 0, chosen.journal_fd, chosen.volume_fd, chosen.volume_bytes
    )
    resume(journal, reactor.empty(), superblock, found)
    tie(journal)
    return journal


class Node(Voter):
    """One replica. `run` ends when `stop` is set on its board, which tells the epoch it leads in as well."""

    def __init__(
        self, name: str, chosen: Disk, ballot_fd: int, peers: dict[str, Address], witness: Address | None, volume: int,
        board: np.ndarray, clients: Clients, terms: Terms, protocol: int = p.C, policy: int = p.CONSENT, quorum: int = 0,
        seed: int = 0, peer_timeout_ns: int = PEER_TIMEOUT_NS, staging_bytes: int = STAGING_BYTES, latency_budget_ns: int = 0,
    ) -> None:  # fmt: skip
        require_proof(terms)
        super().__init__(name, ballot_fd, peers)
        self.terms, self.sparse = terms, SparseLog(LOG, name)
        self.failure: BaseException | None = None  # of a thread of ours
        self.latency_budget_ns = latency_budget_ns
        self.disk, self.address, self.volume, self.board, self.clients = chosen, peers[name], volume, board, clients
        self.protocol, self.policy, self.quorum, self.seed = protocol, policy, quorum, seed
        self.peer_timeout_ns = peer_timeout_ns
        self.names = sorted(peers)
        self.peers = {other: peers[other] for other in self.names if other != name}
        self.voters = dict(self.peers) | ({"witness": witness} if witness else {})
        self.journal = recall(chosen, volume, staging_bytes)
        self.random = random.Random(f"{seed} {name}")
        self.session: secondary.Secondary | None = None
        self.primary: p.Primary | None = None
        self.ends_session = rows_of(SharedCounters)
        self.steps_down = self.handing_over = False
        self.version, self.is_settled, self.is_outvoted, self.patience_ends_ns = 0, True, False, 0
        self.stands_at_once = False
        self.promise(int(self.journal.at[0].epoch), "")

    # What a voter must know of a replica.

    def log_of(self) -> tuple[int, int]:
        at = self.journal.at[0]
        return int(at.log_epoch), int(at.durable_sequence)

    def hears_primary(self) -> bool:
        """Under a live session nobody else is voted for: what a session has made durable is then all our candidate must hold."""
        return self.session is not None or self.primary is not None

    def leads(self) -> bool:
        return self.primary is not None

    def stopped(self) -> bool:
        return bool(self.board[0].stop) or self.failure is not None

    @property
    def meeting_s(self) -> float:
        """For another replica to say its HELLO: as long as a primary may be silent."""
        return 2 * self.peer_timeout_ns / 1e9

    def election_wait_s(self) -> float:
        """Twice the peer timeout, by when a live primary has pinged several times, and up to as much again by lot."""
        return 2 * self.peer_timeout_ns / 1e9 * (1 + self.random.random())

    def decide(self, question: Question) -> Answer:
        """A voter's answer, and none that promises anything once a thread of this node has failed."""
        if self.failure is not None:
            return Answer(False, self.ballot, refusal=f"this replica has failed: {self.failure!r}")
        try:
            return super().decide(question)
        except BallotError as failure:
            self.fail(failure)
            raise

    def fail(self, failure: BaseException) -> None:
        """End with this reason, whichever thread met it."""
        self.failure = self.failure or failure
        self.ends_session[0].stop = 1

    # The life of a replica.

    def run(self) -> None:
        """Serve, stand and lead until asked to stop. What made the disk or one of the threads fail is logged and raised here."""
        try:
            with (
                votes_served(self, self.address, self.terms),
                introductions(self.name, self.address, self.peers, self.terms) as arrivals,
            ):
                try:
                    while not self.stopped():
                        if self.follow(arrivals) and (epoch := self.stand()):
                            self.lead_in(epoch)
                except BaseException as failure:
                    self.failure = self.failure or failure  # Before the doors are closed: no vote is given meanwhile.
                    raise
            if isinstance(self.failure, FarwriteError):
                raise self.failure
            if self.failure is not None:
                raise RuntimeError(f"a thread of the replica {self.name} failed: {self.failure!r}") from self.failure
        except Exception as failure:
            LOG.error("%s ends, leads no more and gives no vote: %s", self.name, failure)
            raise

    def thread(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        """A thread of this node that does this work, started; its failure is the node's."""

        def guarded() -> None:
            try:
                work(*arguments)
            except BaseException as failure:
                LOG.error("%s: %s failed, so this replica leads no more and gives no vote: %s", self.name, work.__name__, failure)
                self.fail(failure)

        made = threading.Thread(target=guarded, daemon=True)
        made.start()
        return made

    def follow(self, arrivals: Arrivals) -> bool:
        """Be a secondary of whoever leads and comes; True once it is time to stand for election."""
        limit_s = time.monotonic() + self.election_wait_s()
        while not self.stopped():
            if self.stands_at_once or time.monotonic() > limit_s:
                self.stands_at_once = False
                return not int(self.journal.at[0].flags) & log.INCONSISTENT
            if arrived := arrivals.take(CONTROL_S):
                name, connection = arrived
                with connection:
                    if self.serve(name, connection):
                        limit_s = time.monotonic() + self.election_wait_s() / 2
        return False

    def serve(self, name: str, connection: socket.socket) -> bool:
        """One session with the primary of this name, to its end; False when it was none of ours."""
        with self.lock:
            mine = hello_of(self.journal, self.protocol)
            mine = dataclasses.replace(mine, epoch=max(mine.epoch, self.ballot.epoch))
        try:
            theirs = meet(connection, mine, leads=False, timeout_s=self.meeting_s)
        except (FarwriteError, OSError) as refusal:
            self.sparse.warning("%s came as a primary, and is not served: %s", name, refusal)
            return False
        with reactor.reactor() as ring:
            with self.lock:  # No vote between looking at the promise and beginning the session.
                if theirs.epoch < self.ballot.epoch or not is_epoch_in_reach(self.ballot, theirs.epoch):
                    self.sparse.warning("%s came as the primary of epoch %d, and is not served.", name, theirs.epoch)
                    return False
                self.follow_primary(theirs.epoch, name)
                self.journal.at[0].epoch = theirs.epoch
                save(self.journal)
                self.ends_session[:] = 0
                state = secondary.secondary_state(
                    self.journal, ring, connection.fileno(), self.protocol, self.disk.volume_bytes, self.ends_session
                )
                state.at[0].heard_ns = time.monotonic_ns()
                self.session = state
            watch = self.thread(self.watch_session, state)
            try:
                status = int(secondary.serve(state))
            finally:
                self.ends_session[0].stop = 1
                watch.join()
                with self.lock:
                    self.session = None
        if replica.is_from_disk(status):
            raise system_error("keep the replica's files", status)
        if status == replica.BAD_FRAME:
            why = secondary.REFUSALS.get(int(state.at[0].refused), "it may not be sent")
            LOG.warning("%s: the session with the primary has ended, because of what it sent: %s", self.name, why)
        return True

    def watch_session(self, state: secondary.Secondary) -> None:
        """End a session whose primary is silent, or when we are to stop."""
        limit_ns = 2 * self.peer_timeout_ns
        while not self.ends_session[0].stop:
            silent_ns = time.monotonic_ns() - int(state.at[0].heard_ns)
            if self.stopped() or silent_ns > limit_ns:
                self.ends_session[0].stop = 1
            time.sleep(CONTROL_S)

    def epoch_known(self) -> int:
        """The newest epoch that it has promised, serves, or has writes of."""
        with self.lock:
            return max(self.ballot.epoch, self.log_of()[0], int(self.journal.at[0].epoch))

    def stand(self) -> int:
        """Ask the voters; answers the epoch we may lead in, 0 when we may not."""
        return election.run_steps(election.stand(self, len(self.voters), tuple(self.names)), self.ask_voters)

    def configure(self, epoch: int, members: tuple[str, ...]) -> bool:
        """Whether a majority keeps this configuration from now on; a primary that is outvoted stands again at once."""
        kept = election.run_steps(election.configure(self, len(self.voters), epoch, members), self.ask_voters)
        if self.is_outvoted and self.primary is not None:
            self.steps_down = self.stands_at_once = True
        return kept

    def ask_voters(self, question: Question) -> list[Answer]:
        """What the others answer."""
        return ask_all(self.voters, question, self.terms)

    # While we lead.

    def lead_in(self, epoch: int) -> None:
        """Take writes in this epoch until we are fenced, asked to hand over, or stopped."""
        with self.lock:
            if self.ballot.epoch != epoch:
                return
            lead(self.journal, epoch)
            save(self.journal)
        with reactor.reactor() as ring:
            state = p.primary_state(
                self.journal, ring, [], self.protocol, self.seed, self.peer_timeout_ns, quorum=self.quorum,
                policy=self.policy, peer_count=len(self.peers), volume_bytes=self.disk.volume_bytes,
                latency_budget_ns=self.latency_budget_ns,
            )  # fmt: skip
            for index, peer in enumerate(self.peers):
                state.peer[index].detached = peer not in self.ballot.members
            self.steps_down = self.handing_over = False
            self.patience_ends_ns = time.monotonic_ns() + self.peer_timeout_ns
            self.primary = state
            self.board[0].led_epoch = epoch
            ending = threading.Event()
            connections: dict[int, socket.socket] = {}
            control = self.thread(self.control, state, epoch, connections, ending)
            status = 0
            try:
                self.clients.begin(state)
                while status == 0 and not (self.steps_down or self.stopped()):
                    status = self.clients.turn(state, taking=not self.handing_over)
            finally:
                self.board[0].led_epoch = 0
                self.clients.leave()
                ending.set()
                control.join()
                for connection in connections.values():
                    hang_up(connection)  # The ring may hold it open for a while: a successor would wait as for a silent primary.
                    connection.close()
                settled = int(replica.settle(self.journal, ring))
                self.journal.at[0].held = log.EVERYTHING_SENT
                with self.lock:
                    self.primary = None
        if status < 0 or settled < 0:
            raise system_error("go on as the primary", status or settled)

    def peer_statuses(self) -> dict[str, PeerStatus]:
        """Where our peers stand, by name; nobody while we do not lead."""
        state = self.primary
        return {name: peer_status_of(state, index) for index, name in enumerate(self.peers)} if state is not None else {}

    def control(self, state: p.Primary, epoch: int, connections: dict[int, socket.socket], ending: threading.Event) -> None:
        """Connect to whoever is absent, and keep the configuration as the loop needs it."""
        while not ending.wait(CONTROL_S):
            for index, name in enumerate(self.peers):
                if self.ballot.epoch > epoch:
                    self.steps_down = True
                if self.steps_down:
                    return
                if state.control_requests[index].request != p.NOTHING:
                    continue
                if not self.is_settled:  # Some may know what the majority does not.
                    self.configure(epoch, self.ballot.members)
                if state.peer[index].state == p.ABSENT:
                    if state.peer[index].lost_status == replica.BAD_FRAME:
                        LOG.warning("%s: the session with %s has ended: it sent what no secondary may send", self.name, name)
                        state.peer[index].lost_status = 0
                    if self.policy == p.CONSENT:
                        self.do_without(state, index, name, epoch)
                    self.connect(state, index, name, epoch, connections)
                elif self.policy == p.CONSENT and is_to_be_readmitted(state.peer[index], name, self.ballot.members):
                    self.configure(epoch, tuple(sorted({*self.ballot.members, name})))

    def do_without(self, state: p.Primary, index: int, name: str, epoch: int) -> None:
        """Go on without a lost peer once a majority has struck it from the configuration, and not before.

        A peer that was excused and struck already stays so; one that is a member must hold every write until then.
        """
        if not is_to_be_struck(state.peer[index], name, self.ballot.members, time.monotonic_ns() < self.patience_ends_ns):
            return
        members = tuple(one for one in self.ballot.members if one != name)
        if self.configure(epoch, members):
            state.control_requests[index].request = p.DETACH

    def connect(
        self, state: p.Primary, index: int, name: str, epoch: int, connections: dict[int, socket.socket]
    ) -> None:
        """Meet an absent peer and have the loop adopt it."""
        if state.control_requests[index].request != p.NOTHING or self.steps_down:
            return
        answer = ask(name, self.peers[name], Question("status", self.name), self.terms)
        if answer is None or not is_epoch_in_reach(self.ballot, answer.ballot.epoch):
            return
        if answer.ballot.epoch > epoch:
            self.steps_down = True
            return
        connection = None
        try:
            connection = introduce(self.name, name, self.peers[name], self.terms, self.meeting_s)
            theirs = meet(connection, hello_of(self.journal, self.protocol), leads=True, timeout_s=self.meeting_s)
        except (FarwriteError, OSError) as refusal:
            if isinstance(refusal, FarwriteError):
                self.sparse.warning("lead %s: %s", name, refusal)
            if connection:
                connection.close()
            return
        if index in connections:
            connections[index].close()
        connections[index] = connection
        control_request = state.control_requests[index]
        control_request.socket, control_request.sequence = connection.fileno(), theirs.sequence
        control_request.how = how_to_join(self.journal, theirs)
        control_request.request = p.ADOPT

    def hand_over(self, to: str) -> bool:
        """Step down for `to` once it holds everything; called on `to` itself, stand at once. False when it cannot be."""
        if to == self.name:
            self.stands_at_once = True
            return True
        state = self.primary
        if state is None or to not in self.peers or (self.ballot.members and to not in self.ballot.members):
            return False
        with self.lock:  # One at a time.
            if self.handing_over:
                return False
            self.handing_over = True
        index = list(self.peers).index(to)
        limit_s = time.monotonic() + 2 * self.peer_timeout_ns / 1e9
        while time.monotonic() < limit_s and self.primary is state and not self.stopped():
            if may_succeed(state.peer[index], to, self.ballot.members, self.journal):
                self.thread(self.leave_to, to)
                return True
            time.sleep(CONTROL_S / 10)
        self.handing_over = False
        return False

    def leave_to(self, to: str) -> None:
        """Step down, then tell the successor."""
        self.steps_down = True
        while self.primary is not None:
            time.sleep(CONTROL_S / 10)
        ask(to, self.peers[to], Question("hand_over", self.name, members=(to,)), self.terms)
