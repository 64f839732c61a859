"""A pool that is served: one lab, every volume's replicas and doors, and one loop that looks after them all.

The loop starts again whoever has died, carries out what is asked at `pool.sock`, and moves copies on by one thing at a time
(steps.py). It has no threads, because it forks; what waits for a replica waits in later turns.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ...base.errors import EXIT_CRASH, EXIT_DONE, EXIT_UNFIT, FarwriteError, UsageError
from ...base.units import counted
from ...lab.lab import Lab
from ...lab.shared_memory import board
from ..serve.figures import Observed, serve_metrics
from ..serve.server import CLEAR, Asked, bound_tcp, calm, opened_lab, socket_directory, speak
from ..serve.volume_files import Settings
from . import control
from .attendants import (
    NODE_FIGURES,
    PORTS_WORDS,
    Attendant,
    Ports,
    attendant,
    node_row,
    pool_metrics_text,
    serve_directory,
)
from .control import Answer, Cancel, Desk, Figures, Migrate, Request, carry_out, desk_in, figures_of
from .document import NODES_MAX, Volume, checked_text
from .group import PEER_TIMEOUT_NS, POLICY, PROTOCOL, Groups, check_short
from .placement import Move, may_begin
from .routers import RouterProcesses
from .steps import NotNowError, Pool, advance

LOOK_S = 0.02  # Between two turns while copies move or somebody is heard,
REST_S = 0.1  # and while nothing happens.
AGAIN_S, AGAIN_S_MAX = 0.2, 5.0  # After what could not be done; doubled each time.
STUCK_S = 1.0  # Whoever is tried again so seldom holds up no other.
TRIES_MAX = 6  # Of a move of a balance, 25 s in all: a failover is over by then.
SETTLES_S = 20.0  # For volumes to be led where they are to be, before clients are told to come.
FIGURES_S = 0.5  # Between two looks at what nodes have for metrics.
# What may go wrong besides a volume.
WHOLE = ("room", "load", "doors", "routers", "moves", "nodes", "volumes", "balance", control.SOCKET)
# The lab has three sites whatever the pool has: the third has a voter of each volume, and nodes may come to any of them.
THREE_SITES = Settings(
    volume=1, size_bytes=1 << 20, replicas=3, has_witness=False, protocol=PROTOCOL, policy=POLICY, quorum=0,
    peer_timeout_ns=PEER_TIMEOUT_NS, link={},
)  # fmt: skip


@dataclass
class Patience:
    """A volume whose next thing could not be done."""

    until_s: float = 0.0
    pause_s: float = 0.0
    said: str = ""


class PoolServer:
    """The loop of a served pool."""

    def __init__(
        self, pool: Pool, groups: Groups, routers: RouterProcesses, desk: Desk, asked: Asked, front: Front
    ) -> None:
        self.pool, self.groups, self.routers, self.desk, self.asked, self.front = pool, groups, routers, desk, asked, front
        self.queue: deque[Move] = deque()  # of a balance: the next one is begun when the last is done
        self.tries = 0  # of the first one in it
        self.next_s = 0.0  # when it is tried again
        self.patience: dict[str, Patience] = {}
        self.troubles: dict[str, str] = {}  # what could not be done, by what it is about
        self.is_live = sys.stderr.isatty()
        self.due_s = time.monotonic() + 1

    def say(self, sentence: str) -> None:
        if not self.asked.is_quiet:
            speak(f"{CLEAR if self.is_live else ''}farwrite pool: {sentence}\n")

    def watch(self) -> None:
        """Look after the pool until interrupted."""
        while True:
            busy = self.turn()
            self.tell()
            time.sleep(LOOK_S if busy else REST_S)

    def turn(self) -> bool:
        """Everything once; whether there is more to do soon. What one volume lacks keeps nothing from the others."""
        for name, group in tuple(self.groups.served.items()):
            self.attempt(name, group.look)
        self.attempt("room", lambda: self.groups.rooms.tend(self.groups.served))
        self.attempt("load", self.groups.note_loads)
        self.attempt("doors", lambda: self.front.tend(self.groups))
        self.attempt("routers", self.routers.look)
        self.attempt("moves", lambda: self.routers.moves.look(self.groups))
        busy = False
        for request, caller in self.desk.turn():
            self.desk.answer(caller, self.answer_to(request))
            busy = True
        self.note_trouble(control.SOCKET, self.desk.failure)
        for volume in tuple(self.pool.document.volumes):
            busy |= self.move_on(volume)
        for name in self.attempt("nodes", self.pool.let_go) or ():
            self.say(f"node {name} holds nothing any more, and was let go.")
        for known in (self.patience, self.troubles):
            for name in [name for name in known if name not in self.groups.served and name not in WHOLE]:
                known.pop(name)
        return bool(self.attempt("balance", self.begin_next)) or busy or bool(self.desk.callers)

    def attempt(self, what: str, work: Callable[[], Any]) -> Any:
        """Do it. Where a disk is full, or no process or descriptor can be had, that is said once, and it is tried again."""
        try:
            done = work()
        except (FarwriteError, OSError) as refusal:
            self.note_trouble(what, str(refusal))
            return None
        self.troubles.pop(what, None)
        return done

    def note_trouble(self, what: str, sentence: str) -> None:
        """Say what is wrong, once as long as it stays so."""
        if sentence and self.troubles.get(what) != sentence:
            self.say(f"{what}: {sentence}")
        self.troubles[what] = sentence

    def answer_to(self, request: Request) -> Answer:
        """What becomes of a request, whatever it is."""
        try:
            answer = carry_out(self.pool, request, self.groups, self.queue)
            if isinstance(request, Migrate | Cancel):
                self.patience.pop(request.volume, None)
        except FarwriteError as refusal:
            return Answer(refusal=str(refusal), exit_code=refusal.exit_code)
        except OSError as refusal:
            return Answer(refusal=f"{refusal.strerror or refusal}.", exit_code=EXIT_UNFIT)
        except Exception as failure:  # Our own fault: the volumes are served on.
            return Answer(refusal=f"This is our own fault: {failure!r}.", exit_code=EXIT_CRASH)
        answer.pool = self.figures()
        answer.migrations = [*self.groups.moves.values(), *self.routers.moves.figures]
        return answer

    def figures(self) -> Figures:
        """What there is now."""
        full_in_ns = self.groups.rooms.ledger.full_in_ns()
        return msgspec.structs.replace(
            figures_of(self.pool, self.groups.live()), queued=len(self.queue), iscsi_portal=self.front.portal,
            metrics_uri=self.front.metrics_uri, full_in_s=full_in_ns / 1e9 if full_in_ns is not None else None,
        )  # fmt: skip

    def move_on(self, volume: Volume) -> bool:
        """The next thing that a volume's copies need; what cannot be done is said once, and tried again later."""
        if volume.state != "ready":  # What could not be undone, or removed, when it was asked for.
            self.attempt("volumes", lambda: self.pool.finish_deleting(volume))
            return False
        patience = self.patience.setdefault(volume.name, Patience())
        if time.monotonic() < patience.until_s or volume.name not in self.groups.served:
            return False
        is_to_be_made = any(copy.state == "making" for copy in volume.copies)
        if is_to_be_made and not may_begin(volume, self.under_way(), self.groups.leads_on()):
            self.groups.note_doing(volume, "waits until a node has another copy whole")
            return False
        try:
            doing = advance(self.pool, self.groups, volume)
        except (FarwriteError, OSError) as refusal:
            sentence = str(refusal)
            patience.pause_s = min(max(2 * patience.pause_s, AGAIN_S), AGAIN_S_MAX)
            patience.until_s = time.monotonic() + patience.pause_s
            if not isinstance(refusal, NotNowError) and sentence != patience.said:
                self.say(f"{volume.name}: {sentence}")
                patience.said = sentence
            self.groups.note_doing(volume, "", "" if isinstance(refusal, NotNowError) else sentence)
            return False
        patience.pause_s = 0.0
        self.groups.note_doing(volume, doing)
        if doing and doing != patience.said:
            self.say(f"{volume.name}: {doing}.")
        patience.said = doing
        return bool(doing)

    def under_way(self) -> list[Volume]:
        """Volumes with a copy that is being brought up to date, and goes on."""
        return [
            volume for volume in self.pool.document.volumes
            if any(copy.state == "joining" for copy in volume.copies)
            and volume.name in self.patience and self.patience[volume.name].pause_s < STUCK_S
        ]  # fmt: skip

    def begin_next(self) -> bool:
        """The next move of a balance, once no copy is on its way."""
        if not self.queue or time.monotonic() < self.next_s:
            return False
        if any(copy.state != "in" for volume in self.pool.document.volumes for copy in volume.copies):
            return True
        move = self.queue[0]
        try:
            self.carry_out(move)
        except (FarwriteError, OSError) as refusal:
            self.tries += 1
            self.next_s = time.monotonic() + AGAIN_S * 2**self.tries
            if isinstance(refusal, UsageError) or self.tries >= TRIES_MAX:
                what = f"is not led at {move.to}" if move.leads else f"is not moved to {move.to}"
                self.say(f"volume {move.volume} {what}: {refusal}")
            else:
                return True
        self.tries, self.next_s = 0, 0.0
        if self.queue and self.queue[0] is move:
            self.queue.popleft()
        return True

    def carry_out(self, move: Move) -> None:
        """Begin a move of a balance."""
        if move.leads:
            volume = self.pool.document.volume(move.volume)
            if volume.copy_named(move.replica) is None:
                raise UsageError(f"it has no copy {move.replica} any more.")
            self.groups.lead_from(volume, move.replica)  # Also whenever the pool is served again.
            self.say(f"{move.volume}: {move.to} leads ({move.why}).")
            return
        self.pool.move(move.volume, move.to, move.replica)
        self.groups.moved_s[move.volume] = time.monotonic()

    def tell(self) -> None:
        """The status line: once a second on a terminal, every half minute elsewhere, never with -q."""
        now_s = time.monotonic()
        if self.asked.is_quiet or now_s < self.due_s:
            return
        self.due_s = now_s + (1.0 if self.is_live else 30.0)
        served = [volume for volume in self.pool.document.volumes if volume.name in self.groups.served]
        lines = [f"{volume.name}: {self.groups.status(volume)}" for volume in served]
        line = " | ".join([self.summary(), *lines]) if served else "no volumes"
        if self.is_live:
            speak(f"{CLEAR}{line[: shutil.get_terminal_size().columns - 1]}")
        else:
            self.say(line)

    def summary(self) -> str:
        """All volumes together."""
        loads = [load for meter in self.groups.meters.values() if (load := meter.load()) is not None]
        words = [counted(len(self.groups.served), "volume")]
        if loads:
            words += [f"{sum(load.writes for load in loads):,.0f} writes/s", f"{sum(load.reads for load in loads):,.0f} reads/s"]
            words += [f"{sum(load.all_bytes for load in loads) / 1e6:,.1f} MB/s"]
        words += [f"{counted(len(self.queue), 'move')} to come"] if self.queue else []
        return ", ".join(words)


