"""What a pool is asked, by whoever has its directory: carried out here, whether it is served or at rest.

A pool that is served listens at `pool.sock` in its directory, and its own loop answers between two looks at its volumes: it forks
processes, so it has no threads. One that is at rest is changed by the command itself, under the same lock.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from ...base.errors import EXIT_CRASH, EXIT_UNFIT, EXIT_USAGE, UnfitError, UsageError
from ...base.framing import Lines, TooLongError, line
from ...engine.frontend.router_map import CHUNK_BYTES
from ..serve.control import NOT_OURS, answer_to, caller_of, raised_there
from . import striped
from .balance import plan_load
from .document import StorageNode, Stripe, checked_text
from .loads import Load
from .moves import MoveFigures
from .placement import Move, plan_balance
from .steps import AtRest, Group, Pool, ServedError, is_open, opened

SOCKET = "pool.sock"
REQUEST_BYTES_MAX, ANSWER_BYTES_MAX = 64 << 10, 16 << 20
CALLERS_MAX = 16
CALLER_S = 5.0  # For a request to be said.
TELL_S = 1.0  # For an answer to be taken: the volumes are not looked after meanwhile.
ANSWER_S = 120.0  # A volume that is made fills its journals, and elects.
OPENS_S = 120.0  # For a pool that is being opened to listen.
RETRY_S = 0.05


class Show(msgspec.Struct, tag="show", forbid_unknown_fields=True):
    """What there is; every answer says it."""


class AddNodes(msgspec.Struct, tag="add", forbid_unknown_fields=True):
    """More nodes."""

    nodes: list[StorageNode]


class RemoveNode(msgspec.Struct, tag="remove", forbid_unknown_fields=True):
    """Let a node go, its copies moved away first."""

    node: str
    keep: bool = False  # Instead: one that was to leave stays.


class Balance(msgspec.Struct, tag="balance", forbid_unknown_fields=True):
    """Even out what the nodes hold and what they do; without `go`, say only what would be moved."""

    go: bool = False
    across_sites: bool = False  # a volume may come to be led at another site
    stop: bool = False  # instead: what is not begun yet of a balance is not done


class CreateVolume(msgspec.Struct, tag="create", forbid_unknown_fields=True):
    """A new volume."""

    name: str
    size_bytes: int
    level: str
    is_reserved: bool = False
    room_bytes: int = 0
    groups: int = 0  # that it is striped over; 0: it is one group, which serves it itself
    chunk_bytes: int = CHUNK_BYTES


class DeleteVolume(msgspec.Struct, tag="delete", forbid_unknown_fields=True):
    """A volume and all its copies are gone."""

    name: str


class ResizeVolume(msgspec.Struct, tag="resize", forbid_unknown_fields=True):
    """Another size."""

    name: str
    size_bytes: int


class SetLevel(msgspec.Struct, tag="level", forbid_unknown_fields=True):
    """Another number of copies."""

    name: str
    level: str


class Migrate(msgspec.Struct, tag="migrate", forbid_unknown_fields=True):
    """Move one copy of a volume to another node."""

    volume: str
    to: str
    source: str = ""  # the node whose copy it is; empty: the pool chooses


class MigrateGroup(msgspec.Struct, tag="migrate-group", forbid_unknown_fields=True):
    """Move a group of a striped volume, all its copies, to other nodes behind its router."""

    volume: str  # the member
    to: list[str]  # a node for each copy
    by: Literal["passes", "snapshot"]
    pause_ns: int


class Cancel(msgspec.Struct, tag="cancel", forbid_unknown_fields=True):
    """Give up the copy, or the group, of a volume that is on its way."""

    volume: str


Changing = AddNodes | RemoveNode | Balance | CreateVolume | DeleteVolume | ResizeVolume | SetLevel
Request = Show | Changing | Migrate | MigrateGroup | Cancel


class NodeFigures(msgspec.Struct, frozen=True):
    """A node as it is listed."""

    name: str
    site: str
    capacity_bytes: int
    taken_bytes: int
    promised_bytes: int
    free_bytes: int
    copies: int
    is_leaving: bool


class CopyFigures(msgspec.Struct, frozen=True):
    """A copy as it is listed."""

    replica: str
    node: str
    site: str
    state: str
    allocated_bytes: int
    leads: bool = False


class VolumeFigures(msgspec.Struct, frozen=True):
    """A volume as it is listed."""

    name: str
    number: str
    size_bytes: int
    room_bytes: int
    level: str
    is_reserved: bool
    state: str
    copies: list[CopyFigures]
    leader: str = ""
    sockets: str = ""  # the directory of its sockets
    uri: str = ""
    status: str = ""
    tcp_uri: str = ""
    iscsi_uri: str = ""
    load: Load | None = None  # of late; None: not measured
    groups: int = 0  # that it is striped over; 0: it is not
    chunk_bytes: int = 0
    part_of: str = ""  # the striped volume that it is a member of


class Figures(msgspec.Struct, frozen=True):
    """A pool as it is shown."""

    name: str
    number: str
    is_served: bool
    nodes: list[NodeFigures]
    volumes: list[VolumeFigures]
    pid: int = 0  # of who serves it
    queued: int = 0  # moves of a balance that are not begun yet
    full_in_s: float | None = None  # until its first node is full, as its volumes grow of late
    iscsi_portal: str = ""  # where initiators find all its volumes
    metrics_uri: str = ""

    @property
    def capacity_bytes(self) -> int:
        return sum(node.capacity_bytes for node in self.nodes)

    @property
    def promised_bytes(self) -> int:
        return sum(node.promised_bytes for node in self.nodes)


class Answer(msgspec.Struct):
    """What came of it, and what there is now."""

    pool: Figures | None = None
    refusal: str = ""
    exit_code: int = 0
    moves: list[Move] = []
    replica: str = ""  # of a copy that was begun or given up
    migrations: list[MoveFigures] = []
    said: list[str] = []


REQUEST, ANSWER = msgspec.json.Decoder(Request), msgspec.json.Decoder(Answer)
T = TypeVar("T")


def figures_of(pool: Pool, live: dict[str, dict[str, Any]] | None = None) -> Figures:
    """What there is. `live`: by volume what who serves it knows: leader, sockets, URIs, status, load."""
    document, allocated, room = pool.document, pool.allocated(), pool.room()
    nodes = [
        NodeFigures(
            node.name, node.site, node.capacity_bytes, room[node.name].taken_bytes, room[node.name].promised_bytes,
            room[node.name].free_bytes, len(document.copies_on(node.name)), node.is_leaving,
        ) for node in document.nodes
    ]  # fmt: skip
    volumes = []
    for volume in document.volumes:
        known = (live or {}).get(volume.name, {})
        copies = [
            CopyFigures(
                copy.replica, copy.node, document.node(copy.node).site, copy.state, allocated[volume.name, copy.node],
                known.get("leader") == copy.replica,
            ) for copy in volume.copies
        ]  # fmt: skip
        volumes.append(
            VolumeFigures(
                volume.name, f"{volume.number:x}", volume.size_bytes, volume.room_bytes, volume.level, volume.is_reserved,
                volume.state, copies, **known, groups=0, chunk_bytes=0,
                part_of=volume.part_of,
            )
        )  # fmt: skip
    volumes += [stripe_figures(stripe, volumes, (live or {}).get(stripe.name, {})) for stripe in document.stripes]
    is_served = live is not None
    return Figures(document.name, f"{document.pool:x}", is_served, nodes, volumes, os.getpid() if is_served else 0)


def stripe_figures(stripe: Stripe, volumes: list[VolumeFigures], known: Mapping[str, Any]) -> VolumeFigures:
    """A striped volume as it is listed: with the copies of all its members."""
    members = [one for one in volumes if one.name in stripe.members()]
    return VolumeFigures(
        stripe.name, f"{stripe.number:x}", stripe.size_bytes, sum(one.room_bytes for one in members), stripe.level,
        any(one.is_reserved for one in members), stripe.state, [copy for one in members for copy in one.copies], **known,
        groups=stripe.groups, chunk_bytes=stripe.chunk_bytes,
    )  # fmt: skip


def carry_out_striped(pool: Pool, request: Request, group: Group | AtRest, answer: Answer) -> bool:
    """Do what is asked of a striped volume; False where it is about none. UsageError for what a member alone is asked."""
    routers: striped.Routers | None = getattr(group, "routers", None)  # None: nothing is served.
    if isinstance(request, CreateVolume):
        if request.groups:
            striped.create_striped(
                pool, request.name, request.size_bytes, request.level, request.is_reserved, request.room_bytes, request.groups,
                request.chunk_bytes, group, routers,
            )  # fmt: skip
        return bool(request.groups)
    moves = routers.moves if routers is not None else None
    if isinstance(request, MigrateGroup):
        answer.replica = served(moves).begin(request.volume, request.to, request.by, request.pause_ns, group)
        return True
    if isinstance(request, Cancel) and moves is not None:
        answer.replica = moves.cancel(request.volume.partition(".")[0])
        return bool(answer.replica)
    if isinstance(request, Migrate) and pool.document.stripe(request.volume):
        raise UsageError(f"Volume {request.volume} is striped: migrate one of its members, as {request.volume}.0.")
    if not isinstance(request, DeleteVolume | ResizeVolume | SetLevel):
        return False
    stripe = pool.document.stripe(request.name)
    if stripe is None:
        striped.refuse_member(request.name, {DeleteVolume: "delete", ResizeVolume: "resize"}.get(type(request), "change"))
        return False
    if moves is not None and stripe.name in moves.under_way and not isinstance(request, DeleteVolume):
        raise UsageError(f"A group of volume {stripe.name} moves: wait (farwrite pool show), or cancel that (farwrite migrate).")
    if isinstance(request, DeleteVolume):
        striped.delete_striped(pool, stripe, group, routers)
    elif isinstance(request, ResizeVolume):
        striped.resize_striped(pool, stripe, request.size_bytes, group, routers)
    else:
        striped.set_level_striped(pool, stripe, request.level)
    return True


def carry_out(pool: Pool, request: Request, group: Group | AtRest, queue: deque[Move] | None = None) -> Answer:
    """Do what is asked; `queue` takes the moves of a balance, None where nothing can move. FarwriteError refuses."""
    answer = Answer()
    if carry_out_striped(pool, request, group, answer):
        return answer
    if isinstance(request, AddNodes):
        for node in request.nodes:
            checked_text(node.directory, f"Node {node.name}: its directory")
        pool.add_nodes(request.nodes)
    elif isinstance(request, RemoveNode):
        if request.keep:
            pool.keep_node(request.node)
        else:
            answer.moves = pool.remove_node(request.node)
    elif isinstance(request, Balance):
        if request.stop:
            answer.moves = list(served(queue))
            served(queue).clear()
            return answer
        coming = served(queue) if request.go else deque()
        answer.moves, answer.said = planned(pool, group, request.across_sites)
        coming.clear()  # It was planned again.
        coming.extend(answer.moves)
    elif isinstance(request, CreateVolume):
        pool.create_volume(request.name, request.size_bytes, request.level, request.is_reserved, request.room_bytes, group)
    elif isinstance(request, DeleteVolume):
        pool.delete_volume(request.name, group)
    elif isinstance(request, ResizeVolume):
        pool.resize_volume(request.name, request.size_bytes, group)
    elif isinstance(request, SetLevel):
        pool.set_level(request.name, request.level)
    elif isinstance(request, Migrate):
        served(queue)
        source = pool.document.volume(request.volume).copy_on(pool.document.node(request.source).name) if request.source else None
        if request.source and source is None:
            raise UsageError(f"Volume {request.volume} has no copy on node {request.source}: farwrite pool show lists them.")
        answer.replica = pool.move(request.volume, request.to, source.replica if source else "").replica
    elif isinstance(request, Cancel):
        answer.replica = pool.cancel(request.volume).replica
    return answer


def planned(pool: Pool, group: Group | AtRest, across_sites: bool) -> tuple[list[Move], list[str]]:
    """The moves of a balance, of room first and then of load, and what there is to say of the load."""
    allocated = pool.allocated()
    moves = plan_balance(pool.document, allocated)
    if isinstance(group, AtRest):
        return moves, ["The pool is at rest, so nothing is known of its load: only room is evened out."]
    measured = group.measured()
    found = plan_load(pool.document, measured, allocated, moves, across_sites)
    return moves + found.moves, found.said


def served(what: T | None) -> T:
    """What only a pool that is served has. UsageError where it is not: nothing can move then."""
    if what is None:
        raise UsageError("Copies move while the pool is served: start farwrite pool serve, and ask again.")
    return what


# Asking


def ask(directory: Path, request: Request) -> Answer:
    """What becomes of a request: the process that serves the pool answers, or it is done here, where nobody serves it."""
    check_request(request)
    until_s = time.monotonic() + OPENS_S
    while True:
        if not is_open(directory):
            try:
                with opened(directory) as pool:
                    answer = carry_out(pool, request, AtRest())
                    answer.pool = figures_of(pool)
                    return answer
            except ServedError:
                pass  # Somebody was faster.
        try:
            return ask_server(directory, request)
        except ConnectionError:
            if time.monotonic() > until_s:
                raise UnfitError(f"The pool in {directory} is open in another process, which does not answer.") from None
        time.sleep(RETRY_S)


def check_request(request: Request) -> None:
    """UsageError for words that are no text."""
    try:
        msgspec.json.encode(request)
    except UnicodeEncodeError as refusal:
        raise UsageError(f"{refusal.object!r} has bytes that are no UTF-8, and so has nothing in a pool.") from refusal


def ask_server(directory: Path, request: Request) -> Answer:
    """What the process that serves the pool answers. Its refusal is raised; ConnectionError where nobody listens."""
    with socket.socket(socket.AF_UNIX) as connection, directory_fd(directory) as descriptor:
        connection.settimeout(CALLER_S)
        try:
            connection.connect(f"/proc/self/fd/{descriptor}/{SOCKET}")
        except FileNotFoundError as missing:
            raise ConnectionRefusedError from missing
        except (BlockingIOError, TimeoutError) as busy:  # More callers than are waited with, unix(7).
            raise ConnectionRefusedError from busy
        try:
            answer = answer_to(connection, request, ANSWER, ANSWER_BYTES_MAX, ANSWER_S)
        except UnfitError as refusal:
            raise UnfitError(
                f"The pool in {directory} did not answer ({refusal}), so it is not known whether it did what was asked: "
                f"farwrite pool show {directory} says what there is."
            ) from refusal
    if answer.refusal:
        raise raised_there(answer.refusal, answer.exit_code)
    return answer


@contextmanager
def directory_fd(directory: Path) -> Iterator[int]:
    """A descriptor of the directory: by way of it a socket's path is short, however long the directory's is. unix(7)."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# Answering


