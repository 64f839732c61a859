"""One address for many targets: discovery lists them all, in as many parts as it takes, and a login is sent to its portal."""

from __future__ import annotations

import socket
from contextlib import contextmanager

import pytest

from engine.frontend.iscsi.initiator import NAME, Initiator, header
from farwrite.engine.frontend.iscsi import login, pdu
from farwrite.engine.frontend.iscsi.chap import Credentials
from farwrite.engine.frontend.iscsi.directory import Directory
from farwrite.engine.frontend.iscsi.portal import portal_of
from farwrite.engine.frontend.iscsi.text import text_of

COUNT = 200  # Whose names and addresses take three segments.
PORTS = {f"iqn.2026-11.org.farwrite:{number:016x}": 40000 + number for number in range(COUNT)}


@contextmanager
def listed_at(ports, credentials=None):
    with socket.create_server(("127.0.0.1", 0)) as listening, portal_of(listening, Directory(ports, credentials)) as opened:
        yield opened.address


def told(one, value="All"):
    """All that SendTargets is answered, and in how many parts."""
    data, parts, words, tag = text_of({"SendTargets": value}), 0, b"", 0xFFFFFFFF
    while True:
        one.send(header(pdu.TEXT, data=data, words=(tag, one.command_sn, one.expected_status_sn, 0, 0, 0, 0), tag=5), data)
        one.command_sn += 1
        answer = one.receive()
        assert answer.opcode == pdu.TEXT_RESPONSE and len(answer.data) <= 8192
        words, parts, data = words + bytes(answer.data), parts + 1, b""
        tag = pdu.word(answer.header, 20)
        if answer.flags & pdu.FINAL:
            assert tag == 0xFFFFFFFF
            return [word.decode().partition("=")[::2] for word in words.split(b"\0") if word], parts
        assert answer.flags & pdu.CONTINUE and tag != 0xFFFFFFFF


def test_discovery_tells_every_target_at_this_address_however_many_there_are():
    with listed_at(PORTS) as address, Initiator(address) as one:
        one.log_in({}, kind="Discovery")
        here = f"127.0.0.1:{address[1]},1"
        pairs, parts = told(one)
        assert pairs == [pair for name in sorted(PORTS) for pair in (("TargetName", name), ("TargetAddress", here))] and parts > 1
        assert told(one, min(PORTS))[0] == [("TargetName", min(PORTS)), ("TargetAddress", here)]
        assert told(one, "iqn.2026-11.org.farwrite:unknown")[0] == []


def test_a_login_is_sent_to_the_port_of_its_target_and_a_target_that_there_is_not_is_none():
    with listed_at(PORTS) as address:
        for name in (min(PORTS), max(PORTS)):
            with Initiator(address) as one:
                status, answers, _ = one.login_request({"InitiatorName": NAME, "TargetName": name})
                assert status == login.MOVED_TEMPORARILY and answers["TargetAddress"].startswith(f"127.0.0.1:{PORTS[name]}")
        with Initiator(address) as one:
            assert one.login_request({"InitiatorName": NAME, "TargetName": "iqn.2026-11.org.farwrite:none"})[0] == login.NOT_FOUND


@pytest.mark.parametrize("keys", [{"SessionType": "Discovery"}, {"SessionType": "Discovery", "AuthMethod": "None"}])
def test_who_must_prove_who_he_is_is_told_nothing_before(keys):
    with listed_at(PORTS, Credentials({"one": b"sixteen-letters-x"}, "", b"")) as address, Initiator(address) as one:
        status, _, _ = one.login_request({"InitiatorName": NAME, **keys}, current=0 if "AuthMethod" in keys else 1)
        assert status == login.AUTHENTICATION_FAILED
