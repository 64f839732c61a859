"""The loop that measures any contender: cells in a new random order each round, survey before and after, void rounds again.

A contender is a name, what a completed write means with it, the version that ran, its cells and one verb, `round`. Everything it
observes is stored as a run of the project stores its own, so that the project's own analysis tells the quantiles, intervals,
floors, k and a of all of them alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from farwrite.base.errors import UnfitError
from farwrite.base.host.facts import processor_time, steal_between
from farwrite.base.reasons import Reason, round_refused
from farwrite.base.units import NS_PER_S
from farwrite.experiment.cells import asked_rtt_ns_of
from farwrite.experiment.measure import measure_floors
from farwrite.experiment.round import SLICES_MIN, leg_of, link_reasons, load_of_link, load_reasons, probers_of, round_of
from farwrite.experiment.run_journal import Run
from farwrite.lab.lab import Lab
from farwrite.lab.span import PASSAGES, Span
from farwrite.lab.stamps import beside
from farwrite.recording import Cell, Round, RoundStatus
from farwrite.targets.load_loop_kernel import Recorder
from farwrite.targets.observed import Observed, PrimaryObserved
from farwrite.workload.plan import Load, draw
from farwrite.workload.tables import Profile

BLOCK_BYTES = 4096
HELD_NS = 1_000_000  # While the emulation's median passage is looked for.
ADDRESSES = 1 << 16  # Of which a load takes one after the other, from the beginning again when they are used up.


@dataclass(frozen=True)
class Task:
    """What a load is told of one round."""

    size_bytes: int
    queue_depth: int
    volume_bytes: int
    duration_ns: int
    slice_count: int
    seed: int

    @property
    def slice_ns(self) -> int:
        """How long a slice of the round is."""
        return self.duration_ns // self.slice_count

    def addresses(self):
        """int64: where the round writes, as the project's own plans draw it."""
        return draw(Load(volume_bytes=self.volume_bytes, queue_depth=self.queue_depth), self.seed, ADDRESSES).address


class Contender(Protocol):
    """What takes part."""

    @property
    def name(self) -> str: ...
    @property
    def what(self) -> str: ...  # what stands when a write completes
    @property
    def version(self) -> str: ...
    @property
    def cells(self) -> list[Cell]: ...
    @property
    def span(self) -> Span: ...

    def round(self, cell: Cell, index: int, attempt: int) -> Round: ...


@dataclass
class Rival:
    """A contender that is not ours: `load` drives it once and answers a filled recorder, or raises UnfitError."""

    name: str
    what: str
    version: str
    run: Run
    span: Span
    load: Callable[[Task], Recorder]
    cells: list[Cell] = field(default_factory=list)

    def round(self, cell: Cell, index: int, attempt: int) -> Round:
        """One cell, once, with the surveys and reasons that a round of ours has (round.measure_cell)."""
        table = self.run.profile.run
        begin_s = self.run.elapsed_s()
        leg = leg_of(self.span, cell.asked_rtt_ns, cell, table.survey_echoes)
        task = task_of(self.run, cell, f"{index}/{attempt}")
        ticks = processor_time()
        reasons: list[Reason] = []
        observed: Observed | None = None
        try:
            with beside(probers_of([leg])):
                observed = Observed(near=PrimaryObserved(status=0, recorder=self.load(task)))
        except UnfitError as failure:
            reasons.append(round_refused(str(failure)))
        failed = bool(reasons)
        steal = steal_between(ticks, processor_time())
        loaded = load_of_link(leg)
        after = self.span.survey(table.survey_echoes)
        reasons += link_reasons(leg.before, after, leg.asked_rtt_ns) + load_reasons(leg, loaded)
        status: RoundStatus = "failed" if failed else "void" if reasons else "ok"
        return round_of(
            cell, index, attempt, status, reasons, begin_s, task.duration_ns, leg, loaded, after, observed,
            Unordered(task.slice_ns), steal, None,
        )  # fmt: skip


@dataclass(frozen=True)
class Unordered:
    """What a stored round takes from an order of ours."""

    slice_ns: int
    peer_timeout_ns: int | None = None
    load: None = None  # It has no parts to tell apart.


def task_of(run: Run, cell: Cell, salt: str) -> Task:
    """A round's task; as with ours, other addresses every time."""
    duration_ns = run.profile.run.round_ns
    return Task(
        size_bytes=cell.size_bytes, queue_depth=cell.queue_depth, volume_bytes=run.profile.lab.volume_bytes,
        duration_ns=duration_ns, slice_count=max(SLICES_MIN, round(duration_ns / NS_PER_S)),
        seed=random.Random(f"{run.seed}/{cell.id}/{salt}").getrandbits(62),
    )  # fmt: skip


def rival_cell(name: str, miles: float, queue_depth: int, profile: Profile, size_bytes: int = BLOCK_BYTES) -> Cell:
    """A cell of a rival, in the words of ours: under the promise it is held against, C."""
    return Cell(
        id=f"{name}-{miles:g}-{queue_depth}", name=name, protocol="C", miles=miles, asked_rtt_ns=asked_rtt_ns_of(miles, profile),
        queue_depth=queue_depth, arrival="closed", size_bytes=size_bytes, offered_per_s=None,
    )  # fmt: skip


def hold_for_the_median(span: Span) -> None:
    """From now on packets are held for the light's time less the *median* passage of this emulation while it holds them.

    For contenders that are held against each other and not against a distance, on a kernel whose timers are late by more than a
    distance may be off. A packet that the timer lets go early arrives before light would.
    """
    assert span.prober is not None
    span.hold(HELD_NS, HELD_NS)
    outward, homeward = span.prober.burst(PASSAGES, 2 * HELD_NS)
    span.passage_ns = int(np.median(outward.delay_ns)) - HELD_NS, int(np.median(homeward.delay_ns)) - HELD_NS


def measure(run: Run, lab: Lab, contenders: Sequence[Contender], late_spans: Sequence[Span], say: Callable[[str], None]) -> None:
    """All rounds of all cells of all contenders, interleaved; `late_spans` are set anew for each round."""
    run.cells = [cell for contender in contenders for cell in contender.cells]
    table = run.profile.run
    for index in range(table.rounds):
        say(f"round {index + 1} of {table.rounds}")
        for span in late_spans:
            hold_for_the_median(span)
        measure_floors(run, lab, index)
        places = [(contender, cell) for contender in contenders for cell in contender.cells]
        random.Random(f"{run.seed}/{index}").shuffle(places)
        for contender, cell in places:
            for attempt in range(table.retries + 1):
                made = contender.round(cell, index, attempt)
                run.rounds.append(made)
                if made.status == "ok":
                    break
                say(f"{cell.id}, round {index + 1}: {made.status}: {'; '.join(made.reasons)}")
