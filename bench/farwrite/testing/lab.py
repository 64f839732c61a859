"""Two sites for somebody's own tests: commands and functions run in them, at a distance that can be changed.

`Keeper` keeps one lab open and lends it out, test after test. What a test starts in a site ends with the test: everything
that lives in the site's network namespace and is not the lab's own is killed, even what detached itself. Knows no pytest.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import pickle
import signal
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..base.errors import UnfitError, UsageError
from ..base.physics import Distance, distance, miles_of
from ..base.units import NS_PER_S, format_time
from ..lab.foreign_processes import be_oneself, entering, inhabitants, kill_all, listening_ports

if TYPE_CHECKING:
    import numpy as np

    from ..analysis.result import Estimate
    from ..lab.lab import Lab as OpenedLab
    from ..lab.namespace import Place
    from ..lab.process import Process
    from ..lab.site import Site as OpenedSite
    from ..lab.survey import Survey

FILE_BYTES = 4096  # A lab has a disk at each site; here nobody uses it.
ECHOES_MIN, ECHOES_MAX = 12, 60  # Of a survey before and after each test,
SURVEY_S = 0.25  # which should not take much longer than this.
NETEM_TICK_NS = 64  # netem counts in ticks of the packet scheduler, rounded down; one per direction.


# A site.


class Site:
    """A place with a network of its own. Only the network is apart: files, users and processors are this machine's."""

    def __init__(self, opened: OpenedSite) -> None:
        self.opened = opened
        self.name = opened.name
        self.address = opened.address  # what the other site reaches it by
        self.stack = contextlib.ExitStack()
        self.residents = set(inhabitants(opened.namespace))

    def run(
        self, command: Sequence[str] | str, *, timeout_s: float = 60.0, check: bool = False,
        input: str | bytes | None = None, **options: Any,
    ) -> subprocess.CompletedProcess:  # fmt: skip
        """Run a command here to its end, as subprocess.run does it, with its output captured as text.

        After `timeout_s` it is killed with its whole process group and subprocess.TimeoutExpired is raised.
        """
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        if input is not None:
            options["stdin"] = subprocess.PIPE
        started = self.start(command, **options)
        try:
            out, err = started.communicate(input, timeout_s)
        except BaseException:
            end(started)
            raise
        ended = subprocess.CompletedProcess(command, started.returncode, out, err)
        if check:
            ended.check_returncode()
        return ended

    def start(self, command: Sequence[str] | str, **options: Any) -> subprocess.Popen:
        """Start a command here; `options` are subprocess.Popen's, and its pipes carry text. It ends with the test.

        It is also killed when the thread that started it ends (PR_SET_PDEATHSIG), so start what must last in the main one.
        """
        options = {"stdin": subprocess.DEVNULL, "text": True} | options
        with quiet_fork():
            started = subprocess.Popen(
                command, preexec_fn=entering(self.opened.namespace), start_new_session=True, **options
            )
        self.stack.callback(end, started)
        return started

    def call(self, function: Callable, *arguments: Any, timeout_s: float = 60.0) -> Any:
        """function(*arguments) in a process here: a fork of this one, so it may be any function. Its result must pickle."""
        return self.begin(function, *arguments).result(timeout_s)

    def begin(self, function: Callable, *arguments: Any) -> Call:
        """Begin function(*arguments) in a process here; `result` waits for it. It ends with the test."""
        from ..lab.process import process

        key = next(KEYS)
        WORK[key] = (function, arguments)
        try:
            with quiet_fork():
                made = self.stack.enter_context(process(f"{self.name} call", self.opened.namespace))
        finally:
            del WORK[key]
        self.stack.callback(kill_group, made)
        made.start(perform, key, self.opened.namespace, os.getuid(), os.getgid())
        return Call(made, f"{getattr(function, '__name__', 'a function')} in the {self.name} site")

    def wait_for_port(self, port: int, timeout_s: float = 20.0) -> None:
        """Return once a TCP socket listens on this port here, without connecting to it. TimeoutError otherwise."""
        until_s = time.monotonic() + timeout_s
        while port not in self.listening_ports():
            if time.monotonic() > until_s:
                raise TimeoutError(
                    f"Nothing listens on port {port} of the {self.name} site after {timeout_s:g} s. "
                    f"Has the server started, and does it listen on {self.address} or on 0.0.0.0?"
                )
            time.sleep(0.005)

    def listening_ports(self) -> set[int]:
        """TCP ports on which somebody listens here."""
        assert self.opened.process is not None
        return listening_ports(self.opened.process.pid)

    def clear(self) -> None:
        """End everything that was started here."""
        self.stack.close()
        kill_all([self.opened.namespace], self.residents)


