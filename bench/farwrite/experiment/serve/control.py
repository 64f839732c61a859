"""What a served volume is asked besides reads and writes: snapshots, digests, who copies to it, its replicas: `control.sock`.

A request is one line of JSON and its answer another, then whoever answered hangs up. Who answers is the replica that leads: its
socket is made and moved with its doors, as `volume.sock` is, so a command reaches who can carry it out without another process
between. Only this user (or root) is listened to, SO_PEERCRED says who calls; a line is bounded in length and in time, and what is
malformed is answered with its refusal. Strangers are kept from each other by the door of all ports (base/wire/door.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import stat
import struct
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from ...base.errors import EXIT_CRASH, EXIT_UNFIT, EXIT_USAGE, FarwriteError, UnfitError, UsageError, error_of
from ...base.framing import Lines, TooLongError, line
from ...base.wire.door import Door, SparseLog, opened
from ...engine.control import Address
from ...engine.frontend import nbd
from ...engine.frontend.nbd_client import ConnectionLostError, NbdClient, Place
from ...engine.peer_status import ReplicaStatus
from ...engine.snapshot import Snapshot, checked_name
from ..copy.ranges import pieces, ranges_of
from .volume_files import is_locked

FOLLOWS, CONTROL = "volume.sock", "control.sock"  # Of whoever leads: links that move.
REQUEST_BYTES_MAX, ANSWER_BYTES_MAX = 4096, 1 << 20
LISTEN_S = 5.0  # For a request to be said.
ANSWER_S = 60.0  # For it to be carried out: a snapshot is a write, which waits for a failover at most.
PAUSED_S = 3.0  # For clients to be kept waiting: initiators ping, and give a session up after 5 s (open-iscsi) without answer.
HOLD_S = 2.0  # For a copier that has ended to be noticed: the next one is it itself, often.
FAILOVER_S, RETRY_S = 10.0, 0.1  # While nobody leads a volume that is served, a command waits for who will.
DIGEST_BYTES_MAX, DIGEST_PIECE = 256 << 20, 1 << 20  # Of one request; pieces of zeros are left out, wherever they are holes.
READS_MAX = 8

LOG = logging.getLogger(__name__)


class SnapshotFigures(msgspec.Struct, frozen=True):
    """A snapshot as it is listed."""

    name: str
    sequence: int  # of the last write in it
    taken_ns: int  # since 1970, by the clock of who led
    is_whole: bool  # who leads can serve it
    kept_bytes: int  # put aside for it


class Take(msgspec.Struct, tag="take", forbid_unknown_fields=True):
    """Take a snapshot of this name."""

    name: str


class Delete(msgspec.Struct, tag="delete", forbid_unknown_fields=True):
    """Forget the snapshot of this name, and free what only it keeps."""

    name: str


class Show(msgspec.Struct, tag="show", forbid_unknown_fields=True):
    """Which snapshots there are; every answer says it."""


class Digest(msgspec.Struct, tag="digest", forbid_unknown_fields=True):
    """What a part of a snapshot comes to, without its bytes being sent."""

    name: str
    offset: int
    length: int


class Hold(msgspec.Struct, tag="hold", forbid_unknown_fields=True):
    """Keep everybody else from copying to this volume until we hang up."""


class Pause(msgspec.Struct, tag="pause", forbid_unknown_fields=True):
    """Have clients wait until we hang up, PAUSED_S at most. On this connection more is asked meanwhile, each thing once the one
    before is answered, and an answer says that clients have waited until then."""


class AddReplica(msgspec.Struct, tag="add-replica", forbid_unknown_fields=True):
    """Have one more replica, whose process listens there: it is brought up to date beside the writes."""

    name: str
    host: str
    port: int
    vote_port: int


class RemoveReplica(msgspec.Struct, tag="remove-replica", forbid_unknown_fields=True):
    """Have one replica fewer. Its process may end once this is answered."""

    name: str


class Replicas(msgspec.Struct, tag="replicas", forbid_unknown_fields=True):
    """Which replicas there are, and how far each is; adding and removing one answers it too."""


class HandOver(msgspec.Struct, tag="hand-over", forbid_unknown_fields=True):
    """Have this replica lead: it must hold everything."""

    name: str


class MoveGroup(msgspec.Struct, tag="move-group", forbid_unknown_fields=True):
    """Of a router: have a group move to another volume, whose sockets are beside those of its own (copy/passes.py)."""

    group: int
    to: str
    by: Literal["passes", "snapshot"]
    pause_ns: int


class CancelMove(msgspec.Struct, tag="cancel-move", forbid_unknown_fields=True):
    """Of a router: give the move up that is under way."""


class ShowMove(msgspec.Struct, tag="show-move", forbid_unknown_fields=True):
    """Of a router: how far its last move is; each of these answers it."""


Changing = AddReplica | RemoveReplica | Replicas | HandOver
Moving = MoveGroup | CancelMove | ShowMove
Request = Take | Delete | Show | Digest | Hold | Pause | Changing | Moving


class ReplicaFigures(msgspec.Struct, frozen=True):
    """A replica as it is listed."""

    name: str
    host: str
    port: int
    vote_port: int
    state: str  # "leads", "live", "catching", "resyncing" or "absent"
    leads: bool
    is_member: bool  # the voters have it as one that holds every write: it may lead
    votes: bool  # it cannot be removed
    lag_writes: int  # laid into the log of who leads, and not known durable here
    sent_bytes: int = 0  # since it began to be brought up to date
    left_bytes: int | None = None
    left_s: float | None = None


class GroupMove(msgspec.Struct):
    """A move of a group: how far it is, or what it came to."""

    group: int
    to: str
    doing: str = ""
    passes: int = 0  # that are over
    copied_bytes: int = 0
    hold_begin_ns: int = 0  # no request went out from here, since 1970; 0: it has not come so far
    hold_end_ns: int = 0  # the new home was asked
    is_over: bool = False
    refusal: str = ""  # why it was given up


class Answer(msgspec.Struct):
    """What came of it, and what there is now."""

    refusal: str = ""
    exit_code: int = 0
    volume: str = ""  # its number
    leader: str = ""
    snapshots: list[SnapshotFigures] = []
    digest: str = ""
    replicas: list[ReplicaFigures] = []
    move: GroupMove | None = None
    leads: bool = True  # whoever answers; if not, it may be asked again in a while


# Made before there are threads, as engine/control.py says why.
REQUEST, ANSWER = msgspec.json.Decoder(Request), msgspec.json.Decoder(Answer)
Said = TypeVar("Said")
NOT_OURS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Keeper(Protocol):
    """Who keeps the snapshots and minds the replicas: a node that leads. FarwriteError says what it cannot do."""

    def take_snapshot(self, name: str) -> Snapshot: ...
    def delete_snapshot(self, name: str) -> object: ...
    def snapshots(self) -> Sequence[Snapshot]: ...
    def add_replica(self, name: str, address: Address) -> None: ...
    def remove_replica(self, name: str) -> None: ...
    def replica_statuses(self) -> Sequence[ReplicaStatus]: ...
    def request_hand_over(self, to: str) -> None: ...
    def paused(self, limit_s: float) -> AbstractContextManager[Callable[[], bool]]: ...


# Answering


class Desk:
    """What one replica answers while it leads."""

    def __init__(
        self, keeper: Keeper, volume: str, leader: str, door: Callable[[str], Place], leads: Callable[[], bool] = lambda: True,
        mover: Callable[[Moving], GroupMove | None] | None = None,
    ) -> None:  # fmt: skip
        self.keeper, self.volume, self.leader, self.door, self.leads, self.mover = keeper, volume, leader, door, leads, mover
        self.changing, self.held = threading.Lock(), threading.Lock()

    def carry_out(self, request: Request) -> Answer:
        """The answer to a request but Hold. FarwriteError when it cannot be done."""
        digest = ""
        if isinstance(request, Take | Delete):
            name = request.name
            checked_name(name)
            with self.changing:  # One after the other.
                self.keeper.take_snapshot(name) if isinstance(request, Take) else self.keeper.delete_snapshot(name)
        elif isinstance(request, Digest):
            digest = self.digest_of(request)
        elif isinstance(request, Changing):
            return Answer(volume=self.volume, leader=self.leader, replicas=self.change(request))
        elif isinstance(request, Moving):
            if self.mover is None:
                raise UsageError("No group moves here: this volume has no router.")
            return Answer(volume=self.volume, leader=self.leader, move=self.mover(request))
        found = [
            SnapshotFigures(one.name, int(one.sequence), int(one.taken_ns), bool(one.is_whole), int(one.kept_bytes))
            for one in self.keeper.snapshots()
        ]
        return Answer(volume=self.volume, leader=self.leader, snapshots=found, digest=digest)

    def pause(self, connection: socket.socket) -> None:
        """Have clients wait, and carry out what is asked meanwhile, until the caller hangs up. UnfitError when they did not wait
        so long. A snapshot that was taken stays if something was asked after it: who asked has heard that clients waited."""
        taken = ""
        try:
            with self.keeper.paused(PAUSED_S) as holds:
                answer = self.carry_out(Show())
                while True:
                    if not holds():
                        raise UnfitError(f"Clients wait no longer than {PAUSED_S:g} s, and that is over.")
                    tell(connection, answer)
                    try:
                        request = REQUEST.decode(next_line(connection, REQUEST_BYTES_MAX, PAUSED_S))
                    except (UnfitError, OSError):  # The caller has hung up, or says nothing for too long.
                        return
                    if not isinstance(request, Take | Show):
                        raise UsageError("While clients wait a snapshot is taken, and nothing else is done.")
                    answer = self.carry_out(request)
                    taken = request.name if isinstance(request, Take) else ""
        finally:
            if taken:
                with self.changing:
                    self.keeper.delete_snapshot(taken)

    def change(self, request: Changing) -> list[ReplicaFigures]:
        """Change the replicas, or who leads them, as asked; those that there are now. None after a hand-over: another leads."""
        if isinstance(request, HandOver):
            self.keeper.request_hand_over(request.name)
            return []
        with self.changing:
            if isinstance(request, AddReplica):
                self.keeper.add_replica(request.name, Address(request.host, request.port, request.vote_port))
            elif isinstance(request, RemoveReplica):
                self.keeper.remove_replica(request.name)
        return [figures_of(one) for one in self.keeper.replica_statuses()]

    def digest_of(self, request: Digest) -> str:
        """Of a part of a snapshot, read through our own door."""
        checked_name(request.name)
        if not (request.offset >= 0 and 0 < request.length <= DIGEST_BYTES_MAX and request.offset + request.length < 1 << 63):
            raise UsageError(f"A digest is of 1 to {DIGEST_BYTES_MAX} bytes of a snapshot.")
        if request.offset % DIGEST_PIECE:
            raise UsageError(f"A digest begins at a multiple of {DIGEST_PIECE}.")
        with connected(self.door(request.name), [nbd.BASE_ALLOCATION]) as client:
            if request.offset + request.length > client.size:
                raise UsageError("This part is not all in the volume.")
            return digest(client, request.offset, request.length)

    def admit(self, heard: tuple[socket.socket, bytes], caller: Any) -> bool:
        """Answer one request, in the caller's own thread."""
        connection, message = heard
        holds = False
        try:
            request = REQUEST.decode(message)
            holds = isinstance(request, Hold) and self.held.acquire(timeout=HOLD_S)
            if isinstance(request, Hold) and not holds:
                raise UnfitError("Another farwrite copy is copying to this volume: end that first.")
            if isinstance(request, Pause):
                self.pause(connection)
                return False
            answer = self.carry_out(request)
        except NOT_OURS as refusal:
            answer = Answer(f"This is no request to a served volume: {refusal}.", EXIT_USAGE)
        except FarwriteError as refusal:
            answer = Answer(str(refusal), refusal.exit_code, leads=self.leads())
        except OSError as refusal:
            answer = Answer(f"{refusal.strerror}.", EXIT_UNFIT, leads=self.leads())
        except Exception as failure:  # Our own fault, and of no client of the volume.
            LOG.warning("our own fault, answering %r:\n%s", message[:200], traceback.format_exc())
            answer = Answer(f"This is our own fault: {failure!r}.", EXIT_CRASH)
        try:
            tell(connection, answer)
            if holds:
                connection.settimeout(None)
                connection.recv(1)  # Until the caller hangs up, or this door does.
        finally:
            if holds:
                self.held.release()
        return False


