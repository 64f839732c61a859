"""A volume on several machines: the words that ask for it, and what is told of the way between them."""

import shlex
import socket

import msgspec
import pytest

from console import assert_refused, farwrite
from farwrite.base.errors import EXIT_USAGE, UnfitError
from farwrite.engine.control import Address
from farwrite.experiment.serve import far_message as message
from farwrite.experiment.serve.machines import (
    Elsewhere,
    Known,
    address_towards,
    connect_rtt_ns,
    printable,
    read_known,
)
from farwrite.experiment.serve.volume_files import Settings, new_number
from farwrite.workload.ssh_host import far_host

FAR = "ssh://there/far"
SETTINGS = Settings(
    volume=new_number(), size_bytes=1 << 20, replicas=2, has_witness=True, protocol="C", policy="consent", quorum=0,
    peer_timeout_ns=10**9, link={}, far=FAR,
)  # fmt: skip
READY = message.Ready(
    farwrite="1", pid=1, address="192.0.2.1", port=5, vote_port=6, spare_ports=(7, 8, 9), directory="/d's", sockets="/d's/s",
    not_durable="", config=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--far", "ssh://there", "--keep", "d"], "Where are the far replica's files to be?"),
        (["--far", FAR, "--far-keep", "/d", "--keep", "d"], "Where are the far replica's files to be?"),
        (["--far", "ssh://there", "--far-keep", "d", "--keep", "d"], "no whole path of that machine"),
        (["--far", "there", "--keep", "d"], "is not a place such as ssh://host"),
        (["--far", FAR], "say --keep DIR"),
        (["--far", FAR, "--memory"], "say --keep DIR"),
        (["--far", FAR, "--keep", "d", "--miles", "20"], "such as --miles is for a lab of this machine"),
        (["--far", FAR, "--keep", "d", "--replicas", "3"], "leave --replicas and --protocol quorum away"),
        (["--far", FAR, "--keep", "d", "--no-restart"], "--no-restart is for a lab"),
        (["--far", FAR, "--keep", "d", "--", "true"], "a command is for a lab"),
        (["--far", FAR, "--keep", "d", "--witness", "ssh://third"], "Where is the witness's ballot to be?"),
        (["--far", FAR, "--keep", "d", "--witness", "third"], '--witness: "third" is not a place'),
        (["--far", FAR, "--keep", "d", "--witness", "ssh://a/b", "--no-witness", "--policy", "block"], "contradict each other"),
        (["--miles", "20", "--witness", "ssh://third/d"], "--witness is about a far replica on another machine"),
        (["--miles", "20", "--far-listen", "127.0.0.1"], "are about a far replica on another machine"),
        (["--volume", "d", "--far", FAR], "stays where it was made"),
    ],
)
def test_words_that_do_not_go_together_are_refused_before_anything_is_asked(words, sentence, tmp_path):
    done = farwrite("serve", *words, cwd=tmp_path)
    assert_refused(done, sentence, code=EXIT_USAGE)
    assert not list(tmp_path.iterdir())


def test_an_address_of_this_machine_and_the_round_trip_to_another_are_found():
    assert address_towards("127.0.0.1") == "127.0.0.1"
    assert address_towards("no.such.host.invalid") is None
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert 0 < connect_rtt_ns(Address("127.0.0.1", 0, port)) < 10**9
    assert connect_rtt_ns(Address("127.0.0.1", 0, port)) is None


def test_how_the_machines_met_is_read_again_and_what_is_damaged_is_not_known(tmp_path):
    near = message.Place(host="192.0.2.2", port=1, vote_port=2)
    config = message.Config(key=b"", replicas={"near": near}, witness=None, is_forwarded=False)
    known = Known(near=near, witness_port=3, far=near, ready=READY, config=config)
    assert read_known(tmp_path) is None
    whole = msgspec.json.encode(known)
    (tmp_path / "machines.json").write_bytes(whole)
    assert read_known(tmp_path) == known
    for damaged in (b"", b"{}", whole[:-1], whole.replace(b"far", b"fat", 1)):
        (tmp_path / "machines.json").write_bytes(damaged)
        assert read_known(tmp_path) is None


def test_what_another_machine_says_moves_no_cursor_and_its_refusals_keep_their_kind():
    assert printable("one\x1b[2Jtwo\n") == "one [2Jtwo "
    one = Elsewhere("far", far_host("ssh://me@there:2222/far"), SETTINGS, True)
    with pytest.raises(UnfitError, match="me@there: no room"):
        one.take(message.Refusal(sentence="no room", exit_code=6))
    one.last = READY
    *words, there = shlex.split(one.how_to_end())
    assert words == ["ssh", "-p", "2222", "me@there"]
    assert shlex.split(there) == ["farwrite", "far-voter", "--end", "/d's"]  # As the shell there reads it.
