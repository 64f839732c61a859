"""Replicas that come and go: what is decided of them, whose a row of the primary is, and what comes next of a move."""

import itertools

import msgspec
import numpy as np
import pytest

from farwrite.base.host import reactor
from farwrite.base.host.disk import disk
from farwrite.engine import election, turn_kernel
from farwrite.engine import primary_kernel as p
from farwrite.engine import replica_kernel as replica
from farwrite.engine.ballot import (
    NAME_BYTES_MAX,
    REPLICAS_MAX,
    SLOT_BYTES,
    Answer,
    Ballot,
    Placed,
    Question,
    adopted,
    decide,
    decode_slots,
    encode_slot,
    is_ballot,
    writes_of,
)
from farwrite.engine.control import Address, address_of
from farwrite.engine.journal import begin_anew
from farwrite.engine.replica_set import (
    ADD,
    DONE,
    HAND_OVER,
    LEAVING,
    NOBODY,
    REMOVE,
    WAIT,
    PeerRows,
    Standing,
    add,
    add_refusal_of,
    let_go,
    may_change,
    next_of_cancelling,
    next_of_move,
    remove_refusal_of,
)

A, B, C = (Placed(name, "10.0.0.1", 7000 + index, 7100 + index) for index, name in enumerate("abc"))


class Candidate:
    """A replica without a vote, and what its steps need of it."""

    votes, name = False, "a"

    def __init__(self, ballot=None, log=(0, 0)):
        self.ballot, self.log = ballot or Ballot(), log
        self.version, self.is_settled, self.is_outvoted = 0, True, False

    def log_of(self):
        return self.log

    def epoch_known(self):
        return self.ballot.epoch

    def decide(self, question):
        self.ballot, answer = decide(self.ballot, question, self.log, voter=self.name)
        return answer

    def adopt(self, known):
        self.ballot = adopted(self.ballot, known)

    def promise(self, epoch, candidate):
        self.ballot = msgspec.structs.replace(self.ballot, epoch=epoch, candidate=candidate)

    def replicas_now(self):
        return self.ballot.replicas


class Apart:
    """A voter that holds no data."""

    def __init__(self, ballot=None):
        self.ballot = ballot or Ballot()

    def decide(self, question):
        self.ballot, answer = decide(self.ballot, question, known=("a", "b"), voter="v")
        return answer


def run(steps, voters):
    return election.run_steps(steps, lambda question: [one.decide(question) for one in voters])


def test_where_voters_stand_apart_the_candidates_own_word_makes_no_majority():
    for heard in range(4):
        voters = [Apart() for _ in range(3)]
        candidate = Candidate()
        epoch = run(election.stand(candidate, 3, ("a", "b")), voters[:heard])
        assert epoch == (1 if heard >= 2 else 0)
        assert candidate.ballot.epoch == epoch, "it has promised itself what it leads in, and nothing else"


def test_a_replica_that_was_added_is_known_to_the_voters_with_its_address_and_leads_only_as_a_member():
    voters, leader = [Apart() for _ in range(3)], Candidate()
    assert run(election.stand(leader, 3, ("a", "b")), voters) == 1
    assert run(add(leader, 3, 1, (A, B), C), voters)
    assert all(one.ballot.replicas == (A, B, C) and one.ballot.members == ("a", "b") for one in voters)
    other = Candidate(Ballot(epoch=1, candidate="a"))
    other.name = "c"
    assert run(election.stand(other, 3, ("a", "b")), voters) == 0
    assert run(election.configure(leader, 3, 1, ("a", "b", "c"), leader.ballot.replicas), voters)
    assert run(election.stand(other, 3, ("a", "b")), voters) == 2
    assert other.ballot.replicas == (A, B, C)


