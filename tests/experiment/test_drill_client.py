"""A drill's client and its ledger: the fate of every write, whatever becomes of the connections, without a lab."""

from types import SimpleNamespace

import numpy as np
import pytest

from farwrite.analysis.drill_recording import ACKED, AGAIN, FAILED, INDETERMINATE, NEVER
from farwrite.experiment.drill import client as clients
from farwrite.experiment.drill.client import ANSWERED, ELSEWHERE, FOUND, GONE, Client, Load
from farwrite.experiment.drill.ledger import WORDS, Ledger
from farwrite.experiment.drill.wire import DoorLoad, Heard

MS = 1_000_000
SENTINEL = 9


class Wire:
    """A connection that hears nothing; what is written over it is kept."""

    connected_ns = NEVER

    def __init__(self, epoch, dialled_ns, room, is_proven):
        self.is_proven = is_proven
        self.epoch, self.dialled_ns, self.said, self.is_over, self.most = epoch, dialled_ns, [], False, room

    def room(self):
        return self.most - len(self.said)

    def send(self, writes):
        if self.is_over:
            raise ConnectionResetError
        self.said += [number for number, _ in writes]

    def close(self):
        self.is_over = True


@pytest.fixture
def made(monkeypatch):
    """A client whose clock and threads are ours: what it would ask in a thread is noted in `asks`."""
    clock = SimpleNamespace(now_ns=1_000 * MS)
    monkeypatch.setattr(clients.time, "monotonic_ns", lambda: clock.now_ns)
    asks = []

    def thread(target, args, daemon):
        def start():
            if target.__name__ == "ask":
                asks.append(args)

        return SimpleNamespace(start=start)

    monkeypatch.setattr(clients.threading, "Thread", thread)

    def client(offered_per_s=100.0, queue_depth=4, door=""):
        load = Load(("near", "far"), (("x", 1), ("y", 2)), b"k" * 32, offered_per_s, queue_depth, (0, 1, 2), SENTINEL, 250 * MS,
                    100 * MS, DoorLoad(door, "iqn", 1, 4096) if door else None)  # fmt: skip
        one = Client(load, Ledger(np.zeros(WORDS, np.int64)))
        one.clock, one.asks = clock, asks
        return one

    return client


def leads(one, node, epoch=0, room=1000, is_proven=True):
    """This node is found to lead: the connection, whether it is taken or not."""
    wire = Wire(epoch, one.clock.now_ns, room, is_proven)
    one.note(FOUND, node, one.clock.now_ns, wire)
    return wire


def turn(one, past_ns=0):
    """One turn of its loop, later."""
    one.clock.now_ns += past_ns
    one.arrive(one.clock.now_ns)
    one.give_up(one.clock.now_ns)
    one.send()


def acked(one, *numbers, line=None):
    one.note(ANSWERED, line or one.line, one.clock.now_ns, Heard(numbers))


def outcomes(one):
    return one.ledger.begun["outcome"].tolist()


def test_what_was_under_way_when_the_connection_ended_is_indeterminate_and_is_not_sent_again(made):
    one = made()
    talk = leads(one, 0, 1)
    turn(one, 20 * MS)
    assert talk.said == [0, 1, 2]
    acked(one, 1)
    one.note(GONE, one.line, one.clock.now_ns, None)
    assert outcomes(one) == [INDETERMINATE, ACKED, INDETERMINATE] and talk.is_over
    again = leads(one, 1, 2)
    turn(one, 10 * MS)
    assert again.said == [3]
    assert [(row.node, row.closed_ns != NEVER) for row in one.ledger.connections[:2]] == [(0, True), (1, False)]
    assert one.ledger.begun["connection"].tolist() == [0, 0, 0, 1]


def test_an_answer_over_a_connection_that_was_given_up_comes_too_late(made):
    one = made()
    leads(one, 0, 1)
    turn(one)
    old = one.line
    leads(one, 1, 2)
    assert outcomes(one) == [INDETERMINATE]
    acked(one, 0, line=old)
    one.note(GONE, old, one.clock.now_ns, None)
    assert outcomes(one) == [INDETERMINATE] and one.line is not None and one.head.acked == 0 and one.head.begin_ns == 0


def test_only_a_later_epoch_is_followed(made):
    one = made()
    leads(one, 0, 5)
    turn(one)
    for epoch in (4, 5):
        assert leads(one, 1, epoch).is_over
    assert one.line.index == 0 and outcomes(one) == [0] and one.head.connections == 1
    assert not leads(one, 1, 6).is_over and one.line.wire.epoch == 6


def test_an_acknowledgement_is_counted_once(made):
    one = made()
    leads(one, 0, 1)
    turn(one)
    acked(one, 0, 0)
    first_ns = one.clock.now_ns
    turn(one, 10 * MS)
    acked(one, 1, 0)
    assert one.head.acked == 2 and one.head.begin_ns == first_ns


def test_a_write_that_finds_nobody_within_the_bound_has_failed_and_was_never_sent(made):
    one = made()
    turn(one)
    turn(one, 250 * MS)
    assert outcomes(one)[0] == 0
    turn(one, MS)
    rows = one.ledger.begun
    assert rows["outcome"][0] == FAILED and rows["sent_ns"][0] == rows["connection"][0] == NEVER
    talk = leads(one, 0, 1)
    turn(one)
    assert 0 not in talk.said


