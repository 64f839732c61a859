"""A served volume: a lab of sites, a replica and its doors at each, and whoever dies started again.

The command's process holds the lab, watches, and touches no client's byte. It ends with Ctrl-C, SIGTERM, SIGHUP or its
command: then
the primary takes no more, answers what it has taken, and every replica applies what it holds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from ...base.errors import EXIT_DONE, FarwriteError, UnfitError, UsageError, system_error
from ...base.interruption import SIGNALS
from ...base.physics import Distance
from ...base.wire.congestion import state_congestion
from ...base.wire.terms import EncryptionName
from ...engine.control import Address
from ...engine.frontend.iscsi.chap import Credentials
from ...engine.frontend.iscsi.portal import PORT as ISCSI_PORT
from ...engine.room import WARN_RATIO, RoomLevel
from ...lab.foreign_processes import allow_ping
from ...lab.lab import Lab, LabSpec, open_lab
from ...lab.process import Process, process
from ...lab.session import Session, proof
from ...lab.shared_memory import board
from ...lab.topology import Layout, Leg
from ...targets.replicated import PROTOCOLS
from ...workload.drill_scenario import SITES
from ...workload.link_spec import PLAIN
from ..voters import POLICIES, Voters, run_witness, why_ended
from .control import CONTROL, FOLLOWS
from .figures import LastSecond, Observed, metrics_text, serve_metrics
from .replica import (
    BOARD_WORDS,
    DRAIN_S,
    READ_ONLY,
    SOCKET_PATH_BYTES_MAX,
    VOLUME,
    Order,
    figures_of,
    longest_path,
    run_replica,
    target_name,
)
from .volume_files import LOCK_S, Files, Settings, lock_within

OPENS_S = 60.0  # For the voters to start and elect: the replay of a whole journal and a few elections.
STOPS_S = 30.0  # For a replica to apply what it holds.
RESTART_S, RESTART_S_MAX = 1.0, 30.0  # Doubled each time that a voter has not lasted LASTED_S.
LASTED_S = 60.0
LOOK_S = 0.1
FILE_BYTES = 4096  # Of the lab's own files, which nobody uses.
PEERS_S = 10.0  # A peer that is far behind is no reason not to begin.


@dataclass(frozen=True)
class Asked:
    """What the command line asks of serving, besides what the volume is."""

    leg: Leg  # between near and far
    link: str
    accepts_error: bool = False
    sockets: Path | None = None
    address: str = "127.0.0.1"
    port: int | None = None
    tls: Path | None = None
    iscsi_port: int | None = None
    chap: Credentials | None = None
    forgets_reservations: bool = False  # of initiators, that the volume keeps
    room_bytes: int = 0  # that the volume may take at each replica; 0: as many as there are
    latency_budget_ns: int = 0  # while writes take longer, a replica that is brought up to date is slowed down; 0: never
    metrics_port: int | None = None
    restarts: bool = True
    is_verbose: bool = False
    is_quiet: bool = False
    as_root: bool = False
    commands: Mapping[str, list[str]] = field(default_factory=dict)  # at other sites, beside that at the near one
    wait_port: int | None = None  # which these listen on before that begins
    far_address: str = ""  # of another machine's TCP ports while far leads; empty: none
    far_tls: str = ""  # directory of its certificates there


@dataclass
class Failure:
    """A voter that has ended and is to come back."""

    until_s: float
    pause_s: float


class Server(Voters):
    """The voters of a served volume."""

    encryption: EncryptionName = "none"  # between voters: in a lab nobody else is on the link
    portals: dict[str, int]

    def __init__(
        self, stack: contextlib.ExitStack, lab: Lab, settings: Settings, files: Files, asked: Asked, sockets: Path,
        tcp: socket.socket | None = None, iscsi: socket.socket | None = None,
    ) -> None:  # fmt: skip
        super().__init__(stack, lab, settings.replicas, settings.has_witness, BOARD_WORDS, files.disks, files.ballots)
        self.take_doors(settings, asked, sockets, tcp, iscsi)
        self.portals = portals_of(self.addresses, lab, asked)

    def take_doors(
        self, settings: Settings, asked: Asked, sockets: Path, tcp: socket.socket | None, iscsi: socket.socket | None
    ) -> None:
        """What is served, and where clients come in."""
        self.settings, self.asked, self.directory, self.tcp, self.iscsi = settings, asked, sockets, tcp, iscsi
        with socket.socket() as trial:
            self.congestion = state_congestion(trial)
        self.failures: dict[str, Failure] = {}
        self.started_s: dict[str, float] = {}
        self.last_leader: str | None = None
        self.room_level = RoomLevel()
        self.on_start: Callable[[int], None] = lambda pid: None
        self.stacks: dict[str, contextlib.ExitStack] = {}
        self.stack.callback(self.close_stacks)
        self.metrics_uri = ""

    def begin(self, made: Process, name: str, first: bool) -> None:
        settings, asked = self.settings, self.asked
        addresses, witness = self.seen_from(name)
        self.started_s[name] = time.monotonic()
        self.on_start(made.pid)
        if name not in self.disks:
            assert witness is not None
            made.start(
                run_witness, witness, addresses, self.key, asked.is_verbose, self.ballots[name], self.boards[name],
                self.encryption,
            )  # fmt: skip
            return
        order = Order(
            name, addresses, witness, self.key, settings.volume, PROTOCOLS[settings.protocol],
            POLICIES[settings.policy], settings.quorum, settings.peer_timeout_ns, first, asked.is_verbose, self.directory,
            self.tcp.fileno() if self.tcp else None, asked.tls, settings.size_bytes,
            self.iscsi.fileno() if self.iscsi else None, asked.chap, self.portals, self.encryption,
            latency_budget_ns=asked.latency_budget_ns,
        )  # fmt: skip
        made.start(run_replica, order, self.disks[name], self.ballots[name], self.boards[name])

    def process_at(self, name: str, site: str) -> Process:
        """As any voter's, but what it holds is given back when it ends: it may be started again many times."""
        place = self.sites[site].place  # type: ignore[attr-defined]
        own = self.stacks[name] = contextlib.ExitStack()
        return own.enter_context(process(name, place))

    def close_stacks(self) -> None:
        """Every process is gone, with what it held."""
        while self.stacks:
            self.stacks.popitem()[1].close()

    def open(self) -> None:
        """Start every voter; return once one leads and its doors are open, and, within a while, all its peers keep up."""
        for name in self.replicas:
            figures_of(self.boards[name]).task.forgets = int(self.asked.forgets_reservations)
            room = figures_of(self.boards[name]).room[0]
            room["limit"], room["warn"] = self.asked.room_bytes, int(self.asked.room_bytes * WARN_RATIO)
        for name in reversed(self.voters):
            self.start(name, first=name == SITES[0])
            self.until(lambda name=name: self.seats[name].ready, f"the start of {name}", OPENS_S)  # type: ignore[misc]
        self.until(self.is_open, "the opening of the doors", OPENS_S)
        for name in self.replicas:  # Those that are made from now on are to be kept.
            figures_of(self.boards[name]).task.forgets = 0
        self.tell_sites()
        self.note_leader()
        if not self.comes(self.have_joined, PEERS_S):
            self.say("not every replica keeps up with the primary yet: the status line says how far they are.")

    def is_open(self) -> bool:
        """Whether a client is served now."""
        leader = self.leader()
        return leader is not None and bool(figures_of(self.boards[leader]).task.is_open)

    def tell_sites(self) -> None:
        """Have every site know where the volume is served: their portals send initiators there."""
        leader = self.leader() if self.is_open() else None
        for name in self.replicas:
            figures_of(self.boards[name]).task.leader = 1 + sorted(self.replicas).index(leader) if leader else 0

    # While it is served

    def look(self) -> None:
        """Notice who has ended, start again whose time it is, and say who leads."""
        for name in tuple(self.processes):
            made = self.processes[name]
            if made.ended or made.poll(0):
                self.note_end(name, made)
        now_s = time.monotonic()
        for name, failure in tuple(self.failures.items()):
            if self.asked.restarts and now_s >= failure.until_s and name not in self.processes:
                self.start_again(name, failure)
        self.tell_sites()
        leader = self.leader()
        if leader is not None and (news := self.room_level.news(figures_of(self.boards[leader]).room[0])):
            self.say(news)
        if self.is_open() and leader != self.last_leader:
            assert leader is not None
            self.say(f"{leader} leads and its doors are open: {self.uri(leader)}")
            self.note_leader()

    def start_again(self, name: str, failure: Failure) -> None:
        """A voter whose time has come. Where no process or no descriptor can be had now it is tried again later."""
        try:
            self.start(name)
        except (FarwriteError, OSError) as refusal:
            self.kill(name)
            if name in self.stacks:
                self.stacks.pop(name).close()
            failure.pause_s = min(2 * failure.pause_s, RESTART_S_MAX)
            failure.until_s = time.monotonic() + failure.pause_s
            self.say(f"{name} cannot be started ({refusal}). It is tried again in {failure.pause_s:g} s.".replace(".)", ")"))
        else:
            self.say(f"{name} is started again.")

    def note_leader(self) -> None:
        """Remember who leads, and say what it cannot offer."""
        self.last_leader = self.leader()
        if self.last_leader is not None and figures_of(self.boards[self.last_leader]).task.no_iscsi:
            self.say(
                "the reservations that initiators have made, which the volume keeps, are damaged, so who may write is not known: "
                "the disk is not offered over iSCSI; over NBD it is. Go back to a copy of the volume's files; or, if no "
                "cluster's initiator is at work, have them forgotten with --forget-reservations, and register anew."
            )

    def note_end(self, name: str, made: Process) -> None:
        """A voter's process has ended, or its task has."""
        why = why_ended(made) or ": its task returned"
        led = self.leader() == name
        self.kill(name)
        self.stacks.pop(name).close()
        self.boards[name].counters[0].led_epoch = 0
        if name in self.disks:
            figures_of(self.boards[name]).task.is_open = 0
        self.seats[name].ready = self.seats[name].joined = 0
        for bound in (self.tcp, self.iscsi):
            if led and bound is not None:  # It would go on listening: we hold it too.
                with contextlib.suppress(OSError):
                    bound.shutdown(socket.SHUT_RDWR)
        lasted_s = time.monotonic() - self.started_s[name]
        before_s = self.failures[name].pause_s if name in self.failures and lasted_s < LASTED_S else RESTART_S / 2
        pause_s = min(2 * before_s, RESTART_S_MAX)
        self.failures[name] = Failure(time.monotonic() + pause_s, pause_s)
        then = f"It is started again in {pause_s:g} s" if self.asked.restarts else "It stays down (--no-restart)"
        self.say(f"{name} has ended{why}. {then}.".replace("..", "."))
        if led:
            self.last_leader = None

    def downs(self) -> list[str]:
        """Voters that do not run."""
        return [name for name in self.voters if name not in self.processes]

    def end(self) -> None:
        """Take no more, answer what was taken, have every replica apply what it holds, and end them."""
        end_together([self])

    def drain(self, leader: str) -> None:
        """Take no more, and answer what was taken."""
        figures_of(self.boards[leader]).task.drain = 1
        self.await_drain(leader)

    def await_drain(self, leader: str) -> None:
        """Until what was taken is answered."""
        task = figures_of(self.boards[leader]).task
        limit_s = time.monotonic() + DRAIN_S + 1
        while not task.drained and time.monotonic() < limit_s and not self.processes[leader].poll(0.01):
            pass
        if task.drained != 1:
            self.say(NOT_ALL_ANSWERED)

    def stop(self, leader: str | None = None) -> None:
        """Have every voter here apply what it holds and end, who led first."""
        self.ask_to_stop()
        self.await_stop(leader)

    def ask_to_stop(self) -> None:
        for name in self.processes:
            self.boards[name].counters[0].stop = 1

    def await_stop(self, leader: str | None) -> None:
        for name in sorted(self.processes, key=lambda name: name != leader):
            made = self.processes[name]
            if not made.busy:  # Interrupted before it had its task.
                continue
            try:
                made.answer(STOPS_S)
            except (UnfitError, RuntimeError) as failure:
                self.say(f"{name} did not end in order: {failure}")

    # For people and scripts

    def link_kind(self) -> str:
        """What carries the distance."""
        return self.lab.choice.kind

    def link_text(self) -> str:
        """How far the second copy is, and by what."""
        return f"{self.asked.leg.text} by {self.link_kind()}"

    def ready_lines(self) -> list[str]:
        """What a person needs to know besides the addresses."""
        return []

    def say(self, sentence: str) -> None:
        """An event, as a line of its own; a status line that stands there is written over."""
        if not self.asked.is_quiet:
            speak(f"{CLEAR if sys.stderr.isatty() else ''}farwrite serve: {sentence}\n")

    def uri(self, name: str = "", export: str = "") -> str:
        """The URI of a replica's door; without a name, of whoever leads. NetworkBlockDevice/nbd, doc/uri.md."""
        from urllib.parse import quote

        path = self.directory / (f"{name}.sock" if name else FOLLOWS)
        return f"nbd+unix:///{export}?socket={quote(os.fsencode(path))}"

    def tcp_uri(self) -> str:
        """The URI of the TCP port; empty without one."""
        if self.tcp is None:
            return ""
        host, port = self.tcp.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        return f"{'nbds' if self.asked.tls else 'nbd'}://{host}:{port}"

    def iscsi_uri(self, name: str = "") -> str:
        """The disk's URI, as libiscsi and QEMU read it: at a site, for whoever is in the lab, or at the port outside of it."""
        if name:
            host, port = self.addresses[name].host, self.portals.get(name, 0)
            if not port:
                return ""
        elif self.iscsi is not None:
            host, port = self.iscsi.getsockname()[:2]
        else:
            return ""
        host = f"[{host}]" if ":" in host else host
        return f"iscsi://{host}:{port}/{target_name(self.settings.volume)}/0"

    def document(self) -> dict[str, Any]:
        """What a script needs to know once the doors are open."""
        return {
            "ready": True, "pid": os.getpid(), "leader": self.leader(), "uri": self.uri(),
            "read_only_uri": self.uri("", READ_ONLY), "uris": {name: self.uri(name) for name in self.replicas},
            "tcp_uri": self.tcp_uri() or None, "iscsi_uri": self.iscsi_uri() or None, "metrics_uri": self.metrics_uri or None,
            "iscsi_uris": {name: self.iscsi_uri(name) for name in self.portals}, "link": self.link_kind(),
            "congestion": self.congestion,
            "sockets": str(self.directory), "control": str(self.directory / CONTROL), "exports": [VOLUME, READ_ONLY],
            "size_bytes": self.settings.size_bytes, "room_bytes": self.asked.room_bytes or None,
            "volume": f"{self.settings.volume:x}", "protocol": self.settings.protocol, "policy": self.settings.policy,
            "pids": {name: made.pid for name, made in self.processes.items()},
        }  # fmt: skip


