"""A session: a lab laid out as asked, its links proven, and somebody's commands in it to their end.

The near site's command has our terminal and our streams, untouched; what the others print goes to standard error, with their
names.
Signals are waited for, not handled: who sent one decides whether it is passed on.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..base.errors import UnfitError
from ..base.physics import miles_of
from ..base.units import NS_PER_S, format_time
from ..workload.link_spec import STREAM_LEVEL_LINKS, tolerance_ns
from .foreign_processes import allow_ping, ask_to_end, entering, inhabitants, kill_all, listening_ports, reaper
from .lab import Lab, LabSpec, open_lab
from .namespace import Loopback, Place
from .site import Site
from .span import Span
from .survey import off_ns
from .topology import NEAR, Layout, Leg

FILE_BYTES = 4096  # A lab has a disk at each site; here nobody uses it.
PROBES = 60  # Stamped, of the proof of a link.
ECHOES_MIN, ECHOES_S = 12, 0.5  # Echoes follow each other: no more than last so long.
PORT_PATIENCE_S = 60.0
FAREWELL_S = 3.0  # Between the word to end and the end.
LOOK_S = 0.02
LOOK_EVERY_S = 0.1  # While a command runs, where somebody has something to look after.
READ_BYTES = 1 << 16
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # As shells answer.
SIGNALS = {signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@dataclass
class Started:
    """A command that runs at a site."""

    site: str
    process: subprocess.Popen
    is_reported: bool = False  # whether its end was reported


class Session:
    """Commands at the sites of an open lab."""

    def __init__(self, lab: Lab, layout: Layout, as_root: bool) -> None:
        self.lab = lab
        self.sites: dict[str, Site] = {site.name: site for site in lab.placed}
        self.layout = layout
        self.as_root = as_root
        self.places: list[Place] = [site.namespace for site in self.sites.values()]
        self.others: list[Started] = []
        self.voices: list[threading.Thread] = []
        self.signals: set[int] = set()  # that commands find blocked, as we did
        self.environment: dict[str, str] = {}  # of the commands, besides ours and the sites' addresses
        self.residents: set[int] = set()  # the lab's own processes at the sites, which are not ended with the commands
        self.reaper_pid = 0
        self.stopped_by: int | None = None  # the last signal that asked us, and with us the near command, to end

    def run(self, command: list[str], wait_port: int | None, look: Callable[[], None] | None = None) -> int:
        """Everything to its end; answers the exit code of the near site's command. `look` is called now and then meanwhile."""
        with self.inhabited(wait_port):
            return self.watch(self.start(NEAR, command), look)

    @contextlib.contextmanager
    def inhabited(self, wait_port: int | None) -> Iterator[None]:
        """The other sites' commands run exactly as long as this block, and so does everything that was started in it."""
        if any(isinstance(place, Loopback) for place in self.places):
            with terminal_kept(), awaited() as self.signals:
                yield  # Their network is the whole machine's: what a command leaves behind is not told from others'.
            return
        self.residents |= set(inhabitants(*self.places))
        with terminal_kept(), reaper(self.places) as self.reaper_pid, awaited() as self.signals:
            try:
                for name, words in self.layout.commands.items():
                    if name != NEAR:
                        self.start_other(name, words)
                if wait_port is not None:
                    self.wait_for(wait_port)
                yield
            finally:
                ask_to_end(self.places, self.residents, FAREWELL_S)
                kill_all(self.places, self.residents)
                for voice in self.voices:
                    voice.join(1.0)

    def start(self, name: str, command: list[str], last: Callable[[], None] | None = None, **options) -> Started:
        """Begin a command at a site; `last` is done in its process just before it. UnfitError when it cannot be."""
        site = self.sites[name]
        environment = os.environ | {"FARWRITE_SITE": name}
        environment |= {word_of(other): place.address for other, place in self.sites.items()} | self.environment
        enter = entering(site.namespace, self.as_root, self.signals)

        def become() -> None:
            enter()
            if last is not None:
                last()

        try:
            process = subprocess.Popen(command, env=environment, preexec_fn=become, **options)
        except OSError as refusal:
            say(f"start {command[0]} at the {name} site: {refusal.strerror}.")
            raise SystemExit(NOT_FOUND if isinstance(refusal, FileNotFoundError) else NOT_EXECUTABLE) from refusal
        except subprocess.SubprocessError as refusal:
            raise UnfitError(f"start {command[0]} at the {name} site: entering its namespace was refused.") from refusal
        return Started(name, process)

    def start_other(self, name: str, command: list[str]) -> None:
        """Begin a command that has no terminal; Ctrl-C does not reach it."""
        made = self.start(
            name, command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )  # fmt: skip
        self.others.append(made)
        voice = threading.Thread(target=repeat, args=(name, made.process.stdout), daemon=True)
        voice.start()
        self.voices.append(voice)

    def wait_for(self, port: int) -> None:
        """Return once somebody listens on this port at every site that has a command; UnfitError when that never comes."""
        until_s = time.monotonic() + PORT_PATIENCE_S
        waiting = [made.site for made in self.others] or [name for name in self.sites if name != NEAR]
        while waiting:
            pids = {name: self.sites[name].process for name in waiting}
            waiting = [name for name, process in pids.items() if process and port not in listening_ports(process.pid)]
            for made in self.others:
                if made.site in waiting and made.process.poll() is not None:
                    raise UnfitError(f"The {made.site} command {how_ended(made.process)} before it listened on port {port}.")
            if waiting and time.monotonic() > until_s:
                raise UnfitError(f"Nothing listens on port {port} of the {waiting[0]} site after {PORT_PATIENCE_S:g} s.")
            number = signal.sigtimedwait(SIGNALS, LOOK_S)
            if number is not None and number.si_signo != signal.SIGCHLD:
                raise SystemExit(128 + number.si_signo)

    def watch(self, near: Started, look: Callable[[], None] | None = None) -> int:
        """Wait for the near command, passing on what is meant for it; answers its exit code as a shell gives it."""
        while near.process.poll() is None:
            self.note_ends(near)
            if look is not None:
                look()
            came = signal.sigtimedwait(SIGNALS, LOOK_EVERY_S) if look is not None else signal.sigwaitinfo(SIGNALS)
            if came is None:
                continue
            if came.si_signo != signal.SIGCHLD:
                self.stopped_by = came.si_signo
            if came.si_signo == signal.SIGCHLD:
                if self.reaper_pid and ended(self.reaper_pid):
                    near.process.kill()
                    raise UnfitError("The lab's warden was killed, and nobody else would end what is left behind: it ends now.")
            elif came.si_signo != signal.SIGINT or came.si_pid:  # Ctrl-C has reached the command as it has reached us.
                near.process.send_signal(came.si_signo)
        self.note_ends(near)
        code = near.process.returncode
        return 128 - code if code < 0 else code

    def note_ends(self, near: Started) -> None:
        """Say which of the other commands have ended; one that failed ends the near one as well."""
        for made in self.others:
            if made.is_reported or made.process.poll() is None:
                continue
            made.is_reported = True
            failed = made.process.returncode != 0 and near.process.poll() is None
            say(f"the {made.site} command {how_ended(made.process)}{'; the near one is sent SIGTERM' if failed else ''}.")
            if failed:
                near.process.terminate()


