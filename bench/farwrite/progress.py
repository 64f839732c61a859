"""Telling a person what is going on and how long it will still take; on stderr, and silently where nobody looks.

Work reports typed events; how they are shown is decided here once: a live region or a bar on a terminal, now and then a line
elsewhere, nothing with --quiet. A void round is counted with its cause; only --verbose gives it a line of its own.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from .base.reasons import cause_of
from .base.units import foreseen_text

if TYPE_CHECKING:
    from rich.console import Console

    from .base.reasons import Reason
    from .recording import Cell, Round

LINE_EVERY_S = 15.0  # Where there is no terminal.
SILENCE_MAX_S = 30.0  # So long nothing was over: then what is being done is a line too, where somebody goes on saying it.


class Progress(Protocol):
    """What a long piece of work tells as it goes on."""

    def expect(self, seconds: float) -> None:
        """The work ahead, as well as it can be foreseen."""

    def doing(self, text: str) -> None:
        """What is being done now."""

    def did(self, seconds: float) -> None:
        """So much of what was expected is over."""

    def counted(self, what: str, done: int, total: int) -> None:
        """So many of these are done, where it is not known how long each takes."""

    def say(self, text: str) -> None:
        """A line worth keeping: something was rerun, left out or lost."""

    def begin(self, cells: Sequence[Cell], rounds: int, done: Sequence[Round]) -> None:
        """The cells of a run, how many rounds each is measured in, and the rounds that an interrupted run has already."""

    def measured(self, cell: Cell, made: Round) -> None:
        """A round is good."""

    def voided(self, what: str, status: str, reasons: Sequence[Reason]) -> None:
        """A round is void or has failed, and why; it is kept, and measured again or left out."""


class Silence:
    """The null form: nobody is told."""

    def expect(self, seconds: float) -> None:
        pass

    def doing(self, text: str) -> None:
        pass

    def did(self, seconds: float) -> None:
        pass

    def counted(self, what: str, done: int, total: int) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def begin(self, cells: Sequence[Cell], rounds: int, done: Sequence[Round]) -> None:
        pass

    def measured(self, cell: Cell, made: Round) -> None:
        pass

    def voided(self, what: str, status: str, reasons: Sequence[Reason]) -> None:
        pass


class Pace:
    """How much is left, in seconds: what was foreseen, times how much longer than foreseen the finished part took."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.expect(0.0)

    def expect(self, seconds: float) -> None:
        """Begin, with so much ahead."""
        self.begun_s, self.expected_s, self.did_s = self.clock(), seconds, 0.0

    def did(self, seconds: float) -> None:
        """So much of what was foreseen is over, repeats and all."""
        self.did_s += seconds

    @property
    def share(self) -> float:
        """The part that is over."""
        return min(self.did_s / self.expected_s, 1.0) if self.expected_s else 0.0

    @property
    def left_s(self) -> float:
        """How long the rest will take."""
        factor = (self.clock() - self.begun_s) / self.did_s if self.did_s else 1.0
        return max(self.expected_s - self.did_s, 0.0) * factor


class Voids:
    """Rounds that were void or failed, counted by cause."""

    def __init__(self) -> None:
        self.count = 0
        self.causes: Counter[str] = Counter()

    def add(self, reasons: Sequence[Reason]) -> None:
        """One more."""
        self.count += 1
        self.causes.update(dict.fromkeys(map(cause_of, reasons), 1))

    @property
    def text(self) -> str:
        """ "3 void: most often the link was off"; empty while there is none."""
        if not self.count:
            return ""
        most = "most often " if len(self.causes) > 1 else ""
        return f"{self.count} void" + (f": {most}{self.causes.most_common(1)[0][0]}" if self.causes else "")


def left_text(seconds: float) -> str:
    """ "about 1 min 50 s left"."""
    return f"about {foreseen_text(seconds)} left"


class Teller(Silence):
    """What all forms have in common: the pace, the void rounds, and the lines that are kept."""

    def __init__(self, console: Console, verbose: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self.verbose = console, verbose
        self.pace, self.voids = Pace(clock), Voids()
        self.text = ""

    def expect(self, seconds: float) -> None:
        self.pace.expect(seconds)

    def doing(self, text: str) -> None:
        self.text = text

    def did(self, seconds: float) -> None:
        self.pace.did(seconds)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def voided(self, what: str, status: str, reasons: Sequence[Reason]) -> None:
        self.voids.add(reasons)
        if self.verbose:
            self.say(f"{what}: {status}: {'; '.join(map(str, reasons))}")


class Lines(Teller):
    """A line now and then, where there is no terminal: at the beginning, and while it lasts every quarter of a minute."""

    def __init__(self, console: Console, verbose: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, verbose, clock)
        self.begun_s = clock()
        self.reported_s: float | None = None  # when the last line was
        self.counting = False  # whether the beginning of what is counted was told

    def doing(self, text: str) -> None:
        super().doing(text)
        if self.pace.clock() - (self.begun_s if self.reported_s is None else self.reported_s) >= SILENCE_MAX_S:
            self.line(text)

    def expect(self, seconds: float) -> None:
        super().expect(seconds)
        self.counting = False
        self.line(left_text(seconds))

    def did(self, seconds: float) -> None:
        super().did(seconds)
        if self.is_time():
            self.line(", ".join(words for words in (self.text, self.voids.text, left_text(self.pace.left_s)) if words))

    def counted(self, what: str, done: int, total: int) -> None:
        begins = not done and not self.counting
        self.counting = not done or self.counting
        if begins or self.is_time():
            self.line(f"{self.text}: {done} of {total} {what}")

    def is_time(self) -> bool:
        """Whether the last line is long enough ago."""
        return self.reported_s is None or self.pace.clock() - self.reported_s >= LINE_EVERY_S

    def line(self, text: str) -> None:
        self.reported_s = self.pace.clock()
        self.say(text)


class Bar(Teller):
    """A bar with the time left, on a terminal."""

    def __init__(self, progress, console: Console, verbose: bool = False) -> None:
        super().__init__(console, verbose)
        self.progress = progress
        self.task = progress.add_task("preparing", total=None)

    def expect(self, seconds: float) -> None:
        super().expect(seconds)
        self.progress.update(self.task, total=seconds, completed=0)
        self.show()

    def doing(self, text: str) -> None:
        super().doing(text)
        self.show()

    def did(self, seconds: float) -> None:
        super().did(seconds)
        self.progress.advance(self.task, seconds)
        self.show()

    def counted(self, what: str, done: int, total: int) -> None:
        self.progress.update(self.task, total=total, completed=done, description=f"{self.text}: {done} of {total} {what}")
        self.progress.refresh()

    def voided(self, what: str, status: str, reasons: Sequence[Reason]) -> None:
        super().voided(what, status, reasons)
        self.show()

    def show(self) -> None:
        """The line as it is now."""
        left = left_text(self.pace.left_s) if self.pace.expected_s else ""
        words = ", ".join(words for words in (self.text, self.voids.text, left) if words)
        self.progress.update(self.task, description=words)
        self.progress.refresh()


@contextmanager
def bar(verbose: bool = False, quiet: bool = False) -> Iterator[Progress]:
    """A progress bar on stderr, removed at the end. It has no thread of its own: the lab forks while it is shown."""
    if quiet:
        yield Silence()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichProgress

    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield Lines(console, verbose)
        return
    columns = (BarColumn(bar_width=16), TextColumn("{task.description}", markup=False))
    with RichProgress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        yield Bar(progress, console, verbose)