def end_together(servers: Sequence[Server]) -> None:
    """The same of several volumes at once: a service manager does not wait for one after the other."""
    leaders = [server.leader() for server in servers]
    for server, leader in zip(servers, leaders, strict=True):
        if leader is not None:
            figures_of(server.boards[leader]).task.drain = 1
    for server, leader in zip(servers, leaders, strict=True):
        if leader is not None:
            server.await_drain(leader)
        server.ask_to_stop()
    for server, leader in zip(servers, leaders, strict=True):
        server.await_stop(leader)


CLEAR = "\r\x1b[K"
NOT_ALL_ANSWERED = "not every write under way could be answered in time: its clients do not know if those are there."

RELAYED = (
    "the sites are joined by the relay ({reason}). What replicas say to each other takes the distance; loss, reordering and what "
    "TCP does over a distance are not emulated, and clients, commands and sites share this machine's network (docs/relay.md)."
)


def portals_of(addresses: Mapping[str, Address], lab: Lab, asked: Asked) -> dict[str, int]:
    """The port of the iSCSI portal at each replica's site. Over the relay every user of this machine reaches them: there they are
    only where iSCSI was asked for, at ports that are free."""
    if lab.choice.kind != "relay":
        return dict.fromkeys(addresses, ISCSI_PORT)
    if asked.iscsi_port is None:
        return {}
    return {name: free_port(socket.AF_INET, address.host) for name, address in addresses.items()}