def open_session(
    layout: Layout, link: str, command: list[str], wait_port: int | None, as_root: bool, accept_error: bool = False,
    quiet: bool = False,
) -> int:  # fmt: skip
    """Open the lab, say what its links deliver, run the commands; answers the exit code."""
    with open_to(layout, link, as_root, accept_error, quiet) as session:
        return session.run(command, wait_port)


@contextlib.contextmanager
def open_to(
    layout: Layout, link: str, as_root: bool, accept_error: bool = False, quiet: bool = False
) -> Iterator[Session]:
    """The lab, open exactly as long as this block. What its links deliver is said first, unless `quiet`."""
    spec = LabSpec(
        link=link, near=None, far=None, journal_bytes=FILE_BYTES, volume_bytes=FILE_BYTES, congestion="cubic",
        others=len(layout.names) - 2, polls=False, mesh=True, names=layout.names, link_spec=layout.legs[0].spec,
        link_specs=tuple((layout.index(leg.near), layout.index(leg.far), leg.spec) for leg in layout.legs),
    )  # fmt: skip
    with open_lab(spec) as lab:
        if lab.choice.kind == "relay":  # Programs would find each other beside it, without any distance.
            raise UnfitError(
                f"farwrite lab needs sites with a network of their own, and there are none here ({lab.choice.reason}). "
                "Run as root, or where user namespaces are allowed."
            )
        for span, leg in zip([*lab.spans, *lab.between], layout.legs, strict=True):
            sentence = proof(span, leg, accept_error)
            if not quiet:
                say(sentence)
        for site in lab.placed:
            site.call(allow_ping)
        yield Session(lab, layout, as_root)