def figures_of(one: ReplicaStatus) -> ReplicaFigures:
    """A replica as it is listed."""
    peer = one.peer
    return ReplicaFigures(
        one.name, one.host, one.port, one.vote_port, one.state, one.leads, one.is_member, one.votes, one.lag_writes,
        *((peer.sent_bytes, peer.left_bytes, peer.left_s) if peer is not None else ()),
    )  # fmt: skip


def tell(connection: socket.socket, answer: Answer) -> None:
    """Say an answer, whole."""
    connection.settimeout(LISTEN_S)
    connection.sendall(line(msgspec.json.encode(answer)))


def heard_from(connection: socket.socket) -> tuple[socket.socket, bytes]:
    """The request of whoever called. UnfitError for somebody else's, a slow and a long one, which are answered so."""
    if (uid := caller_of(connection)) not in (os.geteuid(), 0):
        raise UnfitError(f"user {uid} is not listened to.")
    try:
        return connection, next_line(connection, REQUEST_BYTES_MAX, LISTEN_S)
    except TooLongError as refusal:
        tell(connection, Answer(str(refusal), EXIT_USAGE))
        with contextlib.suppress(OSError):  # Closing over unread bytes would take the answer along.
            connection.settimeout(0.2)
            while connection.recv(1 << 16):
                pass
        raise


