"""`farwrite far-voter`: the far replica, or the witness, of a volume that another machine serves.

ssh starts a process that passes bytes between its streams and a socket here. Behind the socket is the supervisor, a process in a
session of its own: it holds the files, starts the voter, starts it again when it ends, and says how it stands to whoever is
attached. When ssh ends it goes on without anybody attached, for the voter must survive the loss of near; it ends when it is told
to, from near or by `farwrite far-voter --end DIR` here.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import select
import signal
import socket
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ... import __version__
from ...base import framing
from ...base.errors import FarwriteError, UnfitError, UsageError, system_error
from ...base.host.parent_death import die_with
from ...base.wire.door import accepted
from . import far_message as message

if TYPE_CHECKING:
    from ...engine.control import Address
    from .apart import Apart
    from .volume_files import Files, Settings

SOCKETS = "sockets"
LOOK_S = 0.1
FIRST_S = 30.0  # For the first frame to be said.
SAY_S = 2.0  # For who is attached to take a frame; after that nobody is.
DIAL_S = 3.0
END_S = 60.0  # For a voter to apply what it holds and end.
NOT_OURS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


# What ssh starts


def pass_on() -> None:
    """Until either end hangs up: bytes between standard streams and the supervisor, which is started where there is none."""
    die_with(os.getppid())
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)  # Whatever prints does not get among the frames.
    asks = framing.Reader(sys.stdin.buffer, message.frames())
    try:
        first = asks.take()
        if first is None:
            raise UsageError("farwrite far-voter is not for people: farwrite serve --far ssh://HOST starts it.")
        asked = attach_of(first)
        with supervisor_of(asked) as connection:
            connection.sendall(framing.frame(first, "big") + bytes(asks.cutter.waiting))  # type: ignore[attr-defined]
            pump(connection, kept)
    except FarwriteError as refusal:
        write_all(kept, message.frame_of(message.Refusal(sentence=str(refusal), exit_code=refusal.exit_code)))


def attach_of(first: bytes) -> message.Attach:
    """The first frame; UsageError for what is none."""
    try:
        return message.ATTACH.decode(first)
    except NOT_OURS as refusal:
        raise UsageError(f"farwrite {__version__} there received a message that it cannot decode: {refusal}.") from refusal


def sockets_of(directory: Path, sockets: str) -> Path:
    """Where the doors' sockets are, and ours."""
    return Path(sockets).expanduser().absolute() if sockets else directory / SOCKETS


def directory_of(text: str) -> Path:
    """A directory as typed; UsageError for none."""
    if not text:
        raise UsageError("name the directory of its files there: ssh://HOST/DIR.")
    return Path(text).expanduser().absolute()


def pump(connection: socket.socket, out: int) -> None:
    """Bytes in both directions, until one end has no more."""
    while True:
        ready, _, _ = select.select([0, connection.fileno()], [], [])
        if 0 in ready:
            data = os.read(0, framing.READ_BYTES)
            if not data:
                return
            connection.sendall(data)
        if connection.fileno() in ready:
            try:
                data = connection.recv(framing.READ_BYTES)
            except ConnectionResetError:
                return
            if not data:
                return
            write_all(out, data)


def write_all(descriptor: int, data: bytes) -> None:
    """All of it."""
    while data:
        data = data[os.write(descriptor, data) :]


@contextmanager
def supervisor_of(asked: message.Attach) -> Iterator[socket.socket]:
    """A connection to the volume's supervisor, which is started where none answers."""
    connection = dialled(sockets_of(directory_of(asked.directory), asked.sockets))
    with connection or started() as made:
        yield made


def dialled(sockets: Path) -> socket.socket | None:
    """A connection to the supervisor whose socket is in this directory; None where there is none."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(sockets / message.SOCKET))
        return connection
    except OSError as refusal:
        connection.close()
        if refusal.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
            return None
        raise system_error(f"reach {sockets / message.SOCKET}", refusal.errno or 0) from refusal


def started() -> socket.socket:
    """A connection to a new supervisor: a process that is nobody's child and in nobody's session."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                ours.close()
                leave_streams(theirs.fileno())
                supervise(theirs)
        finally:
            os._exit(0)
    theirs.close()
    os.waitpid(pid, 0)
    return ours


