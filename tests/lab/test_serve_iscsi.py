"""`farwrite serve --iscsi`: initiators on the volume that NBD clients have too, and what outlives the site that served them."""

from __future__ import annotations

import os
import signal
import time

import pytest
from small_lab import any_link, skip_if_forbidden
from test_serve import END_S, SIZE, metrics_of, opened, run, serving, socket_of, tool, until

from console import assert_refused, farwrite
from engine.frontend.iscsi.initiator import Initiator
from farwrite.base.errors import EXIT_UNFIT, EXIT_USAGE, UnfitError
from farwrite.engine.frontend.iscsi.store import SLOT_BYTES
from farwrite.experiment.serve.volume_files import JOURNAL_BYTES
from nbd_client import NbdClient

pytestmark = [pytest.mark.lab, any_link]

GOOD, CONFLICT = 0x00, 0x18
KEY = 0xFA27
REGISTER, RESERVE, WRITE_EXCLUSIVE = 0, 1, 1


@pytest.fixture(scope="module")
def served():
    with serving("--memory", "--iscsi", "0", "--metrics", "0") as made:
        yield made


def portal_of(uri):
    """(address and port, the target's name) of a URI."""
    _, _, portal, target, _ = uri.split("/")
    host, _, port = portal.rpartition(":")
    return (host, int(port)), target


def initiator(served, name="iqn.2026-11.org.example:one"):
    """Logged in, as soon as somebody leads; its unit attention is heard."""
    address, target = portal_of(served.iscsi_uri)
    until_s = time.monotonic() + END_S
    while True:
        try:
            made = Initiator(address, name=name)
            made.log_in(target_name=target)
            assert made.command(bytes(6)).status == 2
            return made
        except (OSError, EOFError, AssertionError):
            assert time.monotonic() < until_s
            time.sleep(0.1)


def write(one, block, data):
    return one.command(bytes([0x2A, 0]) + block.to_bytes(4, "big") + bytes([0]) + (len(data) // 512).to_bytes(2, "big") + b"\0",
                       data=data).status  # fmt: skip


def read(one, block, blocks):
    cdb = bytes([0x28, 0]) + block.to_bytes(4, "big") + bytes([0]) + blocks.to_bytes(2, "big") + b"\0"
    return bytes(one.command(cdb, reads=512 * blocks).data)


def test_what_an_initiator_writes_an_nbd_client_reads_and_the_other_way_round(served):
    with initiator(served) as one, NbdClient(socket_of(served)) as client:
        assert write(one, 8, b"by iSCSI".ljust(512, b".")) == GOOD
        assert client.read(8 * 512, 8) == b"by iSCSI"
        assert client.write(16 * 512, b"by NBD".ljust(512, b".")) == 0
        assert read(one, 16, 1)[:6] == b"by NBD"
        # And none of what the door needs besides. Counted at looks.
        until(lambda: metrics_of(served)['farwrite_clients{replica="near"}'] == "2", "not two clients")


def test_the_disk_ends_where_the_volume_does_and_the_area_behind_it_is_nobodys(served):
    with initiator(served) as one, NbdClient(socket_of(served)) as client:
        capacity = bytes(one.command(bytes([0x25]) + bytes(9), reads=8).data)
        assert (int.from_bytes(capacity[:4], "big") + 1) * 512 == SIZE == client.size
        assert client.read(SIZE - 512, 512) is not None
        assert write(one, SIZE // 512, bytes(512)) == 2  # CHECK CONDITION


def test_qemu_writes_and_reads_a_pattern_over_iscsi(served):
    qemu_io = tool("qemu-io", "qemu-utils")
    said = run(qemu_io, "-f", "raw", "-c", "write -f -P 0x5a 4M 1M", "-c", "read -P 0x5a 4M 1M", served.iscsi_uri)
    if "Unknown protocol" in said:
        pytest.skip("QEMU has no iSCSI here (Debian: apt install qemu-block-extra)")
    assert "verification failed" not in said


def test_a_command_finds_the_disk_at_its_site():
    done = farwrite("serve", "--miles", "20", "--size", "64m", "--memory", "--accept-link-error", "--", "sh", "-c",
                    "echo $ISCSI; echo $ISCSI_FAR")  # fmt: skip
    if done.returncode == EXIT_UNFIT:
        skip_if_forbidden(UnfitError(done.stderr))
    near, far = done.stdout.split()
    assert near != far and near.rpartition(":")[2] == far.rpartition(":")[2] and near.startswith("iscsi://198.18.")


def test_a_reservation_and_all_that_was_answered_are_there_when_the_other_site_serves(served):
    with initiator(served) as one:
        parameters = bytes(8) + KEY.to_bytes(8, "big") + bytes(8)
        assert one.command(bytes([0x5F, REGISTER, 0, 0, 0, 0, 0, 0, 24, 0]), data=parameters).status == GOOD
        parameters = KEY.to_bytes(8, "big") + bytes(16)
        assert one.command(bytes([0x5F, RESERVE, WRITE_EXCLUSIVE, 0, 0, 0, 0, 0, 24, 0]), data=parameters).status == GOOD
        assert write(one, 64, b"before".ljust(512, b".")) == GOOD
        os.kill(served.pids["near"], signal.SIGKILL)
        with pytest.raises((OSError, EOFError)):
            while True:
                write(one, 65, bytes(512))
    with initiator(served) as one, initiator(served, "iqn.2026-11.org.example:two") as two:  # At the same address.
        assert read(two, 64, 1)[:6] == b"before"
        assert write(two, 64, b"stranger".ljust(512, b".")) == CONFLICT
        held = bytes(one.command(bytes([0x5E, 1]) + bytes(5) + bytes([0, 24, 0]), reads=24).data)
        assert int.from_bytes(held[8:16], "big") == KEY


def test_damaged_reservations_close_the_iscsi_door_alone_until_they_are_forgotten(tmp_path):
    kept = tmp_path / "kept"
    with serving("--keep", kept, "--iscsi", "0") as made, initiator(made) as one:
        parameters = bytes(8) + KEY.to_bytes(8, "big") + bytes(8)
        assert one.command(bytes([0x5F, REGISTER, 0, 0, 0, 0, 0, 0, 24, 0]), data=parameters).status == GOOD
        assert key_count(one) == 1
        with NbdClient(socket_of(made)) as client:  # A whole journal, so that no replay writes the slots again.
            for place in range(0, JOURNAL_BYTES + JOURNAL_BYTES // 2, 8 << 20):
                assert client.write(place % SIZE, os.urandom(8 << 20)) == 0
    for site in ("near", "far"):
        for slot in range(2):
            damage(kept / site / "volume", SIZE + slot * SLOT_BYTES + 30)
    with opened("--volume", kept, "--iscsi", "0") as made:
        with NbdClient(socket_of(made)) as client:
            assert client.write(0, b"served all the same") == 0
        with pytest.raises(ConnectionRefusedError):
            Initiator(portal_of(made.iscsi_uri)[0])
    assert "not offered over iSCSI" in made.said and "--forget-reservations" in made.said
    with opened("--volume", kept, "--iscsi", "0", "--forget-reservations") as made, initiator(made) as one:
        assert key_count(one) == 0
    assert_refused(farwrite("serve", "--miles", "20", "--forget-reservations"), "goes with --volume", code=EXIT_USAGE)


def key_count(one):
    """How many keys PERSISTENT RESERVE IN tells of."""
    return int.from_bytes(bytes(one.command(bytes([0x5E, 0]) + bytes(5) + bytes([1, 0, 0]), reads=256).data)[4:8], "big") // 8


def damage(path, place):
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 0x10]))


