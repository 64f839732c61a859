"""A far site over ssh: another machine's part is played by an sshd on loopback, in a network namespace of its own."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from leftovers import gone, marked
from small_lab import compiled
from sshd import ISOLATED, PORT, SSHD, sshd_place

from console import SHORT, fresh_farwrite
from farwrite import __version__
from farwrite.base.errors import EXIT_UNFIT, EXIT_USAGE, UnfitError, UsageError
from farwrite.base.wire.handshake import agree
from farwrite.base.wire.terms import SharedKey, Terms
from farwrite.experiment.remote import message as told
from farwrite.experiment.remote import rendezvous
from farwrite.experiment.remote.serve import wanted
from farwrite.lab.survey import CONNECTIONS
from farwrite.recording import read
from farwrite.workload.catalog import load
from farwrite.workload.ssh_host import far_host

PATIENCE_S = 60


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    """A place with keys and configurations; skips where what is needed is missing."""
    place = sshd_place(tmp_path_factory.mktemp("ssh"))
    compiled()
    return place


@pytest.fixture
def there(far):
    """A function that runs farwrite beside an sshd, both in one namespace that nobody else is in."""
    if not Path("/run/sshd").is_dir():
        pytest.skip("/run/sshd, which this sshd wants, is not there")

    def run(*words):
        (far / "log").unlink(missing_ok=True)
        line = (
            f"{SSHD} -D -e -f {far}/sshd_config 2> {far}/log & sshd=$!; "
            f"until grep -qs 'Server listening' {far}/log; do kill -0 $sshd || exit 99; sleep 0.05; done; "
            '"$@"; code=$?; kill $sshd; wait; exit $code'
        )
        command = [*ISOLATED, "sh", "-c", line, "sh", sys.executable, "-m", "farwrite", *map(str, words)]
        env = os.environ | {"FARWRITE_SSH": f"ssh -F {far}/ssh_config", "COLUMNS": "80"}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, check=False)

    yield run
    assert gone(lambda: marked(str(far))), "something of the far site is left"


def test_a_run_with_its_far_site_over_ssh_measures_audits_and_says_that_nothing_was_emulated(far, there, tmp_path):
    done = there(
        "run", "quick", "--far", f"ssh://farhost{tmp_path}", "--set", f"lab.far_command={far}/farwrite",
        "--out", tmp_path / "out", *SHORT, "--set", "lab.durability=disk", "--set", "lab.journal=16 MiB",
        "--set", "lab.encryption=tls",
    )  # fmt: skip
    assert done.returncode in (0, 4), done.stderr
    recording = read(tmp_path / "out").recording
    assert recording.lab.link == "real" and recording.lab.encryption == "tls"
    assert "measured, not emulated: to farhost, TCP port" in recording.lab.link_reason
    assert recording.lab.far_directory == f"farhost:{tmp_path}"
    assert recording.lab.far_host["kernel"] == recording.host["kernel"]
    assert not recording.lab.shared_disk
    assert {cell.miles for cell in recording.cells} == {0.0}
    good = [item for item in recording.rounds if item.audit and item.completed]
    assert good and all(item.audit.lost == item.audit.damaged == 0 for item in good)
    assert recording.floors and all(floors.far_alone for floors in recording.floors)
    assert [item.name for item in tmp_path.iterdir()] == ["out"]
    shown = fresh_farwrite("show", tmp_path / "out")
    assert "measured, not emulated" in " ".join(shown.stdout.split())


def test_where_only_ssh_gets_through_the_link_is_sshs_and_the_report_says_so(far, there, tmp_path):
    """`behind` stands at an address that nobody reaches (RFC 5737) but through another machine's ssh."""
    done = there(
        "run", "quick", "--far", f"ssh://behind{tmp_path}", "--set", f"lab.far_command={far}/farwrite",
        "--out", tmp_path / "out", *SHORT, "--set", "run.retries=1",
    )  # fmt: skip
    assert done.returncode in (0, 4), done.stderr
    recording = read(tmp_path / "out").recording
    assert "through ssh (its port is closed): what is measured is the link as ssh carries it" in recording.lab.link_reason
    assert any(item.completed for item in recording.rounds)


STRANGERS = """
import os, socket, sys, time
held, seen, ours = [], set(), int(sys.argv[1])
while True:
    for line in open("/proc/net/tcp").read().splitlines()[1:]:
        place, state = line.split()[1], line.split()[3]
        address, port = place.split(":")
        if state != "0A" or int(port, 16) == ours:
            continue
        if place not in seen:
            seen.add(place)
            print(address, port, flush=True)
        for words in (b"", b"GET / HTTP/1.0"):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", int(port, 16)))
            held = [*held[-400:], one]
            try:
                words and one.send(words)
            except OSError:
                pass
    time.sleep(0.02)
"""


