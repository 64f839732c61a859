"""Writes of several sizes to a target at the far site of a lab, timed by QEMU's qemu-io at the near site: `farwrite trips`.

The target is our own door, with one replica that writes its journal in memory, or whatever somebody's command serves. A process
of qemu-io at each size and distance writes again and again to the beginning of the disk, one write at a time. What an iSCSI
target agrees to is asked in a login of our own that offers what libiscsi offers. Nothing is judged here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Literal
from urllib.parse import unquote, urlsplit

from ..analysis.trips import OFFERED, agreed
from ..base.errors import FarwriteError, UnfitError, UsageError, system_error
from ..base.host import reactor
from ..base.host.disk import disk
from ..base.units import NS_PER_S
from ..engine import primary_kernel as primary
from ..engine.frontend import session_kernel as sessions
from ..engine.frontend.frontend import Frontend
from ..engine.frontend.iscsi import pdu
from ..engine.frontend.iscsi.client import log_in
from ..engine.frontend.iscsi.engine_volume import EngineVolume
from ..engine.frontend.iscsi.pages import Identification
from ..engine.frontend.iscsi.portal import PORT as ISCSI_PORT
from ..engine.frontend.iscsi.portal import portal
from ..engine.frontend.iscsi.relay import Gates
from ..engine.frontend.iscsi.scsi import LogicalUnit
from ..engine.frontend.iscsi.target import Target
from ..engine.frontend.iscsi.text import TextError
from ..engine.frontend.nbd_door import nbd_door
from ..engine.frontend.nbd_negotiation import Chosen, Export
from ..engine.journal import format_journal
from ..lab.process import Process, process
from ..lab.session import Session, how_ended, open_to
from ..lab.site import setting
from ..lab.topology import NEAR, Layout, Leg
from ..progress import Progress
from ..recording import MeasuredTarget, TripsRecording, Turn, WritesOfSize
from ..targets.replicated import PROTOCOLS
from .repeat import Asked as AskedRepetition
from .repeat import LinkOffError, Repetition, at_distance, check_stopped

Kind = Literal["nbd", "iscsi"]
FAR = "far"
WARMUPS = 12  # A connection's window begins at 14 KB and doubles at most each round trip: seven make it 1.8 MB.
PROCESSES = 3  # At each size and distance, which take turns.
NBD_PORT = 10809  # Of the IANA registry.
PORTS = {"nbd": NBD_PORT, "iscsi": ISCSI_PORT}
VOLUME, TARGET = 1, "iqn.2026-11.org.farwrite:trips"
VOLUME_BYTES, JOURNAL_BYTES, STAGING_BYTES, EPOCH = 64 << 20, 64 << 20, 8 << 20, 1
BACKLOG = 16
CONGESTION = "net/ipv4/tcp_congestion_control"
OPENS_S = 20.0  # For somebody's target to answer once its port listens.
OPEN_S = 10.0  # For one attempt.
LOOK_S = 0.2
LOGIN_S = 10.0
OUTPUT_BYTES_MAX = 1 << 20
ATTEMPTS = 3  # Of a link that is off.
# qemu-io rounds the time of an operation to 10 ms, and prints its reciprocal with four digits behind the point.
WROTE = re.compile(r"wrote (\d{1,12})/(\d{1,12}) bytes at offset \d{1,15}")
RATE = re.compile(r"[\d.]{1,12} \S{1,6}, 1 ops; [\d.:]{1,16}(?: sec)? \(.{1,40} and (\d{1,9}\.\d{4}) ops/sec\)")


@dataclass(frozen=True)
class Asked:
    """What is to be measured."""

    layout: Layout
    link: str
    route_factor: float
    doors: tuple[Kind, ...]  # ours; none: `uri`
    uri: str  # of somebody else's target, with $FAR in it
    command: str  # that serves it
    sizes: tuple[int, ...]
    writes: int  # of each size at each distance
    fua: bool
    accepts_error: bool

    @property
    def leg(self) -> Leg:
        return self.layout.legs[0]


def measure_trips(asked: Asked, progress: Progress) -> TripsRecording:
    """Everything to its end. StoppedError where a signal asked us to end."""
    initiator = version_of_qemu_io()
    started = datetime.now(UTC)
    if asked.uri:
        check_uri(asked.uri)
    progress.doing("opening the lab")
    opened = open_to(asked.layout, asked.link, as_root=False, accept_error=True, quiet=True)
    with opened as session, contextlib.ExitStack() as own:
        doors = None
        congestion, _ = (site.call(plain_congestion) for site in session.lab.placed)
        if asked.doors:
            doors = own.enter_context(process("doors", session.sites[FAR].namespace))
            doors.start(serve_own_doors, session.sites[FAR].address)
        with session.inhabited(None if asked.doors else port_of(asked.uri)):
            measurement = Measurement(session, asked, progress, doors)
            targets = [measurement.of_target(*one) for one in targets_of(asked)]
        return TripsRecording(
            **at_distance(session, asked.leg, asked.route_factor, started), initiator=initiator, congestion=congestion,
            fua=asked.fua, warmups=WARMUPS, targets=targets,
        )  # fmt: skip


def targets_of(asked: Asked) -> Iterator[tuple[str, Kind, str]]:
    """(name, kind, URI) of each."""
    if asked.uri:
        yield asked.uri, kind_of(asked.uri), asked.uri
    for kind in asked.doors:
        path = "" if kind == "nbd" else f"/{TARGET}/0"
        yield f"our {'NBD' if kind == 'nbd' else 'iSCSI'} door", kind, f"{kind}://$FAR:{PORTS[kind]}{path}"


def shares_of(writes: int) -> list[int]:
    """How many writes each process makes, of those at one distance."""
    processes = min(PROCESSES, writes)
    return [writes // processes + (index < writes % processes) for index in range(processes)]


def plain_congestion() -> str:
    """In a site: TCP that sends what its window allows at once; answers the congestion control in force.

    BBR, which some hosts have as their default, paces what it sends: a write of 256 KiB over 20 ms then took 1.43 trips, not 1.
    """
    for name in ("cubic", "reno"):  # A namespace may not be allowed every one.
        if setting(CONGESTION, name) == name:
            return name
    return setting(CONGESTION, None)


# Somebody's target


def kind_of(uri: str) -> Kind:
    """The protocol of a URI. UsageError for one that no target over TCP has."""
    scheme = uri.partition(":")[0].lower()
    if scheme == "nbd":
        return "nbd"
    if scheme == "iscsi":
        return "iscsi"
    if scheme == "nbd+unix":
        raise UsageError(
            f"--uri {uri}: a unix socket is reached without the link, at any distance alike: have the target listen on TCP at "
            "the far site, and name nbd://$FAR."
        )
    raise UsageError(f"--uri {uri}: name a target as nbd://$FAR:PORT/EXPORT or iscsi://$FAR:PORT/IQN/LUN.")


def check_uri(uri: str) -> None:
    """UsageError for what cannot be a target at the far site."""
    kind = kind_of(uri)
    if re.sub(r"^.*@", "", urlsplit(uri).netloc).partition(":")[0] not in ("$FAR", "${FAR}"):
        raise UsageError(f"--uri {uri}: the target is at the far site, so its host is $FAR: put the URI between single quotes.")
    port_of(uri)
    if kind == "iscsi" and not re.fullmatch(r"/[^/]+/\d+", urlsplit(uri).path):
        raise UsageError(f"--uri {uri}: an iSCSI disk is iscsi://$FAR:PORT/IQN/LUN.")


def port_of(uri: str) -> int:
    """The TCP port of a URI. UsageError where it is none."""
    with contextlib.suppress(ValueError):
        return urlsplit(uri).port or PORTS[kind_of(uri)]
    raise UsageError(f"--uri {uri}: a TCP port is 1 to 65535.")


# The initiator


def version_of_qemu_io() -> str:
    """UnfitError where there is no such program."""
    if shutil.which("qemu-io") is None:
        raise UnfitError(
            "qemu-io is not installed, which makes the writes: install qemu-utils (Debian), and qemu-block-extra for iSCSI."
        )
    done = subprocess.run(["qemu-io", "--version"], capture_output=True, text=True, check=False, timeout=OPEN_S)
    return done.stdout.partition("\n")[0].strip()[:80]


def times_of(text: str, size_bytes: int) -> list[float]:
    """ns of each write, of what qemu-io has printed. UnfitError for a line that is none of a whole write of this size."""
    lines = text.splitlines()
    times_ns = []
    for first, second in zip(lines[::2], lines[1::2], strict=False):
        wrote, rate = WROTE.fullmatch(first), RATE.fullmatch(second)
        if wrote is None or rate is None or {int(wrote[1]), int(wrote[2])} != {size_bytes} or float(rate[1]) <= 0:
            raise UnfitError(f"qemu-io printed {f'{first} / {second}'[:200]!r}, which is not a write of {size_bytes} bytes.")
        times_ns.append(NS_PER_S / float(rate[1]))
    if len(lines) % 2:
        raise UnfitError(f"qemu-io printed {lines[-1][:200]!r}, which is not a write of {size_bytes} bytes.")
    return times_ns


class Measurement:
    """The targets of one lab, measured."""

    def __init__(self, session: Session, asked: Asked, progress: Progress, doors: Process | None) -> None:
        self.session, self.asked, self.progress, self.doors = session, asked, progress, doors
        self.distance = Repetition(
            session, AskedRepetition([], asked.leg, asked.route_factor, asked.writes, 0.0, 1, asked.accepts_error)
        )

    def of_target(self, name: str, kind: Kind, uri: str) -> MeasuredTarget:
        """One target at every size."""
        address = self.session.sites[FAR].address
        there = uri.replace("${FAR}", address).replace("$FAR", address)
        at_0 = self.distance.asked.distances[0]
        self.distance.go_to(at_0)
        self.until_open(there)
        keys, why = self.keys_of(there) if kind == "iscsi" else ({}, "")
        writes = []
        for size in self.asked.sizes:
            turns = [Turn(rtt_ns=[], run_ns=[]) for _ in self.distance.asked.distances]
            for number, count in enumerate(shares_of(self.asked.writes)):
                for place in (0, 1) if number % 2 == 0 else (1, 0):  # What drifts on this machine meets both alike.
                    distance = self.distance.asked.distances[place]
                    self.progress.doing(f"{name}: writes of {size:,} bytes at {distance.text}")
                    turns[place].rtt_ns.extend(self.deliver(distance))
                    turns[place].run_ns.extend(round(ns) for ns in self.write(there, size, count))
            writes.append(WritesOfSize(size, *turns))
        command = "" if self.asked.doors else self.asked.command
        return MeasuredTarget(
            name=name, kind=kind, uri=uri, command=command, keys=keys, keys_unknown=why, writes=writes
        )

    def deliver(self, distance) -> list[float]:
        """Go there; answers the round trips that the link delivers. UnfitError where they are not what was asked."""
        for attempt in range(ATTEMPTS):
            try:
                return self.distance.deliver(distance)
            except LinkOffError as off:
                if attempt + 1 == ATTEMPTS:
                    raise UnfitError(
                        f"{off.reason}. Something else uses the processors: try again when they are free, or take the link as it "
                        "is with --accept-link-error."
                    ) from off
        raise AssertionError("an attempt returns or raises")

    def write(self, uri: str, size: int, writes: int) -> list[float]:
        """ns of each write that counts, one after the other, of one process."""
        count = WARMUPS + writes
        limit_s = OPEN_S + count * (1 + 50 * self.asked.leg.asked.rtt_ns / NS_PER_S)
        code, out, error = self.run(uri, [f"write 0 {size}"] * count, limit_s)
        times_ns = times_of(out, size) if not code else []
        if len(times_ns) != count:
            words = last_line(error) or last_line(out) or f"it made {len(times_ns)} of {count} writes"
            raise UnfitError(f"write {size} bytes to {uri} with qemu-io: {words}")
        return times_ns[WARMUPS:]

    def until_open(self, uri: str) -> None:
        """Return once the target gives its disk; UnfitError with the last answer when it does not."""
        until_s = time.monotonic() + OPENS_S
        while True:
            code, out, error = self.run(uri, ["length"], OPEN_S)
            if not code and out.strip():
                return
            words = last_line(error) or last_line(out) or "it printed nothing"
            if "nknown protocol" in words or "nknown driver" in words:
                raise UnfitError(f"qemu-io knows no {uri.partition(':')[0]}: {words} Install qemu-block-extra (Debian).")
            if self.doors is not None and self.doors.poll(0):
                self.doors.answer()  # Raises what ended it.
            for other in self.session.others:
                if other.process.poll():
                    raise UnfitError(f"The {other.site} command {how_ended(other.process)}; {uri} was never opened: {words}")
            if time.monotonic() > until_s:
                raise UnfitError(f"open {uri} with qemu-io: {words}")
            time.sleep(LOOK_S)

    def run(self, uri: str, commands: Sequence[str], limit_s: float) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of qemu-io at the near site. StoppedError where a signal asked us to end."""
        cache = "writethrough" if self.asked.fua else "writeback"
        words = ["qemu-io", "-f", "raw", "-t", cache, *(word for one in commands for word in ("-c", one)), uri]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
            check_stopped(self.session)
            begun = self.session.start(NEAR, words, stdin=subprocess.DEVNULL, stdout=out, stderr=error)
            until_s = time.monotonic() + limit_s
            is_late = False

            def look() -> None:
                nonlocal is_late
                if not is_late and time.monotonic() > until_s:
                    is_late = True
                    begun.process.kill()

            code = self.session.watch(begun, look)
            check_stopped(self.session)
            if is_late:
                raise UnfitError(f"qemu-io with {uri}: not done after {limit_s:.0f} s: the target is silent or too slow.")
            return code, beginning(out), beginning(error)

    def keys_of(self, uri: str) -> tuple[dict[str, str], str]:
        """What the target agrees to, and why that is unknown where it is."""
        parts = urlsplit(uri)
        name = unquote(parts.path.strip("/").rpartition("/")[0])
        if "@" in parts.netloc:
            return {}, "the target asks for CHAP, and our own login offers none"
        host = parts.hostname or ""
        try:
            return self.session.sites[NEAR].call(negotiated_keys, host, port_of(uri), name), ""
        except FarwriteError as refusal:
            return {}, str(refusal)


