"""Votes: who may lead, and which replicas must hold every write. Kept durable by each voter, asked for over TCP.

A voter promises an epoch to one candidate and remembers the newest configuration. A majority of voters decides both, so that
two decisions always share a voter (Lamport, The Part-Time Parliament, 1998; asking first without effect: Ongaro, thesis 9.6).
A witness is a voter without a volume.

Whoever reaches the port may ask. Whatever a message is, the voter goes on: one that is no question, or asks for what cannot
be, is answered with its refusal and logged. So is a ballot that cannot be written, with the disk's own error.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..errors import UnfitError, system_error

SLOT_BYTES = 4096
ASK_TIMEOUT_S = 1.0
REST_S = 0.1  # For the rest of a question that is too long, before it is answered.
MESSAGE_BYTES_MAX = SLOT_BYTES  # Of a question or an answer; the largest ballot fits into a slot.
NAME_BYTES_MAX = 63  # Of a voter.
MEMBERS_MAX = 16  # With names as long as they may be, escaped byte by byte, a ballot has 2.4 KB.
NUMBER_MAX = (1 << 62) - 1  # Of an epoch, a sequence, a version: int64 in records, and there is always a next one.
WORDS = ("status", "would", "grant", "configure", "hand_over")

LOG = logging.getLogger(__name__)

# What decoding other people's bytes can raise.
NOT_OURS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Address(NamedTuple):
    """Where a voter listens; a witness has no use for `port`."""

    host: str
    port: int
    vote_port: int


class Ballot(msgspec.Struct, frozen=True):
    """What a voter has promised and knows. The configuration with the greater (of_epoch, version) is the newer."""

    epoch: int = 0
    candidate: str = ""
    of_epoch: int = 0
    version: int = 0
    members: tuple[str, ...] = ()
    generation: int = 0

    @property
    def age(self) -> tuple[int, int]:
        return self.of_epoch, self.version


class Question(msgspec.Struct):
    """What is asked of a voter: "status", "would" and "grant" (a vote), "configure", or "hand_over"."""

    ask: str
    name: str
    epoch: int = 0
    log_epoch: int = 0
    sequence: int = 0
    version: int = 0
    members: tuple[str, ...] = ()


class Answer(msgspec.Struct):
    """What a voter says."""

    yes: bool
    ballot: Ballot
    leads: bool = False
    sequence: int = 0
    refusal: str = ""  # why the question was not considered; empty: it was


class BallotError(UnfitError):
    """A ballot could not be made durable: what was to be promised is not."""


def save_ballot(fd: int, ballot: Ballot) -> Ballot:
    """Make it durable in the older of two slots; one is always whole. BallotError names the file and the disk's error."""
    numbered = msgspec.structs.replace(ballot, generation=ballot.generation + 1)
    told = msgspec.json.encode(numbered)
    block = (zlib.crc32(told).to_bytes(4, "little") + len(told).to_bytes(4, "little") + told).ljust(SLOT_BYTES, b"\0")
    assert len(block) == SLOT_BYTES, "a ballot reaches into the other slot"
    try:
        if os.pwrite(fd, block, numbered.generation % 2 * SLOT_BYTES) != SLOT_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fdatasync(fd)
    except OSError as refusal:
        attempt = f"make the ballot {path_of(fd)} durable (errno {refusal.errno})"
        advice = "No vote is given and no configuration kept until it can be: free some room, or replace the disk."
        raise BallotError(str(system_error(attempt, refusal.errno or 0, advice))) from refusal
    return numbered


def path_of(fd: int) -> str:
    """The file of a descriptor, as the system names it."""
    try:
        return str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        return f"of descriptor {fd}"


def load_ballot(fd: int) -> Ballot:
    """The newest whole one; an empty one in an empty file."""
    best = Ballot()
    for index in range(2):
        block = os.pread(fd, SLOT_BYTES, index * SLOT_BYTES)
        told = block[8 : 8 + int.from_bytes(block[4:8], "little")]
        if told and zlib.crc32(told) == int.from_bytes(block[:4], "little"):
            found = msgspec.json.decode(told, type=Ballot)
            best = max(best, found, key=lambda one: one.generation)
    return best


def may_grant(ballot: Ballot, question: Question, log: tuple[int, int] | None, hears_primary: bool) -> bool:
    """Whether a voter gives its vote; `log` is (epoch, sequence) of its own last write, None for a witness.

    Where every member must hold a write, membership is what counts. Where a quorum suffices, the log is: a voter that is
    a member gives its vote only to a log that is not behind its own.
    """
    if hears_primary or (ballot.members and question.name not in ballot.members):
        return False
    if log is not None and (question.log_epoch, question.sequence) < log:
        return False
    return question.epoch > ballot.epoch or (question.epoch == ballot.epoch and question.name == ballot.candidate)