def leave_streams(kept: int) -> None:
    """Hold nothing of ssh's open: it waits for all who hold its streams. setsid(2), daemon(3)."""
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(3, kept)
    os.closerange(kept + 1, 1 << 16)


# The supervisor


def supervise(connection: socket.socket) -> None:
    """Hold the volume's files here and look after the voter, until it is told to end."""
    attached = Attached(connection)
    try:
        first = attached.first()
        if first is None:
            return
        asked = attach_of(first)
        with contextlib.ExitStack() as stack:
            Supervisor(stack, asked, attached).run()
    except FarwriteError as refusal:
        attached.say(message.Refusal(sentence=str(refusal), exit_code=refusal.exit_code))
    except Exception as failure:
        import traceback

        words = f"Our own fault there: {failure!r}\n{traceback.format_exc()}"
        attached.say(message.Refusal(sentence=words, exit_code=UnfitError.exit_code))


class Attached:
    """Who is at the other end of a connection to the supervisor."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.cutter = message.frames()
        self.is_gone = False

    def first(self) -> bytes | None:
        """Its first frame; None where it says none in time."""
        until_s = time.monotonic() + FIRST_S
        while (frame := self.cutter.take()) is None:
            if not select.select([self.connection], [], [], max(until_s - time.monotonic(), 0))[0]:
                return None
            self.hear()
            if self.is_gone:
                return None
        return frame

    def hear(self) -> None:
        """What it has said, which there is."""
        try:
            data = self.connection.recv(framing.READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.is_gone = True
        self.cutter.put(data)

    def say(self, told: msgspec.Struct) -> None:
        """One message; who does not take it is gone."""
        try:
            self.connection.settimeout(SAY_S)
            self.connection.sendall(message.frame_of(told))
        except OSError:
            self.is_gone = True


class Supervisor:
    """The files of a volume on this machine, its voter, and who is attached."""

    def __init__(self, stack: contextlib.ExitStack, asked: message.Attach, attached: Attached) -> None:
        self.stack, self.asked, self.attached = stack, asked, attached
        self.newcomers: list[Attached] = []
        self.server: Apart | None = None
        self.serving = contextlib.ExitStack()
        self.config: message.Config | None = None
        self.events: list[str] = []
        self.is_over = self.is_undone = False
        self.looked = ""
        self.told_s = 0.0

    def run(self) -> None:
        """Until it is over, or nobody has said what to serve and is gone."""
        asked = self.asked
        if reason := message.another_version(asked.farwrite):
            raise UsageError(reason)
        self.directory = directory_of(asked.directory)
        self.settings = settings_of(asked)
        self.files = self.stack.enter_context(self.files_of_voter())
        from .server import socket_directory

        if not asked.sockets:
            self.stack.callback(self.leave_no_sockets)
        try:
            self.sockets = self.stack.enter_context(socket_directory(sockets_of(self.directory, asked.sockets)))
        except UsageError as refusal:
            raise UsageError(str(refusal).replace("--sockets", "--far-sockets")) from refusal
        self.listening = self.stack.enter_context(listening_at(self.sockets / message.SOCKET))
        if self.asked.name in self.files.disks:
            from ...progress import Silence
            from ..compilation import compile_doors

            compile_doors(Silence())
        self.address, self.ports, self.spare = own_place(asked.ports)
        os.register_at_fork(after_in_child=self.close_in_child)
        self.stack.callback(self.stop)
        self.attached.say(self.ready())
        while not self.is_over and not (self.attached.is_gone and self.config is None and not self.newcomers):
            try:
                self.turn()
            except KeyboardInterrupt:  # SIGTERM
                return

    def leave_no_sockets(self) -> None:
        """The directory that we made for them goes, unless somebody has put something into it."""
        with contextlib.suppress(OSError):
            (self.directory / SOCKETS).rmdir()

    def close_in_child(self) -> None:
        """In the voter's process: who attaches waits for our end of the connection, not for its."""
        for one in (self.attached, *self.newcomers):
            one.connection.close()
        self.listening.close()

    def turn(self) -> None:
        """Hear who says something, look after the voter, say how it stands."""
        heard = {one.connection: one for one in (self.attached, *self.newcomers) if not one.is_gone}
        ready, _, _ = select.select([self.listening, *heard], [], [], LOOK_S)
        for connection in ready:
            if connection is self.listening:
                self.let_in()
            else:
                heard[connection].hear()
        for one in tuple(self.newcomers):
            self.greet(one)
        try:
            while not self.attached.is_gone and (frame := self.attached.cutter.take()) is not None:
                self.obey(message.REQUEST.decode(frame))
        except (framing.TooLongError, *NOT_OURS) as refusal:
            self.attached.say(message.Refusal(sentence=f"This is no request: {refusal}.", exit_code=UsageError.exit_code))
            self.attached.is_gone = True
        if self.attached.is_gone:
            self.attached.connection.close()
        if self.server is not None and not self.is_over:
            try:
                self.server.look()
                self.looked = ""
            except (FarwriteError, OSError) as refusal:  # No process can be started, or no file opened: it is tried again.
                if str(refusal) != self.looked:
                    self.say(f"look after {self.asked.name}: {refusal}")
                self.looked = str(refusal)
            self.tell()

    def let_in(self) -> None:
        """One more that connects. Few at a time: only this user can."""
        come = accepted(self.listening)
        if come is not None:
            self.newcomers.append(Attached(come[0]))
            if len(self.newcomers) > 4:
                self.newcomers.pop(0).connection.close()

    def greet(self, one: Attached) -> None:
        """Who says the first frame of this very volume takes the place of who was attached before."""
        try:
            frame = one.cutter.take()
            if frame is None and not one.is_gone:
                return
            self.newcomers.remove(one)
            if frame is None:
                one.connection.close()
                return
            asked = attach_of(frame)
            refusal = message.another_version(asked.farwrite) or self.why_not(asked)
            if refusal:
                raise UsageError(refusal)
        except FarwriteError as refusal_:
            with contextlib.suppress(ValueError):
                self.newcomers.remove(one)
            one.say(message.Refusal(sentence=str(refusal_), exit_code=refusal_.exit_code))
            one.connection.close()
            return
        self.attached.connection.close()
        self.attached = one
        one.say(self.ready())

    def why_not(self, asked: message.Attach) -> str:
        """Why this is not what it is asked for; empty where it is."""
        if asked.is_new:
            return f"{self.directory} holds a volume, which is served: name another directory."
        if asked.name != self.asked.name or settings_of(asked).volume != self.settings.volume:
            return f"{self.directory} is the {self.asked.name} of volume {self.settings.volume:x}, which is another one."
        return ""

    def ready(self) -> message.Ready:
        """Who we are."""
        not_durable = next((disk.not_durable for disk in self.files.disks.values()), "")
        return message.Ready(
            farwrite=__version__, pid=os.getpid(), address=self.address, port=self.ports[0], vote_port=self.ports[1],
            spare_ports=self.spare, directory=str(self.directory), sockets=str(self.sockets), not_durable=not_durable,
            config=self.config,
        )  # fmt: skip

    # The voter

    @contextmanager
    def files_of_voter(self) -> Iterator[Files]:
        """Its files: new ones, which go again unless it is served once, or those that were kept."""
        from .volume_files import SETTINGS, kept_files, new_files, read_settings

        name, directory = self.asked.name, self.directory
        if not self.asked.is_new:
            if not directory.is_dir():
                raise UsageError(f"{directory} is not there, so {name} has no files: put them back from where they went.")
            there = read_settings(directory)
            if there.volume != self.settings.volume or not (directory / name).is_dir():
                raise UsageError(
                    f"{directory} holds the files of another volume ({there.volume:x}), or of another voter: this is the {name} "
                    f"of {self.settings.volume:x}. Name the directory that farwrite serve --keep named."
                )
            with kept_files(self.settings, directory, [name]) as found:
                yield found
            return
        with new_files(self.settings, directory, True, [name]) as found:
            try:
                yield found
            finally:
                if self.config is None or self.is_undone:
                    (directory / SETTINGS).unlink(missing_ok=True)  # Without it the others go as well.

    def serve(self, config: message.Config) -> str:
        """Start the voter; one that runs with the same goes on."""
        if self.server is not None and self.config == config:
            return ""
        self.stop()
        from ...engine.frontend.iscsi.chap import Credentials
        from .apart import NOWHERE, Apart
        from .server import Asked, bound_tcp

        chap = Credentials(config.chap, config.chap_name, config.chap_secret) if config.chap else None
        wanted = Asked(
            leg=NOWHERE, link="real", tls=Path(config.tls).expanduser() if config.tls else None, chap=chap,
            is_verbose=config.is_verbose,
        )  # fmt: skip
        check_doors(config)
        if wanted.tls is not None:
            from ...base.wire.certificates import server_context

            server_context(wanted.tls)
        self.serving = contextlib.ExitStack()
        address = config.address
        tcp = self.serving.enter_context(bound_tcp(address, config.port)) if address and config.port is not None else None
        iscsi_port = config.iscsi_port
        iscsi = self.serving.enter_context(bound_tcp(address, iscsi_port)) if address and iscsi_port is not None else None
        name, supervisor = self.asked.name, self

        class Here(Apart):
            def say(self, sentence: str) -> None:
                supervisor.say(sentence)

        made = Here(self.serving, self.settings, self.files, wanted, self.sockets, [name], config.key, tcp, iscsi)
        made.addresses = {one: address_of(place) for one, place in config.replicas.items()}
        made.witness = address_of(config.witness) if config.witness else None
        self.server, self.config = made, config
        made.start(name)
        return ""

    def say(self, sentence: str) -> None:
        """An event, for who is attached, or will be."""
        self.events = [*self.events, sentence][-message.EVENTS_MAX :]

    def stop(self) -> None:
        """End the voter in order, if it runs."""
        server, self.server = self.server, None
        if server is not None:
            from .server import calm

            with calm():
                server.end()
        self.serving.close()

    def tell(self) -> None:
        """How the voter stands, to who is attached."""
        now_s, server = time.monotonic(), self.server
        if self.attached.is_gone or server is None or now_s - self.told_s < message.STATUS_S:
            return
        self.told_s = now_s
        events, self.events = self.events, []
        self.attached.say(
            message.Status(
                words=zlib.compress(server.boards[self.asked.name].words.tobytes(), 1),
                runs=self.asked.name in server.processes, events=events,
                tcp_uri=server.tcp_uri(), iscsi_uri=server.iscsi_uri(),
            )
        )  # fmt: skip
        if self.attached.is_gone:
            self.events = events + self.events

    def obey(self, request: message.Request) -> None:
        """Do what is asked, and answer."""
        text = ""
        try:
            match request:
                case message.Serve(config=config):
                    text = self.serve(config)
                case message.Dial(host=host, port=port, token=token):
                    text = dial(host, port, token)
                case message.Drain():
                    if self.server is not None:
                        from .replica import figures_of

                        figures_of(self.server.boards[self.asked.name]).task.drain = 1
                case message.Stop(is_undone=is_undone):
                    self.stop()
                    self.is_undone = is_undone
                    text, self.is_over = " ".join(self.events), True
        except FarwriteError as refusal:
            self.attached.say(message.Refusal(sentence=str(refusal), exit_code=refusal.exit_code))
            return
        except Exception as failure:  # Our own fault. A voter that runs is not ended for it.
            self.attached.say(message.Refusal(sentence=f"our own fault there: {failure!r}", exit_code=UnfitError.exit_code))
            return
        self.attached.say(message.Answer(text=text))


