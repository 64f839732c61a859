"""A volume on several machines: near and its doors here, the far replica on another one that ssh reaches, the witness on a third.

Nothing is emulated: the distance is where the machines stand, and the measured round trip is said. Each voter elsewhere has
a supervisor of its own there (far_voter.py), to which ssh is only a way: when ssh ends, that voter goes on, and is attached to
again. What voters say to each other goes directly over TCP where both directions are open, otherwise through ssh; with TLS in
either case, by a key of the volume that is in memory only and goes to other machines through ssh.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
import socket
import struct
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import msgspec
import numpy as np

from ... import __version__
from ...base import framing
from ...base.errors import FarwriteError, UnfitError, UsageError, error_of
from ...base.files import write_atomically
from ...base.physics import miles_of
from ...base.units import format_time
from ...base.user_file import TEXT_BYTES_MAX, read_text
from ...base.wire.terms import KEY_BYTES_MIN
from ...engine.ballot import Question
from ...engine.control import Address, ask
from ...workload.drill_scenario import SITES
from ...workload.ssh_host import FarHost
from ..remote.remote_lab import WAITS, host_name, started, why_ssh_ended
from ..remote.rendezvous import LOOPBACK, TOKEN_BYTES, WELCOME, known_by
from . import far_message as message
from .apart import Apart
from .far_voter import DIAL_S, NOT_OURS, address_of, are_free, bound, free_ports
from .replica import DRAIN_S, figures_of
from .server import (
    LOOK_S,
    NOT_ALL_ANSWERED,
    OPENS_S,
    PEERS_S,
    RESTART_S,
    RESTART_S_MAX,
    STOPS_S,
    Asked,
    Server,
    attended,
    bound_tcp,
    socket_directory,
    speak,
)
from .volume_files import Files, Settings

NEAR, FAR, THIRD = SITES
KNOWN = "machines.json"
ATTACH_S = 600.0  # Kernels are compiled there meanwhile.
FRAMES_MAX = 64  # Taken in one look: whoever floods us does not keep us from the rest.
CALL_S = 20.0  # For a small request.
END_ATTACH_S = 10.0  # For a lost ssh to be there again when all is ended.
FORWARD_S = 10.0
ECHOES = 10  # Round trips that are measured, of which the shortest is said.
TCP_INFO_RTT_AT = 68  # tcpi_rtt in struct tcp_info, us; linux/tcp.h.
ALIVE = "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"  # A link that is dead ends ssh in 15 s. ssh_config(5).


class Elsewhere:
    """A voter on another machine: our ssh to its supervisor, and what that says."""

    def __init__(
        self, name: str, host: FarHost, settings: Settings, is_new: bool, sockets: str = ""
    ) -> None:
        self.name, self.host, self.settings, self.is_new, self.sockets = name, host, settings, is_new, sockets
        self.say: Callable[[str], None] = lambda sentence: None
        self.stack = contextlib.ExitStack()
        self.ssh: subprocess.Popen | None = None
        self.ready: message.Ready | None = None  # of who is attached now
        self.last: message.Ready | None = None  # of who was
        self.config: message.Config | None = None  # it is to run with this
        self.words: np.ndarray | None = None  # of its board as we have it
        self.status: message.Status | None = None
        self.answers: list[message.Answer | message.Refusal] = []
        self.owed = 0  # answers that will come and nobody waits for
        self.due_s, self.pause_s, self.until_s = 0.0, RESTART_S, 0.0
        self.is_ending = self.has_begun = False
        self.was_made = is_new
        self.complaint = ""  # that was said last, while it is tried again

    @property
    def is_attached(self) -> bool:
        return self.ready is not None

    @property
    def runs(self) -> bool:
        """Whether its supervisor is attached and the voter runs."""
        return self.ready is not None and self.status is not None and self.status.runs

    def begin(self) -> None:
        """Start ssh and ask for the voter; Ready comes when it is there."""
        self.close()
        stderr: IO[bytes] = self.stack.enter_context(tempfile.TemporaryFile())
        words = [*self.host.ssh("-T", *ALIVE), f"{shlex.quote(self.settings.far_command)} far-voter"]
        ssh = self.stack.enter_context(started(words, stderr))
        self.ssh, self.stderr = ssh, stderr
        assert ssh.stdin is not None and ssh.stdout is not None
        self.reader = framing.Reader(ssh.stdout, message.frames())
        self.until_s = time.monotonic() + ATTACH_S
        before = self.last
        self.send(
            message.Attach(
                farwrite=__version__, name=self.name, directory=self.host.directory, sockets=self.sockets,
                settings=msgspec.json.encode(self.settings), is_new=self.is_new,
                ports=(before.port, before.vote_port) if before else (0, 0),
            )
        )  # fmt: skip

    def send(self, told: msgspec.Struct) -> None:
        """One message; an ssh that has ended is noticed when it is read from."""
        assert self.ssh is not None and self.ssh.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            framing.send(self.ssh.stdin, message.frame_of(told))

    def attach(self) -> message.Ready:
        """Be attached when this returns. UsageError or UnfitError says why not."""
        self.begin()
        while self.ready is None:
            self.hear(LOOK_S)
        self.is_new = False
        return self.ready

    def call(self, request: message.Request, limit_s: float = CALL_S, meanwhile: Callable[[], object] = lambda: None) -> str:
        """The words of its answer; its refusal is raised."""
        if self.ready is None:
            raise UnfitError(f"{self.host.login} is not reached by ssh now.")
        self.answers.clear()
        until_s = time.monotonic() + limit_s
        self.send(request)
        while not self.answers or self.owed:
            if time.monotonic() > until_s:
                raise UnfitError(f"farwrite at {self.host.login} has not answered for {limit_s:g} s.")
            self.hear(0.01)
            meanwhile()
        answer = self.answers.pop(0)
        if isinstance(answer, message.Refusal):
            raise self.refused(answer)
        return answer.text

    def hear(self, timeout_s: float = 0.0) -> None:
        """Take what has come, waiting for the first of it. The error of an ssh that has ended, or of what is no message."""
        assert self.ssh is not None
        try:
            for _ in range(FRAMES_MAX):
                if not self.reader.poll(timeout_s):
                    break
                timeout_s = 0.0
                frame = self.reader.take()
                if frame is None:
                    raise why_ssh_ended(self.host, self.ssh, self.stderr, "--far-command /path/of/farwrite")
                self.take(message.REPLY.decode(frame))
        except framing.TooLongError as refusal:
            raise UnfitError(
                f"{self.host.login} answered with no message of farwrite. Does its shell print something when it starts?"
            ) from refusal
        except NOT_OURS as refusal:
            raise UnfitError(f"{self.host.login} answered with what is no message of farwrite: {refusal}.") from refusal
        if self.ready is None and time.monotonic() > self.until_s:
            raise UnfitError(f"farwrite at {self.host.login} has not answered for {ATTACH_S:g} s.")

    def take(self, told: Any) -> None:
        """One message of its supervisor."""
        if isinstance(told, message.Ready):
            if told.farwrite != __version__:
                raise UsageError(f"{self.host.login}: {message.another_version(told.farwrite)}")
            self.ready = self.last = told
        elif isinstance(told, message.Status):
            self.status = told
            if self.words is not None and len(words := unpacked(told.words, self.words.nbytes)) == self.words.nbytes:
                self.words[:] = np.frombuffer(words, np.int64)
            for event in told.events[-message.EVENTS_MAX :]:
                self.say(f"{self.host.login}: {printable(event)}")
        elif self.ready is None and isinstance(told, message.Refusal):
            raise self.refused(told)
        elif self.owed:
            self.owed -= 1
            if isinstance(told, message.Refusal):
                self.say(f"{self.host.login}: {printable(told.sentence)}")
        else:
            self.answers.append(told)

    def look(self) -> None:
        """While the volume is served: hear it; when ssh has ended say so, and try again, for ever, less and less often."""
        was_attached = self.is_attached
        try:
            if self.ssh is not None:
                self.hear()
            elif time.monotonic() >= self.due_s:
                self.begin()
        except FarwriteError as lost:
            self.close()
            self.pause_s = RESTART_S if was_attached else min(2 * self.pause_s, RESTART_S_MAX)
            self.due_s = time.monotonic() + self.pause_s
            if str(lost) != self.complaint and not self.is_ending:
                then = "It goes on by itself if its machine does; ssh is tried again."
                self.say(f"{self.name} is not heard: {lost} {then}")
            self.complaint = str(lost)
            return
        if self.ready is not None and not was_attached:
            self.is_new, self.complaint = False, ""
            self.say(f"{self.name} at {self.host.login} is attached again.")
            if self.config is not None and self.ready.config != self.config and not self.is_ending:
                self.owed += 1
                self.send(message.Serve(config=self.config))

    def close(self) -> None:
        """End our ssh. Its supervisor goes on."""
        self.stack.close()
        self.ssh = self.ready = self.status = None
        self.answers.clear()
        self.owed = 0

    def refused(self, refusal: message.Refusal) -> UsageError | UnfitError:
        """A refusal as the error it is."""
        return error_of(refusal.exit_code)(f"{self.host.login}: {printable(refusal.sentence)}")

    def how_to_end(self) -> str:
        """What an operator types at any machine that reaches this one."""
        assert self.last is not None
        words = [self.settings.far_command, "far-voter", "--end", self.last.directory]
        words += ["--sockets", self.sockets] if self.sockets else []
        port = ["-p", str(self.host.port)] if self.host.port else []
        return shlex.join(["ssh", *port, self.host.login, shlex.join(words)])  # Its shell reads the words again.


def unpacked(data: bytes, size: int) -> bytes:
    """So many bytes of what was compressed, and no more whatever it claims; fewer, or none, where it is nothing of ours."""
    try:
        return zlib.decompressobj().decompress(data, size)
    except zlib.error:
        return b""


def printable(text: str) -> str:
    """What another machine says, for a terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text[:2000])