def test_a_replica_that_was_let_go_is_a_stranger():
    voters, leader = [Apart() for _ in range(3)], Candidate()
    assert run(election.stand(leader, 3, ("a", "b")), voters) == 1
    assert run(let_go(leader, 3, 1, (A, B), "b"), voters)
    assert all(one.ballot.replicas == (A,) and one.ballot.members == ("a",) for one in voters)
    other = Candidate(Ballot(epoch=1, candidate="a"), (1, 9))
    other.name = "b"
    assert run(election.stand(other, 3, ("a", "b")), voters) == 0


def test_a_change_that_no_majority_keeps_changes_nothing_for_who_asked():
    voters, leader = [Apart() for _ in range(3)], Candidate()
    assert run(election.stand(leader, 3, ("a", "b")), voters) == 1
    before = leader.ballot
    assert not run(add(leader, 3, 1, (A, B), C), voters[:1])
    assert leader.ballot == before and not leader.is_settled
    assert run(election.configure(leader, 3, 1, before.members, before.replicas), voters)
    assert all(one.ballot.replicas == () for one in voters)


def test_one_that_holds_nothing_leads_only_where_nobody_ever_has():
    """A member whose disk was exchanged: its ballot is gone with it."""
    voters, leader = [Apart() for _ in range(3)], Candidate()
    assert run(election.stand(leader, 3, ("a", "b")), voters) == 1
    blank = Candidate()
    blank.name = "b"
    assert run(election.stand(blank, 3, ("a", "b")), voters) == 0
    served = Candidate(Ballot(epoch=1, candidate="a"))
    served.name = "b"
    assert run(election.stand(served, 3, ("a", "b")), voters) == 2


def test_one_without_a_promise_of_its_own_makes_that_of_the_voters_before_it_serves():
    blank = Candidate()
    assert election.must_hear_of_others(blank)
    known = Ballot(epoch=7, candidate="c", of_epoch=7, version=2, members=("c",), replicas=(C,))
    assert not run(election.hear_of_others(blank, 3), [Apart(known)])
    assert blank.ballot.epoch == 0
    assert run(election.hear_of_others(blank, 3), [Apart(known), Apart(Ballot(epoch=3))])
    assert blank.ballot.epoch == 7 and blank.ballot.candidate == "" and blank.ballot.replicas == (C,)
    assert not election.must_hear_of_others(blank)
    blank.votes = True
    assert not election.must_hear_of_others(Candidate(Ballot(epoch=1))) and not election.must_hear_of_others(blank)


@pytest.mark.parametrize(("question", "refusal"), [
    (Question("configure", "a", 1, version=1, members=("a", "c"), replicas=(A, B)), "c: a member, and no replica"),
    (Question("configure", "a", 1, version=1, members=("a",), replicas=(A, A)), "each once"),
    (Question("configure", "a", 1, version=1, members=("a",), replicas=(A, Placed("x", "a host", 1, 1))), "printable ASCII"),
    (Question("configure", "a", 1, version=1, members=("a",), replicas=(A, Placed("x", "h", 1, 1 << 16))), "between 1 and 65535"),
    (Question("configure", "a", 1, version=1, members=("a",), replicas=(A, Placed("\n", "h", 1, 1))), "can be printed"),
    (Question("grant", "a", 1, replicas=(A,)), "grant names no replicas"),
    (Question("configure", "a", 1, version=1, members=("a",),
              replicas=tuple(Placed(f"{index}", "h", 1, 1) for index in range(REPLICAS_MAX + 1))), "up to 5 replicas"),
])  # fmt: skip
def test_a_set_of_replicas_that_cannot_be_is_refused_and_changes_nothing(question, refusal):
    ballot = Ballot()
    kept, answer = decide(ballot, question)
    assert kept is ballot and not answer.yes and refusal in answer.refusal
    told = Ballot(members=question.members, replicas=question.replicas)
    assert not is_ballot(told) or question.ask == "grant"


