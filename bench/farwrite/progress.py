"""Telling a person what is going on and how long it will still take; on stderr, and silently where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """What a long piece of work tells as it goes on."""

    def expect(self, seconds: float) -> None:
        """The work ahead, as well as it can be foreseen."""

    def doing(self, text: str) -> None:
        """What is being done now."""

    def did(self, seconds: float) -> None:
        """So much of what was expected is over."""

    def say(self, text: str) -> None:
        """A line worth keeping: something was rerun, left out or lost."""


class Silence:
    """The null form: nobody is told."""

    def expect(self, seconds: float) -> None:
        pass

    def doing(self, text: str) -> None:
        pass

    def did(self, seconds: float) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class Bar:
    """A bar with the time left, on a terminal; lines that matter, elsewhere."""

    def __init__(self, progress, console) -> None:
        self.progress = progress
        self.console = console
        self.task = progress.add_task("preparing", total=None)

    def expect(self, seconds: float) -> None:
        self.progress.update(self.task, total=seconds, completed=0)
        if not self.console.is_terminal:
            self.console.print(f"about {seconds:.0f} s to go")

    def doing(self, text: str) -> None:
        self.progress.update(self.task, description=text)
        self.progress.refresh()

    def did(self, seconds: float) -> None:
        self.progress.advance(self.task, seconds)
        self.progress.refresh()

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)


@contextmanager
def bar() -> Iterator[Bar]:
    """A progress bar on stderr, removed at the end. It has no thread of its own: the lab forks while it is shown."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeRemainingColumn(elapsed_when_finished=True))
    with RichProgress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        yield Bar(progress, console)
