"""Made-up trials of a drill and their recording: whatever a test says of a history that no machine had to produce."""

import msgspec

from farwrite.analysis.drill_recording import (
    ACKED,
    FAILED,
    INDETERMINATE,
    KIND,
    NEVER,
    SCHEMA_VERSION,
    Connection,
    Done,
    DrillRecording,
    Found,
    History,
    Noted,
    Trial,
)
from farwrite.commands.drill import setups_of
from farwrite.workload.drill_scenario import Event, Scenario

MS = 1_000_000
KILL, BACK, END = 1_000 * MS, 2_500 * MS, 4_000 * MS
EVENTS = (Event(action="kill", at_ns=KILL, site="near"),)


def trial(index=0, back_ns=BACK, gap_ns=0, lost=0, **changes):
    """100 writes a second, each answered after 3 ms; killed at 1 s, served by far from `back_ns` on. What is intended in between
    fails; with `gap_ns` nothing was acknowledged for so long before the kill. Of near's writes the last `lost` are missing."""
    rows = []
    for number, intended in enumerate(range(0, END, 10 * MS)):
        if intended < KILL - gap_ns:
            rows.append((number, intended, intended, intended + 3 * MS, 0, ACKED))
        elif intended < KILL:
            rows.append((number, intended, intended, KILL + MS, 0, INDETERMINATE))
        elif back_ns is None or intended < back_ns:
            rows.append((number, intended, NEVER, intended + 250 * MS, NEVER, FAILED))
        else:
            rows.append((number, intended, intended, intended + 3 * MS, 1, ACKED))
    names = ("block", "intended_ns", "sent_ns", "done_ns", "connection", "outcome")
    history = History(**{name: [row[at] for row in rows] for at, name in enumerate(names)})
    near = [row[0] for row in rows if row[4] == 0 and row[5] == ACKED]
    gone = near[len(near) - lost :]
    found = [row[0] if row[5] == ACKED and row[0] not in gone else -1 for row in rows]
    notes = [("near", "takes", 1, -50), ("far", "silent", 0, 1_060), ("far", "stands", 0, 2_100), ("far", "won", 2, 2_130),
             ("far", "takes", 2, 2_140)]  # fmt: skip
    made = Trial(
        index=index, stopped_ns=END, history=history, found=[Found(node="far", led=True, block=found)],
        events=[Done(text="kill near", kind="fault", planned_ns=KILL, begin_ns=KILL - MS, end_ns=KILL)],
        connections=[Connection(node="near", epoch=1, opened_ns=-20 * MS, closed_ns=KILL + MS),
                     Connection(node="far", epoch=2, opened_ns=2_145 * MS, closed_ns=NEVER)],
        notes=[Noted(node=node, what=what, epoch=epoch, at_ns=at * MS) for node, what, epoch, at in notes],
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def through_door(index=0, **changes):
    """The same through a door: far opens it 4 ms after it has begun to take writes, and the client's attempt that got in began
    then. Of the writes that had no answer when near was killed there are three."""
    made = trial(index)
    near, far = made.connections
    history = made.history
    outcomes = zip(history.intended_ns, history.outcome, strict=True)
    outcome = [INDETERMINATE if KILL - 30 * MS <= at < KILL else of for at, of in outcomes]
    far = msgspec.structs.replace(far, opened_ns=2_152 * MS, dialled_ns=2_146 * MS, connected_ns=2_148 * MS)
    near = msgspec.structs.replace(near, closed_ns=KILL - MS // 2, dialled_ns=-30 * MS, connected_ns=-25 * MS)
    notes = [*made.notes, Noted(node="far", what="opens", epoch=2, at_ns=2_144 * MS)]
    words = {"connections": [near, far], "notes": notes, "history": msgspec.structs.replace(history, outcome=outcome)} | changes
    return msgspec.structs.replace(made, **words)


def recording(*trials, **words):
    words = {"miles": "150", "protocol": "C", "policy": "consent", "replicas": None, "no_witness": False, "rate": 100.0,
             "depth": 64, "size": "4k", "bound": "250 ms", "peer_timeout": "1 s", "trials": 1, "seed": 1} | words  # fmt: skip
    return DrillRecording(
        schema_version=SCHEMA_VERSION, kind=KIND, farwrite="0", name="primary-killed", started_utc="2030-01-01T00:00:00+00:00",
        command=[], scenario=Scenario(title="The primary's process is killed", end_ns=END, event=EVENTS),
        setup=setups_of(**words)[0], link="ferry: x", links=[], disk="memory", host={}, trials=list(trials),
    )  # fmt: skip
