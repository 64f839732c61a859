"""Recordings that a report has trouble with, made up so that every number and every verdict has a temptation to be wrong.

Each is whole and decodes; what is awkward about it is said beside it. tests/report/test_awkward.py holds what is told of them
on the terminal, on the page, in the JSON and by the gate against each other and against physics.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from farwrite.base.histogram import Histogram
from farwrite.recording import Audit, Recording, Round
from make_recording import SMALL, changed, make_recording

TEXT = SMALL.replace("[0, 20, 60, 100, 150, 186]", "[0, 20, 60, 150]").replace("kills = 6", "kills = 3")

# A link that carries 100 Mbit/s, and five times as much offered.
RATE_BITS_PER_S = 100e6
OFFERED_PER_S = 4000
SERVED_PER_S = 700
BACKLOG = """
title = "A backlog"

[distance]
miles = [20, 60, 150]

[link]
rate = "100 Mbit/s"

[run]
rounds = 5
round = "800 ms"

[[cell]]
name = "paced"
protocols = ["C"]
arrival = "poisson"
queue_depth = 256
rate = "4000 /s"
block = "16 KiB"
"""


def with_rounds(recording: Recording, change: Callable[[Round], Round]) -> Recording:
    """The recording with every round changed."""
    return changed(recording, rounds=[change(item) for item in recording.rounds])


def backlog() -> Recording:
    """More is offered than the link carries: the queue drains for seconds after the round, and that is no throughput of it."""
    recording = make_recording(BACKLOG)

    def queued(item: Round) -> Round:
        slices, begun = [], 0
        for part in item.slices:
            intended = OFFERED_PER_S * part.duration_ns // 10**9
            numbers = begun + np.arange(intended)
            times_ns = ((numbers + 1) / SERVED_PER_S - numbers / OFFERED_PER_S) * 1e9 + 400_000
            within = SERVED_PER_S * part.duration_ns // 10**9
            counted = Histogram.of(times_ns.astype(np.int64)).encode()
            slices.append(changed(
                part, completed=intended, completed_bytes=intended << 14, response=counted,
                response_ns_max=int(times_ns.max()), within=within, within_bytes=within << 14,
            ))  # fmt: skip
            begun += intended
        audit = Audit(completed=begun, survived=begun, lost=0, damaged=0)
        return changed(item, slices=slices, issued=begun, completed=begun, completed_bytes=begun << 14,
                       wire_bytes=begun * (16448), audit=audit)  # fmt: skip

    return with_rounds(recording, queued)


def one_good_round() -> Recording:
    """All rounds but the first are void."""
    off = ["the link before the round was +412 us off"]
    return with_rounds(
        make_recording(TEXT), lambda item: item if not item.index else changed(item, status="void", reasons=off)
    )  # fmt: skip


def two_rounds() -> Recording:
    """Two rounds, alike by chance."""
    return make_recording(TEXT, changes=("run.rounds=2",), drift_ratio=0.0001)


def no_line() -> Recording:
    """Latency is a maximum of things: its slope is less than light alone takes."""
    return make_recording(TEXT, k=0.76, a_ns=2e6)


def falling() -> Recording:
    """The farther, the faster: k is below 0."""
    return make_recording(TEXT, k=-0.5, a_ns=4e6)


def faster_than_light() -> Recording:
    """A write is complete before light has been there and back: the link was not what it said, or the write was not durable."""
    return make_recording(TEXT, k=0.2, a_ns=100_000)


def lost_after_cut() -> Recording:
    """No kill lost anything and writes went on while the link was cut; after one cut two acknowledged writes were missing."""
    recording = make_recording(TEXT, completed_during_cut_c=1500)
    drills = [
        changed(item, audit=Audit(completed=2000, survived=1998, lost=2, damaged=0), lost_bytes=8192)
        if (item.kind, item.protocol, item.index) == ("cut", "C", 1) else item
        for item in recording.drills
    ]  # fmt: skip
    return changed(recording, drills=drills)


def damaged() -> Recording:
    """Nothing is missing at the far site, and some of it is not what was written."""
    def spoilt(item, damaged):
        return changed(item, audit=changed(item.audit, damaged=damaged))

    recording = with_rounds(
        make_recording(TEXT, completed_during_cut_c=1500),
        lambda item: spoilt(item, 3) if (item.cell, item.index) == ("write-C-60", 2) else item,
    )
    drills = [
        spoilt(item, 1) if (item.kind, item.protocol, item.index) == ("kill", "A", 0) else item for item in recording.drills
    ]
    return changed(recording, drills=drills)


def in_memory() -> Recording:
    """Both journals lie on tmpfs."""
    return make_recording(TEXT, durability="memory")


def void_everywhere() -> Recording:
    """Not one good round, no audit of any, and no drill."""
    cells = tuple(f"write-{protocol}-{miles}" for protocol in "CA" for miles in (0, 20, 60, 150))
    return with_rounds(
        make_recording(TEXT, changes=("drill.kills=0",), always_void=cells), lambda item: changed(item, audit=None)
    )  # fmt: skip


def interrupted() -> Recording:
    """Stopped in the third round: some cells have three, others two, one has none and nothing was drilled."""
    recording = make_recording(TEXT, interrupted=True)
    begun = [item for item in recording.rounds if item.index < 2 or (item.index == 2 and item.cell.startswith("write-C"))]
    rounds = [item for item in begun if item.cell != "write-A-150"]
    return changed(recording, rounds=rounds, drills=[])


def noisy_host() -> Recording:
    """Other programs had most of the processors in every round."""
    return make_recording(TEXT, foreign_share=0.6, run_delay_ratio=0.4)


def lab_slower_before() -> Recording:
    """The lab's own round trip was measured while it was slow: at 0 miles that of the rounds is a third less."""
    recording = make_recording(TEXT, base_rtt_ns=99_000)
    slow = Histogram.of(np.linspace(149_000, 152_000, 200).astype(np.int64)).encode()
    return changed(recording, lab=changed(recording.lab, base_rtt=slow))


def own_budgets() -> Recording:
    """Not about the claims, and three budgets of its own: broken, kept, and kept at the one distance it is about."""
    budgets = """
claims = false

[[budget]]
p99 = "2 ms"

[[budget]]
p50 = "9 ms"

[[budget]]
p99 = "1.5 ms"
miles = 60

[distance]"""
    return make_recording(TEXT.replace("[distance]", budgets))


def beaten_floor() -> Recording:
    """The engine is faster than what was measured as its floor."""
    return make_recording(TEXT, far_flush_ns=700_000)


RECORDINGS: dict[str, Callable[[], Recording]] = {
    made.__name__: made
    for made in (
        backlog, one_good_round, two_rounds, no_line, falling, faster_than_light, lost_after_cut, damaged, in_memory,
        void_everywhere, interrupted, noisy_host, lab_slower_before, own_budgets, beaten_floor,
    )
}  # fmt: skip
