"""A lab whose far site is another machine: our end of it, with the verbs that every lab has.

The near site is a process here without a network of its own. Nothing is emulated: a distance is not set, only surveyed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import msgspec
import numpy as np

from ... import __version__
from ...base.errors import UnfitError, UsageError, error_of
from ...base.host.disk import Disk, disk
from ...base.shared_counters import counters_of
from ...base.wire.terms import IN_THE_CLEAR, Terms
from ...lab.keep_awake import awake
from ...lab.lab import HISTORY_WORDS, ISSUED_WORDS, Lab, LabSpec, prepared
from ...lab.link import Choice, SetElsewhere
from ...lab.namespace import uninterrupted
from ...lab.process import ProcessLostError
from ...lab.shared_memory import board
from ...lab.site import AnySite, LocalSite, setting
from ...lab.span import BASE_ECHOES
from ...lab.survey import CONNECT_TIMEOUT_S, PROBE, answer_requests, flush_floor, hang_up, survey
from ...targets.replicated import is_shuffled
from ...workload.ssh_host import FarHost
from .. import sides
from ..ab.worker import become_worker
from . import message as message
from .rendezvous import TOKEN_BYTES, dial_token

REAL = "real"  # The kind of a link that is none of ours.
STAND_TIMEOUT_S = 600.0  # Kernels are compiled there meanwhile.
DIRECT_TIMEOUT_S = 3.0
FORWARD_TIMEOUT_S = 10.0
NOT_FOUND = 127


@dataclass
class Words:
    """The null form of a board: the far site has its own, over there."""

    words: np.ndarray = field(default_factory=lambda: np.zeros(64, np.int64))

    @property
    def counters(self) -> np.ndarray:
        return counters_of(self.words)


class FarSite(AnySite):
    """The far site: calls go through ssh."""

    name, index = "far", 1
    pid = None

    def __init__(self, host: FarHost, ssh: subprocess.Popen, stderr: IO[bytes]) -> None:
        assert ssh.stdin is not None and ssh.stdout is not None
        self.host, self.ssh, self.stderr = host, ssh, stderr
        self.asks, self.answers = ssh.stdin, message.Inbox(ssh.stdout)
        self.board = Words()
        self.replies_due = 0
        self.ready: message.FarSiteReady

    def stand(self, spec: LabSpec) -> None:
        """Have the site opened there. UsageError when farwrite there is missing or another."""
        asked = message.Stand(
            farwrite=__version__, directory=self.host.directory, journal_bytes=spec.journal_bytes,
            volume_bytes=spec.volume_bytes, durability="memory" if spec.far is None else "disk",
        )  # fmt: skip
        with contextlib.suppress(BrokenPipeError):  # Its end says more.
            message.send(self.asks, asked)
        answer = self.receive(STAND_TIMEOUT_S, message.FarSiteReady | message.Refusal)
        if isinstance(answer, message.Refusal):
            raise refused(answer, self.host)
        self.ready, self.address = answer, answer.address
        self.disk = Disk(
            directory=f"{self.host.login}:{answer.directory}", file_system=answer.file_system, journal_fd=-1, volume_fd=-1,
            journal_bytes=spec.journal_bytes, volume_bytes=spec.volume_bytes, durability=answer.durability, direct=answer.direct,
            not_durable=answer.not_durable,
        )  # fmt: skip

    def start(self, function: Callable, *arguments: Any) -> None:
        """Begin over there what this function stands for."""
        self.ask(CALLS[function](*arguments))

    def ask(self, call: message.Call) -> None:
        """Send a call."""
        try:
            message.send(self.asks, call)
        except BrokenPipeError as gone:
            raise self.lost() from gone
        self.replies_due += 1

    def answer(self, timeout_s: float | None = 60.0) -> Any:
        """What came of the call before; its refusal is raised here."""
        reply = self.receive(timeout_s, message.Reply)
        self.replies_due -= 1
        if isinstance(reply, message.Refusal):
            if reply.lost:
                raise ProcessLostError(reply.sentence)
            raise refused(reply, self.host)
        value = reply.value if isinstance(reply, message.Answer) else reply
        return np.frombuffer(value, np.int64) if isinstance(value, bytes) else value

    def poll(self, timeout_s: float) -> bool:
        return self.answers.poll(timeout_s)

    def kill(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            message.send(self.asks, message.Kill())

    def begin(self) -> None:
        """Start it again. A call that was cut off by the kill gets no answer, or got one before."""
        self.ask(message.Restart())
        while self.replies_due:
            with contextlib.suppress(UnfitError):
                self.receive(30.0, message.Reply)
            self.replies_due -= 1

    def receive(self, timeout_s: float | None, kind: Any) -> Any:
        """The next frame."""
        if timeout_s is not None and not self.poll(timeout_s):
            raise UnfitError(f"The far site at {self.host.login} has not answered for {timeout_s:g} s.")
        data = self.answers.frame()
        if data is None:
            raise self.lost()
        try:
            return msgspec.msgpack.decode(data, type=kind)
        except message.NOT_OURS as refusal:
            raise UnfitError(f"{self.host.login} answered with what is no message of farwrite: {refusal}.") from refusal

    def lost(self) -> UsageError | UnfitError:
        """The error for an ssh that has ended."""
        return why_ssh_ended(self.host, self.ssh, self.stderr, "--set lab.far_command=/path/of/farwrite")


def why_ssh_ended(host: FarHost, ssh: subprocess.Popen, stderr: IO[bytes], option: str) -> UsageError | UnfitError:
    """The error for an ssh that has ended, with its last words; `option` is how farwrite there is named."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        ssh.wait(2.0)
    stderr.seek(0)
    lines = [line for line in stderr.read().decode(errors="replace").splitlines() if line.strip()]
    words = f" It printed: {lines[-1].strip().rstrip('.')}." if lines else ""
    if ssh.returncode == NOT_FOUND:
        return UsageError(
            f"There is no farwrite at {host.login}, or not where ssh looks for commands.{words} Install {__version__} "
            f"there, or name it with {option}."
        )
    return ProcessLostError(f"ssh to {host.login} ended with exit code {ssh.returncode}.{words}")