def served(
    settings: Settings, files: Files, asked: Asked, ready: Callable[[Server], None], command: Sequence[str] = ()
) -> int:
    """Serve until interrupted, or until the command at the near site has ended; answers the exit code."""
    with contextlib.ExitStack() as stack:
        sockets = stack.enter_context(socket_directory(asked.sockets))
        tcp = stack.enter_context(bound_tcp(asked.address, asked.port)) if asked.port is not None else None
        iscsi = stack.enter_context(bound_tcp(asked.address, asked.iscsi_port)) if asked.iscsi_port is not None else None
        metrics = stack.enter_context(bound_tcp("127.0.0.1", asked.metrics_port)) if asked.metrics_port is not None else None
        lab = stack.enter_context(opened_lab(settings, asked))
        server = Server(stack, lab, settings, files, asked, sockets, tcp, iscsi)
        return attended(server, metrics, ready, lambda: run_command(server, lab, asked, list(command)) if command else None)


def attended(
    server: Server, metrics: socket.socket | None, ready: Callable[[Server], None], work: Callable[[], int | None]
) -> int:
    """Open it, and look after it until interrupted or until this work has ended with a code; then end it in order."""
    try:
        server.open()
        if metrics is not None:
            metrics.listen()
            server.metrics_uri = f"http://127.0.0.1:{metrics.getsockname()[1]}/metrics"
            ends = server.stack.enter_context(board(1))
            made = server.stack.enter_context(process("metrics"))
            boards = {name: server.boards[name] for name in server.replicas}
            made.start(serve_metrics, metrics.fileno(), ends, metrics_text, [Observed("", boards, server.replicas)])
        ready(server)
        if (code := work()) is not None:
            return code
        watch(server)
    except KeyboardInterrupt:
        server.say("interrupted: what was taken is answered, then every replica ends.")
    finally:
        with calm():
            server.end()
    return EXIT_DONE


