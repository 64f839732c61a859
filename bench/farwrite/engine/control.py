"""Control messages: what voters are asked, and how a primary introduces itself. The one place that reads and writes them.

Both ends of every connection prove who they are before a word is read (base/wire/conversation.py): by a shared key of the
lab or of the volume on one machine, by TLS between machines. There is no mode without. A message names whom it is for, so that
what was meant for one voter is never another one's vote. Its length, its ranges and the time that it may take are bounded; what
is malformed is answered with its refusal and logged, and nothing that arrives ends a door (base/wire/door.py) or delays who is
honest.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import select
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from ..base.errors import UnfitError
from ..base.framing import TooLongError
from ..base.wire.congestion import state_congestion
from ..base.wire.conversation import Conversation, converse
from ..base.wire.door import SparseLog, door
from ..base.wire.terms import Terms
from .ballot import NAME_BYTES_MAX, NUMBER_MAX, Answer, Ballot, Placed, Question, is_ballot, is_name
from .vote import BallotError, Voter

ASK_TIMEOUT_S = 2.0  # Four round trips with TLS; the longest of a profile is 0.25 s.
LISTEN_S = 5.0  # For a caller to prove who it is and say its message, all together. It holds up nobody meanwhile.
REST_S = 0.5  # For the rest of a question that is too long, before its connection is closed.
REFUSAL_CHARACTERS_MAX = 300  # Beside the largest ballot in one message.
ARRIVALS_MAX = 8  # Primaries that wait to be served.

LOG = logging.getLogger(__name__)
ASKING = SparseLog(LOG, "a question to a voter")

# What decoding other people's bytes can raise.
NOT_OURS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


Dial = Callable[[tuple[str, int], float], socket.socket]  # An address and seconds: a connection, or OSError.


class Address(NamedTuple):
    """Where a voter listens; a witness has no use for `port`."""

    host: str
    port: int
    vote_port: int
    dial: Dial | None = None  # how it is reached from here, where dialling its address is not enough

    def connect(self, port: int, limit_s: float) -> socket.socket:
        """A connection to this port of its machine. OSError as connect(2) has it."""
        connection = (self.dial or socket.create_connection)((self.host, port), limit_s)
        state_congestion(connection)
        return connection


class Asked(msgspec.Struct, tag="ask"):
    """A question, and the voter that it is for."""

    to: str
    question: Question


def address_of(one: Placed, known: Collection[Address]) -> Address:
    """Where a replica of a configuration is reached: as others at that host are, where one is known."""
    dials = [address.dial for address in known if address.host == one.host]
    return Address(one.host, one.port, one.vote_port, dials[0] if dials else None)


class Introduced(msgspec.Struct, tag="introduce"):
    """Who wants to lead a replica, and which one; and the configuration that it knows, so that who never votes has it too."""

    to: str
    name: str
    knows: Ballot = Ballot()


class Taken(msgspec.Struct, tag="taken"):
    """Whether an introduction is taken: a HELLO is the next that is read."""

    refusal: str = ""


# Made before there are threads: msgspec learns of a type when it is first used, and two threads that use it first at the same
# instant end the process (SIGSEGV, msgspec 0.22; seen in one of a thousand trials of a drill).
ASKED, ANSWER = msgspec.json.Decoder(Asked), msgspec.json.Decoder(Answer)
INTRODUCED, TAKEN = msgspec.json.Decoder(Introduced), msgspec.json.Decoder(Taken)


# Asking


def ask(name: str, address: Address, question: Question, terms: Terms, timeout_s: float = ASK_TIMEOUT_S) -> Answer | None:
    """The answer of the voter of this name, None when there is none."""
    try:
        return ask_running(name, address, question, terms, timeout_s)
    except ConnectionRefusedError:
        return None


def ask_running(name: str, address: Address, question: Question, terms: Terms, timeout_s: float) -> Answer | None:
    """As `ask`. ConnectionRefusedError when its machine answers that nobody listens there: no process of this voter runs."""
    try:
        with address.connect(address.vote_port, timeout_s) as connection:
            talk = converse(connection, terms, dials=True, limit_s=timeout_s)
            talk.say(msgspec.json.encode(Asked(name, question)))
            answer = ANSWER.decode(talk.hear())
    except ConnectionRefusedError:
        raise
    except OSError:
        return None
    except (UnfitError, *NOT_OURS) as refusal:
        ASKING.warning("ask %s at %s port %d: %s", name, address.host, address.vote_port, refusal)
        return None
    return answer if is_ballot(answer.ballot) and 0 <= answer.sequence <= NUMBER_MAX else None


@contextmanager
def conversation_with(address: Address, terms: Terms, timeout_s: float) -> Iterator[Conversation | None]:
    """A conversation with a voter before there is anything to ask, so that the question will take one round trip; None where it
    does not come about."""
    with contextlib.ExitStack() as stack:
        talk = None
        with contextlib.suppress(OSError, UnfitError):
            connection = stack.enter_context(socket.create_connection((address.host, address.vote_port), timeout_s))
            talk = converse(connection, terms, dials=True, limit_s=timeout_s)
        yield talk


def ask_in(talk: Conversation, name: str, question: Question) -> Answer | None:
    """The answer to the one question of such a conversation, None when there is none."""
    try:
        talk.say(msgspec.json.encode(Asked(name, question)))
        return ANSWER.decode(talk.hear())
    except (OSError, UnfitError, *NOT_OURS):
        return None


def ask_all(others: Mapping[str, Address], question: Question, terms: Terms, enough: int | None = None) -> list[Answer]:
    """The answers of those who give one, all asked at once; no longer waited for than until `enough` have said yes.

    That is enough to know: every majority has a voter in common with this one. None: as many as are a majority with us.
    """
    enough = (len(others) + 1) // 2 if enough is None else enough
    answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()

    def ask_one(name: str, address: Address) -> None:
        answer = None
        try:
            answer = ask(name, address, question, terms, ASK_TIMEOUT_S)
        finally:
            answers.put(answer)

    for name, address in others.items():
        threading.Thread(target=ask_one, args=(name, address), daemon=True).start()
    given: list[Answer] = []
    for _ in others:
        if (answer := answers.get()) is not None:
            given.append(answer)
        if sum(one.yes for one in given) >= enough:
            break
    return given


# Answering


@contextmanager
def votes_served(voter: Voter, address: Address, terms: Terms) -> Iterator[None]:
    """A voter that answers inside this block."""
    log = SparseLog(LOG, voter.name)

    def admit(talk: Conversation, caller: Any) -> bool:
        serve_question(voter, talk, caller, log)
        return False

    with door(address.host, address.vote_port, terms, admit, LISTEN_S, log):
        yield


def serve_question(voter: Voter, talk: Conversation, caller: Any, log: SparseLog) -> None:
    """Read one question and answer it, whatever it is."""
    try:
        message = talk.hear()
    except TooLongError as refusal:
        talk.say(message_of(refuse(voter, caller, str(refusal), log)))
        read_away(talk.connection)
        return
    answer = answer_to(voter, message, caller, log)
    talk.renew(ASK_TIMEOUT_S)
    talk.say(message_of(answer))


def message_of(answer: Answer) -> bytes:
    """An answer as it is said."""
    return msgspec.json.encode(msgspec.structs.replace(answer, refusal=answer.refusal[:REFUSAL_CHARACTERS_MAX]))


def read_away(connection: socket.socket) -> None:
    """The rest of what was too long, as far as it is there: closing over unread bytes resets the connection, and takes with it
    the answer that says so (RFC 1122 4.2.2.13)."""
    limit_s = time.monotonic() + REST_S
    with contextlib.suppress(OSError):
        while (left_s := limit_s - time.monotonic()) > 0:
            connection.settimeout(left_s)
            if not connection.recv(4096):
                break


def answer_to(voter: Voter, message: bytes, caller: Any, log: SparseLog) -> Answer:
    """The voter's answer to the bytes of a question, whatever they are."""
    try:
        asked = ASKED.decode(message)
    except NOT_OURS as refusal:
        return refuse(voter, caller, f"this is no question to a voter: {refusal}", log)
    if asked.to != voter.name:
        return refuse(voter, caller, f"this is {voter.name}, and the question is for {asked.to[:NAME_BYTES_MAX]!r}", log)
    try:
        answer = voter.decide(asked.question)
    except BallotError as failure:
        log.warning("%s", failure)
        return Answer(False, voter.ballot, voter.leads(), refusal=str(failure))
    except Exception as failure:  # Our own fault. Another voter's majority must not hang on it, and no vote is given.
        log.warning("our own fault, answering %r:\n%s", asked.question, traceback.format_exc())
        return Answer(False, voter.ballot, voter.leads(), refusal=f"our own fault: {failure!r}")
    return refuse(voter, caller, answer.refusal, log) if answer.refusal else answer


