"""The processes of one trial: replicas, witness and client at their sites, and every fault that a scenario can ask for.

The replicas and the witness are those of ../voters.py; here are the client, the faults, and what is left afterwards.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from ...analysis.drill_recording import NOTES, TAKES, Connection, Noted
from ...base.host.disk import Disk, disk, new_file
from ...base.host.libc import aligned_bytes
from ...engine.ballot import Question
from ...engine.control import Address, ask
from ...engine.journal import examine
from ...engine.vote import format_ballot
from ...lab.lab import Lab
from ...lab.process import Process, ProcessLostError, process
from ...lab.shared_memory import board
from ...lab.site import LocalSite
from ...lab.span import Span
from ...targets.replicated import PROTOCOLS
from ...workload import payload_kernel as payload
from ...workload.drill_scenario import ON_DISKS, SITES, Event, Scenario, Setup
from ...workload.link_spec import LinkDirection
from ..serve.replica import figures_of
from ..voters import PATIENCE_S, POLICIES, UndecidedError, Voters, names_of, run_witness, terms_of, why_ended
from . import desk, doors
from . import ledger as book
from .client import Load, run_client
from .ledger import Ledger
from .wire import DoorLoad

DISKS = {"disk-full": desk.DISK_FULL, "disk-stall": desk.DISK_STALLED}
DESK_PORT = 7002  # The sites have networks of their own.
JOURNAL_BYTES = 16 << 20
POWER_JOURNAL_BYTES = 4 << 20  # Where the power is cut: a small one, so that the volume is flushed again and again before.
SECTOR_BYTES = 512
NOT_FLUSHED_KEPT = 0.5  # Chance that a sector which was written and not flushed is on the disk all the same.
HAND_OVER_S = 30.0
LOOK_TRIPS, LOOK_NS = 4, 100_000_000  # After how long without an answer the client asks who leads.
WRONG_BYTES = -6  # A block with the right stamp and wrong bytes behind it.


class Cluster(Voters):
    """One trial's processes. What does not come in time makes a trial unknown, never a loss."""

    def __init__(
        self, stack: contextlib.ExitStack, lab: Lab, scenario: Scenario, setup: Setup, seed: int, directory: Path | None,
        is_verbose: bool = False,
    ) -> None:  # fmt: skip
        self.setup, self.seed, self.is_verbose = setup, seed, is_verbose
        self.way = LinkDirection(rate_bits_per_s=scenario.rate_bits_per_s)
        loses_power = any(event.action == "power-off" for event in scenario.event)
        self.ledger_board = stack.enter_context(board(book.WORDS))
        self.ledger = Ledger(self.ledger_board.words)
        self.seen_bytes, volume_bytes = doors.sizes_of(self.block_count * setup.size_bytes)
        if not setup.door:
            volume_bytes = self.block_count * setup.size_bytes
        journal_bytes = POWER_JOURNAL_BYTES if loses_power else JOURNAL_BYTES
        replicas, voters = names_of(setup.replicas, setup.has_witness)
        disks = {name: stack.enter_context(disk(directory, journal_bytes, volume_bytes)) for name in replicas}
        self.images = {name: stack.enter_context(image_of(chosen)) for name, chosen in disks.items() if loses_power}
        self.ahead_ns: dict[str, int] = {}  # by name: how far a replica's clock is ahead of the others'
        self.ailing: set[str] = set()  # whose disks fail, so that their processes may end
        self.endings: list[str] = []  # what those processes said
        ballots = {name: new_ballot(stack, name) for name in voters}
        board_words = doors.BOARD_WORDS if setup.door else desk.BOARD_WORDS
        super().__init__(stack, lab, setup.replicas, setup.has_witness, board_words, disks, ballots)
        self.doors = self.doors_of_trial() if setup.door else None
        self.heal_all()
        self.client: Process | None = None
        for number in range(len(os.sched_getaffinity(0)) if scenario.busy else 0):
            stack.enter_context(process(f"busy {number}")).start(spin)
        self.lost: set[str] = set()
        stack.callback(self.heal_all)

    @property
    def block_count(self) -> int:
        """The load's blocks, and one for the writes that show that recovery has ended."""
        return self.setup.block_count + 1

    def doors_of_trial(self) -> doors.Doors:
        """Where they are."""
        sites = {name: self.sites[name] for name in self.replicas}
        ports = {name: doors.port_at(site, self.setup.door) for name, site in sites.items() if isinstance(site, LocalSite)}
        return doors.Doors(self.setup.door, ports, self.seen_bytes)

    # Processes

    def begin(self, made: Process, name: str, first: bool) -> None:
        self.seats[name].disk = desk.DISK_ANSWERS
        self.ailing.discard(name)
        setup = self.setup
        order = desk.Order(
            name, self.addresses, self.witness, DESK_PORT, self.key, doors.VOLUME, self.seed, setup.size_bytes,
            PROTOCOLS[setup.protocol], POLICIES[setup.policy], setup.quorum, setup.peer_timeout_ns, first, self.is_verbose,
            self.images.get(name, -1), self.ahead_ns.get(name, 0),
        )  # fmt: skip
        if name in self.disks and self.doors is not None:
            made.start(doors.run_replica, order, self.doors, self.disks[name], self.ballots[name], self.boards[name])
        elif name in self.disks:
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
        door = DoorLoad(setup.door, doors.TARGET, self.seed, setup.size_bytes) if setup.door else None
        ports = self.doors.ports if self.doors is not None else dict.fromkeys(self.replicas, DESK_PORT)
        load = Load(
            tuple(self.replicas), tuple((self.sites[name].address, ports[name]) for name in self.replicas), self.key,
            setup.offered_per_s, setup.queue_depth, tuple(blocks.tolist()), setup.block_count, setup.bound_ns,
            LOOK_NS + LOOK_TRIPS * rtt_ns, door,
        )  # fmt: skip
        self.client = self.process_at("client", SITES[2])
        self.client.start(run_client, load, self.ledger_board)
        self.until(lambda: self.ledger.head.begin_ns, "the first acknowledged write")

    def check(self) -> None:
        if self.doors is not None:
            self.tell_leader()
        for name, made in list(self.everybody().items()):
            if made.busy and made.poll(0):
                why = why_ended(made)
                if name not in self.ailing:
                    raise UndecidedError(f"the process of {name} ended{why}")
                self.endings.append(f"{name} ended by itself{why}")
                self.kill(name)

    def tell_leader(self) -> None:
        """Have the iSCSI portals of the sites that stand by know where to send who logs in, as `farwrite serve` does it."""
        leader = self.leader()
        figures = {name: figures_of(self.boards[name]) for name in self.replicas}
        is_open = leader is not None and figures[leader].task.is_open
        for one in figures.values():
            one.task.leader = 1 + sorted(self.replicas).index(leader) if leader is not None and is_open else 0

    # Events

    def do(self, event: Event) -> str:
        """Carry an event out; answers what there is to say of it."""
        site = event.site
        if event.action in ("cut", "blackhole"):
            span = self.spans[frozenset(event.link)]
            is_outward = span.near.name == event.link[0]
            one_way = event.action == "blackhole"
            span.link.cut(outward=is_outward or not one_way, homeward=not is_outward or not one_way)
        elif event.action in ("slow", "lossy"):
            extra_ns, loss_ratio = (event.extra_rtt_ns or 0) // 2, event.loss_ratio or 0.0
            way = msgspec.structs.replace(self.way, extra_delay_ns=extra_ns, loss_ratio=loss_ratio)
            self.spans[frozenset(event.link)].link.set_directions(way, way)
        elif event.action == "heal":
            self.heal(self.spans[frozenset(event.link)])
        elif event.action == "power-off":
            return self.power_off(site)
        elif event.action in ON_DISKS or event.action == "disk-heal":
            self.set_disk(site, event.action)
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
            self.kill(site)  # Where it has not ended by itself.
            self.ahead_ns[site] = event.clock_ahead_ns or 0
            self.start(site)
        else:
            return self.switch_over(site)
        return ""

    def power_off(self, name: str) -> str:
        """Killed, and of what it had written into its volume since the last flush began, about half of the sectors are lost.

        The journal's writes are durable when they return, and a ballot is flushed before it is told of: they are as they were.
        """
        self.kill(name)
        if name not in self.images:
            return ""
        volume_fd, size = self.disks[name].volume_fd, size_of(self.disks[name])
        found, image = (
            np.frombuffer(data, np.uint8).reshape(-1, SECTOR_BYTES)
            for data in (os.pread(volume_fd, size, 0), image_text(self.images[name], size))
        )
        differs = np.flatnonzero((found != image).any(axis=1))
        dice = np.random.default_rng([self.seed, 1])
        gone = differs[dice.random(differs.size) >= NOT_FLUSHED_KEPT]
        for sector in gone.tolist():
            os.pwrite(volume_fd, image[sector].tobytes(), sector * SECTOR_BYTES)
        return f"sectors of {name} that were lost with the power by up to {gone.size} of {differs.size} not flushed"

    def set_disk(self, name: str, action: str) -> None:
        """Have the disk of a replica that runs fail, or answer again."""
        if action == "disk-refuse":
            # None of its files may have a byte at any offset: every write is refused, by EFBIG where a broken disk has EIO.
            resource.prlimit(self.processes[name].pid, resource.RLIMIT_FSIZE, (0, 0))
        self.seats[name].disk = DISKS.get(action, desk.DISK_ANSWERS)
        if action == "disk-heal":
            self.ailing.discard(name)
        else:
            self.ailing.add(name)

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
            self.heal(span)

    def heal(self, span: Span) -> None:
        """A link carries packets again, each and without more delay than its distance has."""
        span.link.heal()
        span.link.set_directions(self.way, self.way)

    def repair(self) -> None:
        """What an operator does: heal the links, continue what stands still, start what was killed. A lost site stays lost."""
        for pair, span in self.spans.items():
            if not pair & self.lost:
                self.heal(span)
        for name in tuple(self.ailing):
            self.kill(name)
        for name in tuple(self.stopped):
            self.go_on(name)
        for name in self.voters:
            if name not in self.processes and name not in self.lost:
                self.start(name)

    # What is left

    def connections(self) -> list[Connection]:
        """The client's connections; of those through a door the epoch is the last one before that the node has noted."""
        found, notes = self.ledger.connections_of(self.replicas), self.notes()

        def epoch_of(one: Connection) -> int:
            noted = [note for note in notes if (note.node, note.what) == (one.node, TAKES) and note.at_ns <= one.opened_ns]
            return max((note.epoch for note in noted), default=0)

        return [one if one.epoch else msgspec.structs.replace(one, epoch=epoch_of(one)) for one in found]

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
        self.check()
        for name in tuple(self.ailing & self.processes.keys()):
            if self.seats[name].disk == desk.DISK_STALLED:
                self.seats[name].disk = desk.DISK_ANSWERS
            else:
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


def spin() -> None:
    """In a process of its own, until it is killed: take all the time of a processor that it is given."""
    while True:
        pass


def new_ballot(stack: contextlib.ExitStack, name: str) -> int:
    """The ballot of a voter that has promised nothing yet, in memory."""
    descriptor = os.memfd_create(f"farwrite-ballot-{name}")
    stack.callback(os.close, descriptor)
    format_ballot(descriptor)
    return descriptor


def size_of(chosen: Disk) -> int:
    """Bytes of a volume's file, its label included."""
    return os.fstat(chosen.volume_fd).st_size


@contextlib.contextmanager
def image_of(chosen: Disk) -> Iterator[int]:
    """A file for what the flushes of a volume have kept, beside that volume: a copy inside of one file system."""
    in_memory = chosen.directory == "memory"
    descriptor = os.memfd_create("farwrite-image") if in_memory else new_file(Path(chosen.directory), None, 0)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def image_text(image_fd: int, size: int) -> bytes:
    """The volume as its last flush has kept it."""
    half = int.from_bytes(os.pread(image_fd, 8, 2 * size), "little")
    return os.pread(image_fd, size, half * size)


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
