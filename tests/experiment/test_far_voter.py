"""A voter of a volume on another machine, without ssh: its frames over pipes, as ssh would carry them."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from console import environment, words_of
from farwrite import __version__
from farwrite.base import framing
from farwrite.base.errors import EXIT_DONE, EXIT_USAGE, UsageError
from farwrite.engine.ballot import Question
from farwrite.engine.control import Address, ask
from farwrite.experiment.serve import far_message as message
from farwrite.experiment.serve import far_voter
from farwrite.experiment.serve.machines import unpacked
from farwrite.experiment.serve.volume_files import Settings, new_number
from farwrite.experiment.voters import terms_of

PATIENCE_S = 60
SETTINGS = Settings(
    volume=new_number(), size_bytes=1 << 20, replicas=2, has_witness=True, protocol="C", policy="consent", quorum=0,
    peer_timeout_ns=10**9, link={}, far="ssh://there/far", witness="ssh://third/third",
)  # fmt: skip


class Attached:
    """One end of `farwrite far-voter`, as farwrite serve has it."""

    def __init__(self, directory, is_new=True, name="third", settings=SETTINGS, version=__version__, first=None):
        self.process = subprocess.Popen(
            words_of("far-voter"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment(SSH_CONNECTION="")
        )
        self.reader = framing.Reader(self.process.stdout, message.frames())
        asked = message.Attach(
            farwrite=version, name=name, directory=str(directory), sockets="", settings=msgspec.json.encode(settings),
            is_new=is_new,
        )  # fmt: skip
        self.send(asked if first is None else first)

    def send(self, told):
        data = told if isinstance(told, bytes) else message.frame_of(told)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(data)

    def hear(self, kind=message.Answer):
        """The next message of this kind or refusal; statuses come in between. None at the end."""
        until_s = time.monotonic() + PATIENCE_S
        while True:
            assert self.reader.poll(max(until_s - time.monotonic(), 0)), f"no {kind.__name__}"
            frame = self.reader.take()
            told = None if frame is None else message.REPLY.decode(frame)
            if told is None or isinstance(told, (kind, message.Refusal)):
                return told

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(PATIENCE_S) == EXIT_DONE


def config_of(ready, key):
    place = message.Place(host=ready.address, port=ready.port, vote_port=ready.vote_port)
    replicas = dict.fromkeys(("near", "far"), message.Place(host="127.0.0.1", port=9, vote_port=9))
    return message.Config(key=key, replicas=replicas, witness=place, is_forwarded=False)


def gone(pid):
    until_s = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until_s:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}").exists()


@pytest.fixture
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("v")


def test_a_voter_goes_on_when_ssh_ends_is_attached_again_and_ends_when_told_to(place):
    directory, key = place / "third", secrets.token_bytes(32)
    first = Attached(directory)
    ready = first.hear(message.Ready)
    assert ready.config is None and ready.directory == str(directory)
    config = config_of(ready, key)
    first.send(message.Serve(config=config))
    assert first.hear() == message.Answer()
    status = first.hear(message.Status)
    assert status.runs and unpacked(status.words, 8 << 20)
    first.close()

    address = Address(ready.address, ready.port, ready.vote_port)
    until_s = time.monotonic() + PATIENCE_S
    while (answer := ask("witness", address, Question("status", "near"), terms_of(key, "tls"))) is None:
        assert time.monotonic() < until_s
    assert answer.ballot.epoch == 0
    assert ask("witness", address, Question("status", "near"), terms_of(bytes(32), "tls")) is None  # Another key.

    again = Attached(directory, is_new=False)
    found = again.hear(message.Ready)
    assert (found.pid, found.config) == (ready.pid, config)
    again.send(message.Serve(config=config))  # It goes on as it was.
    assert again.hear() == message.Answer()
    for other, words in (
        ({"is_new": True}, "which is served"), ({"name": "far"}, "another one"),
        ({"version": "0.0.9"}, "install the same version"),
        ({"settings": msgspec.structs.replace(SETTINGS, volume=5)}, "another one"),
    ):  # fmt: skip
        stranger = Attached(directory, **{"is_new": False, **other})
        assert words in stranger.hear().sentence
        stranger.close()
    again.send(message.Ping())
    assert again.hear() == message.Answer()  # None of these took its place.
    again.send(message.Stop())
    assert again.hear() == message.Answer()
    again.close()
    assert gone(ready.pid)
    assert sorted(one.name for one in directory.iterdir()) == ["lock", "third", "volume.json"]


def test_an_operator_ends_it_at_its_machine_by_a_command_or_by_sigterm(place):
    directory, key = place / "third", secrets.token_bytes(32)
    for is_new, by in ((True, "command"), (False, "signal")):
        made = Attached(directory, is_new=is_new)
        ready = made.hear(message.Ready)
        made.send(message.Serve(config=config_of(ready, key)))
        assert made.hear() == message.Answer()
        made.close()
        if by == "command":
            far_voter.end(directory)
        else:
            os.kill(ready.pid, signal.SIGTERM)
        assert gone(ready.pid)
    with pytest.raises(UsageError, match="there is nothing to end"):
        far_voter.end(directory)


def test_files_that_were_never_served_go_again_and_those_of_others_are_refused(place):
    directory = place / "third"
    made = Attached(directory)
    pid = made.hear(message.Ready).pid
    made.close()
    assert gone(pid) and not directory.exists()

    for words, changed in (("has no files", {"is_new": False}), ("install the same version", {"version": "0.0.9"})):
        made = Attached(directory, **changed)
        told = made.hear(message.Ready)
        assert words in told.sentence and told.exit_code == EXIT_USAGE
        made.close()
    directory.mkdir()
    (directory / "volume.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(SETTINGS, volume=5)))
    for words, changed in (("another volume (5)", {"is_new": False}), ("holds a volume", {})):
        made = Attached(directory, **changed)
        assert words in made.hear(message.Ready).sentence
        made.close()
    assert [one.name for one in directory.iterdir() if one.name != "lock"] == ["volume.json"]


def test_whatever_is_said_to_it_is_refused_or_hung_up_on(place):
    """Mutated first frames, which end the process that ssh starts, and mutated requests, which end that connection alone."""
    draw = random.Random(3)
    whole = message.frame_of(
        message.Attach(farwrite="x" * 9, name="third", directory=str(place / "never"), sockets="", settings=b"{}", is_new=True)
    )
    for first in (b"", b"GET / HTTP/1.0\r\n\r\n", b"\0\0\0\1\xc1", whole[:-1], whole, mutated(whole, draw), mutated(whole, draw)):
        made = Attached(place / "never", first=first)
        made.process.stdin.close()
        told = made.hear(message.Ready)
        assert told is None or isinstance(told, message.Refusal)
        made.process.stdout.close()
        made.process.wait(PATIENCE_S)
    assert not (place / "never").exists()
    made = Attached(place / "third")
    ready = made.hear(message.Ready)
    config = config_of(ready, secrets.token_bytes(32))
    made.send(message.Serve(config=config))
    assert made.hear() == message.Answer()
    made.close()
    whole = message.frame_of(message.Serve(config=config))
    for _ in range(6):
        made = Attached(place / "third", is_new=False)
        assert made.hear(message.Ready).pid == ready.pid
        made.send(mutated(whole, draw))
        made.process.stdin.close()
        while made.hear(message.Answer) is not None:
            pass
        made.process.stdout.close()
        made.process.wait(PATIENCE_S)
    far_voter.end(place / "third")
    assert gone(ready.pid)


def mutated(data, draw):
    changed = bytearray(data)
    for _ in range(draw.randrange(1, 4)):
        changed[draw.randrange(4, len(changed))] = draw.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"address": "192.0.2.1", "port": 0}, "needs certificates"), ({"address": "192.0.2.1", "iscsi_port": 0}, "needs --chap"),
     ({"address": "nowhere", "port": 0}, "is no address")],
)  # fmt: skip
def test_a_tcp_port_that_others_reach_is_refused_there_as_here(options, words):
    config = message.Config(key=bytes(32), replicas={}, witness=None, is_forwarded=False, **options)
    with pytest.raises(UsageError, match=words):
        far_voter.check_doors(config)
    far_voter.check_doors(msgspec.structs.replace(config, address="127.0.0.1"))


def test_what_claims_to_be_a_board_is_never_larger_than_one():
    import zlib

    assert unpacked(zlib.compress(bytes(1 << 24)), 4096) == bytes(4096)
    assert unpacked(b"nonsense", 4096) == b""
