"""The processes of one trial: replicas, witness and client at their sites, and every fault that a scenario can ask for.

The replicas and the witness are those of ../voters.py; here are the client, the faults, and what is left afterwards.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import numpy as np

from ...analysis.drill_recording import NOTES, Noted
from ...base.host.disk import Disk, disk
from ...base.host.libc import aligned_bytes
from ...engine.ballot import Question
from ...engine.control import Address, ask
from ...engine.journal import examine
from ...engine.vote import format_ballot
from ...lab.lab import Lab
from ...lab.process import Process, ProcessLostError, process
from ...lab.shared_memory import board
from ...targets.replicated import PROTOCOLS
from ...workload import payload_kernel as payload
from ...workload.drill_scenario import SITES, Event, Setup
from ..voters import PATIENCE_S, POLICIES, UndecidedError, Voters, names_of, run_witness, terms_of
from . import desk
from . import ledger as book
from .client import Load, run_client
from .ledger import Ledger

DESK_PORT = 7002  # The sites have networks of their own.
JOURNAL_BYTES = 16 << 20
HAND_OVER_S = 30.0
LOOK_TRIPS, LOOK_NS = 4, 100_000_000  # After how long without an answer the client asks who leads.
WRONG_BYTES = -6  # A block with the right stamp and wrong bytes behind it.


class Cluster(Voters):
    """One trial's processes. What does not come in time makes a trial unknown, never a loss."""

    def __init__(
        self, stack: contextlib.ExitStack, lab: Lab, setup: Setup, seed: int, directory: Path | None, is_verbose: bool = False
    ) -> None:
        self.setup, self.seed, self.is_verbose = setup, seed, is_verbose
        self.ledger_board = stack.enter_context(board(book.WORDS))
        self.ledger = Ledger(self.ledger_board.words)
        volume_bytes = self.block_count * setup.size_bytes
        replicas, voters = names_of(setup.replicas, setup.has_witness)
        disks = {name: stack.enter_context(disk(directory, JOURNAL_BYTES, volume_bytes)) for name in replicas}
        ballots = {name: new_ballot(stack, name) for name in voters}
        super().__init__(stack, lab, setup.replicas, setup.has_witness, desk.BOARD_WORDS, disks, ballots)
        self.client: Process | None = None
        self.lost: set[str] = set()
        stack.callback(self.heal_all)

    @property
    def block_count(self) -> int:
        """The load's blocks, and one for the writes that show that recovery has ended."""
        return self.setup.block_count + 1

    # Processes

    def begin(self, made: Process, name: str, first: bool) -> None:
        setup = self.setup
        order = desk.Order(
            name, self.addresses, self.witness, DESK_PORT, self.key, 1, self.seed, setup.size_bytes, PROTOCOLS[setup.protocol],
            POLICIES[setup.policy], setup.quorum, setup.peer_timeout_ns, first, self.is_verbose,
        )  # fmt: skip
        if name in self.disks:
            made.start(desk.run_replica, order, self.disks[name], self.ballots[name], self.boards[name])
        else:
            assert self.witness is not None
            made.start(
                run_witness, self.witness, self.addresses, self.key, self.is_verbose, self.ballots[name], self.boards[name]
            )

    def everybody(self) -> dict[str, Process]:
        return self.processes | ({"client": self.client} if self.client else {})

    def start_client(self) -> None:
        """The load, until its first acknowledgement."""
        setup = self.setup
        blocks = np.random.default_rng([self.seed]).integers(0, setup.block_count, 1 << 14)
        rtt_ns = sum(self.lab.light_ns)
        load = Load(
            tuple(self.replicas), tuple((self.sites[name].address, DESK_PORT) for name in self.replicas), self.key,
            setup.offered_per_s, setup.queue_depth, tuple(blocks.tolist()), setup.block_count, setup.bound_ns,
            LOOK_NS + LOOK_TRIPS * rtt_ns,
        )  # fmt: skip
        self.client = self.process_at("client", SITES[2])
        self.client.start(run_client, load, self.ledger_board)
        self.until(lambda: self.ledger.head.begin_ns, "the first acknowledged write")

    # Events

    def do(self, event: Event) -> str:
        """Carry an event out; answers what there is to say of it."""
        site = event.site
        if event.action in ("cut", "blackhole"):
            span = self.spans[frozenset(event.link)]
            is_outward = span.near.name == event.link[0]
            one_way = event.action == "blackhole"
            span.link.cut(outward=is_outward or not one_way, homeward=not is_outward or not one_way)
        elif event.action == "heal":
            self.spans[frozenset(event.link)].link.heal()
        elif event.action == "kill":
            self.kill(site)
        elif event.action == "lose":
            for pair, span in self.spans.items():
                if site in pair:
                    span.link.cut()
            self.kill(site)
            self.lost.add(site)
        elif event.action == "stop":
            self.stop(site)
        elif event.action == "continue":
            self.go_on(site)
        elif event.action == "restart":
            self.start(site)
        else:
            return self.switch_over(site)
        return ""

    def stop(self, name: str) -> None:
        """SIGSTOP: alive, its connections open, and it answers nothing. It stands still when this returns."""
        pid = self.processes[name].pid
        os.kill(pid, signal.SIGSTOP)
        self.stopped.add(name)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def go_on(self, name: str) -> None:
        """SIGCONT."""
        os.kill(self.processes[name].pid, signal.SIGCONT)
        self.stopped.discard(name)

    def switch_over(self, to: str) -> str:
        """Ask who leads to hand over to this replica; the question comes from the third site, over the network."""
        leader = self.leader()
        if leader is None:
            return "nobody led"
        if leader == to:
            return f"{to} led already"
        third = self.sites[SITES[2]]
        answered = third.call(handed_over, leader, self.addresses[leader], to, self.key, timeout_s=2 * HAND_OVER_S)
        return "" if answered else f"{leader} did not agree to hand over"

    def heal_all(self) -> None:
        """Every link carries packets again."""
        for span in self.spans.values():
            span.link.heal()

    def repair(self) -> None:
        """What an operator does: heal the links, continue what stands still, start what was killed. A lost site stays lost."""
        for pair, span in self.spans.items():
            if not pair & self.lost:
                span.link.heal()
        for name in tuple(self.stopped):
            self.go_on(name)
        for name in self.voters:
            if name not in self.processes and name not in self.lost:
                self.start(name)

    # What is left

    def notes(self) -> list[Noted]:
        """What the nodes have noted, by instants since the first acknowledged write."""
        begin_ns, found = int(self.ledger.head.begin_ns), []
        for name in self.replicas:
            rows = desk.notes_of(self.boards[name])[: int(self.seats[name].note_count)].tolist()
            found += [Noted(node=name, what=NOTES[what], epoch=epoch, at_ns=at - begin_ns) for what, epoch, at in rows]
        return sorted(found, key=lambda note: note.at_ns)

    def are_equal(self) -> bool:
        """Whether all replicas that run have answered, and hold as much as each other."""
        up = [name for name in self.replicas if self.is_up(name)]
        third = self.sites[SITES[2]]
        held = third.call(sequences, {name: self.addresses[name] for name in up}, self.key)
        return len(held) == len(up) and len(set(held.values())) == 1

    def end(self) -> None:
        """Stop client and voters in order; a node applies all it holds before it ends. What was stopped is killed."""
        self.ledger.head.end = 1
        assert self.client is not None
        self.client.answer(PATIENCE_S)
        for name in tuple(self.stopped):
            self.kill(name)
        for name in self.processes:
            self.boards[name].counters[0].stop = 1
        for name, made in self.processes.items():
            try:
                made.answer(PATIENCE_S)
            except ProcessLostError as lost:
                raise UndecidedError(f"the process of {name} did not end in order: {lost}") from lost

    def read_back(self, name: str) -> tuple[tuple[int, int], list[int]]:
        """((epoch, sequence) of the last write in its log, by block what its volume holds), by a process started for this."""
        with process("audit") as auditor:
            return auditor.call(read_back, self.disks[name], self.seed, self.setup.size_bytes, self.block_count, timeout_s=None)


