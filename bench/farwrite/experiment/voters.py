"""Voters at their sites: two or three replicas and a witness, each a process that may be killed and started again.

Where they stand is read from memory they share with us, never asked over links that a drill cuts. What a replica does besides
being one (a drill's desk, a door for real clients) is its `begin`'s to say.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..base.errors import UnfitError
from ..base.host import reactor
from ..base.host.disk import Disk, disk
from ..base.row import Row, i64, rows_of
from ..base.shared_counters import SharedCounters
from ..base.units import NS_PER_S
from ..base.wire.terms import KEY_BYTES_MIN, EncryptionName, SharedKey, Terms
from ..engine import journal_kernel as log
from ..engine import primary_kernel as primary
from ..engine import replica_kernel as replica
from ..engine import secondary_kernel as secondary
from ..engine import turn_kernel
from ..engine.control import Address, votes_served
from ..engine.handshake import frame_of, hello_of, how_to_join, receive_hello
from ..engine.node import recall
from ..engine.vote import Voter
from ..lab.lab import Lab
from ..lab.namespace import Loopback
from ..lab.process import Process, process
from ..lab.relay_door import Passages
from ..lab.shared_memory import Board, board
from ..lab.site import AnySite, LocalSite
from ..lab.span import Span
from ..workload import payload_kernel as payload
from ..workload.drill_scenario import SITES

POLICIES = {"block": primary.BLOCK, "consent": primary.CONSENT, "suspend-replication": primary.SUSPEND_REPLICATION}
PORT, VOTE_PORT = 7000, 7001  # The sites have networks of their own.
PATIENCE_S = 60.0  # For what must come on any machine that still works.
LOOK_S = 0.005


class Seat(Row):
    """What a voter tells us of itself, on its board behind the counters that the engine shares."""

    ready = i64("1: it answers")
    joined = i64("1: it leads, all its peers keep up with it, and none is detached")
    in_flight = i64("writes that it has taken and not acknowledged")
    note_count = i64("notes so far")
    disk = i64("how a drill has the voter's disk behave: DISK_ANSWERS, DISK_STALLED or DISK_FULL of its desk")


SEAT_AT = SharedCounters.LAYOUT.itemsize // 8
REST_AT = SEAT_AT + Seat.LAYOUT.itemsize // 8  # Behind the seat a board holds what the replica's task wants there.


def address_at(site: AnySite) -> Address:
    """Where a voter at this site listens: at ports of our choice, or at free ones where the network is the whole machine's."""
    if not isinstance(site, LocalSite) or not isinstance(site.place, Loopback):
        return Address(site.address, PORT, VOTE_PORT)
    with socket.socket() as one, socket.socket() as other:  # Both held, so that they differ.
        for taken in (one, other):
            taken.bind((site.address, 0))
        return Address(site.address, one.getsockname()[1], other.getsockname()[1])


def seat_of(board: Board) -> Any:
    """The Seat on a voter's board."""
    return board.words[SEAT_AT:REST_AT].view(Seat.LAYOUT)[0]


def terms_of(key: bytes, encryption: EncryptionName = "none") -> Terms:
    """Both ends prove that they belong together; nobody else can vote, lead or write. Between machines it is TLS."""
    return Terms(encryption, "none", SharedKey(key))


class UndecidedError(UnfitError):
    """What was waited for did not come: nothing can be said of it."""


