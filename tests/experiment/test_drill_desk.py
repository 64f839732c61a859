"""A drill's node and its clients: what a client may ask for, and what ends its connection instead of the node."""

from types import SimpleNamespace

import numpy as np
import pytest

from farwrite.base.row import rows_of
from farwrite.base.shared_counters import SharedCounters
from farwrite.experiment.drill import desk

BLOCKS = 8


class Talk:
    """A client's connection: it says these messages, then hangs up."""

    def __init__(self, *messages):
        self.messages, self.said = list(messages), []

    def renew(self, limit_s):
        pass

    def say(self, data):
        self.said.append(data)

    def hear(self):
        if not self.messages:
            raise ConnectionResetError
        return self.messages.pop(0)


def desk_of_leader(epoch=3):
    board = SimpleNamespace(counters=rows_of(SharedCounters), words=np.zeros(desk.BOARD_WORDS, np.int64))
    board.counters[0].led_epoch = epoch
    return desk.Desk(board, 4096, BLOCKS)


@pytest.mark.parametrize(("number", "block"), [(5, BLOCKS), (5, -1), (5, 1 << 62), (5, -(1 << 63)), (-1, 0), (-(1 << 63), 1)])
def test_a_client_that_names_no_block_of_the_volume_is_hung_up_on_and_the_node_goes_on(number, block):
    made = desk_of_leader()
    talk = Talk(desk.WRITE.pack(1, 2) + desk.WRITE.pack(number, block) + desk.WRITE.pack(2, 3), desk.WRITE.pack(3, 4))
    assert made.admit(talk, "a client") is False
    assert [(one, at) for _, one, at in made.arrived] == [(1, 2)]  # What came before it was a write like any other.
    assert not made.clients and talk.said == [desk.LEADING.pack(3)]


def test_every_block_of_the_volume_may_be_written():
    made = desk_of_leader()
    made.admit(Talk(b"".join(desk.WRITE.pack(at, at) for at in range(BLOCKS))), "a client")
    assert [at for _, _, at in made.arrived] == list(range(BLOCKS))


def test_a_message_that_is_no_whole_number_of_writes_ends_the_connection_only():
    made = desk_of_leader()
    assert made.admit(Talk(desk.WRITE.pack(1, 2)[:-1]), "a client") is False
    assert not made.arrived