def refusal_of(question: Question, known: Collection[str] = ()) -> str:
    """Why a question cannot be considered; empty when it can. `known` are the replicas, where the voter knows them."""
    if question.ask not in WORDS:
        return f'"{question.ask[:NAME_BYTES_MAX]}" is nothing a voter is asked ({", ".join(WORDS)})'
    names = (question.name, *question.members)
    if not all(is_name(name) for name in names):
        return f"a name has 1 to {NAME_BYTES_MAX} bytes that can be printed"
    if len(question.members) > MEMBERS_MAX or len(set(question.members)) != len(question.members):
        return f"a configuration has up to {MEMBERS_MAX} members, each once; here are {len(question.members)}"
    numbers = {name: getattr(question, name) for name in ("epoch", "log_epoch", "sequence", "version")}
    for name, value in numbers.items():
        if not 0 <= value <= NUMBER_MAX:
            return f"{name} must lie between 0 and {NUMBER_MAX}, not at {value}"
    if question.ask == "hand_over" and len(question.members) != 1:
        return f"hand_over names one successor among its members; here are {len(question.members)}"
    if question.ask == "configure" and question.name not in question.members:
        return "configure names the members, and a primary is one of them"
    asking = question.ask in ("would", "grant", "configure")
    if asking and not question.epoch:
        return f"{question.ask} is of an epoch, and the first is 1"
    strangers = sorted({*question.members, *((question.name,) if asking else ())} - set(known)) if known else []
    if strangers:
        return f"{', '.join(strangers)}: no replica of this volume ({', '.join(sorted(known))})"
    return ""


def is_name(name: str) -> bool:
    """Whether this can be a voter's name."""
    return 0 < len(name.encode(errors="replace")) <= NAME_BYTES_MAX and name.isprintable()


def is_ballot(ballot: Ballot) -> bool:
    """Whether a voter can have such a ballot: what others say of theirs is kept in a slot of our own."""
    numbers = (ballot.epoch, ballot.of_epoch, ballot.version, ballot.generation)
    names = [*ballot.members, *([ballot.candidate] if ballot.candidate else [])]
    return (
        all(0 <= number <= NUMBER_MAX for number in numbers) and all(map(is_name, names)) and len(ballot.members) <= MEMBERS_MAX
    )


class Voter:
    """One voter: its ballot in a file, and what it answers. One question at a time."""

    def __init__(self, name: str, ballot_fd: int, replicas: Collection[str] = ()) -> None:
        self.name, self.fd = name, ballot_fd
        self.replicas = frozenset(replicas)  # Who may lead; empty: whoever asks.
        self.lock = threading.RLock()
        self.ballot = load_ballot(ballot_fd)

    def log_of(self) -> tuple[int, int] | None:
        return None

    def hears_primary(self) -> bool:
        return False

    def leads(self) -> bool:
        return False

    def hand_over(self, to: str) -> bool:
        return False

    def promise(self, epoch: int, candidate: str) -> None:
        """Never again serve or elect anyone of an older epoch."""
        with self.lock:
            if epoch > self.ballot.epoch:
                self.ballot = save_ballot(self.fd, msgspec.structs.replace(self.ballot, epoch=epoch, candidate=candidate))

    def adopt(self, known: Ballot) -> None:
        """Remember a newer configuration that another voter knows."""
        with self.lock:
            changed = msgspec.structs.replace(
                self.ballot, of_epoch=known.of_epoch, version=known.version, members=known.members
            )
            self.ballot = save_ballot(self.fd, changed)

    def decide(self, question: Question) -> Answer:
        """Answer one question; whatever is promised is durable before it is said. BallotError when it cannot be."""
        if refusal := refusal_of(question, self.replicas):
            return Answer(False, self.ballot, self.leads(), refusal=refusal)
        if question.ask == "hand_over":
            return Answer(self.hand_over(question.members[0]), self.ballot, self.leads())
        with self.lock:
            yes = False
            if question.ask in ("would", "grant"):
                yes = may_grant(self.ballot, question, self.log_of(), self.hears_primary())
                if yes and question.ask == "grant":
                    self.promise(question.epoch, question.name)
            elif question.ask == "configure":
                fences = question.epoch > self.ballot.epoch and self.hears_primary()
                yes = question.epoch >= self.ballot.epoch and not fences and (question.epoch, question.version) >= self.ballot.age
                if yes:
                    self.promise(question.epoch, question.name)
                    self.ballot = save_ballot(
                        self.fd,
                        msgspec.structs.replace(
                            self.ballot, of_epoch=question.epoch, version=question.version, members=question.members
                        ),
                    )
            own = self.log_of()
            return Answer(yes, self.ballot, self.leads(), own[1] if own else 0)