class Known(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the machines met last, for a near that comes back while far is not reached: machines.json. No key is in it."""

    near: message.Place
    witness_port: int  # of the witness at near; 0: it is elsewhere
    far: message.Place  # as near reaches it
    ready: message.Ready  # of far
    config: message.Config  # of far


def read_known(directory: Path) -> Known | None:
    """What is known of the machines of a kept volume; None where nothing is that can be read."""
    try:
        return msgspec.json.decode(read_text(directory / KNOWN, "read", TEXT_BYTES_MAX), type=Known)
    except (FarwriteError, OSError, *NOT_OURS):
        return None


@contextmanager
def attached(
    voters: Mapping[str, tuple[FarHost, str]], settings: Settings, is_new: bool, known: Known | None = None
) -> Iterator[dict[str, Elsewhere]]:
    """Every voter that is elsewhere, by name, with its files there; each is asked for by its host and its directory of sockets.

    Where they are new and nothing comes of it, they are gone again. A far replica that is not reached is passed over where it is
    known how the machines met: near and the witness go on without it.
    """
    with contextlib.ExitStack() as stack:
        made: dict[str, Elsewhere] = {}
        for name, (host, sockets) in voters.items():
            made[name] = one = Elsewhere(name, host, settings, is_new, sockets)
            stack.callback(one.close)
            try:
                one.attach()
            except UnfitError as lost:
                if name != FAR or known is None or not settings.has_witness:
                    raise
                one.close()
                one.last, one.complaint, one.due_s = known.ready, str(lost), time.monotonic() + RESTART_S
        yield made


class Forward:
    """Ports that ssh carries: from here to there, and from there to here. Started again when it ends."""

    def __init__(self, host: FarHost, out: Mapping[int, tuple[str, int]], home: Mapping[int, tuple[str, int]]) -> None:
        self.host, self.stack, self.due_s, self.pause_s = host, contextlib.ExitStack(), 0.0, RESTART_S
        self.ssh: subprocess.Popen | None = None
        self.options = ["-T", *ALIVE, "-o", "ExitOnForwardFailure=yes"]
        for option, ports in (("-L", out), ("-R", home)):
            for port, (address, at) in ports.items():
                self.options += [option, f"{LOOPBACK}:{port}:[{address}]:{at}"]

    def begin(self) -> None:
        self.stack.close()
        self.stderr: IO[bytes] = self.stack.enter_context(tempfile.TemporaryFile())
        self.ssh = self.stack.enter_context(started([*self.host.ssh(*self.options), WAITS], self.stderr))

    def look(self) -> None:
        """Start it again when it has ended."""
        now_s = time.monotonic()
        if self.ssh is not None and self.ssh.poll() is not None:
            self.ssh, self.due_s, self.pause_s = None, now_s + self.pause_s, min(2 * self.pause_s, RESTART_S_MAX)
        elif self.ssh is None and now_s >= self.due_s:
            self.begin()

    def works(self, test: Callable[[], bool]) -> bool:
        """Whether the test is passed in a while; UnfitError where ssh ends."""
        until_s = time.monotonic() + FORWARD_S
        while time.monotonic() < until_s:
            assert self.ssh is not None
            if self.ssh.poll() is not None:
                why = why_ssh_ended(self.host, self.ssh, self.stderr, "--far-command")
                raise UnfitError(
                    f"{why} The ports between the machines are closed, and ssh does not forward them (AllowTcpForwarding in its "
                    "sshd_config)."
                )
            if test():
                return True
            time.sleep(0.1)
        return False


class Machines(Apart):
    """Near here, the others elsewhere."""

    def __init__(
        self, *given: Any, elsewhere: dict[str, Elsewhere], kept: Path, known: Known | None, **options: Any
    ) -> None:
        super().__init__(*given, **options)
        self.elsewhere, self.kept, self.known = elsewhere, kept, known
        self.forwards: list[Forward] = []
        self.stack.callback(lambda: [one.stack.close() for one in self.forwards])  # type: ignore[func-returns-value]
        self.distance_text = ""
        # Who runs already goes on if we do not come to serve.
        self.was_served = any(one.ready is not None and one.ready.config is not None for one in elsewhere.values())
        self.is_opened = False
        for name, one in elsewhere.items():
            one.words, one.say = self.boards[name].words, self.say

    def is_up(self, name: str) -> bool:
        return self.elsewhere[name].runs if name in self.elsewhere else super().is_up(name)

    def hear(self) -> None:
        """What the others say."""
        for one in self.elsewhere.values():
            one.look()
        for forward in self.forwards:
            forward.look()

    def check(self) -> None:
        self.hear()
        super().check()

    def look(self) -> None:
        self.hear()
        super().look()

    def downs(self) -> list[str]:
        return [*super().downs(), *(f"ssh to {name}" for name, one in self.elsewhere.items() if not one.is_attached)]

    # Beginning

    def open(self) -> None:
        """Have every voter run and know the others, near last; return once one leads and its doors are open."""
        self.meet()
        task = figures_of(self.boards[NEAR]).task
        task.forgets = int(self.asked.forgets_reservations)
        leads = any(self.leader() == name for name in self.elsewhere)
        for name in reversed(self.here):
            self.start(name, first=name == NEAR and not leads)
            self.until(lambda name=name: self.seats[name].ready, f"the start of {name}", OPENS_S)  # type: ignore[misc]
        self.until(self.is_open, "the opening of the doors", OPENS_S)
        task.forgets = 0
        self.is_opened = True
        self.tell_sites()
        self.note_leader()
        is_whole = all(one.is_attached for one in self.elsewhere.values())
        if is_whole and not self.comes(self.have_joined, PEERS_S):
            self.say("not every replica keeps up with the primary yet: the status line says how far they are.")
        self.distance_text = self.measured()

    def meet(self) -> None:
        """Find ways between the machines, and start the voters that are elsewhere."""
        far, third = self.elsewhere[FAR], self.elsewhere.get(THIRD)
        if far.ready is None:
            self.meet_without_far(far, third)
            return
        near_at, near_seen, is_forwarded = self.way_home(far)
        own = message.Place(host=far.ready.address, port=far.ready.port, vote_port=far.ready.vote_port)
        replicas = {NEAR: near_seen, FAR: own}
        witness, self.witness = None, None
        if third is not None:
            assert third.ready is not None
            own_witness = message.Place(host=third.ready.address, port=third.ready.port, vote_port=third.ready.vote_port)
            self.serve(third, message.Config(key=self.key, replicas=replicas, witness=own_witness, is_forwarded=False))
            witness = self.seen_by_far(far, third, own_witness)
            self.witness = self.way_out("witness", third)
        elif self.settings.has_witness:
            self.witness = Address(near_at.host, near_at.port, self.witness_port)
            witness = message.Place(host=near_seen.host, port=near_seen.port, vote_port=self.witness_seen)
        self.serve(far, self.config_of_far(replicas, witness, is_forwarded))
        self.addresses = {NEAR: near_at, FAR: self.way_out(FAR, far)}
        for one in self.elsewhere.values():
            one.has_begun = True
        self.remember(far)

    def config_of_far(self, replicas: dict[str, message.Place], witness: message.Place | None, forwarded: bool) -> message.Config:
        """What the far replica is started with."""
        chap, asked = self.asked.chap, self.asked
        return message.Config(
            key=self.key, replicas=replicas, witness=witness, is_forwarded=forwarded, address=asked.far_address,
            port=asked.port if asked.far_address else None, tls=asked.far_tls if asked.far_address else "",
            iscsi_port=asked.iscsi_port if asked.far_address else None, chap=chap.secrets if chap else {},
            chap_name=chap.own_name if chap else "", chap_secret=chap.own_secret if chap else b"", is_verbose=asked.is_verbose,
        )  # fmt: skip

    def remember(self, far: Elsewhere) -> None:
        """Keep how the machines met, where they do directly: ports that ssh carries are others each time."""
        assert far.ready is not None and far.config is not None
        if self.forwards:
            (self.kept / KNOWN).unlink(missing_ok=True)
            return
        near, there = self.addresses[NEAR], self.addresses[FAR]
        has_witness = self.settings.has_witness and THIRD not in self.elsewhere
        known = Known(
            near=message.Place(host=near.host, port=near.port, vote_port=near.vote_port),
            witness_port=self.witness_port if has_witness else 0,
            far=message.Place(host=there.host, port=there.port, vote_port=there.vote_port),
            ready=msgspec.structs.replace(far.ready, config=None),
            config=msgspec.structs.replace(far.config, key=b"", chap={}, chap_name="", chap_secret=b""),
        )  # fmt: skip
        write_atomically(self.kept / KNOWN, msgspec.json.encode(known) + b"\n")

    def meet_without_far(self, far: Elsewhere, third: Elsewhere | None) -> None:
        """As the machines met last. Far is told when it is attached; until then near goes on by the witness's leave."""
        known = self.known
        assert known is not None
        near = known.near
        ports = (near.port, near.vote_port, *([known.witness_port] if known.witness_port else []))
        if not are_free(near.host, ports):
            raise UnfitError(f"{far.complaint} And near cannot listen where far knows it: {near.host}, ports {ports}.")
        far.config = self.config_of_far(known.config.replicas, known.config.witness, known.config.is_forwarded)
        if third is not None and third.ready is not None:
            own = message.Place(host=third.ready.address, port=third.ready.port, vote_port=third.ready.vote_port)
            self.serve(third, message.Config(key=self.key, replicas=known.config.replicas, witness=own, is_forwarded=False))
            self.witness = self.way_out("witness", third)
        else:
            self.witness = Address(near.host, near.port, known.witness_port)
        self.addresses = {NEAR: address_of(near), FAR: address_of(known.far)}
        for one in self.elsewhere.values():
            one.has_begun = True
        self.say(f"far is not reached: {far.complaint} Near goes on without it, and asks again.")

    def serve(self, one: Elsewhere, config: message.Config) -> None:
        """Have it run with this, and answer."""
        one.config = config
        one.call(message.Serve(config=config), OPENS_S)
        self.until(lambda: one.runs and self.seats[one.name].ready, f"the start of {one.name} at {one.host.login}", OPENS_S)

    def way_home(self, far: Elsewhere) -> tuple[Address, message.Place, bool]:
        """(where near listens, where far dials it, whether that is through ssh): as before where far runs already.

        The witness's port here is behind them: `witness_port`, and as far dials it `witness_seen`.
        """
        assert far.ready is not None
        has_witness = self.settings.has_witness and THIRD not in self.elsewhere
        known = far.ready.config
        if known is not None and NEAR in known.replicas:
            seen = known.replicas[NEAR]
            self.witness_seen = known.witness.vote_port if known.witness and has_witness else 0
            if known.is_forwarded:
                return self.forwarded_home(far, (seen.port, seen.vote_port, self.witness_seen))
            ports = (seen.port, seen.vote_port, *([self.witness_seen] if self.witness_seen else []))
            if are_free(seen.host, ports):
                self.witness_port = self.witness_seen
                return Address(seen.host, seen.port, seen.vote_port), seen, False
        here = address_towards(host_name(far.host))
        if here is not None:
            ports = tuple(free_ports(here, 3))
            if not self.why_not_dialled(far, here, ports[0]):
                self.witness_port = self.witness_seen = ports[2]
                return Address(here, ports[0], ports[1]), message.Place(host=here, port=ports[0], vote_port=ports[1]), False
        return self.forwarded_home(far, far.ready.spare_ports)

    def why_not_dialled(self, far: Elsewhere, here: str, port: int) -> str:
        """Why the far machine does not reach this port of ours; empty where it does."""
        token = secrets.token_bytes(TOKEN_BYTES)
        with bound(here, port) as listening:
            listening.listen(64)
            far.answers.clear()
            far.send(message.Dial(host=here, port=port, token=token))
            with contextlib.suppress(UnfitError):
                connection = known_by(token, listening, DIAL_S + 1)
                with connection:
                    connection.setblocking(True)
                    connection.sendall(WELCOME)
        until_s = time.monotonic() + CALL_S
        while not far.answers and time.monotonic() < until_s:
            far.hear(LOOK_S)
        answer = far.answers.pop(0) if far.answers else None
        return answer.text if isinstance(answer, message.Answer) else "it has not answered"

    def forwarded_home(self, far: Elsewhere, there: tuple[int, int, int]) -> tuple[Address, message.Place, bool]:
        """Near on loopback, with ports of the far machine's loopback that ssh carries here."""
        ports = free_ports(LOOPBACK, 3)
        home = {at: (LOOPBACK, port) for at, port in zip(there, ports, strict=True) if at}
        made = Forward(far.host, {}, home)
        self.forwards.append(made)
        made.begin()
        self.witness_port, self.witness_seen = ports[2], there[2]
        seen = message.Place(host=LOOPBACK, port=there[0], vote_port=there[1])
        return Address(LOOPBACK, ports[0], ports[1]), seen, True

    def seen_by_far(self, far: Elsewhere, third: Elsewhere, own: message.Place) -> message.Place:
        """Where the far machine reaches the witness. UnfitError where it does not: then near's loss would leave no majority."""
        why = ""
        for host in dict.fromkeys([host_name(third.host), own.host]):
            why = far.call(message.Dial(host=host, port=own.vote_port, token=b""))
            if not why:
                return message.Place(host=host, port=own.port, vote_port=own.vote_port)
        raise UnfitError(
            f"{far.host.login} does not reach the witness at {third.host.login}, port {own.vote_port}: {why}. Without it the far "
            "replica could not lead when near is lost. Open that port between the two, or name another --witness."
        )

    def way_out(self, name: str, one: Elsewhere) -> Address:
        """Where we reach a voter that runs: directly, or through ssh."""
        assert one.ready is not None
        ready = one.ready
        direct = Address(host_name(one.host), ready.port, ready.vote_port)
        if self.answers(name, direct):
            return direct
        ports = free_ports(LOOPBACK, 2)
        out = dict(zip(ports, [(ready.address, ready.port), (ready.address, ready.vote_port)], strict=True))
        made = Forward(one.host, out, {})
        self.forwards.append(made)
        made.begin()
        through = Address(LOOPBACK, ports[0], ports[1])
        if not made.works(lambda: self.answers(name, through)):
            raise UnfitError(f"{one.name} at {one.host.login} is reached neither at port {ready.vote_port} nor through ssh.")
        return through

    def answers(self, name: str, address: Address) -> bool:
        """Whether the voter of this name answers there, and has proven that it holds the volume's key."""
        return ask(name, address, Question("status", NEAR), self.terms, DIAL_S) is not None

    def measured(self) -> str:
        """How far the others are, and by which way: shortest round trips, and how far light goes in half of each."""
        parts = []
        for name, one in self.elsewhere.items():
            if not one.is_attached:
                parts.append(f"{name} at {one.host.login}, not reached now")
                continue
            address = self.addresses[FAR] if name == FAR else self.witness
            assert address is not None
            is_direct = address.host != LOOPBACK or not self.forwards
            rtt_ns = connect_rtt_ns(address) if is_direct else self.ping_ns(one)
            if rtt_ns is None:
                parts.append(f"{name} at {one.host.login}, its round trip not measured")
                continue
            through = "TCP directly" if is_direct else "through ssh (the ports are closed)"
            parts.append(
                f"{name} at {one.host.login}, {format_time(rtt_ns)} there and back as measured, in which light goes "
                f"{miles_of(rtt_ns):.3g} miles out and home, {through}"
            )
        return "; ".join(parts) + "; TLS 1.3"

    def ping_ns(self, one: Elsewhere) -> int | None:
        """The shortest of a few round trips through ssh, its processes included."""
        found = []
        for _ in range(ECHOES):
            begin_ns = time.monotonic_ns()
            try:
                one.call(message.Ping())
            except FarwriteError:
                return None
            found.append(time.monotonic_ns() - begin_ns)
        return min(found)

    # The end

    def end(self) -> None:
        """As in a lab; who is elsewhere ends with its supervisor. One that is not reached goes on; how to end it is said."""
        if self.was_served and not self.is_opened:
            self.stop()
            self.say_what_goes_on(list(self.elsewhere.values()), "goes on by itself")
            return
        for one in self.elsewhere.values():
            one.is_ending = True
            one.due_s = 0.0
        until_s = time.monotonic() + END_ATTACH_S
        while not all(one.is_attached for one in self.elsewhere.values()) and time.monotonic() < until_s:
            self.hear()
            time.sleep(LOOK_S)
        leader = self.leader()
        if leader in self.elsewhere:
            self.drain_elsewhere(self.elsewhere[leader])
        elif leader is not None:
            self.drain(leader)
        reached = [one for one in self.elsewhere.values() if one.is_attached]
        for one in reached:
            one.answers.clear()
            one.send(message.Stop(is_undone=one.was_made and not one.has_begun))
        self.stop(leader)
        for one in reached:
            self.await_end(one)
        left = [one for one in self.elsewhere.values() if one not in reached]
        self.say_what_goes_on(left, "is not reached by ssh, and goes on by itself if it runs")

    def drain_elsewhere(self, one: Elsewhere) -> None:
        """The same of who leads there."""
        task = figures_of(self.boards[one.name]).task
        one.owed += 1
        one.send(message.Drain())
        until_s = time.monotonic() + DRAIN_S + 2
        while not task.drained and one.is_attached and time.monotonic() < until_s:
            self.hear()
            time.sleep(0.02)
        if task.drained != 1:
            self.say(NOT_ALL_ANSWERED)

    def await_end(self, one: Elsewhere) -> None:
        """Until its supervisor says that it has ended."""
        until_s = time.monotonic() + STOPS_S + DRAIN_S
        try:
            while not one.answers:
                if time.monotonic() > until_s:
                    self.say(f"{one.name} at {one.host.login} has not ended within {STOPS_S + DRAIN_S:g} s: {one.how_to_end()}")
                    return
                one.hear(LOOK_S)
        except FarwriteError as lost:  # Its ssh ends with it, maybe before the answer is looked at.
            if not one.answers:
                self.say(f"{one.name} at {one.host.login} was told to end; if it did is not known: {lost}")
                return
        answer = one.answers.pop(0)
        text = answer.sentence if isinstance(answer, message.Refusal) else answer.text
        if text:
            self.say(f"{one.host.login}: {printable(text)}")

    def say_what_goes_on(self, left: list[Elsewhere], why: str) -> None:
        """Who is left running elsewhere, and how to end it."""
        for one in left:
            self.say(f"{one.name} at {one.host.login} {why}. End it with: {one.how_to_end()}")

    # For people and scripts

    def link_text(self) -> str:
        return self.distance_text

    def uri(self, name: str = "", export: str = "") -> str:
        """Of a replica elsewhere: the unix socket on its machine."""
        if name not in self.elsewhere:
            return super().uri(name, export)
        last = self.elsewhere[name].last
        assert last is not None
        return f"nbd+unix:///{export}?socket={quote(f'{last.sockets}/{name}.sock')}"

    def document(self) -> dict[str, Any]:
        elsewhere = {
            name: {
                "host": one.host.login, "pid": one.last.pid if one.last else None, "ssh_pid": one.ssh.pid if one.ssh else None,
                "directory": one.last.directory if one.last else None, "end": one.how_to_end(),
                "tcp_uri": (one.status.tcp_uri or None) if one.status else None,
                "iscsi_uri": (one.status.iscsi_uri or None) if one.status else None,
                "voter_pid": int(figures_of(self.boards[name]).task.pid) if name in self.replicas else None,
            } for name, one in self.elsewhere.items()
        }  # fmt: skip
        carriers = [forward.ssh.pid for forward in self.forwards if forward.ssh is not None]
        return {**super().document(), "distance": self.distance_text, "elsewhere": elsewhere, "forward_pids": carriers}

    def ready_lines(self) -> list[str]:
        """What a person needs to know besides, of who is elsewhere."""
        lines = []
        for name, one in self.elsewhere.items():
            tcp = [uri for uri in (one.status.tcp_uri, one.status.iscsi_uri) if uri] if one.status else []
            lines += [f"  while {name} leads, there: {uri}" for uri in tcp]
            lines += [f"  {name} goes on when ssh or this machine is lost; to end it without us:", f"    {one.how_to_end()}"]
        if self.settings.has_witness and THIRD not in self.elsewhere:
            lines += ["  The witness is on this machine: when it is lost far has no majority, and nobody takes writes. --witness ssh://HOST/DIR"]
        return lines


def address_towards(host: str) -> str | None:
    """The address of this machine from which packets to that one leave; None where there is no way. Nothing is sent."""
    with contextlib.suppress(OSError):
        family, kind, _, _, place = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as trial:
            trial.connect(place)
            return str(trial.getsockname()[0])
    return None


def connect_rtt_ns(address: Address) -> int | None:
    """The shortest round trip of a few connections, as the kernel times their first packets: tcpi_rtt of tcp(7)."""
    found = []
    for _ in range(ECHOES):
        with contextlib.suppress(OSError), socket.create_connection((address.host, address.vote_port), DIAL_S) as one:
            told = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_RTT_AT + 4)
            found.append(1000 * struct.unpack_from("=I", told, TCP_INFO_RTT_AT)[0])
    return min(found, default=None)