def caller_of(connection: socket.socket) -> int:
    """The number of the user at the other end of a unix socket. unix(7), SO_PEERCRED."""
    return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


def next_line(connection: socket.socket, bytes_max: int, limit_s: float) -> bytes:
    """One line within the time. UnfitError when it does not come, TooLongError when it is longer than it may be."""
    lines, until_s = Lines(bytes_max), time.monotonic() + limit_s
    while (message := lines.take()) is None:
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise UnfitError(f"nothing whole was said within {limit_s:g} s.")
        connection.settimeout(left_s)
        try:
            piece = connection.recv(1 << 16)
        except TimeoutError:
            continue
        if not piece:
            raise UnfitError("the other end hung up before its line was whole.")
        lines.put(piece)
    return message


@contextmanager
def control_door(listening: socket.socket, desk: Desk, name: str) -> Iterator[Door]:
    """Requests at this listening socket are answered inside this block."""
    with opened(Door(listening, heard_from, desk.admit, SparseLog(LOG, name))) as made:
        yield made


# Digests: the same on every volume that reads the same, however its holes lie.


def digest(client: NbdClient, offset: int, length: int) -> str:
    """Of what an export holds there: BLAKE2b over every piece that is not all zeros, with its place."""
    made = hashlib.blake2b(struct.pack("<QQ", offset, length), digest_size=32)
    zeros = bytes(DIGEST_PIECE)
    allocated = ranges_of(
        (one.begin, one.end) for one in client.extents(offset, offset + length)[nbd.BASE_ALLOCATION]
        if not one.status & nbd.STATUS_ZERO
    )  # fmt: skip
    wanted = sorted({begin // DIGEST_PIECE * DIGEST_PIECE for begin, _ in pieces(allocated, DIGEST_PIECE)})
    end, under_way, done = offset + length, [], {}
    for at in [*wanted, *([None] * READS_MAX)]:
        if at is not None:
            under_way.append(client.issue(nbd.READ, at, min(DIGEST_PIECE, end - at)))
        while under_way and (at is None or len(under_way) >= READS_MAX):
            while under_way[0] not in done:
                cookie, answer = client.reap()
                done[cookie] = answer
            read = done.pop(under_way.pop(0))
            if read.error:
                raise client.failed("read", read.error)
            if read.data != zeros[: read.length]:
                made.update(struct.pack("<Q", read.offset))
                made.update(read.data)
    return made.hexdigest()


def connected(place: Place, contexts: Sequence[str] = ()) -> NbdClient:
    """A client of an export. UnfitError when there is none."""
    try:
        return NbdClient(place, contexts)
    except FarwriteError:
        raise
    except OSError as refusal:
        raise ConnectionLostError(f"connect to {place.uri}: {refusal.strerror or refusal}. Is it served there?") from refusal


# Asking


def ask(sockets: Path, request: Request, limit_s: float = ANSWER_S) -> Answer:
    """What the volume with these sockets answers. The refusal of whoever leads is raised, with its exit code."""
    with hold(sockets, request, limit_s) as answer:
        return answer


@contextmanager
def hold(sockets: Path, request: Request, limit_s: float = ANSWER_S) -> Iterator[Answer]:
    """As `ask`; the connection lasts as long as this block."""
    with call(sockets) as connection:
        try:
            answer = answer_to(connection, request, ANSWER, ANSWER_BYTES_MAX, limit_s)
        except UnfitError as refusal:
            raise UnansweredError(
                f"The volume at {sockets} did not answer ({refusal}), so it is not known whether it did what was asked: "
                f"farwrite snapshot list --sockets {sockets} says what there is."
            ) from refusal
        if answer.refusal:
            raise refused(answer)
        yield answer


def answer_to(
    connection: socket.socket, request: Any, answers: msgspec.json.Decoder[Said], bytes_max: int, limit_s: float
) -> Said:
    """What is answered to one request on this connection. UnfitError when nothing whole comes in time, or what is no answer."""
    try:
        connection.settimeout(limit_s)
        connection.sendall(line(msgspec.json.encode(request)))
        return answers.decode(next_line(connection, bytes_max, limit_s))
    except (OSError, *NOT_OURS) as refusal:
        raise UnfitError(str(refusal)) from refusal


class UnansweredError(UnfitError):
    """Nobody answers, or not any more: another may, in a while."""


def refused(answer: Answer) -> FarwriteError:
    """The refusal as it was raised there."""
    return raised_there(answer.refusal, answer.exit_code) if answer.leads else UnansweredError(answer.refusal)


def raised_there(sentence: str, exit_code: int) -> FarwriteError:
    """A refusal as it was raised where a request was carried out; a fault of ours there is one here."""
    return FarwriteError(sentence) if exit_code == EXIT_CRASH else error_of(exit_code)(sentence)


def call(sockets: Path) -> socket.socket:
    """A connection to whoever leads; waited for while nobody does and yet somebody serves. UnfitError where nobody serves."""
    until_s = time.monotonic() + FAILOVER_S
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(LISTEN_S)
            connection.connect(str(sockets / CONTROL))
            return connection
        except OSError as refusal:
            connection.close()
            is_busy = isinstance(refusal, BlockingIOError)  # More callers than are waited with, unix(7).
            may_come = isinstance(refusal, FileNotFoundError | ConnectionError) and is_served(sockets)
            if (is_busy or may_come) and time.monotonic() < until_s:
                time.sleep(RETRY_S)
                continue
            if is_busy or may_come:
                raise UnansweredError(
                    f"The volume at {sockets} is served, and no replica leads for {FAILOVER_S:g} s "
                    f"({refusal.strerror}): see what farwrite serve says, and try again."
                ) from refusal
            raise UnansweredError(
                f"No farwrite serve answers in {sockets} ({refusal.strerror}): start one, or name its directory of sockets."
            ) from refusal


def sockets_in_use(asked: Path | None) -> Path:
    """The directory of sockets that is meant: the one that was asked for, that of $FARWRITE_SOCKETS, or that of the only volume
    that this user serves without --sockets. UsageError where it is not clear."""
    if asked is not None:
        return asked
    if named := os.environ.get("FARWRITE_SOCKETS"):
        return Path(named)
    temporary = Path(tempfile.gettempdir())
    found = [place for place in sorted(temporary.glob("farwrite-*")) if is_ours(place) and is_served(place)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{len(found)} volumes are served: say which with --sockets ({', '.join(map(str, found[:4]))}).")
    raise UsageError("No volume is served here: start farwrite serve, and name its directory of sockets with --sockets DIR.")


def is_ours(place: Path) -> bool:
    """Whether a directory is ours."""
    try:
        found = place.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def is_served(sockets: Path) -> bool:
    """Whether a farwrite serve of this machine has its sockets there: it keeps the directory locked."""
    return is_locked(sockets, os.O_DIRECTORY)
