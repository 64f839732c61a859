"""Steady state as storage people define it: five rounds in a row that neither scatter nor trend.

SNIA Solid State Storage Performance Test Specification, "Steady State": over a measurement window of five consecutive rounds, the
greatest and the least value differ by at most 20 % of their average, and the line fitted to them by least squares rises or
falls by at most 10 % of it. The first such window counts. Unlike `steady.py`, which looks into rounds, this looks across them;
a run asks for it with `[run] steady = "snia"`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .result import FiveRounds

WINDOW_ROUNDS = 5
EXCURSION_MAX = 0.20
SLOPE_MAX = 0.10


def five_rounds(quantity: str, indices: Sequence[int], values: Sequence[float]) -> FiveRounds:
    """The first window of steady rounds, or the steadiest when none is; values by round, `indices` the rounds' own."""
    best: FiveRounds | None = None
    for begin in range(len(values) - WINDOW_ROUNDS + 1):
        window = np.array(values[begin : begin + WINDOW_ROUNDS], np.float64)
        average = float(window.mean())
        if not np.isfinite(window).all() or average <= 0:
            continue
        excursion = float(np.ptp(window)) / average
        slope = float(np.polyfit(np.arange(WINDOW_ROUNDS), window, 1)[0]) * (WINDOW_ROUNDS - 1) / average
        found = FiveRounds(
            quantity=quantity, reached=excursion <= EXCURSION_MAX and abs(slope) <= SLOPE_MAX, first_round=indices[begin],
            last_round=indices[begin + WINDOW_ROUNDS - 1], average=average, excursion=excursion, slope=slope,
        )  # fmt: skip
        if found.reached:
            return found
        if best is None or badness(found) < badness(best):
            best = found
    return best or FiveRounds(
        quantity=quantity, reached=None, first_round=None, last_round=None, average=None, excursion=None, slope=None
    )


def badness(found: FiveRounds) -> float:
    """How far a window is beyond what is allowed."""
    assert found.excursion is not None and found.slope is not None
    return max(found.excursion / EXCURSION_MAX, abs(found.slope) / SLOPE_MAX)