def proof(span: Span, leg: Leg, accept_error: bool = False) -> str:
    """Set a link to its distance; answers what it delivers, in a sentence. UnfitError when that is not what was asked."""
    asked, asked_ns = leg.asked, leg.asked.rtt_ns
    span.set_distance(asked)
    affordable = max(ECHOES_MIN, int(ECHOES_S * NS_PER_S / max(asked_ns, 1)))
    made = span.prove(asked, min(affordable, PROBES) if asked.is_ping else PROBES)
    missed_ns = off_ns(made.rtt_ns_p50, asked_ns)
    how = "from kernel to kernel and back a packet takes"
    if asked.is_ping:
        how = "a bare echo takes"
    elif span.link.kind in STREAM_LEVEL_LINKS:
        how = "by the relay's own account a segment and its answer take"
    sentence = (
        f"{leg.near} {span.near.address} to {leg.far} {span.far.address}: {leg.text} by {span.link.kind}; "
        + (f"{format_time(asked_ns)} asked, " if asked_ns else "")
        + f"{how} {format_time(made.rtt_ns_p50)} (median of {made.rtt_ns.size})."
    )
    if not asked_ns or abs(missed_ns) <= tolerance_ns(asked_ns):
        return sentence
    own_ns = span.base.rtt_ns_min if asked.is_ping else sum(span.passage_ns)
    advice = (
        f"This lab takes {format_time(own_ns)} itself: ask for {math.ceil(miles_of(own_ns))} miles or more"
        if asked_ns < own_ns
        else "Something else uses the processors: try again when they are free"
    )
    sentence += f" That is {missed_ns / 1000:+.0f} us off, and {tolerance_ns(asked_ns) / 1000:.0f} us are allowed. {advice}"
    if not accept_error:
        raise UnfitError(f"{sentence}, or take it as it is with --accept-link-error.")
    return f"⚠ {sentence}."


@contextlib.contextmanager
def awaited() -> Iterator[set[int]]:
    """Our signals wait to be asked for; gives the mask that commands are to have."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield {int(number) for number in before}
    finally:
        while signal.sigtimedwait(SIGNALS, 0) is not None:  # What came while we were ending has been obeyed.
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def terminal_kept() -> Iterator[None]:
    """Whoever had the terminal's foreground has it again, even if a shell with jobs was killed in between."""
    try:
        foreground = os.tcgetpgrp(0)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        with contextlib.suppress(OSError):
            os.tcsetpgrp(0, foreground)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def repeat(name: str, pipe) -> None:
    """In a thread: what a site's command prints, line by line, with the site's name before it."""
    with pipe:
        for line in iter(lambda: pipe.readline(READ_BYTES), b""):
            with contextlib.suppress(OSError):
                os.write(2, f"{name} | ".encode() + line + (b"" if line.endswith(b"\n") else b"\n"))


def ended(pid: int) -> bool:
    """Whether a child has ended; it stays to be waited for."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def how_ended(process: subprocess.Popen) -> str:
    """The end of a command in words."""
    code = process.returncode
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def word_of(name: str) -> str:
    """The variable that holds a site's address: FAR."""
    return re.sub(r"\W", "_", name).upper()


def say(sentence: str) -> None:
    """A line of our own, apart from the command's."""
    print(f"farwrite lab: {sentence}", file=sys.stderr, flush=True)
