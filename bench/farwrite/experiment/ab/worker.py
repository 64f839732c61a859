"""The worker of an arm: a process that runs the arm's own farwrite and joins our lab; this is our end of it.

It is started with the places of the lab as descriptors, dies with us, and is ended by SIGKILL: its files have no names and
its processes die with it, so there is nothing it must put down. What it prints besides its answers is kept for the sentence
that tells how it failed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from ...base.errors import FarwriteError, UnfitError, UsageError, error_of
from ...base.framing import TooLongError
from ...base.host.parent_death import die_with
from ...base.interruption import SIGNALS
from ...lab.namespace import uninterrupted
from ...recording import NOT_OURS, FlushFloors, Round, upgraded
from .arm import REVISION, Arm, Launch
from .message import VERSION, Answer, Joined, Measure, Request, Task, lines_of, misread, say, without_ours

JOIN_TIMEOUT_S = 600.0  # A revision's kernels are compiled meanwhile.
ENDING_TIMEOUT_S = 2.0

OLD_REVISION = "That revision is older than farwrite ab."
OLD_FILE = "It is older than farwrite ab, or no farwrite."


class Worker:
    """A process that measures one arm: it joins, then does one thing at a time."""

    def __init__(
        self, arm: Arm, process: subprocess.Popen, asks: IO[bytes], answers: IO[bytes], stderr: IO[bytes]
    ) -> None:
        self.arm = arm
        self.process = process
        self.asks = asks
        self.answers = lines_of(answers)
        self.stderr = stderr  # what it prints besides
        self.has_joined = False

    def hand_over(self, task: Task) -> None:
        """Tell the worker its task, which it answers once it has joined the lab."""
        with contextlib.suppress(BrokenPipeError):  # It has ended, which `join` says.
            self.send(task)

    def join(self, launch: Launch, waiting: Callable[[float], None] = lambda seconds: None) -> Joined:
        """Wait until the worker stands in the lab; `waiting` is told every second for how many by now.

        UsageError when it is none of ours.
        """
        answer = self.answer("joined the lab", JOIN_TIMEOUT_S, waiting)
        joined = answer.joined
        if joined is None or joined.version != VERSION:
            raise UsageError(f"{self.name} speaks another version of farwrite ab. Use revisions nearer to each other.")
        if launch.package and Path(joined.package).resolve() != launch.package.resolve():
            raise UsageError(f"{self.name} ran the code in {joined.package} instead of {launch.package}.")
        ours = msgspec.json.decode(msgspec.json.encode(self.arm.profile))
        place = misread(without_ours(ours), without_ours(joined.profile))
        if place:
            raise UsageError(f"{self.name} reads the profile otherwise: {place} differs. Settle it with --set.")
        self.has_joined = True
        return joined

    def floors(self, index: int) -> list[FlushFloors]:
        """Bare flushes on this arm's disks, as the floors of one round."""
        answer = self.ask(Request(floors=index), "measured bare flushes", 300.0)
        if answer.floors is None:
            raise self.confused()
        return answer.floors

    def measure(self, cell: str, index: int, attempt: int, timeout_s: float) -> Round:
        """One round of one cell at the distance that is set."""
        request = Request(measure=Measure(cell=cell, index=index, attempt=attempt))
        answer = self.ask(request, f"measured {cell}", timeout_s)
        if answer.round is None:
            raise self.confused()
        return answer.round

    def ask(self, request: Request, doing: str, timeout_s: float) -> Answer:
        """The answer to a request."""
        try:
            self.send(request)
        except BrokenPipeError as gone:
            raise self.lost(doing) from gone
        return self.answer(doing, timeout_s)

    def send(self, message: Task | Request) -> None:
        """One line to the worker."""
        say(self.asks, message)

    def answer(self, doing: str, timeout_s: float, waiting: Callable[[float], None] = lambda seconds: None) -> Answer:
        """The next answer; a refusal is raised as the error it is."""
        text = self.read_line(timeout_s, doing, waiting)
        if not text:
            raise self.lost(doing)
        try:
            answer = upgraded(msgspec.json.decode(text, type=Answer))
        except (*NOT_OURS, UsageError) as refusal:
            raise self.confused() from refusal
        if answer.refusal:
            raise error_of(answer.refusal.exit_code)(f"{self.name}: {answer.refusal.sentence}")
        return answer

    def read_line(self, timeout_s: float, doing: str, waiting: Callable[[float], None]) -> bytes:
        """The next line; empty when the worker has ended without one. UnfitError when it takes too long."""
        try:
            return self.answers.take(timeout_s, waiting) or b""
        except TimeoutError as late:
            raise UnfitError(f"{self.name} has not {doing} within {timeout_s:.0f} s.") from late
        except TooLongError as refusal:
            raise self.confused() from refusal

    @property
    def name(self) -> str:
        """The worker in a sentence."""
        return f"Arm {self.arm.name} ({self.arm.word})"

    def lost(self, doing: str) -> FarwriteError:
        """The error for a worker that has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDING_TIMEOUT_S)
        code = self.process.returncode
        if code is None:
            how = "closed its output"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        sentence = f"{self.name} {how} before it had {doing}.{self.last_words()}"
        if not self.has_joined and code is not None and code >= 0:
            of_git = self.arm.word.startswith(REVISION)
            return UsageError(f"{sentence} {OLD_REVISION if of_git else OLD_FILE}")
        return UnfitError(sentence)

    def confused(self) -> UsageError:
        """The error for an answer that is not one."""
        return UsageError(f"{self.name} answered with what is no message of a farwrite arm. Name the command of a farwrite.")

    def last_words(self) -> str:
        """The last line it printed, as a further sentence."""
        self.stderr.seek(0)
        lines = [text for text in self.stderr.read().decode(errors="replace").splitlines() if text.strip()]
        return f" It printed: {lines[-1].strip().rstrip('.')}." if lines else ""


@contextmanager
def worker(arm: Arm, launch: Launch, descriptors: list[int], processors: set[int] | None = None) -> Iterator[Worker]:
    """The worker of an arm, alive at most as long as this block; it inherits these descriptors, and runs on these processors only
    (None: on any)."""
    with tempfile.TemporaryFile() as stderr:
        parent = os.getpid()
        with uninterrupted():
            try:
                process = subprocess.Popen(
                    [*launch.command, "arm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                    env=launch.environment, pass_fds=descriptors, preexec_fn=lambda: become_worker(parent, processors),
                )  # fmt: skip
            except OSError as refusal:
                raise UsageError(f"start {launch.command[0]} for arm {arm.name}: {refusal.strerror}.") from refusal
        asks, answers = process.stdin, process.stdout
        assert asks is not None and answers is not None
        try:
            yield Worker(arm, process, asks, answers, stderr)
        finally:
            with uninterrupted():
                process.kill()
                process.wait()
                for pipe in (asks, answers):
                    with contextlib.suppress(BrokenPipeError):  # What it has not read any more.
                        pipe.close()


def become_worker(parent: int, processors: set[int] | None = None) -> None:
    """In the new process: it dies with us, and what a terminal or a service manager says to all of us is for us to see."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # ssh leaves what it was started to ignore as it is, and so do we.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if processors:
        os.sched_setaffinity(0, processors)
    die_with(parent)