def refuse(voter: Voter, caller: Any, reason: str, log: SparseLog) -> Answer:
    """The answer to what is not considered, noted in the log."""
    log.warning("a message of %s was refused: %s.", caller, reason)
    return Answer(False, voter.ballot, voter.leads(), refusal=reason)


# Introductions


def introduce(
    name: str, to: str, address: Address, terms: Terms, limit_s: float, knows: Ballot = Ballot()  # noqa: B008 (frozen)
) -> socket.socket:
    """A connection to a replica that has heard who we are, and reads a HELLO next. UnfitError or OSError when it does not."""
    connection = address.connect(address.port, limit_s)
    try:
        talk = converse(connection, terms, dials=True, limit_s=limit_s)
        talk.say(msgspec.json.encode(Introduced(to, name, knows)))
        try:
            taken = TAKEN.decode(talk.hear())
        except NOT_OURS as refusal:
            raise UnfitError(f"{to} does not answer an introduction: {refusal}.") from refusal
        if taken.refusal:
            raise UnfitError(f"{to} does not take this introduction: {taken.refusal}.")
        return plain_end(talk, terms)
    except BaseException:
        connection.close()
        raise


def plain_end(talk: Conversation, terms: Terms) -> socket.socket:
    """What a replica's loop speaks plain records on: the connection itself, or one end of a tunnel that carries them over it."""
    if terms.need_a_tunnel:
        from ..base.wire.tunnel import tunnel_in_thread

        return tunnel_in_thread(talk.connection, talk.channel, terms)
    if talk.has_more():
        raise UnfitError("The peer says more than was asked, before it was.")
    return talk.connection