def beginning(stream: IO[bytes]) -> str:
    """The first MiB of what was printed."""
    stream.seek(0)
    return stream.read(OUTPUT_BYTES_MAX).decode("utf-8", "replace")


def last_line(text: str) -> str:
    """The last line that was printed, as the end of a sentence."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("qemu-io: ")[:300].rstrip(".") + "." if lines else ""


# In a process at the near site


def negotiated_keys(host: str, port: int, target: str) -> dict[str, str]:
    """Log in as libiscsi does, note what is agreed on, hang up. UnfitError says why nothing was. RFC 7143, section 11.12."""
    where = f"log in to {target} at {host} port {port}"
    isid = b"\x80" + os.urandom(3) + b"\0\0"
    try:
        with socket.create_connection((host, port), LOGIN_S) as connection:
            answered, _ = log_in(connection, f"{TARGET}.initiator", target, isid, OFFERED, time.monotonic() + LOGIN_S)
    except UnfitError as refusal:
        raise UnfitError(f"{where}: {str(refusal).rstrip('.')}.") from refusal
    except (OSError, pdu.ProtocolError, TextError) as failure:
        raise UnfitError(f"{where}: {failure}.") from failure
    return agreed(answered)


# In a process at the far site


def serve_own_doors(address: str, nbd_port: int = NBD_PORT, iscsi_port: int = ISCSI_PORT) -> None:
    """A primary under protocol local, its files in memory, and both doors at this address, until this process is killed."""
    with contextlib.ExitStack() as stack:
        chosen = stack.enter_context(disk(None, JOURNAL_BYTES, VOLUME_BYTES))
        ring = stack.enter_context(reactor.reactor())  # Who makes it is the one who may turn the loop.
        journal = format_journal(chosen, VOLUME, EPOCH, STAGING_BYTES)
        state = primary.primary_state(journal, ring, [], PROTOCOLS["local"], 1, NS_PER_S, volume_bytes=VOLUME_BYTES)
        frontend = Frontend(VOLUME_BYTES)
        stack.callback(frontend.close)
        frontend.begin(state)

        def adopt(connection: socket.socket, chosen: Chosen) -> None:
            flags = sessions.STRUCTURED * chosen.is_structured | sessions.ALLOCATION * chosen.has_allocation
            frontend.adopt(connection, sessions.NBD, flags, chosen.export.size_bytes)

        listening = stack.enter_context(socket.create_server((address, nbd_port), backlog=BACKLOG))
        stack.enter_context(nbd_door(listening, [Export("", VOLUME_BYTES, False, "the volume")], adopt))
        unit = LogicalUnit(EngineVolume(frontend, VOLUME_BYTES), Identification(VOLUME, TARGET))
        stack.enter_context(portal(Target(TARGET, unit), address, iscsi_port, in_lab=True, gates=Gates(frontend)))
        status = 0
        while status == 0:
            status = frontend.turn(state, True)
    raise system_error("go on as the primary behind the doors", status)
