"""Votes over a socket: no message ends a voter, each that cannot be considered is refused with its reason, and a ballot that
cannot be written is an error of the disk."""

import contextlib
import errno
import json
import logging
import os
import random
import socket
import threading
import time
from contextlib import contextmanager

import msgspec
import pytest

from farwrite.engine import ballot, vote
from farwrite.engine.ballot import (
    MEMBERS_MAX,
    NAME_BYTES_MAX,
    NUMBER_MAX,
    SLOT_BYTES,
    Answer,
    Ballot,
    Question,
    refusal_of,
)
from farwrite.engine.vote import (
    MESSAGE_BYTES_MAX,
    Address,
    BallotError,
    Voter,
    ask,
    load_ballot,
    save_ballot,
    votes_served,
)

NAMES = ("a", "b", "c")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as made:
        return made.getsockname()[1]


@contextmanager
def served(voter):
    """Where a voter answers, and a list that has a word once it has ended."""
    address = Address("127.0.0.1", 0, free_port())
    with votes_served(voter, address, lambda: False):
        yield address


@pytest.fixture
def ballot_fd():
    fd = os.memfd_create("ballot")
    yield fd
    os.close(fd)


@pytest.fixture
def voter(ballot_fd):
    return Voter("a", ballot_fd, NAMES)


def sent(address, data, end=True):
    """What the voter answers to these bytes; None when it closes without a word."""
    with socket.create_connection((address.host, address.vote_port), 5) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(4096):
                answer += part
    return msgspec.json.decode(answer, type=Answer) if answer else None


def line(**fields):
    return json.dumps({"ask": "status", "name": "b"} | fields).encode() + b"\n"


