"""A command of somebody's, repeated at 0 miles and at a distance, taking turns, as `farwrite lab --measure` does.

A round has as many runs at the one as at the other, and which comes first alternates, so that whatever drifts on this machine
meets both alike. Nothing is judged here. A run that fails ends it all: its time is not the command's.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import signal
import struct
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import IO, Any

from .. import __version__
from ..base.errors import UnfitError
from ..base.physics import Distance
from ..base.reasons import Reason, link_missed
from ..base.units import NS_PER_S, format_time
from ..lab.session import SIGNALS, Session
from ..lab.survey import off_ns
from ..lab.topology import NEAR, Leg
from ..progress import Progress, Silence
from ..recording import Pair, Repeated, Turn
from ..workload.link_spec import describe, tolerance_ns

RUNS_MIN, RUNS_MAX = 10, 1000  # At each distance, where the time decides: ten support a median, a thousand a p99.
ROUNDS_MAX = 20  # More runs than that are several a round: rounds are the unit that intervals rest on.
RETRIES = 2  # Of a round whose link was off.
PROBES, ECHOES = 20, 6  # Round trips surveyed before each turn: stamped ones follow closely, echoes wait for each other.
COPY_BYTES = 1 << 16
BEGUN = struct.Struct("q")


@dataclass(frozen=True)
class Asked:
    """What is to be repeated, and how often."""

    command: list[str]
    leg: Leg
    route_factor: float
    runs: int | None  # at each distance; None: as many as fit into the time
    time_s: float
    warmups: int  # at each distance, at least 1: it tells how long a run takes
    accept_error: bool  # go on over a link that is off

    @property
    def distances(self) -> tuple[Distance, Distance]:
        """0 miles, and what was asked."""
        return Distance(0.0, 0, self.leg.asked.is_ping), self.leg.asked


class CommandFailedError(Exception):
    """A run ended with another exit code than 0; `code` as a shell gives it, `what` says which run."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(what)
        self.code, self.what = code, what


class StoppedError(Exception):
    """A signal asked us to end; its argument is our exit code then."""


def check_stopped(session: Session) -> None:
    """StoppedError once a signal has asked us to end."""
    came = signal.sigtimedwait(SIGNALS - {signal.SIGCHLD}, 0)
    if came is not None:
        session.stopped_by = came.si_signo
    if session.stopped_by is not None:
        raise StoppedError(128 + session.stopped_by)


class Runner:
    """Runs the command once and again, its output into files that the next run overwrites."""

    def __init__(self, session: Session, command: list[str], out: IO[bytes], error: IO[bytes], begun: mmap.mmap) -> None:
        self.session, self.command, self.out, self.error, self.begun = session, command, out, error, begun

    def run_ns(self, what: str) -> int:
        """How long one run takes: from just before the program's first instruction, so that our fork is not in it, until its end
        is seen."""
        for stream in (self.out, self.error):
            stream.seek(0)
            stream.truncate()
        check_stopped(self.session)
        near = self.session.start(
            NEAR, self.command, self.stamp, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.error
        )
        code = self.session.watch(near)
        end_ns = time.monotonic_ns()
        check_stopped(self.session)
        if code:
            raise CommandFailedError(code, what)
        return end_ns - BEGUN.unpack_from(self.begun)[0]

    def stamp(self) -> None:
        """In the command's process, last of all: note when it begins."""
        BEGUN.pack_into(self.begun, 0, time.monotonic_ns())

    def repeat_output(self) -> None:
        """What the last run printed goes where ours goes, as if it had been run by itself."""
        for stream, descriptor in ((self.out, 1), (self.error, 2)):
            stream.seek(0)
            while part := stream.read(COPY_BYTES):
                while part:
                    part = part[os.write(descriptor, part) :]


@contextlib.contextmanager
def runner(session: Session, command: list[str]) -> Iterator[Runner]:
    """A runner with its files."""
    with (
        tempfile.TemporaryFile(buffering=0) as out, tempfile.TemporaryFile(buffering=0) as error,
        mmap.mmap(-1, BEGUN.size) as begun,
    ):  # fmt: skip
        yield Runner(session, command, out, error, begun)


