"""Votes: who may lead, and which replicas must hold every write. Kept durable by each voter, asked for over TCP.

A voter promises an epoch to one candidate and remembers the newest configuration. A majority of voters decides both, so that
two decisions always share a voter (Lamport, The Part-Time Parliament, 1998; asking first without effect: Ongaro, thesis 9.6).
A witness is a voter without a volume.
"""

from __future__ import annotations

import os
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

SLOT_BYTES = 4096
ASK_TIMEOUT_S = 1.0


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


def save_ballot(fd: int, ballot: Ballot) -> Ballot:
    """Make it durable in the older of two slots; one is always whole."""
    numbered = msgspec.structs.replace(ballot, generation=ballot.generation + 1)
    told = msgspec.json.encode(numbered)
    block = (zlib.crc32(told).to_bytes(4, "little") + len(told).to_bytes(4, "little") + told).ljust(SLOT_BYTES, b"\0")
    os.pwrite(fd, block, numbered.generation % 2 * SLOT_BYTES)
    os.fdatasync(fd)
    return numbered


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


class Voter:
    """One voter: its ballot in a file, and what it answers. One question at a time."""

    def __init__(self, name: str, ballot_fd: int) -> None:
        self.name, self.fd = name, ballot_fd
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
        """Answer one question; whatever is promised is durable before it is said."""
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
    try:
        with socket.create_connection((address.host, address.vote_port), timeout_s) as connection:
            connection.sendall(msgspec.json.encode(question) + b"\n")
            with connection.makefile("rb") as lines:
                return msgspec.json.decode(lines.readline(), type=Answer)
    except (OSError, msgspec.MsgspecError):
        return None


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens on this address only."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host, port))
    made.listen(16)
    return made


def serve_votes(voter: Voter, listening: socket.socket, stopped: Callable[[], bool]) -> None:
    """Answer one question after the other."""
    listening.settimeout(0.1)
    while not stopped():
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            continue
        with connection:
            try:
                connection.settimeout(ASK_TIMEOUT_S)
                with connection.makefile("rb") as lines:
                    question = msgspec.json.decode(lines.readline(), type=Question)
                connection.sendall(msgspec.json.encode(voter.decide(question)))
            except (OSError, msgspec.MsgspecError):
                continue


@contextmanager
def votes_served(voter: Voter, address: Address, stopped: Callable[[], bool]) -> Iterator[None]:
    """Answers in a thread of its own as long as `stopped` says no."""
    with listener(address.host, address.vote_port) as listening:
        thread = threading.Thread(target=serve_votes, args=(voter, listening, stopped), daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def majority_says_yes(voter: Voter, others: dict[str, Address], question: Question) -> tuple[bool, list[Ballot]]:
    """Whether a majority of all voters says yes, the asking one last and only if that makes it one; and what they know."""
    answers = [answer for address in others.values() if (answer := ask(address, question))]
    known = [answer.ballot for answer in answers] + [voter.ballot]
    if 2 * (1 + sum(answer.yes for answer in answers)) <= 1 + len(others):
        return False, known
    return voter.decide(question).yes, known