def new_ballot(stack: contextlib.ExitStack, name: str) -> int:
    """The ballot of a voter that has promised nothing yet, in memory."""
    descriptor = os.memfd_create(f"farwrite-ballot-{name}")
    stack.callback(os.close, descriptor)
    format_ballot(descriptor)
    return descriptor


def handed_over(leader: str, address: Address, to: str, key: bytes) -> bool:
    """In a site: ask a primary to hand over."""
    answer = ask(leader, address, Question("hand_over", "drill", members=(to,)), terms_of(key), HAND_OVER_S)
    return answer is not None and answer.yes


def sequences(addresses: dict[str, Address], key: bytes) -> dict[str, int]:
    """In a site: how far the log of each replica reaches that answers."""
    answers = {name: ask(name, address, Question("status", "drill"), terms_of(key)) for name, address in addresses.items()}
    return {name: answer.sequence for name, answer in answers.items() if answer is not None}


def read_back(chosen: Disk, seed: int, size: int, count: int) -> tuple[tuple[int, int], list[int]]:
    """In a fresh process: replay the journal into the volume, then read the volume whole. Nothing a node said is believed."""
    _, ended = examine(chosen, apply=True)
    block, numbers = aligned_bytes(size)[:size], []
    for index in range(count):
        data = os.pread(chosen.volume_fd, size, index * size)
        block[:] = np.frombuffer(data.ljust(size, b"\0"), np.uint8)
        number = int(payload.check(block, 0, size, index * size))
        if number >= 0 and not payload.matches(block, 0, size, seed, number, index * size):
            number = WRONG_BYTES
        numbers.append(number)
    return (int(ended.epoch), int(ended.sequence)), numbers