def test_writes_are_due_at_their_intended_instants_however_late_the_client_looks(made):
    one = made()
    begin_ns = one.next_ns
    for past_ns in (0, 35 * MS, 1, 65 * MS):
        turn(one, past_ns)
    assert one.ledger.begun["intended_ns"].tolist() == [begin_ns + 10 * MS * number for number in range(11)]
    assert one.head.late_ns_max == 60 * MS + 1


def test_a_closed_loop_never_has_more_writes_than_its_depth(made):
    one = made(offered_per_s=0.0)
    turn(one)
    turn(one)
    assert one.head.issued == 4
    talk = leads(one, 0, 1)
    turn(one)
    assert talk.said == [0, 1, 2, 3] and one.head.issued == 4
    acked(one, 0)
    turn(one)
    assert talk.said == [0, 1, 2, 3, 4]


def test_recovery_has_ended_with_an_acknowledged_sentinel_and_with_no_other(made):
    one = made()
    leads(one, 0, 1)
    turn(one)
    one.head.stop = one.head.sentinel = 1
    turn(one)
    assert one.head.issued == 1  # Its turn comes when all others have their fate.
    acked(one, 0)
    turn(one)
    assert one.head.issued == 2 and not one.head.sentinel_done
    one.note(GONE, one.line, one.clock.now_ns, None)
    assert not one.head.sentinel_done
    leads(one, 1, 2)
    turn(one)
    acked(one, 2)
    assert one.head.sentinel_done == 1 and one.ledger.begun["block"][2] == SENTINEL


def test_a_ledger_tells_the_fate_of_the_last_write_too_by_instants_since_the_first_acknowledgement(made):
    one = made()
    leads(one, 0, 7)
    turn(one)
    acked(one, 0)
    turn(one, 10 * MS)
    one.wait(2, one.clock.now_ns, one.clock.now_ns)
    history = one.ledger.history()
    assert history.outcome == [ACKED, INDETERMINATE, FAILED]
    assert history.sent_ns == [0, 10 * MS, NEVER] and history.done_ns == [0, NEVER, NEVER]
    assert history.intended_ns == [0, 10 * MS, 10 * MS] and history.connection == [0, 0, NEVER]
    (connection,) = one.ledger.connections_of(("near", "far"))
    assert (connection.node, connection.epoch, connection.opened_ns, connection.closed_ns) == ("near", 7, 0, NEVER)


# Through a door


def looks(one):
    """The nodes that it asks now, and whether they must prove themselves."""
    one.asks.clear()
    one.look(one.clock.now_ns)
    return one.asks


def test_a_door_is_left_only_while_writes_wait_there_and_for_one_that_has_answered_a_flush(made):
    one = made(door="nbd")
    assert looks(one) == [(0, False), (1, False)]
    near = leads(one, 0)
    turn(one)
    one.note(FOUND, 1, one.clock.now_ns, None)
    assert leads(one, 1).is_over and not near.is_over, "a door that waits for nothing is not left"
    turn(one, 101 * MS)
    assert looks(one) == [(1, True)], "our own door would end the session that we have"
    assert leads(one, 1, is_proven=False).is_over, "it was asked when there was no other"
    far = leads(one, 1)
    assert near.is_over and one.line.wire is far and outcomes(one)[0] == INDETERMINATE


def test_a_door_that_answers_nothing_for_long_is_tried_anew_as_well(made):
    one = made(door="iscsi")
    leads(one, 0)
    turn(one)
    turn(one, clients.DEAD_NS)
    assert looks(one) == [(1, True)]
    one.note(FOUND, 1, one.clock.now_ns, None)
    turn(one, MS)
    assert looks(one) == [(0, True), (1, True)]


def test_a_portal_that_says_who_serves_has_that_one_asked_at_once(made):
    one = made(door="iscsi")
    one.note(ELSEWHERE, 1, one.clock.now_ns, None)
    one.note(ELSEWHERE, -1, one.clock.now_ns, None)
    assert one.asks == [(1, False)]
    leads(one, 1)
    one.note(ELSEWHERE, 1, one.clock.now_ns, None)
    assert one.asks == [(1, False)]


def test_a_late_reply_after_a_reconnect_acknowledges_nothing_ends_the_connection_and_is_counted(made):
    one = made(door="nbd")
    leads(one, 0)
    turn(one)
    one.note(GONE, one.line, one.clock.now_ns, None)
    again = leads(one, 0)
    turn(one, 10 * MS)
    acked(one, 0, 1)
    assert outcomes(one) == [INDETERMINATE, ACKED] and one.head.strays == 1 and again.is_over and one.line is None
    leads(one, 0)
    turn(one, 10 * MS)
    acked(one, 2)
    assert outcomes(one)[2] == ACKED and one.line is not None, "the next connection is believed again"


def test_what_a_door_says_was_not_done_is_begun_anew_under_another_number_with_its_intended_instant(made):
    one = made(door="iscsi")
    wire = leads(one, 0)
    turn(one)
    turn(one, 10 * MS)
    one.note(ANSWERED, one.line, one.clock.now_ns, Heard([1], [0]))
    turn(one)
    assert wire.said == [0, 1, 2] and outcomes(one) == [AGAIN, ACKED, 0]
    rows = one.ledger.begun
    assert rows["intended_ns"][2] == rows["intended_ns"][0] and rows["block"][2] == rows["block"][0]


def test_no_more_is_under_way_than_a_door_takes(made):
    one = made(offered_per_s=0.0, queue_depth=8, door="iscsi")
    wire = leads(one, 0, room=3)
    turn(one)
    assert wire.said == [0, 1, 2]
    wire.most += 1
    turn(one)
    assert wire.said == [0, 1, 2, 3]
