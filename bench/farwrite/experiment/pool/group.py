"""The processes of a pool's volumes: for each one its replicas, at the sites of their nodes, and a voter at each of three sites.

A replica is a process of its own, as in `farwrite serve`: the crash of one volume's ends no other's. Voters hold no data and stay
who they are as long as the volume is there; copies come and go (steps.py).
"""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ...base.errors import FarwriteError, UnfitError, UsageError, system_error
from ...base.histogram import SLOTS, Histogram
from ...base.host.disk import JOURNAL, SNAPSHOTS, VOLUME, kept_disk
from ...base.units import counted
from ...base.wire.terms import KEY_BYTES_MIN
from ...base.wire.tunnel import close_all_but
from ...engine.control import Address
from ...engine.frontend import nbd
from ...engine.frontend.nbd_client import NbdClient, Place
from ...engine.peer_status import STATES
from ...lab import process as process_module
from ...lab.lab import Lab
from ...lab.namespace import Loopback
from ...lab.process import Process
from ...lab.relay_door import Passages
from ...lab.shared_memory import board
from ...lab.site import AnySite, LocalSite
from ...targets.replicated import PROTOCOLS
from ...workload.drill_scenario import SITES, PolicyName
from ..serve.control import FOLLOWS, connected
from ..serve.figures import LastSecond
from ..serve.replica import BOARD_WORDS, SOCKET_PATH_BYTES_MAX, Order, figures_of, run_replica
from ..serve.server import Asked, Server, bound_tcp, end_together, only_server, speak
from ..serve.volume_files import BALLOT, Files, Settings
from ..voters import LOOK_S, POLICIES, address_at, run_witness, seat_of
from . import verbs
from .balance import Measured
from .document import NAME_CHARACTERS_MAX, Copy, Volume
from .loads import Meter
from .moves import MoveFigures
from .placement import Move
from .rooms import Rooms
from .steps import NotNowError, Pool, allocated_in
from .striped import Routers

PORT_MAX = 65535
MOVES_MAX = 64  # That are remembered.
REST_AFTER_MOVE_S = 60.0  # A volume that was moved for its load stays so long: its load is that of the new place by then.
OPENS_S = 60.0
STARTS_S = 60.0
SWITCH_S = 10.0  # For another one's doors to open.
SWITCH_LOOK_S = 0.0005  # A look that comes late is counted as a time in which no writer was served.
PROTOCOL = "C"
POLICY: PolicyName = "consent"
PEER_TIMEOUT_NS = 1_000_000_000


def voter_at(site: str) -> str:
    """The name of a volume's voter at a site. No node's replica has it: theirs end with a number."""
    return f"voter_{site}"


def settings_of(volume: Volume) -> Settings:
    """What a volume is to its replicas."""
    return Settings(
        volume=volume.number, size_bytes=volume.size_bytes, replicas=2, has_witness=False, protocol=PROTOCOL, policy=POLICY,
        quorum=0, peer_timeout_ns=PEER_TIMEOUT_NS, link={},
    )  # fmt: skip


