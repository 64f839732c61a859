"""The floor of a cell: what its protocol waits for and nothing else, from bare echoes and bare flushes of the same minute.

A write is sent before it is flushed here, so a synchronous one waits for the longer of both, not for their sum. Medians
are put together (the median of a sum is taken to be the sum of the medians), which is what `efficiency` compares with
the median write.

local, A   the near flush: sending is not waited for
B          max(near flush, echo of the write's sizes)
C          max(near flush, echo of the write's sizes with a far flush before the answer)
C2         the same, and a small echo before it
quorum     as C, of the peer whose acknowledgement is the last that is waited for

Each echo is measured twice, by a near end that sleeps until the answer comes and by one that polls for it; the one that took less
at the median counts.

Under C the far flush has to happen while the write is waited for. Echo and flush are measured as one, because a disk
that was idle for a round trip is slower than one that is kept busy. When both sites share a disk and the one-way delay
is shorter than the near flush, the two flushes overlap there: then the echo alone is taken, and the flushes measured on
both sites at once. A and B may flush the far site whenever they like, so their floor takes the near one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from ..base import reasons
from ..base.reasons import Reason
from ..base.units import format_time
from ..recording import Cell, FlushFloors
from .estimate import Draws, from_replicates, listed, unknown
from .latency import Pool
from .result import Estimate, beaten_doubt
from .sample import Sample

HEADER_BYTES = 64  # Of a record: engine/record_kernel.py.
BLOCK_BYTES = 4096  # What a journal is flushed in.


@dataclass(frozen=True)
class Flushes:
    """Bare flushes of one size, each a pool over rounds."""

    size_bytes: int
    near_alone: Pool
    far_alone: Pool
    near_both: Pool
    far_both: Pool


@dataclass(frozen=True)
class Floor:
    """A floor with its parts kept, so that ratios to it can be paired."""

    estimate: Estimate
    text: str
    replicates: np.ndarray
    without: np.ndarray  # by round index: the floor with that round left out


class Echo(NamedTuple):
    """The echo that a floor is made of."""

    pool: Pool
    how: str = ""


def tighter(sleeping: Pool, polled: Pool) -> Echo:
    """Of two echoes the one that took less at the median; that of a sleeping near end where the other was not measured.

    A near end that polls needs nobody to wake it, and keeps a processor from whoever carries the packets (docs/decisions/0035).
    """
    if polled.count and (not sleeping.count or polled.quantile(0.5) < sleeping.quantile(0.5)):
        return Echo(polled, "busy-polled ")
    return Echo(sleeping)


def record_bytes(size_bytes: int) -> int:
    """Bytes that a lone write of this size makes a journal flush."""
    return -(-(size_bytes + HEADER_BYTES) // BLOCK_BYTES) * BLOCK_BYTES


def flushes_of(floors: Iterable[FlushFloors], draws: Draws, decode: Callable[[str], Sample]) -> list[Flushes]:
    """The recording's bare flushes, by size."""
    by_size: dict[int, list[FlushFloors]] = {}
    for item in floors:
        by_size.setdefault(item.size_bytes, []).append(item)

    def pool(name: str, size: int) -> Pool:
        items = by_size[size]
        samples = [decode(getattr(item, name)) for item in items]
        return Pool(f"{name}/{size}", [item.index for item in items], samples, draws)

    return [
        Flushes(size, *(pool(name, size) for name in ("near_alone", "far_alone", "near_both", "far_both")))
        for size in sorted(by_size)
    ]


def nearest_size(known: list[Flushes], size_bytes: int) -> Flushes | None:
    """The bare flushes whose size is nearest to a write's record."""
    wanted = record_bytes(size_bytes)
    return min(known, key=lambda item: abs(item.size_bytes - wanted), default=None)


def floor_of(
    cell: Cell, flushes: Flushes | None, rtt: Pool, echoes: Echo, flushed_echoes: Echo, shared_disk: bool
) -> Floor:
    """The floor of one cell at the median; the echoes are those of the peer that is waited for."""
    echo, flushed_echo = echoes.pool, flushed_echoes.pool
    if flushes is None or not flushes.near_alone.count:
        return no_floor(reasons.no_bare_flush())
    if cell.protocol in ("local", "A"):
        near = flushes.near_alone
        return put_together(near.quantile(0.5), near.replicates(0.5), near.without(0.5), "near flush, alone", [near])
    if not echo.count:
        return no_floor(reasons.no_bare_echo())
    if cell.protocol == "B":
        return longer(flushes.near_alone, [echo], "near flush alone", f"{echoes.how}RTT echo")
    leave, two = ([rtt], "a trip for leave + ") if cell.protocol == "C2" else ([], "")
    if shared_disk and rtt.quantile(0.5) / 2 < flushes.near_alone.quantile(0.5):
        how = "both sites at once"
        away = [*leave, echo, flushes.far_both]
        return longer(flushes.near_both, away, f"near flush, {how}", f"{two}{echoes.how}RTT echo + far flush, {how}")
    if not flushed_echo.count:
        away = [*leave, echo, flushes.far_alone]
        return longer(flushes.near_alone, away, "near flush alone", f"{two}{echoes.how}RTT echo + far flush, sites alone")
    text = f"{two}{flushed_echoes.how}RTT echo with the far flush in it"
    return longer(flushes.near_alone, [*leave, flushed_echo], "near flush alone", text)


def longer(near: Pool, away: list[Pool], near_text: str, away_text: str) -> Floor:
    """The longer of what happens here and the sum of what happens away."""
    here_ns, there_ns = near.quantile(0.5), sum(pool.quantile(0.5) for pool in away)
    there = np.sum([pool.replicates(0.5) for pool in away], axis=0)
    replicates = np.maximum(near.replicates(0.5), there)
    without = np.maximum(near.without(0.5), np.sum([pool.without(0.5) for pool in away], axis=0))
    text = near_text if here_ns >= there_ns else away_text
    # NumPy's maximum: of a part that was not measured none is known, where Python's max would answer with the other.
    return put_together(float(np.maximum(here_ns, there_ns)), replicates, without, text, [near, *away])


def put_together(value_ns: float, replicates: np.ndarray, without: np.ndarray, text: str, pools: list[Pool]) -> Floor:
    """A floor from its value and replicates."""
    if not np.isfinite(value_ns):
        return no_floor(reasons.no_part_of_floor())
    rounds = min(pool.rounds for pool in pools)
    count = min(pool.count for pool in pools)
    indices = {index for pool in pools for index in pool.indices}
    estimate = from_replicates(value_ns, replicates, rounds, count, without=listed(without, indices), positive=True)
    return Floor(estimate, text, replicates, without)


def no_floor(why: Reason) -> Floor:
    """No floor, and the reason."""
    return Floor(unknown(why), "not measured", np.full(1, np.nan), np.full(1, np.nan))


def efficiency_of(floor: Floor, response: Pool) -> Estimate:
    """Floor over response time at the median, replicates paired by round."""
    if floor.estimate.value is None:
        return unknown(*floor.estimate.warnings)
    if not response.count:
        return unknown(reasons.no_write())
    ratio = floor.estimate.value / response.quantile(0.5)
    without = listed(floor.without / response.without(0.5), response.indices)
    replicates = floor.replicates / response.replicates(0.5)
    found = from_replicates(ratio, replicates, response.rounds, response.count, without=without, positive=True)
    if not (doubt := beaten_doubt(found)):
        return found
    measured = reasons.about(f"the floor was measured as {floor.text}, {format_time(floor.estimate.value)} at the median", doubt)
    return msgspec.structs.replace(found, warnings=[*found.warnings, measured])