class Caller:
    """Who has called and not said all of its request."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.lines, self.until_s = connection, Lines(REQUEST_BYTES_MAX), time.monotonic() + CALLER_S


class Desk:
    """Where requests come in: looked at by `turn`, between other things. It waits for nobody."""

    def __init__(self, listening: socket.socket) -> None:
        self.listening = listening
        self.callers: list[Caller] = []
        self.failure = ""  # why nobody can be taken in now

    def turn(self) -> Iterator[tuple[Request, Caller]]:
        """Requests that have come in whole. Who is slow, or says what is none, is answered and hung up on."""
        self.take_in()
        for caller in tuple(self.callers):
            try:
                message = self.heard(caller)
                if message is None:
                    continue
                request = REQUEST.decode(message)
            except TooLongError as refusal:
                self.answer(caller, Answer(refusal=str(refusal), exit_code=EXIT_USAGE))
            except (OSError, UnfitError) as refusal:
                self.answer(caller, Answer(refusal=f"{refusal}", exit_code=EXIT_UNFIT))
            except NOT_OURS as refusal:
                self.answer(caller, Answer(refusal=f"This is no request to a pool: {refusal}.", exit_code=EXIT_USAGE))
            else:
                yield request, caller

    def take_in(self) -> None:
        """Whoever has called: of this user, and of too many the first is hung up on."""
        while True:
            try:
                connection, _ = self.listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                self.failure = ""
                return
            except OSError as refusal:  # No descriptor is left, accept(2): who has called waits.
                self.failure = f"{refusal.strerror}, so who calls here waits."
                return
            connection.setblocking(False)
            if caller_of(connection) not in (os.geteuid(), 0):
                connection.close()
                continue
            self.callers.append(Caller(connection))
            if len(self.callers) > CALLERS_MAX:
                self.hang_up(self.callers[0])

    def heard(self, caller: Caller) -> bytes | None:
        """A request, once it is whole."""
        while True:
            if (message := caller.lines.take()) is not None:
                return message
            try:
                piece = caller.connection.recv(1 << 16)
            except BlockingIOError:
                if time.monotonic() > caller.until_s:
                    raise UnfitError(f"Nothing whole was said within {CALLER_S:g} s.") from None
                return None
            if not piece:
                raise UnfitError("The other end hung up before its line was whole.")
            caller.lines.put(piece)

    def answer(self, caller: Caller, answer: Answer) -> None:
        """Say it, and hang up."""
        try:
            data = msgspec.json.encode(answer)
        except UnicodeEncodeError:
            data = msgspec.json.encode(Answer(refusal="The answer has bytes that are no UTF-8.", exit_code=EXIT_CRASH))
        with contextlib.suppress(OSError):
            caller.connection.settimeout(TELL_S)
            caller.connection.sendall(line(data))
        self.hang_up(caller)

    def hang_up(self, caller: Caller) -> None:
        caller.connection.close()
        self.callers.remove(caller)


@contextmanager
def desk_in(directory: Path) -> Iterator[Desk]:
    """`pool.sock` in a directory, inside this block; whoever holds the pool's lock may make it."""
    with socket.socket(socket.AF_UNIX) as listening, directory_fd(directory) as descriptor:
        path = directory / SOCKET
        path.unlink(missing_ok=True)
        listening.bind(f"/proc/self/fd/{descriptor}/{SOCKET}")
        path.chmod(0o600)
        listening.listen(CALLERS_MAX)
        listening.setblocking(False)
        desk = Desk(listening)
        try:
            yield desk
        finally:
            for caller in tuple(desk.callers):
                desk.hang_up(caller)
            path.unlink(missing_ok=True)
