"""How long the writer stood still: recovery times and their phases, outages, and the availability by two definitions.

All from the client's side: a write is good when it is acknowledged within the bound of its intended instant. An outage is a
stretch without one that is longer than the bound; outages add up, however many requests waited through them. An event's
recovery time lasts until its outage is over: one that it meets or begins, or a later one in which another primary took over.
Where there is none, until the first write that was intended after it is acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from ..base.units import NS_PER_MS
from .drill_recording import ACKED, AGAIN, NEVER, OPENS, STANDS, TAKES, WON, Done, History, Trial
from .estimate import order_statistic_ranks
from .result import Estimate

SLOT_NS = 100 * NS_PER_MS  # Of time-based availability.
PHASES = ("detect", "decide", "promote", "route", "write")
# What the route is made of through a door: the node opens it; the client's next attempt begins; TCP is connected; the export is
# negotiated, or the session logged in.
ROUTE = ("open", "find", "connect", "admit")


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """What followed an event until the load went on."""

    event: str
    kind: str
    time_ns: int | None  # null: the outage was not over when the client was told to begin no more writes
    led_by: str = ""  # who acknowledged it; "" where nobody did
    phases: dict[str, int] | None = None  # where another has taken over: ns by phase, which add up to the time
    route: dict[str, int] | None = None  # where it did so through a door: ns by part, which add up to the phase "route"


class Availability(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of both definitions; several trials add up."""

    slots: int
    good_slots: int
    good: int
    late: int
    failed: int  # with the indeterminate
    outage_ns: int
    longest_outage_ns: int
    window_ns: int

    @property
    def by_time(self) -> float | None:
        """Share of slots with a good write."""
        return self.good_slots / self.slots if self.slots else None

    @property
    def by_requests(self) -> float | None:
        """Good writes of all that were intended."""
        total = self.good + self.late + self.failed
        return self.good / total if total else None


def good_ns(history: History, bound_ns: int) -> list[int]:
    """The instants at which good writes were acknowledged, in order."""
    writes = zip(history.outcome, history.intended_ns, history.done_ns, strict=True)
    return sorted(done for outcome, intended, done in writes if outcome == ACKED and done - intended <= bound_ns)


def outages(good: Sequence[int], begin_ns: int, end_ns: int, bound_ns: int) -> list[tuple[int, int]]:
    """(begin, end) of the stretches without a good write that are longer than the bound; all of it where there was none."""
    marks = [begin_ns, *(at for at in good if begin_ns < at < end_ns), end_ns]
    return [(one, other) for one, other in pairwise(marks) if other - one > bound_ns]