def test_the_largest_configuration_fits_into_a_slot_and_its_answer_into_a_message():
    names = ['"' * NAME_BYTES_MAX, "\\" * NAME_BYTES_MAX]
    replicas = tuple(Placed(one[:-1] + str(index), "h" * 64, 65535, 65535) for index, one in enumerate(names))
    ballot = Ballot(1 << 61, names[0], 1 << 61, 1 << 61, tuple(one.name for one in replicas), 1 << 61, replicas)
    assert is_ballot(ballot)
    assert decode_slots(b"".join(block for _, block in writes_of(ballot))).ballot == ballot
    assert len(encode_slot(ballot)) == SLOT_BYTES
    longest = tuple(Placed(chr(0x4E00 + index) * 20 + '"' * 3, "h" * 64, 65535, 65535) for index in range(REPLICAS_MAX))
    largest = msgspec.structs.replace(ballot, members=tuple(one.name for one in longest), replicas=longest)
    assert is_ballot(largest)
    assert len(encode_slot(largest)) == SLOT_BYTES
    assert len(msgspec.json.encode(Answer(True, largest, refusal="\u4e00" * 300))) <= 4096


def test_a_ballot_from_before_there_were_sets_is_read():
    old = msgspec.json.encode({"epoch": 3, "candidate": "a", "of_epoch": 3, "version": 1, "members": ["a"], "generation": 9})
    assert msgspec.json.decode(old, type=Ballot) == Ballot(3, "a", 3, 1, ("a",), 9)


def test_which_changes_are_refused_and_with_which_words():
    members = ("a", "b")
    assert add_refusal_of(C, members, (A, B)) == ""
    assert "remove it first" in add_refusal_of(Placed("b", "elsewhere", 1, 1), members, (A, B))
    many = tuple(Placed(f"{index}", "h", 1, 1) for index in range(REPLICAS_MAX))
    assert "no more than 5" in add_refusal_of(C, (), many)
    assert "65535" in add_refusal_of(Placed("x", "h", 0, 1), members, (A, B))
    assert remove_refusal_of("b", "a", (), (A, B)) == ""
    assert "no replica c (a, b)" in remove_refusal_of("c", "a", (), (A, B))
    assert "last copy" in remove_refusal_of("a", "a", (), (A,))
    assert "leads" in remove_refusal_of("a", "a", (), (A, B))
    assert "votes" in remove_refusal_of("b", "a", ("a", "b", "w"), (A, B))
    assert may_change(p.C, p.CONSENT) == "" and may_change(p.A, p.CONSENT) == ""
    assert "quorum" in may_change(p.QUORUM, p.BLOCK) and "consent" in may_change(p.C, p.BLOCK)
    assert "consent" in may_change(p.A, p.SUSPEND_REPLICATION)


def test_an_address_of_a_configuration_is_reached_as_others_at_that_host_are():
    def dial(place, limit_s):
        raise OSError

    known = (Address("10.0.0.1", 1, 2, dial), Address("10.0.0.2", 1, 2))
    assert address_of(A, known) == Address("10.0.0.1", 7000, 7100, dial)
    assert address_of(Placed("x", "10.0.0.2", 5, 6), known).dial is None
    assert address_of(Placed("x", "10.0.0.9", 5, 6), known).dial is None


# What comes next of a move


def test_a_move_ends_from_wherever_it_is_begun_again_and_removes_nobody_before_the_other_has_everything():
    """Every standing of two replicas and a third, with what is done applied to it, until it is done."""
    for source_leads, is_member, is_live in itertools.product((True, False), repeat=3):
        seen = {"s": Standing(source_leads, True, not source_leads), "o": Standing(not source_leads, True, source_leads)}
        steps = []
        while (step := next_of_move("s", "d", seen)) != DONE:
            steps.append(step)
            if step == ADD:
                seen["d"] = Standing(False, is_member, is_live)
            elif step == WAIT:
                seen["d"] = Standing(False, True, True)
            elif step == HAND_OVER:
                seen["s"], seen["d"] = Standing(False, True, True), Standing(True, True, False)
            elif step == REMOVE:
                assert seen["d"].leads or (seen["d"].is_member and seen["d"].is_live)
                assert not seen["s"].leads
                del seen["s"]
            assert len(steps) < 6
        assert set(seen) == {"d", "o"} and steps[0] == ADD and steps[-1] == REMOVE


