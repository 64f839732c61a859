"""Datagrams are stamped before the first of them counts."""

import socket

import pytest

from farwrite.base.errors import UnfitError
from farwrite.lab import stamps


class Slow:
    """A socket whose kernel begins to stamp with the datagram of this number."""

    def __init__(self, begins: int) -> None:
        self.begins, self.sent = begins, 0

    def getsockname(self) -> tuple[str, int]:
        return "198.18.0.1", 9

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        assert len(data) == stamps.PAYLOAD_BYTES and address == self.getsockname()
        self.sent += 1

    def recvmsg(self, size: int, ancillary_bytes: int) -> tuple:
        stamp = stamps.TIMESPEC.pack(1_800_000_000, 5)
        found = [(socket.SOL_SOCKET, stamps.SO_TIMESTAMPING, stamp)] if self.sent >= self.begins else []
        return bytes(size), found, 0, None


@pytest.mark.parametrize("begins", [1, 2, 40])
def test_what_arrives_before_the_kernel_stamps_is_not_waited_for_in_vain(begins):
    """A kernel stamps from a work queue on: beside busy realtime threads, whole bursts came unstamped, and the link was down."""
    slow = Slow(begins)
    stamps.await_stamp(slow, 30.0)
    assert slow.sent == begins


def test_a_kernel_that_never_stamps_is_said(monkeypatch):
    with pytest.raises(UnfitError, match=r"has not begun to stamp datagrams within 0.01 s"):
        stamps.await_stamp(Slow(1 << 30), 0.01)


def test_every_site_waits_for_stamps_before_its_probes(monkeypatch):
    """And keeps the socket that makes the kernel stamp; a second one needs none of its own."""
    monkeypatch.setattr(stamps, "STAMPED", kept := [])
    asked = []
    monkeypatch.setattr(stamps, "await_stamp", lambda opened, limit_s: asked.append(opened))
    for _ in range(2):
        stamps.have_stamped("127.0.0.1")
    assert asked == kept and len(kept) == 1
    kept[0].close()