@dataclass(frozen=True)
class Others:
    """What the command line asks of the others' machines."""

    far: FarHost
    witness: FarHost | None
    sockets: str = ""  # directory of the far replica's doors there

    def voters(self) -> dict[str, tuple[FarHost, str]]:
        """By name, where each is, and the directory of its sockets there."""
        return {FAR: (self.far, self.sockets)} | ({THIRD: (self.witness, "")} if self.witness else {})

    def here(self) -> list[str]:
        """Who has files on this machine."""
        return [NEAR] if self.witness else [NEAR, THIRD]


def served_apart(
    settings: Settings, files: Files, asked: Asked, elsewhere: dict[str, Elsewhere], kept: Path, known: Known | None,
    ready: Callable[[Server], None],
) -> int:  # fmt: skip
    """Serve until interrupted; answers the exit code."""
    with contextlib.ExitStack() as stack:
        sockets = stack.enter_context(socket_directory(asked.sockets))
        tcp = stack.enter_context(bound_tcp(asked.address, asked.port)) if asked.port is not None else None
        iscsi = stack.enter_context(bound_tcp(asked.address, asked.iscsi_port)) if asked.iscsi_port is not None else None
        metrics = stack.enter_context(bound_tcp("127.0.0.1", asked.metrics_port)) if asked.metrics_port is not None else None
        if not asked.is_quiet:
            speak("farwrite serve: the far machine is reached by ssh; nothing is emulated.\n")
        server = Machines(
            stack, settings, files, asked, sockets, [NEAR, THIRD] if THIRD not in elsewhere else [NEAR], key_of(elsewhere),
            tcp, iscsi, elsewhere=elsewhere, kept=kept, known=known,
        )  # fmt: skip
        return attended(server, metrics, ready, lambda: None)


def key_of(elsewhere: Mapping[str, Elsewhere]) -> bytes:
    """The volume's key: of who runs already, far first; otherwise a new one."""
    for one in elsewhere.values():
        if one.ready is not None and one.ready.config is not None:
            return one.ready.config.key
    return secrets.token_bytes(KEY_BYTES_MIN)