class Replicas(Server):
    """The processes of one volume, and its directory of sockets."""

    def __init__(self, stack: contextlib.ExitStack, lab: Lab, pool: Pool, volume: Volume, asked: Asked, sockets: Path) -> None:
        self.pool, self.volume, self.asked_address = pool, volume, asked.address
        self.copy_stacks: dict[str, contextlib.ExitStack] = {}
        self.known_by: dict[str, list[str]] = {}  # the peers that a replica was started with
        self.sites_of = {voter_at(site): site for site in SITES}
        self.ports: dict[str, int] = {voter_at(site): volume.port for site in SITES}
        placed = [copy for copy in volume.copies if copy.state in ("joining", "in", "leaving")]
        for copy in placed:
            self.place_copy(copy)
        copies = [copy for copy in placed if has_files(pool.copy_directory(volume, copy))]
        if not any(copy.state == "in" for copy in copies):
            raise UnfitError(f"no node holds a whole copy of volume {volume.name}: put back the files of one that is lost.")
        self.first_names = tuple(copy.replica for copy in copies), tuple(voter_at(site) for site in SITES)
        tcp = self.bound(stack, asked.port, 0)
        iscsi = self.bound(stack, asked.iscsi_port, 1) if volume.area_bytes else None
        super().__init__(stack, lab, settings_of(volume), Files({}, {}, ""), asked, sockets, tcp, iscsi)
        self.portals = {}  # Sites have none: who leads is reached at one address.
        self.disks, self.ballots = {}, {}
        self.voter_addresses = {voter_at(site): self.address_for(voter_at(site)) for site in SITES}
        self.key = secrets.token_bytes(KEY_BYTES_MIN)  # Of this volume alone: another's replica of the same name proves nothing.
        stack.callback(self.close_copies)
        for name in self.voter_addresses:
            self.ballots[name] = open_ballot(self.stack, pool.voter_directory(volume, self.sites_of[name]) / BALLOT)
        for copy in copies:
            self.open_files(copy)
        for copy in placed:
            if copy not in copies:  # The group goes on without it; removing its node makes another.
                self.addresses[copy.replica] = self.address_for(copy.replica)
                self.say(f"the copy on {copy.node} is lost: {pool.copy_directory(volume, copy)} is not whole.")

    def bound(self, stack: contextlib.ExitStack, first: int | None, after: int) -> socket.socket | None:
        """Its own TCP socket, at the port of its place behind the first one; at any that is free where that is 0."""
        if first is None or self.volume.part_of:
            return None
        port = first + after + self.volume.door if first else 0
        if port > PORT_MAX:
            raise UnfitError(f"volume {self.volume.name} would have port {port}: name a lower one, or 0 for any that is free.")
        return stack.enter_context(bound_tcp(self.asked_address, port))

    # Who there is

    def place_copy(self, copy: Copy) -> None:
        self.sites_of[copy.replica] = self.pool.document.node(copy.node).site
        self.ports[copy.replica] = copy.port

    def voter_names(self, replicas: int, has_witness: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
        names, voters = self.first_names
        return names, (*names, *voters)

    def site_of(self, name: str) -> AnySite:
        return self.sites[self.sites_of[name]]

    def address_for(self, name: str) -> Address:
        """At the port that the document says; at free ones where the network is the whole machine's."""
        site = self.site_of(name)
        if isinstance(site, LocalSite) and isinstance(site.place, Loopback):
            return address_at(site)
        return Address(site.address, self.ports[name], self.ports[name] + 1)

    def open_files(self, copy: Copy) -> None:
        """A copy's files, open as long as the copy is ours. UnfitError where they are not whole."""
        directory = self.pool.copy_directory(self.volume, copy)
        with contextlib.ExitStack() as own:
            self.disks[copy.replica] = own.enter_context(kept_disk(directory, self.volume.file_bytes))  # type: ignore[index]
            self.ballots[copy.replica] = open_ballot(own, directory / BALLOT)  # type: ignore[index]
            self.copy_stacks[copy.replica] = own.pop_all()

    def close_copies(self) -> None:
        """No copy's files are open any more."""
        while self.copy_stacks:
            self.copy_stacks.popitem()[1].close()

    def take_in(self, copy: Copy) -> None:
        """Another copy of the volume: it can be started from now on."""
        name = copy.replica
        self.place_copy(copy)
        self.addresses[name] = self.address_for(name)
        self.open_files(copy)
        self.boards[name] = self.copy_stacks[name].enter_context(board(BOARD_WORDS))
        self.seats[name] = seat_of(self.boards[name])
        figures_of(self.boards[name]).task.size_bytes = self.settings.size_bytes
        for known in self.replicas[:1]:  # It holds to the same limit from its first instant on.
            figures_of(self.boards[name]).room[:] = 0
            for field in ("limit", "warn", "grants"):
                figures_of(self.boards[name]).room[0][field] = figures_of(self.boards[known]).room[0][field]
        self.replicas, self.voters = (*self.replicas, name), (name, *self.voters)

    def let_go(self, name: str) -> None:
        """A copy is ours no more: its process is ended, its files closed."""
        self.kill(name)
        self.failures.pop(name, None)
        if name in self.stacks:
            self.stacks.pop(name).close()
        self.replicas = tuple(one for one in self.replicas if one != name)
        self.voters = tuple(one for one in self.voters if one != name)
        for known in (self.addresses, self.boards, self.seats, self.disks, self.ballots):
            known.pop(name, None)  # type: ignore[union-attr]
        if name in self.copy_stacks:
            self.copy_stacks.pop(name).close()

    # Their processes

    def begin(self, made: Process, name: str, first: bool) -> None:
        asked = self.asked
        self.started_s[name] = time.monotonic()
        self.on_start(made.pid)
        founders = tuple(self.volume.founders)
        if name in self.voter_addresses:
            self.start_alone(
                made, [self.ballots[name]], run_witness, self.voter_addresses[name], founders, self.key, asked.is_verbose,
                self.ballots[name], self.boards[name], self.encryption, name,
            )  # fmt: skip
            return
        # One that joins is known to the others once the voters have heard of it.
        joining = {copy.replica for copy in self.volume.copies if copy.state == "joining" and copy.replica != name}
        addresses = {other: one for other, one in self.seen_from(name)[0].items() if other not in joining}
        self.known_by[name] = [other for other in sorted(addresses) if other != name]
        voters = {other: self.reached(name, other, address) for other, address in self.voter_addresses.items()}
        order = Order(
            name, addresses, None, self.key, self.volume.number, PROTOCOLS[PROTOCOL], POLICIES[POLICY], 0, PEER_TIMEOUT_NS, first,
            asked.is_verbose, self.directory, self.tcp.fileno() if self.tcp else None, asked.tls, self.settings.size_bytes,
            self.iscsi.fileno() if self.iscsi else None, asked.chap, {}, self.encryption, voters, founders,
            asked.latency_budget_ns,
        )  # fmt: skip
        opened = self.disks[name]
        dials = [one.dial.asking_fd for one in (*addresses.values(), *voters.values()) if isinstance(one.dial, Passages)]
        kept = [opened.journal_fd, opened.volume_fd, opened.snapshot_fd, self.ballots[name], order.tcp_fd, order.iscsi_fd, *dials]
        self.start_alone(made, kept, run_replica, order, opened, self.ballots[name], self.boards[name])

    def start_alone(self, made: Process, kept: Iterable[int | None], task: Callable[..., None], *arguments: Any) -> None:
        """Have a process do this, and hold no descriptor of other volumes: what is deleted would keep its room until it ends. The
        pool's lock it does hold: it goes with the last who writes."""
        held = [one for one in (*kept, self.pool.lock_fd) if one is not None and one >= 0]
        made.start(run_alone, held, task, *arguments)

    def launch(self) -> None:
        """Start every voter, and every replica but the one that is to stand first, which comes when these answer."""
        for name in self.voters:
            if name != self.first:
                self.start(name)

    @property
    def first(self) -> str:
        """The replica that stands at once: of the copies that count one at the first site that has any."""
        counting = [copy for copy in self.volume.counting() if copy.replica in self.replicas]
        if any(copy.replica == self.volume.lead for copy in counting):
            return self.volume.lead
        return min(counting, key=lambda copy: SITES.index(self.sites_of[copy.replica])).replica

    def launched(self) -> bool:
        return all(self.seats[name].ready or name not in self.processes for name in self.voters if name != self.first)

    def check(self) -> None:
        """Who has ended while something is waited for is started again later; the others go on."""
        for name, made in tuple(self.processes.items()):
            if made.ended or made.poll(0):
                self.note_end(name, made)

    def tell_sites(self) -> None:
        """No portals are to know who serves."""

    def look(self) -> None:
        super().look()
        if self.is_open():  # Reservations that are made from now on are to be kept.
            for name in self.replicas:
                figures_of(self.boards[name]).task.forgets = 0

    def say(self, sentence: str) -> None:
        if not self.asked.is_quiet:
            speak(f"farwrite pool: {self.volume.name}: {sentence}\n")

    def writes_ns(self) -> np.ndarray:
        """All answered writes so far, over all replicas, by duration."""
        total = np.zeros(SLOTS, np.int64)
        for name in self.replicas:
            total += figures_of(self.boards[name]).writes_ns
        return total


def run_alone(kept: Sequence[int], task: Callable[..., None], *arguments: Any) -> None:
    """In a process of one volume: do this with these descriptors of the parent's, and no others."""
    gc.collect()  # What is garbage already would close a descriptor of ours that had got its number.
    connection = process_module.CONNECTION
    assert connection is not None
    close_all_but([0, 1, 2, connection.fileno(), *kept])
    task(*arguments)


def has_files(directory: Path) -> bool:
    """Whether all files of a copy are there."""
    return all((directory / name).is_file() for name in (JOURNAL, VOLUME, SNAPSHOTS, BALLOT))


def open_ballot(stack: contextlib.ExitStack, path: Path) -> int:
    """A voter's ballot, as long as the stack. UnfitError where it is not there: what was promised is not known then."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError as refusal:
        advice = "A voter without its ballot has forgotten what it promised: put the file back from where it went."
        raise system_error(f"open {path}", refusal.errno or 0, advice) from refusal
    stack.callback(os.close, descriptor)
    return descriptor


class Groups:
    """All volumes of a served pool: what `steps.advance` needs of them (steps.Group)."""

    def __init__(self, stack: contextlib.ExitStack, lab: Lab, pool: Pool, asked: Asked, sockets: Path) -> None:
        self.stack, self.lab, self.pool, self.asked, self.sockets = stack, lab, pool, asked, sockets
        self.served: dict[str, Replicas] = {}
        self.own: dict[str, contextlib.ExitStack] = {}
        self.refused: dict[str, str] = {}  # volumes that cannot be served, and why
        self.rates: dict[str, LastSecond] = {}
        self.moves: dict[tuple[str, str], MoveFigures] = {}
        self.before_ns: dict[tuple[str, str], np.ndarray] = {}
        self.meters: dict[str, Meter] = {}
        self.moved_s: dict[str, float] = {}  # when volumes were moved for their load
        self.forgets: frozenset[str] = frozenset()  # volumes whose reservations are forgotten when they are opened
        self.routers: Routers | None = None  # of striped volumes; set by whoever serves the pool
        self.rooms = Rooms(pool, lambda sentence: speak(f"farwrite pool: {sentence}\n"))
        stack.callback(self.close_all)

    def group(self, volume: Volume) -> Replicas:
        if volume.name not in self.served:
            raise NotNowError(f"volume {volume.name} is not served: {self.refused.get(volume.name, 'it is not open')}")
        return self.served[volume.name]

    # steps.Group

    def begin(self, volume: Volume) -> None:
        self.prepare(volume)
        if volume.name not in self.rooms.ledger.shares:
            raise UnfitError(self.rooms.said.get(volume.name, f"there is no room for volume {volume.name}."))
        group = self.served[volume.name]
        group.launch()
        group.until(group.launched, f"the start of volume {volume.name}", STARTS_S)
        group.start(group.first, first=True)
        group.until(group.is_open, f"the opening of volume {volume.name}", OPENS_S)
        group.note_leader()

    def prepare(self, volume: Volume) -> None:
        """Its files are open; no process runs yet."""
        own = contextlib.ExitStack()
        try:
            sockets = own.enter_context(volume_sockets(self.sockets / volume.name))
            self.served[volume.name] = Replicas(own, self.lab, self.pool, volume, self.asked, sockets)
        except BaseException:
            own.close()
            raise
        self.own[volume.name] = own
        for name in self.served[volume.name].replicas:
            figures_of(self.served[volume.name].boards[name]).task.forgets = int(volume.name in self.forgets)
        self.meters[volume.name] = Meter()
        if self.rooms.ledger.is_open:
            self.rooms.due_s = 0.0
            self.rooms.tend(self.served)
        self.rates[volume.name] = LastSecond()
        self.refused.pop(volume.name, None)

    def begin_all(self) -> None:
        """Open every volume, all at once. One that cannot be is said, and keeps no other from it."""
        def each(volumes: list[Volume], do: Callable[[Volume], None]) -> list[Volume]:
            done = []
            for volume in volumes:
                try:
                    do(volume)
                    done.append(volume)
                except (FarwriteError, OSError) as refusal:
                    self.refuse(volume, refusal)
            return done

        volumes = each([one for one in self.pool.document.volumes if one.state == "ready"], self.prepare)
        self.rooms.open(self.served)
        waiting: list[Volume] = []

        def go_on(is_late: bool = False) -> None:
            """Who is to lead stands as soon as the others answer: after a peer's timeout one of them would."""
            for volume in tuple(waiting):
                group = self.served[volume.name]
                if is_late or group.launched():
                    waiting.remove(volume)
                    if not each([volume], lambda one: self.served[one.name].start(self.served[one.name].first, first=True)):
                        volumes.remove(volume)
                else:
                    group.check()

        for volume in tuple(volumes):
            if each([volume], lambda volume: self.served[volume.name].launch()):
                waiting.append(volume)
            else:
                volumes.remove(volume)
            go_on()
        until_s = time.monotonic() + STARTS_S
        while waiting:
            go_on(time.monotonic() > until_s)
            time.sleep(LOOK_S)
        for volume in volumes:
            group = self.served[volume.name]
            if not group.comes(group.is_open, OPENS_S):
                group.say("nobody leads yet: it is served once a majority of its voters and a whole copy are there.")
            group.note_leader()

    def astray(self) -> list[Move]:
        """Hand-overs after which every volume is led where a balance has put it, or else at the first site that has a copy:
        while many are opened at once, another copy may have stood first."""
        found = []
        for name, group in self.served.items():
            leader, wanted, volume = group.leader(), group.first, group.volume
            if leader is None or leader == wanted or (not volume.lead and group.sites_of[leader] == group.sites_of[wanted]):
                continue
            copy = volume.copy_named(wanted)
            assert copy is not None
            found.append(Move(name, wanted, copy.node, True, "as before" if volume.lead else "the first site with a copy"))
        return found

    def refuse(self, volume: Volume, refusal: Exception) -> None:
        self.end(volume)
        self.refused[volume.name] = str(refusal)
        speak(f"farwrite pool: volume {volume.name} is not served: {refusal}\n")

    def end(self, volume: Volume) -> None:
        group = self.served.pop(volume.name, None)
        if group is not None:
            group.end()
        own = self.own.pop(volume.name, None)
        if own is not None:
            own.close()
        for known in (self.meters, self.moved_s, self.rates):
            known.pop(volume.name, None)

    def end_all(self) -> None:
        """Drain every volume, and end its processes; routers first: what they have taken is answered."""
        if self.routers is not None:
            self.routers.end_all()
        end_together(list(self.served.values()))
        self.served.clear()
        self.close_all()

    def close_all(self) -> None:
        """Whatever processes there are end, and files are closed."""
        while self.own:
            self.own.popitem()[1].close()

    def note_loads(self) -> None:
        """What every volume has done until now."""
        now_s = time.monotonic()
        for name, group in self.served.items():
            self.meters[name].note({replica: group.boards[replica] for replica in group.replicas}, now_s)

    def measured(self) -> Measured:
        """What is known of the load, for a balance."""
        now_s = time.monotonic()
        loads = {name: load for name, meter in self.meters.items() if (load := meter.load()) is not None}
        leaders = {name: leader for name, group in self.served.items() if (leader := group.leader()) is not None}
        resting = frozenset(name for name, moved_s in self.moved_s.items() if now_s - moved_s < REST_AFTER_MOVE_S)
        return Measured(leaders, loads, resting, min((meter.measured_s() for meter in self.meters.values()), default=0.0))

    def leads_on(self) -> dict[str, str]:
        """The node whose copy leads, by volume."""
        found = {name: group.volume.copy_named(group.leader() or "") for name, group in self.served.items()}
        return {name: copy.node for name, copy in found.items() if copy is not None}

    def lead_from(self, volume: Volume, replica: str) -> None:
        """Have a copy lead, now and whenever the volume is served. NotNowError: it is tried again."""
        if self.leader(volume) != replica:
            self.hand_over(volume, replica)
        self.pool.set_lead(volume, replica)
        self.moved_s[volume.name] = time.monotonic()

    def resize(self, volume: Volume) -> None:
        group = self.group(volume)
        before = group.settings.size_bytes
        if volume.size_bytes >= before:
            self.tell_size(group, volume.size_bytes)
            return
        with connected_to(group) as client:
            self.tell_size(group, volume.size_bytes)
            try:
                refuse_shrinking(group, client, volume.size_bytes, before)
            except BaseException:
                self.tell_size(group, before)
                raise

    def tell_size(self, group: Replicas, size_bytes: int) -> None:
        for name in group.replicas:
            figures_of(group.boards[name]).task.size_bytes = size_bytes
        group.settings = msgspec.structs.replace(group.settings, size_bytes=size_bytes)

    def start(self, volume: Volume, copy: Copy) -> None:
        group = self.group(volume)
        self.note(volume, copy)
        if copy.replica not in group.replicas:
            group.take_in(copy)
        if copy.replica not in group.processes and copy.replica not in group.failures:
            group.start(copy.replica)
        if not group.seats[copy.replica].ready:
            raise NotNowError(f"the process of {copy.replica} does not answer yet")

    def stop(self, volume: Volume, copy: Copy) -> None:
        if volume.name in self.served:
            self.served[volume.name].let_go(copy.replica)
        for (name, _), move in self.moves.items():
            if name == volume.name and copy.replica in (move.replaces, move.replica) and not move.end_ns:
                move.end_ns = time.time_ns()

    def leader(self, volume: Volume) -> str:
        group = self.group(volume)
        leader = group.leader()
        if leader is None or not group.is_open():
            raise NotNowError("nobody leads")
        return leader

    def has(self, volume: Volume, copy: Copy) -> bool:
        self.leader(volume)
        return copy.replica in verbs.replicas(self.group(volume).directory)

    def add(self, volume: Volume, copy: Copy) -> None:
        self.leader(volume)
        group = self.group(volume)
        verbs.add(group.directory, copy.replica, group.addresses[copy.replica])

    def is_whole(self, volume: Volume, copy: Copy) -> bool:
        self.leader(volume)
        group = self.group(volume)
        found = verbs.replicas(group.directory).get(copy.replica)
        is_whole = found is not None and found.is_member and found.is_live
        if is_whole:
            self.note_whole(volume, copy)
        return is_whole

    def hand_over(self, volume: Volume, to: str) -> None:
        """And watch until the other one's doors are open: that is the pause of a writer."""
        group = self.group(volume)
        old = self.leader(volume)
        task = figures_of(group.boards[old]).task
        verbs.hand_over(group.directory, to)
        closed_ns, until_s = 0, time.monotonic() + SWITCH_S
        while time.monotonic() < until_s and not (group.is_open() and group.leader() != old):
            if not closed_ns and not (task.is_open and group.boards[old].counters[0].led_epoch):
                closed_ns = time.time_ns()
            time.sleep(SWITCH_LOOK_S)
        for (name, _), move in self.moves.items():
            if name == volume.name and move.replaces == old and not move.switch_end_ns:
                move.switch_begin_ns, move.switch_end_ns = closed_ns or time.time_ns(), time.time_ns()

    def remove(self, volume: Volume, copy: Copy) -> None:
        self.leader(volume)
        verbs.remove(self.group(volume).directory, copy.replica)

    # What becomes of a copy that joins

    def note(self, volume: Volume, copy: Copy) -> None:
        key = volume.name, copy.replica
        if key not in self.moves:
            self.moves[key] = MoveFigures(volume.name, copy.replica, copy.node, copy.replaces, time.time_ns())
            self.before_ns[key] = self.served[volume.name].writes_ns()
        while len(self.moves) > MOVES_MAX:
            oldest = next(iter(self.moves))
            self.moves.pop(oldest)
            self.before_ns.pop(oldest, None)

    def note_whole(self, volume: Volume, copy: Copy) -> None:
        move = self.moves.get((volume.name, copy.replica))
        if move is None or move.whole_ns:
            return
        move.whole_ns = time.time_ns()
        move.copied_bytes = allocated_in(self.pool.copy_directory(volume, copy))
        source = volume.copy_named(copy.replaces) or next((one for one in volume.counting() if one is not copy), None)
        move.allocated_bytes = allocated_in(self.pool.copy_directory(volume, source)) if source else 0

    def note_doing(self, volume: Volume, doing: str, failure: str = "") -> None:
        for (name, replica), move in self.moves.items():
            if name == volume.name and not move.end_ns:
                move.doing, move.failure = doing, failure
                if volume.copy_named(replica) and not volume.copy_named(move.replaces) and move.whole_ns:
                    move.end_ns = time.time_ns()
                now = self.served[volume.name].writes_ns() if volume.name in self.served else None
                before = self.before_ns.get((name, replica))
                if now is not None and before is not None:
                    move.write_ns_max = Histogram(np.maximum(now - before, 0)).maximum or 0

    # For people and scripts

    def live(self) -> dict[str, dict[str, Any]]:
        """By volume: leader, sockets, URIs, status, load."""
        found: dict[str, dict[str, Any]] = {}
        for volume in self.pool.document.volumes:
            group = self.served.get(volume.name)
            if group is None:
                found[volume.name] = {"status": self.refused.get(volume.name, "not served")}
                continue
            found[volume.name] = {
                "leader": group.leader() or "", "sockets": str(group.directory), "uri": group.uri(),
                "status": self.status(volume), "tcp_uri": group.tcp_uri(), "iscsi_uri": group.iscsi_uri(),
                "load": self.meters[volume.name].load(),
            }  # fmt: skip
        return found | (self.routers.live() if self.routers is not None else {})

    def status(self, volume: Volume) -> str:
        """How a volume stands, in a line."""
        group = self.served[volume.name]
        leader = group.leader()
        line = self.rates[volume.name].line(group.boards, (leader,) if leader else group.replicas, group.downs())
        if leader is None:
            return line
        # Who leads has rows on its board for the peers that it was started with, in their order.
        known = zip(group.known_by.get(leader, ()), figures_of(group.boards[leader]).peer, strict=False)
        peers = [f"{name} {STATES[int(row['state'])]}" for name, row in known if name in group.replicas]
        return ", ".join([line, *peers])


@contextmanager
def connected_to(group: Replicas) -> Iterator[NbdClient]:
    """A client of the volume as it is now, before its size changes."""
    with connected(Place(str(group.directory / FOLLOWS)), [nbd.BASE_ALLOCATION]) as client:
        yield client


def refuse_shrinking(group: Replicas, client: NbdClient, size_bytes: int, before_bytes: int) -> None:
    """UsageError where somebody may write behind the new end, or has."""
    leader = group.leader()
    if leader is None:
        raise NotNowError("nobody leads")
    extents = client.extents(size_bytes, before_bytes)[nbd.BASE_ALLOCATION]  # Once this is answered our client is counted.
    others = int(figures_of(group.boards[leader]).counters[0].clients) - 1
    if others > 0:
        raise UsageError(
            f"Volume {group.volume.name} has {counted(others, 'client')} that may write up to its present end: end them, and "
            "shrink it then."
        )
    for extent in extents:
        if not extent.status & nbd.STATUS_ZERO:
            raise UsageError(
                f"Volume {group.volume.name} uses what lies behind {size_bytes} bytes (at {extent.begin}): trim it first, or "
                "keep the size."
            )


def check_short(directory: Path) -> None:
    """UsageError where a socket in a volume's directory would have too long a name, whatever its nodes are called."""
    longest = len(os.fsencode(directory)) + len(f"/.{'n' * NAME_CHARACTERS_MAX}-999999-control.4194304")
    if longest > SOCKET_PATH_BYTES_MAX:
        raise UsageError(
            f"{directory}: the path of a unix socket has at most {SOCKET_PATH_BYTES_MAX} bytes, and one in there would have "
            f"{longest}: name a shorter directory with --sockets."
        )


@contextmanager
def volume_sockets(directory: Path) -> Iterator[Path]:
    """A volume's own directory of sockets, as that of farwrite serve."""
    directory = directory.absolute()
    check_short(directory)
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as refusal:
        raise system_error(f"make {directory}", refusal.errno or 0, "Name another directory with --sockets.") from refusal
    with only_server(directory):
        try:
            yield directory
        finally:
            for path in directory.glob("*.sock"):
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                directory.rmdir()
