"""Votes: no message ends a voter or gives it two minds, each that cannot be considered is refused with its reason, nobody
without the key is heard, and a promise that was told is never forgotten, whatever becomes of one slot of the ballot."""

import ast
import contextlib
import errno
import itertools
import json
import logging
import os
import random
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from farwrite.base.errors import UnfitError, UsageError
from farwrite.base.wire.conversation import MESSAGE_BYTES_MAX, converse
from farwrite.base.wire.terms import IN_THE_CLEAR, SharedKey, Terms
from farwrite.engine import ballot as ballots
from farwrite.engine import control, election, vote
from farwrite.engine.ballot import (
    EPOCH_STEP_MAX,
    MEMBERS_MAX,
    NAME_BYTES_MAX,
    NUMBER_MAX,
    SLOT_BYTES,
    SLOTS_BYTES,
    VERSION_STEP_MAX,
    Answer,
    Ballot,
    Question,
    Slots,
    decide,
    decode_slots,
    encode_slot,
    following,
    next_generation,
    refusal_of,
    writes_of,
)
from farwrite.engine.control import Address, Asked, ask, ask_all, introduce, introductions, votes_served
from farwrite.engine.vote import BallotError, Voter, format_ballot, load_ballot, save_ballot
from ports import free_port

NAMES = ("a", "b", "c")
KEYED = Terms("none", "none", SharedKey(bytes(range(32))))
OTHER = Terms("none", "none", SharedKey(bytes(range(1, 33))))
SEALED = Terms("tls", "none", KEYED.identity)
PATIENCE_S = 60


@contextmanager
def served(voter):
    """Where a voter answers inside this block."""
    address = Address("127.0.0.1", 0, free_port())
    with votes_served(voter, address, KEYED):
        yield address


def asked(voter, address, question, terms=KEYED, to=None):
    """What the voter answers; None when there is no answer."""
    return ask(to or voter.name, address, question, terms, PATIENCE_S)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """No limit of time decides a test where every thread may wait for a processor."""
    monkeypatch.setattr(control, "LISTEN_S", PATIENCE_S)
    monkeypatch.setattr(control, "ASK_TIMEOUT_S", PATIENCE_S)


@pytest.fixture
def ballot_fd():
    fd = os.memfd_create("ballot")
    format_ballot(fd)
    yield fd
    os.close(fd)


@pytest.fixture
def voter(ballot_fd):
    return Voter("a", ballot_fd, NAMES)


def promise_of(ballot):
    """A ballot but for its number."""
    return msgspec.structs.replace(ballot, generation=0)


def sent(address, message, size=None):
    """What the voter answers to a message of these bytes from one that holds the key; None when it closes without a word."""
    with socket.create_connection((address.host, address.vote_port), PATIENCE_S) as connection:
        talk = converse(connection, KEYED, True, PATIENCE_S)
        with contextlib.suppress(UnfitError):  # It may have hung up already.
            talk.patience.send(talk.channel.seal((len(message) if size is None else size).to_bytes(4, "little") + message))
        with contextlib.suppress(UnfitError):
            return msgspec.json.decode(talk.hear(), type=Answer)
    return None


def line(to="a", **fields):
    return json.dumps({"type": "ask", "to": to, "question": {"ask": "status", "name": "b"} | fields}).encode()


