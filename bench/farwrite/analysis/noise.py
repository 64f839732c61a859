"""Host noise: whether the machine had too much else to do for a latency to be held against a limit.

It withholds verdicts on latency and no others: a lost write is lost on a busy machine as well. A busy machine makes writes
slower, where they wait for a processor, and faster, where a processor that would have slept is awake: pass and fail are both
withheld. Judged over all good rounds of a cell together; that a single one was worse is in the interval, which is made of rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..base.reasons import Reason, other_programs, stolen, waited_for_processors
from ..recording import Cell, Round
from .sample import MIDDLES_NS, decode_all

# All on a virtual machine with two processors, Linux 6.18, 4 KiB, depth 1, rounds of one second. With nothing else to do, other
# programs used 0 to 5 % of the processors; beside a loop that computes 41 to 60 %. That
# made protocol C at 0 miles faster (72 to 141 us a write instead of 175 to 232: nobody sleeps) and at 20 miles slower (439
# instead of 250 to 370).
FOREIGN_SHARE_MAX = 0.25
# Near, far and link wait for each other too: 2 to 15 % of a round under C and 73 to 85 % under A with the machine to themselves.
# So a wait counts only as far as it was others who ran, by their share of what ran at all: of A's 82 % beside 6 % of others some
# 5 % are left. At a load average of 10 (others used 56 to 94 %) it was 8 to 22 % under C at 150 miles, 24 to 49 % at 20, where
# p99 was 4.59 ms, and 81 to 116 % under A. The busiest cells have the most, and are known to some percent only.
RUN_DELAY_SHARE_MAX = 0.10


def host_noise(cell: Cell, rounds: Sequence[Round], steal_max: float) -> list[Reason]:
    """Why no verdict on a latency of this cell may rest on these rounds; empty when one may, or when nothing is known."""
    reasons = []
    foreign = mean_share([(item.noise.foreign_share, item.noise.duration_ns) for item in rounds if item.noise])
    if foreign is not None and foreign > FOREIGN_SHARE_MAX:
        reasons.append(other_programs(foreign, FOREIGN_SHARE_MAX))
    delayed = mean_share([delayed_share(cell, item) for item in rounds])
    if delayed is not None and delayed > RUN_DELAY_SHARE_MAX:
        reasons.append(waited_for_processors(delayed, RUN_DELAY_SHARE_MAX))
    steal = mean_share([(item.steal, item.duration_ns) for item in rounds])
    if steal is not None and steal > steal_max:
        reasons.append(stolen(steal, steal_max))
    return reasons


def mean_share(shares: Sequence[tuple[float | None, float]]) -> float | None:
    """The mean of shares, each of a time, over all the time of which they are known."""
    known = [(share, time_ns) for share, time_ns in shares if share is not None and time_ns > 0]
    whole_ns = sum(time_ns for _, time_ns in known)
    return sum(share * time_ns for share, time_ns in known) / whole_ns if whole_ns else None


def delayed_share(cell: Cell, round_: Round) -> tuple[float | None, float]:
    """(how much of the time in which writes were under way our processes waited for processors that others had, that time)."""
    noise = round_.noise
    if noise is None or noise.foreign_share is None or noise.own_share is None:
        return None, 0.0
    delays = (noise.near_run_delay_ns, noise.far_run_delay_ns, noise.link_run_delay_ns)
    known = [delay_ns for delay_ns in delays if delay_ns is not None]
    if not known:
        return None, 0.0
    ran = noise.foreign_share + noise.own_share
    by_others_ns = sum(known) * noise.foreign_share / ran if ran else 0.0
    under_way_ns = min(float(noise.duration_ns), under_way(cell, round_))
    return (by_others_ns / under_way_ns if under_way_ns else None), under_way_ns


def under_way(cell: Cell, round_: Round) -> float:
    """For how long of a round writes were under way, at most: all of it in a closed loop, or where more than writes is done."""
    if cell.arrival == "closed" or round_.parts:
        return float(round_.duration_ns)
    samples = decode_all(item.response for item in round_.slices)
    return min(float(round_.duration_ns), float(sum((MIDDLES_NS[one.slot] * one.counts).sum() for one in samples)))
