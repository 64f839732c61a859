"""A drill's trials as Chrome trace events, to be opened in Perfetto or chrome://tracing: each trial a process, its lanes threads.

"Trace Event Format", Google; instants are microseconds.
"""

from __future__ import annotations

from typing import Any

from ..analysis.drill_outage import SLOT_NS, good_ns, outages
from ..analysis.drill_recording import ACKED, NEVER, TAKES, DrillRecording, Trial
from ..base.units import NS_PER_US

EVENTS, SERVED, OUTAGES = "events", "client's connection", "outages"


def trace_of(recording: DrillRecording) -> dict[str, Any]:
    """The document."""
    events: list[dict[str, Any]] = []
    for trial in recording.trials:
        events += trial_events(trial, recording.setup.bound_ns)
    return {"displayTimeUnit": "ms", "otherData": {"drill": recording.name}, "traceEvents": events}


def trial_events(trial: Trial, bound_ns: int) -> list[dict[str, Any]]:
    """One trial's: events of the scenario, who served the client, outages, what the nodes noted, acknowledgements a slot."""
    pid = trial.index + 1
    nodes = sorted({note.node for note in trial.notes})
    lanes = {name: at for at, name in enumerate((EVENTS, SERVED, OUTAGES, *nodes), 1)}
    end_ns = max([trial.stopped_ns, *trial.history.done_ns])

    def made(name: str, lane: str, begin_ns: int, end_ns: int | None = None, **more: Any) -> dict[str, Any]:
        shape: dict[str, Any] = {"ph": "i", "s": "p"}
        if end_ns is not None:
            shape = {"ph": "X", "dur": max(end_ns - begin_ns, 0) / NS_PER_US}
        return {"name": name, "pid": pid, "tid": lanes[lane], "ts": begin_ns / NS_PER_US, "args": more, **shape}

    out = [{"name": "process_name", "ph": "M", "pid": pid, "tid": 0, "args": {"name": f"trial {pid}"}}]
    out += [{"name": "thread_name", "ph": "M", "pid": pid, "tid": at, "args": {"name": name}} for name, at in lanes.items()]
    out += [made(event.text, EVENTS, event.begin_ns, planned_us=event.planned_ns / NS_PER_US) for event in trial.events]
    for one in trial.connections:
        closed_ns = end_ns if one.closed_ns == NEVER else one.closed_ns
        out.append(made(f"{one.node}, epoch {one.epoch}", SERVED, one.opened_ns, closed_ns))
    good = good_ns(trial.history, bound_ns)
    out += [made("no write within the bound", OUTAGES, begin, end) for begin, end in outages(good, 0, trial.stopped_ns, bound_ns)]
    for note in trial.notes:
        name = f"takes writes in epoch {note.epoch}" if note.what == TAKES else note.what
        out.append(made(name, note.node, note.at_ns, epoch=note.epoch))
    counts: dict[int, int] = {}
    for done, outcome in zip(trial.history.done_ns, trial.history.outcome, strict=True):
        if outcome == ACKED:
            counts[done // SLOT_NS] = counts.get(done // SLOT_NS, 0) + 1
    for slot in range(end_ns // SLOT_NS + 1):
        out.append({
            "name": "acknowledged in 100 ms", "ph": "C", "pid": pid, "tid": 0, "ts": slot * SLOT_NS / NS_PER_US,
            "args": {"writes": counts.get(slot, 0)},
        })  # fmt: skip
    return out