# What a site is asked to do, as a call for another machine: its own files, not ours.
CALLS: dict[Callable, Callable[..., message.Call]] = {
    answer_requests: lambda request, answer, count, files, held: message.Echo(
        request_bytes=request, answer_bytes=answer, count=count, flushed=files is not None, held=held
    ),
    flush_floor: lambda files, size, count: message.Flush(size_bytes=size, count=count),
    hang_up: lambda name: message.HangUp(name=name),
    sides.copy: lambda order, files, words: message.Copy(order=order),
    sides.audit: lambda order, files, completed, issued: message.Audit(
        order=order, completed=completed, issued=np.trim_zeros(issued.words, "b").tobytes() if is_shuffled(order) else b""
    ),
}  # fmt: skip


@dataclass
class RealLab(Lab):
    """A lab whose distance is where the machines stand."""

    route: Route = field(kw_only=True)

    @property
    def far_host(self) -> dict[str, Any]:
        return self.route.far.ready.host

    @property
    def is_emulated(self) -> bool:
        """It is as far as it is."""
        return False

    def set_rtt(self, asked_rtt_ns: int) -> None:
        """It is as far as it is."""

    def join(self, name: str) -> None:
        """A new TCP connection between the sites; all but the probe as the lab's terms say."""
        self.route.join(name, self.transport["congestion_control"], IN_THE_CLEAR if name == PROBE else self.terms)


@dataclass
class Route:
    """How the near site reaches the far one: directly, or through ssh where the port is closed."""

    near: AnySite
    far: FarSite
    host: str
    port: int
    forwarded: bool = False

    @property
    def text(self) -> str:
        """In words, for the report."""
        if self.forwarded:
            return f"to {self.far.host.login} through ssh (its port is closed): what is measured is the link as ssh carries it"
        return f"to {self.far.host.login}, TCP port {self.port} directly"

    def join(self, name: str, congestion: str, terms: Terms = IN_THE_CLEAR, timeout_s: float = CONNECT_TIMEOUT_S) -> str:
        """A new connection; answers the congestion control in force at our end. A key of the run goes there through ssh."""
        token = secrets.token_bytes(TOKEN_BYTES)
        key = terms.identity.key if terms.identity else b""
        asked = message.Accept(
            token=token, name=name, congestion=congestion, encryption=terms.encryption, compression=terms.compression, key=key
        )
        self.far.ask(asked)
        try:
            in_force = self.near.call(dial_token, self.host, self.port, token, name, congestion, terms, timeout_s)
        except UnfitError:
            with contextlib.suppress(UnfitError):
                self.far.answer(CONNECT_TIMEOUT_S + 5)
            raise
        self.far.answer()
        return in_force