def end(started: subprocess.Popen) -> None:
    """Kill a command with its process group unless it has ended, and let go of its pipes."""
    if started.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    for pipe in (started.stdin, started.stdout, started.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


@contextlib.contextmanager
def quiet_fork() -> Iterator[None]:
    """Python 3.12 warns of a fork beside other threads, which a test runner may turn into an error. What is forked here
    touches no lock of theirs before it becomes a command or a function's process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multi-threaded", category=DeprecationWarning)
        yield


# A function in a site.

WORK: dict[int, tuple[Callable, tuple]] = {}  # What a process that is just being forked will be asked to do, by key.
KEYS = itertools.count()


class FarTracebackError(Exception):
    """Not raised: the traceback of the process in the site, as the cause of what is raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(f"\n{text}")


@dataclass
class Call:
    """A function that runs in a site."""

    process: Process
    what: str
    outcome: tuple[bool, Any, str] | None = None

    def result(self, timeout_s: float = 60.0) -> Any:
        """What it returned; what it raised is raised here. After `timeout_s` it is killed, and TimeoutError raised."""
        if self.outcome is None:
            self.outcome = self.wait(timeout_s)
        worked, value, text = self.outcome
        if worked:
            return value
        if text:
            raise value from FarTracebackError(text)
        raise value

    def wait(self, timeout_s: float) -> tuple[bool, Any, str]:
        """What perform answers, or that it was too late."""
        if self.process.poll(timeout_s):
            return self.process.answer()
        kill_group(self.process)
        self.process.kill()
        return False, TimeoutError(f"{self.what} has not ended after {timeout_s:g} s; it was killed."), ""


def perform(key: int, namespace: Place, user: int, group: int) -> tuple[bool, Any, str]:
    """In the forked process: do what was left in WORK; (True, result, "") or (False, exception, its traceback)."""
    be_oneself(namespace, user, group)
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # So that what the function starts can be ended with it.
    function, arguments = WORK[key]
    try:
        value = function(*arguments)
    except BaseException as failure:  # A skip or an exit, too, is for the test to see.
        return False, portable(failure), traceback.format_exc()
    try:
        pickle.dumps(value)
    except Exception as refusal:
        return (
            False,
            TypeError(f"the result of a call in a site must pickle, and {type(value).__name__} does not"),
            repr(refusal),
        )
    return True, value, ""


def portable(failure: BaseException) -> BaseException:
    """The exception itself if it survives the way through a pipe, otherwise its words."""
    try:
        if type(pickle.loads(pickle.dumps(failure))) is type(failure):
            return failure
    except Exception:
        pass
    return RuntimeError(f"{type(failure).__name__}: {failure}")


def kill_group(process: Process) -> None:
    """Kill what a function's process started, and the process itself, unless it is gone already."""
    if not process.ended:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


# The lab.


@dataclass(frozen=True)
class RoundTrips:
    """What a survey saw: round trips of a bare echo in the order they were made, in ns."""

    rtt_ns: np.ndarray

    @property
    def p50(self) -> Estimate:
        """The median, with its interval."""
        return self.quantile(0.5)

    @property
    def p99(self) -> Estimate:
        """The 99th percentile; without a value below 368 echoes."""
        return self.quantile(0.99)

    def quantile(self, q: float) -> Estimate:
        """A quantile with its exact interval."""
        from .budget import quantile_of

        return quantile_of(self.rtt_ns.tolist(), q)


class Lab:
    """Two sites, `near` and `far`, and the distance between them."""

    def __init__(self, opened: OpenedLab) -> None:
        self.opened = opened
        self.near, self.far = (Site(site) for site in opened.placed[:2])
        self.asked = Distance(0.0, 0)
        self.rtt_ns = opened.base.rtt_ns_p50  # delivered: the median echo when the distance was set
        self.is_cut = False
        self.misses: list[str] = []  # sentences: where the link was not what it claimed

    @property
    def miles(self) -> float:
        """The distance asked."""
        return self.asked.miles

    @property
    def link_kind(self) -> str:
        """What carries the link: "netem" or "ferry"."""
        return self.opened.link.kind

    @property
    def delay_ns(self) -> int:
        """How long the link itself holds packets, both directions together: no round trip takes less."""
        held_ns = self.opened.delay_ns[self.asked.rtt_ns]
        return max(held_ns - 2 * NETEM_TICK_NS, 0) if self.link_kind == "netem" else held_ns

    @property
    def text(self) -> str:
        """The proof in a sentence."""
        asked = f"{format_time(self.asked.rtt_ns)} asked, " if self.asked.rtt_ns else ""
        return f"{self.asked.text} by {self.link_kind}: {asked}a bare echo takes {format_time(self.rtt_ns)} (median)"

    def set_miles(self, miles: float, route_factor: float = 1.0) -> None:
        """Move the sites this far apart, as light has it, and prove it."""
        self.set_distance(distance(miles, route_factor=route_factor))

    def set_rtt(self, rtt: str) -> None:
        """Move them so far apart that a ping takes this long, such as "2 ms"."""
        self.set_distance(distance(rtt=rtt))

    def set_distance(self, asked: Distance) -> None:
        """The same for a distance."""
        self.refuse_if_cut("another distance")
        self.check_link()
        with quiet_fork():
            self.opened.set_distance(asked)
        self.asked = asked
        self.claim(self.opened.prove(asked, self.echoes), "before")
        self.rtt_ns = self.opened.echo(self.echoes).rtt_ns_p50

    def survey(self, count: int = 400) -> RoundTrips:
        """Measure so many round trips of a bare echo. 400 are enough for an interval of p99."""
        self.refuse_if_cut("a survey")
        return RoundTrips(self.opened.echo(count).rtt_ns)

    def cut(self) -> None:
        """Lose every packet in both directions until heal()."""
        self.opened.link.cut()
        self.is_cut = True

    def heal(self) -> None:
        """Carry packets again."""
        self.opened.link.heal()
        self.is_cut = False

    def refuse_if_cut(self, what: str) -> None:
        """UsageError for what needs a link that carries packets."""
        if self.is_cut:
            raise UsageError(f"The link is cut, and {what} needs it: call heal() first.")

    # The proof. A lab without distance claims nothing.

    @property
    def echoes(self) -> int:
        """How many round trips a survey of the link makes at this distance."""
        affordable = int(SURVEY_S * NS_PER_S / max(self.asked.rtt_ns, 1))
        return min(max(affordable, ECHOES_MIN), ECHOES_MAX)

    def check_link(self) -> None:
        """Survey the link once more; what it misses is kept as a sentence."""
        if self.asked.rtt_ns:
            self.claim(self.opened.prove(self.asked, self.echoes), "after")

    def claim(self, made: Survey, when: str) -> None:
        """Keep a sentence if a median is not what was asked."""
        from ..lab.survey import off_ns
        from ..workload.link_spec import tolerance_ns

        asked_ns, rtt_ns_p50 = self.asked.rtt_ns, made.rtt_ns_p50
        own_ns = self.opened.base.rtt_ns_min if self.asked.is_ping else sum(self.opened.passage_ns)
        if not asked_ns or abs(off_ns(rtt_ns_p50, asked_ns)) <= tolerance_ns(asked_ns):
            return
        advice = (
            f"This lab's own round trip is {format_time(own_ns)}, so ask for {math.ceil(miles_of(own_ns))} miles or more."
            if asked_ns < own_ns
            else "Something else uses the processors: run fewer tests at once."
        )
        self.misses.append(
            f"The link was not what it claimed: {when} the test a round trip took {format_time(rtt_ns_p50)}, "
            f"{format_time(asked_ns)} ({self.asked.text}) was asked, and {format_time(tolerance_ns(asked_ns))} off is allowed. "
            f"{advice}"
        )

    def clear(self) -> None:
        """End everything that was started in both sites, and heal the link."""
        self.near.clear()
        self.far.clear()
        self.heal()


class Keeper:
    """One lab, opened when it is first lent and again when a test has broken it."""

    def __init__(self, link: str) -> None:
        self.link = link
        self.opening = contextlib.ExitStack()
        self.lab: Lab | None = None

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *failure: Any) -> None:
        self.close()

    def lend(self, asked: Distance) -> Lab:
        """The lab, whole and at this distance. UnfitError where there can be none."""
        fresh = self.lab is None
        lab = self.lab or self.open()
        try:
            lab.set_distance(asked)
        except UnfitError:
            self.close()
            if fresh:
                raise
            return self.lend(asked)
        return lab

    def take_back(self, lab: Lab) -> list[str]:
        """End what the test started, and survey the link once more; answers where it was not what it claimed."""
        try:
            lab.clear()
            lab.check_link()
            lab.opened.echo(1)  # Stamped probes do not notice a site whose process has died.
        except UnfitError as refusal:
            lab.misses.append(f"The link was not what it claimed: after the test it no longer answered. {refusal}")
            self.close()
        misses, lab.misses, lab.asked = lab.misses, [], Distance(0.0, 0)
        return misses

    def open(self) -> Lab:
        """A new lab."""
        from ..lab.lab import LabSpec, open_lab
        from ..lab.precompile import rehearse_link

        rehearse_link()  # Compiled before the fork, and not within the time limit of a site's first call.
        spec = LabSpec(
            link=self.link, near=None, far=None, journal_bytes=FILE_BYTES, volume_bytes=FILE_BYTES, congestion="cubic",
            polls=False,
        )
        with quiet_fork():
            opened = self.opening.enter_context(open_lab(spec))
        if opened.choice.kind == "relay":
            # Programs find each other by address, and would do so without any distance: the relay only carries what asks it to.
            self.opening.close()
            raise UnfitError(
                f"farwrite_lab needs sites with a network of their own, and there are none here ({opened.choice.reason}). "
                "Run as root, or where user namespaces are allowed."
            )
        self.lab = Lab(opened)
        return self.lab

    def close(self) -> None:
        """Take the lab down, and what is left in it."""
        if self.lab is not None:
            with contextlib.suppress(UnfitError):
                self.lab.clear()
        self.lab = None
        self.opening.close()
