"""Our doors alone on this machine, nothing replicated, beside servers of the same protocols: rates, rounds of all interleaved.

iSCSI: 4 KiB reads and writes by QEMU's initiator (libiscsi, `qemu-img bench`) at our door and at tgt, on files side by side on
one disk. A completed write is durable at ours; tgt is measured with a synchronous file, which makes it so there, and as it comes,
where a write is in the page cache. NBD: sequential requests of 1 MiB at our door and at nbdkit's memory plugin, everything in
memory, by a client of a few lines. Debian: tgt, qemu-utils, qemu-block-extra, nbdkit.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from farwrite import __version__
from farwrite.base.errors import UnfitError
from farwrite.base.host import reactor
from farwrite.base.host.disk import disk, preallocate
from farwrite.base.host.parent_death import die_with
from farwrite.engine import primary_kernel as primary
from farwrite.engine.frontend import nbd as protocol
from farwrite.engine.frontend import session_kernel as sessions
from farwrite.engine.frontend.frontend import Frontend
from farwrite.engine.frontend.iscsi.engine_volume import EngineVolume
from farwrite.engine.frontend.iscsi.pages import Identification
from farwrite.engine.frontend.iscsi.portal import portal_of
from farwrite.engine.frontend.iscsi.relay import Gates
from farwrite.engine.frontend.iscsi.scsi import LogicalUnit
from farwrite.engine.frontend.iscsi.target import Target
from farwrite.engine.frontend.nbd_door import nbd_door
from farwrite.engine.frontend.nbd_negotiation import Chosen, Export
from farwrite.engine.journal import format_journal
from farwrite.targets import replicated

from . import daemon, nbd
from .result import Doors, Rate

MIB = 1 << 20
VOLUME_BYTES, JOURNAL_BYTES = 256 * MIB, 256 * MIB
VOLUME, EPOCH, SEED = 5, 1, 1
TARGET = "iqn.2026-11.org.example:disk"
READ, WRITE = "read", "write"
DEPTHS = (1, 32)  # Of iSCSI.
TRIAL_COUNT = 1000  # Requests of the trial that says how many a round takes.
BULK_DEPTH, BULK_COUNT = 8, 512
SETUP_S, END_S = 20.0, 60.0
OURS, TGT, TGT_CACHED, NBDKIT = "door", "tgt", "tgt-cached", "nbdkit"


@dataclass(frozen=True)
class Server:
    """One that is measured: where it is, and what a completed write is there."""

    name: str
    what: str
    version: str
    address: str  # an iscsi:// URI, or the path of a unix socket


def measure(directory: Path, rounds: int, seconds: float, command: list[str], say: Callable[[str], None]) -> Doors:
    """Everybody who is installed, round by round in an order of its own."""
    rng = np.random.default_rng(SEED)
    skipped: dict[str, str] = {}
    made: list[Server] = []
    rates: dict[tuple[str, str], list[float]] = {}
    for kind, opened, loads in (("iscsi", iscsi_servers, iscsi_loads), ("nbd", nbd_servers, nbd_loads)):
        with contextlib.ExitStack() as stack:
            servers = list(opened(stack, directory, skipped))
            if len(servers) < 2:
                skipped[kind] = "nobody to be measured beside"
                continue
            made += servers
            jobs = [(server, load, run) for server in servers for load, run in loads(server, seconds)]
            for number in range(rounds):
                say(f"doors: {kind}, round {number + 1} of {rounds}")
                for at in rng.permutation(len(jobs)):
                    server, load, run = jobs[at]
                    rates.setdefault((server.name, load), []).append(run())
    return Doors(
        command=command, skipped=skipped, contenders={one.name: f"{one.version}: {one.what}" for one in made},
        rates=[Rate(contender=name, load=load, rounds=values) for (name, load), values in sorted(rates.items())],
    )  # fmt: skip


# Servers


def iscsi_servers(stack: contextlib.ExitStack, directory: Path, skipped: dict[str, str]) -> Iterator[Server]:
    """Ours, and tgt twice."""
    if shutil.which("qemu-img") is None or not has_iscsi():
        skipped["iscsi"] = "qemu-img with iSCSI is not installed (Debian: qemu-utils, qemu-block-extra)"
        return
    port = stack.enter_context(doors(directory)).iscsi_port
    yield Server(OURS, "a write is durable", f"farwrite {__version__}", f"iscsi://127.0.0.1:{port}/{TARGET}/0")
    try:
        for name, flags, what in ((TGT, "sync", "a write is durable (bsoflags sync)"),
                                  (TGT_CACHED, "", "as it comes: a write is in the page cache")):  # fmt: skip
            yield Server(name, what, f"tgt {version_of_tgt()}", stack.enter_context(tgt(directory, name, flags)))
    except UnfitError as refusal:
        skipped[TGT] = str(refusal)


def nbd_servers(stack: contextlib.ExitStack, directory: Path, skipped: dict[str, str]) -> Iterator[Server]:
    """Ours and nbdkit, in memory."""
    place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farwrite-doors-")))
    if shutil.which(NBDKIT) is None:
        skipped[NBDKIT] = "nbdkit is not installed (Debian: nbdkit)"
        return
    yield Server(f"NBD {OURS}", "a write is in the log and at its place", f"farwrite {__version__}",
                 stack.enter_context(doors(None, place / "ours")).nbd_path)  # fmt: skip
    yield Server(NBDKIT, "a write is in memory", daemon.first_line([NBDKIT, "--version"]), stack.enter_context(nbdkit(place)))


@dataclass(frozen=True)
class Opened:
    """Where our doors are."""

    iscsi_port: int
    nbd_path: str


@contextmanager
def doors(directory: Path | None, socket_path: Path | None = None) -> Iterator[Opened]:
    """A primary without peers in a process of its own, with its doors open exactly as long as this block."""
    parent = os.getpid()
    with contextlib.ExitStack() as stack:
        iscsi = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        if socket_path is not None:
            unix.bind(str(socket_path))
            unix.listen()
        child = os.fork()
        if child == 0:
            try:
                die_with(parent)
                serve(directory, iscsi, unix if socket_path is not None else None)
            finally:
                os._exit(1)
        try:
            yield Opened(iscsi.getsockname()[1], str(socket_path or ""))
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def serve(directory: Path | None, iscsi: socket.socket, unix: socket.socket | None) -> None:
    """In the child: the loop, until we are killed."""
    with contextlib.ExitStack() as stack:
        chosen = stack.enter_context(disk(directory, JOURNAL_BYTES, VOLUME_BYTES))
        ring = stack.enter_context(reactor.reactor())
        journal = format_journal(chosen, VOLUME, EPOCH, replicated.STAGING_BYTES)
        state = primary.primary_state(journal, ring, [], primary.LOCAL, 1, 10**10, volume_bytes=VOLUME_BYTES)
        frontend = Frontend(VOLUME_BYTES)
        frontend.begin(state)
        frontend.turn(state, True, 0)
        unit = LogicalUnit(EngineVolume(frontend, VOLUME_BYTES), Identification(VOLUME, TARGET))
        stack.enter_context(portal_of(iscsi, Target(TARGET, unit), gates=Gates(frontend)))
        if unix is not None:
            def take_in(connection: socket.socket, chosen: Chosen) -> None:
                frontend.adopt(connection, sessions.NBD, 0, VOLUME_BYTES)

            stack.enter_context(nbd_door(unix, (Export("", VOLUME_BYTES, False, ""),), take_in))
        while frontend.turn(state, True) == 0:
            pass


@contextmanager
def tgt(directory: Path, name: str, flags: str) -> Iterator[str]:
    """A tgtd of its own with one disk; its URI."""
    tgtd, tgtadm = (shutil.which(one, path=f"{os.environ['PATH']}:/usr/sbin") for one in ("tgtd", "tgtadm"))
    if tgtd is None or tgtadm is None:
        raise UnfitError("tgt is not installed (Debian: tgt)")
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farwrite-doors-")))
        port, image = free_port(), directory / name
        stack.callback(image.unlink, missing_ok=True)
        make_image(image)
        environment = os.environ | {"TGT_IPC_SOCKET": str(place / "socket")}
        parent = os.getpid()
        server = subprocess.Popen(
            [tgtd, "-f", "--iscsi", f"portal=127.0.0.1:{port}"], env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, preexec_fn=lambda: die_with(parent),
        )  # fmt: skip
        stack.callback(server.wait)
        stack.callback(server.kill)

        def admin(*words: str) -> bool:
            done = subprocess.run([str(tgtadm), "--lld", "iscsi", *words], env=environment, capture_output=True, check=False)
            return done.returncode == 0

        limit_s = time.monotonic() + SETUP_S
        while not admin("--op", "show", "--mode", "sys"):
            if time.monotonic() > limit_s or server.poll() is not None:
                raise UnfitError("tgtd does not answer")
            time.sleep(0.05)
        unit = ["--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", str(image)]
        steps = (
            ["--op", "new", "--mode", "target", "--tid", "1", "-T", TARGET],
            [*unit, *(["--bsoflags", flags] if flags else [])],
            ["--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"],
        )
        for step in steps:
            if not admin(*step):
                raise UnfitError(f"tgtadm {' '.join(step)} was refused")
        yield f"iscsi://127.0.0.1:{port}/{TARGET}/1"


def make_image(path: Path) -> None:
    """A file of the volume's size, written in full."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        preallocate(descriptor, VOLUME_BYTES, path.parent)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def version_of_tgt() -> str:
    """Its number."""
    return daemon.first_line([str(shutil.which("tgtd", path=f"{os.environ['PATH']}:/usr/sbin")), "--version"])


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        return made.getsockname()[1]


