"""A group of a routed volume moves to another home while clients write, in copies that follow each other.

`passes` copies everything and then what changed since the pass before, while passes become shorter (changed-block tracking, as in
vSphere 4); `snapshot` copies one snapshot and then, in one stop, whatever was written meanwhile (as ESX 3.5 did). Both end alike:
the router sends nothing, the last pass is made durable at the destination, the new home is written down, and the router
connects to it. Clients keep their connections, and their requests wait. What is written down decides after a crash (decision
0068).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

from ...base.errors import UnfitError, UsageError
from ...base.units import NS_PER_MS, NS_PER_S, format_size, format_time
from .copier import Asked, Copied, Copier, End, Tell

PREFIX = "move"  # Of the snapshots that are its passes.
PAUSE_NS = 300 * NS_PER_MS  # The last pass is foreseen to take no longer: a virtual machine's usual stun is a few 100 ms.
HOLD_NS_MAX = 30 * NS_PER_S  # The router hangs up on a client after 60 s without an answer.
PASSES_MAX = 20
SHRINKS_TO = 0.8  # Of the pass before: a pass that takes longer than this does not converge; two in a row decide.
LAST_PATIENCE_S = 5.0  # Without a byte moved, while clients wait.


class By(Enum):
    """A mechanism."""

    PASSES = "passes"
    SNAPSHOT = "snapshot"


class Step(Enum):
    """What is done next."""

    COPY = "copy"
    SWITCH = "switch"
    GIVE_UP = "give up"


def next_step(took_ns: Sequence[int], by: By, pause_ns: int) -> Step:
    """After passes that took so long. What the next pass copies was written during the last one, so that it takes no longer
    while passes become shorter."""
    if not took_ns:
        return Step.COPY
    if by is By.SNAPSHOT or took_ns[-1] <= pause_ns:
        return Step.SWITCH
    slow = [later > SHRINKS_TO * sooner for sooner, later in itertools.pairwise(took_ns)]
    if len(took_ns) >= PASSES_MAX or (len(slow) >= 2 and slow[-1] and slow[-2]):
        return Step.GIVE_UP
    return Step.COPY


class Switch(Protocol):
    """The router's side of a move."""

    def fenced(self) -> AbstractContextManager[None]:
        """Inside, no request is under way at the group, and none is sent."""

    def commit(self) -> None:
        """Write the new home down, durable, and connect to it. Only inside `fenced`."""


@dataclass(kw_only=True)
class Moved:
    """What a move came to."""

    by: By
    took_ns: list[int] = field(default_factory=list)  # of each pass but the last
    copied_bytes: list[int] = field(default_factory=list)  # by each pass, and by the last one
    hold_begin_ns: int = 0  # requests waited from here, monotonic; 0: it has not come so far
    hold_end_ns: int = 0
    is_switched: bool = False

    @property
    def passes(self) -> int:
        return len(self.copied_bytes)

    @property
    def hold_ns(self) -> int:
        """For which requests waited at the switch."""
        return self.hold_end_ns - self.hold_begin_ns


class Mover:
    """One move, from `move` to its switch or to its being given up; until the switch is committed the source is the home."""

    def __init__(
        self, source: End, destination: End, switch: Switch, by: By, tell: Tell, *, pause_ns: int = PAUSE_NS,
        hold_ns_max: int = HOLD_NS_MAX, rate_bits_per_s: int | None = None, overwrites: bool = False,
    ) -> None:  # fmt: skip
        self.source, self.destination, self.switch, self.by, self.tell = source, destination, switch, by, tell
        self.pause_ns, self.hold_ns_max = pause_ns, hold_ns_max
        self.asked = Asked(prefix=PREFIX, rate_bits_per_s=rate_bits_per_s, keep=1, overwrites=overwrites)
        self.is_cancelled = False
        self.moved = Moved(by=by)

    def cancel(self) -> None:
        """Give up, from any thread. Without effect once the switch is committed."""
        self.is_cancelled = True

    def move(self) -> Moved:
        """Until the group is at its new home. UnfitError where it is given up; the source is the home then."""
        try:
            while (step := next_step(self.moved.took_ns, self.by, self.pause_ns)) is Step.COPY:
                self.one_pass()
            if step is Step.GIVE_UP:
                took_ns = self.moved.took_ns[-1]
                raise UnfitError(
                    f"The passes do not converge: the last of {len(self.moved.took_ns)} took {format_time(took_ns)}, and clients "
                    f"may wait {format_time(self.pause_ns)}. Allow a longer pause, or move it while less is written."
                )
            self.last_pass()
        except BaseException:
            if not self.moved.is_switched:
                self.forget()
            raise
        self.forget()
        return self.moved

    def one_pass(self) -> None:
        """Copy what changed since the pass before, beside the writes."""
        self.check_cancelled()
        if not self.moved.took_ns:
            self.tell("all of it is copied, beside the writes.")
        begin_ns = time.monotonic_ns()
        copied = self.copier(self.asked, self.check_cancelled).copy()
        self.note(copied)
        self.moved.took_ns.append(time.monotonic_ns() - begin_ns)
        self.tell(f"pass {self.moved.passes}: {format_size(copied.shipped_bytes)} in {format_time(self.moved.took_ns[-1])}.")

    def last_pass(self) -> None:
        """Nobody writes; what changed since the last pass is made durable at the destination, and then that is the home."""
        self.moved.hold_begin_ns = begin_ns = time.monotonic_ns()

        def check() -> None:
            self.check_cancelled()
            if time.monotonic_ns() - begin_ns > self.hold_ns_max:
                raise UnfitError(
                    f"The last pass is not over after {format_time(self.hold_ns_max)}, and clients wait no longer than that: "
                    "move it by passes, or while less is written."
                )

        with self.switch.fenced():
            earlier = {one.name for one in self.source.show().snapshots}
            copier = self.copier(replace(self.asked, patience_s=LAST_PATIENCE_S), check)
            self.note(copied := copier.copy())
            if copied.snapshot in earlier:  # It ended a pass that was cut off: that snapshot is older than the last write.
                self.note(copied := copier.copy())
            assert copied.snapshot not in earlier
            check()
            self.switch.commit()
            self.moved.is_switched = True
        self.moved.hold_end_ns = time.monotonic_ns()

    def copier(self, asked: Asked, check: Callable[[], None]) -> Copier:
        return Copier(self.source, self.destination, asked, self.tell_of_copy, check)

    def tell_of_copy(self, said: str) -> None:
        """What a copy says, but for what is about its snapshot, whose name nobody gave."""
        if not said.startswith(f"{PREFIX}-"):
            self.tell(said)

    def note(self, copied: Copied) -> None:
        self.moved.copied_bytes.append(copied.shipped_bytes)

    def check_cancelled(self) -> None:
        if self.is_cancelled:
            raise UnfitError("The move is given up; the volume is served where it was.")

    def forget(self) -> None:
        """The passes' snapshots go at both ends, where that can be. What is left of them is deleted by the router that starts
        next."""
        for end in (self.source, self.destination):
            try:
                end.forget([one.name for one in end.show().snapshots if one.name.startswith(f"{PREFIX}-")])
            except (UnfitError, UsageError, OSError) as refusal:
                self.tell(f"{str(refusal).rstrip('.')}. Snapshots of this move are left there.")
