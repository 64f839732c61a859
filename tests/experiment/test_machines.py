"""A volume on several machines: the words that ask for it, and what is told of the way between them."""

import io
import os
import random
import shlex
import socket
import time
import zlib
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from console import assert_refused, farwrite
from farwrite.base import framing
from farwrite.base.errors import EXIT_USAGE, UnfitError, UsageError
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


def test_whatever_another_machine_says_is_taken_or_ends_its_ssh_with_a_sentence():
    draw = random.Random(5)
    status = message.Status(words=zlib.compress(bytes(800)), runs=True, events=["one"], tcp_uri="", iscsi_uri="")
    refusal = message.Refusal(sentence="no", exit_code=2)
    whole = [message.frame_of(one) for one in (READY, status, message.Answer(text="x"), refusal)]
    refused = 0
    for _ in range(1000):
        read_end, write_end = os.pipe()
        with os.fdopen(read_end, "rb", buffering=0) as reading, os.fdopen(write_end, "wb", buffering=0) as writing:
            one = Elsewhere("far", far_host(FAR), SETTINGS, True)
            one.words = np.zeros(100, np.int64)
            one.ssh, one.stderr = SimpleNamespace(wait=lambda limit_s: 0, returncode=1), io.BytesIO()
            one.until_s = time.monotonic() + 60
            one.reader = framing.Reader(reading, message.frames())
            data = bytearray(b"".join(draw.choices(whole, k=3)))
            for _ in range(draw.randrange(4)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            writing.write(data)
            writing.close()
            with pytest.raises((UsageError, UnfitError)) as ended:  # The end of the stream, if nothing before.
                for _ in range(5):
                    one.hear()
            refused += "ended with exit code" not in str(ended.value)
    assert 100 < refused < 1000


def test_what_another_machine_says_moves_no_cursor_and_its_refusals_keep_their_kind():
    assert printable("one\x1b[2Jtwo\n") == "one [2Jtwo "
    one = Elsewhere("far", far_host("ssh://me@there:2222/far"), SETTINGS, True)
    with pytest.raises(UnfitError, match="me@there: no room"):
        one.take(message.Refusal(sentence="no room", exit_code=6))
    one.last = READY
    *words, there = shlex.split(one.how_to_end())
    assert words == ["ssh", "-p", "2222", "me@there"]
    assert shlex.split(there) == ["farwrite", "far-voter", "--end", "/d's"]  # As the shell there reads it.
