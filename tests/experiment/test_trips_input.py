"""What `farwrite trips` reads and refuses: lines of qemu-io, URIs, answers to a login."""

import socket
import threading

import pytest

from farwrite.base.errors import UnfitError, UsageError
from farwrite.experiment.trips import check_uri, negotiated_keys, port_of, shares_of, times_of

GOOD = "wrote 65536/65536 bytes at offset 0\n64 KiB, 1 ops; 00.01 sec (4.396 MiB/sec and 70.3300 ops/sec)\n"
SLOW = "wrote 65536/65536 bytes at offset 0\n64 KiB, 1 ops; 0:00:02.01 (508.631 KiB/sec and 0.4967 ops/sec)\n"


def test_times_are_the_reciprocals_that_qemu_io_prints():
    assert times_of(GOOD + SLOW, 65536) == [pytest.approx(1e9 / 70.33), pytest.approx(1e9 / 0.4967)]
    assert times_of("", 65536) == []


@pytest.mark.parametrize(
    "text",
    ["write failed: Input/output error\n", GOOD + "wrote 65536/65536 bytes at offset 0\n", GOOD.replace("65536/", "4096/"),
     GOOD.replace("70.3300", "0.0000"), GOOD.replace("70.3300", "inf"), GOOD.replace("1 ops", "2 ops"),
     GOOD.replace("wrote", "read"), "\0" * 100_000, "wrote " * 50_000, GOOD.replace("70.3300", "9" * 10_000 + ".0000"),
     GOOD.replace("64 KiB", "." * 10_000)],
)  # fmt: skip
def test_lines_that_are_no_whole_writes_are_refused(text):
    with pytest.raises(UnfitError, match="qemu-io printed"):
        times_of(text, 65536)


def test_a_uri_is_of_a_target_at_the_far_site_over_tcp():
    check_uri("nbd://$FAR/disk")
    check_uri("iscsi://user%secret@${FAR}:3261/iqn.2026-11.org.example:disk/1")
    assert (port_of("nbd://$FAR/disk"), port_of("iscsi://$FAR:3261/iqn/0")) == (10809, 3261)


@pytest.mark.parametrize(
    ("uri", "says"),
    [("nbd+unix:///disk?socket=/tmp/s", "without the link"), ("nbd://127.0.0.1/disk", "host is $FAR"),
     ("http://$FAR", "name a target"),
     ("iscsi://$FAR/iqn", "an iSCSI disk is"), ("nbd://$FAR:99999/x", "TCP port"), ("nbd://$FAR:x/x", "TCP port"),
     ("", "name a target")],
)  # fmt: skip
def test_other_uris_are_refused_with_what_to_write(uri, says):
    with pytest.raises(UsageError) as refused:
        check_uri(uri)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n" * 4, bytes(48), bytes([0x23, 0x87]) + bytes(2) + b"\0\xff\xff\xff" + bytes(40),
     bytes([0x23, 0x87]) + bytes(34) + b"\2\1" + bytes(10), (bytes([0x23, 0]) + bytes(46)) * 9],
)  # fmt: skip
def test_answers_that_end_no_login_are_refused(answer):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def reply():
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises(UnfitError, match="log in to"):
            negotiated_keys("127.0.0.1", listening.getsockname()[1], "iqn.2026-11.org.example:disk")
        thread.join()


def test_writes_are_shared_by_processes():
    assert shares_of(15) == [5, 5, 5]
    assert shares_of(7) == [3, 2, 2]