class Front:
    """What answers for the whole pool: its metrics, and where initiators find all its volumes."""

    def __init__(self, stack: contextlib.ExitStack, asked: Asked, say: Callable[[str], None]) -> None:
        self.asked = asked
        self.metrics: Attendant | None = None
        self.directory: Attendant | None = None
        self.metrics_uri = self.portal = ""
        self.nodes = stack.enter_context(board(NODES_MAX * len(NODE_FIGURES)))
        self.due_s = 0.0
        if asked.metrics_port is not None:
            listening = stack.enter_context(bound_tcp("127.0.0.1", asked.metrics_port))
            self.metrics = stack.enter_context(attendant("metrics", listening, serve_metrics, say))
            self.metrics_uri = f"http://127.0.0.1:{listening.getsockname()[1]}/metrics"
        if asked.iscsi_port is not None:
            self.ports = stack.enter_context(board(PORTS_WORDS))
            listening = stack.enter_context(bound_tcp(asked.address, asked.iscsi_port))
            self.directory = stack.enter_context(attendant("iSCSI portal", listening, serve_directory, say))
            host, port = listening.getsockname()[:2]
            self.portal = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def tend(self, groups: Groups) -> None:
        """Have who answers know what there is now."""
        if self.directory is not None:
            Ports(self.ports.words).note({
                group.volume.door: (group.volume.number, group.iscsi.getsockname()[1])
                for group in groups.served.values() if group.iscsi is not None
            })  # fmt: skip
            self.directory.tend(None, self.ports, self.asked.chap, self.asked.is_verbose)
        if self.metrics is None:
            return
        rooms = groups.rooms.ledger.rooms()
        volumes = [
            Observed(f'volume="{name}",', {one: group.boards[one] for one in group.replicas}, group.replicas,
                     dict(group.known_by))
            for name, group in groups.served.items()
        ]  # fmt: skip
        names = [room.name for room in rooms]
        self.metrics.tend((volumes, names), pool_metrics_text, volumes, names, self.nodes)
        if time.monotonic() < self.due_s:
            return
        self.due_s = time.monotonic() + FIGURES_S
        leaders = {name: group.leader() for name, group in groups.served.items()}
        for place, room in enumerate(rooms):
            copies = groups.pool.document.copies_on(room.name)
            led = sum(leaders.get(volume.name) == copy.replica for volume, copy in copies)
            node_row(self.nodes, place)[:] = (
                room.size, room.used, room.set_aside, room.promised, max(room.free, 0), led, len(copies),
            )  # fmt: skip


