"""`farwrite simulate`: tell many stories of the engine in a pretend world, and stop at the first that breaks a promise."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..base.errors import EXIT_DONE, EXIT_LOST_WRITE, UsageError
from ..base.interruption import exit_code
from ..base.units import counted
from ..progress import bar
from .flags import Flag, Quiet, Verbose
from .output import print_document, printing, refuse_both

if TYPE_CHECKING:
    from ..engine.simulate.story import StoryResult

TAIL_LINES = 40
LENGTH_MAX = 4  # Of a sequence of operations.
SEQUENCES_PER_S = 10  # Of those of two operations, on two processors.
COUNTS = ("ticks", "writes", "completed", "epochs")
SEEDS_PER_S = 20  # Of one processor, on the VM this was written on: for the time left, until it is known better.
SEEDS_MAX, MINUTES_MAX = 1_000_000_000, 525_600  # A year.
TOLD_FROM_S = 2.0  # What takes longer is announced.


def check(seeds: int, first: int, minutes: float | None, seed: int | None) -> None:
    """UsageError for words under which no story is told, so that nothing could be said of promises."""
    if not 1 <= seeds <= SEEDS_MAX:
        raise UsageError(f"--seeds {seeds}: give 1 to {SEEDS_MAX:,}; with --minutes it goes on as long as that takes.")
    for option, number in (("--from", first), ("--seed", seed)):
        if number is not None and not 0 <= number < 1 << 62:
            raise UsageError(f"{option} {number}: a seed must not be negative, and below 2^62.")
    if minutes is not None and not 0 < minutes <= MINUTES_MAX:
        raise UsageError(f"--minutes {minutes:g}: give a number above 0, and at most {MINUTES_MAX:,}.")


# What a campaign is to go through: one that never did says so, since it proves nothing of it. Long campaigns go through all.
REACHES = (
    "votes during a resync", "votes while a replica was a mixture", "votes while a disk answered nothing",
    "votes while one direction was lost", "votes while two called themselves primary", "votes lost in one direction",
    "configurations during a resync", "configurations while a disk answered nothing", "primaries lost during a resync",
    "primaries lost while they handed over", "primaries lost with writes not complete", "replicas lost in the middle of a copy",
    "replicas lost while their disk answered nothing", "primaries known to have ended", "torn tails", "joined by digests",
    "joined by extents", "handed over", "ballots refused", "frames forged", "snapshots read", "snapshots given up",
    "blocks moved to an older snapshot", "replicas lost while blocks were on their way to be kept",
    "replicas lost before a snapshot was in both superblocks", "replicas lost while a deleted snapshot's blocks moved",
    "control messages doubled", "control messages overtaken", "bad sectors read", "bad sectors written again",
    "journals that could not be read", "journal writes lost", "journal writes misdirected", "superblock writes lost",
    "volume writes lost", "volume writes misdirected", "lies found by a verify",
    "ends of a log lost, and nothing there could tell", "writes refused for room",
    "moves ended", "moves cancelled", "configurations, adds", "configurations, removes", "disks exchanged",
    "primaries lost during a move", "changes of the replicas refused", "moments that trouble followed",
    *(f"stories with {counted(count, 'replica')}" for count in range(1, 6)),
    *(f"stories under {protocol}" for protocol in ("local", "A", "B", "C", "C2", "quorum")),
)  # fmt: skip
AT_MOST = ", at most"  # What ends so is the largest of all stories, and no sum.


def never_text(coverage: Counter[str]) -> str:
    """What was not reached; empty when everything was."""
    never = [name for name in REACHES if not coverage[name]]
    return f"Never seen, so nothing is shown of it (more --seeds): {'; '.join(never)}." if never else ""


def coverage_text(coverage: Counter[str]) -> str:
    """How often the stories went through what is seldom, so that a search that never meets it is seen to be one."""
    width = max((len(name) for name in coverage), default=0)
    lines = [f"  {name:{width}} {count:>12,}" for name, count in sorted(coverage.items())]
    return "\n".join(["On the way:", *lines])


def simulate(
    *,
    seeds: int = 1000,
    first: Annotated[int, Parameter(name="--from")] = 0,
    minutes: float | None = None,
    seed: int | None = None,
    exhaustive: int | None = None,
    dask: str | None = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    json: Flag = False,
) -> int:
    """Put the engine's own loops through crashes, cuts and failing disks, each story from one seed; stop at a broken promise.

    Every processor that this process may use tells stories (taskset(1) leaves it fewer). Exit code 5 when a promise is broken.

    Parameters
    ----------
    seeds
        How many seeds.
    first
        The first seed.
    minutes
        Go on for so long instead, however many seeds that takes.
    seed
        Retell this one seed.
    exhaustive
        Instead of seeds: every sequence of up to so many operations (1 to 4), with the power lost at every operation of a disk.
        Two take seconds, three a few minutes.
    dask
        Spread the seeds over the workers of the Dask scheduler at this address, such as tcp://127.0.0.1:8786.
    verbose
        Print every line of the stories.
    quiet
        Say nothing on stderr but refusals.
    json
        Print one JSON document instead of sentences.
    """
    check(seeds, first, minutes, seed)
    others = (dask, seed, minutes)
    if exhaustive is not None and (not 1 <= exhaustive <= LENGTH_MAX or any(other is not None for other in others)):
        raise UsageError(f"--exhaustive {exhaustive}: give 1 to {LENGTH_MAX}, and neither --seed, --minutes nor --dask with it.")
    refuse_both(verbose, quiet)
    if dask is None:  # Its workers compile for themselves.
        from ..experiment.compilation import fill_cache

        with bar(quiet=quiet) as progress:
            fill_cache(progress)
    if exhaustive is not None:
        return examined(exhaustive, quiet, json)
    if seed is not None:
        first, seeds, minutes = seed, 1, None
    found = tell_until(first, seeds, minutes, dask, verbose and not json, quiet)
    with printing():
        if json:
            print_document(found.document(), indent=2)
        else:
            print("\n".join(found.lines()))
    if found.broken:
        return EXIT_LOST_WRITE
    return exit_code() if found.interrupted else EXIT_DONE


def examined(length: int, quiet: bool, json: bool) -> int:
    """Every sequence of up to so many operations."""
    from ..engine.simulate.exhaustive import examine_all, sequences

    count = sum(1 for _ in sequences(length))
    done = points = 0
    broken, interrupted = None, False
    with bar(quiet=quiet) as progress:
        progress.expect(count / SEQUENCES_PER_S)
        try:
            for outcome in examine_all(length):
                done, points = done + 1, points + outcome.stories
                broken = outcome if outcome.broken else None
                progress.doing(f"{done:,} of {counted(count, 'sequence')}, {counted(points, 'crash point')}")
                progress.did(1 / SEQUENCES_PER_S)
        except KeyboardInterrupt:
            interrupted = True
    with printing():
        if json:
            print_document({
                "length": length, "sequences": done, "of": count, "crash_points": points, "interrupted": interrupted,
                "broken": broken.broken if broken else None, "operations": list(broken.operations) if broken else [],
                "where": broken.where if broken else "",
            }, indent=2)  # fmt: skip
        elif broken:
            print(f"{', '.join(broken.operations)} ({broken.where}) breaks a promise: {broken.broken}.")
        else:
            stopped = "interrupted: " if interrupted else ""
            tried = f"{done:,} of {counted(count, 'sequence')} of up to {length} operations, {counted(points, 'crash point')}"
            print(f"{stopped}{tried}: no promise broken.")
    return EXIT_LOST_WRITE if broken else exit_code() if interrupted else EXIT_DONE


@dataclass
class Found:
    """What the stories from seed `first` on came to."""

    first: int
    totals: Counter[str] = field(default_factory=Counter)
    coverage: Counter[str] = field(default_factory=Counter)
    last: StoryResult | None = None
    interrupted: bool = False

    @property
    def broken(self) -> StoryResult | None:
        """The story that breaks a promise: none is told after it."""
        return self.last if self.last is not None and self.last.broken else None

    def add(self, story: StoryResult) -> None:
        """One more."""
        self.last = story
        self.totals["seeds"] += 1
        self.totals.update({name: getattr(story, name) for name in COUNTS})
        for name, count in story.counts.items():
            self.coverage[name] = max(self.coverage[name], count) if name.endswith(AT_MOST) else self.coverage[name] + count

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        broken = self.broken
        return {
            **{name: self.totals[name] for name in ("seeds", *COUNTS)}, "coverage": dict(sorted(self.coverage.items())),
            "never": [name for name in REACHES if not self.coverage[name]],
            "first_seed": self.first, "interrupted": self.interrupted, "broken_seed": broken.seed if broken else None,
            "broken": broken.broken if broken else None, "tail": broken.lines[-TAIL_LINES:] if broken else [],
            "digest": self.last.digest if self.last else None,
        }  # fmt: skip

    def lines(self) -> Iterator[str]:
        """As sentences."""
        if broken := self.broken:
            yield f"Seed {broken.seed} breaks a promise: {broken.broken}."
            yield from (broken.lines[0], "  ...", *broken.lines[max(1, len(broken.lines) - TAIL_LINES) :])
            yield f"Retell it: farwrite simulate --seed {broken.seed} --verbose"
            return
        totals, verdict = self.totals, "no promise broken" if self.totals["seeds"] else "nothing was tried"
        yield (
            f"{counted(totals['seeds'], 'seed')} from {self.first}{', interrupted' if self.interrupted else ''}: {verdict}. "
            f"{counted(totals['writes'], 'write')} submitted, {totals['completed']:,} completed, "
            f"{counted(totals['epochs'], 'epoch')}."
        )
        if self.coverage:
            yield coverage_text(self.coverage)
            if never := never_text(self.coverage):
                yield never


def tell_until(first: int, seeds: int, minutes: float | None, dask: str | None, verbose: bool, quiet: bool) -> Found:
    """Tell so many stories, or for so many minutes, or until one breaks a promise."""
    from ..engine.simulate.search import (  # A kernel is compiled where its module is imported.
        over_dask,
        search,
        tellers,
    )

    found, limit_s = Found(first), None if minutes is None else 60 * minutes
    with bar(quiet=quiet) as progress, contextlib.ExitStack() as stack:
        pool = stack.enter_context(over_dask(dask)) if dask is not None else None
        per_seed_s = 1 / (SEEDS_PER_S * (pool.at_once if pool else tellers()))
        expected_s = per_seed_s * seeds if limit_s is None else limit_s
        if expected_s > TOLD_FROM_S:
            progress.expect(expected_s)
        begun_s = since_s = time.monotonic()
        try:
            for stories in search(first, seeds if limit_s is None else None, pool):
                for story in stories:
                    found.add(story)
                    if verbose:
                        with printing():
                            print("\n".join(story.lines))
                now_s = time.monotonic()
                totals = found.totals
                progress.doing(f"{counted(totals['seeds'], 'seed')}, {counted(totals['completed'], 'write')} completed")
                progress.did(per_seed_s * len(stories) if limit_s is None else now_s - since_s)
                since_s = now_s
                if limit_s is not None and now_s - begun_s > limit_s:
                    break
        except KeyboardInterrupt:
            found.interrupted = True
    return found
