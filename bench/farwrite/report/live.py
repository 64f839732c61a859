"""What a run shows while it measures: median latency against miles filling in, where it is, what was void, the time left.

One region of a terminal, redrawn at each event and removed at the end. It has no thread of its own: the lab forks while it is
shown, and nothing must be drawn while a round is measured. The x axis and the line of light stand from the beginning.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import reduce
from statistics import median

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..base.histogram import Histogram
from ..base.protocol import NAMES
from ..base.reasons import Reason
from ..base.units import NS_PER_MS
from ..progress import Progress, Teller, bar, left_text
from ..recording import Cell, Round, causes_of
from .chart import FLOOR, Picture, coloured, drawn, letter_of, limits_below
from .page import WIDTH_MAX
from .tables import rank

CHART_LINES = (9, 15)  # Fewer show nothing, more are for the report.
OTHER_LINES = 5  # Title, legend, what is done, the bar, void rounds.
BAR_WIDTH = 24


class Region(Teller, AbstractContextManager):
    """The live region of one run, on a terminal."""

    def __init__(self, console: Console, verbose: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, verbose, clock)
        self.cells: list[Cell] = []
        self.rounds = 0
        self.medians_ms: dict[str, list[float]] = {}  # by cell: the median of each good round
        self.good = 0
        self.count: tuple[str, int, int] | None = None  # what is counted, how many are done, and of how many
        self.chart: Text | None = None  # as last drawn; None: to be drawn again
        self.live = Live(self, console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> Region:
        self.live.__enter__()
        return self

    def __exit__(self, *failure) -> None:
        self.live.__exit__(*failure)

    # Events

    def expect(self, seconds: float) -> None:
        super().expect(seconds)
        self.count = None
        self.live.refresh()

    def doing(self, text: str) -> None:
        super().doing(text)
        self.live.refresh()

    def did(self, seconds: float) -> None:
        super().did(seconds)
        self.live.refresh()

    def counted(self, what: str, done: int, total: int) -> None:
        self.count = (what, done, total)
        self.live.refresh()

    def begin(self, cells: Sequence[Cell], rounds: int, done: Sequence[Round]) -> None:
        self.cells, self.rounds = list(cells), rounds
        known = {cell.id: cell for cell in cells}
        for made in done:
            if made.status == "ok" and made.cell in known:
                self.add(made)
            elif made.status != "ok":
                self.voids.add(causes_of(made))

    def measured(self, cell: Cell, made: Round) -> None:
        self.add(made)
        self.live.refresh()

    def voided(self, what: str, status: str, reasons: Sequence[Reason]) -> None:
        super().voided(what, status, reasons)
        self.live.refresh()

    def add(self, made: Round) -> None:
        """One good round more."""
        self.good += 1
        middle = reduce(Histogram.merge, (Histogram.decode(item.response) for item in made.slices), Histogram()).quantile(0.5)
        if middle is not None:
            self.medians_ms.setdefault(made.cell, []).append(middle / NS_PER_MS)
        self.chart = None

    # The region

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, WIDTH_MAX) - 1  # A full last column makes some terminals wrap.
        least, most = CHART_LINES
        height = min(most, console.height - OTHER_LINES - 1)
        cells = charted(self.cells)
        if cells and height >= least:
            yield Text(f"Median write latency in ms against miles: {cells[0].name}", style="bold", no_wrap=True)
            yield self.drawn(cells, width, height)
            yield Text(legend(cells), style="dim", no_wrap=True)
        yield Text(self.text, no_wrap=True, overflow="ellipsis")
        yield self.bar()
        if self.voids.text:
            yield Text(f"{self.voids.text}; measured again", style="dim", no_wrap=True, overflow="ellipsis")

    def drawn(self, cells: Sequence[Cell], width: int, height: int) -> Text:
        """The chart of these cells, as far as they have been measured."""
        if self.chart is None:
            self.chart = coloured(drawn(picture_of(cells, self.medians_ms), width, height))
        return self.chart

    def bar(self) -> Table:
        """How far it has come, in numbers and as a bar."""
        words, total, done = list(self.numbers()), None, 0.0
        if self.count is not None:
            total, done = float(self.count[2]), float(self.count[1])
        elif self.pace.expected_s:
            total, done = 1.0, self.pace.share
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=BAR_WIDTH)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_row(ProgressBar(total=total, completed=done, width=BAR_WIDTH) if total else "", ", ".join(words))
        return grid

    def numbers(self) -> Iterator[str]:
        """What the bar stands for."""
        if self.count is not None:
            what, done, total = self.count
            yield f"{done} of {total} {what}"
        elif self.cells:
            yield f"{self.good} of {len(self.cells) * self.rounds} rounds"
        if self.count is None and self.pace.expected_s:
            yield left_text(self.pace.left_s)


@contextmanager
def region(verbose: bool = False, quiet: bool = False) -> Iterator[Progress]:
    """The live region of a run, on a terminal; otherwise as `bar`."""
    console = Console(file=sys.stderr)
    if quiet or not console.is_terminal:
        with bar(verbose, quiet) as progress:
            yield progress
        return
    with Region(console, verbose) as progress:
        yield progress


def charted(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of the workload with the most distances, as the report's chart has them."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.name, []).append(cell)
    return max(groups.values(), key=lambda group: len({cell.miles for cell in group}), default=[])


def picture_of(cells: Sequence[Cell], medians_ms: dict[str, list[float]]) -> Picture:
    """What has been measured of these cells, above the round trip that light takes."""
    series: dict[str, list[tuple[float, float]]] = {}
    for cell in sorted(cells, key=lambda cell: (rank(cell.protocol), cell.miles)):
        points = series.setdefault(letter_of(cell.protocol), [])
        if found := medians_ms.get(cell.id):
            points.append((cell.miles, median(found)))
    light = sorted({(cell.miles, cell.asked_rtt_ns / NS_PER_MS) for cell in cells})
    top = max(ms for points in [*series.values(), light] for _, ms in points)
    known = {letter: points for letter, points in series.items() if points}
    return Picture(known, light, "light", limits_below(1.1 * top), [cell.miles for cell in cells])


def legend(cells: Sequence[Cell]) -> str:
    """What the marks mean."""
    protocols = sorted({cell.protocol for cell in cells}, key=NAMES.index)
    marks = [f"{letter_of(name)} {'not replicated' if name == 'local' else f'protocol {name}'}" for name in protocols]
    return "   ".join([*marks, f"{FLOOR} the light's round trip"])
