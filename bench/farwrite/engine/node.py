"""A replica that fails over by itself: secondary, candidate and primary in one process, one after the other.

The calling thread runs the loops; others answer votes and hear who comes to the replica's port (control.py), and while we lead
one connects to absent peers, asks the voters for consent, and adds and removes replicas (replica_set.py). When a thread or the
disk fails the node ends with its reason: it leads no more and gives no vote. A node begins as a secondary, whatever it was;
who leads is only ever decided by votes. Reads are not leased: a primary that was cut off may answer old reads, but completes no
write.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import field
from typing import Protocol

import numpy as np

from ..base.errors import FarwriteError, UnfitError, UsageError, system_error
from ..base.host import reactor
from ..base.host.disk import Disk
from ..base.row import rows_of
from ..base.shared_counters import SharedCounters
from ..base.units import NS_PER_S
from ..base.wire.conversation import Conversation, require_proof
from ..base.wire.door import SparseLog, hang_up
from ..base.wire.terms import Terms
from . import election, turn_kernel
from . import journal_kernel as log
from . import primary_kernel as p
from . import record_kernel as record
from . import replica_kernel as replica
from . import secondary_kernel as secondary
from .ballot import Answer, Ballot, Placed, Question, is_epoch_in_reach, is_in_reach
from .control import (
    ASK_TIMEOUT_S,
    Address,
    Arrivals,
    address_of,
    ask,
    ask_all,
    ask_in,
    ask_running,
    conversation_with,
    introduce,
    introductions,
    votes_served,
)  # fmt: skip
from .handshake import hello_of, how_to_join, is_to_be_readmitted, is_to_be_struck, lead, may_succeed, meet
from .journal import begin_anew, capacity_of, examine, image, is_blank, resume, save, tie
from .peer_status import PeerStatus, ReplicaStatus, peer_status_of
from .replica_set import PeerRows, add, add_refusal_of, let_go, may_change, remove_refusal_of
from .room import RoomLevel
from .snapshot import Snapshot, checked_name, snapshots_of
from .vote import BallotError, Voter

STAGING_BYTES = 1 << 20
PEER_TIMEOUT_NS = 1_000_000_000
# A disk that has not answered a write of the journal for so long is given up: everybody waits for it, at least under C.
# Longer than a disk that spins up or repairs a sector; a system tries again after 30 s (SCSI), which no writer should wait for.
DISK_TIMEOUT_NS = 5_000_000_000
SNAPSHOT_S = 30.0  # For a SNAPSHOT or FORGET to be complete and applied, while the replica leads.
CHANGE_S = 30.0  # For a majority of the voters to keep another set of replicas, and the loop to let go of who is in it no more.
CONTROL_S = 0.05  # Between two looks of the control thread: little beside the peer timeout.
MARKED_S = 0.001
HAND_OVER_LOOK_S = 0.001  # While nobody takes writes: every look that comes late is a time in which no writer is served.
LOOK_S = 0.01  # Between two looks for a primary, and the first two questions to the last one whether it still runs.
# Two candidates that ask at once may both fail. An election is about ten round trips, so their lots lie as far apart.
LOT_S_MIN, LOT_ROUND_TRIPS, LOT_DOUBLED_MAX = 0.05, 10, 10
ASK_S_MIN = 0.25  # For a question to a peer, however short the peer timeout: a handshake of TLS takes processor time.

LOG = logging.getLogger(__name__)

CAREFUL_BYTES_PER_S = 8 << 20  # A resync with a latency budget begins so, and learns: at 640 MB/s it was over before it had.
TURN_NS = 1_000_000  # Of clients that are looked at in Python.


class Clients(Protocol):
    """Whose writes a node takes while it leads. All three are called in the thread of its loop."""

    def begin(self, state: p.Primary) -> None:
        """It leads from now on."""

    def turn(self, state: p.Primary, taking: bool) -> int:
        """Turns of its loop, of 50 ms at most: 0, or the status that ends it. Not `taking`: no new writes."""

    def leave(self) -> None:
        """It leads no more: whoever was not answered never is."""


@dataclasses.dataclass
class Change:
    """Another set of replicas, which somebody waits for: one more, or the one of this name fewer."""

    what: Placed | str
    done: threading.Event = field(default_factory=threading.Event)
    refusal: FarwriteError | None = None


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


def recall(chosen: Disk, volume: int, staging_bytes: int, count: np.ndarray | None = None) -> log.Journal:
    """The journal as it lies on the disk, replayed into the volume; a new one where none is. The promised epoch stays.

    What the volume takes is told in `count` (room_kernel.Count), where there is one.
    UnfitError for a journal that cannot be read, or is of another time than the volume: it is not written over.
    """
    with image(chosen.journal_fd) as data:
        blank = is_blank(data)
        del data
    if blank:
        return begin_anew(chosen, volume, staging_bytes, count)
    journal = log.journal_state(
        capacity_of(chosen, staging_bytes), staging_bytes, volume, 0, chosen.journal_fd, chosen.volume_fd, chosen.volume_bytes,
        snapshot_fd=chosen.snapshot_fd, room=count,
    )
    superblock, found = examine(chosen, apply=True, snapshots=journal.snapshots)
    resume(journal, reactor.empty(), superblock, found)
    tie(journal)
    return journal


class Node(Voter):
    """One replica. `run` ends when `stop` is set on its board, which tells the epoch it leads in as well.

    `peers` are all replicas with their addresses, this one too. They vote, with the `witness`, unless `voters` names who does;
    a replica that is none of these gives no vote, and replicas may come and go then. `founders` are those that the volume was
    made with, if they are not all of them: of anybody else the voters must have heard before it may lead.
    """

    def __init__(
        self, name: str, chosen: Disk, ballot_fd: int, peers: dict[str, Address], witness: Address | None, volume: int,
        board: np.ndarray, clients: Clients, terms: Terms, protocol: int = p.C, policy: int = p.CONSENT, quorum: int = 0,
        seed: int = 0, peer_timeout_ns: int = PEER_TIMEOUT_NS, staging_bytes: int = STAGING_BYTES, latency_budget_ns: int = 0,
        disk_timeout_ns: int = DISK_TIMEOUT_NS, voters: Mapping[str, Address] | None = None,
        founders: Collection[str] | None = None, count: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """`count` is a room_kernel.Count on a board: what the volume takes, and what limits it. It may be set at any time."""
        require_proof(terms)
        self.founders = tuple(sorted(peers if founders is None else founders))
        super().__init__(name, ballot_fd, {*self.founders, name})
        self.terms, self.sparse = terms, SparseLog(LOG, name)
        self.failure: BaseException | None = None  # of a thread of ours
        self.latency_budget_ns = latency_budget_ns
        self.disk, self.address, self.volume, self.board, self.clients = chosen, peers[name], volume, board, clients
        self.protocol, self.policy, self.quorum, self.seed = protocol, policy, quorum, seed
        self.peer_timeout_ns, self.disk_timeout_ns = peer_timeout_ns, disk_timeout_ns
        self.ring: reactor.Reactor | None = None  # of the loop that runs
        self.waited_at, self.waited_since_ns = -1, 0  # where the log is durable while a flush is under way, and since when
        self.told = dict(peers)  # Where replicas listen, as far as we have heard, this one too.
        self.told_before = frozenset(self.ballot.replicas)  # What we were begun with is newer.
        self.know_peers()
        everybody = {**peers, **({"witness": witness} if witness else {})} if voters is None else dict(voters)
        self.names_voters = voters is not None
        self.votes, self.voter_names = name in everybody, frozenset(everybody)
        self.voters = {other: address for other, address in everybody.items() if other != name}
        self.rows = PeerRows((), 0)
        self.changes: deque[Change] = deque()
        self.leaving: list[Change] = []  # Removals that the voters know of, and the loop does not yet.
        self.journal = recall(chosen, volume, staging_bytes, count)
        self.random = random.Random(f"{seed} {name}")
        self.session: secondary.Secondary | None = None
        self.primary: p.Primary | None = None
        self.given_up = 0  # snapshots, as far as we have said so
        self.room_level = RoomLevel()
        self.marking = threading.Lock()  # of SNAPSHOT and FORGET: one at a time
        self.ends_session = rows_of(SharedCounters)
        self.steps_down = self.handing_over = False
        self.pauses: list[int] = []  # until when clients wait, for each of those who asked for it; ns, monotonic
        self.paused_until_ns = 0
        self.is_paused = False  # nothing new is looked at from here on
        self.version, self.is_settled, self.is_outvoted, self.patience_ends_ns = 0, True, False, 0
        self.stands_at_once = False
        # Sessions so far; the one whose primary's process is known to have ended; elections lost since; the widest lot.
        self.session_count, self.orphaned_session, self.lost_elections, self.lot_s = 0, 0, 0, LOT_S_MIN
        self.arrivals: Arrivals | None = None
        self.was_asked_to_stand = False  # by who leads, or an operator: everybody was up a moment ago
        self.unasked: set[str] = set()  # peers that are met without being asked for their status first
        self.refusing: set[str] = set()  # peers at whose port nobody listened, since we lead
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

    @property
    def is_orphaned(self) -> bool:
        """Whether the process of the primary that we served last has ended, and we may lead: nobody is waited for then."""
        is_known = self.session_count > 0 and self.orphaned_session == self.session_count
        return is_known and not int(self.journal.at[0].flags) & log.INCONSISTENT

    def orphans_wait_s(self) -> float:
        """By lot, among as many replicas as may stand: none for the only one. The lots double with each election that is lost."""
        rivals = len(self.peers) - 1
        lots = (1 << min(self.lost_elections, LOT_DOUBLED_MAX)) - (0 if rivals else 1)
        return min(lots * self.lot_s * self.random.random(), self.election_wait_s())

    @property
    def ask_s(self) -> float:
        """How long a peer may take to answer a question while we lead: writes may wait for it."""
        return min(ASK_TIMEOUT_S, max(self.peer_timeout_ns / 1e9, ASK_S_MIN))

    def decide(self, question: Question) -> Answer:
        """A voter's answer, and none that promises anything once a thread of this node has failed."""
        if self.failure is not None:
            return Answer(False, self.ballot, refusal=f"this replica has failed: {self.failure!r}")
        if not self.votes and question.ask in ("would", "grant", "configure") and question.name != self.name:
            return Answer(False, self.ballot, self.leads(), refusal=f"{self.name} holds data, and does not vote")
        try:
            return super().decide(question)
        except BallotError as failure:
            self.fail(failure)
            raise

    # The set of replicas.

    def keep(self, ballot: Ballot) -> None:
        super().keep(ballot)
        self.know_peers()

    def know_peers(self) -> None:
        """Who the other replicas are, and where: as the newest configuration that we know has it, if it names any.

        Where a replica listens, whoever began this process knows better than a configuration from before.
        """
        named = self.ballot.replicas
        for one in named:
            last = self.told.get(one.name)
            is_news = one not in self.told_before and one.name != self.name
            if last is None or (is_news and last[:3] != (one.host, one.port, one.vote_port)):
                self.told[one.name] = address_of(one, tuple(self.told.values()))
        names = sorted(one.name for one in named) if named else sorted(self.told)
        self.peers = {other: self.told[other] for other in names if other != self.name}

    def learn(self, known: Ballot) -> None:
        """Remember the configuration that a primary has told of."""
        if not is_in_reach(self.ballot, known):
            return
        try:
            self.adopt(known)
        except BallotError as failure:
            self.fail(failure)
            raise

    def all_replicas(self) -> tuple[Placed, ...]:
        """Every replica of the volume that we know of, this one too, with where it listens."""
        known = {**self.peers, self.name: self.address}
        return tuple(Placed(name, *known[name][:3]) for name in sorted(known))

    def replicas_now(self) -> tuple[Placed, ...]:
        return self.all_replicas() if self.ballot.replicas else ()

    def fail(self, failure: BaseException) -> None:
        """End with this reason, whichever thread met it."""
        self.failure = self.failure or failure
        self.ends_session[0].stop = 1

    def mind_disk(self) -> None:
        """End when the journal's disk has answered nothing for too long: a replica without a disk only holds the others up."""
        at, now_ns, ring = self.journal.at[0], time.monotonic_ns(), self.ring
        if at.durable == at.sealed:
            self.waited_at = -1
        elif at.durable != self.waited_at:
            self.waited_at, self.waited_since_ns = int(at.durable), now_ns
        elif now_ns - self.waited_since_ns > self.disk_timeout_ns and self.failure is None:
            self.fail(UnfitError(
                f"write the journal of {self.name}: its disk has not answered for {self.disk_timeout_ns / 1e9:g} s. Look at the "
                "disk, and start this replica again: it is brought up to date."
            ))  # fmt: skip
            if ring is not None:
                ring.at[0].abandoned = 1

    def mind_snapshots(self) -> None:
        """Say once that snapshots were given up here: the volume itself goes on."""
        given_up = int(self.journal.snapshots.at[0].given_up)
        if given_up > self.given_up:
            LOG.warning(
                "%s cannot keep what its snapshots need: its disk is full, or refuses. %d of them are given up on this replica; "
                "the volume goes on.", self.name, given_up - self.given_up,
            )  # fmt: skip
            self.given_up = given_up

    def mind_room(self) -> None:
        """Say once when the volume has passed its warning level or its limit; whoever is below both is served as ever."""
        if sentence := self.room_level.news(self.journal.room.at[0]):
            LOG.warning("%s: %s", self.name, sentence)

    # The life of a replica.

    def run(self) -> None:
        """Serve, stand and lead until asked to stop. What made the disk or one of the threads fail is logged and raised here."""
        try:
            with (
                votes_served(self, self.address, self.terms),
                introductions(self.name, self.address, lambda: self.peers, self.terms, self.learn) as arrivals,
            ):
                self.arrivals = arrivals
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
        """Be a secondary of whoever leads and comes; True once it is time to stand for election.

        That is soon when the process of the last primary is known to have ended, and late when it is only silent.
        """
        limit_s, is_hurried = time.monotonic() + self.election_wait_s(), False
        while not self.stopped():
            if self.is_orphaned and not is_hurried:
                limit_s, is_hurried = min(limit_s, time.monotonic() + self.orphans_wait_s()), True
            if self.stands_at_once or time.monotonic() >= limit_s:
                self.was_asked_to_stand, self.stands_at_once = self.stands_at_once, False
                self.lost_elections += is_hurried
                return not int(self.journal.at[0].flags) & log.INCONSISTENT
            if arrived := arrivals.take(min(LOOK_S, max(limit_s - time.monotonic(), 0))):
                name, connection = arrived
                with connection:
                    served = self.serve(name, connection)
                if served:
                    limit_s, is_hurried = time.monotonic() + self.election_wait_s() / 2, False
                    self.thread(self.watch_last_primary, name, self.session_count)
        return False

    def watch_last_primary(self, name: str, session: int) -> None:
        """Until the next session begins: find out whether the process of the last one's primary has ended.

        Only its own machine knows that for sure, and says so: nobody listens at that port. A connection that ended is not enough,
        since a primary that lives may have given it up; and silence says nothing.
        """
        limit_s, rest_s = time.monotonic() + 2 * self.election_wait_s(), LOOK_S
        while not self.stopped() and self.session_count == session and time.monotonic() < limit_s:
            begin_s = time.monotonic()
            if (address := self.peers.get(name)) is None:
                return
            try:
                ask_running(name, address, Question("status", self.name), self.terms, self.ask_s)
            except ConnectionRefusedError:
                self.lot_s = max(LOT_S_MIN, LOT_ROUND_TRIPS * (time.monotonic() - begin_s))
                self.orphaned_session = session
                return
            time.sleep(rest_s)
            rest_s = min(rest_s * 1.5, CONTROL_S)  # One that lives and is only busy is not asked without end.

    def serve(self, name: str, connection: socket.socket) -> bool:
        """One session with the primary of this name, to its end; False when it was none of ours."""
        if election.must_hear_of_others(self):
            heard = election.run_steps(election.hear_of_others(self, len(self.voters)), self.ask_voters)
            if not heard:
                self.sparse.warning("%s came as a primary, and is not served: no majority of the voters tells its epoch.", name)
                return False
        with self.lock:
            mine = hello_of(self.journal, self.protocol)
            mine = dataclasses.replace(mine, epoch=max(mine.epoch, self.ballot.epoch))
        try:
            theirs = meet(connection, mine, leads=False, timeout_s=self.meeting_s)
        except (FarwriteError, OSError) as refusal:
            self.sparse.warning("%s came as a primary, and is not served: %s", name, refusal)
            return False
        with self.loop_reactor() as ring:
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
                self.session_count, self.lost_elections = self.session_count + 1, 0
            ended = threading.Event()
            watch = self.thread(self.watch_session, state, ended)
            try:
                status = int(secondary.serve(state))
            finally:
                self.ends_session[0].stop = 1
                ended.set()
                watch.join()
                with self.lock:
                    self.session = None
        if self.failure is not None:
            return True
        if replica.is_from_disk(status):
            raise system_error("keep the replica's files", status)
        if status == replica.BAD_FRAME:
            why = secondary.REFUSALS.get(int(state.at[0].refused), "it may not be sent")
            LOG.warning("%s: the session with the primary has ended, because of what it sent: %s", self.name, why)
        return True

    def watch_session(self, state: secondary.Secondary, ended: threading.Event) -> None:
        """End a session whose primary is silent, or when we are to stop."""
        limit_ns = 2 * self.peer_timeout_ns
        while not (self.ends_session[0].stop or ended.wait(CONTROL_S)):
            silent_ns = time.monotonic_ns() - int(state.at[0].heard_ns)
            self.mind_disk()
            self.mind_snapshots()
            if self.stopped() or silent_ns > limit_ns:
                self.ends_session[0].stop = 1

    @contextmanager
    def loop_reactor(self) -> Iterator[reactor.Reactor]:
        """What a loop of ours waits in."""
        with reactor.reactor() as self.ring:
            try:
                yield self.ring
            finally:
                self.ring = None

    def epoch_known(self) -> int:
        """The newest epoch that it has promised, serves, or has writes of."""
        with self.lock:
            return max(self.ballot.epoch, self.log_of()[0], int(self.journal.at[0].epoch))

    def stand(self) -> int:
        """Ask the voters; answers the epoch we may lead in, 0 when we may not."""
        return election.run_steps(election.stand(self, len(self.voters), self.founders), self.ask_voters)

    def configure(self, epoch: int, members: tuple[str, ...]) -> bool:
        """Whether a majority keeps this configuration from now on, of the same replicas."""
        return self.decided(election.configure(self, len(self.voters), epoch, members, self.ballot.replicas))

    def decided(self, steps: election.Steps[bool]) -> bool:
        """Whether a majority keeps what these steps ask for; a primary that is outvoted stands again at once."""
        kept = election.run_steps(steps, self.ask_voters)
        if self.is_outvoted and self.primary is not None:
            self.steps_down = self.stands_at_once = True
        return kept

    def ask_voters(self, question: Question) -> list[Answer]:
        """What the others answer."""
        if self.votes:
            return ask_all(self.voters, question, self.terms)
        return ask_all(self.voters, question, self.terms, len(self.voters) // 2 + 1)

    # While we lead.

    def lead_in(self, epoch: int) -> None:
        """Take writes in this epoch until we are fenced, asked to hand over, or stopped."""
        with self.lock:
            if self.ballot.epoch != epoch:
                return
            lead(self.journal, epoch)
            save(self.journal)
        rows = PeerRows(tuple(self.peers), max(len(self.peers), 0 if self.why_no_change() else p.PEERS_MAX))
        with self.loop_reactor() as ring:
            state = p.primary_state(
                self.journal, ring, [], self.protocol, self.seed, self.peer_timeout_ns, quorum=self.quorum,
                policy=self.policy, peer_count=len(rows.names), volume_bytes=self.disk.volume_bytes,
                latency_budget_ns=self.latency_budget_ns,
            )  # fmt: skip
            if self.latency_budget_ns:
                state.at[0].resync_bytes_per_s = CAREFUL_BYTES_PER_S
            rows.begin(state, self.ballot.members)
            self.rows = rows
            self.changes.clear()
            self.leaving.clear()
            self.steps_down = self.handing_over = self.is_paused = False
            self.patience_ends_ns = time.monotonic_ns() + self.peer_timeout_ns
            self.refusing.clear()
            self.unasked = set(self.peers) if self.was_asked_to_stand else set()
            # We are whom the others serve; nobody is to be succeeded. What is found out yet of the primary that we served last is
            # of a session before: else its end would have us stand again as soon as we hand over.
            self.session_count, self.orphaned_session = self.session_count + 1, 0
            self.primary = state
            self.board[0].led_epoch = epoch
            ending = threading.Event()
            connections: dict[int, socket.socket] = {}
            control = self.thread(self.control, state, epoch, connections, ending)
            status = 0
            try:
                self.clients.begin(state)
                while status == 0 and not (self.steps_down or self.stopped()):
                    self.is_paused = time.monotonic_ns() < self.paused_until_ns  # No turn is under way.
                    status = self.clients.turn(state, taking=not (self.handing_over or self.is_paused))
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
        if self.failure is not None:
            return
        if status < 0 or settled < 0:
            raise system_error("go on as the primary", status or settled)

    # Snapshots, from any thread but the loop's.

    def snapshots(self) -> list[Snapshot]:
        """The snapshots that there are, the oldest first, as this replica has them."""
        return snapshots_of(self.journal.snapshots)

    def take_snapshot(self, name: str) -> Snapshot:
        """The volume as it is at one instant, on every replica; answers once that is complete at the protocol's point."""
        data = checked_name(name)
        with self.marking:
            state = self.leading()
            known = self.snapshots()
            if any(one.name == name for one in known):
                raise UsageError(f"There is a snapshot {name} already: delete it first, or choose another name.")
            most = int(self.journal.snapshots.at[0].listed_max)
            if len(known) >= most:
                raise UnfitError(f"There are {len(known)} snapshots already, and no more than {most} are kept: delete one first.")
            state.marker_name[: len(data)] = np.frombuffer(data, np.uint8)
            sequence = self.mark(state, record.SNAPSHOT, len(data), time.time_ns(), f"take snapshot {name}")
        for one in self.snapshots():
            if one.sequence == sequence:
                return one
        raise UnfitError(f"The snapshot {name} was taken, and is gone already: somebody has deleted it.")

    def delete_snapshot(self, name: str) -> None:
        """Give a snapshot up, on every replica; its room is given back in the background."""
        with self.marking:
            state = self.leading()
            found = [one for one in self.snapshots() if one.name == name]
            if not found:
                raise UsageError(f"There is no snapshot {name}.")
            for one in found:
                self.mark(state, record.FORGET, 0, one.sequence, f"delete snapshot {name}")

    def leading(self) -> p.Primary:
        """The primary that we are; UnfitError when we are none, or are about to be none."""
        state = self.primary
        if state is None or self.steps_down or self.handing_over or self.failure is not None:
            raise UnfitError(f"The replica {self.name} does not lead: ask the one that does.")
        return state

    @contextmanager
    def paused(self, limit_s: float) -> Iterator[Callable[[], bool]]:
        """Nothing that clients ask is looked at inside this block, for so long at most; what was taken before it is answered.
        Yields whether that holds still: after the limit the loop goes on, whatever we are doing."""
        state, until_ns = self.leading(), time.monotonic_ns() + int(limit_s * NS_PER_S)

        def holds() -> bool:
            return time.monotonic_ns() < until_ns and self.primary is state

        self.note_pauses(self.pauses.append, until_ns)
        try:
            self.hurry()
            while not self.is_paused:
                if not holds():
                    raise UnfitError(f"The replica {self.name} did not have its clients wait.")
                time.sleep(MARKED_S)
            yield holds
        finally:
            self.note_pauses(self.pauses.remove, until_ns)
            self.hurry()

    def note_pauses(self, change: Callable[[int], None], until_ns: int) -> None:
        with self.lock:
            change(until_ns)
            self.paused_until_ns = max(self.pauses, default=0)

    def hurry(self) -> None:
        """Have the loop look at once at what has changed for it: at doors a turn lasts 50 ms where no client wakes it."""
        if hurry := getattr(self.clients, "hurry", None):
            hurry()

    def mark(self, state: p.Primary, kind: int, name_bytes: int, extra: int, attempt: str) -> int:
        """Have the loop stage a SNAPSHOT or FORGET, and wait until it is complete and applied here. Its sequence."""
        asked, limit_s = state.marker_request[0], time.monotonic() + SNAPSHOT_S
        unknown = f"{attempt}: it is not complete after {SNAPSHOT_S:g} s, and may be later: it is in the log or on its way there."
        while asked.request != p.NOTHING:  # An earlier one, which was given up waiting for.
            self.wait_marked(state, limit_s, attempt, unknown)
        asked.extra, asked.name_bytes, asked.sequence = extra, name_bytes, 0
        asked.request = kind
        self.hurry()
        while asked.request != p.NOTHING:
            self.wait_marked(state, limit_s, attempt, unknown)
        sequence = int(asked.sequence)
        if sequence < 0:
            raise UnfitError(f"{attempt}: the log does not take such a record.")
        while state.at[0].completed < sequence or self.journal.at[0].applied_sequence < sequence:
            self.journal.at[0].wants_watermark = 1  # It is applied once one covers it, and a log that is idle takes its time.
            self.hurry()
            self.wait_marked(state, limit_s, attempt, unknown)
        return sequence

    def wait_marked(self, state: p.Primary, limit_s: float, attempt: str, unknown: str) -> None:
        """Wait a moment for the loop; UnfitError when it leads no more, or all takes too long."""
        if self.primary is not state:
            raise UnfitError(f"{attempt}: the replica {self.name} leads no more, so it may have been done or not: ask who leads.")
        if time.monotonic() > limit_s:
            raise UnfitError(unknown)
        time.sleep(MARKED_S)

    def peer_statuses(self) -> dict[str, PeerStatus]:
        """Where our peers stand, by name; nobody while we do not lead."""
        state = self.primary
        return {name: peer_status_of(state, index) for index, name in self.rows.named()} if state is not None else {}

    # Adding and removing replicas, from any thread but the loop's and the control thread.

    def add_replica(self, name: str, address: Address) -> None:
        """Have one more replica, which runs there or soon will; answers once a majority of the voters knows of it.

        It is brought up to date beside the writes, and is a member, which may lead, once it holds everything
        (`replica_statuses`). One that is there already is none more. UsageError for one that cannot be, UnfitError when the
        voters do not answer.
        """
        self.change(Placed(name, *address[:3]), f"add the replica {name}")

    def remove_replica(self, name: str) -> None:
        """Have one replica fewer; answers once a majority of the voters knows, and no write waits for it: its process may end.

        UsageError for one that is not there, leads or votes; UnfitError when the voters do not answer.
        """
        self.change(name, f"remove the replica {name}")

    def why_no_change(self) -> str:
        """Why our replicas cannot change; empty where they can."""
        if not self.names_voters:
            return "the replicas of this volume are its voters, and stay who they are"
        return may_change(self.protocol, self.policy)

    def change(self, what: Placed | str, attempt: str) -> None:
        """Have the control thread do it, and wait."""
        if why := self.why_no_change():
            raise UsageError(f"{attempt}: {why}.")
        state, asked = self.leading(), Change(what)
        self.changes.append(asked)
        limit_s = time.monotonic() + CHANGE_S
        while not asked.done.wait(CONTROL_S):
            if self.primary is not state:
                raise UnfitError(f"{attempt}: {self.name} leads no more, so it may have been done or not: ask who leads.")
            if time.monotonic() > limit_s:
                raise UnfitError(f"{attempt}: it is not done after {CHANGE_S:g} s, and may be later: ask what there is.")
        if asked.refusal is not None:
            raise asked.refusal

    def take_changes(self, epoch: int) -> None:
        """In the control thread: ask the voters for what somebody waits for."""
        while self.changes and not self.steps_down:
            asked = self.changes.popleft()
            asked.refusal = self.made(asked.what, epoch)
            if asked.refusal is not None or isinstance(asked.what, Placed):
                asked.done.set()
            else:
                self.leaving.append(asked)

    def made(self, what: Placed | str, epoch: int) -> FarwriteError | None:
        """Why a change cannot be made; None once a majority of the voters keeps it."""
        replicas, members = self.all_replicas(), self.ballot.members
        if isinstance(what, Placed):
            attempt = f"add the replica {what.name}"
            if what in replicas:
                return None
            refusal = add_refusal_of(what, members, replicas)
            if what.name in self.voter_names:
                refusal = f"{what.name} is the name of a voter"
            steps = add(self, len(self.voters), epoch, replicas, what)
        else:
            attempt = f"remove the replica {what}"
            refusal = remove_refusal_of(what, self.name, self.voter_names, replicas)
            steps = let_go(self, len(self.voters), epoch, replicas, what)
        if refusal:
            return UsageError(f"{attempt}: {refusal}.")
        if self.decided(steps):
            return None
        return UnfitError(f"{attempt}: no majority of the voters has answered, so it is not done. Try again.")

    def replica_statuses(self) -> list[ReplicaStatus]:
        """Every replica, as the one that leads knows it. UnfitError when we do not lead."""
        state = self.leading()
        statuses, members = self.peer_statuses(), self.ballot.members
        staged = int(self.journal.at[0].staged_sequence)
        found = []
        for one in self.all_replicas():
            status = statuses.get(one.name)
            lag_writes = max(staged - int(state.peer[self.rows.of(one.name)].durable), 0) if status is not None else 0
            found.append(ReplicaStatus(
                one.name, one.host, one.port, one.vote_port, one.name == self.name, one.name in members,
                one.name in self.voter_names, lag_writes, status,
            ))  # fmt: skip
        return found

    def request_hand_over(self, to: str) -> None:
        """Have `to` lead; answers once we take no more writes and it is about to stand. FarwriteError when it cannot be."""
        state = self.leading()
        if to == self.name:
            raise UsageError(f"hand over to {to}: it leads already.")
        if to not in self.peers:
            raise UsageError(f"hand over to {to}: there is no such replica ({', '.join(self.peers)}).")
        row = self.rows.of(to)
        if to not in self.ballot.members or row < 0 or state.peer[row].state != p.LIVE:
            raise UnfitError(f"hand over to {to}: it does not hold everything yet. Wait until it is a member and live.")
        if not self.hand_over(to):
            raise UnfitError(f"hand over to {to}: it did not come to hold everything in time: {self.name} leads on. Try again.")

    def control(self, state: p.Primary, epoch: int, connections: dict[int, socket.socket], ending: threading.Event) -> None:
        """Connect to whoever is absent, and keep the configuration as the loop needs it."""
        rest_s = 0.0

        def let_go_of(index: int) -> None:
            if index in connections:
                connections.pop(index).close()

        while not ending.wait(rest_s):
            rest_s = CONTROL_S
            self.mind_disk()
            self.mind_snapshots()
            self.mind_room()
            self.take_changes(epoch)
            self.rows.follow(state, self.peers, let_go_of)
            for one in [one for one in self.leaving if self.rows.is_gone(str(one.what))]:
                self.leaving.remove(one)
                one.done.set()
            if not self.is_settled and not self.peers:
                self.configure(epoch, self.ballot.members)
            for index, name in self.rows.named():
                if self.ballot.epoch > epoch:
                    self.steps_down = True
                if self.steps_down:
                    return
                if name not in self.peers or state.control_requests[index].request != p.NOTHING:
                    continue
                if not self.is_settled:  # Some may know what the majority does not.
                    self.configure(epoch, self.ballot.members)
                if state.peer[index].state == p.ABSENT:
                    if state.peer[index].lost_status == replica.BAD_FRAME:
                        LOG.warning("%s: the session with %s has ended: it sent what no secondary may send", self.name, name)
                        state.peer[index].lost_status = 0
                    if state.peer[index].lost_status == replica.PEER_SILENT:
                        LOG.warning("%s: %s was silent for too long, and is met anew", self.name, name)
                        state.peer[index].lost_status = 0
                    if self.policy == p.CONSENT:
                        self.do_without(state, index, name, epoch)
                    if not self.connect(state, index, name, epoch, connections) and self.policy == p.CONSENT:
                        self.do_without(state, index, name, epoch)
                elif self.policy == p.CONSENT and is_to_be_readmitted(state.peer[index], name, self.ballot.members):
                    self.configure(epoch, tuple(sorted({*self.ballot.members, name})))

    def do_without(self, state: p.Primary, index: int, name: str, epoch: int) -> None:
        """Go on without a lost peer once a majority has struck it from the configuration, and not before.

        A peer that was detached and struck already stays so; one that is a member must hold every write until then. One that has
        not been here may be on its way, unless nobody listens at its port.
        """
        is_patient = time.monotonic_ns() < self.patience_ends_ns and name not in self.refusing
        if not is_to_be_struck(state.peer[index], name, self.ballot.members, is_patient):
            return
        members = tuple(one for one in self.ballot.members if one != name)
        if self.configure(epoch, members):
            state.control_requests[index].request = p.DETACH

    def connect(
        self, state: p.Primary, index: int, name: str, epoch: int, connections: dict[int, socket.socket]
    ) -> bool:
        """Meet an absent peer and have the loop adopt it; False when its process does not run."""
        if state.control_requests[index].request != p.NOTHING or self.steps_down:
            return True
        limit_s = self.meeting_s
        if name in self.unasked:  # Once. It refuses our HELLO if it has promised a newer epoch, and is asked the next time.
            self.unasked.discard(name)
            limit_s = self.ask_s
        elif not self.is_to_be_met(name, epoch):
            return name not in self.refusing
        connection = None
        try:
            knows = self.ballot if self.ballot.replicas else Ballot()
            connection = introduce(self.name, name, self.peers[name], self.terms, limit_s, knows)
            theirs = meet(connection, hello_of(self.journal, self.protocol), leads=True, timeout_s=limit_s)
        except (FarwriteError, OSError) as refusal:
            if isinstance(refusal, FarwriteError):
                self.sparse.warning("lead %s: %s", name, refusal)
            if connection:
                connection.close()
            return True
        if index in connections:
            connections[index].close()
        connections[index] = connection
        control_request = state.control_requests[index]
        control_request.socket, control_request.sequence = connection.fileno(), theirs.sequence
        control_request.how = how_to_join(self.journal, theirs)
        control_request.request = p.ADOPT
        return True

    def is_to_be_met(self, name: str, epoch: int) -> bool:
        """Ask an absent peer for its status: whether it runs and has promised no newer epoch. A newer one ends our lead."""
        try:
            answer = ask_running(name, self.peers[name], Question("status", self.name), self.terms, self.ask_s)
        except ConnectionRefusedError:
            self.refusing.add(name)
            return False
        self.refusing.discard(name)
        if answer is None or not is_epoch_in_reach(self.ballot, answer.ballot.epoch):
            return False
        if answer.ballot.epoch > epoch:
            self.steps_down = True
            return False
        return True

    def hand_over(self, to: str) -> bool:
        """Step down for `to` once it holds everything; called on `to` itself, stand at once. False when it cannot be."""
        if to == self.name:
            self.stands_at_once = True
            if self.arrivals is not None:
                self.arrivals.wake()
            return True
        state = self.primary
        if state is None or to not in self.peers or (self.ballot.members and to not in self.ballot.members):
            return False
        with ExitStack() as stack:
            # While writes are taken still: the question that ends our lead then takes one round trip instead of four.
            talk = stack.enter_context(conversation_with(self.peers[to], self.terms, self.ask_s))
            with self.lock:  # One at a time.
                if self.handing_over:
                    return False
                self.handing_over = True
            self.hurry()
            index = self.rows.of(to)
            limit_s = time.monotonic() + 2 * self.peer_timeout_ns / 1e9
            while index >= 0 and time.monotonic() < limit_s and self.primary is state and not self.stopped():
                if may_succeed(state.peer[index], to, self.ballot.members, self.journal):
                    self.thread(self.leave_to, to, talk, stack.pop_all())
                    return True
                time.sleep(HAND_OVER_LOOK_S)
            self.handing_over = False
        return False

    def leave_to(self, to: str, talk: Conversation | None, open_talk: ExitStack) -> None:
        """Step down, then tell the successor, over a conversation that was begun before and ends with this stack."""
        question = Question("hand_over", self.name, members=(to,))
        with open_talk:
            self.steps_down = True
            self.hurry()
            while self.primary is not None:
                time.sleep(HAND_OVER_LOOK_S)
            answer = ask_in(talk, to, question) if talk is not None else None
        if answer is None:
            ask(to, self.peers[to], question, self.terms)