MALFORMED = {
    "nothing": b"\n",
    "no JSON": b"vote for me\n",
    "no UTF-8": b'{"ask":"\xff\xfe","name":"b"}\n',
    "an array": b"[]\n",
    "nested too deep": b"[" * 4000 + b"\n",
    "no name": b'{"ask":"would"}\n',
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
    "a stranger who would lead": line(ask="would", name="mallory", epoch=1),
    "no epoch": line(ask="grant"),
    "a negative epoch": line(ask="grant", epoch=-1),
    "an epoch that no record has room for": line(ask="grant", epoch=1 << 63),
    "a number beyond all": line(ask="grant", epoch=1 << 70),
    "a fraction": line(ask="grant", epoch=1.5),
    "a sequence out of range": line(ask="grant", epoch=1, sequence=NUMBER_MAX + 1),
    "a log epoch out of range": line(ask="grant", epoch=1, log_epoch=-7),
    "a version out of range": line(ask="configure", epoch=1, members=["b"], version=-1),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_message_is_refused_with_its_reason_logged_and_changes_nothing(voter, data, caplog):
    with served(voter) as address, caplog.at_level(logging.WARNING):
        answer = sent(address, data)
        assert answer is not None and not answer.yes and answer.refusal
        assert answer.ballot == Ballot() == load_ballot(voter.fd)
        assert ask(address, Question("status", "test")) is not None  # It goes on.
        assert ask(address, Question("grant", "b", epoch=1)).yes
    assert "127.0.0.1" in caplog.text and answer.refusal in caplog.text


def test_the_witness_who_knows_no_names_refuses_a_hand_over_without_members_too(ballot_fd):
    with served(Voter("witness", ballot_fd)) as address:
        assert "names one successor" in sent(address, line(ask="hand_over")).refusal
        assert ask(address, Question("grant", "anybody", epoch=1)).yes


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_sent_a_voter_goes_on(voter, seed):
    dice = random.Random(seed)
    whole = line(ask="configure", epoch=3, members=["a", "b"], version=1)
    with served(voter) as address:
        for _ in range(60):
            data = bytearray(whole)
            for _ in range(dice.randrange(1, 6)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            sent(address, bytes(data[: dice.randrange(1, len(data) + 1)]))
        assert ask(address, Question("status", "test")) is not None


def test_who_says_nothing_or_little_at_a_time_holds_a_voter_up_no_longer_than_a_question_may_take(voter, monkeypatch):
    monkeypatch.setattr(vote, "ASK_TIMEOUT_S", 0.3)
    with served(voter) as address, socket.create_connection((address.host, address.vote_port)) as slow:
        ended = threading.Event()

        def drip():
            with contextlib.suppress(OSError):
                while not ended.is_set():  # Each byte is in time; all together never are.
                    slow.sendall(b" ")
                    time.sleep(0.05)

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert ask(address, Question("status", "test"), 20) is not None
        finally:
            ended.set()
            dripping.join()


def test_no_more_of_a_message_is_read_than_a_question_may_have(voter):
    with served(voter) as address:
        answer = sent(address, b"x" * MESSAGE_BYTES_MAX + b"x", end=False)
        assert answer is None or "longer than" in answer.refusal  # A reset may overtake the answer.
        assert ask(address, Question("status", "test")) is not None


@pytest.mark.parametrize("answer", [
    b"", b"no\n", b"[" * 4000, b'{"yes":true}', b"x" * (MESSAGE_BYTES_MAX + 1), b"\xff\n",
    msgspec.json.encode(Answer(True, Ballot(epoch=-1))), msgspec.json.encode(Answer(True, Ballot(epoch=NUMBER_MAX + 1))),
    msgspec.json.encode(Answer(True, Ballot(members=tuple(map(str, range(MEMBERS_MAX + 1)))))),
    msgspec.json.encode(Answer(True, Ballot(members=("",)))), msgspec.json.encode(Answer(True, Ballot(), sequence=-1)),
])  # fmt: skip
def test_an_answer_that_no_voter_gives_is_none(answer):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        assert ask(Address("127.0.0.1", 0, listening.getsockname()[1]), Question("status", "test")) is None
        serving.join()


@pytest.mark.parametrize("name", ["x" * NAME_BYTES_MAX, '"' * NAME_BYTES_MAX, "\\" * NAME_BYTES_MAX, "ä" * (NAME_BYTES_MAX // 2)])
def test_the_largest_ballot_that_may_be_asked_for_fits_into_its_slot(ballot_fd, name):
    members = tuple(name[:-2] + f"{index:02d}" for index in range(MEMBERS_MAX))
    question = Question("configure", members[0], NUMBER_MAX, version=NUMBER_MAX, members=members)
    assert refusal_of(question) == ""
    one = Voter("a", ballot_fd)
    assert one.decide(question).yes and one.decide(question).yes
    assert load_ballot(ballot_fd).members == members
    assert os.fstat(ballot_fd).st_size == 2 * SLOT_BYTES


# The disk


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_a_ballot_that_cannot_be_written_is_an_error_of_the_disk_and_no_vote(voter, monkeypatch, caplog, code, call):
    def fails(*arguments):
        raise OSError(code, os.strerror(code))

    with served(voter) as address, caplog.at_level(logging.ERROR):
        monkeypatch.setattr(vote.os, call, fails)
        answer = ask(address, Question("grant", "b", epoch=7))
        monkeypatch.undo()
        assert answer is not None and not answer.yes and answer.ballot.epoch == 0
        for words in ("memfd:ballot", os.strerror(code), f"errno {code}"):
            assert words in answer.refusal and words in caplog.text
        assert ask(address, Question("grant", "c", epoch=7)).yes  # Nothing was promised to b.


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
        monkeypatch.setattr(ballot, "may_grant", lambda *arguments: 1 // 0)
        answer = ask(address, Question("grant", "b", epoch=1))
        assert not answer.yes and "ZeroDivisionError" in answer.refusal and "ZeroDivisionError" in caplog.text
        monkeypatch.undo()
        assert ask(address, Question("grant", "b", epoch=1)).yes


def test_votes_end_with_the_block_that_serves_them_even_when_it_fails(voter):
    address = Address("127.0.0.1", 0, free_port())

    def block():
        with votes_served(voter, address, lambda: False):
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
    assert ask(address, Question("status", "test")) is None