def ask(address: Address, question: Question, timeout_s: float = ASK_TIMEOUT_S) -> Answer | None:
    """A voter's answer, None when there is none."""
    limit_s = time.monotonic() + timeout_s
    try:
        with socket.create_connection((address.host, address.vote_port), timeout_s) as connection:
            connection.sendall(msgspec.json.encode(question) + b"\n")
            answer = msgspec.json.decode(receive_message(connection, limit_s), type=Answer)
    except (OSError, ValueError, *NOT_OURS):
        return None
    return answer if is_ballot(answer.ballot) and 0 <= answer.sequence <= NUMBER_MAX else None


def receive_message(connection: socket.socket, limit_s: float) -> bytes:
    """What the peer sends up to a line's end or its own; TimeoutError at the limit, ValueError when it is too long."""
    data = b""
    while not data.endswith(b"\n"):
        left_s = limit_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        part = connection.recv(MESSAGE_BYTES_MAX + 1 - len(data))
        if not part:
            break
        data += part
        if len(data) > MESSAGE_BYTES_MAX:
            raise ValueError(f"longer than {MESSAGE_BYTES_MAX} bytes")
    return data


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens on this address only."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host, port))
    made.listen(16)
    return made


def serve_votes(voter: Voter, listening: socket.socket, stopped: Callable[[], bool]) -> None:
    """Answer one question after the other; no message ends this."""
    listening.settimeout(0.1)
    while not stopped():
        try:
            connection, asker = listening.accept()
        except TimeoutError:
            continue
        except OSError as refusal:  # Such as no descriptor left; accept(2).
            LOG.warning("%s: accept a connection that asks for a vote: %s.", voter.name, refusal.strerror)
            time.sleep(0.1)
            continue
        with connection:
            try:
                answer = answer_to(voter, receive_message(connection, time.monotonic() + ASK_TIMEOUT_S), asker)
            except ValueError as refusal:
                answer = refuse(voter, asker, f"the question is {refusal}")
                with contextlib.suppress(OSError):
                    read_away(connection)
            except OSError:  # Whoever asked is gone, or says nothing.
                continue
            try:
                connection.settimeout(ASK_TIMEOUT_S)
                connection.sendall(msgspec.json.encode(answer))
            except OSError:
                continue


def read_away(connection: socket.socket) -> None:
    """The rest of what was too long, as far as it is there: closing over unread bytes resets the connection, and takes with it
    the answer that says so (RFC 1122 4.2.2.13)."""
    limit_s = time.monotonic() + REST_S
    while (left_s := limit_s - time.monotonic()) > 0:
        connection.settimeout(left_s)
        if not connection.recv(MESSAGE_BYTES_MAX):
            break


def answer_to(voter: Voter, message: bytes, asker: object) -> Answer:
    """The voter's answer to the bytes of a question, whatever they are."""
    try:
        question = msgspec.json.decode(message, type=Question)
    except NOT_OURS as refusal:
        return refuse(voter, asker, f"this is no question to a voter: {refusal}")
    try:
        answer = voter.decide(question)
    except BallotError as failure:
        LOG.error("%s: %s", voter.name, failure)
        return Answer(False, voter.ballot, voter.leads(), refusal=str(failure))
    except Exception as failure:  # Our own fault. Another voter's majority must not hang on it, and no vote is given.
        LOG.exception("%s: answer %r", voter.name, question)
        return Answer(False, voter.ballot, voter.leads(), refusal=f"our own fault: {failure!r}")
    return refuse(voter, asker, answer.refusal) if answer.refusal else answer


def refuse(voter: Voter, asker: object, reason: str) -> Answer:
    """The answer to what is not considered, noted in the log."""
    LOG.warning("%s: a message of %s was refused: %s.", voter.name, asker, reason)
    return Answer(False, voter.ballot, voter.leads(), refusal=reason)


@contextmanager
def votes_served(voter: Voter, address: Address, stopped: Callable[[], bool]) -> Iterator[None]:
    """Answers in a thread of its own inside this block, as long as `stopped` says no."""
    ending = threading.Event()  # A block that fails ends the votes as well.
    with listener(address.host, address.vote_port) as listening:
        thread = threading.Thread(
            target=serve_votes, args=(voter, listening, lambda: ending.is_set() or stopped()), daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()


def majority_says_yes(voter: Voter, others: dict[str, Address], question: Question) -> tuple[bool, list[Ballot]]:
    """Whether a majority of all voters says yes, the asking one last and only if that makes it one; and what they know."""
    answers = [answer for address in others.values() if (answer := ask(address, question))]
    known = [answer.ballot for answer in answers] + [voter.ballot]
    if 2 * (1 + sum(answer.yes for answer in answers)) <= 1 + len(others):
        return False, known
    return voter.decide(question).yes, known
