"""What a drill's client saw of its sessions through a door: which events ended them, and what was left without an answer.

The client has one connection at a time and nobody reconnects it by hand. A connection belongs to the event before its end; a
write is without an answer when it was under way when its connection ended, so that a file system or a database writes it again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .drill_outage import quantile
from .drill_recording import INDETERMINATE, NEVER, DrillRecording, Trial
from .result import Estimate


class Sessions(msgspec.Struct, frozen=True, kw_only=True):
    """What the client saw of one event, over the trials that count."""

    event: str
    trials: int
    ended: int  # trials in which a session ended
    moved: int  # of these, the ones in which the next one was at another site
    never: int  # of these, the ones in which there was no next one before the client was told to begin no more
    away_p50: Estimate  # ns without a connection, in the others
    away_max_ns: int
    unanswered_p50: Estimate  # writes without an answer, where one ended
    unanswered_max: int


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The sessions that ended after one event in one trial."""

    away_ns: int | None  # None: there was no next one
    unanswered: int
    has_moved: bool


def sessions(recording: DrillRecording, counted: Sequence[int]) -> list[Sessions]:
    """One for each event of the scenario, over these trials (by their place in the recording)."""
    found = []
    for index, event in enumerate(recording.scenario.event):
        trials = [one for place in counted if index < len((one := recording.trials[place]).events)]
        ended = [last for trial in trials if (last := ended_after(trial, index)) is not None]
        times = [one.away_ns for one in ended if one.away_ns is not None]
        found.append(Sessions(
            event=event.text, trials=len(trials), ended=len(ended), moved=sum(one.has_moved for one in ended),
            never=len(ended) - len(times), away_p50=quantile(times, 0.5), away_max_ns=max(times, default=0),
            unanswered_p50=quantile([one.unanswered for one in ended], 0.5),
            unanswered_max=max((one.unanswered for one in ended), default=0),
        ))  # fmt: skip
    return found


def ended_after(trial: Trial, index: int) -> Ended | None:
    """What ended between an event and the next one, or the end of the load; None where nothing did.

    An event counts from when it was begun: the connection to a process that is killed ends before the kill has returned.
    """
    begin_ns = trial.events[index].begin_ns
    end_ns = min([one.begin_ns for one in trial.events[index + 1 :]], default=trial.stopped_ns)
    ended = [
        at for at, one in enumerate(trial.connections) if one.closed_ns != NEVER and begin_ns <= one.closed_ns < end_ns
    ]
    if not ended:
        return None
    pairs = [(trial.connections[at], next(iter(trial.connections[at + 1 :]), None)) for at in ended]
    opened = [(one, following) for one, following in pairs if following is not None and following.opened_ns < trial.stopped_ns]
    away_ns = sum(following.opened_ns - one.closed_ns for one, following in opened) if len(opened) == len(pairs) else None
    has_moved = any(following.node != one.node for one, following in opened)
    outcomes = zip(trial.history.outcome, trial.history.connection, strict=True)
    unanswered = sum(outcome == INDETERMINATE and connection in ended for outcome, connection in outcomes)
    return Ended(away_ns=away_ns, unanswered=unanswered, has_moved=has_moved)