class Voters(ABC):
    """The processes of one volume, alive at most as long as the stack."""

    def __init__(
        self, stack: contextlib.ExitStack, lab: Lab, replicas: int, has_witness: bool, board_words: int,
        disks: Mapping[str, Disk], ballots: Mapping[str, int],
    ) -> None:  # fmt: skip
        self.lab = lab
        self.sites: dict[str, AnySite] = {site.name: site for site in (lab.near, *(span.far for span in lab.spans))}
        self.spans: dict[frozenset[str], Span] = {
            frozenset((span.near.name, span.far.name)): span for span in (*lab.spans, *lab.between)
        }
        self.take_seats(stack, secrets.token_bytes(KEY_BYTES_MIN), replicas, has_witness, board_words, disks, ballots)
        self.addresses = {name: self.address_for(name) for name in self.replicas}
        self.witness = self.address_for(SITES[2]) if has_witness else None

    def take_seats(
        self, stack: contextlib.ExitStack, key: bytes, replicas: int, has_witness: bool, board_words: int,
        disks: Mapping[str, Disk], ballots: Mapping[str, int],
    ) -> None:  # fmt: skip
        """What there is of every voter wherever it stands, none of them started yet."""
        self.stack, self.key = stack, key
        self.replicas, self.voters = self.voter_names(replicas, has_witness)
        self.boards: dict[str, Board] = {name: stack.enter_context(board(board_words)) for name in self.voters}
        self.seats = {name: seat_of(self.boards[name]) for name in self.voters}
        self.disks, self.ballots = disks, ballots
        self.processes: dict[str, Process] = {}  # of voters that run, stopped ones too
        self.stopped: set[str] = set()

    def voter_names(self, replicas: int, has_witness: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(replicas, voters): each has the name of its site, where nobody says otherwise."""
        return names_of(replicas, has_witness)

    def site_of(self, name: str) -> AnySite:
        """Where a voter stands."""
        return self.sites[name]

    def address_for(self, name: str) -> Address:
        """Where it listens."""
        return address_at(self.site_of(name))

    def reached(self, name: str, other: str, address: Address) -> Address:
        """Another one's address as this voter reaches it: through a relay, where their sites are joined by one."""
        here, site = self.site_of(name), self.site_of(other)
        outward = here.index < site.index
        doors = (site if outward else here).doors.get((here if outward else site).index)
        return address._replace(dial=Passages(doors.asking.fileno(), here.address, outward)) if doors else address

    def seen_from(self, name: str) -> tuple[dict[str, Address], Address | None]:
        """(the replicas, the witness) as the voter of this name reaches them."""
        witness = self.reached(name, SITES[2], self.witness) if self.witness else None
        return {other: self.reached(name, other, address) for other, address in self.addresses.items()}, witness

    @abstractmethod
    def begin(self, made: Process, name: str, first: bool) -> None:
        """Have this process be the voter of this name. `first`: it is the one that is to lead."""

    def start(self, name: str, first: bool = False) -> None:
        """A voter at its site, on what its disk holds."""
        self.boards[name].counters[:] = 0
        self.seats[name].ready = self.seats[name].joined = self.seats[name].in_flight = 0
        made = self.processes[name] = self.process_for(name)
        self.begin(made, name, first)

    def start_all(self) -> None:
        """Every voter; near leads once its peers keep up with it."""
        for name in reversed(self.voters):
            self.start(name, first=name == SITES[0])
            self.until(lambda name=name: self.seats[name].ready, f"the start of {name}")  # type: ignore[misc]
        self.until(self.have_joined, "the replicas' joining")

    def process_for(self, name: str) -> Process:
        """A new process where a voter stands."""
        return self.process_at(name, self.site_of(name).name)

    def process_at(self, name: str, site: str) -> Process:
        """A new process at a site."""
        place = self.sites[site]
        assert isinstance(place, LocalSite)
        return self.stack.enter_context(process(name, place.place))

    def have_joined(self) -> bool:
        """Whether one leads and all others keep up with it."""
        leader = self.leader()
        return leader is not None and bool(self.seats[leader].joined)

    def is_up(self, name: str) -> bool:
        """Whether its process runs and is not stopped."""
        return name in self.processes and name not in self.stopped

    def leader(self) -> str | None:
        """Who leads, of several in the latest epoch."""
        leading = [(int(self.boards[name].counters[0].led_epoch), name) for name in self.replicas if self.is_up(name)]
        epoch, name = max(leading, default=(0, ""))
        return name if epoch else None

    def until(self, condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
        """Wait. UndecidedError when it does not come, or when a process ends that nobody has killed."""
        if not self.comes(condition, patience_s):
            raise UndecidedError(f"{what} did not come within {patience_s:g} s")

    def comes(self, condition: Callable[[], object], patience_s: float) -> bool:
        """Whether it comes within the time."""
        limit_s = time.monotonic() + patience_s
        while not condition():
            self.check()
            if time.monotonic() > limit_s:
                return False
            time.sleep(LOOK_S)
        return True

    def everybody(self) -> dict[str, Process]:
        """The processes that are to run, by name."""
        return self.processes

    def check(self) -> None:
        """UndecidedError when a process has ended by itself."""
        for name, made in list(self.everybody().items()):
            if made.busy and made.poll(0):
                raise UndecidedError(f"the process of {name} ended{why_ended(made)}")

    def kill(self, name: str) -> None:
        """SIGKILL; it is gone when this returns. Its files are as they were at that instant: what it had written is written."""
        if name in self.processes:
            self.processes.pop(name).kill()
        self.stopped.discard(name)


def names_of(replicas: int, has_witness: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(replicas, voters): the witness of two replicas votes at the third site."""
    names = SITES[:replicas]
    return names, (*names, *(SITES[2:] if has_witness else ()))


def why_ended(made: Process) -> str:
    """The words of a process that has ended, behind a colon."""
    try:
        made.answer(0)
    except (UnfitError, RuntimeError) as failure:
        return f": {failure}"
    return ""


def quieten(is_verbose: bool) -> None:
    """Warnings of a node are about faults that are made on purpose: only -v shows them. What ends a node is raised as well."""
    root = logging.getLogger()
    root.handlers.clear()
    if not is_verbose:
        root.addHandler(logging.NullHandler())


def run_witness(
    address: Address, replicas: Collection[str], key: bytes, is_verbose: bool, ballot_fd: int, board: Board,
    encryption: EncryptionName = "none", name: str = "witness",
) -> None:  # fmt: skip
    """In a process at the third site, or wherever voters stand apart: a voter without a volume, until its board says stop.

    `replicas`: those that the volume was made with; of others the voters hear from who leads.
    """
    quieten(is_verbose)
    with votes_served(Voter(name, ballot_fd, replicas), address, terms_of(key, encryption)):
        seat_of(board).ready = 1
        while not board.counters[0].stop:
            time.sleep(0.05)


def rehearse_meeting(journal: log.Journal) -> None:
    """A HELLO said, heard and judged. Its kernels are loaded then: 4 ms of processor time, which a switch-over waited for."""
    one, other = socket.socketpair()
    with one, other:
        other.sendall(frame_of(hello_of(journal, primary.C)))
        assert how_to_join(journal, receive_hello(one, int(journal.at[0].volume))) == primary.BY_LOG


def rehearse_node(
    journal_bytes: int, staging_bytes: int, rehearse_clients: Callable[[primary.Primary], None] = lambda state: None
) -> None:
    """Every kernel of a node once, before the first fork: its processes then start with machine code."""
    with disk(None, journal_bytes, 1 << 20) as chosen, reactor.reactor() as ring:
        journal = recall(chosen, 1, staging_bytes)
        rehearse_meeting(journal)
        state = primary.primary_state(journal, ring, [], primary.C, 1, NS_PER_S, volume_bytes=1 << 20)
        assert primary.submit(state, 0, 0, 4096, 0, payload.SOLID)
        assert turn_kernel.progress(state, 0) == replica.OK
        rehearse_clients(state)
        assert replica.settle(journal, ring) == replica.OK
        stopped = rows_of(SharedCounters)
        stopped[0].stop = 1
        secondary.serve(secondary.secondary_state(journal, ring, -1, primary.C, 1 << 20, stopped))
        recall(chosen, 1, staging_bytes)
