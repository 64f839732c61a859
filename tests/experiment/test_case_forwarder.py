"""The forwarder of a case's far site: every byte, both ways, and a client that finds nobody behind it ends at once."""

import contextlib
import socket
import threading

from farwrite.experiment.case import forwarder
from ports import free_port


def heard(connection, size):
    with connection.makefile("rb") as stream:
        return stream.read(size)


def dialled(port):
    """A connection to the forwarder, which may not listen yet."""
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port), timeout=60)


def test_bytes_go_both_ways_and_who_finds_nobody_behind_it_is_hung_up_on(tmp_path):
    port, path = free_port(), str(tmp_path / "behind.sock")
    threading.Thread(target=forwarder.forward, args=("127.0.0.1", port, path), daemon=True).start()
    with dialled(port) as early:
        assert early.recv(1) == b"", "nobody listens at the path yet"

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        with dialled(port) as here, listening.accept()[0] as behind:
            here.sendall(b"ask" * 100_000)
            assert heard(behind, 300_000) == b"ask" * 100_000
            behind.sendall(b"answer" * 100_000)
            assert heard(here, 600_000) == b"answer" * 100_000
            behind.shutdown(socket.SHUT_RDWR)
            assert here.recv(1) == b""
