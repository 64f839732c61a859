"""What a figure differs by from run to run, estimated from earlier runs of the same thing.

The rounds of one run share its hour, so they do not show what the next hour would differ by. Earlier runs that match the
environment, the cell and the profile do. Loads neither numpy nor scipy; `history.py` finds the runs, `compare.py` uses this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

RUNS_MIN = 3  # As ROUNDS_MIN for rounds: two runs that happen to agree would look as if nothing differed between runs.


class Level(Protocol):
    """A figure in one run on the scale it is compared on: its mean over rounds, with that mean's error. compare.Spread."""

    @property
    def value(self) -> float: ...
    @property
    def error(self) -> float: ...
    @property
    def df(self) -> float: ...


class Between(NamedTuple):
    """What one figure differs by from run to run: variances on the scale of the comparison."""

    runs: int
    whole: float  # of the runs' levels; the part that each run's own rounds explain is in it
    own: float  # that part: the mean squared error of the levels

    @property
    def variance(self) -> float:
        """What differs between runs beside what rounds explain: the method of moments, none where rounds explain it all."""
        return max(self.whole - self.own, 0.0)


ONE_HOUR = Between(0, 0.0, 0.0)  # Both sides measured beside each other, or drawn from the same rounds.


def between_runs(levels: Sequence[Level]) -> Between | None:
    """What earlier runs differ by; None where they are too few to tell."""
    count = len(levels)
    if count < RUNS_MIN:
        return None
    mean = math.fsum(level.value for level in levels) / count
    return Between(
        runs=count,
        whole=math.fsum((level.value - mean) ** 2 for level in levels) / (count - 1),
        own=math.fsum(level.error**2 for level in levels) / count,
    )


def error_of_runs(first: Level, second: Level, between: Between) -> tuple[float, float]:
    """(standard error, degrees of freedom) of the difference of two runs: their own errors, and twice what runs differ by.

    The degrees of freedom are the smaller of the rounds' (Welch 1947) and the earlier runs'. Satterthwaite's for the whole sum,
    in which `variance` is itself a difference, are too few where runs hardly differ: of 2 500 drawn pairs in which nothing had
    changed 0.3 % lay beyond 5 %, with eight earlier runs; with the smaller 3.3 %, and 4 to 6 % where runs differ.
    """
    one, two = first.error**2, second.error**2
    error, df = math.sqrt(one + two + 2 * between.variance), first.df + second.df
    if one + two:
        df = (one + two) ** 2 / (one**2 / first.df + two**2 / second.df)
    return error, min(df, between.runs - 1) if between.runs else df


class EarlierRuns(msgspec.Struct, frozen=True, kw_only=True):
    """Which earlier runs those are."""

    results: str  # the directory they were looked for in
    runs: int
    first_utc: str = ""
    last_utc: str = ""

    @property
    def text(self) -> str:
        """ "8 earlier runs like these in results, 2026-11-20 to 2026-11-28"; "no earlier run like these in results"."""
        if not self.runs:
            return f"no earlier run like these in {self.results}"
        first, last = self.first_utc[:10], self.last_utc[:10]
        when = first if first == last else f"{first} to {last}"
        return f"{self.runs} earlier run{'s' if self.runs > 1 else ''} like these in {self.results}, {when}"


class RunHistory(NamedTuple):
    """The levels of every figure in earlier runs, by compare.key_of."""

    about: EarlierRuns
    levels: Mapping[tuple, Sequence[Level]]

    def between(self, key: tuple) -> Between | None:
        """What a figure differs by from run to run; None where too few of these runs have it."""
        return between_runs(self.levels.get(key, ()))


NO_HISTORY = RunHistory(EarlierRuns(results="results", runs=0), {})
