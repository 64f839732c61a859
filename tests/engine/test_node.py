"""When a replica stands: at once after a process that is known to have ended, late after one that is silent or has hung up."""

import os
import socket
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from farwrite.base.errors import UnfitError
from farwrite.base.wire.door import SparseLog
from farwrite.base.wire.terms import SharedKey, Terms
from farwrite.engine import journal_kernel as log
from farwrite.engine import node as node_module
from farwrite.engine import primary_kernel as p
from farwrite.engine.ballot import Ballot, Question
from farwrite.engine.control import Address, Arrivals, ask, ask_in, ask_running, conversation_with, votes_served
from farwrite.engine.node import LOT_S_MIN, Node
from farwrite.engine.peer_timeout import PEER_TIMEOUT_NS_MIN, peer_timeout_of
from farwrite.engine.vote import Voter, format_ballot
from ports import free_port

KEYED = Terms("none", "none", SharedKey(os.urandom(32)))


def waiting(address, looks=3):
    """What Node.watch_last_primary needs of a node whose first session has ended; it ends by itself after some looks."""
    left = iter(range(looks))
    return SimpleNamespace(
        election_wait_s=lambda: 60.0, stopped=lambda: next(left, None) is None, session_count=1, peers={"near": address},
        name="far", terms=KEYED, ask_s=2.0, orphaned_session=0, lot_s=LOT_S_MIN,
    )  # fmt: skip


@pytest.fixture
def voter():
    descriptor = os.memfd_create("ballot")
    format_ballot(descriptor)
    yield Voter("near", descriptor)
    os.close(descriptor)


def test_a_port_at_which_nobody_listens_tells_that_the_last_primarys_process_has_ended():
    node = waiting(Address("127.0.0.1", 1, free_port()))
    Node.watch_last_primary(node, "near", 1)
    assert node.orphaned_session == 1 and node.lot_s >= LOT_S_MIN


def test_a_primary_that_lives_and_has_only_hung_up_is_not_taken_for_one_that_has_ended(voter):
    address = Address("127.0.0.1", 1, free_port())
    with votes_served(voter, address, KEYED):
        node = waiting(address)
        Node.watch_last_primary(node, "near", 1)
    assert node.orphaned_session == 0