MALFORMED = {
    "nothing": b"",
    "no JSON": b"vote for me",
    "no UTF-8": b'{"type":"ask","to":"a","question":{"ask":"\xff\xfe","name":"b"}}',
    "an array": b"[]",
    "nested too deep": b"[" * 4000,
    "another message": b'{"type":"introduce","to":"a","name":"b"}',
    "no question": b'{"type":"ask","to":"a"}',
    "for another voter": line(to="b"),
    "for nobody": line(to=""),
    "no name": b'{"type":"ask","to":"a","question":{"ask":"would"}}',
    "a name that is a number": line(name=3),
    "an empty name": line(name=""),
    "a name with a line's end": line(name="a\nb"),
    "a long name": line(name="n" * (NAME_BYTES_MAX + 1)),
    "an unknown word": line(ask="abdicate"),
    "too long": line(name="b", members=["x" * 60] * 80),
    "hand_over without members": line(ask="hand_over"),
    "hand_over to two": line(ask="hand_over", members=["a", "b"]),
    "hand_over to a stranger": line(ask="hand_over", members=["mallory"]),
    "configure without members": line(ask="configure", epoch=1),
    "configure for others": line(ask="configure", epoch=1, members=["a", "c"]),
    "configure with a stranger": line(ask="configure", epoch=1, members=["b", "mallory"]),
    "configure with a member twice": line(ask="configure", epoch=1, members=["b", "b"]),
    "too many members": line(ask="configure", epoch=1, members=["b", *map(str, range(MEMBERS_MAX))]),
    "members with long names": line(ask="configure", epoch=1, members=["b", *(str(i) * 60 for i in range(8))]),
    "a stranger who would lead": line(ask="would", name="mallory", epoch=1),
    "no epoch": line(ask="grant"),
    "a negative epoch": line(ask="grant", epoch=-1),
    "an epoch that no record has room for": line(ask="grant", epoch=1 << 63),
    "the last epoch": line(ask="grant", epoch=NUMBER_MAX),
    "the last epoch configured": line(ask="configure", epoch=NUMBER_MAX, members=["b"]),
    "a number beyond all": line(ask="grant", epoch=1 << 70),
    "a fraction": line(ask="grant", epoch=1.5),
    "a sequence out of range": line(ask="grant", epoch=1, sequence=NUMBER_MAX + 1),
    "a log epoch out of range": line(ask="grant", epoch=1, log_epoch=-7),
    "a log of a later epoch": line(ask="grant", epoch=1, log_epoch=2),
    "a version out of range": line(ask="configure", epoch=1, members=["b"], version=-1),
    "the last version": line(ask="configure", epoch=1, members=["b"], version=NUMBER_MAX),
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_message_is_refused_with_its_reason_logged_and_changes_nothing(voter, message, caplog):
    with served(voter) as address, caplog.at_level(logging.WARNING):
        answer = sent(address, message)
        assert answer is not None and not answer.yes and answer.refusal
        assert promise_of(answer.ballot) == Ballot() == promise_of(load_ballot(voter.fd))
        assert asked(voter, address, Question("status", "test")) is not None  # It goes on.
        assert asked(voter, address, Question("grant", "b", epoch=1)).yes
    assert "127.0.0.1" in caplog.text and answer.refusal in caplog.text


def test_the_witness_who_knows_no_names_refuses_a_hand_over_without_members_too(ballot_fd):
    with served(Voter("witness", ballot_fd)) as address:
        assert "names one successor" in sent(address, line("witness", ask="hand_over")).refusal
        assert ask("witness", address, Question("grant", "anybody", epoch=1), KEYED, PATIENCE_S).yes


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_sent_a_voter_goes_on(voter, seed):
    dice = random.Random(seed)
    whole = line(ask="configure", epoch=3, members=["a", "b"], version=1)
    with served(voter) as address:
        for _ in range(40):
            data = bytearray(whole)
            for _ in range(dice.randrange(1, 6)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            sent(address, bytes(data[: dice.randrange(1, len(data) + 1)]))
        assert asked(voter, address, Question("status", "test")) is not None


def test_no_more_of_a_message_is_read_than_a_question_may_have(voter):
    with served(voter) as address:
        answer = sent(address, b"x" * 64, MESSAGE_BYTES_MAX + 1)
        assert answer is not None and f"up to {MESSAGE_BYTES_MAX} bytes" in answer.refusal
        assert asked(voter, address, Question("status", "test")) is not None


@pytest.mark.parametrize("answer", [
    b"", b"no", b"[" * 4000, b'{"yes":true}', b"\xff",
    msgspec.json.encode(Answer(True, Ballot(epoch=-1))), msgspec.json.encode(Answer(True, Ballot(epoch=NUMBER_MAX + 1))),
    msgspec.json.encode(Answer(True, Ballot(members=tuple(map(str, range(MEMBERS_MAX + 1)))))),
    msgspec.json.encode(Answer(True, Ballot(members=("",)))), msgspec.json.encode(Answer(True, Ballot(), sequence=-1)),
])  # fmt: skip
def test_an_answer_that_no_voter_gives_is_none(answer):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        def serve():
            connection, _ = listening.accept()
            with connection:
                talk = converse(connection, KEYED, False, PATIENCE_S)
                talk.hear()
                talk.say(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        address = Address("127.0.0.1", 0, listening.getsockname()[1])
        assert ask("a", address, Question("status", "test"), KEYED, PATIENCE_S) is None
        serving.join()


@pytest.mark.parametrize("name", ["x" * NAME_BYTES_MAX, '"' * NAME_BYTES_MAX, "\\" * NAME_BYTES_MAX, "ä" * (NAME_BYTES_MAX // 2)])
def test_the_largest_ballot_that_may_be_asked_for_fits_into_its_slot_and_its_question_and_answer_into_messages(ballot_fd, name):
    members = tuple(name[:-2] + f"{index:02d}" for index in range(MEMBERS_MAX))
    epoch, version = EPOCH_STEP_MAX, VERSION_STEP_MAX
    question = Question("configure", members[0], epoch, version=version, members=members)
    assert refusal_of(question) == ""
    assert len(msgspec.json.encode(Asked(name, Question("configure", name, *[NUMBER_MAX] * 4, members)))) <= MESSAGE_BYTES_MAX
    one = Voter("a", ballot_fd)
    assert one.decide(question).yes and one.decide(question).yes
    largest = Ballot(NUMBER_MAX, name, NUMBER_MAX, NUMBER_MAX, members, NUMBER_MAX)
    assert len(control.message_of(Answer(True, largest, True, NUMBER_MAX, '"' * 9999))) <= MESSAGE_BYTES_MAX
    assert load_ballot(ballot_fd).members == members
    assert os.fstat(ballot_fd).st_size == SLOTS_BYTES == len(encode_slot(largest)) * 2


# Strangers


def test_who_does_not_hold_the_key_is_told_nothing_and_changes_nothing(voter, caplog):
    """A stranger's configure of 10**6 once struck the replica that held every write."""
    voter.decide(Question("grant", "b", epoch=1))
    before = voter.ballot
    attack = Question("configure", "c", 1, version=10**6, members=("b", "c"))
    with served(voter) as address, caplog.at_level(logging.WARNING):
        others = Question("status", "c"), Question("grant", "c", epoch=2), Question("hand_over", "c", members=("b",))
        for question in (attack, *others):
            assert asked(voter, address, question, OTHER) is None
        plain = msgspec.json.encode(attack) + b"\n"
        for words in (plain, len(plain).to_bytes(4, "little") + plain, b"\0" * 200, b"GET / HTTP/1.1\r\n\r\n"):
            with socket.create_connection((address.host, address.vote_port), PATIENCE_S) as connection, \
                    contextlib.suppress(ConnectionError):
                connection.sendall(words)
                with contextlib.suppress(OSError):  # Hung up on already: ENOTCONN, which is no ConnectionError.
                    connection.shutdown(socket.SHUT_WR)
                heard = b""
                while part := connection.recv(4096):
                    heard += part
                assert b"epoch" not in heard
        assert asked(voter, address, Question("status", "b")).ballot == before == voter.ballot
    assert "127.0.0.1" in caplog.text and "does not hold our key" in caplog.text


def test_a_voter_and_who_asks_it_need_a_key(voter):
    with pytest.raises(UsageError, match="give them a shared key"), votes_served(voter, Address("127.0.0.1", 0, 0), IN_THE_CLEAR):
        pass
    with served(voter) as address, pytest.raises(UsageError, match="give them a shared key"):
        asked(voter, address, Question("status", "b"), IN_THE_CLEAR)


def test_a_question_for_one_voter_is_no_vote_of_another(ballot_fd):
    """One voter under two addresses would be a majority of three by itself."""
    voter = Voter("witness", ballot_fd)
    with served(voter) as address:
        assert not asked(voter, address, Question("grant", "a", epoch=1), to="b").yes
        answers = ask_all({"witness": address, "b": address}, Question("grant", "a", epoch=1), KEYED)
        assert [answer.yes for answer in answers].count(True) == 1


def test_silent_callers_delay_no_honest_one(voter):
    """A byte every half second once kept a voter from all others."""
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(served(voter))
        for _ in range(50):
            stack.enter_context(socket.create_connection((address.host, address.vote_port))).sendall(b"f")
        assert asked(voter, address, Question("grant", "b", epoch=1)).yes


def test_a_question_that_takes_long_delays_no_other(voter, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(voter, "hand_over", lambda to: released.wait(PATIENCE_S))
    with served(voter) as address:
        waiting = threading.Thread(target=asked, args=(voter, address, Question("hand_over", "b", members=("b",))))
        waiting.start()
        try:
            assert asked(voter, address, Question("grant", "b", epoch=1)).yes
            assert not released.is_set()
        finally:
            released.set()
            waiting.join()


def test_voters_are_asked_at_once_and_a_silent_one_is_not_waited_for_once_a_majority_has_said_yes(ballot_fd, monkeypatch):
    monkeypatch.setattr(control, "ASK_TIMEOUT_S", 10 * PATIENCE_S)
    voter = Voter("witness", ballot_fd)
    with served(voter) as address, socket.create_server(("127.0.0.1", 0)) as silent:
        others = {"b": Address("127.0.0.1", 0, silent.getsockname()[1]), "witness": address}
        given = []
        asking = threading.Thread(
            target=lambda: given.extend(ask_all(others, Question("grant", "a", epoch=1), KEYED)), daemon=True
        )
        asking.start()
        asking.join(PATIENCE_S)
        assert [one.yes for one in given] == [True]


# A primary that comes to a replica's port


@contextmanager
def awaited(terms=KEYED):
    """The address of the replica a, and who has come to it as a primary."""
    address = Address("127.0.0.1", free_port(), 0)
    with introductions("a", address, lambda: ("b", "c"), terms, lambda known: None) as arrivals:
        yield address, arrivals


@pytest.mark.parametrize("terms", [KEYED, SEALED, Terms("none", "zstd", KEYED.identity)], ids=["key", "tls", "key and zstd"])
def test_a_primary_that_proves_who_it_is_is_heard_under_its_name_and_answered(terms):
    with awaited(terms) as (address, arrivals), introduce("b", "a", address, terms, PATIENCE_S) as primary:
        primary.sendall(b"hello, a")
        name, connection = arrivals.take(PATIENCE_S)
        with connection:
            connection.settimeout(PATIENCE_S)
            assert (name, connection.recv(64)) == ("b", b"hello, a")
            connection.sendall(b"hello, b")
            primary.settimeout(PATIENCE_S)
            assert primary.recv(64) == b"hello, b"


@pytest.mark.parametrize(("name", "to", "terms", "said"), [
    ("b", "a", OTHER, "does not hold our key"), ("b", "a", SEALED, "demands"), ("mallory", "a", KEYED, "is no other replica"),
    ("a", "a", KEYED, "is no other replica"), ("b", "c", KEYED, "is for 'c'"), ("x" * 2000, "a", KEYED, "is no other replica"),
])  # fmt: skip
def test_who_is_no_primary_of_ours_is_refused_before_a_hello_is_read(name, to, terms, said):
    with awaited() as (address, arrivals):
        with pytest.raises(UnfitError, match=said):
            introduce(name, to, address, terms, PATIENCE_S)
        with socket.create_connection((address.host, address.port), PATIENCE_S) as plain, contextlib.suppress(ConnectionError):
            plain.sendall(b"\x01FRW" + bytes(124))  # Such as a HELLO.
            while plain.recv(4096):
                pass
        assert arrivals.take(0) is None


def test_silent_ones_at_a_replicas_port_delay_no_primary():
    """One that said nothing once held up a failover by 30 s; one that has proven who it is may say nothing as well."""
    with contextlib.ExitStack() as stack:
        address, arrivals = stack.enter_context(awaited())
        for _ in range(20):
            stack.enter_context(socket.create_connection((address.host, address.port)))
        stack.enter_context(introduce("c", "a", address, KEYED, PATIENCE_S))
        stack.enter_context(introduce("b", "a", address, KEYED, PATIENCE_S)).sendall(b"hello")
        name, connection = arrivals.take(PATIENCE_S)
        connection.close()
        assert name == "b"


def test_a_primary_that_has_gone_again_is_not_served_and_the_others_are_in_their_order():
    with contextlib.ExitStack() as stack:
        address, arrivals = stack.enter_context(awaited())
        with introduce("c", "a", address, KEYED, PATIENCE_S) as gone:
            gone.sendall(b"hello")
            while not arrivals.waiting:
                time.sleep(0.01)
        primaries = []
        for index in range(control.ARRIVALS_MAX - 1):
            primaries.append(stack.enter_context(introduce("b", "a", address, KEYED, PATIENCE_S)))
            primaries[-1].sendall(bytes([index]))
            while len(arrivals.waiting) < index + 2:  # Each caller has a thread; the first in is the first to be served.
                time.sleep(0.01)
        for index in range(control.ARRIVALS_MAX - 1):
            name, connection = arrivals.take(PATIENCE_S)
            assert (name, connection.recv(1)) == ("b", bytes([index]))
            connection.close()


# Who leads an epoch


def granted(ballot, name, epoch):
    kept, answer = decide(ballot, Question("grant", name, epoch))
    assert answer.yes
    return kept


def configure(ballot, name, epoch, version=1, members=("a", "b"), hears_primary=False):
    return decide(ballot, Question("configure", name, epoch, version=version, members=members), hears_primary=hears_primary)


def test_only_the_one_who_was_promised_an_epoch_configures_in_it():
    ballot = granted(Ballot(), "a", 3)
    assert not configure(ballot, "b", 3, version=10**6)[1].yes
    ballot, answer = configure(ballot, "a", 3)
    assert answer.yes and ballot.members == ("a", "b")
    assert not configure(ballot, "b", 3, version=2)[1].yes
    assert configure(ballot, "a", 3, version=2, members=("a",))[1].yes


def test_a_voter_outside_the_majority_takes_a_configuration_of_a_later_epoch_and_no_second_one_in_it():
    ballot = configure(granted(Ballot(), "a", 3), "a", 3)[0]
    assert not configure(ballot, "b", 2)[1].yes
    ballot, answer = configure(ballot, "b", 4)
    assert answer.yes and (ballot.epoch, ballot.candidate) == (4, "b")
    assert not configure(ballot, "a", 4, version=2)[1].yes
    assert not decide(ballot, Question("grant", "a", 4))[1].yes
    assert not configure(ballot, "a", 5, hears_primary=True)[1].yes


def test_a_replica_that_serves_a_primary_takes_its_configurations_whomever_it_had_voted_for():
    voted = granted(Ballot(), "a", 3)
    served = following(voted, 3, "b")
    assert not configure(served, "a", 3)[1].yes
    assert configure(served, "b", 3, hears_primary=True)[1].yes
    assert not configure(Ballot(epoch=3), "b", 3)[1].yes  # Known from a journal alone: by whom is not known.


def test_a_configuration_is_taken_again_and_is_not_replaced_by_another_of_its_number():
    ballot = configure(granted(Ballot(), "a", 3), "a", 3, version=5)[0]
    assert configure(ballot, "a", 3, version=5)[1].yes
    assert not configure(ballot, "a", 3, version=5, members=("a",))[1].yes
    assert not configure(ballot, "a", 3, version=4)[1].yes


class Replica:
    """What a candidate's steps need of a node."""

    votes = True

    def __init__(self, name, ballot=None, log=(0, 0)):
        self.name, self.ballot, self.log = name, ballot or Ballot(), log
        self.version, self.is_settled, self.is_outvoted = 0, True, False

    def log_of(self):
        return self.log

    def epoch_known(self):
        return self.ballot.epoch

    def decide(self, question):
        self.ballot, answer = decide(self.ballot, question, self.log, voter=self.name)
        return answer

    def adopt(self, known):
        self.ballot = ballots.adopted(self.ballot, known)

    def promise(self, epoch, candidate):
        self.ballot = ballots.promised(self.ballot, epoch, candidate)

    def replicas_now(self):
        return self.ballot.replicas


def elect(candidate, *others):
    steps = election.stand(candidate, len(others), ("a", "b"))
    return election.run_steps(steps, lambda question: [one.decide(question) for one in others])


def test_a_primary_that_won_by_others_votes_stands_again_where_it_needs_who_voted_for_the_loser():
    """The witness has promised the epoch to the loser, and would refuse the winner for ever."""
    a, b, witness = Replica("a"), Replica("b"), Replica("witness")
    witness.decide(Question("grant", "a", 1))
    a.decide(Question("grant", "b", 1))
    b.decide(Question("grant", "b", 1))

    def strike(others):
        steps = election.configure(b, 2, b.ballot.epoch, ("b",), ())
        return election.run_steps(steps, lambda question: [one.decide(question) for one in others])

    assert not strike([witness]) and b.is_outvoted  # a is lost.
    assert elect(b, witness) == 2
    assert strike([witness]) and not b.is_outvoted


def test_the_only_member_is_elected_though_who_was_struck_holds_more_of_what_was_never_acknowledged():
    """A pair without a witness had nobody to lead it for good: one was struck, the other behind it. A member's log counts."""
    for members, epoch in ((("b",), 5), (("a", "b"), 0)):
        ballot = Ballot(epoch=4, candidate="b", of_epoch=4, version=2, members=members)
        assert elect(Replica("b", ballot, log=(4, 79)), Replica("a", ballot, log=(4, 86))) == epoch


def test_an_epoch_near_the_last_leaves_everybody_able_to_lead():
    voters = [Replica(name) for name in ("a", "b", "witness")]
    for step in (NUMBER_MAX, NUMBER_MAX - 1, EPOCH_STEP_MAX + 1):
        for ask_for, voter in itertools.product(("would", "grant", "configure"), voters):
            answer = voter.decide(Question(ask_for, "a", step, members=("a",)))
            assert not answer.yes and "beyond 0" in answer.refusal
    liar = Replica("witness", Ballot(NUMBER_MAX, "x", NUMBER_MAX, NUMBER_MAX, ("x",)))
    assert elect(voters[0], voters[1], liar) == 1
    assert voters[0].ballot.members == ("a", "b")


def test_no_partition_is_too_long_to_come_back_from():
    away = Replica("b")
    there = Ballot(EPOCH_STEP_MAX - 1, "a", EPOCH_STEP_MAX - 1, 7, ("a", "b"))
    assert elect(Replica("a", there), Replica("witness", there)) == EPOCH_STEP_MAX
    assert elect(away, Replica("witness", there)) == EPOCH_STEP_MAX
    assert away.ballot.members == ("a", "b")


def test_a_version_grows_by_attempts_and_not_by_leaps():
    ballot = granted(Ballot(), "a", 1)
    ballot, answer = configure(ballot, "a", 1, VERSION_STEP_MAX + 1)
    assert not answer.yes and "version" in answer.refusal
    ballot, answer = configure(ballot, "a", 1, VERSION_STEP_MAX)
    assert answer.yes and configure(ballot, "a", 1, 2 * VERSION_STEP_MAX)[1].yes


# The ballot's file


PROMISED = Ballot(7, "b", 6, 3, ("a", "b"))


@contextmanager
def file_of(data):
    fd = os.memfd_create("ballot")
    try:
        os.pwrite(fd, data, 0)
        yield fd
    finally:
        os.close(fd)


def whole_file():
    """A voter's file once it has told of PROMISED, after other promises."""
    with file_of(b"") as fd:
        ballot = format_ballot(fd)
        for epoch in range(1, 7):
            ballot = save_ballot(fd, msgspec.structs.replace(ballot, epoch=epoch, candidate="a"))
        save_ballot(fd, msgspec.structs.replace(PROMISED, generation=ballot.generation))
        return os.pread(fd, 2 * SLOTS_BYTES, 0)


def reloaded(data):
    """What a voter remembers of these bytes, without its number, and the bytes then; None when it refuses to begin."""
    with file_of(data) as fd:
        try:
            return promise_of(load_ballot(fd)), os.pread(fd, 2 * SLOTS_BYTES, 0)
        except BallotError as refusal:
            assert "memfd:ballot" in str(refusal) and "begin the ballot anew" in str(refusal)
            return None


def test_whatever_bit_of_a_slot_flips_a_promise_that_was_told_is_remembered_and_the_slot_made_whole():
    whole = whole_file()
    told = decode_slots(whole).ballot
    damaged = bytearray(whole)
    for bit in range(8 * SLOTS_BYTES):
        damaged[bit // 8] ^= 1 << bit % 8
        assert decode_slots(damaged) == Slots(told, bit // 8 // SLOT_BYTES), bit
        if bit % 499 == 0:
            assert reloaded(damaged) == (PROMISED, whole), bit
        damaged[bit // 8] ^= 1 << bit % 8


def test_a_slot_that_a_save_has_never_reached_is_written_again_and_not_believed():
    whole = whole_file()
    older = encode_slot(Ballot(6, "a", generation=1))
    for stale in (older + whole[SLOT_BYTES:], whole[:SLOT_BYTES] + older):
        assert reloaded(stale) == (PROMISED, whole)


def test_wherever_a_ballot_is_cut_off_a_promise_that_was_told_is_remembered_or_the_voter_refuses_to_begin():
    whole = whole_file()
    for size in range(len(whole)):
        found = reloaded(whole[:size])
        assert found == ((PROMISED, whole) if size >= SLOT_BYTES else None), size


@pytest.mark.parametrize("data", [b"", bytes(SLOTS_BYTES), b"\xff" * SLOTS_BYTES, bytes(100)])
def test_a_file_that_holds_no_ballot_is_never_taken_for_that_of_a_new_voter(data):
    assert reloaded(data) is None
    with file_of(data) as fd, pytest.raises(BallotError):
        Voter("a", fd)


def test_two_damaged_slots_are_refused_and_left_as_they_are():
    damaged = bytearray(whole_file())
    damaged[9] ^= 1
    damaged[SLOT_BYTES + 9] ^= 1
    with file_of(damaged) as fd:
        with pytest.raises(BallotError, match="damaged in both slots"):
            load_ballot(fd)
        assert os.pread(fd, SLOTS_BYTES, 0) == damaged


def test_wherever_a_save_is_torn_the_voter_begins_with_what_it_has_told_or_with_the_promise_that_it_was_about_to_make():
    whole = whole_file()
    told = decode_slots(whole).ballot
    next_one = next_generation(msgspec.structs.replace(told, epoch=8, candidate="a"))
    for first in (0, 1):
        before = bytearray(whole)
        for offset, block in writes_of(next_one, first):
            for torn in range(0, SLOT_BYTES, 61):  # Some of the new bytes, and of the others the old ones or none.
                for rest in (before[offset + torn : offset + SLOT_BYTES], bytes(SLOT_BYTES - torn)):
                    state = bytearray(before)
                    state[offset : offset + SLOT_BYTES] = block[:torn] + rest
                    ballot, repaired = reloaded(state)
                    assert ballot in (PROMISED, promise_of(next_one))
                    assert repaired[:SLOT_BYTES] == repaired[SLOT_BYTES:]
            before[offset : offset + SLOT_BYTES] = block


def test_a_ballot_is_begun_once_and_not_over_another(ballot_fd):
    with pytest.raises(BallotError, match="may hold what a voter has promised"):
        format_ballot(ballot_fd)
    with file_of(b"") as fd:
        format_ballot(fd, 9)
        voter = Voter("a", fd)
        assert not voter.decide(Question("grant", "b", 9)).yes and voter.decide(Question("grant", "b", 10)).yes


def test_a_slot_that_was_torn_by_a_save_that_failed_is_the_first_to_be_written_again(voter, monkeypatch):
    """So that one slot is whole at every instant."""
    written, fails = [], 0

    def pwrite(fd, block, offset, real=os.pwrite):
        written.append(offset // SLOT_BYTES)
        if len(written) == fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, block, offset)

    monkeypatch.setattr(vote.os, "pwrite", pwrite)
    for failing, torn in ((1, 0), (2, 1), (1, 1)):
        written.clear()
        fails = failing
        with pytest.raises(BallotError):
            voter.promise(voter.ballot.epoch + 1, "b")
        assert written[-1] == voter.torn == torn
        assert promise_of(voter.ballot) == Ballot()
    written.clear()
    fails = 0
    voter.promise(5, "c")
    assert written == [1, 0] and load_ballot(voter.fd).candidate == "c"


# The disk


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_a_ballot_that_cannot_be_written_is_an_error_of_the_disk_and_no_vote(voter, monkeypatch, caplog, code, call):
    def fails(*arguments):
        raise OSError(code, os.strerror(code))

    with served(voter) as address, caplog.at_level(logging.WARNING):
        monkeypatch.setattr(vote.os, call, fails)
        answer = asked(voter, address, Question("grant", "b", epoch=7))
        monkeypatch.undo()
        assert answer is not None and not answer.yes and answer.ballot.epoch == 0
        for words in ("memfd:ballot", os.strerror(code), f"errno {code}"):
            assert words in answer.refusal and words in caplog.text
        assert asked(voter, address, Question("grant", "c", epoch=7)).yes  # Nothing was promised to b.


def test_a_ballot_written_in_part_is_not_durable(ballot_fd, monkeypatch):
    monkeypatch.setattr(vote.os, "pwrite", lambda *arguments: 512)
    with pytest.raises(BallotError, match=r"memfd:ballot.*No space left"):
        save_ballot(ballot_fd, Ballot(epoch=1))


def test_a_full_file_system_is_named(tmp_path):
    path = tmp_path / "ballot"
    path.touch()
    fd = os.open(path, os.O_RDONLY)  # Every write is refused.
    try:
        with pytest.raises(BallotError, match=f"make the ballot {path} durable .errno {errno.EBADF}.: Bad file descriptor"):
            save_ballot(fd, Ballot())
    finally:
        os.close(fd)


# Faults of our own


def test_a_fault_of_our_own_gives_no_vote_and_does_not_end_the_voter(voter, monkeypatch, caplog):
    with served(voter) as address:
        monkeypatch.setattr(ballots, "may_grant", lambda *arguments: 1 // 0)
        answer = asked(voter, address, Question("grant", "b", epoch=1))
        assert not answer.yes and "ZeroDivisionError" in answer.refusal and "ZeroDivisionError" in caplog.text
        monkeypatch.undo()
        assert asked(voter, address, Question("grant", "b", epoch=1)).yes


def test_votes_end_with_the_block_that_serves_them_even_when_it_fails(voter):
    address = Address("127.0.0.1", 0, free_port())

    def block():
        with votes_served(voter, address, KEYED):
            raise KeyError("a loop that failed")

    failed = []

    def run():
        try:
            block()
        except KeyError as failure:
            failed.append(failure)

    running = threading.Thread(target=run, daemon=True)
    running.start()
    running.join(20)
    assert failed, "the block waits for a voter that nothing ends"
    assert asked(voter, address, Question("status", "test")) is None


def test_nothing_of_the_engine_decodes_by_a_type_that_threads_may_be_the_first_to_use():
    """Two that were ended the process: SIGSEGV in msgspec, in one of a thousand lives of a voter."""
    files = list(Path(control.__file__).parent.rglob("*.py"))
    found = [
        f"{path.name}:{node.lineno}" for path in files for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("msgspec.json.decode", "msgspec.convert")
        and "simulate" not in path.parts
    ]  # fmt: skip
    assert len(files) > 20 and not found, "decode by a Decoder that is made when the module is loaded"
