"""The NBD door on a socket: real clients negotiate with it, and whoever is silent, slow or lies costs itself alone."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from farwrite.base.errors import UsageError
from farwrite.base.wire import door as doors
from farwrite.base.wire.certificates import server_context
from farwrite.engine.frontend import nbd
from farwrite.engine.frontend import nbd_door as door_module
from farwrite.engine.frontend.nbd_door import nbd_door
from farwrite.engine.frontend.nbd_negotiation import Export, Tls
from farwrite.experiment.serve.replica import BOARD_WORDS, ServedNode
from make_certificates import certificates
from served import until

SIZE = 64 << 20
EXPORTS = (Export("volume", SIZE), Export("volume-ro", SIZE, True))
HELLO = struct.pack(">I", 3)
GO = struct.pack(">QIIIH", nbd.OPTION_MAGIC, nbd.OPT_GO, 6, 0, 0)


def zeros(connection, chosen):
    """A volume of zeros that answers simply, for clients that look at it."""
    with connection, contextlib.suppress(OSError, struct.error):
        while True:
            _, _, command, cookie, _, length = nbd.REQUEST.unpack(connection.recv(28, socket.MSG_WAITALL))
            if command == nbd.DISC:
                return
            if command == nbd.READ and chosen.is_structured:
                connection.sendall(nbd.CHUNK.pack(nbd.STRUCTURED_REPLY_MAGIC, 1, nbd.CHUNK_HOLE, cookie, 12) + bytes(8)
                                   + struct.pack(">I", length))  # fmt: skip
            elif command == nbd.READ:
                connection.sendall(nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, 0, cookie) + bytes(length))
            else:
                connection.sendall(nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, nbd.EINVAL, cookie))


@contextlib.contextmanager
def opened(tmp_path, tls=Tls.NONE, context=None, limit_s=5.0, exports=EXPORTS):
    """A door on a unix socket whose clients read zeros; gives its path and who came."""
    path, came = tmp_path / "door", []

    def adopt(connection, chosen):
        came.append(chosen)
        threading.Thread(target=zeros, args=(connection, chosen), daemon=True).start()

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(64)
        with nbd_door(listening, exports, adopt, tls, context, limit_s):
            yield path, came


def connect(path):
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(10)
    made.connect(str(path))
    return made


def chosen_by(connection):
    """Whether this connection is let in."""
    assert len(connection.recv(18, socket.MSG_WAITALL)) == 18
    connection.sendall(HELLO + GO)
    return connection.recv(20, socket.MSG_WAITALL)[:8] == struct.pack(">Q", nbd.OPTION_REPLY_MAGIC)


def tool(name):
    found = shutil.which(name)
    return found or pytest.skip(f"{name} is not installed (Debian: apt install libnbd-bin)")


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)


def test_nbdinfo_finds_both_exports_their_size_and_what_they_can(tmp_path):
    nbdinfo = tool("nbdinfo")
    with opened(tmp_path) as (path, came):
        listed = run(nbdinfo, "--list", "--json", f"nbd+unix:///?socket={path}")
        assert listed.returncode == 0, listed.stderr
        assert '"export-name": "volume"' in listed.stdout and '"export-name": "volume-ro"' in listed.stdout
        assert run(nbdinfo, "--size", f"nbd+unix:///?socket={path}").stdout.strip() == str(SIZE)
        can = {what: run(nbdinfo, "--can", what, f"nbd+unix:///volume?socket={path}").returncode == 0
               for what in ("flush", "fua", "trim", "zero", "multi-conn", "df", "cache", "fast-zero")}  # fmt: skip
        assert all(can.values()), can
        assert run(nbdinfo, "--is", "read-only", f"nbd+unix:///volume-ro?socket={path}").returncode == 0
        assert run(nbdinfo, "--is", "read-only", f"nbd+unix:///volume?socket={path}").returncode == 2
        unknown = run(nbdinfo, "--size", f"nbd+unix:///nowhere?socket={path}")
        assert unknown.returncode == 1 and "No such file" in unknown.stderr
        assert "base:allocation" in run(nbdinfo, "--json", "--no-content", f"nbd+unix:///volume?socket={path}").stdout
        assert came[-1].is_structured


def test_who_comes_while_the_doors_of_a_replica_close_that_leads_no_more_is_not_greeted(tmp_path):
    leads = [True]
    node = object.__new__(ServedNode)
    node.frontend = SimpleNamespace(leads=lambda: leads[0])
    node.order, node.snapshots = SimpleNamespace(size_bytes=SIZE), list
    node.board_ = SimpleNamespace(words=np.zeros(BOARD_WORDS, np.int64))
    with opened(tmp_path, exports=node.exports) as (path, came):
        with connect(path) as connection:
            assert chosen_by(connection)
        leads[0] = False
        with connect(path) as connection:
            assert connection.recv(1) == b""
        until(lambda: came, "who was greeted is not adopted")
    assert [one.export.size_bytes for one in came] == [SIZE]


def test_silent_and_dripping_clients_are_hung_up_on_and_the_others_never_notice(tmp_path):
    with opened(tmp_path, limit_s=2.0) as (path, came), contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(path)) for _ in range(20)]
        dripping = stack.enter_context(connect(path))
        begin_s = time.monotonic()

        def drip():
            with contextlib.suppress(OSError):
                for byte in HELLO + GO * 1000:
                    dripping.send(bytes([byte]))
                    time.sleep(0.1)  # An export is chosen by more bytes than come within the limit.

        threading.Thread(target=drip, daemon=True).start()
        with connect(path) as honest:
            assert chosen_by(honest)
        for one in (*silent, dripping):
            one.recv(18)
            with contextlib.suppress(ConnectionResetError):
                assert one.recv(1) == b""
        assert 0.5 < time.monotonic() - begin_s < 30 and len(came) == 1


def test_of_too_many_that_negotiate_the_one_that_has_been_there_longest_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(doors, "STRANGERS_MAX", 4)
    with opened(tmp_path, limit_s=60.0) as (path, _), contextlib.ExitStack() as stack:
        silent = []
        for _ in range(6):
            silent.append(stack.enter_context(connect(path)))
            assert silent[-1].recv(18)
        assert [one.recv(1) for one in silent[:2]] == [b"", b""]
        with connect(path) as honest:
            assert chosen_by(honest)


def test_who_lies_is_hung_up_on(tmp_path):
    with opened(tmp_path) as (path, came):
        for lie in (b"\xff" * 4, HELLO + b"GET / HTTP/1.1\r\n", HELLO + struct.pack(">QII", nbd.OPTION_MAGIC, 7, 2**32 - 1)):
            with connect(path) as one:
                one.recv(18)
                one.sendall(lie)
                with contextlib.suppress(ConnectionResetError):
                    assert one.recv(1) == b""
        assert not came


# TLS.


def encrypted(path, authority, own=None):
    """A connection that has asked for TLS and has it."""
    plain = connect(path)
    plain.recv(18, socket.MSG_WAITALL)
    plain.sendall(HELLO + struct.pack(">QII", nbd.OPTION_MAGIC, nbd.OPT_STARTTLS, 0))
    assert struct.unpack(">QIII", plain.recv(20, socket.MSG_WAITALL))[2] == nbd.REP_ACK
    context = ssl.create_default_context(cafile=authority)
    if own:
        context.load_cert_chain(own / "client-cert.pem", own / "client-key.pem")
    return context.wrap_socket(plain, server_hostname="localhost")


def read_through(connection):
    connection.sendall(GO)
    said = connection.recv(4096)
    assert said.startswith(struct.pack(">Q", nbd.OPTION_REPLY_MAGIC))
    while not said.endswith(nbd.REP_ACK.to_bytes(4, "big") + bytes(4)):
        said += connection.recv(4096)
    connection.sendall(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.READ, 7, 0, 8192))
    found = b""
    while len(found) < 16 + 8192:
        found += connection.recv(65536)
    return found == nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, 0, 7) + bytes(8192)


def test_under_tls_a_client_reads_through_the_tunnel_and_without_it_is_told_to_use_it(tmp_path):
    made = certificates(tmp_path / "tls")
    (made / "ca-cert.pem").rename(tmp_path / "ca-cert.pem")  # Clients need no certificate.
    with opened(tmp_path, Tls.REQUIRED, server_context(made)) as (path, came):
        with encrypted(path, tmp_path / "ca-cert.pem") as one:
            assert read_through(one)
        with connect(path) as plain:
            plain.recv(18, socket.MSG_WAITALL)
            plain.sendall(HELLO + GO)
            assert struct.unpack(">QIII", plain.recv(20, socket.MSG_WAITALL))[2] == nbd.REP_ERR_TLS_REQD
        assert len(came) == 1


def test_an_option_that_comes_in_many_records_at_once_is_heard_whole(tmp_path, monkeypatch):
    made = certificates(tmp_path / "tls")
    heard = door_module.Client.receive
    monkeypatch.setattr(door_module.Client, "receive", lambda client, size: (time.sleep(0.1), heard(client, size))[1])
    with opened(tmp_path, Tls.REQUIRED, server_context(made)) as (path, _), encrypted(path, made / "ca-cert.pem", made) as one:
        for byte in GO:  # A record each, and all there when the door looks.
            one.send(bytes([byte]))
        assert one.recv(20)[:8] == struct.pack(">Q", nbd.OPTION_REPLY_MAGIC)


def test_with_an_authority_a_client_shows_its_certificate_or_gets_nothing(tmp_path):
    made = certificates(tmp_path / "tls")
    with opened(tmp_path, Tls.REQUIRED, server_context(made)) as (path, came):
        with encrypted(path, made / "ca-cert.pem", made) as known:
            assert read_through(known)
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)), encrypted(path, made / "ca-cert.pem") as unknown:
            read_through(unknown)
        assert len(came) == 1


def test_nbdinfo_reads_over_tls(tmp_path):
    nbdinfo, made = tool("nbdinfo"), certificates(tmp_path / "tls")
    with opened(tmp_path, Tls.REQUIRED, server_context(made)) as (path, _):
        uri = f"nbds+unix://localhost/volume?socket={path}&tls-certificates={made}"
        done = run(nbdinfo, "--size", uri)
        assert done.stdout.strip() == str(SIZE), done.stderr


def test_a_directory_without_certificates_is_refused_with_what_belongs_there(tmp_path):
    with pytest.raises(UsageError, match=r"there is no server-cert\.pem"):
        server_context(tmp_path)
    made = certificates(tmp_path / "tls")
    (made / "server-key.pem").write_text("nothing")
    with pytest.raises(UsageError, match="PEM files"):
        server_context(made)