def watch(server: Server) -> None:
    """Look after it, and say how it stands, until interrupted."""
    status = Status(server)
    while True:
        server.look()
        status.tell()
        time.sleep(LOOK_S)


class Status:
    """The status line: once a second on a terminal, every half minute elsewhere, never with -q."""

    def __init__(self, server: Server) -> None:
        self.server, self.last, self.due_s = server, LastSecond(), time.monotonic() + 1
        self.is_live = sys.stderr.isatty()
        self.every_s = 1.0 if self.is_live else 30.0

    def tell(self) -> None:
        server, now_s = self.server, time.monotonic()
        if server.asked.is_quiet or now_s < self.due_s:
            return
        self.due_s = now_s + self.every_s
        line = self.last.line(server.boards, server.replicas, server.downs())
        if self.is_live:
            speak(f"{CLEAR}{line[: shutil.get_terminal_size().columns - 1]}")
        else:
            server.say(line)


def speak(text: str) -> None:
    """Text on stderr. Whoever read it may be gone, or its disk full: clients are served all the same."""
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def run_command(server: Server, lab: Lab, asked: Asked, words: list[str]) -> int:
    """Somebody's command at the near site, with $NBD and $ISCSI set, the volume looked after meanwhile; answers its exit code."""
    session = Session(lab, Layout(tuple(server.sites), (), asked.commands), asked.as_root)
    session.environment |= {"NBD": server.uri(), "NBD_READ_ONLY": server.uri("", READ_ONLY)}
    session.environment |= {"FARWRITE_SOCKETS": str(server.directory)}
    session.environment |= {f"NBD_{name.upper()}": server.uri(name) for name in server.replicas}
    session.environment |= {"ISCSI": server.iscsi_uri(SITES[0])} if server.portals else {}
    session.environment |= {f"ISCSI_{name.upper()}": server.iscsi_uri(name) for name in server.portals}
    server.on_start = session.residents.add
    if lab.choice.kind != "relay":  # It is the whole machine's network.
        for site in lab.placed:
            site.call(allow_ping)
    status = Status(server)

    def look() -> None:
        server.look()
        status.tell()

    return session.run(words, asked.wait_port, look)