class Repetition:
    """One measurement: its rounds so far, and what is left."""

    def __init__(self, session: Session, asked: Asked) -> None:
        self.span, self.asked = session.lab, asked
        self.progress: Progress = Silence()
        self.rounds: list[Pair] = []
        self.void: list[Reason] = []
        self.runs = 0

    def measure(self, run: Runner, progress: Progress) -> None:
        """Warm-up, then all rounds. CommandFailedError, StoppedError; UnfitError without one good round."""
        self.progress = progress
        costs_s = self.warm_up(run)
        self.runs = self.asked.runs or planned(self.asked.time_s, sum(costs_s))
        self.progress.expect(self.runs * sum(costs_s))
        left = deque((index, size, 0) for index, size in enumerate(sizes_of(self.runs)))
        while left:
            index, size, attempt = left.popleft()
            try:
                self.rounds.append(self.round(run, index, size, costs_s))
            except LinkOffError as off:
                self.void.append(off.reason)
                self.progress.voided(f"round {index + 1}", "void", [off.reason])
                if attempt < RETRIES:
                    left.append((index, size, attempt + 1))
        if not self.rounds:
            raise UnfitError(
                f"Not one good round: {self.void[0]}. Something else uses the processors: try again when they are free, or take "
                "the link as it is with --accept-link-error."
            )

    def warm_up(self, run: Runner) -> list[float]:
        """Runs that are not counted; answers how many seconds the last at each distance took."""
        costs_s = [0.0, 0.0]
        for number in range(1, self.asked.warmups + 1):
            for place, distance in enumerate(self.asked.distances):
                self.progress.doing(f"warm-up run {number} of {self.asked.warmups} at {distance.text}")
                self.go_to(distance)
                costs_s[place] = run.run_ns(f"warm-up run {number} at {distance.text}") / NS_PER_S
        return costs_s

    def round(self, run: Runner, index: int, size: int, costs_s: Sequence[float]) -> Pair:
        """One round; LinkOffError when its distance was not what was asked."""
        near_first = index % 2 == 0
        turns: dict[int, Turn] = {}
        for place in (0, 1) if near_first else (1, 0):
            distance = self.asked.distances[place]
            rtt_ns = self.deliver(distance)
            run_ns = []
            for number in range(1, size + 1):
                self.progress.doing(f"round {index + 1}, {distance.text}: {self.so_far()}")
                run_ns.append(run.run_ns(f"run {number} of round {index + 1} at {distance.text}"))
                self.progress.did(costs_s[place])
            turns[place] = Turn(rtt_ns=rtt_ns, run_ns=run_ns)
        return Pair(near_first=near_first, at_0=turns[0], far=turns[1])

    def so_far(self) -> str:
        """The medians of what has been measured."""
        if not self.rounds:
            return f"{self.runs} runs at each distance"
        at_0 = median(run_ns for pair in self.rounds for run_ns in pair.at_0.run_ns)
        far = median(run_ns for pair in self.rounds for run_ns in pair.far.run_ns)
        return f"so far {format_time(at_0)} and {format_time(far)} at the median"

    def go_to(self, distance: Distance) -> None:
        """Set the distance, and let what is under way arrive."""
        if distance.rtt_ns:
            self.span.set_distance(distance)
        else:
            self.span.set_rtt(0)
        time.sleep(self.asked.leg.asked.rtt_ns / NS_PER_S)

    def deliver(self, distance: Distance) -> list[float]:
        """Set the distance; answers the round trips that it delivers. LinkOffError when they are not what was asked."""
        self.go_to(distance)
        count = ECHOES if distance.is_ping else PROBES
        if not distance.rtt_ns:
            made = self.span.echo(count) if distance.is_ping else self.span.survey(count)
        else:
            made = self.span.prove(distance, count)
            missed_ns = off_ns(made.rtt_ns_p50, distance.rtt_ns)
            if abs(missed_ns) > tolerance_ns(distance.rtt_ns) and not self.asked.accept_error:
                raise LinkOffError(link_missed("before", "", missed_ns))
        return [float(rtt_ns) for rtt_ns in made.rtt_ns]


class LinkOffError(Exception):
    """A turn could not begin: the link did not deliver what was asked."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


def planned(time_s: float, pair_s: float) -> int:
    """How many runs at each distance fit into the time, where one at each takes so long."""
    return min(max(math.floor(time_s / max(pair_s, 1e-6)), RUNS_MIN), RUNS_MAX)


def sizes_of(runs: int) -> list[int]:
    """How many runs at each distance every round has: as even as can be, the larger ones first."""
    rounds = min(runs, ROUNDS_MAX)
    return [runs // rounds + (index < runs % rounds) for index in range(rounds)]


def repeat(
    session: Session, asked: Asked, wait_port: int | None, shown: Callable[[], AbstractContextManager[Progress]]
) -> Repeated:
    """Measure. CommandFailedError once what the run that failed had printed was repeated; StoppedError where a signal came
    before the first round was done."""
    started = datetime.now(UTC)
    made = Repetition(session, asked)
    interrupted = False
    with session.inhabited(wait_port), runner(session, asked.command) as run:
        try:
            with shown() as progress:
                made.measure(run, progress)
        except CommandFailedError:
            run.repeat_output()
            raise
        except StoppedError:
            if not made.rounds:
                raise
            interrupted = True
    awake = session.lab.awake
    return Repeated(
        **at_distance(session, asked.leg, asked.route_factor, started), command=asked.command, keep_awake=awake.chosen,
        keep_awake_reason=awake.reason, warmups=asked.warmups, planned_runs=made.runs, rounds=made.rounds, void=made.void,
        interrupted=interrupted,
    )  # fmt: skip


def at_distance(session: Session, leg: Leg, route_factor: float, started: datetime) -> dict[str, Any]:
    """The fields that every recording at one distance begins with."""
    there, choice = leg.asked, session.lab.choice
    return {
        "farwrite": __version__, "started_utc": started.isoformat(timespec="seconds"), "miles": there.miles,
        "asked_rtt_ns": there.rtt_ns, "is_ping": there.is_ping, "route_factor": route_factor,
        "asked_besides": describe(leg.spec), "link": choice.kind, "link_reason": choice.reason,
    }  # fmt: skip
