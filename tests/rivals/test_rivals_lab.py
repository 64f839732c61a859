"""What `make rivals` does to a lab's namespaces for the programs of others."""

import socket

import pytest

from farwrite.base.errors import UnfitError
from lab.small_lab import lab_or_skip, small
from rivals import daemon

pytestmark = pytest.mark.lab
LISTENING = []


def listening(address):
    LISTENING.append(socket.create_server((address, 0)))
    return LISTENING[-1].getsockname()


def control_of_a_connection(place):
    """What a program that never speaks of it has."""
    with socket.create_connection(place, timeout=10) as made:
        return made.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def test_other_programs_tcp_uses_the_congestion_control_that_ours_does():
    with lab_or_skip(small()) as lab:
        place = lab.far.call(listening, lab.far.address)
        for name in ("reno", lab.transport["congestion_control"]):
            lab.near.call(daemon.use_congestion_control, name)
            assert lab.near.call(control_of_a_connection, place) == name
        with pytest.raises(UnfitError, match="make nonesuch the congestion control"):
            lab.near.call(daemon.use_congestion_control, "nonesuch")
