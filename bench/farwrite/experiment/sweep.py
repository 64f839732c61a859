"""A sweep: a grid of cells, every one measured some rounds, then more rounds where the intervals are widest, until the time is
spent.

How a round is measured, in a lab of this machine or by many machines, is `map_cells`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..base.units import NS_PER_S
from .map_cells import MapCells, Order, here

if TYPE_CHECKING:
    from ..analysis.result import CellResult, Estimate
    from ..lab.lab import Lab
    from .run_journal import Run

WIDTH_SHARE = 0.05  # of the value: an interval this narrow needs no more rounds
SHARE_OF_GRID = 3  # In each further wave the widest third of the grid is measured,
ROUNDS_A_WAVE = 2  # so many rounds each.
INDEX_MAX = 999


def sweep_here(run: Run, lab: Lab) -> None:
    """The sweep in one lab of this machine, one cell after the other."""
    sweep(run, here(run, lab))


def sweep(run: Run, map_cells: MapCells) -> None:
    """All rounds that are still missing, then further ones where they are worth most."""
    from ..analysis.analyse import analyse
    from .expected import round_s
    from .run_journal import recording_of

    done = {(item.cell, item.index) for item in run.rounds if item.status == "ok"}
    limit_s = run.profile.sweep.time_ns / NS_PER_S - len(run.rounds) * round_s(run)  # What an interrupted one has spent.
    begin_s = run.elapsed_s()
    rounds = range(run.profile.run.rounds)
    missing = [Order([cell for cell in run.cells if (cell.id, index) not in done], index) for index in rounds]
    map_cells([order for order in missing if order.cells])
    while run.elapsed_s() - begin_s < limit_s:
        widest = widest_of(analyse(recording_of(run)).cells)
        cells = sorted((cell for cell in run.cells if cell.id in widest), key=lambda cell: widest.index(cell.id))
        first = 1 + max((item.index for item in run.rounds), default=-1)
        if not cells or first + ROUNDS_A_WAVE > INDEX_MAX:
            return
        left_s = limit_s - (run.elapsed_s() - begin_s)
        cells = cells[: max(1, int(left_s / round_s(run)))]  # The last wave is as long as there is time.
        map_cells([Order(cells, first + index) for index in range(ROUNDS_A_WAVE)])


def widest_of(cells: Sequence[CellResult]) -> list[str]:
    """The cells whose intervals are widest, the widest first, a third of the grid at most; none that are narrow enough."""
    wide = sorted(((width_of(cell), cell.cell) for cell in cells), reverse=True)
    most = math.ceil(len(wide) / SHARE_OF_GRID)
    return [name for width, name in wide[:most] if width > WIDTH_SHARE]


def width_of(cell: CellResult) -> float:
    """The wider of the relative intervals of median and p99; unknown is wider than anything known."""
    return max(relative(cell.response_ns_p50), relative(cell.response_ns_p99))


def relative(estimate: Estimate) -> float:
    """The half of an interval as a share of its value."""
    if not estimate.value or estimate.low is None or estimate.high is None:
        return math.inf
    return (estimate.high - estimate.low) / 2 / estimate.value