# What it needs


@contextmanager
def socket_directory(asked: Path | None) -> Iterator[Path]:
    """Where the unix sockets are: a directory for nobody else, its own and gone afterwards unless one was asked for."""
    if asked is None:
        with tempfile.TemporaryDirectory(prefix="farwrite-", ignore_cleanup_errors=True) as made, only_server(Path(made)):
            yield short(Path(made))
        return
    try:
        asked.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = asked.stat()
    except OSError as refusal:
        raise system_error(f"make {asked}", refusal.errno or 0, "Name another directory with --sockets.") from refusal
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise UsageError(
            f"--sockets {asked}: others may enter it, and who reaches a socket reads and writes the volume: chmod 700 {asked}."
        )
    with only_server(asked):
        try:
            yield short(asked)
        finally:
            for name in (*SITES, *(f"{site}-control" for site in SITES), Path(FOLLOWS).stem, Path(CONTROL).stem):
                (asked / f"{name}.sock").unlink(missing_ok=True)


@contextmanager
def only_server(directory: Path) -> Iterator[None]:
    """Nobody else has sockets of these names in the directory: they would take the place of ours, and ours of theirs."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not lock_within(descriptor, LOCK_S):
            raise UnfitError(
                f"--sockets {directory}: another farwrite serve has its sockets there: end that first, or name another directory."
            )
        yield
    finally:
        os.close(descriptor)


def short(directory: Path) -> Path:
    """The directory. UsageError where a socket in it would have too long a name."""
    if longest_path(directory) > SOCKET_PATH_BYTES_MAX:
        raise UsageError(
            f"{directory}: the path of a unix socket has at most {SOCKET_PATH_BYTES_MAX} bytes, and one in there would have "
            "more: name a shorter directory with --sockets."
        )
    return directory.absolute()


@contextmanager
def bound_tcp(address: str, port: int) -> Iterator[socket.socket]:
    """A TCP socket in our own network that has its address and does not listen yet. UnfitError where it cannot be had."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as made:
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address, port or free_port(family, address)))
        except OSError as refusal:
            advice = "Another process may have it: name another port, or 0 for any."
            raise system_error(f"take {address} port {port}", refusal.errno or 0, advice) from refusal
        yield made