# Who may come in


@pytest.mark.parametrize(("words", "said"), [
    (["--listen", "0.0.0.0", "--iscsi", "0"], "whoever logs in reads and writes.*--chap"),
    (["--iscsi", "70000"], "0 to 65535"),
    (["--iscsi", "0", "--chap", "/nowhere/secrets"], "read the CHAP secrets in"),
])  # fmt: skip
def test_what_cannot_be_is_refused_with_what_to_do(words, said):
    assert_refused(farwrite("serve", "--miles", "20", *words), said, code=EXIT_USAGE)


@pytest.mark.parametrize(("text", "mode", "said"), [
    ("one sixteen-letters-x\n", 0o644, "chmod 600"),
    ("one short\n", 0o600, "CHAP secret of 5 bytes"),
    ("one sixteen-letters-x\none sixteen-letters-y\n", 0o600, "line 2"),
    ("one\n", 0o600, "line 1"),
    ("# nobody\n", 0o600, "nobody is named"),
    ("one sixteen-letters-x\ntarget us sixteen-letters-x\n", 0o600, "give each its own"),
])  # fmt: skip
def test_secrets_that_cannot_be_or_that_others_read_are_refused(tmp_path, text, mode, said):
    secrets = tmp_path / "secrets"
    secrets.write_text(text)
    secrets.chmod(mode)
    assert_refused(farwrite("serve", "--miles", "20", "--iscsi", "0", "--chap", secrets), said, code=EXIT_USAGE)


def test_only_who_knows_a_secret_comes_in(tmp_path):
    inquiry = tool("iscsi-inq", "libiscsi-bin")
    secrets = tmp_path / "secrets"
    secrets.write_text("one sixteen-letters-x\n")
    secrets.chmod(0o600)
    with serving("--memory", "--iscsi", "0", "--chap", secrets) as made:
        run(inquiry, made.iscsi_uri.replace("iscsi://", "iscsi://one%sixteen-letters-x@"))
        run(inquiry, made.iscsi_uri.replace("iscsi://", "iscsi://one%sixteen-letters-y@"), code=10)
