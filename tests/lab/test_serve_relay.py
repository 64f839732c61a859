"""`farwrite serve` where everything is forbidden: its replicas meet over the relay, fail over, and it is said what is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jail
import pytest
from small_lab import any_link
from test_serve import END_S, SIZE, Writer, run, serving, socket_of, tool
from test_serve_iscsi import portal_of

from console import assert_refused, environment, farwrite, words_of
from engine.frontend.iscsi.initiator import Initiator
from farwrite.base.errors import EXIT_UNFIT
from nbd_client import NbdClient

pytestmark = [pytest.mark.lab, any_link]

JAIL = [sys.executable, str(Path(jail.__file__))]
MOVED, STATE_CHANGED = 0x0101, 0x2A06
REPORT_GROUPS = bytes([0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
OPTIMIZED, STANDBY, NOWHERE = 0x0, 0x2, 0x3


@pytest.fixture(scope="module")
def served():
    """By the relay because nothing else is allowed; a volume of two replicas and a witness."""
    if not jail.works():
        pytest.skip("this system lets nobody forbid itself system calls (seccomp)")
    with serving("--memory", "--iscsi", "0", before=JAIL) as made:
        yield made
    assert "the sites are joined by the relay" in made.said and "TCP does over a distance are not emulated" in made.said
    assert "by the relay's own account" in made.said


def test_without_any_privilege_a_volume_is_served_over_the_relay(served):
    assert served.link == "relay"
    nets = {Path(f"/proc/{pid}/ns/net").readlink() for pid in served.pids.values()}
    assert nets == {Path("/proc/self/ns/net").readlink()}
    with NbdClient(socket_of(served)) as client:
        begun = time.monotonic()
        assert client.write(0, b"far away") == 0 and client.read(0, 8) == b"far away"
        assert time.monotonic() - begun > 2 * 20 * 1.609 / 204_000  # There and back, 20 miles of glass.


def test_the_portal_of_a_site_that_stands_by_sends_initiators_to_the_one_that_serves(served):
    """And tells them of the roles: the site of a replica that keeps up stands by."""
    addresses = {name: portal_of(uri) for name, uri in served.iscsi_uris.items()}
    assert set(addresses) == {"near", "far"}
    (far, target), (near, _) = addresses["far"], addresses["near"]
    with Initiator(far) as one:
        status, keys, _ = one.login_request({"InitiatorName": one.name, "TargetName": target})
        assert status == MOVED and keys == {"TargetAddress": f"{near[0]}:{near[1]}"}
    with Initiator(near) as one:
        one.log_in(target_name=target)
        assert one.command(bytes(6)).status == 2
        assert states_of(one) == {1: STANDBY, 2: OPTIMIZED}  # Numbered in the order of their names.
    if inquiry := tool_or_none("iscsi-inq"):  # libiscsi follows by itself.
        run(inquiry, served.iscsi_uris["far"])


def states_of(one):
    data = bytes(one.command(REPORT_GROUPS, reads=256).data)[4:]
    return {int.from_bytes(data[at + 2 : at + 4], "big"): data[at] & 0x0F for at in range(0, len(data), 12)}


def tool_or_none(name):
    try:
        return tool(name, "")
    except pytest.skip.Exception:
        return None


def test_a_site_that_is_lost_is_a_change_of_roles_and_its_volume_is_served_by_the_other(served):
    """Far ends, and initiators at near hear of it; then near ends, and far goes on with everything that was answered."""
    (near, target), (far, _) = portal_of(served.iscsi_uris["near"]), portal_of(served.iscsi_uris["far"])
    with Initiator(near) as one:
        one.log_in(target_name=target)
        assert one.command(bytes(6)).status == 2
        states = []
        os.kill(served.pids["far"], signal.SIGKILL)
        until_s = time.monotonic() + END_S
        # It is started again, and keeps up again. How many changes are heard of as one is the machine's.
        while not (NOWHERE in states and states[-1] == STANDBY) and time.monotonic() < until_s:
            if one.command(bytes(6)).code == STATE_CHANGED:
                states.append(states_of(one)[1])
            time.sleep(0.02)
        assert NOWHERE in states and states[-1] == STANDBY
    writer = Writer(socket_of(served), 0).write_on()
    os.kill(served.pids["near"], signal.SIGKILL)
    writer.write_on()
    with NbdClient(socket_of(served)) as client:
        assert writer.acked and not writer.lost(client.read)
    with Initiator(far) as one:
        one.log_in(target_name=target)
        assert one.command(bytes(6)).status == 2 and states_of(one)[1] == OPTIMIZED


def test_a_command_beside_the_relay_finds_the_volume_and_its_exit_code_is_ours(tmp_path):
    if not jail.works():
        pytest.skip("this system lets nobody forbid itself system calls (seccomp)")
    nbdinfo = tool("nbdinfo", "libnbd-bin")
    command = ("--", "sh", "-c", f"{nbdinfo} --size $NBD; exit 9")
    for words in (("serve", "--memory", "--size", "64m"), ("lab", "--volume", "64m")):
        done = subprocess.run(
            [*JAIL, *words_of(*words, "--miles", "20", "--accept-link-error", *command)],
            env=environment(), capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout.strip()) == (9, str(SIZE)), done.stderr
        assert "joined by the relay" in done.stderr


@pytest.mark.parametrize(("words", "said"), [
    (("serve", "--loss", "1%", "--memory"), "relay carries streams"),
    (("lab", "--volume", "64m", "--far", "sleep 60"), "would meet without any distance"),
    (("lab", "--volume", "64m", "--wait-port", "80"), "would meet without any distance"),
])  # fmt: skip
def test_what_a_stream_cannot_show_is_refused(words, said):
    refused = farwrite(*words, "--link", "relay", "--miles", "20", *(["--", "true"] if words[0] == "lab" else []))
    assert_refused(refused, said, code=EXIT_UNFIT)
