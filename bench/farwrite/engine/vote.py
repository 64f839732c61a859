"""Votes: who may lead, and which replicas must hold every write. Kept durable by each voter, asked for over TCP.

A voter promises an epoch to one candidate and remembers the newest configuration. A majority of voters decides both, so that
two decisions always share a voter (Lamport, The Part-Time Parliament, 1998; asking first without effect: Ongaro, thesis 9.6).
A witness is a voter without a volume. What a voter may answer is decided in ballot.py, what a candidate asks in election.py.

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
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..errors import UnfitError, system_error
from .ballot import (
    NUMBER_MAX,
    SLOT_BYTES,
    SLOTS_BYTES,
    Answer,
    Ballot,
    Question,
    adopted,
    decide,
    decode_slots,
    is_ballot,
    next_generation,
    promised,
    refusal_of,
    writes_of,
)

ASK_TIMEOUT_S = 1.0
REST_S = 0.1  # For the rest of a question that is too long, before it is answered.
MESSAGE_BYTES_MAX = SLOT_BYTES  # Of a question or an answer; the largest ballot fits into a slot.

LOG = logging.getLogger(__name__)

# What decoding other people's bytes can raise.
NOT_OURS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Address(NamedTuple):
    """Where a voter listens; a witness has no use for `port`."""

    host: str
    port: int
    vote_port: int


class BallotError(UnfitError):
    """A ballot could not be made durable: what was to be promised is not."""


def save_ballot(fd: int, ballot: Ballot) -> Ballot:
    """Make it durable in the older of two slots; one is always whole. BallotError names the file and the disk's error."""
    numbered = next_generation(ballot)
    try:
        for offset, block in writes_of(numbered):
            if os.pwrite(fd, block, offset) != len(block):
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
    return decode_slots(os.pread(fd, SLOTS_BYTES, 0))


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

    def keep(self, ballot: Ballot) -> None:
        """Have this ballot from now on, durable. BallotError when it cannot be: then nothing has changed."""
        if ballot != self.ballot:
            self.ballot = save_ballot(self.fd, ballot)

    def promise(self, epoch: int, candidate: str) -> None:
        """Never again serve or elect anyone of an older epoch."""
        with self.lock:
            self.keep(promised(self.ballot, epoch, candidate))

    def adopt(self, known: Ballot) -> None:
        """Remember the configuration of another voter's ballot, if it is newer."""
        with self.lock:
            self.keep(adopted(self.ballot, known))

    def decide(self, question: Question) -> Answer:
        """Answer one question; whatever is promised is durable before it is said. BallotError when it cannot be."""
        if question.ask == "hand_over" and not refusal_of(question, self.replicas):
            return Answer(self.hand_over(question.members[0]), self.ballot, self.leads())
        with self.lock:
            kept, answer = decide(self.ballot, question, self.log_of(), self.hears_primary(), self.leads(), self.replicas)
            self.keep(kept)
            return msgspec.structs.replace(answer, ballot=self.ballot)


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


def ask_all(others: dict[str, Address], question: Question) -> list[Answer]:
    """The answers of those who give one."""
    return [answer for address in others.values() if (answer := ask(address, question))]
