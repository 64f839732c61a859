"""What `make rivals` does to a lab's namespaces for the programs of others."""

import socket

import pytest
from beside import daemon

from farwrite.errors import UnfitError
from lab.small_lab import lab_or_skip, small

pytestmark = pytest.mark.lab


def default_congestion_control():
    with socket.socket() as made:
        return made.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def test_other_programs_tcp_uses_the_congestion_control_that_ours_does():
    before = default_congestion_control()
    with lab_or_skip(small()) as lab:
        for name in ("reno", lab.transport["congestion_control"]):
            lab.near.call(daemon.use_congestion_control, name)
            assert lab.near.call(default_congestion_control) == name
        with pytest.raises(UnfitError, match="make nonesuch the congestion control"):
            lab.near.call(daemon.use_congestion_control, "nonesuch")
    assert default_congestion_control() == before