def settings_of(asked: message.Attach) -> Settings:
    """The volume's settings in a first frame; UsageError for what is none."""
    from .volume_files import Settings

    try:
        return msgspec.json.decode(asked.settings, type=Settings)
    except NOT_OURS as refusal:
        raise UsageError(f"these are no settings of a volume: {refusal}.") from refusal


def check_doors(config: message.Config) -> None:
    """UsageError for a TCP port of this machine that others reach without proof of who they are."""
    if not config.address:
        return
    try:
        is_loopback = ipaddress.ip_address(config.address).is_loopback
    except ValueError:
        raise UsageError(f'--far-listen: {config.address[:64]!r} is no address, such as 127.0.0.1.') from None
    if is_loopback:
        return
    if config.iscsi_port is not None and not config.chap:
        raise UsageError(f"--far-listen {config.address}: others can reach it; over iSCSI that needs --chap FILE.")
    if config.port is not None and not (config.tls and (Path(config.tls).expanduser() / "ca-cert.pem").is_file()):
        raise UsageError(
            f"--far-listen {config.address}: others can reach it, and over NBD that needs certificates: --far-tls DIR, a "
            "directory of that machine with server-cert.pem, server-key.pem, and the ca-cert.pem of who signs for clients."
        )


def address_of(place: message.Place) -> Address:
    """A voter's address as the engine has it."""
    from ...engine.control import Address

    return Address(place.host, place.port, place.vote_port)