def free_port(family: int, address: str) -> int:
    """A port that nobody has now. To be bound by its number: one that the system chose for a socket is given back as soon as that
    socket listens no more, and the next replica would listen on another (Linux, inet_csk_listen_stop)."""
    with socket.socket(family) as free:
        free.bind((address, 0))
        return int(free.getsockname()[1])


@contextmanager
def opened_lab(settings: Settings, asked: Asked, speaker: str = "farwrite serve") -> Iterator[Lab]:
    """The sites, and the proven links between them. UnfitError where there are none."""
    count = 3 if settings.replicas == 3 or settings.has_witness else 2
    names = SITES[:count]
    legs = [leg_between(pair, asked.leg) for pair in combinations(names, 2)]
    spec = LabSpec(
        link=asked.link, near=None, far=None, journal_bytes=FILE_BYTES, volume_bytes=FILE_BYTES, congestion="cubic",
        others=count - 2, mesh=True, names=names, polls=False, keep_awake="none",
        link_specs=tuple((names.index(leg.near), names.index(leg.far), leg.spec) for leg in legs),
    )  # fmt: skip
    with open_lab(spec) as lab:
        if lab.choice.kind == "relay":
            if asked.commands or asked.wait_port is not None:
                raise UnfitError(
                    "Commands of other sites need networks of their own, and there are none here "
                    f"({lab.choice.reason}): they would meet without any distance. Run as root, or where user namespaces are "
                    "allowed; or leave --far and --wait-port away: the volume itself can be replicated here."
                )
            if not asked.is_quiet:
                speak(f"{speaker}: {RELAYED.format(reason=lab.choice.reason)}\n")
        for span, leg in zip([*lab.spans, *lab.between], legs, strict=True):
            sentence = proof(span, leg, asked.accepts_error)
            if not asked.is_quiet:
                speak(f"{speaker}: {sentence}\n")
        yield lab


def leg_between(pair: tuple[str, str], asked: Leg) -> Leg:
    """Near and far are as asked; the third site is half-way between them, on links that do nothing else."""
    if SITES[2] not in pair:
        return Leg(*pair, asked.asked, asked.spec)
    return Leg(*pair, Distance(asked.asked.miles / 2, asked.asked.rtt_ns // 2), PLAIN)


@contextmanager
def calm() -> Iterator[None]:
    """A second Ctrl-C does not end what is being ended in order."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