def availability(trial: Trial, bound_ns: int) -> Availability:
    """Of the time between the first acknowledged write and when the client was told to begin no more."""
    history, end_ns = trial.history, trial.stopped_ns
    good = good_ns(history, bound_ns)
    slots = end_ns // SLOT_NS
    found = outages(good, 0, end_ns, bound_ns)
    counts = {"good": 0, "late": 0, "failed": 0}
    for intended, done, outcome in zip(history.intended_ns, history.done_ns, history.outcome, strict=True):
        if 0 <= intended < end_ns and outcome != AGAIN:
            counts["failed" if outcome != ACKED else "good" if done - intended <= bound_ns else "late"] += 1
    return Availability(
        slots=slots, good_slots=len({at // SLOT_NS for at in good if 0 <= at < slots * SLOT_NS}), **counts,
        outage_ns=sum(end - begin for begin, end in found),
        longest_outage_ns=max((end - begin for begin, end in found), default=0), window_ns=end_ns,
    )  # fmt: skip


def added(parts: Sequence[Availability]) -> Availability:
    """Several trials' together; the longest outage is that of the worst."""
    names = [name for name in Availability.__struct_fields__ if name != "longest_outage_ns"]
    return Availability(
        **{name: sum(getattr(part, name) for part in parts) for name in names},
        longest_outage_ns=max((part.longest_outage_ns for part in parts), default=0),
    )


def recoveries(trial: Trial, bound_ns: int) -> list[Recovered]:
    """One for each event, failures and recoveries alike."""
    begins = [began_ns(event) for event in trial.events]
    # An outage begins with the last write before it, so the event that brings it about comes a little later, within the bound.
    ends = [*(event.begin_ns - bound_ns for event in trial.events[1:]), trial.stopped_ns]
    return [recovery(trial, *one, bound_ns) for one in zip(trial.events, begins, ends, strict=False)]


def began_ns(event: Done) -> int:
    """An event begins once what it asks for is in force; a planned one when it is asked for, since it takes effect meanwhile."""
    return event.begin_ns if event.kind == "planned" else event.end_ns


def recovery(trial: Trial, event: Done, begin_ns: int, until_ns: int, bound_ns: int) -> Recovered:
    """What followed one event. An outage that begins after `until_ns` is another event's; one that begins later after this one
    than the bound is the machine's, unless another node has taken over in it."""
    history = trial.history
    met = [
        end for begin, end in outages(good_ns(history, bound_ns), 0, trial.stopped_ns, bound_ns)
        if begin_ns < end and begin < until_ns and (
            begin <= begin_ns + bound_ns or any(begin < one.opened_ns <= end for one in trial.connections)
        )
    ]  # fmt: skip
    since_ns = met[0] if met else begin_ns
    if met and since_ns >= trial.stopped_ns:
        return Recovered(event=event.text, kind=event.kind, time_ns=None)
    writes = zip(history.done_ns, history.outcome, history.intended_ns, history.connection, strict=True)
    first = min(
        ((done, connection) for done, outcome, intended, connection in writes
         if outcome == ACKED and event.end_ns <= intended < trial.stopped_ns and done >= since_ns),
        default=None,
    )  # fmt: skip
    if first is None:
        return Recovered(event=event.text, kind=event.kind, time_ns=None)
    done_ns, connection = first
    divided = phases(trial, begin_ns, connection, done_ns)
    return Recovered(
        event=event.text, kind=event.kind, time_ns=done_ns - begin_ns, led_by=trial.connections[connection].node,
        phases=divided, route=route(trial, connection, divided["route"]) if divided else None,
    )  # fmt: skip


def phases(trial: Trial, begin_ns: int, connection: int, done_ns: int) -> dict[str, int] | None:
    """How the time until that acknowledgement divides, where its node has come to lead after the event; None where it led before.

    detect: until it stands for election, its deliberate wait included; decide: until a majority has let it; promote: until it
    takes writes; route: until the client has found it; write: until the first is durable and acknowledged.
    """
    led = trial.connections[connection]
    own = [note for note in trial.notes if note.node == led.node]
    won = next((note.at_ns for note in own if note.what == WON and note.epoch == led.epoch), None)
    takes = next((note.at_ns for note in own if note.what == TAKES and note.epoch == led.epoch), None)
    if won is None or takes is None or takes < begin_ns:
        return None
    stands = next((note.at_ns for note in own if note.what == STANDS and begin_ns <= note.at_ns <= won), None)
    if stands is None:
        return None
    marks = [begin_ns, stands, won, takes, max(led.opened_ns, takes), done_ns]
    if marks != sorted(marks):  # A note and an acknowledgement that crossed: no division is better than a wrong one.
        return None
    return {name: end - begin for name, (begin, end) in zip(PHASES, pairwise(marks), strict=True)}


def route(trial: Trial, connection: int, route_ns: int) -> dict[str, int] | None:
    """How the time from taking writes to the client's connection divides; None where that does not go through a door.

    An attempt may have begun before the door was open: it was refused as long as nobody listened, so what came before counts in
    the part that was over last.
    """
    led = trial.connections[connection]
    if led.connected_ns == NEVER:
        return None
    opens = next((note.at_ns for note in trial.notes if (note.node, note.what, note.epoch) == (led.node, OPENS, led.epoch)), None)
    if opens is None:
        return None
    begin_ns = led.opened_ns - route_ns
    marks = [begin_ns]
    for at_ns in (opens, led.dialled_ns, led.connected_ns, led.opened_ns):
        marks.append(min(max(at_ns, marks[-1]), led.opened_ns))
    return {name: end - begin for name, (begin, end) in zip(ROUTE, pairwise(marks), strict=True)}


def quantile(values: Sequence[float], q: float) -> Estimate:
    """The quantile over trials, with the interval of the order statistics where there are enough; without a value for fewer
    than two trials, and for a tail that lies beyond them all."""
    count = len(values)
    if not count or (q > 0.5 and count < round(1 / (1 - q))):
        return Estimate(value=None, count=count)
    ordered = sorted(values)
    value = float(ordered[min(int(q * count), count - 1)]) if count % 2 or q != 0.5 else sum(ordered[count // 2 - 1 :][:2]) / 2
    ranks = order_statistic_ranks(count, q)
    if ranks is None:
        return Estimate(value=value, count=count)
    low, high, confidence = ranks
    return Estimate(value=value, low=float(ordered[low - 1]), high=float(ordered[high - 1]), confidence=confidence, count=count)