def test_a_move_that_is_cancelled_leaves_the_source_where_it_has_not_gone():
    source, behind = Standing(True, True, False), Standing(False, False, False)
    assert next_of_cancelling("s", "d", {"s": source}) == DONE
    assert next_of_cancelling("s", "d", {"s": source, "d": behind}) == REMOVE
    led = {"s": Standing(False, True, True), "d": Standing(True, True, False)}
    assert next_of_cancelling("s", "d", led) == HAND_OVER
    assert next_of_cancelling("s", "d", led | {"s": Standing(False, True, False)}) == WAIT
    assert next_of_cancelling("s", "d", {"d": led["d"]}) == DONE


# Rows


def test_a_row_is_nobodys_until_the_loop_has_let_go_of_its_last_one_and_nothing_of_that_one_is_left():
    with disk(None, 8 << 20, 1 << 20) as chosen, reactor.reactor() as ring:
        journal = begin_anew(chosen, 9, 1 << 20)
        state = p.primary_state(journal, ring, [], p.C, 1, 10**9, policy=p.CONSENT, peer_count=3, volume_bytes=1 << 20)
        rows = PeerRows(["b", "c"], 3)
        rows.begin(state, ("a", "b"))
        assert state.peer["detached"].tolist() == [p.WAITED_FOR, p.DETACHED, p.NOT_YET]
        assert list(rows.named()) == [(0, "b"), (1, "c")]
        assert p.submit(state, 0, 0, 4096, 0) == 1
        while journal.at[0].durable_sequence < 1:
            assert turn_kernel.progress(state, 0) == replica.OK
        for _ in range(200):
            assert turn_kernel.progress(state, 0) == replica.OK
        assert state.at[0].completed == 0, "it waits for b"
        exposed = int(state.at[0].exposed)
        state.peer[0].durable, state.peer[0].received, state.peer[0].lost_count = 77, 78, 3
        freed = []
        rows.follow(state, ["c"], freed.append)
        assert rows.names == [LEAVING, "c", NOBODY] and not rows.is_gone("b") and freed == []
        rows.follow(state, ["c", "d", "e"], freed.append)  # There is one free row only.
        assert rows.names == [LEAVING, "c", "d"]
        while state.control_requests[0].request != p.NOTHING:
            assert turn_kernel.progress(state, 0) == replica.OK
        rows.follow(state, ["c", "d", "e"], freed.append)
        assert rows.names == ["e", "c", "d"] and freed == [0] and rows.is_gone("b") and rows.of("b") == -1
        row = state.peer[0]
        assert (row.durable, row.received, row.lost_count, row.state, row.detached) == (0, 0, 0, p.ABSENT, p.NOT_YET)
        for _ in range(200):
            assert turn_kernel.progress(state, 0) == replica.OK
        assert state.at[0].completed == 1
        assert state.at[0].exposed == exposed + 1, "c was detached; e and d were never waited for"
        assert replica.settle(journal, ring) == replica.OK


def test_a_row_with_a_request_under_way_is_left_alone():
    state = type("State", (), {})()
    state.control_requests = np.rec.array(np.zeros(2, p.ControlRequest.LAYOUT))
    rows = PeerRows(["b", "c"], 2)
    state.control_requests[0].request = p.ADOPT
    rows.follow(state, ["c"])
    assert rows.names == ["b", "c"] and state.control_requests[0].request == p.ADOPT
    state.control_requests[0].request = p.NOTHING
    rows.follow(state, ["c"])
    assert rows.names == [LEAVING, "c"] and state.control_requests[0].request == p.VACATE