def test_strangers_at_the_far_sites_port_cost_nobody_time_and_it_listens_where_ssh_came_in(far, there, tmp_path):
    """All through the run strangers connect and say nothing, or the wrong thing, to every port that somebody listens on."""
    (far / "strangers.py").write_text(STRANGERS)
    (far / "besieged").write_text(
        f"#!/bin/sh\n{sys.executable} {far}/strangers.py {PORT} > {far}/listeners & strangers=$!\n"
        f'{sys.executable} -m farwrite "$@"; code=$?; kill $strangers; exit $code\n'
    )
    (far / "besieged").chmod(0o755)
    done = there(
        "run", "quick", "--far", f"ssh://farhost{tmp_path}", "--set", f"lab.far_command={far}/besieged",
        "--out", tmp_path / "out", *SHORT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    recording = read(tmp_path / "out").recording
    assert "TCP port" in recording.lab.link_reason and not any(item.status == "failed" for item in recording.rounds)
    listeners = (far / "listeners").read_text().split()[::2]
    assert listeners and set(listeners) == {"0100007F"}, listeners  # 127.0.0.1, as sshd's own; never 0.0.0.0.


# The meeting


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("SSH_CONNECTION", "127.0.0.1 5 127.0.0.3 22")
    with rendezvous.listening() as made:
        yield made


def dialled(server, words=b""):
    made = socket.create_connection(server.getsockname())
    made.sendall(words)
    return made


@pytest.mark.parametrize(
    ("connection", "address"),
    [("10.0.0.9 5 127.0.0.3 22", "127.0.0.3"), ("::1 5 ::1 22", "::1"), ("10.0.0.9 5 192.0.2.1 22", "127.0.0.1"),
     ("", "127.0.0.1"), ("nonsense", "127.0.0.1"), ("a b c d", "127.0.0.1")],
)  # fmt: skip
def test_the_far_site_listens_on_the_address_that_ssh_came_in_on_and_on_no_other(monkeypatch, connection, address):
    monkeypatch.setenv("SSH_CONNECTION", connection)
    with rendezvous.listening() as made:
        assert made.getsockname()[0] == address


def test_who_knows_the_token_is_heard_at_once_however_many_strangers_wait(server):
    token = bytes(range(32))
    with contextlib.ExitStack() as stack:
        wrong = [b"", b"GET /", bytes(32), token[:31]] * 80
        strangers = [stack.enter_context(dialled(server, words)) for words in wrong]
        friend = stack.enter_context(dialled(server, token))
        began_s = time.monotonic()
        found = stack.enter_context(rendezvous.known_by(token, server, 60.0))
        assert found.getpeername() == friend.getsockname()
        # Each of 240 silent strangers would have cost as much, had they been heard one after the other.
        assert time.monotonic() - began_s < 10 * rendezvous.TOKEN_TIMEOUT_S
        found.sendall(b"x")
        assert friend.recv(1) == b"x"
        for stranger in strangers:
            stranger.settimeout(PATIENCE_S)
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(1) == b""


def test_a_token_may_come_in_pieces_and_the_wrong_one_never_counts(server):
    token = bytes(range(32))
    friend, liar = dialled(server, token[:5]), dialled(server, b"\xff" * 64)
    with friend, liar:
        threading.Timer(0.2, friend.sendall, [token[5:]]).start()
        with rendezvous.known_by(token, server, 60.0) as found:
            assert found.getpeername() == friend.getsockname()


def test_strangers_alone_are_nobody(server):
    with dialled(server), dialled(server, bytes(32)), pytest.raises(UnfitError, match=r"did not reach the far one within 0\.3 s"):
        rendezvous.known_by(bytes(range(32)), server, 0.3)


def test_who_stands_in_for_the_far_site_without_the_runs_key_is_not_written_to(server):
    """The token says who dials; who answers proves itself by the key that only ssh has carried."""
    server.settimeout(PATIENCE_S)
    ours, theirs = (Terms("none", "none", SharedKey(bytes([number]) * 32)) for number in (1, 2))

    def stand_in():
        connection, _ = server.accept()
        with connection, contextlib.suppress(UnfitError):
            connection.recv(rendezvous.TOKEN_BYTES)
            connection.sendall(rendezvous.WELCOME)
            agree(connection, theirs, dials=False)

    ready = threading.Thread(target=stand_in)
    ready.start()
    with pytest.raises(UnfitError, match="does not hold our key"):
        rendezvous.dial_token(*server.getsockname()[:2], bytes(32), "data", "cubic", ours, PATIENCE_S)
    ready.join()
    assert "data" not in CONNECTIONS


def test_a_machine_without_farwrite_says_so(there, tmp_path):
    done = there("run", "quick", "--far", "ssh://farhost", "--set", "lab.far_command=/no/farwrite", "--out", tmp_path / "out")
    assert done.returncode == EXIT_USAGE, done.stderr
    assert "There is no farwrite at farhost" in done.stderr and f"Install {__version__} there" in done.stderr


def test_another_version_there_is_refused_by_name(far, there, tmp_path):
    other = far / "other"
    other.write_text(f"#!/bin/sh\nexec {sys.executable} -c \"import farwrite; farwrite.__version__ = '0.0.9'; "
                     "from farwrite.experiment.remote.serve import serve; serve()\"\n")  # fmt: skip
    other.chmod(0o755)
    done = there("run", "quick", "--far", "ssh://farhost", "--set", f"lab.far_command={other}", "--out", tmp_path / "out")
    assert done.returncode == EXIT_USAGE, done.stderr
    assert f"farwrite there is 0.0.9, here {__version__}" in done.stderr


def test_a_host_that_ssh_does_not_reach_is_told_in_sshs_own_words(far, there, tmp_path):
    done = there("run", "quick", "--far", "ssh://farhost:9", "--out", tmp_path / "out")
    assert done.returncode == EXIT_UNFIT
    assert "ended with exit code 255" in done.stderr and "refused" in done.stderr


# Words and frames.


@pytest.mark.parametrize(
    ("word", "login", "port", "directory"),
    [("ssh://there", "there", None, ""), ("ssh://me@there:2222/var/tmp", "me@there", 2222, "/var/tmp"),
     ("ssh://[fe80::1]/x", "fe80::1", None, "/x")],
)  # fmt: skip
def test_a_far_host_is_read(word, login, port, directory):
    made = far_host(word)
    assert (made.login, made.port, made.directory) == (login, port, directory)


@pytest.mark.parametrize("word", ["there", "http://there", "ssh://", "ssh://-oProxyCommand=x", "ssh://a b", "ssh://a:0", "ssh://a:99999"])
def test_a_word_that_is_no_far_host_is_refused(word):
    with pytest.raises(UsageError, match="--far"):
        far_host(word)


def test_a_profile_with_a_far_host_has_one_distance_which_is_found():
    made = load("limits", ['lab.far_host="ssh://there"'])
    assert made.distance.in_miles() == [0.0]
    assert all(cell.miles == [] for cell in made.cell)
    assert made.drill.kills == 0


def test_an_experiment_with_a_far_host_is_refused():
    done = fresh_farwrite("ab", "quick", "quick", "--set", 'lab.far_host="ssh://there"')
    assert (done.returncode, "lab.far_host is for farwrite run" in done.stderr) == (EXIT_USAGE, True)


def test_recorded_io_that_only_this_machine_has_is_refused():
    trace = ['cell.pgbench.trace="./mine.csv"', 'lab.far_host="ssh://there"']
    with pytest.raises(UsageError, match="has the shipped traces, not this one"):
        load("limits", trace)


def test_a_frame_comes_back_as_it_was_sent_and_a_cut_one_is_none():
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0) as reader, os.fdopen(write_end, "wb", buffering=0) as writer:
        told.send(writer, told.HangUp(name="data"))
        inbox = told.Inbox(reader)
        assert msgspec.msgpack.decode(inbox.frame(), type=told.Call) == told.HangUp(name="data")
        writer.write(b"\0\0\0\x09half")
        writer.close()
        assert inbox.frame() is None


def test_text_where_a_frame_should_be_is_explained():
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0) as reader, os.fdopen(write_end, "wb", buffering=0) as writer:
        writer.write(b"Welcome to this machine!\n")
        with pytest.raises(UnfitError, match="print something when it starts"):
            told.Inbox(reader).frame()


def test_a_first_message_whose_text_is_none_is_refused_with_a_sentence():
    asked = told.Stand(farwrite="0.0.9", directory="/d", journal_bytes=1, volume_bytes=1, durability="disk")
    with pytest.raises(UsageError, match="cannot decode"):
        wanted(msgspec.msgpack.encode(asked).replace(b"0.0.9", b"\xff" * 5))


def test_nothing_but_the_known_calls_is_understood():
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode({"type": "System", "command": "id"}), type=told.Call)