@contextmanager
def nbdkit(place: Path) -> Iterator[str]:
    """nbdkit's memory plugin; the path of its socket."""
    path = place / NBDKIT
    parent = os.getpid()
    server = subprocess.Popen(
        [NBDKIT, "-f", "-U", str(path), "memory", str(VOLUME_BYTES)], preexec_fn=lambda: die_with(parent)
    )
    try:
        yield str(path)
    finally:
        server.kill()
        server.wait()


# Loads


Loads = Iterator[tuple[str, Callable[[], float]]]


def iscsi_loads(server: Server, seconds: float) -> Loads:
    """(what is done, a round of it that answers requests a second) at every depth."""
    qemu_bench(server.address, WRITE, BULK_DEPTH, VOLUME_BYTES // MIB, MIB)  # Nothing is a hole.
    for depth in DEPTHS:
        for kind in (WRITE, READ):
            count = max(int(qemu_bench(server.address, kind, depth, TRIAL_COUNT) * seconds), TRIAL_COUNT)
            yield f"iSCSI, 4 KiB {kind}s, {depth} at a time", partial(qemu_bench, server.address, kind, depth, count)


def qemu_bench(uri: str, kind: str, depth: int, count: int, size: int = 4096) -> float:
    """Requests a second of so many sequential requests, by QEMU's own clock."""
    words = ["qemu-img", "bench", "-f", "raw", "-c", str(count), "-d", str(depth), "-s", str(size)]
    words += ["-w"] if kind == WRITE else []
    done = subprocess.run([*words, uri], capture_output=True, text=True, timeout=END_S, check=False)
    found = re.search(r"Run completed in ([\d.]+) seconds", done.stdout)
    if done.returncode or not found:
        raise UnfitError(f"{' '.join(words)} answered {done.returncode}: {done.stderr.strip()}")
    return count / float(found[1])


def has_iscsi() -> bool:
    """Whether this QEMU has an initiator: it says so by what it answers where nobody listens."""
    done = subprocess.run(
        ["qemu-img", "info", f"iscsi://127.0.0.1:1/{TARGET}/0"], capture_output=True, text=True, timeout=END_S, check=False
    )
    return "Unknown protocol" not in done.stderr


def nbd_loads(server: Server, seconds: float) -> Loads:
    """The same for requests of 1 MiB, in MiB/s; each round is a connection of its own."""

    def once(command: int) -> float:
        connection, _ = nbd.connect(socket.AF_UNIX, server.address, "")
        with connection:
            connection.settimeout(END_S)
            return bulk(connection, command, BULK_COUNT)

    once(protocol.WRITE)  # All of it is memory that was touched before.
    for kind, command in ((WRITE, protocol.WRITE), (READ, protocol.READ)):
        yield f"NBD, sequential 1 MiB {kind}s, {BULK_DEPTH} at a time", partial(once, command)


def bulk(connection: socket.socket, command: int, total: int, depth: int = BULK_DEPTH) -> float:
    """MiB/s of sequential requests of 1 MiB, around the volume. UnfitError for an answer that is none; hang up then."""
    data = os.urandom(MIB)
    allowed = threading.Semaphore(depth)

    def send() -> None:
        with contextlib.suppress(OSError):  # The receiving side says it.
            for number in range(total):
                allowed.acquire()
                head = protocol.REQUEST.pack(protocol.REQUEST_MAGIC, 0, command, number, number * MIB % VOLUME_BYTES, MIB)
                connection.sendall(head)
                if command == protocol.WRITE:
                    connection.sendall(data)

    room = memoryview(bytearray(nbd_reply_bytes(command)))
    begun_s = time.perf_counter()
    sending = threading.Thread(target=send)
    sending.start()
    try:
        for _ in range(total):
            receive_reply(connection, room)
            allowed.release()
    except (OSError, UnfitError):
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        raise
    finally:
        allowed.release(total)
        sending.join()
    return total / (time.perf_counter() - begun_s)


def receive_reply(connection: socket.socket, room: memoryview) -> None:
    """One simple reply, which has to be of success."""
    got = 0
    while got < len(room):
        piece = connection.recv_into(room[got:])
        if not piece:
            raise UnfitError("The NBD server has hung up.")
        got += piece
    if error := int.from_bytes(room[4:8], "big"):
        raise UnfitError(f"The NBD server answered error {error}.")


def nbd_reply_bytes(command: int) -> int:
    """Of a simple reply."""
    return 16 + (MIB if command == protocol.READ else 0)