@contextmanager
def real_lab(spec: LabSpec, host: FarHost, command: str) -> Iterator[RealLab]:
    """A near site here and a far one there, open exactly as long as this block."""
    terms = prepared(spec)
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(awake(spec.keep_awake, spec.near))
        history, issued = stack.enter_context(board(HISTORY_WORDS)), stack.enter_context(board(ISSUED_WORDS))
        files = stack.enter_context(disk(spec.near, spec.journal_bytes, spec.volume_bytes))
        near = stack.enter_context(LocalSite("near", files, stack.enter_context(board(64))))
        far = stack.enter_context(far_site(host, command))
        far.stand(spec)
        route = Route(near, far, host_name(host), far.ready.port)
        # A lab of ours may set it; a machine of somebody's we leave as it is.
        transport = {"slow_start_after_idle": setting("net/ipv4/tcp_slow_start_after_idle", None)}
        try:
            transport["congestion_control"] = route.join(PROBE, spec.congestion, timeout_s=DIRECT_TIMEOUT_S)
        except UnfitError:
            route.port = stack.enter_context(forwarding(host, far.ready.address, route.port))
            route.host, route.forwarded = "127.0.0.1", True
            transport["congestion_control"] = route.join(PROBE, spec.congestion)
        survey(near, far, BASE_ECHOES)  # The first one pays for slow start and cold code.
        base = survey(near, far, BASE_ECHOES)
        choice = Choice(REAL, f"measured, not emulated: {route.text}")
        yield RealLab(
            near, far, SetElsewhere(REAL), transport, base, choice, history, issued, [], terms=terms, awake=kept, route=route
        )


@contextmanager
def far_site(host: FarHost, command: str) -> Iterator[FarSite]:
    """ssh that runs farwrite far-site there, alive at most as long as this block."""
    with tempfile.TemporaryFile() as stderr, started([*host.ssh("-T"), f"{shlex.quote(command)} far-site"], stderr) as ssh:
        yield FarSite(host, ssh, stderr)


# What ssh runs there while it carries ports: until its input ends. Without a command (-N) sshd leaves Nagle's algorithm on, and a
# write waits for a delayed acknowledgement now and then: p99 44 ms instead of 5 over loopback (4 KiB, C; OpenSSH 9.2).
WAITS = "cat"


@contextmanager
def forwarding(host: FarHost, address: str, port: int) -> Iterator[int]:
    """A port of this machine that ssh carries to where the far site waits, as long as this block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        here = free.getsockname()[1]
    options = "-T", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{here}:[{address}]:{port}"
    with tempfile.TemporaryFile() as stderr, started([*host.ssh(*options), WAITS], stderr) as ssh:
        until_s = time.monotonic() + FORWARD_TIMEOUT_S
        while not answers_at(here):
            if ssh.poll() is not None or time.monotonic() > until_s:
                raise UnfitError(
                    f"The far site's port {port} is closed, and ssh does not forward it (AllowTcpForwarding in its sshd_config)."
                )
            time.sleep(0.05)
        yield here


def answers_at(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


@contextmanager
def started(command: list[str], stderr: IO[bytes]) -> Iterator[subprocess.Popen]:
    """A process that dies with us and at the end of this block; what it prints besides goes to a file."""
    parent = os.getpid()
    with uninterrupted():
        try:
            made = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, bufsize=0,
                preexec_fn=lambda: become_worker(parent),
            )  # fmt: skip
        except OSError as refusal:
            raise UnfitError(f"start {command[0]}: {refusal.strerror}. --far needs ssh on this machine.") from refusal
    try:
        yield made
    finally:
        with uninterrupted():
            for pipe in (made.stdin, made.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            made.kill()
            made.wait()


def host_name(host: FarHost) -> str:
    """The machine that ssh would go to: its aliases are its user's."""
    try:
        settings = subprocess.run(host.ssh("-G"), capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return host.login.rpartition("@")[2]
    names = [line.split()[1] for line in settings.splitlines() if line.startswith("hostname ")]
    return names[0] if names else host.login.rpartition("@")[2]


def refused(refusal: message.Refusal, host: FarHost) -> UsageError | UnfitError:
    """A refusal as the error it is."""
    return error_of(refusal.exit_code)(f"{host.login}: {refusal.sentence}")
