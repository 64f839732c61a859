"""Who answers for a whole pool, while another one takes its place: nobody who has come is left without an answer."""

import os
import socket
import time

import numpy as np
import pytest

from farwrite.experiment.pool import attendants
from farwrite.experiment.pool.attendants import PORTS_WORDS, Ports, attendant
from farwrite.experiment.serve.figures import serve_metrics
from farwrite.experiment.serve.replica import target_name

LIMIT_S = 60.0
REQUEST = b"GET /metrics HTTP/1.1\r\n\r\n"


@pytest.fixture
def listening(monkeypatch):
    monkeypatch.setattr(attendants, "AGAIN_S", 0.0)
    monkeypatch.setattr(attendants, "LEAVES_S", LIMIT_S)
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def asked(connection, words=REQUEST):
    connection.sendall(words)
    told = b""
    while piece := connection.recv(4096):
        told += piece
    return told


def come_in(listening):
    return socket.create_connection(listening.getsockname(), LIMIT_S)


def test_who_has_come_to_the_one_before_is_answered_by_it(listening):
    said = []
    with attendant("metrics", listening, serve_metrics, said.append) as made:
        made.tend(1, str, "one")
        for number in range(2, 7):
            with come_in(listening) as early:
                early.sendall(REQUEST[:9])
                time.sleep(0.05)  # It is accepted now, but on a very busy machine.
                made.tend(number, str, f"number {number}")
                assert asked(early, REQUEST[9:]).startswith(b"HTTP/1.1 200 OK")
            with come_in(listening) as late:
                assert asked(late).startswith(b"HTTP/1.1 200 OK")
        until_s = time.monotonic() + LIMIT_S
        while made.leaving:
            assert time.monotonic() < until_s
            made.tend(6, str, "number 6")
            time.sleep(0.01)
        with come_in(listening) as last:
            assert asked(last).endswith(b"number 6")
        pids = [made.serving.made.pid]
    assert said == [] and made.serving is None
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_one_that_has_ended_is_begun_anew(listening):
    with attendant("metrics", listening, serve_metrics, print) as made:
        made.tend(1, str, "one")
        os.kill(made.serving.made.pid, 9)
        assert made.serving.made.poll(LIMIT_S)
        made.tend(1, str, "one")
        with come_in(listening) as one:
            assert asked(one).endswith(b"one")


def test_ports_on_a_board_are_those_that_were_noted_last():
    words = np.zeros(PORTS_WORDS, np.int64)
    ports, seen = Ports(words), Ports(words)
    assert dict(seen) == {} and len(seen) == 0
    ports.note({0: (7, 1000), 5: (9, 1005)})
    assert dict(seen) == {target_name(7): 1000, target_name(9): 1005}
    ports.note({5: (11, 1006)})
    assert dict(seen) == {target_name(11): 1006} and seen[target_name(11)] == 1006 and target_name(7) not in seen