def own_place(wanted: tuple[int, int]) -> tuple[str, tuple[int, int], tuple[int, int, int]]:
    """(the address that ssh came in on, two ports there, three of loopback): where the voter listens, and near if ssh carries it.

    The ports that are wanted, where they are free. UnfitError where they are not.
    """
    from ..remote.rendezvous import LOOPBACK, ssh_address

    spare = free_ports(LOOPBACK, 3)
    for address in (ssh_address(), LOOPBACK):
        with contextlib.suppress(OSError):
            ports = free_ports(address, 2)
            if all(wanted):
                if not are_free(address, wanted):
                    raise UnfitError(f"ports {wanted[0]} and {wanted[1]} of {address}, where it listened before, are taken.")
                ports = list(wanted)
            return address, (ports[0], ports[1]), (spare[0], spare[1], spare[2])
    raise UnfitError(f"it cannot listen on {LOOPBACK}.")


def free_ports(address: str, count: int) -> list[int]:
    """So many different ports that nobody has now. OSError where the address is none of this machine's."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(bound(address, 0)) for _ in range(count)]
        return [one.getsockname()[1] for one in held]


def are_free(address: str, ports: tuple[int, ...]) -> bool:
    """Whether all of these can be had."""
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        for port in ports:
            stack.enter_context(bound(address, port))
        return True
    return False


def bound(address: str, port: int) -> socket.socket:
    """A socket that has this address. OSError as bind(2) has it."""
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made


def dial(host: str, port: int, token: bytes) -> str:
    """Why this address cannot be reached from here; empty where it can, and whoever listens there knows the token."""
    try:
        with socket.create_connection((host, port), timeout=DIAL_S) as connection:
            if token:
                connection.sendall(token)
                if not connection.recv(1):
                    return "somebody else listens there"
    except OSError as refusal:
        return refusal.strerror or str(refusal)
    return ""


@contextmanager
def listening_at(path: Path) -> Iterator[socket.socket]:
    """A unix socket with this name, which goes at the end."""
    with socket.socket(socket.AF_UNIX) as listening:
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(8)
        try:
            yield listening
        finally:
            path.unlink(missing_ok=True)


# For an operator at that machine


def end(directory: Path, sockets: str = "") -> None:
    """Have the supervisor of the volume in this directory end its voter and itself. UsageError where there is none."""
    from .volume_files import read_settings

    settings = read_settings(directory)
    connection = dialled(sockets_of(directory.absolute(), sockets))
    if connection is None:
        raise UsageError(f"Nobody serves the volume in {directory}: there is nothing to end.")
    name = next((one for one in ("far", "third") if (directory / one).is_dir()), "far")
    asked = message.Attach(
        farwrite=__version__, name=name, directory=str(directory.absolute()), sockets=sockets,
        settings=msgspec.json.encode(settings), is_new=False,
    )  # fmt: skip
    with connection:
        connection.sendall(message.frame_of(asked) + message.frame_of(message.Stop()))
        until_s = time.monotonic() + END_S
        reader = framing.Reader(connection.makefile("rb"), message.frames())
        while (left_s := until_s - time.monotonic()) > 0 and reader.poll(left_s):
            frame = reader.take()
            if frame is None:
                return
            told = message.REPLY.decode(frame)
            if isinstance(told, message.Refusal):
                raise UnfitError(told.sentence)
            if isinstance(told, message.Answer):
                return
    raise UnfitError(f"The voter in {directory} has not ended within {END_S:g} s.")