class Arrivals:
    """Primaries that have proven who they are, said so and begun to speak, in the order in which they came.

    `peers` are the other replicas, as far as they are known; `learn` takes in the configuration that a primary has.
    """

    def __init__(
        self, name: str, peers: Callable[[], Collection[str]], terms: Terms, log: SparseLog, learn: Callable[[Ballot], None]
    ) -> None:
        self.name, self.peers, self.terms, self.log, self.learn = name, peers, terms, log, learn
        self.changed = threading.Condition()
        self.waiting: deque[tuple[str, socket.socket]] = deque()

    def admit(self, talk: Conversation, caller: Any) -> bool:
        """Hear an introduction, in the caller's own thread; whether its connection is ours from here on."""
        try:
            said = INTRODUCED.decode(talk.hear())
            refusal = self.refusal_of(said)
        except NOT_OURS as other:
            refusal = f"this is no introduction: {other}"
        talk.say(msgspec.json.encode(Taken(refusal[:REFUSAL_CHARACTERS_MAX])))
        if refusal:
            self.log.warning("a message of %s was refused: %s.", caller, refusal)
            return False
        left_s = talk.patience.until_s - time.monotonic()
        connection = plain_end(talk, self.terms)
        if begins_to_speak(connection, left_s):
            self.put(said.name, connection)
        else:
            connection.close()
        return True

    def refusal_of(self, said: Introduced) -> str:
        """Why an introduction is not taken; empty when it is."""
        if said.to != self.name:
            return f"this is {self.name}, and the introduction is for {said.to[:NAME_BYTES_MAX]!r}"
        if not is_ballot(said.knows):
            return "what it says that it knows is no configuration"
        if said.knows.replicas:
            self.learn(said.knows)
        peers = self.peers()
        if not is_name(said.name) or said.name not in peers:
            return f"{said.name[:NAME_BYTES_MAX]!r} is no other replica of this volume ({', '.join(sorted(peers))})"
        return ""

    def put(self, name: str, connection: socket.socket) -> None:
        """One more; of too many the first is hung up on."""
        with self.changed:
            self.waiting.append((name, connection))
            if len(self.waiting) > ARRIVALS_MAX:
                self.waiting.popleft()[1].close()
            self.changed.notify()

    def take(self, timeout_s: float) -> tuple[str, socket.socket] | None:
        """The name and the connection of the next that is still there, waited for no longer than this."""
        limit_s = time.monotonic() + timeout_s
        while True:
            with self.changed:
                if not self.waiting:
                    self.changed.wait(limit_s - time.monotonic())
                if not self.waiting:
                    return None
                name, connection = self.waiting.popleft()
            if not has_hung_up(connection):
                return name, connection
            connection.close()

    def wake(self) -> None:
        """Have who waits look for itself: there is something else to do."""
        with self.changed:
            self.changed.notify()

    def close(self) -> None:
        """Hang up on all that wait."""
        with self.changed:
            while self.waiting:
                self.waiting.popleft()[1].close()


@contextmanager
def introductions(
    name: str, address: Address, peers: Callable[[], Collection[str]], terms: Terms, learn: Callable[[Ballot], None]
) -> Iterator[Arrivals]:
    """The primaries that come to this replica's port, inside this block."""
    log = SparseLog(LOG, name)
    arrivals = Arrivals(name, peers, terms, log, learn)
    try:
        with door(address.host, address.port, terms, arrivals.admit, LISTEN_S, log):
            yield arrivals
    finally:
        arrivals.close()


def begins_to_speak(connection: socket.socket, limit_s: float) -> bool:
    """Whether the other end says anything within the limit; it is not read."""
    try:
        connection.settimeout(max(limit_s, 0.001))
        return bool(connection.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def has_hung_up(connection: socket.socket) -> bool:
    """Whether the other end is gone, whatever it said before. poll(2)."""
    poller = select.poll()
    poller.register(connection, select.POLLRDHUP)
    return bool(poller.poll(0))