def raise_limit_on_files() -> None:
    """To the hard limit: a volume takes some twenty descriptors; the usual soft limit, 1024, is for those who call select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def serve_pool(pool: Pool, asked: Asked, ready: Callable[[PoolServer], None], forgets: Sequence[str] = ()) -> int:
    """Serve until interrupted; answers the exit code. `forgets`: volumes that begin without reservations of initiators."""
    for name in forgets:
        pool.document.volume(name)  # Refused here where there is none.
    raise_limit_on_files()
    with contextlib.ExitStack() as stack:
        # Of its own kind of name: the directories of pools are none of the volumes that farwrite snapshot looks for.
        place = asked.sockets or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fw-pool-")))
        checked_text(str(place), "--sockets")
        for volume in pool.document.volumes:
            check_short(place.absolute() / volume.name)
        sockets = stack.enter_context(socket_directory(place))
        front = Front(stack, asked, lambda sentence: speak(f"farwrite pool: {sentence}\n"))
        lab: Lab = stack.enter_context(opened_lab(THREE_SITES, asked, "farwrite pool"))
        groups = Groups(stack, lab, pool, asked, sockets)
        groups.forgets = frozenset(forgets)
        try:
            groups.begin_all()
            groups.forgets = frozenset()
            groups.routers = routers = RouterProcesses(stack, lab, pool, asked, sockets)
            routers.begin_all()
            front.tend(groups)
            desk = stack.enter_context(desk_in(pool.directory))
            server = PoolServer(pool, groups, routers, desk, asked, front)
            server.queue.extend(groups.astray())
            until_s = time.monotonic() + SETTLES_S
            while server.queue and time.monotonic() < until_s:  # Who comes once we are ready is not hung up on.
                server.turn()
                time.sleep(LOOK_S)
            ready(server)
            server.watch()
        except KeyboardInterrupt:
            if not asked.is_quiet:
                speak("farwrite pool: interrupted: what was taken is answered, then every replica ends.\n")
        finally:
            with calm():
                groups.end_all()
    return EXIT_DONE