def test_a_primary_that_is_silent_is_not_taken_for_one_that_has_ended():
    """Its machine takes the connection and nobody answers, as of a process that stands still."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        node = waiting(Address("127.0.0.1", 1, silent.getsockname()[1]), looks=1)
        node.ask_s = 0.05
        Node.watch_last_primary(node, "near", 1)
    assert node.orphaned_session == 0


def test_a_new_session_ends_the_search_for_the_last_primary():
    node = waiting(Address("127.0.0.1", 1, free_port()))
    node.session_count = 2
    Node.watch_last_primary(node, "near", 1)
    assert node.orphaned_session == 0


def test_a_refused_question_is_told_from_one_that_is_not_answered(voter):
    address = Address("127.0.0.1", 1, free_port())
    with pytest.raises(ConnectionRefusedError):
        ask_running("near", address, None, KEYED, 1.0)
    assert ask("near", address, None, KEYED, 1.0) is None


def lots(peers, lost, count=400):
    """What `orphans_wait_s` draws."""
    values = iter([index / count for index in range(count)])
    node = SimpleNamespace(
        peers=dict.fromkeys(range(peers)), lost_elections=lost, lot_s=0.05, random=SimpleNamespace(random=lambda: next(values)),
        election_wait_s=lambda: 1.5,
    )  # fmt: skip
    return [Node.orphans_wait_s(node) for _ in range(count)]


def test_the_only_one_that_may_stand_does_not_wait_and_of_several_each_waits_by_lot():
    assert max(lots(peers=1, lost=0)) == 0
    assert 0.04 < max(lots(peers=2, lost=0)) < 0.05


@pytest.mark.parametrize("peers", [1, 2, 4])
def test_lots_double_with_each_election_that_is_lost_and_are_never_wider_than_the_wait_for_a_silent_primary(peers):
    widest = [max(lots(peers, lost)) for lost in range(12)]
    assert widest == sorted(widest) and widest[-1] == 1.5


@pytest.mark.parametrize(("sessions", "orphaned", "flags", "said"), [
    (1, 1, 0, True), (0, 0, 0, False), (2, 1, 0, False), (1, 1, log.INCONSISTENT, False),
])  # fmt: skip
def test_only_a_whole_replica_whose_last_session_was_that_primarys_is_an_orphan(sessions, orphaned, flags, said):
    journal = SimpleNamespace(at=[SimpleNamespace(flags=flags)])
    node = SimpleNamespace(session_count=sessions, orphaned_session=orphaned, journal=journal)
    assert Node.is_orphaned.fget(node) is said


def test_the_widest_lot_is_a_few_round_trips_to_the_last_primarys_machine(monkeypatch):
    def refuse(*_):
        time.sleep(0.05)
        raise ConnectionRefusedError

    monkeypatch.setattr(node_module, "ask_running", refuse)
    node = waiting(Address("127.0.0.1", 1, 1))
    Node.watch_last_primary(node, "near", 1)
    assert node.lot_s >= node_module.LOT_ROUND_TRIPS * 0.05


@pytest.mark.parametrize(("flags", "stands"), [(0, True), (log.INCONSISTENT, False)])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_replica_that_is_not_whole_never_stands_whatever_it_was_asked(flags, stands, at_once):
    node = SimpleNamespace(
        journal=SimpleNamespace(at=[SimpleNamespace(flags=flags)]), election_wait_s=lambda: 0.0, stopped=lambda: False,
        is_orphaned=False, stands_at_once=at_once, lost_elections=0,
    )  # fmt: skip
    assert Node.follow(node, None) is stands and not node.stands_at_once


def test_who_is_asked_to_stand_does_so_without_waiting_for_its_next_look():
    arrivals = Arrivals("far", lambda: ("near",), KEYED, SparseLog(node_module.LOG, "far"), lambda known: None)
    node = SimpleNamespace(name="far", stands_at_once=False, arrivals=arrivals)
    waked = threading.Timer(0.05, Node.hand_over, (node, "far"))
    waked.start()
    assert arrivals.take(60.0) is None and node.stands_at_once


def test_a_hand_over_wakes_the_loop_which_takes_writes_and_leads_until_its_turn_is_over(monkeypatch):
    """A turn with clients at doors lasts 50 ms when nothing wakes it: a switch-over through a door took twice as long."""
    seen = []

    def hurry():
        seen.append((node.handing_over, node.steps_down))
        if node.steps_down:
            node.primary = None

    node = SimpleNamespace(
        name="near", primary=SimpleNamespace(peer=[None]), peers={"far": None}, ballot=Ballot(), terms=None, ask_s=1.0,
        lock=threading.Lock(), handing_over=False, steps_down=False, rows=SimpleNamespace(of=lambda name: 0),
        peer_timeout_ns=10**9, stopped=lambda: False, journal=None, hurry=hurry,
        thread=lambda work, *arguments: work(*arguments),
    )  # fmt: skip
    node.leave_to = lambda *arguments: Node.leave_to(node, *arguments)
    monkeypatch.setattr(node_module, "conversation_with", lambda *_: nullcontext())
    monkeypatch.setattr(node_module, "may_succeed", lambda *_: True)
    monkeypatch.setattr(node_module, "ask", lambda *_: None)
    assert Node.hand_over(node, "far") and seen == [(True, False), (True, True)]


def test_a_conversation_that_was_begun_before_takes_one_question_and_none_comes_about_with_who_does_not_listen(voter):
    address = Address("127.0.0.1", 1, free_port())
    with votes_served(voter, address, KEYED), conversation_with(address, KEYED, 5.0) as talk:
        assert ask_in(talk, "near", Question("status", "far")).ballot == voter.ballot
        assert ask_in(talk, "near", Question("status", "far")) is None  # One question, and it is hung up.
    with conversation_with(address, KEYED, 5.0) as talk:
        assert talk is None


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_peer_is_met_without_a_question_once_after_a_hand_over_and_asked_ever_after(monkeypatch, is_answered):
    asked, introduced = [], []

    def introduce(name, to, address, terms, limit_s, knows):
        introduced.append(limit_s)
        raise UnfitError("planted")

    monkeypatch.setattr(node_module, "introduce", introduce)
    request = SimpleNamespace(request=p.NOTHING)
    node = SimpleNamespace(
        name="far", steps_down=False, unasked={"near"}, refusing=set(), ask_s=1.0, meeting_s=2.0, peers={"near": None},
        terms=None, ballot=Ballot(), is_to_be_met=lambda name, epoch: asked.append(name) or is_answered,
        sparse=SimpleNamespace(warning=lambda *_: None),
    )  # fmt: skip
    state = SimpleNamespace(control_requests=[request])
    for _ in range(3):
        assert Node.connect(node, state, 0, "near", 2, {}) is True
    assert asked == ["near", "near"] and introduced == [1.0, *([2.0] * 2 if is_answered else [])]


def test_an_election_after_an_orphans_lot_counts_as_lost_until_it_is_known_otherwise():
    """So the next lots are wider; `serve` begins anew once somebody leads."""
    node = SimpleNamespace(
        journal=SimpleNamespace(at=[SimpleNamespace(flags=0)]), election_wait_s=lambda: 60.0, orphans_wait_s=lambda: 0.0,
        stopped=lambda: False, is_orphaned=True, stands_at_once=False, lost_elections=2,
    )  # fmt: skip
    assert Node.follow(node, None) is True and node.lost_elections == 3


def test_a_node_that_has_failed_promises_nothing():
    ballot = Ballot(epoch=4)
    answer = Node.decide(SimpleNamespace(failure=OSError("its disk"), ballot=ballot), None)
    assert not answer.yes and answer.ballot == ballot and "its disk" in answer.refusal


# A disk that answers nothing


def replica(timeout_ns=10_000_000):
    def one(**words):
        return SimpleNamespace(at=[SimpleNamespace(**words)])

    journal, ring = one(durable=100, sealed=100), one(abandoned=0)
    made = SimpleNamespace(
        journal=journal, ring=ring, waited_at=-1, waited_since_ns=0, disk_timeout_ns=timeout_ns, failure=None, name="near",
    )  # fmt: skip
    made.fail = lambda failure: setattr(made, "failure", failure)
    return made


def look(node, count=4, rest_s=0.008):
    for _ in range(count):
        Node.mind_disk(node)
        time.sleep(rest_s)


def test_a_disk_that_answers_nothing_is_given_up_with_a_sentence():
    node = replica()
    node.journal.at[0].sealed = 200
    look(node)
    assert isinstance(node.failure, UnfitError) and "has not answered for" in str(node.failure) and node.ring.at[0].abandoned


def test_a_disk_that_has_nothing_to_do_or_answers_in_time_is_not_given_up():
    node = replica()
    look(node)
    for durable in range(101, 110):  # Always one flush under way, and each is answered.
        node.journal.at[0].durable, node.journal.at[0].sealed = durable, durable + 1
        look(node, count=1)
    assert node.failure is None and not node.ring.at[0].abandoned


def test_a_long_pause_between_two_looks_is_not_taken_for_a_silent_disk():
    node = replica()
    look(node, count=1)
    time.sleep(0.03)
    node.journal.at[0].sealed = 200
    Node.mind_disk(node)
    assert node.failure is None


def test_the_peer_timeout_follows_the_round_trip_and_outlasts_tcps_retransmissions():
    assert peer_timeout_of(0) == peer_timeout_of(2_400_000) == PEER_TIMEOUT_NS_MIN
    assert peer_timeout_of(100_000_000) == 2_000_000_000
